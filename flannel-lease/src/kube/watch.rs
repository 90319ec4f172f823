//! From the API server's stream of nodes to lease events.

use tracing::{error, info};

use super::node::Node;
use super::pod_cidr_claims::{Claimant, Claims, Shift};
use super::{KubeStore, NoLease, Seen};
use crate::LeaseEvent;
use crate::malformed_entries::Malformed;
use crate::{Lease, LeaseKey};

/// What was told of each node.
#[derive(Debug, Default)]
pub(super) struct Told {
    claims: Claims,
    /// A listing that has not come to its end.
    listing: Option<Listing>,
    malformed: Malformed,
}

/// What the API server says of the nodes.
#[derive(Debug)]
pub(super) enum Event {
    /// A list starts.
    Init,
    /// A node in the list.
    InitApply(Node),
    /// The list of this version is complete.
    InitDone { version: u64 },
    /// A node is new or changed.
    Apply(Node),
    /// A node is deleted.
    Delete(Node),
}

#[derive(Debug, Default)]
struct Listing {
    claims: Claims,
    /// Leases that stay as they are: of nodes that cannot be read, and those of `inherited`.
    kept: Vec<LeaseKey>,
    /// Leases that were not taken from a node because another one held them before.
    inherited: Vec<LeaseKey>,
    saw_own: bool,
}

impl KubeStore {
    /// The lease events in one event of the API, and whether they are the whole truth.
    pub(super) fn translate(&self, event: Event, told: &mut Told) -> (Vec<LeaseEvent>, bool) {
        match event {
            Event::Init => {
                told.listing = Some(Listing::default());
                (vec![LeaseEvent::Resync], true)
            }
            Event::InitApply(node) => {
                self.note_own(&node);
                let listing = told.listing.get_or_insert_default();
                listing.saw_own |= node.name() == self.node_name();
                let lease = match self.lease_of(&node) {
                    Ok(lease) => lease,
                    Err(none) => {
                        let key = self.key_of(&node).ok().flatten();
                        let held = self.still_held(&told.claims, &node);
                        listing.kept.extend(key);
                        listing.kept.extend(held);
                        let Shift { lost, .. } = listing.claims.set(&node.claimant(), held);
                        let free = |key: &LeaseKey| {
                            [&told.claims, &listing.claims]
                                .iter()
                                .all(|claims| claims.is_free(*key, node.name()))
                        };
                        let key = held.or(key).filter(free);
                        let malformed = told.malformed.of_node(&node, none, held, key);
                        return (removed(lost).chain(malformed).collect(), true);
                    }
                };
                let claimant = node.claimant();
                let Shift { lost, .. } = listing.claims.set(&claimant, Some(lease.key));
                let known = told.claims.lease_of(node.name()) == Some(lease.key);
                if let Some(holder) = listing.claims.holder(lease.key).filter(|holder| **holder != claimant) {
                    warn_of_two(known, &claimant, holder, lease.key);
                    return (removed(lost).collect(), true);
                }
                if told.claims.holder(lease.key).is_some_and(|holder| *holder < claimant) {
                    // Its holder may be named later in this listing.
                    listing.kept.push(lease.key);
                    listing.inherited.push(lease.key);
                    return (removed(lost).collect(), true);
                }
                (removed(lost).chain([LeaseEvent::Upsert(lease)]).collect(), true)
            }
            Event::InitDone { version } => {
                let Listing { claims, kept, inherited, saw_own } = told.listing.take().unwrap_or_default();
                if !saw_own {
                    self.miss_own(version);
                }
                let former = std::mem::replace(&mut told.claims, claims);
                let certain = inherited.iter().all(|key| former.holder(*key) == told.claims.holder(*key));
                if certain {
                    info!("Node controller sync successful");
                }
                (vec![LeaseEvent::Synced { unreadable: kept }], certain)
            }
            Event::Apply(node) => {
                self.note_own(&node);
                match self.lease_of(&node) {
                    Ok(lease) => told.replace(&node, Some(lease)),
                    Err(none) => {
                        let key = self.key_of(&node).ok().flatten();
                        let held = self.still_held(&told.claims, &node);
                        let key = held.or(key).filter(|key| told.claims.is_free(*key, node.name()));
                        let malformed = told.malformed.of_node(&node, none, held, key);
                        let (mut events, certain) = match held {
                            Some(_) => (Vec::new(), true),
                            None => told.replace(&node, None),
                        };
                        events.extend(malformed);
                        (events, certain)
                    }
                }
            }
            Event::Delete(node) => {
                if node.name() == self.node_name() {
                    self.seen.send_replace(Seen::Gone);
                }
                told.replace(&node, None)
            }
        }
    }

