//! Rules as the kernel runs them: small instructions over four 16-byte registers and one for the verdict.
//!
//! `linearize` makes these from a [`Rule`](crate::Rule), `delinearize` turns them back, `wire` carries them.

use crate::model::data::Data;
use crate::uapi::{NF_NAT_RANGE_PERSISTENT, NF_NAT_RANGE_PROTO_RANDOM, NF_NAT_RANGE_PROTO_RANDOM_FULLY};

/// What a caller chooses in a translation; the kernel sets the other flags by itself.
pub(crate) const NAT_CHOICES: u32 =
    NF_NAT_RANGE_PROTO_RANDOM | NF_NAT_RANGE_PERSISTENT | NF_NAT_RANGE_PROTO_RANDOM_FULLY;

/// Where fields are in their headers, in bytes.
pub(crate) mod offset {
    pub(crate) const IPV4_PROTOCOL: u32 = 9;
    pub(crate) const IPV4_SADDR: u32 = 12;
    pub(crate) const IPV4_DADDR: u32 = 16;
    pub(crate) const IPV6_SADDR: u32 = 8;
    pub(crate) const IPV6_DADDR: u32 = 24;
    pub(crate) const SPORT: u32 = 0;
    pub(crate) const DPORT: u32 = 2;
    pub(crate) const TCP_FLAGS: u32 = 13;
    /// In the TCP option, behind its kind and length.
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
    /// `hton` of `length` bytes in units of `size`.
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
        /// Number of a set that is made in the same batch and has no name yet.
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
        chain: Option<Box<str>>,
    },
    /// An instruction we do not know, kept as its attributes came.
    Other(Box<OtherExpr>),
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct OtherExpr {
    pub(crate) name: Box<str>,
    pub(crate) data: Box<[u8]>,
}
