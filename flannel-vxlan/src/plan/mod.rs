//! Ordered steps, each harmless to repeat, that bring the kernel to what was asked for.

pub(crate) mod claim_index;
pub(crate) mod diff;
pub(crate) mod report;
pub(crate) mod teardown;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::objects::ROUTE_PROTOCOL;
use crate::wire::DEFAULT_AGEING;
use crate::{
    DeviceSpec, Family, FdbEntry, IfName, Link, MacAddr, NameTaken, Neighbor, Nexthop, ObservedDevice,
    OverlayMtu, Route, RouteTo, Vni,
};

/// What to do to the kernel, in order. Printed ([`fmt::Display`]) it is a shell script of `ip` and `bridge` commands.
///
/// Not atomic: rtnetlink has no transactions. Instead every prefix of a plan leaves the kernel in a state that
/// forwards no packet wrongly, and a plan that was cut short is followed by another one. A device that has to be made
/// anew gives up its routes first: with them on it the kernel takes a time quadratic in their number to delete it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use = "nothing reaches the kernel until the plan is applied"]
pub struct Plan {
    pub(crate) links: [Option<Links>; 2],
    /// Indexes of the VXLAN devices; 0 for one that has to be looked up when the plan is applied.
    pub(crate) devices: [u32; 2],
    pub(crate) steps: Vec<Step>,
    pub(crate) peers: Vec<PeerSteps>,
    pub(crate) taken: Vec<NameTaken>,
    /// Whether it comes of a full reading.
    pub(crate) is_whole: bool,
}

/// The interfaces that steps of one family are about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Links {
    /// Name of the VXLAN device; `None` if there is to be none (`host-gw`).
    pub device: Option<IfName>,
    /// The physical network.
    pub underlay: Link,
    /// Where routes of others count: what all pods of the cluster lie in.
    pub networks: IpNet,
    /// Whether to read if the device leaves checksums to the network card, which takes questions of its own.
    pub tx_checksum: bool,
    /// What a VXLAN device of another name is known by, if somebody renamed ours. `None`: only the name counts.
    pub identity: Option<(Vni, MacAddr)>,
}

impl Links {
    /// Whether this is the device, renamed by somebody.
    pub(crate) fn is_renamed(&self, found: &ObservedDevice) -> bool {
        let (Some(vxlan), Some((vni, mac))) = (found.vxlan, self.identity) else { return false };
        let family = vxlan.local.map(Family::of);
        self.device != Some(found.name)
            && (vxlan.vni, found.mac) == (vni.number(), Some(mac))
            && family == Some(Family::of_net(self.networks))
    }
}

impl Links {
    /// The device of this name, to be looked at or removed; nothing of the underlay is meant, nor any route of others.
    #[must_use]
    pub fn of(device: IfName, family: Family) -> Self {
        let nothing = match family {
            Family::V4 => IpNet::from(IpAddr::from([0; 4])),
            Family::V6 => IpNet::from(IpAddr::from([0; 16])),
        };
        Self {
            device: Some(device),
            underlay: Link { index: 0, name: device },
            networks: nothing,
            tx_checksum: false,
            identity: None,
        }
    }
}

/// Which steps of a plan belong to one peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PeerSteps {
    pub(crate) subnet: IpNet,
    pub(crate) first: usize,
    pub(crate) end: usize,
}

/// One change to the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Something about the VXLAN device of that family.
    Device(Family, DeviceStep),
    /// Make or replace a FDB entry.
    PutFdbEntry(FdbEntry),
    /// Make or replace a neighbor.
    PutNeighbor(Neighbor),
    /// Make a nexthop object, or replace one of ours. A number that others use is refused (`EEXIST`).
    PutNexthop {
        /// The object.
        nexthop: Nexthop,
        /// Whether it is known to be there and ours.
        replace: bool,
    },
    /// Make a route, or replace one of ours or of upstream's. One of others is left alone and the step refused
    /// (`EEXIST`).
    PutRoute {
        /// The route.
        route: Route,
        /// Whether one of ours or upstream's is known to be there.
        replace: bool,
    },
    /// Delete a route.
    DeleteRoute {
        /// Destination.
        subnet: IpNet,
        /// Its metric.
        metric: u32,
        /// Its protocol: ours, or `boot` (3) for one of upstream's.
        protocol: u8,
    },
    /// Delete a nexthop object, and with it the routes that still lead to it.
    DeleteNexthop {
        /// Its number.
        id: u32,
    },
    /// Delete a neighbor from the VXLAN device.
    DeleteNeighbor {
        /// Its address.
        address: IpAddr,
    },
    /// Delete a FDB entry.
    DeleteFdbEntry(FdbEntry),
}

