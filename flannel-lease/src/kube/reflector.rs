//! Keeps up with all nodes: a list, a watch from its version on, and what to do when either fails.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::KubeStore;
use super::decode::WatchItem;
use super::node::{Node, version_number};
use super::node_requests::{Detail, Since};
use super::response::Failure;
use super::watch::{Event, Told};
use crate::{Backoff, LeaseEvent};

/// Nodes that are read on their own if a list of metadata does not show their pod subnets; if there are
/// more, the list is asked for again with whole nodes.
const FEW_NODES: usize = 16;
/// Most pages of a list.
const MAX_PAGES: usize = 1000;
/// Longest pause while the API server has too much to do, as in Kubernetes' own clients.
const MAX_OVERLOAD_PAUSE: Duration = Duration::from_secs(30);

/// Why a step ends early.
enum Stop {
    /// The receiver is gone.
    Closed,
    /// It could not do this with that.
    Failed(&'static str, &'static str, Failure),
}

impl From<mpsc::error::SendError<LeaseEvent>> for Stop {
    fn from(_closed: mpsc::error::SendError<LeaseEvent>) -> Self {
        Self::Closed
    }
}

/// What to do next.
#[derive(Clone, Debug)]
enum Step {
    List(Since),
    /// Watch from this version on.
    Watch(String),
}

struct Follower<'a> {
    store: &'a KubeStore,
    events: &'a mpsc::Sender<LeaseEvent>,
    told: Told,
    step: Step,
    /// Ask for plain JSON: the last answer could not be read.
    simple: bool,
    /// UID and pod subnets of nodes whose metadata does not show these.
    known: HashMap<String, (String, Vec<String>)>,
    /// Version of the last complete list.
    listed: u64,
    /// Whether a watch has only what happened after its version. If not, as with KubeEdge's metaServer, what
    /// happens between two watches is seen in a list alone.
    watches_continue: bool,
    backoff: Backoff,
    overload: Backoff,
}

impl KubeStore {
    /// Follows all nodes until the receiver is dropped.
    pub(super) async fn follow(&self, events: mpsc::Sender<LeaseEvent>) {
        let mut follower = Follower {
            store: self,
            events: &events,
            told: Told::default(),
            step: Step::List(Since::Any),
            simple: false,
            known: HashMap::new(),
            listed: 0,
            watches_continue: true,
            backoff: Backoff::default(),
            overload: Backoff::up_to(MAX_OVERLOAD_PAUSE),
        };
        tokio::select! {
            () = follower.run() => {}
            () = events.closed() => {}
        }
    }
}

