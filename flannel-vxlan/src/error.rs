//! Why something could not be read or done, and what the kernel holds then.

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
