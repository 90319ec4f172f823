//! Changes that are noted and not yet written: the plan for them, and what came of it.

use flannel_netlink::Errno;
use ipnet::IpNet;

use crate::model::objects::Entries;
use crate::overlay::{Recreate, Slot};
use crate::plan::PeerSteps;
use crate::{Applied, DeviceStep, Family, FdbEntry, Overlay, Peer, Plan, Report, Step, Via};

/// What the kernel has of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    via: Via,
    pub(crate) nexthop: u32,
    /// Whether it is certain that the route is ours, so that it may be replaced without a look.
    certain: bool,
}

impl Overlay {
    /// Takes the noted changes as a plan, which is to be applied and then given to [`Overlay::settle`].
    ///
    /// Empty while [`Overlay::needs_observe`].
    pub fn pending(&mut self) -> Plan {
        let mut plan = self.plan();
        if !self.observed {
            return plan;
        }
        plan.devices = self.device_index;
        let mut released = Vec::new();
        for (subnet, held) in std::mem::take(&mut self.dirty) {
            let first = plan.steps.len();
            let wanted = self.assign(subnet);
            let old = held.map(|held| Entries::of(Peer { subnet, via: held.via }, held.nexthop));
            if let Some(wanted) = wanted {
                let certain = held.filter(|held| held.certain);
                let direct = held.is_some_and(|held| matches!(held.via, Via::Direct { .. }));
                plan.steps.extend(wanted.fdb_entry.map(Step::PutFdbEntry));
                plan.steps.extend(wanted.neighbor.map(Step::PutNeighbor));
                plan.steps.extend(wanted.nexthop.map(|nexthop| Step::PutNexthop {
                    nexthop,
                    replace: certain.is_some_and(|held| held.nexthop == nexthop.id),
                }));
                plan.put_route(wanted.route, certain.is_some(), direct);
            }
            if let Some(old) = old {
                self.remains(&old, wanted.as_ref(), &mut plan.steps, &mut released);
            }
            if wanted.is_none() {
                // A peer that is kept out gives its number back.
                self.peers.entry(subnet).and_modify(|slot| slot.nexthop = 0);
            }
            plan.peers.push(PeerSteps { subnet, first, end: plan.steps.len() });
        }
        // Only now: a number must not be used again before the step that frees it.
        released.into_iter().for_each(|id| self.nexthops.release(id));
        plan
    }

    /// Notes what came of a plan. Peers with a refused step stay in mind, to be tried again: see [`Overlay::retry`].
    pub fn settle(&mut self, plan: &Plan, applied: Applied) -> Report {
        for refusal in &applied.refused {
            // The device is another one by now, and with it everything else.
            self.observed &= refusal.errno != Errno::ENODEV;
            match (plan.peer_of(refusal.step), plan.steps.get(refusal.step)) {
                // Somebody has made such a route or nexthop: a full reading will tell whose it is.
                (Some(subnet), Some(step @ (Step::PutRoute { .. } | Step::PutNexthop { .. })))
                    if refusal.errno == Errno::EEXIST =>
                {
                    self.settle_refused(subnet, step, refusal.errno);
                    self.observed &= plan.is_whole;
                }
                (Some(subnet), Some(step)) => self.settle_refused(subnet, step, refusal.errno),
                (None, Some(Step::Device(family, step))) if needs_another_round(step, refusal.errno) => {
                    self.observed = false;
                    let recreate = self.recreate_of(*family);
                    *recreate = if *recreate == Recreate::No { Recreate::Due } else { Recreate::Tried };
                }
                _ => self.observed = false,
            }
        }
        for (known, index) in
            self.device_index.iter_mut().zip(applied.devices).filter(|(_, index)| *index != 0)
        {
            *known = index;
        }
        if !applied.without_device.is_empty() || !plan.taken.is_empty() {
            self.observed = false;
        }
        Report::new(plan, applied)
    }

    fn settle_refused(&mut self, subnet: IpNet, step: &Step, errno: Errno) {
        let Some(slot) = self.peers.get_mut(&subnet) else {
            self.observed = false; // it could not be deleted
            return;
        };
        let held = Held { via: slot.via, nexthop: slot.nexthop, certain: false };
        self.refused.entry(subnet).or_insert(Some(held));
        match step {
            Step::PutNexthop { nexthop, .. } if errno == Errno::EEXIST => {
                self.nexthops.foreign(nexthop.id);
                slot.nexthop = 0;
                self.refused.insert(subnet, Some(Held { nexthop: 0, ..held }));
            }
            Step::PutFdbEntry(_) | Step::PutNeighbor(_) | Step::PutNexthop { .. } | Step::PutRoute { .. } => {
            }
            _ => self.observed = false,
        }
    }

