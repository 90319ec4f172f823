//! How soon a disturbance is repaired, and how often that is logged: at once, unless another process keeps undoing the repair.
//!
//! `ip route flush` and `ip neigh flush` delete and list again, for up to 30 seconds, until nothing is left to delete. A
//! faster repair keeps them running, and the routes away; a short pause lets them end.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

/// How long it must have been quiet for the next disturbance to be repaired at once.
const QUIET_PERIOD: Duration = Duration::from_millis(200);
const MIN_REPAIR_DELAY: Duration = Duration::from_millis(5);
/// Longest pause before a repair.
pub(crate) const MAX_REPAIR_DELAY: Duration = Duration::from_millis(40);
/// The same while another process keeps undoing repairs, so that what it does costs few full readings.
pub(crate) const MAX_CONTESTED_REPAIR_DELAY: Duration = Duration::from_secs(1);

/// Remembers when it was last disturbed.
#[derive(Debug, Default)]
pub(crate) struct RepairPacing {
    last: Option<Instant>,
    pause: Duration,
}

impl RepairPacing {
    /// When to repair what was found broken `now`; each disturbance soon after another waits twice as long, `longest` at
    /// most.
    pub(crate) fn repair_at(&mut self, now: Instant, longest: Duration) -> Instant {
        let quiet = QUIET_PERIOD + self.pause;
        let again = self.last.replace(now).is_some_and(|last| now.duration_since(last) < quiet);
        self.pause = if again { (self.pause * 2).clamp(MIN_REPAIR_DELAY, longest) } else { Duration::ZERO };
        now + self.pause
    }
}

/// Time between two repairs of rules, at least.
pub(crate) const MIN_RULES_INTERVAL: Duration = Duration::from_millis(5);

/// Repairs that are logged in each minute. `flanneld status` and the metrics know of all.
const MAX_LOGGED_REPAIRS: u32 = 30;
const LOG_WINDOW: Duration = Duration::from_secs(60);

/// Counts the repairs of one minute.
#[derive(Debug, Default)]
pub(crate) struct RepairLog {
    since: Option<Instant>,
    repairs: u32,
}

/// Whether to log a repair or change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LogDecision {
    /// As ever.
    Write,
    /// Say instead that it goes on and on.
    Summarize,
    /// Enough has been said in this minute.
    Suppress,
}

impl RepairLog {
    /// What to log of a repair made `now`.
    pub(crate) fn repaired(&mut self, now: Instant) -> LogDecision {
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
pub(crate) struct ChangeLog {
    by_subnet: BTreeMap<IpNet, RepairLog>,
    pruned: Option<Instant>,
}

impl ChangeLog {
    /// What to log of a change of this subnet's lease `now`.
    pub(crate) fn changed(&mut self, subnet: IpNet, now: Instant) -> LogDecision {
        let is_over = |since: Instant| now.duration_since(since) >= LOG_WINDOW;
        if self.pruned.is_none_or(is_over) {
            self.by_subnet.retain(|_, log| log.since.is_some_and(|since| !is_over(since)));
            self.pruned = Some(now);
        }
        self.by_subnet.entry(subnet).or_default().repaired(now)
    }

    /// Whether enough has been logged of this subnet's lease in this minute.
    pub(crate) fn is_quiet(&self, subnet: IpNet) -> bool {
        self.by_subnet.get(&subnet).is_some_and(|log| log.repairs > MAX_LOGGED_REPAIRS)
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

    #[test]
    fn a_first_disturbance_is_repaired_at_once_and_a_fight_is_left_to_end() {
        let mut pacing = RepairPacing::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let at = pacing.repair_at(now, MAX_REPAIR_DELAY);
            pauses.push((at - now).as_millis());
            now = at + Duration::from_millis(1);
        }
        assert_eq!(pauses, [0, 5, 10, 20, 40, 40]);
        now += QUIET_PERIOD + MAX_REPAIR_DELAY;
        assert_eq!(pacing.repair_at(now, MAX_REPAIR_DELAY), now);
    }
}
