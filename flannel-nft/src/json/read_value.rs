//! Values from JSON.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::display::expression::is_fib_present;
use crate::json::error::{Node, Read, wrong};
use crate::model::data::Data;
use crate::model::datatype::{Datatype, Format as Syntax};
use crate::model::element::Span;
use crate::model::expression::Term;
use crate::model::field::Kind;
use crate::model::protocol::Protocol;
use crate::uapi::{TC_H_ROOT, TC_H_UNSPEC};

/// The longest name of an interface, without the final zero (`IFNAMSIZ`).
const IFNAME_BYTES: usize = 15;

/// A value of this type.
pub(super) fn data(datatype: Datatype, value: &Value) -> Read<'_, Data> {
    let parts = datatype.parts();
    if parts.len() > 1 {
        return concat(&parts, value, data);
    }
    let length = datatype.lengths().0;
    let found = match value {
        Value::Bool(set) => Some(u128::from(*set)),
        Value::Number(_) => Some(scaled(datatype, value.number::<u64>()?.into())),
        Value::String(text) => match self::text(datatype, text) {
            Some(Parsed::Number(number)) => Some(number),
            Some(Parsed::Data(data)) => return Ok(data),
            None => None,
        },
        // Flags: `["syn", "ack"]`, and `{ "|": ["syn", "ack"] }` in sets.
        Value::Array(_) | Value::Object(_) => {
            let flags = value.field("|").unwrap_or(value);
            let is_flags = matches!(datatype.format(), Some(Syntax::Bits(_) | Syntax::Labels));
            let mut all = None;
            for flag in flags.as_array().filter(|_| is_flags).into_iter().flatten() {
                let flag = data(datatype, flag)?;
                all = Some(all.unwrap_or(0) | datatype.number_of(&flag).unwrap_or(0));
            }
            all
        }
        Value::Null => None,
    };
    let fits = |number: &u128| length >= 16 || number >> (length * 8) == 0;
    match found.filter(fits) {
        // A label is the number of a bit, unless it is a list.
        Some(bit) if datatype == Datatype::CtLabel && value.is_u64() => {
            match 1_u128.checked_shl(u32::try_from(bit).unwrap_or(u32::MAX)) {
                Some(label) => Ok(datatype.data_of(label, length)),
                None => wrong(value, "the number of a label, 0-127"),
            }
        }
        Some(number) => Ok(datatype.data_of(number, length)),
        None => wrong(value, format_args!("a value of type {}", datatype.name())),
    }
}

/// The parts of a concatenation, each padded to four bytes.
fn concat<'j>(
    parts: &[Datatype],
    value: &'j Value,
    part_of: impl Fn(Datatype, &'j Value) -> Read<'j, Data>,
) -> Read<'j, Data> {
    let values = concatenated(value, parts.len())?;
    let mut bytes = Vec::new();
    for (part, value) in parts.iter().zip(values) {
        let end = bytes.len() + part.lengths().1;
        bytes.extend(part_of(*part, value)?.as_slice());
        bytes.resize(end, 0);
    }
    Ok(Data::new(&bytes))
}

/// The parts of `{ "concat": [...] }`.
fn concatenated(value: &Value, parts: usize) -> Read<'_, &[Value]> {
    match value.field("concat").and_then(Value::as_array) {
        Some(values) if values.len() == parts => Ok(values),
        _ => wrong(value, format_args!("`concat` with {parts} values")),
    }
}

/// nft prints times in seconds.
fn scaled(datatype: Datatype, number: u128) -> u128 {
    match datatype.format() {
        Some(Syntax::Duration) => number * 1_000,
        Some(Syntax::Date) => number * 1_000_000_000,
        _ => number,
    }
}

enum Parsed {
    Data(Data),
    Number(u128),
}

