//! Transactions: changes that the kernel applies completely or not at all.

pub(crate) mod change;
pub(crate) mod diff;
mod objects;

use std::fmt;
use std::iter::Peekable;

use flannel_netlink::{Attributes, Batch, Flags};

use crate::error::{CommitError, InvalidRule, SealError};
use crate::kernel::Kernel;
use crate::model::chain::Chain;
use crate::model::element::{Body, Span};
use crate::model::ids::{Generation, Handle, TableId};
use crate::model::name::{ChainName, CounterName, SetName};
use crate::model::rule::Rule;
use crate::model::set::Set;
use crate::model::table::{AnyObject, Counter, Table};
use crate::model::validate;
use crate::transaction::change::{Change, changes};
use crate::uapi::NFNL_BATCH_GENID;
use crate::wire::encode::{self, ChainRef, Ids, Place};
use crate::wire::{batch_header, header, message};

/// State of a [`Transaction`] that accepts changes.
#[derive(Debug, Default)]
pub struct Building {
    invalid: Option<SealError>,
}

/// State of a [`Transaction`] that is valid and can be committed.
#[derive(Debug)]
pub struct Sealed(());

/// Changes that the kernel applies completely or not at all.
///
/// Each change is encoded when it is added. `Display` decodes the messages and prints them as a
/// script for `nft -f`, so it shows what the kernel receives.
///
/// ```text
/// Transaction<Building> ── seal ─▶ Transaction<Sealed> ── commit ─▶ Generation
/// ```
#[must_use = "nothing reaches the kernel until the transaction is sealed and committed"]
pub struct Transaction<S> {
    batch: Batch,
    expected: Option<Generation>,
    next_set: u32,
    next_chain: u32,
    changes: u32,
    /// Whether the commit certainly makes a new generation. Adding an object that exists unchanged
    /// does not.
    effective: bool,
    /// Definitions of the sets whose elements change, without elements; needed to decode them.
    definitions: Vec<(TableId, Set)>,
    state: S,
}

impl Transaction<Building> {
    /// A transaction that applies at any generation.
    pub fn unchecked() -> Self {
        Self::begin(None)
    }

    /// A transaction that fails with [`CommitError::Stale`] unless the ruleset is still at
    /// `generation`. After an [`observe`](crate::observe) during which other processes kept
    /// committing, it is enough that the observed tables are still the same.
    pub fn at(generation: Generation) -> Self {
        Self::begin(Some(generation))
    }

    fn begin(expected: Option<Generation>) -> Self {
        Self::begin_in(Batch::new(), expected)
    }

    fn begin_in(mut batch: Batch, expected: Option<Generation>) -> Self {
        batch.clear();
        batch.message(message::BATCH_BEGIN, Flags::NONE, &batch_header(), |a| {
            expected.iter().for_each(|generation| a.be32(NFNL_BATCH_GENID, generation.0));
        });
        Self {
            batch,
            expected,
            next_set: 1,
            next_chain: 0,
            changes: 0,
            effective: false,
            definitions: Vec::new(),
            state: Building::default(),
        }
    }

