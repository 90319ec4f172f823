ip link set flannel.1 type vxlan id 1 local 192.168.77.51 dev eth0 nolearning
ip link set flannel.1 mtu 1350
