//! How soon a disturbance is repaired, and how often that is logged: at once, unless somebody keeps undoing the repair.
//!
//! `ip route flush` and `ip neigh flush` delete and list again, for up to 30 seconds, until nothing is left to delete. A
//! repair that is faster than they are keeps them going, and the routes away; a short pause lets them end.

use std::time::Duration;

use tokio::time::Instant;

/// How long it must have been quiet for the next disturbance to be repaired at once.
const QUIET: Duration = Duration::from_millis(200);
const SHORTEST: Duration = Duration::from_millis(5);
/// Longest pause before a repair.
pub(crate) const LONGEST: Duration = Duration::from_millis(40);
/// The same while another process keeps undoing repairs, so that what it does costs few full readings.
pub(crate) const LONGEST_IN_CONTEST: Duration = Duration::from_secs(1);

/// Remembers when it was last disturbed.
#[derive(Debug, Default)]
pub(crate) struct Calm {
    last: Option<Instant>,
    pause: Duration,
}

impl Calm {
    /// When to repair what was found broken `now`; each disturbance soon after another waits twice as long, `longest` at
    /// most.
    pub(crate) fn repair_at(&mut self, now: Instant, longest: Duration) -> Instant {
        let quiet = QUIET + self.pause;
        let again = self.last.replace(now).is_some_and(|last| now.duration_since(last) < quiet);
        self.pause = if again { (self.pause * 2).clamp(SHORTEST, longest) } else { Duration::ZERO };
        now + self.pause
    }
}

/// Time between two repairs of rules, at least.
pub(crate) const RULES: Duration = Duration::from_millis(5);

/// Repairs that are logged in each minute. `flanneld status` and the metrics know of all.
const LINES: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// Counts the repairs of one minute.
#[derive(Debug, Default)]
pub(crate) struct Minute {
    since: Option<Instant>,
    repairs: u32,
}

/// Whether to log a repair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Log {
    /// As ever.
    Line,
    /// Say instead that it goes on and on.
    Fight,
    /// Enough has been said in this minute.
    Nothing,
}

impl Minute {
    /// What to log of a repair made `now`.
    pub(crate) fn repaired(&mut self, now: Instant) -> Log {
        if self.since.is_none_or(|since| now.duration_since(since) >= MINUTE) {
            *self = Self { since: Some(now), repairs: 0 };
        }
        self.repairs = self.repairs.saturating_add(1);
        match self.repairs {
            0..=LINES => Log::Line,
            repairs if repairs == LINES + 1 => Log::Fight,
            _ => Log::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_named_once_a_minute_and_not_told_blow_by_blow() {
        let (mut minute, start) = (Minute::default(), Instant::now());
        let mut told = |seconds| {
            let at = start + Duration::from_secs(seconds);
            let logs: Vec<Log> = (0..1000).map(|_| minute.repaired(at)).collect();
            let count = |which| logs.iter().filter(|log| **log == which).count();
            (count(Log::Line), count(Log::Fight))
        };
        assert_eq!(told(0), (30, 1));
        assert_eq!(told(59), (0, 0));
        assert_eq!(told(60), (30, 1));
    }

    #[test]
    fn a_first_disturbance_is_repaired_at_once_and_a_fight_is_left_to_end() {
        let mut calm = Calm::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let at = calm.repair_at(now, LONGEST);
            pauses.push((at - now).as_millis());
            now = at + Duration::from_millis(1);
        }
        assert_eq!(pauses, [0, 5, 10, 20, 40, 40]);
        now += QUIET + LONGEST;
        assert_eq!(calm.repair_at(now, LONGEST), now);
    }
}
