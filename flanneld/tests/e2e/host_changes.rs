//! Real daemons whose network between nodes changes under them.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use nix::libc;
use testkit::{Daemon, Flannel, Lab, Node, Pod, may_make_namespaces, wait_for};

/// Less than the time between two full readings, so that it is the notification which is acted upon.
const SOON: Duration = Duration::from_secs(15);

fn cluster(backend: &str) -> (Lab, Vec<(Node, Daemon, Pod)>) {
    let mut lab = Lab::new().unwrap();
    let net_conf = format!(
        r#"{{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend": {backend}}}"#
    );
    let flannel = Flannel::new(&lab, env!("CARGO_BIN_EXE_flanneld"), &net_conf).unwrap();
    let mut join = || {
        let mut node = lab.add_node().unwrap();
        let daemon = flannel.start_ready(&node, SOON).unwrap();
        let pod = node.add_pod().unwrap();
        (node, daemon, pod)
    };
    let nodes = vec![join(), join()];
    everyone_reaches_everyone(&nodes, "at first");
    (lab, nodes)
}

#[track_caller]
fn everyone_reaches_everyone(nodes: &[(Node, Daemon, Pod)], when: &str) {
    for (node, _, from) in nodes {
        for address in nodes.iter().flat_map(|(_, _, to)| to.addresses()) {
            let reached = from.namespace().reaches(address, SOON).unwrap();
            let routes = || node.namespace().sh("ip route; ip -6 route").unwrap();
            assert!(reached, "{when}: not from a pod of {} to {address}\n{}", node.name(), routes());
        }
    }
}

