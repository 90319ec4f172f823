//! Kubernetes' protobuf messages, cut down to the fields that flannel reads.
//!
//! Field numbers are those of `generated.proto` in `k8s.io/api/core/v1`,
//! `k8s.io/apimachinery/pkg/apis/meta/v1` and `pkg/runtime`.

use std::collections::BTreeMap;

use prost::Message;

/// What every object in protobuf starts with; an [`Unknown`] follows.
pub(super) const MAGIC: &[u8] = b"k8s\0";

/// The envelope of an object.
#[derive(Message)]
pub(super) struct Unknown {
    #[prost(message, optional, tag = "1")]
    pub(super) type_meta: Option<TypeMeta>,
    /// Also in [`super::decode`], which reads it in pieces.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) raw: Vec<u8>,
}

#[derive(Message)]
pub(super) struct TypeMeta {
    #[prost(string, tag = "2")]
    pub(super) kind: String,
}

/// `ListMeta` of a `NodeList` or `PartialObjectMetadataList`.
#[derive(Message)]
pub(super) struct ListMeta {
    #[prost(string, tag = "2")]
    pub(super) resource_version: String,
    #[prost(string, tag = "3")]
    pub(super) r#continue: String,
}

/// A `Node`, or a `PartialObjectMetadata`, which has the same first field and no other.
#[derive(Message)]
pub(super) struct Node {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    pub(super) spec: Option<NodeSpec>,
    #[prost(message, optional, tag = "3")]
    pub(super) status: Option<NodeStatus>,
}

#[derive(Message)]
pub(super) struct ObjectMeta {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "5")]
    pub(super) uid: String,
    #[prost(string, tag = "6")]
    pub(super) resource_version: String,
    #[prost(message, optional, tag = "8")]
    pub(super) creation_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "12")]
    pub(super) annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "17")]
    pub(super) managed_fields: Vec<ManagedFieldsEntry>,
}

#[derive(Message)]
pub(super) struct Time {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
}

#[derive(Message)]
pub(super) struct ManagedFieldsEntry {
    #[prost(message, optional, tag = "7")]
    pub(super) fields_v1: Option<FieldsV1>,
}

#[derive(Message)]
pub(super) struct FieldsV1 {
    /// JSON.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) raw: Vec<u8>,
}

#[derive(Message)]
pub(super) struct NodeSpec {
    #[prost(string, tag = "1")]
    pub(super) pod_cidr: String,
    #[prost(string, repeated, tag = "7")]
    pub(super) pod_cidrs: Vec<String>,
}

#[derive(Message)]
pub(super) struct NodeStatus {
    #[prost(message, repeated, tag = "4")]
    pub(super) conditions: Vec<NodeCondition>,
}

#[derive(Message)]
pub(super) struct NodeCondition {
    #[prost(string, tag = "1")]
    pub(super) r#type: String,
    #[prost(string, tag = "2")]
    pub(super) status: String,
}

/// A frame of a watch.
#[derive(Message)]
pub(super) struct WatchEvent {
    #[prost(string, tag = "1")]
    pub(super) r#type: String,
    #[prost(message, optional, tag = "2")]
    pub(super) object: Option<RawExtension>,
}

#[derive(Message)]
pub(super) struct RawExtension {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) raw: Vec<u8>,
}

/// Why a request failed.
#[derive(Message)]
pub(super) struct Status {
    #[prost(string, tag = "3")]
    pub(super) message: String,
    #[prost(string, tag = "4")]
    pub(super) reason: String,
    #[prost(message, optional, tag = "5")]
    pub(super) details: Option<StatusDetails>,
    #[prost(int32, tag = "6")]
    pub(super) code: i32,
}

#[derive(Message)]
pub(super) struct StatusDetails {
    #[prost(int32, tag = "5")]
    pub(super) retry_after_seconds: i32,
}
