//! Leases in etcd v3, under upstream's keys: `<prefix>/subnets/10.244.1.0-24`, and `<prefix>/config`.
//!
//! A subnet is taken by one transaction on the condition that nobody has written a lease since they were listed, so two
//! nodes never get overlapping subnets, whatever their families, sizes and kind of flanneld. A held lease is renewed by
//! keep-alive of its etcd lease, which writes no key: peers hear nothing, and a subnet that somebody else took in the
//! meantime cannot be taken back. A key without an etcd lease is a reservation and stays one.

mod client;
mod options;
mod watch;
mod wire;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rand::RngExt;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};

pub use self::options::EtcdOptions;

use self::client::{Client, still_at, unchanged_since};
use self::wire::{
    DeleteRangeRequest, KeyValue, Operation, PutRequest, RangeRequest, RequestOp, TxnRequest, prefix_end,
};
use super::allocate::choose;
use super::{
    Backoff, Lease, LeaseAttributes, LeaseKey, LeaseLost, LeaseRequest, LeaseStore, StoreError,
    StoreErrorKind, StoreFuture, StoreHealth, Timing,
};
use crate::event::LeaseEvent;

/// Longest time a call goes on trying while no member answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest time an acquisition goes on trying while other nodes are faster.
const CONTEST: Duration = Duration::from_secs(60);

/// A lease store in etcd.
#[derive(Debug)]
pub struct EtcdStore {
    client: Client,
    timing: Timing,
    /// `<prefix>/config`
    config: String,
    /// `<prefix>/subnets/`
    subnets: String,
    /// Locked while it is compared with etcd, so that our own change is never taken for another's.
    own: Mutex<Option<Own>>,
}

/// The lease held, and how etcd knows it.
#[derive(Clone, Debug)]
struct Own {
    lease: Lease,
    /// Etcd's lease that the key hangs on; 0 for a reservation.
    id: i64,
    mod_revision: i64,
}

/// The entries under `subnets/`, as far as they are leases.
#[derive(Debug, Default)]
struct Known {
    leases: HashMap<LeaseKey, (LeaseAttributes, KeyValue)>,
    unreadable: Vec<LeaseKey>,
    revision: i64,
}

impl EtcdStore {
    /// A store at these members. Connects when first used.
    ///
    /// # Errors
    /// A URL is malformed, or a TLS file cannot be read or used.
    pub fn new(options: &EtcdOptions, timing: Timing) -> Result<Self, StoreError> {
        let prefix = options.prefix.trim_end_matches('/');
        Ok(Self {
            client: Client::new(options)?,
            timing,
            config: format!("{prefix}/config"),
            subnets: format!("{prefix}/subnets/"),
            own: Mutex::new(None),
        })
    }

    /// The network configuration that the cluster shares, `<prefix>/config`.
    ///
    /// # Errors
    /// There is none, or etcd cannot be used.
    pub async fn config(&self) -> Result<String, StoreError> {
        let (_, entry) = self.client.read(&self.config).await?;
        let missing = || StoreError {
            operation: "read",
            object: format!("`{}`", self.config),
            advice: "flannel config not found in etcd store. Did you create your config using etcdv3 API? \
                     Write it with `etcdctl put`"
                .to_owned(),
            kind: StoreErrorKind::Unavailable,
            source: None,
        };
        let entry = entry.ok_or_else(missing)?;
        Ok(String::from_utf8_lossy(&entry.value).into_owned())
    }

    /// Reports the configuration whenever it differs from what was last reported, starting with the present one, until
    /// the receiver is dropped.
    pub async fn watch_config(&self, configs: mpsc::Sender<String>) {
        let mut last = None;
        let mut backoff = Backoff::default();
        loop {
            let changes = async {
                let (header, entry) = self.client.read(&self.config).await?;
                let stream = self.client.watch(&self.config, Vec::new(), header.revision + 1).await?;
                Ok::<_, StoreError>((entry, stream))
            };
            if let Ok((entry, mut stream)) = changes.await {
                backoff.reset();
                let config = entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
                if let Some(config) = config.filter(|config| Some(config) != last.as_ref()) {
                    last = Some(config.clone());
                    if configs.send(config).await.is_err() {
                        return;
                    }
                }
                // Whatever comes (a change, progress, the end of the stream), the next round reads the key again.
                loop {
                    tokio::select! {
                        () = configs.closed() => return,
                        answer = stream.message() => match answer {
                            Ok(Some(answer)) if !answer.canceled && answer.events.is_empty() => {}
                            _ => break,
                        },
                    }
                }
            }
            tokio::select! {
                () = configs.closed() => return,
                () = sleep(backoff.next()) => {}
            }
        }
    }

