//! The calls to etcd that leasing needs: to real members, or to [`FakeEtcd`](super::FakeEtcd).

use std::fmt;
use std::time::Duration;

use tonic::{Status, Streaming};

use super::client::{Client, Listing};
use super::wire::{Header, KeyValue, TxnRequest, TxnResponse, WatchResponse};
use crate::{Health, StoreError, StoreFuture};

/// What a call returns.
pub(super) type Answer<'a, T> = StoreFuture<'a, Result<T, StoreError>>;

/// The calls that [`EtcdStore`](super::EtcdStore) makes. [`Client`] documents each method.
pub(super) trait Calls: fmt::Debug + Send + Sync {
    fn health(&self) -> &Health;
    fn failed(&self, object: &str, status: &Status) -> StoreError;
    fn read<'a>(&'a self, key: &'a str) -> Answer<'a, (Header, Option<KeyValue>)>;
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing>;
    fn transact<'a>(&'a self, key: &'a str, request: TxnRequest) -> Answer<'a, TxnResponse>;
    fn grant(&self, ttl: Duration) -> Answer<'_, (i64, Duration)>;
    fn keep_alive(&self, id: i64) -> Answer<'_, Option<Duration>>;
    fn revoke(&self, id: i64) -> Answer<'_, ()>;
    fn watch<'a>(&'a self, key: &'a str, range_end: Vec<u8>, start: i64) -> Answer<'a, Box<dyn Changes>>;
}

/// A watch. Dropping the future of a message loses no message.
pub(super) trait Changes: Send {
    fn message(&mut self) -> StoreFuture<'_, Result<Option<WatchResponse>, Status>>;
}

impl Changes for Streaming<WatchResponse> {
    fn message(&mut self) -> StoreFuture<'_, Result<Option<WatchResponse>, Status>> {
        Box::pin(self.message())
    }
}

impl Calls for Client {
    fn health(&self) -> &Health {
        &self.health
    }

    fn failed(&self, object: &str, status: &Status) -> StoreError {
        self.failed(object, status)
    }

    fn read<'a>(&'a self, key: &'a str) -> Answer<'a, (Header, Option<KeyValue>)> {
        Box::pin(self.read(key))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing> {
        Box::pin(self.list(prefix))
    }

    fn transact<'a>(&'a self, key: &'a str, request: TxnRequest) -> Answer<'a, TxnResponse> {
        Box::pin(self.transact(key, request))
    }

    fn grant(&self, ttl: Duration) -> Answer<'_, (i64, Duration)> {
        Box::pin(self.grant(ttl))
    }

    fn keep_alive(&self, id: i64) -> Answer<'_, Option<Duration>> {
        Box::pin(self.keep_alive(id))
    }

    fn revoke(&self, id: i64) -> Answer<'_, ()> {
        Box::pin(self.revoke(id))
    }

    fn watch<'a>(&'a self, key: &'a str, range_end: Vec<u8>, start: i64) -> Answer<'a, Box<dyn Changes>> {
        Box::pin(async move {
            let stream: Box<dyn Changes> = Box::new(self.watch(key, range_end, start).await?);
            Ok(stream)
        })
    }
}
