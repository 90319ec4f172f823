//! Plans and conflict rules, on the fake kernel: no test here needs privileges.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but does not see helpers of integration tests as such"
)]

mod conflict_by_address;
mod conflict_by_age;
mod costs;
mod devices;
mod hold;
mod ipip;
mod nexthops;
mod notices;
mod notices_of_routes;
mod plans;
mod properties;
mod refused;
mod routes;
mod settled;
mod stale;
mod wireguard;

use std::net::IpAddr;

use flannel_vxlan::{DeviceSpec, Family, FamilySpec, IpipSpec, Link, MacAddr, UnderlayMtu, Vni, VxlanSpec};

/// The only interface of the fake kernel.
fn eth0() -> Link {
    Link { index: 2, name: "eth0".parse().unwrap() }
}

fn device(vni: u32, local: &str, address: &str, mac: MacAddr) -> DeviceSpec {
    let local: IpAddr = local.parse().unwrap();
    let mtu = UnderlayMtu::new(1500).inside_vxlan(Family::of(local)).unwrap();
    let vxlan = VxlanSpec::new(Vni::new(vni).unwrap(), mac);
    DeviceSpec::new(vxlan, eth0(), local, address.parse().unwrap(), mtu)
}

/// An IP-in-IP device on the address of the fake kernel.
fn ipip(ipip: IpipSpec) -> DeviceSpec {
    let mtu = UnderlayMtu::new(1500).inside_ipip(ipip).unwrap();
    DeviceSpec::new(ipip, eth0(), "192.168.77.1".parse().unwrap(), "10.244.1.0".parse().unwrap(), mtu)
}

/// The same device with other VXLAN options.
fn with(mut device: DeviceSpec, change: impl FnOnce(VxlanSpec) -> VxlanSpec) -> DeviceSpec {
    device.kind = change(*device.kind.vxlan().unwrap()).into();
    device
}

/// This node's subnet in the cluster's network, without a device.
fn family(family: Family) -> FamilySpec {
    let (subnet, network) = match family {
        Family::V4 => ("10.244.1.0/24", "10.244.0.0/16"),
        Family::V6 => ("fd00:10:244:1::/64", "fd00:10:244::/48"),
    };
    FamilySpec::new(eth0(), subnet.parse().unwrap(), vec![network.parse().unwrap()])
}
