//! The overlay as it should be: owner of that state, with the same small work per change at any number of peers.

pub(crate) mod conflict;
pub(crate) mod hold;
pub(crate) mod host;
pub(crate) mod nexthop_ids;
pub(crate) mod notice;
pub(crate) mod peer_status;
pub(crate) mod pending;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

pub(crate) use crate::overlay::hold::Part;
use crate::overlay::host::Host;
use crate::overlay::nexthop_ids::NexthopIds;
use crate::overlay::peer_status::PeerStatuses;
use crate::overlay::pending::Held;
use crate::{
    Applied, ApplyError, ConvergeError, Family, FamilySpec, Kernel, Links, MacAddr, Peer, PeerConflict, Plan,
    Report, Via,
};

/// The devices and peers that there should be, and which of them the kernel does not have yet.
///
/// [`Overlay::set_peer`] and [`Overlay::remove_peer`] note one change; [`Overlay::flush`] writes the noted ones.
/// [`Overlay::converge`] reads everything back first, and so repairs whatever others did.
///
/// # When peers contradict each other
/// The outcome depends on the peers alone, not on the order in which they came:
/// - one subnet: there is one peer per subnet, the last one set;
/// - one subnet inside another: both are programmed, and the longer prefix gets what is its own, as with any routes; but
///   of two tunnel peers whose subnets begin with the same address, which is that of their endpoints, only the larger one;
/// - a subnet that holds the underlay address of another peer: one of them is not programmed. If the address is one of
///   the pod network's ([`FamilySpec::networks`]), and of no network in that which this host is attached to, it is the other peer;
///   else it is the subnet's, which would swallow that one's packets;
/// - one MAC address on two underlay addresses: the peer with the lowest subnet is programmed;
/// - one underlay address with two MAC addresses or two subnets: both are programmed, as neither harms the other.
///
/// A peer that would harm this host (see [`PeerConflict`]) is not programmed, and does not stand against others. All
/// of these come in by themselves when what stands against them goes away. [`Overlay::take_status_changes`] tells of each change.
///
/// # Examples
/// See the [crate](crate#example).
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    pub(crate) families: [Option<FamilySpec>; 2],
    pub(crate) peers: BTreeMap<IpNet, Slot>,
    /// Every tunnel peer by its MAC address.
    pub(crate) macs: BTreeSet<(Family, MacAddr, IpNet)>,
    /// Every peer by its underlay address.
    pub(crate) underlays: BTreeSet<(IpAddr, IpNet)>,
    /// How many peers there are of each length of prefix.
    pub(crate) lengths: BTreeMap<(Family, u8), usize>,
    /// Peers to be written, with what the kernel has of them.
    pub(crate) dirty: BTreeMap<IpNet, Option<Held>>,
    /// Peers that the kernel refused: to be written when asked for, not with every change of others.
    pub(crate) refused: BTreeMap<IpNet, Option<Held>>,
    pub(crate) remarks: PeerStatuses,
    pub(crate) host: Host,
    pub(crate) nexthops: NexthopIds,
    /// Indexes of the VXLAN devices when they were last looked at; 0 if unknown.
    pub(crate) device_index: [u32; 2],
    /// Whether the underlay interfaces were up, when last heard of.
    pub(crate) underlay_up: [Option<bool>; 2],
    /// Devices that the kernel would not change in place.
    pub(crate) recreate: [Recreate; 2],
    /// Whether `dirty` is all there is to do.
    pub(crate) observed: bool,
    /// Whether what no known peer needs is left alone.
    pub(crate) keeps_unknown: bool,
    /// What is not repaired for now.
    pub(crate) hold: BTreeSet<Part>,
    /// Peers that are not as they should be and were not repaired for that reason.
    pub(crate) withheld: BTreeSet<IpNet>,
}

/// Whether a device is made anew although its differences are of the kind that is changed in place.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Recreate {
    /// It is changed in place.
    #[default]
    No,
    /// The kernel said that it cannot do that.
    Due,
    /// It was tried. Not again before the device is as it should be once, or should be another one.
    Tried,
}

