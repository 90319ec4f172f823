//! Another node, as far as packets are concerned, and why one may be turned down.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Family, MacAddr, ObservedRoute};

/// A node whose pods can be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// The addresses of its pods. Host bits are ignored.
    pub subnet: IpNet,
    /// The way to them.
    pub via: Via,
}

impl Peer {
    /// Whether its route leads through a nexthop object, where the kernel has these.
    pub(crate) fn takes_nexthop(&self) -> bool {
        self.subnet.addr().is_ipv4() && matches!(self.via, Via::Tunnel { .. })
    }
}

/// How packets for a peer's pods leave this node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// Wrapped in VXLAN and sent to the peer's tunnel endpoint.
    Tunnel {
        /// Address of the peer's VXLAN device.
        mac: MacAddr,
        /// Where it receives: its address on the physical network, of the subnet's family.
        underlay: IpAddr,
    },
    /// Routed as is, the peer being on the same Ethernet segment (`host-gw`, `DirectRouting`).
    Direct {
        /// Its address on the physical network, of the subnet's family.
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
}

/// Why a peer is not programmed. It is kept in mind, and comes in by itself as soon as the reason is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerConflict {
    /// This node has no overlay of that family, or no VXLAN device in it.
    #[error("this node has no {0} overlay that could carry it")]
    NoSuchOverlay(Family),
    /// Subnet and underlay address are not of one family.
    #[error("its underlay address {0} is not of the subnet's family")]
    FamilyMismatch(IpAddr),
    /// The subnet overlaps this node's own.
    #[error("its subnet overlaps {0}, the one of this node")]
    OwnSubnet(IpNet),
    /// The subnet holds the peer's own underlay address: the tunnel would have to go through itself.
    #[error("its subnet holds its own underlay address {0}")]
    HoldsItsUnderlay(IpAddr),
    /// The subnet lies outside [`FamilySpec::networks`](crate::FamilySpec::networks): not addresses of pods.
    #[error("its subnet is outside the pod network")]
    OutsideNetworks,
    /// The underlay address is not that of one station: loopback, multicast, broadcast or none at all.
    #[error("its underlay address {0} is not the address of one host")]
    NotHostAddress(IpAddr),
    /// The MAC address is that of this node's own VXLAN device.
    #[error("its MAC address is that of this node's own device")]
    OwnMac,
    /// The underlay address is one of this node's.
    #[error("its underlay address {0} belongs to this node")]
    OwnUnderlay(IpAddr),
    /// A route to the subnet would take traffic from a network that this host is attached to.
    #[error("its subnet covers {0}, a network this host is attached to")]
    CoversHostNetwork(IpNet),
    /// A route to the subnet would take an address which this host uses itself.
    #[error("its subnet holds {0}, an address of this host")]
    HoldsHostAddress(IpAddr),
    /// The subnet holds the address of a router that routes of this host lead to.
    #[error("its subnet holds {0}, a gateway of this host")]
    HoldsGateway(IpAddr),
    /// This host has a route to exactly this subnet that somebody else made, of whatever metric.
    #[error("this host has a route of its own to it: {0}")]
    HostRoute(ObservedRoute),
    /// A larger subnet of another peer begins with the same address, which is that of both tunnel endpoints.
    #[error("its subnet begins where {0} does, that of another peer")]
    EndpointTaken(IpNet),
    /// The underlay address is one of another peer's pods: see [`Overlay`](crate::Overlay).
    #[error("its underlay address is in {0}, the subnet of another peer")]
    UnderlayInside(IpNet),
    /// The subnet holds the underlay address of another peer: that one's packets would be wrapped once more.
    #[error("its subnet holds {address}, the underlay address of the peer {peer}")]
    HoldsUnderlayOf {
        /// The other peer.
        peer: IpNet,
        /// Its address.
        address: IpAddr,
    },
    /// Another peer has the same MAC address on another underlay address; the one with the lowest subnet is programmed.
    #[error("its MAC address is claimed by the peer {0} too, on another underlay address")]
    MacTaken(IpNet),
}
