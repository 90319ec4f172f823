//! Errors of reading, with the place in the JSON text.

use std::fmt::Display;

use serde_json::Value;

/// Longest part of the input that an error quotes, in characters.
const QUOTED_CHARS: usize = 120;

/// The text is not JSON, or not what libnftables-json(5) describes. Nothing was sent to the kernel.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{path}: found {found}, expected {expected}")]
#[non_exhaustive]
pub struct JsonError {
    /// The place: `nftables[3].add.rule.expr[0].match.right`.
    pub path: String,
    /// What is there, as JSON; shortened if it is long.
    pub found: String,
    /// What would be right.
    pub expected: String,
}

/// A value that is not what it has to be.
#[derive(Debug)]
pub(super) struct Wrong<'j> {
    at: &'j Value,
    expected: String,
}

pub(super) type Read<'j, T> = Result<T, Wrong<'j>>;

/// An error about a value.
pub(super) fn wrong<T>(at: &Value, expected: impl Display) -> Read<'_, T> {
    Err(Wrong { at, expected: expected.to_string() })
}

impl Wrong<'_> {
    /// Finds the value's place in the document.
    pub(super) fn locate(self, document: &Value) -> JsonError {
        let mut path = String::new();
        let _is_part_of_it = find(document, self.at, &mut path);
        let path = if path.is_empty() { "the document".to_owned() } else { path };
        JsonError { path, found: quoted(self.at), expected: self.expected }
    }
}

fn quoted(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Appends the way from `from` to the very same value `to`.
fn find(from: &Value, to: &Value, path: &mut String) -> bool {
    if std::ptr::eq(from, to) {
        return true;
    }
    let length = path.len();
    match from {
        Value::Array(items) => items.iter().enumerate().any(|(index, item)| {
            path.truncate(length);
            path.push_str(&format!("[{index}]"));
            find(item, to, path)
        }),
        Value::Object(fields) => fields.iter().any(|(name, field)| {
            path.truncate(length);
            path.push_str(if length == 0 { "" } else { "." });
            path.push_str(name);
            find(field, to, path)
        }),
        _ => false,
    }
}

/// Access to parts of a value.
pub(super) trait Node {
    /// The field of an object; `null` counts as missing.
    fn field(&self, name: &str) -> Option<&Value>;
    /// A field that must be there.
    fn need(&self, name: &str) -> Read<'_, &Value>;
    /// The only field of an object.
    fn only(&self) -> Option<(&str, &Value)>;
    fn text(&self) -> Read<'_, &str>;
    fn number<N: TryFrom<u64>>(&self) -> Read<'_, N>;
    fn list(&self) -> Read<'_, &[Value]>;
    /// The items of a list, or the value alone.
    fn items(&self) -> &[Value];
    /// Only these fields.
    fn allow(&self, names: &[&str]) -> Read<'_, ()>;
}

impl Node for Value {
    fn field(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|field| !field.is_null())
    }

    fn need(&self, name: &str) -> Read<'_, &Value> {
        match self.field(name) {
            Some(field) => Ok(field),
            None => wrong(self, format_args!("an object with property `{name}`")),
        }
    }

    fn only(&self) -> Option<(&str, &Value)> {
        let mut fields = self.as_object()?.iter();
        let (name, field) = fields.next()?;
        fields.next().is_none().then_some((name.as_str(), field))
    }

    fn text(&self) -> Read<'_, &str> {
        self.as_str().map_or_else(|| wrong(self, "a string"), Ok)
    }

    fn number<N: TryFrom<u64>>(&self) -> Read<'_, N> {
        let number = self.as_u64().and_then(|number| N::try_from(number).ok());
        number.map_or_else(|| wrong(self, format_args!("a number of {} bits", size_of::<N>() * 8)), Ok)
    }

    fn list(&self) -> Read<'_, &[Value]> {
        self.as_array().map_or_else(|| wrong(self, "a list"), |items| Ok(items.as_slice()))
    }

    fn items(&self) -> &[Value] {
        self.as_array().map_or_else(|| std::slice::from_ref(self), Vec::as_slice)
    }

    fn allow(&self, names: &[&str]) -> Read<'_, ()> {
        let Some(fields) = self.as_object() else { return wrong(self, "an object") };
        match fields.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            Some((name, _)) => wrong(self, format_args!("no property `{name}`, only {}", names.join(", "))),
            None => Ok(()),
        }
    }
}
