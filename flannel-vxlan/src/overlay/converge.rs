//! Writing the overlay to the kernel: the plan for the noted changes, and the result of a plan.

use flannel_netlink::Errno;
use ipnet::IpNet;

use crate::error::ConvergeError;
use crate::kernel::{Applied, Kernel};
use crate::model::family::{Family, PerFamily};
use crate::model::objects::{Entries, FdbEntry, Observed, ROUTE_PROTOCOL};
use crate::model::peer::{Peer, Via};
use crate::overlay::Overlay;
use crate::overlay::host_view::HostView;
use crate::overlay::peer_status::all_statuses;
use crate::overlay::pending_peers::Programmed;
use crate::overlay::wireguard::ChangedKeys;
use crate::plan::Plan;
use crate::plan::device_diff::{DeviceFate, diff_devices};
use crate::plan::diff::Desired;
use crate::plan::part::Part;
use crate::plan::report::Report;
use crate::plan::step::{DeviceStep, Step};

impl Overlay {
    /// Writes the changes noted since the last flush. Costs only the changed peers.
    ///
    /// # Errors
    /// As [`Overlay::converge`].
    pub fn flush(&mut self, kernel: &mut impl Kernel) -> Result<Report, ConvergeError> {
        if !self.pending.is_in_sync() {
            return self.converge(kernel);
        }
        let plan = self.pending();
        let report = self.carry_out(&plan, kernel)?;
        // Another program has replaced the device or added a route. The monitor may report that only later.
        if self.pending.is_in_sync() { Ok(report) } else { self.converge(kernel) }
    }

    /// Observes the kernel and writes what is missing or wrong. Writes nothing if nothing is.
    ///
    /// # Errors
    /// [`ConvergeError`]: the kernel could not be read, or it is unknown which steps it took. Refused steps of single
    /// peers are in the [`Report`]. In both cases the remaining changes stay noted.
    pub fn converge(&mut self, kernel: &mut impl Kernel) -> Result<Report, ConvergeError> {
        let report = self.converge_once(kernel)?;
        if self.devices.must_recreate_any() { self.converge_once(kernel) } else { Ok(report) }
    }

    fn converge_once(&mut self, kernel: &mut impl Kernel) -> Result<Report, ConvergeError> {
        let observed = kernel.observe(&self.links()).map_err(ConvergeError::Observe)?;
        let plan = self.diff(&observed);
        drop(observed);
        self.carry_out(&plan, kernel)
    }

    fn carry_out(&mut self, plan: &Plan, kernel: &mut impl Kernel) -> Result<Report, ConvergeError> {
        if plan.is_empty() {
            return Ok(self.settle(plan, Applied::default()));
        }
        let applied = kernel.apply(plan).map_err(|source| {
            self.pending.invalidate();
            ConvergeError::Apply(source)
        })?;
        Ok(self.settle(plan, applied))
    }

    /// Lists the steps that turn the observed state into the desired state, and forgets the noted changes, which the
    /// steps contain. Equal input gives an equal plan. If nothing differs, the plan is empty.
    ///
    /// Order per peer: FDB entry, neighbor entry, nexthop object, route, so that no object refers to a missing one. Stale
    /// objects follow in the opposite order. An object is stale if no peer needs it and this crate or upstream flannel
    /// created it:
    ///
    /// | object | this crate's | upstream flannel's |
    /// |---|---|---|
    /// | route | protocol 70, and: on our device, or with a stale nexthop object, or inside the cluster's networks | protocol `boot`, on our device, on-link via its own first address; for a peer's subnet any route of protocol `boot` |
    /// | nexthop object | protocol 70, on our device | |
    /// | neighbor entry of our device | protocol 70 | no protocol, permanent, inside the cluster's networks |
    /// | peer of our WireGuard device | every peer | every peer |
    /// | FDB entry of our device | permanent and `extern_learn` | state `NUD_PERMANENT` and flags `NTF_SELF`, nothing else; or permanent with the MAC address of such a neighbor entry |
    /// | blackhole route | protocol 70 | protocol `boot`, and exactly our subnet |
    ///
    /// Everything else is kept. With [`Overlay::keep_unknown`] stale objects are kept, too; parts of [`Overlay::hold`] are
    /// left as they are.
    pub fn diff(&mut self, observed: &Observed) -> Plan {
        let hold = self.held();
        let held_devices = PerFamily::from_fn(|family| {
            let owner = self.families.device_owner(family);
            [family, owner].into_iter().any(|family| hold.contains(&Part::Device(family)))
        });
        let devices = diff_devices(&self.families, self.devices.must_recreate(), held_devices, observed);
        for (family, is_right) in devices.is_right.iter() {
            if let Some(is_right) = is_right {
                self.devices.compared(family, *is_right);
            }
        }
        let kept = |fate: DeviceFate| fate.index().unwrap_or(0);
        self.devices.set_indexes(PerFamily::from_fn(|family| kept(devices.fates[family])));
        self.host = HostView::new(observed, &self.families);
        let conflicts = self.rules().all_conflicts();
        self.statuses.replace(all_statuses(self.rules(), &conflicts));

        let mut plan = self.new_plan();
        plan.is_complete = true;
        let desired = Desired {
            families: &self.families,
            peers: &mut self.peers,
            nexthops: &mut self.nexthops,
            conflicts: &conflicts,
            keeps_unknown: self.keeps_unknown,
            hold: &hold,
            sent: &mut self.sent,
            host: &self.host,
        };
        let withheld = desired.diff(devices, observed, &mut plan);
        self.pending.start_over(withheld);
        plan
    }

