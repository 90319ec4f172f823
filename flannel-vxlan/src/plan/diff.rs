//! What the kernel has against what it should have: ordered steps, no I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::device;
use crate::model::objects::{
    Entries, ObservedFdbEntry, ObservedNeighbor, ObservedNexthop, ObservedRoute, ObservedRouteTo,
};
use crate::overlay::{Part, Recreate};
use crate::plan::PeerSteps;
use crate::plan::claim_index::Index;
use crate::{
    Family, FamilySpec, FdbEntry, MacAddr, Neighbor, Observed, Overlay, Peer, Plan, ROUTE_PROTOCOL, Route,
    RouteTo, Step, Via,
};

/// `RTPROT_BOOT`: what `ip route add` and upstream flannel give.
pub(crate) const BOOT: u8 = 3;

impl Overlay {
    /// Lists the steps that turn what was observed into what there should be, and forgets the noted changes, as the
    /// steps contain them. Equal input gives an equal plan; an overlay that is as it should be gives an empty one.
    ///
    /// Per peer: FDB entry, neighbor, nexthop, route, so that nothing leads to something that is not there.
    /// Then what is stale, in the opposite order. Stale is what this crate or upstream made and no peer needs:
    ///
    /// | object | is this crate's | is upstream's |
    /// |---|---|---|
    /// | route | protocol 70, on our device, to our nexthops or inside the cluster's networks | protocol `boot`, on our device, on-link via its own first address; for a peer's subnet any of protocol `boot` |
    /// | nexthop | protocol 70 and on our device | |
    /// | neighbor on our device | protocol 70 | no protocol, permanent, inside the cluster's networks |
    /// | FDB entry of our device | permanent and `extern_learn` | state `NUD_PERMANENT` and flags `NTF_SELF`, nothing else; or permanent with the MAC address of such a neighbor |
    /// | blackhole route | protocol 70 | protocol `boot` and exactly our subnet |
    ///
    /// Everything else is left alone; with [`Overlay::keep_unknown`] all of this is too.
    pub fn diff(&mut self, observed: &Observed) -> Plan {
        self.dirty.clear();
        self.refused.clear();
        self.observed = true;
        let mut plan = self.plan();
        plan.is_whole = true;
        let mut device_steps = Vec::new();
        let found = Family::ALL.map(|family| self.devices(family, observed, &mut plan, &mut device_steps));
        self.device_index = found.map(|found| found.index().unwrap_or(0));
        plan.devices = self.device_index;
        self.note_host(observed, &plan);
        let standing = self.standing();

        plan.steps.extend(self.routes_before_their_device(observed, &found));
        plan.steps.append(&mut device_steps);
        let stale_nexthops = self.match_nexthops(observed, &found, &standing);
        let mut entries = EntryIndex::new(observed, &found);
        self.put_missing(&found, &standing, &mut entries, &mut plan);
        self.put_blackholes(observed, &found, &mut plan);
        if !self.keeps_unknown && !self.hold.contains(&Part::Rest) {
            self.delete_stale(&found, &entries, stale_nexthops, &mut plan);
        }
        plan
    }

    fn devices(
        &mut self,
        family: Family,
        observed: &Observed,
        plan: &mut Plan,
        steps: &mut Vec<Step>,
    ) -> Found {
        let recreate = *self.recreate_of(family);
        let Some(spec) = self.family(family) else { return Found::Off };
        let Some(wanted) = &spec.device else { return Found::Kept(0) };
        let (mut devices, links) = (observed.devices.iter(), spec.links());
        let named = devices.clone().find(|device| device.name == wanted.name);
        let device = named.or_else(|| devices.find(|device| links.is_renamed(device)));
        match device::diff(wanted, &spec.networks, device, recreate == Recreate::Due) {
            Ok(diff) if self.hold.contains(&Part::Device(family)) && !diff.steps.is_empty() => {
                if diff.emptied { Found::Off } else { Found::Kept(device.map_or(0, |device| device.index)) }
            }
            Ok(diff) => {
                let right = diff.steps.is_empty();
                steps.extend(diff.steps.into_iter().map(|step| Step::Device(family, step)));
                let index = device.map_or(0, |device| device.index);
                let found = match (diff.emptied, diff.flushed) {
                    (true, _) => Found::Emptied(index),
                    (false, true) => Found::Flushed(index),
                    (false, false) => Found::Kept(index),
                };
                *self.recreate_of(family) = match recreate {
                    Recreate::No => Recreate::No,
                    Recreate::Tried if right => Recreate::No,
                    Recreate::Due | Recreate::Tried => Recreate::Tried,
                };
                found
            }
            Err(taken) => {
                plan.taken.push(taken);
                Found::Off
            }
        }
    }

