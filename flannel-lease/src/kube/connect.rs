//! HTTP and TLS to the API server: `kube`'s own, except for client certificates.
//!
//! The client sends those as they are, since only the server judges them, and reads them again for
//! each new connection, since a kubelet or cert-manager replaces the files.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::AuthInfo;
use kube::{Client, Config};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret as _;
use tower::{BoxError, ServiceBuilder, service_fn};

use crate::dial::{resolve, server_name};
use crate::tls::{Pem, PemContent, PemError, Reread, client_identity};

/// A client for this configuration; connects to nothing.
pub(super) fn client(mut config: Config) -> Result<Client, BoxError> {
    if let Some(proxy) = &config.proxy_url {
        let host = proxy.host().unwrap_or_default();
        return Err(format!("a proxy is configured ({host}), which is not supported").into());
    }
    let identity = take_identity(&mut config.auth_info)?;
    let mut tls = config.rustls_client_config()?;
    if let Some((certificate, key)) = identity {
        let provider = Arc::clone(tls.crypto_provider());
        let identity = Reread::new(move || client_identity(&certificate, &key, &provider))?;
        tls.client_auth_cert_resolver = Arc::new(Identity(identity));
    }
    let mut http = HttpConnector::new_with_resolver(service_fn(resolve));
    http.enforce_http(false);
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if config.cluster_url.scheme_str() == Some("https") {
        let host =
            config.tls_server_name.as_deref().or_else(|| config.cluster_url.host()).unwrap_or_default();
        https = https.with_server_name_resolver(FixedServerNameResolver::new(server_name(host)?));
    }
    let https = https.enable_http1().wrap_connector(http);
    let mut connector = TimeoutConnector::new(https);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let http: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// Takes the client certificate and its key out of the configuration. `kube` handles those of an
/// exec plugin.
fn take_identity(user: &mut AuthInfo) -> Result<Option<(Pem, Pem)>, PemError> {
    let certificate =
        pem("client-certificate", user.client_certificate_data.take(), user.client_certificate.take())?;
    let data = user.client_key_data.take().map(|data| data.expose_secret().to_owned());
    let key = pem("client-key", data, user.client_key.take())?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(certificate), None) => Err(certificate.wrong("its key is missing: give client-key too", None)),
        (None, Some(key)) => Err(key.wrong("its certificate is missing: give client-certificate too", None)),
    }
}

/// One field of a kubeconfig's user: PEM in base64, else a file.
fn pem(name: &str, data: Option<String>, path: Option<String>) -> Result<Option<Pem>, PemError> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let mut pem = Pem { name: format!("{name}-data"), content: PemContent::Inline(Vec::new()) };
        let data: String = data.split_ascii_whitespace().collect();
        // The error would quote a byte of it.
        let text = STANDARD.decode(data).map_err(|_quoting| pem.wrong("it is not base64", None))?;
        pem.content = PemContent::Inline(text);
        return Ok(Some(pem));
    }
    let path = path.filter(|path| !path.is_empty());
    Ok(path.map(|path| Pem { name: name.to_owned(), content: PemContent::File(path.into()) }))
}

/// The client certificate as the files hold it now.
#[derive(Debug)]
struct Identity(Reread<CertifiedKey>);

impl ResolvesClientCert for Identity {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