    /// Takes the noted changes as a plan. Apply it, then call [`Overlay::settle`].
    ///
    /// The plan is empty while [`Overlay::needs_observe`].
    pub fn pending(&mut self) -> Plan {
        let mut plan = self.new_plan();
        if !self.pending.is_in_sync() {
            return plan;
        }
        let mut released = Vec::new();
        let dirty = self.pending.take_dirty();
        let mut keys = ChangedKeys::default();
        for (subnet, programmed) in &dirty {
            let (subnet, programmed) = (*subnet, *programmed);
            let first = plan.steps.len();
            let wanted = self.assign(subnet);
            let old = programmed.map(|programmed| programmed.entries(subnet));
            if let Some(wanted) = wanted {
                let certain = programmed.filter(|programmed| programmed.is_certain);
                let was_direct = programmed.is_some_and(|old| matches!(old.via, Via::Direct { .. }));
                plan.steps.extend(wanted.fdb_entry.map(Step::PutFdbEntry));
                plan.steps.extend(wanted.neighbor.map(Step::PutNeighbor));
                plan.steps.extend(wanted.nexthop.map(|nexthop| Step::PutNexthop {
                    nexthop,
                    replace: certain.is_some_and(|old| old.nexthop_id == nexthop.id),
                }));
                if let Some(route) = wanted.route {
                    plan.put_route(route, certain.is_some(), was_direct);
                }
            }
            let owner = self.families.device_owner(Family::of_net(subnet));
            keys.note(owner, old.as_ref(), wanted.as_ref());
            if let Some(old) = old {
                self.delete_unneeded(&old, wanted.as_ref(), &mut plan.steps, &mut released);
            }
            if wanted.is_none() {
                // A peer that is not programmed gives up its nexthop ID.
                self.peers.set_nexthop_id(subnet, 0);
            }
            plan.end_peer(subnet, first);
        }
        self.write_keys(keys, &dirty, &mut plan);
        // Only now: an ID must not be used again before the step that frees it.
        released.into_iter().for_each(|id| self.nexthops.release(id));
        plan
    }

    /// Records the result of a plan. Peers with a refused step stay pending until [`Overlay::retry`].
    pub fn settle(&mut self, plan: &Plan, applied: Applied) -> Report {
        for refusal in &applied.refused {
            if refusal.errno == Errno::ENODEV {
                // Another program has replaced the device, and everything on it is gone.
                self.pending.invalidate();
            }
            match (plan.peer_of(refusal.step), plan.steps.get(refusal.step)) {
                (Some(_), Some(step @ Step::PutWireguardPeer(_, peer))) => {
                    for subnet in &peer.subnets {
                        self.settle_refused(*subnet, step, refusal.errno);
                    }
                }
                (Some(subnet), Some(step)) => {
                    self.settle_refused(subnet, step, refusal.errno);
                    let exists = refusal.errno == Errno::EEXIST;
                    let is_shared = matches!(step, Step::PutRoute { .. } | Step::PutNexthop { .. });
                    if exists && is_shared && !plan.is_complete {
                        // Another program has added such a route or nexthop object. Observing tells whose it is.
                        self.pending.invalidate();
                    }
                }
                (None, Some(Step::Device(family, step))) if needs_recreate(step, refusal.errno) => {
                    self.pending.invalidate();
                    self.devices.refused_in_place(*family);
                }
                _ => self.pending.invalidate(),
            }
        }
        self.devices.learn_indexes(applied.devices);
        if !applied.without_device.is_empty() || !plan.taken.is_empty() {
            self.pending.invalidate();
        }
        self.pending.confirm();
        Report::new(plan, applied, |peer| Some(self.peers.get(peer)?.via.underlay()))
    }

