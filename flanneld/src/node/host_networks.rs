//! The networks of this host, which no pod subnet of it may share addresses with. Pure.

use std::net::IpAddr;

use flannel_cni::gateway;
use flannel_lease::LeaseKey;
use flannel_vxlan::Interface;
use ipnet::IpNet;

use super::Host;

impl Host<'_> {
    /// The networks and addresses of all interfaces that do not belong to the pods, and `gateways`. `uplink` is the
    /// interface between nodes.
    #[must_use]
    pub fn networks_in_use(&self, uplink: &str, gateways: impl IntoIterator<Item = IpAddr>) -> Vec<IpNet> {
        let mut used: Vec<IpNet> =
            self.attached(uplink).flat_map(|(_, net)| [net.trunc(), net.addr().into()]).collect();
        used.extend(gateways.into_iter().map(IpNet::from));
        used.sort_unstable();
        used.dedup();
        used
    }

    /// What of the host shares addresses with this node's own subnets, for an operator; `None` if nothing does.
    #[must_use]
    pub fn overlap(&self, own: LeaseKey, uplink: &str) -> Option<String> {
        own.subnets().find_map(|subnet| {
            let pool = self.networks.iter().find(|network| network.contains(&subnet));
            // A CNI plugin gives the gateway's address to bridges of any kind, or to each pod's interface on the host.
            let is_gateway = |interface: &Interface, net: &IpNet| {
                net.addr() == gateway(subnet).addr() && interface.name != uplink
            };
            let others = self.attached(uplink).filter(|(interface, net)| !is_gateway(interface, net));
            let mut overlaps = others.filter(|(_, net)| {
                let network = net.trunc();
                let holds_all = pool.is_some_and(|pool| network.contains(pool));
                subnet.contains(&net.addr()) || network.contains(&subnet) && !holds_all
            });
            let (interface, net) = overlaps.next()?;
            Some(format!(
                "this node's pod subnet {subnet} shares addresses with {} of interface {}: its pods and that network cannot \
                 reach each other. flanneld keeps the subnet, because pods may use it; choose a pod network that no host \
                 uses, or give this node another subnet: stop flanneld, delete the lease and subnet.env (on Kubernetes the \
                 Node, so that it gets another podCIDR), and start flanneld again",
                net.trunc(),
                interface.name
            ))
        })
    }

    /// Each network that the host is attached to, with the host's address in it.
    fn attached(&self, uplink: &str) -> impl Iterator<Item = (&Interface, IpNet)> {
        let interfaces = self.interfaces.iter().filter(move |found| !self.is_of_pods(found, Some(uplink)));
        interfaces.flat_map(|interface| {
            let nets = interface.addresses.iter().map(|own| IpNet::new(own.address, own.prefix_len));
            nets.flatten().map(move |net| (interface, net))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flannel_vxlan::InterfaceAddress;

    fn interface(name: &str, kind: &str, net: &str) -> Interface {
        let net: IpNet = net.parse().unwrap();
        let addresses = vec![InterfaceAddress::new(net.addr(), net.prefix_len())];
        Interface { name: name.to_owned(), kind: kind.to_owned(), addresses, ..Interface::default() }
    }

    fn overlap(network: &str, own: &str, interfaces: &[Interface]) -> Option<String> {
        let networks = [network.parse().unwrap()];
        let host = Host { interfaces, default_ipv4: &[], default_ipv6: &[], networks: &networks };
        host.overlap(own.parse().unwrap(), "eth0")
    }

    #[test]
    fn a_subnet_that_coincides_with_a_network_of_the_host_is_named_with_the_interface() {
        let lan = [interface("eth0", "", "192.168.77.1/24")];
        let text = overlap("192.168.0.0/16", "192.168.77.0-24", &lan).unwrap();
        assert!(
            text.contains("192.168.77.0/24 shares addresses with 192.168.77.0/24 of interface eth0"),
            "{text}"
        );
        assert_eq!(overlap("192.168.0.0/16", "192.168.78.0-24", &lan), None);
        let wide = [interface("eth1", "", "192.168.129.7/17")];
        assert!(overlap("192.168.0.0/16", "192.168.200.0-24", &wide).is_some());
        let cluster_in_lan = [interface("eth0", "", "10.0.3.7/8")];
        assert_eq!(overlap("10.244.0.0/16", "10.244.1.0-24", &cluster_in_lan), None);
        let inside = [interface("eth0", "", "10.244.1.7/8")];
        assert!(overlap("10.244.0.0/16", "10.244.1.0-24", &inside).is_some(), "the host's own address");
    }

    #[test]
    fn what_a_cni_plugin_makes_is_no_network_of_the_host() {
        let of_pods = [
            interface("cni0", "bridge", "10.244.1.1/24"),
            interface("flannel.1", "vxlan", "10.244.1.0/32"),
            interface("veth1", "veth", "10.244.1.1/32"),
            interface("ovs0", "openvswitch", "10.244.1.1/24"),
        ];
        assert_eq!(overlap("10.244.0.0/16", "10.244.1.0-24", &of_pods), None);
    }

    #[test]
    fn a_new_subnet_keeps_clear_of_the_networks_addresses_and_gateways_of_the_host() {
        let interfaces = [
            interface("eth0", "", "192.168.77.1/24"),
            interface("eth1", "", "192.168.77.1/24"),
            interface("cni0", "bridge", "10.244.1.1/24"),
        ];
        let networks = ["10.244.0.0/16".parse().unwrap()];
        let host =
            Host { interfaces: &interfaces, default_ipv4: &[], default_ipv6: &[], networks: &networks };
        let used = host.networks_in_use("eth0", ["10.244.9.9".parse().unwrap()]);
        assert_eq!(
            used.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.244.9.9/32", "192.168.77.0/24", "192.168.77.1/32"]
        );
    }
}
