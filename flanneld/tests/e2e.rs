//! Real daemons, real pods, real packets, in a lab of network namespaces.
#![expect(clippy::unwrap_used, reason = "set-up that fails is a failed test")]

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{Daemon, Flannel, Lab, NewFlows, Node, Pod, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(10);

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
        let mut nodes = Vec::new();
        for _ in 0..size {
            let mut node = lab.add_node().unwrap();
            let mut daemon = flannel.start(&node).unwrap();
            daemon.ready(SOON).unwrap();
            let pod = node.add_pod().unwrap();
            nodes.push((node, daemon, pod));
        }
        Self { flannel, nodes, lab }
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

/// Lets time pass for streams; nothing waits for an event by it.
fn pause(milliseconds: u64) {
    let until = Instant::now() + Duration::from_millis(milliseconds);
    wait_for(SOON, || (Instant::now() >= until).then_some(()));
}

/// Writes down everything that changes in a node's kernel.
struct Witness {
    monitors: Vec<(Child, std::path::PathBuf)>,
}

impl Witness {
    fn watch(node: &Node) -> Self {
        let start = |name: &str, program: &str, arguments: &[&str]| {
            let file = node.folder().join(name);
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(fs::File::create(&file).unwrap());
            (node.namespace().spawn(&mut command).unwrap(), file)
        };
        let monitors = vec![
            start("ip.monitor", "ip", &["monitor", "link", "address", "route", "neigh", "nexthop"]),
            start("nft.monitor", "nft", &["monitor"]),
        ];
        let witness = Self { monitors };
        // They are listening once they have noticed a change of ours.
        let noticed = || {
            node.namespace().sh("ip link add probe type bridge; ip link del probe; nft add table ip probe; nft delete table ip probe").unwrap();
            witness
                .monitors
                .iter()
                .all(|(_, file)| fs::read_to_string(file).is_ok_and(|text| text.contains("probe")))
                .then_some(())
        };
        wait_for(SOON, noticed).unwrap();
        pause(200);
        for (_, file) in &witness.monitors {
            fs::File::options().write(true).truncate(true).open(file).unwrap();
        }
        witness
    }

    /// What has changed since.
    fn saw(mut self) -> String {
        pause(200);
        let mut text = String::new();
        for (monitor, file) in &mut self.monitors {
            monitor.kill().unwrap();
            monitor.wait().unwrap();
            text += fs::read_to_string(file).unwrap().trim_matches('\0');
        }
        text
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
    let mut daemon = cluster.flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
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
    let mut daemon = flannel.clone().arg("--ip-blackhole-route").start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    let pod = node.add_pod().unwrap();
    let blackholes = |node: &Node| node.namespace().sh("ip route show type blackhole").unwrap();
    assert!(blackholes(&node).contains("blackhole 10.244."), "{}", blackholes(&node));
    assert!(pod.namespace().reaches(node.v4().into(), SOON).unwrap(), "local pods stay reachable");

    assert!(daemon.terminate().unwrap().success());
    let mut daemon = flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    assert_eq!(blackholes(&node), "");
}

#[test]
fn direct_routing_is_decided_again_when_a_route_changes() {
    if !may_make_namespaces() {
        return;
    }
    let net_conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
    let cluster = Cluster::start(2, net_conf);
    cluster.every_pod_reaches_every_other();
    let [(node, ..), (.., pod)] = &cluster.nodes[..] else { unreachable!() };
    let target = pod.addresses().next().unwrap();
    let leads = |device: &str| {
        let way = || node.namespace().sh(&format!("ip route get {target}")).unwrap();
        let changed = wait_for(SOON, || way().contains(&format!("dev {device} ")).then_some(()));
        assert!(changed.is_some(), "not {device}: {}", way());
    };
    leads("eth0");
    node.namespace().sh("ip route add 192.168.77.2 via 192.168.77.254").unwrap();
    leads("flannel.1");
    node.namespace().sh("ip route del 192.168.77.2").unwrap();
    leads("eth0");
    cluster.every_pod_reaches_every_other();
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
    let witness = Witness::watch(&node);

    assert!(daemon.terminate().unwrap().success());
    let mut daemon = cluster.flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    daemon.kill().unwrap();
    let mut daemon = cluster.flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();

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
    let mut daemon = cluster.flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    pause(200);
    assert!(daemon.terminate().unwrap().success());
    let mut daemon = cluster.flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    pause(200);
    let report = flows.stop().unwrap();
    assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");
    assert!(report.sent > 1_000, "{report:?}");
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
        "ip link set flannel.1 down; ip link set flannel.1 name x",
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
            // Indices, numbers of nexthops and random link-local addresses change when a device is made anew.
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

#[test]
fn another_mtu_or_address_of_the_underlay_is_followed_without_a_restart() {
    if !may_make_namespaces() {
        return;
    }
    let cluster = Cluster::start(2, Flannel::NET_CONF);
    cluster.every_pod_reaches_every_other();
    let (node, ..) = &cluster.nodes[0];
    let env = || fs::read_to_string(node.subnet_file()).unwrap();
    let link = |name: &str| node.namespace().sh(&format!("ip -d -o link show {name}")).unwrap_or_default();
    let soon = |what: &str, holds: &dyn Fn() -> bool| {
        assert!(
            wait_for(SOON, || holds().then_some(())).is_some(),
            "{what}\n{}{}{}",
            env(),
            link("flannel.1"),
            link("flannel-v6.1")
        );
    };
    let subnet = env().lines().take(4).map(str::to_owned).collect::<Vec<_>>();

    node.namespace().sh("ip link set eth0 mtu 1400").unwrap();
    soon("MTU of the devices", &|| {
        link("flannel.1").contains("mtu 1350") && link("flannel-v6.1").contains("mtu 1330")
    });
    soon("MTU of pods", &|| env().contains("FLANNEL_MTU=1330\n"));
    cluster.every_pod_reaches_every_other();

    node.namespace().sh("ip addr add 192.168.77.201/24 dev eth0; ip addr del 192.168.77.1/24 dev eth0; ip addr add 192.168.77.201/24 dev eth0 2>/dev/null || true").unwrap();
    soon("source of outer packets", &|| link("flannel.1").contains("local 192.168.77.201"));
    cluster.every_pod_reaches_every_other();

    node.namespace()
        .sh("ip addr add fd00:77::201/64 dev eth0 nodad; ip addr del fd00:77::1/64 dev eth0")
        .unwrap();
    soon("source of outer IPv6 packets", &|| link("flannel-v6.1").contains("local fd00:77::201"));
    cluster.every_pod_reaches_every_other();
    assert_eq!(env().lines().take(4).map(str::to_owned).collect::<Vec<_>>(), subnet, "the subnet stays");
}

#[test]
fn a_node_keeps_its_addresses_beside_virtual_ones_and_takes_no_link_local_one() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, daemon, _pod) = cluster.nodes.remove(0);
    let sh = |command: &str| node.namespace().sh(command).unwrap();
    let is_at = |device: &str, local: &str| {
        sh(&format!("ip -d link show {device}")).contains(&format!("local {local} "))
    };
    let has_mtu = |mtu: &str| {
        let holds = || sh("ip link show flannel.1").contains(&format!("mtu {mtu} ")).then_some(());
        assert!(wait_for(SOON, holds).is_some(), "{mtu}");
    };
    // As from DHCP; keepalived's is permanent, which counts for more where nothing is known.
    sh("ip addr change 192.168.77.1/24 dev eth0 valid_lft 3600 preferred_lft 3600");
    sh("ip addr add 192.168.77.100/24 dev eth0; ip link set eth0 mtu 1400");
    has_mtu("1350");
    assert!(is_at("flannel.1", "192.168.77.1"));
    assert!(daemon.terminate().unwrap().success());
    let mut daemon = cluster.flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    sh("ip link set eth0 mtu 1500");
    has_mtu("1450");
    assert!(is_at("flannel.1", "192.168.77.1"), "after a restart, too");

    sh("ip link set eth0 down; ip link set eth0 up");
    let page = || daemon.page("/readyz").unwrap();
    let named = "interface eth0 has only a link-local IPv6 address left";
    assert!(wait_for(SOON, || page().contains(named).then_some(())).is_some(), "{}", page());
    assert!(is_at("flannel-v6.1", "fd00:77::1"));
    sh("ip addr add fd00:77::1/64 dev eth0 nodad");
    daemon.ready(SOON).unwrap();
    assert!(is_at("flannel-v6.1", "fd00:77::1"));
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
    let named = wait_for(SOON, || page().contains("is in use by another program").then_some(()));
    assert!(named.is_some(), "{}", page());
    assert_eq!(daemon.status("/readyz").unwrap(), 503);
    drop(taken);
    daemon.ready(SOON).unwrap();
}

#[test]
fn bad_input_is_one_clear_line_and_leaves_nothing_behind() {
    if !may_make_namespaces() {
        return;
    }
    let good = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    let vxlan = |more: &str| good.replace("\"vxlan\"", &format!("\"vxlan\", {more}"));
    let cases: &[(&str, &str, &[&str], i32, &str)] = &[
        ("malformed JSON", "{", &[], 1, "net-conf.json"),
        (
            "too small",
            r#"{"Network": "10.244.0.0/29", "Backend": {"Type": "vxlan"}}"#,
            &[],
            1,
            "network is too small. Minimum useful network prefix is /28",
        ),
        (
            "min above max",
            r#"{"Network": "10.244.0.0/16", "SubnetMin": "10.244.9.0", "SubnetMax": "10.244.3.0", "Backend": {"Type": "vxlan"}}"#,
            &[],
            1,
            "SubnetMin",
        ),
        (
            "unknown backend",
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "geneve"}}"#,
            &[],
            1,
            "unknown backend type: geneve",
        ),
        ("VNI out of range", &vxlan(r#""VNI": 16777216"#), &[], 1, "Backend.VNI: 16777216 is out of range"),
        ("MTU too low", &vxlan(r#""MTU": 67"#), &[], 1, "Backend.MTU: 67 leaves no room"),
        (
            "MTU too high",
            &vxlan(r#""MTU": 1501"#),
            &[],
            1,
            "Backend.MTU 1501 is more than the 1500 bytes that interface eth0 carries",
        ),
        ("port 0", &vxlan(r#""Port": 0"#), &[], 1, "Backend.Port: 0 is out of range: a whole number from 1"),
        (
            "an interface without address",
            good,
            &["--iface=bare0"],
            1,
            "failed to find IPv4 address for interface bare0, which Network in net-conf.json needs",
        ),
        (
            "host-gw behind a NAT, IPv4",
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}"#,
            &["--public-ip=203.0.113.5"],
            1,
            "you're on a NAT, which is not supported by host-gw backend: public 203.0.113.5, interface 192.168.77.1",
        ),
        (
            "host-gw behind a NAT, IPv6",
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend": {"Type": "host-gw"}}"#,
            &["--public-ipv6=2001:db8::5"],
            1,
            "you're on a NAT, which is not supported by host-gw backend: public 2001:db8::5, interface fd00:77::1",
        ),
        ("no such interface", good, &["--iface=nope0"], 1, "nope0"),
        ("unknown flag", good, &["--bogus"], 2, "-bogus"),
        ("bad flag value", good, &["--healthz-port=notaport"], 2, "--healthz-port"),
        ("no such directory", good, &["--lease-db=/nonexistent/leases.db"], 1, "/nonexistent"),
        ("lease file is a directory", good, &["--lease-db=/proc"], 1, "/proc"),
        ("lease file is no database", good, &["--lease-db=/etc/passwd"], 1, "/etc/passwd"),
    ];
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    node.namespace().sh("ip link add bare0 type bridge").unwrap();
    let before = all_of(&node);
    for (what, net_conf, arguments, code, named) in cases {
        let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
        let (status, stderr) = run_to_end(&flannel, &node, arguments);
        let complaints: Vec<&str> = stderr.lines().filter(|line| line.starts_with("flanneld:")).collect();
        assert_eq!(status, Some(*code), "{what}: {stderr}");
        assert_eq!(complaints.len(), 1, "{what}: {stderr}");
        assert!(complaints[0].contains(named), "{what}: {stderr}");
        assert_eq!(all_of(&node), before, "{what}");
        assert!(!flannel.lease_file().exists(), "{what}");
    }
}

#[test]
fn an_ipv6_host_is_told_what_an_ipv4_network_needs_and_nothing_is_touched() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    node.namespace().sh("ip -4 addr flush dev eth0").unwrap();
    let before = all_of(&node);
    let named = Flannel::new(&lab, BINARY, r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#);
    let named = named.unwrap();
    for flannel in [named.clone(), named.by_default_route()] {
        let (status, stderr) = run_to_end(&flannel, &node, &[]);
        let complaint = stderr.lines().find(|line| line.starts_with("flanneld:")).unwrap_or_default();
        assert_eq!(status, Some(1), "{stderr}");
        for word in ["Network in net-conf.json needs", "IPv4", "EnableIPv4", "--iface"] {
            assert!(complaint.contains(word), "{word}: {stderr}");
        }
        assert_eq!(all_of(&node), before);
        assert!(!flannel.lease_file().exists());
    }
}

/// All that a daemon might have touched on a node.
fn all_of(node: &Node) -> (String, bool) {
    let kernel = "ip -o link; ip -o addr; ip route; ip -6 route; ip nexthop; nft list ruleset";
    (node.namespace().sh(kernel).unwrap(), node.subnet_file().exists())
}

#[test]
fn a_link_that_shrinks_below_the_configured_mtu_is_followed_and_a_restart_goes_on() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "MTU": 1500}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let mut daemon = flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    let env = || fs::read_to_string(node.subnet_file()).unwrap();
    let problem = "Backend.MTU 1500 is more than the 1400 bytes that interface eth0 carries";
    let warned = || fs::read_to_string(node.folder().join("flanneld.log")).unwrap().matches(problem).count();

    node.namespace().sh("ip link set eth0 mtu 1400").unwrap();
    assert!(wait_for(SOON, || env().contains("FLANNEL_MTU=1350\n").then_some(())).is_some(), "{}", env());
    assert_eq!(warned(), 1);

    assert!(daemon.terminate().unwrap().success());
    let mut daemon = flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    assert_eq!(warned(), 2);
    assert!(env().contains("FLANNEL_MTU=1350\n"), "{}", env());

    // Another one that the link does not carry either is a mistake of whoever writes it, live and at a start.
    fs::write(flannel.net_conf_file(), net_conf.replace("1500", "1401")).unwrap();
    let refused = "Backend.MTU 1401 is more than the 1400 bytes that interface eth0 carries";
    let page = || daemon.page("/readyz").unwrap();
    assert!(wait_for(SOON, || page().contains(refused).then_some(())).is_some(), "{}", page());
    assert!(env().contains("FLANNEL_MTU=1350\n"), "{}", env());
    assert!(daemon.terminate().unwrap().success());
    let before = all_of(&node);
    let (status, stderr) = run_to_end(&flannel, &node, &[]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains(refused), "{stderr}");
    assert_eq!(all_of(&node), before);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/29", "Backend": {"Type": "vxlan", "VNI": 16777216}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let (status, stderr) = run_to_end(&flannel, &node, &["--healthz-port=x"]);
    assert_eq!(status, Some(2));
    for named in ["healthz-port", "Network", "VNI"] {
        assert!(stderr.contains(named), "{named}: {stderr}");
    }
}

#[test]
fn a_full_range_is_out_of_subnets_and_leaves_nothing_in_the_kernel() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/16", "SubnetMin": "10.244.9.0", "SubnetMax": "10.244.9.0", "Backend": {"Type": "vxlan"}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let (one, two) = (lab.add_node().unwrap(), lab.add_node().unwrap());
    let mut first = flannel.start(&one).unwrap();
    first.ready(SOON).unwrap();
    let before = two.namespace().sh("ip -o link; nft list ruleset").unwrap();
    let (status, stderr) = run_to_end(&flannel, &two, &[]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("failed to acquire lease") && stderr.contains("out of subnets"), "{stderr}");
    assert_eq!(two.namespace().sh("ip -o link; nft list ruleset").unwrap(), before);
}

#[test]
fn without_privileges_it_says_what_it_needs() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]).arg(BINARY).args(flannel.arguments(&node));
    let child = node.namespace().spawn(command.stdin(Stdio::null()).stderr(Stdio::piped())).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("CAP_NET_ADMIN"), "{stderr}");
    assert!(!Path::new(&flannel.lease_file()).exists(), "the lease file is not touched");
}

/// Runs a daemon that is expected to give up by itself; its later arguments win over the lab's.
fn run_to_end(flannel: &Flannel, node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let replaced = |argument: &String| {
        let name = argument.split('=').next().unwrap_or_default();
        arguments.iter().any(|own| own.split('=').next() == Some(name))
    };
    let base: Vec<String> =
        flannel.arguments(node).into_iter().filter(|argument| !replaced(argument)).collect();
    let mut command = Command::new(BINARY);
    command.args(base).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = node.namespace().spawn(&mut command).unwrap();
    let ended = wait_for(SOON, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (ended.and_then(|status| status.code()), String::from_utf8(output.stderr).unwrap())
}
