//! Errors, and what the kernel holds after each of them.

use std::borrow::Cow;

use flannel_netlink::{AskError, DumpError, Errno, Malformed, TransactError};

use crate::model::family::Family;

/// A part of the kernel's state could not be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from the kernel")]
pub struct ObserveError {
    /// What was to be read: `links`, `link flannel.1`, `routes`, ...
    pub what: Cow<'static, str>,
    /// The cause.
    #[source]
    pub source: ReadError,
}

/// The cause of an [`ObserveError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A dump failed.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// A request failed.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The kernel's answer is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A [`FakeKernel`](crate::FakeKernel) was told to fail.
    #[error("{0}")]
    Fake(String),
}

/// Applying a plan was cut short. Some of its steps may have been applied: observe before going on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A batch of steps was not sent as a whole, or its reply was lost.
    #[error(
        "steps {first} to {last} of the plan, from `{command}` on, may have been applied; observe before you apply another plan"
    )]
    Batch {
        /// Number of the first step of the batch in the plan.
        first: usize,
        /// Number of the last step of the batch.
        last: usize,
        /// The first step as a shell command.
        command: String,
        /// The cause.
        #[source]
        source: TransactError,
    },
    /// The objects of the plan could not be looked up.
    #[error(
        "some steps of the plan may have been applied, and the rest needs an object that cannot be looked up; observe before you apply \
         another plan"
    )]
    Lookup(#[source] ObserveError),
}

/// The kernel refused a step. The other steps were applied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StepRefusal {
    /// Number of the step in the plan.
    pub step: usize,
    /// The error number.
    pub errno: Errno,
    /// The kernel's explanation, or what prevents the step.
    pub text: Option<String>,
}

/// The kernel could not be made to hold the desired state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// The kernel could not be read. Nothing was changed.
    #[error(transparent)]
    Observe(ObserveError),
    /// Applying the plan was cut short. Some steps may have been applied.
    #[error("cannot write all devices, peers and routes of the overlay")]
    Apply(#[source] ApplyError),
}

/// A value is outside its range.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not a VXLAN network identifier.
    #[error("VNI {0} is out of range: it has 24 bits, so use 0 to 16777215")]
    Vni(u64),
    /// Not six hexadecimal bytes, or a group address, or all zero.
    #[error(
        "`{0}` is not the MAC address of a single host: six hexadecimal bytes such as 0a:58:0a:f4:01:00 are expected"
    )]
    Mac(String),
    /// Not the base64 of 32 bytes.
    #[error("`{0}` is not a WireGuard public key: write the base64 of 32 bytes, as `wg pubkey` prints it")]
    PublicKey(String),
    /// Not the base64 of 32 bytes. The text is withheld, because it may be most of a key.
    #[error("not a WireGuard private key: write the base64 of 32 bytes, as `wg genkey` prints it")]
    PrivateKey,
    /// Not the base64 of 32 bytes, or all of them are zero. The text is withheld, because it may be most of a key.
    #[error("not a WireGuard preshared key: write the base64 of 32 bytes, as `wg genpsk` prints it")]
    PresharedKey,
    /// Not a valid name of an interface.
    #[error("`{0}` is not an interface name: use 1 to 15 bytes without `/`, `:` and white space")]
    IfName(String),
    /// Too small to carry IP packets.
    #[error("MTU {mtu} is too small for {family}: it needs at least {least} bytes")]
    Mtu {
        /// The given MTU in bytes.
        mtu: u32,
        /// The family it should carry.
        family: Family,
        /// The smallest possible MTU in bytes.
        least: u32,
    },
}

#[cfg(test)]
mod tests {
    use std::io;

    use testkit::{causes, repetition};

    use super::*;

    #[test]
    fn no_error_repeats_its_cause() {
        let not_sent = || TransactError::NotSent { bytes: 40, source: io::Error::from_raw_os_error(105) };
        let unread = || ObserveError { what: "links".into(), source: AskError::Transact(not_sent()).into() };
        for error in [
            ConvergeError::Observe(unread()),
            ConvergeError::Apply(ApplyError::Batch {
                first: 1,
                last: 4,
                command: "ip link set flannel.1 up".to_owned(),
                source: not_sent(),
            }),
            ConvergeError::Apply(ApplyError::Lookup(unread())),
        ] {
            assert_eq!(repetition(&error), None, "{}", causes(&error));
        }
    }
}
