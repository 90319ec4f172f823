//! Commands in JSON: what `nft -j -f -` runs.

use std::cell::RefCell;

use serde_json::Value;

use crate::converge::{Outcome, converge_with};
use crate::error::{ConvergeError, ObserveError};
use crate::json::error::{JsonError, Node, Read, Wrong, wrong};
use crate::json::read::{complete_sets, document, items, rule};
use crate::json::read_object::{self, Place, read_elements};
use crate::json::scope::table_of;
use crate::json::write::OBJECT_WORDS;
use crate::kernel::{Kernel, Observed};
use crate::model::family::Family;
use crate::model::ids::{Handle, TableId};
use crate::model::ruleset::Ruleset;
use crate::model::table::Table;
use crate::transaction::Transaction;
use crate::transaction::diff::diff;

/// Commands could not be run. Nothing was changed, unless the source of [`ApplyError::Converge`] tells
/// otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A command is not understood, or it contradicts what the kernel holds: it adds what exists or
    /// deletes what does not.
    #[error("the commands are invalid; nothing was changed")]
    Json(#[from] JsonError),
    /// The tables could not be listed.
    #[error("cannot run the command `flush ruleset`; nothing was changed")]
    Observe(#[source] ObserveError),
    /// The ruleset could not be read, or the changes could not be committed.
    #[error("cannot run the commands")]
    Converge(#[source] ConvergeError),
}

/// Runs commands in their order, as one transaction.
///
/// It reads the tables that the commands name, applies the commands to what it read, and commits the
/// difference. Therefore it changes less than nft: a table that the commands delete and add again keeps
/// the rules that are the same, with their counters.
///
/// - `add`, and an object without a command, as `nft -j list ruleset` prints it: adds it unless it exists.
///   A rule is always added, at the end, or after the rule that `handle` or `index` names.
/// - `create`: fails if the object exists.
/// - `insert`: adds a rule at the start, or before the rule that `handle` or `index` names.
/// - `replace`: replaces the rule with this `handle`.
/// - `delete`: removes an object by `name` or `handle`; fails if it does not exist.
/// - `destroy`: the same, but does not fail.
/// - `flush`: removes the rules of a chain or table, the elements of a set or map, or all tables
///   (`ruleset`), also of one `family`.
///
/// # Errors
/// [`ApplyError`]. Other commands (`list`, `reset`, `rename`) are an error: [`print()`](super::print()) an
/// observed ruleset instead of `list`.
///
/// # Kernel
/// `nft -j -f -`
pub fn apply(kernel: &mut impl Kernel, commands: &str) -> Result<Outcome, ApplyError> {
    let document = document(commands)?;
    let locate = |wrong: Wrong<'_>| wrong.locate(&document);
    let commands = read_commands(&document).map_err(locate)?;
    let mut scope = Vec::new();
    for command in &commands {
        let wanted = match command.kind {
            "ruleset" => {
                let tables = kernel.tables().map_err(ApplyError::Observe)?;
                let family = command.family().map_err(locate)?;
                tables.into_iter().filter(|id| family.is_none_or(|family| id.family == family)).collect()
            }
            kind => vec![table_of(kind, command.inner).map_err(locate)?],
        };
        wanted.into_iter().for_each(|id| {
            if !scope.contains(&id) {
                scope.push(id);
            }
        });
    }
    let failed = RefCell::new(None);
    let outcome = converge_with(kernel, &scope, |observed: &Observed| match desired(&commands, observed) {
        Ok(desired) => diff(&desired, observed),
        Err(wrong) => {
            failed.replace(Some(wrong.locate(&document)));
            Transaction::at(observed.generation)
        }
    });
    match (outcome, failed.into_inner()) {
        (Ok(Outcome::Unchanged { .. }), Some(failed)) => Err(failed.into()),
        (outcome, _) => outcome.map_err(ApplyError::Converge),
    }
}

/// A command: `{ verb: { kind: inner } }`.
#[derive(Clone, Copy, Debug)]
struct Command<'j> {
    verb: Verb,
    kind: &'j str,
    inner: &'j Value,
    /// `{ kind: inner }`.
    object: &'j Value,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verb {
    Add,
    Create,
    Delete,
    Destroy,
    Flush,
    Insert,
    /// An object as it is listed, whose handle means nothing here.
    Listed,
    Replace,
}

fn read_commands(document: &Value) -> Read<'_, Vec<Command<'_>>> {
    let mut commands = Vec::new();
    for item in items(document)? {
        let Some((name, inner)) = item.only() else { return wrong(item, "an object with one property") };
        let verb = match name {
            "add" => Verb::Add,
            "create" => Verb::Create,
            "delete" => Verb::Delete,
            "destroy" => Verb::Destroy,
            "flush" => Verb::Flush,
            "insert" => Verb::Insert,
            "replace" => Verb::Replace,
            "list" | "reset" | "rename" => {
                return wrong(item, "add, create, insert, replace, delete, destroy or flush");
            }
            kind => {
                commands.push(Command { verb: Verb::Listed, kind, inner, object: item });
                continue;
            }
        };
        let Some((kind, of)) = inner.only() else { return wrong(inner, "an object with one property") };
        commands.push(Command { verb, kind, inner: of, object: inner });
    }
    Ok(commands)
}

impl<'j> Command<'j> {
    /// The family of `flush ruleset`, if it has one.
    fn family(&self) -> Read<'j, Option<Family>> {
        if self.verb != Verb::Flush {
            return wrong(self.object, "the command flush, which is the only one for a ruleset");
        }
        let Some(family) = self.inner.field("family") else { return Ok(None) };
        let found = Family::named(family.text()?);
        found.map_or_else(
            || wrong(family, "family ip, ip6, inet, arp, bridge or netdev"),
            |family| Ok(Some(family)),
        )
    }

    fn run(&self, desired: Ruleset) -> Read<'j, Ruleset> {
        if self.kind == "ruleset" {
            let family = self.family()?;
            let gone: Vec<TableId> = desired.tables.iter().map(|table| table.id.clone()).collect();
            let gone = gone.into_iter().filter(|id| family.is_none_or(|family| id.family == family));
            return Ok(gone.fold(desired, Ruleset::without));
        }
        let id = table_of(self.kind, self.inner)?;
        if self.kind == "table" && self.verb != Verb::Flush {
            return self.run_table(desired, id);
        }
        let mut desired = desired;
        let Some(table) = desired.find_mut(&id) else {
            if self.verb == Verb::Destroy {
                return Ok(desired);
            }
            return wrong(
                self.inner,
                format_args!("an object in a table that exists: there is no table {id}"),
            );
        };
        match (self.verb, self.kind) {
            (Verb::Add | Verb::Insert | Verb::Listed | Verb::Replace | Verb::Create, "rule") => {
                self.put_rule(table)?;
            }
            (Verb::Add | Verb::Listed, kind) => {
                read_object::add(self.object, kind, self.inner, table, Place::NewOrSame)?;
            }
            (Verb::Create, kind) => read_object::add(self.object, kind, self.inner, table, Place::New)?,
            (Verb::Delete | Verb::Destroy, _) => {
                if !self.delete(table)? && self.verb == Verb::Delete {
                    return wrong(self.inner, "an object that exists");
                }
            }
            (Verb::Flush, _) => self.flush(table)?,
            (Verb::Insert | Verb::Replace, _) => return wrong(self.object, "a rule"),
        }
        Ok(desired)
    }

    fn run_table(&self, desired: Ruleset, id: TableId) -> Read<'j, Ruleset> {
        let exists = desired.find(&id).is_some();
        match self.verb {
            Verb::Add | Verb::Create | Verb::Listed => {
                let table = read_object::table(self.inner)?;
                if exists && self.verb == Verb::Create {
                    return wrong(self.inner, "a table that does not exist yet");
                }
                Ok(if exists { desired } else { desired.table(table) })
            }
            Verb::Delete if !exists => wrong(self.inner, "a table that exists"),
            Verb::Delete | Verb::Destroy => Ok(desired.without(id)),
            Verb::Flush | Verb::Insert | Verb::Replace => wrong(self.object, "a rule"),
        }
    }

    fn put_rule(&self, table: &mut Table) -> Read<'j, ()> {
        let new = rule(self.inner, table)?;
        let name = self.inner.need("chain")?;
        let Some(chain) = table.chains.find_mut(name.text()?) else {
            return wrong(name, "the name of a chain of the table");
        };
        let rules = &mut chain.rules;
        if self.verb == Verb::Listed {
            rules.push(new);
            return Ok(());
        }
        let found = |value: &'j Value, found: Option<usize>| match found {
            Some(place) => Ok(Some(place)),
            None => wrong(value, "a rule of the chain"),
        };
        let place = match (self.inner.field("handle"), self.inner.field("index")) {
            (Some(handle), _) => {
                let number = Some(Handle(handle.number()?));
                found(handle, rules.iter().position(|rule| rule.handle == number))?
            }
            (None, Some(index)) => {
                let number: usize = index.number()?;
                found(index, Some(number).filter(|number| *number < rules.len()))?
            }
            (None, None) => None,
        };
        match (self.verb, place) {
            (Verb::Replace, Some(place)) => {
                if let Some(rule) = rules.get_mut(place) {
                    *rule = new;
                }
            }
            (Verb::Replace, None) => return wrong(self.inner, "the property `handle` of the rule"),
            (Verb::Insert, place) => rules.insert(place.unwrap_or(0), new),
            (_, Some(place)) => rules.insert(place + 1, new),
            (_, None) => rules.push(new),
        }
        Ok(())
    }

    /// Removes an object; `false` if it does not exist.
    fn delete(&self, table: &mut Table) -> Read<'j, bool> {
        let handle = self.inner.field("handle").map(Node::number).transpose()?.map(Handle);
        let name = self.inner.field("name").map(Node::text).transpose()?;
        let is_it = |found: &str, number: Option<Handle>| match name {
            Some(name) => found == name,
            None => handle.is_some() && number == handle,
        };
        Ok(match self.kind {
            "rule" => {
                let Some(handle) = handle else { return wrong(self.inner, "the property `handle`") };
                let chain = self.inner.need("chain")?.text()?;
                let Some(chain) = table.chains.find_mut(chain) else { return Ok(false) };
                let place = chain.rules.iter().position(|rule| rule.handle == Some(handle));
                place.map(|place| chain.rules.remove(place)).is_some()
            }
            "chain" => {
                let found = table.chains.iter().find(|chain| is_it(chain.name.as_str(), chain.handle));
                let found = found.map(|chain| chain.name.clone());
                found.and_then(|name| table.chains.remove(name.as_str())).is_some()
            }
            "set" | "map" | "meter" => {
                let found = table.sets.iter().find(|set| is_it(set.name.as_str(), set.handle));
                let found = found.map(|set| set.name.clone());
                found.and_then(|name| table.sets.remove(name.as_str())).is_some()
            }
            "element" => return self.delete_elements(table),
            "counter" => {
                let found =
                    table.counters.iter().find(|counter| is_it(counter.name.as_str(), counter.handle));
                let found = found.map(|counter| counter.name.clone());
                found.and_then(|name| table.counters.remove(name.as_str())).is_some()
            }
            "flowtable" => {
                let before = table.flowtables.len();
                table.flowtables.retain(|flowtable| !is_it(flowtable.name.as_str(), flowtable.handle));
                table.flowtables.len() < before
            }
            kind => {
                let Some((_, number)) = OBJECT_WORDS.iter().find(|(word, _)| *word == kind) else {
                    return wrong(self.object, "an object that libnftables-json(5) describes");
                };
                let before = table.objects.len();
                table
                    .objects
                    .retain(|object| object.number != *number || !is_it(object.name.as_str(), object.handle));
                table.objects.len() < before
            }
        })
    }

    fn delete_elements(&self, table: &mut Table) -> Read<'j, bool> {
        let (name, family) = (self.inner.need("name")?, table.id.family);
        let Some(set) = table.sets.find_mut(name.text()?) else { return wrong(name, "a set of the table") };
        let mut all = true;
        for (item, element) in read_elements(set, family, self.inner.need("elem")?)? {
            let existed = set.elements.remove(&element.key.span).is_some();
            if !existed && self.verb == Verb::Delete {
                return wrong(item, "an element that exists");
            }
            all &= existed;
        }
        Ok(all || self.verb == Verb::Destroy)
    }

    fn flush(&self, table: &mut Table) -> Read<'j, ()> {
        if self.kind == "table" {
            table.chains.iter_mut().for_each(|chain| chain.rules.clear());
            return Ok(());
        }
        let name = self.inner.need("name")?;
        match self.kind {
            "chain" => match table.chains.find_mut(name.text()?) {
                Some(chain) => chain.rules.clear(),
                None => return wrong(name, "a chain of the table"),
            },
            "set" | "map" | "meter" => match table.sets.find_mut(name.text()?) {
                Some(set) => set.elements.clear(),
                None => return wrong(name, "a set of the table"),
            },
            _ => return wrong(self.object, "ruleset, table, chain, set, map or meter"),
        }
        Ok(())
    }
}

/// What the tables are after the commands.
fn desired<'j>(commands: &[Command<'j>], observed: &Observed) -> Read<'j, Ruleset> {
    let mut desired = observed.ruleset.clone();
    for command in commands {
        desired = command.run(desired)?;
    }
    desired.tables.iter_mut().for_each(complete_sets);
    Ok(desired)
}
