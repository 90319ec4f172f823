//! Which VXLAN devices of this host have flannel's names.

use std::collections::BTreeMap;

use flannel_vxlan::{Kernel, Links, ObserveError, Vni};

/// The devices to look at, the two families of each VNI together.
pub(super) fn all(kernel: &mut impl Kernel) -> Result<Vec<Vec<Links>>, ObserveError> {
    let mut found: BTreeMap<Vni, Vec<Links>> = BTreeMap::new();
    for interface in kernel.interfaces()? {
        if let Some((vni, family)) = Vni::of_device(&interface.name) {
            found.entry(vni).or_default().push(Links::of(vni.device_name(family), family));
        }
    }
    Ok(found.into_values().collect())
}
