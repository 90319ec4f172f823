//! Peers that contradict each other or would harm the host.

use flannel_vxlan::{Family, FamilySpec, Monitor, Overlay, PeerConflict};
use testkit::{netns, sh};

use super::{add_peers, both, converge, device, family, flush, host, mac, state, tunnel};

#[test]
fn a_route_of_another_program_to_a_peers_subnet_is_never_shadowed() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 5);
        for (ip, subnet, gateway, command) in [
            ("ip", "10.244.3.0/24", "192.168.77.254", "proto static"),
            ("ip", "10.244.3.0/24", "192.168.77.254", "proto static metric 100"),
            ("ip", "10.244.3.0/24", "192.168.77.254", "metric 100"),
            ("ip -6", "fd00:10:244:3::/64", "fd77::254", "proto static"),
            ("ip -6", "fd00:10:244:3::/64", "fd77::254", "proto static metric 100"),
            ("ip -6", "fd00:10:244:3::/64", "fd77::254", "proto static metric 2000"),
        ] {
            let what = format!("{ip} route {subnet} {command}");
            let peer = subnet.parse().unwrap();
            let shown = || sh(&format!("{ip} route show {subnet} | sed 's/ *$//'"));
            let is_kept_out = |overlay: &Overlay| {
                let conflict = overlay.conflict_of(peer);
                let text = conflict.map(|conflict| conflict.to_string()).unwrap_or_default();
                text.starts_with(&format!(
                    "this host has a route of another program to the peer's subnet: {subnet} via {gateway} dev"
                ))
            };
            // The route exists before the first observation.
            sh(&format!("{ip} route replace {subnet} via {gateway} dev e0 {command}"));
            let before = sh(&format!("{ip} route show {subnet} | grep -v 'proto 70' | sed 's/ *$//'"));
            overlay.invalidate();
            flush(&mut overlay, &mut kernel);
            assert!(is_kept_out(&overlay), "{what}");
            assert_eq!(shown(), before, "{what}");
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "{what}");
            let _made = overlay.notice(&monitor.take().unwrap());

            // The route is deleted: a flush programs the peer, without an observation.
            sh(&format!("{ip} route del {subnet} {command}"));
            let attention = overlay.notice(&monitor.take().unwrap());
            assert!(attention.peers && !attention.overlay, "{what}: {attention:?}");
            assert!(!overlay.needs_observe() && overlay.conflict_of(peer).is_none());
            assert!((1..=4).contains(&flush(&mut overlay, &mut kernel)), "{what}");
            assert!(shown().contains("proto 70"), "{what}");
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "{what}");

            // The route is added while our route exists.
            sh(&format!("{ip} route replace {subnet} via {gateway} dev e0 {command}"));
            let attention = overlay.notice(&monitor.take().unwrap());
            assert!(attention.peers && !attention.overlay, "{what}: {attention:?}");
            flush(&mut overlay, &mut kernel);
            assert!(is_kept_out(&overlay), "{what}");
            assert_eq!(shown(), before, "{what}");
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "{what}");
            sh(&format!("{ip} route del {subnet} {command}"));
            let _gone = overlay.notice(&monitor.take().unwrap());
            flush(&mut overlay, &mut kernel);

            // The route is added without a notification while a peer changes: the kernel refuses our route, and an observation
            // finds the reason.
            sh(&format!("{ip} route del {subnet}; {ip} route add {subnet} via {gateway} dev e0 {command}"));
            overlay.invalidate();
            flush(&mut overlay, &mut kernel);
            assert!(is_kept_out(&overlay), "{what}");
            sh(&format!("{ip} route del {subnet} {command}"));
            let _gone = overlay.notice(&monitor.take().unwrap());
            flush(&mut overlay, &mut kernel);
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "{what}");
        }
        // A new peer, after another program has added a route with the same metric.
        sh("ip route add 10.244.9.0/24 via 192.168.77.254 proto static");
        overlay.set_peer(tunnel("10.244.9.0/24", &mac(9), "192.168.77.9")).unwrap();
        flush(&mut overlay, &mut kernel);
        assert!(matches!(
            overlay.conflict_of("10.244.9.0/24".parse().unwrap()),
            Some(PeerConflict::HostRoute(_))
        ));
        assert!(sh("ip route show 10.244.9.0/24").contains("proto static"));
        // The kernel deletes the route with its interface, without a notification.
        let _all = overlay.notice(&monitor.take().unwrap());
        sh("ip link add v0 type veth peer name v1; ip addr add 172.16.0.1/24 dev v0; ip link set v0 up
            ip route replace 10.244.9.0/24 via 172.16.0.9 proto static");
        let _all = overlay.notice(&monitor.take().unwrap());
        sh("ip link set v0 down");
        assert!(overlay.notice(&monitor.take().unwrap()).overlay);
        flush(&mut overlay, &mut kernel);
        assert!(sh("ip route show 10.244.9.0/24").contains("proto 70"));
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn a_subnet_that_holds_a_gateway_is_refused_as_long_as_it_does() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        sh("ip route add default via 192.168.77.254; ip -6 route add default via fd77::ff01");
        let mut overlay = Overlay::new(Family::ALL.map(|f| {
            let mut spec = family(f, e0).device(device(f, e0));
            spec.networks.push(if f == Family::V4 { "192.168.0.0/16" } else { "fd70::/12" }.parse().unwrap());
            spec
        }));
        converge(&mut overlay, &mut kernel);
        let _all = overlay.notice(&monitor.take().unwrap());
        let before = state();
        let v4 = tunnel("192.168.77.128/25", &mac(9), "192.168.78.2");
        let v6 = tunnel("fd77::ff00/120", &mac(9), "fd77::2");
        let holds = |gateway: &str| Err(PeerConflict::HoldsGateway(gateway.parse().unwrap()));
        for (peer, gateway) in [(v4, "192.168.77.254"), (v6, "fd77::ff01")] {
            assert_eq!(overlay.set_peer(peer), holds(gateway));
            flush(&mut overlay, &mut kernel);
            assert_eq!(state(), before);
        }
        // Without the gateway there is no conflict. The kernel may still refuse an IPv6 route in a connected network.
        overlay.remove_peer(v6.subnet);
        sh("ip route del default");
        assert!(overlay.notice(&monitor.take().unwrap()).overlay);
        flush(&mut overlay, &mut kernel);
        assert_eq!(overlay.conflicts().next(), None);
        overlay.remove_peer(v4.subnet);
        flush(&mut overlay, &mut kernel);
        // A notification reports a new route. Gateways of multipath routes and nexthop objects are found by observing.
        overlay.set_peer(v4).unwrap();
        sh("ip route add 172.16.0.0/16 via 192.168.77.253");
        let attention = overlay.notice(&monitor.take().unwrap());
        assert_eq!(overlay.set_peer(v4), holds("192.168.77.253"), "{attention:?}");
        overlay.remove_peer(v4.subnet);
        sh("ip route replace 172.16.0.0/16 nexthop via 192.168.77.251 nexthop via 192.168.77.252
            ip -6 route del default; ip nexthop add id 7 via fd77::ff02 dev e0; ip -6 route add fd99::/64 nhid 7");
        overlay.invalidate();
        flush(&mut overlay, &mut kernel);
        assert_eq!(overlay.set_peer(v4), holds("192.168.77.251"));
        assert_eq!(overlay.set_peer(v6), holds("fd77::ff02"));
        sh("ip route del 172.16.0.0/16");
        overlay.remove_peer(v6.subnet);
        overlay.remove_peer(v4.subnet);
        overlay.invalidate();
        flush(&mut overlay, &mut kernel);
    });
}

