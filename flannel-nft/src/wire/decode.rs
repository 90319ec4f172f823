//! From netlink attributes to objects.

use std::time::Duration;

use flannel_netlink::{Attribute, AttributeIter, Malformed, Message};

use crate::bytecode::expr::Expr;
use crate::model::chain::{Base, Chain, ChainKind, Device, Hook, Policy, Priority};
use crate::model::datatype::{BYTEORDER_HOST_ENDIAN, Datatype};
use crate::model::family::Family;
use crate::model::ids::{Generation, Handle, TableId};
use crate::model::name::{ChainName, CounterName, SetName, TableName};
use crate::model::object::Object;
use crate::model::rule::Rule;
use crate::model::ruleset::Ownership;
use crate::model::set::{Maps, Set};
use crate::model::table::{Counter, Table};
use crate::uapi::*;
use crate::wire::encode::set_userdata;
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
            table = Some(TableId::new(family, TableName::observed(attribute.string())));
        }
    }
    Ok(table.map(|table| (table, attributes)))
}

/// The attributes of a message about this table; `None` if it is about another table.
pub(crate) fn in_table<'a>(
    message: &Message<'a>,
    table: &TableId,
) -> Result<Option<AttributeIter<'a>>, Malformed> {
    let ([family, ..], attributes) = message.split::<4>()?;
    let mut is_in = false;
    for attribute in attributes.clone() {
        let attribute = attribute?;
        is_in |= attribute.kind == NFTA_TABLE_NAME && attribute.string() == table.name.as_bytes();
    }
    Ok((is_in && *family == table.family.number()).then_some(attributes))
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
                table.comment = comment(&attribute, NFTNL_UDATA_TABLE_COMMENT, &mut table.extra);
            }
            NFTA_TABLE_OWNER => table.owner = Some(attribute.be32()?),
            NFTA_TABLE_HANDLE => table.handle = Some(Handle(attribute.be64()?)),
            NFTA_TABLE_USE => table.uses = Some(attribute.be32()?),
            NFTA_TABLE_NAME | NFTA_TABLE_PAD => {}
            _ => keep(&mut table.extra, &attribute),
        }
    }
    Ok(table)
}

pub(crate) fn chain(family: Family, attributes: AttributeIter<'_>) -> Result<Chain, Malformed> {
    let mut chain = Chain::regular(ChainName::observed(""));
    let (mut hook, mut policy, mut kind) = (None, None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_CHAIN_NAME => chain.name = ChainName::observed(attribute.string()),
            NFTA_CHAIN_HANDLE => chain.handle = Some(Handle(attribute.be64()?)),
            NFTA_CHAIN_HOOK => hook = Some(attribute),
            NFTA_CHAIN_POLICY => policy = Some(attribute),
            NFTA_CHAIN_TYPE => kind = Some(attribute),
            NFTA_CHAIN_COUNTERS => chain.counts = Some(counts(attribute.payload)?),
            NFTA_CHAIN_FLAGS => {
                let flags = attribute.be32()?;
                chain.implicit = flags & NFT_CHAIN_BINDING != 0;
                if flags & !NFT_CHAIN_BASE != 0 {
                    keep(&mut chain.extra, &attribute);
                }
            }
            NFTA_CHAIN_USERDATA => {
                chain.comment = comment(&attribute, NFTNL_UDATA_CHAIN_COMMENT, &mut chain.extra);
            }
            NFTA_CHAIN_TABLE | NFTA_CHAIN_USE | NFTA_CHAIN_PAD | NFTA_CHAIN_ID => {}
            _ => keep(&mut chain.extra, &attribute),
        }
    }
    if let Some(hook) = hook {
        chain.base = base(family, &hook, policy.as_ref(), kind.as_ref())?;
        if chain.base.is_none() {
            // A hook, type or property of a newer kernel.
            [Some(hook), policy, kind].iter().flatten().for_each(|raw| keep(&mut chain.extra, raw));
        }
    }
    Ok(chain)
}

