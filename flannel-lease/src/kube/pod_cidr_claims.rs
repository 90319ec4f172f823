//! Which node holds which lease, should two claim the same pod subnet.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use crate::LeaseKey;

/// A node that claims a lease. The smallest of those that claim the same one holds it: the node that was created first,
/// so that a newcomer cannot draw away the packets of a node that works; of equally old ones, the first by name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Claimant {
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) name: Arc<str>,
}

/// What each node claims, as far as it was told.
///
/// A node holds its lease if it holds every pod subnet in it: two dual-stack nodes may have one subnet in common only.
#[derive(Debug, Default)]
pub(super) struct Claims {
    leases: HashMap<Arc<str>, (LeaseKey, i64)>,
    claimants: BTreeSet<(IpNet, Claimant)>,
}

/// What a change of one node's claim means for all leases.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Shift {
    /// Leases without a holder.
    pub(super) lost: Vec<LeaseKey>,
    /// Whether another node holds its lease now, and did not before.
    pub(super) heirs: bool,
}

impl Claims {
    /// Notes that a node claims `lease` and nothing else.
    pub(super) fn set(&mut self, claimant: &Claimant, lease: Option<LeaseKey>) -> Shift {
        let before = self.leases.get(&claimant.name).copied();
        let after = lease.map(|key| (key, claimant.created));
        if before == after {
            return Shift::default();
        }
        let touched = [before, after].into_iter().flatten().flat_map(|(key, _)| key.subnets());
        let rivals = touched.flat_map(|subnet| self.claimants(subnet)).map(|rival| Arc::clone(&rival.name));
        let rivals: BTreeSet<Arc<str>> = rivals.filter(|name| *name != claimant.name).collect();
        let held = self.holds(&claimant.name);
        let holding: Vec<bool> = rivals.iter().map(|rival| self.holds(rival)).collect();

        if let Some((key, created)) = before {
            for subnet in key.subnets() {
                self.claimants.remove(&(subnet, Claimant { created, name: Arc::clone(&claimant.name) }));
            }
            self.leases.remove(&claimant.name);
        }
        if let Some(after) = after {
            self.claimants.extend(after.0.subnets().map(|subnet| (subnet, claimant.clone())));
            self.leases.insert(Arc::clone(&claimant.name), after);
        }

        let mut shift = Shift::default();
        for (rival, held) in rivals.iter().zip(holding) {
            match (held, self.holds(rival)) {
                (true, false) => shift.lost.extend(self.lease_of(rival)),
                (false, true) => shift.heirs = true,
                _ => {}
            }
        }
        shift.lost.extend(before.filter(|_| held && !shift.heirs).map(|(key, _)| key));
        // What this node publishes takes the place of what stands under the same lease.
        shift.lost.retain(|key| Some(*key) != lease);
        shift
    }

    /// The lease that a node claims.
    pub(super) fn lease_of(&self, name: &str) -> Option<LeaseKey> {
        self.leases.get(name).map(|(key, _)| *key)
    }

    /// The oldest node that claims any of the lease's subnets.
    pub(super) fn holder(&self, key: LeaseKey) -> Option<&Claimant> {
        key.subnets().filter_map(|subnet| self.claimants(subnet).next()).min()
    }

    /// Whether no other node than this one holds any subnet in `key`.
    pub(super) fn is_free(&self, key: LeaseKey, name: &str) -> bool {
        self.holder(key).is_none_or(|holder| *holder.name == *name)
    }

    fn holds(&self, name: &str) -> bool {
        let holder = self.lease_of(name).and_then(|key| self.holder(key));
        holder.is_some_and(|holder| *holder.name == *name)
    }

    /// Nodes that claim a subnet, the oldest first.
    fn claimants(&self, subnet: IpNet) -> impl Iterator<Item = &Claimant> {
        let first = (subnet, Claimant { created: i64::MIN, name: Arc::from("") });
        let same = self.claimants.range(first..).take_while(move |(of, _)| *of == subnet);
        same.map(|(_, claimant)| claimant)
    }
}