    /// Deletes the routes of a device that is made anew. They would go with it, but the kernel then searches its whole
    /// table for each nexthop object that a route leads to (`__remove_nexthop_fib`, net/ipv4/nexthop.c).
    fn routes_before_their_device(&self, observed: &Observed, found: &[Found; 2]) -> Vec<Step> {
        let goes = |route: &&ObservedRoute| match pick(found, Family::of_net(route.subnet)) {
            Found::Emptied(index) => {
                index != 0
                    && index == route.interface
                    && (route.protocol == ROUTE_PROTOCOL || is_upstreams(route))
            }
            _ => false,
        };
        observed.routes.iter().filter(goes).map(delete_route).collect()
    }

    /// Tells each peer which of the nexthop objects is its own; returns the stale ones.
    fn match_nexthops(
        &mut self,
        observed: &Observed,
        found: &[Found; 2],
        standing: &[bool],
    ) -> BTreeSet<u32> {
        self.nexthops.observe(observed.has_nexthops);
        let device = found[0].index().filter(|index| *index != 0);
        let ours =
            |found: &&ObservedNexthop| found.protocol == ROUTE_PROTOCOL && Some(found.interface) == device;
        for nexthop in &observed.nexthops {
            if ours(&nexthop) { self.nexthops.own(nexthop.id) } else { self.nexthops.foreign(nexthop.id) }
        }
        self.nexthops.observed();

        let of_gateway = observed.nexthops.iter().filter(ours).map(|found| (found.gateway, found));
        let mut index = Index::new(of_gateway);
        for ((subnet, slot), stands) in self.peers.iter_mut().zip(standing) {
            // A number that is not there any more may since have been taken by others.
            let known = std::mem::take(&mut slot.nexthop);
            if let (IpNet::V4(subnet), Via::Tunnel { .. }, true) = (subnet, slot.via, *stands) {
                index.claim(Some(subnet.addr()), |found| {
                    let chosen = slot.nexthop == 0 && (known == 0 || known == found.id);
                    slot.nexthop = if chosen { found.id } else { slot.nexthop };
                    chosen
                });
            }
        }
        index.unclaimed().map(|found| found.id).collect()
    }

    /// Puts what peers lack, and claims what they have.
    fn put_missing(
        &mut self,
        found: &[Found; 2],
        standing: &[bool],
        entries: &mut EntryIndex<'_>,
        plan: &mut Plan,
    ) {
        let direct = self.families.each_ref().map(|spec| spec.as_ref().map(|spec| spec.underlay.index));
        self.withheld.clear();
        let here = self.peers.iter_mut().zip(standing).filter(|(_, stands)| **stands);
        for ((subnet, slot), _) in here {
            let subnet = *subnet;
            let family = Family::of_net(subnet);
            let found = pick(found, family);
            if matches!(found, Found::Off) {
                continue;
            }
            let link = match slot.via {
                Via::Direct { .. } => pick(&direct, family),
                Via::Tunnel { .. } => found.index(),
            };
            let peer = Peer { subnet, via: slot.via };
            let mut wanted = Entries::of(peer, slot.nexthop);
            let route = entries.route(&wanted.route, link);
            let held = self.hold.contains(&Part::Peer(subnet));
            let new_nexthop = route != There::Right && slot.nexthop == 0 && peer.takes_nexthop() && !held;
            if new_nexthop {
                slot.nexthop = self.nexthops.take();
                wanted = Entries::of(peer, slot.nexthop);
            }
            let first = plan.steps.len();
            if let Some(fdb_entry) = wanted.fdb_entry {
                let there = entries.fdb_entry(&fdb_entry);
                plan.steps.extend(there.err().map(Step::DeleteFdbEntry));
                plan.steps.extend((there != Ok(true)).then_some(Step::PutFdbEntry(fdb_entry)));
            }
            let neighbor = wanted.neighbor.filter(|wanted| !entries.has_neighbor(wanted));
            plan.steps.extend(neighbor.map(Step::PutNeighbor));
            let nexthop = wanted.nexthop.filter(|_| new_nexthop);
            plan.steps.extend(nexthop.map(|nexthop| Step::PutNexthop { nexthop, replace: false }));
            if route == There::Adorned {
                let (metric, protocol) = (wanted.route.metric(), ROUTE_PROTOCOL);
                plan.steps.push(Step::DeleteRoute { subnet, metric, protocol });
            }
            if route != There::Right {
                plan.put_route(wanted.route, route != There::Nothing, route == There::Elsewhere);
            }
            if plan.steps.len() > first && held {
                plan.steps.truncate(first);
                self.withheld.insert(subnet);
            } else if plan.steps.len() > first {
                plan.peers.push(PeerSteps { subnet, first, end: plan.steps.len() });
            }
        }
    }

