//! Identifiers of tables, of objects in them, and of a state of the ruleset.

use std::fmt;

use crate::model::family::Family;
use crate::model::name::TableName;

/// The number of the ruleset's state. Each commit of any process in the network namespace
/// increments it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Generation(pub(crate) u32);

impl Generation {
    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// The generation after the next commit. The kernel skips 0.
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

/// The kernel's number of an object, unique in its table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Handle(pub(crate) u64);

impl Handle {
    /// The number that `nft -a list` shows.
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

/// The identity of a table: family and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableId {
    /// The address family.
    pub family: Family,
    /// The name, unique in its family.
    pub name: TableName,
}

impl TableId {
    /// The identity of the table of this family and name.
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
