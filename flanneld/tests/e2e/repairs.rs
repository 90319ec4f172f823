//! Damage to the device of each backend, and how long it lasts. The figures of vxlan, which every kernel has, show how much
//! slower a virtual machine is. `wireguard.rs` has the same for wireguard.

use std::time::Instant;

use testkit::{KernelOption, may_make_namespaces, wait_for};

use crate::{Cluster, SOON, without_numbers};

fn repairs(backend: &str, device: &str, more: &[&str]) {
    let net_conf = format!(
        r#"{{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {{"Type": "{backend}"}}}}"#
    );
    let cluster = Cluster::start(3, &net_conf);
    cluster.every_pod_reaches_every_other();
    let state = || {
        let shown = cluster.sh(
            0,
            &format!(
                "ip -o -d link show {device} 2>/dev/null || true
                 ip -o addr show dev {device} scope global 2>/dev/null || true
                 ip route show proto 70; ip nexthop; ip fou show 2>/dev/null || true"
            ),
        );
        let mut lines: Vec<String> = shown.lines().map(without_numbers).collect();
        lines.sort();
        lines
    };
    let right = state();
    let general = [
        format!("ip link del {device}"),
        format!("ip link set {device} down"),
        format!("ip link set {device} mtu 1300"),
        format!("ip addr flush dev {device}"),
        "for subnet in $(ip route show proto 70 | cut -d' ' -f1); do ip route del $subnet; done".to_owned(),
        "ip nexthop flush".to_owned(),
    ];
    for damage in general.iter().map(String::as_str).chain(more.iter().copied()) {
        cluster.sh(0, damage);
        let broken = Instant::now();
        let repaired = wait_for(SOON, || (state() == right).then_some(()));
        assert!(repaired.is_some(), "{backend}: `{damage}`: {:#?}\ninstead of\n{right:#?}", state());
        eprintln!("figure: {backend}: repaired within {:.3?}: {damage}", broken.elapsed());
    }
    let looked = Instant::now();
    assert_eq!(state(), right);
    eprintln!("figure: {backend}: {:.3?} of that are one look at the state", looked.elapsed());
    cluster.every_pod_reaches_every_other();
}

/// Runs on every kernel.
#[test]
fn damage_to_vxlan_is_repaired() {
    if may_make_namespaces() {
        repairs("vxlan", "flannel.1", &[]);
    }
}

#[test]
fn damage_to_ipip_is_repaired() {
    if KernelOption::IPIP.is_usable() {
        repairs("ipip", "flannel.ipip", &["ip link set flannel.ipip type ipip local 192.168.77.9"]);
    }
}

#[test]
fn damage_to_udp_is_repaired() {
    if KernelOption::FOU.is_usable() {
        repairs("udp", "flannel0", &["ip fou del port 8285"]);
    }
}
