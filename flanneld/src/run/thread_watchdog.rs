//! Threads that may block, and what notices that one does: what it checks is then not known to hold.

use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::interval;
use tracing::{info, warn};

use crate::run::fatal::Fatal;
use crate::status::readiness::{Condition, Readiness, update};

/// How often a thread shows that it makes progress.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// A thread that has been silent for longer makes the node unready.
const STALLED_AFTER: Duration = Duration::from_secs(15);
/// How often that is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `work` in a thread and a runtime of its own, where it may block. The receiver gets what it returns; nothing if
/// it panics.
///
/// # Errors
/// [`Fatal::Thread`].
pub(crate) fn start_thread<T, F>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<oneshot::Receiver<T>, Fatal>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (done_tx, done_rx) = oneshot::channel();
    let (started_tx, started_rx) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let runtime = match runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started_tx.send(error)),
            };
            drop(started_tx);
            let done = runtime.block_on(async { work().await });
            // Blocking calls may still be under way; they end with the process.
            runtime.shutdown_background();
            // Nobody waits any more if it took too long.
            let _unheard = done_tx.send(done);
        })
        .map_err(Fatal::Thread)?;
    // Two threads that start at once might take the last thread that the kernel allows from each other.
    match started_rx.recv() {
        Ok(error) => Err(Fatal::Thread(error)),
        Err(_started) => Ok(done_rx),
    }
}

/// A runtime for the calling thread. Its first thread for blocking calls runs and stays: `spawn_blocking` panics if there is
/// none and the kernel refuses another.
///
/// # Errors
/// The kernel refuses a thread or an event loop.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().thread_keep_alive(Duration::MAX).build()?;
    let probe = std::thread::Builder::new().spawn(|| ())?;
    let _ended = probe.join();
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

/// Shows that the calling thread makes progress, for as long as it does. Never returns.
pub(crate) async fn send_heartbeats(heartbeat_tx: &watch::Sender<Instant>) {
    let mut interval = interval(HEARTBEAT_INTERVAL);
    loop {
        interval.tick().await;
        heartbeat_tx.send_replace(Instant::now());
    }
}

/// A thread, and when it last made progress.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) name: &'static str,
    /// What is not done while it is blocked.
    pub(crate) duty: &'static str,
    pub(crate) heartbeat: watch::Receiver<Instant>,
}

/// The checks of the threads' heartbeats.
#[derive(Debug)]
struct Checks {
    latest: Instant,
    /// The first one after a time in which no thread of this process could run.
    resumed: Instant,
}

impl Checks {
    fn new(now: Instant) -> Self {
        Self { latest: now, resumed: now }
    }

    fn check(&mut self, now: Instant) {
        // A late check: the process was stopped, or the machine was suspended.
        if now.duration_since(self.latest) > HEARTBEAT_INTERVAL {
            self.resumed = now;
        }
        self.latest = now;
    }

    /// Whether a thread is blocked that has been silent since `heartbeat`.
    fn is_stalled(&self, heartbeat: Instant) -> bool {
        self.latest.duration_since(heartbeat.max(self.resumed)) > STALLED_AFTER
    }
}

/// Makes the node unready while one of `threads` is blocked. Never returns.
pub(crate) async fn watch_threads(threads: [Thread; 3], readiness: watch::Sender<Readiness>) {
    let mut stalls = threads.map(|thread| (thread, None::<Instant>));
    let mut interval = interval(CHECK_INTERVAL);
    let mut checks = Checks::new(Instant::now());
    loop {
        interval.tick().await;
        checks.check(Instant::now());
        let mut reasons = Vec::new();
        for (Thread { name, duty, heartbeat }, stalled) in &mut stalls {
            let last = *heartbeat.borrow();
            if *stalled != Some(last) && !checks.is_stalled(last) {
                if let Some(since) = stalled.take() {
                    let blocked = last.duration_since(since).as_secs();
                    info!("the call in thread `{name}` returned after {blocked} seconds: flanneld continues");
                }
                continue;
            }
            let reason = format!(
                "a call in thread `{name}` has not returned for over {} seconds: {duty} until it does",
                STALLED_AFTER.as_secs()
            );
            if stalled.is_none() {
                warn!(
                    "{reason}; pod traffic continues. Check the disks, network file systems and the kernel's log; \
                     /proc/{}/task/*/stack shows the call",
                    std::process::id()
                );
            }
            stalled.get_or_insert(last);
            reasons.push(reason);
        }
        let state = if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) };
        update(&readiness, |readiness| readiness.set(Condition::Progress, state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_stalled_if_it_is_silent_while_the_process_runs() {
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        let mut checks = Checks::new(start);
        for n in 1..=15 {
            checks.check(second(n));
            assert!(!checks.is_stalled(start), "after {n} seconds");
        }
        checks.check(second(16));
        assert!(checks.is_stalled(start) && !checks.is_stalled(second(1)));
        // SIGSTOP, or a suspended machine: the threads have as long again.
        for n in 316..=331 {
            checks.check(second(n));
            assert!(!checks.is_stalled(second(14)), "after {n} seconds");
        }
        checks.check(second(332));
        assert!(checks.is_stalled(second(14)));
    }
}
