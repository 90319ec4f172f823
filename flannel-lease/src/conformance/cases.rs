//! The cases of the suite, each named after what it requires of a store.
#![expect(missing_docs, reason = "each name is the claim")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use super::attributes::*;
use super::{Harness, Watcher, first_v4, key, node, node_v6, quick, range_v4, request, with_v6, within};
use crate::{
    BackendType, Lease, LeaseAttributes, LeaseEvent, LeaseLost, LeaseRequest, StoreErrorKind, Timing,
};

pub async fn a_node_that_comes_back_gets_its_lease_back<H: Harness>(harness: H) {
    let first = harness.open(quick()).await.acquire(&request(node(1))).await.unwrap();
    let mut changed = node(1);
    changed.backend_data = node(9).backend_data;
    let store = harness.open(quick()).await;
    assert_eq!(store.find(&node(1)).await.unwrap().unwrap().attributes, node(1));
    let second = store.acquire(&request(changed.clone())).await.unwrap();
    assert_eq!(second.key, first.key);
    assert_eq!(harness.read(&first.key.to_string()).await, Some(changed.to_json().unwrap()));
    assert!(harness.ends(&first.key.to_string()).await);
    assert_eq!(store.find(&node(2)).await.unwrap(), None);
}

async fn acquire_at_once<H: Harness>(harness: H, requests: impl Iterator<Item = LeaseRequest>) -> Vec<Lease> {
    let harness = Arc::new(harness);
    let tasks: Vec<_> = requests
        .map(|request| {
            let harness = Arc::clone(&harness);
            tokio::spawn(async move { harness.open(quick()).await.acquire(&request).await.unwrap() })
        })
        .collect();
    let mut leases = Vec::new();
    for task in tasks {
        leases.push(within("every lease", task).await.unwrap());
    }
    leases
}

pub async fn fifty_nodes_at_once_get_fifty_subnets<H: Harness>(harness: H) {
    let requests = (0..50).map(|n| LeaseRequest { range: first_v4(50), ..request(node(n)) });
    let leases = acquire_at_once(harness, requests).await;
    let keys: BTreeSet<_> = leases.iter().map(|lease| lease.key).collect();
    assert_eq!(keys.len(), 50);
}

pub async fn dual_stack_nodes_at_once_share_no_subnet_of_either_family<H: Harness>(harness: H) {
    let range = with_v6(first_v4(16), 16);
    let requests = (1..=16).map(|n| LeaseRequest { range: range.clone(), ..request(node_v6(n, true)) });
    let leases = acquire_at_once(harness, requests).await;
    let v4: BTreeSet<_> = leases.iter().map(|lease| lease.key.v4().unwrap()).collect();
    let v6: BTreeSet<_> = leases.iter().map(|lease| lease.key.v6().unwrap()).collect();
    assert_eq!((v4.len(), v6.len()), (16, 16));
}

pub async fn ipv6_only_nodes_get_different_subnets<H: Harness>(harness: H) {
    let mut range = with_v6(range_v4(), 4);
    range.v4 = None;
    let mut keys = BTreeSet::new();
    for n in [1, 2, 1, 2] {
        let store = harness.open(quick()).await;
        let request = LeaseRequest { range: range.clone(), ..request(node_v6(n, false)) };
        let lease = within("an IPv6 lease", store.acquire(&request)).await.unwrap();
        assert!(lease.key.to_string().starts_with("0.0.0.0-0&fd00:10:244:"), "{}", lease.key);
        keys.insert(lease.key);
    }
    assert_eq!(keys.len(), 2);
}

