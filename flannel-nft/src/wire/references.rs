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

#[cfg(test)]
mod tests {
    use super::*;

    /// An expression without a type, as a newer kernel may return it.
    fn other(name: &str, attributes: &[(u16, &str)], number: Option<(u16, u32)>) -> Expr {
        let data = attribute_bytes(|a| {
            attributes.iter().for_each(|(kind, text)| a.string(*kind, text.as_bytes()));
            number.iter().for_each(|(kind, number)| a.be32(*kind, *number));
        });
        Expr::Other(Box::new(OtherExpr { name: name.into(), data }))
    }

    #[test]
    fn an_expression_without_a_type_refers_to_what_its_attributes_name() {
        let counter = Some((NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER));
        for (expr, expected) in [
            (other("lookup", &[(NFTA_LOOKUP_SET, "s")], None), Reference::Set(b"s", None)),
            (
                other("lookup", &[(NFTA_LOOKUP_SET, "s")], Some((NFTA_LOOKUP_SET_ID, 7))),
                Reference::Set(b"s", Some(7)),
            ),
            (
                other("dynset", &[(NFTA_DYNSET_SET_NAME, "s")], Some((NFTA_DYNSET_SET_ID, 7))),
                Reference::Set(b"s", Some(7)),
            ),
            (
                other("objref", &[(NFTA_OBJREF_SET_NAME, "m")], Some((NFTA_OBJREF_SET_ID, 7))),
                Reference::Set(b"m", Some(7)),
            ),
            (
                other("objref", &[(NFTA_OBJREF_IMM_NAME, "c")], counter),
                Reference::Object { kind: NFT_OBJECT_COUNTER, name: b"c" },
            ),
            (other("objref", &[(NFTA_OBJREF_IMM_NAME, "c")], None), Reference::Unknown),
            (other("flow_offload", &[(NFTA_FLOW_TABLE_NAME, "f")], None), Reference::Flowtable(b"f")),
            (other("flow_offload", &[], None), Reference::Unknown),
            (other("lookup", &[], None), Reference::Unknown),
            (other("counter", &[], None), Reference::Nothing),
            (other("newer", &[], None), Reference::Unknown),
            (Expr::ObjectMap { sreg: NFT_REG_1, set: "m".into(), id: None }, Reference::Set(b"m", None)),
        ] {
            assert_eq!(reference(&expr), expected, "{expr:?}");
        }
    }

    #[test]
    fn another_set_replaces_name_and_id_and_leaves_the_rest() {
        const NFTA_LOOKUP_SREG: u16 = 2;
        let lookup = other(
            "lookup",
            &[(NFTA_LOOKUP_SET, "s"), (NFTA_LOOKUP_SREG, "rest")],
            Some((NFTA_LOOKUP_SET_ID, 7)),
        );
        let Expr::Other(renamed) = with_set(&lookup, "__set0", None) else { unreachable!() };
        assert_eq!(reference(&Expr::Other(renamed.clone())), Reference::Set(b"__set0", None));
        let kinds: Vec<u16> = attributes(&renamed.data).flatten().map(|attribute| attribute.kind).collect();
        assert_eq!(kinds, [NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG]);
        let map = Expr::ObjectMap { sreg: NFT_REG_1, set: "m".into(), id: None };
        let typed = Expr::Lookup { set: "s".into(), id: None, sreg: NFT_REG_1, dreg: None, inverted: true };
        for expr in [lookup, map, typed.clone()] {
            assert_eq!(reference(&with_set(&expr, "n", Some(9))), Reference::Set(b"n", Some(9)), "{expr:?}");
        }
        assert!(matches!(with_set(&typed, "n", None), Expr::Lookup { inverted: true, .. }));
        let counter = other("counter", &[], None);
        assert_eq!(reference(&with_set(&counter, "n", None)), Reference::Nothing);
    }
}
