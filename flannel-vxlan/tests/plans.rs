//! Plans as text: what would be done, in the words of `ip` and `bridge`.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but does not see the helpers of this one"
)]

use std::net::IpAddr;

use flannel_vxlan::FakeKernel;
use flannel_vxlan::{
    DeviceSpec, Family, FamilySpec, Kernel, Link, MacAddr, Observed, Overlay, Part, Peer, Plan, Report,
    UnderlayMtu, Via, Vni,
};
use flannel_vxlan::{Interface, InterfaceAddress};
use ipnet::IpNet;
use testkit::golden;

fn eth0() -> Link {
    Link { index: 2, name: "eth0".parse().unwrap() }
}

fn device(local: &str, address: &str) -> DeviceSpec {
    let local: IpAddr = local.parse().unwrap();
    let mtu = UnderlayMtu::new(1500).inside_vxlan(Family::of(local)).unwrap();
    let mac = MacAddr::new([2, 0, 0, 0, 0, 1]).unwrap();
    DeviceSpec::new(Vni::new(1).unwrap(), eth0(), local, address.parse().unwrap(), mac, mtu)
}

fn v4() -> FamilySpec {
    FamilySpec::new(eth0(), "10.244.1.0/24".parse().unwrap(), vec!["10.244.0.0/16".parse().unwrap()])
}

fn v6() -> FamilySpec {
    FamilySpec::new(eth0(), "fd00:10:244:1::/64".parse().unwrap(), vec!["fd00:10:244::/48".parse().unwrap()])
}

fn dual_stack() -> [FamilySpec; 2] {
    [v4().device(device("192.168.77.1", "10.244.1.0")), v6().device(device("fd77::1", "fd00:10:244:1::"))]
}

fn tunnel(subnet: &str, n: u8, underlay: &str) -> Peer {
    let mac = MacAddr::new([2, 0, 0, 0, 0, n]).unwrap();
    Peer { subnet: subnet.parse().unwrap(), via: Via::Tunnel { mac, underlay: underlay.parse().unwrap() } }
}

fn direct(subnet: &str, gateway: &str) -> Peer {
    Peer { subnet: subnet.parse().unwrap(), via: Via::Direct { gateway: gateway.parse().unwrap() } }
}

/// A host with nothing on it and this address.
fn bare() -> Observed {
    let address = InterfaceAddress {
        address: "192.168.77.1".parse().unwrap(),
        prefix_len: 24,
        permanent: true,
        deprecated: false,
        temporary: false,
        tentative: false,
        duplicate: false,
    };
    let eth0 = Interface {
        index: 2,
        name: "eth0".to_owned(),
        mtu: 1500,
        up: true,
        addresses: vec![address],
        ..Interface::default()
    };
    Observed { has_nexthops: true, interfaces: vec![eth0], ..Observed::default() }
}

#[track_caller]
fn expect(name: &str, plan: &Plan) {
    golden(format!("tests/golden/{name}.sh"), &plan.to_string());
}

#[test]
fn a_first_start_makes_devices_and_then_peer_after_peer() {
    let mut overlay = Overlay::new(dual_stack());
    for n in 2..=3 {
        overlay.set_peer(tunnel(&format!("10.244.{n}.0/24"), n, &format!("192.168.77.{n}"))).unwrap();
        overlay.set_peer(tunnel(&format!("fd00:10:244:{n}::/64"), n, &format!("fd77::{n}"))).unwrap();
    }
    expect("first_start", &overlay.diff(&bare()));
}

#[test]
fn what_is_withheld_stays_as_it_is_and_everything_else_is_repaired() {
    let subnet = |n: u8| -> IpNet { format!("10.244.{n}.0/24").parse().unwrap() };
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    let mut overlay = Overlay::new([v4().device(device("192.168.77.1", "10.244.1.0"))]);
    for n in 2..=4 {
        overlay.set_peer(tunnel(&subnet(n).to_string(), n, &format!("192.168.77.{n}"))).unwrap();
    }
    let made = overlay.converge(&mut kernel).unwrap();
    let parts = |report: &Report| report.written.iter().map(|written| written.part).collect::<Vec<_>>();
    assert_eq!(parts(&made), [Part::Device(Family::V4)], "peers come with their device");
    let whole = kernel.routes.clone();

    kernel.routes.retain(|(route, _), _| *route == subnet(4));
    overlay.hold([Part::Peer(subnet(2))].into());
    let report = overlay.converge(&mut kernel).unwrap();
    assert_eq!(parts(&report), [Part::Peer(subnet(3))]);
    assert!(report.written[0].command.as_ref().unwrap().starts_with("ip route replace 10.244.3.0/24 "));
    assert_eq!((kernel.routes.len(), overlay.programmed()), (2, 2));
    assert_eq!(overlay.waiting().collect::<Vec<_>>(), [subnet(2)]);
    overlay.hold([].into());
    assert_eq!(parts(&overlay.converge(&mut kernel).unwrap()), [Part::Peer(subnet(2))]);
    assert_eq!((&kernel.routes, overlay.programmed(), overlay.waiting().count()), (&whole, 3, 0));

    // Device and stale entries.
    kernel.delete_device("flannel.1".parse().unwrap());
    overlay.hold([Part::Device(Family::V4)].into());
    assert!(overlay.converge(&mut kernel).unwrap().written.is_empty());
    overlay.hold([].into());
    overlay.converge(&mut kernel).unwrap();
    assert_eq!(kernel.routes.len(), 3);
    overlay.remove_peer(subnet(2));
    overlay.invalidate();
    overlay.hold([Part::Rest].into());
    assert!(overlay.converge(&mut kernel).unwrap().written.is_empty());
    overlay.hold([].into());
    assert_eq!(parts(&overlay.converge(&mut kernel).unwrap()), [Part::Rest]);
    assert_eq!(kernel.routes.len(), 2);
}

