//! The kernel objects of single peers: written, changed and removed.

use flannel_vxlan::{Errno, Family, Monitor, Overlay};
use testkit::{netns, sh, try_sh};

use super::{add_peers, both, converge, device, direct, family, flush, host, mac, state, tunnel};

#[test]
fn a_refused_peer_is_reported_and_delays_no_other() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 5);
        // A gateway that the kernel cannot reach.
        let subnet = "10.244.3.0/24".parse().unwrap();
        overlay.set_peer(direct("10.244.3.0/24", "192.168.78.3")).unwrap();
        let report = overlay.converge(&mut kernel).unwrap();
        assert_eq!(report.refused.len(), 1, "{report:#?}");
        assert_eq!((report.refused[0].peer, report.refused[0].errno), (Some(subnet), Errno::ENETUNREACH));
        assert!(report.is_clean_but_for_peers() && !report.is_clean());
        assert_eq!(sh("ip route show proto 70 | wc -l"), "3\n");

        // The peer is not tried again until `retry`; other peers still change.
        assert!(overlay.is_pending() && overlay.is_refused(subnet) && overlay.refused() == 1);
        overlay.set_peer(tunnel("10.244.6.0/24", &mac(6), "192.168.77.6")).unwrap();
        assert_eq!(flush(&mut overlay, &mut kernel), 4);
        overlay.retry();
        assert_eq!(overlay.flush(&mut kernel).unwrap().refused.len(), 1);
        sh("ip addr add 192.168.78.1/24 dev e0");
        assert_eq!(flush(&mut overlay, &mut kernel), 0);
        overlay.retry();
        assert_eq!(flush(&mut overlay, &mut kernel), 1);
        sh("ip route show proto 70 | grep '10.244.3.0/24 via 192.168.78.3'");
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        assert!(!overlay.is_pending());
    });
}

#[test]
fn a_changed_peer_leaves_no_old_objects() {
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
fn an_ipv6_peer_changes_from_direct_to_tunnel_and_back() {
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

        // The same by an observation, as after a restart with another configuration.
        overlay.set_peer(direct).unwrap();
        flush(&mut overlay, &mut kernel);
        let mut fresh = both(e0);
        fresh.set_peer(tunnel).unwrap();
        converge(&mut fresh, &mut kernel);
        assert_eq!(state(), tunnelled);
    });
}

#[test]
fn two_leases_of_one_node_share_its_fdb_entry() {
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
fn a_peer_that_is_added_after_the_device_was_replaced_is_programmed_with_all_others() {
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
fn routes_without_an_interface_are_recognized_by_their_nexthop_object() {
    netns(|| {
        let (mut kernel, e0) = host();
        sh("sysctl -qw net.ipv4.nexthop_compat_mode=0");
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        converge(&mut overlay, &mut kernel);
        let mut restarted = both(e0);
        add_peers(&mut restarted, 3);
        assert_eq!(converge(&mut restarted, &mut kernel), 0);
        let _made = overlay.notice(&monitor.take().unwrap());
        sh("ip route del 10.244.2.0/24");
        assert!(overlay.notice(&monitor.take().unwrap()).overlay);
        assert_eq!(flush(&mut overlay, &mut kernel), 1);
        assert!(!overlay.notice(&monitor.take().unwrap()).overlay);
        overlay.remove_peer("10.244.3.0/24".parse().unwrap());
        flush(&mut overlay, &mut kernel);
        sh("ip route add 10.244.9.0/24 nhid $(ip nexthop | sed -n 's/id \\([0-9]*\\) .*/\\1/p') proto 70");
        assert_eq!(converge(&mut overlay, &mut kernel), 1, "a stale route is deleted");
        assert_eq!(sh("ip route show proto 70 | wc -l"), "1\n");
    });
}

#[test]
fn nexthop_ids_survive_a_restart_and_never_collide() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 5);
        converge(&mut overlay, &mut kernel);
        let numbers = sh("ip nexthop | sort");
        let highest: u32 = sh("ip nexthop | awk '{print $2}' | sort -n | tail -1").trim().parse().unwrap();

        // Another program takes the next two IDs: one before the observation, one after it.
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
