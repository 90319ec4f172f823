//! Checks that a table has every chain, set and counter that its rules and elements refer to.

use crate::error::InvalidRule;
use crate::model::element::{Key, Mapped};
use crate::model::matching::{Match, Source, Test};
use crate::model::rule::Rule;
use crate::model::statement::Statement;
use crate::model::table::Table;

/// Calls `found` for each reference of a part of the table to a missing chain, set or counter, with
/// the rule or element that has it.
pub(crate) fn check_references(part: &Table, table: &Table, mut found: impl FnMut(InvalidRule, String)) {
    let missing_chain = |chain: &str| {
        let missing = InvalidRule::MissingChain { chain: chain.to_owned() };
        table.chains.find(chain).is_none().then_some(missing)
    };
    for chain in &part.chains {
        for rule in chain.rules.iter().flat_map(Rule::with_implicit) {
            let object = || format!("rule {} {} {rule}", table.id, chain.name);
            for target in rule.verdicts().filter_map(|verdict| verdict.chain()) {
                if let Some(missing) = missing_chain(target.as_str()) {
                    found(missing, object());
                }
            }
            for statement in &rule.statements {
                let (set, want) = match statement {
                    Statement::CounterRef(name) if table.counters.find(name.as_str()).is_none() => {
                        found(InvalidRule::MissingCounter { counter: name.to_string() }, object());
                        continue;
                    }
                    Statement::Match(Match { left: key, test: Test::In(Source::Named(set)), .. })
                    | Statement::Vmap { key, source: Source::Named(set) } => (set, key.datatype()),
                    _ => continue,
                };
                match table.find_set(set) {
                    None => found(InvalidRule::MissingSet { set: set.to_string() }, object()),
                    Some(other) if !other.key.fits(want) => {
                        let wrong = InvalidRule::WrongType {
                            object: format!("@{set}"),
                            want: want.name(),
                            have: other.key.name(),
                        };
                        found(wrong, object());
                    }
                    Some(_) => {}
                }
            }
        }
    }
    for set in &part.sets {
        for (span, body) in &set.elements {
            if let Some(Mapped::Verdict(verdict)) = &body.mapped
                && let Some(missing) = verdict.chain().and_then(|chain| missing_chain(chain.as_str()))
            {
                let key = Key { datatype: set.key, span: span.clone(), invalid: None };
                found(missing, format!("element {} {} {key}", table.id, set.name));
            }
        }
    }
}
