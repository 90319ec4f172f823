//! A WireGuard device and its peers: options, as desired and as observed.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::wireguard_key::{PresharedKey, PrivateKey, PublicKey};

/// The options of a WireGuard device (since Linux 5.6, module `wireguard`). Packets to a peer are encrypted and sent in UDP
/// datagrams to its endpoint ([`Via::Key`](crate::Via::Key)).
///
/// A family of the overlay with such a device needs [`FamilySpec::networks`](crate::FamilySpec::networks): one route per
/// network leads to the device, and there is no route per peer. Pod traffic therefore never leaves unencrypted while a peer
/// is missing; the kernel rejects it.
///
/// # Kernel
/// `ip link add flannel-wg type wireguard; wg set flannel-wg private-key FILE listen-port PORT`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct WireguardSpec {
    /// The private key of this node.
    pub private_key: PrivateKey,
    /// The public key that belongs to it, which the node publishes.
    pub public_key: PublicKey,
    /// UDP port at which the device receives, and from which it sends. Default: [`WireguardSpec::PORT`].
    pub port: NonZeroU16,
    /// Key that all nodes share, in addition to their own keys. Default: none.
    pub psk: Option<PresharedKey>,
    /// Interval in seconds at which the kernel sends an empty packet to each peer, so that a NAT keeps its state. Default:
    /// none.
    pub keepalive: Option<NonZeroU16>,
    /// Whether one device, `flannel-wg`, carries both families (upstream's modes `auto`, `ipv4` and `ipv6`). Default: no,
    /// IPv6 has a device `flannel-wg-v6` (mode `separate`).
    ///
    /// If it does, give both families a [`DeviceSpec`](crate::DeviceSpec) with equal options, uplink and MTU, which differ
    /// only in [`DeviceSpec::address`](crate::DeviceSpec::address), and give both subnets of a peer the same
    /// [`Via::Key`](crate::Via::Key): the kernel has one peer with two subnets.
    pub is_shared: bool,
}

impl WireguardSpec {
    /// The default port, as in upstream flannel. Its default for `flannel-wg-v6` is 51821.
    pub const PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(51_819);

    /// The defaults of upstream flannel.
    #[must_use]
    pub fn new(private_key: PrivateKey) -> Self {
        let public_key = private_key.public();
        Self { private_key, public_key, port: Self::PORT, psk: None, keepalive: None, is_shared: false }
    }

    /// Sets the UDP port. Default: [`WireguardSpec::PORT`].
    #[must_use]
    pub fn port(mut self, port: NonZeroU16) -> Self {
        self.port = port;
        self
    }

    /// Sets the preshared key of all peers. Default: none.
    #[must_use]
    pub fn psk(mut self, psk: Option<PresharedKey>) -> Self {
        self.psk = psk;
        self
    }

    /// Sets the interval of keepalive packets in seconds. Default: none.
    #[must_use]
    pub fn keepalive(mut self, seconds: Option<NonZeroU16>) -> Self {
        self.keepalive = seconds;
        self
    }

    /// Sets whether one device carries both families. Default: no.
    #[must_use]
    pub fn shared(mut self, is_shared: bool) -> Self {
        self.is_shared = is_shared;
        self
    }
}

/// A change of one peer of a WireGuard device, which creates the peer if it does not exist.
///
/// # Kernel
/// `wg set flannel-wg peer KEY endpoint ENDPOINT allowed-ips SUBNET,..`
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct WireguardPeer {
    /// Its public key.
    pub key: PublicKey,
    /// Where packets to it are sent. `None`: the peer keeps its endpoint.
    pub endpoint: Option<SocketAddr>,
    /// Its allowed IPs: the subnets of its pods. The kernel takes them from any other peer of the device.
    pub subnets: Vec<IpNet>,
    /// Whether the peer loses its other subnets. Meanwhile it has none for some microseconds.
    pub replaces_subnets: bool,
    /// See [`WireguardSpec::psk`]. `None` removes it.
    pub psk: Option<PresharedKey>,
    /// See [`WireguardSpec::keepalive`]. `None` turns it off.
    pub keepalive: Option<NonZeroU16>,
}

