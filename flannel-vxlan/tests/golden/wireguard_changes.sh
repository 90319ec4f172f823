wg set flannel-wg peer UKYUCbHd0DJemxa3AOcZ6XcsBwALG9d4bpB8ZT0gSV0= preshared-key /dev/stdin endpoint 192.168.77.5:51820 persistent-keepalive 25 allowed-ips 10.244.3.0/24
wg set flannel-wg peer rAGyIJ6GNU+4UyN7XeD0+rE8f8v0M6YcAZNpYX/s8Qs= preshared-key /dev/stdin endpoint 192.168.77.4:51820 persistent-keepalive 25 allowed-ips 10.244.4.0/24
wg set flannel-wg peer zo060cy2M+x7cMF4FKXHbs0CloUFDTRHRboFhw5YfVk= preshared-key /dev/stdin persistent-keepalive 25 allowed-ips 10.244.2.0/24
wg set flannel-wg peer Xf7dO2vUf2+ijuFdlp1bsOpTd01Ii9r53xxuASSz7yI= remove
