//! What a daemon costs while nothing happens: processor, memory, wake-ups and calls to its store; and what a scrape costs.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

#[path = "leasing/peers.rs"]
#[expect(dead_code, reason = "the bench of leasing uses the rest")]
mod peers;
#[path = "leasing/stores.rs"]
#[expect(dead_code, reason = "the bench of leasing uses the rest")]
mod stores;

use std::fs;
use std::time::{Duration, Instant};

use flannel_benches::{OURS, Report, quick, release_binary};
use peers::{NET_CONF, SOON, add_leases};
use rusqlite::Connection;
use stores::{EtcdServer, FakeKubernetes, Store};
use testkit::{Daemon, Flannel, Lab, Node, wait_for};

const PEERS: u32 = 1_000;
/// After the start: until the state file is written and allocators have given back what they will.
const SETTLE: Duration = Duration::from_secs(30);
const SCRAPES: u32 = 200;

/// Counters of a process.
struct Cost {
    cpu_ms: f64,
    wakeups: f64,
    resident_kib: f64,
}

fn main() {
    let minutes: u32 = if quick() { 1 } else { 10 };
    let mut report = Report::new(
        "idle",
        &format!(
            "One node among 1 000 whose leases do not change, for {minutes} min: a daemon for each store, side by side. Share of one core; \
             memory at the end against the beginning; then /metrics, read by one client."
        ),
    );
    let mut lab = Lab::new().unwrap();
    let etcd = EtcdServer::start(&lab, PEERS);
    let kubernetes = FakeKubernetes::start(&lab, PEERS);
    let mut running: Vec<(&str, Option<&dyn Store>, Node, Daemon)> = Vec::new();
    let stores: [(&str, Option<&dyn Store>); 3] =
        [("etcd", Some(&etcd)), ("Kubernetes", Some(&kubernetes)), ("SQLite", None)];
    for (name, store) in stores {
        let node = lab.add_node().unwrap();
        let mut flannel = Flannel::new(&lab, release_binary(), NET_CONF).unwrap();
        match store {
            Some(store) => {
                let [first, second] = store.arguments();
                flannel = flannel.store(first).arg(second).env("NODE_NAME", FakeKubernetes::OWN);
            }
            None => lease_file(&flannel, &node),
        }
        let mut daemon = flannel.start(&node).unwrap();
        daemon.ready(SOON).unwrap();
        let all = || {
            let routes = node.namespace().sh("ip route show proto 70 | wc -l").unwrap();
            (routes.trim() == PEERS.to_string()).then_some(())
        };
        wait_for(SOON, all).expect("every peer is programmed");
        running.push((name, store, node, daemon));
    }
    pause(SETTLE);

    let traffic = |store: &Option<&dyn Store>| store.map(|store| store.traffic().0);
    let before: Vec<_> = running.iter().map(|(_, store, _, daemon)| (cost(daemon), traffic(store))).collect();
    let began = Instant::now();
    pause(Duration::from_secs(60) * minutes);
    let seconds = began.elapsed().as_secs_f64();
    let after: Vec<_> = running.iter().map(|(_, store, _, daemon)| (cost(daemon), traffic(store))).collect();

    let n = u64::from(PEERS);
    for ((name, _, _, daemon), ((before, calls_before), (after, calls))) in
        running.iter().zip(before.iter().zip(&after))
    {
        let mut put = |what: &str, unit: &str, value: f64| {
            report.figure(&format!("{name}: {what}"), OURS, n, unit, &mut [value]);
        };
        put("processor", "% of a core", (after.cpu_ms - before.cpu_ms) / 10.0 / seconds);
        put("wake-ups", "a second", (after.wakeups - before.wakeups) / seconds);
        put("resident memory", "MiB", after.resident_kib / 1024.0);
        put("growth of it", "KiB", after.resident_kib - before.resident_kib);
        if let Some((before, after)) = calls_before.zip(*calls) {
            // Asking for the number is a call too, of HTTP and not of the store.
            put("calls to the store", "a minute", (after - before) * 60.0 / seconds);
        }
        let start = cost(daemon);
        for _ in 0..SCRAPES {
            assert!(daemon.page("/metrics").unwrap().contains("flanneld_peers{state=\"programmed\"} 1000"));
        }
        let end = cost(daemon);
        put("one /metrics", "ms of CPU", (end.cpu_ms - start.cpu_ms) / f64::from(SCRAPES));
        put("growth of memory by 200 of them", "KiB", end.resident_kib - start.resident_kib);
    }
    report.write().unwrap();
}

/// Makes the lease file with [`PEERS`] leases in it.
fn lease_file(flannel: &Flannel, node: &Node) {
    let mut daemon = flannel.start(node).unwrap();
    daemon.ready(SOON).unwrap();
    daemon.kill().unwrap();
    let file = flannel.lease_file();
    add_leases(&mut Connection::open(&file).unwrap(), &file, 2..2 + PEERS);
}

#[expect(clippy::disallowed_methods, reason = "nothing is waited for but time")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// As the kernel counts it (proc(5)); processor time is that of threads which have ended too, in ticks of 10 ms.
fn cost(daemon: &Daemon) -> Cost {
    let pid = daemon.pid().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    let wakeups = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        switches.trim().parse::<f64>().unwrap()
    });
    let resident = u32::try_from(daemon.resident_kib().unwrap()).unwrap();
    Cost { cpu_ms: ticks * 10.0, wakeups: wakeups.sum(), resident_kib: f64::from(resident) }
}
