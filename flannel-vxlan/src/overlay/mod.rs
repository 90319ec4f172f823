//! The desired state of the overlay and what the kernel has of it. A change of one peer costs the same at any number
//! of peers.

pub(crate) mod conflict;
mod converge;
pub(crate) mod device_state;
pub(crate) mod host_view;
pub(crate) mod invalidation;
pub(crate) mod nexthop_ids;
pub(crate) mod peer_status;
pub(crate) mod peer_table;
pub(crate) mod pending_peers;
mod wireguard;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::family::{Family, PerFamily};
use crate::model::family_spec::{FamilySpec, Links};
use crate::model::mac::MacAddr;
use crate::model::objects::{BLACKHOLE_METRIC, Entries, ObservedRoute, Route};
use crate::model::peer::{EndpointId, Peer, Via};
use crate::overlay::conflict::{PeerConflict, Rules};
use crate::overlay::device_state::DeviceState;
use crate::overlay::host_view::HostView;
use crate::overlay::nexthop_ids::NexthopIds;
use crate::overlay::peer_status::{PeerStatusChange, PeerStatuses, status_of};
use crate::overlay::peer_table::{PeerEntry, PeerTable};
use crate::overlay::pending_peers::{Pending, Programmed};
use crate::plan::part::Part;
use crate::plan::wireguard::SentBytes;

/// The desired devices and peers, and which of them the kernel does not have yet.
///
/// [`Overlay::set_peer`] and [`Overlay::remove_peer`] note a change; [`Overlay::flush`] writes the noted changes.
/// [`Overlay::converge`] observes the kernel first, and so also repairs changes of other programs.
///
/// # Conflicts
/// The result depends only on the peers, not on the order in which they were set:
/// - Same subnet: the peer that was set last replaces the other.
/// - A subnet inside another: both peers are programmed, and the longer prefix gets its packets, as with all routes. But
///   a subnet inside the subnet of an older peer is not programmed; and if the subnets of two tunnel peers start with the same
///   address, which is the address of their VXLAN devices, only the older peer is programmed, of peers that are as old
///   the one with the larger subnet.
/// - A subnet that contains the underlay address of another peer: one of the two is not programmed. If the address lies
///   in the pod network ([`FamilySpec::networks`]), and in no smaller network that this host is attached to, it is the
///   other peer. Otherwise it is the peer with the subnet, which would capture the other peer's packets.
/// - One MAC address at two underlay addresses: only the oldest peer is programmed, see
///   [`Overlay::set_peer_since`]; of peers that are as old, the one with the lowest subnet.
/// - One public key at two endpoints: the same. In WireGuard a node may have several subnets, with the same key and
///   endpoint.
/// - One underlay address with two MAC addresses, keys or subnets: both peers are programmed.
/// - A pod network that contains an address or gateway of this host which no more specific route reaches: with WireGuard
///   its route is not set, and none of its peers is programmed. Pod traffic then follows the host's other routes,
///   unencrypted.
///
/// A peer that would harm this host (see [`PeerConflict`]) is not programmed and does not affect other peers. The
/// overlay programs a peer by itself when its conflict ends. [`Overlay::take_status_changes`] reports each change.
///
/// # Examples
/// See the [crate](crate#example).
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    families: PerFamily<Option<FamilySpec>>,
    peers: PeerTable,
    pending: Pending,
    host: HostView,
    devices: DeviceState,
    statuses: PeerStatuses,
    nexthops: NexthopIds,
    /// Whether objects that no known peer needs are kept.
    keeps_unknown: bool,
    /// Parts that are not repaired.
    hold: BTreeSet<Part>,
    /// Whether WireGuard peers at other endpoints are sending.
    sent: SentBytes,
}

impl Overlay {
    /// An overlay of these families, without peers.
    #[must_use]
    pub fn new(families: impl IntoIterator<Item = FamilySpec>) -> Self {
        let mut overlay = Self::default();
        for family in families {
            overlay.set_family(family);
        }
        overlay
    }

