//! The interface between nodes changes while the daemon runs.

use std::fs;

use testkit::{Flannel, Lab, Node, may_make_namespaces, wait_for};

use crate::{BINARY, Cluster, SOON};

#[test]
fn direct_routing_is_decided_again_when_a_route_changes() {
    if !may_make_namespaces() {
        return;
    }
    let net_conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
    let cluster = Cluster::start(2, net_conf);
    cluster.every_pod_reaches_every_other();
    let [(node, ..), (.., pod)] = &cluster.nodes[..] else { unreachable!() };
    let target = pod.addresses().next().unwrap();
    let leads = |device: &str| {
        let way = || node.namespace().sh(&format!("ip route get {target}")).unwrap();
        let changed = wait_for(SOON, || way().contains(&format!("dev {device} ")).then_some(()));
        assert!(changed.is_some(), "not {device}: {}", way());
    };
    leads("eth0");
    node.namespace().sh("ip route add 192.168.77.2 via 192.168.77.254").unwrap();
    leads("flannel.1");
    node.namespace().sh("ip route del 192.168.77.2").unwrap();
    leads("eth0");
    cluster.every_pod_reaches_every_other();
}

#[test]
fn another_mtu_or_address_of_the_underlay_is_followed_without_a_restart() {
    if !may_make_namespaces() {
        return;
    }
    let cluster = Cluster::start(2, Flannel::NET_CONF);
    cluster.every_pod_reaches_every_other();
    let (node, ..) = &cluster.nodes[0];
    let env = || fs::read_to_string(node.subnet_file()).unwrap();
    let link = |name: &str| node.namespace().sh(&format!("ip -d -o link show {name}")).unwrap_or_default();
    let soon = |what: &str, holds: &dyn Fn() -> bool| {
        assert!(
            wait_for(SOON, || holds().then_some(())).is_some(),
            "{what}\n{}{}{}",
            env(),
            link("flannel.1"),
            link("flannel-v6.1")
        );
    };
    let subnet = env().lines().take(4).map(str::to_owned).collect::<Vec<_>>();

    node.namespace().sh("ip link set eth0 mtu 1400").unwrap();
    soon("MTU of the devices", &|| {
        link("flannel.1").contains("mtu 1350") && link("flannel-v6.1").contains("mtu 1330")
    });
    soon("MTU of pods", &|| env().contains("FLANNEL_MTU=1350\n"));
    cluster.every_pod_reaches_every_other();

    node.namespace().sh("ip addr add 192.168.77.201/24 dev eth0; ip addr del 192.168.77.1/24 dev eth0; ip addr add 192.168.77.201/24 dev eth0 2>/dev/null || true").unwrap();
    soon("source of outer packets", &|| link("flannel.1").contains("local 192.168.77.201"));
    cluster.every_pod_reaches_every_other();

    node.namespace()
        .sh("ip addr add fd00:77::201/64 dev eth0 nodad; ip addr del fd00:77::1/64 dev eth0")
        .unwrap();
    soon("source of outer IPv6 packets", &|| link("flannel-v6.1").contains("local fd00:77::201"));
    cluster.every_pod_reaches_every_other();
    assert_eq!(env().lines().take(4).map(str::to_owned).collect::<Vec<_>>(), subnet, "the subnet stays");
}

#[test]
fn a_node_keeps_its_addresses_beside_virtual_ones_and_takes_no_link_local_one() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, daemon, _pod) = cluster.nodes.remove(0);
    let sh = |command: &str| node.namespace().sh(command).unwrap();
    let is_at = |device: &str, local: &str| {
        sh(&format!("ip -d link show {device}")).contains(&format!("local {local} "))
    };
    let has_mtu = |mtu: &str| {
        let holds = || sh("ip link show flannel.1").contains(&format!("mtu {mtu} ")).then_some(());
        assert!(wait_for(SOON, holds).is_some(), "{mtu}");
    };
    // As from DHCP; keepalived's is permanent, which counts for more where nothing is known.
    sh("ip addr change 192.168.77.1/24 dev eth0 valid_lft 3600 preferred_lft 3600");
    sh("ip addr add 192.168.77.100/24 dev eth0; ip link set eth0 mtu 1400");
    has_mtu("1350");
    assert!(is_at("flannel.1", "192.168.77.1"));
    assert!(daemon.terminate().unwrap().success());
    let mut daemon = cluster.flannel.start_ready(&node, SOON).unwrap();
    sh("ip link set eth0 mtu 1500");
    has_mtu("1450");
    assert!(is_at("flannel.1", "192.168.77.1"), "after a restart, too");

    sh("ip link set eth0 down; ip link set eth0 up");
    let page = || daemon.page("/readyz").unwrap();
    let named = "interface eth0 has only a link-local IPv6 address left";
    assert!(wait_for(SOON, || page().contains(named).then_some(())).is_some(), "{}", page());
    assert!(is_at("flannel-v6.1", "fd00:77::1"));
    sh("ip addr add fd00:77::1/64 dev eth0 nodad");
    daemon.ready(SOON).unwrap();
    assert!(is_at("flannel-v6.1", "fd00:77::1"));
}

