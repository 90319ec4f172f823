//! Checks of a rule by itself.

use flannel_netlink::Errno;

use crate::bytecode::context::Context;
use crate::bytecode::linearize::linearize;
use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::expression::Term;
use crate::model::family::Family;
use crate::model::field::meta;
use crate::model::header::{ip, ip6};
use crate::model::matching::{Match, Source, Test};
use crate::model::rule::Rule;
use crate::model::statement::{IpRange, Limit, Nat, Statement};
use crate::model::validate::Invalid;
use crate::model::value::Value;
use crate::model::verdict::Verdict;

/// Maximum number of expressions in a rule (`NFT_RULE_MAXEXPRS`).
const MAX_EXPRESSIONS: usize = 128;
/// No statement is more than this many expressions.
const MAX_PER_STATEMENT: usize = 8;

/// Checks the statements of a rule.
pub(crate) fn check(rule: &Rule, family: Family) -> Result<(), Invalid> {
    if let Some(invalid) = &rule.invalid {
        return Err(((**invalid).clone(), None));
    }
    if rule.statements.is_empty() {
        return Err((InvalidRule::EmptyRule, None));
    }
    let mut ended = false;
    for (index, statement) in rule.statements.iter().enumerate() {
        if ended && !matches!(statement, Statement::Other(_)) {
            return Err((InvalidRule::Unreachable, None));
        }
        let before = rule.statements.get(..index).unwrap_or_default();
        check_statement(statement, || have_ports(before, family))?;
        ended |= matches!(
            statement,
            Statement::Verdict(Verdict::Accept | Verdict::Drop | Verdict::Return | Verdict::Goto(_))
                | Statement::Reject(_)
        );
    }
    if rule.statements.len() > MAX_EXPRESSIONS / MAX_PER_STATEMENT {
        let mut expressions = 0;
        let _reported_when_encoded = linearize(rule, family, 0, |_| expressions += 1);
        if expressions > MAX_EXPRESSIONS {
            return Err((InvalidRule::TooLong { expressions, limit: MAX_EXPRESSIONS }, Some(Errno::EINVAL)));
        }
    }
    Ok(())
}

/// Whether the packets that pass these statements have ports.
fn have_ports(statements: &[Statement], family: Family) -> bool {
    let mut context = Context::new(family);
    statements.iter().any(|statement| {
        let _reported_when_encoded = context.follow(statement);
        context.transport.is_some() || may_have_ports(statement)
    })
}

/// Whether a statement may leave packets of several protocols with ports, for which nft accepts a
/// port for NAT too.
fn may_have_ports(statement: &Statement) -> bool {
    let is_protocol = |term: &Term| matches!(term, Term::Field(meta::L4PROTO | ip::PROTOCOL | ip6::NEXTHDR));
    match statement {
        Statement::Match(Match { left, inverted, .. }) => is_protocol(left) && !inverted,
        Statement::Vmap { key, .. } => is_protocol(key),
        Statement::Other(_) => true,
        _ => false,
    }
}

fn check_statement(statement: &Statement, has_ports: impl FnOnce() -> bool) -> Result<(), Invalid> {
    match statement {
        Statement::Vmap { source: Source::Inline(inline), .. } if inline.set.is_empty() => {
            Err((InvalidRule::NothingToMatch, None))
        }
        Statement::Match(Match { left, test: Test::Masked { mask, value }, .. }) => {
            let outside =
                value.as_slice().iter().zip(mask.as_slice()).any(|(value, mask)| value & !mask != 0);
            if !outside {
                return Ok(());
            }
            let text = |data: &Data| Value::new(left.datatype(), data.clone()).to_string();
            Err((InvalidRule::OutsideMask { value: text(value), mask: text(mask) }, None))
        }
        Statement::Log(log) if log.level.is_some() && log.group.is_some() => {
            Err((InvalidRule::LevelAndGroup, Some(Errno::EINVAL)))
        }
        Statement::Limit(limit) => check_limit(limit),
        Statement::Masquerade(nat) | Statement::Redirect(nat) => check_nat(None, nat, has_ports),
        Statement::Snat { address, nat } | Statement::Dnat { address, nat } => {
            check_nat(address.as_ref(), nat, has_ports)
        }
        _ => Ok(()),
    }
}

fn check_nat(address: Option<&IpRange>, nat: &Nat, has_ports: impl FnOnce() -> bool) -> Result<(), Invalid> {
    if let Some(IpRange { first, last }) = address
        && first > last
    {
        let datatype = if first.len() == 4 { Datatype::Ipv4Addr } else { Datatype::Ipv6Addr };
        let text = |data: &Data| Value::new(datatype, data.clone());
        return Err((InvalidRule::EmptyRange { range: format!("{}-{}", text(first), text(last)) }, None));
    }
    let Some(ports) = &nat.ports else { return Ok(()) };
    if ports.is_empty() {
        return Err((InvalidRule::EmptyRange { range: format!("{}-{}", ports.start(), ports.end()) }, None));
    }
    if has_ports() { Ok(()) } else { Err((InvalidRule::PortWithoutProtocol, None)) }
}

/// Repeats the arithmetic of `nft_limit_init`, net/netfilter/nft_limit.c.
fn check_limit(limit: &Limit) -> Result<(), Invalid> {
    let invalid = |errno| Err((InvalidRule::Rate { rate: limit.rate, burst: limit.burst }, Some(errno)));
    if limit.rate == 0 {
        return invalid(Errno::EINVAL);
    }
    let burst = u64::from(limit.burst);
    let tokens = limit.per.checked_mul(1_000_000_000).and_then(|nanoseconds| {
        let most = limit.rate.checked_add(burst)?;
        if limit.bytes {
            nanoseconds.checked_mul(most)
        } else {
            (nanoseconds / limit.rate).checked_mul(burst)
        }
    });
    if tokens.is_none() { invalid(Errno::EOVERFLOW) } else { Ok(()) }
}
