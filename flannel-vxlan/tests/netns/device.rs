//! The VXLAN device: refused, changed in place, made anew.

use flannel_vxlan::{Family, Monitor, Overlay, UnderlayMtu};
use testkit::{netns, sh};

use super::converge::steady;
use super::{add_peers, both, converge, device, family, flush, host, mac, state, tunnel};

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

/// How `ip` shows the device, without its index.
fn shown() -> String {
    sh("ip -d link show flannel.1 | sed 's/^[0-9]*: //'")
}

#[test]
fn no_option_of_a_device_that_others_left_stays_and_those_that_can_be_are_changed_in_place() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = Overlay::new([family(Family::V4, e0).device(device(Family::V4, e0))]);
        add_peers(&mut overlay, 3);
        converge(&mut overlay, &mut kernel);
        let (index, made) = (|| sh("ip -o link show flannel.1 | cut -d: -f1"), shown());
        for (options, in_place) in [
            ("nolearning", true), // as upstream makes it
            ("ttl 1 tos 8 df set ageing 10", true),
            ("tos inherit nolearning ageing 0", true),
            ("df inherit nolearning", true),
            ("ttl inherit", false),
            ("maxaddress 2 nolearning", false),
            ("srcport 1000 2000 nolearning", false),
            ("noudpcsum nolearning", false),
            ("udp6zerocsumtx nolearning", false),
            ("udp6zerocsumrx nolearning", false),
            ("remcsumtx nolearning", false),
            ("remcsumrx nolearning", false),
            ("proxy nolearning", false),
            ("rsc nolearning", false),
            ("l2miss l3miss nolearning", false),
            ("gbp nolearning", false),
            ("group 239.1.1.1 nolearning", false),
        ] {
            sh(&format!(
                "ip link del flannel.1
                ip link add flannel.1 type vxlan id 1 dev e0 local 192.168.77.1 dstport 8472 {options}"
            ));
            let before = index();
            converge(&mut overlay, &mut kernel);
            assert_eq!(shown(), made, "after `{options}`");
            assert_eq!(index() == before, in_place, "`{options}`");
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "after `{options}`");
        }
    });
}

#[test]
fn a_device_of_ipv6_loses_the_options_of_others_too() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = Overlay::new([family(Family::V6, e0).device(device(Family::V6, e0))]);
        converge(&mut overlay, &mut kernel);
        let shown = || sh("ip -d link show flannel-v6.1 | sed 's/^[0-9]*: //'");
        let (index, made) = (|| sh("ip -o link show flannel-v6.1 | cut -d: -f1"), shown());
        let before = index();
        sh("ip link set flannel-v6.1 type vxlan id 1 flowlabel 7 ttl 3");
        assert_eq!(converge(&mut overlay, &mut kernel), 1);
        assert_eq!((shown(), index()), (made, before));
    });
}

#[test]
fn a_device_that_somebody_put_into_a_bridge_is_taken_out_and_keeps_its_peers() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        sh("ip link add br0 type bridge");
        converge(&mut overlay, &mut kernel);
        let _made = overlay.notice(&monitor.take().unwrap());
        let made = state();
        sh("ip link set flannel.1 master br0");
        assert!(overlay.notice(&monitor.take().unwrap()).overlay);
        flush(&mut overlay, &mut kernel);
        assert_eq!(steady(&state()), steady(&made));
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        assert!(!overlay.notice(&monitor.take().unwrap()).overlay);
    });
}

#[test]
fn a_device_that_somebody_renamed_gets_its_name_back_with_all_that_is_on_it() {
    netns(|| {
        let (mut kernel, e0) = host();
        let mut monitor = Monitor::open(&kernel).unwrap();
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        converge(&mut overlay, &mut kernel);
        let _made = overlay.notice(&monitor.take().unwrap());
        let made = state();
        for disturbance in [
            // Before 6.2 a device cannot be renamed while it is up.
            "ip link set flannel.1 name x || { ip link set flannel.1 down; ip link set flannel.1 name x up; }",
            "ip link set flannel.1 down; ip link set flannel.1 name x; ip link set x up",
            "ip link set flannel.1 down; ip link set flannel.1 name x",
            "ip link set flannel.1 down; ip link set flannel.1 name x; ip link set flannel-v6.1 down; ip link set flannel-v6.1 name y",
        ] {
            let index = || sh("ip -o link show flannel.1 | cut -d: -f1");
            let before = index();
            sh(disturbance);
            assert!(overlay.notice(&monitor.take().unwrap()).overlay, "`{disturbance}` goes unnoticed");
            flush(&mut overlay, &mut kernel);
            assert_eq!((steady(&state()), index()), (steady(&made), before), "after `{disturbance}`");
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "after `{disturbance}`");
            assert!(
                !overlay.notice(&monitor.take().unwrap()).overlay,
                "the repair of `{disturbance}` disturbs"
            );
        }
        // While nobody looked, and with another port wanted, which needs another device.
        sh("ip link set flannel.1 down; ip link set flannel.1 name x");
        let mut restarted = both(e0);
        add_peers(&mut restarted, 3);
        converge(&mut restarted, &mut kernel);
        assert_eq!(steady(&state()), steady(&made));
        sh("ip link set flannel.1 down; ip link set flannel.1 name x");
        let other = device(Family::V4, e0).port(4789.try_into().unwrap());
        restarted.set_family(family(Family::V4, e0).device(other));
        flush(&mut restarted, &mut kernel);
        assert_eq!(converge(&mut restarted, &mut kernel), 0);
        assert_eq!(sh("ip -o link show type vxlan | wc -l"), "2\n");
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
        assert!(text.contains("refused `ip link set flannel.1 mtu 8950`"), "{text}");
        assert!(text.contains("cannot carry packets of 8950 bytes plus the VXLAN overhead"), "{text}");
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
        assert!(text.contains("VNI 1 on UDP port 8472 is used by the device other"), "{text}");
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
        assert!(text.contains("UDP port 8472 is used by another program"), "{text}");
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
