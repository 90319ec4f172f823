//! Changes of a part of a table.

use super::*;
use crate::model::element::Element;
use crate::model::patch::TablePatch;

/// The changes of a patch, and whether their commit certainly makes a new generation.
fn patched(mut table: Table, patch: TablePatch) -> (u32, bool) {
    let parts = table.apply(patch).unwrap();
    let transaction = diff_parts(&table, &parts, Generation(7));
    assert_eq!(transaction.expected(), Some(Generation(7)));
    (transaction.len(), transaction.is_effective())
}

#[test]
fn a_patch_makes_a_generation_unless_it_changes_nothing_or_rules_may_have_added_its_elements() {
    let with = |changed: fn(Set) -> Set| {
        let plain = changed(Set::new(set("s"), Datatype::InetService)).elements([1_u16]);
        table().set(plain).chain(chain("c", [rule(1)]))
    };
    let element = |port: u16| TablePatch::new().element(&set("s"), Element::new(port));
    assert_eq!(patched(with(|set| set), element(2)), (1, true));
    assert_eq!(patched(with(|set| set), element(1)), (0, false));
    let dynamic = || with(|set| set.dynamic().size(9));
    assert_eq!(patched(dynamic(), element(2)), (1, false), "a rule may have added it");
    let new_chain = TablePatch::new().chain(chain("d", []));
    assert_eq!(patched(dynamic(), new_chain), (1, true));
    let with_rule = element(2).chain(chain("d", [rule(2)]));
    assert_eq!(patched(dynamic(), with_rule), (3, true), "a new rule always makes one");
}