/// A WireGuard device in the kernel, with its peers.
///
/// # Kernel
/// `wg show flannel-wg dump`
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ObservedWireguard {
    /// Its private key; `None` without one.
    pub private_key: Option<PrivateKey>,
    /// UDP port; 0 if the kernel is to choose one.
    pub port: u16,
    /// Mark of outer packets; 0 for none.
    pub fwmark: u32,
    /// Its peers, in the kernel's order.
    pub peers: Vec<ObservedWireguardPeer>,
}

/// A peer of a WireGuard device in the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObservedWireguardPeer {
    /// Its public key.
    pub key: PublicKey,
    /// Where packets to it are sent: as set, or the source of its last authentic packet. `None`: nowhere.
    pub endpoint: Option<SocketAddr>,
    /// Its subnets (allowed IPs): destinations of packets to it, and sources that are accepted from it.
    pub subnets: Vec<IpNet>,
    /// Its preshared key.
    pub psk: Option<PresharedKey>,
    /// Interval of keepalive packets in seconds.
    pub keepalive: Option<NonZeroU16>,
    /// Time since the last handshake, at the time of reading; `None` if there was none. While packets flow, the kernel
    /// makes a handshake every 2 minutes.
    pub handshake_age: Option<Duration>,
    /// Received bytes, with the overhead of WireGuard.
    pub rx_bytes: u64,
    /// Sent bytes, with the overhead of WireGuard and with attempts of handshakes.
    pub tx_bytes: u64,
}

/// After this time without a handshake the kernel neither sends nor accepts packets of the session (`REJECT_AFTER_TIME`,
/// drivers/net/wireguard/messages.h).
const SESSION_LIFETIME: Duration = Duration::from_secs(180);

impl ObservedWireguardPeer {
    /// A peer without anything.
    pub(crate) fn new(key: PublicKey) -> Self {
        Self {
            key,
            endpoint: None,
            subnets: Vec::new(),
            psk: None,
            keepalive: None,
            handshake_age: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    /// Whether `published`, the endpoint that the peer published, is to be written to the kernel. `earlier_tx_bytes`:
    /// [`ObservedWireguardPeer::tx_bytes`] at an earlier reading, if there was one.
    ///
    /// The kernel follows a peer to the source of its authentic packets, so another endpoint is right while the session
    /// lives, and also while nothing is sent: behind a NAT the published endpoint may never work. It is wrong if there was
    /// no handshake for 180 seconds although this node sends, or if there never was a handshake.
    #[must_use]
    pub fn needs_endpoint(&self, published: SocketAddr, earlier_tx_bytes: Option<u64>) -> bool {
        let is_sending = || earlier_tx_bytes.is_some_and(|earlier| self.tx_bytes > earlier);
        self.endpoint != Some(published)
            && self.handshake_age.is_none_or(|age| age >= SESSION_LIFETIME && is_sending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = "192.0.2.1:51820";

    fn peer(endpoint: Option<&str>, handshake_age: Option<u64>, tx_bytes: u64) -> ObservedWireguardPeer {
        ObservedWireguardPeer {
            endpoint: endpoint.map(|endpoint| endpoint.parse().unwrap()),
            handshake_age: handshake_age.map(Duration::from_secs),
            tx_bytes,
            ..ObservedWireguardPeer::new(PublicKey::new([7; 32]))
        }
    }

    #[test]
    fn an_endpoint_is_restored_only_after_180_seconds_of_vain_attempts() {
        const ROAMED: Option<&str> = Some("198.51.100.1:4500");
        for (endpoint, handshake_age, earlier, expected, case) in [
            (Some(PUBLISHED), None, None, false, "right"),
            (Some(PUBLISHED), Some(1000), Some(0), false, "right but unreachable"),
            (None, None, None, true, "no endpoint"),
            (ROAMED, None, None, true, "never a handshake"),
            (ROAMED, Some(0), Some(0), false, "a session that lives"),
            (ROAMED, Some(179), Some(0), false, "a session that still lives"),
            (ROAMED, Some(180), Some(0), true, "a dead session, and traffic waits"),
            (ROAMED, Some(180), Some(100), false, "a dead session, nothing is sent"),
            (ROAMED, Some(180), Some(200), false, "the peer was removed and added meanwhile"),
            (ROAMED, Some(180), None, false, "the first reading"),
        ] {
            let found = peer(endpoint, handshake_age, 100);
            assert_eq!(found.needs_endpoint(PUBLISHED.parse().unwrap(), earlier), expected, "{case}");
        }
    }
}
