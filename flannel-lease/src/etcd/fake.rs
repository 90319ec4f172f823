//! An etcd in memory, for tests: revisions, leases, transactions, watches and compaction as in etcd.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;

use super::calls::{Answer, Calls, Changes};
use super::client::{CALL_TIMEOUT, Listing};
use super::wire::{
    Compare, CompareResult, CompareTarget, Event, Header, KeyValue, Operation, PutRequest, RangeRequest,
    RangeResponse, ResponseOp, TxnRequest, TxnResponse, WatchResponse, prefix_end,
};
use super::{EtcdOptions, EtcdStore};
use crate::{Chain, Health, StoreError, StoreErrorKind, StoreFuture, Timing};

/// An etcd in memory. Clones are the same etcd. Its clock is tokio's, so that tests can pause it.
#[derive(Clone, Debug)]
pub struct FakeEtcd {
    state: Arc<Mutex<State>>,
    /// Wakes watches.
    changed: watch::Sender<()>,
}

/// The network between one node and a [`FakeEtcd`].
#[derive(Clone, Debug)]
pub struct FakeLink(watch::Sender<Link>);

#[derive(Clone, Copy, Debug)]
struct Link {
    is_up: bool,
    max_delay: Duration,
}

/// An entry of a [`FakeEtcd`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FakeEntry {
    /// What follows the prefix in its key, such as `subnets/10.244.1.0-24`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The revision that created it.
    pub created: i64,
    /// The revision that last wrote it.
    pub modified: i64,
    /// Whether it is attached to an etcd lease, with which it ends.
    pub ends: bool,
}

#[derive(Debug)]
struct State {
    /// Changes when the store is wiped.
    cluster: u64,
    revision: i64,
    /// Events up to this revision are forgotten.
    compacted: i64,
    entries: BTreeMap<Vec<u8>, KeyValue>,
    history: Vec<Event>,
    /// Values that were replaced, and by which.
    overwrites: Vec<(KeyValue, KeyValue)>,
    leases: BTreeMap<i64, Granted>,
    last_lease: i64,
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    ttl: Duration,
    ends: Instant,
}

impl Default for FakeEtcd {
    fn default() -> Self {
        Self { state: Arc::new(Mutex::new(State::new(1))), changed: watch::Sender::new(()) }
    }
}

impl Default for FakeLink {
    fn default() -> Self {
        Self(watch::Sender::new(Link { is_up: true, max_delay: Duration::ZERO }))
    }
}

impl FakeLink {
    /// Cuts or mends the network. While it is cut, requests and answers wait; a call fails after five seconds, whether
    /// etcd has done it or not.
    pub fn set_up(&self, is_up: bool) {
        self.0.send_modify(|link| link.is_up = is_up);
    }

    /// Whether it is not cut.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.borrow().is_up
    }

    /// The longest time that a message takes; each takes a random part of it. Default: 0.
    pub fn set_delay(&self, max_delay: Duration) {
        self.0.send_modify(|link| link.max_delay = max_delay);
    }
}

impl FakeEtcd {
    /// A store at this etcd, as [`EtcdStore::new`] makes one.
    #[must_use]
    pub fn store(&self, link: &FakeLink, timing: Timing) -> EtcdStore {
        let client = FakeClient { etcd: self.clone(), link: link.0.subscribe(), health: Health::default() };
        EtcdStore::with(Box::new(client), &prefix(), timing)
    }

    /// Writes an entry that is attached to no etcd lease, as `etcdctl put` does; `name` is as in [`FakeEntry`].
    pub fn put(&self, name: &str, value: &str) {
        let put = PutRequest { key: key(name), value: value.into(), lease: 0 };
        self.with(|state| state.change(|state, at| state.put(put, at)));
    }

    /// Writes a value; the entry stays attached to its etcd lease, as with `etcdctl put --ignore-lease`.
    pub fn overwrite(&self, name: &str, value: &str) {
        self.with(|state| {
            let lease = state.entries.get(&key(name)).map_or(0, |entry| entry.lease);
            let put = PutRequest { key: key(name), value: value.into(), lease };
            state.change(|state, at| state.put(put, at));
        });
    }