pub async fn a_node_that_turns_dual_stack_keeps_its_ipv4_subnet<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    let before = store.acquire(&request(node(1))).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the lease", |table| table.len() == 1 && table.synced()).await;
    let dual = LeaseRequest { range: with_v6(range_v4(), 9), ..request(node_v6(1, true)) };
    let after = store.acquire(&dual).await.unwrap();
    assert_eq!(after.key.v4(), before.key.v4());
    assert!(after.key.v6().is_some());
    let subnet = IpNet::from(before.key.v4().unwrap());
    let mut replaced = async |key| {
        while watcher.table.peer(key).is_none() || watcher.table.len() != 1 {
            watcher.next().await;
            assert!(watcher.table.holder(subnet).is_some(), "{subnet} is never absent: {:?}", watcher.seen);
        }
    };
    replaced(after.key).await;
    // And back again.
    let single = store.acquire(&request(node(1))).await.unwrap();
    assert_eq!(single.key, before.key);
    replaced(single.key).await;
    assert_eq!(harness.read(&after.key.to_string()).await, None);
}

pub async fn the_previous_subnet_is_taken_again_if_free<H: Harness>(harness: H) {
    let previous = Some(key("10.244.77.0-24"));
    let lease =
        harness.open(quick()).await.acquire(&LeaseRequest { previous, ..request(node(1)) }).await.unwrap();
    assert_eq!(Some(lease.key), previous);
}

pub async fn a_previous_subnet_that_another_holds_is_not_taken<H: Harness>(harness: H) {
    let taken = harness.open(quick()).await.acquire(&request(node(1))).await.unwrap();
    let request = LeaseRequest { previous: Some(taken.key), ..request(node(2)) };
    let other = harness.open(quick()).await.acquire(&request).await.unwrap();
    assert_ne!(other.key, taken.key);
}

pub async fn a_node_whose_address_changed_keeps_its_subnet<H: Harness>(harness: H) {
    let before = harness.open(quick()).await.acquire(&request(node(1))).await.unwrap();
    let moved = LeaseAttributes { public_ip: node(2).public_ip, ..node(1) };
    let forgotten = LeaseRequest { previous: Some(before.key), ..request(moved.clone()) };
    let error = harness.open(quick()).await.acquire(&forgotten).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::IdentityTaken, "it may be another machine: {error}");
    let request = LeaseRequest { previous: Some(before.key), former: Some(node(1)), ..request(moved) };
    let after = harness.open(quick()).await.acquire(&request).await.unwrap();
    assert_eq!(after.key, before.key);
    assert_eq!(after.attributes.public_ip, node(2).public_ip);
}

pub async fn a_lease_that_another_machine_took_along_is_given_up<H: Harness>(harness: H) {
    // Two machines with one address, such as 10.0.2.15 behind NAT, cannot know of each other until one changes it.
    let (one, two) = (harness.open(quick()).await, harness.open(quick()).await);
    let shared = one.acquire(&request(node(1))).await.unwrap();
    assert_eq!(two.acquire(&request(node(1))).await.unwrap().key, shared.key);
    let moved = LeaseAttributes { public_ip: node(2).public_ip, ..node(1) };
    two.update(&moved).await.unwrap();
    assert!(matches!(within("the loss", one.hold()).await, LeaseLost::Taken { .. }));
    let again = LeaseRequest { previous: Some(shared.key), ..request(node(1)) };
    assert_eq!(one.acquire(&again).await.unwrap_err().kind, StoreErrorKind::IdentityTaken);
    let data = LeaseAttributes { backend_data: node(3).backend_data, ..node(1) };
    assert_ne!(one.acquire(&request(data)).await.unwrap().key, shared.key);
    assert_eq!(harness.read(&shared.key.to_string()).await, Some(moved.to_json().unwrap()));
}

pub async fn a_lease_outside_a_new_range_is_given_up<H: Harness>(harness: H) {
    let old = LeaseRequest { previous: Some(key("10.244.200.0-24")), ..request(node(1)) };
    let before = harness.open(quick()).await.acquire(&old).await.unwrap();
    let new = LeaseRequest { previous: Some(before.key), range: first_v4(4), ..request(node(1)) };
    let after = harness.open(quick()).await.acquire(&new).await.unwrap();
    assert!(after.key.v4().unwrap().addr() <= first_v4(4).v4.unwrap().max, "{}", after.key);
    assert_eq!(harness.read("10.244.200.0-24").await, None);
}

