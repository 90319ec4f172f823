//! Which peers are programmed, when they contradict each other or would harm this host.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::overlay::Slot;
use crate::{Family, MacAddr, Overlay, PeerConflict, Via};

impl Overlay {
    /// Subnets of the peers that claim this MAC address, lowest first.
    pub(crate) fn claimants(&self, family: Family, mac: MacAddr) -> impl Iterator<Item = IpNet> {
        let lowest = match family {
            Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
            Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
        };
        let same = move |entry: &&(Family, MacAddr, IpNet)| entry.0 == family && entry.1 == mac;
        self.macs.range((family, mac, lowest)..).take_while(same).map(|entry| entry.2)
    }

    /// The peers whose subnets begin with this address, shortest prefix first.
    pub(crate) fn starting_at(&self, address: IpAddr) -> impl Iterator<Item = (IpNet, &Slot)> {
        let shortest = IpNet::new(address, 0).unwrap_or_else(|_never| IpNet::from(address));
        let same = move |(subnet, _): &(&IpNet, &Slot)| subnet.addr() == address;
        self.peers.range(shortest..).take_while(same).map(|(subnet, slot)| (*subnet, slot))
    }

    /// Why a peer is not to be programmed.
    pub(crate) fn conflict(&self, subnet: IpNet, via: Via) -> Option<PeerConflict> {
        if let Some(conflict) = self.harm(subnet, via) {
            return Some(conflict);
        }
        let fit = |other: IpNet| {
            let via = self.peers.get(&other)?.via;
            (other != subnet && self.harm(other, via).is_none()).then_some(via)
        };
        let before = |other: &IpNet| *other < subnet;
        // Most peers have nothing in common with the one before them, which is all that there is to look at then.
        let last = self.peers.range(..subnet).next_back();
        if last.is_some_and(|(last, _)| last.addr() == subnet.addr()) {
            let mut shorter = self.starting_at(subnet.addr()).map(|(other, _)| other).take_while(before);
            if let Some(other) = shorter.find(|other| fit(*other).is_some()) {
                return Some(PeerConflict::SubnetTaken(other));
            }
        }
        let Via::Tunnel { mac, underlay } = via else { return None };
        let family = Family::of_net(subnet);
        let last = self.macs.range(..(family, mac, subnet)).next_back();
        last.filter(|last| (last.0, last.1) == (family, mac))?;
        let first = self
            .claimants(family, mac)
            .take_while(before)
            .find_map(|other| Some((other, fit(other)?.underlay())));
        first.filter(|(_, theirs)| *theirs != underlay).map(|(other, _)| PeerConflict::MacTaken(other))
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
        let local = spec.device.as_ref().map(|device| device.local);
        if local == Some(underlay) || self.is_hosts(underlay) {
            return Some(PeerConflict::OwnUnderlay(underlay));
        }
        if !is_station(underlay) || local.is_some_and(|local| self.is_broadcast(local, underlay)) {
            return Some(PeerConflict::NoStation(underlay));
        }
        if matches!((via, &spec.device), (Via::Tunnel { mac, .. }, Some(device)) if device.mac == mac) {
            return Some(PeerConflict::OwnMac);
        }
        if let Some(conflict) = self.harm_to_host(family, subnet) {
            return Some(conflict);
        }
        let inside =
            spec.networks.is_empty() || spec.networks.iter().any(|network| network.contains(&subnet));
        (!inside).then_some(PeerConflict::OutsideNetworks)
    }

    fn harm_to_host(&self, family: Family, subnet: IpNet) -> Option<PeerConflict> {
        // A network of the host that lies in the subnet has its address there too, so addresses are all to look at.
        // The other way round is fine: pods in 10.244.0.0/16 on a host in 10.0.0.0/8.
        let from = self.host.partition_point(|(address, _)| *address < subnet.network());
        let (address, prefix) = *self.host.get(from).filter(|(address, _)| subnet.contains(address))?;
        let network = IpNet::new(address, prefix).map_or(subnet, |network| network.trunc());
        Some(if subnet.contains(&network) && prefix < family.bits() {
            PeerConflict::CoversHostNetwork(network)
        } else {
            PeerConflict::HoldsHostAddress(address)
        })
    }

    pub(crate) fn is_hosts(&self, address: IpAddr) -> bool {
        self.prefix_of(address).is_some()
    }

    /// Whether `address` reaches everybody on the network that the host's address `local` is on.
    fn is_broadcast(&self, local: IpAddr, address: IpAddr) -> bool {
        let network = self.prefix_of(local).and_then(|prefix| IpNet::new(local, prefix).ok());
        network.is_some_and(|network| {
            let all = network.addr().is_ipv4() && network.prefix_len() < 31;
            all && (address == network.broadcast() || address == network.network())
        })
    }

    /// Length of the prefix that this address of the host has.
    fn prefix_of(&self, address: IpAddr) -> Option<u8> {
        let at = self.host.binary_search_by(|(own, _)| own.cmp(&address)).ok()?;
        self.host.get(at).map(|(_, prefix)| *prefix)
    }
}

/// Whether it can be the address of one host, on any network.
fn is_station(address: IpAddr) -> bool {
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
