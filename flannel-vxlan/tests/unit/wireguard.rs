//! Plans of WireGuard devices and peers.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use flannel_vxlan::{
    DeviceSpec, Errno, FakeKernel, Family, FamilySpec, FlannelDevice, IfName, IpipSpec, Kernel, Links,
    ObservedKind, ObservedRoute, ObservedRouteTo, ObservedWireguard, ObservedWireguardPeer, Overlay, Part,
    Peer, PeerConflict, Plan, PresharedKey, PrivateKey, PublicKey, Step, StepRefusal, UnderlayMtu, Via,
    WireguardSpec,
};
use ipnet::IpNet;
use proptest::prelude::*;
use testkit::golden;

use super::{eth0, family, ipip};

fn private(n: u8) -> PrivateKey {
    PrivateKey::new([n; 32])
}

fn key(n: u8) -> PublicKey {
    // Without optimization each takes milliseconds.
    static KEYS: LazyLock<[PublicKey; 10]> =
        LazyLock::new(|| [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|n| private(n).public()));
    KEYS[usize::from(n)]
}

fn spec() -> WireguardSpec {
    WireguardSpec::new(private(1))
}

fn family_with(of: Family, spec: WireguardSpec) -> FamilySpec {
    let (local, address) = match of {
        Family::V4 => ("192.168.77.1", "10.244.1.0"),
        Family::V6 if spec.is_shared => ("192.168.77.1", "fd00:10:244:1::"),
        Family::V6 => ("fd77::1", "fd00:10:244:1::"),
    };
    let mtu = UnderlayMtu::new(1500).inside_wireguard(of).unwrap();
    family(of).device(DeviceSpec::new(spec, eth0(), local.parse().unwrap(), address.parse().unwrap(), mtu))
}

fn peer(subnet: &str, n: u8, endpoint: &str) -> Peer {
    Peer {
        subnet: subnet.parse().unwrap(),
        via: Via::Key { key: key(n), endpoint: endpoint.parse().unwrap() },
    }
}

fn v4(n: u8) -> Peer {
    peer(&format!("10.244.{n}.0/24"), n, &format!("192.168.77.{n}:51820"))
}

/// The IPv6 subnet of node `n`, on a device of its own.
fn v6(n: u8) -> Peer {
    peer(&format!("fd00:10:244:{n}::/64"), n, &format!("[fd77::{n}]:51821"))
}

/// The IPv6 subnet of node `n`, on the device that also carries IPv4.
fn v6_over_v4(n: u8) -> Peer {
    peer(&format!("fd00:10:244:{n}::/64"), n, &format!("192.168.77.{n}:51820"))
}

/// Two devices, and two peers on each.
fn separate() -> Overlay {
    let port = 51821.try_into().unwrap();
    let mut overlay =
        Overlay::new([family_with(Family::V4, spec()), family_with(Family::V6, spec().port(port))]);
    [v4(2), v4(3), v6(2), v6(3)].into_iter().for_each(|peer| overlay.set_peer(peer).unwrap());
    overlay
}

/// One device for both families, and two peers with two subnets each.
fn shared() -> Overlay {
    let psk = PresharedKey::new([9; 32]);
    let spec = spec().shared(true).psk(psk).keepalive(25.try_into().ok());
    let mut overlay = Overlay::new(Family::ALL.map(|family| family_with(family, spec)));
    [v4(2), v4(3), v6_over_v4(2), v6_over_v4(3)].into_iter().for_each(|peer| overlay.set_peer(peer).unwrap());
    overlay
}

fn host() -> FakeKernel {
    FakeKernel::new([("192.168.77.1".parse().unwrap(), 24), ("fd77::1".parse().unwrap(), 64)])
}

fn plan(overlay: &mut Overlay, kernel: &mut FakeKernel) -> Plan {
    overlay.diff(&kernel.observe(&overlay.links()).unwrap())
}

#[track_caller]
fn expect(name: &str, plan: &Plan) {
    golden(format!("tests/golden/{name}.sh"), &plan.to_string());
}

#[test]
fn a_first_start_creates_the_devices_then_the_routes_of_the_networks_then_one_peer_per_key() {
    for (name, mut overlay) in [("wireguard", separate()), ("wireguard_shared", shared())] {
        let mut kernel = host();
        expect(name, &plan(&mut overlay, &mut kernel));
        assert!(overlay.converge(&mut kernel).unwrap().is_clean());
        assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0, "{name}");
    }
}

