//! Names of network interfaces.

use std::fmt;
use std::str::FromStr;

use crate::error::ValueError;

/// Name of a network interface, 1 to 15 bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IfName {
    bytes: [u8; Self::MAX_LEN],
    length: u8,
}

impl IfName {
    /// `IFNAMSIZ` without the terminating zero.
    pub(crate) const MAX_LEN: usize = 15;

    /// The name; empty if the kernel's name is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// A name that the kernel reports, in any encoding; `None` if it is too long.
    pub(crate) fn observed(name: &[u8]) -> Option<Self> {
        let length = u8::try_from(name.len()).ok().filter(|length| usize::from(*length) <= Self::MAX_LEN)?;
        let mut bytes = [0; Self::MAX_LEN];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { bytes, length })
    }

    pub(crate) fn from_checked(name: &str) -> Self {
        let mut bytes = [0; Self::MAX_LEN];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self { bytes, length: u8::try_from(name.len().min(Self::MAX_LEN)).unwrap_or(0) }
    }
}

impl FromStr for IfName {
    type Err = ValueError;

    /// Accepts what the kernel accepts: `dev_valid_name` (net/core/dev.c).
    fn from_str(name: &str) -> Result<Self, ValueError> {
        let fits = !name.is_empty() && name.len() <= Self::MAX_LEN && name != "." && name != "..";
        if fits && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace()) {
            return Ok(Self::from_checked(name));
        }
        Err(ValueError::IfName(name.to_owned()))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        f.pad(&String::from_utf8_lossy(bytes))
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_follow_the_kernels_rule() {
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "0123456789abcdef"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
        assert_eq!("eth0".parse::<IfName>().unwrap().to_string(), "eth0");
    }
}
