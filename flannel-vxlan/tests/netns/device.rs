//! The VXLAN device: refused, changed in place, recreated.

use flannel_vxlan::{Family, Monitor, Overlay, UnderlayMtu};
use testkit::{netns, sh};

use super::converge::steady;
use super::{add_peers, both, converge, device, family, flush, host, mac, state, tunnel, with};

#[test]
fn a_device_of_another_program_is_reported_by_name_and_the_other_family_is_written() {
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip link add flannel.1 type veth peer name f1");
        let mut overlay = both(e0);
        add_peers(&mut overlay, 3);
        let report = overlay.converge(&mut kernel).unwrap();
        assert!(
            report.taken[0].to_string().starts_with("device flannel.1 exists and is a device of kind veth"),
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
fn a_device_that_the_kernel_does_not_change_in_place_is_recreated_with_everything_on_it() {
    netns(|| {
        let (mut kernel, e0) = host();
        // No IPv4 device: the kernel refuses a second device with the same VNI that it takes for an IPv4 device.
        let mut overlay = Overlay::new([family(Family::V6, e0).device(device(Family::V6, e0))]);
        for n in 2..=4 {
            let (subnet, at) = (format!("fd00:10:244:{n}::/64"), format!("fd77::{n}"));
            overlay.set_peer(tunnel(&subnet, &mac(n), &at)).unwrap();
        }
        converge(&mut overlay, &mut kernel);
        let made = state();
        let index = || sh("ip -o link show flannel-v6.1 | cut -d: -f1");
        // The kernel takes a device without an address for an IPv4 device, and never changes that.
        sh("ip link del flannel-v6.1; ip link add flannel-v6.1 type vxlan id 1 dstport 8472 dev e0");
        let before = index();
        converge(&mut overlay, &mut kernel);
        assert_ne!(index(), before);
        assert_eq!(steady(&state()), steady(&made));
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        // The same again.
        sh("ip link del flannel-v6.1; ip link add flannel-v6.1 type vxlan id 1 dstport 8472 dev e0");
        converge(&mut overlay, &mut kernel);
        assert_eq!(steady(&state()), steady(&made));
    });
}

/// The device as `ip` shows it, without its index.
fn shown() -> String {
    sh("ip -d link show flannel.1 | sed 's/^[0-9]*: //'")
}

#[test]
fn options_of_a_foreign_device_are_reset_in_place_if_the_kernel_allows_it() {
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
fn options_of_a_foreign_ipv6_device_are_reset() {
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
fn a_device_that_became_a_bridge_port_is_released_and_keeps_its_peers() {
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
fn a_renamed_device_gets_its_name_back_with_everything_on_it() {
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
        // Renamed while no process ran. The desired port has changed, too, so the device has to be recreated.
        sh("ip link set flannel.1 down; ip link set flannel.1 name x");
        let mut restarted = both(e0);
        add_peers(&mut restarted, 3);
        converge(&mut restarted, &mut kernel);
        assert_eq!(steady(&state()), steady(&made));
        sh("ip link set flannel.1 down; ip link set flannel.1 name x");
        let other = with(device(Family::V4, e0), |vxlan| vxlan.port(4789.try_into().unwrap()));
        restarted.set_family(family(Family::V4, e0).device(other));
        flush(&mut restarted, &mut kernel);
        assert_eq!(converge(&mut restarted, &mut kernel), 0);
        assert_eq!(sh("ip -o link show type vxlan | wc -l"), "2\n");
    });
}

#[test]
fn an_mtu_that_the_uplink_cannot_carry_is_reported_with_the_device() {
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
fn a_vni_in_use_is_reported_with_the_device_that_uses_it() {
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip link add other type vxlan id 1 dstport 8472 dev e0 local 192.168.77.1");
        let mut overlay = Overlay::new([family(Family::V4, e0).device(device(Family::V4, e0))]);
        add_peers(&mut overlay, 3);
        let report = overlay.converge(&mut kernel).unwrap();
        assert_eq!(report.refused.len(), 1, "{report:#?}");
        let text = report.refused[0].to_string();
        assert!(text.contains("VNI 1 on UDP port 8472 is used by the device `other`: "), "{text}");
        assert_eq!(report.without_device, [Family::V4]);

        sh("ip link del other");
        flush(&mut overlay, &mut kernel);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

#[test]
fn a_udp_port_in_use_is_reported() {
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
fn checksum_offload_is_set_again_when_the_device_is_recreated() {
    netns(|| {
        let (mut kernel, e0) = host();
        let spec = |on| {
            Overlay::new([family(Family::V4, e0)
                .device(with(device(Family::V4, e0), |vxlan| vxlan.tx_checksum(Some(on))))])
        };
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
