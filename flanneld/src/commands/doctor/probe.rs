//! Do packets reach other nodes, and how large may they be?
//!
//! A UDP datagram to a closed port is answered with "port unreachable" (RFC 1122, 4.1.3.1), an echo request
//! with a reply, both by the host itself: proof that it arrived whole, for which no helper on the other side is needed.
//! Either will do, as firewalls differ in what they let pass; echo requests need `net.ipv4.ping_group_range` (icmp(7)).
//! Sent to the address of a peer's VXLAN device, the answer proves that the tunnel, UDP port 8472, works both ways.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use flannel_vxlan::OverlayMtu;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType};
use tokio::net::UdpSocket;
use tokio::time::sleep;

use super::Finding;
use crate::commands::context::Context;
use crate::config::Backend;

/// The first port of traceroute, which is usually closed.
const PORT: u16 = 33_434;
/// How long one answer may take. Hosts answer a few probes at once and then one a second (`icmp_ratelimit`).
const ANSWER_TIMEOUT: Duration = Duration::from_millis(700);
const ATTEMPTS: u32 = 3;
/// Bytes of a packet that passes everywhere.
const SMALL_PACKET_BYTES: u32 = 64;
/// Peers that are asked, the first by subnet.
const MAX_PROBED_PEERS: usize = 32;

pub(super) async fn check(context: &Context) -> Vec<Finding> {
    let mut probes = tokio::task::JoinSet::new();
    let port = match &context.spec.net_conf.backend {
        Backend::Vxlan(vxlan) => Some(vxlan.port.get()),
        _ => None,
    };
    let (mtu, mtus) = (context.spec.facts.mtu, context.spec.mtus);
    for (key, attributes) in context.leases.peers().take(MAX_PROBED_PEERS) {
        let v4 = attributes.public_ip.map(IpAddr::from).zip(key.v4().map(|net| IpAddr::from(net.network())));
        let v6 =
            attributes.public_ipv6.map(IpAddr::from).zip(key.v6().map(|net| IpAddr::from(net.network())));
        for (underlay, vtep) in v4.into_iter().chain(v6) {
            let vtep = port.map(|port| (vtep, port));
            let device = if underlay.is_ipv4() { mtus.ipv4_device } else { mtus.ipv6_device };
            let carried = device.map_or(mtus.pods, OverlayMtu::bytes);
            probes.spawn(async move { ask(underlay, vtep, mtu, carried).await });
        }
    }
    let mut findings: Vec<_> = probes.join_all().await.into_iter().flatten().collect();
    findings.sort_by(|a, b| a.finding.cmp(&b.finding));
    let others = context.leases.peers().count().saturating_sub(MAX_PROBED_PEERS);
    if others > 0 {
        findings.push(Finding::info(
            "probes",
            format!("doctor probed only {MAX_PROBED_PEERS} nodes; {others} more were not probed"),
            "run doctor on these nodes too",
        ));
    }
    findings
}

/// One peer, and what came of packets to it. Full ones are only sent where small ones arrive.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Its public address, asked directly.
    underlay: IpAddr,
    near: Answer,
    /// As large as the interface's MTU, in bytes.
    mtu: u32,
    near_full: Option<Answer>,
    /// The address of its VXLAN device, asked through the tunnel.
    vtep: Option<(IpAddr, Answer)>,
    /// VXLAN's UDP port.
    port: u16,
    /// As large as the MTU of that device, in bytes.
    carried: u32,
    through_full: Option<Answer>,
}

async fn ask(underlay: IpAddr, vtep: Option<(IpAddr, u16)>, mtu: u32, carried: u32) -> Option<Finding> {
    let small_and_full = async |address, bytes| {
        let small = probe(address, SMALL_PACKET_BYTES).await;
        let full = if small == Answer::Arrived { Some(probe(address, bytes).await) } else { None };
        (small, full)
    };
    let (vtep, port) = vtep.unzip();
    let port = port.unwrap_or_default();
    let through = async {
        let vtep = vtep?;
        let (small, full) = small_and_full(vtep, carried).await;
        // Inside the tunnel only the peer itself refuses.
        Some(((vtep, small.or_refused()), full.map(Answer::or_refused)))
    };
    let ((near, near_full), through) = tokio::join!(small_and_full(underlay, mtu), through);
    let (vtep, through_full) = through.unzip();
    let through_full = through_full.flatten();
    let asked = Asked { underlay, near, mtu, near_full, vtep, port, carried, through_full };
    judge(asked)
}

