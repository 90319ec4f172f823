//! The lease file shared by processes: killed ones, and files that are not fit to be one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flannel_lease::LeaseEvent;
use flannel_lease::sqlite::SqliteStore;
use flannel_lease::{Chain, Lease, LeaseStore, StoreError, StoreErrorKind, Timing};

use crate::harness::sqlite::SqliteLab;
use flannel_lease::conformance::{Harness, TIMEOUT, Watcher, first_v4, node, quick, request, within};

/// Tells [`a_process`] which lease file and node it is.
const FILE: &str = "LEASE_TEST_FILE";
const NODE: &str = "LEASE_TEST_NODE";

/// Not a test: this program again, as a node that takes a lease, prints it and waits to be killed.
#[test]
#[ignore = "run by the tests below in a process of its own"]
fn a_process() {
    let Some((file, n)) = std::env::var_os(FILE).zip(std::env::var_os(NODE)) else { return };
    let n: u16 = n.to_str().unwrap().parse().unwrap();
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    run(async {
        let store = SqliteStore::open(Path::new(&file), quick()).await.unwrap();
        loop {
            let wanted = flannel_lease::LeaseRequest { range: first_v4(40), ..request(node(n)) };
            let lease = store.acquire(&wanted).await.unwrap();
            println!("\nlease {}", lease.key);
            // A change each time, so that there is always a transaction to be killed in.
            let mut other = node(n);
            other.backend_data = None;
            store.update(&other).await.unwrap();
        }
    });
}

fn process(file: &Path, n: u16) -> (Child, impl FnMut() -> String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::a_process", "--ignored", "--nocapture"])
        .envs([(FILE, file.as_os_str()), (NODE, n.to_string().as_ref())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lease = move || {
        let line =
            lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("lease "))).unwrap().unwrap();
        line.trim_start_matches("lease ").to_owned()
    };
    (child, lease)
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    within("opening", SqliteStore::open(path, Timing::default())).await
}

#[test]
fn processes_at_once_get_different_subnets_even_on_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leases.db");
    let mut nodes: Vec<_> = (0..12).map(|n| process(&file, n)).collect();
    let keys: BTreeMap<String, usize> =
        nodes.iter_mut().enumerate().map(|(n, (_, lease))| (lease(), n)).collect();
    nodes.into_iter().for_each(|(child, _)| kill(child));
    assert_eq!(keys.len(), 12, "{keys:?}");
}

