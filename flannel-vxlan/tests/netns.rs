//! The overlay on the real kernel, each test in a network namespace of its own.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but does not see helpers of integration tests as such"
)]

use std::net::{IpAddr, Ipv4Addr};

use flannel_vxlan::{
    Attention, DeviceSpec, Errno, Family, FamilySpec, Kernel, Link, MacAddr, Monitor, Netlink, Notification,
    Overlay, Peer, PeerConflict, Report, UnderlayMtu, Via, Vni,
};
use ipnet::IpNet;
use testkit::{netns, sh, try_sh};

/// A host with an interface `e0` that carries an IPv4 and an IPv6 address.
fn host() -> (Netlink, Link) {
    // Without duplicate address detection nothing is told of an address seconds after it was made.
    sh("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
        ip link add e0 type veth peer name e1
        ip link set e0 up; ip link set e1 up
        ip addr add 192.168.77.1/24 dev e0; ip addr add fd77::1/64 dev e0 nodad");
    let mut kernel = Netlink::open().unwrap();
    let e0 = kernel.interfaces().unwrap().into_iter().find(|interface| interface.name == "e0").unwrap();
    (kernel, Link { index: e0.index, name: "e0".parse().unwrap() })
}

fn device(family: Family, underlay: Link) -> DeviceSpec {
    let (local, address, mac) = match family {
        Family::V4 => ("192.168.77.1", "10.244.1.0", "02:00:00:00:04:01"),
        Family::V6 => ("fd77::1", "fd00:10:244:1::", "02:00:00:00:06:01"),
    };
    let mtu = UnderlayMtu::new(1500).inside_vxlan(family).unwrap();
    DeviceSpec::new(
        Vni::new(1).unwrap(),
        underlay,
        local.parse().unwrap(),
        address.parse().unwrap(),
        mac.parse().unwrap(),
        mtu,
    )
}

fn family(family: Family, underlay: Link) -> FamilySpec {
    let (subnet, network) = match family {
        Family::V4 => ("10.244.1.0/24", "10.244.0.0/16"),
        Family::V6 => ("fd00:10:244:1::/64", "fd00:10:244::/48"),
    };
    FamilySpec::new(underlay, subnet.parse().unwrap(), vec![network.parse().unwrap()])
}

fn both(underlay: Link) -> Overlay {
    Overlay::new(Family::ALL.map(|f| family(f, underlay).device(device(f, underlay))))
}

fn tunnel(subnet: &str, mac: &str, underlay: &str) -> Peer {
    let via = Via::Tunnel { mac: mac.parse().unwrap(), underlay: underlay.parse().unwrap() };
    Peer { subnet: subnet.parse().unwrap(), via }
}

fn direct(subnet: &str, gateway: &str) -> Peer {
    Peer { subnet: subnet.parse().unwrap(), via: Via::Direct { gateway: gateway.parse().unwrap() } }
}

/// Peers 2 to `last`, each of both families.
fn add_peers(overlay: &mut Overlay, last: u8) {
    for n in 2..=last {
        // A test with one family has one half of them refused.
        let _v4_only =
            overlay.set_peer(tunnel(&format!("fd00:10:244:{n}::/64"), &mac(n), &format!("fd77::{n}")));
        overlay.set_peer(tunnel(&format!("10.244.{n}.0/24"), &mac(n), &format!("192.168.77.{n}"))).unwrap();
    }
}

fn mac(n: u8) -> String {
    MacAddr::new([2, 0, 0, 0, 0, n]).unwrap().to_string()
}

#[track_caller]
fn converge(overlay: &mut Overlay, kernel: &mut Netlink) -> usize {
    clean(overlay.converge(kernel).unwrap())
}

#[track_caller]
fn flush(overlay: &mut Overlay, kernel: &mut Netlink) -> usize {
    clean(overlay.flush(kernel).unwrap())
}

#[track_caller]
fn clean(report: Report) -> usize {
    assert!(report.is_clean(), "{report:#?}");
    report.steps
}

/// Everything the overlay consists of, as `ip` and `bridge` show it; without what changes by itself.
fn state() -> String {
    let device = |name: &str| {
        try_sh(&format!("ip -d link show {name} | sed 's/^[0-9]*: //'; ip -br addr show {name} scope global"))
            .unwrap_or_default()
            + &try_sh(&format!(
                "bridge fdb show dev {name} | sort; ip neigh show dev {name} nud permanent | sort"
            ))
            .unwrap_or_default()
            + &try_sh(&format!("ip -6 neigh show dev {name} nud permanent | sort")).unwrap_or_default()
    };
    device("flannel.1")
        + &device("flannel-v6.1")
        + &sh(
            "ip nexthop | sort; ip route | sort; ip -6 route | grep -v ^fe80 | sort; sysctl -ar 'flannel.*accept_ra$'",
        )
}

#[test]
fn an_overlay_is_made_whole_and_looking_again_writes_nothing() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        assert!(converge(&mut overlay, &mut kernel) > 0);
        let made = state();
        for line in [
            "vxlan id 1 local 192.168.77.1 dev e0 srcport 0 0 dstport 8472 nolearning",
            "mtu 1450",
            "mtu 1430",
            "10.244.1.0/32",
            "fd00:10:244:1::/128",
            "02:00:00:00:00:02 dst 192.168.77.2 self extern_learn permanent",
            "02:00:00:00:00:03 dst fd77::3 self extern_learn permanent",
            "10.244.2.0 lladdr 02:00:00:00:00:02 PERMANENT proto 70",
            "via 10.244.2.0 dev flannel.1 proto 70 onlink",
            "fd00:10:244:3::/64 via fd00:10:244:3:: dev flannel-v6.1 proto 70 metric 1024 onlink",
            "net.ipv6.conf.flannel/1.accept_ra = 0",
        ] {
            assert!(made.contains(line), "{line} is missing in:\n{made}");
        }
        assert_eq!(converge(&mut overlay, &mut kernel), 0);

        // A new process, which knows only what should be.
        let mut restarted = both(e0);
        add_peers(&mut restarted, 3);
        assert_eq!(converge(&mut restarted, &mut Netlink::open().unwrap()), 0);
        assert_eq!(state(), made);
    });
}

