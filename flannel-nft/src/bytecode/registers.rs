//! What the registers hold while a rule is delinearized.

use crate::bytecode::context::Context;
use crate::bytecode::expr::{Expr, Nonzero, word};
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::expression::Term;
use crate::model::exthdr;
use crate::model::field::Inner;
use crate::model::field::{Field, Kind};
use crate::model::header;
use crate::model::tunnel::Tunnel;
use crate::model::value::Value;
use crate::uapi::*;

/// A value in registers, from one 32-bit word on.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) term: Term,
    words: usize,
    /// `NFT_BYTEORDER_*`, if it was converted.
    swapped: Option<u32>,
    /// Whether a narrow field was shifted to the right.
    is_shifted: bool,
}

impl Slot {
    fn new(term: Term, bytes: usize) -> Self {
        Self { term, words: bytes.div_ceil(4).max(1), swapped: None, is_shifted: false }
    }

    /// Compared data in the byte order of the field.
    pub(crate) fn data(&self, data: &Data) -> Data {
        if self.swapped.is_some() { self.term.datatype().swapped(data) } else { data.clone() }
    }

    /// The term with its conversions.
    pub(crate) fn value(&self) -> Option<Term> {
        let mut term = self.term.clone();
        if self.is_shifted {
            let narrow = self.term.field()?.narrow()?;
            let (length, bits) = (narrow.bytes, narrow.shift);
            term = Term::Shifted { of: Box::new(term), op: NFT_BITWISE_RSHIFT, length, bits };
        }
        Some(self.convert(term))
    }

    fn convert(&self, term: Term) -> Term {
        match self.swapped {
            Some(op) => Term::Swapped { of: Box::new(term), op },
            None => term,
        }
    }

    /// The term as part of a concatenation, in which narrow fields are shifted.
    fn as_part(&self) -> Option<Term> {
        let shift = self.term.field().and_then(Field::narrow).map_or(0, |narrow| narrow.shift);
        (self.is_shifted == (shift > 0)).then(|| self.convert(self.term.clone()))
    }
}

/// By 32-bit word, up to the last that is used: most rules use one register.
#[derive(Debug, Default)]
pub(crate) struct Registers(Vec<Option<Slot>>);

/// Words of the registers, and of the register after them: a value may be too long.
const WORDS: usize = 20;

impl Registers {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn at(&self, register: u32) -> Option<&Slot> {
        self.0.get(word(register)?)?.as_ref()
    }

    pub(crate) fn put(&mut self, register: u32, term: Term, bytes: usize) -> Option<()> {
        let word = word(register).filter(|word| *word < WORDS)?;
        self.0.resize_with(self.0.len().max(word + 1), || None);
        *self.0.get_mut(word)? = Some(Slot::new(term, bytes));
        Some(())
    }

    /// All values from this register on, as one term; none from the register `end` on.
    pub(crate) fn joined(&self, register: u32, end: Option<u32>) -> Option<Term> {
        let mut at = word(register)?;
        let end = match end {
            Some(end) => word(end)?,
            None => self.0.len(),
        };
        let mut slots = Vec::new();
        while at < end
            && let Some(Some(slot)) = self.0.get(at)
        {
            slots.push(slot);
            at += slot.words;
        }
        match slots.as_slice() {
            [] => None,
            [slot] => slot.value(),
            slots => slots.iter().map(|slot| slot.as_part()).collect::<Option<_>>().map(Term::Concat),
        }
    }

    /// Replaces all values from `sreg` on by the result of an expression.
    pub(crate) fn replace(&mut self, sreg: u32, dreg: u32, term: Term, bytes: usize) -> Option<()> {
        self.0.truncate(word(sreg)?);
        self.put(dreg, term, bytes)
    }

