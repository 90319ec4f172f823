//! Expressions, and the values that they are compared with.

use std::fmt::{self, Formatter, Write as _};

use crate::bytecode::registers::run;
use crate::display::field::{write_field, write_offset};
use crate::display::{NftVersion, element_rest};
use crate::model::data::Data;
use crate::model::datatype::{Datatype, Format};
use crate::model::element::{Body, Span};
use crate::model::expression::Term;
use crate::model::exthdr::tcp_option;
use crate::model::field::{Field, Kind};
use crate::model::format::{write_bits, write_labels, write_name};
use crate::model::header;
use crate::model::matching::{Match, Source, Test};
use crate::model::set::Set;
use crate::model::symbols::MPTCP_SUBTYPES;
use crate::uapi::*;

impl fmt::Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        condition(self, f)
    }
}

impl fmt::Display for crate::model::expression::Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        term(&self.0, f)
    }
}

pub(super) fn condition(condition: &Match, f: &mut Formatter<'_>) -> fmt::Result {
    let part = if NftVersion::of(f) == NftVersion::V1_1 { match_of_part(condition) } else { None };
    let Match { left, test, inverted, .. } = part.as_ref().unwrap_or(condition);
    let datatype = left.datatype();
    term(left, f)?;
    f.write_char(' ')?;
    let names = match datatype.format() {
        Some(Format::Bits(names)) => Some(names),
        _ => None,
    };
    let is_bits = names.is_some() || matches!(datatype.format(), Some(Format::Labels));
    let version = NftVersion::of(f);
    let not_equal = if *inverted { "!= " } else { "" };
    let equal = if *inverted { "!= " } else { "== " };
    let is_computed = matches!(left, Term::Bitwise { .. });
    // Several bits that must all be set, and no others.
    let exactly = |wanted: &Data, f: &mut Formatter<'_>| match datatype.number_of(wanted) {
        Some(bits) if bits.count_ones() > 1 && datatype != Datatype::TcpFlag => {
            f.write_str(not_equal)?;
            element_value(left, wanted, f)
        }
        Some(bits) if bits.count_ones() != 1 => write!(f, "{equal}0x{bits:x}"),
        _ => {
            f.write_str(equal)?;
            value(left, wanted, f)
        }
    };
    match test {
        Test::AnyBit(bits) => {
            f.write_str(if *inverted { "! " } else { "" })?;
            value(left, bits, f)
        }
        Test::Masked { mask, value: wanted } if is_bits => {
            let bits = datatype.number_of(mask).unwrap_or(0).count_ones();
            if datatype == Datatype::TcpFlag && bits == 8 {
                return exactly(wanted, f);
            }
            if version == NftVersion::V1_1 || (mask == wanted && bits == 1) {
                f.write_str(if bits > 1 { "& (" } else { "& " })?;
                element_value(left, mask, f)?;
                write!(f, "{} {equal}", if bits > 1 { ")" } else { "" })?;
                return element_value(left, wanted, f);
            }
            f.write_str(not_equal)?;
            value(left, wanted, f)?;
            f.write_str(" / ")?;
            value(left, mask, f)
        }
        Test::Masked { mask, value: wanted } => {
            let is_prefix = match datatype {
                Datatype::Mark => version == NftVersion::V1_0,
                datatype => matches!(datatype, Datatype::Ipv4Addr | Datatype::Ipv6Addr),
            };
            if is_prefix && let Some(length) = datatype.swapped(mask).prefix_length() {
                f.write_str(not_equal)?;
                value(left, wanted, f)?;
                return write!(f, "/{length}");
            }
            f.write_str("& ")?;
            value(left, mask, f)?;
            write!(f, " {equal}")?;
            value(left, wanted, f)
        }
        Test::Is(wanted) if names.is_some() => exactly(wanted, f),
        Test::Is(wanted) => {
            f.write_str(if is_computed { equal } else { not_equal })?;
            value(left, wanted, f)
        }
        Test::Compare(op, wanted) => {
            f.write_str(match *op {
                NFT_CMP_LT => "< ",
                NFT_CMP_GT => "> ",
                NFT_CMP_LTE => "<= ",
                _ => ">= ",
            })?;
            value(left, wanted, f)
        }
        Test::In(sets) => {
            f.write_str(if is_computed { equal } else { not_equal })?;
            source(sets, left, f)
        }
        Test::NamePrefix(prefix) => write!(f, "{not_equal}\"{prefix}*\""),
        Test::Prefix(address, length) => {
            f.write_str(not_equal)?;
            value(left, address, f)?;
            write!(f, "/{length}")
        }
        // The hours outside of a range are a range over midnight.
        Test::Range(first, last)
            if *inverted && datatype == Datatype::Hour && version == NftVersion::V1_1 =>
        {
            limit(left, last, f)?;
            f.write_char('-')?;
            limit(left, first, f)
        }
        Test::Range(first, last) | Test::Within(first, last) => {
            f.write_str(not_equal)?;
            limit(left, first, f)?;
            f.write_char('-')?;
            limit(left, last, f)
        }
    }
}