#[test]
fn a_network_that_holds_a_gateway_gets_its_route_only_while_a_closer_route_reaches_the_gateway() {
    let (mut overlay, mut kernel) = (separate(), host());
    let (gateway, network): (IpAddr, IpNet) =
        ("10.244.7.1".parse().unwrap(), "10.244.0.0/16".parse().unwrap());
    kernel.gateways.push((gateway, 2));
    let converge = |overlay: &mut Overlay, kernel: &mut FakeKernel| {
        overlay.invalidate();
        assert!(overlay.converge(kernel).unwrap().is_clean());
        assert_eq!(overlay.converge(kernel).unwrap().steps, 0);
        let v6: IpNet = "fd00:10:244::/48".parse().unwrap();
        assert!(kernel.routes.contains_key(&(v6, 1024)), "the other family is not affected");
        (kernel.routes.contains_key(&(network, 0)), overlay.conflict_of(v4(2).subnet))
    };
    let cut_off = (false, Some(PeerConflict::NetworkCutsOff { network, address: gateway }));
    assert_eq!(converge(&mut overlay, &mut kernel), cut_off);
    let closer: IpNet = "10.244.7.0/28".parse().unwrap();
    let to = ObservedRouteTo::Gateway { gateway: "192.168.77.254".parse().unwrap(), onlink: false };
    // A static route, and a route of `ip route add`.
    for protocol in [4, 3] {
        let route =
            ObservedRoute { subnet: closer, protocol, metric: 0, interface: 2, to, no_extra_attrs: true };
        kernel.routes.insert((closer, 0), route);
        assert_eq!(converge(&mut overlay, &mut kernel), (true, None));
        kernel.routes.remove(&(closer, 0));
        assert_eq!(converge(&mut overlay, &mut kernel), cut_off);
    }
    kernel.gateways.clear();
    assert_eq!(converge(&mut overlay, &mut kernel), (true, None));

    // An address of this host in a network that is wider than the pod network; in a smaller network it is harmless.
    for (own, prefix, cuts_off) in
        [("10.244.9.9", 8, true), ("10.244.9.9", 16, true), ("10.244.9.9", 24, false)]
    {
        let own: IpAddr = own.parse().unwrap();
        let mut kernel = FakeKernel::new([
            ("192.168.77.1".parse().unwrap(), 24),
            ("fd77::1".parse().unwrap(), 64),
            (own, prefix),
        ]);
        let conflict = cuts_off.then_some(PeerConflict::NetworkCutsOff { network, address: own });
        assert_eq!(converge(&mut separate(), &mut kernel), (!cuts_off, conflict), "/{prefix}");
    }
}

#[test]
fn two_endpoints_with_one_key_are_a_conflict_of_one_device_only() {
    let endpoint: SocketAddr = "192.168.77.9:51820".parse().unwrap();
    let other = Peer { subnet: "10.244.9.0/24".parse().unwrap(), via: Via::Key { key: key(2), endpoint } };
    for mut overlay in [separate(), shared()] {
        assert_eq!(
            overlay.set_peer_since(other, 1),
            Err(PeerConflict::KeyTaken(v4(2).subnet, v4(2).via.underlay()))
        );
        assert_eq!(overlay.conflicts().count(), 1);
    }
}

fn device(kernel: &mut FakeKernel) -> &mut ObservedWireguard {
    let found = &mut kernel.devices.get_mut(&"flannel-wg".parse().unwrap()).unwrap().kind;
    match found {
        ObservedKind::Wireguard(found) => found.as_mut().unwrap(),
        _ => unreachable!("{found}"),
    }
}

fn found(kernel: &mut FakeKernel, n: u8) -> &mut ObservedWireguardPeer {
    device(kernel).peers.iter_mut().find(|peer| peer.key == key(n)).unwrap()
}

