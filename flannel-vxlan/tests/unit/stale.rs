//! Which objects of the kernel that no peer needs are stale, and which belong to other programs.

use flannel_vxlan::{
    FakeKernel, Family, FdbEntry, MacAddr, Neighbor, ObservedFdbEntry, ObservedNeighbor, ObservedRoute,
    ObservedRouteTo, Overlay, Peer, ROUTE_PROTOCOL, Via,
};

use super::{device, family};

/// `boot` (include/uapi/linux/rtnetlink.h), which `ip route` and upstream flannel use.
const RTPROT_BOOT: u8 = 3;
/// `static`.
const RTPROT_STATIC: u8 = 4;
const ETH0: u32 = 2;
const FLANNEL: u32 = 101;

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n]).unwrap()
}

/// A node with one peer, `10.244.2.0/24`, and a kernel that has it.
fn node(blackhole: bool) -> (Overlay, FakeKernel) {
    let own = device(1, "192.168.77.1", "10.244.1.0", mac(1));
    let mut overlay = Overlay::new([family(Family::V4).device(own).blackhole(blackhole)]);
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    let via = Via::Tunnel { mac: mac(2), underlay: "192.168.77.2".parse().unwrap() };
    overlay.set_peer(Peer { subnet: "10.244.2.0/24".parse().unwrap(), via }).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(kernel.devices.values().map(|device| device.index).collect::<Vec<_>>(), [FLANNEL]);
    (overlay, kernel)
}

fn route(subnet: &str, protocol: u8, interface: u32, to: ObservedRouteTo) -> ObservedRoute {
    ObservedRoute {
        subnet: subnet.parse().unwrap(),
        protocol,
        metric: 0,
        interface,
        to,
        no_extra_attrs: true,
    }
}

fn via(gateway: &str, onlink: bool) -> ObservedRouteTo {
    ObservedRouteTo::Gateway { gateway: gateway.parse().unwrap(), onlink }
}

#[test]
fn a_route_is_stale_if_this_crate_wrote_it_for_the_overlay_or_upstream_wrote_it_to_the_device() {
    use ObservedRouteTo::{Blackhole, Device};
    for (found, is_stale, why) in [
        (route("10.244.9.0/24", ROUTE_PROTOCOL, FLANNEL, via("10.244.9.0", true)), true, "a former peer"),
        (route("10.244.9.0/24", ROUTE_PROTOCOL, ETH0, via("192.168.77.9", false)), true, "routed directly"),
        (route("10.99.9.0/24", ROUTE_PROTOCOL, FLANNEL, via("10.99.9.0", true)), true, "of another network"),
        (route("10.99.9.0/24", ROUTE_PROTOCOL, ETH0, via("192.168.77.9", false)), false, "another overlay's"),
        (route("10.99.9.0/24", ROUTE_PROTOCOL, 0, via("192.168.77.9", false)), false, "of no interface"),
        (route("10.244.9.0/24", RTPROT_BOOT, FLANNEL, via("10.244.9.0", true)), true, "upstream's"),
        (route("10.244.9.0/24", RTPROT_BOOT, FLANNEL, via("10.244.9.0", false)), false, "not on-link"),
        (route("10.244.9.0/24", RTPROT_BOOT, FLANNEL, via("10.244.9.1", true)), false, "via another host"),
        (route("10.244.9.0/24", RTPROT_BOOT, FLANNEL, Device), false, "an operator's"),
        (route("10.244.9.0/24", RTPROT_BOOT, ETH0, via("10.244.9.0", true)), false, "to another device"),
        (route("10.99.9.0/24", RTPROT_BOOT, FLANNEL, via("10.99.9.0", true)), false, "of no pod network"),
        (
            route("10.244.1.128/25", RTPROT_BOOT, FLANNEL, via("10.244.1.128", true)),
            false,
            "in our own subnet",
        ),
        (route("10.244.9.0/24", RTPROT_STATIC, FLANNEL, via("10.244.9.0", true)), false, "static"),
        (route("10.244.1.0/24", RTPROT_BOOT, 0, Blackhole), true, "upstream's blackhole"),
        (route("10.244.9.0/24", RTPROT_BOOT, 0, Blackhole), false, "an operator's blackhole"),
    ] {
        let (mut overlay, mut kernel) = node(false);
        kernel.routes.insert((found.subnet, found.metric), found);
        let before = kernel.routes.len();
        assert!(overlay.converge(&mut kernel).unwrap().is_clean());
        assert_eq!(!kernel.routes.contains_key(&(found.subnet, found.metric)), is_stale, "{why}: {found}");
        assert_eq!(kernel.routes.len(), before - usize::from(is_stale), "nothing else: {why}");
    }
}