/// Without the numbers of nexthops, which may change, and the mark of forwarding entries, which the kernel does not
/// give back to an entry that others replaced.
fn steady(state: &str) -> String {
    let lines = state.lines().filter(|line| !line.contains("nhid") && !line.starts_with("id "));
    lines.map(|line| line.replace("extern_learn ", "")).collect::<Vec<_>>().join("\n")
}

#[test]
fn whatever_others_do_to_the_overlay_is_repaired() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 9);
        converge(&mut overlay, &mut kernel);
        let made = state();
        for disturbance in [
            "ip link del flannel.1",
            "ip link del flannel-v6.1",
            "ip link set flannel.1 down",
            "ip link set flannel-v6.1 down",
            "ip link set flannel.1 down; ip link set flannel.1 up",
            "ip link set flannel-v6.1 down; ip link set flannel-v6.1 up",
            "ip addr flush dev flannel.1",
            "ip addr flush dev flannel-v6.1 scope global",
            // `ip route flush` of iproute2 6.1 sends back what it read, which the kernel refuses for nexthop objects.
            "for r in $(ip route show proto 70 | cut -d' ' -f1); do ip route del $r; done",
            "ip -6 route flush proto 70",
            "ip neigh flush dev flannel.1 nud permanent",
            "ip -6 neigh flush dev flannel-v6.1 nud permanent",
            "bridge fdb del 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.3 self",
            "bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.99 self permanent",
            "ip nexthop flush",
            "ip link set flannel.1 address 02:00:00:00:99:99",
            // Neighbours made since go once more when the address is put back.
            "ip link set flannel.1 address 02:00:00:00:99:99
             ip neigh add 10.244.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent protocol 70",
            "ip link set flannel.1 mtu 1300",
            "ip link set flannel-v6.1 mtu 1300",
            "ip link set flannel.1 type vxlan id 1 local 192.168.77.9 dev e0",
            "ip link set flannel.1 type vxlan id 1 dev e1 learning",
            "ip neigh replace 10.244.4.0 lladdr 02:00:00:00:99:99 dev flannel.1 nud permanent",
            "ip route replace 10.244.4.0/24 via 192.168.77.4 dev e0",
            "ip route del 10.244.4.0/24; ip -6 route del fd00:10:244:4::/64",
            "ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dstport 4789 dev e0",
            "echo 2 > /proc/sys/net/ipv6/conf/flannel.1/accept_ra",
            "ip addr add 10.244.200.0/32 dev flannel.1",
        ] {
            sh(disturbance);
            assert_ne!(state().trim(), made.trim(), "`{disturbance}` disturbs nothing");
            assert!(converge(&mut overlay, &mut kernel) > 0);
            // Only the host itself can bring its own route back.
            sh("ip route replace 192.168.77.0/24 dev e0 proto kernel scope link src 192.168.77.1");
            assert_eq!(steady(&state()), steady(&made), "after `{disturbance}`");
            assert_eq!(
                sh("ip nexthop | wc -l; ip route show proto 70 | wc -l"),
                "8\n8\n",
                "after `{disturbance}`"
            );
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "after `{disturbance}`");
        }
    });
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 4);
        converge(&mut overlay, &mut kernel);
        sh("bridge fdb add 02:00:00:00:77:01 dev flannel.1 dst 192.168.77.200 self permanent
            bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.168.77.201 self permanent
            ip neigh add 172.16.0.9 lladdr 02:00:00:00:77:02 dev flannel.1 nud permanent
            ip addr add 172.16.0.1/24 dev flannel.1
            ip nexthop add id 7 via 192.168.77.7 dev e0
            ip route add 10.99.0.0/16 nhid 7 proto 70
            ip route add 10.244.77.0/24 via 192.168.77.7 dev e0 proto static
            ip route add 10.98.0.0/16 via 172.16.0.9 dev flannel.1
            ip -6 route add fd99::/64 via fd77::7 dev e0
            ip link add flannel.2 type vxlan id 2 dstport 8472 dev e0");
        let foreign = state();
        overlay.remove_peer("10.244.4.0/24".parse().unwrap());
        assert_eq!(flush(&mut overlay, &mut kernel), 4);
        overlay.set_peer(tunnel("10.244.4.0/24", &mac(4), "192.168.77.4")).unwrap();
        assert_eq!(flush(&mut overlay, &mut kernel), 4);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        assert_eq!(state(), foreign);
        sh("ip link show flannel.2");
    });
}

#[test]
fn a_peer_that_left_while_nobody_watched_is_swept() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        converge(&mut overlay, &mut kernel);
        let three = state();
        add_peers(&mut overlay, 6);
        overlay.set_peer(direct("10.244.7.0/24", "192.168.77.7")).unwrap();
        assert_eq!(flush(&mut overlay, &mut kernel), 4 * 3 + 3 * 3 + 1);

        let mut restarted = both(e0);
        add_peers(&mut restarted, 3);
        assert_eq!(converge(&mut restarted, &mut kernel), 4 * 3 + 3 * 3 + 1);
        assert_eq!(state(), three);
    });
}

