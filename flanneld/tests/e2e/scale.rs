//! A node with a thousand peers, with each backend that makes a device: start, restart, a new peer, and a deleted device. The
//! figures of vxlan, which every kernel has, show how much slower a virtual machine is.

use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use testkit::{Flannel, KernelOption, Lab, Node, may_make_namespaces, wait_for};

use crate::{BINARY, Witness};

const PEERS: u16 = 1000;
/// Long enough for a thousand peers in an emulated machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A backend, its device, and what a node with a number publishes.
struct Backend {
    name: &'static str,
    device: &'static str,
    published: fn(u16) -> String,
}

impl Backend {
    /// Writes leases of nodes that do not exist.
    fn add_leases(&self, flannel: &Flannel, numbers: impl Iterator<Item = u16>) {
        let mut store = Connection::open(flannel.lease_file()).unwrap();
        store.busy_timeout(LIMIT).unwrap();
        let transaction = store.transaction().unwrap();
        for n in numbers {
            let [high, low] = n.to_be_bytes();
            let key = format!("10.{}.{low}.0-24", 240 + u16::from(high));
            let json =
                format!(r#"{{"PublicIP":"172.16.{high}.{low}","PublicIPv6":null{}}}"#, (self.published)(n));
            let sql = "INSERT INTO lease (key, attributes) VALUES (?1, ?2)";
            transaction.execute(sql, params![key, json]).unwrap();
        }
        transaction.commit().unwrap();
        // As every daemon does after a commit.
        let notify = flannel.lease_file().with_file_name("leases.db-changed");
        std::fs::write(notify, "\n").unwrap();
    }

    /// How many peers the kernel has.
    fn programmed(&self, node: &Node) -> usize {
        let count = match self.name {
            "wireguard" => "wg show flannel-wg peers 2>/dev/null | wc -l".to_owned(),
            _ => "ip route show proto 70 | wc -l".to_owned(),
        };
        node.namespace().sh(&count).unwrap().trim().parse().unwrap()
    }

    fn has_programmed(&self, node: &Node, count: u16) {
        let all = || (self.programmed(node) == usize::from(count)).then_some(());
        assert!(wait_for(LIMIT, all).is_some(), "{}: {} peers", self.name, self.programmed(node));
    }

    fn runs(&self) {
        let mut lab = Lab::new().unwrap();
        let net_conf = format!(
            r#"{{"Network": "10.240.0.0/12", "EnableNFTables": true, "Backend": {{"Type": "{}"}}}}"#,
            self.name
        );
        let flannel = Flannel::new(&lab, BINARY, &net_conf).unwrap();
        let node = lab.add_node().unwrap();
        // A first start makes the store and takes a lease.
        let mut daemon = flannel.start(&node).unwrap();
        daemon.ready(LIMIT).unwrap();
        assert!(daemon.terminate().unwrap().success());
        node.namespace().sh(&format!("ip link del {}", self.device)).unwrap();
        let own = std::fs::read_to_string(node.subnet_file()).unwrap();
        let is_own = |n: &u16| {
            let [high, low] = n.to_be_bytes();
            own.contains(&format!("=10.{}.{low}.1/", 240 + u16::from(high)))
        };
        let mut numbers = (1..).filter(|n| !is_own(n));
        self.add_leases(&flannel, numbers.by_ref().take(PEERS.into()));
        let figure = |what: &str, begun: Instant| {
            eprintln!("figure: {} with {PEERS} peers: {:.3?} {what}", self.name, begun.elapsed());
        };

        let begun = Instant::now();
        let mut daemon = flannel.start(&node).unwrap();
        self.has_programmed(&node, PEERS);
        daemon.ready(LIMIT).unwrap();
        figure("from the start to the last peer", begun);

        assert!(daemon.terminate().unwrap().success());
        let witness = Witness::of_all(&node);
        let mut daemon = flannel.start(&node).unwrap();
        let took = daemon.ready(LIMIT).unwrap();
        eprintln!("figure: {} with {PEERS} peers: {took:.3?} for a start that writes nothing", self.name);
        let changes = witness.saw();
        // The kernel adds a link-local address by itself, seconds after the device was created.
        let is_ours = |line: &str| line.contains(self.device) && !line.contains("fe80:");
        assert!(!changes.lines().any(is_ours), "{}: {changes}", self.name);

        for _ in 0..3 {
            let count = u16::try_from(self.programmed(&node)).unwrap() + 1;
            let new = numbers.next().unwrap();
            let begun = Instant::now();
            self.add_leases(&flannel, [new].into_iter());
            self.has_programmed(&node, count);
            figure("for a new peer, from its lease to the kernel", begun);
        }

        node.namespace().sh(&format!("ip link del {}", self.device)).unwrap();
        let begun = Instant::now();
        self.has_programmed(&node, PEERS + 3);
        figure("to restore the deleted device with all peers", begun);
    }
}

/// Runs on every kernel.
#[test]
fn a_thousand_peers_over_vxlan() {
    if !may_make_namespaces() {
        return;
    }
    let published = |n: u16| {
        let [high, low] = n.to_be_bytes();
        format!(
            r#","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:{high:02x}:{low:02x}"}}"#
        )
    };
    Backend { name: "vxlan", device: "flannel.1", published }.runs();
}

#[test]
fn a_thousand_peers_over_wireguard() {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    let published = |n: u16| {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let key = BASE64_STANDARD.encode([n.to_be_bytes(); 16].concat());
        format!(r#","BackendType":"wireguard","BackendData":{{"PublicKey":"{key}","Port":51820}}"#)
    };
    Backend { name: "wireguard", device: "flannel-wg", published }.runs();
}

#[test]
fn a_thousand_peers_over_ipip() {
    if !KernelOption::IPIP.is_usable() {
        return;
    }
    let published = |_| r#","BackendType":"ipip""#.to_owned();
    Backend { name: "ipip", device: "flannel.ipip", published }.runs();
}

#[test]
fn a_thousand_peers_over_udp() {
    if !KernelOption::FOU.is_usable() {
        return;
    }
    Backend { name: "udp", device: "flannel0", published: |_| String::new() }.runs();
}
