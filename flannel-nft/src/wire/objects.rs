//! Named objects and flowtables to netlink attributes and back.

use std::time::Duration;

use flannel_netlink::{AttributeIter, Attributes, Malformed, attributes};

use crate::bytecode::delinearize_statement::stateful;
use crate::bytecode::expr::Expr;
use crate::bytecode::linearize_statement::linearize_limit;
use crate::model::chain::{Device, Priority};
use crate::model::family::Family;
use crate::model::ids::{Handle, TableId};
use crate::model::name::{ObjectName, escaped};
use crate::model::object::{Flowtable, Object, ObjectKind};
use crate::model::opaque::Extra;
use crate::model::protocol::Protocol;
use crate::model::statement::Statement;
use crate::uapi::*;
use crate::wire::udata::*;
use crate::wire::{attribute_bytes, exprs};

/// Reads an object.
pub(crate) fn object(attributes: AttributeIter<'_>) -> Result<Object, Malformed> {
    let mut object = Object {
        name: ObjectName::observed(""),
        number: 0,
        data: Box::default(),
        comment: None,
        handle: None,
        extra: Extra::default(),
    };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_OBJ_NAME => object.name = ObjectName::observed(attribute.string()),
            NFTA_OBJ_TYPE => object.number = attribute.be32()?,
            NFTA_OBJ_DATA => object.data = attribute.payload.into(),
            NFTA_OBJ_HANDLE => object.handle = Some(Handle(attribute.be64()?)),
            NFTA_OBJ_USERDATA => {
                object.comment = comment(&attribute, NFTNL_UDATA_OBJ_COMMENT, &mut object.extra);
            }
            NFTA_OBJ_TABLE | NFTA_OBJ_USE | NFTA_OBJ_PAD => {}
            _ => keep(&mut object.extra, &attribute),
        }
    }
    if object.number == NFT_OBJECT_QUOTA
        && let quota @ Expr::Quota { .. } = exprs::decode_named("quota", &object.data)
    {
        object.data = attribute_bytes(|a| exprs::body(&quota, a));
    }
    Ok(object)
}

pub(crate) fn encode_object(table: &TableId, object: &Object, a: &mut Attributes<'_>) {
    object_name(table, object.number, &object.name, a);
    a.bytes(NFTA_OBJ_DATA | NLA_F_NESTED, &object.data);
    if !object.extra.has(NFTA_OBJ_USERDATA) {
        write_comment(NFTA_OBJ_USERDATA, NFTNL_UDATA_OBJ_COMMENT, object.comment.as_ref(), a);
    }
    object.extra.0.iter().for_each(|(kind, payload)| a.bytes(*kind, payload));
}

pub(crate) fn object_name(table: &TableId, number: u32, name: &ObjectName, a: &mut Attributes<'_>) {
    a.string(NFTA_OBJ_TABLE, table.name.as_bytes());
    a.string(NFTA_OBJ_NAME, name.as_bytes());
    a.be32(NFTA_OBJ_TYPE, number);
}

/// The data without what packets change, in the order in which this crate writes it.
pub(crate) fn without_state(number: u32, data: &[u8]) -> Box<[u8]> {
    if number != NFT_OBJECT_QUOTA {
        let written = decode_kind(number, data).map(|kind| encode_kind(&kind).1);
        // Attributes without a type here would be missing.
        return written.filter(|written| written.len() == data.len()).unwrap_or_else(|| data.into());
    }
    attribute_bytes(|a| exprs::body(&exprs::without_state(&exprs::decode_named("quota", data)), a))
}

