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
//! # Example: masquerade a subnet
//!
//! ```
//! # mod pasted {
//! use flannel_nft::{Base, Chain, ChainName, Family, Nat, Netlink, Outcome, Rule, Ruleset, Table, TableName, converge, ip};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pods: ipnet::Ipv4Net = "10.244.0.0/16".parse()?;
//!     let desired = Ruleset::new().table(
//!         Table::new(Family::Ip, TableName::new("pods")?).chain(
//!             Chain::base(ChainName::new("postrouting")?, Base::nat_postrouting())
//!                 .rule(Rule::new().when(ip::saddr(pods)).when(!ip::daddr(pods)).masquerade(Nat::new())),
//!         ),
//!     );
//!
//!     let mut kernel = Netlink::open()?; // keep it for the life of the program
//!     match converge(&mut kernel, &desired)? {
//!         Outcome::Changed { changes, .. } => println!("{changes} changes in one commit"),
//!         Outcome::Unchanged { .. } => println!("nothing to do"),
//!     }
//!     Ok(())
//! }
//! # pub(super) fn run() { main().unwrap(); assert!(testkit::sh("nft list table ip pods").contains("masquerade")) }
//! # }
//! # fn main() { testkit::netns(pasted::run) }
//! ```
//!
//! Run it as root; `nft list table ip pods` shows the result and `nft delete table ip pods` takes it away. With
//! [`Memory`] instead of [`Netlink`] it runs anywhere and touches nothing.
//!
//! # Example: see what would be done
//!
//! ```
//! use flannel_nft::{Family, Kernel, Memory, Ruleset, Set, Datatype, SetName, Table, TableName, diff};
//!
//! let set = Set::new(SetName::new("excluded")?, Datatype::Ipv4Addr)
//!     .interval()
//!     .elements(["192.168.0.0/16".parse::<ipnet::Ipv4Net>()?]);
//! let desired = Ruleset::new().table(Table::new(Family::Ip, TableName::new("pods")?).set(set));
//! let observed = Memory::default().observe(&desired.scope())?; // Netlink::open()? for the real one
//! assert_eq!(
//!     diff(&desired, &observed).to_string(), // a script for `nft -f`
//!     "add table ip pods
//! add set ip pods excluded { type ipv4_addr; flags interval; }
//! add element ip pods excluded { 192.168.0.0/16 }
//! "
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Levels
//!
//! - [`converge`] does everything: observe, compare, commit, and start anew if others were faster.
//! - [`Keeper`] does it again and again, at the price of one short question while nobody changes anything.
//! - [`observe`], [`diff`], [`Transaction::seal`] and [`Transaction::commit`] are its steps.
//! - [`amend`] does the same with a plan of your own; [`neighbours`] has some for other programs' tables.
//! - The methods of [`Transaction`] are single changes, for tables that are not yours as a whole or when you know what
//!   to change: one element of a set costs one message, whatever its size.
//! - [`generation`] (2.5 µs) tells whether anybody has changed anything since; [`Monitor`] tells who, what and when.
//!
//! # What the kernel holds after an error
//!
//! | error | the kernel holds |
//! |---|---|
//! | [`SealError`], [`ObserveError`] | what it held; nothing was sent |
//! | [`CommitError::Refused`], [`CommitError::Stale`], [`CommitError::NotSent`], [`CommitError::Lost`] | what it held |
//! | [`CommitError::Unanswered`] and others with [`CommitError::may_be_applied`] | all of the old or all of the new |
//!
//! # Limits
//!
//! - It manages whole tables. It does not edit tables made by others unless told to change by change, and it does not
//!   parse nft scripts.
//! - Words of nft that are not here (concatenations, flowtables, quotas, ...) are kept as the kernel gave them when
//!   they are observed, and written back unchanged; [`Rule::is_understood`] tells.
//! - nft reads two neighbouring fields of a packet with one instruction (`ip saddr 1.1.1.1 ip daddr 2.2.2.2`), this
//!   crate with two. A rule that nft wrote so is not recognised as equal, and is replaced.
//! - A name that is a word of nft's language (`fwd`, `route`) is fine for the kernel and for `nft list`, but `nft -f`
//!   cannot read it back.
//!
//! # Features
//!
//! None is on by default: nothing here needs an async runtime, and everything can move between threads (`Send`).
//!
//! - `tokio`: `Monitor::into_stream`, foreign changes as an async stream (`futures_core::Stream`). Nothing else changes.

mod chain;
mod change;
mod data;
mod datatype;
mod diff;
mod element;
mod error;
mod expr;
mod keeper;
mod kernel;
mod lower;
mod matching;
mod memory;
mod monitor;
mod name;
pub mod neighbours;
mod netlink;
mod operand;
mod raise;
mod rule;
mod ruleset;
mod selector;
mod set;
mod statement;
mod table;
mod text;
mod transaction;
mod value;
mod wire;

pub use chain::{Base, Chain, ChainKind, Hook, Policy, Priority};
pub use change::{Change, RulePlace};
pub use datatype::Datatype;
pub use diff::diff;
pub use element::{Element, Key};
pub use error::{CommitError, ConvergeError, Mistake, ObserveError, RefusalReason, SealError};
pub use flannel_netlink::Errno;
pub use keeper::Keeper;
pub use kernel::{Kernel, Observed, Outcome, amend, converge, generation, observe};
pub use matching::{IpVersion, Match};
pub use memory::Memory;
#[cfg(feature = "tokio")]
pub use monitor::MonitorStream;
pub use monitor::{Event, Foreign, Monitor};
pub use name::{ChainName, Comment, CounterName, InterfaceName, LogPrefix, NameError, SetName, TableName};
pub use netlink::Netlink;
pub use operand::{Addresses, Ports};
pub use rule::{Rule, VmapKey};
pub use ruleset::{Family, Ownership, Ruleset};
pub use selector::{ct, fib, ip, meta, sctp, tcp, th, udp};
pub use set::Set;
pub use statement::{IpRange, Limit, Log, Mark, Nat, Per, Reject, Verdict};
pub use table::{Counter, Handle, Table, TableId};
pub use transaction::{Building, Generation, Sealed, Transaction};
pub use value::{Protocol, Value};
