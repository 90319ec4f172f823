//! What a changed route invalidates, and which destinations it reroutes.

use std::collections::BTreeSet;

use flannel_vxlan::{
    BLACKHOLE_METRIC, DeviceSpec, FakeKernel, Family, IfName, Invalidation, Notification, ObservedRoute,
    ObservedRouteTo, Overlay, Peer, PrivateKey, ROUTE_PROTOCOL, UnderlayMtu, Via, WireguardSpec,
};

use super::notices::{BOTH, HOST, NOTHING, OVERLAY, PEERS, node, notice};
use super::{eth0, family};

/// `boot`, which `ip route` and upstream flannel use, and `static` (include/uapi/linux/rtnetlink.h).
const RTPROT_BOOT: u8 = 3;
const RTPROT_STATIC: u8 = 4;
const ETH0: u32 = 2;
const V4: u32 = 101;
const V6: u32 = 102;

fn via(gateway: &str) -> ObservedRouteTo {
    ObservedRouteTo::Gateway { gateway: gateway.parse().unwrap(), onlink: false }
}

fn route(subnet: &str, protocol: u8, metric: u32, interface: u32, to: ObservedRouteTo) -> ObservedRoute {
    ObservedRoute { subnet: subnet.parse().unwrap(), protocol, metric, interface, to, no_extra_attrs: true }
}

/// What it invalidates that there is such a route, and that there is none any more.
fn both(overlay: &Overlay, route: ObservedRoute) -> [Invalidation; 2] {
    [false, true].map(|gone| notice(overlay, &[Notification::Route { route, gone }]))
}

#[test]
fn a_peers_route_matters_if_it_is_not_as_this_crate_writes_it() {
    let (overlay, kernel) = node();
    for (subnet, metric, other, via_other) in [
        ("10.244.2.0/24", 0, ETH0, via("192.168.77.2")),
        ("10.244.6.0/24", 0, V4, via("192.168.77.6")),
        ("fd00:10:244:2::/64", 1024, ETH0, via("fd77::2")),
    ] {
        let right = kernel.routes[&(subnet.parse().unwrap(), metric)];
        assert_eq!(both(&overlay, right), [NOTHING, OVERLAY], "{right}");
        for wrong in [
            ObservedRoute { protocol: RTPROT_BOOT, ..right },
            ObservedRoute { interface: other, ..right },
            ObservedRoute { to: ObservedRouteTo::Blackhole, ..right },
            ObservedRoute { no_extra_attrs: false, ..right },
            ObservedRoute { protocol: RTPROT_BOOT, interface: other, to: via_other, ..right },
        ] {
            assert_eq!(both(&overlay, wrong), [OVERLAY, OVERLAY], "{wrong}");
        }
        let elsewhere = ObservedRoute { metric: metric + 1, ..right };
        assert_eq!(both(&overlay, elsewhere), [NOTHING, NOTHING], "{elsewhere}");
    }
    let unknown = route("10.244.9.0/24", ROUTE_PROTOCOL, 0, V4, via("10.244.9.0"));
    assert_eq!(both(&overlay, unknown), [NOTHING, NOTHING]);
}

#[test]
fn the_blackhole_route_matters_if_it_is_gone() {
    let (mut overlay, mut kernel) = node();
    let blackhole =
        |subnet: &str| route(subnet, ROUTE_PROTOCOL, BLACKHOLE_METRIC, 0, ObservedRouteTo::Blackhole);
    assert_eq!(both(&overlay, blackhole("10.244.1.0/24")), [NOTHING, OVERLAY]);
    assert_eq!(both(&overlay, blackhole("10.244.9.0/24")), [NOTHING, NOTHING]);
    assert_eq!(
        both(&overlay, blackhole("fd00:10:244:1::/64")),
        [NOTHING, NOTHING],
        "no option of this family"
    );
    let without = overlay.family(Family::V4).unwrap().clone().blackhole(false);
    overlay.set_family(without);
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(both(&overlay, blackhole("10.244.1.0/24")), [NOTHING, NOTHING]);
}

