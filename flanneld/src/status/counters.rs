//! What the reconciler notes as it works: counters of fixed number, and the latest repairs. Nothing grows with peers.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tokio::sync::watch;

use crate::reconcile::monitor::ForeignCommits;
use crate::status::model::{
    BUCKETS, Cause, ForeignStatus, ProcessStatus, Repair, RepairCount, Status, StoreStatus, WorkStatus,
};
use crate::status::readiness::Condition;
use flannel_lease::StoreHealth;

/// Repairs that are remembered.
const MAX_LISTED_REPAIRS: usize = 32;

/// The reconciler's notes.
#[derive(Debug)]
pub struct Counters {
    started: SystemTime,
    store_kind: &'static str,
    store: watch::Receiver<StoreHealth>,
    foreign: watch::Receiver<ForeignCommits>,
    pulse: watch::Sender<Instant>,
    last_event: Option<SystemTime>,
    work: BTreeMap<Condition, Work>,
    transactions: u64,
    changes: u64,
    repairs: VecDeque<Repair>,
    repair_counts: BTreeMap<(&'static str, Cause), u64>,
    /// How it was found that each object may need a repair.
    found: PerObject<Option<Cause>>,
    /// Whether what is written next was asked for, and so is no repair.
    expected: PerObject<bool>,
}

/// One kind of work.
#[derive(Debug, Default)]
struct Work {
    noted: WorkStatus,
    failing_since: Option<Instant>,
}

/// What can be repaired.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Object {
    /// nftables rules.
    Rules,
    /// Devices, peers and routes.
    Overlay,
}

impl Object {
    fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Overlay => "overlay",
        }
    }
}

#[derive(Debug)]
struct PerObject<T> {
    rules: T,
    overlay: T,
}

impl<T> PerObject<T> {
    fn of(&mut self, object: Object) -> &mut T {
        match object {
            Object::Rules => &mut self.rules,
            Object::Overlay => &mut self.overlay,
        }
    }
}

impl Counters {
    /// Nothing noted yet. `store_kind` is what status and metrics call the store; `pulse` is set to the present time
    /// as long as the reconciler goes round.
    #[must_use]
    pub fn new(
        store_kind: &'static str,
        store: watch::Receiver<StoreHealth>,
        foreign: watch::Receiver<ForeignCommits>,
        pulse: watch::Sender<Instant>,
    ) -> Self {
        Self {
            started: SystemTime::now(),
            store_kind,
            store,
            foreign,
            pulse,
            last_event: None,
            work: BTreeMap::new(),
            transactions: 0,
            changes: 0,
            repairs: VecDeque::with_capacity(MAX_LISTED_REPAIRS),
            repair_counts: BTreeMap::new(),
            found: PerObject { rules: None, overlay: None },
            expected: PerObject { rules: true, overlay: true },
        }
    }

    /// The reconciler has come round.
    pub(crate) fn heartbeat(&self) {
        self.pulse.send_replace(Instant::now());
    }

    /// The store told of leases.
    pub(crate) fn lease_event_received(&mut self) {
        self.last_event = Some(SystemTime::now());
    }

    /// Work is due because of this. What made it due first counts until it has succeeded, however long it waits.
    pub(crate) fn found(&mut self, object: Object, cause: Cause) {
        self.found.of(object).get_or_insert(cause);
    }

    /// What is written next was asked for.
    pub(crate) fn expect(&mut self, object: Object) {
        *self.expected.of(object) = true;
    }

    /// Something was written: `steps` messages, in a transaction if these are rules. Whether it was a repair.
    pub(crate) fn wrote(&mut self, object: Object, steps: u64) -> bool {
        if object == Object::Rules {
            self.transactions += 1;
            self.changes += steps;
        }
        if *self.expected.of(object) {
            return false;
        }
        let cause = self.found.of(object).unwrap_or(Cause::Check);
        let blame = self.culprit().filter(|_| object == Object::Rules && cause == Cause::Notification);
        let what = format!("{steps} steps{}", blame.unwrap_or_default());
        let repair =
            Repair { time: seconds(SystemTime::now()), object: object.name().to_owned(), cause, what };
        self.repairs.truncate(MAX_LISTED_REPAIRS - 1);
        self.repairs.push_front(repair);
        *self.repair_counts.entry((object.name(), cause)).or_default() += 1;
        true
    }

