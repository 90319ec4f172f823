//! From upstream to here and back, node by node under traffic, with what upstream's own programs leave on a node; and
//! beside other programs' firewalls.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::etcd_host::{ENDPOINT, Etcd};
use super::recorded_upstream::{
    Cluster, DIRECT, DUAL_STACK, DUAL_STACK_FORWARD_DROPS, FORWARD_DROPS, HOST_GW, Kind, Mode, VXLAN,
    WITHOUT_MASQUERADE, start_upstream,
};
use testkit::{
    Daemon, Flannel, Lab, NewFlows, Node, Pod, RoundTrips, forwarded, may_make_namespaces, wait_for,
};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(20);
/// How long each state of the cluster is kept under traffic.
const STEP: Duration = Duration::from_millis(300);
const DOCKER: &str = include_str!("golden/firewalls/docker.rules");
const FIREWALLD: &str = include_str!("golden/firewalls/firewalld.nft");
const FIREWALLD_TRUSTED: &str = include_str!("golden/firewalls/firewalld-trusted.nft");
const UFW: &str = include_str!("golden/firewalls/ufw.rules");

#[expect(clippy::disallowed_methods, reason = "traffic is to be counted in this state for a while")]
fn pause() {
    thread::sleep(STEP);
}

/// Traffic from every node to the next one's pods and to the outside, from now to [`Traffic::lost_nothing`].
struct Traffic {
    between: Vec<RoundTrips>,
    out: Vec<NewFlows>,
}

impl Traffic {
    fn start(lab: &Lab, cluster: &Cluster) -> Self {
        let pods: Vec<&Pod> = cluster.nodes.iter().map(|(_, pod)| pod).collect();
        let mut between = Vec::new();
        for (n, pod) in pods.iter().enumerate() {
            let to = (n + 1) % 3;
            for address in cluster.addresses(to) {
                assert!(pod.namespace().reaches(address, SOON).unwrap(), "upstream's works");
                between.push(RoundTrips::start(pod, pods[to], address, forwarded(500)).unwrap());
            }
        }
        let targets = if cluster.kind.is_dual_stack() {
            vec![Lab::OUTSIDE_V4, Lab::OUTSIDE_V6]
        } else {
            vec![Lab::OUTSIDE_V4]
        };
        let out =
            pods.iter().map(|pod| NewFlows::start(pod, lab.outside(), &targets, forwarded(1_000)).unwrap());
        Self { between, out: out.collect() }
    }

    /// Returns how many packets were sent.
    fn lost_nothing(self) -> u64 {
        let mut sent = 0;
        for flows in self.out {
            let report = flows.stop().unwrap();
            assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");
            assert!(report.sent > forwarded(50).into(), "{report:?}");
            sent += report.sent;
        }
        for stream in self.between {
            let report = stream.stop().unwrap();
            assert_eq!(report.lost, 0, "{report:?}");
            assert!(report.sent > forwarded(30).into(), "{report:?}");
            sent += report.sent;
        }
        sent
    }
}

fn sh(node: &Node, command: &str) -> String {
    node.namespace().sh(command).unwrap()
}

/// Index and MAC address of every VXLAN device of a node.
fn devices(node: &Node) -> String {
    sh(
        node,
        "ip -o -details link show type vxlan | sed -E 's/^([0-9]+: [^:]*):.*link.ether ([^ ]*).*/\\1 \\2/'",
    )
}

fn start_ours(flannel: &Flannel, node: &Node) -> Daemon {
    flannel.start_ready(node, SOON).unwrap()
}

