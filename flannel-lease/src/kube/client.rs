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
use crate::error::with_causes;
use crate::file::limit_advice;
use crate::health::Health;
use crate::resolver::LookupError;
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
            let advice = format!("correct --kubeconfig-file `{}`", path.display());
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
            let advice = format!("--kube-api-url {url} is not a URL such as https://192.0.2.1:6443");
            config.cluster_url =
                url.parse().map_err(|error: hyper::http::uri::InvalidUri| unusable(&advice, error.into()))?;
        }
        // Attempts are spaced here, with a bound and a log line each.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        if config.cluster_url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let instead = "remove them and name the user in a kubeconfig".into();
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
            .map_err(|error| unusable("correct its address or TLS settings", error))?;
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
        let pods = Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        let request = pods.get(name, &GetParams::default());
        let pod = self.call("find", "this node's name", health, self.fetch::<Pod>(request)).await;
        let pod = pod.map_err(|error| StoreError {
            advice: format!("error retrieving pod spec for '{namespace}/{name}': {}", error.advice),
            ..error
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
        let late = |_elapsed| Err(Failure::Silent(CALL_TIMEOUT));
        match tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(late) {
            Ok(value) => {
                health.answered();
                Ok(value)
            }
            Err(failure) => Err(self.failed(operation, object, failure, health)),
        }
    }

    /// Names what failed, notes it, and says what to do.
    pub(super) fn failed(
        &self,
        operation: &'static str,
        object: &str,
        failure: Failure,
        health: &Health,
    ) -> StoreError {
        let url = &self.url;
        let (advice, source) = match failure {
            Failure::Broken(error) => (connection_advice(url, &*error), Some(error)),
            Failure::Silent(time) => (
                format!(
                    "the API server at {url} sent nothing for {} s: check its load and the network",
                    time.as_secs()
                ),
                None,
            ),
            Failure::Refused(status) => (refused(&status), None),
            Failure::Unreadable(problem) => (
                format!(
                    "the answer of the API server at {url} cannot be read: {problem}; check whether a proxy changes it"
                ),
                None,
            ),
        };
        let object = object.to_owned();
        let error = StoreError { operation, object, advice, kind: StoreErrorKind::Unavailable, source };
        health.failed(Chain(&error).to_string());
        error
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

/// What to do about a connection that cannot be made or broke.
fn connection_advice(url: &str, error: &(dyn std::error::Error + 'static)) -> String {
    let is = |of: fn(&(dyn std::error::Error + 'static)) -> bool| with_causes(error).any(of);
    if let Some(advice) = limit_advice(error) {
        advice.to_owned()
    } else if is(|cause| cause.is::<LookupError>()) {
        format!("check the name in {url} and the DNS servers in /etc/resolv.conf")
    } else if is(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))) {
        format!(
            "the certificate of the API server at {url} is not trusted: check the certificate authority in the kubeconfig \
             or service account, and that the certificate is for this host"
        )
    } else {
        format!("check that the API server at {url} runs and is reachable")
    }
}

/// What the API server said, and what to do about it.
fn refused(status: &Status) -> String {
    let about = status.details.as_ref().map(|details| details.kind.as_str());
    let advice = match (status.code, about) {
        (401, _) => {
            "; the credentials are invalid or have expired: renew the kubeconfig or the service account's token"
        }
        (403, _) => {
            "; grant it in the ClusterRole of flannel's service account, as `flanneld manifest` shows"
        }
        (404, Some("pods")) => "; check that POD_NAME and POD_NAMESPACE are those of this pod",
        (404, _) => "; check that `kubectl get nodes` shows the node that NODE_NAME names",
        (429 | 500.., _) => "; the API server or its etcd is overloaded or fails: see their logs",
        _ => "",
    };
    format!("{}{advice}", status.message)
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::CertificateError;

    use super::*;

    #[test]
    fn a_connection_that_fails_is_told_with_what_to_change() {
        let lookup = LookupError::Failed("api".to_owned(), io::Error::other("no such name"));
        let untrusted = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for (error, told) in [
            (io::Error::from_raw_os_error(24), "raise the limit of open files"),
            (io::Error::other(lookup), "the DNS servers"),
            (io::Error::other(untrusted), "check the certificate authority"),
            (io::Error::from_raw_os_error(111), "https://api:6443 runs and is reachable"),
        ] {
            let text = connection_advice("https://api:6443", &error);
            assert!(text.contains(told), "{text}");
        }
    }
}
