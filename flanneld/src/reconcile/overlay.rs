//! The rtnetlink side: VXLAN devices, peers and routes.

use std::collections::BTreeSet;

use flannel_vxlan::{
    Errno, Family, FamilySpec, Overlay, Part, PeerStatus, PeerStatusChange, RefusedStep, Report, Written,
};
use ipnet::IpNet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Reconciler;
use super::due::Due;
use super::error::{Pass, PassError};
use super::leases::LeaseView;
use super::repair_backoff::Subject;
use crate::desired::conflict_advice;
use crate::status::counters::Object;
use crate::status::readiness::{Condition, update};

/// Changes of peers that are logged one by one after each pass.
const MAX_LOGGED_CHANGES: usize = 50;

/// The desired overlay and the kernel that holds it.
#[derive(Debug)]
pub(super) struct OverlayState<L> {
    pub(super) kernel: L,
    pub(super) desired: Overlay,
    /// Refused steps that are logged already, with the peer that each concerns.
    logged_refusals: BTreeSet<(Option<IpNet>, String)>,
}

impl<L> OverlayState<L> {
    pub(super) fn new(kernel: L, families: Vec<FamilySpec>) -> Self {
        Self { kernel, desired: Overlay::new(families), logged_refusals: BTreeSet::new() }
    }

    /// A node stays ready while the kernel refuses some of its peers, which may be the peers' fault, but not all of them.
    fn peers_condition(&self) -> Result<(), String> {
        let mut refused = self.logged_refusals.iter().filter(|(peer, _)| peer.is_some());
        match refused.next() {
            Some((_, reason)) if self.desired.programmed() == 0 => {
                Err(format!("none is programmed: {reason}"))
            }
            _ => Ok(()),
        }
    }

    /// Logs each change of a peer's status.
    fn log_peer_changes(&mut self, leases: &LeaseView) {
        let mut changes = self.desired.take_status_changes();
        changes.retain(|change| !leases.is_quiet(change.peer));
        let named = |peer: IpNet| match self.desired.peer(peer) {
            Some(found) => format!("{peer} (node {})", found.via.underlay()),
            None => peer.to_string(),
        };
        for PeerStatusChange { peer, before, now } in changes.iter().take(MAX_LOGGED_CHANGES) {
            match (now, before) {
                (Some(PeerStatus::SharesUnderlay(address)), _) => {
                    let other = self.desired.peers_at(*address).next().unwrap_or(*peer);
                    warn!(
                        "peers {other} and {peer} publish the same public address {address}; flanneld programs both. Unless one host has both subnets, one lease is stale and the pods of one subnet are unreachable: delete the stale lease"
                    );
                }
                (Some(status @ PeerStatus::HoldsSubnet(inner, _)), _) => {
                    let effect = match self.desired.conflict_of(*inner) {
                        None => {
                            "which gets the packets to these addresses, so that pods of this peer that have them are not reached"
                        }
                        Some(_) => {
                            "which is not programmed, so that this peer gets the packets to these addresses"
                        }
                    };
                    warn!(
                        "peer {} {status}, {effect}. Delete the lease that is not in use; if both are, give one node another subnet",
                        named(*peer)
                    );
                }
                (Some(status @ PeerStatus::NotProgrammed(conflict)), _) => error!(
                    "peer {} {status}; this node does not reach pods in {peer}, until this is corrected: {}",
                    named(*peer),
                    conflict_advice(conflict)
                ),
                (Some(status), _) => warn!("peer {} {status}", named(*peer)),
                (None, Some(PeerStatus::NotProgrammed(_))) if self.desired.peer(*peer).is_some() => {
                    info!("peer {peer} is programmed again");
                }
                (None, _) => {}
            }
        }
        if let Some(more @ 1..) = changes.len().checked_sub(MAX_LOGGED_CHANGES) {
            warn!(
                "the status of {more} further peers changed, which are not logged one by one; `flanneld status --peers` lists those that are not programmed"
            );
        }
    }

    /// Logs each refused step once, however often it is tried.
    fn log_refused(&mut self, report: &Report) {
        let now: BTreeSet<_> = report.refused.iter().map(|step| (step.peer, step.to_string())).collect();
        for (peer, refusal) in now.difference(&self.logged_refusals) {
            match peer {
                Some(peer) => warn!(
                    "{refusal}; this node does not reach pods in {peer} until flanneld, which retries with backoff, succeeds"
                ),
                None => warn!(
                    "{refusal}; pods of other nodes may be unreachable until flanneld, which retries with backoff, succeeds"
                ),
            }
        }
        // Peers that were not tried this time still are refused.
        let Self { logged_refusals, desired, .. } = self;
        logged_refusals.retain(|(peer, _)| peer.is_some_and(|peer| desired.is_refused(peer)));
        logged_refusals.extend(now);
    }

