//! Subnet leases: which node holds which pod subnet, and how the others reach it.
//!
//! A [`LeaseStore`] gives this node a lease, keeps it, and reports everybody's leases as
//! [`LeaseEvent`]s. Formats are upstream flannel's, so nodes of both kinds share a store.
//!
//! A store that is down, a malformed entry or a failed call never removes a lease; only the store's own positive
//! word does.

pub mod allocate;
mod backoff;
pub mod codec;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod event;
mod health;
#[cfg(feature = "kubernetes")]
pub mod kube;
mod malformed;
pub mod open;
pub mod sqlite;
pub(crate) mod tenancy;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::sync::{mpsc, watch};

pub use self::allocate::{AllocationRange, FamilyRange};
pub(crate) use self::backoff::Backoff;
pub use self::codec::{BackendData, LeaseKeyError, VxlanData};
use crate::lease::event::LeaseEvent;

/// How long a lease lives unless renewed: upstream's 24 hours.
pub const LEASE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The periods a store works with. The defaults suit everybody; tests shorten them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// How long a lease lives unless renewed. Default: [`LEASE_TTL`].
    pub ttl: Duration,
    /// How long before its end a lease is renewed: `--subnet-lease-renew-margin`. Default: 60 minutes.
    pub renew_margin: Duration,
    /// How often a store is looked at although it told of no change. Default: 10 seconds.
    pub recheck: Duration,
    /// How long the leases of a store that was wiped and set up anew are kept, so that their nodes can register
    /// again before anybody forgets them. Default: 30 seconds.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ttl: LEASE_TTL,
            renew_margin: Duration::from_secs(60 * 60),
            recheck: Duration::from_secs(10),
            settle: Duration::from_secs(30),
        }
    }
}

/// The subnets of one lease, one or both families; what names a lease in every store.
///
/// Text form: `10.244.1.0-24`, `10.244.1.0-24&fd00:10:244:1::-64`, `0.0.0.0-0&fd00:10:244:1::-64`.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseKey {
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
}

impl LeaseKey {
    /// A key of these subnets, host bits cleared; `None` if there is neither.
    #[must_use]
    pub fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Option<Self> {
        let key = Self { v4: v4.map(|net| net.trunc()), v6: v6.map(|net| net.trunc()) };
        (v4.is_some() || v6.is_some()).then_some(key)
    }

    /// The IPv4 pod subnet.
    #[must_use]
    pub fn v4(self) -> Option<Ipv4Net> {
        self.v4
    }

    /// The IPv6 pod subnet.
    #[must_use]
    pub fn v6(self) -> Option<Ipv6Net> {
        self.v6
    }

    /// The pod subnets, IPv4's first.
    pub fn subnets(self) -> impl Iterator<Item = IpNet> {
        self.v4.map(IpNet::from).into_iter().chain(self.v6.map(IpNet::from))
    }

    /// What of it lies in these networks, one for each family in use; `None` if a family in use has nothing there. A family
    /// that is no longer in use takes nothing from the other.
    #[must_use]
    pub fn within(self, v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Option<Self> {
        let net_v4 = self.v4.zip(v4).filter(|(net, network)| network.contains(net)).map(|(net, _)| net);
        let net_v6 = self.v6.zip(v6).filter(|(net, network)| network.contains(net)).map(|(net, _)| net);
        let whole = net_v4.is_some() == v4.is_some() && net_v6.is_some() == v6.is_some();
        Self::new(net_v4, net_v6).filter(|_| whole)
    }

    /// Whether the two share an address of either family.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let v4 = self.v4.zip(other.v4).is_some_and(|(a, b)| a.contains(&b) || b.contains(&a));
        let v6 = self.v6.zip(other.v6).is_some_and(|(a, b)| a.contains(&b) || b.contains(&a));
        v4 || v6
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How packets for a node's pods travel, as the node itself published it in `BackendType`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum BackendType {
    /// Nothing published: upstream's `udp`, `alloc` and `tencent-vpc` backends.
    #[default]
    Unnamed,
    /// `extension`
    Extension,
    /// `host-gw`
    HostGw,
    /// `ipip`
    Ipip,
    /// `ipsec`
    Ipsec,
    /// `vxlan`
    Vxlan,
    /// `wireguard`
    Wireguard,
    /// Any other word.
    Other(Box<str>),
}

impl BackendType {
    /// The word in the store; empty for [`Self::Unnamed`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unnamed => "",
            Self::Extension => "extension",
            Self::HostGw => "host-gw",
            Self::Ipip => "ipip",
            Self::Ipsec => "ipsec",
            Self::Vxlan => "vxlan",
            Self::Wireguard => "wireguard",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for BackendType {
    fn from(name: &str) -> Self {
        match name {
            "" => Self::Unnamed,
            "extension" => Self::Extension,
            "host-gw" => Self::HostGw,
            "ipip" => Self::Ipip,
            "ipsec" => Self::Ipsec,
            "vxlan" => Self::Vxlan,
            "wireguard" => Self::Wireguard,
            other => Self::Other(other.into()),
        }
    }
}

/// What a node publishes with its lease: the whole protocol between peers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeaseAttributes {
    /// Address that peers send IPv4 pod traffic to; absent is `0.0.0.0` in the store.
    pub public_ip: Option<Ipv4Addr>,
    /// Address that peers send IPv6 pod traffic to.
    pub public_ipv6: Option<Ipv6Addr>,
    /// How the node is reached.
    pub backend_type: BackendType,
    /// What that backend needs to reach IPv4 pods, such as [`VxlanData`].
    pub backend_data: Option<BackendData>,
    /// The same for IPv6 pods.
    pub backend_v6_data: Option<BackendData>,
}

impl LeaseAttributes {
    /// Whether both describe one node: the same public IPv4 address, or, if either has none, the same IPv6 address.
    #[must_use]
    pub fn same_node(&self, other: &Self) -> bool {
        match (self.public_ip, other.public_ip) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.public_ipv6.is_some() && self.public_ipv6 == other.public_ipv6,
        }
    }
}

