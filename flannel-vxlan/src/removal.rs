//! What takes everything away again that this crate made, now or in an earlier life.

use ipnet::IpNet;

use crate::{
    DeviceStep, Family, Links, Observed, ObservedDevice, ObservedNexthop, ObservedRoute, Plan,
    ROUTE_PROTOCOL, Step,
};

impl Plan {
    /// Steps that delete what was observed and is this crate's: routes and nexthops of protocol [`ROUTE_PROTOCOL`], then
    /// the devices of `links` that are VXLAN devices of the VNI in their name; neighbours, forwarding entries and other
    /// routes go with their device. A device of such a name that is something else stays.
    ///
    /// `links` must be those that were observed, one for each family at most.
    pub fn removal(links: &[Links], observed: &Observed) -> Self {
        Self::removing(links, observed, |_| true, |_| true)
    }

    /// Steps that delete what an overlay that is no more left behind: as [`Plan::removal`], but of the routes and nexthops
    /// only those that are on the devices of `links`, and routes inside `networks`.
    ///
    /// For a node that has another VNI, backend or network than before, or fewer families. Nothing tells a device that
    /// was this node's from that of a second overlay on the same host, so the caller must know that it was.
    pub fn leftovers(links: &[Links], networks: &[IpNet], observed: &Observed) -> Self {
        let devices: Vec<u32> =
            observed.devices.iter().filter(|found| is_named(found)).map(|found| found.index).collect();
        let on = |index: u32| index != 0 && devices.contains(&index);
        let inside = |subnet: &IpNet| networks.iter().any(|network| network.contains(subnet));
        let route = |route: &ObservedRoute| on(route.interface) || inside(&route.subnet);
        Self::removing(links, observed, route, |nexthop| on(nexthop.interface))
    }

    fn removing(
        links: &[Links],
        observed: &Observed,
        route: impl Fn(&ObservedRoute) -> bool,
        nexthop: impl Fn(&ObservedNexthop) -> bool,
    ) -> Self {
        let mut plan = Self::default();
        let ours = observed.routes.iter().filter(|found| found.protocol == ROUTE_PROTOCOL && route(found));
        plan.steps.extend(ours.map(|route| Step::DeleteRoute {
            subnet: route.subnet,
            metric: route.metric,
            protocol: route.protocol,
        }));
        let ours =
            observed.nexthops.iter().filter(|found| found.protocol == ROUTE_PROTOCOL && nexthop(found));
        plan.steps.extend(ours.map(|nexthop| Step::DeleteNexthop { id: nexthop.id }));
        for (family, slot) in Family::ALL.into_iter().zip(&mut plan.links) {
            let is_of_it = |found: &&ObservedDevice| named(found) == Some(family);
            if let Some(device) = observed.devices.iter().find(is_of_it) {
                *slot = links.iter().find(|links| links.device == Some(device.name)).copied();
                plan.steps.push(Step::Device(family, DeviceStep::Delete));
            }
        }
        plan
    }
}

/// The family whose VXLAN device this is, by its name and the VNI in it.
fn named(found: &ObservedDevice) -> Option<Family> {
    let (vni, family) = crate::Vni::of_device(found.name.as_str())?;
    found.vxlan.is_some_and(|vxlan| vxlan.vni == vni.number()).then_some(family)
}

fn is_named(found: &ObservedDevice) -> bool {
    named(found).is_some()
}