#[test]
fn what_upstream_left_is_taken_over_and_its_lost_peers_swept() {
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip link add flannel.1 address 02:00:00:00:04:01 type vxlan id 1 dev e0 local 192.168.77.1 dstport 8472 nolearning
            ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up");
        let index = sh("ip -o link show flannel.1 | cut -d: -f1");
        for n in 2..=5 {
            sh(&format!(
                "ip neigh replace 10.244.{n}.0 lladdr {mac} dev flannel.1 nud permanent
                 bridge fdb replace {mac} dev flannel.1 dst 192.168.77.{n} self permanent
                 ip route replace 10.244.{n}.0/24 via 10.244.{n}.0 dev flannel.1 onlink",
                mac = mac(n)
            ));
        }
        sh("ip route add blackhole 10.244.1.0/24");
        let mut overlay =
            Overlay::new([family(Family::V4, e0).device(device(Family::V4, e0)).blackhole(true)]);
        overlay.set_peer(tunnel("10.244.2.0/24", &mac(2), "192.168.77.2")).unwrap();
        overlay.set_peer(tunnel("10.244.3.0/24", &mac(3), "192.168.77.33")).unwrap();
        overlay.set_peer(direct("10.244.4.0/24", "192.168.77.4")).unwrap();
        converge(&mut overlay, &mut kernel);
        assert_eq!(sh("ip -o link show flannel.1 | cut -d: -f1"), index, "the device was adopted");
        assert_eq!(
            sh("ip route show table main | sed 's/nhid [0-9]* //' | grep -v e0.*kernel"),
            "blackhole 10.244.1.0/24 proto 70 metric 4294967295 \n\
             10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 70 onlink \n\
             10.244.3.0/24 via 10.244.3.0 dev flannel.1 proto 70 onlink \n\
             10.244.4.0/24 via 192.168.77.4 dev e0 proto 70 \n"
        );
        assert_eq!(
            sh(
                "bridge fdb show dev flannel.1 | grep permanent | sort; ip neigh show dev flannel.1 nud permanent | sort"
            ),
            "02:00:00:00:00:02 dst 192.168.77.2 self permanent\n\
             02:00:00:00:00:03 dst 192.168.77.33 self permanent\n\
             10.244.2.0 lladdr 02:00:00:00:00:02 PERMANENT proto 70 \n\
             10.244.3.0 lladdr 02:00:00:00:00:03 PERMANENT proto 70 \n"
        );
        assert_eq!(converge(&mut overlay, &mut kernel), 0);

        // What was taken over is swept like our own when its peer is lost.
        let mut restarted =
            Overlay::new([family(Family::V4, e0).device(device(Family::V4, e0)).blackhole(true)]);
        converge(&mut restarted, &mut kernel);
        assert_eq!(
            sh("bridge fdb show dev flannel.1 | sed -n /dst/p; ip neigh show dev flannel.1; ip nexthop"),
            ""
        );
    });
}

#[test]
fn a_device_of_others_is_refused_by_name_and_the_other_family_goes_on() {
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip link add flannel.1 type veth peer name f1");
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        let report = overlay.converge(&mut kernel).unwrap();
        assert!(
            report.taken[0].to_string().starts_with("flannel.1 exists and is a device of kind veth"),
            "{report:?}"
        );
        sh("ip -d link show flannel.1 | grep veth");
        assert_eq!(sh("ip -6 route show dev flannel-v6.1 proto 70 | wc -l"), "2\n");

        sh("ip link del flannel.1");
        converge(&mut overlay, &mut kernel);
        assert_eq!(sh("ip route show proto 70 | wc -l"), "2\n");
    });
}

#[test]
fn a_refused_peer_is_named_and_delays_no_other() {
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip route add 10.244.3.0/24 via 192.168.77.254 dev e0 proto static");
        let mut overlay = both(e0);
        add_peers(&mut overlay, 5);
        let report = overlay.converge(&mut kernel).unwrap();
        assert_eq!(report.refused.len(), 1, "{report:#?}");
        assert_eq!(report.refused[0].peer, Some("10.244.3.0/24".parse().unwrap()));
        assert_eq!(report.refused[0].errno, Errno::EEXIST);
        let text = report.refused[0].to_string();
        assert!(text.contains("a route to it already via 192.168.77.254, of protocol 4"), "{text}");
        assert_eq!(sh("ip route show proto 70 | wc -l"), "3\n");
        sh("ip route show proto static | grep 10.244.3.0/24");

        // Still refused, then not any more: nothing but this peer is touched.
        assert_eq!(overlay.flush(&mut kernel).unwrap().refused.len(), 1);
        sh("ip route del 10.244.3.0/24");
        assert!(flush(&mut overlay, &mut kernel) <= 4);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        assert!(!overlay.is_pending());
    });
}

#[test]
fn a_peer_that_changes_leaves_nothing_of_its_old_self() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        converge(&mut overlay, &mut kernel);
        let nobody = state();
        let selves = [
            tunnel("10.244.2.0/24", &mac(2), "192.168.77.2"),
            tunnel("10.244.2.0/24", &mac(22), "192.168.77.2"),
            tunnel("10.244.2.0/24", &mac(22), "192.168.77.22"),
            direct("10.244.2.0/24", "192.168.77.22"),
            tunnel("10.244.2.0/24", &mac(3), "192.168.77.3"),
            direct("10.244.2.0/24", "192.168.77.2"),
        ];
        for peer in selves {
            overlay.set_peer(peer).unwrap();
            flush(&mut overlay, &mut kernel);
            let changed = state();
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "{peer:?}");
            let mut fresh = both(e0);
            fresh.set_peer(peer).unwrap();
            assert_eq!(converge(&mut fresh, &mut kernel), 0, "{peer:?} in\n{changed}");
        }
        overlay.remove_peer("10.244.2.0/24".parse().unwrap());
        flush(&mut overlay, &mut kernel);
        assert_eq!(state(), nobody);
    });
}

