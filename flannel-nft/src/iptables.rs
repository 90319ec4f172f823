//! Chains of other programs on the forward hook, and rules in them that iptables-nft can read.
//!
//! A packet passes a hook only if every base chain accepts it, so an accept in our table does not
//! help against a drop in another. Container engines and firewalls often drop all forwarded packets
//! that they do not know. [`forward_drops`] finds such chains. If iptables-nft made them,
//! [`accept_forwarded`] keeps rules in them that accept our packets, in a form that `iptables -S`
//! still reads. [`remove_leftovers`] removes the chains and rules of a program that is gone.
//!
//! All functions are pure: they add changes to a transaction, so that several of them take effect
//! at once. [`converge_with`](crate::converge_with) commits it.

use std::fmt::Formatter;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::bytecode::expr::Expr;
use crate::display::DisplayFn;
use crate::kernel::Observed;
use crate::model::chain::Chain;
use crate::model::family::Family;
use crate::model::ids::{Handle, TableId};
use crate::model::matching::{Match, Test};
use crate::model::name::{ChainName, Comment, TableName};
use crate::model::operand::Addresses;
use crate::model::rule::Rule;
use crate::model::selector::ip;
use crate::model::statement::Statement;
use crate::model::table::Table;
use crate::model::verdict::Verdict;
use crate::nft_compat::{by_iptables, is_marked, remark};
use crate::transaction::{Building, Transaction};
pub use crate::who_drops::{DropCause, ForwardDrop, forward_drops};
use crate::who_drops::{End, MAX_JUMPS, Packet, end, end_index, is_forward, policy_drops};

/// Keeps rules in iptables-nft's `filter` tables that accept packets from and to `networks`. If
/// `FORWARD` drops nothing by default, or without `networks`, it removes them.
///
/// The rules are in the first of `user_chains` that `FORWARD` jumps to (chains that another program
/// reserves for rules of the administrator), otherwise in `FORWARD`. They come directly before the
/// rule that ends the chain for all packets, so that more specific rules, such as network policies,
/// still apply. Their comment is `mark`.
///
/// Observe [`filter_tables`]. In one transaction with [`remove_leftovers`], call this first: the
/// position may be given by a rule that is removed.
///
/// # Kernel
/// `iptables-nft -A FORWARD -s NETWORK -m comment --comment MARK -j ACCEPT`, the same with `-d`
pub fn accept_forwarded(
    observed: &Observed,
    networks: &[IpNet],
    mark: &Comment,
    user_chains: &[&str],
    transaction: &mut Transaction<Building>,
) {
    for (family, v4) in [(Family::Ip, true), (Family::Ip6, false)] {
        let named = |table: &&Table| table.id.family == family && table.id.name.as_str() == "filter";
        let Some(table) = observed.ruleset.tables.iter().find(named) else { continue };
        let networks: Vec<IpNet> =
            networks.iter().filter(|net| net.addr().is_ipv4() == v4).copied().collect();
        let Some(forward) = chain(table, "FORWARD").filter(|chain| is_forward(chain)) else { continue };
        let drops = match end(table, forward, Packet::ANY, MAX_JUMPS) {
            End::Dropped(..) => true,
            End::Open => policy_drops(forward),
            End::Accepted | End::Left => false,
        };
        let is_entered =
            |user: &&Chain| forward.rules.iter().flat_map(targets).any(|name| name == user.name.as_str());
        let mut users = user_chains.iter().filter_map(|name| chain(table, name)).filter(is_entered);
        let place = users.next().unwrap_or(forward);
        let rules = if drops { accepting(&networks, mark) } else { Vec::new() };
        keep(table, place, &rules, mark, transaction);
    }
}

/// The accepting rules: from each network, and to it.
fn accepting(networks: &[IpNet], mark: &Comment) -> Vec<Rule> {
    let directions = |net: &IpNet| [ip::saddr(Addresses::from(*net)), ip::daddr(Addresses::from(*net))];
    let rule = |condition| Rule::new().when(condition).counter().accept().comment(mark.clone());
    networks.iter().flat_map(directions).map(rule).collect()
}

/// Makes `rules` the only marked rules of the table, all in `place`.
fn keep(
    table: &Table,
    place: &Chain,
    rules: &[Rule],
    mark: &Comment,
    transaction: &mut Transaction<Building>,
) {
    let is_marked = |rule: &&Rule| is_marked(rule, mark);
    let text = |rule: &Rule| {
        // After iptables-restore, the comment is a match of iptables.
        let mut rule = rule.without_state().comment(mark.clone());
        rule.statements.retain(|statement| by_iptables(statement).is_none());
        DisplayFn(|f: &mut Formatter<'_>| crate::display::rule(&rule, table.id.family, f)).to_string()
    };
    let limit = end_index(table, place);
    let before_end: Vec<String> = place.rules.iter().take(limit).filter(is_marked).map(text).collect();
    let present = table.chains.iter().flat_map(|chain| &chain.rules).filter(is_marked).count();
    if present == rules.len() && before_end == rules.iter().map(text).collect::<Vec<_>>() {
        return;
    }
    for chain in &table.chains {
        for handle in chain.rules.iter().filter(is_marked).filter_map(Rule::handle) {
            transaction.delete_rule(&table.id, &chain.name, handle);
        }
    }
    let anchor: Option<Handle> = place.rules.get(limit).and_then(Rule::handle);
    for rule in rules {
        match anchor {
            Some(anchor) => transaction.insert_rule(&table.id, &place.name, anchor, rule),
            None => transaction.append_rule(&table.id, &place.name, rule),
        }
    }
}

/// The chains and rules that a program leaves behind.
#[derive(Clone, Copy, Debug)]
pub struct Leftovers<'a> {
    /// Names of the program's own chains.
    pub chains: &'a [&'a str],
    /// Comments of its rules in other chains, from nft or `iptables -m comment`.
    pub comments: &'a [&'a str],
}

