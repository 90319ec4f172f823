//! Expressions to netlink attributes and back.

use flannel_netlink::{Attribute, Attributes, Malformed};

use std::cell::Cell;

use crate::bytecode::expr::{Expr, OtherExpr};
use crate::model::data::Data;
use crate::model::name::ChainName;
use crate::uapi::*;
use crate::wire::attribute_bytes;

/// Appends `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }`.
pub(crate) fn encode(expr: &Expr, list: &mut Attributes<'_>) {
    encode_as(NFTA_LIST_ELEM, expr, list);
}

/// The same in an attribute of another type.
pub(crate) fn encode_as(kind: u16, expr: &Expr, list: &mut Attributes<'_>) {
    list.nested(kind, |element| {
        element.text(NFTA_EXPR_NAME, name(expr));
        match expr {
            Expr::Other(other) => element.bytes(NFTA_EXPR_DATA | NLA_F_NESTED, &other.data),
            Expr::Notrack => {}
            _ => element.nested(NFTA_EXPR_DATA, |a| body(expr, a)),
        }
    });
}

fn name(expr: &Expr) -> &str {
    match expr {
        Expr::Bitwise { .. } => "bitwise",
        Expr::Byteorder { .. } => "byteorder",
        Expr::Cmp { .. } => "cmp",
        Expr::Counter { .. } => "counter",
        Expr::CtLoad { .. } | Expr::CtSet { .. } => "ct",
        Expr::ExthdrWrite { .. } => "exthdr",
        Expr::Fib { .. } => "fib",
        Expr::Immediate { .. } | Expr::Verdict { .. } => "immediate",
        Expr::Limit { .. } => "limit",
        Expr::Log { .. } => "log",
        Expr::Lookup { .. } => "lookup",
        Expr::Masquerade { .. } => "masq",
        Expr::MetaLoad { .. } | Expr::MetaSet { .. } => "meta",
        Expr::Nat { .. } => "nat",
        Expr::Notrack => "notrack",
        Expr::Object { .. } => "objref",
        Expr::Payload { .. } => "payload",
        Expr::Range { .. } => "range",
        Expr::Redirect { .. } => "redir",
        Expr::Reject { .. } => "reject",
        Expr::Rt { .. } => "rt",
        Expr::Other(other) => &other.name,
    }
}

