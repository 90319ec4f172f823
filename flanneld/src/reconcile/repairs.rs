//! What the reconciler does with each repair: schedules it, logs it, and reports what another process keeps undoing.

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Reconciler;
use super::log_limit::{LogDecision, RepairLog};
use super::repair_backoff::{Contests, MAX_CONTESTED_REPAIR_DELAY, MAX_REPAIR_DELAY, RepairDelay, Subject};
use crate::status::counters::Object;
use crate::status::readiness::{Condition, update};

/// What is remembered of recent repairs.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    delay: RepairDelay,
    pub(super) contests: Contests,
    log: RepairLog,
    /// What was written because something was requested, such as another lease.
    requested: RepairLog,
}

impl Repairs {
    /// The longest pause before a repair of the overlay.
    pub(super) fn max_delay(&self) -> std::time::Duration {
        if self.contests.has_parts() { MAX_CONTESTED_REPAIR_DELAY } else { MAX_REPAIR_DELAY }
    }

    /// When to repair a disturbance that is found `now`.
    pub(super) fn repair_at(&mut self, now: Instant) -> Instant {
        let longest = self.max_delay();
        self.delay.repair_at(now, longest)
    }
}

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Records that `steps` messages were written and returns whether to log it. A repair counts as one of each of
    /// `subjects`, which another process may keep undoing.
    pub(super) fn should_log(
        &mut self,
        object: Object,
        steps: u64,
        subjects: Vec<(Subject, String)>,
    ) -> bool {
        if !self.outputs.counters.wrote(object, steps) {
            let log = self.repairs.requested.repaired(Instant::now());
            if log == LogDecision::Summarize {
                info!(
                    "leases or this host made flanneld write rules, devices or routes more than 30 times in one minute: it \
                     continues, and does not log this for the rest of the minute"
                );
            }
            return log == LogDecision::Write;
        }
        let now = Instant::now();
        for (subject, object) in subjects {
            self.record_contest(subject, now, object);
        }
        let log = self.repairs.log.repaired(now);
        if log == LogDecision::Summarize {
            warn!(
                "repaired more than 30 times in one minute: another process keeps changing rules or routes, so pod \
                 traffic may be interrupted; further repairs are not logged for the rest of the minute. `flanneld status` shows \
                 the last repair and its cause: stop that process"
            );
        }
        log == LogDecision::Write
    }

    /// Records a repair of an object that another process may keep undoing.
    pub(super) fn record_contest(&mut self, subject: Subject, next_check: Instant, object: String) {
        let now = Instant::now();
        if let Some(began) = self.repairs.contests.repaired(subject, (now, next_check), || object) {
            error!("{began}");
        }
        self.due.contests.at = self.repairs.contests.next(now);
    }

    /// Ends contests that are over, and checks what was held back because of them and of the others: a slow call may have
    /// left no time to look between the end of the pause and the end of the contest.
    pub(super) fn settle_contests(&mut self) {
        let now = Instant::now();
        let contests = &mut self.repairs.contests;
        let held_tables = contests.held_until(Subject::Tables).is_some_and(|at| at <= now);
        let held_parts = contests.has_parts();
        for ended in contests.settle(now) {
            info!("{ended}");
        }
        if held_parts {
            self.overlay.desired.invalidate();
            self.due.overlay.now();
        }
        if held_tables {
            self.due.rules.now();
        }
        self.due.contests.at = self.repairs.contests.next(now);
    }

    pub(super) fn publish_contests(&mut self) {
        let published = self.outputs.readiness.borrow().reason(Condition::Uncontested).map(str::to_owned);
        let summary = self.repairs.contests.summary();
        if published != summary {
            let state = summary.map_or(Ok(()), Err);
            update(&self.outputs.readiness, |readiness| readiness.set(Condition::Uncontested, state));
        }
    }
}
