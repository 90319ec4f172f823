//! Parts of a set's definition that are kept as the kernel returned them: the statements that each new element gets, and
//! the expression of `typeof`, which nft keeps in the set's userdata (`set_udata` in nft's src/netlink.c, `udata` of
//! expressions in src/payload.c, meta.c and ct.c).

use flannel_netlink::{Attribute, attributes};

use crate::bytecode::expr::Expr;
use crate::model::expression::Term;
use crate::model::exthdr;
use crate::model::field::{Field, Kind};
use crate::model::header::{Header, fields_of, vlan};
use crate::model::set::Set;
use crate::uapi::*;
#[cfg(feature = "json")]
use crate::wire::encode::set_userdata;
use crate::wire::exprs;
use crate::wire::udata::{
    NFTNL_UDATA_SET_DATA_TYPEOF, NFTNL_UDATA_SET_KEY_TYPEOF, NFTNL_UDATA_SET_TYPEOF_DATA, read_udata,
};

/// nft's `enum expr_types`.
const EXPR_PAYLOAD: u32 = 7;
const EXPR_EXTHDR: u32 = 8;
const EXPR_META: u32 = 9;
const EXPR_SOCKET: u32 = 10;
const EXPR_OSF: u32 = 11;
const EXPR_CT: u32 = 12;
const EXPR_CONCAT: u32 = 13;
const EXPR_NUMGEN: u32 = 23;
const EXPR_HASH: u32 = 24;
const EXPR_RT: u32 = 25;
/// 26 and 27 before nft 1.1, which counts on by one: the number of fields tells them apart.
const EXPR_FIB: u32 = 26;
const EXPR_FIB_OR_XFRM: u32 = 27;
const EXPR_XFRM: u32 = 28;

const TYPEOF_EXPR: u8 = 0;
const PAYLOAD_DESC: u8 = 0;
const PAYLOAD_TYPE: u8 = 1;
const PAYLOAD_BASE: u8 = 2;
const PAYLOAD_OFFSET: u8 = 3;
const PAYLOAD_LEN: u8 = 4;
const EXTHDR_DESC: u8 = 0;
const EXTHDR_TYPE: u8 = 1;
const EXTHDR_OP: u8 = 2;
const META_KEY: u8 = 0;
const CT_KEY: u8 = 0;
const CT_DIRECTION: u8 = 1;

/// nft's `enum proto_desc_id`, of the headers whose fields it numbers as this crate lists them.
const HEADERS: [(u32, Header); 16] = [
    (1, Header::Ah),
    (2, Header::Esp),
    (3, Header::Comp),
    (4, Header::Icmp),
    (5, Header::Igmp),
    (6, Header::Udp),
    (7, Header::Udplite),
    (8, Header::Tcp),
    (9, Header::Dccp),
    (10, Header::Sctp),
    (11, Header::Th),
    (12, Header::Ip),
    (13, Header::Ip6),
    (14, Header::Icmpv6),
    (15, Header::Arp),
    (17, Header::Ether),
];

/// nft's `PROTO_DESC_VLAN` and `enum vlan_hdr_fields`, whose first entry is a mere placeholder.
const VLAN: u32 = 16;
const VLAN_FIELDS: [Field; 6] = [vlan::PCP, vlan::PCP, vlan::DEI, vlan::DEI, vlan::ID, vlan::TYPE];

/// nft's `enum nft_hash_types`.
const HASH_SYM: u32 = 1;

/// Declares the key of a set with `typeof`; without effect if the expression has no form here.
#[cfg(feature = "json")]
pub(crate) fn declare(set: &mut Set, key: &Term) {
    let Some(expression) = expression(key) else { return };
    let mut userdata = set_userdata(set).as_bytes().to_vec();
    entry(NFTNL_UDATA_SET_KEY_TYPEOF, &expression, &mut userdata);
    set.extra.0.push((NFTA_SET_USERDATA, userdata.into()));
}

/// The expression with which nft declared the key of a set.
pub(crate) fn declared(set: &Set) -> Option<Term> {
    of_userdata(set, NFTNL_UDATA_SET_KEY_TYPEOF)
}

/// The expression with which nft declared the values of a map.
pub(crate) fn declared_values(set: &Set) -> Option<Term> {
    of_userdata(set, NFTNL_UDATA_SET_DATA_TYPEOF)
}

fn of_userdata(set: &Set, kind: u8) -> Option<Term> {
    let (_, userdata) = set.extra.0.iter().find(|(kind, _)| *kind == NFTA_SET_USERDATA)?;
    term(find(userdata, kind)?)
}

/// The statements that each new element gets.
pub(crate) fn statements_of(set: &Set) -> Vec<Expr> {
    let decoded = |kind, payload: &[u8]| exprs::decode(&Attribute { kind, payload }).ok();
    let each = set.extra.0.iter().flat_map(|(kind, payload)| match *kind {
        NFTA_SET_EXPR => vec![decoded(*kind, payload)],
        NFTA_SET_EXPRESSIONS => {
            attributes(payload).flatten().map(|one| decoded(one.kind, one.payload)).collect()
        }
        _ => Vec::new(),
    });
    each.flatten().collect()
}

