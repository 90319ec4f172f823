//! The devices of flannel, by their names.

use crate::model::family::Family;
use crate::model::if_name::IfName;
use crate::model::vni::Vni;

/// A device of flannel. It has the name that upstream flannel gives it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum FlannelDevice {
    /// `flannel.<VNI>` and `flannel-v6.<VNI>`; see [`Vni::device_name`].
    Vxlan(Vni),
    /// `flannel.ipip`. IPv4 only.
    Ipip,
    /// `flannel0`, an IP-in-IP device with FOU. IPv4 only. Upstream's `flannel0` is a TUN device.
    Udp,
    /// `flannel-wg`, which carries IPv4 or both families, and `flannel-wg-v6`.
    Wireguard,
}

impl FlannelDevice {
    /// The name. `family` is the family of the overlay.
    #[must_use]
    pub fn name(self, family: Family) -> IfName {
        match self {
            Self::Vxlan(vni) => vni.device_name(family),
            Self::Ipip => IfName::from_checked("flannel.ipip"),
            Self::Udp => IfName::from_checked("flannel0"),
            Self::Wireguard => IfName::from_checked(match family {
                Family::V4 => "flannel-wg",
                Family::V6 => "flannel-wg-v6",
            }),
        }
    }

    /// The device with this name and the family of its overlay; `None` if flannel has no device of this name. `flannel-wg`
    /// counts as IPv4, also if it carries IPv6.
    #[must_use]
    pub fn of_name(name: &str) -> Option<(Self, Family)> {
        match name {
            "flannel.ipip" => Some((Self::Ipip, Family::V4)),
            "flannel0" => Some((Self::Udp, Family::V4)),
            "flannel-wg" => Some((Self::Wireguard, Family::V4)),
            "flannel-wg-v6" => Some((Self::Wireguard, Family::V6)),
            _ => Vni::of_device(name).map(|(vni, family)| (Self::Vxlan(vni), family)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_identifies_the_device() {
        let vxlan = FlannelDevice::Vxlan(Vni::new(1).unwrap());
        for (device, families) in [
            (vxlan, &Family::ALL[..]),
            (FlannelDevice::Ipip, &[Family::V4]),
            (FlannelDevice::Udp, &[Family::V4]),
            (FlannelDevice::Wireguard, &Family::ALL),
        ] {
            for family in families {
                assert_eq!(FlannelDevice::of_name(device.name(*family).as_str()), Some((device, *family)));
            }
        }
        for name in ["flannel", "flannel1", "flannel.", "ipip", "tunl0"] {
            assert_eq!(FlannelDevice::of_name(name), None, "{name}");
        }
    }
}
