//! Three nodes on the network of a [`Lab`]: their addresses, an overlay on each, and pings between their pods.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use flannel_vxlan::{Family, Kernel, Link, Netlink, Overlay};
use ipnet::IpNet;
use testkit::{Lab, Node, sh, wait_for};

use super::converge;

/// The address of a node on the network of a [`Lab`]; for IPv4 the same as [`host`](super::host).
pub(crate) fn underlay(node: u16, family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => format!("192.168.77.{node}"),
        Family::V6 => format!("fd00:77::{node:x}"),
    };
    text.parse().unwrap()
}

pub(crate) fn network(family: Family) -> IpNet {
    let text = match family {
        Family::V4 => "10.244.0.0/16",
        Family::V6 => "fd00:10:244::/48",
    };
    text.parse().unwrap()
}

pub(crate) fn subnet(node: u16, family: Family) -> IpNet {
    let text = match family {
        Family::V4 => format!("10.244.{node}.0/24"),
        Family::V6 => format!("fd00:10:244:{node:x}::/64"),
    };
    text.parse().unwrap()
}

pub(crate) fn pod(node: u16, family: Family) -> String {
    match family {
        Family::V4 => format!("10.244.{node}.1"),
        Family::V6 => format!("fd00:10:244:{node:x}::1"),
    }
}

/// The interface of a node on the network of its lab.
pub(crate) fn eth0(kernel: &mut Netlink) -> Link {
    let found = kernel.interfaces().unwrap().into_iter().find(|interface| interface.name == "eth0").unwrap();
    Link { index: found.index, name: "eth0".parse().unwrap() }
}

/// Three nodes with a pod address of each family, and an overlay on each node, given its number and interface.
pub(crate) fn lab(families: &[Family], overlay: impl Fn(u16, Link) -> Overlay + Sync) -> (Lab, Vec<Node>) {
    let mut lab = Lab::new().unwrap();
    let nodes: Vec<Node> = (1..=3).map(|_| lab.add_node().unwrap()).collect();
    for (number, node) in (1..).zip(&nodes) {
        let start = || {
            sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
            for family in families {
                sh(&format!("ip addr add {}/{} dev lo", pod(number, *family), family.bits()));
            }
            let mut kernel = Netlink::open().unwrap();
            converge(&mut overlay(number, eth0(&mut kernel)), &mut kernel);
        };
        node.namespace().enter(start).unwrap();
    }
    (lab, nodes)
}

/// Sends a packet with this many bytes of data from each node's pod to each other node's, and back.
#[track_caller]
pub(crate) fn assert_all_reach_all(nodes: &[Node], family: Family, size: u32) {
    for from in 1..=3 {
        for to in (1..=3).filter(|to| *to != from) {
            let (from_pod, to_pod) = (pod(from, family), pod(to, family));
            let ping = format!("ping -n -c 1 -W 20 -s {size} -I {from_pod} {to_pod}");
            nodes[usize::from(from) - 1].namespace().sh(&ping).unwrap();
        }
    }
}

/// Packets on the switch of a lab, as tcpdump shows them.
pub(crate) struct Capture {
    file: PathBuf,
    pid: String,
}

impl Capture {
    /// Starts tcpdump with these `arguments`.
    pub(crate) fn start(lab: &Lab, arguments: &str) -> Self {
        let file = lab.folder().join("capture");
        let tcpdump = format!("tcpdump -l -n -i br0 {arguments} > {} 2>&1 & echo $!", file.display());
        let capture = Self { pid: lab.switch().sh(&tcpdump).unwrap(), file };
        wait_for(Duration::from_secs(5), || capture.text().contains("listening on").then_some(())).unwrap();
        capture
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Ends tcpdump once it has shown what is `expected`, or after 5 s; returns what it has shown.
    pub(crate) fn end(self, expected: impl Fn(&str) -> bool) -> String {
        let shown = wait_for(Duration::from_secs(5), || Some(self.text()).filter(|text| expected(text)));
        sh(&format!("kill {}", self.pid.trim()));
        shown.unwrap_or_else(|| self.text())
    }
}
