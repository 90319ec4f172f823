//! The pause before each repair. A first one is made at once; disturbances that follow each other wait for milliseconds.
//! For an object that another process keeps undoing each repair waits longer than the one before, up to a minute, and the
//! object is reported until it stays repaired. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use flannel_lease::pause_before_rewrite;
use flannel_vxlan::Part;
use tokio::time::Instant;

/// How long it must have been quiet for the next disturbance to be repaired at once.
const QUIET_PERIOD: Duration = Duration::from_millis(200);
const MIN_REPAIR_DELAY: Duration = Duration::from_millis(5);
/// Longest pause before a repair.
pub(super) const MAX_REPAIR_DELAY: Duration = Duration::from_millis(40);
/// The same while another process keeps undoing repairs, so that what it does costs few full readings.
pub(super) const MAX_CONTESTED_REPAIR_DELAY: Duration = Duration::from_secs(1);
/// Time between two repairs of rules, at least.
pub(super) const MIN_RULES_INTERVAL: Duration = Duration::from_millis(5);
/// How soon after a repair the next one is in a row with it, at least.
const MIN_QUIET: Duration = Duration::from_secs(1);
/// How long a look at the end of a hold may take.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// The pause before a repair: none, unless there was a disturbance a moment ago.
///
/// `ip route flush` and `ip neigh flush` delete and list again, for up to 30 seconds, until nothing is left to delete. A
/// faster repair keeps them running, and the routes away; a short pause lets them end.
#[derive(Debug, Default)]
pub(super) struct RepairDelay {
    last: Option<Instant>,
    pause: Duration,
}

impl RepairDelay {
    /// When to repair what was found broken `now`; each disturbance soon after another waits twice as long, `longest` at
    /// most.
    pub(super) fn repair_at(&mut self, now: Instant, longest: Duration) -> Instant {
        let quiet = QUIET_PERIOD + self.pause;
        let again = self.last.replace(now).is_some_and(|last| now.duration_since(last) < quiet);
        self.pause = if again { (self.pause * 2).clamp(MIN_REPAIR_DELAY, longest) } else { Duration::ZERO };
        now + self.pause
    }
}

/// What is repaired as one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Subject {
    /// flannel's own tables.
    Tables,
    /// The accept rules in chains of iptables.
    AcceptRules,
    /// subnet.env.
    SubnetFile,
    /// A part of the overlay.
    Overlay(Part),
}

impl Subject {
    /// Repairs in a row that are made at once; and how soon after one the next is in a row with it, at least. Chains of
    /// iptables are looked at once a second at most.
    fn limits(self) -> (u32, Duration) {
        match self {
            Self::Tables | Self::Overlay(_) => (8, MIN_QUIET),
            Self::AcceptRules | Self::SubnetFile => (3, 5 * MIN_QUIET),
        }
    }
}

/// Repairs of one subject in a row.
#[derive(Clone, Debug)]
struct Streak {
    repairs: u32,
    last: Instant,
    /// When it is looked at again at the earliest.
    next_check: Instant,
    /// What is undone, in words.
    object: String,
}

impl Streak {
    fn hold(&self, subject: Subject) -> Duration {
        let (free, _) = subject.limits();
        pause_before_rewrite(self.repairs, free)
    }

    /// Until when it is not repaired again.
    fn held_until(&self, subject: Subject) -> Instant {
        self.last + self.hold(subject)
    }

    /// When it is over, if it is not broken again.
    fn ends(&self, subject: Subject) -> Instant {
        let (_, quiet) = subject.limits();
        (self.last + self.hold(subject).max(quiet)).max(self.next_check) + CHECK_TIMEOUT
    }

    fn is_contest(&self, subject: Subject) -> bool {
        !self.hold(subject).is_zero()
    }
}

/// What is repaired again and again.
#[derive(Debug, Default)]
pub(super) struct Contests {
    streaks: BTreeMap<Subject, Streak>,
}

/// A change to be logged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Began(String),
    Ended(String),
}