/// A node's routes to its peers are ours, and nothing of upstream's iptables mode is left.
fn is_ours(node: &Node, kind: Kind) {
    assert_eq!(sh(node, "ip route show proto 70 | grep -c 10.244").trim(), "2");
    let v6 = sh(node, "ip -6 route show proto 70 | grep -c fd00:10:244 || true");
    assert_eq!(v6.trim(), if kind.is_dual_stack() { "2" } else { "0" });
    let ruleset = sh(node, "nft list ruleset");
    let families = if kind.is_dual_stack() { 2 } else { 1 };
    let chains = if kind.masquerades { families } else { 0 };
    assert_eq!(ruleset.matches("chain postrtg").count(), chains, "{ruleset}");
    assert!(!kind.masquerades || ruleset.matches("masquerade fully-random").count() >= chains, "{ruleset}");
    assert!(!ruleset.contains("FLANNEL-"), "{ruleset}");
}

fn migrates(kind: Kind, mode: Mode) {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let nodes = vec![lab.add_node().unwrap(), lab.add_node().unwrap(), lab.add_node().unwrap()];
    let flannel =
        Flannel::new(&lab, BINARY, kind.net_conf).unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let flannel = flannel.arg(format!("--ip-masq={}", kind.masquerades));
    let etcd = Etcd::start(&lab);
    let cluster = Cluster::of_upstream(&etcd, nodes, kind, mode);
    let leases = etcd.subnets();
    let traffic = Traffic::start(&lab, &cluster);

    let mut daemons = Vec::new();
    for n in 0..3 {
        pause();
        let node = cluster.node(n);
        let (before, env) = (devices(node), fs::read_to_string(node.subnet_file()).unwrap());
        daemons.push(start_ours(&flannel, node));
        is_ours(node, kind);
        assert_eq!(devices(node), before, "the devices are taken over");
        assert_eq!(fs::read_to_string(node.subnet_file()).unwrap(), env);
    }
    assert_eq!(etcd.subnets(), leases, "every node keeps its lease, to the byte");

    // And back, and here again.
    assert!(daemons.remove(0).terminate().unwrap().success());
    start_upstream(cluster.node(0), 0, kind, Mode::Nftables);
    assert_eq!(sh(cluster.node(0), "ip route show proto 70 | grep -c 10.244 || true").trim(), "0");
    pause();
    let again = start_ours(&flannel, cluster.node(0));
    is_ours(cluster.node(0), kind);
    pause();

    traffic.lost_nothing();
    drop((again, daemons));
}

#[test]
fn a_cluster_of_upstreams_iptables_mode_moves_here_and_back_without_losing_a_packet() {
    migrates(VXLAN, Mode::Iptables);
}

#[test]
fn a_cluster_of_upstreams_nftables_mode_moves_here_and_back_without_losing_a_packet() {
    migrates(VXLAN, Mode::Nftables);
}

#[test]
fn a_dual_stack_cluster_of_upstreams_iptables_mode_moves_here_and_back_without_losing_a_packet() {
    migrates(DUAL_STACK, Mode::Iptables);
}

#[test]
fn a_dual_stack_cluster_of_upstreams_nftables_mode_moves_here_and_back_without_losing_a_packet() {
    migrates(DUAL_STACK, Mode::Nftables);
}

#[test]
fn a_cluster_of_upstreams_direct_routes_moves_here_and_back_without_losing_a_packet() {
    migrates(DIRECT, Mode::Nftables);
}

#[test]
fn a_cluster_of_upstreams_host_gw_backend_moves_here_and_back_without_losing_a_packet() {
    migrates(HOST_GW, Mode::Nftables);
}

#[test]
fn a_cluster_of_upstream_without_masquerade_moves_here_and_back_without_losing_a_packet() {
    migrates(WITHOUT_MASQUERADE, Mode::Iptables);
}

/// Where FORWARD drops, upstream's chain is what lets packets pass until ours do.
#[test]
fn a_cluster_of_iptables_mode_behind_a_forward_drop_moves_here_and_back_without_losing_a_packet() {
    migrates(FORWARD_DROPS, Mode::Iptables);
}

#[test]
fn a_dual_stack_cluster_behind_a_forward_drop_moves_here_and_back_without_losing_a_packet() {
    migrates(DUAL_STACK_FORWARD_DROPS, Mode::Iptables);
}

