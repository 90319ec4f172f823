//! WireGuard devices and their peers, over the generic netlink family `wireguard` (since Linux 5.6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use flannel_netlink::{Attribute, Attributes, Batch, Flags, Malformed, Message};
use ipnet::IpNet;

use crate::model::family::Family;
use crate::model::wireguard::{ObservedWireguard, ObservedWireguardPeer, WireguardPeer, WireguardSpec};
use crate::model::wireguard_key::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};
use crate::wire::encode::put_address;
use crate::wire::uapi::*;

/// The generic netlink family (`WG_GENL_NAME`).
pub(crate) const FAMILY: &str = "wireguard";

/// Requests a device and its peers.
pub(crate) fn get_device(question: &mut Batch, family: u16, index: u32) {
    question.message(family, Flags::DUMP, &[WG_CMD_GET_DEVICE, WG_GENL_VERSION, 0, 0], |a| {
        a.u32(WGDEVICE_A_IFINDEX, index);
    });
}

/// Sets the options of a device. Its peers stay.
pub(crate) fn set_device(batch: &mut Batch, family: u16, index: u32, spec: &WireguardSpec) {
    set(batch, family, index, |a| {
        a.bytes(WGDEVICE_A_PRIVATE_KEY, &spec.private_key.bytes());
        a.u16(WGDEVICE_A_LISTEN_PORT, spec.port.get());
        a.u32(WGDEVICE_A_FWMARK, 0);
    });
}

/// Adds or changes a peer.
pub(crate) fn put_peer(batch: &mut Batch, family: u16, index: u32, peer: &WireguardPeer) {
    set_peer(batch, family, index, peer.key, |a| {
        if peer.replaces_subnets {
            a.u32(WGPEER_A_FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS);
        }
        // All zeros remove the key, 0 turns keepalive packets off.
        a.bytes(WGPEER_A_PRESHARED_KEY, &peer.psk.map_or([0; KEY_LEN], |psk| psk.bytes()));
        if let Some(endpoint) = peer.endpoint {
            a.bytes(WGPEER_A_ENDPOINT, &sockaddr(endpoint));
        }
        a.u16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, peer.keepalive.map_or(0, NonZeroU16::get));
        a.nested(WGPEER_A_ALLOWEDIPS, |a| {
            for subnet in &peer.subnets {
                a.nested(0, |a| {
                    a.u16(WGALLOWEDIP_A_FAMILY, address_family(subnet.network()));
                    put_address(a, WGALLOWEDIP_A_IPADDR, subnet.network());
                    a.u8(WGALLOWEDIP_A_CIDR_MASK, subnet.prefix_len());
                });
            }
        });
    });
}

/// Deletes a peer. A peer that does not exist is no error.
pub(crate) fn delete_peer(batch: &mut Batch, family: u16, index: u32, key: PublicKey) {
    set_peer(batch, family, index, key, |a| a.u32(WGPEER_A_FLAGS, WGPEER_F_REMOVE_ME));
}

