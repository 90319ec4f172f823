//! A fake API server; the hand is also the controller manager that gives each new node its pod subnets.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use flanneld::config::Kubernetes;
use flanneld::event::LeaseEvent;
use flanneld::lease::kube::KubeStore;
use flanneld::lease::{
    Lease, LeaseAttributes, LeaseLost, LeaseRequest, LeaseStore, StoreError, StoreFuture, StoreHealth, Timing,
};
use flanneld::node::Stack;
use serde_json::{Value, json};
use testkit::FakeApi;
use tokio::sync::{OnceCell, mpsc, watch};

use super::Lab;

pub(crate) const PREFIX: &str = "flannel.alpha.coreos.com/";

pub(crate) struct KubeLab {
    pub(crate) api: Arc<FakeApi>,
    /// Subnets given so far.
    given: Arc<Mutex<BTreeSet<u16>>>,
}

/// How the daemon on this node is told to reach the server.
pub(crate) fn options(api: &FakeApi, node: &str) -> Kubernetes {
    Kubernetes {
        api_url: Some(api.url()),
        kubeconfig: None,
        annotation_prefix: "flannel.alpha.coreos.com".to_owned(),
        set_network_unavailable: true,
        node_name: Some(node.to_owned()),
        pod_name: None,
        pod_namespace: None,
        event_queue_depth: 5000,
        continue_when_cache_not_ready: false,
    }
}

pub(crate) const DUAL: Stack = Stack { ipv4: true, ipv6: true };

/// What of a node's annotations is a lease, in etcd's form.
fn json_of(node: &Value) -> Option<String> {
    let annotation = |name: &str| node["metadata"]["annotations"][format!("{PREFIX}{name}")].as_str();
    (annotation("kube-subnet-manager") == Some("true")).then_some(())?;
    let data = |name| {
        annotation(name).filter(|text| *text != "null").map(|text| serde_json::from_str(text).unwrap())
    };
    let mut lease = json!({ "PublicIP": annotation("public-ip").unwrap_or("0.0.0.0"), "PublicIPv6": annotation("public-ipv6") });
    for (name, value) in [
        ("BackendType", annotation("backend-type").map(Value::from)),
        ("BackendData", data("backend-data")),
        ("BackendV6Data", data("backend-v6-data")),
    ] {
        if let Some(value) = value {
            lease[name] = value;
        }
    }
    LeaseAttributes::from_json(lease.to_string().as_bytes()).ok()?.to_json().ok()
}

impl KubeLab {
    /// The node with this public address, or with these pod subnets.
    fn node_of(&self, key: Option<&str>, public: Option<&LeaseAttributes>) -> Option<String> {
        self.api.names().into_iter().find(|name| {
            // Another lane may have deleted it since it was listed.
            let Some(node) = self.api.node(name) else { return false };
            let cidrs = node["spec"]["podCIDRs"].as_array().cloned().unwrap_or_default();
            let text: Vec<String> =
                cidrs.iter().map(|cidr| cidr.as_str().unwrap().replace('/', "-")).collect();
            let by_key = key.is_some_and(|key| text.join("&") == key);
            let json = json_of(&node).and_then(|json| LeaseAttributes::from_json(json.as_bytes()).ok());
            by_key || public.zip(json.as_ref()).is_some_and(|(public, json)| public.same_node(json))
        })
    }

    /// Subnets that nobody has.
    fn give(&self, request: &LeaseRequest) -> Vec<String> {
        let mut given = self.given.lock().unwrap();
        let n = (1..).find(|n| given.insert(*n)).unwrap();
        let v4 =
            request.range.v4.map(|_| format!("{}/24", Ipv4Addr::new(10, 244, u8::try_from(n).unwrap(), 0)));
        let v6 =
            request.range.v6.map(|_| format!("{}/64", Ipv6Addr::new(0xfd00, 0x10, 0x244, n, 0, 0, 0, 0)));
        v4.into_iter().chain(v6).collect()
    }
}

