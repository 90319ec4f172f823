//! Leases in one SQLite file that the daemons of a machine share: `--lease-db PATH`.
//!
//! Every decision is one write transaction, so two processes never decide on the same facts. A change in one process
//! wakes the others through inotify (`change_notify.rs`); in addition, each process checks the file every
//! [`Timing::recheck`]. Leases end after [`Timing::ttl`] unless renewed, as in etcd; a row without end is a
//! reservation. Every commit is on disk before its call returns.

mod change_notify;
mod db;
mod error;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use self::change_notify::ChangeNotify;
use self::db::Db;
use super::health::Health;
use super::malformed_entries::Malformed;
use super::{
    Backoff, Lease, LeaseAttributes, LeaseLost, LeaseRequest, LeaseStore, StoreError, StoreErrorKind,
    StoreFuture, StoreHealth, Timing,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::Chain;
use crate::LeaseEvent;
use crate::republish_backoff::{Contest, Damage};

/// How long a call may take until the store counts as unreachable: the file system may hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time a call goes on trying while other processes keep the file locked.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Copies the lease file `from`, as it is between two transactions of other processes, to `to`, which must not exist.
/// Does not change `from`. Waits up to `patience` while other processes lock the file.
///
/// # Errors
/// `from` cannot be read or is not a database, or `to` cannot be written.
pub fn copy(from: &Path, to: &Path, patience: Duration) -> Result<(), StoreError> {
    let wrong = error::failed("read lease file", from);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let file = rusqlite::Connection::open_with_flags(from, flags).map_err(wrong)?;
    file.busy_timeout(patience).map_err(wrong)?;
    file.pragma_query_value(None, "schema_version", |_version| Ok(())).map_err(wrong)?;
    let copied = file.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
    copied.map(drop).map_err(error::failed("copy the lease file to", to))
}

/// A lease store in a SQLite file, shared by the processes of one machine.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    timing: Timing,
    shared: Arc<Mutex<Shared>>,
    health: Health,
}

/// What the calls of one store value share: the connection, and the lease held through it.
#[derive(Debug)]
struct Shared {
    db: Db,
    own: Option<Lease>,
}

impl SqliteStore {
    /// Opens the lease file at `path`, creates it if it does not exist, and checks that it is usable.
    ///
    /// # Errors
    /// The file cannot be opened or written, is locked for over five seconds, is damaged, or belongs to another
    /// program.
    pub async fn open(path: &Path, timing: Timing) -> Result<Self, StoreError> {
        let health = Health::default();
        health.renews(timing.renew_margin);
        let db = patiently(path, &health, || {
            let path = path.to_owned();
            move || Db::open(&path)
        })
        .await?;
        let shared = Arc::new(Mutex::new(Shared { db, own: None }));
        Ok(Self { path: path.to_owned(), timing, shared, health })
    }