    /// Notes this peer, and those whose standing its change may alter, with what the kernel has of them. Returns them,
    /// and those of which there may be something else to say; they are to be looked at again after the change.
    pub(crate) fn mark(&mut self, subnet: IpNet, next: Option<Via>) -> Vec<IpNet> {
        if !self.observed {
            return Vec::new(); // everything will be compared anyway
        }
        let old = self.peers.get(&subnet).map(|slot| slot.via);
        let mut touched: Vec<IpNet> = vec![subnet];
        touched.extend(self.starting_at(subnet.addr()).map(|(other, _)| other));
        touched.extend(self.peers_within(subnet));
        let mut neighbors: Vec<IpNet> = self.holding(subnet.addr(), subnet.prefix_len()).collect();
        for via in [old, next].into_iter().flatten() {
            if self.is_inside_networks(via.underlay()) {
                touched.extend(self.holding(via.underlay(), u8::MAX));
            }
            neighbors.extend(self.peers_at(via.underlay()).take(2));
            if let Via::Tunnel { mac, .. } = via {
                let family = Family::of_net(subnet);
                // The others follow the first harmless claimant, so only a change of that one concerns them.
                let mut claimants = self.claimants(family, mac);
                if claimants.find(|other| self.is_harmless(*other)).is_none_or(|first| subnet <= first) {
                    touched.extend(self.claimants(family, mac));
                }
            }
        }
        for subnet in &touched {
            self.note(*subnet);
        }
        touched.append(&mut neighbors);
        touched
    }

    /// As [`Overlay::mark`], for a peer that stays as it is while something about the host changes.
    pub(crate) fn touch(&mut self, subnet: IpNet) -> Vec<IpNet> {
        match self.peers.get(&subnet).map(|slot| slot.via) {
            Some(via) => self.mark(subnet, Some(via)),
            None => Vec::new(),
        }
    }

    fn note(&mut self, subnet: IpNet) {
        let here = |_: &&Slot| self.conflict_of(subnet).is_none();
        let here = self.peers.get(&subnet).filter(here);
        let here = here.map(|slot| Held { via: slot.via, nexthop: slot.nexthop, certain: true });
        let held = self.refused.remove(&subnet).unwrap_or(here);
        self.dirty.entry(subnet).or_insert(held);
    }

    /// Steps that delete what `old` has and `wanted` has not, unless another peer needs it.
    fn remains(
        &self,
        old: &Entries,
        wanted: Option<&Entries>,
        steps: &mut Vec<Step>,
        released: &mut Vec<u32>,
    ) {
        if wanted.is_none() {
            let (subnet, metric) = (old.route.subnet, old.route.metric());
            steps.push(Step::DeleteRoute { subnet, metric, protocol: crate::ROUTE_PROTOCOL });
        }
        let kept = wanted.and_then(|wanted| wanted.nexthop);
        if let Some(nexthop) = old.nexthop.filter(|nexthop| kept != Some(*nexthop)) {
            steps.push(Step::DeleteNexthop { id: nexthop.id });
            released.push(nexthop.id);
        }
        if let Some(neighbor) = old.neighbor {
            let kept = wanted.is_some_and(|wanted| wanted.neighbor.is_some());
            if !kept && self.tunnel_at(neighbor.address).is_none() {
                steps.push(Step::DeleteNeighbor { address: neighbor.address });
            }
        }
        let unused = |entry: &FdbEntry| self.fdb_entry(entry.family, entry.mac).is_none();
        steps.extend(old.fdb_entry.filter(unused).map(Step::DeleteFdbEntry));
    }

    /// What the kernel should have of this peer; its nexthop gets a number if it needs one and has none.
    pub(crate) fn assign(&mut self, subnet: IpNet) -> Option<Entries> {
        let slot = *self.peers.get(&subnet)?;
        if self.conflict_of(subnet).is_some() {
            return None;
        }
        let peer = Peer { subnet, via: slot.via };
        let nexthop = match slot.nexthop {
            0 if peer.takes_nexthop() => self.nexthops.take(),
            id => id,
        };
        if let Some(slot) = self.peers.get_mut(&subnet).filter(|slot| slot.nexthop != nexthop) {
            slot.nexthop = nexthop;
        }
        Some(Entries::of(peer, nexthop))
    }
}

/// Whether the kernel would not change the device as it stands: made anew, or set down for its name, it will.
fn needs_another_round(step: &DeviceStep, errno: Errno) -> bool {
    match step {
        DeviceStep::Change(_) | DeviceStep::ResetOptions(_) => errno == Errno::EOPNOTSUPP,
        DeviceStep::Rename(_) => errno == Errno::EBUSY,
        _ => false,
    }
}
