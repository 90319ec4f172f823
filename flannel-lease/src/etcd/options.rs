//! Where the etcd cluster is and how to talk to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::file;
use crate::{StoreError, StoreErrorKind};

/// The `--etcd-*` flags.
#[derive(Clone, Eq, PartialEq)]
pub struct EtcdOptions {
    /// `--etcd-endpoints`: URLs of the members. `https` means TLS; without a scheme, TLS if any file is given.
    pub endpoints: Vec<String>,
    /// `--etcd-prefix`: what all keys start with. Upstream's default: `/coreos.com/network`.
    pub prefix: String,
    /// `--etcd-cafile`: whom to trust, PEM. Default: what the host trusts.
    pub ca_file: Option<PathBuf>,
    /// `--etcd-certfile`: who we are, PEM.
    pub cert_file: Option<PathBuf>,
    /// `--etcd-keyfile`: the certificate's key, PEM.
    pub key_file: Option<PathBuf>,
    /// `--etcd-username`
    pub username: Option<String>,
    /// `--etcd-password`; never shown.
    pub password: Option<String>,
}

impl EtcdOptions {
    /// Options with upstream's defaults for everything else.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            prefix: "/coreos.com/network".to_owned(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            username: None,
            password: None,
        }
    }

    /// Reads the files and checks the URLs; connects to nothing.
    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, StoreError> {
        let tls = self.tls()?;
        if self.endpoints.is_empty() {
            return Err(wrong("--etcd-endpoints", "it is empty; name at least one member", None));
        }
        self.endpoints.iter().map(|url| self.endpoint(url.trim(), tls.as_ref())).collect()
    }

    fn endpoint(&self, url: &str, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, StoreError> {
        let whole = match (url.contains("://"), tls) {
            (true, _) => url.to_owned(),
            (false, Some(_)) => format!("https://{url}"),
            (false, None) => format!("http://{url}"),
        };
        let invalid = |error: tonic::transport::Error| {
            let advice = "it is no member's URL such as https://192.0.2.1:2379, or its TLS files do not fit";
            wrong(&format!("--etcd-endpoints {url}"), advice, Some(Box::new(error)))
        };
        let mut endpoint = Endpoint::from_shared(whole.clone())
            .map_err(invalid)?
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            // A cut cable is noticed although nothing is being asked.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        if whole.starts_with("https://") {
            let tls = tls.cloned().unwrap_or_else(|| ClientTlsConfig::new().with_native_roots());
            endpoint = endpoint.tls_config(tls).map_err(invalid)?;
        } else if !whole.starts_with("http://") {
            return Err(wrong(
                &format!("--etcd-endpoints {url}"),
                "its scheme is neither http nor https",
                None,
            ));
        }
        Ok(endpoint)
    }

    fn tls(&self) -> Result<Option<ClientTlsConfig>, StoreError> {
        if self.ca_file.is_none() && self.cert_file.is_none() && self.key_file.is_none() {
            return Ok(None);
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read("--etcd-cafile", path)?)),
            None => tls.with_native_roots(),
        };
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let identity =
                    Identity::from_pem(read("--etcd-certfile", cert)?, read("--etcd-keyfile", key)?);
                tls = tls.identity(identity);
            }
            (None, None) => {}
            (Some(_), None) => return Err(wrong("--etcd-certfile", "give --etcd-keyfile too", None)),
            (None, Some(_)) => return Err(wrong("--etcd-keyfile", "give --etcd-certfile too", None)),
        }
        Ok(Some(tls))
    }
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoints, prefix, ca_file, cert_file, key_file, username, password } = self;
        f.debug_struct("EtcdOptions")
            .field("endpoints", endpoints)
            .field("prefix", prefix)
            .field("ca_file", ca_file)
            .field("cert_file", cert_file)
            .field("key_file", key_file)
            .field("username", username)
            .field("password", &password.as_ref().map(|_| "(hidden)"))
            .finish()
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, StoreError> {
    file::read(path).map_err(|error| {
        wrong(&format!("{flag} `{}`", path.display()), "the file cannot be read", Some(Box::new(error)))
    })
}

fn wrong(object: &str, advice: &str, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError {
        operation: "use",
        object: object.to_owned(),
        advice: advice.to_owned(),
        kind: StoreErrorKind::Unusable,
        source,
    }
}
