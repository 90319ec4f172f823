//! From the kernel's expressions back to rules.

use crate::bytecode::context::Context;
use crate::bytecode::delinearize_statement;
use crate::bytecode::expr::{Expr, Nonzero};
use crate::bytecode::linearize::linearize;
use crate::bytecode::registers::{Registers, adjacent};
use crate::model::data::Data;
use crate::model::datatype::{Datatype, Format};
use crate::model::expression::Term;
use crate::model::exthdr::Exthdr;
use crate::model::family::Family;
use crate::model::field::Inner;
use crate::model::field::{Field, Kind};
use crate::model::header::{self, Payload};
use crate::model::matching::{Inline, Match, Source, Test};
use crate::model::name::SetName;
use crate::model::rule::Rule;
use crate::model::set::Set;
use crate::model::statement::{Reject, Statement};
use crate::model::verdict::Verdict;
use crate::uapi::*;

/// Fills `rule` with the statements that `exprs` encode. `find` returns the set of a lookup by name,
/// or by ID in a batch; it may know anonymous sets only.
///
/// An expression without a type here stays an expression. If linearizing the result does not return
/// exactly `exprs`, all of them stay expressions. So an observed rule can always be written back
/// unchanged.
pub(crate) fn delinearize<'s>(
    mut rule: Rule,
    exprs: Vec<Expr>,
    family: Family,
    find: impl Fn(&str, Option<u32>) -> Option<&'s Set>,
) -> Rule {
    let mut delinearizer = Delinearizer::new(family, find);
    let mut rest = exprs.as_slice();
    let mut pending = 0;
    while let Some((next, after)) = rest.split_first() {
        if delinearizer.registers_follow(next) {
            (rest, pending) = (after, pending + 1);
            continue;
        }
        let found = delinearizer.statement(rest).filter(|(statement, _)| has_syntax(statement));
        let used = match found {
            Some((statement, used)) => {
                delinearizer.push(statement);
                used
            }
            None => {
                // The loads that belong to an unknown expression stay expressions, too.
                let from = exprs.len() - rest.len() - pending;
                let unknown = exprs.get(from..=from + pending).unwrap_or_default();
                unknown.iter().for_each(|expr| delinearizer.push(Statement::Other(expr.clone())));
                1
            }
        };
        delinearizer.registers.clear();
        rest = rest.get(used..).unwrap_or_default();
        pending = 0;
    }
    let unused = exprs.get(exprs.len() - pending..).unwrap_or_default();
    unused.iter().for_each(|expr| delinearizer.push(Statement::Other(expr.clone())));
    rule.statements = delinearizer.statements;
    let (mut wanted, mut same) = (exprs.iter(), true);
    let linearized = linearize(&rule, family, 0, |expr| {
        same &= wanted.next().is_some_and(|wanted| equivalent(&expr, wanted));
    });
    if linearized.is_err() || !same || wanted.next().is_some() {
        rule.statements = exprs.into_iter().map(Statement::Other).collect();
    }
    rule
}

/// Whether nft can write the statement.
fn has_syntax(statement: &Statement) -> bool {
    let mut has_syntax = true;
    statement.each_term(&mut |term: &Term| {
        term.each_field(&mut |field| {
            has_syntax &= match field.0 {
                Kind::Exthdr(Exthdr { name, op, .. }) => name != "@" || op == NFT_EXTHDR_OP_TCPOPT,
                Kind::Inner { inner: Inner::Payload(Payload { name, .. }), .. } => name != "@",
                _ => true,
            };
        });
    });
    has_syntax
}

/// Equal except for the name and ID of an anonymous set.
fn equivalent(a: &Expr, b: &Expr) -> bool {
    fn is_anonymous(a: &str, b: &str) -> bool {
        a.starts_with("__") && b.starts_with("__")
    }
    match (a, b) {
        (
            Expr::Lookup { set, id: Some(_), sreg, dreg, inverted },
            Expr::Lookup { set: set_b, sreg: sreg_b, dreg: dreg_b, inverted: inverted_b, .. },
        ) => is_anonymous(set, set_b) && (sreg, dreg, inverted) == (sreg_b, dreg_b, inverted_b),
        (Expr::ObjectMap { set, id: Some(_), sreg }, Expr::ObjectMap { set: set_b, sreg: sreg_b, .. }) => {
            is_anonymous(set, set_b) && sreg == sreg_b
        }
        (
            Expr::Dynset { id: Some(_), set, op, key, data, timeout, flags, exprs },
            Expr::Dynset {
                set: set_b,
                op: op_b,
                key: key_b,
                data: data_b,
                timeout: timeout_b,
                flags: flags_b,
                exprs: exprs_b,
                ..
            },
        ) => {
            (set, op, key, data, timeout, flags, exprs)
                == (set_b, op_b, key_b, data_b, timeout_b, flags_b, exprs_b)
        }
        _ => a == b,
    }
}

