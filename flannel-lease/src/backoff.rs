//! Growing, jittered pauses between attempts.

use std::time::Duration;

use rand::RngExt;

/// Pauses between retries. They double from 100 ms up to a maximum, by default 5 s. Each is reduced by a random part of
/// up to one half, so that nodes that lost the same store do not retry in step.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(Self::MAX_DELAY)
    }
}

impl Backoff {
    const FIRST_DELAY: Duration = Duration::from_millis(100);
    const MAX_DELAY: Duration = Duration::from_secs(5);

    /// Pauses of up to `longest`.
    #[must_use]
    pub fn up_to(longest: Duration) -> Self {
        Self { failures: 0, longest }
    }

    /// The pause before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let whole = Self::FIRST_DELAY.saturating_mul(1 << self.failures.min(10)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Starts again at 100 ms. Call it after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The pause before something is written again that another process undoes each time: none for the first `free` times in
/// a row, then 1 second, doubled each time up to 60. `times` counts what was written in a row so far.
#[must_use]
pub fn pause_before_rewrite(times: u32, free: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    match times.checked_sub(free) {
        None | Some(0) => Duration::ZERO,
        Some(more) => FIRST.saturating_mul(1 << (more - 1).min(6)).min(MAX_REWRITE_PAUSE),
    }
}

/// The longest [`pause_before_rewrite`].
pub const MAX_REWRITE_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..100).map(|_| backoff.next_delay()).collect();
        assert!(pauses.iter().all(|pause| (Backoff::FIRST_DELAY / 2..=Backoff::MAX_DELAY).contains(pause)));
        assert!(pauses[50..].iter().all(|pause| *pause >= Backoff::MAX_DELAY / 2));
        backoff.reset();
        assert!(backoff.next_delay() <= Backoff::FIRST_DELAY);
    }
}
