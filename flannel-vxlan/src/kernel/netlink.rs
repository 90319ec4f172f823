//! The real kernel, over rtnetlink.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::ops::BitOr;

use flannel_netlink::{
    AskError, Batch, DumpError, Errno, Flags, Malformed, Message, OpenError, Protocol, Refusal, Socket,
};

use crate::kernel::apply;
use crate::model::objects::{Observed, ObservedNexthop, ROUTE_PROTOCOL};
use crate::overlay::host::{is_of_others, needs_reach};
use ipnet::IpNet;

use crate::kernel::interfaces::{DefaultRoute, Interface, RouteLookup};
use crate::wire::{self, decode, encode, ethtool};
use crate::{
    Applied, ApplyError, Family, IfName, Kernel, Links, ObserveError, ObservedDevice, Plan, ReadError,
};

/// The kernel of the network namespace in which this was opened.
///
/// Open it once and keep it: the sockets stay in their namespace, and closing one can cost milliseconds. The sysctl
/// `accept_ra` is written through /proc, in the namespace of the calling thread, so call from one that is in
/// the same namespace.
pub struct Netlink {
    pub(crate) route: Socket,
    /// For ethtool; `None` if the kernel was built without generic netlink.
    pub(crate) generic: Option<Socket>,
    pub(crate) batch: Batch,
}

impl Netlink {
    /// Opens the sockets.
    ///
    /// # Errors
    /// [`OpenError`] if the kernel refuses a route socket.
    pub fn open() -> Result<Self, OpenError> {
        let route = Socket::open(Protocol::Route)?;
        Ok(Self { route, generic: Socket::open(Protocol::Generic).ok(), batch: Batch::new() })
    }

    /// The number by which the kernel knows changes made through this.
    pub(crate) fn port(&self) -> u32 {
        self.route.port()
    }

