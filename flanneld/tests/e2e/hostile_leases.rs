//! What a lease store may say without harm: daemons and pods among leases that nobody sane would publish.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use testkit::{Daemon, FakeApi, Flannel, Lab, Node, Pod, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(10);
/// Nodes get subnets from 10.244.1.0 to 10.244.9.0; what is hostile uses others.
const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "SubnetMin": "10.244.1.0", "SubnetMax": "10.244.9.0",
    "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;

fn vxlan(public: &str, mac: &str) -> String {
    format!(
        r#"{{"PublicIP":"{public}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
    )
}

/// Lease keys and values, and what the log is to say of each.
fn hostile(own: &str, own_subnet: &str) -> Vec<(String, String, String)> {
    let mac = "02:00:00:00:66:66";
    let peer = |subnet: &str, public: &str, why: &str| {
        let log = format!("peer {subnet} (node {public}) is not programmed: {why}");
        (subnet.replace('/', "-"), vxlan(public, mac), log)
    };
    let data = |key: &str, data: &str, why: &str| {
        let value = format!(r#"{{"PublicIP":"192.168.77.66","BackendType":"vxlan","BackendData":{data}}}"#);
        (key.to_owned(), value, why.to_owned())
    };
    let nobody = |ip: &str| format!("the peer's underlay address {ip} is not the address of a host");
    let long = "x".repeat(1 << 20);
    vec![
        peer("10.244.100.0/24", own, &format!("the peer's underlay address {own} belongs to this node")),
        peer("10.244.101.0/24", "127.0.0.53", &nobody("127.0.0.53")),
        peer("10.244.102.0/24", "224.0.0.18", &nobody("224.0.0.18")),
        peer("10.244.103.0/24", "255.255.255.255", &nobody("255.255.255.255")),
        peer("10.244.104.0/24", "192.168.77.255", &nobody("192.168.77.255")),
        peer(
            "10.244.0.0/16",
            "192.168.77.66",
            &format!("the peer's subnet overlaps {own_subnet}, the subnet of this node"),
        ),
        peer(
            "192.168.77.0/24",
            "192.168.99.66",
            "the peer's subnet contains 192.168.77.0/24, a network that this host is attached to",
        ),
        peer(
            "192.168.77.64/26",
            "192.168.77.66",
            "the peer's subnet contains its own underlay address 192.168.77.66",
        ),
        peer(
            "0.0.0.0/1",
            "192.168.77.66",
            &format!("the peer's subnet overlaps {own_subnet}, the subnet of this node"),
        ),
        peer("128.0.0.0/2", "192.168.77.66", "the peer's subnet is outside the pod network"),
        peer("8.8.8.0/24", "192.168.77.66", "the peer's subnet is outside the pod network"),
        data(
            "10.244.105.0-24",
            r#"{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}"#,
            "is not the MAC address of a single host",
        ),
        data(
            "10.244.106.0-24",
            r#"{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}"#,
            "`01:00:5e:00:00:01` is not the MAC",
        ),
        data(
            "10.244.107.0-24",
            r#"{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}"#,
            "`00:00:00:00:00:00` is not the MAC",
        ),
        data(
            "10.244.108.0-24",
            r#"{"VNI":16777217,"VtepMAC":"02:00:00:00:66:66"}"#,
            "the peer's VNI is 16777217",
        ),
        data(
            "10.244.109.0-24",
            r#"{"VNI":-1}"#,
            "leases.db`: BackendData cannot be used: invalid value: integer `-1`",
        ),
        data(
            "10.244.110.0-24",
            &format!(r#""{long}""#),
            "lease 10.244.110.0-24 in `LEASES`: it is longer than the 16384 bytes",
        ),
        data("10.244.111.0-24", &"[".repeat(8000), "lease 10.244.111.0-24 in `LEASES`: "),
        data(
            "10.244.112.0-24",
            r#"{"VNI":1,"VtepMAC":"\nE1121 forged"}"#,
            "lease 10.244.112.0-24 in `LEASES`: BackendData cannot be used",
        ),
        ("10.244.113.1-24".into(), vxlan("192.168.77.66", mac), "key=10.244.113.1-24".into()),
        ("0.0.0.0-0".into(), vxlan("192.168.77.66", mac), "key=0.0.0.0-0".into()),
        ("../../10.244.1.0-24\n".into(), "{}".into(), r"key=../../10.244.1.0-24\n problem=".into()),
        (long, "{}".into(), format!("key={}", "x".repeat(80))),
        ("10.244.114.0-24".into(), "null".into(), "lease 10.244.114.0-24 in `LEASES`: ".into()),
        ("10.244.115.0-24".into(), String::new(), "lease 10.244.115.0-24 in `LEASES`: ".into()),
        (
            "10.244.116.0-24".into(),
            "{}".into(),
            "lease 10.244.116.0-24 in `LEASES`: PublicIP is missing; pods in 10.244.116.0/24 cannot be reached"
                .into(),
        ),
        (
            "10.244.117.0-24".into(),
            r#"{"PublicIP":"192.168.77.67","BackendType":"host-gw"}"#.into(),
            "Ignoring lease 10.244.117.0-24 of the node 192.168.77.67: the peer's backend is `host-gw` but this node's is `vxlan`"
                .into(),
        ),
        peer("172.16.5.0/24", "192.168.77.66", "the peer's subnet is outside the pod network"),
    ]
}

/// Routes, neighbours, forwarding entries and nexthops, apart from those of the peer with this subnet and address.
fn state(node: &Node, but: (&str, &str)) -> String {
    let (subnet, public) = but;
    let text = "ip route; ip neigh show dev flannel.1; bridge fdb show dev flannel.1; ip nexthop";
    // The kernel notices a moment later that a link has got its carrier.
    let text = node.namespace().sh(text).unwrap().replace(" linkdown", "");
    let start = subnet.trim_end_matches("/24");
    let theirs = |line: &&str| line.contains(start) || line.contains(&format!("dst {public} "));
    let mut others: Vec<&str> = text.lines().filter(|line| !theirs(line)).collect();
    others.sort_unstable();
    others.join("\n")
}

/// No peer.
const NONE: (&str, &str) = ("none", "none");

fn log_of(node: &Node) -> String {
    fs::read_to_string(node.folder().join("flanneld.log")).unwrap_or_default()
}

fn subnet_of(node: &Node) -> String {
    let env = fs::read_to_string(node.subnet_file()).unwrap();
    let gateway = env.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).unwrap();
    gateway.replace(".1/24", ".0/24")
}

fn start(lab: &mut Lab, flannel: &Flannel) -> (Node, Daemon, Pod) {
    let mut node = lab.add_node().unwrap();
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let pod = node.add_pod().unwrap();
    (node, daemon, pod)
}

fn v4(pod: &Pod) -> IpAddr {
    pod.addresses().into_iter().find(IpAddr::is_ipv4).unwrap()
}

#[test]
fn a_hostile_lease_is_named_and_skipped_and_delays_nobody() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let (node, daemon, pod) = start(&mut lab, &flannel);
    node.namespace().sh("ip route add 172.16.0.0/12 via 192.168.77.254").unwrap();
    let before = state(&node, NONE);

    let leases = hostile(&node.v4().to_string(), &subnet_of(&node));
    let store = Connection::open(flannel.lease_file()).unwrap();
    store.busy_timeout(SOON).unwrap();
    for (key, value, _) in &leases {
        store.execute("INSERT INTO lease (key, attributes) VALUES (?1, ?2)", [key, value]).unwrap();
    }
    let (other, others, other_pod) = start(&mut lab, &flannel);
    let (subnet, public) = (subnet_of(&other), other.v4().to_string());
    assert!(pod.namespace().reaches(v4(&other_pod), SOON).unwrap());
    assert!(other_pod.namespace().reaches(v4(&pod), SOON).unwrap());
    for (key, _, words) in &leases {
        let words = words.replace("LEASES", &flannel.lease_file().display().to_string());
        let said = wait_for(SOON, || log_of(&node).contains(&words).then_some(()));
        let key: String = key.chars().take(40).collect();
        assert!(said.is_some(), "{key}: `{words}` is not in the log:\n{}", log_of(&node));
    }
    assert_eq!(state(&node, (&subnet, &public)), before);
    let log = log_of(&node);
    assert!(
        log.lines().all(|line| line.len() < 1000),
        "a line of {:?} bytes",
        log.lines().map(str::len).max()
    );
    assert!(log.lines().all(|line| !line.starts_with("E1121 forged")), "{log}");
    node.namespace().sh("ip link add other0 type bridge; ip link set other0 up; ip link del other0").unwrap();
    for words in ["] lease 10.244.112.0-24 in ", "Ignoring lease 10.244.117.0-24"] {
        let said = log_of(&node).matches(words).count();
        assert_eq!(said, 1, "`{words}` is logged once:\n{}", log_of(&node));
    }

    // They are there when it starts, too.
    daemon.terminate().unwrap();
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    assert_eq!(state(&node, (&subnet, &public)), before);

    // Somebody who rewrites them all the time does not keep a change of another from the kernel.
    let began = Instant::now();
    for turn in 0..20 {
        for (key, ..) in leases.iter().take(4) {
            let value = vxlan(&format!("127.0.{turn}.1"), "02:00:00:00:66:66");
            store.execute("UPDATE lease SET attributes = ?2 WHERE key = ?1", [key, &value]).unwrap();
        }
    }
    others.kill().unwrap(); // or it would take its lease again
    let key = subnet.replace('/', "-");
    store.execute("DELETE FROM lease WHERE key = ?1", [&key]).unwrap();
    // Who writes by hand rings no bell: it is seen at the next recheck, after 10 s at most.
    wait_for(2 * SOON, || (state(&node, NONE) == before).then_some(()))
        .unwrap_or_else(|| assert_eq!(state(&node, NONE), before, "{}", log_of(&node)));
    eprintln!("gone {:?} after the first of 80 changes", began.elapsed());
    assert_eq!(daemon.status("/readyz").unwrap(), 200);
}

