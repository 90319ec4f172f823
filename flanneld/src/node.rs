//! Which interface and addresses this node uses between nodes, and what MTU that leaves for pods. Pure.
//!
//! The rules and the searchable parts of messages are upstream's (`pkg/ipmatch/match.go`). Where upstream crashes or
//! ends up without an address in dual stack, the address is chosen as for a single family.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_vxlan::underlay::{DefaultRoute, Interface, InterfaceAddress, RouteLookup};
use regex::Regex;

use crate::config::{Backend, NetConf};

/// What the operator said about the interface; all empty means the interface of the default route.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names or addresses (`--iface`), tried in order.
    pub interfaces: Vec<String>,
    /// Patterns for addresses, then names (`--iface-regex`), tried next.
    pub patterns: Vec<Regex>,
    /// Tried last: the interface of the route there (`--iface-can-reach`).
    pub can_reach: Option<IpAddr>,
    /// Address told to peers (`--public-ip`). Without any of the above it also selects the interface.
    pub public_ipv4: Option<Ipv4Addr>,
    /// Address told to peers (`--public-ipv6`); selects as the IPv4 one does if that is absent.
    pub public_ipv6: Option<Ipv6Addr>,
}

impl Selection {
    /// Whether anything is said, so that the default route does not decide alone.
    #[must_use]
    pub fn is_explicit(&self) -> bool {
        let Self { interfaces, patterns, can_reach, public_ipv4, public_ipv6 } = self;
        !interfaces.is_empty()
            || !patterns.is_empty()
            || can_reach.is_some()
            || public_ipv4.is_some()
            || public_ipv6.is_some()
    }
}

/// Address families in use; at least one is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stack {
    /// IPv4 pods.
    pub ipv4: bool,
    /// IPv6 pods.
    pub ipv6: bool,
}

impl From<&NetConf> for Stack {
    fn from(net_conf: &NetConf) -> Self {
        Self { ipv4: net_conf.ipv4.is_some(), ipv6: net_conf.ipv6.is_some() }
    }
}

/// What the host has, as read from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Interfaces in the order of their index.
    pub interfaces: &'a [Interface],
    /// IPv4 default routes of the main table.
    pub default_ipv4: &'a [DefaultRoute],
    /// IPv6 default routes of the main table.
    pub default_ipv6: &'a [DefaultRoute],
}

/// The interface between nodes and this node's addresses on it. Replaced, not changed, when a link changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeFacts {
    /// Name of the interface.
    pub interface: String,
    /// Its kernel index.
    pub index: u32,
    /// Largest packet it carries, in bytes; never 0.
    pub mtu: u32,
    /// `None` if IPv4 is off.
    pub ipv4: Option<Addresses<Ipv4Addr>>,
    /// `None` if IPv6 is off.
    pub ipv6: Option<Addresses<Ipv6Addr>>,
}

/// This node's addresses in one family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses<A> {
    /// Address of the interface: what the tunnel device sends from.
    pub interface: A,
    /// Address that peers send to: the same, unless the operator gave another.
    pub public: A,
    /// Whether `public` is an address of this host; if not, a NAT is in between.
    pub public_is_local: bool,
}