    /// Lists the links twice over: as interfaces without addresses, and as devices.
    fn links(&mut self) -> Result<Vec<(Interface, ObservedDevice)>, ObserveError> {
        self.dump(
            "links",
            wire::RTM_GETLINK,
            &encode::ifinfomsg(0, 0, 0),
            |a| a.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS),
            |list: &mut Vec<_>, message| {
                list.push(decode::link(&message)?);
                Ok(())
            },
        )
    }

    /// Adds the addresses to both.
    fn add_addresses(&mut self, links: &mut [(Interface, ObservedDevice)]) -> Result<(), ObserveError> {
        let header = [0; 8];
        let addresses: Vec<_> = self.dump(
            "addresses",
            wire::RTM_GETADDR,
            &header,
            |_| {},
            |list: &mut Vec<_>, m| {
                list.extend(decode::interface_address(&m)?);
                Ok(())
            },
        )?;
        links.sort_by_key(|(interface, _)| interface.index);
        for (index, address) in addresses {
            let Ok(at) = links.binary_search_by_key(&index, |(interface, _)| interface.index) else {
                continue;
            };
            if let Some((interface, device)) = links.get_mut(at) {
                device.addresses.push((address.address, address.prefix_len));
                interface.addresses.push(address);
            }
        }
        Ok(())
    }

    /// Adds what is on a device.
    fn observe_device(
        &mut self,
        family: Family,
        index: u32,
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let by_index = |a: &mut flannel_netlink::Attributes<'_>| a.u32(wire::NDA_IFINDEX, index);
        let header = encode::ndmsg(wire::address_family(family), 0, 0, 0);
        let mut found: Vec<_> =
            self.dump("neighbors", wire::RTM_GETNEIGH, &header, by_index, |list: &mut Vec<_>, message| {
                list.extend(
                    decode::neighbor(&message)?.filter(|(on, _)| *on == index).map(|(_, entry)| entry),
                );
                Ok(())
            })?;
        observed.neighbors.append(&mut found);
        let header = encode::ndmsg(wire::AF_BRIDGE, 0, 0, 0);
        let mut found: Vec<_> =
            self.dump("FDB entries", wire::RTM_GETNEIGH, &header, by_index, |list: &mut Vec<_>, message| {
                list.extend(
                    decode::fdb_entry(&message)?.filter(|(on, _)| *on == index).map(|(_, entry)| entry),
                );
                Ok(())
            })?;
        observed.fdb.append(&mut found);
        Ok(())
    }

    /// All nexthop objects; `None` if the kernel has no such thing.
    fn nexthops(&mut self) -> Result<Option<Vec<ObservedNexthop>>, ObserveError> {
        let list = self.dump(
            "nexthops",
            wire::RTM_GETNEXTHOP,
            &[0; 8],
            |_| {},
            |list: &mut Vec<_>, message: Message<'_>| {
                list.push(decode::nexthop(&message)?);
                Ok(())
            },
        );
        match list {
            Err(ObserveError {
                source: ReadError::Dump(DumpError::Ask(AskError::Refused(refusal))), ..
            }) if refusal.errno == Errno::EOPNOTSUPP => Ok(None),
            list => list.map(Some),
        }
    }

    /// The nexthop object with this number; `None` if there is none.
    pub(crate) fn nexthop(&mut self, id: u32) -> Result<Option<ObservedNexthop>, ObserveError> {
        self.batch.clear();
        self.batch.message(wire::RTM_GETNEXTHOP, Flags::NONE, &[0; 8], |a| a.u32(wire::NHA_ID, id));
        match self.route.ask(&mut self.batch, |message| decode::nexthop(&message)) {
            Ok(nexthop) => Ok(Some(nexthop)),
            Err(AskError::Refused(Refusal { errno: Errno::ENOENT, .. })) => Ok(None),
            Err(error) => Err(ObserveError { what: "a nexthop", source: error.into() }),
        }
    }

    /// Routes of the main table, of one protocol unless it is 0, as `fold` gathers them.
    pub(crate) fn routes<C: Default>(
        &mut self,
        family: Family,
        protocol: u8,
        mut fold: impl FnMut(&mut C, decode::RouteMessage),
    ) -> Result<C, ObserveError> {
        let header = [wire::address_family(family), 0, 0, 0, wire::RT_TABLE_MAIN, protocol, 0, 0, 0, 0, 0, 0];
        let list = self.dump(
            "routes",
            wire::RTM_GETROUTE,
            &header,
            |_| {},
            |list: &mut C, message| {
                // Kernels before 4.20 do not filter.
                let wanted = |found: &decode::RouteMessage| {
                    found.table == u32::from(wire::RT_TABLE_MAIN)
                        && (protocol == 0 || found.route.protocol == protocol)
                };
                if let Some(found) = decode::route(&message)?.filter(wanted) {
                    fold(list, found);
                }
                Ok(())
            },
        );
        match list {
            // The table itself does not exist as long as no interface was ever up.
            Err(ObserveError {
                source: ReadError::Dump(DumpError::Ask(AskError::Refused(refusal))), ..
            }) if refusal.errno == Errno::ENOENT => Ok(C::default()),
            list => list,
        }
    }

    /// Index of the interface with this name; `None` if there is none.
    pub(crate) fn index_of(&mut self, name: IfName) -> Result<Option<u32>, ObserveError> {
        self.batch.clear();
        self.batch.message(wire::RTM_GETLINK, Flags::NONE, &encode::ifinfomsg(0, 0, 0), |a| {
            a.text(wire::IFLA_IFNAME, name.as_str());
            a.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        });
        match self.route.ask(&mut self.batch, |message| decode::link(&message)) {
            Ok((interface, _)) => Ok(Some(interface.index)),
            Err(AskError::Refused(Refusal { errno: Errno::ENODEV, .. })) => Ok(None),
            Err(error) => Err(ObserveError { what: "a link", source: error.into() }),
        }
    }

    /// Names of VXLAN devices with this VNI and port.
    pub(crate) fn vxlan_with(&mut self, vni: u32, port: u16) -> Result<Vec<IfName>, ObserveError> {
        let same = |device: &ObservedDevice| {
            device.vxlan.is_some_and(|vxlan| (vxlan.vni, vxlan.port) == (vni, port))
        };
        let links = self.links()?;
        Ok(links.into_iter().map(|(_, device)| device).filter(same).map(|device| device.name).collect())
    }

    fn tx_checksum(&mut self, device: u32) -> Option<bool> {
        let family = self.ethtool_family()?;
        let socket = self.generic.as_mut()?;
        let mut question = Batch::new();
        ethtool::get_features(&mut question, family, device);
        socket.ask(&mut question, |message| ethtool::tx_checksum(&message)).ok()
    }

    pub(crate) fn ethtool_family(&mut self) -> Option<u16> {
        let socket = self.generic.as_mut()?;
        let mut question = Batch::new();
        ethtool::get_family(&mut question);
        socket.ask(&mut question, |message| ethtool::family(&message)).ok()
    }

    fn dump<C: Default>(
        &mut self,
        what: &'static str,
        kind: u16,
        header: &[u8],
        filter: impl FnOnce(&mut flannel_netlink::Attributes<'_>),
        fold: impl FnMut(&mut C, Message<'_>) -> Result<(), Malformed>,
    ) -> Result<C, ObserveError> {
        self.batch.clear();
        self.batch.message(kind, Flags::DUMP, header, filter);
        self.route.dump(&mut self.batch, fold).map_err(|error| ObserveError { what, source: error.into() })
    }
}

impl Observed {
    fn note_route(&mut self, found: &decode::RouteMessage, networks: &[IpNet]) {
        let route = found.route;
        if matches!(route.protocol, ROUTE_PROTOCOL | crate::plan::diff::BOOT) {
            self.routes.push(route);
        }
        if is_of_others(&route) && networks.iter().any(|networks| networks.contains(&route.subnet)) {
            self.others.push(route);
        }
        if route.protocol != ROUTE_PROTOCOL {
            let reached = |(gateway, _): &&(IpAddr, u32)| needs_reach(route.subnet, *gateway, found.onlink);
            self.gateways.extend(found.gateways.iter().filter(reached));
        }
    }
}

const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

impl Kernel for Netlink {
    fn observe(&mut self, wanted: &[Links]) -> Result<Observed, ObserveError> {
        let mut links = self.links()?;
        self.add_addresses(&mut links)?;
        let mut observed = Observed::default();
        for (interface, mut device) in links {
            let is_it = |links: &&Links| links.device == Some(device.name) || links.is_renamed(&device);
            let asked = wanted.iter().filter(is_it).map(|links| links.tx_checksum).reduce(BitOr::bitor);
            if let Some(tx_checksum) = asked {
                device.accept_ra = device.accept_ra.filter(|obeys| !obeys || may_ignore(device.name));
                if tx_checksum {
                    device.tx_checksum = self.tx_checksum(device.index);
                }
                if let Some(local) = device.vxlan.and_then(|vxlan| vxlan.local) {
                    self.observe_device(Family::of(local), device.index, &mut observed)?;
                }
                observed.devices.push(device);
            }
            observed.interfaces.push(interface);
        }
        let nexthops = self.nexthops()?;
        observed.has_nexthops = nexthops.is_some();
        observed.nexthops = nexthops.unwrap_or_default();
        for family in Family::ALL {
            let networks: Vec<IpNet> = wanted.iter().map(|links| links.networks).collect();
            let gather = |observed: &mut Observed, found: decode::RouteMessage| {
                observed.note_route(&found, &networks);
            };
            let Observed { mut routes, mut others, mut gateways, .. } = self.routes(family, 0, gather)?;
            observed.routes.append(&mut routes);
            observed.others.append(&mut others);
            observed.gateways.append(&mut gateways);
        }
        Ok(observed)
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError> {
        apply::apply(self, plan)
    }

    fn interfaces(&mut self) -> Result<Vec<Interface>, ObserveError> {
        let mut links = self.links()?;
        self.add_addresses(&mut links)?;
        Ok(links.into_iter().map(|(interface, _)| interface).collect())
    }

    fn default_routes(&mut self, family: Family) -> Result<Vec<DefaultRoute>, ObserveError> {
        self.routes(family, 0, |routes: &mut Vec<DefaultRoute>, found| {
            let interface =
                if found.route.interface != 0 { found.route.interface } else { found.first_hop.unwrap_or(0) };
            let leads =
                found.kind == wire::RTN_UNICAST && interface != 0 && found.route.subnet.prefix_len() == 0;
            if leads {
                routes.push(DefaultRoute { interface, metric: found.route.metric });
            }
        })
    }

    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, ObserveError> {
        let family = Family::of(address);
        let mut header = [0; 12];
        header[0] = wire::address_family(family);
        header[1] = family.bits();
        self.batch.clear();
        self.batch.message(wire::RTM_GETROUTE, Flags::NONE, &header, |a| {
            encode::put_address(a, wire::RTA_DST, address);
        });
        match self.route.ask(&mut self.batch, |message| decode::route(&message)) {
            Ok(found) => Ok(found.and_then(|found| found.lookup())),
            // Unreachable, prohibit and blackhole routes answer with EHOSTUNREACH, EACCES and EINVAL.
            Err(AskError::Refused(Refusal {
                errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL,
                ..
            })) => Ok(None),
            Err(error) => Err(ObserveError { what: "a route", source: error.into() }),
        }
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

/// Path of the sysctl; there is none if IPv6 is off.
pub(crate) fn accept_ra_path(device: IfName) -> String {
    format!("/proc/sys/net/ipv6/conf/{device}/accept_ra")
}

/// Whether the sysctl is ours to change. In a container without privileges /proc/sys is mounted read-only, and upstream
/// goes on without it there.
fn may_ignore(device: IfName) -> bool {
    fs::OpenOptions::new().write(true).open(accept_ra_path(device)).is_ok()
}
