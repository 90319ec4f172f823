//! An API server, fake or real; the hand is also the controller manager that gives each new node its pod subnets.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use flannel_lease::LeaseEvent;
use flannel_lease::Stack;
use flannel_lease::kube::KubeOptions;
use flannel_lease::kube::KubeStore;
use flannel_lease::{
    Lease, LeaseAttributes, LeaseLost, LeaseRequest, LeaseStore, StoreError, StoreFuture, StoreHealth, Timing,
};
use serde_json::Value;
use testkit::{FakeApi, KubeApiserver};
use tokio::sync::{OnceCell, mpsc, watch};

use flannel_lease::conformance::Harness;

pub(crate) const PREFIX: &str = "flannel.alpha.coreos.com/";

/// An API server as its administrator sees it.
pub(crate) trait Server: Sized + Send + Sync + 'static {
    fn start() -> Self;
    /// `--kube-api-url` and `--kubeconfig-file` of daemons.
    fn flags(&self) -> (Option<String>, Option<PathBuf>);
    fn nodes(&self) -> Vec<Value>;
    /// Whether the server takes it.
    fn add_node(&self, name: &str, pod_cidrs: &[&str]) -> bool;
    fn delete_node(&self, name: &str);
    fn annotate(&self, node: &str, name: &str, value: &str);
    fn set_away(&self, away: bool);
}

impl Server for FakeApi {
    fn start() -> Self {
        Self::start().unwrap()
    }
    fn flags(&self) -> (Option<String>, Option<PathBuf>) {
        (Some(self.url()), None)
    }
    fn nodes(&self) -> Vec<Value> {
        self.names().iter().filter_map(|name| self.node(name)).collect()
    }
    fn add_node(&self, name: &str, pod_cidrs: &[&str]) -> bool {
        self.add_node(name, pod_cidrs);
        true
    }
    fn delete_node(&self, name: &str) {
        self.delete_node(name);
    }
    fn annotate(&self, node: &str, name: &str, value: &str) {
        self.annotate(node, name, Some(value));
    }
    fn set_away(&self, away: bool) {
        self.set_away(away);
    }
}

impl Server for KubeApiserver {
    fn start() -> Self {
        Self::start().unwrap()
    }
    fn flags(&self) -> (Option<String>, Option<PathBuf>) {
        (None, Some(self.kubeconfig()))
    }
    fn nodes(&self) -> Vec<Value> {
        self.nodes().unwrap()
    }
    fn add_node(&self, name: &str, pod_cidrs: &[&str]) -> bool {
        self.add_node(name, pod_cidrs).is_ok()
    }
    fn delete_node(&self, name: &str) {
        self.delete_node(name).unwrap();
    }
    fn annotate(&self, node: &str, name: &str, value: &str) {
        self.annotate(node, name, Some(value)).unwrap();
    }
    fn set_away(&self, away: bool) {
        self.set_away(away).unwrap();
    }
}

pub(crate) struct KubeLab<S> {
    api: Arc<S>,
    /// Subnets given so far.
    given: Arc<Mutex<BTreeSet<u16>>>,
}

/// How the daemon on this node is told to reach the server.
pub(crate) fn options(api: &impl Server, node: &str) -> KubeOptions {
    let (api_url, kubeconfig) = api.flags();
    KubeOptions {
        api_url,
        kubeconfig,
        annotation_prefix: "flannel.alpha.coreos.com".to_owned(),
        set_network_unavailable: true,
        node_name: Some(node.to_owned()),
        pod_name: None,
        pod_namespace: None,
        user_agent: "flanneld/test (linux/amd64)".to_owned(),
    }
}

pub(crate) const DUAL: Stack = Stack { ipv4: true, ipv6: true };

/// What of a node's annotations is a lease, in etcd's form.
fn json_of(node: &Value) -> Option<String> {
    let annotation = |name: &str| node["metadata"]["annotations"][format!("{PREFIX}{name}")].as_str();
    (annotation("kube-subnet-manager") == Some("true")).then_some(())?;
    // The data as the annotation has it, with its keys in their order.
    let data = |name| annotation(name).filter(|text| *text != "null").map(str::to_owned);
    let text = |value: Option<&str>| value.map(|value| Value::from(value).to_string());
    let fields = [
        ("PublicIP", text(Some(annotation("public-ip").unwrap_or("0.0.0.0")))),
        ("PublicIPv6", text(annotation("public-ipv6"))),
        ("BackendType", text(annotation("backend-type"))),
        ("BackendData", data("backend-data")),
        ("BackendV6Data", data("backend-v6-data")),
    ];
    let fields: Vec<String> =
        fields.into_iter().filter_map(|(name, value)| Some(format!("\"{name}\":{}", value?))).collect();
    LeaseAttributes::from_json(format!("{{{}}}", fields.join(",")).as_bytes()).ok()?.to_json().ok()
}

