//! Sets and maps: lookups of many values by one rule.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Element, Key, Mapped, Span, same_time};
use crate::model::ids::Handle;
use crate::model::name::{Comment, SetName};
use crate::model::opaque::Extra;
use crate::uapi::*;

/// What the elements of a set map to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Maps {
    Nothing,
    Value(Datatype),
    Verdict,
    Object(u32),
}

impl Maps {
    /// The name under which an anonymous set is sent; the kernel replaces `%d` with a number.
    pub(crate) fn anonymous_name(self) -> SetName {
        SetName::observed(if self == Self::Nothing { "__set%d" } else { "__map%d" })
    }
}

/// A named set or map.
///
/// If only elements differ, [`diff`](crate::diff) adds and removes these; it never refills a set.
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
    /// Whether the kernel prefers little memory to fast lookups (`policy memory`).
    pub(crate) memory: bool,
    /// Whether nft merges adjacent ranges that it adds.
    pub(crate) auto_merge: bool,
    pub(crate) comment: Option<Comment>,
    pub(crate) handle: Option<Handle>,
    pub(crate) elements: BTreeMap<Span, Body>,
    pub(crate) invalid: Option<InvalidRule>,
    /// Unknown attributes of another program's set. If there are any, the definition is not
    /// changed.
    pub(crate) extra: Extra,
}

/// Where an element is in its set.
pub(crate) struct Placed {
    pub(crate) span: Span,
    /// The elements that it replaced.
    pub(crate) displaced: Vec<(Span, Body)>,
}

impl Set {
    /// Whether rules add elements while packets pass (flag `dynamic`). Such elements are not
    /// compared.
    pub(crate) fn is_filled_by_rules(&self) -> bool {
        self.flags & NFT_SET_EVAL != 0
    }

    /// A set of single values. The kernel uses a hash table: 4 µs to add or remove an element, at
    /// any size.
    #[must_use]
    pub fn new(name: SetName, key: Datatype) -> Self {
        Self::with(name, key, Maps::Nothing, 0)
    }

    /// A map from keys to verdicts, for [`Rule::vmap`](crate::Rule::vmap).
    #[must_use]
    pub fn verdict_map(name: SetName, key: Datatype) -> Self {
        Self::with(name, key, Maps::Verdict, NFT_SET_MAP)
    }

