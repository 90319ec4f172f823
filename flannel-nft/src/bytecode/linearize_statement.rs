//! The expressions of each statement that is neither a match nor a verdict. Reverse: `delinearize_statement.rs`.

use crate::bytecode::expr::{Expr, Nonzero, Zero, register};
use crate::bytecode::linearize::{Linearizer, linearize_verdict};
use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::expression::Term;
use crate::model::exthdr::Exthdr;
use crate::model::family::Family;
use crate::model::field::{Field, Kind};
use crate::model::header::{self, Header, Payload};
use crate::model::statement::{
    Computed, IpRange, Limit, Log, Nat, NatKind, Queue, QueueTo, Quota, SetUpdate, Statement, Target, Tproxy,
    Write,
};
use crate::uapi::*;

/// The statements that are neither matches nor verdict maps.
pub(crate) fn linearize<F: FnMut(Expr)>(
    l: &mut Linearizer<F>,
    statement: &Statement,
) -> Result<(), InvalidRule> {
    if let Some(expr) = stateful(statement) {
        (l.emit)(expr);
        return Ok(());
    }
    match statement {
        Statement::CounterRef(name) => {
            (l.emit)(Expr::Object { kind: NFT_OBJECT_COUNTER, name: name.as_str().into() });
        }
        Statement::Object { kind, name } => (l.emit)(Expr::Object { kind: *kind, name: name.clone() }),
        Statement::ObjectMap { key, source, .. } => {
            l.load(key, 0)?;
            let (set, id) = l.set(source)?;
            (l.emit)(Expr::ObjectMap { sreg: NFT_REG_1, set, id });
        }
        Statement::Set { field, value, write } => set(l, *field, value, *write)?,
        Statement::Log(log) => (l.emit)(linearize_log(log)),
        Statement::Masquerade(nat) => {
            inet_only(l, "masquerade")?;
            let (port_min, port_max) = ports(l, nat, 0);
            (l.emit)(Expr::Masquerade { flags: flags(nat, port_min), port_min, port_max });
        }
        Statement::Redirect(nat) => {
            inet_only(l, "redirect")?;
            let (port_min, port_max) = ports(l, nat, 0);
            (l.emit)(Expr::Redirect { flags: flags(nat, port_min), port_min, port_max });
        }
        Statement::Snat { address, nat } => constant_nat(l, NFT_NAT_SNAT, address.as_ref(), nat)?,
        Statement::Dnat { address, nat } => constant_nat(l, NFT_NAT_DNAT, address.as_ref(), nat)?,
        Statement::Nat { kind, computed } => computed_nat(l, *kind, computed)?,
        Statement::Notrack => (l.emit)(Expr::Notrack),
        Statement::Other(expr) => (l.emit)(expr.clone()),
        Statement::Reject(kind) => l.reject(*kind)?,
        Statement::Verdict(verdict) => (l.emit)(linearize_verdict(verdict)),
        Statement::Dup { address, device } => {
            let address = load_next(l, address.as_ref(), 0)?;
            let device = load_next(l, device.as_ref(), if address.is_some() { 4 } else { 0 })?;
            (l.emit)(Expr::Dup { address, device });
        }
        Statement::Fwd { device, address } => {
            l.load(device, 0)?;
            let register = load_next(l, address.as_ref().map(|(_, address)| address), 4)?;
            let family = Nonzero(address.as_ref().map_or(0, |(family, _)| *family));
            (l.emit)(Expr::Fwd { device: NFT_REG_1, address: register, family });
        }
        Statement::FlowAdd(table) => (l.emit)(Expr::FlowOffload { table: table.clone() }),
        Statement::Queue(queue) => linearize_queue(l, queue)?,
        Statement::ResetOption(field) => {
            if let Kind::Exthdr(Exthdr { op, kind, .. }) = field.0 {
                (l.emit)(Expr::ExthdrReset { kind, offset: Nonzero(0), length: Nonzero(0), op, flags: Zero });
            }
        }
        Statement::Synproxy(proxy) => {
            let (mss, wscale, flags) = (proxy.mss, proxy.wscale, proxy.flags);
            (l.emit)(Expr::Synproxy { mss, wscale, flags });
        }
        Statement::Tproxy(Tproxy { family, address, port }) => {
            let address = load_next(l, address.as_ref(), 0)?;
            let port = load_next(l, port.as_ref(), if address.is_some() { 4 } else { 0 })?;
            (l.emit)(Expr::Tproxy { family: *family, address, port });
        }
        Statement::Update(update) => linearize_update(l, update)?,
        _ => {}
    }
    Ok(())
}

