//! Entries of a store that are no leases: skipped, and named once.

use std::collections::HashSet;
use std::fmt::Display;

use super::codec::{cut, quote};

/// Entries reported so far.
#[derive(Debug, Default)]
pub(crate) struct Malformed(HashSet<(String, String)>);

impl Malformed {
    /// Most entries remembered, so that a store full of garbage fills neither memory nor log.
    const MAX_REMEMBERED: usize = 1000;
    /// What to do in a store that nothing but flannel uses.
    #[cfg(any(feature = "etcd", feature = "sqlite"))]
    pub(crate) const MEND: &str =
        "pods in valid leases are not affected. Correct or delete it, which flanneld notices";

    /// Logs those of `entries` (what each calls itself, and what is wrong) that have not been logged before, with what to
    /// do about them.
    pub(crate) fn report(&mut self, store: &dyn Display, entries: &[(String, String)], advice: &str) {
        for (key, problem) in entries {
            let entry = (quote(key), cut(problem));
            if self.0.len() < Self::MAX_REMEMBERED && self.0.insert(entry.clone()) {
                let (key, problem) = entry;
                tracing::warn!(%store, key, problem, "ignoring an entry of the lease store that is not a valid lease; {advice}");
            }
        }
    }
}