/// Reads `NFTA_CHAIN_ID`, which an implicit chain has in a batch.
pub(crate) fn id_of_chain(mut attributes: AttributeIter<'_>) -> Result<Option<u32>, Malformed> {
    let id = attributes
        .find(|attribute| attribute.as_ref().is_ok_and(|attribute| attribute.kind == NFTA_CHAIN_ID));
    id.map(|attribute| attribute?.be32()).transpose()
}

/// Reads `NFTA_CHAIN_HOOK`, `_POLICY` and `_TYPE`; `None` if they have something without a type
/// here.
fn base(
    family: Family,
    hook: &Attribute<'_>,
    policy: Option<&Attribute<'_>>,
    kind: Option<&Attribute<'_>>,
) -> Result<Option<Base>, Malformed> {
    let (mut number, mut priority, mut devices) = (0, 0, Vec::new());
    for attribute in hook.nested() {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_HOOK_HOOKNUM => number = attribute.be32()?,
            NFTA_HOOK_PRIORITY => priority = i32::from_be_bytes(attribute.array()?),
            NFTA_HOOK_DEV if devices.is_empty() => {
                devices.push(Device::observed(NFTA_DEVICE_NAME, attribute.payload));
            }
            NFTA_HOOK_DEV => {}
            NFTA_HOOK_DEVS => {
                let names =
                    attribute.nested().map(|name| Ok(Device::observed(name.clone()?.kind, name?.payload)));
                devices = names.collect::<Result<_, Malformed>>()?;
            }
            _ => return Ok(None),
        }
    }
    let policy = match policy.map(|policy| policy.array().map(i32::from_be_bytes)).transpose()? {
        None | Some(NF_ACCEPT) => Policy::Accept,
        Some(NF_DROP) => Policy::Drop,
        Some(_) => return Ok(None),
    };
    let kind = match kind.map(Attribute::string) {
        None | Some(b"filter") => ChainKind::Filter,
        Some(b"nat") => ChainKind::Nat,
        Some(b"route") => ChainKind::Route,
        Some(_) => return Ok(None),
    };
    let Some(hook) = Hook::from_number(family, number) else { return Ok(None) };
    Ok(Some(Base { kind, hook, priority: Priority::new(priority), policy, devices }))
}

/// Reads packets and bytes.
fn counts(data: &[u8]) -> Result<(u64, u64), Malformed> {
    let (mut packets, mut bytes) = (0, 0);
    for inner in flannel_netlink::attributes(data) {
        let inner = inner?;
        match inner.kind {
            NFTA_COUNTER_BYTES => bytes = inner.be64()?,
            NFTA_COUNTER_PACKETS => packets = inner.be64()?,
            _ => {}
        }
    }
    Ok((packets, bytes))
}

/// A decoded rule: its chain, its position, and its expressions, which are not yet delinearized.
#[derive(Debug)]
pub(crate) struct RawRule {
    pub(crate) chain: ChainName,
    /// The chain instead of its name, in a batch.
    pub(crate) chain_id: Option<u32>,
    pub(crate) position: Option<Handle>,
    pub(crate) exprs: Vec<Expr>,
    /// Without statements.
    pub(crate) rule: Rule,
}

pub(crate) fn rule(attributes: AttributeIter<'_>) -> Result<RawRule, Malformed> {
    let mut raw = RawRule {
        chain: ChainName::observed(""),
        chain_id: None,
        position: None,
        exprs: Vec::new(),
        rule: Rule::new(),
    };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_RULE_CHAIN => raw.chain = ChainName::observed(attribute.string()),
            NFTA_RULE_HANDLE => raw.rule.handle = Some(Handle(attribute.be64()?)),
            NFTA_RULE_EXPRESSIONS => {
                for element in attribute.nested() {
                    raw.exprs.push(exprs::decode(&element?)?);
                }
            }
            NFTA_RULE_POSITION => raw.position = Some(Handle(attribute.be64()?)),
            NFTA_RULE_USERDATA => {
                raw.rule.comment = comment(&attribute, NFTNL_UDATA_RULE_COMMENT, &mut raw.rule.extra);
            }
            NFTA_RULE_CHAIN_ID => raw.chain_id = Some(attribute.be32()?),
            NFTA_RULE_TABLE | NFTA_RULE_PAD..=NFTA_RULE_POSITION_ID => {}
            _ => keep(&mut raw.rule.extra, &attribute),
        }
    }
    Ok(raw)
}

