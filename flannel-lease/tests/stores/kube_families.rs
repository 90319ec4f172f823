//! Two families of one node: which of its annotations are missing decides nothing about its lease.

use std::sync::Arc;
use std::time::Duration;

use flannel_lease::conformance::{Watcher, key, node, node_v6, range_v4, request, with_v6};
use flannel_lease::kube::KubeStore;
use flannel_lease::{Gaps, LeaseEvent, LeaseKey, LeaseRequest, LeaseStore, Stack};
use serde_json::json;
use testkit::FakeApi;

use crate::harness::kube::{DUAL, PREFIX, options};

const B: &str = "10.244.2.0-24&fd00:10:244:2::-64";

fn dual(n: u16) -> LeaseRequest {
    LeaseRequest { range: with_v6(range_v4(), 9), ..request(node_v6(n, true)) }
}

async fn open(api: &FakeApi, name: &str) -> Arc<dyn LeaseStore> {
    Arc::new(KubeStore::open(&options(api, name), DUAL).await.unwrap())
}

/// A cluster where `b` has registered, and a watcher in `a`, which has not.
async fn running() -> (FakeApi, Watcher) {
    let api = FakeApi::start().unwrap();
    api.add_node("a", &["10.244.1.0/24", "fd00:10:244:1::/64"]);
    api.add_node("b", &["10.244.2.0/24", "fd00:10:244:2::/64"]);
    open(&api, "b").await.acquire(&dual(2)).await.unwrap();
    let mut watcher = Watcher::start(&open(&api, "a").await);
    watcher.until("the listing", |table| table.synced() && table.len() == 1).await;
    (api, watcher)
}

#[tokio::test]
async fn a_lost_or_damaged_annotation_is_named_and_takes_no_family_away() {
    let (api, mut watcher) = running().await;
    for (name, value, ipv4, ipv6) in [
        ("public-ip", None, true, false),
        ("public-ip", Some("nonsense"), true, false),
        ("backend-data", None, true, false),
        ("public-ipv6", None, false, true),
        ("public-ipv6", Some("192.0.2.1"), false, true),
        ("backend-v6-data", Some("{}"), false, true),
        ("backend-type", None, true, true),
    ] {
        let annotation = format!("{PREFIX}{name}");
        let before = api.annotation("b", &annotation).unwrap();
        api.annotate("b", &annotation, value);
        let LeaseEvent::Upsert(lease) = watcher.next().await else { panic!("{name}: {:?}", watcher.seen) };
        assert_eq!((lease.key, lease.node.as_deref()), (key(B), Some("b")));
        let text = format!("node \"b\": annotation {annotation} ");
        let Gaps { ipv4: v4, ipv6: v6 } = &lease.gaps;
        assert_eq!(v4.as_ref().is_some_and(|gap| gap.starts_with(&text)), ipv4, "{:?}", lease.gaps);
        assert_eq!(v6.as_ref().is_some_and(|gap| gap.starts_with(&text)), ipv6, "{:?}", lease.gaps);
        assert_eq!((v4.is_some(), v6.is_some()), (ipv4, ipv6), "{:?}", lease.gaps);
        // A listing says the same.
        let mut fresh = Watcher::start(&open(&api, "a").await);
        fresh.until("the listing", |table| table.synced()).await;
        assert_eq!(fresh.table.peers().map(|(key, _)| key).collect::<Vec<_>>(), [key(B)], "{name}");
        api.annotate("b", &annotation, Some(&before));
        let LeaseEvent::Upsert(lease) = watcher.next().await else { panic!("{name}: {:?}", watcher.seen) };
        assert_eq!((lease.attributes, lease.gaps), (node_v6(2, true), Gaps::default()));
    }
    assert!(!watcher.seen.iter().any(|event| event.starts_with('-')), "{:?}", watcher.seen);
}

#[tokio::test]
async fn a_node_that_says_nothing_any_more_is_malformed_and_not_gone() {
    let (api, mut watcher) = running().await;
    let before = api.node("b").unwrap()["metadata"]["annotations"].clone();
    for (stripped, named) in [
        (vec!["kube-subnet-manager"], "kube-subnet-manager is missing"),
        (vec!["public-ip", "public-ipv6"], "public-ipv6 is missing"),
    ] {
        api.edit_node("b", |node| {
            let annotations = node["metadata"]["annotations"].as_object_mut().unwrap();
            stripped.iter().for_each(|name| drop(annotations.remove(&format!("{PREFIX}{name}"))));
        });
        let lost = |event: &LeaseEvent| match event {
            LeaseEvent::Malformed { key: found, problem } => {
                *found == key(B) && problem.starts_with("node \"b\": ") && problem.contains(named)
            }
            _ => false,
        };
        while !lost(&watcher.next().await) {}
        for _ in 0..2 {
            api.cut_watches();
            api.compact();
            watcher.listen(Duration::from_millis(700)).await;
            assert_eq!(watcher.table.peer(key(B)), Some(&node_v6(2, true)), "{:?}", watcher.seen);
        }
        api.edit_node("b", |node| node["metadata"]["annotations"] = before.clone());
        while !matches!(watcher.next().await, LeaseEvent::Upsert(_)) {}
    }
    assert!(!watcher.seen.iter().any(|event| event.starts_with('-')), "{:?}", watcher.seen);
}

#[tokio::test]
async fn a_node_that_never_published_one_family_has_a_lease_of_both_with_a_gap() {
    let (api, mut watcher) = running().await;
    api.add_node("c", &["10.244.3.0/24", "fd00:10:244:3::/64"]);
    let v4_only = Stack { ipv4: true, ipv6: false };
    let store = KubeStore::open(&options(&api, "c"), v4_only).await.unwrap();
    store.acquire(&request(node(3))).await.unwrap();
    let LeaseEvent::Upsert(lease) = watcher.next().await else { panic!("{:?}", watcher.seen) };
    assert_eq!((lease.key, lease.attributes), (key("10.244.3.0-24&fd00:10:244:3::-64"), node(3)));
    let missing = format!("node \"c\": annotation {PREFIX}public-ipv6 is missing");
    assert_eq!(lease.gaps, Gaps { ipv4: None, ipv6: Some(missing) });
}

#[tokio::test]
async fn a_family_goes_with_its_pod_cidr_and_the_other_is_never_without_a_lease() {
    let (api, mut watcher) = running().await;
    let v4: LeaseKey = key("10.244.2.0-24");
    api.edit_node("b", |node| node["spec"] = json!({ "podCIDR": "10.244.2.0/24" }));
    watcher.until("one family", |table| table.peer(key(B)).is_none()).await;
    assert!(watcher.table.peer(v4).is_some());
    let cidrs = json!({ "podCIDRs": ["10.244.2.0/24", "fd00:10:244:2::/64"] });
    api.edit_node("b", |node| node["spec"] = cidrs);
    watcher.until("both again", |table| table.peer(v4).is_none()).await;
    let changes: Vec<_> = watcher.seen.iter().rev().take(4).rev().cloned().collect();
    assert_eq!(changes, [format!("+{v4}"), format!("-{B}"), format!("+{B}"), format!("-{v4}")]);
}