fn set(batch: &mut Batch, family: u16, index: u32, build: impl FnOnce(&mut Attributes<'_>)) {
    batch.message(family, Flags::NONE, &[WG_CMD_SET_DEVICE, WG_GENL_VERSION, 0, 0], |a| {
        a.u32(WGDEVICE_A_IFINDEX, index);
        build(a);
    });
}

fn set_peer(
    batch: &mut Batch,
    family: u16,
    index: u32,
    key: PublicKey,
    build: impl FnOnce(&mut Attributes<'_>),
) {
    set(batch, family, index, |a| {
        a.nested(WGDEVICE_A_PEERS, |a| {
            a.nested(0, |a| {
                a.bytes(WGPEER_A_PUBLIC_KEY, &key.bytes());
                build(a);
            });
        });
    });
}

fn address_family(address: IpAddr) -> u16 {
    crate::wire::address_family(Family::of(address)).into()
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn sockaddr(endpoint: SocketAddr) -> Vec<u8> {
    let mut bytes = address_family(endpoint.ip()).to_ne_bytes().to_vec();
    bytes.extend(endpoint.port().to_be_bytes());
    match endpoint.ip() {
        IpAddr::V4(address) => {
            bytes.extend(address.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(address) => {
            bytes.extend([0; 4]); // flow label
            bytes.extend(address.octets());
            bytes.extend([0; 4]); // scope
        }
    }
    bytes
}

/// Adds one message about a device to what earlier ones said. The kernel continues a peer with many subnets in the next
/// message, and a device with many peers.
pub(crate) fn device(
    device: &mut ObservedWireguard,
    message: &Message<'_>,
    now: SystemTime,
) -> Result<(), Malformed> {
    let (_, attributes) = message.split::<4>()?;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            WGDEVICE_A_PRIVATE_KEY => device.private_key = Some(PrivateKey::new(attribute.array()?)),
            WGDEVICE_A_LISTEN_PORT => device.port = attribute.u16()?,
            WGDEVICE_A_FWMARK => device.fwmark = attribute.u32()?,
            WGDEVICE_A_PEERS => {
                for found in attribute.nested() {
                    let mut found = peer(&found?, now)?;
                    match device.peers.last_mut().filter(|last| last.key == found.key) {
                        Some(last) => last.subnets.append(&mut found.subnets),
                        None => device.peers.push(found),
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn peer(attribute: &Attribute<'_>, now: SystemTime) -> Result<ObservedWireguardPeer, Malformed> {
    let (mut key, mut endpoint, mut subnets, mut psk) = (None, None, Vec::new(), None);
    let (mut keepalive, mut handshake_age, mut rx_bytes, mut tx_bytes) = (None, None, 0, 0);
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            WGPEER_A_PUBLIC_KEY => key = Some(PublicKey::new(attribute.array()?)),
            WGPEER_A_PRESHARED_KEY => psk = PresharedKey::new(attribute.array()?),
            WGPEER_A_ENDPOINT => endpoint = socket_address(attribute.payload),
            WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL => keepalive = NonZeroU16::new(attribute.u16()?),
            WGPEER_A_LAST_HANDSHAKE_TIME => handshake_age = age(attribute.payload, now),
            WGPEER_A_RX_BYTES => rx_bytes = attribute.u64()?,
            WGPEER_A_TX_BYTES => tx_bytes = attribute.u64()?,
            WGPEER_A_ALLOWEDIPS => {
                for found in attribute.nested() {
                    subnets.push(subnet(&found?)?);
                }
            }
            _ => {}
        }
    }
    let key = key.ok_or(Malformed::Value { what: "key of a WireGuard peer" })?;
    Ok(ObservedWireguardPeer { key, endpoint, subnets, psk, keepalive, handshake_age, rx_bytes, tx_bytes })
}

fn subnet(attribute: &Attribute<'_>) -> Result<IpNet, Malformed> {
    let (mut address, mut length) = (None, 0);
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            WGALLOWEDIP_A_IPADDR => address = Some(crate::wire::decode::address(&attribute)?),
            WGALLOWEDIP_A_CIDR_MASK => length = attribute.u8()?,
            _ => {}
        }
    }
    let subnet = address.and_then(|address| IpNet::new(address, length).ok());
    subnet.ok_or(Malformed::Value { what: "subnet of a WireGuard peer" })
}

/// Reads `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let ([f0, f1, p0, p1], rest) = bytes.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([*p0, *p1]);
    let address: IpAddr = match u8::try_from(u16::from_ne_bytes([*f0, *f1])).ok()? {
        AF_INET => Ipv4Addr::from(*rest.first_chunk::<4>()?).into(),
        AF_INET6 => Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// How long ago a `struct __kernel_timespec` was; `None` for 0, which means never.
fn age(bytes: &[u8], now: SystemTime) -> Option<Duration> {
    let (seconds, rest) = bytes.split_first_chunk::<8>()?;
    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).ok()?;
    let nanos = u64::try_from(i64::from_ne_bytes(*rest.first_chunk::<8>()?)).ok()?;
    let since_epoch = Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos))?;
    let at = SystemTime::UNIX_EPOCH.checked_add(since_epoch)?;
    (!since_epoch.is_zero()).then(|| now.duration_since(at).unwrap_or_default())
}
