//! Nodes in the state that upstream's daemon was measured to leave them in, without that daemon.
//!
//! `golden/upstream/` holds what upstream v0.28 was seen to leave or to send, with the pod subnet named `POD_CIDR`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use testkit::{Node, Pod};

use super::etcd_host::Etcd;

const NET_CONF: &str =
    r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
const DUAL_STACK_NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
    "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
const DIRECT_NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "EnableNFTables": true,
    "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
const HOST_GW_NET_CONF: &str =
    r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "host-gw"}}"#;
/// Of each node: the third octet of its subnet, which is also the fourth group of its IPv6 subnet, and the MAC addresses
/// of its VXLAN devices.
pub(super) const NODES: [(u8, &str, &str); 3] = [
    (32, "6a:13:c3:af:3b:30", "7a:55:f8:70:66:1e"),
    (6, "a6:41:05:6e:60:e3", "92:e1:9f:95:b1:b6"),
    (19, "ce:6a:86:86:4f:62", "d6:9b:a4:28:2a:72"),
];

const LEFT_BY_IPTABLES_MODE: &str = include_str!("golden/upstream/iptables.rules");
const LEFT_BY_IP6TABLES_MODE: &str = include_str!("golden/upstream/ip6tables.rules");
const SENT_BY_NFTABLES_MODE: &str = include_str!("golden/upstream/start.nft");
const SENT_BY_NFTABLES_MODE_V6: &str = include_str!("golden/upstream/start-v6.nft");

#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Iptables,
    Nftables,
}

/// How upstream's daemons of a cluster run, beside their mode.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) net_conf: &'static str,
    /// `--ip-masq`.
    pub(crate) masquerades: bool,
    /// Whether the host's FORWARD chain drops what it does not know, as Docker sets it.
    pub(crate) forward_drops: bool,
}

pub(crate) const VXLAN: Kind = Kind { net_conf: NET_CONF, masquerades: true, forward_drops: false };
pub(crate) const DUAL_STACK: Kind = Kind { net_conf: DUAL_STACK_NET_CONF, ..VXLAN };
pub(crate) const DIRECT: Kind = Kind { net_conf: DIRECT_NET_CONF, ..VXLAN };
pub(crate) const HOST_GW: Kind = Kind { net_conf: HOST_GW_NET_CONF, ..VXLAN };
/// The CNI plugin masquerades then, each pod for itself.
pub(crate) const WITHOUT_MASQUERADE: Kind = Kind { masquerades: false, ..VXLAN };
pub(crate) const FORWARD_DROPS: Kind = Kind { forward_drops: true, ..VXLAN };
pub(crate) const DUAL_STACK_FORWARD_DROPS: Kind = Kind { forward_drops: true, ..DUAL_STACK };

impl Kind {
    pub(crate) fn is_dual_stack(self) -> bool {
        self.net_conf.contains("EnableIPv6")
    }

    fn has_devices(self) -> bool {
        self.net_conf.contains("vxlan")
    }

