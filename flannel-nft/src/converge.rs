//! Making the kernel hold a ruleset: once, again and again, or by a plan of the caller's.

use crate::error::{CommitError, ConvergeError, ObserveError};
use crate::kernel::{Kernel, Observed};
use crate::model::ids::Generation;
use crate::model::ids::TableId;
use crate::model::ruleset::Ruleset;
use crate::transaction::diff::diff;
use crate::transaction::{Building, Transaction};

/// How often [`converge`] starts over because others change the ruleset at the same time.
const MAX_ATTEMPTS: u32 = 16;

/// Reads the generation: 2.5 µs. Unchanged since the last look means that nobody changed any table.
///
/// # Errors
/// [`ObserveError`].
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
    converge_with(kernel, &desired.scope(), |observed| diff(desired, observed))
}

/// Makes changes that depend on what the kernel holds: observes the tables in `scope` and commits what `plan` makes of
/// them, if nobody changed the ruleset meanwhile; else it starts anew. [`converge`] is this with [`diff`] as plan.
///
/// # Errors
/// As [`converge`].
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

/// [`converge`] for who calls it again and again: while nobody has changed any table since the last look, it asks for
/// the generation (3 µs) and reads nothing else.
///
/// Elements with a timeout leave their set without a new generation, so they are missed only at the next change.
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
    /// The generation at which the kernel held it.
    held: Option<Generation>,
}

impl RetainedRuleset {
    /// Nothing is known about the kernel yet.
    #[must_use]
    pub fn new(desired: Ruleset) -> Self {
        Self { desired, held: None }
    }

    /// What it keeps.
    #[must_use]
    pub fn desired(&self) -> &Ruleset {
        &self.desired
    }

    /// The generation at which the kernel last held it; `None` if it has not been seen to.
    #[must_use]
    pub fn held(&self) -> Option<Generation> {
        self.held
    }

    /// Keeps something else from the next [`RetainedRuleset::reconcile`] on. Tables that are no longer wanted have to be
    /// [named](Ruleset::without), or they stay.
    pub fn set_desired(&mut self, desired: Ruleset) {
        *self = Self::new(desired);
    }

    /// Makes the kernel hold what is wanted, unless nothing has changed since it last did. Use it with one kernel only.
    ///
    /// # Errors
    /// As [`converge`]. The next call looks at everything.
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
