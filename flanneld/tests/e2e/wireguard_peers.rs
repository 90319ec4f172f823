//! Peers of the backend wireguard that are not where, or not who, their lease says: drifted endpoints and cloned keys. And a
//! pod network that contains the host's gateway.

use std::fs;
use std::time::{Duration, Instant};

use testkit::{Flannel, KernelOption, Lab, wait_for};

use crate::etcd_host::{ENDPOINT, Etcd};
use crate::{BINARY, Cluster, SOON, pause};

const NET_CONF: &str =
    r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "wireguard"}}"#;

/// Whether the last of `count` pings of a node's pod was answered.
fn answers(cluster: &Cluster, from: usize, to: usize) -> bool {
    let (.., pod) = &cluster.nodes[from];
    let target = cluster.nodes[to].2.addresses().next().unwrap();
    pod.namespace().sh(&format!("ping -n -c 1 -W 1 {target}")).is_ok()
}

#[test]
fn an_endpoint_that_drifts_away_is_restored_after_180_seconds_while_traffic_waits() {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    let cluster = Cluster::start(2, NET_CONF);
    cluster.every_pod_reaches_every_other();
    let show = |what: &str| cluster.sh(0, &format!("wg show flannel-wg {what} | cut -f2"));
    let published = show("endpoints");
    assert_eq!(published.trim(), "192.168.77.2:51820");
    let handshake: u64 = show("latest-handshakes").trim().parse().unwrap();
    // Until both ends have nothing left to confirm: the peer would call back, and the kernel would follow it.
    pause(30_000);
    let key = cluster.sh(0, "wg show flannel-wg peers");
    cluster.sh(0, &format!("wg set flannel-wg peer {} endpoint 192.168.77.99:51820", key.trim()));
    let drifted = Instant::now();
    let mut vain = 0;
    let restored = wait_for(Duration::from_secs(60), || {
        let answered = answers(&cluster, 0, 1);
        vain += u32::from(!answered);
        answered.then_some(())
    });
    let log = fs::read_to_string(cluster.nodes[0].1.log()).unwrap();
    assert!(restored.is_some(), "{}{log}", cluster.sh(0, "wg show flannel-wg"));
    assert_eq!(show("endpoints"), published);
    let now: u64 = cluster.sh(0, "date +%s").trim().parse().unwrap();
    eprintln!(
        "figure: a drifted endpoint is restored {} s after the last handshake, {:.0?} after it drifted, {vain} vain pings",
        now - handshake,
        drifted.elapsed()
    );
    assert!(now - handshake >= 180, "a session that lives is left alone");
    cluster.every_pod_reaches_every_other();
}

#[test]
fn a_pod_network_that_contains_the_gateway_does_not_cut_the_host_off() {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    // The nodes are 192.168.77.1/24 and 192.168.77.2/24, and their gateway is 192.168.77.254.
    let cluster = Cluster::start(
        2,
        r#"{"Network": "192.168.77.128/25", "SubnetLen": 28, "EnableNFTables": true, "Backend": {"Type": "wireguard"}}"#,
    );
    let gateway = Lab::OUTSIDE_V4;
    let status = || cluster.nodes[0].1.page("/").unwrap();
    let is_reported = || status().contains("would cut this host off").then_some(());
    assert!(wait_for(SOON, is_reported).is_some(), "{}", status());
    assert!(cluster.nodes[0].0.namespace().reaches(gateway, SOON).unwrap());
    assert!(!cluster.sh(0, "ip route").contains("192.168.77.128/25"), "{}", cluster.sh(0, "ip route"));
    // With a route of its own the gateway is reached, and so are the pods.
    for at in 0..2 {
        cluster.sh(at, &format!("ip route add {gateway} dev eth0"));
    }
    cluster.every_pod_reaches_every_other();
    assert!(cluster.nodes[0].0.namespace().reaches(gateway, SOON).unwrap());
    assert!(cluster.sh(0, "ip route").contains("192.168.77.128/25 dev flannel-wg"));
}

/// Two machines with one private key: WireGuard would send the packets for both to the last that was heard of.
#[test]
fn of_two_nodes_with_one_key_the_older_keeps_its_peers_and_the_newcomer_is_told_the_remedy() {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let mut nodes = [(); 3].map(|()| lab.add_node().unwrap());
    let etcd = Etcd::start(&lab);
    etcd.ctl(&format!("put /coreos.com/network/config '{NET_CONF}'"));
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let start = |node: &mut testkit::Node| {
        let mut daemon = flannel.start(node).unwrap();
        daemon.ready(SOON).unwrap();
        (daemon, node.add_pod().unwrap())
    };
    let (first, second) = (start(&mut nodes[0]), start(&mut nodes[1]));
    let reaches = |from: &testkit::Pod, to: &testkit::Pod| {
        to.addresses().all(|address| from.namespace().reaches(address, SOON).unwrap())
    };
    assert!(reaches(&first.1, &second.1) && reaches(&second.1, &first.1));

    let key_file = nodes[2].folder().join("wgkey");
    fs::copy(nodes[1].folder().join("wgkey"), &key_file).unwrap();
    let clone = flannel.start(&nodes[2]).unwrap();
    let log = || fs::read_to_string(clone.log()).unwrap_or_default();
    let told = || log().contains("delete the WireGuard key file").then_some(());
    assert!(wait_for(SOON, told).is_some(), "{}", log());
    assert!(log().contains("the node 192.168.77.2 with lease"), "{}", log());
    assert_eq!(etcd.subnets().matches("PublicKey").count(), 2, "the clone takes no lease");
    assert!(reaches(&first.1, &second.1) && reaches(&second.1, &first.1), "the older node is not affected");
    drop(clone);

    // A node that does not look, such as upstream's, publishes the key all the same.
    let subnets = etcd.subnets();
    let lease = subnets.lines().find(|line| line.contains("192.168.77.2\"")).unwrap();
    let cloned = lease.replace("192.168.77.2\"", "192.168.77.3\"");
    etcd.ctl(&format!("put /coreos.com/network/subnets/10.244.0.0-24 '{cloned}'"));
    let page = || first.0.page("/").unwrap();
    let told = || page().contains("has the same public key at another endpoint").then_some(());
    assert!(wait_for(SOON, told).is_some(), "{}", page());
    let endpoints = nodes[0].namespace().sh("wg show flannel-wg endpoints").unwrap();
    assert!(endpoints.contains("192.168.77.2:51820") && endpoints.lines().count() == 1, "{endpoints}");
    let page = || second.0.page("/").unwrap();
    let told = || page().contains("the peer's public key is the public key of this node").then_some(());
    assert!(wait_for(SOON, told).is_some(), "{}", page());
    assert!(reaches(&first.1, &second.1) && reaches(&second.1, &first.1));
    etcd.ctl("del /coreos.com/network/subnets/10.244.0.0-24");

    // The remedy.
    fs::remove_file(key_file).unwrap();
    let third = start(&mut nodes[2]);
    assert!(reaches(&first.1, &third.1) && reaches(&third.1, &second.1));
}
