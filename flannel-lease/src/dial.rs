//! From a URL's host to addresses, and to the name that a certificate must have.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hyper_util::client::legacy::connect::dns::Name;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::lookup_host;

/// The addresses of a host. A link-local address may have a zone, `fe80::1%eth0`; in a URL that is
/// `%25eth0` (RFC 6874).
pub(crate) async fn resolve(name: Name) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let host = host_of(name.as_str()).replacen("%25", "%", 1);
    Ok(lookup_host((host, 0)).await?.collect::<Vec<_>>().into_iter())
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
        let addresses: Vec<_> = resolve(host.parse().unwrap()).await.unwrap().collect();
        let [SocketAddr::V6(address)] = addresses.as_slice() else { panic!("{addresses:?}") };
        assert_eq!((address.ip().to_string().as_str(), address.scope_id()), ("fe80::1", 1));
        assert_eq!(server_name(host).unwrap().to_str(), "fe80::1");
        assert_eq!(server_name("[::ffff:192.0.2.1]").unwrap().to_str(), "192.0.2.1");
    }
}
