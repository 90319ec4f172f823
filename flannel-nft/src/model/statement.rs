//! What a rule does: verdicts, translation of addresses, logs, limits, marks.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::bytecode::expr::Expr;
use crate::model::data::Data;
use crate::model::matching::{Field, Match, Source};
use crate::model::name::{CounterName, LogPrefix};
use crate::model::verdict::Verdict;
use crate::uapi::*;

/// How to refuse a packet and say so.
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
    /// TCP reset; demands TCP.
    TcpReset,
}

/// How addresses and ports are chosen in a translation. Default: as the kernel likes, original ports kept if possible.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Nat {
    pub(crate) flags: u32,
    pub(crate) ports: Option<RangeInclusive<u16>>,
}

impl Nat {
    /// As the kernel likes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ports at random without regard to the original (`fully-random`); avoids lost races between CPUs.
    #[must_use]
    pub fn fully_random(mut self) -> Self {
        self.flags |= NF_NAT_RANGE_PROTO_RANDOM_FULLY;
        self
    }

    /// Ports at random by a hash (`random`).
    #[must_use]
    pub fn random(mut self) -> Self {
        self.flags |= NF_NAT_RANGE_PROTO_RANDOM;
        self
    }

    /// The same address for every connection of a client (`persistent`).
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.flags |= NF_NAT_RANGE_PERSISTENT;
        self
    }

    /// Ports from this range. The rule must demand a protocol with ports.
    #[must_use]
    pub fn ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports = Some(ports);
        self
    }

    /// This port. The rule must demand a protocol with ports.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.ports(port..=port)
    }
}

/// What a `log` statement writes. Default: a line in the kernel's log at level `warn`.
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
    /// A line in the kernel's log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Text in front of each line.
    #[must_use]
    pub fn prefix(mut self, prefix: LogPrefix) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// To the listeners of this nflog group instead of the kernel's log.
    #[must_use]
    pub fn group(mut self, group: u16) -> Self {
        self.group = Some(group);
        self.level = None;
        self
    }

    /// Syslog level, 0 (emerg) to 7 (debug). Default: 4 (warn).
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = Some(u32::from(level.min(7)));
        self.group = None;
        self
    }
}

/// Unit of a rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Per {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3 600 s.
    Hour,
    /// 86 400 s.
    Day,
    /// 604 800 s.
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

/// A limit that is true while a rate is kept, or with [`Limit::over`] while it is exceeded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limit {
    pub(crate) rate: u64,
    pub(crate) per: u64,
    pub(crate) burst: u32,
    pub(crate) bytes: bool,
    pub(crate) over: bool,
}

impl Limit {
    /// At most so many packets in a unit of time, with a burst of 5.
    #[must_use]
    pub fn packets(rate: u64, per: Per) -> Self {
        Self { rate, per: per.seconds(), burst: 5, bytes: false, over: false }
    }

    /// At most so many bytes in a unit of time.
    #[must_use]
    pub fn bytes(rate: u64, per: Per) -> Self {
        Self { rate, per: per.seconds(), burst: 0, bytes: true, over: false }
    }

    /// How much may exceed the rate at once, in packets or bytes.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// True while the rate is exceeded.
    #[must_use]
    pub fn over(mut self) -> Self {
        self.over = true;
        self
    }
}

/// What a mark becomes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// This number.
    To(u32),
    /// Itself with these bits set.
    Set(u32),
    /// Itself with these bits cleared.
    Clear(u32),
    /// The bits under `mask` become those of `value`.
    Replace {
        /// Which bits.
        mask: u32,
        /// What they become.
        value: u32,
    },
    /// The other mark: a packet's from its connection, or the reverse.
    Copy {
        /// Which bits; the others become 0. All: `u32::MAX`.
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
    /// An instruction that no word here stands for.
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

/// Addresses to translate to, both ends included.
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
