//! Observed objects, to be claimed by the peers that need them.

/// A list sorted by key. Peers claim in almost the same order, so most claims need no search.
#[derive(Debug)]
pub(crate) struct ClaimIndex<'a, K, T> {
    entries: Vec<Entry<'a, K, T>>,
    /// Likely position of the next claim.
    next: usize,
}

#[derive(Debug)]
struct Entry<'a, K, T> {
    key: K,
    found: &'a T,
    claimed: bool,
}

impl<'a, K: Copy + Ord, T> ClaimIndex<'a, K, T> {
    /// Entries of one key keep their order.
    pub(crate) fn new(found: impl Iterator<Item = (K, &'a T)>) -> Self {
        let mut entries: Vec<_> = found.map(|(key, found)| Entry { key, found, claimed: false }).collect();
        entries.sort_by_key(|entry| entry.key);
        Self { entries, next: 0 }
    }

    /// Calls `take` with every entry of this key. The entries for which it returns true are claimed.
    pub(crate) fn claim(&mut self, key: K, mut take: impl FnMut(&T) -> bool) {
        self.seek(key);
        while let Some(entry) = self.entries.get_mut(self.next).filter(|entry| entry.key == key) {
            entry.claimed |= take(entry.found);
            self.next += 1;
        }
    }

    /// Claims the first unclaimed entry of this key that `fits`.
    pub(crate) fn claim_one(&mut self, key: K, fits: impl Fn(&T) -> bool) -> Option<&'a T> {
        self.seek(key);
        while let Some(entry) = self.entries.get_mut(self.next).filter(|entry| entry.key == key) {
            if !entry.claimed && fits(entry.found) {
                entry.claimed = true;
                return Some(entry.found);
            }
            self.next += 1;
        }
        None
    }

    /// Moves to the first entry of this key.
    fn seek(&mut self, key: K) {
        let begins = |at: usize| {
            let key_at = |at: usize| self.entries.get(at).map(|entry| entry.key);
            key_at(at).is_none_or(|here| here >= key)
                && at.checked_sub(1).and_then(key_at).is_none_or(|before| before < key)
        };
        if !begins(self.next) {
            self.next = self.entries.partition_point(|entry| entry.key < key);
        }
    }

    /// The entries that were not claimed, by key.
    pub(crate) fn unclaimed(&self) -> impl Iterator<Item = &'a T> {
        self.entries.iter().filter(|entry| !entry.claimed).map(|entry| entry.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_a_key_is_claimed_in_any_order_of_keys() {
        let found = [(3, 'c'), (1, 'a'), (3, 'd'), (7, 'e'), (1, 'b')];
        for keys in [[1, 3, 7], [7, 3, 1], [3, 7, 1], [3, 3, 3], [0, 2, 9]] {
            let mut index = ClaimIndex::new(found.iter().map(|entry| (entry.0, entry)));
            let mut claimed = Vec::new();
            for key in keys {
                let mut shown = Vec::new();
                index.claim(key, |(_, letter)| {
                    shown.push(*letter);
                    *letter != 'd'
                });
                let all: Vec<char> =
                    found.iter().filter(|entry| entry.0 == key).map(|entry| entry.1).collect();
                assert_eq!(shown, all, "{keys:?}");
                claimed.extend(shown.into_iter().filter(|letter| *letter != 'd'));
            }
            let left: Vec<char> = index.unclaimed().map(|entry| entry.1).collect();
            let expected: Vec<char> =
                ['a', 'b', 'c', 'd', 'e'].into_iter().filter(|letter| !claimed.contains(letter)).collect();
            assert_eq!(left, expected, "{keys:?}");
        }
    }
}
