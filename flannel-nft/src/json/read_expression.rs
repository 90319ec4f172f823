//! Expressions from JSON.

use serde_json::Value;

use crate::json::error::{Node, Read, wrong};
use crate::json::read_map::{Values, mapped};
use crate::json::read_value::{compared, data, looked_up};
use crate::json::scope::Scope;
use crate::json::write_expression::FIB_FLAGS;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Element, Key, Span};
use crate::model::expression::Term;
use crate::model::exthdr::{self, Exthdr};
use crate::model::field::{
    CT, Field, GENEVE_VNI, Kind, META, Named, RT, SOCKET, VXLAN_FLAGS, VXLAN_VNI, XFRM,
};
use crate::model::header::{FIELDS, Header};
use crate::model::matching::{Inline, Source};
use crate::model::name::SetName;
use crate::model::set::{Maps, Set};
use crate::model::tunnel::Tunnel;
use crate::model::value::Value as Constant;
use crate::uapi::*;

/// Most expressions inside each other.
const MAX_DEPTH: usize = 16;

impl<'s> Scope<'s> {
    /// A field, or what is computed from fields.
    pub(super) fn term<'j>(&self, value: &'j Value) -> Read<'j, Term> {
        self.term_of(value, 0, None)
    }

    /// `width` is the number of bytes of what the value is assigned to: shifts use as many.
    fn term_of<'j>(&self, value: &'j Value, depth: usize, width: Option<u32>) -> Read<'j, Term> {
        let Some((name, inner)) = value.only().filter(|_| depth < MAX_DEPTH) else {
            return wrong(value, "an expression: an object with one property");
        };
        Ok(match name {
            "concat" => {
                let parts: Result<Vec<Term>, _> =
                    inner.list()?.iter().map(|part| self.term_of(part, depth + 1, None)).collect();
                match parts? {
                    parts if parts.is_empty() => return wrong(inner, "at least one expression"),
                    // nft 1.1.7 prints a concatenation of one field.
                    mut parts if parts.len() == 1 => parts.swap_remove(0),
                    parts => Term::Concat(parts),
                }
            }
            "&" | "|" | "^" | "<<" | ">>" => self.operation(name, inner, depth, width)?,
            "jhash" => {
                inner.allow(&["mod", "seed", "offset", "expr"])?;
                let optional = |name| inner.field(name).map(Node::number).transpose();
                Term::Jhash {
                    of: Box::new(self.term_of(inner.need("expr")?, depth + 1, None)?),
                    modulus: inner.need("mod")?.number()?,
                    seed: optional("seed")?,
                    offset: optional("offset")?.unwrap_or(0),
                }
            }
            "map" => {
                return wrong(value, "an expression without a map: the type of its values is unknown here");
            }
            _ => Term::Field(field_of(value, name, inner)?),
        })
    }

    fn operation<'j>(
        &self,
        sign: &str,
        operands: &'j Value,
        depth: usize,
        width: Option<u32>,
    ) -> Read<'j, Term> {
        let Some((first, rest)) = operands.list()?.split_first().filter(|(_, rest)| !rest.is_empty()) else {
            return wrong(operands, "at least two operands");
        };
        let mut term = self.term_of(first, depth + 1, width)?;
        for operand in rest {
            term = match sign {
                "<<" | ">>" => {
                    let op = if sign == "<<" { NFT_BITWISE_LSHIFT } else { NFT_BITWISE_RSHIFT };
                    let length = width.unwrap_or_else(|| term.datatype().length());
                    Term::Shifted { of: Box::new(shifted_down(term)), op, length, bits: operand.number()? }
                }
                "&" | "|" | "^" if operand.is_object() && operand.field("|").is_none() => {
                    let op = match sign {
                        "&" => NFT_BITWISE_AND,
                        "|" => NFT_BITWISE_OR,
                        _ => NFT_BITWISE_XOR,
                    };
                    let right = Box::new(shifted_down(self.term_of(operand, depth + 1, width)?));
                    let length = width.unwrap_or_else(|| term.datatype().length());
                    Term::Combined { left: Box::new(term), op, right, length }
                }
                _ => with_bits(term, sign, operand)?,
            };
        }
        Ok(term)
    }

    /// A value of this type: a constant, an expression, or a map.
    pub(super) fn value_of<'j>(&self, value: &'j Value, datatype: Datatype) -> Read<'j, Term> {
        match value.only() {
            Some(("map", _)) => Ok(self.map(value, Values::Of(datatype))?.0),
            Some(("|", Value::Array(flags))) if flags.iter().all(Value::is_string) => {
                Ok(Term::Constant(Constant::new(datatype, data(datatype, value)?)))
            }
            Some(("prefix" | "range", _)) | None => {
                Ok(Term::Constant(Constant::new(datatype, data(datatype, value)?)))
            }
            Some(_) => Ok(shifted_down(self.term_of(value, 0, Some(datatype.length()))?)),
        }
    }

    /// A map, and the type of its values if it is known.
    pub(super) fn map<'j>(&self, value: &'j Value, values: Values) -> Read<'j, (Term, Option<Datatype>)> {
        let map = value.need("map")?;
        map.allow(&["key", "data"])?;
        let (key, source, datatype) = self.lookup(map.need("key")?, map.need("data")?, values)?;
        Ok((Term::Map { key: Box::new(key), source }, datatype))
    }

    /// A key, the map in which it is looked up, and the type of the values if it is known.
    pub(super) fn lookup<'j>(
        &self,
        key: &'j Value,
        map: &'j Value,
        values: Values,
    ) -> Read<'j, (Term, Source, Option<Datatype>)> {
        let key = self.term(key)?;
        let source = self.source(&key, map, Some(values))?;
        let maps = match &source {
            Source::Named(name) => (self.find)(name.as_str()).map(|set| set.maps),
            Source::Inline(inline) => Some(inline.set.maps),
        };
        let datatype = if let Some(Maps::Value(datatype)) = maps { Some(datatype) } else { None };
        let is_interval = self.is_interval(&source);
        let key = if is_interval { sortable(key) } else { key };
        Ok((key, source, datatype))
    }

    /// A set or map in which a term is looked up: `"@name"` or `{ "set": [...] }`.
    pub(super) fn source<'j>(&self, key: &Term, set: &'j Value, values: Option<Values>) -> Read<'j, Source> {
        if let Some(name) = set.as_str().and_then(|name| name.strip_prefix('@')) {
            return Ok(Source::Named(SetName::observed(name)));
        }
        let Some(list) = set.field("set") else { return wrong(set, "`\"@name\"` of a set, or `set`") };
        let values = values.map(|values| values.of_elements(list));
        let mut elements = Vec::new();
        for item in list.items() {
            elements.push(self.element(key, item, values)?);
        }
        let ranges = elements.iter().any(|(span, ..)| matches!(span, Span::Range(..)));
        let datatype = key.key_datatype();
        let mut flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT;
        flags |= if ranges { NFT_SET_INTERVAL } else { 0 };
        flags |= if ranges && datatype.parts().len() > 1 { NFT_SET_CONCAT } else { 0 };
        let maps = match values {
            None => Maps::Nothing,
            Some(Values::Verdicts) => Maps::Verdict,
            Some(Values::Objects(kind)) => Maps::Object(kind),
            Some(Values::Of(datatype) | Values::Addresses(datatype) | Values::Ranges(datatype)) => {
                Maps::Value(elements.iter().find_map(|(.., datatype)| *datatype).unwrap_or(datatype))
            }
        };
        flags |= match maps {
            Maps::Nothing => 0,
            Maps::Object(_) => NFT_SET_OBJECT,
            Maps::Value(_) | Maps::Verdict => NFT_SET_MAP,
        };
        let mut inline = Set::with(maps.anonymous_name(), datatype, maps, flags);
        for (span, body, data_type) in elements {
            let span = if ranges { unsorted(datatype, span) } else { span };
            inline.insert(Element { key: Key { datatype, span, invalid: None }, data_type, body });
        }
        Ok(Source::Inline(Box::new(Inline { set: inline })))
    }

    fn element<'j>(
        &self,
        key: &Term,
        item: &'j Value,
        values: Option<Values>,
    ) -> Read<'j, (Span, Body, Option<Datatype>)> {
        let Some(values) = values else {
            let (value, body) = self.described(item)?;
            return Ok((looked_up(key, value)?, body, None));
        };
        let [item, to] = item.list()? else { return wrong(item, "a list of a key and its value") };
        let (value, body) = self.described(item)?;
        let (mapped, datatype) = mapped(to, values)?;
        Ok((looked_up(key, value)?, Body { mapped: Some(mapped), ..body }, datatype))
    }

    /// Whether the kernel sorts the keys of a set.
    pub(super) fn is_interval(&self, source: &Source) -> bool {
        match source {
            Source::Named(name) => (self.find)(name.as_str()).is_some_and(Set::is_interval),
            Source::Inline(inline) => inline.set.is_interval(),
        }
    }
}

