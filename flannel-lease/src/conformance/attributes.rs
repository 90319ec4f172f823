//! What a node publishes with its lease: how it is stored, and how it reaches the peers.
#![expect(missing_docs, reason = "each name is the claim")]

use std::sync::Arc;
use std::time::Duration;

use super::{Harness, Watcher, node, quick, range_v4, request, with_v6, within};
use crate::{LeaseAttributes, LeaseLost, LeaseRequest, LeaseTable, StoreErrorKind};

/// What upstream's nodes publish with each backend: `json.Marshal` of `LeaseAttrs` (pkg/lease/lease.go).
const PUBLISHED_BY_UPSTREAM: [&str; 6] = [
    r#"{"PublicIP":"192.0.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#,
    r#"{"PublicIP":"192.0.0.1","PublicIPv6":null,"BackendType":"host-gw"}"#,
    r#"{"PublicIP":"192.0.0.1","PublicIPv6":null,"BackendType":"ipip"}"#,
    // udp
    r#"{"PublicIP":"192.0.0.1","PublicIPv6":null}"#,
    r#"{"PublicIP":"192.0.0.1","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","Port":51820}}"#,
    // Another node, whose wireguard has Mode separate.
    r#"{"PublicIP":"192.0.0.2","PublicIPv6":"2001:db8::2","BackendType":"wireguard","BackendData":{"PublicKey":"CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=","Port":51820},"BackendV6Data":{"PublicKey":"CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=","Port":51821}}"#,
];

pub async fn each_backend_is_stored_as_upstream_does_and_reaches_the_peers<H: Harness>(harness: H) {
    let observer = harness.open(quick()).await;
    let mut watcher = Watcher::start(&observer);
    for json in PUBLISHED_BY_UPSTREAM {
        let published = LeaseAttributes::from_json(json.as_bytes()).unwrap();
        let range = if published.public_ipv6.is_some() { with_v6(range_v4(), 4) } else { range_v4() };
        let attributes = published.clone();
        let store = harness.open(quick()).await;
        let lease = store.acquire(&LeaseRequest { attributes, range, ..request(node(1)) }).await.unwrap();
        assert!(lease.gaps.is_empty(), "{json}: {}", lease.gaps);
        assert_eq!(harness.read(&lease.key.to_string()).await.as_deref(), Some(json));
        let has_arrived = |table: &LeaseTable| table.peer(lease.key) == Some(&published);
        watcher.until(json, has_arrived).await;
        // The next start of the node, and a start of a peer.
        let found = harness.open(quick()).await.find(&published).await.unwrap().unwrap();
        assert_eq!((found.key, &found.attributes), (lease.key, &published));
        let mut latecomer = Watcher::start(&harness.open(quick()).await);
        latecomer.until(json, has_arrived).await;
        latecomer.stop().await;
    }
}

pub async fn an_updated_lease_reaches_the_peers<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let observer = harness.open(quick()).await;
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced()).await;
    // Even its address: it is held, so it is this node's all the same.
    let moved = LeaseAttributes { public_ip: node(2).public_ip, ..node(1) };
    let held = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.hold().await }
    });
    let updated = store.update(&moved).await.unwrap();
    assert_eq!((updated.key, &updated.attributes), (lease.key, &moved));
    watcher.until("the update", |table| table.peer(lease.key) == Some(&moved)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!held.is_finished(), "its own update was taken for a loss");
    assert!(harness.ends(&lease.key.to_string()).await);
    held.abort();
}

pub async fn an_update_of_a_lost_lease_is_refused<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    assert_eq!(store.update(&node(1)).await.unwrap_err().kind, StoreErrorKind::NotHeld);
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let other = node(2).to_json().unwrap();
    harness.put(&lease.key.to_string(), &other).await;
    assert_eq!(store.update(&node(1)).await.unwrap_err().kind, StoreErrorKind::NotHeld);
    assert_eq!(harness.read(&lease.key.to_string()).await, Some(other));
    harness.delete(&lease.key.to_string()).await;
    assert_eq!(store.update(&node(1)).await.unwrap_err().kind, StoreErrorKind::NotHeld);
    assert_eq!(harness.read(&lease.key.to_string()).await, None);
}

pub async fn an_update_to_what_another_node_publishes_is_refused<H: Harness>(harness: H) {
    harness.open(quick()).await.acquire(&request(node(1))).await.unwrap();
    let store = harness.open(quick()).await;
    let lease = store.acquire(&request(node(2))).await.unwrap();
    let copied = LeaseAttributes { backend_data: node(1).backend_data, ..node(2) };
    assert_eq!(store.update(&copied).await.unwrap_err().kind, StoreErrorKind::IdentityTaken);
    assert_eq!(harness.read(&lease.key.to_string()).await, Some(node(2).to_json().unwrap()));
    let held = tokio::time::timeout(Duration::from_millis(500), store.hold());
    assert!(held.await.is_err(), "the lease is held as it was");
}

pub async fn a_lease_that_two_machines_share_does_not_get_what_a_third_publishes<H: Harness>(harness: H) {
    // A machine and its two clones, until the address of the machine is changed.
    let (one, two, three) =
        (harness.open(quick()).await, harness.open(quick()).await, harness.open(quick()).await);
    for store in [&one, &two, &three] {
        store.acquire(&request(node(1))).await.unwrap();
    }
    one.update(&LeaseAttributes { public_ip: node(2).public_ip, ..node(1) }).await.unwrap();
    for clone in [&two, &three] {
        assert!(matches!(within("the loss", clone.hold()).await, LeaseLost::Taken { .. }));
    }
    let other = LeaseAttributes { backend_data: node(3).backend_data, ..node(1) };
    let lease = two.acquire(&request(other.clone())).await.unwrap();
    assert_eq!(three.acquire(&request(node(1))).await.unwrap_err().kind, StoreErrorKind::IdentityTaken);
    assert_eq!(harness.read(&lease.key.to_string()).await, Some(other.to_json().unwrap()));
    assert_eq!(three.acquire(&request(other)).await.unwrap().key, lease.key);
}

pub async fn a_lease_stays_its_nodes_although_another_copies_what_it_publishes<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let copied = LeaseAttributes { backend_data: node(1).backend_data, ..node(2) };
    let free = if lease.key.to_string() == "10.244.9.0-24" { "10.244.8.0-24" } else { "10.244.9.0-24" };
    harness.put(free, &copied.to_json().unwrap()).await;
    let moved = LeaseAttributes { public_ip: node(3).public_ip, ..node(1) };
    assert_eq!(store.update(&moved).await.unwrap().key, lease.key);
    assert_eq!(harness.open(quick()).await.acquire(&request(moved)).await.unwrap().key, lease.key);
}
