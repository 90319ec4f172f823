ip fou add port 8285 ipproto 4
ip link add flannel0 mtu 1472 type ipip mode ipip local 192.168.77.1 remote any ttl inherit tos 0 nopmtudisc dev eth0 encap fou encap-sport 8285 encap-dport 8285 encap-csum
sysctl -w net/ipv6/conf/flannel0/accept_ra=0
ethtool -K flannel0 tx-checksum-ip-generic off
ip link set flannel0 up
ip addr add 10.244.1.0/32 dev flannel0
ip nexthop replace id 2151677952 via 192.168.77.2 dev flannel0 onlink protocol 70
ip route replace 10.244.2.0/24 nhid 2151677952 proto 70
ip nexthop replace id 2151677953 via 192.168.77.3 dev flannel0 onlink protocol 70
ip route replace 10.244.3.0/24 nhid 2151677953 proto 70
ip nexthop replace id 2151677954 via 192.168.77.4 dev flannel0 onlink protocol 70
ip route replace 10.244.4.0/24 nhid 2151677954 proto 70
