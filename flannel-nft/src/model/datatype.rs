//! Data types of values, and how nft prints them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::data::{Data, hex};
use crate::model::protocol::Protocol;
use crate::uapi::*;

/// The type of a set's keys or values, under nft's name (`nft describe`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Datatype {
    /// `ct_dir`: 1 byte.
    CtDirection,
    /// `ct_state`: 4 bytes, host byte order.
    CtState,
    /// `ct_status`: 4 bytes, host byte order.
    CtStatus,
    /// `ether_addr`: 6 bytes.
    EtherAddr,
    /// `fib_addrtype`: 4 bytes, host byte order.
    FibAddrtype,
    /// `iface_index`: 4 bytes, host byte order.
    Ifindex,
    /// `ifname`: 16 bytes.
    Ifname,
    /// `inet_proto`: 1 byte.
    InetProto,
    /// `inet_service`: a port, 2 bytes.
    InetService,
    /// `ipv4_addr`: 4 bytes.
    Ipv4Addr,
    /// `ipv6_addr`: 16 bytes.
    Ipv6Addr,
    /// `mark`: 4 bytes, host byte order.
    Mark,
    /// `nf_proto`: 1 byte.
    Nfproto,
    /// `pkt_type`: 1 byte.
    PktType,
    /// `tcp_flag`: 1 byte.
    TcpFlag,
    /// Another type, or a concatenation. Its values are kept as bytes.
    Other {
        /// nft's number of the type.
        number: u32,
        /// Length of a value in bytes.
        length: u32,
    },
}

impl Datatype {
    const KNOWN: [Self; 15] = [
        Self::CtDirection,
        Self::CtState,
        Self::CtStatus,
        Self::EtherAddr,
        Self::FibAddrtype,
        Self::Ifindex,
        Self::Ifname,
        Self::InetProto,
        Self::InetService,
        Self::Ipv4Addr,
        Self::Ipv6Addr,
        Self::Mark,
        Self::Nfproto,
        Self::PktType,
        Self::TcpFlag,
    ];

