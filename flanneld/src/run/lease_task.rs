//! The task that takes this node's lease, keeps it renewed, and publishes what changes.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::desired::with_other_macs;
use crate::open_store::ConfiguredStore;
use crate::run::store_outages::{Line, Outages};
use crate::status::readiness::{Condition, Readiness, update};
use flannel_lease::Chain;
use flannel_lease::LeaseEvent;
use flannel_lease::Stack;
use flannel_lease::{
    BackendType, Backoff, Lease, LeaseAttributes, LeaseLost, LeaseRequest, LeaseStore, StoreError,
    StoreErrorKind, StoreFuture, StoreHealth,
};

/// Longest pause before another lease is asked for, if other machines take one after another.
const MAX_TAKEOVER_PAUSE: Duration = Duration::from_secs(60);
/// How often a node gets other MAC addresses in one attempt to take a lease.
const MAX_MACS: u32 = 8;

/// How far the node has come with its store.
#[derive(Debug)]
pub(crate) enum LeaseTask {
    /// The store gave the lease.
    Held(Arc<dyn LeaseStore>),
    /// The lease is one remembered; the store is still to be opened and to confirm it.
    Sought(ConfiguredStore, Stack),
}

/// Where the lease task reports.
#[derive(Clone, Debug)]
pub(crate) struct LeaseSinks {
    /// The leases of all nodes.
    pub(crate) events: mpsc::Sender<LeaseEvent>,
    /// This node's own.
    pub(crate) own: watch::Sender<Lease>,
    pub(crate) readiness: watch::Sender<Readiness>,
    /// How the store fares, once it is open.
    pub(crate) store: watch::Sender<StoreHealth>,
}

impl LeaseTask {
    /// Goes on for as long as the daemon runs. No error ends it.
    pub(crate) async fn keep(
        self,
        mut request: LeaseRequest,
        mut attributes: watch::Receiver<LeaseAttributes>,
        sinks: LeaseSinks,
    ) {
        let (store, confirmed) = match self {
            Self::Held(store) => (store, true),
            Self::Sought(configured, stack) => (open(&configured, stack, &sinks).await, false),
        };
        tokio::spawn(follow_health(store.health(), sinks.clone()));
        tokio::spawn({
            let (store, events) = (Arc::clone(&store), sinks.events.clone());
            async move { store.watch(events).await }
        });
        if !confirmed {
            let retry = Retry::new(Effect::Note("lease"), &sinks);
            confirm_lease(&*store, &mut request, &mut attributes, &sinks, retry).await;
        }
        tokio::spawn(mark_node_ready(Arc::clone(&store), sinks.readiness.subscribe()));
        hold_lease(&*store, request, attributes, &sinks).await;
    }
}

/// Opens the store, however long that takes.
async fn open(configured: &ConfiguredStore, stack: Stack, sinks: &LeaseSinks) -> Arc<dyn LeaseStore> {
    let mut retry = Retry::new(Effect::Note("store"), sinks);
    loop {
        match configured.open(stack).await {
            Ok(store) => {
                retry.end();
                return store;
            }
            Err(error) => {
                let problem = Chain(&error).to_string();
                retry.wait(problem).await;
            }
        }
    }
}

/// Takes a lease; with other MAC addresses than `request` has if another node publishes those.
///
/// # Errors
/// As [`LeaseStore::acquire`].
pub(crate) async fn acquire(store: &dyn LeaseStore, request: &LeaseRequest) -> Result<Lease, StoreError> {
    with_free_macs(store, request, |store, request| store.acquire(request)).await
}

/// Calls a store; again with other MAC addresses if another node publishes those in `request`.
///
/// # Errors
/// As `call`.
async fn with_free_macs(
    store: &dyn LeaseStore,
    request: &LeaseRequest,
    call: for<'a> fn(&'a dyn LeaseStore, &'a LeaseRequest) -> StoreFuture<'a, Result<Lease, StoreError>>,
) -> Result<Lease, StoreError> {
    let mut request = request.clone();
    for _ in 0..MAX_MACS {
        match call(store, &request).await {
            Err(error) if error.kind == StoreErrorKind::IdentityTaken => {
                let Some(others) = with_other_macs(&request.attributes) else {
                    return Err(if request.attributes.backend_type == BackendType::Wireguard {
                        with_advice_about_key(error)
                    } else {
                        error
                    });
                };
                warn!(
                    "{}: its VTEP MAC address. flanneld takes another MAC address and asks again, so that peers reach both; check \
                     whether one machine is a clone of the other",
                    Chain(&error)
                );
                request.attributes = others;
            }
            result => return result,
        }
    }
    call(store, &request).await
}

