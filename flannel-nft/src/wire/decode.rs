//! Attributes to objects.

use crate::model::set::NFT_OBJECT_COUNTER;
use std::collections::BTreeMap;
use std::time::Duration;

use flannel_netlink::{Attribute, AttributeIter, Malformed, Message};

use crate::bytecode::expr::Expr;
use crate::model::chain::{Base, Chain, ChainKind, Hook, Policy, Priority};
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Mapped, Span};
use crate::model::family::Family;
use crate::model::ids::Handle;
use crate::model::ids::TableId;
use crate::model::name::{ChainName, Comment, CounterName, SetName, TableName};
use crate::model::opaque::Extra;
use crate::model::rule::Rule;
use crate::model::ruleset::Ownership;
use crate::model::set::{Maps, Set, flag};
use crate::model::table::{Counter, Table, table_flag};
use crate::model::verdict::Verdict;
use crate::wire::exprs;

/// Splits a message into the table it belongs to and its attributes; `None` for a family we have no word for.
pub(crate) fn open<'a>(
    message: &Message<'a>,
    name: u16,
) -> Result<Option<(TableId, AttributeIter<'a>)>, Malformed> {
    let ([family, ..], attributes) = message.split::<4>()?;
    let Some(family) = Family::from_number(*family) else { return Ok(None) };
    let mut table = None;
    for attribute in attributes.clone() {
        let attribute = attribute?;
        if attribute.kind == name {
            table = Some(TableId::new(family, TableName::observed(attribute.text()?)));
        }
    }
    Ok(table.map(|table| (table, attributes)))
}

/// One TLV of nft's userdata.
fn userdata(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, length], rest) = bytes.split_first_chunk::<2>()?;
        let value = rest.get(..usize::from(length))?;
        bytes = rest.get(usize::from(length)..)?;
        Some((kind, value))
    })
}

fn comment(bytes: &[u8], kind: u8) -> Option<Comment> {
    let (_, text) = userdata(bytes).find(|(found, _)| *found == kind)?;
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
    Some(Comment::observed(text))
}

fn keep(extra: &mut Extra, attribute: &Attribute<'_>) {
    extra.0.push((attribute.kind, attribute.payload.into()));
}

pub(crate) fn table(id: TableId, attributes: AttributeIter<'_>) -> Result<Table, Malformed> {
    let mut table = Table::new(id.family, id.name);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            2 => {
                table.flags = attribute.be32()?;
                table.dormant = table.flags & table_flag::DORMANT != 0;
                if table.flags & (table_flag::OWNER | table_flag::PERSIST) != 0 {
                    table.ownership = Ownership::Owner;
                }
            }
            6 => table.comment = comment(attribute.payload, 0),
            7 => table.owner = Some(attribute.be32()?),
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
            3 => chain.name = ChainName::observed(attribute.text()?),
            4 => hook = Some(attribute.nested()),
            5 if attribute.be32()? == 0 => policy = Policy::Drop,
            7 => {
                kind = match attribute.text()? {
                    "nat" => Some(ChainKind::Nat),
                    "route" => Some(ChainKind::Route),
                    _ => Some(ChainKind::Filter),
                }
            }
            10 if attribute.be32()? & !1 != 0 => keep(&mut chain.extra, &attribute),
            12 => chain.comment = comment(attribute.payload, 0),
            1 | 2 | 5 | 6 | 8 | 9 | 10 | 11 => {}
            _ => keep(&mut chain.extra, &attribute),
        }
    }
    if let Some(attributes) = hook {
        let (mut number, mut priority, mut devices) = (0, 0, Vec::new());
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                1 => number = attribute.be32()?,
                2 => priority = i32::from_be_bytes(attribute.array()?),
                3 if devices.is_empty() => devices.push(attribute.text()?.to_owned()),
                4 => {
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

/// A rule as it travels: which chain, which place, and its instructions not yet understood.
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
            2 => raw.chain = ChainName::observed(attribute.text()?),
            3 => raw.rule.handle = Some(Handle(attribute.be64()?)),
            4 => {
                for element in attribute.nested() {
                    raw.exprs.push(exprs::decode(&element?)?);
                }
            }
            6 => raw.position = Some(Handle(attribute.be64()?)),
            7 => {
                raw.rule.comment = comment(attribute.payload, 0);
                if userdata(attribute.payload).any(|(kind, _)| kind != 0) {
                    raw.rule.comment = None;
                    keep(&mut raw.rule.extra, &attribute);
                }
            }
            5 => keep(&mut raw.rule.extra, &attribute),
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
            2 => set.name = SetName::observed(attribute.text()?),
            3 => set.flags = attribute.be32()?,
            4 => key = attribute.be32()?,
            5 => key_length = attribute.be32()?,
            6 => data = Some(attribute.be32()?),
            7 => data_length = attribute.be32()?,
            9 => {
                for inner in attribute.nested() {
                    let inner = inner?;
                    match inner.kind {
                        1 => set.size = Some(inner.be32()?),
                        _ => keep(&mut set.extra, &attribute),
                    }
                }
            }
            10 => id = Some(attribute.be32()?),
            11 => set.timeout = Some(Duration::from_millis(attribute.be64()?)),
            12 => set.gc_interval = Some(Duration::from_millis(u64::from(attribute.be32()?))),
            13 => {
                set.comment = comment(attribute.payload, 7);
                // nft's `typeof` and what else it may write: kept whole.
                if userdata(attribute.payload).any(|(kind, _)| matches!(kind, 3..=5 | 8..)) {
                    keep(&mut set.extra, &attribute);
                }
            }
            15 => set.maps = Maps::Object(attribute.be32()?),
            1 | 8 | 14 | 16 => {}
            19.. => {} // NFTA_SET_TYPE, NFTA_SET_COUNT: said by the kernel only
            _ => keep(&mut set.extra, &attribute),
        }
    }
    set.key = Datatype::from_number(key, key_length);
    match data {
        Some(0xffff_ff00) => set.maps = Maps::Verdict,
        Some(number) => set.maps = Maps::Value(Datatype::from_number(number, data_length)),
        None => {}
    }
    // A size that nobody asked for is what the kernel makes room for.
    Ok((set, id))
}

