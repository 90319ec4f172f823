ip fou add port 9285 ipproto 4
ip link set flannel0 mtu 1472 type ipip mode ipip local 192.168.77.1 remote any ttl inherit tos 0 nopmtudisc dev eth0 encap fou encap-sport 9285 encap-dport 9285 encap-csum
ip fou del port 8285
