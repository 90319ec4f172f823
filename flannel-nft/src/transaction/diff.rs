//! The difference between the desired and the observed ruleset. Pure and deterministic.

use std::collections::{HashMap, HashSet};

use flannel_netlink::{Batch, Flags};

use crate::kernel::Observed;
use crate::model::chain::{Chain, ChainKind, Device, Hook, Priority};
use crate::model::element::{Body, Span};
use crate::model::ids::{Generation, Handle};
use crate::model::name::escaped;
use crate::model::patch::Parts;
use crate::model::rule::Rule;
use crate::model::ruleset::{Ownership, Ruleset};
use crate::model::set::Set;
use crate::model::table::Table;
use crate::model::validate;
use crate::transaction::objects::{self, Unwanted};
use crate::transaction::{Building, Transaction};
use crate::uapi::*;
use crate::wire::encode::{self, Ids};
use crate::wire::message;
use crate::wire::references::Reference;

/// Computes the changes that turn the observed ruleset into the desired one; an empty transaction
/// if they are equal.
///
/// Tables and base chains stay registered while their contents change. Rules that stay keep their
/// handles and counters. Elements of sets are added and removed one by one. Users of an object are
/// deleted before the object, so the kernel never returns `EBUSY`. Only a table whose comment or
/// ownership differs is recreated.
///
/// The transaction applies only at the observed generation.
pub fn diff(desired: &Ruleset, observed: &Observed) -> Transaction<Building> {
    let mut transaction = Transaction::at(observed.generation);
    for id in &desired.absent {
        if observed.ruleset.find(id).is_some() {
            transaction.delete_table(id);
        }
    }
    for table in &desired.tables {
        match observed.ruleset.find(&table.id) {
            None => transaction.create(table),
            Some(old) => table_diff(table, old, observed.port, &mut transaction),
        }
    }
    transaction
}

fn table_diff(new: &Table, old: &Table, port: Option<u32>, transaction: &mut Transaction<Building>) {
    // When the owner of a persistent table exits, the kernel clears the owner flag and any process
    // may take the table over. But it turns no plain table into an owned table, or the reverse.
    let wanted = new.ownership == Ownership::Owner;
    let was_ever_owned = old.flags & (NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST) != 0;
    if new.comment != old.comment || was_ever_owned != wanted {
        transaction.delete_table(&old.id);
        transaction.create(new);
        return;
    }
    let adopt = wanted && (old.owner.is_none() || old.owner != port);
    // A ruleset that was observed wants the owner to stay.
    let adopt = adopt && (new.flags, new.owner) != (old.flags, old.owner);
    if adopt || new.dormant != old.dormant {
        transaction.add_table(new);
    }
    let before = transaction.len();
    contents_diff(new, old, transaction);
    // If nothing differs, the kernel has accepted the table already.
    if transaction.len() > before {
        validate::check_table(new, |invalid, object| transaction.check(Err(invalid), || object));
    }
}

/// Computes the changes that turn the old part of `table` into the new part.
pub(crate) fn diff_parts(table: &Table, parts: &Parts, held: Generation) -> Transaction<Building> {
    let mut transaction = Transaction::at(held);
    validate::check_references(&parts.new, table, |invalid, object| {
        transaction.check(Err(invalid), || object);
    });
    contents_diff(&parts.new, &parts.old, &mut transaction);
    // The kernel holds the old part, except for elements that rules add.
    if !parts.new.sets.iter().any(Set::is_filled_by_rules) {
        transaction.assume_effective();
    }
    transaction
}

fn contents_diff(new: &Table, old: &Table, transaction: &mut Transaction<Building>) {
    let deletions = Deletions::between(new, old);
    let plans: Vec<RulePlan<'_>> = new
        .chains
        .iter()
        .filter_map(|chain| {
            let old_chain = old.chains.find(chain.name.as_str())?;
            let kept = !deletions.chains.contains(chain.name.as_str());
            let stays = |(rule, old): (&Rule, &Rule)| rule.is_same(old) && !deletions.is_used_by(old);
            let unchanged = chain.rules.len() == old_chain.rules.len()
                && chain.rules.iter().zip(&old_chain.rules).all(stays);
            (kept && !unchanged).then(|| rule_plan(new, chain, old_chain, &deletions))
        })
        .collect();
    remove(new, old, &deletions, &plans, transaction);
    add(new, old, &deletions, &plans, transaction);
}

/// Objects to delete: not desired any more, or so different that they must be recreated.
struct Deletions<'a> {
    chains: HashSet<&'a str>,
    sets: HashSet<&'a str>,
    counters: HashSet<&'a str>,
    unwanted: Unwanted<'a>,
}