    /// Follows an expression that writes a register; `None` if it does not, or if its result has no
    /// term.
    pub(crate) fn follow(&mut self, expr: &Expr, context: &Context) -> Option<()> {
        let loaded = |field: Field| (Term::Field(field), usize::try_from(field.loaded()).unwrap_or(0));
        let known = |kind: Kind| loaded(Field(kind));
        let (dreg, (term, bytes)) = match expr {
            Expr::Payload { base, offset, length, dreg } => {
                let (offset, length) = in_bits(*offset, *length)?;
                let field = context.field_at(*base, offset, length);
                let field = field.unwrap_or(Field(Kind::Raw { base: *base, offset, length }));
                (dreg, (Term::Field(field), usize::try_from(length / 8).ok()?))
            }
            Expr::ExthdrLoad { dreg, kind, offset, length, op, flags } => {
                let (offset, length) = in_bits(*offset, *length)?;
                let length = match *flags {
                    Nonzero(NFT_EXTHDR_F_PRESENT) => None,
                    Nonzero(0) => Some(length),
                    _ => return None,
                };
                let field = exthdr::find(op.0, *kind, offset, length);
                let field = field.or_else(|| exthdr::unnamed(op.0, *kind, offset, length?))?;
                (dreg, (Term::Field(field), usize::try_from(field.bits() / 8).ok()?))
            }
            Expr::Inner { kind, header_size, flags, expr, .. } => {
                let tunnel = Tunnel::from_parameters((*kind, *header_size, *flags))?;
                match &**expr {
                    Expr::MetaLoad { key: key @ (NFT_META_PROTOCOL | NFT_META_L4PROTO), dreg } => {
                        (dreg, known(Kind::Inner { tunnel, inner: Inner::Meta(*key) }))
                    }
                    Expr::Payload { base, offset, length, dreg } => {
                        let (offset, length) = in_bits(*offset, *length)?;
                        let field = context.field_inside(tunnel, *base, offset, length);
                        let field =
                            field.or_else(|| context.unnamed_inside(tunnel, *base, offset, length))?;
                        (dreg, (Term::Field(field), usize::try_from(length / 8).ok()?))
                    }
                    _ => return None,
                }
            }
            Expr::MetaLoad { key, dreg } if crate::model::field::meta(*key).is_some() => {
                (dreg, known(Kind::Meta(*key)))
            }
            Expr::CtLoad { key, dreg, direction } if crate::model::field::ct(*key).is_some() => {
                (dreg, known(Kind::Ct { key: *key, direction: *direction }))
            }
            Expr::Rt { key, dreg } => (dreg, known(Kind::Rt(*key))),
            Expr::Fib { result, flags, dreg } => (dreg, known(Kind::Fib { result: *result, flags: *flags })),
            Expr::Socket { key, dreg, level } => (dreg, known(Kind::Socket { key: *key, level: *level })),
            Expr::Osf { dreg, ttl, flags } => (dreg, known(Kind::Osf { flags: flags.0, ttl: *ttl })),
            Expr::Xfrm { key, direction, number, dreg } => {
                (dreg, known(Kind::Xfrm { key: *key, direction: *direction, number: *number }))
            }
            Expr::Numgen { dreg, modulus, kind, offset } => {
                (dreg, known(Kind::Numgen { kind: *kind, modulus: *modulus, offset: offset.0 }))
            }
            Expr::Symhash { dreg, modulus, offset, kind: NFT_HASH_SYM } => {
                (dreg, known(Kind::Symhash { modulus: *modulus, offset: offset.0 }))
            }
            Expr::Hash { sreg, dreg, modulus, seed, offset, .. } => {
                let of = Box::new(self.joined(*sreg, None)?);
                let hash = Term::Jhash { of, modulus: *modulus, seed: *seed, offset: offset.0 };
                return self.replace(*sreg, *dreg, hash, 4);
            }
            Expr::Immediate { dreg, data } => {
                let length = u32::try_from(data.len()).ok()?;
                let value = Value::new(Datatype::Other { number: 0, length }, data.clone());
                (dreg, (Term::Constant(value), data.len()))
            }
            Expr::Bitwise { sreg, dreg, mask, xor, .. } => {
                (dreg, (self.masked(*sreg, mask, xor, context)?, mask.len()))
            }
            Expr::Combine { sreg, sreg2, dreg, length, op } => {
                let [left, right] = [*sreg, *sreg2].map(|register| self.at(register).and_then(Slot::value));
                let (left, right) = (Box::new(left?), Box::new(right?));
                let combined = Term::Combined { left, op: *op, right, length: *length };
                return self.replace(*sreg, *dreg, combined, usize::try_from(*length).ok()?);
            }
            Expr::Byteorder { sreg, dreg, op, .. } if sreg == dreg => {
                let slot = self.0.get_mut(word(*sreg)?)?.as_mut()?;
                return slot.swapped.replace(*op).is_none().then_some(());
            }
            Expr::Shift { sreg, dreg, op, length, data } if sreg == dreg => {
                let bits = u32::from_ne_bytes(data.as_slice().try_into().ok()?);
                let slot = self.0.get_mut(word(*sreg)?)?.as_mut()?;
                let narrow = slot.term.field().and_then(Field::narrow);
                let is_own = narrow.is_some_and(|narrow| (narrow.shift, narrow.bytes) == (bits, *length));
                if is_own && *op == NFT_BITWISE_RSHIFT && !slot.is_shifted && slot.swapped.is_none() {
                    slot.is_shifted = true;
                    return Some(());
                }
                let of = Box::new(slot.value()?);
                (dreg, (Term::Shifted { of, op: *op, length: *length, bits }, usize::try_from(*length).ok()?))
            }
            _ => return None,
        };
        self.put(*dreg, term, bytes)
    }

