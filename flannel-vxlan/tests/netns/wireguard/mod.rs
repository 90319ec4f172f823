//! WireGuard devices: real packets between three nodes, and repairs. These tests need kernels that have them.

mod scale;
mod wg_messages;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flannel_vxlan::{
    DeviceSpec, Errno, Family, FamilySpec, FlannelDevice, Kernel, Link, Links, Monitor, Netlink, Overlay,
    Peer, Plan, PresharedKey, PrivateKey, PublicKey, UnderlayMtu, Via, WireguardSpec,
};
use testkit::{KernelOption, Lab, Node, netns, sh, wait_for};

use super::nodes::{self, Capture, eth0, network, pod, subnet, underlay};
use super::{converge, flush, host};

/// The pod families, and the family of the outer addresses if one device carries all of them.
#[derive(Clone, Copy, Debug)]
struct Mode {
    families: &'static [Family],
    shared_over: Option<Family>,
}

const V4: Mode = Mode { families: &[Family::V4], shared_over: None };
const DUAL: Mode = Mode { families: &Family::ALL, shared_over: None };
const DUAL_OVER_V4: Mode = Mode { families: &Family::ALL, shared_over: Some(Family::V4) };
const DUAL_OVER_V6: Mode = Mode { families: &Family::ALL, shared_over: Some(Family::V6) };
const MODES: [Mode; 7] = [
    V4,
    Mode { families: &[Family::V6], shared_over: None },
    DUAL,
    DUAL_OVER_V4,
    DUAL_OVER_V6,
    Mode { families: &[Family::V6], shared_over: Some(Family::V4) },
    Mode { families: &[Family::V4], shared_over: Some(Family::V6) },
];

fn can_run() -> bool {
    KernelOption::WIREGUARD.is_usable()
}

fn private(node: u16) -> PrivateKey {
    let [high, low] = node.to_be_bytes();
    let mut bytes = [high; 32];
    bytes[1..].fill(low);
    PrivateKey::new(bytes)
}

impl Mode {
    fn outer(self, family: Family) -> Family {
        self.shared_over.unwrap_or(family)
    }

    fn port(self, family: Family) -> u16 {
        if self.shared_over.is_none() && family == Family::V6 { 51821 } else { 51820 }
    }

    fn family(self, family: Family, node: u16, uplink: Link) -> FamilySpec {
        let spec = WireguardSpec::new(private(node))
            .port(self.port(family).try_into().unwrap())
            .psk(PresharedKey::new([9; 32]))
            .shared(self.shared_over.is_some());
        let mtu = UnderlayMtu::new(1500).inside_wireguard(family).unwrap();
        let own = subnet(node, family);
        let local = underlay(node, self.outer(family));
        let device = DeviceSpec::new(spec, uplink, local, own.addr(), mtu);
        FamilySpec::new(uplink, own, vec![network(family)]).device(device)
    }

    fn peers(self, node: u16, key: PublicKey) -> impl Iterator<Item = Peer> {
        self.families.iter().map(move |family| {
            let endpoint = SocketAddr::new(underlay(node, self.outer(*family)), self.port(*family));
            Peer { subnet: subnet(node, *family), via: Via::Key { key, endpoint } }
        })
    }

    fn overlay(self, node: u16, uplink: Link) -> Overlay {
        let families = self.families.iter().map(|family| self.family(*family, node, uplink));
        let mut overlay = Overlay::new(families);
        for other in (1..=3).filter(|other| *other != node) {
            self.peers(other, private(other).public()).for_each(|peer| overlay.set_peer(peer).unwrap());
        }
        overlay
    }

    fn lab(self) -> (Lab, Vec<Node>) {
        nodes::lab(self.families, |node, uplink| self.overlay(node, uplink))
    }

    #[track_caller]
    fn assert_all_reach_all(self, nodes: &[Node]) {
        for family in self.families {
            // The largest packet that passes without fragments.
            let size = if *family == Family::V4 { 1392 } else { 1372 };
            nodes::assert_all_reach_all(nodes, *family, size);
        }
    }
}

