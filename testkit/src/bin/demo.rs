//! What `make demo` runs: a cluster on one machine, shown step by step. Exit status 1 if anything shown is not so.
//!
//! `demo [FLANNELD]`; the daemon may also be named by `FLANNELD_BIN`. `KEEP=1` leaves everything up at the end.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use testkit::{
    Daemon, Flannel, Lab, LabError, NewFlows, Node, Pod, RoundTrips, may_make_namespaces, wait_for,
};

/// How long a daemon may take to be ready, or a packet to find its way, before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// New flows per second during restarts.
const PER_SECOND: u32 = 4_000;
/// How long packets flow before and after each restart.
const AROUND: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    if let Err(error) = clean_up_when_interrupted() {
        return fail(&error);
    }
    if !may_make_namespaces() {
        return fail(&LabError::System {
            what: "make network namespaces: the demo needs root".to_owned(),
            source: io::ErrorKind::PermissionDenied.into(),
        });
    }
    let named = env::args_os().nth(1).or_else(|| env::var_os("FLANNELD_BIN"));
    let binary = named.map_or_else(|| PathBuf::from("target/debug/flanneld"), PathBuf::from);
    let mut show = Show::new();
    match demo(&mut show, binary) {
        Err(error) => fail(&error),
        Ok(()) if show.untrue > 0 => {
            show.text(format!("\n{} of the above is not as it should be.", show.untrue));
            ExitCode::FAILURE
        }
        Ok(()) => {
            show.text("\nEverything above is so.");
            ExitCode::SUCCESS
        }
    }
}

fn demo(show: &mut Show, binary: PathBuf) -> Result<(), LabError> {
    show.title("Three nodes on a switch, and an outside host that knows no way to any pod");
    let mut lab = Lab::new()?;
    let flannel = Flannel::new(&lab, binary, Flannel::NET_CONF)?;
    let mut cluster = Vec::new();
    for _ in 0..3 {
        cluster.push(Member::join(&mut lab, &flannel)?);
    }
    for member in &mut cluster {
        member.add_pod()?;
    }
    show.text(format!(
        "  {:6} {:17} {:25} {:>5} {:>10} {:>10}",
        "node", "IPv4 pods", "IPv6 pods", "MTU", "ready in", "resident"
    ));
    for member in &cluster {
        member.show(show)?;
    }

    show.title("Every pod talks to every other");
    ping_matrix(show, &cluster)?;

    show.title("Outside, a pod's packets come from its node");
    for member in &cluster {
        for (target, node) in
            [(Lab::OUTSIDE_V4, IpAddr::V4(member.node.v4())), (Lab::OUTSIDE_V6, member.node.v6().into())]
        {
            let source = member.pod()?.seen_by(lab.outside(), target)?;
            show.check(source == node, format!("{} is seen as {source}", member.node.name()));
        }
    }

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        restart(show, &lab, &flannel, &mut cluster, signal)?;
    }

    show.title("A fourth node joins");
    let mut fourth = Member::join(&mut lab, &flannel)?;
    let overlay = fourth.node.subnet_env()?.ipv4_subnet.map(|subnet| IpAddr::V4(subnet.network()));
    for member in &cluster {
        let reached = match overlay {
            Some(address) => member.pod()?.namespace().reaches(address, PATIENCE)?,
            None => false,
        };
        let after = fourth.started.elapsed();
        show.check(
            reached,
            format!("{}'s pod reaches it {} after it was started", member.node.name(), milliseconds(after)),
        );
    }
    fourth.add_pod()?;
    fourth.show(show)?;
    cluster.push(fourth);
    ping_matrix(show, &cluster)?;

    let Some(first) = cluster.first() else { return Ok(()) };
    show.title("node1's rules, as nft prints them");
    for table in ["ip flannel-ipv4", "ip6 flannel-ipv6"] {
        let rules = first.node.namespace().sh(&format!("nft list table {table}"))?;
        show.text(rules.trim_end());
        show.check(rules.contains("masquerade"), format!("table {table} masquerades"));
    }

    if env::var_os("KEEP").is_some_and(|keep| !keep.is_empty() && keep != "0") {
        show.title("Left up (KEEP=1); the next `make demo` or `make test` removes it");
        look_around(show, &lab, first)?;
        lab.keep();
        cluster.into_iter().filter_map(|member| member.daemon).for_each(Daemon::keep);
    }
    Ok(())
}

