//! Real daemons that start while their lease store is away: they go on as they were.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::etcd_host::{ENDPOINT, Etcd};
use testkit::{Daemon, FakeApi, Flannel, Lab, Node, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
/// How long a call to an etcd that does not answer lasts: `CALL_TIMEOUT` in flannel-lease/src/etcd/client.rs.
const ETCD_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a start waits for the store if it remembers enough to go on without.
const GRACE: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(20);
const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

fn log_of(node: &Node) -> String {
    fs::read_to_string(node.folder().join("flanneld.log")).unwrap_or_default()
}

fn state_file(node: &Node) -> PathBuf {
    node.subnet_file().with_extension("state.json")
}

/// Waits until a node remembers this many peers.
fn remembered(node: &Node, peers: usize) {
    let there = || {
        let text = fs::read_to_string(state_file(node)).ok()?;
        (text.matches("\"PublicIP\"").count() == peers + 1).then_some(())
    };
    wait_for(SOON, there).expect("the state file is written within seconds");
}

fn subnet(node: &Node) -> String {
    let env = fs::read_to_string(node.subnet_file()).unwrap();
    let subnet = env.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).unwrap();
    subnet.replace(".1/24", ".0/24")
}

fn key(node: &Node) -> String {
    format!("/coreos.com/network/subnets/{}", subnet(node).replace('/', "-"))
}

fn routes(node: &Node) -> String {
    node.namespace().sh("ip route show proto 70").unwrap()
}

/// Removes the rules and one route behind the daemon's back.
fn break_kernel(node: &Node, peer: &Node) {
    let remove = format!("nft flush ruleset; ip route del {}", subnet(peer));
    node.namespace().sh(&remove).unwrap();
}

fn is_repaired(node: &Node, peer: &Node) {
    assert!(node.namespace().sh("nft list ruleset").unwrap().contains("masquerade"));
    assert!(routes(node).contains(&subnet(peer)), "{}", routes(node));
}

fn readyz_says(daemon: &Daemon, text: &str) {
    let said = wait_for(SOON, || daemon.page("/readyz").unwrap().contains(text).then_some(()));
    assert!(said.is_some(), "{text} is not in {}", daemon.page("/readyz").unwrap());
}

#[test]
fn without_its_etcd_a_node_starts_as_it_was_and_then_learns_exactly_what_has_changed() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap(), lab.add_node().unwrap()];
    let etcd = Etcd::start(&lab);
    etcd.ctl(&format!("put /coreos.com/network/config '{NET_CONF}'"));
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let mut daemons = nodes.each_ref().map(|node| flannel.start(node).unwrap());
    for daemon in &mut daemons {
        daemon.ready(SOON).unwrap();
    }
    let pods = nodes.each_mut().map(|node| node.add_pod().unwrap());
    remembered(&nodes[0], 2);
    let [first, _second, third] = daemons;
    first.terminate().unwrap();
    third.kill().unwrap();

    // While nobody looks, one peer goes and another comes; then etcd goes.
    etcd.ctl(&format!("del {}", key(&nodes[2])));
    let newcomer = r#"{"PublicIP":"192.168.77.99","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}}"#;
    let taken: Vec<_> = nodes.iter().map(subnet).collect();
    let free = (1..9).map(|n| format!("10.244.{n}.0/24")).find(|free| !taken.contains(free)).unwrap();
    etcd.ctl(&format!("put /coreos.com/network/subnets/{} '{newcomer}'", free.replace('/', "-")));
    drop(etcd);
    break_kernel(&nodes[0], &nodes[1]);

    let first = flannel.start_ready(&nodes[0], SOON).unwrap();
    is_repaired(&nodes[0], &nodes[1]);
    readyz_says(&first, "note: store: cannot reach etcd");
    assert!(
        log_of(&nodes[0]).contains(&format!("starting with subnet {}", subnet(&nodes[0]).replace('/', "-")))
    );
    for target in pods[1].addresses().filter(|address| address.is_ipv4()) {
        assert!(pods[0].namespace().reaches(target, SOON).unwrap());
    }
    assert!(routes(&nodes[0]).contains(&taken[2]), "only etcd can say that it is gone");

    // As often as need be, however it ends.
    first.kill().unwrap();
    break_kernel(&nodes[0], &nodes[1]);
    let first = flannel.start_ready(&nodes[0], SOON).unwrap();
    is_repaired(&nodes[0], &nodes[1]);

    let _etcd = Etcd::start(&lab);
    wait_for(SOON, || routes(&nodes[0]).contains(&free).then_some(())).expect("the newcomer is seen");
    wait_for(SOON, || (!routes(&nodes[0]).contains(&taken[2])).then_some(()))
        .expect("who is gone is removed");
    assert!(routes(&nodes[0]).contains(&taken[1]));
    assert_eq!(nodes.iter().map(subnet).collect::<Vec<_>>(), taken);
    wait_for(SOON, || (!first.page("/readyz").unwrap().contains("note:")).then_some(()))
        .expect("no complaint stays");
}