/// The instant in between is short: many swaps, so that a stream would meet it.
#[test]
fn twenty_swaps_from_iptables_mode_behind_a_forward_drop_lose_no_packet() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let nodes = vec![lab.add_node().unwrap(), lab.add_node().unwrap(), lab.add_node().unwrap()];
    let kind = FORWARD_DROPS;
    let flannel =
        Flannel::new(&lab, BINARY, kind.net_conf).unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let etcd = Etcd::start(&lab);
    let cluster = Cluster::of_upstream(&etcd, nodes, kind, Mode::Iptables);
    let traffic = Traffic::start(&lab, &cluster);
    let node = cluster.node(0);
    for _ in 0..20 {
        let daemon = start_ours(&flannel, node);
        is_ours(node, kind);
        daemon.kill().unwrap();
        // As who goes back to upstream does: its rules first, then ours go.
        start_upstream(node, 0, kind, Mode::Iptables);
        let ours = "nft -a list chain ip filter FORWARD | sed -n 's/.*flanneld accept.*handle //p'";
        sh(node, &format!("for h in $({ours}); do nft delete rule ip filter FORWARD handle $h; done"));
        sh(node, "nft delete table ip flannel-ipv4");
    }
    eprintln!("20 swaps: {:?}", traffic.lost_nothing());
}

/// A daemon of upstream's in iptables mode that ends only after ours has started, and puts its chains back until then.
#[test]
fn upstreams_chains_go_when_its_daemon_ends_after_ours_has_started() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = Flannel::new(&lab, BINARY, VXLAN.net_conf).unwrap();
    for (command, text) in VXLAN.rules(0, Mode::Iptables) {
        let file = node.folder().join("rules");
        fs::write(&file, text).unwrap();
        sh(&node, &format!("{command} {}", file.display()));
    }
    // What counts is its name.
    let program = node.folder().join("flanneld");
    testkit::sh(&format!("cp /usr/bin/tail {}", program.display()));
    let mut upstream = Command::new(&program);
    upstream.args(["-f", "/dev/null"]).stdin(Stdio::null());
    let mut upstream = node.namespace().spawn(&mut upstream).unwrap();
    let daemon = start_ours(&flannel, &node);
    let is_said = |text: &str| fs::read_to_string(daemon.log()).unwrap().contains(text).then_some(());
    wait_for(SOON, || is_said("upstream's flanneld still runs on this host")).expect("it is said");
    assert!(sh(&node, "nft list ruleset").contains("FLANNEL-POSTRTG"));
    upstream.kill().unwrap();
    upstream.wait().unwrap();
    let gone = || (!sh(&node, "nft list ruleset").contains("FLANNEL-")).then_some(());
    wait_for(SOON, gone).expect("its chains go");
}

/// Two nodes of ours with a pod on each, on hosts that have these rules already. What is checked may ask `flanneld doctor`.
fn beside(rules: &str, check: impl FnOnce(&[Node; 2], &[Pod; 2], &[Daemon; 2], &dyn Fn(&Node) -> String)) {
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, VXLAN.net_conf).unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    for node in &nodes {
        load(node, rules);
    }
    let daemons = nodes.each_ref().map(|node| start_ours(&flannel, node));
    let pods = nodes.each_mut().map(|node| node.add_pod().unwrap());
    let doctor = |node: &Node| {
        let flags = flannel.arguments(node).join(" ");
        sh(node, &format!("{BINARY} doctor {flags} || true"))
    };
    check(&nodes, &pods, &daemons, &doctor);
}

/// Replaces the tables that are in these rules by them, as the program that made them does when it starts or reloads.
fn load(node: &Node, rules: &str) {
    let file = node.folder().join("rules");
    fs::write(&file, rules).unwrap();
    let command = if rules.starts_with('*') {
        "iptables-nft-restore"
    } else {
        "nft 'add table inet firewalld; delete table inet firewalld'; nft -f"
    };
    sh(node, &format!("{command} {}", file.display()));
}