#[test]
fn a_default_route_of_another_program_matters_to_the_host_and_a_peers_subnet_to_the_peer() {
    let overlay = node().0;
    let foreign = |subnet, interface| {
        let gateway = if subnet == "::/0" { "fd77::9" } else { "192.168.77.9" };
        route(subnet, RTPROT_STATIC, 100, interface, via(gateway))
    };
    assert_eq!(both(&overlay, foreign("0.0.0.0/0", ETH0)), [HOST, HOST]);
    assert_eq!(both(&overlay, foreign("::/0", ETH0)), [HOST, HOST]);
    assert_eq!(both(&overlay, foreign("0.0.0.0/0", V4)), [NOTHING, NOTHING], "through our device");
    let ours = ObservedRoute { protocol: ROUTE_PROTOCOL, ..foreign("0.0.0.0/0", ETH0) };
    assert_eq!(both(&overlay, ours), [NOTHING, NOTHING]);
    let by_hand = route("0.0.0.0/0", RTPROT_BOOT, 0, ETH0, via("192.168.77.9"));
    assert_eq!(both(&overlay, by_hand), [HOST, HOST], "it looks like upstream's");
    assert_eq!(both(&overlay, foreign("10.99.0.0/16", ETH0)), [NOTHING, NOTHING]);
    assert_eq!(both(&overlay, foreign("10.244.9.0/24", ETH0)), [NOTHING, NOTHING], "of no peer");
    assert_eq!(both(&overlay, foreign("10.244.2.0/24", ETH0)), [PEERS, NOTHING]);
}

#[test]
fn another_programs_route_to_a_peers_subnet_keeps_the_peer_out_until_it_is_gone() {
    let (mut overlay, mut kernel) = node();
    let subnet = "10.244.2.0/24".parse().unwrap();
    let foreign = route("10.244.2.0/24", RTPROT_STATIC, 100, ETH0, via("192.168.77.9"));
    let [there, gone] = [false, true].map(|gone| [Notification::Route { route: foreign, gone }]);
    assert_eq!(overlay.notice(&there), PEERS);
    assert!(overlay.is_pending() && overlay.conflict_of(subnet).is_some());
    assert_eq!(overlay.notice(&there), NOTHING, "reported again");
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert!(!kernel.routes.contains_key(&(subnet, 0)));
    assert_eq!(overlay.notice(&gone), PEERS);
    assert_eq!((overlay.is_pending(), overlay.conflict_of(subnet)), (true, None));
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert!(kernel.routes.contains_key(&(subnet, 0)));
}

#[test]
fn a_new_gateway_inside_a_peers_subnet_keeps_the_peer_out_and_its_end_is_observed() {
    let (mut overlay, _) = node();
    let subnet = "10.244.2.0/24".parse().unwrap();
    let to = |gateway, interface| route("10.99.0.0/16", RTPROT_STATIC, 0, interface, via(gateway));
    assert_eq!(both(&overlay, to("10.244.2.7", ETH0)), [PEERS, NOTHING]);
    assert_eq!(both(&overlay, to("10.244.2.7", V4)), [NOTHING, NOTHING], "through our device");
    assert_eq!(both(&overlay, to("10.244.9.7", ETH0)), [NOTHING, NOTHING], "of no peer");
    let [there, gone] =
        [false, true].map(|gone| [Notification::Route { route: to("10.244.2.7", ETH0), gone }]);
    assert_eq!(overlay.notice(&there), PEERS);
    assert!(overlay.conflict_of(subnet).is_some());
    let other = ObservedRoute { subnet: "10.98.0.0/16".parse().unwrap(), ..to("10.244.2.7", ETH0) };
    assert_eq!(notice(&overlay, &[Notification::Route { route: other, gone: false }]), NOTHING, "known");
    assert_eq!(notice(&overlay, &gone), BOTH, "another route may have the same gateway");
    // Without a peer there, a later peer is compared with the gateway.
    let free = [Notification::Route { route: to("10.244.9.7", ETH0), gone: false }];
    assert_eq!(overlay.notice(&free), NOTHING);
    let via = Via::Direct { gateway: "192.168.77.9".parse().unwrap() };
    overlay.set_peer(Peer { subnet: "10.244.9.0/24".parse().unwrap(), via }).unwrap_err();
}

