//! What the subcommands report on a node that upstream's daemon runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::FakeApi;
use testkit::{Flannel, Lab, Node, may_make_namespaces, wait_for};

use crate::assert_same;
use crate::etcd_host::{ENDPOINT, Etcd};
use crate::recorded_upstream::{self, DIRECT, DUAL_STACK, HOST_GW, Kind, Mode, VXLAN, WITHOUT_MASQUERADE};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(10);
/// What Go's linker notes in a program of upstream's, as far as it is read.
const BUILD_INFO: &[u8] =
    b"\xff Go buildinf:\x08\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x06go1.26path\tgithub.com/flannel-io/flannel\n";

/// A process that looks like upstream's daemon and does nothing. Dropping it ends it.
struct Dummy(Child);

impl Dummy {
    /// Runs a program under this name, with Go's build information of upstream's or without, whatever its arguments are.
    fn start(
        node: &Node,
        name: &str,
        is_built_from_upstream: bool,
        arguments: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let folder = node.folder().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let (program, source) = (folder.join(name), folder.join("dummy.c"));
        let info: String = BUILD_INFO.iter().map(|byte| format!("{byte},")).collect();
        let info = format!("__attribute__((used, section(\".go.buildinfo\"))) char info[] = {{{info}}};\n");
        let text = format!(
            "#include <unistd.h>\n{}int main(void) {{ for (;;) pause(); }}\n",
            if is_built_from_upstream { &info } else { "" },
        );
        fs::write(&source, text).unwrap();
        let compiled = Command::new("cc").arg("-o").arg(&program).arg(&source).status();
        assert!(compiled.unwrap().success());
        let mut command = Command::new(&program);
        command.args(arguments.split_whitespace()).envs(environment.iter().copied()).stdin(Stdio::null());
        let child = node.namespace().spawn(&mut command).unwrap();
        let link = format!("/proc/{}/exe", child.id());
        wait_for(SOON, || (fs::read_link(&link).ok()? == program).then_some(())).expect("it runs");
        Self(child)
    }
}

impl Drop for Dummy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a subcommand in a node's namespace: its status and what it printed, errors last.
fn flanneld(node: &Node, arguments: &str) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
    (done.status.code().unwrap(), text)
}

#[test]
fn upstreams_daemon_is_seen_under_any_name_and_other_programs_are_not_taken_for_it() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, other) = (lab.add_node().unwrap(), lab.add_node().unwrap());
    for (name, is_built_from_upstream, is_daemon) in [
        ("flanneld", false, true),
        ("flanneld-amd64", false, true),
        ("network-agent", true, true),
        ("network-agent", false, false),
        ("flanneld-exporter", false, false),
    ] {
        let process = Dummy::start(&node, name, is_built_from_upstream, "-ip-masq", &[]);
        let (status, text) = flanneld(&node, "cleanup");
        let is_refused = status == 1 && text.contains(&format!("(process {})", process.0.id()));
        assert_eq!((is_refused, status), (is_daemon, i32::from(is_daemon)), "{name}: {text}");
        assert_eq!(flanneld(&other, "cleanup").0, 0, "another network namespace is another host");
    }
    assert_eq!(flanneld(&node, "cleanup").0, 0);
}

/// Three nodes that upstream's daemon keeps, of which the first runs a program with this name and the daemon's flags.
struct Cluster<'a> {
    nodes: recorded_upstream::Cluster,
    etcd: Etcd<'a>,
    flags: String,
    daemon: Dummy,
}

impl<'a> Cluster<'a> {
    fn start(lab: &'a Lab, nodes: Vec<Node>, kind: Kind, mode: Mode, name: &str) -> Self {
        let etcd = Etcd::start(lab);
        let nodes = recorded_upstream::Cluster::of_upstream(&etcd, nodes, kind, mode);
        let node = nodes.node(0);
        for (node, _) in &nodes.nodes {
            node.namespace().sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1").unwrap();
        }
        let is_settled = || node.namespace().sh("! ip -6 addr | grep -q tentative").ok();
        wait_for(SOON, is_settled).expect("addresses are checked for duplicates");
        node.namespace().wait_for_local_routes().unwrap();
        let flags = format!(
            "--etcd-endpoints={ENDPOINT} --ip-masq={} --iface=eth0 --subnet-file={}",
            kind.masquerades,
            node.subnet_file().display(),
        );
        let daemon = Dummy::start(node, name, false, &flags, &[]);
        Self { nodes, etcd, flags, daemon }
    }

