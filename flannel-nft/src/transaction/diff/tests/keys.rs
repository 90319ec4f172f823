//! Rules that differ in anything that the kernel holds, except for counts, have different numbers.

use super::*;
use crate::model::bindings::Attached;
use crate::model::matching::{Match, Test};
use crate::model::opaque::Extra;

const NFTA_RULE_COMPAT: u16 = 5; // set by iptables-nft

/// The numbers of the rules, by first occurrence.
fn numbers(rules: &[Rule]) -> Vec<usize> {
    let mut keys = Keys::default();
    rules.iter().map(|rule| keys.key(&table(), rule)).collect()
}

/// A rule that jumps to an implicit chain with each of these lists of rules.
fn jumps(chains: &[&[Rule]]) -> Rule {
    let mut rule = Rule::new();
    let mut attached = Attached::default();
    for rules in chains {
        let name = ChainName::observed(&format!("__chain{}", attached.chains.len()));
        rule.statements.push(Statement::Verdict(Verdict::Jump(name.clone())));
        attached.chains.push(Chain { implicit: true, ..Chain::regular(name).rules(rules.to_vec()) });
    }
    rule.attached = Some(Box::new(attached));
    rule
}

#[test]
fn rules_with_different_implicit_chains_are_different() {
    let counted = |packets| {
        let mut rule = Rule::new();
        rule.statements.push(Statement::Counter { packets, bytes: packets });
        rule
    };
    let rules = [
        jumps(&[&[rule(1), rule(2)]]),
        jumps(&[&[rule(1)]]),
        jumps(&[&[rule(2), rule(1)]]),
        jumps(&[&[rule(1)], &[rule(2)]]),
        jumps(&[&[], &[rule(1), rule(2)]]),
        jumps(&[&[jumps(&[&[rule(1)]]), rule(2)]]),
        jumps(&[&[jumps(&[&[rule(1), rule(2)]])]]),
        jumps(&[&[counted(0)]]),
    ];
    assert_eq!(numbers(&rules), [0, 1, 2, 3, 4, 5, 6, 7]);
    let same = [jumps(&[&[rule(1), rule(2)]]), jumps(&[&[counted(5)]])];
    assert_eq!(numbers(&[rules.to_vec(), same.to_vec()].concat())[8..], [0, 7]);
}

#[test]
fn rules_with_different_attributes_without_a_type_are_different() {
    let with = |kind: u16, payload: &[u8]| Rule { extra: Extra(vec![(kind, payload.into())]), ..rule(1) };
    let (compat, newer) = (NFTA_RULE_COMPAT, NFTA_RULE_CHAIN_ID + 1);
    let rules = [rule(1), with(compat, b"a"), with(compat, b"b"), with(newer, b"a"), with(compat, b"")];
    assert_eq!(numbers(&rules), [0, 1, 2, 0, 0]);
}

#[test]
fn rules_whose_anonymous_sets_have_keys_of_different_types_are_different() {
    let looks_up = |datatype: Datatype| {
        let key = Key { datatype, ..Key::from(Value::mark(1)) };
        let source = Source::inline(datatype, Maps::Nothing, [(key, Body::default())]);
        Rule::new().when(Match::new(field::meta::MARK, Test::In(source)))
    };
    let integer = Datatype::Integer { length: 4, host: true };
    let rules = [looks_up(Datatype::Mark), looks_up(integer), looks_up(Datatype::Mark)];
    assert_eq!(numbers(&rules), [0, 1, 0]);
}
