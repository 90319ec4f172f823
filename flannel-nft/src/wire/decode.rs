//! From netlink attributes to objects.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use flannel_netlink::{Attribute, AttributeIter, Malformed, Message};

use crate::bytecode::expr::Expr;
use crate::model::chain::{Base, Chain, ChainKind, Hook, Policy, Priority};
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Mapped, Span};
use crate::model::family::Family;
use crate::model::ids::{Handle, TableId};
use crate::model::name::{ChainName, CounterName, SetName, TableName};
use crate::model::opaque::Extra;
use crate::model::rule::Rule;
use crate::model::ruleset::Ownership;
use crate::model::set::{Maps, Set};
use crate::model::table::{Counter, Table};
use crate::model::verdict::Verdict;
use crate::uapi::*;
use crate::wire::exprs;
use crate::wire::udata::*;

/// Splits a message into the identity of its table and its attributes; `None` if the family is
/// unknown.
///
/// The table's name has the same number in all messages: `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, ...
pub(crate) fn open<'a>(message: &Message<'a>) -> Result<Option<(TableId, AttributeIter<'a>)>, Malformed> {
    let ([family, ..], attributes) = message.split::<4>()?;
    let Some(family) = Family::from_number(*family) else { return Ok(None) };
    let mut table = None;
    for attribute in attributes.clone() {
        let attribute = attribute?;
        if attribute.kind == NFTA_TABLE_NAME {
            table = Some(TableId::new(family, TableName::observed(attribute.text()?)));
        }
    }
    Ok(table.map(|table| (table, attributes)))
}

fn keep(extra: &mut Extra, attribute: &Attribute<'_>) {
    extra.0.push((attribute.kind, attribute.payload.into()));
}

pub(crate) fn table(id: TableId, attributes: AttributeIter<'_>) -> Result<Table, Malformed> {
    let mut table = Table::new(id.family, id.name);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_TABLE_FLAGS => {
                table.flags = attribute.be32()?;
                table.dormant = table.flags & NFT_TABLE_F_DORMANT != 0;
                if table.flags & (NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST) != 0 {
                    table.ownership = Ownership::Owner;
                }
            }
            NFTA_TABLE_USERDATA => {
                table.comment = read_comment(attribute.payload, NFTNL_UDATA_TABLE_COMMENT);
            }
            NFTA_TABLE_OWNER => table.owner = Some(attribute.be32()?),
            _ => {}
        }
    }
    Ok(table)
}

pub(crate) fn chain(family: Family, attributes: AttributeIter<'_>) -> Result<Chain, Malformed> {
    let mut chain = Chain::regular(ChainName::observed(""));
    let (mut hook, mut policy, mut kind) = (None, Policy::Accept, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_CHAIN_NAME => chain.name = ChainName::observed(attribute.text()?),
            NFTA_CHAIN_HOOK => hook = Some(attribute.nested()),
            NFTA_CHAIN_POLICY if i32::from_be_bytes(attribute.array()?) == NF_DROP => policy = Policy::Drop,
            NFTA_CHAIN_TYPE => {
                kind = match attribute.text()? {
                    "nat" => Some(ChainKind::Nat),
                    "route" => Some(ChainKind::Route),
                    _ => Some(ChainKind::Filter),
                }
            }
            NFTA_CHAIN_FLAGS if attribute.be32()? & !NFT_CHAIN_BASE != 0 => {
                keep(&mut chain.extra, &attribute)
            }
            NFTA_CHAIN_USERDATA => {
                chain.comment = read_comment(attribute.payload, NFTNL_UDATA_CHAIN_COMMENT);
            }
            NFTA_CHAIN_TABLE | NFTA_CHAIN_HANDLE | NFTA_CHAIN_POLICY | NFTA_CHAIN_USE => {}
            NFTA_CHAIN_COUNTERS | NFTA_CHAIN_PAD | NFTA_CHAIN_FLAGS | NFTA_CHAIN_ID => {}
            _ => keep(&mut chain.extra, &attribute),
        }
    }
    if let Some(attributes) = hook {
        let (mut number, mut priority, mut devices) = (0, 0, Vec::new());
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_HOOK_HOOKNUM => number = attribute.be32()?,
                NFTA_HOOK_PRIORITY => priority = i32::from_be_bytes(attribute.array()?),
                NFTA_HOOK_DEV if devices.is_empty() => devices.push(attribute.text()?.to_owned()),
                NFTA_HOOK_DEVS => {
                    let names = attribute.nested().map(|name| Ok(name?.text()?.to_owned()));
                    devices = names.collect::<Result<_, Malformed>>()?;
                }
                _ => {}
            }
        }
        let hook = Hook::from_number(family, number).ok_or(Malformed::Value { what: "hook" })?;
        let kind = kind.unwrap_or(ChainKind::Filter);
        chain.base = Some(Base { kind, hook, priority: Priority::new(priority), policy, devices });
    }
    Ok(chain)
}

