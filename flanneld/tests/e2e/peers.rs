//! Real daemons: what they say of peers that contradict each other or the host, and what they leave to a next one.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use testkit::{Daemon, Flannel, Lab, Node, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(15);

fn log_of(node: &Node) -> String {
    fs::read_to_string(node.folder().join("flanneld.log")).unwrap_or_default()
}

fn start(flannel: &Flannel, node: &Node) -> Daemon {
    flannel.start_ready(node, SOON).unwrap()
}

/// Waits until the log has this text.
#[track_caller]
fn heard(node: &Node, words: &str) {
    let said = wait_for(SOON, || log_of(node).contains(words).then_some(()));
    assert!(said.is_some(), "`{words}` is not in the log:\n{}", log_of(node));
}

#[test]
fn a_conflict_is_told_once_when_it_begins_and_once_when_it_ends() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/16", "SubnetMax": "10.244.9.0", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let (node, other) = (lab.add_node().unwrap(), lab.add_node().unwrap());
    let _other = start(&flannel, &other);
    let store = Connection::open(flannel.lease_file()).unwrap();
    store.busy_timeout(SOON).unwrap();
    for (subnet, public, mac) in [
        ("10.244.20.0-24", "172.30.0.20", "02:00:00:00:66:20"),
        ("10.244.20.0-25", "172.30.0.21", "02:00:00:00:66:21"),
        ("10.244.30.0-24", "172.30.0.30", "02:00:00:00:66:30"),
        ("10.244.31.0-24", "172.30.0.30", "02:00:00:00:66:31"),
        ("10.244.40.0-24", "172.30.0.40", "02:00:00:00:66:40"),
        ("10.244.41.0-24", "172.30.0.41", "02:00:00:00:66:40"),
        ("10.244.50.0-24", "172.30.0.50", "02:00:00:00:66:50"),
    ] {
        let value = format!(
            r#"{{"PublicIP":"{public}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
        );
        store.execute("INSERT INTO lease (key, attributes) VALUES (?1, ?2)", [subnet, &value]).unwrap();
    }
    let network = node.namespace();
    network.sh("ip route add 10.244.50.0/24 via 192.168.77.254 proto static metric 100").unwrap();
    let daemon = start(&flannel, &node);
    let begun = [
        "peer 10.244.20.0/24 (node 172.30.0.20) contains 10.244.20.0/25, the subnet of node 172.30.0.21",
        "peer 10.244.20.0/25 (node 172.30.0.21) is not programmed: the peer's subnet starts with the same address as 10.244.20.0/24, the subnet of node 172.30.0.20",
        "peers 10.244.30.0/24 and 10.244.31.0/24 publish the same public address 172.30.0.30; flanneld programs both",
        "peer 10.244.41.0/24 (node 172.30.0.41) is not programmed: node 172.30.0.40 with subnet 10.244.40.0/24 has the same MAC address and is programmed instead",
        "peer 10.244.50.0/24 (node 172.30.0.50) is not programmed: this host has a route of another program to the peer's subnet: 10.244.50.0/24 via 192.168.77.254",
    ];
    for words in begun {
        heard(&node, words);
    }
    let routes = network.sh("ip route show proto 70").unwrap();
    for (subnet, there) in [
        ("10.244.20.0/24", true),
        ("10.244.20.0/25", false),
        ("10.244.30.0/24", true),
        ("10.244.31.0/24", true),
        ("10.244.40.0/24", true),
        ("10.244.41.0/24", false),
        ("10.244.50.0/24", false),
    ] {
        assert_eq!(routes.contains(subnet), there, "{subnet}\n{routes}");
    }

    // What happens to the host is no reason to say it again, nor is a full look.
    network
        .sh("ip link add other0 type bridge; ip link set other0 up; ip addr add 172.31.0.1/24 dev other0")
        .unwrap();
    network.sh("ip link del other0; ip route del 10.244.30.0/24").unwrap();
    let back = || network.sh("ip route show proto 70").unwrap().contains("10.244.30.0/24");
    assert!(wait_for(SOON, || back().then_some(())).is_some());

    // Each ends by itself; of others nothing is said.
    network.sh("ip route del 10.244.50.0/24 metric 100").unwrap();
    heard(&node, "peer 10.244.50.0/24 is programmed again");
    assert!(network.sh("ip route show 10.244.50.0/24").unwrap().contains("proto 70"));
    for key in ["10.244.20.0-24", "10.244.40.0-24"] {
        store.execute("DELETE FROM lease WHERE key = ?1", [key]).unwrap();
    }
    heard(&node, "peer 10.244.20.0/25 is programmed again");
    heard(&node, "peer 10.244.41.0/24 is programmed again");
    daemon.terminate().unwrap();
    let log = log_of(&node);
    for words in begun {
        assert_eq!(log.matches(words).count(), 1, "{words}\n{log}");
    }
}

