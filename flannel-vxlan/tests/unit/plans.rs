//! Plans as text: the commands of `ip` and `bridge` that have the same effect.

use flannel_vxlan::{
    DeviceSpec, DeviceStep, FakeKernel, Family, FamilySpec, Interface, InterfaceAddress, Kernel, MacAddr,
    Observed, ObservedNexthop, Overlay, Part, Peer, Plan, Report, Step, UnderlayMtu, Via,
};
use ipnet::IpNet;
use testkit::golden;

use super::{family, with};

fn device(local: &str, address: &str) -> DeviceSpec {
    super::device(1, local, address, MacAddr::new([2, 0, 0, 0, 0, 1]).unwrap())
}

fn on_port(device: DeviceSpec, port: u16) -> DeviceSpec {
    with(device, |vxlan| vxlan.port(port.try_into().unwrap()))
}

fn v4() -> FamilySpec {
    family(Family::V4)
}

fn v6() -> FamilySpec {
    family(Family::V6)
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

/// A host with one address and without an overlay.
fn bare() -> Observed {
    let address = InterfaceAddress::new("192.168.77.1".parse().unwrap(), 24);
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
fn a_first_start_creates_the_devices_and_then_one_peer_after_another() {
    let mut overlay = Overlay::new(dual_stack());
    for n in 2..=3 {
        overlay.set_peer(tunnel(&format!("10.244.{n}.0/24"), n, &format!("192.168.77.{n}"))).unwrap();
        overlay.set_peer(tunnel(&format!("fd00:10:244:{n}::/64"), n, &format!("fd77::{n}"))).unwrap();
    }
    expect("first_start", &overlay.diff(&bare()));
}

#[test]
fn withheld_parts_stay_as_they_are_and_everything_else_is_repaired() {
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
    let whole = kernel.routes.clone();
    overlay.remove_peer(subnet(2));
    overlay.converge(&mut kernel).unwrap();
    kernel.routes = whole;
    overlay.hold([Part::Rest].into());
    assert!(overlay.converge(&mut kernel).unwrap().written.is_empty());
    overlay.hold([].into());
    assert_eq!(parts(&overlay.converge(&mut kernel).unwrap()), [Part::Rest]);
    assert_eq!(kernel.routes.len(), 2);
}

#[test]
fn a_repair_lists_its_parts_in_order_and_the_first_sixteen_with_a_command() {
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    let mut overlay = Overlay::new([v4().device(device("192.168.77.1", "10.244.1.0")).blackhole(true)]);
    for n in 2..=19 {
        overlay.set_peer(tunnel(&format!("10.244.{n}.0/24"), n, &format!("192.168.77.{n}"))).unwrap();
    }
    assert!(overlay.converge(&mut kernel).unwrap().is_clean());
    kernel.routes.clear();
    let written = overlay.converge(&mut kernel).unwrap().written;
    let peers = written.iter().filter(|written| matches!(written.part, Part::Peer(_))).count();
    let with_command = written.iter().take_while(|written| written.command.is_some()).count();
    assert_eq!((peers, with_command, written.len()), (18, 16, 19));
    assert_eq!(written.last().map(|written| written.part), Some(Part::Rest));
    let names = [Part::Device(Family::V6), Part::Peer("10.244.2.0/24".parse().unwrap()), Part::Rest];
    assert_eq!(
        names.map(|part| part.to_string()),
        ["the IPv6 tunnel device", "peer 10.244.2.0/24", "a route of a whole network, or stale entries"]
    );
}

#[test]
fn every_option_of_upstream_is_written() {
    let device = with(device("192.168.77.1", "10.244.1.0"), |vxlan| {
        vxlan.port(4789.try_into().unwrap()).gbp(true).learning(true).tx_checksum(Some(false))
    });
    let mut overlay = Overlay::new([v4().device(device).blackhole(true)]);
    overlay.set_peer(direct("10.244.2.0/24", "192.168.77.2")).unwrap();
    expect("options", &overlay.diff(&bare()));
}

#[test]
fn host_gw_needs_only_routes() {
    let mut overlay = Overlay::new([v4(), v6()]);
    overlay.set_peer(direct("10.244.2.0/24", "192.168.77.2")).unwrap();
    overlay.set_peer(direct("fd00:10:244:2::/64", "fd77::2")).unwrap();
    expect("host_gw", &overlay.diff(&bare()));
}

#[test]
fn a_kernel_without_nexthop_objects_gets_plain_routes() {
    let mut overlay = Overlay::new(dual_stack());
    overlay.set_peer(tunnel("10.244.2.0/24", 2, "192.168.77.2")).unwrap();
    expect("without_nexthops", &overlay.diff(&Observed { has_nexthops: false, ..bare() }));
}

#[test]
fn a_change_writes_only_the_changed_peers() {
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
fn a_new_underlay_address_changes_the_device_in_place_and_a_new_port_recreates_it() {
    let mut overlay = Overlay::new(dual_stack());
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    overlay.set_peer(tunnel("10.244.2.0/24", 2, "192.168.77.2")).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let mut moved = device("192.168.77.51", "10.244.1.0");
    moved.mtu = UnderlayMtu::new(1400).inside_vxlan(Family::V4).unwrap();
    overlay.set_family(v4().device(moved.clone()));
    expect("moved_underlay", &overlay.diff(&kernel.observe(&overlay.links()).unwrap()));

    overlay.set_family(v4().device(on_port(moved, 4789)));
    expect("new_port", &overlay.diff(&kernel.observe(&overlay.links()).unwrap()));
}

/// The kernel searches its whole routing table for each nexthop object that routes use when it deletes a device.
#[test]
fn a_recreated_device_loses_its_own_routes_first_and_no_others() {
    let mut overlay = Overlay::new(dual_stack());
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    for n in 2..=4 {
        overlay.set_peer(tunnel(&format!("10.244.{n}.0/24"), n, &format!("192.168.77.{n}"))).unwrap();
    }
    overlay.set_peer(direct("10.244.5.0/24", "192.168.77.5")).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    overlay.set_family(v4().device(on_port(device("192.168.77.1", "10.244.1.0"), 4789)));

    let plan = overlay.diff(&kernel.observe(&overlay.links()).unwrap()).to_string();
    let deletions = (2..=4).map(|n| format!("ip route del 10.244.{n}.0/24 metric 0 proto 70"));
    let expected: Vec<String> = deletions.chain(["ip link del flannel.1".to_owned()]).collect();
    assert_eq!(plan.lines().take(4).collect::<Vec<_>>(), expected, "{plan}");
    assert_eq!(plan.matches(" del ").count(), 4, "{plan}");
}

#[test]
fn a_removed_family_is_left_to_the_plan_for_leftovers_and_returns_with_its_peers() {
    let addresses = ["192.168.77.1", "fd77::1"].map(|address| address.parse().unwrap());
    let mut kernel = FakeKernel::new([(addresses[0], 24), (addresses[1], 64)]);
    let mut overlay = Overlay::new(dual_stack());
    overlay.set_peer(tunnel("10.244.2.0/24", 2, "192.168.77.2")).unwrap();
    overlay.set_peer(tunnel("fd00:10:244:2::/64", 3, "fd77::2")).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    // Routes of IPv6 have no nexthop objects.
    let contents = |kernel: &FakeKernel| (kernel.devices.len(), kernel.routes.len(), kernel.nexthops.len());
    assert_eq!(contents(&kernel), (2, 2, 1));

    let links = overlay.links();
    overlay.remove_family(Family::V6);
    assert_eq!(overlay.flush(&mut kernel).unwrap().steps, 0);
    let networks = ["fd00:10:244::/48".parse().unwrap()];
    let plan = Plan::leftovers(&links, &networks, &overlay, &kernel.observe(&links).unwrap());
    assert!(kernel.apply(&plan).unwrap().refused.is_empty(), "{plan}");
    assert_eq!(contents(&kernel), (1, 1, 1));
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);

    for family in dual_stack() {
        overlay.set_family(family);
    }
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    assert_eq!(contents(&kernel), (2, 2, 1));
}

#[test]
fn a_removal_deletes_what_is_ours_on_each_device_and_then_the_device() {
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    let mut overlay = Overlay::new(dual_stack());
    overlay.set_peer(tunnel("10.244.2.0/24", 2, "192.168.77.2")).unwrap();
    overlay.set_peer(tunnel("fd00:10:244:2::/64", 3, "fd77::2")).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    let ours = *kernel.nexthops.values().next().unwrap();
    kernel.nexthops.insert(7, ObservedNexthop { id: 7, protocol: 4, ..ours });
    let links = overlay.links();
    let observed = kernel.observe(&links).unwrap();
    let leftovers = Plan::leftovers(&links, &[], &Overlay::default(), &observed);
    for plan in [Plan::removal(&links, &observed), leftovers] {
        let [Step::DeleteRoute { .. }, Step::DeleteRoute { .. }, Step::DeleteNexthop { id }, devices @ ..] =
            plan.steps()
        else {
            panic!("{plan}")
        };
        assert_eq!(*id, ours.id);
        assert_eq!(devices, Family::ALL.map(|family| Step::Device(family, DeviceStep::Delete)));
        for (family, name) in Family::ALL.into_iter().zip(["flannel.1", "flannel-v6.1"]) {
            assert_eq!(plan.links(family).unwrap().device, Some(name.parse().unwrap()));
        }
    }
}
