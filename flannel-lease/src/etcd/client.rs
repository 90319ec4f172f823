//! Calls to etcd: one connection to one member at a time, the next member when it fails.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::advice::{RpcError, advice, is_refusal, unreachable};
use super::connection::{Session, first_to_answer, grpc, is_silence, login};
use super::member::Member;
use super::options::EtcdOptions;
use super::wire::{
    AuthenticateRequest, Compare, CompareResult, CompareTarget, Header, KeyValue, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseResponse, LeaseRevokeRequest, Nothing, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse, prefix_end,
};
use crate::StoreError;
use crate::codec::MAX_LEASE_BYTES;
use crate::health::Health;

/// What messages call a lease of etcd, on which keys hang.
const LEASE: &str = "an etcd lease";

/// Longest time one call may take, connecting included.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries asked for at once in a listing: about 1 MB. Fewer if they are so large that etcd's answer is.
const PAGE_SIZE: i64 = 5000;

/// Most entries of a listing.
const MAX_ENTRIES: usize = 1 << 17;

/// Bytes of all values of a listing that are kept.
const MAX_LISTING_BYTES: usize = 256 << 20;

/// Longest key that is kept whole, in bytes. Keys of leases have 60.
const MAX_KEY_BYTES: usize = 256;

/// Longest time to live that is believed: a century. The clock of a machine has no date that is 2^63 seconds away.
const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A listing, and the moment it is true for.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) header: Header,
    pub(super) entries: Vec<KeyValue>,
}

#[derive(Debug)]
pub(super) struct Client {
    members: Vec<Arc<Member>>,
    /// The members' URLs, for messages.
    names: String,
    user: Option<AuthenticateRequest>,
    current: Mutex<Connection>,
    pub(super) health: Health,
}

#[derive(Debug, Default)]
struct Connection {
    /// Index of the member to try next, or to which `session` is.
    member: usize,
    session: Option<Session>,
    /// Counts sessions, so that only the one that failed is given up.
    number: u64,
}

