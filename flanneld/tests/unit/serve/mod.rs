//! What an operator sees: metrics, the status page and the port they are served on. No privileges needed.

mod http;
mod listen;
mod metrics;
mod page;

use flanneld::status::model::{
    Cause, CounterStatus, DeviceStatus, ForeignStatus, InterfaceStatus, LeaseStatus, PeerCounts, PeerState,
    PeerStatus, ProcessStatus, Repair, RepairCount, RulesStatus, SessionCounts, Status, StoreStatus,
    WireguardPeerStatus, WorkStatus,
};

/// A node of a small cluster: one peer in a tunnel, one routed directly, one refused, one that makes no sense.
fn sample() -> Status {
    let peer = |n: u8, state, underlay: Option<&str>, mac: Option<&str>, reason: Option<&str>| PeerStatus {
        subnet: format!("10.244.{n}.0/24").parse().unwrap(),
        state,
        underlay: underlay.map(|address| address.parse().unwrap()),
        mac: mac.map(str::to_owned),
        direct: mac.is_none() && underlay.is_some(),
        reason: reason.map(str::to_owned),
        session: None,
    };
    let work = WorkStatus {
        succeeded: 11,
        failed: 2,
        seconds: 0.125,
        durations: [1, 2, 3, 4, 2, 1, 0, 0, 0],
        last_success: Some(1_800_000_000.5),
        lag: 1.5,
    };
    let counter = |family: &str, name: &str| CounterStatus {
        family: family.to_owned(),
        name: name.to_owned(),
        packets: 12,
        bytes: 3400,
    };
    Status {
        version: "0.1.0".to_owned(),
        node: "worker-1".to_owned(),
        time: 1_800_000_010.0,
        started: 1_799_990_000.0,
        ready: false,
        unmet: [("rules".to_owned(), "table ip flannel-ipv4 is gone".to_owned())].into(),
        upstream: None,
        notes: [("store".to_owned(), "does not answer: <connection \"refused\" & gone>".to_owned())].into(),
        lease: LeaseStatus {
            ipv4: "10.244.1.0/24".parse().ok(),
            ipv6: "2001:cafe:42:1::/64".parse().ok(),
            expires: Some(1_800_080_000),
            renew_margin: Some(3_600),
        },
        store: StoreStatus {
            kind: "etcd".to_owned(),
            healthy: false,
            last_contact: Some(1_799_999_950.0),
            last_event: Some(1_799_999_900.25),
            last_error: Some("connection refused".to_owned()),
            answers: 40,
            failures: 3,
        },
        backend: "vxlan".to_owned(),
        interface: InterfaceStatus {
            name: "eth0".to_owned(),
            mtu: 1500,
            pod_mtu: 1450,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            public: vec!["198.51.100.1".parse().unwrap()],
        },
        devices: vec![DeviceStatus {
            name: "flannel.1".to_owned(),
            vni: Some(1),
            address: "10.244.1.0".parse().unwrap(),
            mac: Some("02:00:00:00:00:01".to_owned()),
            mtu: 1450,
            port: Some(8472),
            key: None,
            sessions: Some(SessionCounts { connected: 2, disconnected: 1, rx_bytes: 4096, tx_bytes: 8192 }),
            wireguard_peers: vec![WireguardPeerStatus {
                key: "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=".to_owned(),
                subnets: "10.244.2.0/24,2001:cafe:42:2::/64".to_owned(),
                latest_handshake: Some(1_799_999_990),
                rx_bytes: 1024,
                tx_bytes: 2048,
            }],
        }],
        rules: RulesStatus {
            owned: false,
            tables: vec!["ip flannel-ipv4".to_owned()],
            right: true,
            generation: Some(7),
            transactions: 3,
            changes: 21,
            counters: vec![
                counter("ipv4", "masquerade-from-pods"),
                counter("ipv4", "masquerade-to-pods"),
                counter("ipv4", "forward-from-pods"),
                counter("ipv4", "forward-to-pods"),
                counter("ipv4", "of-somebody-else"),
            ],
        },
        obstacles: vec!["chain `ip filter FORWARD` drops".to_owned()],
        peers: PeerCounts { leases: 4, programmed: 2, pending: 1, skipped: 1 },
        peer_list: vec![
            peer(2, PeerState::Programmed, Some("192.0.2.2"), Some("02:00:00:00:00:02"), None),
            peer(3, PeerState::Programmed, Some("192.0.2.3"), None, None),
            peer(4, PeerState::Pending, Some("192.0.2.4"), None, Some("to be written")),
            peer(5, PeerState::Skipped, None, None, Some("<script>alert('x')</script> & \"more\"")),
        ],
        work: ["interface", "overlay", "rules", "subnet_file"]
            .map(|kind| (kind.to_owned(), work.clone()))
            .into(),
        repairs: vec![Repair {
            time: 1_799_999_000.0,
            object: "rules".to_owned(),
            cause: Cause::Notification,
            what: "7 steps; last changed by \"nft\", process 4711".to_owned(),
        }],
        repair_counts: vec![RepairCount { object: "rules".to_owned(), cause: Cause::Notification, count: 1 }],
        foreign: ForeignStatus { ours: 1, others: 5, overflows: 0 },
        process: ProcessStatus { cpu_seconds: 0.75, resident_bytes: 12_582_912, open_fds: 17 },
    }
}
