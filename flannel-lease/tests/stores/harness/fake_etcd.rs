//! An etcd in memory.

use std::sync::Arc;

use flannel_lease::conformance::Harness;
use flannel_lease::etcd::{FakeEntry, FakeEtcd, FakeLink};
use flannel_lease::{LeaseStore, Timing};

#[derive(Default)]
pub(crate) struct FakeLab {
    etcd: FakeEtcd,
    link: FakeLink,
}

impl FakeLab {
    fn entry(&self, key: &str) -> Option<FakeEntry> {
        self.etcd.entries().into_iter().find(|entry| entry.name == name(key))
    }
}

fn name(key: &str) -> String {
    format!("subnets/{key}")
}

impl Harness for FakeLab {
    const READABLE_WHILE_AWAY: bool = false;

    async fn new() -> Self {
        Self::default()
    }

    async fn open(&self, timing: Timing) -> Arc<dyn LeaseStore> {
        Arc::new(self.etcd.store(&self.link, timing))
    }

    async fn put(&self, key: &str, json: &str) {
        self.etcd.put(&name(key), json);
    }

    async fn delete(&self, key: &str) {
        self.etcd.delete(&name(key));
    }

    async fn read(&self, key: &str) -> Option<String> {
        self.entry(key).map(|entry| entry.value)
    }

    async fn ends(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.ends)
    }

    async fn wipe(&self) {
        self.etcd.wipe();
    }

    async fn away(&self, during: impl Future<Output = ()> + Send) {
        self.link.set_up(false);
        during.await;
        self.link.set_up(true);
    }
}