#[test]
fn a_hostile_node_object_is_named_and_skipped_and_delays_nobody() {
    const SERVER: &str = "192.168.77.254:6443";
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let api = FakeApi::start_in(lab.outside(), SERVER.parse().unwrap()).unwrap();
    api.add_node("node-1", &["10.244.1.0/24"]);
    let long = "x".repeat(100_000);
    let add = |name: &str, cidrs: &[&str], public: &str, data: &str| {
        api.add_node(name, cidrs);
        for (key, value) in [
            ("kube-subnet-manager", "true"),
            ("backend-type", "vxlan"),
            ("backend-data", data),
            ("public-ip", public),
        ] {
            api.annotate(name, &format!("flannel.alpha.coreos.com/{key}"), Some(value));
        }
    };
    let good = r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}"#;
    add("evil-1", &["10.244.66.0/24"], "127.0.0.1", good);
    add("evil-2", &["10.244.67.0/24"], "192.168.77.66", &long);
    add("evil-3", &["10.244.68.0/24"], &long, good);
    add("evil-4", &["no cidr"], "192.168.77.66", good);
    add("evil-5", &["8.0.0.0/8"], "192.168.77.66", good);
    add("evil-6", &["10.244.1.0/24"], "192.168.77.66", good);
    add("evil-7", &["0.0.0.0/0"], "192.168.77.66", good);
    let net_conf = lab.folder().join("conf.json");
    fs::write(&net_conf, NET_CONF).unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF)
        .unwrap()
        .store("--kube-subnet-mgr")
        .arg(format!("--kube-api-url=http://{SERVER}"))
        .env("NODE_NAME", "node-1");
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let began = Instant::now();
    let before = state(&node, NONE);
    add("good", &["10.244.2.0/24"], "192.168.77.2", good);
    let route = || node.namespace().sh("ip route show 10.244.2.0/24").unwrap();
    wait_for(SOON, || (!route().is_empty()).then_some(())).expect("the good one is programmed");
    eprintln!("programmed {:?} after its first annotation", began.elapsed());
    for words in [
        "peer 10.244.66.0/24 (node 127.0.0.1) is not programmed: the peer's underlay address 127.0.0.1 is not",
        "node \"evil-2\": annotation flannel.alpha.coreos.com/backend-data cannot be read",
        "node \"evil-3\": annotation flannel.alpha.coreos.com/public-ip is not an address",
        "key=evil-4",
        "peer 8.0.0.0/8 (node 192.168.77.66) is not programmed: the peer's subnet is outside the pod network",
        "peer 0.0.0.0/0 (node 192.168.77.66) is not programmed: the peer's subnet overlaps 10.244.1.0/24, the subnet of this node",
    ] {
        wait_for(SOON, || log_of(&node).contains(words).then_some(()))
            .unwrap_or_else(|| panic!("`{words}` is not in the log:\n{}", log_of(&node)));
    }
    assert!(log_of(&node).lines().all(|line| line.len() < 1000), "{}", log_of(&node));
    assert_eq!(state(&node, ("10.244.2.0/24", "192.168.77.2")), before);
    assert_eq!(daemon.status("/readyz").unwrap(), 200);
}
