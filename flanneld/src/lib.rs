//! Pod networking for Kubernetes nodes and plain hosts.
//!
//! ```text
//! config ──▶ lease store ──▶ events ──▶ desired state ──▶ diff ──▶ kernel
//!  parse      sqlite | etcd   LeaseEvent  Setting +         pure     flannel-nft: Transaction (atomic)
//!  once       | kubernetes    fold        LeaseTable                 flannel-vxlan: Plan (ordered)
//!                                            ▲                         │
//!                            node facts ─────┤      observe ◀──────────┘
//! ```
//!
//! The modules follow that picture. [`run`](run::run) is the life of the daemon, [`reconcile`] the one task that
//! writes to the kernel.

pub mod asker;
mod calm;
pub mod commands;
pub mod conceal;
pub mod config;
pub mod desired;
pub mod error;
pub mod event;
pub mod file;
pub mod health;
pub mod http;
pub mod install_conf;
pub mod lease;
pub mod live;
pub mod local;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod monitor;
pub mod neighbours;
pub mod node;
mod notify;
pub mod ownership;
pub mod page;
pub mod presence;
pub mod reconcile;
pub mod rules;
pub mod run;
mod start;
pub mod status;
pub mod subnet_env;
pub mod survey;
pub mod telemetry;
mod tenancy;