#[test]
fn upstreams_options_are_all_there() {
    let device = device("192.168.77.1", "10.244.1.0")
        .port(4789.try_into().unwrap())
        .gbp(true)
        .learning(true)
        .tx_checksum(Some(false));
    let mut overlay = Overlay::new([v4().device(device).blackhole(true)]);
    overlay.set_peer(direct("10.244.2.0/24", "192.168.77.2")).unwrap();
    expect("options", &overlay.diff(&bare()));
}

#[test]
fn host_gw_is_routes_alone() {
    let mut overlay = Overlay::new([v4(), v6()]);
    overlay.set_peer(direct("10.244.2.0/24", "192.168.77.2")).unwrap();
    overlay.set_peer(direct("fd00:10:244:2::/64", "fd77::2")).unwrap();
    expect("host_gw", &overlay.diff(&bare()));
}

#[test]
fn a_kernel_without_nexthops_gets_classic_routes() {
    let mut overlay = Overlay::new(dual_stack());
    overlay.set_peer(tunnel("10.244.2.0/24", 2, "192.168.77.2")).unwrap();
    expect("without_nexthops", &overlay.diff(&Observed { has_nexthops: false, ..bare() }));
}

#[test]
fn one_change_is_one_peers_steps() {
    let mut overlay = Overlay::new(dual_stack());
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    for n in 2..=9 {
        overlay.set_peer(tunnel(&format!("10.244.{n}.0/24"), n, &format!("192.168.77.{n}"))).unwrap();
    }
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    overlay.set_peer(tunnel("10.244.2.0/24", 22, "192.168.77.22")).unwrap();
    overlay.set_peer(direct("10.244.3.0/24", "192.168.77.3")).unwrap();
    overlay.remove_peer("10.244.4.0/24".parse().unwrap());
    expect("changes", &overlay.pending());
}

#[test]
fn a_moved_underlay_is_followed_in_place_and_a_new_port_needs_a_new_device() {
    let mut overlay = Overlay::new(dual_stack());
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    overlay.set_peer(tunnel("10.244.2.0/24", 2, "192.168.77.2")).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let mut moved = device("192.168.77.51", "10.244.1.0");
    moved.mtu = UnderlayMtu::new(1400).inside_vxlan(Family::V4).unwrap();
    overlay.set_family(v4().device(moved.clone()));
    expect("moved_underlay", &overlay.diff(&kernel.observe(&overlay.links()).unwrap()));

    overlay.set_family(v4().device(moved.port(4789.try_into().unwrap())));
    expect("new_port", &overlay.diff(&kernel.observe(&overlay.links()).unwrap()));
}

/// `ip link del` searches the routing table anew for each nexthop object on the device that routes still lead to.
#[test]
fn a_device_that_is_made_anew_gives_up_its_routes_first_and_keeps_nobody_elses() {
    let mut overlay = Overlay::new(dual_stack());
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    for n in 2..=4 {
        overlay.set_peer(tunnel(&format!("10.244.{n}.0/24"), n, &format!("192.168.77.{n}"))).unwrap();
    }
    overlay.set_peer(direct("10.244.5.0/24", "192.168.77.5")).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    overlay.set_family(v4().device(device("192.168.77.1", "10.244.1.0").port(4789.try_into().unwrap())));

    let plan = overlay.diff(&kernel.observe(&overlay.links()).unwrap()).to_string();
    let deletions = (2..=4).map(|n| format!("ip route del 10.244.{n}.0/24 metric 0 proto 70"));
    let expected: Vec<String> = deletions.chain(["ip link del flannel.1".to_owned()]).collect();
    assert_eq!(plan.lines().take(4).collect::<Vec<_>>(), expected, "{plan}");
    assert_eq!(plan.matches(" del ").count(), 4, "{plan}");
}
