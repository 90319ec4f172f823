//! What the server holds, with its history.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

/// All nodes, their history, and snapshots that paged listings read from.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    version: u64,
    nodes: BTreeMap<String, Arc<Value>>,
    /// Version, kind and node of each change since `compacted`.
    history: VecDeque<(u64, &'static str, Arc<Value>)>,
    compacted: u64,
    snapshots: HashMap<u64, BTreeMap<String, Arc<Value>>>,
    pods: BTreeMap<(String, String), Value>,
}

/// A node as it is before any flannel has seen it, about as large as a real one.
pub(super) fn fresh(name: &str, pod_cidrs: &[&str]) -> Value {
    let image = |n: u32| json!({ "names": [format!("registry.example.org/image-{n}@sha256:{:064x}", n)], "sizeBytes": 1000 });
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" },
            "annotations": { "node.alpha.kubernetes.io/ttl": "0" },
            "managedFields": [{ "manager": "kubelet", "operation": "Update", "fieldsV1": { "f:metadata": {} } }],
        },
        "spec": {},
        "status": {
            "conditions": [
                { "type": "Ready", "status": "True", "reason": "KubeletReady" },
                { "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated" },
            ],
            "images": (0..20).map(image).collect::<Vec<_>>(),
        },
    });
    if let Some(first) = pod_cidrs.first() {
        node["spec"] = json!({ "podCIDR": first, "podCIDRs": pod_cidrs });
    }
    node
}

impl Nodes {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn read(&self, name: &str) -> Option<Value> {
        self.nodes.get(name).map(|node| Value::clone(node))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Writes a node; one that stays the same keeps its version.
    pub(super) fn put(&mut self, name: &str, mut node: Value) {
        let before = self.nodes.get(name);
        if let Some(before) = before {
            node["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if **before == node {
                return;
            }
        }
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.version += 1;
        node["metadata"]["resourceVersion"] = self.version.to_string().into();
        let node = Arc::new(node);
        self.nodes.insert(name.to_owned(), Arc::clone(&node));
        self.history.push_back((self.version, kind, node));
    }

    pub(super) fn delete(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            self.version += 1;
            let mut node = Value::clone(&node);
            node["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.history.push_back((self.version, "DELETED", Arc::new(node)));
        }
    }

    pub(super) fn put_pod(&mut self, namespace: &str, name: &str, node: &str) {
        self.version += 1;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "resourceVersion": self.version.to_string() },
            "spec": { "nodeName": node, "containers": [] },
        });
        self.pods.insert((namespace.to_owned(), name.to_owned()), pod);
    }

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<Value> {
        self.pods.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Forgets history; the version goes up as that of a real cluster does meanwhile.
    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.compacted = self.version;
        self.history.clear();
        self.snapshots.clear();
    }

    /// All nodes and the version they are of.
    pub(super) fn all(&self) -> (u64, Vec<Arc<Value>>) {
        (self.version, self.nodes.values().cloned().collect())
    }

    /// Changes after `since`; nothing if they are forgotten.
    pub(super) fn changes(&self, since: u64) -> Option<Vec<(u64, &'static str, Arc<Value>)>> {
        let changes = || self.history.iter().filter(|(version, ..)| *version > since).cloned().collect();
        (since >= self.compacted).then(changes)
    }

    /// One page of a listing: its version, its nodes, and where the next one starts. A listing sees the nodes as they
    /// were when its first page was read; nothing if that is forgotten.
    pub(super) fn page(
        &mut self,
        token: Option<&str>,
        limit: usize,
    ) -> Option<(u64, Vec<Arc<Value>>, Option<String>)> {
        let (version, after) = match token {
            Some(token) => {
                let (version, after) = token.split_once('/')?;
                (version.parse().ok()?, Some(after))
            }
            None => (self.version, None),
        };
        if token.is_none() && limit < self.nodes.len() {
            self.snapshots.insert(version, self.nodes.clone());
        }
        let nodes = match token {
            Some(_) => self.snapshots.get(&version)?,
            None => &self.nodes,
        };
        let rest = nodes.iter().filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        let page: Vec<_> = rest.take(limit).collect();
        let last = page.last().map(|(name, _)| *name);
        let more = last.is_some_and(|last| nodes.keys().next_back() != Some(last));
        let next = last.filter(|_| more).map(|last| format!("{version}/{last}"));
        Some((version, page.into_iter().map(|(_, node)| Arc::clone(node)).collect(), next))
    }

    /// Merges a strategic merge patch into a node's metadata and status; `spec` is none of that subresource's.
    pub(super) fn patch_status(&mut self, name: &str, patch: &Value) -> Option<Value> {
        let mut node = self.read(name)?;
        for part in ["annotations", "labels"] {
            if let Some(change) = patch["metadata"].get(part) {
                merge(&mut node["metadata"][part], change);
            }
        }
        if let Some(change) = patch.get("status") {
            merge(&mut node["status"], change);
        }
        self.put(name, node);
        self.read(name)
    }
}

/// Objects are merged key by key, `null` deletes; lists of conditions by `type`; everything else is replaced.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        match (key.as_str(), change) {
            (_, Value::Null) => {
                if let Some(object) = target.as_object_mut() {
                    object.remove(key);
                }
            }
            ("conditions", Value::Array(changed)) => {
                let mut list = target[key].as_array().cloned().unwrap_or_default();
                for condition in changed {
                    match list.iter_mut().find(|present| present["type"] == condition["type"]) {
                        Some(present) => merge(present, condition),
                        None => list.push(condition.clone()),
                    }
                }
                target[key] = list.into();
            }
            _ => merge(&mut target[key], change),
        }
    }
}
