//! Each kind of work, done when it is due.

use std::collections::BTreeSet;
use std::error::Error;

use super::contest::Subject;
use super::due::Due;
use super::{Reconciler, Schedule};
use flannel_nft::Outcome;
use flannel_vxlan::{Family, Part, PeerStatus, PeerStatusChange, Report, Written};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::desired::rules::ruleset;
use crate::desired::subnet_env::SubnetEnv;
use crate::file;
use crate::reconcile::pacing::LogDecision;
use crate::run::state_file::SavedState;
use crate::status::counters::Object;
use crate::status::readiness::{Condition, update};
use flannel_lease::Chain;

/// Changes of peers that are logged one by one after each pass.
const MAX_LOGGED_CHANGES: usize = 50;

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Does what is due now.
    pub(super) fn pass(&mut self) {
        if self.due.contests.take() {
            self.settle_contests();
        }
        if self.due.facts.take() {
            let (began, done) = (std::time::Instant::now(), self.check_host());
            self.record_outcome(Condition::Interface, began, done, |due| &mut due.facts);
        }
        if self.due.rules.take() {
            let (began, done) = (std::time::Instant::now(), self.reconcile_rules());
            self.record_outcome(Condition::Rules, began, done, |due| &mut due.rules);
        }
        if self.due.foreign_rules.take() {
            self.check_foreign_rules();
        }
        if self.overlay_due().is_some_and(|at| at <= Instant::now()) {
            self.due.overlay.take();
            let (began, done) = (std::time::Instant::now(), self.reconcile_overlay());
            self.record_outcome(Condition::Device, began, done, |due| &mut due.overlay);
        }
        if self.due.subnet_file.take() {
            let (began, done) = (std::time::Instant::now(), self.write_subnet_file());
            self.record_outcome(Condition::SubnetFile, began, done, |due| &mut due.subnet_file);
        }
        if self.due.state.take() {
            self.save_state();
        }
        self.publish_contests();
        if !self.ready_logged && self.outputs.readiness.borrow().is_ready() {
            self.ready_logged = true;
            let families = Family::ALL.into_iter().filter_map(|family| self.overlay.family(family));
            for device in families.filter_map(|family| family.device.as_ref()) {
                if let Some(vxlan) = device.kind.vxlan() {
                    info!("Interface {} mac address set to: {}", device.name, vxlan.mac);
                }
            }
            info!("flannel is ready");
        }
    }

    /// Notes what came of one kind of work. `Ok(false)`: done as far as it goes, to be tried again.
    fn record_outcome(
        &mut self,
        condition: Condition,
        began: std::time::Instant,
        done: Result<bool, Box<dyn Error + Send + Sync>>,
        due: impl FnOnce(&mut Schedule) -> &mut Due,
    ) {
        due(&mut self.due).settle(matches!(done, Ok(true)));
        self.outputs.counters.passed(condition, began, matches!(done, Ok(true)));
        let state = done.map(drop).map_err(|error| Chain(&*error).to_string());
        if let Err(reason) = &state
            && self.outputs.readiness.borrow().reason(condition) != Some(reason)
        {
            warn!("cannot bring {} up to date, will try again: {reason}", condition.name());
        }
        update(&self.outputs.readiness, |readiness| readiness.set(condition, state));
    }

    fn reconcile_rules(&mut self) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let held = self.retained.held();
        let outcome = self.retained.reconcile(&mut self.rules)?;
        if held == Some(outcome.generation()) {
            return Ok(true); // nobody has changed any table since ours were right
        }
        if let Outcome::Changed { changes, .. } = outcome {
            self.rules_written = Some(Instant::now());
            let tables = self.retained.desired().tables().iter().map(|table| table.id().to_string());
            let culprit = self.outputs.counters.culprit().unwrap_or_default();
            let object = format!("table {}{culprit}", tables.collect::<Vec<_>>().join(" or "));
            if self.should_log(Object::Rules, changes.into(), vec![(Subject::Tables, object)]) {
                info!(changes, "rules written");
            }
        }
        self.outputs.counters.settled(Object::Rules);
        self.drop_former_prefixes();
        // Ours are active: now what others have.
        let held = self.contests.held_until(Subject::AcceptRules);
        let next = held.into_iter().fold(self.foreign_rules.next_check(), Instant::max);
        // A survey that is due later must not delay this.
        self.due.foreign_rules.at = self.due.foreign_rules.at.map_or(Some(next), |at| Some(at.min(next)));
        Ok(true)
    }

    /// The tables of this node's former prefixes are gone: whoever makes some next may keep them.
    fn drop_former_prefixes(&mut self) {
        let former = std::mem::take(&mut self.spec.former_prefixes);
        for prefix in &former {
            info!("removed the tables of this node's former prefix {prefix}");
            self.foreign_rules.add_former(prefix.mark().ok());
        }
        if let (false, Ok(ruleset)) = (former.is_empty(), ruleset(&self.spec.rules(self.lease.key))) {
            self.retained.set_desired(ruleset);
            self.due.rules.now();
        }
    }

    /// Looks at the rules of other programs. What is wrong there is worth a note, but makes no node unready.
    fn check_foreign_rules(&mut self) {
        let spec = self.spec.rules(self.lease.key);
        let ours = self.retained.desired();
        let looked = self.foreign_rules.check(&mut self.rules, &spec.networks(), spec.forward, ours);
        self.due.foreign_rules.settle(looked.is_ok());
        let note = match looked {
            Ok(again) => {
                self.due.foreign_rules.at = again;
                if self.foreign_rules.take_changed() {
                    let object = "the accept rules in iptables' chains".to_owned();
                    self.contest(Subject::AcceptRules, self.foreign_rules.next_check(), object);
                }
                let obstacles: Vec<String> =
                    self.foreign_rules.obstacles().iter().map(ToString::to_string).collect();
                (!obstacles.is_empty())
                    .then(|| format!("may be dropped: {}; ask `flanneld doctor`", obstacles.join("; ")))
            }
            Err(error) => {
                let problem = Chain(&error).to_string();
                warn!("cannot look after rules of other programs, will try again: {problem}");
                Some(problem)
            }
        };
        update(&self.outputs.readiness, |readiness| readiness.note("forwarding", note));
    }

    fn reconcile_overlay(&mut self) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let done = self.flush_overlay()?;
        if done && self.leases.synced() && self.sweep_orphans() {
            // The monitor leaves out flanneld's own changes, so nothing else would report a desired route that vanished.
            self.overlay.invalidate();
            return self.flush_overlay();
        }
        Ok(done)
    }

    fn flush_overlay(&mut self) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let (retried, before) = (self.due.refused.take(), self.overlay.refused());
        if retried {
            self.overlay.retry();
            self.outputs.counters.expect(Object::Overlay);
        }
        // Before the first listing is complete, what looks stale may well belong to a peer.
        self.overlay.keep_unknown(!self.leases.synced());
        self.overlay.hold(self.contests.held_parts(Instant::now()));
        let flushed = self.overlay.flush(&mut self.links);
        self.log_peer_changes();
        let mut report = flushed?;
        self.log_refused(&report);
        let refused = self.overlay.refused();
        if refused == 0 {
            self.due.refused = Due::default();
        } else if retried || self.due.refused.at.is_none() {
            self.due.refused.settle(false);
        }
        // What is written of peers that are refused once more is no repair, and not worth a line.
        if report.steps > 0 && !(retried && refused >= before) {
            let steps = report.steps.try_into().unwrap_or(u64::MAX);
            let subjects = self.subjects(std::mem::take(&mut report.written));
            if self.should_log(Object::Overlay, steps, subjects) {
                let peers = self.overlay.peers().len();
                info!(steps, peers, "devices, peers and routes written");
            }
        }
        let peers = self.peers_condition();
        update(&self.outputs.readiness, |readiness| {
            readiness.set(Condition::Peers, peers);
            readiness
                .note("peers", (refused > 0).then(|| format!("{refused} of the peers refused, see the log")));
        });
        if report.is_clean_but_for_peers() {
            self.outputs.counters.settled(Object::Overlay);
        }
        if let Some(taken) = report.taken.first() {
            return Err(taken.to_string().into());
        }
        if let Some(family) = report.without_device.first() {
            let reason = report.refused.iter().find(|step| step.peer.is_none()).map(ToString::to_string);
            return Err(format!("no {family} device: {}", reason.unwrap_or_default()).into());
        }
        if let Some(refused) = report.refused.iter().find(|step| step.device.is_some()) {
            return Err(refused.to_string().into());
        }
        Ok(report.is_clean_but_for_peers())
    }

    /// One peer that is refused makes no node unready: it may be that peer's fault. All of them do.
    fn peers_condition(&self) -> Result<(), String> {
        let mut refused = self.logged_refusals.iter().filter(|(peer, _)| peer.is_some());
        match refused.next() {
            Some((_, reason)) if self.overlay.programmed() == 0 => {
                Err(format!("none is programmed: {reason}"))
            }
            _ => Ok(()),
        }
    }

    /// Notes what was written; whether the log is to tell of it. A repair counts as one of each of `subjects`, which
    /// another process may keep undoing.
    fn should_log(&mut self, object: Object, steps: u64, subjects: Vec<(Subject, String)>) -> bool {
        if !self.outputs.counters.wrote(object, steps) {
            return true;
        }
        let now = Instant::now();
        for (subject, object) in subjects {
            self.contest(subject, now, object);
        }
        let log = self.repair_log.repaired(now);
        if log == LogDecision::Summarize {
            warn!(
                "repaired more than 30 times in one minute: another process keeps changing rules or routes; further \
                 repairs are not logged for the rest of the minute"
            );
        }
        log == LogDecision::Write
    }

    /// Notes a repair of something that another process may keep undoing.
    fn contest(&mut self, subject: Subject, next_check: Instant, object: String) {
        let now = Instant::now();
        if let Some(began) = self.contests.repaired(subject, (now, next_check), || object) {
            warn!("{began}");
        }
        self.due.contests.at = self.contests.next(now);
    }

    /// Ends contests that are over, and looks at what was left alone because of the others.
    fn settle_contests(&mut self) {
        let now = Instant::now();
        for ended in self.contests.settle(now) {
            info!("{ended}");
        }
        if self.contests.has_parts() {
            self.overlay.invalidate();
            self.due.overlay.now();
        }
        if self.contests.held_until(Subject::Tables).is_some_and(|at| at <= now) {
            self.due.rules.now();
        }
        self.due.contests.at = self.contests.next(now);
    }

    fn publish_contests(&mut self) {
        let told = self.outputs.readiness.borrow().reason(Condition::Uncontested).map(str::to_owned);
        let summary = self.contests.summary();
        if told != summary {
            let state = summary.map_or(Ok(()), Err);
            update(&self.outputs.readiness, |readiness| readiness.set(Condition::Uncontested, state));
        }
    }

    /// What of the overlay was written, in words.
    fn subjects(&self, written: Vec<Written>) -> Vec<(Subject, String)> {
        let name = |part| match part {
            Part::Device(family) => {
                let device = self.overlay.family(family).and_then(|family| family.device.as_ref());
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

    /// Logs what changed about peers: once, as long as it stays.
    fn log_peer_changes(&mut self) {
        let news = self.overlay.take_status_changes();
        for PeerStatusChange { peer, before, now } in news.iter().take(MAX_LOGGED_CHANGES) {
            match (now, before) {
                (Some(PeerStatus::SharesUnderlay(address)), _) => {
                    let other = self.overlay.peers_at(*address).next().unwrap_or(*peer);
                    warn!("peers {other} and {peer} have one public address, {address}: both are programmed");
                }
                (Some(remark), _) => warn!("peer {peer} {remark}"),
                (None, Some(PeerStatus::NotProgrammed(_))) if self.overlay.peer(*peer).is_some() => {
                    info!("peer {peer} is programmed: what kept it out is gone");
                }
                (None, _) => {}
            }
        }
        if let Some(more @ 1..) = news.len().checked_sub(MAX_LOGGED_CHANGES) {
            warn!(
                "and the like of {more} more peers: `flanneld status --peers` lists those that are not programmed"
            );
        }
    }

    /// Logs each refused step once, however often it is tried.
    fn log_refused(&mut self, report: &Report) {
        let now: BTreeSet<_> = report.refused.iter().map(|step| (step.peer, step.to_string())).collect();
        for (_, complaint) in now.difference(&self.logged_refusals) {
            warn!("{complaint}; will try again");
        }
        // Peers that were not tried this time still are refused.
        let Self { logged_refusals, overlay, .. } = self;
        logged_refusals.retain(|(peer, _)| peer.is_some_and(|peer| overlay.is_refused(peer)));
        logged_refusals.extend(now);
    }

    fn write_subnet_file(&mut self) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let path = &self.config.subnet_file;
        let wanted: SubnetEnv = self.spec.subnet_env(self.lease.key);
        if file::read(path).is_ok_and(|present| present == wanted.to_string().as_bytes()) {
            return Ok(true);
        }
        wanted.write(path)?;
        info!("Wrote subnet file to {}", path.display());
        Ok(true)
    }

    /// Hands over all that a start without the lease store would need, or later if the last is still being written.
    fn save_state(&mut self) {
        match self.outputs.state.try_reserve() {
            Ok(room) => {
                if let Some(saved) = self.saved() {
                    room.send(saved);
                }
            }
            Err(_busy) => self.due.state.at = Some(Instant::now() + self.save_delay()),
        }
    }

    /// Waits until that can be done.
    pub(super) async fn save_state_and_wait(&self) {
        if let (Ok(room), Some(saved)) = (self.outputs.state.reserve().await, self.saved()) {
            room.send(saved);
        }
    }

    /// `None` before there is a whole listing: half of one would make a worse memory than the one there is.
    fn saved(&self) -> Option<SavedState> {
        let whole = self.leases.synced() || self.use_restored_from.is_some();
        whole.then(|| SavedState {
            net_conf: self.spec.net_conf.clone(),
            key: self.lease.key,
            attributes: self.lease.attributes.clone(),
            node_public: self.config.node_public,
            peers: self.leases.shared().collect(),
            unswept: self.unswept(),
        })
    }
}
