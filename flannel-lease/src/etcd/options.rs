//! Where the etcd cluster is and how to talk to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use crate::tls::{Pem, PemContent, PemError, Reread, client_identity};
use crate::{StoreError, StoreErrorKind};

use super::member::{Member, Tls};

/// How to reach etcd. Error messages name flanneld's flag for each field.
#[derive(Clone, Eq, PartialEq)]
pub struct EtcdOptions {
    /// `--etcd-endpoints`: URLs of the members. `https` selects TLS; a URL without a scheme uses TLS if a TLS file is
    /// set.
    pub endpoints: Vec<String>,
    /// `--etcd-prefix`: prefix of all keys. Default: `/coreos.com/network`.
    pub prefix: String,
    /// `--etcd-cafile`: authorities to trust, PEM. Default: those that the host trusts. This file and
    /// the next two are read for each new connection, and only if a member has TLS.
    pub ca_file: Option<PathBuf>,
    /// `--etcd-certfile`: the client certificate, PEM. Only etcd judges it.
    pub cert_file: Option<PathBuf>,
    /// `--etcd-keyfile`: the certificate's key, PEM.
    pub key_file: Option<PathBuf>,
    /// `--etcd-username`. Default: no authentication.
    pub username: Option<String>,
    /// `--etcd-password`. No log or error shows it.
    pub password: Option<String>,
    /// `User-Agent` of every call. Default: `flannel-lease/VERSION`.
    pub user_agent: String,
}

impl EtcdOptions {
    /// Options for these members, with upstream's defaults for everything else.
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
            user_agent: concat!("flannel-lease/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Checks the URLs and, if a member has TLS, the files; connects to nothing.
    pub(super) fn members(&self) -> Result<Vec<Arc<Member>>, StoreError> {
        if self.endpoints.is_empty() {
            return Err(unusable("--etcd-endpoints", "it is empty; name at least one member", None));
        }
        let any_file = self.ca_file.is_some() || self.cert_file.is_some() || self.key_file.is_some();
        let mut tls: Option<Tls> = None;
        let mut members = Vec::new();
        for url in self.endpoints.iter().map(|url| url.trim()) {
            let (scheme, authority) =
                url.split_once("://").map_or((None, url), |(scheme, rest)| (Some(scheme), rest));
            let encrypted = match scheme.map(str::to_ascii_lowercase).as_deref() {
                Some("https") => true,
                Some("http") => false,
                None => any_file,
                Some(_) => {
                    let advice = "its scheme is neither http nor https";
                    return Err(unusable(&format!("--etcd-endpoints {url}"), advice, None));
                }
            };
            let tls = match (encrypted, &tls) {
                (true, None) => Some(Arc::clone(tls.insert(self.tls()?))),
                (true, Some(tls)) => Some(Arc::clone(tls)),
                (false, _) => None,
            };
            members.push(Arc::new(Member::new(url, authority, tls, &self.user_agent)?));
        }
        Ok(members)
    }

    fn tls(&self) -> Result<Tls, StoreError> {
        let pem = |flag: &str, path: &PathBuf| Pem {
            name: flag.to_owned(),
            content: PemContent::File(path.clone()),
        };
        let authorities = self.ca_file.as_ref().map(|path| pem("--etcd-cafile", path));
        let identity = match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => {
                Some((pem("--etcd-certfile", certificate), pem("--etcd-keyfile", key)))
            }
            (None, None) => None,
            (Some(_), None) => return Err(unusable("--etcd-certfile", "give --etcd-keyfile too", None)),
            (None, Some(_)) => return Err(unusable("--etcd-keyfile", "give --etcd-certfile too", None)),
        };
        let tls = Reread::new(move || client_config(authorities.as_ref(), identity.as_ref()));
        tls.map(Arc::new).map_err(|PemError { object, problem, source }| unusable(&object, problem, source))
    }
}

/// TLS settings made from what the files hold now.
fn client_config(authorities: Option<&Pem>, identity: Option<&(Pem, Pem)>) -> Result<ClientConfig, PemError> {
    let provider =
        CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
    let wrong =
        |object: &str, problem, source| PemError { object: object.to_owned(), problem, source: Some(source) };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("TLS", "this build has none that is safe", error.into()))?;
    let builder = match authorities {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in pem.certificates()? {
                let added = roots.add(certificate);
                added.map_err(|error| {
                    pem.wrong("it holds a certificate that is malformed", Some(error.into()))
                })?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_native_roots().map_err(|error| {
            wrong("--etcd-cafile", "it is not given, and this host has no authorities to trust", error.into())
        })?,
    };
    let mut config = match identity {
        Some((certificate, key)) => {
            let identity = client_identity(certificate, key, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoints, prefix, ca_file, cert_file, key_file, username, password, user_agent } = self;
        f.debug_struct("EtcdOptions")
            .field("endpoints", endpoints)
            .field("prefix", prefix)
            .field("ca_file", ca_file)
            .field("cert_file", cert_file)
            .field("key_file", key_file)
            .field("username", username)
            .field("password", &password.as_ref().map(|_| "(hidden)"))
            .field("user_agent", user_agent)
            .finish()
    }
}

/// An option that cannot be used.
pub(super) fn unusable(
    object: &str,
    advice: &str,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError {
        operation: "use",
        object: object.to_owned(),
        advice: advice.to_owned(),
        kind: StoreErrorKind::Unusable,
        source,
    }
}
