//! From objects to netlink attributes.

use std::iter::Peekable;
use std::time::Duration;

use flannel_netlink::Attributes;

use crate::bytecode::expr::Expr;
use crate::bytecode::linearize::linearize;
use crate::error::InvalidRule;
use crate::model::bindings::Attached;
use crate::model::chain::{Chain, Policy};
use crate::model::data::Data;
use crate::model::datatype::{BYTEORDER_BIG_ENDIAN, BYTEORDER_HOST_ENDIAN, BYTEORDER_INVALID, Datatype};
use crate::model::element::{Body, Mapped, Span};
use crate::model::family::Family;
use crate::model::ids::{Handle, TableId};
use crate::model::name::{ChainName, Comment, CounterName, SetName};
use crate::model::opaque::Extra;
use crate::model::rule::Rule;
use crate::model::set::{Maps, Set};
use crate::model::table::{Counter, Table};
use crate::uapi::*;
use crate::wire::exprs;
use crate::wire::references::with_set;
use crate::wire::udata::*;

/// Maximum bytes of an element list. A list is one attribute, which holds 65,535 bytes; an element
/// has less than 1 KiB.
const LIST_LIMIT: usize = 60_000;

fn extra(extra: &Extra, a: &mut Attributes<'_>) {
    extra
        .0
        .iter()
        .filter(|(_, payload)| !payload.is_empty())
        .for_each(|(kind, payload)| a.bytes(*kind, payload));
}

/// Appends a comment, unless userdata with more than a comment was kept.
fn comment(attribute: u16, kind: u8, text: Option<&Comment>, extra: &Extra, a: &mut Attributes<'_>) {
    if !extra.has(attribute) {
        write_comment(attribute, kind, text, a);
    }
}

pub(crate) fn table(table: &Table, flags: u32, a: &mut Attributes<'_>) {
    a.string(NFTA_TABLE_NAME, table.id.name.as_bytes());
    a.be32(NFTA_TABLE_FLAGS, flags);
    comment(NFTA_TABLE_USERDATA, NFTNL_UDATA_TABLE_COMMENT, table.comment.as_ref(), &table.extra, a);
    extra(&table.extra, a);
}

pub(crate) fn table_name(id: &TableId, a: &mut Attributes<'_>) {
    a.string(NFTA_TABLE_NAME, id.name.as_bytes());
}

pub(crate) fn chain(table: &TableId, chain: &Chain, a: &mut Attributes<'_>) {
    chain_name(table, &chain.name, a);
    if let Some(base) = &chain.base {
        a.nested(NFTA_CHAIN_HOOK, |a| {
            a.be32(NFTA_HOOK_HOOKNUM, base.hook.number(table.family));
            a.bytes(NFTA_HOOK_PRIORITY, &base.priority.number().to_be_bytes());
            match base.devices.as_slice() {
                [] => {}
                [device] if !device.is_prefix() => a.bytes(NFTA_HOOK_DEV, &device.payload),
                devices => a.nested(NFTA_HOOK_DEVS, |a| {
                    devices.iter().for_each(|device| a.bytes(device.kind, &device.payload));
                }),
            }
        });
        // As in iptables-nft, which shows them.
        if let Some((packets, bytes)) = chain.counts {
            a.nested(NFTA_CHAIN_COUNTERS, |a| {
                a.be64(NFTA_COUNTER_BYTES, bytes);
                a.be64(NFTA_COUNTER_PACKETS, packets);
            });
        }
        let policy = if base.policy == Policy::Accept { NF_ACCEPT } else { NF_DROP };
        a.bytes(NFTA_CHAIN_POLICY, &policy.to_be_bytes());
        a.text(NFTA_CHAIN_TYPE, base.kind.name());
    }
    comment(NFTA_CHAIN_USERDATA, NFTNL_UDATA_CHAIN_COMMENT, chain.comment.as_ref(), &chain.extra, a);
    extra(&chain.extra, a);
}

pub(crate) fn chain_name(table: &TableId, name: &ChainName, a: &mut Attributes<'_>) {
    a.string(NFTA_CHAIN_TABLE, table.name.as_bytes());
    a.string(NFTA_CHAIN_NAME, name.as_bytes());
}

