//! Growing, jittered pauses between attempts.

use std::time::Duration;

use rand::RngExt;

/// Pauses that double from 100 ms to 5 s, each reduced by a random part of up to one half, so that many
/// nodes that lost the same store do not come back in step.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The pause before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let whole = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..100).map(|_| backoff.next_delay()).collect();
        assert!(pauses.iter().all(|pause| (Backoff::FIRST / 2..=Backoff::LONGEST).contains(pause)));
        assert!(pauses[50..].iter().all(|pause| *pause >= Backoff::LONGEST / 2));
        backoff.reset();
        assert!(backoff.next_delay() <= Backoff::FIRST);
    }
}