fn body(expr: &Expr, a: &mut Attributes<'_>) {
    fn numbers<const N: usize>(a: &mut Attributes<'_>, numbers: [(u16, u32); N]) {
        numbers.into_iter().for_each(|(kind, number)| a.be32(kind, number));
    }
    fn present<const N: usize>(a: &mut Attributes<'_>, numbers: [(u16, Option<u32>); N]) {
        numbers.into_iter().for_each(|(kind, number)| number.iter().for_each(|number| a.be32(kind, *number)));
    }
    fn value(a: &mut Attributes<'_>, kind: u16, data: &Data) {
        a.nested(kind, |a| a.bytes(NFTA_DATA_VALUE, data.as_slice()));
    }
    match expr {
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            let length = u32::try_from(mask.len()).unwrap_or(0);
            numbers(a, [(NFTA_BITWISE_SREG, *sreg), (NFTA_BITWISE_DREG, *dreg), (NFTA_BITWISE_LEN, length)]);
            value(a, NFTA_BITWISE_MASK, mask);
            value(a, NFTA_BITWISE_XOR, xor);
        }
        Expr::Byteorder { sreg, dreg, op, length, size } => {
            numbers(
                a,
                [(NFTA_BYTEORDER_SREG, *sreg), (NFTA_BYTEORDER_DREG, *dreg), (NFTA_BYTEORDER_OP, *op)],
            );
            numbers(a, [(NFTA_BYTEORDER_LEN, *length), (NFTA_BYTEORDER_SIZE, *size)]);
        }
        Expr::Cmp { sreg, op, data } => {
            numbers(a, [(NFTA_CMP_SREG, *sreg), (NFTA_CMP_OP, *op)]);
            value(a, NFTA_CMP_DATA, data);
        }
        Expr::Counter { packets, bytes } => {
            a.be64(NFTA_COUNTER_BYTES, *bytes);
            a.be64(NFTA_COUNTER_PACKETS, *packets);
        }
        Expr::CtLoad { key, dreg } => numbers(a, [(NFTA_CT_DREG, *dreg), (NFTA_CT_KEY, *key)]),
        Expr::CtSet { key, sreg } => numbers(a, [(NFTA_CT_KEY, *key), (NFTA_CT_SREG, *sreg)]),
        Expr::ExthdrWrite { sreg, option, offset, length, op } => {
            a.u8(NFTA_EXTHDR_TYPE, *option);
            numbers(a, [(NFTA_EXTHDR_OFFSET, *offset), (NFTA_EXTHDR_LEN, *length)]);
            numbers(a, [(NFTA_EXTHDR_OP, *op), (NFTA_EXTHDR_SREG, *sreg)]);
        }
        Expr::Fib { result, flags, dreg } => {
            numbers(a, [(NFTA_FIB_DREG, *dreg), (NFTA_FIB_RESULT, *result), (NFTA_FIB_FLAGS, *flags)]);
        }
        Expr::Immediate { dreg, data } => {
            a.be32(NFTA_IMMEDIATE_DREG, *dreg);
            value(a, NFTA_IMMEDIATE_DATA, data);
        }
        Expr::Verdict { code, chain, id } => {
            a.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            a.nested(NFTA_IMMEDIATE_DATA, |a| verdict(*code, chain.as_ref(), *id, a));
        }
        Expr::Limit { rate, unit, burst, kind, flags } => {
            a.be64(NFTA_LIMIT_RATE, *rate);
            a.be64(NFTA_LIMIT_UNIT, *unit);
            numbers(a, [(NFTA_LIMIT_BURST, *burst), (NFTA_LIMIT_TYPE, *kind), (NFTA_LIMIT_FLAGS, *flags)]);
        }
        Expr::Log { group, prefix, snaplen, threshold, level, flags } => {
            group.iter().for_each(|v| a.be16(NFTA_LOG_GROUP, *v));
            prefix.iter().for_each(|v| a.text(NFTA_LOG_PREFIX, v));
            present(a, [(NFTA_LOG_SNAPLEN, *snaplen)]);
            threshold.iter().for_each(|v| a.be16(NFTA_LOG_QTHRESHOLD, *v));
            present(a, [(NFTA_LOG_LEVEL, *level), (NFTA_LOG_FLAGS, *flags)]);
        }
        Expr::Lookup { set, id, sreg, dreg, inverted } => {
            a.text(NFTA_LOOKUP_SET, set);
            a.be32(NFTA_LOOKUP_SREG, *sreg);
            present(a, [(NFTA_LOOKUP_DREG, *dreg), (NFTA_LOOKUP_SET_ID, *id)]);
            a.be32(NFTA_LOOKUP_FLAGS, if *inverted { NFT_LOOKUP_F_INV } else { 0 });
        }
        Expr::Masquerade { flags, port_min, port_max } => {
            present(a, [(NFTA_MASQ_FLAGS, Some(*flags).filter(|flags| *flags != 0))]);
            present(a, [(NFTA_MASQ_REG_PROTO_MIN, *port_min), (NFTA_MASQ_REG_PROTO_MAX, *port_max)]);
        }
        Expr::MetaLoad { key, dreg } => numbers(a, [(NFTA_META_DREG, *dreg), (NFTA_META_KEY, *key)]),
        Expr::MetaSet { key, sreg } => numbers(a, [(NFTA_META_KEY, *key), (NFTA_META_SREG, *sreg)]),
        Expr::Nat { kind, family, address_min, address_max, port_min, port_max, flags } => {
            numbers(a, [(NFTA_NAT_TYPE, *kind), (NFTA_NAT_FAMILY, *family)]);
            present(a, [(NFTA_NAT_REG_ADDR_MIN, *address_min), (NFTA_NAT_REG_ADDR_MAX, *address_max)]);
            present(a, [(NFTA_NAT_REG_PROTO_MIN, *port_min), (NFTA_NAT_REG_PROTO_MAX, *port_max)]);
            // The kernel sets these two itself.
            if flags & !(NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED) != 0 {
                a.be32(NFTA_NAT_FLAGS, *flags);
            }
        }
        Expr::Object { kind, name } => {
            a.be32(NFTA_OBJREF_IMM_TYPE, *kind);
            a.text(NFTA_OBJREF_IMM_NAME, name);
        }
        Expr::Payload { base, offset, length, dreg } => {
            numbers(a, [(NFTA_PAYLOAD_DREG, *dreg), (NFTA_PAYLOAD_BASE, *base)]);
            numbers(a, [(NFTA_PAYLOAD_OFFSET, *offset), (NFTA_PAYLOAD_LEN, *length)]);
        }
        Expr::Range { sreg, op, from, to } => {
            numbers(a, [(NFTA_RANGE_SREG, *sreg), (NFTA_RANGE_OP, *op)]);
            value(a, NFTA_RANGE_FROM_DATA, from);
            value(a, NFTA_RANGE_TO_DATA, to);
        }
        Expr::Redirect { port_min, port_max, flags } => {
            present(a, [(NFTA_REDIR_REG_PROTO_MIN, *port_min), (NFTA_REDIR_REG_PROTO_MAX, *port_max)]);
            present(a, [(NFTA_REDIR_FLAGS, Some(*flags).filter(|flags| *flags != 0))]);
        }
        Expr::Reject { kind, code } => {
            a.be32(NFTA_REJECT_TYPE, *kind);
            a.u8(NFTA_REJECT_ICMP_CODE, *code);
        }
        Expr::Rt { key, dreg } => numbers(a, [(NFTA_RT_DREG, *dreg), (NFTA_RT_KEY, *key)]),
        Expr::Notrack | Expr::Other(_) => {}
    }
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
    let (mut name, mut data) = ("", &[][..]);
    for attribute in element.nested() {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_EXPR_NAME => name = attribute.text()?,
            NFTA_EXPR_DATA => data = attribute.payload,
            _ => {}
        }
    }
    let read = Fields::read(data).ok().and_then(|fields| known(name, &fields).filter(|_| fields.all_read()));
    Ok(read.unwrap_or_else(|| {
        Expr::Other(Box::new(OtherExpr { name: name.into(), data: acceptable(name, data) }))
    }))
}