/// Position of a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// The end of the chain with `NLM_F_APPEND`, otherwise the start.
    End,
    /// After this rule with `NLM_F_APPEND`, otherwise before it.
    At(Handle),
    /// In place of this rule, with `NLM_F_REPLACE`.
    Instead(Handle),
}

/// Appends a rule. If it is invalid, the expressions are incomplete.
pub(crate) fn rule(
    table: &TableId,
    chain: ChainRef<'_>,
    rule: &Rule,
    place: Place,
    ids: Ids<'_>,
    a: &mut Attributes<'_>,
) -> Result<(), InvalidRule> {
    let handle = if let Place::Instead(handle) = place { Some(handle) } else { None };
    rule_handle(table, chain, handle, a);
    if let Place::At(handle) = place {
        a.be64(NFTA_RULE_POSITION, handle.0);
    }
    let done = expressions(table.family, rule, ids, a);
    comment(NFTA_RULE_USERDATA, NFTNL_UDATA_RULE_COMMENT, rule.comment.as_ref(), &rule.extra, a);
    extra(&rule.extra, a);
    done
}

/// The IDs that a rule's anonymous sets, from the first on, and its implicit chains have in the
/// batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids<'i> {
    pub(crate) first_set: u32,
    pub(crate) chains: &'i [u32],
}

pub(crate) fn expressions(
    family: Family,
    rule: &Rule,
    ids: Ids<'_>,
    a: &mut Attributes<'_>,
) -> Result<(), InvalidRule> {
    let mut done = Ok(());
    a.nested(NFTA_RULE_EXPRESSIONS, |list| {
        done = linearize(rule, family, ids.first_set, |expr| match rule.attached.as_deref() {
            None => exprs::encode(&expr, list),
            Some(attached) => exprs::encode(&by_id(expr, rule, attached, ids), list),
        });
    });
    done
}

/// Replaces the name of an attached set or chain by its ID.
fn by_id(expr: Expr, rule: &Rule, attached: &Attached, ids: Ids<'_>) -> Expr {
    if let Some(place) = attached.place_of_set(&expr)
        && let Some(set) = attached.sets.get(place)
    {
        let mut behind = 0; // the sets of the statements have the first IDs
        rule.inline_sets(|_| behind += 1);
        let first = ids.first_set + behind - u32::try_from(attached.sets.len()).unwrap_or(behind);
        let id = first + u32::try_from(place).unwrap_or(0);
        return with_set(&expr, set.name.as_str(), Some(id));
    }
    match (&expr, attached.place_of_chain(&expr)) {
        (Expr::Verdict { code, .. }, Some(place)) => {
            Expr::Verdict { code: *code, chain: None, id: ids.chains.get(place).copied() }
        }
        _ => expr,
    }
}

/// The chain of a new rule: an implicit chain has no name yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChainRef<'c> {
    Name(&'c ChainName),
    Id(u32),
}

/// Appends an implicit chain.
pub(crate) fn implicit_chain(table: &TableId, id: u32, a: &mut Attributes<'_>) {
    a.string(NFTA_CHAIN_TABLE, table.name.as_bytes());
    a.be32(NFTA_CHAIN_ID, id);
    a.be32(NFTA_CHAIN_FLAGS, NFT_CHAIN_BINDING);
}

pub(crate) fn rule_handle(
    table: &TableId,
    chain: ChainRef<'_>,
    handle: Option<Handle>,
    a: &mut Attributes<'_>,
) {
    a.string(NFTA_RULE_TABLE, table.name.as_bytes());
    match chain {
        ChainRef::Name(name) => a.string(NFTA_RULE_CHAIN, name.as_bytes()),
        ChainRef::Id(id) => a.be32(NFTA_RULE_CHAIN_ID, id),
    }
    handle.iter().for_each(|handle| a.be64(NFTA_RULE_HANDLE, handle.0));
}

