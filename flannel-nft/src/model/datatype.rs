//! Data types of values, under nft's names.

use std::fmt;

use crate::model::symbols::*;

// nft's `enum byteorder` (include/datatype.h in nft's source). No installed header has it.
pub(crate) const BYTEORDER_INVALID: u32 = 0;
pub(crate) const BYTEORDER_HOST_ENDIAN: u32 = 1;
pub(crate) const BYTEORDER_BIG_ENDIAN: u32 = 2;

/// The byte order in which the kernel keeps values of a type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// nft's `BYTEORDER_BIG_ENDIAN`: as in packets.
    Big,
    /// nft's `BYTEORDER_HOST_ENDIAN`.
    Host,
    /// nft's `BYTEORDER_INVALID`: a value of one byte has no order.
    None,
}

/// How nft prints values of a type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    /// `fin,syn`: the bits that are set, or a hexadecimal number.
    Bits(&'static [(&'static str, u32)]),
    /// `1:2`, the major and minor number of a traffic class.
    Classid,
    /// `"2024-07-01 12:00:00"`, from nanoseconds since 1970. UTC.
    Date,
    Decimal,
    /// `1m30s`, from milliseconds.
    Duration,
    Ether,
    /// A number with this many hexadecimal digits.
    Hex(usize),
    /// `"17:00"`, from seconds since midnight. UTC.
    Hour,
    /// The name of the interface, if it is the same in each network namespace.
    Ifindex,
    Ipv4,
    Ipv6,
    /// The numbers of the bits that are set.
    Labels,
    Protocol,
    /// `"cosmos"`: a name in quotation marks, or a decimal number.
    Quoted(&'static [(&'static str, u32)]),
    /// The name, or a decimal number.
    Symbols(&'static [(&'static str, u32)]),
    /// The name, or a number with this many hexadecimal digits.
    SymbolsHex(&'static [(&'static str, u32)], usize),
    /// `"eth0"`: text up to the first zero byte.
    Text,
}

macro_rules! datatypes {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal $length:literal $order:ident $per_line:literal $format:expr;)*) => {
        /// The type of a set's keys or values, under nft's name (`nft describe`).
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Datatype {
            $($(#[$doc])* $name,)*
            /// `integer`: a number without symbols, of any length.
            Integer {
                /// Length in bytes.
                length: u8,
                /// Whether the number is in host byte order.
                host: bool,
            },
            /// `string`: text, padded with zero bytes.
            Text {
                /// Length in bytes.
                length: u8,
            },
            /// A concatenation ([`Datatype::concat`]), or another type, whose values are kept as
            /// bytes.
            Other {
                /// nft's number of the type.
                number: u32,
                /// Length of a value in bytes.
                length: u32,
            },
        }

        impl Datatype {
            const KNOWN: &[Self] = &[$(Self::$name,)*];

            /// nft's name of the type; `concatenation` for a concatenation, whose `Display` has the
            /// names of its parts.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Integer { .. } => "integer",
                    Self::Text { .. } => "string",
                    Self::Other { number, .. } if number >> CONCAT_BITS != 0 => "concatenation",
                    Self::Other { .. } => "unknown",
                }
            }

            /// nft's number of the type (include/datatype.h, `enum datatypes`); the kernel only
            /// stores it.
            pub(crate) fn number(self) -> u32 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Integer { .. } => INTEGER,
                    Self::Text { .. } => STRING,
                    Self::Other { number, .. } => number,
                }
            }

            /// Length of a value in bytes.
            pub(crate) fn length(self) -> u32 {
                match self {
                    $(Self::$name => $length,)*
                    Self::Integer { length, .. } | Self::Text { length } => u32::from(length),
                    Self::Other { length, .. } => length,
                }
            }

            pub(crate) fn order(self) -> Order {
                match self {
                    $(Self::$name => Order::$order,)*
                    Self::Integer { host, .. } => if host { Order::Host } else { Order::Big },
                    Self::Text { .. } => Order::Host,
                    Self::Other { .. } => Order::Big,
                }
            }

            /// How nft prints values; `None` for concatenations and types that have no name here.
            pub(crate) fn format(self) -> Option<Format> {
                match self {
                    $(Self::$name => Some($format),)*
                    Self::Integer { .. } => Some(Format::Decimal),
                    Self::Text { .. } => Some(Format::Text),
                    Self::Other { .. } => None,
                }
            }

            /// Number of values that nft prints on one line of a set's listing (src/expression.c,
            /// `calculate_delim`).
            pub(crate) fn per_line(self) -> usize {
                match self {
                    $(Self::$name => $per_line,)*
                    Self::Integer { .. } => 5,
                    Self::Text { .. } | Self::Other { .. } => 1,
                }
            }
        }
    };
}

const INTEGER: u32 = 4;
const STRING: u32 = 5;
/// A concatenation's number has its parts' numbers in groups of this many bits (`TYPE_BITS`).
const CONCAT_BITS: u32 = 6;

