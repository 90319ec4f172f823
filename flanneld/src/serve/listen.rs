//! Opening the health port, on the addresses that upstream's daemon (Go) would open it on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt::Ipv6V6Only};
use tokio::net::{TcpListener, TcpSocket};

use crate::config::HealthzAddress;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Opens the port. As in Go, an unspecified address (`0.0.0.0`, `::` or none) is every address of both
/// families, and of IPv4 alone on a host without IPv6.
///
/// # Errors
/// The kernel's, for example if the port is taken; the zone of the address names no interface.
pub fn listen(address: &HealthzAddress) -> io::Result<TcpListener> {
    if address.ip.address.is_unspecified() {
        return open_both_families(address.port, open);
    }
    open(match (address.ip.address, &address.ip.zone) {
        (IpAddr::V6(ip), Some(zone)) => SocketAddrV6::new(ip, address.port, 0, index_of(zone)?).into(),
        (ip, _) => SocketAddr::new(ip, address.port),
    })
}

fn open_both_families<T>(port: u16, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            // `ipv6.disable=1`: no such address family; a kernel without IPv4-mapped addresses.
            open((Ipv4Addr::UNSPECIFIED, port).into())
        }
        done => done,
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // Otherwise the host's setting net.ipv6.bindv6only decides.
        setsockopt(&socket, Ipv6V6Only, &!address.ip().is_unspecified())?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A zone is the name of an interface, or its index.
fn index_of(zone: &str) -> io::Result<u32> {
    if_nametoindex(zone).or_else(|error| {
        let missing =
            || io::Error::new(io::Error::from(error).kind(), format!("there is no interface {zone}"));
        zone.parse().map_err(|_no_number| missing())
    })
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn without_ipv6_the_port_is_opened_on_ipv4_and_other_errors_are_told() {
        let opened = |errno: Errno| {
            open_both_families(8081, |address| match address {
                SocketAddr::V6(_) => Err(io::Error::from(errno)),
                SocketAddr::V4(_) => Ok(address.to_string()),
            })
        };
        for errno in [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL, Errno::ENOPROTOOPT] {
            assert_eq!(opened(errno).unwrap(), "0.0.0.0:8081", "{errno}");
        }
        for errno in [Errno::EADDRINUSE, Errno::EACCES] {
            assert_eq!(
                opened(errno).unwrap_err().raw_os_error(),
                io::Error::from(errno).raw_os_error(),
                "{errno}"
            );
        }
    }
}
