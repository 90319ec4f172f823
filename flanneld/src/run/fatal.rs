//! Why the daemon cannot start.

use std::io::ErrorKind;

use flannel_lease::StoreError;
use flannel_lease::file::limit_advice;

use crate::config::HealthzAddress;
use crate::node::NodeError;
use crate::reconcile::{DesiredError, HostError};
use crate::run::instances::claims::PrefixError;
use crate::run::ownership::OwnershipError;
use crate::run::wireguard_key;

/// Why the daemon could not start. Nothing was changed in the kernel, unless said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// Not allowed to configure the network.
    #[error("flanneld needs the capability CAP_NET_ADMIN: run it as root, or grant it in the unit or pod")]
    NotPrivileged,
    /// The kernel offers no way to talk about routes, or about rules.
    #[error("cannot reach the kernel")]
    Kernel(#[source] flannel_vxlan::OpenError),
    /// No nftables.
    #[error("cannot reach nftables in the kernel")]
    Nftables(#[source] flannel_nft::OpenError),
    /// Tables cannot be owned here.
    #[error("cannot apply --table-ownership")]
    Ownership(#[source] OwnershipError),
    /// No interface to send through.
    #[error("no interface to other nodes")]
    Interface(#[source] HostError),
    /// The backend does not work on this node.
    #[error("cannot use backend `{backend}` on this node")]
    Backend {
        /// `Backend.Type`.
        backend: &'static str,
        /// Why.
        #[source]
        source: NodeError,
    },
    /// The lease store cannot be used.
    #[error("Failed to create SubnetManager")]
    Store(#[source] StoreError),
    /// No lease.
    #[error("Error registering network: failed to acquire lease")]
    Lease(#[source] StoreError),
    /// The setting cannot be written to the kernel.
    #[error("cannot derive rules and devices from the configuration")]
    Desired(#[source] DesiredError),
    /// The names of the tables cannot be settled.
    #[error("cannot choose the names of the nftables tables")]
    Tables(#[source] PrefixError),
    /// No private key for backend `wireguard`.
    #[error("cannot use backend `wireguard` on this node")]
    WireguardKey(#[source] wireguard_key::KeyError),
    /// The health port.
    #[error("cannot listen on {address} for health ({})", listen_advice(source))]
    Healthz {
        /// What was asked for.
        address: HealthzAddress,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refuses another thread.
    #[error("cannot start a thread: {}", thread_advice(.0))]
    Thread(#[source] std::io::Error),
    /// A thread ended by itself.
    #[error("a thread of flanneld ended unexpectedly: see the log, and report this bug")]
    Ended,
}

/// What the operator has to do if the health port cannot be opened.
fn listen_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied => {
            "choose another --healthz-ip or --healthz-port"
        }
        _ => limit_advice(error).unwrap_or("the kernel gives no socket"),
    }
}

/// What the operator has to do if the kernel refuses another thread, or the event loop of that.
#[must_use]
pub fn thread_advice(error: &std::io::Error) -> &'static str {
    limit_advice(error).unwrap_or(
        "raise the limit of processes or memory (TasksMax=, pids.max of the pod's cgroup, ulimit -u, MemoryMax=)",
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use flannel_nft::ObserveError;
    use testkit::{causes, repetition};

    use super::*;

    #[test]
    fn no_error_repeats_its_cause() {
        let unread = |what: &'static str| ObserveError {
            what: what.into(),
            source: flannel_nft::ReadError::Notifications(io::Error::from_raw_os_error(105)),
        };
        for error in [
            Fatal::Tables(PrefixError::Observe(unread("tables"))),
            Fatal::Ownership(OwnershipError::Kernel(unread(
                "whether owned nftables tables outlive their owner",
            ))),
        ] {
            assert_eq!(repetition(&error), None, "{}", causes(&error));
        }
    }
}
