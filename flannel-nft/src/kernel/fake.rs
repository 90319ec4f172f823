//! A fake kernel in memory.

use flannel_netlink::{Errno, Refusal};

use crate::error::{CommitError, InvalidRule, ObserveError};
use crate::kernel::{Kernel, Observed};
use crate::model::chain::Chain;
use crate::model::ids::{Generation, Handle, TableId};
use crate::model::name::ChainName;
use crate::model::ruleset::Ruleset;
use crate::model::set::Set;
use crate::model::table::Table;
use crate::model::validate::{self, Invalid};
use crate::refusal::RefusalReason;
use crate::transaction::change::{Change, RulePlace};
use crate::transaction::{Sealed, Transaction};
use crate::uapi::{NFT_OBJECT_COUNTER, NFT_TABLE_F_PERSIST};
use crate::wire::references::Reference;

/// A fake nf_tables in memory, for tests and dry runs. It decodes the same bytes that the real
/// kernel receives, and has transactions, generations and handles. It rejects invalid changes with
/// the error numbers of Linux 6.18.
///
/// It sees no packets, so counters stay at their values.
///
/// ```
/// use flannel_nft::{Family, Kernel, FakeKernel, Outcome, Ruleset, Table, TableName, converge};
///
/// let desired = Ruleset::new().table(Table::new(Family::Inet, TableName::new("mine")?));
/// let mut kernel = FakeKernel::default();
/// assert!(matches!(converge(&mut kernel, &desired)?, Outcome::Changed { .. }));
/// assert!(matches!(converge(&mut kernel, &desired)?, Outcome::Unchanged { .. }));
/// assert_eq!(kernel.script(), "add table inet mine\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FakeKernel {
    tables: Vec<Table>,
    generation: Generation,
    handles: u64,
    script: String,
    commits: u32,
    refuse: Option<(u32, Errno)>,
    keeps_owned_tables: bool,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            generation: Generation(1),
            handles: 0,
            script: String::new(),
            commits: 0,
            refuse: None,
            keeps_owned_tables: true,
        }
    }
}

impl FakeKernel {
    /// A kernel that refuses tables that outlive their owner, like Linux before 6.9.
    #[must_use]
    pub fn before_6_9() -> Self {
        Self { keeps_owned_tables: false, ..Self::default() }
    }

    /// All committed changes, as scripts for `nft -f`.
    #[must_use]
    pub fn script(&self) -> &str {
        &self.script
    }

    /// The number of commits.
    #[must_use]
    pub fn commits(&self) -> u32 {
        self.commits
    }

    /// The current tables.
    #[must_use]
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Deletes all tables, like `nft flush ruleset` of another process.
    pub fn flush(&mut self) {
        self.tables.clear();
        self.generation = self.generation.next();
    }

    /// Makes the next transaction fail with this error at its `change`-th change, counted from 0.
    /// Once.
    pub fn refuse_next(&mut self, change: u32, errno: Errno) {
        self.refuse = Some((change, errno));
    }

    /// Checks chains as the kernel does before it commits.
    fn validate(&self) -> Result<(), Errno> {
        self.tables.iter().try_for_each(|table| {
            accepted(validate::check_chains(table, |_| true).map_err(|fault| fault.invalid))
        })
    }

    pub(crate) fn apply(&mut self, change: Change) -> Result<(), Errno> {
        if let Change::AddTable(table) = change {
            if table.flags & NFT_TABLE_F_PERSIST != 0 && !self.keeps_owned_tables {
                return Err(Errno::EOPNOTSUPP);
            }
            match self.tables.iter_mut().find(|old| old.id == table.id) {
                Some(old) => {
                    (old.flags, old.dormant, old.ownership) = (table.flags, table.dormant, table.ownership)
                }
                None => self.tables.push(table),
            }
            return Ok(());
        }
        if let Change::DeleteTable(id) = &change {
            let before = self.tables.len();
            self.tables.retain(|table| table.id != *id);
            return if self.tables.len() < before { Ok(()) } else { Err(Errno::ENOENT) };
        }
        self.handles += 1;
        let handle = Handle(self.handles);
        let id = change.table().clone();
        let table = self.tables.iter_mut().find(|table| table.id == id).ok_or(Errno::ENOENT)?;
        in_table(table, change, handle)
    }
}

