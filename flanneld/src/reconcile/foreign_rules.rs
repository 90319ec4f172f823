//! Other programs' rules on this node: past those that drop what is forwarded, and upstream's leftovers away.

use std::cell::Cell;
use std::time::Duration;

use flannel_nft::iptables::{
    self, ForwardDrop, accept_forwarded, forward_drops, iptables_tables, remove_leftovers,
};
use flannel_nft::{
    Building, Comment, ConvergeError, Generation, Kernel, Observed, Outcome, Ruleset, TableId, Transaction,
    converge_with,
};
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::run::instances;

/// Chains and rules that upstream's iptables mode leaves behind, in any of its versions.
pub const UPSTREAM: iptables::Leftovers<'static> = iptables::Leftovers {
    chains: &["FLANNEL-POSTRTG", "FLANNEL-FWD"],
    comments: &["flanneld masq", "flanneld forward"],
};
/// Chains that Docker reserves for rules of the administrator.
pub const USER_CHAINS: [&str; 1] = ["DOCKER-USER"];

/// Least time between two checks of iptables' tables: other programs may change them many times a second.
const MIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two scans of all tables.
const MIN_SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// The pause after a check is at least this many times the processor time that it took, so that tables with many thousand
/// rules cost little too.
const REST_FACTOR: u32 = 500;
/// Time between two checks for upstream's daemon while its rules are present.
const UPSTREAM_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Least time between two removals of upstream's rules: a daemon of upstream's that cannot be seen from this container
/// puts them back every few seconds (`--iptables-resync`).
const MIN_CLEAR_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of others' rules.
#[derive(Debug)]
pub struct ForeignRules {
    /// The comment of our rules in iptables' chains.
    mark: Comment,
    /// Comments of the same before, whose rules are to be gone.
    former: Vec<Comment>,
    /// The generation at which nothing had to be changed.
    converged_at: Option<Generation>,
    /// When upstream's rules were last removed.
    cleared: Option<Instant>,
    /// When upstream's rules, which are still there, may be removed.
    clear_at: Option<Instant>,
    /// What the log says of them.
    logged: UpstreamRules,
    /// Whether upstream's daemon runs in this network namespace.
    upstream_runs: fn() -> bool,
    /// Whether our rules were written since this was last asked.
    changed: bool,
    next_check: Option<Instant>,
    /// The generation of the last scan of all tables, and when the next scan may run.
    scanned: Option<(Generation, Instant)>,
    obstacles: Vec<ForwardDrop>,
}

/// What becomes of upstream's rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum UpstreamRules {
    None,
    Removed,
    /// They stay until this daemon's own tables are in place.
    Needed,
    /// Upstream's daemon runs and would put them back.
    InUse,
    /// They were removed a moment ago and are back.
    Back,
}

/// What is to change in iptables' tables, in one transaction. If `accept`, rules with the comment `mark` accept packets of
/// `networks` in chains that would drop them. Rules with a `former` comment go. If `clear`, upstream's rules about these
/// networks go too; until then they may be all that accepts these packets.
pub fn foreign_changes(
    observed: &Observed,
    networks: &[IpNet],
    (mark, former): (&Comment, &[Comment]),
    (accept, clear): (bool, bool),
) -> Transaction<Building> {
    let mut transaction = Transaction::at(observed.generation);
    accept_forwarded(observed, if accept { networks } else { &[] }, mark, &USER_CHAINS, &mut transaction);
    for mark in former {
        accept_forwarded(observed, &[], mark, &USER_CHAINS, &mut transaction);
    }
    if clear {
        remove_leftovers(observed, UPSTREAM, networks, &mut transaction);
    }
    transaction
}

/// Work of this thread, and what it has cost so far.
#[derive(Clone, Copy, Debug)]
struct Work {
    began: Instant,
    processor_time: Duration,
}

impl Work {
    fn begin() -> Self {
        Self { began: Instant::now(), processor_time: processor_time() }
    }

    /// When this work, which is done now, may be done again: after `pause`, or later if it was expensive. On a busy machine
    /// it takes much longer than its processor time, and pods may be without their rules until the next check.
    fn next_allowed(self, pause: Duration) -> Instant {
        let cost = processor_time().saturating_sub(self.processor_time);
        // With tokio's paused clock no time passes, and nothing costs any.
        Instant::now() + pause.max(cost.min(self.began.elapsed()).saturating_mul(REST_FACTOR))
    }
}

/// The processor time of this thread, in user and kernel mode: a netlink request is processed in the thread that sends it.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

