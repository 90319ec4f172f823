//! What there is to say about peers, and what of it is news.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Overlay, PeerConflict};

/// Something about a peer that whoever runs the overlay should know.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerStatus {
    /// It is kept out.
    #[error("is not programmed: {0}")]
    NotProgrammed(PeerConflict),
    /// It is programmed, and so may be another one with this part of its subnet, which then gets its own packets.
    #[error("holds {0}, the subnet of another peer")]
    HoldsSubnet(IpNet),
    /// It is programmed, but another one with a lower subnet has the same underlay address: see [`Overlay::peers_at`].
    #[error("has the underlay address {0} of another peer")]
    SharesUnderlay(IpAddr),
}

/// What changed about one peer since it was last told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerStatusChange {
    /// Its subnet.
    pub peer: IpNet,
    /// What was said last; `None`: nothing.
    pub before: Option<PeerStatus>,
    /// What there is to say now; `None`: nothing, or the peer is gone.
    pub now: Option<PeerStatus>,
}

/// Only peers of which there is something to say take room here.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerStatuses {
    now: BTreeMap<IpNet, PeerStatus>,
    told: BTreeMap<IpNet, PeerStatus>,
    /// Where the two may differ.
    news: BTreeSet<IpNet>,
}

impl PeerStatuses {
    fn note(&mut self, subnet: IpNet, remark: Option<PeerStatus>) {
        match remark {
            Some(remark) => drop(self.now.insert(subnet, remark)),
            None => drop(self.now.remove(&subnet)),
        }
        if self.told.get(&subnet) == remark.as_ref() {
            self.news.remove(&subnet);
        } else {
            self.news.insert(subnet);
        }
    }

    pub(crate) fn conflict(&self, subnet: IpNet) -> Option<PeerConflict> {
        match self.now.get(&subnet) {
            Some(PeerStatus::NotProgrammed(conflict)) => Some(*conflict),
            _ => None,
        }
    }

    /// Number of peers that conflicts keep out.
    pub(crate) fn kept_out(&self) -> usize {
        self.now.values().filter(|remark| matches!(remark, PeerStatus::NotProgrammed(_))).count()
    }
}

impl Overlay {
    /// What changed since this was last asked: peers that conflicts keep out now, or no longer, and peers that share an
    /// underlay address. Costs as much as there is to tell. To be asked after a flush: before the first one it is not
    /// known what this host has that peers could harm.
    pub fn take_status_changes(&mut self) -> Vec<PeerStatusChange> {
        let PeerStatuses { now, told, news } = &mut self.remarks;
        let tell = |peer: IpNet| {
            let now = now.get(&peer).copied();
            let before = match now {
                Some(now) => told.insert(peer, now),
                None => told.remove(&peer),
            };
            (before != now).then_some(PeerStatusChange { peer, before, now })
        };
        std::mem::take(news).into_iter().filter_map(tell).collect()
    }

    /// Considers these peers again.
    pub(crate) fn look_again(&mut self, touched: Vec<IpNet>) -> bool {
        for subnet in &touched {
            let remark = self.remark(*subnet);
            self.remarks.note(*subnet, remark);
        }
        !touched.is_empty()
    }

    /// Takes the conflicts that a look at all peers found.
    pub(crate) fn note_remarks(&mut self, conflicts: Vec<(IpNet, PeerConflict)>) {
        let mut now = BTreeMap::new();
        let pairs = self.underlays.iter().zip(self.underlays.iter().skip(1));
        let shared = pairs.filter(|(one, other)| one.0 == other.0).map(|(_, other)| *other);
        now.extend(shared.map(|(address, subnet)| (subnet, PeerStatus::SharesUnderlay(address))));
        let pairs = self.peers.keys().zip(self.peers.keys().skip(1));
        let nested = pairs.filter(|(outer, inner)| outer.contains(*inner));
        now.extend(nested.map(|(outer, inner)| (*outer, PeerStatus::HoldsSubnet(*inner))));
        now.extend(
            conflicts.into_iter().map(|(subnet, conflict)| (subnet, PeerStatus::NotProgrammed(conflict))),
        );
        let PeerStatuses { told, news, .. } = &mut self.remarks;
        news.clear();
        news.extend(
            told.iter().filter(|(subnet, remark)| now.get(*subnet) != Some(*remark)).map(|said| *said.0),
        );
        news.extend(
            now.iter().filter(|(subnet, remark)| told.get(*subnet) != Some(*remark)).map(|said| *said.0),
        );
        self.remarks.now = now;
    }

    fn remark(&self, subnet: IpNet) -> Option<PeerStatus> {
        let via = self.peers.get(&subnet)?.via;
        let conflict = self.conflict(subnet, via).map(PeerStatus::NotProgrammed);
        let shares = || self.peers_at(via.underlay()).next().filter(|first| *first != subnet);
        conflict
            .or_else(|| self.inner(subnet).map(PeerStatus::HoldsSubnet))
            .or_else(|| shares().map(|_| PeerStatus::SharesUnderlay(via.underlay())))
    }
}
