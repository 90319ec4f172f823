//! The kernel objects of a peer (FDB entry, neighbor entry, nexthop object, route), as desired and as observed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::model::device::{DeviceKind, ObservedDevice};
use crate::model::family::Family;
use crate::model::interface::Interface;
use crate::model::mac::MacAddr;
use crate::model::peer::{Peer, Via};
use crate::model::wireguard_key::PublicKey;
use crate::wire::uapi::RTPROT_BOOT;

/// Protocol number (`rtm_protocol`) of every route, nexthop object and neighbor entry that this crate writes. It marks
/// them as this crate's own. 70 is the letter F; `/etc/iproute2/rt_protos` assigns it to no other program.
pub const ROUTE_PROTOCOL: u8 = 70;

/// Metric of the blackhole route: the highest possible, so that every other route to the subnet takes precedence,
/// in particular the route of the pods' bridge.
pub const BLACKHOLE_METRIC: u32 = u32::MAX;

/// An FDB entry of a VXLAN device: the kernel sends frames for `mac` to `underlay`.
///
/// # Kernel
/// `bridge fdb replace MAC dev flannel.1 dst UNDERLAY self extern_learn permanent`. `extern_learn` means "written by a
/// control plane" (since Linux 4.20) and marks the entry as this crate's own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FdbEntry {
    /// Family of the VXLAN device that the entry is in.
    pub family: Family,
    /// Destination of the inner frame.
    pub mac: MacAddr,
    /// Destination of the outer packet.
    pub underlay: IpAddr,
}

/// A permanent neighbor entry of a VXLAN device.
///
/// # Kernel
/// `ip neigh replace ADDRESS lladdr MAC dev flannel.1 nud permanent protocol 70`
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Neighbor {
    /// The address of the peer's VXLAN device: the first address of its subnet.
    pub address: IpAddr,
    /// The MAC address of the peer's VXLAN device.
    pub mac: MacAddr,
}

/// A nexthop object for IPv4 routes.
///
/// The kernel looks up shared route information by a hash that omits the gateway (`fib_info_hashfn`), so N routes with
/// N gateways on one device cost O(N²): 115 µs per route at 10,000 routes. With nexthop objects each route costs 4 µs
/// at any number. IPv6 has no such hash, and plain routes cost the same at any number.
///
/// # Kernel
/// `ip nexthop add id ID via GATEWAY dev flannel.1 onlink protocol 70`. Since Linux 5.3; older kernels get plain routes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Nexthop {
    /// ID, unique in the network namespace; never 0.
    pub id: u32,
    /// The first address of the peer's subnet; with [`Via::Outer`] the peer's address on the physical network.
    pub gateway: Ipv4Addr,
}

/// A route of the main table.
///
/// # Kernel
/// `ip route replace SUBNET nhid ID proto 70`, `.. via GATEWAY dev flannel.1 onlink proto 70`,
/// `.. via GATEWAY dev eth0 proto 70`, `.. dev flannel-v6.1 proto 70`, or
/// `ip route replace blackhole SUBNET metric 4294967295 proto 70`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Route {
    /// Destination.
    pub subnet: IpNet,
    /// Target.
    pub to: RouteTo,
}

/// The target of a [`Route`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum RouteTo {
    /// A nexthop object.
    Nexthop {
        /// Its ID.
        id: u32,
    },
    /// A gateway that is on-link on the tunnel device.
    Onlink {
        /// The first address of the peer's subnet; with [`Via::Outer`] the peer's address on the physical network.
        gateway: IpAddr,
    },
    /// A node on the same physical network.
    Direct {
        /// Its address.
        gateway: IpAddr,
    },
    /// The tunnel device without a gateway: the route of a network to a WireGuard device, or a temporary route, while an
    /// IPv6 route moves to another interface.
    Device,
    /// The kernel drops the packets.
    Blackhole,
}

impl Route {
    /// Metric: the kernel's default, except for a blackhole route.
    #[must_use]
    pub fn metric(&self) -> u32 {
        match (self.to, Family::of_net(self.subnet)) {
            (RouteTo::Blackhole, _) => BLACKHOLE_METRIC,
            (_, family) => default_metric(family),
        }
    }

    /// A route that must exist while this IPv6 route replaces one through another interface.
    ///
    /// The kernel refuses an on-link gateway that another route reaches through another interface
    /// (`ip6_route_check_nh_onlink`, net/ipv6/route.c), and the old route does exactly that.
    pub(crate) fn temporary_gateway_route(&self) -> Option<Self> {
        match self.to {
            RouteTo::Onlink { gateway: gateway @ IpAddr::V6(_) } => {
                Some(Self { subnet: IpNet::from(gateway), to: RouteTo::Device })
            }
            _ => None,
        }
    }
}

