//! Peers that differ from what the kernel has, and whether that is known of all of them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::model::objects::Entries;
use crate::model::peer::{Peer, Via};

/// Changes that the kernel does not have yet.
///
/// Invariants: no peer is both in `dirty` and in `refused`. While `in_sync`, the kernel has every peer that is in none of
/// the three exactly as desired, or nothing of a peer that a conflict prevents from being programmed. Otherwise nothing is
/// certain, and the kernel has to be observed first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// Peers to be written, with what the kernel has of them.
    dirty: BTreeMap<IpNet, Option<Programmed>>,
    /// Peers that the kernel refused. They are written again on request, not with every change of other peers.
    refused: BTreeMap<IpNet, Option<Programmed>>,
    /// Peers that differ, and were not repaired on request ([`Overlay::hold`](crate::Overlay::hold)).
    withheld: BTreeSet<IpNet>,
    /// Peers with a change that a plan may not have written yet, unless it is in `dirty` or `refused`.
    requested: BTreeSet<IpNet>,
    /// Whether the same is true of a family.
    is_family_requested: bool,
    in_sync: bool,
}

/// What the kernel has of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Programmed {
    pub(crate) via: Via,
    /// ID of its nexthop object; 0 if it has none.
    pub(crate) nexthop_id: u32,
    /// Whether the kernel's route is certainly this crate's, so that it may be replaced without reading it first.
    pub(crate) is_certain: bool,
}

impl Programmed {
    pub(crate) fn entries(&self, subnet: IpNet) -> Entries {
        Entries::of(Peer { subnet, via: self.via }, self.nexthop_id)
    }
}

impl Pending {
    pub(crate) fn is_in_sync(&self) -> bool {
        self.in_sync
    }

    /// The kernel may have changed: it has to be observed.
    pub(crate) fn invalidate(&mut self) {
        self.in_sync = false;
    }

    /// Notes changes of these peers while the kernel has to be observed.
    pub(crate) fn request(&mut self, subnets: impl IntoIterator<Item = IpNet>) {
        self.requested.extend(subnets);
    }

    /// Notes a change of a family, which may concern all peers. The kernel has to be observed.
    pub(crate) fn request_family(&mut self) {
        self.is_family_requested = true;
        self.invalidate();
    }

    /// Peers with a change that is not written yet.
    pub(crate) fn requested(&self) -> impl Iterator<Item = IpNet> {
        self.dirty.keys().chain(self.refused.keys()).chain(&self.requested).copied()
    }

    pub(crate) fn is_family_requested(&self) -> bool {
        self.is_family_requested
    }

    /// The kernel was observed, and a plan contains every difference except those of `withheld` peers.
    pub(crate) fn start_over(&mut self, withheld: BTreeSet<IpNet>) {
        let requested = self.requested().collect();
        let is_family_requested = self.is_family_requested;
        *self = Self { withheld, requested, is_family_requested, in_sync: true, ..Self::default() };
    }

    /// A plan was carried out. Unless the kernel has to be observed again, it has every change that it did not refuse.
    pub(crate) fn confirm(&mut self) {
        if self.in_sync {
            self.requested.clear();
            self.is_family_requested = false;
        }
    }

    /// Whether no peer is to be written or refused.
    pub(crate) fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.refused.is_empty()
    }

    /// Notes that this peer is to be written. `programmed`: what the kernel has of it, unless a change of it is noted
    /// already.
    pub(crate) fn mark(&mut self, subnet: IpNet, programmed: Option<Programmed>) {
        self.withheld.remove(&subnet);
        let programmed = self.refused.remove(&subnet).unwrap_or(programmed);
        self.dirty.entry(subnet).or_insert(programmed);
    }

    /// ID of the nexthop object that the kernel has for a peer to be written; 0 if none.
    pub(crate) fn programmed_nexthop_id(&self, subnet: IpNet) -> u32 {
        self.dirty.get(&subnet).copied().flatten().map_or(0, |programmed| programmed.nexthop_id)
    }

    /// Takes the peers to be written.
    pub(crate) fn take_dirty(&mut self) -> BTreeMap<IpNet, Option<Programmed>> {
        self.requested.extend(self.dirty.keys());
        std::mem::take(&mut self.dirty)
    }

    /// The kernel refused a step of this peer. The first refusal of a plan counts.
    pub(crate) fn refuse(&mut self, subnet: IpNet, programmed: Programmed) {
        self.refused.entry(subnet).or_insert(Some(programmed));
    }

    /// Another program has the ID of a refused peer's nexthop object, so the kernel has none for the peer.
    pub(crate) fn forget_nexthop(&mut self, subnet: IpNet) {
        if let Some(Some(programmed)) = self.refused.get_mut(&subnet) {
            programmed.nexthop_id = 0;
        }
    }

    /// The refused peers are to be written again.
    pub(crate) fn retry(&mut self) {
        self.dirty.append(&mut self.refused);
    }

    /// Peers that the kernel does not have as desired.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.dirty.keys().chain(self.refused.keys()).chain(&self.withheld).copied()
    }

    pub(crate) fn refused_count(&self) -> usize {
        self.refused.len()
    }

    pub(crate) fn withheld_count(&self) -> usize {
        self.withheld.len()
    }

    pub(crate) fn is_refused(&self, subnet: IpNet) -> bool {
        self.refused.contains_key(&subnet)
    }
}
