//! One cluster of flanneld and of upstream's flanneld, with each backend: every pod reaches every other. Upstream's program is
//! named by `UPSTREAM_FLANNELD` (`scripts/build-upstream`).

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{Flannel, KernelOption, Lab, Node, may_make_namespaces, wait_for};

use crate::BINARY;
use crate::etcd_host::{ENDPOINT, Etcd};

/// For upstream's first start, and for packets that wait for a handshake.
const LIMIT: Duration = Duration::from_secs(20);
const V4: &str = r#""Network": "10.244.0.0/16""#;
const DUAL: &str = r#""Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48""#;

/// Upstream's program. Says so if there is none.
fn upstream() -> Option<PathBuf> {
    let found = std::env::var_os("UPSTREAM_FLANNELD").map(PathBuf::from);
    if found.is_none() {
        eprintln!("SKIPPED: UPSTREAM_FLANNELD does not name upstream's flanneld; run `make test-mixed`");
    }
    found.filter(|_| may_make_namespaces())
}

/// Upstream's daemon on a node. Dropping it kills it.
struct Upstream(Child);

impl Upstream {
    fn start(program: &PathBuf, node: &Node) -> Self {
        let log = File::create(node.folder().join("upstream.log")).unwrap();
        let mut command = Command::new(program);
        command.args([
            format!("--etcd-endpoints={ENDPOINT}"),
            "--iface=eth0".to_owned(),
            "--ip-masq".to_owned(),
        ]);
        command.arg(format!("--subnet-file={}", node.subnet_file().display()));
        command.env("WIREGUARD_KEY_FILE", node.folder().join("wgkey"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(node.namespace().spawn(&mut command).unwrap())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A node of ours between two of upstream's. `knows_upstream`: upstream's nodes reach each other.
fn mixes(networks: &str, backend: &str, knows_upstream: bool) {
    let Some(program) = upstream() else { return };
    let mut lab = Lab::new().unwrap();
    let mut nodes = [(); 3].map(|()| lab.add_node().unwrap());
    let etcd = Etcd::start(&lab);
    let net_conf = format!(r#"{{{networks}, "EnableNFTables": true, "Backend": {{{backend}}}}}"#);
    etcd.ctl(&format!("put /coreos.com/network/config '{net_conf}'"));
    let flannel =
        Flannel::new(&lab, BINARY, &net_conf).unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let _upstream = [Upstream::start(&program, &nodes[0]), Upstream::start(&program, &nodes[2])];
    let mut ours = flannel.start(&nodes[1]).unwrap();
    ours.ready(LIMIT).unwrap();
    let pods = nodes.each_mut().map(|node| {
        let log = || std::fs::read_to_string(node.folder().join("upstream.log")).unwrap_or_default();
        let has_lease = wait_for(LIMIT, || node.subnet_file().exists().then_some(()));
        assert!(has_lease.is_some(), "{}", log());
        node.add_pod().unwrap()
    });
    let mut pairs = 0;
    for (from, source) in pods.iter().enumerate() {
        for (to, target) in pods.iter().enumerate().filter(|(to, _)| *to != from) {
            if from != 1 && to != 1 && !knows_upstream {
                continue;
            }
            for address in target.addresses() {
                let reached = source.namespace().reaches(address, LIMIT).unwrap();
                let state = || {
                    let show = "ip route; ip -s link show type tun; ip -s link show flannel0; ss -uln; nft list ruleset | grep -c .";
                    let node = |node: &Node| {
                        let log =
                            std::fs::read_to_string(node.folder().join("upstream.log")).unwrap_or_default();
                        let log: Vec<&str> = log.lines().rev().take(5).collect();
                        let shown = node.namespace().sh(&format!("({show}) 2>&1; true")).unwrap();
                        format!("{}\n{shown}\n{}\n", node.name(), log.join("\n"))
                    };
                    nodes.each_ref().map(node).concat()
                };
                assert!(reached, "{}\n{backend}: from node {from} to {address} of node {to}", state());
                // The largest packet that the pods' MTU lets through.
                let size = size(&nodes[from], address);
                let ping = format!("ping -n -c 2 -W 10 -M do -s {size} {address}");
                source.namespace().sh(&ping).unwrap();
                pairs += 1;
            }
        }
    }
    eprintln!("figure: {backend}: {pairs} directions between pods of upstream's nodes and ours");
}

/// Bytes of a ping that fills a pod's MTU.
fn size(node: &Node, target: IpAddr) -> u32 {
    let env = std::fs::read_to_string(node.subnet_file()).unwrap();
    let mtu = env.lines().find_map(|line| line.strip_prefix("FLANNEL_MTU=")).unwrap();
    let headers = if target.is_ipv4() { 28 } else { 48 };
    mtu.parse::<u32>().unwrap() - headers
}

#[test]
fn vxlan() {
    mixes(V4, r#""Type": "vxlan""#, true);
    mixes(DUAL, r#""Type": "vxlan", "DirectRouting": true"#, true);
}

#[test]
fn host_gw() {
    mixes(DUAL, r#""Type": "host-gw""#, true);
}

#[test]
fn ipip() {
    if KernelOption::IPIP.is_usable() {
        mixes(V4, r#""Type": "ipip""#, true);
    }
}

#[test]
fn udp() {
    if KernelOption::FOU.is_usable() {
        mixes(V4, r#""Type": "udp""#, true);
    }
}

#[test]
fn wireguard_over_ipv4() {
    if KernelOption::WIREGUARD.is_usable() {
        mixes(V4, r#""Type": "wireguard""#, true);
    }
}

#[test]
fn wireguard_with_a_device_for_each_family() {
    if KernelOption::WIREGUARD.is_usable() {
        let psk = "cHNrLXBzay1wc2stcHNrLXBzay1wc2stcHNrLXBzay0=";
        mixes(DUAL, &format!(r#""Type": "wireguard", "PSK": "{psk}""#), true);
    }
}

#[test]
fn wireguard_with_one_device_for_both_families() {
    if KernelOption::WIREGUARD.is_usable() {
        mixes(DUAL, r#""Type": "wireguard", "Mode": "auto""#, true);
        mixes(DUAL, r#""Type": "wireguard", "Mode": "ipv4""#, true);
    }
}

/// Upstream's nodes send to each other's ListenPortV6, where nothing listens, until a packet of ours arrives.
#[test]
fn wireguard_over_ipv6() {
    if KernelOption::WIREGUARD.is_usable() {
        mixes(DUAL, r#""Type": "wireguard", "Mode": "ipv6""#, false);
    }
}
