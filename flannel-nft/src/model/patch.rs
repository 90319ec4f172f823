//! Changes of a part of a table.

use std::collections::BTreeMap;

use crate::error::{InvalidRule, SealError};
use crate::model::chain::Chain;
use crate::model::element::{Body, Element, Key, Span};
use crate::model::name::{ChainName, SetName};
use crate::model::set::Set;
use crate::model::table::Table;

/// Changes of chains and set elements of a table, for
/// [`RetainedRuleset::patch`](crate::RetainedRuleset::patch): everything that they do not name stays.
///
/// ```
/// use flannel_nft::{Chain, ChainName, Datatype, Element, FakeKernel, Family, RetainedRuleset, Rule, Ruleset, Set,
///     SetName, Table, TableName, TablePatch, Verdict};
///
/// let services = SetName::new("services")?;
/// let table = Table::new(Family::Ip, TableName::new("proxy")?)
///     .set(Set::verdict_map(services.clone(), Datatype::InetService));
/// let id = table.id().clone();
/// let mut kernel = FakeKernel::default(); // Netlink::open()? for the real one
/// let mut retained = RetainedRuleset::new(Ruleset::new().table(table));
/// retained.reconcile(&mut kernel)?;
///
/// let chain = ChainName::new("service-1")?;
/// let patch = TablePatch::new()
///     .chain(Chain::regular(chain.clone()).rule(Rule::new().accept()))
///     .element(&services, Element::new(80).verdict(Verdict::Goto(chain)));
/// retained.patch(&mut kernel, &id, patch)?;
/// assert!(kernel.script().ends_with(
///     "add chain ip proxy service-1
/// add element ip proxy services { 80 : goto service-1 }
/// add rule ip proxy service-1 accept
/// "
/// ));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TablePatch {
    chains: Vec<Chain>,
    absent_chains: Vec<ChainName>,
    elements: Vec<(SetName, Element)>,
    absent_elements: Vec<(SetName, Key)>,
}

impl TablePatch {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a chain, or replaces the chain of the same name. Rules that stay keep their handles and
    /// counters.
    #[must_use]
    pub fn chain(mut self, chain: Chain) -> Self {
        self.chains.push(chain);
        self
    }

    /// Removes a chain, if it exists.
    #[must_use]
    pub fn without_chain(mut self, chain: ChainName) -> Self {
        self.absent_chains.push(chain);
        self
    }

    /// Adds an element to a set or map of the table, or replaces the element with the same key.
    #[must_use]
    pub fn element(mut self, set: &SetName, element: impl Into<Element>) -> Self {
        self.elements.push((set.clone(), element.into()));
        self
    }

    /// Removes the element with exactly this key from a set or map of the table, if it exists.
    /// Elements are removed before others are added.
    #[must_use]
    pub fn without_element(mut self, set: &SetName, key: impl Into<Key>) -> Self {
        self.absent_elements.push((set.clone(), key.into()));
        self
    }
}

/// The parts of a table that a patch changes.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) old: Table,
    pub(crate) new: Table,
}

impl Parts {
    /// Records an element that is not in the set any more.
    fn displace(&mut self, set: &Set, span: Span, body: Body) {
        let of_patch = self.new.sets.find_mut(set.name.as_str()).and_then(|part| part.elements.remove(&span));
        if of_patch.is_none() {
            elements_of(&mut self.old, set, |elements| drop(elements.insert(span, body)));
        }
    }
}

/// Calls `edit` with the elements that a part has of the set.
fn elements_of(part: &mut Table, set: &Set, edit: impl FnOnce(&mut BTreeMap<Span, Body>)) {
    if part.find_set(&set.name).is_none() {
        part.sets.insert(set.definition());
    }
    if let Some(set) = part.sets.find_mut(set.name.as_str()) {
        edit(&mut set.elements);
    }
}

impl Table {
    /// Applies the patch. Changes nothing if it is invalid.
    pub(crate) fn apply(&mut self, patch: TablePatch) -> Result<Parts, SealError> {
        let mut parts = Parts { old: self.without_objects(), new: self.without_objects() };
        for name in patch.absent_chains {
            self.chains.remove(name.as_str()).into_iter().for_each(|old| drop(parts.old.chains.insert(old)));
        }
        for chain in patch.chains {
            let old = self.chains.insert(chain.clone());
            if parts.new.chains.insert(chain).is_none()
                && let Some(old) = old
            {
                parts.old.chains.insert(old);
            }
        }
        let absent = patch.absent_elements.into_iter().map(|(set, key)| (set, Err(key)));
        let present = patch.elements.into_iter().map(|(set, element)| (set, Ok(element)));
        for (name, change) in absent.chain(present) {
            if let Err(reason) = self.apply_element(&name, change, &mut parts) {
                let object = format!("element {} {name}", self.id);
                self.undo(&parts);
                return Err(SealError { object, reason });
            }
        }
        Ok(parts)
    }

    fn apply_element(
        &mut self,
        name: &SetName,
        change: Result<Element, Key>,
        parts: &mut Parts,
    ) -> Result<(), InvalidRule> {
        let missing = || InvalidRule::MissingSet { set: name.to_string() };
        let set = self.sets.find_mut(name.as_str()).ok_or_else(missing)?;
        // Both parts have the set, so that it is not added or deleted.
        elements_of(&mut parts.old, set, |_| {});
        elements_of(&mut parts.new, set, |_| {});
        match change {
            Err(key) => {
                if let Some(body) = set.elements.remove(&key.span) {
                    parts.displace(set, key.span, body);
                }
            }
            Ok(element) => {
                let placed = set.put(element)?;
                for (span, body) in placed.displaced {
                    parts.displace(set, span, body);
                }
                if let Some(body) = set.elements.get(&placed.span).cloned() {
                    elements_of(&mut parts.new, set, |elements| drop(elements.insert(placed.span, body)));
                }
            }
        }
        Ok(())
    }

    /// Reverts [`Table::apply`], except for the order of chains.
    pub(crate) fn undo(&mut self, parts: &Parts) {
        for chain in &parts.new.chains {
            self.chains.remove(chain.name.as_str());
        }
        for chain in &parts.old.chains {
            self.chains.insert(chain.clone());
        }
        for part in &parts.new.sets {
            elements_of(self, part, |elements| {
                part.elements.keys().for_each(|span| drop(elements.remove(span)));
            });
        }
        for part in &parts.old.sets {
            elements_of(self, part, |elements| elements.extend(part.elements.clone()));
        }
    }
}
