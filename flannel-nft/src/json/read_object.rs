//! Tables and the objects in them from JSON.

use std::time::Duration;

use serde_json::Value;

use crate::bytecode::expr::Expr;
use crate::bytecode::linearize_statement;
use crate::json::error::{Node, Read, wrong};
use crate::json::object::{SET_FLAGS, TABLE_FLAGS, states};
use crate::json::read_expression::{datatype, unsorted};
use crate::json::read_map::{Values, mapped};
use crate::json::read_parts::{boolean, limit, stateful, synproxy};
use crate::json::read_value::key;
use crate::json::scope::{Scope, table_of};
use crate::json::write::OBJECT_WORDS;
use crate::model::chain::{Base, Chain, ChainKind, Device, Hook, Policy, Priority};
use crate::model::element::{Body, Element, Key, Span};
use crate::model::family::Family;
use crate::model::name::{ChainName, Comment, CounterName, ObjectName, SetName};
use crate::model::object::{Flowtable, Object, ObjectKind};
use crate::model::protocol::Protocol;
use crate::model::ruleset::Ownership;
use crate::model::set::{Maps, Set};
use crate::model::table::{Counter, Table};
use crate::uapi::*;
use crate::wire::set_definition::declare;
use crate::wire::{attribute_bytes, exprs};

/// What happens to an object that exists already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// It is an error.
    New,
    /// It stays; new elements are added to it.
    NewOrSame,
}

pub(super) fn table(inner: &Value) -> Read<'_, Table> {
    inner.allow(&["family", "name", "handle", "flags", "comment"])?;
    let id = table_of("table", inner)?;
    let mut table = Table::new(id.family, id.name);
    for flag in inner.field("flags").map(Node::items).unwrap_or_default() {
        let name = flag.text()?;
        match TABLE_FLAGS.iter().find(|(known, _)| *known == name) {
            Some((_, NFT_TABLE_F_DORMANT)) => table = table.dormant(),
            Some(_) => table = table.ownership(Ownership::Owner),
            None => return wrong(flag, "dormant, owner or persist"),
        }
    }
    table.comment = comment(inner)?;
    Ok(table)
}

fn comment(inner: &Value) -> Read<'_, Option<Comment>> {
    inner.field("comment").map(|text| Ok(Comment::observed(text.text()?))).transpose()
}

/// Adds an object that is neither a table nor a rule. `item` is `{ kind: inner }`.
pub(super) fn add<'j>(
    item: &'j Value,
    kind: &str,
    inner: &'j Value,
    table: &mut Table,
    place: Place,
) -> Read<'j, ()> {
    let exists = |exists: bool| match place {
        Place::New if exists => wrong(inner, "an object that does not exist yet"),
        _ => Ok(exists),
    };
    match kind {
        "chain" => {
            let chain = chain(inner)?;
            let old = table.chains.find_mut(chain.name.as_str());
            exists(old.is_some())?;
            match (old, &chain.base) {
                (None, _) => {
                    table.chains.insert(chain);
                }
                // Adding a base chain again changes its policy.
                (Some(old), Some(base)) => match &mut old.base {
                    Some(old)
                        if (old.kind, old.hook, old.priority) == (base.kind, base.hook, base.priority) =>
                    {
                        if inner.field("policy").is_some() {
                            old.policy = base.policy;
                        }
                    }
                    _ => return wrong(inner, "the same type, hook and priority as the chain that exists"),
                },
                (Some(_), None) => {}
            }
        }
        "set" | "map" | "meter" => {
            let set = set(inner, table)?;
            let old = table.sets.find_mut(set.name.as_str());
            exists(old.is_some())?;
            match old {
                None => {
                    table.sets.insert(set);
                }
                Some(old) if (old.key, old.maps) == (set.key, set.maps) => {
                    old.elements.extend(set.elements);
                }
                Some(_) => return wrong(inner, "the same types as the set that exists"),
            }
        }
        "element" => {
            let name = inner.need("name")?;
            let family = table.id.family;
            let Some(set) = table.sets.find_mut(name.text()?) else {
                return wrong(name, "a set of the table");
            };
            elements(set, family, inner.need("elem")?, place)?;
        }
        "flowtable" => {
            let flowtable = flowtable(inner)?;
            if !exists(table.flowtables.iter().any(|old| old.name == flowtable.name))? {
                table.flowtables.push(flowtable);
            }
        }
        "counter" => {
            let counter = counter(inner)?;
            if !exists(table.counters.find(counter.name.as_str()).is_some())? {
                table.counters.insert(counter);
            }
        }
        _ => {
            let object = object(item, kind, inner)?;
            if !exists(table.objects.iter().any(|old| old.is_same_object(&object)))? {
                table.objects.push(object);
            }
        }
    }
    Ok(())
}

