//! Another node, and how its pods are reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::model::device::{DeviceKind, DeviceSpec};
use crate::model::family::Family;
use crate::model::mac::MacAddr;
use crate::model::wireguard_key::PublicKey;

/// Another node of the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// The subnet of its pods. Host bits are ignored.
    pub subnet: IpNet,
    /// How packets reach it.
    pub via: Via,
}

impl Peer {
    /// The gateway of its nexthop object on kernels that have them; `None` if its route uses none.
    pub(crate) fn nexthop_gateway(&self) -> Option<Ipv4Addr> {
        let gateway = match self.via {
            Via::Tunnel { .. } => self.subnet.network(),
            Via::Outer { underlay } => underlay,
            Via::Key { .. } | Via::Direct { .. } => return None,
        };
        match (gateway, self.subnet) {
            (IpAddr::V4(gateway), IpNet::V4(_)) => Some(gateway),
            _ => None,
        }
    }
}

/// What identifies a peer's end of a tunnel. Peers of one device with the same identity have one end.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum EndpointId {
    /// The MAC address of its VXLAN device of this family.
    Mac(Family, MacAddr),
    /// Its public key. Devices of both families may have the same.
    Key(PublicKey),
}

/// How packets for a peer's pods leave this node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// Encapsulated in VXLAN and sent to the peer's tunnel endpoint (VTEP).
    Tunnel {
        /// MAC address of the peer's VXLAN device.
        mac: MacAddr,
        /// The peer's address on the physical network, of the same family as the subnet.
        underlay: IpAddr,
    },
    /// Encapsulated in an outer IP header ([`DeviceKind::Ipip`](crate::DeviceKind::Ipip)).
    Outer {
        /// The destination of the outer packets: the peer's address on the physical network, of the same family as the
        /// subnet.
        underlay: IpAddr,
    },
    /// Encrypted and sent in UDP datagrams ([`DeviceKind::Wireguard`](crate::DeviceKind::Wireguard)). If one device carries
    /// both families, all subnets of a peer have the same key and endpoint, and the family of the endpoint may differ from
    /// that of the subnet.
    Key {
        /// The peer's public key.
        key: PublicKey,
        /// The endpoint that the peer published: its address on the physical network, and the UDP port of its device. The
        /// kernel follows a peer that sends from elsewhere
        /// ([`ObservedWireguardPeer::needs_endpoint`](crate::ObservedWireguardPeer::needs_endpoint)).
        endpoint: SocketAddr,
    },
    /// Routed without encapsulation, because the peer is on the same Ethernet segment (`host-gw`, `DirectRouting`).
    Direct {
        /// The peer's address on the physical network, of the same family as the subnet.
        gateway: IpAddr,
    },
}

impl Via {
    /// The peer's address on the physical network.
    #[must_use]
    pub fn underlay(&self) -> IpAddr {
        match self {
            Self::Tunnel { underlay, .. } | Self::Outer { underlay } => *underlay,
            Self::Key { endpoint, .. } => endpoint.ip(),
            Self::Direct { gateway } => *gateway,
        }
    }

    /// MAC address of the peer's tunnel endpoint; `None` without a tunnel.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        match self {
            Self::Tunnel { mac, .. } => Some(*mac),
            Self::Outer { .. } | Self::Key { .. } | Self::Direct { .. } => None,
        }
    }

    /// What identifies the peer's end of the tunnel; `None` if only its address does.
    pub(crate) fn endpoint_id(&self, subnet: IpNet) -> Option<EndpointId> {
        match self {
            Self::Tunnel { mac, .. } => Some(EndpointId::Mac(Family::of_net(subnet), *mac)),
            Self::Key { key, .. } => Some(EndpointId::Key(*key)),
            Self::Outer { .. } | Self::Direct { .. } => None,
        }
    }

    /// Whether packets for both end at the same place.
    pub(crate) fn leads_to_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key { endpoint, .. }, Self::Key { endpoint: other, .. }) => endpoint == other,
            _ => self.underlay() == other.underlay(),
        }
    }

    /// Whether a peer can be reached this way with this device, or without one.
    pub(crate) fn fits(&self, device: Option<&DeviceSpec>) -> bool {
        matches!(
            (self, device.map(|device| &device.kind)),
            (Self::Direct { .. }, _)
                | (Self::Tunnel { .. }, Some(DeviceKind::Vxlan(_)))
                | (Self::Outer { .. }, Some(DeviceKind::Ipip(_)))
                | (Self::Key { .. }, Some(DeviceKind::Wireguard(_)))
        )
    }
}
