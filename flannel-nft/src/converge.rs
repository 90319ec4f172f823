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
/// [`ConvergeError`]. Unless its source tells otherwise, the kernel holds the old ruleset.
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
            Ok(generation) => return Ok(Outcome::Changed { generation, changes }),
            Err(CommitError::Stale | CommitError::Unanswered { .. }) => {}
            Err(error) => return Err(ConvergeError::Commit(error)),
        }
    }
    Err(ConvergeError::Contended { attempts: MAX_ATTEMPTS })
}

/// A desired ruleset that is converged repeatedly. It remembers the generation at which the kernel
/// held the ruleset: while that stays the same, [`RetainedRuleset::reconcile`] reads only the
/// generation (3 µs).
///
/// An element that expires makes no new generation, so it is restored only after the next change of
/// any table.
///
/// ```
/// use flannel_nft::{Family, RetainedRuleset, FakeKernel, Outcome, Ruleset, Table, TableName};
///
/// let table = Table::new(Family::Ip, TableName::new("pods")?);
/// let mut kernel = FakeKernel::default(); // Netlink::open()? for the real one
/// let mut retained = RetainedRuleset::new(Ruleset::new().table(table));
/// assert!(matches!(retained.reconcile(&mut kernel)?, Outcome::Changed { changes: 1, .. }));
/// assert!(matches!(retained.reconcile(&mut kernel)?, Outcome::Unchanged { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RetainedRuleset {
    desired: Ruleset,
    /// The generation at which the kernel held the ruleset.
    held: Option<Generation>,
}

impl RetainedRuleset {
    /// A ruleset that has not been converged yet.
    #[must_use]
    pub fn new(desired: Ruleset) -> Self {
        Self { desired, held: None }
    }

    /// The desired ruleset.
    #[must_use]
    pub fn desired(&self) -> &Ruleset {
        &self.desired
    }

    /// The generation at which the kernel last held the ruleset; `None` before the first successful
    /// call of [`RetainedRuleset::reconcile`].
    #[must_use]
    pub fn held(&self) -> Option<Generation> {
        self.held
    }

    /// Sets another desired ruleset for the next [`RetainedRuleset::reconcile`]. To delete a table,
    /// name it with [`Ruleset::without`]; a table that is only left out stays.
    pub fn set_desired(&mut self, desired: Ruleset) {
        *self = Self::new(desired);
    }

    /// Converges, unless nothing has changed since the last time. Always pass the same kernel.
    ///
    /// # Errors
    /// Like [`converge`]. The next call then reads everything.
    pub fn reconcile(&mut self, kernel: &mut impl Kernel) -> Result<Outcome, ConvergeError> {
        if let Some(generation) = self.held.take()
            && kernel.generation().map_err(ConvergeError::Observe)? == generation
        {
            self.held = Some(generation);
            return Ok(Outcome::Unchanged { generation });
        }
        let outcome = converge(kernel, &self.desired)?;
        self.held = Some(outcome.generation());
        Ok(outcome)
    }
}
