//! Follows the leases of all nodes: one listing, then changes, resumed after an interruption.

use super::wire::{Event, Header, KeyValue, WatchResponse, prefix_end};
use super::{EtcdStore, parse_key};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use crate::LeaseEvent;
use crate::codec::cut;
use crate::malformed_entries::Malformed;
use crate::{Backoff, Lease, LeaseAttributes, LeaseKey, StoreError};

/// What a watch remembers from one connection to the next.
#[derive(Default)]
pub(super) struct Progress {
    /// Where in etcd's history it is; `None` before the first listing and when that place is compacted away.
    seen: Option<Header>,
    /// The latest entry seen written, to recognise the same history: key, revision, etcd lease.
    landmark: Option<(String, i64, i64)>,
    /// When the end of a listing is to be reported: once nodes have had time to register again.
    settling: Option<Instant>,
    listed: bool,
    malformed: Malformed,
}

/// Why a connection's watch ended.
enum End {
    /// The receiver is gone.
    Closed,
    /// Its place in the history is compacted away; list again at once.
    Compacted,
    /// It broke; resume after a pause.
    Broken,
}

impl EtcdStore {
    pub(super) async fn watch(&self, events: mpsc::Sender<LeaseEvent>) {
        let mut progress = Progress::default();
        let mut backoff = Backoff::default();
        loop {
            let end = tokio::select! {
                () = events.closed() => return,
                end = self.follow(&events, &mut progress, &mut backoff) => end,
            };
            match end {
                Ok(End::Closed) => return,
                Ok(End::Compacted) => progress.seen = None,
                Ok(End::Broken) | Err(_) => tokio::select! {
                    () = events.closed() => return,
                    () = sleep(backoff.next_delay()) => {}
                },
            }
        }
    }

    async fn follow(
        &self,
        events: &mpsc::Sender<LeaseEvent>,
        progress: &mut Progress,
        backoff: &mut Backoff,
    ) -> Result<End, StoreError> {
        let seen = match progress.seen {
            Some(seen) if self.same_history(seen, progress).await? => seen,
            compacted_or_wiped => {
                match self.report_all(events, progress, compacted_or_wiped.is_some()).await? {
                    Some(seen) => seen,
                    None => return Ok(End::Closed),
                }
            }
        };
        let end = prefix_end(self.subnets.as_bytes());
        let mut stream = self.client.watch(&self.subnets, end, seen.revision.saturating_add(1)).await?;
        backoff.reset();
        loop {
            let due = progress.settling;
            let answer = tokio::select! {
                answer = stream.message() => answer,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if !settle(events, progress).await {
                        return Ok(End::Closed);
                    }
                    continue;
                }
            };
            let mut answer = match answer {
                Ok(Some(answer)) => answer,
                Ok(None) => return Ok(End::Broken),
                Err(status) => return Err(self.client.failed(&self.subnets, &status)),
            };
            self.client.health().answered();
            if answer.compact_revision != 0 {
                return Ok(End::Compacted);
            }
            if answer.canceled {
                let status = Status::unavailable(answer.cancel_reason);
                return Err(self.client.failed(&self.subnets, &status));
            }
            // Wiped since the listing: a watch of this store would wait for a revision that may be far ahead of it.
            if answer.header.is_some_and(|header| seen.is_lost_in(&header)) {
                return Ok(End::Broken);
            }
            progress.advance(&answer);
            // Of one transaction, removals come last: a subnet that moves to another lease of its node always has one.
            answer.events.sort_by_key(|event| {
                (event.kv.as_ref().map(|entry| entry.mod_revision), event.kind == Event::DELETE)
            });
            for event in answer.events {
                let Some(event) = translate(&self.subnets, event, progress) else { continue };
                if events.send(event).await.is_err() {
                    return Ok(End::Closed);
                }
            }
        }
    }

    /// Whether etcd's history is still the one that was being followed: not of another cluster, not older, and the entry
    /// seen last still as it was. If that one has changed since, a listing settles the question.
    async fn same_history(&self, seen: Header, progress: &Progress) -> Result<bool, StoreError> {
        let Some((key, mod_revision, lease)) = &progress.landmark else { return Ok(false) };
        let (now, entry) = self.client.read(key).await?;
        let continued = now.cluster_id == seen.cluster_id
            && now.revision >= seen.revision
            && now.raft_term >= seen.raft_term;
        Ok(continued && entry.is_some_and(|e| (e.mod_revision, e.lease) == (*mod_revision, *lease)))
    }

    /// Reports a listing. If the store may have been recreated (`suspect`), the end is reported only after a while.
    async fn report_all(
        &self,
        events: &mpsc::Sender<LeaseEvent>,
        progress: &mut Progress,
        suspect: bool,
    ) -> Result<Option<Header>, StoreError> {
        let listing = self.client.list(&self.subnets).await?;
        progress.landmark = None;
        if events.send(LeaseEvent::Resync).await.is_err() {
            return Ok(None);
        }
        for entry in listing.entries {
            progress.remember(&entry);
            let Some(event) = read_entry(&self.subnets, &entry, &mut progress.malformed) else { continue };
            if events.send(event).await.is_err() {
                return Ok(None);
            }
        }
        progress.seen = Some(listing.header);
        let now = Instant::now();
        let due = if suspect && progress.listed { now + self.timing.settle } else { now };
        // A listing after a compaction does not shorten the time that nodes have to register again.
        let due = progress.settling.map_or(due, |earlier| earlier.max(due));
        progress.settling = Some(due);
        progress.listed = true;
        let open = match due > now {
            true => events.send(LeaseEvent::Settling).await.is_ok(),
            false => settle(events, progress).await,
        };
        Ok(open.then_some(listing.header))
    }
}

