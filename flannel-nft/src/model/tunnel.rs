//! Packets inside tunnels: `vxlan ip saddr`. Kernel ≥ 6.2.

use crate::model::datatype::Datatype;
use crate::model::field::{Field, Kind};
use crate::model::header::{Header, Payload};
use crate::uapi::*;

/// A tunnel, whose packets carry packets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Tunnel {
    /// Geneve, RFC 8926. The rule must match UDP before.
    Geneve,
    /// GRE with IP packets, RFC 2784.
    Gre,
    /// GRE with Ethernet frames.
    Gretap,
    /// VXLAN, RFC 7348. The rule must match UDP before.
    Vxlan,
}

/// What is read inside of a tunnel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Inner {
    Meta(u32),
    Payload(Payload),
}

impl Tunnel {
    const ALL: [Self; 4] = [Self::Geneve, Self::Gre, Self::Gretap, Self::Vxlan];

    /// nft's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Gretap => "gretap",
            Self::Vxlan => "vxlan",
        }
    }

    /// nft's number (`NFT_INNER_*`, and its own for GRE), the size of the tunnel's header in bytes, and
    /// `NFT_INNER_*` flags for the headers inside.
    pub(crate) fn parameters(self) -> (u32, u32, u32) {
        const IP: u32 = NFT_INNER_NH | NFT_INNER_TH;
        const ETHERNET: u32 = NFT_INNER_LL | IP;
        match self {
            Self::Vxlan => (NFT_INNER_VXLAN, 8, NFT_INNER_HDRSIZE | ETHERNET),
            Self::Geneve => (NFT_INNER_GENEVE, 8, NFT_INNER_HDRSIZE | ETHERNET),
            Self::Gre => (3, 4, IP),
            Self::Gretap => (4, 4, ETHERNET),
        }
    }

    pub(crate) fn from_parameters(parameters: (u32, u32, u32)) -> Option<Self> {
        Self::ALL.into_iter().find(|tunnel| tunnel.parameters() == parameters)
    }

    /// The transport protocol that the tunnel implies.
    pub(crate) fn transport(self) -> Option<u8> {
        matches!(self, Self::Gre | Self::Gretap).then_some(IPPROTO_GRE)
    }

    /// The header of the tunnel itself, if nft reads it as part of the tunnel.
    pub(crate) fn header(self) -> Option<Header> {
        match self {
            Self::Vxlan => Some(Header::Vxlan),
            Self::Geneve => Some(Header::Geneve),
            Self::Gre | Self::Gretap => None,
        }
    }
}

impl Field {
    /// The same field of the packet inside of a tunnel: `vxlan ip saddr`. Other fields than those of
    /// headers stay as they are.
    #[must_use]
    pub const fn inside(self, tunnel: Tunnel) -> Self {
        match self.0 {
            Kind::Payload(payload) => Self(Kind::Inner { tunnel, inner: Inner::Payload(payload) }),
            _ => self,
        }
    }
}

const fn of_tunnel(tunnel: Tunnel, header: Header, name: &'static str, offset: u32, length: u32) -> Field {
    let bytes = if length == 8 { 1 } else { 3 };
    let datatype = Datatype::Integer { length: bytes, host: false };
    Field(Kind::Inner { tunnel, inner: Inner::Payload(Payload { header, name, offset, length, datatype }) })
}

/// `vxlan flags`, 8 bits
pub const VXLAN_FLAGS: Field = of_tunnel(Tunnel::Vxlan, Header::Vxlan, "flags", 0, 8);
/// `vxlan vni`, 24 bits
pub const VXLAN_VNI: Field = of_tunnel(Tunnel::Vxlan, Header::Vxlan, "vni", 32, 24);
/// `geneve vni`, 24 bits
pub const GENEVE_VNI: Field = of_tunnel(Tunnel::Geneve, Header::Geneve, "vni", 32, 24);
