//! Statements: verdicts, NAT, logging, limits, marks.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::bytecode::expr::Expr;
use crate::model::data::Data;
use crate::model::matching::{Field, Match, Source};
use crate::model::name::{CounterName, LogPrefix};
use crate::model::verdict::Verdict;
use crate::uapi::*;

/// The error that a rejected packet's sender gets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reject {
    /// ICMP or ICMPv6 `admin-prohibited`.
    AdminProhibited,
    /// ICMP `host-unreachable` or ICMPv6 `addr-unreachable`.
    HostUnreachable,
    /// ICMP `net-unreachable` or ICMPv6 `no-route`.
    NoRoute,
    /// ICMP or ICMPv6 `port-unreachable`, nft's default.
    #[default]
    PortUnreachable,
    /// TCP reset. Matches TCP too.
    TcpReset,
}

/// How NAT chooses addresses and ports. Default: the kernel keeps the original port if it is free.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Nat {
    pub(crate) flags: u32,
    pub(crate) ports: Option<RangeInclusive<u16>>,
}

impl Nat {
    /// The kernel's default.
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

    /// This port. The rule must match a protocol with ports.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.ports(port..=port)
    }
}

/// What a `log` statement writes. Default: a line in the kernel log at level `warn`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Log {
    pub(crate) prefix: Option<LogPrefix>,
    pub(crate) group: Option<u16>,
    pub(crate) level: Option<u32>,
    pub(crate) snaplen: Option<u32>,
    pub(crate) threshold: Option<u16>,
    pub(crate) flags: Option<u32>,
}

impl Log {
    /// A line in the kernel log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the text at the start of each line.
    #[must_use]
    pub fn prefix(mut self, prefix: LogPrefix) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// Sends to the listeners of this nflog group instead of the kernel log.
    #[must_use]
    pub fn group(mut self, group: u16) -> Self {
        self.group = Some(group);
        self.level = None;
        self
    }

    /// Sets the syslog level, 0 (emerg) to 7 (debug). Default: 4 (warn).
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = Some(u32::from(level.min(7)));
        self.group = None;
        self
    }
}

/// The time unit of a rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Per {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// 86,400 s.
    Day,
    /// 604,800 s.
    Week,
}

impl Per {
    pub(crate) fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 604_800,
        }
    }
}

/// A rate limit. It matches while the rate is not exceeded or, with [`Limit::over`], while it is
/// exceeded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limit {
    pub(crate) rate: u64,
    pub(crate) per: u64,
    pub(crate) burst: u32,
    pub(crate) bytes: bool,
    pub(crate) over: bool,
}

impl Limit {
    /// A number of packets per unit of time, with a burst of 5.
    #[must_use]
    pub fn packets(rate: u64, per: Per) -> Self {
        Self { rate, per: per.seconds(), burst: 5, bytes: false, over: false }
    }

    /// A number of bytes per unit of time, without a burst.
    #[must_use]
    pub fn bytes(rate: u64, per: Per) -> Self {
        Self { rate, per: per.seconds(), burst: 0, bytes: true, over: false }
    }

    /// Sets the number of packets or bytes that may exceed the rate at once.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// Matches while the rate is exceeded.
    #[must_use]
    pub fn over(mut self) -> Self {
        self.over = true;
        self
    }
}

/// How a statement changes a mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// Sets the mark to this value.
    To(u32),
    /// Sets these bits.
    Set(u32),
    /// Clears these bits.
    Clear(u32),
    /// Replaces the bits under `mask` by those of `value`.
    Replace {
        /// The bits to replace.
        mask: u32,
        /// Their new value.
        value: u32,
    },
    /// Copies the other mark: the packet's from the connection's, or the reverse.
    Copy {
        /// The bits to copy; the others become 0. All bits: `u32::MAX`.
        mask: u32,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    ClampMss,
    Counter {
        packets: u64,
        bytes: u64,
    },
    CounterRef(CounterName),
    CtMark(Mark),
    Dnat {
        address: Option<IpRange>,
        nat: Nat,
    },
    Limit(Limit),
    Log(Log),
    Match(Match),
    Masquerade(Nat),
    MetaMark(Mark),
    Notrack,
    /// An expression without a type here.
    Other(Expr),
    Redirect(Nat),
    Reject(Reject),
    Snat {
        address: Option<IpRange>,
        nat: Nat,
    },
    Verdict(Verdict),
    Vmap {
        field: Field,
        source: Source,
    },
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
