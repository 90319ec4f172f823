//! Plans that delete what this crate wrote, in this process or an earlier one.

use ipnet::IpNet;

use crate::model::device::ObservedDevice;
use crate::model::family::Family;
use crate::model::family_spec::Links;
use crate::model::objects::{Observed, ObservedRoute, ROUTE_PROTOCOL};
use crate::overlay::Overlay;
use crate::plan::Plan;
use crate::plan::step::{DeviceStep, Step};

impl Plan {
    /// Deletes every observed object of this crate: routes and nexthop objects of protocol [`ROUTE_PROTOCOL`], then
    /// the devices of `links` whose kind matches their name: VXLAN devices of that VNI, WireGuard or IP-in-IP devices. The
    /// kernel deletes neighbor entries, FDB entries and other routes with their device. A device of such a name but of another
    /// kind stays.
    ///
    /// `links` must be those that were observed, at most one per family.
    pub fn removal(links: &[Links], observed: &Observed) -> Self {
        Self::removing(links, observed, |_| true, |_| true)
    }

    /// Deletes what an earlier configuration left and `desired` does not contain: the devices of `links`
    /// as [`Plan::removal`] does, with the routes and nexthops of this crate on them, and the routes of this crate
    /// inside `networks`.
    ///
    /// `links` and `networks` may overlap with the desired state: a desired device, route or nexthop is never deleted.
    /// Use it when a node changes its VNI, backend or network, or drops a family. The caller must know that the
    /// devices belonged to this node, because a device of a second overlay on the same host looks the same.
    pub fn leftovers(links: &[Links], networks: &[IpNet], desired: &Overlay, observed: &Observed) -> Self {
        let present = desired.links();
        let is_desired = |links: &Links| present.iter().any(|present| present.device == links.device);
        let links: Vec<Links> = links.iter().filter(|links| !is_desired(links)).copied().collect();
        let is_left = |found: &ObservedDevice| links.iter().any(|links| links.device == Some(found.name));
        let devices =
            observed.devices.iter().filter(|found| is_left(found) && found.flannel_device().is_some());
        let devices: Vec<u32> = devices.map(|found| found.index).collect();
        let on = |index: u32| index != 0 && devices.contains(&index);
        let inside = |subnet: &IpNet| networks.iter().any(|network| network.contains(subnet));
        Self::removing(
            &links,
            observed,
            |route| (on(route.interface) || inside(&route.subnet)) && !desired.has_route_at(route),
            // Every desired nexthop is on a desired device.
            on,
        )
    }

    fn removing(
        links: &[Links],
        observed: &Observed,
        route: impl Fn(&ObservedRoute) -> bool,
        nexthop_on: impl Fn(u32) -> bool,
    ) -> Self {
        let mut plan = Self::default();
        let ours = observed.routes.iter().filter(|found| found.protocol == ROUTE_PROTOCOL && route(found));
        plan.steps.extend(ours.map(|route| Step::DeleteRoute {
            subnet: route.subnet,
            metric: route.metric,
            protocol: route.protocol,
        }));
        let ours = observed
            .nexthops
            .iter()
            .filter(|found| found.protocol == ROUTE_PROTOCOL && nexthop_on(found.interface));
        plan.steps.extend(ours.map(|nexthop| Step::DeleteNexthop { id: nexthop.id }));
        for family in Family::ALL {
            let links_of = |found: &ObservedDevice| {
                let links = links.iter().find(|links| links.device == Some(found.name));
                let is_it = found.flannel_device().is_some_and(|(_, of)| of == family);
                links.filter(|_| is_it).map(|links| (*links, found.ipip().copied()))
            };
            if let Some((links, ipip)) = observed.devices.iter().find_map(links_of) {
                plan.links[family] = Some(links);
                plan.steps.push(Step::Device(family, DeviceStep::Delete));
                let port = ipip.filter(|ipip| ipip.fou_receives == Some(true)).and_then(|ipip| ipip.fou);
                plan.steps.extend(port.map(|port| Step::Device(family, DeviceStep::DeleteFouPort(port))));
            }
        }
        plan
    }
}
