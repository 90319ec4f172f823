//! Expressions: a field, or what is computed from fields. A match compares one, a map looks one
//! up, and a statement sets a field to one.

use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Key, Mapped, Span};
use crate::model::field::{Field, Kind};
use crate::model::matching::{Match, Source, Test};
use crate::model::name::SetName;
use crate::model::set::Maps;
use crate::model::value::Value;
use crate::uapi::*;

/// A field, or what is computed from fields: a concatenation, a masked field, a hash, the value of
/// a map.
///
/// ```
/// use flannel_nft::{Expression, Rule, SetName, field};
///
/// let backends = SetName::new("backends")?;
/// let rule = Rule::new().set(field::meta::MARK, field::symhash(16, 0));
/// assert_eq!(rule.to_string(), "meta mark set symhash mod 16");
/// let pair = Expression::concat([field::ip::DADDR, field::tcp::DPORT]);
/// assert_eq!(Rule::new().when(pair.in_set(&backends)).to_string(), "ip daddr . tcp dport @backends");
/// # Ok::<(), flannel_nft::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(pub(crate) Term);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    /// `(of & mask) ^ xor`.
    Bitwise {
        of: Box<Self>,
        mask: Data,
        xor: Data,
    },
    /// `NFT_BITWISE_AND`, `_OR` or `_XOR` of two values, over so many bytes.
    Combined {
        left: Box<Self>,
        op: u32,
        right: Box<Self>,
        length: u32,
    },
    Concat(Vec<Self>),
    Constant(Value),
    Field(Field),
    Jhash {
        of: Box<Self>,
        modulus: u32,
        seed: Option<u32>,
        offset: u32,
    },
    /// The value that a map has for a key.
    Map {
        key: Box<Self>,
        source: Source,
    },
    /// Shifted by bits to the left or right: `NFT_BITWISE_LSHIFT` or `NFT_BITWISE_RSHIFT`, over so
    /// many bytes.
    Shifted {
        of: Box<Self>,
        op: u32,
        length: u32,
        bits: u32,
    },
    /// In the other byte order: `NFT_BYTEORDER_*`.
    Swapped {
        of: Box<Self>,
        op: u32,
    },
}

/// The bits of a field that is not made of whole bytes: the bytes to load, their mask, and the
/// position of the lowest bit.
#[derive(Debug)]
pub(crate) struct Narrow {
    pub(crate) first: u32,
    pub(crate) bytes: u32,
    pub(crate) mask: Data,
    pub(crate) shift: u32,
}

impl Field {
    /// `None` for a field of whole bytes.
    pub(crate) fn narrow(self) -> Option<Narrow> {
        let (offset, bits) = (self.offset(), self.bits());
        if offset % 8 == 0 && bits % 8 == 0 {
            return None;
        }
        let (first, end) = (offset / 8, offset + bits);
        let bytes = end.div_ceil(8) - first;
        let shift = bytes * 8 + first * 8 - end;
        let mask = ((1_u128 << bits) - 1) << shift;
        let mask = Datatype::Integer { length: 0, host: false }.data_of(mask, usize::try_from(bytes).ok()?);
        Some(Narrow { first, bytes, mask, shift })
    }

    /// The value of a field whose bits were loaded with those around it.
    pub(crate) fn unshifted(self, data: &Data) -> Data {
        let loaded = Datatype::Integer { length: 0, host: false }.number_of(data);
        match (self.narrow(), loaded) {
            (Some(narrow), Some(number)) => {
                let datatype = self.datatype();
                datatype.data_of(number >> narrow.shift, datatype.lengths().0)
            }
            _ => data.clone(),
        }
    }

    /// Length of a value in a register, in bytes, outside of concatenations.
    pub(crate) fn loaded(self) -> u32 {
        self.narrow().map_or_else(|| self.datatype().length(), |narrow| narrow.bytes)
    }

    pub(crate) fn is_address(self) -> bool {
        matches!(self.0, Kind::Payload(_))
            && matches!(self.datatype(), Datatype::Ipv4Addr | Datatype::Ipv6Addr)
    }
}

impl Term {
    pub(crate) fn field(&self) -> Option<Field> {
        match self {
            Self::Field(field) => Some(*field),
            _ => None,
        }
    }

    /// The same in the byte order in which it was loaded.
    pub(crate) fn unswapped(&self) -> &Self {
        if let Self::Swapped { of, .. } = self { of } else { self }
    }

