//! Peers, as the routes of the kernel show them.

use std::net::IpAddr;

use flannel_vxlan::{Family, Observed, ObservedRoute, ObservedRouteTo};
use ipnet::IpNet;

use crate::status::model::{PeerState, PeerStatus};

/// A peer for each of these routes: the route, the neighbor of its next hop, and where packets for that neighbor's MAC
/// address go. A peer behind a VXLAN device that lacks one of them is pending.
pub(super) fn of_routes(observed: &Observed, is_meant: impl Fn(&ObservedRoute) -> bool) -> Vec<PeerStatus> {
    let routes = observed.routes.iter().filter(|route| is_meant(route)).filter_map(|route| match route.to {
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
        PeerStatus {
            subnet,
            state: if missing.is_some() { PeerState::Pending } else { PeerState::Programmed },
            underlay: if tunnel { entry.map(|entry| entry.underlay) } else { Some(gateway) },
            mac: mac.map(|mac| mac.to_string()),
            reason: missing,
        }
    };
    routes.map(peer).collect()
}
