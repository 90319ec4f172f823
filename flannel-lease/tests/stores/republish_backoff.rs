//! Writes to a lease that another process keeps undoing: a webhook, a second host with one name, a script.

use std::sync::Arc;
use std::time::Duration;

use flannel_lease::conformance::{Harness, Watcher, first_v4, node, quick, request, within};
use flannel_lease::kube::KubeStore;
use flannel_lease::{LeaseAttributes, LeaseRequest, LeaseStore, LeaseTable, Stack, StoreHealth};
use testkit::{FakeApi, KubeApiserver};

use crate::harness::etcd::EtcdLab;
use crate::harness::kube::{PREFIX, Server, options};
use crate::harness::sqlite::SqliteLab;

const V4: Stack = Stack { ipv4: true, ipv6: false };

async fn open(api: &impl Server, n: u16) -> Arc<dyn LeaseStore> {
    let store: Arc<dyn LeaseStore> = Arc::new(KubeStore::open(&options(api, "a"), V4).await.unwrap());
    store.acquire(&request(node(n))).await.unwrap();
    let (holder, follower) = (Arc::clone(&store), Arc::clone(&store));
    tokio::spawn(async move { holder.hold().await });
    tokio::spawn(async move {
        let (events, mut seen) = tokio::sync::mpsc::channel(64);
        tokio::join!(follower.watch(events), async move { while seen.recv().await.is_some() {} })
    });
    store
}

async fn contested(store: &Arc<dyn LeaseStore>) -> String {
    let mut health = store.health();
    let reported = |health: &StoreHealth| health.contested.is_some();
    let health = within("the report", health.wait_for(reported)).await.unwrap();
    health.contested.clone().unwrap()
}

async fn two_hosts_with_one_name(api: impl Server) {
    api.add_node("a", &["10.244.1.0/24"]);
    let one = open(&api, 1).await;
    let mut watcher = Watcher::start(&one);
    watcher.until("the listing", |table| table.synced()).await;
    // From then on it is the older one.
    watcher.listen(Duration::from_secs(11)).await;
    let two = open(&api, 2).await;
    watcher.listen(Duration::from_secs(8)).await;
    // A few of each at once, then after one, two and four seconds.
    assert!(watcher.seen.len() < 30, "{} events", watcher.seen.len());
    let text = contested(&two).await;
    assert!(text.contains("192.0.0.1") && text.ends_with("Give each host its own NODE_NAME"), "{text}");
    assert_eq!(one.health().borrow().contested, None, "it was there first");
    let holder = |table: &LeaseTable| table.peers().next().is_some_and(|(_, holder)| *holder == node(1));
    watcher.until("the older one's lease", holder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_with_one_node_name_write_less_and_less_often_and_the_newcomer_reports_it() {
    two_hosts_with_one_name(FakeApi::start().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real kube-apiserver: make test-kube"]
async fn kube_apiserver_with_two_hosts_of_one_node_name_is_written_to_less_and_less_often() {
    two_hosts_with_one_name(KubeApiserver::start().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn annotations_that_a_webhook_drops_are_written_less_and_less_often_until_it_stops() {
    let api = FakeApi::start().unwrap();
    api.add_node("a", &["10.244.1.0/24"]);
    let store = open(&api, 1).await;
    let name = format!("{PREFIX}public-ip");
    let mut health = store.health();
    let mut writes = 0;
    let text = within("the report", async {
        loop {
            if api.annotation("a", &name).is_some() {
                writes += 1;
                api.annotate("a", &name, None);
            }
            if let Some(text) = health.borrow_and_update().contested.clone() {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!((4..15).contains(&writes), "{writes} writes");
    assert!(text.contains("admission webhook") && text.contains(&name), "{text}");
    within("the end", health.wait_for(|health| health.contested.is_none())).await.unwrap();
    assert!(api.annotation("a", &name).is_some());
}

async fn a_script_that_keeps_damaging_a_lease<H: Harness>() {
    let harness = H::new().await;
    let store = harness.open(quick()).await;
    let range = first_v4(1);
    let lease = store.acquire(&LeaseRequest { range, ..request(node(1)) }).await.unwrap();
    let holder = Arc::clone(&store);
    tokio::spawn(async move { holder.hold().await });
    let damaged = LeaseAttributes { backend_data: None, ..node(1) }.to_json().unwrap();
    let right = node(1).to_json().unwrap();
    let mut health = store.health();
    let (mut writes, mut reported) = (0, false);
    let until = tokio::time::Instant::now() + Duration::from_secs(40);
    while !reported && tokio::time::Instant::now() < until {
        if harness.read(&lease.key.to_string()).await.as_ref() == Some(&right) {
            writes += 1;
            harness.put(&lease.key.to_string(), &damaged).await;
        }
        reported = health.borrow_and_update().contested.is_some();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(reported && writes < 20, "{writes} writes, reported: {reported}");
    within("the end", health.wait_for(|health| health.contested.is_none())).await.unwrap();
    assert_eq!(harness.read(&lease.key.to_string()).await, Some(right));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_keeps_damaging_a_lease_in_etcd_is_reported() {
    a_script_that_keeps_damaging_a_lease::<EtcdLab>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_keeps_damaging_a_lease_in_sqlite_is_reported() {
    a_script_that_keeps_damaging_a_lease::<SqliteLab>().await;
}