/// What is kept of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) via: Via,
    /// Number of its nexthop object; 0 if it has none.
    pub(crate) nexthop: u32,
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

    /// Sets or replaces one family, e.g. with another MTU or underlay. The next [`Overlay::flush`] is a
    /// [`Overlay::converge`]: what can be changed in place is, the rest is made anew.
    pub fn set_family(&mut self, spec: FamilySpec) {
        let (slot, recreate) = match spec.family() {
            Family::V4 => (&mut self.families[0], &mut self.recreate[0]),
            Family::V6 => (&mut self.families[1], &mut self.recreate[1]),
        };
        if slot.as_ref() != Some(&spec) {
            *recreate = Recreate::No;
            if let Some(device) = &spec.device {
                self.nexthops.choose_range(device.vni);
            }
            *slot = Some(spec);
            self.observed = false;
        }
    }

    /// The family as it was last set.
    #[must_use]
    pub fn family(&self, family: Family) -> Option<&FamilySpec> {
        match family {
            Family::V4 => self.families[0].as_ref(),
            Family::V6 => self.families[1].as_ref(),
        }
    }

    /// Adds a peer, or changes the one with this subnet. Returns why it will not be programmed, if so.
    ///
    /// # Errors
    /// [`PeerConflict`]. The peer is kept nevertheless, and programmed when the reason is gone.
    pub fn set_peer(&mut self, peer: Peer) -> Result<(), PeerConflict> {
        let subnet = peer.subnet.trunc();
        let old = self.peers.get(&subnet).copied();
        if old.is_none_or(|old| old.via != peer.via) {
            let touched = self.mark(subnet, Some(peer.via));
            // A peer that left and returns before it was written keeps its nexthop object.
            let held = self.dirty.get(&subnet).copied().flatten().map_or(0, |held| held.nexthop);
            let nexthop = match peer.via {
                Via::Tunnel { .. } => {
                    old.map_or(held, |old| if old.nexthop == 0 { held } else { old.nexthop })
                }
                Via::Direct { .. } => 0,
            };
            self.unlist(subnet, old);
            self.list(subnet, Slot { via: peer.via, nexthop });
            self.look_again(touched);
        }
        self.conflict_of(subnet).map_or(Ok(()), Err)
    }

    /// Removes the peer with this subnet; returns whether there was one.
    pub fn remove_peer(&mut self, subnet: IpNet) -> bool {
        let subnet = subnet.trunc();
        if !self.peers.contains_key(&subnet) {
            return false;
        }
        let touched = self.mark(subnet, None);
        let old = self.peers.remove(&subnet);
        self.unlist(subnet, old);
        self.look_again(touched);
        true
    }

    /// Removes every peer for which `keep` is false: for the end of a full listing.
    pub fn retain_peers(&mut self, mut keep: impl FnMut(Peer) -> bool) {
        let gone = |(subnet, slot): (&IpNet, &Slot)| {
            let peer = Peer { subnet: *subnet, via: slot.via };
            (!keep(peer)).then_some(*subnet)
        };
        let gone: Vec<IpNet> = self.peers.iter().filter_map(gone).collect();
        for subnet in gone {
            self.remove_peer(subnet);
        }
    }

    /// The peer with this subnet.
    #[must_use]
    pub fn peer(&self, subnet: IpNet) -> Option<Peer> {
        let subnet = subnet.trunc();
        self.peers.get(&subnet).map(|slot| Peer { subnet, via: slot.via })
    }

    /// All peers by subnet.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = Peer> {
        self.peers.iter().map(|(subnet, slot)| Peer { subnet: *subnet, via: slot.via })
    }

    /// Peers that are not programmed, and why. Looks at every peer.
    pub fn conflicts(&self) -> impl Iterator<Item = (IpNet, PeerConflict)> {
        self.peers.iter().filter_map(|(subnet, slot)| Some((*subnet, self.conflict(*subnet, slot.via)?)))
    }

    /// Why this peer is not programmed; `None` if it is, or is not known.
    #[must_use]
    pub fn conflict_of(&self, subnet: IpNet) -> Option<PeerConflict> {
        let subnet = subnet.trunc();
        match self.observed {
            true => self.remarks.conflict(subnet),
            false => self.conflict(subnet, self.peers.get(&subnet)?.via),
        }
    }

    /// Peers that are not written: new ones, changed ones, and those that were refused.
    pub fn waiting(&self) -> impl Iterator<Item = IpNet> {
        let waiting = self.dirty.keys().chain(self.refused.keys()).chain(&self.withheld);
        waiting.filter(|subnet| self.peers.contains_key(*subnet)).copied()
    }

    /// Number of peers that the kernel refused. [`Overlay::flush`] leaves them alone until [`Overlay::retry`], so that
    /// they cost nothing when others change; [`Overlay::converge`] tries them.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Number of peers that the kernel has, right after a flush.
    #[must_use]
    pub fn programmed(&self) -> usize {
        self.peers.len().saturating_sub(self.refused.len() + self.withheld.len() + self.remarks.kept_out())
    }

    /// Whether the kernel refused this peer when it was last tried.
    #[must_use]
    pub fn is_refused(&self, subnet: IpNet) -> bool {
        self.refused.contains_key(&subnet.trunc())
    }

    /// Notes the peers that the kernel refused, to be written by the next [`Overlay::flush`].
    pub fn retry(&mut self) {
        self.dirty.append(&mut self.refused);
    }

    /// Whether something is noted that the kernel does not have.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.observed || !self.dirty.is_empty() || !self.refused.is_empty()
    }

    /// Whether [`Overlay::flush`] will read the kernel first: at the start, after [`Overlay::set_family`], and after
    /// a plan that was cut short.
    #[must_use]
    pub fn needs_observe(&self) -> bool {
        !self.observed
    }

    /// Notes that the kernel may no longer hold what was written to it.
    pub fn invalidate(&mut self) {
        self.observed = false;
    }

    /// Whether to leave alone what seems stale, because not all peers are named yet: known peers are written and
    /// repaired, and one that is removed by [`Overlay::remove_peer`] goes. Default: no. Turning it off makes the next
    /// flush a [`Overlay::converge`], which sweeps.
    pub fn keep_unknown(&mut self, spare: bool) {
        self.observed &= spare || !self.keeps_unknown;
        self.keeps_unknown = spare;
    }

    /// The interfaces to be observed.
    #[must_use]
    pub fn links(&self) -> Vec<Links> {
        self.families.iter().flatten().map(FamilySpec::links).collect()
    }

    /// Writes the changes noted since the last time: work for those peers only.
    ///
    /// # Errors
    /// As [`Overlay::converge`].
    pub fn flush(&mut self, kernel: &mut impl Kernel) -> Result<Report, ConvergeError> {
        if !self.observed {
            return self.converge(kernel);
        }
        let plan = self.pending();
        let report = self.carry_out(plan, kernel)?;
        // Others have replaced the device or made a route of their own, and whoever watches will hear of it later.
        if self.observed { Ok(report) } else { self.converge(kernel) }
    }

    /// Reads everything, and writes what is missing or wrong. Writes nothing if nothing is.
    ///
    /// # Errors
    /// [`ConvergeError`]: the kernel could not be read, or it is unknown what it took. What single peers were refused
    /// is in the [`Report`]. Either way what is left to do stays noted.
    pub fn converge(&mut self, kernel: &mut impl Kernel) -> Result<Report, ConvergeError> {
        let report = self.converge_in_place(kernel)?;
        if self.recreate.contains(&Recreate::Due) { self.converge_in_place(kernel) } else { Ok(report) }
    }

    fn converge_in_place(&mut self, kernel: &mut impl Kernel) -> Result<Report, ConvergeError> {
        let observed = kernel.observe(&self.links()).map_err(ConvergeError::Observe)?;
        let plan = self.diff(&observed);
        drop(observed);
        self.carry_out(plan, kernel)
    }

    fn carry_out(&mut self, plan: Plan, kernel: &mut impl Kernel) -> Result<Report, ConvergeError> {
        if plan.is_empty() {
            return Ok(self.settle(&plan, Applied::default()));
        }
        let applied = kernel.apply(&plan).map_err(|source: ApplyError| {
            self.observed = false;
            ConvergeError::Apply(source)
        })?;
        Ok(self.settle(&plan, applied))
    }

    pub(crate) fn recreate_of(&mut self, family: Family) -> &mut Recreate {
        match family {
            Family::V4 => &mut self.recreate[0],
            Family::V6 => &mut self.recreate[1],
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        for (links, family) in plan.links.iter_mut().zip(&self.families) {
            *links = family.as_ref().map(FamilySpec::links);
        }
        plan
    }

    /// The underlay address that frames to this MAC address go to: that of the first peer which claims it.
    pub(crate) fn fdb_entry(&self, family: Family, mac: MacAddr) -> Option<IpAddr> {
        self.claimants(family, mac).find_map(|subnet| {
            let via = self.peers.get(&subnet)?.via;
            self.conflict_of(subnet).is_none().then(|| via.underlay())
        })
    }

    /// The programmed tunnel peer whose subnet begins with this address.
    pub(crate) fn tunnel_at(&self, address: IpAddr) -> Option<(IpNet, MacAddr)> {
        self.starting_at(address).find_map(|(subnet, slot)| match slot.via {
            Via::Tunnel { mac, .. } => self.conflict_of(subnet).is_none().then_some((subnet, mac)),
            Via::Direct { .. } => None,
        })
    }

    fn list(&mut self, subnet: IpNet, slot: Slot) {
        let family = Family::of_net(subnet);
        if let Via::Tunnel { mac, .. } = slot.via {
            self.macs.insert((family, mac, subnet));
        }
        self.underlays.insert((slot.via.underlay(), subnet));
        *self.lengths.entry((family, subnet.prefix_len())).or_default() += 1;
        self.peers.insert(subnet, slot);
    }

    fn unlist(&mut self, subnet: IpNet, old: Option<Slot>) {
        let Some(Slot { via, .. }) = old else { return };
        let family = Family::of_net(subnet);
        if let Via::Tunnel { mac, .. } = via {
            self.macs.remove(&(family, mac, subnet));
        }
        self.underlays.remove(&(via.underlay(), subnet));
        if let Entry::Occupied(mut count) = self.lengths.entry((family, subnet.prefix_len())) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
