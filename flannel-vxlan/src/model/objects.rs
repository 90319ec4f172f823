//! The four things a peer is made of in the kernel, and what a reading of the kernel found.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::kernel::interfaces::Interface;
use crate::{Family, MacAddr, Peer, Via};

/// Routing protocol number of every route, nexthop and neighbor that this crate makes (`rtm_protocol`), so that
/// they can be told from those of others: the letter F. Not used by anyone in `/etc/iproute2/rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 70;

/// Metric of the blackhole route: the least preferred there is, so that any other route of the subnet wins,
/// the one of the pods' bridge above all.
pub const BLACKHOLE_METRIC: u32 = u32::MAX;

/// A FDB entry of a VXLAN device: frames to `mac` go to `underlay`.
///
/// # Kernel
/// `bridge fdb replace MAC dev flannel.1 dst UNDERLAY self extern_learn permanent`. The mark `extern_learn`, which
/// means "made by a control plane" (since 4.20), tells our entries from those of others.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FdbEntry {
    /// Whose device it is in.
    pub family: Family,
    /// Destination of the inner frame.
    pub mac: MacAddr,
    /// Destination of the outer packet.
    pub underlay: IpAddr,
}

/// A permanent neighbor on a VXLAN device.
///
/// # Kernel
/// `ip neigh replace ADDRESS lladdr MAC dev flannel.1 nud permanent protocol 70`
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Neighbor {
    /// The first address of the peer's subnet, which its VXLAN device has.
    pub address: IpAddr,
    /// That device's MAC address.
    pub mac: MacAddr,
}

/// A nexthop object for IPv4 routes.
///
/// The kernel finds equal route information by a hash that leaves the gateway out (`fib_info_hashfn`), so N routes
/// with N gateways on one device cost O(N²): 115 µs each at 10 000. With nexthop objects it is 4 µs each at any N.
/// IPv6 has no such hash, and takes plain routes at a flat price.
///
/// # Kernel
/// `ip nexthop add id ID via GATEWAY dev flannel.1 onlink protocol 70`. Since 5.3; before that, classic routes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Nexthop {
    /// Its number, unique in the network namespace; never 0.
    pub id: u32,
    /// The first address of the peer's subnet.
    pub gateway: Ipv4Addr,
}

/// A route of the main table.
///
/// # Kernel
/// `ip route replace SUBNET nhid ID proto 70`, `.. via GATEWAY dev flannel.1 onlink proto 70`,
/// `.. via GATEWAY dev eth0 proto 70`, `.. dev flannel-v6.1 proto 70`, or `ip route replace blackhole SUBNET metric 4294967295 proto 70`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Route {
    /// Destination.
    pub subnet: IpNet,
    /// Where it leads.
    pub to: RouteTo,
}

/// Where a [`Route`] leads.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum RouteTo {
    /// A nexthop object.
    Nexthop {
        /// Its number.
        id: u32,
    },
    /// An address behind the VXLAN device.
    Onlink {
        /// The first address of the peer's subnet.
        gateway: IpAddr,
    },
    /// A node on the physical network.
    Direct {
        /// Its address there.
        gateway: IpAddr,
    },
    /// The VXLAN device, for a moment: see `Route::shows_the_way_to`.
    Device,
    /// Nowhere.
    Blackhole,
}

impl Route {
    /// The metric it has: the kernel's default, except for a blackhole.
    #[must_use]
    pub fn metric(&self) -> u32 {
        match (self.to, Family::of_net(self.subnet)) {
            (RouteTo::Blackhole, _) => BLACKHOLE_METRIC,
            (_, family) => default_metric(family),
        }
    }

    /// The route that has to be there while an IPv6 route takes the place of one that leaves through another link.
    ///
    /// The kernel refuses a gateway, on-link or not, that it would reach through another link
    /// (`ip6_route_check_nh_onlink`, `net/ipv6/route.c`), and what the old route leads to is just that.
    pub(crate) fn shows_the_way_to(wanted: &Self) -> Option<Self> {
        match wanted.to {
            RouteTo::Onlink { gateway: gateway @ IpAddr::V6(_) } => {
                Some(Self { subnet: IpNet::from(gateway), to: RouteTo::Device })
            }
            _ => None,
        }
    }
}

/// What a route without a metric gets: `IP6_RT_PRIO_USER` in IPv6.
pub(crate) fn default_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 1024,
    }
}

/// Everything one peer is made of. Steps are taken in the order of the fields: nothing ever leads to something that
/// is not there yet, not even while the MAC address of a peer changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Entries {
    pub(crate) fdb_entry: Option<FdbEntry>,
    pub(crate) neighbor: Option<Neighbor>,
    pub(crate) nexthop: Option<Nexthop>,
    pub(crate) route: Route,
}

impl Entries {
    /// Those of `peer`; `nexthop` is the number of its nexthop object, 0 if it is to have none.
    pub(crate) fn of(peer: Peer, nexthop: u32) -> Self {
        let Peer { subnet, via } = peer;
        let gateway = subnet.network();
        match via {
            Via::Direct { gateway } => Self {
                fdb_entry: None,
                neighbor: None,
                nexthop: None,
                route: Route { subnet, to: RouteTo::Direct { gateway } },
            },
            Via::Tunnel { mac, underlay } => {
                let object = match gateway {
                    IpAddr::V4(gateway) if nexthop != 0 => Some(Nexthop { id: nexthop, gateway }),
                    _ => None,
                };
                let to =
                    object.map_or(RouteTo::Onlink { gateway }, |object| RouteTo::Nexthop { id: object.id });
                Self {
                    fdb_entry: Some(FdbEntry { family: Family::of(gateway), mac, underlay }),
                    neighbor: Some(Neighbor { address: gateway, mac }),
                    nexthop: object,
                    route: Route { subnet, to },
                }
            }
        }
    }
}