fn reaches(pods: &[Pod; 2]) {
    let target = pods[1].v4().unwrap().into();
    assert!(pods[0].namespace().reaches(target, SOON).unwrap());
}

fn keeps_its_rules_in(node: &Node, chain: &str) {
    let kept = || {
        (sh(node, &format!("iptables-nft -S {chain}")).matches("flanneld accept").count() == 2).then_some(())
    };
    wait_for(SOON, kept).expect("the rules are kept");
}

#[test]
fn pods_get_past_dockers_forward_drop_also_after_docker_restarts() {
    if !may_make_namespaces() {
        return;
    }
    beside(DOCKER, |nodes, pods, _daemons, doctor| {
        keeps_its_rules_in(&nodes[0], "DOCKER-USER");
        reaches(pods);
        load(&nodes[0], DOCKER);
        keeps_its_rules_in(&nodes[0], "DOCKER-USER");
        reaches(pods);
        assert!(!doctor(&nodes[0]).contains("forward: "), "{}", doctor(&nodes[0]));
    });
}

#[test]
fn pods_get_past_ufws_forward_drop_once_its_users_lets_vxlan_in_as_doctor_says() {
    if !may_make_namespaces() {
        return;
    }
    beside(UFW, |nodes, pods, _daemons, doctor| {
        keeps_its_rules_in(&nodes[0], "FORWARD");
        let told = doctor(&nodes[0]);
        assert!(told.contains("error   tunnel: no answer") && told.contains("ufw allow 8472/udp"), "{told}");
        assert!(!told.contains("forward: ") && told.contains("net.ipv4.ping_group_range"), "{told}");
        for node in nodes {
            // As systemd sets it.
            sh(node, "sysctl -qw net.ipv4.ping_group_range='0 2147483647'");
            // What `ufw allow 8472/udp` adds. And no ping by ufw's leave: it is to need ours.
            sh(node, "iptables-nft -A ufw-user-input -p udp -m udp --dport 8472 -j ACCEPT");
            sh(node, "iptables-nft -D ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT");
        }
        reaches(pods);
        assert!(!doctor(&nodes[0]).contains("tunnel: "), "{}", doctor(&nodes[0]));
        load(&nodes[0], UFW);
        keeps_its_rules_in(&nodes[0], "FORWARD");
    });
}

#[test]
fn firewalld_is_named_until_what_doctor_says_is_done_and_its_reload_leaves_our_rules_alone() {
    if !may_make_namespaces() {
        return;
    }
    beside(FIREWALLD, |nodes, pods, daemons, doctor| {
        let before = sh(&nodes[0], "nft list table ip flannel-ipv4 | grep -v packets");
        let obstacle =
            "chain inet firewalld filter_FORWARD jumps to filter_FWD_public, which ends in a rule that drops";
        let named = || daemons[0].page("/readyz").unwrap().contains(obstacle).then_some(());
        wait_for(Duration::from_secs(30), named).expect("the chain is named");
        assert_eq!(daemons[0].status("/readyz").unwrap(), 200, "a note makes no node unready");
        let told = doctor(&nodes[0]);
        for expected in [
            obstacle,
            "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16",
            "tunnel: no answer",
            "firewall-cmd --permanent --add-port=8472/udp",
        ] {
            assert!(told.contains(expected), "{expected}: {told}");
        }
        for node in nodes {
            load(node, FIREWALLD_TRUSTED);
            // What --add-port adds.
            sh(node, "nft add rule inet firewalld filter_IN_public_allow udp dport 8472 accept");
        }
        reaches(pods);
        let told = doctor(&nodes[0]);
        assert!(!told.contains("forward: ") && !told.contains("tunnel: "), "{told}");
        let cleared = || (!daemons[0].page("/readyz").unwrap().contains("may be dropped")).then_some(());
        wait_for(Duration::from_secs(30), cleared).expect("the note goes");
        assert_eq!(sh(&nodes[0], "nft list table ip flannel-ipv4 | grep -v packets"), before);
    });
}
