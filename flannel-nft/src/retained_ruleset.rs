//! A desired ruleset that stays in memory while the program runs, and patches of it.

use crate::converge::{Outcome, converge};
use crate::error::{CommitError, ConvergeError, InvalidRule, SealError};
use crate::kernel::Kernel;
use crate::model::ids::{Generation, TableId};
use crate::model::patch::{Parts, TablePatch};
use crate::model::ruleset::Ruleset;
use crate::model::table::Table;
use crate::transaction::diff::diff_parts;

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

    /// Changes chains and elements of a desired table, and commits these changes. Neither reads nor
    /// compares the rest of the ruleset, so the cost does not depend on its size. If anything has
    /// changed since the last call, it [converges](converge) the whole ruleset.
    ///
    /// It validates the patch itself. Whether rules outside of the patch still use what it removes is
    /// left to the kernel, which refuses the patch if they do.
    ///
    /// # Errors
    /// Like [`converge`]. If the table is missing, the patch invalid, or refused by the kernel, the
    /// desired ruleset stays as it was. After any other error the patch is part of it, and the next
    /// [`RetainedRuleset::reconcile`] tries again.
    pub fn patch(
        &mut self,
        kernel: &mut impl Kernel,
        table: &TableId,
        patch: TablePatch,
    ) -> Result<Outcome, ConvergeError> {
        let Some(desired) = self.desired.find_mut(table) else {
            let reason = InvalidRule::MissingTable { table: table.to_string() };
            return Err(ConvergeError::Seal(SealError { object: format!("table {table}"), reason }));
        };
        let mut parts = desired.apply(patch).map_err(ConvergeError::Seal)?;
        let held = self.held.take();
        let committed = match held {
            Some(held) => commit(kernel, held, desired, &mut parts),
            None => Ok(None),
        };
        let outcome = match committed {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => converge(kernel, &self.desired),
            Err(error) => Err(error),
        };
        if let Err(ConvergeError::Seal(_) | ConvergeError::Commit(CommitError::Refused { .. })) = outcome
            && let Some(desired) = self.desired.find_mut(table)
        {
            desired.undo(&parts);
            self.held = held;
        }
        if let Ok(outcome) = outcome {
            self.held = Some(outcome.generation());
        }
        outcome
    }
}

/// Commits the parts at the generation at which the kernel held the table as it was. `None` if the
/// kernel does not hold it any more.
fn commit(
    kernel: &mut impl Kernel,
    held: Generation,
    desired: &Table,
    parts: &mut Parts,
) -> Result<Option<Outcome>, ConvergeError> {
    for chain in &mut *parts.old.chains {
        if parts.new.chains.find(chain.name.as_str()).is_none() {
            continue;
        }
        // If another process deleted the chain or changed its rules, there is another generation too.
        let Ok(handles) = kernel.rule_handles(&desired.id, &chain.name) else { return Ok(None) };
        if handles.len() != chain.rules.len() {
            return Ok(None);
        }
        for (rule, handle) in chain.rules.iter_mut().zip(handles) {
            rule.handle = Some(handle);
        }
    }
    let transaction = diff_parts(desired, parts, held);
    let changes = transaction.len();
    let mut sealed = transaction.seal().map_err(ConvergeError::Seal)?;
    if changes == 0 {
        let unchanged = kernel.generation().map_err(ConvergeError::Observe)? == held;
        return Ok(unchanged.then_some(Outcome::Unchanged { generation: held }));
    }
    match kernel.send(&mut sealed) {
        Ok(generation) => Ok(generation.map(|generation| Outcome::Changed { generation, changes })),
        Err(CommitError::Stale | CommitError::Overtaken { .. } | CommitError::Unanswered { .. }) => Ok(None),
        Err(error) => Err(ConvergeError::Commit(error)),
    }
}