#[test]
fn kill_minus_nine_never_makes_two_owners_nor_loses_a_lease() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leases.db");
    let mut known: BTreeMap<u16, String> = BTreeMap::new();
    for round in 0..25 {
        let nodes: Vec<_> =
            (0..3).map(|lane| (lane * 8 + round % 8, process(&file, lane * 8 + round % 8))).collect();
        for (n, (child, mut lease)) in nodes {
            let key = lease();
            if let Some(before) = known.insert(n, key.clone()) {
                assert_eq!(before, key, "node {n} was given another lease");
            }
            // Somewhere in the middle of what it is doing.
            std::thread::park_timeout(Duration::from_micros(u64::from(rand::random::<u16>()) / 8));
            kill(child);
        }
        let owners: std::collections::BTreeSet<_> = known.values().collect();
        assert_eq!(owners.len(), known.len(), "two owners: {known:?}");
    }
    let store = run(open(&file)).unwrap();
    for (n, key) in known {
        assert_eq!(run(store.find(&node(n))).unwrap().unwrap().key.to_string(), key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_hears_of_a_change_long_before_its_next_check() {
    let lab = SqliteLab::new().await;
    let slow = Timing { recheck: Duration::from_secs(600), ..Timing::default() };
    let observer = lab.open(slow).await;
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced()).await;
    assert!(TIMEOUT < slow.recheck / 2);
    for n in 0..10 {
        let store = lab.open(slow).await;
        store.acquire(&request(node(n))).await.unwrap();
        watcher.next().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_by_hand_is_seen_at_the_next_recheck_and_exactly() {
    let lab = SqliteLab::new().await;
    let observer = lab.open(quick()).await;
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced()).await;
    lab.put("10.244.7.0-24", &node(7).to_json().unwrap()).await;
    let LeaseEvent::Upsert(Lease { attributes, .. }) = watcher.next().await else {
        panic!("{:?}", watcher.seen)
    };
    assert_eq!(attributes, node(7));
    lab.connection().execute("DELETE FROM lease", []).unwrap();
    assert!(matches!(watcher.next().await, LeaseEvent::Remove(_)), "{:?}", watcher.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_no_leases_delay_nobody() {
    let lab = SqliteLab::new().await;
    let observer = lab.open(quick()).await;
    let mut watcher = Watcher::start(&observer);
    watcher.until("the listing", |table| table.synced()).await;
    let json = node(7).to_json().unwrap();
    let huge = format!(r#"{{"PublicIP":"192.0.2.8","BackendType":"{}"}}"#, "x".repeat(1 << 20));
    let all = "INSERT INTO lease (key, attributes, expires_ms) VALUES
        (x'ff00', '{}', NULL), (CAST(x'3130ff' AS TEXT), '{}', NULL), ('', '', 0.5), (char(10), '{}', NULL),
        ('10.244.8.0-24', ?1, x'00'), ('10.244.9.0-24', x'7bff', 'tomorrow'), ('10.244.10.0-24', ?2, NULL)";
    lab.connection().execute(all, [&json, &huge]).unwrap();
    lab.put("10.244.7.0-24", &json).await;
    let has = |table: &flannel_lease::LeaseTable| table.peers().count();
    watcher.until("the one that is a lease", |table| has(table) == 1).await;
    // Going away, they harm as little; nor does somebody who comes while they are there.
    let late = lab.open(quick()).await;
    let mut second = Watcher::start(&late);
    second.until("the listing", |table| table.synced() && has(table) == 1).await;
    lab.connection().execute("DELETE FROM lease", []).unwrap();
    watcher.until("nothing", |table| has(table) == 0).await;
    second.until("nothing", |table| has(table) == 0).await;
}

#[tokio::test]
async fn a_path_that_is_no_lease_file_is_refused_with_advice_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(
        path("text"),
        "a text file, long enough to be looked at as a database header, or not\n".repeat(50),
    )
    .unwrap();
    let other = rusqlite::Connection::open(path("other")).unwrap();
    other.execute_batch("CREATE TABLE things (x); INSERT INTO things VALUES (1)").unwrap();
    drop(open(&path("newer")).await.unwrap());
    rusqlite::Connection::open(path("newer")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for (file, expected) in [
        (dir.path().to_owned(), "is a directory"),
        (path("none/leases.db"), "directory does not exist"),
        (path("text"), "not an SQLite database"),
        (path("other"), "another program"),
        (path("newer"), "another version"),
        (PathBuf::from("/proc/leases.db"), "cannot be opened"),
    ] {
        let before = std::fs::read(&file).ok();
        let error = open(&file).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(file.to_str().unwrap()), "{text}");
        assert_eq!(error.kind, StoreErrorKind::Unusable, "{text}");
        assert_eq!(std::fs::read(&file).ok(), before, "{text}");
    }
    let things: i64 = other.query_row("SELECT count(*) FROM things", [], |row| row.get(0)).unwrap();
    assert_eq!(things, 1);
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_advice() {
    let lab = SqliteLab::new().await;
    for n in 0..200 {
        lab.open(quick()).await.acquire(&request(node(n))).await.unwrap();
    }
    let mut bytes = std::fs::read(lab.path()).unwrap();
    let page = 4096;
    assert!(bytes.len() > 6 * page);
    for number in 2..bytes.len() / page {
        bytes[number * page..number * page + 64].fill(0xff);
    }
    std::fs::write(lab.path(), &bytes).unwrap();
    let error = open(&lab.path()).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(std::fs::read(lab.path()).unwrap(), bytes);
}

#[tokio::test]
async fn a_file_locked_for_good_is_an_error_after_a_bounded_wait() {
    let lab = SqliteLab::new().await;
    let store = lab.open(quick()).await;
    let lock = lab.connection();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = within("a refusal", store.acquire(&request(node(1)))).await.unwrap_err();
    assert!(error.to_string().contains("another process keeps it locked"), "{error}");
    lock.execute_batch("ROLLBACK").unwrap();
    store.acquire(&request(node(1))).await.unwrap();
}

/// Not a test: this program again, in a mount namespace with a tiny file system at `/mnt`, full, then read-only.
#[test]
#[ignore = "run by the test below in a mount namespace of its own"]
fn in_a_tiny_file_system() {
    let Some(file) = std::env::var_os(FILE).map(PathBuf::from) else { return };
    run(async {
        let store = open(&file).await.unwrap();
        let first = store.acquire(&request(node(1))).await.unwrap();
        let filler = file.with_file_name("filler");
        while std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&filler)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 4096]))
            .is_ok()
        {}
        let mut n = 2;
        let error = loop {
            match open(&file).await.unwrap().acquire(&request(node(n))).await {
                Ok(_) => n += 1,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("file system is full"), "{error}");
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert_eq!(store.find(&node(1)).await.unwrap().unwrap().key, first.key);
        std::fs::remove_file(filler).unwrap();
        store.acquire(&request(node(1))).await.unwrap();
        let last = store.find(&node(n - 1)).await.unwrap().unwrap();
        assert_eq!(last.attributes, node(n - 1));
        drop(store);

        let mount = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(None::<&str>, "/mnt", None::<&str>, mount, None::<&str>).unwrap();
        let error = open(&file).await.unwrap_err();
        assert!(error.to_string().contains("its file system is read-only"), "{error}");
        assert_eq!(error.kind, StoreErrorKind::Unusable);
        let absent = open(&file.with_file_name("absent.db")).await.unwrap_err();
        assert!(absent.to_string().contains("its file system is read-only"), "{absent}");

        let few_inodes = Some("nr_inodes=1");
        nix::mount::mount(None::<&str>, "/mnt", Some("tmpfs"), nix::mount::MsFlags::empty(), few_inodes)
            .unwrap();
        let error = open(&file).await.unwrap_err();
        assert!(error.to_string().contains("free space or inodes"), "{error}");
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
    });
    println!("\nall of it held");
}

/// Not a test: this program again, with few open files.
#[test]
#[ignore = "run by the test below with a limit of its own"]
fn with_few_open_files() {
    let Some(file) = std::env::var_os(FILE).map(PathBuf::from) else { return };
    run(async {
        let _warm = open(&file).await.unwrap();
        let mut held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        for free in 0..8 {
            if let Err(error) = open(&file).await {
                let text = Chain(&error).to_string();
                assert!(text.contains("ulimit -n") && text.contains("os error 24"), "{free} left: {text}");
                assert_eq!(error.kind, StoreErrorKind::Unavailable);
                println!("\nrefused with {free}");
            }
            held.pop().unwrap();
        }
        open(&file).await.unwrap();
    });
    println!("\nall of it held");
}

#[test]
fn a_limit_of_open_files_is_named_wherever_it_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "sqlite::with_few_open_files", "--ignored", "--nocapture"]);
    let output = command.env(FILE, folder.path().join("leases.db")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let held = text.contains("refused with 0") && text.contains("all of it held");
    assert!(held, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_path_that_is_too_long_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x".repeat(250));
    let error = run(open(&file)).unwrap_err();
    assert!(error.to_string().contains("shorten its path"), "{error}");
    assert_eq!(error.kind, StoreErrorKind::Unusable);
}

#[test]
fn a_full_and_a_read_only_file_system_are_errors_with_advice_and_nothing_is_lost() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root for a mount namespace");
        return;
    }
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=256k none /mnt && exec \"$0\" \"$@\"";
    command.args(["-m", "--propagation", "private", "sh", "-c", script]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "sqlite::in_a_tiny_file_system", "--ignored", "--nocapture"]);
    command.env(FILE, "/mnt/leases.db").process_group(0);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("all of it held"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn whatever_another_user_puts_in_place_of_the_notification_file_changes_no_other_file_and_the_lease_is_renewed()
 {
    let timing = Timing { ttl: Duration::from_secs(6), renew_margin: Duration::from_secs(5), ..quick() };
    for trap in [
        "ln -s victim leases.db-changed",
        "ln -s absent leases.db-changed",
        "ln victim leases.db-changed",
        "mkfifo leases.db-changed",
        "mkdir leases.db-changed",
        "touch leases.db-changed; chmod 400 leases.db-changed; chown 65534 leases.db-changed",
    ] {
        let lab = run(SqliteLab::new());
        let file = lab.path();
        let folder = file.parent().unwrap();
        std::fs::write(folder.join("victim"), "theirs").unwrap();
        let made = Command::new("sh").args(["-c", trap]).current_dir(folder).status().unwrap();
        if !made.success() {
            assert!(!nix::unistd::geteuid().is_root(), "{trap}");
            continue; // chown needs root
        }
        run(async {
            let store = lab.open(timing).await;
            let lease = store.acquire(&request(node(1))).await.unwrap();
            let renewed = async {
                let mut health = store.health();
                let renewed = health.wait_for(|health| health.lease_expires > lease.expires);
                within("a renewal", renewed).await.map(drop).unwrap();
            };
            tokio::select! {
                lost = store.hold() => panic!("{trap}: {lost}"),
                () = renewed => {}
            }
        });
        assert_eq!(std::fs::read_to_string(folder.join("victim")).unwrap(), "theirs", "{trap}");
        assert!(!folder.join("absent").exists(), "{trap}");
    }
}