    /// Deletes an entry, as `etcdctl del` does.
    pub fn delete(&self, name: &str) {
        self.with(|state| state.change(|state, at| state.delete(&key(name), at)));
    }

    /// All entries, by name.
    #[must_use]
    pub fn entries(&self) -> Vec<FakeEntry> {
        self.with(|state| state.entries.values().map(FakeEntry::of).collect())
    }

    /// The entries that were overwritten since the last call, and what each has become.
    #[must_use]
    pub fn take_overwrites(&self) -> Vec<(FakeEntry, FakeEntry)> {
        let overwrites = self.with(|state| std::mem::take(&mut state.overwrites));
        overwrites.iter().map(|(before, after)| (FakeEntry::of(before), FakeEntry::of(after))).collect()
    }

    /// How many transactions have changed something since the store was made.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.with(|state| state.revision)
    }

    /// Loses all data, as an etcd does whose disk is replaced.
    pub fn wipe(&self) {
        self.with(|state| *state = State::new(state.cluster + 1));
    }

    /// Forgets all events so far, as `etcdctl compact` does.
    pub fn compact(&self) {
        self.with(|state| {
            state.compacted = state.revision;
            state.history.clear();
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = (state.cluster, state.revision, state.compacted);
        state.expire();
        let result = work(&mut state);
        let is_changed = before != (state.cluster, state.revision, state.compacted);
        drop::<MutexGuard<'_, _>>(state);
        if is_changed {
            self.changed.send_replace(());
        }
        result
    }
}

impl FakeEntry {
    fn of(entry: &KeyValue) -> Self {
        Self {
            name: String::from_utf8_lossy(entry.key.get(prefix().len() + 1..).unwrap_or_default()).into(),
            value: String::from_utf8_lossy(&entry.value).into(),
            created: entry.create_revision,
            modified: entry.mod_revision,
            ends: entry.lease != 0,
        }
    }
}

fn prefix() -> String {
    EtcdOptions::new(Vec::new()).prefix
}

fn key(name: &str) -> Vec<u8> {
    format!("{}/{name}", prefix()).into()
}

fn contains(first: &[u8], end: &[u8], key: &[u8]) -> bool {
    if end.is_empty() { key == first } else { (first..end).contains(&key) }
}

impl State {
    fn new(cluster: u64) -> Self {
        Self {
            cluster,
            revision: 1,
            compacted: 0,
            entries: BTreeMap::new(),
            history: Vec::new(),
            overwrites: Vec::new(),
            leases: BTreeMap::new(),
            // Etcd's numbers of leases are random enough to be used only once.
            last_lease: i64::try_from(cluster << 32).unwrap_or_default(),
        }
    }

    fn header(&self) -> Header {
        Header { cluster_id: self.cluster, revision: self.revision, raft_term: 1 }
    }

    /// Makes changes with one revision; none if nothing changes.
    fn change(&mut self, work: impl FnOnce(&mut Self, i64)) {
        let (before, at) = (self.history.len(), self.revision + 1);
        work(self, at);
        if self.history.len() > before {
            self.revision = at;
        }
    }

    fn put(&mut self, put: PutRequest, at: i64) {
        let PutRequest { key, value, lease } = put;
        let create_revision = self.entries.get(&key).map_or(at, |entry| entry.create_revision);
        let entry = KeyValue { key: key.clone(), create_revision, mod_revision: at, value, lease };
        let before = self.entries.insert(key, entry.clone());
        self.overwrites.extend(before.map(|before| (before, entry.clone())));
        self.history.push(Event { kind: 0, kv: Some(entry) });
    }

    fn delete(&mut self, key: &[u8], at: i64) {
        if self.entries.remove(key).is_some() {
            let gone = KeyValue { key: key.into(), mod_revision: at, ..KeyValue::default() };
            self.history.push(Event { kind: Event::DELETE, kv: Some(gone) });
        }
    }

    /// Ends leases that were not renewed in time, and deletes their keys.
    fn expire(&mut self) {
        let now = Instant::now();
        let ended: Vec<i64> =
            self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        for id in ended {
            self.end(id);
        }
    }

    fn end(&mut self, id: i64) {
        self.leases.remove(&id);
        let keys: Vec<_> =
            self.entries.values().filter(|entry| entry.lease == id).map(|entry| entry.key.clone()).collect();
        self.change(|state, at| keys.iter().for_each(|key| state.delete(key, at)));
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        let found = self.entries.values().filter(|entry| {
            contains(&request.key, &request.range_end, &entry.key)
                && entry.mod_revision >= request.min_mod_revision
        });
        RangeResponse { header: Some(self.header()), kvs: found.cloned().collect(), more: false }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let is_right = |entry: &KeyValue| {
            let (found, wanted) = if compare.target == i32::from(CompareTarget::Lease) {
                (entry.lease, compare.lease)
            } else {
                (entry.mod_revision, compare.mod_revision)
            };
            let wanted = wanted.unwrap_or_default();
            if compare.result == i32::from(CompareResult::Less) { found < wanted } else { found == wanted }
        };
        if compare.range_end.is_empty() {
            let absent = KeyValue::default();
            return is_right(self.entries.get(&compare.key).unwrap_or(&absent));
        }
        let mut entries = self.entries.values();
        entries.all(|entry| !contains(&compare.key, &compare.range_end, &entry.key) || is_right(entry))
    }

    fn transact(&mut self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let operations = if succeeded { request.success } else { request.failure };
        let operations: Vec<_> = operations.into_iter().filter_map(|op| op.operation).collect();
        let is_ended = |operation: &Operation| matches!(operation, Operation::Put(put) if put.lease != 0 && !self.leases.contains_key(&put.lease));
        if operations.iter().any(is_ended) {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        let mut responses = Vec::new();
        self.change(|state, at| {
            for operation in operations {
                let mut range = None;
                match operation {
                    Operation::Range(request) => range = Some(state.range(&request)),
                    Operation::Put(put) => state.put(put, at),
                    Operation::Delete(delete) => state.delete(&delete.key, at),
                }
                responses.push(ResponseOp { range });
            }
        });
        Ok(TxnResponse { header: Some(self.header()), succeeded, responses })
    }
}

#[derive(Clone, Debug)]
struct FakeClient {
    etcd: FakeEtcd,
    link: watch::Receiver<Link>,
    health: Health,
}

/// Waits for as long as one message takes.
async fn travel(link: &mut watch::Receiver<Link>) {
    let max_delay = link.borrow().max_delay;
    if !max_delay.is_zero() {
        let delay = rand::rng().random_range(Duration::ZERO..=max_delay);
        sleep(delay).await;
    }
    // The other end of the link lives as long as the test.
    let _closed = link.wait_for(|link| link.is_up).await;
}

impl FakeClient {
    fn call<'a, T: Send + 'a>(
        &'a self,
        object: &'a str,
        work: impl FnOnce(&mut State) -> Result<T, Status> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            let mut link = self.link.clone();
            let exchange = async {
                travel(&mut link).await;
                let answer = self.etcd.with(work);
                travel(&mut link).await;
                answer
            };
            let late = |_elapsed| Err(Status::deadline_exceeded("no answer in time"));
            let answer = timeout(CALL_TIMEOUT, exchange).await.unwrap_or_else(late);
            let value = answer.map_err(|status| self.failed(object, &status))?;
            self.health.answered();
            Ok(value)
        })
    }
}