#[test]
fn the_blackhole_route_is_right_with_our_protocol_and_metric_alone() {
    let (mut overlay, mut kernel) = node(true);
    let subnet = "10.244.1.0/24".parse().unwrap();
    let ours = *kernel.routes.values().find(|route| route.subnet == subnet).unwrap();
    assert_eq!(ours.to, ObservedRouteTo::Blackhole);
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
    let others = [
        ObservedRoute { protocol: RTPROT_BOOT, metric: 0, ..ours },
        ObservedRoute { metric: ours.metric - 1, ..ours },
        ObservedRoute { subnet: "10.244.1.0/25".parse().unwrap(), ..ours },
    ];
    for other in others {
        kernel.routes.remove(&(ours.subnet, ours.metric));
        kernel.routes.insert((other.subnet, other.metric), other);
        overlay.converge(&mut kernel).unwrap();
        assert_eq!(kernel.routes.get(&(ours.subnet, ours.metric)), Some(&ours), "instead of {other}");
        let is_left =
            other.metric != ours.metric && kernel.routes.contains_key(&(other.subnet, other.metric));
        assert!(!is_left, "{other}");
    }
    // Without the option it is stale.
    let (mut overlay, mut kernel) = node(false);
    kernel.routes.insert((ours.subnet, ours.metric), ours);
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 1);
    assert!(!kernel.routes.contains_key(&(ours.subnet, ours.metric)));
}

#[test]
fn a_neighbor_entry_is_stale_with_our_protocol_or_with_none_inside_the_pod_network() {
    for (address, protocol, is_stale) in [
        ("10.244.9.0", ROUTE_PROTOCOL, true),
        ("10.99.9.0", ROUTE_PROTOCOL, true),
        ("10.244.9.0", 0, true),
        ("10.99.9.0", 0, false),
        ("10.244.9.0", RTPROT_STATIC, false),
        ("10.99.9.0", RTPROT_STATIC, false),
    ] {
        let (mut overlay, mut kernel) = node(false);
        let neighbor = Neighbor { address: address.parse().unwrap(), mac: mac(9) };
        kernel.neighbors.insert((FLANNEL, neighbor.address), ObservedNeighbor { neighbor, protocol });
        assert!(overlay.converge(&mut kernel).unwrap().is_clean());
        let is_gone = !kernel.neighbors.contains_key(&(FLANNEL, neighbor.address));
        assert_eq!(is_gone, is_stale, "{address} protocol {protocol}");
        assert_eq!(kernel.neighbors.len(), 2 - usize::from(is_stale), "{address} protocol {protocol}");
    }
}

