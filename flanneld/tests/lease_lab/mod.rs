//! What the lease tests need of a store besides the store itself: a hand that changes it behind the daemon's back.

#![allow(dead_code, reason = "each test file uses a part")]

#[cfg(feature = "etcd")]
pub(crate) mod etcd;
#[cfg(feature = "kubernetes")]
pub(crate) mod kube;
pub(crate) mod sqlite;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use flanneld::lease::event::{LeaseEvent, LeaseTable};
use flanneld::lease::{
    AllocationRange, BackendType, FamilyRange, LeaseAttributes, LeaseKey, LeaseRequest, LeaseStore, Timing,
    VxlanData,
};
use tokio::sync::mpsc;

/// A store set up for one test.
pub(crate) trait Lab: Sized + Send + Sync + 'static {
    /// Whether a store that is [`Self::away`] can still be read.
    const READABLE_WHILE_AWAY: bool;

    /// An empty store.
    fn new() -> impl Future<Output = Self> + Send;
    /// A store value as a daemon's start makes it.
    fn open(&self, timing: Timing) -> impl Future<Output = Arc<dyn LeaseStore>> + Send;
    /// Writes an entry without end, as an operator would.
    fn put(&self, key: &str, json: &str) -> impl Future<Output = ()> + Send;
    /// Deletes an entry.
    fn delete(&self, key: &str) -> impl Future<Output = ()> + Send;
    /// The entry's JSON.
    fn read(&self, key: &str) -> impl Future<Output = Option<String>> + Send;
    /// Whether the entry ends by itself.
    fn ends(&self, key: &str) -> impl Future<Output = bool> + Send;
    /// Loses everything and starts anew, under the daemons' feet.
    fn wipe(&self) -> impl Future<Output = ()> + Send;
    /// Makes the store useless for a while.
    fn away(&self, during: impl Future<Output = ()> + Send) -> impl Future<Output = ()> + Send;
}

/// Long enough for any test on a busy machine, short enough to fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Periods under which renewal and expiry can be waited for.
pub(crate) fn quick() -> Timing {
    Timing { recheck: Duration::from_millis(200), settle: Duration::from_secs(2), ..Timing::default() }
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// What node number `n` publishes.
pub(crate) fn node(n: u16) -> LeaseAttributes {
    let [high, low] = n.to_be_bytes();
    LeaseAttributes {
        public_ip: Some(Ipv4Addr::new(192, 0, high, low)),
        public_ipv6: None,
        backend_type: BackendType::Vxlan,
        backend_data: Some(
            VxlanData { vni: 1, vtep_mac: [2, 0, 0, 0, high, low] }.to_backend_data().unwrap(),
        ),
        backend_v6_data: None,
    }
}

/// The same node in a dual-stack or IPv6-only cluster.
pub(crate) fn node_v6(n: u16, v4: bool) -> LeaseAttributes {
    let plain = node(n);
    LeaseAttributes {
        public_ip: plain.public_ip.filter(|_| v4),
        public_ipv6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)),
        backend_v6_data: plain.backend_data.clone(),
        backend_data: plain.backend_data.filter(|_| v4),
        ..plain
    }
}

/// `10.244.0.0/16` in /24s, as net-conf.json's defaults make of it.
pub(crate) fn range_v4() -> AllocationRange {
    let v4 = FamilyRange {
        network: "10.244.0.0/16".parse().unwrap(),
        subnet_len: 24,
        min: Ipv4Addr::new(10, 244, 1, 0),
        max: Ipv4Addr::new(10, 244, 255, 0),
    };
    AllocationRange { v4: Some(v4), v6: None }
}

/// The first `count` subnets of [`range_v4`].
pub(crate) fn first_v4(count: u8) -> AllocationRange {
    let mut range = range_v4();
    range.v4.as_mut().unwrap().max = Ipv4Addr::new(10, 244, count, 0);
    range
}

/// Adds the first `count` subnets of `fd00:10:244::/48` to a range.
pub(crate) fn with_v6(range: AllocationRange, count: u16) -> AllocationRange {
    let v6 = FamilyRange {
        network: "fd00:10:244::/48".parse().unwrap(),
        subnet_len: 64,
        min: Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 0),
        max: Ipv6Addr::new(0xfd00, 0x10, 0x244, count, 0, 0, 0, 0),
    };
    AllocationRange { v6: Some(v6), ..range }
}

pub(crate) fn request(attributes: LeaseAttributes) -> LeaseRequest {
    LeaseRequest { attributes, previous: None, range: range_v4() }
}

pub(crate) fn key(text: &str) -> LeaseKey {
    text.parse().unwrap()
}

/// A daemon's view of the store: its watch, folded.
pub(crate) struct Watcher {
    events: mpsc::Receiver<LeaseEvent>,
    pub(crate) table: LeaseTable,
    /// Every event seen, as short text.
    pub(crate) seen: Vec<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    pub(crate) fn start(store: &Arc<dyn LeaseStore>) -> Self {
        let (sender, events) = mpsc::channel(64);
        let store = Arc::clone(store);
        let task = tokio::spawn(async move { store.watch(sender).await });
        Self { events, table: LeaseTable::default(), seen: Vec::new(), task }
    }

    pub(crate) async fn next(&mut self) -> LeaseEvent {
        let event = within("an event", self.events.recv()).await.expect("watch ended");
        self.seen.push(match &event {
            LeaseEvent::Upsert(lease) => format!("+{}", lease.key),
            LeaseEvent::Remove(key) => format!("-{key}"),
            LeaseEvent::Resync => "resync".into(),
            LeaseEvent::Synced { .. } => "synced".into(),
        });
        let _ = self.table.apply(event.clone());
        event
    }

    /// Takes in events until the table satisfies `done`.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&LeaseTable) -> bool) {
        let reached = async {
            while !done(&self.table) {
                self.next().await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("{what} not reached; seen: {:?}", self.seen);
        }
    }

    /// What comes next within a moment; nothing if all is quiet.
    pub(crate) async fn next_is_quiet(&mut self) -> Option<LeaseEvent> {
        tokio::time::timeout(Duration::from_millis(300), self.next()).await.ok()
    }

    /// Takes in whatever comes during `time`.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, async {
            loop {
                self.next().await;
            }
        })
        .await;
    }

    /// The watch ends when nobody listens any more.
    pub(crate) async fn stop(self) {
        drop(self.events);
        within("the end of the watch", self.task).await.unwrap();
    }
}
