//! What a rule or an object is read for.

use serde_json::Value;

use crate::json::error::{Node, Read, wrong};
use crate::model::family::Family;
use crate::model::ids::TableId;
use crate::model::name::TableName;
use crate::model::set::Set;

/// What a rule is read for.
pub(super) struct Scope<'s> {
    pub(super) family: Family,
    /// The sets of the table, by name.
    pub(super) find: &'s dyn Fn(&str) -> Option<&'s Set>,
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("family", &self.family).finish_non_exhaustive()
    }
}

/// The identity of the table that an object is or belongs to.
pub(super) fn table_of<'j>(kind: &str, inner: &'j Value) -> Read<'j, TableId> {
    let family = inner.need("family")?;
    let name = family.text()?;
    let Some(family_of) = Family::named(name) else {
        return wrong(family, "family ip, ip6, inet, arp, bridge or netdev");
    };
    let name = inner.need(if kind == "table" { "name" } else { "table" })?;
    Ok(TableId::new(family_of, TableName::observed(name.text()?)))
}
