//! A Kubernetes API server for nodes and pods, in memory, with the semantics of a real server as far as a client can observe them.
//!
//! Resource versions, paged lists that stay consistent, watches with history, `410 Gone` after a compaction, strategic
//! merge patches of a node's status, answers in JSON or protobuf, zipped, with whole objects or metadata only. And its
//! bad days: away, refusing, cutting streams, silent, with fewer encodings.

mod encode;
mod nodes;
mod response;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::watch;

use self::nodes::Nodes;
use crate::{LabError, Namespace};

/// The server. Dropping it closes every connection.
#[derive(Debug)]
pub struct FakeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<watch::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    nodes: Mutex<Nodes>,
    /// Told whenever `nodes` changes.
    changed: watch::Sender<()>,
    /// Its number goes up when all watches are to be cut.
    epoch: watch::Sender<u64>,
    away: AtomicBool,
    silent: AtomicBool,
    media_types: Mutex<MediaTypes>,
    refusals: Mutex<Option<Refusal>>,
    token: Mutex<Option<String>>,
    requests: AtomicU64,
    bytes: AtomicU64,
    user_agents: Mutex<BTreeSet<String>>,
    watch_timeouts: Mutex<Vec<u64>>,
    /// The local database of a metaServer.
    local: Mutex<Option<Vec<Arc<Value>>>>,
}

/// The encodings that a server has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MediaTypes {
    /// Those of kube-apiserver: JSON and protobuf, whole objects and metadata only, zipped.
    #[default]
    All,
    /// JSON, of whole objects and of metadata only, as KubeEdge's metaServer.
    Json,
    /// JSON of whole objects; a client that takes nothing else gets a 406.
    WholeJson,
    /// JSON of whole objects, whatever the client accepts.
    IgnoresAccept,
}