/// The suite's stores learn which node they are by their first request; Kubernetes' are told at the start.
struct Late {
    lab: KubeLab,
    observer: KubeStore,
    store: OnceCell<KubeStore>,
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

impl Late {
    fn store(&self) -> &KubeStore {
        self.store.get().unwrap_or(&self.observer)
    }

    async fn named(&self, request: &LeaseRequest) -> Result<&KubeStore, StoreError> {
        let stack = Stack { ipv4: request.range.v4.is_some(), ipv6: request.range.v6.is_some() };
        let open = || async {
            let attributes = &request.attributes;
            let name = self.lab.node_of(None, Some(attributes)).unwrap_or_else(|| {
                let name = format!("node-{:?}-{:?}", attributes.public_ip, attributes.public_ipv6);
                let cidrs = self.lab.give(request);
                self.lab.api.add_node(&name, &cidrs.iter().map(String::as_str).collect::<Vec<_>>());
                name
            });
            KubeStore::open(&options(&self.lab.api, &name), stack).await
        };
        self.store.get_or_try_init(open).await
    }
}

impl LeaseStore for Late {
    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> StoreFuture<'a, Result<Lease, StoreError>> {
        Box::pin(async move { self.named(request).await?.acquire(request).await })
    }

    fn find<'a>(&'a self, node: &'a LeaseAttributes) -> StoreFuture<'a, Result<Option<Lease>, StoreError>> {
        Box::pin(async move {
            let Some(name) = self.lab.node_of(None, Some(node)) else { return Ok(None) };
            KubeStore::open(&options(&self.lab.api, &name), DUAL).await?.find(node).await
        })
    }

    fn update<'a>(&'a self, attributes: &'a LeaseAttributes) -> StoreFuture<'a, Result<Lease, StoreError>> {
        self.store().update(attributes)
    }

    fn watch(&self, events: mpsc::Sender<LeaseEvent>) -> StoreFuture<'_, ()> {
        self.store().watch(events)
    }

    fn hold(&self) -> StoreFuture<'_, LeaseLost> {
        self.store().hold()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.store().health()
    }
}

impl Lab for KubeLab {
    const READABLE_WHILE_AWAY: bool = false;

    async fn new() -> Self {
        Self { api: Arc::new(FakeApi::start().unwrap()), given: Arc::default() }
    }

    async fn open(&self, _timing: Timing) -> Arc<dyn LeaseStore> {
        let lab = Self { api: Arc::clone(&self.api), given: Arc::clone(&self.given) };
        let observer = KubeStore::open(&options(&self.api, "observer"), DUAL).await.unwrap();
        Arc::new(Late { lab, observer, store: OnceCell::new() })
    }

    async fn put(&self, key: &str, json: &str) {
        let name = self.node_of(Some(key), None).unwrap_or_else(|| format!("by-hand-{key}"));
        let cidrs: Vec<String> = key.split('&').map(|part| part.replacen('-', "/", 1)).collect();
        if self.api.node(&name).is_none() {
            self.api.add_node(&name, &cidrs.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let lease: Value = serde_json::from_str(json).unwrap_or_default();
        let ip = lease["PublicIP"].as_str().unwrap_or("no address");
        self.api.annotate(&name, &format!("{PREFIX}public-ip"), Some(ip));
        self.api.annotate(&name, &format!("{PREFIX}kube-subnet-manager"), Some("true"));
    }

    async fn delete(&self, key: &str) {
        if let Some(name) = self.node_of(Some(key), None) {
            self.api.delete_node(&name);
        }
    }

    async fn read(&self, key: &str) -> Option<String> {
        json_of(&self.api.node(&self.node_of(Some(key), None)?)?)
    }

    async fn ends(&self, key: &str) -> bool {
        self.node_of(Some(key), None).is_some()
    }

    async fn wipe(&self) {
        for name in self.api.names() {
            self.api.delete_node(&name);
        }
    }

    async fn away(&self, during: impl Future<Output = ()> + Send) {
        self.api.set_away(true);
        during.await;
        self.api.set_away(false);
    }
}