#[test]
fn a_gateway_inside_a_wireguard_network_is_observed_because_the_network_may_cut_it_off() {
    let mtu = UnderlayMtu::new(1500).inside_wireguard(Family::V4).unwrap();
    let wireguard = WireguardSpec::new(PrivateKey::new([1; 32]));
    let (local, address) = ("192.168.77.1".parse().unwrap(), "10.244.1.0".parse().unwrap());
    let own = family(Family::V4).device(DeviceSpec::new(wireguard, eth0(), local, address, mtu));
    let mut overlay = Overlay::new([own]);
    let mut kernel = FakeKernel::new([(local, 24)]);
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let to = |gateway| route("10.99.0.0/16", RTPROT_STATIC, 0, ETH0, via(gateway));
    assert_eq!(both(&overlay, to("10.244.9.7")), [BOTH, NOTHING]);
    assert_eq!(both(&overlay, to("192.168.77.9")), [NOTHING, NOTHING]);
    kernel.gateways.push(("10.244.9.7".parse().unwrap(), ETH0));
    overlay.invalidate();
    let _conflict = overlay.flush(&mut kernel).unwrap();
    assert_eq!(both(&overlay, to("10.244.9.7")), [NOTHING, BOTH]);
    // The route of the network itself.
    let device = kernel.devices.values().next().unwrap().index;
    let network = route("10.244.0.0/16", ROUTE_PROTOCOL, 0, device, ObservedRouteTo::Device);
    let (mut overlay, mut kernel) = (Overlay::new([overlay.family(Family::V4).unwrap().clone()]), kernel);
    kernel.gateways.clear();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(both(&overlay, network), [NOTHING, OVERLAY]);
    assert_eq!(both(&overlay, ObservedRoute { interface: ETH0, ..network }), [OVERLAY, OVERLAY]);
    assert_eq!(
        both(&overlay, ObservedRoute { subnet: "10.99.0.0/16".parse().unwrap(), ..network })[1],
        NOTHING
    );
}

#[test]
fn destinations_are_rerouted_by_other_programs_routes_and_all_of_them_if_the_kernel_may_have_deleted_routes()
{
    let (overlay, kernel) = node();
    let everywhere = &["0.0.0.0/0", "::/0"][..];
    let mut eth0 = kernel.devices[&"flannel.1".parse::<IfName>().unwrap()].clone();
    (eth0.name, eth0.index) = ("eth0".parse().unwrap(), ETH0);
    let link = |index, up| {
        let mut changed = eth0.clone();
        (changed.index, changed.up) = (index, up);
        Notification::Link(Box::new(changed))
    };
    let address =
        |interface, gone| Notification::Address { interface, address: "192.168.77.1".parse().unwrap(), gone };
    let changed = |protocol, interface, gone| Notification::Route {
        route: route("192.168.88.0/24", protocol, 0, interface, via("192.168.77.9")),
        gone,
    };
    for (notification, expected) in [
        (Notification::Overflow, everywhere),
        (link(ETH0, true), &[]),
        (link(ETH0, false), everywhere),
        (link(7, false), &[]),
        (link(V4, false), &[]),
        (Notification::LinkGone { index: ETH0 }, everywhere),
        (Notification::LinkGone { index: 7 }, &[]),
        (address(ETH0, true), everywhere),
        (address(ETH0, false), &[]),
        (address(7, true), &[]),
        (changed(RTPROT_STATIC, ETH0, false), &["192.168.88.0/24"]),
        (changed(RTPROT_BOOT, 7, true), &["192.168.88.0/24"]),
        (changed(ROUTE_PROTOCOL, ETH0, false), &[]),
        (changed(RTPROT_STATIC, V4, false), &[]),
        (changed(RTPROT_STATIC, V6, false), &[]),
    ] {
        let expected: BTreeSet<_> = expected.iter().map(|net| net.parse().unwrap()).collect();
        assert_eq!(overlay.rerouted(std::slice::from_ref(&notification)), expected, "{notification:?}");
    }
    let all = [changed(RTPROT_STATIC, ETH0, false), link(ETH0, false)];
    assert_eq!(overlay.rerouted(&all).len(), 3);
    let (mut overlay, down) = (overlay, [link(ETH0, false)]);
    assert_eq!(overlay.notice(&down), BOTH);
    assert!(overlay.rerouted(&down).is_empty(), "it was down before");
    assert_eq!(overlay.rerouted(&[link(ETH0, true)]).len(), 2);
}
