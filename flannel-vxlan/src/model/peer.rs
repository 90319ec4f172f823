//! Another node, and how its pods are reached.

use std::net::IpAddr;

use ipnet::IpNet;

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
    /// Whether its route uses a nexthop object, on kernels that have them.
    pub(crate) fn uses_nexthop(&self) -> bool {
        self.subnet.addr().is_ipv4() && matches!(self.via, Via::Tunnel { .. })
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
            Self::Tunnel { underlay, .. } => *underlay,
            Self::Direct { gateway } => *gateway,
        }
    }

    /// MAC address of the peer's tunnel endpoint; `None` without a tunnel.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        match self {
            Self::Tunnel { mac, .. } => Some(*mac),
            Self::Direct { .. } => None,
        }
    }
}
