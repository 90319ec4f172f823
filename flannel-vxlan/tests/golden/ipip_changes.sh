ip nexthop replace id 2147483648 via 192.168.77.22 dev flannel.ipip onlink protocol 70
ip route replace 10.244.2.0/24 nhid 2147483648 proto 70
ip route del 10.244.3.0/24 metric 0 proto 70
ip nexthop del id 2147483649
ip route replace 10.244.4.0/24 via 192.168.77.4 dev eth0 proto 70
ip nexthop del id 2147483650
