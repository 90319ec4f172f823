//! What belongs to a single rule: the kernel creates and deletes it with the rule.

use crate::bytecode::expr::Expr;
use crate::model::chain::Chain;
use crate::model::name::ChainName;
use crate::model::rule::Rule;
use crate::model::set::Set;
use crate::model::statement::Statement;
use crate::model::verdict::Verdict;
use crate::wire::references::{Reference, reference, with_set};

/// Implicit chains, and anonymous sets of expressions without a type here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attached {
    /// Expressions refer to the n-th set as `__setn`, whatever the kernel calls it.
    pub(crate) sets: Vec<Set>,
    /// `jump { ... }`: the n-th chain has the name `__chainn`.
    pub(crate) chains: Vec<Chain>,
}

/// How a verdict refers to its chain: by name or, in a batch, by ID.
pub(crate) type ChainReference = (Option<ChainName>, Option<u32>);

impl Attached {
    fn set_name(number: usize) -> String {
        format!("__set{number}")
    }

    /// The number of the set that an expression refers to.
    pub(crate) fn place_of_set(&self, expr: &Expr) -> Option<usize> {
        let Reference::Set(name, None) = reference(expr) else { return None };
        (0..self.sets.len()).find(|number| name == Self::set_name(*number).as_bytes())
    }

    /// The number of the implicit chain that an expression refers to.
    pub(crate) fn place_of_chain(&self, expr: &Expr) -> Option<usize> {
        let Expr::Verdict { chain: Some(name), .. } = expr else { return None };
        self.chains.iter().position(|chain| chain.name == *name)
    }
}

impl Rule {
    /// Moves the anonymous sets that opaque expressions use into the rule.
    pub(crate) fn attach_sets<'s>(&mut self, find: impl Fn(&[u8], Option<u32>) -> Option<&'s Set>) {
        let mut taken: Vec<(Vec<u8>, Option<u32>)> = Vec::new();
        for statement in &mut self.statements {
            let Statement::Other(expr) = statement else { continue };
            let Reference::Set(name, id) = reference(expr) else { continue };
            let Some(set) = find(name, id).filter(|set| set.is_anonymous()) else { continue };
            let key = (name.to_vec(), id);
            let number = taken.iter().position(|other| *other == key).unwrap_or_else(|| {
                let mut set = set.clone();
                set.name = set.maps.anonymous_name();
                self.attached.get_or_insert_default().sets.push(set);
                taken.push(key);
                taken.len() - 1
            });
            *expr = with_set(expr, &Attached::set_name(number), None);
        }
    }

    /// Moves the implicit chains that the rule jumps to into it. `take` returns a chain if it is
    /// implicit.
    pub(crate) fn attach_chains(&mut self, take: &mut dyn FnMut(ChainReference) -> Option<Chain>) {
        for statement in &mut self.statements {
            let reference = match statement {
                Statement::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => (Some(name.clone()), None),
                Statement::Other(Expr::Verdict { chain, id, .. }) => (chain.clone(), *id),
                _ => continue,
            };
            let Some(mut chain) = take(reference) else { continue };
            chain.rules.iter_mut().for_each(|rule| rule.attach_chains(take));
            let attached = self.attached.get_or_insert_default();
            chain.name = ChainName::observed(&format!("__chain{}", attached.chains.len()));
            match statement {
                Statement::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => name.clone_from(&chain.name),
                Statement::Other(Expr::Verdict { code, chain: name, id }) => {
                    (*name, *id) = (Some(chain.name.clone()), None);
                    let typed = Verdict::from_code(*code, name.as_ref());
                    typed.into_iter().for_each(|verdict| *statement = Statement::Verdict(verdict));
                }
                _ => {}
            }
            attached.chains.push(chain);
        }
    }

    /// The implicit chains of the rule (`jump { ... }`). Its verdicts refer to them by their names,
    /// which are unique in the rule only.
    #[must_use]
    pub fn implicit_chains(&self) -> &[Chain] {
        self.attached.as_deref().map_or(&[], |attached| &attached.chains)
    }

    /// The rule, and the rules of its implicit chains.
    pub(crate) fn with_implicit(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        let nested = self.implicit_chains().iter().flat_map(|chain| &chain.rules);
        Box::new(std::iter::once(self).chain(nested.flat_map(Self::with_implicit)))
    }
}