#[test]
fn an_ipv6_peer_that_was_direct_is_tunnelled_to_and_back() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        let subnet = "fd00:10:244:2::/64";
        let (direct, tunnel) = (direct(subnet, "fd77::2"), tunnel(subnet, &mac(2), "fd77::2"));
        overlay.set_peer(tunnel).unwrap();
        converge(&mut overlay, &mut kernel);
        let tunnelled = state();
        overlay.set_peer(direct).unwrap();
        flush(&mut overlay, &mut kernel);
        assert!(!state().contains(&mac(2)), "{}", state());
        overlay.set_peer(tunnel).unwrap();
        flush(&mut overlay, &mut kernel);
        assert_eq!(state(), tunnelled);

        // And by one that finds the kernel like this, as after a restart with another configuration.
        overlay.set_peer(direct).unwrap();
        flush(&mut overlay, &mut kernel);
        let mut fresh = both(e0);
        fresh.set_peer(tunnel).unwrap();
        converge(&mut fresh, &mut kernel);
        assert_eq!(state(), tunnelled);
    });
}

#[test]
fn two_leases_of_one_node_share_its_forwarding_entry() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        overlay.set_peer(tunnel("10.244.2.0/24", &mac(2), "192.168.77.2")).unwrap();
        overlay.set_peer(tunnel("10.244.3.0/24", &mac(2), "192.168.77.2")).unwrap();
        flush(&mut overlay, &mut kernel);
        overlay.remove_peer("10.244.2.0/24".parse().unwrap());
        flush(&mut overlay, &mut kernel);
        assert_eq!(
            sh("bridge fdb show dev flannel.1 | grep dst"),
            "02:00:00:00:00:02 dst 192.168.77.2 self extern_learn permanent\n"
        );
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn a_peer_that_comes_when_the_device_has_just_been_replaced_is_there_with_all_others() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        converge(&mut overlay, &mut kernel);
        for script in [
            "ip link del flannel.1",
            "ip link del flannel.1; ip link add flannel.1 type vxlan id 1 dev e0 dstport 8472",
        ] {
            for peer in [
                tunnel("10.244.4.0/24", &mac(4), "192.168.77.4"),
                tunnel("10.244.4.0/24", &mac(5), "192.168.77.5"),
            ] {
                sh(script);
                overlay.set_peer(peer).unwrap();
                flush(&mut overlay, &mut kernel);
                assert_eq!(sh("ip route show proto 70 dev flannel.1 | wc -l"), "3\n", "{script}");
                assert_eq!(converge(&mut overlay, &mut kernel), 0);
            }
            sh(script);
            assert!(overlay.remove_peer("10.244.4.0/24".parse().unwrap()));
            flush(&mut overlay, &mut kernel);
            assert_eq!(sh("ip route show proto 70 dev flannel.1 | wc -l"), "2\n", "{script}");
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
        }
    });
}

#[test]
fn a_mac_claimed_twice_goes_to_the_lowest_subnet_until_it_leaves() {
    for (low, high, at) in [
        ("10.244.2.0/24", "10.244.3.0/24", ["192.168.77.2", "192.168.77.3"]),
        ("fd00:10:244:2::/64", "fd00:10:244:3::/64", ["fd77::2", "fd77::3"]),
    ] {
        netns(|| {
            let (mut kernel, e0) = host();
            let mut overlay = both(e0);
            let (winner, loser) = (tunnel(low, &mac(2), at[0]), tunnel(high, &mac(2), at[1]));
            overlay.set_peer(loser).unwrap();
            flush(&mut overlay, &mut kernel);
            overlay.set_peer(winner).unwrap();
            flush(&mut overlay, &mut kernel);
            let device = if low.contains(':') { "flannel-v6.1" } else { "flannel.1" };
            let routes = || {
                sh("(ip -br route show proto 70; ip -6 -br route show proto 70) | sed 's/ .*//'")
                    .trim()
                    .to_owned()
            };
            let forwards_to =
                |at: &str| sh(&format!("bridge fdb show dev {device}")).contains(&format!("dst {at} self"));
            assert_eq!(overlay.conflict_of(loser.subnet), Some(PeerConflict::MacTaken(winner.subnet)));
            assert_eq!(routes(), low);
            assert!(forwards_to(at[0]) && !forwards_to(at[1]));
            assert_eq!(converge(&mut overlay, &mut kernel), 0);

            overlay.remove_peer(winner.subnet);
            flush(&mut overlay, &mut kernel);
            assert_eq!(routes(), high);
            assert!(forwards_to(at[1]) && !forwards_to(at[0]));
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
        });
    }
}

