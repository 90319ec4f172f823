//! Reads members of a JSON object, and notes each mistake under its key.

use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::json::Object;

/// One mistake, with the key it is under; the key is empty if the text is no JSON object at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyProblem {
    /// Such as `SubnetLen` or `Backend.VNI`.
    pub key: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.starts_with(&self.key) {
            // Upstream's words name the key themselves.
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.key, self.reason)
        }
    }
}

/// Says that the problem is already in the list, so nothing that depends on the value need be checked.
pub(super) struct Reported;

/// Reads members of one object and notes what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) object: &'a Object,
    /// `Backend.` inside the backend's object.
    pub(super) parent: &'static str,
    pub(super) problems: &'a mut Vec<KeyProblem>,
}

impl Reader<'_> {
    pub(super) fn report(&mut self, key: &str, reason: impl Into<String>) -> Reported {
        self.problems.push(KeyProblem { key: format!("{}{key}", self.parent), reason: reason.into() });
        Reported
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        self.switch(key).unwrap_or(default)
    }

    /// `true`, `false`, or nothing said.
    pub(super) fn switch(&mut self, key: &str) -> Option<bool> {
        match self.object.value(key, "true or false") {
            Ok(value) => value,
            Err(reason) => {
                self.report(key, reason);
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Reported> {
        let wanted = match range.end() {
            &u32::MAX => "a whole number".to_owned(),
            end => format!("a whole number from {} to {end}", range.start()),
        };
        match self.object.value::<u32>(key, &wanted) {
            Ok(Some(number)) if !range.contains(&number) => {
                Err(self.report(key, format!("{number} is out of range: {wanted} is expected")))
            }
            Ok(number) => Ok(number),
            Err(reason) => Err(self.report(key, reason)),
        }
    }

    /// An address; the unspecified one is upstream's way to say none.
    pub(super) fn address<A: std::str::FromStr>(&mut self, key: &str) -> Result<Option<A>, Reported> {
        match self.object.value::<String>(key, "an address in quotes") {
            Ok(None) => Ok(None),
            Ok(Some(text)) => match text.parse() {
                Ok(address) => Ok(Some(address)),
                Err(_) => Err(self.report(key, format!("invalid IP address format: {text}"))),
            },
            Err(reason) => Err(self.report(key, reason)),
        }
    }

    /// A network in CIDR notation. Upstream does not take `null` for one, so neither is it taken here.
    pub(super) fn network(&mut self, key: &str) -> Result<Option<IpNet>, Reported> {
        let Some(raw) = self.object.last(key) else { return Ok(None) };
        let text = serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
        match text.parse::<IpNet>() {
            Ok(network) => Ok(Some(network.trunc())),
            Err(_) => Err(self.report(key, format!("invalid CIDR address: {text}"))),
        }
    }
}
