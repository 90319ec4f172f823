//! The largest packets that the underlay and the overlay carry.

use std::fmt;

use crate::{Family, ValueError};

/// Largest IP packet, in bytes, that the physical network carries.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnderlayMtu(u32);

impl UnderlayMtu {
    /// Takes the MTU of the underlay interface, in bytes. Any number is fine; what is too small to carry an overlay
    /// shows in [`UnderlayMtu::inside_vxlan`].
    #[must_use]
    pub fn new(bytes: u32) -> Self {
        Self(bytes)
    }

    /// What is left for pods inside VXLAN: `underlay` is the family of the outer addresses.
    ///
    /// Outer IP header (20 over IPv4, 40 over IPv6) + UDP 8 + VXLAN 8 + inner Ethernet 14: 50 or 70 bytes.
    ///
    /// # Errors
    /// [`ValueError::Mtu`] if what is left is less than 68 bytes for an IPv4 overlay or 1280 for an IPv6 one. Flannel's
    /// overlays have the family of their underlay.
    pub fn inside_vxlan(self, underlay: Family) -> Result<OverlayMtu, ValueError> {
        let outer = match underlay {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        OverlayMtu::new(self.0.saturating_sub(outer + 8 + 8 + 14), underlay)
    }

    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }
}

/// Largest IP packet, in bytes, that the overlay carries.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct OverlayMtu(u32);

impl OverlayMtu {
    /// Checks that `family` works with it.
    ///
    /// # Errors
    /// [`ValueError::Mtu`] below 68 for IPv4 (`ETH_MIN_MTU`) or 1280 for IPv6 (RFC 8200 section 5; the kernel turns
    /// IPv6 off on a device with less).
    pub fn new(mtu: u32, family: Family) -> Result<Self, ValueError> {
        let least = match family {
            Family::V4 => 68,
            Family::V6 => 1280,
        };
        if mtu >= least { Ok(Self(mtu)) } else { Err(ValueError::Mtu { mtu, family, least }) }
    }

    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl fmt::Display for OverlayMtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overhead_is_50_bytes_over_ipv4_and_70_over_ipv6() {
        let underlay = UnderlayMtu::new(1500);
        assert_eq!(underlay.inside_vxlan(Family::V4).unwrap().bytes(), 1450);
        assert_eq!(underlay.inside_vxlan(Family::V6).unwrap().bytes(), 1430);
        assert!(UnderlayMtu::new(1349).inside_vxlan(Family::V6).is_err());
        assert!(UnderlayMtu::new(117).inside_vxlan(Family::V4).is_err());
    }
}