/// Why no interface, or not this one, can be used. Nothing has been changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// None of the operator's selectors gave an interface.
    #[error("Failed to find interface to use that matches the interfaces and/or regexes provided: {}", join(.0))]
    NoMatch(Vec<Rejected>),
    /// The default route, or the public address, gave no interface.
    #[error("Failed to find any valid interface to use: {0}; name an interface with --iface")]
    NoDefault(Reason),
    /// host-gw routes straight to the public address, so it must be the interface's.
    #[error(
        "your PublicIP differs from interface IP, meaning that probably you're on a NAT, which is not supported by \
         host-gw backend: public {public}, interface {interface}; use Backend.Type vxlan or drop --public-ip"
    )]
    NatUnderHostGw {
        /// What peers would send to.
        public: IpAddr,
        /// What the interface has.
        interface: IpAddr,
    },
    /// `Backend.MTU` is the underlay's, and the interface does not carry that much.
    #[error(
        "Backend.MTU {configured} is more than the {carried} bytes that interface {interface} carries: lower it, or leave \
         it out to follow the interface"
    )]
    MtuAboveUnderlay {
        /// The underlay interface.
        interface: String,
        /// As written, in bytes.
        configured: u32,
        /// Its MTU, in bytes.
        carried: u32,
    },
    /// What is left of the underlay's MTU does not carry IP.
    #[error(
        "interface {interface}: MTU {underlay} leaves {left} bytes for {family} pods, {least} are needed; raise it"
    )]
    MtuTooSmall {
        /// The underlay interface.
        interface: String,
        /// Its MTU, or the lower one of net-conf.json, in bytes.
        underlay: u32,
        /// After the wrapping.
        left: u32,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// What the family needs.
        least: u32,
    },
}

/// A selector that gave no interface.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("Could not find valid interface matching {selector}: {reason}")]
pub struct Rejected {
    /// As written.
    pub selector: String,
    /// Why not.
    pub reason: Reason,
}

/// Why a selector gave no interface, in upstream's words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Reason(String);

fn join(rejected: &[Rejected]) -> String {
    rejected.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn reason<T>(text: impl Into<String>) -> Result<T, Reason> {
    Err(Reason(text.into()))
}

/// What the node uses now, or used when it last ran. Stays, as long as it is as good as what would be chosen without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Present<'a> {
    /// Name of the interface; `None` if the daemon only starts.
    pub interface: Option<&'a str>,
    /// Address of the interface.
    pub ipv4: Option<Ipv4Addr>,
    /// Address of the interface.
    pub ipv6: Option<Ipv6Addr>,
}

impl<'a> From<&'a NodeFacts> for Present<'a> {
    fn from(facts: &'a NodeFacts) -> Self {
        Self {
            interface: Some(&facts.interface),
            ipv4: facts.ipv4.map(|own| own.interface),
            ipv6: facts.ipv6.map(|own| own.interface),
        }
    }
}

/// Chooses the interface and addresses. `route_to` asks the kernel for the way to an address.
///
/// An address that is in use stays while the chosen interface has it and it is not deprecated: a virtual address that
/// comes and goes beside it (keepalived, kube-vip) is not this node's. Nor does a node that runs go from a global address to a
/// link-local one: without any other it waits for one.
///
/// # Errors
/// [`NodeError::NoMatch`], [`NodeError::NoDefault`]: each selector with the reason why it gave nothing.
pub fn choose<E: fmt::Display>(
    selection: &Selection,
    stack: Stack,
    host: Host<'_>,
    present: Present<'_>,
    mut route_to: impl FnMut(IpAddr) -> Result<RouteLookup, E>,
) -> Result<NodeFacts, NodeError> {
    let chooser = Chooser { selection, stack, host, present };
    if selection.interfaces.is_empty() && selection.patterns.is_empty() && selection.can_reach.is_none() {
        let public =
            selection.public_ipv4.map(IpAddr::from).or_else(|| selection.public_ipv6.map(IpAddr::from));
        let chosen = match public {
            Some(address) => chooser.by_name_or_address(&address.to_string()),
            None => chooser.by_default_route(),
        };
        return chosen.and_then(|chosen| chooser.facts(&chosen)).map_err(NodeError::NoDefault);
    }

    let mut rejected = Vec::new();
    let mut attempt = |selector: String, chosen: Result<Chosen<'_>, Reason>| {
        chosen
            .and_then(|chosen| chooser.facts(&chosen))
            .map_err(|reason| rejected.push(Rejected { selector, reason }))
            .ok()
    };
    for name in &selection.interfaces {
        if let Some(facts) = attempt(name.clone(), chooser.by_name_or_address(name)) {
            return Ok(facts);
        }
    }
    for pattern in &selection.patterns {
        if let Some(facts) = attempt(pattern.to_string(), chooser.by_pattern(pattern)) {
            return Ok(facts);
        }
    }
    if let Some(target) = selection.can_reach {
        let route =
            route_to(target).map_err(|error| Reason(format!("couldn't lookup route to {target}: {error}")));
        if let Some(facts) = attempt(target.to_string(), route.and_then(|route| chooser.by_route(route))) {
            return Ok(facts);
        }
    }
    Err(NodeError::NoMatch(rejected))
}

