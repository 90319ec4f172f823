//! The way to the API server: where it is, which node this is, and calls that end.

use std::time::Duration;

use hyper::header::{InvalidHeaderValue, USER_AGENT};
use hyper_util::client::proxy::matcher::Matcher;
use kube::Client;
use kube::api::GetParams;
use kube::config::{InClusterError, KubeConfigOptions};
use kube::core::{Request, Status};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::KubeOptions;
use super::connect;
use super::kubeconfig;
use super::node::Node;
use super::response::{Failure, Response};
use crate::Chain;
use crate::health::Health;
use crate::{StoreError, StoreErrorKind};

/// Longest time for a connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for one call; watches are not calls.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the API server.
#[derive(Clone)]
pub(super) struct ApiServer {
    pub(super) client: Client,
    /// What errors call it.
    url: String,
}

impl ApiServer {
    /// By `--kubeconfig-file`, by `--kube-api-url`, else by the account of the pod that this runs in.
    pub(super) async fn new(options: &KubeOptions) -> Result<Self, StoreError> {
        let unusable = |advice: &str, source: Box<dyn std::error::Error + Send + Sync>| StoreError {
            operation: "use",
            object: "Kubernetes as lease store".to_owned(),
            advice: advice.to_owned(),
            kind: StoreErrorKind::Unusable,
            source: Some(source),
        };
        let mut proxy = None;
        let mut config = if let Some(path) = &options.kubeconfig {
            let advice = format!("--kubeconfig-file `{}`", path.display());
            let file = kubeconfig::read(path).map_err(|error| unusable(&advice, error))?;
            let proxies = kubeconfig::proxies(&file);
            let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|error| unusable(&advice, error.into()))?;
            proxy = connect::proxy(&config, &proxies, &Matcher::from_env());
            config
        } else if options.api_url.is_some() {
            kube::Config::new(hyper::Uri::default())
        } else {
            kube::Config::incluster().map_err(|error| {
                let advice = match error {
                    InClusterError::ReadEnvironmentVariable(_) => {
                        "this process does not run in a pod; pass --kubeconfig-file or --kube-api-url"
                    }
                    _ => "the service account of this pod cannot be used; mount it, or pass --kubeconfig-file or --kube-api-url",
                };
                unusable(advice, error.into())
            })?
        };
        if let Some(url) = &options.api_url {
            let advice = format!("--kube-api-url {url} is not a URL");
            config.cluster_url =
                url.parse().map_err(|error: hyper::http::uri::InvalidUri| unusable(&advice, error.into()))?;
        }
        // Attempts are spaced here, with a bound and a log line each.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        if config.cluster_url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let instead = "remove them, and name the user in a kubeconfig".into();
            return Err(unusable("the API server's URL contains credentials", instead));
        }
        // Without a CA of its own a client reads the system's. Where none is asked for, there need not be any.
        if config.root_cert.is_none()
            && (config.accept_invalid_certs || config.cluster_url.scheme_str() == Some("http"))
        {
            config.root_cert = Some(Vec::new());
        }
        let url = config.cluster_url.to_string();
        let agent = options.user_agent.parse().map_err(|error: InvalidHeaderValue| {
            unusable("the user agent is not a valid header value", error.into())
        })?;
        config.headers.push((USER_AGENT, agent));
        let client = connect::client(config, proxy)
            .map_err(|error| unusable("its address or TLS settings cannot be used", error))?;
        Ok(Self { client, url })
    }

    /// Reads a node.
    pub(super) async fn node(&self, name: &str, health: &Health) -> Result<Node, StoreError> {
        let object = format!("node {name:?}");
        self.call("read", &object, health, self.fetch_node(name)).await
    }

    /// Reads a node.
    pub(super) async fn fetch_node(&self, name: &str) -> Result<Node, Failure> {
        self.fetch(Request::new("/api/v1/nodes").get(name, &GetParams::default())).await
    }

    /// Merges `patch` into a node's status, annotations included.
    pub(super) async fn patch(&self, name: &str, patch: &Value, health: &Health) -> Result<Node, StoreError> {
        let object = format!("the status of node {name:?}");
        let parameters =
            kube::api::PatchParams { field_manager: Some("flanneld".to_owned()), ..Default::default() };
        let patch = kube::api::Patch::Strategic(patch);
        let request = Request::new("/api/v1/nodes").patch_subresource("status", name, &parameters, &patch);
        self.call("patch", &object, health, self.fetch(request)).await
    }

    /// The node that a pod runs on; `None` if it has none yet.
    pub(super) async fn node_of_pod(
        &self,
        namespace: &str,
        name: &str,
        health: &Health,
    ) -> Result<Option<String>, StoreError> {
        let object = format!("pod '{namespace}/{name}'");
        let pods = Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let request = pods.get(name, &GetParams::default());
        let pod = self.call("read", &object, health, self.fetch::<Pod>(request)).await.map_err(|error| {
            StoreError {
                advice: format!("error retrieving pod spec for '{namespace}/{name}': {}", error.advice),
                ..error
            }
        })?;
        Ok(pod.spec.node_name)
    }

    async fn fetch<T: DeserializeOwned>(
        &self,
        request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Failure> {
        let request = request.map_err(kube::Error::BuildRequest)?;
        let text = Response::to(&self.client, request, CALL_TIMEOUT).await?.whole(CALL_TIMEOUT).await?;
        serde_json::from_slice(&text).map_err(|error| Failure::Unreadable(error.to_string()))
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        object: &str,
        health: &Health,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, StoreError> {
        let done = tokio::time::timeout(CALL_TIMEOUT, call).await;
        let (advice, source) = match done {
            Ok(Ok(value)) => {
                health.answered();
                return Ok(value);
            }
            Ok(Err(Failure::Broken(error))) => {
                (format!("check that the API server at {} runs and is reachable", self.url), Some(error))
            }
            Ok(Err(failure @ (Failure::Refused(_) | Failure::Unreadable(_)))) => (failure.to_string(), None),
            Ok(Err(Failure::Silent(_))) | Err(_) => (
                format!("the API server at {} did not answer in {} s", self.url, CALL_TIMEOUT.as_secs()),
                None,
            ),
        };
        let error = StoreError {
            operation,
            object: object.to_owned(),
            advice,
            kind: StoreErrorKind::Unavailable,
            source,
        };
        health.failed(Chain(&error).to_string());
        Err(error)
    }
}

/// What is needed of a pod.
#[derive(Deserialize)]
struct Pod {
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodSpec {
    #[serde(rename = "nodeName")]
    node_name: Option<String>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What the API server said, and what to do about it.
pub(super) fn refused(status: &Status) -> String {
    let advice = match status.code {
        401 => "; the credentials are invalid or have expired",
        403 => "; grant it to flannel's service account, as deploy/kubernetes does",
        404 => "; check that `kubectl get nodes` shows the node that NODE_NAME names",
        _ => "",
    };
    format!("{}{advice}", status.message)
}