#[test]
fn what_the_last_configuration_made_is_gone_after_a_restart_with_another_and_nothing_else_is() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let conf = |more: &str, backend: &str| {
        format!(r#"{{"Network": "10.244.0.0/16"{more}, "EnableNFTables": true, "Backend": {{{backend}}}}}"#)
    };
    let dual = r#", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56""#;
    let flannel = Flannel::new(&lab, BINARY, &conf(dual, r#""Type": "vxlan""#)).unwrap();
    let (node, other) = (lab.add_node().unwrap(), lab.add_node().unwrap());
    let mut daemons = [start(&flannel, &node), start(&flannel, &other)];
    let network = node.namespace();
    let shown = |what: &str| network.sh(what).unwrap();
    // Somebody else's: a device of flannel's names, and a route of our protocol on another.
    let address = node.v4();
    shown(&format!(
        "ip link add flannel.9 type vxlan id 9 local {address} dstport 4999 nolearning; ip link set flannel.9 up
         ip route add 10.99.1.0/24 dev flannel.9 proto 70"
    ));
    for (more, backend, devices, routes6) in [
        (dual, r#""Type": "host-gw""#, "flannel.9\n", 1),
        (dual, r#""Type": "vxlan", "VNI": 2"#, "flannel-v6.2\nflannel.2\nflannel.9\n", 1),
        ("", r#""Type": "vxlan", "VNI": 3"#, "flannel.3\nflannel.9\n", 0),
        (dual, r#""Type": "host-gw""#, "flannel.9\n", 1),
        ("", r#""Type": "host-gw""#, "flannel.9\n", 0),
    ] {
        for daemon in daemons {
            daemon.terminate().unwrap();
        }
        fs::write(flannel.net_conf_file(), conf(more, backend)).unwrap();
        daemons = [start(&flannel, &node), start(&flannel, &other)];
        let is_so = || {
            let devices_are = shown("ip -o link show type vxlan | sed 's/^[0-9]*: //; s/:.*//' | sort");
            let lines = |what: &str| shown(what).lines().count();
            devices_are == devices
                && lines("ip -6 route show proto 70") == routes6
                && lines("ip route show root 10.244.0.0/16 proto 70") == 1
                && shown("ip route show 10.99.1.0/24").contains("flannel.9")
        };
        let all = || shown("ip -o link show type vxlan; ip nexthop; ip route; ip -6 route show proto 70");
        assert!(
            wait_for(SOON, || is_so().then_some(())).is_some(),
            "{more} {backend}:\n{}\n{}",
            all(),
            log_of(&node)
        );
        let objects = usize::from(!backend.contains("host-gw"));
        assert_eq!(shown("ip nexthop").lines().count(), objects, "{more} {backend}:\n{}", all());
        heard(&node, "If it is unused, run `ip link del flannel.9`");
    }
}

#[test]
fn a_peer_that_restarts_without_ipv6_keeps_its_ipv4_subnet_and_nothing_of_ipv6_remains_on_other_nodes() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let (node, other) = (lab.add_node().unwrap(), lab.add_node().unwrap());
    let (_daemon, dual) = (start(&flannel, &node), start(&flannel, &other));
    let ipv4 = || node.namespace().sh("ip route show dev flannel.1; bridge fdb show dev flannel.1").unwrap();
    // With the addresses of that family on the underlay, and gateways on the overlay.
    let ipv6 = || {
        let shown = "ip -6 route show dev flannel-v6.1; ip -6 neigh show dev flannel-v6.1; bridge fdb show dev flannel-v6.1";
        let shown = node.namespace().sh(shown).unwrap();
        let of_peer = |line: &&str| ["via", "PERMANENT", "dst"].iter().any(|word| line.contains(word));
        shown.lines().filter(of_peer).count()
    };
    wait_for(SOON, || (ipv6() == 3 && ipv4().contains(" dst ")).then_some(()))
        .expect("a peer of both families");
    let before = ipv4();
    dual.terminate().unwrap();
    let off = Flannel::NET_CONF.replace("\"EnableIPv6\": true", "\"EnableIPv6\": false");
    assert_ne!(off, Flannel::NET_CONF);
    fs::write(flannel.net_conf_file(), off).unwrap();
    let _single = start(&flannel, &other);
    let gone = wait_for(SOON, || (ipv6() == 0).then_some(()));
    assert!(gone.is_some(), "{}", node.namespace().sh("ip -6 route; bridge fdb").unwrap());
    assert_eq!(ipv4(), before);
}
