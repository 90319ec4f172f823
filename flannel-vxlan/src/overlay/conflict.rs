//! The conflict rules: which peers are not programmed, because they contradict other peers or would harm this host.
//!
//! Pure functions of the desired families, the peers and the host.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::device::DeviceSpec;
use crate::model::family::{Family, PerFamily};
use crate::model::family_spec::FamilySpec;
use crate::model::objects::ObservedRoute;
use crate::model::peer::{EndpointId, Via};
use crate::overlay::host_view::{HostView, RouteHarm};
use crate::overlay::peer_table::{PeerEntry, PeerTable, Seniority};

/// Most peers with one MAC address or key that are considered; all younger ones are in conflict with the oldest.
const MAX_CLAIMANTS: usize = 64;

/// Why a peer is not programmed. The overlay keeps the peer and programs it as soon as the reason is gone.
///
/// A variant with a subnet and an address names another peer and its underlay address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerConflict {
    /// This node has no overlay of the peer's family, or no device in it that reaches the peer this way.
    #[error("this node's network configuration has no {0} network, or another backend than the peer's")]
    NoSuchOverlay(Family),
    /// Subnet and underlay address have different families. Only WireGuard can carry one family in the other.
    #[error("the peer's underlay address {0} is not of the same family as its subnet")]
    FamilyMismatch(IpAddr),
    /// The subnet overlaps this node's own.
    #[error("the peer's subnet overlaps {0}, the subnet of this node")]
    OwnSubnet(IpNet),
    /// The subnet contains the peer's own underlay address: the tunnel would carry its own packets.
    #[error("the peer's subnet contains its own underlay address {0}")]
    HoldsItsUnderlay(IpAddr),
    /// The subnet lies outside [`FamilySpec::networks`]: no pods have addresses there.
    #[error("the peer's subnet is outside the pod network")]
    OutsideNetworks,
    /// The underlay address is not the address of a single host, but loopback, multicast, broadcast or unspecified.
    #[error("the peer's underlay address {0} is not the address of a host")]
    NotHostAddress(IpAddr),
    /// The MAC address is also the MAC address of this node's VXLAN device.
    #[error("the peer has the MAC address of this node's own VXLAN device")]
    OwnMac,
    /// The underlay address is an address of this node.
    #[error("the peer's underlay address {0} belongs to this node")]
    OwnUnderlay(IpAddr),
    /// The subnet contains a network that this host is attached to: a route to it would capture the host's traffic.
    #[error("the peer's subnet contains {0}, a network that this host is attached to")]
    CoversHostNetwork(IpNet),
    /// The subnet contains an address of this host.
    #[error("the peer's subnet contains {0}, an address of this host")]
    HoldsHostAddress(IpAddr),
    /// The subnet contains a gateway of this host's routes.
    #[error("the peer's subnet contains {0}, a gateway of this host")]
    HoldsGateway(IpAddr),
    /// Another program has a route to exactly this subnet, with any metric.
    #[error("this host has a route of another program to the peer's subnet: {0}; remove that route")]
    HostRoute(ObservedRoute),
    /// The subnet of an older peer, or a larger one of a peer that is as old, starts with the same address, which would be
    /// the address of both tunnel endpoints.
    #[error("the peer's subnet starts with the same address as {0}, the subnet of node {1}")]
    EndpointTaken(IpNet, IpAddr),
    /// The subnet is inside the subnet of an older peer: a route to it would take packets from that peer's pods.
    #[error("the peer's subnet is inside {0}, the subnet of node {1}, which registered before it")]
    InsideOlder(IpNet, IpAddr),
    /// The underlay address lies in the subnet of another peer: see [`Overlay`](crate::Overlay).
    #[error("the peer's underlay address is in {0}, the subnet of node {1}")]
    UnderlayInside(IpNet, IpAddr),
    /// The subnet contains the underlay address of another peer, whose packets would be encapsulated twice.
    #[error("the peer's subnet contains {address}, the underlay address of the node with subnet {peer}")]
    HoldsUnderlayOf {
        /// The other peer.
        peer: IpNet,
        /// Its underlay address.
        address: IpAddr,
    },
    /// Another peer has the same MAC address at another underlay address. The peer that registered first is programmed, of
    /// two that are as old the one with the lowest subnet.
    #[error("node {1} with subnet {0} has the same MAC address and is programmed instead")]
    MacTaken(IpNet, IpAddr),
    /// The public key is also this node's. The kernel would ignore the peer.
    #[error("the peer's public key is the public key of this node")]
    OwnKey,
    /// Another peer of the same WireGuard device has the same public key at another endpoint. The same peer is programmed as
    /// with [`PeerConflict::MacTaken`].
    #[error("node {1} with subnet {0} has the same public key at another endpoint and is programmed instead")]
    KeyTaken(IpNet, IpAddr),
    /// The endpoint of a WireGuard peer lies in the pod network, whose route leads to the WireGuard device: the tunnel would
    /// carry its own packets.
    #[error("the peer's endpoint {0} is inside the pod network, so the tunnel would carry its own packets")]
    UnderlayInPodNetwork(IpAddr),
    /// The pod network contains an address or a gateway of this host that no more specific route reaches. The route of the
    /// network to the WireGuard device is not set, because it would cut this host off.
    #[error(
        "the pod network {network} contains {address}, an address or gateway of this host: a route to the WireGuard device \
         would cut this host off. Choose a pod network without it"
    )]
    NetworkCutsOff {
        /// The pod network.
        network: IpNet,
        /// The address or gateway.
        address: IpAddr,
    },
}

