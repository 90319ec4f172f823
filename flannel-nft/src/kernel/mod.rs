//! Access to nf_tables: the trait, the real kernel, the fake kernel, and notifications.

mod contention;
pub(crate) mod fake;
pub(crate) mod monitor;
pub(crate) mod netlink;
mod read;
#[cfg(test)]
mod tests;

use crate::error::{CommitError, ObserveError};
use crate::model::ids::{Generation, Handle, TableId};
use crate::model::name::ChainName;
use crate::model::ruleset::{Ownership, Ruleset};
use crate::transaction::{Sealed, Transaction};

/// The tables of one generation.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The generation.
    pub generation: Generation,
    /// The requested tables that exist.
    pub ruleset: Ruleset,
    /// Port of the socket that sends changes: this process owns the tables with this
    /// [owner](crate::Table::owner_port).
    pub port: Option<u32>,
}

/// The kernel interface of this crate. Nothing else in it sends or receives rules.
///
/// [`Netlink`](crate::Netlink) is the real kernel; [`FakeKernel`](crate::FakeKernel) is for tests
/// and dry runs.
pub trait Kernel {
    /// Reads the generation of the ruleset.
    ///
    /// # Errors
    /// [`ObserveError`].
    fn generation(&mut self) -> Result<Generation, ObserveError>;

    /// Lists the tables.
    ///
    /// # Errors
    /// [`ObserveError`].
    ///
    /// # Kernel
    /// `nft list tables`
    fn tables(&mut self) -> Result<Vec<TableId>, ObserveError>;

    /// Whether the kernel supports owned tables that outlive their owner (flags `owner` and
    /// `persist`). Changes nothing.
    ///
    /// # Errors
    /// [`ObserveError`].
    fn keeps_owned_tables(&mut self) -> Result<bool, ObserveError>;

    /// Reads the requested tables, all of the same generation.
    ///
    /// # Errors
    /// [`ObserveError`]; the result is never partial.
    fn observe(&mut self, wanted: &[TableId]) -> Result<Observed, ObserveError>;

    /// Lists the handles of a chain's rules, in order.
    ///
    /// # Errors
    /// [`ObserveError`]. A chain that does not exist has no rules or is an error.
    ///
    /// # Kernel
    /// `nft -a list chain FAMILY TABLE CHAIN`
    fn rule_handles(&mut self, table: &TableId, chain: &ChainName) -> Result<Vec<Handle>, ObserveError> {
        let observed = self.observe(std::slice::from_ref(table))?;
        let chain = observed.ruleset.find(table).and_then(|table| table.chains.find(chain.as_str()));
        Ok(chain.iter().flat_map(|chain| &chain.rules).filter_map(|rule| rule.handle).collect())
    }

    /// Sends a transaction and waits for the reply. Returns the generation that it made; `None` for
    /// an [unchecked](Transaction::unchecked) transaction, after which the kernel would have to be
    /// asked.
    ///
    /// # Errors
    /// [`CommitError`], whose variants state what the kernel holds.
    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Option<Generation>, CommitError>;
}

impl Ownership {
    /// [`Ownership::Owner`] if the kernel supports owned tables that outlive their owner, otherwise
    /// [`Ownership::Shared`]. Asks the kernel, which takes 8 to 16 ms, so call it once.
    ///
    /// # Errors
    /// [`ObserveError`] if the kernel does not answer.
    ///
    /// ```
    /// use flannel_nft::{FakeKernel, Ownership};
    ///
    /// assert_eq!(Ownership::auto(&mut FakeKernel::default())?, Ownership::Owner);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn auto(kernel: &mut impl Kernel) -> Result<Self, ObserveError> {
        Ok(if kernel.keeps_owned_tables()? { Self::Owner } else { Self::Shared })
    }
}