/// The attributes without those that the kernel returns but refuses in a new rule
/// (net/netfilter/nft_osf.c, nft_quota.c).
fn acceptable(name: &str, data: &[u8]) -> Box<[u8]> {
    let refused = |attribute: &Attribute<'_>| match name {
        "osf" => attribute.kind == NFTA_OSF_FLAGS && attribute.be32() == Ok(0),
        "quota" => attribute.kind == NFTA_QUOTA_FLAGS && attribute.be32() != Ok(NFT_QUOTA_F_INV),
        _ => false,
    };
    if !flannel_netlink::attributes(data).flatten().any(|attribute| refused(&attribute)) {
        return data.into();
    }
    attribute_bytes(|a| {
        for attribute in flannel_netlink::attributes(data).flatten() {
            match attribute.be32() {
                _ if !refused(&attribute) => a.bytes(attribute.kind, attribute.payload),
                // That it is used up follows from its count.
                Ok(flags) if name == "quota" => a.be32(attribute.kind, flags & NFT_QUOTA_F_INV),
                _ => {}
            }
        }
    })
}

/// Whether packets change the expression.
pub(crate) fn has_state(expr: &Expr) -> bool {
    match expr {
        Expr::Counter { .. } => true,
        Expr::Other(other) => matches!(&*other.name, "quota" | "last"),
        _ => false,
    }
}

/// The expression without what packets change in it.
pub(crate) fn without_state(expr: &Expr) -> Expr {
    let other = match expr {
        Expr::Counter { .. } => return Expr::Counter { packets: 0, bytes: 0 },
        Expr::Other(other) if has_state(expr) => other,
        expr => return expr.clone(),
    };
    let data = attribute_bytes(|a| {
        let kept = |kind| &*other.name == "quota" && kind != NFTA_QUOTA_CONSUMED;
        let attributes = flannel_netlink::attributes(&other.data).flatten();
        attributes.filter(|attribute| kept(attribute.kind)).for_each(|attribute| {
            a.bytes(attribute.kind, attribute.payload);
        });
    });
    Expr::Other(Box::new(OtherExpr { name: other.name.clone(), data }))
}

/// The attributes of an expression. They must all be read: what has no type here must not be lost.
struct Fields<'a> {
    fields: [Option<Attribute<'a>>; FIELDS],
    /// A bit for each attribute that has not been read.
    unread: Cell<u16>,
}

const FIELDS: usize = 12;

impl<'a> Fields<'a> {
    fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = [None; FIELDS];
        let mut unread = 0;
        for attribute in flannel_netlink::attributes(data) {
            let attribute = attribute?;
            match fields.get_mut(usize::from(attribute.kind)) {
                Some(place) => *place = Some(attribute),
                None => return Err(Malformed::Value { what: "attribute" }),
            }
            unread |= 1 << attribute.kind;
        }
        Ok(Self { fields, unread: Cell::new(unread) })
    }

    fn at(&self, kind: u16) -> Option<Attribute<'a>> {
        let attribute = self.fields.get(usize::from(kind)).copied().flatten()?;
        self.unread.set(self.unread.get() & !(1 << kind));
        Some(attribute)
    }

    fn all_read(&self) -> bool {
        self.unread.get() == 0
    }

    fn u32(&self, kind: u16) -> Option<u32> {
        self.at(kind)?.be32().ok()
    }

    fn u64(&self, kind: u16) -> Option<u64> {
        self.at(kind)?.be64().ok()
    }

    fn text(&self, kind: u16) -> Option<Box<str>> {
        self.at(kind)?.text().ok().map(Into::into)
    }

    fn value(&self, kind: u16) -> Option<Data> {
        let inner = self.at(kind)?.nested().next()?.ok()?;
        (inner.kind == NFTA_DATA_VALUE).then(|| Data::new(inner.payload))
    }

    /// The register of the last port or address; `None` if there is only a first one, which the
    /// kernel then returns here too.
    fn last(&self, first: u16, last: u16) -> Option<u32> {
        self.u32(last).filter(|last| Some(*last) != self.u32(first))
    }
}