/// Metric of a route that is added without one: `IP6_RT_PRIO_USER` in IPv6.
pub(crate) fn default_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 1024,
    }
}

/// The kernel objects of one peer. They are written in the order of the fields, so that no object ever refers to an
/// object that does not exist yet, not even while the MAC address of a peer changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Entries {
    pub(crate) fdb_entry: Option<FdbEntry>,
    pub(crate) neighbor: Option<Neighbor>,
    pub(crate) nexthop: Option<Nexthop>,
    /// `None` for a peer of a WireGuard device, to which the route of the network leads.
    pub(crate) route: Option<Route>,
    pub(crate) wireguard: Option<WireguardEntry>,
}

/// What the kernel has of a subnet in a WireGuard device: the peer with this key has it among its subnets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WireguardEntry {
    pub(crate) key: PublicKey,
    pub(crate) endpoint: SocketAddr,
}

impl Entries {
    /// The objects of `peer`. `nexthop` is the ID of its nexthop object, 0 for none.
    pub(crate) fn of(peer: Peer, nexthop: u32) -> Self {
        let Peer { subnet, via } = peer;
        let object = peer.nexthop_gateway().filter(|_| nexthop != 0);
        let object = object.map(|gateway| Nexthop { id: nexthop, gateway });
        let via_device = |gateway| match object {
            Some(object) => Route { subnet, to: RouteTo::Nexthop { id: object.id } },
            None => Route { subnet, to: RouteTo::Onlink { gateway } },
        };
        let nothing = Self { fdb_entry: None, neighbor: None, nexthop: None, route: None, wireguard: None };
        match via {
            Via::Direct { gateway } => {
                Self { route: Some(Route { subnet, to: RouteTo::Direct { gateway } }), ..nothing }
            }
            Via::Outer { underlay } => Self { nexthop: object, route: Some(via_device(underlay)), ..nothing },
            Via::Key { key, endpoint } => {
                Self { wireguard: Some(WireguardEntry { key, endpoint }), ..nothing }
            }
            Via::Tunnel { mac, underlay } => {
                let gateway = subnet.network();
                Self {
                    fdb_entry: Some(FdbEntry { family: Family::of(gateway), mac, underlay }),
                    neighbor: Some(Neighbor { address: gateway, mac }),
                    nexthop: object,
                    route: Some(via_device(gateway)),
                    ..nothing
                }
            }
        }
    }
}

/// The observed state of the kernel: this crate's objects, and objects of other programs that matter to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    /// Whether the kernel has nexthop objects (since Linux 5.3).
    pub has_nexthops: bool,
    /// The requested devices that exist, and other interfaces with their names.
    pub devices: Vec<ObservedDevice>,
    /// All interfaces of the network namespace.
    pub interfaces: Vec<Interface>,
    /// Permanent neighbor entries of these devices.
    pub neighbors: Vec<ObservedNeighbor>,
    /// FDB entries of these devices that have a destination address.
    pub fdb: Vec<ObservedFdbEntry>,
    /// All nexthop objects. Of groups and other kinds only the ID is known.
    pub nexthops: Vec<ObservedNexthop>,
    /// Routes of the main table with protocol [`ROUTE_PROTOCOL`] or `boot`, which upstream flannel uses.
    pub routes: Vec<ObservedRoute>,
    /// Routes of other programs in the main table, inside the requested [`networks`](crate::Links::networks).
    pub others: Vec<ObservedRoute>,
    /// Gateways of all routes of the main table except this crate's, with the index of their interface. Without on-link
    /// gateways that are the first address of the route's destination, as overlays have them.
    pub gateways: Vec<(IpAddr, u32)>,
}

/// An observed neighbor entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObservedNeighbor {
    /// The entry.
    pub neighbor: Neighbor,
    /// `NDA_PROTOCOL`; 0 if none, as for entries of upstream flannel.
    pub protocol: u8,
}

/// An observed FDB entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObservedFdbEntry {
    /// The entry.
    pub entry: FdbEntry,
    /// `NTF_EXT_LEARNED`: written by a control plane, as this crate's entries are.
    pub ext_learned: bool,
    /// `NUD_PERMANENT`: the entry does not expire.
    pub permanent: bool,
    /// Whether the entry has no port, VNI or interface of its own. This crate's entries have none.
    pub no_extra_attrs: bool,
    /// Whether the state is exactly `NUD_PERMANENT` and the flags are exactly `NTF_SELF`, as upstream flannel writes them.
    /// `bridge fdb add` also sets `NUD_NOARP`, and entries that the kernel learns are not permanent.
    pub upstream_form: bool,
}

/// An observed nexthop object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObservedNexthop {
    /// ID.
    pub id: u32,
    /// `nh_protocol`.
    pub protocol: u8,
    /// Index of the outgoing interface; 0 for a group or blackhole.
    pub interface: u32,
    /// IPv4 gateway; `None` without one, or if packets are encapsulated.
    pub gateway: Option<Ipv4Addr>,
}