/// Some bits of a raw field, which nft 1.1 prints as a field of their own, and how far they are shifted.
fn part_of(field: Field, mask: &Data) -> Option<(Field, u32)> {
    let Kind::Raw { base, offset, length } = field.0 else { return None };
    let (start, bits) = run(mask).filter(|(start, _)| *start > 0)?;
    Some((Field(Kind::Raw { base, offset: offset + start, length: bits }), length - start - bits))
}

/// A number whose bits under a mask are compared with or written to that part of a field.
fn part_data(part: Field, shift: u32, data: &Data) -> Option<Data> {
    let plain = Datatype::Integer { length: 0, host: false };
    Some(Term::Field(part).number(plain.number_of(data)? >> shift))
}

/// The match of some bits of a raw field, as one of that part.
fn match_of_part(condition: &Match) -> Option<Match> {
    let (field, mask, data) = match (&condition.left, &condition.test) {
        (Term::Field(field), Test::Masked { mask, value }) => (*field, mask, value),
        (Term::Bitwise { of, mask, xor }, Test::Compare(_, value)) if xor.is_zero() => {
            (of.field()?, mask, value)
        }
        _ => return None,
    };
    let (part, shift) = part_of(field, mask)?;
    let data = part_data(part, shift, data)?;
    let test =
        if let Test::Compare(op, _) = condition.test { Test::Compare(op, data) } else { Test::Is(data) };
    Some(Match { inverted: condition.inverted, ..Match::new(part, test) })
}

/// One end of a range.
fn limit(left: &Term, data: &Data, f: &mut Formatter<'_>) -> fmt::Result {
    match left.field() {
        Some(field) if !is_hex(field, f) => field.datatype().write_end(&field.unshifted(data), f),
        _ => value(left, data, f),
    }
}

/// Whether nft prints values of the field otherwise than other values of its type.
pub(crate) fn is_special(field: Field) -> bool {
    matches!(field.0, Kind::Raw { .. }) || field == header::comp::FLAGS || is_fib_present(field)
}

/// Whether numbers of the field are hexadecimal.
fn is_hex(field: Field, f: &Formatter<'_>) -> bool {
    is_special(field) || (field == header::ip::FRAG_OFF && NftVersion::of(f) == NftVersion::V1_1)
}

pub(crate) fn is_fib_present(field: Field) -> bool {
    matches!(field.0, Kind::Fib { flags, .. } if flags & NFTA_FIB_F_PRESENT != 0)
}

/// Data that a term is compared with.
pub(super) fn value(left: &Term, data: &Data, f: &mut Formatter<'_>) -> fmt::Result {
    match left {
        Term::Concat(parts) => concat(parts, data, value, f),
        Term::Field(field) => match field.datatype().number_of(data) {
            Some(number) if is_fib_present(*field) => {
                f.write_str(if number == 0 { "missing" } else { "exists" })
            }
            Some(number) if is_hex(*field, f) => {
                write!(f, "0x{:x}", number >> field.narrow().map_or(0, |narrow| narrow.shift))
            }
            Some(number) if *field == tcp_option::MPTCP_SUBTYPE && NftVersion::of(f) == NftVersion::V1_1 => {
                write_name(&MPTCP_SUBTYPES, number >> 4, f)
            }
            _ => field.datatype().write(&field.unshifted(data), f),
        },
        Term::Shifted { of, .. }
            if of.datatype() == Datatype::Mark && NftVersion::of(f) == NftVersion::V1_0 =>
        {
            value(of, data, f)
        }
        // The operands of operations with shifts are numbers.
        Term::Shifted { .. } => match (Datatype::Integer { length: 0, host: true }).number_of(data) {
            Some(number) => write!(f, "0x{number:x}"),
            None => left.datatype().write(data, f),
        },
        Term::Bitwise { of, .. } | Term::Combined { left: of, .. } | Term::Swapped { of, .. } => {
            value(of, data, f)
        }
        other => other.datatype().write(data, f),
    }
}

