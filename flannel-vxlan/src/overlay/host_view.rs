//! What this host needs for itself and no peer may capture: its addresses, its gateways, and routes of other programs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::family::{Family, PerFamily};
use crate::model::family_spec::FamilySpec;
use crate::model::objects::{Observed, ObservedRoute, ROUTE_PROTOCOL};
use crate::overlay::peer_table::PeerTable;

/// The host as last observed, updated by notifications.
///
/// Invariants: `addresses` is sorted and has no duplicates; it contains no address of our own VXLAN devices.
/// `routes` contains only routes of other programs that a peer's route would shadow. The kernel does not report every
/// loss (routes vanish silently with their interface), so only a new observation is certain.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostView {
    /// Addresses with their prefix lengths.
    addresses: Vec<(IpAddr, u8)>,
    /// Gateways of the host's routes, with the index of their interface.
    gateways: BTreeMap<IpAddr, u32>,
    /// Routes of other programs inside the cluster's networks, by destination and metric.
    routes: BTreeMap<(IpNet, u32), ObservedRoute>,
    /// Whether the uplinks are up; `None` if unknown.
    underlay_up: PerFamily<Option<bool>>,
    /// Pod networks whose route to a WireGuard device would cut this host off, as last observed: each with an address of
    /// the host or a gateway that no more specific route reaches.
    cutting: Vec<(IpNet, IpAddr)>,
}

/// What a route would take from the host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RouteHarm {
    /// A network that the host is attached to.
    Network(IpNet),
    /// An address of the host.
    Address(IpAddr),
    /// A gateway of the host's routes.
    Gateway(IpAddr),
    /// The destination of another program's route.
    Route(ObservedRoute),
}

impl HostView {
    pub(crate) fn new(observed: &Observed, families: &PerFamily<Option<FamilySpec>>) -> Self {
        let others = observed.interfaces.iter().filter(|interface| !families.is_device(&interface.name));
        let addresses = others.flat_map(|interface| &interface.addresses);
        let mut addresses: Vec<_> = addresses.map(|address| (address.address, address.prefix_len)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let is_up =
            |index| observed.interfaces.iter().find(|found| found.index == index).map(|found| found.up);
        let underlay_up = PerFamily::from_fn(|family| {
            families[family].as_ref().and_then(|spec| is_up(spec.underlay.index))
        });
        let is_ours = |index: u32| {
            let mut devices = observed.devices.iter();
            devices.any(|device| device.index == index && families.is_device(device.name.as_str()))
        };
        let gateways = observed.gateways.iter().filter(|(_, interface)| !is_ours(*interface));
        let routes = observed.others.iter().filter(|route| {
            families[Family::of_net(route.subnet)]
                .as_ref()
                .is_some_and(|spec| spec.may_be_peer_subnet(route.subnet))
        });
        let mut host = Self {
            addresses,
            gateways: gateways.copied().collect(),
            routes: routes.map(|route| ((route.subnet, route.metric), *route)).collect(),
            underlay_up,
            cutting: Vec::new(),
        };
        let networks = families.specs().flat_map(FamilySpec::network_routes).map(|route| route.subnet);
        // A route that an operator adds with `ip route add` looks like a route of upstream flannel.
        let by_hand = observed.routes.iter().filter(|route| route.protocol != ROUTE_PROTOCOL);
        let routes = observed.others.iter().chain(by_hand).filter(|route| !is_ours(route.interface));
        let routes: Vec<IpNet> = routes.map(|route| route.subnet).collect();
        let cutting = |network| Some((network, host.cut_off_by(network, &routes)?));
        host.cutting = networks.filter_map(cutting).collect();
        host
    }

    /// An address of this host or a gateway that a route to `network` would take from the uplink, next to `routes`.
    fn cut_off_by(&self, network: IpNet, routes: &[IpNet]) -> Option<IpAddr> {
        let is_reached = |address: &IpAddr| {
            let routes = routes.iter().copied().filter(|subnet| subnet.contains(address));
            let mut closer = self.networks_of(*address).chain(routes);
            closer.any(|closer| closer.prefix_len() > network.prefix_len())
        };
        let own = self.addresses.iter().map(|(address, _)| *address);
        let mut inside = own.chain(self.gateways.keys().copied()).filter(|address| network.contains(address));
        inside.find(|address| !is_reached(address))
    }

    /// The address of the host or gateway that the route of this pod network would cut off.
    pub(crate) fn cut_off(&self, network: IpNet) -> Option<IpAddr> {
        self.cutting.iter().find(|(cutting, _)| *cutting == network).map(|(_, address)| *address)
    }

    /// What a route to this subnet would take from the host.
    ///
    /// A network of the host that lies in the subnet has its own address there, so checking addresses is sufficient.
    /// A subnet inside a network of the host is fine: pods in 10.244.0.0/16 on a host in 10.0.0.0/8.
    pub(crate) fn harm_of_route_to(&self, subnet: IpNet) -> Option<RouteHarm> {
        let from = self.addresses.partition_point(|(address, _)| *address < subnet.network());
        if let Some((address, prefix)) = self.addresses.get(from).filter(|found| subnet.contains(&found.0)) {
            let network = IpNet::new(*address, *prefix).map_or(subnet, |network| network.trunc());
            let whole = subnet.contains(&network) && *prefix < Family::of(*address).bits();
            return Some(if whole { RouteHarm::Network(network) } else { RouteHarm::Address(*address) });
        }
        let gateway = self.gateways.range(subnet.network()..).next();
        if let Some((gateway, _)) = gateway.filter(|(gateway, _)| subnet.contains(*gateway)) {
            return Some(RouteHarm::Gateway(*gateway));
        }
        let route = self.routes.range((subnet, 0)..=(subnet, u32::MAX)).next();
        route.map(|(_, route)| RouteHarm::Route(*route))
    }

    /// Whether this is an address of the host.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.prefix_of(address).is_some()
    }