    fn node(&self) -> &Node {
        self.nodes.node(0)
    }

    fn sh(&self, script: &str) -> String {
        self.node().namespace().sh(script).unwrap()
    }

    /// Runs a subcommand with upstream's flags, which must leave everything as it is.
    #[track_caller]
    fn ask(&self, command: &str) -> (i32, String) {
        let everything = || self.state() + &self.etcd.ctl("get --prefix /") + &self.etcd.ctl("lease list");
        let before = everything();
        let answer = flanneld(self.node(), &format!("{command} {}", self.flags));
        assert_same(&everything(), &before);
        answer
    }

    fn state(&self) -> String {
        let env = fs::read_to_string(self.node().subnet_file()).unwrap_or_default();
        let files = self.sh(&format!("ls {}", self.node().folder().display()));
        env + &files
            + &self.sh("nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'; ip -o addr | grep -v fe80:
                (ip -4 route show table all; ip -6 route show table all | grep -v fe80:; ip nexthop
                    ip neigh show nud permanent; bridge fdb | grep dst) | sort")
    }
}

fn lab_of_three() -> (Lab, Vec<Node>) {
    let mut lab = Lab::new().unwrap();
    let nodes = (0..3).map(|_| lab.add_node().unwrap()).collect();
    (lab, nodes)
}

/// Findings about the machine that the test runs on, of which none is an error.
const OF_MACHINE: [&str; 4] = ["bridge", "legacy", "manager", "rp_filter"];

/// Severity and check of each finding.
fn findings(text: &str) -> Vec<String> {
    let findings: serde_json::Value = serde_json::from_str(text).expect(text);
    let word = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = findings.as_array().unwrap().iter();
    let findings = findings.filter(|finding| !OF_MACHINE.contains(&finding["check"].as_str().unwrap()));
    findings.map(|finding| format!("{} {}", word(finding, "severity"), word(finding, "check"))).collect()
}

#[test]
fn status_and_doctor_name_upstreams_daemon_on_a_healthy_node_and_what_is_missing_on_another() {
    if !may_make_namespaces() {
        return;
    }
    for (kind, mode, name, rules) in [
        (VXLAN, Mode::Iptables, "flanneld-amd64", "ip nat FLANNEL-POSTRTG, ip filter FLANNEL-FWD"),
        (DUAL_STACK, Mode::Nftables, "flanneld", "ip flannel-ipv4 postrtg, ip6 flannel-ipv6 postrtg"),
        (HOST_GW, Mode::Nftables, "flanneld-amd64", "ip flannel-ipv4 postrtg"),
    ] {
        let (lab, nodes) = lab_of_three();
        let cluster = Cluster::start(&lab, nodes, kind, mode, name);
        let runs = format!("upstream's flanneld runs here (process {}, ", cluster.daemon.0.id());
        let peers = if kind.is_dual_stack() { 4 } else { 2 };
        let (status, text) = cluster.ask("status");
        assert_eq!(status, 0, "{text}");
        let programmed = format!("peers       {peers} programmed, 0 pending, 0 skipped");
        for part in [&format!("node        ready, {runs}"), rules, &programmed] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let (status, text) = cluster.ask("doctor");
        assert!(status == 0 && text.contains(&format!("info    daemon: {runs}")), "{status} {text}");
        let (_, text) = cluster.ask("doctor -o=json");
        assert_eq!(findings(&text), ["info daemon"], "{text}");

        if !matches!(mode, Mode::Iptables) {
            continue;
        }
        let is_whole = cluster.state();
        for (damage, unmet, check) in [
            ("ip route del 10.244.6.0/24", None, "peer"),
            ("ip neigh del 10.244.6.0 dev flannel.1", Some("peers"), "peer"),
            ("bridge fdb del a6:41:05:6e:60:e3 dev flannel.1 dst 192.168.77.2 self", Some("peers"), "peer"),
            ("ip addr del 10.244.32.0/32 dev flannel.1", Some("device"), "device"),
            (
                "iptables-nft -t nat -F POSTROUTING; nft flush chain ip flannel-ipv4 postrtg",
                Some("rules"),
                "rules",
            ),
        ] {
            cluster.sh(&format!("({damage}) 2>/dev/null || true"));
            let (status, text) = cluster.ask("status");
            assert_eq!(status, i32::from(unmet.is_some()), "{damage}: {text}");
            let named = |what| text.contains(&format!("  unmet     {what}: "));
            assert!(unmet.is_none_or(named), "{damage}: {text}");
            let (status, text) = cluster.ask("doctor -o=json");
            assert!(status == 1 && findings(&text).contains(&format!("error {check}")), "{damage}: {text}");
            cluster.sh("nft flush ruleset");
            recorded_upstream::start_upstream(cluster.node(), 0, kind, mode);
            assert_same(&cluster.state(), &is_whole);
        }
    }
}

#[test]
fn a_preflight_check_tells_apart_swaps_that_nobody_notices_those_that_change_something_and_unsafe_ones() {
    if !may_make_namespaces() {
        return;
    }
    for (kind, mode, status, changes) in [
        (VXLAN, Mode::Iptables, 0, vec![]),
        (DUAL_STACK, Mode::Iptables, 0, vec![]),
        (DIRECT, Mode::Iptables, 0, vec![]),
        (HOST_GW, Mode::Iptables, 0, vec![]),
        (WITHOUT_MASQUERADE, Mode::Nftables, 0, vec![]),
        (VXLAN, Mode::Nftables, 3, vec!["change masquerade"]),
    ] {
        let (lab, nodes) = lab_of_three();
        let cluster = Cluster::start(&lab, nodes, kind, mode, "flanneld-amd64");
        let (found, text) = cluster.ask("doctor --preflight");
        let verdict = if status == 0 { "safe: a swap changes nothing" } else { "safe: a swap works and" };
        assert!(found == status && text.starts_with(verdict), "{found} {text}");
        for part in ["(process ", "lease: 10.244.32.0/24", " stays", "2 peers stay reachable"] {
            let part =
                if kind.is_dual_stack() { part.replace("2 peers", "4 peers") } else { part.to_owned() };
            assert!(text.contains(&part), "{part} in {text}");
        }
        let (_, text) = cluster.ask("doctor --preflight -o=json");
        let found: Vec<_> = findings(&text).into_iter().filter(|found| !found.starts_with("info ")).collect();
        assert_eq!(found, changes, "{text}");

        // What it promised: the same subnet, MTU, device and lease.
        let leases = cluster.etcd.subnets();
        let env = fs::read_to_string(cluster.node().subnet_file()).unwrap();
        let flannel = Flannel::new(&lab, BINARY, kind.net_conf).unwrap();
        let flannel = flannel.store(format!("--etcd-endpoints={ENDPOINT}"));
        let flannel = flannel.arg(format!("--ip-masq={}", kind.masquerades));
        let Cluster { nodes, etcd, flags, daemon } = cluster;
        drop(daemon);
        let mut ours = flannel.start(nodes.node(0)).unwrap();
        ours.ready(SOON).unwrap();
        assert_eq!(etcd.subnets(), leases);
        assert_eq!(fs::read_to_string(nodes.node(0).subnet_file()).unwrap(), env);
        let again = || {
            let (status, text) = flanneld(nodes.node(0), &format!("doctor --preflight {flags}"));
            (status == 0 && text.contains("flanneld is already running on this host")).then_some(())
        };
        assert!(
            wait_for(SOON, again).is_some(),
            "{}",
            flanneld(nodes.node(0), &format!("doctor --preflight {flags}")).1
        );
    }
}

#[test]
fn a_preflight_check_names_what_makes_a_swap_unsafe_and_what_it_changes() {
    if !may_make_namespaces() {
        return;
    }
    let (lab, nodes) = lab_of_three();
    let mut cluster = Cluster::start(&lab, nodes, VXLAN, Mode::Iptables, "flanneld");
    let flags = cluster.flags.clone();
    let preflight = |cluster: &Cluster<'_>, status: i32, finding: &str, part: &str| {
        let (found, text) = cluster.ask("doctor --preflight");
        let is_said = text.lines().any(|line| line.starts_with(finding) && line.contains(part));
        assert!(found == status && is_said, "{status}, {finding}, {part}: {found} {text}");
    };
    let config = |cluster: &Cluster<'_>, text: &str| {
        cluster.etcd.ctl(&format!("put /coreos.com/network/config '{text}'"));
    };

    cluster.flags = flags.replace("--ip-masq=true", "--ip-masq=false");
    preflight(&cluster, 3, "change  flags: ", "--ip-masq is `true` for upstream's daemon and `false` here");
    preflight(&cluster, 3, "change  masquerade: ", "ip nat FLANNEL-POSTRTG is removed");
    preflight(&cluster, 3, "change  subnet_env: ", "FLANNEL_IPMASQ changes from true to false");
    cluster.flags = format!("{flags} --public-ip=192.168.77.99 --iface=eth0");
    preflight(&cluster, 1, "error   lease: ", "the pods of this node use addresses of 10.244.32.0/24");
    cluster.flags = flags.replace(ENDPOINT, "http://192.168.77.254:1");
    preflight(&cluster, 1, "error   start: ", "192.168.77.254:1");
    cluster.flags = flags.clone();

    config(&cluster, r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "ipsec"}}"#);
    preflight(&cluster, 1, "error   start: ", "ipsec");
    config(&cluster, r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 0}}"#);
    preflight(&cluster, 1, "error   start: ", "Backend.Port");
    config(&cluster, r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 4789}}"#);
    preflight(
        &cluster,
        1,
        "error   port: ",
        "flannel.1 uses UDP port 8472 but the network configuration has 4789",
    );
    preflight(&cluster, 1, "change  device: ", "flannel.1 is recreated");
    config(&cluster, r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "MTU": 1400}}"#);
    preflight(&cluster, 3, "change  mtu: ", "FLANNEL_MTU changes from 1450 to 1350");
    preflight(
        &cluster,
        3,
        "change  device: ",
        "flannel.1 is changed in place: ip link set flannel.1 mtu 1350",
    );
    config(&cluster, r#"{"Network": "10.244.0.0/12", "Backend": {"Type": "vxlan"}}"#);
    preflight(
        &cluster,
        3,
        "change  subnet_env: ",
        "FLANNEL_NETWORK changes from 10.244.0.0/16 to 10.240.0.0/12",
    );
    config(&cluster, VXLAN.net_conf);

    let key = "/coreos.com/network/subnets/10.244.6.0-24";
    let lease = cluster.etcd.ctl(&format!("get --print-value-only {key}"));
    cluster
        .etcd
        .ctl(&format!("put --ignore-lease {key} '{}'", lease.trim().replace("192.168.77.2", "127.0.0.1")));
    preflight(&cluster, 1, "error   peer: ", "flanneld does not program peer 10.244.6.0/24");
    cluster.etcd.ctl(&format!("put --ignore-lease {key} '{}'", lease.trim()));

    cluster.sh("nft 'table ip flannel-ipv4 { chain extra { type filter hook input priority 0; accept; }; }'");
    preflight(
        &cluster,
        3,
        "change  rules: ",
        "flanneld removes chain extra of another program from table ip flannel-ipv4",
    );
    cluster.sh("nft delete table ip flannel-ipv4");

    let other_network = format!("--ip-masq --subnet-file={}", lab.folder().join("other.env").display());
    let second = Dummy::start(cluster.node(), "flanneld-v0.28.9", false, &other_network, &[]);
    let stays = format!("other networks keep running and keep their rules: process {}, ", second.0.id());
    preflight(&cluster, 0, "info    daemon: ", &stays);
    drop(second);
    let same_file = format!("{flags} stray --iptables-resync=0");
    let second = Dummy::start(cluster.node(), "flanneld-v0.28.9", false, &same_file, &[]);
    preflight(&cluster, 1, "error   daemon: ", &format!("process {}, ", second.0.id()));
    preflight(&cluster, 1, "error   flags: ", "stray");
    preflight(&cluster, 1, "error   flags: ", "--iptables-resync=0");
    drop(second);
    preflight(&cluster, 0, "info    daemon: ", "upstream's flanneld runs here");
}