/// A node with its daemon and its pod.
struct Member {
    node: Node,
    daemon: Option<Daemon>,
    started: Instant,
    ready: Duration,
    pod: Option<Pod>,
}

impl Member {
    /// A new node, whose daemon is ready.
    fn join(lab: &mut Lab, flannel: &Flannel) -> Result<Self, LabError> {
        let node = lab.add_node()?;
        let started = Instant::now();
        let mut daemon = flannel.start(&node)?;
        let ready = daemon.ready(PATIENCE)?;
        Ok(Self { node, daemon: Some(daemon), started, ready, pod: None })
    }

    fn add_pod(&mut self) -> Result<(), LabError> {
        self.pod = Some(self.node.add_pod()?);
        Ok(())
    }

    fn pod(&self) -> Result<&Pod, LabError> {
        self.pod.as_ref().ok_or_else(|| LabError::Unreadable {
            what: self.node.name().to_owned(),
            problem: "has no pod yet".to_owned(),
        })
    }

    fn show(&self, show: &mut Show) -> Result<(), LabError> {
        let env = self.node.subnet_env()?;
        let kib = self.daemon.as_ref().and_then(Daemon::resident_kib);
        let memory =
            kib.map_or_else(String::new, |kib| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024));
        let v4 = env.ipv4_subnet.map_or_else(String::new, |subnet| subnet.to_string());
        let v6 = env.ipv6_subnet.map_or_else(String::new, |subnet| subnet.to_string());
        let both = !v4.is_empty() && !v6.is_empty();
        let ready = milliseconds(self.ready);
        show.check(
            both,
            format!(
                "{:6} {v4:17} {v6:25} {:>5} {ready:>10} {memory:>10}",
                self.node.name(),
                env.mtu.unwrap_or_default()
            ),
        );
        Ok(())
    }
}

fn ping_matrix(show: &mut Show, cluster: &[Member]) -> Result<(), LabError> {
    for from in cluster {
        let mut answers = Vec::new();
        let mut all = true;
        for to in cluster.iter().filter(|to| to.node.name() != from.node.name()) {
            for address in to.pod()?.addresses() {
                let inside = from.pod()?.namespace();
                // A new pod's gateway may still be checking that its IPv6 address is its own.
                let answered = inside.reaches(address, PATIENCE)? && inside.ping(address).is_ok();
                all &= answered;
                answers.push(format!("{address}{}", if answered { "" } else { " SILENT" }));
            }
        }
        show.check(all, format!("{} -> {}", from.node.name(), answers.join("  ")));
    }
    Ok(())
}

