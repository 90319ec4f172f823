//! Parts that are withheld because another process keeps undoing them: what is requested is written all the same.

use std::net::IpAddr;

use flannel_vxlan::{
    DeviceSpec, FakeKernel, Family, MacAddr, Overlay, Part, Peer, PrivateKey, UnderlayMtu, Via, WireguardSpec,
};
use ipnet::IpNet;

use super::{device, eth0, family};

fn subnet(n: u8) -> IpNet {
    format!("10.244.{n}.0/24").parse().unwrap()
}

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n]).unwrap()
}

fn peer(n: u8, mac_of: u8, underlay: u8) -> Peer {
    Peer {
        subnet: subnet(n),
        via: Via::Tunnel { mac: mac(mac_of), underlay: [192, 168, 77, underlay].into() },
    }
}

/// A node with peers 2 and 3, whose routes another process has deleted, and which are withheld.
fn contested() -> (Overlay, FakeKernel) {
    let mut overlay =
        Overlay::new([family(Family::V4).device(device(1, "192.168.77.1", "10.244.1.0", mac(1)))]);
    [2, 3].into_iter().for_each(|n| overlay.set_peer(peer(n, n, n)).unwrap());
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    kernel.routes.clear();
    overlay.invalidate();
    overlay.hold([2, 3].map(|n| Part::Peer(subnet(n))).into());
    (overlay, kernel)
}

fn routed(kernel: &FakeKernel) -> Vec<IpNet> {
    kernel.routes.keys().map(|(subnet, _)| *subnet).collect()
}

fn underlay(kernel: &FakeKernel, of: u8) -> Option<IpAddr> {
    let mut entries = kernel.fdb.iter().filter(|((_, found), _)| *found == mac(of));
    entries.next().map(|(_, found)| found.entry.underlay)
}

#[test]
fn a_changed_peer_is_written_and_then_withheld_again() {
    let (mut overlay, mut kernel) = contested();
    overlay.set_peer(peer(2, 2, 22)).unwrap();
    overlay.flush(&mut kernel).unwrap();
    assert_eq!((routed(&kernel), underlay(&kernel, 2)), (vec![subnet(2)], Some([192, 168, 77, 22].into())));
    assert_eq!(overlay.waiting().collect::<Vec<_>>(), [subnet(3)]);

    kernel.routes.clear();
    overlay.invalidate();
    overlay.flush(&mut kernel).unwrap();
    assert_eq!(routed(&kernel), []);
}

#[test]
fn a_peer_that_changed_before_the_kernel_had_to_be_read_is_written() {
    let (mut overlay, mut kernel) = contested();
    overlay.flush(&mut kernel).unwrap();
    overlay.set_peer(peer(2, 2, 22)).unwrap();
    assert_eq!(overlay.waiting().collect::<Vec<_>>(), [subnet(2), subnet(3)], "each of them once");
    overlay.invalidate();
    overlay.flush(&mut kernel).unwrap();
    assert_eq!(routed(&kernel), [subnet(2)]);
}

#[test]
fn a_changed_peer_that_the_kernel_refuses_is_tried_again() {
    let (mut overlay, mut kernel) = contested();
    kernel.refused_peers.insert(subnet(2));
    overlay.set_peer(peer(2, 2, 22)).unwrap();
    assert!(!overlay.flush(&mut kernel).unwrap().is_clean());
    kernel.refused_peers.clear();
    overlay.invalidate();
    overlay.flush(&mut kernel).unwrap();
    assert_eq!(routed(&kernel), [subnet(2)]);
}

#[test]
fn a_changed_peer_is_written_although_the_kernel_could_not_be_read_before() {
    let (mut overlay, mut kernel) = contested();
    overlay.set_peer(peer(2, 2, 22)).unwrap();
    kernel.unreadable = Some("a test".to_owned());
    overlay.flush(&mut kernel).unwrap_err();
    kernel.unreadable = None;
    overlay.flush(&mut kernel).unwrap();
    assert_eq!(routed(&kernel), [subnet(2)]);
}

#[test]
fn a_peer_whose_conflict_ends_with_a_change_of_another_is_written() {
    let (mut overlay, mut kernel) = contested();
    let _younger = overlay.set_peer_since(peer(4, 4, 4), 1);
    let _in_conflict = overlay.set_peer_since(peer(3, 4, 3), 2);
    overlay.flush(&mut kernel).unwrap();
    assert_eq!(routed(&kernel), [subnet(4)]);
    overlay.invalidate();
    overlay.remove_peer(subnet(4));
    overlay.flush(&mut kernel).unwrap();
    assert_eq!((routed(&kernel), underlay(&kernel, 4)), (vec![subnet(3)], Some([192, 168, 77, 3].into())));
}

#[test]
fn what_a_changed_device_takes_from_withheld_peers_is_written() {
    let (mut overlay, mut kernel) = contested();
    overlay.set_family(family(Family::V4).device(device(1, "192.168.77.1", "10.244.1.0", mac(9))));
    overlay.flush(&mut kernel).unwrap();
    assert_eq!((routed(&kernel), kernel.neighbors.len()), (vec![subnet(2), subnet(3)], 2));
}

#[test]
fn a_withheld_device_is_changed_on_request() {
    let (mut overlay, mut kernel) = contested();
    overlay.hold([Part::Device(Family::V4)].into());
    overlay.set_family(family(Family::V4).device(device(1, "192.168.77.1", "10.244.1.0", mac(9))));
    overlay.flush(&mut kernel).unwrap();
    assert_eq!(kernel.devices.values().map(|device| device.mac).collect::<Vec<_>>(), [Some(mac(9))]);
}

#[test]
fn a_removed_peer_leaves_nothing_although_stale_entries_are_withheld() {
    let (mut overlay, mut kernel) = contested();
    overlay.hold([].into());
    overlay.flush(&mut kernel).unwrap();
    overlay.invalidate();
    overlay.hold([Part::Rest].into());
    overlay.remove_peer(subnet(2));
    overlay.flush(&mut kernel).unwrap();
    assert_eq!((routed(&kernel), kernel.neighbors.len(), kernel.fdb.len()), (vec![subnet(3)], 1, 1));
}

#[test]
fn a_withheld_wireguard_peer_gets_another_subnet() {
    let subnets = ["10.244.2.0/24", "10.244.3.0/24"].map(|subnet| subnet.parse::<IpNet>().unwrap());
    let [local, endpoint] =
        ["192.168.77.1", "192.168.77.2"].map(|address| address.parse::<IpAddr>().unwrap());
    let via = Via::Key { key: PrivateKey::new([2; 32]).public(), endpoint: (endpoint, 51820).into() };
    let mtu = UnderlayMtu::new(1500).inside_wireguard(Family::V4).unwrap();
    let wireguard = WireguardSpec::new(PrivateKey::new([1; 32]));
    let spec = DeviceSpec::new(wireguard, eth0(), local, "10.244.1.0".parse().unwrap(), mtu);
    let mut overlay = Overlay::new([family(Family::V4).device(spec)]);
    let mut kernel = FakeKernel::new([(local, 24)]);
    overlay.set_peer(Peer { subnet: subnets[0], via }).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());

    overlay.invalidate();
    overlay.hold([Part::Peer(subnets[0])].into());
    overlay.set_peer(Peer { subnet: subnets[1], via }).unwrap();
    overlay.flush(&mut kernel).unwrap();
    let devices = kernel.devices.values().filter_map(|device| device.wireguard());
    assert_eq!(devices.flat_map(|device| &device.peers[0].subnets).count(), 2);
}
