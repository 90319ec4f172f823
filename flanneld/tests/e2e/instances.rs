//! Several daemons in one network namespace: they share the host, or one waits for the other's end.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{Daemon, Flannel, Lab, NewFlows, Node, RoundTrips, forwarded, may_make_namespaces, wait_for};

use crate::{Witness, pause};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(15);
const NET_CONF: &str =
    r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
const OTHER_NET_CONF: &str =
    r#"{"Network": "10.60.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan", "VNI": 2}}"#;

fn sh(node: &Node, command: &str) -> String {
    node.namespace().sh(command).unwrap()
}

/// Who answers on this port says why it is not ready.
fn unready(daemon: &Daemon) -> Option<String> {
    let page = daemon.page("/readyz").ok()?;
    (daemon.status("/readyz").ok()? == 503).then_some(page)
}

/// The tables with handles, without counters.
fn tables(node: &Node) -> String {
    sh(node, "nft -a -s list ruleset")
}

/// What changes in the ruleset within this time.
fn changes(node: &Node, milliseconds: u64) -> String {
    let witness = Witness::of_rules(node);
    pause(milliseconds);
    witness.saw()
}

#[test]
fn two_networks_share_a_host_without_being_told_and_keep_their_tables_over_restarts_in_any_order() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let other = flannel.beside("other", OTHER_NET_CONF).unwrap();
    let mut node = lab.add_node().unwrap();
    let start = |flannel: &Flannel, node: &Node| flannel.start(node).unwrap();
    let mut first = start(&flannel, &node);
    first.ready(SOON).unwrap();
    let mut second = start(&other, &node);
    second.ready(SOON).unwrap();
    let pods = [
        node.add_pod_of(&flannel.subnet_file(&node), "cni0").unwrap(),
        node.add_pod_of(&other.subnet_file(&node), "cni1").unwrap(),
    ];
    let made = tables(&node);
    for name in ["table ip flannel-ipv4 ", "table ip flannel-10.60.0.0-16-ipv4 "] {
        assert!(made.contains(name), "{name} is missing in\n{made}");
    }
    let flows = pods
        .each_ref()
        .map(|pod| NewFlows::start(pod, lab.outside(), &[Lab::OUTSIDE_V4], forwarded(1_000)).unwrap());
    assert_eq!(changes(&node, 5_000), "", "lines of `nft monitor` in 5 s");

    // Each alone, while the other is away and has to keep what it has.
    first.kill().unwrap();
    second.kill().unwrap();
    let mut second = start(&other, &node);
    second.ready(SOON).unwrap();
    let mut first = start(&flannel, &node);
    first.ready(SOON).unwrap();
    second.kill().unwrap();
    // Even if nothing is remembered.
    fs::remove_file(node.folder().join("other-subnet.state.json")).unwrap();
    first.kill().unwrap();
    let mut second = start(&other, &node);
    second.ready(SOON).unwrap();
    assert_eq!(tables(&node), made);
    let log = fs::read_to_string(second.log()).unwrap();
    assert!(log.contains("table prefix flannel-10.60.0.0-16: "), "{log}");
    let flags = other.arguments(&node).join(" ");
    let status = sh(&node, &format!("{BINARY} status {flags}"));
    assert!(status.contains("ip flannel-10.60.0.0-16-ipv4, as they should be"), "{status}");
    let plan = sh(&node, &format!("{BINARY} plan {flags}"));
    assert_eq!(plan, "# Nothing to change.\n");
    for flows in flows {
        let report = flows.stop().unwrap();
        assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");
        eprintln!("{} new flows, none lost, none unmasqueraded", report.sent);
    }
    drop(second);
    sh(&node, &format!("{BINARY} cleanup"));
    assert!(!tables(&node).contains("flannel"), "{}", tables(&node));
}

#[test]
fn of_two_networks_that_start_at_once_one_takes_a_prefix_of_its_own() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let other = flannel.beside("other", OTHER_NET_CONF).unwrap();
    for _ in 0..5 {
        let node = lab.add_node().unwrap();
        let mut daemons = [&flannel, &other].map(|flannel| flannel.start(&node).unwrap());
        for daemon in &mut daemons {
            daemon.ready(SOON).unwrap();
        }
        let made = tables(&node);
        assert_eq!(made.matches("chain postrtg").count(), 2, "{made}");
        assert!(made.contains("table ip flannel-ipv4 "), "{made}");
    }
}

