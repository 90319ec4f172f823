//! Leases on Kubernetes nodes: what only this store has to get right.

use std::sync::Arc;
use std::time::Duration;

use flannel_lease::Stack;
use flannel_lease::kube::KubeOptions;
use flannel_lease::kube::KubeStore;
use flannel_lease::{LeaseAttributes, LeaseLost, LeaseRequest, LeaseStore, StoreErrorKind};
use flannel_lease::{LeaseEvent, LeaseTable};
use serde_json::{Value, json};
use testkit::FakeApi;

use crate::harness::kube::{DUAL, PREFIX, options};
use crate::kube_connect::{with_kubeconfig, with_token};
use flannel_lease::conformance::{Watcher, key, node, node_v6, range_v4, request, with_v6, within};

const V4: Stack = Stack { ipv4: true, ipv6: false };

async fn open(api: &FakeApi, name: &str) -> Arc<dyn LeaseStore> {
    Arc::new(KubeStore::open(&options(api, name), V4).await.unwrap())
}

/// A server with nodes `a`, `b`, ... that hold 10.244.1.0/24, 10.244.2.0/24, ...
fn cluster(names: &[&str]) -> FakeApi {
    let api = FakeApi::start().unwrap();
    for (n, name) in names.iter().enumerate() {
        api.add_node(name, &[&format!("10.244.{}.0/24", n + 1)]);
    }
    api
}

/// A cluster where `a` and `b` have registered, and a watcher in `a`.
async fn running() -> (FakeApi, Arc<dyn LeaseStore>, Watcher) {
    let api = cluster(&["a", "b"]);
    let store = open(&api, "a").await;
    store.acquire(&request(node(1))).await.unwrap();
    open(&api, "b").await.acquire(&request(node(2))).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced() && table.len() == 2).await;
    (api, store, watcher)
}

/// `b` publishes another address.
fn move_b(api: &FakeApi) {
    api.annotate("b", &format!("{PREFIX}public-ip"), Some("192.0.2.99"));
}

async fn see_b_move(watcher: &mut Watcher) {
    let moved = |attributes: &LeaseAttributes| attributes.public_ip == "192.0.2.99".parse().ok();
    let all = |table: &LeaseTable| table.len() == 2 && table.peer(key("10.244.2.0-24")).is_some_and(moved);
    watcher.until("the other node's change", all).await;
}

fn conditions(api: &FakeApi, name: &str) -> Value {
    let node = api.node(name).unwrap();
    let all = node["status"]["conditions"].as_array().unwrap().clone();
    all.into_iter().find(|condition| condition["type"] == "NetworkUnavailable").unwrap()
}

#[tokio::test]
async fn what_is_published_is_upstreams_to_the_byte_and_leaves_the_rest_alone() {
    let api = cluster(&["a"]);
    let before = api.node("a").unwrap();
    open(&api, "a").await.acquire(&request(node(1))).await.unwrap();
    let after = api.node("a").unwrap();
    let expected = json!({
        "node.alpha.kubernetes.io/ttl": "0",
        "flannel.alpha.coreos.com/backend-data": r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}"#,
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": "192.0.0.1",
    });
    assert_eq!(after["metadata"]["annotations"], expected);
    assert_eq!((&after["spec"], &after["status"]), (&before["spec"], &before["status"]));
    let (requests, _) = api.traffic();
    open(&api, "a").await.acquire(&request(node(1))).await.unwrap();
    assert_eq!(api.traffic().0, requests + 1, "a restart reads and writes nothing");
}

#[tokio::test]
async fn a_node_without_a_pod_subnet_is_told_what_assigns_one_and_may_ask_again() {
    let api = cluster(&[]);
    api.add_node("a", &[]);
    let store = open(&api, "a").await;
    let error = store.acquire(&request(node(1))).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    for told in
        ["node \"a\" pod cidr not assigned", "--allocate-node-cidrs", "CIDRNotAvailable", "flanneld waits"]
    {
        assert!(error.to_string().contains(told), "{error}");
    }
    api.edit_node("a", |node| node["spec"]["podCIDR"] = "10.244.7.0/24".into());
    assert_eq!(store.acquire(&request(node(1))).await.unwrap().key, key("10.244.7.0-24"));
}