/// An observed route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObservedRoute {
    /// Destination.
    pub subnet: IpNet,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// `RTA_PRIORITY`.
    pub metric: u32,
    /// Index of the outgoing interface; 0 if none.
    pub interface: u32,
    /// Target.
    pub to: ObservedRouteTo,
    /// Whether the route has no source address, metrics (such as an MTU), realm or encapsulation. This crate's routes have
    /// none.
    pub no_extra_attrs: bool,
}

impl ObservedRoute {
    /// Whether the route leaves through this interface. With `net.ipv4.nexthop_compat_mode=0` the kernel does not report
    /// the interface of a route with a nexthop object; then every interface matches.
    pub(crate) fn leaves_by(&self, interface: u32) -> bool {
        let unknown = self.interface == 0 && matches!(self.to, ObservedRouteTo::Nexthop { .. });
        self.interface == interface || unknown
    }

    /// Whether the route has this target and no extra attributes.
    pub(crate) fn leads_to(&self, wanted: RouteTo) -> bool {
        let is_via = |want: IpAddr, want_onlink: bool| {
            self.to == ObservedRouteTo::Gateway { gateway: want, onlink: want_onlink }
        };
        self.no_extra_attrs
            && match wanted {
                RouteTo::Nexthop { id } => self.to == ObservedRouteTo::Nexthop { id },
                RouteTo::Onlink { gateway } => is_via(gateway, true),
                RouteTo::Direct { gateway } => is_via(gateway, false),
                RouteTo::Device => self.to == ObservedRouteTo::Device,
                RouteTo::Blackhole => self.to == ObservedRouteTo::Blackhole,
            }
    }

    /// Whether upstream flannel may have written the route to its device of this kind: it is on-link, in VXLAN via the
    /// first address of its destination, in WireGuard without a gateway.
    pub(crate) fn is_upstreams(&self, device: &DeviceKind) -> bool {
        let onlink = match (self.to, device) {
            (ObservedRouteTo::Gateway { gateway, onlink: true }, DeviceKind::Vxlan(_)) => {
                gateway == self.subnet.addr()
            }
            (ObservedRouteTo::Gateway { onlink, .. }, DeviceKind::Ipip(_)) => onlink,
            (to, DeviceKind::Wireguard(_)) => to == ObservedRouteTo::Device,
            _ => false,
        };
        onlink && self.protocol == RTPROT_BOOT
    }

    /// Whether the route belongs to another program: neither this crate nor upstream flannel could have written it for
    /// a peer.
    pub(crate) fn is_foreign(&self) -> bool {
        let upstreams =
            self.protocol == RTPROT_BOOT && self.metric == default_metric(Family::of_net(self.subnet));
        self.protocol != ROUTE_PROTOCOL && !upstreams
    }

    /// The gateway that another program's route needs; `None` for on-link routes of overlays.
    pub(crate) fn foreign_gateway(&self) -> Option<IpAddr> {
        match self.to {
            ObservedRouteTo::Gateway { gateway, onlink } if self.protocol != ROUTE_PROTOCOL => {
                is_host_gateway(self.subnet, gateway, onlink).then_some(gateway)
            }
            _ => None,
        }
    }
}

/// Whether a gateway is a router of the host's network. Overlays have routes that name the first address of their own
/// destination as an on-link gateway; those are not.
pub(crate) fn is_host_gateway(subnet: IpNet, gateway: IpAddr, onlink: bool) -> bool {
    !(onlink && gateway == subnet.addr())
}

/// The target of an [`ObservedRoute`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ObservedRouteTo {
    /// A nexthop object.
    Nexthop {
        /// Its ID.
        id: u32,
    },
    /// A gateway.
    Gateway {
        /// Its address.
        gateway: IpAddr,
        /// Whether the kernel takes it to be on the link (`RTNH_F_ONLINK`).
        onlink: bool,
    },
    /// An interface without a gateway.
    Device,
    /// The kernel drops the packets.
    Blackhole,
    /// A target that this crate never writes.
    Other,
}

impl fmt::Display for ObservedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subnet, protocol, metric, interface, to, .. } = *self;
        if to == ObservedRouteTo::Blackhole {
            f.write_str("blackhole ")?;
        }
        write!(f, "{subnet}")?;
        match to {
            ObservedRouteTo::Gateway { gateway, .. } => write!(f, " via {gateway}")?,
            ObservedRouteTo::Nexthop { id } => write!(f, " nhid {id}")?,
            ObservedRouteTo::Device | ObservedRouteTo::Blackhole | ObservedRouteTo::Other => {}
        }
        if interface != 0 {
            write!(f, " dev index {interface}")?;
        }
        write!(f, " proto {protocol} metric {metric}")
    }
}