/// A successor for the same network, as an overlapping restart has it.
fn succeeds(health_port: u16, wrap: &[&str]) {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let mut daemons: Vec<Daemon> = Vec::new();
    for node in &nodes {
        let daemon = flannel.start_ready(node, SOON).unwrap();
        daemons.push(daemon);
    }
    let pods = nodes.each_mut().map(|node| node.add_pod().unwrap());
    let target = pods[1].v4().unwrap().into();
    assert!(pods[0].namespace().reaches(target, SOON).unwrap());
    let node = &nodes[0];
    let trips = RoundTrips::start(&pods[0], &pods[1], target, forwarded(500)).unwrap();
    let flows = NewFlows::start(&pods[0], lab.outside(), &[Lab::OUTSIDE_V4], forwarded(1_000)).unwrap();
    let made = tables(node);
    let first = daemons.remove(0);

    let next = flannel.clone().health_port(health_port).wrapped_in(wrap);
    let mut successor = next.start(node).unwrap();
    let shares_port = health_port == 10256;
    let mut waiting = String::new();
    let is_waiting = || {
        let log = fs::read_to_string(successor.log()).unwrap();
        (log.contains("this one waits for it to exit")).then_some(log)
    };
    wait_for(SOON, is_waiting).expect("it waits");
    if !shares_port {
        waiting =
            wait_for(SOON, || unready(&successor).filter(|page| page.contains("this one waits"))).unwrap();
        let process = if wrap.is_empty() { "process " } else { "a process of another container" };
        assert!(waiting.contains(&format!("lease: another flanneld ({process}")), "{waiting}");
    }
    assert_eq!(changes(node, 3_000), "", "lines of `nft monitor` in 3 s");
    assert_eq!(first.status("/readyz").unwrap(), 200);
    first.kill().unwrap();
    let killed = Instant::now();
    successor.ready(SOON).unwrap();
    eprintln!("ready {:?} after the end of the first", killed.elapsed());
    pause(500);
    assert_eq!(tables(node), made);
    let (trips, flows) = (trips.stop().unwrap(), flows.stop().unwrap());
    eprintln!("{} packets between pods, {} new flows; {waiting}", trips.sent, flows.sent);
    assert_eq!((trips.lost, flows.lost, flows.unmasqueraded), (0, 0, 0), "{trips:?} {flows:?}");
    drop(successor);
}

#[test]
fn a_second_daemon_of_the_same_network_waits_and_takes_over_when_the_first_is_killed() {
    succeeds(10300, &[]);
}

#[test]
fn a_second_daemon_with_the_same_health_port_waits_too() {
    succeeds(10256, &[]);
}

#[test]
fn a_second_daemon_in_another_container_waits_too() {
    succeeds(10300, &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
}

/// Listens on abstract names without being root.
fn forge(node: &Node) -> Child {
    let names = "for kind in ('tables.flannel', 'network.10.244.0.0/16', 'device.flannel.1'):
    for slot in range(3):
        s = socket.socket(socket.AF_UNIX)
        s.bind(f'\\0flanneld.{kind}.{slot}')
        s.listen(0)
        held.append(s)";
    let script = format!(
        "import os, socket, time\nos.setuid(65534)\nheld = []\n{names}\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
         s.bind(b'\\0flanneld.tables.\\xff\\xfe x.0')\nopen('{}', 'w').close() if False else print('ok', flush=True)\ntime.sleep(300)",
        node.folder().display()
    );
    let log = fs::File::create(node.folder().join("forger.log")).unwrap();
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).stdin(Stdio::null()).stdout(log);
    let child = node.namespace().spawn(&mut command).unwrap();
    let is_up = || fs::read_to_string(node.folder().join("forger.log")).unwrap().contains("ok").then_some(());
    wait_for(SOON, is_up).expect("the forger listens");
    child
}

