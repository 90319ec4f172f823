//! What statements other than NAT consist of: logs, limits, marks, quotas, queues, changes of sets.

use crate::model::expression::{Expression, Term};
use crate::model::matching::Source;
use crate::model::name::{LogPrefix, SetName};
use crate::model::statement::Statement;
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

/// An expression of the kernel, as its name and attributes: for what has no type here.
///
/// Registers that it reads or writes are those of the expressions around it; nothing is validated.
/// Numbers are in network byte order. Append the attributes in the order in which the kernel returns
/// them: otherwise the rule is replaced whenever it is compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawExpression {
    pub(crate) name: Box<str>,
    pub(crate) attributes: Vec<(u16, Box<[u8]>)>,
}

impl RawExpression {
    /// The expression of this name (`meta`, `last`), without attributes.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), attributes: Vec::new() }
    }

    /// Appends an attribute: its number in `nf_tables.h`, and its payload.
    #[must_use]
    pub fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        self.attributes.push((kind, payload.into()));
        self
    }
}

/// A quota: matches until this number of bytes has passed or, with [`Quota::over`], afterwards.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quota {
    pub(crate) bytes: u64,
    pub(crate) used: u64,
    pub(crate) over: bool,
}

impl Quota {
    /// Matches until `bytes` have passed: `quota 25 mbytes`.
    #[must_use]
    pub fn until(bytes: u64) -> Self {
        Self { bytes, used: 0, over: false }
    }

    /// The same quota before any packet.
    pub(crate) fn unused(&self) -> Self {
        Self { used: 0, ..self.clone() }
    }

    /// Matches after `bytes` have passed: `quota over 25 mbytes`.
    #[must_use]
    pub fn over(bytes: u64) -> Self {
        Self { bytes, used: 0, over: true }
    }
}

/// Queues of programs that decide about packets (nfnetlink_queue).
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    pub(crate) to: QueueTo,
    pub(crate) flags: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum QueueTo {
    Numbers { first: u16, count: u16 },
    Computed(Term),
}

impl Queue {
    /// The queue of this number: `queue to 1`.
    #[must_use]
    pub fn number(number: u16) -> Self {
        Self { to: QueueTo::Numbers { first: number, count: 1 }, flags: 0 }
    }

    /// Several queues, from `first` on, chosen by the hash of the flow: `queue to 1-4`.
    #[must_use]
    pub fn numbers(first: u16, count: u16) -> Self {
        Self { to: QueueTo::Numbers { first, count }, flags: 0 }
    }

    /// The queue whose number an expression returns: `queue to symhash mod 4`.
    #[must_use]
    pub fn computed(number: impl Into<Expression>) -> Self {
        Self { to: QueueTo::Computed(number.into().0), flags: 0 }
    }

    /// Accepts packets if no program reads the queue.
    #[must_use]
    pub fn bypass(mut self) -> Self {
        self.flags |= NFT_QUEUE_FLAG_BYPASS;
        self
    }

    /// Chooses the queue by the CPU instead of the hash of the flow.
    #[must_use]
    pub fn fanout(mut self) -> Self {
        self.flags |= NFT_QUEUE_FLAG_CPU_FANOUT;
        self
    }
}

/// A change of a set or map that the rule makes when a packet passes: `add @SET { ip saddr }`.
#[derive(Clone, Debug, PartialEq)]
pub struct SetUpdate {
    pub(crate) op: u32,
    /// The named set, or the anonymous set of a `meter`.
    pub(crate) set: Source,
    pub(crate) key: Term,
    pub(crate) value: Option<Term>,
    /// The 32-bit word of the registers from which on the value is, if it is not the usual one.
    pub(crate) value_word: Option<u32>,
    /// Milliseconds.
    pub(crate) timeout: Option<u64>,
    pub(crate) flags: u32,
    pub(crate) statements: Vec<Statement>,
}

impl SetUpdate {
    fn new(op: u32, set: &SetName, key: Expression) -> Self {
        Self::of(op, Source::Named(set.clone()), key.0)
    }

    /// A change without a value, timeout or statements.
    pub(crate) fn of(op: u32, set: Source, key: Term) -> Self {
        let statements = Vec::new();
        Self { op, set, key, value: None, value_word: None, timeout: None, flags: 0, statements }
    }

