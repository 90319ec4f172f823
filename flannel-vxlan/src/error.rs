//! Why something could not be read or done, and what the kernel holds then.

use crate::Family;
use flannel_netlink::{AskError, DumpError, Errno, Malformed, TransactError};

/// A reading of the kernel failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}")]
pub struct ObserveError {
    /// What was to be read: `links`, `routes`, ...
    pub what: &'static str,
    /// Why not.
    #[source]
    pub source: ReadError,
}

/// The cause of an [`ObserveError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A listing failed.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// A question failed.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What the kernel said makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A kernel that is not real was told to fail.
    #[error("{0}")]
    Fake(String),
}

/// Applying a plan was cut short. Some of its steps may have been taken; observe before going on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The kernel's answer to a batch of steps was lost.
    #[error("cannot tell which of the steps {first} to {last} were taken")]
    Batch {
        /// Number of the first step in the plan.
        first: usize,
        /// Number of the last.
        last: usize,
        /// Why.
        #[source]
        source: TransactError,
    },
    /// The interfaces could not be looked up. No step was taken.
    #[error("no step was taken")]
    Lookup(#[source] ObserveError),
}

/// The kernel refused one step. The others were taken nevertheless.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StepRefusal {
    /// Number of the step in the plan.
    pub step: usize,
    /// The error.
    pub errno: Errno,
    /// What is known about it: the kernel's own words, or what is in the way.
    pub text: Option<String>,
}

/// Why an overlay could not be brought to what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// The kernel could not be read. Nothing was changed.
    #[error("cannot observe the overlay")]
    Observe(#[source] ObserveError),
    /// It was cut short. Some steps may have been taken.
    #[error("cannot apply the plan")]
    Apply(#[source] ApplyError),
}

/// A value that is outside its range.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not a VXLAN network identifier.
    #[error("VNI {0} is out of range: it has 24 bits, so use 0 to 16777215")]
    Vni(u64),
    /// Not six hexadecimal bytes, or not the address of one station.
    #[error(
        "`{0}` is not the MAC address of one station: write six hexadecimal bytes, e.g. 0a:58:0a:f4:01:00"
    )]
    Mac(String),
    /// Not a name an interface can have.
    #[error("`{0}` is not an interface name: use 1 to 15 bytes without `/`, `:` and white space")]
    IfName(String),
    /// Too small to carry IP.
    #[error("MTU {mtu} is too small for {family}: it needs {least} bytes")]
    Mtu {
        /// What was given.
        mtu: u32,
        /// What it should carry.
        family: Family,
        /// The least that does.
        least: u32,
    },
}
