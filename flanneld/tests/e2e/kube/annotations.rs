//! What a node publishes is damaged while its daemon is away, and its pods go on talking.

use std::process::{Command, Stdio};

use testkit::{FakeApi, Lab, Node, RoundTrips, may_make_namespaces, wait_for};

use super::{BINARY, DUAL_STACK, Daemon, SERVER, SOON, get, log_of};

const PREFIX: &str = "flannel.alpha.coreos.com/";
const PER_SECOND: u32 = 1000;

/// Two dual-stack nodes whose pods talk.
struct Cluster {
    api: FakeApi,
    nodes: [Node; 2],
    daemons: [Option<Daemon>; 2],
    server: String,
    _lab: Lab,
}

impl Cluster {
    fn start() -> Self {
        let mut lab = Lab::new().unwrap();
        let nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
        let api = FakeApi::start_in(lab.outside(), SERVER.parse().unwrap()).unwrap();
        let server = format!("--kube-api-url=http://{SERVER}");
        api.add_node("a", &["10.244.1.0/24", "fd00:10:244:1::/64"]);
        api.add_node("b", &["10.244.2.0/24", "fd00:10:244:2::/64"]);
        let daemons = [(&nodes[0], "a"), (&nodes[1], "b")]
            .map(|(node, name)| Some(Daemon::start_with(node, name, &server, DUAL_STACK)));
        Self { api, nodes, daemons, server, _lab: lab }
    }

