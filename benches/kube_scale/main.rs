//! Kubernetes at scale: what following n nodes costs the API server and the daemon, beside upstream's daemon.
//!
//! A real API server where `KUBEBUILDER_ASSETS` names one (`scripts/build-kube`), upstream's flanneld where
//! `scripts/build-upstream` has left it. Bytes are those that `eth0` of a daemon's node receives, with headers and TLS.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

mod cluster;
#[path = "../leasing/peers.rs"]
#[expect(dead_code, reason = "the bench of memory uses the rest")]
mod peers;

use std::cell::Cell;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use cluster::{Cluster, name};
use flannel_benches::{OURS, Report, quick, release_binary, upstream_binary};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use peers::{NET_CONF, SOON, forget, resident_mib, subnet};
use testkit::{Daemon, Flannel, Lab, Node};

/// Daemons that start at once.
const TEN: usize = 10;
/// Daemons that start at once after a power cut.
const HERD: usize = 200;
/// Pause between two counts of the routes of a daemon, which take a processor up to a millisecond.
const PAUSE: Duration = Duration::from_millis(10);

fn main() {
    // `cargo bench -p flannel-benches --bench kube_scale -- 5000 herd` measures that size, with the herd.
    let arguments: Vec<String> = std::env::args().collect();
    let mut sizes: Vec<u32> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let herd = sizes.is_empty() || arguments.iter().any(|argument| argument == "herd");
    if sizes.is_empty() {
        sizes = if quick() { vec![200] } else { vec![1_000, 5_000] };
    }
    let mut report = Report::new("kube_scale", "");
    for n in &sizes {
        let mut lab = Lab::new().unwrap();
        let cluster = Cluster::start(&lab, *n);
        report.title = format!(
            "Daemons among n Kubernetes nodes of 12 KB on {}: start without device, rules and memory until all peers are \
             programmed; then heartbeats of kubelets, and new nodes. Each figure is for one daemon.",
            cluster.kind()
        );
        let mut bench = Bench {
            report: &mut report,
            n: *n,
            idle: idle(&cluster),
            cluster,
            nodes: Vec::new(),
            reports: Cell::default(),
        };
        bench.grow(&mut lab, TEN);
        let alone = bench.heartbeats();
        let rivals = [Some((OURS, release_binary())), upstream_binary().map(|binary| ("upstream", binary))];
        for (case, binary) in rivals.into_iter().flatten() {
            let flannel = Flannel::new(&lab, binary, NET_CONF).unwrap().store(bench.cluster.argument());
            bench.measure(case, &flannel.arg("--kube-subnet-mgr"), alone);
        }
        if herd && sizes.last() == Some(n) {
            bench.grow(&mut lab, if quick() { 20 } else { HERD });
            let flannel =
                Flannel::new(&lab, release_binary(), NET_CONF).unwrap().store(bench.cluster.argument());
            bench.herd(&flannel.arg("--kube-subnet-mgr"));
        }
    }
    report.write().unwrap();
}

/// CPU time of a process so far, of threads that have ended too.
fn cpu_of(pid: u32) -> Duration {
    let clock: ClockId = clock_getcpuclockid(Pid::from_raw(pid.try_into().unwrap())).unwrap();
    clock.now().unwrap().into()
}

#[expect(clippy::disallowed_methods, reason = "time that is measured, or between two looks at a condition")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Share of a processor that the API server takes for itself.
fn idle(cluster: &Cluster) -> f64 {
    const TIME: Duration = Duration::from_secs(5);
    let before = cluster.cpu();
    pause(TIME);
    let spent = cluster.cpu().zip(before).map(|(after, before)| after - before);
    spent.map_or(0.0, |spent| spent.as_secs_f64() / TIME.as_secs_f64())
}