pub(crate) fn set(table: &TableId, set: &Set, id: u32, a: &mut Attributes<'_>) {
    set_name(table, &set.name, a);
    a.be32(NFTA_SET_FLAGS, set.flags);
    a.be32(NFTA_SET_KEY_TYPE, set.key.number());
    a.be32(NFTA_SET_KEY_LEN, set.key.length());
    match set.maps {
        Maps::Nothing => {}
        Maps::Value(datatype) => {
            a.be32(NFTA_SET_DATA_TYPE, datatype.number());
            a.be32(NFTA_SET_DATA_LEN, datatype.length());
        }
        Maps::Verdict => {
            a.be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
            a.be32(NFTA_SET_DATA_LEN, 0);
        }
        Maps::Object(kind) => a.be32(NFTA_SET_OBJ_TYPE, kind),
    }
    if set.memory {
        a.be32(NFTA_SET_POLICY, NFT_SET_POL_MEMORY);
    }
    let size = set.size.or_else(|| fixed_size(set));
    if (size.is_some() || set.is_concatenated()) && !set.extra.has(NFTA_SET_DESC) {
        a.nested(NFTA_SET_DESC, |a| set_description(set, size, a));
    }
    a.be32(NFTA_SET_ID, id);
    set.timeout.iter().for_each(|timeout| a.be64(NFTA_SET_TIMEOUT, milliseconds(*timeout)));
    set.gc_interval.iter().for_each(|every| {
        a.be32(NFTA_SET_GC_INTERVAL, u32::try_from(milliseconds(*every)).unwrap_or(u32::MAX));
    });
    if !set.extra.has(NFTA_SET_USERDATA) {
        a.bytes(NFTA_SET_USERDATA, set_userdata(set).as_bytes());
    }
    extra(&set.extra, a);
}

/// The contents of `NFTA_SET_DESC`: the size, and the length of each part of concatenated ranges.
pub(crate) fn set_description(set: &Set, size: Option<u32>, a: &mut Attributes<'_>) {
    size.iter().for_each(|size| a.be32(NFTA_SET_DESC_SIZE, *size));
    if set.is_concatenated() {
        a.nested(NFTA_SET_DESC_CONCAT, |a| {
            for part in set.key.parts() {
                a.nested(NFTA_LIST_ELEM, |a| a.be32(NFTA_SET_FIELD_LEN, part.length()));
            }
        });
    }
}

/// The number of elements of a set that never changes. The kernel then allocates a hash table of
/// that size (`nft_set_hash_fast`, net/netfilter/nft_set_hash.c) instead of one that can grow.
fn fixed_size(set: &Set) -> Option<u32> {
    let fixed = set.is_anonymous() && set.flags & NFT_SET_INTERVAL == 0;
    fixed.then(|| u32::try_from(set.elements.len()).ok()).flatten()
}

/// The userdata that nft 0.9.8 and newer write, and need to print numbers in the right byte order.
pub(crate) fn set_userdata(set: &Set) -> Userdata {
    let order = |datatype: Datatype| match datatype {
        Datatype::InetProto => BYTEORDER_INVALID, // one byte has no order
        _ if datatype.parts().len() > 1 => BYTEORDER_INVALID, // each part has its own
        _ if datatype.is_host_order() => BYTEORDER_HOST_ENDIAN,
        _ => BYTEORDER_BIG_ENDIAN,
    };
    let mut userdata = Userdata::default();
    userdata.u32(NFTNL_UDATA_SET_KEYBYTEORDER, order(set.key));
    match set.maps {
        Maps::Value(datatype) => match datatype.end() {
            Some(end) => {
                userdata.u32(NFTNL_UDATA_SET_DATABYTEORDER, order(end));
                userdata.u32(NFTNL_UDATA_SET_DATA_INTERVAL, 1);
            }
            None => userdata.u32(NFTNL_UDATA_SET_DATABYTEORDER, order(datatype)),
        },
        Maps::Verdict => userdata.u32(NFTNL_UDATA_SET_DATABYTEORDER, BYTEORDER_INVALID),
        Maps::Nothing | Maps::Object(_) => {}
    }
    if set.auto_merge {
        userdata.u32(NFTNL_UDATA_SET_MERGE_ELEMENTS, 1);
    }
    set.comment.iter().for_each(|text| userdata.text(NFTNL_UDATA_SET_COMMENT, text));
    userdata
}

pub(crate) fn set_name(table: &TableId, name: &SetName, a: &mut Attributes<'_>) {
    a.string(NFTA_SET_TABLE, table.name.as_bytes());
    a.string(NFTA_SET_NAME, name.as_bytes());
}

