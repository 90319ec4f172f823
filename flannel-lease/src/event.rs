//! The events that a lease store reports.

use crate::{Lease, LeaseKey};

/// What a lease store tells the daemon. Every store speaks in these four words.
///
/// A store that fails says nothing; it never says [`Self::Remove`], nor [`Self::Synced`] after a partial listing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LeaseEvent {
    /// A full listing starts. Keep using the previous leases until [`Self::Synced`].
    Resync,
    /// This lease exists, with these contents.
    Upsert(Lease),
    /// This lease is gone.
    Remove(LeaseKey),
    /// The listing is complete: a lease not seen since [`Self::Resync`] no longer exists.
    Synced {
        /// Leases that do exist but whose contents cannot be read: what is known of them stays.
        unreadable: Vec<LeaseKey>,
    },
}
