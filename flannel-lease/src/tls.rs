//! Client certificates, their keys, and authorities: read again for each new connection.
//!
//! Only the server judges a client certificate, so the client sends it as it is. Certificates made
//! by hand often have X.509 version 1, which rustls cannot parse and therefore refuses to send.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use tracing::warn;

use crate::{Chain, file};

/// PEM text, and what messages call it.
#[derive(Clone)]
pub(crate) struct Pem {
    /// Such as `--etcd-cafile`.
    pub(crate) name: String,
    pub(crate) content: PemContent,
}

/// Where PEM text is.
#[derive(Clone)]
pub(crate) enum PemContent {
    File(PathBuf),
    /// Within the configuration.
    #[cfg(feature = "kubernetes")]
    Inline(Vec<u8>),
}

/// PEM text that cannot be used. The message quotes nothing of it.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {problem}")]
pub(crate) struct PemError {
    /// Which one.
    pub(crate) object: String,
    /// What is wrong.
    pub(crate) problem: &'static str,
    #[source]
    pub(crate) source: Option<Box<dyn Error + Send + Sync>>,
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, PemError> {
        match &self.content {
            PemContent::File(path) => file::read(path).map_err(|error| {
                self.wrong("the file cannot be read; check its path and permissions", Some(error.into()))
            }),
            #[cfg(feature = "kubernetes")]
            PemContent::Inline(text) => Ok(text.clone()),
        }
    }

    /// Its certificates; at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, PemError> {
        let certificates: Result<Vec<_>, pem::Error> =
            CertificateDer::pem_slice_iter(&self.read()?).collect();
        let certificates =
            certificates.map_err(|error| self.wrong("it is not PEM text", Some(error.into())))?;
        if certificates.is_empty() {
            return Err(self.wrong("it holds no certificate in PEM form", None));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, PemError> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|error| match error {
            pem::Error::NoItemsFound => self.wrong("it holds no private key in PEM form", None),
            other => self.wrong("it is not PEM text", Some(other.into())),
        })
    }

    pub(crate) fn wrong(
        &self,
        problem: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> PemError {
        PemError { object: self.to_string(), problem, source }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            PemContent::File(path) => write!(f, "{} `{}`", self.name, path.display()),
            #[cfg(feature = "kubernetes")]
            PemContent::Inline(_) => f.write_str(&self.name),
        }
    }
}

/// Reads a client certificate, with those of intermediate authorities after it, and its key.
pub(crate) fn client_identity(
    certificate: &Pem,
    key: &Pem,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, PemError> {
    let chain = certificate.certificates()?;
    let signer = provider.key_provider.load_private_key(key.private_key()?);
    let signer =
        signer.map_err(|error| key.wrong("this kind of private key is not supported", Some(error.into())))?;
    let identity = CertifiedKey::new(chain, signer);
    match identity.keys_match() {
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(key.wrong("this key does not belong to the certificate", None))
        }
        // Also if rustls cannot parse the certificate: version 1, or an unknown critical extension.
        _ => Ok(identity),
    }
}

/// A value made from files, made again each time it is needed. While the files cannot be used, for
/// example because they are being replaced, the last value stays.
pub(crate) struct Reread<T> {
    make: Box<dyn Fn() -> Result<T, PemError> + Send + Sync>,
    last: Mutex<(Arc<T>, Option<String>)>,
}

impl<T> Reread<T> {
    /// # Errors
    /// The files cannot be used now.
    pub(crate) fn new(
        make: impl Fn() -> Result<T, PemError> + Send + Sync + 'static,
    ) -> Result<Self, PemError> {
        let first = Arc::new(make()?);
        Ok(Self { make: Box::new(make), last: Mutex::new((first, None)) })
    }

    /// The value of now.
    pub(crate) fn get(&self) -> Arc<T> {
        let made = (self.make)();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match made {
            Ok(value) => *last = (Arc::new(value), None),
            Err(error) => {
                let problem = Chain(&error).to_string();
                if last.1.as_ref() != Some(&problem) {
                    warn!(
                        "a TLS file cannot be used: new connections to the lease store use what it held before and read it again \
                         each time; traffic is not affected. Correct it before the old certificate expires: {problem}"
                    );
                    last.1 = Some(problem);
                }
            }
        }
        Arc::clone(&last.0)
    }
}

impl<T> fmt::Debug for Reread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reread").finish_non_exhaustive()
    }
}