    pub(crate) fn datatype(&self) -> Datatype {
        match self {
            Self::Field(field) => field.datatype(),
            Self::Constant(value) => value.datatype,
            Self::Concat(parts) => {
                let parts: Vec<Datatype> = parts.iter().map(Self::datatype).collect();
                Datatype::concat(&parts)
            }
            Self::Bitwise { of, .. }
            | Self::Combined { left: of, .. }
            | Self::Shifted { of, .. }
            | Self::Swapped { of, .. } => of.datatype(),
            Self::Jhash { .. } => Datatype::Integer { length: 4, host: true },
            Self::Map { source: Source::Inline(inline), .. } => match inline.set.maps {
                Maps::Value(datatype) => datatype,
                _ => Datatype::Other { number: 0, length: 0 },
            },
            Self::Map { .. } => Datatype::Other { number: 0, length: 0 },
        }
    }

    /// The type of the keys of a set in which it is looked up: a field that is not made of whole bytes
    /// is looked up with the bytes around it.
    pub(crate) fn key_datatype(&self) -> Datatype {
        let datatype = self.datatype();
        match self.field().map(Field::loaded) {
            Some(length) if length != datatype.length() => {
                Datatype::Other { number: datatype.number(), length }
            }
            _ => datatype,
        }
    }

    /// The number of 32-bit words that the value takes in registers.
    pub(crate) fn words(&self) -> u32 {
        match self {
            Self::Field(field) => field.loaded().div_ceil(4),
            Self::Concat(parts) => parts.iter().fold(0, |sum: u32, part| sum.saturating_add(part.words())),
            other => other.datatype().length().div_ceil(4),
        }
    }

    /// Calls `found` for each field that is read, in the order of reading.
    pub(crate) fn each_field(&self, found: &mut impl FnMut(Field)) {
        match self {
            Self::Field(field) => found(*field),
            Self::Concat(parts) => parts.iter().for_each(|part| part.each_field(found)),
            Self::Combined { left, right, .. } => {
                left.each_field(found);
                right.each_field(found);
            }
            Self::Bitwise { of, .. }
            | Self::Jhash { of, .. }
            | Self::Map { key: of, .. }
            | Self::Shifted { of, .. }
            | Self::Swapped { of, .. } => of.each_field(found),

            Self::Constant(_) => {}
        }
    }

    /// Calls `found` for each set that is looked up, with its key, in the order of the lookups.
    pub(crate) fn each_source<'s>(&'s self, found: &mut impl FnMut(&'s Source, &Self)) {
        match self {
            Self::Concat(parts) => parts.iter().for_each(|part| part.each_source(found)),
            Self::Combined { left, right, .. } => {
                left.each_source(found);
                right.each_source(found);
            }
            Self::Bitwise { of, .. }
            | Self::Jhash { of, .. }
            | Self::Shifted { of, .. }
            | Self::Swapped { of, .. } => of.each_source(found),
            Self::Map { key, source } => {
                key.each_source(found);
                found(source, key);
            }
            Self::Field(_) | Self::Constant(_) => {}
        }
    }

    /// A value as the kernel compares it with this term.
    pub(crate) fn number(&self, number: u128) -> Data {
        match self.field() {
            // `nft_fib_store_result` sets the first byte, on each architecture. nft before 1.1 compares all four bytes, newer
            // versions the first one only, and lists both alike.
            Some(Field(Kind::Fib { flags, .. })) if flags & NFTA_FIB_F_PRESENT != 0 => {
                Data::new(&[u8::from(number != 0), 0, 0, 0])
            }
            Some(field) => {
                let shift = field.narrow().map_or(0, |narrow| narrow.shift);
                field.datatype().data_of(number << shift, usize::try_from(field.loaded()).unwrap_or(0))
            }
            None => {
                let datatype = self.datatype();
                datatype.data_of(number, datatype.lengths().0)
            }
        }
    }
}

impl Expression {
    /// Several fields, one after the other: `ip daddr . tcp dport`. For sets and maps.
    #[must_use]
    pub fn concat<E: Into<Self>>(parts: impl IntoIterator<Item = E>) -> Self {
        Self(Term::Concat(parts.into_iter().map(|part| part.into().0).collect()))
    }