/// A key of a set with intervals, in network byte order.
pub(super) fn unsorted(datatype: Datatype, span: Span) -> Span {
    match span {
        Span::One(data) => Span::One(datatype.unsorted(&data)),
        Span::Range(first, last) => Span::Range(datatype.unsorted(&first), datatype.unsorted(&last)),
        Span::CatchAll => Span::CatchAll,
    }
}

/// The term converted to network byte order, in which the kernel sorts it.
pub(super) fn sortable(term: Term) -> Term {
    match term {
        Term::Concat(parts) => Term::Concat(parts.into_iter().map(sortable).collect()),
        term if term.datatype().is_swapped() => Term::Swapped { of: Box::new(term), op: NFT_BYTEORDER_HTON },
        term => term,
    }
}

/// Outside of comparisons, a field that is not made of whole bytes is a number.
fn shifted_down(term: Term) -> Term {
    match term.field().and_then(Field::narrow).filter(|narrow| narrow.shift > 0) {
        Some(narrow) => {
            let (length, bits) = (narrow.bytes, narrow.shift);
            Term::Shifted { of: Box::new(term), op: NFT_BITWISE_RSHIFT, length, bits }
        }
        None => term,
    }
}

/// Applies an operation with a constant; one bitwise expression of the kernel does several.
fn with_bits<'j>(term: Term, sign: &str, operand: &'j Value) -> Read<'j, Term> {
    let constant = match &term {
        Term::Shifted { length, .. } => {
            let number = Datatype::Integer { length: u8::try_from(*length).unwrap_or(u8::MAX), host: true };
            data(number, operand)?
        }
        term => compared(term, operand)?,
    };
    let (of, mask, xor) = match term {
        Term::Bitwise { of, mask, xor } => (of, mask, xor),
        term => {
            let length = constant.len();
            (Box::new(term), Data::highest(length), Data::zero(length))
        }
    };
    let pairs = mask.as_slice().iter().zip(xor.as_slice()).zip(constant.as_slice());
    let (mask, xor): (Vec<u8>, Vec<u8>) = pairs
        .map(|((mask, xor), constant)| match sign {
            "&" => (mask & constant, xor & constant),
            "|" => (mask & !constant, (xor & !constant) | constant),
            _ => (*mask, xor ^ constant),
        })
        .unzip();
    Ok(Term::Bitwise { of, mask: Data::new(&mask), xor: Data::new(&xor) })
}

