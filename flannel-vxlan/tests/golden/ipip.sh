ip link add flannel.ipip mtu 1480 type ipip mode ipip local 192.168.77.1 remote any ttl inherit tos 0 nopmtudisc encap none
sysctl -w net/ipv6/conf/flannel.ipip/accept_ra=0
ip link set flannel.ipip up
ip addr add 10.244.1.0/32 dev flannel.ipip
ip nexthop replace id 2147483648 via 192.168.77.2 dev flannel.ipip onlink protocol 70
ip route replace 10.244.2.0/24 nhid 2147483648 proto 70
ip nexthop replace id 2147483649 via 192.168.77.3 dev flannel.ipip onlink protocol 70
ip route replace 10.244.3.0/24 nhid 2147483649 proto 70
ip nexthop replace id 2147483650 via 192.168.77.4 dev flannel.ipip onlink protocol 70
ip route replace 10.244.4.0/24 nhid 2147483650 proto 70
