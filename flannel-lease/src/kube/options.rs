//! How to reach the API server, and which node this is.

use std::path::PathBuf;

/// How to reach Kubernetes, and which node this is.
#[derive(Clone, Debug)]
pub struct KubeOptions {
    /// URL of the API server, if not the kubeconfig's or the cluster's own.
    pub api_url: Option<String>,
    /// kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// Prefix of the annotations as written. Default: `flannel.alpha.coreos.com`.
    pub annotation_prefix: String,
    /// Set the node's condition NetworkUnavailable to False. Default: yes.
    pub set_network_unavailable: bool,
    /// Name of this node in the cluster: `NODE_NAME`.
    pub node_name: Option<String>,
    /// Name of the pod that this process runs in, `POD_NAME`: finds the node if its name is not given.
    pub pod_name: Option<String>,
    /// Namespace of that pod: `POD_NAMESPACE`.
    pub pod_namespace: Option<String>,
    /// `User-Agent` of every request, such as `flanneld/0.1.0 (linux/amd64)`.
    pub user_agent: String,
}