#[test]
fn an_etcd_that_accepts_connections_and_never_answers_holds_up_nothing_else() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let etcd = Etcd::start(&lab);
    etcd.ctl(&format!("put /coreos.com/network/config '{NET_CONF}'"));
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let [mut daemon, _peer] = nodes.each_ref().map(|node| flannel.start_ready(node, SOON).unwrap());
    remembered(&nodes[0], 1);
    let stopped = etcd.stop();
    let silent = "note: store: cannot reach etcd";
    // Within the time between two keepalives of the watch.
    let noted = wait_for(SOON * 3, || daemon.page("/readyz").unwrap().contains(silent).then_some(()));
    assert!(noted.is_some(), "{}", daemon.page("/readyz").unwrap());
    for _start in 0..2 {
        assert_eq!(["/readyz", "/healthz"].map(|page| daemon.status(page).unwrap()), [200, 200]);
        break_kernel(&nodes[0], &nodes[1]);
        wait_for(SOON, || routes(&nodes[0]).contains(&subnet(&nodes[1])).then_some(())).expect("repaired");
        let began = Instant::now();
        assert!(daemon.terminate().unwrap().success());
        assert!(began.elapsed() < ETCD_CALL_TIMEOUT - Duration::from_secs(1), "{:?}", began.elapsed());
        assert!(routes(&nodes[0]).contains(&subnet(&nodes[1])), "what is in the kernel stays");
        daemon = flannel.start_ready(&nodes[0], SOON).unwrap();
        readyz_says(&daemon, silent);
    }
    drop(stopped);
    wait_for(SOON, || (!daemon.page("/readyz").unwrap().contains("note:")).then_some(()))
        .expect("no complaint stays");
}

