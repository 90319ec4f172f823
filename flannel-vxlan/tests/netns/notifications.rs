//! Changes of other programs are noticed, our own are not.

use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_vxlan::{Family, Invalidation, MacAddr, Monitor, Notification, Overlay, Peer, PeerConflict, Via};
use ipnet::IpNet;
use testkit::{netns, sh, try_sh, wait_for};

use super::{add_peers, both, converge, device, direct, family, flush, host, mac, tunnel, with};

/// What the notifications so far invalidate.
#[track_caller]
fn notice(overlay: &mut Overlay, monitor: &mut Monitor) -> Invalidation {
    overlay.notice(&monitor.take().unwrap())
}

#[test]
fn our_own_changes_invalidate_nothing() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = Overlay::new(Family::ALL.map(|f| {
            family(f, e0).device(with(device(f, e0), |vxlan| vxlan.tx_checksum(Some(false)))).blackhole(true)
        }));
        let calm = |overlay: &mut Overlay, monitor: &mut Monitor, what: &str| {
            // The kernel itself still adds link-local addresses and routes, which belong to the host.
            assert!(!notice(overlay, monitor).overlay, "{what}");
            assert!(!overlay.is_pending(), "{what}");
        };
        add_peers(&mut overlay, 9);
        converge(&mut overlay, &mut kernel);
        calm(&mut overlay, &mut monitor, "made");
        overlay.set_peer(tunnel("10.244.3.0/24", &mac(33), "192.168.77.33")).unwrap();
        flush(&mut overlay, &mut kernel);
        calm(&mut overlay, &mut monitor, "changed");
        overlay.set_peer(direct("10.244.3.0/24", "192.168.77.33")).unwrap();
        overlay.set_peer(direct("fd00:10:244:3::/64", "fd77::3")).unwrap();
        flush(&mut overlay, &mut kernel);
        calm(&mut overlay, &mut monitor, "made direct");
        overlay.remove_peer("10.244.3.0/24".parse().unwrap());
        overlay.remove_peer("10.244.4.0/24".parse().unwrap());
        overlay.remove_peer("fd00:10:244:4::/64".parse().unwrap());
        flush(&mut overlay, &mut kernel);
        calm(&mut overlay, &mut monitor, "removed");
        overlay.set_family(family(Family::V4, e0).device(with(device(Family::V4, e0), |vxlan| {
            vxlan.port(4789.try_into().unwrap()).learning(true)
        })));
        flush(&mut overlay, &mut kernel);
        calm(&mut overlay, &mut monitor, "recreated");
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn every_change_of_the_overlay_is_noticed_and_other_changes_are_not() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 5);
        overlay.set_peer(direct("10.244.6.0/24", "192.168.77.6")).unwrap();
        converge(&mut overlay, &mut kernel);
        let _made = notice(&mut overlay, &mut monitor);
        for disturbance in [
            "ip link del flannel.1",
            "ip link del flannel-v6.1",
            "ip link set flannel.1 down",
            "ip link set flannel.1 down; ip link set flannel.1 up",
            "ip link set flannel-v6.1 down; ip link set flannel-v6.1 up",
            "ip link set e0 down; ip link set e0 up; ip addr replace fd77::1/64 dev e0 nodad",
            // Before 6.2 a device cannot be renamed while it is up.
            "ip link set flannel.1 name flannel.9 || { ip link set flannel.1 down; ip link set flannel.1 name flannel.9; }; ip link del flannel.9",
            "ip link set flannel.1 name flannel.9 || { ip link set flannel.1 down; ip link set flannel.1 name flannel.9; }",
            "ip addr flush dev flannel.1",
            "ip addr flush dev flannel-v6.1 scope global",
            "ip route del 10.244.2.0/24",
            "ip route del 10.244.6.0/24",
            "ip -6 route del fd00:10:244:2::/64",
            "ip route replace 10.244.4.0/24 via 192.168.77.4 dev e0",
            "ip neigh flush dev flannel.1 nud permanent",
            "ip neigh del 10.244.3.0 dev flannel.1",
            "ip neigh replace 10.244.4.0 lladdr 02:00:00:00:99:99 dev flannel.1 nud permanent",
            "ip -6 neigh del fd00:10:244:3:: dev flannel-v6.1",
            "bridge fdb del 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.3 self",
            "bridge fdb del 02:00:00:00:00:03 dev flannel-v6.1 dst fd77::3 self",
            "bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.99 self permanent",
            "ip nexthop flush",
            "ip nexthop del id $(ip nexthop | sed -n 's/id \\([0-9]*\\).*/\\1/;1p')",
            "ip link set flannel.1 type vxlan id 1 ttl 1",
            "ip link set flannel.1 type vxlan id 1 tos 4 df set ageing 10",
            "ip link add br0 type bridge; ip link set flannel.1 master br0",
            // Changed in place, with the same key.
            "ip nexthop replace id $(ip nexthop | sed -n 's/id \\([0-9]*\\) .*proto 70.*/\\1/p' | head -1) via 192.168.77.9 dev e0",
            "ip nexthop replace id $(ip nexthop | sed -n 's/id \\([0-9]*\\) .*proto 70.*/\\1/p' | head -1) via 10.244.9.0 dev flannel.1 onlink proto 70",
            "ip nexthop replace id $(ip nexthop | sed -n 's/id \\([0-9]*\\) .*proto 70.*/\\1/p' | head -1) via 192.168.77.9 dev e0
             for id in $(ip nexthop | sed -n 's/id \\([0-9]*\\) via 192.*/\\1/p'); do ip nexthop del id $id; done",
            "bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.3 port 4789 self permanent",
            "bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.3 vni 7 self permanent",
            "bridge fdb replace 02:00:00:00:00:03 dev flannel-v6.1 dst fd77::3 via e1 self permanent",
            "bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.3 self dynamic",
            "bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.99 self dynamic",
            "ip neigh replace 10.244.4.0 lladdr 02:00:00:00:00:04 dev flannel.1 nud reachable",
            "ip route change $(ip route show 10.244.2.0/24 | sed 's/ via.*//') proto 70 mtu 600",
            "ip route change $(ip route show 10.244.2.0/24 | sed 's/ via.*//') proto 70 src 192.168.77.1",
            "ip route change 10.244.6.0/24 via 192.168.77.6 dev e0 proto 70 mtu 600",
            "ip route change 10.244.6.0/24 via 192.168.77.6 dev flannel.1 onlink proto 70",
            "ip -6 route change fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink proto 70 metric 1024 mtu 1280",
            "ip -6 route change fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink proto 70 metric 1024 src fd77::1",
            "ip link set flannel.1 address 02:00:00:00:99:99",
            "ip link set flannel.1 mtu 1300",
            "ip link set flannel.1 type vxlan id 1 local 192.168.77.9 dev e0",
        ] {
            sh(disturbance);
            assert!(notice(&mut overlay, &mut monitor).overlay, "`{disturbance}` goes unnoticed");
            assert!(flush(&mut overlay, &mut kernel) > 0, "`{disturbance}` changes nothing");
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "after `{disturbance}`");
            assert!(!notice(&mut overlay, &mut monitor).overlay, "the repair of `{disturbance}` invalidates the overlay");
        }
        for (event, host) in [
            ("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up", true),
            ("ip route add 10.99.0.0/16 via 192.168.77.9", false),
            ("ip route add default via 192.168.77.9", true),
            ("ip -6 route add default via fd77::9 dev e0", true),
            ("ip addr add 10.98.0.1/24 dev v0", true),
            ("ip link set e0 mtu 1480", true),
            ("ip neigh add 172.16.0.9 lladdr 02:00:00:00:77:02 dev flannel.1 nud permanent", false),
            ("bridge fdb add 02:00:00:00:77:01 dev flannel.1 dst 192.168.77.200 self permanent", false),
            ("ip nexthop add id 7 via 192.168.77.7 dev e0", false),
        ] {
            sh(event);
            // The kernel reports the carrier of a new link later, and its link-local address, before it adds the route to
            // it, from a work queue: every event here must have only its own reports.
            let is_complete = "test $(ip -br link show type veth | grep -c ' UP ') = 4
                ip -6 -oneline addr show | while read -r _ device _ address _; do
                    ip -6 route show table local dev $device | grep -q \"^local ${address%/*} \" || exit 1; done";
            let is_complete = || try_sh(&format!("set -e; {is_complete}")).ok();
            assert!(wait_for(Duration::from_secs(10), is_complete).is_some(), "v0 and v1 do not come up");
            assert_eq!(
                notice(&mut overlay, &mut monitor),
                Invalidation { host, ..Invalidation::default() },
                "`{event}`"
            );
        }
        // An address inside a peer's subnet changes which peers can be programmed.
        sh("ip addr add 10.244.3.1/24 dev v0");
        assert!(notice(&mut overlay, &mut monitor).overlay);
        flush(&mut overlay, &mut kernel);
        assert!(matches!(
            overlay.conflict_of("10.244.3.0/24".parse().unwrap()),
            Some(PeerConflict::CoversHostNetwork(_))
        ));
        sh("ip addr del 10.244.3.1/24 dev v0");
        assert!(notice(&mut overlay, &mut monitor).overlay);
        flush(&mut overlay, &mut kernel);
        assert_eq!(overlay.conflicts().next(), None);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn rerouted_destinations_are_reported() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        overlay.set_peer(direct("10.244.6.0/24", "192.168.77.6")).unwrap();
        sh(
            "ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up; ip addr add 10.98.0.1/24 dev v0",
        );
        converge(&mut overlay, &mut kernel);
        let _made = notice(&mut overlay, &mut monitor);
        let everywhere = &["0.0.0.0/0", "::/0"][..];
        for (event, expected) in [
            ("ip route add 192.168.77.2/32 via 192.168.77.254", &["192.168.77.2/32"][..]),
            ("ip route del 192.168.77.2/32", &["192.168.77.2/32"]),
            (
                "ip route add 192.168.78.0/24 dev v0; ip -6 route add fd78::/64 via fd77::9",
                &["192.168.78.0/24", "fd78::/64"],
            ),
            ("ip route add default via 192.168.77.254", &["0.0.0.0/0"]),
            ("ip addr add 10.97.0.1/24 dev v0", &["10.97.0.0/24"]),
            ("ip addr del 10.97.0.1/24 dev v0", &["10.97.0.0/24"]),
            ("ip link add v2 type veth peer name v3", &[]),
            ("ip link set e0 mtu 1480", &[]),
            (
                "ip route del 10.244.2.0/24; ip route del 10.244.6.0/24; ip neigh flush dev flannel.1 nud permanent",
                &[],
            ),
            ("ip addr add 192.168.77.8/24 dev e0", &[]),
            ("ip addr del 192.168.77.8/24 dev e0", everywhere),
            ("ip addr flush dev e0", everywhere),
            ("ip link set e0 down", everywhere),
            ("ip link set e0 up", everywhere),
        ] {
            sh(event);
            let notifications = monitor.take().unwrap();
            let rerouted = overlay.rerouted(&notifications);
            let expected = expected.iter().map(|net| net.parse().unwrap());
            for net in expected.clone() {
                assert!(rerouted.contains(&net), "`{event}`: {rerouted:?}");
            }
            // Multicast and link-local routes come and go with their interface.
            let others: Vec<&IpNet> = rerouted
                .iter()
                .filter(|net| !matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local() || v6.addr().is_multicast()))
                .filter(|net| net.prefix_len() == 0 || expected.clone().next().is_none())
                .filter(|net| !expected.clone().any(|expected| expected == **net))
                .collect();
            assert!(others.is_empty(), "`{event}`: {others:?}");
            if overlay.notice(&notifications).overlay {
                let _refused = overlay.flush(&mut kernel).unwrap();
                let _ours = notice(&mut overlay, &mut monitor);
            }
        }
        let at = |net: &str| overlay.peers_within(net.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(at("192.168.77.2/32"), ["10.244.2.0/24".parse().unwrap()]);
        assert_eq!((at("192.168.77.0/24").len(), at("::/0").len(), at("10.0.0.0/8").len()), (3, 2, 0));
    });
}

