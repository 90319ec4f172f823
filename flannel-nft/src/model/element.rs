//! Elements of sets and maps.

use std::cmp::Ordering;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::bytecode::expr::Expr;
use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::name::{Comment, CounterName};
use crate::model::opaque::Extra;
use crate::model::value::Value;
use crate::model::verdict::Verdict;
use crate::uapi::NFTA_SET_ELEM_USERDATA;
use crate::wire::exprs::{self, without_state};

/// The keys of an element, both ends included.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Span {
    One(Data),
    Range(Data, Data),
    /// The catch-all element `*`: every key that no other element covers.
    CatchAll,
}

impl Span {
    pub(crate) fn between(first: Data, last: Data) -> Self {
        if first == last { Self::One(first) } else { Self::Range(first, last) }
    }

    pub(crate) fn first(&self) -> Option<&Data> {
        match self {
            Self::One(data) | Self::Range(data, _) => Some(data),
            Self::CatchAll => None,
        }
    }

    pub(crate) fn last(&self) -> Option<&Data> {
        match self {
            Self::One(data) | Self::Range(_, data) => Some(data),
            Self::CatchAll => None,
        }
    }

    pub(crate) fn overlaps(&self, first: &Data, last: &Data) -> bool {
        self.first().is_some_and(|low| low <= last) && self.last().is_some_and(|high| high >= first)
    }

    pub(crate) fn write(&self, datatype: Datatype, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(data) => datatype.write(data, f),
            Self::Range(first, last) => datatype.write_range(first, last, f),
            Self::CatchAll => f.write_str("*"),
        }
    }
}

impl Ord for Span {
    /// Ordered by first key, so that adjacent ranges of a set without overlaps are next to each
    /// other; [`Span::CatchAll`] comes last, as in nft's output.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.first(), other.first()) {
            (Some(first), Some(other_first)) => {
                first.cmp(other_first).then_with(|| self.last().cmp(&other.last()))
            }
            (first, other_first) => other_first.is_some().cmp(&first.is_some()),
        }
    }
}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The key of an element: a value or, in a set with the interval flag, also a prefix or a range.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    pub(crate) datatype: Datatype,
    pub(crate) span: Span,
    pub(crate) invalid: Option<InvalidRule>,
}

impl Key {
    /// The catch-all key `*`: every key that no other element covers. Kernel ≥ 5.13.
    #[must_use]
    pub fn catch_all(datatype: Datatype) -> Self {
        Self { datatype, span: Span::CatchAll, invalid: None }
    }

    /// The key of a set with a concatenation as its type: `10.0.0.0/8 . 80`. In a set with the
    /// interval flag, each part can be a prefix or a range.
    #[must_use]
    pub fn concat(parts: impl IntoIterator<Item = Self>) -> Self {
        let (mut datatypes, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut invalid = None;
        for part in parts {
            let padded = part.datatype.lengths().1;
            for (bytes, end) in [(&mut first, part.span.first()), (&mut last, part.span.last())] {
                let start = bytes.len();
                bytes.extend(end.map(Data::as_slice).unwrap_or_default());
                bytes.resize(start + padded, 0);
            }
            datatypes.push(part.datatype);
            invalid = invalid.or(part.invalid);
        }
        let span = Span::between(Data::new(&first), Data::new(&last));
        Self { datatype: Datatype::concat(&datatypes), span, invalid }
    }

    /// The first and the last value, which are equal for a key that is no range; `None` for the
    /// catch-all key.
    #[must_use]
    pub fn bounds(&self) -> Option<(Value, Value)> {
        let value = |data: &Data| Value::new(self.datatype, data.clone());
        Some((value(self.span.first()?), value(self.span.last()?)))
    }

    /// The network, if the key is an IP address or all addresses of a network.
    #[must_use]
    pub fn network(&self) -> Option<IpNet> {
        let (first, _) = self.bounds()?;
        IpNet::new(first.address()?, self.span.first()?.prefix_to(self.span.last()?)?).ok()
    }

    pub(crate) fn prefix(datatype: Datatype, address: Data, length: u8) -> Self {
        let invalid = (!address.is_network(length)).then(|| {
            let text = Value::new(datatype, address.clone());
            InvalidRule::HostBits { prefix: format!("{text}/{length}") }
        });
        let last = address.last_with_prefix(length);
        Self { datatype, span: Span::between(address, last), invalid }
    }

    fn range(first: Value, last: Value) -> Self {
        let invalid =
            (first.data > last.data).then(|| InvalidRule::EmptyRange { range: format!("{first}-{last}") });
        Self { datatype: first.datatype, span: Span::between(first.data, last.data), invalid }
    }
}

impl<T: Into<Value>> From<T> for Key {
    fn from(value: T) -> Self {
        let value = value.into();
        if let (Datatype::Ifname, Ok(bits)) = (value.datatype, u8::try_from(value.data.len() * 8))
            && usize::from(bits) < Datatype::Ifname.lengths().0 * 8
        {
            let mut name = value.data.as_slice().to_vec();
            name.resize(Datatype::Ifname.lengths().0, 0);
            return Self::prefix(value.datatype, Data::new(&name), bits);
        }
        Self { datatype: value.datatype, span: Span::One(value.data), invalid: None }
    }
}

impl From<Ipv4Net> for Key {
    fn from(net: Ipv4Net) -> Self {
        Self::prefix(Datatype::Ipv4Addr, Data::new(&net.addr().octets()), net.prefix_len())
    }
}

impl From<Ipv6Net> for Key {
    fn from(net: Ipv6Net) -> Self {
        Self::prefix(Datatype::Ipv6Addr, Data::new(&net.addr().octets()), net.prefix_len())
    }
}

impl From<IpNet> for Key {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => net.into(),
            IpNet::V6(net) => net.into(),
        }
    }
}

