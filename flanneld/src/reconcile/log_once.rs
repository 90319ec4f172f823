//! Warnings about subnets that stay: each is logged once, for as long as it holds.

use std::collections::BTreeMap;

use tracing::warn;

/// What was logged, and still holds, of each subject.
#[derive(Debug)]
pub(super) struct LogOnce<T>(BTreeMap<T, Vec<String>>);

impl<T> Default for LogOnce<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord> LogOnce<T> {
    /// Takes all that is to be said of `subject` now, and logs what is new.
    pub(super) fn set(&mut self, subject: T, now: Vec<String>) {
        if now.is_empty() {
            self.0.remove(&subject);
            return;
        }
        let said = self.0.entry(subject).or_default();
        now.iter().filter(|text| !said.contains(text)).for_each(|text| warn!("{text}"));
        *said = now;
    }
}
