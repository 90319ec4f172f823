//! What only etcd can do to a lease store: TLS, users, members, compaction, and what upstream leaves in it.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flannel_lease::Chain;
use flannel_lease::etcd::{EtcdOptions, EtcdStore};
use flannel_lease::{LeaseAttributes, LeaseKey, LeaseStore, StoreErrorKind, Timing};
use tokio::sync::mpsc;

use crate::harness::cuttable::Cuttable;
use crate::harness::etcd::EtcdLab;
use flannel_lease::conformance::{self, Harness, Watcher, first_v4, key, node, quick, request, within};

fn store(options: &EtcdOptions) -> Arc<dyn LeaseStore> {
    Arc::new(EtcdStore::new(options, quick()).unwrap())
}

/// Turns on users, with one for flannel.
fn require_login(lab: &EtcdLab) -> impl Fn(&str, &str) -> EtcdOptions {
    for command in [
        "user add root:secret-of-root",
        "user grant-role root root",
        "role add flannel",
        "role grant-permission --prefix=true flannel readwrite /coreos.com/network/",
        "user add flannel:secret-of-flannel",
        "user grant-role flannel flannel",
        "auth enable",
    ] {
        lab.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    lab.ctl_as(&["--user=root:secret-of-root"]);
    let options = lab.options();
    move |name, password| EtcdOptions {
        username: Some(name.into()),
        password: Some(password.into()),
        ..options.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_expires_is_made_again_without_a_word() {
    let ttl = vec!["--auth-token-ttl=1".to_owned()];
    let lab = EtcdLab::start(tempfile::tempdir().unwrap(), "http", ttl, Vec::new()).await;
    let login = require_login(&lab);
    let store = store(&login("flannel", "secret-of-flannel"));
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;
    for data in [None, node(1).backend_data] {
        // A token that nobody uses lives for a second, and is looked for every second.
        watcher.listen(Duration::from_secs(3)).await;
        let changed = LeaseAttributes { backend_data: data, ..node(1) };
        within("a call", store.update(&changed)).await.unwrap();
        watcher.until("the update", |table| table.peer(lease.key) == Some(&changed)).await;
    }
    assert_eq!(watcher.seen.iter().filter(|event| *event == "resync").count(), 1, "{:?}", watcher.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_log_in_and_again_when_the_server_has_forgotten_them() {
    let lab = EtcdLab::new().await;
    let login = require_login(&lab);
    let right = login("flannel", "secret-of-flannel");
    assert!(!format!("{right:?}").contains("secret"));
    let first = store(&right);
    let lease = first.acquire(&request(node(1))).await.unwrap();
    let mut watcher = Watcher::start(&first);
    watcher.until("the listing", |table| table.synced()).await;

    for (options, advice) in [
        (login("flannel", "secret-but-wrong"), "--etcd-password"),
        (login("nobody", "secret-of-flannel"), "--etcd-username"),
        (lab.options(), "--etcd-username"),
        (EtcdOptions { prefix: "/elsewhere".into(), ..right.clone() }, "grant the user"),
    ] {
        let error = within("a refusal", store(&options).acquire(&request(node(2)))).await.unwrap_err();
        let text = format!("{} {error:?}", Chain(&error));
        assert!(text.contains(advice) && !text.contains("secret-"), "{text}");
        assert_eq!(error.kind, StoreErrorKind::Unusable, "{text}");
    }

    // Its tokens die with the server.
    lab.kill();
    lab.serve().await;
    let changed = LeaseAttributes { backend_data: None, ..node(1) };
    first.update(&changed).await.unwrap();
    watcher.until("the update", |table| table.peer(lease.key) == Some(&changed)).await;
}

/// What is missed while the cable is cut, with the history compacted or not, and the latest entry changed or not.
async fn catch_up(compact: bool, change_latest: bool) {
    let lab = EtcdLab::new().await;
    let cable = Cuttable::to(lab.address()).await;
    let gone = lab.open(quick()).await.acquire(&request(node(1))).await.unwrap();
    let store = store(&EtcdOptions { endpoints: vec![format!("http://{}", cable.address)], ..lab.options() });
    let own = store.acquire(&request(node(2))).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced() && table.len() == 2).await;

    cable.set_cut(true).await;
    lab.delete(&gone.key.to_string()).await;
    // By node below: it may get the subnet that has become free.
    lab.open(quick()).await.acquire(&request(node(3))).await.unwrap();
    let latest = LeaseAttributes { backend_data: None, ..node(2) };
    if change_latest {
        lab.put(&own.key.to_string(), &latest.to_json().unwrap()).await;
    }
    if compact {
        let status = lab.ctl(&["get", "x", "-w", "fields"]);
        let revision = status.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).unwrap();
        lab.ctl(&["compact", revision]);
    }
    watcher.listen(Duration::from_secs(1)).await;
    assert_eq!(watcher.table.len(), 2, "{:?}", watcher.seen);
    let mut health = store.health();
    within("the failure", health.wait_for(|health| health.last_error.is_some())).await.unwrap();
    cable.set_cut(false).await;

    let expected = if change_latest { latest } else { node(2) };
    watcher
        .until("what was missed", |table| {
            let has = |node| table.peers().any(|(_, found)| *found == node);
            !has(node(1)) && has(node(3)) && table.peer(own.key) == Some(&expected)
        })
        .await;
    assert!(!watcher.seen.contains(&format!("-{}", own.key)), "{:?}", watcher.seen);
    let resynced = watcher.seen.iter().filter(|event| *event == "resync").count();
    assert_eq!(resynced, if compact || change_latest { 2 } else { 1 }, "{:?}", watcher.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_watch_is_resumed_where_it_was() {
    catch_up(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_history_is_made_up_for_by_a_listing() {
    catch_up(true, false).await;
    catch_up(true, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_leases_cost_no_call_each() {
    let lab = EtcdLab::new().await;
    let count = 5100_u32; // more than one page
    for chunk in (0..count).collect::<Vec<_>>().chunks(120) {
        let mut script = String::from("\n");
        for n in chunk {
            let [.., high, low] = n.to_be_bytes();
            let path = EtcdLab::path(&format!("10.{high}.{low}.0-24"));
            let json = format!(r#"{{"PublicIP":"172.16.{high}.{low}","PublicIPv6":null}}"#);
            writeln!(script, "put {path} {json:?}").unwrap();
        }
        script.push_str("\n\n");
        let file = lab.dir.path().join("txn");
        std::fs::write(&file, script).unwrap();
        let status = std::process::Command::new("sh")
            .args(["-c", &format!("{} txn < {} > /dev/null", lab.ctl_command(), file.display())])
            .status();
        assert!(status.unwrap().success());
    }
    let before = ["Range", "LeaseTimeToLive", "Txn", "LeaseGrant"].map(|method| lab.calls(method));
    let store = lab.open(Timing::default()).await;
    let range = conformance::with_v6(first_v4(1), 1);
    let wanted = flannel_lease::LeaseRequest {
        range: flannel_lease::AllocationRange { v4: None, ..range },
        ..request(conformance::node_v6(1, false))
    };
    assert_eq!(store.find(&wanted.attributes).await.unwrap(), None);
    let own = store.acquire(&wanted).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("all leases", |table| table.synced()).await;
    assert_eq!(watcher.table.len(), 5101);
    lab.put("10.250.0.0-24", &node(9).to_json().unwrap()).await;
    watcher.until("one more", |table| table.len() == 5102).await;
    let after = ["Range", "LeaseTimeToLive", "Txn", "LeaseGrant"].map(|method| lab.calls(method));
    let spent: Vec<_> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    // Two listings of two pages, in search of a lease and to follow them all; one lease; nothing for the change.
    assert_eq!(spent, [4, 0, 1, 1], "{}", own.key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_upstream_left_in_etcd_is_seen_and_taken_over_byte_for_byte() {
    let lab = EtcdLab::new().await;
    let dump = include_str!("../golden/lease/vxlan-dualstack-nft.txt");
    let mut lines = dump.lines();
    let mut leases = Vec::new();
    while let Some((path, value)) = lines.next().zip(lines.next()) {
        lab.ctl(&["put", path, "--", value]);
        leases.extend(path.strip_prefix("/coreos.com/network/subnets/").map(|key| (key, value)));
    }
    let store = Arc::new(EtcdStore::new(&lab.options(), quick()).unwrap());
    assert!(store.config().await.unwrap().contains("\"EnableIPv6\": true"));
    let dynamic: Arc<dyn LeaseStore> = store;
    let mut watcher = Watcher::start(&dynamic);
    watcher.until("the listing", |table| table.synced()).await;
    assert_eq!(watcher.table.len(), 3);
    for (text, value) in leases {
        let attributes = watcher.table.peer(key(text)).unwrap().clone();
        // Our node in the place of the upstream one: same key, same bytes.
        let wanted = flannel_lease::LeaseRequest {
            range: conformance::with_v6(conformance::range_v4(), 0xffff),
            ..request(attributes)
        };
        let own = lab.open(quick()).await.acquire(&wanted).await.unwrap();
        assert_eq!(own.key.to_string(), text);
        assert_eq!(lab.read(text).await.as_deref(), Some(value));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_upstream_renewed_for_this_node_is_held_on() {
    let lab = EtcdLab::new().await;
    let timing = Timing { ttl: Duration::from_secs(60), renew_margin: Duration::from_secs(15), ..quick() };
    let store = lab.open(timing).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let held = tokio::spawn(async move { store.hold().await });
    // What upstream's renewal does: another etcd lease, the same contents.
    let granted = lab.ctl(&["lease", "grant", "20"]);
    let id = granted.split(' ').nth(1).unwrap();
    let json = node(1).to_json().unwrap();
    lab.ctl(&["put", &format!("--lease={id}"), &EtcdLab::path(&lease.key.to_string()), "--", &json]);
    within("a renewal", async {
        let mut least = u32::MAX;
        loop {
            // lease 2be7547fbc6a5afa granted with TTL(20s), remaining(19s)
            let shown = lab.ctl(&["lease", "timetolive", id]);
            let remaining = shown.split("remaining(").nth(1).and_then(|text| text.split('s').next());
            let remaining = remaining.unwrap_or_else(|| panic!("{shown}")).parse().unwrap();
            if remaining > least {
                return;
            }
            least = remaining;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(!held.is_finished());
    assert_eq!(lab.read(&lease.key.to_string()).await, Some(json));
    held.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_lease_is_told_also_when_it_is_taken_again_or_made_a_reservation() {
    let lab = EtcdLab::new().await;
    let timing = Timing { ttl: Duration::from_secs(60), renew_margin: Duration::from_secs(1), ..quick() };
    let store = lab.open(timing).await;
    let mut health = store.health();
    let (request, path) = (request(node(1)), |key: LeaseKey| EtcdLab::path(&key.to_string()));
    let mut told = async |expires: Option<SystemTime>| {
        within("the end of the lease", health.wait_for(|health| health.lease_expires == expires))
            .await
            .unwrap();
    };

    let first = store.acquire(&request).await.unwrap();
    let holder = Arc::clone(&store);
    let held = tokio::spawn(async move { holder.hold().await });
    told(first.expires).await;
    lab.ctl(&["del", &path(first.key)]);
    within("the loss", held).await.unwrap();

    let second = store.acquire(&request).await.unwrap();
    assert!(second.expires > first.expires);
    let holder = Arc::clone(&store);
    let held = tokio::spawn(async move { holder.hold().await });
    told(second.expires).await;
    lab.ctl(&["put", &path(second.key), "--", &node(1).to_json().unwrap()]);
    told(None).await;
    held.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_somebody_made_unreadable_is_written_again_so_that_a_new_start_finds_it() {
    let lab = EtcdLab::new().await;
    let store = lab.open(quick()).await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let name = lease.key.to_string();
    let held = tokio::spawn(async move { store.hold().await });
    for garbage in ["", "not JSON", "[]"] {
        lab.ctl(&["put", "--ignore-lease", &EtcdLab::path(&name), "--", garbage]);
        within("the lease again", async {
            while lab.read(&name).await != Some(node(1).to_json().unwrap()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    assert!(!held.is_finished());
    held.abort();
    assert_eq!(lab.open(quick()).await.acquire(&request(node(1))).await.unwrap().key, lease.key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_is_awaited_and_followed() {
    let lab = EtcdLab::new().await;
    let store = Arc::new(EtcdStore::new(&lab.options(), quick()).unwrap());
    let error = store.config().await.unwrap_err();
    assert!(error.to_string().contains("flannel config not found in etcd store"), "{error}");
    let (sender, mut configs) = mpsc::channel(4);
    tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.watch_config(sender).await }
    });
    let mut next = async || within("the configuration", configs.recv()).await.unwrap();
    assert!(next().await.unwrap_err().to_string().contains("flannel config not found in etcd store"));
    for text in ["{\"Network\":\"10.1.0.0/16\"}", "{\"Network\":\"10.2.0.0/16\"}"] {
        lab.ctl(&["put", "/coreos.com/network/config", "--", text]);
        assert_eq!(next().await.unwrap(), text);
    }
    lab.ctl(&["del", "/coreos.com/network/config"]);
    assert!(next().await.is_err());
    // A server that was away has nothing new to say about it.
    lab.kill();
    lab.serve().await;
    lab.ctl(&["put", "/coreos.com/network/config", "--", "back"]);
    assert_eq!(next().await.unwrap(), "back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_away_at_start_is_waited_for_and_said() {
    let lab = EtcdLab::new().await;
    lab.kill();
    let store = lab.open(quick()).await;
    let mut watcher = Watcher::start(&store);
    let error = within("a refusal", store.acquire(&request(node(1)))).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert!(error.to_string().contains(&lab.url()), "{error}");
    assert!(store.health().borrow().last_error.as_ref().is_some_and(|error| error.contains(&lab.url())));
    lab.serve().await;
    let lease = store.acquire(&request(node(1))).await.unwrap();
    watcher.until("the lease", |table| table.peer(lease.key).is_some() && table.synced()).await;
    assert!(matches!(watcher.seen.first().map(String::as_str), Some("resync")), "{:?}", watcher.seen);
}