impl Client {
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        let user = options
            .username
            .clone()
            .filter(|name| !name.is_empty())
            .map(|name| AuthenticateRequest { name, password: options.password.clone().unwrap_or_default() });
        Ok(Self {
            members: options.members()?,
            names: options.endpoints.join(","),
            user,
            current: Mutex::default(),
            health: Health::default(),
        })
    }

    /// The entry at `key`, if there is one.
    pub(super) async fn read(&self, key: &str) -> Result<(Header, Option<KeyValue>), StoreError> {
        let request = RangeRequest { key: key.into(), ..Default::default() };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", key, request).await?;
        Ok((answer.header.unwrap_or_default(), answer.kvs.into_iter().next()))
    }

    /// Every entry under `prefix`, as of one moment.
    pub(super) async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let mut request = RangeRequest {
            key: prefix.into(),
            range_end: prefix_end(prefix.as_bytes()),
            limit: PAGE_SIZE,
            ..Default::default()
        };
        let (mut header, mut entries, mut bytes) = (None, Vec::new(), 0_usize);
        loop {
            let page = self.ask("/etcdserverpb.KV/Range", request.clone()).await;
            let answer: RangeResponse = match page {
                // Values of a megabyte each; a page of one always fits, because etcd accepts none of that size.
                Err(status) if is_too_large(&status) && request.limit > 1 => {
                    request.limit = (request.limit / 8).max(1);
                    continue;
                }
                page => page.map_err(|status| self.failed(prefix, &status))?,
            };
            request.limit = request.limit.saturating_mul(2).min(PAGE_SIZE);
            let first = *header.get_or_insert_with(|| answer.header.unwrap_or_default());
            // A page without entries that promises more does not advance: an error below.
            let more =
                answer.more.then(|| answer.kvs.last().map(|last| last.key.clone()).unwrap_or_default());
            for mut entry in answer.kvs {
                bytes = bytes.saturating_add(bound(&mut entry));
                if bytes > MAX_LISTING_BYTES {
                    entry.value.clear(); // named like any other that cannot be read
                }
                entries.push(entry);
            }
            let Some(mut next) = more else { return Ok(Listing { header: first, entries }) };
            next.push(0);
            if next <= request.key || entries.len() > MAX_ENTRIES {
                let status =
                    Status::data_loss(format!("the listing has more than {MAX_ENTRIES} entries, or no end"));
                return Err(self.failed(prefix, &status));
            }
            request.key = next;
            request.revision = first.revision;
        }
    }

    /// Does `success` if all of `compare` holds, else `failure`.
    pub(super) async fn transact(&self, key: &str, request: TxnRequest) -> Result<TxnResponse, StoreError> {
        self.call("/etcdserverpb.KV/Txn", key, request).await
    }

    /// A new etcd lease of this length; its id and actual length.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<(i64, Duration), StoreError> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let answer: LeaseResponse =
            self.call("/etcdserverpb.Lease/LeaseGrant", LEASE, LeaseGrantRequest { ttl }).await?;
        Ok((answer.id, seconds(answer.ttl)))
    }

    /// Prolongs an etcd lease. How long it lives now; `None` if it has ended.
    pub(super) async fn keep_alive(&self, id: i64) -> Result<Option<Duration>, StoreError> {
        let request = || tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut answers = self.stream("/etcdserverpb.Lease/LeaseKeepAlive", LEASE, request).await?;
        let answer: Option<LeaseResponse> = match timeout(CALL_TIMEOUT, answers.message()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => return Err(self.failed(LEASE, &status)),
            Err(_) => return Err(self.failed(LEASE, &Status::deadline_exceeded("no answer"))),
        };
        Ok(answer.map(|answer| answer.ttl).filter(|ttl| *ttl > 0).map(seconds))
    }

    /// Ends an etcd lease that nothing hangs on.
    pub(super) async fn revoke(&self, id: i64) -> Result<(), StoreError> {
        let Nothing {} =
            self.call("/etcdserverpb.Lease/LeaseRevoke", LEASE, LeaseRevokeRequest { id }).await?;
        Ok(())
    }

    /// Changes of `key` (and, with a `range_end`, of all keys before that), from `start_revision` on.
    pub(super) async fn watch(
        &self,
        key: &str,
        range_end: Vec<u8>,
        start_revision: i64,
    ) -> Result<Streaming<WatchResponse>, StoreError> {
        let create = WatchCreateRequest {
            key: key.into(),
            range_end,
            start_revision,
            progress_notify: true,
            fragment: true,
        };
        let request = || {
            // The request side has to stay open, or etcd ends the watch.
            let open = tokio_stream::once(()).then(|()| pending());
            tokio_stream::once(WatchRequest { create: Some(create.clone()) }).chain(open)
        };
        self.stream("/etcdserverpb.Watch/Watch", key, request).await
    }

    /// Names what failed, notes it, and says what to do.
    pub(super) fn failed(&self, object: &str, status: &Status) -> StoreError {
        let (kind, advice) = advice(status);
        let object = if object == LEASE { object.to_owned() } else { format!("`{object}`") };
        let error = StoreError {
            operation: if is_refusal(status) { "use etcd for" } else { "reach etcd for" },
            object: format!("{object} at {}", self.names),
            advice: advice.to_owned(),
            kind,
            source: Some(Box::new(RpcError::by(status))),
        };
        self.health.failed(crate::Chain(&error).to_string());
        error
    }

    async fn call<Q, A>(&self, path: &'static str, object: &str, request: Q) -> Result<A, StoreError>
    where
        Q: Message + Clone + Default + 'static,
        A: Message + Default + 'static,
    {
        self.ask(path, request).await.map_err(|status| self.failed(object, &status))
    }

    async fn ask<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Clone + Default + 'static,
        A: Message + Default + 'static,
    {
        self.attempt(|session| {
            let request = request.clone();
            async move {
                let mut grpc = grpc(session.channel.clone()).await?;
                let codec = ProstCodec::<Q, A>::default();
                let request = session.authorize(Request::new(request));
                Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
            }
        })
        .await
    }

    async fn stream<Q, A, S>(
        &self,
        path: &'static str,
        object: &str,
        requests: impl Fn() -> S,
    ) -> Result<Streaming<A>, StoreError>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        S: Stream<Item = Q> + Send + 'static,
    {
        let result = self
            .attempt(|session| {
                let requests = requests();
                async move {
                    let mut grpc = grpc(session.channel.clone()).await?;
                    let codec = ProstCodec::<Q, A>::default();
                    let request = session.authorize(Request::new(requests));
                    Ok(grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner())
                }
            })
            .await;
        result.map_err(|status| self.failed(object, &status))
    }

    /// Tries each member once, starting with the one connected to; once more after an outdated login.
    async fn attempt<T, F>(&self, work: impl Fn(Session) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut last = Status::unavailable("no member to ask");
        for _ in 0..=self.members.len() {
            let status = match self.session().await {
                Ok(session) => {
                    let number = session.number;
                    let late = |_elapsed| Err(Status::deadline_exceeded("no answer in time"));
                    let status = match timeout(CALL_TIMEOUT, work(session)).await.unwrap_or_else(late) {
                        Ok(value) => {
                            self.health.answered();
                            return Ok(value);
                        }
                        Err(status) => status,
                    };
                    if is_retryable(&status) {
                        self.give_up(number).await;
                    }
                    status
                }
                Err(status) => status,
            };
            // Where none can be reached, each has been tried.
            if !is_retryable(&status) || unreachable(&status).is_some() {
                return Err(status);
            }
            last = status;
        }
        Err(last)
    }

    async fn session(&self) -> Result<Session, Status> {
        let mut current = self.current.lock().await;
        if let Some(session) = &current.session {
            return Ok(session.clone());
        }
        let deadline = Instant::now() + CALL_TIMEOUT / 2;
        let (member, channel) =
            first_to_answer(&self.members, current.member, deadline).await.map_err(|error| {
                let mut status = Status::unavailable(error.to_string());
                status.set_source(Arc::new(error));
                status
            })?;
        current.member = member;
        let token = match &self.user {
            Some(user) => {
                let late = |_elapsed| Err(Status::unavailable("no login in time"));
                let login = timeout(CALL_TIMEOUT / 2, login(channel.clone(), user.clone()))
                    .await
                    .unwrap_or_else(late);
                Some(login.inspect_err(|_| current.member += 1)?)
            }
            None => None,
        };
        current.number += 1;
        let session = Session { channel, token, number: current.number };
        current.session = Some(session.clone());
        Ok(session)
    }

    /// Uses the next member from now on, unless another call has already moved on.
    async fn give_up(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.session.as_ref().is_some_and(|session| number == session.number) {
            current.session = None;
            current.member += 1;
        }
    }
}

