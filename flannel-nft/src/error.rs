//! Errors, and what the kernel holds after each of them.

use std::borrow::Cow;

use flannel_netlink::{AskError, DumpError, LostReply, Malformed, Refusal, TransactError};

use crate::model::ids::Generation;
use crate::refusal::RefusalReason;

/// Why a rule, set, chain or element is invalid. Found before anything is sent to the kernel.
#[derive(Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRule {
    /// A jump or goto names a base chain, which packets enter only at its hook.
    #[error("no rule can jump to chain `{chain}`, because it is a base chain; jump to a regular chain")]
    BaseTarget {
        /// The chain.
        chain: String,
    },
    /// The rule needs two different protocols, so it would never match.
    #[error("the rule matches no packet, because it needs both {known} and {wanted}; write a rule for each")]
    Contradiction {
        /// The protocol that the rule matches first.
        known: String,
        /// The protocol that a later part of the rule needs.
        wanted: String,
    },
    /// An element has the same key as another element of the map, but another value.
    #[error("two elements have the key {element} but different values; remove one of them")]
    Duplicate {
        /// The key.
        element: String,
    },
    /// The first address or port of a range is above the last.
    #[error("range {range} is empty: its end is below its start; swap its ends")]
    EmptyRange {
        /// The range.
        range: String,
    },
    /// A rule has no matches and no statements. nft cannot read it back.
    #[error("the rule has neither a match nor a statement, and nft cannot list it; add one of them")]
    EmptyRule,
    /// A prefix has bits set beyond its length.
    #[error(
        "prefix {prefix} has address bits set after its length; clear these bits, or use a longer prefix"
    )]
    HostBits {
        /// The prefix.
        prefix: String,
    },
    /// A log statement has both a level, of the kernel log, and an nflog group.
    #[error(
        "a log statement writes to the kernel log or to an nflog group, not to both; remove its level or its group"
    )]
    LevelAndGroup,
    /// A chain can jump to itself, also through other chains and verdict maps.
    #[error(
        "packets can reach chain `{chain}` from itself, directly or through other chains; remove a jump of this loop"
    )]
    Loop {
        /// The chain.
        chain: String,
    },
    /// A jump or goto names a chain that the table does not have.
    #[error("the table has no chain `{chain}` to jump to; add the chain to this table")]
    MissingChain {
        /// The chain.
        chain: String,
    },
    /// A rule uses a counter that the table does not have.
    #[error("the table has no counter `{counter}`; add the counter to this table")]
    MissingCounter {
        /// The counter.
        counter: String,
    },
    /// A rule uses a set that the table does not have.
    #[error("the table has no set or map `{set}`; add it to this table")]
    MissingSet {
        /// The set.
        set: String,
    },
    /// A patch names a table that the ruleset does not have.
    #[error("the desired ruleset has no table `{table}`; add the table before you patch it")]
    MissingTable {
        /// The table.
        table: String,
    },
    /// The priority of a nat chain is not above that of connection tracking.
    #[error(
        "priority {priority} is too low for a nat chain, which must run after connection tracking (-200); use -199 or higher"
    )]
    NatPriority {
        /// The priority.
        priority: i32,
    },
    /// The family has no base chain of this type at this hook.
    #[error("family {family} has no {kind} chains at hook {hook}; use another hook or chain type")]
    NoSuchHook {
        /// `filter`, `nat` or `route`.
        kind: &'static str,
        /// The hook.
        hook: &'static str,
        /// The table's family.
        family: &'static str,
    },
    /// A chain at this hook needs a device.
    #[error("a chain at hook {hook} needs a device; set it with `Base::device`")]
    NoDevice {
        /// `ingress` or `egress`.
        hook: &'static str,
    },
    /// The kernel does not sort values in host byte order, so they cannot form intervals.
    #[error(
        "values of type {datatype} cannot form ranges, because the kernel does not sort them; list each value"
    )]
    NoIntervals {
        /// The type.
        datatype: crate::Datatype,
    },
    /// Rules cannot add elements to sets of this kind.
    #[error("the kernel does not let rules add elements to {other}; build it without `Set::dynamic`")]
    NotDynamic {
        /// `an interval set` or `a counter map`.
        other: &'static str,
    },
    /// A prefix or range in a set without the interval flag.
    #[error(
        "element {element} is a prefix or range, but its set holds single values; build the set with `Set::interval`"
    )]
    NotInterval {
        /// The element.
        element: String,
    },
    /// A match on an empty list of values is never true.
    #[error("the rule matches no packet, because the list of values to match is empty; add a value")]
    NothingToMatch,
    /// An element has a timeout, but its set does not allow timeouts.
    #[error(
        "element {element} has a timeout, but its set does not allow timeouts; build the set with `Set::timeouts`"
    )]
    NoTimeouts {
        /// The element.
        element: String,
    },
    /// Two elements of an interval map overlap.
    #[error(
        "element {element} overlaps element {other}, and the elements of a map must be disjoint; change the range of either"
    )]
    Overlap {
        /// The second element.
        element: String,
        /// The first element.
        other: String,
    },
    /// A value has bits outside of its mask, so the match is never true, or the bits are ignored.
    #[error("value {value} has bits outside of mask {mask}; clear them, or use a mask with these bits")]
    OutsideMask {
        /// The value.
        value: String,
        /// The mask.
        mask: String,
    },
    /// NAT to a port in a rule that does not match a protocol with ports before. nft cannot read it
    /// back.
    #[error("a rule that translates a port needs a match of the protocol before, e.g. `meta l4proto tcp`")]
    PortWithoutProtocol,
    /// A rate limit is 0 or too large for the kernel's arithmetic.
    #[error(
        "a limit of {rate} with burst {burst} is outside of the kernel's range; use a rate above 0 and a smaller burst"
    )]
    Rate {
        /// Packets or bytes per unit of time.
        rate: u64,
        /// Packets or bytes at once.
        burst: u32,
    },
    /// A set has more elements than its size.
    #[error(
        "{elements} elements do not fit into a set of size {size}; build the set with a larger `Set::size`"
    )]
    SetFull {
        /// Number of elements.
        elements: usize,
        /// The size.
        size: u32,
    },
    /// A timeout is less than 1 ms, or longer than the kernel's maximum of 584 years.
    #[error("timeout {timeout:?} is not between 1 ms and 584 years; use one in this range")]
    Timeout {
        /// The timeout.
        timeout: std::time::Duration,
    },
    /// Chains jump to each other more than 15 times, which is the kernel's maximum.
    #[error(
        "chain `{chain}` is more than 15 jumps below a base chain, and the kernel follows no more; merge some of these chains"
    )]
    TooDeep {
        /// The chain.
        chain: String,
    },
    /// A rule has more expressions than the kernel accepts.
    #[error("the rule has {expressions} expressions, but the kernel accepts {limit}; split the rule")]
    TooLong {
        /// Number of expressions.
        expressions: usize,
        /// The maximum.
        limit: usize,
    },
    /// A statement follows a verdict, which ends the rule.
    #[error("a statement after a verdict is never reached; move it before the verdict")]
    Unreachable,
    /// The table's family does not support this match, statement or object.
    #[error("{object} does not exist in family {family}; use a table of another family")]
    WrongFamily {
        /// The match, statement or object in nft syntax.
        object: String,
        /// The table's family.
        family: &'static str,
    },
    /// Packets reach a statement from a base chain of a type or hook that it does not support.
    #[error(
        "{statement} needs {needs}, but packets reach it from chain `{chain}` of type {kind} at hook {hook}; move the rule, or the jump to it"
    )]
    WrongPlace {
        /// The statement.
        statement: &'static str,
        /// The type and hooks that it supports.
        needs: String,
        /// The base chain.
        chain: String,
        /// Its type.
        kind: &'static str,
        /// Its hook.
        hook: &'static str,
    },
    /// A key or set has a different type than its place requires.
    #[error("{object} has type {have}, but type {want} is required; use a value or set of that type")]
    WrongType {
        /// The key or set.
        object: String,
        /// The required type.
        want: &'static str,
        /// Its type.
        have: &'static str,
    },
    /// A rule looks a verdict up in a set or map without verdicts, or matches against a map.
    #[error("the rule uses `{set}` as a {want}, which it is not; name another set or map")]
    WrongUse {
        /// The set.
        set: String,
        /// `set` or `verdict map`.
        want: &'static str,
    },
    /// An element of a map has no value, or a value of the wrong type.
    #[error(
        "element {element} has no value, or a value of another type than its map's; give it a value of that type"
    )]
    WrongValue {
        /// The element.
        element: String,
    },
}

