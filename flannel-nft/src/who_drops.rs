//! Which chains drop the packets of a network, as far as their rules show.

use std::fmt::{self, Display, Formatter};

use ipnet::IpNet;

use crate::bytecode::expr::Expr;
use crate::model::chain::{Chain, Hook, Policy};
use crate::model::family::Family;
use crate::model::ids::TableId;
use crate::model::name::{ChainName, Comment};
use crate::model::rule::Rule;
use crate::model::ruleset::Ruleset;
use crate::model::selector::ip;
use crate::model::statement::Statement;
use crate::model::table::Table;
use crate::model::verdict::Verdict;
use crate::nft_compat::{is_marked, xt};
use crate::uapi::*;

/// Maximum depth of jumps, as in the kernel (`NFT_JUMP_STACK_SIZE`).
pub(crate) const MAX_JUMPS: u8 = 16;

/// A base chain that drops packets, and what in it does.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Dropped<'r> {
    /// The table.
    pub table: &'r Table,
    /// The base chain.
    pub base: &'r Chain,
    /// The chain that has the rule: the base chain, or one that it jumps to.
    pub chain: &'r Chain,
    /// The rule; `None` if the policy of the base chain drops the packets.
    pub rule: Option<&'r Rule>,
}

/// Finds the base chains at a hook that drop all packets from or to a network, and the rule that
/// does.
///
/// A packet passes a hook only if every base chain accepts it, so each of them is reported. Rules
/// with conditions other than a source or destination that contains the network are skipped: they
/// apply to some of its packets only. Chains of legacy iptables are not part of nftables.
///
/// ```
/// use flannel_nft::{Base, Chain, ChainName, Family, Hook, Rule, Ruleset, Table, TableName, dropped, ip};
///
/// let pods: ipnet::IpNet = "10.244.0.0/16".parse()?;
/// let block = Rule::new().when(ip::saddr("10.0.0.0/8".parse::<ipnet::IpNet>()?)).drop();
/// let chain = Chain::base(ChainName::new("forward")?, Base::filter_forward()).rule(block);
/// let ruleset = Ruleset::new().table(Table::new(Family::Ip, TableName::new("guard")?).chain(chain));
///
/// let found = dropped(&ruleset, Hook::Forward, pods);
/// assert_eq!(found[0].chain.name().as_str(), "forward");
/// assert_eq!(found[0].rule.map(ToString::to_string).as_deref(), Some("ip saddr 10.0.0.0/8 drop"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn dropped(ruleset: &Ruleset, hook: Hook, network: IpNet) -> Vec<Dropped<'_>> {
    let packet = Packet { within: Some(network), ..Packet::ANY };
    let mut found = Vec::new();
    for table in ruleset.tables.iter().filter(|table| sees(table, network)) {
        let at_hook = |chain: &&Chain| chain.base.as_ref().is_some_and(|base| base.hook == hook);
        for base in table.chains.iter().filter(at_hook) {
            match end(table, base, packet, MAX_JUMPS) {
                End::Dropped(chain, rule) => found.push(Dropped { table, base, chain, rule: Some(rule) }),
                End::Open if policy_drops(base) => {
                    found.push(Dropped { table, base, chain: base, rule: None });
                }
                _ => {}
            }
        }
    }
    found
}

/// A base chain that drops forwarded packets by default, whatever other tables accept.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ForwardDrop {
    /// Its table.
    pub table: TableId,
    /// The base chain.
    pub chain: ChainName,
    /// What drops the packets.
    pub cause: DropCause,
}

/// What drops packets in a base chain.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DropCause {
    /// `policy drop`
    Policy,
    /// A rule without conditions, in this chain or one that it jumps to.
    Rule(ChainName),
}

