//! Which address of an interface counts, and when a running node moves to another one.

use super::*;

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
    let keeps = "address left, and other nodes still send to the former address";
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
fn a_vpn_that_has_ipv6_does_not_take_over_either() {
    let mut lab = Lab::default();
    lab.interfaces.push(interface(9, "tun0", &["10.8.0.2", "fd08::2"]));
    for routes in [&mut lab.ipv4, &mut lab.ipv6] {
        *routes = vec![DefaultRoute { interface: 9, metric: 0 }];
    }
    let facts = Lab::default().choose(&Selection::default(), DUAL).unwrap();
    let chosen =
        |lab: &Lab| lab.choose_beside(Present::from(&facts), &Selection::default(), DUAL).unwrap().interface;
    assert_eq!(chosen(&lab), "eth0");
    lab.interfaces[1].addresses.retain(|own| own.address != IpAddr::from(facts.ipv6.unwrap().interface));
    assert_eq!(chosen(&lab), "tun0", "its IPv6 address is gone");
}

#[test]
fn an_address_that_reaches_no_other_host_is_none() {
    let mut lab = Lab::default();
    for (text, stack) in [
        ("0.0.0.0", IPV4),
        ("127.0.0.2", IPV4),
        ("224.0.0.5", IPV4),
        ("255.255.255.255", IPV4),
        ("::", IPV6),
        ("::1", IPV6),
        ("ff02::5", IPV6),
    ] {
        lab.interfaces[1].addresses = vec![address(text)];
        let told = lab.chosen(&iface(&["eth0"]), stack);
        assert!(told.contains("address for interface eth0, which"), "{text}: {told}");
    }
}

#[test]
fn the_log_names_the_interface_its_addresses_and_its_mtu() {
    let facts = Lab::default().choose(&Selection::default(), DUAL).unwrap();
    assert_eq!(facts.to_string(), "eth0 192.168.77.1 fd77::1 (MTU 1500)");
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
