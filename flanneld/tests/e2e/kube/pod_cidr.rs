//! A node is deleted and registers again with another podCIDR: the documented commands let its pods start again.

use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{FakeApi, Lab, Node, may_make_namespaces, wait_for};

use super::{BINARY, DUAL_STACK, Daemon, NET_CONF, SERVER, SOON, get, log_of, network_is_available, page};

const IPV6: &str = r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
    "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
/// What the `bridge` plugin says.
const REFUSED: &str = "\"cni0\" already has an IP address different from";

/// The `ip` commands that docs/troubleshooting.md gives under this heading.
fn documented(heading: &str) -> Vec<&'static str> {
    let text = include_str!("../../../../docs/troubleshooting.md");
    let (_, section) = text.split_once(&format!("\n### {heading}\n")).expect("the heading");
    let section = section.split("\n### ").next().unwrap();
    let commands: Vec<&str> = section.lines().filter(|line| line.starts_with("ip ")).collect();
    assert!(!commands.is_empty(), "{section}");
    commands
}

fn run(node: &Node, subcommand: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.arg(subcommand).args(arguments).arg("--subnet-file").arg(node.subnet_file());
    command.env("NODE_NAME", "a").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}

struct Cluster {
    api: FakeApi,
    server: String,
    net_conf: &'static str,
    nodes: [Node; 2],
    daemons: [Option<Daemon>; 2],
    _lab: Lab,
}

impl Cluster {
    fn start(net_conf: &'static str, cidrs: &dyn Fn(u8) -> Vec<String>) -> Self {
        let mut lab = Lab::new().unwrap();
        let nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
        let api = FakeApi::start_in(lab.outside(), SERVER.parse().unwrap()).unwrap();
        let server = format!("--kube-api-url=http://{SERVER}");
        add(&api, "a", &cidrs(1));
        add(&api, "b", &cidrs(2));
        let daemons = [(&nodes[0], "a"), (&nodes[1], "b")]
            .map(|(node, name)| Some(Daemon::start_with(node, name, &server, net_conf)));
        for node in &nodes {
            wait_for(SOON, || is_ready(node).then_some(())).unwrap_or_else(|| panic!("{}", log_of(node)));
        }
        Self { api, server, net_conf, nodes, daemons, _lab: lab }
    }

    fn restart_a(&mut self) {
        self.daemons[0].take().unwrap().terminate();
        self.daemons[0] = Some(Daemon::start_with(&self.nodes[0], "a", &self.server, self.net_conf));
    }
}

fn add(api: &FakeApi, name: &str, cidrs: &[String]) {
    api.add_node(name, &cidrs.iter().map(String::as_str).collect::<Vec<_>>());
}

fn is_ready(node: &Node) -> bool {
    page(node, "/readyz").is_some_and(|page| page.starts_with("HTTP/1.0 200"))
}

fn v4(n: u8) -> String {
    format!("10.244.{n}.0/24")
}

fn v6(n: u8) -> String {
    format!("fd00:10:244:{n}::/64")
}