    /// The process that changed something in our tables last, in words to be added.
    pub(crate) fn culprit(&self) -> Option<String> {
        let culprit = self.foreign.borrow().culprit.clone();
        culprit.map(|(process, pid)| format!("; last changed by {process:?}, process {pid}"))
    }

    /// The kernel holds all that was asked for.
    pub(crate) fn settled(&mut self, object: Object) {
        *self.expected.of(object) = false;
    }

    /// One pass of a kind of work has ended.
    pub(crate) fn passed(&mut self, kind: Condition, began: Instant, succeeded: bool) {
        let took = began.elapsed().as_secs_f64();
        let Work { noted, failing_since } = self.work.entry(kind).or_default();
        let bucket = BUCKETS.iter().position(|bound| took <= *bound).unwrap_or(BUCKETS.len());
        noted.durations.iter_mut().skip(bucket).take(1).for_each(|count| *count += 1);
        noted.seconds += took;
        if succeeded {
            noted.succeeded += 1;
            noted.last_success = Some(seconds(SystemTime::now()));
            *failing_since = None;
            match kind {
                Condition::Rules => self.found.rules = None,
                Condition::Device => self.found.overlay = None,
                _ => {}
            }
        } else {
            noted.failed += 1;
            failing_since.get_or_insert(began);
        }
    }

    /// Puts the notes into a status.
    pub(crate) fn fill(&self, status: &mut Status) {
        let store = self.store.borrow();
        let foreign = self.foreign.borrow();
        status.process = process();
        status.version = env!("CARGO_PKG_VERSION").to_owned();
        status.time = seconds(SystemTime::now());
        status.started = seconds(self.started);
        status.lease.expires = store.lease_expires.map(whole_seconds);
        status.lease.renew_margin = store.renew_margin.map(|margin| margin.as_secs());
        status.store = StoreStatus {
            kind: self.store_kind.to_owned(),
            healthy: store.last_error.is_none() && store.last_contact.is_some(),
            last_contact: store.last_contact.map(seconds),
            last_event: self.last_event.map(seconds),
            last_error: store.last_error.clone(),
            answers: store.answers,
            failures: store.failures,
        };
        status.rules.transactions = self.transactions;
        status.rules.changes = self.changes;
        let work = self.work.iter().map(|(kind, work)| {
            let lag = work.failing_since.map_or(0.0, |since| since.elapsed().as_secs_f64());
            (kind.work().to_owned(), WorkStatus { lag, ..work.noted.clone() })
        });
        status.work = work.collect();
        status.repairs = self.repairs.iter().cloned().collect();
        let counts = self.repair_counts.iter().map(|((object, cause), count)| RepairCount {
            object: (*object).to_owned(),
            cause: *cause,
            count: *count,
        });
        status.repair_counts = counts.collect();
        status.foreign =
            ForeignStatus { ours: foreign.ours, others: foreign.others, overflows: foreign.overflows };
    }
}

/// What this process costs, as the kernel counts it (proc(5)); 0 for what cannot be read.
fn process() -> ProcessStatus {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let cpu = usage.map_or(0, |usage| (usage.user_time() + usage.system_time()).num_microseconds());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let resident: Option<u64> = resident.and_then(|kilobytes| kilobytes.trim().parse().ok());
    // The folder lists the descriptor by which it is read too.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    ProcessStatus {
        cpu_seconds: Duration::from_micros(cpu.try_into().unwrap_or(0)).as_secs_f64(),
        resident_bytes: resident.unwrap_or_default() * 1024,
        open_fds: open.try_into().unwrap_or(u64::MAX),
    }
}

/// Seconds since 1970; 0 for what was before.
pub(crate) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The same, whole ones.
pub(crate) fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
