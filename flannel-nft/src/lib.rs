//! Atomic nftables transactions over netlink, without the nft binary.
//!
//! Describe the tables you want as a [`Ruleset`]. This crate compares them with the kernel's and sends the difference
//! as one batch: the kernel applies all of it or none of it, for IPv4 and IPv6 at once, and at no instant is a chain
//! empty. If nothing differs, nothing is sent.
//!
//! ```text
//! Ruleset ──┐
//!           ├─ diff ─▶ Transaction<Building> ─ seal ─▶ Transaction<Sealed> ─ commit ─▶ Generation
//! observe ──┘                                                        Monitor ─▶ what others change
//! ```
//!
//! It manages whole tables. It does not edit tables made by others unless told to change by change, and it does not
//! parse nft scripts.

mod change;
mod data;
mod diff;
mod error;
mod expr;
mod kernel;
mod lower;
mod matching;
mod memory;
mod monitor;
mod name;
mod netlink;
mod raise;
mod rule;
mod ruleset;
mod set;
mod text;
mod transaction;
mod wire;

pub use change::{Change, RulePlace};
pub use data::{Datatype, Protocol, Value};
pub use diff::diff;
pub use error::{CommitError, ConvergeError, Mistake, ObserveError, RefusalReason, SealError};
pub use kernel::{Kernel, Observed, Outcome, converge, generation, observe};
pub use matching::{Addresses, IpVersion, Match, Ports, ct, fib, ip, meta, sctp, tcp, th, udp};
pub use memory::Memory;
#[cfg(feature = "tokio")]
pub use monitor::MonitorStream;
pub use monitor::{Event, Foreign, Monitor};
pub use name::{ChainName, Comment, CounterName, InterfaceName, LogPrefix, NameError, SetName, TableName};
pub use netlink::Netlink;
pub use rule::{IpRange, Limit, Log, Mark, Nat, Per, Reject, Rule, Verdict, VmapKey};
pub use ruleset::{
    Base, Chain, ChainKind, Counter, Family, Handle, Hook, Ownership, Policy, Priority, Ruleset, Table,
    TableId,
};
pub use set::{Element, Key, Set};
pub use transaction::{Building, Generation, Sealed, Transaction};