/// The first thing that is wrong: what else does not work follows from it.
fn judge(asked: Asked) -> Option<Finding> {
    let Asked { underlay, near, mtu, near_full, vtep, port, carried, through_full } = asked;
    let blocked = |answer: Option<Answer>| answer.is_some_and(|answer| answer != Answer::Arrived);
    match (near, vtep) {
        (_, Some((vtep, Answer::Silent))) => {
            let answered = near != Answer::Silent;
            let near = match near {
                Answer::Arrived => "answers",
                Answer::Refused => "refuses",
                _ => "does not answer either",
            };
            // Without echo requests a firewall that lets nothing but VXLAN in looks like one that does not.
            let ping = if answered {
                ""
            } else {
                "; if all of this is right, allow ping on this host with `sysctl -w net.ipv4.ping_group_range='0 0'` and run doctor again"
            };
            Some(Finding::error(
                "tunnel",
                format!(
                    "no answer from {vtep} through the tunnel to {underlay}, which itself {near}: its pods are unreachable from here"
                ),
                format!(
                    "allow UDP port {port} on both nodes and in the network between them (ufw allow {port}/udp, or firewall-cmd --permanent --add-port={port}/udp and firewall-cmd --reload), and check that flanneld is running on the node {underlay}{ping}"
                ),
            ))
        }
        (_, Some((vtep, Answer::NoWay))) => Some(Finding::error(
            "tunnel",
            format!(
                "no route to {vtep}, the device of the node {underlay}: its pods are unreachable from here"
            ),
            "start flanneld on this node; `flanneld plan` shows what is missing",
        )),
        (Answer::NoWay, _) => Some(Finding::error(
            "underlay",
            format!("no route from this host to the node {underlay}, so its pods are unreachable from here"),
            "add a route to it (`ip route get` shows what the kernel does); if its address is wrong, set --public-ip there",
        )),
        (Answer::Silent | Answer::Refused, None) => Some(Finding::warning(
            "underlay",
            format!("no answer from the node {underlay}: it may be down, or a firewall may drop the packets"),
            "check that the node runs and that `ping` from this host reaches it",
        )),
        _ if blocked(near_full) => Some(Finding::error(
            "mtu",
            format!(
                "packets of {mtu} bytes, the interface's MTU, do not reach the node {underlay}, small ones do: pods lose large packets"
            ),
            "lower the interface's MTU to the path's MTU, or set Backend.MTU to it",
        )),
        (_, Some((vtep, _))) if blocked(through_full) => Some(Finding::error(
            "mtu",
            format!(
                "packets of {carried} bytes, the VXLAN device's MTU, do not reach {vtep} through the tunnel, small ones do: pods lose large packets"
            ),
            "set Backend.MTU to the path's MTU minus the encapsulation",
        )),
        _ => None,
    }
}

/// What came of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    /// The host answered.
    Arrived,
    /// The path carries less.
    TooLarge,
    /// This host has no route, or forbids it.
    NoWay,
    /// Something on the way, or a firewall on the host, sent an error.
    Refused,
    /// Nothing came back.
    Silent,
}

impl Answer {
    fn or_refused(self) -> Self {
        if self == Self::Refused { Self::Arrived } else { self }
    }
}

/// Sends IP packets of `bytes` that must not be fragmented, a few times if need be.
async fn probe(address: IpAddr, bytes: u32) -> Answer {
    let mut answer = Answer::Silent;
    for _ in 0..ATTEMPTS {
        let (knock, echo) = (exchange(Kind::Knock, address, bytes), exchange(Kind::Echo, address, bytes));
        tokio::pin!(knock, echo);
        let deadline = sleep(ANSWER_TIMEOUT);
        tokio::pin!(deadline);
        let (mut knocked, mut echoed) = (false, false);
        loop {
            let told = tokio::select! {
                told = &mut knock, if !knocked => { knocked = true; told }
                told = &mut echo, if !echoed => { echoed = true; told }
                () = &mut deadline => break,
            };
            match told {
                Some(told @ (Answer::Arrived | Answer::TooLarge | Answer::NoWay)) => return told,
                Some(told) => answer = told,
                None => {}
            }
        }
    }
    answer
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// UDP to a closed port.
    Knock,
    /// ICMP echo.
    Echo,
}

