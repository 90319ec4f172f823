//! From the kernel's expressions back to rules.

use crate::bytecode::expr::{Expr, NAT_CHOICES, offset};
use crate::bytecode::linearize::{fixes_protocol, linearize};
use crate::model::data::Data;
use crate::model::family::Family;
use crate::model::matching::{Field, Inline, IpVersion, Match, Source, Test};
use crate::model::name::{CounterName, LogPrefix, SetName};
use crate::model::protocol::Protocol;
use crate::model::rule::Rule;
use crate::model::set::Set;
use crate::model::statement::{IpRange, Limit, Log, Mark, Nat, Reject, Statement};
use crate::model::verdict::Verdict;
use crate::uapi::*;

/// Fills `rule` with the statements that `exprs` encode. `inline` returns the anonymous set of a
/// lookup.
///
/// An expression without a type here stays an expression. If linearizing the result does not return
/// exactly `exprs`, all of them stay expressions. So an observed rule can always be written back
/// unchanged.
pub(crate) fn delinearize<'s>(
    mut rule: Rule,
    exprs: Vec<Expr>,
    family: Family,
    inline: impl Fn(&str, Option<u32>) -> Option<&'s Set>,
) -> Rule {
    let mut delinearizer = Delinearizer { family, rest: &exprs, inline, statements: Vec::new() };
    while let Some((next, rest)) = delinearizer.rest.split_first() {
        let statement = delinearizer.statement().unwrap_or_else(|| {
            delinearizer.rest = rest;
            Statement::Other(next.clone())
        });
        delinearizer.push(statement);
    }
    rule.statements = delinearizer.statements;
    let mut again = Vec::with_capacity(exprs.len());
    let lowered = linearize(&rule, family, 0, |expr| again.push(expr));
    let same = again.len() == exprs.len() && again.iter().zip(&exprs).all(|(a, b)| equivalent(a, b));
    if lowered.is_err() || !same {
        rule.statements = exprs.into_iter().map(Statement::Other).collect();
    }
    rule
}

/// Equal except for the name and ID of an anonymous set.
fn equivalent(a: &Expr, b: &Expr) -> bool {
    match (a, b) {
        (
            Expr::Lookup { set, id: Some(_), sreg, dreg, inverted },
            Expr::Lookup { set: set_b, sreg: sreg_b, dreg: dreg_b, inverted: inverted_b, .. },
        ) => {
            set.starts_with("__")
                && set_b.starts_with("__")
                && (sreg, dreg, inverted) == (sreg_b, dreg_b, inverted_b)
        }
        _ => a == b,
    }
}

struct Delinearizer<'e, F> {
    family: Family,
    rest: &'e [Expr],
    inline: F,
    statements: Vec<Statement>,
}

impl<'e, 's, F: Fn(&str, Option<u32>) -> Option<&'s Set>> Delinearizer<'e, F> {
    /// Adds a statement and removes the match before it that it implies: `tcp dport 80` implies
    /// `meta l4proto tcp`.
    fn push(&mut self, statement: Statement) {
        let field = match &statement {
            Statement::Match(condition) => Some(condition.field),
            Statement::Vmap { field, .. } => Some(*field),
            Statement::ClampMss | Statement::Reject(Reject::TcpReset) => Some(Field::TcpFlags),
            _ => None,
        };
        let implied = match field {
            Some(Field::Saddr(ip) | Field::Daddr(ip)) => Some((Field::Nfproto, ip.number())),
            Some(Field::IpProtocol) => Some((Field::Nfproto, IpVersion::V4.number())),
            Some(Field::Sport(Some(protocol)) | Field::Dport(Some(protocol))) => {
                Some((Field::L4proto, protocol.number()))
            }
            Some(Field::TcpFlags) => Some((Field::L4proto, Protocol::TCP.number())),
            _ => None,
        };
        if let Some((field, number)) = implied {
            let is_implied = |statement: &Statement| {
                matches!(statement, Statement::Match(Match { field: f, test: Test::Is(data), inverted: false, .. })
                    if *f == field && data.u8() == Some(number))
            };
            // Only where linearizing puts it: for a reset at the start of the rule, otherwise
            // directly before the statement.
            let at = match statement {
                Statement::Reject(_) => 0,
                _ => self.statements.len().saturating_sub(1),
            };
            let settled = self.statements.get(at + 1..).is_some_and(|rest| rest.iter().any(fixes_protocol));
            if !settled && self.statements.get(at).is_some_and(is_implied) {
                self.statements.remove(at);
            }
        }
        self.statements.push(statement);
    }

