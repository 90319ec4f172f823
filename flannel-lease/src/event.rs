//! The events that a lease store reports.

use crate::{Lease, LeaseKey};

/// What a lease store reports. Every store uses these six events.
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
    /// Everything that the store has is reported, but the store may have been recreated: keep the leases not seen since
    /// [`Self::Resync`] until [`Self::Synced`], so that their nodes can register again. One that contradicts a lease that the
    /// store has does not count.
    Settling,
    /// The listing is complete: a lease not seen since [`Self::Resync`] no longer exists.
    Synced {
        /// Leases that exist although the listing could not read them: keep using what they said before.
        unreadable: Vec<LeaseKey>,
    },
}