impl Display for ForwardDrop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} {}", self.table, self.chain)?;
        match &self.cause {
            DropCause::Policy => write!(f, " has policy drop"),
            DropCause::Rule(chain) if *chain == self.chain => write!(f, " ends in a rule that drops"),
            DropCause::Rule(chain) => write!(f, " jumps to {chain}, which ends in a rule that drops"),
        }
    }
}

/// Finds the base chains on the forward hook that drop packets within one of `networks` by default;
/// without `networks`, any packets. The tables `ours` are skipped.
///
/// A chain is not reported if its rules accept the packets first: rules with the comment `mark`,
/// which [`accept_forwarded`](crate::iptables::accept_forwarded) adds, or its own rules for the networks (`ip saddr NETWORK accept`),
/// also behind jumps.
///
/// Chains of legacy iptables are not part of nftables and are not found.
#[must_use]
pub fn forward_drops(
    ruleset: &Ruleset,
    ours: &[TableId],
    mark: &Comment,
    networks: &[IpNet],
) -> Vec<ForwardDrop> {
    let mut found = Vec::new();
    let is_ours = |rule: &Rule| is_marked(rule, mark);
    let known = |within| Packet { is_ours: &is_ours, within };
    let layer3 = |table: &&Table| matches!(table.id.family, Family::Inet | Family::Ip | Family::Ip6);
    for table in
        ruleset.tables.iter().filter(layer3).filter(|table| !table.dormant && !ours.contains(&table.id))
    {
        let packets: Vec<_> = if networks.is_empty() {
            vec![known(None)]
        } else {
            networks.iter().filter(|net| sees(table, **net)).map(|net| known(Some(*net))).collect()
        };
        for chain in table.chains.iter().filter(|chain| is_forward(chain)) {
            let cause = packets.iter().find_map(|packet| match end(table, chain, *packet, MAX_JUMPS) {
                End::Dropped(chain, _) => Some(DropCause::Rule(chain.name.clone())),
                End::Open if policy_drops(chain) => Some(DropCause::Policy),
                _ => None,
            });
            let (table, chain) = (&table.id, &chain.name);
            found.extend(cause.map(|cause| ForwardDrop {
                table: table.clone(),
                chain: chain.clone(),
                cause,
            }));
        }
    }
    found
}

/// Whether packets of the network pass the chains of the table.
fn sees(table: &Table, network: IpNet) -> bool {
    let family = match table.id.family {
        Family::Inet => true,
        Family::Ip => network.addr().is_ipv4(),
        Family::Ip6 => network.addr().is_ipv6(),
        _ => false,
    };
    family && !table.dormant
}

pub(crate) fn policy_drops(chain: &Chain) -> bool {
    chain.base.as_ref().is_some_and(|base| base.policy == Policy::Drop)
}

/// What is known about a packet.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'p> {
    /// These rules accept the packet.
    pub(crate) is_ours: &'p dyn Fn(&Rule) -> bool,
    /// Source and destination are in this network.
    pub(crate) within: Option<IpNet>,
}

impl Packet<'_> {
    /// A packet of which nothing is known.
    pub(crate) const ANY: Self = Packet { is_ours: &|_: &Rule| false, within: None };

    /// Whether the statement is a condition that may be false for the packet.
    fn may_fail(self, statement: &Statement) -> bool {
        let Statement::Match(condition) = statement else { return is_condition(statement) };
        let mut larger = std::iter::successors(self.within, IpNet::supernet);
        !larger.any(|net| *condition == ip::saddr(net) || *condition == ip::daddr(net))
    }
}

/// What happens to a packet in a chain if no condition is known to be true.
pub(crate) enum End<'t> {
    /// A rule accepts it.
    Accepted,
    /// This rule of this chain drops it.
    Dropped(&'t Chain, &'t Rule),
    /// A rule returns it to the calling chain, or to the policy.
    Left,
    /// It reaches the end of the chain.
    Open,
}

