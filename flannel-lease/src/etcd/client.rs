//! Calls to etcd: one connection to one member at a time, the next member when it fails.

use std::error::Error as _;
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

use super::member::Member;
use super::options::EtcdOptions;
use super::session::{Session, Unreachable, causes, first_to_answer, grpc, is_silence, login};
use super::wire::{
    AuthenticateRequest, Compare, CompareResult, CompareTarget, Header, KeyValue, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseResponse, LeaseRevokeRequest, Nothing, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse, prefix_end,
};
use crate::health::Health;
use crate::{StoreError, StoreErrorKind};

/// Longest time one call may take, connecting included.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries asked for at once in a listing: about 1 MB.
const PAGE_SIZE: i64 = 5000;

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
        let mut listing: Option<Listing> = None;
        loop {
            let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", prefix, request.clone()).await?;
            let header = answer.header.unwrap_or_default();
            let more = answer.more.then(|| answer.kvs.last().map(|last| last.key.clone())).flatten();
            let listing = match &mut listing {
                Some(listing) => {
                    listing.entries.extend(answer.kvs);
                    listing
                }
                None => listing.insert(Listing { header, entries: answer.kvs }),
            };
            let Some(mut next) = more else {
                return Ok(Listing { header: listing.header, entries: std::mem::take(&mut listing.entries) });
            };
            next.push(0);
            request.key = next;
            request.revision = listing.header.revision;
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
            self.call("/etcdserverpb.Lease/LeaseGrant", "a lease", LeaseGrantRequest { ttl }).await?;
        Ok((answer.id, seconds(answer.ttl)))
    }

    /// Prolongs an etcd lease. How long it lives now; `None` if it has ended.
    pub(super) async fn keep_alive(&self, id: i64) -> Result<Option<Duration>, StoreError> {
        let request = || tokio_stream::once(LeaseKeepAliveRequest { id });
        let mut answers = self.stream("/etcdserverpb.Lease/LeaseKeepAlive", "a lease", request).await?;
        let answer: Option<LeaseResponse> = match timeout(CALL_TIMEOUT, answers.message()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => return Err(self.failed("a lease", &status)),
            Err(_) => return Err(self.failed("a lease", &Status::deadline_exceeded("no answer"))),
        };
        Ok(answer.map(|answer| answer.ttl).filter(|ttl| *ttl > 0).map(seconds))
    }

    /// Ends an etcd lease that nothing hangs on.
    pub(super) async fn revoke(&self, id: i64) -> Result<(), StoreError> {
        let Nothing {} =
            self.call("/etcdserverpb.Lease/LeaseRevoke", "a lease", LeaseRevokeRequest { id }).await?;
        Ok(())
    }

    /// Changes of `key` (and, with a `range_end`, of all keys before that), from `start_revision` on.
    pub(super) async fn watch(
        &self,
        key: &str,
        range_end: Vec<u8>,
        start_revision: i64,
    ) -> Result<Streaming<WatchResponse>, StoreError> {
        let create = WatchCreateRequest { key: key.into(), range_end, start_revision, progress_notify: true };
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
        let error = StoreError {
            operation: "reach etcd for",
            object: format!("`{object}` at {}", self.names),
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
        let result = self
            .attempt(|session| {
                let request = request.clone();
                async move {
                    let mut grpc = grpc(session.channel.clone()).await?;
                    let codec = ProstCodec::<Q, A>::default();
                    let request = session.authorize(Request::new(request));
                    Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
                }
            })
            .await;
        result.map_err(|status| self.failed(object, &status))
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

/// What etcd said, or why it could not be asked, each cause once: a [`Status`] shows its causes itself, as `{:?}`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RpcError(String);

impl RpcError {
    fn by(status: &Status) -> Self {
        Self(match (status.source(), status.message()) {
            (Some(_), _) => causes(status),
            (None, "") => status.code().to_string(),
            (None, message) => message.to_owned(),
        })
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

fn advice(status: &Status) -> (StoreErrorKind, &'static str) {
    let text = status.message();
    match status.code() {
        Code::PermissionDenied => (
            StoreErrorKind::Unusable,
            "grant the user of --etcd-username reading and writing under --etcd-prefix",
        ),
        Code::Unauthenticated => (StoreErrorKind::Unusable, "check --etcd-username and --etcd-password"),
        Code::InvalidArgument if text.contains("authentication failed") => {
            (StoreErrorKind::Unusable, "check --etcd-username and --etcd-password")
        }
        Code::InvalidArgument if text.contains("user name is empty") => {
            (StoreErrorKind::Unusable, "this etcd wants a user: give --etcd-username and --etcd-password")
        }
        Code::FailedPrecondition if text.contains("authentication is not enabled") => {
            (StoreErrorKind::Unusable, "this etcd knows no users: leave out --etcd-username")
        }
        Code::ResourceExhausted => {
            (StoreErrorKind::Unavailable, "its space is used up; compact and defragment it")
        }
        _ => {
            let advice =
                unreachable(status).map_or("check that an etcd member runs there", Unreachable::advice);
            (StoreErrorKind::Unavailable, advice)
        }
    }
}

/// Whether no member can be reached, and why.
fn unreachable(status: &Status) -> Option<&Unreachable> {
    status.source().and_then(|source| source.downcast_ref())
}

/// "Nobody has written under `prefix` since `revision`." Etcd tests a range's every key.
pub(super) fn unchanged_since(prefix: &str, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Mod.into(),
        key: prefix.into(),
        mod_revision: Some(revision.saturating_add(1)),
        range_end: prefix_end(prefix.as_bytes()),
    }
}

/// "`key` is as it was when last written at `revision`."
pub(super) fn still_at(key: &str, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.into(),
        mod_revision: Some(revision),
        range_end: Vec::new(),
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