fn known(name: &str, f: &Fields<'_>) -> Option<Expr> {
    Some(match name {
        "bitwise"
            if f.u32(NFTA_BITWISE_OP).unwrap_or(NFT_BITWISE_BOOL) == NFT_BITWISE_BOOL
                && f.at(NFTA_BITWISE_DATA).is_none() =>
        {
            f.at(NFTA_BITWISE_LEN); // that of the mask
            Expr::Bitwise {
                sreg: f.u32(NFTA_BITWISE_SREG)?,
                dreg: f.u32(NFTA_BITWISE_DREG)?,
                mask: f.value(NFTA_BITWISE_MASK)?,
                xor: f.value(NFTA_BITWISE_XOR)?,
            }
        }
        "byteorder" => Expr::Byteorder {
            sreg: f.u32(NFTA_BYTEORDER_SREG)?,
            dreg: f.u32(NFTA_BYTEORDER_DREG)?,
            op: f.u32(NFTA_BYTEORDER_OP)?,
            length: f.u32(NFTA_BYTEORDER_LEN)?,
            size: f.u32(NFTA_BYTEORDER_SIZE)?,
        },
        "cmp" => {
            Expr::Cmp { sreg: f.u32(NFTA_CMP_SREG)?, op: f.u32(NFTA_CMP_OP)?, data: f.value(NFTA_CMP_DATA)? }
        }
        "counter" => {
            f.at(NFTA_COUNTER_PAD);
            Expr::Counter { packets: f.u64(NFTA_COUNTER_PACKETS)?, bytes: f.u64(NFTA_COUNTER_BYTES)? }
        }
        // There is no type for a direction.
        "ct" if f.at(NFTA_CT_DIRECTION).is_none() => match f.u32(NFTA_CT_SREG) {
            Some(sreg) => Expr::CtSet { key: f.u32(NFTA_CT_KEY)?, sreg },
            None => Expr::CtLoad { key: f.u32(NFTA_CT_KEY)?, dreg: f.u32(NFTA_CT_DREG)? },
        },
        // The kernel returns flags, but refuses them in a new rule.
        "exthdr" if f.at(NFTA_EXTHDR_DREG).is_none() && f.u32(NFTA_EXTHDR_FLAGS).unwrap_or(0) == 0 => {
            Expr::ExthdrWrite {
                sreg: f.u32(NFTA_EXTHDR_SREG)?,
                option: f.at(NFTA_EXTHDR_TYPE)?.u8().ok()?,
                offset: f.u32(NFTA_EXTHDR_OFFSET)?,
                length: f.u32(NFTA_EXTHDR_LEN)?,
                op: f.u32(NFTA_EXTHDR_OP)?,
            }
        }
        "fib" => Expr::Fib {
            result: f.u32(NFTA_FIB_RESULT)?,
            flags: f.u32(NFTA_FIB_FLAGS)?,
            dreg: f.u32(NFTA_FIB_DREG)?,
        },
        "immediate" if f.u32(NFTA_IMMEDIATE_DREG)? == NFT_REG_VERDICT => {
            let verdict = f.at(NFTA_IMMEDIATE_DATA)?.nested().next()?.ok()?;
            let (code, chain, id) = decode_verdict(&verdict)?;
            Expr::Verdict { code, chain, id }
        }
        "immediate" => {
            Expr::Immediate { dreg: f.u32(NFTA_IMMEDIATE_DREG)?, data: f.value(NFTA_IMMEDIATE_DATA)? }
        }
        "limit" => {
            f.at(NFTA_LIMIT_PAD);
            Expr::Limit {
                rate: f.u64(NFTA_LIMIT_RATE)?,
                unit: f.u64(NFTA_LIMIT_UNIT)?,
                burst: f.u32(NFTA_LIMIT_BURST).unwrap_or(0),
                kind: f.u32(NFTA_LIMIT_TYPE).unwrap_or(NFT_LIMIT_PKTS),
                flags: f.u32(NFTA_LIMIT_FLAGS).unwrap_or(0),
            }
        }
        "log" => Expr::Log {
            group: f.at(NFTA_LOG_GROUP).and_then(|a| a.be16().ok()),
            prefix: f.text(NFTA_LOG_PREFIX),
            snaplen: f.u32(NFTA_LOG_SNAPLEN),
            threshold: f.at(NFTA_LOG_QTHRESHOLD).and_then(|a| a.be16().ok()),
            level: f.u32(NFTA_LOG_LEVEL),
            flags: f.u32(NFTA_LOG_FLAGS).filter(|flags| *flags != 0),
        },
        "lookup" if f.u32(NFTA_LOOKUP_FLAGS).unwrap_or(0) & !NFT_LOOKUP_F_INV == 0 => Expr::Lookup {
            set: f.text(NFTA_LOOKUP_SET)?,
            id: f.u32(NFTA_LOOKUP_SET_ID),
            sreg: f.u32(NFTA_LOOKUP_SREG)?,
            dreg: f.u32(NFTA_LOOKUP_DREG),
            inverted: f.u32(NFTA_LOOKUP_FLAGS).unwrap_or(0) & NFT_LOOKUP_F_INV != 0,
        },
        "masq" => Expr::Masquerade {
            flags: f.u32(NFTA_MASQ_FLAGS).unwrap_or(0),
            port_min: f.u32(NFTA_MASQ_REG_PROTO_MIN),
            port_max: f.last(NFTA_MASQ_REG_PROTO_MIN, NFTA_MASQ_REG_PROTO_MAX),
        },
        "meta" => match f.u32(NFTA_META_SREG) {
            Some(sreg) => Expr::MetaSet { key: f.u32(NFTA_META_KEY)?, sreg },
            None => Expr::MetaLoad { key: f.u32(NFTA_META_KEY)?, dreg: f.u32(NFTA_META_DREG)? },
        },
        "nat" => {
            let (address_min, port_min) = (f.u32(NFTA_NAT_REG_ADDR_MIN), f.u32(NFTA_NAT_REG_PROTO_MIN));
            // The kernel returns these two flags only together with others.
            let own = if address_min.is_some() { NF_NAT_RANGE_MAP_IPS } else { 0 }
                | if port_min.is_some() { NF_NAT_RANGE_PROTO_SPECIFIED } else { 0 };
            Expr::Nat {
                kind: f.u32(NFTA_NAT_TYPE)?,
                family: f.u32(NFTA_NAT_FAMILY)?,
                address_min,
                address_max: f.last(NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_ADDR_MAX),
                port_min,
                port_max: f.last(NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_REG_PROTO_MAX),
                flags: f.u32(NFTA_NAT_FLAGS).unwrap_or(0) | own,
            }
        }
        "notrack" => Expr::Notrack,
        "objref" => Expr::Object { kind: f.u32(NFTA_OBJREF_IMM_TYPE)?, name: f.text(NFTA_OBJREF_IMM_NAME)? },
        "payload" if f.at(NFTA_PAYLOAD_SREG).is_none() => Expr::Payload {
            base: f.u32(NFTA_PAYLOAD_BASE)?,
            offset: f.u32(NFTA_PAYLOAD_OFFSET)?,
            length: f.u32(NFTA_PAYLOAD_LEN)?,
            dreg: f.u32(NFTA_PAYLOAD_DREG)?,
        },
        "range" => Expr::Range {
            sreg: f.u32(NFTA_RANGE_SREG)?,
            op: f.u32(NFTA_RANGE_OP)?,
            from: f.value(NFTA_RANGE_FROM_DATA)?,
            to: f.value(NFTA_RANGE_TO_DATA)?,
        },
        "redir" => Expr::Redirect {
            port_min: f.u32(NFTA_REDIR_REG_PROTO_MIN),
            port_max: f.last(NFTA_REDIR_REG_PROTO_MIN, NFTA_REDIR_REG_PROTO_MAX),
            flags: f.u32(NFTA_REDIR_FLAGS).unwrap_or(0),
        },
        "reject" => Expr::Reject {
            kind: f.u32(NFTA_REJECT_TYPE)?,
            code: f.at(NFTA_REJECT_ICMP_CODE).map_or(Some(0), |a| a.u8().ok())?,
        },
        "rt" => Expr::Rt { key: f.u32(NFTA_RT_KEY)?, dreg: f.u32(NFTA_RT_DREG)? },
        _ => return None,
    })
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