    fn path(&self, key: LeaseKey) -> String {
        format!("{}{key}", self.subnets)
    }

    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let mut own = self.own.lock().await;
        let deadline = Instant::now() + CONTEST;
        let mut granted = None;
        let mut known = None;
        let mut backoff = Backoff::default();
        let result = loop {
            match self.take(request, &mut known, &mut granted).await {
                Ok(Some(taken)) => break Ok(taken),
                Ok(None) if Instant::now() < deadline => {
                    // Somebody was faster, and will be again if all come back at once.
                    let pause = rand::rng().random_range(Duration::ZERO..Duration::from_millis(20));
                    sleep(pause).await;
                }
                Ok(None) => {
                    break Err(self.refused(
                        "acquire a lease in",
                        StoreErrorKind::Unavailable,
                        "others keep being faster; try again",
                    ));
                }
                Err(error) => break Err(error),
            }
        };
        let used = result.as_ref().is_ok_and(|own| granted.is_some_and(|(id, _)| id == own.id));
        if let Some((id, _)) = granted.filter(|_| !used) {
            // Ends by itself if this fails.
            let _ = self.client.revoke(id).await;
        }
        backoff.reset();
        let taken = result?;
        let lease = taken.lease.clone();
        *own = Some(taken);
        Ok(lease)
    }

    /// One attempt: `None` if somebody else was faster. `known` is what is known of the leases, `granted` an etcd lease
    /// that no key hangs on yet; both outlive the attempt.
    async fn take(
        &self,
        request: &LeaseRequest,
        known: &mut Option<Known>,
        granted: &mut Option<(i64, Duration)>,
    ) -> Result<Option<Own>, StoreError> {
        let json = self.json(&request.attributes)?;
        let listed = match known {
            Some(known) => known,
            None => known.insert(self.list().await?),
        };
        let leases = listed.leases.iter().map(|(key, (attributes, _))| (*key, attributes));
        let choice = choose(leases, &listed.unreadable, request, &mut rand::rng()).map_err(|error| {
            let advice =
                format!("{error}; widen the network in `{}` or delete leases no node uses", self.config);
            self.refused("acquire a lease in", StoreErrorKind::OutOfSubnets, &advice)
        })?;
        let path = self.path(choice.key);
        let lease = |ttl: Option<Duration>| Lease {
            key: choice.key,
            attributes: request.attributes.clone(),
            expires: ttl.map(|ttl| SystemTime::now() + ttl),
        };
        let held = choice.own.and_then(|own| listed.leases.get(&own)).map(|(_, entry)| entry.clone());

        // A reservation stays one. An etcd lease that lives on is used on, and if nothing else is new, nothing is written.
        let (id, ttl) = match &held {
            Some(entry) if entry.lease == 0 => (0, None),
            Some(entry) => match self.client.keep_alive(entry.lease).await? {
                Some(ttl) if ttl > self.timing.renew_margin.min(self.timing.ttl / 2) => {
                    (entry.lease, Some(ttl))
                }
                _ => self.granted(granted).await?,
            },
            None => self.granted(granted).await?,
        };
        let unchanged = |entry: &KeyValue| {
            choice.own == Some(choice.key) && entry.value == json.as_bytes() && entry.lease == id
        };
        if let Some(entry) = held.as_ref().filter(|entry| unchanged(entry)) {
            return Ok(Some(Own { lease: lease(ttl), id, mod_revision: entry.mod_revision }));
        }

        let mut compare = Vec::new();
        let mut success = vec![put(&path, json.into_bytes(), id)];
        if let Some((own, entry)) = choice.own.zip(held.as_ref()) {
            compare.push(still_at(&self.path(own), entry.mod_revision));
            if own != choice.key {
                success.push(operation(Operation::Delete(DeleteRangeRequest { key: self.path(own).into() })));
            }
        }
        if choice.own != Some(choice.key) {
            compare.push(unchanged_since(&self.subnets, listed.revision));
        }
        let news = RangeRequest {
            key: self.subnets.clone().into(),
            range_end: prefix_end(self.subnets.as_bytes()),
            min_mod_revision: listed.revision.saturating_add(1),
            ..Default::default()
        };
        let failure = vec![operation(Operation::Range(news))];
        let answer = self.client.transact(&path, TxnRequest { compare, success, failure }).await?;
        let revision = answer.header.unwrap_or_default().revision;
        if answer.succeeded {
            return Ok(Some(Own { lease: lease(ttl), id, mod_revision: revision }));
        }
        let news: Vec<_> =
            answer.responses.into_iter().filter_map(|op| op.range).flat_map(|range| range.kvs).collect();
        if news.is_empty() {
            // The entry we had is gone, which no range can show.
            *known = None;
        } else {
            listed.learn(&self.subnets, news);
            listed.revision = revision;
        }
        Ok(None)
    }

    async fn granted(
        &self,
        granted: &mut Option<(i64, Duration)>,
    ) -> Result<(i64, Option<Duration>), StoreError> {
        let (id, ttl) = match *granted {
            Some(granted) => granted,
            None => *granted.insert(self.client.grant(self.timing.ttl).await?),
        };
        Ok((id, Some(ttl)))
    }

    async fn list(&self) -> Result<Known, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        let listing = loop {
            match self.client.list(&self.subnets).await {
                Ok(listing) => break listing,
                Err(error) => {
                    let pause = backoff.next();
                    if error.kind != StoreErrorKind::Unavailable || Instant::now() + pause > deadline {
                        return Err(error);
                    }
                    sleep(pause).await;
                }
            }
        };
        let mut known = Known { revision: listing.header.revision, ..Known::default() };
        known.learn(&self.subnets, listing.entries);
        Ok(known)
    }

    async fn find(&self, node: &LeaseAttributes) -> Result<Option<Lease>, StoreError> {
        let found =
            self.list().await?.leases.into_iter().find(|(_, (attributes, _))| attributes.same_node(node));
        Ok(found.map(|(key, (attributes, _))| Lease { key, attributes, expires: None }))
    }

    async fn update(&self, attributes: &LeaseAttributes) -> Result<Lease, StoreError> {
        const OPERATION: &str = "update the lease in";
        let json = self.json(attributes)?;
        let mut own = self.own.lock().await;
        let held = own.as_mut().ok_or_else(|| {
            self.refused(OPERATION, StoreErrorKind::NotHeld, "none is held; acquire one first")
        })?;
        let path = self.path(held.lease.key);
        for _ in 0..5 {
            let read = RangeRequest { key: path.clone().into(), ..Default::default() };
            let request = TxnRequest {
                compare: vec![still_at(&path, held.mod_revision)],
                success: vec![put(&path, json.clone().into_bytes(), held.id)],
                failure: vec![operation(Operation::Range(read))],
            };
            let answer = self.client.transact(&path, request).await?;
            if answer.succeeded {
                held.mod_revision = answer.header.unwrap_or_default().revision;
                held.lease.attributes = attributes.clone();
                return Ok(held.lease.clone());
            }
            let entry =
                answer.responses.into_iter().filter_map(|op| op.range).flat_map(|range| range.kvs).next();
            if let Err(lost) = held.compare(entry, Some(attributes)) {
                return Err(self.refused(OPERATION, StoreErrorKind::NotHeld, &lost.to_string()));
            }
        }
        Err(self.refused(OPERATION, StoreErrorKind::Unavailable, "somebody keeps changing it; try again"))
    }

    async fn hold(&self) -> LeaseLost {
        let mut backoff = Backoff::default();
        loop {
            match self.check().await {
                Ok(Some(Err(lost))) => return lost,
                Ok(Some(Ok((path, revision)))) => {
                    backoff.reset();
                    self.wait_for_news(&path, revision).await;
                }
                Ok(None) => sleep(self.timing.recheck).await,
                Err(_) => {}
            }
            sleep(backoff.next()).await;
        }
    }

    /// Compares the lease held with etcd and renews it if it is due. `None` if none is held; else its path, and the
    /// revision up to which it is known to be ours.
    async fn check(&self) -> Result<Option<Result<(String, i64), LeaseLost>>, StoreError> {
        let mut own = self.own.lock().await;
        let Some(held) = own.as_mut() else { return Ok(None) };
        let path = self.path(held.lease.key);
        let (header, entry) = self.client.read(&path).await?;
        if let Err(lost) = held.compare(entry, None) {
            *own = None;
            return Ok(Some(Err(lost)));
        }
        if held.id != 0
            && held
                .lease
                .expires
                .is_none_or(|expires| expires <= SystemTime::now() + self.timing.renew_margin)
        {
            // If it has ended, its key is gone with it, and the next look says so.
            if let Some(ttl) = self.client.keep_alive(held.id).await? {
                held.lease.expires = Some(SystemTime::now() + ttl);
            }
        }
        Ok(Some(Ok((path, header.revision))))
    }

    /// Returns when something happened to the key, when that cannot be told, or when renewal is due.
    async fn wait_for_news(&self, path: &str, revision: i64) {
        let Ok(mut stream) = self.client.watch(path, Vec::new(), revision.saturating_add(1)).await else {
            return;
        };
        loop {
            tokio::select! {
                answer = stream.message() => match answer {
                    Ok(Some(answer)) if !answer.canceled && answer.events.is_empty() => self.client.health.answered(),
                    _ => return,
                },
                // A suspended machine's timers stand still, so look at the clock again and again.
                () = sleep(self.timing.recheck) => {
                    let own = self.own.lock().await;
                    let expires = own.as_ref().filter(|own| own.id != 0).map(|own| own.lease.expires);
                    let due = |expires: SystemTime| expires <= SystemTime::now() + self.timing.renew_margin;
                    if expires.is_some_and(|expires| expires.is_none_or(due)) {
                        return;
                    }
                }
            }
        }
    }

    fn json(&self, attributes: &LeaseAttributes) -> Result<String, StoreError> {
        attributes.to_json().map_err(|error| StoreError {
            source: Some(Box::new(error)),
            ..self.refused("write the lease in", StoreErrorKind::Unusable, "its attributes have no JSON form")
        })
    }

    fn refused(&self, operation: &'static str, kind: StoreErrorKind, advice: &str) -> StoreError {
        let object = format!("etcd under `{}`", self.subnets);
        StoreError { operation, object, advice: advice.to_owned(), kind, source: None }
    }
}

