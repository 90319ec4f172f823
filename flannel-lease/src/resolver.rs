//! From a URL's host to addresses, and to the name that a certificate must have.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

type Addresses = Vec<SocketAddr>;
/// A host and the lookup of its addresses.
type Lookup = (String, JoinHandle<io::Result<Addresses>>);

/// A host whose addresses are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("cannot resolve the host name `{0}`")]
    Failed(String, #[source] io::Error),
    #[error("no DNS server answered for the name `{0}` in {1:?}")]
    Late(String, Duration),
}

/// Looks up the addresses of hosts. A lookup that takes longer than one connection may wait goes on, and the next
/// connection gets its result: while the first of two DNS servers is down, every lookup takes five seconds
/// (`timeout` in resolv.conf(5)).
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    timeout: Duration,
    running: Arc<Mutex<Option<Lookup>>>,
}

impl Resolver {
    /// A connection waits up to `timeout` for a lookup.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, running: Arc::default() }
    }

    /// The addresses of a host. A link-local address may have a zone, `fe80::1%eth0`; in a URL that is
    /// `%25eth0` (RFC 6874).
    pub(crate) async fn resolve(self, name: Name) -> Result<std::vec::IntoIter<SocketAddr>, LookupError> {
        let host = host_of(name.as_str()).replacen("%25", "%", 1);
        let lookup = |host| async move { Ok(lookup_host((host, 0)).await?.collect()) };
        Ok(self.wait(host, lookup).await?.into_iter())
    }

    async fn wait<F>(&self, host: String, lookup: impl Fn(String) -> F) -> Result<Addresses, LookupError>
    where
        F: Future<Output = io::Result<Addresses>> + Send + 'static,
    {
        let mut running = self.running.lock().await;
        if running.as_ref().is_some_and(|(of, _)| *of != host) {
            *running = None;
        }
        let (_, task) = running.get_or_insert_with(|| (host.clone(), tokio::spawn(lookup(host.clone()))));
        let Ok(found) = timeout(self.timeout, task).await else {
            return Err(LookupError::Late(host, self.timeout));
        };
        *running = None;
        found.map_err(io::Error::from).flatten().map_err(|error| LookupError::Failed(host, error))
    }
}

/// The name that a server's certificate must be for. An IPv6 address loses its zone, and an
/// IPv4-mapped one is its IPv4 address.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    let host = host_of(host);
    let host = host.split_once('%').map_or(host, |(address, _zone)| address);
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical().into()),
        Err(_name) => ServerName::try_from(host.to_owned()),
    }
}

/// The host of a URL without the brackets around an IPv6 address.
pub(crate) fn host_of(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_local_address_may_have_a_zone() {
        let uri: hyper::Uri = "https://[fe80::1%25lo]:2379/".parse().unwrap();
        let host = uri.host().unwrap();
        let resolver = Resolver::new(Duration::from_secs(5));
        let addresses: Vec<_> = resolver.resolve(host.parse().unwrap()).await.unwrap().collect();
        let [SocketAddr::V6(address)] = addresses.as_slice() else { panic!("{addresses:?}") };
        assert_eq!((address.ip().to_string().as_str(), address.scope_id()), ("fe80::1", 1));
        assert_eq!(server_name(host).unwrap().to_str(), "fe80::1");
        assert_eq!(server_name("[::ffff:192.0.2.1]").unwrap().to_str(), "192.0.2.1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_takes_longer_than_a_connection_serves_the_next_one() {
        let resolver = Resolver::new(Duration::from_secs(2));
        let slow = |_host| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(vec!["192.0.2.1:0".parse().unwrap()])
        };
        for _ in 0..2 {
            let error = resolver.wait("etcd".to_owned(), slow).await.unwrap_err();
            assert_eq!(error.to_string(), "no DNS server answered for the name `etcd` in 2s");
        }
        let other = |_host| std::future::pending();
        assert_eq!(resolver.wait("etcd".to_owned(), other).await.unwrap().len(), 1);
        assert!(resolver.wait("etcd".to_owned(), other).await.is_err(), "each lookup serves one connection");
        assert_eq!(resolver.wait("other".to_owned(), slow).await.ok(), None);
    }
}
