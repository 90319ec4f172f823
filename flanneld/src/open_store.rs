//! From `--lease-db`, `--etcd-*` and `--kube-subnet-mgr` to a store that can be used.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OnceCell;

use flannel_lease::etcd::EtcdStore;
use flannel_lease::kube::{KubeOptions, KubeStore};
use flannel_lease::sqlite::SqliteStore;
use flannel_lease::{LeaseKey, LeaseRequest, LeaseStore, Stack, StoreError, Timing};

use crate::config::Store;

/// The store that was asked for, checked but not yet written to.
#[derive(Debug)]
pub enum ConfiguredStore {
    /// etcd, which holds the cluster's network configuration as well.
    Etcd(Arc<EtcdStore>),
    /// The nodes of a Kubernetes cluster, and the store once it is open.
    Kubernetes(Box<KubeOptions>, OnceCell<Arc<KubeStore>>),
    /// A file, made by [`ConfiguredStore::open`] if there is none.
    Sqlite(PathBuf, Timing),
}

impl ConfiguredStore {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// A URL is malformed, or a TLS file cannot be used.
    pub fn new(store: &Store) -> Result<Self, StoreError> {
        match store {
            Store::Sqlite { path, renew_margin } => {
                let timing = Timing { renew_margin: *renew_margin, ..Timing::default() };
                Ok(Self::Sqlite(path.clone(), timing))
            }
            Store::Etcd { options, renew_margin } => {
                let timing = Timing { renew_margin: *renew_margin, ..Timing::default() };
                EtcdStore::new(options, timing).map(|store| Self::Etcd(Arc::new(store)))
            }
            Store::Kubernetes(options) => Ok(Self::Kubernetes(Box::new(options.clone()), OnceCell::new())),
        }
    }

    /// The text of the network configuration, if the store is where it is kept; `None` if it is in a file.
    ///
    /// # Errors
    /// The store has none, or cannot be reached: try again.
    pub async fn net_conf(&self) -> Result<Option<String>, StoreError> {
        match self {
            Self::Etcd(store) => store.config().await.map(Some),
            Self::Kubernetes(..) | Self::Sqlite(..) => Ok(None),
        }
    }

    /// The public addresses that the store's operator gave this node; they count as `--public-ip` and `--public-ipv6`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn node_public(
        &self,
        stack: Stack,
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), StoreError> {
        match self {
            Self::Kubernetes(options, store) => kube(options, store, stack).await?.node_public().await,
            _ => Ok((None, None)),
        }
    }

    /// Opens the store for leases of these families.
    ///
    /// # Errors
    /// A lease file cannot be made or used; a kubeconfig cannot be used.
    pub async fn open(&self, stack: Stack) -> Result<Arc<dyn LeaseStore>, StoreError> {
        match self {
            Self::Etcd(store) => {
                let store: Arc<dyn LeaseStore> = Arc::<EtcdStore>::clone(store);
                Ok(store)
            }
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
    pub async fn predict_lease(
        &self,
        stack: Stack,
        request: &LeaseRequest,
    ) -> Result<Option<(LeaseKey, BTreeMap<String, String>)>, StoreError> {
        match self {
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
            Self::Etcd(_) => "Etcd Local Manager".to_owned(),
            Self::Kubernetes(_, store) => {
                let name = store.get().map(|store| store.node_name());
                format!("Kubernetes Subnet Manager - {}", name.unwrap_or_default())
            }
            Self::Sqlite(path, _) => format!("Lease File {}", path.display()),
        }
    }
}

async fn kube<'a>(
    options: &KubeOptions,
    store: &'a OnceCell<Arc<KubeStore>>,
    stack: Stack,
) -> Result<&'a Arc<KubeStore>, StoreError> {
    store.get_or_try_init(|| async { KubeStore::open(options, stack).await.map(Arc::new) }).await
}
