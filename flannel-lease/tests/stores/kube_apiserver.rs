//! Following nodes on a real API server. `make test-kube` runs what has this module's name.

use std::sync::Arc;
use std::time::Duration;

use flannel_lease::Stack;
use flannel_lease::conformance::{TIMEOUT, Watcher, key, within};
use flannel_lease::kube::{KubeOptions, KubeStore};
use flannel_lease::{LeaseAttributes, LeaseStore, LeaseTable};
use testkit::{FakeApi, KubeApiserver};
use tokio::time::{Instant, sleep};

use crate::harness::cuttable::Cuttable;
use crate::harness::kube::{PREFIX, options};

const V4: Stack = Stack { ipv4: true, ipv6: false };

/// `node-1` to `node-N`, of 12 KB each, registered, with pod subnets 10.100.1.0/24 and so on.
fn add_nodes(api: &KubeApiserver, count: u8) {
    let fake = FakeApi::start().unwrap();
    let nodes: Vec<_> = (1..=count)
        .filter_map(|n| {
            let name = format!("node-{n}");
            fake.add_node(&name, &[&format!("10.100.{n}.0/24")]);
            fake.annotate(&name, &format!("{PREFIX}kube-subnet-manager"), Some("true"));
            fake.annotate(&name, &format!("{PREFIX}public-ip"), Some("192.0.2.1"));
            fake.node(&name)
        })
        .collect();
    api.add_nodes(&nodes).unwrap();
}

/// Makes a node that is registered, perhaps without a pod subnet.
fn add(api: &KubeApiserver, name: &str, pod_cidrs: &[&str]) {
    api.add_node(name, pod_cidrs).unwrap();
    api.annotate(name, &format!("{PREFIX}kube-subnet-manager"), Some("true")).unwrap();
    publish(api, name, "192.0.2.1");
}

fn publish(api: &KubeApiserver, name: &str, address: &str) {
    api.annotate(name, &format!("{PREFIX}public-ip"), Some(address)).unwrap();
}

/// Whether the node with this pod subnet publishes this address.
fn has(subnet: &str, address: &str) -> impl Fn(&LeaseTable) -> bool {
    let (key, address) = (key(&subnet.replace('/', "-")), address.parse().ok());
    move |table| table.peer(key).is_some_and(|LeaseAttributes { public_ip, .. }| *public_ip == address)
}

async fn start(options: &KubeOptions) -> (Arc<dyn LeaseStore>, Watcher) {
    let store: Arc<dyn LeaseStore> = Arc::new(KubeStore::open(options, V4).await.unwrap());
    let watcher = Watcher::start(&store);
    (store, watcher)
}