    fn take(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn statement(&mut self) -> Option<Statement> {
        let (first, rest) = self.rest.split_first()?;
        let (statement, used) = match first {
            Expr::Counter { packets, bytes } => (Statement::Counter { packets: *packets, bytes: *bytes }, 1),
            Expr::Object { kind: NFT_OBJECT_COUNTER, name } => {
                (Statement::CounterRef(CounterName::observed(name.as_bytes())), 1)
            }
            Expr::Notrack => (Statement::Notrack, 1),
            Expr::Verdict { code, chain, id: None } => {
                (Statement::Verdict(Verdict::from_code(*code, chain.as_ref())?), 1)
            }
            Expr::Limit {
                rate,
                unit,
                burst,
                kind: kind @ (NFT_LIMIT_PKTS | NFT_LIMIT_PKT_BYTES),
                flags: flags @ (0 | NFT_LIMIT_F_INV),
            } => {
                let (bytes, over) = (*kind == NFT_LIMIT_PKT_BYTES, *flags == NFT_LIMIT_F_INV);
                (Statement::Limit(Limit { rate: *rate, per: *unit, burst: *burst, bytes, over }), 1)
            }
            Expr::Log { group, prefix, snaplen, threshold, level, flags } => {
                let prefix = prefix.as_ref().map(|prefix| LogPrefix::observed(prefix.as_bytes()));
                let level = level.filter(|level| *level != NFT_LOGLEVEL_WARNING);
                let (snaplen, threshold) = (*snaplen, *threshold);
                (Statement::Log(Log { prefix, group: *group, level, snaplen, threshold, flags: *flags }), 1)
            }
            Expr::Masquerade { port_min: None, flags, .. } => {
                (Statement::Masquerade(choice(*flags, None)?), 1)
            }
            Expr::Redirect { port_min: None, flags, .. } => (Statement::Redirect(choice(*flags, None)?), 1),
            Expr::Reject { kind, code } => (Statement::Reject(self.reject(*kind, *code)?), 1),
            Expr::Rt { key: NFT_RT_TCPMSS, dreg: NFT_REG_1 } => match rest {
                [Expr::Byteorder { .. }, Expr::ExthdrWrite { option: TCPOPT_MAXSEG, .. }, ..] => {
                    (Statement::ClampMss, 3)
                }
                _ => return None,
            },
            Expr::Immediate { dreg: NFT_REG_1, .. } => self.after_constants()?,
            Expr::MetaLoad { key: NFT_META_MARK, .. } | Expr::CtLoad { key: NFT_CT_MARK, .. } => {
                match self.mark() {
                    Some(found) => found,
                    None => self.condition()?,
                }
            }
            _ => self.condition()?,
        };
        self.take(used);
        Some(statement)
    }

    /// The statement after one to four immediate values.
    fn after_constants(&self) -> Option<(Statement, usize)> {
        let values: Vec<&Data> = self
            .rest
            .iter()
            .map_while(|expr| match expr {
                Expr::Immediate { data, .. } => Some(data),
                _ => None,
            })
            .collect();
        let value = |register: &Option<u32>| {
            register.map(|register| values.get(usize::try_from(register).ok()?.checked_sub(1)?).copied())
        };
        let port = |register: &Option<u32>| match value(register) {
            Some(data) => data.and_then(Data::be_u16).map(Some),
            None => Some(None),
        };
        let used = values.len() + 1;
        let statement = match self.rest.get(values.len())? {
            Expr::MetaSet { key: NFT_META_MARK, .. } => {
                Statement::MetaMark(Mark::To(values.first()?.host_u32()?))
            }
            Expr::CtSet { key: NFT_CT_MARK, .. } => Statement::CtMark(Mark::To(values.first()?.host_u32()?)),
            Expr::Masquerade { flags, port_min, port_max } => {
                Statement::Masquerade(choice(*flags, ports(port(port_min)?, port(port_max)?))?)
            }
            Expr::Redirect { flags, port_min, port_max } => {
                Statement::Redirect(choice(*flags, ports(port(port_min)?, port(port_max)?))?)
            }
            Expr::Nat { kind, address_min, address_max, port_min, port_max, flags, .. } => {
                let address = match (value(address_min), value(address_max)) {
                    (Some(first), last) => {
                        let first = first?.clone();
                        let last = last.map_or(Some(&first), |last| last)?.clone();
                        Some(IpRange { first, last })
                    }
                    (None, _) => None,
                };
                let nat = choice(*flags & !NF_NAT_RANGE_MAP_IPS, ports(port(port_min)?, port(port_max)?))?;
                if *kind == NFT_NAT_SNAT {
                    Statement::Snat { address, nat }
                } else {
                    Statement::Dnat { address, nat }
                }
            }
            _ => return None,
        };
        Some((statement, used))
    }

    /// A mark that is computed from a mark.
    fn mark(&self) -> Option<(Statement, usize)> {
        let from_packet = matches!(self.rest.first()?, Expr::MetaLoad { .. });
        let (mask, xor, used) = match self.rest.get(1)? {
            Expr::Bitwise { mask, xor, .. } => (mask.host_u32()?, xor.host_u32()?, 2),
            _ => (u32::MAX, 0, 1),
        };
        let to_packet = match self.rest.get(used)? {
            Expr::MetaSet { key: NFT_META_MARK, .. } => true,
            Expr::CtSet { key: NFT_CT_MARK, .. } => false,
            _ => return None,
        };
        let mark = if to_packet != from_packet {
            Mark::Copy { mask: (xor == 0).then_some(mask)? }
        } else if xor == 0 {
            Mark::Clear(!mask)
        } else if xor == !mask {
            Mark::Set(xor)
        } else {
            Mark::Replace { mask: !mask, value: xor }
        };
        Some((if to_packet { Statement::MetaMark(mark) } else { Statement::CtMark(mark) }, used + 1))
    }

    /// Adds the protocol to ports, if the rule matches one before.
    fn with_protocol(&self, field: Field) -> Field {
        let demanded = self.statements.iter().rev().find_map(|statement| match statement {
            Statement::Match(Match { field, test, inverted: false, .. }) => match (field, test) {
                (Field::L4proto | Field::IpProtocol, Test::Is(data)) => data.u8().map(Protocol::new),
                (Field::Sport(protocol) | Field::Dport(protocol), _) => *protocol,
                (Field::TcpFlags, _) => Some(Protocol::TCP),
                _ => None,
            },
            Statement::Vmap { field: Field::Sport(protocol) | Field::Dport(protocol), .. } => *protocol,
            _ => None,
        });
        let with_ports = demanded.filter(|protocol| {
            [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::DCCP, Protocol::UDPLITE]
                .contains(protocol)
        });
        match field {
            Field::Sport(None) => Field::Sport(with_ports),
            Field::Dport(None) => Field::Dport(with_ports),
            field => field,
        }
    }

    fn reject(&self, kind: u32, code: u8) -> Option<Reject> {
        Some(match (kind, self.family, code) {
            (NFT_REJECT_TCP_RST, _, _) => Reject::TcpReset,
            (NFT_REJECT_ICMPX_UNREACH, Family::Inet, NFT_REJECT_ICMPX_NO_ROUTE)
            | (NFT_REJECT_ICMP_UNREACH, Family::Ip, ICMP_NET_UNREACH)
            | (NFT_REJECT_ICMP_UNREACH, Family::Ip6, ICMPV6_NOROUTE) => Reject::NoRoute,
            (NFT_REJECT_ICMPX_UNREACH, Family::Inet, NFT_REJECT_ICMPX_HOST_UNREACH)
            | (NFT_REJECT_ICMP_UNREACH, Family::Ip, ICMP_HOST_UNREACH)
            | (NFT_REJECT_ICMP_UNREACH, Family::Ip6, ICMPV6_ADDR_UNREACH) => Reject::HostUnreachable,
            (NFT_REJECT_ICMPX_UNREACH, Family::Inet, NFT_REJECT_ICMPX_ADMIN_PROHIBITED)
            | (NFT_REJECT_ICMP_UNREACH, Family::Ip, ICMP_PKT_FILTERED)
            | (NFT_REJECT_ICMP_UNREACH, Family::Ip6, ICMPV6_ADM_PROHIBITED) => Reject::AdminProhibited,
            (NFT_REJECT_ICMPX_UNREACH, Family::Inet, NFT_REJECT_ICMPX_PORT_UNREACH)
            | (NFT_REJECT_ICMP_UNREACH, Family::Ip, ICMP_PORT_UNREACH)
            | (NFT_REJECT_ICMP_UNREACH, Family::Ip6, ICMPV6_PORT_UNREACH) => Reject::PortUnreachable,
            _ => return None,
        })
    }

    /// A match: load, optional mask, then comparison or lookup.
    fn condition(&self) -> Option<(Statement, usize)> {
        let (field, length) = load(self.rest.first()?)?;
        let field = self.with_protocol(field);
        let whole = usize::try_from(field.datatype().length()).ok()?;
        let matched = |test, inverted| Statement::Match(Match { inverted, ..Match::new(field, test) });
        let second = self.rest.get(1)?;
        if length.is_some_and(|length| length < whole) {
            let Expr::Cmp { op, data, .. } = second else { return None };
            let mut address = data.as_slice().to_vec();
            address.resize(whole, 0);
            let bits = u8::try_from(data.len() * 8).ok()?;
            return Some((matched(Test::Prefix(Data::new(&address), bits), inverted(*op)?), 2));
        }
        match second {
            Expr::Bitwise { mask, xor, .. } if xor.is_zero() => {
                let Expr::Cmp { op, data, .. } = self.rest.get(2)? else { return None };
                let inverted = inverted(*op)?;
                let bitmask = matches!(field, Field::CtState | Field::CtStatus | Field::TcpFlags);
                let test = match (field, mask.prefix_length()) {
                    (Field::Saddr(_) | Field::Daddr(_), Some(bits)) => Test::Prefix(data.clone(), bits),
                    _ if bitmask && data.is_zero() => {
                        return Some((matched(Test::AnyBit(mask.clone()), !inverted), 3));
                    }
                    _ => Test::Masked { mask: mask.clone(), value: data.clone() },
                };
                Some((matched(test, inverted), 3))
            }
            Expr::Cmp { op: NFT_CMP_GTE, data: first, .. } => match self.rest.get(2)? {
                Expr::Cmp { op: NFT_CMP_LTE, data: last, .. } => {
                    Some((matched(Test::Range(first.clone(), last.clone()), false), 3))
                }
                _ => None,
            },
            Expr::Cmp { op, data, .. } => {
                let test = match field {
                    Field::Iifname | Field::Oifname if data.len() < whole => {
                        Test::NamePrefix(std::str::from_utf8(data.as_slice()).ok()?.into())
                    }
                    _ => Test::Is(data.clone()),
                };
                Some((matched(test, inverted(*op)?), 2))
            }
            Expr::Range { op: op @ (NFT_RANGE_EQ | NFT_RANGE_NEQ), from, to, .. } => {
                Some((matched(Test::Range(from.clone(), to.clone()), *op == NFT_RANGE_NEQ), 2))
            }
            Expr::Lookup { set, id, dreg, inverted, .. } => {
                let source = match (self.inline)(set, *id) {
                    Some(set) => {
                        let mut set = set.clone();
                        set.name = set.maps.anonymous_name();
                        Source::Inline(Box::new(Inline { set }))
                    }
                    None => Source::Named(SetName::observed(set.as_bytes())),
                };
                match dreg {
                    None => Some((matched(Test::In(source), *inverted), 2)),
                    Some(NFT_REG_VERDICT) => Some((Statement::Vmap { field, source }, 2)),
                    Some(_) => None,
                }
            }
            _ => None,
        }
    }
}

fn inverted(op: u32) -> Option<bool> {
    match op {
        NFT_CMP_EQ => Some(false),
        NFT_CMP_NEQ => Some(true),
        _ => None,
    }
}

fn choice(flags: u32, ports: Option<std::ops::RangeInclusive<u16>>) -> Option<Nat> {
    let flags = flags & !NF_NAT_RANGE_PROTO_SPECIFIED;
    (flags & !NAT_CHOICES == 0).then_some(Nat { flags, ports })
}

fn ports(first: Option<u16>, last: Option<u16>) -> Option<std::ops::RangeInclusive<u16>> {
    first.map(|first| first..=last.unwrap_or(first))
}

/// The field that an expression loads and, for a packet field, the number of bytes.
fn load(expr: &Expr) -> Option<(Field, Option<usize>)> {
    let field = match expr {
        Expr::Payload { base, offset, length, dreg: NFT_REG_1 } => {
            let field = match (*base, *offset, *length) {
                (NFT_PAYLOAD_NETWORK_HEADER, offset::IPV4_PROTOCOL, 1) => Field::IpProtocol,
                (NFT_PAYLOAD_NETWORK_HEADER, offset::IPV4_SADDR, 1..=4) => Field::Saddr(IpVersion::V4),
                (NFT_PAYLOAD_NETWORK_HEADER, offset::IPV4_DADDR, 1..=4) => Field::Daddr(IpVersion::V4),
                (NFT_PAYLOAD_NETWORK_HEADER, offset::IPV6_SADDR, 1..=16) => Field::Saddr(IpVersion::V6),
                (NFT_PAYLOAD_NETWORK_HEADER, offset::IPV6_DADDR, 1..=16) => Field::Daddr(IpVersion::V6),
                (NFT_PAYLOAD_TRANSPORT_HEADER, offset::SPORT, 2) => Field::Sport(None),
                (NFT_PAYLOAD_TRANSPORT_HEADER, offset::DPORT, 2) => Field::Dport(None),
                (NFT_PAYLOAD_TRANSPORT_HEADER, offset::TCP_FLAGS, 1) => Field::TcpFlags,
                _ => return None,
            };
            return Some((field, usize::try_from(*length).ok()));
        }
        Expr::MetaLoad { key, dreg: NFT_REG_1 } => match *key {
            NFT_META_MARK => Field::Mark,
            NFT_META_IIF => Field::Iif,
            NFT_META_OIF => Field::Oif,
            NFT_META_IIFNAME => Field::Iifname,
            NFT_META_OIFNAME => Field::Oifname,
            NFT_META_NFPROTO => Field::Nfproto,
            NFT_META_L4PROTO => Field::L4proto,
            NFT_META_PKTTYPE => Field::PktType,
            _ => return None,
        },
        Expr::CtLoad { key, dreg: NFT_REG_1 } => match *key {
            NFT_CT_STATE => Field::CtState,
            NFT_CT_STATUS => Field::CtStatus,
            NFT_CT_DIRECTION => Field::CtDirection,
            NFT_CT_MARK => Field::CtMark,
            _ => return None,
        },
        Expr::Fib { result: NFT_FIB_RESULT_ADDRTYPE, flags: NFTA_FIB_F_SADDR, dreg: NFT_REG_1 } => {
            Field::FibSaddrType
        }
        Expr::Fib { result: NFT_FIB_RESULT_ADDRTYPE, flags: NFTA_FIB_F_DADDR, dreg: NFT_REG_1 } => {
            Field::FibDaddrType
        }
        _ => return None,
    };
    Some((field, None))
}
