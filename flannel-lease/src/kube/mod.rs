//! Leases as annotations of Kubernetes nodes, upstream's to the byte.
//!
//! Kubernetes gives every node its pod subnet (`spec.podCIDRs`), so there is nothing to allocate and nothing to renew: a
//! lease is taken by publishing how to reach the node, and lost when the node is deleted or gets another subnet.

mod annotations;
mod client;
mod connect;
mod decode;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod kubeconfig;
mod node;
mod node_requests;
mod options;
mod pod_cidr_claims;
mod proto;
mod reflector;
mod response;
mod watch;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use self::annotations::Names;
use self::client::ApiServer;
use self::node::Node;
pub use self::options::KubeOptions;
use super::health::Health;
use super::{
    AllocationRange, Backoff, Lease, LeaseAttributes, LeaseKey, LeaseLost, LeaseRequest, LeaseStore,
    StoreError, StoreErrorKind, StoreFuture, StoreHealth,
};
use serde_json::json;
use tokio::sync::{mpsc, watch as latest};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::LeaseEvent;
use crate::Stack;
use crate::republish_backoff::{Contest, Damage};

/// A lease store in the annotations of a Kubernetes cluster's nodes.
#[derive(Debug)]
pub struct KubeStore {
    server: ApiServer,
    /// This node's name.
    name: String,
    names: Names,
    families: (bool, bool),
    sets_condition: bool,
    health: Health,
    /// What was published last; `None` before that.
    published: latest::Sender<Option<Published>>,
    /// This node as the watch saw it last.
    seen: latest::Sender<Seen>,
}

/// What this node holds and publishes.
#[derive(Clone, Debug)]
struct Published {
    key: LeaseKey,
    attributes: LeaseAttributes,
    /// Whether the node was declared ready for pods.
    ready: bool,
}

/// This node in the API.
#[derive(Clone, Debug, Default)]
enum Seen {
    /// The watch has not told yet.
    #[default]
    Unknown,
    /// It exists.
    Present(Box<Node>),
    /// It was deleted.
    Gone,
}

/// Why a node has no lease.
#[derive(Debug)]
enum NoLease {
    /// Flannel does not manage it: it lacks this annotation.
    Unmanaged(String),
    /// What it publishes cannot be read.
    Unreadable(String),
}

impl From<String> for NoLease {
    fn from(problem: String) -> Self {
        Self::Unreadable(problem)
    }
}

impl KubeStore {
    /// Finds the API server and this node's name. Leases have the families in `stack`.
    ///
    /// # Errors
    /// The annotation prefix, the kubeconfig or the environment is invalid, or this pod cannot be read.
    pub async fn open(options: &KubeOptions, stack: Stack) -> Result<Self, StoreError> {
        let unusable = |advice: String| StoreError {
            operation: "use",
            object: "Kubernetes as lease store".to_owned(),
            advice,
            kind: StoreErrorKind::Unusable,
            source: None,
        };
        let names = Names::new(&options.annotation_prefix).map_err(|error| unusable(error.to_string()))?;
        let server = ApiServer::new(options).await?;
        let health = Health::default();
        let name = match (&options.node_name, &options.pod_name, &options.pod_namespace) {
            (Some(name), ..) => name.clone(),
            (None, Some(pod), Some(namespace)) => {
                let node = server.node_of_pod(namespace, pod, &health).await?;
                node.ok_or_else(|| {
                    let advice = format!(
                        "pod '{namespace}/{pod}' runs on no node yet; check that POD_NAME and POD_NAMESPACE are those of this pod"
                    );
                    not_yet("find", "this node's name", advice)
                })?
            }
            _ => {
                return Err(unusable(
                    "env variables POD_NAME and POD_NAMESPACE must be set, or NODE_NAME".to_owned(),
                ));
            }
        };
        Ok(Self {
            server,
            name,
            names,
            families: (stack.ipv4, stack.ipv6),
            sets_condition: options.set_network_unavailable,
            health,
            published: latest::Sender::new(None),
            seen: latest::Sender::default(),
        })
    }