/// An interface, with those of its addresses that the selector settled.
struct Chosen<'a> {
    interface: &'a Interface,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
}

impl<'a> Chosen<'a> {
    fn whole(interface: &'a Interface) -> Self {
        Self { interface, ipv4: None, ipv6: None }
    }

    fn with(interface: &'a Interface, address: Option<IpAddr>) -> Self {
        match address {
            Some(IpAddr::V4(address)) => Self { ipv4: Some(address), ..Self::whole(interface) },
            Some(IpAddr::V6(address)) => Self { ipv6: Some(address), ..Self::whole(interface) },
            None => Self::whole(interface),
        }
    }
}

/// What messages call a family, and where it is turned on and off.
struct Words {
    /// As upstream has it before `interface` and `route`.
    short: &'static str,
    family: &'static str,
    network: &'static str,
    off: &'static str,
}

const IPV4: Words = Words {
    short: "",
    family: "IPv4",
    network: "Network",
    off: "set EnableIPv4 to false and EnableIPv6 to true",
};
const IPV6: Words =
    Words { short: "v6 ", family: "IPv6", network: "IPv6Network", off: "set EnableIPv6 to false" };

struct Chooser<'a> {
    selection: &'a Selection,
    stack: Stack,
    host: Host<'a>,
    present: Present<'a>,
}

