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
//! [`FakeKernel`] instead of [`Netlink`] it runs anywhere and touches nothing.
//!
//! # Example: see what would be done
//!
//! ```
//! use flannel_nft::{Family, Kernel, FakeKernel, Ruleset, Set, Datatype, SetName, Table, TableName, diff};
//!
//! let set = Set::new(SetName::new("excluded")?, Datatype::Ipv4Addr)
//!     .interval()
//!     .elements(["192.168.0.0/16".parse::<ipnet::Ipv4Net>()?]);
//! let desired = Ruleset::new().table(Table::new(Family::Ip, TableName::new("pods")?).set(set));
//! let observed = FakeKernel::default().observe(&desired.scope())?; // Netlink::open()? for the real one
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
//! - [`RetainedRuleset`] does it again and again, at the price of one short question while nobody changes anything.
//! - [`observe`], [`diff`], [`Transaction::seal`] and [`Transaction::commit`] are its steps.
//! - [`converge_with`] does the same with a plan of your own; [`iptables`] has some for other programs' tables.
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

mod bytecode;
mod converge;
mod error;
pub mod iptables;
mod kernel;
mod model;
mod text;
mod transaction;
mod uapi;
mod wire;

pub use converge::{Outcome, RetainedRuleset, converge, converge_with, generation, observe};
pub use error::{CommitError, ConvergeError, InvalidRule, ObserveError, ReadError, RefusalReason, SealError};
pub use flannel_netlink::{Errno, OpenError};
pub use kernel::fake::FakeKernel;
#[cfg(feature = "tokio")]
pub use kernel::monitor::MonitorStream;
pub use kernel::monitor::{Event, Foreign, Monitor};
pub use kernel::netlink::Netlink;
pub use kernel::{Kernel, Observed};
pub use model::chain::{Base, Chain, ChainKind, Hook, Policy, Priority};
pub use model::datatype::Datatype;
pub use model::element::{Element, Key};
pub use model::family::Family;
pub use model::ids::{Generation, Handle, TableId};
pub use model::matching::{IpVersion, Match};
pub use model::name::{
    ChainName, Comment, CounterName, InterfaceName, LogPrefix, NameError, SetName, TableName,
};
pub use model::operand::{Addresses, Ports};
pub use model::protocol::Protocol;
pub use model::rule::{Rule, VmapKey};
pub use model::ruleset::{Ownership, Ruleset};
pub use model::selector::{ct, fib, ip, meta, sctp, tcp, th, udp};
pub use model::set::Set;
pub use model::statement::{IpRange, Limit, Log, Mark, Nat, Per, Reject};
pub use model::table::{Counter, Table};
pub use model::value::Value;
pub use model::verdict::Verdict;
pub use transaction::change::{Change, RulePlace};
pub use transaction::diff::diff;
pub use transaction::{Building, Sealed, Transaction};