#[test]
fn a_peer_with_a_public_address_inside_the_subnet_of_another_is_not_programmed_and_the_other_peer_is() {
    netns(|| {
        let (mut kernel, e0) = host();
        let networks = vec!["10.244.0.0/16".parse().unwrap(), "192.168.0.0/16".parse().unwrap()];
        let spec = FamilySpec::new(e0, "10.244.1.0/24".parse().unwrap(), networks);
        let mut overlay = Overlay::new([spec.device(device(Family::V4, e0))]);
        let victim = tunnel("10.244.2.0/24", &mac(2), "192.168.77.2");
        let inside = tunnel("10.244.3.0/24", &mac(3), "10.244.2.9");
        // The cluster's network also contains the network of its hosts. (For IPv6 the kernel itself refuses this.)
        let greedy = tunnel("192.168.77.128/25", &mac(4), "172.17.0.4");
        let station = tunnel("10.244.5.0/24", &mac(5), "192.168.77.200");
        for order in [[victim, inside, greedy, station], [station, greedy, inside, victim]] {
            for peer in order {
                overlay.set_peer(peer).ok();
                flush(&mut overlay, &mut kernel);
            }
            let conflicts: Vec<_> = overlay.conflicts().collect();
            let address = "192.168.77.200".parse().unwrap();
            let expected = [
                (inside.subnet, PeerConflict::UnderlayInside(victim.subnet, victim.via.underlay())),
                (greedy.subnet, PeerConflict::HoldsUnderlayOf { peer: station.subnet, address }),
            ];
            assert_eq!(conflicts, expected);
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
            overlay.remove_peer(victim.subnet);
            overlay.remove_peer(station.subnet);
            flush(&mut overlay, &mut kernel);
            assert_eq!(overlay.conflicts().next(), None, "the peers are not programmed by themselves");
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
            assert!(
                order
                    .iter()
                    .all(|peer| overlay.remove_peer(peer.subnet) || *peer == victim || *peer == station)
            );
            flush(&mut overlay, &mut kernel);
        }
    });
}