#[test]
fn without_its_api_server_a_node_starts_as_it_was_and_then_learns_exactly_what_has_changed() {
    const SERVER: &str = "192.168.77.254:6443";
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let nodes = [lab.add_node().unwrap(), lab.add_node().unwrap(), lab.add_node().unwrap()];
    let api = FakeApi::start_in(lab.outside(), SERVER.parse().unwrap()).unwrap();
    api.require_token("first");
    let token = lab.folder().join("token");
    fs::write(&token, "first").unwrap();
    let kubeconfig = lab.folder().join("kubeconfig");
    fs::write(
        &kubeconfig,
        format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{{"name": "c", "cluster": {{"server": "http://{SERVER}"}}}}],
                "users": [{{"name": "u", "user": {{"tokenFile": "{}"}}}}],
                "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#,
            token.display()
        ),
    )
    .unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF)
        .unwrap()
        .store("--kube-subnet-mgr")
        .arg(format!("--kubeconfig-file={}", kubeconfig.display()));
    let names = ["a", "b", "c"];
    let start = |n: usize| flannel.clone().env("NODE_NAME", names[n]).start(&nodes[n]).unwrap();
    for (n, name) in names.iter().enumerate() {
        api.add_node(name, &[&format!("10.244.{}.0/24", n + 1)]);
    }
    let mut daemons = [start(0), start(1), start(2)];
    for daemon in &mut daemons {
        daemon.ready(SOON).unwrap();
    }
    remembered(&nodes[0], 2);
    let [first, _second, _third] = daemons;
    first.kill().unwrap();

    // While nobody looks, one peer goes; then the server goes, and is not back before it refuses the token.
    api.delete_node("c");
    api.set_away(true);
    api.require_token("second");
    break_kernel(&nodes[0], &nodes[1]);
    let mut first = start(0);
    first.ready(SOON).unwrap();
    is_repaired(&nodes[0], &nodes[1]);
    readyz_says(&first, "note: store: ");
    assert!(log_of(&nodes[0]).contains("starting with subnet 10.244.1.0-24 and 2 peers from the state file"));
    assert!(routes(&nodes[0]).contains("10.244.3.0/24"), "only the server can say that it is gone");
    // For as long as it may take, whatever others do meanwhile.
    for _ in 0..3 {
        break_kernel(&nodes[0], &nodes[1]);
        let repaired = || routes(&nodes[0]).contains("10.244.2.0/24").then_some(());
        wait_for(SOON, repaired).expect("it goes on repairing");
    }

    api.set_away(false);
    readyz_says(&first, "credentials");
    assert!(routes(&nodes[0]).contains("10.244.3.0/24"), "a refusal says nothing about peers");
    api.require_token("first");
    wait_for(SOON, || (!routes(&nodes[0]).contains("10.244.3.0/24")).then_some(()))
        .expect("who is gone is removed");
    is_repaired(&nodes[0], &nodes[1]);
    wait_for(SOON, || (!first.page("/readyz").unwrap().contains("note:")).then_some(()))
        .expect("no complaint stays");
}

#[test]
fn a_daemon_that_waits_says_for_what_and_ends_when_asked() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    // Nobody has this address; a packet to it is never answered.
    lab.outside().sh("ip route add blackhole 198.51.100.0/24").unwrap();
    let api = FakeApi::start_in(lab.outside(), "192.168.77.254:6444".parse().unwrap()).unwrap();
    api.add_node("a", &[]);
    for (store, waits_for) in [
        (
            "--kube-subnet-mgr --kube-api-url=http://192.168.77.254:6444",
            "lease from Kubernetes: node \"a\" pod cidr not assigned: on a new node",
        ),
        ("--etcd-endpoints=http://198.51.100.1:2379", "Couldn't fetch network config: cannot reach etcd"),
        ("--etcd-endpoints=http://192.168.77.254:2379", "Couldn't fetch network config: cannot reach etcd"),
        ("--kube-subnet-mgr --kube-api-url=http://198.51.100.1:6443", "cannot read node \"a\""),
        ("--kube-subnet-mgr --kube-api-url=http://192.168.77.254:6443", "cannot read node \"a\""),
    ] {
        let node = lab.add_node().unwrap();
        let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap().env("NODE_NAME", "a");
        let flannel = store.split(' ').skip(1).fold(flannel, Flannel::arg);
        let daemon = flannel.store(store.split(' ').next().unwrap()).start(&node).unwrap();
        let says = || log_of(&node).contains(waits_for).then_some(());
        assert!(wait_for(SOON, says).is_some(), "{store}: {}", log_of(&node));
        assert_eq!(daemon.status("/healthz").unwrap(), 200, "{store}: waiting is no reason to be killed");
        assert_eq!(daemon.status("/readyz").unwrap(), 503, "{store}");
        readyz_says(&daemon, waits_for);
        assert!(daemon.terminate().unwrap().success(), "{store}");
        assert!(!log_of(&node).contains("a call has not returned"), "{store}: {}", log_of(&node));
        assert!(!node.subnet_file().exists());
    }
}

