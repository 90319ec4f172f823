bridge fdb replace 02:00:00:00:00:16 dev flannel.1 dst 192.168.77.22 self extern_learn permanent
ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:16 dev flannel.1 nud permanent protocol 70
ip nexthop replace id 1077936128 via 10.244.2.0 dev flannel.1 onlink protocol 70
ip route replace 10.244.2.0/24 nhid 1077936128 proto 70
bridge fdb del 02:00:00:00:00:02 dev flannel.1 dst 192.168.77.2 self
ip route replace 10.244.3.0/24 via 192.168.77.3 dev eth0 proto 70
ip nexthop del id 1077936129
ip neigh del 10.244.3.0 dev flannel.1
bridge fdb del 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.3 self
ip route del 10.244.4.0/24 metric 0 proto 70
ip nexthop del id 1077936130
ip neigh del 10.244.4.0 dev flannel.1
bridge fdb del 02:00:00:00:00:04 dev flannel.1 dst 192.168.77.4 self