/// A follower of so many nodes behind a way that can be cut; it watches.
async fn behind_a_cut(api: &KubeApiserver, count: u8) -> (Cuttable, Watcher) {
    add_nodes(api, count);
    let way = Cuttable::to(api.address()).await;
    let options = KubeOptions { api_url: Some(format!("https://{}", way.address)), ..options(api, "node-1") };
    let (_, mut watcher) = start(&options).await;
    watcher.until("all nodes", |table| table.synced() && table.len() == usize::from(count)).await;
    publish(api, "node-2", "192.0.2.2");
    watcher.until("a change", has("10.100.2.0/24", "192.0.2.2")).await;
    (way, watcher)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real kube-apiserver: make test-kube"]
async fn it_shows_pod_subnets_in_metadata_and_a_daemon_started_before_it_asks_for_nothing_else() {
    let api = KubeApiserver::start().unwrap();
    add_nodes(&api, 250);
    api.set_away(true).unwrap();
    let (store, mut watcher) = start(&options(&api, "node-1")).await;
    within("a failure", async {
        while store.health().borrow().failures < 2 {
            watcher.listen(Duration::from_millis(20)).await;
        }
    })
    .await;
    api.set_away(false).unwrap();
    watcher.until("all nodes", |table| table.synced() && table.len() == 250).await;
    publish(&api, "node-2", "192.0.2.7");
    watcher.until("a change", has("10.100.2.0/24", "192.0.2.7")).await;
    let lists = api.requests("list").unwrap();
    let last = lists.last().unwrap();
    assert!(last.contains("resourceVersion=0") && !last.contains("limit="), "from the cache: {lists:?}");
    assert!(lists.len() <= 2, "{lists:?}");
    let reads = api.requests("get").unwrap();
    assert!(reads.len() <= 2, "this node: {reads:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real kube-apiserver: make test-kube"]
async fn pod_subnets_that_are_assigned_later_and_nodes_made_again_are_seen() {
    let api = KubeApiserver::start().unwrap();
    add_nodes(&api, 3);
    let (_store, mut watcher) = start(&options(&api, "node-1")).await;
    watcher.until("all nodes", |table| table.synced() && table.len() == 3).await;
    add(&api, "late", &[]);
    publish(&api, "node-2", "192.0.2.3");
    watcher.until("a change after it", has("10.100.2.0/24", "192.0.2.3")).await;
    assert_eq!(watcher.table.len(), 3);
    api.assign("late", &["10.200.1.0/24"]).unwrap();
    watcher.until("its lease", has("10.200.1.0/24", "192.0.2.1")).await;
    api.delete_node("late").unwrap();
    add(&api, "late", &["10.200.2.0/24"]);
    watcher.until("its new lease", has("10.200.2.0/24", "192.0.2.1")).await;
    assert_eq!(watcher.table.len(), 4, "{:?}", watcher.seen);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real kube-apiserver: make test-kube"]
async fn a_watch_that_is_cut_goes_on_without_a_list_and_misses_nothing() {
    let api = KubeApiserver::start().unwrap();
    add(&api, "late", &[]);
    let (way, mut watcher) = behind_a_cut(&api, 5).await;
    let lists = api.requests("list").unwrap().len();
    way.set_cut(true).await;
    api.assign("late", &["10.200.1.0/24"]).unwrap();
    api.delete_node("node-3").unwrap();
    add(&api, "node-3", &["10.200.3.0/24"]);
    api.delete_node("node-4").unwrap();
    publish(&api, "node-5", "192.0.2.5");
    add(&api, "new", &["10.200.2.0/24"]);
    watcher.listen(Duration::from_millis(500)).await;
    assert_eq!(watcher.table.len(), 5, "a server out of reach removes nothing: {:?}", watcher.seen);
    way.set_cut(false).await;
    watcher.until("the node that is made last", has("10.200.2.0/24", "192.0.2.1")).await;
    for (subnet, address) in [
        ("10.100.1.0/24", "192.0.2.1"),
        ("10.100.2.0/24", "192.0.2.2"),
        ("10.100.5.0/24", "192.0.2.5"),
        ("10.200.1.0/24", "192.0.2.1"),
        ("10.200.3.0/24", "192.0.2.1"),
    ] {
        assert!(has(subnet, address)(&watcher.table), "{subnet}: {:?}", watcher.seen);
    }
    assert_eq!(watcher.table.len(), 6, "{:?}", watcher.seen);
    assert_eq!(api.requests("list").unwrap().len(), lists, "the watch has it all");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real kube-apiserver: make test-kube"]
async fn a_version_that_it_has_forgotten_leads_to_a_list_that_is_no_older() {
    let api = KubeApiserver::start().unwrap();
    let (way, mut watcher) = behind_a_cut(&api, 4).await;
    way.set_cut(true).await;
    api.delete_node("node-3").unwrap();
    api.delete_node("node-4").unwrap();
    add(&api, "node-4", &["10.200.4.0/24"]);
    // It has no history from before its start, and answers 410.
    api.set_away(true).unwrap();
    api.set_away(false).unwrap();
    let lists = api.requests("list").unwrap().len();
    way.set_cut(false).await;
    let both = |table: &LeaseTable| table.len() == 3 && has("10.200.4.0/24", "192.0.2.1")(table);
    watcher.until("both changes", both).await;
    let new = api.requests("list").unwrap().split_off(lists);
    let version = new.iter().find_map(|url| url.split_once("resourceVersion=")?.1.parse::<u64>().ok());
    assert!(version.is_some_and(|version| version > 0), "not older than what it knows: {new:?}");
}

/// Before Kubernetes 1.21 a bookmark has the version of the last change of a node: `make test-kube` skips this there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute, and needs a real kube-apiserver: make test-kube"]
async fn bookmarks_move_the_version_that_a_watch_goes_on_from() {
    let api = KubeApiserver::start().unwrap();
    let (way, mut watcher) = behind_a_cut(&api, 3).await;
    let lists = api.requests("list").unwrap().len();
    let deadline = Instant::now() + 3 * TIMEOUT;
    for last in 3..250 {
        // Once all is quiet, nothing but a bookmark comes; the first may still have the version of the last change.
        watcher.listen(Duration::from_secs(3)).await;
        let changed = newest(&api);
        let quiet = way.received();
        while way.received() == quiet {
            assert!(Instant::now() < deadline, "no bookmark");
            sleep(Duration::from_millis(200)).await;
        }
        sleep(Duration::from_millis(500)).await;
        way.set_cut(true).await;
        sleep(Duration::from_millis(500)).await;
        way.set_cut(false).await;
        let address = format!("192.0.2.{last}");
        publish(&api, "node-2", &address);
        watcher.until("a change", has("10.100.2.0/24", &address)).await;
        let watches = api.requests("watch").unwrap();
        let (_, version) = watches.last().unwrap().split_once("resourceVersion=").unwrap();
        if version.parse::<u64>().unwrap() > changed {
            break;
        }
    }
    assert_eq!(api.requests("list").unwrap().len(), lists);
}

/// The version of the last change of a node.
fn newest(api: &KubeApiserver) -> u64 {
    let nodes = api.nodes().unwrap();
    let versions = nodes.iter().map(|node| node["metadata"]["resourceVersion"].as_str().unwrap());
    versions.map(|version| version.parse().unwrap()).max().unwrap()
}