    /// The field, if the expression is nothing else.
    #[must_use]
    pub fn field(&self) -> Option<Field> {
        self.0.field()
    }

    /// The value, if the expression is a constant.
    #[must_use]
    pub fn constant(&self) -> Option<&Value> {
        if let Term::Constant(value) = &self.0 { Some(value) } else { None }
    }

    /// The fields that the expression reads, in order: those of a concatenation, the key of a map.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        self.0.each_field(&mut |field| fields.push(field));
        fields
    }

    /// The bits under `mask`, the others become 0: `meta mark & 0xff`.
    #[must_use]
    pub fn and(self, mask: u32) -> Self {
        let (mask, xor) = (self.0.number(mask.into()), self.0.number(0));
        Self(Term::Bitwise { of: Box::new(self.0), mask, xor })
    }

    /// With these bits set: `meta mark | 0x10`.
    #[must_use]
    pub fn or(self, bits: u32) -> Self {
        let (mask, xor) = (self.0.number((!bits).into()), self.0.number(bits.into()));
        Self(Term::Bitwise { of: Box::new(self.0), mask, xor })
    }

    /// With these bits inverted: `meta mark ^ 0x10`.
    #[must_use]
    pub fn xor(self, bits: u32) -> Self {
        let (mask, xor) = (self.0.number(u32::MAX.into()), self.0.number(bits.into()));
        Self(Term::Bitwise { of: Box::new(self.0), mask, xor })
    }

    /// Jenkins' hash of the value, modulo `modulus`, plus `offset`: `jhash ip saddr mod 16`. Without
    /// a seed, the kernel chooses a random one.
    #[must_use]
    pub fn jhash(self, modulus: u32, seed: Option<u32>, offset: u32) -> Self {
        Self(Term::Jhash { of: Box::new(self.0), modulus, seed, offset })
    }

    /// The value that a named map has for this key: `tcp dport map @MAP`.
    #[must_use]
    pub fn map(self, map: &SetName) -> Self {
        Self(Term::Map { key: Box::new(self.0), source: Source::Named(map.clone()) })
    }

    /// The value that an anonymous map has for this key: `tcp dport map { 80 : 10.0.0.1 }`.
    #[must_use]
    pub fn map_inline<K: Into<Key>, V: Into<Value>>(self, values: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut datatype = Datatype::Mark;
        let mut elements = Vec::new();
        for (key, value) in values {
            let value = value.into();
            datatype = value.datatype;
            let key = key.into().of(&self.0, self.0.datatype());
            elements.push((key, Body { mapped: Some(Mapped::Value(value.data)), ..Body::default() }));
        }
        let source = Source::inline_of(&self.0, Maps::Value(datatype), elements);
        Self(Term::Map { key: Box::new(self.0), source })
    }

    /// Equals this value.
    #[must_use]
    pub fn is(self, value: impl Into<Value>) -> Match {
        let value = value.into();
        if let (Datatype::Ifname, Ok(prefix)) = (value.datatype, std::str::from_utf8(value.as_bytes()))
            && prefix.len() < Datatype::Ifname.lengths().0
        {
            return Match::new(self.0, Test::NamePrefix(prefix.into()));
        }
        let is_one = value.datatype.parts().len() == 1 && value.datatype != self.0.datatype();
        let data = match value.datatype.number_of(&value.data) {
            Some(number) if is_one => self.0.number(number),
            _ => value.data,
        };
        Match::new(self.0, Test::Is(data))
    }

    /// Equals this number: `ip ttl 1`.
    #[must_use]
    pub fn is_number(self, number: u32) -> Match {
        let data = self.0.number(number.into());
        Match::new(self.0, Test::Is(data))
    }

    /// Is between these numbers, both included: `ip ttl 1-10`.
    #[must_use]
    pub fn in_range(self, numbers: std::ops::RangeInclusive<u32>) -> Match {
        let number = |number: u32| self.0.number(number.into());
        let test = Test::Range(number(*numbers.start()), number(*numbers.end()));
        Match::new(self.0, test)
    }

    /// Is smaller than this number: `ip ttl < 5`.
    #[must_use]
    pub fn less_than(self, number: u32) -> Match {
        let data = self.0.number(number.into());
        Match::new(self.0, Test::Compare(NFT_CMP_LT, data))
    }

    /// Is greater than this number: `ip length > 1000`.
    #[must_use]
    pub fn greater_than(self, number: u32) -> Match {
        let data = self.0.number(number.into());
        Match::new(self.0, Test::Compare(NFT_CMP_GT, data))
    }

    /// Is one of these numbers: `ip ttl { 1, 2 }`.
    #[must_use]
    pub fn one_of(self, numbers: impl IntoIterator<Item = u32>) -> Match {
        self.any_of(numbers.into_iter().map(Value::number))
    }

    /// Is one of these values, prefixes or ranges: `ip saddr . tcp dport { 10.0.0.0/8 . 22 }`.
    #[must_use]
    pub fn any_of<K: Into<Key>>(self, keys: impl IntoIterator<Item = K>) -> Match {
        let (term, datatype) = (&self.0, self.0.datatype());
        let keys: Vec<Key> = keys.into_iter().map(|key| key.into().of(term, datatype)).collect();
        Match::one_of(self.0, keys)
    }

    /// Is in a named set: `ip saddr . tcp dport @SET`.
    #[must_use]
    pub fn in_set(self, set: &SetName) -> Match {
        Match::named(self.0, set)
    }
}

