//! Real daemons, real pods, real packets, in a lab of network namespaces.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "set-up that fails is a failed test"
)]

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{Daemon, Flannel, Lab, Namespace, NewFlows, Node, Pod, may_make_namespaces, wait_for};

mod backends;
mod cloned_machines;
mod etcd;
mod etcd_host;
mod files;
mod host_changes;
mod hostile_leases;
mod instances;
mod invalid_input;
mod kube;
mod migration;
mod mixed;
mod net_conf;
mod netlink_messages;
mod outage;
mod ownership;
mod peers;
mod recorded_upstream;
mod reload;
mod repair_backoff;
mod repairs;
mod scale;
mod secrets;
mod serve;
mod store_away;
mod subcommands;
mod underlay;
mod wireguard;
mod wireguard_peers;

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(10);

/// As `assert_eq!`, showing only lines that differ.
#[track_caller]
fn assert_same(now: &str, then: &str) {
    let only = |text: &str, other: &str| {
        let others: Vec<_> = other.lines().collect();
        text.lines().filter(|line| !others.contains(line)).map(|line| format!("{line}\n")).collect::<String>()
    };
    assert!(now == then, "new:\n{}gone:\n{}", only(now, then), only(then, now));
}

/// A cluster of `size` nodes with a daemon and a pod each.
struct Cluster {
    flannel: Flannel,
    nodes: Vec<(Node, Daemon, Pod)>,
    lab: Lab,
}

impl Cluster {
    fn start(size: usize, net_conf: &str) -> Self {
        let mut lab = Lab::new().unwrap();
        let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
        let nodes = flannel.start_nodes(&mut lab, size, SOON).unwrap().into_iter();
        let nodes = nodes.map(|(mut node, daemon)| {
            let pod = node.add_pod().unwrap();
            (node, daemon, pod)
        });
        Self { flannel, nodes: nodes.collect(), lab }
    }

    fn every_pod_reaches_every_other(&self) {
        for (node, _, from) in &self.nodes {
            for (other, _, to) in &self.nodes {
                for address in to.addresses() {
                    let reached = from.namespace().reaches(address, SOON).unwrap();
                    assert!(reached, "from a pod of {} to {address} on {}", node.name(), other.name());
                }
            }
        }
    }
}

/// Writes a file in one step: a daemon that reads it meanwhile, or repairs it, never sees half of it.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, file).unwrap();
}

/// Lets time pass for streams; nothing waits for an event by it.
fn pause(milliseconds: u64) {
    let until = Instant::now() + Duration::from_millis(milliseconds);
    wait_for(SOON, || (Instant::now() >= until).then_some(()));
}

/// Writes down what changes in a node's kernel.
struct Witness {
    namespace: Namespace,
    monitors: Vec<(Monitor, Child, PathBuf)>,
}

/// A program that prints changes, and a change that it prints, of an object called NAME.
type Monitor = (&'static str, &'static str);

const HOST: Monitor = (
    "ip -oneline monitor link address route neigh nexthop",
    "ip link add NAME type bridge; ip link del NAME",
);
const RULES: Monitor = ("nft monitor", "nft add table ip NAME; nft delete table ip NAME");

impl Witness {
    const FIRST: &'static str = "witness-begins";
    const LAST: &'static str = "witness-ends";

    /// Of links, addresses, routes, neighbors, nexthops and rules.
    fn of_all(node: &Node) -> Self {
        // When the kernel has checked a new address for duplicates, it reports the address again.
        let is_settled = || node.namespace().sh("! ip addr | grep -q tentative").ok();
        wait_for(SOON, is_settled).expect("addresses are checked for duplicates");
        Self::by(node, &[HOST, RULES])
    }

    /// Of rules alone.
    fn of_rules(node: &Node) -> Self {
        Self::by(node, &[RULES])
    }

