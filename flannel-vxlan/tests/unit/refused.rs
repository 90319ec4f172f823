//! Peers that the kernel refuses, or that change before they are written, and what is reported of them.

use flannel_vxlan::{
    FakeKernel, Family, InterfaceAddress, Kernel, MacAddr, Overlay, Peer, PeerConflict, PeerStatus,
    PeerStatusChange, Step, Via,
};
use ipnet::IpNet;

use super::{device, family};

fn subnet(n: u8) -> IpNet {
    format!("10.244.{n}.0/24").parse().unwrap()
}

fn peer(n: u8, underlay: u8) -> Peer {
    let mac = MacAddr::new([2, 0, 0, 0, 0, n]).unwrap();
    Peer { subnet: subnet(n), via: Via::Tunnel { mac, underlay: [192, 168, 77, underlay].into() } }
}

/// A node with peers 2 and 3 that are not written yet.
fn node() -> (Overlay, FakeKernel) {
    let own = device(1, "192.168.77.1", "10.244.1.0", MacAddr::new([2, 0, 0, 0, 0, 1]).unwrap());
    let mut overlay = Overlay::new([family(Family::V4).device(own)]);
    [2, 3].into_iter().for_each(|n| overlay.set_peer(peer(n, n)).unwrap());
    (overlay, FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]))
}

#[test]
fn a_refused_peer_counts_as_refused_and_not_as_programmed_until_it_is_tried_again() {
    let (mut overlay, mut kernel) = node();
    kernel.refused_peers.insert(subnet(2));
    assert!(!overlay.flush(&mut kernel).unwrap().is_clean());
    let counts = |overlay: &Overlay| {
        let refused = [2, 3].map(|n| overlay.is_refused(subnet(n)));
        (refused, overlay.refused(), overlay.programmed(), overlay.is_pending())
    };
    assert_eq!(counts(&overlay), ([true, false], 1, 1, true));
    kernel.refused_peers.clear();
    overlay.set_peer(peer(3, 33)).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(counts(&overlay), ([true, false], 1, 1, true), "other peers do not bring it in");
    overlay.retry();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(counts(&overlay), ([false, false], 0, 2, false));
}

#[test]
fn a_peer_that_returns_before_its_removal_is_written_keeps_its_nexthop_object() {
    let (mut overlay, mut kernel) = node();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let before = kernel.nexthops.clone();
    overlay.remove_peer(subnet(2));
    overlay.set_peer(peer(2, 22)).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(kernel.nexthops, before);
    overlay.set_peer(peer(4, 4)).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(kernel.nexthops.len(), 3, "a new peer has an object of its own");
}

#[test]
fn a_nexthop_object_that_another_program_made_meanwhile_is_never_deleted() {
    let (mut overlay, mut kernel) = node();
    let plan = overlay.diff(&kernel.observe(&overlay.links()).unwrap());
    let ids = plan.steps().iter().filter_map(|step| match step {
        Step::PutNexthop { nexthop, .. } => Some(nexthop.id),
        _ => None,
    });
    let id = ids.min().unwrap();
    let others = flannel_vxlan::ObservedNexthop { id, protocol: 4, interface: 2, gateway: None };
    kernel.nexthops.insert(id, others);
    let applied = kernel.apply(&plan).unwrap();
    assert!(!overlay.settle(&plan, applied).is_clean());
    overlay.remove_peer(subnet(2));
    let deletes = |step: &Step| matches!(step, Step::DeleteNexthop { .. });
    assert!(!overlay.pending().steps().iter().any(deletes));
    assert_eq!(kernel.nexthops.get(&id), Some(&others));
}

#[test]
fn each_change_of_a_peers_status_is_reported_once() {
    let (mut overlay, mut kernel) = node();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!((overlay.take_status_changes(), overlay.programmed()), (vec![], 2));
    let conflict = overlay.set_peer(peer(4, 1)).unwrap_err();
    assert!(matches!(conflict, PeerConflict::OwnUnderlay(..)), "{conflict:?}");
    assert_eq!(overlay.conflict_of(subnet(4)), Some(conflict));
    let change = |before, now| vec![PeerStatusChange { peer: subnet(4), before, now }];
    let left_out = Some(PeerStatus::NotProgrammed(conflict));
    assert_eq!(overlay.take_status_changes(), change(None, left_out));
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!((overlay.take_status_changes(), overlay.programmed()), (vec![], 2));
    // The address of peer 3, whose subnet is lower.
    overlay.set_peer(peer(4, 3)).unwrap();
    let shares = Some(PeerStatus::SharesUnderlay([192, 168, 77, 3].into()));
    assert_eq!(overlay.take_status_changes(), change(left_out, shares));
    // Out and back in again is no change; nor is what an observation finds again.
    overlay.set_peer(peer(4, 4)).unwrap();
    overlay.set_peer(peer(4, 3)).unwrap();
    overlay.converge(&mut kernel).unwrap();
    assert_eq!(overlay.take_status_changes(), []);
    assert!(overlay.remove_peer(subnet(4)) && !overlay.remove_peer(subnet(4)));
    assert_eq!(overlay.take_status_changes(), change(shares, None));
    // A conflict with an address of this host begins and ends with the address.
    overlay.set_peer(peer(4, 9)).unwrap();
    let own = InterfaceAddress::new([192, 168, 77, 9].into(), 24);
    kernel.interfaces[0].addresses.push(own);
    overlay.converge(&mut kernel).unwrap();
    let left_out = Some(PeerStatus::NotProgrammed(PeerConflict::OwnUnderlay(own.address)));
    assert_eq!(overlay.take_status_changes(), change(None, left_out));
    kernel.interfaces[0].addresses.pop();
    overlay.converge(&mut kernel).unwrap();
    assert_eq!(overlay.take_status_changes(), change(left_out, None));
}
