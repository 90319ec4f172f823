//! Which interface and addresses this node uses between nodes, and what MTU that leaves for pods. Pure.
//!
//! The rules and the searchable parts of messages are upstream's (`pkg/ipmatch/match.go`). Where upstream crashes or
//! ends up without an address in dual stack, the address is chosen as for a single family.

mod host_networks;
mod interface;
mod mtu;
pub(crate) mod pod_bridge;

use flannel_lease::Stack;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use flannel_vxlan::{DefaultRoute, Interface, MacAddr, ValueError};

pub use self::interface::choose;
pub use self::mtu::Mtus;
use crate::config::NetConf;

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
    /// The pod networks: a bridge with an address in them belongs to the pods, unless a default route leaves by it.
    pub networks: &'a [IpNet],
}

/// The interface between nodes and this node's addresses on it. Replaced, not changed, when a link changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeFacts {
    /// Name of the interface.
    pub interface: String,
    /// Its kernel index.
    pub index: u32,
    /// Its MAC address; `None` without one, such as a tunnel.
    pub mac: Option<MacAddr>,
    /// Largest packet it carries, in bytes; never 0.
    pub mtu: u32,
    /// `None` if IPv4 is off.
    pub ipv4: Option<Addresses<Ipv4Addr>>,
    /// `None` if IPv6 is off, or if IPv4 is on and the interface's MTU is below 1280: then the kernel has no IPv6 on it.
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
    #[error(
        "Failed to find interface to use that matches the interfaces and/or regexes provided: {}; this host has {candidates}; --iface, \
         --iface-regex or --iface-can-reach must match one",
        join(.rejected)
    )]
    NoMatch {
        /// Each selector, and why it gave none.
        rejected: Vec<Rejected>,
        /// The interfaces that could be chosen, with their addresses.
        candidates: String,
    },
    /// The default route, or the public address, gave no interface. The reason says what to do.
    #[error("Failed to find any valid interface to use: {0}")]
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
        "Backend.MTU {configured} is more than the MTU {carried} of interface {interface}: lower it, or remove it to follow the interface"
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
    #[error("interface {interface}: MTU {underlay} leaves too little for pods; raise it")]
    MtuTooSmall {
        /// The underlay interface.
        interface: String,
        /// Its MTU, or the lower one of net-conf.json, in bytes.
        underlay: u32,
        /// What is left, and what is needed.
        source: ValueError,
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

/// The interface with its addresses and MTU, for the log.
impl fmt::Display for NodeFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interface)?;
        if let Some(Addresses { interface, .. }) = self.ipv4 {
            write!(f, " {interface}")?;
        }
        if let Some(Addresses { interface, .. }) = self.ipv6 {
            write!(f, " {interface}")?;
        }
        write!(f, " (MTU {})", self.mtu)
    }
}

impl NodeFacts {
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
