//! What systemd is told (sd_notify(3)): that the daemon is ready, what it is doing, that it is alive, and when it reads its
//! configuration again. Without `NOTIFY_SOCKET` in the environment nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::status::model::Status;
use crate::status::query::StatusQuery;
use crate::status::readiness::Readiness;
use flannel_lease::Chain;
use flannel_lease::codec::printable;

/// How often the line that `systemctl status` shows is brought up to date while readiness stays the same.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// How long changes of readiness are collected before that line is: they come in bursts, and an answer may be a moment old.
const SETTLE_DELAY: Duration = Duration::from_millis(500);

/// Sends this now.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(
            "cannot notify systemd through $NOTIFY_SOCKET; traffic is not affected, and flanneld tries again with the next \
             notification. If this lasts and the unit has Type=notify or WatchdogSec=, systemd restarts flanneld: make the \
             socket reachable for it, or remove these settings: {}",
            Chain(&error)
        );
    }
}

/// Sends what `systemctl status` is to show.
pub(crate) fn notify_status(text: &str) {
    notify(&[NotifyState::Status(&printable(text))]);
}

/// Sends what comes up for as long as the daemon runs.
#[derive(Debug)]
pub(crate) struct Notifier {
    pub(crate) readiness: watch::Receiver<Readiness>,
    pub(crate) status_query: StatusQuery,
    /// The configuration is being read again (`false`), or has been (`true`).
    pub(crate) reloads: mpsc::UnboundedReceiver<bool>,
    /// How often a sign of life is wanted, from `WATCHDOG_USEC`; `None` if never.
    pub(crate) watchdog: Option<Duration>,
}

impl Notifier {
    pub(crate) async fn run(mut self, notify: impl Fn(&[NotifyState<'_>])) {
        let mut refresh = interval(REFRESH_INTERVAL);
        // Twice in the time, as sd_watchdog_enabled(3) recommends.
        let mut watchdog =
            interval(self.watchdog.map_or(REFRESH_INTERVAL, |wanted| wanted / 2).max(MILLISECOND));
        watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ready_logged = false;
        let mut said = String::new();
        loop {
            tokio::select! {
                changed = self.readiness.changed() => {
                    if changed.is_err() { return }
                    if self.readiness.borrow_and_update().is_set_up() && !ready_logged {
                        ready_logged = true;
                        notify(&[NotifyState::Ready]);
                    }
                    refresh.reset_after(SETTLE_DELAY);
                    continue;
                }
                Some(done) = self.reloads.recv() => {
                    // Before the first READY=1 a second one would be a lie.
                    if ready_logged && done {
                        notify(&[NotifyState::Ready]);
                    } else if ready_logged {
                        // systemd wants the time with it (Type=notify-reload).
                        let now = NotifyState::monotonic_usec_now().ok();
                        let states: Vec<_> = [NotifyState::Reloading].into_iter().chain(now).collect();
                        notify(&states);
                    }
                    continue;
                }
                _ = watchdog.tick(), if self.watchdog.is_some() => {
                    if self.status_query.is_alive() {
                        notify(&[NotifyState::Watchdog]);
                    }
                    continue;
                }
                _ = refresh.tick() => {}
            }
            let line = match self.status_query.ask(false).await {
                Some(status) => summary(&status),
                None => "the reconcile loop does not answer".to_owned(),
            };
            if line != said {
                notify(&[NotifyState::Status(&line)]);
                said = line;
            }
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

fn summary(status: &Status) -> String {
    let mut line = format!("{}, {} peers", status.lease.subnets().join(" "), status.peers.programmed);
    let late = status.peers.pending;
    if late > 0 {
        line += &format!(", {late} pending");
    }
    for (subject, text) in status.unmet.iter().chain(&status.notes) {
        line += &format!("; {subject}: {text}");
    }
    // A line break would begin another message.
    printable(&line)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use tokio::time::sleep;

    use super::*;
    use crate::status::readiness::Condition;
    use crate::status::snapshot::StatusRequest;

    struct Manager {
        heard: Arc<Mutex<Vec<String>>>,
        readiness: watch::Sender<Readiness>,
        pulse: watch::Sender<Instant>,
        reloads: mpsc::UnboundedSender<bool>,
    }

    impl Manager {
        fn start() -> Self {
            let (requests, mut asked) = mpsc::channel::<StatusRequest>(4);
            let (pulse, pulse_out) = watch::channel(Instant::now());
            let (readiness, readiness_out) = watch::channel(Readiness::starting());
            let (reloads, reloads_out) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                while let Some(question) = asked.recv().await {
                    let mut status = Status::default();
                    status.notes.insert("store".to_owned(), "away\nREADY=1".to_owned());
                    let _gone = question.answer.send(Box::new(status));
                }
            });
            let heard = Arc::new(Mutex::new(Vec::new()));
            let notifier = Notifier {
                readiness: readiness_out,
                status_query: StatusQuery::new(requests, pulse_out),
                reloads: reloads_out,
                watchdog: Some(Duration::from_secs(60)),
            };
            tokio::spawn({
                let heard = Arc::clone(&heard);
                notifier.run(move |states| {
                    let states = states.iter().map(ToString::to_string);
                    heard.lock().expect("unpoisoned").push(states.collect::<Vec<_>>().join(" "));
                })
            });
            Self { heard, readiness, pulse, reloads }
        }

        /// What was received since the last call, without watchdog messages if only `work` is of interest.
        async fn hears(&self, what: &str) -> bool {
            sleep(Duration::from_millis(10)).await;
            self.heard.lock().expect("unpoisoned").drain(..).any(|line| line.starts_with(what))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ready_is_said_once_and_a_reload_says_so_only_after_that() {
        let manager = Manager::start();
        manager.reloads.send(false).expect("heard");
        manager.reloads.send(true).expect("heard");
        assert!(!manager.hears("R").await, "not ready yet");

        manager.readiness.send_replace(Readiness::default());
        assert!(manager.hears("READY=1").await);
        manager.readiness.send_modify(|readiness| readiness.set(Condition::Rules, Err("gone".to_owned())));
        manager.readiness.send_replace(Readiness::default());
        assert!(!manager.hears("READY=1").await, "said twice");

        manager.reloads.send(false).expect("heard");
        assert!(manager.hears("RELOADING=1 MONOTONIC_USEC=").await);
        manager.reloads.send(true).expect("heard");
        assert!(manager.hears("READY=1").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconciler_that_hangs_ends_the_signs_of_life() {
        let manager = Manager::start();
        assert!(manager.hears("WATCHDOG=1").await);
        sleep(Duration::from_secs(30)).await;
        assert!(manager.hears("WATCHDOG=1").await);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(61)).expect("up for a minute");
        manager.pulse.send_replace(long_ago);
        sleep(Duration::from_secs(300)).await;
        assert!(!manager.hears("WATCHDOG=1").await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_text_cannot_speak_for_the_daemon() {
        let manager = Manager::start();
        assert!(manager.hears("STATUS=, 0 peers; store: away\\nREADY=1").await);
    }
}
