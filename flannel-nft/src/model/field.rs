//! Fields: what an expression reads from a packet, its metadata, its connection or its route.
//!
//! A field has nft's name: `field::tcp::SEQUENCE` is `tcp sequence`. Each is described once, in
//! the tables of `header`, `exthdr` and `keys`; linearizing, delinearizing and text use that
//! description.

use crate::model::datatype::Datatype;
use crate::model::exthdr::Exthdr;
use crate::model::header::{Header, Payload};
use crate::model::tunnel::Tunnel;
use crate::uapi::*;

/// What an expression reads: `tcp dport`, `meta mark`, `ct state`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Field(pub(crate) Kind);

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    /// A key of `ct`, of one direction (`IP_CT_DIR_*`) or of none.
    Ct {
        key: u32,
        direction: Option<u8>,
    },
    /// A field of an extension header or option; without a field, whether it exists.
    Exthdr(Exthdr),
    /// `NFT_FIB_RESULT_*`, `NFTA_FIB_F_*`.
    Fib {
        result: u32,
        flags: u32,
    },
    /// A field of a packet inside of a tunnel.
    Inner {
        tunnel: Tunnel,
        inner: Inner,
    },
    Meta(u32),
    /// `NFT_NG_*`.
    Numgen {
        kind: u32,
        modulus: u32,
        offset: u32,
    },
    /// `NFT_OSF_F_VERSION` and a TTL check.
    Osf {
        flags: u32,
        ttl: u8,
    },
    Payload(Payload),
    /// Bits of a header, which have no name: `@th,16,16`.
    Raw {
        base: u32,
        offset: u32,
        length: u32,
    },
    Rt(u32),
    /// The level is that of the ancestor for `NFT_SOCKET_CGROUPV2`.
    Socket {
        key: u32,
        level: Option<u32>,
    },
    /// A hash of the packet's flow: `symhash mod 16`.
    Symhash {
        modulus: u32,
        offset: u32,
    },
    /// `NFT_XFRM_KEY_*`, `XFRM_POLICY_IN` or `XFRM_POLICY_OUT`, and the number of the transform.
    Xfrm {
        key: u32,
        direction: u8,
        number: u32,
    },
}

impl Field {
    /// Bits of a header, which need no name: `@th,16,16` is the destination port.
    ///
    /// `offset` and `length` are in bits; the length is at most 128.
    #[must_use]
    pub const fn raw(base: Base, offset: u32, length: u32) -> Self {
        Self(Kind::Raw { base: base.number(), offset, length })
    }

    /// The type of the values.
    #[must_use]
    pub fn datatype(self) -> Datatype {
        let number = |length| Datatype::Integer { length, host: true };
        match self.0 {
            Kind::Ct { key, .. } => ct(key).map_or_else(|| number(4), |key| key.datatype),
            Kind::Exthdr(field) => field.datatype,
            // A boolean, but of four bytes.
            Kind::Fib { flags, .. } if flags & NFTA_FIB_F_PRESENT != 0 => number(4),
            Kind::Fib { result: NFT_FIB_RESULT_OIF, .. } => Datatype::Ifindex,
            Kind::Fib { result: NFT_FIB_RESULT_OIFNAME, .. } => Datatype::Ifname,
            Kind::Fib { .. } => Datatype::FibAddrtype,
            Kind::Inner { inner: Inner::Payload(field), .. } => field.datatype,
            Kind::Inner { inner: Inner::Meta(key), .. } | Kind::Meta(key) => {
                meta(key).map_or_else(|| number(4), |key| key.datatype)
            }
            Kind::Numgen { .. } | Kind::Symhash { .. } => number(4),
            Kind::Osf { .. } => Datatype::Text { length: 16 },
            Kind::Payload(field) => field.datatype,
            Kind::Raw { length, .. } => {
                Datatype::Integer { length: u8::try_from(length.div_ceil(8)).unwrap_or(16), host: false }
            }
            Kind::Rt(key) => named(RT, key).map_or_else(|| number(4), |key| key.datatype),
            Kind::Socket { key, .. } => named(SOCKET, key).map_or_else(|| number(4), |key| key.datatype),
            Kind::Xfrm { key, .. } => named(XFRM, key).map_or_else(|| number(4), |key| key.datatype),
        }
    }