/// The expression of a statement that elements of sets can have, too.
pub(crate) fn stateful(statement: &Statement) -> Option<Expr> {
    Some(match statement {
        Statement::Connlimit { count, over } => {
            Expr::Connlimit { count: *count, flags: Nonzero(if *over { NFT_CONNLIMIT_F_INV } else { 0 }) }
        }
        Statement::Counter { packets, bytes } => Expr::Counter { packets: *packets, bytes: *bytes },
        Statement::Last(milliseconds) => {
            Expr::Last { set: Nonzero(u32::from(milliseconds.is_some())), milliseconds: *milliseconds }
        }
        Statement::Limit(limit) => linearize_limit(limit),
        Statement::Quota(Quota { bytes, used, over }) => {
            let flags = if *over { NFT_QUOTA_F_INV } else { 0 };
            Expr::Quota { bytes: *bytes, flags, consumed: *used }
        }
        _ => return None,
    })
}

fn load_next<F: FnMut(Expr)>(
    l: &mut Linearizer<F>,
    term: Option<&Term>,
    word: u32,
) -> Result<Option<u32>, InvalidRule> {
    term.map(|term| l.load(term, word).map(|()| register(word))).transpose()
}

fn set<F: FnMut(Expr)>(
    l: &mut Linearizer<F>,
    field: Field,
    value: &Term,
    write: Option<Write>,
) -> Result<(), InvalidRule> {
    let sreg = NFT_REG_1;
    match field.0 {
        Kind::Meta(key) => {
            l.load(value, 0)?;
            (l.emit)(Expr::MetaSet { key, sreg });
        }
        Kind::Ct { key, direction } => {
            l.load(value, 0)?;
            (l.emit)(Expr::CtSet { key, sreg, direction });
        }
        Kind::Exthdr(Exthdr { op, kind, offset, length, .. }) => {
            l.load(value, 0)?;
            let (offset, length) = (offset / 8, length / 8);
            if value.datatype().is_swapped() && !matches!(value, Term::Constant(_)) {
                let op = NFT_BYTEORDER_HTON;
                (l.emit)(Expr::Byteorder { sreg, dreg: sreg, op, length, size: length });
            }
            (l.emit)(Expr::ExthdrWrite { sreg, kind, offset, length, op, flags: Zero });
        }
        Kind::Payload(_) | Kind::Raw { .. } => {
            write_payload(l, field, value, write.unwrap_or_else(|| usual_write(field)))?;
        }
        _ => return Err(InvalidRule::NothingToMatch),
    }
    Ok(())
}

/// The type of a header's checksum and its offset in bytes.
fn checksum(header: Header) -> Option<(u32, u32)> {
    let field = match header {
        Header::Sctp => header::sctp::CHECKSUM,
        Header::Ip => header::ip::CHECKSUM,
        Header::Icmp => header::icmp::CHECKSUM,
        Header::Icmpv6 => header::icmpv6::CHECKSUM,
        Header::Igmp => header::igmp::CHECKSUM,
        Header::Tcp => header::tcp::CHECKSUM,
        Header::Udp => header::udp::CHECKSUM,
        Header::Udplite => header::udplite::CHECKSUM,
        _ => return None,
    };
    let kind = if header == Header::Sctp { NFT_PAYLOAD_CSUM_SCTP } else { NFT_PAYLOAD_CSUM_INET };
    Some((kind, field.offset() / 8))
}

/// Whether the checksums of transport headers cover the field.
fn is_in_pseudo_header(field: Field) -> bool {
    [
        header::ip::SADDR,
        header::ip::DADDR,
        header::ip::PROTOCOL,
        header::ip::LENGTH,
        header::ip6::SADDR,
        header::ip6::DADDR,
        header::ip6::NEXTHDR,
        header::ip6::LENGTH,
    ]
    .contains(&field)
}

/// How nft 1.0.6 writes a field. If it is not made of whole bytes, or if a checksum needs whole
/// 16-bit words, the bytes around it are read, changed and written.
pub(crate) fn usual_write(field: Field) -> Write {
    let header = if let Kind::Payload(payload) = field.0 { Some(payload.header) } else { None };
    let sum = header.and_then(checksum);
    let (offset, end) = (field.offset(), field.offset() + field.bits());
    let unit = if sum.is_some() { 16 } else { 8 };
    let first = offset / unit * unit;
    let length = (end - first).div_ceil(unit) * unit;
    let (checksum, checksum_offset) = sum.unwrap_or((NFT_PAYLOAD_CSUM_NONE, 0));
    let checksum_flags = if is_in_pseudo_header(field) { NFT_PAYLOAD_L4CSUM_PSEUDOHDR } else { 0 };
    Write { first, length, checksum, checksum_offset, checksum_flags }
}

