//! Rules, and the matches that nft does not print because later ones imply them.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use crate::bytecode::context::Context;
use crate::display::NftVersion;
use crate::display::statement::statement;
use crate::model::chain::Chain;
use crate::model::data::Data;
use crate::model::expression::Term;
use crate::model::family::Family;
use crate::model::field::Inner;
use crate::model::field::{Field, Kind, meta};
use crate::model::header::{self, Header};
use crate::model::matching::{Match, Test};
use crate::model::rule::Rule;
use crate::model::statement::{Reject, Statement, Target};
use crate::model::verdict::Verdict;
use crate::uapi::*;

impl Display for Rule {
    /// Prints the rule like `nft list` in a table of family `inet`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        rule(self, Family::Inet, f)
    }
}

/// On one line.
pub(crate) fn rule(rule: &Rule, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
    indented_rule(rule, family, None, f)
}

/// With the rules of implicit chains on lines of their own, if there is an `indent`.
pub(crate) fn indented_rule(
    rule: &Rule,
    family: Family,
    indent: Option<&str>,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let mut between = "";
    for part in shown(rule, family, NftVersion::of(f)) {
        f.write_str(between)?;
        indented_statement(rule, &part, family, indent, f)?;
        between = " ";
    }
    match &rule.comment {
        Some(comment) => write!(f, "{between}comment \"{comment}\""),
        None => Ok(()),
    }
}

/// What nft prints of a rule: its statements without the matches that later statements imply, and with matches that
/// nft prints although later statements imply them.
pub(crate) fn shown(rule: &Rule, family: Family, version: NftVersion) -> Vec<Cow<'_, Statement>> {
    let owned = |condition| Cow::Owned(Statement::Match(condition));
    let mut shown = Vec::new();
    let mut context = Context::new(family);
    if resets_unknown(rule, family) {
        shown.push(owned(Match::new(meta::L4PROTO, Test::Is(Data::new(&[IPPROTO_TCP])))));
    }
    let mut parts: Vec<Cow<'_, Statement>> = Vec::new();
    for part in &rule.statements {
        match part {
            Statement::Adjacent(fields) => {
                let matches = fields.iter().map(|(field, data)| Match::new(*field, Test::Is(data.clone())));
                parts.extend(matches.map(owned));
            }
            part => parts.push(Cow::Borrowed(part)),
        }
    }
    for (index, part) in parts.iter().enumerate() {
        let later = parts.get(index + 1..).unwrap_or_default();
        if let Statement::Match(condition) = &**part
            && is_implied(condition, later, family, version)
        {
            context.learn(condition);
            continue;
        }
        // nft 1.0 does not remove what the port of a redirect needs.
        if names_ports_only(part) && version == NftVersion::V1_0 {
            shown.extend(context.needed(part).unwrap_or_default().into_iter().map(owned));
        }
        let _contradicts_itself = context.follow(part);
        shown.push(part.clone());
    }
    shown
}

/// A statement; a jump to an implicit chain with the chain's rules.
pub(crate) fn indented_statement(
    rule: &Rule,
    part: &Statement,
    family: Family,
    indent: Option<&str>,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let target = if let Statement::Verdict(verdict) = part { verdict.chain() } else { None };
    match rule.implicit_chains().iter().find(|chain| Some(&chain.name) == target) {
        Some(chain) => {
            let verb = if matches!(part, Statement::Verdict(Verdict::Goto(_))) { "goto" } else { "jump" };
            write!(f, "{verb} {{")?;
            implicit_chain(chain, family, indent, f)
        }
        None => statement(part, family, f),
    }
}

/// Whether the statement translates or redirects to a port that an expression returns, and to no
/// address.
fn names_ports_only(statement: &Statement) -> bool {
    matches!(statement, Statement::Nat { computed, .. } if matches!(computed.target, Target::Port(_)))
}

fn implicit_chain(chain: &Chain, family: Family, indent: Option<&str>, f: &mut Formatter<'_>) -> fmt::Result {
    let inner = indent.map(|indent| format!("{indent}\t"));
    for rule in &chain.rules {
        match &inner {
            Some(inner) => write!(f, "\n{inner}")?,
            None => f.write_str(" ")?,
        }
        indented_rule(rule, family, inner.as_deref(), f)?;
        f.write_str(if inner.is_some() { "" } else { ";" })?;
    }
    match indent {
        Some(indent) => write!(f, "\n{indent}}}"),
        None => f.write_str(" }"),
    }
}

/// Whether the rule sends a TCP reset in a family in which nft prints the match of TCP, although the
/// rule implies it.
fn resets_unknown(rule: &Rule, family: Family) -> bool {
    let is_reset = |statement: &Statement| matches!(statement, Statement::Reject(Reject::TcpReset));
    !matches!(family, Family::Ip | Family::Ip6)
        && rule.statements.iter().any(is_reset)
        && Context::new(family).needed_at_start(&rule.statements).is_ok_and(|needed| !needed.is_empty())
}

