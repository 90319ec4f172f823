//! Leases in real stores: from exec until every peer is programmed, and from one changed lease to the kernel.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

#[path = "leasing/peers.rs"]
#[expect(dead_code, reason = "the bench of memory uses the rest")]
mod peers;
#[path = "leasing/stores.rs"]
mod stores;

use std::fs;

use flannel_benches::{OURS, Report, quick, release_binary};
use ipnet::IpNet;
use peers::{NET_CONF, Routes, SOON, forget, resident_mib, subnet};
use stores::{EtcdServer, FakeKubernetes, Store};
use testkit::{Daemon, Flannel, Lab, Node};

fn main() {
    // `cargo bench -p flannel-benches --bench leasing -- 10000` measures that size only.
    let mut sizes: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = if quick() { vec![1_000] } else { vec![1_000, 5_000, 10_000] };
    }
    let mut report = Report::new(
        "leasing",
        "One node among n whose leases are in etcd 3.4 (one server, no fsync) or on nodes of testkit's API server in memory: \
         start without device, rules and memory until all n peers are programmed; then one lease more, and 100 at once.",
    );
    for n in &sizes {
        let mut lab = Lab::new().unwrap();
        let node = lab.add_node().unwrap();
        measure(&mut report, &node, *n, &mut EtcdServer::start(&lab, *n), &lab);
        forget(&node);
        measure(&mut report, &node, *n, &mut FakeKubernetes::start(&lab, *n), &lab);
        forget(&node);
    }
    report.write().unwrap();
}

fn measure(report: &mut Report, node: &Node, n: u32, store: &mut impl Store, lab: &Lab) {
    let name = store.name();
    let binary = release_binary();
    let [first, second] = store.arguments();
    let flannel = Flannel::new(lab, &binary, NET_CONF).unwrap().store(first).arg(second);
    let flannel = flannel.env("NODE_NAME", FakeKubernetes::OWN);
    let rounds = if quick() { 2 } else { 5 };
    let (mut times, mut cpu, mut peak) = (Vec::new(), Vec::new(), Vec::new());
    let (mut calls, mut bytes) = (Vec::new(), Vec::new());
    let mut running = None;
    for round in 0..=rounds {
        drop(running.take());
        forget(node);
        let before = store.traffic();
        let mut daemon = flannel.start(node).unwrap();
        let time = daemon.ready(SOON).unwrap();
        let spent = cpu_ms(&daemon);
        let after = store.traffic();
        let routes = node.namespace().sh("ip route show proto 70 | wc -l").unwrap();
        assert_eq!(routes.trim(), n.to_string(), "{name}: not every peer is programmed");
        // The first makes the lease.
        if round > 0 {
            times.push(time.as_secs_f64() * 1e3);
            cpu.push(spent);
            peak.push(resident_mib(&daemon, "VmHWM:"));
            calls.push(after.0 - before.0);
            bytes.push((after.1 - before.1) / 1e6);
        }
        running = Some(daemon);
    }
    let mut put = |what: &str, unit: &str, values: &mut [f64]| {
        report.figure(&format!("{name}: {what}"), OURS, u64::from(n), unit, values);
    };
    put("exec to all programmed", "ms", &mut times);
    put("CPU of that", "ms", &mut cpu);
    put("resident memory, peak", "MiB", &mut peak);
    put("calls of a start", "calls", &mut calls);
    put("bytes received at a start", "MB", &mut bytes);

    let daemon = running.unwrap();
    let mut kernel = Routes::watch(node);
    let (mut notified, mut programmed) = (Vec::new(), Vec::new());
    let rounds = if quick() { 20 } else { 100 };
    let before = store.traffic();
    for extra in 0..=rounds {
        let subnet = subnet(n + 10 + extra);
        let changed = store.add(&[n + 10 + extra]);
        let there = kernel.wait_for(&[subnet]);
        if extra > 0 {
            programmed.push((there - changed).as_secs_f64() * 1e3);
            notified.extend(
                store.notified(subnet).map(|heard| heard.duration_since(changed).as_secs_f64() * 1e3),
            );
        }
    }
    let spent = (store.traffic().0 - before.0) / f64::from(rounds + 1);
    put("one lease more, until programmed", "ms", &mut programmed);
    if !notified.is_empty() {
        put("of that, until another client of the store hears of it", "ms", &mut notified);
    }
    put("calls for it", "calls", &mut [spent]);

    let mut batches = Vec::new();
    for batch in 0..if quick() { 3 } else { 10 } {
        let new: Vec<u32> = (0..100).map(|extra| n + 1_000 + batch * 100 + extra).collect();
        let subnets: Vec<IpNet> = new.iter().map(|peer| subnet(*peer)).collect();
        let changed = store.add(&new);
        batches.push((kernel.wait_for(&subnets) - changed).as_secs_f64() * 1e3);
    }
    put("100 leases more at once, until programmed", "ms", &mut batches);
    put("resident memory after that", "MiB", &mut [resident_mib(&daemon, "VmRSS:")]);
    daemon.kill().unwrap();
}

/// CPU time of a process's threads so far.
fn cpu_ms(daemon: &Daemon) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid().unwrap())).unwrap();
    let nanoseconds = tasks.map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    });
    nanoseconds.sum::<f64>() / 1e6
}
