//! A Kubernetes node, cut down to what flannel needs of it.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::annotations::Annotations;
use super::pod_cidr_claims::Claimant;
use super::proto;
use crate::LeaseKey;

/// A node, or only its metadata. Everything else that the API server sends is dropped while it is
/// read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Wire")]
pub(super) struct Node {
    name: String,
    uid: String,
    resource_version: String,
    /// Seconds since 1970.
    created: Option<i64>,
    annotations: Annotations,
    /// `spec.podCIDRs`, or `spec.podCIDR` where only that is set; `None` if the answer has only
    /// metadata and this does not show them.
    pod_cidrs: Option<Vec<String>>,
    /// Whether the answer has the `spec`.
    has_spec: bool,
    /// Whether the condition `NetworkUnavailable` is `False`; `None` if the answer has only metadata.
    pub(super) network_is_available: Option<bool>,
}

/// What is read of JSON. The API server writes `spec` and `status` of a node even if they are empty.
#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    annotations: Option<Annotations>,
    managed_fields: Option<Vec<ManagedFieldsEntry>>,
}

#[derive(Deserialize)]
struct ManagedFieldsEntry {
    #[serde(rename = "fieldsV1")]
    fields_v1: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Status {
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// `FieldsV1`: the fields that a manager set. Names of fields have the prefix `f:`, items of a set the
/// prefix `v:` before their JSON.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "f:spec")]
    spec: Option<SpecFields>,
}

#[derive(Deserialize)]
struct SpecFields {
    #[serde(rename = "f:podCIDRs")]
    pod_cidrs: Option<BTreeMap<String, IgnoredAny>>,
}

impl From<Wire> for Node {
    fn from(wire: Wire) -> Self {
        let Metadata { name, uid, resource_version, creation_timestamp, annotations, managed_fields } =
            wire.metadata;
        let spec =
            wire.spec.map(|spec| (spec.pod_cidr.unwrap_or_default(), spec.pod_cidrs.unwrap_or_default()));
        let managed_fields = managed_fields.unwrap_or_default();
        let fields =
            managed_fields.iter().filter_map(|entry| Some(entry.fields_v1.as_ref()?.get().as_bytes()));
        let conditions = wire.status.map(|status| status.conditions.unwrap_or_default());
        Self {
            name: name.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
            resource_version: resource_version.unwrap_or_default(),
            created: creation_timestamp.map(|time| time.0.as_second()),
            annotations: annotations.unwrap_or_default(),
            has_spec: spec.is_some(),
            pod_cidrs: spec.map(either).or_else(|| pod_cidrs_of_fields(fields)),
            network_is_available: conditions.map(|all| {
                all.iter().any(|condition| is_network_available(&condition.kind, &condition.status))
            }),
        }
    }
}

impl From<proto::Node> for Node {
    fn from(wire: proto::Node) -> Self {
        let metadata = wire.metadata.unwrap_or_default();
        let spec = wire.spec.map(|spec| (spec.pod_cidr, spec.pod_cidrs));
        let fields =
            metadata.managed_fields.iter().filter_map(|entry| Some(entry.fields_v1.as_ref()?.raw.as_slice()));
        Self {
            created: metadata.creation_timestamp.map(|time| time.seconds),
            has_spec: spec.is_some(),
            pod_cidrs: spec.map(either).or_else(|| pod_cidrs_of_fields(fields)),
            network_is_available: wire.status.map(|status| {
                let mut all = status.conditions.iter();
                all.any(|condition| is_network_available(&condition.r#type, &condition.status))
            }),
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            annotations: metadata.annotations,
        }
    }
}

fn is_network_available(kind: &str, status: &str) -> bool {
    kind == "NetworkUnavailable" && status == "False"
}

/// `podCIDRs`, or `podCIDR` where only that is set.
fn either((pod_cidr, pod_cidrs): (String, Vec<String>)) -> Vec<String> {
    let only = Some(pod_cidr).filter(|cidr| pod_cidrs.is_empty() && !cidr.is_empty());
    pod_cidrs.into_iter().chain(only).collect()
}

/// The pod subnets in `managedFields`, where the items of a set are the names of its fields:
/// `"f:podCIDRs":{".":{},"v:\"10.244.1.0/24\"":{}}`. `None` unless they are valid pod subnets, at most
/// one of each family.
///
/// The API server computes `managedFields` from the object with every write and lets no write change
/// or remove `podCIDRs`, so these values are those of the node.
fn pod_cidrs_of_fields<'a>(all: impl Iterator<Item = &'a [u8]>) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for fields in all {
        let text = std::str::from_utf8(fields).ok()?;
        if !text.contains("\"f:podCIDRs\"") {
            continue;
        }
        let fields: Fields = serde_json::from_str(text).ok()?;
        let items = fields.spec.and_then(|spec| spec.pod_cidrs).unwrap_or_default();
        for item in items.keys().filter_map(|key| key.strip_prefix("v:")) {
            let cidr: String = serde_json::from_str(item).ok()?;
            if !found.contains(&cidr) {
                found.push(cidr);
            }
        }
    }
    let families: Vec<bool> = found.iter().filter_map(|cidr| Some(is_v4(cidr.parse().ok()?))).collect();
    let valid =
        families.len() == found.len() && matches!(families.as_slice(), [_] | [true, false] | [false, true]);
    valid.then_some(found)
}

/// A version of an object or list: larger is later. Kubernetes calls it opaque and means it to be
/// compared since 1.35; it has been etcd's revision all along. 0 if it is no number.
pub(super) fn version_number(version: &str) -> u64 {
    version.parse().unwrap_or_default()
}

fn is_v4(net: IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

impl Node {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Differs from that of another node that had the same name.
    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    /// Its pod subnets, if known.
    pub(super) fn pod_cidrs(&self) -> Option<&[String]> {
        self.pod_cidrs.as_deref()
    }

    /// Whether the answer has the whole node and not only its metadata.
    pub(super) fn has_spec(&self) -> bool {
        self.has_spec
    }

    /// Adds the pod subnets to a node of which only the metadata is known.
    pub(super) fn set_pod_cidrs(&mut self, pod_cidrs: Vec<String>) {
        self.pod_cidrs = Some(pod_cidrs);
    }

    /// It as one that claims a lease. Without a time of creation, which every API server sets, it is the youngest.
    pub(super) fn claimant(&self) -> Claimant {
        Claimant { created: self.created.unwrap_or(i64::MAX), name: self.name().into() }
    }

    /// When it was created, in seconds since 1970. Without a time it is the youngest.
    pub(super) fn created(&self) -> u64 {
        self.created.and_then(|seconds| seconds.try_into().ok()).unwrap_or(u64::MAX)
    }

    /// Its annotations.
    pub(super) fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// Its version in the API, see [`version_number`].
    pub(super) fn version(&self) -> u64 {
        version_number(&self.resource_version)
    }

    /// Its version in the API as text.
    pub(super) fn resource_version(&self) -> &str {
        &self.resource_version
    }

    /// Its pod subnets, both families; nothing while none is assigned.
    pub(super) fn subnets(&self) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>), String> {
        let pod_cidrs = self.pod_cidrs().unwrap_or_default();
        if pod_cidrs.len() > 2 {
            return Err(format!("node {:?} pod cidrs should be IPv4/IPv6 only or dualstack", self.name()));
        }
        let (mut v4, mut v6) = (None, None);
        for text in pod_cidrs {
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
        assert_eq!(node.network_is_available, Some(true));
        let key = node.key(true, true).expect("subnets").expect("assigned");
        assert_eq!(key.to_string(), "10.244.1.0-24&fd00:1::-64");
        assert_eq!(
            node.key(false, true).expect("subnets").expect("assigned").to_string(),
            "0.0.0.0-0&fd00:1::-64"
        );
    }

    #[test]
    fn metadata_alone_shows_pod_subnets_in_managed_fields_or_none() {
        let with = |fields: &str| {
            let json = format!(r#"{{"metadata":{{"name":"a","managedFields":[{fields}]}}}}"#);
            let node = node(&json);
            assert!(!node.has_spec() && node.network_is_available.is_none());
            node.pod_cidrs().map(<[String]>::to_vec)
        };
        let entry = |items: &str| {
            let spec = format!(r#"{{"f:podCIDR":{{}},"f:podCIDRs":{{".":{{}}{items}}}}}"#);
            format!(r#"{{"manager":"kube-controller-manager","fieldsV1":{{"f:spec":{spec}}}}}"#)
        };
        let kubelet = r#"{"manager":"kubelet","fieldsV1":{"f:metadata":{"f:annotations":{".":{}}}}}"#;
        let (v4, v6) = (r#","v:\"10.1.0.0/24\"":{}"#, r#","v:\"fd00:1::/64\"":{}"#);
        let dual = vec!["10.1.0.0/24".to_owned(), "fd00:1::/64".to_owned()];
        assert_eq!(with(&format!("{kubelet},{}", entry(&format!("{v4}{v6}")))), Some(dual.clone()));
        assert_eq!(with(&format!("{},{}", entry(v4), entry(&format!("{v4}{v6}")))), Some(dual));
        for useless in [
            kubelet.to_owned(),
            String::new(),
            "{}".to_owned(),
            entry(""),
            entry(r#","v:\"10.1.0.0\"":{}"#),
            entry(r#","v:7":{}"#),
            entry(&format!(r#"{v4},"v:\"10.2.0.0/24\"":{{}}"#)),
        ] {
            assert_eq!(with(&useless), None, "{useless}");
        }
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
