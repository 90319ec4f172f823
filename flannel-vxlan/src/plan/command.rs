//! Steps as shell commands of `ip`, `bridge`, `ethtool`, `sysctl` and `wg`.

use std::fmt;
use std::num::NonZeroU16;

use crate::model::device::{DeviceKind, DeviceSpec};
use crate::model::family::{Family, PerFamily};
use crate::model::family_spec::Links;
use crate::model::if_name::IfName;
use crate::model::ipip::IpipSpec;
use crate::model::objects::{FdbEntry, Neighbor, Nexthop, ROUTE_PROTOCOL, Route, RouteTo};
use crate::model::vxlan::VxlanSpec;
use crate::model::wireguard::{WireguardPeer, WireguardSpec};
use crate::plan::step::{DEFAULT_AGEING_SECONDS, DeviceStep, Step};

/// A step as a shell command.
pub(crate) struct Command<'a> {
    pub(crate) links: &'a PerFamily<Option<Links>>,
    pub(crate) step: &'a Step,
}

impl Command<'_> {
    fn device(&self, family: Family) -> &str {
        let device = self.links[family].as_ref().and_then(|links| links.device.as_ref());
        device.map_or("?", IfName::as_str)
    }

    fn underlay(&self, family: Family) -> &str {
        self.links[family].as_ref().map_or("?", |links| links.underlay.name.as_str())
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = |family| self.device(family);
        match self.step {
            Step::Device(family, step) => write_device(f, device(*family), step),
            Step::PutFdbEntry(FdbEntry { family, mac, underlay }) => {
                let dev = device(*family);
                write!(f, "bridge fdb replace {mac} dev {dev} dst {underlay} self extern_learn permanent")
            }
            Step::PutNeighbor(Neighbor { address, mac }) => {
                let dev = device(Family::of(*address));
                write!(
                    f,
                    "ip neigh replace {address} lladdr {mac} dev {dev} nud permanent protocol {ROUTE_PROTOCOL}"
                )
            }
            Step::PutNexthop { nexthop: Nexthop { id, gateway }, .. } => {
                let dev = device(Family::V4);
                write!(
                    f,
                    "ip nexthop replace id {id} via {gateway} dev {dev} onlink protocol {ROUTE_PROTOCOL}"
                )
            }
            Step::PutRoute { route, .. } => {
                let Route { subnet, to } = *route;
                let family = Family::of_net(subnet);
                let (ip, proto) = (ip(family), ROUTE_PROTOCOL);
                match to {
                    RouteTo::Nexthop { id } => {
                        write!(f, "{ip} route replace {subnet} nhid {id} proto {proto}")
                    }
                    RouteTo::Onlink { gateway } => {
                        let dev = device(family);
                        write!(f, "{ip} route replace {subnet} via {gateway} dev {dev} onlink proto {proto}")
                    }
                    RouteTo::Direct { gateway } => {
                        let dev = self.underlay(family);
                        write!(f, "{ip} route replace {subnet} via {gateway} dev {dev} proto {proto}")
                    }
                    RouteTo::Device => {
                        write!(f, "{ip} route replace {subnet} dev {} proto {proto}", device(family))
                    }
                    RouteTo::Blackhole => {
                        let metric = route.metric();
                        write!(f, "{ip} route replace blackhole {subnet} metric {metric} proto {proto}")
                    }
                }
            }
            Step::DeleteRoute { subnet, metric, protocol } => {
                write!(
                    f,
                    "{} route del {subnet} metric {metric} proto {protocol}",
                    ip(Family::of_net(*subnet))
                )
            }
            Step::DeleteNexthop { id } => write!(f, "ip nexthop del id {id}"),
            Step::DeleteNeighbor { address } => {
                write!(f, "ip neigh del {address} dev {}", device(Family::of(*address)))
            }
            Step::DeleteFdbEntry(FdbEntry { family, mac, underlay }) => {
                write!(f, "bridge fdb del {mac} dev {} dst {underlay} self", device(*family))
            }
            Step::PutWireguardPeer(family, peer) => write_peer(f, device(*family), peer),
            Step::DeleteWireguardPeer(family, key) => {
                write!(f, "wg set {} peer {key} remove", device(*family))
            }
        }
    }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip -6",
    }
}

