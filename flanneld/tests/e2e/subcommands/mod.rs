//! `flanneld status`, `plan`, `doctor` and `cleanup` beside a real daemon, in a lab of network namespaces.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{BINARY, SOON, assert_same};
use flanneld::status::model::socket;
use testkit::{Flannel, Lab, Namespace, Node, may_make_namespaces, wait_for};

mod cleanup;
mod collect;
mod upstream_node;

/// Everything in a namespace that flanneld could touch, without what changes by itself.
fn state(namespace: &Namespace) -> String {
    let dump = "nft -a list ruleset | sed -E 's/ # handle [0-9]+//; s/packets [0-9]+ bytes [0-9]+/counted/'
        ip -d -o link | sed -E 's/^[0-9]+: //; s/_timer +[0-9.]+//g; s/ (link-netnsid|gso_|gro_|numtxqueues|tso_)[^\\\\]*//'
        ip -o addr | sed -E 's/^[0-9]+: //; s/(valid|preferred)_lft [^ ]+//g'
        ip -4 route show table all; ip -6 route show table all; ip nexthop
        ip neigh show nud permanent; bridge fdb; ip rule";
    // The kernel adds link-local addresses only after duplicate address detection, and the multicast groups of IPv6
    // addresses with them.
    let settled = |line: &&str| !line.contains("fe80:") && !line.starts_with("33:33:");
    namespace.wait_for_local_routes().unwrap();
    namespace.sh(dump).unwrap().lines().filter(settled).map(|line| format!("{line}\n")).collect()
}

/// Runs a subcommand in a node's namespace: its status and what it printed, errors last.
fn flanneld(node: &Node, arguments: &[String]) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
    (done.status.code().unwrap(), text)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A node without a daemon, and another node of the cluster, to which it will have a route: its daemon ran and has ended.
fn beside_a_neighbour(net_conf: &str, flags: &[&str]) -> (Lab, Flannel, Node) {
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let flannel = flags.iter().fold(flannel, |flannel, flag| flannel.arg(*flag));
    let neighbour = lab.add_node().unwrap();
    flannel.start_ready(&neighbour, SOON).unwrap().terminate().unwrap();
    let node = lab.add_node().unwrap();
    (lab, flannel, node)
}

/// Brings a node to where `prepare` leaves it, compares what the daemon makes of that with what the commands of a plan
/// make of it, and returns these.
fn twins(net_conf: &str, prepare: &str, flags: &[&str]) -> String {
    let (_lab, flannel, node) = beside_a_neighbour(net_conf, flags);
    let prepare = format!("nft flush ruleset; {prepare}");
    node.namespace().sh(&prepare).unwrap();
    let mut plan = words("plan");
    plan.extend(flannel.arguments(&node));
    let (before, leases) = (state(node.namespace()), fs::read(flannel.lease_file()).unwrap());
    let (status, text) = flanneld(&node, &plan);
    assert!(
        status == 3 && text.starts_with("# This node has no lease yet. This is the plan for subnet "),
        "{text}"
    );
    assert_same(&state(node.namespace()), &before);
    assert!(fs::read(flannel.lease_file()).unwrap() == leases, "no lease is taken");
    assert!(!node.subnet_file().exists());

    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let nothing = || (flanneld(&node, &plan) == (0, "# Nothing to change.\n".to_owned())).then_some(());
    assert!(wait_for(SOON, nothing).is_some(), "after the daemon: {}", flanneld(&node, &plan).1);
    let (running, env) = (state(node.namespace()), fs::read(node.subnet_file()).unwrap());
    daemon.terminate().unwrap();
    let cleanup = format!("cleanup --files --subnet-file={}", node.subnet_file().display());
    assert_eq!(flanneld(&node, &words(&cleanup)).0, 0);
    node.namespace().sh(&prepare).unwrap();
    assert_same(&state(node.namespace()), &before);

    let (status, script) = flanneld(&node, &plan);
    assert_eq!(status, 3, "{script}");
    assert_same(&state(node.namespace()), &before);
    node.namespace().sh(&script).unwrap();
    assert_same(&state(node.namespace()), &running);
    assert_eq!(fs::read(node.subnet_file()).unwrap(), env);
    assert_eq!(flanneld(&node, &plan), (0, "# Nothing to change.\n".to_owned()));
    script
}

#[test]
fn a_plan_without_the_store_is_one_with_what_is_remembered() {
    if !may_make_namespaces() {
        return;
    }
    let (_lab, flannel, node) = beside_a_neighbour(Flannel::NET_CONF, &[]);
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let remembered = || flanneld::run::state_file::path(&node.subnet_file()).exists().then_some(());
    wait_for(SOON, remembered).unwrap();
    daemon.terminate().unwrap();
    let mut away = words("plan --etcd-endpoints=http://127.0.0.1:1");
    away.extend(flannel.arguments(&node).into_iter().filter(|argument| !argument.starts_with("--lease-db")));
    let (status, text) = flanneld(&node, &away);
    assert!(status == 0 && text.starts_with("# The lease store is unavailable"), "{status} {text}");
}