fn blocked_until_the_documented_commands(net_conf: &'static str, cidrs: &dyn Fn(u8) -> Vec<String>) {
    let mut cluster = Cluster::start(net_conf, cidrs);
    let old_pod = cluster.nodes[0].add_pod().unwrap();
    let target = cluster.nodes[1].add_pod().unwrap();
    assert!(is_ready(&cluster.nodes[0]));

    cluster.api.delete_node("a");
    add(&cluster.api, "a", &cidrs(9));
    let new =
        || std::fs::read_to_string(cluster.nodes[0].subnet_file()).unwrap().contains("SUBNET=10.244.9.1/24");
    wait_for(SOON, || new().then_some(())).expect("subnet.env follows");
    let refused = cluster.nodes[0].add_pod().unwrap_err().to_string();
    assert!(refused.contains(&REFUSED.replace('"', "\\\"")) || refused.contains(REFUSED), "{refused}");

    let problem = "pod bridge: bridge cni0 has the address 10.244.1.1/24 but this node's pod subnet is 10.244.9.0/24: \
                   new pods fail";
    let told = || get(&cluster.nodes[0], "/readyz").filter(|body| body.contains(problem));
    let body = wait_for(SOON, told).unwrap_or_else(|| panic!("{}", log_of(&cluster.nodes[0])));
    assert!(body.starts_with("flanneld is not ready") && body.contains("run `ip link del cni0`"), "{body}");
    let answer = page(&cluster.nodes[0], "/readyz").unwrap();
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    // Nobody restarts it for that.
    let healthz = page(&cluster.nodes[0], "/healthz").unwrap();
    assert!(healthz.starts_with("HTTP/1.0 200"), "{healthz}");
    // Both read a status that is kept for a moment.
    let metric = "flanneld_condition{condition=\"pod_bridge\"} 0";
    let counted =
        || get(&cluster.nodes[0], "/metrics").is_some_and(|text| text.contains(metric)).then_some(());
    wait_for(SOON, counted).expect("the metric says so");
    let shown = || {
        let status = run(&cluster.nodes[0], "status", &[]);
        (status.contains("NOT READY") && status.contains(problem)).then_some(())
    };
    wait_for(SOON, shown).expect("the status says so");
    let file = cluster.nodes[0].folder().join("net-conf.json");
    let file = format!("--net-config-path={}", file.display());
    let doctor = run(
        &cluster.nodes[0],
        "doctor",
        &["--ip-masq", "--kube-subnet-mgr", "--iface=eth0", &cluster.server, &file],
    );
    assert!(doctor.contains("error   pod_bridge: bridge cni0 has the address 10.244.1.1/24"), "{doctor}");
    assert!(doctor.contains("run `ip link del cni0`") && !doctor.contains("choose a Network"), "{doctor}");

    // A restart finds it too, and sets up everything else all the same.
    cluster.restart_a();
    let told = || get(&cluster.nodes[0], "/readyz").filter(|body| body.contains(problem));
    let only = |body: String| {
        let unmet = body.lines().skip(1).filter(|line| !line.starts_with("note: "));
        unmet.count() == 1
    };
    wait_for(SOON, || told().filter(|body| only(body.clone())))
        .unwrap_or_else(|| panic!("{}", log_of(&cluster.nodes[0])));
    wait_for(SOON, || network_is_available(&cluster.api, "a").then_some(()))
        .expect("the scheduler may send pods, which a plugin that cures this needs");

    // The pods of the former subnet keep the bridge, and their end alone does not cure it.
    let node = &cluster.nodes[0];
    let ports = || node.namespace().sh("ip -o link show master cni0").unwrap();
    assert!(!ports().is_empty());
    for address in old_pod.addresses() {
        assert!(!target.namespace().reaches(address, Duration::from_millis(300)).unwrap(), "{address}");
    }
    // The refused ones too, as the container runtime does.
    let pods = format!("{}-pod", node.namespace().name());
    testkit::sh(&format!(
        "for pod in $(ip -o netns list | grep -o '^{pods}[0-9]*'); do ip netns del $pod; done"
    ));
    wait_for(SOON, || ports().is_empty().then_some(())).expect("its port is gone");
    let refused = cluster.nodes[0].add_pod().unwrap_err().to_string();
    assert!(refused.contains("already has an IP address"), "{refused}");

    for command in documented("`\"cni0\" already has an IP address different from`") {
        cluster.nodes[0].namespace().sh(command).unwrap();
    }
    // Sooner than the next full check.
    wait_for(SOON, || is_ready(&cluster.nodes[0]).then_some(()))
        .unwrap_or_else(|| panic!("{}", get(&cluster.nodes[0], "/readyz").unwrap()));
    let pod = cluster.nodes[0].add_pod().unwrap();
    assert!(pod.v4().is_some_and(|address| address.octets()[2] == 9));
    for address in target.addresses() {
        assert!(pod.namespace().reaches(address, SOON).unwrap(), "{address}");
    }
    assert!(is_ready(&cluster.nodes[0]));
    let log = log_of(&cluster.nodes[0]);
    assert_eq!(log.matches("] bridge cni0 has the address").count(), 2, "once in each run: {log}");
    assert_eq!(log.matches("new pods start again: no bridge has").count(), 1, "{log}");
}

#[test]
fn pods_start_again_after_the_documented_commands_when_the_pod_cidr_has_changed() {
    if !may_make_namespaces() {
        return;
    }
    blocked_until_the_documented_commands(NET_CONF, &|n| vec![v4(n)]);
}

#[test]
fn pods_of_both_families_start_again_after_the_documented_commands() {
    if !may_make_namespaces() {
        return;
    }
    blocked_until_the_documented_commands(DUAL_STACK, &|n| vec![v4(n), v6(n)]);
}

#[test]
fn a_former_ipv6_address_is_noted_and_blocks_no_pod() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(IPV6, &|n| vec![v6(n)]);
    cluster.nodes[0].add_pod().unwrap();
    let target = cluster.nodes[1].add_pod().unwrap();
    cluster.api.delete_node("a");
    add(&cluster.api, "a", &[v6(9)]);
    let note = "note: pod bridge: bridge cni0 still has the address fd00:10:244:1::1/64";
    let told = || get(&cluster.nodes[0], "/readyz").filter(|body| body.contains(note));
    let body = wait_for(SOON, told).unwrap_or_else(|| panic!("{}", log_of(&cluster.nodes[0])));
    assert!(body.starts_with("flanneld is ready"), "{body}");
    let env = || std::fs::read_to_string(cluster.nodes[0].subnet_file()).unwrap();
    wait_for(SOON, || env().contains("SUBNET=fd00:10:244:9::1/64").then_some(()))
        .expect("subnet.env follows");
    let pod = cluster.nodes[0].add_pod().unwrap();
    assert_eq!(pod.v6().map(|address| address.segments()[3]), Some(9));
    for address in target.addresses() {
        assert!(pod.namespace().reaches(address, SOON).unwrap(), "{address}");
    }
    assert!(body.contains("`ip address del fd00:10:244:1::1/64 dev cni0`"), "{body}");
    cluster.nodes[0].namespace().sh("ip address del fd00:10:244:1::1/64 dev cni0").unwrap();
    let over = || !get(&cluster.nodes[0], "/readyz").is_some_and(|body| body.contains("pod bridge"));
    wait_for(SOON, || over().then_some(())).expect("the note is gone");
    for address in target.addresses() {
        assert!(pod.namespace().reaches(address, SOON).unwrap(), "{address}");
    }
}