    fn push(&mut self, kind: u16, flags: Flags, table: &TableId, build: impl FnOnce(&mut Attributes<'_>)) {
        self.batch.message(kind, flags, &header(table.family.number()), build);
        self.changes += 1;
        self.effective |=
            matches!(kind, message::NEWRULE | message::DELTABLE | message::DELCHAIN | message::DELSETELEM);
    }

    fn wrong(&mut self, invalid: InvalidRule, object: impl FnOnce() -> String) {
        self.state.invalid.get_or_insert_with(|| SealError { object: object(), reason: invalid });
    }

    pub(crate) fn check(&mut self, checked: Result<(), InvalidRule>, object: impl FnOnce() -> String) {
        if let Err(invalid) = checked {
            self.wrong(invalid, object);
        }
    }

    /// Declares that at least one change, if there are any, is none that the kernel holds already.
    pub(crate) fn assume_effective(&mut self) {
        self.effective |= self.changes > 0;
    }

    /// Adds an empty table, or changes the flags of an existing table: `nft add table`.
    pub fn add_table(&mut self, table: &Table) {
        let flags = table.flags();
        self.push(message::NEWTABLE, Flags::CREATE, &table.id, |a| encode::table(table, flags, a));
    }

    /// Deletes a table and everything in it: `nft delete table`.
    pub fn delete_table(&mut self, table: &TableId) {
        self.push(message::DELTABLE, Flags::NONE, table, |a| encode::table_name(table, a));
    }

    /// Adds a table with everything in it: a `table` block in a script for `nft -f`.
    pub fn create(&mut self, table: &Table) {
        self.add_table(table);
        for object in table.all_objects() {
            match object {
                AnyObject::Counter(counter) => self.add_counter(&table.id, counter),
                AnyObject::Other(object) => self.add_object(&table.id, object),
            }
        }
        table.flowtables.iter().for_each(|flowtable| self.add_flowtable(&table.id, flowtable));
        table.chains.iter().for_each(|chain| self.add_chain(&table.id, chain));
        for set in &table.sets {
            self.add_set(&table.id, set);
            self.add_elements(&table.id, set);
        }
        for chain in &table.chains {
            chain.rules.iter().for_each(|rule| self.append_rule(&table.id, &chain.name, rule));
        }
        validate::check_table(table, |invalid, object| self.check(Err(invalid), || object));
    }

    /// Recreates a table: all rules are replaced at once, and counters start at 0.
    pub fn replace(&mut self, table: &Table) {
        self.add_table(&Table::new(table.id.family, table.id.name.clone()));
        self.delete_table(&table.id);
        self.create(table);
    }

    /// Adds a chain without its rules, or changes the policy of an existing base chain: `nft add chain`.
    pub fn add_chain(&mut self, table: &TableId, chain: &Chain) {
        // An observed chain may have lost its device.
        let new = chain.base.as_ref().filter(|_| chain.handle.is_none());
        let checked = new.map_or(Ok(()), |base| base.check(table.family));
        self.check(checked, || format!("chain {table} {}", chain.name));
        self.push(message::NEWCHAIN, Flags::CREATE, table, |a| encode::chain(table, chain, a));
    }

    /// Deletes a chain without rules that no rule or element jumps to: `nft delete chain`.
    pub fn delete_chain(&mut self, table: &TableId, chain: &ChainName) {
        self.push(message::DELCHAIN, Flags::NONE, table, |a| encode::chain_name(table, chain, a));
    }

    /// Appends a rule to a chain: `nft add rule`.
    pub fn append_rule(&mut self, table: &TableId, chain: &ChainName, rule: &Rule) {
        self.rule(table, chain, rule, Place::End, Flags::CREATE.and(Flags::APPEND));
    }

    /// Inserts a rule at the start of a chain: `nft insert rule`.
    pub fn prepend_rule(&mut self, table: &TableId, chain: &ChainName, rule: &Rule) {
        self.rule(table, chain, rule, Place::End, Flags::CREATE);
    }

    /// Inserts a rule before another rule: `nft insert rule TABLE CHAIN handle BEFORE ..`.
    pub fn insert_rule(&mut self, table: &TableId, chain: &ChainName, before: Handle, rule: &Rule) {
        self.rule(table, chain, rule, Place::At(before), Flags::CREATE);
    }

    /// Replaces a rule: `nft replace rule TABLE CHAIN handle OLD ..`. Its counter starts at 0.
    pub fn replace_rule(&mut self, table: &TableId, chain: &ChainName, old: Handle, rule: &Rule) {
        self.rule(table, chain, rule, Place::Instead(old), Flags::CREATE.and(Flags::REPLACE));
    }

    fn rule(&mut self, table: &TableId, chain: &ChainName, rule: &Rule, place: Place, flags: Flags) {
        if let Err(invalid) = self.rule_of(table, ChainRef::Name(chain), rule, place, flags) {
            let text = crate::display::DisplayFn(|f: &mut fmt::Formatter<'_>| {
                crate::display::rule(rule, table.family, f)
            });
            self.wrong(invalid, || format!("rule {table} {chain} {text}"));
        }
    }