pub(crate) struct Delinearizer<F> {
    pub(crate) family: Family,
    find: F,
    pub(crate) registers: Registers,
    statements: Vec<Statement>,
    /// What is known before each statement, and after the last.
    contexts: Vec<Context>,
}

impl<'s, F: Fn(&str, Option<u32>) -> Option<&'s Set>> Delinearizer<F> {
    fn new(family: Family, find: F) -> Self {
        let contexts = vec![Context::new(family)];
        Self { family, find, registers: Registers::default(), statements: Vec::new(), contexts }
    }

    pub(crate) fn context(&self) -> Context {
        self.contexts.last().copied().unwrap_or_else(|| Context::new(self.family))
    }

    /// Whether the expression only writes a register.
    fn registers_follow(&mut self, expr: &Expr) -> bool {
        let context = self.context();
        if let Expr::Lookup { set, id, sreg, dreg: Some(dreg), inverted: false } = expr
            && *dreg != NFT_REG_VERDICT
        {
            let Some(key) = self.registers.joined(*sreg, None) else { return false };
            let source = self.source(set, *id);
            let map = Term::Map { key: Box::new(key), source };
            let bytes = usize::try_from(map.datatype().length()).unwrap_or(0);
            return self.registers.replace(*sreg, *dreg, map, bytes).is_some();
        }
        self.registers.follow(expr, &context).is_some()
    }

    /// Adds a statement and removes the matches before it that it implies: `tcp dport 80` implies
    /// `meta l4proto tcp`.
    fn push(&mut self, statement: Statement) {
        let may_be_implied = matches!(
            self.statements.last(),
            Some(Statement::Match(Match { left: Term::Field(field), test: Test::Is(_), inverted: false, .. }))
                if Context::is_protocol(*field)
        );
        for count in (1..=3).rev().filter(|_| may_be_implied) {
            let Some(at) = self.statements.len().checked_sub(count) else { continue };
            let (Some(context), Some(before)) = (self.contexts.get(at), self.statements.get(at..)) else {
                continue;
            };
            let is_needed = |(needed, statement): (&Match, &Statement)| matches!(statement, Statement::Match(found) if found == needed);
            let implied = context
                .needed(&statement)
                .is_ok_and(|needed| needed.len() == count && needed.iter().zip(before).all(is_needed));
            if implied {
                self.statements.truncate(at);
                self.contexts.truncate(at + 1);
                break;
            }
        }
        let is_reject = matches!(statement, Statement::Reject(_));
        self.statements.push(statement);
        if is_reject {
            self.remove_start();
        }
        let mut context = self.context();
        if let Some(statement) = self.statements.last() {
            let _contradicts_itself = context.follow(statement);
        }
        self.contexts.push(context);
    }

    /// Removes the match at the start of the rule that a reject statement implies.
    fn remove_start(&mut self) {
        if let Some((Statement::Match(first), rest)) = self.statements.split_first()
            && let Ok(needed) = Context::new(self.family).needed_at_start(rest)
            && needed.as_slice() == std::slice::from_ref(first)
        {
            self.statements.remove(0);
            self.contexts.truncate(self.statements.len());
        }
    }

