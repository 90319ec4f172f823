//! When work is due.

use tokio::time::Instant;

use flannel_lease::Backoff;

/// One kind of work: due at some time, later after each failure.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// When it is due; `None`: not before something happens.
    pub(super) at: Option<Instant>,
    backoff: Backoff,
}

impl Due {
    /// Makes it due at once.
    pub(super) fn now(&mut self) {
        self.at = Some(Instant::now());
    }

    /// Whether it is due; it then no longer is.
    pub(super) fn take(&mut self) -> bool {
        self.at.take_if(|at| *at <= Instant::now()).is_some()
    }

    /// Notes how it went; a failure makes it due again after a pause.
    pub(super) fn settle(&mut self, succeeded: bool) {
        if succeeded {
            self.backoff.reset();
        } else {
            self.at = Some(Instant::now() + self.backoff.next_delay());
        }
    }
}