    /// A map from keys to values, e.g. addresses to marks.
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
            memory: false,
            auto_merge: false,
            comment: None,
            handle: None,
            elements: BTreeMap::new(),
            invalid: None,
            extra: Extra::default(),
        }
    }

    /// Allows prefixes and ranges (`flags interval`). The kernel uses a tree: 9 µs (100 elements)
    /// to 214 µs (10,000) per change.
    ///
    /// Invalid for numbers in host byte order (marks, indexes), which the kernel cannot sort.
    #[must_use]
    pub fn interval(mut self) -> Self {
        self.flags |= NFT_SET_INTERVAL;
        if self.key.parts().len() > 1 {
            self.flags |= NFT_SET_CONCAT;
        }
        if self.key.is_swapped() {
            self.wrong(InvalidRule::NoIntervals { datatype: self.key });
        }
        self
    }

    /// Allows timeouts, with this default for elements that have none of their own.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.flags |= NFT_SET_TIMEOUT;
        self.timeout = Some(timeout);
        self
    }

    /// Allows timeouts of single elements. Elements without one do not expire.
    #[must_use]
    pub fn timeouts(mut self) -> Self {
        self.flags |= NFT_SET_TIMEOUT;
        self
    }

    /// Allows rules to add elements (`flags dynamic`).
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        self.flags |= NFT_SET_EVAL;
        self
    }

    /// Sets the maximum number of elements. Default: unlimited.
    #[must_use]
    pub fn size(mut self, size: u32) -> Self {
        self.size = Some(size);
        self
    }

    /// Makes the kernel choose the set's data structure for little memory instead of fast lookups
    /// (`policy memory`).
    #[must_use]
    pub fn memory(mut self) -> Self {
        self.memory = true;
        self
    }

    /// Makes `nft add element` merge ranges with those that they touch (`auto-merge`). It changes
    /// nothing for this crate, whose sets always merge overlapping ranges.
    #[must_use]
    pub fn auto_merge(mut self) -> Self {
        self.auto_merge = true;
        self
    }

    /// Sets a comment, which `nft list` shows.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.extra.remove(NFTA_SET_USERDATA);
        self.comment = Some(comment);
        self
    }

    /// Adds elements like [`Set::insert`].
    #[must_use]
    pub fn elements<E: Into<Element>>(mut self, elements: impl IntoIterator<Item = E>) -> Self {
        for element in elements {
            self.insert(element);
        }
        self
    }

    /// Adds an element. In a set with the interval flag, overlapping prefixes and ranges are
    /// merged; in a map they are invalid.
    ///
    /// An invalid element (second value for a key, wrong type, prefix with host bits, range without the interval flag,
    /// overlap in a map) is reported when the transaction is [sealed](crate::Transaction::seal).
    pub fn insert(&mut self, element: impl Into<Element>) {
        let element = element.into();
        let same_key = self.elements.get(&element.key.span);
        if same_key.is_some_and(|same_key| same_key.mapped != element.body.mapped) {
            self.wrong(InvalidRule::Duplicate { element: element.key.to_string() });
        } else if let Err(invalid) = self.put(element) {
            self.wrong(invalid);
        }
    }

    pub(crate) fn put(&mut self, element: Element) -> Result<Placed, InvalidRule> {
        let Element { key, data_type, body } = element;
        if let Some(invalid) = self.check(&key, data_type, &body) {
            return Err(invalid);
        }
        if self.is_interval() && !self.is_concatenated() {
            return self.put_span(key.span, body);
        }
        let displaced = self.elements.insert(key.span.clone(), body);
        let displaced = displaced.map(|body| (key.span.clone(), body)).into_iter().collect();
        Ok(Placed { span: key.span, displaced })
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
        if body.timeout.is_some() && !self.has_timeouts() {
            return Some(InvalidRule::NoTimeouts { element: key.to_string() });
        }
        None
    }

    fn put_span(&mut self, span: Span, body: Body) -> Result<Placed, InvalidRule> {
        let (Some(first), Some(last)) = (span.first().cloned(), span.last().cloned()) else {
            let displaced = self.elements.insert(span.clone(), body).map(|body| (span.clone(), body));
            return Ok(Placed { span, displaced: displaced.into_iter().collect() });
        };
        let below = Span::Range(last.clone(), Data::highest(last.len()));
        let neighbours = self.elements.range(..=below).rev().map(|(span, _)| span);
        let overlaps: Vec<Span> =
            neighbours.take_while(|span| span.overlaps(&first, &last)).cloned().collect();
        let same = overlaps.len() == 1 && overlaps.first() == Some(&span);
        if let Some(other) = overlaps.first()
            && !same
            && self.maps != Maps::Nothing
        {
            let text =
                |span: &Span| Key { datatype: self.key, span: span.clone(), invalid: None }.to_string();
            return Err(InvalidRule::Overlap { element: text(&span), other: text(other) });
        }
        let (mut low, mut high) = (first, last);
        let mut displaced = Vec::new();
        for overlap in overlaps {
            if let (Some(first), Some(last)) = (overlap.first(), overlap.last()) {
                low = low.min(first.clone());
                high = high.max(last.clone());
            }
            displaced.extend(self.elements.remove(&overlap).map(|body| (overlap, body)));
        }
        let span = Span::between(low, high);
        self.elements.insert(span.clone(), body);
        Ok(Placed { span, displaced })
    }

    fn wrong(&mut self, invalid: InvalidRule) {
        self.invalid.get_or_insert(invalid);
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &SetName {
        &self.name
    }

    /// The kernel's number of an observed set; `None` for a new set.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.handle
    }

    /// The comment.
    #[must_use]
    pub fn remark(&self) -> Option<&Comment> {
        self.comment.as_ref()
    }

    /// The type of the keys.
    #[must_use]
    pub fn key_type(&self) -> Datatype {
        self.key
    }

    /// The keys of the elements, in order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.elements.keys().map(|span| Key { datatype: self.key, span: span.clone(), invalid: None })
    }

    /// The elements, in order of their keys.
    pub fn list(&self) -> impl Iterator<Item = Element> + '_ {
        let data_type = if let Maps::Value(datatype) = self.maps { Some(datatype) } else { None };
        self.elements.iter().map(move |(span, body)| Element {
            key: Key { datatype: self.key, span: span.clone(), invalid: None },
            data_type,
            body: body.clone(),
        })
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether the set has no elements.
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

    pub(crate) fn has_timeouts(&self) -> bool {
        self.flags & NFT_SET_TIMEOUT != 0
    }

    /// Whether an element of the set overlaps these keys.
    pub(crate) fn overlaps(&self, span: &Span) -> bool {
        let (Some(first), Some(last)) = (span.first(), span.last()) else { return false };
        let below = Span::Range(last.clone(), Data::highest(last.len()));
        self.elements.range(..=below).next_back().is_some_and(|(span, _)| span.overlaps(first, last))
    }

    pub(crate) fn is_interval(&self) -> bool {
        self.flags & NFT_SET_INTERVAL != 0
    }

    /// Whether `NFTA_SET_COUNT` is the number of listed elements. The kernel counts range ends and
    /// expired elements too.
    pub(crate) fn has_steady_count(&self) -> bool {
        self.flags & (NFT_SET_INTERVAL | NFT_SET_TIMEOUT | NFT_SET_EVAL) == 0
    }

    /// Whether keys are concatenations of which each part may be a range: an element then has both
    /// keys, instead of one element for each end.
    pub(crate) fn is_concatenated(&self) -> bool {
        self.flags & NFT_SET_CONCAT != 0 || self.extra.has(NFTA_SET_DESC)
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.flags & NFT_SET_ANONYMOUS != 0
    }

    /// Whether both sets are equal except for their elements. The kernel cannot change anything
    /// else of an existing set.
    pub(crate) fn same_definition(&self, other: &Self) -> bool {
        (self.key, self.maps, self.flags, self.size, self.memory, self.auto_merge, &self.comment)
            == (
                other.key,
                other.maps,
                other.flags,
                other.size,
                other.memory,
                other.auto_merge,
                &other.comment,
            )
            && same_time(self.timeout, other.timeout)
            && same_time(self.gc_interval, other.gc_interval)
            && self.extra.same(&other.extra, NFTA_SET_COUNT)
    }
}
