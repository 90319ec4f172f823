//! Peers, as the routes of the kernel show them.

use std::net::IpAddr;

use flannel_vxlan::{Family, Observed, ObservedRoute, ObservedRouteTo};
use ipnet::IpNet;

use crate::status::model::{PeerState, PeerStatus};

/// A peer for each of these routes: the route, the neighbor of its next hop, and where packets for that neighbor's MAC
/// address go. A peer behind a VXLAN device that lacks one of them is pending. Behind an IP-in-IP device packets go to the
/// next hop of the route.
pub(super) fn of_routes(observed: &Observed, is_meant: impl Fn(&ObservedRoute) -> bool) -> Vec<PeerStatus> {
    let outer = |route: &ObservedRoute| {
        let on_ipip =
            observed.devices.iter().any(|found| found.index == route.interface && found.ipip().is_some());
        let gateway = match route.to {
            ObservedRouteTo::Gateway { gateway, .. } => Some(gateway),
            ObservedRouteTo::Nexthop { id } => {
                let nexthop = observed.nexthops.iter().find(|found| found.id == id);
                nexthop.and_then(|found| found.gateway).map(IpAddr::from)
            }
            _ => None,
        };
        gateway.filter(|_| on_ipip)
    };
    let routes = observed.routes.iter().filter(|route| is_meant(route));
    let (outer, others): (Vec<_>, Vec<_>) =
        routes.map(|route| (route, outer(route))).partition(|(_, outer)| outer.is_some());
    let others = others.into_iter().filter_map(|(route, _)| match route.to {
        ObservedRouteTo::Gateway { gateway, onlink } => Some((route.subnet, gateway, onlink)),
        ObservedRouteTo::Nexthop { .. } => Some((route.subnet, route.subnet.network(), true)),
        _ => None,
    });
    let peer = |(subnet, gateway, tunnel): (IpNet, IpAddr, bool)| {
        let neighbors = observed.neighbors.iter().map(|found| found.neighbor);
        let mac = neighbors.filter(|_| tunnel).find(|found| found.address == gateway).map(|found| found.mac);
        let family = Family::of_net(subnet);
        let entries = observed.fdb.iter().map(|found| found.entry);
        let entry = entries.filter(|entry| entry.family == family).find(|entry| Some(entry.mac) == mac);
        let missing = match (tunnel, mac, entry) {
            (true, None, _) => Some(format!("there is no neighbor entry for {gateway}")),
            (true, Some(mac), None) => Some(format!("there is no FDB entry for {mac}")),
            _ => None,
        };
        let state = if missing.is_some() { PeerState::Pending } else { PeerState::Programmed };
        PeerStatus {
            underlay: if tunnel { entry.map(|entry| entry.underlay) } else { Some(gateway) },
            mac: mac.map(|mac| mac.to_string()),
            direct: !tunnel,
            reason: missing,
            ..PeerStatus::new(subnet, state)
        }
    };
    let reached = |(route, underlay): (&ObservedRoute, Option<IpAddr>)| PeerStatus {
        underlay,
        ..PeerStatus::new(route.subnet, PeerState::Programmed)
    };
    others.map(peer).chain(outer.into_iter().map(reached)).collect()
}
