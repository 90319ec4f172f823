//! What this host has that no peer may take from it: its addresses, the gateways it sends through, and the routes that
//! others made for what could be a peer's subnet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::objects::{ObservedRoute, ObservedRouteTo, default_metric};
use crate::plan::diff::BOOT;
use crate::{Family, Observed, Overlay, PeerConflict, Plan, ROUTE_PROTOCOL};

/// As last read, and as told since.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// Its addresses, sorted, with the length of their prefixes.
    addresses: Vec<(IpAddr, u8)>,
    /// The gateways of its routes, with the index of the interface they are on.
    gateways: BTreeMap<IpAddr, u32>,
    /// Routes of others inside the cluster's networks, by destination and metric.
    routes: BTreeMap<(IpNet, u32), ObservedRoute>,
}

impl Host {
    /// What a route to this subnet would take from the host.
    ///
    /// A network of the host that lies in the subnet has its address there too, so addresses are all to look at. The
    /// other way round is fine: pods in 10.244.0.0/16 on a host in 10.0.0.0/8.
    pub(crate) fn harmed_by(&self, subnet: IpNet) -> Option<PeerConflict> {
        let from = self.addresses.partition_point(|(address, _)| *address < subnet.network());
        if let Some((address, prefix)) = self.addresses.get(from).filter(|found| subnet.contains(&found.0)) {
            let network = IpNet::new(*address, *prefix).map_or(subnet, |network| network.trunc());
            let whole = subnet.contains(&network) && *prefix < Family::of(*address).bits();
            return Some(match whole {
                true => PeerConflict::CoversHostNetwork(network),
                false => PeerConflict::HoldsHostAddress(*address),
            });
        }
        let gateway = self.gateways.range(subnet.network()..).next();
        if let Some((gateway, _)) = gateway.filter(|(gateway, _)| subnet.contains(*gateway)) {
            return Some(PeerConflict::HoldsGateway(*gateway));
        }
        self.routes_to(subnet).next().map(|route| PeerConflict::HostRoute(*route))
    }

    fn routes_to(&self, subnet: IpNet) -> impl Iterator<Item = &ObservedRoute> {
        self.routes.range((subnet, 0)..=(subnet, u32::MAX)).map(|(_, route)| route)
    }

    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.prefix_of(address).is_some()
    }

    /// Networks that this host is attached to and that this address is in.
    pub(crate) fn networks_of(&self, address: IpAddr) -> impl Iterator<Item = IpNet> {
        let networks = self.addresses.iter().filter_map(|(own, prefix)| IpNet::new(*own, *prefix).ok());
        networks.map(|network| network.trunc()).filter(move |network| network.contains(&address))
    }

    /// Length of the prefix that this address of the host has.
    pub(crate) fn prefix_of(&self, address: IpAddr) -> Option<u8> {
        let at = self.addresses.binary_search_by(|(own, _)| own.cmp(&address)).ok()?;
        self.addresses.get(at).map(|(_, prefix)| *prefix)
    }
}

impl Overlay {
    /// Notes what the kernel has that no peer may take, and which interfaces are up.
    pub(crate) fn note_host(&mut self, observed: &Observed, plan: &Plan) {
        let ours = |name: &str| {
            Family::ALL.iter().any(|family| {
                let device = plan.links(*family).and_then(|links| links.device);
                device.is_some_and(|device| device.as_str() == name)
            })
        };
        let others = observed.interfaces.iter().filter(|interface| !ours(&interface.name));
        let addresses = others.flat_map(|interface| &interface.addresses);
        let mut addresses: Vec<_> = addresses.map(|address| (address.address, address.prefix_len)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        for (up, spec) in self.underlay_up.iter_mut().zip(&self.families) {
            let index = spec.as_ref().map(|spec| spec.underlay.index);
            *up = observed.interfaces.iter().find(|found| Some(found.index) == index).map(|found| found.up);
        }
        let on_ours = |index: u32| {
            observed.devices.iter().any(|device| device.index == index && ours(device.name.as_str()))
        };
        let gateways = observed.gateways.iter().filter(|(_, interface)| !on_ours(*interface));
        let routes = observed.others.iter().filter(|route| self.may_be_a_peers(route.subnet));
        let routes = routes.map(|route| ((route.subnet, route.metric), *route)).collect();
        self.host = Host { addresses, gateways: gateways.copied().collect(), routes };
    }

    /// Notes that others made or deleted a route, and the peers whose standing that changes, for the next flush.
    /// Returns whether there are any; `None` if only a full reading can tell.
    pub(crate) fn note_route_of_others(&mut self, route: &ObservedRoute, gone: bool) -> Option<bool> {
        let mut noted = false;
        if is_of_others(route) && self.may_be_a_peers(route.subnet) {
            let place = (route.subnet, route.metric);
            if self.host.routes.get(&place).copied() != Some(*route).filter(|_| !gone) {
                let touched = self.touch(route.subnet);
                match gone {
                    true => drop(self.host.routes.remove(&place)),
                    false => drop(self.host.routes.insert(place, *route)),
                }
                noted |= self.look_again(touched);
            }
        }
        if let Some(gateway) = gateway_of(route).filter(|_| self.family_on(route.interface).is_none()) {
            let known = self.host.gateways.contains_key(&gateway);
            if known && gone && self.holding(gateway, u8::MAX).next().is_some() {
                return None; // other routes may lead there too
            }
            if !known && !gone {
                let holders: Vec<IpNet> = self.holding(gateway, u8::MAX).collect();
                let touched = holders.into_iter().flat_map(|holder| self.touch(holder)).collect();
                self.host.gateways.insert(gateway, route.interface);
                noted |= self.look_again(touched);
            }
        }
        Some(noted)
    }

    /// Whether a peer is kept out by what leads through this interface: the routes of one that goes down vanish without
    /// a word.
    pub(crate) fn keeps_a_peer_out(&self, interface: u32) -> bool {
        let held = |gateway: &IpAddr| self.holding(*gateway, u8::MAX).next().is_some();
        let mut routes = self.host.routes.values().filter(|route| route.interface == interface);
        let mut gateways = self.host.gateways.iter().filter(|(_, on)| **on == interface);
        routes.any(|route| self.peers.contains_key(&route.subnet))
            || gateways.any(|(gateway, _)| held(gateway))
    }

    fn may_be_a_peers(&self, subnet: IpNet) -> bool {
        let Some(spec) = self.family(Family::of_net(subnet)) else { return false };
        !spec.subnet.contains(&subnet) && spec.may_hold(subnet)
    }
}

/// Whether a route is neither ours nor one that upstream could have made for a peer.
pub(crate) fn is_of_others(route: &ObservedRoute) -> bool {
    let upstreams = route.protocol == BOOT && route.metric == default_metric(Family::of_net(route.subnet));
    route.protocol != ROUTE_PROTOCOL && !upstreams
}

/// The gateway that a route of others needs to be reachable; none for one that is on the link by decree, as
/// those of overlays are.
fn gateway_of(route: &ObservedRoute) -> Option<IpAddr> {
    match route.to {
        ObservedRouteTo::Gateway { gateway, onlink } if route.protocol != ROUTE_PROTOCOL => {
            needs_reach(route.subnet, gateway, onlink).then_some(gateway)
        }
        _ => None,
    }
}

/// Whether a gateway is one of the host's network, and not one that a route to its own network names as on the link,
/// as overlays do.
pub(crate) fn needs_reach(subnet: IpNet, gateway: IpAddr, onlink: bool) -> bool {
    !(onlink && gateway == subnet.addr())
}
