//! Address families of tables.

use std::fmt;

use crate::uapi::*;

/// The address family of a table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Family {
    /// ARP packets.
    Arp,
    /// Packets that a bridge forwards.
    Bridge,
    /// IPv4 and IPv6 packets.
    Inet,
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
    /// All packets of a device.
    Netdev,
}

impl Family {
    /// nft's name of the family.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        }
    }

    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => NFPROTO_INET,
            Self::Ip => NFPROTO_IPV4,
            Self::Arp => NFPROTO_ARP,
            Self::Netdev => NFPROTO_NETDEV,
            Self::Bridge => NFPROTO_BRIDGE,
            Self::Ip6 => NFPROTO_IPV6,
        }
    }

    /// The family of this name.
    #[cfg(feature = "json")]
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Arp, Self::Bridge, Self::Inet, Self::Ip, Self::Ip6, Self::Netdev]
            .into_iter()
            .find(|family| family.name() == name)
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Arp, Self::Bridge, Self::Inet, Self::Ip, Self::Ip6, Self::Netdev]
            .into_iter()
            .find(|family| family.number() == number)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
