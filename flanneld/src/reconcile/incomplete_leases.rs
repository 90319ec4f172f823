//! What leases lack of how to reach their nodes, and what is kept in its place.
//!
//! A lease that says nothing, or nonsense, of one family states neither that its node has gone nor that it is reached in
//! another way. What that family said before stays in force until it says something again, or its subnet is gone.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use tracing::{error, info, warn};

use crate::desired::{NodeSpec, Skipped};
use flannel_lease::{BackendType, Gaps, LeaseAttributes, LeaseKey};

/// Gaps that are remembered at most of subnets that are no peers, so that a store full of garbage fills neither memory
/// nor log.
const MAX_UNKNOWN_GAPS: usize = 1000;
/// Gaps that `/readyz` lists one by one.
const MAX_LISTED_GAPS: usize = 3;

/// What one subnet of a lease lacks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Gap {
    /// Names the entry in the store and the field.
    pub(crate) text: String,
    /// Whether what was known of the subnet is kept; else its pods cannot be reached.
    pub(crate) kept: bool,
}

/// The gaps of all leases. Each is logged once when it begins and once when it ends.
#[derive(Debug, Default)]
pub(crate) struct IncompleteLeases {
    /// Whether to log changes now.
    pub(super) log: bool,
    gaps: BTreeMap<(LeaseKey, IpNet), Gap>,
    /// Leases with gaps in the listing that has not ended.
    listing: Option<BTreeSet<LeaseKey>>,
}

impl IncompleteLeases {
    /// Takes all gaps that a lease has now. Returns whether that changes anything.
    pub(super) fn set(&mut self, key: LeaseKey, now: Vec<(IpNet, Gap)>) -> bool {
        let mut changed = false;
        if let Some(listing) = self.listing.as_mut().filter(|_| !now.is_empty()) {
            listing.insert(key);
        }
        for subnet in key.subnets() {
            let gap = now.iter().find(|(of, _)| *of == subnet).map(|(_, gap)| gap);
            match (self.gaps.get(&(key, subnet)), gap) {
                (before, Some(gap)) if before == Some(gap) => {}
                (_, Some(gap)) if gap.kept || self.gaps.len() < MAX_UNKNOWN_GAPS => {
                    match gap.kept {
                        _ if !self.log => {}
                        true => warn!(
                            "{}; peer {subnet} stays as it was and its traffic continues; flanneld on that node \
                             publishes it again: check that it runs there",
                            gap.text
                        ),
                        false => error!(
                            "{}; pods in {subnet} cannot be reached until flanneld on that node publishes it: check that it \
                             runs there",
                            gap.text
                        ),
                    }
                    self.gaps.insert((key, subnet), gap.clone());
                    changed = true;
                }
                (Some(before), None) => {
                    if self.log {
                        info!("resolved: {}; {subnet} is as its node publishes it", before.text);
                    }
                    self.gaps.remove(&(key, subnet));
                    changed = true;
                }
                _ => {}
            }
        }
        changed
    }

    /// A lease is gone. Returns whether it had gaps.
    pub(super) fn forget(&mut self, key: LeaseKey) -> bool {
        key.subnets().filter(|subnet| self.gaps.remove(&(key, *subnet)).is_some()).count() > 0
    }