/// What the rules depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) families: &'a PerFamily<Option<FamilySpec>>,
    pub(crate) peers: &'a PeerTable,
    pub(crate) host: &'a HostView,
}

/// Peers whose conflicts or status the change of one peer may alter.
#[derive(Debug, Default)]
pub(crate) struct Affected {
    /// Peers to be written again.
    pub(crate) rewrite: Vec<IpNet>,
    /// Peers whose status may differ, but not what the kernel needs for them.
    pub(crate) review: Vec<IpNet>,
}

impl Rules<'_> {
    /// Why this peer is not programmed.
    pub(crate) fn conflict(&self, subnet: IpNet, via: Via, since: u64) -> Option<PeerConflict> {
        if let Some(conflict) = self.harm(subnet, via) {
            return Some(conflict);
        }
        let mut inside =
            self.peers.underlays_inside(subnet).filter(|(address, _)| !self.is_for_pods(*address));
        if let Some((address, peer)) = inside.find(|(_, peer)| *peer != subnet && self.is_harmless(*peer)) {
            return Some(PeerConflict::HoldsUnderlayOf { peer, address });
        }
        let underlay = via.underlay();
        if self.is_for_pods(underlay) {
            let mut holders = self.peers.containing(underlay, u8::MAX);
            if let Some(holder) = holders.find(|holder| *holder != subnet && self.is_harmless(*holder)) {
                return self.with(PeerConflict::UnderlayInside, holder);
            }
        }
        let is_older = |other: &IpNet| self.peers.get(*other).is_some_and(|other| other.since < since);
        let mut outer = self.peers.containing(subnet.addr(), subnet.prefix_len()).filter(is_older);
        if let Some(outer) = outer.find(|outer| self.is_harmless(*outer)) {
            return self.with(PeerConflict::InsideOlder, outer);
        }
        let id = via.endpoint_id(subnet)?;
        let mut rivals = self.peers.starting_at(subnet.addr()).filter(|_| via.mac().is_some());
        let is_rival = |(other, entry): &(IpNet, PeerEntry)| {
            let comes_first = (entry.since, *other) < (since, subnet);
            comes_first && entry.via.mac().is_some() && self.is_harmless(*other)
        };
        if let Some((other, entry)) = rivals.find(is_rival) {
            return Some(PeerConflict::EndpointTaken(other, entry.via.underlay()));
        }
        // For most peers this lookup is the only one that follows.
        if !self.peers.shares_id_with_older((since, subnet), id) {
            return None;
        }
        let taken = match id {
            EndpointId::Mac(..) => PeerConflict::MacTaken,
            EndpointId::Key(_) => PeerConflict::KeyTaken,
        };
        let family = Family::of_net(subnet);
        let mut older = self.claimants(id, family).take_while(|(_, other)| *other != subnet);
        let Some((_, first)) = older.find(|(_, other)| self.is_harmless(*other)) else {
            let is_considered = self.claimants(id, family).any(|(_, other)| other == subnet);
            let (_, first) = self.claimants(id, family).next().filter(|_| !is_considered)?;
            return self.with(taken, first);
        };
        let first_via = self.peers.get(first)?.via;
        (!first_via.leads_to_same(&via)).then_some(taken(first, first_via.underlay()))
    }

    /// A conflict with this peer.
    fn with(&self, conflict: fn(IpNet, IpAddr) -> PeerConflict, other: IpNet) -> Option<PeerConflict> {
        Some(conflict(other, self.peers.get(other)?.via.underlay()))
    }

    /// The peers of the device of `family` with this MAC address or key that may be programmed, the oldest first: at most
    /// [`MAX_CLAIMANTS`], so that many leases with one MAC address or key cost no more than a few.
    pub(crate) fn claimants(&self, id: EndpointId, family: Family) -> impl Iterator<Item = Seniority> {
        let device = self.families.device_owner(family);
        let is_here = move |(_, subnet): &Seniority| {
            let of = Family::of_net(*subnet);
            of == family || self.families.device_owner(of) == device
        };
        self.peers.with_id(id).filter(is_here).take(MAX_CLAIMANTS)
    }

    /// Why this peer is not programmed; `None` if it is, or if there is no such peer.
    pub(crate) fn conflict_of(&self, subnet: IpNet) -> Option<PeerConflict> {
        let PeerEntry { via, since, .. } = self.peers.get(subnet)?;
        self.conflict(subnet, via, since)
    }

    /// All conflicts, by subnet.
    pub(crate) fn all_conflicts(&self) -> Vec<(IpNet, PeerConflict)> {
        let rivals = self.peers.possible_rivals();
        let conflict = |subnet: IpNet, via| match rivals.contains(&subnet) {
            true => self.conflict_of(subnet),
            false => self.harm(subnet, via),
        };
        let peers = self.peers.iter();
        peers.filter_map(|peer| Some((peer.subnet, conflict(peer.subnet, peer.via)?))).collect()
    }

    /// Whether an address lies in the cluster's networks, and in no smaller network that this host is attached to. If
    /// two peers claim such an address, it belongs to the peer whose subnet contains it.
    fn is_for_pods(&self, address: IpAddr) -> bool {
        let Some(spec) = &self.families[Family::of(address)] else { return false };
        let is_attached =
            |network: &IpNet| self.host.networks_of(address).any(|attached| network.contains(&attached));
        spec.networks.iter().any(|network| network.contains(&address) && !is_attached(network))
    }

    /// Whether this peer could be programmed if there were no other peers.
    pub(crate) fn is_harmless(&self, subnet: IpNet) -> bool {
        self.peers.get(subnet).is_some_and(|entry| self.harm(subnet, entry.via).is_none())
    }

    /// Why programming this peer would harm this host, regardless of other peers.
    fn harm(&self, subnet: IpNet, via: Via) -> Option<PeerConflict> {
        let family = Family::of_net(subnet);
        let underlay = via.underlay();
        let Some(spec) = &self.families[family] else { return Some(PeerConflict::NoSuchOverlay(family)) };
        if !via.fits(spec.device.as_ref()) {
            return Some(PeerConflict::NoSuchOverlay(family));
        }
        let is_wireguard = matches!(via, Via::Key { .. });
        if Family::of(underlay) != family && !is_wireguard {
            return Some(PeerConflict::FamilyMismatch(underlay));
        }
        if subnet.contains(&spec.subnet) || spec.subnet.contains(&subnet) {
            return Some(PeerConflict::OwnSubnet(spec.subnet));
        }
        if subnet.contains(&underlay) {
            return Some(PeerConflict::HoldsItsUnderlay(underlay));
        }
        if !is_host_address(underlay) {
            return Some(PeerConflict::NotHostAddress(underlay));
        }
        let local = spec.device.as_ref().map(|device| device.local);
        if local == Some(underlay) || self.host.has(underlay) {
            return Some(PeerConflict::OwnUnderlay(underlay));
        }
        if local.is_some_and(|local| self.host.is_broadcast(local, underlay)) {
            return Some(PeerConflict::NotHostAddress(underlay));
        }
        if let (Via::Key { key, .. }, Some(ours)) =
            (via, spec.device.as_ref().and_then(DeviceSpec::public_key))
            && key == ours
        {
            return Some(PeerConflict::OwnKey);
        }
        let mut networks = spec.networks.iter().map(IpNet::trunc).filter(|network| network.contains(&subnet));
        if is_wireguard
            && let Some((network, address)) =
                networks.find_map(|network| Some((network, self.host.cut_off(network)?)))
        {
            return Some(PeerConflict::NetworkCutsOff { network, address });
        }
        if is_wireguard && self.is_for_pods(underlay) {
            return Some(PeerConflict::UnderlayInPodNetwork(underlay));
        }
        if via.mac().is_some() && via.mac() == spec.device.as_ref().and_then(DeviceSpec::mac) {
            return Some(PeerConflict::OwnMac);
        }
        match self.host.harm_of_route_to(subnet) {
            Some(RouteHarm::Network(network)) => Some(PeerConflict::CoversHostNetwork(network)),
            Some(RouteHarm::Address(address)) => Some(PeerConflict::HoldsHostAddress(address)),
            Some(RouteHarm::Gateway(gateway)) => Some(PeerConflict::HoldsGateway(gateway)),
            Some(RouteHarm::Route(route)) => Some(PeerConflict::HostRoute(route)),
            None => (!spec.may_hold_pods(subnet)).then_some(PeerConflict::OutsideNetworks),
        }
    }

    /// Peers that are affected if this peer changes to `next` (`None`: it is removed), itself included.
    pub(crate) fn affected_by(&self, subnet: IpNet, next: Option<(Via, u64)>) -> Affected {
        let old = self.peers.get(subnet).map(|entry| (entry.via, entry.since));
        let mut rewrite: Vec<IpNet> = vec![subnet];
        rewrite.extend(self.peers.starting_at(subnet.addr()).map(|(other, _)| other));
        rewrite.extend(self.peers.underlays_inside(subnet).map(|(_, peer)| peer));
        if let Some(since) = [old, next].into_iter().flatten().map(|(_, since)| since).min() {
            let younger = self.peers.inside(subnet).filter(|(_, inner)| inner.since > since);
            rewrite.extend(younger.map(|(inner, _)| inner));
        }
        let mut review: Vec<IpNet> = self.peers.containing(subnet.addr(), subnet.prefix_len()).collect();
        for (via, since) in [old, next].into_iter().flatten() {
            let underlay = via.underlay();
            let spec = self.families[Family::of(underlay)].as_ref();
            if spec.is_some_and(|spec| spec.may_hold_pods(underlay.into())) {
                rewrite.extend(self.peers.containing(underlay, u8::MAX));
            }
            review.extend(self.peers.with_underlay(underlay).take(2));
            if let Some(id) = via.endpoint_id(subnet) {
                let family = Family::of_net(subnet);
                // Only the first harmless peer with a MAC address or key decides about the others.
                let first = self.claimants(id, family).find(|(_, other)| self.is_harmless(*other));
                if first.is_none_or(|first| (since, subnet) <= first) {
                    rewrite.extend(self.claimants(id, family).map(|(_, other)| other));
                }
            }
        }
        Affected { rewrite, review }
    }
}

/// Whether an address can be the address of a single host on any network.
fn is_host_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            first != 0 && !v4.is_loopback() && !v4.is_multicast() && !v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none()
        }
    }
}
