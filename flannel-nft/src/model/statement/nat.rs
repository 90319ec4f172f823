//! What NAT and transparent proxies change in packets.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::model::data::Data;
use crate::model::expression::Term;
use crate::uapi::*;

/// How NAT chooses addresses and ports. Default: the kernel keeps the original port if it is free.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Nat {
    pub(crate) flags: u32,
    pub(crate) ports: Option<RangeInclusive<u16>>,
}

impl Nat {
    /// NAT with the kernel's defaults, which keep the source port where possible.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Random ports, independent of the original (`fully-random`). Avoids collisions between CPUs.
    #[must_use]
    pub fn fully_random(mut self) -> Self {
        self.flags |= NF_NAT_RANGE_PROTO_RANDOM_FULLY;
        self
    }

    /// Random ports from a hash (`random`).
    #[must_use]
    pub fn random(mut self) -> Self {
        self.flags |= NF_NAT_RANGE_PROTO_RANDOM;
        self
    }

    /// The same address for all connections of a client (`persistent`).
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.flags |= NF_NAT_RANGE_PERSISTENT;
        self
    }

    /// Ports from this range. The rule must match a protocol with ports.
    #[must_use]
    pub fn ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports = Some(ports);
        self
    }

    /// The ports that [`Nat::ports`] set.
    #[must_use]
    pub fn port_range(&self) -> Option<&RangeInclusive<u16>> {
        self.ports.as_ref()
    }

    /// This port. The rule must match a protocol with ports.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.ports(port..=port)
    }
}

/// A range of addresses for NAT, both ends included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IpRange {
    pub(crate) first: Data,
    pub(crate) last: Data,
}

impl IpRange {
    pub(crate) fn is_v4(&self) -> bool {
        self.first.len() == 4
    }
}

impl From<IpAddr> for IpRange {
    fn from(address: IpAddr) -> Self {
        Self { first: Data::address(address), last: Data::address(address) }
    }
}

impl From<std::net::Ipv4Addr> for IpRange {
    fn from(address: std::net::Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

impl From<std::net::Ipv6Addr> for IpRange {
    fn from(address: std::net::Ipv6Addr) -> Self {
        IpAddr::V6(address).into()
    }
}

impl From<RangeInclusive<std::net::Ipv4Addr>> for IpRange {
    fn from(range: RangeInclusive<std::net::Ipv4Addr>) -> Self {
        Self { first: Data::new(&range.start().octets()), last: Data::new(&range.end().octets()) }
    }
}

impl From<RangeInclusive<std::net::Ipv6Addr>> for IpRange {
    fn from(range: RangeInclusive<std::net::Ipv6Addr>) -> Self {
        Self { first: Data::new(&range.start().octets()), last: Data::new(&range.end().octets()) }
    }
}

/// A statement of NAT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NatKind {
    /// `dnat`: another destination address.
    Dnat,
    /// `masquerade`: the source address of the outgoing interface.
    Masquerade,
    /// `redirect`: to this host.
    Redirect,
    /// `snat`: another source address.
    Snat,
}

impl NatKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dnat => "dnat",
            Self::Masquerade => "masquerade",
            Self::Redirect => "redirect",
            Self::Snat => "snat",
        }
    }
}

/// Address or port that an expression returns to NAT.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Computed {
    /// `NFPROTO_*`.
    pub(crate) family: u32,
    pub(crate) target: Target,
    pub(crate) nat: Nat,
}

/// What an expression returns to NAT.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Address(Term),
    /// First and last address: `snat to ip saddr map { 10.0.0.1 : 192.168.0.1-192.168.0.9 }`.
    Addresses(Term),
    /// An address and a port.
    Pair(Term),
    /// A constant address, and a port.
    PortOf(Data, Term),
    Port(Term),
    /// First and last address and port: `dnat ip to ip saddr map { 10.0.0.1 : 192.168.0.1 . 80-90 }`.
    Ranges(Term),
}

/// A family and the address and port of a socket: `tproxy to 127.0.0.1:8080`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tproxy {
    /// `NFPROTO_*`.
    pub(crate) family: u32,
    pub(crate) address: Option<Term>,
    pub(crate) port: Option<Term>,
}