    fn settle_refused(&mut self, subnet: IpNet, step: &Step, errno: Errno) {
        let Some(entry) = self.peers.get(subnet) else {
            self.pending.invalidate(); // a removed peer could not be deleted
            return;
        };
        let programmed = Programmed { via: entry.via, nexthop_id: entry.nexthop_id, is_certain: false };
        self.pending.refuse(subnet, programmed);
        match step {
            Step::PutNexthop { nexthop, .. } if errno == Errno::EEXIST => {
                self.nexthops.set_foreign(nexthop.id);
                self.peers.set_nexthop_id(subnet, 0);
                self.pending.forget_nexthop(subnet);
            }
            Step::PutFdbEntry(_)
            | Step::PutNeighbor(_)
            | Step::PutNexthop { .. }
            | Step::PutRoute { .. }
            | Step::PutWireguardPeer(..) => {}
            _ => self.pending.invalidate(),
        }
    }

    /// Appends the steps that delete the objects of `old` that neither `wanted` nor another peer needs.
    fn delete_unneeded(
        &self,
        old: &Entries,
        wanted: Option<&Entries>,
        steps: &mut Vec<Step>,
        released: &mut Vec<u32>,
    ) {
        let keeps_route = wanted.is_some_and(|wanted| wanted.route.is_some());
        if let Some(route) = old.route.filter(|_| !keeps_route) {
            let (subnet, metric) = (route.subnet, route.metric());
            steps.push(Step::DeleteRoute { subnet, metric, protocol: ROUTE_PROTOCOL });
        }
        let kept = wanted.and_then(|wanted| wanted.nexthop).map(|nexthop| nexthop.id);
        if let Some(nexthop) = old.nexthop.filter(|nexthop| kept != Some(nexthop.id)) {
            steps.push(Step::DeleteNexthop { id: nexthop.id });
            released.push(nexthop.id);
        }
        if let Some(neighbor) = old.neighbor {
            let is_kept = wanted.is_some_and(|wanted| wanted.neighbor.is_some());
            if !is_kept && self.tunnel_at(neighbor.address).is_none() {
                steps.push(Step::DeleteNeighbor { address: neighbor.address });
            }
        }
        let is_unneeded = |entry: &FdbEntry| self.fdb_target(entry.family, entry.mac).is_none();
        steps.extend(old.fdb_entry.filter(is_unneeded).map(Step::DeleteFdbEntry));
    }

    /// The desired kernel objects of this peer. Assigns a nexthop ID if the peer needs one and has none.
    fn assign(&mut self, subnet: IpNet) -> Option<Entries> {
        let entry = self.peers.get(subnet)?;
        if self.conflict_of(subnet).is_some() {
            return None;
        }
        let peer = Peer { subnet, via: entry.via };
        if entry.nexthop_id != 0 || peer.nexthop_gateway().is_none() {
            return Some(Entries::of(peer, entry.nexthop_id));
        }
        let id = self.nexthops.take();
        self.peers.set_nexthop_id(subnet, id);
        Some(Entries::of(peer, id))
    }

    fn new_plan(&self) -> Plan {
        Plan { devices: self.devices.indexes(), ..Plan::new(&self.families) }
    }
}

/// Whether the kernel refuses to change the device in place, so that it has to be recreated, or set down to be renamed.
fn needs_recreate(step: &DeviceStep, errno: Errno) -> bool {
    match step {
        DeviceStep::Change(_) | DeviceStep::ResetOptions(_) => errno == Errno::EOPNOTSUPP,
        DeviceStep::Rename(_) => errno == Errno::EBUSY,
        _ => false,
    }
}
