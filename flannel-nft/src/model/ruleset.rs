//! Rulesets: the desired tables, each with everything in it.

use crate::model::ids::TableId;
use crate::model::table::Table;

/// Tables, each with everything in it: [`diff`](crate::diff) removes what the kernel's table of the
/// same name has beyond that. Other tables are not touched.
///
/// `Display` prints it like `nft list ruleset` of nft 1.1.7, [`NftVersion::display`](crate::NftVersion::display) like
/// another version.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub(crate) tables: Vec<Table>,
    pub(crate) absent: Vec<TableId>,
}

impl Ruleset {
    /// An empty ruleset.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a table. Replaces a table of the same identity.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.tables.retain(|other| other.id != table.id);
        self.absent.retain(|id| *id != table.id);
        self.tables.push(table);
        self
    }

    /// Requests that a table does not exist: `diff` deletes it.
    #[must_use]
    pub fn without(mut self, id: TableId) -> Self {
        self.tables.retain(|other| other.id != id);
        self.absent.push(id);
        self
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The table with this identity.
    #[must_use]
    pub fn find(&self, id: &TableId) -> Option<&Table> {
        self.tables.iter().find(|table| table.id == *id)
    }

    pub(crate) fn find_mut(&mut self, id: &TableId) -> Option<&mut Table> {
        self.tables.iter_mut().find(|table| table.id == *id)
    }

    /// The identities of all tables that the ruleset describes, including those that must not
    /// exist.
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

/// Which processes may change a table.
///
/// The default is [`Ownership::Shared`], although an owned table is protected from `nft flush
/// ruleset`. While a table is owned, no version of nft can load a saved `nft list ruleset`
/// (`EPERM`), so none of the saved rules are loaded. After the owner has exited, nft before 1.1
/// cannot read its own listing of the table (docs/nft-versions.md in the repository).
///
/// A change of the ownership recreates the table in one commit: no packet sees a gap, and counters
/// start at 0.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Ownership {
    /// All processes with CAP_NET_ADMIN: a plain table, which every tool understands.
    #[default]
    Shared,
    /// Only this process, while its [`Netlink`](crate::Netlink) is open: flags `owner` and
    /// `persist`. The table stays when the process exits, and the next
    /// [`converge`](crate::converge) that wants to own it takes it over unchanged. Kernel ≥ 6.9;
    /// older kernels refuse the table.
    Owner,
}
