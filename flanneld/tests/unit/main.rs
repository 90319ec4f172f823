//! What needs neither privileges nor processes: configuration, the reconciler over kernels in memory, what is served, and
//! the files that are made from the one definition of all flags.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod config;
mod manual;
mod reconcile;
mod serve;
