//! Expressions, matches, and the sets in them, as nft prints them in JSON.

use serde_json::{Value, json};

use crate::display::NftVersion;
use crate::display::expression::{bitwise_sign, is_special, sorted};
use crate::display::field::payload_base;
use crate::json::value::{Flags, number};
use crate::model::data::Data;
use crate::model::datatype::{Datatype, Format as Syntax};
use crate::model::element::{Body, Mapped, Span};
use crate::model::expression::Term;
use crate::model::exthdr::Exthdr;
use crate::model::field::{self, Field, Inner, Kind, Named};
use crate::model::header::Payload;
use crate::model::matching::{Match, Source, Test};
use crate::model::set::{Maps, Set};
use crate::model::verdict::Verdict;
use crate::uapi::*;

impl NftVersion {
    /// Flags of masks, and of values that are compared after a mask.
    fn masked_flags(self) -> Flags {
        if self == Self::V1_0 { Flags::List } else { Flags::Or }
    }

    pub(super) fn condition(self, condition: &Match) -> Value {
        let Match { left, test, inverted, .. } = condition;
        let datatype = left.datatype();
        let equal = if *inverted { "!=" } else { "==" };
        let is_bits = matches!(datatype.format(), Some(Syntax::Bits(_) | Syntax::Labels));
        let plain = |op: &str, right: Value| matched(op, self.term(left), right);
        let and = |mask: &Data, right: Value| {
            let left = json!({ "&": [self.term(left), self.compared(left, mask, self.masked_flags())] });
            matched(equal, left, right)
        };
        match test {
            Test::AnyBit(bits) => {
                plain(if *inverted { "!" } else { "in" }, self.compared(left, bits, Flags::List))
            }
            Test::Masked { mask, value } if is_bits => {
                let all = datatype.number_of(mask).unwrap_or(0).count_ones();
                if datatype == Datatype::TcpFlag && all == 8 {
                    return plain(equal, self.compared(left, value, Flags::Number));
                }
                and(mask, self.compared(left, value, self.masked_flags()))
            }
            Test::Masked { mask, value } => {
                let has_prefix = match datatype {
                    Datatype::Ipv4Addr | Datatype::Ipv6Addr => true,
                    Datatype::Mark => self == Self::V1_0,
                    _ => false,
                };
                match datatype.swapped(mask).prefix_length().filter(|_| has_prefix) {
                    Some(length) => plain(equal, self.prefix(datatype, value, length)),
                    None => and(mask, self.compared(left, value, Flags::List)),
                }
            }
            Test::Is(wanted) => {
                let joined = if datatype == Datatype::TcpFlag { Flags::Number } else { Flags::Or };
                plain(equal, self.compared(left, wanted, joined))
            }
            Test::Compare(op, wanted) => {
                let op = match *op {
                    NFT_CMP_LT => "<",
                    NFT_CMP_GT => ">",
                    NFT_CMP_LTE => "<=",
                    _ => ">=",
                };
                plain(op, self.compared(left, wanted, Flags::List))
            }
            Test::In(source) => plain(equal, self.source(source, left, None)),
            Test::NamePrefix(prefix) => plain(equal, json!(format!("{prefix}*"))),
            Test::Prefix(address, length) => plain(equal, self.prefix(datatype, address, *length)),
            // nft 1.1 prints the hours outside of a range as a range over midnight.
            Test::Range(first, last) if *inverted && datatype == Datatype::Hour && self != Self::V1_0 => {
                plain("in", self.compared_range(left, last, first))
            }
            Test::Range(first, last) | Test::Within(first, last) => {
                plain(equal, self.compared_range(left, first, last))
            }
        }
    }

    fn compared_range(self, left: &Term, first: &Data, last: &Data) -> Value {
        match left.field() {
            Some(field) if !is_special(field) => {
                self.range(field.datatype(), &field.unshifted(first), &field.unshifted(last))
            }
            Some(_) => {
                let end = |data| self.compared(left, data, Flags::List);
                json!({ "range": [end(first), end(last)] })
            }
            None => self.range(left.datatype(), first, last),
        }
    }

    /// A set in which a term is looked up. `values` is the type of values that its definition does not
    /// say.
    pub(super) fn source(self, source: &Source, key: &Term, values: Option<Datatype>) -> Value {
        match source {
            Source::Named(name) => json!(format!("@{name}")),
            Source::Inline(inline) => {
                let set = &inline.set;
                let elements = sorted(set, self)
                    .into_iter()
                    .map(|(span, body)| self.element(set, self.looked_up(set, key, span), body, values));
                json!({ "set": elements.collect::<Vec<Value>>() })
            }
        }
    }

    fn looked_up(self, set: &Set, key: &Term, span: &Span) -> Value {
        // The kernel sorts intervals, so their ends are in network byte order.
        let datatype = key.datatype();
        let host = |data: &Data| if set.is_interval() { datatype.unsorted(data) } else { data.clone() };
        match (span, key.field()) {
            (Span::One(data), _) => self.compared(key, &host(data), Flags::Or),
            (Span::CatchAll, _) => json!("*"),
            (Span::Range(first, last), Some(field)) if !is_special(field) => {
                self.span(datatype, &field.unshifted(&host(first)), &field.unshifted(&host(last)))
            }
            (Span::Range(first, last), Some(_)) => self.compared_range(key, &host(first), &host(last)),
            (Span::Range(first, last), None) => self.span(datatype, &host(first), &host(last)),
        }
    }

