//! From the store's events to the overlay's peers.

use std::mem;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Reconciler;
use super::lease_gaps::{Gap, keep_known};
use crate::status::counters::Object;
use crate::status::readiness::update;
use flannel_lease::{Gaps, Lease, LeaseEvent, LeaseKey};

/// How long changes of leases are collected before they are written to the state file, which is written whole: with this
/// much more per peer the writing takes a few percent of a processor at most.
const SAVE_DELAY: Duration = Duration::from_secs(5);
const SAVE_DELAY_PER_PEER: Duration = Duration::from_micros(100);

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Takes in one event of the store.
    pub(super) fn apply_lease_event(&mut self, event: LeaseEvent) {
        let listed = matches!(event, LeaseEvent::Synced { .. });
        let mut noted = false;
        let event = match event {
            // Its own lease is nobody's peer, whatever its subnet: the store may report a new one before it is adopted.
            LeaseEvent::Upsert(lease) if self.is_own(&lease) => LeaseEvent::Remove(lease.key),
            LeaseEvent::Upsert(mut lease) => {
                noted = self.note_gaps(&mut lease);
                LeaseEvent::Upsert(lease)
            }
            LeaseEvent::Malformed { key, problem } => {
                noted = self.note_malformed(key, &problem);
                LeaseEvent::Malformed { key, problem }
            }
            LeaseEvent::Resync => {
                self.gaps.start_listing();
                event
            }
            LeaseEvent::Synced { .. } => {
                noted = self.gaps.end_listing();
                event
            }
            LeaseEvent::Remove(key) => {
                noted = self.gaps.forget(key);
                event
            }
        };
        self.outputs.counters.lease_event_received();
        let changed = self.leases.apply(event);
        for key in &changed {
            if self.leases.peer(*key).is_none() {
                noted |= self.gaps.forget(*key);
            }
            self.update_peer(*key);
        }
        if noted {
            let note = self.gaps.note();
            update(&self.outputs.readiness, |readiness| readiness.note("leases", note));
        }
        if listed || !changed.is_empty() {
            self.outputs.counters.expect(Object::Overlay);
            self.due.overlay.now();
            let pause = self.save_delay();
            self.due.state.at.get_or_insert_with(|| Instant::now() + pause);
        }
    }

    /// Whether a lease is this node's own: by the node's name, or, in a store without names, by what it says.
    fn is_own(&self, lease: &Lease) -> bool {
        match (&self.lease.node, &lease.node) {
            (Some(own), Some(node)) => own == node,
            _ => lease.attributes == *self.outputs.attributes.borrow(),
        }
    }

    /// Fills what a lease lacks with what is known of its node. Returns whether there is anything new to report.
    fn note_gaps(&mut self, lease: &mut Lease) -> bool {
        let gaps = mem::take(&mut lease.gaps);
        if Some(lease.key) == self.leases.own() {
            return false;
        }
        let found = match self.leases.peer(lease.key) {
            None if gaps.is_empty() => Vec::new(),
            Some(known) if gaps.is_empty() && *known == lease.attributes && !self.gaps.has_any(lease.key) => {
                return false;
            }
            known => keep_known(&self.spec, lease.key, known, &gaps, &mut lease.attributes),
        };
        self.gaps.set(lease.key, found)
    }

    /// The same for a lease that cannot be read at all.
    fn note_malformed(&mut self, key: LeaseKey, problem: &str) -> bool {
        if Some(key) == self.leases.own() {
            return false; // it is published again
        }
        let gaps = Gaps::all(key, problem);
        let gap = |subnet: IpNet| {
            let used = match subnet {
                IpNet::V4(_) => self.spec.facts.ipv4.is_some(),
                IpNet::V6(_) => self.spec.facts.ipv6.is_some(),
            };
            let text = gaps.of(subnet).filter(|_| used)?.to_owned();
            Some((subnet, Gap { text, kept: self.overlay.peer(subnet).is_some() }))
        };
        let found = key.subnets().filter_map(gap).collect();
        self.gaps.set(key, found)
    }

    pub(super) fn save_delay(&self) -> Duration {
        SAVE_DELAY + SAVE_DELAY_PER_PEER * u32::try_from(self.leases.len()).unwrap_or(u32::MAX)
    }

    /// Puts what is now known of a lease's subnets into the overlay, or takes them out.
    pub(super) fn update_peer(&mut self, key: LeaseKey) {
        let Self { spec, leases, overlay, links, lease_warnings, gaps, .. } = self;
        let mut on_link = |address: IpAddr| {
            let way = links.route_to(address).ok().flatten();
            way.is_some_and(|way| way.gateway.is_none() && way.interface == spec.facts.index)
        };
        for subnet in key.subnets() {
            let holder = leases.holder(subnet).and_then(|holder| Some((holder, leases.peer(holder)?)));
            let mut said = Vec::new();
            if let Some((holder, followed)) = holder {
                let others = leases.claimants(subnet).filter(|other| {
                    leases.peer(*other).is_some_and(|attributes| !followed.same_node(attributes))
                });
                said.extend(others.map(|other| {
                    format!(
                        "leases {holder} and {other} of two nodes are for {subnet}: its packets go to that of {holder}"
                    )
                }));
            }
            let peer = holder.and_then(|(holder, lease)| spec.peer(holder, subnet, lease, &mut on_link));
            match peer {
                Some(Ok(peer)) if overlay.peer(subnet) == Some(peer) => {}
                Some(Ok(peer)) => {
                    // Why it is not programmed, if so, is told after the next pass, which knows more.
                    if overlay.set_peer(peer).is_ok() {
                        info!("Subnet added: {subnet} via {}", peer.via.underlay());
                    }
                }
                unusable => {
                    if let Some(Err(skipped)) = unusable
                        && gaps.of(key, subnet).is_none()
                    {
                        said.push(format!("Ignoring lease {key}: {skipped}"));
                    }
                    if overlay.remove_peer(subnet) {
                        info!("Subnet removed: {subnet}");
                    }
                }
            }
            lease_warnings.set(subnet, said);
        }
    }

    pub(super) fn update_all_peers(&mut self) {
        let keys: Vec<LeaseKey> = self.leases.peers().map(|(key, _)| key).collect();
        for key in keys {
            self.update_peer(key);
        }
    }

    pub(super) fn adopt_lease(&mut self, lease: Lease) {
        let former = self.lease.key;
        let changed = former != lease.key;
        self.lease = lease;
        self.due.state.now();
        if !changed {
            return;
        }
        warn!(subnet = %self.lease.key, "this node has another subnet now; pods that run keep their old addresses");
        self.host.note_former(Some(former), self.lease.key);
        self.due.facts.now();
        for key in self.leases.set_own(Some(self.lease.key)) {
            self.update_peer(key);
        }
        self.apply_spec();
    }
}