    /// Sets or replaces one family, e.g. with another MTU or underlay. The next [`Overlay::flush`] is an
    /// [`Overlay::converge`], which changes the device in place if possible and recreates it otherwise.
    pub fn set_family(&mut self, spec: FamilySpec) {
        let family = spec.family();
        if self.families[family].as_ref() != Some(&spec) {
            self.devices.desired_changed(family);
            if let Some(device) = &spec.device {
                self.nexthops.choose_range(&device.kind);
            }
            self.families[family] = Some(spec);
            self.pending.request_family();
        }
    }

    /// Removes one family, e.g. because its underlay has become too small for it. The next [`Overlay::flush`] is an
    /// [`Overlay::converge`]. It leaves the objects of the family in the kernel:
    /// [`Plan::leftovers`](crate::Plan::leftovers) deletes them. Peers stay, and are programmed when the family is set
    /// again.
    pub fn remove_family(&mut self, family: Family) {
        if self.families[family].take().is_some() {
            self.devices.desired_changed(family);
            self.pending.invalidate();
        }
    }

    /// The present specification of this family; `None` if the overlay does not have the family.
    #[must_use]
    pub fn family(&self, family: Family) -> Option<&FamilySpec> {
        self.families[family].as_ref()
    }

    /// Adds a peer, or changes the peer with this subnet.
    ///
    /// # Errors
    /// [`PeerConflict`]: why the peer is not programmed. The overlay keeps it, and programs it when the conflict ends.
    pub fn set_peer(&mut self, peer: Peer) -> Result<(), PeerConflict> {
        self.set_peer_since(peer, 0)
    }

    /// The same for a peer that registered at `since`, in any unit that grows: seconds, or a revision of a store. If two
    /// peers contradict each other, the one that registered first is programmed, so that no newcomer takes over an
    /// address or a subnet. Default: 0, before every other.
    ///
    /// # Errors
    /// As [`Overlay::set_peer`].
    pub fn set_peer_since(&mut self, peer: Peer, since: u64) -> Result<(), PeerConflict> {
        let subnet = peer.subnet.trunc();
        let old = self.peers.get(subnet);
        if old.is_none_or(|old| (old.via, old.since) != (peer.via, since)) {
            let reviewed = self.mark_affected(subnet, Some((peer.via, since)));
            let nexthop_id = match (peer.via, old) {
                (Via::Key { .. } | Via::Direct { .. }, _) => 0,
                (Via::Tunnel { .. } | Via::Outer { .. }, Some(old)) if old.nexthop_id != 0 => old.nexthop_id,
                // A peer that was removed and returns before the removal was written keeps its nexthop object.
                (Via::Tunnel { .. } | Via::Outer { .. }, _) => self.pending.programmed_nexthop_id(subnet),
            };
            self.peers.insert(subnet, PeerEntry { via: peer.via, since, nexthop_id });
            self.review(&reviewed);
        }
        self.conflict_of(subnet).map_or(Ok(()), Err)
    }

    /// Removes the peer with this subnet. Returns whether there was one.
    pub fn remove_peer(&mut self, subnet: IpNet) -> bool {
        let subnet = subnet.trunc();
        if !self.peers.contains(subnet) {
            return false;
        }
        let reviewed = self.mark_affected(subnet, None);
        self.peers.remove(subnet);
        self.review(&reviewed);
        true
    }

    /// Removes every peer for which `keep` returns false, e.g. after a complete listing of the peers.
    pub fn retain_peers(&mut self, mut keep: impl FnMut(Peer) -> bool) {
        let gone: Vec<IpNet> =
            self.peers.iter().filter(|peer| !keep(*peer)).map(|peer| peer.subnet).collect();
        for subnet in gone {
            self.remove_peer(subnet);
        }
    }

    /// The peer with this subnet, whether it is programmed or not; `None` if there is none.
    #[must_use]
    pub fn peer(&self, subnet: IpNet) -> Option<Peer> {
        let subnet = subnet.trunc();
        self.peers.get(subnet).map(|entry| Peer { subnet, via: entry.via })
    }

    /// When this peer registered; 0 if unknown, or if there is no such peer.
    #[must_use]
    pub fn peer_since(&self, subnet: IpNet) -> u64 {
        self.peers.get(subnet.trunc()).map_or(0, |entry| entry.since)
    }

