//! Checks of rulesets: what the kernel rejects, and what it accepts although it is useless.
//!
//! Each check reports the reason and the kernel's error, `None` if the kernel accepts the object. The
//! builder reports all reasons; the fake kernel returns the errors. The builder does not check
//! observed rules, so that they can be written back unchanged.

pub(crate) mod hooks;
pub(crate) mod jumps;
pub(crate) mod rule;
pub(crate) mod set;

use flannel_netlink::Errno;

use crate::error::InvalidRule;
use crate::model::chain::Chain;
use crate::model::element::{Body, Key, Mapped, Span};
use crate::model::matching::{Match, Source, Test};
use crate::model::name::SetName;
use crate::model::rule::Rule;
use crate::model::set::{Maps, Set};
use crate::model::statement::Statement;
use crate::model::table::Table;
use crate::model::verdict::Verdict;
use crate::uapi::NFT_OBJECT_COUNTER;

/// A reason, and the kernel's error if it rejects the object.
pub(crate) type Invalid = (InvalidRule, Option<Errno>);

/// An invalid rule, or an invalid base chain if there is no rule.
pub(crate) struct Fault<'t> {
    pub(crate) chain: &'t Chain,
    pub(crate) rule: Option<&'t Rule>,
    pub(crate) invalid: Invalid,
}

/// Checks everything that packets reach from the base chains of a table. `places_of` selects the rules
/// whose statements are checked.
pub(crate) fn check_chains(table: &Table, places_of: impl Fn(&Rule) -> bool) -> Result<(), Fault<'_>> {
    jumps::check_depths(table)?;
    hooks::check_places(table, places_of)
}

/// Calls `found` for each invalid reference in a part of the table, with the rule or element that has
/// it.
pub(crate) fn check_references(part: &Table, table: &Table, mut found: impl FnMut(InvalidRule, String)) {
    for chain in &part.chains {
        let built = chain.rules.iter().filter(|rule| rule.handle.is_none());
        for rule in built.flat_map(Rule::with_implicit) {
            references_of_rule(rule, table, |(invalid, _)| {
                found(invalid, format!("rule {} {} {rule}", table.id, chain.name));
            });
        }
    }
    for set in &part.sets {
        for (span, body) in &set.elements {
            references_of_element(set.maps, body, table, |(invalid, _)| {
                let key = Key { datatype: set.key, span: span.clone(), invalid: None };
                found(invalid, format!("element {} {} {key}", table.id, set.name));
            });
        }
    }
}

/// Checks a table with everything in it.
pub(crate) fn check_table(table: &Table, mut found: impl FnMut(InvalidRule, String)) {
    check_references(table, table, &mut found);
    if let Err(Fault { chain, rule, invalid: (invalid, _) }) =
        check_chains(table, |rule| rule.handle.is_none())
    {
        let object = match rule {
            Some(rule) => format!("rule {} {} {rule}", table.id, chain.name),
            None => format!("chain {} {}", table.id, chain.name),
        };
        found(invalid, object);
    }
}

/// Checks the chains, sets and counters that a rule refers to.
pub(crate) fn references_of_rule(rule: &Rule, table: &Table, mut found: impl FnMut(Invalid)) {
    if rule.may_jump() {
        rule.verdicts().filter_map(|verdict| target(verdict, table)).for_each(&mut found);
    }
    for statement in &rule.statements {
        if let Statement::CounterRef(name) = statement
            && table.counters.find(name.as_str()).is_none()
        {
            let missing = InvalidRule::MissingCounter { counter: name.to_string() };
            found((missing, Some(Errno::ENOENT)));
        }
        statement.each_source(&mut |source, key| {
            let Source::Named(name) = source else { return };
            let Some(set) = table.find_set(name) else {
                return found((InvalidRule::MissingSet { set: name.to_string() }, Some(Errno::ENOENT)));
            };
            let (want, have) = (key.datatype(), set.key);
            if !have.fits(want) {
                let object = format!("@{name}");
                let wrong = InvalidRule::WrongType { object, want: want.name(), have: have.name() };
                // `nft_validate_register_load`, since 6.8: the register is not loaded.
                found((wrong, (have.length().div_ceil(4) > key.words()).then_some(Errno::ENODATA)));
            }
        });
        let wrong = |name: &SetName, want| InvalidRule::WrongUse { set: name.to_string(), want };
        match statement {
            // `nft_lookup_init`
            Statement::Vmap { source: Source::Named(name), .. }
                if table.find_set(name).is_some_and(|set| set.maps != Maps::Verdict) =>
            {
                found((wrong(name, "verdict map"), Some(Errno::EINVAL)));
            }
            Statement::Match(Match { test: Test::In(Source::Named(name)), .. })
                if table.find_set(name).is_some_and(|set| set.maps != Maps::Nothing) =>
            {
                found((wrong(name, "set"), None));
            }
            _ => {}
        }
    }
}

/// Checks the chain or counter that an element refers to.
pub(crate) fn references_of_element(maps: Maps, body: &Body, table: &Table, mut found: impl FnMut(Invalid)) {
    let is_counter = maps == Maps::Object(NFT_OBJECT_COUNTER);
    match &body.mapped {
        Some(Mapped::Verdict(verdict)) => target(verdict, table).into_iter().for_each(found),
        Some(Mapped::Object(name)) if is_counter && table.counters.find(name.as_str()).is_none() => {
            found((InvalidRule::MissingCounter { counter: name.to_string() }, Some(Errno::ENOENT)));
        }
        _ => {}
    }
}

/// Checks the target of a verdict (`nft_verdict_init`).
fn target(verdict: &Verdict, table: &Table) -> Option<Invalid> {
    let name = verdict.chain()?;
    match table.chains.find(name.as_str()) {
        None => Some((InvalidRule::MissingChain { chain: name.to_string() }, Some(Errno::ENOENT))),
        Some(chain) if chain.base.is_some() => {
            Some((InvalidRule::BaseTarget { chain: name.to_string() }, Some(Errno::EOPNOTSUPP)))
        }
        Some(_) => None,
    }
}

/// Checks an element that is added to the kernel's set (`nft_add_set_elem`).
pub(crate) fn new_element(set: &Set, span: &Span, body: &Body) -> Result<(), Errno> {
    if body.timeout.is_some() && !set.has_timeouts() {
        return Err(Errno::EINVAL);
    }
    let clashes = match set.elements.get(span) {
        Some(old) => old.mapped != body.mapped,
        // Parts of concatenated ranges may overlap.
        None => set.is_interval() && !set.is_concatenated() && set.overlaps(span),
    };
    if clashes { Err(Errno::EEXIST) } else { Ok(()) }
}