/// A decoded rule: its chain, its position, and its expressions, which are not yet delinearized.
#[derive(Debug)]
pub(crate) struct RawRule {
    pub(crate) chain: ChainName,
    pub(crate) position: Option<Handle>,
    pub(crate) exprs: Vec<Expr>,
    /// Without statements.
    pub(crate) rule: Rule,
}

pub(crate) fn rule(attributes: AttributeIter<'_>) -> Result<RawRule, Malformed> {
    let mut raw =
        RawRule { chain: ChainName::observed(""), position: None, exprs: Vec::new(), rule: Rule::new() };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_RULE_CHAIN => raw.chain = ChainName::observed(attribute.text()?),
            NFTA_RULE_HANDLE => raw.rule.handle = Some(Handle(attribute.be64()?)),
            NFTA_RULE_EXPRESSIONS => {
                for element in attribute.nested() {
                    raw.exprs.push(exprs::decode(&element?)?);
                }
            }
            NFTA_RULE_POSITION => raw.position = Some(Handle(attribute.be64()?)),
            NFTA_RULE_USERDATA => {
                raw.rule.comment = read_comment(attribute.payload, NFTNL_UDATA_RULE_COMMENT);
                if read_udata(attribute.payload).any(|(kind, _)| kind != NFTNL_UDATA_RULE_COMMENT) {
                    raw.rule.comment = None;
                    keep(&mut raw.rule.extra, &attribute);
                }
            }
            NFTA_RULE_COMPAT => keep(&mut raw.rule.extra, &attribute),
            _ => {}
        }
    }
    Ok(raw)
}

pub(crate) fn set(attributes: AttributeIter<'_>) -> Result<(Set, Option<u32>), Malformed> {
    let mut set = Set::with(SetName::observed(""), Datatype::Mark, Maps::Nothing, 0);
    let (mut key, mut key_length, mut data, mut data_length, mut id) = (0, 0, None, 0, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_SET_NAME => set.name = SetName::observed(attribute.text()?),
            NFTA_SET_FLAGS => set.flags = attribute.be32()?,
            NFTA_SET_KEY_TYPE => key = attribute.be32()?,
            NFTA_SET_KEY_LEN => key_length = attribute.be32()?,
            NFTA_SET_DATA_TYPE => data = Some(attribute.be32()?),
            NFTA_SET_DATA_LEN => data_length = attribute.be32()?,
            NFTA_SET_DESC => {
                for inner in attribute.nested() {
                    let inner = inner?;
                    match inner.kind {
                        NFTA_SET_DESC_SIZE => set.size = Some(inner.be32()?),
                        _ => keep(&mut set.extra, &attribute),
                    }
                }
            }
            NFTA_SET_ID => id = Some(attribute.be32()?),
            NFTA_SET_TIMEOUT => set.timeout = Some(Duration::from_millis(attribute.be64()?)),
            NFTA_SET_GC_INTERVAL => {
                set.gc_interval = Some(Duration::from_millis(u64::from(attribute.be32()?)));
            }
            NFTA_SET_USERDATA => {
                set.comment = read_comment(attribute.payload, NFTNL_UDATA_SET_COMMENT);
                // nft's `typeof` and other entries: kept as they are.
                if read_udata(attribute.payload).any(|(kind, _)| !is_own_udata(kind)) {
                    keep(&mut set.extra, &attribute);
                }
            }
            NFTA_SET_OBJ_TYPE => set.maps = Maps::Object(attribute.be32()?),
            NFTA_SET_TABLE | NFTA_SET_POLICY | NFTA_SET_PAD | NFTA_SET_HANDLE => {}
            NFTA_SET_TYPE.. => {} // only the kernel sends them
            _ => keep(&mut set.extra, &attribute),
        }
    }
    set.key = Datatype::from_number(key, key_length);
    match data {
        Some(NFT_DATA_VERDICT) => set.maps = Maps::Verdict,
        Some(number) => set.maps = Maps::Value(Datatype::from_number(number, data_length)),
        None => {}
    }
    // A size without `size` in the definition is the kernel's own choice.
    Ok((set, id))
}