impl Follower<'_> {
    async fn run(&mut self) {
        loop {
            let done = match self.step.clone() {
                Step::List(since) => self.list(&since).await,
                Step::Watch(version) => self.watch(&version).await,
            };
            match done {
                Ok(()) => {}
                Err(Stop::Closed) => return,
                Err(Stop::Failed(operation, object, failure)) => {
                    self.recover(operation, object, failure).await;
                }
            }
        }
    }

    /// Chooses the next step after a failure, and waits for its time.
    async fn recover(&mut self, operation: &'static str, object: &str, failure: Failure) {
        const BAD_REQUEST: u16 = 400;
        const GONE: u16 = 410;
        const GATEWAY_TIMEOUT: u16 = 504;
        self.step = match (self.step.clone(), failure.code()) {
            (Step::Watch(version), GONE) => Step::List(Since::Version(version)),
            // So is a watch from a version that is still to come, as after a restored backup.
            (Step::Watch(version), _) if matches!(failure, Failure::Silent(_)) => {
                Step::List(Since::Version(version))
            }
            (Step::Watch(_), BAD_REQUEST) => Step::List(Since::Any),
            (Step::Watch(_), _) if !self.watches_continue => Step::List(Since::Any),
            // The version is unknown to this API server: too old, or of a time before a restored backup.
            (Step::List(Since::Version(_)), BAD_REQUEST | GONE | GATEWAY_TIMEOUT) => Step::List(Since::Now),
            (step, _) => step,
        };
        self.simple = matches!(failure, Failure::Unreadable(_)) && !self.simple;
        let backoff = if failure.is_overload() { &mut self.overload } else { &mut self.backoff };
        let pause = failure.retry_after() + backoff.next_delay();
        let _noted = self.store.server.failed(operation, object, failure, &self.store.health);
        sleep(pause).await;
    }

    fn answered(&mut self) {
        self.store.health.answered();
        self.backoff.reset();
        self.overload.reset();
    }

    /// Sends what an event means. Returns whether that is the whole truth.
    async fn tell(&mut self, event: Event) -> Result<bool, Stop> {
        let (news, certain) = self.store.translate(event, &mut self.told);
        for event in news {
            self.events.send(event).await?;
        }
        Ok(certain)
    }

    async fn list(&mut self, since: &Since) -> Result<(), Stop> {
        if !self.list_as(Detail::Metadata, since).await? {
            self.list_as(Detail::Whole, since).await?;
        }
        Ok(())
    }

    /// Lists all nodes; returns false if it takes whole nodes to do so.
    async fn list_as(&mut self, detail: Detail, since: &Since) -> Result<bool, Stop> {
        let failed = |failure| Stop::Failed("list", "nodes", failure);
        let (mut incomplete, mut known) = (Vec::new(), HashMap::new());
        let (mut page, mut version) = (String::new(), String::new());
        for number in 0.. {
            if number == MAX_PAGES {
                return Err(failed(Failure::Unreadable(format!("it has more than {MAX_PAGES} pages"))));
            }
            let server = &self.store.server;
            let mut list = server.list_nodes(detail, since, &page, self.simple).await.map_err(failed)?;
            if number == 0 {
                self.tell(Event::Init).await?;
            }
            while let Some(nodes) = list.next().await.map_err(failed)? {
                for node in nodes {
                    let node = self.recall(node);
                    if let Some(entry) = self.known.get(node.name()) {
                        known.insert(node.name().to_owned(), entry.clone());
                    }
                    if detail == Detail::Whole || self.is_complete(&node) {
                        self.tell(Event::InitApply(node)).await?;
                    } else if incomplete.len() < FEW_NODES {
                        incomplete.push(node);
                    } else {
                        return Ok(false);
                    }
                }
            }
            let end = list.end().map_err(failed)?;
            (page, version) = (end.next, end.version);
            if page.is_empty() {
                break;
            }
        }
        for node in incomplete {
            if let Some(node) = self.complete(node).await? {
                if let Some(entry) = self.known.get(node.name()) {
                    known.insert(node.name().to_owned(), entry.clone());
                }
                self.tell(Event::InitApply(node)).await?;
            }
        }
        self.known = known;
        self.answered();
        self.listed = version_number(&version);
        let certain = self.tell(Event::InitDone { version: self.listed }).await?;
        self.step = if certain { Step::Watch(version) } else { Step::List(Since::Version(version)) };
        Ok(true)
    }

    async fn watch(&mut self, version: &str) -> Result<(), Stop> {
        let watch = self.store.server.watch_nodes(version, self.simple).await;
        let failed = |failure| Stop::Failed("watch", "nodes", failure);
        let mut watch = watch.map_err(failed)?;
        while let Some(items) = watch.next().await.map_err(failed)? {
            for item in items {
                let (version, certain) = match item {
                    WatchItem::Error(status) => return Err(failed(Failure::Refused(status))),
                    WatchItem::Bookmark(node) => (node.resource_version().to_owned(), true),
                    WatchItem::Delete(node) => {
                        self.known.remove(node.name());
                        (node.resource_version().to_owned(), self.tell(Event::Delete(node)).await?)
                    }
                    WatchItem::Apply(node) if self.is_listed(&node) => {
                        self.watches_continue = false;
                        continue;
                    }
                    WatchItem::Apply(node) => {
                        let version = node.resource_version().to_owned();
                        let node = self.recall(node);
                        let node =
                            if self.is_complete(&node) { Some(node) } else { self.complete(node).await? };
                        let certain = match node {
                            Some(node) => self.tell(Event::Apply(node)).await?,
                            None => true,
                        };
                        (version, certain)
                    }
                };
                self.answered();
                if !certain {
                    self.step = Step::List(Since::Version(version));
                    return Ok(());
                }
                self.step = Step::Watch(version);
            }
        }
        if !self.watches_continue {
            self.step = Step::List(Since::Any);
        }
        // An API server that ends each watch at once must not be asked again at once.
        sleep(self.backoff.next_delay()).await;
        Ok(())
    }

    /// Whether the last list had the node as it is, or without it if it was deleted before.
    fn is_listed(&self, node: &Node) -> bool {
        (1..=self.listed).contains(&node.version())
    }

    /// Whether it takes no reading of the node to know what matters of it. Of this node that is its
    /// condition too.
    fn is_complete(&self, node: &Node) -> bool {
        let is_own = node.name() == self.store.node_name();
        node.has_spec() || node.pod_cidrs().is_some() && !is_own
    }

    /// Adds the pod subnets that were read before, which no node changes while it exists.
    fn recall(&mut self, mut node: Node) -> Node {
        match (self.known.get(node.name()), node.pod_cidrs()) {
            (Some((uid, pod_cidrs)), None) if uid == node.uid() => node.set_pod_cidrs(pod_cidrs.clone()),
            (_, Some(pod_cidrs)) if node.has_spec() && !pod_cidrs.is_empty() => {
                let entry = (node.uid().to_owned(), pod_cidrs.to_vec());
                self.known.insert(node.name().to_owned(), entry);
            }
            _ => {}
        }
        node
    }

    /// Reads the rest of a node of which only the metadata is known; `None` if it was deleted meanwhile,
    /// which the watch reports.
    async fn complete(&mut self, mut node: Node) -> Result<Option<Node>, Stop> {
        const NOT_FOUND: u16 = 404;
        let whole = match self.store.server.fetch_node(node.name()).await {
            Ok(whole) if whole.uid() == node.uid() => self.recall(whole),
            Ok(_) => return Ok(None),
            Err(failure) if failure.code() == NOT_FOUND => return Ok(None),
            Err(failure) => return Err(Stop::Failed("read", "a node that changed", failure)),
        };
        node.set_pod_cidrs(whole.pod_cidrs().unwrap_or_default().to_vec());
        node.network_is_available = whole.network_is_available;
        self.store.note_own(&whole);
        Ok(Some(node))
    }
}