/// Appends the identity of the set whose elements follow.
pub(crate) fn elements_of(table: &TableId, set: &SetName, a: &mut Attributes<'_>) {
    a.string(NFTA_SET_ELEM_LIST_TABLE, table.name.as_bytes());
    a.string(NFTA_SET_ELEM_LIST_SET, set.as_bytes());
}

/// Appends as many elements as fit into one message; the others stay in `elements`.
pub(crate) fn elements<'e>(
    table: &TableId,
    set: &Set,
    id: Option<u32>,
    elements: &mut Peekable<impl Iterator<Item = (&'e Span, &'e Body)>>,
    a: &mut Attributes<'_>,
) {
    elements_of(table, &set.name, a);
    id.iter().for_each(|id| a.be32(NFTA_SET_ELEM_LIST_SET_ID, *id));
    let start = a.position();
    a.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
        while list.position() - start < LIST_LIMIT
            && let Some((span, body)) = elements.next()
        {
            element(set, span, body, list);
        }
    });
}

fn element(set: &Set, span: &Span, body: &Body, list: &mut Attributes<'_>) {
    let key = |a: &mut Attributes<'_>, kind, key: &Data| {
        a.nested(kind, |a| a.bytes(NFTA_DATA_VALUE, key.as_slice()));
    };
    list.nested(NFTA_LIST_ELEM, |a| {
        match span.first() {
            Some(first) => key(a, NFTA_SET_ELEM_KEY, first),
            None => a.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_CATCHALL),
        }
        if set.is_interval() && set.is_concatenated() {
            span.last().iter().for_each(|last| key(a, NFTA_SET_ELEM_KEY_END, last));
        }
        match &body.mapped {
            None => {}
            Some(Mapped::Value(data)) => {
                a.nested(NFTA_SET_ELEM_DATA, |a| a.bytes(NFTA_DATA_VALUE, data.as_slice()));
            }
            Some(Mapped::Verdict(verdict)) => {
                let (code, chain) = verdict.code();
                a.nested(NFTA_SET_ELEM_DATA, |a| exprs::verdict(code, chain, None, a));
            }
            Some(Mapped::Object(name)) => a.string(NFTA_SET_ELEM_OBJREF, name.as_bytes()),
        }
        body.timeout.iter().for_each(|timeout| a.be64(NFTA_SET_ELEM_TIMEOUT, milliseconds(*timeout)));
        // What is left of an observed element's lifetime.
        body.expires.iter().filter(|left| !left.is_zero()).for_each(|left| {
            a.be64(NFTA_SET_ELEM_EXPIRATION, milliseconds(*left));
        });
        let kind = NFTNL_UDATA_SET_ELEM_COMMENT;
        comment(NFTA_SET_ELEM_USERDATA, kind, body.comment.as_ref(), &body.extra, a);
        match &*body.exprs {
            [] => {}
            [expr] => exprs::encode_as(NFTA_SET_ELEM_EXPR, expr, a),
            several => a.nested(NFTA_SET_ELEM_EXPRESSIONS, |a| {
                several.iter().for_each(|expr| exprs::encode(expr, a));
            }),
        }
        extra(&body.extra, a);
    });
    if set.is_interval()
        && !set.is_concatenated()
        && let Some(end) = span.last().and_then(Data::successor)
    {
        list.nested(NFTA_LIST_ELEM, |a| {
            a.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
            key(a, NFTA_SET_ELEM_KEY, &end);
        });
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn counter(table: &TableId, counter: &Counter, a: &mut Attributes<'_>) {
    counter_name(table, &counter.name, a);
    a.nested(NFTA_OBJ_DATA, |a| {
        a.be64(NFTA_COUNTER_BYTES, counter.bytes);
        a.be64(NFTA_COUNTER_PACKETS, counter.packets);
    });
    comment(NFTA_OBJ_USERDATA, NFTNL_UDATA_OBJ_COMMENT, counter.comment.as_ref(), &counter.extra, a);
    extra(&counter.extra, a);
}

pub(crate) fn counter_name(table: &TableId, name: &CounterName, a: &mut Attributes<'_>) {
    a.string(NFTA_OBJ_TABLE, table.name.as_bytes());
    a.string(NFTA_OBJ_NAME, name.as_bytes());
    a.be32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
}
