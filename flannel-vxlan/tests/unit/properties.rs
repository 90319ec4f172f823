//! Properties for random peers and random states of the kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_vxlan::{
    FakeKernel, Family, FlannelDevice, IfName, IpipSpec, Kernel, Links, MacAddr, Notification, ObservedRoute,
    ObservedRouteTo, Overlay, Peer, PeerConflict, PeerStatus, PeerStatusChange, Plan, Step, Via, Vni,
};
use ipnet::IpNet;
use proptest::prelude::*;

use super::{device, family, ipip};

fn overlay() -> Overlay {
    overlay_of(1)
}

/// Of this VNI; for `IPIP` with an IP-in-IP device in IPv4.
fn overlay_of(vni: u32) -> Overlay {
    let spec = |of: Family, local: &str, address: &str| {
        let vni = if vni == IPIP { 1 } else { vni };
        family(of).device(device(vni, local, address, MacAddr::derived(address.as_bytes())))
    };
    let mut overlay = Overlay::new([
        spec(Family::V4, "192.168.77.1", "10.244.1.0"),
        spec(Family::V6, "fd77::1", "fd00:10:244:1::"),
    ]);
    if vni == IPIP {
        overlay.set_family(family(Family::V4).device(ipip(IpipSpec::new())));
    }
    overlay
}

const IPIP: u32 = 0;

fn device_name(vni: u32, family: Family) -> IfName {
    match (vni, family) {
        (IPIP, Family::V4) => FlannelDevice::Ipip.name(family),
        _ => Vni::new(vni.max(1)).unwrap().device_name(family),
    }
}

fn kernel() -> FakeKernel {
    FakeKernel::new([("192.168.77.1".parse().unwrap(), 24), ("fd77::1".parse().unwrap(), 64)])
}

/// Few different values, so that peers often share a subnet, a MAC address or an underlay address, lie in each other's
/// subnets, and sometimes harm the host.
fn peer() -> impl Strategy<Value = Peer> {
    (any::<bool>(), 0..12_u8, 0..6_u8, 0..8_u8, 0..5_u8, 0..8_u8).prop_map(
        |(v4, subnet, mac, host, kind, length)| {
            let length = [0, 0, 0, 0, 0, 1, 2, 7][usize::from(length)];
            let (subnet, address): (IpNet, IpAddr) = if v4 {
                let subnet = Ipv4Addr::new(10, 244, subnet, 0);
                let subnet = IpNet::new(subnet.into(), if length == 7 { 25 } else { 24 - length }).unwrap();
                let inside = Ipv4Addr::new(10, 244, host, 9);
                (subnet, if host > 5 { inside } else { Ipv4Addr::new(192, 168, 77, host + 1) }.into())
            } else {
                let subnet = Ipv6Addr::new(0xfd00, 0x10, 0x244, subnet.into(), 0, 0, 0, 0);
                let subnet = IpNet::new(subnet.into(), if length == 7 { 65 } else { 64 - length }).unwrap();
                let inside = Ipv6Addr::new(0xfd00, 0x10, 0x244, host.into(), 0, 0, 0, 9);
                let outside = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(host) + 1);
                (subnet, if host > 5 { inside } else { outside }.into())
            };
            let subnet = subnet.trunc();
            let via = match kind {
                0 => Via::Direct { gateway: address },
                1 if v4 => Via::Outer { underlay: address },
                _ => Via::Tunnel { mac: MacAddr::new([2, 0, 0, 0, 0, mac]).unwrap(), underlay: address },
            };
            Peer { subnet, via }
        },
    )
}

/// Few different ages, so that some peers are as old as others.
fn age(via: Via) -> u64 {
    match via.underlay() {
        IpAddr::V4(v4) => u64::from(v4.octets()[3] % 3),
        IpAddr::V6(v6) => u64::from(v6.segments()[7] % 3),
    }
}

