ip route del 10.244.2.0/24 metric 0 proto 70
ip link del flannel.1
ip link add flannel.1 address 02:00:00:00:00:01 mtu 1350 type vxlan id 1 local 192.168.77.51 dev eth0 nolearning dstport 4789
sysctl -w net/ipv6/conf/flannel.1/accept_ra=0
ip link set flannel.1 up
ip addr add 10.244.1.0/32 dev flannel.1
bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.168.77.2 self extern_learn permanent
ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent protocol 70
ip nexthop replace id 1077936129 via 10.244.2.0 dev flannel.1 onlink protocol 70
ip route replace 10.244.2.0/24 nhid 1077936129 proto 70
