//! Leases in etcd v3, under upstream's keys: `<prefix>/subnets/10.244.1.0-24`, and `<prefix>/config`.
//!
//! A subnet is taken by one transaction on the condition that no other node has written an overlapping lease since they were
//! listed, so two nodes never share one, whatever their families, sizes and kind of flanneld. A held lease is renewed by
//! keep-alive of its etcd lease, which writes no key: peers hear nothing, and a subnet that another node took in the
//! meantime cannot be taken back. A key without an etcd lease is a reservation and stays one.

mod acquire;
mod advice;
mod calls;
mod client;
mod compare;
mod connection;
#[cfg(feature = "fake")]
mod fake;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod keepalive;
mod member;
mod options;
mod watch;
mod wire;

use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;

#[cfg(feature = "fake")]
pub use self::fake::{FakeEntry, FakeEtcd, FakeLink};
pub use self::options::EtcdOptions;

use self::acquire::Known;
use self::calls::Calls;
use self::client::Client;
use self::keepalive::Own;
use self::wire::{KeyValue, Operation, PutRequest, RequestOp};
use super::{
    Backoff, Lease, LeaseAttributes, LeaseKey, LeaseLost, LeaseRequest, LeaseStore, StoreError,
    StoreErrorKind, StoreFuture, StoreHealth, Timing,
};
use crate::LeaseEvent;

/// A lease store in etcd v3, with upstream's keys.
#[derive(Debug)]
pub struct EtcdStore {
    client: Box<dyn Calls>,
    timing: Timing,
    /// `<prefix>/config`
    config: String,
    /// `<prefix>/subnets/`
    subnets: String,
    /// Locked while it is compared with etcd, so that our own change is never taken for another's.
    own: Mutex<Option<Own>>,
    /// What was last listed in search of this node's lease, so that taking it need not list again.
    found: Mutex<Option<Known>>,
}

impl EtcdStore {
    /// A store that uses these members. It connects with the first call.
    ///
    /// # Errors
    /// A URL is malformed, or a TLS file cannot be read or used.
    pub fn new(options: &EtcdOptions, timing: Timing) -> Result<Self, StoreError> {
        let client = Client::new(options)?;
        Ok(Self::with(Box::new(client), &options.prefix, timing))
    }

    fn with(client: Box<dyn Calls>, prefix: &str, timing: Timing) -> Self {
        client.health().renews(timing.renew_margin);
        Self {
            client,
            timing,
            config: key(prefix, "config"),
            subnets: key(prefix, "subnets") + "/",
            own: Mutex::new(None),
            found: Mutex::new(None),
        }
    }

    /// The key of the network configuration that the cluster shares: `<prefix>/config`.
    #[must_use]
    pub fn config_key(&self) -> &str {
        &self.config
    }

    /// Reads the network configuration that the cluster shares: `etcdctl get PREFIX/config`.
    ///
    /// # Errors
    /// The key does not exist, or etcd is unavailable.
    pub async fn config(&self) -> Result<String, StoreError> {
        let (_, entry) = self.client.read(&self.config).await?;
        self.text(entry)
    }

    /// Sends the present network configuration and then each change of it, or that there is none, until the receiver is
    /// dropped.
    pub async fn watch_config(&self, configs: mpsc::Sender<Result<String, StoreError>>) {
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
                let config = self.text(entry);
                let text = config.as_ref().ok().cloned();
                if last.as_ref() != Some(&text) {
                    last = Some(text);
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
                () = sleep(backoff.next_delay()) => {}
            }
        }
    }

    fn text(&self, config: Option<KeyValue>) -> Result<String, StoreError> {
        let missing = || StoreError {
            operation: "read",
            object: format!("`{}`", self.config),
            advice: "flannel config not found in etcd store. Did you create your config using etcdv3 API? \
                     Write it with `etcdctl put`"
                .to_owned(),
            kind: StoreErrorKind::Unavailable,
            source: None,
        };
        let entry = config.ok_or_else(missing)?;
        Ok(String::from_utf8_lossy(&entry.value).into_owned())
    }

    fn path(&self, key: LeaseKey) -> String {
        format!("{}{key}", self.subnets)
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

/// `prefix/name` as upstream's `path.Join` makes it: one slash between parts, no `.` and `..`, none in front that was
/// not there.
fn key(prefix: &str, name: &str) -> String {
    let mut parts = Vec::new();
    for part in prefix.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => _ = parts.pop(),
            ("..", None) if prefix.starts_with('/') => {}
            _ => parts.push(part),
        }
    }
    parts.push(name);
    let root = if prefix.starts_with('/') { "/" } else { "" };
    root.to_owned() + &parts.join("/")
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
        self.client.health().subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn keys_are_where_upstream_has_them_whatever_the_prefix_looks_like() {
        let cases = [
            ("/coreos.com/network", "/coreos.com/network/config"),
            ("/coreos.com/network/", "/coreos.com/network/config"),
            ("//coreos.com///network//", "/coreos.com/network/config"),
            ("coreos.com/network", "coreos.com/network/config"),
            ("/a/./b/../c", "/a/c/config"),
            ("/../a", "/a/config"),
            ("../a", "../a/config"),
            ("a/../..", "../config"),
            ("/", "/config"),
            ("", "config"),
        ];
        for (prefix, expected) in cases {
            assert_eq!(key(prefix, "config"), expected, "{prefix}");
        }
    }
}
