//! Peers as leases name them, and what becomes of them in the kernel.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use flannel_vxlan::{Monitor, Netlink, Notification};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rusqlite::Connection;
use testkit::{Daemon, Node};

pub(crate) const NET_CONF: &str = r#"{"Network": "10.0.0.0/8", "SubnetLen": 26, "SubnetMin": "10.200.0.0", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// The subnet of peer number `peer`; 0 and 1 are free for the node itself.
pub(crate) fn subnet(peer: u32) -> IpNet {
    format!("{}/26", Ipv4Addr::from(0x0a00_0000 + ((peer + 256) << 6))).parse().unwrap()
}

/// What the kernel says of routes that appear.
pub(crate) struct Routes {
    monitor: Monitor,
}

impl Routes {
    pub(crate) fn watch(node: &Node) -> Self {
        let monitor = node.namespace().enter(|| Monitor::open(&Netlink::open().unwrap()).unwrap()).unwrap();
        Self { monitor }
    }

    /// When the last of these routes was there.
    pub(crate) fn wait_for(&mut self, subnets: &[IpNet]) -> Instant {
        let mut missing: Vec<IpNet> = subnets.to_vec();
        let deadline = Instant::now() + SOON;
        loop {
            for notification in self.monitor.take().unwrap() {
                if let Notification::Route { route, gone: false } = notification {
                    missing.retain(|subnet| *subnet != route.subnet);
                }
            }
            if missing.is_empty() {
                return Instant::now();
            }
            assert!(Instant::now() < deadline, "no route to {missing:?}");
            let mut ready = [PollFd::new(self.monitor.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(1000_u16)).unwrap();
        }
    }
}

pub(crate) fn resident_mib(daemon: &Daemon, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid().unwrap())).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Makes the next start a cold one: no device, no rules, no subnet.env, no memory. The lease stays.
pub(crate) fn forget(node: &Node) {
    node.namespace()
        .sh("ip route flush proto 70 2>/dev/null || true; ip link del flannel.1 2>/dev/null || true; nft flush ruleset")
        .unwrap();
    for file in [node.subnet_file(), node.subnet_file().with_extension("state.json")] {
        drop(fs::remove_file(file));
    }
}

pub(crate) fn mac(peer: u32) -> String {
    let [a, b, c, d] = peer.to_be_bytes();
    format!("02:01:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

pub(crate) fn public(peer: u32) -> Ipv4Addr {
    let [_, a, b, c] = peer.to_be_bytes();
    Ipv4Addr::new(172, 16 + a, b, c)
}

/// What that peer publishes with its lease.
pub(crate) fn attributes(peer: u32) -> String {
    format!(
        r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
        public(peer),
        mac(peer)
    )
}

/// Adds leases to the SQLite file in one transaction and tells the daemon; returns when that was committed.
pub(crate) fn add_leases(leases: &mut Connection, file: &Path, peers: Range<u32>) -> Instant {
    let transaction = leases.transaction().unwrap();
    for peer in peers {
        let key = subnet(peer).to_string().replace('/', "-");
        transaction
            .execute("INSERT OR IGNORE INTO lease (key, attributes) VALUES (?1, ?2)", [key, attributes(peer)])
            .unwrap();
    }
    transaction.commit().unwrap();
    let committed = Instant::now();
    let mut bell = file.as_os_str().to_owned();
    bell.push("-changed");
    fs::write(bell, "\n").unwrap();
    committed
}
