//! The subcommands of flanneld.

pub mod cleanup;
mod context;
mod devices;
pub mod doctor;
mod error;
pub mod install_conf;
mod legacy_iptables;
pub mod manifest;
mod peers;
pub mod plan;
pub mod status;
mod upstream_daemon;

pub use self::error::CommandError;
use flannel_nft::{Building, Kernel, ObserveError, Observed, Ruleset, Table, Transaction};

use crate::desired::rules::TablePrefix;

/// Status to leave with when there is something to change.
pub const SOMETHING: u8 = 3;

/// What a subcommand has to say, and the status to leave with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// For stdout.
    pub text: String,
    /// The exit status.
    pub code: u8,
}

/// The prefixes of flannel's tables: the configured one, else all that daemons choose by themselves and that have tables.
fn table_prefixes(
    configured: Option<&TablePrefix>,
    kernel: &mut impl Kernel,
) -> Result<Vec<TablePrefix>, ObserveError> {
    if let Some(prefix) = configured {
        return Ok(vec![prefix.clone()]);
    }
    let mut prefixes = vec![TablePrefix::default()];
    for prefix in kernel.tables()?.iter().filter_map(TablePrefix::chosen_for) {
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    Ok(prefixes)
}

/// What it takes to make the kernel hold these tables. Nothing if the daemon only has to own them (again), which no
/// command could do for it.
fn table_changes(wanted: &Ruleset, observed: &Observed) -> Transaction<Building> {
    let changes = flannel_nft::diff(wanted, observed);
    let text = changes.to_string();
    let is_there = |table: &Table| observed.ruleset.tables().iter().any(|found| found.id() == table.id());
    let only_owns =
        wanted.tables().iter().all(is_there) && text.lines().all(|line| line.starts_with("add table "));
    if only_owns { Transaction::at(observed.generation) } else { changes }
}
