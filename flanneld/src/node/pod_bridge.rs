//! A bridge of pods that still has an address of a pod subnet that this node no longer holds. Pure.
//!
//! The CNI plugin `bridge` compares the bridge's addresses with the gateway of a new pod's subnet, and refuses the pod
//! if it finds another IPv4 address first, or an IPv6 address whose network overlaps (`ensureAddr`,
//! plugins/main/bridge/bridge.go). Other IPv6 addresses may stay in addition to the gateway.

use std::collections::BTreeSet;
use std::net::IpAddr;

use flannel_cni::gateway;
use flannel_lease::LeaseKey;
use flannel_vxlan::{Interface, InterfaceAddress};
use ipnet::IpNet;

/// The bridge that CNI's `bridge` plugin makes unless it is told another name.
const CNI_BRIDGE: &str = "cni0";
/// Docker's bridge follows `docker-opts`, not a CNI plugin.
const DOCKER_BRIDGE: &str = "docker0";

/// A bridge with an address of another subnet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StaleBridge {
    name: String,
    /// Its address, with the length of its prefix.
    address: IpNet,
    /// This node's subnet of that family.
    subnet: IpNet,
    /// Whether new pods fail; otherwise they work although the former address stays.
    pub(crate) blocks: bool,
}

/// Where a stale bridge is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodSubnets<'a> {
    /// This node's lease.
    pub(crate) own: LeaseKey,
    /// The cluster's pod networks.
    pub(crate) networks: &'a [IpNet],
    /// Subnets that this node is known to have held before.
    pub(crate) former: &'a [IpNet],
    /// Whether every `cni0` is flannel's, as on Kubernetes; else only one with an address in `networks`.
    pub(crate) owns_cni0: bool,
}

impl PodSubnets<'_> {
    /// The first stale address of each bridge and family, those that block new pods first. Of those that block, one of each
    /// bridge: the bridge goes with all its addresses.
    pub(crate) fn stale_bridges(&self, interfaces: &[Interface]) -> Vec<StaleBridge> {
        let bridges = interfaces.iter().filter(|found| found.kind == "bridge" && found.name != DOCKER_BRIDGE);
        let stale = bridges
            .flat_map(|bridge| self.own.subnets().filter_map(|subnet| self.stale_address(bridge, subnet)));
        let mut stale: Vec<StaleBridge> = stale.collect();
        stale.sort_by_key(|bridge| !bridge.blocks);
        let mut blocking = BTreeSet::new();
        stale.retain(|bridge| !bridge.blocks || blocking.insert(bridge.name.clone()));
        stale
    }

    fn stale_address(&self, bridge: &Interface, subnet: IpNet) -> Option<StaleBridge> {
        let gateway = gateway(subnet);
        let addresses = bridge.addresses.iter().filter_map(network_of);
        let same_family = |net: &IpNet| net.addr().is_ipv4() == subnet.addr().is_ipv4();
        let mut before_gateway = true;
        let mut beside = None;
        for address in addresses.filter(same_family) {
            if address == gateway {
                before_gateway = false;
                continue;
            }
            if !self.is_of_pods(&bridge.name, address, subnet) {
                continue;
            }
            let net = address.trunc();
            let refused = address.addr().is_ipv4() || net.contains(&subnet) || subnet.contains(&net);
            let blocks = before_gateway && refused;
            let stale = StaleBridge { name: bridge.name.clone(), address, subnet, blocks };
            if blocks {
                return Some(stale);
            }
            beside.get_or_insert(stale);
        }
        beside
    }

    /// Whether an address of this bridge was the gateway of pods.
    fn is_of_pods(&self, bridge: &str, address: IpNet, own: IpNet) -> bool {
        let net = address.trunc();
        let inside = self.networks.iter().any(|network| network.contains(&net));
        (bridge == CNI_BRIDGE && (self.owns_cni0 || inside)) || (net != own && self.former.contains(&net))
    }
}

impl StaleBridge {
    /// The name of the bridge.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong and what it does to pods.
    pub(crate) fn problem(&self) -> String {
        let Self { name, address, subnet, blocks } = self;
        match blocks {
            true => format!(
                "bridge {name} has the address {address} but this node's pod subnet is {subnet}: new pods fail with \
                 \"{name}\" already has an IP address different from {}",
                gateway(*subnet)
            ),
            false => format!(
                "bridge {name} still has the address {address} but this node's pod subnet is {subnet}: new pods work, but this node cannot reach pods of other nodes in {}",
                address.trunc()
            ),
        }
    }

    /// What an operator does about it: the commands.
    pub(crate) fn cure(&self) -> String {
        let Self { name, address, blocks, .. } = self;
        let former = address.trunc();
        match blocks {
            true => format!(
                "run `ip link del {name}` on this node, and delete its pods with an address in {former}, which other nodes do not reach; the next pod makes the CNI plugin create the bridge again"
            ),
            false => format!(
                "delete this node's pods with an address in {former}, then run `ip address del {address} dev {name}` on it"
            ),
        }
    }
}

