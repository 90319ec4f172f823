//! Statements from JSON.

use serde_json::Value;

use crate::bytecode::linearize_statement;
use crate::json::error::{Node, Read, wrong};
use crate::json::read_expression::{field_of, present, sortable};
use crate::json::read_map::Values;
use crate::json::read_nat::{family_of, nfproto};
use crate::json::read_parts::{log, stateful, stateful_of, synproxy, verdict};
use crate::json::read_value::{compared, span, unescaped};
use crate::json::scope::Scope;
use crate::json::write::{OBJECT_WORDS, QUEUE_FLAGS};
use crate::model::datatype::{Datatype, Format as Syntax};
use crate::model::element::{Body, Span};
use crate::model::expression::Term;
use crate::model::family::Family;
use crate::model::field::Kind;
use crate::model::matching::{Inline, Match, Source, Test};
use crate::model::name::{Comment, CounterName, SetName};
use crate::model::set::{Maps, Set};
use crate::model::statement::{Queue, QueueTo, Reject, SetUpdate, Statement};
use crate::model::symbols::{ICMP_CODES, ICMPV6_CODES};
use crate::uapi::*;

impl Scope<'_> {
    pub(super) fn statement<'j>(&self, value: &'j Value) -> Read<'j, Statement> {
        if let Some(verdict) = verdict(value)? {
            return Ok(Statement::Verdict(verdict));
        }
        let Some((name, inner)) = value.only() else {
            return wrong(value, "a statement: an object with one property");
        };
        if let Some(statement) = stateful(value)? {
            return Ok(statement);
        }
        if let Some((_, kind)) = OBJECT_WORDS.iter().find(|(word, _)| *word == name)
            && (inner.is_string() || inner.field("map").is_some())
        {
            return self.object(*kind, inner);
        }
        Ok(match name {
            "match" => Statement::Match(self.condition(inner)?),
            "vmap" => {
                inner.allow(&["key", "data"])?;
                let (key, source, _) =
                    self.lookup(inner.need("key")?, inner.need("data")?, Values::Verdicts)?;
                Statement::Vmap { key, source }
            }
            "mangle" => {
                inner.allow(&["key", "value"])?;
                let key = inner.need("key")?;
                let Some((name, of)) = key.only() else { return wrong(key, "a field") };
                let field = field_of(key, name, of)?;
                if !matches!(
                    field.0,
                    Kind::Meta(_) | Kind::Ct { .. } | Kind::Exthdr(_) | Kind::Payload(_) | Kind::Raw { .. }
                ) {
                    return wrong(key, "a field that can be set");
                }
                let value = self.value_of(inner.need("value")?, field.datatype())?;
                Statement::Set { field, value, write: None }
            }
            "notrack" => Statement::Notrack,
            "log" => Statement::Log(log(inner)?),
            "reject" => Statement::Reject(self.reject(inner)?),
            "masquerade" | "redirect" | "snat" | "dnat" => self.nat(name, inner)?,
            "queue" => self.queue(inner)?,
            "synproxy" => Statement::Synproxy(synproxy(inner)?),
            "tproxy" => self.tproxy(inner)?,
            "dup" => {
                inner.allow(&["addr", "dev"])?;
                let to = inner.need("addr")?;
                let device = inner.field("dev").map(|device| self.value_of(device, Datatype::Ifindex));
                if self.family == Family::Netdev {
                    Statement::Dup { address: None, device: Some(self.value_of(to, Datatype::Ifindex)?) }
                } else {
                    let address = self.value_of(to, self.address(to))?;
                    Statement::Dup { address: Some(address), device: device.transpose()? }
                }
            }
            "fwd" => {
                inner.allow(&["dev", "addr", "family"])?;
                let device = self.value_of(inner.need("dev")?, Datatype::Ifindex)?;
                let address = inner.field("addr").map(|to| {
                    let datatype = family_of(inner)?.unwrap_or_else(|| self.address(to));
                    Ok((u32::from(nfproto(datatype)), self.value_of(to, datatype)?))
                });
                Statement::Fwd { device, address: address.transpose()? }
            }
            "flow" => {
                inner.allow(&["op", "flowtable"])?;
                let name = inner.need("flowtable")?.text()?;
                Statement::FlowAdd(name.strip_prefix('@').unwrap_or(name).into())
            }
            "set" | "map" => self.update(name, inner)?,
            "meter" => self.meter(inner)?,
            "reset" => {
                let Some((name, of)) = inner.only() else { return wrong(inner, "a TCP option") };
                Statement::ResetOption(field_of(inner, name, of)?)
            }
            _ => return wrong(value, "a statement that libnftables-json(5) describes"),
        })
    }

    fn object<'j>(&self, kind: u32, inner: &'j Value) -> Read<'j, Statement> {
        let Some(name) = inner.as_str() else {
            return match self.map(inner, Values::Objects(kind))?.0 {
                Term::Map { key, source } => Ok(Statement::ObjectMap { kind: Some(kind), key: *key, source }),
                _ => wrong(inner, "a name or a map"),
            };
        };
        Ok(match kind {
            NFT_OBJECT_COUNTER => Statement::CounterRef(CounterName::observed(name)),
            kind => Statement::Object { kind, name: name.into() },
        })
    }

    fn condition<'j>(&self, inner: &'j Value) -> Read<'j, Match> {
        inner.allow(&["op", "left", "right"])?;
        let (left, right) = (inner.need("left")?, inner.need("right")?);
        let op = inner.field("op").map_or(Ok("in"), Node::text)?;
        let inverted = matches!(op, "!=" | "!");
        let is_equal = matches!(op, "==" | "!=" | "in" | "!");
        let compare = match op {
            "<" => Some(NFT_CMP_LT),
            ">" => Some(NFT_CMP_GT),
            "<=" => Some(NFT_CMP_LTE),
            ">=" => Some(NFT_CMP_GTE),
            _ if is_equal => None,
            _ => return wrong(inner, "op ==, !=, <, >, <=, >=, in or !"),
        };
        let matched = |left, test| Match { inverted, ..Match::new(left, test) };
        // A value that is compared after a mask.
        if is_equal
            && right.field("set").is_none()
            && let Some([field, mask]) = left.field("&").and_then(Value::as_array).map(Vec::as_slice)
            && (!mask.is_object() || mask.field("|").is_some())
        {
            let term = self.term(field)?;
            if !matches!(term, Term::Bitwise { .. }) && op != "!" {
                let (mask, value) = (compared(&term, mask)?, compared(&term, right)?);
                return Ok(matched(term, Test::Masked { mask, value }));
            }
        }
        let mut term = self.term(left)?;
        if let Some(op) = compare {
            let data = compared(&term, right)?;
            return Ok(Match::new(term, Test::Compare(op, data)));
        }
        // nft 1.1.7 compares a concatenation of one field.
        let right = match right.field("concat").and_then(Value::as_array).map(Vec::as_slice) {
            Some([one]) => one,
            _ => right,
        };
        if right.is_boolean() {
            term = present(term);
        }
        if right.field("set").is_some() || right.as_str().is_some_and(|name| name.starts_with('@')) {
            let source = self.source(&term, right, None)?;
            // Linearizing converts the key of an anonymous set itself.
            let is_named = matches!(source, Source::Named(_)) || matches!(term, Term::Concat(_));
            let term = if is_named && self.is_interval(&source) { sortable(term) } else { term };
            return Ok(matched(term, Test::In(source)));
        }
        let datatype = term.datatype();
        let is_bits = matches!(datatype.format(), Some(Syntax::Bits(_) | Syntax::Labels));
        if is_bits && matches!(op, "in" | "!") {
            let bits = compared(&term, right)?;
            return Ok(matched(term, Test::AnyBit(bits)));
        }
        if let Some(text) = right.as_str()
            && datatype.format() == Some(Syntax::Text)
            && let (prefix, true) = unescaped(text)
        {
            return Ok(matched(term, Test::NamePrefix(prefix.into())));
        }
        if let Some(prefix) = right.field("prefix") {
            return self.prefix(&term, right, prefix).map(|test| matched(term, test));
        }
        let test = match span(datatype, right, &|value| compared(&term, value))? {
            Span::One(data) => Test::Is(data),
            Span::Range(first, last)
                if datatype == Datatype::Hour && datatype.swapped(&first) > datatype.swapped(&last) =>
            {
                return Ok(Match { inverted: !inverted, ..Match::new(term, Test::Range(last, first)) });
            }
            Span::Range(first, last) => Test::Range(first, last),
            Span::CatchAll => return wrong(right, "a value"),
        };
        Ok(matched(term, test))
    }

    fn prefix<'j>(&self, term: &Term, right: &'j Value, prefix: &'j Value) -> Read<'j, Test> {
        let datatype = term.datatype();
        let bits: u8 = prefix.need("len")?.number()?;
        let first = match span(datatype, right, &|value| compared(term, value))? {
            Span::One(data) if usize::from(bits) == data.len() * 8 => return Ok(Test::Is(data)),
            Span::One(data) | Span::Range(data, _) => data,
            Span::CatchAll => return wrong(right, "a prefix"),
        };
        if datatype.is_host_order() {
            let mask = datatype.swapped(&crate::model::data::Data::mask(bits, first.len()));
            return Ok(Test::Masked { mask, value: first });
        }
        Ok(Test::Prefix(first, bits))
    }

    fn queue<'j>(&self, inner: &'j Value) -> Read<'j, Statement> {
        if !inner.is_null() {
            inner.allow(&["num", "flags"])?;
        }
        let mut flags = 0;
        for flag in inner.field("flags").map(Node::items).unwrap_or_default() {
            let name = flag.text()?;
            match QUEUE_FLAGS.iter().find(|(known, _)| *known == name) {
                Some((_, bit)) => flags |= bit,
                None => return wrong(flag, "bypass or fanout"),
            }
        }
        let to = match inner.field("num") {
            None => QueueTo::Numbers { first: 0, count: 1 },
            Some(number) if number.is_u64() => QueueTo::Numbers { first: number.number()?, count: 1 },
            Some(number) => match number.field("range").map(Node::list).transpose()? {
                Some([first, last]) => {
                    let (low, high): (u16, u16) = (first.number()?, last.number()?);
                    match high.checked_sub(low).and_then(|more| more.checked_add(1)) {
                        Some(count) => QueueTo::Numbers { first: low, count },
                        None => return wrong(number, "a range of queues"),
                    }
                }
                Some(_) => return wrong(number, "two queues"),
                None => {
                    QueueTo::Computed(self.value_of(number, Datatype::Integer { length: 2, host: true })?)
                }
            },
        };
        Ok(Statement::Queue(Queue { to, flags }))
    }

    fn reject<'j>(&self, inner: &'j Value) -> Read<'j, Reject> {
        if inner.is_null() {
            return Ok(Reject::PortUnreachable);
        }
        inner.allow(&["type", "expr"])?;
        let own = match self.family {
            Family::Ip => "icmp",
            Family::Ip6 => "icmpv6",
            _ => "icmpx",
        };
        let of = inner.field("type").map_or(Ok(own), Node::text)?;
        let code = inner.field("expr");
        let named = |names: &[(&str, u32)], default: u8| match code {
            None => Ok(default),
            Some(code) if code.is_u64() => code.number(),
            Some(code) => {
                let name = code.text()?;
                let found = names.iter().find(|(known, _)| *known == name);
                match found.and_then(|(_, number)| u8::try_from(*number).ok()) {
                    Some(number) => Ok(number),
                    None => wrong(code, format_args!("a code of {of}")),
                }
            }
        };
        Ok(match of {
            "tcp reset" => Reject::TcpReset,
            "icmpx" => match code.map_or(Ok("port-unreachable"), Node::text)? {
                "port-unreachable" => Reject::PortUnreachable,
                "admin-prohibited" => Reject::AdminProhibited,
                "host-unreachable" => Reject::HostUnreachable,
                "no-route" => Reject::NoRoute,
                _ => return wrong(inner, "a code of icmpx"),
            },
            "icmp" => match named(&ICMP_CODES, ICMP_PORT_UNREACH)? {
                ICMP_PORT_UNREACH if self.family == Family::Ip => Reject::PortUnreachable,
                code => Reject::Icmp(code),
            },
            "icmpv6" => match named(&ICMPV6_CODES, ICMPV6_PORT_UNREACH)? {
                ICMPV6_PORT_UNREACH if self.family == Family::Ip6 => Reject::PortUnreachable,
                code => Reject::Icmpv6(code),
            },
            _ => return wrong(inner, "type tcp reset, icmpx, icmp or icmpv6"),
        })
    }

    fn update<'j>(&self, word: &str, inner: &'j Value) -> Read<'j, Statement> {
        inner.allow(&["op", "elem", word, "stmt", "data"])?;
        let operation = inner.need("op")?;
        let op = match operation.text()? {
            "add" => NFT_DYNSET_OP_ADD,
            "update" => NFT_DYNSET_OP_UPDATE,
            "delete" => NFT_DYNSET_OP_DELETE,
            _ => return wrong(operation, "op add, update or delete"),
        };
        let name = inner.need(word)?;
        let Some(name) = name.text()?.strip_prefix('@') else { return wrong(name, "`\"@name\"` of a set") };
        let (element, body) = self.described(inner.need("elem")?)?;
        let value = match inner.field("data").filter(|_| word == "map") {
            None => None,
            Some(data) => {
                let datatype = match (self.find)(name).map(|set| set.maps) {
                    Some(Maps::Value(datatype)) => datatype,
                    _ => return wrong(data, "the value of a map that is known here"),
                };
                Some(self.value_of(data, datatype)?)
            }
        };
        let mut statements = Vec::new();
        for item in inner.field("stmt").map(Node::items).unwrap_or_default() {
            match stateful(item)? {
                Some(statement) => statements.push(statement),
                None => return wrong(item, "counter, limit, quota, last or ct count"),
            }
        }
        let set = Source::Named(SetName::observed(name));
        let (key, timeout) = (self.term(element)?, milliseconds(&body));
        let plain = SetUpdate::of(op, set, key);
        Ok(Statement::Update(Box::new(SetUpdate { value, timeout, statements, ..plain })))
    }

    fn meter<'j>(&self, inner: &'j Value) -> Read<'j, Statement> {
        inner.allow(&["key", "stmt", "size", "name"])?;
        let (element, body) = self.described(inner.need("key")?)?;
        let statement = inner.need("stmt")?;
        let Some(stateful) = stateful(statement)? else {
            return wrong(statement, "counter, limit, quota, last or ct count");
        };
        let (key, timeout) = (self.term(element)?, milliseconds(&body));
        let flags = if timeout.is_some() { NFT_SET_TIMEOUT } else { 0 };
        let name = SetName::observed(inner.field("name").map_or(Ok("__set%d"), Node::text)?);
        let mut set =
            Set::with(name, key.datatype(), Maps::Nothing, NFT_SET_ANONYMOUS | NFT_SET_EVAL | flags);
        set.size = inner.field("size").map(Node::number).transpose()?;
        // nft renews the timeout of an element, if it has one.
        let op = if timeout.is_some() { NFT_DYNSET_OP_UPDATE } else { NFT_DYNSET_OP_ADD };
        let set = Source::Inline(Box::new(Inline { set }));
        let (statements, plain) = (vec![stateful], SetUpdate::of(op, set, key));
        Ok(Statement::Update(Box::new(SetUpdate { timeout, statements, ..plain })))
    }

    /// An element: its value, and what `{ "elem": ... }` says about it.
    pub(super) fn described<'j>(&self, item: &'j Value) -> Read<'j, (&'j Value, Body)> {
        let Some(element) = item.field("elem") else { return Ok((item, Body::default())) };
        let mut body = Body::default();
        let mut exprs = Vec::new();
        for (name, value) in element.as_object().into_iter().flatten() {
            let seconds = || Ok(Some(std::time::Duration::from_secs(value.number()?)));
            match name.as_str() {
                "val" => {}
                "timeout" => body.timeout = seconds()?,
                "expires" => body.expires = seconds()?,
                "comment" => body.comment = Some(Comment::observed(value.text()?)),
                name => match stateful_of(name, value)?.as_ref().and_then(linearize_statement::stateful) {
                    Some(expr) => exprs.push(expr),
                    None => return wrong(element, format_args!("no property `{name}`")),
                },
            }
        }
        body.exprs = exprs.into();
        Ok((element.need("val")?, body))
    }
}

fn milliseconds(body: &Body) -> Option<u64> {
    u64::try_from(body.timeout?.as_millis()).ok()
}
