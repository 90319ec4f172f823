//! One instruction to attributes and back.

use flannel_netlink::{Attribute, Attributes, Malformed};

use crate::bytecode::expr::{Expr, OtherExpr, VERDICT};
use crate::model::data::Data;

/// Appends `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }`.
pub(crate) fn encode(expr: &Expr, list: &mut Attributes<'_>) {
    list.nested(1, |element| {
        element.text(1, name(expr));
        match expr {
            Expr::Other(other) => element.bytes(2 | 0x8000, &other.data),
            Expr::Notrack => {}
            _ => element.nested(2, |a| body(expr, a)),
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
    let value = |a: &mut Attributes<'_>, kind, data: &Data| a.nested(kind, |a| a.bytes(1, data.as_slice()));
    match expr {
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            a.be32(1, *sreg);
            a.be32(2, *dreg);
            a.be32(3, u32::try_from(mask.len()).unwrap_or(0));
            value(a, 4, mask);
            value(a, 5, xor);
        }
        Expr::Byteorder { sreg, dreg, op, length, size } => {
            [(1, sreg), (2, dreg), (3, op), (4, length), (5, size)]
                .into_iter()
                .for_each(|(kind, v)| a.be32(kind, *v));
        }
        Expr::Cmp { sreg, op, data } => {
            a.be32(1, *sreg);
            a.be32(2, *op);
            value(a, 3, data);
        }
        Expr::Counter { packets, bytes } => {
            a.be64(1, *bytes);
            a.be64(2, *packets);
        }
        Expr::CtLoad { key, dreg } => {
            a.be32(1, *dreg);
            a.be32(2, *key);
        }
        Expr::CtSet { key, sreg } => {
            a.be32(2, *key);
            a.be32(4, *sreg);
        }
        Expr::ExthdrWrite { sreg, option, offset, length, op } => {
            a.u8(2, *option);
            [(3, offset), (4, length), (6, op), (7, sreg)].into_iter().for_each(|(kind, v)| a.be32(kind, *v));
        }
        Expr::Fib { result, flags, dreg } => {
            [(1, dreg), (2, result), (3, flags)].into_iter().for_each(|(kind, v)| a.be32(kind, *v));
        }
        Expr::Immediate { dreg, data } => {
            a.be32(1, *dreg);
            value(a, 2, data);
        }
        Expr::Verdict { code, chain } => {
            a.be32(1, VERDICT);
            a.nested(2, |a| verdict(*code, chain.as_deref(), a));
        }
        Expr::Limit { rate, unit, burst, kind, flags } => {
            a.be64(1, *rate);
            a.be64(2, *unit);
            [(3, burst), (4, kind), (5, flags)].into_iter().for_each(|(kind, v)| a.be32(kind, *v));
        }
        Expr::Log { group, prefix, snaplen, threshold, level, flags } => {
            group.iter().for_each(|v| a.be16(1, *v));
            prefix.iter().for_each(|v| a.text(2, v));
            snaplen.iter().for_each(|v| a.be32(3, *v));
            threshold.iter().for_each(|v| a.be16(4, *v));
            level.iter().for_each(|v| a.be32(5, *v));
            flags.iter().for_each(|v| a.be32(6, *v));
        }
        Expr::Lookup { set, id, sreg, dreg, inverted } => {
            a.text(1, set);
            a.be32(2, *sreg);
            dreg.iter().for_each(|v| a.be32(3, *v));
            id.iter().for_each(|v| a.be32(4, *v));
            a.be32(5, u32::from(*inverted));
        }
        Expr::Masquerade { flags, port_min, port_max } => {
            if *flags != 0 {
                a.be32(1, *flags);
            }
            port_min.iter().for_each(|v| a.be32(2, *v));
            port_max.iter().for_each(|v| a.be32(3, *v));
        }
        Expr::MetaLoad { key, dreg } => {
            a.be32(1, *dreg);
            a.be32(2, *key);
        }
        Expr::MetaSet { key, sreg } => {
            a.be32(2, *key);
            a.be32(3, *sreg);
        }
        Expr::Nat { kind, family, address_min, address_max, port_min, port_max, flags } => {
            a.be32(1, *kind);
            a.be32(2, *family);
            for (kind, register) in [(3, address_min), (4, address_max), (5, port_min), (6, port_max)] {
                register.iter().for_each(|v| a.be32(kind, *v));
            }
            if flags & crate::bytecode::expr::nat::CHOICES != 0 {
                a.be32(7, *flags);
            }
        }
        Expr::Object { kind, name } => {
            a.be32(1, *kind);
            a.text(2, name);
        }
        Expr::Payload { base, offset, length, dreg } => {
            [(1, dreg), (2, base), (3, offset), (4, length)]
                .into_iter()
                .for_each(|(kind, v)| a.be32(kind, *v));
        }
        Expr::Range { sreg, op, from, to } => {
            a.be32(1, *sreg);
            a.be32(2, *op);
            value(a, 3, from);
            value(a, 4, to);
        }
        Expr::Redirect { port_min, port_max, flags } => {
            port_min.iter().for_each(|v| a.be32(1, *v));
            port_max.iter().for_each(|v| a.be32(2, *v));
            if *flags != 0 {
                a.be32(3, *flags);
            }
        }
        Expr::Reject { kind, code } => {
            a.be32(1, *kind);
            a.u8(2, *code);
        }
        Expr::Rt { key, dreg } => {
            a.be32(1, *dreg);
            a.be32(2, *key);
        }
        Expr::Notrack | Expr::Other(_) => {}
    }
}

/// Appends `NFTA_DATA_VERDICT`.
pub(crate) fn verdict(code: i32, chain: Option<&str>, a: &mut Attributes<'_>) {
    a.nested(2, |a| {
        a.bytes(1, &code.to_be_bytes());
        chain.iter().for_each(|chain| a.text(2, chain));
    });
}

/// Reads an `NFTA_LIST_ELEM` back. What does not have exactly the attributes that [`encode`] writes is kept whole.
pub(crate) fn decode(element: &Attribute<'_>) -> Result<Expr, Malformed> {
    let (mut name, mut data) = ("", &[][..]);
    for attribute in element.nested() {
        let attribute = attribute?;
        match attribute.kind {
            1 => name = attribute.text()?,
            2 => data = attribute.payload,
            _ => {}
        }
    }
    let read = Fields::read(data).ok().and_then(|fields| known(name, &fields));
    Ok(read.unwrap_or_else(|| Expr::Other(Box::new(OtherExpr { name: name.into(), data: data.into() }))))
}

struct Fields<'a>([Option<Attribute<'a>>; 12]);

