//! The real kernel, over one long-lived netlink socket.

use std::error::Error as _;
use std::io;

use flannel_netlink::{
    AskError, Attributes, Batch, DumpError, Errno, Flags, LostReply, OpenError, Protocol, Refusal, Socket,
    TransactError,
};

use crate::error::{CommitError, ObserveError, ReadError};
use crate::kernel::contention::Watch;
use crate::kernel::{Kernel, Observed};
use crate::model::family::Family;
use crate::model::ids::{Generation, Handle, TableId};
use crate::model::name::ChainName;
use crate::refusal::RefusalReason;
use crate::transaction::{Sealed, Transaction};
use crate::uapi::*;
use crate::wire::decode;
use crate::wire::encode::{self, ChainRef};
use crate::wire::{batch_header, header, message};

/// Number of attempts to read tables that change meanwhile.
pub(super) const ATTEMPTS: u32 = 16;
/// Number of attempts to read tables at one generation, before a watch reports changes of these tables
/// from changes of others.
const UNWATCHED_ATTEMPTS: u32 = 2;

/// The nf_tables of a network namespace.
///
/// Keep it open: closing a socket after a commit that deleted something waits for an RCU grace
/// period of about 12 ms.
#[derive(Debug)]
pub struct Netlink {
    pub(super) socket: Socket,
    pub(super) question: Batch,
    /// Whether the kernel acknowledges the end of a batch (≥ 6.10). Determined on first use.
    acks_end: Option<bool>,
    /// The changes since the last reading, if other processes kept committing during it.
    pub(super) watch: Option<Watch>,
    /// Whether another process committed between the last reading and the last commit.
    contended: bool,
    /// Whether changes interrupted a list of the current reading.
    pub(super) interrupted: bool,
}

impl Netlink {
    /// Opens nf_tables of the network namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`OpenError`] if the kernel lacks nf_tables or refuses the socket.
    pub fn open() -> Result<Self, OpenError> {
        Socket::open(Protocol::Netfilter).map(Self::over)
    }

    /// Uses an open socket of [`Protocol::Netfilter`], e.g. one with a bounded receive buffer
    /// ([`Socket::open_limited`]).
    #[must_use]
    pub fn over(socket: Socket) -> Self {
        Self {
            socket,
            question: Batch::new(),
            acks_end: None,
            watch: None,
            contended: false,
            interrupted: false,
        }
    }

    /// The netlink port of the socket. Commits through it carry this number.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    fn refused(transaction: &Transaction<Sealed>, refusal: Refusal) -> CommitError {
        if refusal.errno == Errno::ERESTART {
            return CommitError::Stale;
        }
        let changes = transaction.changes();
        let change = changes.iter().find(|(number, _)| *number >= refusal.message).or_else(|| changes.last());
        let operation = match change {
            Some((_, change)) => change.to_string(),
            None => "an empty batch".to_owned(),
        };
        let (source, attribute) = RefusalReason::of(transaction.as_bytes(), refusal);
        CommitError::Refused { operation, attribute, source }
    }

    /// The reply was lost: determines from the generation what it would have been.
    fn unanswered(
        &mut self,
        expected: Option<Generation>,
        source: LostReply,
    ) -> Result<Option<Generation>, CommitError> {
        let now = self.generation().map_err(CommitError::Unknown)?;
        let silent = source
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>())
            .is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        // Refusals always arrive. So if the kernel does not acknowledge the end of a batch, no
        // reply means success.
        if silent && !self.acks_end() {
            return Ok(expected.map(|expected| generation_after(expected, now)));
        }
        match expected {
            Some(expected) if expected == now => Err(CommitError::Lost(source)),
            _ => Err(CommitError::Unanswered { generation: now, source }),
        }
    }

    /// Whether the kernel acknowledges an empty batch.
    fn acks_end(&mut self) -> bool {
        if let Some(known) = self.acks_end {
            return known;
        }
        let mut probe = Batch::new();
        probe.message(message::BATCH_BEGIN, Flags::NONE, &batch_header(), |_| {});
        probe.message(message::BATCH_END, Flags::NONE, &batch_header(), |_| {});
        let acks = self.socket.transact(&mut probe, |_| Ok(())).is_ok();
        self.acks_end = Some(acks);
        acks
    }
}

impl Kernel for Netlink {
    fn tables(&mut self) -> Result<Vec<TableId>, ObserveError> {
        self.list(
            TABLES,
            message::GETTABLE,
            NFPROTO_UNSPEC,
            |_| {},
            |message| Ok(decode::open(message)?.map(|(id, _)| id)),
        )
    }

    fn generation(&mut self) -> Result<Generation, ObserveError> {
        self.question.clear();
        self.question.message(message::GETGEN, Flags::NONE, &header(NFPROTO_UNSPEC), |_| {});
        let asked = self.socket.ask(&mut self.question, |message| decode::generation(&message));
        asked.map_err(|source| cannot_read(GENERATION, source))
    }

