//! From `--lease-db`, `--etcd-*` and `--kube-subnet-mgr` to a store that can be used.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "kubernetes")]
use tokio::sync::OnceCell;

#[cfg(not(all(feature = "etcd", feature = "kubernetes")))]
use flannel_lease::StoreErrorKind;
#[cfg(feature = "etcd")]
use flannel_lease::etcd::{EtcdOptions, EtcdStore};
#[cfg(feature = "kubernetes")]
use flannel_lease::kube::{KubeOptions, KubeStore};
use flannel_lease::sqlite::SqliteStore;
use flannel_lease::{LeaseKey, LeaseRequest, LeaseStore, Stack, StoreError, Timing};

use crate::config::Store;

/// The store that was asked for, checked but not yet written to.
#[derive(Debug)]
pub enum ConfiguredStore {
    /// etcd, which holds the cluster's network configuration as well.
    #[cfg(feature = "etcd")]
    Etcd(Arc<EtcdStore>),
    /// The nodes of a Kubernetes cluster, and the store once it is open.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<KubeOptions>, OnceCell<Arc<KubeStore>>),
    /// A file, made by [`ConfiguredStore::open`] if there is none.
    Sqlite(PathBuf, Timing),
}

impl ConfiguredStore {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// A URL is malformed, a TLS file cannot be used, or this program was built without that store.
    pub fn new(store: &Store) -> Result<Self, StoreError> {
        match store {
            Store::Sqlite { path, renew_margin } => {
                let timing = Timing { renew_margin: *renew_margin, ..Timing::default() };
                Ok(Self::Sqlite(path.clone(), timing))
            }
            #[cfg(feature = "etcd")]
            Store::Etcd(etcd) => {
                let (key_file, cert_file) = etcd.identity.clone().unzip();
                let options = EtcdOptions {
                    prefix: etcd.prefix.clone(),
                    ca_file: etcd.ca.clone(),
                    cert_file,
                    key_file,
                    username: etcd.username.clone(),
                    password: etcd.password.as_ref().map(|password| password.reveal().to_owned()),
                    user_agent: user_agent(),
                    ..EtcdOptions::new(etcd.endpoints.clone())
                };
                let timing = Timing { renew_margin: etcd.renew_margin, ..Timing::default() };
                EtcdStore::new(&options, timing).map(|store| Self::Etcd(Arc::new(store)))
            }
            #[cfg(not(feature = "etcd"))]
            Store::Etcd(_) => Err(missing("etcd", "build with the feature `etcd`, or use --lease-db PATH")),
            #[cfg(feature = "kubernetes")]
            Store::Kubernetes(asked) => {
                let options = KubeOptions {
                    api_url: asked.api_url.clone(),
                    kubeconfig: asked.kubeconfig.clone(),
                    annotation_prefix: asked.annotation_prefix.clone(),
                    set_network_unavailable: asked.set_network_unavailable,
                    node_name: asked.node_name.clone(),
                    pod_name: asked.pod_name.clone(),
                    pod_namespace: asked.pod_namespace.clone(),
                    user_agent: user_agent(),
                };
                Ok(Self::Kubernetes(Box::new(options), OnceCell::new()))
            }
            #[cfg(not(feature = "kubernetes"))]
            Store::Kubernetes(_) => Err(missing("Kubernetes", "build with the feature `kubernetes`")),
        }
    }

    /// The text of the network configuration, if the store is where it is kept; `None` if it is in a file.
    ///
    /// # Errors
    /// The store has none, or cannot be reached: try again.
    #[cfg_attr(
        not(feature = "etcd"),
        expect(clippy::unused_async, reason = "only shared stores have to be asked")
    )]
    pub async fn net_conf(&self) -> Result<Option<String>, StoreError> {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(store) => store.config().await.map(Some),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(..) => Ok(None),
            Self::Sqlite(..) => Ok(None),
        }
    }

    /// The public addresses that the store's operator gave this node; they count as `--public-ip` and `--public-ipv6`.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(clippy::unused_async, unused_variables, reason = "only Kubernetes has to be asked")
    )]
    pub async fn node_public(
        &self,
        stack: Stack,
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), StoreError> {
        match self {
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options, store) => kube(options, store, stack).await?.node_public().await,
            _ => Ok((None, None)),
        }
    }

    /// Opens the store for leases of these families.
    ///
    /// # Errors
    /// A lease file cannot be made or used; a kubeconfig cannot be used.
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(unused_variables, reason = "only Kubernetes tells families apart")
    )]
    pub async fn open(&self, stack: Stack) -> Result<Arc<dyn LeaseStore>, StoreError> {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(store) => {
                let store: Arc<dyn LeaseStore> = Arc::<EtcdStore>::clone(store);
                Ok(store)
            }
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options, store) => {
                let store: Arc<dyn LeaseStore> = Arc::<KubeStore>::clone(kube(options, store, stack).await?);
                Ok(store)
            }
            Self::Sqlite(path, timing) => Ok(Arc::new(SqliteStore::open(path, *timing).await?)),
        }
    }

    /// The lease that this node would get, and the annotations that would be written to it, where the store knows them
    /// beforehand: Kubernetes.
    ///
    /// # Errors
    /// As [`Self::open`]; the node has no podCIDR yet.
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(clippy::unused_async, unused_variables, reason = "only Kubernetes has to be asked")
    )]
    pub async fn predict_lease(
        &self,
        stack: Stack,
        request: &LeaseRequest,
    ) -> Result<Option<(LeaseKey, BTreeMap<String, String>)>, StoreError> {
        match self {
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(options, store) => {
                kube(options, store, stack).await?.predict_lease(request).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What the log calls it; upstream's words where it has some.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => "Etcd Local Manager".to_owned(),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(_, store) => {
                let name = store.get().map(|store| store.node_name());
                format!("Kubernetes Subnet Manager - {}", name.unwrap_or_default())
            }
            Self::Sqlite(path, _) => format!("Lease File {}", path.display()),
        }
    }
}

#[cfg(feature = "kubernetes")]
async fn kube<'a>(
    options: &KubeOptions,
    store: &'a OnceCell<Arc<KubeStore>>,
    stack: Stack,
) -> Result<&'a Arc<KubeStore>, StoreError> {
    store.get_or_try_init(|| async { KubeStore::open(options, stack).await.map(Arc::new) }).await
}

#[cfg(not(all(feature = "etcd", feature = "kubernetes")))]
fn missing(object: &str, advice: &str) -> StoreError {
    StoreError {
        operation: "use",
        object: format!("{object} as lease store"),
        advice: format!("this flanneld was built without it; {advice}"),
        kind: StoreErrorKind::Unusable,
        source: None,
    }
}

/// `User-Agent` in the form of Go's client for Kubernetes: `flanneld/0.1.0 (linux/amd64)`.
#[cfg(any(feature = "etcd", feature = "kubernetes"))]
fn user_agent() -> String {
    let architecture = match (std::env::consts::ARCH, cfg!(target_endian = "little")) {
        ("x86_64", _) => "amd64",
        ("x86", _) => "386",
        ("aarch64", _) => "arm64",
        ("powerpc64", true) => "ppc64le",
        ("powerpc64", false) => "ppc64",
        ("loongarch64", _) => "loong64",
        (same, _) => same,
    };
    format!("flanneld/{} ({}/{architecture})", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}