impl<'a> Chooser<'a> {
    fn by_name_or_address(&self, name: &str) -> Result<Chosen<'a>, Reason> {
        let Ok(address) = name.parse::<IpAddr>() else {
            let named = self.host.interfaces.iter().find(|interface| interface.name == name);
            let missing = || Reason(format!("error looking up interface {name}: no such network interface"));
            return named.map(Chosen::whole).ok_or_else(missing);
        };
        let Some(interface) = self.owner(address) else {
            return reason(format!("error looking up interface {name}: No interface with given IP found"));
        };
        let mut chosen = Chosen::with(interface, Some(address));
        // In dual stack the other family's public address, if this host has it, must be on the same interface.
        if let (true, true, Some(public)) = (self.stack.ipv4, self.stack.ipv6, self.selection.public_ipv6) {
            match self.owner(public.into()) {
                Some(other) if other.index != interface.index => {
                    let (other, name) = (&other.name, &interface.name);
                    return reason(format!("v6 interface {other} must be the same with v4 interface {name}"));
                }
                Some(_) => chosen.ipv6 = chosen.ipv6.or(Some(public)),
                None => {}
            }
        }
        Ok(chosen)
    }

    /// Addresses of all interfaces first, then names; the pattern may match anywhere in them.
    fn by_pattern(&self, pattern: &Regex) -> Result<Chosen<'a>, Reason> {
        for interface in self.present_first() {
            let ipv4 =
                self.ipv4_of(interface).into_iter().find(|address| pattern.is_match(&address.to_string()));
            let ipv6 =
                self.ipv6_of(interface).into_iter().find(|address| pattern.is_match(&address.to_string()));
            if (ipv4.is_some() || !self.stack.ipv4) && (ipv6.is_some() || !self.stack.ipv6) {
                return Ok(Chosen { interface, ipv4, ipv6 });
            }
        }
        let named = self.present_first().find(|interface| pattern.is_match(&interface.name));
        named.map(Chosen::whole).ok_or_else(|| {
            let available = |interface: &Interface| {
                let addresses = if self.stack.ipv4 {
                    self.ipv4_of(interface).iter().map(ToString::to_string).collect::<Vec<_>>()
                } else {
                    self.ipv6_of(interface).iter().map(ToString::to_string).collect()
                };
                format!("{}:[{}]", interface.name, addresses.join(" "))
            };
            let all = self.host.interfaces.iter().map(available).collect::<Vec<_>>().join(", ");
            Reason(format!(
                "Could not match pattern {pattern} to any of the available network interfaces ({all})"
            ))
        })
    }

    fn by_route(&self, route: RouteLookup) -> Result<Chosen<'a>, Reason> {
        match self.indexed(route.interface) {
            // The route may name another source since; what is in use and still there is as good.
            Some(interface) if self.is_present(interface) => Ok(Chosen::whole(interface)),
            Some(interface) => Ok(Chosen::with(interface, route.source)),
            None => reason("failed to get ifcanreach based interface: couldn't lookup interface"),
        }
    }

    fn by_default_route(&self) -> Result<Chosen<'a>, Reason> {
        let ipv4 =
            self.stack.ipv4.then(|| self.default_interface(self.host.default_ipv4, &IPV4)).transpose()?;
        let ipv6 =
            self.stack.ipv6.then(|| self.default_interface(self.host.default_ipv6, &IPV6)).transpose()?;
        match (ipv4, ipv6) {
            (Some(ipv4), Some(ipv6)) if ipv4.index != ipv6.index => reason(format!(
                "v6 default route interface {} must be the same with v4 default route interface {}",
                ipv6.name, ipv4.name
            )),
            (Some(interface), _) | (None, Some(interface)) => Ok(Chosen::whole(interface)),
            (None, None) => reason("none matched ip stack"),
        }
    }

    fn default_interface(&self, routes: &[DefaultRoute], words: &Words) -> Result<&'a Interface, Reason> {
        let Words { short, family, network, off } = words;
        let Some(route) = routes.iter().min_by_key(|route| route.metric) else {
            return reason(format!(
                "failed to get default {short}interface: Unable to find default {short}route; {network} in net-conf.json \
                 needs {family}: if this host has none, {off}"
            ));
        };
        self.indexed(route.interface).ok_or_else(|| {
            Reason(format!(
                "failed to get default {short}interface: Found default {short}route but could not determine interface"
            ))
        })
    }

    fn indexed(&self, index: u32) -> Option<&'a Interface> {
        self.host.interfaces.iter().find(|interface| interface.index == index)
    }

    fn owner(&self, address: IpAddr) -> Option<&'a Interface> {
        self.host
            .interfaces
            .iter()
            .find(|interface| interface.addresses.iter().any(|own| own.address == address))
    }

    /// All interfaces in their order, but the one in use before all others.
    fn present_first(&self) -> impl Iterator<Item = &'a Interface> {
        let is_present = |interface: &&Interface| Some(interface.name.as_str()) == self.present.interface;
        let others = self.host.interfaces.iter().filter(move |interface| !is_present(interface));
        self.host.interfaces.iter().find(is_present).into_iter().chain(others)
    }

    /// Whether this interface is in use, and has the addresses still that are.
    fn is_present(&self, interface: &Interface) -> bool {
        Some(interface.name.as_str()) == self.present.interface
            && self.present.ipv4.is_none_or(|own| self.ipv4_of(interface).first() == Some(&own))
            && self.present.ipv6.is_none_or(|own| self.ipv6_of(interface).first() == Some(&own))
    }

    /// Refuses to go from a global address to a link-local one while the node runs.
    fn is_no_worse(
        &self,
        words: &Words,
        name: &str,
        before: Option<bool>,
        link_local: bool,
    ) -> Result<(), Reason> {
        if self.present.interface.is_some() && before == Some(false) && link_local {
            return reason(format!("interface {name} has only a link-local {} address left", words.family));
        }
        Ok(())
    }

    /// Usable IPv4 addresses of an interface, best first.
    fn ipv4_of(&self, interface: &Interface) -> Vec<Ipv4Addr> {
        let is_link_local = |address| matches!(address, IpAddr::V4(v4) if v4.is_link_local());
        let usable = usable(interface, self.present.ipv4.map(IpAddr::from), is_link_local).into_iter();
        usable.filter_map(|address| if let IpAddr::V4(v4) = address { Some(v4) } else { None }).collect()
    }

    /// Usable IPv6 addresses of an interface, best first.
    fn ipv6_of(&self, interface: &Interface) -> Vec<Ipv6Addr> {
        let is_link_local = |address| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let usable = usable(interface, self.present.ipv6.map(IpAddr::from), is_link_local).into_iter();
        usable.filter_map(|address| if let IpAddr::V6(v6) = address { Some(v6) } else { None }).collect()
    }

    fn facts(&self, chosen: &Chosen<'_>) -> Result<NodeFacts, Reason> {
        let Interface { name, index, mtu, .. } = chosen.interface;
        let missing = |Words { family, network, off, .. }: &Words| {
            Reason(format!(
                "failed to find {family} address for interface {name}, which {network} in net-conf.json needs: give it one, \
                 name another interface with --iface, or {off}"
            ))
        };
        let ipv4 = if self.stack.ipv4 {
            let first = || self.ipv4_of(chosen.interface).first().copied();
            let interface = chosen.ipv4.or_else(first).ok_or_else(|| missing(&IPV4))?;
            self.is_no_worse(
                &IPV4,
                name,
                self.present.ipv4.map(|own| own.is_link_local()),
                interface.is_link_local(),
            )?;
            let public = self.selection.public_ipv4.unwrap_or(interface);
            Some(Addresses { interface, public, public_is_local: self.owner(public.into()).is_some() })
        } else {
            None
        };
        let ipv6 = if self.stack.ipv6 {
            let first = || self.ipv6_of(chosen.interface).first().copied();
            let interface = chosen.ipv6.or_else(first).ok_or_else(|| missing(&IPV6))?;
            let before = self.present.ipv6.map(|own| own.is_unicast_link_local());
            self.is_no_worse(&IPV6, name, before, interface.is_unicast_link_local())?;
            let public = self.selection.public_ipv6.unwrap_or(interface);
            Some(Addresses { interface, public, public_is_local: self.owner(public.into()).is_some() })
        } else {
            None
        };
        if *mtu == 0 {
            return reason(format!("failed to determine MTU for {name} interface"));
        }
        Ok(NodeFacts { interface: name.clone(), index: *index, mtu: *mtu, ipv4, ipv6 })
    }
}

