//! Every lease known: the table that lease events fold into. Pure.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};

use crate::{Lease, LeaseAttributes, LeaseEvent, LeaseKey};

/// All known leases. The node's own lease is kept apart, because it is never a peer.
#[derive(Debug, Default)]
pub struct LeaseTable {
    own: Option<LeaseKey>,
    own_node: Option<OwnNode>,
    leases: BTreeMap<LeaseKey, Known>,
    /// Keys by their IPv6 subnet; by their IPv4 subnet `leases` is sorted itself.
    by_v6: BTreeSet<(Ipv6Net, LeaseKey)>,
    /// Number of the latest listing; a lease marked with an older one was not in it.
    listing: u32,
    synced: bool,
}

#[derive(Debug)]
struct Known {
    attributes: Arc<LeaseAttributes>,
    created: u64,
    node: Option<Box<str>>,
    listing: u32,
}

/// How this node's leases are recognized, whatever their subnets.
#[derive(Clone, Debug, Eq, PartialEq)]
struct OwnNode {
    name: Option<String>,
    attributes: LeaseAttributes,
}

impl OwnNode {
    fn has(&self, node: Option<&str>, attributes: &LeaseAttributes) -> bool {
        match (self.name.as_deref(), node) {
            (Some(own), Some(node)) => own == node,
            _ => *attributes == self.attributes,
        }
    }
}

impl LeaseTable {
    /// An empty table; `own` is this node's lease, which is never reported as a peer.
    #[must_use]
    pub fn new(own: Option<LeaseKey>) -> Self {
        Self { own, ..Self::default() }
    }

    /// Applies one event. Returns exactly the peers that appeared, changed or disappeared; look them up with
    /// [`Self::peer`]. One lease costs O(1), a listing O(leases).
    #[must_use = "these peers have to be reconciled"]
    pub fn apply(&mut self, event: LeaseEvent) -> Vec<LeaseKey> {
        match event {
            LeaseEvent::Resync => {
                self.listing = self.listing.wrapping_add(1);
                Vec::new()
            }
            LeaseEvent::Upsert(lease) => self.upsert(lease).into_iter().collect(),
            LeaseEvent::Malformed { key, .. } => {
                self.mark_listed(key);
                Vec::new()
            }
            LeaseEvent::Remove(key) => self.remove(key).into_iter().collect(),
            LeaseEvent::Settling => self.demote_unlisted(),
            LeaseEvent::Synced { unreadable } => {
                self.synced = true;
                unreadable.into_iter().for_each(|key| self.mark_listed(key));
                self.sweep()
            }
        }
    }

    /// Changes this node's own lease. Returns the peers that this adds and removes: a former own lease that is still in
    /// the store becomes a peer.
    #[must_use = "these peers have to be reconciled"]
    pub fn set_own(&mut self, own: Option<LeaseKey>) -> Vec<LeaseKey> {
        let former = std::mem::replace(&mut self.own, own);
        if former == own {
            return Vec::new();
        }
        let is_other = |key: &LeaseKey| {
            self.leases
                .get(key)
                .is_some_and(|known| !self.is_own_nodes(known.node.as_deref(), &known.attributes))
        };
        [former, own].into_iter().flatten().filter(is_other).collect()
    }

    /// Sets how this node's leases are recognized: a lease of the node with this name is no peer, whatever its subnets; in a
    /// store without names, a lease with exactly these attributes. The store may report a lease of this node before the node
    /// adopts it. Returns the peers that this adds and removes: a clone of this machine has the same attributes until
    /// either changes. Takes O(leases).
    #[must_use = "these peers have to be reconciled"]
    pub fn set_own_node(&mut self, name: Option<String>, attributes: LeaseAttributes) -> Vec<LeaseKey> {
        let own = Some(OwnNode { name, attributes });
        if self.own_node == own {
            return Vec::new();
        }
        let former = std::mem::replace(&mut self.own_node, own);
        let has = |own: &Option<OwnNode>, known: &Known| {
            own.as_ref().is_some_and(|own| own.has(known.node.as_deref(), &known.attributes))
        };
        let changed = self.leases.iter().filter(|(key, known)| {
            Some(**key) != self.own && has(&former, known) != has(&self.own_node, known)
        });
        changed.map(|(key, _)| *key).collect()
    }

    /// Whether this lease is this node's own rather than a peer.
    #[must_use]
    pub fn is_own(&self, lease: &Lease) -> bool {
        Some(lease.key) == self.own || self.is_own_nodes(lease.node.as_deref(), &lease.attributes)
    }

    /// This node's own lease, which is never reported as a peer.
    #[must_use]
    pub fn own(&self) -> Option<LeaseKey> {
        self.own
    }

    /// The attributes of the peer with this lease; `None` if there is no such peer.
    #[must_use]
    pub fn peer(&self, key: LeaseKey) -> Option<&LeaseAttributes> {
        self.leases.get(&key).filter(|known| self.is_peer(key, known)).map(|known| &*known.attributes)
    }

    /// When this lease was created ([`Lease::created`]); 0 if unknown, or if there is no such lease, and [`u64::MAX`] if the
    /// store does not have it any more ([`LeaseEvent::Settling`]).
    #[must_use]
    pub fn created(&self, key: LeaseKey) -> u64 {
        self.leases.get(&key).map_or(0, |known| known.created)
    }

    /// When this node's own lease was created; `None` if the store does not have it.
    #[must_use]
    pub fn own_created(&self) -> Option<u64> {
        Some(self.leases.get(&self.own?)?.created)
    }

