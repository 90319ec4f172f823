//! Tables, chains, sets and counters.

use std::fmt::{self, Display, Formatter};

use crate::bytecode::delinearize_statement::stateful;
use crate::bytecode::expr::Expr;
use crate::display::expression::{concat_range, sorted, term};
use crate::display::statement::statement;
use crate::display::{NftVersion, duration, flowtable_block, indented_rule, object_block};
use crate::model::chain::{Base, Chain, Hook, Policy};
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Mapped, Span};
use crate::model::expression::Term;
use crate::model::family::Family;
use crate::model::field::{Field, Kind};
use crate::model::object::object_kind;
use crate::model::ruleset::Ruleset;
use crate::model::set::{Maps, Set};
use crate::model::statement::Statement;
use crate::model::table::{AnyObject, Counter, Table};
use crate::model::verdict::Verdict;
use crate::uapi::*;
use crate::wire::set_definition::{declared, declared_values, statements_of};

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", self.id)?;
        table_block(self, "\t", "\n", f)?;
        let mut between = if names_flags(self) { "\n" } else { "" };
        for object in self.all_objects() {
            match object {
                AnyObject::Counter(counter) => {
                    writeln!(f, "{between}\tcounter {} {{", counter.name)?;
                    counter_block(counter, "\t\t", "\n", f)?;
                }
                AnyObject::Other(object) => {
                    writeln!(f, "{between}\t{} {} {{", object_kind(object.number), object.name)?;
                    object_block(object, "\t\t", "\n", f)?;
                }
            }
            f.write_str("\t}\n")?;
            between = "\n";
        }
        for set in &self.sets {
            writeln!(f, "{between}\t{} {} {{", kind(set), set.name)?;
            set_block(set, "\t\t", "\n", f)?;
            elements(set, f)?;
            f.write_str("\t}\n")?;
            between = "\n";
        }
        for flowtable in &self.flowtables {
            writeln!(f, "{between}\tflowtable {} {{", flowtable.name)?;
            flowtable_block(flowtable, "\t\t", "\n", f)?;
            f.write_str("\t}\n")?;
            between = "\n";
        }
        for chain in &self.chains {
            writeln!(f, "{between}\tchain {} {{", chain.name)?;
            chain_block(chain, self.id.family, "\t\t", "\n", f)?;
            for line in &chain.rules {
                f.write_str("\t\t")?;
                indented_rule(line, self.id.family, Some("\t\t"), f)?;
                f.write_str("\n")?;
            }
            f.write_str("\t}\n")?;
            between = "\n";
        }
        f.write_str("}\n")
    }
}

const FLAGS: [(u32, &str); 3] =
    [(NFT_TABLE_F_DORMANT, "dormant"), (NFT_TABLE_F_OWNER, "owner"), (NFT_TABLE_F_PERSIST, "persist")];

/// Whether the table has flags that are printed.
fn names_flags(table: &Table) -> bool {
    FLAGS.iter().any(|(bit, _)| table.flags() & bit != 0)
}

/// `set` or `map`.
pub(crate) fn kind(set: &Set) -> &'static str {
    if set.maps == Maps::Nothing { "set" } else { "map" }
}

/// Starts each line with `indent` and ends it with `end`, as the functions below do.
pub(crate) fn table_block(table: &Table, indent: &str, end: &str, f: &mut Formatter<'_>) -> fmt::Result {
    let set: Vec<&str> =
        FLAGS.iter().filter(|(bit, _)| table.flags() & bit != 0).map(|(_, name)| *name).collect();
    if !set.is_empty() {
        write!(f, "{indent}flags {}{end}", set.join(","))?;
    }
    table.comment.iter().try_for_each(|comment| write!(f, "{indent}comment \"{comment}\"{end}"))
}

pub(crate) fn counter_block(
    counter: &Counter,
    indent: &str,
    end: &str,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    counter.comment.iter().try_for_each(|comment| write!(f, "{indent}comment \"{comment}\"{end}"))?;
    write!(f, "{indent}packets {} bytes {}{end}", counter.packets, counter.bytes)
}

pub(crate) fn chain_block(
    chain: &Chain,
    family: Family,
    indent: &str,
    end: &str,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    chain.comment.iter().try_for_each(|comment| write!(f, "{indent}comment \"{comment}\"{end}"))?;
    let Some(base) = &chain.base else { return Ok(()) };
    write!(f, "{indent}type {} hook {}", base.kind.name(), base.hook.name())?;
    match base.devices.as_slice() {
        [] => {}
        [device] => write!(f, " device \"{device}\"")?,
        devices => {
            let quote = if NftVersion::of(f) == NftVersion::V1_0 { "" } else { "\"" };
            let mut names: Vec<String> =
                devices.iter().map(|device| format!("{quote}{device}{quote}")).collect();
            names.sort_unstable();
            write!(f, " devices = {{ {} }}", names.join(", "))?;
        }
    }
    f.write_str(" priority ")?;
    priority(base, family, f)?;
    let policy = if base.policy == Policy::Accept { "accept" } else { "drop" };
    write!(f, "; policy {policy};{}", if end == "\n" { end } else { " " })
}

