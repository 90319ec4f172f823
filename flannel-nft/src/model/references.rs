//! The objects of the same table that rules and elements refer to.

use crate::model::element::{Body, Mapped};
use crate::model::rule::Rule;
use crate::model::set::Maps;
use crate::model::statement::Statement;
use crate::model::verdict::Verdict;
use crate::uapi::NFT_OBJECT_COUNTER;
use crate::wire::references::{Reference, reference};

impl Rule {
    /// Calls `found` for each object of the table that the rule refers to, also in its anonymous maps and implicit
    /// chains.
    pub(crate) fn each_reference(&self, mut found: impl FnMut(Reference<'_>)) {
        self.verdicts().filter_map(Verdict::chain).for_each(|chain| found(Reference::Chain(chain)));
        for rule in self.with_implicit() {
            rule.inline_sets(|set| set.elements.values().for_each(|body| found(body.reference(set.maps))));
            for statement in &rule.statements {
                match statement {
                    Statement::CounterRef(name) => {
                        found(Reference::Object { kind: NFT_OBJECT_COUNTER, name: name.as_bytes() });
                    }
                    Statement::Object { kind, name } => {
                        found(Reference::Object { kind: *kind, name: name.as_bytes() });
                    }
                    Statement::FlowAdd(name) => found(Reference::Flowtable(name.as_bytes())),
                    Statement::Other(expr) => found(reference(expr)),
                    other => other.each_named_set(&mut |set| found(Reference::Set(set.as_bytes(), None))),
                }
            }
        }
    }
}

impl Body {
    /// What the element of a set or map refers to.
    pub(crate) fn reference(&self, maps: Maps) -> Reference<'_> {
        match (&self.mapped, maps) {
            (Some(Mapped::Verdict(verdict)), _) => {
                verdict.chain().map_or(Reference::Nothing, Reference::Chain)
            }
            (Some(Mapped::Object(name)), Maps::Object(kind)) => {
                Reference::Object { kind, name: name.as_bytes() }
            }
            (Some(Mapped::Object(_)), _) => Reference::Unknown,
            (Some(Mapped::Value(_)) | None, _) => Reference::Nothing,
        }
    }
}