#[test]
fn a_plan_needs_no_tmp_as_our_image_has_none_and_names_a_folder_that_is_missing() {
    if !may_make_namespaces() {
        return;
    }
    let (_lab, flannel, node) = beside_a_neighbour(Flannel::NET_CONF, &[]);
    let leases = flannel.lease_file();
    let folders = || {
        let there = fs::read_dir(leases.parent().unwrap()).unwrap().map(Result::unwrap);
        there.filter(|entry| entry.file_type().unwrap().is_dir()).count()
    };
    let (before, content) = (folders(), fs::read(&leases).unwrap());
    let plan = |lease_file: &Path| {
        let mut command = Command::new(BINARY);
        command
            .arg("plan")
            .args(flannel.arguments(&node))
            .arg(format!("--lease-db={}", lease_file.display()));
        command.env("TMPDIR", "/nonexistent").stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
        (
            done.status.code(),
            String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap(),
        )
    };
    let (status, text) = plan(&leases);
    assert!(status == Some(3) && text.contains("192.168.77.1 "), "{status:?} {text}");
    assert!(folders() == before && fs::read(&leases).unwrap() == content, "something is left");
    let (status, text) = plan(Path::new("/nonexistent/leases.db"));
    assert!(status == Some(1) && text.contains("its directory does not exist; create it first"), "{text}");
}

#[test]
fn the_commands_of_a_plan_do_what_the_daemon_does() {
    if !may_make_namespaces() {
        return;
    }
    let drops = "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.9.0.0/16 -j ACCEPT; iptables-nft -A FORWARD -j DROP";
    let script = twins(Flannel::NET_CONF, drops, &["--ip-blackhole-route"]);
    for part in ["insert rule ip filter FORWARD", "ip route replace blackhole 10.244.", "cat > "] {
        assert!(script.contains(part), "{part} in {script}");
    }
}

#[test]
fn the_commands_of_a_plan_do_what_the_daemon_does_without_a_tunnel_and_with_every_option_of_it() {
    if !may_make_namespaces() {
        return;
    }
    let script = twins(
        r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend": {"Type": "host-gw"}}"#,
        "",
        &[],
    );
    assert!(script.contains("via 192.168.77.1 dev eth0") && !script.contains("vxlan"), "{script}");
    let script = twins(
        r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "NonMasqueradeCIDRs": ["fd12::/16"],
            "Backend": {"Type": "vxlan", "VNI": 7, "Port": 4789, "GBP": true, "Learning": true, "MTU": 1360,
            "TxChecksumOffload": "off"}}"#,
        "",
        &["--ip-masq-fully-random-disable"],
    );
    assert!(script.contains("flannel-v6.7") && script.contains("gbp"), "{script}");
}

#[test]
fn the_commands_of_a_plan_take_over_from_upstream_as_the_daemon_does() {
    if !may_make_namespaces() {
        return;
    }
    let script = twins(
        r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#,
        "ip link del flannel.1 2>/dev/null || true
        ip link add flannel.1 mtu 1400 type vxlan id 1 dev eth0 local 192.168.77.2 dstport 8472 learning
        ip addr add 10.244.250.0/32 dev flannel.1; ip link set flannel.1 address 02:00:00:00:00:01 up
        ip neigh add 10.244.251.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent
        bridge fdb add 02:00:00:00:00:02 dev flannel.1 dst 192.168.77.99
        ip route add 10.244.251.0/24 via 10.244.251.0 dev flannel.1 onlink
        nft add table ip flannel-ipv4; nft add chain ip flannel-ipv4 old; nft add rule ip flannel-ipv4 old drop
        iptables-nft -t nat -N FLANNEL-POSTRTG; iptables-nft -N FLANNEL-FWD
        iptables-nft -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 -m comment --comment 'flanneld masq' -j MASQUERADE
        iptables-nft -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG
        iptables-nft -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD",
        &[],
    );
    for part in ["delete chain ip nat FLANNEL-POSTRTG", "ip route del 10.244.251.0/24", "dev eth0 proto 70"] {
        assert!(script.contains(part), "{part} in {script}");
    }
}

