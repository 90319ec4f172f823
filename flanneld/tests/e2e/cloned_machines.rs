//! Machines that share what identifies a node: copied state files, clones, one public address.

use std::fs;
use std::path::Path;

use super::etcd::{Daemon, log_of};
use super::etcd_host::Etcd;
use super::{SOON, pause};
use flanneld::run::state_file;
use testkit::{Lab, Node, may_make_namespaces, wait_for};

const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

fn etcd(lab: &Lab) -> Etcd<'_> {
    let etcd = Etcd::start(lab);
    etcd.ctl(&format!("put /coreos.com/network/config '{NET_CONF}'"));
    etcd
}

fn revision(etcd: &Etcd<'_>) -> u64 {
    let status = etcd.ctl("endpoint status -w json");
    let (_, rest) = status.split_once("\"revision\":").unwrap();
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[expect(clippy::panic, reason = "a failed test panics")]
fn is_ready(node: &Node, times: usize) {
    let ready = || log_of(node).matches("flannel is ready").count() >= times;
    wait_for(2 * SOON, || ready().then_some(())).unwrap_or_else(|| panic!("{}", log_of(node)));
}

fn state_of(node: &Node) -> String {
    let path = state_file::path(&node.subnet_file());
    let whole = || fs::read_to_string(&path).ok().filter(|text| text.contains("peers"));
    wait_for(SOON, whole).expect("a state file")
}

fn mac(node: &Node) -> String {
    let link = node.namespace().sh("ip -br link show flannel.1").unwrap();
    link.split_whitespace().nth(2).unwrap().to_owned()
}

fn lease_of<'a>(subnets: &'a str, public: &str) -> (&'a str, &'a str) {
    let lines: Vec<&str> = subnets.lines().collect();
    let own = format!("\"PublicIP\":\"{public}\"");
    lines.chunks(2).find_map(|pair| pair[1].contains(&own).then_some((pair[0], pair[1]))).unwrap()
}

/// Whatever happens in this time, the store is written to this often at most.
fn settles(etcd: &Etcd<'_>, most: u64) {
    let before = revision(etcd);
    pause(3000);
    let writes = revision(etcd) - before;
    assert!(writes <= most, "{writes} writes in 3 s\n{}", etcd.subnets());
}

#[test]
fn a_machine_with_a_copied_state_file_becomes_a_node_of_its_own() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let etcd = etcd(&lab);
    let _original = Daemon::start(&nodes[0]);
    is_ready(&nodes[0], 1);
    let saved = state_of(&nodes[0]);
    let before = etcd.subnets();
    let (key, lease) = lease_of(&before, "192.168.77.1");

    let copy = |from: &Path, to: &Path| fs::write(to, fs::read(from).unwrap()).unwrap();
    copy(&nodes[0].subnet_file(), &nodes[1].subnet_file());
    fs::write(state_file::path(&nodes[1].subnet_file()), saved).unwrap();
    let _clone = Daemon::start(&nodes[1]);
    is_ready(&nodes[1], 1);
    settles(&etcd, 0);
    let subnets = etcd.subnets();
    assert_eq!(lease_of(&subnets, "192.168.77.1"), (key, lease), "it notices nothing");
    assert_ne!(lease_of(&subnets, "192.168.77.2").0, key);
    assert_ne!(mac(&nodes[0]), mac(&nodes[1]));
    let log = log_of(&nodes[1]);
    assert!(log.contains("is ignored: another machine wrote it"), "{log}");
    let pods = nodes.each_mut().map(|node| node.add_pod().unwrap());
    for target in pods[1].addresses() {
        assert!(pods[0].namespace().reaches(target, SOON).unwrap());
    }
}