/// Whether this crate writes the same entry of a set's userdata itself.
fn is_own_udata(kind: u8) -> bool {
    matches!(
        kind,
        NFTNL_UDATA_SET_KEYBYTEORDER
            | NFTNL_UDATA_SET_DATABYTEORDER
            | NFTNL_UDATA_SET_MERGE_ELEMENTS
            | NFTNL_UDATA_SET_DATA_INTERVAL
            | NFTNL_UDATA_SET_COMMENT
    )
}

/// Reads `NFTA_SET_COUNT`, the number of elements.
pub(crate) fn count_of_set(mut attributes: AttributeIter<'_>) -> Result<Option<u32>, Malformed> {
    let count = attributes
        .find(|attribute| attribute.as_ref().is_ok_and(|attribute| attribute.kind == NFTA_SET_COUNT));
    count.map(|attribute| attribute?.be32()).transpose()
}

/// A decoded element. A range consists of two: its start, and its end.
#[derive(Clone, Debug)]
pub(crate) struct RawElement {
    key: Option<Data>,
    end: bool,
    body: Body,
}

/// Reads `NFTA_SET_ELEM_LIST_*`: the set's name, its ID in the batch, and the elements.
pub(crate) fn elements(
    attributes: AttributeIter<'_>,
) -> Result<(SetName, Option<u32>, Vec<RawElement>), Malformed> {
    let (mut name, mut id, mut list) = (SetName::observed(""), None, Vec::new());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_SET_ELEM_LIST_SET => name = SetName::observed(attribute.text()?),
            NFTA_SET_ELEM_LIST_ELEMENTS => {
                for entry in attribute.nested() {
                    list.push(element(&entry?)?);
                }
            }
            NFTA_SET_ELEM_LIST_SET_ID => id = Some(attribute.be32()?),
            _ => {}
        }
    }
    Ok((name, id, list))
}

fn element(attribute: &Attribute<'_>) -> Result<RawElement, Malformed> {
    let mut raw = RawElement { key: None, end: false, body: Body::default() };
    fn value<'a>(attribute: &Attribute<'a>) -> Result<Option<Attribute<'a>>, Malformed> {
        attribute.nested().next().transpose()
    }
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_SET_ELEM_KEY => raw.key = value(&attribute)?.map(|inner| Data::new(inner.payload)),
            NFTA_SET_ELEM_DATA => {
                raw.body.mapped = match value(&attribute)? {
                    Some(inner) if inner.kind == NFTA_DATA_VERDICT => exprs::decode_verdict(&inner)
                        .and_then(|(code, chain)| Verdict::from_code(code, chain))
                        .map(Mapped::Verdict),
                    Some(inner) => Some(Mapped::Value(Data::new(inner.payload))),
                    None => None,
                }
            }
            NFTA_SET_ELEM_FLAGS => raw.end = attribute.be32()? & NFT_SET_ELEM_INTERVAL_END != 0,
            NFTA_SET_ELEM_TIMEOUT => raw.body.timeout = Some(Duration::from_millis(attribute.be64()?)),
            NFTA_SET_ELEM_EXPIRATION => raw.body.expires = Some(Duration::from_millis(attribute.be64()?)),
            NFTA_SET_ELEM_USERDATA => {
                raw.body.comment = read_comment(attribute.payload, NFTNL_UDATA_SET_ELEM_COMMENT);
            }
            NFTA_SET_ELEM_OBJREF => raw.body.mapped = Some(Mapped::Object(attribute.text()?.into())),
            NFTA_SET_ELEM_PAD => {}
            _ => keep(&mut raw.body.extra, &attribute),
        }
    }
    Ok(raw)
}

