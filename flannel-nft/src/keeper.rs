//! A ruleset that is kept.

use crate::error::ConvergeError;
use crate::kernel::{Kernel, Outcome, converge};
use crate::ruleset::Ruleset;
use crate::transaction::Generation;

/// [`converge`] for who calls it again and again: while nobody has changed any table since the last look, it asks for
/// the generation (3 µs) and reads nothing else.
///
/// Elements with a timeout leave their set without a new generation, so they are missed only at the next change.
///
/// ```
/// use flannel_nft::{Family, Keeper, Memory, Outcome, Ruleset, Table, TableName};
///
/// let table = Table::new(Family::Ip, TableName::new("pods")?);
/// let mut kernel = Memory::default(); // Netlink::open()? for the real one
/// let mut keeper = Keeper::new(Ruleset::new().table(table));
/// assert!(matches!(keeper.reconcile(&mut kernel)?, Outcome::Changed { changes: 1, .. }));
/// assert!(matches!(keeper.reconcile(&mut kernel)?, Outcome::Unchanged { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Keeper {
    desired: Ruleset,
    /// The generation at which the kernel held it.
    held: Option<Generation>,
}

impl Keeper {
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

    /// Keeps something else from the next [`Keeper::reconcile`] on. Tables that are no longer wanted have to be
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