/// An address with its prefix; a link-local address is never a pod gateway.
fn network_of(found: &InterfaceAddress) -> Option<IpNet> {
    let is_link_local = match found.address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    IpNet::new(found.address, found.prefix_len).ok().filter(|_| !is_link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str, addresses: &[&str]) -> Interface {
        let address = |text: &&str| {
            let net: IpNet = text.parse().expect("an address");
            InterfaceAddress::new(net.addr(), net.prefix_len())
        };
        let addresses = addresses.iter().map(address).collect();
        Interface { name: name.to_owned(), kind: "bridge".to_owned(), addresses, ..Interface::default() }
    }

    fn stale(bridge: &Interface, own: &str, former: &[&str], owns_cni0: bool) -> Vec<(String, bool)> {
        let networks = ["10.244.0.0/16".parse().expect("v4"), "fd00:10:244::/48".parse().expect("v6")];
        let former: Vec<IpNet> = former.iter().map(|net| net.parse().expect("a network")).collect();
        let own = own.parse().expect("a lease");
        let subnets = PodSubnets { own, networks: &networks, former: &former, owns_cni0 };
        let found = subnets.stale_bridges(std::slice::from_ref(bridge));
        found.into_iter().map(|found| (found.address.to_string(), found.blocks)).collect()
    }

    #[test]
    fn cni0_with_a_former_ipv4_gateway_blocks_new_pods_and_with_a_former_ipv6_gateway_does_not() {
        const DUAL: &str = "10.244.9.0-24&fd00:10:244:9::-64";
        let found = |addresses: &[&str], own| stale(&bridge("cni0", addresses), own, &[], true);
        let right = ["10.244.9.1/24", "fd00:10:244:9::1/64", "fe80::1/64", "169.254.1.1/16"];
        assert_eq!(found(&right, DUAL), []);
        assert_eq!(found(&[], DUAL), []);
        assert_eq!(found(&["10.244.1.1/24"], "10.244.9.0-24"), [("10.244.1.1/24".to_owned(), true)]);
        let former = ["10.244.1.1/24", "fd00:10:244:1::1/64"];
        let both = [("10.244.1.1/24".to_owned(), true), ("fd00:10:244:1::1/64".to_owned(), false)];
        assert_eq!(found(&former, DUAL), both);
        assert_eq!(found(&["fd00:10:244:1::1/64"], "0.0.0.0-0&fd00:10:244:9::-64"), [both[1].clone()]);
        // The plugin stops at the first address: the gateway, or another one.
        assert_eq!(
            found(&["10.244.9.1/24", "10.244.1.1/24"], "10.244.9.0-24"),
            [("10.244.1.1/24".to_owned(), false)]
        );
        // Another prefix length is another subnet, and an IPv6 network that overlaps is refused too.
        assert_eq!(found(&["10.244.9.1/25"], "10.244.9.0-24"), [("10.244.9.1/25".to_owned(), true)]);
        let longer = "0.0.0.0-0&fd00:10:244:9::-64";
        assert_eq!(found(&["fd00:10:244:9::1/80"], longer), [("fd00:10:244:9::1/80".to_owned(), true)]);
    }

    #[test]
    fn a_bridge_of_somebody_else_is_left_alone() {
        let own = "10.244.9.0-24";
        let blocked = [("10.244.1.1/24".to_owned(), true)];
        let former = bridge("mynet0", &["10.244.1.1/24"]);
        assert_eq!(stale(&former, own, &[], true), []);
        assert_eq!(stale(&former, own, &["10.244.1.0/24"], true), blocked, "a subnet that was held");
        assert_eq!(stale(&bridge("docker0", &["10.244.1.1/24"]), own, &["10.244.1.0/24"], true), []);
        assert_eq!(stale(&bridge("cni0", &["10.244.1.1/24"]), own, &[], false), blocked);
        let foreign = bridge("cni0", &["10.85.0.1/16"]);
        assert_eq!(stale(&foreign, own, &[], false), [], "outside of Kubernetes it may be another network's");
        assert_eq!(stale(&foreign, own, &[], true), [("10.85.0.1/16".to_owned(), true)]);
        let veth = Interface { kind: "veth".to_owned(), ..bridge("cni0", &["10.244.1.1/24"]) };
        assert_eq!(stale(&veth, own, &[], true), []);
    }

    #[test]
    fn the_report_names_the_bridge_both_addresses_the_effect_and_the_commands() {
        let networks = ["10.244.0.0/16".parse().expect("v4"), "fd00:10:244::/48".parse().expect("v6")];
        let own = "10.244.9.0-24&fd00:10:244:9::-64".parse().expect("a lease");
        let subnets = PodSubnets { own, networks: &networks, former: &[], owns_cni0: true };
        let bridge = bridge("cni0", &["10.244.1.1/24", "fd00:10:244:1::1/64"]);
        let [blocks, beside] = &subnets.stale_bridges(&[bridge])[..] else { panic!("one of each family") };
        assert_eq!((blocks.name(), beside.name()), ("cni0", "cni0"));
        let holds = |text: String, parts: &[&str]| {
            for part in parts {
                assert!(text.contains(part), "{text}");
            }
        };
        holds(blocks.problem(), &["cni0 has the address 10.244.1.1/24", "different from 10.244.9.1/24"]);
        holds(blocks.cure(), &["`ip link del cni0`", "10.244.1.0/24"]);
        holds(beside.problem(), &["fd00:10:244:1::1/64", "other nodes in fd00:10:244:1::/64"]);
        holds(beside.cure(), &["`ip address del fd00:10:244:1::1/64 dev cni0`"]);
    }
}
