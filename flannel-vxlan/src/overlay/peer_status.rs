//! What operators should know about single peers, and what of it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::peer::Via;
use crate::overlay::conflict::{PeerConflict, Rules};

/// Something about a peer that operators should know.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerStatus {
    /// The peer is not programmed.
    #[error("is not programmed: {0}")]
    NotProgrammed(PeerConflict),
    /// The subnet contains the subnet of another peer. Both may be programmed; packets for the inner subnet go to the
    /// other peer.
    #[error("contains {0}, the subnet of node {1}")]
    HoldsSubnet(IpNet, IpAddr),
    /// Another peer with a lower subnet has the same underlay address; both are programmed. See [`Overlay::peers_at`].
    ///
    /// [`Overlay::peers_at`]: crate::Overlay::peers_at
    #[error("has the underlay address {0}, which a peer with a lower subnet also has")]
    SharesUnderlay(IpAddr),
}

/// A change of one peer's status since the last report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerStatusChange {
    /// Subnet of the peer.
    pub peer: IpNet,
    /// The status last reported; `None`: nothing to report.
    pub before: Option<PeerStatus>,
    /// The current status; `None`: nothing to report, or the peer was removed.
    pub now: Option<PeerStatus>,
}

/// The status of all peers. Peers without anything to report take no space.
///
/// Invariant: `changed` contains exactly the peers whose `current` and `reported` differ.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerStatuses {
    current: BTreeMap<IpNet, PeerStatus>,
    reported: BTreeMap<IpNet, PeerStatus>,
    changed: BTreeSet<IpNet>,
}

impl PeerStatuses {
    /// Sets the status of one peer.
    pub(crate) fn set(&mut self, subnet: IpNet, status: Option<PeerStatus>) {
        match status {
            Some(status) => drop(self.current.insert(subnet, status)),
            None => drop(self.current.remove(&subnet)),
        }
        if self.reported.get(&subnet) == status.as_ref() {
            self.changed.remove(&subnet);
        } else {
            self.changed.insert(subnet);
        }
    }

    /// Sets the status of all peers.
    pub(crate) fn replace(&mut self, current: BTreeMap<IpNet, PeerStatus>) {
        let Self { reported, changed, .. } = self;
        changed.clear();
        let outdated = reported.iter().filter(|(subnet, status)| current.get(*subnet) != Some(*status));
        changed.extend(outdated.map(|(subnet, _)| *subnet));
        let new = current.iter().filter(|(subnet, status)| reported.get(*subnet) != Some(*status));
        changed.extend(new.map(|(subnet, _)| *subnet));
        self.current = current;
    }

    /// The changes since the last call. Costs as much as there are changes.
    pub(crate) fn take_changes(&mut self) -> Vec<PeerStatusChange> {
        let Self { current, reported, changed } = self;
        let report = |peer: IpNet| {
            let now = current.get(&peer).copied();
            let before = match now {
                Some(now) => reported.insert(peer, now),
                None => reported.remove(&peer),
            };
            (before != now).then_some(PeerStatusChange { peer, before, now })
        };
        std::mem::take(changed).into_iter().filter_map(report).collect()
    }

    /// The conflict that prevents this peer from being programmed.
    pub(crate) fn conflict(&self, subnet: IpNet) -> Option<PeerConflict> {
        match self.current.get(&subnet) {
            Some(PeerStatus::NotProgrammed(conflict)) => Some(*conflict),
            _ => None,
        }
    }

    /// Number of peers that conflicts prevent from being programmed.
    pub(crate) fn conflict_count(&self) -> usize {
        self.current.values().filter(|status| matches!(status, PeerStatus::NotProgrammed(_))).count()
    }
}

/// The status of one peer.
pub(crate) fn status_of(rules: Rules<'_>, subnet: IpNet) -> Option<PeerStatus> {
    let underlay = rules.peers.get(subnet)?.via.underlay();
    rules
        .conflict_of(subnet)
        .map(PeerStatus::NotProgrammed)
        .or_else(|| holds(rules, rules.peers.first_inside(subnet)?))
        .or_else(|| shares_underlay(rules, underlay, subnet).then_some(PeerStatus::SharesUnderlay(underlay)))
}

/// The status of a peer whose subnet contains the subnet of this peer.
fn holds(rules: Rules<'_>, inner: IpNet) -> Option<PeerStatus> {
    Some(PeerStatus::HoldsSubnet(inner, rules.peers.get(inner)?.via.underlay()))
}

/// Whether another peer with a lower subnet has this underlay address. Subnets with the same key belong to the same peer.
fn shares_underlay(rules: Rules<'_>, underlay: IpAddr, subnet: IpNet) -> bool {
    let key = |subnet| match rules.peers.get(subnet)?.via {
        Via::Key { key, .. } => Some(key),
        _ => None,
    };
    let first = rules.peers.with_underlay(underlay).next().filter(|first| *first != subnet);
    first.is_some_and(|first| key(first).is_none() || key(first) != key(subnet))
}

/// The status of all peers, given all conflicts. The same as [`status_of`] for each peer.
pub(crate) fn all_statuses(
    rules: Rules<'_>,
    conflicts: &[(IpNet, PeerConflict)],
) -> BTreeMap<IpNet, PeerStatus> {
    let mut all = BTreeMap::new();
    let shared = rules.peers.shared_underlays();
    let shared = shared.filter(|(address, subnet)| shares_underlay(rules, *address, *subnet));
    all.extend(shared.map(|(address, subnet)| (subnet, PeerStatus::SharesUnderlay(address))));
    let nested = rules.peers.nested_subnets();
    all.extend(nested.filter_map(|(outer, inner)| Some((outer, holds(rules, inner)?))));
    all.extend(conflicts.iter().map(|(subnet, conflict)| (*subnet, PeerStatus::NotProgrammed(*conflict))));
    all
}