/// Whether a match only says what a later statement needs: `meta l4proto tcp` before `tcp dport 80`.
fn is_implied(condition: &Match, later: &[Cow<'_, Statement>], family: Family, version: NftVersion) -> bool {
    let Match { left: Term::Field(field), test: Test::Is(data), inverted: false, .. } = condition else {
        return false;
    };
    let one_version = matches!(family, Family::Ip | Family::Ip6);
    let number = data.be_u16().map(u32::from);
    let network = match (*field, data.u8()) {
        (meta::NFPROTO, Some(NFPROTO_IPV4)) => Some(ETH_P_IP),
        (meta::NFPROTO, Some(NFPROTO_IPV6)) => Some(ETH_P_IPV6),
        (meta::PROTOCOL | header::ether::TYPE | header::vlan::TYPE, _) => number,
        _ => None,
    };
    let transport = match *field {
        meta::L4PROTO => data.u8(),
        header::ip::PROTOCOL | header::ip6::NEXTHDR if one_version => data.u8(),
        _ => None,
    };
    let message = matches!(*field, header::icmp::TYPE | header::icmpv6::TYPE);
    let ethernet = *field == meta::IIFTYPE && Context::new(family).learns_ethernet(condition);
    let inside = match field.0 {
        Kind::Inner { tunnel, inner: Inner::Meta(key) } => Some((tunnel, key)),
        Kind::Inner { tunnel, .. } if *field == header::ether::TYPE.inside(tunnel) => {
            Some((tunnel, NFT_META_PROTOCOL))
        }
        _ => None,
    };
    let implies = |used: Field| match used.0 {
        Kind::Inner { tunnel, inner: Inner::Payload(payload) } => match inside {
            Some((known, NFT_META_PROTOCOL)) => {
                let is_vlan = payload.header == Header::Vlan && number == Some(ETH_P_8021Q);
                known == tunnel && (is_vlan || payload.header.network() == number)
            }
            Some((known, _)) => known == tunnel && payload.header.transport() == data.u8(),
            None => transport.is_some() && tunnel.transport() == transport,
        },
        Kind::Payload(payload) => {
            let header = payload.header;
            let is_vlan =
                header == Header::Vlan && network == Some(ETH_P_8021Q) && *field == header::ether::TYPE;
            (transport.is_some() && header.transport() == transport)
                || (network.is_some() && header.network() == network)
                || (ethernet && header.base() == NFT_PAYLOAD_LL_HEADER)
                || is_vlan
                || (message && needs_message(used))
        }
        Kind::Exthdr(exthdr) => match exthdr.op {
            NFT_EXTHDR_OP_IPV6 => network == Some(ETH_P_IPV6),
            NFT_EXTHDR_OP_IPV4 => network == Some(ETH_P_IP),
            _ => false,
        },
        _ => false,
    };
    // A statement that is no match also runs for packets that the later statements do not match.
    let matches = later.iter().take_while(|later| matches!(***later, Statement::Match(_))).count();
    let reached = later.iter().take(matches + 1);
    let is_known = |later: &Statement| version == NftVersion::V1_1 || !names_ports_only(later);
    reached.map(|later| &**later).filter(|later| is_known(later)).any(|statement| {
        let mut found = match statement {
            Statement::Reject(Reject::Icmp(_)) => network == Some(ETH_P_IP),
            Statement::Reject(Reject::Icmpv6(_)) => network == Some(ETH_P_IPV6),
            Statement::Reject(Reject::TcpReset) => one_version && transport == Some(IPPROTO_TCP),
            // nft 1.0 prints `meta nfproto` before an address of the connection, newer versions before a concatenation.
            Statement::Match(Match { left: Term::Field(Field(Kind::Ct { key, .. })), .. })
                if version == NftVersion::V1_1 =>
            {
                match *key {
                    NFT_CT_SRC_IP | NFT_CT_DST_IP => network == Some(ETH_P_IP),
                    NFT_CT_SRC_IP6 | NFT_CT_DST_IP6 => network == Some(ETH_P_IPV6),
                    _ => false,
                }
            }
            _ => false,
        };
        // nft prints `ether type vlan` before one type, but not before a set of them.
        let is_type = matches!(
            statement,
            Statement::Match(Match { left: Term::Field(header::vlan::TYPE), test: Test::Is(_), .. })
        );
        if !is_type {
            statement.each_term(&mut |term: &Term| term.each_field(&mut |used| found |= implies(used)));
        }
        found
    })
}

/// Whether the field exists in messages of one type only.
fn needs_message(field: Field) -> bool {
    [
        header::icmp::MTU,
        header::icmp::GATEWAY,
        header::icmpv6::MTU,
        header::icmpv6::PARAMETER_PROBLEM,
        header::icmpv6::MAX_DELAY,
        header::icmpv6::DADDR,
    ]
    .contains(&field)
}
