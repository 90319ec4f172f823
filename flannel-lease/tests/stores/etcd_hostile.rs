//! What an etcd may contain without harm to nodes that list and follow it.

use std::process::Command;

use flannel_lease::conformance::{Harness, Watcher, node, quick, request, within};

use crate::harness::etcd::EtcdLab;

/// Writes a value of a megabyte under each of these keys of `subnets/`.
fn put_megabytes(lab: &EtcdLab, keys: impl Iterator<Item = String>) {
    let file = lab.dir.path().join("megabyte");
    std::fs::write(&file, "x".repeat(1 << 20)).unwrap();
    let puts: String = keys
        .map(|key| {
            format!(
                "etcdctl --endpoints {} put '{}' < {} &&\n",
                lab.url(),
                EtcdLab::path(&key),
                file.display()
            )
        })
        .collect();
    let status = Command::new("sh").env("ETCDCTL_API", "3").args(["-c", &format!("{puts} true")]).status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_megabyte_hide_no_other_lease_from_a_listing_or_a_watch() {
    let lab = EtcdLab::new().await;
    let other = lab.open(quick()).await.acquire(&request(node(2))).await.unwrap();
    put_megabytes(&lab, (1..=70).map(|n| format!("10.250.{n}.0-24")));
    let store = lab.open(quick()).await;
    assert_eq!(store.find(&node(2)).await.unwrap().map(|lease| lease.key), Some(other.key));
    let own = within("a lease", store.acquire(&request(node(1)))).await.unwrap();
    assert_ne!(own.key, other.key);
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;
    assert_eq!(watcher.table.len(), 2, "{:?}", watcher.seen);
    assert_eq!(watcher.seen.iter().filter(|event| event.starts_with("?10.250.")).count(), 70);

    put_megabytes(&lab, (71..=90).map(|n| format!("10.250.{n}.0-24")));
    let new = lab.open(quick()).await.acquire(&request(node(3))).await.unwrap();
    watcher.until("one more", |table| table.peer(new.key).is_some()).await;
    assert_eq!(store.health().borrow().last_error, None);
}
