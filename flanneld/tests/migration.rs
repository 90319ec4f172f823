//! From upstream to here and back, node by node under traffic, with what upstream's own programs leave on a node; and
//! beside other programs' firewalls.
//!
//! `golden/upstream/` holds what upstream v0.28 was seen to leave or to send, with the pod subnet named `POD_CIDR`.
#![expect(clippy::unwrap_used, reason = "set-up that fails is a failed test")]

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use etcd_host::{ENDPOINT, Etcd};
use testkit::{
    Daemon, Flannel, Lab, NewFlows, Node, Pod, RoundTrips, forwarded, may_make_namespaces, wait_for,
};

mod etcd_host;

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(20);
const NET_CONF: &str =
    r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
/// How long each state of the cluster is kept under traffic.
const STEP: Duration = Duration::from_millis(300);
/// What the third octet of each node's subnet is, and its VTEP's address.
const NODES: [(u8, &str); 3] =
    [(32, "6a:13:c3:af:3b:30"), (6, "a6:41:05:6e:60:e3"), (19, "ce:6a:86:86:4f:62")];

const LEFT_BY_IPTABLES_MODE: &str = include_str!("golden/upstream/iptables.rules");
const SENT_BY_NFTABLES_MODE: &str = include_str!("golden/upstream/start.nft");
const DOCKER: &str = include_str!("golden/firewalls/docker.rules");
const FIREWALLD: &str = include_str!("golden/firewalls/firewalld.nft");
const FIREWALLD_TRUSTED: &str = include_str!("golden/firewalls/firewalld-trusted.nft");
const UFW: &str = include_str!("golden/firewalls/ufw.rules");

#[derive(Clone, Copy)]
enum Mode {
    Iptables,
    Nftables,
}

/// Three nodes as upstream runs them, with a pod on each.
struct Cluster {
    nodes: Vec<(Node, Pod)>,
}

fn pod_cidr(n: usize) -> String {
    format!("10.244.{}.0/24", NODES[n].0)
}

#[expect(clippy::disallowed_methods, reason = "traffic is to be counted in this state for a while")]
fn pause() {
    thread::sleep(STEP);
}

/// What a start of upstream's daemon does to the kernel.
fn start_upstream(node: &Node, n: usize, mode: Mode) {
    let (octet, mac) = NODES[n];
    let mut script = format!(
        "set -e
        ip link show flannel.1 >/dev/null 2>&1 || \
            ip link add flannel.1 address {mac} mtu 1450 type vxlan id 1 local {} dev eth0 dstport 8472 nolearning
        ip addr replace 10.244.{octet}.0/32 dev flannel.1
        ip link set flannel.1 up\n",
        node.v4()
    );
    for (peer, (octet, mac)) in NODES.iter().enumerate().filter(|(peer, _)| *peer != n) {
        let gateway = format!("10.244.{octet}.0");
        script += &format!(
            "ip neigh replace {gateway} lladdr {mac} dev flannel.1 nud permanent
            bridge fdb replace {mac} dev flannel.1 dst 192.168.77.{} self permanent
            ip route replace {gateway}/24 via {gateway} dev flannel.1 onlink\n",
            peer + 1
        );
    }
    let (file, load, text) = match mode {
        Mode::Iptables => ("iptables.rules", "iptables-nft-restore --noflush <", LEFT_BY_IPTABLES_MODE),
        Mode::Nftables => ("start.nft", "nft -f", SENT_BY_NFTABLES_MODE),
    };
    let file = node.folder().join(file);
    fs::write(&file, text.replace("POD_CIDR", &pod_cidr(n))).unwrap();
    script += &format!("{load} {}", file.display());
    node.namespace().sh(&script).unwrap();
}

impl Cluster {
    fn of_upstream(etcd: &Etcd<'_>, nodes: Vec<Node>, mode: Mode) -> Self {
        etcd.ctl(&format!("put /coreos.com/network/config '{NET_CONF}'"));
        let nodes = nodes.into_iter().enumerate().map(|(n, mut node)| {
            let (octet, mac) = NODES[n];
            let granted = etcd.ctl("lease grant 86400");
            let lease = granted.split_whitespace().nth(1).unwrap();
            etcd.ctl(&format!(
                "put --lease={lease} /coreos.com/network/subnets/10.244.{octet}.0-24 \
                 '{{\"PublicIP\":\"{}\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}}}'",
                node.v4()
            ));
            start_upstream(&node, n, mode);
            let env = format!(
                "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.{octet}.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
            );
            fs::write(node.subnet_file(), env).unwrap();
            let pod = node.add_pod().unwrap();
            (node, pod)
        });
        Self { nodes: nodes.collect() }
    }