/// A subnet, the node that holds it, and until when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The subnets.
    pub key: LeaseKey,
    /// How to reach their node.
    pub attributes: LeaseAttributes,
    /// When the lease ends unless renewed. `None`: a reservation, which never ends; or another node's lease, in a
    /// store that does not tell.
    pub expires: Option<SystemTime>,
}

/// What a node asks a store for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaseRequest {
    /// What to publish. Its public addresses decide which existing lease is this node's own.
    pub attributes: LeaseAttributes,
    /// Subnets this node held before, from `subnet.env`: taken again if free.
    pub previous: Option<LeaseKey>,
    /// Where subnets may come from.
    pub range: AllocationRange,
}

/// How a lease was lost while it was held. The data plane stays as it is; acquire again.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseLost {
    /// The store no longer has it: deleted by somebody, expired, or the store was set up anew.
    #[error("lease {0} has been revoked")]
    Revoked(LeaseKey),
    /// Another node holds the subnet.
    #[error("lease {key} is now held by the node with public address {}", Address(.holder))]
    Taken {
        /// The subnets.
        key: LeaseKey,
        /// What the other node publishes.
        holder: Box<LeaseAttributes>,
    },
}

struct Address<'a>(&'a LeaseAttributes);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.public_ip, self.0.public_ipv6) {
            (Some(ip), _) => ip.fmt(f),
            (None, Some(ip)) => ip.fmt(f),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// How a store fares, for `/readyz`, metrics and logs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoreHealth {
    /// When the store last answered; `None` before the first answer.
    pub last_contact: Option<SystemTime>,
    /// Why the latest attempt failed, causes included; `None` if it succeeded.
    pub last_error: Option<String>,
    /// Answers so far.
    pub answers: u64,
    /// Failed attempts so far.
    pub failures: u64,
    /// When this node's lease ends, as last heard; `None` before it is held, or if it never ends.
    pub lease_expires: Option<SystemTime>,
    /// How long before its end a lease is renewed; `None` if leases never end.
    pub renew_margin: Option<Duration>,
}

/// Why a store did not do what it was asked. Nothing was changed in it unless said otherwise.
///
/// The text names operation and object and says what to do; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}: {advice}")]
pub struct StoreError {
    /// What was tried, such as `acquire a lease in`.
    pub operation: &'static str,
    /// What it was tried on: a path, an endpoint, a key.
    pub object: String,
    /// What is wrong, and what to do about it.
    pub advice: String,
    /// What kind of trouble, for deciding whether to wait.
    pub kind: StoreErrorKind,
    /// The cause, if it comes from below.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`StoreError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Busy, locked, unreachable or full: the same call may succeed later.
    Unavailable,
    /// No permission, wrong path, damaged contents: somebody has to act first.
    Unusable,
    /// Every subnet of the range is leased.
    OutOfSubnets,
    /// The lease to be updated is no longer this node's.
    NotHeld,
}

/// A future that a [`LeaseStore`] returns; dropping it cancels the call.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where leases live. One value serves one node, which holds at most one lease through it.
pub trait LeaseStore: fmt::Debug + Send + Sync {
    /// Takes a lease: the one this node already has, else its previous subnet, else a free one chosen at random.
    /// Two nodes never get overlapping subnets. The lease stays the store value's own until the next `acquire`.
    ///
    /// # Errors
    /// [`StoreErrorKind::OutOfSubnets`], or the store cannot be used.
    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> StoreFuture<'a, Result<Lease, StoreError>>;

    /// Reads the lease that the node with the public addresses in `node` has, for what it published last, such as its
    /// VTEP MAC. Changes nothing.
    ///
    /// # Errors
    /// The store cannot be used.
    fn find<'a>(&'a self, node: &'a LeaseAttributes) -> StoreFuture<'a, Result<Option<Lease>, StoreError>>;

    /// Publishes other attributes with the lease held.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotHeld`] if no lease is held, or another node has the subnet by now; or the store cannot be
    /// used.
    fn update<'a>(&'a self, attributes: &'a LeaseAttributes) -> StoreFuture<'a, Result<Lease, StoreError>>;

    /// Reports every lease, then every change, until the receiver is dropped. Survives every error: it tries again
    /// with growing, jittered pauses, and [`Self::health`] tells.
    fn watch(&self, events: mpsc::Sender<LeaseEvent>) -> StoreFuture<'_, ()>;

    /// Keeps the lease from [`Self::acquire`] renewed. Returns only when the store says that it is lost, never because
    /// the store cannot be asked.
    fn hold(&self) -> StoreFuture<'_, LeaseLost>;

    /// This node is ready for pods: its rules, device and peers are in the kernel. A store that others look at for that
    /// tells them, and goes on telling them as long as [`Self::hold`] runs.
    fn ready(&self) {}

    /// How the store fares, live.
    fn health(&self) -> watch::Receiver<StoreHealth>;
}