fn write_payload<F: FnMut(Expr)>(
    l: &mut Linearizer<F>,
    field: Field,
    value: &Term,
    write: Write,
) -> Result<(), InvalidRule> {
    let base = match field.0 {
        Kind::Payload(Payload { header, .. }) => header.base(),
        Kind::Raw { base, .. } => base,
        _ => return Ok(()),
    };
    let Write { first, length, checksum, checksum_offset, checksum_flags } = write;
    let whole = (first, length) == (field.offset(), field.bits());
    let shift = (first + length).checked_sub(field.offset() + field.bits());
    match (value, shift) {
        (Term::Constant(value), Some(shift)) if !whole && length <= 128 => {
            let bytes = usize::try_from(length / 8).unwrap_or(0);
            let plain = Datatype::Integer { length: 0, host: false };
            let number = value.datatype.number_of(&value.data).unwrap_or(0);
            let ones = 1_u128.checked_shl(field.bits()).map_or(u128::MAX, |bit| bit - 1);
            (l.emit)(Expr::Payload { base, offset: first / 8, length: length / 8, dreg: NFT_REG_1 });
            l.mask(0, &plain.data_of(!(ones << shift), bytes), &plain.data_of(number << shift, bytes));
        }
        _ if !whole => return Err(InvalidRule::NothingToMatch),
        (value, _) => l.load(value, 0)?,
    }
    (l.emit)(Expr::PayloadWrite {
        sreg: NFT_REG_1,
        base,
        offset: first / 8,
        length: length / 8,
        checksum,
        checksum_offset,
        checksum_flags: Nonzero(checksum_flags),
    });
    Ok(())
}

fn inet_only<F>(l: &Linearizer<F>, word: &str) -> Result<(), InvalidRule>
where
    F: FnMut(Expr),
{
    match l.family {
        Family::Inet | Family::Ip | Family::Ip6 => Ok(()),
        _ => Err(l.wrong_family(word)),
    }
}

fn flags(nat: &Nat, port_min: Option<u32>) -> Nonzero {
    Nonzero(nat.flags | if port_min.is_some() { NF_NAT_RANGE_PROTO_SPECIFIED } else { 0 })
}

fn ports<F: FnMut(Expr)>(l: &mut Linearizer<F>, nat: &Nat, word: u32) -> (Option<u32>, Option<u32>) {
    let Some(ports) = &nat.ports else { return (None, None) };
    let mut load = |word, port: u16| {
        let dreg = register(word);
        (l.emit)(Expr::Immediate { dreg, data: Data::new(&port.to_be_bytes()) });
        dreg
    };
    let first = load(word, *ports.start());
    if ports.start() == ports.end() {
        return (Some(first), None);
    }
    (Some(first), Some(load(word + 4, *ports.end())))
}

fn constant_nat<F: FnMut(Expr)>(
    l: &mut Linearizer<F>,
    kind: u32,
    address: Option<&IpRange>,
    nat: &Nat,
) -> Result<(), InvalidRule> {
    let word = if kind == NFT_NAT_SNAT { "snat" } else { "dnat" };
    inet_only(l, word)?;
    let (mut address_min, mut address_max, mut free) = (None, None, 0);
    let mut family = l.family;
    if let Some(range) = address {
        let of_address = if range.is_v4() { Family::Ip } else { Family::Ip6 };
        if family == Family::Inet {
            family = of_address;
        } else if family != of_address {
            return Err(l.wrong_family(&format!("{word} {of_address}")));
        }
        (l.emit)(Expr::Immediate { dreg: NFT_REG_1, data: range.first.clone() });
        (address_min, free) = (Some(NFT_REG_1), 4);
        if range.first != range.last {
            (l.emit)(Expr::Immediate { dreg: NFT_REG_2, data: range.last.clone() });
            (address_max, free) = (Some(NFT_REG_2), 8);
        }
    }
    let (port_min, port_max) = ports(l, nat, free);
    let (family, flags) = (u32::from(family.number()), Nonzero(nat.flags));
    (l.emit)(Expr::Nat { kind, family, address_min, address_max, port_min, port_max, flags });
    Ok(())
}