/// A transaction is invalid. Nothing was sent to the kernel.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{object}` is invalid, so nothing was sent to the kernel")]
#[non_exhaustive]
pub struct SealError {
    /// The invalid object, in nft syntax.
    pub object: String,
    /// What is wrong with it.
    #[source]
    pub reason: InvalidRule,
}

/// A part of the ruleset could not be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from the kernel")]
pub struct ObserveError {
    /// What was to be read: `nftables tables`, `the generation of the nftables ruleset`, ...
    pub what: Cow<'static, str>,
    /// The cause.
    #[source]
    pub source: ReadError,
}

/// The cause of an [`ObserveError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Other processes kept committing changes during each attempt.
    #[error(
        "other processes changed them during each of {attempts} attempts; `nft monitor` shows what they change, try again later"
    )]
    Busy {
        /// Number of attempts.
        attempts: u32,
    },
    /// The notifications of other processes' changes could not be received.
    #[error(
        "other processes keep committing, and the kernel's notifications of their changes cannot be received; try again later"
    )]
    Notifications(#[source] std::io::Error),
    /// The kernel has no nf_tables.
    #[error(
        "this kernel lacks nftables (CONFIG_NF_TABLES); run `modprobe nf_tables` on the host, or use a kernel that has it"
    )]
    NoNftables(#[source] Refusal),
    /// A dump failed.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// A request failed.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// A commit failed. The variant states what the kernel holds now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The kernel refused one message. Nothing was applied.
    #[error(
        "the kernel refused `{}`{}; nothing was applied",
        shortened(operation),
        attribute.map(|name| format!(" because of its {name}")).unwrap_or_default()
    )]
    Refused {
        /// The operation and its object, as a line of `nft -f`.
        operation: String,
        /// The part of the object that the kernel objects to, if it names one.
        attribute: Option<&'static str>,
        /// The kernel's reason.
        #[source]
        source: RefusalReason,
    },
    /// Another process changed the ruleset first. Nothing was applied; observe and diff again.
    #[error(
        "nothing was applied, because another process changed the nftables ruleset first; observe and diff again"
    )]
    Stale,
    /// The batch was applied, but another process had changed the same tables after they were read.
    /// Observe and diff again. Only if other processes kept committing during several attempts.
    #[error(
        "the batch was applied as generation {generation}, after another process changed the same tables; observe and diff again"
    )]
    Overtaken {
        /// The generation that the commit made.
        generation: Generation,
    },
    /// The batch could not be sent. Nothing was applied.
    #[error("nothing was applied")]
    NotSent(#[source] TransactError),
    /// The kernel's reply was lost, but the generation shows that nothing was applied.
    #[error("nothing was applied, and the kernel's reply with the reason was lost; commit again to get it")]
    Lost(#[source] LostReply),
    /// The kernel's reply was lost and the ruleset has changed since, by this batch or by another
    /// process. Observe before trying again.
    #[error(
        "the kernel's reply was lost; the batch may have been applied as generation {generation}, so observe before you commit \
         again"
    )]
    Unanswered {
        /// The generation that the kernel has now.
        generation: Generation,
        /// Why the reply was lost.
        #[source]
        source: LostReply,
    },
    /// The kernel's reply is malformed. Observe before trying again.
    #[error(
        "the kernel's reply is malformed; the batch may have been applied, so observe before you commit again"
    )]
    Malformed(#[source] Malformed),
    /// The generation, which tells whether the batch was applied, could not be read. Observe before trying again.
    #[error("the batch may have been applied, so observe before you commit again")]
    Unknown(#[source] ObserveError),
}

impl CommitError {
    /// Whether the kernel may have applied the batch although this is an error.
    #[must_use]
    pub fn may_be_applied(&self) -> bool {
        matches!(
            self,
            Self::Overtaken { .. } | Self::Unanswered { .. } | Self::Malformed(_) | Self::Unknown(_)
        )
    }
}

/// The kernel could not be made to hold the desired ruleset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// The ruleset could not be read. Nothing was changed.
    #[error(transparent)]
    Observe(ObserveError),
    /// The desired ruleset is invalid. Nothing was changed.
    #[error("cannot change the nftables ruleset")]
    Seal(#[source] SealError),
    /// The commit failed; the source states what the kernel holds.
    #[error("cannot change the nftables ruleset")]
    Commit(#[source] CommitError),
    /// Other processes changed the ruleset before each attempt to commit. Nothing was applied.
    #[error(
        "nothing was applied, because other processes changed the nftables ruleset during each of {attempts} attempts; `nft \
         monitor` shows what they change, try again later"
    )]
    Contended {
        /// Number of attempts.
        attempts: u32,
    },
}