#[test]
fn names_that_a_user_without_privileges_took_stop_no_daemon_and_no_command() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let mut forger = forge(&node);
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    assert!(tables(&node).contains("table ip flannel-ipv4 "));
    // It still has its claims.
    let other = flannel.beside("other", NET_CONF).unwrap();
    let second = other.start(&node).unwrap();
    let waiting = wait_for(SOON, || unready(&second).filter(|page| page.contains("this one waits"))).unwrap();
    assert!(waiting.contains("holds network 10.244.0.0/16"), "{waiting}");
    drop(second);
    daemon.kill().unwrap();
    sh(&node, &format!("{BINARY} cleanup"));
    forger.kill().unwrap();
    forger.wait().unwrap();
}

#[test]
fn daemons_that_may_not_share_a_prefix_or_a_device_name_what_is_taken() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let _daemon = flannel.start_ready(&node, SOON).unwrap();
    let explicit = flannel.beside("explicit", OTHER_NET_CONF).unwrap().arg("--table-prefix=flannel");
    let second = explicit.start(&node).unwrap();
    let waiting = wait_for(SOON, || unready(&second).filter(|page| page.contains("this one waits"))).unwrap();
    assert!(waiting.contains("holds the tables of --table-prefix=flannel"), "{waiting}");
    drop(second);
    let same_vni = OTHER_NET_CONF.replace(r#", "VNI": 2"#, "");
    let third = flannel.beside("third", &same_vni).unwrap().start(&node).unwrap();
    let waiting = wait_for(SOON, || unready(&third).filter(|page| page.contains("this one waits"))).unwrap();
    assert!(waiting.contains("holds device flannel.1"), "{waiting}");
}

/// Stale tables would go on masquerading by the network that was.
#[test]
fn a_network_that_gets_another_prefix_takes_its_former_tables_and_rules_away_without_losing_a_packet() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let other = flannel.beside("other", OTHER_NET_CONF).unwrap();
    let mut node = lab.add_node().unwrap();
    sh(&node, "iptables-nft -P FORWARD DROP");
    let mut daemons = [flannel.start(&node).unwrap(), other.start(&node).unwrap()];
    for daemon in &mut daemons {
        daemon.ready(SOON).unwrap();
    }
    let [_first, second] = daemons;
    let pod = node.add_pod_of(&other.subnet_file(&node), "cni1").unwrap();
    let flows = NewFlows::start(&pod, lab.outside(), &[Lab::OUTSIDE_V4], forwarded(1_000)).unwrap();
    let prefixes = || {
        let listed = sh(&node, "nft list tables ip");
        let names = listed.lines().filter_map(|line| line.strip_prefix("table ip ")?.strip_suffix("-ipv4"));
        names.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let marks = || {
        sh(&node, "iptables-nft -S FORWARD | grep -o 'flanneld accept[^\"]*' | sort -u").replace('\n', ",")
    };
    let first_two = prefixes();
    assert_eq!(first_two.len(), 2, "{first_two:?}");
    second.terminate().unwrap();

    // Whichever of the two started first has `flannel`.
    let wider = OTHER_NET_CONF.replace("10.60.0.0/16", "10.60.0.0/15");
    let wide = flannel.beside("other", &wider).unwrap();
    let second = wide.start_ready(&node, SOON).unwrap();
    assert_eq!(prefixes().len(), 2, "{:?}", prefixes());
    assert!(!prefixes().contains("flannel-10.60.0.0-16"), "{:?}", prefixes());
    let tenant = wide.clone().arg("--table-prefix=tenant");
    let plan = sh(&node, &format!("{BINARY} plan {} || true", tenant.arguments(&node).join(" ")));
    assert!(
        plan.contains("\ndelete table ip flannel") && plan.contains("add table ip tenant-ipv4"),
        "{plan}"
    );
    second.terminate().unwrap();
    let _second = tenant.start_ready(&node, SOON).unwrap();
    let left = prefixes();
    assert!(left.len() == 2 && left.contains("tenant"), "{left:?}");
    let both = marks();
    assert!(both.matches("flanneld accept").count() == 2 && both.contains("(tenant)"), "{both}");
    let report = flows.stop().unwrap();
    assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");
}