/// What a reading of the kernel found: this crate's objects, and those of others that could be mistaken for them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    /// Whether the kernel has nexthop objects (5.3).
    pub has_nexthops: bool,
    /// The VXLAN devices that were asked for and exist, or what else has their names.
    pub devices: Vec<crate::ObservedDevice>,
    /// All interfaces of the namespace.
    pub interfaces: Vec<Interface>,
    /// Permanent neighbors on those devices.
    pub neighbors: Vec<ObservedNeighbor>,
    /// FDB entries of those devices that lead to an address.
    pub fdb: Vec<ObservedFdbEntry>,
    /// All nexthop objects that lead to one gateway, and the numbers of the others.
    pub nexthops: Vec<ObservedNexthop>,
    /// Routes of the main table with protocol [`ROUTE_PROTOCOL`], or `boot`, which is what upstream's have.
    pub routes: Vec<ObservedRoute>,
    /// Other routes of the main table, inside the [`networks`](crate::Links::networks) that were asked for.
    pub others: Vec<ObservedRoute>,
    /// Gateways of all routes of the main table but this crate's, with the index of the interface they are on; not
    /// those that a route has on-link as the first address of its own destination, as overlays have them.
    pub gateways: Vec<(IpAddr, u32)>,
}

/// A neighbor that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObservedNeighbor {
    /// What it says.
    pub neighbor: Neighbor,
    /// `NDA_PROTOCOL`; 0 if whoever made it gave none, as upstream.
    pub protocol: u8,
}

/// A FDB entry that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObservedFdbEntry {
    /// What it says.
    pub entry: FdbEntry,
    /// Whether it has the mark of a control plane, which ours have (`NTF_EXT_LEARNED`).
    pub ext_learned: bool,
    /// Whether it stays until somebody deletes it (`NUD_PERMANENT`).
    pub permanent: bool,
    /// Whether it leaves by the device's own port, VNI and interface, as ours do.
    pub no_extra_attrs: bool,
    /// Whether its state is exactly `NUD_PERMANENT` and its flags are exactly `NTF_SELF`, as upstream flannel writes them.
    /// `bridge fdb add` sets `NUD_NOARP` too, and what the kernel learns is not permanent.
    pub upstream_form: bool,
}

/// A nexthop object that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObservedNexthop {
    /// Its number.
    pub id: u32,
    /// `nh_protocol`.
    pub protocol: u8,
    /// Index of the interface it leads to; 0 for a group or blackhole.
    pub interface: u32,
    /// The gateway; `None` if it has none, an IPv6 one, or one that packets are wrapped for.
    pub gateway: Option<Ipv4Addr>,
}

/// A route that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObservedRoute {
    /// Destination.
    pub subnet: IpNet,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// `RTA_PRIORITY`.
    pub metric: u32,
    /// Index of the outgoing interface; 0 if it has none.
    pub interface: u32,
    /// Where it leads.
    pub to: ObservedRouteTo,
    /// Whether it has nothing that ours never have: a source address, metrics such as an MTU, a realm, or a wrapping.
    pub no_extra_attrs: bool,
}

impl ObservedRoute {
    /// Whether it leaves by this interface, as far as it says. A route to a nexthop object does not with
    /// `net.ipv4.nexthop_compat_mode=0`.
    pub(crate) fn leaves_by(&self, interface: u32) -> bool {
        let unsaid = self.interface == 0 && matches!(self.to, ObservedRouteTo::Nexthop { .. });
        self.interface == interface || unsaid
    }

    /// Whether it leads where it should, and is no different in any other way.
    pub(crate) fn leads_to(&self, wanted: RouteTo) -> bool {
        let same = |want: IpAddr, want_onlink: bool| matches!(self.to, ObservedRouteTo::Gateway { gateway, onlink } if gateway == want && onlink == want_onlink);
        self.no_extra_attrs
            && match wanted {
                RouteTo::Nexthop { id } => self.to == ObservedRouteTo::Nexthop { id },
                RouteTo::Onlink { gateway } => same(gateway, true),
                RouteTo::Direct { gateway } => same(gateway, false),
                RouteTo::Device => false,
                RouteTo::Blackhole => self.to == ObservedRouteTo::Blackhole,
            }
    }
}

/// Where a route that was found leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ObservedRouteTo {
    /// A nexthop object.
    Nexthop {
        /// Its number.
        id: u32,
    },
    /// A gateway.
    Gateway {
        /// Its address.
        gateway: IpAddr,
        /// Whether it is taken to be on the link (`RTNH_F_ONLINK`).
        onlink: bool,
    },
    /// Nowhere.
    Blackhole,
    /// Something else that this crate never makes.
    Other,
}

impl fmt::Display for ObservedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subnet, protocol, metric, interface, to, .. } = *self;
        write!(f, "{subnet}")?;
        match to {
            ObservedRouteTo::Gateway { gateway, .. } => write!(f, " via {gateway}")?,
            ObservedRouteTo::Blackhole => f.write_str(" to nowhere")?,
            ObservedRouteTo::Nexthop { id } => write!(f, " nhid {id}")?,
            ObservedRouteTo::Other => {}
        }
        if interface != 0 {
            write!(f, " on interface {interface}")?;
        }
        write!(f, " proto {protocol} metric {metric}")
    }
}
