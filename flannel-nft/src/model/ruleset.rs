//! What a caller wants: whole tables with everything in them.

use crate::model::ids::TableId;
use crate::model::table::Table;

/// Tables, each whole: what is in the kernel's table of that name and not in here is to be removed. Other tables are
/// nobody's business here.
///
/// `Display` writes it as `nft list ruleset` would.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub(crate) tables: Vec<Table>,
    pub(crate) absent: Vec<TableId>,
}

impl Ruleset {
    /// Without tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a table; one with the same identity is replaced.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.tables.retain(|other| other.id != table.id);
        self.absent.retain(|id| *id != table.id);
        self.tables.push(table);
        self
    }

    /// Says that a table is not to exist: in a diff it is deleted if it does.
    #[must_use]
    pub fn without(mut self, id: TableId) -> Self {
        self.tables.retain(|other| other.id != id);
        self.absent.push(id);
        self
    }

    /// Its tables.
    #[must_use]
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The table with this identity.
    #[must_use]
    pub fn find(&self, id: &TableId) -> Option<&Table> {
        self.tables.iter().find(|table| table.id == *id)
    }

    /// Identities of all tables that this says anything about.
    #[must_use]
    pub fn scope(&self) -> Vec<TableId> {
        self.tables.iter().map(|table| table.id.clone()).chain(self.absent.iter().cloned()).collect()
    }
}

impl FromIterator<Table> for Ruleset {
    fn from_iter<I: IntoIterator<Item = Table>>(tables: I) -> Self {
        tables.into_iter().fold(Self::new(), Self::table)
    }
}

/// Who may change a table besides us.
///
/// The default is [`Ownership::Shared`], although an owned table is safer from `nft flush ruleset`: while a table is
/// owned, no version of nft can load a saved `nft list ruleset` (`EPERM`), so nobody's rules in it are loaded; and after
/// its owner's exit, nft before 1.1 cannot read what it lists of the table (docs/nft-versions.md in the repository).
///
/// Going from one to the other makes the table anew in one commit: no packet sees a gap, counters start at 0.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Ownership {
    /// Anybody with CAP_NET_ADMIN: plain tables, as every tool makes and understands them.
    #[default]
    Shared,
    /// Only this process, as long as it keeps its [`Netlink`](crate::Netlink) open: flags `owner` and `persist`.
    /// Afterwards the table stays, and the next [`converge`](crate::converge) of anybody who wants to own it takes it
    /// over as it is. Kernel ≥ 6.9; older ones refuse the table.
    Owner,
}