/// Whether another member, or a new login, may do better.
fn is_retryable(status: &Status) -> bool {
    match status.code() {
        Code::Unauthenticated => true,
        Code::InvalidArgument => status.message().contains("revision of auth store is old"),
        _ => is_silence(status),
    }
}

/// "Nobody has written under `prefix` since `revision`." Etcd tests a range's every key.
pub(super) fn unchanged_since(prefix: &str, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Mod.into(),
        key: prefix.into(),
        mod_revision: Some(revision.saturating_add(1)),
        range_end: prefix_end(prefix.as_bytes()),
        ..Compare::default()
    }
}

/// "`key` is as it was when last written at `revision`."
pub(super) fn still_at(key: &str, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.into(),
        mod_revision: Some(revision),
        ..Compare::default()
    }
}

/// "`key` hangs on this etcd lease"; 0 is none.
pub(super) fn hangs_on(key: &str, lease: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Lease.into(),
        key: key.into(),
        lease: Some(lease),
        ..Compare::default()
    }
}

pub(super) fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0)).min(MAX_TTL)
}

/// Whether an answer is larger than this client accepts, or etcd sends.
fn is_too_large(status: &Status) -> bool {
    matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted) && status.message().contains("large")
}

/// Cuts what is too long to be a lease, so that it takes no memory and still cannot be read as one. Returns the length.
pub(super) fn bound(entry: &mut KeyValue) -> usize {
    for (field, most) in [(&mut entry.value, MAX_LEASE_BYTES + 1), (&mut entry.key, MAX_KEY_BYTES)] {
        field.truncate(most);
        field.shrink_to_fit();
    }
    entry.value.len()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_time_to_live_that_no_clock_has_is_cut() {
        for ttl in [i64::MIN, -1, 0, 60, i64::MAX] {
            assert!(SystemTime::now() + seconds(ttl) < SystemTime::now() + 2 * MAX_TTL, "{ttl}");
        }
        assert_eq!(seconds(60), Duration::from_secs(60));
    }

    #[test]
    fn a_value_that_is_too_long_takes_no_memory_and_is_still_no_lease() {
        let mut entry =
            KeyValue { key: vec![b'k'; 1 << 20], value: vec![b' '; 1 << 20], ..KeyValue::default() };
        bound(&mut entry);
        assert!(entry.value.capacity() < 2 * MAX_LEASE_BYTES && entry.key.len() == MAX_KEY_BYTES);
        let error = crate::LeaseAttributes::from_json(&entry.value).unwrap_err();
        assert!(error.to_string().contains("longer than the 16384 bytes"), "{error}");
    }
}
