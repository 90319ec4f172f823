//! The door to nf_tables: the trait, the real kernel, the fake, and what others change.

pub(crate) mod fake;
pub(crate) mod monitor;
pub(crate) mod netlink;

use crate::error::{CommitError, ObserveError};
use crate::model::ids::Generation;
use crate::model::ids::TableId;
use crate::model::ruleset::Ownership;
use crate::model::ruleset::Ruleset;
use crate::transaction::{Sealed, Transaction};

/// Tables as they were at one generation.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The generation.
    pub generation: Generation,
    /// Those of the wanted tables that exist.
    pub ruleset: Ruleset,
    /// Port of the socket that changes are sent by: a table owned by it is ours.
    pub port: Option<u32>,
}

/// The one door to nf_tables. Nothing else in the crate sends or receives rules.
///
/// [`Netlink`](crate::Netlink) is the real one, [`FakeKernel`](crate::FakeKernel) one for tests and dry runs.
pub trait Kernel {
    /// Reads the generation of the ruleset.
    ///
    /// # Errors
    /// [`ObserveError`].
    fn generation(&mut self) -> Result<Generation, ObserveError>;

    /// Lists the tables there are.
    ///
    /// # Errors
    /// [`ObserveError`].
    ///
    /// # Kernel
    /// `nft list tables`
    fn tables(&mut self) -> Result<Vec<TableId>, ObserveError>;

    /// Whether a table that somebody owns stays when its owner exits (flags `owner` and `persist`). Changes nothing.
    ///
    /// # Errors
    /// [`ObserveError`].
    fn keeps_owned_tables(&mut self) -> Result<bool, ObserveError>;

    /// Reads the wanted tables, all of one generation.
    ///
    /// # Errors
    /// [`ObserveError`]; never a part of a table.
    fn observe(&mut self, wanted: &[TableId]) -> Result<Observed, ObserveError>;

    /// Sends a transaction and waits until it is applied or refused.
    ///
    /// # Errors
    /// [`CommitError`], whose variants say what the kernel holds.
    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Generation, CommitError>;
}

impl Ownership {
    /// [`Ownership::Owner`] where the kernel lets a table outlive its owner, else [`Ownership::Shared`]. It asks the kernel,
    /// whatever its version, which takes 8 to 16 ms: ask once.
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