    /// The lease that a node published before, if its pod subnets are still the same: as upstream, what it published
    /// counts until the node is deleted or publishes something else.
    fn still_held(&self, claims: &Claims, node: &Node) -> Option<LeaseKey> {
        let held = claims.lease_of(node.name())?;
        let now = self.key_of(node).ok().flatten();
        let same = |now: LeaseKey| {
            held.v4().is_none_or(|v4| now.v4() == Some(v4)) && held.v6().is_none_or(|v6| now.v6() == Some(v6))
        };
        now.is_none_or(same).then_some(held)
    }

    /// A list of this version lacks this node. An older list than what is known of it, which is possible as the API server
    /// answers from its cache, means nothing.
    fn miss_own(&self, version: u64) {
        self.seen.send_if_modified(|seen| {
            let stale = matches!(seen, Seen::Present(known) if version < known.version());
            if !stale {
                *seen = Seen::Gone;
            }
            !stale
        });
    }

    /// Keeps what is told of this node itself, unless a newer answer is known already.
    pub(super) fn note_own(&self, node: &Node) {
        if node.name() != self.node_name() {
            return;
        }
        self.seen.send_if_modified(|seen| {
            let stale = matches!(seen, Seen::Present(known) if node.version() < known.version());
            if !stale {
                *seen = Seen::Present(Box::new(node.clone()));
            }
            !stale
        });
    }
}

impl Told {
    /// Notes that a node has this lease and no other. Returns what that changes, and whether it can be told: what the heir
    /// of a lease publishes takes a listing to find out.
    fn replace(&mut self, node: &Node, lease: Option<Lease>) -> (Vec<LeaseEvent>, bool) {
        let claimant = node.claimant();
        let key = lease.as_ref().map(|lease| lease.key);
        let former = self.claims.lease_of(node.name());
        let known = former == key;
        let Shift { lost, heirs } = self.claims.set(&claimant, key);
        let held = lease.filter(|lease| match self.claims.holder(lease.key) {
            Some(holder) if *holder != claimant => {
                warn_of_two(known, &claimant, holder, lease.key);
                false
            }
            _ => true,
        });
        // The node's former lease goes last: a family that the new one has too is never without a peer in between.
        let (own, others): (Vec<_>, Vec<_>) = lost.into_iter().partition(|key| Some(*key) == former);
        let upsert = held.map(LeaseEvent::Upsert);
        (removed(others).chain(upsert).chain(removed(own)).collect(), !heirs)
    }
}

impl Malformed {
    /// The event for a node that should have a lease and publishes none that can be read: `key` is malformed. Without a
    /// key there is no event, and the node is named once in the log. `held` is the lease that it published before.
    fn of_node(
        &mut self,
        node: &Node,
        none: NoLease,
        held: Option<LeaseKey>,
        key: Option<LeaseKey>,
    ) -> Option<LeaseEvent> {
        let problem = match (none, held) {
            (NoLease::Unreadable(problem), _) => problem,
            (NoLease::Unmanaged(annotation), Some(_)) => format!("annotation {annotation} is missing"),
            (NoLease::Unmanaged(_), None) => return None,
        };
        if let Some(key) = key {
            return Some(LeaseEvent::Malformed {
                key,
                problem: format!("node {:?}: {problem}", node.name()),
            });
        }
        let advice = "pods of that node cannot be reached until it has a podCIDR and flanneld there publishes its addresses: check \
                      that flanneld runs there, and its log";
        self.report(&"Kubernetes", &[(node.name().to_owned(), problem)], advice);
        None
    }
}

fn removed(lost: Vec<LeaseKey>) -> impl Iterator<Item = LeaseEvent> {
    lost.into_iter().map(LeaseEvent::Remove)
}

/// Says once that two nodes have the same pod subnet.
fn warn_of_two(known: bool, claimant: &Claimant, holder: &Claimant, lease: LeaseKey) {
    if !known {
        let (name, holder) = (&claimant.name, &holder.name);
        error!(
            "node {name:?} with {lease} has a pod subnet of node {holder:?}, which is older: pods of node {name:?} cannot be \
             reached. If one of the machines is gone, delete its Node object. Otherwise delete that of {name:?}, which then \
             registers again with another podCIDR; flanneld notices"
        );
    }
}
