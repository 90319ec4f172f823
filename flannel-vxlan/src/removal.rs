//! What takes everything away again that this crate made.

use crate::{DeviceStep, Family, Links, Observed, Plan, ROUTE_PROTOCOL, Step};

impl Plan {
    /// Steps that delete what was observed and is this crate's: routes and nexthops of protocol [`ROUTE_PROTOCOL`], then
    /// the devices of `links` that are VXLAN devices of the VNI in their name; neighbours, forwarding entries and other
    /// routes go with their device. A device of such a name that is something else stays.
    ///
    /// `links` must be those that were observed, one for each family at most.
    pub fn removal(links: &[Links], observed: &Observed) -> Self {
        let mut plan = Self::default();
        let ours = observed.routes.iter().filter(|route| route.protocol == ROUTE_PROTOCOL);
        plan.steps.extend(ours.map(|route| Step::DeleteRoute {
            subnet: route.subnet,
            metric: route.metric,
            protocol: route.protocol,
        }));
        let ours = observed.nexthops.iter().filter(|nexthop| nexthop.protocol == ROUTE_PROTOCOL);
        plan.steps.extend(ours.map(|nexthop| Step::DeleteNexthop { id: nexthop.id }));
        for (family, slot) in Family::ALL.into_iter().zip(&mut plan.links) {
            let is_named = |found: &&crate::ObservedDevice| {
                let vni = found.vxlan.and_then(|vxlan| crate::Vni::new(vxlan.vni).ok());
                vni.is_some_and(|vni| vni.device_name(family) == found.name)
            };
            if let Some(device) = observed.devices.iter().find(is_named) {
                *slot = links.iter().find(|links| links.device == Some(device.name)).copied();
                plan.steps.push(Step::Device(family, DeviceStep::Delete));
            }
        }
        plan
    }
}
