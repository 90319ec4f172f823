//! The objects that expressions refer to.

use flannel_netlink::attributes;

use crate::bytecode::expr::{Expr, OtherExpr};
use crate::model::name::ChainName;
use crate::uapi::*;
use crate::wire::attribute_bytes;

/// The object of the same table that an expression refers to.
#[derive(Debug, PartialEq)]
pub(crate) enum Reference<'e> {
    Nothing,
    Chain(&'e ChainName),
    Flowtable(&'e [u8]),
    /// `kind` is `NFT_OBJECT_*`.
    Object {
        kind: u32,
        name: &'e [u8],
    },
    /// By name or, in a batch, by ID.
    Set(&'e [u8], Option<u32>),
    /// An expression of a newer kernel: it may refer to anything.
    Unknown,
}

/// Expressions that refer to no object.
const SELF_CONTAINED: [&str; 36] = [
    "bitwise",
    "byteorder",
    "cmp",
    "connlimit",
    "counter",
    "ct",
    "dup",
    "exthdr",
    "fib",
    "fwd",
    "hash",
    "inner",
    "last",
    "limit",
    "log",
    "masq",
    "match",
    "meta",
    "nat",
    "notrack",
    "numgen",
    "osf",
    "payload",
    "queue",
    "quota",
    "range",
    "redir",
    "reject",
    "rt",
    "secmark",
    "socket",
    "synproxy",
    "target",
    "tproxy",
    "tunnel",
    "xfrm",
];

pub(crate) fn reference(expr: &Expr) -> Reference<'_> {
    match expr {
        Expr::Lookup { set, id, .. } => Reference::Set(set.as_bytes(), *id),
        Expr::Dynset { set, id, .. } | Expr::ObjectMap { set, id, .. } => Reference::Set(set.as_bytes(), *id),
        Expr::FlowOffload { table } => Reference::Flowtable(table.as_bytes()),
        Expr::Object { kind, name } => Reference::Object { kind: *kind, name: name.as_bytes() },
        Expr::Verdict { chain: Some(chain), .. } => Reference::Chain(chain),
        Expr::Other(other) => reference_of(other),
        _ => Reference::Nothing,
    }
}

/// The attributes with the name and the ID of the set.
fn set_attributes(expression: &str) -> Option<(u16, u16)> {
    match expression {
        "lookup" => Some((NFTA_LOOKUP_SET, NFTA_LOOKUP_SET_ID)),
        "dynset" => Some((NFTA_DYNSET_SET_NAME, NFTA_DYNSET_SET_ID)),
        "objref" => Some((NFTA_OBJREF_SET_NAME, NFTA_OBJREF_SET_ID)),
        _ => None,
    }
}

fn reference_of(other: &OtherExpr) -> Reference<'_> {
    let find = |kind| attributes(&other.data).flatten().find(|attribute| attribute.kind == kind);
    if SELF_CONTAINED.contains(&&*other.name) {
        return Reference::Nothing;
    }
    if let Some((name, id)) = set_attributes(&other.name)
        && let Some(name) = find(name)
    {
        return Reference::Set(name.string(), find(id).and_then(|id| id.be32().ok()));
    }
    let found = match &*other.name {
        "objref" => find(NFTA_OBJREF_IMM_NAME).and_then(|name| {
            let kind = find(NFTA_OBJREF_IMM_TYPE)?.be32().ok()?;
            Some(Reference::Object { kind, name: name.string() })
        }),
        "flow_offload" => find(NFTA_FLOW_TABLE_NAME).map(|name| Reference::Flowtable(name.string())),
        _ => None,
    };
    found.unwrap_or(Reference::Unknown)
}

/// The same expression with another name and ID of its set.
pub(crate) fn with_set(expr: &Expr, name: &str, id: Option<u32>) -> Expr {
    match expr {
        Expr::Lookup { sreg, dreg, inverted, .. } => {
            Expr::Lookup { set: name.into(), id, sreg: *sreg, dreg: *dreg, inverted: *inverted }
        }
        Expr::ObjectMap { sreg, .. } => Expr::ObjectMap { sreg: *sreg, set: name.into(), id },
        Expr::Dynset { .. } => {
            let mut expr = expr.clone();
            if let Expr::Dynset { set, id: old, .. } = &mut expr {
                (*set, *old) = (name.into(), id);
            }
            expr
        }
        Expr::Other(other) => {
            let Some((name_kind, id_kind)) = set_attributes(&other.name) else { return expr.clone() };
            let data = attribute_bytes(|a| {
                for attribute in attributes(&other.data).flatten() {
                    match attribute.kind {
                        kind if kind == name_kind => a.text(kind, name),
                        kind if kind == id_kind => {}
                        kind => a.bytes(kind, attribute.payload),
                    }
                }
                id.iter().for_each(|id| a.be32(id_kind, *id));
            });
            Expr::Other(Box::new(OtherExpr { name: other.name.clone(), data }))
        }
        _ => expr.clone(),
    }
}