/// The values of a concatenation, each written by `write`.
fn concat(
    parts: &[Term],
    data: &Data,
    write: impl Fn(&Term, &Data, &mut Formatter<'_>) -> fmt::Result,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let mut rest = data.as_slice();
    for (index, part) in parts.iter().enumerate() {
        f.write_str(if index > 0 { " . " } else { "" })?;
        let (length, padded) = part.datatype().lengths();
        let bytes = Data::new(rest.get(..length).unwrap_or(rest));
        match part.field().filter(|field| field.narrow().is_some()) {
            // In a concatenation, a narrow field is not shifted.
            Some(field) => field.datatype().write(&bytes, f)?,
            None => write(part, &bytes, f)?,
        }
        rest = rest.get(padded..).unwrap_or_default();
    }
    Ok(())
}

/// A set, named or anonymous, in which a term is looked up.
pub(super) fn source(source: &Source, key: &Term, f: &mut Formatter<'_>) -> fmt::Result {
    source_of(source, key, None, f)
}

/// A set whose values have a type that the set's definition does not say.
fn source_of(source: &Source, key: &Term, values: Option<Datatype>, f: &mut Formatter<'_>) -> fmt::Result {
    let inline = match source {
        Source::Named(name) => return write!(f, "@{name}"),
        Source::Inline(inline) => inline,
    };
    f.write_str("{ ")?;
    let mut between = "";
    for (keys, body) in sorted(&inline.set, NftVersion::of(f)) {
        f.write_str(between)?;
        span(&inline.set, key, keys, f)?;
        element_rest(&inline.set, body, values, f)?;
        between = ", ";
    }
    f.write_str(" }")
}

/// The elements in nft's order: by number, of the bytes in the order in which nft 1.0 exports them; part by part in
/// newer versions.
pub(crate) fn sorted(set: &Set, version: NftVersion) -> Vec<(&Span, &Body)> {
    let mut elements: Vec<(&Span, &Body)> = set.elements.iter().collect();
    if set.is_interval() {
        return elements;
    }
    let parts = set.key.parts();
    if version == NftVersion::V1_1 {
        let ordered = |data: &Data| set.key.unsorted(data);
        elements.sort_by_key(|(span, _)| (span.first().is_none(), span.first().map(ordered)));
    } else if parts.len() > 1 || set.key.is_host_order() {
        let exported = |data: &Data| -> Vec<u8> {
            let mut rest = data.as_slice();
            let mut bytes = Vec::new();
            for part in &parts {
                let (length, padded) = part.lengths();
                bytes.extend_from_slice(rest.get(..length).unwrap_or(rest));
                rest = rest.get(padded..).unwrap_or_default();
            }
            bytes.reverse();
            bytes
        };
        elements.sort_by_key(|(span, _)| (span.first().is_none(), span.first().map(exported)));
    }
    elements
}

/// The keys of an element, in a set in which a term is looked up.
fn span(set: &Set, key: &Term, span: &Span, f: &mut Formatter<'_>) -> fmt::Result {
    // The kernel sorts intervals, so their ends are in network byte order.
    let datatype = key.datatype();
    let host = |data: &Data| if set.is_interval() { datatype.unsorted(data) } else { data.clone() };
    match (span, key.field()) {
        (Span::One(data), _) => element_value(key, &host(data), f),
        (Span::CatchAll, _) => f.write_char('*'),
        (Span::Range(first, last), Some(field)) if !is_hex(field, f) => {
            datatype.write_range(&field.unshifted(&host(first)), &field.unshifted(&host(last)), f)
        }
        (Span::Range(first, last), Some(_)) => {
            value(key, &host(first), f)?;
            f.write_char('-')?;
            value(key, &host(last), f)
        }
        (Span::Range(first, last), None) => match key {
            Term::Concat(parts) => concat_range(parts, first, last, true, f),
            _ => datatype.write_range(&host(first), &host(last), f),
        },
    }
}

/// A range of a concatenation: each part is a range, in network byte order if the kernel sorts it.
pub(super) fn concat_range(
    parts: &[Term],
    first: &Data,
    last: &Data,
    is_sorted: bool,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let (mut first, mut last) = (first.as_slice(), last.as_slice());
    for (index, part) in parts.iter().enumerate() {
        f.write_str(if index > 0 { " . " } else { "" })?;
        let datatype = part.datatype();
        let (length, padded) = datatype.lengths();
        let end = |bytes: &[u8]| {
            let data = Data::new(bytes.get(..length).unwrap_or(bytes));
            if is_sorted { datatype.swapped(&data) } else { data }
        };
        match part {
            Term::Field(Field(Kind::Raw { .. })) => {
                value(part, &end(first), f)?;
                if first != last {
                    f.write_char('-')?;
                    value(part, &end(last), f)?;
                }
            }
            _ => datatype.write_range(&end(first), &end(last), f)?,
        }
        (first, last) = (first.get(padded..).unwrap_or_default(), last.get(padded..).unwrap_or_default());
    }
    Ok(())
}

/// In sets and after masks, nft separates bits of flags otherwise than in other matches.
fn element_value(key: &Term, data: &Data, f: &mut Formatter<'_>) -> fmt::Result {
    if let Term::Concat(parts) = key {
        return concat(parts, data, element_value, f);
    }
    match (key.datatype().format(), key.datatype().number_of(data)) {
        (Some(Format::Bits(names)), Some(number)) => write_bits(names, number, " | ", f),
        (Some(Format::Labels), Some(number)) => write_labels(number, " | ", f),
        _ => value(key, data, f),
    }
}

pub(super) fn term(of: &Term, f: &mut Formatter<'_>) -> fmt::Result {
    match of {
        Term::Field(field) => write_field(*field, f),
        Term::Constant(value) => value.datatype.write(&value.data, f),
        Term::Concat(parts) => parts.iter().enumerate().try_for_each(|(index, part)| {
            f.write_str(if index > 0 { " . " } else { "" })?;
            term(part, f)
        }),
        Term::Bitwise { of, mask, xor } => bitwise(of, mask, xor, f),
        Term::Combined { left, op, right, .. } => {
            term(left, f)?;
            write!(f, " {} ", bitwise_sign(*op))?;
            term(right, f)
        }
        Term::Swapped { of, .. } => term(of, f),
        // The bits of a narrow field are a number.
        Term::Shifted { of, op: NFT_BITWISE_RSHIFT, bits, .. }
            if of.unswapped().field().and_then(Field::narrow).is_some_and(|narrow| narrow.shift == *bits) =>
        {
            term(of, f)
        }
        Term::Shifted { of, op, bits, .. } => {
            let is_masked = matches!(**of, Term::Bitwise { .. });
            f.write_str(if is_masked { "(" } else { "" })?;
            term(of, f)?;
            f.write_str(if is_masked { ")" } else { "" })?;
            write!(f, " {} {bits}", if *op == NFT_BITWISE_LSHIFT { "<<" } else { ">>" })
        }
        Term::Jhash { of, modulus, seed, offset } => {
            f.write_str("jhash ")?;
            term(of, f)?;
            write!(f, " mod {modulus}")?;
            seed.iter().try_for_each(|seed| write!(f, " seed 0x{seed:x}"))?;
            write_offset(*offset, f)
        }
        Term::Map { key, source: map } => {
            term(key, f)?;
            f.write_str(" map ")?;
            source(map, key, f)
        }
    }
}

/// nft's sign of an operation on two values.
pub(crate) fn bitwise_sign(op: u32) -> &'static str {
    match op {
        NFT_BITWISE_AND => "&",
        NFT_BITWISE_OR => "|",
        _ => "^",
    }
}