    /// What the operator has to do about a refused step of a device, in words to be added.
    fn advice(&self, refused: &RefusedStep) -> String {
        let device = refused.device.and_then(|family| self.desired.family(family)?.device.as_ref());
        match (device, refused.device, refused.errno) {
            // net/ipv6/addrconf.c, inet6_addr_add: "IPv6 is disabled on this device".
            (Some(device), Some(Family::V6), Errno::EACCES) => format!(
                "; run `sysctl -w net/ipv6/conf/{}/disable_ipv6=0`, and set net.ipv6.conf.default.disable_ipv6=0, which holds \
                 for devices that are made later",
                device.name
            ),
            _ => String::new(),
        }
    }

    /// Names the written parts of the overlay.
    fn subjects(&self, written: Vec<Written>) -> Vec<(Subject, String)> {
        let name = |part| match part {
            Part::Device(family) => {
                let device = self.desired.family(family).and_then(|family| family.device.as_ref());
                device.map_or_else(|| part.to_string(), |device| format!("device {}", device.name))
            }
            Part::Peer(_) | Part::Rest => part.to_string(),
        };
        let subject = |Written { part, command }: Written| {
            let command = command.map(|command| format!(" (`{command}`)")).unwrap_or_default();
            (Subject::Overlay(part), format!("{}{command}", name(part)))
        };
        written.into_iter().map(subject).collect()
    }

    /// Logs the devices' MAC addresses in upstream's words.
    pub(super) fn log_devices(&self) {
        let families = Family::ALL.into_iter().filter_map(|family| self.desired.family(family));
        for device in families.filter_map(|family| family.device.as_ref()) {
            if let Some(vxlan) = device.kind.vxlan() {
                info!("Interface {} mac address set to: {}", device.name, vxlan.mac);
            }
        }
    }
}

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// When the overlay is next written. It waits for the first listing of the store, or for restored peers.
    pub(super) fn overlay_due(&self) -> Option<Instant> {
        let at = [self.due.overlay.at, self.due.refused.at].into_iter().flatten().min()?;
        self.leases.usable_from(at)
    }

    pub(super) fn reconcile_overlay(&mut self) -> Result<Pass, PassError> {
        self.due.overlay.take();
        let pass = self.flush_overlay()?;
        if pass == Pass::Done && self.leases.is_listed() && self.sweep_orphans() {
            // The monitor leaves out flanneld's own changes, so nothing else would report a desired route that vanished.
            self.overlay.desired.invalidate();
            return self.flush_overlay();
        }
        Ok(pass)
    }

    fn flush_overlay(&mut self) -> Result<Pass, PassError> {
        let state = &mut self.overlay;
        let (retried, before) = (self.due.refused.take(), state.desired.refused());
        if retried {
            state.desired.retry();
            self.outputs.counters.expect(Object::Overlay);
        }
        // Before the first listing is complete, an object that looks stale may belong to a peer.
        state.desired.keep_unknown(!self.leases.is_listed());
        state.desired.hold(self.repairs.contests.held_parts(Instant::now()));
        let flushed = state.desired.flush(&mut state.kernel);
        state.log_peer_changes(&self.leases);
        let mut report = flushed?;
        state.log_refused(&report);
        let refused = state.desired.refused();
        if refused == 0 {
            self.due.refused = Due::default();
        } else if retried || self.due.refused.at.is_none() {
            self.due.refused.settle(false);
        }
        // Steps for peers that are refused once more are not a repair and are not logged.
        if report.steps > 0 && !(retried && refused >= before) {
            let steps = report.steps.try_into().unwrap_or(u64::MAX);
            let subjects = self.overlay.subjects(std::mem::take(&mut report.written));
            if self.should_log(Object::Overlay, steps, subjects) {
                let peers = self.overlay.desired.peers().len();
                info!(steps, peers, "devices, peers and routes written");
            }
        }
        let peers = self.overlay.peers_condition();
        update(&self.outputs.readiness, |readiness| {
            readiness.set(Condition::Peers, peers);
            readiness.note(
                "peers",
                (refused > 0)
                    .then(|| format!(
                    "the kernel refuses {refused} of the peers, whose pods this node does not reach; flanneld retries; the log \
                     names each with the kernel's reason"
                )),
            );
        });
        if report.is_clean_but_for_peers() {
            self.outputs.counters.settled(Object::Overlay);
        }
        if let Some(taken) = report.taken.first() {
            return Err(PassError::Device(taken.to_string()));
        }
        if let Some(family) = report.without_device.first() {
            let reason = report.refused.iter().find(|step| step.peer.is_none()).map(ToString::to_string);
            return Err(PassError::NoDevice { family: *family, reason: reason.unwrap_or_default() });
        }
        if let Some(refused) = report.refused.iter().find(|step| step.device.is_some()) {
            return Err(PassError::Device(format!("{refused}{}", self.overlay.advice(refused))));
        }
        Ok(if report.is_clean_but_for_peers() { Pass::Done } else { Pass::Again })
    }
}
