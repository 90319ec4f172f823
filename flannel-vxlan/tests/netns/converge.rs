//! Missing objects are created, wrong ones repaired, stale ones removed, and objects of other programs kept.

use std::net::IpAddr;

use flannel_netlink::{Batch, Flags, Protocol, Socket};
use flannel_vxlan::{Family, Kernel, MacAddr, Netlink, Overlay, UnderlayMtu};
use testkit::{netns, sh};

use super::{add_peers, both, converge, device, direct, family, flush, host, mac, state, tunnel, with};

#[test]
fn an_overlay_is_created_completely_and_a_second_pass_writes_nothing() {
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

        // A new process knows only the desired state.
        let mut restarted = both(e0);
        add_peers(&mut restarted, 3);
        assert_eq!(converge(&mut restarted, &mut Netlink::open().unwrap()), 0);
        assert_eq!(state(), made);
    });
}

/// Without the IDs of nexthop objects, which may change, and the flag of FDB entries, which the kernel does not set again
/// on an entry that another program replaced.
pub(super) fn steady(state: &str) -> String {
    let lines = state.lines().filter(|line| !line.contains("nhid") && !line.starts_with("id "));
    lines.map(|line| line.replace("extern_learn ", "")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_change_of_other_programs_is_repaired() {
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
            // `ip route flush` of iproute2 6.1 sends routes back as it read them, which the kernel refuses with nexthop objects.
            "for r in $(ip route show proto 70 | cut -d' ' -f1); do ip route del $r; done",
            "ip -6 route flush proto 70",
            "ip neigh flush dev flannel.1 nud permanent",
            "ip -6 neigh flush dev flannel-v6.1 nud permanent",
            "bridge fdb del 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.3 self",
            "bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.99 self permanent",
            "ip nexthop flush",
            "ip link set flannel.1 address 02:00:00:00:99:99",
            // The kernel drops neighbor entries again when the address is restored.
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
            // The overlay does not restore the host's own route.
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
fn objects_of_other_programs_are_kept() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 4);
        converge(&mut overlay, &mut kernel);
        sh("bridge fdb add 02:00:00:00:77:01 dev flannel.1 dst 192.168.77.200 self permanent
            bridge fdb add 02:00:00:00:77:02 dev flannel.1 dst 192.168.77.202 self static
            bridge fdb add 02:00:00:00:77:03 dev flannel.1 dst 192.168.77.203 self dynamic
            bridge fdb add 02:00:00:00:77:04 dev flannel.1 dst 192.168.77.204 port 4789 self permanent
            bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.168.77.201 self permanent
            ip neigh add 172.16.0.9 lladdr 02:00:00:00:77:05 dev flannel.1 nud permanent
            ip addr add 172.16.0.1/24 dev flannel.1
            ip addr add fd99:1::1/64 dev flannel.1 nodad
            ip addr add fe80::77/64 dev flannel-v6.1 nodad
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
fn a_peer_that_left_while_no_process_ran_is_removed() {
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
fn objects_of_upstream_are_adopted_and_those_of_its_lost_peers_removed() {
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

        // Adopted objects are removed like our own when their peer is lost.
        let mut restarted =
            Overlay::new([family(Family::V4, e0).device(device(Family::V4, e0)).blackhole(true)]);
        converge(&mut restarted, &mut kernel);
        assert_eq!(
            sh("bridge fdb show dev flannel.1 | sed -n /dst/p; ip neigh show dev flannel.1; ip nexthop"),
            ""
        );
    });
}

/// As upstream's `AddFDB` does, with flags and a state that no `bridge` command sets.
fn add_upstreams_fdb_entry(device: &str, mac: &str, underlay: &str) {
    const RTM_NEWNEIGH: u16 = 28;
    const AF_BRIDGE: u8 = 7;
    const NUD_PERMANENT: u16 = 0x80;
    const NTF_SELF: u8 = 0x02;
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    let index: i32 = sh(&format!("ip -o link show {device} | cut -d: -f1")).trim().parse().unwrap();
    let mut header = vec![AF_BRIDGE, 0, 0, 0];
    header.extend(index.to_ne_bytes());
    header.extend(NUD_PERMANENT.to_ne_bytes());
    header.extend([NTF_SELF, 0]);
    let mac: MacAddr = mac.parse().unwrap();
    let mut batch = Batch::new();
    batch.message(RTM_NEWNEIGH, Flags::CREATE.and(Flags::REPLACE), &header, |a| {
        match underlay.parse().unwrap() {
            IpAddr::V4(underlay) => a.bytes(NDA_DST, &underlay.octets()),
            IpAddr::V6(underlay) => a.bytes(NDA_DST, &underlay.octets()),
        }
        a.bytes(NDA_LLADDR, &mac.bytes());
    });
    let refused = Socket::open(Protocol::Route).unwrap().execute(&mut batch, 1).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
}

/// The kernel drops neighbor entries when the MAC address of the device changes, on `ip neigh flush` and on
/// `ip link set down`, but keeps FDB entries.
#[test]
fn upstreams_fdb_entries_are_removed_although_their_neighbor_entries_are_gone() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        converge(&mut overlay, &mut kernel);
        let made = state();
        let leave = || {
            add_upstreams_fdb_entry("flannel.1", &mac(9), "192.168.77.9");
            add_upstreams_fdb_entry("flannel-v6.1", &mac(9), "fd77::9");
            add_upstreams_fdb_entry("flannel.1", &mac(33), "192.168.77.3");
        };
        leave();
        let mut restarted = both(e0);
        add_peers(&mut restarted, 3);
        restarted.keep_unknown(true);
        assert_eq!(converge(&mut restarted, &mut kernel), 0, "not all peers are known yet");
        restarted.keep_unknown(false);
        assert_eq!(flush(&mut restarted, &mut kernel), 3);
        assert_eq!(state(), made);

        leave();
        assert_eq!(flush(&mut overlay, &mut kernel), 0);
        assert_eq!(converge(&mut overlay, &mut kernel), 3);
        assert_eq!(state(), made);
    });
}