datatypes! {
    /// `arp_op`: 2 bytes.
    ArpOp = 11 "arp_op" 2 Big 5 Format::Symbols(&ARP_OPERATIONS);
    /// `boolean`: whether a header or an option exists, 1 byte.
    Boolean = 39 "boolean" 1 Big 1 Format::Symbols(&BOOLEANS);
    /// `cgroupsv2`: the number of a control group, 8 bytes, host byte order.
    Cgroupsv2 = 46 "cgroupsv2" 8 Host 1 Format::Decimal;
    /// `classid`: a class of traffic control, 4 bytes, host byte order.
    Classid = 23 "classid" 4 Host 5 Format::Classid;
    /// `ct_dir`: 1 byte.
    CtDirection = 27 "ct_dir" 1 Host 5 Format::Symbols(&DIRECTIONS);
    /// `ct_event`: 4 bytes, host byte order.
    CtEvent = 40 "ct_event" 4 Host 1 Format::Bits(&EVENTS);
    /// `ct_label`: 128 bits, host byte order.
    CtLabel = 30 "ct_label" 16 Host 1 Format::Labels;
    /// `ct_state`: 4 bytes, host byte order.
    CtState = 26 "ct_state" 4 Host 2 Format::Bits(&STATES);
    /// `ct_status`: 4 bytes, host byte order.
    CtStatus = 28 "ct_status" 4 Host 2 Format::Bits(&STATUSES);
    /// `time`: seconds and nanoseconds since 1970, 8 bytes, host byte order.
    Date = 43 "time" 8 Host 1 Format::Date;
    /// `day`: a day of the week, 1 byte.
    Day = 45 "day" 1 Big 1 Format::Quoted(&DAYS);
    /// `dccp_pkttype`: 4 bits.
    DccpPacketType = 16 "dccp_pkttype" 1 Big 5 Format::SymbolsHex(&DCCP_TYPES, 2);
    /// `devgroup`: a group of interfaces, 4 bytes, host byte order.
    Devgroup = 35 "devgroup" 4 Host 1 Format::Quoted(&GROUPS);
    /// `dscp`: 6 bits.
    Dscp = 36 "dscp" 1 Big 1 Format::SymbolsHex(&DSCP, 2);
    /// `ecn`: 2 bits.
    Ecn = 37 "ecn" 1 Big 5 Format::SymbolsHex(&ECN, 2);
    /// `ether_addr`: 6 bytes.
    EtherAddr = 9 "ether_addr" 6 Big 1 Format::Ether;
    /// `ether_type`: 2 bytes.
    EtherType = 10 "ether_type" 2 Big 1 Format::SymbolsHex(&ETHER_TYPES, 4);
    /// `fib_addrtype`: 4 bytes, host byte order.
    FibAddrtype = 38 "fib_addrtype" 4 Host 1 Format::Symbols(&ADDRESS_TYPES);
    /// `gid`: 4 bytes, host byte order.
    Gid = 25 "gid" 4 Host 5 Format::Decimal;
    /// `hour`: seconds since midnight, 4 bytes, host byte order.
    Hour = 44 "hour" 4 Host 1 Format::Hour;
    /// `icmp_code`: 1 byte.
    IcmpCode = 32 "icmp_code" 1 Big 1 Format::Symbols(&ICMP_CODES);
    /// `icmp_type`: 1 byte.
    IcmpType = 14 "icmp_type" 1 Big 1 Format::Symbols(&ICMP_TYPES);
    /// `icmpv6_code`: 1 byte.
    Icmpv6Code = 33 "icmpv6_code" 1 Big 1 Format::Symbols(&ICMPV6_CODES);
    /// `icmpv6_type`: 1 byte.
    Icmpv6Type = 29 "icmpv6_type" 1 Big 1 Format::Symbols(&ICMPV6_TYPES);
    /// `iface_index`: 4 bytes, host byte order.
    Ifindex = 20 "iface_index" 4 Host 5 Format::Ifindex;
    /// `ifname`: 16 bytes.
    Ifname = 41 "ifname" 16 Host 1 Format::Text;
    /// `iface_type`: 2 bytes, host byte order.
    IfaceType = 21 "iface_type" 2 Host 1 Format::Symbols(&IFACE_TYPES);
    /// `igmp_type`: 1 byte.
    IgmpType = 42 "igmp_type" 1 Big 1 Format::Symbols(&IGMP_TYPES);
    /// `inet_proto`: 1 byte.
    InetProto = 12 "inet_proto" 1 None 5 Format::Protocol;
    /// `inet_service`: a port, 2 bytes.
    InetService = 13 "inet_service" 2 Big 5 Format::Decimal;
    /// `ipv4_addr`: 4 bytes.
    Ipv4Addr = 7 "ipv4_addr" 4 Big 2 Format::Ipv4;
    /// `ipv6_addr`: 16 bytes.
    Ipv6Addr = 8 "ipv6_addr" 16 Big 1 Format::Ipv6;
    /// `mark`: 4 bytes, host byte order.
    Mark = 19 "mark" 4 Host 5 Format::Hex(8);
    /// `mh_type`: 1 byte.
    MhType = 17 "mh_type" 1 Big 1 Format::Symbols(&MH_TYPES);
    /// `nf_proto`: 1 byte.
    Nfproto = 2 "nf_proto" 1 Host 5 Format::Symbols(&NFPROTOS);
    /// `pkt_type`: 1 byte.
    PktType = 31 "pkt_type" 1 Host 2 Format::Symbols(&PACKET_TYPES);
    /// `realm`: a routing realm, 4 bytes, host byte order.
    Realm = 22 "realm" 4 Host 1 Format::Quoted(&REALMS);
    /// `tcp_flag`: 1 byte.
    TcpFlag = 15 "tcp_flag" 1 Big 5 Format::Bits(&TCP_FLAGS);
    /// `time`: milliseconds, 4 bytes, host byte order.
    Time = 18 "time" 4 Host 1 Format::Duration;
    /// `uid`: 4 bytes, host byte order.
    Uid = 24 "uid" 4 Host 5 Format::Decimal;
}