pub(crate) fn set(attributes: AttributeIter<'_>) -> Result<(Set, Option<u32>), Malformed> {
    let mut set = Set::with(SetName::observed(""), Datatype::Mark, Maps::Nothing, 0);
    let (mut key, mut key_length, mut data, mut data_length, mut id) = (0, 0, None, 0, None);
    let mut description = None;
    let mut userdata: &[u8] = &[];
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_SET_NAME => set.name = SetName::observed(attribute.string()),
            NFTA_SET_FLAGS => set.flags = attribute.be32()?,
            NFTA_SET_KEY_TYPE => key = attribute.be32()?,
            NFTA_SET_KEY_LEN => key_length = attribute.be32()?,
            NFTA_SET_DATA_TYPE => data = Some(attribute.be32()?),
            NFTA_SET_DATA_LEN => data_length = attribute.be32()?,
            NFTA_SET_DESC => {
                for inner in attribute.nested() {
                    let inner = inner?;
                    if inner.kind == NFTA_SET_DESC_SIZE {
                        set.size = Some(inner.be32()?);
                    }
                }
                description = Some(attribute);
            }
            NFTA_SET_ID => id = Some(attribute.be32()?),
            NFTA_SET_TIMEOUT => set.timeout = Some(Duration::from_millis(attribute.be64()?)),
            NFTA_SET_GC_INTERVAL => {
                set.gc_interval = Some(Duration::from_millis(u64::from(attribute.be32()?)));
            }
            NFTA_SET_USERDATA => userdata = attribute.payload,
            NFTA_SET_OBJ_TYPE => set.maps = Maps::Object(attribute.be32()?),
            NFTA_SET_POLICY => set.memory = attribute.be32()? == NFT_SET_POL_MEMORY,
            NFTA_SET_HANDLE => set.handle = Some(Handle(attribute.be64()?)),
            NFTA_SET_TABLE | NFTA_SET_PAD => {}
            NFTA_SET_TYPE | NFTA_SET_COUNT => {} // only the kernel sends them
            _ => keep(&mut set.extra, &attribute),
        }
    }
    let is_host_order = |kind| {
        let host = BYTEORDER_HOST_ENDIAN.to_ne_bytes();
        read_udata(userdata).any(|(found, value)| found == kind && value == host)
    };
    set.key = Datatype::from_number(key, key_length).ordered(is_host_order(NFTNL_UDATA_SET_KEYBYTEORDER));
    if let Some(description) = description.filter(|description| !is_own_description(&set, description)) {
        keep(&mut set.extra, &description);
    }
    match data {
        Some(NFT_DATA_VERDICT) => set.maps = Maps::Verdict,
        Some(number) => {
            let datatype = Datatype::from_number(number, data_length);
            set.maps = Maps::Value(datatype.ordered(is_host_order(NFTNL_UDATA_SET_DATABYTEORDER)));
        }
        None => {}
    }
    set.comment = read_comment(userdata, NFTNL_UDATA_SET_COMMENT);
    set.auto_merge = read_udata(userdata)
        .any(|(kind, value)| kind == NFTNL_UDATA_SET_MERGE_ELEMENTS && value == 1_u32.to_ne_bytes());
    if !is_own_udata(&set, userdata) {
        // nft's `typeof` and other entries.
        set.extra.0.push((NFTA_SET_USERDATA, userdata.into()));
    }
    // A size without `size` in the definition is the kernel's own choice.
    Ok((set, id))
}

