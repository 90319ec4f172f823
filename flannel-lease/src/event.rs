//! The events that a lease store reports.

use crate::{Lease, LeaseKey};

/// What a lease store reports. Every store uses these five events.
///
/// A store that cannot be reached sends nothing. In particular it sends neither [`Self::Remove`] nor, after a partial
/// listing, [`Self::Synced`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LeaseEvent {
    /// A full listing starts. Keep using the previous leases until [`Self::Synced`].
    Resync,
    /// This lease exists, with these contents.
    Upsert(Lease),
    /// This lease exists, but its contents are unreadable. Keep using its previous contents.
    Malformed {
        /// The subnets.
        key: LeaseKey,
        /// What is wrong, for an operator: names the entry and the field.
        problem: String,
    },
    /// This lease is gone.
    Remove(LeaseKey),
    /// The listing is complete: a lease not seen since [`Self::Resync`] no longer exists.
    Synced {
        /// Leases that exist although the listing could not read them: keep using what they said before.
        unreadable: Vec<LeaseKey>,
    },
}
