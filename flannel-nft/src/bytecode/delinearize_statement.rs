//! The statements that are neither matches nor verdicts, from the expression that ends them. Reverse:
//! `linearize_statement.rs`.

use crate::bytecode::delinearize::{Delinearizer, nat_flags};
use crate::bytecode::expr::{Expr, Nonzero, register, word};
use crate::bytecode::linearize_statement::{range_registers, usual_word, usual_write};
use crate::bytecode::registers::{in_bits, run};
use crate::model::datatype::Datatype;
use crate::model::expression::Term;
use crate::model::exthdr;
use crate::model::field::{Field, Kind};
use crate::model::name::{CounterName, LogPrefix};
use crate::model::set::{Maps, Set};
use crate::model::statement::{
    Computed, IpRange, Limit, Log, Nat, NatKind, Queue, QueueTo, Quota, SetUpdate, Statement, Synproxy,
    Target, Tproxy, Write,
};
use crate::model::value::Value;
use crate::uapi::*;

/// The statement that this expression completes.
pub(crate) fn statement<'s, F>(d: &Delinearizer<F>, expr: &Expr) -> Option<Statement>
where
    F: Fn(&str, Option<u32>) -> Option<&'s Set>,
{
    if let Some(statement) = stateful(expr) {
        return Some(statement);
    }
    let typed = |register: u32, datatype: Datatype| -> Option<Term> {
        Some(with_type(d.registers.at(register)?.value()?, datatype))
    };
    // `Some(None)` without a register, `None` for a register without a value.
    let optional = |register: &Option<u32>, datatype: Datatype| match register {
        Some(register) => typed(*register, datatype).map(Some),
        None => Some(None),
    };
    Some(match expr {
        Expr::Object { kind: NFT_OBJECT_COUNTER, name } => {
            Statement::CounterRef(CounterName::observed(name.as_bytes()))
        }
        Expr::Object { kind, name } => Statement::Object { kind: *kind, name: name.clone() },
        Expr::ObjectMap { sreg, set, id } => {
            let (key, source) = (d.registers.joined(*sreg, None)?, d.source(set, *id));
            let kind = match d.set(set, *id).map(|set| set.maps) {
                Some(Maps::Object(kind)) => Some(kind),
                _ => None,
            };
            Statement::ObjectMap { kind, key, source }
        }
        Expr::Notrack => Statement::Notrack,
        Expr::Log { group, prefix, snaplen, threshold, level, flags } => {
            let prefix = prefix.as_ref().map(|prefix| LogPrefix::observed(prefix.as_bytes()));
            let level = level.filter(|level| *level != NFT_LOGLEVEL_WARNING);
            let (snaplen, threshold) = (*snaplen, *threshold);
            Statement::Log(Log { prefix, group: *group, level, snaplen, threshold, flags: *flags })
        }
        Expr::Reject { kind, code } => Statement::Reject(d.reject(*kind, (*code)?)?),
        Expr::MetaSet { key, sreg } => {
            set(Kind::Meta(*key), typed(*sreg, crate::model::field::meta(*key)?.datatype)?)
        }
        Expr::CtSet { key, sreg, direction } => {
            let datatype = crate::model::field::ct(*key)?.datatype;
            set(Kind::Ct { key: *key, direction: *direction }, typed(*sreg, datatype)?)
        }
        Expr::ExthdrWrite { sreg, kind, offset, length, op, .. } => {
            let (offset, length) = in_bits(*offset, *length)?;
            let field = exthdr::find(*op, *kind, offset, Some(length));
            let field = field.or_else(|| exthdr::unnamed(*op, *kind, offset, length))?;
            Statement::Set {
                field,
                value: with_type(d.registers.at(*sreg)?.term.clone(), field.datatype()),
                write: None,
            }
        }
        Expr::ExthdrReset { kind, op, .. } => Statement::ResetOption(exthdr::find(*op, *kind, 0, None)?),
        Expr::PayloadWrite { sreg, base, offset, length, checksum, checksum_offset, checksum_flags } => {
            let (first, length) = in_bits(*offset, *length)?;
            let (checksum, checksum_offset, checksum_flags) = (*checksum, *checksum_offset, checksum_flags.0);
            let write = Write { first, length, checksum, checksum_offset, checksum_flags };
            written(d, &d.registers.at(*sreg)?.term, *base, write)?
        }
        Expr::Masquerade { flags, port_min, port_max } => {
            with_ports(d, NatKind::Masquerade, *flags, *port_min, *port_max)?
        }
        Expr::Redirect { flags, port_min, port_max } => {
            with_ports(d, NatKind::Redirect, *flags, *port_min, *port_max)?
        }
        Expr::Nat { .. } => nat(d, expr)?,
        Expr::Dup { address, device } => {
            let datatype =
                if matches!(device, Some(NFT_REG_1)) { Datatype::Ifindex } else { address_type(d, *address) };
            Statement::Dup {
                address: optional(address, datatype)?,
                device: optional(device, Datatype::Ifindex)?,
            }
        }
        Expr::Fwd { device, address, family } => {
            let address_of = optional(address, address_type(d, *address))?;
            let address = address_of.map(|address| (family.0, address));
            Statement::Fwd { device: typed(*device, Datatype::Ifindex)?, address }
        }
        Expr::FlowOffload { table } => Statement::FlowAdd(table.clone()),
        Expr::Queue { number, total, flags, sreg } => {
            let to = match (number, sreg) {
                (Some(first), None) => QueueTo::Numbers { first: *first, count: total.unwrap_or(1) },
                (None, Some(sreg)) => QueueTo::Computed(d.registers.at(*sreg)?.term.clone()),
                _ => return None,
            };
            Statement::Queue(Queue { to, flags: flags.unwrap_or(0) })
        }
        Expr::Synproxy { mss, wscale, flags } => {
            Statement::Synproxy(Synproxy { mss: *mss, wscale: *wscale, flags: *flags })
        }
        Expr::Tproxy { family, address, port } => {
            let address = optional(address, address_type(d, *address))?;
            Statement::Tproxy(Tproxy {
                family: *family,
                address,
                port: optional(port, Datatype::InetService)?,
            })
        }
        Expr::Dynset { set, op, key, data, timeout, flags, exprs, id } => {
            let value = match data {
                Some(data) => Some(d.registers.joined(*data, None)?),
                None => None,
            };
            let value = match d.set(set, *id).map(|set| set.maps) {
                Some(Maps::Value(datatype)) => value.map(|value| with_type(value, datatype)),
                _ => value,
            };
            let key = d.registers.joined(*key, *data)?;
            let word = data.and_then(word).and_then(|word| u32::try_from(word).ok());
            Statement::Update(Box::new(SetUpdate {
                op: *op,
                set: d.source(set, *id),
                value_word: word.filter(|word| *word != usual_word(&key)),
                key,
                value,
                timeout: *timeout,
                flags: flags.0 & !NFT_DYNSET_F_EXPR,
                statements: exprs.iter().map(stateful).collect::<Option<_>>()?,
            }))
        }
        _ => return None,
    })
}

