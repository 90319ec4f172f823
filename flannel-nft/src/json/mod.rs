//! Rulesets as JSON, in the format of libnftables-json(5): what `nft -j list ruleset` prints and
//! `nft -j -f -` reads.
//!
//! - [`parse`] reads the output of `nft -j list ruleset`; [`converge`](crate::converge) makes the
//!   kernel hold it, in one commit.
//! - [`print()`] writes a ruleset, e.g. an observed one, as nft prints it.
//! - [`apply`] runs commands (`add`, `delete`, `flush`, ...) in one commit, like `nft -j -f -`.
//!
//! No type of another crate is in this interface: it takes and returns text. A program that builds
//! its commands with the `nftables` crate serializes them with `serde_json`.
//!
//! ```
//! use flannel_nft::{FakeKernel, json};
//!
//! let mut kernel = FakeKernel::default(); // Netlink::open()? for the real kernel
//! json::apply(&mut kernel, r#"{ "nftables": [
//!     { "add": { "table": { "family": "inet", "name": "web" } } },
//!     { "add": { "chain": { "family": "inet", "table": "web", "name": "input",
//!         "type": "filter", "hook": "input", "prio": 0, "policy": "drop" } } },
//!     { "add": { "rule": { "family": "inet", "table": "web", "chain": "input", "expr": [
//!         { "match": { "op": "==", "left": { "payload": { "protocol": "tcp", "field": "dport" } },
//!             "right": 443 } },
//!         { "accept": null }
//!     ] } } }
//! ] }"#)?;
//! # use flannel_nft::Kernel;
//! # let tables = Kernel::tables(&mut kernel)?;
//! # assert!(kernel.observe(&tables)?.ruleset.to_string().contains("tcp dport 443 accept"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What JSON cannot express
//!
//! nft's JSON format has no form for some parts of a ruleset. [`parse`] cannot know them:
//!
//! - `jump { ... }`: nft prints it as text, which is an error here.
//! - times below one second; the level of `socket cgroupv2`; several statements of one element;
//!   flags of flowtables.
//! - in the output of nft before 1.1: devices of chains, `auto-merge`, and the flag `dynamic` of sets.
//!   [`parse`] sets the flag if a rule adds elements to the set.
//! - what has no type in this crate, like matches and targets of iptables.
//!
//! [`print()`] writes such a part as nft does.

mod apply;
mod error;
mod object;
mod read;
mod read_expression;
mod read_map;
mod read_nat;
mod read_object;
mod read_parts;
mod read_statement;
mod read_value;
mod scope;
mod value;
mod write;
mod write_expression;

pub use apply::{ApplyError, apply};
pub use error::JsonError;
pub use read::parse;

use serde_json::{Value, json};

use crate::display::NftVersion;
use crate::model::ruleset::Ruleset;

/// Writes a ruleset as `nft -j list ruleset` does, without `metainfo`.
///
/// The numbers of interfaces stay numbers, except for `lo`: names belong to a host.
#[must_use]
pub fn print(ruleset: &Ruleset, version: NftVersion) -> String {
    let objects: Vec<Value> = ruleset.tables.iter().flat_map(|table| version.table(table)).collect();
    json!({ "nftables": objects }).to_string()
}
