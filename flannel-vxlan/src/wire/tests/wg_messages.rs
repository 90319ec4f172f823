//! This crate's messages to WireGuard devices, compared with the messages that `wg` of wireguard-tools sends for the same
//! changes. `tests/netns/wireguard/wg_messages.rs` records these in `tests/golden/wg_messages.txt`.
//!
//! They have the same attributes with the same bytes, except that
//! - `wg` names the device (`WGDEVICE_A_IFNAME`), and this crate gives its index (`WGDEVICE_A_IFINDEX`);
//! - the attributes have another order, which the kernel ignores;
//! - `wg setconf` sends no preshared key and no keepalive interval for a peer without, because it replaces all peers. This crate
//!   sends zeros, which remove what the peer had;
//! - `wg setconf` replaces all peers in one message (`WGDEVICE_F_REPLACE_PEERS`), and this crate sends one message for the
//!   device and one for each peer, so that right peers keep their sessions. Wrong peers are deleted one by one.

use flannel_netlink::{Attribute, Batch, attributes, messages};

use crate::model::wireguard::{WireguardPeer, WireguardSpec};
use crate::model::wireguard_key::{PresharedKey, PrivateKey};
use crate::wire::uapi::*;
use crate::wire::wireguard::{delete_peer, put_peer, set_device};

const RECORDED: &str = include_str!("../../../tests/golden/wg_messages.txt");

/// The lines that only `wg` has: the name of the device, and the flag that replaces all peers.
const NAME: &str = "device 2: 666c616e6e656c2d776700";
const REPLACE_PEERS: &str = "device 5: 01000000";
/// The line that only this crate has: the index of the device.
const INDEX: &str = "device 1: 07000000";

/// The attributes in the payloads of messages, as sorted lines: where an attribute is, its kind, and its bytes.
fn describe(payloads: &[Vec<u8>]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut put = |place: &str, attribute: Attribute<'_>| {
        let bytes: String = attribute.payload.iter().map(|byte| format!("{byte:02x}")).collect();
        lines.push(format!("{place} {}: {bytes}", attribute.kind));
    };
    let mut peers = 0;
    for payload in payloads {
        assert_eq!(payload[..4], [WG_CMD_SET_DEVICE, WG_GENL_VERSION, 0, 0]);
        for attribute in attributes(&payload[4..]).map(Result::unwrap) {
            if attribute.kind != WGDEVICE_A_PEERS {
                put("device", attribute);
                continue;
            }
            for peer in attribute.nested() {
                for attribute in peer.unwrap().nested().map(Result::unwrap) {
                    if attribute.kind != WGPEER_A_ALLOWEDIPS {
                        put(&format!("peer {peers}"), attribute);
                        continue;
                    }
                    for (subnet, attributes) in attribute.nested().enumerate() {
                        let place = format!("peer {peers} subnet {subnet}");
                        attributes.unwrap().nested().for_each(|attribute| put(&place, attribute.unwrap()));
                    }
                }
                peers += 1;
            }
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

/// The payloads that `wg` sent for each command.
fn recorded() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut all: Vec<(&str, Vec<Vec<u8>>)> = Vec::new();
    for line in RECORDED.lines() {
        if line.starts_with("wg ") {
            all.push((line, Vec::new()));
        } else {
            let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
            all.last_mut().unwrap().1.push((0..line.len()).step_by(2).map(byte).collect());
        }
    }
    all
}

/// The private key of a node in the recording test.
fn private(node: u8) -> PrivateKey {
    let mut bytes = [node; 32];
    bytes[0] = 0;
    PrivateKey::new(bytes)
}

/// This crate's payloads for the same changes, in the same order.
fn ours() -> Vec<Vec<Vec<u8>>> {
    let spec = WireguardSpec::new(private(1));
    let peer = |n: u8, endpoint: Option<&str>, subnets: &[&str]| WireguardPeer {
        key: private(n).public(),
        endpoint: endpoint.map(|endpoint| endpoint.parse().unwrap()),
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        replaces_subnets: true,
        psk: None,
        keepalive: None,
    };
    let with_psk =
        |peer| WireguardPeer { psk: PresharedKey::new([9; 32]), keepalive: 25.try_into().ok(), ..peer };
    let dual = with_psk(peer(2, Some("192.0.2.2:51820"), &["10.244.2.0/24", "fd00:10:244:2::/64"]));
    let v6 = peer(2, Some("[2001:db8::2]:51821"), &["fd00:10:244:2::/64"]);
    let same_endpoint = with_psk(peer(2, None, &["10.244.2.0/24"]));
    let two = [
        peer(2, Some("192.0.2.2:51820"), &["10.244.2.0/24"]),
        peer(3, Some("192.0.2.3:51820"), &["10.244.3.0/24"]),
    ];
    let builds: [&dyn Fn(&mut Batch); 6] = [
        &|batch| set_device(batch, 30, 7, &spec),
        &|batch| put_peer(batch, 30, 7, &dual),
        &|batch| put_peer(batch, 30, 7, &v6),
        &|batch| put_peer(batch, 30, 7, &same_endpoint),
        &|batch| delete_peer(batch, 30, 7, dual.key),
        &|batch| {
            set_device(batch, 30, 7, &spec);
            two.iter().for_each(|peer| put_peer(batch, 30, 7, peer));
        },
    ];
    let payloads = |build: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new();
        build(&mut batch);
        messages(batch.as_bytes()).map(|message| message.unwrap().payload.to_vec()).collect()
    };
    builds.map(payloads).into()
}

#[test]
fn messages_have_the_attributes_and_bytes_that_wg_sends() {
    let (recorded, ours) = (recorded(), ours());
    assert_eq!(recorded.len(), ours.len());
    for ((command, theirs), ours) in recorded.iter().zip(ours) {
        let mut theirs = describe(theirs);
        let mut ours = describe(&ours);
        let named = theirs.iter().any(|line| line == NAME);
        let indexed = ours.iter().any(|line| line == INDEX);
        assert!(named && indexed, "{command}: {theirs:#?} {ours:#?}");
        assert_eq!(theirs.iter().any(|line| line == REPLACE_PEERS), command.contains("setconf"), "{command}");
        theirs.retain(|line| line != NAME && line != REPLACE_PEERS);
        ours.retain(|line| line != INDEX);
        if command.contains("setconf") {
            let is_unset = |line: &String| {
                let unset = [format!(" 2: {}", "00".repeat(32)), " 5: 0000".to_owned()];
                line.starts_with("peer") && unset.iter().any(|unset| line.ends_with(unset))
            };
            assert_eq!(ours.extract_if(.., |line| is_unset(line)).count(), 4);
        }
        assert_eq!(ours, theirs, "{command}");
    }
}
