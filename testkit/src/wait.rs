use std::thread;
use std::time::{Duration, Instant};

use crate::setting;

/// Asks `probe` every millisecond until it answers, at most for `limit`; `None` if it never did.
///
/// It asks at least once, and returns as soon as there is an answer: no test waits longer than it has to. On a slow
/// machine, say an emulated one, `FLANNEL_TEST_SLOWDOWN=10` makes the limit and the pauses ten times as long.
pub fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    let limit = slowed(limit);
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if begun.elapsed() >= limit {
            return None;
        }
        #[expect(clippy::disallowed_methods, reason = "this is the bounded wait for the thing itself")]
        thread::sleep(slowed(Duration::from_millis(1)));
    }
}

/// A limit made for real hardware, as long as it has to be on this machine.
pub(crate) fn slowed(limit: Duration) -> Duration {
    limit.saturating_mul(slowdown())
}

/// How long nothing may have arrived before the packets that are missing at the end of a stream count as lost: their
/// senders, and the kernel's own threads that deliver them, may have to wait for the processor.
pub(crate) const STRAGGLERS: Duration = Duration::from_secs(1);

/// A rate made for real hardware, as high as this machine forwards it: an emulated processor overflows its backlog (second
/// column of /proc/net/softnet_stat), and that would count as loss.
#[must_use]
pub fn forwarded(per_second: u32) -> u32 {
    per_second.div_ceil(slowdown())
}

fn slowdown() -> u32 {
    setting("FLANNEL_TEST_SLOWDOWN")
        .and_then(|factor| factor.parse().ok())
        .map_or(1, |factor: u32| factor.max(1))
}

/// Says how many packets are due at a constant rate.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    per_second: u32,
    granted: u64,
}

impl Pace {
    /// A sender that was kept off the CPU sends at most this many at once; bursts would overflow the kernel's
    /// 1000-packet backlog and count as loss. It then falls short of the rate instead.
    const BURST: u64 = 64;

    pub(crate) fn new(per_second: u32) -> Self {
        Self { begun: Instant::now(), per_second, granted: 0 }
    }

    /// How many to send now.
    pub(crate) fn due(&mut self) -> u64 {
        let micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let total = micros.saturating_mul(u64::from(self.per_second)) / 1_000_000;
        let due = total.saturating_sub(self.granted);
        self.granted = total;
        due.min(Self::BURST)
    }

    /// Gives the CPU away until more may be due.
    pub(crate) fn pause(&self) {
        #[expect(clippy::disallowed_methods, reason = "keeping time is what a pace is for")]
        thread::sleep(Duration::from_micros(500));
    }
}