#[test]
fn a_subnet_that_would_harm_this_host_is_refused() {
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip link add cni0 type bridge; ip addr add 10.244.9.1/24 dev cni0; ip link set cni0 up");
        let mut overlay = both(e0);
        converge(&mut overlay, &mut kernel);
        let before = state();
        let m = mac(2);
        for (subnet, underlay, why) in [
            ("10.244.1.0/24", "192.168.77.2", "its subnet overlaps 10.244.1.0/24, the one of this node"),
            ("10.244.0.0/16", "192.168.77.2", "its subnet overlaps 10.244.1.0/24, the one of this node"),
            (
                "10.244.9.0/24",
                "192.168.77.2",
                "its subnet covers 10.244.9.0/24, a network this host is attached to",
            ),
            (
                "192.168.77.0/24",
                "192.168.78.2",
                "its subnet covers 192.168.77.0/24, a network this host is attached to",
            ),
            ("192.168.77.0/28", "192.168.78.2", "its subnet holds 192.168.77.1, an address of this host"),
            ("192.168.77.16/28", "192.168.77.17", "its subnet holds its own underlay address 192.168.77.17"),
            ("10.244.2.0/24", "192.168.77.1", "its underlay address 192.168.77.1 belongs to this node"),
            ("10.244.2.0/24", "fd77::2", "its underlay address fd77::2 is not of the subnet's family"),
            ("8.8.8.0/24", "192.168.77.2", "its subnet is outside the pod network"),
            (
                "128.0.0.0/1",
                "10.0.0.2",
                "its subnet covers 192.168.77.0/24, a network this host is attached to",
            ),
            ("0.0.0.0/2", "192.168.77.2", "its subnet overlaps 10.244.1.0/24, the one of this node"),
            ("64.0.0.0/3", "192.168.77.2", "its subnet is outside the pod network"),
            ("2000::/3", "fd77::2", "its subnet is outside the pod network"),
            ("10.244.2.0/24", "127.0.0.2", "its underlay address 127.0.0.2 is not the address of one host"),
            ("10.244.2.0/24", "239.1.2.3", "its underlay address 239.1.2.3 is not the address of one host"),
            ("10.244.2.0/24", "0.0.0.9", "its underlay address 0.0.0.9 is not the address of one host"),
            (
                "10.244.2.0/24",
                "255.255.255.255",
                "its underlay address 255.255.255.255 is not the address of one host",
            ),
            (
                "10.244.2.0/24",
                "192.168.77.255",
                "its underlay address 192.168.77.255 is not the address of one host",
            ),
            ("fd00:10:244:2::/64", "ff02::1", "its underlay address ff02::1 is not the address of one host"),
            (
                "fd00:10:244:2::/64",
                "::ffff:192.168.77.2",
                "its underlay address ::ffff:192.168.77.2 is not the address of one host",
            ),
        ] {
            let refused = overlay.set_peer(tunnel(subnet, &m, underlay)).unwrap_err();
            assert_eq!(refused.to_string(), why, "{subnet} {underlay}");
            flush(&mut overlay, &mut kernel);
            assert_eq!(state(), before, "{subnet}");
            overlay.remove_peer(subnet.parse().unwrap());
        }
        let own = tunnel("10.244.2.0/24", "02:00:00:00:04:01", "192.168.77.2");
        assert_eq!(overlay.set_peer(own), Err(PeerConflict::OwnMac));
        flush(&mut overlay, &mut kernel);
        assert_eq!(state(), before);
        overlay.remove_peer(own.subnet);
        // A cluster inside the host's large network is fine.
        sh("ip addr add 10.1.2.3/8 dev e0");
        overlay.distrust();
        overlay.set_peer(tunnel("10.244.2.0/24", &m, "10.1.2.4")).unwrap();
        flush(&mut overlay, &mut kernel);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn the_underlay_changes_in_place_and_port_by_making_anew() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 4);
        converge(&mut overlay, &mut kernel);
        let index = || sh("ip -o link show flannel.1 | cut -d: -f1");
        let before = index();
        sh("ip addr add 192.168.77.51/24 dev e0; ip link set e0 mtu 1400");
        let mut moved = device(Family::V4, e0);
        moved.local = "192.168.77.51".parse().unwrap();
        moved.mtu = UnderlayMtu::new(1400).inside_vxlan(Family::V4).unwrap();
        overlay.set_family(family(Family::V4, e0).device(moved.clone()));
        assert_eq!(flush(&mut overlay, &mut kernel), 2);
        assert_eq!(index(), before);
        assert!(sh("ip -d link show flannel.1").contains("local 192.168.77.51"));
        assert!(sh("ip -d link show flannel.1").contains("mtu 1350"));

        overlay.set_family(family(Family::V4, e0).device(moved.port(4789).gbp(true)));
        flush(&mut overlay, &mut kernel);
        assert_ne!(index(), before);
        assert!(sh("ip -d link show flannel.1").contains("dstport 4789"));
        assert_eq!(sh("ip route show proto 70 dev flannel.1 | wc -l"), "3\n");
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn a_device_that_the_kernel_will_not_change_in_place_is_made_anew_with_all_that_was_on_it() {
    netns(|| {
        let (mut kernel, e0) = host();
        // Alone: beside an IPv4 device of the same VNI the kernel takes no second one that is of IPv4 for it.
        let mut overlay = Overlay::new([family(Family::V6, e0).device(device(Family::V6, e0))]);
        for n in 2..=4 {
            let (subnet, at) = (format!("fd00:10:244:{n}::/64"), format!("fd77::{n}"));
            overlay.set_peer(tunnel(&subnet, &mac(n), &at)).unwrap();
        }
        converge(&mut overlay, &mut kernel);
        let made = state();
        let index = || sh("ip -o link show flannel-v6.1 | cut -d: -f1");
        // Made without an address it is a device of IPv4 for the kernel, which never lets that be changed.
        sh("ip link del flannel-v6.1; ip link add flannel-v6.1 type vxlan id 1 dstport 8472 dev e0");
        let before = index();
        converge(&mut overlay, &mut kernel);
        assert_ne!(index(), before);
        assert_eq!(steady(&state()), steady(&made));
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        // And so the next time.
        sh("ip link del flannel-v6.1; ip link add flannel-v6.1 type vxlan id 1 dstport 8472 dev e0");
        converge(&mut overlay, &mut kernel);
        assert_eq!(steady(&state()), steady(&made));
    });
}

