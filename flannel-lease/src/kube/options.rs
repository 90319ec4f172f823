//! How to reach the API server, and which node this is.

use std::path::PathBuf;

/// How to reach the API server, and which node this is.
#[derive(Clone, Debug)]
pub struct KubeOptions {
    /// URL of the API server. Default: the kubeconfig's, otherwise that of the cluster in which this pod runs.
    pub api_url: Option<String>,
    /// Path of a kubeconfig file. Default: no credentials if `api_url` is set, otherwise the service account of this
    /// pod.
    pub kubeconfig: Option<PathBuf>,
    /// Prefix of the annotations. As with upstream, a slash is added if it has none, and a dash if it ends in a word.
    /// Default: `flannel.alpha.coreos.com`.
    pub annotation_prefix: String,
    /// Whether [`LeaseStore::ready`](crate::LeaseStore::ready) sets the condition `NetworkUnavailable` of the node to
    /// `False`. Default: yes.
    pub set_network_unavailable: bool,
    /// Name of this node in the cluster (`NODE_NAME`).
    pub node_name: Option<String>,
    /// Name of the pod in which this process runs (`POD_NAME`). Identifies the node if `node_name` is `None`.
    pub pod_name: Option<String>,
    /// Namespace of that pod (`POD_NAMESPACE`).
    pub pod_namespace: Option<String>,
    /// `User-Agent` of every request, such as `flanneld/0.1.0 (linux/amd64)`.
    pub user_agent: String,
}
