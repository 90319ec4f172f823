//! What a daemon holds of each peer, and what one lease more costs among many.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

#[path = "leasing/peers.rs"]
mod peers;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use flannel_benches::{OURS, Report, quick, release_binary};
use peers::{NET_CONF, Routes, SOON, add_leases, attributes, forget, resident_mib, subnet};
use rusqlite::Connection;
use testkit::{Daemon, Flannel, Lab, Node, wait_for};

fn main() {
    // `cargo bench -p flannel-benches --bench memory -- 10000` measures that size only, and keeps the report as it is.
    let chosen: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let all: &[u32] = if quick() { &[1_000] } else { &[1_000, 10_000, 100_000] };
    let mut report = Report::new(
        "memory",
        "One node among n whose leases are in the SQLite file: a start without device, rules and memory; then single leases more, \
         each from its commit until its route is there; then the state file is written. Bytes per peer are resident memory \
         beyond that of a daemon without peers.",
    );
    for n in if chosen.is_empty() { all } else { &chosen } {
        let mut lab = Lab::new().unwrap();
        let node = lab.add_node().unwrap();
        measure(&mut report, &lab, &node, *n);
        forget(&node);
    }
    if chosen.is_empty() {
        report.write().unwrap();
    }
}

fn measure(report: &mut Report, lab: &Lab, node: &Node, n: u32) {
    let flannel = Flannel::new(lab, release_binary(), NET_CONF).unwrap();
    let file = flannel.lease_file();
    let mut daemon = flannel.start(node).unwrap();
    daemon.ready(SOON).unwrap();
    let bare = resident_mib(&daemon, "VmRSS:");
    daemon.kill().unwrap();
    forget(node);
    let mut leases = Connection::open(&file).unwrap();
    add_leases(&mut leases, &file, 2..2 + n);

    let mut daemon = flannel.start(node).unwrap();
    daemon.ready(SOON).unwrap();
    let routes = node.namespace().sh("ip route show proto 70 | wc -l").unwrap();
    assert_eq!(routes.trim(), n.to_string(), "not every peer is programmed");
    let mut figure = |what: &str, unit: &str, values: &mut [f64]| {
        report.figure(what, OURS, u64::from(n), unit, values);
    };
    let mut resident = |when: &str, daemon: &Daemon| {
        let mib = resident_mib(daemon, "VmRSS:");
        figure(&format!("resident memory, {when}"), "MiB", &mut [mib]);
        figure(
            &format!("of that per peer, {when}"),
            "bytes",
            &mut [(mib - bare) * 1_048_576.0 / f64::from(n)],
        );
    };
    resident("all programmed", &daemon);

    let mut kernel = Routes::watch(node);
    let before = Passes::of(&daemon);
    let mut programmed = Vec::new();
    let rounds = if quick() { 100 } else { 1_000 };
    for peer in n + 10..n + 10 + rounds {
        let committed = add_leases(&mut leases, &file, peer..peer + 1);
        programmed.push((kernel.wait_for(&[subnet(peer)]) - committed).as_secs_f64() * 1e3);
    }
    let state = node.subnet_file().with_extension("state.json");
    let last = attributes(n + 9 + rounds);
    let mut seen = None;
    let written = || {
        let inode = fs::metadata(&state).map(|state| state.ino()).ok();
        let new = std::mem::replace(&mut seen, inode) != inode;
        (new && fs::read_to_string(&state).unwrap().contains(&last)).then_some(())
    };
    wait_for(SOON, written).expect("the last lease is in the state file");
    resident("state file written", &daemon);
    let mut peak = [resident_mib(&daemon, "VmHWM:")];
    figure("resident memory, peak", "MiB", &mut peak);
    figure("one lease more, from its commit until programmed", "ms", &mut programmed);
    let after = Passes::of(&daemon);
    let passes = after.all - before.all;
    figure(
        "of that in the reconciler, on average",
        "us",
        &mut [(after.seconds - before.seconds) / passes * 1e6],
    );
    figure("of these passes took 0.1 ms at most", "%", &mut [(after.quick - before.quick) / passes * 100.0]);
    daemon.kill().unwrap();
}

/// Passes of the reconciler that wrote peers, as its metrics have them.
struct Passes {
    all: f64,
    /// Of 0.1 ms at most.
    quick: f64,
    seconds: f64,
}

impl Passes {
    fn of(daemon: &Daemon) -> Self {
        // Right after the start the reconciler still hears of its own work.
        let page = wait_for(SOON, || daemon.page("/metrics").ok()).expect("the metrics are told");
        let value = |name: &str, labels: &str| {
            let name = format!("flanneld_reconcile_duration_seconds_{name}{{work=\"overlay\"{labels}");
            let line = page.lines().find(|line| line.starts_with(&name)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        Self { all: value("count", ""), quick: value("bucket", ",le=\"0.0001\""), seconds: value("sum", "") }
    }
}
