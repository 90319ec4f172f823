//! Peers whose addresses would harm this host or other peers are left out.

use flannel_vxlan::{FakeKernel, Family, MacAddr, Overlay, Peer, PeerConflict, Via};
use ipnet::IpNet;

use super::{device, family};

fn peer(subnet: &str, mac: u8, underlay: &str) -> Peer {
    let mac = MacAddr::new([2, 0, 0, 0, 0, mac]).unwrap();
    Peer { subnet: subnet.parse().unwrap(), via: Via::Tunnel { mac, underlay: underlay.parse().unwrap() } }
}

/// The conflicts of these peers on a host with a second network, `10.244.200.0/24`, inside the pod network.
fn conflicts<const N: usize>(peers: [Peer; N]) -> [Option<PeerConflict>; N] {
    let own = [("192.168.77.1", 24), ("192.168.77.9", 24), ("10.244.200.1", 24), ("fd77::1", 64)];
    conflicts_beside(&own, peers)
}

#[test]
fn an_underlay_address_that_is_no_hosts_or_our_own_is_refused_in_both_families() {
    let not_a_host = ["0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "192.168.77.255"];
    for underlay in not_a_host {
        let conflict = PeerConflict::NotHostAddress(underlay.parse().unwrap());
        assert_eq!(conflicts([peer("10.244.2.0/24", 2, underlay)]), [Some(conflict)]);
    }
    for underlay in ["::", "::1", "ff02::1", "::ffff:192.0.2.1"] {
        let conflict = PeerConflict::NotHostAddress(underlay.parse().unwrap());
        assert_eq!(conflicts([peer("fd00:10:244:2::/64", 2, underlay)]), [Some(conflict)]);
    }
    for underlay in ["192.168.77.1", "192.168.77.9"] {
        let conflict = PeerConflict::OwnUnderlay(underlay.parse().unwrap());
        assert_eq!(conflicts([peer("10.244.2.0/24", 2, underlay)]), [Some(conflict)]);
    }
    let good = [peer("10.244.2.0/24", 2, "192.168.77.2"), peer("fd00:10:244:2::/64", 3, "fd77::2")];
    assert_eq!(conflicts(good), [None, None]);
}

#[test]
fn a_subnet_around_ours_is_refused_like_a_subnet_inside_it() {
    let own: IpNet = "10.244.1.0/24".parse().unwrap();
    for subnet in ["10.244.1.0/24", "10.244.0.0/20", "10.244.1.64/26"] {
        assert_eq!(
            conflicts([peer(subnet, 2, "192.168.77.2")]),
            [Some(PeerConflict::OwnSubnet(own))],
            "{subnet}"
        );
    }
}

#[test]
fn an_underlay_address_in_another_peers_subnet_belongs_to_the_peer_unless_the_host_is_attached_to_its_network()
 {
    let (victim, inside) =
        (peer("10.244.60.0/24", 2, "192.168.77.2"), peer("10.244.61.0/24", 3, "10.244.60.5"));
    for underlay in ["10.244.60.0", "10.244.60.5", "10.244.60.255"] {
        let inside = peer("10.244.61.0/24", 3, underlay);
        let conflict = PeerConflict::UnderlayInside(victim.subnet, victim.via.underlay());
        assert_eq!(conflicts([victim, inside]), [None, Some(conflict)], "{underlay}");
    }

    let station = peer("10.244.62.0/24", 4, "10.244.200.130");
    let greedy = peer("10.244.200.128/25", 5, "192.168.77.5");
    let address = "10.244.200.130".parse().unwrap();
    let conflict = PeerConflict::HoldsUnderlayOf { peer: station.subnet, address };
    assert_eq!(conflicts([station, greedy]), [None, Some(conflict)]);
    // A peer that is left out itself decides about no other.
    let outside = peer("10.9.0.0/24", 4, "10.244.200.130");
    assert_eq!(conflicts([outside, greedy]), [Some(PeerConflict::OutsideNetworks), None]);
    let lost = peer("10.244.60.0/24", 2, "127.0.0.1");
    let conflict = PeerConflict::NotHostAddress("127.0.0.1".parse().unwrap());
    assert_eq!(conflicts([lost, inside]), [Some(conflict), None]);
    // A peer whose own subnet has the address harms itself alone.
    let own = peer("10.244.200.128/25", 5, "10.244.200.130");
    assert_eq!(conflicts([own]), [Some(PeerConflict::HoldsItsUnderlay(address))]);
}

/// A host with these addresses, and the conflicts of these peers there.
fn conflicts_beside<const N: usize>(own: &[(&str, u8)], peers: [Peer; N]) -> [Option<PeerConflict>; N] {
    let device = |local, address| device(1, local, address, MacAddr::derived(b"own"));
    let mut overlay = Overlay::new([
        family(Family::V4).device(device("192.168.77.1", "10.244.1.0")),
        family(Family::V6).device(device("fd77::1", "fd00:10:244:1::")),
    ]);
    let mut kernel = FakeKernel::new(own.iter().map(|(address, length)| (address.parse().unwrap(), *length)));
    for peer in peers {
        let _conflict = overlay.set_peer(peer);
    }
    overlay.flush(&mut kernel).unwrap();
    peers.map(|peer| overlay.conflict_of(peer.subnet))
}

#[test]
fn a_subnet_with_an_address_of_the_host_is_refused_with_the_network_if_it_holds_all_of_it() {
    let network = |text: &str| Some(PeerConflict::CoversHostNetwork(text.parse().unwrap()));
    let address = |text: &str| Some(PeerConflict::HoldsHostAddress(text.parse().unwrap()));
    for (own, length, conflict) in [
        ("10.244.200.0", 31, network("10.244.200.0/31")),
        ("10.244.200.9", 24, network("10.244.200.0/24")),
        ("10.244.200.9", 25, network("10.244.200.0/25")),
        ("10.244.200.9", 23, address("10.244.200.9")),
        ("10.244.200.9", 32, address("10.244.200.9")),
        ("10.244.200.0", 32, address("10.244.200.0")),
        ("10.244.199.9", 23, None),
    ] {
        let all = [("10.0.0.7", 24), ("192.168.77.1", 24), ("fd77::1", 64), (own, length)];
        assert_eq!(
            conflicts_beside(&all, [peer("10.244.200.0/24", 2, "192.168.77.2")]),
            [conflict],
            "{own}/{length}"
        );
    }
}

#[test]
fn the_first_address_of_a_network_is_a_hosts_in_ipv6_and_on_a_point_to_point_link() {
    let own = |length| [("192.168.77.1", length), ("fd77::1", 64)];
    let first = [peer("10.244.2.0/24", 2, "192.168.77.0"), peer("fd00:10:244:2::/64", 2, "fd77::")];
    let refused = Some(PeerConflict::NotHostAddress("192.168.77.0".parse().unwrap()));
    assert_eq!(conflicts_beside(&own(31), first), [None, None]);
    assert_eq!(conflicts_beside(&own(30), first), [refused, None]);
}
