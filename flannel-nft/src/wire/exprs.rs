//! Expressions to netlink attributes and back.

use std::time::Duration;

use flannel_netlink::{Attribute, Attributes, Malformed};

use crate::bytecode::expr::{Expr, NAT_CHOICES, Nonzero, OtherExpr, Zero};
use crate::model::data::Data;
use crate::model::name::ChainName;
use crate::uapi::*;

/// Appends `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }`.
pub(crate) fn encode(expr: &Expr, list: &mut Attributes<'_>) {
    encode_as(NFTA_LIST_ELEM, expr, list);
}

/// The same in an attribute of another type.
pub(crate) fn encode_as(kind: u16, expr: &Expr, list: &mut Attributes<'_>) {
    list.nested(kind, |element| named(expr, element));
}

fn named(expr: &Expr, element: &mut Attributes<'_>) {
    element.text(NFTA_EXPR_NAME, name(expr));
    match expr {
        Expr::Other(other) => element.bytes(NFTA_EXPR_DATA | NLA_F_NESTED, &other.data),
        Expr::Notrack => {}
        Expr::Verdict { code, chain, id } => element.nested(NFTA_EXPR_DATA, |a| {
            a.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            a.nested(NFTA_IMMEDIATE_DATA, |a| verdict(*code, chain.as_ref(), *id, a));
        }),
        _ => element.nested(NFTA_EXPR_DATA, |a| body(expr, a)),
    }
}