    /// Waits until the daemon of `a` has taken in every change so far: the API server's watch keeps their order.
    fn seen_by_a(&self, marker: u8) {
        let name = format!("marker-{marker}");
        self.api.add_node(&name, &[&format!("10.244.{marker}.0/24")]);
        let data = format!(r#"{{"VNI":1,"VtepMAC":"02:00:00:00:01:{marker:02x}"}}"#);
        let ip = format!("192.168.77.{marker}");
        for (annotation, value) in [
            ("backend-type", "vxlan"),
            ("backend-data", &data),
            ("public-ip", &ip),
            ("kube-subnet-manager", "true"),
        ] {
            self.api.annotate(&name, &format!("{PREFIX}{annotation}"), Some(value));
        }
        let route = format!("ip route show 10.244.{marker}.0/24");
        let there = || !self.nodes[0].namespace().sh(&route).unwrap().is_empty();
        wait_for(SOON, || there().then_some(())).expect("the marker is routed to");
    }

    fn node(&self, name: &str) -> &Node {
        &self.nodes[usize::from(name == "b")]
    }

    fn readyz(&self, name: &str) -> String {
        get(self.node(name), "/readyz").unwrap_or_default()
    }

    fn ready(&self, name: &str) {
        let ready = || self.readyz(name).starts_with("flanneld is ready").then_some(());
        wait_for(SOON, ready).unwrap_or_else(|| panic!("{}", log_of(self.node(name))));
    }

    fn status(&self, name: &str) -> String {
        let mut command = Command::new(BINARY);
        command.arg("status").arg("--subnet-file").arg(self.node(name).subnet_file());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let done = self.node(name).namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    fn routes_to_b(&self) -> usize {
        let show = "ip route show 10.244.2.0/24; ip -6 route show fd00:10:244:2::/64";
        self.nodes[0].namespace().sh(show).unwrap().lines().count()
    }
}

#[test]
fn an_annotation_that_is_lost_or_damaged_while_its_daemon_is_away_costs_no_packet() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start();
    let pods = cluster.nodes.each_mut().map(|node| {
        wait_for(SOON, || node.subnet_file().exists().then_some(())).expect("it takes its lease");
        node.add_pod().unwrap()
    });
    for target in pods[1].addresses() {
        assert!(pods[0].namespace().reaches(target, SOON).unwrap());
    }
    cluster.daemons[1] = None;
    let published = |name: &str| cluster.api.annotation("b", &format!("{PREFIX}{name}")).unwrap();
    let before = ["public-ip", "public-ipv6", "backend-data", "backend-v6-data", "backend-type"]
        .map(|name| (name, published(name)));

    let streams: Vec<RoundTrips> = pods[1]
        .addresses()
        .map(|address| RoundTrips::start(&pods[0], &pods[1], address, PER_SECOND).unwrap())
        .collect();
    let mut marker = 100;
    for (name, value) in &before {
        for damage in [None, Some("nonsense")] {
            // Another word as backend type is a statement, not damage.
            if damage.is_some() && *name == "backend-type" {
                continue;
            }
            let annotation = format!("{PREFIX}{name}");
            cluster.api.annotate("b", &annotation, damage);
            cluster.seen_by_a(marker);
            assert_eq!(cluster.routes_to_b(), 2, "{name}: {damage:?}\n{}", log_of(&cluster.nodes[0]));
            cluster.api.annotate("b", &annotation, Some(value));
            cluster.seen_by_a(marker + 1);
            marker += 2;
        }
    }
    // Restarted with a lease that lacks something, the node goes on with what it remembers of it.
    let damaged = format!("{PREFIX}public-ip");
    cluster.api.annotate("b", &damaged, None);
    cluster.seen_by_a(marker);
    cluster.daemons[0].take().unwrap().terminate();
    cluster.daemons[0] = Some(Daemon::start_with(&cluster.nodes[0], "a", &cluster.server, DUAL_STACK));
    cluster.ready("a");
    cluster.seen_by_a(marker + 1);
    assert_eq!(cluster.routes_to_b(), 2, "{}", log_of(&cluster.nodes[0]));
    let told = format!("node \"b\": annotation {damaged} is missing");
    let note = format!("note: leases: {told} (public address ");
    let readyz = cluster.readyz("a");
    assert!(readyz.starts_with("flanneld is ready") && readyz.contains(&note), "{readyz}");
    let status = cluster.status("a");
    let line = status.lines().find(|line| line.starts_with("10.244.2.0/24")).expect("it is listed");
    assert!(line.contains("programmed") && line.contains(&told), "{status}");

    // Its own daemon ends that.
    cluster.daemons[1] = Some(Daemon::start_with(&cluster.nodes[1], "b", &cluster.server, DUAL_STACK));
    wait_for(SOON, || (!cluster.readyz("a").contains("note: leases")).then_some(())).expect("it is over");
    let (mut sent, mut lost) = (0, 0);
    for stream in streams {
        let report = stream.stop().unwrap();
        (sent, lost) = (sent + report.sent, lost + report.lost);
    }
    eprintln!("{lost} of {sent} packets lost");
    assert!(sent > 0);
    assert_eq!(lost, 0, "of {sent}");

    // Each was logged once when it began and once when it ended.
    let log = log_of(&cluster.nodes[0]);
    let (first_run, second_run) = log.split_at(log.find("Exiting cleanly").expect("it was stopped"));
    for (name, times) in [("public-ip", 3), ("public-ipv6", 2), ("backend-data", 2), ("backend-v6-data", 2)] {
        let begun = format!("] node \"b\": annotation {PREFIX}{name} ");
        let over = format!("] resolved: node \"b\": annotation {PREFIX}{name} ");
        let again = usize::from(name == "public-ip");
        assert_eq!(first_run.matches(&begun).count(), times, "{name}: {log}");
        assert_eq!(first_run.matches(&over).count(), times - again, "{name}: {log}");
        assert_eq!(second_run.matches(&begun).count(), again, "{name}: {log}");
        assert_eq!(second_run.matches(&over).count(), again, "{name}: {log}");
    }
    let both =
        first_run.matches(&format!("] node \"b\": annotation {PREFIX}backend-type is missing")).count();
    assert_eq!(both, 2, "for each family: {log}");
}

#[test]
fn a_node_whose_own_annotations_are_removed_publishes_them_again_and_is_no_peer_of_itself() {
    if !may_make_namespaces() {
        return;
    }
    let cluster = Cluster::start();
    let own = &cluster.nodes[0];
    wait_for(SOON, || own.subnet_file().exists().then_some(())).expect("it takes its lease");
    cluster.ready("a");
    // All at once: what is changed again and again is published after growing pauses.
    let names = [
        "public-ip",
        "public-ipv6",
        "backend-data",
        "backend-v6-data",
        "backend-type",
        "kube-subnet-manager",
    ]
    .map(|name| format!("{PREFIX}{name}"));
    let published = || names.clone().map(|name| cluster.api.annotation("a", &name));
    let before = published();
    assert!(before.iter().all(Option::is_some), "{before:?}");
    for damage in [None, Some("nonsense")] {
        cluster.api.annotate_all("a", &names, damage);
        let again = || (published() == before).then_some(());
        wait_for(SOON, again).unwrap_or_else(|| panic!("{damage:?}\n{}", log_of(own)));
    }
    cluster.seen_by_a(100);
    let log = log_of(own);
    for subnet in ["10.244.1.0/24", "fd00:10:244:1::/64"] {
        for word in ["added", "removed"] {
            assert!(!log.contains(&format!("Subnet {word}: {subnet}")), "{log}");
        }
    }
    let is_of_a_peer = |line: &&str| line.contains("] node \"a\"");
    assert_eq!(
        log.lines().find(is_of_a_peer),
        None,
        "its own lease is not reported as another node's: {log}"
    );
    assert!(!log.contains("sets condition"), "the condition of a new node is not a repair: {log}");
}