/// A field; `value` is the whole expression.
pub(super) fn field_of<'j>(value: &'j Value, name: &str, inner: &'j Value) -> Read<'j, Field> {
    let keyed = |table: &'static [Named], key: &str| match table.iter().find(|named| named.name == key) {
        Some(named) => Ok(named.key),
        None => wrong(inner, format_args!("a key of `{name}`")),
    };
    let key = || inner.need("key")?.text();
    let qualified = || match inner.field("family") {
        Some(family) => Ok(format!("{} {}", family.text()?, key()?)),
        None => key().map(str::to_owned),
    };
    let number = |name, default: u32| inner.field(name).map_or(Ok(default), Node::number);
    Ok(Field(match name {
        "payload" => return payload(inner),
        "exthdr" => return exthdr_of(inner, NFT_EXTHDR_OP_IPV6),
        "ip option" => return exthdr_of(inner, NFT_EXTHDR_OP_IPV4),
        "tcp option" => return exthdr_of(inner, NFT_EXTHDR_OP_TCPOPT),
        "sctp chunk" => return exthdr_of(inner, NFT_EXTHDR_OP_SCTP),
        "meta" => {
            inner.allow(&["key"])?;
            Kind::Meta(keyed(META, key()?)?)
        }
        "ct" => {
            inner.allow(&["key", "dir", "family"])?;
            let direction = match inner.field("dir").map(Node::text).transpose()? {
                None => None,
                Some("original") => Some(IP_CT_DIR_ORIGINAL),
                Some("reply") => Some(IP_CT_DIR_REPLY),
                Some(_) => return wrong(inner, "direction `original` or `reply`"),
            };
            Kind::Ct { key: keyed(CT, &qualified()?)?, direction }
        }
        "rt" => {
            inner.allow(&["key", "family"])?;
            Kind::Rt(keyed(RT, &qualified()?)?)
        }
        "socket" => {
            inner.allow(&["key"])?;
            match keyed(SOCKET, key()?)? {
                NFT_SOCKET_CGROUPV2 => {
                    return wrong(value, "another key: JSON does not have the level of `cgroupv2`");
                }
                key => Kind::Socket { key, level: None },
            }
        }
        "osf" => {
            inner.allow(&["key", "ttl"])?;
            let flags = match key()? {
                "name" => 0,
                "version" => NFT_OSF_F_VERSION,
                _ => return wrong(inner, "key `name` or `version`"),
            };
            let ttl = match inner.field("ttl").map(Node::text).transpose()? {
                None => 0,
                Some("loose") => 1,
                Some("skip") => 2,
                Some(_) => return wrong(inner, "ttl `loose` or `skip`"),
            };
            Kind::Osf { flags, ttl }
        }
        "ipsec" => {
            inner.allow(&["key", "family", "dir", "spnum"])?;
            let key = keyed(XFRM, &qualified()?)?;
            let direction = match inner.need("dir")?.text()? {
                "in" => XFRM_POLICY_IN,
                "out" => XFRM_POLICY_OUT,
                _ => return wrong(inner, "direction `in` or `out`"),
            };
            Kind::Xfrm { key, direction, number: number("spnum", 0)? }
        }
        "fib" => {
            inner.allow(&["result", "flags"])?;
            let mut flags = 0;
            for flag in inner.need("flags")?.items() {
                let name = flag.text()?;
                match FIB_FLAGS.iter().find(|(known, _)| *known == name) {
                    Some((_, bit)) => flags |= bit,
                    None => return wrong(flag, "saddr, daddr, mark, iif or oif"),
                }
            }
            match inner.need("result")?.text()? {
                "oif" => Kind::Fib { result: NFT_FIB_RESULT_OIF, flags },
                "check" => Kind::Fib { result: NFT_FIB_RESULT_OIF, flags: flags | NFTA_FIB_F_PRESENT },
                "oifname" => Kind::Fib { result: NFT_FIB_RESULT_OIFNAME, flags },
                "type" => Kind::Fib { result: NFT_FIB_RESULT_ADDRTYPE, flags },
                _ => return wrong(inner, "result oif, oifname, type or check"),
            }
        }
        "numgen" => {
            inner.allow(&["mode", "mod", "offset"])?;
            let kind = match inner.need("mode")?.text()? {
                "inc" => NFT_NG_INCREMENTAL,
                "random" => NFT_NG_RANDOM,
                _ => return wrong(inner, "mode `inc` or `random`"),
            };
            Kind::Numgen { kind, modulus: inner.need("mod")?.number()?, offset: number("offset", 0)? }
        }
        "symhash" => {
            inner.allow(&["mod", "offset"])?;
            Kind::Symhash { modulus: inner.need("mod")?.number()?, offset: number("offset", 0)? }
        }
        _ => return wrong(value, "an expression that libnftables-json(5) describes"),
    }))
}