/// Sends one packet and waits for what answers; `None` if it cannot be sent in this way.
async fn exchange(kind: Kind, address: IpAddr, bytes: u32) -> Option<Answer> {
    let socket = socket(kind, address).ok()?;
    // IP's header and the eight bytes of UDP or ICMP.
    let headers = if address.is_ipv4() { 28 } else { 48 };
    let mut packet = vec![0; usize::try_from(bytes.saturating_sub(headers)).ok()?];
    if kind == Kind::Echo {
        let echo = if address.is_ipv4() { ECHO } else { ECHO_V6 };
        packet.splice(0..0, [echo, 0, 0, 0, 0, 0, 0, 0]);
    }
    if socket.connect(SocketAddr::new(address, PORT)).await.is_err() {
        return Some(Answer::NoWay);
    }
    if let Err(error) = socket.send(&packet).await {
        return Some(if error.raw_os_error() == Some(libc::EMSGSIZE) {
            Answer::TooLarge
        } else {
            Answer::NoWay
        });
    }
    Some(match socket.recv(&mut [0; 64]).await.map_err(|error| error.raw_os_error()) {
        Ok(_) | Err(Some(libc::ECONNREFUSED)) => Answer::Arrived,
        Err(Some(libc::EMSGSIZE)) => Answer::TooLarge,
        Err(_) => Answer::Refused,
    })
}

/// `ICMP_ECHO` (linux/icmp.h) and `ICMPV6_ECHO_REQUEST` (linux/icmpv6.h); the kernel adds number and checksum.
const ECHO: u8 = 8;
const ECHO_V6: u8 = 128;

fn socket(kind: Kind, address: IpAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let protocol = match (kind, address.is_ipv4()) {
        (Kind::Knock, _) => SockProtocol::Udp,
        (Kind::Echo, true) => SockProtocol::Icmp,
        (Kind::Echo, false) => SockProtocol::IcmpV6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(family, SockType::Datagram, flags, protocol)?;
    forbid_fragments(&socket, address)?;
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

/// Sets `IP_MTU_DISCOVER` (ip(7)) or `IPV6_MTU_DISCOVER` to "probe": never fragment, whatever the path's MTU is thought
/// to be.
#[expect(unsafe_code, reason = "nix has no name for these options")]
fn forbid_fragments(socket: &impl AsRawFd, address: IpAddr) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_that_is_wrong_is_told() {
        use Answer::{Arrived, NoWay, Refused, Silent, TooLarge};
        let underlay = "192.0.2.2".parse().unwrap();
        let told = |near, near_full, through: Option<Answer>, through_full| {
            let vtep = through.map(|through| ("10.244.2.0".parse().unwrap(), through));
            let asked =
                Asked { underlay, near, mtu: 1500, near_full, vtep, port: 8472, carried: 1450, through_full };
            judge(asked).map(|finding| format!("{}: {}", finding.check, finding.finding)).unwrap_or_default()
        };
        let (full, fits) = (Some(Silent), Some(Arrived));
        assert_eq!(told(Arrived, fits, fits, fits), "");
        assert_eq!(told(Silent, None, fits, fits), "", "a firewall that knows only VXLAN is right");
        assert_eq!(told(Arrived, fits, None, None), "", "host-gw");
        for (near, full, through, through_full, expected) in [
            (
                Arrived,
                fits,
                Some(Silent),
                None,
                "tunnel: no answer from 10.244.2.0 through the tunnel to 192.0.2.2, which itself answers",
            ),
            (Silent, None, Some(Silent), None, "which itself does not answer either"),
            (Arrived, fits, Some(NoWay), None, "tunnel: no route to 10.244.2.0"),
            (NoWay, None, None, None, "underlay: no route from this host to the node 192.0.2.2"),
            (Refused, None, None, None, "underlay: no answer"),
            (Arrived, full, fits, fits, "mtu: packets of 1500 bytes"),
            (Arrived, Some(TooLarge), fits, fits, "mtu: packets of 1500 bytes"),
            (Silent, None, fits, full, "mtu: packets of 1450 bytes"),
        ] {
            let text = told(near, full, through, through_full);
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