impl<'a> Deletions<'a> {
    fn between(new: &Table, old: &'a Table) -> Self {
        let chain_stays =
            |old: &Chain| new.chains.find(old.name.as_str()).is_some_and(|new| same_hook(new, old));
        let set_stays = |old: &Set| new.find_set(&old.name).is_some_and(|new| new.same_definition(old));
        Self {
            chains: old.chains.iter().filter(|old| !chain_stays(old)).map(|old| old.name.as_str()).collect(),
            sets: old.sets.iter().filter(|old| !set_stays(old)).map(|old| old.name.as_str()).collect(),
            counters: old
                .counters
                .iter()
                .filter(|old| {
                    new.counters.find(old.name.as_str()).is_none_or(|new| new.comment != old.comment)
                })
                .map(|old| old.name.as_str())
                .collect(),
            unwanted: Unwanted::between(new, old),
        }
    }

    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty() && self.counters.is_empty() && self.unwanted.is_empty()
    }

    fn has(&self, reference: &Reference<'_>) -> bool {
        match *reference {
            Reference::Nothing => false,
            Reference::Chain(name) => self.chains.contains(name.as_str()),
            Reference::Flowtable(name) => self.unwanted.has_flowtable(name),
            Reference::Object { kind: NFT_OBJECT_COUNTER, name } => self.counters.contains(&*escaped(name)),
            Reference::Object { kind, name } => self.unwanted.has_object(kind, name),
            Reference::Set(name, _) => self.sets.contains(&*escaped(name)),
            Reference::Unknown => !self.is_empty(),
        }
    }

    /// Whether the rule uses an object that is deleted.
    fn is_used_by(&self, rule: &Rule) -> bool {
        let mut used = false;
        if !self.is_empty() {
            rule.each_reference(|reference| used |= self.has(&reference));
        }
        used
    }
}

fn same_hook(new: &Chain, old: &Chain) -> bool {
    fn hook(chain: &Chain) -> Option<(ChainKind, Hook, Priority, &[Device])> {
        chain.base.as_ref().map(|base| (base.kind, base.hook, base.priority, base.devices.as_slice()))
    }
    hook(new) == hook(old) && new.comment == old.comment && new.extra.same(&old.extra, NFTA_CHAIN_USERDATA)
}

/// The changes of the rules of a chain that stays.
struct RulePlan<'a> {
    chain: &'a Chain,
    /// Deleted first.
    delete: Vec<Handle>,
    put: Vec<Put<'a>>,
}

