//! Header fields of packets.

use crate::model::datatype::Datatype;
use crate::model::field::{Field, Kind};
use crate::uapi::*;

/// A protocol header, with nft's name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Header {
    Ah,
    Arp,
    Comp,
    Dccp,
    Esp,
    Ether,
    /// The header of a Geneve tunnel.
    Geneve,
    Gre,
    Icmp,
    Icmpv6,
    Igmp,
    Ip,
    Ip6,
    Sctp,
    Tcp,
    /// Ports of any transport protocol that has them.
    Th,
    Udp,
    Udplite,
    Vlan,
    /// The header of a VXLAN tunnel.
    Vxlan,
}

impl Header {
    pub(crate) fn base(self) -> u32 {
        match self {
            Self::Ether | Self::Vlan => NFT_PAYLOAD_LL_HEADER,
            Self::Arp | Self::Ip | Self::Ip6 => NFT_PAYLOAD_NETWORK_HEADER,
            Self::Geneve | Self::Vxlan => NFT_PAYLOAD_TUN_HEADER,
            _ => NFT_PAYLOAD_TRANSPORT_HEADER,
        }
    }

    /// The protocol number of a transport header.
    pub(crate) fn transport(self) -> Option<u8> {
        Some(match self {
            Self::Ah => IPPROTO_AH,
            Self::Comp => IPPROTO_COMP,
            Self::Dccp => IPPROTO_DCCP,
            Self::Esp => IPPROTO_ESP,
            Self::Gre => IPPROTO_GRE,
            Self::Icmp => IPPROTO_ICMP,
            Self::Icmpv6 => IPPROTO_ICMPV6,
            Self::Igmp => IPPROTO_IGMP,
            Self::Sctp => IPPROTO_SCTP,
            Self::Tcp => IPPROTO_TCP,
            Self::Udp => IPPROTO_UDP,
            Self::Udplite => IPPROTO_UDPLITE,
            Self::Arp
            | Self::Ether
            | Self::Geneve
            | Self::Ip
            | Self::Ip6
            | Self::Th
            | Self::Vlan
            | Self::Vxlan => return None,
        })
    }

    /// The `ETH_P_*` number of a network header, or of the only network header that carries this
    /// transport header.
    pub(crate) fn network(self) -> Option<u32> {
        match self {
            Self::Arp => Some(ETH_P_ARP),
            Self::Ip | Self::Icmp | Self::Igmp => Some(ETH_P_IP),
            Self::Ip6 | Self::Icmpv6 => Some(ETH_P_IPV6),
            _ => None,
        }
    }
}

/// A field of a header. Offset and length are in bits; a field of less than a byte is counted from
/// the most significant bit.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Payload {
    pub(crate) header: Header,
    pub(crate) name: &'static str,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) datatype: Datatype,
}

const fn number(length: u8) -> Datatype {
    Datatype::Integer { length, host: false }
}

macro_rules! headers {
    ($($(#[$doc:meta])* $module:ident $header:ident $text:literal
        { $($name:ident $label:literal $offset:literal $length:literal $datatype:expr;)* })*) => {
        impl Header {
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$header => $text,)*
                    Self::Geneve => "geneve",
                    Self::Vxlan => "vxlan",
                }
            }
        }

        $(
            $(#[$doc])*
            pub mod $module {
                use super::*;

                $(
                    #[doc = concat!("`", $text, " ", $label, "`, ", $length, " bits")]
                    pub const $name: Field = Field(Kind::Payload(Payload {
                        header: Header::$header,
                        name: $label,
                        offset: $offset,
                        length: $length,
                        datatype: { #[allow(unused_imports, reason = "a number has no name")] use Datatype::*; $datatype },
                    }));
                )*

                pub(crate) const ALL: &[Field] = &[$($name,)*];
            }
        )*

        /// All fields, by header.
        pub(crate) const FIELDS: &[(Header, &[Field])] = &[$((Header::$header, $module::ALL),)*];
    };
}

