//! The VXLAN network identifier, and the device names derived from it.

use std::fmt;

use crate::error::ValueError;
use crate::model::family::Family;
use crate::model::if_name::IfName;

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

    /// Name of the device that upstream flannel creates for this VNI: `flannel.1`, `flannel-v6.1`.
    ///
    /// From VNI 10,000,000 (IPv4) and 10,000 (IPv6) that name exceeds the limit of 15 bytes, and upstream flannel cannot
    /// create the device. Then the name is `fl.<VNI>` or `fl-v6.<VNI>`.
    #[must_use]
    pub fn device_name(self, family: Family) -> IfName {
        let (usual, short) = match family {
            Family::V4 => ("flannel", "fl"),
            Family::V6 => ("flannel-v6", "fl-v6"),
        };
        let name = format!("{usual}.{self}");
        IfName::from_checked(&if name.len() <= IfName::MAX_LEN { name } else { format!("{short}.{self}") })
    }

    /// The VNI and family whose device has this name; `None` if flannel has no device of this name.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_device_identifies_its_vni_and_family() {
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
    fn devices_have_upstreams_names() {
        let vni = Vni::new(1).unwrap();
        assert_eq!(vni.device_name(Family::V4).as_str(), "flannel.1");
        assert_eq!(vni.device_name(Family::V6).as_str(), "flannel-v6.1");
        let longest = Vni::new(16_777_215).unwrap();
        assert_eq!(longest.device_name(Family::V4).as_str(), "fl.16777215");
        assert_eq!(longest.device_name(Family::V6).as_str(), "fl-v6.16777215");
    }
}
