ip route replace 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 70
ip -6 route replace fd00:10:244:2::/64 via fd77::2 dev eth0 proto 70
