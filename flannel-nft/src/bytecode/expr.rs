//! Rules as the kernel runs them: small instructions over registers (include/uapi/linux/netfilter/nf_tables.h).
//!
//! `linearize` makes these from a [`Rule`](crate::Rule), `delinearize` turns them back, `wire` carries them.

use crate::model::data::Data;

/// Register that holds a verdict.
pub(crate) const VERDICT: u32 = 0;
/// First of the four 16-byte data registers. These numbers are understood by every kernel and `nft`.
pub(crate) const REG1: u32 = 1;

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

/// `NFT_CMP_*`.
pub(crate) mod cmp {
    pub(crate) const EQ: u32 = 0;
    pub(crate) const NEQ: u32 = 1;
    pub(crate) const LTE: u32 = 3;
    pub(crate) const GTE: u32 = 5;
}

/// `NFT_PAYLOAD_*_HEADER`.
pub(crate) mod payload {
    pub(crate) const NETWORK: u32 = 1;
    pub(crate) const TRANSPORT: u32 = 2;
}

/// `NFT_META_*`.
pub(crate) mod meta {
    pub(crate) const MARK: u32 = 3;
    pub(crate) const IIF: u32 = 4;
    pub(crate) const OIF: u32 = 5;
    pub(crate) const IIFNAME: u32 = 6;
    pub(crate) const OIFNAME: u32 = 7;
    pub(crate) const NFPROTO: u32 = 15;
    pub(crate) const L4PROTO: u32 = 16;
    pub(crate) const PKTTYPE: u32 = 19;
}

/// `NFT_CT_*`.
pub(crate) mod ct {
    pub(crate) const STATE: u32 = 0;
    pub(crate) const DIRECTION: u32 = 1;
    pub(crate) const STATUS: u32 = 2;
    pub(crate) const MARK: u32 = 3;
}

/// `NFT_FIB_RESULT_ADDRTYPE` and `NFTA_FIB_F_*`.
pub(crate) mod fib {
    pub(crate) const ADDRTYPE: u32 = 3;
    pub(crate) const SADDR: u32 = 1;
    pub(crate) const DADDR: u32 = 2;
}

/// `NF_NAT_RANGE_*` (include/uapi/linux/netfilter/nf_nat.h).
pub(crate) mod nat {
    pub(crate) const MAP_IPS: u32 = 0x1;
    pub(crate) const PROTO_SPECIFIED: u32 = 0x2;
    pub(crate) const RANDOM: u32 = 0x4;
    pub(crate) const PERSISTENT: u32 = 0x8;
    pub(crate) const FULLY_RANDOM: u32 = 0x10;
    pub(crate) const CHOICES: u32 = RANDOM | PERSISTENT | FULLY_RANDOM;
}

/// `NFT_REJECT_*`.
pub(crate) mod reject {
    pub(crate) const ICMP: u32 = 0;
    pub(crate) const TCP_RESET: u32 = 1;
    pub(crate) const ICMPX: u32 = 2;
}
