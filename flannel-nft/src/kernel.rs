//! The door to nf_tables, and what can be done through it.

use crate::diff::diff;
use crate::error::{CommitError, ConvergeError, ObserveError};
use crate::ruleset::Ruleset;
use crate::table::TableId;
use crate::transaction::{Building, Generation, Sealed, Transaction};

/// How often [`converge`] starts anew because others change the ruleset at the same time.
const ATTEMPTS: u32 = 16;

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
/// [`Netlink`](crate::Netlink) is the real one, [`Memory`](crate::Memory) one for tests and dry runs.
pub trait Kernel {
    /// Reads the generation of the ruleset.
    ///
    /// # Errors
    /// [`ObserveError::Generation`].
    fn generation(&mut self) -> Result<Generation, ObserveError>;

    /// Lists the tables there are.
    ///
    /// # Errors
    /// [`ObserveError::Dump`].
    ///
    /// # Kernel
    /// `nft list tables`
    fn tables(&mut self) -> Result<Vec<TableId>, ObserveError>;

    /// Whether a table that somebody owns stays when its owner exits (flags `owner` and `persist`). Changes nothing.
    ///
    /// # Errors
    /// [`ObserveError::Dump`].
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

/// Reads the generation: 2.5 µs. Unchanged since the last look means that nobody changed any table.
///
/// # Errors
/// [`ObserveError::Generation`].
pub fn generation(kernel: &mut impl Kernel) -> Result<Generation, ObserveError> {
    kernel.generation()
}

/// Reads those of the wanted tables that exist, all of one generation.
///
/// # Errors
/// [`ObserveError`]; never a part of a table.
///
/// # Kernel
/// `nft -a list table FAMILY NAME`
pub fn observe(kernel: &mut impl Kernel, wanted: &[TableId]) -> Result<Observed, ObserveError> {
    kernel.observe(wanted)
}

/// What [`converge`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The kernel held what was wanted; nothing was sent.
    Unchanged {
        /// The generation at which that was so.
        generation: Generation,
    },
    /// One commit made it so.
    Changed {
        /// The generation that this commit made.
        generation: Generation,
        /// Number of messages it took.
        changes: u32,
    },
}

impl Outcome {
    /// The generation at which the kernel held what was wanted.
    #[must_use]
    pub fn generation(self) -> Generation {
        match self {
            Self::Changed { generation, .. } | Self::Unchanged { generation } => generation,
        }
    }
}

/// Makes the kernel hold the wanted tables: observes them, and if they differ commits the difference as one
/// transaction that applies only if nobody changed the ruleset meanwhile. Otherwise it starts anew, 16 times at most.
///
/// Calling it again with the same ruleset changes nothing. If a reply is lost, it looks what came of the commit.
///
/// # Errors
/// [`ConvergeError`]; unless its source says otherwise, the kernel holds what it held before.
///
/// # Kernel
/// Needs CAP_NET_ADMIN in the network namespace's user namespace.
pub fn converge(kernel: &mut impl Kernel, desired: &Ruleset) -> Result<Outcome, ConvergeError> {
    amend(kernel, &desired.scope(), |observed| diff(desired, observed))
}

/// Makes changes that depend on what the kernel holds: observes the tables in `scope` and commits what `plan` makes of
/// them, if nobody changed the ruleset meanwhile; else it starts anew. [`converge`] is this with [`diff`] as plan.
///
/// # Errors
/// As [`converge`].
pub fn amend(
    kernel: &mut impl Kernel,
    scope: &[TableId],
    plan: impl Fn(&Observed) -> Transaction<Building>,
) -> Result<Outcome, ConvergeError> {
    for _ in 0..ATTEMPTS {
        let observed = kernel.observe(scope).map_err(ConvergeError::Observe)?;
        let transaction = plan(&observed);
        let changes = transaction.len();
        let mut sealed = transaction.seal().map_err(ConvergeError::Seal)?;
        if changes == 0 {
            return Ok(Outcome::Unchanged { generation: observed.generation });
        }
        match kernel.send(&mut sealed) {
            Ok(generation) => return Ok(Outcome::Changed { generation, changes }),
            Err(CommitError::Stale | CommitError::Unanswered { .. }) => {}
            Err(error) => return Err(ConvergeError::Commit(error)),
        }
    }
    Err(ConvergeError::Contended { attempts: ATTEMPTS })
}
