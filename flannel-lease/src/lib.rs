//! Subnet leases: which node holds which pod subnet, and how the other nodes reach it.
//!
//! A [`LeaseStore`] gives this node a lease, keeps it renewed, and reports the leases of all nodes as
//! [`LeaseEvent`]s. A [`LeaseTable`] folds these events into the set of peers. Formats are upstream
//! flannel's, so nodes that run either daemon share a store.
//!
//! ```text
//! SQLite file ─┐                  acquire, hold, update
//! etcd v3 ─────┼─ LeaseStore ─┬──────────────────────────▶ this node's Lease
//! Kubernetes ──┘              └─ watch ─▶ LeaseEvent ─▶ LeaseTable ─▶ peers
//! ```
//!
//! Guarantee: an unreachable store, a malformed entry or a failed call never removes a lease. Only a
//! positive statement of the store does.
//!
//! Limits: this crate touches neither network devices nor routes; `flannel-vxlan` does. It reads no
//! environment variables, opens no port and installs no logger; it logs through `tracing`.
//!
//! # Features
//! | feature | store |
//! |---|---|
//! | `sqlite` | a file shared by the processes of one machine ([`sqlite`]) |
//! | `etcd` | an etcd v3 cluster, with upstream's keys ([`etcd`]) |
//! | `kubernetes` | annotations of Kubernetes nodes, as upstream's ([`kube`]) |
//! | `fake` | an etcd in memory, for tests ([`etcd::FakeEtcd`]) |
//! | `conformance` | the suite that every store passes ([`conformance`]), for stores of your own |
//!
//! None is on by default.

pub mod allocate;
mod backoff;
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
mod event;
pub mod file;
#[cfg(all(feature = "fuzzing", feature = "etcd", feature = "kubernetes"))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod key;
#[cfg(feature = "kubernetes")]
pub mod kube;
mod lease;
mod lease_table;
#[cfg(any(feature = "etcd", feature = "kubernetes", feature = "sqlite"))]
mod malformed_entries;
#[cfg(any(feature = "etcd", feature = "kubernetes", feature = "sqlite"))]
mod republish_backoff;
#[cfg(any(feature = "etcd", feature = "kubernetes"))]
mod resolver;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod store;
#[cfg(any(feature = "etcd", feature = "kubernetes"))]
mod tls;

pub use self::allocate::{AllocationRange, FamilyRange};
pub use self::backoff::{Backoff, MAX_REWRITE_PAUSE, pause_before_rewrite};
pub use self::codec::{BackendData, LeaseKeyError, VxlanData, WireguardData};
pub use self::error::{Chain, StoreError, StoreErrorKind};
pub use self::event::LeaseEvent;
pub use self::health::{Health, StoreHealth};
pub use self::key::{LeaseKey, Stack};
pub use self::lease::{BackendType, Gaps, Lease, LeaseAttributes, PublicAddress};
pub use self::lease_table::LeaseTable;
pub use self::store::{LEASE_TTL, LeaseLost, LeaseRequest, LeaseStore, StoreFuture, Timing};

/// Compiles the example of README.md.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;