    /// A listing of all leases starts.
    pub(super) fn start_listing(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    /// It ends: malformed leases that were no peers and that it did not show are gone. Returns whether there were any.
    pub(super) fn end_listing(&mut self) -> bool {
        let Some(listed) = self.listing.take() else { return false };
        let before = self.gaps.len();
        self.gaps.retain(|(key, _), gap| gap.kept || listed.contains(key));
        before != self.gaps.len()
    }

    /// Whether any subnet of this lease lacks something.
    pub(super) fn has_any(&self, key: LeaseKey) -> bool {
        key.subnets().any(|subnet| self.of(key, subnet).is_some())
    }

    /// What this subnet of a lease lacks.
    pub(crate) fn of(&self, key: LeaseKey, subnet: IpNet) -> Option<&Gap> {
        self.gaps.get(&(key, subnet))
    }

    /// All of them for `/readyz`; `None` if there are none.
    pub(super) fn note(&self) -> Option<String> {
        let shown = self.gaps.iter().take(MAX_LISTED_GAPS).map(|((_, subnet), gap)| {
            let effect = if gap.kept { "stays as it was" } else { "cannot be reached" };
            format!("{}: {subnet} {effect}", gap.text)
        });
        let mut note = shown.collect::<Vec<_>>().join("; ");
        if let Some(more @ 1..) = self.gaps.len().checked_sub(MAX_LISTED_GAPS) {
            note += &format!("; and {more} more, see the log");
        }
        (!note.is_empty()).then_some(note)
    }
}

/// Adds the node's public address to what its lease lacks, if that is known.
pub(super) fn with_address(text: String, lease: &LeaseAttributes) -> String {
    match lease.public_ip.is_some() || lease.public_ipv6.is_some() {
        true => format!("{text} (public address {})", lease.public_address()),
        false => text,
    }
}

/// Puts what was `known` of a lease in place of what it now lacks, one family at a time. Returns what it lacks.
pub(super) fn keep_known(
    spec: &NodeSpec,
    key: LeaseKey,
    known: Option<&LeaseAttributes>,
    gaps: &Gaps,
    new: &mut LeaseAttributes,
) -> Vec<(IpNet, Gap)> {
    let mut found = Vec::new();
    // What is filled in for one family must not hide what the other lacks.
    let stated = new.clone();
    let untyped = new.backend_type == BackendType::Unnamed && !gaps.is_empty();
    for subnet in key.subnets() {
        let peer = |attributes: &LeaseAttributes| spec.peer(key, subnet, attributes, |_| false);
        let skipped = match peer(&stated) {
            Some(Err(skipped @ (Skipped::BackendData { .. } | Skipped::NoAddress(_)))) => skipped,
            Some(Err(skipped @ Skipped::Backend { .. })) if untyped => skipped,
            _ => continue,
        };
        let text = gaps.of(subnet).map_or_else(|| format!("lease {key}: {skipped}"), str::to_owned);
        let known = known.filter(|known| matches!(peer(known), Some(Ok(_))));
        let text = with_address(text, known.unwrap_or(&stated));
        found.push((subnet, Gap { text, kept: known.is_some() }));
        let Some(known) = known else { continue };
        if untyped {
            new.backend_type.clone_from(&known.backend_type);
        }
        match subnet {
            IpNet::V4(_) => {
                new.public_ip = known.public_ip;
                new.backend_data.clone_from(&known.backend_data);
            }
            IpNet::V6(_) => {
                new.public_ipv6 = known.public_ipv6;
                new.backend_v6_data.clone_from(&known.backend_v6_data);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::logging::{Lines, LogOptions};

    fn key(n: usize) -> LeaseKey {
        format!("10.{}.{}.0-24", n / 256, n % 256).parse().unwrap()
    }

    fn gap(n: usize, kept: bool) -> Vec<(IpNet, Gap)> {
        key(n).subnets().map(|subnet| (subnet, Gap { text: format!("lease {n}"), kept })).collect()
    }

    #[test]
    fn only_the_beginning_and_the_end_of_a_gap_are_changes() {
        for kept in [true, false] {
            let mut gaps = IncompleteLeases::default();
            assert!(gaps.set(key(2), gap(2, kept)));
            assert!(!gaps.set(key(2), gap(2, kept)), "the same again");
            assert!(gaps.set(key(2), gap(2, !kept)), "another effect");
            assert!(gaps.has_any(key(2)) && !gaps.has_any(key(3)));
            assert!(gaps.set(key(2), Vec::new()));
            assert!(!gaps.set(key(2), Vec::new()) && !gaps.forget(key(2)));
            gaps.set(key(2), gap(2, kept));
            assert!(gaps.forget(key(2)) && !gaps.has_any(key(2)));
        }
    }

    #[test]
    fn changes_are_logged_with_their_effect_only_while_they_are_to_be_logged() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let layer = Lines::new(LogOptions::default(), move |level, _: &str| sink.lock().unwrap().push(level));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for log in [true, false] {
                let mut gaps = IncompleteLeases { log, ..IncompleteLeases::default() };
                for kept in [true, false] {
                    gaps.set(key(2), gap(2, kept));
                    gaps.set(key(2), Vec::new());
                }
            }
        });
        use tracing::Level;
        assert_eq!(*lines.lock().unwrap(), [Level::WARN, Level::INFO, Level::ERROR, Level::INFO]);
    }

    #[test]
    fn a_thousand_gaps_of_unknown_subnets_are_remembered_and_every_gap_of_a_peer() {
        let mut gaps = IncompleteLeases::default();
        let remembered = (0..2000).filter(|n| gaps.set(key(*n), gap(*n, false))).count();
        assert_eq!((remembered, gaps.gaps.len()), (MAX_UNKNOWN_GAPS, MAX_UNKNOWN_GAPS));
        assert!(gaps.set(key(3000), gap(3000, true)));
    }

    #[test]
    fn a_listing_ends_the_gaps_that_it_does_not_show_except_those_of_peers() {
        let mut gaps = IncompleteLeases::default();
        for n in [2, 3, 4] {
            gaps.set(key(n), gap(n, n == 4));
        }
        gaps.start_listing();
        gaps.set(key(2), gap(2, false));
        gaps.set(key(5), Vec::new());
        assert!(gaps.end_listing());
        assert_eq!([2, 3, 4].map(|n| gaps.has_any(key(n))), [true, false, true]);
        gaps.start_listing();
        gaps.set(key(2), gap(2, false));
        assert!(!gaps.end_listing(), "it shows all");
    }
}
