//! Statements and matches as typed values, to read the rules of any program.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::expression::{Expression, Term};
use crate::model::field::Field;
use crate::model::matching::{Match, Source, Test};
use crate::model::name::SetName;
use crate::model::object::object_kind;
use crate::model::rule::Rule;
use crate::model::set::Set;
use crate::model::statement::{IpRange, Nat, NatKind, QueueTo, Reject, Statement, Target};
use crate::model::value::Value;
use crate::model::verdict::Verdict;
use crate::uapi::*;
use crate::wire::exprs;

/// A statement of a rule, to read: see [`Rule::statements`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StatementView<'r> {
    /// The rule continues only while there are at most `count` connections or, with `over`, more.
    Connections {
        /// The limit.
        count: u32,
        /// Whether the rule continues while there are more.
        over: bool,
    },
    /// `counter`
    Counter {
        /// Packets so far.
        packets: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// `dup`: a copy of the packet.
    Dup {
        /// The address that gets it.
        address: Option<Expression>,
        /// The interface that sends it.
        device: Option<Expression>,
    },
    /// `flow add @TABLE`
    FlowAdd(&'r str),
    /// `fwd`: the packet leaves through another interface.
    Forward {
        /// The interface.
        device: Expression,
        /// The next hop.
        address: Option<Expression>,
    },
    /// `last`: how long ago a packet was last seen; `None` if none was.
    Last(Option<Duration>),
    /// `limit`
    Limit {
        /// Packets or bytes per unit of time.
        rate: u64,
        /// The unit of time.
        per: Duration,
        /// Packets or bytes that may exceed the rate at once.
        burst: u32,
        /// Whether the rate counts bytes.
        bytes: bool,
        /// Whether the rule continues while the rate is exceeded.
        over: bool,
    },
    /// `log`
    Log {
        /// The text at the start of each line.
        prefix: Option<&'r str>,
        /// The nflog group; `None` for the kernel log.
        group: Option<u16>,
        /// The syslog level, 0 (emerg) to 7 (debug).
        level: Option<u32>,
    },
    /// The rule continues only if the match is true.
    Match(Cow<'r, Match>),
    /// `snat`, `dnat`, `masquerade` or `redirect`.
    Nat {
        /// Which of them.
        kind: NatKind,
        /// The new address or port.
        to: NatTarget,
        /// Ports and flags.
        nat: &'r Nat,
    },
    /// `notrack`
    Notrack,
    /// The named object of this kind (`counter`, `quota`, `limit`, `ct helper`, ...) and name.
    Object {
        /// The kind, as nft calls it.
        kind: &'static str,
        /// The name.
        name: &'r str,
    },
    /// The object that a map has for a key.
    ObjectMap {
        /// What is looked up.
        key: Expression,
        /// The map.
        map: SetView<'r>,
    },
    /// `queue`: a program decides.
    Queue {
        /// The queue's number, or that of the first queue.
        to: Expression,
        /// The number of queues.
        count: u16,
        /// Whether packets are accepted if no program reads the queue.
        bypass: bool,
    },
    /// `quota`
    Quota {
        /// The limit.
        bytes: u64,
        /// Bytes so far.
        used: u64,
        /// Whether the rule continues after the quota is used up.
        over: bool,
    },
    /// `reject`
    Reject(Reject),
    /// `reset tcp option`
    ResetOption(Field),
    /// A field of the packet, its metadata or its connection is set: `meta mark set 1`.
    Set {
        /// The field.
        field: Field,
        /// Its new value.
        value: Expression,
    },
    /// `synproxy`
    Synproxy,
    /// `tproxy`
    Tproxy {
        /// The address of the socket.
        address: Option<Expression>,
        /// The port of the socket.
        port: Option<Expression>,
    },
    /// An expression of the kernel that has no type here: its name there.
    Unknown(&'r str),
    /// An element is added, updated or deleted: `add @SET { ip saddr }`.
    Update {
        /// `add`, `update` or `delete`.
        operation: &'static str,
        /// The set.
        set: SetView<'r>,
        /// The element's key.
        key: Expression,
        /// Its value in a map.
        value: Option<Expression>,
        /// Its lifetime; `None` for that of the set.
        timeout: Option<Duration>,
    },
    /// The rule ends.
    Verdict(&'r Verdict),
    /// The rule ends with the verdict that a map has for a key.
    VerdictMap {
        /// What is looked up.
        key: Expression,
        /// The map.
        map: SetView<'r>,
    },
}

/// What NAT translates to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum NatTarget {
    /// The address of an interface (`masquerade`, `redirect`), or only a port.
    Interface,
    /// The addresses from the first to the last.
    Addresses(IpAddr, IpAddr),
    /// The address, port or both that an expression returns, and the address if that is constant.
    Computed(Option<IpAddr>, Expression),
}

impl From<Option<&IpRange>> for NatTarget {
    fn from(range: Option<&IpRange>) -> Self {
        match range.and_then(|range| Some((address(&range.first)?, address(&range.last)?))) {
            Some((first, last)) => Self::Addresses(first, last),
            None => Self::Interface,
        }
    }
}

fn address(data: &Data) -> Option<IpAddr> {
    let datatype = if data.len() == 4 { Datatype::Ipv4Addr } else { Datatype::Ipv6Addr };
    Value::new(datatype, data.clone()).address()
}

/// A set or map that a rule uses.
#[derive(Clone, Debug)]
pub enum SetView<'r> {
    /// The set of this name in the rule's table: [`Table::find_set`](crate::Table::find_set).
    Named(&'r SetName),
    /// A set that belongs to the rule: `{ 80, 443 }`.
    Anonymous(&'r Set),
}

impl PartialEq for SetView<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => a == b,
            (Self::Anonymous(a), Self::Anonymous(b)) => {
                (a.key, a.maps, a.flags) == (b.key, b.maps, b.flags) && a.elements == b.elements
            }
            _ => false,
        }
    }
}

impl<'r> From<&'r Source> for SetView<'r> {
    fn from(source: &'r Source) -> Self {
        match source {
            Source::Named(name) => Self::Named(name),
            Source::Inline(inline) => Self::Anonymous(&inline.set),
        }
    }
}

