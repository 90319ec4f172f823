//! What each notification invalidates.

use flannel_vxlan::{
    FakeKernel, Family, FdbEntry, IfName, Invalidation, IpipSpec, MacAddr, Notification, ObservedDevice,
    ObservedFdbEntry, ObservedNexthop, Overlay, Peer, ROUTE_PROTOCOL, Via,
};

use super::{device, family, ipip};

const ETH0: u32 = 2;
/// `flannel.1` and `flannel-v6.1`.
const V4: u32 = 101;
const V6: u32 = 102;
const OTHER: u32 = 7;

pub(crate) const NOTHING: Invalidation = Invalidation { overlay: false, peers: false, host: false };
pub(crate) const OVERLAY: Invalidation = Invalidation { overlay: true, ..NOTHING };
pub(crate) const PEERS: Invalidation = Invalidation { peers: true, ..NOTHING };
pub(crate) const HOST: Invalidation = Invalidation { host: true, ..NOTHING };
pub(crate) const BOTH: Invalidation = Invalidation { overlay: true, ..HOST };

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n]).unwrap()
}

/// A node with tunnel peers 2 and 3 in both families and the direct peer `10.244.6.0/24`, and a kernel that has them.
pub(crate) fn node() -> (Overlay, FakeKernel) {
    let v4 = family(Family::V4).device(device(1, "192.168.77.1", "10.244.1.0", mac(1)));
    let v6 = family(Family::V6).device(device(1, "fd77::1", "fd00:10:244:1::", mac(1)));
    let mut overlay = Overlay::new([v4.blackhole(true), v6]);
    let mut kernel =
        FakeKernel::new([("192.168.77.1".parse().unwrap(), 24), ("fd77::1".parse().unwrap(), 64)]);
    for n in [2, 3] {
        for (subnet, underlay) in [
            (format!("10.244.{n}.0/24"), format!("192.168.77.{n}")),
            (format!("fd00:10:244:{n}::/64"), format!("fd77::{n}")),
        ] {
            let via = Via::Tunnel { mac: mac(n), underlay: underlay.parse().unwrap() };
            overlay.set_peer(Peer { subnet: subnet.parse().unwrap(), via }).unwrap();
        }
    }
    let via = Via::Direct { gateway: "192.168.77.6".parse().unwrap() };
    overlay.set_peer(Peer { subnet: "10.244.6.0/24".parse().unwrap(), via }).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let indexes: Vec<u32> = kernel.devices.values().map(|device| device.index).collect();
    assert_eq!(indexes, [V6, V4]);
    (overlay, kernel)
}

/// What these notifications invalidate. The next flush observes the kernel if, and only if, they invalidate the overlay.
#[track_caller]
pub(crate) fn notice(overlay: &Overlay, notifications: &[Notification]) -> Invalidation {
    let mut overlay = overlay.clone();
    let invalid = overlay.notice(notifications);
    assert_eq!(overlay.needs_observe(), invalid.overlay);
    invalid
}

#[test]
fn lost_notifications_invalidate_everything() {
    assert_eq!(notice(&node().0, &[Notification::Overflow]), BOTH);
    assert_eq!(notice(&node().0, &[]), NOTHING);
}

fn link(of: &ObservedDevice, change: impl FnOnce(&mut ObservedDevice)) -> Notification {
    let mut changed = of.clone();
    change(&mut changed);
    Notification::Link(Box::new(changed))
}

/// The kernel's device of this name, and a device of another program.
fn devices(kernel: &FakeKernel, name: &str) -> (ObservedDevice, ObservedDevice) {
    let ours = kernel.devices[&name.parse::<IfName>().unwrap()].clone();
    let other = ObservedDevice { name: "veth7".parse().unwrap(), index: OTHER, ..ours.clone() };
    (ours, other)
}