impl From<RangeInclusive<Ipv4Addr>> for Key {
    fn from(range: RangeInclusive<Ipv4Addr>) -> Self {
        Self::range((*range.start()).into(), (*range.end()).into())
    }
}

impl From<RangeInclusive<Ipv6Addr>> for Key {
    fn from(range: RangeInclusive<Ipv6Addr>) -> Self {
        Self::range((*range.start()).into(), (*range.end()).into())
    }
}

impl From<u16> for Key {
    /// The key for a port.
    fn from(port: u16) -> Self {
        Value::port(port).into()
    }
}

impl From<RangeInclusive<u16>> for Key {
    /// The key for a range of ports.
    fn from(range: RangeInclusive<u16>) -> Self {
        Self::range(Value::port(*range.start()), Value::port(*range.end()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.span.write(self.datatype, f)
    }
}

/// What a map holds for a key.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Mapped {
    Object(CounterName),
    Value(Data),
    Verdict(Verdict),
}

/// Everything of an element except its key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) mapped: Option<Mapped>,
    pub(crate) timeout: Option<Duration>,
    /// Remaining lifetime, in observed elements only. Not compared.
    pub(crate) expires: Option<Duration>,
    pub(crate) comment: Option<Comment>,
    /// Counters and other stateful expressions.
    pub(crate) exprs: Box<[Expr]>,
    pub(crate) extra: Extra,
}

impl PartialEq for Body {
    /// The state of counters, quotas, ... is not compared. An element without them may get them from
    /// its set.
    fn eq(&self, other: &Self) -> bool {
        let exprs = || self.exprs.iter().map(without_state).eq(other.exprs.iter().map(without_state));
        same_time(self.timeout, other.timeout)
            && (&self.mapped, &self.comment) == (&other.mapped, &other.comment)
            && (self.exprs.is_empty() || other.exprs.is_empty() || exprs())
    }
}

/// Whether the kernel holds the same for both: it rounds to its clock, which ticks at least every
/// 10 ms.
pub(crate) fn same_time(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.abs_diff(b) < Duration::from_millis(20),
        (a, b) => a == b,
    }
}

/// An element of a set or map.
#[derive(Clone, Debug)]
pub struct Element {
    pub(crate) key: Key,
    pub(crate) data_type: Option<Datatype>,
    pub(crate) body: Body,
}

impl Element {
    /// An element of a set.
    #[must_use]
    pub fn new(key: impl Into<Key>) -> Self {
        Self { key: key.into(), data_type: None, body: Body::default() }
    }

    /// Sets the verdict, for a verdict map.
    #[must_use]
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.body.mapped = Some(Mapped::Verdict(verdict));
        self.data_type = None;
        self
    }

    /// Sets the value, for a map.
    #[must_use]
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.data_type = Some(value.datatype);
        self.body.mapped = Some(Mapped::Value(value.data));
        self
    }

    /// Sets the counter, for a map of counters.
    #[must_use]
    pub fn counter(mut self, name: &CounterName) -> Self {
        self.body.mapped = Some(Mapped::Object(name.clone()));
        self.data_type = None;
        self
    }

    /// Sets the lifetime, in whole milliseconds. Default: the set's timeout, if it has one.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.body.timeout = Some(timeout);
        self
    }

    /// Sets a comment, which `nft list` shows.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.body.extra.remove(NFTA_SET_ELEM_USERDATA);
        self.body.comment = Some(comment);
        self
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// What a map holds for a key.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MappedTo {
    /// The name of a counter, quota, limit, ...
    Object(String),
    /// A value.
    Value(Value),
    /// A verdict.
    Verdict(Verdict),
}

impl Element {
    /// What the map holds for the key; `None` for the element of a set.
    #[must_use]
    pub fn mapped(&self) -> Option<MappedTo> {
        Some(match self.body.mapped.as_ref()? {
            Mapped::Object(name) => MappedTo::Object(name.to_string()),
            Mapped::Value(data) => {
                let unknown = Datatype::Other { number: 0, length: u32::try_from(data.len()).unwrap_or(0) };
                MappedTo::Value(Value::new(self.data_type.unwrap_or(unknown), data.clone()))
            }
            Mapped::Verdict(verdict) => MappedTo::Verdict(verdict.clone()),
        })
    }

    /// The comment.
    #[must_use]
    pub fn remark(&self) -> Option<&Comment> {
        self.body.comment.as_ref()
    }

    /// The lifetime of the element; `None` if it is that of the set.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        self.body.timeout
    }

    /// What was left of the lifetime when the element was observed.
    #[must_use]
    pub fn expires(&self) -> Option<Duration> {
        self.body.expires
    }

    /// Packets and bytes, if the element has a counter.
    #[must_use]
    pub fn counts(&self) -> Option<(u64, u64)> {
        self.body.exprs.iter().find_map(exprs::counts)
    }

    /// Bytes of its quota that are used up, if the element has a quota.
    #[must_use]
    pub fn quota_used(&self) -> Option<u64> {
        self.body.exprs.iter().find_map(exprs::quota_used)
    }

    /// How long ago a packet last matched, if the element has `last` and a packet has.
    #[must_use]
    pub fn last_used(&self) -> Option<Duration> {
        self.body.exprs.iter().find_map(exprs::last_used)
    }
}

impl<T: Into<Key>> From<T> for Element {
    fn from(key: T) -> Self {
        Self::new(key)
    }
}