    fn rule_of(
        &mut self,
        table: &TableId,
        chain: ChainRef<'_>,
        rule: &Rule,
        place: Place,
        flags: Flags,
    ) -> Result<(), InvalidRule> {
        let mut chains = Vec::new();
        for implicit in rule.implicit_chains() {
            self.next_chain += 1;
            let id = self.next_chain;
            self.push(message::NEWCHAIN, Flags::CREATE, table, |a| encode::implicit_chain(table, id, a));
            for rule in &implicit.rules {
                let append = Flags::CREATE.and(Flags::APPEND);
                self.rule_of(table, ChainRef::Id(id), rule, Place::End, append)?;
            }
            chains.push(id);
        }
        let ids = Ids { first_set: self.next_set, chains: &chains };
        rule.inline_sets(|set| self.anonymous_set(table, set));
        let mut checked = Ok(());
        self.push(message::NEWRULE, flags, table, |a| {
            checked = encode::rule(table, chain, rule, place, ids, a);
        });
        if checked.is_ok() && rule.handle.is_none() {
            checked = validate::rule::check(rule, table.family).map_err(|(invalid, _)| invalid);
        }
        checked
    }

    fn anonymous_set(&mut self, table: &TableId, set: &Set) {
        let id = self.next_set;
        self.next_set += 1;
        self.push(message::NEWSET, Flags::CREATE, table, |a| {
            encode::set(table, set, id, a);
        });
        self.element_messages(message::NEWSETELEM, table, set, Some(id), set.elements.iter().peekable());
    }

    /// Deletes a rule: `nft delete rule TABLE CHAIN handle HANDLE`.
    pub fn delete_rule(&mut self, table: &TableId, chain: &ChainName, handle: Handle) {
        self.push(message::DELRULE, Flags::NONE, table, |a| {
            encode::rule_handle(table, ChainRef::Name(chain), Some(handle), a);
        });
    }

    /// Deletes all rules of a chain: `nft flush chain`.
    pub fn flush_chain(&mut self, table: &TableId, chain: &ChainName) {
        self.push(message::DELRULE, Flags::NONE, table, |a| {
            encode::rule_handle(table, ChainRef::Name(chain), None, a)
        });
    }

    /// Adds a set or map without elements: `nft add set`, `nft add map`.
    pub fn add_set(&mut self, table: &TableId, set: &Set) {
        if let Some(invalid) = set.invalid.clone() {
            self.wrong(invalid, || format!("set {table} {}", set.name));
        }
        let checked = validate::set::check(set).map_err(|(invalid, _)| invalid);
        self.check(checked, || format!("set {table} {}", set.name));
        let id = self.next_set;
        self.next_set += 1;
        self.push(message::NEWSET, Flags::CREATE, table, |a| encode::set(table, set, id, a));
    }

    /// Deletes a set or map that no rule uses: `nft delete set`.
    pub fn delete_set(&mut self, table: &TableId, set: &SetName) {
        self.push(message::DELSET, Flags::NONE, table, |a| encode::set_name(table, set, a));
    }

    /// Adds the elements of `set` to the kernel's set of the same name: `nft add element`.
    pub fn add_elements(&mut self, table: &TableId, set: &Set) {
        self.some_elements(message::NEWSETELEM, table, set, set.elements.iter().peekable());
    }

    /// Removes the elements of `set` from the kernel's set of the same name: `nft delete element`.
    pub fn delete_elements(&mut self, table: &TableId, set: &Set) {
        self.some_elements(message::DELSETELEM, table, set, set.elements.iter().peekable());
    }

