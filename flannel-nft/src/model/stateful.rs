//! The state that packets change in observed rules: counters, quotas and `last`, which `nft -s` omits.

use std::time::Duration;

use crate::model::rule::Rule;
use crate::model::statement::Statement;
use crate::wire::exprs;

impl Rule {
    /// Packets and bytes that the rule's first counter has counted; `None` if it has none.
    #[must_use]
    pub fn counts(&self) -> Option<(u64, u64)> {
        self.statements.iter().find_map(|statement| match statement {
            Statement::Counter { packets, bytes } => Some((*packets, *bytes)),
            Statement::Other(expr) => exprs::counts(expr),
            _ => None,
        })
    }

    /// Bytes of its quota that are used up, if the rule has a quota.
    #[must_use]
    pub fn quota_used(&self) -> Option<u64> {
        self.statements.iter().find_map(|statement| match statement {
            Statement::Quota(quota) => Some(quota.used),
            Statement::Other(expr) => exprs::quota_used(expr),
            _ => None,
        })
    }

    /// How long ago a packet last reached `last` in the rule, if it has `last` and a packet has.
    #[must_use]
    pub fn last_used(&self) -> Option<Duration> {
        self.statements.iter().find_map(|statement| match statement {
            Statement::Last(milliseconds) => milliseconds.map(Duration::from_millis),
            Statement::Other(expr) => exprs::last_used(expr),
            _ => None,
        })
    }

    /// Whether packets change a part of the rule.
    pub(crate) fn has_state(&self) -> bool {
        self.statements.iter().any(|statement| match statement {
            Statement::Counter { packets, bytes } => packets | bytes != 0,
            Statement::Last(milliseconds) => milliseconds.is_some(),
            Statement::Quota(quota) => *quota != quota.unused(),
            Statement::Other(expr) => exprs::has_state(expr),
            _ => false,
        })
    }

    /// The same rule in the state of a new one: counters at 0, quotas unused, `last` never.
    pub(crate) fn without_state(&self) -> Self {
        let mut rule = self.clone();
        for statement in &mut rule.statements {
            match statement {
                Statement::Counter { packets, bytes } => (*packets, *bytes) = (0, 0),
                Statement::Last(milliseconds) => *milliseconds = None,
                Statement::Quota(quota) => *quota = quota.unused(),
                Statement::Other(expr) if exprs::has_state(expr) => *expr = exprs::without_state(expr),
                _ => {}
            }
        }
        rule
    }
}