impl Datatype {
    /// A concatenation of up to five types: `ipv4_addr . inet_service`. Each part takes a multiple
    /// of 4 bytes.
    ///
    /// Example: `Datatype::concat(&[Datatype::Ipv4Addr, Datatype::InetService])`.
    #[must_use]
    pub fn concat(parts: &[Self]) -> Self {
        let number = parts.iter().fold(0, |number: u32, part| number << CONCAT_BITS | part.number());
        let length = parts.iter().map(|part| part.length().next_multiple_of(4)).sum();
        Self::Other { number, length }
    }

    /// The parts of a concatenation; the type itself if it is none or if a part has no name here.
    pub(crate) fn parts(self) -> Vec<Self> {
        let Self::Other { mut number, length } = self else { return vec![self] };
        let mut parts = Vec::new();
        while number != 0 {
            let part = number & ((1 << CONCAT_BITS) - 1);
            match Self::KNOWN.iter().find(|known| known.number() == part) {
                Some(known) => parts.push(*known),
                None => return vec![self],
            }
            number >>= CONCAT_BITS;
        }
        parts.reverse();
        let total: u32 = parts.iter().map(|part| part.length().next_multiple_of(4)).sum();
        if total == length { parts } else { vec![self] }
    }

    /// Whether nft lets sets with keys of this type hold values of the other type: the type
    /// `integer` fits all types of the same length.
    pub(crate) fn fits(self, other: Self) -> bool {
        let (ours, theirs) = (self.parts(), other.parts());
        let fits = |(a, b): (&Self, &Self)| {
            let is_plain = |datatype: &Self| datatype.number() == INTEGER;
            a.length() == b.length() && (a.number() == b.number() || is_plain(a) || is_plain(b))
        };
        ours.len() == theirs.len() && ours.iter().zip(&theirs).all(fits)
    }

    pub(crate) fn from_number(number: u32, length: u32) -> Self {
        let known = Self::KNOWN.iter().find(|known| known.number() == number && known.length() == length);
        match (known, number, u8::try_from(length)) {
            (Some(known), ..) => *known,
            (None, INTEGER, Ok(length)) => Self::Integer { length, host: false },
            (None, STRING, Ok(length)) => Self::Text { length },
            _ => Self::Other { number, length },
        }
    }

    /// The type of ranges of these values, in the values of a map.
    #[cfg(feature = "json")]
    pub(crate) fn doubled(self) -> Self {
        Self::Other { number: self.number(), length: self.length() * 2 }
    }

    /// The type of this name, if it has a fixed length.
    #[cfg(feature = "json")]
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::KNOWN.iter().find(|known| known.name() == name).copied()
    }

    /// The type of numbers in this byte order; other types have an order of their own.
    pub(crate) fn ordered(self, host: bool) -> Self {
        match self {
            Self::Integer { length, .. } => Self::Integer { length, host },
            other => other,
        }
    }

    /// Whether values are in host byte order. nft needs to know (`NFTNL_UDATA_SET_KEYBYTEORDER`) to
    /// print them.
    pub(crate) fn is_host_order(self) -> bool {
        self.order() == Order::Host
    }

    /// Whether the kernel must swap the bytes of a value before it compares sizes.
    pub(crate) fn is_swapped(self) -> bool {
        let is_text = matches!(self.format(), Some(Format::Text));
        self.is_host_order() && self.length() > 1 && !is_text
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts().into_iter().enumerate() {
            f.write_str(if index > 0 { " . " } else { "" })?;
            f.write_str(part.name())?;
        }
        Ok(())
    }
}
