//! Why the kernel refuses a step, and what to do about it.

use std::error::Error;
use std::iter::successors;

use flannel_netlink::Errno;

use crate::kernel::netlink::Netlink;
use crate::model::device::DeviceKind;
use crate::model::family::Family;
use crate::model::objects::{Route, RouteTo};
use crate::model::vxlan::VxlanSpec;
use crate::plan::Plan;
use crate::plan::step::{DeviceStep, Step};
use crate::wire::{ethtool, fou, wireguard};

/// Explains the refusal of a step of a device for which the kernel gives no explanation.
pub(super) fn device_step(
    kernel: &mut Netlink,
    plan: &Plan,
    family: Family,
    step: &DeviceStep,
    errno: Errno,
) -> Option<String> {
    match (step, errno) {
        (DeviceStep::Create(spec), Errno::EEXIST) => {
            let VxlanSpec { vni, port, .. } = match spec.kind {
                DeviceKind::Vxlan(vxlan) => vxlan,
                DeviceKind::Ipip(_) => {
                    return Some(format!(
                        "another ipip device has the local address {} and no remote address: remove it",
                        spec.local
                    ));
                }
                DeviceKind::Wireguard(_) => return None,
            };
            let others = kernel.vxlan_with(vni.number(), port.get()).ok()?;
            let other = others.first()?;
            Some(format!(
                "VNI {vni} on UDP port {port} is used by the device `{other}`: remove that device if it is not in use \
                 (`ip link del {other}`), or choose another VNI or port for all nodes"
            ))
        }
        (DeviceStep::Up, Errno::EADDRINUSE) => {
            let ports = plan.steps().iter().find_map(|step| match step {
                Step::Device(of, DeviceStep::Create(spec)) if *of == family => {
                    spec.kind.port().map(|port| format!("UDP port {port}"))
                }
                _ => None,
            });
            let port = ports.unwrap_or_else(|| "its UDP port".to_owned());
            Some(format!(
                "{port} is used by another program, or by a tunnel device with other options (`ss -lunp`, `ip -d link`): stop \
                 that program or remove that device, or choose another port for all nodes"
            ))
        }
        // The kernel creates devices only of kinds whose module is loaded or can be loaded (`rtnl_newlink`).
        (DeviceStep::Create(spec), Errno::EOPNOTSUPP) => {
            let (kind, option) = match spec.kind {
                DeviceKind::Vxlan(_) => ("vxlan", "CONFIG_VXLAN"),
                DeviceKind::Ipip(_) => ("ipip", "CONFIG_NET_IPIP"),
                DeviceKind::Wireguard(_) => ("wireguard", "CONFIG_WIREGUARD"),
            };
            Some(missing_module(kind, option))
        }
        (DeviceStep::SetWireguard(spec), Errno::EADDRINUSE) => Some(format!(
            "UDP port {} is used by another program or WireGuard device: stop it, or choose another ListenPort",
            spec.port
        )),
        (DeviceStep::PutFouPort(_), Errno::EOPNOTSUPP) => Some(missing_module("fou", "CONFIG_NET_FOU")),
        (DeviceStep::PutFouPort(port), Errno::EADDRINUSE) => Some(format!(
            "UDP port {port} is used by another program, or by FOU with other options: stop it, or choose another Port"
        )),
        (DeviceStep::SetMtu(mtu), Errno::EINVAL) => Some(format!(
            "the uplink cannot carry packets of {mtu} bytes plus the VXLAN overhead (50 bytes over IPv4, 70 over IPv6)"
        )),
        // `vxlan_open`, `wg_open`
        (DeviceStep::Create(_) | DeviceStep::Up, Errno::EAFNOSUPPORT) => Some(format!(
            "this kernel has {family} turned off; turn it on (IPv6: no ipv6.disable=1 in the boot parameters), or configure no \
             {family} network"
        )),
        (DeviceStep::SetWireguard(_), Errno::EOPNOTSUPP) => {
            Some(missing_module("wireguard", "CONFIG_WIREGUARD"))
        }
        (DeviceStep::Create(spec), Errno::ENODEV) => Some(format!(
            "the uplink {} does not exist; create it, or choose another interface",
            spec.underlay.name
        )),
        (_, Errno::ENODEV) => Some(DEVICE_GONE.to_owned()),
        _ => None,
    }
}

