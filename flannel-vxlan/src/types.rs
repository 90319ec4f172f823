//! Values with a range, checked once: later code cannot hold a bad one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A value that is outside its range.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not a VXLAN network identifier.
    #[error("VNI {0} is out of range: it has 24 bits, so use 0 to 16777215")]
    Vni(u64),
    /// Not six hexadecimal bytes, or not the address of one station.
    #[error(
        "`{0}` is not the MAC address of one station: write six hexadecimal bytes, e.g. 0a:58:0a:f4:01:00"
    )]
    Mac(String),
    /// Not a name an interface can have.
    #[error("`{0}` is not an interface name: use 1 to 15 bytes without `/`, `:` and white space")]
    IfName(String),
    /// Too small to carry IP.
    #[error("MTU {mtu} is too small for {family}: it needs {least} bytes")]
    Mtu {
        /// What was given.
        mtu: u32,
        /// What it should carry.
        family: Family,
        /// The least that does.
        least: u32,
    },
}

/// An address family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// That of a network.
    #[must_use]
    pub fn of_net(network: IpNet) -> Self {
        Self::of(network.network())
    }

    /// Bits of an address: 32 or 128.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// VXLAN network identifier, 0 to 16 777 215 (RFC 7348 section 5).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Vni(u32);

impl Vni {
    /// Checks the range.
    ///
    /// # Errors
    /// [`ValueError::Vni`] above 16 777 215.
    pub fn new(vni: u32) -> Result<Self, ValueError> {
        if vni < 1 << 24 { Ok(Self(vni)) } else { Err(ValueError::Vni(vni.into())) }
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// Name of the device that upstream flannel makes for it: `flannel.1`, `flannel-v6.1`.
    ///
    /// From VNI 10 000 000 (IPv4) and 10 000 (IPv6) on that name has more than the 15 bytes a name can have, and
    /// upstream cannot make the device; then it is `fl.<VNI>` and `fl-v6.<VNI>`.
    #[must_use]
    pub fn device_name(self, family: Family) -> IfName {
        let (usual, short) = match family {
            Family::V4 => ("flannel", "fl"),
            Family::V6 => ("flannel-v6", "fl-v6"),
        };
        let name = format!("{usual}.{self}");
        IfName::from_checked(&if name.len() <= IfName::LONGEST { name } else { format!("{short}.{self}") })
    }

    /// The VNI and family whose device has this name; `None` if it is a name that flannel gives no device.
    #[must_use]
    pub fn of_device(name: &str) -> Option<(Self, Family)> {
        let vni = Self::new(name.rsplit_once('.')?.1.parse().ok()?).ok()?;
        let family = Family::ALL.into_iter().find(|family| vni.device_name(*family).as_str() == name)?;
        Some((vni, family))
    }
}

impl TryFrom<u32> for Vni {
    type Error = ValueError;

    fn try_from(vni: u32) -> Result<Self, ValueError> {
        Self::new(vni)
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ethernet address of one station: not a group address, not all zero.
///
/// The all-zero address would become the default forwarding entry of a VXLAN device, a copy of every unknown frame.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Checks that it is the address of one station.
    ///
    /// # Errors
    /// [`ValueError::Mac`] for a group address or all zero.
    pub fn new(bytes: [u8; 6]) -> Result<Self, ValueError> {
        if bytes == [0; 6] || bytes[0] & 1 != 0 {
            return Err(ValueError::Mac(Self(bytes).to_string()));
        }
        Ok(Self(bytes))
    }

    /// A locally administered address that depends on `identity` alone, so that a node keeps it over a restart and
    /// a re-creation of its device. Give it what tells nodes apart: the node's name or machine id, the VNI, the family.
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

/// Name of a network interface, 1 to 15 bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IfName {
    bytes: [u8; Self::LONGEST],
    length: u8,
}

impl IfName {
    /// `IFNAMSIZ` without the terminating zero.
    const LONGEST: usize = 15;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn from_checked(name: &str) -> Self {
        let mut bytes = [0; Self::LONGEST];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self { bytes, length: u8::try_from(name.len().min(Self::LONGEST)).unwrap_or(0) }
    }
}

impl FromStr for IfName {
    type Err = ValueError;

    /// The kernel's own rule, `dev_valid_name` (net/core/dev.c).
    fn from_str(name: &str) -> Result<Self, ValueError> {
        let fits = !name.is_empty() && name.len() <= Self::LONGEST && name != "." && name != "..";
        if fits && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace()) {
            return Ok(Self::from_checked(name));
        }
        Err(ValueError::IfName(name.to_owned()))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

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
    fn the_device_of_every_vni_is_known_by_its_name() {
        for vni in [0, 1, 9_999, 10_000, 9_999_999, 16_777_215] {
            for family in Family::ALL {
                let vni = Vni::new(vni).unwrap();
                assert_eq!(Vni::of_device(vni.device_name(family).as_str()), Some((vni, family)));
            }
        }
        for name in
            ["flannel.01", "flannel.x", "flannel.1.5", "fl.1", "eth0.100", "flannel.16777216", "flannel"]
        {
            assert_eq!(Vni::of_device(name), None, "{name}");
        }
    }

    #[test]
    fn a_mac_that_is_not_one_stations_is_refused() {
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

    #[test]
    fn the_overhead_is_50_bytes_over_ipv4_and_70_over_ipv6() {
        let underlay = UnderlayMtu::new(1500);
        assert_eq!(underlay.inside_vxlan(Family::V4).unwrap().bytes(), 1450);
        assert_eq!(underlay.inside_vxlan(Family::V6).unwrap().bytes(), 1430);
        assert!(UnderlayMtu::new(1349).inside_vxlan(Family::V6).is_err());
        assert!(UnderlayMtu::new(117).inside_vxlan(Family::V4).is_err());
    }

    #[test]
    fn devices_have_upstreams_names() {
        let vni = Vni::new(1).unwrap();
        assert_eq!(vni.device_name(Family::V4).as_str(), "flannel.1");
        assert_eq!(vni.device_name(Family::V6).as_str(), "flannel-v6.1");
        let longest = Vni::new(16_777_215).unwrap();
        assert_eq!(longest.device_name(Family::V4).as_str(), "fl.16777215");
        assert_eq!(longest.device_name(Family::V6).as_str(), "fl-v6.16777215");
    }

    #[test]
    fn interface_names_follow_the_kernels_rule() {
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "0123456789abcdef"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
        assert_eq!("eth0".parse::<IfName>().unwrap().to_string(), "eth0");
    }
}