/// Removes what a program left behind: its rules in other chains, jumps to its chains, then these
/// chains. Tables and other chains stay.
///
/// Rules for networks that overlap none of `networks` stay, and so do their chains: they serve
/// another process. Without `networks`, everything is removed.
///
/// Observe the tables that may hold the leftovers, such as [`iptables_tables`].
///
/// # Kernel
/// `iptables-nft -D ...` for each rule, then `-F` and `-X` for each chain, in one commit
pub fn remove_leftovers(
    observed: &Observed,
    left: Leftovers<'_>,
    networks: &[IpNet],
    transaction: &mut Transaction<Building>,
) {
    let serves_others = |rule: &Rule| is_about_others([rule], networks);
    for table in &observed.ruleset.tables {
        let is_theirs = |chain: &&Chain| left.chains.contains(&chain.name.as_str());
        let (kept, gone): (Vec<&Chain>, Vec<&Chain>) =
            table.chains.iter().filter(is_theirs).partition(|chain| chain.rules.iter().any(serves_others));
        let leads_to = |rule: &Rule, chains: &[&Chain]| {
            targets(rule).any(|target| chains.iter().any(|chain| chain.name.as_str() == target))
        };
        for chain in table.chains.iter().filter(|chain| !is_theirs(chain)) {
            for rule in &chain.rules {
                let remarked = remark(rule).is_some_and(|remark| left.comments.contains(&&*remark));
                let left_over = remarked && !leads_to(rule, &kept) && !serves_others(rule);
                if let Some(handle) = rule.handle().filter(|_| left_over || leads_to(rule, &gone)) {
                    transaction.delete_rule(&table.id, &chain.name, handle);
                }
            }
        }
        for chain in kept {
            let ours = chain.rules.iter().filter(|rule| names_network(rule) && !serves_others(rule));
            for handle in ours.filter_map(Rule::handle) {
                transaction.delete_rule(&table.id, &chain.name, handle);
            }
        }
        for chain in gone.iter().filter(|chain| !chain.rules.is_empty()) {
            transaction.flush_chain(&table.id, &chain.name);
        }
        for chain in gone {
            transaction.delete_chain(&table.id, &chain.name);
        }
    }
}

/// Whether the rules match networks, by source or destination, that overlap none of `networks`.
/// Ignores multicast. False without `networks`.
#[must_use]
pub fn is_about_others<'r>(rules: impl IntoIterator<Item = &'r Rule>, networks: &[IpNet]) -> bool {
    let is_ours = |named: IpNet| networks.iter().any(|ours| ours.contains(&named) || named.contains(ours));
    let mut named = rules.into_iter().flat_map(named_networks).peekable();
    !networks.is_empty() && named.peek().is_some() && !named.any(is_ours)
}

fn names_network(rule: &Rule) -> bool {
    named_networks(rule).next().is_some()
}

/// Networks that a rule matches as source or destination, also inverted, except multicast.
fn named_networks(rule: &Rule) -> impl Iterator<Item = IpNet> {
    let named = rule.statements.iter().filter_map(|statement| {
        let Statement::Match(Match { left, test, .. }) = statement else { return None };
        left.field().filter(|field| field.is_address())?;
        let (data, length) = match test {
            Test::Prefix(data, length) => (data, *length),
            Test::Is(data) => (data, u8::try_from(data.len() * 8).ok()?),
            _ => return None,
        };
        let address = match *data.as_slice() {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            ref long => IpAddr::from(<[u8; 16]>::try_from(long).ok()?),
        };
        IpNet::new(address, length).ok()
    });
    named.filter(|net| !net.addr().is_multicast())
}

/// The tables `nat` and `filter` of iptables-nft and ip6tables-nft.
#[must_use]
pub fn iptables_tables() -> Vec<TableId> {
    named("nat").chain(named("filter")).collect()
}

/// The tables `filter` of iptables-nft and ip6tables-nft.
#[must_use]
pub fn filter_tables() -> Vec<TableId> {
    named("filter").collect()
}

/// The table of this name of iptables-nft and of ip6tables-nft.
fn named(name: &'static str) -> impl Iterator<Item = TableId> {
    let name = TableName::new(name).into_iter();
    name.flat_map(|name| [Family::Ip, Family::Ip6].map(|family| TableId::new(family, name.clone())))
}

fn chain<'t>(table: &'t Table, name: &str) -> Option<&'t Chain> {
    table.chains.find(name)
}

/// Chains that a rule may jump to.
fn targets(rule: &Rule) -> impl Iterator<Item = &str> {
    let of_verdicts = rule.verdicts().filter_map(Verdict::chain).map(ChainName::as_str);
    let opaque = rule.statements.iter().filter_map(|statement| match statement {
        Statement::Other(Expr::Verdict { code, chain, .. }) => {
            Verdict::from_code(*code, chain.as_ref()).and(chain.as_ref()).map(ChainName::as_str)
        }
        _ => None,
    });
    of_verdicts.chain(opaque)
}
