//! The nftables side: flannel's own tables, and the chains of other programs that its traffic passes.

use flannel_nft::{Generation, NameError, Outcome, RetainedRuleset, Ruleset};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Reconciler;
use super::error::{Pass, PassError};
use super::foreign_rules::ForeignRules;
use super::repair_backoff::{MIN_RULES_INTERVAL, Subject};
use crate::desired::NodeSpec;
use crate::desired::rules::ruleset;
use crate::status::counters::Object;
use crate::status::model::Status;
use crate::status::readiness::update;
use crate::status::snapshot::counters;
use flannel_lease::{Chain, LeaseKey};

/// The desired tables, the kernel that holds them, and what is known of other programs' tables.
#[derive(Debug)]
pub(super) struct Tables<R> {
    kernel: R,
    desired: RetainedRuleset,
    foreign: ForeignRules,
    written_at: Option<Instant>,
}

impl<R: flannel_nft::Kernel> Tables<R> {
    pub(super) fn new(kernel: R, spec: &NodeSpec, lease: LeaseKey) -> Result<Self, NameError> {
        let desired = RetainedRuleset::new(ruleset(&spec.rules(lease))?);
        let foreign = ForeignRules::new(spec.table_prefix.mark()?);
        Ok(Self { kernel, desired, foreign, written_at: None })
    }

    pub(super) fn set_desired(&mut self, ruleset: Ruleset) {
        self.desired.set_desired(ruleset);
    }

    /// When another pass may write the tables.
    pub(super) fn next_write(&self) -> Option<Instant> {
        self.written_at.map(|last| last + MIN_RULES_INTERVAL)
    }

    /// Fills in what is known of the tables. While they are contested, nothing is known between two checks.
    pub(super) fn fill(&mut self, status: &mut Status, is_contested: bool) {
        let ruleset = self.desired.desired();
        if let Ok(observed) = self.kernel.observe(&ruleset.scope()) {
            status.rules.counters = counters(&observed);
        }
        status.rules.tables = ruleset.tables().iter().map(|table| table.id().to_string()).collect();
        status.obstacles = self.foreign.obstacles().iter().map(ToString::to_string).collect();
        status.rules.right = self.desired.held().is_some() && !is_contested;
        status.rules.generation = self.desired.held().map(Generation::number);
    }
}

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Makes a check of tables due that another process may have changed. It does not put off what is due before, such as the
    /// retry of a requested change.
    pub(super) fn check_rules(&mut self) {
        let held = self.repairs.contests.held_until(Subject::Tables);
        let at = self.tables.next_write().into_iter().chain(held).fold(Instant::now(), Instant::max);
        self.due.rules.at = Some(self.due.rules.at.map_or(at, |due| due.min(at)));
    }

    pub(super) fn reconcile_rules(&mut self) -> Result<Pass, PassError> {
        let held = self.tables.desired.held();
        let outcome = self.tables.desired.reconcile(&mut self.tables.kernel)?;
        if held == Some(outcome.generation()) {
            return Ok(Pass::Done); // no table has changed since ours were right
        }
        if let Outcome::Changed { changes, .. } = outcome {
            self.tables.written_at = Some(Instant::now());
            let tables = self.tables.desired.desired().tables().iter().map(|table| table.id().to_string());
            let culprit = self.outputs.counters.culprit().unwrap_or_default();
            let object = format!("table {}{culprit}", tables.collect::<Vec<_>>().join(" or "));
            if self.should_log(Object::Rules, changes.into(), vec![(Subject::Tables, object)]) {
                info!(changes, "rules written");
            }
        }
        self.outputs.counters.settled(Object::Rules);
        self.drop_former_prefixes();
        // Other programs' chains come last: flannel's own tables are in place now.
        let held = self.repairs.contests.held_until(Subject::AcceptRules);
        let next = held.into_iter().fold(self.tables.foreign.next_check(), Instant::max);
        // A scan that is due later must not delay this.
        self.due.foreign_rules.at = self.due.foreign_rules.at.map_or(Some(next), |at| Some(at.min(next)));
        Ok(Pass::Done)
    }

    /// Forgets this node's former prefixes once their tables are gone: from now on other programs may use these names.
    fn drop_former_prefixes(&mut self) {
        let former = std::mem::take(&mut self.spec.former_prefixes);
        for prefix in &former {
            info!(
                "removed tables {prefix}-*, which this node used before its network or --table-prefix changed"
            );
            self.tables.foreign.add_former(prefix.mark().ok());
        }
        if let (false, Ok(ruleset)) = (former.is_empty(), ruleset(&self.spec.rules(self.lease.key))) {
            self.tables.set_desired(ruleset);
            self.due.rules.now();
        }
    }

    /// Checks other programs' chains. A problem there is reported as a note and leaves the node ready.
    pub(super) fn check_foreign_rules(&mut self) {
        let spec = self.spec.rules(self.lease.key);
        let Tables { kernel, desired, foreign, .. } = &mut self.tables;
        let checked = foreign.check(kernel, &spec.networks(), spec.forward, desired.desired());
        self.due.foreign_rules.settle(checked.is_ok());
        let note = match checked {
            Ok(again) => {
                self.due.foreign_rules.at = again;
                if self.tables.foreign.take_changed() {
                    let object = "the accept rules in iptables' chains".to_owned();
                    self.record_contest(Subject::AcceptRules, self.tables.foreign.next_check(), object);
                }
                let obstacles: Vec<String> =
                    self.tables.foreign.obstacles().iter().map(ToString::to_string).collect();
                (!obstacles.is_empty()).then(|| {
                    format!(
                        "pod traffic may be dropped: {}; run `flanneld doctor`, which names the rule to add",
                        obstacles.join("; ")
                    )
                })
            }
            Err(error) => {
                let problem = Chain(&error).to_string();
                warn!(
                    "cannot check whether rules of other programs drop pod traffic; flanneld's own rules are not affected, it \
                     retries with backoff: {problem}"
                );
                Some(format!("cannot check whether rules of other programs drop pod traffic: {problem}"))
            }
        };
        update(&self.outputs.readiness, |readiness| readiness.note("forwarding", note));
    }
}