    /// Adds such a table in a batch without end, which the kernel checks and drops. Kernels before
    /// 6.9 refuse the flag.
    fn keeps_owned_tables(&mut self) -> Result<bool, ObserveError> {
        let name = format!("probe-of-{}", self.socket.port());
        self.question.clear();
        self.question.message(message::BATCH_BEGIN, Flags::NONE, &batch_header(), |_| {});
        self.question.message(message::NEWTABLE, Flags::CREATE, &header(Family::Ip.number()), |a| {
            a.text(NFTA_TABLE_NAME, &name);
            a.be32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST);
        });
        match self.socket.transact(&mut self.question, |_| Ok(())) {
            Ok(answer) => match answer.refused.into_iter().next() {
                None => Ok(true),
                Some(Refusal { errno: Errno::EINVAL | Errno::EOPNOTSUPP, .. }) => Ok(false),
                Some(refusal) => Err(cannot_read(OUTLIVING, AskError::Refused(refusal))),
            },
            Err(source) => Err(cannot_read(OUTLIVING, AskError::Transact(source))),
        }
    }

    fn observe(&mut self, wanted: &[TableId]) -> Result<Observed, ObserveError> {
        let unwatched = if self.contended { 0 } else { UNWATCHED_ATTEMPTS };
        for _ in 0..unwatched {
            let generation = self.generation()?;
            if !self.is_settled(generation)? {
                continue;
            }
            let read = self.read(wanted);
            if self.generation()? != generation {
                continue; // the result or error may mix two generations
            }
            let (ruleset, _) = read?;
            self.watch = None;
            return Ok(Observed { generation, ruleset, port: Some(self.socket.port()) });
        }
        self.observe_watched(wanted)
    }

    fn rule_handles(&mut self, table: &TableId, chain: &ChainName) -> Result<Vec<Handle>, ObserveError> {
        let of_chain = |a: &mut Attributes<'_>| encode::rule_handle(table, ChainRef::Name(chain), None, a);
        self.list("nftables rules", message::GETRULE, table.family.number(), of_chain, |message| {
            let Some((_, attributes)) = decode::open(message)? else { return Ok(None) };
            for attribute in attributes {
                let attribute = attribute?;
                if attribute.kind == NFTA_RULE_HANDLE {
                    return attribute.be64().map(|handle| Some(Handle(handle)));
                }
            }
            Ok(None)
        })
    }

    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Option<Generation>, CommitError> {
        let watch = self.watch.take_if(|watch| watch.read_at == transaction.expected());
        let sent = match (self.send_once(transaction), watch) {
            (Err(CommitError::Stale), Some(watch)) => self.send_watched(transaction, watch),
            (sent, _) => sent,
        };
        self.contended = matches!(sent, Err(CommitError::Stale));
        sent
    }
}

impl Netlink {
    pub(super) fn send_once(
        &mut self,
        transaction: &mut Transaction<Sealed>,
    ) -> Result<Option<Generation>, CommitError> {
        let expected = transaction.expected();
        match self.socket.transact(transaction.batch_mut(), |_| Ok(())) {
            Ok(answer) => match (answer.refused.into_iter().next(), expected) {
                (Some(refusal), _) => Err(Self::refused(transaction, refusal)),
                (None, None) => Ok(None),
                (None, Some(expected)) if transaction.is_effective() => Ok(Some(expected.next())),
                (None, Some(expected)) => {
                    let now = self.generation().map_err(CommitError::Unknown)?;
                    Ok(Some(generation_after(expected, now)))
                }
            },
            Err(TransactError::Lost(source)) => self.unanswered(expected, source),
            Err(TransactError::Malformed(source)) => Err(CommitError::Malformed(source)),
            Err(error) => Err(CommitError::NotSent(error)),
        }
    }
}

impl Netlink {
    /// Whether this generation is complete. A commit increments the number before its changes
    /// become visible (`nf_tables_commit`, net/netfilter/nf_tables_api.c at v6.1), so a read in
    /// between mixes two generations.
    ///
    /// An empty batch waits for the commit in progress, and fails if that made another generation.
    fn is_settled(&mut self, generation: Generation) -> Result<bool, ObserveError> {
        self.empty_batch(|a| a.be32(NFNL_BATCH_GENID, generation.0))
    }
}

/// What [`Kernel::generation`] reads.
pub(super) const GENERATION: &str = "the generation of the nftables ruleset";
/// What a kernel is asked for that may keep owned tables after their owner.
const OUTLIVING: &str = "whether owned nftables tables outlive their owner";
/// What [`Kernel::tables`] reads.
pub(super) const TABLES: &str = "nftables tables";

pub(super) fn cannot_read(what: &'static str, source: impl Into<ReadError>) -> ObserveError {
    let source = match source.into() {
        ReadError::Ask(AskError::Refused(refusal))
        | ReadError::Dump(DumpError::Ask(AskError::Refused(refusal)))
            // `nfnetlink_rcv_msg`: no such subsystem. Every version of nf_tables understands these requests.
            if refusal.errno == Errno::EINVAL && [GENERATION, TABLES].contains(&what) =>
        {
            ReadError::NoNftables(refusal)
        }
        source => source,
    };
    ObserveError { what: what.into(), source }
}

/// The generation after a commit that applied at `expected`, if the kernel is now at `now`. A
/// commit without effect, such as adding a table that exists, makes no new generation.
fn generation_after(expected: Generation, now: Generation) -> Generation {
    if expected == now { now } else { expected.next() }
}