fn name(inner: &Value) -> Read<'_, &str> {
    let name = inner.need("name")?;
    match name.text()? {
        "" => wrong(name, "a name"),
        text => Ok(text),
    }
}

fn devices(inner: &Value) -> Read<'_, Vec<Device>> {
    let mut devices = Vec::new();
    for device in inner.field("dev").map(Node::items).unwrap_or_default() {
        match crate::InterfaceName::new(device.text()?) {
            Ok(name) => devices.push((&name).into()),
            Err(_) => return wrong(device, "the name of a device"),
        }
    }
    Ok(devices)
}

fn priority(value: &Value) -> Read<'_, Priority> {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.map_or_else(|| wrong(value, "a priority: a number of 32 bits"), |number| Ok(Priority::new(number)))
}

fn chain(inner: &Value) -> Read<'_, Chain> {
    inner
        .allow(&["family", "table", "name", "handle", "comment", "type", "hook", "prio", "policy", "dev"])?;
    let mut chain = Chain::regular(ChainName::observed(name(inner)?));
    chain.comment = comment(inner)?;
    if inner.field("hook").is_none() {
        return Ok(chain);
    }
    let kind = inner.need("type")?;
    let kind = match kind.text()? {
        "filter" => ChainKind::Filter,
        "nat" => ChainKind::Nat,
        "route" => ChainKind::Route,
        _ => return wrong(kind, "type filter, nat or route"),
    };
    let hook = inner.need("hook")?;
    let Some(found) = Hook::named(hook.text()?) else { return wrong(hook, "the name of a hook") };
    let priority = priority(inner.need("prio")?)?;
    let policy = match inner.field("policy") {
        None => Policy::Accept,
        Some(policy) => match policy.text()? {
            "accept" => Policy::Accept,
            "drop" => Policy::Drop,
            _ => return wrong(policy, "policy accept or drop"),
        },
    };
    chain.base = Some(Base { policy, devices: devices(inner)?, ..Base::new(kind, found, priority) });
    Ok(chain)
}

fn set<'j>(inner: &'j Value, table: &Table) -> Read<'j, Set> {
    inner.allow(&[
        "family",
        "table",
        "name",
        "handle",
        "comment",
        "type",
        "map",
        "flags",
        "timeout",
        "gc-interval",
        "size",
        "count",
        "policy",
        "auto-merge",
        "elem",
        "stmt",
    ])?;
    let scope = Scope { family: table.id.family, find: &|_| None };
    let typed = inner.need("type")?;
    let declared = typed.field("typeof").map(|expression| scope.term(expression)).transpose()?;
    let key = match &declared {
        Some(expression) => expression.datatype(),
        None => datatype(&scope, typed)?,
    };
    let mut set = Set::with(SetName::observed(name(inner)?), key, Maps::Nothing, 0);
    for flag in inner.field("flags").map(Node::items).unwrap_or_default() {
        let name = flag.text()?;
        match SET_FLAGS.iter().find(|(known, _)| *known == name) {
            Some((_, bit)) => set.flags |= bit,
            None => return wrong(flag, "constant, interval, timeout or dynamic"),
        }
    }
    let elements_of = inner.field("elem");
    if let Some(map) = inner.field("map") {
        let object = map.as_str().and_then(|name| OBJECT_WORDS.iter().find(|(word, _)| *word == name));
        (set.maps, set.flags) = match (map.as_str(), object) {
            (Some("verdict"), _) => (Maps::Verdict, set.flags | NFT_SET_MAP),
            (_, Some((_, kind))) => (Maps::Object(*kind), set.flags | NFT_SET_OBJECT),
            _ => {
                let value = datatype(&scope, map)?;
                let is_range = |list| matches!(Values::Of(value).of_elements(list), Values::Ranges(_));
                let has_ranges = elements_of.is_some_and(is_range);
                (Maps::Value(if has_ranges { value.doubled() } else { value }), set.flags | NFT_SET_MAP)
            }
        };
    }
    if set.is_interval() && key.parts().len() > 1 {
        set.flags |= NFT_SET_CONCAT;
    }
    let seconds = |name| -> Read<'j, Option<Duration>> {
        let Some(seconds) = inner.field(name) else { return Ok(None) };
        Ok(Some(Duration::from_secs(seconds.number()?)).filter(|time| !time.is_zero()))
    };
    (set.timeout, set.gc_interval) = (seconds("timeout")?, seconds("gc-interval")?);
    if set.timeout.is_some() {
        set.flags |= NFT_SET_TIMEOUT;
    }
    set.size = inner.field("size").map(Node::number).transpose()?;
    if let Some(policy) = inner.field("policy") {
        set.memory = match policy.text()? {
            "memory" => true,
            "performance" => false,
            _ => return wrong(policy, "policy memory or performance"),
        };
    }
    set.auto_merge = inner.field("auto-merge").map_or(Ok(false), boolean)?;
    set.comment = comment(inner)?;
    let mut statements_of = Vec::new();
    for item in inner.field("stmt").map(Node::items).unwrap_or_default() {
        match stateful(item)?.as_ref().and_then(linearize_statement::stateful) {
            Some(expr) => statements_of.push(expr),
            None => return wrong(item, "counter, limit, quota, last or ct count"),
        }
    }
    match statements_of.as_slice() {
        [] => {}
        // `NFTA_SET_EXPR` nested in nothing: its payload is the expression.
        [one] => {
            set.extra.0.push((NFTA_SET_EXPR, named(one)));
        }
        several => {
            let list =
                attribute_bytes(|a| several.iter().for_each(|expr| a.bytes(NFTA_LIST_ELEM, &named(expr))));
            set.extra.0.push((NFTA_SET_EXPRESSIONS, list));
        }
    }
    declared.iter().for_each(|key| declare(&mut set, key));
    if let Some(list) = elements_of {
        elements(&mut set, table.id.family, list, Place::NewOrSame)?;
    }
    Ok(set)
}

