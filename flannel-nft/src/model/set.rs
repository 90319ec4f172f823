//! Sets and maps: many values behind one rule.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Element, Key, Mapped, Span};
use crate::model::name::{Comment, SetName};
use crate::model::opaque::Extra;
use crate::uapi::*;

/// What the elements of a set lead to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Maps {
    Nothing,
    Value(Datatype),
    Verdict,
    Object(u32),
}

impl Maps {
    /// What a set that belongs to one rule is called when it is sent; the kernel puts a number in.
    pub(crate) fn anonymous_name(self) -> SetName {
        SetName::observed(if self == Self::Nothing { "__set%d" } else { "__map%d" })
    }
}

/// A named set or map.
///
/// Elements that change while the set stays are added and removed one by one; a set is never refilled.
///
/// # Kernel
/// `nft add set ip TABLE NAME { type ipv4_addr; flags interval; }`
#[derive(Clone, Debug)]
pub struct Set {
    pub(crate) name: SetName,
    pub(crate) key: Datatype,
    pub(crate) maps: Maps,
    pub(crate) flags: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) gc_interval: Option<Duration>,
    pub(crate) size: Option<u32>,
    pub(crate) comment: Option<Comment>,
    pub(crate) elements: BTreeMap<Span, Body>,
    pub(crate) invalid: Option<InvalidRule>,
    /// Attributes of others that we do not know, and so the reason not to touch the definition.
    pub(crate) extra: Extra,
}

impl Set {
    /// Whether rules add elements while packets pass (flag `dynamic`): such elements are left out of a comparison.
    pub(crate) fn is_filled_by_rules(&self) -> bool {
        self.flags & NFT_SET_EVAL != 0
    }

    /// A set of single values: a hash table in the kernel, about 4 µs to add or remove an element at any size.
    #[must_use]
    pub fn new(name: SetName, key: Datatype) -> Self {
        Self::with(name, key, Maps::Nothing, 0)
    }

    /// A map from keys to verdicts, for [`Rule::vmap`](crate::Rule::vmap).
    #[must_use]
    pub fn verdict_map(name: SetName, key: Datatype) -> Self {
        Self::with(name, key, Maps::Verdict, NFT_SET_MAP)
    }

    /// A map from keys to values.
    #[must_use]
    pub fn map(name: SetName, key: Datatype, value: Datatype) -> Self {
        Self::with(name, key, Maps::Value(value), NFT_SET_MAP)
    }

    /// A map from keys to named counters.
    #[must_use]
    pub fn counter_map(name: SetName, key: Datatype) -> Self {
        Self::with(name, key, Maps::Object(NFT_OBJECT_COUNTER), NFT_SET_OBJECT)
    }

    pub(crate) fn with(name: SetName, key: Datatype, maps: Maps, flags: u32) -> Self {
        Self {
            name,
            key,
            maps,
            flags,
            timeout: None,
            gc_interval: None,
            size: None,
            comment: None,
            elements: BTreeMap::new(),
            invalid: None,
            extra: Extra::default(),
        }
    }

    /// Lets elements be prefixes and ranges: a tree in the kernel, 9 µs (100 elements) to 214 µs (10 000) per change.
    ///
    /// Not for values in host order (marks, indices), which do not sort.
    #[must_use]
    pub fn interval(mut self) -> Self {
        self.flags |= NFT_SET_INTERVAL;
        if self.key.is_host_order() {
            self.wrong(InvalidRule::NoIntervals { datatype: self.key });
        }
        self
    }

