//! Packets inside tunnels: `vxlan ip saddr`. Kernel ≥ 6.2.

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

impl Tunnel {
    const ALL: [Self; 4] = [Self::Geneve, Self::Gre, Self::Gretap, Self::Vxlan];

    /// The kind of tunnel of this name.
    #[cfg(feature = "json")]
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tunnel| tunnel.name() == name)
    }

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
}
