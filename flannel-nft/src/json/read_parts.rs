//! Parts of statements that need no knowledge of the table.

use serde_json::{Value, json};

use crate::json::error::{Node, Read, wrong};
use crate::json::write::{LOG_FLAGS, LOG_LEVELS, UNITS};
use crate::model::name::{ChainName, LogPrefix};
use crate::model::statement::{Limit, Log, Quota, Statement, Synproxy};
use crate::model::verdict::Verdict;
use crate::uapi::*;

/// A verdict; `None` if it is another statement.
pub(super) fn verdict(value: &Value) -> Read<'_, Option<Verdict>> {
    let Some((name, inner)) = value.only() else { return Ok(None) };
    let target = || Ok(ChainName::observed(inner.need("target")?.text()?));
    Ok(Some(match name {
        "accept" => Verdict::Accept,
        "continue" => Verdict::Continue,
        "drop" => Verdict::Drop,
        "return" => Verdict::Return,
        "goto" => Verdict::Goto(target()?),
        "jump" => Verdict::Jump(target()?),
        _ => return Ok(None),
    }))
}

/// A statement that elements of sets can have, too; `None` if it is another.
pub(super) fn stateful(value: &Value) -> Read<'_, Option<Statement>> {
    match value.only() {
        Some((name, inner)) => stateful_of(name, inner),
        None => Ok(None),
    }
}

pub(super) fn stateful_of<'j>(name: &str, inner: &'j Value) -> Read<'j, Option<Statement>> {
    if inner.is_string() || inner.field("map").is_some() {
        return Ok(None);
    }
    let optional = |name| inner.field(name).map_or(Ok(0), Node::number);
    let over = || inner.field("inv").map_or(Ok(false), boolean);
    Ok(Some(match name {
        "counter" => Statement::Counter { packets: optional("packets")?, bytes: optional("bytes")? },
        "last" => Statement::Last(inner.field("used").map(Node::number).transpose()?),
        "ct count" => Statement::Connlimit { count: inner.need("val")?.number()?, over: over()? },
        "limit" => Statement::Limit(limit(inner)?),
        "quota" => {
            let used = if inner.field("used").is_some() { bytes(inner, "used", "used_unit")? } else { 0 };
            Statement::Quota(Quota { bytes: bytes(inner, "val", "val_unit")?, used, over: over()? })
        }
        _ => return Ok(None),
    }))
}

pub(super) fn boolean(value: &Value) -> Read<'_, bool> {
    value.as_bool().map_or_else(|| wrong(value, "true or false"), Ok)
}

/// A number of bytes with its unit.
fn bytes<'j>(inner: &'j Value, name: &str, unit: &str) -> Read<'j, u64> {
    let number = inner.need(name)?;
    let scale: u64 = match inner.field(unit) {
        None => 1,
        Some(unit) => match unit.text()? {
            "bytes" => 1,
            "kbytes" => 1 << 10,
            "mbytes" => 1 << 20,
            _ => return wrong(unit, "unit bytes, kbytes or mbytes"),
        },
    };
    match number.number::<u64>()?.checked_mul(scale) {
        Some(bytes) => Ok(bytes),
        None => wrong(number, "less than 2^64 bytes"),
    }
}

/// A rate limit, of a statement or an object.
pub(super) fn limit(inner: &Value) -> Read<'_, Limit> {
    let per = match inner.field("per") {
        None => 1,
        Some(per) => {
            let name = per.text()?;
            match UNITS.iter().find(|(known, _)| *known == name) {
                Some((_, seconds)) => *seconds,
                None => return wrong(per, "second, minute, hour, day or week"),
            }
        }
    };
    let is_bytes = inner.field("rate_unit").is_some_and(|unit| unit != &json!("packets"));
    let over = inner.field("inv").map_or(Ok(false), boolean)?;
    if !is_bytes {
        let burst = inner.field("burst").map_or(Ok(5), Node::number)?;
        return Ok(Limit { rate: inner.need("rate")?.number()?, per, burst, bytes: false, over });
    }
    let burst = if inner.field("burst").is_some() { bytes(inner, "burst", "burst_unit")? } else { 0 };
    match u32::try_from(burst) {
        Ok(burst) => Ok(Limit { rate: bytes(inner, "rate", "rate_unit")?, per, burst, bytes: true, over }),
        Err(_) => wrong(inner, "a burst of less than 2^32 bytes"),
    }
}

pub(super) fn log(inner: &Value) -> Read<'_, Log> {
    if inner.is_null() {
        return Ok(Log::new());
    }
    inner.allow(&["prefix", "group", "snaplen", "queue-threshold", "level", "flags"])?;
    let mut flags = None;
    for flag in inner.field("flags").map(Node::items).unwrap_or_default() {
        let name = flag.text()?;
        let bits = match LOG_FLAGS.iter().find(|(known, _)| *known == name) {
            Some((_, bit)) => *bit,
            None if name == "all" => NF_LOG_MASK,
            None => return wrong(flag, "a flag of log"),
        };
        flags = Some(flags.unwrap_or(0) | bits);
    }
    let level = match inner.field("level") {
        None => None,
        Some(level) => {
            let name = level.text()?;
            match LOG_LEVELS.iter().zip(0_u32..).find(|(known, _)| **known == name) {
                Some((_, level)) => Some(level).filter(|level| *level != NFT_LOGLEVEL_WARNING),
                None => return wrong(level, "a level of syslog"),
            }
        }
    };
    Ok(Log {
        prefix: inner.field("prefix").map(|text| Ok(LogPrefix::observed(text.text()?))).transpose()?,
        group: inner.field("group").map(Node::number).transpose()?,
        level,
        snaplen: inner.field("snaplen").map(Node::number).transpose()?,
        threshold: inner.field("queue-threshold").map(Node::number).transpose()?,
        flags,
    })
}

pub(super) fn synproxy(inner: &Value) -> Read<'_, Synproxy> {
    let mut proxy = Synproxy::new();
    if let Some(mss) = inner.field("mss") {
        proxy = proxy.mss(mss.number()?);
    }
    if let Some(scale) = inner.field("wscale") {
        proxy = proxy.wscale(scale.number()?);
    }
    for flag in inner.field("flags").map(Node::items).unwrap_or_default() {
        proxy = match flag.text()? {
            "timestamp" => proxy.timestamp(),
            "sack-perm" => proxy.sack_perm(),
            _ => return wrong(flag, "timestamp or sack-perm"),
        };
    }
    Ok(proxy)
}