#[test]
fn an_fdb_entry_is_stale_if_it_is_permanent_and_marked_or_as_upstream_writes_it() {
    let entry = FdbEntry { family: Family::V4, mac: mac(9), underlay: "192.168.77.9".parse().unwrap() };
    for (permanent, ext_learned, upstream_form, is_stale) in [
        (true, true, false, true),
        (true, false, true, true),
        (true, false, false, false),
        (false, true, false, false),
        (false, false, false, false),
    ] {
        let (mut overlay, mut kernel) = node(false);
        let found = ObservedFdbEntry { entry, ext_learned, permanent, no_extra_attrs: true, upstream_form };
        kernel.fdb.insert((FLANNEL, entry.mac), found);
        assert!(overlay.converge(&mut kernel).unwrap().is_clean());
        assert_eq!(!kernel.fdb.contains_key(&(FLANNEL, entry.mac)), is_stale, "{found:?}");
    }
    // An entry without a mark goes with the neighbor entry that upstream wrote for it.
    let (mut overlay, mut kernel) = node(false);
    let found = ObservedFdbEntry {
        entry,
        ext_learned: false,
        permanent: true,
        no_extra_attrs: true,
        upstream_form: false,
    };
    kernel.fdb.insert((FLANNEL, entry.mac), found);
    let neighbor = Neighbor { address: "10.244.9.0".parse().unwrap(), mac: entry.mac };
    kernel.neighbors.insert((FLANNEL, neighbor.address), ObservedNeighbor { neighbor, protocol: 0 });
    assert!(overlay.converge(&mut kernel).unwrap().is_clean());
    assert_eq!((kernel.fdb.len(), kernel.neighbors.len()), (1, 1));
}

#[test]
fn every_wrong_route_of_a_peer_is_replaced_and_the_right_one_is_left_alone() {
    let (_, kernel) = node(false);
    let key = ("10.244.2.0/24".parse().unwrap(), 0);
    let right = kernel.routes[&key];
    for wrong in [
        ObservedRoute { protocol: RTPROT_BOOT, ..right },
        ObservedRoute { interface: ETH0, to: via("192.168.77.2", false), ..right },
        ObservedRoute { to: via("10.244.2.0", true), ..right },
        ObservedRoute { to: via("10.244.2.1", true), ..right },
        ObservedRoute { no_extra_attrs: false, ..right },
        ObservedRoute { interface: ETH0, no_extra_attrs: false, to: via("192.168.77.2", false), ..right },
    ] {
        let (mut overlay, mut kernel) = node(false);
        kernel.routes.insert(key, wrong);
        let report = overlay.converge(&mut kernel).unwrap();
        assert!(report.is_clean() && report.steps > 0, "{wrong}");
        assert_eq!(kernel.routes[&key], right, "instead of {wrong}");
        assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
    }
}

#[test]
fn an_ipv6_device_keeps_its_own_and_link_local_addresses_and_an_ipv4_device_those_of_other_networks() {
    let own = [("192.168.77.1", "10.244.1.0"), ("fd77::1", "fd00:10:244:1::")];
    let families = [Family::V4, Family::V6].into_iter().zip(own);
    let mut overlay = Overlay::new(
        families.map(|(of, (local, address))| family(of).device(device(1, local, address, mac(1)))),
    );
    let addresses = ["192.168.77.1", "fd77::1"].map(|address| (address.parse().unwrap(), 24));
    let mut kernel = FakeKernel::new(addresses);
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    for (name, stray, is_removed) in [
        ("flannel.1", "10.244.7.0", true),
        ("flannel.1", "192.0.2.1", false),
        ("flannel-v6.1", "fd00:10:244:7::", true),
        ("flannel-v6.1", "2001:db8::1", true),
        ("flannel-v6.1", "fe80::1", false),
    ] {
        let mut kernel = kernel.clone();
        let name = name.parse().unwrap();
        let stray = (stray.parse().unwrap(), 24_u8);
        kernel.devices.get_mut(&name).unwrap().addresses.push(stray);
        overlay.invalidate();
        assert!(overlay.flush(&mut kernel).unwrap().is_clean());
        assert_eq!(!kernel.devices[&name].addresses.contains(&stray), is_removed, "{name} {stray:?}");
    }
}

#[test]
fn the_kernel_is_observed_again_only_when_unknown_objects_are_no_longer_kept() {
    let (mut overlay, mut kernel) = node(false);
    for (keep, is_observed) in [(false, false), (true, false), (true, false), (false, true)] {
        overlay.keep_unknown(keep);
        assert_eq!(overlay.needs_observe(), is_observed, "{keep}");
    }
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
}
