//! IP-in-IP devices with and without FOU: real packets between three nodes, and repairs. These tests need kernels that
//! have them.

use flannel_vxlan::{
    DeviceSpec, Errno, Family, FamilySpec, IpipSpec, Kernel, Link, Monitor, Netlink, Overlay, Peer, Plan,
    UnderlayMtu, Via,
};
use testkit::{KernelOption, Lab, Node, netns, sh};

use super::nodes::{self, Capture, eth0, network, subnet, underlay};
use super::{clean, converge, flush, host};

fn devices() -> [(IpipSpec, &'static str); 2] {
    [
        (IpipSpec::new(), "flannel.ipip"),
        (IpipSpec::new().fou(IpipSpec::FOU_PORT).tx_checksum(Some(false)), "flannel0"),
    ]
}

fn can_run() -> bool {
    KernelOption::IPIP.is_usable() && KernelOption::FOU.is_usable()
}

fn family_of(node: u16, uplink: Link, ipip: IpipSpec) -> FamilySpec {
    let own = subnet(node, Family::V4);
    let mtu = UnderlayMtu::new(1500).inside_ipip(ipip).unwrap();
    let device = DeviceSpec::new(ipip, uplink, underlay(node, Family::V4), own.addr(), mtu);
    FamilySpec::new(uplink, own, vec![network(Family::V4)]).device(device)
}

/// The peer `node` with the address of node `at`.
fn outer(node: u16, at: u16) -> Peer {
    Peer { subnet: subnet(node, Family::V4), via: Via::Outer { underlay: underlay(at, Family::V4) } }
}

fn overlay(node: u16, underlay: Link, ipip: IpipSpec) -> Overlay {
    let mut overlay = Overlay::new([family_of(node, underlay, ipip)]);
    (1..=3).filter(|peer| *peer != node).for_each(|peer| overlay.set_peer(outer(peer, peer)).unwrap());
    overlay
}

/// Everything that this crate has written, as `ip` shows it.
fn state(device: &str) -> String {
    sh(&format!(
        "ip -d link show {device} | sed 's/^[0-9]*: //'; ip -br -4 addr show {device}; ip nexthop | sort; ip route | sort
        ip fou show"
    ))
}

fn index(device: &str) -> String {
    sh(&format!("ip -o link show {device} | cut -d: -f1"))
}

fn lab(ipip: IpipSpec) -> (Lab, Vec<Node>) {
    nodes::lab(&[Family::V4], |node, underlay| overlay(node, underlay, ipip))
}

#[track_caller]
fn assert_all_reach_all(nodes: &[Node]) {
    nodes::assert_all_reach_all(nodes, Family::V4, 1400);
}

#[test]
fn three_nodes_reach_each_other_and_the_underlay_carries_the_intended_packets() {
    if !can_run() {
        return;
    }
    for (ipip, _) in devices() {
        let (lab, nodes) = lab(ipip);
        let capture = Capture::start(&lab, "-v ip");
        assert_all_reach_all(&nodes);
        let shown = capture.end(|text| text.lines().count() > 20);
        match ipip.fou {
            // tcpdump shows both headers: "192.168.77.1 > 192.168.77.2: IP .. 10.244.1.1 > 10.244.2.1: ICMP echo".
            None => assert!(shown.contains("proto IPIP (4)"), "{shown}"),
            Some(_) => {
                assert!(shown.contains("192.168.77.1.8285 > 192.168.77.2.8285"), "{shown}");
                assert!(!shown.contains("proto IPIP (4)") && !shown.contains("no cksum"), "{shown}");
            }
        }
    }
}

#[test]
fn a_restart_writes_nothing_and_every_damage_is_repaired() {
    if !can_run() {
        return;
    }
    for (ipip, device) in devices() {
        let (_lab, nodes) = lab(ipip);
        let repair = || {
            let mut kernel = Netlink::open().unwrap();
            let mut monitor = Monitor::open(&kernel).unwrap();
            let mut overlay = overlay(1, eth0(&mut kernel), ipip);
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "a restart");
            let made = state(device);
            // The kernel reports each of these except the FOU port.
            for (damage, in_place) in [
                ("ip link del DEVICE", false),
                ("ip addr flush dev DEVICE", true),
                ("ip link set DEVICE down", true),
                ("ip link set DEVICE mtu 1300", true),
                ("ip link set DEVICE type ipip local 192.168.77.1 ttl 9 pmtudisc", true),
                ("ip link set DEVICE down; ip link set DEVICE name other", true),
                ("ip route del 10.244.2.0/24", true),
                ("ip nexthop flush", true),
            ] {
                let before = index(device);
                sh(&damage.replace("DEVICE", device));
                assert!(overlay.notice(&monitor.take().unwrap()).overlay, "`{damage}` is not noticed");
                flush(&mut overlay, &mut kernel);
                assert_eq!(state(device), made, "after `{damage}`");
                assert_eq!(index(device) == before, in_place, "`{damage}`");
                assert_eq!(converge(&mut overlay, &mut kernel), 0, "after `{damage}`");
                assert!(
                    !overlay.notice(&monitor.take().unwrap()).overlay,
                    "`{damage}`: our own change is noticed"
                );
            }
            if let Some(port) = ipip.fou {
                sh(&format!("ip fou del port {port}"));
                assert_eq!(converge(&mut overlay, &mut kernel), 1);
                assert_eq!(state(device), made);
            }
        };
        nodes[0].namespace().enter(repair).unwrap();
        assert_all_reach_all(&nodes);
    }
}