/// Ends the first node's daemon and starts it again while packets flow.
fn restart(
    show: &mut Show,
    lab: &Lab,
    flannel: &Flannel,
    cluster: &mut [Member],
    signal: Signal,
) -> Result<(), LabError> {
    show.title(match signal {
        Signal::SIGKILL => "node1's daemon is killed (kill -9) and started again while packets flow",
        _ => "node1's daemon is asked to end (SIGTERM) and started again while packets flow",
    });
    let [first, second, ..] = cluster else { return Ok(()) };
    let (pod, peer) = (first.pod()?, second.pod()?);
    let flows = NewFlows::start(pod, lab.outside(), &[Lab::OUTSIDE_V4, Lab::OUTSIDE_V6], PER_SECOND)?;
    let mut trips = Vec::new();
    for address in peer.addresses() {
        trips.push((address, RoundTrips::start(pod, peer, address, 250)?));
    }
    pass(AROUND);
    if let Some(daemon) = first.daemon.take() {
        match signal {
            Signal::SIGKILL => daemon.kill()?,
            _ => {
                let status = daemon.terminate()?;
                show.check(status.success(), format!("it ended with {status}"));
            }
        }
    }
    pass(AROUND);
    let mut daemon = flannel.start(&first.node)?;
    let ready = daemon.ready(PATIENCE)?;
    first.daemon = Some(daemon);
    pass(AROUND);

    show.check(true, format!("ready again in {}", milliseconds(ready)));
    let report = flows.stop()?;
    show.check(
        report.sent > 0 && report.lost == 0 && report.unmasqueraded == 0,
        format!(
            "{} new flows to the outside in {}: {} lost, {} un-masqueraded",
            report.sent,
            milliseconds(report.lasted),
            report.lost,
            report.unmasqueraded
        ),
    );
    for (address, trip) in trips {
        let report = trip.stop()?;
        show.check(
            report.sent > 0 && report.lost == 0,
            format!("{} round trips to {address}: {} lost", report.sent, report.lost),
        );
    }
    Ok(())
}

fn look_around(show: &mut Show, lab: &Lab, first: &Member) -> Result<(), LabError> {
    let (node, pod) = (first.node.namespace().name(), first.pod()?.namespace().name());
    show.text("  ip netns list");
    show.text(format!("  ip netns exec {node} nft list ruleset"));
    show.text(format!("  ip netns exec {node} ip -d link show flannel.1"));
    show.text(format!("  ip netns exec {node} ip route"));
    show.text(format!("  ip netns exec {node} bridge fdb show dev flannel.1"));
    show.text(format!("  ip netns exec {pod} ping {}", Lab::OUTSIDE_V4));
    show.text(format!("  ls {}", lab.folder().display()));
    show.text(format!("  tail -f {}/flanneld.log", first.node.folder().display()));
    Ok(())
}

/// Lets packets flow for a while; nothing is waited for.
fn pass(time: Duration) {
    let begun = Instant::now();
    wait_for(time * 2, || (begun.elapsed() >= time).then_some(()));
}

/// An interrupted demo leaves nothing behind.
fn clean_up_when_interrupted() -> Result<(), LabError> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    let blocked = signals.thread_block();
    blocked.map_err(|errno| LabError::System { what: "block signals".to_owned(), source: errno.into() })?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            Lab::remove_all_of_this_process();
            #[expect(clippy::disallowed_methods, reason = "the main thread may be waiting for packets")]
            std::process::exit(130);
        }
    });
    Ok(())
}

fn fail(error: &LabError) -> ExitCode {
    let mut line = format!("demo: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        line = format!("{line}: {inner}");
        cause = inner.source();
    }
    let _closed = writeln!(io::stderr(), "{line}");
    ExitCode::FAILURE
}

fn milliseconds(time: Duration) -> String {
    format!("{}.{} ms", time.as_millis(), time.as_micros() % 1000 / 100)
}

/// Writes progress lines and keeps count of what is not so.
struct Show {
    colour: bool,
    untrue: u32,
}

impl Show {
    fn new() -> Self {
        Self { colour: io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none(), untrue: 0 }
    }

    fn title(&mut self, text: &str) {
        let (bold, plain) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.text(format!("\n{bold}{text}{plain}"));
    }

    fn check(&mut self, so: bool, text: impl Display) {
        let mark = match (so, self.colour) {
            (true, true) => "\x1b[32m✓\x1b[0m",
            (true, false) => "✓",
            (false, true) => "\x1b[31m✗\x1b[0m",
            (false, false) => "✗",
        };
        self.untrue += u32::from(!so);
        self.text(format!("{mark} {text}"));
    }

    fn text(&mut self, text: impl Display) {
        // Nobody reads on: the exit status still tells.
        let _closed = writeln!(io::stdout(), "{text}");
    }
}