impl ForeignRules {
    /// Nothing is known yet; our rules in iptables' chains bear this comment.
    #[must_use]
    pub fn new(mark: Comment) -> Self {
        Self {
            mark,
            former: Vec::new(),
            converged_at: None,
            cleared: None,
            clear_at: None,
            logged: UpstreamRules::None,
            upstream_runs: instances::upstream_runs,
            changed: false,
            next_check: None,
            scanned: None,
            obstacles: Vec::new(),
        }
    }

    /// When the next check may run.
    #[must_use]
    pub fn next_check(&self) -> Instant {
        self.next_check.unwrap_or_else(Instant::now)
    }

    /// Lets rules with this comment go too, in the next transaction.
    pub(super) fn add_former(&mut self, mark: Option<Comment>) {
        self.former.extend(mark);
        self.converged_at = None;
    }

    /// Whether our rules in iptables' chains were written since this was last called.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Chains that still drop forwarded pod traffic.
    #[must_use]
    pub fn obstacles(&self) -> &[ForwardDrop] {
        &self.obstacles
    }

    /// Keeps rules that accept packets of `networks` in iptables' chains that would drop them, if `forward` says so,
    /// removes what upstream's iptables mode left as soon as our own tables, `ours`, are in place and its daemon has ended,
    /// and finds other chains that drop.
    ///
    /// Costs one request if no table has changed since. Returns when to call it again even without a change: not every
    /// change is followed by a scan of all tables, and no change announces the end of upstream's daemon.
    ///
    /// # Errors
    /// [`ConvergeError`]; what others hold is as it was.
    pub fn check(
        &mut self,
        kernel: &mut impl Kernel,
        networks: &[IpNet],
        forward: bool,
        ours: &Ruleset,
    ) -> Result<Option<Instant>, ConvergeError> {
        let work = Work::begin();
        let now = kernel.generation().map_err(ConvergeError::Observe)?;
        if self.converged_at != Some(now) || self.clear_at.is_some_and(|at| at <= work.began) {
            self.converge_with(kernel, networks, forward, ours)?;
        }
        self.next_check = Some(work.next_allowed(MIN_CHECK_INTERVAL));
        let scan = self.scan(kernel, networks, &ours.scope())?;
        Ok(scan.into_iter().chain(self.clear_at).min())
    }

    fn converge_with(
        &mut self,
        kernel: &mut impl Kernel,
        networks: &[IpNet],
        forward: bool,
        ours: &Ruleset,
    ) -> Result<(), ConvergeError> {
        let began = Instant::now();
        let next_clear = self.cleared.map_or(began, |cleared| cleared + MIN_CLEAR_INTERVAL);
        let mut scope = iptables_tables();
        scope.extend(ours.tables().iter().map(|table| table.id().clone()));
        let leftovers = Cell::new(UpstreamRules::None);
        let outcome = converge_with(kernel, &scope, |observed| {
            let marks = (&self.mark, &*self.former);
            let changes = |clear| foreign_changes(observed, networks, marks, (forward, clear));
            let (all, kept) = (changes(true), changes(false));
            let is_there = |id: &TableId| observed.ruleset.tables().iter().any(|table| table.id() == id);
            leftovers.set(if all.len() == kept.len() {
                UpstreamRules::None
            } else if !ours.tables().iter().all(|table| is_there(table.id())) {
                UpstreamRules::Needed
            } else if began < next_clear {
                UpstreamRules::Back
            } else if (self.upstream_runs)() {
                UpstreamRules::InUse
            } else {
                UpstreamRules::Removed
            });
            if leftovers.get() == UpstreamRules::Removed { all } else { kept }
        })?;
        self.former.clear();
        let left = leftovers.get();
        if let Outcome::Changed { changes, .. } = outcome {
            if left == UpstreamRules::Removed {
                info!(
                    changes,
                    "Cleaning-up unused traffic manager rules: those of iptables mode are removed"
                );
            } else {
                self.changed = true;
                info!(
                    changes,
                    "added accept rules for pod traffic to iptables chains that drop forwarded packets"
                );
            }
        }
        self.clear_at = match left {
            UpstreamRules::None | UpstreamRules::Removed => None,
            UpstreamRules::Back => Some(next_clear),
            UpstreamRules::Needed | UpstreamRules::InUse => Some(began + UPSTREAM_POLL_INTERVAL),
        };
        match left {
            _ if self.logged == left => {}
            UpstreamRules::InUse => info!(
                "upstream's flanneld still runs on this host: its chains FLANNEL-POSTRTG and FLANNEL-FWD stay until it \
                 ends; nothing is needed"
            ),
            UpstreamRules::Back => warn!(
                "another process puts upstream's chains FLANNEL-POSTRTG and FLANNEL-FWD back: flanneld removes them once \
                 a minute. Traffic is not affected; stop upstream's flanneld on this host"
            ),
            _ => {}
        }
        if matches!(left, UpstreamRules::InUse | UpstreamRules::Back) || began >= next_clear {
            self.logged = left;
        }
        if left == UpstreamRules::Removed {
            self.cleared = Some(began);
        }
        self.converged_at = Some(outcome.generation());
        Ok(())
    }