/// A node's name made of its address or subnet.
fn name_of(prefix: &str, text: &str) -> String {
    format!("{prefix}-{}-x", text.to_lowercase().replace(|other: char| !other.is_ascii_alphanumeric(), "-"))
}

impl<S: Server> KubeLab<S> {
    /// The node with this public address, or with these pod subnets.
    fn node_of(&self, key: Option<&str>, public: Option<&LeaseAttributes>) -> Option<String> {
        let found = self.api.nodes().into_iter().find(|node| {
            let cidrs = node["spec"]["podCIDRs"].as_array().cloned().unwrap_or_default();
            let text: Vec<String> =
                cidrs.iter().map(|cidr| cidr.as_str().unwrap().replace('/', "-")).collect();
            let by_key = key.is_some_and(|key| text.join("&") == key);
            let json = json_of(node).and_then(|json| LeaseAttributes::from_json(json.as_bytes()).ok());
            by_key || public.zip(json.as_ref()).is_some_and(|(public, json)| public.same_node(json))
        })?;
        Some(found["metadata"]["name"].as_str().unwrap().to_owned())
    }

    fn node(&self, name: &str) -> Option<Value> {
        self.api.nodes().into_iter().find(|node| node["metadata"]["name"] == name)
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
struct Late<S> {
    lab: KubeLab<S>,
    observer: KubeStore,
    store: OnceCell<KubeStore>,
}

impl<S> std::fmt::Debug for Late<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

impl<S: Server> Late<S> {
    fn store(&self) -> &KubeStore {
        self.store.get().unwrap_or(&self.observer)
    }

    async fn named(&self, request: &LeaseRequest) -> Result<&KubeStore, StoreError> {
        let stack = Stack { ipv4: request.range.v4.is_some(), ipv6: request.range.v6.is_some() };
        let open = || async {
            let attributes = &request.attributes;
            let name = self.lab.node_of(None, Some(attributes)).unwrap_or_else(|| {
                let addresses = (attributes.public_ip, attributes.public_ipv6);
                let name = name_of("node", &format!("{addresses:?}"));
                let cidrs = self.lab.give(request);
                assert!(self.lab.api.add_node(&name, &cidrs.iter().map(String::as_str).collect::<Vec<_>>()));
                name
            });
            KubeStore::open(&options(&*self.lab.api, &name), stack).await
        };
        self.store.get_or_try_init(open).await
    }
}

impl<S: Server> LeaseStore for Late<S> {
    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> StoreFuture<'a, Result<Lease, StoreError>> {
        Box::pin(async move { self.named(request).await?.acquire(request).await })
    }

    fn find<'a>(&'a self, node: &'a LeaseAttributes) -> StoreFuture<'a, Result<Option<Lease>, StoreError>> {
        Box::pin(async move {
            let Some(name) = self.lab.node_of(None, Some(node)) else { return Ok(None) };
            KubeStore::open(&options(&*self.lab.api, &name), DUAL).await?.find(node).await
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

impl<S: Server> Harness for KubeLab<S> {
    const READABLE_WHILE_AWAY: bool = false;

    async fn new() -> Self {
        Self { api: Arc::new(S::start()), given: Arc::default() }
    }

    async fn open(&self, _timing: Timing) -> Arc<dyn LeaseStore> {
        let lab = Self { api: Arc::clone(&self.api), given: Arc::clone(&self.given) };
        let observer = KubeStore::open(&options(&*self.api, "observer"), DUAL).await.unwrap();
        Arc::new(Late { lab, observer, store: OnceCell::new() })
    }

    async fn put(&self, key: &str, json: &str) {
        let name = self.node_of(Some(key), None).unwrap_or_else(|| name_of("by-hand", key));
        let cidrs: Vec<String> = key.split('&').map(|part| part.replacen('-', "/", 1)).collect();
        let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
        if self.node(&name).is_none() && !self.api.add_node(&name, &cidrs) {
            return; // a real server refuses subnets that are none
        }
        let lease: Value = serde_json::from_str(json).unwrap_or_default();
        let ip = lease["PublicIP"].as_str().unwrap_or("no address");
        self.api.annotate(&name, &format!("{PREFIX}public-ip"), ip);
        self.api.annotate(&name, &format!("{PREFIX}kube-subnet-manager"), "true");
    }

    async fn delete(&self, key: &str) {
        if let Some(name) = self.node_of(Some(key), None) {
            self.api.delete_node(&name);
        }
    }

    async fn read(&self, key: &str) -> Option<String> {
        json_of(&self.node(&self.node_of(Some(key), None)?)?)
    }

    async fn ends(&self, key: &str) -> bool {
        self.node_of(Some(key), None).is_some()
    }

    async fn wipe(&self) {
        for node in self.api.nodes() {
            self.api.delete_node(node["metadata"]["name"].as_str().unwrap());
        }
    }

    async fn away(&self, during: impl Future<Output = ()> + Send) {
        self.api.set_away(true);
        during.await;
        self.api.set_away(false);
    }
}