/// What the next requests are answered with.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    code: u16,
    left: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeApi {
    /// Serves on a port of the loopback interface.
    ///
    /// # Errors
    /// No port, or no thread.
    pub fn start() -> Result<Self, LabError> {
        Self::serve(TcpListener::bind(("127.0.0.1", 0)).map_err(LabError::system("bind to 127.0.0.1"))?)
    }

    /// Serves on an address of a namespace.
    ///
    /// # Errors
    /// The address is not there or taken, or no thread.
    pub fn start_in(namespace: &Namespace, address: SocketAddr) -> Result<Self, LabError> {
        let bound = namespace.enter(|| TcpListener::bind(address))?;
        Self::serve(bound.map_err(LabError::system(format!("bind to {address}")))?)
    }

    fn serve(listener: TcpListener) -> Result<Self, LabError> {
        let broken = |error| LabError::system("serve a fake API server")(error);
        let address = listener.local_addr().map_err(broken)?;
        listener.set_nonblocking(true).map_err(broken)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        let shared = Arc::new(Shared {
            nodes: Mutex::default(),
            changed: watch::Sender::new(()),
            epoch: watch::Sender::new(0),
            away: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            media_types: Mutex::default(),
            refusals: Mutex::default(),
            token: Mutex::default(),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            user_agents: Mutex::default(),
            watch_timeouts: Mutex::default(),
            local: Mutex::default(),
        });
        let (stop, mut stopped) = watch::channel(());
        let served = Arc::clone(&shared);
        let body = move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                loop {
                    tokio::select! {
                        _ = stopped.changed() => return,
                        accepted = listener.accept() => {
                            let Ok((stream, _)) = accepted else { continue };
                            let epoch = served.epoch.subscribe();
                            if !served.away.load(Ordering::SeqCst) {
                                tokio::spawn(connection(stream, epoch, Arc::clone(&served)));
                            }
                        }
                    }
                }
            });
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("fake-api".to_owned()).spawn(body).map_err(broken)?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is, e.g. `http://127.0.0.1:40123`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a node with these pod subnets, as the controller manager leaves it. Replaces an existing node.
    pub fn add_node(&self, name: &str, pod_cidrs: &[&str]) {
        self.change(|nodes| nodes.put(name, nodes::fresh(name, pod_cidrs)));
    }

    /// Deletes a node.
    pub fn delete_node(&self, name: &str) {
        self.change(|nodes| nodes.delete(name));
    }

    /// Edits a node as any client may; nothing happens if it is not there or stays the same.
    pub fn edit_node(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        self.change(|nodes| {
            if let Some(mut node) = nodes.read(name) {
                edit(&mut node);
                nodes.put(name, node);
            }
        });
    }

    /// A node as a client reads it.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Value> {
        lock(&self.shared.nodes).read(name)
    }

    /// The names of all nodes, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        lock(&self.shared.nodes).names()
    }

    /// An annotation of a node.
    #[must_use]
    pub fn annotation(&self, node: &str, name: &str) -> Option<String> {
        Some(self.node(node)?["metadata"]["annotations"][name].as_str()?.to_owned())
    }

    /// Sets or, with `None`, removes an annotation.
    pub fn annotate(&self, node: &str, name: &str, value: Option<&str>) {
        self.annotate_all(node, &[name.to_owned()], value);
    }

    /// Sets all these annotations of a node to `value` in one update, or removes them.
    pub fn annotate_all(&self, node: &str, names: &[String], value: Option<&str>) {
        self.edit_node(node, |node| {
            let metadata = &mut node["metadata"];
            if !metadata["annotations"].is_object() {
                metadata["annotations"] = serde_json::json!({});
            }
            let Some(all) = metadata["annotations"].as_object_mut() else { return };
            for name in names {
                match value {
                    Some(value) => drop(all.insert(name.clone(), value.into())),
                    None => drop(all.remove(name)),
                }
            }
        });
    }

    /// Puts a pod on a node.
    pub fn add_pod(&self, namespace: &str, name: &str, node: &str) {
        self.change(|nodes| nodes.put_pod(namespace, name, node));
    }

    /// Forgets all history: watches from older versions and pages of older listings are answered with 410.
    pub fn compact(&self) {
        self.change(Nodes::compact);
    }

    /// Closes all watches, as a restarting server does.
    pub fn cut_watches(&self) {
        self.shared.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Answers the next `count` requests with this status; 429 asks to come back after a second.
    pub fn refuse(&self, code: u16, count: u32) {
        *lock(&self.shared.refusals) = Some(Refusal { code, left: count });
    }

    /// Whether connections are closed at once, those that are open too.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
        self.cut_watches();
    }

    /// Whether watches say nothing although they stay open.
    pub fn set_silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::SeqCst);
        self.shared.changed.send_replace(());
    }

    /// The encodings of its answers.
    pub fn set_media_types(&self, known: MediaTypes) {
        *lock(&self.shared.media_types) = known;
    }

    /// Answers as KubeEdge's metaServer from now on: in JSON, without bookmarks, and with watches that do not continue at
    /// a version. Each begins with all nodes of its local database, in which those that are here now stay when they are
    /// deleted.
    pub fn imitate_meta_server(&self) {
        self.set_media_types(MediaTypes::Json);
        *lock(&self.shared.local) = Some(lock(&self.shared.nodes).all().1);
        self.cut_watches();
    }

    /// Whether nodes that are written from now on show `managedFields`; they do unless told otherwise.
    pub fn show_managed_fields(&self, shown: bool) {
        self.change(|nodes| nodes.show_managed_fields(shown));
    }

    /// Wants this bearer token from now on.
    pub fn require_token(&self, token: &str) {
        *lock(&self.shared.token) = Some(token.to_owned());
        self.cut_watches();
    }

    /// Requests answered so far, and bytes of bodies sent.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        (self.shared.requests.load(Ordering::Relaxed), self.shared.bytes.load(Ordering::Relaxed))
    }

    /// Each `User-Agent` that was sent, sorted; empty for a request without.
    #[must_use]
    pub fn user_agents(&self) -> Vec<String> {
        lock(&self.shared.user_agents).iter().cloned().collect()
    }

    /// How long each watch so far was asked to last, in seconds.
    #[must_use]
    pub fn watch_timeouts(&self) -> Vec<u64> {
        lock(&self.shared.watch_timeouts).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Nodes)) {
        change(&mut lock(&self.shared.nodes));
        self.shared.changed.send_replace(());
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, mut epoch: watch::Receiver<u64>, shared: Arc<Shared>) {
    let service = service_fn(|request| response::respond(request, Arc::clone(&shared)));
    let mut served = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            _ = &mut served => return,
            _ = epoch.changed() => {
                if shared.away.load(Ordering::SeqCst) { return }
            }
            () = tokio::time::sleep(Duration::from_secs(3600)) => return,
        }
    }
}
