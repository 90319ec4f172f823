//! An etcd that loses its data at a bad moment, which a real one cannot be made to do.

use std::sync::Arc;
use std::time::Duration;

use flannel_lease::conformance::{Watcher, key, node, request};
use flannel_lease::etcd::{FakeEtcd, FakeLink};
use flannel_lease::{LeaseAttributes, LeaseLost, LeaseStore, StoreErrorKind, Timing};
use tokio::time::{sleep, timeout};

/// An etcd with some history, and a store that needs up to 400 ms for each call.
fn slow_etcd() -> (FakeEtcd, Arc<dyn LeaseStore>) {
    let (etcd, link) = (FakeEtcd::default(), FakeLink::default());
    (0..100).for_each(|number| etcd.put("config", &number.to_string()));
    link.set_delay(Duration::from_millis(200));
    let store = Arc::new(etcd.store(&link, Timing::default()));
    (etcd, store)
}

#[tokio::test(start_paused = true)]
async fn a_node_notices_a_wiped_etcd_whatever_it_asks_at_that_moment() {
    for moment in (0..1500).step_by(20) {
        let (etcd, store) = slow_etcd();
        store.acquire(&request(node(1))).await.unwrap();
        let holder = Arc::clone(&store);
        let hold = tokio::spawn(async move { holder.hold().await });
        sleep(Duration::from_millis(moment)).await;
        etcd.wipe();
        let lost = timeout(Duration::from_secs(30), hold).await;
        let lost = lost.unwrap_or_else(|_| panic!("not noticed: wiped after {moment} ms")).unwrap();
        assert!(matches!(lost, LeaseLost::Revoked(_)), "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_after_a_wipe_sees_whose_entry_has_the_revision_of_ours() {
    let etcd = FakeEtcd::default();
    let store = etcd.store(&FakeLink::default(), Timing::default());
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let revision = etcd.revision();
    etcd.wipe();
    while etcd.revision() < revision {
        etcd.put(&format!("subnets/{}", lease.key), &node(2).to_json().unwrap());
    }
    let moved = LeaseAttributes { public_ip: node(3).public_ip, ..node(1) };
    let error = store.update(&moved).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotHeld, "{error}");
}

#[tokio::test(start_paused = true)]
async fn peers_in_a_wiped_etcd_are_seen_whatever_is_asked_at_that_moment() {
    for moment in (0..1500).step_by(20) {
        let (etcd, store) = slow_etcd();
        etcd.put("subnets/10.244.1.0-24", &node(1).to_json().unwrap());
        let mut watcher = Watcher::start(&store);
        sleep(Duration::from_millis(moment)).await;
        etcd.wipe();
        etcd.put("subnets/10.244.2.0-24", &node(2).to_json().unwrap());
        watcher.until("the peer in the wiped etcd", |table| table.peer(key("10.244.2.0-24")).is_some()).await;
    }
}