/// The value of an attribute.
trait Field: Sized {
    fn write(&self, kind: u16, a: &mut Attributes<'_>);
    /// `None` if the attribute is missing or has another form than [`Field::write`] writes.
    fn read(attribute: Option<Attribute<'_>>) -> Option<Self>;
}

macro_rules! field {
    ($($type:ty: |$self:ident, $kind:ident, $a:ident| $write:expr, |$attribute:ident| $read:expr;)*) => {
        $(
            impl Field for $type {
                fn write(&self, $kind: u16, $a: &mut Attributes<'_>) {
                    let $self = self;
                    $write
                }
                fn read($attribute: Option<Attribute<'_>>) -> Option<Self> {
                    $read
                }
            }
        )*
    };
}

field! {
    u8: |value, kind, a| a.u8(kind, *value), |found| found?.u8().ok();
    u16: |value, kind, a| a.be16(kind, *value), |found| found?.be16().ok();
    u32: |value, kind, a| a.be32(kind, *value), |found| found?.be32().ok();
    u64: |value, kind, a| a.be64(kind, *value), |found| found?.be64().ok();
    Box<str>: |value, kind, a| a.text(kind, value), |found| found?.text().ok().map(Into::into);
    Data: |value, kind, a| a.nested(kind, |a| a.bytes(NFTA_DATA_VALUE, value.as_slice())), |found| {
        let inner = found?.nested().next()?.ok()?;
        (inner.kind == NFTA_DATA_VALUE).then(|| Self::new(inner.payload))
    };
    // `NFT_LOOKUP_F_INV`.
    bool: |value, kind, a| a.be32(kind, u32::from(*value)), |found| match found {
        Some(found) => match found.be32().ok()? {
            0 => Some(false),
            flags => (flags == NFT_LOOKUP_F_INV).then_some(true),
        },
        None => Some(false),
    };
    Nonzero: |value, kind, a| if value.0 != 0 { a.be32(kind, value.0) }, |found| match found {
        Some(found) => Some(Self(found.be32().ok()?)),
        None => Some(Self(0)),
    };
    Zero: |_value, _kind, _a| {}, |found| match found {
        Some(found) => (found.be32().ok()? == 0).then_some(Self),
        None => Some(Self),
    };
    Box<Expr>: |expr, kind, a| encode_as(kind, expr, a), |found| decode(&found?).ok().map(Box::new);
    // One expression is `NFTA_DYNSET_EXPR`, several are in `NFTA_DYNSET_EXPRESSIONS`.
    Box<[Expr]>: |exprs, _kind, a| match &**exprs {
        [] => {}
        [expr] => encode_as(NFTA_DYNSET_EXPR, expr, a),
        exprs => a.nested(NFTA_DYNSET_EXPRESSIONS, |a| exprs.iter().for_each(|expr| encode(expr, a))),
    }, |found| match found {
        Some(found) if found.kind == NFTA_DYNSET_EXPR => Some(Box::new([decode(&found).ok()?])),
        Some(found) => found.nested().map(|expr| decode(&expr.ok()?).ok()).collect(),
        None => Some(Box::default()),
    };
}

impl<T: Field> Field for Option<T> {
    fn write(&self, kind: u16, a: &mut Attributes<'_>) {
        self.iter().for_each(|value| value.write(kind, a));
    }
    fn read(attribute: Option<Attribute<'_>>) -> Option<Self> {
        match attribute {
            Some(_) => T::read(attribute).map(Some),
            None => Some(None),
        }
    }
}

macro_rules! expressions {
    ($($name:literal $variant:ident { $($field:ident $attribute:ident $(| $or:ident)?),* })*) => {
        /// The kernel's name of an expression.
        pub(crate) fn name(expr: &Expr) -> &str {
            match expr {
                $(Expr::$variant { .. } => $name,)*
                Expr::Notrack => "notrack",
                Expr::Verdict { .. } => "immediate",
                Expr::Other(other) => &other.name,
            }
        }

        /// Appends the attributes of an expression.
        pub(crate) fn body(expr: &Expr, a: &mut Attributes<'_>) {
            match expr {
                $(Expr::$variant { $($field),* } => { $($field.write($attribute, a);)* })*
                Expr::Notrack | Expr::Verdict { .. } | Expr::Other(_) => {}
            }
        }

        /// The expression of this name whose attributes are exactly those that are found.
        fn known(name: &[u8], found: &Found<'_>) -> Option<Expr> {
            $(
                if name == $name.as_bytes() && found.only(&[$($attribute, $($or,)?)*])
                    && let Some(expr) = (|| Some(Expr::$variant {
                        $($field: Field::read(found.at($attribute)$(.or_else(|| found.at($or)))?)?,)*
                    }))()
                {
                    return Some(expr);
                }
            )*
            None
        }
    };
}

// In the order in which the attributes are sent.
expressions! {
    "bitwise" Bitwise {
        sreg NFTA_BITWISE_SREG, dreg NFTA_BITWISE_DREG, op NFTA_BITWISE_OP, length NFTA_BITWISE_LEN,
        mask NFTA_BITWISE_MASK, xor NFTA_BITWISE_XOR
    }
    "bitwise" Combine {
        sreg NFTA_BITWISE_SREG, sreg2 NFTA_BITWISE_SREG2, dreg NFTA_BITWISE_DREG, op NFTA_BITWISE_OP,
        length NFTA_BITWISE_LEN
    }
    "bitwise" Shift {
        sreg NFTA_BITWISE_SREG, dreg NFTA_BITWISE_DREG, op NFTA_BITWISE_OP, length NFTA_BITWISE_LEN,
        data NFTA_BITWISE_DATA
    }
    "byteorder" Byteorder {
        sreg NFTA_BYTEORDER_SREG, dreg NFTA_BYTEORDER_DREG, op NFTA_BYTEORDER_OP, length NFTA_BYTEORDER_LEN,
        size NFTA_BYTEORDER_SIZE
    }
    "cmp" Cmp { sreg NFTA_CMP_SREG, op NFTA_CMP_OP, data NFTA_CMP_DATA }
    "connlimit" Connlimit { count NFTA_CONNLIMIT_COUNT, flags NFTA_CONNLIMIT_FLAGS }
    "counter" Counter { bytes NFTA_COUNTER_BYTES, packets NFTA_COUNTER_PACKETS }
    "ct" CtLoad { dreg NFTA_CT_DREG, key NFTA_CT_KEY, direction NFTA_CT_DIRECTION }
    "ct" CtSet { key NFTA_CT_KEY, direction NFTA_CT_DIRECTION, sreg NFTA_CT_SREG }
    "dup" Dup { address NFTA_DUP_SREG_ADDR, device NFTA_DUP_SREG_DEV }
    "dynset" Dynset {
        key NFTA_DYNSET_SREG_KEY, data NFTA_DYNSET_SREG_DATA, op NFTA_DYNSET_OP, timeout NFTA_DYNSET_TIMEOUT,
        set NFTA_DYNSET_SET_NAME, id NFTA_DYNSET_SET_ID, exprs NFTA_DYNSET_EXPR | NFTA_DYNSET_EXPRESSIONS,
        flags NFTA_DYNSET_FLAGS
    }
    "exthdr" ExthdrLoad {
        dreg NFTA_EXTHDR_DREG, kind NFTA_EXTHDR_TYPE, offset NFTA_EXTHDR_OFFSET, length NFTA_EXTHDR_LEN,
        op NFTA_EXTHDR_OP, flags NFTA_EXTHDR_FLAGS
    }
    "exthdr" ExthdrWrite {
        kind NFTA_EXTHDR_TYPE, offset NFTA_EXTHDR_OFFSET, length NFTA_EXTHDR_LEN, op NFTA_EXTHDR_OP,
        sreg NFTA_EXTHDR_SREG, flags NFTA_EXTHDR_FLAGS
    }
    "exthdr" ExthdrReset {
        kind NFTA_EXTHDR_TYPE, offset NFTA_EXTHDR_OFFSET, length NFTA_EXTHDR_LEN, op NFTA_EXTHDR_OP,
        flags NFTA_EXTHDR_FLAGS
    }
    "fib" Fib { dreg NFTA_FIB_DREG, result NFTA_FIB_RESULT, flags NFTA_FIB_FLAGS }
    "flow_offload" FlowOffload { table NFTA_FLOW_TABLE_NAME }
    "fwd" Fwd { device NFTA_FWD_SREG_DEV, address NFTA_FWD_SREG_ADDR, family NFTA_FWD_NFPROTO }
    "hash" Hash {
        sreg NFTA_HASH_SREG, dreg NFTA_HASH_DREG, length NFTA_HASH_LEN, modulus NFTA_HASH_MODULUS,
        seed NFTA_HASH_SEED, offset NFTA_HASH_OFFSET, kind NFTA_HASH_TYPE
    }
    "hash" Symhash {
        dreg NFTA_HASH_DREG, modulus NFTA_HASH_MODULUS, offset NFTA_HASH_OFFSET, kind NFTA_HASH_TYPE
    }
    "immediate" Immediate { dreg NFTA_IMMEDIATE_DREG, data NFTA_IMMEDIATE_DATA }
    "inner" Inner {
        number NFTA_INNER_NUM, kind NFTA_INNER_TYPE, flags NFTA_INNER_FLAGS, header_size NFTA_INNER_HDRSIZE,
        expr NFTA_INNER_EXPR
    }
    "last" Last { set NFTA_LAST_SET, milliseconds NFTA_LAST_MSECS }
    "limit" Limit {
        rate NFTA_LIMIT_RATE, unit NFTA_LIMIT_UNIT, burst NFTA_LIMIT_BURST, kind NFTA_LIMIT_TYPE,
        flags NFTA_LIMIT_FLAGS
    }
    "log" Log {
        group NFTA_LOG_GROUP, prefix NFTA_LOG_PREFIX, snaplen NFTA_LOG_SNAPLEN, threshold NFTA_LOG_QTHRESHOLD,
        level NFTA_LOG_LEVEL, flags NFTA_LOG_FLAGS
    }
    "lookup" Lookup {
        set NFTA_LOOKUP_SET, sreg NFTA_LOOKUP_SREG, dreg NFTA_LOOKUP_DREG, id NFTA_LOOKUP_SET_ID,
        inverted NFTA_LOOKUP_FLAGS
    }
    "masq" Masquerade { flags NFTA_MASQ_FLAGS, port_min NFTA_MASQ_REG_PROTO_MIN, port_max NFTA_MASQ_REG_PROTO_MAX }
    "meta" MetaLoad { dreg NFTA_META_DREG, key NFTA_META_KEY }
    "meta" MetaSet { key NFTA_META_KEY, sreg NFTA_META_SREG }
    "nat" Nat {
        kind NFTA_NAT_TYPE, family NFTA_NAT_FAMILY, address_min NFTA_NAT_REG_ADDR_MIN,
        address_max NFTA_NAT_REG_ADDR_MAX, port_min NFTA_NAT_REG_PROTO_MIN, port_max NFTA_NAT_REG_PROTO_MAX,
        flags NFTA_NAT_FLAGS
    }
    "numgen" Numgen {
        dreg NFTA_NG_DREG, modulus NFTA_NG_MODULUS, kind NFTA_NG_TYPE, offset NFTA_NG_OFFSET
    }
    "objref" Object { kind NFTA_OBJREF_IMM_TYPE, name NFTA_OBJREF_IMM_NAME }
    "objref" ObjectMap { sreg NFTA_OBJREF_SET_SREG, set NFTA_OBJREF_SET_NAME, id NFTA_OBJREF_SET_ID }
    "osf" Osf { dreg NFTA_OSF_DREG, ttl NFTA_OSF_TTL, flags NFTA_OSF_FLAGS }
    "payload" Payload {
        dreg NFTA_PAYLOAD_DREG, base NFTA_PAYLOAD_BASE, offset NFTA_PAYLOAD_OFFSET, length NFTA_PAYLOAD_LEN
    }
    "payload" PayloadWrite {
        sreg NFTA_PAYLOAD_SREG, base NFTA_PAYLOAD_BASE, offset NFTA_PAYLOAD_OFFSET, length NFTA_PAYLOAD_LEN,
        checksum NFTA_PAYLOAD_CSUM_TYPE, checksum_offset NFTA_PAYLOAD_CSUM_OFFSET,
        checksum_flags NFTA_PAYLOAD_CSUM_FLAGS
    }
    "queue" Queue {
        number NFTA_QUEUE_NUM, total NFTA_QUEUE_TOTAL, flags NFTA_QUEUE_FLAGS, sreg NFTA_QUEUE_SREG_QNUM
    }
    "quota" Quota { bytes NFTA_QUOTA_BYTES, flags NFTA_QUOTA_FLAGS, consumed NFTA_QUOTA_CONSUMED }
    "range" Range { sreg NFTA_RANGE_SREG, op NFTA_RANGE_OP, from NFTA_RANGE_FROM_DATA, to NFTA_RANGE_TO_DATA }
    "redir" Redirect {
        port_min NFTA_REDIR_REG_PROTO_MIN, port_max NFTA_REDIR_REG_PROTO_MAX, flags NFTA_REDIR_FLAGS
    }
    "reject" Reject { kind NFTA_REJECT_TYPE, code NFTA_REJECT_ICMP_CODE }
    "rt" Rt { dreg NFTA_RT_DREG, key NFTA_RT_KEY }
    "socket" Socket { key NFTA_SOCKET_KEY, dreg NFTA_SOCKET_DREG, level NFTA_SOCKET_LEVEL }
    "synproxy" Synproxy { mss NFTA_SYNPROXY_MSS, wscale NFTA_SYNPROXY_WSCALE, flags NFTA_SYNPROXY_FLAGS }
    "tproxy" Tproxy { family NFTA_TPROXY_FAMILY, address NFTA_TPROXY_REG_ADDR, port NFTA_TPROXY_REG_PORT }
    "xfrm" Xfrm { key NFTA_XFRM_KEY, direction NFTA_XFRM_DIR, number NFTA_XFRM_SPNUM, dreg NFTA_XFRM_DREG }
}

/// Appends `NFTA_DATA_VERDICT`.
pub(crate) fn verdict(code: i32, chain: Option<&ChainName>, id: Option<u32>, a: &mut Attributes<'_>) {
    a.nested(NFTA_DATA_VERDICT, |a| {
        a.bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
        chain.iter().for_each(|chain| a.string(NFTA_VERDICT_CHAIN, chain.as_bytes()));
        id.iter().for_each(|id| a.be32(NFTA_VERDICT_CHAIN_ID, *id));
    });
}

/// Reads an `NFTA_LIST_ELEM`. If its attributes are not exactly those that [`encode`] writes, they
/// are kept as bytes.
pub(crate) fn decode(element: &Attribute<'_>) -> Result<Expr, Malformed> {
    let (mut name, mut data) = (&[][..], &[][..]);
    for attribute in element.nested() {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_EXPR_NAME => name = attribute.string(),
            NFTA_EXPR_DATA => data = attribute.payload,
            _ => {}
        }
    }
    Ok(read_named(name, data))
}

/// Reads the attributes of the expression of this name.
pub(crate) fn decode_named(name: &str, data: &[u8]) -> Expr {
    read_named(name.as_bytes(), data)
}

fn read_named(name: &[u8], data: &[u8]) -> Expr {
    let read = Found::read(data).ok().and_then(|found| typed(name, &found));
    let other = || OtherExpr { name: String::from_utf8_lossy(name).into(), data: data.into() };
    read.unwrap_or_else(|| Expr::Other(Box::new(other())))
}

/// Packets and bytes of a counter.
pub(crate) fn counts(expr: &Expr) -> Option<(u64, u64)> {
    if let Expr::Counter { packets, bytes } = expr { Some((*packets, *bytes)) } else { None }
}

/// Bytes that a quota has counted.
pub(crate) fn quota_used(expr: &Expr) -> Option<u64> {
    if let Expr::Quota { consumed, .. } = expr { Some(*consumed) } else { None }
}

/// How long ago `last` saw a packet; `None` if it has seen none.
pub(crate) fn last_used(expr: &Expr) -> Option<Duration> {
    let Expr::Last { set: Nonzero(1..), milliseconds } = expr else { return None };
    milliseconds.map(Duration::from_millis)
}

/// Whether packets change the expression.
pub(crate) fn has_state(expr: &Expr) -> bool {
    matches!(expr, Expr::Counter { .. } | Expr::Last { .. } | Expr::Quota { .. })
}

/// The expression without what packets change in it.
pub(crate) fn without_state(expr: &Expr) -> Expr {
    match expr {
        Expr::Counter { .. } => Expr::Counter { packets: 0, bytes: 0 },
        Expr::Quota { bytes, flags, .. } => Expr::Quota { bytes: *bytes, flags: *flags, consumed: 0 },
        Expr::Last { .. } => Expr::Last { set: Nonzero(0), milliseconds: None },
        expr => expr.clone(),
    }
}

/// The attributes of an expression, by number.
struct Found<'a>([Option<Attribute<'a>>; 16]);