impl Contests {
    /// Notes a repair of what is looked at again at `next_check`; `object` says what it is, in words. Returns the contest
    /// that begins with it.
    pub(super) fn repaired(
        &mut self,
        subject: Subject,
        (now, next_check): (Instant, Instant),
        object: impl FnOnce() -> String,
    ) -> Option<Change> {
        let known = self.streaks.get(&subject).filter(|streak| now < streak.ends(subject)).cloned();
        let contested = known.as_ref().is_some_and(|streak| streak.is_contest(subject));
        let mut streak = known.unwrap_or(Streak { repairs: 0, last: now, next_check, object: String::new() });
        streak.repairs = streak.repairs.saturating_add(1);
        (streak.last, streak.next_check) = (now, next_check);
        let begins = !contested && streak.is_contest(subject);
        if begins {
            streak.object = object();
        }
        let change = begins.then(|| Change::Began(streak.object.clone()));
        self.streaks.insert(subject, streak);
        change
    }

    /// Forgets what has not been undone for long enough; returns the contests that end with it.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Change> {
        let mut ended = Vec::new();
        self.streaks.retain(|subject, streak| {
            let stays = now < streak.ends(*subject);
            if !stays && streak.is_contest(*subject) {
                ended.push(Change::Ended(std::mem::take(&mut streak.object)));
            }
            stays
        });
        ended
    }

    /// Until when this is not repaired; `None` if it may be at once.
    pub(super) fn held_until(&self, subject: Subject) -> Option<Instant> {
        let streak = self.streaks.get(&subject).filter(|streak| streak.is_contest(subject))?;
        Some(streak.held_until(subject))
    }

    /// Parts of the overlay that are not repaired `now`.
    pub(super) fn held_parts(&self, now: Instant) -> BTreeSet<Part> {
        let held = self.contested().filter(|(subject, streak)| now < streak.held_until(*subject));
        held.filter_map(|(subject, _)| match subject {
            Subject::Overlay(part) => Some(part),
            Subject::Tables | Subject::AcceptRules | Subject::SubnetFile => None,
        })
        .collect()
    }

    /// Whether a part of the overlay is contested.
    pub(super) fn has_parts(&self) -> bool {
        self.contested().any(|(subject, _)| matches!(subject, Subject::Overlay(_)))
    }

    /// When the next hold or contest is over.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let of = |(subject, streak): (Subject, &Streak)| {
            let held = Some(streak.held_until(subject)).filter(|at| now < *at);
            held.into_iter().chain([streak.ends(subject)]).min()
        };
        self.contested().filter_map(of).min()
    }

    fn contested(&self) -> impl Iterator<Item = (Subject, &Streak)> {
        let all = self.streaks.iter().map(|(subject, streak)| (*subject, streak));
        all.filter(|(subject, streak)| streak.is_contest(*subject))
    }

    /// What is contested, in words; `None` if nothing is.
    pub(super) fn summary(&self) -> Option<String> {
        /// Objects that are named; of the others there is the number.
        const NAMED: usize = 3;
        let mut all = self.contested();
        let first = all.next()?;
        let named = std::iter::once(first).chain(all.by_ref().take(NAMED - 1));
        let named: Vec<String> = named
            .map(|(_, Streak { object, repairs, .. })| format!("{object} (repaired {repairs} times)"))
            .collect();
        let more = match all.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "another process keeps undoing {}{more}; flanneld repairs it less and less often, once a minute at least: stop \
             that process",
            named.join(", ")
        ))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began(object) => write!(
                f,
                "another process keeps undoing {object}: pod traffic that needs it is lost meanwhile. flanneld repairs it \
                 after pauses of 1 to 60 seconds and is not ready until the changes stop: find what runs that process (a firewall service, a cron job) and stop it"
            ),
            Self::Ended(object) => write!(f, "another process no longer undoes {object}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_lease::MAX_REWRITE_PAUSE;

    use super::*;

    const TABLES: Subject = Subject::Tables;

    /// Repairs as soon as it may for a while; what is repaired is undone after `lives`. Returns when that was, in
    /// milliseconds.
    fn fight(contests: &mut Contests, start: Instant, lives: Duration, time: Duration) -> Vec<u128> {
        let (mut now, mut repairs) = (start, Vec::new());
        while now < start + time {
            contests.repaired(TABLES, (now, now), || "it".to_owned());
            repairs.push((now - start).as_millis());
            now = contests.held_until(TABLES).unwrap_or(now).max(now + lives);
        }
        repairs
    }

    #[test]
    fn what_is_undone_at_once_is_repaired_after_pauses_that_grow_to_a_minute() {
        let mut contests = Contests::default();
        let start = Instant::now();
        let repairs = fight(&mut contests, start, Duration::from_millis(5), Duration::from_secs(600));
        let pauses: Vec<u128> = repairs.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..8], [5; 8]);
        assert_eq!(pauses[8..15], [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000]);
        assert!(contests.summary().unwrap().contains("undoing it (repaired "));
    }

    #[test]
    fn what_lasts_for_seconds_is_repaired_at_once_however_often() {
        let mut contests = Contests::default();
        let repairs = fight(&mut contests, Instant::now(), Duration::from_secs(5), Duration::from_secs(600));
        assert_eq!(repairs.len(), 120);
        assert_eq!(contests.summary(), None);
    }

    #[test]
    fn a_contest_is_told_when_it_begins_and_when_it_ends() {
        let mut contests = Contests::default();
        let now = Instant::now();
        let told: Vec<_> =
            (0..20).filter_map(|_| contests.repaired(TABLES, (now, now), || "it".to_owned())).collect();
        assert_eq!(told, [Change::Began("it".to_owned())]);
        assert_eq!(contests.settle(now + MAX_REWRITE_PAUSE), []);
        let over = now + MAX_REWRITE_PAUSE + CHECK_TIMEOUT;
        assert_eq!(contests.settle(over), [Change::Ended("it".to_owned())]);
        assert_eq!((contests.summary(), contests.next(over)), (None, None));
    }

    #[test]
    fn three_contested_objects_are_named_and_the_others_counted() {
        let (mut contests, now) = (Contests::default(), Instant::now());
        let mut summary_of = |count: u8| {
            let subnet = format!("10.244.{count}.0/24").parse().unwrap();
            for _ in 0..20 {
                let _told = contests
                    .repaired(Subject::Overlay(Part::Peer(subnet)), (now, now), || format!("peer {count}"));
            }
            contests.summary().unwrap()
        };
        let begins = |text: String, with: &str| assert!(text.starts_with(with), "{text}");
        begins(summary_of(1), "another process keeps undoing peer 1 (repaired 20 times); flanneld");
        summary_of(2);
        let three = "another process keeps undoing peer 1 (repaired 20 times), peer 2 (repaired 20 times), \
                     peer 3 (repaired 20 times)";
        begins(summary_of(3), &format!("{three}; flanneld"));
        begins(summary_of(4), &format!("{three} and 1 more; flanneld"));
        begins(summary_of(5), &format!("{three} and 2 more; flanneld"));
    }

    #[test]
    fn the_log_names_the_object_of_a_contest() {
        let began = Change::Began("table ip x".to_owned()).to_string();
        assert!(began.starts_with("another process keeps undoing table ip x: pod traffic"), "{began}");
        let ended = Change::Ended("table ip x".to_owned()).to_string();
        assert_eq!(ended, "another process no longer undoes table ip x");
    }

    #[test]
    fn a_first_disturbance_is_repaired_at_once_and_a_fight_is_left_to_end() {
        let mut delay = RepairDelay::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let at = delay.repair_at(now, MAX_REPAIR_DELAY);
            pauses.push((at - now).as_millis());
            now = at + Duration::from_millis(1);
        }
        assert_eq!(pauses, [0, 5, 10, 20, 40, 40]);
        now += QUIET_PERIOD + MAX_REPAIR_DELAY;
        assert_eq!(delay.repair_at(now, MAX_REPAIR_DELAY), now);
    }
}