    /// Runs `work` on the file, away from the threads that must not block; again while it is locked.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Shared) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        patiently(&self.path, &self.health, || {
            let (shared, work, path) = (Arc::clone(&self.shared), work.clone(), self.path.clone());
            move || {
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if shared.db.replaced() {
                    shared.db = Db::open(&path)?;
                }
                work(&mut shared)
            }
        })
        .await
    }

    /// Tells the others of a change. If that fails they see it at their next recheck.
    fn notify(&self) {
        if let Err(error) = change_notify::notify(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "cannot notify other daemons of a lease change");
        }
    }

    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let (request, timing) = (request.clone(), self.timing);
        let lease = self
            .run(move |shared| {
                let lease = shared.db.acquire(&request, SystemTime::now(), &timing)?;
                shared.own = Some(lease.clone());
                Ok(lease)
            })
            .await?;
        self.notify();
        Ok(lease)
    }

    async fn update(&self, attributes: &LeaseAttributes) -> Result<Lease, StoreError> {
        let attributes = attributes.clone();
        let path = self.path.clone();
        let lease = self
            .run(move |shared| {
                let not_held = |advice: &str| StoreError {
                    kind: StoreErrorKind::NotHeld,
                    ..error::unusable("update the lease in", &path, advice)
                };
                let own = shared.own.as_ref().ok_or_else(|| not_held("this node holds none"))?;
                let lease =
                    shared.db.update(own, &attributes)?.map_err(|lost| not_held(&lost.to_string()))?;
                shared.own = Some(lease.clone());
                Ok(lease)
            })
            .await?;
        self.notify();
        Ok(lease)
    }

    async fn watch(&self, events: mpsc::Sender<LeaseEvent>) {
        let mut change_notify = ChangeNotify::new(&self.path);
        let mut cursor = None;
        let mut settling: Option<Instant> = None;
        let mut malformed = Malformed::default();
        let mut backoff = Backoff::default();
        loop {
            let timing = self.timing;
            let read = self.run(move |shared| {
                let expired = shared.db.expire(SystemTime::now(), &timing)?;
                Ok((expired, shared.db.changes(cursor)?))
            });
            let (expired, changes) = tokio::select! {
                () = events.closed() => return,
                read = read => match read {
                    Ok(read) => read,
                    Err(_) => {
                        sleep(backoff.next_delay()).await;
                        continue;
                    }
                },
            };
            backoff.reset();
            if expired {
                self.notify();
            }
            let wiped = changes.whole && cursor.is_some();
            cursor = Some(changes.cursor);
            malformed.report(&self.path.display(), &changes.malformed, Malformed::MEND);

            let start = changes.whole.then_some(LeaseEvent::Resync);
            let removed = changes.removed.into_iter().map(LeaseEvent::Remove);
            // Removals last: a subnet that moves to another lease of its node, as when IPv6 is turned on, always has one.
            for event in start.into_iter().chain(changes.present).chain(removed) {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            if changes.whole {
                let pause = if wiped { self.timing.settle } else { Duration::ZERO };
                settling = Some(Instant::now() + pause);
            }
            if settling.take_if(|due| *due <= Instant::now()).is_some()
                && events.send(LeaseEvent::Synced { unreadable: Vec::new() }).await.is_err()
            {
                return;
            }
            let due = settling.map_or(Duration::MAX, |due| due.duration_since(Instant::now()));
            tokio::select! {
                () = events.closed() => return,
                () = change_notify.wait(self.timing.recheck.min(due)) => {}
            }
        }
    }

    async fn hold(&self) -> LeaseLost {
        let mut change_notify = ChangeNotify::new(&self.path);
        let (mut backoff, mut contest) = (Backoff::default(), Contest::new(Instant::now(), &self.health));
        loop {
            let timing = self.timing;
            let now = Instant::now();
            let publishes_again = contest.held_until(now).is_none();
            let renewed = self.run(move |shared| {
                let Some(own) = &shared.own else { return Ok(None) };
                let renewed = shared.db.renew(own, publishes_again, SystemTime::now(), &timing)?;
                if renewed.is_err() {
                    shared.own = None;
                }
                Ok(Some(renewed))
            });
            match renewed.await {
                Ok(Some(Err(lost))) => return lost,
                Ok(Some(Ok(held))) => {
                    self.health.renewed(held.expires);
                    if held.changed {
                        if publishes_again {
                            let path = self.path.display();
                            let what = || format!("another process changes this node's lease in `{path}`");
                            contest.published_again(now, &self.health, || Damage::by_process(what()));
                            self.notify();
                        }
                        // Where it is changed again and again, the pauses grow.
                        sleep(backoff.next_delay()).await;
                    } else {
                        backoff.reset();
                        contest.is_right(now, &self.health);
                    }
                    let due =
                        contest.ends().map_or(Duration::MAX, |ends| ends.duration_since(Instant::now()));
                    change_notify.wait(self.timing.recheck.min(due)).await;
                }
                Ok(None) => change_notify.wait(self.timing.recheck).await,
                Err(_) => sleep(backoff.next_delay()).await,
            }
        }
    }
}

impl LeaseStore for SqliteStore {
    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> StoreFuture<'a, Result<Lease, StoreError>> {
        Box::pin(self.acquire(request))
    }

    fn find<'a>(&'a self, node: &'a LeaseAttributes) -> StoreFuture<'a, Result<Option<Lease>, StoreError>> {
        let node = node.clone();
        Box::pin(self.run(move |shared| shared.db.find(&node)))
    }

    fn update<'a>(&'a self, attributes: &'a LeaseAttributes) -> StoreFuture<'a, Result<Lease, StoreError>> {
        Box::pin(self.update(attributes))
    }

    fn watch(&self, events: mpsc::Sender<LeaseEvent>) -> StoreFuture<'_, ()> {
        Box::pin(self.watch(events))
    }

    fn hold(&self) -> StoreFuture<'_, LeaseLost> {
        Box::pin(self.hold())
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }
}

/// Runs what `make` makes on a blocking thread, again with growing pauses while it says that the file is busy, for at
/// most [`RETRY_TIMEOUT`].
async fn patiently<T, F>(path: &Path, health: &Health, make: impl Fn() -> F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    let deadline = Instant::now() + RETRY_TIMEOUT;
    let mut backoff = Backoff::default();
    loop {
        let mut call = tokio::task::spawn_blocking(make());
        let done = match timeout(CALL_TIMEOUT, &mut call).await {
            Ok(done) => done,
            Err(_late) => {
                let seconds = CALL_TIMEOUT.as_secs();
                health.failed(format!(
                    "a call to the file system of lease file `{}` has not returned for {seconds} seconds: check its disk or \
                     network file system",
                    path.display()
                ));
                call.await
            }
        };
        let result = done.unwrap_or_else(|panic| {
            Err(StoreError {
                kind: StoreErrorKind::Unavailable,
                source: Some(Box::new(panic)),
                ..error::unusable("use lease file", path, "a bug in flanneld; please report it")
            })
        });
        match &result {
            Ok(_) => health.answered(),
            Err(error) => health.failed(Chain(error).to_string()),
        }
        let pause = backoff.next_delay();
        let again = result.as_ref().is_err_and(|error| error.kind == StoreErrorKind::Unavailable);
        if !again || Instant::now() + pause > deadline {
            return result;
        }
        sleep(pause).await;
    }
}
