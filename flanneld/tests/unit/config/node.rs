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

#[test]
fn without_selectors_the_default_route_decides() {
    let lab = Lab::default();
    assert_eq!(lab.chosen(&Selection::default(), IPV4), "eth0 192.168.77.1");
    assert_eq!(lab.chosen(&Selection::default(), IPV6), "eth0 fd77::1");
    assert_eq!(lab.chosen(&Selection::default(), DUAL), "eth0 192.168.77.1 fd77::1");
}

#[test]
fn each_selector_finds_its_interface() {
    let lab = Lab::default();
    let can_reach = Selection { can_reach: Some("8.8.8.8".parse().unwrap()), ..Selection::default() };
    for (selection, stack, wanted) in [
        (iface(&["eth1"]), IPV4, "eth1 10.1.0.1"),
        (iface(&["nope0", "bare", "eth1", "eth0"]), IPV4, "eth1 10.1.0.1"),
        (iface(&["10.1.0.1"]), IPV4, "eth1 10.1.0.1"),
        (iface(&["::ffff:10.1.0.1"]), IPV4, "eth1 10.1.0.1"),
        (iface(&["fd10::1"]), IPV6, "eth1 fd10::1"),
        (iface(&["10.1.0.1"]), DUAL, "eth1 10.1.0.1 fd10::1"),
        (iface(&["fd10::1"]), DUAL, "eth1 10.1.0.1 fd10::1"), // upstream crashes here
        (iface(&["127.0.0.1"]), IPV4, "lo 127.0.0.1"),
        (regex(r"10\.1"), IPV4, "eth1 10.1.0.1"),
        (regex("eth"), IPV4, "eth0 192.168.77.1"),
        (regex("fd1"), IPV6, "eth1 fd10::1"),
        (regex("fe80"), IPV6, "eth0 fe80::1"),
        (regex("^(10|fd10)"), DUAL, "eth1 10.1.0.1 fd10::1"),
        (regex(r"^10\.1|eth0"), DUAL, "eth0 192.168.77.1 fd77::1"), // half a match settles no address
        (can_reach.clone(), IPV4, "eth1 10.1.0.1"),
        (can_reach, DUAL, "eth1 10.1.0.1 fd10::1"), // upstream is left without an IPv6 address
        (public(Some("10.1.0.1"), None), IPV4, "eth1 10.1.0.1"),
        (public(None, Some("fd10::1")), IPV6, "eth1 fd10::1"),
        (public(Some("10.1.0.1"), Some("fd10::1")), DUAL, "eth1 10.1.0.1 fd10::1"),
    ] {
        assert_eq!(lab.chosen(&selection, stack), wanted, "{selection:?}");
    }
}