/// Prints a named priority if one is near, like nft (src/rule.c, `std_prios`).
fn priority(base: &Base, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
    let number = base.priority.number();
    let named: &[(&str, i32, Option<Hook>)] = match family {
        Family::Bridge => &[
            ("dstnat", -300, Some(Hook::Prerouting)),
            ("filter", -200, None),
            ("out", 100, Some(Hook::Output)),
            ("srcnat", 300, Some(Hook::Postrouting)),
        ],
        Family::Arp | Family::Netdev => &[("filter", 0, None)],
        _ => &[
            ("raw", -300, None),
            ("mangle", -150, None),
            ("dstnat", -100, Some(Hook::Prerouting)),
            ("filter", 0, None),
            ("security", 50, None),
            ("srcnat", 100, Some(Hook::Postrouting)),
        ],
    };
    // nft 1.1 also knows the names at the hooks at which packets from and to this host are translated.
    let is_newer = NftVersion::of(f) == NftVersion::V1_1 && family != Family::Bridge;
    let near = named.iter().find(|(name, at, hook)| {
        let is_here = hook.is_none_or(|hook| hook == base.hook);
        let is_also = matches!((*name, base.hook), ("dstnat", Hook::Output) | ("srcnat", Hook::Input));
        number.abs_diff(*at) <= 10 && (is_here || (is_newer && is_also))
    });
    match near {
        Some((name, at, _)) if number == *at => f.write_str(name),
        Some((name, at, _)) if number > *at => write!(f, "{name} + {}", number - at),
        Some((name, at, _)) => write!(f, "{name} - {}", at - number),
        None => write!(f, "{number}"),
    }
}

pub(crate) fn set_block(set: &Set, indent: &str, end: &str, f: &mut Formatter<'_>) -> fmt::Result {
    let version = NftVersion::of(f);
    match declared(set) {
        Some(key) => {
            write!(f, "{indent}typeof ")?;
            term(&key, f)?;
        }
        None => write!(f, "{indent}type {}", set.key)?,
    }
    match set.maps {
        Maps::Nothing => {}
        Maps::Value(datatype) => {
            f.write_str(if datatype.end().is_some() { " : interval " } else { " : " })?;
            match declared_values(set) {
                Some(values) => term(&values, f)?,
                None => write!(f, "{}", datatype.end().unwrap_or(datatype))?,
            }
        }
        Maps::Verdict => f.write_str(" : verdict")?,
        Maps::Object(number) => write!(f, " : {}", object_kind(number))?,
    }
    f.write_str(end)?;
    let is_constant = set.flags & NFT_SET_CONSTANT != 0;
    if let Some(size) = set.size.filter(|size| *size > 0 && !is_constant) {
        write!(f, "{indent}size {size}")?;
        // The rest of a line would be part of this comment.
        if version == NftVersion::V1_1 && !set.is_empty() && end == "\n" {
            write!(f, "\t# count {}", set.len())?;
        }
        f.write_str(end)?;
    }
    let names = [
        (NFT_SET_CONSTANT, "constant"),
        (NFT_SET_EVAL, "dynamic"),
        (NFT_SET_INTERVAL, "interval"),
        (NFT_SET_TIMEOUT, "timeout"),
    ];
    let named = names.iter().fold(0, |sum, (bit, _)| sum | bit);
    // nft omits the flag `timeout` if it is the only one and there is a default timeout.
    let implied = if set.timeout.is_some() { NFT_SET_TIMEOUT } else { 0 };
    if set.flags & named & !implied != 0 {
        write!(f, "{indent}flags ")?;
        let mut between = "";
        for (_, name) in names.iter().filter(|(bit, _)| set.flags & bit != 0) {
            write!(f, "{between}{name}")?;
            between = ",";
        }
        f.write_str(end)?;
    }
    let statements = statements_of(set);
    if !statements.is_empty() {
        f.write_str(indent)?;
        element_statements(&statements, false, f)?;
        f.write_str(end)?;
    }
    if set.memory && !is_constant {
        write!(f, "{indent}policy memory{end}")?;
    }
    for (word, time) in [("timeout", set.timeout), ("gc-interval", set.gc_interval)] {
        if let Some(time) = time {
            write!(f, "{indent}{word} ")?;
            duration(time, f)?;
            f.write_str(end)?;
        }
    }
    if set.auto_merge {
        write!(f, "{indent}auto-merge{end}")?;
    }
    set.comment.iter().try_for_each(|comment| write!(f, "{indent}comment \"{comment}\"{end}"))
}

