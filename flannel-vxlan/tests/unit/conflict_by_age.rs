//! Of two peers that contradict each other, the one that registered first is programmed.

use flannel_vxlan::{FakeKernel, Family, MacAddr, Overlay, Peer, PeerConflict, Via};
use ipnet::{IpNet, Ipv4Net};

use super::{device, family};

fn overlay() -> Overlay {
    Overlay::new([family(Family::V4).device(device(
        1,
        "192.168.77.1",
        "10.244.1.0",
        MacAddr::derived(b"own"),
    ))])
}

fn kernel() -> FakeKernel {
    FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)])
}

fn peer(subnet: &str, mac: u8, host: u8) -> Peer {
    let mac = MacAddr::new([2, 0, 0, 0, 0, mac]).unwrap();
    Peer { subnet: subnet.parse().unwrap(), via: Via::Tunnel { mac, underlay: [192, 168, 77, host].into() } }
}

/// The conflicts of these two peers with the ages 1 and 2, in both orders of arrival, before and after a flush.
fn conflicts(older: Peer, newcomer: Peer) -> [Option<PeerConflict>; 2] {
    let mut seen = Vec::new();
    for (first, second) in [((older, 1), (newcomer, 2)), ((newcomer, 2), (older, 1))] {
        let (mut overlay, mut kernel) = (overlay(), kernel());
        let _conflict = overlay.set_peer_since(first.0, first.1);
        overlay.flush(&mut kernel).unwrap();
        let _conflict = overlay.set_peer_since(second.0, second.1);
        overlay.flush(&mut kernel).unwrap();
        let now = |overlay: &Overlay| [older, newcomer].map(|peer| overlay.conflict_of(peer.subnet));
        seen.push(now(&overlay));
        overlay.invalidate();
        overlay.flush(&mut kernel).unwrap();
        seen.push(now(&overlay));
        overlay.remove_peer(older.subnet);
        assert_eq!(overlay.conflict_of(newcomer.subnet), None, "it takes the place of the one that left");
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    seen[0]
}

#[test]
fn a_newcomer_with_the_mac_of_an_older_peer_is_left_out_whatever_its_subnet() {
    for newcomer in ["10.244.2.0/24", "10.244.4.0/24"] {
        let (older, newcomer) = (peer("10.244.3.0/24", 3, 3), peer(newcomer, 3, 4));
        assert_eq!(
            conflicts(older, newcomer),
            [None, Some(PeerConflict::MacTaken(older.subnet, older.via.underlay()))]
        );
    }
}

#[test]
fn the_overlay_tells_when_each_peer_registered() {
    let mut overlay = overlay();
    let (known, unknown) = (peer("10.244.3.0/24", 3, 3), peer("10.244.4.0/24", 4, 4));
    overlay.set_peer_since(known, 7).unwrap();
    overlay.set_peer(unknown).unwrap();
    let since = |subnet: &str| overlay.peer_since(subnet.parse().unwrap());
    assert_eq!(["10.244.3.0/24", "10.244.3.9/24", "10.244.4.0/24", "10.244.5.0/24"].map(since), [7, 7, 0, 0]);
}

#[test]
fn a_newcomer_inside_the_subnet_of_an_older_peer_takes_none_of_its_packets() {
    let older = peer("10.244.4.0/23", 3, 3);
    for newcomer in ["10.244.5.0/24", "10.244.4.128/25", "10.244.5.7/32"] {
        let conflict = PeerConflict::InsideOlder(older.subnet, older.via.underlay());
        assert_eq!(conflicts(older, peer(newcomer, 4, 4)), [None, Some(conflict)], "{newcomer}");
    }
    assert_eq!(conflicts(peer("10.244.5.0/24", 3, 3), peer("10.244.4.0/23", 4, 4)), [None, None]);
}

#[test]
fn a_newcomer_around_an_older_peer_does_not_take_its_endpoint() {
    let (older, newcomer) = (peer("10.244.4.0/24", 3, 3), peer("10.244.4.0/23", 4, 4));
    assert_eq!(
        conflicts(older, newcomer),
        [None, Some(PeerConflict::EndpointTaken(older.subnet, older.via.underlay()))]
    );
}

#[test]
fn a_subnet_inside_that_of_a_peer_of_unknown_age_is_programmed_as_before() {
    let mut overlay = overlay();
    assert_eq!(overlay.set_peer(peer("10.244.4.0/23", 3, 3)), Ok(()));
    assert_eq!(overlay.set_peer(peer("10.244.5.0/24", 4, 4)), Ok(()));
}

/// Half of them would harm this host, so they do not count.
#[test]
fn of_twenty_thousand_leases_with_one_mac_the_oldest_few_are_considered() {
    const LEASES: u32 = 20_000;
    let (mut overlay, mut kernel) = (overlay(), kernel());
    let subnet = |n: u32| Ipv4Net::new((0x0af4_0200 + (n << 2)).into(), 30).unwrap().into();
    let lease = |n: u32| {
        let host = if n.is_multiple_of(2) { 1 } else { 9 + u8::try_from(n % 200).unwrap() };
        let mac = MacAddr::new([2, 0, 0, 0, 0, 3]).unwrap();
        Peer { subnet: subnet(n), via: Via::Tunnel { mac, underlay: [192, 168, 77, host].into() } }
    };
    let (listed, later) = (LEASES / 2, LEASES);
    for n in (0..listed).rev() {
        let _conflict = overlay.set_peer_since(lease(n), n.into());
    }
    overlay.flush(&mut kernel).unwrap();
    for n in listed..later {
        let _conflict = overlay.set_peer_since(lease(n), n.into());
    }
    overlay.flush(&mut kernel).unwrap();
    let programmed: Vec<IpNet> =
        (0..LEASES).map(subnet).filter(|net| overlay.conflict_of(*net).is_none()).collect();
    assert!(programmed.contains(&subnet(1)), "{programmed:?}");
    let same_host = |net: &IpNet| overlay.peer(*net).unwrap().via.underlay() == lease(1).via.underlay();
    assert!(programmed.iter().all(same_host), "{programmed:?}");
    for n in 0..LEASES {
        overlay.remove_peer(subnet(n));
    }
    overlay.flush(&mut kernel).unwrap();
    assert_eq!((overlay.programmed(), overlay.conflicts().count()), (0, 0));
}
