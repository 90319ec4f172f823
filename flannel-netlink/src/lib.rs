//! One long-lived netlink socket: batches, acks matched to messages, dumps, notifications.
//!
//! `flannel-nft` and `flannel-vxlan` are built on this crate. It sends and receives messages and
//! attributes, and knows nothing about tables, links or routes.
//!
//! ```text
//! Batch ── transact (one datagram) ──┐            ┌─▶ Answer: acknowledged, refused[message, errno, ext-ack]
//!       └─ execute (many, in order) ─┤  Socket ──▶┤
//! request  ── ask, dump ─────────────┘            └─▶ what the fold made of the replies
//!                                       Monitor ──▶ notifications, or Overflow
//! ```
//!
//! # Guarantees
//!
//! - **Precise refusals.** A refusal names its message in the batch, with the kernel's explanation
//!   and the offset of the attribute that it objects to.
//! - **Complete dumps.** A dump that other writers interrupt is repeated; the result is complete or
//!   an error.
//! - **No silent loss.** If a reply or notification is lost, the caller gets an error or
//!   [`Received::Overflow`].
//! - **No blocking.** The kernel queues every reply before `send` returns, so nothing here waits or
//!   needs a timeout. There is no async code: a [`Monitor`] is a file descriptor that a runtime can
//!   poll.
//!
//! Keep a socket for the life of the program: closing it after a commit that deleted something
//! waits for an RCU grace period of about 12 ms. Only the last message of a datagram requests an
//! ack; errors of the others arrive regardless.
//!
//! # Example
//!
//! ```
//! use flannel_netlink::{Batch, Flags, Protocol, Socket};
//!
//! const RTM_GETLINK: u16 = 18;
//! const IFINFOMSG_BYTES: usize = 16; // size_of(struct ifinfomsg)
//!
//! // ip link show, as a count
//! let mut socket = Socket::open(Protocol::Route)?;
//! let mut question = Batch::new();
//! question.message(RTM_GETLINK, Flags::DUMP, &[0; IFINFOMSG_BYTES], |_| {});
//! let links: usize = socket.dump(&mut question, |count, _link| {
//!     *count += 1;
//!     Ok(())
//! })?;
//! assert!(links >= 1, "every namespace has a loopback");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attribute;
mod batch;
mod errno;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod message;
mod monitor;
mod protocol;
mod socket;
mod uapi;

pub use attribute::{Attribute, AttributeIter, Attributes, attributes};
pub use batch::{Batch, Flags};
pub use errno::Errno;
pub use error::{AskError, DumpError, LostReply, Malformed, OpenError, Refusal, TransactError};
pub use message::{Message, MessageIter, messages};
pub use monitor::{Incomplete, Monitor, Received};
pub use protocol::Protocol;
pub use socket::{Answer, Socket};

/// Compiles the example of README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