/// Reads `NFTA_SET_COUNT`: how many elements it has.
pub(crate) fn count_of_set(mut attributes: AttributeIter<'_>) -> Result<Option<u32>, Malformed> {
    let count = attributes.find(|attribute| attribute.as_ref().is_ok_and(|attribute| attribute.kind == 20));
    count.map(|attribute| attribute?.be32()).transpose()
}

/// One element as it travels: an interval is two of them.
#[derive(Clone, Debug)]
pub(crate) struct RawElement {
    key: Option<Data>,
    end: bool,
    body: Body,
}

/// Reads `NFTA_SET_ELEM_LIST_*`: the set's name, its number in the batch, and the elements.
pub(crate) fn elements(
    attributes: AttributeIter<'_>,
) -> Result<(SetName, Option<u32>, Vec<RawElement>), Malformed> {
    let (mut name, mut id, mut list) = (SetName::observed(""), None, Vec::new());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            2 => name = SetName::observed(attribute.text()?),
            3 => {
                for entry in attribute.nested() {
                    list.push(element(&entry?)?);
                }
            }
            4 => id = Some(attribute.be32()?),
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
            1 => raw.key = value(&attribute)?.map(|inner| Data::new(inner.payload)),
            2 => {
                raw.body.mapped = match value(&attribute)? {
                    Some(inner) if inner.kind == 2 => exprs::decode_verdict(&inner)
                        .and_then(|(code, chain)| Verdict::from_code(code, chain))
                        .map(Mapped::Verdict),
                    Some(inner) => Some(Mapped::Value(Data::new(inner.payload))),
                    None => None,
                }
            }
            3 => raw.end = attribute.be32()? & 1 != 0,
            4 => raw.body.timeout = Some(Duration::from_millis(attribute.be64()?)),
            5 => raw.body.expires = Some(Duration::from_millis(attribute.be64()?)),
            6 => {
                raw.body.comment = comment(attribute.payload, 0);
            }
            9 => raw.body.mapped = Some(Mapped::Object(attribute.text()?.into())),
            8 => {}
            _ => keep(&mut raw.body.extra, &attribute),
        }
    }
    Ok(raw)
}

/// Puts elements together: in an interval set, a start and the next end behind it.
pub(crate) fn assemble(set: &mut Set, raw: Vec<RawElement>) {
    if !set.is_interval() || raw.iter().any(|raw| raw.body.extra.0.iter().any(|(kind, _)| *kind == 10)) {
        for RawElement { key, body, .. } in raw {
            set.elements.insert(key.map_or(Span::Rest, Span::One), body);
        }
        return;
    }
    let mut starts = BTreeMap::new();
    let mut ends = std::collections::BTreeSet::new();
    for RawElement { key, end, body } in raw {
        match key {
            None => {
                set.elements.insert(Span::Rest, body);
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
        let behind = (std::ops::Bound::Excluded(&first), std::ops::Bound::Unbounded);
        let end = ends.range::<Data, _>(behind).next();
        let last = end.and_then(Data::predecessor).unwrap_or_else(|| Data::highest(first.len()));
        set.elements.insert(Span::between(first, last), body);
    }
}

/// Reads an object: a counter, or the kind of what it is instead, with its name.
pub(crate) fn object(attributes: AttributeIter<'_>) -> Result<Result<Counter, String>, Malformed> {
    let (mut name, mut kind, mut text) = ("", 0, None);
    let (mut packets, mut bytes) = (0, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            2 => name = attribute.text()?,
            3 => kind = attribute.be32()?,
            4 if kind == NFT_OBJECT_COUNTER => {
                for inner in attribute.nested() {
                    let inner = inner?;
                    match inner.kind {
                        1 => bytes = inner.be64()?,
                        2 => packets = inner.be64()?,
                        _ => {}
                    }
                }
            }
            8 => text = comment(attribute.payload, 0),
            _ => {}
        }
    }
    if kind != NFT_OBJECT_COUNTER {
        return Ok(Err(format!("object of type {kind} {name}")));
    }
    let counter = Counter::new(CounterName::observed(name));
    Ok(Ok(Counter { comment: text, packets, bytes, ..counter }))
}

/// A set that elements could be of, when its definition is not at hand: a key of 4 bytes is taken for an IPv4
/// address, as 16 for an IPv6 address, 2 for a port.
pub(crate) fn guess(name: SetName, elements: &[RawElement]) -> Set {
    let length = elements.iter().find_map(|raw| raw.key.as_ref()).map_or(0, Data::len);
    let key = match length {
        2 => Datatype::InetService,
        4 => Datatype::Ipv4Addr,
        16 => Datatype::Ipv6Addr,
        _ => Datatype::Other { number: 0, length: u32::try_from(length).unwrap_or(0) },
    };
    let interval = elements.iter().any(|raw| raw.end);
    Set::with(name, key, Maps::Nothing, if interval { flag::INTERVAL } else { 0 })
}