impl Calls for FakeClient {
    fn health(&self) -> &Health {
        &self.health
    }

    fn failed(&self, object: &str, status: &Status) -> StoreError {
        let error = StoreError {
            operation: "reach etcd for",
            object: format!("`{object}`"),
            advice: status.message().to_owned(),
            kind: StoreErrorKind::Unavailable,
            source: None,
        };
        self.health.failed(Chain(&error).to_string());
        error
    }

    fn read<'a>(&'a self, key: &'a str) -> Answer<'a, (Header, Option<KeyValue>)> {
        self.call(key, |state| Ok((state.header(), state.entries.get(key.as_bytes()).cloned())))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing> {
        self.call(prefix, |state| {
            let range_end = prefix_end(prefix.as_bytes());
            let range = RangeRequest { key: prefix.into(), range_end, ..RangeRequest::default() };
            Ok(Listing { header: state.header(), entries: state.range(&range).kvs })
        })
    }

    fn transact<'a>(&'a self, key: &'a str, request: TxnRequest) -> Answer<'a, TxnResponse> {
        self.call(key, |state| state.transact(request))
    }

    fn grant(&self, ttl: Duration) -> Answer<'_, (i64, Duration)> {
        self.call("a lease", move |state| {
            state.last_lease += 1;
            state.leases.insert(state.last_lease, Granted { ttl, ends: Instant::now() + ttl });
            Ok((state.last_lease, ttl))
        })
    }

