//! Values as nft prints them in JSON.

use serde_json::{Value, json};

use crate::display::DisplayFn;
use crate::display::NftVersion;
use crate::display::expression::{is_fib_present, is_special};
use crate::model::data::Data;
use crate::model::datatype::{Datatype, Format as Syntax};
use crate::model::expression::Term;
use crate::model::field::Kind;

/// How nft prints several flags of one value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flags {
    /// `["syn", "ack"]`.
    List,
    /// `{ "|": ["syn", "ack"] }`.
    Or,
    /// As a number.
    Number,
}

/// A number, or text in hexadecimal if it has more than 64 bits.
pub(super) fn number(number: u128) -> Value {
    u64::try_from(number).map_or_else(|_| json!(format!("0x{number:x}")), Value::from)
}

/// A value of the type in nft's syntax, without quotes.
fn text(datatype: Datatype, data: &Data) -> Value {
    let text = DisplayFn(|f: &mut std::fmt::Formatter<'_>| datatype.write(data, f)).to_string();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    json!(inner.unwrap_or(&text))
}

fn named(names: &[(&str, u32)], found: u128) -> Value {
    match names.iter().find(|(_, value)| u128::from(*value) == found) {
        Some((name, _)) => json!(name),
        None => number(found),
    }
}

fn flags(names: Vec<Value>, flags: Flags) -> Value {
    match (names.as_slice(), flags) {
        ([one], _) => one.clone(),
        (_, Flags::Or) => json!({ "|": names }),
        _ => Value::Array(names),
    }
}

/// The bits of a value, by name or number; `None` if there are none, or if one has no name.
fn bits(syntax: Syntax, value: u128) -> Option<Vec<Value>> {
    let set = |bit: u32| value >> bit & 1 != 0;
    match syntax {
        _ if value == 0 => None,
        Syntax::Labels => Some((0..128).filter(|bit| set(*bit)).map(Value::from).collect()),
        Syntax::Bits(names) => {
            let named = names.iter().fold(0, |sum, (_, bit)| sum | u128::from(*bit));
            let names = names.iter().filter(|(_, bit)| value & u128::from(*bit) != 0);
            (value & !named == 0).then(|| names.map(|(name, _)| json!(name)).collect())
        }
        _ => None,
    }
}

impl NftVersion {
    /// A value of this type. Concatenations have a value for each part.
    pub(super) fn value(self, datatype: Datatype, data: &Data, joined: Flags) -> Value {
        let parts = datatype.parts();
        if parts.len() > 1 {
            let values = split(&parts, data).into_iter().map(|(part, data)| self.value(part, &data, joined));
            return json!({ "concat": values.collect::<Vec<Value>>() });
        }
        let plain = Datatype::Integer { length: 0, host: false };
        let Some(syntax) = datatype.format() else {
            return plain.number_of(data).map_or_else(|| text(datatype, data), number);
        };
        let Some(found) = datatype.number_of(data) else { return text(datatype, data) };
        match (syntax, datatype) {
            (_, Datatype::Cgroupsv2) => json!(found.to_string()),
            (_, Datatype::Boolean) => json!(found != 0),
            (_, Datatype::IcmpCode | Datatype::Icmpv6Code) if self == Self::V1_1 => number(found),
            (Syntax::Decimal | Syntax::Hex(_), _) => number(found),
            (Syntax::Duration, _) => number(found / 1_000),
            (Syntax::Quoted(names), Datatype::Realm) => match named(names, found) {
                Value::Number(number) => json!(number.to_string()),
                name => name,
            },
            (Syntax::Symbols(names) | Syntax::SymbolsHex(names, _) | Syntax::Quoted(names), _) => {
                named(names, found)
            }
            (Syntax::Protocol, _) => match text(datatype, data) {
                Value::String(name) if name.bytes().all(|byte| byte.is_ascii_digit()) => number(found),
                name => name,
            },
            (Syntax::Bits(_) | Syntax::Labels, _) => match bits(syntax, found) {
                Some(names) if names.len() == 1 || joined != Flags::Number => flags(names, joined),
                _ => number(found),
            },
            _ => text(datatype, data),
        }
    }

    /// One end of a range, for which nft uses no names of protocols.
    fn end(self, datatype: Datatype, data: &Data) -> Value {
        match (datatype.format(), datatype.number_of(data)) {
            (Some(Syntax::Protocol), Some(found)) => number(found),
            _ => self.value(datatype, data, Flags::List),
        }
    }

    /// A range, as `{ "range": ... }`.
    pub(super) fn range(self, datatype: Datatype, first: &Data, last: &Data) -> Value {
        json!({ "range": [self.end(datatype, first), self.end(datatype, last)] })
    }

    /// A range that nft prints as a prefix if it can: in sets and for NAT.
    pub(super) fn span(self, datatype: Datatype, first: &Data, last: &Data) -> Value {
        let parts = datatype.parts();
        if parts.len() > 1 {
            let ends = split(&parts, first).into_iter().zip(split(&parts, last));
            let spans = ends.map(|((part, first), (_, last))| self.span(part, &first, &last));
            return json!({ "concat": spans.collect::<Vec<Value>>() });
        }
        if first == last {
            return self.value(datatype, first, Flags::Or);
        }
        match (datatype.format(), first.prefix_to(last)) {
            (Some(Syntax::Ipv4 | Syntax::Ipv6), Some(length)) => self.prefix(datatype, first, length),
            (Some(Syntax::Text), Some(length)) if length % 8 == 0 => {
                let prefix = first.as_slice().get(..usize::from(length / 8)).unwrap_or_default();
                json!(format!("{}*", String::from_utf8_lossy(prefix)))
            }
            _ => self.range(datatype, first, last),
        }
    }

    pub(super) fn prefix(self, datatype: Datatype, address: &Data, length: u8) -> Value {
        json!({ "prefix": { "addr": self.value(datatype, address, Flags::List), "len": length } })
    }

    /// Data that a term is compared with.
    pub(super) fn compared(self, left: &Term, data: &Data, joined: Flags) -> Value {
        match left {
            Term::Concat(parts) => {
                let datatypes: Vec<Datatype> = parts.iter().map(Term::datatype).collect();
                let values = parts.iter().zip(split(&datatypes, data)).map(|(part, (datatype, data))| {
                    match part.field() {
                        // In a concatenation, a narrow field is not shifted.
                        Some(field) if field.narrow().is_some() => self.value(datatype, &data, joined),
                        _ => self.compared(part, &data, joined),
                    }
                });
                json!({ "concat": values.collect::<Vec<Value>>() })
            }
            Term::Field(field) if is_fib_present(*field) => json!(!data.is_zero()),
            Term::Field(field) if matches!(field.0, Kind::Raw { .. }) || is_special(*field) => {
                let plain = Datatype::Integer { length: 0, host: false };
                plain.number_of(data).map_or(Value::Null, number)
            }
            Term::Field(field) => self.value(field.datatype(), &field.unshifted(data), joined),
            Term::Shifted { .. } => {
                let plain = Datatype::Integer { length: 0, host: true };
                plain.number_of(data).map_or(Value::Null, number)
            }
            Term::Bitwise { of, .. } | Term::Combined { left: of, .. } | Term::Swapped { of, .. } => {
                self.compared(of, data, joined)
            }
            other => self.value(other.datatype(), data, joined),
        }
    }
}

/// The parts of a concatenation, each of which is padded to four bytes.
pub(super) fn split(parts: &[Datatype], data: &Data) -> Vec<(Datatype, Data)> {
    let mut rest = data.as_slice();
    let of = |part: &Datatype| {
        let (length, padded) = part.lengths();
        let data = Data::new(rest.get(..length).unwrap_or(rest));
        rest = rest.get(padded..).unwrap_or_default();
        (*part, data)
    };
    parts.iter().map(of).collect()
}