impl Own {
    /// Compares with the entry that etcd has: whose is it? Takes over what a helpful hand changed about it. `renamed` is
    /// what this node may have written under another address in a call whose answer was lost.
    fn compare(
        &mut self,
        entry: Option<KeyValue>,
        renamed: Option<&LeaseAttributes>,
    ) -> Result<(), LeaseLost> {
        let Some(entry) = entry else { return Err(LeaseLost::Revoked(self.lease.key)) };
        if entry.mod_revision == self.mod_revision && entry.lease == self.id {
            return Ok(());
        }
        // Contents that cannot be read are not another node's.
        if let Ok(holder) = LeaseAttributes::from_json(&entry.value)
            && !holder.same_node(&self.lease.attributes)
            && !renamed.is_some_and(|renamed| holder.same_node(renamed))
        {
            return Err(LeaseLost::Taken { key: self.lease.key, holder: Box::new(holder) });
        }
        if entry.lease != self.id {
            self.id = entry.lease;
            self.lease.expires = None;
        }
        self.mod_revision = entry.mod_revision;
        Ok(())
    }
}

impl Known {
    fn learn(&mut self, prefix: &str, entries: Vec<KeyValue>) {
        for entry in entries {
            let Some(key) = parse_key(prefix, &entry.key) else { continue };
            match LeaseAttributes::from_json(&entry.value) {
                Ok(attributes) => {
                    self.unreadable.retain(|unreadable| *unreadable != key);
                    self.leases.insert(key, (attributes, entry));
                }
                Err(_) => {
                    self.leases.remove(&key);
                    self.unreadable.push(key);
                }
            }
        }
    }
}

fn parse_key(prefix: &str, path: &[u8]) -> Option<LeaseKey> {
    std::str::from_utf8(path).ok()?.strip_prefix(prefix)?.parse().ok()
}

fn put(path: &str, value: Vec<u8>, lease: i64) -> RequestOp {
    operation(Operation::Put(PutRequest { key: path.into(), value, lease }))
}

fn operation(operation: Operation) -> RequestOp {
    RequestOp { operation: Some(operation) }
}

impl LeaseStore for EtcdStore {
    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> StoreFuture<'a, Result<Lease, StoreError>> {
        Box::pin(self.acquire(request))
    }

    fn find<'a>(&'a self, node: &'a LeaseAttributes) -> StoreFuture<'a, Result<Option<Lease>, StoreError>> {
        Box::pin(self.find(node))
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

    fn health(&self) -> tokio::sync::watch::Receiver<StoreHealth> {
        self.client.health.subscribe()
    }
}
