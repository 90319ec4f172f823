//! Keeping the lease: renewed by keep-alive, compared with etcd, given up only on etcd's word.

use std::time::SystemTime;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;

use super::client::{hangs_on, still_at};
use super::wire::{Header, KeyValue, Operation, RangeRequest, TxnRequest};
use super::{EtcdStore, operation, put};
use crate::allocate::identity_is_free;
use crate::republish_backoff::{Contest, Damage};
use crate::{Backoff, Lease, LeaseAttributes, LeaseLost, StoreError, StoreErrorKind};

/// The lease held, and how etcd knows it.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) lease: Lease,
    /// Etcd's lease that the key hangs on; 0 for a reservation.
    pub(super) id: i64,
    pub(super) mod_revision: i64,
}

/// A lease that is held as far as etcd knows.
struct Held {
    path: String,
    /// Of the answer that shows it as ours.
    seen: Header,
    /// Whether another process changed it.
    changed: bool,
}

impl EtcdStore {
    pub(super) async fn update(&self, attributes: &LeaseAttributes) -> Result<Lease, StoreError> {
        const OPERATION: &str = "update the lease in";
        let json = self.json(attributes)?;
        let mut own = self.own.lock().await;
        let held = own
            .as_mut()
            .ok_or_else(|| self.refused(OPERATION, StoreErrorKind::NotHeld, "this node holds none"))?;
        let path = self.path(held.lease.key);
        let published = &held.lease.attributes;
        if (&published.backend_data, &published.backend_v6_data)
            != (&attributes.backend_data, &attributes.backend_v6_data)
        {
            let known = self.list().await?;
            identity_is_free(known.others(held.lease.key), attributes, Some(published))
                .map_err(|error| self.refused(OPERATION, error.kind(), &error.to_string()))?;
        }
        for _ in 0..5 {
            let Err(entry) = self.write(held, &path, &json).await? else {
                held.lease.attributes = attributes.clone();
                return Ok(held.lease.clone());
            };
            if let Err(lost) = held.compare(entry, Some(attributes)) {
                return Err(self.refused(OPERATION, StoreErrorKind::NotHeld, &lost.to_string()));
            }
        }
        Err(self.refused(
            OPERATION,
            StoreErrorKind::Unavailable,
            "another process keeps changing it; find that process and stop it",
        ))
    }

    /// Writes what the lease held says, unless its key has changed since; then what is there now is the error.
    async fn write(
        &self,
        held: &mut Own,
        path: &str,
        json: &str,
    ) -> Result<Result<(), Option<KeyValue>>, StoreError> {
        let read = RangeRequest { key: path.to_owned().into(), ..Default::default() };
        let request = TxnRequest {
            // After a wipe another entry may have the same revision; etcd refuses to write under a lease that it does not know.
            compare: vec![still_at(path, held.mod_revision), hangs_on(path, held.id)],
            success: vec![put(path, json.as_bytes().to_vec(), held.id)],
            failure: vec![operation(Operation::Range(read))],
        };
        let answer = self.client.transact(path, request).await?;
        if answer.succeeded {
            held.mod_revision = answer.header.unwrap_or_default().revision;
            return Ok(Ok(()));
        }
        Ok(Err(answer.responses.into_iter().filter_map(|op| op.range).flat_map(|range| range.kvs).next()))
    }

    pub(super) async fn hold(&self) -> LeaseLost {
        let (mut backoff, mut contest) =
            (Backoff::default(), Contest::new(Instant::now(), self.client.health()));
        loop {
            match self.check(&mut contest).await {
                Ok(Some(Err(lost))) => return lost,
                Ok(Some(Ok(Held { path, seen, changed }))) => {
                    // Where another process changes it again and again, the pauses grow.
                    if !changed {
                        backoff.reset();
                    }
                    tokio::select! {
                        () = self.wait_for_news(&path, seen) => {}
                        () = sleep_until(contest.ends().unwrap_or_else(Instant::now)), if contest.ends().is_some() => {}
                    }
                }
                Ok(None) => sleep(self.timing.recheck).await,
                Err(_) => {}
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// Compares the lease held with etcd, publishes it again if another process changed it, and renews it if it is due.
    /// `None` if none is held.
    async fn check(&self, contest: &mut Contest) -> Result<Option<Result<Held, LeaseLost>>, StoreError> {
        let mut own = self.own.lock().await;
        let Some(held) = own.as_mut() else { return Ok(None) };
        let path = self.path(held.lease.key);
        let (header, entry) = self.client.read(&path).await?;
        let published = entry.as_ref().and_then(|entry| LeaseAttributes::from_json(&entry.value).ok());
        if let Err(lost) = held.compare(entry, None) {
            *own = None;
            return Ok(Some(Err(lost)));
        }
        let changed = published.as_ref() != Some(&held.lease.attributes);
        let now = Instant::now();
        if !changed {
            contest.is_right(now, self.client.health());
        } else if contest.held_until(now).is_none() {
            // Nodes that start now would not know how to reach this one, and this one would not recognize its lease.
            let json = self.json(&held.lease.attributes)?;
            // Changed once more: seen at the next look.
            let _changed = self.write(held, &path, &json).await?;
            let damage = || Damage::by_process(format!("another process or an operator changes {path}"));
            contest.published_again(now, self.client.health(), damage);
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
                info!("Lease renewed, new expiration: in {ttl:?}");
            }
        }
        // Also when nothing was renewed: the lease may be a new one, or a reservation since its key was written again.
        self.client.health().renewed(held.lease.expires);
        Ok(Some(Ok(Held { path, seen: header, changed })))
    }

    /// Returns when something happened to the key, when that cannot be told, or when renewal is due.
    async fn wait_for_news(&self, path: &str, seen: Header) {
        let Ok(mut stream) = self.client.watch(path, Vec::new(), seen.revision.saturating_add(1)).await
        else {
            return;
        };
        loop {
            tokio::select! {
                answer = stream.message() => match answer {
                    // Wiped since: nothing of the key would be seen until this store has come as far.
                    Ok(Some(answer)) if answer.header.is_some_and(|header| seen.is_lost_in(&header)) => return,
                    Ok(Some(answer)) if !answer.canceled && answer.events.is_empty() => self.client.health().answered(),
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
        // Contents that cannot be read are not another node's, nor are those without an address.
        if let Ok(holder) = LeaseAttributes::from_json(&entry.value)
            && holder.is_of_another_node(&self.lease.attributes)
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