fn in_table(table: &mut Table, change: Change, handle: Handle) -> Result<(), Errno> {
    match change {
        Change::AddCounter(_, counter) => {
            if table.counters.find(counter.name.as_str()).is_none() {
                table.counters.insert(counter);
            }
        }
        Change::AddChain(id, chain) => {
            let checked = chain.base.as_ref().map_or(Ok(()), |base| base.check(id.family));
            accepted(checked.map_err(chain_errno))?;
            match table.chains.find_mut(chain.name.as_str()) {
                Some(old) => old.base = chain.base,
                None => drop(table.chains.insert(chain)),
            }
        }
        Change::AddSet(_, set) => {
            accepted(validate::set::check(&set))?;
            if table.find_set(&set.name).is_none() {
                table.sets.insert(set);
            }
        }
        Change::AddElements(_, part) => {
            for (span, body) in part.elements.clone() {
                accepted_by(|found| validate::references_of_element(part.maps, &body, table, found))?;
                let set = set_of(table, &part)?;
                validate::new_element(set, &span, &body)?;
                set.elements.insert(span, body);
            }
            accepted(validate::set::check_elements(set_of(table, &part)?))?;
        }
        Change::DeleteElements(_, part) => {
            let set = set_of(table, &part)?;
            for span in part.elements.keys() {
                set.elements.remove(span).ok_or(Errno::ENOENT)?;
            }
        }
        Change::AddRule(id, chain, place, mut rule) => {
            accepted_by(|found| validate::references_of_rule(&rule, table, found))?;
            accepted(validate::rule::check(&rule, id.family))?;
            rule.handle = Some(handle);
            let rules = &mut chain_of(table, &chain)?.rules;
            let at = |handle| rules.iter().position(|rule| rule.handle == Some(handle)).ok_or(Errno::ENOENT);
            match place {
                RulePlace::Last => rules.push(rule),
                RulePlace::First => rules.insert(0, rule),
                RulePlace::Before(handle) => rules.insert(at(handle)?, rule),
                RulePlace::After(handle) => rules.insert(at(handle)? + 1, rule),
                RulePlace::Instead(handle) => {
                    let at = at(handle)?;
                    rules.splice(at..=at, [rule]).for_each(drop);
                }
            }
        }
        Change::DeleteRule(_, chain, handle) => {
            let rules = &mut chain_of(table, &chain)?.rules;
            let before = rules.len();
            rules.retain(|rule| handle.is_some() && rule.handle != handle);
            if handle.is_some() && rules.len() == before {
                return Err(Errno::ENOENT);
            }
        }
        Change::DeleteChain(_, chain) => {
            if !chain_of(table, &chain)?.rules.is_empty() {
                return Err(Errno::EBUSY);
            }
            unused(table, |used| matches!(used, Reference::Chain(name) if *name == chain))?;
            table.chains.remove(chain.as_str());
        }
        Change::DeleteSet(_, set) => {
            table.find_set(&set).ok_or(Errno::ENOENT)?;
            unused(table, |used| matches!(used, Reference::Set(name, _) if name == set.as_bytes()))?;
            table.sets.remove(set.as_str());
        }
        Change::AddObject(_, object) => {
            if !table.objects.iter().any(|old| old.is_same_object(&object)) {
                table.objects.push(object);
            }
        }
        Change::DeleteObject(_, object) => {
            let place =
                table.objects.iter().position(|old| old.is_same_object(&object)).ok_or(Errno::ENOENT)?;
            unused_object(table, object.number, object.name.as_bytes())?;
            table.objects.remove(place);
        }
        Change::AddFlowtable(_, flowtable) => {
            if !table.flowtables.iter().any(|old| old.name == flowtable.name) {
                table.flowtables.push(flowtable);
            }
        }
        Change::DeleteFlowtable(_, flowtable) => {
            let place = table.flowtables.iter().position(|old| old.name == flowtable).ok_or(Errno::ENOENT)?;
            unused(table, |used| matches!(used, Reference::Flowtable(name) if name == flowtable.as_bytes()))?;
            table.flowtables.remove(place);
        }
        Change::DeleteCounter(_, name) => {
            let counter = table.counters.find(&name).ok_or(Errno::ENOENT)?;
            unused_object(table, NFT_OBJECT_COUNTER, counter.name.as_bytes())?;
            table.counters.remove(&name);
        }
        Change::AddTable(_) | Change::DeleteTable(_) | Change::Other(_) => {}
    }
    Ok(())
}