    /// An element of a named set.
    pub(super) fn named_element(self, set: &Set, span: &Span, body: &Body) -> Value {
        let host = |data: &Data| if set.is_interval() { set.key.unsorted(data) } else { data.clone() };
        let key = match span {
            Span::One(data) => self.value(set.key, &host(data), Flags::Or),
            Span::Range(first, last) => self.span(set.key, &host(first), &host(last)),
            Span::CatchAll => json!("*"),
        };
        self.element(set, key, body, None)
    }

    fn element(self, set: &Set, key: Value, body: &Body, values: Option<Datatype>) -> Value {
        let is_plain = body.timeout.is_none()
            && body.expires.is_none()
            && body.comment.is_none()
            && body.exprs.is_empty();
        let key = if is_plain { key } else { self.long_element(key, body) };
        let mapped = match (&body.mapped, set.maps) {
            (Some(Mapped::Value(data)), Maps::Value(datatype)) => {
                let datatype = values.unwrap_or(datatype);
                match datatype.halves(data) {
                    Some((datatype, first, last)) => self.span(datatype, &first, &last),
                    None => self.value(datatype, data, Flags::List),
                }
            }
            (Some(Mapped::Verdict(end)), _) => verdict(end),
            (Some(Mapped::Object(name)), _) => json!(name.as_str()),
            _ => return key,
        };
        json!([key, mapped])
    }

    fn long_element(self, key: Value, body: &Body) -> Value {
        let mut element = json!({ "val": key });
        for (name, time) in [("timeout", body.timeout), ("expires", body.expires)] {
            if let Some(time) = time.filter(|time| !time.is_zero()) {
                element[name] = json!(time.as_secs());
            }
        }
        body.comment.iter().for_each(|comment| element["comment"] = json!(comment.as_str()));
        if let Some(Value::Object(fields)) = body.exprs.first().map(|expr| self.stateful(expr, false)) {
            fields.into_iter().for_each(|(name, value)| element[name] = value);
        }
        json!({ "elem": element })
    }

    pub(super) fn term(self, of: &Term) -> Value {
        match of {
            Term::Field(field) => self.field(*field),
            Term::Constant(value) => self.value(value.datatype, &value.data, Flags::List),
            Term::Concat(parts) => {
                json!({ "concat": parts.iter().map(|part| self.term(part)).collect::<Vec<Value>>() })
            }
            Term::Bitwise { of, mask, xor } => self.bitwise(of, mask, xor),
            Term::Combined { left, op, right, .. } => {
                json!({ bitwise_sign(*op): [self.term(left), self.term(right)] })
            }
            Term::Swapped { of, .. } => self.term(of),
            // The bits of a narrow field are a number.
            Term::Shifted { of, op: NFT_BITWISE_RSHIFT, bits, .. }
                if of.field().and_then(Field::narrow).is_some_and(|narrow| narrow.shift == *bits) =>
            {
                self.term(of)
            }
            Term::Shifted { of, op, bits, .. } => {
                let sign = if *op == NFT_BITWISE_LSHIFT { "<<" } else { ">>" };
                json!({ sign: [self.term(of), bits] })
            }
            Term::Jhash { of, modulus, seed, offset } => {
                let mut hash = json!({ "mod": modulus });
                seed.iter().for_each(|seed| hash["seed"] = json!(seed));
                if *offset > 0 {
                    hash["offset"] = json!(offset);
                }
                hash["expr"] = self.term(of);
                json!({ "jhash": hash })
            }
            Term::Map { key, source } => self.map(key, source, None),
        }
    }

    pub(super) fn map(self, key: &Term, source: &Source, values: Option<Datatype>) -> Value {
        json!({ "map": { "key": self.term(key), "data": self.source(source, key, values) } })
    }

    /// `(of & mask) ^ xor`, as the operations that have the same result.
    fn bitwise(self, of: &Term, mask: &Data, xor: &Data) -> Value {
        let pairs = || mask.as_slice().iter().zip(xor.as_slice());
        let or: Vec<u8> = pairs().map(|(mask, xor)| !mask & xor).collect();
        let and: Vec<u8> = pairs().map(|(mask, xor)| mask | (!mask & xor)).collect();
        let xor: Vec<u8> = pairs().map(|(mask, xor)| mask & xor).collect();
        let mut value = self.term(of);
        for (sign, operand, neutral) in [("&", and, 0xff), ("^", xor, 0), ("|", or, 0)] {
            if operand.iter().any(|byte| *byte != neutral) {
                value =
                    json!({ sign: [value, self.compared(of, &Data::new(&operand), self.masked_flags())] });
            }
        }
        value
    }