#[test]
fn two_peers_of_one_public_address_or_one_subnet_do_not_disturb_each_other_in_either_family() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        // One public address, two MAC addresses and subnets: as two nodes behind one address. Both are programmed.
        for (two, three, at) in [
            ("10.244.2.0/24", "10.244.3.0/24", "192.168.77.2"),
            ("fd00:10:244:2::/64", "fd00:10:244:3::/64", "fd77::2"),
        ] {
            overlay.set_peer(tunnel(two, &mac(2), at)).unwrap();
            overlay.set_peer(tunnel(three, &mac(3), at)).unwrap();
        }
        flush(&mut overlay, &mut kernel);
        assert_eq!(
            sh("for d in flannel.1 flannel-v6.1; do bridge fdb show dev $d | grep -c self; done"),
            "2\n2\n"
        );
        assert_eq!(sh("ip route show proto 70 | wc -l; ip -6 route show proto 70 | wc -l"), "2\n2\n");
        assert_eq!(converge(&mut overlay, &mut kernel), 0);

        // One network address, two prefix lengths: the shorter one, in whatever order they come.
        for (short, long) in
            [("10.244.8.0/22", "10.244.8.0/24"), ("fd00:10:244:8::/62", "fd00:10:244:8::/64")]
        {
            let at = if short.contains(':') { "fd77::9" } else { "192.168.77.9" };
            let (short, long) = (tunnel(short, &mac(8), at), tunnel(long, &mac(9), at));
            overlay.set_peer(long).unwrap();
            flush(&mut overlay, &mut kernel);
            overlay.set_peer(short).unwrap();
            flush(&mut overlay, &mut kernel);
            assert_eq!(overlay.conflict_of(long.subnet), Some(PeerConflict::SubnetTaken(short.subnet)));
            assert_eq!(overlay.conflict_of(short.subnet), None);
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "the same from a full reading");
            let routes = sh("ip route show proto 70; ip -6 route show proto 70");
            assert!(routes.contains(&short.subnet.to_string()), "{routes}");
            assert!(!routes.contains(&long.subnet.to_string()), "{routes}");

            overlay.remove_peer(short.subnet);
            flush(&mut overlay, &mut kernel);
            let routes = sh("ip route show proto 70; ip -6 route show proto 70");
            assert!(routes.contains(&long.subnet.to_string()), "it comes in by itself\n{routes}");
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
        }
    });
}

#[test]
fn an_overlay_mtu_above_the_underlays_is_refused_by_name() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 2);
        converge(&mut overlay, &mut kernel);
        let mut large = device(Family::V4, e0);
        large.mtu = UnderlayMtu::new(9000).inside_vxlan(Family::V4).unwrap();
        overlay.set_family(family(Family::V4, e0).device(large));
        let report = overlay.flush(&mut kernel).unwrap();
        let text = report.refused[0].to_string();
        assert!(text.contains("`ip link set flannel.1 mtu 8950` refused"), "{text}");
        assert!(text.contains("cannot carry 8950 bytes and the overhead"), "{text}");
    });
}

#[test]
fn a_taken_vni_is_said_to_be_taken_and_by_whom() {
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip link add other type vxlan id 1 dstport 8472 dev e0 local 192.168.77.1");
        let mut overlay = Overlay::new([family(Family::V4, e0).device(device(Family::V4, e0))]);
        add_peers(&mut overlay, 3);
        let report = overlay.converge(&mut kernel).unwrap();
        assert_eq!(report.refused.len(), 1, "{report:#?}");
        let text = report.refused[0].to_string();
        assert!(text.contains("VNI 1 on UDP port 8472 is taken by the device other"), "{text}");
        assert_eq!(report.without_device, [Family::V4]);

        sh("ip link del other");
        flush(&mut overlay, &mut kernel);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn a_taken_udp_port_is_said_to_be_taken() {
    netns(|| {
        let (mut kernel, e0) = host();
        let _taken = std::net::UdpSocket::bind("0.0.0.0:8472").unwrap();
        let mut overlay = Overlay::new([family(Family::V4, e0).device(device(Family::V4, e0))]);
        let report = overlay.converge(&mut kernel).unwrap();
        let text = report.refused[0].to_string();
        assert!(text.contains("UDP port 8472 is in use by another program"), "{text}");
    });
}

#[test]
fn checksum_offload_is_kept_over_a_re_creation() {
    netns(|| {
        let (mut kernel, e0) = host();
        let spec =
            |on| Overlay::new([family(Family::V4, e0).device(device(Family::V4, e0).tx_checksum(Some(on)))]);
        let offload = || sh("ethtool -k flannel.1 | grep tx-checksum-ip-generic").trim().to_owned();
        let mut overlay = spec(false);
        converge(&mut overlay, &mut kernel);
        assert_eq!(offload(), "tx-checksum-ip-generic: off");
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        sh("ip link del flannel.1");
        converge(&mut overlay, &mut kernel);
        assert_eq!(offload(), "tx-checksum-ip-generic: off");
        assert_eq!(converge(&mut spec(true), &mut kernel), 1);
        assert_eq!(offload(), "tx-checksum-ip-generic: on");
    });
}

#[test]
fn the_blackhole_never_hides_the_pods_bridge() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay =
            Overlay::new(Family::ALL.map(|f| family(f, e0).device(device(f, e0)).blackhole(true)));
        converge(&mut overlay, &mut kernel);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        assert!(try_sh("ip route get 10.244.1.5").is_err());
        assert!(try_sh("ip -6 route get fd00:10:244:1::5").is_err());
        sh("ip link add cni0 type bridge; ip link set cni0 up
            ip addr add 10.244.1.1/24 dev cni0; ip addr add fd00:10:244:1::1/64 dev cni0 nodad");
        assert!(sh("ip route get 10.244.1.5").contains("dev cni0"));
        assert!(sh("ip -6 route get fd00:10:244:1::5").contains("dev cni0"));
        assert_eq!(converge(&mut overlay, &mut kernel), 0);

        let mut without = Overlay::new(Family::ALL.map(|f| family(f, e0).device(device(f, e0))));
        assert_eq!(converge(&mut without, &mut kernel), 2);
        assert_eq!(sh("ip route show type blackhole; ip -6 route show type blackhole"), "");
    });
}