/// `(of & mask) ^ xor`, as the operations `&`, `^` and `|` that have the same result.
fn bitwise(of: &Term, mask: &Data, xor: &Data, f: &mut Formatter<'_>) -> fmt::Result {
    term(of, f)?;
    let pairs = || mask.as_slice().iter().zip(xor.as_slice());
    let or: Vec<u8> = pairs().map(|(mask, xor)| !mask & xor).collect();
    let and: Vec<u8> = pairs().map(|(mask, xor)| mask | (!mask & xor)).collect();
    let xor: Vec<u8> = pairs().map(|(mask, xor)| mask & xor).collect();
    let operations = [("&", and, 0xff), ("^", xor, 0), ("|", or, 0)];
    for (sign, operand, neutral) in operations {
        if operand.iter().any(|byte| *byte != neutral) {
            let operand = Data::new(&operand);
            let flags = matches!(of.datatype().format(), Some(Format::Bits(_)));
            let several =
                flags && of.datatype().number_of(&operand).is_some_and(|bits| bits.count_ones() > 1);
            write!(f, " {sign} {}", if several { "(" } else { "" })?;
            element_value(of, &operand, f)?;
            f.write_str(if several { ")" } else { "" })?;
        }
    }
    Ok(())
}

/// The field of a set statement and its value.
pub(super) fn write_set(field: Field, to: &Term, f: &mut Formatter<'_>) -> fmt::Result {
    if NftVersion::of(f) == NftVersion::V1_1
        && let Term::Bitwise { of, mask, xor } = to
        && of.field() == Some(field)
        && *xor != mask.inverted()
        && let Some((part, shift)) = part_of(field, &mask.inverted())
        && let Some(data) = part_data(part, shift, xor)
    {
        write_field(part, f)?;
        f.write_str(" set ")?;
        return value(&Term::Field(part), &data, f);
    }
    write_field(field, f)?;
    f.write_str(" set ")?;
    match to {
        Term::Constant(constant) if matches!(field.0, Kind::Raw { .. }) => {
            value(&Term::Field(field), &constant.data, f)
        }
        Term::Map { key, source } => {
            term(key, f)?;
            f.write_str(" map ")?;
            source_of(source, key, Some(field.datatype()), f)
        }
        other => term(other, f),
    }
}