/// A statement that elements of sets can have, too.
pub(crate) fn stateful(expr: &Expr) -> Option<Statement> {
    Some(match expr {
        Expr::Connlimit { count, flags } => {
            Statement::Connlimit { count: *count, over: flags.0 == NFT_CONNLIMIT_F_INV }
        }
        Expr::Counter { packets, bytes } => Statement::Counter { packets: *packets, bytes: *bytes },
        Expr::Last { set, milliseconds } => Statement::Last(milliseconds.filter(|_| set.0 != 0)),
        Expr::Limit { rate, unit, burst, kind, flags } => {
            let (bytes, over) = (*kind == NFT_LIMIT_PKT_BYTES, *flags == NFT_LIMIT_F_INV);
            Statement::Limit(Limit { rate: *rate, per: *unit, burst: *burst, bytes, over })
        }
        Expr::Quota { bytes, flags, consumed } => {
            let over = *flags & NFT_QUOTA_F_INV != 0;
            Statement::Quota(Quota { bytes: *bytes, used: *consumed, over })
        }
        _ => return None,
    })
}

fn set(kind: Kind, value: Term) -> Statement {
    Statement::Set { field: Field(kind), value, write: None }
}

/// Constants come without a type; the statement that uses them knows it.
fn with_type(term: Term, datatype: Datatype) -> Term {
    match term {
        Term::Constant(value) if u32::try_from(value.data.len()) == Ok(datatype.length()) => {
            Term::Constant(Value::new(datatype, value.data))
        }
        Term::Concat(parts) if datatype.parts().len() == parts.len() => Term::Concat(
            parts.into_iter().zip(datatype.parts()).map(|(part, of)| with_type(part, of)).collect(),
        ),
        other => other,
    }
}

/// The type of a constant address, by its length.
fn address_type<'s, F>(d: &Delinearizer<F>, register: Option<u32>) -> Datatype
where
    F: Fn(&str, Option<u32>) -> Option<&'s Set>,
{
    match register.and_then(|register| d.registers.at(register)).map(|slot| &slot.term) {
        Some(Term::Constant(value)) if value.data.len() == 16 => Datatype::Ipv6Addr,
        _ => Datatype::Ipv4Addr,
    }
}