#[tokio::test]
async fn a_dual_stack_node_gets_both_families_or_nothing() {
    let api = cluster(&["a"]);
    let store = KubeStore::open(&options(&api, "a"), DUAL).await.unwrap();
    let wanted = LeaseRequest { range: with_v6(range_v4(), 9), ..request(node_v6(1, true)) };
    let error = store.acquire(&wanted).await.unwrap_err();
    assert!(error.to_string().contains("pod cidr not assigned of IPv6"), "{error}");
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    api.edit_node("a", |node| node["spec"]["podCIDRs"] = json!(["10.244.1.0/24", "fd00:10:244:1::/64"]));
    assert_eq!(store.acquire(&wanted).await.unwrap().key, key("10.244.1.0-24&fd00:10:244:1::-64"));
}

#[tokio::test]
async fn a_pod_subnet_outside_the_network_is_refused_in_upstreams_words() {
    let api = cluster(&[]);
    api.add_node("a", &["10.9.1.0/24"]);
    let error = open(&api, "a").await.acquire(&request(node(1))).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unusable);
    let expected = "subnet \"10.244.0.0/16\" specified in the flannel net config doesn't contain \"10.9.1.0/24\" PodCIDR \
                    of the \"a\" node";
    assert!(error.to_string().contains(expected), "{error}");
}

#[tokio::test]
async fn a_later_change_of_the_pod_subnet_is_followed() {
    let (api, store, mut watcher) = running().await;
    let held = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.hold().await }
    });
    api.edit_node("a", |node| node["spec"] = json!({ "podCIDR": "10.244.9.0/24" }));
    watcher
        .until("the new subnet", |table| table.peer(key("10.244.9.0-24")).is_some() && table.len() == 2)
        .await;
    let lost = within("the loss", held).await.unwrap();
    let expected = "lease 10.244.1.0-24 is no longer this node's: Kubernetes gave node \"a\" the pod subnet 10.244.9.0-24";
    assert_eq!(lost.to_string(), expected);
    assert_eq!(store.acquire(&request(node(1))).await.unwrap().key, key("10.244.9.0-24"));
}

#[tokio::test]
async fn a_lease_lost_to_a_pod_subnet_that_cannot_be_used_names_the_pod_subnet() {
    for (pod_cidrs, reason) in [
        (
            json!(["fd00:10:244:1::/64"]),
            "node \"a\" no longer has a podCIDR of an address family in net-conf.json",
        ),
        (json!(["10.244.1/24"]), "node \"a\" has podCIDR `10.244.1/24`, which is not a network"),
    ] {
        let (api, store, _watcher) = running().await;
        let held = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.hold().await }
        });
        api.edit_node("a", |node| node["spec"] = json!({ "podCIDRs": pod_cidrs }));
        let lost = within("the loss", held).await.unwrap();
        assert_eq!(lost.to_string(), format!("lease 10.244.1.0-24 is no longer this node's: {reason}"));
    }
}

#[tokio::test]
async fn a_deleted_node_is_a_lost_lease_and_registers_again_when_it_is_back() {
    let (api, store, mut watcher) = running().await;
    let held = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.hold().await }
    });
    api.delete_node("a");
    watcher.until("the removal", |table| table.len() == 1).await;
    assert_eq!(within("the loss", held).await.unwrap(), LeaseLost::Revoked(key("10.244.1.0-24")));
    assert_eq!(store.acquire(&request(node(1))).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    api.add_node("a", &["10.244.1.0/24"]);
    assert_eq!(store.acquire(&request(node(1))).await.unwrap().key, key("10.244.1.0-24"));
    watcher.until("the lease", |table| table.len() == 2).await;
}

