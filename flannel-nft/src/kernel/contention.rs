//! Reads and commits tables while other processes keep changing other tables.
//!
//! The kernel has one generation for all tables. If it changes during each attempt to read, a watch
//! decides from the notifications whether the wanted tables were among the changes. So it takes one
//! reading, whatever happens in other tables.

use std::collections::HashMap;
use std::io;

use flannel_netlink::{AskError, Attributes, Flags, Monitor, OpenError, Protocol, Received, TransactError};

use crate::error::{CommitError, ObserveError, ReadError};
use crate::kernel::netlink::{ATTEMPTS, GENERATION, Netlink, TABLES, cannot_read};
use crate::kernel::{Kernel, Observed};
use crate::model::ids::{Generation, TableId};
use crate::transaction::{Sealed, Transaction};
use crate::uapi::*;
use crate::wire::{batch_header, decode, message};

/// Number of commits with the generation check while other processes commit in between. Then the
/// transaction is sent without the check, and the notifications are checked afterwards.
const CHECKED_COMMITS: u32 = 8;

/// The changes of some tables since they were read.
#[derive(Debug)]
pub(super) struct Watch {
    monitor: Monitor,
    /// The families in which a table of this name is wanted.
    wanted: HashMap<Box<[u8]>, Vec<u8>>,
    /// The generation at which the tables were read.
    pub(super) read_at: Option<Generation>,
    /// Port of the socket whose commits are ours.
    own: u32,
    /// Whether the commit whose end has not arrived yet changes a wanted table.
    open: bool,
    /// Commits of others that changed a wanted table, and commits of our own.
    foreign: Vec<Generation>,
    /// The last commit whose notifications have all been taken.
    seen: Option<Generation>,
    ours: Option<Generation>,
    /// Whether notifications were lost.
    overflowed: bool,
}

impl Watch {
    fn open(wanted: &[TableId], own: u32) -> Result<Self, OpenError> {
        let mut names: HashMap<Box<[u8]>, Vec<u8>> = HashMap::new();
        for table in wanted {
            names.entry(table.name.as_bytes().into()).or_default().push(table.family.number());
        }
        Ok(Self {
            monitor: Monitor::open(Protocol::Netfilter, &[NFNLGRP_NFTABLES])?,
            wanted: names,
            read_at: None,
            own,
            open: false,
            foreign: Vec::new(),
            seen: None,
            ours: None,
            overflowed: false,
        })
    }

