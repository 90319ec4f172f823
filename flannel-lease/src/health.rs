//! How a store fares: kept by the store, watched by the daemon.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::codec::printable;

/// The state of a store, for `/readyz`, metrics and logs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct StoreHealth {
    /// When the store last answered; `None` before the first answer.
    pub last_contact: Option<SystemTime>,
    /// The error of the latest attempt with its causes; `None` if the attempt succeeded.
    pub last_error: Option<String>,
    /// How another process keeps changing this node's lease, as text for an operator; `None` if the lease stays as
    /// published.
    pub contested: Option<String>,
    /// Number of answers so far.
    pub answers: u64,
    /// Number of failed attempts so far.
    pub failures: u64,
    /// When this node's lease expires, as last reported; `None` if no lease is held or the lease does not expire.
    pub lease_expires: Option<SystemTime>,
    /// How long before its expiry a lease is renewed; `None` if leases do not expire.
    pub renew_margin: Option<Duration>,
}

/// The writing end of [`StoreHealth`], for implementations of [`LeaseStore`](crate::LeaseStore).
#[derive(Clone, Debug, Default)]
pub struct Health(watch::Sender<StoreHealth>);

impl Health {
    /// Records that the store answered, whatever the answer was.
    pub fn answered(&self) {
        self.0.send_modify(|health| {
            health.last_contact = Some(SystemTime::now());
            health.last_error = None;
            health.answers += 1;
        });
    }

    /// Records that the store did not answer or refused the call.
    pub fn failed(&self, error: String) {
        self.0.send_modify(|health| {
            health.last_error = Some(printable(&error));
            health.failures += 1;
        });
    }

    /// Records how another process keeps changing this node's lease, or with `None` that it stopped.
    pub fn contested(&self, problem: Option<String>) {
        self.0.send_modify(|health| health.contested = problem);
    }

    /// Records when this node's lease expires; `None` if it does not.
    pub fn renewed(&self, expires: Option<SystemTime>) {
        self.0.send_modify(|health| health.lease_expires = expires);
    }

    /// Records that leases expire, and are renewed `margin` before that.
    pub fn renews(&self, margin: Duration) {
        self.0.send_modify(|health| health.renew_margin = Some(margin));
    }

    /// A receiver that sees the present state and every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<StoreHealth> {
        self.0.subscribe()
    }
}
