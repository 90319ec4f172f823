//! Which interface each selector leads to, and what it says if it leads to none.

use super::*;

#[test]
fn without_selectors_the_default_route_decides() {
    let lab = Lab::default();
    assert_eq!(lab.chosen(&Selection::default(), IPV4), "eth0 192.168.77.1");
    assert_eq!(lab.chosen(&Selection::default(), IPV6), "eth0 fd77::1");
    assert_eq!(lab.chosen(&Selection::default(), DUAL), "eth0 192.168.77.1 fd77::1");
}

#[test]
fn any_selector_is_explicit_and_interface_names_alone_need_no_default_routes() {
    let can_reach = Selection { can_reach: Some("8.8.8.8".parse().unwrap()), ..Selection::default() };
    let both = |selection: Selection| Selection { interfaces: vec!["eth0".into()], ..selection };
    for (selection, is_explicit, needs_default_routes) in [
        (Selection::default(), false, true),
        (iface(&["eth0"]), true, false),
        (iface(&["eth0", "10.1.0.1"]), true, true),
        (iface(&["10.1.0.1"]), true, true),
        (regex("eth"), true, true),
        (both(regex("eth")), true, true),
        (can_reach.clone(), true, true),
        (both(can_reach), true, true),
        (public(Some("10.1.0.1"), None), true, true),
        (public(None, Some("fd10::1")), true, true),
        (both(public(Some("10.1.0.1"), None)), true, false),
    ] {
        let found = (selection.is_explicit(), selection.needs_default_routes());
        assert_eq!(found, (is_explicit, needs_default_routes), "{selection:?}");
    }
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
fn an_address_that_selects_an_interface_is_used_even_if_another_on_it_is_better() {
    let mut lab = Lab::default();
    lab.interfaces[2].addresses.extend([
        address("10.1.0.9 dynamic"),
        address("fd10::9 temporary"),
        address("fe80::9"),
    ]);
    for (selected, stack, wanted) in [
        ("10.1.0.9", IPV4, "eth1 10.1.0.9"),
        ("fd10::9", IPV6, "eth1 fd10::9"),
        ("fe80::9", IPV6, "eth1 fe80::9"),
        ("10.1.0.9", DUAL, "eth1 10.1.0.9 fd10::1"),
        ("fd10::9", DUAL, "eth1 10.1.0.1 fd10::9"),
    ] {
        assert_eq!(lab.chosen(&iface(&[selected]), stack), wanted);
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
            "{no_default}error looking up interface 203.0.113.5: No interface with given IP found; name the interface with --iface"
        )
    );
    let empty = Lab { ipv4: vec![], ipv6: vec![], ..Lab::default() };
    assert_eq!(
        empty.chosen(&Selection::default(), IPV4),
        format!(
            "{no_default}failed to get default interface: Unable to find default route; Network in net-conf.json needs IPv4 on each node: add a default route, or name the interface with --iface; only if the whole cluster has no IPv4, set EnableIPv4 to false and EnableIPv6 to true"
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

proptest! {
    #[test]
    fn no_host_is_too_odd(
        hosts in proptest::collection::vec((any::<u32>(), "[a-z0-9]{0,4}", any::<u32>(), any::<[u8; 16]>(), any::<u32>()), 0..4),
        name in ".{0,5}", pattern in "[a-z.*]{0,3}", default in any::<u32>(), ipv4 in any::<bool>(), ipv6 in any::<bool>(), kind in 0..4,
    ) {
        let interfaces: Vec<_> = hosts.iter().map(|(index, name, mtu, v6, v4)| {
            let own = [IpAddr::from(*v6), std::net::Ipv4Addr::from(*v4).into()];
            let addresses = own.map(|address| InterfaceAddress::new(address, 0)).to_vec();
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
fn a_route_to_an_address_settles_the_source_and_never_leads_to_an_interface_of_the_pods() {
    let can_reach = Selection { can_reach: Some("8.8.8.8".parse().unwrap()), ..Selection::default() };
    let mut lab = Lab::default();
    lab.interfaces[2].addresses.insert(0, address("10.1.0.9"));
    assert_eq!(lab.chosen(&can_reach, IPV4), "eth1 10.1.0.1");
    lab.interfaces[2] =
        Interface { kind: "bridge".to_owned(), ..interface(3, "cni0", &["10.244.7.1", "10.1.0.1"]) };
    lab.ipv4.clear();
    let told = lab.chosen(&can_reach, IPV4);
    assert!(told.contains("the route leads to cni0, which belongs to pods"), "{told}");
}