/// A node of which the key is another node's gets no lease. It does not choose another key by itself: both may have one file.
fn with_advice_about_key(mut error: StoreError) -> StoreError {
    error.advice.push_str(
        ": its WireGuard key. One machine is a clone of the other, or both use one key file. That node is not affected. On \
         this node, delete the WireGuard key file (WIREGUARD_KEY_FILE, default /run/flannel/wgkey) and the devices \
         flannel-wg and flannel-wg-v6, and start flanneld again: it generates a new key",
    );
    error
}

/// Asks for the lease that is remembered or was lost until the store gives one. It may be another: the lease expired while
/// flanneld was stopped, and another node has it now.
async fn confirm_lease(
    store: &dyn LeaseStore,
    request: &mut LeaseRequest,
    attributes: &mut watch::Receiver<LeaseAttributes>,
    sinks: &LeaseSinks,
    mut retry: Retry<'_>,
) {
    loop {
        request.attributes = attributes.borrow_and_update().clone();
        match acquire(store, request).await {
            Ok(lease) => {
                info!(subnet = %lease.key, "lease acquired");
                retry.end();
                request.attributes = lease.attributes.clone();
                sinks.own.send_replace(lease);
                return;
            }
            Err(error) => {
                let is = match retry.effect {
                    Effect::Lost => {
                        "is lost, so other nodes may not reach this node's pods until it has a lease again"
                    }
                    Effect::Note(_) => "is in use but not confirmed by the store",
                };
                let problem = format!("lease {} {is}: {}", sinks.own.borrow().key, Chain(&error));
                retry.wait(problem).await;
            }
        }
    }
}

/// Holds the lease, publishes what changes, and takes a new one if it is positively lost.
async fn hold_lease(
    store: &dyn LeaseStore,
    mut request: LeaseRequest,
    mut attributes: watch::Receiver<LeaseAttributes>,
    sinks: &LeaseSinks,
) {
    let mut takeovers = Backoff::up_to(MAX_TAKEOVER_PAUSE);
    let mut since = Instant::now();
    loop {
        tokio::select! {
            lost = store.hold() => {
                match &lost {
                    // Whoever holds it renews it, so taking it back would never end: both machines would lose their pods
                    // again and again.
                    LeaseLost::Taken { .. } => {
                        error!(
                            "{lost}: two machines had one lease, because one is a clone of the other or both have one public \
                             address. Peers send packets for the pods that run here to the other machine. flanneld takes another \
                             subnet for this node. Give each machine its own address (--public-ip), or this happens again; then \
                             delete the bridge of the pods if it keeps its address (`ip link del cni0`), and the pods of this node, so that they are created again"
                        );
                        update(&sinks.readiness, |readiness| {
                            readiness.set(Condition::Lease, Err(format!("{lost}; flanneld takes another subnet")));
                        });
                        (request.previous, request.former) = (None, None);
                        if since.elapsed() > MAX_TAKEOVER_PAUSE {
                            takeovers.reset();
                        }
                        tokio::time::sleep(takeovers.next_delay()).await;
                    }
                    LeaseLost::Reassigned { .. } => {
                        error!(
                            "{lost}; flanneld keeps devices, rules and routes, and asks with backoff for a lease for the podCIDR that \
                             the node has now. Other nodes may have removed their routes to the pods that run here. If the node \
                             was not registered again on purpose, check its spec.podCIDRs"
                        );
                    }
                    _ => {
                        error!(
                            "{lost}; flanneld keeps devices, rules and routes and asks for this lease again until it gets one. \
                             Other nodes may have removed their routes to this node's pods until then. If this repeats, find out what \
                             deletes it"
                        );
                        request.previous = Some(sinks.own.borrow().key);
                    }
                }
            }
            changed = attributes.changed() => {
                if changed.is_err() { return pending().await }
                let wanted = attributes.borrow_and_update().clone();
                if std::mem::replace(&mut request.attributes, wanted) == request.attributes {
                    continue; // published with the lease
                }
                if let Some(lease) = publish(store, &request).await {
                    request.attributes = lease.attributes.clone();
                    // What is out of date already would undo what the reconciler has changed since.
                    if !attributes.has_changed().unwrap_or_default() {
                        sinks.own.send_replace(lease);
                    }
                    continue;
                }
                // Held on, it could be taken for a lease that looks like it: a clone's, under this node's former address.
                request.previous = Some(sinks.own.borrow().key);
            }
        }
        confirm_lease(store, &mut request, &mut attributes, sinks, Retry::new(Effect::Lost, sinks)).await;
        since = Instant::now();
    }
}

