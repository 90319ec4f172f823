//! What every lease store does, and the values that its calls take and return.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

#[cfg(doc)]
use crate::StoreErrorKind;
use crate::{AllocationRange, Lease, LeaseAttributes, LeaseEvent, LeaseKey, StoreError, StoreHealth};

/// Default lifetime of a lease unless it is renewed: upstream's 24 hours.
pub const LEASE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The periods of a store. Tests shorten the defaults.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// Lifetime of a lease unless it is renewed. Default: [`LEASE_TTL`].
    pub ttl: Duration,
    /// How long before its expiry a lease is renewed (`--subnet-lease-renew-margin`). Default: 60 minutes.
    pub renew_margin: Duration,
    /// How often the store is read although it reported no change. Default: 10 seconds.
    pub recheck: Duration,
    /// How long the leases of a store that was erased and recreated stay known, so that their nodes can register again
    /// first. Default: 30 seconds.
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

/// What a node asks a store for in [`LeaseStore::acquire`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeaseRequest {
    /// The attributes to publish. Their public addresses identify an existing lease of this node.
    pub attributes: LeaseAttributes,
    /// The subnets that this node held before, from `subnet.env`. The node gets them again if they are free.
    pub previous: Option<LeaseKey>,
    /// The attributes that this node is known to have published for `previous`, from a state file that this machine
    /// wrote. A lease with that address and backend data belongs to this node although its address has changed since.
    /// If `None`, a lease with another address belongs to another node.
    pub former: Option<LeaseAttributes>,
    /// The subnets that this node may get.
    pub range: AllocationRange,
}

/// How a held lease was lost. Devices and routes can stay as they are; acquire a lease again.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseLost {
    /// The store no longer has the lease: it was deleted or expired, or the store was recreated.
    #[error("lease {0} has been revoked: it expired, or was deleted from the store")]
    Revoked(LeaseKey),
    /// In Kubernetes: the pod subnets of this node are others now, or cannot be read.
    #[error("lease {key} is no longer this node's: {reason}")]
    Reassigned {
        /// The subnets that this node had.
        key: LeaseKey,
        /// What the node has instead, such as `node "a" has podCIDR 10.244.9.0-24 now`.
        reason: String,
    },
    /// Another node holds the subnet.
    #[error("lease {key} is now held by the node with public address {}", holder.public_address())]
    Taken {
        /// The subnets.
        key: LeaseKey,
        /// What the other node publishes.
        holder: Box<LeaseAttributes>,
    },
}

/// A future that a [`LeaseStore`] returns; dropping it cancels the call.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place where leases are stored. One value serves one node, which holds at most one lease through it.
pub trait LeaseStore: fmt::Debug + Send + Sync {
    /// Takes a lease: the lease that this node already has, else its previous subnet, else a random free subnet. Two
    /// nodes never get overlapping subnets. The store holds this lease until the next `acquire`.
    ///
    /// # Errors
    /// [`StoreErrorKind::OutOfSubnets`] and [`StoreErrorKind::IdentityTaken`], or the store cannot be used.
    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> StoreFuture<'a, Result<Lease, StoreError>>;

    /// Reads the lease of the node with the public addresses in `node`, for example to get the VTEP MAC address that it
    /// published last. Changes nothing.
    ///
    /// # Errors
    /// The store cannot be used.
    fn find<'a>(&'a self, node: &'a LeaseAttributes) -> StoreFuture<'a, Result<Option<Lease>, StoreError>>;

    /// Publishes other attributes with the lease that is held.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotHeld`] if no lease is held, or another node has the subnet; [`StoreErrorKind::IdentityTaken`],
    /// except in Kubernetes, where each daemon reads its own node only; or the store cannot be used.
    fn update<'a>(&'a self, attributes: &'a LeaseAttributes) -> StoreFuture<'a, Result<Lease, StoreError>>;

    /// Reports every lease and then every change, until the receiver is dropped. After an error it retries with backoff
    /// and jitter; [`Self::health`] reports the error.
    fn watch(&self, events: mpsc::Sender<LeaseEvent>) -> StoreFuture<'_, ()>;

    /// Renews the lease from [`Self::acquire`]. Returns only when the store reports that the lease is lost, never
    /// because the store is unavailable.
    fn hold(&self) -> StoreFuture<'_, LeaseLost>;

    /// Tells the store that this node is ready for pods, because its rules, device and peers are in the kernel. The
    /// Kubernetes store then clears the condition `NetworkUnavailable`, and keeps it cleared while [`Self::hold`] runs.
    /// Other stores do nothing.
    fn ready(&self) {}

    /// A receiver of the store's state.
    fn health(&self) -> watch::Receiver<StoreHealth>;
}
