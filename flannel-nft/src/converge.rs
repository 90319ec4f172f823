//! Makes the kernel hold a ruleset: once, repeatedly, or with a custom plan.

use crate::error::{CommitError, ConvergeError, ObserveError};
use crate::kernel::{Kernel, Observed};
use crate::model::ids::{Generation, TableId};
use crate::model::ruleset::Ruleset;
use crate::transaction::diff::diff;
use crate::transaction::{Building, Transaction};

/// Number of attempts if other processes change the ruleset at the same time.
const MAX_ATTEMPTS: u32 = 16;

/// Reads the generation, in 2.5 µs. If it is unchanged, no process has changed any table.
///
/// # Errors
/// [`ObserveError`].
pub fn generation(kernel: &mut impl Kernel) -> Result<Generation, ObserveError> {
    kernel.generation()
}

/// Reads the requested tables that exist, all of the same generation.
///
/// # Errors
/// [`ObserveError`]; the result is never partial.
///
/// # Kernel
/// `nft -a list table FAMILY NAME`
pub fn observe(kernel: &mut impl Kernel, wanted: &[TableId]) -> Result<Observed, ObserveError> {
    kernel.observe(wanted)
}

/// The result of [`converge`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The kernel holds the desired ruleset already; nothing was sent.
    Unchanged {
        /// The generation that was observed.
        generation: Generation,
    },
    /// One commit changed the kernel's ruleset into the desired one.
    Changed {
        /// The generation that the commit made.
        generation: Generation,
        /// The number of messages in the commit.
        changes: u32,
    },
}

impl Outcome {
    /// The generation at which the kernel held the desired ruleset.
    #[must_use]
    pub fn generation(self) -> Generation {
        match self {
            Self::Changed { generation, .. } | Self::Unchanged { generation } => generation,
        }
    }
}

/// Makes the kernel hold the desired tables: observes them and, if they differ, commits the
/// difference as one transaction. If another process changes the ruleset in between, it starts
/// over, up to 16 times.
///
/// It is idempotent. If the reply to a commit is lost, it observes again.
///
/// # Errors
/// [`ConvergeError`]. Unless its source states otherwise, the kernel holds the old ruleset.
///
/// # Kernel
/// Needs CAP_NET_ADMIN in the network namespace's user namespace.
pub fn converge(kernel: &mut impl Kernel, desired: &Ruleset) -> Result<Outcome, ConvergeError> {
    converge_with(kernel, &desired.scope(), |observed| diff(desired, observed))
}

/// Makes changes that depend on the kernel's ruleset: observes the tables in `scope` and commits
/// the transaction that `plan` returns for them. If another process changes the ruleset in between,
/// it starts over. [`converge`] is this function with [`diff`] as the plan.
/// # Errors
/// Like [`converge`].
pub fn converge_with(
    kernel: &mut impl Kernel,
    scope: &[TableId],
    plan: impl Fn(&Observed) -> Transaction<Building>,
) -> Result<Outcome, ConvergeError> {
    for _ in 0..MAX_ATTEMPTS {
        let observed = kernel.observe(scope).map_err(ConvergeError::Observe)?;
        let transaction = plan(&observed);
        let changes = transaction.len();
        let mut sealed = transaction.seal().map_err(ConvergeError::Seal)?;
        if changes == 0 {
            return Ok(Outcome::Unchanged { generation: observed.generation });
        }
        match kernel.send(&mut sealed) {
            Ok(generation) => {
                let generation = match generation {
                    Some(generation) => generation,
                    None => kernel.generation().map_err(ConvergeError::Observe)?,
                };
                return Ok(Outcome::Changed { generation, changes });
            }
            Err(CommitError::Stale | CommitError::Overtaken { .. } | CommitError::Unanswered { .. }) => {}
            Err(error) => return Err(ConvergeError::Commit(error)),
        }
    }
    Err(ConvergeError::Contended { attempts: MAX_ATTEMPTS })
}
