//! Atomic nftables transactions over netlink, without the `nft` program.
//!
//! Describe the tables you want as a [`Ruleset`]. [`converge`] reads the kernel's tables, computes
//! the difference and sends it as one batch. If nothing differs, it sends nothing.
//!
//! # Guarantees
//!
//! - **Atomic.** The kernel applies a [`Transaction`] completely or not at all, for IPv4 and IPv6
//!   together. No packet sees an empty chain or half of a change.
//! - **Minimal.** Rules that stay keep their handles and counters; elements of sets are added and
//!   removed one by one.
//! - **Safe next to other writers.** A transaction applies only to the generation of the ruleset
//!   that it was computed from. If another process commits first, `converge` starts over.
//! - **Definite errors.** Each error states what the kernel holds afterwards.
//!
//! ```text
//! Ruleset ──┐
//!           ├─ diff ─▶ Transaction<Building> ─ seal ─▶ Transaction<Sealed> ─ commit ─▶ Generation
//! observe ──┘                                                        Monitor ─▶ commits of other processes
//! ```
//!
//! # Limits
//!
//! - A [`Ruleset`] describes whole tables. To change a table that another program manages, add
//!   single changes to a [`Transaction`] yourself.
//! - There is no parser for nft scripts.
//! - What has no type here (keys of tunnel metadata, iptables' own matches and targets, what newer
//!   kernels add) is kept as the kernel returned it; [`Rule::is_understood`] is false for such a rule. It is written
//!   back unchanged, with its anonymous sets and maps.
//! - nft may compare two adjacent fields of a packet with one expression (`tcp sport 1 tcp dport
//!   2`), a rule built with this crate with two. A built rule is not recognized as equal to such a
//!   rule of nft, and replaces it.
//! - `Display` prints the form of the newest nft (1.1.7), [`NftVersion::display`] also that of nft 1.0.6. It knows no names of this host: it prints the numbers of users, groups and interfaces,
//!   and times in UTC.
//! - The kernel and `nft list` accept a keyword of nft's language as a name (`fwd`, `route`), but
//!   `nft -f` cannot read it back.
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
//! It needs `CAP_NET_ADMIN`. `nft list table ip pods` shows the result and `nft delete table ip
//! pods` removes it. With [`FakeKernel`] instead of [`Netlink`] it runs without privileges and
//! changes nothing.
//!
//! # Example: print the changes without applying them
//!
//! ```
//! use flannel_nft::{Family, Kernel, FakeKernel, Ruleset, Set, Datatype, SetName, Table, TableName, diff};
//!
//! let set = Set::new(SetName::new("excluded")?, Datatype::Ipv4Addr)
//!     .interval()
//!     .elements(["192.168.0.0/16".parse::<ipnet::Ipv4Net>()?]);
//! let desired = Ruleset::new().table(Table::new(Family::Ip, TableName::new("pods")?).set(set));
//! let observed = FakeKernel::default().observe(&desired.scope())?; // Netlink::open()? for the real kernel
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
//! # Choose a level
//!
//! - [`converge`]: observe, compare, commit, and start over if another process committed in
//!   between.
//! - [`RetainedRuleset`]: converge repeatedly. While nothing changes, a call costs one request of 3
//!   µs. [`RetainedRuleset::patch`] changes some chains and elements at a cost that does not depend on
//!   the ruleset's size.
//! - [`converge_with`]: converge with a plan of your own instead of [`diff`]; [`iptables`] has
//!   plans for tables of other programs.
//! - [`observe`], [`diff`], [`Transaction::seal`], [`Transaction::commit`]: the single steps.
//! - [`Transaction`]'s other methods: single changes. One element of a set costs one message,
//!   whatever the set's size.
//! - [`generation`]: whether anything has changed since, in 2.5 µs. [`Monitor`]: which process
//!   changed what.
//!
//! # What the kernel holds after an error
//!
//! | error | the kernel holds |
//! |---|---|
//! | [`SealError`], [`ObserveError`] | the old ruleset; nothing was sent |
//! | [`CommitError::Refused`], [`CommitError::Stale`], [`CommitError::NotSent`], [`CommitError::Lost`] | the old ruleset |
//! | [`CommitError::Overtaken`] | the changes, on top of those of another process |
//! | [`CommitError::Unanswered`] and others with [`CommitError::may_be_applied`] | all of the old or all of the new |
//!
//! # Features
//!
//! No feature is on by default. Nothing here needs an async runtime, and all types are `Send`.
//!
//! - `json`: module `json`, which reads and writes rulesets and commands in the format of `nft -j`.
//! - `tokio`: `Monitor::into_stream`, the commits of other processes as an async stream
//!   (`futures_core::Stream`).

