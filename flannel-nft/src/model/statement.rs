//! Statements: verdicts, NAT, logging, limits, marks.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::bytecode::expr::Expr;
use crate::model::action::{
    Computed, NatKind, Queue, QueueTo, Quota, SetUpdate, Synproxy, Target, Tproxy, Write,
};
use crate::model::data::Data;
use crate::model::expression::Term;
use crate::model::field::{Field, ct, meta};
use crate::model::matching::{Match, Source, Test};
use crate::model::name::{CounterName, LogPrefix};
use crate::model::value::Value;
use crate::model::verdict::Verdict;
use crate::uapi::*;

/// The error that a rejected packet's sender gets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reject {
    /// ICMP or ICMPv6 `admin-prohibited`.
    AdminProhibited,
    /// This code of ICMP `destination-unreachable`: `reject with icmp host-prohibited`.
    Icmp(u8),
    /// This code of ICMPv6 `destination-unreachable`: `reject with icmpv6 policy-fail`.
    Icmpv6(u8),
    /// ICMP `host-unreachable` or ICMPv6 `addr-unreachable`.
    HostUnreachable,
    /// ICMP `net-unreachable` or ICMPv6 `no-route`.
    NoRoute,
    /// ICMP or ICMPv6 `port-unreachable`, nft's default.
    #[default]
    PortUnreachable,
    /// A TCP reset. The rule then matches TCP only.
    TcpReset,
}

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
    /// One line in the kernel log for each packet: `log`. By default with level `warn` and without a prefix.
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

    /// Sends to the listeners of this nflog group instead of the kernel log. Invalid together with a
    /// level.
    #[must_use]
    pub fn group(mut self, group: u16) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets the syslog level, 0 (emerg) to 7 (debug). Default: 4 (warn). Invalid together with a
    /// group.
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = Some(u32::from(level.min(7)));
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
#[non_exhaustive]
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
    /// Equality of several adjacent fields, which nft compares at once.
    Adjacent(Vec<(Field, Data)>),
    Connlimit {
        count: u32,
        over: bool,
    },
    Counter {
        packets: u64,
        bytes: u64,
    },
    CounterRef(CounterName),
    Dnat {
        address: Option<IpRange>,
        nat: Nat,
    },
    Dup {
        address: Option<Term>,
        device: Option<Term>,
    },
    FlowAdd(Box<str>),
    Fwd {
        device: Term,
        /// `NFPROTO_*` and address.
        address: Option<(u32, Term)>,
    },
    /// When a packet was last seen, in milliseconds before.
    Last(Option<u64>),
    Limit(Limit),
    Log(Log),
    Match(Match),
    Masquerade(Nat),
    /// NAT to an address or port that an expression returns.
    Nat {
        kind: NatKind,
        computed: Box<Computed>,
    },
    Notrack,
    /// A named object that is not a counter: `NFT_OBJECT_*`.
    Object {
        kind: u32,
        name: Box<str>,
    },
    /// The object that a map has for a key. The kind is unknown if the map is named.
    ObjectMap {
        kind: Option<u32>,
        key: Term,
        source: Source,
    },
    /// An expression without a type here.
    Other(Expr),
    Queue(Queue),
    Quota(Quota),
    Redirect(Nat),
    Reject(Reject),
    /// Overwrites a TCP option with no-operations.
    ResetOption(Field),
    Set {
        field: Field,
        value: Term,
        /// For a field of a packet, if it is not written as nft 1.0.6 writes it.
        write: Option<Write>,
    },
    Snat {
        address: Option<IpRange>,
        nat: Nat,
    },
    Synproxy(Synproxy),
    Tproxy(Tproxy),
    Update(Box<SetUpdate>),
    Verdict(Verdict),
    Vmap {
        key: Term,
        source: Source,
    },
}

impl Statement {
    /// Calls `found` for each term that the statement reads, in the order of reading.
    pub(crate) fn each_term(&self, found: &mut impl FnMut(&Term)) {
        match self {
            Self::Match(condition) => found(&condition.left),
            Self::Adjacent(fields) => fields.iter().for_each(|(field, _)| found(&Term::Field(*field))),
            Self::Vmap { key, .. } | Self::ObjectMap { key, .. } => found(key),
            Self::Dup { address, device } => address.iter().chain(device).for_each(found),
            Self::Fwd { device, address } => {
                found(device);
                address.iter().for_each(|(_, address)| found(address));
            }
            Self::Nat { computed, .. } => match &computed.target {
                Target::Address(term)
                | Target::Addresses(term)
                | Target::Pair(term)
                | Target::Ranges(term)
                | Target::PortOf(_, term)
                | Target::Port(term) => found(term),
            },
            Self::Queue(Queue { to: QueueTo::Computed(term), .. }) => found(term),
            Self::Set { field, value, .. } => {
                found(&Term::Field(*field));
                found(value);
            }
            Self::Tproxy(tproxy) => tproxy.address.iter().chain(&tproxy.port).for_each(found),
            Self::Update(update) => {
                found(&update.key);
                update.value.iter().for_each(found);
            }
            _ => {}
        }
    }

    /// Calls `found` for each set that the statement looks up, with its key, in the order of the
    /// lookups.
    pub(crate) fn each_source(&self, found: &mut impl FnMut(&Source, &Term)) {
        self.each_term(&mut |term: &Term| term.each_source(found));
        match self {
            Self::Match(Match { left: key, test: Test::In(source), .. })
            | Self::Vmap { key, source }
            | Self::ObjectMap { key, source, .. } => found(source, key),
            Self::Update(update) => found(&update.set, &update.key),
            _ => {}
        }
    }

    /// Calls `found` for each named set that the statement looks up or changes.
    pub(crate) fn each_named_set(&self, found: &mut impl FnMut(&str)) {
        self.each_source(&mut |source, _| {
            if let Source::Named(set) = source {
                found(set.as_str());
            }
        });
    }

    /// A change of a packet's mark, or of its connection's.
    pub(crate) fn mark(mark: Mark, of_packet: bool) -> Self {
        let (own, other) = if of_packet { (meta::MARK, ct::MARK) } else { (ct::MARK, meta::MARK) };
        let bitwise = |field, mask: u32, xor: u32| Term::Bitwise {
            of: Box::new(Term::Field(field)),
            mask: Data::u32(mask),
            xor: Data::u32(xor),
        };
        let value = match mark {
            Mark::To(value) => Term::Constant(Value::mark(value)),
            Mark::Set(bits) => bitwise(own, !bits, bits),
            Mark::Clear(bits) => bitwise(own, !bits, 0),
            Mark::Replace { mask, value } => bitwise(own, !mask, value & mask),
            Mark::Copy { mask: u32::MAX } => Term::Field(other),
            Mark::Copy { mask } => bitwise(other, mask, 0),
        };
        Self::Set { field: own, value, write: None }
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