#[test]
fn a_new_underlay_address_and_mtu_change_the_device_in_place() {
    if !can_run() {
        return;
    }
    for (ipip, device) in devices() {
        netns(|| {
            let (mut kernel, e0) = host();
            let mut overlay = overlay(1, e0, ipip);
            converge(&mut overlay, &mut kernel);
            let before = index(device);
            sh("ip addr add 192.168.77.51/24 dev e0");
            let mut moved = family_of(1, e0, ipip);
            let spec = moved.device.as_mut().unwrap();
            spec.local = "192.168.77.51".parse().unwrap();
            spec.mtu = UnderlayMtu::new(1400).inside_ipip(ipip).unwrap();
            overlay.set_family(moved);
            flush(&mut overlay, &mut kernel);
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
            assert_eq!(index(device), before);
            assert!(state(device).contains("local 192.168.77.51"), "{}", state(device));

            // The other uplink: only a device with FOU is bound to it.
            sh("ip link add e2 type dummy; ip link set e2 mtu 9000 up; ip addr add 192.168.88.1/24 dev e2");
            let e2 = kernel.interfaces().unwrap().into_iter().find(|found| found.name == "e2").unwrap();
            overlay.set_family(family_of(1, Link { index: e2.index, name: "e2".parse().unwrap() }, ipip));
            flush(&mut overlay, &mut kernel);
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
            assert_eq!(index(device), before);
        });
    }
}

#[test]
fn changes_of_peers_write_only_those_peers() {
    if !can_run() {
        return;
    }
    for (ipip, _) in devices() {
        netns(|| {
            let (mut kernel, e0) = host();
            let mut overlay = overlay(1, e0, ipip);
            converge(&mut overlay, &mut kernel);
            overlay.set_peer(outer(4, 4)).unwrap();
            assert_eq!(flush(&mut overlay, &mut kernel), 2);
            overlay.set_peer(outer(4, 44)).unwrap();
            overlay.remove_peer("10.244.2.0/24".parse().unwrap());
            flush(&mut overlay, &mut kernel);
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
            assert!(
                sh("ip nexthop").contains("192.168.77.44") && !sh("ip nexthop").contains("192.168.77.2 ")
            );
        });
    }
}

