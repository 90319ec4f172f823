//! Checks of jumps: loops, and chains too far below a base chain (`nft_chain_validate`,
//! net/netfilter/nf_tables_api.c).

use flannel_netlink::Errno;

use crate::error::InvalidRule;
use crate::model::chain::Chain;
use crate::model::element::Mapped;
use crate::model::matching::Source;
use crate::model::rule::Rule;
use crate::model::statement::Statement;
use crate::model::table::Table;
use crate::model::validate::Fault;
use crate::model::verdict::Verdict;

/// Maximum number of chains below each other, the base chain included (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 16;

/// Checks the jumps of all chains of a table that packets reach from its base chains.
pub(crate) fn check_depths(table: &Table) -> Result<(), Fault<'_>> {
    let mut graph = Graph { table, depths: vec![None; table.chains.len()], path: Vec::new() };
    for chain in table.chains.iter().filter(|chain| chain.base.is_some()) {
        graph.depth(chain, None)?;
    }
    Ok(())
}

struct Graph<'t> {
    table: &'t Table,
    /// By place in the table: the number of chains below each other from this chain on.
    depths: Vec<Option<usize>>,
    path: Vec<&'t Chain>,
}

impl<'t> Graph<'t> {
    /// The number of chains below each other from this chain on. Not more than [`MAX_DEPTH`] calls
    /// are active at once.
    fn depth(&mut self, chain: &'t Chain, from: Option<(&'t Chain, &'t Rule)>) -> Result<usize, Fault<'t>> {
        let place = self.table.chains.place(chain.name.as_str());
        let known = place.and_then(|place| self.depths.get(place).copied().flatten());
        if self.path.len() + known.unwrap_or(1) > MAX_DEPTH {
            let looped = self.path.iter().any(|above| above.name == chain.name);
            let name = chain.name.to_string();
            let invalid =
                if looped { InvalidRule::Loop { chain: name } } else { InvalidRule::TooDeep { chain: name } };
            let (chain, rule) = from.map_or((chain, None), |(chain, rule)| (chain, Some(rule)));
            return Err(Fault { chain, rule, invalid: (invalid, Some(Errno::EMLINK)) });
        }
        if let Some(known) = known {
            return Ok(known);
        }
        self.path.push(chain);
        let mut deepest = 0;
        for rule in chain.rules.iter().filter(|rule| rule.may_jump()) {
            for target in targets(self.table, rule) {
                deepest = deepest.max(self.depth(target, Some((chain, rule)))?);
            }
        }
        self.path.pop();
        if let Some(depth) = place.and_then(|place| self.depths.get_mut(place)) {
            *depth = Some(deepest + 1);
        }
        Ok(deepest + 1)
    }
}

/// The chains that a rule jumps to, also by verdict maps.
pub(crate) fn targets<'t>(table: &'t Table, rule: &'t Rule) -> impl Iterator<Item = &'t Chain> {
    let maps = rule.statements.iter().filter_map(|statement| match statement {
        Statement::Vmap { source: Source::Named(name), .. } => table.find_set(name),
        _ => None,
    });
    let mapped = maps.flat_map(|map| map.elements.values()).filter_map(|body| match &body.mapped {
        Some(Mapped::Verdict(verdict)) => Some(verdict),
        _ => None,
    });
    rule.verdicts()
        .chain(mapped)
        .filter_map(Verdict::chain)
        .filter_map(|name| table.chains.find(name.as_str()))
}