/// The checks that found something, each with its severity, and the exit status. What the machine below the namespaces
/// lacks or has is left out.
fn doctor(node: &Node, flannel: &Flannel) -> (i32, Vec<String>, String) {
    let mut arguments = words("doctor -o json");
    arguments.extend(flannel.arguments(node));
    let (status, text) = flanneld(node, &arguments);
    let findings: serde_json::Value = serde_json::from_str(&text).expect(&text);
    let word = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = findings.as_array().unwrap().iter();
    let findings =
        findings.map(|finding| format!("{} {}", word(finding, "severity"), word(finding, "check")));
    let of_machine = ["bridge", "legacy", "manager", "rp_filter"];
    let findings = findings.filter(|finding| !of_machine.iter().any(|check| finding.ends_with(check)));
    (status, findings.collect(), text)
}

#[test]
fn doctor_names_what_keeps_pods_apart_and_touches_nothing() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let nodes: Vec<Node> = (0..2).map(|_| lab.add_node().unwrap()).collect();
    let start = |node: &Node| flannel.start_ready(node, SOON).unwrap();
    let (daemon, other_daemon) = (start(&nodes[0]), start(&nodes[1]));
    let node = &nodes[0];
    let sh = |script: &str| node.namespace().sh(script).unwrap();
    let other = |script: &str| nodes[1].namespace().sh(script).unwrap();
    let found = || doctor(node, &flannel).1;
    let expect = |expected: &[&str]| {
        let (_, found, text) = doctor(node, &flannel);
        assert_eq!(found, expected, "{text}");
    };
    sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let programmed = || found().is_empty().then_some(());
    assert!(wait_for(SOON, programmed).is_some(), "{}", doctor(node, &flannel).2);
    let before = state(node.namespace());
    assert_eq!(doctor(node, &flannel).0, 0);
    assert_same(&state(node.namespace()), &before);

    sh("sysctl -qw net.ipv4.ip_forward=0");
    assert_eq!(doctor(node, &flannel).0, 1);
    expect(&["error forwarding"]);
    sh("sysctl -qw net.ipv4.ip_forward=1");

    sh("nft 'table inet foreign { chain c { type filter hook forward priority 5; policy drop; }; }'");
    expect(&["error forward"]);
    sh("nft delete table inet foreign");

    other(
        "nft 'table inet foreign { chain c { type filter hook input priority 0; udp dport 8472 drop; }; }'",
    );
    expect(&["error tunnel", "error tunnel"]);
    other("nft delete table inet foreign");

    // A firewall that lets only echo requests pass.
    other(
        "nft 'table inet foreign { chain c { type filter hook input priority 0; udp dport 33434 drop; }; }'",
    );
    expect(&["error tunnel", "error tunnel"]);
    sh("sysctl -qw net.ipv4.ping_group_range='0 0'");
    expect(&[]);
    other("nft delete table inet foreign");

    let mtu = |mtu: u32| {
        let links = "ip -o link show type veth | sed -E 's/^[0-9]+: ([^@]+)@.*/\\1/'";
        lab.switch().sh(&format!("for link in $({links}); do ip link set $link mtu {mtu}; done")).unwrap();
    };
    mtu(1400);
    expect(&["error mtu", "error mtu"]);
    mtu(1500);

    daemon.terminate().unwrap();
    sh("ip route show proto 70 | cut -d' ' -f1 | xargs -rn1 ip route del; nft delete table ip flannel-ipv4");
    expect(&["error rules", "error kernel", "error tunnel", "warning daemon"]);

    let mut behind_nat = words("doctor --public-ip=203.0.113.9");
    behind_nat.extend(flannel.arguments(node));
    let (status, text) = flanneld(node, &behind_nat);
    assert!(status == 1 && text.contains("warning checksum: flannel.1 leaves checksums"), "{status} {text}");
    assert!(!text.contains("flannel-v6.1 leaves checksums"), "{text}");
    let mut behind_nat = words("doctor --public-ipv6=2001:db8::9");
    behind_nat.extend(flannel.arguments(node));
    let (_, text) = flanneld(node, &behind_nat);
    assert!(text.contains("warning checksum: flannel-v6.1 leaves checksums"), "{text}");
    assert!(!text.contains("flannel.1 leaves checksums"), "{text}");
    drop(other_daemon);
}

#[test]
fn doctor_takes_no_vlan_for_our_device_and_sees_who_has_the_port() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let told = || doctor(&node, &flannel).1.contains(&"error port".to_owned());
    assert!(!told());
    // As a VLAN is called; not every kernel of a test machine has these.
    let link = "ip link add eth0.1 type bridge; ip link set eth0.1 up";
    node.namespace().sh(link).unwrap();
    let _holder = node.namespace().enter(|| UdpSocket::bind("0.0.0.0:8472").unwrap()).unwrap();
    assert!(told(), "{}", doctor(&node, &flannel).2);
}