pub async fn a_full_range_says_out_of_subnets<H: Harness>(harness: H) {
    for n in 0..3 {
        let request = LeaseRequest { range: first_v4(3), ..request(node(n)) };
        harness.open(quick()).await.acquire(&request).await.unwrap();
    }
    let last = LeaseRequest { range: first_v4(3), ..request(node(3)) };
    let error = within("a refusal", harness.open(quick()).await.acquire(&last)).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::OutOfSubnets);
    let text = error.to_string();
    assert!(text.contains("out of subnets") && text.contains("10.244.3.0"), "{text}");
}

pub async fn a_watch_tells_what_is_there_then_what_changes<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let mut watcher = Watcher::start(&store);
    assert_eq!(watcher.next().await, LeaseEvent::Resync);
    let LeaseEvent::Upsert(listed) = watcher.next().await else { panic!("{:?}", watcher.seen) };
    assert_eq!((listed.key, listed.attributes), (lease.key, node(1)));
    assert_eq!(watcher.next().await, LeaseEvent::Synced { unreadable: Vec::new() });

    let other = harness.open(quick()).await.acquire(&request(node(2))).await.unwrap();
    let LeaseEvent::Upsert(added) = watcher.next().await else { panic!("{:?}", watcher.seen) };
    assert_eq!((added.key, added.attributes), (other.key, node(2)));
    harness.delete(&other.key.to_string()).await;
    assert_eq!(watcher.next().await, LeaseEvent::Remove(other.key));
    watcher.stop().await;
}

pub async fn a_restart_with_nothing_new_tells_the_peers_nothing<H: Harness>(harness: H) {
    let first = harness.open(quick()).await.acquire(&request(node(1))).await.unwrap();
    let observer = harness.open(quick()).await;
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced()).await;
    let again = harness.open(quick()).await.acquire(&request(node(1))).await.unwrap();
    watcher.listen(Duration::from_millis(500)).await;
    assert_eq!((again.key, watcher.seen.len()), (first.key, 3), "{:?}", watcher.seen);
}

/// Leases short enough to wait for their end: renewed after two seconds, ended after four.
fn short_lived() -> Timing {
    Timing { ttl: Duration::from_secs(4), renew_margin: Duration::from_secs(2), ..quick() }
}

pub async fn a_held_lease_is_renewed_without_a_word_to_the_peers<H: Harness>(harness: H) {
    // Renewed after a second; on a busy machine some seconds later.
    let timing = Timing { ttl: Duration::from_secs(8), renew_margin: Duration::from_secs(7), ..quick() };
    let store = harness.open(timing).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let observer = harness.open(timing).await;
    let mut watcher = Watcher::start(&observer);
    let lost = tokio::time::timeout(Duration::from_secs(10), async {
        tokio::select! {
            lost = store.hold() => lost,
            () = watcher.listen(Duration::from_secs(60)) => unreachable!(),
        }
    });
    assert!(lost.await.is_err(), "lost although it was held");
    assert_eq!(watcher.seen.len(), 3, "{:?}", watcher.seen);
    assert!(harness.ends(&lease.key.to_string()).await);
}

pub async fn a_lease_nobody_renews_ends_and_its_peers_hear_of_it<H: Harness>(harness: H) {
    let observer = harness.open(short_lived()).await;
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced()).await;
    let lease = harness.open(short_lived()).await.acquire(&request(node(1))).await.unwrap();
    watcher.until("the lease", |table| table.len() == 1).await;
    watcher.until("the end of the lease", |table| table.is_empty()).await;
    assert_eq!(harness.read(&lease.key.to_string()).await, None);
}