#[test]
fn an_uplink_too_small_for_ipv6_leaves_ipv4_and_gets_ipv6_when_it_grows() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    nodes[0].namespace().sh("ip link set eth0 mtu 1280").unwrap();
    let mut daemons = nodes.each_ref().map(|node| flannel.start(node).unwrap());
    for daemon in &mut daemons {
        daemon.ready(SOON).unwrap();
    }
    let env = |node: &Node| fs::read_to_string(node.subnet_file()).unwrap();
    assert!(env(&nodes[0]).contains("FLANNEL_MTU=1230\n"), "{}", env(&nodes[0]));
    assert!(!env(&nodes[0]).contains("IPV6"), "{}", env(&nodes[0]));
    let page = daemons[0].page("/readyz").unwrap();
    assert!(page.contains("note: ipv6: this node goes without IPv6"), "{page}");
    let pods = nodes.each_mut().map(|node| node.add_pod().unwrap());
    let target = pods[1].addresses().find(|address| address.is_ipv4()).unwrap();
    assert!(pods[0].namespace().reaches(target, SOON).unwrap());

    nodes[0].namespace().sh("ip link set eth0 mtu 1500").unwrap();
    wait_for(SOON, || env(&nodes[0]).contains("FLANNEL_IPV6_SUBNET").then_some(())).expect("it is noticed");
    wait_for(SOON, || nodes[0].namespace().sh("ip link show flannel-v6.1").ok()).expect("a device");
    wait_for(SOON, || (!daemons[0].page("/readyz").unwrap().contains("ipv6")).then_some(())).unwrap();
}

#[test]
fn an_uplink_that_shrinks_takes_ipv6_away_and_leaves_ipv4_until_it_grows_again() {
    if !may_make_namespaces() {
        return;
    }
    let cluster = Cluster::start(2, Flannel::NET_CONF);
    cluster.every_pod_reaches_every_other();
    let (node, daemon, _) = &cluster.nodes[0];
    let sh = |command: &str| node.namespace().sh(command).unwrap_or_default();
    let soon = |what: &str, holds: &dyn Fn() -> bool| {
        let state = || sh("ip link; ip -6 route; ip -6 addr") + &daemon.page("/readyz").unwrap_or_default();
        assert!(wait_for(SOON, || holds().then_some(())).is_some(), "{what}: {}", state());
    };
    let mtu = |device: &str| {
        let link = sh(&format!("ip link show {device}"));
        link.split_once(" mtu ").and_then(|(_, rest)| rest.split(' ').next()).map(str::to_owned)
    };
    let has_ipv6_of_pods = || sh("ip -6 route").contains("flannel-v6.1") || mtu("flannel-v6.1").is_some();
    let env = || fs::read_to_string(node.subnet_file()).unwrap();
    let leaves_ipv4 = |uplink: u32| {
        soon("IPv6's device is deleted", &|| !has_ipv6_of_pods());
        soon("IPv4's follows", &|| mtu("flannel.1") == Some((uplink - 50).to_string()));
        soon("subnet.env", &|| !env().contains("IPV6"));
        let note = format!("this node goes without IPv6, IPv4 works: interface eth0 carries {uplink} bytes");
        soon("the reason", &|| daemon.page("/readyz").is_ok_and(|page| page.contains(&note)));
        soon("ready", &|| daemon.page("/readyz").is_ok_and(|page| page.starts_with("flanneld is ready")));
    };
    let returns = || {
        soon("IPv6's device is back", &|| mtu("flannel-v6.1").as_deref() == Some("1430"));
        soon("subnet.env", &|| env().contains("FLANNEL_IPV6_SUBNET"));
        soon("no note", &|| !daemon.page("/readyz").unwrap().contains("ipv6"));
        cluster.every_pod_reaches_every_other();
    };
    sh("ip link set eth0 mtu 1349");
    leaves_ipv4(1349);
    sh("ip link set eth0 mtu 1500");
    returns();

    // Below 1280 the kernel removes IPv6 from the uplink itself.
    sh("ip link set eth0 mtu 1279");
    leaves_ipv4(1279);
    sh("ip link set eth0 mtu 1500");
    // Until the address is back, a link-local one is no substitute.
    soon("what is missing", &|| {
        let page = daemon.page("/readyz").unwrap();
        page.contains("only a link-local IPv6 address left") || page.contains("failed to find IPv6 address")
    });
    sh("ip addr add fd00:77::1/64 dev eth0 nodad");
    returns();
}

#[test]
fn ipv6_that_a_sysctl_disables_on_new_devices_is_reported_with_the_command_that_helps() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    node.namespace().sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1").unwrap();
    let mut daemon = flannel.start(&node).unwrap();
    let command = "sysctl -w net/ipv6/conf/flannel-v6.1/disable_ipv6=0";
    let page = || daemon.page("/readyz").unwrap_or_default();
    let said = wait_for(SOON, || page().contains(command).then_some(()));
    assert!(said.is_some(), "{}", page());
    node.namespace().sh(command).unwrap();
    daemon.ready(SOON).unwrap();
}