    /// The key and the contents of a lease in etcd.
    fn lease(self, node: &Node, n: usize) -> (String, String) {
        let (octet, mac, mac6) = NODES[n];
        let (v4, v6) = (node.v4(), node.v6());
        let subnet = format!("10.244.{octet}.0-24");
        let data = format!(r#""BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}"#);
        if !self.has_devices() {
            (subnet, format!(r#"{{"PublicIP":"{v4}","PublicIPv6":null,"BackendType":"host-gw"}}"#))
        } else if self.is_dual_stack() {
            let data6 = format!(r#""BackendV6Data":{{"VNI":1,"VtepMAC":"{mac6}"}}"#);
            let json = format!(r#"{{"PublicIP":"{v4}","PublicIPv6":"{v6}",{data},{data6}}}"#);
            (format!("{subnet}&fd00:10:244:{octet}::-64"), json)
        } else {
            (subnet, format!(r#"{{"PublicIP":"{v4}","PublicIPv6":null,{data}}}"#))
        }
    }

    pub(super) fn subnet_env(self, n: usize) -> String {
        let octet = NODES[n].0;
        let v6 =
            format!("FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:{octet}::1/64\n");
        format!(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.{octet}.1/24\n{}FLANNEL_MTU={}\nFLANNEL_IPMASQ={}\n",
            if self.is_dual_stack() { &v6 } else { "" },
            if self.has_devices() { 1450 } else { 1500 },
            self.masquerades,
        )
    }

    /// Devices, neighbours, forwarding entries and routes, as commands.
    fn overlay(self, node: &Node, n: usize) -> String {
        let (octet, mac, mac6) = NODES[n];
        let mut script = "set -e\n".to_owned();
        let device = |name, mac, mtu, local: IpAddr, address| {
            format!(
                "ip link show {name} >/dev/null 2>&1 || \
                    ip link add {name} address {mac} mtu {mtu} type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning
                echo 0 >/proc/sys/net/ipv6/conf/{name}/accept_ra
                ip addr replace {address} dev {name} nodad
                ip link set {name} up\n"
            )
        };
        if self.has_devices() {
            script += &device("flannel.1", mac, 1450, node.v4().into(), format!("10.244.{octet}.0/32"));
        }
        if self.is_dual_stack() {
            let address = format!("fd00:10:244:{octet}::/128");
            script += &device("flannel-v6.1", mac6, 1430, node.v6().into(), address);
        }
        let entry = |name, gateway, mac, public: IpAddr, bits| {
            format!(
                "ip neigh replace {gateway} lladdr {mac} dev {name} nud permanent
                bridge fdb replace {mac} dev {name} dst {public} self permanent
                ip route replace {gateway}/{bits} via {gateway} dev {name} onlink\n"
            )
        };
        for (peer, (octet, mac, mac6)) in NODES.iter().enumerate().filter(|(peer, _)| *peer != n) {
            // As the lab numbers its nodes.
            let host = u8::try_from(peer + 1).unwrap();
            let v4 = Ipv4Addr::new(192, 168, 77, host);
            let v6 = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, host.into());
            if self.has_devices() && !self.net_conf.contains("DirectRouting") {
                script += &entry("flannel.1", format!("10.244.{octet}.0"), mac, v4.into(), 24);
            } else {
                script += &format!("ip route replace 10.244.{octet}.0/24 via {v4} dev eth0\n");
            }
            if self.is_dual_stack() {
                script += &entry("flannel-v6.1", format!("fd00:10:244:{octet}::"), mac6, v6.into(), 64);
            }
        }
        script
    }

    /// What loads the rules of each family: a command, and what it reads.
    pub(crate) fn rules(self, n: usize, mode: Mode) -> Vec<(&'static str, String)> {
        let octet = NODES[n].0;
        let [v4, v6] = match mode {
            Mode::Iptables => [
                ("iptables-nft-restore --noflush <", LEFT_BY_IPTABLES_MODE),
                ("ip6tables-nft-restore --noflush <", LEFT_BY_IP6TABLES_MODE),
            ],
            Mode::Nftables => [("nft -f", SENT_BY_NFTABLES_MODE), ("nft -f", SENT_BY_NFTABLES_MODE_V6)],
        };
        let of_node = |(command, text): (&'static str, &str), pods: String| {
            let text = if self.masquerades { text } else { text.split("*nat").next().unwrap() };
            let kept = text.lines().filter(|line| self.masquerades || !line.contains("postrtg"));
            let mut text: String = kept.map(|line| format!("{line}\n")).collect();
            if self.forward_drops {
                text = text.replace(":FORWARD ACCEPT", ":FORWARD DROP");
            }
            (command, text.replace("POD_CIDR", &pods))
        };
        let mut all = vec![of_node(v4, format!("10.244.{octet}.0/24"))];
        if self.is_dual_stack() {
            all.push(of_node(v6, format!("fd00:10:244:{octet}::/64")));
        }
        all
    }
}

/// Three nodes as upstream runs them, with a pod on each.
pub(crate) struct Cluster {
    pub(crate) kind: Kind,
    pub(crate) nodes: Vec<(Node, Pod)>,
}

/// What a start of upstream's daemon does to the kernel.
pub(crate) fn start_upstream(node: &Node, n: usize, kind: Kind, mode: Mode) {
    let mut script = kind.overlay(node, n);
    for (number, (command, text)) in kind.rules(n, mode).into_iter().enumerate() {
        let file = node.folder().join(format!("rules{number}"));
        fs::write(&file, text).unwrap();
        script += &format!("{command} {}\n", file.display());
    }
    node.namespace().sh(&script).unwrap();
}

impl Cluster {
    pub(crate) fn of_upstream(etcd: &Etcd<'_>, nodes: Vec<Node>, kind: Kind, mode: Mode) -> Self {
        etcd.ctl(&format!("put /coreos.com/network/config '{}'", kind.net_conf));
        let nodes = nodes.into_iter().enumerate().map(|(n, mut node)| {
            let granted = etcd.ctl("lease grant 86400");
            let lease = granted.split_whitespace().nth(1).unwrap();
            let (key, json) = kind.lease(&node, n);
            etcd.ctl(&format!("put --lease={lease} '/coreos.com/network/subnets/{key}' '{json}'"));
            start_upstream(&node, n, kind, mode);
            fs::write(node.subnet_file(), kind.subnet_env(n)).unwrap();
            let pod = node.add_pod().unwrap();
            (node, pod)
        });
        Self { kind, nodes: nodes.collect() }
    }

    pub(crate) fn node(&self, n: usize) -> &Node {
        &self.nodes[n].0
    }

    /// Addresses of the pod on a node.
    pub(crate) fn addresses(&self, n: usize) -> impl Iterator<Item = IpAddr> {
        self.nodes[n].1.addresses()
    }
}