#[test]
fn status_is_the_daemons_word_and_without_one_the_kernels() {
    if !may_make_namespaces() {
        return;
    }
    let (_lab, flannel, node) = beside_a_neighbour(Flannel::NET_CONF, &[]);
    let status = |flags: &str| {
        let line = format!("status {flags} --subnet-file={}", node.subnet_file().display());
        flanneld(&node, &words(&line))
    };
    let (code, text) = status("");
    assert!(
        code == 1 && text.contains("NOT READY") && text.contains("daemon: none runs on this host"),
        "{text}"
    );
    assert!(text.contains("lease       none") && text.contains("rules       none"), "{text}");

    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let programmed = || status("").1.contains("2 programmed, 0 pending, 0 skipped").then_some(());
    assert!(wait_for(SOON, programmed).is_some(), "{}", status("").1);
    let (code, text) = status("--peers");
    assert_eq!(code, 0, "{text}");
    for part in
        ["node        ready", "sqlite, healthy", "vxlan over eth0", "flannel.1: VNI 1", "192.168.77.1 "]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let peers = |text: &str| {
        let status: flanneld::status::model::Status = serde_json::from_str(text).unwrap();
        (status.lease, status.peer_list)
    };
    let (code, told) = status("-o=json");
    assert_eq!(code, 0);

    daemon.kill().unwrap();
    let (code, read) = status("-o=json");
    assert_eq!(code, 1);
    let ((_, told), (_, read)) = (peers(&told), peers(&read));
    assert_eq!(read, told, "the kernel says the same");
    assert_eq!(read.len(), 2);
    assert!(status("--peers").1.contains(&read[0].mac.clone().unwrap()));
}

#[test]
fn a_daemon_leaves_a_socket_that_somebody_listens_at_and_takes_its_place_later() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let path = socket(&node.subnet_file());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let warned = || fs::read_to_string(daemon.log()).unwrap().contains("cannot listen on").then_some(());
    assert!(wait_for(SOON, warned).is_some());
    assert!(UnixStream::connect(&path).is_ok(), "the other's socket is gone");
    drop(theirs);
    let line = words(&format!("status --subnet-file={}", node.subnet_file().display()));
    let told = || flanneld(&node, &line).1.contains("node        ready").then_some(());
    assert!(wait_for(SOON, told).is_some(), "{}", flanneld(&node, &line).1);
}

#[test]
fn every_exit_status_is_the_documented_one() {
    let status = |line: &str| {
        let done = Command::new(BINARY).args(words(line)).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
        (done.status.code().unwrap(), text)
    };
    let version = Command::new(BINARY).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), concat!(env!("CARGO_PKG_VERSION"), "\n"));
    let folder = tempfile::tempdir().unwrap();
    let net_conf = folder.path().join("net-conf.json");
    fs::write(&net_conf, Flannel::NET_CONF).unwrap();
    let daemon =
        format!("--lease-db=/nonexistent/l.db --iface=absent0 --net-config-path={}", net_conf.display());
    for (line, code, said) in [
        ("--help", 0, "Exit status:"),
        ("--version", 0, env!("CARGO_PKG_VERSION")),
        ("plan --help", 0, "flanneld plan [--flag[=value]]..."),
        ("manifest --ip-masq", 0, "kind: DaemonSet"),
        ("manifest --backend=udp", 0, "kind: DaemonSet"),
        ("manifest --backend=wireguard", 0, "kind: DaemonSet"),
        ("manifest --backend=ipsec", 2, "--backend=ipsec"),
        ("cleanup -h", 0, "--dry-run[=<BOOL>]"),
        ("--bogus", 2, "flag provided but not defined: -bogus"),
        ("status --bogus --iptables-resync=0", 2, "--iptables-resync=0"),
        ("doctor -o=xml", 2, "--o=xml: text or json is expected"),
        ("plan --dry-run", 2, "flag provided but not defined: -dry-run"),
        ("cleanup --version", 2, "--version is not a flag of flanneld cleanup"),
        ("clean-up", 2, "unexpected argument `clean-up`"),
        (
            "plan --lease-db=/nonexistent/l.db --net-config-path=/nonexistent/net-conf.json",
            1,
            "failed to read net conf",
        ),
        (&*daemon, 1, "Could not find valid interface matching absent0"),
        (&*format!("-logtostderr {daemon}"), 1, "-logtostderr has no effect"),
    ] {
        let (found, text) = status(line);
        assert!(found == code && text.contains(said), "{line}: {found} {text}");
    }
}

#[test]
fn a_copy_that_is_called_flannel_is_the_cni_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("flannel");
    testkit::sh(&format!("cp {BINARY} {}", plugin.display()));
    let versions = Command::new(&plugin).env("CNI_COMMAND", "VERSION").output().unwrap();
    assert!(versions.status.success());
    assert!(String::from_utf8_lossy(&versions.stdout).contains("\"supportedVersions\""));
    // As a program for people it is still the daemon.
    let help = Command::new(&plugin).arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("--subnet-file"));
}
