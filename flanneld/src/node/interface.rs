//! The choice of the uplink, and of the addresses on it: the interface that each selector leads to, and its addresses, best
//! first.

use std::cmp::Reverse;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_vxlan::{
    DefaultRoute, Family, FlannelDevice, Interface, InterfaceAddress, OverlayMtu, RouteLookup,
};
use regex::Regex;

use crate::config::Selection;

use super::{Addresses, Host, NodeError, NodeFacts, Present, Reason, Rejected};
use flannel_lease::Stack;

/// Chooses the interface and addresses. `route_to` asks the kernel for the way to an address.
///
/// An address that is in use stays while the chosen interface has it and it is not deprecated: a virtual address that
/// comes and goes on the same interface (keepalived, kube-vip) is not this node's. A running node does not go from a global address to a
/// link-local one: without any other it waits for one.
///
/// An interface that is in use also stays while it has its addresses, whatever default route appears elsewhere: a VPN
/// client's must not take over the underlay. No selector but a plain name chooses an interface that belongs to the pods:
/// flannel's own devices, and bridges in the pod network.
///
/// # Errors
/// [`NodeError::NoMatch`], [`NodeError::NoDefault`]: each selector with the reason why it gave nothing.
pub fn choose<E: Display>(
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
            Some(address) => chooser
                .by_name_or_address(&address.to_string())
                .map_err(|Reason(text)| Reason(format!("{text}; name the interface with --iface"))),
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
    Err(NodeError::NoMatch { rejected, candidates: chooser.candidates() })
}

fn reason<T>(text: impl Into<String>) -> Result<T, Reason> {
    Err(Reason(text.into()))
}