/// `NFT_OBJECT_*`, and the attributes in `NFTA_OBJ_DATA`.
pub(crate) fn encode_kind(kind: &ObjectKind) -> (u32, Box<[u8]>) {
    let in_family = |family: &Option<Family>, kind, a: &mut Attributes<'_>| {
        family.iter().for_each(|family| a.be16(kind, u16::from(family.number())));
    };
    match kind {
        ObjectKind::CtExpectation { family, protocol, port, timeout, size } => {
            let data = attribute_bytes(|a| {
                in_family(family, NFTA_CT_EXPECT_L3PROTO, a);
                a.u8(NFTA_CT_EXPECT_L4PROTO, protocol.number());
                a.be16(NFTA_CT_EXPECT_DPORT, *port);
                a.u32(NFTA_CT_EXPECT_TIMEOUT, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
                a.u8(NFTA_CT_EXPECT_SIZE, *size);
            });
            (NFT_OBJECT_CT_EXPECT, data)
        }
        ObjectKind::CtHelper { helper, family, protocol } => {
            let data = attribute_bytes(|a| {
                a.text(NFTA_CT_HELPER_NAME, helper);
                in_family(family, NFTA_CT_HELPER_L3PROTO, a);
                a.u8(NFTA_CT_HELPER_L4PROTO, protocol.number());
            });
            (NFT_OBJECT_CT_HELPER, data)
        }
        ObjectKind::CtTimeout { family, protocol, seconds } => {
            let data = attribute_bytes(|a| {
                in_family(family, NFTA_CT_TIMEOUT_L3PROTO, a);
                a.u8(NFTA_CT_TIMEOUT_L4PROTO, protocol.number());
                a.nested(NFTA_CT_TIMEOUT_DATA, |a| {
                    seconds.iter().for_each(|(state, seconds)| a.be32(*state, *seconds));
                });
            });
            (NFT_OBJECT_CT_TIMEOUT, data)
        }
        ObjectKind::Limit(limit) => {
            let data = attribute_bytes(|a| exprs::body(&linearize_limit(limit), a));
            (NFT_OBJECT_LIMIT, data)
        }
        ObjectKind::Quota { bytes, over, used } => {
            let data = attribute_bytes(|a| {
                a.be64(NFTA_QUOTA_BYTES, *bytes);
                a.be64(NFTA_QUOTA_CONSUMED, *used);
                a.be32(NFTA_QUOTA_FLAGS, if *over { NFT_QUOTA_F_INV } else { 0 });
            });
            (NFT_OBJECT_QUOTA, data)
        }
        ObjectKind::Secmark { context } => {
            (NFT_OBJECT_SECMARK, attribute_bytes(|a| a.text(NFTA_SECMARK_CTX, context)))
        }
        ObjectKind::Synproxy { mss, window_scale, timestamp, sack_permitted } => {
            let flag = |set: bool, flag: u32| if set { flag } else { 0 };
            let flags = flag(mss.is_some(), NF_SYNPROXY_OPT_MSS)
                | flag(window_scale.is_some(), NF_SYNPROXY_OPT_WSCALE)
                | flag(*timestamp, NF_SYNPROXY_OPT_TIMESTAMP)
                | flag(*sack_permitted, NF_SYNPROXY_OPT_SACK_PERM);
            let data = attribute_bytes(|a| {
                a.be16(NFTA_SYNPROXY_MSS, mss.unwrap_or(0));
                a.u8(NFTA_SYNPROXY_WSCALE, window_scale.unwrap_or(0));
                a.be32(NFTA_SYNPROXY_FLAGS, flags);
            });
            (NFT_OBJECT_SYNPROXY, data)
        }
    }
}

/// Reads the attributes in `NFTA_OBJ_DATA`; `None` if there is no type for them.
pub(crate) fn decode_kind(number: u32, data: &[u8]) -> Option<ObjectKind> {
    let at = |kind| attributes(data).flatten().find(|attribute| attribute.kind == kind);
    let family = |kind| match at(kind).and_then(|family| family.be16().ok()) {
        None => Some(None),
        Some(number) => Family::from_number(u8::try_from(number).ok()?).map(Some),
    };
    let protocol = |kind| at(kind)?.u8().ok().map(Protocol::new);
    Some(match number {
        NFT_OBJECT_CT_EXPECT => ObjectKind::CtExpectation {
            family: family(NFTA_CT_EXPECT_L3PROTO)?,
            protocol: protocol(NFTA_CT_EXPECT_L4PROTO)?,
            port: at(NFTA_CT_EXPECT_DPORT)?.be16().ok()?,
            timeout: Duration::from_millis(at(NFTA_CT_EXPECT_TIMEOUT)?.u32().ok()?.into()),
            size: at(NFTA_CT_EXPECT_SIZE)?.u8().ok()?,
        },
        NFT_OBJECT_CT_HELPER => ObjectKind::CtHelper {
            helper: escaped(at(NFTA_CT_HELPER_NAME)?.string()),
            family: family(NFTA_CT_HELPER_L3PROTO)?,
            protocol: protocol(NFTA_CT_HELPER_L4PROTO)?,
        },
        NFT_OBJECT_CT_TIMEOUT => {
            let states = at(NFTA_CT_TIMEOUT_DATA)?;
            let seconds = states.nested().flatten().map(|state| Some((state.kind, state.be32().ok()?)));
            ObjectKind::CtTimeout {
                family: family(NFTA_CT_TIMEOUT_L3PROTO)?,
                protocol: protocol(NFTA_CT_TIMEOUT_L4PROTO)?,
                seconds: seconds.collect::<Option<_>>()?,
            }
        }
        NFT_OBJECT_LIMIT => {
            let Statement::Limit(limit) = stateful(&exprs::decode_named("limit", data))? else { return None };
            ObjectKind::Limit(limit)
        }
        NFT_OBJECT_QUOTA => ObjectKind::Quota {
            bytes: at(NFTA_QUOTA_BYTES)?.be64().ok()?,
            over: at(NFTA_QUOTA_FLAGS).and_then(|flags| flags.be32().ok()) == Some(NFT_QUOTA_F_INV),
            used: at(NFTA_QUOTA_CONSUMED).map_or(Some(0), |used| used.be64().ok())?,
        },
        NFT_OBJECT_SECMARK => ObjectKind::Secmark { context: escaped(at(NFTA_SECMARK_CTX)?.string()) },
        NFT_OBJECT_SYNPROXY => {
            let flags = at(NFTA_SYNPROXY_FLAGS)?.be32().ok()?;
            let has = |flag| flags & flag != 0;
            ObjectKind::Synproxy {
                mss: at(NFTA_SYNPROXY_MSS)?.be16().ok().filter(|_| has(NF_SYNPROXY_OPT_MSS)),
                window_scale: at(NFTA_SYNPROXY_WSCALE)?.u8().ok().filter(|_| has(NF_SYNPROXY_OPT_WSCALE)),
                timestamp: has(NF_SYNPROXY_OPT_TIMESTAMP),
                sack_permitted: has(NF_SYNPROXY_OPT_SACK_PERM),
            }
        }
        _ => return None,
    })
}

