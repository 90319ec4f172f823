//! Which peers are programmed, when they contradict each other or would harm this host.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;

use ipnet::IpNet;

use crate::overlay::Slot;
use crate::{Family, MacAddr, Overlay, PeerConflict, Via};

/// What every other subnet comes after.
const LOWEST: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

impl Overlay {
    /// Subnets of the peers that claim this MAC address, lowest first.
    pub(crate) fn claimants(&self, family: Family, mac: MacAddr) -> impl Iterator<Item = IpNet> {
        let same = move |entry: &&(Family, MacAddr, IpNet)| entry.0 == family && entry.1 == mac;
        self.macs.range((family, mac, LOWEST)..).take_while(same).map(|entry| entry.2)
    }

    /// The peers whose subnets begin with this address, shortest prefix first.
    pub(crate) fn starting_at(&self, address: IpAddr) -> impl Iterator<Item = (IpNet, &Slot)> {
        let shortest = IpNet::new(address, 0).unwrap_or_else(|_never| IpNet::from(address));
        let same = move |(subnet, _): &(&IpNet, &Slot)| subnet.addr() == address;
        self.peers.range(shortest..).take_while(same).map(|(subnet, slot)| (*subnet, slot))
    }

    /// Subnets of the peers at this underlay address, lowest first.
    pub fn peers_at(&self, underlay: IpAddr) -> impl Iterator<Item = IpNet> {
        let same = move |entry: &&(IpAddr, IpNet)| entry.0 == underlay;
        self.underlays.range((underlay, LOWEST)..).take_while(same).map(|entry| entry.1)
    }

    /// Subnets of the peers whose underlay address is in this network. No other peer is looked at.
    pub fn peers_within(&self, network: IpNet) -> impl Iterator<Item = IpNet> {
        self.underlays_in(network).map(|(_, subnet)| subnet)
    }

    /// Subnets of the peers that hold this address and have a prefix shorter than `length`: one look for each shorter
    /// one that any peer has.
    pub(crate) fn holding(&self, address: IpAddr, length: u8) -> impl Iterator<Item = IpNet> {
        let family = Family::of(address);
        let lengths = self.lengths.range((family, 0)..(family, length));
        let holders = lengths.filter_map(move |((_, length), _)| IpNet::new(address, *length).ok());
        holders.map(|holder| holder.trunc()).filter(|holder| self.peers.contains_key(holder))
    }

    /// Whether this could be in the subnet of a peer that is programmed.
    pub(crate) fn is_inside_networks(&self, address: IpAddr) -> bool {
        self.family(Family::of(address)).is_some_and(|spec| spec.may_hold(address.into()))
    }

    /// Underlay addresses that lie in this subnet, with the peers that have them.
    fn underlays_in(&self, subnet: IpNet) -> impl Iterator<Item = (IpAddr, IpNet)> {
        let inside = move |(address, _): &&(IpAddr, IpNet)| subnet.contains(address);
        self.underlays.range((subnet.network(), LOWEST)..).take_while(inside).copied()
    }

    /// Why a peer is not to be programmed.
    pub(crate) fn conflict(&self, subnet: IpNet, via: Via) -> Option<PeerConflict> {
        if let Some(conflict) = self.harm(subnet, via) {
            return Some(conflict);
        }
        let mut held = self.underlays_in(subnet).filter(|(address, _)| !self.is_for_pods(*address));
        if let Some((address, peer)) = held.find(|(_, peer)| *peer != subnet && self.is_harmless(*peer)) {
            return Some(PeerConflict::HoldsUnderlayOf { peer, address });
        }
        let underlay = via.underlay();
        if self.is_for_pods(underlay) {
            let mut holders = self.holding(underlay, u8::MAX);
            if let Some(holder) = holders.find(|holder| *holder != subnet && self.is_harmless(*holder)) {
                return Some(PeerConflict::UnderlayInside(holder));
            }
        }
        let Via::Tunnel { mac, .. } = via else { return None };
        let mut outer = self.starting_at(subnet.addr()).take_while(|(other, _)| *other < subnet);
        let is_rival = |(other, slot): &(IpNet, &Slot)| {
            matches!(slot.via, Via::Tunnel { .. }) && self.is_harmless(*other)
        };
        if let Some((other, _)) = outer.find(is_rival) {
            return Some(PeerConflict::EndpointTaken(other));
        }
        let family = Family::of_net(subnet);
        // Most peers have nothing in common with the one before them, which is all that there is to look at then.
        let last = self.macs.range(..(family, mac, subnet)).next_back();
        last.filter(|last| (last.0, last.1) == (family, mac))?;
        let mut before = self.claimants(family, mac).take_while(|other| *other < subnet);
        let first = before.find(|other| self.is_harmless(*other))?;
        let theirs = self.peers.get(&first)?.via.underlay();
        (theirs != underlay).then_some(PeerConflict::MacTaken(first))
    }