/// Unicast addresses beyond this host that are not deprecated: the present one first, if it is there; global before
/// link-local, permanent before leased, stable before privacy addresses, else in the kernel's order.
fn usable(
    interface: &Interface,
    present: Option<IpAddr>,
    is_link_local: impl Fn(IpAddr) -> bool,
) -> Vec<IpAddr> {
    let is_unicast = |address: IpAddr| match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast()),
    };
    let mut usable: Vec<&InterfaceAddress> =
        interface.addresses.iter().filter(|own| !own.deprecated && is_unicast(own.address)).collect();
    let rank = |own: &&InterfaceAddress| {
        let other = Some(own.address) != present;
        let link_local = is_link_local(own.address);
        (link_local, other, Reverse(own.permanent), own.temporary)
    };
    usable.sort_by_key(rank);
    usable.into_iter().map(|own| own.address).collect()
}

/// MTUs in bytes for one backend on one node.
///
/// | backend | `ipv4_device` | `ipv6_device` | `pods` |
/// |---|---|---|---|
/// | vxlan | underlay − 50 | underlay − 70 | the smaller of those in use |
/// | host-gw, alloc | – | – | interface |
///
/// For vxlan the underlay is `Backend.MTU`, as with upstream, or the interface's if that is not set, or has become lower.
/// Upstream writes underlay − 50 for pods in every case; with IPv6 that loses or fragments packets between 1430 and
/// 1450 bytes, so dual-stack and IPv6 nodes get 20 bytes less here. Both values work in one cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mtus {
    /// Of `flannel.<VNI>`; `None` without one.
    pub ipv4_device: Option<u32>,
    /// Of `flannel-v6.<VNI>`; `None` without one.
    pub ipv6_device: Option<u32>,
    /// What pods may send: `FLANNEL_MTU`.
    pub pods: u32,
}