/// Whether `NFTA_SET_DESC` has only what this crate writes itself.
fn is_own_description(set: &Set, description: &Attribute<'_>) -> bool {
    let lengths = |parts: &Attribute<'_>| -> Option<Vec<u32>> {
        let length = |part: Result<Attribute<'_>, Malformed>| part.ok()?.nested().next()?.ok()?.be32().ok();
        parts.nested().map(length).collect()
    };
    let wanted: Vec<u32> = set.key.parts().into_iter().map(Datatype::length).collect();
    description.nested().flatten().all(|inner| match inner.kind {
        NFTA_SET_DESC_SIZE => true,
        NFTA_SET_DESC_CONCAT => wanted.len() > 1 && lengths(&inner).as_ref() == Some(&wanted),
        _ => false,
    })
}

/// Whether a set's userdata has only entries that this crate writes itself. Byte orders are those of
/// the types, unless a type is unknown.
fn is_own_udata(set: &Set, userdata: &[u8]) -> bool {
    let is_other = |datatype: Datatype| match datatype {
        Datatype::Integer { .. } | Datatype::Text { .. } => true,
        Datatype::Other { .. } => datatype.parts().len() == 1 && datatype.end().is_none(),
        _ => false,
    };
    // What nft writes for a concatenation that was declared with `type`. Since 1.1 it does so for a single type too, and
    // older versions crash when they list that set: it counts as a difference.
    let is_empty_typeof = |datatype: Datatype, value| {
        datatype.parts().len() > 1
            && read_udata(value).any(|entry| entry == (NFTNL_UDATA_SET_TYPEOF_DATA, &[][..]))
    };
    let of_value = if let Maps::Value(datatype) = set.maps { Some(datatype) } else { None };
    if userdata.is_empty() || is_other(set.key) || of_value.is_some_and(is_other) {
        return set_userdata(set).as_bytes() == userdata;
    }
    read_udata(userdata).all(|(kind, value)| match kind {
        NFTNL_UDATA_SET_KEYBYTEORDER | NFTNL_UDATA_SET_DATABYTEORDER | NFTNL_UDATA_SET_COMMENT => true,
        NFTNL_UDATA_SET_MERGE_ELEMENTS => [0_u32, 1].iter().any(|bit| value == bit.to_ne_bytes()),
        NFTNL_UDATA_SET_KEY_TYPEOF => is_empty_typeof(set.key, value),
        NFTNL_UDATA_SET_DATA_TYPEOF => of_value.is_some_and(|datatype| is_empty_typeof(datatype, value)),
        NFTNL_UDATA_SET_DATA_INTERVAL => {
            let has_ranges = of_value.is_some_and(|datatype| datatype.end().is_some());
            value == u32::from(has_ranges).to_ne_bytes()
        }
        _ => false,
    })
}

/// The family and name of the table that a message is about.
pub(crate) fn table_of<'a>(message: &Message<'a>) -> Option<(u8, &'a [u8])> {
    let ([family, ..], mut attributes) = message.split::<4>().ok()?;
    let name =
        attributes.find_map(|attribute| attribute.ok().filter(|found| found.kind == NFTA_TABLE_NAME))?;
    Some((*family, name.string()))
}

/// Reads `NFTA_GEN_ID`.
pub(crate) fn generation(message: &Message<'_>) -> Result<Generation, Malformed> {
    let (_, attributes) = message.split::<4>()?;
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == NFTA_GEN_ID {
            return Ok(Generation(attribute.be32()?));
        }
    }
    Err(Malformed::Value { what: "generation number" })
}

/// Reads `NFTA_SET_COUNT`, the number of elements.
pub(crate) fn count_of_set(mut attributes: AttributeIter<'_>) -> Result<Option<u32>, Malformed> {
    let count = attributes
        .find(|attribute| attribute.as_ref().is_ok_and(|attribute| attribute.kind == NFTA_SET_COUNT));
    count.map(|attribute| attribute?.be32()).transpose()
}

/// The counter that an object of type `NFT_OBJECT_COUNTER` is.
pub(crate) fn counter(object: Object) -> Result<Counter, Malformed> {
    let (packets, bytes) = counts(&object.data)?;
    let name = CounterName::observed(object.name.as_bytes());
    let Object { comment, handle, extra, .. } = object;
    Ok(Counter { name, comment, packets, bytes, handle, extra })
}
