//! The peers, findable by subnet, MAC address or key, underlay address and contained address.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;

use ipnet::{IpNet, Ipv4Net};

use crate::model::family::Family;
use crate::model::peer::{EndpointId, Peer, Via};

/// Sorts before every other subnet.
const LOWEST_SUBNET: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

/// All desired peers.
///
/// Invariant: `by_id`, `by_underlay` and `prefix_lengths` are indexes of `peers`. They contain exactly one entry (one
/// count) per peer, except that `by_id` has none for peers without a MAC address or key. Only [`PeerTable::insert`] and
/// [`PeerTable::remove`] change them, always together.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerTable {
    peers: BTreeMap<IpNet, PeerEntry>,
    by_id: BTreeSet<(EndpointId, Seniority)>,
    by_underlay: BTreeSet<(IpAddr, IpNet)>,
    /// Number of peers with each prefix length.
    prefix_lengths: BTreeMap<(Family, u8), usize>,
}

/// How old a peer is: when it registered, then its subnet. The lower of two peers is the older one.
pub(crate) type Seniority = (u64, IpNet);

/// A peer in the table; its subnet is the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerEntry {
    pub(crate) via: Via,
    /// When the peer registered, see [`Overlay::set_peer_since`](crate::Overlay::set_peer_since).
    pub(crate) since: u64,
    /// ID of the peer's nexthop object; 0 if it has none.
    pub(crate) nexthop_id: u32,
}

impl PeerTable {
    /// Adds a peer, or replaces the peer with this subnet.
    pub(crate) fn insert(&mut self, subnet: IpNet, entry: PeerEntry) {
        if let Some(old) = self.peers.insert(subnet, entry) {
            self.unindex(subnet, old);
        }
        let family = Family::of_net(subnet);
        self.by_id.extend(entry.via.endpoint_id(subnet).map(|id| (id, (entry.since, subnet))));
        self.by_underlay.insert((entry.via.underlay(), subnet));
        *self.prefix_lengths.entry((family, subnet.prefix_len())).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, subnet: IpNet) {
        if let Some(old) = self.peers.remove(&subnet) {
            self.unindex(subnet, old);
        }
    }

    fn unindex(&mut self, subnet: IpNet, PeerEntry { via, since, .. }: PeerEntry) {
        let family = Family::of_net(subnet);
        if let Some(id) = via.endpoint_id(subnet) {
            self.by_id.remove(&(id, (since, subnet)));
        }
        self.by_underlay.remove(&(via.underlay(), subnet));
        if let Entry::Occupied(mut count) = self.prefix_lengths.entry((family, subnet.prefix_len())) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(crate) fn get(&self, subnet: IpNet) -> Option<PeerEntry> {
        self.peers.get(&subnet).copied()
    }

    pub(crate) fn contains(&self, subnet: IpNet) -> bool {
        self.peers.contains_key(&subnet)
    }

    /// All peers, by subnet.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Peer> {
        self.peers.iter().map(|(subnet, entry)| Peer { subnet: *subnet, via: entry.via })
    }

    pub(crate) fn set_nexthop_id(&mut self, subnet: IpNet, id: u32) {
        if let Some(entry) = self.peers.get_mut(&subnet) {
            entry.nexthop_id = id;
        }
    }

    /// All peers by subnet, each with its nexthop ID to be changed.
    pub(crate) fn nexthop_ids(&mut self) -> impl Iterator<Item = (Peer, &mut u32)> {
        self.peers
            .iter_mut()
            .map(|(subnet, entry)| (Peer { subnet: *subnet, via: entry.via }, &mut entry.nexthop_id))
    }

    /// The peers with this MAC address or key, the oldest first.
    pub(crate) fn with_id(&self, id: EndpointId) -> impl Iterator<Item = Seniority> {
        let all = self.by_id.range((id, (0, LOWEST_SUBNET))..).take_while(move |entry| entry.0 == id);
        all.map(|entry| entry.1)
    }

    /// Whether an older peer has this MAC address or key.
    pub(crate) fn shares_id_with_older(&self, peer: Seniority, id: EndpointId) -> bool {
        let before = self.by_id.range(..(id, peer)).next_back();
        before.is_some_and(|before| before.0 == id)
    }

    /// Subnets of the peers with this underlay address, lowest first.
    pub(crate) fn with_underlay(&self, underlay: IpAddr) -> impl Iterator<Item = IpNet> {
        let same = move |entry: &&(IpAddr, IpNet)| entry.0 == underlay;
        self.by_underlay.range((underlay, LOWEST_SUBNET)..).take_while(same).map(|entry| entry.1)
    }

