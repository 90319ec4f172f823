//! The network configuration changes between two runs of the daemon.

use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use testkit::{Lab, NewFlows, Node, RoundTrips, may_make_namespaces};

use crate::{BINARY, Cluster, SOON, pause};

const NARROW: &str = r#""Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56""#;
/// Holds all of [`NARROW`].
const WIDE: &str = r#""Network": "10.240.0.0/12", "EnableIPv6": true, "IPv6Network": "fd00:10:240::/44""#;
const IPV4: &str = r#""Network": "10.244.0.0/16""#;
/// Routes as flanneld makes them, to subnets of [`WIDE`] outside [`NARROW`] that no node has.
const STRAYS: &str = "ip route add 10.245.9.0/24 via 192.168.77.254 dev eth0 proto 70
    ip -6 route add fd00:10:245:9::/64 via fd00:77::fe dev eth0 proto 70";

fn net_conf(networks: &str, backend: &str) -> String {
    format!(r#"{{{networks}, "EnableNFTables": true, "Backend": {{{backend}}}}}"#)
}

impl Cluster {
    fn write(&self, net_conf: &str) {
        fs::write(self.flannel.net_conf_file(), net_conf).unwrap();
    }

    /// Restarts every daemon, one after the other, and has each checked when it says that it is ready.
    fn restart(&mut self, check: impl Fn(&Self, usize)) {
        for at in 0..self.nodes.len() {
            let (node, daemon, pod) = self.nodes.remove(at);
            assert!(daemon.terminate().unwrap().success());
            let daemon = self.flannel.start_ready(&node, SOON).unwrap();
            self.nodes.insert(at, (node, daemon, pod));
            check(self, at);
            pause(300);
        }
    }

    /// What `/status` and the kernel say right now; nothing is waited for.
    fn node_has_all_its_peers(&self, at: usize) {
        let (node, ..) = &self.nodes[at];
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != at);
        let targets: Vec<IpAddr> = others.flat_map(|(_, (_, _, pod))| pod.addresses()).collect();
        let routes = routes(node);
        for target in &targets {
            let way = node.namespace().sh(&format!("ip route get {target}")).unwrap();
            assert!(!way.contains("192.168.77.254 ") && !way.contains("fd00:77::fe "), "{way}{routes}");
        }
        assert_eq!(routes.lines().count(), targets.len(), "{routes}");
        let status = ["status".to_owned(), format!("--subnet-file={}", node.subnet_file().display())];
        let (code, status) = subcommand(node, &status);
        let peers = format!("peers       {} programmed, 0 pending, 0 skipped", targets.len());
        assert!(code == 0 && status.contains(&peers), "{status}");
    }
}

/// The routes that flanneld made.
fn routes(node: &Node) -> String {
    node.namespace().sh("ip route show proto 70; ip -6 route show proto 70").unwrap()
}

/// Exit status and output of a subcommand.
fn subcommand(node: &Node, arguments: &[String]) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
    (done.status.code().unwrap(), text)
}

/// What `flanneld plan` prints for a start with the configuration that is written now.
fn plan(cluster: &Cluster, node: &Node) -> String {
    let mut arguments = vec!["plan".to_owned()];
    arguments
        .extend(cluster.flannel.arguments(node).into_iter().filter(|word| !word.starts_with("--healthz")));
    let (code, text) = subcommand(node, &arguments);
    assert_eq!(code, 3, "{text}");
    text
}

