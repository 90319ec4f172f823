//! Turns the lease store's events into the overlay's peers.

use std::mem;
use std::net::IpAddr;

use ipnet::IpNet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Reconciler;
use super::incomplete_leases::{Gap, IncompleteLeases, keep_known, with_address};
use super::log_limit::{ChangeLog, LogDecision, LogOnce};
use super::overlay::OverlayState;
use crate::desired::{NodeSpec, VtepMacs, with_other_macs};
use crate::status::counters::Object;
use crate::status::readiness::update;
use flannel_lease::{Chain, Gaps, Lease, LeaseAttributes, LeaseEvent, LeaseKey, LeaseTable};

/// What the lease store says of all nodes, and what flanneld knows of leases that say too little.
#[derive(Debug)]
pub(super) struct LeaseView {
    table: LeaseTable,
    gaps: IncompleteLeases,
    /// Leases that give no peer, or contradict another.
    problems: LogOnce,
    /// Changes of each lease that were logged in the last minute.
    changes: ChangeLog,
    /// From when on peers are written although the store has not listed all leases; `None` if no peer was restored.
    use_restored_from: Option<Instant>,
}

/// Names the node of a lease, for a text about the lease; empty if it is unknown.
fn of_node(lease: Option<&LeaseAttributes>) -> String {
    lease.map(|lease| format!(" of the node {}", lease.public_address())).unwrap_or_default()
}

impl LeaseView {
    /// A view without leases of a node that holds `own` and wants to publish `attributes`.
    pub(super) fn new(own: &Lease, attributes: LeaseAttributes) -> Self {
        let mut table = LeaseTable::new(Some(own.key));
        let _none = table.set_own_node(own.node.clone(), attributes);
        Self {
            table,
            gaps: IncompleteLeases::default(),
            problems: LogOnce::default(),
            changes: ChangeLog::default(),
            use_restored_from: None,
        }
    }

    pub(super) fn table(&self) -> &LeaseTable {
        &self.table
    }

    pub(super) fn gaps(&self) -> &IncompleteLeases {
        &self.gaps
    }

    /// Whether the store has listed all leases.
    pub(super) fn is_listed(&self) -> bool {
        self.table.synced()
    }

    /// Whether the peers are all that are known: the store's, or the restored ones.
    pub(super) fn is_complete(&self) -> bool {
        self.is_listed() || self.use_restored_from.is_some()
    }

    /// When work that is due `at` may be done: not before the first listing, unless peers were restored.
    pub(super) fn usable_from(&self, at: Instant) -> Option<Instant> {
        if self.is_listed() { Some(at) } else { Some(at.max(self.use_restored_from?)) }
    }

    /// Whether to log a change of this lease: not if it changes again and again, which is logged once a minute.
    fn should_log(&mut self, key: LeaseKey) -> bool {
        let now = Instant::now();
        let decisions: Vec<_> = key.subnets().map(|subnet| self.changes.changed(subnet, now)).collect();
        if decisions.contains(&LogDecision::Summarize) {
            let node = of_node(self.table.peer(key));
            warn!(
                "lease {key}{node} changed more than 30 times in one minute: flanneld applies every change, but does not log it \
                 for the rest of the minute; other leases are not affected. Check whether flanneld restarts again and again \
                 on the node that publishes it, or runs on two nodes with this lease"
            );
        }
        decisions.iter().all(|decision| *decision == LogDecision::Write)
    }

    /// Whether enough of this subnet's lease has been logged.
    pub(super) fn is_quiet(&self, subnet: IpNet) -> bool {
        self.changes.is_quiet(subnet)
    }

