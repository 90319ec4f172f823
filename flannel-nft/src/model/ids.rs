//! What identifies a table, an object in it, and a state of the whole ruleset.

use std::fmt;

use crate::model::family::Family;
use crate::model::name::TableName;

/// Number of the ruleset's state: goes up by one with each commit of anybody in the network namespace.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Generation(pub(crate) u32);

impl Generation {
    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// The one after a commit; the kernel skips 0.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1).max(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The kernel's number for an object, unique in its table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Handle(pub(crate) u64);

impl Handle {
    /// The number, as `nft -a list` shows it.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What identifies a table: its family and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableId {
    /// Address family.
    pub family: Family,
    /// Name, unique in its family.
    pub name: TableName,
}

impl TableId {
    /// The table of this family with this name.
    #[must_use]
    pub fn new(family: Family, name: TableName) -> Self {
        Self { family, name }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}