impl NodeFacts {
    /// Checks that `backend` works on this node, and tells the MTUs.
    ///
    /// # Errors
    /// [`NodeError::NatUnderHostGw`], [`NodeError::MtuTooSmall`].
    pub fn mtus(&self, backend: &Backend) -> Result<Mtus, NodeError> {
        match backend {
            Backend::Vxlan(vxlan) => {
                let underlay = vxlan.mtu.map_or(self.mtu, |mtu| self.mtu.min(mtu.into()));
                // Outer IP 20 or 40 + UDP 8 + VXLAN 8 + inner Ethernet 14.
                let inside =
                    |in_use: bool, overhead: u32, family, least| match underlay.saturating_sub(overhead) {
                        _ if !in_use => Ok(None),
                        left if left >= least => Ok(Some(left)),
                        left => {
                            let interface = self.interface.clone();
                            Err(NodeError::MtuTooSmall { interface, underlay, left, family, least })
                        }
                    };
                let ipv4_device = inside(self.ipv4.is_some(), 50, "IPv4", 68)?;
                let ipv6_device = inside(self.ipv6.is_some(), 70, "IPv6", 1280)?;
                let pods = ipv4_device.into_iter().chain(ipv6_device).min().unwrap_or(underlay);
                Ok(Mtus { ipv4_device, ipv6_device, pods })
            }
            Backend::HostGw => {
                let ipv4 = self.ipv4.map(|own| (own.public.into(), own.interface.into()));
                let ipv6 = self.ipv6.map(|own| (own.public.into(), own.interface.into()));
                match ipv4.into_iter().chain(ipv6).find(|(public, interface)| public != interface) {
                    Some((public, interface)) => Err(NodeError::NatUnderHostGw { public, interface }),
                    None => Ok(Mtus { ipv4_device: None, ipv6_device: None, pods: self.mtu }),
                }
            }
            Backend::Alloc => Ok(Mtus { ipv4_device: None, ipv6_device: None, pods: self.mtu }),
        }
    }

    /// Checks that the interface carries `Backend.MTU`. A node that is to run with it for the first time must not start
    /// otherwise; one that has run with it before its link shrank goes on with what the link carries ([`Self::mtus`]).
    ///
    /// # Errors
    /// [`NodeError::MtuAboveUnderlay`].
    pub fn carries(&self, backend: &Backend) -> Result<(), NodeError> {
        match backend.mtu() {
            Some(configured) if configured > self.mtu => Err(NodeError::MtuAboveUnderlay {
                interface: self.interface.clone(),
                configured,
                carried: self.mtu,
            }),
            _ => Ok(()),
        }
    }

    /// Warns if the interface carries less than `Backend.MTU`.
    pub fn warn_of_mtu(&self, backend: &Backend) {
        if let Err(problem) = self.carries(backend) {
            tracing::warn!("{problem}; going on with {}", self.mtu);
        }
    }

    /// Logs the choice in upstream's words.
    pub fn log(&self) {
        let name = &self.interface;
        if let Some(own) = self.ipv4 {
            tracing::info!("Using interface with name {name} and address {}", own.interface);
        }
        if let Some(own) = self.ipv6 {
            tracing::info!("Using interface with name {name} and v6 address {}", own.interface);
        }
        match self.ipv4 {
            Some(own) if own.public == own.interface => {
                tracing::info!("Defaulting external address to interface address ({})", own.interface);
            }
            Some(own) => tracing::info!("Using {} as external address", own.public),
            None => {}
        }
        match self.ipv6 {
            Some(own) if own.public == own.interface => {
                tracing::info!("Defaulting external v6 address to interface address ({})", own.interface);
            }
            Some(own) => tracing::info!("Using {} as external address", own.public),
            None => {}
        }
    }
}
