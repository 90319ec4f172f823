//! What can go wrong between us and the kernel. None of these says what was being done: the caller knows, and adds it.

use std::fmt;
use std::io;

use crate::{Errno, Protocol};

/// A netlink socket could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} a {protocol} netlink socket{}", hint(*protocol, source))]
pub struct OpenError {
    /// What could not be done: `open`, `configure`, ...
    pub step: &'static str,
    /// Which kind of socket.
    pub protocol: Protocol,
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

fn hint(protocol: Protocol, source: &io::Error) -> &'static str {
    let lacks_protocol = source.raw_os_error().map(Errno::from_raw) == Some(Errno::EPROTONOSUPPORT);
    match protocol {
        Protocol::Netfilter if lacks_protocol => ": the kernel lacks nf_tables (CONFIG_NF_TABLES)",
        _ => "",
    }
}

/// The kernel's error for one message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Refusal {
    /// Number of the message in its [`Batch`](crate::Batch).
    pub message: u32,
    /// The error.
    pub errno: Errno,
    /// The kernel's own words, if it gave any (`NLMSGERR_ATTR_MSG`).
    pub text: Option<String>,
    /// Where in the message, in bytes from its netlink header, the attribute lies that it objects to
    /// (`NLMSGERR_ATTR_OFFS`).
    pub offset: Option<u32>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.errno.desc(), self.errno)?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

/// The kernel's replies did not fit into the receive buffer, or ended without the one that was due.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's reply was lost")]
pub struct LostReply(#[source] pub(crate) io::Error);

/// Why a batch was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError {
    /// A message has an attribute of more than 65 531 bytes. Nothing was sent.
    #[error("message {message} of the batch has an attribute longer than netlink can carry")]
    TooLong {
        /// Its number in the batch.
        message: u32,
    },
    /// The datagram was not accepted, so the kernel has seen none of it.
    #[error("cannot send a batch of {bytes} bytes")]
    NotSent {
        /// Length of the datagram.
        bytes: usize,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel has worked on the datagram, but what came of it is unknown.
    #[error("no answer to the batch")]
    Lost(#[source] LostReply),
    /// The reply cannot be understood.
    #[error("the answer to the batch is malformed")]
    Malformed(#[source] Malformed),
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The kernel's answer is an error.
    #[error("the kernel refused to answer")]
    Refused(#[source] Refusal),
    /// The question was not answered.
    #[error("the question was not answered")]
    Transact(#[source] TransactError),
}

/// Why a listing could not be had whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// Other writers changed what was being listed, time and again (`NLM_F_DUMP_INTR`).
    #[error("the listing was interrupted by changes {attempts} times in a row")]
    Interrupted {
        /// How often it was tried.
        attempts: u32,
    },
    /// As for any question.
    #[error("the listing failed")]
    Ask(#[source] AskError),
}

/// Bytes from the kernel that do not have the form they should.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A message is cut short.
    #[error("a message is shorter than its header says")]
    Message,
    /// An attribute is cut short.
    #[error("an attribute is shorter than its header says")]
    Attribute,
    /// An attribute has the wrong length for its type.
    #[error("attribute {kind} has {have} bytes instead of {want}")]
    Length {
        /// Attribute number.
        kind: u16,
        /// Bytes its type has.
        want: usize,
        /// Bytes it had.
        have: usize,
    },
    /// An attribute that should be text is not.
    #[error("attribute {kind} is not text")]
    Text {
        /// Attribute number.
        kind: u16,
        /// Where it stops being UTF-8.
        #[source]
        source: std::str::Utf8Error,
    },
    /// An attribute or header has a value that the reader does not know what to make of.
    #[error("unexpected {what}")]
    Value {
        /// What it is, in the reader's words.
        what: &'static str,
    },
}
