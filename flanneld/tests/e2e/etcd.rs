//! Real daemons on a real etcd, in a lab of network namespaces.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::etcd_host::{ENDPOINT, Etcd};
use super::{Witness, pause};
use flanneld::serve::status_socket;
use flanneld::status::model::{Status, socket};
use testkit::{Flannel, Lab, Node, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(15);

pub(super) struct Daemon(Child);

impl Daemon {
    /// As upstream's documentation starts it.
    pub(super) fn start(node: &Node) -> Self {
        Self::start_with(node, &node.subnet_file(), &[])
    }

    fn start_with(node: &Node, subnet_file: &Path, more: &[&str]) -> Self {
        let log = File::options().create(true).append(true).open(node.folder().join("flanneld.log")).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["-etcd-endpoints", ENDPOINT, "-iface", "eth0", "-ip-masq"]).args(more);
        command.arg("-subnet-file").arg(subnet_file);
        command.stdin(Stdio::null()).stderr(log);
        Self(node.namespace().spawn(&mut command).unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(super) fn log_of(node: &Node) -> String {
    fs::read_to_string(node.folder().join("flanneld.log")).unwrap_or_default()
}

#[test]
fn nodes_on_etcd_wait_for_the_configuration_and_publish_what_upstream_would() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let etcd = Etcd::start(&lab);
    let _daemons = nodes.each_ref().map(Daemon::start);
    let waiting = "Couldn't fetch network config";
    wait_for(SOON, || log_of(&nodes[0]).contains(waiting).then_some(())).expect("it says what it waits for");

    etcd.ctl(r#"put /coreos.com/network/config '{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}'"#);
    let pods = nodes.each_mut().map(|node| {
        wait_for(SOON, || node.subnet_file().exists().then_some(())).expect("it takes a lease");
        node.add_pod().unwrap()
    });
    for target in pods[1].addresses() {
        assert!(pods[0].namespace().reaches(target, SOON).unwrap());
    }
    for node in &nodes {
        let env = fs::read_to_string(node.subnet_file()).unwrap();
        let subnet = env.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).unwrap();
        let key = subnet.replace(".1/24", ".0-24");
        let link = node.namespace().sh("ip -br link show flannel.1").unwrap();
        let mac = link.split_whitespace().nth(2).unwrap();
        let expected = format!(
            "/coreos.com/network/subnets/{key}\n{{\"PublicIP\":\"{}\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}}}\n",
            node.v4()
        );
        assert!(etcd.subnets().contains(&expected), "{expected}\n{}", etcd.subnets());
    }
}

#[test]
fn a_start_says_what_operators_of_upstream_search_logs_for() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = Etcd::start(&lab);
    let config = r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
    etcd.ctl(&format!("put /coreos.com/network/config '{config}'"));
    let ready = |times| {
        let said = || log_of(&node).matches("flannel is ready").count() == times;
        wait_for(SOON, || said().then_some(())).unwrap_or_else(|| panic!("{}", log_of(&node)));
    };
    let daemon = Daemon::start(&node);
    ready(1);
    drop(daemon);
    let _again = Daemon::start(&node);
    ready(2);
    let log = log_of(&node);
    let mut rest = log.as_str();
    for text in [
        "Installing signal handlers",
        "CLI flags config: {etcdEndpoints:",
        "Found network config - Backend type: vxlan",
        "Using interface with name eth0 and address 192.168.77.1",
        "Defaulting external address to interface address (192.168.77.1)",
        "VXLAN config: VNI=1 Port=8472 GBP=false Learning=false DirectRouting=false",
        "Created subnet manager: Etcd Local Manager with Previous Subnet: None",
        "Allocated lease (ip: 10.244.",
        "to current node (192.168.77.1)",
        "Starting flannel in nftables mode...",
        "Setting up masking rules",
        "Watching for new subnet leases",
        "Running backend.",
        "Wrote subnet file to ",
        "Interface flannel.1 mac address set to: ",
        "flannel is ready",
        "Created subnet manager: Etcd Local Manager with Previous Subnet: 10.244.",
        "Found lease (ip: 10.244.",
        "for current IP (192.168.77.1), reusing",
    ] {
        let at = rest.find(text).unwrap_or_else(|| panic!("{text} is not where it should be in\n{log}"));
        rest = &rest[at..];
    }
}

#[test]
fn a_deleted_lease_is_taken_again_and_the_pods_notice_nothing() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = Etcd::start(&lab);
    etcd.ctl(
        r#"put /coreos.com/network/config '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'"#,
    );
    let _daemon = Daemon::start(&node);
    wait_for(SOON, || node.subnet_file().exists().then_some(())).unwrap();
    let before = (etcd.subnets(), fs::read_to_string(node.subnet_file()).unwrap());
    let state = || {
        node.namespace()
            .sh("nft list ruleset; ip -o link show flannel.1; ip -o -4 addr show flannel.1")
            .unwrap()
    };
    let kernel = state();

    etcd.ctl("del --prefix /coreos.com/network/subnets/");
    wait_for(SOON, || (etcd.subnets() == before.0).then_some(())).expect("the same subnet, published again");
    assert_eq!(fs::read_to_string(node.subnet_file()).unwrap(), before.1);
    assert_eq!(state(), kernel);
}

