ip link add flannel-wg mtu 1420 type wireguard
wg set flannel-wg private-key /dev/stdin listen-port 51820 fwmark 0
sysctl -w net/ipv6/conf/flannel-wg/accept_ra=0
ip link set flannel-wg up
ip addr add 10.244.1.0/32 dev flannel-wg
ip link add flannel-wg-v6 mtu 1420 type wireguard
wg set flannel-wg-v6 private-key /dev/stdin listen-port 51821 fwmark 0
sysctl -w net/ipv6/conf/flannel-wg-v6/accept_ra=0
ip link set flannel-wg-v6 up
ip addr add fd00:10:244:1::/128 dev flannel-wg-v6 nodad
ip route replace 10.244.0.0/16 dev flannel-wg proto 70
ip -6 route replace fd00:10:244::/48 dev flannel-wg-v6 proto 70
wg set flannel-wg peer Xf7dO2vUf2+ijuFdlp1bsOpTd01Ii9r53xxuASSz7yI= preshared-key /dev/null endpoint 192.168.77.3:51820 persistent-keepalive 0 allowed-ips 10.244.3.0/24
wg set flannel-wg peer zo060cy2M+x7cMF4FKXHbs0CloUFDTRHRboFhw5YfVk= preshared-key /dev/null endpoint 192.168.77.2:51820 persistent-keepalive 0 allowed-ips 10.244.2.0/24
wg set flannel-wg-v6 peer Xf7dO2vUf2+ijuFdlp1bsOpTd01Ii9r53xxuASSz7yI= preshared-key /dev/null endpoint [fd77::3]:51821 persistent-keepalive 0 allowed-ips fd00:10:244:3::/64
wg set flannel-wg-v6 peer zo060cy2M+x7cMF4FKXHbs0CloUFDTRHRboFhw5YfVk= preshared-key /dev/null endpoint [fd77::2]:51821 persistent-keepalive 0 allowed-ips fd00:10:244:2::/64