fn payload(inner: &Value) -> Read<'_, Field> {
    if let Some(base) = inner.field("base") {
        inner.allow(&["base", "offset", "len"])?;
        let base = match base.text()? {
            "ll" => NFT_PAYLOAD_LL_HEADER,
            "nh" => NFT_PAYLOAD_NETWORK_HEADER,
            "th" => NFT_PAYLOAD_TRANSPORT_HEADER,
            "ih" => NFT_PAYLOAD_INNER_HEADER,
            _ => return wrong(base, "base ll, nh, th or ih"),
        };
        let (offset, length) = (inner.need("offset")?, inner.need("len")?);
        let (offset, length): (u16, u16) = (offset.number()?, length.number()?);
        if !(1..=128).contains(&length) {
            return wrong(inner, "a length of 1 to 128 bits");
        }
        return Ok(Field(Kind::Raw { base, offset: offset.into(), length: length.into() }));
    }
    inner.allow(&["protocol", "field", "tunnel"])?;
    let (protocol, name) = (inner.need("protocol")?.text()?, inner.need("field")?.text()?);
    let tunnel = match inner.field("tunnel") {
        None => None,
        Some(tunnel) => match Tunnel::named(tunnel.text()?) {
            Some(tunnel) => Some(tunnel),
            None => return wrong(tunnel, "tunnel vxlan, geneve, gre or gretap"),
        },
    };
    let field = match (tunnel, protocol, name) {
        (Some(Tunnel::Vxlan), "vxlan", "vni") => Some(VXLAN_VNI),
        (Some(Tunnel::Vxlan), "vxlan", "flags") => Some(VXLAN_FLAGS),
        (Some(Tunnel::Geneve), "geneve", "vni") => Some(GENEVE_VNI),
        _ => {
            let fields = FIELDS.iter().filter(|(header, _)| Header::name(*header) == protocol);
            let mut fields = fields.flat_map(|(_, fields)| fields.iter().copied());
            let found =
                fields.find(|field| matches!(field.0, Kind::Payload(payload) if payload.name == name));
            found.map(|field| tunnel.map_or(field, |tunnel| field.inside(tunnel)))
        }
    };
    field.map_or_else(|| wrong(inner, "a protocol and one of its fields"), Ok)
}