/// Bytes that `eth0` of a node has received so far.
fn received(node: &Node) -> f64 {
    let text = node.namespace().enter(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whether the daemon has routes to so many peers.
fn has_peers(daemon: &Daemon, count: u32) -> bool {
    let read = |file: &str| {
        let path = format!("/proc/{}/net/{file}", daemon.pid().unwrap());
        fs::read_to_string(path).unwrap_or_default()
    };
    // Counting prefixes costs the kernel less than printing routes.
    let prefixes = read("fib_triestat")
        .lines()
        .find_map(|line| line.trim().strip_prefix("Prefixes:")?.trim().parse().ok());
    let count = usize::try_from(count).unwrap();
    prefixes.is_some_and(|prefixes: usize| prefixes >= count)
        && read("route").lines().filter(|line| line.starts_with("flannel.1")).count() >= count
}

fn count(quick_count: u32, full: u32) -> u32 {
    if quick() { quick_count } else { full }
}

struct Bench<'a> {
    report: &'a mut Report,
    n: u32,
    cluster: Cluster,
    /// See [`idle`].
    idle: f64,
    /// Those with daemons: the first of the cluster.
    nodes: Vec<Node>,
    /// How often kubelets have reported.
    reports: Cell<u32>,
}

/// What was so far.
struct Meter {
    begun: Instant,
    server: Option<Duration>,
    received: Vec<f64>,
}

/// What some starts took, for each daemon.
#[derive(Default)]
struct Starts {
    times_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
    received_mb: Vec<f64>,
    memory_mib: Vec<f64>,
    server_ms: Vec<f64>,
}

impl Bench<'_> {
    fn grow(&mut self, lab: &mut Lab, count: usize) {
        while self.nodes.len() < count {
            self.nodes.push(lab.add_node().unwrap());
        }
    }

    fn put(&mut self, what: &str, case: &str, unit: &str, values: &mut [f64]) {
        if !values.is_empty() {
            self.report.figure(what, case, self.n.into(), unit, values);
        }
    }

    fn put_starts(&mut self, how: &str, case: &str, mut starts: Starts) {
        self.put(&format!("{how}: exec to all programmed"), case, "ms", &mut starts.times_ms);
        self.put(&format!("{how}: CPU of the daemon"), case, "ms", &mut starts.cpu_ms);
        self.put(&format!("{how}: its resident memory, peak"), case, "MiB", &mut starts.memory_mib);
        self.put(&format!("{how}: bytes received"), case, "MB", &mut starts.received_mb);
        self.put(&format!("{how}: CPU of the API server"), case, "ms", &mut starts.server_ms);
    }

    fn meter(&self) -> Meter {
        let received = self.nodes.iter().map(received).collect();
        Meter { begun: Instant::now(), server: self.cluster.cpu(), received }
    }

    /// CPU time of the API server for what was done since then, in ms.
    fn server_ms(&self, since: &Meter) -> Option<f64> {
        let own = self.idle * since.begun.elapsed().as_secs_f64();
        let spent = self.cluster.cpu()?.checked_sub(since.server?)?;
        Some((spent.as_secs_f64() - own).max(0.0) * 1e3)
    }

    /// Bytes that each node has received since then.
    fn received(&self, since: &Meter) -> Vec<f64> {
        self.nodes.iter().zip(&since.received).map(|(node, before)| received(node) - before).collect()
    }

    fn measure(&mut self, case: &str, flannel: &Flannel, alone: Option<f64>) {
        let mut starts = Starts::default();
        // The first publishes what the node did not.
        drop(self.start(&mut Starts::default(), flannel, 1));
        for _ in 0..count(1, 3) {
            drop(self.start(&mut starts, flannel, 1));
        }
        self.put_starts("one client", case, starts);
        drop(self.start(&mut Starts::default(), flannel, TEN));
        let mut starts = Starts::default();
        let daemons = self.start(&mut starts, flannel, TEN);
        self.put_starts("ten at once", case, starts);

        let number = f64::from(heartbeats());
        let before: Vec<Duration> = daemons.iter().map(|daemon| cpu_of(daemon.pid().unwrap())).collect();
        let meter = self.meter();
        let server = self.heartbeats();
        let mut bytes: Vec<f64> = self.received(&meter).iter().map(|bytes| bytes / number).collect();
        let spent = daemons.iter().zip(before).map(|(daemon, before)| cpu_of(daemon.pid().unwrap()) - before);
        let mut cpu: Vec<f64> = spent.map(|spent| spent.as_secs_f64() * 1e6 / number).collect();
        self.put("a heartbeat: bytes received", case, "bytes", &mut bytes);
        self.put("a heartbeat: CPU of the daemon", case, "us", &mut cpu);
        if let Some((with, without)) = server.zip(alone) {
            let each = (with - without).max(0.0) * 1e3 / (number * f64::from(u32::try_from(TEN).unwrap()));
            self.put("a heartbeat: CPU of the API server", case, "us", &mut [each]);
        }
        let mut learned = self.learn();
        self.put("a new node: from the request until its route", case, "ms", &mut learned);
        let mut memory: Vec<f64> = daemons.iter().map(|daemon| resident_mib(daemon, "VmHWM:")).collect();
        self.put("resident memory after that, peak", case, "MiB", &mut memory);
    }

    /// Starts daemons at once on so many nodes and waits until each has a route to every other node.
    fn start(&self, starts: &mut Starts, flannel: &Flannel, count: usize) -> Vec<Daemon> {
        for node in self.nodes.iter().take(count) {
            forget(node);
        }
        let meter = self.meter();
        let mut daemons = Vec::new();
        for (own, node) in (1..).zip(self.nodes.iter().take(count)) {
            daemons.push((Instant::now(), flannel.clone().env("NODE_NAME", name(own)).start(node).unwrap()));
        }
        let mut missing: Vec<&(Instant, Daemon)> = daemons.iter().collect();
        while !missing.is_empty() {
            missing.retain(|(started, daemon)| {
                let there = has_peers(daemon, self.n - 1);
                if there {
                    starts.times_ms.push(started.elapsed().as_secs_f64() * 1e3);
                }
                !there
            });
            assert!(meter.begun.elapsed() < 5 * SOON, "{} daemons lack peers", missing.len());
            pause(PAUSE * u32::try_from(count).unwrap());
        }
        let number = f64::from(u32::try_from(count).unwrap());
        starts.server_ms.extend(self.server_ms(&meter).map(|server| server / number));
        starts.received_mb.extend(self.received(&meter).iter().take(count).map(|bytes| bytes / 1e6));
        for (_, daemon) in &daemons {
            starts.cpu_ms.push(cpu_of(daemon.pid().unwrap()).as_secs_f64() * 1e3);
            starts.memory_mib.push(resident_mib(daemon, "VmHWM:"));
        }
        daemons.into_iter().map(|(_, daemon)| daemon).collect()
    }

    /// Lets kubelets report. Returns the CPU time of the API server for it, in ms.
    fn heartbeats(&self) -> Option<f64> {
        let meter = self.meter();
        // Not of nodes with daemons, which read their own node.
        let first = u32::try_from(TEN).unwrap() + 1;
        let nodes: Vec<u32> = (first..=self.n).cycle().take(usize::try_from(heartbeats()).unwrap()).collect();
        for some in nodes.chunks(100) {
            // Each time differs, or a report would be no change.
            let second = self.reports.get();
            self.reports.set(second + 1);
            self.cluster.heartbeat(some, second);
        }
        pause(Duration::from_secs(1));
        self.server_ms(&meter)
    }

    /// Adds nodes one by one. Returns how long each took until the first daemon had the route, in ms.
    fn learn(&self) -> Vec<f64> {
        let mut command = Command::new("ip");
        command.args(["monitor", "route"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut monitor = self.nodes[0].namespace().spawn(&mut command).unwrap();
        let lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
        let (heard_tx, heard_rx) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                drop(heard_tx.send((Instant::now(), line)));
            }
        });
        let mut times = Vec::new();
        for extra in 0..count(3, 20) {
            let new = self.n + 1 + extra;
            let (subnet, begun) = (subnet(new).to_string(), Instant::now());
            self.cluster.add(&[new]);
            loop {
                let (heard, line) = heard_rx.recv_timeout(SOON).unwrap();
                if line.starts_with(&subnet) {
                    times.push(heard.duration_since(begun).as_secs_f64() * 1e3);
                    break;
                }
            }
            self.cluster.delete(new);
        }
        drop(monitor.kill());
        drop(monitor.wait());
        times
    }

    /// Starts a daemon on every node at once, as after a power cut; then restarts the API server.
    fn herd(&mut self, flannel: &Flannel) {
        // What its own start takes, without clients.
        let settle = Duration::from_secs(20);
        self.cluster.restart();
        pause(settle);
        let own = self.cluster.cpu();

        let count = self.nodes.len();
        let mut starts = Starts::default();
        let daemons = self.start(&mut starts, flannel, count);
        self.put_starts(&format!("{count} at once"), OURS, starts);

        let watches = self.cluster.watches();
        let lists = self.cluster.lists();
        let begun = Instant::now();
        self.cluster.restart();
        while self.cluster.watches() < watches + count {
            assert!(begun.elapsed() < 2 * SOON, "not every daemon watches again");
            pause(PAUSE);
        }
        let again = begun.elapsed();
        pause(settle.saturating_sub(again));
        let number = f64::from(u32::try_from(count).unwrap());
        let what = |of: &str| format!("restart of the API server with {count}: {of}");
        self.put(&what("until all watch again"), OURS, "s", &mut [again.as_secs_f64()]);
        if let Some((spent, own)) = self.cluster.cpu().zip(own) {
            let each = spent.saturating_sub(own).as_secs_f64() * 1e3 / number;
            self.put(&what("CPU of the API server"), OURS, "ms", &mut [each]);
        }
        if let Some((before, after)) = lists.zip(self.cluster.lists()) {
            let each = f64::from(u32::try_from(after - before).unwrap()) / number;
            self.put(&what("lists"), OURS, "requests", &mut [each]);
        }
        drop(daemons);
    }
}

/// Reports of kubelets that are measured.
fn heartbeats() -> u32 {
    count(100, 1_000)
}