    /// Lets restored peers be written at `from` although the store has not listed all leases.
    pub(super) fn use_restored_from(&mut self, from: Instant) {
        self.use_restored_from = Some(from);
    }
}

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Applies one event of the lease store.
    pub(super) fn apply_lease_event(&mut self, event: LeaseEvent) {
        let listed = matches!(event, LeaseEvent::Synced { .. });
        if let LeaseEvent::Upsert(Lease { key, .. })
        | LeaseEvent::Malformed { key, .. }
        | LeaseEvent::Remove(key) = &event
        {
            self.leases.gaps.log = self.leases.should_log(*key);
        }
        let mut noted = false;
        let event = match event {
            LeaseEvent::Upsert(mut lease) => {
                noted = self.note_gaps(&mut lease);
                LeaseEvent::Upsert(lease)
            }
            LeaseEvent::Malformed { key, problem } => {
                noted = self.note_malformed(key, &problem);
                LeaseEvent::Malformed { key, problem }
            }
            LeaseEvent::Resync => {
                self.leases.gaps.start_listing();
                event
            }
            LeaseEvent::Settling => event,
            LeaseEvent::Synced { .. } => {
                noted = self.leases.gaps.end_listing();
                event
            }
            LeaseEvent::Remove(key) => {
                noted = self.leases.gaps.forget(key);
                event
            }
        };
        self.outputs.counters.lease_event_received();
        let changed = self.leases.table.apply(event);
        if noted {
            self.note_incomplete();
        }
        self.update_peers(&changed);
        if listed {
            self.expect_overlay();
        }
    }

    /// Takes what has changed in the table into the overlay.
    fn update_peers(&mut self, changed: &[LeaseKey]) {
        for key in changed {
            if self.leases.table.peer(*key).is_none() && self.leases.gaps.forget(*key) {
                self.note_incomplete();
            }
            self.update_peer(*key);
        }
        if !changed.is_empty() {
            self.expect_overlay();
        }
    }

    fn note_incomplete(&self) {
        let note = self.leases.gaps.note();
        update(&self.outputs.readiness, |readiness| readiness.note("leases", note));
    }

    /// The overlay has to be written, and the state file soon.
    fn expect_overlay(&mut self) {
        self.outputs.counters.expect(Object::Overlay);
        self.due.overlay.now();
        if self.due.state.at.is_none() {
            self.due.state.at = Some(Instant::now() + self.save_delay());
        }
    }

    /// Fills what a lease lacks with what is known of its node. Returns whether there is anything new to report.
    fn note_gaps(&mut self, lease: &mut Lease) -> bool {
        let gaps = mem::take(&mut lease.gaps);
        if self.leases.table.is_own(lease) {
            return self.leases.gaps.forget(lease.key);
        }
        let found = match self.leases.table.peer(lease.key) {
            None if gaps.is_empty() => Vec::new(),
            Some(known)
                if gaps.is_empty() && *known == lease.attributes && !self.leases.gaps.has_any(lease.key) =>
            {
                return false;
            }
            known => keep_known(&self.spec, lease.key, known, &gaps, &mut lease.attributes),
        };
        self.leases.gaps.set(lease.key, found)
    }

    /// The same for a lease that cannot be read at all.
    fn note_malformed(&mut self, key: LeaseKey, problem: &str) -> bool {
        if Some(key) == self.leases.table.own() {
            return false; // it is published again
        }
        let gaps = Gaps::all(key, problem);
        let gap = |subnet: IpNet| {
            let used = match subnet {
                IpNet::V4(_) => self.spec.facts.ipv4.is_some(),
                IpNet::V6(_) => self.spec.ipv6().is_some(),
            };
            let text = gaps.of(subnet).filter(|_| used)?.to_owned();
            let text = match self.leases.table.peer(key) {
                Some(known) => with_address(text, known),
                None => text,
            };
            Some((subnet, Gap { text, kept: self.overlay.desired.peer(subnet).is_some() }))
        };
        let found = key.subnets().filter_map(gap).collect();
        self.leases.gaps.set(key, found)
    }

    /// Puts what is now known of a lease's subnets into the overlay, or takes them out.
    pub(super) fn update_peer(&mut self, key: LeaseKey) {
        let Self { spec, leases: LeaseView { table: leases, gaps, problems, changes, .. }, overlay, .. } =
            self;
        let OverlayState { desired: overlay, kernel: links, .. } = overlay;
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
                    let (node, second) = (of_node(Some(followed)), of_node(leases.peer(other)));
                    format!(
                        "leases {holder}{node} and {other}{second} are both for {subnet}: its packets go to the first node, and \
                         pods of the second are unreachable; delete the lease that is not in use, which flanneld then notices"
                    )
                }));
            }
            let since = holder.map_or(0, |(holder, _)| leases.created(holder));
            let loud = !changes.is_quiet(subnet);
            let peer = holder.and_then(|(holder, lease)| spec.peer(holder, subnet, lease, &mut on_link));
            match peer {
                Some(Ok(peer))
                    if (overlay.peer(subnet), overlay.peer_since(subnet)) == (Some(peer), since) => {}
                Some(Ok(peer)) => {
                    // Why it is not programmed, if so, is told after the next pass, which knows more.
                    let is_new = overlay.peer(subnet) != Some(peer);
                    if overlay.set_peer_since(peer, since).is_ok() && is_new && loud {
                        info!("Subnet added: {subnet} via {}", peer.via.underlay());
                    }
                }
                unusable => {
                    if let Some(Err(skipped)) = unusable
                        && gaps.of(key, subnet).is_none()
                    {
                        let node = of_node(holder.map(|(_, lease)| lease));
                        said.push(format!(
                            "Ignoring lease {key}{node}: {skipped}; this node does not reach pods in {subnet} until flanneld on \
                             that node publishes a usable lease: compare its network configuration with this node's, and check \
                             that it runs"
                        ));
                    }
                    if overlay.remove_peer(subnet) && loud {
                        info!("Subnet removed: {subnet}");
                    }
                }
            }
            if loud {
                problems.set(subnet, said);
            }
        }
    }

    pub(super) fn update_all_peers(&mut self) {
        let keys: Vec<LeaseKey> = self.leases.table.peers().map(|(key, _)| key).collect();
        for key in keys {
            self.update_peer(key);
        }
    }

    /// Tells the table what this node wants to publish: leases like that are its own, whatever their subnets.
    pub(super) fn update_own_node(&mut self) {
        let attributes = self.outputs.attributes.borrow().clone();
        let changed = self.leases.table.set_own_node(self.lease.node.clone(), attributes);
        self.update_peers(&changed);
    }

    pub(super) fn adopt_lease(&mut self, lease: Lease) {
        let former = mem::replace(&mut self.lease, lease).key;
        let is_other_subnet = former != self.lease.key;
        self.due.state.now();
        if is_other_subnet {
            error!(
                "the subnet of this node changed from {former} to {}: other nodes no longer reach running pods with addresses \
                 of {former}. Delete the bridge of the pods if it has an address of {former} (`ip link del cni0`), then these \
                 pods, so that they are created again with new addresses",
                self.lease.key
            );
            self.host.note_former(Some(former), self.lease.key);
            self.due.host.now();
            let changed = self.leases.table.set_own(Some(self.lease.key));
            self.update_peers(&changed);
        }
        self.update_own_node();
        // Its MAC addresses are others than before if another node publishes those, whether or not the subnet is the same.
        let macs = self.published_macs();
        if is_other_subnet || macs != self.spec.macs {
            self.adopt_macs(macs);
        }
    }

    /// Takes other MAC addresses if an older node publishes this node's; peers leave the younger of two such nodes out.
    ///
    /// The store refuses the MAC addresses of another node only as far as it sees them: another process may have changed the
    /// other node's lease at that moment.
    pub(super) fn give_up_shared_macs(&mut self) {
        let table = &self.leases.table;
        let (own, Some(created)) = (self.lease.key, table.own_created()) else { return };
        let published = self.outputs.attributes.borrow().clone();
        let is_twin = |(key, peer): &(LeaseKey, &LeaseAttributes)| {
            let is_older = (table.created(*key), *key) < (created, own);
            is_older && peer.publishes_data_of(&published) && !peer.same_node(&published)
        };
        let Some((key, twin)) = table.peers().find(is_twin) else { return };
        let Some(others) = with_other_macs(&published) else { return };
        warn!(
            "the node {} with lease {key}, which is the older lease, has this node's VTEP MAC address: check whether one machine is a \
             clone of the other. This node takes another MAC address, so that peers reach both",
            twin.public_address()
        );
        self.lease.attributes = others;
        self.due.state.now();
        self.adopt_macs(self.published_macs());
    }

    fn published_macs(&self) -> VtepMacs {
        let NodeSpec { net_conf, facts, .. } = &self.spec;
        VtepMacs::choose(net_conf, facts, &self.config.asked.host_name, Some(&self.lease.attributes))
    }

    fn adopt_macs(&mut self, macs: VtepMacs) {
        if let Err(error) = self.adopt_spec(NodeSpec { macs, ..self.spec.clone() }) {
            error!(
                "cannot publish this node's new VTEP MAC addresses; other nodes do not reach its pods. Restart flanneld: {}",
                Chain(&error)
            );
        }
    }
}