/// Widens the networks of a running cluster and narrows them again, under traffic.
fn no_packet_is_lost_to_a_wider_or_narrower_network(size: usize, backend: &str) {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(size, &net_conf(NARROW, backend));
    cluster.every_pod_reaches_every_other();
    let pods: Vec<_> = cluster.nodes.iter().map(|(.., pod)| pod.clone()).collect();
    let mut streams = Vec::new();
    for (at, from) in pods.iter().enumerate() {
        let to = &pods[(at + 1) % size];
        streams.extend(to.addresses().map(|target| RoundTrips::start(from, to, target, 500).unwrap()));
    }
    let outside = [Lab::OUTSIDE_V4, Lab::OUTSIDE_V6];
    let flows = NewFlows::start(&pods[0], cluster.lab.outside(), &outside, 1_000).unwrap();

    cluster.write(&net_conf(WIDE, backend));
    let deletions = |plan: String| -> Vec<String> {
        plan.lines().filter(|line| line.contains(" del ")).map(str::to_owned).collect()
    };
    assert_eq!(deletions(plan(&cluster, &cluster.nodes[0].0)), [""; 0]);
    cluster.restart(Cluster::node_has_all_its_peers);
    cluster.write(&net_conf(NARROW, backend));
    let (node, ..) = &cluster.nodes[0];
    node.namespace().sh(STRAYS).unwrap();
    assert_eq!(
        deletions(plan(&cluster, node)),
        [
            "ip route del 10.245.9.0/24 metric 0 proto 70 || true",
            "ip -6 route del fd00:10:245:9::/64 metric 1024 proto 70 || true"
        ]
    );
    cluster.restart(Cluster::node_has_all_its_peers);

    let flows = flows.stop().unwrap();
    assert_eq!((flows.lost, flows.unmasqueraded), (0, 0), "{flows:?}");
    let reports: Vec<_> = streams.into_iter().map(|stream| stream.stop().unwrap()).collect();
    let (sent, lost) =
        reports.iter().fold((0, 0), |(sent, lost), report| (sent + report.sent, lost + report.lost));
    eprintln!("{backend}: {lost} of {sent} packets lost, {} of {} new flows", flows.lost, flows.sent);
    assert_eq!(lost, 0, "{reports:#?}");
    assert!(sent > 100, "{reports:#?}");
}

#[test]
fn vxlan_loses_no_packet_to_a_wider_or_narrower_network() {
    no_packet_is_lost_to_a_wider_or_narrower_network(3, r#""Type": "vxlan""#);
}

#[test]
fn direct_routing_loses_no_packet_to_a_wider_or_narrower_network() {
    no_packet_is_lost_to_a_wider_or_narrower_network(2, r#""Type": "vxlan", "DirectRouting": true"#);
}

#[test]
fn host_gw_loses_no_packet_to_a_wider_or_narrower_network() {
    no_packet_is_lost_to_a_wider_or_narrower_network(2, r#""Type": "host-gw""#);
}

#[test]
fn ipv4_loses_no_packet_when_ipv6_is_turned_off_and_on_again() {
    if !may_make_namespaces() {
        return;
    }
    let backend = r#""Type": "vxlan""#;
    let mut cluster = Cluster::start(2, &net_conf(NARROW, backend));
    cluster.every_pod_reaches_every_other();
    let [(.., from), (.., to)] = &cluster.nodes[..] else { unreachable!() };
    let target = to.addresses().find(IpAddr::is_ipv4).unwrap();
    let stream = RoundTrips::start(from, to, target, 500).unwrap();

    cluster.write(&net_conf(IPV4, backend));
    let deletes = |plan: &str, what: &str| plan.lines().any(|line| line.starts_with(what));
    let off = plan(&cluster, &cluster.nodes[0].0);
    assert!(deletes(&off, "ip link del flannel-v6.1") && !deletes(&off, "ip link del flannel.1"), "{off}");
    assert!(!deletes(&off, "ip route del"), "{off}");
    for networks in [IPV4, NARROW] {
        cluster.write(&net_conf(networks, backend));
        cluster.restart(|cluster, at| {
            let devices = cluster.nodes[at].0.namespace().sh("ip -o link show type vxlan").unwrap();
            assert_eq!(devices.contains("flannel-v6.1"), networks == NARROW, "{networks}: {devices}");
        });
    }
    let report = stream.stop().unwrap();
    assert!(report.lost == 0 && report.sent > 50, "{report:?}");
}

#[test]
fn another_vni_is_planned_as_it_is_carried_out() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(2, &net_conf(NARROW, r#""Type": "vxlan""#));
    cluster.every_pod_reaches_every_other();
    cluster.write(&net_conf(NARROW, r#""Type": "vxlan", "VNI": 7"#));
    let text = plan(&cluster, &cluster.nodes[0].0);
    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words} is missing in:\n{text}"));
    for device in ["flannel", "flannel-v6"] {
        assert!(at(&format!("ip link add {device}.7 ")) < at(&format!("ip link del {device}.1\n")), "{text}");
    }
    cluster.restart(|_, _| ());
    cluster.every_pod_reaches_every_other();
    for (node, ..) in &cluster.nodes {
        let devices = node.namespace().sh("ip -br link show type vxlan; ip nexthop").unwrap();
        assert!(!devices.contains("flannel.1 ") && !devices.contains("flannel-v6.1 "), "{devices}");
        assert_eq!(devices.lines().count(), 3, "{devices}");
    }
}