#[test]
fn a_selector_that_finds_nothing_says_why_in_upstreams_words() {
    let lab = Lab::default();
    let unreachable = Selection { can_reach: Some("127.0.0.9".parse().unwrap()), ..Selection::default() };
    let no_match = "Failed to find interface to use that matches the interfaces and/or regexes provided: ";
    for (selection, stack, wanted) in [
        (
            iface(&["nope0"]),
            IPV4,
            "Could not find valid interface matching nope0: error looking up interface nope0: no such network interface",
        ),
        (
            iface(&["bare"]),
            IPV4,
            "Could not find valid interface matching bare: failed to find IPv4 address for interface bare, which Network in net-conf.json needs: give it one, name another interface with --iface, or set EnableIPv4 to false and EnableIPv6 to true",
        ),
        (
            iface(&["bare"]),
            IPV6,
            "Could not find valid interface matching bare: failed to find IPv6 address for interface bare, which IPv6Network in net-conf.json needs: give it one, name another interface with --iface, or set EnableIPv6 to false",
        ),
        (
            iface(&["1.2.3.4"]),
            IPV4,
            "Could not find valid interface matching 1.2.3.4: error looking up interface 1.2.3.4: No interface with given IP found",
        ),
        (
            regex("wlan"),
            IPV4,
            "Could not find valid interface matching wlan: Could not match pattern wlan to any of the available network interfaces (lo:[], eth0:[192.168.77.1], eth1:[10.1.0.1], bare:[])",
        ),
        (
            unreachable,
            IPV4,
            "Could not find valid interface matching 127.0.0.9: couldn't lookup route to 127.0.0.9: Network is unreachable",
        ),
        (
            iface(&["a", "b"]),
            IPV4,
            "Could not find valid interface matching a: error looking up interface a: no such network interface; Could not find valid interface matching b: error looking up interface b: no such network interface",
        ),
    ] {
        let told = lab.chosen(&selection, stack);
        assert!(told.starts_with(&format!("{no_match}{wanted}; this host has lo:[")), "{told}");
    }
    let mut other = public(None, Some("fd77::1"));
    other.interfaces = vec!["10.1.0.1".into()];
    assert!(lab.chosen(&other, DUAL).contains("v6 interface eth0 must be the same with v4 interface eth1"));

    let no_default = "Failed to find any valid interface to use: ";
    let nat = lab.chosen(&public(Some("203.0.113.5"), None), IPV4);
    assert_eq!(
        nat,
        format!(
            "{no_default}error looking up interface 203.0.113.5: No interface with given IP found; name an interface with --iface"
        )
    );
    let empty = Lab { ipv4: vec![], ipv6: vec![], ..Lab::default() };
    assert_eq!(
        empty.chosen(&Selection::default(), IPV4),
        format!(
            "{no_default}failed to get default interface: Unable to find default route; Network in net-conf.json needs IPv4: if this host has none, set EnableIPv4 to false and EnableIPv6 to true; name an interface with --iface"
        )
    );
    assert!(
        empty
            .chosen(&Selection::default(), IPV6)
            .contains("failed to get default v6 interface: Unable to find default v6 route")
    );
    let split = Lab { ipv6: vec![DefaultRoute { interface: 3, metric: 1 }], ..Lab::default() };
    assert!(
        split.chosen(&Selection::default(), DUAL).contains(
            "v6 default route interface eth1 must be the same with v4 default route interface eth0"
        )
    );
    let gone = Lab { ipv4: vec![DefaultRoute { interface: 99, metric: 1 }], ..Lab::default() };
    assert!(
        gone.chosen(&Selection::default(), IPV4)
            .contains("Found default route but could not determine interface")
    );
    let mut no_mtu = Lab::default();
    no_mtu.interfaces[1].mtu = 0;
    assert!(
        no_mtu.chosen(&Selection::default(), IPV4).contains("failed to determine MTU for eth0 interface")
    );
}

#[test]
fn the_best_address_is_global_permanent_and_stable() {
    for (addresses, stack, wanted) in [
        (&["169.254.1.1", "10.0.0.5 dynamic", "10.0.0.6"][..], IPV4, "e 10.0.0.6"),
        (&["169.254.1.1", "10.0.0.5 dynamic"][..], IPV4, "e 10.0.0.5"),
        (&["169.254.1.1"][..], IPV4, "e 169.254.1.1"),
        (&["10.0.0.5", "10.0.0.6"][..], IPV4, "e 10.0.0.5"),
        (&["10.0.0.5 deprecated", "10.0.0.6 dynamic"][..], IPV4, "e 10.0.0.6"),
        (&["fe80::1", "fd00::7 dynamic temporary", "fd00::8 dynamic"][..], IPV6, "e fd00::8"),
        (&["fe80::1", "fd00::9 deprecated"][..], IPV6, "e fe80::1"),
    ] {
        let lab = Lab {
            interfaces: vec![interface(1, "e", addresses)],
            ipv4: vec![],
            ipv6: vec![],
            networks: vec![],
        };
        assert_eq!(lab.chosen(&iface(&["e"]), stack), wanted, "{addresses:?}");
    }
}

