//! Errors of netlink sockets. They do not say what the caller was doing; callers add that.

use std::fmt;
use std::io;

use crate::{Errno, Protocol};

/// A netlink socket could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} a {protocol} netlink socket{}", hint(*protocol, source))]
pub struct OpenError {
    /// The step that failed: `open`, `configure`, ...
    pub step: &'static str,
    /// The netlink protocol of the socket.
    pub protocol: Protocol,
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

fn hint(protocol: Protocol, source: &io::Error) -> String {
    match (protocol, source.raw_os_error().map(Errno::from_raw)) {
        (Protocol::Netfilter, Some(Errno::EPROTONOSUPPORT)) => {
            ": the kernel lacks nf_tables (CONFIG_NF_TABLES)".to_owned()
        }
        // Subscribing to notifications of nf_tables needs the capability (`netlink_bind`).
        (_, Some(Errno::EPERM)) => format!(": {LACKS_CAPABILITY}"),
        _ => String::new(),
    }
}

/// The kernel's check of nearly every netlink request that it refuses with `EPERM` (`netlink_net_capable`,
/// net/netlink/af_netlink.c).
const LACKS_CAPABILITY: &str = "this process lacks CAP_NET_ADMIN in the user namespace that owns its network namespace; run \
     it as root, or grant it that capability (a container: NET_ADMIN; a rootless container also needs a network namespace of \
     its own)";

/// The kernel refused a message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub struct Refusal {
    /// Number of the message in its [`Batch`](crate::Batch).
    pub message: u32,
    /// The error number.
    pub errno: Errno,
    /// The kernel's explanation (`NLMSGERR_ATTR_MSG`), if it gave one.
    pub text: Option<String>,
    /// Offset of the attribute that the kernel objects to, in bytes from the start of the message
    /// (`NLMSGERR_ATTR_OFFS`).
    pub offset: Option<u32>,
}

impl Refusal {
    /// A refusal without an explanation, e.g. of a fake kernel.
    #[must_use]
    pub fn new(message: u32, errno: Errno) -> Self {
        Self { message, errno, text: None, offset: None }
    }

    /// The kernel's explanation. If it gave none, what the error number means for every request: for `EPERM` the missing
    /// capability and its namespace.
    #[must_use]
    pub fn explanation(&self) -> Option<&str> {
        match (&self.text, self.errno) {
            (Some(text), _) => Some(text),
            (None, Errno::EPERM) => Some(LACKS_CAPABILITY),
            (None, _) => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.errno)?;
        match self.explanation() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

/// The kernel's replies did not fit into the receive buffer, or ended without the expected reply.
#[derive(Debug, thiserror::Error)]
#[error("the reply of the kernel did not fit into the receive buffer, or did not arrive")]
pub struct LostReply(#[source] pub(crate) io::Error);

/// A batch has no reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError {
    /// A message has an attribute of more than 65,531 bytes. Nothing was sent.
    #[error("message {message} of the batch has an attribute that is too long for netlink (65531 bytes)")]
    TooLong {
        /// The number of the message in the batch.
        message: u32,
    },
    /// The datagram could not be sent. The kernel has not seen it.
    #[error("cannot send a batch of {bytes} bytes")]
    NotSent {
        /// Length of the datagram in bytes.
        bytes: usize,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel has processed the datagram, but its reply was lost.
    #[error("the kernel processed the batch, but its reply was lost")]
    Lost(#[source] LostReply),
    /// The reply is malformed.
    #[error("the kernel's reply is malformed")]
    Malformed(#[source] Malformed),
}

/// A request has no usable reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The kernel replied with an error.
    #[error("the kernel refused the request")]
    Refused(#[source] Refusal),
    /// The request has no reply.
    #[error(transparent)]
    Transact(TransactError),
}

/// A dump is incomplete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// Other writers changed the objects during every attempt (`NLM_F_DUMP_INTR`).
    #[error("other processes changed what was read during each of {attempts} attempts")]
    Interrupted {
        /// Number of attempts.
        attempts: u32,
    },
    /// The request failed.
    #[error(transparent)]
    Ask(AskError),
}

/// Malformed bytes from the kernel.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A message is truncated.
    #[error("a message is shorter than its header says")]
    Message,
    /// An attribute is truncated.
    #[error("an attribute is shorter than its header says")]
    Attribute,
    /// The length of an attribute does not fit its type.
    #[error("attribute {kind} has {have} bytes instead of {want}")]
    Length {
        /// Type of the attribute.
        kind: u16,
        /// Required length in bytes.
        want: usize,
        /// Actual length in bytes.
        have: usize,
    },
    /// The text of an attribute is not UTF-8.
    #[error("attribute {kind} is not UTF-8 text")]
    Text {
        /// Type of the attribute.
        kind: u16,
        /// Where the text stops being UTF-8.
        #[source]
        source: std::str::Utf8Error,
    },
    /// An attribute or header has an unexpected value.
    #[error("a message has an unexpected {what}")]
    Value {
        /// The unexpected value, in the reader's words.
        what: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use testkit::repetition;

    use super::*;

    #[test]
    fn no_error_repeats_its_cause() {
        let kernel = || io::Error::from_raw_os_error(105); // ENOBUFS
        let errors = || {
            [
                TransactError::NotSent { bytes: 40, source: kernel() },
                TransactError::Lost(LostReply(kernel())),
                TransactError::Malformed(Malformed::Message),
            ]
        };
        for error in errors() {
            assert_eq!(repetition(&error), None, "{error:?}");
        }
        for error in errors().map(AskError::Transact).map(DumpError::Ask) {
            assert_eq!(repetition(&error), None, "{error:?}");
        }
        let refused = DumpError::Ask(AskError::Refused(Refusal::new(0, Errno::EPERM)));
        assert_eq!(repetition(&refused), None);
    }
}
