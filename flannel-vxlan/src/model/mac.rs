//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use crate::error::ValueError;

/// Ethernet address of a single host: not a group address, not all zero.
///
/// An FDB entry for the all-zero address would be the default destination of a VXLAN device, for every unknown MAC.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Checks that this is the address of a single host.
    ///
    /// # Errors
    /// [`ValueError::Mac`] for a group address or all zero.
    pub fn new(bytes: [u8; 6]) -> Result<Self, ValueError> {
        if bytes == [0; 6] || bytes[0] & 1 != 0 {
            return Err(ValueError::Mac(Self(bytes).to_string()));
        }
        Ok(Self(bytes))
    }

    /// A locally administered address that depends only on `identity`, so that a node keeps it when it restarts or
    /// recreates its device. Use what identifies the device: the node's name or machine ID, the VNI and the family.
    ///
    /// Equal input gives equal output in every release (FNV-1a, 64 bits, folded to 46).
    #[must_use]
    pub fn derived(identity: &[u8]) -> Self {
        let hash = identity.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let [h0, h1, a, b, c, d, e, f] = hash.to_be_bytes();
        Self([((a ^ h0) & 0xfc) | 0x02, b ^ h1, c, d, e, f])
    }

    /// The six bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bad = || ValueError::Mac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part =
                parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_not_hex| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Self::new(bytes)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_addresses_and_malformed_text_are_rejected() {
        for text in [
            "",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "02:00:00:00:00",
            "+2:00:00:00:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
        assert_eq!("EA:3b:90:a7:58:24".parse::<MacAddr>().unwrap().to_string(), "ea:3b:90:a7:58:24");
    }

    #[test]
    fn a_derived_mac_is_local_unicast_and_never_changes_between_releases() {
        let mac = MacAddr::derived(b"node-1/1/v4");
        assert_eq!(mac.to_string(), "56:3a:1f:c2:21:22");
        assert_eq!(MacAddr::new(mac.bytes()), Ok(mac));
        assert_ne!(mac, MacAddr::derived(b"node-2/1/v4"));
    }
}
