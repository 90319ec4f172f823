//! Plans of WireGuard devices and peers.

use std::net::SocketAddr;

use flannel_vxlan::{
    DeviceSpec, FakeKernel, Family, FamilySpec, Kernel, Overlay, Peer, PeerConflict, Plan, PresharedKey,
    PrivateKey, PublicKey, UnderlayMtu, Via, WireguardSpec,
};
use testkit::golden;

use super::{eth0, family};

fn private(n: u8) -> PrivateKey {
    PrivateKey::new([n; 32])
}

fn key(n: u8) -> PublicKey {
    private(n).public()
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
fn two_endpoints_with_one_key_are_a_conflict_of_one_device_only() {
    let endpoint: SocketAddr = "192.168.77.9:51820".parse().unwrap();
    let other = Peer { subnet: "10.244.9.0/24".parse().unwrap(), via: Via::Key { key: key(2), endpoint } };
    for mut overlay in [separate(), shared()] {
        assert_eq!(overlay.set_peer_since(other, 1), Err(PeerConflict::KeyTaken(v4(2).subnet)));
        assert_eq!(overlay.conflicts().count(), 1);
    }
}