#[test]
fn a_daemon_in_another_container_is_known_by_its_health_port() {
    if !may_make_namespaces() {
        return;
    }
    let (lab, nodes) = lab_of_three();
    let Cluster { nodes, etcd: _etcd, flags, daemon } =
        Cluster::start(&lab, nodes, VXLAN, Mode::Iptables, "flanneld");
    drop(daemon);
    let node = nodes.node(0);
    let flags = format!("{flags} --healthz-port=8081");
    let listener = node.namespace().enter(|| TcpListener::bind("127.0.0.1:8081").unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 256];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nflanneld is running");
        }
    });
    for (command, part) in [
        ("status", "node        ready, "),
        ("doctor", "info    daemon: "),
        ("doctor --preflight", "info    daemon: "),
    ] {
        let (status, text) = flanneld(node, &format!("{command} {flags}"));
        let seen = format!("{part}upstream's flanneld answers on 0.0.0.0:8081");
        assert!(status == 0 && text.contains(&seen), "{command}: {status} {text}");
    }
}

#[test]
fn on_kubernetes_a_preflight_check_lists_the_annotations_that_a_swap_writes() {
    const SERVER: &str = "192.168.77.254:6443";
    if !may_make_namespaces() {
        return;
    }
    let (lab, nodes) = lab_of_three();
    let api = FakeApi::start_in(lab.outside(), SERVER.parse().unwrap()).unwrap();
    for (n, node) in nodes.iter().enumerate() {
        let (octet, mac, _) = recorded_upstream::NODES[n];
        api.add_node(node.name(), &[&format!("10.244.{octet}.0/24")]);
        for (name, value) in [
            ("kube-subnet-manager", "true".to_owned()),
            ("backend-type", "vxlan".to_owned()),
            ("backend-data", format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#)),
            // The address of the outside, which forwards to the node.
            ("public-ip", if n == 0 { "203.0.113.9".to_owned() } else { node.v4().to_string() }),
        ] {
            api.annotate(node.name(), &format!("flannel.alpha.coreos.com/{name}"), Some(&value));
        }
        recorded_upstream::start_upstream(node, n, VXLAN, Mode::Iptables);
        fs::write(node.subnet_file(), VXLAN.subnet_env(n)).unwrap();
    }
    let overwrite = "flannel.alpha.coreos.com/public-ip-overwrite";
    api.annotate("node1", overwrite, Some("203.0.113.9"));
    let node = &nodes[0];
    let net_conf = lab.folder().join("net-conf.json");
    fs::write(&net_conf, VXLAN.net_conf).unwrap();
    let flags = format!(
        "--kube-subnet-mgr --kube-api-url=http://{SERVER} --ip-masq --iface=eth0 --net-config-path={} --subnet-file={}",
        net_conf.display(),
        node.subnet_file().display()
    );
    let _daemon = Dummy::start(node, "flanneld", false, &flags, &[("NODE_NAME", "node1")]);
    let preflight = || {
        let before = api.node("node1");
        let mut command = Command::new(BINARY);
        command.args(["doctor", "--preflight"]).args(flags.split_whitespace()).env("NODE_NAME", "node1");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
        assert_eq!(api.node("node1"), before, "nothing is written");
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (status, text) = preflight();
    assert!(
        status == Some(0)
            && text.contains("published: the addresses that other nodes use for this node do not change"),
        "{text}"
    );
    api.annotate("node1", overwrite, None);
    let (status, text) = preflight();
    let told = "change  published: the annotation flannel.alpha.coreos.com/public-ip of this node becomes `192.168.77.1`";
    assert!(status == Some(3) && text.contains(told), "{text}");
    api.edit_node("node1", |node| {
        node["spec"]["podCIDR"] = "10.244.99.0/24".into();
        node["spec"]["podCIDRs"] = serde_json::json!(["10.244.99.0/24"]);
    });
    let (status, text) = preflight();
    let told = "error   lease: the pods of this node use addresses of 10.244.32.0/24, but flanneld would lease 10.244.99.0/24";
    assert!(status == Some(1) && text.contains(told), "{text}");
}
