//! How a store fares: kept by the store, watched by the daemon.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::codec::printable;

/// How a store fares, for `/readyz`, metrics and logs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoreHealth {
    /// When the store last answered; `None` before the first answer.
    pub last_contact: Option<SystemTime>,
    /// Why the latest attempt failed, causes included; `None` if it succeeded.
    pub last_error: Option<String>,
    /// What another process keeps doing to this node's lease, for an operator; `None` if it stays as published.
    pub contested: Option<String>,
    /// Answers so far.
    pub answers: u64,
    /// Failed attempts so far.
    pub failures: u64,
    /// When this node's lease ends, as last heard; `None` before it is held, or if it never ends.
    pub lease_expires: Option<SystemTime>,
    /// How long before its end a lease is renewed; `None` if leases never end.
    pub renew_margin: Option<Duration>,
}

/// The writing end of [`StoreHealth`], for implementations of [`LeaseStore`](crate::LeaseStore).
#[derive(Debug, Default)]
pub struct Health(watch::Sender<StoreHealth>);

impl Health {
    /// The store answered, whatever it said.
    pub fn answered(&self) {
        self.0.send_modify(|health| {
            health.last_contact = Some(SystemTime::now());
            health.last_error = None;
            health.answers += 1;
        });
    }

    /// The store did not answer, or refused.
    pub fn failed(&self, error: String) {
        self.0.send_modify(|health| {
            health.last_error = Some(printable(&error));
            health.failures += 1;
        });
    }

    /// Another process keeps changing this node's lease, or no longer does.
    pub fn contested(&self, problem: Option<String>) {
        self.0.send_modify(|health| health.contested = problem);
    }

    /// This node's lease ends then.
    pub fn renewed(&self, expires: Option<SystemTime>) {
        self.0.send_modify(|health| health.lease_expires = expires);
    }

    /// Leases end unless renewed, which is done so long before.
    pub fn renews(&self, margin: Duration) {
        self.0.send_modify(|health| health.renew_margin = Some(margin));
    }

    /// A receiver of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<StoreHealth> {
        self.0.subscribe()
    }
}