    /// A masked value: a narrow field, if the bits are those of one.
    fn masked(&self, sreg: u32, mask: &Data, xor: &Data, context: &Context) -> Option<Term> {
        let term = self.at(sreg)?.value()?;
        if let (Term::Field(field), true) = (&term, xor.is_zero())
            && let Some((offset, length)) = run(mask)
        {
            let offset = field.offset() + offset;
            let narrow = match field.0 {
                Kind::Payload(payload) => context.field_at(payload.header.base(), offset, length),
                Kind::Inner { tunnel, inner: Inner::Payload(payload) } => {
                    context.field_inside(tunnel, payload.header.base(), offset, length)
                }
                Kind::Raw { base, .. } => context.field_at(base, offset, length),
                Kind::Exthdr(found) => exthdr::find(found.op, found.kind, offset, Some(length)),
                _ => None,
            };
            let narrow = narrow.filter(|narrow| narrow.narrow().is_some_and(|narrow| narrow.mask == *mask));
            if let Some(narrow) = narrow {
                return Some(Term::Field(narrow));
            }
        }
        Some(Term::Bitwise { of: Box::new(term), mask: mask.clone(), xor: xor.clone() })
    }
}

/// Offset and length in bits, of a part of a header that fits into a register.
pub(crate) fn in_bits(offset: u32, length: u32) -> Option<(u32, u32)> {
    (offset <= u16::MAX.into() && (1..=16).contains(&length)).then(|| (offset * 8, length * 8))
}

/// Position and length of the ones of a mask, in bits, if they are contiguous.
pub(crate) fn run(mask: &Data) -> Option<(u32, u32)> {
    let number = Datatype::Integer { length: 0, host: false }.number_of(mask)?;
    let bits = u32::try_from(mask.len() * 8).ok()?;
    let (low, ones) = (number.trailing_zeros(), number.count_ones());
    let contiguous = number != 0 && number >> low == u128::MAX >> (128 - ones);
    contiguous.then(|| (bits - low - ones, ones))
}

/// The fields of a header that adjoin each other from `offset` on and end at `end`, in bits.
pub(crate) fn adjacent(header: header::Header, offset: u32, end: u32) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut at = offset;
    while at < end {
        let field = header::fields_of(header)
            .iter()
            .copied()
            .find(|field| field.offset() == at && field.narrow().is_none() && at + field.bits() <= end)?;
        at += field.bits();
        fields.push(field);
    }
    (fields.len() > 1).then_some(fields)
}