#[test]
fn host_gw_survives_that_the_underlays_address_goes_and_comes_or_is_another() {
    if !may_make_namespaces() {
        return;
    }
    let (_lab, nodes) = cluster(r#"{"Type": "host-gw"}"#);
    let one = nodes[0].0.namespace();
    let routes = || one.sh("ip route show proto 70; ip -6 route show proto 70").unwrap();
    let before = routes();
    assert_eq!(before.lines().count(), 2, "{before}");
    for disturbance in [
        "ip addr flush dev eth0; ip addr add 192.168.77.1/24 dev eth0; ip addr add fd00:77::1/64 dev eth0 nodad",
        // The second one goes with the first, whose secondary it is.
        "ip addr add 192.168.77.201/24 dev eth0; ip addr del 192.168.77.1/24 dev eth0; ip addr add 192.168.77.201/24 dev eth0 || true",
        "ip addr del 192.168.77.201/24 dev eth0; ip addr add 192.168.77.1/24 dev eth0",
        "ip addr add fd00:77::201/64 dev eth0 nodad; ip addr del fd00:77::1/64 dev eth0",
        "ip link set eth0 down; ip link set eth0 up; ip addr add fd00:77::1/64 dev eth0 nodad",
    ] {
        one.sh(disturbance).unwrap();
        let back = wait_for(SOON, || (routes() == before).then_some(()));
        assert!(back.is_some(), "after `{disturbance}`:\n{}instead of\n{before}", routes());
        everyone_reaches_everyone(&nodes, disturbance);
    }
}

#[test]
fn another_ipv6_address_of_the_underlay_is_followed_by_the_device_and_by_the_peers() {
    if !may_make_namespaces() {
        return;
    }
    let (_lab, nodes) = cluster(r#"{"Type": "vxlan"}"#);
    let [one, two] = [0, 1].map(|n| nodes[n].0.namespace());
    for (old, new) in [("fd00:77::1", "fd00:77::201"), ("fd00:77::201", "fd00:77::1")] {
        one.sh(&format!("ip addr add {new}/64 dev eth0 nodad; ip addr del {old}/64 dev eth0")).unwrap();
        let local = format!("local {new} ");
        let device = || one.sh("ip -d -o link show flannel-v6.1").unwrap();
        assert!(wait_for(SOON, || device().contains(&local).then_some(())).is_some(), "{}", device());
        let entries = || two.sh("bridge fdb show dev flannel-v6.1").unwrap();
        let switched =
            || entries().contains(&format!("dst {new} ")) && !entries().contains(&format!("dst {old} "));
        assert!(wait_for(SOON, || switched().then_some(())).is_some(), "{}", entries());
        everyone_reaches_everyone(&nodes, new);
    }
    let env = fs::read_to_string(nodes[0].0.subnet_file()).unwrap();
    assert!(env.contains("FLANNEL_MTU=1450\n"), "{env}");
}

#[test]
fn dual_stack_pods_have_the_mtu_of_ipv4s_tunnel_and_lose_one_datagram_to_ipv6s_smaller_one() {
    if !may_make_namespaces() {
        return;
    }
    let (_lab, nodes) = cluster(r#"{"Type": "vxlan"}"#);
    let (from, to) = (&nodes[0].2, &nodes[1].2);
    let pods_device = from.namespace().sh("ip link show eth0").unwrap();
    assert!(pods_device.contains(" mtu 1450 "), "{pods_device}");
    let (v4, v6) = (to.v4().unwrap(), to.v6().unwrap());
    // 1422 bytes of data, 8 of ICMP, 20 of IPv4: 1450 bytes that must not be fragmented.
    from.namespace().sh(&format!("ping -n -c 1 -W 10 -M do -s 1422 {v4}")).unwrap();

    // 1402 bytes of data, 8 of UDP, 40 of IPv6: 1450 bytes, of which IPv6's tunnel carries 1430.
    let refusals_before_arrival = from.namespace().enter(|| {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.connect((v6, 9)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let arrives = || {
            // The error of the datagram before this one may be waiting on the socket.
            let sent = socket.send(&[0; 1402]).and_then(|_| socket.recv(&mut [0; 1]));
            sent.unwrap_err().raw_os_error()
        };
        std::iter::repeat_with(arrives).take(10).take_while(|error| *error == Some(libc::EMSGSIZE)).count()
    });
    assert_eq!(refusals_before_arrival.unwrap(), 1, "the kernel fragments from then on");
    let learned = from.namespace().sh(&format!("ip -6 route get {v6}")).unwrap();
    assert!(learned.contains("mtu 1430"), "{learned}");
}

/// The reason why a swap from upstream must not lower `FLANNEL_MTU`.
#[test]
fn a_node_whose_new_pods_have_a_lower_mtu_drops_full_packets_of_its_older_pods() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let mut node = lab.add_node().unwrap();
    let mut pod_with = |mtu: u32| {
        let env = format!(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n"
        );
        fs::write(node.subnet_file(), env).unwrap();
        node.add_pod().unwrap()
    };
    let (old, new) = (pod_with(1450), pod_with(1430));
    let ping = |data: u32| {
        let target = new.v4().unwrap();
        old.namespace().sh(&format!("ping -n -c 1 -W 1 -M do -s {data} {target}")).is_ok()
    };
    assert!(wait_for(SOON, || ping(1402).then_some(())).is_some(), "1430 bytes");
    assert!(!ping(1422), "1450 bytes");
}

#[test]
fn direct_routing_is_decided_again_when_the_routes_to_a_peer_change() {
    if !may_make_namespaces() {
        return;
    }
    let (_lab, nodes) = cluster(r#"{"Type": "vxlan", "DirectRouting": true}"#);
    let one = nodes[0].0.namespace();
    for (ip, peer, router) in
        [("ip", "192.168.77.2", "192.168.77.254"), ("ip -6", "fd00:77::2", "fd00:77::fe")]
    {
        let routes = || one.sh(&format!("{ip} route show proto 70")).unwrap();
        let direct = || routes().contains(&format!("via {peer} dev eth0"));
        assert!(direct(), "{}", routes());
        one.sh(&format!("{ip} route add {peer} via {router} dev eth0")).unwrap();
        let tunnelled = || routes().contains("dev flannel") && !direct();
        assert!(wait_for(SOON, || tunnelled().then_some(())).is_some(), "{}", routes());
        one.sh(&format!("{ip} route del {peer}")).unwrap();
        assert!(wait_for(SOON, || direct().then_some(())).is_some(), "{}", routes());
        everyone_reaches_everyone(&nodes, peer);
    }
}