fn exthdr_of(inner: &Value, op: u32) -> Read<'_, Field> {
    if let Some(kind) = inner.field("base") {
        inner.allow(&["base", "offset", "len"])?;
        let (kind, offset): (u8, u16) = (kind.number()?, inner.need("offset")?.number()?);
        let length: u16 = inner.need("len")?.number()?;
        // nft prints the check for an option like its first byte.
        let field = if offset == 0 && length == 8 {
            Some(Field::tcp_option(kind))
        } else {
            exthdr::unnamed(op, kind, offset.into(), length.into())
                .filter(|_| length.is_multiple_of(8) && length > 0)
        };
        return field.map_or_else(|| wrong(inner, "a length of whole bytes"), Ok);
    }
    inner.allow(&["name", "field", "offset"])?;
    let name = inner.need("name")?.text()?;
    let part = inner.field("field").map_or(Ok(""), Node::text)?;
    let all = [exthdr::exthdr::ALL, exthdr::ip_option::ALL, exthdr::tcp_option::ALL, exthdr::sctp_chunk::ALL];
    let is_it = |field: &&Field| matches!(field.0, Kind::Exthdr(Exthdr { op: found, header, name: of, .. }) if (found, header, of) == (op, name, part));
    let found = all.iter().copied().flatten().find(is_it);
    found.copied().map_or_else(|| wrong(inner, "a header or option and one of its fields"), Ok)
}

/// The same field, for a comparison with `true` or `false`.
pub(super) fn present(term: Term) -> Term {
    match term {
        Term::Field(Field(Kind::Fib { result, flags })) => {
            Term::Field(Field(Kind::Fib { result, flags: flags | NFTA_FIB_F_PRESENT }))
        }
        term => term,
    }
}

/// The type of the key of a set: `"ipv4_addr"`, a list of types, or `{ "typeof": ... }`.
pub(super) fn datatype<'j>(scope: &Scope<'_>, value: &'j Value) -> Read<'j, Datatype> {
    if let Some(expression) = value.field("typeof") {
        return Ok(scope.term(expression)?.datatype());
    }
    let mut parts = Vec::new();
    for name in value.items() {
        for part in name.text()?.split(" . ") {
            match Datatype::named(part) {
                Some(datatype) => parts.push(datatype),
                None => return wrong(name, "the name of a data type"),
            }
        }
    }
    match parts.as_slice() {
        [] => wrong(value, "a data type"),
        [one] => Ok(*one),
        several if several.len() > MAX_PARTS => wrong(value, format_args!("at most {MAX_PARTS} data types")),
        several => Ok(Datatype::concat(several)),
    }
}

/// Most parts of a concatenation: their numbers share 32 bits.
const MAX_PARTS: usize = 5;
