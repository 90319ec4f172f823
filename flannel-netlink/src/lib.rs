//! One long-lived netlink socket: batches, acks matched to messages, dumps, multicast.
//!
//! The ground floor of `flannel-nft` and `flannel-vxlan`. It knows how bytes travel to the kernel and back, and
//! nothing about tables, links or routes.
//!
//! ```text
//! Batch ── transact (one datagram) ──┐            ┌─▶ Answer: acknowledged, refused[message, errno, ext-ack]
//!       └─ execute (many, in order) ─┤  Socket ──▶┤
//! question ── ask, dump ─────────────┘            └─▶ what the fold made of the replies
//!                                       Monitor ──▶ notifications, or "some were lost"
//! ```
//!
//! Three facts shape it (Linux 6.18; `docs/design.md` has the measurements):
//!
//! - A socket is kept for the life of the program. Closing one after a commit that deleted something waits for an
//!   RCU grace period, about 12 ms.
//! - The kernel queues every reply before `send` returns, so nothing here ever blocks or needs a timeout.
//! - Only the last message of a datagram asks for an ack. Errors of the others come back regardless.
//!
//! It has no async code: a [`Monitor`] is a file descriptor that a runtime can poll.
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
mod error;
mod message;
mod monitor;
mod protocol;
mod socket;
mod uapi;

pub use attribute::{Attribute, AttributeIter, Attributes, attributes};
pub use batch::{Batch, Flags};
pub use error::{AskError, DumpError, LostReply, Malformed, OpenError, Refusal, TransactError};
pub use message::{Message, MessageIter, messages};
pub use monitor::{Incomplete, Monitor, Received};
pub use nix::errno::Errno;
pub use protocol::Protocol;
pub use socket::{Answer, Socket};