#[test]
fn a_node_whose_only_subnet_another_took_is_not_ready_until_it_has_one_again() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = Etcd::start(&lab);
    let range = r#""SubnetMin": "10.244.1.0", "SubnetMax": "10.244.1.0""#;
    etcd.ctl(&format!(
        r#"put /coreos.com/network/config '{{"Network": "10.244.0.0/16", {range}, "Backend": {{"Type": "vxlan"}}}}'"#
    ));
    let _daemon = Daemon::start(&node);
    let status = || status_socket::ask(&socket(&node.subnet_file())).ok();
    wait_for(SOON, || status().filter(|status| status.ready)).expect("it becomes ready");
    let lease = "/coreos.com/network/subnets/10.244.1.0-24";
    let other = r#"{"PublicIP":"192.168.77.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}"#;
    etcd.ctl(&format!("put {lease} '{other}'"));
    // First it names the node that took the lease, then why it got no other.
    let is_lost = |status: &Status| {
        let unmet = status.unmet.get("lease");
        !status.ready && unmet.is_some_and(|unmet| unmet.starts_with("lease 10.244.1.0-24 is lost, "))
    };
    let unready = wait_for(SOON, || status().filter(is_lost));
    let unready = unready.unwrap_or_else(|| panic!("{:?} {}", status(), log_of(&node)));
    assert!(!unready.notes.contains_key("lease"), "{:?}", unready.notes);
    etcd.ctl(&format!("del {lease}"));
    wait_for(SOON, || status().filter(|status| status.ready)).expect("it is ready again");
}

#[test]
fn a_reload_while_etcd_is_away_is_done_when_it_is_back() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = Etcd::start(&lab);
    etcd.ctl(
        r#"put /coreos.com/network/config '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'"#,
    );
    let daemon = Daemon::start(&node);
    let status = || status_socket::ask(&socket(&node.subnet_file())).ok();
    let noted = |wanted: bool| {
        let is = || status().is_some_and(|status| status.notes.contains_key("configuration") == wanted);
        wait_for(SOON, || is().then_some(())).is_some()
    };
    wait_for(SOON, || status().filter(|status| status.ready)).expect("it becomes ready");
    drop(etcd);
    node.namespace().sh(&format!("kill -HUP {}", daemon.0.id())).unwrap();
    assert!(noted(true), "{:?}", status());
    let logged = |text: &str| wait_for(SOON, || log_of(&node).contains(text).then_some(())).is_some();
    assert!(logged("the lease store gives no usable answer; "), "{}", log_of(&node));
    let _etcd = Etcd::start(&lab);
    assert!(noted(false), "{:?}", status());
    assert!(logged("the lease store answers again after "), "{}", log_of(&node));
}

