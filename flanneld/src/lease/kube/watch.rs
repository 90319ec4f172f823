//! From the API server's stream of nodes to lease events.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::core::Status;
use kube::runtime::watcher::{self, Event, InitialListStrategy};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::client::refused;
use super::node::Node;
use super::{KubeStore, Seen};
use crate::error::Chain;
use crate::event::LeaseEvent;
use crate::lease::malformed::Malformed;
use crate::lease::{Backoff, LeaseKey};

/// Nodes of one page of a listing.
const PAGE: u32 = 500;

/// What was told of each node.
#[derive(Debug, Default)]
struct Told {
    /// Leases by the node that holds them.
    leases: HashMap<Box<str>, LeaseKey>,
    /// How many nodes hold each.
    holders: HashMap<LeaseKey, u32>,
    /// A listing that has not come to its end.
    listing: Option<Listing>,
    malformed: Malformed,
}

#[derive(Debug, Default)]
struct Listing {
    leases: HashMap<Box<str>, LeaseKey>,
    unreadable: Vec<LeaseKey>,
    saw_own: bool,
}

impl KubeStore {
    /// Follows all nodes until nobody listens.
    pub(super) async fn follow(&self, events: mpsc::Sender<LeaseEvent>) {
        let mut told = Told::default();
        let mut backoff = Backoff::default();
        let mut streaming = self.server.streams_lists().await;
        loop {
            let strategy = watcher::Config { page_size: Some(PAGE), ..watcher::Config::default() };
            let strategy = if streaming { strategy.streaming_lists() } else { strategy };
            let lists = matches!(strategy.initial_list_strategy, InitialListStrategy::ListWatch);
            let mut nodes = pin!(watcher::watcher(self.server.nodes(), strategy));
            loop {
                let next = tokio::select! {
                    next = nodes.next() => next,
                    () = events.closed() => return,
                };
                let Some(next) = next else { break };
                let event = match next {
                    Ok(event) => event,
                    Err(error) => {
                        let (text, status) = explain(&error);
                        self.health.failed(text);
                        if !lists && status.is_some_and(is_no_streaming) {
                            streaming = false;
                            break;
                        }
                        let asked = status.and_then(|status| status.details.as_ref());
                        let asked = asked.map_or(0, |details| details.retry_after_seconds).min(60);
                        tokio::select! {
                            () = sleep(backoff.next().max(Duration::from_secs(asked.into()))) => {}
                            () = events.closed() => return,
                        }
                        continue;
                    }
                };
                self.health.answered();
                backoff.reset();
                let (news, certain) = self.translate(event, &mut told);
                for event in news {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                if !certain {
                    break; // list again
                }
            }
        }
    }

    /// The lease events in one event of the API, and whether they are the whole truth.
    fn translate(&self, event: Event<Node>, told: &mut Told) -> (Vec<LeaseEvent>, bool) {
        match event {
            Event::Init => {
                told.listing = Some(Listing::default());
                (vec![LeaseEvent::Resync], true)
            }
            Event::InitApply(node) => {
                self.note_own(&node);
                let listing = told.listing.get_or_insert_default();
                listing.saw_own |= node.name() == self.node_name();
                let lease = match self.lease_of(&node) {
                    Some(Ok(lease)) => lease,
                    Some(Err((key, problem))) => {
                        listing.unreadable.extend(key);
                        // What it held before is still its own.
                        listing.unreadable.extend(told.leases.get(node.name()));
                        told.malformed.report(&"Kubernetes", &[(node.name().to_owned(), problem)]);
                        return (Vec::new(), true);
                    }
                    None => return (Vec::new(), true),
                };
                listing.leases.insert(node.name().into(), lease.key);
                (vec![LeaseEvent::Upsert(lease)], true)
            }
            Event::InitDone => {
                let Listing { leases, unreadable, saw_own } = told.listing.take().unwrap_or_default();
                if !saw_own {
                    self.seen.send_replace(Seen::Gone);
                }
                told.holders.clear();
                for key in leases.values() {
                    *told.holders.entry(*key).or_default() += 1;
                }
                told.leases = leases;
                (vec![LeaseEvent::Synced { unreadable }], true)
            }
            Event::Apply(node) => {
                self.note_own(&node);
                let lease = match self.lease_of(&node) {
                    Some(Ok(lease)) => Some(lease),
                    Some(Err((_, problem))) => {
                        told.malformed.report(&"Kubernetes", &[(node.name().to_owned(), problem)]);
                        return (Vec::new(), true);
                    }
                    None => None,
                };
                let (gone, certain) = told.replace(node.name(), lease.as_ref().map(|lease| lease.key));
                (
                    gone.map(LeaseEvent::Remove).into_iter().chain(lease.map(LeaseEvent::Upsert)).collect(),
                    certain,
                )
            }
            Event::Delete(node) => {
                if node.name() == self.node_name() {
                    self.seen.send_replace(Seen::Gone);
                }
                let (gone, certain) = told.replace(node.name(), None);
                (gone.map(LeaseEvent::Remove).into_iter().collect(), certain)
            }
        }
    }

    /// Keeps what is told of this node itself, unless a newer answer is known already.
    fn note_own(&self, node: &Node) {
        if node.name() != self.node_name() {
            return;
        }
        self.seen.send_if_modified(|seen| {
            let stale = matches!(seen, Seen::Present(known) if node.version() < known.version());
            if !stale {
                *seen = Seen::Present(Box::new(node.clone()));
            }
            !stale
        });
    }
}

impl Told {
    /// Notes that a node holds `now` and nothing else. Returns the lease that is nobody's any more, and whether that can
    /// be told: while two nodes claim one subnet (one has just replaced the other), which of them is right takes a listing
    /// to find out.
    fn replace(&mut self, node: &str, now: Option<LeaseKey>) -> (Option<LeaseKey>, bool) {
        let before = match now {
            Some(key) => self.leases.insert(node.into(), key),
            None => self.leases.remove(node),
        };
        if before == now {
            return (None, true);
        }
        if let Some(key) = now {
            *self.holders.entry(key).or_default() += 1;
        }
        let Some(key) = before else { return (None, true) };
        match self.holders.get_mut(&key) {
            Some(others) if *others > 1 => {
                *others -= 1;
                (None, false)
            }
            _ => {
                self.holders.remove(&key);
                (Some(key), true)
            }
        }
    }
}

/// The error in one line, without the client's repetitions, and the API server's own word if it is one.
fn explain(error: &watcher::Error) -> (String, Option<&Status>) {
    let (what, status, below) = match error {
        watcher::Error::InitialListFailed(error) => ("list nodes", api_status(error), Some(error)),
        watcher::Error::WatchStartFailed(error) => ("watch nodes", api_status(error), Some(error)),
        watcher::Error::WatchFailed(error) => ("go on watching nodes", api_status(error), Some(error)),
        watcher::Error::WatchError(status) => ("go on watching nodes", Some(&**status), None),
        watcher::Error::NoResourceVersion => ("watch nodes", None, None),
    };
    let why = match (status, below) {
        (Some(status), _) => refused(status),
        (None, Some(kube::Error::Service(source))) => Chain(&**source).to_string(),
        (None, Some(error)) => error.to_string(),
        (None, None) => "the API server sent no resource version".to_owned(),
    };
    (format!("cannot {what}: {why}"), status)
}

fn api_status(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// Whether the API server refuses a first listing as a watch: `422 Invalid` where the feature gate is off.
fn is_no_streaming(status: &Status) -> bool {
    matches!(status.code, 400 | 405 | 422)
}
