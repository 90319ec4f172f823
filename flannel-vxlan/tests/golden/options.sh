ip link add flannel.1 address 02:00:00:00:00:01 mtu 1450 type vxlan id 1 local 192.168.77.1 dev eth0 learning dstport 4789 gbp
sysctl -w net/ipv6/conf/flannel.1/accept_ra=0
ethtool -K flannel.1 tx-checksum-ip-generic off
ip link set flannel.1 up
ip addr add 10.244.1.0/32 dev flannel.1
ip route replace 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 70
ip route replace blackhole 10.244.1.0/24 metric 4294967295 proto 70
