//! JSON objects as Go's `encoding/json` reads them, because that is what wrote the rules for net-conf.json:
//! keys match in any case, unknown keys are ignored, the last duplicate wins, `null` leaves a scalar as it was.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The members of an object in the order written, duplicates included, values not yet looked at.
#[derive(Debug)]
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// Reads one object; `null` counts as an empty one.
    ///
    /// # Errors
    /// A text that says what is wrong and where. The parts that people search for are upstream's.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice::<Self>(text).map_err(|error| match (error.classify(), first_kind(text)) {
            (Category::Eof, _) => "unexpected end of JSON input".to_owned(),
            (Category::Data, Some(kind)) => format!("json: cannot unmarshal {kind} into an object"),
            _ if error.to_string().starts_with("trailing characters") => {
                format!(
                    "invalid character after top-level value at line {} column {}",
                    error.line(),
                    error.column()
                )
            }
            _ => format!("invalid JSON: {error}"),
        })
    }

    /// The value of `key` that counts, `null` included.
    pub(super) fn last(&self, key: &str) -> Option<&RawValue> {
        self.named(key).next_back()
    }

    /// The value of `key` that counts, `null` being no value.
    ///
    /// # Errors
    /// A text naming the kind of value found and `wanted`.
    pub(super) fn value<T: DeserializeOwned>(&self, key: &str, wanted: &str) -> Result<Option<T>, String> {
        let Some(raw) = self.named(key).rfind(|raw| raw.get() != "null") else { return Ok(None) };
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_cause| format!("json: cannot unmarshal {} into {wanted}", describe(raw)))
    }

    fn named(&self, key: &str) -> impl DoubleEndedIterator<Item = &RawValue> {
        self.0.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| &**value)
    }
}

/// What `raw` is if it is not null, with its text if it is a number: `string`, `number -1`, `array` ...
pub(super) fn describe(raw: &RawValue) -> String {
    match first_kind(raw.get().as_bytes()) {
        Some("number") => format!("number {}", raw.get()),
        Some(kind) => kind.to_owned(),
        None => "nothing".to_owned(),
    }
}

fn first_kind(text: &[u8]) -> Option<&'static str> {
    text.iter().find(|byte| !byte.is_ascii_whitespace()).map(|byte| match byte {
        b'"' => "string",
        b'{' => "object",
        b'[' => "array",
        b't' | b'f' => "bool",
        _ => "number",
    })
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Object, E> {
                Ok(Object(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_any(Members)
    }
}