#[test]
fn of_two_peers_with_the_same_mac_the_lowest_subnet_is_programmed() {
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
            assert_eq!(
                overlay.conflict_of(loser.subnet),
                Some(PeerConflict::MacTaken(winner.subnet, winner.via.underlay()))
            );
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
            (
                "10.244.1.0/24",
                "192.168.77.2",
                "the peer's subnet overlaps 10.244.1.0/24, the subnet of this node",
            ),
            (
                "10.244.0.0/16",
                "192.168.77.2",
                "the peer's subnet overlaps 10.244.1.0/24, the subnet of this node",
            ),
            (
                "10.244.9.0/24",
                "192.168.77.2",
                "the peer's subnet contains 10.244.9.0/24, a network that this host is attached to",
            ),
            (
                "192.168.77.0/24",
                "192.168.78.2",
                "the peer's subnet contains 192.168.77.0/24, a network that this host is attached to",
            ),
            (
                "192.168.77.0/28",
                "192.168.78.2",
                "the peer's subnet contains 192.168.77.1, an address of this host",
            ),
            (
                "192.168.77.16/28",
                "192.168.77.17",
                "the peer's subnet contains its own underlay address 192.168.77.17",
            ),
            (
                "10.244.2.0/24",
                "192.168.77.1",
                "the peer's underlay address 192.168.77.1 belongs to this node",
            ),
            (
                "10.244.2.0/24",
                "fd77::2",
                "the peer's underlay address fd77::2 is not of the same family as its subnet",
            ),
            ("8.8.8.0/24", "192.168.77.2", "the peer's subnet is outside the pod network"),
            (
                "128.0.0.0/1",
                "10.0.0.2",
                "the peer's subnet contains 192.168.77.0/24, a network that this host is attached to",
            ),
            (
                "0.0.0.0/2",
                "192.168.77.2",
                "the peer's subnet overlaps 10.244.1.0/24, the subnet of this node",
            ),
            ("64.0.0.0/3", "192.168.77.2", "the peer's subnet is outside the pod network"),
            ("2000::/3", "fd77::2", "the peer's subnet is outside the pod network"),
            (
                "10.244.2.0/24",
                "127.0.0.2",
                "the peer's underlay address 127.0.0.2 is not the address of a host",
            ),
            (
                "10.244.2.0/24",
                "239.1.2.3",
                "the peer's underlay address 239.1.2.3 is not the address of a host",
            ),
            ("10.244.2.0/24", "0.0.0.9", "the peer's underlay address 0.0.0.9 is not the address of a host"),
            (
                "10.244.2.0/24",
                "255.255.255.255",
                "the peer's underlay address 255.255.255.255 is not the address of a host",
            ),
            (
                "10.244.2.0/24",
                "192.168.77.255",
                "the peer's underlay address 192.168.77.255 is not the address of a host",
            ),
            (
                "fd00:10:244:2::/64",
                "ff02::1",
                "the peer's underlay address ff02::1 is not the address of a host",
            ),
            (
                "fd00:10:244:2::/64",
                "::ffff:192.168.77.2",
                "the peer's underlay address ::ffff:192.168.77.2 is not the address of a host",
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
        overlay.invalidate();
        overlay.set_peer(tunnel("10.244.2.0/24", &m, "10.1.2.4")).unwrap();
        flush(&mut overlay, &mut kernel);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn peers_that_share_a_public_address_or_nest_their_subnets_are_both_programmed_in_either_family() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = both(e0);
        // One public address, two MAC addresses and subnets, as for two nodes behind NAT. Both are programmed.
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

        // One subnet inside another, in whatever order they come: both, and each packet to the longer prefix; but the larger
        // one where they begin with the same address, which is that of both tunnel endpoints.
        for (outer, inner, one_endpoint) in [
            ("10.244.8.0/22", "10.244.8.0/24", true),
            ("10.244.16.0/22", "10.244.18.0/24", false),
            ("10.244.20.0/24", "10.244.20.128/25", false),
            ("fd00:10:244:8::/62", "fd00:10:244:8::/64", true),
            ("fd00:10:244:10::/62", "fd00:10:244:12::/64", false),
        ] {
            let at = if outer.contains(':') { "fd77::9" } else { "192.168.77.9" };
            let (outer, inner) = (tunnel(outer, &mac(8), at), tunnel(inner, &mac(9), at));
            for order in [[outer, inner], [inner, outer]] {
                for peer in order {
                    let _either = overlay.set_peer(peer);
                    flush(&mut overlay, &mut kernel);
                }
                let taken =
                    one_endpoint.then_some(PeerConflict::EndpointTaken(outer.subnet, outer.via.underlay()));
                assert_eq!(overlay.conflict_of(inner.subnet), taken);
                assert_eq!(overlay.conflict_of(outer.subnet), None);
                assert_eq!(converge(&mut overlay, &mut kernel), 0, "an observation finds no difference");
                let routes = || sh("ip route show proto 70; ip -6 route show proto 70");
                assert!(routes().contains(&outer.subnet.to_string()), "{}", routes());
                assert_eq!(routes().contains(&inner.subnet.to_string()), !one_endpoint, "{}", routes());

                overlay.remove_peer(outer.subnet);
                flush(&mut overlay, &mut kernel);
                assert!(
                    routes().contains(&inner.subnet.to_string()),
                    "the inner peer is not programmed by itself\n{}",
                    routes()
                );
                assert_eq!(converge(&mut overlay, &mut kernel), 0);
                overlay.remove_peer(inner.subnet);
                flush(&mut overlay, &mut kernel);
            }
        }
    });
}
