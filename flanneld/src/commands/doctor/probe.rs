//! Do packets reach other nodes, and how large may they be?
//!
//! A UDP datagram to a port where nobody listens is answered with "port unreachable" (RFC 1122, 4.1.3.1), by the host
//! itself: proof that it arrived whole, for which neither raw sockets nor a helper on the other side are needed. Sent
//! to the address of a peer's VXLAN device, the answer proves that the tunnel works both ways.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::libc;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Finding;
use crate::commands::survey::Survey;
use crate::config::Backend;

/// Where traceroute begins, and nobody listens.
const PORT: u16 = 33_434;
/// How long one answer may take. Hosts answer a few probes at once and then one a second (`icmp_ratelimit`).
const PATIENCE: Duration = Duration::from_millis(700);
const ATTEMPTS: u32 = 3;
/// Peers that are asked, the first by subnet.
const PEERS: usize = 32;

pub(super) async fn look(survey: &Survey) -> Vec<Finding> {
    let mut probes = tokio::task::JoinSet::new();
    let is_vxlan = matches!(survey.setting.net_conf.backend, Backend::Vxlan(_));
    let (mtu, pods) = (survey.setting.facts.mtu, survey.setting.mtus.pods);
    for (key, attributes) in survey.leases.peers().take(PEERS) {
        let v4 = attributes.public_ip.map(IpAddr::from).zip(key.v4().map(|net| IpAddr::from(net.network())));
        let v6 =
            attributes.public_ipv6.map(IpAddr::from).zip(key.v6().map(|net| IpAddr::from(net.network())));
        for (underlay, vtep) in v4.into_iter().chain(v6) {
            let vtep = is_vxlan.then_some(vtep);
            probes.spawn(async move { ask(underlay, vtep, mtu, pods).await });
        }
    }
    let mut findings: Vec<_> = probes.join_all().await.into_iter().flatten().collect();
    findings.sort_by(|a, b| a.finding.cmp(&b.finding));
    findings
}

/// Asks one peer: its underlay address with small and full packets, then its device through the tunnel.
async fn ask(underlay: IpAddr, vtep: Option<IpAddr>, mtu: u32, pods: u32) -> Option<Finding> {
    let near = probe(underlay, 64).await;
    let through = match vtep {
        Some(vtep) => Some((vtep, probe(vtep, 64).await)),
        None => None,
    };
    match (near, through) {
        (_, Some((vtep, Answer::Silent))) => {
            let near = if near == Answer::Arrived { "answers" } else { "does not answer either" };
            Some(Finding::error(
                "tunnel",
                format!("no answer from {vtep} through the tunnel to {underlay}, which itself {near}"),
                "let the VXLAN port (UDP 8472, or Backend.Port) pass in both directions; is the daemon there running?",
            ))
        }
        (_, Some((vtep, Answer::NoWay))) => Some(Finding::error(
            "tunnel",
            format!("no route to {vtep}, the device of the node {underlay}"),
            "start the daemon on this node; `flanneld plan` shows what is missing",
        )),
        (Answer::NoWay, _) => Some(Finding::error(
            "underlay",
            format!("no route to the node {underlay}"),
            "choose another --iface, or give that node another --public-ip",
        )),
        (Answer::Silent, None) => Some(Finding::warning(
            "underlay",
            format!("no answer from the node {underlay}; it may be away, or a firewall silent"),
            "ping it",
        )),
        (Answer::Arrived, _) if probe(underlay, mtu).await != Answer::Arrived => Some(Finding::error(
            "mtu",
            format!(
                "packets of {mtu} bytes, the interface's MTU, do not reach the node {underlay}; small ones do"
            ),
            "lower the interface's MTU to what the path carries, or set Backend.MTU",
        )),
        (_, Some((vtep, Answer::Arrived))) if probe(vtep, pods).await != Answer::Arrived => {
            Some(Finding::error(
                "mtu",
                format!(
                    "packets of {pods} bytes, the pods' MTU, do not reach {vtep} through the tunnel; small ones do"
                ),
                "set Backend.MTU to what the path carries",
            ))
        }
        _ => None,
    }
}

/// What came of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    /// The host answered.
    Arrived,
    /// The path carries less.
    TooLarge,
    /// No route.
    NoWay,
    /// Nothing came back.
    Silent,
}

/// Sends an IP packet of `bytes` that must not be fragmented, a few times if need be.
async fn probe(address: IpAddr, bytes: u32) -> Answer {
    for _ in 0..ATTEMPTS {
        match timeout(PATIENCE, exchange(address, bytes)).await {
            Err(_late) => {}
            Ok(error) => match error.raw_os_error() {
                Some(libc::ECONNREFUSED) => return Answer::Arrived,
                Some(libc::EMSGSIZE) => return Answer::TooLarge,
                _ => return Answer::NoWay,
            },
        }
    }
    Answer::Silent
}

/// The error that answers; a host that sends data back would answer, too, but nobody does.
async fn exchange(address: IpAddr, bytes: u32) -> io::Error {
    let headers = if address.is_ipv4() { 28 } else { 48 };
    let payload = vec![0; usize::try_from(bytes.saturating_sub(headers)).unwrap_or(0)];
    let sent = async {
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        forbid_fragments(&socket, address)?;
        socket.connect(SocketAddr::new(address, PORT)).await?;
        socket.send(&payload).await?;
        socket.recv(&mut [0; 64]).await
    };
    match sent.await {
        Ok(_) => io::Error::from_raw_os_error(libc::ECONNREFUSED),
        Err(error) => error,
    }
}

/// Sets `IP_MTU_DISCOVER` (ip(7)) or `IPV6_MTU_DISCOVER` to "probe": never fragment, whatever the path's MTU is thought
/// to be.
#[expect(unsafe_code, reason = "nix has no name for these options")]
fn forbid_fragments(socket: &UdpSocket, address: IpAddr) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let (level, option, value) = if address.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
    };
    let size = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the descriptor lives as long as `socket`; the kernel reads `size` bytes of `value` during the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