#[tokio::test]
async fn annotations_that_others_take_away_are_published_again() {
    let (api, store, mut watcher) = running().await;
    let held = tokio::spawn(async move { store.hold().await });
    api.annotate("a", &format!("{PREFIX}backend-data"), None);
    api.annotate("a", &format!("{PREFIX}public-ip"), Some("203.0.113.1"));
    let own = |api: &FakeApi| api.annotation("a", &format!("{PREFIX}public-ip"));
    within("the annotation", async {
        while own(&api).as_deref() != Some("192.0.0.1") {
            watcher.listen(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(api.annotation("a", &format!("{PREFIX}backend-data")).is_some());
    held.abort();
}

#[tokio::test]
async fn the_condition_is_cleared_once_ready_and_kept_so() {
    let (api, store, mut watcher) = running().await;
    let held = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.hold().await }
    });
    watcher.listen(Duration::from_millis(300)).await;
    assert_eq!(conditions(&api, "a")["status"], "True", "not before the node is ready");
    api.refuse(500, 3);
    store.ready();
    let cleared = async |watcher: &mut Watcher| {
        while conditions(&api, "a")["status"] != "False" {
            watcher.listen(Duration::from_millis(50)).await;
        }
    };
    within("the condition", cleared(&mut watcher)).await;
    let condition = conditions(&api, "a");
    assert_eq!(condition["reason"], "FlannelIsUp");
    assert_eq!(condition["message"], "Flannel is running on this node");
    assert!(condition["lastTransitionTime"].as_str().unwrap().ends_with('Z'));
    // A node that is made anew comes without it.
    api.edit_node("a", |node| node["status"]["conditions"][1]["status"] = "True".into());
    within("the condition again", cleared(&mut watcher)).await;
    held.abort();
}

#[tokio::test]
async fn the_condition_is_left_alone_if_so_asked() {
    let api = cluster(&["a"]);
    let options = KubeOptions { set_network_unavailable: false, ..options(&api, "a") };
    let store: Arc<dyn LeaseStore> = Arc::new(KubeStore::open(&options, V4).await.unwrap());
    store.acquire(&request(node(1))).await.unwrap();
    store.ready();
    let mut watcher = Watcher::start(&store);
    let held = tokio::spawn(async move { store.hold().await });
    watcher.listen(Duration::from_millis(500)).await;
    assert_eq!(conditions(&api, "a")["status"], "True");
    held.abort();
}

#[tokio::test]
async fn an_overwrite_annotation_is_what_peers_are_told() {
    let api = cluster(&["a"]);
    api.annotate("a", &format!("{PREFIX}public-ip-overwrite"), Some("203.0.113.7"));
    api.annotate("a", &format!("{PREFIX}node-public-ip"), Some("198.51.100.4"));
    let store = KubeStore::open(&options(&api, "a"), V4).await.unwrap();
    assert_eq!(store.node_public().await.unwrap(), ("198.51.100.4".parse().ok(), None));
    store.acquire(&request(node(1))).await.unwrap();
    assert_eq!(api.annotation("a", &format!("{PREFIX}public-ip")).as_deref(), Some("203.0.113.7"));
}

#[tokio::test]
async fn a_change_in_one_family_only_is_seen() {
    let api = FakeApi::start().unwrap();
    api.add_node("a", &["10.244.1.0/24", "fd00:10:244:1::/64"]);
    let store: Arc<dyn LeaseStore> = Arc::new(KubeStore::open(&options(&api, "a"), DUAL).await.unwrap());
    let wanted = LeaseRequest { range: with_v6(range_v4(), 9), ..request(node_v6(1, true)) };
    let lease = store.acquire(&wanted).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;
    api.annotate("a", &format!("{PREFIX}public-ipv6"), Some("2001:db8::77"));
    let moved = |attributes: &LeaseAttributes| attributes.public_ipv6 == "2001:db8::77".parse().ok();
    watcher.until("the change", |table| table.peer(lease.key).is_some_and(moved)).await;
}

#[tokio::test]
async fn a_node_whose_annotations_are_taken_away_stays_a_peer_until_it_is_deleted_or_has_another_subnet() {
    let (api, _store, mut watcher) = running().await;
    let strip = || {
        for name in ["kube-subnet-manager", "public-ip", "backend-data"] {
            api.annotate("b", &format!("{PREFIX}{name}"), None);
        }
    };
    strip();
    watcher.listen(Duration::from_millis(300)).await;
    for _ in 0..2 {
        api.cut_watches();
        api.compact();
        watcher.listen(Duration::from_millis(700)).await;
        assert_eq!(watcher.table.peer(key("10.244.2.0-24")), Some(&node(2)), "{:?}", watcher.seen);
    }
    api.edit_node("b", |node| node["spec"] = json!({ "podCIDR": "10.244.9.0/24" }));
    watcher.until("the end of the subnet that is not its own any more", |table| table.len() == 1).await;
    open(&api, "b").await.acquire(&request(node(2))).await.unwrap();
    watcher.until("its new lease", |table| table.peer(key("10.244.9.0-24")).is_some()).await;
    strip();
    api.delete_node("b");
    watcher.until("the removal", |table| table.len() == 1).await;
}

#[tokio::test]
async fn a_subnet_that_moves_to_another_node_is_not_removed_with_the_old_one() {
    let (api, _store, mut watcher) = running().await;
    api.add_node("c", &["10.244.2.0/24"]);
    open(&api, "c").await.acquire(&request(node(3))).await.unwrap();
    api.delete_node("b");
    let held_by_c = |attributes: &LeaseAttributes| *attributes == node(3);
    watcher.until("the new holder", |table| table.peer(key("10.244.2.0-24")).is_some_and(held_by_c)).await;
    watcher.listen(Duration::from_millis(500)).await;
    assert!(watcher.table.peer(key("10.244.2.0-24")).is_some_and(held_by_c), "{:?}", watcher.seen);
    assert_eq!(watcher.table.len(), 2);
}

/// `name` was made then, and has the pod subnet of `b`.
async fn rival_of_b(api: &FakeApi, name: &str, created: &str, attributes: LeaseAttributes) {
    api.add_node(name, &["10.244.2.0/24"]);
    api.edit_node(name, |node| node["metadata"]["creationTimestamp"] = created.into());
    open(api, name).await.acquire(&request(attributes)).await.unwrap();
}

#[tokio::test]
async fn of_two_nodes_with_one_pod_subnet_the_older_one_has_it_whoever_speaks_last() {
    let (api, store, mut watcher) = running().await;
    api.edit_node("b", |node| node["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z".into());
    // Before `b` by name: a listing tells of it first.
    rival_of_b(&api, "aa", "2026-01-03T00:00:00Z", node(3)).await;
    for heartbeat in 0..3 {
        api.annotate("aa", "heartbeat", Some(&heartbeat.to_string()));
    }
    move_b(&api);
    see_b_move(&mut watcher).await;
    let contested = |seen: &[String]| seen.iter().filter(|event| event.contains("10.244.2.0")).count();
    assert_eq!(contested(&watcher.seen), 3, "b's own three words: {:?}", watcher.seen);

    // A listing does not change it, neither for who knows already nor for who starts.
    api.cut_watches();
    api.compact();
    api.annotate("aa", "heartbeat", Some("last"));
    watcher.until("a listing", |_| true).await;
    watcher.listen(Duration::from_millis(500)).await;
    assert_eq!(watcher.table.peer(key("10.244.2.0-24")).unwrap().public_ip, "192.0.2.99".parse().ok());
    let mut fresh = Watcher::start(&open(&api, "a").await);
    see_b_move(&mut fresh).await;

    // The heir: at once when it is told, and after a listing when it is not.
    api.delete_node("b");
    let held_by = |held: LeaseAttributes| {
        move |table: &LeaseTable| {
            table.peer(key("10.244.2.0-24")).is_some_and(|attributes| *attributes == held)
        }
    };
    watcher.until("the heir", held_by(node(3))).await;
    rival_of_b(&api, "b", "2026-01-01T00:00:00Z", node(4)).await;
    watcher.until("the older node, back", held_by(node(4))).await;
    api.set_away(true);
    api.delete_node("b");
    api.compact();
    api.set_away(false);
    watcher.until("the heir again", held_by(node(3))).await;
    assert!(
        !watcher.seen.contains(&"-10.244.2.0-24".to_owned()),
        "never without a route: {:?}",
        watcher.seen
    );
    drop(store);
}

#[tokio::test]
async fn of_two_nodes_with_one_of_two_pod_subnets_in_common_the_older_one_has_it_too() {
    const SHARED: &str = "10.244.2.0/24";
    let api = FakeApi::start().unwrap();
    api.add_node("a", &["10.244.1.0/24", "fd00:10:244:1::/64"]);
    let add = async |name: &str, created: &str, v4: &str, n: u8| {
        api.add_node(name, &[v4, &format!("fd00:10:244:{n}::/64")]);
        api.edit_node(name, |node| node["metadata"]["creationTimestamp"] = created.into());
        let store = KubeStore::open(&options(&api, name), DUAL).await.unwrap();
        let wanted = LeaseRequest { range: with_v6(range_v4(), 9), ..request(node_v6(n.into(), true)) };
        store.acquire(&wanted).await.unwrap().key
    };
    let watch = async || {
        let store: Arc<dyn LeaseStore> = Arc::new(KubeStore::open(&options(&api, "a"), DUAL).await.unwrap());
        Watcher::start(&store)
    };
    // The younger one has the greater key, and the name that a listing tells first.
    let old = add("old", "2026-01-01T00:00:00Z", SHARED, 2).await;
    let young = add("new", "2026-01-02T00:00:00Z", SHARED, 3).await;
    assert!(young > old);
    let holds = |which: flannel_lease::LeaseKey| {
        move |table: &LeaseTable| {
            table.synced() && table.holder(SHARED.parse().unwrap()) == Some(which) && table.len() == 1
        }
    };
    let mut watcher = watch().await;
    watcher.until("the older one alone", holds(old)).await;
    api.annotate("new", "heartbeat", Some("1"));
    watcher.listen(Duration::from_millis(300)).await;
    assert!(holds(old)(&watcher.table), "{:?}", watcher.seen);

    // The oldest comes last.
    let oldest = add("zero", "2025-01-01T00:00:00Z", SHARED, 4).await;
    watcher.until("the oldest", holds(oldest)).await;
    let mut fresh = watch().await;
    fresh.until("the oldest", holds(oldest)).await;
    api.delete_node("zero");
    watcher.until("its heir", holds(old)).await;
    fresh.until("its heir", holds(old)).await;
    api.edit_node("old", |node| {
        node["spec"] = json!({ "podCIDRs": ["10.244.9.0/24", "fd00:10:244:2::/64"] })
    });
    let both = |table: &LeaseTable| table.peer(young).is_some();
    watcher.until("the younger one, once the older has another subnet", both).await;
}

#[tokio::test]
async fn a_forgotten_history_leads_to_a_new_listing_that_removes_just_what_is_gone() {
    let (api, _store, mut watcher) = running().await;
    api.add_node("c", &["10.244.3.0/24"]);
    open(&api, "c").await.acquire(&request(node(3))).await.unwrap();
    watcher.until("a third node", |table| table.len() == 3).await;
    api.set_away(true);
    api.delete_node("c");
    api.compact();
    move_b(&api);
    watcher.listen(Duration::from_millis(500)).await;
    assert_eq!(watcher.table.len(), 3, "{:?}", watcher.seen);
    api.set_away(false);
    see_b_move(&mut watcher).await;
    assert!(watcher.seen.iter().filter(|event| *event == "resync").count() >= 2, "{:?}", watcher.seen);
    assert!(!watcher.seen.contains(&"-10.244.1.0-24".to_owned()), "{:?}", watcher.seen);
}

#[tokio::test]
async fn cut_and_refused_watches_are_taken_up_again() {
    let (api, store, mut watcher) = running().await;
    for code in [403, 429, 500, 410] {
        api.cut_watches();
        api.refuse(code, 2);
        watcher.listen(Duration::from_millis(200)).await;
    }
    move_b(&api);
    see_b_move(&mut watcher).await;
    within("health", async {
        while store.health().borrow().last_error.is_some() {
            move_b(&api);
            watcher.listen(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_malformed_node_is_skipped_and_keeps_what_it_had() {
    let (api, _store, mut watcher) = running().await;
    api.annotate("b", &format!("{PREFIX}public-ip"), Some("nonsense"));
    watcher.listen(Duration::from_millis(300)).await;
    assert_eq!(watcher.table.peer(key("10.244.2.0-24")), Some(&node(2)), "{:?}", watcher.seen);
    let observer = open(&api, "a").await;
    let mut fresh = Watcher::start(&observer);
    fresh.until("the listing", |table| table.synced()).await;
    assert_eq!(fresh.next_is_quiet().await, None::<LeaseEvent>);
    assert_eq!(fresh.table.len(), 1);
}

#[tokio::test]
async fn credentials_that_expire_are_waited_out() {
    let (api, store, mut watcher) = running().await;
    api.require_token("new");
    within("a refusal", async {
        let refused = |error: &String| error.contains("credentials");
        while !store.health().borrow().last_error.as_ref().is_some_and(refused) {
            watcher.listen(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(watcher.table.len(), 2);
}

#[tokio::test]
#[ignore = "takes a minute: that often the client reads the file"]
async fn a_token_that_the_kubelet_renews_in_its_file_is_used() {
    let api = cluster(&["a", "b"]);
    api.require_token("first");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let store = KubeStore::open(&with_kubeconfig(&api, folder.path(), &api.url(), &with_token(&token)), V4)
        .await
        .unwrap();
    store.acquire(&request(node(1))).await.unwrap();
    let store: Arc<dyn LeaseStore> = Arc::new(store);
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;
    std::fs::write(&token, "second").unwrap();
    api.require_token("second");
    tokio::time::sleep(Duration::from_secs(70)).await;
    api.annotate("b", &format!("{PREFIX}kube-subnet-manager"), Some("true"));
    move_b(&api);
    see_b_move(&mut watcher).await;
}

#[tokio::test]
async fn the_node_is_found_by_its_pod() {
    let api = cluster(&["a"]);
    api.add_pod("kube-flannel", "kube-flannel-ds-1", "a");
    let by_pod = KubeOptions {
        node_name: None,
        pod_name: Some("kube-flannel-ds-1".to_owned()),
        pod_namespace: Some("kube-flannel".to_owned()),
        ..options(&api, "")
    };
    assert_eq!(KubeStore::open(&by_pod, V4).await.unwrap().node_name(), "a");
    let nowhere = KubeOptions { pod_name: None, ..by_pod.clone() };
    let error = KubeStore::open(&nowhere, V4).await.unwrap_err();
    assert!(error.to_string().contains("env variables POD_NAME and POD_NAMESPACE must be set"), "{error}");
    let unknown = KubeOptions { pod_name: Some("other".to_owned()), ..by_pod };
    let error = KubeStore::open(&unknown, V4).await.unwrap_err();
    assert!(error.to_string().contains("error retrieving pod spec for 'kube-flannel/other'"), "{error}");
}