impl<'a> Found<'a> {
    fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut found = [None; 16];
        for attribute in flannel_netlink::attributes(data) {
            let attribute = attribute?;
            match found.get_mut(usize::from(attribute.kind)) {
                Some(place) => *place = Some(attribute),
                None => return Err(Malformed::Value { what: "attribute type" }),
            }
        }
        Ok(Self(found))
    }

    fn at(&self, kind: u16) -> Option<Attribute<'a>> {
        self.0.get(usize::from(kind)).copied().flatten()
    }

    /// Whether there are no attributes but these, and padding.
    fn only(&self, kinds: &[u16]) -> bool {
        let mut others = self.0.iter().flatten().filter(|found| !kinds.contains(&found.kind));
        others.all(|found| found.payload.is_empty())
    }
}

fn typed(name: &[u8], found: &Found<'_>) -> Option<Expr> {
    if name == b"notrack" {
        return Some(Expr::Notrack);
    }
    if name == b"immediate" && found.at(NFTA_IMMEDIATE_DREG)?.be32().ok()? == NFT_REG_VERDICT {
        let verdict = found.at(NFTA_IMMEDIATE_DATA)?.nested().next()?.ok()?;
        let (code, chain, id) = decode_verdict(&verdict)?;
        return Some(Expr::Verdict { code, chain, id });
    }
    let mut expr = known(name, found)?;
    // The kernel returns the first address or port also as the last, and flags that follow from
    // other attributes.
    match &mut expr {
        Expr::Nat { address_min, address_max, port_min, port_max, flags, .. } => {
            *address_max = address_max.filter(|last| Some(*last) != *address_min);
            *port_max = port_max.filter(|last| Some(*last) != *port_min);
            flags.0 &= NAT_CHOICES;
        }
        Expr::Masquerade { port_min, port_max, flags } | Expr::Redirect { port_min, port_max, flags } => {
            *port_max = port_max.filter(|last| Some(*last) != *port_min);
            if port_min.is_some() {
                flags.0 |= NF_NAT_RANGE_PROTO_SPECIFIED;
            }
        }
        Expr::Dynset { timeout, exprs, flags, .. } => {
            *timeout = timeout.filter(|timeout| *timeout != 0);
            if exprs.len() > 1 {
                flags.0 |= NFT_DYNSET_F_EXPR;
            }
        }
        // The kernel refuses the flag that it sets when the quota is used up.
        Expr::Quota { flags, .. } => *flags &= NFT_QUOTA_F_INV,
        Expr::Reject { code, .. } => *code = code.or(Some(0)),
        Expr::Last { set: Nonzero(0), milliseconds } => *milliseconds = None,
        Expr::Log { flags, .. } => *flags = flags.filter(|flags| *flags != 0),
        _ => {}
    }
    Some(expr)
}

/// Reads an `NFTA_DATA_VERDICT`; `None` if it has something without a type here.
pub(crate) fn decode_verdict(verdict: &Attribute<'_>) -> Option<(i32, Option<ChainName>, Option<u32>)> {
    let (mut code, mut chain, mut id) = (None, None, None);
    for attribute in verdict.nested() {
        let attribute = attribute.ok()?;
        match attribute.kind {
            NFTA_VERDICT_CODE => code = Some(i32::from_be_bytes(attribute.array().ok()?)),
            NFTA_VERDICT_CHAIN => chain = Some(ChainName::observed(attribute.string())),
            NFTA_VERDICT_CHAIN_ID => id = Some(attribute.be32().ok()?),
            _ => return None,
        }
    }
    Some((code?, chain, id))
}
