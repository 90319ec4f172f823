//! Many WireGuard peers, and a peer with many subnets.

use std::net::SocketAddr;
use std::time::Instant;

use flannel_vxlan::{Family, Kernel, Peer, PublicKey, Via};
use ipnet::IpNet;
use testkit::{netns, sh};

use super::{DUAL_OVER_V4, V4, can_run, private, subnet};
use crate::{converge, flush, host};

#[test]
fn a_thousand_peers_are_written_and_compared() {
    if !can_run() {
        return;
    }
    for mode in [V4, DUAL_OVER_V4] {
        netns(|| {
            let (mut kernel, e0) = host();
            let mut overlay = mode.overlay(1, e0);
            // Not one of them is computed from a private key, which takes long without optimization.
            let key = |n: u16| PublicKey::new([n.to_be_bytes(); 16].concat().try_into().unwrap());
            for n in 0..1000_u16 {
                let endpoint = SocketAddr::from(([192, 168, 77, 100], 1024 + n));
                for family in mode.families {
                    let subnet: IpNet = match family {
                        Family::V4 => format!("10.244.{}.{}/28", 128 + n / 16, n % 16 * 16),
                        Family::V6 => format!("fd00:10:244:{:x}::/64", 0x1000 + n),
                    }
                    .parse()
                    .unwrap();
                    overlay.set_peer(Peer { subnet, via: Via::Key { key: key(n), endpoint } }).unwrap();
                }
            }
            let timed = |what: &str, act: &mut dyn FnMut()| {
                let start = Instant::now();
                act();
                println!("figure: {:.1?} {what} ({} families)", start.elapsed(), mode.families.len());
            };
            timed("to load 1,000 peers", &mut || assert_ne!(converge(&mut overlay, &mut kernel), 0));
            timed("to compare 1,000 peers", &mut || assert_eq!(converge(&mut overlay, &mut kernel), 0));
            let added = Peer {
                subnet: "10.244.9.0/24".parse().unwrap(),
                via: Via::Key { key: key(5000), endpoint: "192.168.77.9:51820".parse().unwrap() },
            };
            timed("to add a peer", &mut || {
                overlay.set_peer(added).unwrap();
                assert_eq!(flush(&mut overlay, &mut kernel), 1);
            });
            timed("to remove it", &mut || {
                overlay.remove_peer(added.subnet);
                assert_eq!(flush(&mut overlay, &mut kernel), 1);
            });
            assert_eq!(sh("wg show flannel-wg peers | wc -l").trim(), "1002");
            sh("wg show flannel-wg peers | head -500 | sed 's/.*/peer & remove/' | xargs wg set flannel-wg");
            timed("to restore 500 peers", &mut || assert_ne!(converge(&mut overlay, &mut kernel), 0));
            assert_eq!(converge(&mut overlay, &mut kernel), 0);
            sh("ip link del flannel-wg");
            timed("to replace the deleted device", &mut || {
                converge(&mut overlay, &mut kernel);
            });
            assert_eq!(sh("wg show flannel-wg peers | wc -l").trim(), "1002");
        });
    }
}

#[test]
fn one_key_with_thousands_of_subnets_takes_several_messages() {
    if !can_run() {
        return;
    }
    netns(|| {
        let (mut kernel, e0) = host();
        let mut overlay = DUAL_OVER_V4.overlay(1, e0);
        // Only a few leases with one key are considered; see the conflict rules.
        let Some(Via::Key { key, endpoint }) = overlay.peer(subnet(2, Family::V4)).map(|peer| peer.via)
        else {
            return;
        };
        for n in 0..3000_u16 {
            let subnet = format!("fd00:10:244:{:x}::/64", 0x1000 + n).parse().unwrap();
            let _conflict = overlay.set_peer(Peer { subnet, via: Via::Key { key, endpoint } });
        }
        converge(&mut overlay, &mut kernel);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        let subnets = sh(&format!("wg show flannel-wg allowed-ips | grep {key} | wc -w"));
        assert!(subnets.trim().parse::<usize>().unwrap() >= 60, "{subnets}");
        // A dump of such a peer spans several messages.
        let many: Vec<String> = (0..6000_u32).map(|n| format!("10.{}.{}.0/28", n / 256, n % 256)).collect();
        sh(&format!("wg set flannel-wg peer {} allowed-ips {}", private(9).public(), many.join(",")));
        let found = kernel.wireguard("flannel-wg".parse().unwrap()).unwrap().unwrap();
        let peer = found.peers.iter().find(|peer| peer.key == private(9).public()).unwrap();
        assert_eq!(peer.subnets.len(), many.len());
        converge(&mut overlay, &mut kernel);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}
