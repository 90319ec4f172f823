//! Objects to attributes.

use std::iter::Peekable;
use std::time::Duration;

use flannel_netlink::Attributes;

use crate::bytecode::linearize::linearize;
use crate::error::InvalidRule;
use crate::model::chain::{Chain, Policy};
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Mapped, Span};
use crate::model::family::Family;
use crate::model::ids::Handle;
use crate::model::ids::TableId;
use crate::model::name::{ChainName, Comment};
use crate::model::opaque::Extra;
use crate::model::rule::Rule;
use crate::model::set::NFT_OBJECT_COUNTER;
use crate::model::set::{Maps, Set, flag};
use crate::model::table::{Counter, Table};
use crate::wire::exprs;

/// An element list is one attribute and so at most 65 535 bytes; a single element has less than 1 KiB.
const LIST_LIMIT: usize = 60_000;

/// Userdata of nft: type, length, value (libnftnl, include/libnftnl/udata.h).
#[derive(Default)]
struct Userdata(Vec<u8>);

impl Userdata {
    fn text(&mut self, kind: u8, text: &Comment) {
        let text = text.as_str();
        self.0.extend([kind, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)]);
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn u32(&mut self, kind: u8, value: u32) {
        self.0.extend([kind, 4]);
        self.0.extend(value.to_ne_bytes());
    }
}

fn comment(kind: u16, text: Option<&Comment>, a: &mut Attributes<'_>) {
    if let Some(text) = text {
        let mut userdata = Userdata::default();
        userdata.text(0, text);
        a.bytes(kind, &userdata.0);
    }
}

fn extra(extra: &Extra, a: &mut Attributes<'_>) {
    extra.0.iter().for_each(|(kind, payload)| a.bytes(*kind, payload));
}

pub(crate) fn table(table: &Table, flags: u32, a: &mut Attributes<'_>) {
    a.text(1, table.id.name.as_str());
    a.be32(2, flags);
    comment(6, table.comment.as_ref(), a);
}

pub(crate) fn table_name(id: &TableId, a: &mut Attributes<'_>) {
    a.text(1, id.name.as_str());
}

pub(crate) fn chain(table: &TableId, chain: &Chain, a: &mut Attributes<'_>) {
    a.text(1, table.name.as_str());
    a.text(3, chain.name.as_str());
    if let Some(base) = &chain.base {
        a.nested(4, |a| {
            a.be32(1, base.hook.number(table.family));
            a.bytes(2, &base.priority.number().to_be_bytes());
            match base.devices.as_slice() {
                [] => {}
                [device] => a.text(3, device),
                devices => a.nested(4, |a| devices.iter().for_each(|device| a.text(1, device))),
            }
        });
        a.be32(5, u32::from(base.policy == Policy::Accept));
        a.text(7, base.kind.name());
    }
    comment(12, chain.comment.as_ref(), a);
    extra(&chain.extra, a);
}

pub(crate) fn chain_name(table: &TableId, name: &ChainName, a: &mut Attributes<'_>) {
    a.text(1, table.name.as_str());
    a.text(3, name.as_str());
}

/// Where a rule goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// With `NLM_F_APPEND` the end of the chain, without it the beginning.
    End,
    /// With `NLM_F_APPEND` behind this rule, without it in front of it.
    At(Handle),
    /// With `NLM_F_REPLACE`: instead of this rule.
    Instead(Handle),
}

/// Appends a rule. Nothing but a mistake keeps its expressions from being complete.
pub(crate) fn rule(
    table: &TableId,
    chain: &ChainName,
    rule: &Rule,
    place: Place,
    first_set: u32,
    a: &mut Attributes<'_>,
) -> Result<(), InvalidRule> {
    a.text(1, table.name.as_str());
    a.text(2, chain.as_str());
    match place {
        Place::End => {}
        Place::At(handle) => a.be64(6, handle.0),
        Place::Instead(handle) => a.be64(3, handle.0),
    }
    let done = expressions(table.family, rule, first_set, a);
    comment(7, rule.comment.as_ref(), a);
    extra(&rule.extra, a);
    done
}

pub(crate) fn expressions(
    family: Family,
    rule: &Rule,
    first_set: u32,
    a: &mut Attributes<'_>,
) -> Result<(), InvalidRule> {
    let mut done = Ok(());
    a.nested(4, |list| done = linearize(rule, family, first_set, |expr| exprs::encode(&expr, list)));
    done
}

pub(crate) fn rule_handle(
    table: &TableId,
    chain: &ChainName,
    handle: Option<Handle>,
    a: &mut Attributes<'_>,
) {
    a.text(1, table.name.as_str());
    a.text(2, chain.as_str());
    handle.iter().for_each(|handle| a.be64(3, handle.0));
}

