//! Taking a lease: list, choose, and write on the condition that no other node was faster.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rand::RngExt;
use tokio::time::{Instant, sleep};

use super::client::still_at;
use super::compare::nothing_overlaps;
use super::keepalive::Own;
use super::wire::{DeleteRangeRequest, KeyValue, Operation, RangeRequest, TxnRequest, prefix_end};
use super::{EtcdStore, operation, parse_key, put};
use crate::allocate::choose;
use crate::{Backoff, Lease, LeaseAttributes, LeaseKey, LeaseRequest, StoreError, StoreErrorKind};

/// Longest time a call goes on trying while no member answers.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time an acquisition goes on trying while other nodes are faster.
const CONTENTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The entries under `subnets/`, as far as they are leases.
#[derive(Debug, Default)]
pub(super) struct Known {
    leases: HashMap<LeaseKey, (LeaseAttributes, KeyValue)>,
    unreadable: Vec<LeaseKey>,
    revision: i64,
}

impl EtcdStore {
    pub(super) async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let mut own = self.own.lock().await;
        let deadline = Instant::now() + CONTENTION_TIMEOUT;
        let mut granted = None;
        // However old: what has changed since fails the transaction, and is learned then.
        let mut known = self.found.lock().await.take();
        let mut lost = 0;
        let result = loop {
            match self.take(request, &mut known, &mut granted).await {
                Ok(Some(taken)) => break Ok(taken),
                Ok(None) if Instant::now() < deadline => {
                    // Another node was faster. Back off, with growing pauses.
                    lost = (lost + 1).min(3);
                    let pause = rand::rng().random_range(Duration::ZERO..Duration::from_millis(10 << lost));
                    sleep(pause).await;
                }
                Ok(None) => {
                    break Err(self.refused(
                        "acquire a lease in",
                        StoreErrorKind::Unavailable,
                        "other nodes took each subnet first that this node chose; if this lasts for minutes, widen the network or \
                         delete leases that no node uses",
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
        let taken = result?;
        let lease = taken.lease.clone();
        *own = Some(taken);
        Ok(lease)
    }

    /// One attempt: `None` if another node was faster. `known` is what is known of the leases, `granted` an etcd lease
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
            let advice = match error.kind() {
                StoreErrorKind::OutOfSubnets => {
                    format!(
                        "{error}; widen the network in `{}` or delete leases that no node uses",
                        self.config
                    )
                }
                _ => error.to_string(),
            };
            self.refused("acquire a lease in", error.kind(), &advice)
        })?;
        let path = self.path(choice.key);
        let lease = |ttl: Option<Duration>| {
            Lease::new(choice.key, request.attributes.clone(), ttl.map(|ttl| SystemTime::now() + ttl))
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
            compare.extend(nothing_overlaps(&self.subnets, choice.key, listed.revision));
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

    pub(super) async fn list(&self) -> Result<Known, StoreError> {
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let mut backoff = Backoff::default();
        let listing = loop {
            match self.client.list(&self.subnets).await {
                Ok(listing) => break listing,
                Err(error) => {
                    let pause = backoff.next_delay();
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

    pub(super) async fn find(&self, node: &LeaseAttributes) -> Result<Option<Lease>, StoreError> {
        let known = self.list().await?;
        let found = known.leases.iter().find(|(_, (attributes, _))| attributes.same_node(node));
        let found = found.map(|(key, (attributes, _))| (*key, attributes.clone()));
        *self.found.lock().await = Some(known);
        Ok(found.map(|(key, attributes)| Lease::new(key, attributes, None)))
    }
}

impl Known {
    /// The leases of other nodes than the one that holds `own`.
    pub(super) fn others(&self, own: LeaseKey) -> impl Iterator<Item = (LeaseKey, &LeaseAttributes)> {
        let leases = self.leases.iter().filter(move |(key, _)| **key != own);
        leases.map(|(key, (attributes, _))| (*key, attributes))
    }

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