impl Key {
    /// The same key, with the type of the term that is looked up. A number is converted, as the
    /// kernel holds it.
    fn of(mut self, term: &Term, datatype: Datatype) -> Self {
        let is_narrow = term.field().is_some_and(|field| field.narrow().is_some());
        if self.datatype.parts().len() > 1 || (self.datatype == datatype && !is_narrow) {
            return self;
        }
        let convert = |data: Data| match self.datatype.number_of(&data) {
            Some(number) => term.number(number),
            None => data,
        };
        self.span = match self.span {
            Span::One(data) => Span::One(convert(data)),
            Span::Range(first, last) => Span::Range(convert(first), convert(last)),
            Span::CatchAll => Span::CatchAll,
        };
        self.datatype = datatype;
        self
    }
}

impl From<Field> for Expression {
    fn from(field: Field) -> Self {
        Self(Term::Field(field))
    }
}

impl<V: Into<Value>> From<V> for Expression {
    fn from(value: V) -> Self {
        Self(Term::Constant(value.into()))
    }
}

macro_rules! of_field {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        impl Field { $($(#[$doc])* #[must_use] pub fn $name(self, $($argument: $type),*) -> $result {
            Expression::from(self).$name($($argument),*)
        })* }
    };
}

of_field! {
    /// Equals this value.
    is(value: impl Into<Value>) -> Match;
    /// Equals this number: `ip ttl 1`.
    is_number(number: u32) -> Match;
    /// Is between these numbers, both included: `ip ttl 1-10`.
    in_range(numbers: std::ops::RangeInclusive<u32>) -> Match;
    /// Is smaller than this number: `ip ttl < 5`.
    less_than(number: u32) -> Match;
    /// Is greater than this number: `ip length > 1000`.
    greater_than(number: u32) -> Match;
    /// Is one of these numbers: `ip ttl { 1, 2 }`.
    one_of(numbers: impl IntoIterator<Item = u32>) -> Match;
    /// Is one of these values, prefixes or ranges: see [`Expression::any_of`].
    any_of(keys: impl IntoIterator<Item = impl Into<Key>>) -> Match;
    /// Is in a named set: `ip saddr @SET`.
    in_set(set: &SetName) -> Match;
    /// The bits under `mask`, the others become 0: `meta mark & 0xff`.
    and(mask: u32) -> Expression;
    /// With these bits set: `meta mark | 0x10`.
    or(bits: u32) -> Expression;
    /// With these bits inverted: `meta mark ^ 0x10`.
    xor(bits: u32) -> Expression;
    /// Jenkins' hash: see [`Expression::jhash`].
    jhash(modulus: u32, seed: Option<u32>, offset: u32) -> Expression;
    /// The value that a named map has for this key: `tcp dport map @MAP`.
    map(map: &SetName) -> Expression;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_a_route_exists_is_the_first_byte_on_each_architecture() {
        let flags = NFTA_FIB_F_SADDR | NFTA_FIB_F_PRESENT;
        let exists = Term::Field(Field(Kind::Fib { result: NFT_FIB_RESULT_OIF, flags }));
        assert_eq!(exists.number(1).as_slice(), [1, 0, 0, 0]);
        assert_eq!(exists.number(0).as_slice(), [0; 4]);
    }
}