    fn by(node: &Node, monitors: &[Monitor]) -> Self {
        let start = |(number, &monitor): (usize, &Monitor)| {
            let file = node.folder().join(format!("monitor{number}"));
            let mut words = monitor.0.split(' ');
            let mut command = Command::new(words.next().unwrap());
            command.args(words).stdin(Stdio::null()).stdout(fs::File::create(&file).unwrap());
            (monitor, node.namespace().spawn(&mut command).unwrap(), file)
        };
        let witness = Self {
            namespace: node.namespace().clone(),
            monitors: monitors.iter().enumerate().map(start).collect(),
        };
        witness.mark(Self::FIRST);
        witness
    }

    /// Makes changes of our own until every monitor has written one down, and so all that came before it.
    fn mark(&self, name: &str) {
        for ((program, change), _, file) in &self.monitors {
            let noticed = || {
                self.namespace.sh(&change.replace("NAME", name)).unwrap();
                fs::read_to_string(file).unwrap().contains(name).then_some(())
            };
            wait_for(SOON, noticed).unwrap_or_else(|| panic!("{program} does not notice {name}"));
        }
    }

    /// What has changed since, one change on each line.
    fn saw(mut self) -> String {
        self.mark(Self::LAST);
        let mut changes = String::new();
        for (_, monitor, file) in &mut self.monitors {
            monitor.kill().unwrap();
            monitor.wait().unwrap();
            let text = fs::read_to_string(file).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let after_first = lines.iter().rposition(|line| line.contains(Self::FIRST)).unwrap() + 1;
            let since = lines[after_first..].iter().take_while(|line| !line.contains(Self::LAST));
            // The end of a transaction, whose changes have lines of their own.
            let since = since.filter(|line| !line.starts_with("# new generation"));
            changes.extend(since.map(|line| format!("{line}\n")));
        }
        changes
    }
}

#[test]
fn three_nodes_form_an_overlay_and_a_fourth_joins() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(3, Flannel::NET_CONF);
    cluster.every_pod_reaches_every_other();

    let mut node = cluster.lab.add_node().unwrap();
    let daemon = cluster.flannel.start_ready(&node, SOON).unwrap();
    let pod = node.add_pod().unwrap();
    cluster.nodes.push((node, daemon, pod));
    cluster.every_pod_reaches_every_other();
}

#[test]
fn host_gw_routes_between_pods_without_a_device() {
    if !may_make_namespaces() {
        return;
    }
    let net_conf = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56",
        "EnableNFTables": true, "Backend": {"Type": "host-gw"}}"#;
    let cluster = Cluster::start(2, net_conf);
    cluster.every_pod_reaches_every_other();
    let (node, ..) = &cluster.nodes[0];
    assert_eq!(node.namespace().sh("ip -o link show type vxlan").unwrap(), "");
    assert!(fs::read_to_string(node.subnet_file()).unwrap().contains("FLANNEL_MTU=1500\n"));
}

#[test]
fn ipv6_alone_works() {
    if !may_make_namespaces() {
        return;
    }
    let net_conf = r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56",
        "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
    let cluster = Cluster::start(2, net_conf);
    cluster.every_pod_reaches_every_other();
    let (node, ..) = &cluster.nodes[0];
    assert!(!node.namespace().sh("nft list tables").unwrap().contains("table ip flannel"));
}

#[test]
fn alloc_leases_a_subnet_and_makes_no_device_and_no_route() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "alloc"}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let (one, two) = (lab.add_node().unwrap(), lab.add_node().unwrap());
    let before = one.namespace().sh("ip route; ip -o link").unwrap();
    let mut daemons = [flannel.start(&one).unwrap(), flannel.start(&two).unwrap()];
    for daemon in &mut daemons {
        daemon.ready(SOON).unwrap();
    }
    assert_eq!(one.namespace().sh("ip route; ip -o link").unwrap(), before);
    let env = |node: &Node| fs::read_to_string(node.subnet_file()).unwrap();
    assert_ne!(env(&one), env(&two));
}