#[cfg(feature = "json")]
fn entry(kind: u8, value: &[u8], to: &mut Vec<u8>) {
    to.extend([kind, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
    to.extend(value);
}

#[cfg(feature = "json")]
fn expression(term: &Term) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let number = |kind, value: u32, data: &mut Vec<u8>| entry(kind, &value.to_ne_bytes(), data);
    let kind = match term {
        Term::Concat(parts) => {
            for (place, part) in parts.iter().enumerate() {
                entry(u8::try_from(place).ok()?, &expression(part)?, &mut data);
            }
            EXPR_CONCAT
        }
        Term::Field(field @ Field(Kind::Payload(payload))) => {
            let (id, _) = HEADERS.iter().find(|(_, header)| *header == payload.header)?;
            let place = fields_of(payload.header).iter().position(|other| other == field)?;
            number(PAYLOAD_DESC, *id, &mut data);
            number(PAYLOAD_TYPE, u32::try_from(place).ok()? + 1, &mut data);
            // nft notes the length of a number, which its type does not have.
            if payload.datatype.name() == "integer" {
                number(PAYLOAD_LEN, payload.length, &mut data);
            }
            EXPR_PAYLOAD
        }
        Term::Field(Field(Kind::Meta(key))) => {
            number(META_KEY, *key, &mut data);
            EXPR_META
        }
        Term::Field(Field(Kind::Ct { key, direction })) => {
            number(CT_KEY, *key, &mut data);
            number(CT_DIRECTION, direction.map_or(u32::MAX, u32::from), &mut data);
            EXPR_CT
        }
        _ => return None,
    };
    let mut bytes = Vec::new();
    number(TYPEOF_EXPR, kind, &mut bytes);
    entry(NFTNL_UDATA_SET_TYPEOF_DATA, &data, &mut bytes);
    Some(bytes)
}

fn find(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    read_udata(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn number(bytes: &[u8], kind: u8) -> Option<u32> {
    Some(u32::from_ne_bytes(find(bytes, kind)?.try_into().ok()?))
}

fn term(bytes: &[u8]) -> Option<Term> {
    let data = find(bytes, NFTNL_UDATA_SET_TYPEOF_DATA)?;
    let [first, second, third] = [0, 1, 2].map(|place| number(data, place));
    Some(Term::Field(match number(bytes, TYPEOF_EXPR)? {
        EXPR_CONCAT => {
            let parts = read_udata(data).map(|(_, part)| term(part)).collect::<Option<Vec<Term>>>()?;
            return (!parts.is_empty()).then_some(Term::Concat(parts));
        }
        EXPR_PAYLOAD => payload(data)?,
        EXPR_EXTHDR => {
            let (desc, place) = (number(data, EXTHDR_DESC)?, number(data, EXTHDR_TYPE)?);
            exthdr::declared(number(data, EXTHDR_OP).unwrap_or(NFT_EXTHDR_OP_IPV6), desc, place)?
        }
        EXPR_FIB | EXPR_FIB_OR_XFRM if third.is_none() => Field(Kind::Fib { result: first?, flags: second? }),
        EXPR_HASH if first? == HASH_SYM => Field(Kind::Symhash { offset: second?, modulus: third? }),
        EXPR_NUMGEN => Field(Kind::Numgen { kind: first?, modulus: second?, offset: third? }),
        EXPR_OSF => Field(Kind::Osf { flags: 0, ttl: 0 }),
        EXPR_RT => Field(Kind::Rt(first?)),
        // The level of a control group is not in it; nft shows 0.
        EXPR_SOCKET => {
            let level = (first? == NFT_SOCKET_CGROUPV2).then_some(0);
            Field(Kind::Socket { key: first?, level })
        }
        EXPR_FIB_OR_XFRM | EXPR_XFRM => {
            Field(Kind::Xfrm { key: first?, number: second?, direction: u8::try_from(third?).ok()? })
        }
        EXPR_META => Field(Kind::Meta(number(data, META_KEY)?)),
        EXPR_CT => {
            let direction = match number(data, CT_DIRECTION)? {
                0 => Some(IP_CT_DIR_ORIGINAL),
                1 => Some(IP_CT_DIR_REPLY),
                _ => None,
            };
            Field(Kind::Ct { key: number(data, CT_KEY)?, direction })
        }
        _ => return None,
    }))
}

fn payload(data: &[u8]) -> Option<Field> {
    let place = usize::try_from(number(data, PAYLOAD_TYPE)?).ok()?;
    match number(data, PAYLOAD_DESC)? {
        0 => {
            let [base, offset, length] =
                [PAYLOAD_BASE, PAYLOAD_OFFSET, PAYLOAD_LEN].map(|kind| number(data, kind));
            Some(Field(Kind::Raw { base: base?, offset: offset?, length: length? }))
        }
        VLAN => VLAN_FIELDS.get(place).copied(),
        id => {
            let (_, header) = HEADERS.iter().find(|(known, _)| *known == id)?;
            fields_of(*header).get(place.checked_sub(1)?).copied()
        }
    }
}