/// An expression with its name, as the kernel returns it: it does not mark what is nested.
fn named(expr: &Expr) -> Box<[u8]> {
    attribute_bytes(|a| {
        a.text(NFTA_EXPR_NAME, exprs::name(expr));
        a.bytes(NFTA_EXPR_DATA, &attribute_bytes(|a| exprs::body(expr, a)));
    })
}

/// Adds elements to a set.
pub(super) fn elements<'j>(set: &mut Set, family: Family, list: &'j Value, place: Place) -> Read<'j, ()> {
    for (item, element) in read_elements(set, family, list)? {
        let exists = set.elements.get(&element.key.span);
        let is_same = exists.is_some_and(|old| old.mapped == element.body.mapped);
        match (exists.is_some(), place) {
            (true, Place::New) => return wrong(item, "an element that does not exist yet"),
            (true, Place::NewOrSame) if is_same => {}
            _ => set.insert(element),
        }
        if let Some(invalid) = set.invalid.take() {
            return wrong(item, format_args!("another element: {invalid}"));
        }
    }
    Ok(())
}

/// The elements of a list, each with its JSON.
pub(super) fn read_elements<'j>(
    set: &Set,
    family: Family,
    list: &'j Value,
) -> Read<'j, Vec<(&'j Value, Element)>> {
    let scope = Scope { family, find: &|_| None };
    let mut elements = Vec::new();
    for item in list.items() {
        let (value, body, data_type) = match (set.maps, item.as_array().map(Vec::as_slice)) {
            (Maps::Nothing, _) => {
                let (value, body) = scope.described(item)?;
                (value, body, None)
            }
            (maps, Some([key, to])) => {
                let (value, body) = scope.described(key)?;
                let values = match maps {
                    Maps::Object(kind) => Values::Objects(kind),
                    Maps::Verdict => Values::Verdicts,
                    Maps::Value(datatype) => datatype.end().map_or(Values::Of(datatype), Values::Ranges),
                    Maps::Nothing => return wrong(item, "an element of a set"),
                };
                let (mapped, data_type) = mapped(to, values)?;
                (value, Body { mapped: Some(mapped), ..body }, data_type)
            }
            // To delete an element, its key is enough.
            (_, _) => {
                let (value, body) = scope.described(item)?;
                (value, body, None)
            }
        };
        let span = key(set.key, value)?;
        if matches!(span, Span::Range(..)) && !set.is_interval() {
            return wrong(value, "a value: the set does not have the flag `interval`");
        }
        let span = if set.is_interval() { unsorted(set.key, span) } else { span };
        elements
            .push((item, Element { key: Key { datatype: set.key, span, invalid: None }, data_type, body }));
    }
    Ok(elements)
}

