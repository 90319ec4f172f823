//! The expressions that the kernel runs, over four 16-byte registers and the verdict register.
//!
//! `linearize` makes them from a [`Rule`](crate::Rule), `delinearize` does the reverse, and `wire`
//! encodes and decodes them.

use crate::model::data::Data;
use crate::model::name::ChainName;
use crate::uapi::*;

/// The NAT flags that a caller chooses; the kernel sets the others itself.
pub(crate) const NAT_CHOICES: u32 = NF_NAT_RANGE_PROTO_RANDOM
    | NF_NAT_RANGE_PERSISTENT
    | NF_NAT_RANGE_PROTO_RANDOM_FULLY
    | NF_NAT_RANGE_NETMAP;

/// An attribute that is absent if it is zero, at least when sent.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Nonzero(pub(crate) u32);

/// An attribute whose only value is zero, and which is never sent.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Zero;

/// The kernel's number of a register, of the register that starts at this 32-bit word. The kernel
/// reports the first word of a 16-byte register under the register's number.
pub(crate) const fn register(word: u32) -> u32 {
    if word.is_multiple_of(4) { NFT_REG_1 + word / 4 } else { NFT_REG32_00.saturating_add(word) }
}

/// The inverse of [`register`].
pub(crate) fn word(register: u32) -> Option<usize> {
    let word = match register {
        NFT_REG_1..=NFT_REG_4 => (register - NFT_REG_1) * 4,
        NFT_REG32_00..=NFT_REG32_15 => register - NFT_REG32_00,
        _ => return None,
    };
    usize::try_from(word).ok()
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Expr {
    /// `(sreg & mask) ^ xor`.
    Bitwise {
        sreg: u32,
        dreg: u32,
        length: u32,
        op: Zero,
        mask: Data,
        xor: Data,
    },
    /// `NFT_BITWISE_AND`, `_OR` or `_XOR` of two registers. Kernel ≥ 6.13.
    Combine {
        sreg: u32,
        sreg2: u32,
        dreg: u32,
        length: u32,
        op: u32,
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
    Connlimit {
        count: u32,
        flags: Nonzero,
    },
    Counter {
        packets: u64,
        bytes: u64,
    },
    CtLoad {
        key: u32,
        dreg: u32,
        direction: Option<u8>,
    },
    CtSet {
        key: u32,
        sreg: u32,
        direction: Option<u8>,
    },
    Dup {
        address: Option<u32>,
        device: Option<u32>,
    },
    /// Adds, updates or deletes an element of a set.
    Dynset {
        set: Box<str>,
        id: Option<u32>,
        op: u32,
        key: u32,
        data: Option<u32>,
        /// Milliseconds.
        timeout: Option<u64>,
        flags: Nonzero,
        exprs: Box<[Self]>,
    },
    /// Loads a field of an extension header or option.
    ExthdrLoad {
        dreg: u32,
        kind: u8,
        offset: u32,
        length: u32,
        op: Nonzero,
        flags: Nonzero,
    },
    /// Overwrites a TCP option with no-operations.
    ExthdrReset {
        kind: u8,
        offset: Nonzero,
        length: Nonzero,
        op: u32,
        flags: Zero,
    },
    /// Writes a TCP option (`exthdr write tcpopt`).
    ExthdrWrite {
        sreg: u32,
        kind: u8,
        offset: u32,
        length: u32,
        op: u32,
        flags: Zero,
    },
    Fib {
        result: u32,
        flags: u32,
        dreg: u32,
    },
    FlowOffload {
        table: Box<str>,
    },
    Fwd {
        device: u32,
        address: Option<u32>,
        family: Nonzero,
    },
    Hash {
        sreg: u32,
        dreg: u32,
        length: u32,
        modulus: u32,
        seed: Option<u32>,
        offset: Nonzero,
        kind: Zero,
    },
    Immediate {
        dreg: u32,
        data: Data,
    },
    /// Evaluates an expression for the packet inside of a tunnel.
    Inner {
        number: u32,
        kind: u32,
        flags: u32,
        header_size: u32,
        expr: Box<Self>,
    },
    /// When a packet was last seen.
    Last {
        set: Nonzero,
        milliseconds: Option<u64>,
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
        flags: Nonzero,
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
        flags: Nonzero,
    },
    Notrack,
    Numgen {
        dreg: u32,
        modulus: u32,
        kind: u32,
        offset: Nonzero,
    },
    Object {
        kind: u32,
        name: Box<str>,
    },
    /// The object that a map has for a key.
    ObjectMap {
        sreg: u32,
        set: Box<str>,
        id: Option<u32>,
    },
    Osf {
        dreg: u32,
        ttl: u8,
        flags: Nonzero,
    },
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        dreg: u32,
    },
    PayloadWrite {
        sreg: u32,
        base: u32,
        offset: u32,
        length: u32,
        checksum: u32,
        checksum_offset: u32,
        checksum_flags: Nonzero,
    },
    Queue {
        number: Option<u16>,
        total: Option<u16>,
        flags: Option<u16>,
        sreg: Option<u32>,
    },
    Quota {
        bytes: u64,
        flags: u32,
        consumed: u64,
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
        flags: Nonzero,
    },
    Reject {
        kind: u32,
        code: Option<u8>,
    },
    Rt {
        key: u32,
        dreg: u32,
    },
    /// `sreg << data` or `sreg >> data`.
    Shift {
        sreg: u32,
        dreg: u32,
        length: u32,
        op: u32,
        data: Data,
    },
    Socket {
        key: u32,
        dreg: u32,
        level: Option<u32>,
    },
    Symhash {
        dreg: u32,
        modulus: u32,
        offset: Nonzero,
        kind: u32,
    },
    Synproxy {
        mss: u16,
        wscale: u8,
        flags: u32,
    },
    Tproxy {
        family: u32,
        address: Option<u32>,
        port: Option<u32>,
    },
    Verdict {
        code: i32,
        chain: Option<ChainName>,
        /// ID of an implicit chain that is created in the same batch and has no name yet.
        id: Option<u32>,
    },
    Xfrm {
        key: u32,
        direction: u8,
        number: u32,
        dreg: u32,
    },
    /// An expression without a type here, with its attributes as bytes.
    Other(Box<OtherExpr>),
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct OtherExpr {
    pub(crate) name: Box<str>,
    pub(crate) data: Box<[u8]>,
}
