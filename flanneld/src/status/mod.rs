//! The daemon's status: what it is made of, and how others ask for it.

pub mod counters;
pub mod model;
pub mod query;
pub mod readiness;
pub mod snapshot;
pub(crate) mod wireguard_sessions;
