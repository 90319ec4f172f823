//! What following thousands of Kubernetes nodes costs, and what servers and proxies may answer.

use std::sync::Arc;
use std::time::Duration;

use flannel_lease::Stack;
use flannel_lease::conformance::{Watcher, key, within};
use flannel_lease::kube::KubeStore;
use flannel_lease::{LeaseAttributes, LeaseStore, LeaseTable};
use testkit::{FakeApi, MediaTypes};

use crate::harness::kube::{PREFIX, options};

const V4: Stack = Stack { ipv4: true, ipv6: false };

async fn open(api: &FakeApi, name: &str) -> Arc<dyn LeaseStore> {
    Arc::new(KubeStore::open(&options(api, name), V4).await.unwrap())
}

fn publish(api: &FakeApi, name: &str) {
    api.annotate(name, &format!("{PREFIX}kube-subnet-manager"), Some("true"));
    api.annotate(name, &format!("{PREFIX}public-ip"), Some("192.0.2.1"));
}

/// A server with so many nodes, `node-0001` and so on, all registered.
fn cluster(nodes: usize) -> FakeApi {
    let api = FakeApi::start().unwrap();
    for n in 1..=nodes {
        let name = format!("node-{n:04}");
        api.add_node(&name, &[&format!("10.{}.{}.0/24", 100 + n / 256, n % 256)]);
        publish(&api, &name);
    }
    api
}

/// A watcher in the first of so many nodes that has seen them all and now watches for changes.
async fn follow(api: &FakeApi, nodes: usize) -> Watcher {
    let mut watcher = Watcher::start(&open(api, "node-0001").await);
    watcher.until("all nodes", |table| table.synced() && table.len() == nodes).await;
    see_move(api, &mut watcher, "node-0002", "192.0.2.7").await;
    watcher
}

/// `name`, which is the second node, publishes another address.
async fn see_move(api: &FakeApi, watcher: &mut Watcher, name: &str, to: &str) {
    api.annotate(name, &format!("{PREFIX}public-ip"), Some(to));
    let moved = |attributes: &LeaseAttributes| attributes.public_ip == to.parse().ok();
    let seen = |table: &LeaseTable| table.peer(key("10.100.2.0-24")).is_some_and(moved);
    watcher.until("the change", seen).await;
}

#[tokio::test]
async fn a_start_takes_three_requests_and_two_hundred_bytes_for_each_node() {
    let api = cluster(2000);
    let mut watcher = follow(&api, 2000).await;
    let (requests, bytes) = api.traffic();
    assert_eq!(requests, 3, "the list, this node, the watch");
    assert!(bytes < 2000 * 200, "{bytes} bytes");
    see_move(&api, &mut watcher, "node-0002", "192.0.2.8").await;
    assert_eq!(api.traffic().0, requests, "a change of a known node is no request");
}

#[tokio::test]
async fn a_heartbeat_costs_metadata_only_and_no_request() {
    const HEARTBEATS: u64 = 50;
    let api = cluster(3);
    let mut watcher = follow(&api, 3).await;
    let (requests, before) = api.traffic();
    for n in 0..HEARTBEATS {
        api.edit_node("node-0003", |node| {
            node["status"]["conditions"][0]["lastHeartbeatTime"] = format!("2026-01-01T00:00:{n:02}Z").into();
        });
    }
    see_move(&api, &mut watcher, "node-0002", "192.0.2.9").await;
    let (after, bytes) = api.traffic();
    let whole = u64::try_from(api.node("node-0003").unwrap().to_string().len()).unwrap();
    assert!((12_000..16_000).contains(&whole), "a node of {whole} bytes");
    assert!((bytes - before) / HEARTBEATS < whole / 4, "{} bytes for each", (bytes - before) / HEARTBEATS);
    assert_eq!(after, requests);
}

#[tokio::test]
async fn every_server_and_proxy_is_followed_with_what_it_can_answer() {
    for known in [MediaTypes::All, MediaTypes::Json, MediaTypes::WholeJson, MediaTypes::IgnoresAccept] {
        for managed_fields in [true, false] {
            let api = FakeApi::start().unwrap();
            api.set_media_types(known);
            api.show_managed_fields(managed_fields);
            for n in 1..=40 {
                api.add_node(&format!("node-{n:04}"), &[&format!("10.100.{n}.0/24")]);
                publish(&api, &format!("node-{n:04}"));
            }
            let mut watcher = follow(&api, 40).await;
            for change in 0..20 {
                see_move(&api, &mut watcher, "node-0002", &format!("192.0.2.{}", 100 + change)).await;
            }
            // The list, perhaps refused or with metadata that does not suffice; this node; the watch.
            let (requests, _) = api.traffic();
            assert!(requests <= 5, "{known:?}, managedFields {managed_fields}: {requests} requests");
            api.delete_node("node-0002");
            watcher.until("the removal", |table| table.len() == 39).await;
            api.add_node("node-0041", &["10.100.41.0/24"]);
            publish(&api, "node-0041");
            watcher.until("a new node", |table| table.peer(key("10.100.41.0-24")).is_some()).await;
        }
    }
}

