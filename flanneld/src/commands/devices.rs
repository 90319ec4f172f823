//! Which devices of this host have flannel's names.

use std::collections::BTreeMap;

use flannel_vxlan::{FlannelDevice, Kernel, Links, ObserveError};

/// The devices to look at, the two families of each together.
pub(super) fn all(kernel: &mut impl Kernel) -> Result<Vec<Vec<Links>>, ObserveError> {
    let mut found: BTreeMap<FlannelDevice, Vec<Links>> = BTreeMap::new();
    for interface in kernel.interfaces()? {
        if let Some((device, family)) = FlannelDevice::of_name(&interface.name) {
            found.entry(device).or_default().push(Links::of(device.name(family), family));
        }
    }
    Ok(found.into_values().collect())
}