/// Reads a flowtable.
pub(crate) fn flowtable(attributes: AttributeIter<'_>) -> Result<Flowtable, Malformed> {
    let mut flowtable = Flowtable::new(ObjectName::observed(""), Priority::FILTER);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_FLOWTABLE_NAME => flowtable.name = ObjectName::observed(attribute.string()),
            NFTA_FLOWTABLE_FLAGS => flowtable.flags = attribute.be32()?,
            NFTA_FLOWTABLE_HANDLE => flowtable.handle = Some(Handle(attribute.be64()?)),
            NFTA_FLOWTABLE_HOOK => {
                let mut known = true;
                for inner in attribute.nested() {
                    let inner = inner?;
                    match inner.kind {
                        NFTA_FLOWTABLE_HOOK_NUM => flowtable.hook = inner.be32()?,
                        NFTA_FLOWTABLE_HOOK_PRIORITY => {
                            flowtable.priority = Priority::new(i32::from_be_bytes(inner.array()?));
                        }
                        NFTA_FLOWTABLE_HOOK_DEVS => {
                            for device in inner.nested() {
                                let device = device?;
                                flowtable.devices.push(Device::observed(device.kind, device.payload));
                            }
                        }
                        _ => known = false,
                    }
                }
                if !known {
                    keep(&mut flowtable.extra, &attribute);
                }
            }
            NFTA_FLOWTABLE_TABLE | NFTA_FLOWTABLE_USE | NFTA_FLOWTABLE_PAD => {}
            _ => keep(&mut flowtable.extra, &attribute),
        }
    }
    Ok(flowtable)
}

pub(crate) fn encode_flowtable(table: &TableId, flowtable: &Flowtable, a: &mut Attributes<'_>) {
    flowtable_name(table, &flowtable.name, a);
    if !flowtable.extra.has(NFTA_FLOWTABLE_HOOK) {
        a.nested(NFTA_FLOWTABLE_HOOK, |a| {
            a.be32(NFTA_FLOWTABLE_HOOK_NUM, flowtable.hook);
            a.bytes(NFTA_FLOWTABLE_HOOK_PRIORITY, &flowtable.priority.number().to_be_bytes());
            a.nested(NFTA_FLOWTABLE_HOOK_DEVS, |a| {
                flowtable.devices.iter().for_each(|device| a.bytes(device.kind, &device.payload));
            });
        });
    }
    if flowtable.flags != 0 {
        a.be32(NFTA_FLOWTABLE_FLAGS, flowtable.flags);
    }
    flowtable.extra.0.iter().for_each(|(kind, payload)| a.bytes(*kind, payload));
}

pub(crate) fn flowtable_name(table: &TableId, name: &ObjectName, a: &mut Attributes<'_>) {
    a.string(NFTA_FLOWTABLE_TABLE, table.name.as_bytes());
    a.string(NFTA_FLOWTABLE_NAME, name.as_bytes());
}