    pub(super) fn field(self, of: Field) -> Value {
        match of.0 {
            Kind::Payload(payload) => json!({ "payload": payload_of(payload) }),
            Kind::Inner { tunnel, inner: Inner::Payload(payload) } => {
                let mut inner = payload_of(payload);
                inner["tunnel"] = json!(tunnel.name());
                json!({ "payload": inner })
            }
            Kind::Inner { inner: Inner::Meta(key), .. } | Kind::Meta(key) => {
                json!({ "meta": { "key": name(field::meta(key), key) } })
            }
            Kind::Raw { base, offset, length } => {
                let base = payload_base(base);
                json!({ "payload": { "base": base, "offset": offset, "len": length } })
            }
            Kind::Exthdr(exthdr) => exthdr_of(exthdr),
            Kind::Ct { key, direction } => {
                let mut ct = json!({ "key": name(field::ct(key), key) });
                if let Some(direction) = direction {
                    ct["dir"] = json!(if direction == IP_CT_DIR_ORIGINAL { "original" } else { "reply" });
                }
                json!({ "ct": ct })
            }
            Kind::Rt(key) => json!({ "rt": in_family(&name(field::named(field::RT, key), key)) }),
            Kind::Socket { key, .. } => {
                json!({ "socket": { "key": name(field::named(field::SOCKET, key), key) } })
            }
            Kind::Xfrm { key, direction, number } => {
                let mut state = in_family(&name(field::named(field::XFRM, key), key));
                state["dir"] = json!(if direction == XFRM_POLICY_IN { "in" } else { "out" });
                state["spnum"] = json!(number);
                json!({ "ipsec": state })
            }
            Kind::Osf { flags, ttl } => {
                let mut osf =
                    json!({ "key": if flags & NFT_OSF_F_VERSION != 0 { "version" } else { "name" } });
                if ttl > 0 {
                    osf["ttl"] = json!(if ttl == 1 { "loose" } else { "skip" });
                }
                json!({ "osf": osf })
            }
            Kind::Numgen { kind, modulus, offset } => {
                let mode = if kind == NFT_NG_RANDOM { "random" } else { "inc" };
                json!({ "numgen": { "mode": mode, "mod": modulus, "offset": offset } })
            }
            Kind::Symhash { modulus, offset: 0 } => json!({ "symhash": { "mod": modulus } }),
            Kind::Symhash { modulus, offset } => json!({ "symhash": { "mod": modulus, "offset": offset } }),
            Kind::Fib { result, flags } => {
                let names = FIB_FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name);
                let result = match result {
                    NFT_FIB_RESULT_OIF => "oif",
                    NFT_FIB_RESULT_OIFNAME => "oifname",
                    _ => "type",
                };
                json!({ "fib": { "result": result, "flags": names.collect::<Vec<&str>>() } })
            }
        }
    }
}

pub(super) const FIB_FLAGS: [(&str, u32); 5] = [
    ("saddr", NFTA_FIB_F_SADDR),
    ("daddr", NFTA_FIB_F_DADDR),
    ("mark", NFTA_FIB_F_MARK),
    ("iif", NFTA_FIB_F_IIF),
    ("oif", NFTA_FIB_F_OIF),
];

fn matched(op: &str, left: Value, right: Value) -> Value {
    json!({ "match": { "op": op, "left": left, "right": right } })
}

fn name(named: Option<&Named>, key: u32) -> String {
    named.map_or_else(|| key.to_string(), |named| named.name.to_owned())
}

/// `ip nexthop` as a key and a family.
fn in_family(name: &str) -> Value {
    match name.split_once(' ') {
        Some((family, key)) => json!({ "key": key, "family": family }),
        None => json!({ "key": name }),
    }
}

fn payload_of(payload: Payload) -> Value {
    json!({ "protocol": payload.header.name(), "field": payload.name })
}

fn exthdr_of(exthdr: Exthdr) -> Value {
    let Exthdr { op, kind, header, name, offset, length, .. } = exthdr;
    let of = match op {
        NFT_EXTHDR_OP_IPV4 => "ip option",
        NFT_EXTHDR_OP_TCPOPT => "tcp option",
        NFT_EXTHDR_OP_SCTP => "sctp chunk",
        _ => "exthdr",
    };
    match (header, name) {
        ("", _) => json!({ of: { "base": kind, "offset": offset, "len": length } }),
        (header, "") => json!({ of: { "name": header } }),
        (header, name) => json!({ of: { "name": header, "field": name } }),
    }
}

pub(super) fn verdict(end: &Verdict) -> Value {
    match end {
        Verdict::Accept => json!({ "accept": null }),
        Verdict::Continue => json!({ "continue": null }),
        Verdict::Drop => json!({ "drop": null }),
        Verdict::Goto(chain) => json!({ "goto": { "target": chain.as_str() } }),
        Verdict::Jump(chain) => json!({ "jump": { "target": chain.as_str() } }),
        Verdict::Return => json!({ "return": null }),
    }
}

/// The queue numbers of a range, or one.
pub(super) fn numbers(first: u16, last: u32) -> Value {
    if u32::from(first) == last { json!(first) } else { json!({ "range": [number(first.into()), last] }) }
}
