//! The real kernel, over rtnetlink.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::ops::BitOr;
use std::time::SystemTime;

use flannel_netlink::{
    AskError, Batch, DumpError, Errno, Flags, Malformed, Message, OpenError, Protocol, Refusal, Socket,
};
use ipnet::IpNet;

use crate::error::{ApplyError, ObserveError, ReadError};
use crate::kernel::{Applied, Kernel, apply};
use crate::model::device::{ObservedDevice, ObservedKind};
use crate::model::family::Family;
use crate::model::family_spec::Links;
use crate::model::if_name::IfName;
use crate::model::interface::{DefaultRoute, Interface, RouteLookup};
use crate::model::objects::{Observed, ObservedNexthop, ROUTE_PROTOCOL, is_host_gateway};
use crate::model::wireguard::ObservedWireguard;
use crate::plan::Plan;
use crate::wire::uapi::*;
use crate::wire::{address_family, decode, encode, ethtool, fou, generic_netlink, wireguard};

/// The kernel, in the network namespace in which this was opened.
///
/// Open it once and keep it: the sockets stay in their namespace, and closing a socket can take milliseconds. The sysctl
/// `accept_ra` is written through /proc in the namespace of the calling thread, so that thread has to be in the same
/// namespace. Needs `CAP_NET_ADMIN`.
pub struct Netlink {
    pub(crate) route: Socket,
    /// For ethtool; `None` if the kernel has no generic netlink.
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

    /// The netlink port that the kernel reports as the origin of changes made by this value.
    pub(crate) fn port(&self) -> u32 {
        self.route.port()
    }

