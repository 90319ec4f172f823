//! Reading the host's interfaces and routes, and overlays that follow changes of the uplink.

use std::net::IpAddr;

use flannel_vxlan::{Family, Kernel, Link, Monitor, Netlink, Overlay, PeerConflict, UnderlayMtu};
use testkit::{netns, sh};

use super::{add_peers, both, converge, device, direct, family, flush, host, mac, tunnel, with};

#[test]
fn a_new_underlay_address_changes_the_device_in_place_and_a_new_port_recreates_it() {
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

        overlay.set_family(
            family(Family::V4, e0)
                .device(with(moved, |vxlan| vxlan.port(4789.try_into().unwrap()).gbp(true))),
        );
        flush(&mut overlay, &mut kernel);
        assert_ne!(index(), before);
        assert!(sh("ip -d link show flannel.1").contains("dstport 4789"));
        assert_eq!(sh("ip route show proto 70 dev flannel.1 | wc -l"), "3\n");
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn a_new_ipv6_address_and_interface_of_the_underlay_change_the_device_in_place() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 4);
        converge(&mut overlay, &mut kernel);
        let entries = || {
            sh(
                "ip -6 route show proto 70; ip -6 neigh show dev flannel-v6.1 nud permanent; bridge fdb show dev flannel-v6.1",
            )
        };
        let shown = || sh("ip -d -o link show flannel-v6.1");
        let index = || shown().split(':').next().map(str::to_owned);
        let (before, made) = (index(), entries());
        sh(
            "ip addr add fd77::201/64 dev e0 nodad; ip addr del fd77::1/64 dev e0; ip addr add fd78::1/64 dev e1 nodad",
        );
        let e1 = kernel.interfaces().unwrap().into_iter().find(|interface| interface.name == "e1").unwrap();
        let e1 = Link { index: e1.index, name: "e1".parse().unwrap() };
        for (link, local) in [(e0, "fd77::201"), (e1, "fd78::1")] {
            let mut moved = device(Family::V6, e0);
            (moved.local, moved.underlay) = (local.parse().unwrap(), link);
            overlay.set_family(family(Family::V6, link).device(moved));
            assert_eq!(flush(&mut overlay, &mut kernel), 1);
            assert!(shown().contains(&format!("local {local} dev {} ", link.name)), "{}", shown());
            assert_eq!((index(), entries()), (before.clone(), made.clone()));
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
        }
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

/// The kernel deletes the IPv4 routes of an interface that loses its last address, without a notification
/// (`fib_disable_ip`, net/ipv4/fib_frontend.c).
#[test]
fn direct_routes_are_restored_with_the_same_or_another_underlay_address() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut host_gw = Overlay::new(Family::ALL.map(|f| family(f, e0)));
        host_gw.set_peer(direct("10.244.2.0/24", "192.168.77.2")).unwrap();
        host_gw.set_peer(direct("fd00:10:244:2::/64", "fd77::2")).unwrap();
        converge(&mut host_gw, &mut kernel);
        let routes = || sh("ip route show proto 70; ip -6 route show proto 70");
        let made = routes();
        let _made = host_gw.notice(&monitor.take().unwrap());
        for disturbance in [
            "ip addr flush dev e0; ip addr add 192.168.77.1/24 dev e0; ip addr add fd77::1/64 dev e0 nodad",
            "ip addr add 192.168.77.201/24 dev e0; ip addr del 192.168.77.1/24 dev e0
             ip addr add 192.168.77.201/24 dev e0 || true",
            "ip addr del 192.168.77.201/24 dev e0; ip addr add 192.168.77.1/24 dev e0",
            "ip addr del fd77::1/64 dev e0; ip addr add fd77::201/64 dev e0 nodad",
            "ip addr change 192.168.77.1/24 dev e0 valid_lft 100 preferred_lft 100; ip addr del 192.168.77.1/24 dev e0
             ip addr add 192.168.77.1/24 dev e0",
        ] {
            sh(disturbance);
            let attention = host_gw.notice(&monitor.take().unwrap());
            assert!(attention.overlay && attention.host, "`{disturbance}`: {attention:?}");
            flush(&mut host_gw, &mut kernel);
            assert_eq!(routes(), made, "after `{disturbance}`");
        }
        // Without an address the kernel refuses the route. With an address it is written again.
        sh("ip addr del 192.168.77.1/24 dev e0");
        assert!(host_gw.notice(&monitor.take().unwrap()).overlay);
        assert_eq!(host_gw.flush(&mut kernel).unwrap().refused.len(), 1);
        sh("ip addr add 192.168.77.1/24 dev e0");
        assert!(host_gw.notice(&monitor.take().unwrap()).overlay);
        flush(&mut host_gw, &mut kernel);
        assert_eq!(routes(), made);
        // An extended lifetime, as by DHCP and router advertisements, does not require an observation.
        sh(
            "ip addr change 192.168.77.1/24 dev e0 valid_lft 100 preferred_lft 100; ip addr change fd77::201/64 dev e0 valid_lft 90 preferred_lft 90",
        );
        assert!(!host_gw.notice(&monitor.take().unwrap()).overlay);
    });
}

#[test]
fn a_peer_takes_over_the_address_that_this_host_gives_up() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        // The address may be on any interface.
        sh("ip link add v0 type veth peer name v1; ip addr add 192.168.77.8/32 dev v0");
        let mut overlay = both(e0);
        add_peers(&mut overlay, 2);
        let early = overlay.set_peer(tunnel("10.244.8.0/24", &mac(8), "192.168.77.8"));
        assert_eq!(early, Ok(()), "the host was not observed yet");
        converge(&mut overlay, &mut kernel);
        let subnet = "10.244.8.0/24".parse().unwrap();
        assert!(matches!(overlay.conflict_of(subnet), Some(PeerConflict::OwnUnderlay(_))));
        let _made = overlay.notice(&monitor.take().unwrap());
        sh("ip addr del 192.168.77.8/32 dev v0");
        assert!(overlay.notice(&monitor.take().unwrap()).overlay);
        flush(&mut overlay, &mut kernel);
        assert_eq!(overlay.conflict_of(subnet), None);
        assert!(sh("ip route show proto 70").contains("10.244.8.0/24"));
        sh("ip addr add 192.168.77.8/32 dev v0");
        assert!(overlay.notice(&monitor.take().unwrap()).overlay);
        flush(&mut overlay, &mut kernel);
        assert!(matches!(overlay.conflict_of(subnet), Some(PeerConflict::OwnUnderlay(_))));
        assert!(!sh("ip route show proto 70").contains("10.244.8.0/24"));
    });
}

#[test]
fn interfaces_addresses_and_routes_are_read_as_ip_shows_them() {
    netns(|| {
        let (mut kernel, e0) = host();
        assert_eq!(kernel.default_routes(Family::V4).unwrap(), []);
        sh("ip route add default via 192.168.77.254 metric 200
            ip route add default via 192.168.77.253 metric 100
            ip -6 route add default via fd77::fe
            ip addr add 192.168.77.8/24 dev e0 valid_lft 100 preferred_lft 0
            ip route add blackhole 203.0.113.0/24");
        let default = kernel.default_routes(Family::V4).unwrap()[0];
        assert_eq!((default.interface, default.metric), (e0.index, 100));
        assert_eq!(kernel.default_routes(Family::V6).unwrap()[0].interface, e0.index);

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
