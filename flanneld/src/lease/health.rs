//! How a store fares: kept by the store, watched by the daemon.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::StoreHealth;

/// The writing end of [`StoreHealth`].
#[derive(Debug, Default)]
pub(crate) struct Health(watch::Sender<StoreHealth>);

impl Health {
    /// The store answered, whatever it said.
    pub(crate) fn answered(&self) {
        self.0.send_modify(|health| {
            health.last_contact = Some(SystemTime::now());
            health.last_error = None;
            health.answers += 1;
        });
    }

    /// The store did not answer, or refused.
    pub(crate) fn failed(&self, error: String) {
        self.0.send_modify(|health| {
            health.last_error = Some(error);
            health.failures += 1;
        });
    }

    /// This node's lease ends then.
    pub(crate) fn renewed(&self, expires: Option<SystemTime>) {
        self.0.send_modify(|health| health.lease_expires = expires);
    }

    /// Leases end unless renewed, which is done so long before.
    pub(crate) fn renews(&self, margin: Duration) {
        self.0.send_modify(|health| health.renew_margin = Some(margin));
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<StoreHealth> {
        self.0.subscribe()
    }
}