#[test]
fn the_ipv6_device_keeps_no_global_address_but_its_own_and_every_link_local_one() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        converge(&mut overlay, &mut kernel);
        let shown = || sh("ip -6 -br addr show flannel-v6.1");
        sh("ip addr add fe80::77/64 dev flannel-v6.1 nodad");
        let made = shown();
        sh("ip addr add fd99::1/64 dev flannel-v6.1 nodad; ip addr add 2001:db8::5/128 dev flannel-v6.1 nodad
            ip addr add fd00:10:244:7::/128 dev flannel-v6.1 nodad");
        let script = overlay.diff(&kernel.observe(&overlay.links()).unwrap()).to_string();
        assert!(script.contains("ip addr del fd99::1/64 dev flannel-v6.1\n"), "{script}");
        assert_eq!(converge(&mut overlay, &mut kernel), 3, "{script}");
        assert_eq!(shown(), made);
        // The kernel refuses the same IPv6 address with a second prefix length.
        sh("ip addr del fd00:10:244:1::/128 dev flannel-v6.1
            ip addr add fd00:10:244:1::/64 dev flannel-v6.1 nodad");
        assert_eq!(converge(&mut overlay, &mut kernel), 2);
        assert_eq!(shown(), made);
        assert_eq!(sh("ip -6 route show dev flannel-v6.1 proto 70 | wc -l"), "2\n");
    });
}

#[test]
fn a_printed_plan_is_a_script_with_the_same_effect() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = Overlay::new(Family::ALL.map(|f| {
            let device = with(device(f, e0), |vxlan| {
                vxlan.port(4789.try_into().unwrap()).gbp(true).learning(true).tx_checksum(Some(false))
            });
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

        let mut changed =
            with(device(Family::V4, e0), |vxlan| vxlan.port(4789.try_into().unwrap()).gbp(true));
        changed.local = "192.168.77.99".parse().unwrap();
        changed.mtu = UnderlayMtu::new(1400).inside_vxlan(Family::V4).unwrap();
        overlay.set_family(family(Family::V4, e0).device(changed));
        let script = overlay.diff(&kernel.observe(&overlay.links()).unwrap()).to_string();
        sh(&script);
        assert_eq!(converge(&mut overlay, &mut kernel), 0, "{script}");
    });
}