/// What a match compares its expression with: see [`Match::comparison`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Comparison<'m> {
    /// At least one of these bits is set: `ct state established,related`.
    AnyBit(Value),
    /// `>=`
    AtLeast(Value),
    /// `<=`
    AtMost(Value),
    /// `>`
    Greater(Value),
    /// In a set.
    In(SetView<'m>),
    /// Equal to this value.
    Is(Value),
    /// `<`
    Less(Value),
    /// The bits under the mask equal the value: `meta mark & 0xff == 0x1`.
    Masked {
        /// The mask.
        mask: Value,
        /// The value.
        value: Value,
    },
    /// An interface whose name starts with this prefix: `iifname "veth*"`.
    NamePrefix(&'m str),
    /// An address with the same first bits: the address and the number of bits.
    Prefix(Value, u8),
    /// In this range, both ends included.
    Range(Value, Value),
}

impl Comparison<'_> {
    /// The network, if an IP address is compared with a network or with one address.
    #[must_use]
    pub fn network(&self) -> Option<IpNet> {
        match self {
            Self::Is(value) => value.address().map(IpNet::from),
            Self::Prefix(value, length) => IpNet::new(value.address()?, *length).ok(),
            _ => None,
        }
    }
}

impl Match {
    /// What is compared.
    #[must_use]
    pub fn expression(&self) -> Expression {
        Expression(self.left.clone())
    }

    /// The field that is compared; `None` if something is computed from fields.
    #[must_use]
    pub fn field(&self) -> Option<Field> {
        self.left.field()
    }

    /// Whether the match is true if the comparison is false: `ip saddr != 10.0.0.0/8`.
    #[must_use]
    pub fn is_inverted(&self) -> bool {
        self.inverted
    }

    /// What it is compared with. Bits and masks of a field that is not made of whole bytes are
    /// those of the field.
    #[must_use]
    pub fn comparison(&self) -> Comparison<'_> {
        let value = |data: &Data| {
            let data = self.left.field().map_or_else(|| data.clone(), |field| field.unshifted(data));
            Value::new(self.left.datatype(), data)
        };
        match &self.test {
            Test::AnyBit(bits) => Comparison::AnyBit(value(bits)),
            Test::Compare(NFT_CMP_LT, data) => Comparison::Less(value(data)),
            Test::Compare(NFT_CMP_GT, data) => Comparison::Greater(value(data)),
            Test::Compare(NFT_CMP_LTE, data) => Comparison::AtMost(value(data)),
            Test::Compare(_, data) => Comparison::AtLeast(value(data)),
            Test::In(source) => Comparison::In(source.into()),
            Test::Is(data) => Comparison::Is(value(data)),
            Test::Masked { mask, value: wanted } => {
                Comparison::Masked { mask: value(mask), value: value(wanted) }
            }
            Test::NamePrefix(prefix) => Comparison::NamePrefix(prefix),
            Test::Prefix(address, length) => Comparison::Prefix(value(address), *length),
            Test::Range(first, last) | Test::Within(first, last) => {
                Comparison::Range(value(first), value(last))
            }
        }
    }
}

