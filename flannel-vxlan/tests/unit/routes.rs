//! How the routes of peers are replaced, and which peers count as withheld.

use flannel_vxlan::{
    FakeKernel, Family, Kernel, MacAddr, ObservedKind, ObservedRoute, ObservedRouteTo, Overlay, Part, Peer,
    Plan, ROUTE_PROTOCOL, Step, Via,
};
use ipnet::IpNet;

use super::{device, family, with};

const ETH0: u32 = 2;

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n]).unwrap()
}

fn net(subnet: &str) -> IpNet {
    subnet.parse().unwrap()
}

/// A node with a peer of each family, and a kernel that has both.
fn node() -> (Overlay, FakeKernel) {
    let v4 = family(Family::V4).device(device(1, "192.168.77.1", "10.244.1.0", mac(1)));
    let v6 = family(Family::V6).device(device(1, "fd77::1", "fd00:10:244:1::", mac(1)));
    let mut overlay = Overlay::new([v4, v6]);
    let mut kernel =
        FakeKernel::new([("192.168.77.1".parse().unwrap(), 24), ("fd77::1".parse().unwrap(), 64)]);
    for (subnet, underlay) in [("10.244.2.0/24", "192.168.77.2"), ("fd00:10:244:2::/64", "fd77::2")] {
        let via = Via::Tunnel { mac: mac(2), underlay: underlay.parse().unwrap() };
        overlay.set_peer(Peer { subnet: net(subnet), via }).unwrap();
    }
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    (overlay, kernel)
}

fn plan(overlay: &mut Overlay, kernel: &mut FakeKernel) -> Plan {
    overlay.diff(&kernel.observe(&overlay.links()).unwrap())
}

/// The commands of a plan that write or delete routes, each without what follows the destination; and whether the first
/// route that it puts is to replace another.
fn routes_of(plan: &Plan) -> (Vec<String>, Option<bool>) {
    let words =
        |line: &str| line.split(' ').skip_while(|word| *word != "route").collect::<Vec<_>>().join(" ");
    let commands = plan.to_string().lines().map(words).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let brief = commands.iter().map(|line| line.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" "));
    let replaces = plan.steps().iter().find_map(|step| match step {
        Step::PutRoute { replace, .. } => Some(*replace),
        _ => None,
    });
    (brief.collect(), replaces)
}

#[test]
fn a_restart_finds_the_objects_of_its_peers_again_and_writes_nothing() {
    let (overlay, mut kernel) = node();
    let mut restarted = Overlay::new(Family::ALL.map(|family| overlay.family(family).unwrap().clone()));
    for peer in overlay.peers() {
        restarted.set_peer(peer).unwrap();
    }
    assert_eq!(plan(&mut restarted, &mut kernel).to_string(), "");
}

#[test]
fn a_route_is_deleted_before_it_is_replaced_only_if_its_attributes_would_be_inherited() {
    let v4 = (net("10.244.2.0/24"), 0);
    let right = node().1.routes[&v4];
    let gateway = |onlink| ObservedRouteTo::Gateway { gateway: "192.168.77.2".parse().unwrap(), onlink };
    let replaced = (vec!["replace 10.244.2.0/24".to_owned()], Some(true));
    for wrong in [
        ObservedRoute { protocol: 3, ..right },
        ObservedRoute { to: gateway(true), ..right },
        ObservedRoute { interface: ETH0, to: gateway(false), ..right },
        ObservedRoute { interface: ETH0, to: gateway(false), no_extra_attrs: false, ..right },
    ] {
        let (mut overlay, mut kernel) = node();
        kernel.routes.insert(v4, wrong);
        assert_eq!(routes_of(&plan(&mut overlay, &mut kernel)), replaced, "{wrong}");
    }
    let (mut overlay, mut kernel) = node();
    kernel.routes.insert(v4, ObservedRoute { no_extra_attrs: false, ..right });
    let (commands, _) = routes_of(&plan(&mut overlay, &mut kernel));
    assert_eq!(commands, ["del 10.244.2.0/24", "replace 10.244.2.0/24"]);
    kernel.routes.remove(&v4);
    assert_eq!(routes_of(&plan(&mut overlay, &mut kernel)), (replaced.0, Some(false)), "there is none");
}