enum Put<'a> {
    Instead(Handle, &'a Rule),
    Before(Handle, &'a Rule),
    Last(&'a Rule),
}

/// Keeps as many rules as possible in order, and deletes, replaces and inserts the others around
/// them.
fn rule_plan<'a>(table: &Table, new: &'a Chain, old: &Chain, deletions: &Deletions<'_>) -> RulePlan<'a> {
    let pairs = common(table, &new.rules, &old.rules, |rule| !deletions.is_used_by(rule));

    let mut plan = RulePlan { chain: new, delete: Vec::new(), put: Vec::new() };
    let (mut at_new, mut at_old) = (0, 0);
    let end = (new.rules.len(), old.rules.len());
    for (next_new, next_old) in pairs.into_iter().chain([end]) {
        let leaving = old.rules.get(at_old..next_old).unwrap_or_default();
        let coming = new.rules.get(at_new..next_new).unwrap_or_default();
        let anchor = old.rules.get(next_old).and_then(|rule| rule.handle);
        // A rule that uses an object to be deleted cannot wait to be replaced.
        let (replaceable, gone): (Vec<&Rule>, Vec<&Rule>) =
            leaving.iter().partition(|rule| !deletions.is_used_by(rule));
        plan.delete.extend(gone.iter().filter_map(|rule| rule.handle));
        let paired = replaceable.len().min(coming.len());
        for (old, rule) in replaceable.iter().zip(coming) {
            plan.put.extend(old.handle.map(|handle| Put::Instead(handle, rule)));
        }
        plan.delete.extend(replaceable.iter().skip(paired).filter_map(|rule| rule.handle));
        for rule in coming.iter().skip(paired) {
            plan.put.push(anchor.map_or(Put::Last(rule), |anchor| Put::Before(anchor, rule)));
        }
        (at_new, at_old) = (next_new + 1, next_old + 1);
    }
    plan
}

/// Index pairs of equal rules that stay in order. Compares encoded rules only between those at both
/// ends that are equal as values.
fn common(table: &Table, new: &[Rule], old: &[Rule], stays: impl Fn(&Rule) -> bool) -> Vec<(usize, usize)> {
    let same = |(new, old): &(&Rule, &Rule)| new.is_same(old) && stays(old);
    let head = new.iter().zip(old).take_while(same).count();
    let limit = new.len().min(old.len()) - head;
    let tail = new.iter().rev().zip(old.iter().rev()).take(limit).take_while(same).count();
    let ends = (new.len() - tail..new.len()).zip(old.len() - tail..old.len());

    let mut keys = Keys::default();
    let middle_old = old.get(head..old.len() - tail).unwrap_or_default();
    let old_keys: Vec<Option<usize>> =
        middle_old.iter().map(|rule| stays(rule).then(|| keys.key(table, rule))).collect();
    let middle_new = new.get(head..new.len() - tail).unwrap_or_default();
    let new_keys: Vec<usize> = middle_new.iter().map(|rule| keys.key(table, rule)).collect();
    let middle = longest_common(&new_keys, &old_keys).into_iter().map(|(new, old)| (new + head, old + head));
    (0..head).map(|at| (at, at)).chain(middle).chain(ends).collect()
}

/// Gives equal rules, as the kernel would hold them, the same number. Ignores counts.
#[derive(Default)]
struct Keys {
    numbers: HashMap<Box<[u8]>, usize>,
    scratch: Batch,
}

impl Keys {
    fn key(&mut self, table: &Table, rule: &Rule) -> usize {
        let uncounted;
        let rule = if rule.has_state() {
            uncounted = rule.without_state();
            &uncounted
        } else {
            rule
        };
        self.scratch.clear();
        self.append(table, rule);
        let next = self.numbers.len();
        *self.numbers.entry(self.scratch.as_bytes().into()).or_insert(next)
    }

    fn append(&mut self, table: &Table, rule: &Rule) {
        for chain in rule.implicit_chains() {
            self.scratch.message(message::NEWCHAIN, Flags::NONE, &[], |_| {});
            chain.rules.iter().for_each(|rule| self.append(table, &rule.without_state()));
        }
        rule.inline_sets(|set| {
            let mut elements = set.elements.iter().peekable();
            while elements.peek().is_some() {
                self.scratch.message(message::NEWSETELEM, Flags::NONE, &[], |a| {
                    a.be32(NFTA_SET_KEY_TYPE, set.key.number());
                    encode::elements(&table.id, set, None, &mut elements, a);
                });
            }
        });
        let chains: Vec<u32> = (0..).take(rule.implicit_chains().len()).collect();
        self.scratch.message(message::NEWRULE, Flags::NONE, &[], |a| {
            let _reported_when_added =
                encode::expressions(table.id.family, rule, Ids { first_set: 0, chains: &chains }, a);
            rule.comment.iter().for_each(|comment| a.string(NFTA_RULE_USERDATA, comment.as_bytes()));
            rule.extra.known(NFTA_RULE_CHAIN_ID).for_each(|(kind, payload)| a.bytes(*kind, payload));
        });
    }
}

/// Index pairs of a long common subsequence: exact at both ends; between them, the longest
/// ascending run of pairs of the k-th occurrences of a rule. O(n log n).
fn longest_common(new: &[usize], old: &[Option<usize>]) -> Vec<(usize, usize)> {
    let same = |(new, old): &(&usize, &Option<usize>)| **old == Some(**new);
    let head = new.iter().zip(old).take_while(same).count();
    let limit = new.len().min(old.len()) - head;
    let tail = new.iter().rev().zip(old.iter().rev()).take(limit).take_while(same).count();

    let mut places: HashMap<usize, Vec<usize>> = HashMap::new();
    let middle_old = old.iter().enumerate().skip(head).take(old.len() - head - tail);
    for (place, key) in middle_old.rev_by_key() {
        places.entry(key).or_default().push(place);
    }
    let candidates = new.iter().enumerate().skip(head).take(new.len() - head - tail);
    let candidates: Vec<(usize, usize)> =
        candidates.filter_map(|(at, key)| Some((at, places.get_mut(key)?.pop()?))).collect();

    let ends = (new.len() - tail..new.len()).zip(old.len() - tail..old.len());
    (0..head).map(|at| (at, at)).chain(ascending(&candidates)).chain(ends).collect()
}

trait RevByKey {
    /// In reverse order, so that `pop` returns the first occurrence.
    fn rev_by_key(self) -> impl Iterator<Item = (usize, usize)>;
}

impl<'a, I: Iterator<Item = (usize, &'a Option<usize>)>> RevByKey for I {
    fn rev_by_key(self) -> impl Iterator<Item = (usize, usize)> {
        let mut all: Vec<(usize, usize)> = self.filter_map(|(place, key)| Some((place, (*key)?))).collect();
        all.reverse();
        all.into_iter()
    }
}

/// The longest subsequence whose second members ascend (patience sorting).
fn ascending(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut piles: Vec<usize> = Vec::new(); // index of the pair on top
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    let second = |index: &usize| pairs.get(*index).map(|pair| pair.1);
    for (index, pair) in pairs.iter().enumerate() {
        let pile = piles.partition_point(|top| second(top) < Some(pair.1));
        before.push(pile.checked_sub(1).and_then(|pile| piles.get(pile).copied()));
        match piles.get_mut(pile) {
            Some(top) => *top = index,
            None => piles.push(index),
        }
    }
    let mut run = Vec::with_capacity(piles.len());
    let mut next = piles.last().copied();
    while let Some(index) = next {
        run.extend(pairs.get(index).copied());
        next = before.get(index).copied().flatten();
    }
    run.reverse();
    run
}

/// Deletes, users before what they use: rules, elements, sets, chains, counters.
fn remove(
    new: &Table,
    old: &Table,
    deletions: &Deletions<'_>,
    plans: &[RulePlan<'_>],
    transaction: &mut Transaction<Building>,
) {
    let id = &new.id;
    for plan in plans {
        plan.delete.iter().for_each(|handle| transaction.delete_rule(id, &plan.chain.name, *handle));
    }
    for chain in old.chains.iter().filter(|chain| deletions.chains.contains(chain.name.as_str())) {
        if !chain.rules.is_empty() {
            transaction.flush_chain(id, &chain.name);
        }
    }
    for set in &old.sets {
        let wanted = new.find_set(&set.name).filter(|_| !deletions.sets.contains(set.name.as_str()));
        let Some(wanted) = wanted else { continue };
        if set.is_filled_by_rules() {
            continue;
        }
        let gone = set.elements.iter().filter(|(span, body)| !stays(deletions, wanted, span, body));
        transaction.some_elements(message::DELSETELEM, id, &set.definition(), gone.peekable());
    }
    for set in old.sets.iter().filter(|set| deletions.sets.contains(set.name.as_str())) {
        transaction.delete_set(id, &set.name);
    }
    for chain in old.chains.iter().filter(|chain| deletions.chains.contains(chain.name.as_str())) {
        transaction.delete_chain(id, &chain.name);
    }
    for counter in old.counters.iter().filter(|counter| deletions.counters.contains(counter.name.as_str())) {
        transaction.delete_counter(id, &counter.name);
    }
    deletions.unwanted.remove(id, transaction);
}

/// Whether an element of the kernel's set is desired unchanged and uses no object that is deleted.
fn stays(deletions: &Deletions<'_>, wanted: &Set, span: &Span, body: &Body) -> bool {
    wanted.elements.get(span) == Some(body) && !deletions.has(&body.reference(wanted.maps))
}

/// Adds, in the reverse order.
fn add(
    new: &Table,
    old: &Table,
    deletions: &Deletions<'_>,
    plans: &[RulePlan<'_>],
    transaction: &mut Transaction<Building>,
) {
    let id = &new.id;
    for counter in &new.counters {
        if old.counters.find(counter.name.as_str()).is_none()
            || deletions.counters.contains(counter.name.as_str())
        {
            transaction.add_counter(id, counter);
        }
    }
    objects::add(new, old, transaction);
    let is_new = |chain: &Chain| {
        deletions.chains.contains(chain.name.as_str()) || old.chains.find(chain.name.as_str()).is_none()
    };
    for chain in &new.chains {
        let before = old.chains.find(chain.name.as_str());
        if is_new(chain) || before.is_some_and(|before| before.base != chain.base) {
            transaction.add_chain(id, chain);
        }
    }
    let none = std::collections::BTreeMap::new();
    for set in &new.sets {
        let before = old.find_set(&set.name).filter(|_| !deletions.sets.contains(set.name.as_str()));
        if before.is_none() {
            transaction.add_set(id, set);
        }
        let held = before.map_or(&none, |before| &before.elements);
        let missing = set
            .elements
            .iter()
            .filter(|(span, _)| !held.get(span).is_some_and(|held| stays(deletions, set, span, held)));
        transaction.some_elements(message::NEWSETELEM, id, set, missing.peekable());
    }
    for plan in plans {
        let chain = &plan.chain.name;
        for put in &plan.put {
            match put {
                Put::Instead(handle, rule) => transaction.replace_rule(id, chain, *handle, rule),
                Put::Before(handle, rule) => transaction.insert_rule(id, chain, *handle, rule),
                Put::Last(rule) => transaction.append_rule(id, chain, rule),
            }
        }
    }
    for chain in new.chains.iter().filter(|chain| is_new(chain)) {
        chain.rules.iter().for_each(|rule| transaction.append_rule(id, &chain.name, rule));
    }
}

#[cfg(test)]
mod tests;
