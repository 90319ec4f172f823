//! Plans of IP-in-IP devices, with and without FOU.

use flannel_vxlan::{
    FakeKernel, Family, IpipSpec, Kernel, Links, ObservedKind, ObservedRoute, ObservedRouteTo, Overlay, Peer,
    PeerConflict, Plan, Via,
};
use testkit::golden;

use super::{family, ipip};

fn outer(subnet: &str, underlay: &str) -> Peer {
    Peer { subnet: subnet.parse().unwrap(), via: Via::Outer { underlay: underlay.parse().unwrap() } }
}

fn fou(port: u16) -> IpipSpec {
    IpipSpec::new().fou(port.try_into().unwrap()).tx_checksum(Some(false))
}

fn overlay(device: IpipSpec) -> Overlay {
    let mut overlay = Overlay::new([family(Family::V4).device(ipip(device))]);
    for n in 2..=4 {
        overlay.set_peer(outer(&format!("10.244.{n}.0/24"), &format!("192.168.77.{n}"))).unwrap();
    }
    overlay
}

fn host() -> FakeKernel {
    FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)])
}

fn plan(overlay: &mut Overlay, kernel: &mut FakeKernel) -> Plan {
    overlay.diff(&kernel.observe(&overlay.links()).unwrap())
}

#[track_caller]
fn expect(name: &str, plan: &Plan) {
    golden(format!("tests/golden/{name}.sh"), &plan.to_string());
}

#[test]
fn a_first_start_creates_the_device_and_then_one_route_per_peer() {
    expect("ipip", &plan(&mut overlay(IpipSpec::new()), &mut host()));
    expect("udp", &plan(&mut overlay(fou(8285)), &mut host()));
}

#[test]
fn a_moved_peer_keeps_its_nexthop_object_and_a_removed_peer_leaves_nothing() {
    let (mut overlay, mut kernel) = (overlay(IpipSpec::new()), host());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    overlay.set_peer(outer("10.244.2.0/24", "192.168.77.22")).unwrap();
    overlay.remove_peer("10.244.3.0/24".parse().unwrap());
    let direct = Via::Direct { gateway: "192.168.77.4".parse().unwrap() };
    overlay.set_peer(Peer { subnet: "10.244.4.0/24".parse().unwrap(), via: direct }).unwrap();
    let mut same = overlay.clone();
    expect("ipip_changes", &same.pending());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!((kernel.nexthops.len(), kernel.routes.len()), (1, 2));
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
}

#[test]
fn peers_with_the_same_address_have_nexthop_objects_of_their_own() {
    let (mut overlay, mut kernel) = (overlay(IpipSpec::new()), host());
    overlay.set_peer(outer("10.244.5.0/24", "192.168.77.2")).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
    overlay.remove_peer("10.244.2.0/24".parse().unwrap());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert!(kernel.routes.contains_key(&("10.244.5.0/24".parse().unwrap(), 0)));
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
}

#[test]
fn changed_options_are_reset_in_place_and_a_remote_address_recreates_the_device() {
    let (mut overlay, mut kernel) = (overlay(IpipSpec::new()), host());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let name = "flannel.ipip".parse().unwrap();
    let made = kernel.devices[&name].clone();
    let damage = |kernel: &mut FakeKernel, fixed: bool| {
        let ObservedKind::Ipip(found) = &mut kernel.devices.get_mut(&name).unwrap().kind else { panic!() };
        found.local = Some("192.168.77.9".parse().unwrap());
        (found.resettable_options_differ, found.fixed_options_differ) = (!fixed, fixed);
    };
    damage(&mut kernel, false);
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 1);
    assert_eq!(kernel.devices[&name], made);
    damage(&mut kernel, true);
    assert!(overlay.converge(&mut kernel).unwrap().steps > 1);
    assert_ne!(kernel.devices[&name].index, made.index);
}

#[test]
fn a_new_port_changes_the_device_in_place_and_moves_the_fou_port() {
    let (mut overlay, mut kernel) = (overlay(fou(8285)), host());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    overlay.set_family(family(Family::V4).device(ipip(fou(9285))));
    expect("udp_new_port", &plan(&mut overlay, &mut kernel));
    assert!(overlay.converge(&mut kernel).unwrap().is_clean());
    assert_eq!(kernel.fou_ports, [9285].into());
    kernel.fou_ports.clear();
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 1);
    assert_eq!(kernel.fou_ports, [9285].into());
}

/// Upstream's device and routes, and a route of upstream to a node that has left.
#[test]
fn upstreams_device_is_kept_and_its_routes_are_replaced() {
    let (mut overlay, mut kernel) = (overlay(IpipSpec::new()), host());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let made = kernel.clone();
    kernel.nexthops.clear();
    kernel.routes.clear();
    let interface = kernel.devices.values().next().unwrap().index;
    for n in [2, 9] {
        let to = ObservedRouteTo::Gateway { gateway: [192, 168, 77, n].into(), onlink: true };
        let subnet = format!("10.244.{n}.0/24").parse().unwrap();
        let route = ObservedRoute { subnet, protocol: 3, metric: 0, interface, to, no_extra_attrs: true };
        kernel.routes.insert((subnet, 0), route);
    }
    let mut restarted = self::overlay(IpipSpec::new());
    let plan = plan(&mut restarted, &mut kernel).to_string();
    assert!(!plan.contains("ip link"), "{plan}");
    assert!(restarted.converge(&mut kernel).unwrap().is_clean());
    assert_eq!((&kernel.routes, &kernel.devices), (&made.routes, &made.devices));
}

#[test]
fn a_switch_of_backends_moves_the_routes_and_then_removes_the_old_device() {
    let specs = [IpipSpec::new(), fou(8285)];
    for [from, to] in [specs, [specs[1], specs[0]]] {
        let mut kernel = host();
        assert!(overlay(from).flush(&mut kernel).unwrap().is_clean());
        let mut now = overlay(to);
        assert!(now.flush(&mut kernel).unwrap().is_clean());
        assert_eq!(kernel.devices.len(), 2);
        let old = Links::of(ipip(from).name, Family::V4);
        let plan = Plan::leftovers(&[old], &[], &now, &kernel.observe(&[old]).unwrap());
        assert!(kernel.apply(&plan).unwrap().refused.is_empty(), "{plan}");
        assert_eq!((kernel.devices.len(), kernel.nexthops.len(), kernel.routes.len()), (1, 3, 3));
        assert_eq!(kernel.fou_ports, to.fou.map(|port| port.get()).into_iter().collect());
        assert_eq!(now.converge(&mut kernel).unwrap().steps, 0);
    }
}

#[test]
fn a_device_of_another_kind_keeps_its_name() {
    let (mut overlay, mut kernel) = (overlay(fou(8285)), host());
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    kernel.devices.values_mut().for_each(|device| device.kind = ObservedKind::Other("tun".to_owned()));
    let report = overlay.converge(&mut kernel).unwrap();
    assert_eq!(
        report.taken[0].to_string(),
        "device flannel0 exists and is a device of kind tun: remove or rename it; until then the overlay has no \
         device of this name and does not reach its peers"
    );
}

#[test]
fn a_peer_that_needs_another_kind_of_device_is_not_programmed() {
    let mut overlay = overlay(IpipSpec::new());
    let via =
        Via::Tunnel { mac: "02:00:00:00:00:05".parse().unwrap(), underlay: "192.168.77.5".parse().unwrap() };
    let refused = overlay.set_peer(Peer { subnet: "10.244.5.0/24".parse().unwrap(), via });
    assert_eq!(refused, Err(PeerConflict::NoSuchOverlay(Family::V4)));
}