pub(crate) fn set(table: &TableId, set: &Set, id: u32, a: &mut Attributes<'_>) {
    a.text(1, table.name.as_str());
    a.text(2, set.name.as_str());
    a.be32(3, set.flags);
    a.be32(4, set.key.number());
    a.be32(5, set.key.length());
    match set.maps {
        Maps::Nothing => {}
        Maps::Value(datatype) => {
            a.be32(6, datatype.number());
            a.be32(7, datatype.length());
        }
        Maps::Verdict => {
            a.be32(6, 0xffff_ff00);
            a.be32(7, 0);
        }
        Maps::Object(kind) => a.be32(15, kind),
    }
    if let Some(size) = set.size.or_else(|| fixed_size(set)) {
        a.nested(9, |a| a.be32(1, size));
    }
    a.be32(10, id);
    set.timeout.iter().for_each(|timeout| a.be64(11, milliseconds(*timeout)));
    set.gc_interval
        .iter()
        .for_each(|every| a.be32(12, u32::try_from(milliseconds(*every)).unwrap_or(u32::MAX)));
    if !set.extra.0.iter().any(|(kind, _)| *kind == 13) {
        a.bytes(13, &set_userdata(set).0);
    }
    extra(&set.extra, a);
}

/// Number of elements of a set that never changes: the kernel then takes a hash table of just that size
/// (`nft_set_hash_fast`, net/netfilter/nft_set_hash.c) instead of one that could grow.
fn fixed_size(set: &Set) -> Option<u32> {
    let fixed = set.is_anonymous() && set.flags & flag::INTERVAL == 0;
    fixed.then(|| u32::try_from(set.elements.len()).ok()).flatten()
}

/// What nft 0.9.8 and newer write, and need to print numbers in the right byte order.
fn set_userdata(set: &Set) -> Userdata {
    let order = |datatype: Datatype| match datatype {
        Datatype::InetProto => 0, // one byte has no order
        _ if datatype.is_host_order() => 1,
        _ => 2,
    };
    let mut userdata = Userdata::default();
    userdata.u32(0, order(set.key));
    match set.maps {
        Maps::Value(datatype) => userdata.u32(1, order(datatype)),
        Maps::Verdict => userdata.u32(1, 0),
        Maps::Nothing | Maps::Object(_) => {}
    }
    set.comment.iter().for_each(|text| userdata.text(7, text));
    userdata
}

pub(crate) fn set_name(table: &TableId, name: &str, a: &mut Attributes<'_>) {
    a.text(1, table.name.as_str());
    a.text(2, name);
}

/// Appends as many elements as one message holds; the rest stays in `elements`.
pub(crate) fn elements<'e>(
    table: &TableId,
    set: &Set,
    id: Option<u32>,
    elements: &mut Peekable<impl Iterator<Item = (&'e Span, &'e Body)>>,
    a: &mut Attributes<'_>,
) {
    set_name(table, set.name.as_str(), a);
    id.iter().for_each(|id| a.be32(4, *id));
    let start = a.position();
    a.nested(3, |list| {
        while list.position() - start < LIST_LIMIT
            && let Some((span, body)) = elements.next()
        {
            element(set, span, body, list);
        }
    });
}

fn element(set: &Set, span: &Span, body: &Body, list: &mut Attributes<'_>) {
    let key = |a: &mut Attributes<'_>, bytes: &[u8]| a.nested(1, |a| a.bytes(1, bytes));
    list.nested(1, |a| {
        match span.first() {
            Some(first) => key(a, first.as_slice()),
            None => a.be32(3, 2), // NFT_SET_ELEM_CATCHALL
        }
        match &body.mapped {
            None => {}
            Some(Mapped::Value(data)) => a.nested(2, |a| a.bytes(1, data.as_slice())),
            Some(Mapped::Verdict(verdict)) => {
                let (code, chain) = verdict.code();
                a.nested(2, |a| exprs::verdict(code, chain, a));
            }
            Some(Mapped::Object(name)) => a.text(9, name),
        }
        body.timeout.iter().for_each(|timeout| a.be64(4, milliseconds(*timeout)));
        comment(6, body.comment.as_ref(), a);
        extra(&body.extra, a);
    });
    if set.flags & flag::INTERVAL != 0
        && let Some(end) = span.last().and_then(crate::model::data::Data::successor)
        && !body.extra.0.iter().any(|(kind, _)| *kind == 10)
    {
        list.nested(1, |a| {
            a.be32(3, 1); // NFT_SET_ELEM_INTERVAL_END
            key(a, end.as_slice());
        });
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn counter(table: &TableId, counter: &Counter, a: &mut Attributes<'_>) {
    counter_name(table, counter.name.as_str(), a);
    a.nested(4, |a| {
        a.be64(1, counter.bytes);
        a.be64(2, counter.packets);
    });
    comment(8, counter.comment.as_ref(), a);
}

pub(crate) fn counter_name(table: &TableId, name: &str, a: &mut Attributes<'_>) {
    a.text(1, table.name.as_str());
    a.text(2, name);
    a.be32(3, NFT_OBJECT_COUNTER);
}
