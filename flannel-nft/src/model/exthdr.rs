//! Fields of IPv6 extension headers, IPv4 options, TCP options and SCTP chunks.

use crate::model::datatype::Datatype;
use crate::model::field::{Field, Kind};
use crate::uapi::*;

/// A field of an extension header, an option or a chunk. Offset and length are in bits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Exthdr {
    /// `NFT_EXTHDR_OP_*`.
    pub(crate) op: u32,
    /// Number of the header, option or chunk.
    pub(crate) kind: u8,
    /// nft's name of it; empty if it has none.
    pub(crate) header: &'static str,
    /// nft's name of the field; empty for whether the header exists.
    pub(crate) name: &'static str,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) datatype: Datatype,
}

impl Exthdr {
    /// Whether the header or option exists.
    pub(crate) const fn exists(op: u32, kind: u8, header: &'static str) -> Self {
        Self { op, kind, header, name: "", offset: 0, length: 8, datatype: Datatype::Boolean }
    }
}

const fn number(length: u8) -> Datatype {
    Datatype::Integer { length, host: false }
}

macro_rules! headers {
    ($($(#[$doc:meta])* $module:ident $op:ident { $($header:literal $kind:literal $exists:ident
        { $($name:ident $label:literal $offset:literal $length:literal $datatype:expr;)* })* })*) => {
        $(
            $(#[$doc])*
            pub mod $module {
                use super::*;

                $(
                    #[doc = concat!("Whether the packet has `", $header, "`")]
                    pub const $exists: Field = Field(Kind::Exthdr(Exthdr::exists($op, $kind, $header)));
                    $(
                        #[doc = concat!("`", $header, " ", $label, "`, ", $length, " bits")]
                        pub const $name: Field = Field(Kind::Exthdr(Exthdr {
                            op: $op,
                            kind: $kind,
                            header: $header,
                            name: $label,
                            offset: $offset,
                            length: $length,
                            datatype: { #[allow(unused_imports, reason = "a number has no name")] use Datatype::*; $datatype },
                        }));
                    )*
                )*

                pub(crate) const ALL: &[Field] = &[$($exists, $($name,)*)*];
            }
        )*

        const FIELDS: &[&[Field]] = &[$($module::ALL,)*];
    };
}

headers! {
    /// IPv6 extension headers, RFC 8200, RFC 6275, RFC 8754.
    exthdr NFT_EXTHDR_OP_IPV6 {
        "hbh" 0 HBH { HBH_NEXTHDR "nexthdr" 0 8 InetProto; HBH_HDRLENGTH "hdrlength" 8 8 number(1); }
        "dst" 60 DST { DST_NEXTHDR "nexthdr" 0 8 InetProto; DST_HDRLENGTH "hdrlength" 8 8 number(1); }
        "rt" 43 RT {
            RT_NEXTHDR "nexthdr" 0 8 InetProto;
            RT_HDRLENGTH "hdrlength" 8 8 number(1);
            RT_TYPE "type" 16 8 number(1);
            RT_SEG_LEFT "seg-left" 24 8 number(1);
        }
        "srh" 43 SRH {
            SRH_LAST_ENTRY "last-entry" 32 8 number(1);
            SRH_FLAGS "flags" 40 8 number(1);
            SRH_TAG "tag" 48 16 number(2);
            SRH_SID_1 "sid[1]" 64 128 Ipv6Addr;
            SRH_SID_2 "sid[2]" 192 128 Ipv6Addr;
        }
        "frag" 44 FRAG {
            FRAG_NEXTHDR "nexthdr" 0 8 InetProto;
            FRAG_RESERVED "reserved" 8 8 number(1);
            FRAG_OFF "frag-off" 16 13 number(2);
            FRAG_RESERVED2 "reserved2" 29 2 number(1);
            FRAG_MORE_FRAGMENTS "more-fragments" 31 1 number(1);
            FRAG_ID "id" 32 32 number(4);
        }
        "mh" 135 MH {
            MH_NEXTHDR "nexthdr" 0 8 InetProto;
            MH_HDRLENGTH "hdrlength" 8 8 number(1);
            MH_TYPE "type" 16 8 MhType;
            MH_RESERVED "reserved" 24 8 number(1);
            MH_CHECKSUM "checksum" 32 16 number(2);
        }
    }
    /// IPv4 options, RFC 791.
    ip_option NFT_EXTHDR_OP_IPV4 {
        "lsrr" 131 LSRR {
            LSRR_TYPE "type" 0 8 number(1);
            LSRR_LENGTH "length" 8 8 number(1);
            LSRR_PTR "ptr" 16 8 number(1);
            LSRR_ADDR "addr" 24 32 Ipv4Addr;
        }
        "rr" 7 RR {
            RR_TYPE "type" 0 8 number(1);
            RR_LENGTH "length" 8 8 number(1);
            RR_PTR "ptr" 16 8 number(1);
            RR_ADDR "addr" 24 32 Ipv4Addr;
        }
        "ssrr" 137 SSRR {
            SSRR_TYPE "type" 0 8 number(1);
            SSRR_LENGTH "length" 8 8 number(1);
            SSRR_PTR "ptr" 16 8 number(1);
            SSRR_ADDR "addr" 24 32 Ipv4Addr;
        }
        "ra" 148 RA {
            RA_TYPE "type" 0 8 number(1);
            RA_LENGTH "length" 8 8 number(1);
            RA_VALUE "value" 16 16 number(2);
        }
    }
    /// TCP options.
    tcp_option NFT_EXTHDR_OP_TCPOPT {
        "eol" 0 EOL {}
        "nop" 1 NOP {}
        "maxseg" 2 MAXSEG { MAXSEG_LENGTH "length" 8 8 number(1); MAXSEG_SIZE "size" 16 16 number(2); }
        "window" 3 WINDOW { WINDOW_LENGTH "length" 8 8 number(1); WINDOW_COUNT "count" 16 8 number(1); }
        "sack-perm" 4 SACK_PERM { SACK_PERM_LENGTH "length" 8 8 number(1); }
        "sack" 5 SACK {
            SACK_LENGTH "length" 8 8 number(1);
            SACK_LEFT "left" 16 32 number(4);
            SACK_RIGHT "right" 48 32 number(4);
        }
        "sack1" 5 SACK1 { SACK1_LEFT "left" 80 32 number(4); SACK1_RIGHT "right" 112 32 number(4); }
        "sack2" 5 SACK2 { SACK2_LEFT "left" 144 32 number(4); SACK2_RIGHT "right" 176 32 number(4); }
        "sack3" 5 SACK3 { SACK3_LEFT "left" 208 32 number(4); SACK3_RIGHT "right" 240 32 number(4); }
        "timestamp" 8 TIMESTAMP {
            TIMESTAMP_LENGTH "length" 8 8 number(1);
            TIMESTAMP_TSVAL "tsval" 16 32 number(4);
            TIMESTAMP_TSECR "tsecr" 48 32 number(4);
        }
        "md5sig" 19 MD5SIG { MD5SIG_LENGTH "length" 8 8 number(1); }
        "mptcp" 30 MPTCP { MPTCP_LENGTH "length" 8 8 number(1); MPTCP_SUBTYPE "subtype" 16 4 number(1); }
        "fastopen" 34 FASTOPEN { FASTOPEN_LENGTH "length" 8 8 number(1); }
    }
    /// SCTP chunks, RFC 9260.
    sctp_chunk NFT_EXTHDR_OP_SCTP {
        "data" 0 DATA {
            DATA_TYPE "type" 0 8 number(1);
            DATA_FLAGS "flags" 8 8 number(1);
            DATA_LENGTH "length" 16 16 number(2);
            DATA_TSN "tsn" 32 32 number(4);
            DATA_STREAM "stream" 64 16 number(2);
            DATA_SSN "ssn" 80 16 number(2);
            DATA_PPID "ppid" 96 32 number(4);
        }
        "init" 1 INIT {
            INIT_TYPE "type" 0 8 number(1);
            INIT_FLAGS "flags" 8 8 number(1);
            INIT_LENGTH "length" 16 16 number(2);
            INIT_TAG "init-tag" 32 32 number(4);
            INIT_A_RWND "a-rwnd" 64 32 number(4);
            INIT_OUTBOUND "num-outbound-streams" 96 16 number(2);
            INIT_INBOUND "num-inbound-streams" 112 16 number(2);
            INIT_TSN "initial-tsn" 128 32 number(4);
        }
        "init-ack" 2 INIT_ACK {
            INIT_ACK_TYPE "type" 0 8 number(1);
            INIT_ACK_FLAGS "flags" 8 8 number(1);
            INIT_ACK_LENGTH "length" 16 16 number(2);
            INIT_ACK_TAG "init-tag" 32 32 number(4);
            INIT_ACK_A_RWND "a-rwnd" 64 32 number(4);
            INIT_ACK_OUTBOUND "num-outbound-streams" 96 16 number(2);
            INIT_ACK_INBOUND "num-inbound-streams" 112 16 number(2);
            INIT_ACK_TSN "initial-tsn" 128 32 number(4);
        }
        "sack" 3 SACK {
            SACK_TYPE "type" 0 8 number(1);
            SACK_FLAGS "flags" 8 8 number(1);
            SACK_LENGTH "length" 16 16 number(2);
            SACK_CUM_TSN_ACK "cum-tsn-ack" 32 32 number(4);
            SACK_A_RWND "a-rwnd" 64 32 number(4);
            SACK_GAP_ACK_BLOCKS "num-gap-ack-blocks" 96 16 number(2);
            SACK_DUP_TSNS "num-dup-tsns" 112 16 number(2);
        }
        "heartbeat" 4 HEARTBEAT {
            HEARTBEAT_TYPE "type" 0 8 number(1);
            HEARTBEAT_FLAGS "flags" 8 8 number(1);
            HEARTBEAT_LENGTH "length" 16 16 number(2);
        }
        "heartbeat-ack" 5 HEARTBEAT_ACK {
            HEARTBEAT_ACK_TYPE "type" 0 8 number(1);
            HEARTBEAT_ACK_FLAGS "flags" 8 8 number(1);
            HEARTBEAT_ACK_LENGTH "length" 16 16 number(2);
        }
        "abort" 6 ABORT {
            ABORT_TYPE "type" 0 8 number(1);
            ABORT_FLAGS "flags" 8 8 number(1);
            ABORT_LENGTH "length" 16 16 number(2);
        }
        "shutdown" 7 SHUTDOWN {
            SHUTDOWN_TYPE "type" 0 8 number(1);
            SHUTDOWN_FLAGS "flags" 8 8 number(1);
            SHUTDOWN_LENGTH "length" 16 16 number(2);
            SHUTDOWN_CUM_TSN_ACK "cum-tsn-ack" 32 32 number(4); }
        "shutdown-ack" 8 SHUTDOWN_ACK {
            SHUTDOWN_ACK_TYPE "type" 0 8 number(1);
            SHUTDOWN_ACK_FLAGS "flags" 8 8 number(1);
            SHUTDOWN_ACK_LENGTH "length" 16 16 number(2);
        }
        "error" 9 ERROR {
            ERROR_TYPE "type" 0 8 number(1);
            ERROR_FLAGS "flags" 8 8 number(1);
            ERROR_LENGTH "length" 16 16 number(2);
        }
        "cookie-echo" 10 COOKIE_ECHO {
            COOKIE_ECHO_TYPE "type" 0 8 number(1);
            COOKIE_ECHO_FLAGS "flags" 8 8 number(1);
            COOKIE_ECHO_LENGTH "length" 16 16 number(2);
        }
        "cookie-ack" 11 COOKIE_ACK {
            COOKIE_ACK_TYPE "type" 0 8 number(1);
            COOKIE_ACK_FLAGS "flags" 8 8 number(1);
            COOKIE_ACK_LENGTH "length" 16 16 number(2);
        }
        "ecne" 12 ECNE {
            ECNE_TYPE "type" 0 8 number(1);
            ECNE_FLAGS "flags" 8 8 number(1);
            ECNE_LENGTH "length" 16 16 number(2);
            ECNE_LOWEST_TSN "lowest-tsn" 32 32 number(4); }
        "cwr" 13 CWR {
            CWR_TYPE "type" 0 8 number(1);
            CWR_FLAGS "flags" 8 8 number(1);
            CWR_LENGTH "length" 16 16 number(2);
            CWR_LOWEST_TSN "lowest-tsn" 32 32 number(4); }
        "shutdown-complete" 14 SHUTDOWN_COMPLETE {
            SHUTDOWN_COMPLETE_TYPE "type" 0 8 number(1);
            SHUTDOWN_COMPLETE_FLAGS "flags" 8 8 number(1);
            SHUTDOWN_COMPLETE_LENGTH "length" 16 16 number(2);
        }
        "asconf-ack" 128 ASCONF_ACK {
            ASCONF_ACK_TYPE "type" 0 8 number(1);
            ASCONF_ACK_FLAGS "flags" 8 8 number(1);
            ASCONF_ACK_LENGTH "length" 16 16 number(2);
            ASCONF_ACK_SEQNO "seqno" 32 32 number(4); }
        "forward-tsn" 192 FORWARD_TSN {
            FORWARD_TSN_TYPE "type" 0 8 number(1);
            FORWARD_TSN_FLAGS "flags" 8 8 number(1);
            FORWARD_TSN_LENGTH "length" 16 16 number(2);
            FORWARD_TSN_NEW_CUM_TSN "new-cum-tsn" 32 32 number(4); }
        "asconf" 193 ASCONF {
            ASCONF_TYPE "type" 0 8 number(1);
            ASCONF_FLAGS "flags" 8 8 number(1);
            ASCONF_LENGTH "length" 16 16 number(2);
            ASCONF_SEQNO "seqno" 32 32 number(4); }
    }
}

impl Field {
    /// Whether the packet has the TCP option of this number: `tcp option 255 exists`.
    #[must_use]
    pub const fn tcp_option(kind: u8) -> Self {
        Self(Kind::Exthdr(Exthdr::exists(NFT_EXTHDR_OP_TCPOPT, kind, "")))
    }
}

/// The field of an extension header at this place, in bits; `None` for `length` asks whether the
/// header exists.
pub(crate) fn find(op: u32, kind: u8, offset: u32, length: Option<u32>) -> Option<Field> {
    let known = FIELDS.iter().copied().flatten().copied().find(|field| match field.0 {
        Kind::Exthdr(field) => {
            let place = match length {
                Some(length) => !field.name.is_empty() && (field.offset, field.length) == (offset, length),
                None => field.name.is_empty() && offset == 0,
            };
            place && (field.op, field.kind) == (op, kind)
        }
        _ => false,
    });
    let unknown = op == NFT_EXTHDR_OP_TCPOPT && length.is_none() && offset == 0;
    known.or_else(|| unknown.then(|| Field::tcp_option(kind)))
}

/// The field of a set's `typeof` expression: nft's number of the header and of the field (`enum exthdr_desc_id` and the
/// fields' enums in nft's include/exthdr.h, ipopt.h, tcpopt.h and sctp_chunk.h).
pub(crate) fn declared(op: u32, header: u32, place: u32) -> Option<Field> {
    const IPV6: [&str; 9] = ["", "hbh", "rt", "rt", "rt", "srh", "frag", "dst", "mh"];
    const OPTION: [&str; 6] = ["", "type", "length", "value", "ptr", "addr"];
    let place = usize::try_from(place).ok()?;
    let all = FIELDS.iter().copied().flatten().copied();
    let mut of_header = all.filter(|field| match field.0 {
        Kind::Exthdr(field) if op == NFT_EXTHDR_OP_IPV6 => {
            let name = usize::try_from(header).ok().and_then(|header| IPV6.get(header));
            field.op == op && name == Some(&field.header)
        }
        Kind::Exthdr(field) => (field.op, u32::from(field.kind)) == (op, header),
        _ => false,
    });
    let is_named = |field: &Field| matches!(field.0, Kind::Exthdr(field) if !field.name.is_empty());
    match op {
        NFT_EXTHDR_OP_IPV4 => {
            let name = OPTION.get(place)?;
            of_header.find(|field| matches!(field.0, Kind::Exthdr(field) if field.name == *name))
        }
        NFT_EXTHDR_OP_SCTP => of_header.filter(is_named).nth(place),
        // 0 is the number of the header itself.
        _ => of_header.filter(is_named).nth(place.checked_sub(1)?),
    }
}

/// Whole bytes, which have no name: `tcp option @255,8,8`. nft has no syntax for those of other
/// headers.
pub(crate) fn unnamed(op: u32, kind: u8, offset: u32, length: u32) -> Option<Field> {
    let bytes = u8::try_from(length / 8).ok()?;
    let datatype = number(bytes);
    Some(Field(Kind::Exthdr(Exthdr { op, kind, header: "", name: "@", offset, length, datatype })))
}