#[derive(Clone, Debug)]
enum Event {
    Set(Peer),
    Remove(IpNet),
    Flush,
    /// Another program adds or deletes (true) a route to this subnet, and the monitor reports it.
    Route(IpNet, bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => peer().prop_map(Event::Set),
        2 => peer().prop_map(|peer| Event::Remove(peer.subnet)),
        2 => Just(Event::Flush),
        1 => (peer(), any::<bool>()).prop_map(|(peer, gone)| Event::Route(peer.subnet, gone)),
    ];
    prop::collection::vec(event, 0..40)
}

/// A static route with the metric that NetworkManager assigns.
fn route_of_others(subnet: IpNet) -> ObservedRoute {
    let gateway = if subnet.addr().is_ipv4() { "192.168.77.254" } else { "fd77::254" }.parse().unwrap();
    let to = ObservedRouteTo::Gateway { gateway, onlink: false };
    ObservedRoute { subnet, protocol: 4, metric: 100, interface: 2, to, no_extra_attrs: true }
}

/// Whether the reported status changes add up to the current status.
fn follow(overlay: &mut Overlay, known: &mut BTreeMap<IpNet, PeerStatus>) -> bool {
    for PeerStatusChange { peer, before, now } in overlay.take_status_changes() {
        assert_eq!(known.get(&peer).copied(), before);
        assert_ne!(before, now, "nothing has changed");
        match now {
            Some(now) => drop(known.insert(peer, now)),
            None => drop(known.remove(&peer)),
        }
    }
    let conflicts: BTreeMap<IpNet, PeerConflict> = overlay.conflicts().collect();
    let shares = |peer: &Peer| {
        let first = overlay.peers_at(peer.via.underlay()).next();
        !conflicts.contains_key(&peer.subnet) && first != Some(peer.subnet)
    };
    let shared = overlay.peers().filter(shares);
    let mut all: BTreeMap<IpNet, PeerStatus> =
        shared.map(|peer| (peer.subnet, PeerStatus::SharesUnderlay(peer.via.underlay()))).collect();
    let subnets: Vec<IpNet> = overlay.peers().map(|peer| peer.subnet).collect();
    let nested = subnets.windows(2).filter(|pair| pair[0].contains(&pair[1]));
    all.extend(nested.map(|pair| {
        (pair[0], PeerStatus::HoldsSubnet(pair[1], overlay.peer(pair[1]).unwrap().via.underlay()))
    }));
    all.extend(conflicts.iter().map(|(subnet, conflict)| (*subnet, PeerStatus::NotProgrammed(*conflict))));
    all == *known
}

fn play(overlay: &mut Overlay, kernel: &mut FakeKernel, events: &[Event]) {
    for event in events {
        match event {
            Event::Set(peer) => drop(overlay.set_peer_since(*peer, age(peer.via))),
            Event::Remove(subnet) => drop(overlay.remove_peer(*subnet)),
            Event::Flush => assert!(overlay.flush(kernel).unwrap().is_clean()),
            Event::Route(subnet, gone) => {
                let route = route_of_others(*subnet);
                match gone {
                    true => drop(kernel.routes.remove(&(*subnet, route.metric))),
                    false => drop(kernel.routes.insert((*subnet, route.metric), route)),
                }
                let notification = Notification::Route { route, gone: *gone };
                let _noted = overlay.notice(&[notification]);
            }
        }
    }
}

/// Everything in the kernel except the IDs of nexthop objects.
fn contents(kernel: &FakeKernel) -> String {
    let mut routes = String::new();
    for route in kernel.routes.values() {
        let to = match route.to {
            ObservedRouteTo::Nexthop { id } => format!("{:?}", kernel.nexthops[&id].gateway),
            to => format!("{to:?}"),
        };
        routes += &format!("{} {} {} {to}\n", route.subnet, route.metric, route.interface);
    }
    format!("{:#?}\n{:#?}\n{routes}{}", kernel.neighbors, kernel.fdb, kernel.nexthops.len())
}