fn elements(set: &Set, f: &mut Formatter<'_>) -> fmt::Result {
    if set.elements.is_empty() {
        return Ok(());
    }
    f.write_str("\t\telements = { ")?;
    let version = NftVersion::of(f);
    let is_plain = |body: &Body| {
        let is_timed = body.timeout.is_some() || body.expires.is_some();
        !is_timed && body.comment.is_none() && body.mapped.is_none() && body.exprs.is_empty()
    };
    let is_long = version == NftVersion::V1_1 && !set.elements.values().all(is_plain);
    let per_line = if is_long { 1 } else { set.key.per_line() };
    for (index, (span, body)) in sorted(set, version).into_iter().enumerate() {
        if index > 0 {
            f.write_str(if index % per_line == 0 { ",\n\t\t\t     " } else { ", " })?;
        }
        element(set, span, body, f)?;
    }
    f.write_str(" }\n")
}

pub(crate) fn element(set: &Set, span: &Span, body: &Body, f: &mut Formatter<'_>) -> fmt::Result {
    match span {
        Span::One(data) => key(set, data, data, f)?,
        Span::Range(first, last) => key(set, first, last, f)?,
        Span::CatchAll => f.write_str("*")?,
    }
    element_rest(set, body, None, f)
}

/// A key of a named set.
fn key(set: &Set, first: &Data, last: &Data, f: &mut Formatter<'_>) -> fmt::Result {
    let declared = match declared(set) {
        // The numbers in a concatenation have no type that the set could name.
        Some(Term::Concat(parts)) if set.key.parts().len() < 2 => Some(parts),
        Some(raw @ Term::Field(Field(Kind::Raw { .. }))) => Some(vec![raw]),
        _ => None,
    };
    match declared {
        Some(parts) => concat_range(&parts, first, last, set.is_interval(), f),
        None => {
            // The kernel sorts intervals, so their ends are in network byte order.
            let host = |data: &Data| if set.is_interval() { set.key.unsorted(data) } else { data.clone() };
            set.key.write_range(&host(first), &host(last), f)
        }
    }
}

/// What follows the key of an element. `values` is the type of values that the set's definition does
/// not say.
pub(crate) fn element_rest(
    set: &Set,
    body: &Body,
    values: Option<Datatype>,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    if !body.exprs.is_empty() {
        f.write_str(" ")?;
        element_statements(&body.exprs, true, f)?;
    }
    for (word, time) in [("timeout", body.timeout), ("expires", body.expires)] {
        if let Some(time) = time {
            write!(f, " {word} ")?;
            duration(time, f)?;
        }
    }
    body.comment.iter().try_for_each(|comment| write!(f, " comment \"{comment}\""))?;
    match (&body.mapped, set.maps) {
        (Some(Mapped::Value(data)), Maps::Value(datatype)) => {
            f.write_str(" : ")?;
            let datatype = values.unwrap_or(datatype);
            match datatype.halves(data) {
                Some((datatype @ (Datatype::Ipv4Addr | Datatype::Ipv6Addr), first, last))
                    if first == last =>
                {
                    datatype.write(&first, f)?;
                    write!(f, "/{}", datatype.length() * 8)
                }
                Some((datatype, first, last)) => datatype.write_range(&first, &last, f),
                None => datatype.write_element(data, f),
            }
        }
        (Some(Mapped::Verdict(end)), _) => {
            f.write_str(" : ")?;
            verdict(end, f)
        }
        (Some(Mapped::Object(name)), _) => write!(f, " : \"{name}\""),
        _ => Ok(()),
    }
}

/// The statements of an element, or those that each new element of a set gets, without state.
fn element_statements(exprs: &[Expr], with_state: bool, f: &mut Formatter<'_>) -> fmt::Result {
    for (index, expr) in exprs.iter().enumerate() {
        f.write_str(if index > 0 { " " } else { "" })?;
        match stateful(expr) {
            Some(Statement::Counter { .. }) if !with_state => f.write_str("counter")?,
            Some(Statement::Last(_)) if !with_state => f.write_str("last")?,
            Some(found) => statement(&found, Family::Inet, f)?,
            None => write!(f, "<{expr:?}>")?,
        }
    }
    Ok(())
}

pub(crate) fn verdict(end: &Verdict, f: &mut Formatter<'_>) -> fmt::Result {
    match end {
        Verdict::Accept => f.write_str("accept"),
        Verdict::Continue => f.write_str("continue"),
        Verdict::Drop => f.write_str("drop"),
        Verdict::Goto(chain) => write!(f, "goto {chain}"),
        Verdict::Jump(chain) => write!(f, "jump {chain}"),
        Verdict::Return => f.write_str("return"),
    }
}