fn counter(inner: &Value) -> Read<'_, Counter> {
    inner.allow(&["family", "table", "name", "handle", "comment", "packets", "bytes"])?;
    let mut counter = Counter::new(CounterName::observed(name(inner)?));
    let number = |name| inner.field(name).map_or(Ok(0), Node::number);
    (counter.packets, counter.bytes) = (number("packets")?, number("bytes")?);
    counter.comment = comment(inner)?;
    Ok(counter)
}

fn protocol(inner: &Value) -> Read<'_, Protocol> {
    let protocol = inner.need("protocol")?;
    match protocol.as_str() {
        Some(text) => Protocol::named(text).map_or_else(|| wrong(protocol, "the name of a protocol"), Ok),
        None => Ok(Protocol::new(protocol.number()?)),
    }
}

/// A named object other than a counter.
fn object<'j>(item: &'j Value, kind: &str, inner: &'j Value) -> Read<'j, Object> {
    const COMMON: [&str; 5] = ["family", "table", "name", "handle", "comment"];
    let allow = |names: &[&str]| inner.allow(&[&COMMON, names].concat());
    let l3proto = || -> Read<'j, Option<Family>> {
        let Some(family) = inner.field("l3proto") else { return Ok(None) };
        let found = Family::named(family.text()?);
        found.map_or_else(|| wrong(family, "family ip, ip6 or inet"), |family| Ok(Some(family)))
    };
    let kind = match kind {
        "quota" => {
            allow(&["bytes", "used", "inv"])?;
            ObjectKind::Quota {
                bytes: inner.need("bytes")?.number()?,
                over: inner.field("inv").map_or(Ok(false), boolean)?,
                used: inner.field("used").map_or(Ok(0), Node::number)?,
            }
        }
        "limit" => {
            allow(&["rate", "per", "burst", "inv", "rate_unit", "burst_unit", "unit"])?;
            ObjectKind::Limit(limit(inner)?)
        }
        "ct helper" => {
            allow(&["type", "protocol", "l3proto"])?;
            ObjectKind::CtHelper {
                helper: inner.need("type")?.text()?.to_owned(),
                family: l3proto()?,
                protocol: protocol(inner)?,
            }
        }
        "ct timeout" => {
            allow(&["protocol", "l3proto", "policy"])?;
            let protocol = protocol(inner)?;
            // nft writes all timeouts, those that it does not print with their defaults.
            let mut seconds: Vec<(u16, u32)> =
                states(protocol).iter().zip(1..).map(|((_, default), state)| (state, *default)).collect();
            let policy = inner.field("policy");
            for (name, value) in policy.and_then(Value::as_object).into_iter().flatten() {
                let place = states(protocol).iter().position(|(state, _)| state == name);
                match place.and_then(|place| seconds.get_mut(place)) {
                    Some((_, seconds)) => *seconds = value.number()?,
                    None => return wrong(value, "a state of the protocol"),
                }
            }
            ObjectKind::CtTimeout { family: l3proto()?, protocol, seconds }
        }
        "ct expectation" => {
            allow(&["protocol", "dport", "timeout", "size", "l3proto"])?;
            ObjectKind::CtExpectation {
                family: l3proto()?,
                protocol: protocol(inner)?,
                port: inner.need("dport")?.number()?,
                timeout: Duration::from_millis(inner.need("timeout")?.number()?),
                size: inner.need("size")?.number()?,
            }
        }
        "secmark" => {
            allow(&["context"])?;
            ObjectKind::Secmark { context: inner.need("context")?.text()?.to_owned() }
        }
        "synproxy" => {
            allow(&["mss", "wscale", "flags"])?;
            let proxy = synproxy(inner)?;
            let has = |flag| proxy.flags & flag != 0;
            ObjectKind::Synproxy {
                mss: Some(proxy.mss).filter(|_| has(NF_SYNPROXY_OPT_MSS)),
                window_scale: Some(proxy.wscale).filter(|_| has(NF_SYNPROXY_OPT_WSCALE)),
                timestamp: has(NF_SYNPROXY_OPT_TIMESTAMP),
                sack_permitted: has(NF_SYNPROXY_OPT_SACK_PERM),
            }
        }
        _ => return wrong(item, "an object that libnftables-json(5) describes"),
    };
    let mut object = Object::new(ObjectName::observed(name(inner)?), &kind);
    object.comment = comment(inner)?;
    Ok(object)
}

fn flowtable(inner: &Value) -> Read<'_, Flowtable> {
    inner.allow(&["family", "table", "name", "handle", "hook", "prio", "dev"])?;
    let mut flowtable = Flowtable::new(ObjectName::observed(name(inner)?), priority(inner.need("prio")?)?);
    flowtable.devices = devices(inner)?;
    Ok(flowtable)
}