#[test]
fn a_cold_start_with_ten_thousand_peers_does_not_overflow_its_own_monitor() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut wide = family(Family::V4, e0).device(device(Family::V4, e0));
        wide.networks = vec!["10.0.0.0/8".parse().unwrap()];
        let mut overlay = Overlay::new([wide]);
        for n in 0..10_000_u32 {
            let (subnet, underlay) =
                (Ipv4Addr::from(0x0a01_0000 + (n << 8)), Ipv4Addr::from(0xac10_0000 + n));
            let [_, a, b, c] = n.to_be_bytes();
            let mac = MacAddr::new([2, 0, 9, a, b, c]).unwrap();
            // Some subnets contain this host's own subnet; those peers are not programmed.
            let _harmful = overlay.set_peer(Peer {
                subnet: IpNet::new(subnet.into(), 24).unwrap(),
                via: Via::Tunnel { mac, underlay: underlay.into() },
            });
        }
        converge(&mut overlay, &mut kernel);
        loop {
            let notifications = monitor.take().unwrap();
            if notifications.is_empty() {
                break;
            }
            assert!(!notifications.contains(&Notification::Overflow), "10,000 peers would be observed again");
            assert!(!overlay.notice(&notifications).overlay);
        }
        // Deleting the device deletes the peers without one lock per peer.
        sh("ip link del flannel.1");
    });
}

