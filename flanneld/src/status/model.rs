//! What the running daemon looks like from outside: one value, asked for and never pushed.
//!
//! The reconciler fills it on request, so that nothing is kept up to date without need. Metrics, the status
//! page and `flanneld status` are three ways to show it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::file;

/// Where the running daemon answers with its [`Status`] as one JSON text to each client, and closes the connection: a unix
/// socket in the directory of subnet.env. Only its owner, root, may connect.
///
/// `/run/flannel/subnet.env` → `/run/flannel/subnet.sock`: several daemons with a subnet file each do not meet
/// ([`file::beside`]).
#[must_use]
pub fn socket(subnet_file: &Path) -> PathBuf {
    file::beside(subnet_file, "sock")
}

/// The daemon, its node, and what it keeps in the kernel. Times are seconds since 1970.
///
/// In JSON, fields that a daemon of another version does not send are read as absent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Host name.
    pub node: String,
    /// When this was put together.
    pub time: f64,
    /// When the daemon started.
    pub started: f64,
    /// Whether every condition of `/readyz` holds.
    pub ready: bool,
    /// Conditions that do not hold, with the reason.
    pub unmet: BTreeMap<String, String>,
    /// Upstream's daemon, if that keeps the network of this node: then the rest is what the kernel holds of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Worth knowing, without making the node unready.
    pub notes: BTreeMap<String, String>,
    /// This node's lease.
    pub lease: LeaseStatus,
    /// The lease store.
    pub store: StoreStatus,
    /// `Backend.Type`.
    pub backend: String,
    /// The interface between nodes.
    pub interface: InterfaceStatus,
    /// VXLAN devices that there should be.
    pub devices: Vec<DeviceStatus>,
    /// The nftables rules.
    pub rules: RulesStatus,
    /// Chains of other programs that may drop what is forwarded for pods.
    pub obstacles: Vec<String>,
    /// How many peers there are.
    pub peers: PeerCounts,
    /// The peers themselves, if they were asked for.
    pub peer_list: Vec<PeerStatus>,
    /// Kinds of work: `interface`, `rules`, `overlay`, `subnet_file`.
    pub work: BTreeMap<String, WorkStatus>,
    /// What others broke and this daemon put back, newest first.
    pub repairs: Vec<Repair>,
    /// Repairs so far, by object and cause.
    pub repair_counts: Vec<RepairCount>,
    /// Commits to the nftables ruleset by others.
    pub foreign: ForeignStatus,
    /// What the daemon itself costs.
    pub process: ProcessStatus,
}

/// This node's lease.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct LeaseStatus {
    /// Subnet of the node's IPv4 pods.
    pub ipv4: Option<Ipv4Net>,
    /// Subnet of the node's IPv6 pods.
    pub ipv6: Option<Ipv6Net>,
    /// When it ends unless renewed; `None` if never, or not known.
    pub expires: Option<u64>,
    /// How long before that it is renewed, in seconds; `None` if leases never end.
    pub renew_margin: Option<u64>,
}

impl LeaseStatus {
    /// The subnets of the node, IPv4's first.
    #[must_use]
    pub fn subnets(&self) -> Vec<String> {
        let ipv4 = self.ipv4.map(|net| net.to_string());
        ipv4.into_iter().chain(self.ipv6.map(|net| net.to_string())).collect()
    }

    /// How long after `time` it ends.
    pub(crate) fn ends_after(&self, time: f64) -> Option<Span> {
        let expires = Duration::from_secs(self.expires?).as_secs_f64();
        Some(Span(expires - time))
    }
}

/// The lease store.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct StoreStatus {
    /// `etcd`, `kubernetes` or `sqlite`.
    pub kind: String,
    /// Whether the latest attempt to reach it succeeded.
    pub healthy: bool,
    /// When it last answered.
    pub last_contact: Option<f64>,
    /// When it last told of a lease.
    pub last_event: Option<f64>,
    /// Why the latest attempt failed.
    pub last_error: Option<String>,
    /// Answers so far.
    pub answers: u64,
    /// Failed attempts so far.
    pub failures: u64,
}

/// The interface between nodes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// What pods get, in bytes.
    pub pod_mtu: u32,
    /// Addresses that this node sends from.
    pub addresses: Vec<IpAddr>,
    /// Addresses that other nodes send to.
    pub public: Vec<IpAddr>,
}

/// The tunnel device of one family.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// VXLAN network identifier; absent for another kind of device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// In bytes.
    pub mtu: u32,
    /// UDP port at which it receives; absent without UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its public key; absent for another kind of device than WireGuard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its sessions; absent for another kind of device than WireGuard, and if they cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionCounts>,
    /// Its peers, for /metrics; empty for another kind of device than WireGuard, and if there are more than
    /// [`WireguardPeerStatus::MAX`]. A status has them in [`PeerStatus::session`].
    #[serde(skip)]
    pub wireguard_peers: Vec<WireguardPeerStatus>,
}

/// A peer of a WireGuard device as /metrics has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WireguardPeerStatus {
    /// Its public key.
    pub key: String,
    /// Its subnets, separated by commas.
    pub subnets: String,
    /// Time of the last handshake; `None` if there was none.
    pub latest_handshake: Option<u64>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl WireguardPeerStatus {
    /// Most peers of a device of which /metrics has time series each. Each node has such series of all other nodes, so
    /// their number in a cluster is the square of the number of nodes.
    pub const MAX: usize = 250;
}