    /// Lets elements have a lifetime: `timeout` for those that do not say otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.flags |= NFT_SET_TIMEOUT;
        self.timeout = Some(timeout);
        self
    }

    /// Lets elements have a lifetime of their own; others stay.
    #[must_use]
    pub fn timeouts(mut self) -> Self {
        self.flags |= NFT_SET_TIMEOUT;
        self
    }

    /// Lets rules add elements (`flags dynamic`).
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        self.flags |= NFT_SET_EVAL;
        self
    }

    /// Most elements it may hold. Default: no limit.
    #[must_use]
    pub fn size(mut self, size: u32) -> Self {
        self.size = Some(size);
        self
    }

    /// A remark that `nft list` shows.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.comment = Some(comment);
        self
    }

    /// Adds elements, as [`Set::insert`] does.
    #[must_use]
    pub fn elements<E: Into<Element>>(mut self, elements: impl IntoIterator<Item = E>) -> Self {
        for element in elements {
            self.insert(element);
        }
        self
    }

    /// Adds an element. In an interval set without values, prefixes and ranges that overlap become one.
    ///
    /// An element that does not belong into this set (another type, a prefix with host bits, a range without the
    /// interval flag, an overlap in a map) makes the transaction fail to [`seal`](crate::Transaction::seal).
    pub fn insert(&mut self, element: impl Into<Element>) {
        let Element { key, data_type, body } = element.into();
        match self.check(&key, data_type, &body) {
            Some(invalid) => self.wrong(invalid),
            None if self.is_interval() => self.insert_span(key.span, body),
            None => {
                self.elements.insert(key.span, body);
            }
        }
    }

    fn check(&self, key: &Key, data_type: Option<Datatype>, body: &Body) -> Option<InvalidRule> {
        if key.invalid.is_some() {
            return key.invalid.clone();
        }
        if key.datatype != self.key {
            return Some(InvalidRule::WrongType {
                object: key.to_string(),
                want: self.key.name(),
                have: key.datatype.name(),
            });
        }
        if matches!(key.span, Span::Range(..)) && !self.is_interval() {
            return Some(InvalidRule::NotInterval { element: key.to_string() });
        }
        let fits = match (&self.maps, &body.mapped) {
            (Maps::Nothing, None)
            | (Maps::Verdict, Some(Mapped::Verdict(_)))
            | (Maps::Object(_), Some(Mapped::Object(_))) => true,
            (Maps::Value(want), Some(Mapped::Value(_))) => data_type == Some(*want),
            _ => false,
        };
        if !fits {
            return Some(InvalidRule::WrongValue { element: key.to_string() });
        }
        if (body.timeout.is_some()) && self.flags & NFT_SET_TIMEOUT == 0 {
            return Some(InvalidRule::NoTimeouts { element: key.to_string() });
        }
        None
    }

    fn insert_span(&mut self, span: Span, body: Body) {
        let (Some(first), Some(last)) = (span.first().cloned(), span.last().cloned()) else {
            self.elements.insert(span, body);
            return;
        };
        let below = Span::Range(last.clone(), Data::highest(last.len()));
        let neighbours = self.elements.range(..=below).rev().map(|(span, _)| span);
        let overlaps: Vec<Span> =
            neighbours.take_while(|span| span.overlaps(&first, &last)).cloned().collect();
        let same = overlaps.len() == 1 && overlaps.first() == Some(&span);
        if !overlaps.is_empty() && !same && self.maps != Maps::Nothing {
            let element = Key { datatype: self.key, span, invalid: None }.to_string();
            self.wrong(InvalidRule::Overlap { element });
            return;
        }
        let (mut low, mut high) = (first, last);
        for overlap in overlaps {
            if let (Some(first), Some(last)) = (overlap.first(), overlap.last()) {
                low = low.min(first.clone());
                high = high.max(last.clone());
            }
            self.elements.remove(&overlap);
        }
        self.elements.insert(Span::between(low, high), body);
    }

    fn wrong(&mut self, invalid: InvalidRule) {
        self.invalid.get_or_insert(invalid);
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &SetName {
        &self.name
    }

    /// What its keys are.
    #[must_use]
    pub fn key_type(&self) -> Datatype {
        self.key
    }

    /// Its elements' keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.elements.keys().map(|span| Key { datatype: self.key, span: span.clone(), invalid: None })
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The set without its elements.
    pub(crate) fn definition(&self) -> Self {
        Self {
            name: self.name.clone(),
            comment: self.comment.clone(),
            elements: BTreeMap::new(),
            invalid: None,
            extra: self.extra.clone(),
            ..*self
        }
    }

    pub(crate) fn is_interval(&self) -> bool {
        self.flags & NFT_SET_INTERVAL != 0
    }

    /// Whether the kernel's count of its elements is that of a listing: it counts ranges otherwise, and what has expired too.
    pub(crate) fn has_steady_count(&self) -> bool {
        self.flags & (NFT_SET_INTERVAL | NFT_SET_TIMEOUT | NFT_SET_EVAL) == 0
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.flags & NFT_SET_ANONYMOUS != 0
    }

    /// Whether both are the same but for their elements. What differs otherwise cannot be changed in place.
    pub(crate) fn same_definition(&self, other: &Self) -> bool {
        (self.key, self.maps, self.flags, self.timeout, self.gc_interval, self.size, &self.comment)
            == (
                other.key,
                other.maps,
                other.flags,
                other.timeout,
                other.gc_interval,
                other.size,
                &other.comment,
            )
            && self.extra == other.extra
    }
}