#[test]
fn the_route_of_a_network_is_a_part_of_its_own_before_the_peers() {
    let (mut overlay, mut kernel) = (separate(), host());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    kernel.routes.retain(|(subnet, _), _| subnet.addr().is_ipv6());
    device(&mut kernel).peers.clear();
    let written = overlay.converge(&mut kernel).unwrap().written;
    let parts: Vec<Part> = written.iter().map(|written| written.part).collect();
    assert!(matches!(parts[..], [Part::Rest, Part::Peer(_), Part::Peer(_)]), "{parts:?}");
}

#[test]
fn a_peer_that_the_kernel_refuses_is_refused_with_each_of_its_subnets() {
    let (mut overlay, mut kernel) = (shared(), host());
    let plan = overlay.diff(&kernel.observe(&overlay.links()).unwrap());
    let step = plan.steps().iter().position(|step| matches!(step, Step::PutWireguardPeer(..))).unwrap();
    let mut applied = kernel.apply(&plan).unwrap();
    applied.refused = vec![StepRefusal { step, errno: Errno::ENOBUFS, text: None }];
    assert!(!overlay.settle(&plan, applied).is_clean());
    assert_eq!(overlay.refused(), 2, "one of each family");
}

#[test]
fn a_change_writes_only_the_peers_that_it_affects() {
    let (mut overlay, mut kernel) = (shared(), host());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    found(&mut kernel, 2).endpoint = "198.51.100.1:4500".parse().ok();
    found(&mut kernel, 2).handshake_age = Some(Duration::ZERO);
    // A new peer, a peer that loses a subnet, a peer that leaves, and a subnet that moves to another peer.
    overlay.set_peer(v4(4)).unwrap();
    overlay.remove_peer(v6_over_v4(2).subnet);
    let mut moved = v4(3);
    moved.via = v4(5).via;
    overlay.set_peer(moved).unwrap();
    overlay.remove_peer(v6_over_v4(3).subnet);
    expect("wireguard_changes", &overlay.clone().pending());
    let replaces = |step: &&Step| matches!(step, Step::PutWireguardPeer(_, peer) if peer.replaces_subnets);
    assert_eq!(overlay.clone().pending().steps().iter().filter(replaces).count(), 1, "of peer 2");
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
    let keys: Vec<PublicKey> = device(&mut kernel).peers.iter().map(|peer| peer.key).collect();
    assert_eq!(keys.len(), 3);
    // The kernel had followed peer 2, whose endpoint did not change.
    assert_eq!(found(&mut kernel, 2).endpoint, "198.51.100.1:4500".parse().ok());
    let mut elsewhere = v4(2);
    elsewhere.via = Via::Key { key: key(2), endpoint: "192.168.77.22:51820".parse().unwrap() };
    overlay.set_peer(elsewhere).unwrap();
    assert_eq!(overlay.flush(&mut kernel).unwrap().steps, 1);
    assert_eq!(found(&mut kernel, 2).endpoint, "192.168.77.22:51820".parse().ok());
}

#[test]
fn every_damage_is_repaired_and_only_that() {
    for shared_device in [false, true] {
        let (mut overlay, mut kernel) = (if shared_device { shared() } else { separate() }, host());
        assert!(overlay.flush(&mut kernel).unwrap().is_clean());
        let made = kernel.clone();
        type Damage = fn(&mut FakeKernel);
        let damages: [(&str, usize, Damage); 12] = [
            ("peer deleted", 1, |kernel| device(kernel).peers.truncate(1)),
            ("unknown peer", 1, |kernel| {
                let mut unknown = found(kernel, 2).clone();
                (unknown.key, unknown.subnets) = (key(9), vec!["10.99.0.0/16".parse().unwrap()]);
                device(kernel).peers.push(unknown);
            }),
            ("subnet taken away", 1, |kernel| found(kernel, 2).subnets.clear()),
            ("subnet added", 1, |kernel| found(kernel, 2).subnets.push("0.0.0.0/0".parse().unwrap())),
            ("preshared key", 1, |kernel| found(kernel, 2).psk = PresharedKey::new([1; 32])),
            ("keepalive", 1, |kernel| found(kernel, 2).keepalive = 7.try_into().ok()),
            ("endpoint before any handshake", 1, |kernel| found(kernel, 2).endpoint = None),
            ("private key", 1, |kernel| device(kernel).private_key = Some(private(7))),
            ("port", 1, |kernel| device(kernel).port = 1),
            ("mark", 1, |kernel| device(kernel).fwmark = 1),
            ("route", 1, |kernel| kernel.routes.retain(|(subnet, _), _| subnet.addr().is_ipv6())),
            ("state and MTU", 2, |kernel| {
                let found = kernel.devices.get_mut(&"flannel-wg".parse().unwrap()).unwrap();
                (found.up, found.mtu) = (false, 1300);
            }),
        ];
        for (damage, steps, apply) in damages {
            apply(&mut kernel);
            let report = overlay.converge(&mut kernel).unwrap();
            assert!(report.is_clean() && report.steps == steps, "{damage}: {report:#?}");
            device(&mut kernel).peers.sort_by_key(|peer| std::cmp::Reverse(peer.key));
            device(&mut kernel).peers.iter_mut().for_each(|peer| peer.subnets.sort());
            let mut expected = made.clone();
            device(&mut expected).peers.sort_by_key(|peer| std::cmp::Reverse(peer.key));
            assert_eq!((&kernel.devices, &kernel.routes), (&expected.devices, &expected.routes), "{damage}");
            assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0, "{damage}");
        }
        kernel.delete_device("flannel-wg".parse().unwrap());
        assert!(overlay.converge(&mut kernel).unwrap().is_clean());
        assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
        assert_eq!(device(&mut kernel).peers.len(), 2);
    }
}