    /// Length of a value in bits.
    pub(crate) fn bits(self) -> u32 {
        match self.0 {
            Kind::Payload(field) | Kind::Inner { inner: Inner::Payload(field), .. } => field.length,
            Kind::Exthdr(field) => field.length,
            Kind::Raw { length, .. } => length,
            _ => self.datatype().length() * 8,
        }
    }

    /// Position in its header, in bits.
    pub(crate) fn offset(self) -> u32 {
        match self.0 {
            Kind::Payload(Payload { offset, .. })
            | Kind::Inner { inner: Inner::Payload(Payload { offset, .. }), .. }
            | Kind::Exthdr(Exthdr { offset, .. })
            | Kind::Raw { offset, .. } => offset,
            _ => 0,
        }
    }
}

/// The header that the offset of a [raw field](Field::raw) counts from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Base {
    /// `@ll`: the link layer header.
    Link,
    /// `@nh`: the network layer header.
    Network,
    /// `@th`: the transport layer header.
    Transport,
    /// `@ih`: what follows the transport layer header. Kernel ≥ 6.2 and stable releases.
    Inner,
}

impl Base {
    const fn number(self) -> u32 {
        match self {
            Self::Link => NFT_PAYLOAD_LL_HEADER,
            Self::Network => NFT_PAYLOAD_NETWORK_HEADER,
            Self::Transport => NFT_PAYLOAD_TRANSPORT_HEADER,
            Self::Inner => NFT_PAYLOAD_INNER_HEADER,
        }
    }
}

/// A key of `meta`, `ct`, `rt`, `socket` or `ipsec`: the kernel's number, nft's name, the type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) key: u32,
    pub(crate) name: &'static str,
    pub(crate) datatype: Datatype,
}

pub(crate) fn named(table: &'static [Named], key: u32) -> Option<&'static Named> {
    table.iter().find(|named| named.key == key)
}

pub(crate) fn meta(key: u32) -> Option<&'static Named> {
    named(META, key)
}

pub(crate) fn ct(key: u32) -> Option<&'static Named> {
    named(CT, key)
}