#[test]
fn host_gw_needs_no_device() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = Overlay::new(Family::ALL.map(|f| family(f, e0)));
        overlay.set_peer(direct("10.244.2.0/24", "192.168.77.2")).unwrap();
        overlay.set_peer(direct("fd00:10:244:2::/64", "fd77::2")).unwrap();
        let refused = overlay.set_peer(tunnel("10.244.3.0/24", &mac(3), "192.168.77.3"));
        assert_eq!(refused, Err(PeerConflict::NoSuchOverlay(Family::V4)));
        assert_eq!(flush(&mut overlay, &mut kernel), 2);
        assert!(sh("ip route").contains("10.244.2.0/24 via 192.168.77.2 dev e0 proto 70"));
        assert!(sh("ip -6 route").contains("fd00:10:244:2::/64 via fd77::2 dev e0 proto 70"));
        sh("ip link set e0 down; ip link set e0 up; ip addr add fd77::1/64 dev e0 nodad || true");
        assert!(converge(&mut overlay, &mut kernel) > 0);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        overlay.retain_peers(|peer| peer.subnet.addr().is_ipv6());
        assert_eq!(flush(&mut overlay, &mut kernel), 1);
        assert_eq!(sh("ip route show proto 70"), "");
    });
}

#[test]
fn nexthop_numbers_survive_a_restart_and_never_clash() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 5);
        converge(&mut overlay, &mut kernel);
        let numbers = sh("ip nexthop | sort");
        let highest: u32 = sh("ip nexthop | awk '{print $2}' | sort -n | tail -1").trim().parse().unwrap();

        // Others take the next numbers: one seen when looking, one not.
        let (seen, unseen) = (highest + 1, highest + 2);
        sh(&format!("ip nexthop add id {seen} via 192.168.77.7 dev e0"));
        let mut restarted = both(e0);
        add_peers(&mut restarted, 5);
        assert_eq!(converge(&mut restarted, &mut kernel), 0);
        sh(&format!("ip nexthop add id {unseen} via 192.168.77.8 dev e0"));
        restarted.set_peer(tunnel("10.244.6.0/24", &mac(6), "192.168.77.6")).unwrap();
        let report = restarted.flush(&mut kernel).unwrap();
        assert!(
            report.refused.iter().all(|step| step.peer == Some("10.244.6.0/24".parse().unwrap())),
            "{report:?}"
        );
        flush(&mut restarted, &mut kernel);
        assert_eq!(converge(&mut restarted, &mut kernel), 0);
        let now = sh("ip nexthop | sort");
        for line in numbers.lines() {
            assert!(now.contains(line), "{line} changed:\n{now}");
        }
        assert!(now.contains(&format!("id {unseen} via 192.168.77.8")), "{now}");
        assert_eq!(sh("ip route show proto 70 | wc -l"), "5\n");
    });
}

#[test]
fn what_the_host_has_is_read_as_ip_shows_it() {
    netns(|| {
        let (mut kernel, e0) = host();
        assert_eq!(kernel.default_route(Family::V4).unwrap(), None);
        sh("ip route add default via 192.168.77.254 metric 200
            ip route add default via 192.168.77.253 metric 100
            ip -6 route add default via fd77::fe
            ip addr add 192.168.77.8/24 dev e0 valid_lft 100 preferred_lft 0
            ip route add blackhole 203.0.113.0/24");
        let default = kernel.default_route(Family::V4).unwrap().unwrap();
        assert_eq!((default.interface, default.metric), (e0.index, 100));
        assert_eq!(kernel.default_route(Family::V6).unwrap().unwrap().interface, e0.index);

        let to = |kernel: &mut Netlink, address: &str| kernel.route_to(address.parse().unwrap()).unwrap();
        let far = to(&mut kernel, "1.1.1.1").unwrap();
        assert_eq!(far.gateway, Some("192.168.77.253".parse::<IpAddr>().unwrap()));
        assert_eq!(far.source, Some("192.168.77.1".parse().unwrap()));
        assert_eq!(to(&mut kernel, "192.168.77.2").unwrap().gateway, None);
        assert_eq!(to(&mut kernel, "fd77::2").unwrap().interface, e0.index);
        assert_eq!(to(&mut kernel, "203.0.113.1"), None);

        let interfaces = kernel.interfaces().unwrap();
        let found = interfaces.iter().find(|interface| interface.index == e0.index).unwrap();
        assert!(found.up && found.mtu == 1500);
        let address = |text: &str| {
            found.addresses.iter().find(|a| a.address == text.parse::<IpAddr>().unwrap()).unwrap()
        };
        assert!(address("192.168.77.1").permanent && !address("192.168.77.1").deprecated);
        assert!(!address("192.168.77.8").permanent && address("192.168.77.8").deprecated);
        assert_eq!(address("fd77::1").prefix_len, 64);
    });
}

/// What the notifications so far ask for.
#[track_caller]
fn attention(overlay: &mut Overlay, monitor: &mut Monitor) -> Attention {
    overlay.attention(&monitor.take().unwrap())
}

#[test]
fn our_own_changes_ask_for_no_attention() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = Overlay::new(
            Family::ALL.map(|f| family(f, e0).device(device(f, e0).tx_checksum(Some(false))).blackhole(true)),
        );
        let calm = |overlay: &mut Overlay, monitor: &mut Monitor, what: &str| {
            // The kernel itself still adds link-local addresses and routes; they are the host's, not the overlay's.
            assert!(!attention(overlay, monitor).overlay, "{what}");
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
        overlay.set_family(family(Family::V4, e0).device(device(Family::V4, e0).port(4789).learning(true)));
        flush(&mut overlay, &mut kernel);
        calm(&mut overlay, &mut monitor, "made anew");
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn every_disturbance_is_noticed_and_what_does_not_concern_the_overlay_is_not() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 5);
        overlay.set_peer(direct("10.244.6.0/24", "192.168.77.6")).unwrap();
        converge(&mut overlay, &mut kernel);
        let _made = attention(&mut overlay, &mut monitor);
        for disturbance in [
            "ip link del flannel.1",
            "ip link del flannel-v6.1",
            "ip link set flannel.1 down",
            "ip link set flannel.1 down; ip link set flannel.1 up",
            "ip link set flannel-v6.1 down; ip link set flannel-v6.1 up",
            "ip link set e0 down; ip link set e0 up; ip addr replace fd77::1/64 dev e0 nodad",
            // Before 6.2 a device cannot be renamed while it is up.
            "ip link set flannel.1 name flannel.9 || { ip link set flannel.1 down; ip link set flannel.1 name flannel.9; }; ip link del flannel.9",
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
            "ip link set flannel.1 address 02:00:00:00:99:99",
            "ip link set flannel.1 mtu 1300",
            "ip link set flannel.1 type vxlan id 1 local 192.168.77.9 dev e0",
        ] {
            sh(disturbance);
            assert!(attention(&mut overlay, &mut monitor).overlay, "`{disturbance}` goes unnoticed");
            assert!(flush(&mut overlay, &mut kernel) > 0, "`{disturbance}` changes nothing");
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "after `{disturbance}`");
            assert!(!attention(&mut overlay, &mut monitor).overlay, "the repair of `{disturbance}` disturbs");
        }
        for (event, host) in [
            ("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up", true),
            ("ip route add 10.99.0.0/16 via 192.168.77.9", true),
            ("ip addr add 10.98.0.1/24 dev v0", true),
            ("ip link set e0 mtu 1480", true),
            ("ip neigh add 172.16.0.9 lladdr 02:00:00:00:77:02 dev flannel.1 nud permanent", false),
            ("bridge fdb add 02:00:00:00:77:01 dev flannel.1 dst 192.168.77.200 self permanent", false),
            ("ip nexthop add id 7 via 192.168.77.7 dev e0", false),
        ] {
            sh(event);
            assert_eq!(
                attention(&mut overlay, &mut monitor),
                Attention { overlay: false, host },
                "`{event}`"
            );
        }
        // An address that a peer's subnet covers changes what may be programmed.
        sh("ip addr add 10.244.3.1/24 dev v0");
        assert!(attention(&mut overlay, &mut monitor).overlay);
        flush(&mut overlay, &mut kernel);
        assert!(matches!(
            overlay.conflict_of("10.244.3.0/24".parse().unwrap()),
            Some(PeerConflict::CoversHostNetwork(_))
        ));
        sh("ip addr del 10.244.3.1/24 dev v0");
        assert!(attention(&mut overlay, &mut monitor).overlay);
        flush(&mut overlay, &mut kernel);
        assert_eq!(overlay.conflicts().next(), None);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn a_cold_start_with_ten_thousand_peers_does_not_drown_its_own_monitor() {
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
            // Some cover this host's own subnet: those are refused.
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
            assert!(!notifications.contains(&Notification::Overflow), "one more look at 10 000 peers");
            assert!(!overlay.attention(&notifications).overlay);
        }
        // Deleting the device takes the peers along without a lock held per peer.
        sh("ip link del flannel.1");
    });
}

