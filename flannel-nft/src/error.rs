//! What can go wrong, and what the kernel holds then.

use std::fmt;

use flannel_netlink::{DumpError, Errno, LostReply, Malformed, OpenError, Refusal, TransactError};

use crate::model::ids::Generation;

/// A part of a ruleset that cannot be sent to the kernel.
#[derive(Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRule {
    /// A packet cannot be of both protocols at once, so the rule would never match.
    #[error("no packet is {known} and {wanted} at once")]
    Contradiction {
        /// What the rule demands first.
        known: String,
        /// What a later part of it needs.
        wanted: String,
    },
    /// The first address of a range is above the last.
    #[error("range {range} is empty")]
    EmptyRange {
        /// The range.
        range: String,
    },
    /// A prefix has bits set behind its length.
    #[error("prefix {prefix} has host bits set")]
    HostBits {
        /// The prefix.
        prefix: String,
    },
    /// A jump or goto leads to a chain that the table does not have.
    #[error("there is no chain `{chain}` in this table")]
    MissingChain {
        /// The chain.
        chain: String,
    },
    /// A rule uses a counter that the table does not have.
    #[error("there is no counter `{counter}` in this table")]
    MissingCounter {
        /// The counter.
        counter: String,
    },
    /// A rule uses a set that the table does not have.
    #[error("there is no set `{set}` in this table")]
    MissingSet {
        /// The set.
        set: String,
    },
    /// The type, hook and family of a base chain do not go together.
    #[error("a {kind} chain cannot be at hook {hook} of family {family}")]
    NoSuchHook {
        /// `filter`, `nat` or `route`.
        kind: &'static str,
        /// The hook.
        hook: &'static str,
        /// The table's family.
        family: &'static str,
    },
    /// Values in host order do not sort, so they cannot form intervals.
    #[error("values of type {datatype} cannot form intervals")]
    NoIntervals {
        /// The type.
        datatype: crate::Datatype,
    },
    /// A prefix or range in a set without the interval flag.
    #[error("element {element} needs an interval set")]
    NotInterval {
        /// The element.
        element: String,
    },
    /// A match on none of something can never be true.
    #[error("there is nothing to match")]
    NothingToMatch,
    /// An element with a timeout in a set without timeouts.
    #[error("element {element} has a timeout, its set has not")]
    NoTimeouts {
        /// The element.
        element: String,
    },
    /// Two elements of an interval map overlap.
    #[error("element {element} overlaps another one")]
    Overlap {
        /// The second element.
        element: String,
    },
    /// A statement behind one that ends the rule.
    #[error("a statement behind a verdict is never reached")]
    Unreachable,
    /// The table's family does not have it.
    #[error("{object} does not exist in family {family}")]
    WrongFamily {
        /// What it is, in nft's words.
        object: String,
        /// The table's family.
        family: &'static str,
    },
    /// A key or set has another type than the place where it is used.
    #[error("{object} has type {have}, {want} is wanted")]
    WrongType {
        /// The key or set.
        object: String,
        /// Type wanted.
        want: &'static str,
        /// Type it has.
        have: &'static str,
    },
    /// The element's value is none, or not of the type that the map gives.
    #[error("element {element} does not have the kind of value that its set maps to")]
    WrongValue {
        /// The element.
        element: String,
    },
}

/// A transaction that must not be sent. The kernel has seen nothing of it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{object}` cannot be sent to the kernel")]
pub struct SealError {
    /// What is wrong, in nft syntax.
    pub object: String,
    /// What is wrong with it.
    #[source]
    pub mistake: InvalidRule,
}

/// Why the kernel's tables could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The socket could not be opened.
    #[error("cannot reach nf_tables: is the kernel built with it?")]
    Open(#[source] OpenError),
    /// Others kept changing the tables while they were read.
    #[error("the ruleset changed {attempts} times while it was read")]
    Busy {
        /// How often it was tried.
        attempts: u32,
    },
    /// A listing failed.
    #[error("cannot list the {what} of the kernel")]
    Dump {
        /// `tables`, `chains`, ...
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: DumpError,
    },
    /// The generation could not be read.
    #[error("cannot read the ruleset's generation")]
    Generation(#[source] flannel_netlink::AskError),
}

/// Why a commit failed, and therefore what the kernel now holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The kernel refused one message. Nothing was applied.
    #[error("kernel refused to {operation}{}", attribute.map(|name| format!(", because of its {name}")).unwrap_or_default())]
    Refused {
        /// The operation and its object, as a line of `nft -f`.
        operation: String,
        /// Which part of the object the kernel objects to, if it says so.
        attribute: Option<&'static str>,
        /// The kernel's reason.
        #[source]
        source: RefusalReason,
    },
    /// Another writer changed the ruleset first. Nothing was applied; observe and diff again.
    #[error("the ruleset changed before the batch arrived")]
    Stale,
    /// The batch could not be sent. Nothing was applied.
    #[error("cannot send the batch")]
    NotSent(#[source] TransactError),
    /// The reply was lost, and the generation shows that nothing was applied.
    #[error("the batch was not applied, and the kernel's reason was lost")]
    Lost(#[source] LostReply),
    /// The reply was lost and the ruleset has changed since: by this batch or by somebody else. Observe before trying
    /// again.
    #[error("no answer to the batch, which may have been applied as generation {generation}")]
    Unanswered {
        /// The generation that the kernel has now.
        generation: Generation,
        /// Why there is no answer.
        #[source]
        source: LostReply,
    },
    /// The reply makes no sense. Observe before trying again.
    #[error("the answer to the batch is malformed")]
    Malformed(#[source] Malformed),
    /// The reply was lost and the kernel's generation could not be read. Observe before trying again.
    #[error("no answer to the batch, and the generation cannot be read")]
    Unknown(#[source] ObserveError),
}

impl CommitError {
    /// Whether the kernel may hold the new state although this is an error.
    #[must_use]
    pub fn may_be_applied(&self) -> bool {
        matches!(self, Self::Unanswered { .. } | Self::Malformed(_) | Self::Unknown(_))
    }
}

/// The kernel's reason for refusing, with what the number usually means in nf_tables.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct RefusalReason(pub(crate) Refusal);

impl RefusalReason {
    /// The error number.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.0.errno
    }

    fn hint(&self) -> Option<&'static str> {
        Some(match self.0.errno {
            Errno::EPERM => "CAP_NET_ADMIN is missing, or another process owns the table",
            Errno::EBUSY => "something still uses it, or the table has another owner",
            Errno::ENOENT => "it, or something it refers to, does not exist",
            Errno::EEXIST => "it exists already with other properties",
            Errno::EOPNOTSUPP => {
                "the kernel lacks this feature, or the chain's type and hook do not allow it"
            }
            Errno::ELOOP => "chains jump to each other in a circle",
            Errno::EMLINK => "chains jump too deep",
            Errno::ENFILE => "the set is full",
            Errno::EINVAL => "the kernel does not understand it",
            _ => return None,
        })
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        match self.hint() {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

/// Why the kernel could not be made to hold what was wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// The tables could not be read. Nothing was changed.
    #[error("cannot observe the tables")]
    Observe(#[source] ObserveError),
    /// What is wanted cannot exist. Nothing was changed.
    #[error("the ruleset is not valid")]
    Seal(#[source] SealError),
    /// The commit failed; the source says what the kernel holds.
    #[error("cannot commit the difference")]
    Commit(#[source] CommitError),
    /// Others changed the ruleset each time before our commit arrived. Nothing of ours was applied.
    #[error("others changed the ruleset {attempts} times while it was being compared")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
}
