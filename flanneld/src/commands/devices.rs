//! Which VXLAN devices of this host have flannel's names.

use std::collections::BTreeSet;

use flannel_vxlan::{Family, Kernel, Link, Links, ObserveError, Vni};

/// The names to look at, the two families of each VNI together.
pub(super) fn all(kernel: &mut impl Kernel) -> Result<Vec<Vec<Links>>, ObserveError> {
    let vnis: BTreeSet<u32> = kernel.interfaces()?.iter().filter_map(|found| vni_of(&found.name)).collect();
    Ok(vnis.into_iter().filter_map(both_families).collect())
}

/// The VNI in the name of a device.
fn vni_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix("flannel.").or_else(|| name.strip_prefix("flannel-v6."))?;
    number.parse().ok()
}

/// Nothing of the underlay is meant.
fn both_families(vni: u32) -> Option<Vec<Links>> {
    let vni = Vni::new(vni).ok()?;
    let links = |family| {
        let name = vni.device_name(family);
        Links { device: Some(name), underlay: Link { index: 0, name }, tx_checksum: true }
    };
    Some(Family::ALL.map(links).to_vec())
}
