//! The operator's choice of the uplink and of the public addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regex::Regex;

/// The operator's choice of interface and addresses. If all fields are empty, the default route decides.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names or addresses (`--iface`), tried in order.
    pub interfaces: Vec<String>,
    /// Patterns for addresses, then names (`--iface-regex`), tried next.
    pub patterns: Vec<Regex>,
    /// Tried last: the interface of the route there (`--iface-can-reach`).
    pub can_reach: Option<IpAddr>,
    /// Address published to peers (`--public-ip`). Without any of the above it also selects the interface.
    pub public_ipv4: Option<Ipv4Addr>,
    /// Address published to peers (`--public-ipv6`); selects as the IPv4 one does if that is absent.
    pub public_ipv6: Option<Ipv6Addr>,
}

impl Selection {
    /// Whether default routes matter. They do not if interfaces are given by name only. Reading them means a dump of the
    /// main table with the routes of all peers.
    #[must_use]
    pub fn needs_default_routes(&self) -> bool {
        let by_name = |selector: &String| selector.parse::<IpAddr>().is_err();
        let names_only = !self.interfaces.is_empty() && self.interfaces.iter().all(by_name);
        !names_only || !self.patterns.is_empty() || self.can_reach.is_some()
    }

    /// Whether any field is set, so that the default route does not decide alone.
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
