//! Runs each pass when it is due.

use tokio::time::Instant;
use tracing::{info, warn};

use super::due::Due;
use super::error::{Pass, PassError};
use super::{Reconciler, Schedule};
use crate::status::readiness::{Condition, update};
use flannel_lease::Chain;

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Runs the passes that are due now. Each fails and is retried on its own, so that rules never wait for peers, nor
    /// peers for rules.
    pub(super) fn run_due(&mut self) {
        if self.due.contests.take() {
            self.settle_contests();
        }
        if self.due.host.take() {
            self.run_pass(Condition::Interface, Self::check_host, |due| &mut due.host);
        }
        if self.due.rules.take() {
            self.run_pass(Condition::Rules, Self::reconcile_rules, |due| &mut due.rules);
        }
        if self.due.foreign_rules.take() {
            self.check_foreign_rules();
        }
        if self.overlay_due().is_some_and(|at| at <= Instant::now()) {
            self.run_pass(Condition::Device, Self::reconcile_overlay, |due| &mut due.overlay);
        }
        if self.due.state.take() {
            self.save_state();
        }
        self.publish_contests();
        if !self.ready_logged && self.outputs.readiness.borrow().is_ready() {
            self.ready_logged = true;
            self.overlay.log_devices();
            info!("flannel is ready");
        }
    }

    /// Runs one pass, records its outcome, and schedules its retry.
    fn run_pass(
        &mut self,
        condition: Condition,
        pass: impl FnOnce(&mut Self) -> Result<Pass, PassError>,
        due: impl FnOnce(&mut Schedule) -> &mut Due,
    ) {
        let began = std::time::Instant::now();
        let outcome = pass(self);
        due(&mut self.due).settle(matches!(outcome, Ok(Pass::Done)));
        self.record_outcome(condition, began, outcome);
    }

    pub(super) fn record_outcome(
        &mut self,
        condition: Condition,
        began: std::time::Instant,
        outcome: Result<Pass, PassError>,
    ) {
        self.outputs.counters.passed(condition, began, matches!(outcome, Ok(Pass::Done)));
        let applied = outcome.as_ref().is_err_and(PassError::may_be_applied);
        let state = outcome.map(drop).map_err(|error| Chain(&error).to_string());
        if let Err(reason) = &state
            && self.outputs.readiness.borrow().reason(condition) != Some(reason)
        {
            let (what, effect) = match condition {
                Condition::Rules if applied => {
                    ("confirm the nftables rules", "the kernel has the new ones or the former ones")
                }
                Condition::Interface => (
                    "determine the interface to other nodes",
                    "devices and routes stay as they are, changes of its address, MTU or routes are not followed",
                ),
                Condition::Rules => (
                    "update the nftables rules",
                    "the kernel keeps its present rules and traffic passes as before",
                ),
                Condition::Device => (
                    "update devices, peers and routes",
                    "what is not changed yet stays as it was, new peers may be unreachable",
                ),
                Condition::SubnetFile => (
                    "update the subnet file",
                    "new pods fail or get former values, running pods are not affected",
                ),
                _ => (condition.name(), "traffic may be affected"),
            };
            warn!("cannot {what}; {effect}, flanneld retries with backoff: {reason}");
        }
        update(&self.outputs.readiness, |readiness| readiness.set(condition, state));
    }
}