/// A value as text; `None` if the type has no such value.
fn text(datatype: Datatype, text: &str) -> Option<Parsed> {
    let plain = || {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u128::from_str_radix(digits, 16).ok()?,
            None => text.parse().ok()?,
        };
        Some(Parsed::Number(scaled(datatype, number)))
    };
    let named = |names: &[(&str, u32)]| {
        let named = names.iter().find(|(name, _)| *name == text);
        named.map(|(_, number)| Parsed::Number((*number).into())).or_else(plain)
    };
    match datatype.format()? {
        Syntax::Ipv4 => Some(Parsed::Data(Data::new(&text.parse::<Ipv4Addr>().ok()?.octets()))),
        Syntax::Ipv6 => Some(Parsed::Data(Data::new(&text.parse::<Ipv6Addr>().ok()?.octets()))),
        Syntax::Ether => {
            let bytes: Option<Vec<u8>> =
                text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
            Some(Parsed::Data(Data::new(&bytes.filter(|bytes| bytes.len() == 6)?)))
        }
        Syntax::Text => {
            let (name, _) = unescaped(text);
            let length = datatype.lengths().0;
            let fits = name.len() <= if datatype == Datatype::Ifname { IFNAME_BYTES } else { length };
            let mut bytes = name.into_bytes();
            bytes.resize(length, 0);
            fits.then(|| Parsed::Data(Data::new(&bytes)))
        }
        Syntax::Ifindex if text == "lo" => Some(Parsed::Number(1)),
        Syntax::Protocol => {
            let name = if text == "icmpv6" { "ipv6-icmp" } else { text };
            Protocol::named(name).map(|protocol| Parsed::Number(protocol.number().into())).or_else(plain)
        }
        Syntax::Bits(names)
        | Syntax::Symbols(names)
        | Syntax::SymbolsHex(names, _)
        | Syntax::Quoted(names) => named(names),
        Syntax::Classid => match text.split_once(':') {
            Some((major, minor)) => {
                let part = |text| u16::from_str_radix(text, 16).ok();
                Some(Parsed::Number(u128::from(part(major)?) << 16 | u128::from(part(minor)?)))
            }
            None if text == "root" => Some(Parsed::Number(TC_H_ROOT.into())),
            None if text == "none" => Some(Parsed::Number(TC_H_UNSPEC.into())),
            None => plain(),
        },
        Syntax::Hour => hour(text).map(Parsed::Number),
        Syntax::Date => date(text).map(Parsed::Number),
        Syntax::Labels => {
            let bit = text.parse::<u32>().ok().filter(|bit| *bit < 128)?;
            Some(Parsed::Number(1 << bit))
        }
        Syntax::Decimal | Syntax::Hex(_) | Syntax::Duration | Syntax::Ifindex => plain(),
    }
}

/// Text without the escape of a final `*`, and whether it ends in a `*` that stands for any text.
pub(super) fn unescaped(text: &str) -> (String, bool) {
    match (text.strip_suffix("\\*"), text.strip_suffix('*')) {
        (Some(name), _) => (format!("{name}*"), false),
        (None, Some(prefix)) => (prefix.to_owned(), true),
        (None, None) => (text.to_owned(), false),
    }
}

/// Seconds of a day: `17:00`, `17:00:30`.
fn hour(text: &str) -> Option<u128> {
    let mut seconds = 0;
    let mut parts = text.split(':');
    for (limit, unit) in [(24, 3_600), (60, 60), (60, 1)] {
        let part = match parts.next() {
            Some(part) => part.parse::<u128>().ok().filter(|part| *part < limit)?,
            None if unit == 1 => 0,
            None => return None,
        };
        seconds += part * unit;
    }
    parts.next().is_none().then_some(seconds)
}

/// Nanoseconds since 1970, of a date in UTC: `2024-07-01 12:00:00`. Days are counted in years that
/// start in March, so that a leap day is the last.
fn date(text: &str) -> Option<u128> {
    let (day, time) = text.split_once(' ').unwrap_or((text, "00:00"));
    let mut numbers = day.split('-').map(|number| number.parse::<u128>().ok());
    let (year, month, day) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days.checked_sub(719_468)? * 86_400 + hour(time)?) * 1_000_000_000)
}

/// One value or a range of them: `{ "range": ... }`, `{ "prefix": ... }`, `"eth*"`, `"*"`.
pub(super) fn span<'j>(
    datatype: Datatype,
    value: &'j Value,
    one: &dyn Fn(&'j Value) -> Read<'j, Data>,
) -> Read<'j, Span> {
    if let Some(range) = value.field("range") {
        let [first, last] = range.list()? else { return wrong(range, "two values") };
        let (first, last) = (one(first)?, one(last)?);
        return Ok(Span::between(first, last));
    }
    if let Some(prefix) = value.field("prefix") {
        prefix.allow(&["addr", "len"])?;
        let (address, length) = (one(prefix.need("addr")?)?, prefix.need("len")?);
        let bits: u8 = length.number()?;
        if usize::from(bits) > address.len() * 8 {
            return wrong(length, format_args!("a prefix length of at most {}", address.len() * 8));
        }
        let (first, last) = ends(datatype, &address, bits);
        return Ok(Span::between(first, last));
    }
    match value.as_str() {
        Some("*") => Ok(Span::CatchAll),
        Some(text) if datatype.format() == Some(Syntax::Text) && unescaped(text).1 => {
            let prefix = unescaped(text).0;
            let first = one(value)?;
            let bits = u8::try_from(prefix.len() * 8).unwrap_or(u8::MAX);
            let last = first.last_with_prefix(bits);
            Ok(Span::between(first, last))
        }
        _ => Ok(Span::One(one(value)?)),
    }
}