/// `ip` as another implementation of the same messages.
#[test]
fn a_printed_plan_is_a_script_with_the_same_effect() {
    if !can_run() {
        return;
    }
    for (ipip, device) in devices() {
        let made = |write: &(dyn Fn(&mut Overlay, &mut Netlink) + Sync)| {
            testkit::in_netns(|| {
                let (mut kernel, e0) = host();
                let mut overlay = overlay(1, e0, ipip);
                write(&mut overlay, &mut kernel);
                assert_eq!(converge(&mut overlay, &mut kernel), 0);
                let mut changed = family_of(1, e0, ipip);
                changed.device.as_mut().unwrap().local = "192.168.77.99".parse().unwrap();
                overlay.set_family(changed);
                write(&mut overlay, &mut kernel);
                assert_eq!(converge(&mut overlay, &mut kernel), 0);
                state(device)
            })
            .unwrap()
        };
        let ours = made(&|overlay, kernel| {
            converge(overlay, kernel);
        });
        let script = made(&|overlay, kernel| {
            drop(sh(&overlay.diff(&kernel.observe(&overlay.links()).unwrap()).to_string()));
        });
        assert_eq!(ours, script);
    }
}

#[test]
fn a_switch_from_one_kind_of_device_to_another_leaves_nothing_of_the_first() {
    if !can_run() {
        return;
    }
    let [ipip, udp] = devices();
    for (from, to) in [(ipip, udp), (udp, ipip)] {
        netns(|| {
            let (mut kernel, e0) = host();
            let mut only = overlay(1, e0, to.0);
            converge(&mut only, &mut kernel);
            let expected = sh("ip -br link | grep flannel | cut -d' ' -f1; ip nexthop | sort; ip fou show");
            let old = only.links();
            let removal = Plan::removal(&old, &kernel.observe(&old).unwrap());
            assert!(kernel.apply(&removal).unwrap().refused.is_empty(), "{removal}");
            assert_eq!(sh("ip nexthop; ip fou show; ip -br link | grep flannel || true"), "");

            let mut before = overlay(1, e0, from.0);
            converge(&mut before, &mut kernel);
            let mut now = overlay(1, e0, to.0);
            converge(&mut now, &mut kernel);
            let left = Plan::leftovers(&before.links(), &[], &now, &kernel.observe(&before.links()).unwrap());
            assert!(kernel.apply(&left).unwrap().refused.is_empty(), "{left}");
            assert_eq!(
                sh("ip -br link | grep flannel | cut -d' ' -f1; ip nexthop | sort; ip fou show"),
                expected
            );
            assert_eq!(converge(&mut now, &mut kernel), 0);
        });
    }
}

#[test]
fn another_fou_port_or_device_in_the_way_is_reported_with_the_remedy() {
    if !can_run() {
        return;
    }
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip fou add port 8285 gue; ip link add other type ipip local 192.168.77.1");
        let refused = |kernel: &mut Netlink, (ipip, _): (IpipSpec, &str)| {
            let report = overlay(1, e0, ipip).converge(kernel).unwrap();
            (report.refused[0].errno, report.refused[0].text.clone().unwrap())
        };
        let (errno, text) = refused(&mut kernel, devices()[0]);
        assert_eq!(errno, Errno::EEXIST);
        assert!(text.contains("another ipip device has the local address 192.168.77.1"), "{text}");
        let (errno, text) = refused(&mut kernel, devices()[1]);
        assert_eq!(errno, Errno::EADDRINUSE);
        assert!(text.contains("UDP port 8285 is used by another program"), "{text}");
    });
}

/// Runs where the tests above cannot.
#[test]
fn a_kernel_without_the_module_is_reported_with_the_remedy() {
    netns(|| {
        let (mut kernel, e0) = host();
        if !KernelOption::IPIP.is_present() {
            let report = overlay(1, e0, IpipSpec::new()).converge(&mut kernel).unwrap();
            let text = report.refused[0].to_string();
            assert!(text.contains("this kernel lacks ipip (CONFIG_NET_IPIP): load the module"), "{text}");
        }
        if !KernelOption::FOU.is_present() {
            let report = overlay(1, e0, devices()[1].0).converge(&mut kernel).unwrap();
            let text = report.refused[0].to_string();
            assert!(text.contains("this kernel lacks fou (CONFIG_NET_FOU): load the module"), "{text}");
        }
        // VXLAN works in any case.
        clean(super::both(e0).converge(&mut kernel).unwrap());
    });
}
