//! HTTP and TLS to the API server: `kube`'s own, except for client certificates.
//!
//! The client sends those as they are, since only the server judges them, and reads them again for
//! each new connection, since a kubelet or cert-manager replaces the files.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::rt::{Read, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::AuthInfo;
use kube::{Client, Config};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret as _;
use tower::{BoxError, Service, ServiceBuilder, service_fn};

use crate::resolver::{Resolver, host_of, server_name};
use crate::tls::{Pem, PemContent, PemError, Reread, client_identity};

/// Longest wait of one connection for a lookup of the server's name: less than a connection may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(4);

/// The proxy to the API server: the kubeconfig's, otherwise the one in `HTTPS_PROXY`. None if `NO_PROXY` names the
/// server, or if the server is this host. `proxies` are those that the kubeconfig names, `environment` has the variables.
pub(super) fn proxy(config: &Config, proxies: &[Uri], environment: &Matcher) -> Option<Intercept> {
    // `kube` takes it from either, and compares NO_PROXY with the proxy's own address.
    let chosen = config.proxy_url.as_ref()?;
    if proxies.contains(chosen) {
        return Matcher::builder().all(chosen.to_string()).build().intercept(&config.cluster_url);
    }
    let host = host_of(config.cluster_url.host()?);
    let is_this_host =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_this_host { None } else { environment.intercept(&config.cluster_url) }
}

/// A client for this configuration; connects to nothing.
pub(super) fn client(config: Config, proxy: Option<Intercept>) -> Result<Client, BoxError> {
    let resolver = Resolver::new(RESOLVE_TIMEOUT);
    let mut http = HttpConnector::new_with_resolver(service_fn(move |name| resolver.clone().resolve(name)));
    http.enforce_http(false);
    let Some(proxy) = proxy else { return client_over(http, config) };
    if proxy.uri().scheme_str() != Some("http") {
        let host = proxy.uri().host().unwrap_or_default();
        return Err(format!(
            "the proxy at {host} is not an HTTP proxy: name it by http://HOST:PORT in HTTPS_PROXY or proxy-url, or name \
             the API server in NO_PROXY"
        )
        .into());
    }
    let mut tunnel = Tunnel::new(proxy.uri().clone(), http);
    if let Some(credentials) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(credentials.clone());
    }
    client_over(tunnel, config)
}

fn client_over<C>(connector: C, mut config: Config) -> Result<Client, BoxError>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let identity = take_identity(&mut config.auth_info)?;
    let mut tls = config.rustls_client_config()?;
    if let Some((certificate, key)) = identity {
        let provider = Arc::clone(tls.crypto_provider());
        let identity = Reread::new(move || client_identity(&certificate, &key, &provider))?;
        tls.client_auth_cert_resolver = Arc::new(Identity(identity));
    }
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if config.cluster_url.scheme_str() == Some("https") {
        let host =
            config.tls_server_name.as_deref().or_else(|| config.cluster_url.host()).unwrap_or_default();
        https = https.with_server_name_resolver(FixedServerNameResolver::new(server_name(host)?));
    }
    let https = https.enable_http1().wrap_connector(connector);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfigs_proxy_counts_before_the_environment_and_no_proxy_before_both_for_the_latter() {
        let environment =
            Matcher::builder().https("http://environment:3128").no("10.0.0.0/8,.cluster.local").build();
        let chosen = |server: &str, proxy: Option<&'static str>, named: &[Uri]| {
            let mut config = Config::new(server.parse().unwrap());
            config.proxy_url = proxy.map(Uri::from_static);
            super::proxy(&config, named, &environment).map(|proxy| proxy.uri().to_string())
        };
        let environments = Some("http://environment:3128");
        for (server, through) in [
            ("https://192.0.2.1:6443", Some("http://environment:3128/")),
            ("https://10.0.0.1:6443", None),
            ("https://api.cluster.local", None),
            ("https://localhost:6443", None),
            ("https://127.0.0.1:6443", None),
            ("https://[::1]:6443", None),
            ("http://192.0.2.1:8080", None),
        ] {
            assert_eq!(chosen(server, environments, &[]).as_deref(), through, "{server}");
            assert_eq!(chosen(server, None, &[]), None, "{server}");
        }
        let named = "http://named:3128";
        let proxy = chosen("https://10.0.0.1:6443", Some(named), &[Uri::from_static(named)]);
        assert_eq!(proxy.as_deref(), Some("http://named:3128/"));
    }
}