    pub(crate) fn some_elements<'e>(
        &mut self,
        kind: u16,
        table: &TableId,
        set: &Set,
        elements: Peekable<impl Iterator<Item = (&'e Span, &'e Body)>>,
    ) {
        if let Some(invalid) = set.invalid.clone() {
            self.wrong(invalid, || format!("element {table} {}", set.name));
        }
        if kind == message::NEWSETELEM {
            let checked = validate::set::check_elements(set).map_err(|(invalid, _)| invalid);
            self.check(checked, || format!("element {table} {}", set.name));
        }
        self.definitions.push((table.clone(), set.definition()));
        self.element_messages(kind, table, set, None, elements);
    }

    fn element_messages<'e>(
        &mut self,
        kind: u16,
        table: &TableId,
        set: &Set,
        id: Option<u32>,
        mut elements: Peekable<impl Iterator<Item = (&'e Span, &'e Body)>>,
    ) {
        let flags = if kind == message::NEWSETELEM { Flags::CREATE } else { Flags::NONE };
        while elements.peek().is_some() {
            self.push(kind, flags, table, |a| encode::elements(table, set, id, &mut elements, a));
        }
    }

    /// Adds a named counter: `nft add counter`.
    pub fn add_counter(&mut self, table: &TableId, counter: &Counter) {
        self.push(message::NEWOBJ, Flags::CREATE, table, |a| encode::counter(table, counter, a));
    }

    /// Deletes a named counter that no rule uses: `nft delete counter`.
    pub fn delete_counter(&mut self, table: &TableId, counter: &CounterName) {
        self.push(message::DELOBJ, Flags::NONE, table, |a| {
            encode::counter_name(table, counter, a);
        });
    }

    /// Validates the transaction, after which it can be committed.
    ///
    /// # Errors
    /// [`SealError`] for the first invalid object. Nothing has been sent.
    pub fn seal(mut self) -> Result<Transaction<Sealed>, SealError> {
        if let Some(invalid) = self.state.invalid {
            return Err(invalid);
        }
        self.batch.message(message::BATCH_END, Flags::NONE, &batch_header(), |_| {});
        Ok(Transaction {
            batch: self.batch,
            expected: self.expected,
            next_set: self.next_set,
            next_chain: self.next_chain,
            changes: self.changes,
            effective: self.effective,
            definitions: self.definitions,
            state: Sealed(()),
        })
    }
}

#[cfg(feature = "fuzzing")]
impl Transaction<Building> {
    pub(crate) fn is_valid(&self) -> bool {
        self.state.invalid.is_none()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.batch.as_bytes()
    }
}

#[cfg(test)]
impl Transaction<Building> {
    /// Without validation, to see what a kernel says.
    pub(crate) fn seal_invalid(mut self) -> Transaction<Sealed> {
        self.state.invalid = None;
        self.seal().unwrap()
    }
}

impl Transaction<Sealed> {
    /// Sends all changes as one datagram. Consumes the transaction, so it cannot be sent twice.
    ///
    /// Returns the generation that the commit made; `None` for an
    /// [unchecked](Transaction::unchecked) transaction. Ask for it with
    /// [`generation`](crate::generation), which includes later commits of other processes.
    ///
    /// # Errors
    /// [`CommitError`], whose variants state what the kernel holds.
    pub fn commit(mut self, kernel: &mut impl Kernel) -> Result<Option<Generation>, CommitError> {
        kernel.send(&mut self)
    }

    /// The datagram, e.g. to replay it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.batch.as_bytes()
    }

    /// Expects another generation than that of [`Transaction::at`], for which it was built.
    pub(crate) fn expect(&mut self, generation: Generation) {
        // The attribute is the first of the first message.
        const HEADERS: usize = 16 + 4 + 4; // nlmsghdr, nfgenmsg, nlattr
        if self.expected.is_some() {
            self.expected = Some(generation);
            self.batch.overwrite(HEADERS, &generation.0.to_be_bytes());
        }
    }

    /// The messages, for implementations of [`Kernel`].
    pub fn batch_mut(&mut self) -> &mut Batch {
        &mut self.batch
    }
}

impl<S> Transaction<S> {
    /// Whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// The number of messages.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.changes
    }

    /// The generation at which the transaction applies; `None` if it applies at any.
    #[must_use]
    pub fn expected(&self) -> Option<Generation> {
        self.expected
    }

    pub(crate) fn is_effective(&self) -> bool {
        self.effective
    }

    /// Clears the transaction and reuses its memory, so that frequent commits do not allocate.
    pub fn reset(self, expected: Option<Generation>) -> Transaction<Building> {
        Transaction::begin_in(self.batch, expected)
    }

    /// The changes, decoded from the messages, with their numbers in the datagram.
    #[must_use]
    pub fn changes(&self) -> Vec<(u32, Change)> {
        changes(self.batch.as_bytes(), &self.definitions)
    }
}

impl<S> fmt::Display for Transaction<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes().iter().try_for_each(|(_, change)| {
            change.fmt(f)?;
            f.write_str("\n")
        })
    }
}

impl<S> fmt::Debug for Transaction<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("expected", &self.expected)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}