    /// Adds the element, unless it exists: `add @SET { ip saddr }`.
    #[must_use]
    pub fn add(set: &SetName, key: impl Into<Expression>) -> Self {
        Self::new(NFT_DYNSET_OP_ADD, set, key.into())
    }

    /// Adds the element, or restarts its timeout: `update @SET { ip saddr }`.
    #[must_use]
    pub fn update(set: &SetName, key: impl Into<Expression>) -> Self {
        Self::new(NFT_DYNSET_OP_UPDATE, set, key.into())
    }

    /// Deletes the element: `delete @SET { ip saddr }`. Kernel ≥ 5.6.
    #[must_use]
    pub fn delete(set: &SetName, key: impl Into<Expression>) -> Self {
        Self::new(NFT_DYNSET_OP_DELETE, set, key.into())
    }

    /// Sets the value, for a map: `add @MAP { ip saddr : tcp dport }`.
    #[must_use]
    pub fn value(mut self, value: impl Into<Expression>) -> Self {
        self.value = Some(value.into().0);
        self
    }

    /// Sets the lifetime of the element, in whole milliseconds. Default: the set's timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
        self.timeout = u64::try_from(timeout.as_millis()).ok();
        self
    }

    /// nft's word for what is done.
    pub(crate) fn operation(&self) -> &'static str {
        match self.op {
            NFT_DYNSET_OP_UPDATE => "update",
            NFT_DYNSET_OP_DELETE => "delete",
            _ => "add",
        }
    }

    fn with(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// Gives each element a rate limit; the rule continues only if it matches.
    #[must_use]
    pub fn limit(self, limit: Limit) -> Self {
        self.with(Statement::Limit(limit))
    }

    /// Gives each element a quota; the rule continues only if it matches.
    #[must_use]
    pub fn quota(self, quota: Quota) -> Self {
        self.with(Statement::Quota(quota))
    }

    /// Gives each element a counter.
    #[must_use]
    pub fn counter(self) -> Self {
        self.with(Statement::Counter { packets: 0, bytes: 0 })
    }

    /// Limits the connections of each element; the rule continues while there are no more than
    /// `count`.
    #[must_use]
    pub fn connections(self, count: u32) -> Self {
        self.with(Statement::Connlimit { count, over: false })
    }

    /// Limits the connections of each element; the rule continues while there are more than
    /// `count`.
    #[must_use]
    pub fn connections_over(self, count: u32) -> Self {
        self.with(Statement::Connlimit { count, over: true })
    }
}

/// SYN cookies on behalf of a server: `synproxy mss 1460 wscale 7`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Synproxy {
    pub(crate) mss: u16,
    pub(crate) wscale: u8,
    pub(crate) flags: u32,
}

impl Synproxy {
    /// Without options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The maximum segment size that the server announces.
    #[must_use]
    pub fn mss(mut self, bytes: u16) -> Self {
        self.mss = bytes;
        self.flags |= NF_SYNPROXY_OPT_MSS;
        self
    }

    /// The window scale that the server announces.
    #[must_use]
    pub fn wscale(mut self, scale: u8) -> Self {
        self.wscale = scale;
        self.flags |= NF_SYNPROXY_OPT_WSCALE;
        self
    }

    /// The server supports timestamps.
    #[must_use]
    pub fn timestamp(mut self) -> Self {
        self.flags |= NF_SYNPROXY_OPT_TIMESTAMP;
        self
    }

    /// The server supports selective acknowledgments.
    #[must_use]
    pub fn sack_perm(mut self) -> Self {
        self.flags |= NF_SYNPROXY_OPT_SACK_PERM;
        self
    }
}

/// How a field of a packet is written: the bytes around it that are written too, and the checksum
/// that the kernel updates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Write {
    /// In bits.
    pub(crate) first: u32,
    /// In bits.
    pub(crate) length: u32,
    /// `NFT_PAYLOAD_CSUM_*`.
    pub(crate) checksum: u32,
    /// In bytes.
    pub(crate) checksum_offset: u32,
    /// `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`.
    pub(crate) checksum_flags: u32,
}