/// The first and last value with a prefix, in the byte order of the type.
fn ends(datatype: Datatype, address: &Data, bits: u8) -> (Data, Data) {
    let ordered = datatype.swapped(address);
    let mask = Data::mask(bits, ordered.len());
    let masked: Vec<u8> =
        ordered.as_slice().iter().zip(mask.as_slice()).map(|(byte, mask)| byte & mask).collect();
    let first = Data::new(&masked);
    (datatype.swapped(&first), datatype.swapped(&first.last_with_prefix(bits)))
}

/// The key of an element of a named set: each part of a concatenation may be a range.
pub(super) fn key(datatype: Datatype, value: &Value) -> Read<'_, Span> {
    let parts = datatype.parts();
    if parts.len() < 2 {
        return span(datatype, value, &|value| data(datatype, value));
    }
    if value.as_str() == Some("*") {
        return Ok(Span::CatchAll);
    }
    joined(&parts, value, |part, value| span(part, value, &|value| data(part, value)))
}

/// A concatenation of ranges.
fn joined<'j>(
    parts: &[Datatype],
    value: &'j Value,
    part_of: impl Fn(Datatype, &'j Value) -> Read<'j, Span>,
) -> Read<'j, Span> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (part, value) in parts.iter().zip(concatenated(value, parts.len())?) {
        let span = part_of(*part, value)?;
        for (bytes, end) in [(&mut first, span.first()), (&mut last, span.last())] {
            let Some(end) = end else { return wrong(value, "a value or a range") };
            let padded = bytes.len() + part.lengths().1;
            bytes.extend(end.as_slice());
            bytes.resize(padded, 0);
        }
    }
    Ok(Span::between(Data::new(&first), Data::new(&last)))
}

/// A value that a term is compared with.
pub(super) fn compared<'j>(left: &Term, value: &'j Value) -> Read<'j, Data> {
    match left {
        Term::Concat(parts) => {
            let values = concatenated(value, parts.len())?;
            let mut bytes = Vec::new();
            for (part, value) in parts.iter().zip(values) {
                let datatype = part.datatype();
                let end = bytes.len() + datatype.lengths().1;
                bytes.extend(data(datatype, value)?.as_slice());
                bytes.resize(end, 0);
            }
            Ok(Data::new(&bytes))
        }
        Term::Field(field) if matches!(field.0, Kind::Raw { .. }) && field.bits() > 128 => {
            wrong(value, "a comparison of at most 128 bits")
        }
        Term::Field(field) => {
            let datatype = field.datatype();
            let one = data(datatype, value)?;
            match (field.narrow(), datatype.number_of(&one)) {
                (Some(_), Some(number)) if number >> field.bits() == 0 => Ok(left.number(number)),
                (Some(_), _) => wrong(value, format_args!("a number of {} bits", field.bits())),
                (None, Some(number)) if is_fib_present(*field) => Ok(left.number(number)),
                (None, _) => Ok(one),
            }
        }
        Term::Bitwise { of, .. } | Term::Swapped { of, .. } | Term::Shifted { of, .. } => compared(of, value),
        other => data(other.datatype(), value),
    }
}

/// A key of a set in which a term is looked up.
pub(super) fn looked_up<'j>(left: &Term, value: &'j Value) -> Read<'j, Span> {
    match left {
        Term::Concat(_) if value.as_str() == Some("*") => Ok(Span::CatchAll),
        Term::Concat(parts) => {
            let datatypes: Vec<Datatype> = parts.iter().map(Term::datatype).collect();
            joined(&datatypes, value, |part, value| span(part, value, &|value| data(part, value)))
        }
        left => span(left.datatype(), value, &|value| compared(left, value)),
    }
}