headers! {
    /// IPsec AH, RFC 4302.
    ah Ah "ah" {
        NEXTHDR "nexthdr" 0 8 InetProto;
        HDRLENGTH "hdrlength" 8 8 number(1);
        RESERVED "reserved" 16 16 number(2);
        SPI "spi" 32 32 number(4);
        SEQUENCE "sequence" 64 32 number(4);
    }
    /// ARP for Ethernet and IPv4, RFC 826.
    arp Arp "arp" {
        HTYPE "htype" 0 16 number(2);
        PTYPE "ptype" 16 16 EtherType;
        HLEN "hlen" 32 8 number(1);
        PLEN "plen" 40 8 number(1);
        OPERATION "operation" 48 16 ArpOp;
        SADDR_ETHER "saddr ether" 64 48 EtherAddr;
        SADDR_IP "saddr ip" 112 32 Ipv4Addr;
        DADDR_ETHER "daddr ether" 144 48 EtherAddr;
        DADDR_IP "daddr ip" 192 32 Ipv4Addr;
    }
    /// IP payload compression, RFC 3173.
    comp Comp "comp" {
        NEXTHDR "nexthdr" 0 8 InetProto;
        FLAGS "flags" 8 8 number(1);
        CPI "cpi" 16 16 number(2);
    }
    /// DCCP, RFC 4340.
    dccp Dccp "dccp" {
        SPORT "sport" 0 16 InetService;
        DPORT "dport" 16 16 InetService;
        TYPE "type" 67 4 DccpPacketType;
    }
    /// IPsec ESP, RFC 4303.
    esp Esp "esp" {
        SPI "spi" 0 32 number(4);
        SEQUENCE "sequence" 32 32 number(4);
    }
    /// Ethernet.
    ether Ether "ether" {
        DADDR "daddr" 0 48 EtherAddr;
        SADDR "saddr" 48 48 EtherAddr;
        TYPE "type" 96 16 EtherType;
    }
    /// GRE, RFC 2784. nft ≥ 1.0.8 prints these fields.
    gre Gre "gre" {
        FLAGS "flags" 0 5 number(1);
        VERSION "version" 13 3 number(1);
        PROTOCOL "protocol" 16 16 EtherType;
    }
    /// ICMP, RFC 792.
    icmp Icmp "icmp" {
        TYPE "type" 0 8 IcmpType;
        CODE "code" 8 8 IcmpCode;
        CHECKSUM "checksum" 16 16 number(2);
        ID "id" 32 16 number(2);
        SEQUENCE "sequence" 48 16 number(2);
        GATEWAY "gateway" 32 32 number(4);
        MTU "mtu" 48 16 number(2);
    }
    /// ICMPv6, RFC 4443.
    icmpv6 Icmpv6 "icmpv6" {
        TYPE "type" 0 8 Icmpv6Type;
        CODE "code" 8 8 Icmpv6Code;
        CHECKSUM "checksum" 16 16 number(2);
        MTU "mtu" 32 32 number(4);
        ID "id" 32 16 number(2);
        SEQUENCE "sequence" 48 16 number(2);
        MAX_DELAY "max-delay" 32 16 number(2);
        PARAMETER_PROBLEM "parameter-problem" 32 32 number(4);
        TADDR "taddr" 64 128 Ipv6Addr;
        DADDR "daddr" 192 128 Ipv6Addr;
    }
    /// IGMP, RFC 3376.
    igmp Igmp "igmp" {
        TYPE "type" 0 8 IgmpType;
        MRT "mrt" 8 8 number(1);
        CHECKSUM "checksum" 16 16 number(2);
        GROUP "group" 32 32 number(4);
    }
    /// IPv4, RFC 791.
    ip Ip "ip" {
        VERSION "version" 0 4 number(1);
        HDRLENGTH "hdrlength" 4 4 number(1);
        DSCP "dscp" 8 6 Dscp;
        ECN "ecn" 14 2 Ecn;
        LENGTH "length" 16 16 number(2);
        ID "id" 32 16 number(2);
        FRAG_OFF "frag-off" 48 16 number(2);
        TTL "ttl" 64 8 number(1);
        PROTOCOL "protocol" 72 8 InetProto;
        CHECKSUM "checksum" 80 16 number(2);
        SADDR "saddr" 96 32 Ipv4Addr;
        DADDR "daddr" 128 32 Ipv4Addr;
    }
    /// IPv6, RFC 8200.
    ip6 Ip6 "ip6" {
        VERSION "version" 0 4 number(1);
        DSCP "dscp" 4 6 Dscp;
        ECN "ecn" 10 2 Ecn;
        FLOWLABEL "flowlabel" 12 20 number(3);
        LENGTH "length" 32 16 number(2);
        NEXTHDR "nexthdr" 48 8 InetProto;
        HOPLIMIT "hoplimit" 56 8 number(1);
        SADDR "saddr" 64 128 Ipv6Addr;
        DADDR "daddr" 192 128 Ipv6Addr;
    }
    /// SCTP, RFC 9260.
    sctp Sctp "sctp" {
        SPORT "sport" 0 16 InetService;
        DPORT "dport" 16 16 InetService;
        VTAG "vtag" 32 32 number(4);
        CHECKSUM "checksum" 64 32 number(4);
    }
    /// TCP, RFC 9293.
    tcp Tcp "tcp" {
        SPORT "sport" 0 16 InetService;
        DPORT "dport" 16 16 InetService;
        SEQUENCE "sequence" 32 32 number(4);
        ACKSEQ "ackseq" 64 32 number(4);
        DOFF "doff" 96 4 number(1);
        RESERVED "reserved" 100 4 number(1);
        FLAGS "flags" 104 8 TcpFlag;
        WINDOW "window" 112 16 number(2);
        CHECKSUM "checksum" 128 16 number(2);
        URGPTR "urgptr" 144 16 number(2);
    }
    /// Ports of any transport protocol that has them.
    th Th "th" {
        SPORT "sport" 0 16 InetService;
        DPORT "dport" 16 16 InetService;
    }
    /// UDP, RFC 768.
    udp Udp "udp" {
        SPORT "sport" 0 16 InetService;
        DPORT "dport" 16 16 InetService;
        LENGTH "length" 32 16 number(2);
        CHECKSUM "checksum" 48 16 number(2);
    }
    /// UDP-Lite, RFC 3828.
    udplite Udplite "udplite" {
        SPORT "sport" 0 16 InetService;
        DPORT "dport" 16 16 InetService;
        CSUMCOV "csumcov" 32 16 number(2);
        CHECKSUM "checksum" 48 16 number(2);
    }
    /// The VLAN tag behind the Ethernet header, IEEE 802.1Q.
    vlan Vlan "vlan" {
        PCP "pcp" 112 3 number(1);
        DEI "dei" 115 1 number(1);
        ID "id" 116 12 number(2);
        TYPE "type" 128 16 EtherType;
    }
}

/// The field of a header at this place, in bits.
pub(crate) fn find(header: Header, offset: u32, length: u32) -> Option<Field> {
    fields_of(header).iter().copied().find(|field| field.offset() == offset && field.bits() == length)
}

/// The fields of a header.
pub(crate) fn fields_of(header: Header) -> &'static [Field] {
    FIELDS.iter().find(|(found, _)| *found == header).map_or(&[], |(_, fields)| fields)
}