#[test]
fn alloc_makes_the_blackhole_route_that_is_asked_for_and_takes_it_away_again() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "alloc"}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let mut node = lab.add_node().unwrap();
    let daemon = flannel.clone().arg("--ip-blackhole-route").start_ready(&node, SOON).unwrap();
    let pod = node.add_pod().unwrap();
    let blackholes = |node: &Node| node.namespace().sh("ip route show type blackhole").unwrap();
    assert!(blackholes(&node).contains("blackhole 10.244."), "{}", blackholes(&node));
    assert!(pod.namespace().reaches(node.v4().into(), SOON).unwrap(), "local pods stay reachable");

    assert!(daemon.terminate().unwrap().success());
    let _daemon = flannel.start_ready(&node, SOON).unwrap();
    assert_eq!(blackholes(&node), "");
}

#[test]
fn a_restart_with_nothing_changed_changes_nothing_in_the_kernel() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(2, Flannel::NET_CONF);
    cluster.every_pod_reaches_every_other();
    let (node, daemon, _) = cluster.nodes.remove(0);
    let env = fs::metadata(node.subnet_file()).unwrap().modified().unwrap();
    // Neighbours of eth0 and of the pods come and go by themselves.
    let ours = |text: String| -> Vec<String> {
        text.lines()
            .filter(|line| !line.contains(" dev eth0 ") && !line.contains(" dev cni0 "))
            .map(str::to_owned)
            .collect()
    };
    let witness = Witness::of_all(&node);

    assert!(daemon.terminate().unwrap().success());
    let daemon = cluster.flannel.start_ready(&node, SOON).unwrap();
    daemon.kill().unwrap();
    let _daemon = cluster.flannel.start_ready(&node, SOON).unwrap();

    assert_eq!(ours(witness.saw()), Vec::<String>::new());
    assert_eq!(
        fs::metadata(node.subnet_file()).unwrap().modified().unwrap(),
        env,
        "nor is subnet.env rewritten"
    );
}

#[test]
fn new_flows_are_masqueraded_without_a_gap_while_the_daemon_is_killed_and_restarted() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, daemon, pod) = cluster.nodes.remove(0);
    let flows =
        NewFlows::start(&pod, cluster.lab.outside(), &[Lab::OUTSIDE_V4, Lab::OUTSIDE_V6], 3_000).unwrap();
    pause(200);
    daemon.kill().unwrap();
    let daemon = cluster.flannel.start_ready(&node, SOON).unwrap();
    pause(200);
    assert!(daemon.terminate().unwrap().success());
    let _daemon = cluster.flannel.start_ready(&node, SOON).unwrap();
    pause(200);
    let report = flows.stop().unwrap();
    assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");
    assert!(report.sent > 100, "{report:?}");
}

#[test]
fn no_process_is_ever_executed() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let trace = node.folder().join("execve.trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-e", "trace=execve,execveat", "-o"])
        .arg(&trace)
        .arg(BINARY)
        .args(flannel.arguments(&node));
    let mut traced = node.namespace().spawn(strace.stdin(Stdio::null()).stderr(Stdio::null())).unwrap();
    let written = wait_for(SOON, || node.subnet_file().exists().then_some(()));
    assert!(written.is_some(), "it came up under strace");
    pause(500);
    traced.kill().unwrap();
    traced.wait().unwrap();
    let executed: Vec<String> = fs::read_to_string(trace)
        .unwrap()
        .lines()
        .filter(|line| line.contains("execve"))
        .map(str::to_owned)
        .collect();
    assert_eq!(executed.len(), 1, "flanneld itself: {executed:#?}");
}

#[test]
fn ready_ends_when_the_rules_are_gone_and_comes_back_with_them() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, daemon, _) = cluster.nodes.remove(0);
    let rules = || node.namespace().sh("nft list tables").unwrap();
    let before = rules();
    assert!(
        before.contains("table ip flannel-ipv4") && before.contains("table ip6 flannel-ipv6"),
        "{before}"
    );
    node.namespace().sh("nft flush ruleset").unwrap();
    wait_for(SOON, || (rules() == before).then_some(())).unwrap();
    assert_eq!(daemon.status("/readyz").unwrap(), 200);
}