#[test]
fn a_subnet_that_was_given_to_another_node_meanwhile_is_left_to_it() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = Etcd::start(&lab);
    etcd.ctl(&format!("put /coreos.com/network/config '{NET_CONF}'"));
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    remembered(&node, 0);
    daemon.kill().unwrap();
    let (before, key) = (subnet(&node), key(&node));
    let other = r#"{"PublicIP":"192.168.77.99","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}}"#;
    etcd.ctl(&format!("put {key} '{other}'"));
    drop(etcd);

    let daemon = flannel.start_ready(&node, SOON).unwrap();
    assert_eq!(subnet(&node), before, "nobody has told it yet");
    readyz_says(&daemon, "note: lease: ");

    let etcd = Etcd::start(&lab);
    wait_for(SOON, || (subnet(&node) != before).then_some(())).expect("it takes another subnet");
    wait_for(SOON, || routes(&node).contains(&before).then_some(())).expect("the other node is a peer now");
    assert!(etcd.subnets().contains(&format!("{key}\n{other}")), "its lease is as it was");
    assert!(log_of(&node).contains("the subnet of this node changed"));
}

/// Keeps a SQLite file locked until it is dropped.
struct Lock(Child);

impl Lock {
    fn on(flannel: &Flannel) -> Self {
        const SCRIPT: &str = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\ndb.execute('BEGIN EXCLUSIVE')\nprint(flush=True)\nsys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(flannel.lease_file());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Self(child)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn with_its_lease_file_locked_or_damaged_a_node_starts_as_it_was() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let mut daemons = nodes.each_ref().map(|node| flannel.start(node).unwrap());
    for daemon in &mut daemons {
        daemon.ready(SOON).unwrap();
    }
    remembered(&nodes[0], 1);
    for daemon in daemons {
        daemon.terminate().unwrap();
    }
    let restart = |breakage: &str| {
        break_kernel(&nodes[0], &nodes[1]);
        let mut daemon = flannel.start(&nodes[0]).unwrap();
        daemon.ready(SOON).unwrap_or_else(|error| panic!("{breakage}: {error}"));
        is_repaired(&nodes[0], &nodes[1]);
        readyz_says(&daemon, "note: ");
        daemon
    };
    let is_well = |daemon: Daemon| {
        wait_for(SOON, || (daemon.page("/readyz").unwrap() == "flanneld is ready").then_some(()))
            .expect("it recovers");
        assert!(routes(&nodes[0]).contains(&subnet(&nodes[1])));
        daemon.terminate().unwrap();
    };

    let lock = Lock::on(&flannel);
    let daemon = restart("locked");
    drop(lock);
    is_well(daemon);

    let (file, aside) = (flannel.lease_file(), flannel.lease_file().with_extension("aside"));
    fs::rename(&file, &aside).unwrap();
    fs::write(&file, "no database at all, but long enough to be taken for one ".repeat(100)).unwrap();
    let daemon = restart("damaged");
    fs::rename(&aside, &file).unwrap();
    is_well(daemon);

    // Nothing but subnet.env is left, as upstream's daemon leaves it, or what was remembered is damaged: a device that
    // peers may know under another MAC address is not touched before the store tells which.
    for damage in [None, Some("{\"version\": 1, \"net_conf\"")] {
        match damage {
            None => fs::remove_file(state_file(&nodes[0])).unwrap(),
            Some(text) => fs::write(state_file(&nodes[0]), text).unwrap(),
        }
        let lock = Lock::on(&flannel);
        let before =
            nodes[0].namespace().sh("ip -d link show flannel.1; ip route; nft list ruleset").unwrap();
        let mut daemon = flannel.start(&nodes[0]).unwrap();
        daemon.ready(GRACE * 2).expect_err("it waits");
        readyz_says(&daemon, "lease");
        let after = nodes[0].namespace().sh("ip -d link show flannel.1; ip route; nft list ruleset").unwrap();
        assert_eq!(after, before);
        drop(lock);
        daemon.ready(SOON).unwrap();
        is_well(daemon);
    }
    assert!(log_of(&nodes[0]).contains("subnet.state.json is not one that this flanneld wrote"));
}
