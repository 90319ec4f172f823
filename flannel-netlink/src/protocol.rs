//! Netlink protocols.

use std::fmt;

use neli::consts::socket::NlFamily;

/// The netlink protocol of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// Generic netlink families, e.g. ethtool.
    Generic,
    /// nf_tables and other netfilter subsystems.
    Netfilter,
    /// Links, addresses, routes, neighbors, FDB entries, nexthops.
    Route,
}

impl Protocol {
    pub(crate) fn family(self) -> NlFamily {
        match self {
            Self::Generic => NlFamily::Generic,
            Self::Netfilter => NlFamily::Netfilter,
            Self::Route => NlFamily::Route,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generic => "generic",
            Self::Netfilter => "netfilter",
            Self::Route => "route",
        })
    }
}
