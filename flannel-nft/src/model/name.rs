//! Names and comments, checked once where they are made, so that no later code can hold a bad one.

use std::fmt;
use std::str::FromStr;

/// A text that cannot be a name, a comment or a prefix in nf_tables.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is nothing in it.
    #[error("a {what} cannot be empty")]
    Empty {
        /// What it was meant to be, e.g. `table name`.
        what: &'static str,
    },
    /// It does not fit into the kernel's field, or into what every `nft` prints back.
    #[error("{what} `{text}` has {bytes} bytes, {limit} are allowed")]
    TooLong {
        /// What it was meant to be.
        what: &'static str,
        /// The text.
        text: String,
        /// Its length in bytes.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// It has a character that `nft` could not read back.
    #[error("{what} `{text}` has the character {character:?}, which nft cannot read back")]
    Character {
        /// What it was meant to be.
        what: &'static str,
        /// The text.
        text: String,
        /// The first such character.
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

/// What `nft` scans as a bare word (src/scanner.l, `string`): a letter, then letters, digits and `/ \ _ . -`.
fn identifier(at: usize, character: char) -> bool {
    character.is_ascii_alphabetic()
        || (at > 0 && (character.is_ascii_digit() || "/\\_.-".contains(character)))
}

/// What may stand between double quotes.
fn quotable(_at: usize, character: char) -> bool {
    character != '"' && !character.is_control()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal, $allowed:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Box<str>);

        impl $name {
            #[doc = concat!("Checks that `text` can be a ", $what, ".")]
            ///
            /// # Errors
            /// [`NameError`] saying what is wrong with it.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($what, text, $limit, $allowed)?;
                Ok(Self(text.into()))
            }

            /// As the kernel has it: what others have made is taken as it is.
            pub(crate) fn observed(text: &str) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
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
                f.write_str(&self.0)
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
    /// A remark that the kernel keeps with a table, chain, rule, set or element: at most 127 bytes, no double quote.
    Comment, "comment", 127, quotable
);
name!(
    /// What a `log` statement puts in front of each line: at most 127 bytes, no double quote.
    LogPrefix, "log prefix", 127, quotable
);

/// Name of a network interface to match, or the beginning of one.
///
/// Written as in nft: a trailing `*` makes it match every interface whose name begins so.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InterfaceName {
    pub(crate) text: Box<str>,
    pub(crate) prefix: bool,
}

impl InterfaceName {
    /// Checks that `text` can be the name of an interface (at most 15 bytes) or, with a trailing `*`, the beginning of
    /// one.
    ///
    /// # Errors
    /// [`NameError`] saying what is wrong with it.
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
