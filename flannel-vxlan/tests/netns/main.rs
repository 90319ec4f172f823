//! The overlay on the real kernel, each test in a network namespace of its own.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but does not see helpers of integration tests as such"
)]

mod conflicts;
mod converge;
mod device;
mod ipip;
mod nodes;
mod notifications;
mod peers;
mod underlay;
mod unprivileged;
mod wireguard;

use std::time::Duration;

use flannel_vxlan::{
    DeviceSpec, Family, FamilySpec, Kernel, Link, MacAddr, Netlink, Overlay, Peer, Report, UnderlayMtu, Via,
    Vni, VxlanSpec,
};
use testkit::{sh, try_sh, wait_for};

/// A host with an interface `e0` that carries an IPv4 and an IPv6 address.
fn host() -> (Netlink, Link) {
    // Duplicate address detection would report an address seconds after it was added.
    sh("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
        ip link add e0 type veth peer name e1
        ip link set e0 up; ip link set e1 up
        ip addr add 192.168.77.1/24 dev e0; ip addr add fd77::1/64 dev e0 nodad");
    // The kernel reports an IPv6 address, and adds the route to it, from a work queue.
    let is_complete = || sh("ip -6 route show table local").contains("local fd77::1 dev e0").then_some(());
    wait_for(Duration::from_secs(10), is_complete).unwrap();
    let mut kernel = Netlink::open().unwrap();
    let e0 = kernel.interfaces().unwrap().into_iter().find(|interface| interface.name == "e0").unwrap();
    (kernel, Link { index: e0.index, name: "e0".parse().unwrap() })
}

fn device(family: Family, underlay: Link) -> DeviceSpec {
    let (local, address, mac) = match family {
        Family::V4 => ("192.168.77.1", "10.244.1.0", "02:00:00:00:04:01"),
        Family::V6 => ("fd77::1", "fd00:10:244:1::", "02:00:00:00:06:01"),
    };
    let mtu = UnderlayMtu::new(1500).inside_vxlan(family).unwrap();
    let vxlan = VxlanSpec::new(Vni::new(1).unwrap(), mac.parse().unwrap());
    DeviceSpec::new(vxlan, underlay, local.parse().unwrap(), address.parse().unwrap(), mtu)
}

/// The same device with other VXLAN options.
fn with(mut device: DeviceSpec, change: impl FnOnce(VxlanSpec) -> VxlanSpec) -> DeviceSpec {
    device.kind = change(*device.kind.vxlan().unwrap()).into();
    device
}

fn family(family: Family, underlay: Link) -> FamilySpec {
    let (subnet, network) = match family {
        Family::V4 => ("10.244.1.0/24", "10.244.0.0/16"),
        Family::V6 => ("fd00:10:244:1::/64", "fd00:10:244::/48"),
    };
    FamilySpec::new(underlay, subnet.parse().unwrap(), vec![network.parse().unwrap()])
}

fn both(underlay: Link) -> Overlay {
    Overlay::new(Family::ALL.map(|f| family(f, underlay).device(device(f, underlay))))
}

fn tunnel(subnet: &str, mac: &str, underlay: &str) -> Peer {
    let via = Via::Tunnel { mac: mac.parse().unwrap(), underlay: underlay.parse().unwrap() };
    Peer { subnet: subnet.parse().unwrap(), via }
}

fn direct(subnet: &str, gateway: &str) -> Peer {
    Peer { subnet: subnet.parse().unwrap(), via: Via::Direct { gateway: gateway.parse().unwrap() } }
}

/// Peers 2 to `last`, each of both families.
fn add_peers(overlay: &mut Overlay, last: u8) {
    for n in 2..=last {
        // In a test with one family, the peers of the other family conflict.
        let _v4_only =
            overlay.set_peer(tunnel(&format!("fd00:10:244:{n}::/64"), &mac(n), &format!("fd77::{n}")));
        overlay.set_peer(tunnel(&format!("10.244.{n}.0/24"), &mac(n), &format!("192.168.77.{n}"))).unwrap();
    }
}

fn mac(n: u8) -> String {
    MacAddr::new([2, 0, 0, 0, 0, n]).unwrap().to_string()
}

#[track_caller]
fn converge(overlay: &mut Overlay, kernel: &mut Netlink) -> usize {
    clean(overlay.converge(kernel).unwrap())
}

#[track_caller]
fn flush(overlay: &mut Overlay, kernel: &mut Netlink) -> usize {
    clean(overlay.flush(kernel).unwrap())
}

#[track_caller]
fn clean(report: Report) -> usize {
    assert!(report.is_clean(), "{report:#?}");
    report.steps
}

/// All objects of the overlay as `ip` and `bridge` show them, without values that change by themselves.
fn state() -> String {
    let device = |name: &str| {
        try_sh(&format!("ip -d link show {name} | sed 's/^[0-9]*: //'; ip -br addr show {name} scope global"))
            .unwrap_or_default()
            + &try_sh(&format!(
                "bridge fdb show dev {name} | sort; ip neigh show dev {name} nud permanent | sort"
            ))
            .unwrap_or_default()
            + &try_sh(&format!("ip -6 neigh show dev {name} nud permanent | sort")).unwrap_or_default()
    };
    device("flannel.1")
        + &device("flannel-v6.1")
        + &sh(
            "ip nexthop | sort; ip route | sort; ip -6 route | grep -v ^fe80 | sort; sysctl -ar 'flannel.*accept_ra$'",
        )
}