#[test]
fn a_tunnel_device_is_invalid_if_it_differs_has_another_name_or_is_another_device() {
    let (overlay, kernel) = node();
    for name in ["flannel.1", "flannel-v6.1"] {
        let (ours, other) = devices(&kernel, name);
        let notice = |notification| notice(&overlay, &[notification]);
        assert_eq!(notice(link(&ours, |_| {})), NOTHING);
        assert_eq!(notice(link(&ours, |device| device.up = false)), OVERLAY);
        assert_eq!(notice(link(&ours, |device| device.mtu -= 1)), OVERLAY);
        assert_eq!(notice(link(&ours, |device| device.mac = Some(mac(9)))), OVERLAY);
        assert_eq!(notice(link(&ours, |device| device.name = "renamed".parse().unwrap())), OVERLAY);
        assert_eq!(notice(link(&ours, |device| device.index = OTHER)), OVERLAY, "our name");
        assert_eq!(
            notice(link(&ours, |device| device.addresses.clear())),
            NOTHING,
            "not reported with a link"
        );
        assert_eq!(notice(link(&ours, |device| device.accept_ra = Some(true))), NOTHING);
        assert_eq!(notice(link(&other, |_| {})), HOST);
        assert_eq!(notice(Notification::LinkGone { index: ours.index }), OVERLAY);
        assert_eq!(notice(Notification::LinkGone { index: OTHER }), HOST);
    }
}

#[test]
fn only_the_last_state_of_a_device_counts() {
    let (overlay, kernel) = node();
    let (ours, _) = devices(&kernel, "flannel.1");
    let (right, wrong) = (link(&ours, |_| {}), link(&ours, |device| device.up = false));
    let came = link(&ours, |device| device.index = OTHER);
    let went = Notification::LinkGone { index: OTHER };
    assert_eq!(notice(&overlay, &[wrong.clone(), right.clone()]), NOTHING);
    assert_eq!(notice(&overlay, &[right, wrong]), OVERLAY);
    assert_eq!(
        notice(&overlay, &[came.clone(), went.clone()]),
        HOST,
        "another device with our name came and went"
    );
    assert_eq!(notice(&overlay, &[went, came]), BOTH);
}

#[test]
fn each_change_of_the_uplinks_state_counts_because_it_loses_its_routes_when_it_goes_down() {
    let (mut overlay, kernel) = node();
    let (_, mut eth0) = devices(&kernel, "flannel.1");
    (eth0.name, eth0.index) = ("eth0".parse().unwrap(), ETH0);
    let (up, down) = (link(&eth0, |_| {}), link(&eth0, |eth0| eth0.up = false));
    assert_eq!(notice(&overlay, std::slice::from_ref(&up)), HOST, "it was up before");
    assert_eq!(notice(&overlay, &[down.clone(), up.clone()]), BOTH, "down for a moment");
    assert_eq!(notice(&overlay, &[Notification::LinkGone { index: ETH0 }]), BOTH);
    assert_eq!(overlay.notice(std::slice::from_ref(&down)), BOTH);
    assert_eq!(overlay.notice(&[down]), HOST, "it was down before");
    assert_eq!(overlay.notice(&[up]), BOTH);
}

#[test]
fn an_interface_matters_if_its_routes_or_gateways_keep_a_peer_out() {
    let (_, kernel) = node();
    let (_, veth) = devices(&kernel, "flannel.1");
    let (up, down) = (link(&veth, |_| {}), link(&veth, |veth| veth.up = false));
    let gone = Notification::LinkGone { index: OTHER };
    let of = |index: u32, subnet: &str, gateway: Option<&str>| {
        let (mut overlay, mut kernel) = node();
        let mut route = *kernel.routes.values().next().unwrap();
        (route.subnet, route.protocol, route.metric) = (subnet.parse().unwrap(), 4, 100);
        (route.interface, route.to) = (index, flannel_vxlan::ObservedRouteTo::Device);
        match gateway {
            Some(gateway) => kernel.gateways.push((gateway.parse().unwrap(), index)),
            None => drop(kernel.routes.insert((route.subnet, route.metric), route)),
        }
        overlay.invalidate();
        let _conflict = overlay.flush(&mut kernel).unwrap();
        overlay
    };
    for (overlay, invalid) in [
        (of(OTHER, "10.244.2.0/24", None), BOTH),
        (of(OTHER, "10.244.9.0/24", None), HOST),
        (of(ETH0, "10.244.2.0/24", None), HOST),
        (of(OTHER, "0.0.0.0/0", Some("10.244.2.7")), BOTH),
        (of(OTHER, "0.0.0.0/0", Some("10.244.9.7")), HOST),
        (of(ETH0, "0.0.0.0/0", Some("10.244.2.7")), HOST),
    ] {
        assert_eq!(notice(&overlay, std::slice::from_ref(&down)), invalid);
        assert_eq!(notice(&overlay, std::slice::from_ref(&gone)), invalid);
        assert_eq!(notice(&overlay, std::slice::from_ref(&up)), HOST);
    }
}

