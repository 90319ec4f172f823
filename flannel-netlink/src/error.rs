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
            ": this kernel lacks nftables (CONFIG_NF_TABLES); run `modprobe nf_tables` on the host, or use a kernel that has it"
                .to_owned()
        }
        (_, Some(Errno::EMFILE | Errno::ENFILE)) => {
            ": raise the limit of open files (ulimit -n, fs.file-max)".to_owned()
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
    /// capability and its namespace, for `ENOMEM` what to do.
    #[must_use]
    pub fn explanation(&self) -> Option<&str> {
        match (&self.text, self.errno) {
            (Some(text), _) => Some(text),
            (None, Errno::EPERM) => Some(LACKS_CAPABILITY),
            (None, Errno::ENOMEM) => Some("the kernel has no memory for it, so free some"),
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
#[error("{}", loss(.0))]
pub struct LostReply(#[source] pub(crate) io::Error);

fn loss(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOBUFS) => "it did not fit into the receive buffer of the netlink socket",
        Some(Errno::EAGAIN | Errno::ENODATA) => "the kernel sent no reply to this request",
        _ => "it could not be received",
    }
}

/// What to do if a datagram cannot be sent (`netlink_sendmsg`, net/netlink/af_netlink.c).
fn send_advice(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMSGSIZE) => {
            ", which is more than the socket's send buffer holds; raise net.core.wmem_max, or grant this process CAP_NET_ADMIN"
        }
        Some(Errno::ENOBUFS | Errno::ENOMEM) => "; the kernel has no memory for it, so free some",
        _ => "",
    }
}

/// A batch has no reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError {
    /// A message has an attribute of more than 65,531 bytes. Nothing was sent.
    #[error(
        "message {message} of the batch has an attribute of more than 65531 bytes, which netlink cannot carry; split its object"
    )]
    TooLong {
        /// The number of the message in the batch.
        message: u32,
    },
    /// The datagram could not be sent. The kernel has not seen it.
    #[error("cannot send a request of {bytes} bytes to the kernel{}", send_advice(source))]
    NotSent {
        /// Length of the datagram in bytes.
        bytes: usize,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel has processed the datagram, but its reply was lost.
    #[error("the kernel's reply was lost; read its state again before you go on")]
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
    #[error("other processes changed the listed objects during each of {attempts} attempts; try again later")]
    Interrupted {
        /// Number of attempts.
        attempts: u32,
    },
    /// The request failed.
    #[error(transparent)]
    Ask(AskError),
}

/// Malformed bytes from the kernel: a bug, of this crate or of the kernel.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A message is truncated.
    #[error("a netlink message is shorter than its header says; {REPORT}")]
    Message,
    /// An attribute is truncated.
    #[error("a netlink attribute is shorter than its header says; {REPORT}")]
    Attribute,
    /// The length of an attribute does not fit its type.
    #[error("netlink attribute {kind} has {have} bytes instead of {want}; {REPORT}")]
    Length {
        /// Type of the attribute.
        kind: u16,
        /// Required length in bytes.
        want: usize,
        /// Actual length in bytes.
        have: usize,
    },
    /// The text of an attribute is not UTF-8.
    #[error("netlink attribute {kind} is not UTF-8 text; {REPORT}")]
    Text {
        /// Type of the attribute.
        kind: u16,
        /// Where the text stops being UTF-8.
        #[source]
        source: std::str::Utf8Error,
    },
    /// A value is missing or unexpected.
    #[error("a netlink message has no valid {what}; {REPORT}")]
    Value {
        /// The value, without an article: `prefix length`.
        what: &'static str,
    },
}

/// What to do about malformed bytes.
const REPORT: &str = "report this bug with the output of `uname -r`";

#[cfg(test)]
mod tests {
    use testkit::{causes, repetition};

    use super::*;

    const ENOBUFS: i32 = 105;
    const EMSGSIZE: i32 = 90;

    #[test]
    fn an_error_says_what_to_do() {
        let ask = |error| causes(&DumpError::Ask(AskError::Transact(error)));
        let failed = io::Error::from_raw_os_error;
        assert_eq!(
            ask(TransactError::NotSent { bytes: 4312, source: failed(EMSGSIZE) }),
            "cannot send a request of 4312 bytes to the kernel, which is more than the socket's send buffer holds; raise \
             net.core.wmem_max, or grant this process CAP_NET_ADMIN: Message too long (os error 90)"
        );
        assert_eq!(
            ask(TransactError::Lost(LostReply(failed(ENOBUFS)))),
            "the kernel's reply was lost; read its state again before you go on: it did not fit into the receive buffer of the \
             netlink socket: No buffer space available (os error 105)"
        );
        assert_eq!(
            ask(TransactError::Malformed(Malformed::Value { what: "prefix length" })),
            "the kernel's reply is malformed: a netlink message has no valid prefix length; report this bug with the output of \
             `uname -r`"
        );
    }

    #[test]
    fn no_error_repeats_its_cause() {
        let kernel = || io::Error::from_raw_os_error(ENOBUFS);
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
