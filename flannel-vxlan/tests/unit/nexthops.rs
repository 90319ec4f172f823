//! Which nexthop object each peer has.

use flannel_vxlan::{FakeKernel, Family, MacAddr, ObservedNexthop, ObservedRouteTo, Overlay, Peer, Via};
use ipnet::IpNet;

use super::{device, family};

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n]).unwrap()
}

fn subnet(n: u8) -> IpNet {
    format!("10.244.{n}.0/24").parse().unwrap()
}

fn tunnel(n: u8, of: u8) -> Peer {
    let underlay = format!("192.168.77.{n}").parse().unwrap();
    Peer { subnet: subnet(n), via: Via::Tunnel { mac: mac(of), underlay } }
}

/// A node with peers 2 to 4, and a kernel that has them.
fn node() -> (Overlay, FakeKernel) {
    let mut overlay =
        Overlay::new([family(Family::V4).device(device(1, "192.168.77.1", "10.244.1.0", mac(1)))]);
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    (2..=4).for_each(|n| overlay.set_peer(tunnel(n, n)).unwrap());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(kernel.nexthops.len(), 3);
    (overlay, kernel)
}

/// The object that the route of this peer uses.
fn nexthop_of(kernel: &FakeKernel, n: u8) -> ObservedNexthop {
    let ObservedRouteTo::Nexthop { id } = kernel.routes[&(subnet(n), 0)].to else { unreachable!() };
    kernel.nexthops[&id]
}

#[test]
fn a_peer_keeps_its_object_if_it_is_direct_or_gone_only_until_the_next_flush() {
    let direct = Peer { subnet: subnet(3), via: Via::Direct { gateway: "192.168.77.3".parse().unwrap() } };
    let away: [fn(&mut Overlay, Peer); 2] = [
        |overlay, direct| overlay.set_peer(direct).unwrap(),
        |overlay, direct| assert!(overlay.remove_peer(direct.subnet)),
    ];
    for away in away {
        let (mut overlay, mut kernel) = node();
        let before = kernel.nexthops.clone();
        away(&mut overlay, direct);
        overlay.set_peer(tunnel(3, 9)).unwrap();
        let plan = overlay.clone().pending().to_string();
        assert!(!plan.contains("ip nexthop del"), "{plan}");
        assert!(overlay.flush(&mut kernel).unwrap().is_clean());
        assert_eq!(kernel.nexthops, before);
        assert_eq!(nexthop_of(&kernel, 3).gateway, Some([10, 244, 3, 0].into()));
    }
}

#[test]
fn a_peer_that_changes_before_the_kernel_is_observed_keeps_its_object_beside_another_with_its_gateway() {
    let (mut overlay, mut kernel) = node();
    let own = nexthop_of(&kernel, 3);
    let other = nexthop_of(&kernel, 2).id;
    assert!(other < own.id);
    overlay.remove_peer(subnet(2));
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    kernel.nexthops.insert(other, ObservedNexthop { id: other, ..own });
    overlay.invalidate();
    overlay.set_peer(tunnel(3, 9)).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(nexthop_of(&kernel, 3), own);
    assert!(!kernel.nexthops.contains_key(&other), "nothing uses it");
}

#[test]
fn peers_that_a_listing_lacks_are_removed() {
    let (mut overlay, mut kernel) = node();
    overlay.retain_peers(|peer| peer.subnet == subnet(3));
    assert_eq!(overlay.peers().map(|peer| peer.subnet).collect::<Vec<_>>(), [subnet(3)]);
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(kernel.routes.keys().map(|(subnet, _)| *subnet).collect::<Vec<_>>(), [subnet(3)]);
}

#[test]
fn nothing_is_sent_to_a_kernel_that_has_everything() {
    let (mut overlay, mut kernel) = node();
    let sent = kernel.applied_plans;
    assert!(
        overlay.flush(&mut kernel).unwrap().is_clean() && overlay.converge(&mut kernel).unwrap().is_clean()
    );
    assert_eq!(kernel.applied_plans, sent);
    overlay.remove_peer(subnet(2));
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(kernel.applied_plans, sent + 1);
}
