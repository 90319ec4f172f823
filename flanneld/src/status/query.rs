//! Asks the reconciler for the status on behalf of the status page, metrics and the local socket.
//!
//! However many ask and however often, the reconciler is asked once at a time and at most a few times a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::status::model::Status;
use crate::status::snapshot::StatusRequest;

/// An answer this old is good enough for the next request.
const CACHE_TTL: Duration = Duration::from_millis(200);
/// Longest time to wait for an answer: the reconciler may be writing thousands of peers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long the reconciler may be busy with one pass before the daemon counts as hung.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// A handle for asking; clones share what was answered last.
#[derive(Clone, Debug)]
pub struct StatusQuery {
    requests: mpsc::Sender<StatusRequest>,
    pulse: watch::Receiver<std::time::Instant>,
    last: Arc<Mutex<Option<Answer>>>,
}

#[derive(Debug)]
struct Answer {
    at: Instant,
    peers: bool,
    status: Arc<Status>,
}

impl StatusQuery {
    /// Asks through `requests`; `pulse` is when the reconciler last came round.
    #[must_use]
    pub fn new(requests: mpsc::Sender<StatusRequest>, pulse: watch::Receiver<std::time::Instant>) -> Self {
        Self { requests, pulse, last: Arc::default() }
    }

    /// How things are, with every peer if `peers`. `None` if the reconciler does not answer in time, or has ended.
    pub async fn ask(&self, peers: bool) -> Option<Arc<Status>> {
        timeout(ANSWER_TIMEOUT, async {
            let mut last = self.last.lock().await;
            if let Some(answer) = &*last
                && answer.at.elapsed() < CACHE_TTL
                && (answer.peers || !peers)
            {
                return Some(Arc::clone(&answer.status));
            }
            *last = None;
            let (tell, told) = oneshot::channel();
            self.requests.send(StatusRequest { peers, answer: tell }).await.ok()?;
            let status: Arc<Status> = Arc::from(told.await.ok()?);
            *last = Some(Answer { at: Instant::now(), peers, status: Arc::clone(&status) });
            Some(status)
        })
        .await
        .ok()
        .flatten()
    }

    /// How long ago the reconciler last came round.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.pulse.borrow().elapsed()
    }

    /// Whether the reconciler has come round within the last minute; it does so every five seconds at least.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.silence() < HUNG_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_query() -> (StatusQuery, mpsc::Receiver<StatusRequest>) {
        let (requests, asked) = mpsc::channel(4);
        (StatusQuery::new(requests, watch::channel(std::time::Instant::now()).1), asked)
    }

    async fn answer(asked: &mut mpsc::Receiver<StatusRequest>, node: &str) -> bool {
        let question = asked.recv().await.expect("a question");
        let status = Status { node: node.to_owned(), ..Status::default() };
        question.answer.send(Box::new(status)).expect("somebody waits");
        question.peers
    }

    #[tokio::test]
    async fn many_who_ask_at_once_cost_the_reconciler_one_answer() {
        let (status_query, mut asked) = status_query();
        let all: Vec<_> = (0..100)
            .map(|_| {
                tokio::spawn({
                    let status_query = status_query.clone();
                    async move { status_query.ask(true).await }
                })
            })
            .collect();
        assert!(answer(&mut asked, "first").await);
        for one in all {
            assert_eq!(one.await.expect("ended").expect("an answer").node, "first");
        }
        assert!(asked.try_recv().is_err(), "asked again");
    }

    #[tokio::test]
    async fn numbers_alone_do_not_answer_who_wants_the_peers() {
        let (status_query, mut asked) = status_query();
        let (_, peers) = tokio::join!(status_query.ask(false), answer(&mut asked, "numbers"));
        assert!(!peers);
        tokio::spawn(async move { answer(&mut asked, "peers").await });
        assert_eq!(status_query.ask(true).await.expect("an answer").node, "peers");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconciler_that_hangs_keeps_nobody_waiting_for_ever() {
        let (status_query, _never_read) = status_query();
        assert_eq!(status_query.ask(false).await, None);
    }
}