#[test]
fn a_shared_device_that_is_held_is_repaired_for_neither_family() {
    let (mut overlay, mut kernel) = (shared(), host());
    assert!(overlay.converge(&mut kernel).unwrap().is_clean());
    let whole = kernel.devices.clone();
    for held in Family::ALL {
        let device = kernel.devices.values_mut().next().unwrap();
        device.addresses.retain(|(address, _)| address.is_ipv4());
        let damaged = kernel.devices.clone();
        overlay.hold([Part::Device(held)].into());
        overlay.converge(&mut kernel).unwrap();
        assert_eq!(kernel.devices, damaged, "{held:?} is held");
        overlay.hold([].into());
        overlay.converge(&mut kernel).unwrap();
        assert_eq!(kernel.devices, whole);
    }
}

#[test]
fn a_name_that_another_program_has_is_reported_once_for_each_device() {
    for (mut overlay, names) in [(shared(), 1), (separate(), 2)] {
        let mut kernel = host();
        assert!(overlay.converge(&mut kernel).unwrap().is_clean());
        kernel.devices.values_mut().for_each(|device| device.kind = ObservedKind::Other("tun".to_owned()));
        assert_eq!(overlay.converge(&mut kernel).unwrap().taken.len(), names);
    }
}

#[test]
fn the_route_to_a_network_is_created_or_replaces_the_wrong_one() {
    let (mut overlay, mut kernel) = (separate(), host());
    let replaces = |plan: &Plan| -> Vec<bool> {
        let put = |step: &Step| match step {
            Step::PutRoute { replace, .. } => Some(*replace),
            _ => None,
        };
        plan.steps().iter().filter_map(put).collect()
    };
    assert_eq!(replaces(&plan(&mut overlay, &mut kernel)), [false; 2]);
    assert!(overlay.converge(&mut kernel).unwrap().is_clean());
    kernel.routes.values_mut().for_each(|route| route.protocol = 3);
    assert_eq!(replaces(&plan(&mut overlay, &mut kernel)), [true; 2]);
}

#[test]
fn the_subnets_of_one_key_do_not_share_its_address_with_another_peer() {
    let (mut overlay, mut kernel) = (shared(), host());
    assert!(overlay.converge(&mut kernel).unwrap().is_clean());
    assert_eq!(overlay.take_status_changes(), []);
    overlay.set_peer(peer("10.244.4.0/24", 4, "192.168.77.2:51820")).unwrap();
    let changes = overlay.take_status_changes();
    assert_eq!(changes.iter().map(|change| change.peer).collect::<Vec<_>>(), [v4(4).subnet]);
}

