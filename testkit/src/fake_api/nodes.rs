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
    hides_managed_fields: bool,
    pods: BTreeMap<(String, String), Value>,
}

/// A node as it is before any flannel has seen it, of 12 KB, as a real one.
pub(super) fn fresh(name: &str, pod_cidrs: &[&str]) -> Value {
    const IMAGES: u32 = 50;
    let image = |n: u32| {
        let name = format!("registry.example.org/team-{n}/service-{n}");
        json!({ "names": [format!("{name}@sha256:{:064x}", n.wrapping_mul(0x9e37_79b1)), format!("{name}:v1.{n}.0")],
                "sizeBytes": 10_000_000 + n * 1_234_567 })
    };
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({ "type": kind, "status": status, "reason": reason, "message": format!("kubelet reports {reason}"),
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    let resources = json!({ "cpu": "8", "memory": "32768Mi", "pods": "110", "ephemeral-storage": "101430960Ki",
                            "hugepages-1Gi": "0", "hugepages-2Mi": "0" });
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64" },
            "annotations": { "node.alpha.kubernetes.io/ttl": "0" },
        },
        "spec": {},
        "status": {
            "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }, { "type": "Hostname", "address": name }],
            "allocatable": resources,
            "capacity": resources,
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
            "nodeInfo": {
                "architecture": "amd64", "bootID": "0d3c8f5e-7a86-4d9c-8e27-2a4b6f3a9c51",
                "containerRuntimeVersion": "containerd://2.1.4", "kernelVersion": "6.12.48", "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.3", "machineID": "6f0e4c2b9d7a4f0f8d0d5a3a1b2c3d4e", "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux 13 (trixie)", "systemUUID": "6f0e4c2b-9d7a-4f0f-8d0d-5a3a1b2c3d4e",
            },
            "conditions": [
                condition("Ready", "True", "KubeletReady"),
                condition("NetworkUnavailable", "True", "NoRouteCreated"),
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            ],
            "images": (0..IMAGES).map(image).collect::<Vec<_>>(),
        },
    });
    if let Some(first) = pod_cidrs.first() {
        node["spec"] = json!({ "podCIDR": first, "podCIDRs": pod_cidrs });
    }
    node
}

/// `managedFields` as the API server computes them from the object: 2.5 KB of the kubelet's, and the pod subnets.
fn managed_fields(node: &Value) -> Value {
    let condition = |kind: &str| {
        let fields = json!({ ".": {}, "f:type": {}, "f:status": {}, "f:reason": {}, "f:message": {},
                             "f:lastHeartbeatTime": {}, "f:lastTransitionTime": {} });
        (format!("k:{{\"type\":\"{kind}\"}}"), fields)
    };
    let conditions: serde_json::Map<String, Value> =
        ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].into_iter().map(condition).collect();
    let names = |of: &Value| -> serde_json::Map<String, Value> {
        let names = of.as_object().into_iter().flatten().map(|(name, _)| name);
        names.map(|name| (format!("f:{name}"), json!({}))).collect()
    };
    let metadata = json!({ "f:labels": names(&node["metadata"]["labels"]),
                           "f:annotations": names(&node["metadata"]["annotations"]) });
    let status = json!({ "f:conditions": conditions, "f:images": {}, "f:nodeInfo": {}, "f:addresses": {},
                         "f:allocatable": {}, "f:capacity": {}, "f:daemonEndpoints": {} });
    let entry = |manager: &str, fields: Value| {
        json!({ "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
                "fieldsType": "FieldsV1", "fieldsV1": fields })
    };
    let mut all = vec![
        entry("kubelet", json!({ "f:metadata": metadata })),
        entry("kubelet", json!({ "f:status": status })),
    ];
    if let Some(cidrs) = node["spec"]["podCIDRs"].as_array() {
        let item = |cidr: &Value| (format!("v:{cidr}"), json!({}));
        let mut items: serde_json::Map<String, Value> = cidrs.iter().map(item).collect();
        items.insert(".".to_owned(), json!({}));
        let spec = json!({ "f:spec": { "f:podCIDR": {}, "f:podCIDRs": items } });
        all.push(entry("kube-controller-manager", spec));
    }
    all.into()
}

/// Writes the one of `podCIDR` and `podCIDRs` that is missing.
fn complete_pod_cidrs(spec: &mut Value) {
    if let Some(first) = spec["podCIDRs"].get(0).cloned() {
        spec["podCIDR"] = first;
    } else if let Some(only) = spec.get("podCIDR").filter(|cidr| **cidr != "").cloned() {
        spec["podCIDRs"] = json!([only]);
    }
}

impl Nodes {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn show_managed_fields(&mut self, shown: bool) {
        self.hides_managed_fields = !shown;
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
        let uid = before.map(|before| before["metadata"]["uid"].clone());
        node["metadata"]["uid"] = uid.unwrap_or_else(|| format!("uid-{}", self.version).into());
        complete_pod_cidrs(&mut node["spec"]);
        node["metadata"]["managedFields"] =
            if self.hides_managed_fields { json!([]) } else { managed_fields(&node) };
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