    /// This node's name in the cluster.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.name
    }

    /// The public addresses that annotations of this node request; they mean the same as `--public-ip` and
    /// `--public-ipv6`.
    ///
    /// # Errors
    /// The node cannot be read.
    pub async fn node_public(&self) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), StoreError> {
        let node = self.server.node(&self.name, &self.health).await?;
        Ok(self.names.node_public(node.annotations()))
    }

    /// The lease that this node would get, and the annotations that [`LeaseStore::acquire`] would write. Writes
    /// nothing.
    ///
    /// # Errors
    /// The node has no podCIDR yet, or a podCIDR outside of the pod network; the API server does not answer.
    pub async fn predict_lease(
        &self,
        request: &LeaseRequest,
    ) -> Result<(LeaseKey, BTreeMap<String, String>), StoreError> {
        let node = self.server.node(&self.name, &self.health).await?;
        let key = self.own_key(&node, &request.range)?;
        Ok((key, self.names.changes(&request.attributes, node.annotations())))
    }

    fn key_of(&self, node: &Node) -> Result<Option<LeaseKey>, String> {
        node.key(self.families.0, self.families.1)
    }

    /// The lease in a node, or why what it publishes is none.
    fn lease_of(&self, node: &Node) -> Result<Lease, NoLease> {
        let annotations = node.annotations();
        if !self.names.is_managed(annotations) {
            return Err(NoLease::Unmanaged(self.names.managed().to_owned()));
        }
        let key = self
            .key_of(node)?
            .ok_or_else(|| "it has no podCIDR of an address family in net-conf.json".to_owned())?;
        let (attributes, gaps) = self.names.read(annotations, key);
        let reachable_v4 = key.v4().is_some() && attributes.public_ip.is_some();
        let reachable_v6 = key.v6().is_some() && attributes.public_ipv6.is_some();
        if !reachable_v4 && !reachable_v6 {
            return Err(NoLease::Unreadable(gaps.to_string()));
        }
        // Its pod subnets are its lease, whatever is missing of how to reach them: a family goes with its podCIDR.
        let gaps = gaps.in_entry(format_args!("node {:?}", node.name()));
        let (created, node) = (node.created(), Some(node.name().to_owned()));
        Ok(Lease { created, node, gaps, ..Lease::new(key, attributes, None) })
    }

    /// The node's subnets, if they lie in the networks of net-conf.json.
    fn own_key(&self, node: &Node, range: &AllocationRange) -> Result<LeaseKey, StoreError> {
        const LEASE: &str = "a lease from Kubernetes";
        let (v4, v6) = node.subnets().map_err(|problem| not_yet("acquire", LEASE, problem))?;
        let outside = |network: String, subnet: String, kind: &str| {
            let name = &self.name;
            let key = if kind.is_empty() { "Network" } else { "IPv6Network" };
            StoreError {
                operation: "acquire",
                object: LEASE.to_owned(),
                advice: format!(
                    "subnet {network:?} specified in the flannel net config doesn't contain {subnet:?} {kind}PodCIDR of \
                     the {name:?} node: set {key} in net-conf.json to the controller manager's --cluster-cidr"
                ),
                kind: StoreErrorKind::Unusable,
                source: None,
            }
        };
        if let Some((range, subnet)) = range.v4.zip(v4)
            && !range.network.contains(&subnet)
        {
            return Err(outside(range.network.to_string(), subnet.to_string(), ""));
        }
        if let Some((range, subnet)) = range.v6.zip(v6)
            && !range.network.contains(&subnet)
        {
            return Err(outside(range.network.to_string(), subnet.to_string(), "IPv6 "));
        }
        let missing = range.v4.is_some() && v4.is_none() || range.v6.is_some() && v6.is_none();
        let key = LeaseKey::new(v4.filter(|_| range.v4.is_some()), v6.filter(|_| range.v6.is_some()));
        key.filter(|_| !missing).ok_or_else(|| {
            let family = match (range.v4.is_some() && v4.is_none(), range.v6.is_some() && v6.is_none()) {
                (true, false) if v6.is_some() => " of IPv4",
                (false, true) if v4.is_some() => " of IPv6",
                _ => "",
            };
            let advice = format!(
                "node {:?} pod cidr not assigned{family}: on a new node pods do not start until it is, which flanneld waits \
                 for. Check that the controller manager has --allocate-node-cidrs and --cluster-cidr and that its CIDR pool \
                 is not exhausted (event CIDRNotAvailable), or set spec.podCIDR",
                self.name
            );
            not_yet("acquire", LEASE, advice)
        })
    }

    fn own_lease(&self, key: LeaseKey, attributes: LeaseAttributes) -> Lease {
        Lease { node: Some(self.name.clone()), ..Lease::new(key, attributes, None) }
    }

    /// Writes the annotations that differ. Returns the node as it is then.
    async fn publish(&self, attributes: &LeaseAttributes, node: Node) -> Result<Node, StoreError> {
        let changes = self.names.changes(attributes, node.annotations());
        if changes.is_empty() {
            return Ok(node);
        }
        self.server.patch(&self.name, &json!({ "metadata": { "annotations": changes } }), &self.health).await
    }

    async fn take(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let node = self.server.node(&self.name, &self.health).await?;
        let key = self.own_key(&node, &request.range)?;
        let node = self.publish(&request.attributes, node).await?;
        let ready = self.published.borrow().as_ref().is_some_and(|published| published.ready);
        let attributes = request.attributes.clone();
        // Whatever the watch still has to tell is older than this.
        self.seen.send_replace(Seen::Present(Box::new(node)));
        self.published.send_replace(Some(Published { key, attributes: attributes.clone(), ready }));
        Ok(self.own_lease(key, attributes))
    }

    /// Sets the condition `NetworkUnavailable` to `False`, so that the scheduler sends pods.
    async fn clear_network_unavailable(&self) -> Result<(), StoreError> {
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "FlannelIsUp",
            "message": "Flannel is running on this node",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        });
        let patch = json!({ "status": { "conditions": [condition] } });
        self.server.patch(&self.name, &patch, &self.health).await.map(drop)
    }

    /// Compares this node with what was published and restores what another process changed, unless that has just been done
    /// too often.
    async fn keep(
        &self,
        node: &Node,
        published: &Published,
        (contest, was_available): (&mut Contest, &mut bool),
    ) -> Result<(), StoreError> {
        let changes = self.names.changes(&published.attributes, node.annotations());
        let is_unavailable =
            self.sets_condition && published.ready && node.network_is_available == Some(false);
        let now = Instant::now();
        if changes.is_empty() && !is_unavailable {
            contest.is_right(now, &self.health);
            return Ok(());
        }
        if contest.held_until(now).is_some() {
            return Ok(());
        }
        let damage = || self.damage(node, published, &changes);
        if !changes.is_empty() {
            let patch = json!({ "metadata": { "annotations": changes } });
            let node = self.server.patch(&self.name, &patch, &self.health).await?;
            self.seen.send_replace(Seen::Present(Box::new(node)));
        }
        if is_unavailable {
            self.clear_network_unavailable().await?;
        }
        // The condition stands on every new node of a cloud: to clear it once is no repair.
        let is_start = is_unavailable && !std::mem::replace(was_available, true);
        if !(is_start && changes.is_empty()) {
            contest.published_again(now, &self.health, damage);
        }
        Ok(())
    }

    /// What another process does to this node, and what to do about it.
    fn damage(&self, node: &Node, published: &Published, changes: &BTreeMap<String, String>) -> Damage {
        let name = &self.name;
        let (holder, _) = self.names.read(node.annotations(), published.key);
        if holder.is_of_another_node(&published.attributes) {
            let what = format!(
                "the host with public address {} publishes under the name of this node, {name:?}",
                holder.public_address()
            );
            return Damage { what, cure: "Give each host its own NODE_NAME" };
        }
        if changes.is_empty() {
            return Damage::by_process(format!(
                "another process sets condition NetworkUnavailable of node {name:?}"
            ));
        }
        let names: Vec<&str> = changes.keys().map(String::as_str).collect();
        Damage::by_process(format!(
            "another process, such as an admission webhook, changes or removes annotations of node {name:?} ({})",
            names.join(", ")
        ))
    }
}

