//! Rulesets from JSON.

use serde_json::Value;

use crate::json::error::{JsonError, Node, Read, wrong};
use crate::json::read_object::{self, Place};
use crate::json::scope::{Scope, table_of};
use crate::model::datatype::Datatype;
use crate::model::expression::Term;
use crate::model::ids::Handle;
use crate::model::matching::Source;
use crate::model::name::Comment;
use crate::model::rule::Rule;
use crate::model::ruleset::Ruleset;
use crate::model::set::Maps;
use crate::model::statement::{Statement, Target};
use crate::model::table::Table;
use crate::uapi::NFT_SET_EVAL;

/// The schema version of libnftables-json(5) that this module reads.
const SCHEMA_VERSION: u64 = 1;

/// Reads the output of `nft -j list ruleset`, of any version.
///
/// The result describes all tables of the output. [`converge`](crate::converge) makes the kernel hold
/// them in one commit and leaves other tables alone.
///
/// ```
/// use flannel_nft::json;
///
/// let listed = r#"{ "nftables": [
///     { "metainfo": { "version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1 } },
///     { "table": { "family": "ip", "name": "t", "handle": 1 } },
///     { "chain": { "family": "ip", "table": "t", "name": "c", "handle": 1 } },
///     { "rule": { "family": "ip", "table": "t", "chain": "c", "handle": 2,
///         "expr": [ { "counter": { "packets": 0, "bytes": 0 } } ] } }
/// ] }"#;
/// let ruleset = json::parse(listed)?;
/// assert_eq!(ruleset.tables()[0].chains()[0].list().len(), 1);
///
/// let error = json::parse(&listed.replace("counter", "count")).unwrap_err();
/// assert_eq!(error.path, "nftables[3].rule.expr[0]");
/// # Ok::<(), json::JsonError>(())
/// ```
///
/// # Errors
/// [`JsonError`] for the first part that is not understood. Nothing is left out.
pub fn parse(text: &str) -> Result<Ruleset, JsonError> {
    let document = document(text)?;
    ruleset(&document).map_err(|wrong| wrong.locate(&document))
}

pub(super) fn document(text: &str) -> Result<Value, JsonError> {
    serde_json::from_str(text).map_err(|error| {
        let problem = error.to_string();
        let problem = problem.split_once(" at line ").map_or(&*problem, |(problem, _position)| problem);
        JsonError {
            path: format!("line {} column {}", error.line(), error.column()),
            found: problem.to_owned(),
            expected: "valid JSON".to_owned(),
        }
    })
}

/// The objects or commands of a document, without `metainfo`.
pub(super) fn items(document: &Value) -> Read<'_, Vec<&Value>> {
    let mut items = Vec::new();
    for item in document.need("nftables")?.list()? {
        match item.field("metainfo") {
            Some(metainfo) => {
                let version = metainfo.field("json_schema_version");
                if let Some(version) = version.filter(|version| version.as_u64() != Some(SCHEMA_VERSION)) {
                    return wrong(version, format_args!("schema version {SCHEMA_VERSION}"));
                }
            }
            None => items.push(item),
        }
    }
    Ok(items)
}

fn ruleset(document: &Value) -> Read<'_, Ruleset> {
    let mut ruleset = Ruleset::new();
    let items = items(document)?;
    // Sets refer to chains, elements to sets, rules to all of them.
    let order = |item: &&Value| match item.only().map(|(name, _)| name) {
        Some("table") => 0,
        Some("rule") => 3,
        Some("element") => 2,
        _ => 1,
    };
    for pass in 0..=3 {
        for item in items.iter().copied().filter(|item| order(item) == pass) {
            let Some((kind, inner)) = item.only() else { return wrong(item, "an object with one property") };
            let id = table_of(kind, inner)?;
            if kind == "table" {
                ruleset = ruleset.table(read_object::table(inner)?);
                continue;
            }
            let Some(table) = ruleset.find_mut(&id) else {
                return wrong(inner, format_args!("table {id} before it"));
            };
            if kind == "rule" {
                let place = inner.need("chain")?;
                let mut rule = rule(inner, table)?;
                // It was accepted by a kernel: it is written as it is.
                rule.handle = inner.field("handle").map(Node::number).transpose()?.map(Handle);
                let Some(chain) = table.chains.find_mut(place.text()?) else {
                    return wrong(place, "the name of a chain of the table");
                };
                chain.rules.push(rule);
            } else {
                read_object::add(item, kind, inner, table, Place::New)?;
            }
        }
    }
    ruleset.tables.iter_mut().for_each(complete_sets);
    Ok(ruleset)
}

/// A rule for a table.
pub(super) fn rule<'j>(inner: &'j Value, table: &Table) -> Read<'j, Rule> {
    inner.allow(&["family", "table", "chain", "handle", "index", "comment", "expr"])?;
    let find = |name: &str| table.sets.find(name);
    let scope = Scope { family: table.id.family, find: &find };
    let mut rule = Rule::new();
    for statement in inner.field("expr").map_or(Ok(&[][..]), Node::list)? {
        rule.statements.push(scope.statement(statement)?);
    }
    rule.comment = inner.field("comment").map(|text| Ok(Comment::observed(text.text()?))).transpose()?;
    Ok(rule)
}

/// Completes sets by what rules do with them: JSON does not have all of their properties.
pub(super) fn complete_sets(table: &mut Table) {
    let (mut filled, mut prefixes) = (Vec::new(), Vec::new());
    for statement in table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements) {
        if let Statement::Update(update) = statement
            && let Source::Named(name) = &update.set
        {
            filled.push(name.clone());
        }
        if let Statement::Nat { computed, .. } = statement
            && let Target::Addresses(Term::Map { source: Source::Named(name), .. }) = &computed.target
        {
            prefixes.push(name.clone());
        }
    }
    // Rules can add elements only to sets with the flag `dynamic`, which nft 1.0.6 does not print.
    for name in filled {
        if let Some(set) = table.sets.find_mut(name.as_str()) {
            set.flags |= NFT_SET_EVAL;
        }
    }
    // An empty map of prefixes reads like a map of addresses.
    for name in prefixes {
        if let Some(set) = table.sets.find_mut(name.as_str())
            && let Maps::Value(datatype @ (Datatype::Ipv4Addr | Datatype::Ipv6Addr)) = set.maps
            && set.is_empty()
        {
            set.maps = Maps::Value(datatype.doubled());
        }
    }
}