#[test]
fn a_lease_that_another_address_holds_by_now_is_given_up_with_its_mac() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = etcd(&lab);
    let _daemon = Daemon::start(&node);
    is_ready(&node, 1);
    let (subnets, former) = (etcd.subnets(), mac(&node));
    let (key, lease) = lease_of(&subnets, "192.168.77.1");
    // A clone that renumbered: the same lease and MAC address under its own address.
    let theirs = lease.replace("192.168.77.1", "192.168.77.99");
    etcd.ctl(&format!("put {key} '{theirs}'"));

    let other = || {
        let subnets = etcd.subnets();
        subnets.contains("\"192.168.77.1\"").then(|| lease_of(&subnets, "192.168.77.1").0.to_owned())
    };
    let other = wait_for(SOON, other).unwrap_or_else(|| panic!("{}", log_of(&node)));
    assert_ne!(other, key);
    wait_for(SOON, || (mac(&node) != former).then_some(())).expect("another MAC address");
    let published = || etcd.subnets().contains(&mac(&node));
    wait_for(SOON, || published().then_some(())).unwrap_or_else(|| panic!("{}", etcd.subnets()));
    settles(&etcd, 1);
    assert_eq!(lease_of(&etcd.subnets(), "192.168.77.99"), (key, &*theirs), "it is left alone");
    let log = log_of(&node);
    assert_eq!(log.matches("two machines had one lease").count(), 1, "{log}");
    let route = format!("{} nhid", key.rsplit('/').next().unwrap().replace('-', "/"));
    let routes = || node.namespace().sh("ip route").unwrap();
    wait_for(SOON, || routes().contains(&route).then_some(())).unwrap_or_else(|| panic!("{}", routes()));
}

#[test]
fn a_node_that_restarts_with_another_address_keeps_its_subnet_and_mac() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = etcd(&lab);
    let daemon = Daemon::start(&node);
    is_ready(&node, 1);
    state_of(&node);
    let (subnets, former) = (etcd.subnets(), mac(&node));
    drop(daemon);
    let renumber = "ip addr del 192.168.77.1/24 dev eth0; ip addr add 192.168.77.77/24 dev eth0;
        ip route add default via 192.168.77.254";
    node.namespace().sh(renumber).unwrap();
    let _daemon = Daemon::start(&node);
    is_ready(&node, 2);
    assert_eq!(etcd.subnets(), subnets.replace("192.168.77.1", "192.168.77.77"));
    assert_eq!(mac(&node), former);
}

#[test]
fn a_subnet_of_the_hosts_own_network_is_not_taken_and_an_assigned_one_is_reported() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = Etcd::start(&lab);
    // Of the four subnets, one is the LAN and two contain gateways of other routes.
    let config = r#"{"Network": "192.168.0.0/16", "SubnetMin": "192.168.76.0", "SubnetMax": "192.168.79.0", "Backend": {"Type": "vxlan"}}"#;
    etcd.ctl(&format!("put /coreos.com/network/config '{config}'"));
    node.namespace()
        .sh("ip route add 172.30.1.0/24 via 192.168.76.9 dev eth0 onlink;
            ip route add 172.30.2.0/24 via 192.168.78.9 dev eth0 onlink")
        .unwrap();
    let daemon = Daemon::start(&node);
    is_ready(&node, 1);
    let subnets = etcd.subnets();
    assert_eq!(lease_of(&subnets, "192.168.77.1").0, "/coreos.com/network/subnets/192.168.79.0-24");
    assert!(!log_of(&node).contains("shares addresses"), "{}", log_of(&node));

    drop(daemon);
    let moved = subnets.replace("192.168.79.0-24", "192.168.77.0-24");
    let (key, value) = lease_of(&moved, "192.168.77.1");
    etcd.ctl("del --prefix /coreos.com/network/subnets/");
    etcd.ctl(&format!("put {key} '{value}'"));
    let _daemon = Daemon::start(&node);
    let text =
        "this node's pod subnet 192.168.77.0/24 shares addresses with 192.168.77.0/24 of interface eth0";
    wait_for(SOON, || log_of(&node).contains(text).then_some(()))
        .unwrap_or_else(|| panic!("{}", log_of(&node)));
}