#[test]
fn lost_notifications_are_reported_as_an_overflow() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 2);
        converge(&mut overlay, &mut kernel);
        let _made = notice(&mut overlay, &mut monitor);
        sh("for i in $(seq 30000); do echo neigh replace 172.16.0.9 lladdr 02:00:00:00:77:02 dev flannel.1 nud permanent
            echo neigh del 172.16.0.9 dev flannel.1; done | ip -batch -; ip link del flannel.1");
        let mut found = Invalidation::default();
        for _ in 0..100 {
            let more = notice(&mut overlay, &mut monitor);
            found = Invalidation {
                overlay: found.overlay | more.overlay,
                host: found.host | more.host,
                peers: false,
            };
        }
        assert_eq!(found, Invalidation { overlay: true, host: true, peers: false });
        assert!(flush(&mut overlay, &mut kernel) > 0);
    });
}

#[cfg(feature = "tokio")]
#[test]
fn a_stream_wakes_when_something_changes() {
    netns(|| {
        let (kernel, _) = host();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut stream = Monitor::open(&kernel).unwrap().into_stream().unwrap();
            // The kernel also reports the set-up of the host: its IPv6 address may have become valid only now.
            let quiet = Duration::from_millis(50);
            let mut told = 0;
            while tokio::time::timeout(quiet, stream.next()).await.is_ok() {
                told += 1;
                assert!(told < 20, "the notifications do not end");
            }
            sh("ip addr add 10.98.0.1/24 dev e0");
            let woken = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
            assert!(!woken.unwrap().unwrap().is_empty());
        });
    });
}
