//! Another node, and how its pods are reached.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::model::device::{DeviceKind, DeviceSpec};
use crate::model::mac::MacAddr;

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
            Via::Direct { .. } => return None,
        };
        match (gateway, self.subnet) {
            (IpAddr::V4(gateway), IpNet::V4(_)) => Some(gateway),
            _ => None,
        }
    }
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
            Self::Direct { gateway } => *gateway,
        }
    }

    /// MAC address of the peer's tunnel endpoint; `None` without a tunnel.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        match self {
            Self::Tunnel { mac, .. } => Some(*mac),
            Self::Outer { .. } | Self::Direct { .. } => None,
        }
    }

    /// Whether a peer can be reached this way with this device, or without one.
    pub(crate) fn fits(&self, device: Option<&DeviceSpec>) -> bool {
        matches!(
            (self, device.map(|device| &device.kind)),
            (Self::Direct { .. }, _)
                | (Self::Tunnel { .. }, Some(DeviceKind::Vxlan(_)))
                | (Self::Outer { .. }, Some(DeviceKind::Ipip(_)))
        )
    }
}