/// A written payload: the field, or the field whose bits an expression changes.
fn written<'s, F>(d: &Delinearizer<F>, value: &Term, base: u32, write: Write) -> Option<Statement>
where
    F: Fn(&str, Option<u32>) -> Option<&'s Set>,
{
    let context = d.context();
    let Write { first, length, .. } = write;
    let statement = |field: Field, value| {
        let write = (write != usual_write(field)).then_some(write);
        Some(Statement::Set { field, value, write })
    };
    let plain = Datatype::Integer { length: 0, host: false };
    if let Term::Bitwise { of, mask, xor } = value
        && of.field().is_some_and(|field| field.offset() == first && field.bits() == length)
        && let Some((start, bits)) = run(&mask.inverted())
        && let Some(field) = context.field_at(base, first + start, bits)
    {
        let number = plain.number_of(xor)? >> (length - start - bits);
        let datatype = field.datatype();
        let data = datatype.data_of(number, datatype.lengths().0);
        return statement(field, Term::Constant(Value::new(datatype, data)));
    }
    let field = context.field_at(base, first, length);
    let field = field.unwrap_or(Field(Kind::Raw { base, offset: first, length }));
    statement(field, with_type(value.clone(), field.datatype()))
}

fn with_ports<'s, F>(
    d: &Delinearizer<F>,
    kind: NatKind,
    flags: Nonzero,
    port_min: Option<u32>,
    port_max: Option<u32>,
) -> Option<Statement>
where
    F: Fn(&str, Option<u32>) -> Option<&'s Set>,
{
    let flags = nat_flags(flags)?;
    let port = match port_min {
        Some(port) => Some(&d.registers.at(port)?.term),
        None => None,
    };
    let ports = match port {
        Some(Term::Constant(first)) => Some(constant_ports(d, first, port_max)?),
        Some(term) => {
            let nat = Nat { flags, ports: None };
            let computed = Computed { family: 0, target: Target::Port(term.clone()), nat };
            return Some(Statement::Nat { kind, computed: Box::new(computed) });
        }
        None => None,
    };
    let nat = Nat { flags, ports };
    Some(if kind == NatKind::Redirect { Statement::Redirect(nat) } else { Statement::Masquerade(nat) })
}

fn constant_ports<'s, F>(
    d: &Delinearizer<F>,
    first: &Value,
    last: Option<u32>,
) -> Option<std::ops::RangeInclusive<u16>>
where
    F: Fn(&str, Option<u32>) -> Option<&'s Set>,
{
    let first = first.data.be_u16()?;
    let last = match last {
        Some(last) => match &d.registers.at(last)?.term {
            Term::Constant(last) => last.data.be_u16()?,
            _ => return None,
        },
        None => first,
    };
    Some(first..=last)
}

fn nat<'s, F>(d: &Delinearizer<F>, expr: &Expr) -> Option<Statement>
where
    F: Fn(&str, Option<u32>) -> Option<&'s Set>,
{
    let Expr::Nat { kind, family, address_min, address_max, port_min, port_max, flags } = expr else {
        return None;
    };
    let flags = nat_flags(*flags)?;
    let kind = if *kind == NFT_NAT_SNAT { NatKind::Snat } else { NatKind::Dnat };
    let second = Some(register(if *family == u32::from(NFPROTO_IPV6) { 4 } else { 1 }));
    let address = match address_min {
        Some(register) => Some(&d.registers.at(*register)?.term),
        None => None,
    };
    let port = match port_min {
        Some(register) => d.registers.at(*register).map(|slot| &slot.term),
        None => None,
    };
    let computed = |target| {
        let computed = Computed { family: *family, target, nat: Nat { flags, ports: None } };
        Some(Statement::Nat { kind, computed: Box::new(computed) })
    };
    let address = match (address, port) {
        (Some(Term::Constant(first)), Some(Term::Constant(_)) | None) => {
            let last = match address_max {
                Some(register) => match &d.registers.at(*register)?.term {
                    Term::Constant(last) => last,
                    _ => return None,
                },
                None => first,
            };
            Some(IpRange { first: first.data.clone(), last: last.data.clone() })
        }
        (Some(Term::Constant(first)), Some(port)) => {
            return computed(Target::PortOf(first.data.clone(), port.clone()));
        }
        (Some(term), None) if [*port_min, *address_max, *port_max] == range_registers(*family) => {
            return computed(Target::Ranges(term.clone()));
        }
        (Some(term), None) if port_min.is_some() && *port_min == second => {
            return computed(Target::Pair(term.clone()));
        }
        (Some(term), None) if address_max.is_some() && *address_max == second => {
            return computed(Target::Addresses(term.clone()));
        }
        (Some(term), None) if port_min.is_none() && address_max.is_none() => {
            return computed(Target::Address(term.clone()));
        }
        (None, Some(Term::Constant(_))) => None,
        (None, Some(port)) => return computed(Target::Port(port.clone())),
        _ => return None,
    };
    let ports = match port {
        Some(Term::Constant(first)) => Some(constant_ports(d, first, *port_max)?),
        _ => None,
    };
    let nat = Nat { flags, ports };
    Some(match kind {
        NatKind::Snat => Statement::Snat { address, nat },
        _ => Statement::Dnat { address, nat },
    })
}