    fn put_blackholes(&self, observed: &Observed, found: &[Found; 2], plan: &mut Plan) {
        if self.hold.contains(&Part::Rest) {
            return;
        }
        let wanted = |spec: &&FamilySpec| spec.blackhole && !matches!(pick(found, spec.family()), Found::Off);
        for spec in self.families.iter().flatten().filter(wanted) {
            let route = Route { subnet: spec.subnet, to: RouteTo::Blackhole };
            let there = |observed: &ObservedRoute| {
                observed.subnet == route.subnet
                    && observed.metric == route.metric()
                    && observed.protocol == ROUTE_PROTOCOL
                    && observed.to == ObservedRouteTo::Blackhole
            };
            if !observed.routes.iter().any(there) {
                plan.steps.push(Step::PutRoute { route, replace: false });
            }
        }
    }

    pub(crate) fn wanted(&self, subnet: IpNet) -> Option<Entries> {
        let slot = self.peers.get(&subnet)?;
        let programmed = self.conflict_of(subnet).is_none();
        programmed.then(|| Entries::of(Peer { subnet, via: slot.via }, slot.nexthop))
    }

    /// Routes leave first, then what they led to.
    fn delete_stale(
        &self,
        found: &[Found; 2],
        entries: &EntryIndex<'_>,
        nexthops: BTreeSet<u32>,
        plan: &mut Plan,
    ) {
        let stale = |route: &&ObservedRoute| self.is_stale(route, found, &nexthops);
        plan.steps.extend(entries.routes.unclaimed().filter(stale).map(delete_route));
        plan.steps.extend(nexthops.iter().map(|id| Step::DeleteNexthop { id: *id }));

        // Upstream's FDB entries lack our mark. They have a form of their own, and may outlive their neighbor entries.
        let mut lost = BTreeSet::new();
        for ObservedNeighbor { neighbor, protocol } in entries.neighbors.unclaimed() {
            let family = Family::of(neighbor.address);
            let inside = || {
                let networks = self.family(family).map(|spec| &spec.networks);
                networks.into_iter().flatten().any(|network| network.contains(&neighbor.address))
            };
            if *protocol == ROUTE_PROTOCOL || (*protocol == 0 && inside()) {
                lost.insert((family, neighbor.mac));
                plan.steps.push(Step::DeleteNeighbor { address: neighbor.address });
            }
        }
        let stale = |found: &&ObservedFdbEntry| {
            let lost = || lost.contains(&(found.entry.family, found.entry.mac));
            found.permanent && (found.ext_learned || found.upstream_form || lost())
        };
        let stale = entries.fdb_entry.unclaimed().filter(stale);
        plan.steps.extend(stale.map(|found| Step::DeleteFdbEntry(found.entry)));
    }

    /// Whether a route that no peer claims is ours or upstream's.
    fn is_stale(&self, route: &ObservedRoute, found: &[Found; 2], stale_nexthops: &BTreeSet<u32>) -> bool {
        let ObservedRoute { subnet, protocol, metric, interface, to, .. } = *route;
        let family = Family::of_net(subnet);
        let Some(spec) = self.family(family) else { return false };
        if to == ObservedRouteTo::Blackhole && subnet == spec.subnet {
            return !(spec.blackhole && protocol == ROUTE_PROTOCOL && metric == crate::BLACKHOLE_METRIC);
        }
        let on_device = interface != 0 && pick(found, family).index() == Some(interface);
        let inside = || spec.networks.iter().any(|network| network.contains(&subnet));
        let stray = || matches!(to, ObservedRouteTo::Nexthop { id } if stale_nexthops.contains(&id));
        (on_device && is_upstreams(route))
            || (protocol == ROUTE_PROTOCOL && (on_device || stray() || inside()))
    }
}

/// What peers can claim of what was found.
struct EntryIndex<'a> {
    routes: Index<'a, (IpNet, u32), ObservedRoute>,
    neighbors: Index<'a, IpAddr, ObservedNeighbor>,
    fdb_entry: Index<'a, (Family, MacAddr), ObservedFdbEntry>,
}