    /// The definition of a set.
    pub(crate) fn set(&self, name: &str, id: Option<u32>) -> Option<&'s Set> {
        (self.find)(name, id)
    }

    pub(crate) fn source(&self, set: &str, id: Option<u32>) -> Source {
        match (self.find)(set, id) {
            Some(set) if set.is_anonymous() => {
                let mut set = set.clone();
                if set.name.as_str().starts_with("__") {
                    set.name = set.maps.anonymous_name();
                }
                Source::Inline(Box::new(Inline { set }))
            }
            _ => Source::Named(SetName::observed(set.as_bytes())),
        }
    }

    /// The statement that the first expressions complete, and their number.
    fn statement(&self, exprs: &[Expr]) -> Option<(Statement, usize)> {
        let (first, rest) = exprs.split_first()?;
        Some(match first {
            Expr::Verdict { code, chain, id: None } => {
                (Statement::Verdict(Verdict::from_code(*code, chain.as_ref())?), 1)
            }
            Expr::Cmp { sreg, op: NFT_CMP_GTE, data: from } => match rest.first() {
                Some(Expr::Cmp { sreg: same, op: NFT_CMP_LTE, data: to }) if same == sreg => {
                    (self.range(*sreg, from, to, Test::Range)?, 2)
                }
                _ => (self.comparison(*sreg, NFT_CMP_GTE, from)?, 1),
            },
            Expr::Cmp { sreg, op, data } => (self.comparison(*sreg, *op, data)?, 1),
            Expr::Range { sreg, op: NFT_RANGE_EQ, from, to } => {
                (self.range(*sreg, from, to, Test::Within)?, 1)
            }
            Expr::Range { sreg, op: NFT_RANGE_NEQ, from, to } => {
                let Statement::Match(within) = self.range(*sreg, from, to, Test::Range)? else { return None };
                (Statement::Match(!within), 1)
            }
            Expr::Lookup { set, id, sreg, dreg, inverted } => {
                let key = self.registers.joined(*sreg, None)?;
                let source = self.source(set, *id);
                // In an anonymous set of intervals, linearizing converts the key itself.
                let is_interval = matches!(&source, Source::Inline(inline) if inline.set.is_interval());
                let key = match key {
                    Term::Swapped { of, .. } if dreg.is_none() && is_interval => *of,
                    key => key,
                };
                let statement = match dreg {
                    None => {
                        Statement::Match(Match { inverted: *inverted, ..Match::new(key, Test::In(source)) })
                    }
                    Some(_) => Statement::Vmap { key, source },
                };
                (statement, 1)
            }
            other => (delinearize_statement::statement(self, other)?, 1),
        })
    }

    fn range(
        &self,
        sreg: u32,
        from: &Data,
        to: &Data,
        test: impl Fn(Data, Data) -> Test,
    ) -> Option<Statement> {
        let slot = self.registers.at(sreg)?;
        Some(Statement::Match(Match::new(slot.term.clone(), test(slot.data(from), slot.data(to)))))
    }

    fn comparison(&self, sreg: u32, op: u32, data: &Data) -> Option<Statement> {
        let slot = self.registers.at(sreg)?;
        let data = &slot.data(data);
        let inverted = match op {
            NFT_CMP_EQ => false,
            NFT_CMP_NEQ => true,
            _ => {
                return Some(Statement::Match(Match::new(
                    slot.term.clone(),
                    Test::Compare(op, data.clone()),
                )));
            }
        };
        let (left, test, inverted) = match &slot.term {
            Term::Bitwise { of, mask, xor } if xor.is_zero() => {
                let datatype = of.datatype();
                let is_bits = matches!(datatype.format(), Some(Format::Bits(..) | Format::Labels));
                let is_address = of.field().is_some_and(Field::is_address);
                // A prefix of whole bytes is compared without a mask.
                let is_prefix = |bits: &u8| is_address && (*bits == 0 || !bits.is_multiple_of(8));
                match mask.prefix_length().filter(is_prefix) {
                    Some(bits) => (*of.clone(), Test::Prefix(data.clone(), bits), inverted),
                    None if is_bits && data.is_zero() => (*of.clone(), Test::AnyBit(mask.clone()), !inverted),
                    None => (*of.clone(), Test::Masked { mask: mask.clone(), value: data.clone() }, inverted),
                }
            }
            Term::Field(Field(Kind::Raw { base, offset, length })) => {
                if let Some(statement) = self.unnamed(*base, *offset, *length, data, inverted) {
                    return Some(statement);
                }
                (slot.term.clone(), Test::Is(data.clone()), inverted)
            }
            Term::Field(Field(Kind::Inner { tunnel, inner: Inner::Payload(payload) }))
                if payload.name == "@" =>
            {
                let field = address_at(payload.header, payload.offset, payload.length)?;
                (Term::Field(field.inside(*tunnel)), first_bytes(field, payload.length, data)?, inverted)
            }
            term => {
                let datatype = term.datatype();
                let is_address = matches!(datatype, Datatype::Ipv4Addr | Datatype::Ipv6Addr);
                let test = match std::str::from_utf8(data.as_slice()) {
                    _ if is_address && data.len() < datatype.lengths().0 => {
                        let mut address = data.as_slice().to_vec();
                        address.resize(datatype.lengths().0, 0);
                        Test::Prefix(Data::new(&address), u8::try_from(data.len() * 8).ok()?)
                    }
                    Ok(prefix) if datatype == Datatype::Ifname && data.len() < 16 => {
                        Test::NamePrefix(prefix.into())
                    }
                    _ => Test::Is(data.clone()),
                };
                (term.clone(), test, inverted)
            }
        };
        Some(Statement::Match(Match { inverted, ..Match::new(left, test) }))
    }

    /// The first bytes of an address, or several fields that are compared at once.
    fn unnamed(&self, base: u32, offset: u32, length: u32, data: &Data, inverted: bool) -> Option<Statement> {
        let header = self.context().header(base, offset)?;
        if let Some(field) = address_at(header, offset, length) {
            let test = first_bytes(field, length, data)?;
            return Some(Statement::Match(Match { inverted, ..Match::new(field, test) }));
        }
        let mut rest = data.as_slice();
        let mut fields = Vec::new();
        for field in adjacent(header, offset, offset + length).filter(|_| !inverted)? {
            let (value, others) = rest.split_at_checked(usize::try_from(field.bits() / 8).ok()?)?;
            fields.push((field, Data::new(value)));
            rest = others;
        }
        Some(Statement::Adjacent(fields))
    }

    pub(crate) fn reject(&self, kind: u32, code: u8) -> Option<Reject> {
        let named = [
            Reject::TcpReset,
            Reject::PortUnreachable,
            Reject::AdminProhibited,
            Reject::HostUnreachable,
            Reject::NoRoute,
        ];
        let found = named
            .into_iter()
            .find(|named| crate::bytecode::linearize::reject_code(*named, self.family) == Some((kind, code)));
        found.or_else(|| match (kind, self.context().network?) {
            (NFT_REJECT_ICMP_UNREACH, ETH_P_IP) => Some(Reject::Icmp(code)),
            (NFT_REJECT_ICMP_UNREACH, ETH_P_IPV6) => Some(Reject::Icmpv6(code)),
            _ => None,
        })
    }
}