macro_rules! keys {
    ($table:ident $(#[$doc:meta])* $module:ident $constructor:expr, $prefix:literal; $($name:ident $key:ident $text:literal $datatype:expr;)*) => {
        #[allow(unused_imports, reason = "not each table needs all types")]
        pub(crate) const $table: &[Named] = {
            use Datatype::*;
            &[$(Named { key: $key, name: $text, datatype: $datatype },)*]
        };

        $(#[$doc])*
        pub mod $module {
            use super::*;

            $(
                #[doc = concat!("`", $prefix, $text, "`")]
                pub const $name: Field = Field($constructor($key));
            )*
        }
    };
}

const fn integer(length: u8) -> Datatype {
    Datatype::Integer { length, host: true }
}

const fn big(length: u8) -> Datatype {
    Datatype::Integer { length, host: false }
}

keys! { META
    /// Metadata of a packet.
    meta Kind::Meta, "meta ";
    CGROUP NFT_META_CGROUP "cgroup" integer(4);
    CPU NFT_META_CPU "cpu" integer(4);
    DAY NFT_META_TIME_DAY "day" Day;
    HOUR NFT_META_TIME_HOUR "hour" Hour;
    IBRNAME NFT_META_BRI_IIFNAME "ibrname" Ifname;
    IBRPVID NFT_META_BRI_IIFPVID "ibrpvid" integer(2);
    IBRVPROTO NFT_META_BRI_IIFVPROTO "ibrvproto" EtherType;
    IIF NFT_META_IIF "iif" Ifindex;
    IIFGROUP NFT_META_IIFGROUP "iifgroup" Devgroup;
    IIFKIND NFT_META_IIFKIND "iifkind" Ifname;
    IIFNAME NFT_META_IIFNAME "iifname" Ifname;
    IIFTYPE NFT_META_IIFTYPE "iiftype" IfaceType;
    IPSEC NFT_META_SECPATH "ipsec" Boolean;
    L4PROTO NFT_META_L4PROTO "l4proto" InetProto;
    LENGTH NFT_META_LEN "length" integer(4);
    MARK NFT_META_MARK "mark" Mark;
    NFPROTO NFT_META_NFPROTO "nfproto" Nfproto;
    NFTRACE NFT_META_NFTRACE "nftrace" integer(1);
    OBRNAME NFT_META_BRI_OIFNAME "obrname" Ifname;
    OIF NFT_META_OIF "oif" Ifindex;
    OIFGROUP NFT_META_OIFGROUP "oifgroup" Devgroup;
    OIFKIND NFT_META_OIFKIND "oifkind" Ifname;
    OIFNAME NFT_META_OIFNAME "oifname" Ifname;
    OIFTYPE NFT_META_OIFTYPE "oiftype" IfaceType;
    PKTTYPE NFT_META_PKTTYPE "pkttype" PktType;
    PRIORITY NFT_META_PRIORITY "priority" Classid;
    PROTOCOL NFT_META_PROTOCOL "protocol" EtherType;
    RANDOM NFT_META_PRANDOM "random" big(4);
    RTCLASSID NFT_META_RTCLASSID "rtclassid" Realm;
    SDIF NFT_META_SDIF "sdif" Ifindex;
    SDIFNAME NFT_META_SDIFNAME "sdifname" Ifname;
    SECMARK NFT_META_SECMARK "secmark" integer(4);
    SKGID NFT_META_SKGID "skgid" Gid;
    SKUID NFT_META_SKUID "skuid" Uid;
    TIME NFT_META_TIME_NS "time" Date;
}

const fn of_ct(key: u32) -> Kind {
    Kind::Ct { key, direction: None }
}

keys! { CT
    /// The connection that a packet belongs to. [`Field::original`] and [`Field::reply`] choose a
    /// direction.
    ct of_ct, "ct ";
    AVGPKT NFT_CT_AVGPKT "avgpkt" integer(8);
    BYTES NFT_CT_BYTES "bytes" integer(8);
    DIRECTION NFT_CT_DIRECTION "direction" CtDirection;
    EVENT NFT_CT_EVENTMASK "event" CtEvent;
    EXPIRATION NFT_CT_EXPIRATION "expiration" Time;
    HELPER NFT_CT_HELPER "helper" Text { length: 16 };
    ID NFT_CT_ID "id" big(4);
    IP_DADDR NFT_CT_DST_IP "ip daddr" Ipv4Addr;
    IP_SADDR NFT_CT_SRC_IP "ip saddr" Ipv4Addr;
    IP6_DADDR NFT_CT_DST_IP6 "ip6 daddr" Ipv6Addr;
    IP6_SADDR NFT_CT_SRC_IP6 "ip6 saddr" Ipv6Addr;
    L3PROTO NFT_CT_L3PROTOCOL "l3proto" Nfproto;
    LABEL NFT_CT_LABELS "label" CtLabel;
    MARK NFT_CT_MARK "mark" Mark;
    PACKETS NFT_CT_PKTS "packets" integer(8);
    PROTO_DST NFT_CT_PROTO_DST "proto-dst" InetService;
    PROTO_SRC NFT_CT_PROTO_SRC "proto-src" InetService;
    PROTOCOL NFT_CT_PROTOCOL "protocol" InetProto;
    SECMARK NFT_CT_SECMARK "secmark" integer(4);
    STATE NFT_CT_STATE "state" CtState;
    STATUS NFT_CT_STATUS "status" CtStatus;
    ZONE NFT_CT_ZONE "zone" integer(2);
}

impl Field {
    /// The same key of `ct`, of the direction of the connection's first packet: `ct original
    /// bytes`. Other fields stay as they are.
    #[must_use]
    pub const fn original(self) -> Self {
        self.of_direction(IP_CT_DIR_ORIGINAL)
    }

    /// The same key of `ct`, of the opposite direction: `ct reply bytes`.
    #[must_use]
    pub const fn reply(self) -> Self {
        self.of_direction(IP_CT_DIR_REPLY)
    }

    const fn of_direction(self, direction: u8) -> Self {
        match self.0 {
            Kind::Ct { key, .. } => Self(Kind::Ct { key, direction: Some(direction) }),
            _ => self,
        }
    }
}

keys! { RT
    /// The packet's route.
    rt Kind::Rt, "rt ";
    CLASSID NFT_RT_CLASSID "classid" Realm;
    IP_NEXTHOP NFT_RT_NEXTHOP4 "ip nexthop" Ipv4Addr;
    IP6_NEXTHOP NFT_RT_NEXTHOP6 "ip6 nexthop" Ipv6Addr;
    IPSEC NFT_RT_XFRM "ipsec" Boolean;
    MTU NFT_RT_TCPMSS "mtu" integer(2);
}

const fn of_socket(key: u32) -> Kind {
    Kind::Socket { key, level: None }
}

keys! { SOCKET
    /// The socket that a packet belongs to. For control groups see [`cgroupv2`].
    socket of_socket, "socket ";
    MARK NFT_SOCKET_MARK "mark" Mark;
    TRANSPARENT NFT_SOCKET_TRANSPARENT "transparent" integer(1);
    WILDCARD NFT_SOCKET_WILDCARD "wildcard" integer(1);
    CGROUPV2 NFT_SOCKET_CGROUPV2 "cgroupv2" Cgroupsv2;
}

/// The control group of the packet's socket, or its ancestor at this level: `socket cgroupv2 level
/// 1`. Kernel ≥ 5.13.
#[must_use]
pub const fn cgroupv2(level: u32) -> Field {
    Field(Kind::Socket { key: NFT_SOCKET_CGROUPV2, level: Some(level) })
}

const fn of_xfrm(key: u32) -> Kind {
    Kind::Xfrm { key, direction: XFRM_POLICY_IN, number: 0 }
}

keys! { XFRM
    /// The IPsec transform of a received packet. For sent packets see [`Field::outgoing`].
    ipsec of_xfrm, "ipsec in ";
    IP_DADDR NFT_XFRM_KEY_DADDR_IP4 "ip daddr" Ipv4Addr;
    IP_SADDR NFT_XFRM_KEY_SADDR_IP4 "ip saddr" Ipv4Addr;
    IP6_DADDR NFT_XFRM_KEY_DADDR_IP6 "ip6 daddr" Ipv6Addr;
    IP6_SADDR NFT_XFRM_KEY_SADDR_IP6 "ip6 saddr" Ipv6Addr;
    REQID NFT_XFRM_KEY_REQID "reqid" integer(4);
    SPI NFT_XFRM_KEY_SPI "spi" big(4);
}

impl Field {
    /// The same key of `ipsec`, of a packet that is sent: `ipsec out reqid`. Other fields stay as
    /// they are.
    #[must_use]
    pub const fn outgoing(self) -> Self {
        match self.0 {
            Kind::Xfrm { key, number, .. } => Self(Kind::Xfrm { key, direction: XFRM_POLICY_OUT, number }),
            _ => self,
        }
    }
}

/// A number below `modulus`, plus `offset`: the next of a sequence (`numgen inc mod 2`).
#[must_use]
pub const fn numgen_inc(modulus: u32, offset: u32) -> Field {
    Field(Kind::Numgen { kind: NFT_NG_INCREMENTAL, modulus, offset })
}

/// A number below `modulus`, plus `offset`: a random one (`numgen random mod 2`).
#[must_use]
pub const fn numgen_random(modulus: u32, offset: u32) -> Field {
    Field(Kind::Numgen { kind: NFT_NG_RANDOM, modulus, offset })
}

/// The hash of the packet's flow that the kernel computes for load balancing, modulo `modulus`,
/// plus `offset`: `symhash mod 16`.
#[must_use]
pub const fn symhash(modulus: u32, offset: u32) -> Field {
    Field(Kind::Symhash { modulus, offset })
}

/// The name of the operating system that sent a TCP SYN packet: `osf name`.
#[must_use]
pub const fn osf() -> Field {
    Field(Kind::Osf { flags: 0, ttl: 0 })
}

/// What is read inside of a tunnel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Inner {
    Meta(u32),
    Payload(Payload),
}

impl Tunnel {
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