#[test]
fn endpoints_that_do_not_answer_are_not_waited_for_at_a_start() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    // A host that is gone, and a process that hangs: its kernel still takes connections.
    lab.outside().sh("ip route add blackhole 198.51.100.0/24").unwrap();
    let _hangs = lab.outside().enter(|| TcpListener::bind("192.168.77.254:2380").unwrap()).unwrap();
    let (gone, hangs) = ("http://198.51.100.1:2379", "http://192.168.77.254:2380");
    let cases = [
        vec![gone, ENDPOINT],
        vec![hangs, ENDPOINT],
        vec![gone, hangs, ENDPOINT],
        vec![ENDPOINT, gone, hangs],
    ];
    let node = lab.add_node().unwrap();
    let etcd = Etcd::start(&lab);
    etcd.ctl(
        r#"put /coreos.com/network/config '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'"#,
    );
    let start = |endpoints: &[&str]| {
        let store = format!("--etcd-endpoints={}", endpoints.join(","));
        let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap().store(store);
        let mut daemon = flannel.start(&node).unwrap();
        let duration = daemon.ready(SOON).unwrap();
        assert!(daemon.terminate().unwrap().success());
        duration
    };
    let undelayed = (0..3).map(|_| start(&[ENDPOINT])).min().unwrap();
    for endpoints in &cases {
        let mut durations = Vec::new();
        // A busy machine delays a start now and then; an endpoint that is waited for delays every one.
        while !durations.iter().any(|duration| *duration < undelayed + Duration::from_millis(1500)) {
            assert!(durations.len() < 10, "{endpoints:?}: {durations:?} instead of {undelayed:?}");
            durations.push(start(endpoints));
        }
    }
}

/// Two networks over the same hosts, as upstream's functional tests have them.
#[test]
fn two_daemons_on_each_host_keep_a_network_each() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let etcd = Etcd::start(&lab);
    etcd.ctl(r#"put /vxlan/network/config '{"Network": "10.50.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}'"#);
    etcd.ctl(r#"put /hostgw/network/config '{"Network": "10.60.0.0/16", "EnableNFTables": true, "Backend": {"Type": "host-gw"}}'"#);
    let files = nodes.each_ref().map(|node| ["vxlan.env", "hostgw.env"].map(|name| node.folder().join(name)));
    let mut daemons = Vec::new();
    for (node, [vxlan, hostgw]) in nodes.iter().zip(&files) {
        daemons.push(Daemon::start_with(node, vxlan, &["-etcd-prefix=/vxlan/network"]));
        daemons.push(Daemon::start_with(node, hostgw, &["-etcd-prefix=/hostgw/network"]));
    }
    // An address of each network on each host, as a pod would have it.
    let addresses = nodes.each_ref().map(|node| {
        let node_files = &files[usize::from(node.v4() != nodes[0].v4())];
        node_files.each_ref().map(|file| {
            let env = wait_for(SOON, || fs::read_to_string(file).ok()).expect("it takes a lease");
            let subnet = env.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).unwrap();
            let device = file.file_stem().unwrap().to_str().unwrap();
            let sh = |command: String| node.namespace().sh(&command).unwrap();
            sh(format!(
                "ip link add {device} type bridge; ip link set {device} up; ip addr add {subnet} dev {device}"
            ));
            subnet.split('/').next().unwrap().to_owned()
        })
    });
    let device = |target: &str| nodes[0].namespace().sh(&format!("ip route get {target}")).unwrap();
    for (own, target, dev) in [(0, 0, "flannel.1"), (1, 1, "eth0")] {
        let (from, to) = (&addresses[0][own], &addresses[1][target]);
        let ping = format!("ping -c 3 -i 0.2 -W 1 -I {from} {to}");
        let passed = wait_for(SOON, || nodes[0].namespace().sh(&ping).ok());
        assert!(passed.is_some(), "{ping}");
        assert!(device(to).contains(&format!("dev {dev} ")), "{}", device(to));
    }
    // Their rules lie side by side, and nobody touches the other's.
    let rules = || nodes[0].namespace().sh("nft -a list ruleset").unwrap();
    let made = rules();
    let has_a_table = |network: &str| {
        let of_table = |text: &&str| text.contains(&format!("ip saddr {network}"));
        let tables: Vec<&str> = made.split("\ntable ").filter(of_table).collect();
        assert_eq!(tables.len(), 1, "{network} in\n{made}");
        tables[0].contains("chain postrtg") && tables[0].contains("chain forward")
    };
    assert!(has_a_table("10.50.0.0/16") && has_a_table("10.60.0.0/16"), "{made}");
    let witness = Witness::of_rules(&nodes[0]);
    pause(2_000);
    assert_eq!(witness.saw(), "");
    assert_eq!(rules(), made);
}