#[test]
fn lost_notifications_are_known_to_be_lost() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 2);
        converge(&mut overlay, &mut kernel);
        let _made = attention(&mut overlay, &mut monitor);
        sh("for i in $(seq 30000); do echo neigh replace 172.16.0.9 lladdr 02:00:00:00:77:02 dev flannel.1 nud permanent
            echo neigh del 172.16.0.9 dev flannel.1; done | ip -batch -; ip link del flannel.1");
        let mut found = Attention::default();
        for _ in 0..100 {
            let more = attention(&mut overlay, &mut monitor);
            found = Attention { overlay: found.overlay | more.overlay, host: found.host | more.host };
        }
        assert_eq!(found, Attention { overlay: true, host: true });
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
            // Making the host is told as well: its IPv6 address may have become valid only now.
            let quiet = std::time::Duration::from_millis(50);
            let mut told = 0;
            while tokio::time::timeout(quiet, stream.next()).await.is_ok() {
                told += 1;
                assert!(told < 20, "it never falls silent");
            }
            sh("ip addr add 10.98.0.1/24 dev e0");
            let woken = tokio::time::timeout(std::time::Duration::from_secs(5), stream.next()).await;
            assert!(!woken.unwrap().unwrap().is_empty());
        });
    });
}

#[test]
fn a_printed_plan_is_a_script_that_does_the_same() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = Overlay::new(Family::ALL.map(|f| {
            let device = device(f, e0).port(4789).gbp(true).learning(true).tx_checksum(Some(false));
            family(f, e0).device(device).blackhole(true)
        }));
        add_peers(&mut overlay, 4);
        overlay.set_peer(direct("10.244.6.0/24", "192.168.77.6")).unwrap();
        overlay.set_peer(direct("fd00:10:244:6::/64", "fd77::6")).unwrap();
        let script = overlay.diff(&kernel.observe(&overlay.links()).unwrap()).to_string();
        sh(&script);
        assert_eq!(converge(&mut overlay, &mut kernel), 0, "{script}");

        overlay.remove_peer("10.244.2.0/24".parse().unwrap());
        overlay.remove_peer("fd00:10:244:2::/64".parse().unwrap());
        overlay.set_peer(tunnel("10.244.3.0/24", &mac(33), "192.168.77.33")).unwrap();
        overlay.set_peer(direct("fd00:10:244:3::/64", "fd77::33")).unwrap();
        let script = overlay.pending().to_string();
        sh(&script);
        assert_eq!(converge(&mut overlay, &mut kernel), 0, "{script}");

        let mut changed = device(Family::V4, e0).port(4789).gbp(true);
        changed.local = "192.168.77.99".parse().unwrap();
        changed.mtu = UnderlayMtu::new(1400).inside_vxlan(Family::V4).unwrap();
        overlay.set_family(family(Family::V4, e0).device(changed));
        let script = overlay.diff(&kernel.observe(&overlay.links()).unwrap()).to_string();
        sh(&script);
        assert_eq!(converge(&mut overlay, &mut kernel), 0, "{script}");
    });
}
