//! Pod networking for Kubernetes nodes and plain hosts.
//!
//! ```text
//! config ──▶ lease store ──▶ events ──▶ desired state ──▶ diff ──▶ kernel
//!  parse      sqlite | etcd   LeaseEvent  NodeSpec +        pure     flannel-nft: Transaction (atomic)
//!  once       | kubernetes    fold        LeaseTable                 flannel-vxlan: Plan (ordered)
//!                                            ▲                         │
//!                            node facts ─────┤      observe ◀──────────┘
//! ```
//!
//! The modules follow that picture. [`run`](run::run) is the life of the daemon, [`reconcile`] the one task that
//! writes to the kernel.

pub mod argv;
pub mod commands;
pub mod config;
pub mod desired;
pub mod file;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod logging;
pub mod node;
pub mod open_store;
pub mod reconcile;
pub mod run;
pub mod serve;
pub mod status;