    fn keep_alive(&self, id: i64) -> Answer<'_, Option<Duration>> {
        self.call("a lease", move |state| {
            Ok(state.leases.get_mut(&id).map(|lease| {
                lease.ends = Instant::now() + lease.ttl;
                lease.ttl
            }))
        })
    }

    fn revoke(&self, id: i64) -> Answer<'_, ()> {
        self.call("a lease", move |state| {
            state.end(id);
            Ok(())
        })
    }

    fn watch<'a>(&'a self, key: &'a str, range_end: Vec<u8>, start: i64) -> Answer<'a, Box<dyn Changes>> {
        let changes = move |state: &mut State| {
            let watch = FakeChanges {
                etcd: self.etcd.clone(),
                link: self.link.clone(),
                cluster: state.cluster,
                first: key.into(),
                range_end,
                next: start,
                is_created: false,
            };
            let watch: Box<dyn Changes> = Box::new(watch);
            Ok(watch)
        };
        self.call(key, changes)
    }
}

#[derive(Debug)]
struct FakeChanges {
    etcd: FakeEtcd,
    link: watch::Receiver<Link>,
    cluster: u64,
    first: Vec<u8>,
    range_end: Vec<u8>,
    /// The first revision that has not been reported.
    next: i64,
    is_created: bool,
}

impl FakeChanges {
    /// What is to be reported now, if anything.
    fn pending(&self) -> Result<Option<WatchResponse>, Status> {
        self.etcd.with(|state| {
            if state.cluster != self.cluster {
                return Err(Status::unavailable("etcd has been started again"));
            }
            let answer = WatchResponse { header: Some(state.header()), ..WatchResponse::default() };
            if self.next <= state.compacted {
                return Ok(Some(WatchResponse {
                    canceled: true,
                    compact_revision: state.compacted,
                    ..answer
                }));
            }
            if !self.is_created {
                return Ok(Some(WatchResponse { created: true, ..answer }));
            }
            let is_new = |event: &&Event| {
                event.kv.as_ref().is_some_and(|entry| {
                    entry.mod_revision >= self.next && contains(&self.first, &self.range_end, &entry.key)
                })
            };
            let events: Vec<Event> = state.history.iter().filter(is_new).cloned().collect();
            Ok((!events.is_empty()).then_some(WatchResponse { events, ..answer }))
        })
    }

    async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        loop {
            let (mut link, mut changed) = (self.link.clone(), self.etcd.changed.subscribe());
            link.mark_unchanged();
            if self.pending()?.is_none() {
                let first_end = self.etcd.with(|state| state.leases.values().map(|lease| lease.ends).min());
                tokio::select! {
                    _ = changed.changed() => {}
                    () = sleep_until(first_end.unwrap_or_else(Instant::now)), if first_end.is_some() => {}
                    _ = link.changed() => {}
                }
            }
            if timeout(CALL_TIMEOUT, travel(&mut link)).await.is_err() {
                return Err(Status::unavailable("the connection is lost"));
            }
            // From here on nothing waits, so that nothing is lost if the caller drops this future.
            let Some(answer) = self.pending()? else { continue };
            self.is_created = true;
            let last = answer.events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision)).max();
            self.next = last.map_or(self.next, |last| last + 1);
            return Ok(Some(answer));
        }
    }
}

impl Changes for FakeChanges {
    fn message(&mut self) -> StoreFuture<'_, Result<Option<WatchResponse>, Status>> {
        Box::pin(self.next())
    }
}