#[tokio::test]
async fn a_pod_subnet_assigned_later_is_seen_with_and_without_managed_fields() {
    for managed_fields in [true, false] {
        let api = cluster(2);
        api.show_managed_fields(managed_fields);
        let mut watcher = follow(&api, 2).await;
        api.add_node("late", &[]);
        publish(&api, "late");
        see_move(&api, &mut watcher, "node-0002", "192.0.2.8").await;
        assert_eq!(watcher.table.len(), 2);
        api.edit_node("late", |node| node["spec"]["podCIDR"] = "10.200.1.0/24".into());
        watcher.until("its lease", |table| table.peer(key("10.200.1.0-24")).is_some()).await;
    }
}

#[tokio::test]
async fn a_node_made_again_under_its_name_has_its_new_pod_subnet_even_if_the_watch_missed_it() {
    for managed_fields in [true, false] {
        let api = cluster(2);
        api.show_managed_fields(managed_fields);
        let again = |n: u8| {
            api.delete_node("node-0002");
            api.add_node("node-0002", &[&format!("10.200.{n}.0/24")]);
            publish(&api, "node-0002");
        };
        again(1);
        let mut watcher = Watcher::start(&open(&api, "node-0001").await);
        watcher.until("both", |table| table.synced() && table.peer(key("10.200.1.0-24")).is_some()).await;
        again(2);
        let second = |table: &LeaseTable| table.len() == 2 && table.peer(key("10.200.2.0-24")).is_some();
        watcher.until("the second", second).await;
        api.set_away(true);
        again(3);
        api.compact();
        api.set_away(false);
        let third = |table: &LeaseTable| table.len() == 2 && table.peer(key("10.200.3.0-24")).is_some();
        watcher.until("the third", third).await;
    }
}

#[tokio::test]
async fn a_server_away_at_the_start_is_later_listed_as_cheaply_as_any() {
    let api = cluster(500);
    api.set_away(true);
    let store = open(&api, "node-0001").await;
    let mut watcher = Watcher::start(&store);
    within("a failure", async {
        while store.health().borrow().failures < 2 {
            watcher.listen(Duration::from_millis(20)).await;
        }
    })
    .await;
    api.set_away(false);
    watcher.until("all nodes", |table| table.synced() && table.len() == 500).await;
    see_move(&api, &mut watcher, "node-0002", "192.0.2.7").await;
    let (requests, bytes) = api.traffic();
    assert_eq!(requests, 3, "the list, this node, the watch");
    assert!(bytes < 500 * 250, "{bytes} bytes");
}

#[tokio::test]
async fn a_node_that_cannot_be_read_when_it_is_new_is_read_later() {
    let api = cluster(2);
    api.show_managed_fields(false);
    let mut watcher = follow(&api, 2).await;
    api.refuse(500, 3);
    api.add_node("new", &["10.200.1.0/24"]);
    publish(&api, "new");
    watcher.until("its lease", |table| table.peer(key("10.200.1.0-24")).is_some()).await;
}

#[tokio::test]
async fn what_a_watch_repeats_is_no_change_and_what_it_missed_is_listed() {
    let api = cluster(4);
    // KubeEdge's metaServer has the nodes as they are now in its local database.
    api.imitate_meta_server();
    api.delete_node("node-0003");
    api.annotate("node-0002", &format!("{PREFIX}public-ip"), Some("192.0.2.50"));
    let mut watcher = follow(&api, 3).await;
    assert_eq!(watcher.table.len(), 3, "a deleted node is repeated: {:?}", watcher.seen);
    let former = watcher.seen.iter().filter(|event| event.contains("10.100.3.0")).count();
    assert_eq!(former, 0, "{:?}", watcher.seen);

    api.set_away(true);
    api.delete_node("node-0004");
    api.set_away(false);
    watcher.until("the removal", |table| table.len() == 2).await;
    see_move(&api, &mut watcher, "node-0002", "192.0.2.8").await;
    assert_eq!(watcher.table.len(), 2, "{:?}", watcher.seen);
}