pub(crate) fn end<'t>(table: &'t Table, chain: &'t Chain, packet: Packet<'_>, jumps: u8) -> End<'t> {
    for rule in &chain.rules {
        if (packet.is_ours)(rule) {
            return End::Accepted;
        }
        match step(table, chain, rule, packet, jumps) {
            // A packet that returns from a jump continues with the next rule.
            End::Open => {}
            // Return in a base chain: the policy applies.
            End::Left if chain.base.is_some() => return End::Open,
            decided => return decided,
        }
    }
    End::Open
}

/// Index of the first rule that ends the chain for every packet; the number of rules if there is
/// none.
pub(crate) fn end_index(table: &Table, chain: &Chain) -> usize {
    let decides = |rule: &Rule| !matches!(step(table, chain, rule, Packet::ANY, MAX_JUMPS), End::Open);
    chain.rules.iter().position(decides).unwrap_or(chain.rules.len())
}

/// What a rule does to a packet if no condition is known to be true; [`End::Open`] if nothing.
fn step<'t>(table: &'t Table, at: &'t Chain, rule: &'t Rule, packet: Packet<'_>, jumps: u8) -> End<'t> {
    let enter = |name: &ChainName, is_goto: bool| {
        let implicit = rule.implicit_chains().iter().find(|chain| chain.name == *name);
        let is_implicit = implicit.is_some();
        let target = implicit.or_else(|| table.chains.find(name.as_str()));
        match target.filter(|_| jumps > 0).map(|target| end(table, target, packet, jumps - 1)) {
            Some(End::Left | End::Open) if is_goto => End::Left,
            Some(End::Left) | None => End::Open,
            // An implicit chain is a part of the rule.
            Some(End::Dropped(..)) if is_implicit => End::Dropped(at, rule),
            Some(end) => end,
        }
    };
    // A rule with conditions does not apply to every packet.
    if rule.statements.iter().any(|statement| packet.may_fail(statement)) {
        return End::Open;
    }
    for statement in &rule.statements {
        match statement {
            Statement::Verdict(Verdict::Accept) => return End::Accepted,
            Statement::Verdict(Verdict::Drop) | Statement::Reject(_) => return End::Dropped(at, rule),
            Statement::Verdict(Verdict::Return) => return End::Left,
            Statement::Verdict(Verdict::Jump(chain)) => return enter(chain, false),
            Statement::Verdict(Verdict::Goto(chain)) => return enter(chain, true),
            Statement::Other(Expr::Other(other)) if &*other.name == "target" => {
                if matches!(xt(&other.data).map(|(name, _)| name), Some("REJECT" | "DROP")) {
                    return End::Dropped(at, rule);
                }
            }
            _ => {}
        }
    }
    End::Open
}

/// Whether a rule with this statement applies to some packets only.
fn is_condition(statement: &Statement) -> bool {
    match statement {
        Statement::Counter { .. }
        | Statement::CounterRef(_)
        | Statement::Dnat { .. }
        | Statement::Dup { .. }
        | Statement::Last(_)
        | Statement::Log(_)
        | Statement::Masquerade(_)
        | Statement::Nat { .. }
        | Statement::Notrack
        | Statement::Redirect(_)
        | Statement::Reject(_)
        | Statement::ResetOption(_)
        | Statement::Set { .. }
        | Statement::Snat { .. }
        | Statement::Verdict(_) => false,
        Statement::Object { kind, .. } => matches!(*kind, NFT_OBJECT_LIMIT | NFT_OBJECT_QUOTA),
        Statement::Other(Expr::Other(other)) => match &*other.name {
            "match" => xt(&other.data).is_none_or(|(name, _)| name != "comment"),
            "target" => false,
            // Unknown expressions may be conditions.
            _ => true,
        },
        // Lookups, limits and quotas, sets that may be full, ...
        _ => true,
    }
}

/// Whether this is a base chain on the forward hook.
pub(crate) fn is_forward(chain: &Chain) -> bool {
    chain.base.as_ref().is_some_and(|base| base.hook == Hook::Forward)
}
