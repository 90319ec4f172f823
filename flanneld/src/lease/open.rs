//! From `--lease-db`, `--etcd-*` and `--kube-subnet-mgr` to a store that can be used.

use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "etcd")]
use super::etcd::{EtcdOptions, EtcdStore};
use super::sqlite::SqliteStore;
use super::{LeaseStore, StoreError, StoreErrorKind, Timing};
use crate::config::Store;

/// The store that was asked for, checked but not yet written to.
#[derive(Debug)]
pub enum ConfiguredStore {
    /// etcd, which holds the cluster's network configuration as well.
    #[cfg(feature = "etcd")]
    Etcd(Arc<EtcdStore>),
    /// A file, made by [`ConfiguredStore::open`] if there is none.
    Sqlite(PathBuf),
}

impl ConfiguredStore {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// A URL is malformed, a TLS file cannot be used, or this program was built without that store.
    pub fn new(store: &Store) -> Result<Self, StoreError> {
        match store {
            Store::Sqlite { path } => Ok(Self::Sqlite(path.clone())),
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
                    ..EtcdOptions::new(etcd.endpoints.clone())
                };
                let timing = Timing { renew_margin: etcd.renew_margin, ..Timing::default() };
                EtcdStore::new(&options, timing).map(|store| Self::Etcd(Arc::new(store)))
            }
            #[cfg(not(feature = "etcd"))]
            Store::Etcd(_) => Err(missing("etcd", "build with the feature `etcd`, or use --lease-db PATH")),
            Store::Kubernetes(_) => Err(missing("Kubernetes", "use --etcd-endpoints or --lease-db PATH")),
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
            Self::Sqlite(_) => Ok(None),
        }
    }

    /// Opens the store for leasing.
    ///
    /// # Errors
    /// A lease file cannot be made or used.
    pub async fn open(&self) -> Result<Arc<dyn LeaseStore>, StoreError> {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(store) => {
                let store: Arc<dyn LeaseStore> = Arc::<EtcdStore>::clone(store);
                Ok(store)
            }
            Self::Sqlite(path) => Ok(Arc::new(SqliteStore::open(path, Timing::default()).await?)),
        }
    }

    /// What the log calls it; upstream's words where it has some.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => "Etcd Local Manager".to_owned(),
            Self::Sqlite(path) => format!("Lease File {}", path.display()),
        }
    }
}

fn missing(object: &str, advice: &str) -> StoreError {
    StoreError {
        operation: "use",
        object: format!("{object} as lease store"),
        advice: format!("this flanneld was built without it; {advice}"),
        kind: StoreErrorKind::Unusable,
        source: None,
    }
}