    /// Of all leases with this subnet, the one that decides where its packets go: a lease of the node with the oldest
    /// lease.
    ///
    /// A node that changes from one family to two has two leases for a while: `10.244.1.0-24` until it expires, and
    /// `10.244.1.0-24&fd00::-64`. The lease with both families counts. When either ends, the other remains.
    #[must_use]
    pub fn holder(&self, subnet: IpNet) -> Option<LeaseKey> {
        let oldest = self.claimants(subnet).max_by_key(|key| Reverse(self.created(*key)))?;
        let node = self.peer(oldest)?;
        let is_its_own = |key: &LeaseKey| self.peer(*key).is_some_and(|other| other.same_node(node));
        self.claimants(subnet).filter(is_its_own).last().or(Some(oldest))
    }

    /// All peers whose leases contain this subnet, leases with both families last.
    pub fn claimants(&self, subnet: IpNet) -> impl Iterator<Item = LeaseKey> {
        let v4 = match subnet {
            IpNet::V4(v4) => LeaseKey::new(Some(v4), None),
            IpNet::V6(_) => None,
        };
        let v4 = v4.into_iter().flat_map(|first| {
            self.leases.range(first..).map(|(key, _)| *key).take_while(move |key| key.v4() == first.v4())
        });
        let v6 = match subnet {
            IpNet::V4(_) => None,
            IpNet::V6(v6) => LeaseKey::new(None, Some(v6)).map(|first| (v6, first)),
        };
        let v6 = v6.into_iter().flat_map(|(v6, first)| {
            let same = self.by_v6.range((v6, first)..).take_while(move |(net, _)| *net == v6);
            same.map(|(_, key)| *key)
        });
        v4.chain(v6).filter(|key| self.peer(*key).is_some())
    }

    /// All peers, by subnet.
    pub fn peers(&self) -> impl Iterator<Item = (LeaseKey, &LeaseAttributes)> {
        self.known_peers().map(|(key, known)| (key, &*known.attributes))
    }

    /// All peers with shared attributes, to keep them elsewhere without a copy.
    pub fn shared(&self) -> impl Iterator<Item = (LeaseKey, Arc<LeaseAttributes>)> {
        self.known_peers().map(|(key, known)| (key, Arc::clone(&known.attributes)))
    }

    /// Number of peers. Takes O(leases).
    #[must_use]
    pub fn len(&self) -> usize {
        self.known_peers().count()
    }

    /// Whether there are no peers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known_peers().next().is_none()
    }

    /// Whether the table has received a complete listing. Before that, an unknown route may belong to a peer.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced
    }

    fn is_own_nodes(&self, node: Option<&str>, attributes: &LeaseAttributes) -> bool {
        self.own_node.as_ref().is_some_and(|own| own.has(node, attributes))
    }

    fn is_peer(&self, key: LeaseKey, known: &Known) -> bool {
        Some(key) != self.own && !self.is_own_nodes(known.node.as_deref(), &known.attributes)
    }

    fn known_peers(&self) -> impl Iterator<Item = (LeaseKey, &Known)> {
        self.leases.iter().map(|(key, known)| (*key, known)).filter(|(key, known)| self.is_peer(*key, known))
    }

    fn upsert(&mut self, lease: Lease) -> Option<LeaseKey> {
        let Lease { key, attributes, created, node, .. } = lease;
        let (attributes, node) = (Arc::new(attributes), node.map(String::into_boxed_str));
        let known = Known { attributes, created, node, listing: self.listing };
        self.by_v6.extend(key.v6().map(|v6| (v6, key)));
        let is_peer = self.is_peer(key, &known);
        let changed = match self.leases.entry(key) {
            Entry::Occupied(mut entry) => {
                let before = entry.insert(known);
                let is_same = (before.created, &before.attributes) == (created, &entry.get().attributes);
                let was_peer = self.is_peer(key, &before);
                is_peer != was_peer || is_peer && !is_same
            }
            Entry::Vacant(entry) => {
                entry.insert(known);
                is_peer
            }
        };
        changed.then_some(key)
    }

    /// The lease exists, so the end of this listing must not remove it.
    fn mark_listed(&mut self, key: LeaseKey) {
        if let Some(known) = self.leases.get_mut(&key) {
            known.listing = self.listing;
        }
    }

    /// What the store does not have gives way to whatever it has: its age is one of another store.
    fn demote_unlisted(&mut self) -> Vec<LeaseKey> {
        let unlisted = self.leases.iter_mut().filter(|(_, known)| known.listing != self.listing);
        let changed = unlisted.filter_map(|(key, known)| {
            (std::mem::replace(&mut known.created, u64::MAX) != u64::MAX).then_some(*key)
        });
        let changed: Vec<LeaseKey> = changed.collect();
        changed.into_iter().filter(|key| self.peer(*key).is_some()).collect()
    }

    fn sweep(&mut self) -> Vec<LeaseKey> {
        let gone = self.leases.iter().filter(|(_, known)| known.listing != self.listing).map(|(key, _)| *key);
        let gone: Vec<LeaseKey> = gone.collect();
        gone.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: LeaseKey) -> Option<LeaseKey> {
        if let Some(v6) = key.v6() {
            self.by_v6.remove(&(v6, key));
        }
        let known = self.leases.remove(&key)?;
        self.is_peer(key, &known).then_some(key)
    }
}