mod bytecode;
mod converge;
mod display;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod iptables;
#[cfg(feature = "json")]
pub mod json;
mod kernel;
mod model;
mod nft_compat;
mod refusal;
mod retained_ruleset;
mod transaction;
mod uapi;
mod who_drops;
mod wire;

pub use converge::{Outcome, converge, converge_with, generation, observe};
pub use display::NftVersion;
pub use error::{CommitError, ConvergeError, InvalidRule, ObserveError, ReadError, SealError};
pub use flannel_netlink::{Errno, OpenError};
pub use kernel::fake::FakeKernel;
#[cfg(feature = "tokio")]
pub use kernel::monitor::MonitorStream;
pub use kernel::monitor::{Event, Foreign, Monitor};
pub use kernel::netlink::Netlink;
pub use kernel::{Kernel, Observed};
pub use model::chain::{Base, Chain, ChainKind, Device, Hook, Policy, Priority};
pub use model::datatype::Datatype;
pub use model::element::{Element, Key, MappedTo};
pub use model::expression::Expression;
pub use model::family::Family;
pub use model::ids::{Generation, Handle, TableId};
pub use model::matching::{IpVersion, Match};
pub use model::name::{
    ChainName, Comment, CounterName, InterfaceName, LogPrefix, NameError, ObjectName, SetName, TableName,
};
pub use model::object::{Flowtable, Object, ObjectKind};
pub use model::operand::{Addresses, Ports};
pub use model::patch::TablePatch;
pub use model::protocol::Protocol;
pub use model::rule::{Rule, VmapKey};
pub use model::ruleset::{Ownership, Ruleset};
pub use model::selector::{ct, fib, ip, meta, sctp, tcp, th, udp};
pub use model::set::Set;
pub use model::statement::{
    IpRange, Limit, Log, Mark, Nat, NatKind, Per, Queue, Quota, RawExpression, Reject, SetUpdate, Synproxy,
};
pub use model::statement_view::{Comparison, NatTarget, SetView, StatementView};
pub use model::table::{Counter, Table};
pub use model::value::Value;
pub use model::verdict::Verdict;
pub use refusal::RefusalReason;
pub use retained_ruleset::RetainedRuleset;
pub use transaction::change::{Change, RulePlace};
pub use transaction::diff::diff;
pub use transaction::{Building, Sealed, Transaction};
pub use who_drops::{Dropped, dropped};

/// Fields that matches compare, maps look up and statements set, under nft's names:
/// `field::tcp::SEQUENCE` is `tcp sequence`.
pub mod field {
    pub use crate::model::exthdr::{exthdr, ip_option, sctp_chunk, tcp_option};
    pub use crate::model::field::{
        Base, Field, cgroupv2, ct, ipsec, meta, numgen_inc, numgen_random, osf, rt, socket, symhash,
    };
    pub use crate::model::field::{GENEVE_VNI, VXLAN_FLAGS, VXLAN_VNI};
    pub use crate::model::header::{
        ah, arp, comp, dccp, esp, ether, gre, icmp, icmpv6, igmp, ip, ip6, sctp, tcp, th, udp, udplite, vlan,
    };
    pub use crate::model::tunnel::Tunnel;
}

/// Compiles the example of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