    /// All peers, by subnet.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = Peer> {
        self.peers.iter()
    }

    /// Subnets of the peers with this underlay address, lowest first.
    pub fn peers_at(&self, underlay: IpAddr) -> impl Iterator<Item = IpNet> {
        self.peers.with_underlay(underlay)
    }

    /// Subnets of the peers whose underlay address is in this network. Does not look at other peers.
    pub fn peers_within(&self, network: IpNet) -> impl Iterator<Item = IpNet> {
        self.peers.underlays_inside(network).map(|(_, subnet)| subnet)
    }

    /// Peers that are not programmed, and why. Looks at every peer.
    pub fn conflicts(&self) -> impl Iterator<Item = (IpNet, PeerConflict)> {
        let conflict = |peer: Peer| Some((peer.subnet, self.rules().conflict_of(peer.subnet)?));
        self.peers.iter().filter_map(conflict)
    }

    /// Why this peer is not programmed; `None` if it is, or if there is no such peer.
    #[must_use]
    pub fn conflict_of(&self, subnet: IpNet) -> Option<PeerConflict> {
        let subnet = subnet.trunc();
        match self.pending.is_in_sync() {
            true => self.statuses.conflict(subnet),
            false => self.rules().conflict_of(subnet),
        }
    }

    /// Changes of peers' status since the last call: peers that conflicts now prevent from being programmed, or no longer
    /// prevent, and peers that share a subnet or an underlay address. Costs as much as there are changes. Call it after a
    /// flush: before the first flush the overlay does not know what peers could harm on this host.
    pub fn take_status_changes(&mut self) -> Vec<PeerStatusChange> {
        self.statuses.take_changes()
    }

    /// Peers that the kernel does not have as desired: new, changed, refused and [withheld](Overlay::hold) peers.
    pub fn waiting(&self) -> impl Iterator<Item = IpNet> {
        self.pending.subnets().filter(|subnet| self.peers.contains(*subnet))
    }

    /// Number of peers that the kernel refused. [`Overlay::flush`] does not try them again until [`Overlay::retry`], so
    /// that they cost nothing when other peers change. [`Overlay::converge`] tries them.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.pending.refused_count()
    }

    /// Number of peers that the kernel has, directly after a flush.
    #[must_use]
    pub fn programmed(&self) -> usize {
        let missing =
            self.pending.refused_count() + self.pending.withheld_count() + self.statuses.conflict_count();
        self.peers.iter().len().saturating_sub(missing)
    }

    /// Whether the kernel refused this peer at the last attempt.
    #[must_use]
    pub fn is_refused(&self, subnet: IpNet) -> bool {
        self.pending.is_refused(subnet.trunc())
    }

    /// Makes the next [`Overlay::flush`] try the refused peers again.
    pub fn retry(&mut self) {
        self.pending.retry();
    }

    /// Whether the kernel may differ from the desired state.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.pending.is_in_sync() || !self.pending.is_empty()
    }

    /// Whether the next [`Overlay::flush`] observes the kernel first: at the start, after [`Overlay::set_family`] and
    /// [`Overlay::invalidate`], and after a plan that was cut short.
    #[must_use]
    pub fn needs_observe(&self) -> bool {
        !self.pending.is_in_sync()
    }

    /// Notes that the kernel may no longer hold what was written, so that the next [`Overlay::flush`] observes it.
    pub fn invalidate(&mut self) {
        self.pending.invalidate();
    }

    /// Sets whether stale objects are kept, because not all peers are known yet. Known peers are still written and
    /// repaired, and [`Overlay::remove_peer`] still removes a peer. Default: no. Turning it off makes the next flush an
    /// [`Overlay::converge`], which removes stale objects.
    pub fn keep_unknown(&mut self, keep: bool) {
        if self.keeps_unknown && !keep {
            self.pending.invalidate();
        }
        self.keeps_unknown = keep;
    }

    /// Sets the parts that [`Overlay::converge`] does not repair, until the next call, e.g. because another program keeps
    /// undoing the repair. Requested changes of these parts are still written: of a peer, of the peers that its change
    /// affects, and of everything after [`Overlay::set_family`]. Default: none.
    pub fn hold(&mut self, parts: BTreeSet<Part>) {
        self.hold = parts;
    }

    /// The interfaces to observe.
    #[must_use]
    pub fn links(&self) -> Vec<Links> {
        self.families.specs().map(FamilySpec::links).collect()
    }

    fn rules(&self) -> Rules<'_> {
        Rules { families: &self.families, peers: &self.peers, host: &self.host }
    }

    /// Notes that this peer, and the peers that its change to `next` affects, are to be written. Returns the peers whose
    /// status has to be reviewed after the change.
    fn mark_affected(&mut self, subnet: IpNet, next: Option<(Via, u64)>) -> Vec<IpNet> {
        if !self.pending.is_in_sync() && self.hold.is_empty() {
            self.pending.request([subnet]);
            return Vec::new(); // everything will be compared
        }
        let affected = self.rules().affected_by(subnet, next);
        if !self.pending.is_in_sync() {
            self.pending.request(affected.rewrite);
            return Vec::new();
        }
        for subnet in &affected.rewrite {
            let entry = self.peers.get(*subnet).filter(|_| self.conflict_of(*subnet).is_none());
            let programmed = entry.map(|entry| Programmed {
                via: entry.via,
                nexthop_id: entry.nexthop_id,
                is_certain: true,
            });
            self.pending.mark(*subnet, programmed);
        }
        let mut reviewed = affected.rewrite;
        reviewed.extend(affected.review);
        reviewed
    }

    /// The parts that are not repaired, and have no requested change that is not written yet.
    fn held(&self) -> BTreeSet<Part> {
        if self.hold.is_empty() || self.pending.is_family_requested() {
            return BTreeSet::new();
        }
        let mut held = self.hold.clone();
        for subnet in self.pending.requested() {
            held.remove(&Part::Peer(subnet));
            held.remove(&Part::Rest); // what a peer no longer needs is stale
            // A WireGuard peer is held by its first subnet.
            let id = self.peers.get(subnet).and_then(|entry| entry.via.endpoint_id(subnet));
            let rules = self.rules();
            for (_, same) in id.into_iter().flat_map(|id| rules.claimants(id, Family::of_net(subnet))) {
                held.remove(&Part::Peer(same));
            }
        }
        held
    }

    /// Determines the status of these peers again. Returns whether there are any.
    fn review(&mut self, subnets: &[IpNet]) -> bool {
        for subnet in subnets {
            let status = status_of(self.rules(), *subnet);
            self.statuses.set(*subnet, status);
        }
        !subnets.is_empty()
    }

    /// The desired kernel objects of this peer; `None` if it is not programmed.
    fn wanted(&self, subnet: IpNet) -> Option<Entries> {
        let entry = self.peers.get(subnet)?;
        let is_programmed = self.conflict_of(subnet).is_none();
        is_programmed.then(|| Entries::of(Peer { subnet, via: entry.via }, entry.nexthop_id))
    }

    /// Whether the desired state has a route with this destination and metric.
    pub(crate) fn has_route_at(&self, found: &ObservedRoute) -> bool {
        let is_blackhole = self
            .families
            .specs()
            .any(|spec| spec.blackhole && (spec.subnet, BLACKHOLE_METRIC) == (found.subnet, found.metric));
        let is = |route: Route| (route.subnet, route.metric()) == (found.subnet, found.metric);
        is_blackhole
            || self.families.specs().flat_map(FamilySpec::network_routes).any(is)
            || self.wanted(found.subnet).and_then(|wanted| wanted.route).is_some_and(is)
    }

    /// The underlay address of frames for this MAC address: the first programmed peer with that MAC address decides.
    fn fdb_target(&self, family: Family, mac: MacAddr) -> Option<IpAddr> {
        self.rules().claimants(EndpointId::Mac(family, mac), family).find_map(|(_, subnet)| {
            let via = self.peers.get(subnet)?.via;
            self.conflict_of(subnet).is_none().then(|| via.underlay())
        })
    }

    /// The programmed tunnel peer whose VXLAN device has this address.
    fn tunnel_at(&self, address: IpAddr) -> Option<(IpNet, MacAddr)> {
        self.peers.starting_at(address).find_map(|(subnet, entry)| {
            let mac = entry.via.mac()?;
            self.conflict_of(subnet).is_none().then_some((subnet, mac))
        })
    }
}
