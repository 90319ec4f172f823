//! Names and comments. The constructors validate them, so a value of these types is always valid.

use std::fmt;
use std::str::FromStr;

/// A text is not a valid name, comment or log prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("the {what} is empty, but needs at least one character")]
    Empty {
        /// The kind of text, e.g. `table name`.
        what: &'static str,
    },
    /// The text is longer than the kernel's field, or than what every version of `nft` prints.
    #[error("{what} `{text}` has {bytes} bytes, but at most {limit} are allowed; shorten it")]
    TooLong {
        /// The kind of text.
        what: &'static str,
        /// The text.
        text: String,
        /// Its length in bytes.
        bytes: usize,
        /// The maximum length in bytes.
        limit: usize,
    },
    /// The text has a character that `nft` could not read back.
    #[error(
        "{what} `{text}` has the character {character:?} where nft does not accept it; remove or replace it"
    )]
    Character {
        /// The kind of text.
        what: &'static str,
        /// The text.
        text: String,
        /// The first invalid character.
        character: char,
    },
}

fn check(
    what: &'static str,
    text: &str,
    limit: usize,
    allowed: impl Fn(usize, char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > limit {
        return Err(NameError::TooLong { what, text: text.to_owned(), bytes: text.len(), limit });
    }
    match text.chars().enumerate().find(|(at, character)| !allowed(*at, *character)) {
        Some((_, character)) => Err(NameError::Character { what, text: text.to_owned(), character }),
        None => Ok(()),
    }
}

/// Whether `nft` accepts the character in a bare word (src/scanner.l, `string`): a letter, then
/// letters, digits and `/ \ _ . -`.
fn identifier(at: usize, character: char) -> bool {
    character.is_ascii_alphabetic()
        || (at > 0 && (character.is_ascii_digit() || "/\\_.-".contains(character)))
}

/// Whether the character is allowed between double quotes.
fn quotable(_at: usize, character: char) -> bool {
    character != '"' && !character.is_control()
}

/// Text that the kernel holds as bytes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Text {
    text: Box<str>,
    /// The bytes, if they are not UTF-8.
    bytes: Option<Box<[u8]>>,
}

impl Text {
    fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { text: text.into(), bytes: None },
            Err(_) => Self { text: escaped(bytes).into(), bytes: Some(bytes.into()) },
        }
    }
}

/// The bytes as text, with `\\xff` for each byte that is not UTF-8.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(
            chunk.invalid().iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).map(char::from),
        );
    }
    text
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal, $allowed:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Text);

        impl $name {
            #[doc = concat!("Checks that `text` can be a ", $what, ".")]
            ///
            /// # Errors
            /// [`NameError`], which names what is invalid.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($what, text, $limit, $allowed)?;
                Ok(Self::observed(text))
            }

            /// A name as the kernel returned it, without validation: other programs may use names
            /// that this crate does not create.
            pub(crate) fn observed<B: AsRef<[u8]> + ?Sized>(bytes: &B) -> Self {
                Self(Text::new(bytes.as_ref()))
            }

            /// The text. If another program's text is not UTF-8, `\\xff` replaces each invalid byte.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0.text
            }

            /// The bytes that the kernel holds. Other programs may use bytes that are not UTF-8.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.bytes.as_deref().unwrap_or(self.0.text.as_bytes())
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

name!(
    /// Name of a table: a bare word of nft's language, at most 255 bytes.
    TableName, "table name", 255, identifier
);
name!(
    /// Name of a chain: a bare word of nft's language, at most 255 bytes.
    ChainName, "chain name", 255, identifier
);
name!(
    /// Name of a set or map: a bare word of nft's language, at most 255 bytes.
    SetName, "set name", 255, identifier
);
name!(
    /// Name of a counter: a bare word of nft's language, at most 255 bytes.
    CounterName, "counter name", 255, identifier
);
name!(
    /// Name of a quota, limit, conntrack helper, ... or flowtable: a bare word of nft's language, at
    /// most 255 bytes.
    ObjectName, "object name", 255, identifier
);
name!(
    /// A comment, which the kernel stores with a table, chain, rule, set or element: at most 127
    /// bytes, no double quotes.
    Comment, "comment", 127, quotable
);
name!(
    /// The text at the start of each line of a `log` statement: at most 127 bytes, no double
    /// quotes.
    LogPrefix, "log prefix", 127, quotable
);

/// The name of a network interface in a match, or a prefix of names.
///
/// As in nft, a trailing `*` matches every interface whose name starts with the text before it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InterfaceName {
    pub(crate) text: Box<str>,
    pub(crate) prefix: bool,
}

impl InterfaceName {
    /// Checks that `text` is a valid interface name (at most 15 bytes), optionally followed by `*`.
    ///
    /// # Errors
    /// [`NameError`], which names what is invalid.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let (name, prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        check("interface name", name, 15, |_, character| {
            character.is_ascii_graphic() && !"\"*\\/".contains(character)
        })?;
        Ok(Self { text: name.into(), prefix })
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for InterfaceName {
    type Error = NameError;
    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}\"", self.text, if self.prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observed_names_are_bytes() {
        let (a, b) = (ChainName::observed(&[b'a', 0xff]), ChainName::observed(&[b'a', 0xfe]));
        assert_eq!((a.as_str(), a.as_bytes()), ("a\\xff", &[b'a', 0xff][..]));
        assert_ne!(a, b);
        assert_eq!(ChainName::observed("a"), ChainName::new("a").unwrap());
    }

    #[test]
    fn a_name_that_nft_could_not_read_back_is_refused() {
        assert_eq!(TableName::new("flannel-ipv4").unwrap().as_str(), "flannel-ipv4");
        assert!(matches!(TableName::new(""), Err(NameError::Empty { .. })));
        assert!(matches!(ChainName::new("a b"), Err(NameError::Character { character: ' ', .. })));
        assert!(matches!(ChainName::new("9lives"), Err(NameError::Character { character: '9', .. })));
        assert!(matches!(SetName::new(&"x".repeat(256)), Err(NameError::TooLong { bytes: 256, .. })));
        assert!(matches!(Comment::new("say \"hi\""), Err(NameError::Character { .. })));
        assert!(matches!(InterfaceName::new("flannel-v6.16777215"), Err(NameError::TooLong { .. })));
        assert_eq!(InterfaceName::new("veth*").unwrap().to_string(), "\"veth*\"");
    }
}