fn write_device(f: &mut fmt::Formatter<'_>, dev: &str, step: &DeviceStep) -> fmt::Result {
    let vxlan = |spec: &DeviceSpec, vxlan: &VxlanSpec| {
        let learning = if vxlan.learning { "learning" } else { "nolearning" };
        let (vni, local, underlay) = (vxlan.vni, spec.local, spec.underlay.name);
        format!("type vxlan id {vni} local {local} dev {underlay} {learning}")
    };
    match step {
        DeviceStep::Delete => write!(f, "ip link del {dev}"),
        DeviceStep::Create(spec) => match &spec.kind {
            DeviceKind::Vxlan(kind) => {
                let (mac, mtu, port) = (kind.mac, spec.mtu, kind.port);
                write!(f, "ip link add {dev} address {mac} mtu {mtu} {} dstport {port}", vxlan(spec, kind))?;
                f.write_str(if kind.gbp { " gbp" } else { "" })
            }
            DeviceKind::Ipip(kind) => write!(f, "ip link add {dev} mtu {} {}", spec.mtu, ipip(spec, *kind)),
            DeviceKind::Wireguard(_) => write!(f, "ip link add {dev} mtu {} type wireguard", spec.mtu),
        },
        DeviceStep::Change(spec) => match &spec.kind {
            DeviceKind::Vxlan(kind) => write!(f, "ip link set {dev} {}", vxlan(spec, kind)),
            DeviceKind::Ipip(kind) => write!(f, "ip link set {dev} mtu {} {}", spec.mtu, ipip(spec, *kind)),
            DeviceKind::Wireguard(wireguard) => write_wireguard(f, dev, wireguard),
        },
        DeviceStep::SetWireguard(wireguard) => write_wireguard(f, dev, wireguard),
        DeviceStep::PutFouPort(port) => write!(f, "ip fou add port {port} ipproto 4"),
        DeviceStep::DeleteFouPort(port) => write!(f, "ip fou del port {port}"),
        DeviceStep::ResetOptions(vni) => write!(
            f,
            "ip link set {dev} type vxlan id {vni} ttl auto tos 0 df unset flowlabel 0 ageing {DEFAULT_AGEING_SECONDS} localbypass"
        ),
        DeviceStep::Rename(from) => write!(f, "ip link set {from} name {dev}"),
        DeviceStep::Release => write!(f, "ip link set {dev} nomaster"),
        DeviceStep::SetMac(mac) => write!(f, "ip link set {dev} address {mac}"),
        DeviceStep::SetMtu(mtu) => write!(f, "ip link set {dev} mtu {mtu}"),
        DeviceStep::IgnoreRouterAdvertisements => write!(f, "sysctl -w net/ipv6/conf/{dev}/accept_ra=0"),
        DeviceStep::SetTxChecksum(on) => {
            write!(f, "ethtool -K {dev} tx-checksum-ip-generic {}", if *on { "on" } else { "off" })
        }
        DeviceStep::Up => write!(f, "ip link set {dev} up"),
        DeviceStep::AddAddress(address) => {
            // The address is in this node's own subnet, so no other host can have it.
            let nodad = if address.is_ipv6() { " nodad" } else { "" };
            write!(f, "ip addr add {address}/{} dev {dev}{nodad}", Family::of(*address).bits())
        }
        DeviceStep::DeleteAddress(address, prefix) => write!(f, "ip addr del {address}/{prefix} dev {dev}"),
    }
}

/// Without the private key, which `wg` reads from its standard input.
fn write_wireguard(f: &mut fmt::Formatter<'_>, dev: &str, wireguard: &WireguardSpec) -> fmt::Result {
    write!(f, "wg set {dev} private-key /dev/stdin listen-port {} fwmark 0", wireguard.port)
}

/// Without the preshared key, which `wg` reads from its standard input.
fn write_peer(f: &mut fmt::Formatter<'_>, dev: &str, peer: &WireguardPeer) -> fmt::Result {
    write!(f, "wg set {dev} peer {}", peer.key)?;
    let psk = if peer.psk.is_some() { "/dev/stdin" } else { "/dev/null" };
    write!(f, " preshared-key {psk}")?;
    if let Some(endpoint) = peer.endpoint {
        write!(f, " endpoint {endpoint}")?;
    }
    write!(f, " persistent-keepalive {}", peer.keepalive.map_or(0, NonZeroU16::get))?;
    for (number, subnet) in peer.subnets.iter().enumerate() {
        write!(f, "{}{subnet}", if number == 0 { " allowed-ips " } else { "," })?;
    }
    Ok(())
}

fn ipip(spec: &DeviceSpec, ipip: IpipSpec) -> String {
    let (local, underlay) = (spec.local, spec.underlay.name);
    let encap = match ipip.fou {
        Some(port) => {
            format!("dev {underlay} encap fou encap-sport {port} encap-dport {port} encap-csum")
        }
        None => "encap none".to_owned(),
    };
    format!("type ipip mode ipip local {local} remote any ttl inherit tos 0 nopmtudisc {encap}")
}