/// Inserts elements into a set. In a set with the interval flag, each start gets the next end.
pub(crate) fn assemble(set: &mut Set, raw: Vec<RawElement>) {
    if !set.is_interval() || raw.iter().any(|raw| raw.body.extra.has(NFTA_SET_ELEM_KEY_END)) {
        for RawElement { key, body, .. } in raw {
            set.elements.insert(key.map_or(Span::CatchAll, Span::One), body);
        }
        return;
    }
    let mut starts = BTreeMap::new();
    let mut ends = BTreeSet::new();
    for RawElement { key, end, body } in raw {
        match key {
            None => {
                set.elements.insert(Span::CatchAll, body);
            }
            Some(key) if end => {
                ends.insert(key);
            }
            Some(key) => {
                starts.insert(key, body);
            }
        }
    }
    for (first, body) in starts {
        let behind = (Bound::Excluded(&first), Bound::Unbounded);
        let end = ends.range::<Data, _>(behind).next();
        let last = end.and_then(Data::predecessor).unwrap_or_else(|| Data::highest(first.len()));
        set.elements.insert(Span::between(first, last), body);
    }
}

/// Reads an object: a counter or, for other objects, type and name.
pub(crate) fn object(attributes: AttributeIter<'_>) -> Result<Result<Counter, String>, Malformed> {
    let (mut name, mut kind, mut text) = ("", 0, None);
    let (mut packets, mut bytes) = (0, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_OBJ_NAME => name = attribute.text()?,
            NFTA_OBJ_TYPE => kind = attribute.be32()?,
            NFTA_OBJ_DATA if kind == NFT_OBJECT_COUNTER => {
                for inner in attribute.nested() {
                    let inner = inner?;
                    match inner.kind {
                        NFTA_COUNTER_BYTES => bytes = inner.be64()?,
                        NFTA_COUNTER_PACKETS => packets = inner.be64()?,
                        _ => {}
                    }
                }
            }
            NFTA_OBJ_USERDATA => text = read_comment(attribute.payload, NFTNL_UDATA_OBJ_COMMENT),
            _ => {}
        }
    }
    if kind != NFT_OBJECT_COUNTER {
        return Ok(Err(format!("object of type {kind} {name}")));
    }
    let counter = Counter::new(CounterName::observed(name));
    Ok(Ok(Counter { comment: text, packets, bytes, ..counter }))
}

/// A set for elements whose definition is unknown: keys of 2 bytes become ports, of 4 bytes IPv4
/// addresses, of 16 bytes IPv6 addresses.
pub(crate) fn guess(name: SetName, elements: &[RawElement]) -> Set {
    let length = elements.iter().find_map(|raw| raw.key.as_ref()).map_or(0, Data::len);
    let key = match length {
        2 => Datatype::InetService,
        4 => Datatype::Ipv4Addr,
        16 => Datatype::Ipv6Addr,
        _ => Datatype::Other { number: 0, length: u32::try_from(length).unwrap_or(0) },
    };
    let interval = elements.iter().any(|raw| raw.end);
    Set::with(name, key, Maps::Nothing, if interval { NFT_SET_INTERVAL } else { 0 })
}