const DEVICE_GONE: &str = "another process deleted or renamed the device; the next flush restores it";

/// Explains the refusal of a step of a peer, a route or a stale object, of which the kernel says `text`.
pub(super) fn entry_step(step: &Step, errno: Errno, text: Option<String>) -> Option<String> {
    let advice = match (step, errno) {
        (_, Errno::ENODEV) => DEVICE_GONE.to_owned(),
        (Step::PutNexthop { nexthop, .. }, Errno::EEXIST) => {
            let id = nexthop.id;
            format!("another program has a nexthop object with ID {id}; the next try uses another ID")
        }
        (Step::PutRoute { route, .. }, Errno::EEXIST) => {
            format!(
                "another program has a route to {0}; find it with `ip route show {0}`, and remove it",
                route.subnet
            )
        }
        (Step::PutRoute { route: Route { to: RouteTo::Direct { gateway }, .. }, .. }, Errno::ENETUNREACH) => {
            format!("{gateway} is not on a network of the uplink; without a tunnel a peer has to be")
        }
        (Step::PutRoute { .. }, Errno::ENETDOWN) => {
            "the interface of the route is down; set it up with `ip link set NAME up`".to_owned()
        }
        (Step::PutNeighbor(entry), Errno::ENOBUFS) => {
            let family = if entry.address.is_ipv4() { "ipv4" } else { "ipv6" };
            format!(
                "the neighbor table is full, or the kernel has no memory; raise net.{family}.neigh.default.gc_thresh3, or free \
                 memory"
            )
        }
        (_, Errno::ENOBUFS) => "the kernel has no memory for it, so free some".to_owned(),
        _ => return text,
    };
    Some(match text {
        Some(text) => format!("{text}; {advice}"),
        None => advice,
    })
}

/// Explains that the kernel lacks a family of generic netlink.
pub(super) fn missing_family(family: &str) -> Option<String> {
    match family {
        ethtool::FAMILY => Some(
            "this kernel lacks ethtool over netlink; use Linux 5.8 or later with CONFIG_ETHTOOL_NETLINK, or run this command"
                .to_owned(),
        ),
        fou::FAMILY => Some(missing_module("fou", "CONFIG_NET_FOU")),
        wireguard::FAMILY => Some(missing_module("wireguard", "CONFIG_WIREGUARD")),
        _ => None,
    }
}

/// An error and its causes.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(super) fn missing_module(module: &str, option: &str) -> String {
    format!(
        "this kernel lacks {module} ({option}): load the module on the host (`modprobe {module}`, and its name in a file in \
         /etc/modules-load.d to load it at boot), or choose another backend"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects::{Neighbor, Nexthop};

    #[test]
    fn a_refused_step_of_a_peer_has_advice_after_the_kernels_text() {
        let neighbor = Step::PutNeighbor(Neighbor {
            address: "10.244.3.0".parse().unwrap(),
            mac: "02:00:00:00:00:03".parse().unwrap(),
        });
        let full = entry_step(&neighbor, Errno::ENOBUFS, None).unwrap();
        assert!(full.contains("raise net.ipv4.neigh.default.gc_thresh3"), "{full}");
        let nexthop = Nexthop { id: 7, gateway: "10.244.3.0".parse().unwrap() };
        let taken = entry_step(&Step::PutNexthop { nexthop, replace: false }, Errno::EEXIST, None).unwrap();
        assert!(taken.starts_with("another program has a nexthop object with ID 7"), "{taken}");
        let route = Route {
            subnet: "10.244.3.0/24".parse().unwrap(),
            to: RouteTo::Direct { gateway: "192.0.2.3".parse().unwrap() },
        };
        let kernel = Some("Nexthop has invalid gateway".to_owned());
        let outside =
            entry_step(&Step::PutRoute { route, replace: false }, Errno::ENETUNREACH, kernel.clone());
        assert_eq!(
            outside.unwrap(),
            "Nexthop has invalid gateway; 192.0.2.3 is not on a network of the uplink; without a tunnel a peer has to be"
        );
        assert_eq!(entry_step(&neighbor, Errno::EINVAL, kernel.clone()), kernel);
    }
}