#[test]
fn an_address_in_use_stays_while_it_is_there_and_no_link_local_one_takes_its_place() {
    let keeps = "address left; flanneld keeps the former address: add a global one";
    let no_ipv4 = &*format!("interface e has only a link-local IPv4 {keeps}");
    let no_ipv6 = &*format!("interface e has only a link-local IPv6 {keeps}");
    for (now, addresses, stack, wanted) in [
        ("10.0.0.5", &["10.0.0.5 dynamic", "10.0.0.100"][..], IPV4, Ok("10.0.0.5")),
        ("10.0.0.5", &["10.0.0.5 dynamic deprecated", "10.0.0.100"][..], IPV4, Ok("10.0.0.100")),
        ("10.0.0.5", &["10.0.0.100"][..], IPV4, Ok("10.0.0.100")),
        ("10.0.0.5", &["169.254.1.1"][..], IPV4, Err(no_ipv4)),
        ("169.254.1.1", &["169.254.1.1"][..], IPV4, Ok("169.254.1.1")),
        ("169.254.1.1", &["169.254.1.1", "10.0.0.5"][..], IPV4, Ok("10.0.0.5")),
        ("fd00::7", &["fd00::7 dynamic temporary", "fd00::8"][..], IPV6, Ok("fd00::7")),
        ("fd00::7", &["fe80::1"][..], IPV6, Err(no_ipv6)),
        ("fd00::7", &["fe80::1", "fd00::7 deprecated", "fd00::9"][..], IPV6, Ok("fd00::9")),
    ] {
        let lab = Lab {
            interfaces: vec![interface(1, "a", &["10.9.9.9", "fd99::9"]), interface(2, "e", addresses)],
            ipv4: vec![DefaultRoute { interface: 2, metric: 0 }],
            ipv6: vec![DefaultRoute { interface: 2, metric: 0 }],
            ..Lab::default()
        };
        let address: IpAddr = now.parse().unwrap();
        let mut present = Present { interface: Some("e"), ..Present::default() };
        match address {
            IpAddr::V4(v4) => present.ipv4 = Some(v4),
            IpAddr::V6(v6) => present.ipv6 = Some(v6),
        }
        let any = Selection { patterns: vec!["[0-9]".parse().unwrap()], ..Selection::default() };
        for selection in [iface(&["e"]), Selection::default(), any] {
            let chosen = lab.choose_beside(present, &selection, stack);
            let is_any = !selection.patterns.is_empty();
            match (chosen, wanted) {
                (Ok(facts), Ok(wanted)) => {
                    let own = facts.ipv4.map(|own| own.interface.into());
                    let own = own.or_else(|| facts.ipv6.map(|own| IpAddr::from(own.interface)));
                    assert_eq!(own, Some(wanted.parse().unwrap()), "{now} {addresses:?} {selection:?}");
                }
                (Err(error), Err(wanted)) => assert!(error.to_string().contains(wanted), "{error}"),
                // A pattern that fits another interface too has somewhere to go.
                (Ok(facts), Err(_)) if is_any => assert_eq!(facts.interface, "a"),
                (chosen, _) => panic!("{now} {addresses:?} {selection:?}: {chosen:?}"),
            }
        }
        // At a start a link-local address is better than none, and what was used last still counts.
        let at_start = Present { interface: None, ..present };
        let chosen = lab.choose_beside(at_start, &iface(&["e"]), stack);
        assert!(chosen.is_ok(), "{now} {addresses:?}: {chosen:?}");
    }
    // A route that names another source is no reason either.
    let lab =
        Lab { interfaces: vec![interface(3, "eth1", &["10.1.0.9 dynamic", "10.1.0.1"])], ..Lab::default() };
    let can_reach = Selection { can_reach: Some("8.8.8.8".parse().unwrap()), ..Selection::default() };
    let present = Present { interface: Some("eth1"), ipv4: Some("10.1.0.9".parse().unwrap()), ipv6: None };
    let facts = lab.choose_beside(present, &can_reach, IPV4).unwrap();
    assert_eq!(facts.ipv4.unwrap().interface.to_string(), "10.1.0.9");
}

#[test]
fn a_public_address_replaces_only_what_peers_are_told() {
    let lab = Lab::default();
    let mut selection = public(Some("203.0.113.5"), Some("2001:db8::5"));
    selection.interfaces = vec!["eth0".into()];
    let facts = lab.choose(&selection, DUAL).unwrap();
    let (ipv4, ipv6) = (facts.ipv4.unwrap(), facts.ipv6.unwrap());
    assert_eq!(
        (ipv4.interface.to_string(), ipv4.public.to_string(), ipv4.public_is_local),
        ("192.168.77.1".into(), "203.0.113.5".into(), false)
    );
    assert_eq!(
        (ipv6.interface.to_string(), ipv6.public.to_string(), ipv6.public_is_local),
        ("fd77::1".into(), "2001:db8::5".into(), false)
    );
    let facts = lab.choose(&Selection::default(), IPV4).unwrap();
    assert!(facts.ipv4.unwrap().public_is_local);
}

