//! What the MTU of the uplink leaves for pods.

use flannel_lease::Chain;
use flannel_vxlan::{Family, OverlayMtu};

use super::*;

fn mtus(backend: &str, stack: Stack, mtu: u32) -> Result<Mtus, String> {
    let text = format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{{backend}}}}}"#);
    let mut lab = Lab::default();
    lab.interfaces[1].mtu = mtu;
    let facts = lab.choose(&Selection::default(), stack).unwrap();
    facts.mtus(&NetConf::parse(text.as_bytes()).unwrap().backend).map_err(|error| Chain(&error).to_string())
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
        (r#""Type": "ipip""#, IPV4, 1500, Some(1480), None, 1480),
        (r#""Type": "udp""#, IPV4, 1500, Some(1472), None, 1472),
        (r#""Type": "host-gw""#, DUAL, 9000, None, None, 9000),
        (r#""Type": "alloc""#, DUAL, 1500, None, None, 1500),
    ] {
        let device = |mtu: Option<u32>, family| mtu.map(|mtu| OverlayMtu::new(mtu, family).unwrap());
        let (ipv4_device, ipv6_device) = (device(device4, Family::V4), device(device6, Family::V6));
        let wanted = Mtus { ipv4_device, ipv6_device, pods };
        assert_eq!(mtus(backend, stack, link), Ok(wanted), "{backend} {stack:?}");
    }
    let error = mtus(r#""Type": "vxlan""#, IPV6, 1349).unwrap_err();
    assert_eq!(
        error,
        "interface eth0: MTU 1349 leaves too little for pods; raise it: MTU 1279 is too small for IPv6: it needs at least \
         1280 bytes"
    );
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

/// The kernel has removed the IPv6 addresses of eth0.
fn too_small_for_ipv6() -> Lab {
    let mut lab = Lab::default();
    lab.interfaces[1].mtu = 1279;
    lab.interfaces[1].addresses.retain(|own| own.address.is_ipv4());
    lab.ipv6.clear();
    lab
}

#[test]
fn an_uplink_too_small_for_any_ipv6_is_chosen_for_ipv4_alone() {
    let (mut lab, before) = (too_small_for_ipv6(), Lab::default());
    let can_reach = Selection { can_reach: Some("8.8.8.8".parse().unwrap()), ..Selection::default() };
    for selection in [Selection::default(), iface(&["eth0"]), iface(&["192.168.77.1"]), regex("^192|^fd77")] {
        assert_eq!(lab.chosen(&selection, DUAL), "eth0 192.168.77.1", "{selection:?}");
        let facts = before.choose(&selection, DUAL).unwrap();
        let facts = lab.choose_beside(Present::from(&facts), &selection, DUAL).unwrap();
        assert_eq!((facts.interface.as_str(), facts.ipv6), ("eth0", None), "{selection:?}");
        assert!(lab.choose(&selection, IPV6).is_err(), "there is nothing else: {selection:?}");
    }
    lab.interfaces[2].mtu = 1279;
    assert_eq!(lab.chosen(&can_reach, DUAL), "eth1 10.1.0.1");
    lab.interfaces[1].mtu = 1280;
    assert!(lab.chosen(&iface(&["eth0"]), DUAL).contains("failed to find IPv6 address for interface eth0"));
}

#[test]
fn a_default_route_elsewhere_does_not_end_the_use_of_an_uplink_that_is_too_small_for_ipv6() {
    let mut lab = too_small_for_ipv6();
    let facts = Lab::default().choose(&Selection::default(), DUAL).unwrap();
    lab.ipv4 = vec![DefaultRoute { interface: 3, metric: 0 }];
    let facts = lab.choose_beside(Present::from(&facts), &Selection::default(), DUAL).unwrap();
    assert_eq!(facts.interface, "eth0");
}

#[test]
fn an_uplink_that_has_grown_again_has_no_ipv6_before_its_global_address_is_back() {
    let facts = too_small_for_ipv6().choose(&iface(&["eth0"]), DUAL).unwrap();
    let mut lab = Lab::default();
    lab.interfaces[1].addresses.remove(1);
    let error = lab.choose_beside(Present::from(&facts), &iface(&["eth0"]), DUAL).unwrap_err();
    assert!(error.to_string().contains("only a link-local IPv6 address left"), "{error}");
    let facts = Lab::default().choose_beside(Present::from(&facts), &iface(&["eth0"]), DUAL).unwrap();
    assert_eq!(facts.ipv6.unwrap().interface.to_string(), "fd77::1");
}