    fn scan(
        &mut self,
        kernel: &mut impl Kernel,
        networks: &[IpNet],
        ours: &[TableId],
    ) -> Result<Option<Instant>, ConvergeError> {
        let generation = kernel.generation().map_err(ConvergeError::Observe)?;
        match self.scanned {
            Some((seen, _)) if seen == generation => return Ok(None),
            Some((_, next)) if Instant::now() < next => return Ok(Some(next)),
            _ => {}
        }
        let work = Work::begin();
        let tables = kernel.tables().map_err(ConvergeError::Observe)?;
        let observed = kernel.observe(&tables).map_err(ConvergeError::Observe)?;
        self.scanned = Some((observed.generation, work.next_allowed(MIN_SCAN_INTERVAL)));
        let found = forward_drops(&observed.ruleset, ours, &self.mark, networks);
        for obstacle in found.iter().filter(|found| !self.obstacles.contains(found)) {
            warn!(
                "{obstacle}: it may drop pod traffic to and from other nodes, whatever flannel's own table accepts; flanneld does not change this chain: run `flanneld doctor`, which names the rule to add"
            );
        }
        self.obstacles = found;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use flannel_nft::{Base, Chain, ChainName, FakeKernel, Family, Policy, Rule, Table, TableName, converge};

    use super::*;

    fn chain(name: &str) -> ChainName {
        ChainName::new(name).unwrap()
    }

    fn filter(policy: Policy) -> Ruleset {
        let forward = Chain::base(chain("FORWARD"), Base::filter_forward().policy(policy));
        Ruleset::new().table(Table::new(Family::Ip, TableName::new("filter").unwrap()).chain(forward))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread without the processor")]
    fn the_next_check_waits_for_processor_time_that_was_used_and_not_for_time_that_passed() {
        const COST: Duration = Duration::from_millis(20);
        let waited = Work::begin();
        std::thread::sleep(COST);
        assert!(waited.next_allowed(MIN_CHECK_INTERVAL) < Instant::now() + COST * REST_FACTOR / 2);
        let computed = Work::begin();
        while processor_time() < computed.processor_time + COST {}
        assert!(computed.next_allowed(MIN_CHECK_INTERVAL) > Instant::now() + COST * REST_FACTOR / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_chain_that_comes_to_drop_gets_rules_and_loses_them_when_it_does_not() {
        let mut kernel = FakeKernel::default();
        let mut foreign_rules = ForeignRules::new(Comment::new("ours").unwrap());
        let (networks, ours) = (["10.244.0.0/16".parse().unwrap()], Ruleset::new());
        let rules = |kernel: &mut FakeKernel| {
            let observed = kernel.observe(&iptables_tables()).unwrap();
            observed.ruleset.tables()[0].chains()[0].list().len()
        };
        converge(&mut kernel, &filter(Policy::Accept)).unwrap();
        foreign_rules.check(&mut kernel, &networks, true, &ours).unwrap();
        assert_eq!((rules(&mut kernel), foreign_rules.obstacles().len()), (0, 0));

        converge(&mut kernel, &filter(Policy::Drop)).unwrap();
        let again = foreign_rules.check(&mut kernel, &networks, true, &ours).unwrap();
        assert_eq!((rules(&mut kernel), foreign_rules.obstacles().len()), (2, 0));
        assert!(
            again.is_some_and(|at| at <= Instant::now() + MIN_SCAN_INTERVAL),
            "the others are still to be read"
        );
        let commits = kernel.commits();
        foreign_rules.check(&mut kernel, &networks, true, &ours).unwrap();
        assert_eq!(kernel.commits(), commits, "nothing new, nothing done");

        // Not asked for any more.
        foreign_rules.converged_at = None;
        foreign_rules.check(&mut kernel, &networks, false, &ours).unwrap();
        tokio::time::advance(MIN_SCAN_INTERVAL).await;
        foreign_rules.check(&mut kernel, &networks, false, &ours).unwrap();
        assert_eq!((rules(&mut kernel), foreign_rules.obstacles().len()), (0, 1));
    }

    /// What upstream's iptables mode keeps in the filter table.
    fn put_upstreams(kernel: &mut FakeKernel) {
        let jump = Rule::new().jump(&chain("FLANNEL-FWD")).comment(Comment::new("flanneld forward").unwrap());
        let forward = Chain::base(chain("FORWARD"), Base::filter_forward()).rule(jump);
        let fwd = Chain::regular(chain("FLANNEL-FWD")).rule(Rule::new().counter().accept());
        let filter = Table::new(Family::Ip, TableName::new("filter").unwrap()).chain(forward).chain(fwd);
        converge(kernel, &Ruleset::new().table(filter)).unwrap();
    }

    fn has_upstreams(kernel: &FakeKernel) -> bool {
        kernel.tables().iter().flat_map(Table::chains).any(|found| found.name().as_str() == "FLANNEL-FWD")
    }

    /// Looks whenever a look is due, for this long. Returns how often upstream's chains were removed.
    async fn watch(
        foreign_rules: &mut ForeignRules,
        kernel: &mut FakeKernel,
        time: Duration,
        mut meanwhile: impl FnMut(&mut FakeKernel),
    ) -> u32 {
        let (end, mut removed) = (Instant::now() + time, 0);
        while Instant::now() < end {
            meanwhile(kernel);
            let before = has_upstreams(kernel);
            foreign_rules.check(kernel, &[], true, &Ruleset::new()).unwrap();
            removed += u32::from(before && !has_upstreams(kernel));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        removed
    }

    #[tokio::test(start_paused = true)]
    async fn upstreams_chains_stay_while_its_daemon_runs_and_go_when_it_ends() {
        static RUNS: AtomicBool = AtomicBool::new(true);
        let mut kernel = FakeKernel::default();
        put_upstreams(&mut kernel);
        let mut foreign_rules = ForeignRules::new(Comment::new("ours").unwrap());
        foreign_rules.upstream_runs = || RUNS.load(Ordering::Relaxed);
        let minute = Duration::from_secs(60);
        assert_eq!(watch(&mut foreign_rules, &mut kernel, minute, |_| ()).await, 0);
        let again = foreign_rules.check(&mut kernel, &[], true, &Ruleset::new()).unwrap();
        assert!(
            again.is_some_and(|at| at <= Instant::now() + UPSTREAM_POLL_INTERVAL),
            "nothing says that it has ended"
        );
        RUNS.store(false, Ordering::Relaxed);
        assert_eq!(watch(&mut foreign_rules, &mut kernel, minute, |_| ()).await, 1);
        assert!(!has_upstreams(&kernel));
    }

    #[tokio::test(start_paused = true)]
    async fn upstreams_chains_that_come_back_are_removed_once_a_minute_and_for_good_when_they_do_not() {
        let mut kernel = FakeKernel::default();
        let mut foreign_rules = ForeignRules::new(Comment::new("ours").unwrap());
        foreign_rules.upstream_runs = || false;
        let ten_minutes = Duration::from_secs(600);
        let removed = watch(&mut foreign_rules, &mut kernel, ten_minutes, put_upstreams).await;
        assert!((9..=11).contains(&removed), "{removed} times");
        put_upstreams(&mut kernel);
        assert_eq!(watch(&mut foreign_rules, &mut kernel, ten_minutes, |_| ()).await, 1);
        assert!(!has_upstreams(&kernel));
    }

    #[tokio::test(start_paused = true)]
    async fn upstreams_chains_stay_as_long_as_our_own_tables_are_missing() {
        let mut kernel = FakeKernel::default();
        put_upstreams(&mut kernel);
        let mut foreign_rules = ForeignRules::new(Comment::new("ours").unwrap());
        foreign_rules.upstream_runs = || false;
        let ours = Ruleset::new().table(Table::new(Family::Ip, TableName::new("flannel-ipv4").unwrap()));
        let again = foreign_rules.check(&mut kernel, &[], true, &ours).unwrap();
        assert!(has_upstreams(&kernel) && again.is_some());
        converge(&mut kernel, &ours).unwrap();
        foreign_rules.check(&mut kernel, &[], true, &ours).unwrap();
        assert!(!has_upstreams(&kernel));
    }
}