#[test]
fn an_address_matters_if_it_is_a_devices_an_uplinks_or_a_peers() {
    for (interface, address, added, deleted) in [
        (V4, "10.244.1.0", NOTHING, OVERLAY),
        (V4, "10.244.1.7", NOTHING, NOTHING),
        (V6, "fd00:10:244:1::", NOTHING, OVERLAY),
        (V6, "fe80::1", NOTHING, NOTHING),
        // An address that the host has is reported again when its lifetime is extended.
        (ETH0, "192.168.77.1", HOST, BOTH),
        (ETH0, "fd77::1", HOST, BOTH),
        (ETH0, "192.168.78.1", BOTH, HOST),
        (ETH0, "2001:db8::1", BOTH, HOST),
        (ETH0, "fe80::1", HOST, HOST),
        (OTHER, "192.168.78.1", HOST, HOST),
        (OTHER, "192.168.77.2", BOTH, HOST),
        (OTHER, "fd77::2", BOTH, HOST),
        (OTHER, "10.244.2.9", BOTH, HOST),
        (OTHER, "10.244.9.9", HOST, HOST),
    ] {
        let of = |gone| Notification::Address { interface, address: address.parse().unwrap(), gone };
        assert_eq!(notice(&node().0, &[of(false)]), added, "{address} on {interface}");
        assert_eq!(notice(&node().0, &[of(true)]), deleted, "no {address} on {interface}");
    }
}

#[test]
fn a_neighbor_entry_matters_if_a_tunnel_peer_needs_it() {
    for (interface, address, entry, present, deleted) in [
        (V4, "10.244.2.0", Some(mac(2)), NOTHING, OVERLAY),
        (V4, "10.244.2.0", Some(mac(3)), OVERLAY, OVERLAY),
        (V4, "10.244.2.0", None, OVERLAY, OVERLAY),
        (V4, "10.244.2.1", Some(mac(9)), NOTHING, NOTHING),
        (V4, "10.244.6.0", Some(mac(9)), NOTHING, NOTHING),
        (ETH0, "10.244.2.0", Some(mac(9)), NOTHING, NOTHING),
        (V6, "fd00:10:244:2::", Some(mac(2)), NOTHING, OVERLAY),
        (V6, "fd00:10:244:2::", Some(mac(9)), OVERLAY, OVERLAY),
        (V4, "fd00:10:244:2::", Some(mac(9)), NOTHING, NOTHING),
        (V6, "10.244.2.0", Some(mac(9)), NOTHING, NOTHING),
    ] {
        let of =
            |gone| Notification::Neighbor { interface, address: address.parse().unwrap(), mac: entry, gone };
        assert_eq!(notice(&node().0, &[of(false)]), present, "{address} {entry:?} on {interface}");
        assert_eq!(notice(&node().0, &[of(true)]), deleted, "no {address} {entry:?} on {interface}");
    }
}

fn fdb(interface: u32, entry: ObservedFdbEntry, gone: bool) -> Notification {
    Notification::FdbEntry { interface, entry, gone }
}

fn fdb_entry(of: Family, n: u8, underlay: &str) -> ObservedFdbEntry {
    ObservedFdbEntry {
        entry: FdbEntry { family: of, mac: mac(n), underlay: underlay.parse().unwrap() },
        ext_learned: true,
        permanent: true,
        no_extra_attrs: true,
        upstream_form: false,
    }
}