fn mtus(backend: &str, stack: Stack, mtu: u32) -> Result<Mtus, String> {
    let text = format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{{backend}}}}}"#);
    let mut lab = Lab::default();
    lab.interfaces[1].mtu = mtu;
    let facts = lab.choose(&Selection::default(), stack).unwrap();
    facts.mtus(&NetConf::parse(text.as_bytes()).unwrap().backend).map_err(|error| error.to_string())
}

#[test]
fn pods_get_what_ipv4s_device_carries_and_without_ipv4_what_ipv6s_does() {
    for (backend, stack, link, device4, device6, pods) in [
        (r#""Type": "vxlan""#, IPV4, 1500, Some(1450), None, 1450),
        (r#""Type": "vxlan""#, IPV6, 1500, None, Some(1430), 1430),
        (r#""Type": "vxlan""#, DUAL, 1500, Some(1450), Some(1430), 1450),
        (r#""Type": "vxlan", "MTU": 1400"#, IPV4, 1500, Some(1350), None, 1350),
        (r#""Type": "vxlan", "MTU": 9000"#, IPV4, 1500, Some(1450), None, 1450), // the link no longer carries 9000
        (r#""Type": "vxlan""#, DUAL, 1350, Some(1300), Some(1280), 1300),
        (r#""Type": "vxlan""#, DUAL, 1349, Some(1299), None, 1299), // too small for IPv6, not for IPv4
        (r#""Type": "wireguard""#, IPV4, 1500, Some(1420), None, 1420),
        (r#""Type": "wireguard", "MTU": 1480"#, DUAL, 1500, Some(1400), Some(1400), 1400),
        (r#""Type": "wireguard""#, DUAL, 1359, Some(1279), None, 1279), // too small for IPv6, not for IPv4
        (r#""Type": "host-gw""#, DUAL, 9000, None, None, 9000),
        (r#""Type": "alloc""#, DUAL, 1500, None, None, 1500),
    ] {
        let wanted = Mtus { ipv4_device: device4, ipv6_device: device6, pods };
        assert_eq!(mtus(backend, stack, link), Ok(wanted), "{backend} {stack:?}");
    }
    let error = mtus(r#""Type": "vxlan""#, IPV6, 1349).unwrap_err();
    assert_eq!(error, "interface eth0: MTU 1349 leaves 1279 bytes for IPv6 pods, 1280 are needed; raise it");
}

#[test]
fn an_mtu_above_the_links_is_refused_by_key_value_and_link() {
    let facts = Lab::default().choose(&Selection::default(), IPV4).unwrap();
    let carries = |mtu: u32| {
        let text = format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "vxlan", "MTU": {mtu}}}}}"#);
        let backend = NetConf::parse(text.as_bytes()).unwrap().backend;
        facts.carries(&backend).map_err(|error| error.to_string())
    };
    assert_eq!(carries(1500), Ok(()));
    assert_eq!(
        carries(1501),
        Err("Backend.MTU 1501 is more than the MTU 1500 of interface eth0: lower it, or remove it to follow the interface".to_owned())
    );
    assert_eq!(facts.carries(&flanneld::config::Backend::HostGw), Ok(()));
}

#[test]
fn host_gw_refuses_a_nat() {
    let of = |ipv4, ipv6, stack| {
        let mut selection = public(ipv4, ipv6);
        selection.interfaces = vec!["eth0".into()];
        let facts = Lab::default().choose(&selection, stack).unwrap();
        facts.mtus(&flanneld::config::Backend::HostGw).map_err(|error| error.to_string())
    };
    let both = Stack { ipv4: true, ipv6: true };
    for (ipv4, ipv6, stack, public) in [
        (Some("203.0.113.5"), None, IPV4, "203.0.113.5"),
        (None, Some("2001:db8::5"), IPV6, "2001:db8::5"),
        (None, Some("2001:db8::5"), both, "2001:db8::5"),
    ] {
        let error = of(ipv4, ipv6, stack).unwrap_err();
        let text = "your PublicIP differs from interface IP, meaning that probably you're on a NAT";
        assert!(error.starts_with(text) && error.contains(public), "{error}");
    }
    assert!(of(Some("192.168.77.1"), Some("fd77::1"), both).is_ok());
}

proptest! {
    #[test]
    fn no_host_is_too_odd(
        hosts in proptest::collection::vec((any::<u32>(), "[a-z0-9]{0,4}", any::<u32>(), any::<[u8; 16]>(), any::<u32>()), 0..4),
        name in ".{0,5}", pattern in "[a-z.*]{0,3}", default in any::<u32>(), ipv4 in any::<bool>(), ipv6 in any::<bool>(), kind in 0..4,
    ) {
        let interfaces: Vec<_> = hosts.iter().map(|(index, name, mtu, v6, v4)| {
            let own = |address| InterfaceAddress { address, prefix_len: 0, permanent: true, deprecated: false, temporary: false, tentative: false, duplicate: false };
            let addresses = vec![own(IpAddr::from(*v6)), own(std::net::Ipv4Addr::from(*v4).into())];
            Interface { index: *index, name: name.clone(), mtu: *mtu, up: false, addresses, ..Interface::default() }
        }).collect();
        let route = vec![DefaultRoute { interface: interfaces.first().map_or(default, |first| first.index), metric: 0 }];
        let lab = Lab { interfaces, ipv4: route.clone(), ipv6: route, ..Lab::default() };
        let selection = match kind {
            0 => Selection::default(),
            1 => iface(&[&name]),
            2 => pattern.parse().map_or_else(|_| Selection::default(), |pattern| Selection { patterns: vec![pattern], ..Selection::default() }),
            _ => Selection { can_reach: Some(IpAddr::from([8, 8, 8, 8])), ..Selection::default() },
        };
        let vxlan = NetConf::parse(br#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#).unwrap().backend;
        if let Ok(facts) = lab.choose(&selection, Stack { ipv4, ipv6 }) {
            let _ = facts.mtus(&vxlan);
        }
    }
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

#[test]
fn no_selector_chooses_an_interface_of_the_pods() {
    let mut lab = with_pods();
    let told = lab.chosen(&regex(r"^10\.244\."), IPV4);
    assert!(told.contains("Could not match pattern") && !told.contains("cni0"), "{told}");
    assert_eq!(lab.chosen(&regex("flannel|docker|cni|eth1"), IPV4), "eth1 10.1.0.1");
    let told = lab.chosen(&iface(&["10.244.7.1"]), IPV4);
    assert!(told.contains("10.244.7.1 is on cni0, which belongs to pods"), "{told}");
    let told = lab.chosen(&iface(&["flannel.1"]), IPV4);
    assert!(told.contains("flannel.1 is flannel's own device"), "{told}");

    // dhcpcd has put the best default route on flannel.1.
    lab.ipv4 = vec![DefaultRoute { interface: 5, metric: 0 }, DefaultRoute { interface: 2, metric: 100 }];
    assert_eq!(lab.chosen(&Selection::default(), IPV4), "eth0 192.168.77.1");
    lab.ipv4.truncate(1);
    assert!(lab.chosen(&Selection::default(), IPV4).contains("Unable to find default route"));

    // A host whose uplink is a bridge, in a network that was chosen too large.
    let uplink = Interface { kind: "bridge".to_owned(), ..interface(8, "br0", &["10.244.200.9"]) };
    lab.interfaces.push(uplink);
    lab.ipv4 = vec![DefaultRoute { interface: 8, metric: 0 }];
    assert_eq!(lab.chosen(&Selection::default(), IPV4), "br0 10.244.200.9");
    assert_eq!(lab.chosen(&regex("^br0$"), IPV4), "br0 10.244.200.9");
}

#[test]
fn a_node_that_runs_stays_on_its_interface_when_its_address_goes_for_a_moment() {
    let mut lab = with_pods();
    let present =
        Present { interface: Some("eth0"), ipv4: Some("192.168.77.1".parse().unwrap()), ipv6: None };
    lab.interfaces[1].addresses.clear();
    lab.ipv4.clear();
    for selection in [Selection::default(), regex("^192|^10.244"), iface(&["192.168.77.1"])] {
        let found = lab.choose_beside(present, &selection, IPV4);
        assert!(found.is_err(), "{selection:?}: {found:?}");
    }
}

#[test]
fn a_vpn_does_not_take_over_the_underlay_of_a_node_that_runs() {
    let mut lab = Lab::default();
    lab.interfaces.push(interface(9, "tun0", &["10.8.0.2"]));
    lab.ipv4.push(DefaultRoute { interface: 9, metric: 0 });
    lab.ipv4.retain(|route| route.interface != 2);
    let present =
        Present { interface: Some("eth0"), ipv4: Some("192.168.77.1".parse().unwrap()), ipv6: None };
    let chosen = |lab: &Lab| lab.choose_beside(present, &Selection::default(), IPV4).unwrap().interface;
    assert_eq!(chosen(&lab), "eth0");
    lab.interfaces[1].addresses.clear();
    assert_eq!(chosen(&lab), "tun0", "its address is gone, so it is no underlay any more");
}

#[test]
fn after_a_restart_the_published_address_decides_between_default_routes() {
    let routes = [DefaultRoute { interface: 3, metric: 0 }, DefaultRoute { interface: 2, metric: 100 }];
    let lab = Lab { ipv4: routes.to_vec(), ..Lab::default() };
    let chosen = |published: Option<&str>| {
        let ipv4 = published.map(|text| text.parse().unwrap());
        let present = Present { interface: None, ipv4, ipv6: None };
        lab.choose_beside(present, &Selection::default(), IPV4).unwrap().interface
    };
    assert_eq!(chosen(None), "eth1");
    assert_eq!(chosen(Some("192.168.77.1")), "eth0");
    assert_eq!(chosen(Some("192.168.77.99")), "eth1", "nobody here has it any more");
}

#[test]
fn an_address_of_the_loopback_interface_is_sent_from_by_the_default_route() {
    let mut lab = Lab::default();
    lab.interfaces[0].addresses.push(address("10.255.0.1"));
    for selection in [iface(&["10.255.0.1"]), regex(r"^10\.255\."), public(Some("10.255.0.1"), None)] {
        let facts = lab.choose(&selection, IPV4).unwrap();
        assert_eq!((facts.interface.as_str(), facts.mtu), ("eth0", 1500), "{selection:?}");
        assert_eq!(facts.ipv4.unwrap().interface.to_string(), "10.255.0.1");
    }
    lab.ipv4.clear();
    lab.ipv6.clear();
    let told = lab.chosen(&iface(&["10.255.0.1"]), IPV4);
    assert!(told.contains("there is no default route that names the interface to send by"), "{told}");
}

#[test]
fn alternative_names_are_names_and_a_missing_name_lists_the_candidates() {
    let mut lab = with_pods();
    lab.interfaces[1].alt_names.push("enp1s0".to_owned());
    assert_eq!(lab.chosen(&iface(&["enp1s0"]), IPV4), "eth0 192.168.77.1");
    assert_eq!(lab.chosen(&regex("^enp1"), IPV4), "eth0 192.168.77.1");
    let told = lab.chosen(&iface(&["eth9"]), IPV4);
    assert!(told.contains("eth0:[192.168.77.1], eth1:[10.1.0.1]"), "{told}");
}

#[test]
fn addresses_that_are_not_ready_come_last_and_duplicates_never() {
    let mut lab = Lab::default();
    let set = |lab: &mut Lab, addresses: &[&str]| {
        lab.interfaces[1].addresses = addresses.iter().map(|text| address(text)).collect();
    };
    set(&mut lab, &["fd77::d dadfailed", "fd77::e deprecated", "fd77::7 tentative", "fd77::1 dynamic"]);
    assert_eq!(lab.chosen(&Selection::default(), IPV6), "eth0 fd77::1");
    set(&mut lab, &["fd77::d dadfailed", "fd77::e deprecated", "fd77::7 tentative"]);
    assert_eq!(lab.chosen(&Selection::default(), IPV6), "eth0 fd77::7");
    set(&mut lab, &["fd77::d dadfailed", "fd77::e deprecated"]);
    assert_eq!(lab.chosen(&Selection::default(), IPV6), "eth0 fd77::e");
    set(&mut lab, &["fd77::d dadfailed"]);
    assert!(
        lab.chosen(&Selection::default(), IPV6).contains("failed to find IPv6 address for interface eth0")
    );
}
