//! The choice of the uplink, on an imagined host. No privileges needed.

mod addresses;
mod mtu;
mod selectors;

use std::net::IpAddr;

use flannel_lease::Stack;
use flannel_vxlan::{DefaultRoute, Interface, InterfaceAddress, RouteLookup};
use flanneld::config::{NetConf, Selection};
use flanneld::node::{Host, Mtus, NodeError, NodeFacts, Present, choose};
use ipnet::IpNet;
use proptest::prelude::*;

const IPV4: Stack = Stack { ipv4: true, ipv6: false };
const IPV6: Stack = Stack { ipv4: false, ipv6: true };
const DUAL: Stack = Stack { ipv4: true, ipv6: true };

fn address(text: &str) -> InterfaceAddress {
    let (text, flags) = text.split_once(' ').unwrap_or((text, ""));
    InterfaceAddress {
        address: text.parse().unwrap(),
        prefix_len: 24,
        permanent: !flags.contains("dynamic"),
        deprecated: flags.contains("deprecated"),
        temporary: flags.contains("temporary"),
        tentative: flags.contains("tentative"),
        duplicate: flags.contains("dadfailed"),
    }
}

fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
    let addresses = addresses.iter().map(|text| address(text)).collect();
    let (kind, loopback) = (String::new(), name == "lo");
    let mtu = if loopback { 65_536 } else { 1500 };
    Interface {
        index,
        name: name.into(),
        alt_names: Vec::new(),
        kind,
        mac: None,
        loopback,
        mtu,
        up: true,
        addresses,
    }
}

/// lo; eth0 with the default routes; eth1; bare without an address.
fn interfaces() -> Vec<Interface> {
    vec![
        interface(1, "lo", &["127.0.0.1", "::1"]),
        interface(2, "eth0", &["192.168.77.1", "fd77::1", "fe80::1"]),
        interface(3, "eth1", &["10.1.0.1", "fd10::1"]),
        interface(4, "bare", &[]),
    ]
}

struct Lab {
    interfaces: Vec<Interface>,
    ipv4: Vec<DefaultRoute>,
    ipv6: Vec<DefaultRoute>,
    networks: Vec<IpNet>,
}

impl Default for Lab {
    fn default() -> Self {
        let route = |interface, metric| DefaultRoute { interface, metric };
        Self {
            interfaces: interfaces(),
            ipv4: vec![route(3, 100), route(2, 0)],
            ipv6: vec![route(2, 1024)],
            networks: vec!["10.244.0.0/16".parse().unwrap()],
        }
    }
}

impl Lab {
    fn choose(&self, selection: &Selection, stack: Stack) -> Result<NodeFacts, NodeError> {
        self.choose_beside(Present::default(), selection, stack)
    }

    fn choose_beside(
        &self,
        present: Present<'_>,
        selection: &Selection,
        stack: Stack,
    ) -> Result<NodeFacts, NodeError> {
        let host = Host {
            interfaces: &self.interfaces,
            default_ipv4: &self.ipv4,
            default_ipv6: &self.ipv6,
            networks: &self.networks,
        };
        choose(selection, stack, host, present, |target| {
            let source = Some("10.1.0.1".parse::<IpAddr>().unwrap());
            let found = RouteLookup { interface: 3, source, gateway: None };
            if target.is_loopback() { Err("Network is unreachable") } else { Ok(found) }
        })
    }

    /// `eth0 192.168.77.1 fd77::1`
    fn chosen(&self, selection: &Selection, stack: Stack) -> String {
        match self.choose(selection, stack) {
            Ok(facts) => {
                let ipv4 = facts.ipv4.map(|own| own.interface.to_string());
                let ipv6 = facts.ipv6.map(|own| own.interface.to_string());
                [Some(facts.interface), ipv4, ipv6].into_iter().flatten().collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }
}

fn iface(names: &[&str]) -> Selection {
    Selection { interfaces: names.iter().map(ToString::to_string).collect(), ..Selection::default() }
}

fn regex(pattern: &str) -> Selection {
    Selection { patterns: vec![pattern.parse().unwrap()], ..Selection::default() }
}

fn public(ipv4: Option<&str>, ipv6: Option<&str>) -> Selection {
    let public_ipv4 = ipv4.map(|text| text.parse().unwrap());
    Selection { public_ipv4, public_ipv6: ipv6.map(|text| text.parse().unwrap()), ..Selection::default() }
}

/// A host on which flannel and Docker run: their devices, with addresses in the pod network.
fn with_pods() -> Lab {
    let mut lab = Lab::default();
    lab.interfaces.push(interface(5, "flannel.1", &["10.244.7.0"]));
    for (index, name, address) in [(6, "cni0", "10.244.7.1"), (7, "docker0", "10.244.99.1")] {
        lab.interfaces.push(Interface { kind: "bridge".to_owned(), ..interface(index, name, &[address]) });
    }
    lab
}
