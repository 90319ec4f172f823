//! The expressions that the kernel runs, over four 16-byte registers and the verdict register.
//!
//! `linearize` makes them from a [`Rule`](crate::Rule), `delinearize` does the reverse, and `wire`
//! encodes and decodes them.

use crate::model::data::Data;
use crate::model::name::ChainName;
use crate::uapi::{NF_NAT_RANGE_PERSISTENT, NF_NAT_RANGE_PROTO_RANDOM, NF_NAT_RANGE_PROTO_RANDOM_FULLY};

/// The NAT flags that a caller chooses; the kernel sets the others itself.
pub(crate) const NAT_CHOICES: u32 =
    NF_NAT_RANGE_PROTO_RANDOM | NF_NAT_RANGE_PERSISTENT | NF_NAT_RANGE_PROTO_RANDOM_FULLY;

/// Offsets of fields in their headers, in bytes.
pub(crate) mod offset {
    pub(crate) const IPV4_PROTOCOL: u32 = 9;
    pub(crate) const IPV4_SADDR: u32 = 12;
    pub(crate) const IPV4_DADDR: u32 = 16;
    pub(crate) const IPV6_SADDR: u32 = 8;
    pub(crate) const IPV6_DADDR: u32 = 24;
    pub(crate) const SPORT: u32 = 0;
    pub(crate) const DPORT: u32 = 2;
    pub(crate) const TCP_FLAGS: u32 = 13;
    /// In the TCP option, after kind and length.
    pub(crate) const MSS: u32 = 2;
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Expr {
    Bitwise {
        sreg: u32,
        dreg: u32,
        mask: Data,
        xor: Data,
    },
    /// Converts `length` bytes to network byte order, in units of `size`.
    Byteorder {
        sreg: u32,
        dreg: u32,
        op: u32,
        length: u32,
        size: u32,
    },
    Cmp {
        sreg: u32,
        op: u32,
        data: Data,
    },
    Counter {
        packets: u64,
        bytes: u64,
    },
    CtLoad {
        key: u32,
        dreg: u32,
    },
    CtSet {
        key: u32,
        sreg: u32,
    },
    /// Writes a TCP option (`exthdr write tcpopt`).
    ExthdrWrite {
        sreg: u32,
        option: u8,
        offset: u32,
        length: u32,
        op: u32,
    },
    Fib {
        result: u32,
        flags: u32,
        dreg: u32,
    },
    Immediate {
        dreg: u32,
        data: Data,
    },
    Limit {
        rate: u64,
        unit: u64,
        burst: u32,
        kind: u32,
        flags: u32,
    },
    Log {
        group: Option<u16>,
        prefix: Option<Box<str>>,
        snaplen: Option<u32>,
        threshold: Option<u16>,
        level: Option<u32>,
        flags: Option<u32>,
    },
    Lookup {
        set: Box<str>,
        /// ID of a set that is created in the same batch and has no name yet.
        id: Option<u32>,
        sreg: u32,
        dreg: Option<u32>,
        inverted: bool,
    },
    Masquerade {
        flags: u32,
        port_min: Option<u32>,
        port_max: Option<u32>,
    },
    MetaLoad {
        key: u32,
        dreg: u32,
    },
    MetaSet {
        key: u32,
        sreg: u32,
    },
    Nat {
        kind: u32,
        family: u32,
        address_min: Option<u32>,
        address_max: Option<u32>,
        port_min: Option<u32>,
        port_max: Option<u32>,
        flags: u32,
    },
    Notrack,
    Object {
        kind: u32,
        name: Box<str>,
    },
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        dreg: u32,
    },
    Range {
        sreg: u32,
        op: u32,
        from: Data,
        to: Data,
    },
    Redirect {
        port_min: Option<u32>,
        port_max: Option<u32>,
        flags: u32,
    },
    Reject {
        kind: u32,
        code: u8,
    },
    Rt {
        key: u32,
        dreg: u32,
    },
    Verdict {
        code: i32,
        chain: Option<ChainName>,
        /// ID of an implicit chain that is created in the same batch and has no name yet.
        id: Option<u32>,
    },
    /// An expression without a type here, with its attributes as bytes.
    Other(Box<OtherExpr>),
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct OtherExpr {
    pub(crate) name: Box<str>,
    pub(crate) data: Box<[u8]>,
}