#[test]
fn an_endpoint_that_the_kernel_followed_is_kept_until_the_session_is_dead_and_traffic_waits() {
    let (mut overlay, mut kernel) = (separate(), host());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let mut after = |age: u64, tx_bytes| {
        let peer = found(&mut kernel, 2);
        (peer.handshake_age, peer.tx_bytes) = (Some(Duration::from_secs(age)), tx_bytes);
        peer.endpoint = "198.51.100.1:4500".parse().ok();
        overlay.converge(&mut kernel).unwrap().steps
    };
    assert_eq!(after(10, 1000), 0);
    assert_eq!(after(170, 2000), 0);
    assert_eq!(after(190, 2000), 0, "nothing is sent");
    assert_eq!(after(250, 2148), 1, "an attempt of a handshake");
    assert_eq!(found(&mut kernel, 2).endpoint, "192.168.77.2:51820".parse().ok());
}

#[test]
fn unknown_peers_and_subnets_are_kept_until_all_peers_are_known() {
    let mut kernel = host();
    assert!(shared().flush(&mut kernel).unwrap().is_clean());
    let mut restarted = Overlay::new(Family::ALL.map(|of| shared().family(of).unwrap().clone()));
    restarted.keep_unknown(true);
    restarted.set_peer(v4(2)).unwrap();
    assert_eq!(restarted.converge(&mut kernel).unwrap().steps, 0);
    restarted.keep_unknown(false);
    assert!(restarted.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(found(&mut kernel, 2).subnets, [v4(2).subnet]);
    assert_eq!(device(&mut kernel).peers.len(), 1);
}

#[test]
fn peers_that_would_harm_this_node_or_the_tunnel_are_not_programmed() {
    let mut overlay = separate();
    let via = |n: u8, endpoint: &str| Via::Key { key: key(n), endpoint: endpoint.parse().unwrap() };
    let subnet = "10.244.9.0/24".parse().unwrap();
    assert_eq!(overlay.set_peer(Peer { subnet, via: via(1, "192.168.77.9:1") }), Err(PeerConflict::OwnKey));
    let inside = "10.244.7.7".parse().unwrap();
    let set = overlay.set_peer(Peer { subnet, via: via(9, "10.244.7.7:1") });
    assert_eq!(set, Err(PeerConflict::UnderlayInPodNetwork(inside)));
    let outside = Peer { subnet: "10.245.9.0/24".parse().unwrap(), via: via(9, "192.168.77.9:1") };
    assert_eq!(overlay.set_peer(outside), Err(PeerConflict::OutsideNetworks));
    let unlimited = {
        let mut unlimited = family_with(Family::V4, spec());
        unlimited.networks.clear();
        unlimited
    };
    assert_eq!(Overlay::new([unlimited]).set_peer(v4(2)), Err(PeerConflict::OutsideNetworks));
    // A peer behind another device than ours.
    let refused = Overlay::new([family(Family::V4)]).set_peer(v4(2));
    assert_eq!(refused, Err(PeerConflict::NoSuchOverlay(Family::V4)));
}

#[test]
fn a_missing_module_or_a_port_in_use_is_reported_and_the_rest_is_skipped() {
    for mut overlay in [separate(), shared()] {
        let mut kernel = host();
        kernel.without_wireguard = true;
        let report = overlay.converge(&mut kernel).unwrap();
        assert!(!report.is_clean() && kernel.devices.is_empty() && kernel.routes.is_empty(), "{report:#?}");
        kernel.without_wireguard = false;
        kernel.used_ports.insert(51820);
        let report = overlay.converge(&mut kernel).unwrap();
        assert_eq!(report.refused.len(), 1, "{report:#?}");
        kernel.used_ports.clear();
        assert!(overlay.converge(&mut kernel).unwrap().is_clean());
        assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
    }
}

#[test]
fn a_switch_between_modes_and_backends_leaves_nothing_of_the_old_devices() {
    let mut kernel = host();
    assert!(separate().flush(&mut kernel).unwrap().is_clean());
    let mut now = shared();
    assert!(now.flush(&mut kernel).unwrap().is_clean());
    let old = Family::ALL.map(|of| Links::of(FlannelDevice::Wireguard.name(of), of));
    let plan = Plan::leftovers(&old, &[], &now, &kernel.observe(&old).unwrap());
    assert!(kernel.apply(&plan).unwrap().refused.is_empty(), "{plan}");
    assert_eq!(kernel.devices.len(), 1, "{plan}");
    assert_eq!(now.converge(&mut kernel).unwrap().steps, 0);

    let mut now = Overlay::new([family(Family::V4).device(ipip(IpipSpec::new()))]);
    assert!(now.flush(&mut kernel).unwrap().is_clean());
    let networks = ["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/48".parse().unwrap()];
    let plan = Plan::leftovers(&old, &networks, &now, &kernel.observe(&old).unwrap());
    assert!(kernel.apply(&plan).unwrap().refused.is_empty(), "{plan}");
    assert_eq!((kernel.devices.len(), kernel.routes.len()), (1, 0), "{plan}");

    assert!(shared().flush(&mut kernel).unwrap().is_clean());
    let plan = Plan::removal(&shared().links(), &kernel.observe(&shared().links()).unwrap());
    assert!(kernel.apply(&plan).unwrap().refused.is_empty(), "{plan}");
    assert_eq!((kernel.devices.len(), kernel.routes.len()), (1, 0), "{plan}");
}

/// Peers without anything in common are often in conflict here: few keys, endpoints and subnets.
fn any_peer() -> impl Strategy<Value = Peer> {
    (any::<bool>(), 2..7_u8, 1..6_u8, 2..5_u8, 0..4_u8).prop_map(|(is_v4, n, of, at, length)| {
        let Peer { subnet, .. } = if is_v4 { v4(n) } else { v6(n) };
        let subnet = IpNet::new(subnet.addr(), subnet.prefix_len() + u8::from(length == 0)).unwrap();
        let endpoint = format!("192.168.77.{at}:51820").parse().unwrap();
        Peer { subnet, via: Via::Key { key: key(of), endpoint } }
    })
}

fn any_peers() -> impl Strategy<Value = Vec<Peer>> {
    prop::collection::vec(any_peer(), 0..12)
}

fn age(peer: &Peer) -> u64 {
    u64::from(peer.via.underlay().is_ipv4()) * u64::from(peer.subnet.prefix_len() % 3)
}

/// The peers of all devices, in the same order.
fn peers_of(kernel: &FakeKernel) -> Vec<(IfName, ObservedWireguardPeer)> {
    let mut all = Vec::new();
    for device in kernel.devices.values() {
        for peer in &device.wireguard().unwrap().peers {
            let mut peer = peer.clone();
            peer.subnets.sort();
            all.push((device.name, peer));
        }
    }
    all.sort_by_key(|(name, peer)| (*name, peer.key));
    all
}

proptest! {
    /// From any peers of the kernel, one pass leads to the desired peers, and a second pass writes nothing. Changes one by
    /// one lead to the same.
    #[test]
    fn any_state_converges_and_changes_one_by_one_lead_to_the_same_state(
        is_shared in any::<bool>(),
        before in any_peers(),
        peers in any_peers(),
        removed in any_peers(),
    ) {
        let empty = || if is_shared { shared() } else { separate() };
        let set = |overlay: &mut Overlay, peer: &Peer| {
            let _conflict = overlay.set_peer_since(*peer, age(peer));
        };
        // What another configuration left.
        let (mut other, mut damaged) = (empty(), host());
        before.iter().for_each(|peer| set(&mut other, peer));
        prop_assert!(other.converge(&mut damaged).unwrap().is_clean());

        let (mut stepwise, mut kernel) = (empty(), host());
        for peer in &peers {
            set(&mut stepwise, peer);
            prop_assert!(stepwise.flush(&mut kernel).unwrap().is_clean());
        }
        for peer in &removed {
            stepwise.remove_peer(peer.subnet);
        }
        prop_assert!(stepwise.flush(&mut kernel).unwrap().is_clean());
        let expected = peers_of(&kernel);
        let plan = plan(&mut stepwise, &mut kernel);
        prop_assert!(plan.is_empty(), "{}", plan);

        let mut fresh = Overlay::new(Family::ALL.map(|of| empty().family(of).unwrap().clone()));
        for peer in stepwise.peers() {
            let _conflict = fresh.set_peer_since(peer, stepwise.peer_since(peer.subnet));
        }
        for kernel in [&mut host(), &mut damaged] {
            prop_assert!(fresh.converge(kernel).unwrap().is_clean());
            prop_assert_eq!(fresh.converge(kernel).unwrap().steps, 0);
            prop_assert_eq!(&peers_of(kernel), &expected);
        }
    }
}