#[test]
fn an_ipv6_route_gets_a_route_to_its_gateway_only_while_it_replaces_one_through_another_interface() {
    let key = (net("fd00:10:244:2::/64"), 1024);
    let right = node().1.routes[&key];
    let replace = "replace fd00:10:244:2::/64";
    let gateway = ["replace fd00:10:244:2::/128", replace, "del fd00:10:244:2::/128"];
    for (wrong, commands) in [
        (ObservedRoute { interface: ETH0, ..right }, &gateway[..]),
        (ObservedRoute { interface: ETH0, no_extra_attrs: false, ..right }, &gateway),
        (ObservedRoute { protocol: 3, ..right }, &[replace]),
        // An IPv6 route has no nexthop object whose attributes it would inherit.
        (ObservedRoute { no_extra_attrs: false, ..right }, &[replace]),
    ] {
        let (mut overlay, mut kernel) = node();
        kernel.routes.insert(key, wrong);
        assert_eq!(routes_of(&plan(&mut overlay, &mut kernel)).0, commands, "{wrong}");
    }
}

#[test]
fn a_second_route_beside_the_right_one_does_not_make_it_wrong() {
    let (mut overlay, mut kernel) = node();
    let right = kernel.routes[&(net("10.244.2.0/24"), 0)];
    let mut observed = kernel.observe(&overlay.links()).unwrap();
    // IPv4 routes of one destination and metric may differ in their type of service.
    observed.routes.push(ObservedRoute { interface: ETH0, ..right });
    assert_eq!(overlay.diff(&observed).to_string(), "");
}

#[test]
fn a_recreated_device_takes_its_stale_routes_along_and_those_of_other_interfaces_are_deleted() {
    let (mut overlay, mut kernel) = node();
    let flannel = kernel.devices[&"flannel.1".parse().unwrap()].index;
    for (subnet, interface) in [("10.244.8.0/24", flannel), ("10.244.9.0/24", ETH0)] {
        let to = ObservedRouteTo::Gateway { gateway: "192.168.77.9".parse().unwrap(), onlink: true };
        let (subnet, protocol) = (net(subnet), ROUTE_PROTOCOL);
        let route = ObservedRoute { subnet, protocol, metric: 0, interface, to, no_extra_attrs: true };
        kernel.routes.insert((subnet, 0), route);
    }
    let own = device(1, "192.168.77.1", "10.244.1.0", mac(1));
    let on_port = with(own, |vxlan| vxlan.port(4789.try_into().unwrap()));
    overlay.set_family(family(Family::V4).device(on_port));
    let (commands, replaces) = routes_of(&plan(&mut overlay, &mut kernel));
    let wanted = ["del 10.244.2.0/24", "del 10.244.8.0/24", "replace 10.244.2.0/24", "del 10.244.9.0/24"];
    assert_eq!((commands, replaces), (wanted.map(str::to_owned).to_vec(), Some(false)));
}

#[test]
fn a_device_that_is_created_leaves_the_routes_of_other_interfaces_to_be_replaced() {
    let (mut overlay, mut kernel) = node();
    let key = (net("10.244.2.0/24"), 0);
    let to = ObservedRouteTo::Gateway { gateway: "192.168.77.2".parse().unwrap(), onlink: false };
    let elsewhere = ObservedRoute { interface: ETH0, to, ..kernel.routes[&key] };
    kernel.delete_device("flannel.1".parse().unwrap());
    kernel.routes.insert(key, elsewhere);
    let replaced = (vec!["replace 10.244.2.0/24".to_owned()], Some(true));
    assert_eq!(routes_of(&plan(&mut overlay, &mut kernel)), replaced);
}

#[test]
fn only_peers_that_differ_and_are_held_are_withheld() {
    let (mut overlay, mut kernel) = node();
    let withheld = |overlay: &Overlay| overlay.waiting().collect::<Vec<_>>();
    overlay.hold([Part::Peer(net("10.244.2.0/24"))].into());
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
    assert_eq!((withheld(&overlay), overlay.programmed()), (vec![], 2), "it does not differ");

    // A peer that a conflict keeps out is not withheld as well.
    let via = Via::Tunnel { mac: mac(3), underlay: "192.168.77.1".parse().unwrap() };
    overlay.set_peer(Peer { subnet: net("10.244.3.0/24"), via }).unwrap_err();
    overlay.hold([Part::Device(Family::V4)].into());
    kernel.delete_device("flannel.1".parse().unwrap());
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0);
    assert_eq!((withheld(&overlay), overlay.programmed()), (vec![net("10.244.2.0/24")], 1));

    // Without a device of ours nothing can be written, which is no decision to hold it.
    let (mut overlay, mut kernel) = node();
    kernel.devices.values_mut().for_each(|device| device.kind = ObservedKind::Other("tun".to_owned()));
    assert_eq!(overlay.converge(&mut kernel).unwrap().taken.len(), 2);
    assert_eq!(withheld(&overlay), []);
}