pub async fn a_deleted_lease_is_reported_lost<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let (lost, ()) = within("the loss", async {
        tokio::join!(store.hold(), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            harness.delete(&lease.key.to_string()).await;
        })
    })
    .await;
    assert_eq!(lost, LeaseLost::Revoked(lease.key));
    let again = LeaseRequest { previous: Some(lease.key), ..request(node(1)) };
    assert_eq!(store.acquire(&again).await.unwrap().key, lease.key);
}

pub async fn renewal_never_takes_a_subnet_that_another_node_holds<H: Harness>(harness: H) {
    let store = harness.open(short_lived()).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let theirs = node(2).to_json().unwrap();
    harness.delete(&lease.key.to_string()).await;
    harness.put(&lease.key.to_string(), &theirs).await;
    let lost = within("the loss", store.hold()).await;
    assert!(matches!(&lost, LeaseLost::Taken { .. } | LeaseLost::Revoked(_)), "{lost:?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(harness.read(&lease.key.to_string()).await, Some(theirs));
}

pub async fn a_reservation_is_kept_for_its_node_and_stays_one<H: Harness>(harness: H) {
    harness.open(quick()).await.find(&node(1)).await.unwrap();
    harness.put("10.244.2.0-24", r#"{"PublicIP":"192.0.0.1"}"#).await;
    let range = first_v4(2);
    let other =
        LeaseRequest { range: range.clone(), previous: Some(key("10.244.2.0-24")), ..request(node(2)) };
    assert_eq!(harness.open(quick()).await.acquire(&other).await.unwrap().key, key("10.244.1.0-24"));

    let store = harness.open(quick()).await;
    let lease = store.acquire(&LeaseRequest { range, ..request(node(1)) }).await.unwrap();
    assert_eq!((lease.key, lease.expires), (key("10.244.2.0-24"), None));
    store.update(&LeaseAttributes { backend_data: None, ..node(1) }).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), store.hold()).await.is_err());
    assert!(!harness.ends("10.244.2.0-24").await);
}

