//! What every lease store does, and the values that its calls take and return.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

#[cfg(doc)]
use crate::StoreErrorKind;
use crate::{AllocationRange, Lease, LeaseAttributes, LeaseEvent, LeaseKey, StoreError, StoreHealth};

/// How long a lease lives unless renewed: upstream's 24 hours.
pub const LEASE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The periods a store works with. Tests shorten the defaults.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// How long a lease lives unless renewed. Default: [`LEASE_TTL`].
    pub ttl: Duration,
    /// How long before its end a lease is renewed: `--subnet-lease-renew-margin`. Default: 60 minutes.
    pub renew_margin: Duration,
    /// How often a store is looked at although it told of no change. Default: 10 seconds.
    pub recheck: Duration,
    /// How long the leases of a store that was wiped and recreated are kept, so that their nodes can register
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

/// What a node asks a store for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaseRequest {
    /// What to publish. Its public addresses decide which existing lease is this node's own.
    pub attributes: LeaseAttributes,
    /// Subnets this node held before, from `subnet.env`: taken again if free.
    pub previous: Option<LeaseKey>,
    /// What this node is known to have published for `previous`, from a state file that this machine wrote: a lease of
    /// that address with that backend data is this node's own although its address has changed since. `None` if unknown:
    /// then a lease of another address is another node's.
    pub former: Option<LeaseAttributes>,
    /// Where subnets may come from.
    pub range: AllocationRange,
}

/// How a lease was lost while it was held. The data plane stays as it is; acquire again.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseLost {
    /// The store no longer has it: deleted, expired, or the store was recreated.
    #[error("lease {0} has been revoked")]
    Revoked(LeaseKey),
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