/// Everything that this crate has written, as `ip` and `wg` show it.
fn state() -> String {
    sh("for device in $(wg show interfaces | xargs -n 1 | sort); do
            ip -d link show $device | sed 's/^[0-9]*: //'
            ip -br addr show dev $device scope global
        done
        wg show all dump | cut -f 1-5,9 | sort | sed -E 's/ *,? */ /g'
        ip route show proto 70; ip -6 route show proto 70")
}

fn index() -> String {
    sh("ip -o link show | grep ': flannel-wg' | cut -d: -f1,2")
}

#[test]
fn three_nodes_reach_each_other_and_the_underlay_carries_only_encrypted_packets() {
    if !can_run() {
        return;
    }
    for mode in MODES {
        let (lab, nodes) = mode.lab();
        let capture = Capture::start(&lab, "");
        mode.assert_all_reach_all(&nodes);

        // A peer that is missing is unreachable; its packets do not leave through the default route.
        for family in mode.families {
            let lose_peer = || {
                let mut kernel = Netlink::open().unwrap();
                let mut overlay = mode.overlay(1, eth0(&mut kernel));
                overlay.remove_peer(subnet(3, *family));
                converge(&mut overlay, &mut kernel);
            };
            nodes[0].namespace().enter(lose_peer).unwrap();
            let ping = format!("ping -n -c 2 -W 1 -I {} {}", pod(1, *family), pod(3, *family));
            nodes[0].namespace().sh(&ping).unwrap_err();
        }
        let shown = capture.end(|text| text.contains("UDP"));
        for family in mode.families {
            let port = mode.port(*family);
            let datagram = format!(
                "{}.{port} > {}.{port}: UDP",
                underlay(1, mode.outer(*family)),
                underlay(2, mode.outer(*family))
            );
            assert!(shown.contains(&datagram), "{mode:?}: no {datagram} in {shown}");
        }
        for clear in ["10.244.", "fd00:10:", "ICMP echo", "ICMP6, echo"] {
            assert!(!shown.contains(clear), "{mode:?}: {clear} in {shown}");
        }
    }
}

#[test]
fn a_restart_under_traffic_writes_nothing_and_loses_nothing() {
    if !can_run() {
        return;
    }
    for mode in [DUAL, DUAL_OVER_V4] {
        let (lab, nodes) = mode.lab();
        mode.assert_all_reach_all(&nodes);
        let counts: Vec<_> = mode
            .families
            .iter()
            .map(|family| {
                let output = lab.folder().join(format!("{family}"));
                let ping = format!(
                    "ping -n -i 0.05 -c 100 -I {} {} > {} 2>&1 &",
                    pod(1, *family),
                    pod(2, *family),
                    output.display()
                );
                nodes[0].namespace().sh(&ping).unwrap();
                output
            })
            .collect();
        let restart = || {
            for _ in 0..5 {
                let mut kernel = Netlink::open().unwrap();
                let mut overlay = mode.overlay(1, eth0(&mut kernel));
                assert_eq!(converge(&mut overlay, &mut kernel), 0);
                // A new start does not know all peers at first.
                let mut few = Overlay::new(
                    mode.families.iter().map(|family| mode.family(*family, 1, eth0(&mut kernel))),
                );
                few.keep_unknown(true);
                assert_eq!(converge(&mut few, &mut kernel), 0);
            }
        };
        nodes[0].namespace().enter(restart).unwrap();
        for output in counts {
            let text = || std::fs::read_to_string(&output).unwrap_or_default();
            let end = wait_for(Duration::from_secs(60), || {
                Some(text()).filter(|text| text.contains("transmitted"))
            });
            let end = end.unwrap_or_else(text);
            assert!(end.contains("100 packets transmitted, 100 received"), "{end}");
        }
    }
}

#[test]
fn every_damage_is_repaired_in_place() {
    if !can_run() {
        return;
    }
    for mode in [DUAL, DUAL_OVER_V4] {
        let (_lab, nodes) = mode.lab();
        mode.assert_all_reach_all(&nodes);
        let repair = || {
            let mut kernel = Netlink::open().unwrap();
            let mut monitor = Monitor::open(&kernel).unwrap();
            let mut overlay = mode.overlay(1, eth0(&mut kernel));
            assert_eq!(converge(&mut overlay, &mut kernel), 0, "a restart");
            let made = state();
            let key = |node| private(node).public().to_string();
            for (damage, is_reported, in_place) in [
                ("ip link del flannel-wg".to_owned(), true, false),
                ("ip addr flush dev flannel-wg".to_owned(), true, true),
                ("ip link set flannel-wg down".to_owned(), true, true),
                ("ip link set flannel-wg mtu 1300".to_owned(), true, true),
                ("ip link set flannel-wg down; ip link set flannel-wg name other".to_owned(), true, true),
                ("ip route del 10.244.0.0/16".to_owned(), true, true),
                ("ip -6 route del fd00:10:244::/48".to_owned(), true, true),
                // The kernel does not report these: a periodic reading finds them.
                (format!("wg set flannel-wg peer {} remove", key(2)), false, true),
                (format!("wg set flannel-wg peer {} allowed-ips 10.244.9.0/24", key(2)), false, true),
                (
                    format!(
                        "wg set flannel-wg peer {} persistent-keepalive 5 preshared-key /dev/null",
                        key(3)
                    ),
                    false,
                    true,
                ),
                (format!("wg set flannel-wg peer {} allowed-ips 0.0.0.0/0", key(9)), false, true),
                // A subnet that moves to another peer.
                (format!("wg set flannel-wg peer {} allowed-ips 10.244.2.0/24", key(3)), false, true),
                ("wg set flannel-wg listen-port 7777 fwmark 5".to_owned(), false, true),
                (
                    "key=$(mktemp); wg genkey > $key; wg set flannel-wg private-key $key; rm $key".to_owned(),
                    false,
                    true,
                ),
            ] {
                let before = index();
                sh(&damage);
                let start = Instant::now();
                assert_eq!(overlay.notice(&monitor.take().unwrap()).overlay, is_reported, "`{damage}`");
                converge(&mut overlay, &mut kernel);
                let took = start.elapsed();
                assert_eq!(state(), made, "after `{damage}`");
                assert_eq!(index() == before, in_place, "`{damage}`");
                assert_eq!(converge(&mut overlay, &mut kernel), 0, "after `{damage}`");
                assert!(
                    !overlay.notice(&monitor.take().unwrap()).overlay,
                    "`{damage}`: our own change is noticed"
                );
                println!(
                    "figure: {took:.1?} to repair `{}`",
                    damage.split(" peer ").next().unwrap_or_default()
                );
            }
        };
        nodes[0].namespace().enter(repair).unwrap();
        mode.assert_all_reach_all(&nodes);
    }
}

#[test]
fn the_kernel_follows_a_node_that_moves_and_that_is_not_repaired() {
    if !can_run() {
        return;
    }
    let (_lab, nodes) = V4.lab();
    V4.assert_all_reach_all(&nodes);
    // Node 2 sends from another address.
    let ping = format!("ping -n -c 1 -W 20 -I {} {}", pod(2, Family::V4), pod(1, Family::V4));
    nodes[1]
        .namespace()
        .sh("ip -4 addr flush dev eth0; ip addr add 192.168.77.52/24 dev eth0
        ip route replace default via 192.168.77.254")
        .unwrap();
    nodes[1].namespace().sh(&ping).unwrap();
    let check = || {
        let mut kernel = Netlink::open().unwrap();
        let mut overlay = V4.overlay(1, eth0(&mut kernel));
        let found = kernel.wireguard("flannel-wg".parse().unwrap()).unwrap().unwrap();
        let peer = found.peers.iter().find(|peer| peer.key == private(2).public()).unwrap();
        assert_eq!(peer.endpoint, "192.168.77.52:51820".parse().ok());
        assert!(
            peer.handshake_age.unwrap() < Duration::from_secs(600) && peer.rx_bytes > 0 && peer.tx_bytes > 0
        );
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
        // The other subnet of the peer says where it is now.
        for peer in V4.peers(2, private(2).public()) {
            let Via::Key { key, .. } = peer.via else { continue };
            let endpoint = "192.168.77.53:51820".parse().unwrap();
            overlay.set_peer(Peer { via: Via::Key { key, endpoint }, ..peer }).unwrap();
        }
        assert_eq!(flush(&mut overlay, &mut kernel), 1);
        assert!(sh("wg show flannel-wg endpoints").contains("192.168.77.53:51820"));
    };
    nodes[0].namespace().enter(check).unwrap();
}

/// `wg` and `ip` as other implementations of the same messages.
#[test]
fn a_printed_plan_is_a_script_with_the_same_effect() {
    if !can_run() {
        return;
    }
    for mode in [DUAL, DUAL_OVER_V4] {
        let made = |write: &(dyn Fn(&mut Overlay, &mut Netlink) + Sync)| {
            testkit::in_netns(|| {
                let (mut kernel, e0) = host();
                let mut overlay = mode.overlay(1, e0);
                write(&mut overlay, &mut kernel);
                assert_eq!(converge(&mut overlay, &mut kernel), 0);
                mode.peers(4, private(4).public()).for_each(|peer| overlay.set_peer(peer).unwrap());
                for family in mode.families {
                    overlay.remove_peer(subnet(3, *family));
                }
                overlay.remove_peer(subnet(2, Family::V6));
                overlay.invalidate();
                write(&mut overlay, &mut kernel);
                assert_eq!(converge(&mut overlay, &mut kernel), 0);
                // Both implementations read the same.
                let found = kernel.wireguard("flannel-wg".parse().unwrap()).unwrap().unwrap();
                assert_eq!(found.private_key, Some(private(1)));
                let keys: Vec<String> = found.peers.iter().map(|peer| peer.key.to_string()).collect();
                assert_eq!(keys.join("\n"), sh("wg show flannel-wg peers").trim());
                assert_eq!(
                    found.private_key.unwrap().public().to_string(),
                    sh("wg show flannel-wg public-key").trim()
                );
                state()
            })
            .unwrap()
        };
        let ours = made(&|overlay, kernel| {
            converge(overlay, kernel);
        });
        let script = made(&|overlay, kernel| {
            let plan = overlay.diff(&kernel.observe(&overlay.links()).unwrap()).to_string();
            let shared = mode.shared_over.is_some();
            let folder = std::env::temp_dir().join(format!("flannel-wg-{}-{shared}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let (private_file, psk_file) = (folder.join("private"), folder.join("psk"));
            std::fs::write(&private_file, private(1).to_base64()).unwrap();
            // The same 32 bytes, which need no change to be a private key.
            std::fs::write(&psk_file, "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=").unwrap();
            let plan =
                plan.replace("private-key /dev/stdin", &format!("private-key {}", private_file.display()));
            let plan =
                plan.replace("preshared-key /dev/stdin", &format!("preshared-key {}", psk_file.display()));
            sh(&plan);
            std::fs::remove_dir_all(&folder).unwrap();
        });
        assert_eq!(ours, script);
    }
}

#[test]
fn a_switch_between_modes_leaves_nothing_of_the_old_devices() {
    if !can_run() {
        return;
    }
    netns(|| {
        let (mut kernel, e0) = host();
        converge(&mut DUAL.overlay(1, e0), &mut kernel);
        let old = Family::ALL.map(|family| Links::of(FlannelDevice::Wireguard.name(family), family));
        let mut now = DUAL_OVER_V4.overlay(1, e0);
        converge(&mut now, &mut kernel);
        let left = Plan::leftovers(&old, &[], &now, &kernel.observe(&old).unwrap());
        assert!(kernel.apply(&left).unwrap().refused.is_empty(), "{left}");
        assert_eq!(sh("wg show interfaces").trim(), "flannel-wg");
        assert_eq!(converge(&mut now, &mut kernel), 0);
        let removal = Plan::removal(&now.links(), &kernel.observe(&now.links()).unwrap());
        assert!(kernel.apply(&removal).unwrap().refused.is_empty(), "{removal}");
        assert_eq!(sh("wg show interfaces; ip route show proto 70; ip -6 route show proto 70").trim(), "");
    });
}

#[test]
fn a_port_in_use_is_reported_with_the_remedy_and_repaired_later() {
    if !can_run() {
        return;
    }
    netns(|| {
        let (mut kernel, e0) = host();
        sh("ip link add other type wireguard; wg set other listen-port 51820; ip link set other up");
        let mut overlay = V4.overlay(1, e0);
        let report = overlay.converge(&mut kernel).unwrap();
        let refused = report.refused.iter().find(|step| step.errno == Errno::EADDRINUSE).unwrap();
        assert!(refused.to_string().contains("UDP port 51820 is used by another program"), "{refused}");
        sh("ip link del other");
        converge(&mut overlay, &mut kernel);
        assert_eq!(converge(&mut overlay, &mut kernel), 0);
    });
}

/// Runs where the tests above cannot.
#[test]
fn a_kernel_without_the_module_is_reported_with_the_remedy() {
    netns(|| {
        let (mut kernel, e0) = host();
        assert_eq!(kernel.wireguard("flannel-wg".parse().unwrap()).unwrap(), None);
        assert_eq!(kernel.wireguard("e0".parse().unwrap()).unwrap(), None);
        if !KernelOption::WIREGUARD.is_present() {
            let report = DUAL_OVER_V4.overlay(1, e0).converge(&mut kernel).unwrap();
            assert_eq!(report.refused.len(), 1, "{report:#?}");
            let text = report.refused[0].to_string();
            assert!(
                text.contains("this kernel lacks wireguard (CONFIG_WIREGUARD): load the module"),
                "{text}"
            );
            assert!(text.contains("`modprobe wireguard`"), "{text}");
        }
    });
}