    /// Lists the links, each as an interface without addresses and as a device.
    fn links(&mut self) -> Result<Vec<(Interface, ObservedDevice)>, ObserveError> {
        self.dump(
            "links",
            RTM_GETLINK,
            &encode::ifinfomsg(0, 0, 0),
            |a| a.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS),
            |list: &mut Vec<_>, message| {
                list.push(decode::link(&message)?);
                Ok(())
            },
        )
    }

    /// Adds the addresses to interfaces and devices.
    fn add_addresses(&mut self, links: &mut [(Interface, ObservedDevice)]) -> Result<(), ObserveError> {
        let addresses: Vec<_> = self.dump(
            "addresses of links",
            RTM_GETADDR,
            &encode::IFADDRMSG_ANY,
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

    /// Adds the neighbor entries and FDB entries of a device.
    fn observe_device(
        &mut self,
        family: Family,
        index: u32,
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let by_index = |a: &mut flannel_netlink::Attributes<'_>| a.u32(NDA_IFINDEX, index);
        let header = encode::ndmsg(address_family(family), 0, 0, 0);
        let mut found: Vec<_> =
            self.dump("neighbor entries", RTM_GETNEIGH, &header, by_index, |list: &mut Vec<_>, message| {
                list.extend(
                    decode::neighbor(&message)?.filter(|(on, _)| *on == index).map(|(_, entry)| entry),
                );
                Ok(())
            })?;
        observed.neighbors.append(&mut found);
        let header = encode::ndmsg(AF_BRIDGE, 0, 0, 0);
        let mut found: Vec<_> =
            self.dump("FDB entries", RTM_GETNEIGH, &header, by_index, |list: &mut Vec<_>, message| {
                list.extend(
                    decode::fdb_entry(&message)?.filter(|(on, _)| *on == index).map(|(_, entry)| entry),
                );
                Ok(())
            })?;
        observed.fdb.append(&mut found);
        Ok(())
    }

    /// All nexthop objects; `None` if the kernel does not have nexthop objects.
    fn nexthops(&mut self) -> Result<Option<Vec<ObservedNexthop>>, ObserveError> {
        let list = self.dump(
            "nexthop objects",
            RTM_GETNEXTHOP,
            &encode::NHMSG_ANY,
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

    /// The nexthop object with this ID; `None` if there is none.
    pub(crate) fn nexthop(&mut self, id: u32) -> Result<Option<ObservedNexthop>, ObserveError> {
        self.batch.clear();
        self.batch.message(RTM_GETNEXTHOP, Flags::NONE, &encode::NHMSG_ANY, |a| a.u32(NHA_ID, id));
        match self.route.ask(&mut self.batch, |message| decode::nexthop(&message)) {
            Ok(nexthop) => Ok(Some(nexthop)),
            Err(AskError::Refused(Refusal { errno: Errno::ENOENT, .. })) => Ok(None),
            Err(error) => {
                Err(ObserveError { what: format!("nexthop object {id}").into(), source: error.into() })
            }
        }
    }

    /// Reads the routes of the main table into `C`, one by one.
    pub(crate) fn routes<C: Default>(
        &mut self,
        family: Family,
        mut fold: impl FnMut(&mut C, decode::RouteMessage),
    ) -> Result<C, ObserveError> {
        let header = encode::rtmsg_of_table(family, RT_TABLE_MAIN);
        let list = self.dump(
            "routes",
            RTM_GETROUTE,
            &header,
            |_| {},
            |list: &mut C, message| {
                // Kernels before 4.20 do not filter.
                if let Some(found) = decode::route(&message)?.filter(decode::RouteMessage::is_in_main_table) {
                    fold(list, found);
                }
                Ok(())
            },
        );
        match list {
            // The table does not exist until an interface was up for the first time.
            Err(ObserveError {
                source: ReadError::Dump(DumpError::Ask(AskError::Refused(refusal))), ..
            }) if refusal.errno == Errno::ENOENT => Ok(C::default()),
            list => list,
        }
    }

    /// Index of the interface with this name; `None` if there is none.
    pub(crate) fn index_of(&mut self, name: IfName) -> Result<Option<u32>, ObserveError> {
        self.batch.clear();
        self.batch.message(RTM_GETLINK, Flags::NONE, &encode::ifinfomsg(0, 0, 0), |a| {
            a.text(IFLA_IFNAME, name.as_str());
            a.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        });
        match self.route.ask(&mut self.batch, |message| decode::link(&message)) {
            Ok((interface, _)) => Ok(Some(interface.index)),
            Err(AskError::Refused(Refusal { errno: Errno::ENODEV, .. })) => Ok(None),
            Err(error) => Err(ObserveError { what: format!("link {name}").into(), source: error.into() }),
        }
    }

    /// Names of VXLAN devices with this VNI and port.
    pub(crate) fn vxlan_with(&mut self, vni: u32, port: u16) -> Result<Vec<IfName>, ObserveError> {
        let same = |device: &ObservedDevice| {
            device.vxlan().is_some_and(|vxlan| (vxlan.vni, vxlan.port) == (vni, port))
        };
        let links = self.links()?;
        Ok(links.into_iter().map(|(_, device)| device).filter(same).map(|device| device.name).collect())
    }

    fn tx_checksum(&mut self, device: u32) -> Option<bool> {
        let family = self.generic_family(ethtool::FAMILY)?;
        let socket = self.generic.as_mut()?;
        let mut question = Batch::new();
        ethtool::get_features(&mut question, family, device);
        socket.ask(&mut question, |message| ethtool::tx_checksum(&message)).ok()
    }

    /// Number of the generic netlink family with this name; `None` if the kernel has none.
    pub(crate) fn generic_family(&mut self, name: &str) -> Option<u16> {
        let socket = self.generic.as_mut()?;
        let mut question = Batch::new();
        generic_netlink::get_family(&mut question, name);
        socket.ask(&mut question, |message| generic_netlink::family(&message)).ok()
    }

    /// The UDP ports at which the kernel receives IP-in-IP packets over FOU; `None` if it cannot receive any.
    pub(crate) fn fou_ports(&mut self) -> Option<Result<Vec<u16>, ObserveError>> {
        let family = self.generic_family(fou::FAMILY)?;
        let socket = self.generic.as_mut()?;
        let mut question = Batch::new();
        fou::get_ports(&mut question, family);
        let ports = socket.dump(&mut question, |ports: &mut Vec<u16>, message| {
            ports.extend(fou::ipip_port(&message)?);
            Ok(())
        });
        Some(ports.map_err(|error| ObserveError { what: "FOU ports".into(), source: error.into() }))
    }

    /// The WireGuard device with this index; `None` if there is none.
    fn wireguard_device(&mut self, index: u32) -> Result<Option<ObservedWireguard>, ObserveError> {
        let fail = |source| ObserveError {
            what: format!("the peers of the WireGuard device with index {index}").into(),
            source,
        };
        let family = self.generic_family(wireguard::FAMILY);
        let (Some(family), Some(socket)) = (family, self.generic.as_mut()) else { return Ok(None) };
        let mut question = Batch::new();
        wireguard::get_device(&mut question, family, index);
        let now = SystemTime::now();
        let found = socket.dump(&mut question, |found: &mut ObservedWireguard, message| {
            wireguard::device(found, &message, now)
        });
        match found {
            Ok(found) => Ok(Some(found)),
            // The device is gone, or is of another kind.
            Err(DumpError::Ask(AskError::Refused(Refusal {
                errno: Errno::ENODEV | Errno::EOPNOTSUPP,
                ..
            }))) => Ok(None),
            Err(error) => Err(fail(error.into())),
        }
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
        self.route
            .dump(&mut self.batch, fold)
            .map_err(|error| ObserveError { what: what.into(), source: error.into() })
    }
}

impl Observed {
    fn note_route(&mut self, found: &decode::RouteMessage, networks: &[IpNet]) {
        let route = found.route;
        if matches!(route.protocol, ROUTE_PROTOCOL | RTPROT_BOOT) {
            self.routes.push(route);
        }
        if route.is_foreign() && networks.iter().any(|network| network.contains(&route.subnet)) {
            self.others.push(route);
        }
        if route.protocol != ROUTE_PROTOCOL {
            let is_host_gateway =
                |(gateway, _): &&(IpAddr, u32)| is_host_gateway(route.subnet, *gateway, found.onlink);
            self.gateways.extend(found.gateways.iter().filter(is_host_gateway));
        }
    }
}

impl Kernel for Netlink {
    fn observe(&mut self, wanted: &[Links]) -> Result<Observed, ObserveError> {
        let mut links = self.links()?;
        self.add_addresses(&mut links)?;
        let mut observed = Observed::default();
        for (interface, mut device) in links {
            let may_be_ours = wanted.iter().any(|links| links.may_be_wireguard(&device));
            if let ObservedKind::Wireguard(options) = &mut device.kind
                && may_be_ours
            {
                *options = self.wireguard_device(device.index)?;
            }
            let is_it = |links: &&Links| links.device == Some(device.name) || links.is_renamed(&device);
            let asked = wanted.iter().filter(is_it).map(|links| links.tx_checksum).reduce(BitOr::bitor);
            if let Some(tx_checksum) = asked {
                device.accept_ra =
                    device.accept_ra.filter(|accepts| !accepts || is_accept_ra_writable(device.name));
                if tx_checksum {
                    device.tx_checksum = self.tx_checksum(device.index);
                }
                if let ObservedKind::Ipip(ipip) = &mut device.kind
                    && let Some(port) = ipip.fou
                {
                    let ports = self.fou_ports().transpose()?.unwrap_or_default();
                    ipip.fou_receives = Some(ports.contains(&port));
                }
                if let Some(local) = device.vxlan().and_then(|vxlan| vxlan.local) {
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
            let Observed { mut routes, mut others, mut gateways, .. } = self.routes(family, gather)?;
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
        self.routes(family, |routes: &mut Vec<DefaultRoute>, found| {
            let interface =
                if found.route.interface != 0 { found.route.interface } else { found.first_hop.unwrap_or(0) };
            let leads = found.kind == RTN_UNICAST && interface != 0 && found.route.subnet.prefix_len() == 0;
            if leads {
                routes.push(DefaultRoute { interface, metric: found.route.metric });
            }
        })
    }

    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, ObserveError> {
        let header = encode::rtmsg_lookup(address);
        self.batch.clear();
        self.batch.message(RTM_GETROUTE, Flags::NONE, &header, |a| {
            encode::put_address(a, RTA_DST, address);
        });
        match self.route.ask(&mut self.batch, |message| decode::route(&message)) {
            Ok(found) => Ok(found.and_then(|found| found.lookup())),
            // The kernel answers EHOSTUNREACH, EACCES and EINVAL for unreachable, prohibit and blackhole routes.
            Err(AskError::Refused(Refusal {
                errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL,
                ..
            })) => Ok(None),
            Err(error) => {
                Err(ObserveError { what: format!("the route to {address}").into(), source: error.into() })
            }
        }
    }

    fn wireguard(&mut self, device: IfName) -> Result<Option<ObservedWireguard>, ObserveError> {
        match self.index_of(device)? {
            Some(index) => self.wireguard_device(index),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

/// Path of the sysctl; the file does not exist if IPv6 is off.
pub(crate) fn accept_ra_path(device: IfName) -> String {
    format!("/proc/sys/net/ipv6/conf/{device}/accept_ra")
}

/// Whether the sysctl can be changed. In an unprivileged container /proc/sys is read-only; upstream ignores that, too.
fn is_accept_ra_writable(device: IfName) -> bool {
    fs::OpenOptions::new().write(true).open(accept_ra_path(device)).is_ok()
}