    /// Whether an address is one of pods rather than of a host: it is in the cluster's networks, and no network that this
    /// host is attached to and that lies in these has it. Where two peers clash over it, the one that claims it for its
    /// pods is right then.
    fn is_for_pods(&self, address: IpAddr) -> bool {
        let Some(spec) = self.family(Family::of(address)) else { return false };
        spec.networks
            .iter()
            .filter(|network| network.contains(&address))
            .any(|network| !self.host.networks_of(address).any(|attached| network.contains(&attached)))
    }

    /// The first subnet of another peer in this one.
    pub(crate) fn inner(&self, subnet: IpNet) -> Option<IpNet> {
        // It follows it: what begins in it and is not larger lies in it.
        let after = (Bound::Excluded(subnet), Bound::Unbounded);
        let (next, _) = self.peers.range(after).next()?;
        subnet.contains(next).then_some(*next)
    }

    /// Whether a peer could be programmed if there were no others.
    pub(crate) fn is_harmless(&self, subnet: IpNet) -> bool {
        self.peers.get(&subnet).is_some_and(|slot| self.harm(subnet, slot.via).is_none())
    }

    /// Why programming this peer would harm this host, whatever other peers there are.
    pub(crate) fn harm(&self, subnet: IpNet, via: Via) -> Option<PeerConflict> {
        let family = Family::of_net(subnet);
        let underlay = via.underlay();
        let Some(spec) = self.family(family) else { return Some(PeerConflict::NoSuchOverlay(family)) };
        if spec.device.is_none() && matches!(via, Via::Tunnel { .. }) {
            return Some(PeerConflict::NoSuchOverlay(family));
        }
        if Family::of(underlay) != family {
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
        if local.is_some_and(|local| self.is_broadcast(local, underlay)) {
            return Some(PeerConflict::NotHostAddress(underlay));
        }
        if matches!((via, &spec.device), (Via::Tunnel { mac, .. }, Some(device)) if device.mac == mac) {
            return Some(PeerConflict::OwnMac);
        }
        if let Some(conflict) = self.host.harmed_by(subnet) {
            return Some(conflict);
        }
        (!spec.may_hold(subnet)).then_some(PeerConflict::OutsideNetworks)
    }

    /// Whether `address` reaches everybody on the network that the host's address `local` is on.
    fn is_broadcast(&self, local: IpAddr, address: IpAddr) -> bool {
        let network = self.host.prefix_of(local).and_then(|prefix| IpNet::new(local, prefix).ok());
        network.is_some_and(|network| {
            let all = network.addr().is_ipv4() && network.prefix_len() < 31;
            all && (address == network.broadcast() || address == network.network())
        })
    }

    /// For each peer, in their order, whether it is to be programmed. Notes what there is to say about each.
    pub(crate) fn standing(&mut self) -> Vec<bool> {
        // Only peers that have something in common can be in each other's way.
        let mut rivals = std::collections::BTreeSet::new();
        let pairs = self.peers.keys().zip(self.peers.keys().skip(1));
        let pairs = pairs.filter(|(outer, inner)| outer.addr() == inner.addr());
        rivals.extend(pairs.map(|(_, inner)| *inner));
        let pairs = self.macs.iter().zip(self.macs.iter().skip(1));
        let pairs = pairs.filter(|(one, other)| (one.0, one.1) == (other.0, other.1));
        rivals.extend(pairs.flat_map(|(one, other)| [one.2, other.2]));
        let mut underlays = self.underlays.iter().peekable();
        for subnet in self.peers.keys() {
            while underlays.next_if(|(address, _)| *address < subnet.network()).is_some() {}
            let inside = underlays.clone().take_while(|(address, _)| subnet.contains(address));
            rivals.extend(inside.flat_map(|(_, peer)| [*subnet, *peer]));
        }

        let mut conflicts = Vec::new();
        let mut stands = |(subnet, slot): (&IpNet, &Slot)| {
            let conflict = match rivals.contains(subnet) {
                true => self.conflict(*subnet, slot.via),
                false => self.harm(*subnet, slot.via),
            };
            conflicts.extend(conflict.map(|conflict| (*subnet, conflict)));
            conflict.is_none()
        };
        let standing = self.peers.iter().map(&mut stands).collect();
        self.note_remarks(conflicts);
        standing
    }
}

/// Whether it can be the address of one host, on any network.
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
