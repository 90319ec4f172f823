//! Which VXLAN devices of this host have flannel's names.

use std::collections::BTreeSet;

use ipnet::{Ipv4Net, Ipv6Net};

use flannel_vxlan::{Family, Kernel, Link, Links, ObserveError, Vni};

/// The names to look at, the two families of each VNI together.
pub(super) fn all(kernel: &mut impl Kernel) -> Result<Vec<Vec<Links>>, ObserveError> {
    let vnis: BTreeSet<u32> = kernel.interfaces()?.iter().filter_map(|found| vni_of(&found.name)).collect();
    Ok(vnis.into_iter().filter_map(both_families).collect())
}

/// The VNI in the name of a device, whose first part is a shorter one where the number is long.
fn vni_of(name: &str) -> Option<u32> {
    let vni = name.rsplit_once('.')?.1.parse().ok()?;
    let is_named = |family| Vni::new(vni).is_ok_and(|vni| vni.device_name(family).as_str() == name);
    Family::ALL.into_iter().any(is_named).then_some(vni)
}

/// Nothing of the underlay is meant.
fn both_families(vni: u32) -> Option<Vec<Links>> {
    let vni = Vni::new(vni).ok()?;
    let links = |family| {
        let name = vni.device_name(family);
        let networks = match family {
            Family::V4 => Ipv4Net::default().into(),
            Family::V6 => Ipv6Net::default().into(),
        };
        Links {
            device: Some(name),
            underlay: Link { index: 0, name },
            networks,
            tx_checksum: true,
            known_by: None,
        }
    };
    Some(Family::ALL.map(links).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_every_vni_is_found_by_its_name() {
        for vni in [0, 1, 9_999, 10_000, 9_999_999, 16_777_215] {
            for family in Family::ALL {
                assert_eq!(vni_of(Vni::new(vni).unwrap().device_name(family).as_str()), Some(vni));
            }
        }
        for name in
            ["flannel.01", "flannel.x", "flannel.1.5", "fl.1", "eth0.100", "flannel.16777216", "flannel"]
        {
            assert_eq!(vni_of(name), None, "{name}");
        }
    }
}
