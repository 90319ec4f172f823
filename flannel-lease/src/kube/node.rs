//! A Kubernetes node, cut down to what flannel needs of it.

use std::borrow::Cow;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::Deserialize;

use super::annotations::Annotations;
use super::claims::Claimant;
use crate::LeaseKey;

/// A node. Everything else that the API server sends is dropped while it is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub(super) struct Node {
    /// Name, time of creation, resource version and annotations only.
    metadata: ObjectMeta,
    /// `spec.podCIDRs`, or `spec.podCIDR` where only that is set.
    pub(super) pod_cidrs: Vec<String>,
    /// Whether the condition `NetworkUnavailable` says `False`.
    pub(super) network_is_available: bool,
}

/// What is read.
#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    annotations: Option<Annotations>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Status {
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl From<Wire> for Node {
    fn from(wire: Wire) -> Self {
        let Metadata { name, resource_version, creation_timestamp, annotations } = wire.metadata;
        let pod_cidrs = wire.spec.pod_cidrs.unwrap_or_default();
        let only = wire.spec.pod_cidr.filter(|cidr| pod_cidrs.is_empty() && !cidr.is_empty());
        let available =
            |condition: &Condition| condition.kind == "NetworkUnavailable" && condition.status == "False";
        Self {
            metadata: ObjectMeta {
                name,
                resource_version,
                creation_timestamp,
                annotations,
                ..ObjectMeta::default()
            },
            pod_cidrs: pod_cidrs.into_iter().chain(only).collect(),
            network_is_available: wire.status.conditions.unwrap_or_default().iter().any(available),
        }
    }
}

impl Node {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// It as one that claims a lease. Without a time of creation, which every API server sets, it is the youngest.
    pub(super) fn claimant(&self) -> Claimant {
        let created = self.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second());
        Claimant { created, name: self.name().into() }
    }

    /// Its annotations.
    pub(super) fn annotations(&self) -> Cow<'_, Annotations> {
        self.metadata.annotations.as_ref().map_or_else(Cow::default, Cow::Borrowed)
    }

    /// Its version in the API: larger is later. Kubernetes calls it opaque and means it to be compared since 1.35; it has
    /// been etcd's revision all along. 0 if it is no number.
    pub(super) fn version(&self) -> u64 {
        self.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
    }

    /// Its pod subnets, both families; nothing while none is assigned.
    pub(super) fn subnets(&self) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>), String> {
        if self.pod_cidrs.len() > 2 {
            return Err(format!("node {:?} pod cidrs should be IPv4/IPv6 only or dualstack", self.name()));
        }
        let (mut v4, mut v6) = (None, None);
        for text in &self.pod_cidrs {
            let net = text.parse().map_err(|_unhelpful| {
                format!(
                    "node {:?} has podCIDR `{}`, which is not a network",
                    self.name(),
                    text.escape_debug()
                )
            })?;
            match net {
                IpNet::V4(net) => v4 = Some(net.trunc()),
                IpNet::V6(net) => v6 = Some(net.trunc()),
            }
        }
        Ok((v4, v6))
    }

    /// The lease that its pod subnets of these families are.
    pub(super) fn key(&self, v4: bool, v6: bool) -> Result<Option<LeaseKey>, String> {
        let (subnet_v4, subnet_v6) = self.subnets()?;
        Ok(LeaseKey::new(subnet_v4.filter(|_| v4), subnet_v6.filter(|_| v6)))
    }
}

impl Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: &str) -> Node {
        serde_json::from_str(json).expect("a node")
    }

    #[test]
    fn only_what_is_needed_of_a_node_is_kept() {
        let node = node(
            r#"{"apiVersion":"v1","kind":"Node",
                "metadata":{"name":"a","resourceVersion":"7","labels":{"x":"y"},"annotations":{"k":"v"},
                            "managedFields":[{"manager":"kubelet"}]},
                "spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24","fd00:1::/64"]},
                "status":{"images":[{"names":["big"]}],
                          "conditions":[{"type":"Ready","status":"True"},{"type":"NetworkUnavailable","status":"False"}]}}"#,
        );
        assert_eq!((node.name(), node.annotations().len()), ("a", 1));
        assert!(node.metadata.labels.is_none() && node.metadata.managed_fields.is_none());
        assert!(node.network_is_available);
        let key = node.key(true, true).expect("subnets").expect("assigned");
        assert_eq!(key.to_string(), "10.244.1.0-24&fd00:1::-64");
        assert_eq!(
            node.key(false, true).expect("subnets").expect("assigned").to_string(),
            "0.0.0.0-0&fd00:1::-64"
        );
    }

    #[test]
    fn pod_cidrs_are_read_as_upstream_reads_them() {
        let with = |spec: &str| node(&format!(r#"{{"metadata":{{"name":"a"}},"spec":{spec}}}"#));
        let v4_only = with(r#"{"podCIDR":"10.0.0.0/24"}"#).subnets().expect("read");
        assert_eq!(v4_only, ("10.0.0.0/24".parse().ok(), None));
        assert_eq!(with("{}").subnets(), Ok((None, None)));
        assert_eq!(with(r#"{"podCIDR":""}"#).subnets(), Ok((None, None)));
        assert!(with(r#"{"podCIDR":"10.0.0.0"}"#).subnets().is_err());
        let three = with(r#"{"podCIDRs":["10.0.0.0/24","fd00::/64","10.0.1.0/24"]}"#);
        assert!(three.subnets().expect_err("refused").contains("IPv4/IPv6 only or dualstack"));
    }
}