/// The address that begins at this place, in bits, and is longer.
fn address_at(header: header::Header, offset: u32, length: u32) -> Option<Field> {
    header::fields_of(header).iter().copied().find(|field| {
        let is_address = matches!(field.datatype(), Datatype::EtherAddr) || field.is_address();
        is_address && field.offset() == offset && field.bits() > length
    })
}

/// The comparison of the first bits of an address.
fn first_bytes(field: Field, length: u32, data: &Data) -> Option<Test> {
    let mut address = data.as_slice().to_vec();
    address.resize(usize::try_from(field.bits() / 8).ok()?, 0);
    Some(Test::Prefix(Data::new(&address), u8::try_from(length).ok()?))
}

/// The NAT flags that have names; `None` if there are others.
pub(crate) fn nat_flags(flags: Nonzero) -> Option<u32> {
    let flags = flags.0 & !NF_NAT_RANGE_PROTO_SPECIFIED;
    (flags & !crate::bytecode::expr::NAT_CHOICES == 0).then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytecode::expr::OtherExpr;
    use crate::{meta, tcp};

    fn expressions(rule: &Rule) -> Vec<Expr> {
        let mut exprs = Vec::new();
        linearize(rule, Family::Ip, 0, |expr| exprs.push(expr)).unwrap();
        exprs
    }

    fn read(exprs: &[Expr]) -> Rule {
        delinearize(Rule::new(), exprs.to_vec(), Family::Ip, |_, _| None)
    }

    /// For each statement whether it is an expression without a type.
    fn untyped(exprs: &[Expr]) -> Vec<bool> {
        let rule = read(exprs);
        rule.statements.iter().map(|statement| matches!(statement, Statement::Other(_))).collect()
    }

    #[test]
    fn an_unknown_expression_keeps_the_loads_before_it_and_nothing_else_from_being_understood() {
        let newer = || Expr::Other(Box::new(OtherExpr { name: "newer".into(), data: Box::default() }));
        let load =
            |offset| Expr::Payload { base: NFT_PAYLOAD_NETWORK_HEADER, offset, length: 4, dreg: NFT_REG_1 };
        let compare = || Expr::Cmp { sreg: NFT_REG_1, op: NFT_CMP_EQ, data: Data::new(&[10, 0, 0, 1]) };
        let mark = || expressions(&Rule::new().when(meta::mark(1)));
        let accept = || expressions(&Rule::new().accept());
        for (middle, expected) in [
            (vec![], vec![]),
            (vec![newer()], vec![true]),
            (vec![newer(), newer()], vec![true, true]),
            (vec![load(12), newer()], vec![true, true]),
            (vec![load(12), load(16), newer()], vec![true, true, true]),
            (vec![load(12), newer(), compare()], vec![true, true, true]),
            (vec![newer(), load(12), compare()], vec![true, false]),
        ] {
            let exprs = [mark(), middle, accept()].concat();
            assert_eq!(untyped(&exprs), [vec![false], expected, vec![false]].concat(), "{exprs:?}");
            assert_eq!(expressions(&read(&exprs)), exprs, "written back unchanged");
        }
        assert_eq!(untyped(&[mark(), vec![load(12)]].concat()), [false, true], "a load that nothing uses");
    }

    #[test]
    fn a_rule_that_would_be_written_back_differently_stays_expressions() {
        // This crate and nft use the first register.
        let port = expressions(&Rule::new().when(tcp::dport(80)));
        assert_eq!(untyped(&port), [false]);
        let other_register = |expr: &Expr| match expr.clone() {
            Expr::Payload { base, offset, length, .. } => {
                Expr::Payload { base, offset, length, dreg: NFT_REG_2 }
            }
            Expr::Cmp { op, data, .. } => Expr::Cmp { sreg: NFT_REG_2, op, data },
            other => other,
        };
        let moved: Vec<Expr> = port.iter().map(other_register).collect();
        assert_ne!(moved, port);
        assert_eq!(untyped(&moved), vec![true; moved.len()]);
        assert_eq!(expressions(&read(&moved)), moved);
    }

    #[test]
    fn a_written_back_expression_may_name_another_anonymous_set_and_differ_in_nothing_else() {
        let lookup =
            |set: &str, id, sreg| Expr::Lookup { set: set.into(), id, sreg, dreg: None, inverted: false };
        let map = |set: &str, id, sreg| Expr::ObjectMap { set: set.into(), id, sreg };
        let update = |id, op| {
            let (key, flags, exprs) = (NFT_REG_1, Nonzero(0), Box::default());
            Expr::Dynset { set: "s".into(), id, op, key, data: None, timeout: None, flags, exprs }
        };
        let (one, two) = (NFT_REG_1, NFT_REG_2);
        for (written, read, expected) in [
            (lookup("__set%d", Some(1), one), lookup("__set0", None, one), true),
            (lookup("__set%d", Some(1), one), lookup("__set0", None, two), false),
            (lookup("__set%d", Some(1), one), lookup("named", None, one), false),
            (lookup("named", Some(1), one), lookup("__set0", None, one), false),
            (map("__map%d", Some(1), one), map("__map0", None, one), true),
            (map("__map%d", Some(1), one), map("__map0", None, two), false),
            (map("__map%d", Some(1), one), map("named", None, one), false),
            (update(Some(1), NFT_DYNSET_OP_ADD), update(None, NFT_DYNSET_OP_ADD), true),
            (update(Some(1), NFT_DYNSET_OP_ADD), update(None, NFT_DYNSET_OP_UPDATE), false),
        ] {
            assert_eq!(equivalent(&written, &read), expected, "{written:?} {read:?}");
        }
    }

    #[test]
    fn a_match_at_the_start_that_a_reject_implies_is_no_statement() {
        for (reject, implied) in [(Reject::Icmp(1), 3), (Reject::Icmpv6(1), 3), (Reject::PortUnreachable, 1)]
        {
            let mut rule = Rule::new().when(meta::mark(1));
            rule.statements.push(Statement::Reject(reject));
            let mut exprs = Vec::new();
            linearize(&rule, Family::Inet, 0, |expr| exprs.push(expr)).unwrap();
            assert_eq!(exprs.len(), 2 + implied, "{exprs:?}");
            let read = delinearize(Rule::new(), exprs, Family::Inet, |_, _| None);
            assert_eq!(read.statements, rule.statements);
        }
    }
}
