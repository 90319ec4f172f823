//! What a caller wants: whole tables with everything in them.

use std::fmt;

use crate::error::ObserveError;
use crate::kernel::Kernel;
use crate::table::{Table, TableId};

/// Address family of a table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// ARP packets.
    Arp,
    /// Packets that a bridge forwards.
    Bridge,
    /// IPv4 and IPv6 packets.
    Inet,
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
    /// All packets of a device.
    Netdev,
}

impl Family {
    /// nft's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        }
    }

    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Arp, Self::Bridge, Self::Inet, Self::Ip, Self::Ip6, Self::Netdev]
            .into_iter()
            .find(|family| family.number() == number)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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

impl Ownership {
    /// [`Ownership::Owner`] where the kernel lets a table outlive its owner, else [`Ownership::Shared`]. It asks the kernel,
    /// whatever its version, which takes 8 to 16 ms: ask once.
    ///
    /// # Errors
    /// [`ObserveError`] if the kernel does not answer.
    ///
    /// ```
    /// use flannel_nft::{Memory, Ownership};
    ///
    /// assert_eq!(Ownership::auto(&mut Memory::default())?, Ownership::Owner);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn auto(kernel: &mut impl Kernel) -> Result<Self, ObserveError> {
        Ok(if kernel.keeps_owned_tables()? { Self::Owner } else { Self::Shared })
    }
}
