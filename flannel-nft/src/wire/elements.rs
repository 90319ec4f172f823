//! Elements of sets from netlink attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use flannel_netlink::{Attribute, AttributeIter, Malformed};

use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Mapped, Span};
use crate::model::name::{CounterName, SetName};
use crate::model::set::{Maps, Set};
use crate::model::verdict::Verdict;
use crate::uapi::*;
use crate::wire::exprs;
use crate::wire::udata::*;

/// A decoded element. A range consists of two: its start, and its end.
#[derive(Clone, Debug)]
pub(crate) struct RawElement {
    key: Option<Data>,
    /// The last key, in a set of concatenated ranges.
    last: Option<Data>,
    /// Whether this is the end of a range: the first key behind it.
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
            NFTA_SET_ELEM_LIST_SET => name = SetName::observed(attribute.string()),
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
    let mut raw = RawElement { key: None, last: None, end: false, body: Body::default() };
    fn value<'a>(attribute: &Attribute<'a>) -> Result<Option<Attribute<'a>>, Malformed> {
        attribute.nested().next().transpose()
    }
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_SET_ELEM_KEY => raw.key = value(&attribute)?.map(|inner| Data::new(inner.payload)),
            NFTA_SET_ELEM_KEY_END => raw.last = value(&attribute)?.map(|inner| Data::new(inner.payload)),
            NFTA_SET_ELEM_DATA => {
                raw.body.mapped = match value(&attribute)? {
                    Some(inner) if inner.kind == NFTA_DATA_VERDICT => exprs::decode_verdict(&inner)
                        .and_then(|(code, chain, _)| Verdict::from_code(code, chain.as_ref()))
                        .map(Mapped::Verdict),
                    Some(inner) if inner.kind == NFTA_DATA_VALUE => {
                        Some(Mapped::Value(Data::new(inner.payload)))
                    }
                    _ => None,
                };
                if raw.body.mapped.is_none() {
                    keep(&mut raw.body.extra, &attribute);
                }
            }
            NFTA_SET_ELEM_FLAGS => {
                let flags = attribute.be32()?;
                raw.end = flags & NFT_SET_ELEM_INTERVAL_END != 0;
                if flags & !(NFT_SET_ELEM_INTERVAL_END | NFT_SET_ELEM_CATCHALL) != 0 {
                    keep(&mut raw.body.extra, &attribute);
                }
            }
            NFTA_SET_ELEM_TIMEOUT => raw.body.timeout = Some(Duration::from_millis(attribute.be64()?)),
            NFTA_SET_ELEM_EXPIRATION => raw.body.expires = Some(Duration::from_millis(attribute.be64()?)),
            NFTA_SET_ELEM_USERDATA => {
                raw.body.comment = comment(&attribute, NFTNL_UDATA_SET_ELEM_COMMENT, &mut raw.body.extra);
            }
            NFTA_SET_ELEM_OBJREF => {
                raw.body.mapped = Some(Mapped::Object(CounterName::observed(attribute.string())));
            }
            NFTA_SET_ELEM_EXPR => raw.body.exprs = [exprs::decode(&attribute)?].into(),
            NFTA_SET_ELEM_EXPRESSIONS => {
                let exprs = attribute.nested().map(|expr| exprs::decode(&expr?));
                raw.body.exprs = exprs.collect::<Result<_, Malformed>>()?;
            }
            NFTA_SET_ELEM_PAD => {}
            _ => keep(&mut raw.body.extra, &attribute),
        }
    }
    Ok(raw)
}

/// Inserts elements into a set. In a set with the interval flag, each start gets the next end: the
/// end of a range, or the start of the next.
pub(crate) fn assemble(set: &mut Set, raw: Vec<RawElement>) {
    let has_last_keys = set.is_interval() && set.is_concatenated();
    if has_last_keys || !set.is_interval() {
        for RawElement { key, last, body, .. } in raw {
            // The kernel rejects a last key in other sets (net/netfilter/nf_tables_api.c,
            // nft_setelem_valid_key_end).
            let span = match (key, last.filter(|_| has_last_keys)) {
                (Some(first), Some(last)) => Span::between(first, last),
                (Some(key), None) => Span::One(key),
                (None, _) => Span::CatchAll,
            };
            set.elements.insert(span, body);
        }
        return;
    }
    let mut starts = BTreeMap::new();
    let mut ends = BTreeSet::new();
    for RawElement { key, end, body, .. } in raw {
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
    let mut starts = starts.into_iter().peekable();
    while let Some((first, body)) = starts.next() {
        let behind = (Bound::Excluded(&first), Bound::Unbounded);
        let ends = [ends.range::<Data, _>(behind).next(), starts.peek().map(|(next, _)| next)];
        let last = ends.into_iter().flatten().min().and_then(Data::predecessor);
        let last = last.unwrap_or_else(|| Data::highest(first.len()));
        set.elements.insert(Span::between(first, last), body);
    }
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
    let flags = if elements.iter().any(|raw| raw.last.is_some()) {
        NFT_SET_INTERVAL | NFT_SET_CONCAT
    } else if elements.iter().any(|raw| raw.end) {
        NFT_SET_INTERVAL
    } else {
        0
    };
    Set::with(name, key, Maps::Nothing, flags)
}