    /// Networks that contain this address and that the host is attached to.
    pub(crate) fn networks_of(&self, address: IpAddr) -> impl Iterator<Item = IpNet> {
        let networks = self.addresses.iter().filter_map(|(own, prefix)| IpNet::new(*own, *prefix).ok());
        networks.map(|network| network.trunc()).filter(move |network| network.contains(&address))
    }

    /// Whether `address` is the network or broadcast address of the network of the host's address `local`.
    pub(crate) fn is_broadcast(&self, local: IpAddr, address: IpAddr) -> bool {
        let network = self.prefix_of(local).and_then(|prefix| IpNet::new(local, prefix).ok());
        network.is_some_and(|network| {
            let has_broadcast = network.addr().is_ipv4() && network.prefix_len() < 31;
            has_broadcast && (address == network.broadcast() || address == network.network())
        })
    }

    /// Prefix length of this address of the host.
    fn prefix_of(&self, address: IpAddr) -> Option<u8> {
        let at = self.addresses.binary_search_by(|(own, _)| own.cmp(&address)).ok()?;
        self.addresses.get(at).map(|(_, prefix)| *prefix)
    }

    /// Whether the view already agrees with a notification that this route exists, or is gone.
    pub(crate) fn agrees_on_route(&self, route: &ObservedRoute, gone: bool) -> bool {
        let known = self.routes.get(&(route.subnet, route.metric)).copied();
        known == (!gone).then_some(*route)
    }

    pub(crate) fn set_route(&mut self, route: &ObservedRoute, gone: bool) {
        let key = (route.subnet, route.metric);
        match gone {
            true => drop(self.routes.remove(&key)),
            false => drop(self.routes.insert(key, *route)),
        }
    }

    pub(crate) fn has_gateway(&self, gateway: IpAddr) -> bool {
        self.gateways.contains_key(&gateway)
    }

    pub(crate) fn add_gateway(&mut self, gateway: IpAddr, interface: u32) {
        self.gateways.insert(gateway, interface);
    }

    /// Whether a route or gateway through this interface prevents a peer from being programmed. The kernel does not
    /// report the routes that an interface loses when it goes down.
    pub(crate) fn blocks_a_peer(&self, interface: u32, peers: &PeerTable) -> bool {
        let is_held = |gateway: &IpAddr| peers.containing(*gateway, u8::MAX).next().is_some();
        let mut routes = self.routes.values().filter(|route| route.interface == interface);
        let mut gateways = self.gateways.iter().filter(|(_, on)| **on == interface);
        routes.any(|route| peers.contains(route.subnet)) || gateways.any(|(gateway, _)| is_held(gateway))
    }

    pub(crate) fn is_underlay_up(&self, family: Family) -> Option<bool> {
        self.underlay_up[family]
    }

    /// Returns whether that is a change.
    pub(crate) fn set_underlay_up(&mut self, family: Family, up: bool) -> bool {
        self.underlay_up[family].replace(up) != Some(up)
    }
}