pub async fn entries_that_are_no_leases_are_skipped_and_remove_nobody<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    // Its subnet is none of those below.
    let lease = store.acquire(&LeaseRequest { range: first_v4(5), ..request(node(1)) }).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;
    for (key, json) in [
        ("hello", "x"),
        ("10.244.300.0-24", r#"{"PublicIP":"192.0.0.9"}"#),
        ("10.244.9.0-33", r#"{"PublicIP":"192.0.0.9"}"#),
        ("10.244.9.0-24", "{bad"),
        ("10.244.10.0-24", r#"{"PublicIP":[]}"#),
        ("x10.244.11.0-24", r#"{"PublicIP":"192.0.0.9"}"#),
    ] {
        harness.put(key, json).await;
    }
    let sound = harness.open(quick()).await.acquire(&request(node(2))).await.unwrap();
    watcher.until("the sound lease", |table| table.peer(sound.key).is_some()).await;
    assert!(watcher.table.peer(lease.key).is_some());
    assert_eq!(watcher.table.len(), 2, "{:?}", watcher.seen);
    harness.delete("hello").await;
    harness.delete("10.244.9.0-24").await;
    watcher.listen(Duration::from_millis(500)).await;
    assert_eq!(watcher.table.len(), 2, "{:?}", watcher.seen);
}

pub async fn a_lease_whose_contents_break_stays_as_it_was<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    let lease = store.acquire(&LeaseRequest { range: first_v4(1), ..request(node(1)) }).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;
    harness.put(&lease.key.to_string(), "{bad").await;
    watcher.listen(Duration::from_millis(500)).await;
    assert_eq!(watcher.table.peer(lease.key), Some(&node(1)), "{:?}", watcher.seen);
    // Nor is its subnet free, and a new listing says so instead of leaving it out.
    let other = LeaseRequest { range: first_v4(1), ..request(node(2)) };
    let error = harness.open(quick()).await.acquire(&other).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::OutOfSubnets);
    let observer = harness.open(quick()).await;
    let mut watcher = Watcher::start(&observer);
    assert_eq!(watcher.next().await, LeaseEvent::Resync);
    let LeaseEvent::Malformed { key, problem } = watcher.next().await else { panic!("{:?}", watcher.seen) };
    assert!(key == lease.key && problem.contains(&key.to_string()), "{problem}");
    assert_eq!(watcher.next().await, LeaseEvent::Synced { unreadable: Vec::new() });
}

/// The JSON of `attributes` without this field.
fn without(attributes: &LeaseAttributes, field: &str) -> String {
    let json = attributes.to_json().unwrap();
    let mut fields: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(&json).unwrap();
    assert!(fields.remove(field).is_some(), "{field} in {json}");
    serde_json::to_string(&fields).unwrap()
}

const FIELDS: [&str; 5] = ["PublicIP", "BackendData", "PublicIPv6", "BackendV6Data", "BackendType"];

pub async fn what_a_lease_lacks_is_named_and_both_families_stay_in_it<H: Harness>(harness: H) {
    let wanted = LeaseRequest { range: with_v6(first_v4(5), 9), ..request(node_v6(1, true)) };
    let lease = harness.open(quick()).await.acquire(&wanted).await.unwrap();
    let name = lease.key.to_string();
    let observer = harness.open(quick()).await;
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced()).await;
    for field in FIELDS {
        harness.put(&name, &without(&lease.attributes, field)).await;
        let LeaseEvent::Upsert(found) = watcher.next().await else { panic!("{field}: {:?}", watcher.seen) };
        assert_eq!(found.key, lease.key, "{field}");
        let names = |gap: &Option<String>| {
            gap.as_ref()
                .is_some_and(|gap| gap.contains(&name) && gap.ends_with(&format!("{field} is missing")))
        };
        let both = field == "BackendType";
        let gaps = &found.gaps;
        assert_eq!(
            names(&gaps.ipv4),
            both || !field.contains("v6") && !field.contains("V6"),
            "{field}: {gaps:?}"
        );
        assert_eq!(
            names(&gaps.ipv6),
            both || field.contains("v6") || field.contains("V6"),
            "{field}: {gaps:?}"
        );
    }
    harness.put(&name, &lease.attributes.to_json().unwrap()).await;
    let LeaseEvent::Upsert(found) = watcher.next().await else { panic!("{:?}", watcher.seen) };
    assert!(found.gaps.is_empty() && found.attributes == lease.attributes, "{found:?}");
    // The backends `udp` and `alloc` publish an address alone.
    harness.put("10.244.200.0-24", r#"{"PublicIP":"192.0.0.9"}"#).await;
    let LeaseEvent::Upsert(found) = watcher.next().await else { panic!("{:?}", watcher.seen) };
    assert!(found.gaps.is_empty(), "{found:?}");
}

pub async fn a_node_publishes_its_lease_again_when_another_hand_damages_it<H: Harness>(harness: H) {
    let dual = LeaseRequest { range: with_v6(range_v4(), 9), ..request(node_v6(1, true)) };
    for (wanted, fields) in [(request(node(2)), &FIELDS[..2]), (dual, &FIELDS[..])] {
        let store = harness.open(quick()).await;
        let lease = store.acquire(&wanted).await.unwrap();
        let name = lease.key.to_string();
        let held = tokio::spawn(async move { store.hold().await });
        for damaged in fields.iter().map(|field| without(&lease.attributes, field)).chain(["{bad".to_owned()])
        {
            harness.put(&name, &damaged).await;
            within("the lease again", async {
                while harness.read(&name).await != Some(lease.attributes.to_json().unwrap()) {
                    assert!(!held.is_finished(), "lost: {damaged}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
        assert!(!held.is_finished());
        held.abort();
    }
}

pub async fn an_outage_removes_nobody_and_ends_in_a_catch_up<H: Harness>(harness: H) {
    let store = harness.open(quick()).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let observer = harness.open(quick()).await;
    let gone = harness.open(quick()).await.acquire(&request(node(2))).await.unwrap();
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced()).await;
    let held = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.hold().await }
    });
    harness
        .away(async {
            watcher.listen(Duration::from_secs(3)).await;
            let wanted = request(node(1));
            match tokio::time::timeout(Duration::from_secs(15), store.acquire(&wanted)).await {
                Ok(Err(error)) => assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error:?}"),
                other => panic!("a store that is away must refuse in bounded time: {other:?}"),
            }
            assert!(H::READABLE_WHILE_AWAY || store.health().borrow().last_error.is_some());
        })
        .await;
    assert_eq!(watcher.table.len(), 2, "{:?}", watcher.seen);
    harness.delete(&gone.key.to_string()).await;
    // By node: it may get the subnet that has become free.
    harness.open(quick()).await.acquire(&request(node(3))).await.unwrap();
    watcher
        .until("what was missed", |table| {
            let has = |node| table.peers().any(|(_, found)| *found == node);
            !has(node(2)) && has(node(3))
        })
        .await;
    assert!(watcher.table.peer(lease.key).is_some());
    assert!(!held.is_finished(), "an outage is no loss");
    assert_eq!(observer.health().borrow().last_error, None);
    held.abort();
}

pub async fn a_wiped_store_fills_again_without_anybody_being_forgotten<H: Harness>(harness: H) {
    // The node is back in this time also on a busy machine.
    let timing = Timing { settle: Duration::from_secs(12), ..quick() };
    let store = harness.open(timing).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let dead = harness.open(timing).await.acquire(&request(node(2))).await.unwrap();
    let observer = harness.open(timing).await;
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced() && table.len() == 2).await;
    harness.wipe().await;
    watcher.listen(Duration::from_secs(2)).await;
    assert!(watcher.table.peer(lease.key).is_some() && watcher.table.peer(dead.key).is_some());
    let holder = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let lost = store.hold().await;
            let again = LeaseRequest { previous: Some(lease.key), ..request(node(1)) };
            (lost, store.acquire(&again).await.unwrap().key)
        }
    });
    let (lost, again) = within("registering again", holder).await.unwrap();
    assert_eq!((lost, again), (LeaseLost::Revoked(lease.key), lease.key));
    let new = harness.open(timing).await.acquire(&request(node(3))).await.unwrap();
    watcher.until("a lease of the new store", |table| table.peer(new.key).is_some()).await;
    watcher.until("the dead node forgotten", |table| table.peer(dead.key).is_none()).await;
    assert!(watcher.table.peer(lease.key).is_some() && watcher.table.peer(new.key).is_some());
    assert!(!watcher.seen.contains(&format!("-{}", lease.key)), "{:?}", watcher.seen);
}

pub async fn after_churn_every_watcher_agrees_with_the_store<H: Harness>(harness: H) {
    let harness = Arc::new(harness);
    let stores = [harness.open(quick()).await, harness.open(quick()).await];
    let mut watchers = stores.each_ref().map(Watcher::start);
    let churn = (0..4).map(|lane: u16| {
        let harness = Arc::clone(&harness);
        tokio::spawn(async move {
            for n in 0..8 {
                let store = harness.open(quick()).await;
                let lease = store.acquire(&request(node(lane * 100 + n))).await.unwrap();
                let changed = LeaseAttributes {
                    backend_type: BackendType::HostGw,
                    backend_data: None,
                    ..node(lane * 100 + n)
                };
                store.update(&changed).await.unwrap();
                if n % 2 == 0 {
                    harness.delete(&lease.key.to_string()).await;
                }
            }
        })
    });
    for lane in churn.collect::<Vec<_>>() {
        within("churn", lane).await.unwrap();
    }
    for watcher in &mut watchers {
        watcher
            .until("the final state", |table| {
                table.len() == 16 && table.peers().all(|(_, attributes)| attributes.backend_data.is_none())
            })
            .await;
    }
}
