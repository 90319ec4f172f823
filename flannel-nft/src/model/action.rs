//! Statements that are not matches, verdicts or constant NAT: quotas, queues, sets filled by rules,
//! duplicates, proxies.

use crate::model::data::Data;
use crate::model::expression::{Expression, Term};
use crate::model::matching::Source;
use crate::model::name::SetName;
use crate::model::statement::{Limit, Nat, Statement};
use crate::uapi::*;

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