/// An interface, with the addresses on it that the selector settled.
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
        let Ok(address) = name.parse().map(|address: IpAddr| address.to_canonical()) else {
            let is_called = |interface: &&Interface| {
                interface.name == name || interface.alt_names.iter().any(|alt| alt == name)
            };
            let Some(named) = self.host.interfaces.iter().find(is_called) else {
                return reason(format!("error looking up interface {name}: no such network interface"));
            };
            if is_flannels(&named.name) {
                return reason(format!("{name} is flannel's own device"));
            }
            return Ok(Chosen::whole(named));
        };
        let Some(interface) = self.owner(address) else {
            return reason(format!("error looking up interface {name}: No interface with given IP found"));
        };
        if self.is_of_pods(interface) {
            return reason(format!("{address} is on {}, which belongs to pods", interface.name));
        }
        let mut chosen = Chosen::with(self.uplink_of(interface, address)?, Some(address));
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
        for interface in self.present_first().filter(|interface| !self.is_of_pods(interface)) {
            let ipv4 =
                self.ipv4_of(interface).into_iter().find(|address| pattern.is_match(&address.to_string()));
            let ipv6 =
                self.ipv6_of(interface).into_iter().find(|address| pattern.is_match(&address.to_string()));
            if (ipv4.is_some() || !self.stack.ipv4)
                && (ipv6.is_some() || !self.stack.ipv6 || self.goes_without_ipv6(interface))
            {
                let address = ipv4.map(IpAddr::from).or_else(|| ipv6.map(IpAddr::from));
                let interface =
                    address.map_or(Ok(interface), |address| self.uplink_of(interface, address))?;
                return Ok(Chosen { interface, ipv4, ipv6 });
            }
        }
        let mut usable = self.present_first().filter(|interface| !self.is_of_pods(interface));
        let named = usable.find(|interface| {
            pattern.is_match(&interface.name) || interface.alt_names.iter().any(|alt| pattern.is_match(alt))
        });
        named.map(Chosen::whole).ok_or_else(|| {
            let all = self.candidates();
            Reason(format!(
                "Could not match pattern {pattern} to any of the available network interfaces ({all})"
            ))
        })
    }

    /// The interfaces that could be chosen, with their addresses.
    fn candidates(&self) -> String {
        let available = |interface: &Interface| {
            let addresses = if self.stack.ipv4 {
                self.ipv4_of(interface).iter().map(ToString::to_string).collect::<Vec<_>>()
            } else {
                self.ipv6_of(interface).iter().map(ToString::to_string).collect()
            };
            format!("{}:[{}]", interface.name, addresses.join(" "))
        };
        let usable = self.host.interfaces.iter().filter(|interface| !self.is_of_pods(interface));
        usable.map(available).collect::<Vec<_>>().join(", ")
    }

    fn is_of_pods(&self, interface: &Interface) -> bool {
        self.host.is_of_pods(interface, self.present.interface)
    }

    /// The interface that packets from an address of this one leave by: the one of the default route for addresses of the
    /// loopback interface, as hosts that speak BGP have them.
    fn uplink_of(&self, interface: &'a Interface, address: IpAddr) -> Result<&'a Interface, Reason> {
        if !interface.loopback || address.is_loopback() {
            return Ok(interface);
        }
        let routes = self.host.default_ipv4.iter().chain(self.host.default_ipv6);
        let route = routes.min_by_key(|route| route.metric);
        route.and_then(|route| self.indexed(route.interface)).ok_or_else(|| {
            Reason(format!(
                "its address is on {}, and there is no default route that names the interface to send by",
                interface.name
            ))
        })
    }

    fn by_route(&self, route: RouteLookup) -> Result<Chosen<'a>, Reason> {
        match self.indexed(route.interface) {
            Some(interface) if self.is_of_pods(interface) => {
                reason(format!("the route leads to {}, which belongs to pods", interface.name))
            }
            // The route may name another source since; what is in use and still there is as good.
            Some(interface) if self.is_present(interface) => Ok(Chosen::whole(interface)),
            Some(interface) => Ok(Chosen::with(interface, route.source)),
            None => reason("failed to get ifcanreach based interface: couldn't lookup interface"),
        }
    }

    fn by_default_route(&self) -> Result<Chosen<'a>, Reason> {
        // A link that is down has lost its routes without a word.
        let in_use = |interface: &&Interface| interface.up && self.is_present(interface);
        if let Some(present) = self.host.interfaces.iter().find(in_use) {
            return Ok(Chosen::whole(present));
        }
        let ipv4 =
            self.stack.ipv4.then(|| self.default_interface(self.host.default_ipv4, &IPV4)).transpose()?;
        let needs_ipv6 = self.stack.ipv6 && !ipv4.is_some_and(|interface| self.goes_without_ipv6(interface));
        let ipv6 = needs_ipv6.then(|| self.default_interface(self.host.default_ipv6, &IPV6)).transpose()?;
        match (ipv4, ipv6) {
            (Some(ipv4), Some(ipv6)) if ipv4.index != ipv6.index => reason(format!(
                "v6 default route interface {} must be the same with v4 default route interface {}; change one of these \
                 routes, or name the interface with --iface",
                ipv6.name, ipv4.name
            )),
            (Some(interface), _) | (None, Some(interface)) => Ok(Chosen::whole(interface)),
            (None, None) => reason("none matched ip stack"),
        }
    }

    fn default_interface(&self, routes: &[DefaultRoute], words: &Words) -> Result<&'a Interface, Reason> {
        let Words { short, family, network, off } = words;
        // dhcpcd and others put default routes on any interface that comes up, the pods' included.
        let leaves_by_pods = |route: &&DefaultRoute| {
            self.indexed(route.interface).is_some_and(|interface| self.is_of_pods(interface))
        };
        let usable = routes.iter().filter(|route| !leaves_by_pods(route));
        let published = |route: &DefaultRoute| {
            self.indexed(route.interface).is_some_and(|interface| self.has_published(interface))
        };
        // What was published before a restart decides between several.
        let Some(route) = usable.min_by_key(|route| (!published(route), route.metric)) else {
            return reason(format!(
                "failed to get default {short}interface: Unable to find default {short}route; {network} in net-conf.json \
                 needs {family} on each node: add a default route, or name the interface with --iface; only if the whole cluster \
                 has no {family}, {off}"
            ));
        };
        self.indexed(route.interface).ok_or_else(|| {
            Reason(format!(
                "failed to get default {short}interface: Found default {short}route but could not determine interface; name it with --iface"
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

    /// Whether this interface has the addresses that this node published when it last ran.
    fn has_published(&self, interface: &Interface) -> bool {
        let has = |address: IpAddr| interface.addresses.iter().any(|own| own.address == address);
        let (ipv4, ipv6) = (self.present.ipv4.map(IpAddr::from), self.present.ipv6.map(IpAddr::from));
        (ipv4.is_some() || ipv6.is_some()) && ipv4.into_iter().chain(ipv6).all(has)
    }

    /// Whether this interface is in use, and has the addresses still that are.
    fn is_present(&self, interface: &Interface) -> bool {
        let has_ipv6 = || self.present.ipv6.is_none_or(|own| self.ipv6_of(interface).first() == Some(&own));
        Some(interface.name.as_str()) == self.present.interface
            && self.present.ipv4.is_none_or(|own| self.ipv4_of(interface).first() == Some(&own))
            && (self.goes_without_ipv6(interface) || has_ipv6())
    }

    /// Whether the node uses this interface for IPv4 alone, because the kernel removes all IPv6 addresses from an
    /// interface with such an MTU (`addrconf_notify`, net/ipv6/addrconf.c).
    fn goes_without_ipv6(&self, interface: &Interface) -> bool {
        self.stack.ipv4 && interface.mtu < OverlayMtu::least(Family::V6)
    }

    /// Refuses to go from a global address, or none, to a link-local one while the node runs.
    fn is_no_worse(
        &self,
        words: &Words,
        name: &str,
        was_link_local: bool,
        link_local: bool,
    ) -> Result<(), Reason> {
        if self.present.interface.is_some() && !was_link_local && link_local {
            return reason(format!(
                "interface {name} has only a link-local {} address left, and other nodes still send to the former address. Add an address that is not link-local, which flanneld then uses",
                words.family
            ));
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
        let Interface { name, index, mac, mtu, .. } = chosen.interface;
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
                self.present.ipv4.is_some_and(|own| own.is_link_local()),
                interface.is_link_local(),
            )?;
            let public = self.selection.public_ipv4.unwrap_or(interface);
            Some(Addresses { interface, public, public_is_local: self.owner(public.into()).is_some() })
        } else {
            None
        };
        let ipv6 = if self.stack.ipv6 && !self.goes_without_ipv6(chosen.interface) {
            let first = || self.ipv6_of(chosen.interface).first().copied();
            let interface = chosen.ipv6.or_else(first).ok_or_else(|| missing(&IPV6))?;
            let was_link_local = self.present.ipv6.is_some_and(|own| own.is_unicast_link_local());
            self.is_no_worse(&IPV6, name, was_link_local, interface.is_unicast_link_local())?;
            let public = self.selection.public_ipv6.unwrap_or(interface);
            Some(Addresses { interface, public, public_is_local: self.owner(public.into()).is_some() })
        } else {
            None
        };
        if *mtu == 0 {
            return reason(format!("failed to determine MTU for {name} interface; set its MTU"));
        }
        Ok(NodeFacts { interface: name.clone(), index: *index, mac: *mac, mtu: *mtu, ipv4, ipv6 })
    }
}

impl Host<'_> {
    /// Whether the interface belongs to the pods: flannel made it, or it is a bridge in the pod network by which no default
    /// route leaves, as a CNI plugin or Docker makes it; not if it is the `uplink`.
    pub(super) fn is_of_pods(&self, interface: &Interface, uplink: Option<&str>) -> bool {
        let in_network = |address: IpAddr| self.networks.iter().any(|network| network.contains(&address));
        let has_default_route = || {
            let mut routes = self.default_ipv4.iter().chain(self.default_ipv6);
            routes.any(|route| route.interface == interface.index)
        };
        is_flannels(&interface.name)
            || interface.kind == "bridge"
                && Some(interface.name.as_str()) != uplink
                && interface.addresses.iter().any(|own| in_network(own.address))
                && !has_default_route()
    }
}

/// Whether flannel gives devices this name: `flannel.1`, `flannel-v6.1` and so on.
fn is_flannels(name: &str) -> bool {
    FlannelDevice::of_name(name).is_some()
}

/// Unicast addresses beyond this host: good ones before tentative ones, and these before those that are deprecated; global
/// before link-local, the present one before others, permanent before leased, stable before privacy addresses, else in the
/// kernel's order. One that another host has (`dadfailed`) is none.
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
        interface.addresses.iter().filter(|own| !own.duplicate && is_unicast(own.address)).collect();
    let rank = |own: &&InterfaceAddress| {
        let other = Some(own.address) != present;
        let link_local = is_link_local(own.address);
        (own.deprecated, own.tentative, link_local, other, Reverse(own.permanent), own.temporary)
    };
    usable.sort_by_key(rank);
    usable.into_iter().map(|own| own.address).collect()
}
