//! The MTU of the underlay and of the overlay.

use std::fmt;

use crate::error::ValueError;
use crate::model::family::Family;
use crate::model::ipip::IpipSpec;

/// Largest IP packet, in bytes, that the physical network carries.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnderlayMtu(u32);

impl UnderlayMtu {
    /// The MTU of the uplink in bytes. Any number is valid; [`UnderlayMtu::inside_vxlan`] checks whether an overlay fits.
    #[must_use]
    pub fn new(bytes: u32) -> Self {
        Self(bytes)
    }

    /// The MTU that remains for pods inside VXLAN. `underlay` is the family of the outer addresses.
    ///
    /// Outer IP header (20 over IPv4, 40 over IPv6) + UDP 8 + VXLAN 8 + inner Ethernet 14: 50 or 70 bytes.
    ///
    /// # Errors
    /// [`ValueError::Mtu`] if less than 68 bytes remain for an IPv4 overlay, or less than 1280 for an IPv6 overlay.
    /// Flannel's overlays have the same family as their underlay.
    pub fn inside_vxlan(self, underlay: Family) -> Result<OverlayMtu, ValueError> {
        let outer = match underlay {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        OverlayMtu::new(self.0.saturating_sub(outer + 8 + 8 + 14), underlay)
    }

    /// The MTU that remains for pods inside IP-in-IP: 20 bytes less, with FOU 28. IPv4 only.
    ///
    /// # Errors
    /// [`ValueError::Mtu`] if less than 68 bytes remain.
    pub fn inside_ipip(self, ipip: IpipSpec) -> Result<OverlayMtu, ValueError> {
        let outer = if ipip.fou.is_some() { 20 + 8 } else { 20 };
        OverlayMtu::new(self.0.saturating_sub(outer), Family::V4)
    }

    /// The MTU that remains for pods of family `overlay` inside WireGuard: 80 bytes less, whatever the family of the outer
    /// addresses is, as `wg-quick` and upstream flannel count.
    ///
    /// Outer IP header 40 (IPv6) + UDP 8 + WireGuard 32. Over IPv4 20 of them remain unused.
    ///
    /// # Errors
    /// [`ValueError::Mtu`] if less than 68 bytes remain for IPv4, or less than 1280 for IPv6.
    pub fn inside_wireguard(self, overlay: Family) -> Result<OverlayMtu, ValueError> {
        OverlayMtu::new(self.0.saturating_sub(40 + 8 + 32), overlay)
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
    /// The least MTU, in bytes, with which an interface carries packets of `family`: 68 for IPv4 (`ETH_MIN_MTU`), 1280 for
    /// IPv6 (RFC 8200 section 5; the kernel turns IPv6 off on interfaces with a smaller MTU).
    #[must_use]
    pub fn least(family: Family) -> u32 {
        match family {
            Family::V4 => 68,
            Family::V6 => 1280,
        }
    }

    /// Checks that packets of `family` fit.
    ///
    /// # Errors
    /// [`ValueError::Mtu`] below [`OverlayMtu::least`].
    pub fn new(mtu: u32, family: Family) -> Result<Self, ValueError> {
        let least = Self::least(family);
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
        assert_eq!(underlay.inside_wireguard(Family::V6).unwrap().bytes(), 1420);
        assert!(UnderlayMtu::new(1359).inside_wireguard(Family::V6).is_err());
        assert!(UnderlayMtu::new(117).inside_vxlan(Family::V4).is_err());
    }
}