/// What is in the place of a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum There {
    Nothing,
    /// The route as it should be.
    Right,
    /// Another one of ours or of upstream's.
    Other,
    /// One with metrics, say. A route to a nexthop object that takes its place would have them too, as the kernel looks
    /// for equal route information without comparing metrics (`fib_find_info_nh`, net/ipv4/fib_semantics.c).
    Adorned,
    /// Another one, and it leaves through another link.
    Elsewhere,
}

impl<'a> EntryIndex<'a> {
    fn new(observed: &'a Observed, found: &[Found; 2]) -> Self {
        // Routes and neighbors that go with a device, or by its new MAC address, are as good as gone.
        let stays = |route: &&ObservedRoute| match pick(found, Family::of_net(route.subnet)) {
            Found::Off => false,
            Found::Emptied(index) => index == 0 || index != route.interface,
            Found::Flushed(_) | Found::Kept(_) => true,
        };
        let routes = observed.routes.iter().filter(stays).map(|route| ((route.subnet, route.metric), route));
        let stays = |neighbor: &&ObservedNeighbor| {
            matches!(pick(found, Family::of(neighbor.neighbor.address)), Found::Kept(_))
        };
        let neighbors = observed.neighbors.iter().filter(stays);
        let stays = |found_: &&ObservedFdbEntry| pick(found, found_.entry.family).index().is_some();
        let fdb_entry = observed.fdb.iter().filter(stays);
        Self {
            routes: Index::new(routes),
            neighbors: Index::new(neighbors.map(|found| (found.neighbor.address, found))),
            fdb_entry: Index::new(fdb_entry.map(|found| ((found.entry.family, found.entry.mac), found))),
        }
    }

    /// Claims what is in the place of this route, which is to leave through `link`.
    fn route(&mut self, wanted: &Route, link: Option<u32>) -> There {
        let mut there = There::Nothing;
        self.routes.claim((wanted.subnet, wanted.metric()), |found| {
            let here = link.is_some_and(|link| found.leaves_by(link));
            let right = here && found.protocol == ROUTE_PROTOCOL && found.leads_to(wanted.to);
            let adorned = here && !found.no_extra_attrs && matches!(wanted.to, RouteTo::Nexthop { .. });
            there = match there {
                There::Right => There::Right,
                _ if right => There::Right,
                There::Nothing | There::Other if adorned => There::Adorned,
                There::Nothing | There::Other if here => There::Other,
                _ => There::Elsewhere,
            };
            true
        });
        there
    }

    fn has_neighbor(&mut self, wanted: &Neighbor) -> bool {
        let mut has = false;
        self.neighbors.claim(wanted.address, |found| {
            // Upstream's entry is made ours, so that it is known when its peer leaves.
            has |= found.neighbor == *wanted && found.protocol == ROUTE_PROTOCOL;
            true
        });
        has
    }

    /// Claims what is in the place of this entry. `Ok` is whether it is right; the error is one to be deleted first, as
    /// it expires and the kernel does not make it permanent by replacing it (`vxlan_fdb_update_existing`).
    fn fdb_entry(&mut self, wanted: &FdbEntry) -> Result<bool, FdbEntry> {
        let mut has = Ok(false);
        self.fdb_entry.claim((wanted.family, wanted.mac), |found| {
            // Upstream's entry lacks our mark, which the kernel does not add to an entry that is there.
            has = match found.permanent {
                true => Ok(found.entry.underlay == wanted.underlay && found.no_extra_attrs),
                false => Err(found.entry),
            };
            true
        });
        has
    }
}

/// What will be under the name of a family's device when the plan's first steps are taken.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// There is no such family, or its device is not ours: nothing of it is looked at.
    Off,
    /// The device is made, or made anew: it has nothing on it. The index of the one before, or 0.
    Emptied(u32),
    /// The device stays, but loses its neighbors; its index.
    Flushed(u32),
    /// The device stays; its index, or 0 if the family has none.
    Kept(u32),
}

impl Found {
    fn index(self) -> Option<u32> {
        match self {
            Self::Kept(index) | Self::Flushed(index) => Some(index),
            Self::Off | Self::Emptied(_) => None,
        }
    }
}

fn pick<T: Copy>(both: &[T; 2], family: Family) -> T {
    match family {
        Family::V4 => both[0],
        Family::V6 => both[1],
    }
}

fn is_upstreams(route: &ObservedRoute) -> bool {
    let leads = matches!(route.to, ObservedRouteTo::Gateway { gateway, onlink: true } if gateway == route.subnet.addr());
    leads && route.protocol == BOOT
}

fn delete_route(route: &ObservedRoute) -> Step {
    Step::DeleteRoute { subnet: route.subnet, metric: route.metric, protocol: route.protocol }
}