/// The sessions of a WireGuard device with its peers. Nodes of which a device carries both families are one peer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct SessionCounts {
    /// Peers with a handshake in the last 180 seconds.
    pub connected: u64,
    /// Peers without: no packets are waiting for them, or they do not answer.
    pub disconnected: u64,
    /// Bytes received from the present peers.
    pub rx_bytes: u64,
    /// Bytes sent to the present peers.
    pub tx_bytes: u64,
}

/// The session of a WireGuard device with a peer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SessionStatus {
    /// The public key of the peer.
    pub key: String,
    /// Where packets are sent; absent if nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age: Option<u64>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl fmt::Display for SessionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.handshake_age {
            Some(age) => write!(f, "last handshake {age} s ago")?,
            None => f.write_str("no handshake yet")?,
        }
        write!(f, ", {} bytes received, {} bytes sent", self.rx_bytes, self.tx_bytes)
    }
}

/// The nftables rules.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct RulesStatus {
    /// Names of the tables, with family.
    pub tables: Vec<String>,
    /// Whether only their owner can change them (`--table-ownership`), or they are shared.
    pub owned: bool,
    /// Whether the kernel held exactly these rules at `generation`, the last look.
    pub right: bool,
    /// Number of the ruleset's state then.
    pub generation: Option<u32>,
    /// Transactions committed so far.
    pub transactions: u64,
    /// Messages in them.
    pub changes: u64,
    /// The tables' named counters.
    pub counters: Vec<CounterStatus>,
}

/// A named counter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CounterStatus {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Its name.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How many peers there are, by state. One subnet is one peer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct PeerCounts {
    /// Leases of other nodes in the store.
    pub leases: u64,
    /// In the kernel.
    pub programmed: u64,
    /// To be written, or refused by the kernel and to be tried again.
    pub pending: u64,
    /// Not to be programmed, e.g. because they contradict another peer.
    pub skipped: u64,
}

/// One subnet of another node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PeerStatus {
    /// The addresses of its pods.
    pub subnet: IpNet,
    /// `programmed`, `pending` or `skipped`.
    pub state: PeerState,
    /// Where packets for it are sent.
    pub underlay: Option<IpAddr>,
    /// MAC address of its VXLAN device; `None` without one.
    pub mac: Option<String>,
    /// Whether its packets are routed without encapsulation.
    #[serde(default)]
    pub direct: bool,
    /// Why it is skipped or pending, or what its lease lacks.
    pub reason: Option<String>,
    /// Its session with the WireGuard device; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionStatus>,
}

impl PeerStatus {
    /// A peer in this state of which nothing else is known.
    #[must_use]
    pub fn new(subnet: IpNet, state: PeerState) -> Self {
        Self { subnet, state, underlay: None, mac: None, direct: false, reason: None, session: None }
    }
}

/// What became of a peer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It cannot or must not be in the kernel.
    Skipped,
    /// It is to be written.
    Pending,
    /// It is in the kernel.
    Programmed,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Skipped => "skipped",
            Self::Pending => "pending",
            Self::Programmed => "programmed",
        })
    }
}

/// Upper bounds of the duration buckets, in seconds.
pub const BUCKETS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2.5];

/// One kind of work.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct WorkStatus {
    /// Passes that succeeded.
    pub succeeded: u64,
    /// Passes that failed and were tried again.
    pub failed: u64,
    /// Time spent, in seconds.
    pub seconds: f64,
    /// Passes by duration, not cumulative: up to each of [`BUCKETS`], and beyond.
    pub durations: [u64; 9],
    /// When it last succeeded.
    pub last_success: Option<f64>,
    /// For how many seconds it has been failing; 0 if it is not.
    pub lag: f64,
}

/// Something that others broke and this daemon put back.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Repair {
    /// When.
    pub time: f64,
    /// `rules` or `overlay`.
    pub object: String,
    /// How it was found.
    pub cause: Cause,
    /// What it took, and which process made it necessary, as far as known.
    pub what: String,
}

/// How something broken was found.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The kernel told.
    #[default]
    Notification,
    /// A look by the clock found it.
    Check,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notification => "reported by the kernel",
            Self::Check => "found by a check",
        })
    }
}

/// A time in seconds, shown in the two largest units: `58s`, `1m40s`, `22h13m`, `3d04h`. A negative time, as when
/// clocks are set, is none.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::try_from_secs_f64(self.0).unwrap_or_default().as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, _) => write!(f, "{minutes}m{:02}s", seconds % 60),
            (0, _, _) => write!(f, "{hours}h{:02}m", minutes % 60),
            _ => write!(f, "{days}d{:02}h", hours % 24),
        }
    }
}

/// Repairs of one kind.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RepairCount {
    /// `rules` or `overlay`.
    pub object: String,
    /// How it was found.
    pub cause: Cause,
    /// How often.
    pub count: u64,
}

/// Commits to the nftables ruleset by others.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct ForeignStatus {
    /// That changed something in our tables.
    pub ours: u64,
    /// That did not.
    pub others: u64,
    /// Times that notifications were lost.
    pub overflows: u64,
}

/// What the daemon itself costs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct ProcessStatus {
    /// Processor time used, in seconds.
    pub cpu_seconds: f64,
    /// Memory held.
    pub resident_bytes: u64,
    /// File descriptors held.
    pub open_fds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_an_older_or_newer_daemon_can_be_read() {
        let text = r#"{"node": "worker-1", "of_the_future": 1, "lease": {"ipv4": "10.244.1.0/24"}}"#;
        let status: Status = serde_json::from_str(text).expect("a status");
        assert_eq!(status.node, "worker-1");
        assert_eq!(status.lease.ipv4, "10.244.1.0/24".parse().ok());
    }
}
