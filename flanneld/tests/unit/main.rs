//! What needs neither privileges nor processes: configuration, the reconciler over kernels in memory, what is served, and
//! the files that are made from the one definition of all flags.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a helper of a test may fail it")]

use flannel_nft::Ownership;
use flanneld::config::{Config, ResolvedConfig};
use flanneld::desired::rules::TablePrefix;

mod config;
mod manual;
mod node;
mod reconcile;
mod serve;

/// A configuration with the values that a start settles on for the only daemon of a host.
fn resolved(config: Config) -> ResolvedConfig {
    ResolvedConfig::new(config, Ownership::Shared, TablePrefix::default())
}