/// A change to a VXLAN device.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeviceStep {
    /// Delete it, to be made anew.
    Delete,
    /// Make it.
    Create(Box<DeviceSpec>),
    /// Change local address, underlay and learning in place.
    Change(Box<DeviceSpec>),
    /// Give it its name again, which somebody changed to this one.
    Rename(IfName),
    /// Set back in place what others changed of its other options; the VNI is its own.
    ResetOptions(Vni),
    /// Take it out of the bridge, VRF or other device that it is a port of.
    Release,
    /// Set the MAC address.
    SetMac(MacAddr),
    /// Set the MTU.
    SetMtu(OverlayMtu),
    /// Do not obey router advertisements.
    IgnoreRouterAdvertisements,
    /// Turn checksum offload on or off.
    SetTxChecksum(bool),
    /// Set it up.
    Up,
    /// Give it an address with a full-length prefix.
    AddAddress(IpAddr),
    /// Take an address with this prefix length away.
    DeleteAddress(IpAddr, u8),
}

impl Plan {
    /// Appends what puts a route; `elsewhere` is whether one through another link may be in its place.
    pub(crate) fn put_route(&mut self, route: Route, replace: bool, elsewhere: bool) {
        let guide = Route::shows_the_way_to(&route).filter(|_| elsewhere);
        self.steps.extend(guide.map(|route| Step::PutRoute { route, replace: false }));
        self.steps.push(Step::PutRoute { route, replace });
        self.steps.extend(guide.map(|route| Step::DeleteRoute {
            subnet: route.subnet,
            metric: route.metric(),
            protocol: ROUTE_PROTOCOL,
        }));
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The interfaces that steps of this family are about; `None` if the plan has none.
    #[must_use]
    pub fn links(&self, family: Family) -> Option<&Links> {
        match family {
            Family::V4 => self.links[0].as_ref(),
            Family::V6 => self.links[1].as_ref(),
        }
    }

    /// Devices of our names that are not ours: nothing of their family is in the plan.
    #[must_use]
    pub fn taken(&self) -> &[NameTaken] {
        &self.taken
    }

    /// The command that does the same as this step.
    #[must_use]
    pub fn command(&self, step: &Step) -> String {
        Command { plan: self, step }.to_string()
    }

    /// The peer that step number `step` is for; `None` if it is about the device or a stale entry.
    #[must_use]
    pub fn peer_of(&self, step: usize) -> Option<IpNet> {
        let after = self.peers.partition_point(|peer| peer.end <= step);
        self.peers.get(after).filter(|peer| peer.first <= step).map(|peer| peer.subnet)
    }

    fn device(&self, family: Family) -> &str {
        self.links(family).and_then(|links| links.device.as_ref()).map_or("?", IfName::as_str)
    }

    fn underlay(&self, family: Family) -> &str {
        self.links(family).map_or("?", |links| links.underlay.name.as_str())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{}", Command { plan: self, step }))
    }
}

struct Command<'a> {
    plan: &'a Plan,
    step: &'a Step,
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = |family| self.plan.device(family);
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
                        let dev = self.plan.underlay(family);
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
    let vxlan = |spec: &DeviceSpec| {
        let learning = if spec.learning { "learning" } else { "nolearning" };
        let (vni, local, underlay) = (spec.vni, spec.local, spec.underlay.name);
        format!("type vxlan id {vni} local {local} dev {underlay} {learning}")
    };
    match step {
        DeviceStep::Delete => write!(f, "ip link del {dev}"),
        DeviceStep::Create(spec) => {
            let (mac, mtu, port) = (spec.mac, spec.mtu, spec.port);
            write!(f, "ip link add {dev} address {mac} mtu {mtu} {} dstport {port}", vxlan(spec))?;
            f.write_str(if spec.gbp { " gbp" } else { "" })
        }
        DeviceStep::Change(spec) => write!(f, "ip link set {dev} {}", vxlan(spec)),
        DeviceStep::ResetOptions(vni) => write!(
            f,
            "ip link set {dev} type vxlan id {vni} ttl auto tos 0 df unset flowlabel 0 ageing {DEFAULT_AGEING} localbypass"
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
            // Nobody else can have it: peers would send to the wrong host anyway.
            let nodad = if address.is_ipv6() { " nodad" } else { "" };
            write!(f, "ip addr add {address}/{} dev {dev}{nodad}", Family::of(*address).bits())
        }
        DeviceStep::DeleteAddress(address, prefix) => write!(f, "ip addr del {address}/{prefix} dev {dev}"),
    }
}