    /// nft's name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CtDirection => "ct_dir",
            Self::CtState => "ct_state",
            Self::CtStatus => "ct_status",
            Self::EtherAddr => "ether_addr",
            Self::FibAddrtype => "fib_addrtype",
            Self::Ifindex => "iface_index",
            Self::Ifname => "ifname",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::Mark => "mark",
            Self::Nfproto => "nf_proto",
            Self::PktType => "pkt_type",
            Self::TcpFlag => "tcp_flag",
            Self::Other { .. } => "unknown",
        }
    }

    /// nft's number of the type (include/datatype.h, `enum datatypes`); the kernel only stores it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Nfproto => 2,
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::EtherAddr => 9,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::TcpFlag => 15,
            Self::Mark => 19,
            Self::Ifindex => 20,
            Self::CtState => 26,
            Self::CtDirection => 27,
            Self::CtStatus => 28,
            Self::PktType => 31,
            Self::FibAddrtype => 38,
            Self::Ifname => 41,
            Self::Other { number, .. } => number,
        }
    }

    pub(crate) fn length(self) -> u32 {
        match self {
            Self::CtDirection | Self::InetProto | Self::Nfproto | Self::PktType | Self::TcpFlag => 1,
            Self::InetService => 2,
            Self::CtState
            | Self::CtStatus
            | Self::FibAddrtype
            | Self::Ifindex
            | Self::Ipv4Addr
            | Self::Mark => 4,
            Self::EtherAddr => 6,
            Self::Ifname | Self::Ipv6Addr => 16,
            Self::Other { length, .. } => length,
        }
    }

    pub(crate) fn from_number(number: u32, length: u32) -> Self {
        let known =
            Self::KNOWN.into_iter().find(|known| known.number() == number && known.length() == length);
        known.unwrap_or(Self::Other { number, length })
    }

    /// Whether values are in host byte order. nft needs to know (`NFTNL_UDATA_SET_KEYBYTEORDER`) to
    /// print them.
    pub(crate) fn is_host_order(self) -> bool {
        matches!(
            self,
            Self::CtState
                | Self::CtStatus
                | Self::FibAddrtype
                | Self::Ifindex
                | Self::Ifname
                | Self::Mark
                | Self::CtDirection
                | Self::Nfproto
                | Self::PktType
        )
    }

    /// Number of values that nft prints on one line of a set's listing (src/expression.c,
    /// `calculate_delim`).
    pub(crate) fn per_line(self) -> usize {
        match self {
            Self::Ipv4Addr | Self::CtState | Self::FibAddrtype => 2,
            Self::EtherAddr | Self::Ifname | Self::Ipv6Addr | Self::Other { .. } => 1,
            _ => 5,
        }
    }

    /// Writes a value of this type in nft syntax.
    pub(crate) fn write(self, data: &Data, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = data.as_slice();
        match (self, bytes) {
            (Self::Ipv4Addr, &[a, b, c, d]) => write!(f, "{}", Ipv4Addr::new(a, b, c, d)),
            (Self::Ipv6Addr, _) => match <[u8; 16]>::try_from(bytes) {
                Ok(bytes) => write!(f, "{}", Ipv6Addr::from(bytes)),
                Err(_) => hex(bytes, f),
            },
            (Self::EtherAddr, &[first, ref rest @ ..]) => {
                write!(f, "{first:02x}")?;
                rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
            }
            (Self::InetProto, &[number]) => write!(f, "{}", Protocol::new(number)),
            (Self::InetService, &[high, low]) => write!(f, "{}", u16::from_be_bytes([high, low])),
            (Self::Ifname, _) => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                write!(f, "\"{}\"", String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()))
            }
            (Self::Nfproto, [NFPROTO_IPV4]) => f.write_str("ipv4"),
            (Self::Nfproto, [NFPROTO_IPV6]) => f.write_str("ipv6"),
            (Self::CtDirection, [IP_CT_DIR_ORIGINAL]) => f.write_str("original"),
            (Self::CtDirection, [IP_CT_DIR_REPLY]) => f.write_str("reply"),
            (Self::TcpFlag, &[flags]) => write_bits(&TCP_FLAGS, u32::from(flags), ",", f),
            (Self::PktType, &[number]) => symbol(&PACKET_TYPES, number, f),
            (Self::Nfproto | Self::CtDirection, &[number]) => write!(f, "{number}"),
            _ => match (self, data.host_u32()) {
                (Self::Mark, Some(mark)) => write!(f, "0x{mark:08x}"),
                (Self::Ifindex, Some(index)) => write!(f, "{index}"),
                (Self::FibAddrtype, Some(number)) => symbol(&ADDRESS_TYPES, number, f),
                (Self::CtState, Some(bits)) => write_bits(&STATES, bits, ",", f),
                (Self::CtStatus, Some(bits)) => write_bits(&STATUSES, bits, ",", f),
                _ => hex(bytes, f),
            },
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(crate) const PACKET_TYPES: [(&str, u8); 4] = [
    ("host", PACKET_HOST),
    ("broadcast", PACKET_BROADCAST),
    ("multicast", PACKET_MULTICAST),
    ("other", PACKET_OTHERHOST),
];
pub(crate) const ADDRESS_TYPES: [(&str, u32); 9] = [
    ("unspec", RTN_UNSPEC),
    ("unicast", RTN_UNICAST),
    ("local", RTN_LOCAL),
    ("broadcast", RTN_BROADCAST),
    ("anycast", RTN_ANYCAST),
    ("multicast", RTN_MULTICAST),
    ("blackhole", RTN_BLACKHOLE),
    ("unreachable", RTN_UNREACHABLE),
    ("prohibit", RTN_PROHIBIT),
];
/// `NF_CT_STATE_BIT`.
pub(crate) const fn state_bit(ctinfo: u32) -> u32 {
    1 << (ctinfo + 1)
}

/// In nft's print order.
pub(crate) const STATES: [(&str, u32); 5] = [
    ("invalid", NF_CT_STATE_INVALID_BIT),
    ("established", state_bit(IP_CT_ESTABLISHED)),
    ("related", state_bit(IP_CT_RELATED)),
    ("new", state_bit(IP_CT_NEW)),
    ("untracked", NF_CT_STATE_UNTRACKED_BIT),
];
pub(crate) const STATUSES: [(&str, u32); 7] = [
    ("expected", IPS_EXPECTED),
    ("seen-reply", IPS_SEEN_REPLY),
    ("assured", IPS_ASSURED),
    ("confirmed", IPS_CONFIRMED),
    ("snat", IPS_SRC_NAT),
    ("dnat", IPS_DST_NAT),
    ("dying", IPS_DYING),
];

/// Flag bits of the TCP header, RFC 9293.
pub(crate) const TCP_FLAGS: [(&str, u32); 8] = [
    ("fin", 0x1),
    ("syn", 0x2),
    ("rst", 0x4),
    ("psh", 0x8),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ecn", 0x40),
    ("cwr", 0x80),
];

fn symbol<T: Copy + fmt::Display + PartialEq>(
    names: &[(&str, T)],
    number: T,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match names.iter().find(|(_, value)| *value == number) {
        Some((name, _)) => f.write_str(name),
        None => write!(f, "{number}"),
    }
}

/// Writes the names of the bits that are set; as a number if a bit has no name or no bit is set.
pub(crate) fn write_bits(
    names: &[(&str, u32)],
    bits: u32,
    separator: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let named = names.iter().fold(0, |sum, (_, bit)| sum | bit);
    if bits == 0 || bits & !named != 0 {
        return write!(f, "0x{bits:08x}");
    }
    let mut between = "";
    for (name, _) in names.iter().filter(|(_, bit)| bits & bit != 0) {
        write!(f, "{between}{name}")?;
        between = separator;
    }
    Ok(())
}