/// Publishes the attributes with the lease that is held, with other MAC addresses if another node publishes those. Retries
/// until that works; `None` if the lease is lost.
async fn publish(store: &dyn LeaseStore, request: &LeaseRequest) -> Option<Lease> {
    let mut backoff = Backoff::default();
    loop {
        match with_free_macs(store, request, |store, request| store.update(&request.attributes)).await {
            Ok(lease) => return Some(lease),
            Err(error) if error.kind == StoreErrorKind::NotHeld => {
                warn!(
                    "cannot publish this node's new addresses, because its lease is lost; flanneld asks for a lease again, and other \
                     nodes send to the old addresses until then: {}",
                    Chain(&error)
                );
                return None;
            }
            Err(error) => warn!(
                "cannot publish this node's new addresses; flanneld retries with backoff, and other nodes send to the old ones until \
                 then: {}",
                Chain(&error)
            ),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Tells the store once flanneld has set up this node: the scheduler may send pods.
async fn mark_node_ready(store: Arc<dyn LeaseStore>, mut readiness: watch::Receiver<Readiness>) {
    if readiness.wait_for(Readiness::is_set_up).await.is_ok() {
        store.ready();
    }
}

async fn follow_health(mut health: watch::Receiver<StoreHealth>, sinks: LeaseSinks) {
    let (mut outages, mut contested) = (Outages::default(), None);
    loop {
        let now = health.borrow_and_update().clone();
        note(&sinks.readiness, "store", now.last_error.clone());
        if contested != now.contested {
            contested.clone_from(&now.contested);
            let state = now.contested.clone().map_or(Ok(()), Err);
            update(&sinks.readiness, |readiness| readiness.set(Condition::Lease, state));
        }
        let line = outages.note(now.last_error.as_deref(), Instant::now());
        sinks.store.send_replace(now);
        for line in line.into_iter().chain(outages.tick(Instant::now())) {
            match line {
                Line::Warning(text) => warn!("{text}"),
                Line::Info(text) => info!("{text}"),
            }
        }
        let due = outages.due();
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {}
        }
    }
}

fn note(readiness: &watch::Sender<Readiness>, effect: &'static str, text: Option<String>) {
    update(readiness, |readiness| readiness.note(effect, text));
}

/// What an attempt that fails means for the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Effect {
    /// Worth knowing.
    Note(&'static str),
    /// The store has taken the lease away: until it gives one, the node is not ready for pods.
    Lost,
}

/// Something that is tried until it works: told on `/readyz`, and logged when its reason changes.
struct Retry<'a> {
    effect: Effect,
    readiness: &'a watch::Sender<Readiness>,
    logged: String,
    backoff: Backoff,
}

impl<'a> Retry<'a> {
    fn new(effect: Effect, sinks: &'a LeaseSinks) -> Self {
        Self { effect, readiness: &sinks.readiness, logged: String::new(), backoff: Backoff::default() }
    }

    async fn wait(&mut self, problem: String) {
        if self.logged != problem {
            warn!(
                "asking the lease store again, with backoff; devices, rules and routes stay as they are: {problem}"
            );
            self.update(Some(problem.clone()));
            self.logged = problem;
        }
        tokio::time::sleep(self.backoff.next_delay()).await;
    }

    fn end(self) {
        self.update(None);
    }

    fn update(&self, problem: Option<String>) {
        update(self.readiness, |readiness| match self.effect {
            Effect::Note(effect) => readiness.note(effect, problem),
            Effect::Lost => readiness.set(Condition::Lease, problem.map_or(Ok(()), Err)),
        });
    }
}
