//! How often the same is logged: 30 repairs or changes per minute, and a warning that stays only once.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use tracing::error;

/// Repairs that are logged in each minute. `flanneld status` and the metrics know of all.
const MAX_LOGGED_REPAIRS: u32 = 30;
const LOG_WINDOW: Duration = Duration::from_secs(60);

/// Counts the repairs of one minute.
#[derive(Debug, Default)]
pub(super) struct RepairLog {
    since: Option<Instant>,
    repairs: u32,
}

/// Whether to log a repair or change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LogDecision {
    /// As ever.
    Write,
    /// Say instead that it goes on and on.
    Summarize,
    /// Enough has been said in this minute.
    Suppress,
}

impl RepairLog {
    /// What to log of a repair made `now`.
    pub(super) fn repaired(&mut self, now: Instant) -> LogDecision {
        if self.since.is_none_or(|since| now.duration_since(since) >= LOG_WINDOW) {
            *self = Self { since: Some(now), repairs: 0 };
        }
        self.repairs = self.repairs.saturating_add(1);
        match self.repairs {
            0..=MAX_LOGGED_REPAIRS => LogDecision::Write,
            repairs if repairs == MAX_LOGGED_REPAIRS + 1 => LogDecision::Summarize,
            _ => LogDecision::Suppress,
        }
    }
}

/// Counts the changes of each subnet's lease, so that one that changes hundreds of times a second does not fill the log.
#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    by_subnet: BTreeMap<IpNet, RepairLog>,
    pruned: Option<Instant>,
}

impl ChangeLog {
    /// What to log of a change of this subnet's lease `now`.
    pub(super) fn changed(&mut self, subnet: IpNet, now: Instant) -> LogDecision {
        let is_over = |since: Instant| now.duration_since(since) >= LOG_WINDOW;
        if self.pruned.is_none_or(is_over) {
            self.by_subnet.retain(|_, log| log.since.is_some_and(|since| !is_over(since)));
            self.pruned = Some(now);
        }
        self.by_subnet.entry(subnet).or_default().repaired(now)
    }

    /// Whether enough has been logged of this subnet's lease in this minute.
    pub(super) fn is_quiet(&self, subnet: IpNet) -> bool {
        self.by_subnet.get(&subnet).is_some_and(|log| log.repairs > MAX_LOGGED_REPAIRS)
    }
}

/// Conflicts and gaps that cut subnets off: each is logged once, for as long as it holds.
#[derive(Debug, Default)]
pub(super) struct LogOnce(BTreeMap<IpNet, Vec<String>>);

impl LogOnce {
    /// Takes all that is wrong with `subnet` now, and logs what is new.
    pub(super) fn set(&mut self, subnet: IpNet, now: Vec<String>) {
        if now.is_empty() {
            self.0.remove(&subnet);
            return;
        }
        let logged = self.0.entry(subnet).or_default();
        now.iter().filter(|text| !logged.contains(text)).for_each(|text| error!("{text}"));
        *logged = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_changes_all_the_time_is_named_once_a_minute_and_hides_no_other() {
        let (mut changes, start) = (ChangeLog::default(), Instant::now());
        let (busy, other) = ("10.244.1.0/24".parse().unwrap(), "10.244.2.0/24".parse().unwrap());
        let mut logs: Vec<_> = (0..MAX_LOGGED_REPAIRS).map(|_| changes.changed(busy, start)).collect();
        assert!(!changes.is_quiet(busy), "what is logged one by one is not summarized");
        logs.extend((0..1000).map(|_| changes.changed(busy, start)));
        assert_eq!(logs.iter().filter(|log| **log != LogDecision::Suppress).count(), 31);
        assert!(changes.is_quiet(busy) && !changes.is_quiet(other));
        assert_eq!(changes.changed(other, start), LogDecision::Write);
        assert_eq!(changes.changed(other, start + LOG_WINDOW), LogDecision::Write);
        assert!(!changes.is_quiet(busy), "what is over takes no memory");
    }

    #[test]
    fn a_fight_is_named_once_a_minute_and_not_told_blow_by_blow() {
        let (mut repair_log, start) = (RepairLog::default(), Instant::now());
        let mut told = |seconds| {
            let at = start + Duration::from_secs(seconds);
            let logs: Vec<LogDecision> = (0..1000).map(|_| repair_log.repaired(at)).collect();
            let count = |which| logs.iter().filter(|log| **log == which).count();
            (count(LogDecision::Write), count(LogDecision::Summarize))
        };
        assert_eq!(told(0), (30, 1));
        assert_eq!(told(59), (0, 0));
        assert_eq!(told(60), (30, 1));
    }
}
