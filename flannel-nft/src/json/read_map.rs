//! The values of maps from JSON.

use serde_json::Value;

use crate::json::error::{Node, Read, wrong};
use crate::json::read_parts::verdict;
use crate::json::read_value::{data, key};
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::Mapped;
use crate::model::name::CounterName;

/// What a map maps to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values {
    /// Values of this type.
    Of(Datatype),
    /// Addresses, possibly with ports.
    Addresses(Datatype),
    Objects(u32),
    /// Ranges of values of this type. A single value is a range too.
    Ranges(Datatype),
    Verdicts,
}

impl Values {
    /// The values of a map with these elements: ranges if one of them is a range, because JSON does not say it.
    pub(super) fn of_elements(self, elements: &Value) -> Self {
        let values = || elements.items().iter().filter_map(|element| element.get(1));
        match self {
            Self::Of(datatype) if values().any(is_range) => Self::Ranges(datatype),
            Self::Addresses(address) if values().any(is_range) => {
                let with_port = values().any(|value| value.field("concat").is_some());
                Self::Ranges(if with_port { and_port(address) } else { address })
            }
            other => other,
        }
    }
}

fn is_range(value: &Value) -> bool {
    let parts = value.field("concat").and_then(Value::as_array);
    value.field("range").is_some()
        || value.field("prefix").is_some()
        || parts.is_some_and(|parts| parts.iter().any(is_range))
}

fn and_port(address: Datatype) -> Datatype {
    Datatype::concat(&[address, Datatype::InetService])
}

/// What an element of a map maps to, and the type.
pub(super) fn mapped(value: &Value, values: Values) -> Read<'_, (Mapped, Option<Datatype>)> {
    let of = |datatype: Datatype| Ok((Mapped::Value(data(datatype, value)?), Some(datatype)));
    match values {
        Values::Verdicts => match verdict(value)? {
            Some(verdict) => Ok((Mapped::Verdict(verdict), None)),
            None => wrong(value, "a verdict"),
        },
        Values::Objects(_) => Ok((Mapped::Object(CounterName::observed(value.text()?)), None)),
        Values::Addresses(address) if value.field("concat").is_some() => of(and_port(address)),
        Values::Of(datatype) | Values::Addresses(datatype) => of(datatype),
        Values::Ranges(datatype) => {
            let span = key(datatype, value)?;
            let ends = [span.first(), span.last()].map(|end| end.map(Data::as_slice).unwrap_or_default());
            Ok((Mapped::Value(Data::new(&ends.concat())), Some(datatype.doubled())))
        }
    }
}
