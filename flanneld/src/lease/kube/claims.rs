//! Which node holds which lease, should two claim the same pod subnets.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::lease::LeaseKey;

/// A node that claims a lease. The smallest of those that claim the same one holds it: the node that was created first,
/// so that a newcomer cannot draw away the packets of a node that works; of equally old ones, the first by name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Claimant {
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) name: Arc<str>,
}

/// What each node claims, as far as it was told.
#[derive(Debug, Default)]
pub(super) struct Claims {
    leases: HashMap<Arc<str>, (LeaseKey, i64)>,
    claimants: BTreeSet<(LeaseKey, Claimant)>,
}

/// What a change of one node's claim means for the lease that it held until then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Former {
    /// It held none, or holds it still, or another node did all the time.
    Nothing,
    /// Nobody claims it any more.
    Free(LeaseKey),
    /// Another node that claims it holds it now.
    Inherited,
}

impl Claims {
    /// Notes that a node claims `lease` and nothing else.
    pub(super) fn set(&mut self, claimant: &Claimant, lease: Option<LeaseKey>) -> Former {
        let before = match lease {
            Some(key) => self.leases.insert(Arc::clone(&claimant.name), (key, claimant.created)),
            None => self.leases.remove(&claimant.name),
        };
        if before == lease.map(|key| (key, claimant.created)) {
            return Former::Nothing;
        }
        let former = before.map_or(Former::Nothing, |(key, created)| {
            let held = self.holder(key).is_some_and(|holder| holder.name == claimant.name);
            self.claimants.remove(&(key, Claimant { created, name: Arc::clone(&claimant.name) }));
            match self.holder(key) {
                _ if !held || lease == Some(key) => Former::Nothing,
                Some(_) => Former::Inherited,
                None => Former::Free(key),
            }
        });
        self.claimants.extend(lease.map(|key| (key, claimant.clone())));
        former
    }

    /// The lease that a node claims.
    pub(super) fn lease_of(&self, name: &str) -> Option<LeaseKey> {
        self.leases.get(name).map(|(key, _)| *key)
    }

    /// The node that holds a lease.
    pub(super) fn holder(&self, key: LeaseKey) -> Option<&Claimant> {
        let first = (key, Claimant { created: i64::MIN, name: Arc::from("") });
        self.claimants.range(first..).next().filter(|(of, _)| *of == key).map(|(_, claimant)| claimant)
    }
}
