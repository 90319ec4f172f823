//! A lease that another process keeps changing: it is published again after pauses that grow to a minute, and that is
//! reported until the lease stays as it was published. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::pause_before_rewrite;
use crate::health::Health;

/// Times in a row that a lease is published again without a pause. A newcomer has fewer, so that of two hosts with the same
/// name the older prevails.
const FREE_WRITES: u32 = 8;
const FREE_WRITES_OF_NEWCOMER: u32 = 3;
/// How long a lease has been held when its holder is no newcomer any more.
const NEW: Duration = Duration::from_secs(10);
/// Least time between two warnings of what is no contest.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);
const MIN_HOLD: Duration = Duration::from_secs(1);

/// What another process does to this node's lease, for the log.
pub(crate) struct Damage {
    /// The actor, what it does, and the object.
    pub(crate) what: String,
    /// What the operator has to do, if it happens again and again.
    pub(crate) cure: &'static str,
}

impl Damage {
    pub(crate) fn by_process(what: String) -> Self {
        Self { what, cure: "Find that process and stop it" }
    }
}

/// How often in a row this node's lease was published again.
#[derive(Debug)]
pub(crate) struct Contest {
    /// When the lease was taken.
    start: Instant,
    free_writes: u32,
    writes: u32,
    last: Option<Instant>,
    warned: Option<Instant>,
    reported: bool,
}

impl Contest {
    /// Of a lease that was taken `now`. What was reported of the contest before it, which is cut short if the node's
    /// attributes change, no longer holds: nothing else would take it back.
    pub(crate) fn new(now: Instant, health: &Health) -> Self {
        health.contested(None);
        Self { start: now, free_writes: 0, writes: 0, last: None, warned: None, reported: false }
    }

    fn hold(&self) -> Duration {
        pause_before_rewrite(self.writes, self.free_writes)
    }

    /// Until when a changed lease is left as it is; `None` if it may be published again `now`.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.last.map(|last| last + self.hold()).filter(|until| now < *until)
    }

    /// When it is over, unless the lease is changed until then.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.last.map(|last| last + self.hold().max(MIN_HOLD))
    }

    /// Notes that the lease is published again `now`. Logs and reports what another process does, once.
    pub(crate) fn published_again(&mut self, now: Instant, health: &Health, damage: impl Fn() -> Damage) {
        if self.writes == 0 {
            let is_new = now.duration_since(self.start) < NEW;
            self.free_writes = if is_new { FREE_WRITES_OF_NEWCOMER } else { FREE_WRITES };
        }
        self.writes = self.writes.saturating_add(1);
        self.last = Some(now);
        if self.warned.is_none_or(|warned| now.duration_since(warned) >= WARNING_INTERVAL) {
            self.warned = Some(now);
            tracing::info!(
                "{}: flanneld published this node's lease again; pod traffic is not affected, and nothing is needed unless \
                 this repeats",
                damage().what
            );
        }
        if self.writes <= self.free_writes || self.reported {
            return;
        }
        let Damage { what, cure } = damage();
        let text = format!(
            "{what} again and again: peers may not reach this node's pods until it stops. flanneld publishes its own values \
             after pauses of 1 to 60 seconds, and this node is not ready. {cure}"
        );
        tracing::error!("{text}");
        health.contested(Some(text));
        self.reported = true;
    }

    /// Notes that the lease is as it was published, `now`.
    pub(crate) fn is_right(&mut self, now: Instant, health: &Health) {
        if self.ends().is_some_and(|ends| now >= ends) {
            if self.reported {
                tracing::info!("another process no longer changes this node's lease");
                health.contested(None);
            }
            (self.writes, self.last, self.reported) = (0, None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::MAX_REWRITE_PAUSE;

    #[test]
    fn a_lease_that_is_changed_at_once_is_published_after_pauses_that_grow_to_a_minute() {
        let start = Instant::now() + NEW;
        let health = Health::default();
        let mut contest = Contest::new(start - NEW, &health);
        let (mut now, mut at) = (start, Vec::new());
        while now < start + Duration::from_secs(600) {
            contest.published_again(now, &health, || Damage::by_process("x".to_owned()));
            at.push((now - start).as_millis());
            now = contest.held_until(now).unwrap_or(now) + Duration::from_millis(5);
        }
        let pauses: Vec<u128> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..9], [5, 5, 5, 5, 5, 5, 5, 5, 1005], "{pauses:?}");
        assert!(pauses[15..].iter().all(|pause| *pause == 60_005), "{pauses:?}");
        let contested = || health.subscribe().borrow().contested.clone();
        assert!(contested().is_some_and(|text| text.starts_with("x again and again")));
        contest.is_right(now - MIN_HOLD, &health);
        assert!(contested().is_some(), "it may be changed again");
        contest.is_right(now, &health);
        assert_eq!((contested(), contest.held_until(now)), (None, None));
    }

    #[test]
    fn a_contest_that_is_cut_short_is_not_reported_for_ever() {
        let (start, health) = (Instant::now(), Health::default());
        let mut contest = Contest::new(start, &health);
        (0..10).for_each(|_| contest.published_again(start, &health, || Damage::by_process("x".to_owned())));
        assert!(health.subscribe().borrow().contested.is_some());
        // The attributes have changed: the lease is held from the start.
        Contest::new(start, &health).is_right(start + MAX_REWRITE_PAUSE, &health);
        assert_eq!(health.subscribe().borrow().contested, None);
    }

    #[test]
    fn changes_now_and_then_are_no_contest() {
        let start = Instant::now();
        let health = Health::default();
        let mut contest = Contest::new(start, &health);
        for minute in 0..60 {
            let now = start + minute * MAX_REWRITE_PAUSE;
            contest.is_right(now, &health);
            assert_eq!(contest.held_until(now), None);
            contest.published_again(now, &health, || Damage::by_process("x".to_owned()));
        }
        assert_eq!(health.subscribe().borrow().contested, None);
    }
}
