//! One member of the cluster, and how to connect to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::{ServiceExt as _, service_fn};

use crate::StoreError;
use crate::resolver::{Resolver, server_name};
use crate::tls::Reread;

use super::options::unusable;

/// Longest time for one connection to come about, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of it a lookup of the name may take, so that the error says that the name is at fault.
const RESOLVE_TIMEOUT: Duration = Duration::from_millis(1500);

/// TLS settings, read from the files for each connection.
pub(super) type Tls = Arc<Reread<ClientConfig>>;

/// A member, and how to connect to it.
#[derive(Debug)]
pub(super) struct Member {
    /// As the operator wrote it.
    pub(super) url: String,
    /// Whether it is shown a client certificate.
    pub(super) shows_certificate: bool,
    uri: Uri,
    endpoint: Endpoint,
    tls: Option<(ServerName<'static>, Tls)>,
    resolver: Resolver,
}

impl Member {
    /// Checks the URL of a member. `tls` is `None` for plain http.
    ///
    /// # Errors
    /// The URL is malformed, or its host is no name that a certificate can be for.
    pub(super) fn new(
        url: &str,
        authority: &str,
        tls: Option<Tls>,
        user_agent: &str,
    ) -> Result<Self, StoreError> {
        const FORM: &str = "it is not the URL of a member, such as https://192.0.2.1:2379";
        let wrong = |source| unusable(&format!("--etcd-endpoints {url}"), FORM, source);
        let parse = |scheme| {
            format!("{scheme}://{authority}").parse::<Uri>().map_err(|error| wrong(Some(error.into())))
        };
        let uri = parse(if tls.is_some() { "https" } else { "http" })?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong(None))?;
        let tls = match tls {
            Some(tls) => {
                let name = server_name(host).map_err(|error| wrong(Some(error.into())))?;
                Some((name, tls))
            }
            None => None,
        };
        // tonic dials plain http: its own TLS would parse the client certificate and keep the files of the
        // first connection.
        let endpoint = Endpoint::from(parse("http")?)
            .origin(uri.clone())
            .user_agent(user_agent)
            .map_err(|error| unusable("the user agent", "it is no header's value", Some(error.into())))?
            .connect_timeout(CONNECT_TIMEOUT)
            // A cut cable is noticed although nothing is being asked.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        let shows_certificate =
            tls.as_ref().is_some_and(|(_, tls)| tls.get().client_auth_cert_resolver.has_certs());
        let resolver = Resolver::new(RESOLVE_TIMEOUT);
        Ok(Self { url: url.to_owned(), shows_certificate, uri, endpoint, tls, resolver })
    }

    /// Whether connections are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects. The channel reconnects by itself, and then reads the TLS files again.
    ///
    /// # Errors
    /// Name resolution, TCP or TLS failed.
    pub(super) async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        let (uri, tls, resolver) = (self.uri.clone(), self.tls.clone(), self.resolver.clone());
        let connector = service_fn(move |_same: Uri| dial(uri.clone(), tls.clone(), resolver.clone()));
        self.endpoint.connect_with_connector(connector).await
    }

    /// Why the member closes encrypted connections, if it says so. With TLS 1.3 the server judges the
    /// client certificate after the handshake, and the HTTP client drops the alert.
    pub(super) async fn tls_refusal(&self) -> Option<io::Error> {
        self.tls.as_ref()?;
        let stream = dial(self.uri.clone(), self.tls.clone(), self.resolver.clone()).await.ok()?;
        TokioIo::new(stream).read_u8().await.err()
    }
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

async fn dial(
    uri: Uri,
    tls: Option<(ServerName<'static>, Tls)>,
    resolver: Resolver,
) -> Result<Stream, Box<dyn std::error::Error + Send + Sync>> {
    let mut tcp = HttpConnector::new_with_resolver(service_fn(move |name| resolver.clone().resolve(name)));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    match tls {
        None => Ok(MaybeHttpsStream::Http(tcp.oneshot(uri).await?)),
        Some((name, tls)) => {
            let name = Arc::new(FixedServerNameResolver::new(name));
            HttpsConnector::new(tcp, tls.get(), true, name).oneshot(uri).await
        }
    }
}