    /// Underlay addresses inside this network, each with the subnet of its peer.
    pub(crate) fn underlays_inside(&self, network: IpNet) -> impl Iterator<Item = (IpAddr, IpNet)> {
        let inside = move |(address, _): &&(IpAddr, IpNet)| network.contains(address);
        self.by_underlay.range((network.network(), LOWEST_SUBNET)..).take_while(inside).copied()
    }

    /// The peers whose subnets start with this address, shortest prefix first.
    pub(crate) fn starting_at(&self, address: IpAddr) -> impl Iterator<Item = (IpNet, PeerEntry)> {
        let shortest = IpNet::new(address, 0).unwrap_or_else(|_never| IpNet::from(address));
        let same = move |(subnet, _): &(&IpNet, &PeerEntry)| subnet.addr() == address;
        self.peers.range(shortest..).take_while(same).map(|(subnet, entry)| (*subnet, *entry))
    }

    /// Subnets of the peers that contain this address and have a shorter prefix than `length`. Costs one lookup per
    /// prefix length that any peer has.
    pub(crate) fn containing(&self, address: IpAddr, length: u8) -> impl Iterator<Item = IpNet> {
        let family = Family::of(address);
        let lengths = self.prefix_lengths.range((family, 0)..(family, length));
        let subnets = lengths.filter_map(move |((_, length), _)| IpNet::new(address, *length).ok());
        subnets.map(|subnet| subnet.trunc()).filter(|subnet| self.peers.contains_key(subnet))
    }

    /// The peers whose subnets are inside this one, itself excepted.
    pub(crate) fn inside(&self, subnet: IpNet) -> impl Iterator<Item = (IpNet, PeerEntry)> {
        let after = (Bound::Excluded(subnet), Bound::Unbounded);
        let inside = move |(next, _): &(&IpNet, &PeerEntry)| subnet.contains(*next);
        self.peers.range(after).take_while(inside).map(|(subnet, entry)| (*subnet, *entry))
    }

    /// The lowest subnet of another peer inside this one.
    pub(crate) fn first_inside(&self, subnet: IpNet) -> Option<IpNet> {
        // A subnet inside another sorts directly after it.
        let after = (Bound::Excluded(subnet), Bound::Unbounded);
        let (next, _) = self.peers.range(after).next()?;
        subnet.contains(next).then_some(*next)
    }

    /// Subnets of peers that may conflict with another peer: they share a MAC address or key, one is inside the other, or one
    /// contains the underlay address of the other. Two walks over all peers, without a lookup per peer.
    pub(crate) fn possible_rivals(&self) -> BTreeSet<IpNet> {
        let mut rivals = BTreeSet::new();
        // A subnet inside others sorts after the innermost of them.
        let mut around: Vec<IpNet> = Vec::new();
        for subnet in self.peers.keys() {
            while around.pop_if(|outer| !outer.contains(subnet)).is_some() {}
            if let Some(outer) = around.last() {
                rivals.extend([*outer, *subnet]);
            }
            around.push(*subnet);
        }
        let pairs = self.by_id.iter().zip(self.by_id.iter().skip(1));
        let pairs = pairs.filter(|(first, second)| first.0 == second.0);
        rivals.extend(pairs.flat_map(|(first, second)| [first.1.1, second.1.1]));
        let mut underlays = self.by_underlay.iter().peekable();
        for subnet in self.peers.keys() {
            while underlays.next_if(|(address, _)| *address < subnet.network()).is_some() {}
            let inside = underlays.clone().take_while(|(address, _)| subnet.contains(address));
            rivals.extend(inside.flat_map(|(_, peer)| [*subnet, *peer]));
        }
        rivals
    }

    /// Underlay addresses of several peers, with the subnet of each of them but the lowest.
    pub(crate) fn shared_underlays(&self) -> impl Iterator<Item = (IpAddr, IpNet)> {
        let pairs = self.by_underlay.iter().zip(self.by_underlay.iter().skip(1));
        pairs.filter(|(first, second)| first.0 == second.0).map(|(_, second)| *second)
    }

    /// Subnets that contain the subnet of another peer, with the lowest such subnet.
    pub(crate) fn nested_subnets(&self) -> impl Iterator<Item = (IpNet, IpNet)> {
        let pairs = self.peers.keys().zip(self.peers.keys().skip(1));
        pairs.filter(|(outer, inner)| outer.contains(*inner)).map(|(outer, inner)| (*outer, *inner))
    }
}