/// What an event of a watch of the keys below `subnets` says of a lease.
pub(super) fn translate(subnets: &str, event: Event, progress: &mut Progress) -> Option<LeaseEvent> {
    let entry = event.kv?;
    if event.kind == Event::DELETE {
        return parse_key(subnets, &entry.key).map(LeaseEvent::Remove);
    }
    progress.remember(&entry);
    read_entry(subnets, &entry, &mut progress.malformed)
}

/// What an entry says of its lease. One whose key is none is named once in the log.
pub(super) fn read_entry(subnets: &str, entry: &KeyValue, malformed: &mut Malformed) -> Option<LeaseEvent> {
    let path = String::from_utf8_lossy(&entry.key);
    let name = path.strip_prefix(subnets).unwrap_or(&path);
    let key = match name.parse::<LeaseKey>() {
        Ok(key) => key,
        Err(error) => {
            malformed.report(&subnets, &[(name.to_owned(), error.to_string())], Malformed::MEND);
            return None;
        }
    };
    Some(match LeaseAttributes::from_json(&entry.value) {
        Ok(attributes) => {
            let created = u64::try_from(entry.create_revision).unwrap_or_default();
            let lease = Lease { created, ..Lease::new(key, attributes, None) };
            LeaseEvent::Upsert(lease.with_gaps_of_json(&path))
        }
        Err(error) => LeaseEvent::Malformed { key, problem: format!("{path}: {}", cut(&error.to_string())) },
    })
}

impl Progress {
    /// Notes how far the watch has come: to its last event, or, if it only reports progress, to the header's revision.
    /// With events, that may be ahead: a watch that catches up is told of at most 1000 revisions at once (etcd
    /// `mvcc/watchable_store.go`, `watchBatchMaxRevs`).
    pub(super) fn advance(&mut self, answer: &WatchResponse) {
        if answer.fragment {
            return; // the rest may be of the same revision
        }
        let Some((seen, header)) = self.seen.as_mut().zip(answer.header) else { return };
        let last = answer.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
        let told = if answer.created { None } else { last.or(Some(header.revision)) };
        *seen = Header { revision: told.unwrap_or_default().max(seen.revision), ..header };
    }

    fn remember(&mut self, entry: &KeyValue) {
        if self.landmark.as_ref().is_none_or(|(_, revision, _)| entry.mod_revision > *revision) {
            let key = String::from_utf8_lossy(&entry.key).into_owned();
            self.landmark = Some((key, entry.mod_revision, entry.lease));
        }
    }
}

/// Reports the end of a listing. `false` if the receiver is gone.
async fn settle(events: &mpsc::Sender<LeaseEvent>, progress: &mut Progress) -> bool {
    match progress.settling.take() {
        Some(_) => events.send(LeaseEvent::Synced { unreadable: Vec::new() }).await.is_ok(),
        None => true,
    }
}
