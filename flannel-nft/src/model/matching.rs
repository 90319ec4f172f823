//! Matches: a field of the packet, and the value, range or set that it is compared with.

use std::ops::Not;

use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Element, Key, Span};
use crate::model::expression::Term;
use crate::model::field::Field;
use crate::model::name::SetName;
use crate::model::set::{Maps, Set};
use crate::uapi::*;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => NFPROTO_IPV4,
            Self::V6 => NFPROTO_IPV6,
        }
    }

    pub(crate) fn datatype(self) -> Datatype {
        match self {
            Self::V4 => Datatype::Ipv4Addr,
            Self::V6 => Datatype::Ipv6Addr,
        }
    }
}

/// The value or values that a field is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    /// At least one of these bits is set.
    AnyBit(Data),
    /// `NFT_CMP_*` other than equality.
    Compare(u32, Data),
    In(Source),
    Is(Data),
    /// The bits under the mask equal the value.
    Masked {
        mask: Data,
        value: Data,
    },
    /// An interface whose name starts with this prefix.
    NamePrefix(Box<str>),
    Prefix(Data, u8),
    Range(Data, Data),
    /// The same in one expression, as nft 1.1 and newer write it.
    Within(Data, Data),
}

/// The set that a match or a verdict map looks a value up in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    Named(SetName),
    /// An anonymous set, `{ 80, 443 }`, which belongs to the rule.
    Inline(Box<Inline>),
}

/// The contents of an anonymous set.
#[derive(Clone, Debug)]
pub(crate) struct Inline {
    pub(crate) set: Set,
}

impl PartialEq for Inline {
    fn eq(&self, other: &Self) -> bool {
        (self.set.key, self.set.flags) == (other.set.key, other.set.flags)
            && self.set.elements == other.set.elements
    }
}

impl Source {
    /// An anonymous set of values of a term.
    pub(crate) fn inline_of(
        left: &Term,
        maps: Maps,
        elements: impl IntoIterator<Item = (Key, Body)>,
    ) -> Self {
        let elements: Vec<(Key, Body)> = elements.into_iter().collect();
        let interval = elements.iter().any(|(key, _)| matches!(key.span, Span::Range(..)));
        // The kernel sorts intervals.
        let swap = |data: Data| if interval { left.datatype().swapped(&data) } else { data };
        let datatype = left.key_datatype();
        let elements = elements.into_iter().map(|(mut key, body)| {
            if key.datatype == left.datatype() {
                key.datatype = datatype;
            }
            key.span = match key.span {
                Span::One(data) => Span::One(swap(data)),
                Span::Range(first, last) => Span::Range(swap(first), swap(last)),
                Span::CatchAll => Span::CatchAll,
            };
            (key, body)
        });
        Self::inline(datatype, maps, elements)
    }

    pub(crate) fn inline(key: Datatype, maps: Maps, elements: impl IntoIterator<Item = (Key, Body)>) -> Self {
        let elements: Vec<_> = elements.into_iter().collect();
        let interval = elements.iter().any(|(key, _)| matches!(key.span, Span::Range(..)));
        let mut flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT;
        flags |= if interval { NFT_SET_INTERVAL } else { 0 };
        flags |= if interval && key.parts().len() > 1 { NFT_SET_CONCAT } else { 0 };
        flags |= if maps == Maps::Nothing { 0 } else { NFT_SET_MAP };
        let mut set = Set::with(maps.anonymous_name(), key, maps, flags);
        let data_type = if let Maps::Value(datatype) = maps { Some(datatype) } else { None };
        for (key, body) in elements {
            set.insert(Element { key, data_type, body });
        }
        Self::Inline(Box::new(Inline { set }))
    }
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub(crate) left: Term,
    pub(crate) test: Test,
    pub(crate) inverted: bool,
    pub(crate) invalid: Option<InvalidRule>,
}

impl Match {
    pub(crate) fn new(left: impl Into<Term>, test: Test) -> Self {
        Self { left: left.into(), test, inverted: false, invalid: None }
    }

    pub(crate) fn key(left: impl Into<Term>, key: Key) -> Self {
        let test = match key.span {
            Span::One(data) => Test::Is(data),
            Span::Range(first, last) => Test::Range(first, last),
            Span::CatchAll => Test::In(Source::inline(key.datatype, Maps::Nothing, [])),
        };
        Self { left: left.into(), test, inverted: false, invalid: key.invalid }
    }

    pub(crate) fn named(left: impl Into<Term>, set: &SetName) -> Self {
        Self::new(left, Test::In(Source::Named(set.clone())))
    }

    pub(crate) fn one_of(left: impl Into<Term>, keys: impl IntoIterator<Item = Key>) -> Self {
        let mut keys: Vec<Key> = keys.into_iter().collect();
        if keys.len() == 1
            && let Some(key) = keys.pop()
        {
            return Self::key(left, key);
        }
        let invalid = keys.is_empty().then_some(InvalidRule::NothingToMatch);
        let keys = keys.into_iter().map(|key| (key, Body::default()));
        let left = left.into();
        let test = Test::In(Source::inline_of(&left, Maps::Nothing, keys));
        Self { left, test, inverted: false, invalid }
    }
}

impl From<Field> for Term {
    fn from(field: Field) -> Self {
        Self::Field(field)
    }
}

impl Not for Match {
    type Output = Self;

    /// Inverts the match: `ip saddr != 10.0.0.0/8`.
    fn not(mut self) -> Self {
        self.inverted = !self.inverted;
        self
    }
}