impl Rule {
    /// The statements in order, of rules of any program too.
    ///
    /// ```
    /// use flannel_nft::{Comparison, Rule, StatementView, Verdict, field, ip};
    ///
    /// let pods: ipnet::Ipv4Net = "10.244.0.0/16".parse()?;
    /// let rule = Rule::new().when(!ip::saddr(pods)).counter().drop(); // or a rule of an observed chain
    /// let statements: Vec<_> = rule.statements().collect();
    /// let StatementView::Match(condition) = &statements[0] else { panic!() };
    /// assert_eq!(condition.field(), Some(field::ip::SADDR));
    /// assert!(condition.is_inverted());
    /// assert_eq!(condition.comparison().network(), Some(pods.into()));
    /// assert_eq!(statements[1], StatementView::Counter { packets: 0, bytes: 0 });
    /// assert_eq!(statements[2], StatementView::Verdict(&Verdict::Drop));
    /// # Ok::<(), ipnet::AddrParseError>(())
    /// ```
    ///
    /// A rule of which a part has no type here still has its other statements, and
    /// [`StatementView::Unknown`] for each unknown expression.
    pub fn statements(&self) -> impl Iterator<Item = StatementView<'_>> {
        self.statements.iter().flat_map(|statement| {
            let (adjacent, single): (&[(Field, Data)], _) = match statement {
                Statement::Adjacent(fields) => (fields, None),
                statement => (&[], Some(view(statement))),
            };
            let equal = |(field, data): &(Field, Data)| {
                StatementView::Match(Cow::Owned(Match::new(*field, Test::Is(data.clone()))))
            };
            adjacent.iter().map(equal).chain(single)
        })
    }
}

fn expression(term: &Term) -> Expression {
    Expression(term.clone())
}

fn view(statement: &Statement) -> StatementView<'_> {
    use StatementView as View;
    let optional = |term: &Option<Term>| term.as_ref().map(expression);
    let translated = |kind, to, nat| View::Nat { kind, to, nat };
    match statement {
        // Several matches: the caller takes them apart.
        Statement::Adjacent(_) => View::Unknown("cmp"),
        Statement::Connlimit { count, over } => View::Connections { count: *count, over: *over },
        Statement::Counter { packets, bytes } => View::Counter { packets: *packets, bytes: *bytes },
        Statement::CounterRef(name) => View::Object { kind: "counter", name: name.as_str() },
        Statement::Dup { address, device } => {
            View::Dup { address: optional(address), device: optional(device) }
        }
        Statement::FlowAdd(table) => View::FlowAdd(table),
        Statement::Fwd { device, address } => View::Forward {
            device: expression(device),
            address: address.as_ref().map(|(_, address)| expression(address)),
        },
        Statement::Last(milliseconds) => View::Last(milliseconds.map(Duration::from_millis)),
        Statement::Limit(limit) => View::Limit {
            rate: limit.rate,
            per: Duration::from_secs(limit.per),
            burst: limit.burst,
            bytes: limit.bytes,
            over: limit.over,
        },
        Statement::Log(log) => View::Log {
            prefix: log.prefix.as_ref().map(|prefix| prefix.as_str()),
            group: log.group,
            level: log.level,
        },
        Statement::Match(condition) => View::Match(Cow::Borrowed(condition)),
        Statement::Masquerade(nat) => translated(NatKind::Masquerade, NatTarget::Interface, nat),
        Statement::Redirect(nat) => translated(NatKind::Redirect, NatTarget::Interface, nat),
        Statement::Snat { address, nat } => translated(NatKind::Snat, address.as_ref().into(), nat),
        Statement::Dnat { address, nat } => translated(NatKind::Dnat, address.as_ref().into(), nat),
        Statement::Nat { kind, computed } => {
            let (constant, term) = match &computed.target {
                Target::PortOf(constant, term) => (address(constant), term),
                Target::Address(term)
                | Target::Addresses(term)
                | Target::Pair(term)
                | Target::Ranges(term)
                | Target::Port(term) => (None, term),
            };
            translated(*kind, NatTarget::Computed(constant, expression(term)), &computed.nat)
        }
        Statement::Notrack => View::Notrack,
        Statement::Object { kind, name } => View::Object { kind: object_kind(*kind), name },
        Statement::ObjectMap { key, source, .. } => {
            View::ObjectMap { key: expression(key), map: source.into() }
        }
        Statement::Other(expr) => View::Unknown(exprs::name(expr)),
        Statement::Queue(queue) => {
            let (to, count) = match &queue.to {
                QueueTo::Numbers { first, count } => (Value::port(*first).into(), *count),
                QueueTo::Computed(term) => (expression(term), 1),
            };
            View::Queue { to, count, bypass: queue.flags & NFT_QUEUE_FLAG_BYPASS != 0 }
        }
        Statement::Quota(quota) => View::Quota { bytes: quota.bytes, used: quota.used, over: quota.over },
        Statement::Reject(kind) => View::Reject(*kind),
        Statement::ResetOption(field) => View::ResetOption(*field),
        Statement::Set { field, value, .. } => View::Set { field: *field, value: expression(value) },
        Statement::Synproxy(_) => View::Synproxy,
        Statement::Tproxy(proxy) => {
            View::Tproxy { address: optional(&proxy.address), port: optional(&proxy.port) }
        }
        Statement::Update(update) => View::Update {
            operation: update.operation(),
            set: (&update.set).into(),
            key: expression(&update.key),
            value: optional(&update.value),
            timeout: update.timeout.map(Duration::from_millis),
        },
        Statement::Verdict(verdict) => View::Verdict(verdict),
        Statement::Vmap { key, source } => View::VerdictMap { key: expression(key), map: source.into() },
    }
}