#[test]
fn whatever_others_break_is_back_at_once() {
    if !may_make_namespaces() {
        return;
    }
    let cluster = Cluster::start(2, Flannel::NET_CONF);
    cluster.every_pod_reaches_every_other();
    let (node, ..) = &cluster.nodes[0];
    for disturbance in [
        "ip link del flannel.1",
        "ip link set flannel.1 down",
        // Before 6.2 only a device that is down can be renamed, and the daemon may be faster than the second command.
        "for try in 1 2 3 4 5 6 7 8; do
            printf 'link set flannel.1 down\nlink set flannel.1 name x\n' | ip -batch - && exit; done; exit 1",
        "ip link set flannel-v6.1 mtu 1400",
        "ip link set flannel.1 address 02:00:00:00:00:07",
        "ip addr flush dev flannel.1",
        "for family in -4 -6; do ip $family route show proto 70 | while read subnet rest; do ip $family route del $subnet; done; done",
        "ip neigh flush dev flannel.1 nud permanent",
        "bridge fdb show dev flannel.1 | while read mac rest; do bridge fdb del $mac dev flannel.1; done",
        "ip nexthop flush",
    ] {
        let state = || {
            let lines = node.namespace().sh(
                "ip -o link show type vxlan | cut -d: -f2-; ip -o addr show dev flannel.1 scope global; ip route; ip -6 route; \
                 ip neigh show nud permanent; bridge fdb show dev flannel.1; bridge fdb show dev flannel-v6.1; ip nexthop",
            );
            // Indices, numbers of nexthops and random link-local addresses change when a device is recreated.
            let kept = |line: &&str| !line.contains("fe80:");
            let lines = lines.unwrap_or_default();
            let mut lines: Vec<String> = lines.lines().filter(kept).map(without_numbers).collect();
            lines.sort();
            lines
        };
        let before = state();
        node.namespace().sh(disturbance).unwrap();
        let repaired = wait_for(SOON, || (state() == before).then_some(()));
        assert!(repaired.is_some(), "after `{disturbance}`:\n{:#?}\ninstead of\n{before:#?}", state());
        cluster.every_pod_reaches_every_other();
    }
}

/// A line of `ip` without what differs between two devices of the same kind.
fn without_numbers(line: &str) -> String {
    let mut words = line.split_whitespace().peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "nhid" | "id" => drop(words.next()),
            _ if word.ends_with(':') && word.starts_with(|c: char| c.is_ascii_digit()) => {}
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

#[test]
fn a_foreign_device_of_our_name_is_left_alone_and_keeps_the_node_unready() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    node.namespace().sh("ip link add flannel.1 type bridge").unwrap();
    let mut daemon = flannel.start(&node).unwrap();
    wait_for(SOON, || fs::read_to_string(daemon.log()).unwrap().contains("flannel.1").then_some(())).unwrap();
    assert_eq!(daemon.status("/readyz").unwrap(), 503);
    assert!(node.namespace().sh("ip -d link show flannel.1").unwrap().contains("bridge"), "it is left alone");
    node.namespace().sh("ip link del flannel.1").unwrap();
    daemon.ready(SOON).unwrap();
    assert!(node.namespace().sh("ip -d link show flannel.1").unwrap().contains("vxlan id 1"));
}

#[test]
fn a_device_that_cannot_be_set_up_keeps_the_node_unready() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let taken = node.namespace().enter(|| UdpSocket::bind("0.0.0.0:8472").unwrap()).unwrap();
    let mut daemon = flannel.start(&node).unwrap();
    let page = || daemon.page("/readyz").unwrap_or_default();
    let named = wait_for(SOON, || page().contains("is used by another program").then_some(()));
    assert!(named.is_some(), "{}", page());
    assert_eq!(daemon.status("/readyz").unwrap(), 503);
    drop(taken);
    daemon.ready(SOON).unwrap();
}