proptest! {
    /// Changes one by one lead to the same state as all peers at once, and leave nothing stale.
    #[test]
    fn incremental_changes_and_a_fresh_start_lead_to_the_same_state(
        vni in IPIP..=1,
        events in events(),
    ) {
        let (mut overlay, mut stepwise) = (overlay_of(vni), kernel());
        let mut known = BTreeMap::new();
        for event in &events {
            play(&mut overlay, &mut stepwise, std::slice::from_ref(event));
            if !overlay.needs_observe() {
                prop_assert!(follow(&mut overlay, &mut known), "{event:?}: {known:#?}");
            }
        }
        prop_assert!(overlay.flush(&mut stepwise).unwrap().is_clean());
        prop_assert!(follow(&mut overlay, &mut known));
        let before = contents(&stepwise);
        prop_assert_eq!(overlay.converge(&mut stepwise).unwrap().steps, 0, "{}", before);
        prop_assert!(overlay.take_status_changes().is_empty());

        let (mut fresh, mut at_once) = (overlay_of(vni), kernel());
        at_once.routes = stepwise.routes.clone();
        at_once.routes.retain(|_, route| route.protocol != flannel_vxlan::ROUTE_PROTOCOL);
        for peer in overlay.peers() {
            let _conflict = fresh.set_peer_since(peer, age(peer.via));
        }
        prop_assert!(fresh.converge(&mut at_once).unwrap().is_clean());
        prop_assert_eq!(contents(&stepwise), contents(&at_once));
    }

    /// While not all peers are known, unknown peers keep their objects and known peers get theirs. The end state is the
    /// same as if nothing had been kept.
    #[test]
    fn unknown_peers_are_kept_until_all_peers_are_known(
        left in prop::collection::vec(peer(), 0..20),
        known in prop::collection::vec(peer(), 0..20),
    ) {
        let (mut old, mut kernel) = (overlay(), kernel());
        for peer in &left {
            let _conflict = old.set_peer_since(*peer, age(peer.via));
        }
        prop_assert!(old.flush(&mut kernel).unwrap().is_clean());
        let routes: Vec<_> = kernel.routes.keys().copied().collect();

        let mut new = overlay();
        new.keep_unknown(true);
        for peer in &known {
            let _conflict = new.set_peer_since(*peer, age(peer.via));
        }
        prop_assert!(new.flush(&mut kernel).unwrap().is_clean());
        prop_assert!(routes.iter().all(|(subnet, _)| kernel.routes.keys().any(|(there, _)| there == subnet)));
        let programmed = new.peers().filter(|peer| new.conflict_of(peer.subnet).is_none());
        for peer in programmed {
            prop_assert!(kernel.routes.keys().any(|(there, _)| *there == peer.subnet));
        }

        new.keep_unknown(false);
        prop_assert!(new.needs_observe());
        prop_assert!(new.flush(&mut kernel).unwrap().is_clean());
        let (mut fresh, mut at_once) = (overlay(), self::kernel());
        for peer in new.peers() {
            let _conflict = fresh.set_peer_since(peer, age(peer.via));
        }
        prop_assert!(fresh.flush(&mut at_once).unwrap().is_clean());
        prop_assert_eq!(contents(&kernel), contents(&at_once));
    }

    /// Which of two conflicting peers is programmed does not depend on their order.
    #[test]
    fn the_order_of_peers_does_not_matter(
        vni in IPIP..=1,
        peers in prop::collection::vec(peer(), 0..20),
    ) {
        let mut last = BTreeMap::new();
        last.extend(peers.iter().map(|peer| (peer.subnet, *peer)));
        let made = |order: Vec<Peer>| {
            let (mut overlay, mut kernel) = (overlay_of(vni), kernel());
            overlay.converge(&mut kernel).unwrap();
            for peer in order {
                let _conflict = overlay.set_peer_since(peer, age(peer.via));
                assert!(overlay.flush(&mut kernel).unwrap().is_clean());
            }
            contents(&kernel)
        };
        let there: Vec<Peer> = last.values().copied().collect();
        let back = there.iter().rev().copied().collect();
        prop_assert_eq!(made(there), made(back));
    }

    /// From the damaged remains of an overlay with other peers, one pass reaches the desired state, and a second pass
    /// writes nothing.
    #[test]
    fn one_pass_converges_and_a_second_writes_nothing(
        vni in IPIP..=1,
        before in events(),
        wanted in prop::collection::vec(peer(), 0..20),
        lost in any::<u8>(),
    ) {
        let (mut old, mut kernel) = (overlay_of(vni), kernel());
        play(&mut old, &mut kernel, &before);
        let mut n = lost;
        let mut keep = || { n = n.wrapping_mul(37).wrapping_add(11); n & 4 == 0 };
        kernel.neighbors.retain(|_, _| keep());
        kernel.fdb.retain(|_, _| keep());
        kernel.routes.retain(|_, _| keep());
        let FakeKernel { nexthops, routes, .. } = &mut kernel;
        nexthops.retain(|_, _| keep());
        routes.retain(|_, route| match route.to {
            ObservedRouteTo::Nexthop { id } => nexthops.contains_key(&id),
            _ => true,
        });

        let (mut new, mut clean) = (overlay_of(vni), self::kernel());
        clean.routes = kernel.routes.clone();
        clean.routes.retain(|_, route| route.protocol != flannel_vxlan::ROUTE_PROTOCOL);
        for peer in &wanted {
            let _conflict = new.set_peer_since(*peer, age(peer.via));
        }
        let mut same = new.clone();
        prop_assert!(new.converge(&mut kernel).unwrap().is_clean());
        prop_assert_eq!(new.converge(&mut kernel).unwrap().steps, 0);
        same.converge(&mut clean).unwrap();
        prop_assert_eq!(contents(&kernel), contents(&clean));
    }

    /// A sweep deletes the devices and routes of an earlier configuration, but nothing that the current configuration
    /// contains, even if both overlap.
    #[test]
    fn a_sweep_deletes_everything_that_is_not_desired_and_nothing_else(
        before in prop::collection::vec(peer(), 0..20),
        wanted in prop::collection::vec(peer(), 0..20),
        vni in IPIP..3,
        devices in prop::sample::subsequence(vec![IPIP, 1, 2], 0..=3),
        networks in prop::sample::subsequence(
            vec!["10.244.0.0/22", "10.244.0.0/16", "10.240.0.0/12", "10.99.0.0/16", "fd00:10:244::/62", "fd00::/16"], 0..=6,
        ),
        blackhole in any::<bool>(),
    ) {
        let (mut old, mut kernel) = (overlay_of(vni), kernel());
        for peer in &before {
            let _conflict = old.set_peer_since(*peer, age(peer.via));
        }
        prop_assert!(old.flush(&mut kernel).unwrap().is_clean());
        // Routes over the underlay, outside the present network.
        for subnet in ["10.99.1.0/24", "10.245.1.0/24", "fd00:99:1::/64"] {
            let subnet: IpNet = subnet.parse().unwrap();
            let route = route_of_others(subnet);
            kernel.routes.insert((subnet, 0), ObservedRoute { protocol: flannel_vxlan::ROUTE_PROTOCOL, metric: 0, ..route });
        }
        let mut new = overlay();
        for family in Family::ALL {
            let spec = new.family(family).unwrap().clone();
            new.set_family(spec.blackhole(blackhole));
        }
        for peer in &wanted {
            let _conflict = new.set_peer_since(*peer, age(peer.via));
        }
        prop_assert!(new.flush(&mut kernel).unwrap().is_clean());

        let links: Vec<Links> = devices
            .iter()
            .flat_map(|vni| Family::ALL.map(|family| Links::of(device_name(*vni, family), family)))
            .collect();
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        let before = contents(&kernel);
        let plan = Plan::leftovers(&links, &networks, &new, &kernel.observe(&links).unwrap());
        let applied = kernel.apply(&plan).unwrap();
        prop_assert!(applied.refused.is_empty(), "{plan}{applied:?}");
        prop_assert_eq!(new.converge(&mut kernel).unwrap().steps, 0, "{}\n{}", plan, before);

        let own: Vec<IpNet> = Family::ALL.map(|family| new.family(family).unwrap().subnet).into();
        for route in kernel.routes.values() {
            let inside = networks.iter().any(|network| network.contains(&route.subnet));
            let kept = own.contains(&route.subnet) || new.conflict_of(route.subnet).is_none() && new.peer(route.subnet).is_some();
            prop_assert!(kept || !inside, "{} stays", route);
        }
        for device in kernel.devices.keys() {
            let present = new.links().iter().any(|links| links.device == Some(*device));
            prop_assert!(present || !links.iter().any(|links| links.device == Some(*device)), "{} stays", device);
        }
    }

    /// No object is written before an object that it uses, and none is deleted before an object that uses it.
    #[test]
    fn a_route_never_exists_without_the_objects_that_it_uses(events in events()) {
        let (mut overlay, mut kernel) = (overlay(), kernel());
        play(&mut overlay, &mut kernel, &events);
        let observed = kernel.observe(&overlay.links()).unwrap();
        let plan = overlay.diff(&observed);
        let rank = |step: &Step| match step {
            Step::Device(..) => 0,
            Step::PutFdbEntry(_) => 1,
            Step::PutNeighbor(_) => 2,
            Step::PutNexthop { .. } => 3,
            Step::PutRoute { .. } => 4,
            Step::DeleteRoute { .. } => 5,
            Step::DeleteNexthop { .. } => 6,
            Step::DeleteNeighbor { .. } => 7,
            _ => 8,
        };
        let mut number = 0;
        while number < plan.steps().len() {
            let peer = plan.peer_of(number);
            let group: Vec<_> = (number..plan.steps().len())
                .take_while(|step| plan.peer_of(*step) == peer)
                .map(|step| rank(&plan.steps()[step]))
                .collect();
            prop_assert!(group.is_sorted(), "{plan}");
            number += group.len();
        }
    }

    /// A refused peer stays noted, and other peers are not affected.
    #[test]
    fn a_refused_peer_is_tried_again_and_delays_no_other(peers in prop::collection::vec(peer(), 1..20), at in any::<prop::sample::Index>()) {
        let (mut overlay, mut kernel) = (overlay(), kernel());
        overlay.converge(&mut kernel).unwrap();
        let refused = at.get(&peers).subnet;
        kernel.refused_peers.insert(refused);
        for peer in &peers {
            let _conflict = overlay.set_peer_since(*peer, age(peer.via));
        }
        let report = overlay.flush(&mut kernel).unwrap();
        prop_assert!(report.refused.iter().all(|step| step.peer == Some(refused)));
        prop_assert_eq!(overlay.is_pending(), !report.refused.is_empty());
        // Changes of other peers do not try it again.
        let steps = kernel.applied_steps;
        prop_assert!(overlay.flush(&mut kernel).unwrap().is_clean());
        prop_assert_eq!(kernel.applied_steps, steps);
        kernel.refused_peers.clear();
        overlay.retry();
        overlay.flush(&mut kernel).unwrap();
        prop_assert!(!overlay.is_pending());
        prop_assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
    }
}

#[test]
fn peers_converge_on_a_kernel_without_nexthop_objects() {
    let (mut overlay, mut kernel) = (overlay(), kernel());
    kernel.without_nexthops = true;
    let mac = MacAddr::new([2, 0, 0, 0, 0, 2]).unwrap();
    let via = Via::Tunnel { mac, underlay: "192.168.77.2".parse().unwrap() };
    overlay.set_peer(Peer { subnet: "10.244.2.0/24".parse().unwrap(), via }).unwrap();
    assert!(overlay.converge(&mut kernel).unwrap().is_clean());
    assert!(kernel.nexthops.is_empty());
    assert_eq!(kernel.routes.len(), 1);
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
}

#[test]
fn nothing_is_written_to_an_unreadable_kernel() {
    let (mut overlay, mut kernel) = (overlay(), kernel());
    kernel.unreadable = Some("no".to_owned());
    assert!(overlay.flush(&mut kernel).is_err());
    assert!(overlay.is_pending() && kernel.applied_plans == 0);
    kernel.unreadable = None;
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
}
