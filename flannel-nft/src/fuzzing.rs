//! What the fuzz targets in testkit/fuzz call; no public API.
#![expect(clippy::panic, reason = "a panic is a finding")]

use crate::kernel::fake::FakeKernel;
use crate::transaction::change::{Change, RulePlace, changes};
use crate::transaction::{Building, Transaction};
use crate::{Observed, Ownership, Ruleset, converge, diff, observe};

/// Reads a batch, a dump or notifications. A change that is written and read again is the same, and so are its bytes
/// from the second time on: the first time, attributes may change places.
pub fn nft_changes(bytes: &[u8]) {
    for (_, change) in changes(bytes, &[]) {
        let _text = change.to_string();
        let Some(first) = encoded(&change).filter(Transaction::is_valid) else { continue };
        let change = only(&first);
        // An object of a kernel, with a handle, passes as it is; without one it may be invalid.
        let Some(second) = encoded(&change) else { panic!("written again it is nothing: {change}") };
        let again = only(&second);
        assert_eq!(again.to_string(), change.to_string(), "{:02x?}", first.bytes());
        let Some(third) = encoded(&again) else { panic!("written again it is nothing: {again}") };
        assert!(second.bytes() == third.bytes(), "{again}\n{:02x?}\n{:02x?}", second.bytes(), third.bytes());
    }
}

fn only(transaction: &Transaction<Building>) -> Change {
    let mut changes = transaction.changes();
    match (changes.pop(), changes.pop()) {
        (Some((_, change)), None) => change,
        (last, _) => panic!("one change is written as {last:?} and others"),
    }
}

/// Reads tables. They equal themselves. A copy in another kernel, unless that refuses it, equals its own copy: the first
/// time, it loses what no kernel sends.
pub fn nft_ruleset(bytes: &[u8]) {
    let mut kernel = FakeKernel::default();
    for (_, change) in changes(bytes, &[]) {
        let _applied_or_refused = kernel.apply(change);
    }
    // A table with an owner is another's, and would be taken over.
    let tables =
        kernel.tables().iter().filter(|table| table.owner.is_none() && table.ownership != Ownership::Owner);
    let read: Ruleset = tables.cloned().collect();
    let observed = observe(&mut kernel, &read.scope()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(diff(&read, &observed).to_string(), "");
    let Some(copy) = copied(&read) else { return };
    // What a kernel has, with a handle, passes; without one it may be invalid.
    let Some(again) = copied(&copy.ruleset) else { return };
    assert_eq!(again.ruleset.to_string(), copy.ruleset.to_string());
    assert_eq!(diff(&copy.ruleset, &again).to_string(), "");
}

/// The ruleset as another kernel has it.
fn copied(ruleset: &Ruleset) -> Option<Observed> {
    let mut kernel = FakeKernel::default();
    converge(&mut kernel, ruleset).ok()?;
    observe(&mut kernel, &ruleset.scope()).ok()
}

/// A transaction with this change alone; `None` if it has no encoding here or is an empty list of elements.
fn encoded(change: &Change) -> Option<Transaction<Building>> {
    let mut transaction = Transaction::unchecked();
    match change {
        Change::AddTable(table) => transaction.add_table(table),
        Change::AddChain(id, chain) => transaction.add_chain(id, chain),
        Change::AddRule(id, chain, place, rule) => match place {
            RulePlace::Last => transaction.append_rule(id, chain, rule),
            RulePlace::First => transaction.prepend_rule(id, chain, rule),
            RulePlace::Before(handle) => transaction.insert_rule(id, chain, *handle, rule),
            RulePlace::Instead(handle) => transaction.replace_rule(id, chain, *handle, rule),
            RulePlace::After(_) => return None,
        },
        Change::AddSet(id, set) => transaction.add_set(id, set),
        Change::AddElements(id, set) => transaction.add_elements(id, set),
        Change::DeleteElements(id, set) => transaction.delete_elements(id, set),
        Change::AddCounter(id, counter) => transaction.add_counter(id, counter),
        Change::AddObject(id, object) => transaction.add_object(id, object),
        Change::AddFlowtable(id, flowtable) => transaction.add_flowtable(id, flowtable),
        _ => return None,
    }
    (!transaction.is_empty()).then_some(transaction)
}