/// The kernel's errors for base chains that it does not have.
fn chain_errno(invalid: InvalidRule) -> Invalid {
    let errno = match invalid {
        InvalidRule::NoDevice { .. } => None,
        InvalidRule::NoSuchHook { kind: "nat" | "route", family: "arp" | "bridge" | "netdev", .. } => {
            Some(Errno::ENOENT)
        }
        _ => Some(Errno::EOPNOTSUPP),
    };
    (invalid, errno)
}

/// An error if the kernel rejects the object.
fn accepted(checked: Result<(), Invalid>) -> Result<(), Errno> {
    checked.or_else(|(_, errno)| errno.map_or(Ok(()), Err))
}

fn accepted_by(check: impl FnOnce(&mut dyn FnMut(Invalid))) -> Result<(), Errno> {
    let mut rejected = None;
    check(&mut |(_, errno)| rejected = rejected.or(errno));
    rejected.map_or(Ok(()), Err)
}

/// The kernel refuses to delete what a rule or an element uses. What an expression that this crate does not know uses
/// cannot be told.
fn unused(table: &Table, is_deleted: impl Fn(Reference<'_>) -> bool) -> Result<(), Errno> {
    let mut used = false;
    for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
        rule.each_reference(|reference| used |= is_deleted(reference));
    }
    for set in &table.sets {
        used |= set.elements.values().any(|body| is_deleted(body.reference(set.maps)));
    }
    if used { Err(Errno::EBUSY) } else { Ok(()) }
}

fn unused_object(table: &Table, kind: u32, name: &[u8]) -> Result<(), Errno> {
    unused(table, |used| used == Reference::Object { kind, name })
}

fn set_of<'t>(table: &'t mut Table, part: &Set) -> Result<&'t mut Set, Errno> {
    table.sets.find_mut(part.name.as_str()).ok_or(Errno::ENOENT)
}

fn chain_of<'t>(table: &'t mut Table, name: &ChainName) -> Result<&'t mut Chain, Errno> {
    table.chains.find_mut(name.as_str()).ok_or(Errno::ENOENT)
}

impl Kernel for FakeKernel {
    fn generation(&mut self) -> Result<Generation, ObserveError> {
        Ok(self.generation)
    }

    fn tables(&mut self) -> Result<Vec<TableId>, ObserveError> {
        Ok(self.tables.iter().map(|table| table.id.clone()).collect())
    }

    fn keeps_owned_tables(&mut self) -> Result<bool, ObserveError> {
        Ok(self.keeps_owned_tables)
    }

    fn observe(&mut self, wanted: &[TableId]) -> Result<Observed, ObserveError> {
        let tables = self.tables.iter().filter(|table| wanted.contains(&table.id)).cloned();
        Ok(Observed { generation: self.generation, ruleset: tables.collect::<Ruleset>(), port: None })
    }

    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Option<Generation>, CommitError> {
        if transaction.expected().is_some_and(|expected| expected != self.generation) {
            return Err(CommitError::Stale);
        }
        let before = self.clone();
        let refuse = self.refuse.take();
        let changes = transaction.changes();
        let last = changes.len().checked_sub(1);
        for (count, (message, change)) in changes.into_iter().enumerate() {
            let operation = change.to_string();
            let refused = refuse.filter(|(at, _)| u32::try_from(count) == Ok(*at)).map(|(_, errno)| errno);
            let applied = refused.map_or_else(|| self.apply(change), Err);
            let validated = applied.and_then(|()| if last == Some(count) { self.validate() } else { Ok(()) });
            if let Err(errno) = validated {
                *self = Self { refuse: None, ..before };
                let source = RefusalReason::new(Refusal::new(message, errno));
                return Err(CommitError::Refused { operation, attribute: None, source });
            }
        }
        self.script.push_str(&transaction.to_string());
        self.commits += 1;
        if !transaction.is_empty() {
            self.generation = self.generation.next();
        }
        Ok(transaction.expected().map(|_| self.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_transaction_leaves_everything_as_it_was() {
        let table = Table::new(crate::Family::Ip, crate::TableName::new("t").unwrap());
        let mut kernel = FakeKernel::default();
        kernel.refuse_next(0, Errno::EPERM);
        let desired = Ruleset::new().table(table);
        assert!(crate::converge(&mut kernel, &desired).is_err());
        assert_eq!((kernel.tables().len(), kernel.commits()), (0, 0));
        assert!(crate::converge(&mut kernel, &desired).is_ok());
    }
}
