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
        let mut shorter = self.starting_at(subnet.network()).map(|(other, _)| other).take_while(before);
        if let Some(other) = shorter.find(|other| fit(*other).is_some()) {
            return Some(PeerConflict::SubnetTaken(other));
        }
        let Via::Tunnel { mac, underlay } = via else { return None };
        let first = self
            .claimants(Family::of_net(subnet), mac)
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
        if spec.device.as_ref().is_some_and(|device| device.local == underlay) || self.is_hosts(underlay) {
            return Some(PeerConflict::OwnUnderlay(underlay));
        }
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

    fn is_hosts(&self, address: IpAddr) -> bool {
        self.host.binary_search_by(|(own, _)| own.cmp(&address)).is_ok()
    }
}