fn computed_nat<F: FnMut(Expr)>(
    l: &mut Linearizer<F>,
    kind: NatKind,
    computed: &Computed,
) -> Result<(), InvalidRule> {
    inet_only(l, kind.name())?;
    let Computed { family, target, nat } = computed;
    let second = register(if *family == u32::from(NFPROTO_IPV6) { 4 } else { 1 });
    let (mut address_min, mut address_max) = (Some(NFT_REG_1), None);
    let (mut port_min, mut port_max) = (None, None);
    match target {
        Target::Address(term) => l.load(term, 0)?,
        Target::Addresses(term) => {
            l.load(term, 0)?;
            address_max = Some(second);
        }
        Target::Pair(term) => {
            l.load(term, 0)?;
            port_min = Some(second);
        }
        Target::Ranges(term) => {
            l.load(term, 0)?;
            [port_min, address_max, port_max] = range_registers(*family);
        }
        Target::PortOf(address, term) => {
            (l.emit)(Expr::Immediate { dreg: NFT_REG_1, data: address.clone() });
            l.load(term, 4)?;
            port_min = Some(NFT_REG_2);
        }
        Target::Port(term) => {
            l.load(term, 0)?;
            (address_min, port_min) = (None, Some(NFT_REG_1));
        }
    }
    let kind = match kind {
        NatKind::Masquerade => {
            (l.emit)(Expr::Masquerade { flags: flags(nat, port_min), port_min, port_max });
            return Ok(());
        }
        NatKind::Redirect => {
            (l.emit)(Expr::Redirect { flags: flags(nat, port_min), port_min, port_max });
            return Ok(());
        }
        NatKind::Dnat => NFT_NAT_DNAT,
        NatKind::Snat => NFT_NAT_SNAT,
    };
    let (family, flags) = (*family, Nonzero(nat.flags));
    (l.emit)(Expr::Nat { kind, family, address_min, address_max, port_min, port_max, flags });
    Ok(())
}

fn linearize_queue<F: FnMut(Expr)>(l: &mut Linearizer<F>, queue: &Queue) -> Result<(), InvalidRule> {
    let flags = Some(queue.flags);
    let (number, total, sreg) = match &queue.to {
        QueueTo::Numbers { first, count } => (Some(*first), Some(*count), None),
        QueueTo::Computed(term) => {
            l.load(term, 0)?;
            (None, None, Some(NFT_REG_1))
        }
    };
    (l.emit)(Expr::Queue { number, total, flags, sreg });
    Ok(())
}

/// The 32-bit word of the registers after a key: nft 1.0 starts a register, newer versions do so after a single field.
pub(crate) fn usual_word(key: &Term) -> u32 {
    if matches!(key, Term::Concat(_)) { key.words() } else { 4 }
}

/// Where a range of addresses and ports ends up that a map returns: the first port, the last address, the last port.
pub(crate) fn range_registers(family: u32) -> [Option<u32>; 3] {
    let words = if family == u32::from(NFPROTO_IPV6) { 4 } else { 1 };
    [words, words + 1, 2 * words + 1].map(|word| Some(register(word)))
}

fn linearize_update<F: FnMut(Expr)>(l: &mut Linearizer<F>, update: &SetUpdate) -> Result<(), InvalidRule> {
    l.load(&update.key, 0)?;
    let word = update.value_word.unwrap_or_else(|| usual_word(&update.key));
    let data = load_next(l, update.value.as_ref(), word)?;
    let exprs: Box<[Expr]> = update.statements.iter().filter_map(stateful).collect();
    let flags = Nonzero(update.flags | if exprs.len() > 1 { NFT_DYNSET_F_EXPR } else { 0 });
    let (set, id) = l.set(&update.set)?;
    let (op, timeout) = (update.op, update.timeout);
    (l.emit)(Expr::Dynset { set, id, op, key: NFT_REG_1, data, timeout, flags, exprs });
    Ok(())
}

pub(crate) fn linearize_limit(limit: &Limit) -> Expr {
    Expr::Limit {
        rate: limit.rate,
        unit: limit.per,
        burst: limit.burst,
        kind: if limit.bytes { NFT_LIMIT_PKT_BYTES } else { NFT_LIMIT_PKTS },
        flags: if limit.over { NFT_LIMIT_F_INV } else { 0 },
    }
}

fn linearize_log(log: &Log) -> Expr {
    Expr::Log {
        group: log.group,
        prefix: log.prefix.as_ref().map(|prefix| prefix.as_str().into()),
        snaplen: log.snaplen,
        threshold: log.threshold,
        level: log.level.or_else(|| log.group.is_none().then_some(NFT_LOGLEVEL_WARNING)),
        flags: log.flags,
    }
}