/// The start of a text that may list thousands of elements.
fn shortened(text: &str) -> Cow<'_, str> {
    const SHOWN_CHARS: usize = 400;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{} ...", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

impl ObserveError {
    /// The same error, with the name of the object that was to be read.
    pub(crate) fn of(self, object: std::fmt::Arguments<'_>) -> Self {
        Self { what: format!("{} of {object}", self.what).into(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use flannel_netlink::AskError;
    use testkit::{causes, repetition};

    use super::*;

    #[test]
    fn no_error_repeats_its_cause() {
        let not_sent = || TransactError::NotSent { bytes: 4312, source: io::Error::from_raw_os_error(105) };
        let unread = || ObserveError {
            what: "the generation of the nftables ruleset".into(),
            source: AskError::Transact(not_sent()).into(),
        };
        for error in [
            ConvergeError::Commit(CommitError::NotSent(not_sent())),
            ConvergeError::Commit(CommitError::Unknown(unread())),
            ConvergeError::Commit(CommitError::Malformed(Malformed::Message)),
            ConvergeError::Observe(unread()),
        ] {
            assert_eq!(repetition(&error), None, "{}", causes(&error));
        }
        let expected = "cannot change the nftables ruleset: nothing was applied: cannot send a request of 4312 bytes to the \
                        kernel; the kernel has no memory for it, so free some: No buffer space available (os error 105)";
        assert_eq!(causes(&ConvergeError::Commit(CommitError::NotSent(not_sent()))), expected);
    }
}