/// An operator or controller has to act first, and may do so at any time.
fn not_yet(operation: &'static str, object: &str, advice: String) -> StoreError {
    let object = object.to_owned();
    StoreError { operation, object, advice, kind: StoreErrorKind::Unavailable, source: None }
}

impl LeaseStore for KubeStore {
    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> StoreFuture<'a, Result<Lease, StoreError>> {
        Box::pin(self.take(request))
    }

    fn find<'a>(&'a self, _node: &'a LeaseAttributes) -> StoreFuture<'a, Result<Option<Lease>, StoreError>> {
        Box::pin(async move {
            let node = self.server.node(&self.name, &self.health).await?;
            let lease = self.lease_of(&node);
            if let Err(NoLease::Unreadable(problem)) = &lease {
                info!(
                    "node {:?} publishes no usable lease, so flanneld publishes one; nothing is needed: {problem}",
                    self.name
                );
            }
            Ok(lease.ok())
        })
    }

    fn update<'a>(&'a self, attributes: &'a LeaseAttributes) -> StoreFuture<'a, Result<Lease, StoreError>> {
        Box::pin(async move {
            let not_held = || StoreError {
                operation: "update",
                object: format!("the lease of node {:?}", self.name),
                advice: "this node holds none".to_owned(),
                kind: StoreErrorKind::NotHeld,
                source: None,
            };
            let held = self.published.borrow().clone().ok_or_else(not_held)?;
            let node = self.server.node(&self.name, &self.health).await?;
            let node = self.publish(attributes, node).await?;
            self.seen.send_replace(Seen::Present(Box::new(node)));
            self.published.send_modify(|published| {
                if let Some(published) = published {
                    published.attributes = attributes.clone();
                }
            });
            Ok(self.own_lease(held.key, attributes.clone()))
        })
    }

    fn watch(&self, events: mpsc::Sender<LeaseEvent>) -> StoreFuture<'_, ()> {
        Box::pin(self.follow(events))
    }

    fn hold(&self) -> StoreFuture<'_, LeaseLost> {
        Box::pin(async move {
            let (mut seen, mut published) = (self.seen.subscribe(), self.published.subscribe());
            let (mut backoff, mut contest) = (Backoff::default(), Contest::new(Instant::now(), &self.health));
            let mut was_available = false;
            loop {
                let now = published.borrow_and_update().clone();
                let node = seen.borrow_and_update().clone();
                let mut failed = false;
                match (node, now) {
                    (Seen::Gone, Some(published)) => {
                        self.seen.send_replace(Seen::Unknown);
                        return LeaseLost::Revoked(published.key);
                    }
                    (Seen::Present(node), Some(published)) => match self.key_of(&node) {
                        Ok(Some(key)) if key == published.key => {
                            let kept = self.keep(&node, &published, (&mut contest, &mut was_available)).await;
                            failed = kept.is_err();
                            if let Err(error) = kept {
                                warn!(
                                    "cannot publish this node's addresses and backend data on node {:?}; flanneld retries with backoff. \
                                     Peers that have them are not affected, others do not reach this node's pods: {}",
                                    self.name,
                                    crate::Chain(&error)
                                );
                            }
                        }
                        other => {
                            self.seen.send_replace(Seen::Unknown);
                            let reason = match other {
                                Ok(Some(key)) => {
                                    format!("Kubernetes gave node {:?} the pod subnet {key}", self.name)
                                }
                                Ok(None) => format!(
                                    "node {:?} no longer has a podCIDR of an address family in net-conf.json",
                                    self.name
                                ),
                                Err(problem) => problem,
                            };
                            return LeaseLost::Reassigned { key: published.key, reason };
                        }
                    },
                    _ => {}
                }
                if !failed {
                    backoff.reset();
                }
                tokio::select! {
                    _ = seen.changed() => {}
                    _ = published.changed() => {}
                    () = sleep(backoff.next_delay()), if failed => {}
                    () = sleep_until(contest.ends().unwrap_or_else(Instant::now)), if contest.ends().is_some() && !failed => {}
                }
            }
        })
    }

    fn ready(&self) {
        self.published.send_if_modified(|published| {
            published.as_mut().is_some_and(|published| !std::mem::replace(&mut published.ready, true))
        });
    }

    fn health(&self) -> latest::Receiver<StoreHealth> {
        self.health.subscribe()
    }
}