impl<'a> Fields<'a> {
    fn read(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = [None; 12];
        for attribute in flannel_netlink::attributes(data) {
            let attribute = attribute?;
            match fields.get_mut(usize::from(attribute.kind)) {
                Some(place) => *place = Some(attribute),
                None => return Err(Malformed::Value { what: "attribute" }),
            }
        }
        Ok(Self(fields))
    }

    fn at(&self, kind: usize) -> Option<Attribute<'a>> {
        self.0.get(kind).copied().flatten()
    }

    fn u32(&self, kind: usize) -> Option<u32> {
        self.at(kind)?.be32().ok()
    }

    fn u64(&self, kind: usize) -> Option<u64> {
        self.at(kind)?.be64().ok()
    }

    fn text(&self, kind: usize) -> Option<Box<str>> {
        self.at(kind)?.text().ok().map(Into::into)
    }

    fn value(&self, kind: usize) -> Option<Data> {
        let inner = self.at(kind)?.nested().next()?.ok()?;
        (inner.kind == 1).then(|| Data::new(inner.payload))
    }
}

fn known(name: &str, f: &Fields<'_>) -> Option<Expr> {
    Some(match name {
        "bitwise" if f.u32(6).unwrap_or(0) == 0 && f.at(7).is_none() => {
            Expr::Bitwise { sreg: f.u32(1)?, dreg: f.u32(2)?, mask: f.value(4)?, xor: f.value(5)? }
        }
        "byteorder" => Expr::Byteorder {
            sreg: f.u32(1)?,
            dreg: f.u32(2)?,
            op: f.u32(3)?,
            length: f.u32(4)?,
            size: f.u32(5)?,
        },
        "cmp" => Expr::Cmp { sreg: f.u32(1)?, op: f.u32(2)?, data: f.value(3)? },
        "counter" => Expr::Counter { packets: f.u64(2)?, bytes: f.u64(1)? },
        // A direction (3) is not among our words.
        "ct" if f.at(3).is_none() => match f.u32(4) {
            Some(sreg) => Expr::CtSet { key: f.u32(2)?, sreg },
            None => Expr::CtLoad { key: f.u32(2)?, dreg: f.u32(1)? },
        },
        "exthdr" if f.at(1).is_none() => Expr::ExthdrWrite {
            sreg: f.u32(7)?,
            option: f.at(2)?.u8().ok()?,
            offset: f.u32(3)?,
            length: f.u32(4)?,
            op: f.u32(6)?,
        },
        "fib" => Expr::Fib { result: f.u32(2)?, flags: f.u32(3)?, dreg: f.u32(1)? },
        "immediate" if f.u32(1)? == VERDICT => {
            let verdict = f.at(2)?.nested().next()?.ok()?;
            let (code, chain) = decode_verdict(&verdict)?;
            Expr::Verdict { code, chain: chain.map(Into::into) }
        }
        "immediate" => Expr::Immediate { dreg: f.u32(1)?, data: f.value(2)? },
        "limit" => Expr::Limit {
            rate: f.u64(1)?,
            unit: f.u64(2)?,
            burst: f.u32(3).unwrap_or(0),
            kind: f.u32(4).unwrap_or(0),
            flags: f.u32(5).unwrap_or(0),
        },
        "log" => Expr::Log {
            group: f.at(1).and_then(|a| a.be16().ok()),
            prefix: f.text(2),
            snaplen: f.u32(3),
            threshold: f.at(4).and_then(|a| a.be16().ok()),
            level: f.u32(5),
            flags: f.u32(6).filter(|flags| *flags != 0),
        },
        "lookup" => Expr::Lookup {
            set: f.text(1)?,
            id: f.u32(4),
            sreg: f.u32(2)?,
            dreg: f.u32(3),
            inverted: f.u32(5).unwrap_or(0) & 1 != 0,
        },
        "masq" => Expr::Masquerade {
            flags: f.u32(1).unwrap_or(0),
            port_min: f.u32(2),
            port_max: f.u32(3).filter(|max| Some(*max) != f.u32(2)),
        },
        "meta" => match f.u32(3) {
            Some(sreg) => Expr::MetaSet { key: f.u32(2)?, sreg },
            None => Expr::MetaLoad { key: f.u32(2)?, dreg: f.u32(1)? },
        },
        "nat" => {
            // The kernel gives back the first register as the last where there is no last, and its own two flags.
            let (address_min, port_min) = (f.u32(3), f.u32(5));
            let own = if address_min.is_some() { crate::bytecode::expr::nat::MAP_IPS } else { 0 }
                | if port_min.is_some() { crate::bytecode::expr::nat::PROTO_SPECIFIED } else { 0 };
            Expr::Nat {
                kind: f.u32(1)?,
                family: f.u32(2)?,
                address_min,
                address_max: f.u32(4).filter(|max| Some(*max) != address_min),
                port_min,
                port_max: f.u32(6).filter(|max| Some(*max) != port_min),
                flags: f.u32(7).unwrap_or(0) | own,
            }
        }
        "notrack" => Expr::Notrack,
        "objref" => Expr::Object { kind: f.u32(1)?, name: f.text(2)? },
        "payload" if f.at(5).is_none() => {
            Expr::Payload { base: f.u32(2)?, offset: f.u32(3)?, length: f.u32(4)?, dreg: f.u32(1)? }
        }
        "range" => Expr::Range { sreg: f.u32(1)?, op: f.u32(2)?, from: f.value(3)?, to: f.value(4)? },
        "redir" => Expr::Redirect {
            port_min: f.u32(1),
            port_max: f.u32(2).filter(|max| Some(*max) != f.u32(1)),
            flags: f.u32(3).unwrap_or(0),
        },
        "reject" => Expr::Reject { kind: f.u32(1)?, code: f.at(2).map_or(Some(0), |a| a.u8().ok())? },
        "rt" => Expr::Rt { key: f.u32(2)?, dreg: f.u32(1)? },
        _ => return None,
    })
}

/// Reads an `NFTA_DATA_VERDICT`.
pub(crate) fn decode_verdict<'a>(verdict: &Attribute<'a>) -> Option<(i32, Option<&'a str>)> {
    let (mut code, mut chain) = (None, None);
    for attribute in verdict.nested() {
        let attribute = attribute.ok()?;
        match attribute.kind {
            1 => code = Some(i32::from_be_bytes(attribute.array().ok()?)),
            2 => chain = Some(attribute.text().ok()?),
            _ => {}
        }
    }
    Some((code?, chain))
}