    fn node(&self, n: usize) -> &Node {
        &self.nodes[n].0
    }

    fn address(&self, n: usize) -> IpAddr {
        self.nodes[n].1.v4().unwrap().into()
    }
}

/// Traffic from every node to the next one's pods and to the outside, from now to [`Traffic::lost_nothing`].
struct Traffic {
    between: Vec<RoundTrips>,
    out: Vec<NewFlows>,
}

impl Traffic {
    fn start(lab: &Lab, cluster: &Cluster) -> Self {
        let pods: Vec<&Pod> = cluster.nodes.iter().map(|(_, pod)| pod).collect();
        for (n, pod) in pods.iter().enumerate() {
            assert!(pod.namespace().reaches(cluster.address((n + 1) % 3), SOON).unwrap(), "upstream's works");
        }
        let between = (0..3).map(|n| {
            let to = (n + 1) % 3;
            RoundTrips::start(pods[n], pods[to], cluster.address(to), forwarded(500)).unwrap()
        });
        let out = pods
            .iter()
            .map(|pod| NewFlows::start(pod, lab.outside(), &[Lab::OUTSIDE_V4], forwarded(1_000)).unwrap());
        Self { between: between.collect(), out: out.collect() }
    }

    fn lost_nothing(self) {
        for flows in self.out {
            let report = flows.stop().unwrap();
            assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");
            assert!(report.sent > forwarded(500).into(), "{report:?}");
        }
        for stream in self.between {
            let report = stream.stop().unwrap();
            assert_eq!(report.lost, 0, "{report:?}");
            assert!(report.sent > forwarded(300).into(), "{report:?}");
        }
    }
}

fn sh(node: &Node, command: &str) -> String {
    node.namespace().sh(command).unwrap()
}

fn device(node: &Node) -> String {
    sh(node, "ip -o link show flannel.1").split(':').next().unwrap().to_owned()
}

fn start_ours(flannel: &Flannel, node: &Node) -> Daemon {
    let mut daemon = flannel.start(node).unwrap();
    daemon.ready(SOON).unwrap();
    daemon
}

/// A node's routes to its peers are ours, and nothing of upstream's iptables mode is left.
fn is_ours(node: &Node) {
    assert_eq!(sh(node, "ip route show proto 70 | grep -c 10.244").trim(), "2");
    let ruleset = sh(node, "nft list ruleset");
    assert!(ruleset.contains("chain postrtg") && ruleset.contains("masquerade"), "{ruleset}");
    assert!(!ruleset.contains("FLANNEL-"), "{ruleset}");
}

fn migrates(mode: Mode) {
    let mut lab = Lab::new().unwrap();
    let nodes = vec![lab.add_node().unwrap(), lab.add_node().unwrap(), lab.add_node().unwrap()];
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let etcd = Etcd::start(&lab);
    let cluster = Cluster::of_upstream(&etcd, nodes, mode);
    let leases = etcd.subnets();
    let traffic = Traffic::start(&lab, &cluster);

    let mut daemons = Vec::new();
    for n in 0..3 {
        pause();
        let (device_before, env) =
            (device(cluster.node(n)), fs::read(cluster.node(n).subnet_file()).unwrap());
        daemons.push(start_ours(&flannel, cluster.node(n)));
        is_ours(cluster.node(n));
        assert_eq!(device(cluster.node(n)), device_before, "the device is taken over");
        assert_eq!(fs::read(cluster.node(n).subnet_file()).unwrap(), env);
    }
    assert_eq!(etcd.subnets(), leases, "every node keeps its lease, to the byte");

    // And back, and here again.
    assert!(daemons.remove(0).terminate().unwrap().success());
    start_upstream(cluster.node(0), 0, Mode::Nftables);
    assert_eq!(sh(cluster.node(0), "ip route show proto 70 | grep -c 10.244 || true").trim(), "0");
    pause();
    let again = start_ours(&flannel, cluster.node(0));
    is_ours(cluster.node(0));
    pause();

    traffic.lost_nothing();
    drop((again, daemons));
}

#[test]
fn a_cluster_of_upstreams_iptables_mode_moves_here_and_back_without_losing_a_packet() {
    if may_make_namespaces() {
        migrates(Mode::Iptables);
    }
}

#[test]
fn a_cluster_of_upstreams_nftables_mode_moves_here_and_back_without_losing_a_packet() {
    if may_make_namespaces() {
        migrates(Mode::Nftables);
    }
}

/// Two nodes of ours with a pod on each, on hosts that have these rules already. What is checked may ask `flanneld doctor`.
fn beside(rules: &str, check: impl FnOnce(&[Node; 2], &[Pod; 2], &[Daemon; 2], &dyn Fn(&Node) -> String)) {
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
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
