//! How soon a disturbance is repaired: at once, unless somebody keeps undoing the repair.
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

/// Remembers when it was last disturbed.
#[derive(Debug, Default)]
pub(crate) struct Calm {
    last: Option<Instant>,
    pause: Duration,
}

impl Calm {
    /// When to repair what was found broken `now`; each disturbance soon after another waits twice as long.
    pub(crate) fn repair_at(&mut self, now: Instant) -> Instant {
        let again = self.last.replace(now).is_some_and(|last| now.duration_since(last) < QUIET);
        self.pause = if again { (self.pause * 2).clamp(SHORTEST, LONGEST) } else { Duration::ZERO };
        now + self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_disturbance_is_repaired_at_once_and_a_fight_is_left_to_end() {
        let mut calm = Calm::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let at = calm.repair_at(now);
            pauses.push((at - now).as_millis());
            now = at + Duration::from_millis(1);
        }
        assert_eq!(pauses, [0, 5, 10, 20, 40, 40]);
        now += QUIET;
        assert_eq!(calm.repair_at(now), now);
    }
}