    /// Takes the notifications up to this commit, which have arrived. Others may arrive faster than
    /// they could be taken.
    fn drain(&mut self, until: Generation) -> io::Result<()> {
        while self.seen.is_none_or(|seen| is_later(until, seen)) {
            match self.monitor.receive()? {
                Received::Nothing => return Ok(()),
                Received::Overflow => self.overflowed = true,
                Received::Messages(messages) => {
                    for message in messages {
                        let Ok(message) = message else {
                            self.overflowed = true;
                            break;
                        };
                        if message.kind != message::NEWGEN {
                            self.open |= decode::table_of(&message).is_none_or(|(family, name)| {
                                self.wanted.get(name).is_some_and(|families| families.contains(&family))
                            });
                            continue;
                        }
                        let touched = std::mem::take(&mut self.open);
                        let generation = decode::generation(&message);
                        self.seen = generation.as_ref().ok().copied().or(self.seen);
                        match generation {
                            Ok(generation) if message.port == self.own => self.ours = Some(generation),
                            Ok(generation) if touched => self.foreign.push(generation),
                            Ok(_) => {}
                            Err(_) => self.overflowed = true,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Forgets all changes so far.
    fn forget(&mut self) {
        self.foreign.clear();
        (self.ours, self.overflowed) = (None, false);
    }

    /// Whether another process may have changed a wanted table, up to this generation.
    fn changed_until(&self, generation: Generation) -> bool {
        self.overflowed || self.foreign.iter().any(|other| !is_later(*other, generation))
    }
}

/// Numbers wrap around, so the distance decides.
fn is_later(a: Generation, b: Generation) -> bool {
    b.0.wrapping_sub(a.0) > u32::MAX / 2
}

impl Netlink {
    /// Reads the tables while others commit. [`ReadError::Busy`] if these tables themselves keep
    /// changing.
    pub(super) fn observe_watched(&mut self, wanted: &[TableId]) -> Result<Observed, ObserveError> {
        let mut watch = Watch::open(wanted, self.port()).map_err(|error| lost(error.source))?;
        for _ in 0..ATTEMPTS {
            let before = self.generation()?;
            self.wait_for_commit()?;
            watch.drain(before).map_err(lost)?;
            watch.forget();
            let read = self.read(wanted);
            let generation = self.generation()?;
            // The notifications of the commit that made this generation have then arrived.
            self.wait_for_commit()?;
            watch.drain(generation).map_err(lost)?;
            if watch.changed_until(generation) {
                continue;
            }
            let (ruleset, complete) = read?;
            if complete {
                watch.read_at = Some(generation);
                self.watch = Some(watch);
                return Ok(Observed { generation, ruleset, port: Some(self.port()) });
            }
        }
        Err(ObserveError { what: TABLES.into(), source: ReadError::Busy { attempts: ATTEMPTS } })
    }

    /// Sends a transaction again that was computed from watched tables and failed because the
    /// generation is another: other tables may have made it.
    pub(super) fn send_watched(
        &mut self,
        transaction: &mut Transaction<Sealed>,
        mut watch: Watch,
    ) -> Result<Option<Generation>, CommitError> {
        for _ in 0..CHECKED_COMMITS {
            let generation = self.generation().map_err(CommitError::Unknown)?;
            self.catch_up(&mut watch, generation)?;
            if watch.changed_until(generation) {
                return Err(CommitError::Stale);
            }
            transaction.expect(generation);
            match self.send_once(transaction) {
                Err(CommitError::Stale) => {}
                other => return other,
            }
        }
        transaction.expect(NO_GENERATION);
        watch.ours = None;
        let sent = self.send_once(transaction);
        let now = self.generation().map_err(CommitError::Unknown)?;
        self.catch_up(&mut watch, now)?;
        let committed = watch.ours.filter(|_| sent.is_ok()).unwrap_or(now);
        match sent {
            Ok(_) if watch.changed_until(committed) => Err(CommitError::Overtaken { generation: committed }),
            Ok(_) => Ok(Some(committed)),
            // What it refers to was changed in between.
            Err(CommitError::Refused { .. }) if watch.changed_until(committed) => Err(CommitError::Stale),
            Err(error) => Err(error),
        }
    }

    fn catch_up(&mut self, watch: &mut Watch, generation: Generation) -> Result<(), CommitError> {
        self.wait_for_commit().map_err(CommitError::Unknown)?;
        watch.drain(generation).map_err(|error| CommitError::Unknown(lost(error)))
    }

    /// Waits for a commit in progress: its notifications have then been sent. An empty batch takes
    /// the lock that commits hold (`nf_tables_valid_genid`, net/netfilter/nf_tables_api.c).
    fn wait_for_commit(&mut self) -> Result<(), ObserveError> {
        self.empty_batch(|_| {}).map(drop)
    }

    /// Sends a batch without changes. Returns whether the kernel accepted it.
    pub(super) fn empty_batch(
        &mut self,
        begin: impl FnOnce(&mut Attributes<'_>),
    ) -> Result<bool, ObserveError> {
        self.question.clear();
        self.question.message(message::BATCH_BEGIN, Flags::NONE, &batch_header(), begin);
        self.question.message(message::BATCH_END, Flags::NONE, &batch_header(), |_| {});
        match self.socket.transact(&mut self.question, |_| Ok(())) {
            Ok(answer) => Ok(answer.refused.is_empty()),
            // Before 6.10 the kernel does not acknowledge the end of a batch. Refusals always
            // arrive.
            Err(TransactError::Lost(_)) => Ok(true),
            Err(source) => Err(cannot_read(GENERATION, AskError::Transact(source))),
        }
    }
}

/// The kernel applies a batch that expects this generation at any.
const NO_GENERATION: Generation = Generation(0);

fn lost(source: io::Error) -> ObserveError {
    ObserveError { what: TABLES.into(), source: ReadError::Notifications(source) }
}