#[test]
fn an_fdb_entry_matters_if_a_tunnel_peer_needs_it() {
    let right = fdb_entry(Family::V4, 2, "192.168.77.2");
    let right_v6 = fdb_entry(Family::V6, 2, "fd77::2");
    for (interface, entry, present, deleted) in [
        (V4, right, NOTHING, OVERLAY),
        (V4, ObservedFdbEntry { ext_learned: false, ..right }, NOTHING, OVERLAY),
        (V4, ObservedFdbEntry { permanent: false, ..right }, OVERLAY, OVERLAY),
        (V4, ObservedFdbEntry { no_extra_attrs: false, ..right }, OVERLAY, OVERLAY),
        (V4, fdb_entry(Family::V4, 2, "192.168.77.3"), OVERLAY, NOTHING),
        (V4, fdb_entry(Family::V4, 9, "192.168.77.2"), NOTHING, NOTHING),
        (V4, right_v6, NOTHING, NOTHING),
        (V6, right_v6, NOTHING, OVERLAY),
        (V6, fdb_entry(Family::V6, 2, "fd77::3"), OVERLAY, NOTHING),
        (V6, right, NOTHING, NOTHING),
        (OTHER, ObservedFdbEntry { permanent: false, ..right }, NOTHING, NOTHING),
    ] {
        assert_eq!(notice(&node().0, &[fdb(interface, entry, false)]), present, "{entry:?} on {interface}");
        assert_eq!(notice(&node().0, &[fdb(interface, entry, true)]), deleted, "no {entry:?} on {interface}");
    }
}

#[test]
fn an_fdb_entry_that_was_deleted_and_added_again_counts_as_it_is_now() {
    let (right, other) = (fdb_entry(Family::V4, 2, "192.168.77.2"), fdb_entry(Family::V4, 3, "192.168.77.3"));
    let wrong = ObservedFdbEntry { permanent: false, ..right };
    let notice = |notifications: &[Notification]| notice(&node().0, notifications);
    assert_eq!(notice(&[fdb(V4, right, true), fdb(V4, right, false)]), NOTHING);
    assert_eq!(notice(&[fdb(V4, right, true), fdb(V4, wrong, false)]), OVERLAY);
    assert_eq!(notice(&[fdb(V4, right, false), fdb(V4, right, true)]), OVERLAY);
    assert_eq!(notice(&[fdb(V4, right, true), fdb(V4, other, false)]), OVERLAY);
    assert_eq!(notice(&[fdb(V4, right, true), fdb(OTHER, right, false)]), OVERLAY);
}

#[test]
fn a_nexthop_object_matters_if_it_has_the_id_of_a_peers() {
    let (overlay, kernel) = node();
    let right =
        *kernel.nexthops.values().find(|found| found.gateway == Some([10, 244, 2, 0].into())).unwrap();
    let last = *kernel.nexthops.keys().next_back().unwrap();
    assert_eq!((right.interface, right.protocol, kernel.nexthops.len()), (V4, ROUTE_PROTOCOL, 2));
    for (nexthop, present, deleted) in [
        (right, NOTHING, OVERLAY),
        (ObservedNexthop { protocol: 4, ..right }, OVERLAY, OVERLAY),
        (ObservedNexthop { interface: ETH0, ..right }, OVERLAY, OVERLAY),
        (ObservedNexthop { gateway: None, ..right }, OVERLAY, OVERLAY),
        (ObservedNexthop { gateway: Some([10, 244, 3, 0].into()), ..right }, OVERLAY, OVERLAY),
        (ObservedNexthop { gateway: Some([10, 244, 9, 0].into()), ..right }, OVERLAY, OVERLAY),
        (ObservedNexthop { id: last + 1, ..right }, NOTHING, NOTHING),
        (ObservedNexthop { id: 7, interface: ETH0, ..right }, NOTHING, NOTHING),
    ] {
        let of = |gone| Notification::Nexthop { nexthop, gone };
        assert_eq!(notice(&overlay, &[of(false)]), present, "{nexthop:?}");
        assert_eq!(notice(&overlay, &[of(true)]), deleted, "no {nexthop:?}");
    }
}

#[test]
fn the_nexthop_object_of_an_ipip_peer_names_its_address_on_the_physical_network() {
    let mut overlay = Overlay::new([family(Family::V4).device(ipip(IpipSpec::new()))]);
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    for n in [2, 3] {
        let via = Via::Outer { underlay: format!("192.168.77.{n}").parse().unwrap() };
        overlay.set_peer(Peer { subnet: format!("10.244.{n}.0/24").parse().unwrap(), via }).unwrap();
    }
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    for right in kernel.nexthops.values().copied() {
        let notice = |nexthop| notice(&overlay, &[Notification::Nexthop { nexthop, gone: false }]);
        assert_eq!(notice(right), NOTHING);
        for n in [2, 3, 4].map(|n| [192, 168, 77, n].into()).into_iter().filter(|n| Some(*n) != right.gateway)
        {
            assert_eq!(notice(ObservedNexthop { gateway: Some(n), ..right }), OVERLAY);
        }
    }
}
