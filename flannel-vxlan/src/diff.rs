//! What the kernel has against what it should have: ordered steps, no I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::entry::{
    Entries, ObservedForwarding, ObservedNeighbour, ObservedNexthop, ObservedRoute, ObservedRouteTo,
};
use crate::overlay::{Remake, Slot};
use crate::plan::PeerSteps;
use crate::{
    Family, FamilySpec, MacAddr, Observed, Overlay, Peer, Plan, ROUTE_PROTOCOL, Route, RouteTo, Step, Via,
    device,
};

/// `RTPROT_BOOT`: what `ip route add` and upstream flannel give.
pub(crate) const BOOT: u8 = 3;

/// What was found of a peer; bits of `Slot::seen`.
const FORWARDING: u8 = 1;
const NEIGHBOUR: u8 = 2;
const NEXTHOP: u8 = 4;
const ROUTE: u8 = 8;
/// A route of ours or of upstream's is in its place, but not as it should be.
const OTHER_ROUTE: u8 = 16;
/// Something stands against programming it.
const KEPT_OUT: u8 = 32;
/// That other route leaves through another link.
const ELSEWHERE: u8 = 64;

impl Overlay {
    /// Lists the steps that turn what was observed into what there should be, and forgets the noted changes, as the
    /// steps contain them. Equal input gives an equal plan; an overlay that is as it should be gives an empty one.
    ///
    /// Per peer: forwarding entry, neighbour, nexthop, route, so that nothing leads to something that is not there.
    /// Then what is stale, in the opposite order. Stale is what this crate or upstream made and no peer needs:
    ///
    /// | object | is this crate's | is upstream's |
    /// |---|---|---|
    /// | route | protocol 70, on our device, to our nexthops or inside the cluster's networks | protocol `boot`, on our device, on-link via its own first address; for a peer's subnet any of protocol `boot` |
    /// | nexthop | protocol 70 and on our device | |
    /// | neighbour on our device | protocol 70 | no protocol, permanent, inside the cluster's networks |
    /// | forwarding entry of our device | `extern_learn`, or as upstream's | its MAC address is that of such a neighbour |
    /// | blackhole route | protocol 70 | protocol `boot` and exactly our subnet |
    ///
    /// Everything else is left alone; with [`Overlay::spare_unknown`] all of this is too.
    pub fn diff(&mut self, observed: &Observed) -> Plan {
        self.dirty.clear();
        self.observed = true;
        let mut plan = self.plan();
        let found =
            [self.devices(Family::V4, observed, &mut plan), self.devices(Family::V6, observed, &mut plan)];
        self.device_index = found.map(|found| found.index().unwrap_or(0));
        self.note_host(observed, &plan);
        self.note_standing();

        let mut stale = Vec::new();
        let own_nexthops = self.match_nexthops(observed, &found, &mut stale);
        self.match_routes(observed, &found, &own_nexthops, &mut stale);
        let lost = self.match_neighbours(observed, &found, &mut stale);
        self.match_forwarding(observed, &found, &lost, &mut stale);

        self.put_missing(&found, &mut plan);
        self.put_blackholes(observed, &found, &mut plan);
        if !self.spares_unknown {
            plan.steps.append(&mut order_stale(stale));
        }
        plan
    }

    fn devices(&mut self, family: Family, observed: &Observed, plan: &mut Plan) -> Found {
        let remake = *self.remake_of(family);
        let Some(spec) = self.family(family) else { return Found::Off };
        let Some(wanted) = &spec.device else { return Found::Kept(0) };
        let device = observed.devices.iter().find(|device| device.name == wanted.name);
        match device::diff(wanted, &spec.networks, device, remake == Remake::Due) {
            Ok(diff) => {
                let right = diff.steps.is_empty();
                plan.steps.extend(diff.steps.into_iter().map(|step| Step::Device(family, step)));
                let index = device.map_or(0, |device| device.index);
                let found = match (diff.emptied, diff.flushed) {
                    (true, _) => Found::Emptied,
                    (false, true) => Found::Flushed(index),
                    (false, false) => Found::Kept(index),
                };
                *self.remake_of(family) = match remake {
                    Remake::No => Remake::No,
                    Remake::Tried if right => Remake::No,
                    Remake::Due | Remake::Tried => Remake::Tried,
                };
                found
            }
            Err(taken) => {
                plan.taken.push(taken);
                Found::Off
            }
        }
    }

    /// Notes the addresses of this host that no peer may cover.
    fn note_host(&mut self, observed: &Observed, plan: &Plan) {
        let ours = |name: &str| {
            Family::ALL.iter().any(|family| {
                plan.links(*family)
                    .and_then(|links| links.device)
                    .is_some_and(|device| device.as_str() == name)
            })
        };
        let others = observed.interfaces.iter().filter(|interface| !ours(&interface.name));
        let addresses = others.flat_map(|interface| &interface.addresses);
        self.host = addresses.map(|address| (address.address, address.prefix_len)).collect();
        self.host.sort_unstable();
        for (up, spec) in self.underlay_up.iter_mut().zip(&self.families) {
            let index = spec.as_ref().map(|spec| spec.underlay.index);
            *up = observed.interfaces.iter().find(|found| Some(found.index) == index).map(|found| found.up);
        }
        self.host.dedup();
    }

    /// Decides once for every peer whether it is to be programmed, and forgets what was seen of it.
    fn note_standing(&mut self) {
        let standing = |(subnet, slot): (&IpNet, &Slot)| {
            if self.conflict(*subnet, slot.via).is_some() { KEPT_OUT } else { 0 }
        };
        let standings: Vec<u8> = self.peers.iter().map(standing).collect();
        self.peers.values_mut().zip(standings).for_each(|(slot, standing)| slot.seen = standing);
    }

    fn match_nexthops(
        &mut self,
        observed: &Observed,
        found: &[Found; 2],
        stale: &mut Vec<Step>,
    ) -> BTreeSet<u32> {
        self.nexthops.observe(observed.has_nexthops);
        let device = found[0].index();
        let mut strays = BTreeSet::new();
        for nexthop in &observed.nexthops {
            let ObservedNexthop { id, protocol, interface, gateway } = *nexthop;
            if protocol != ROUTE_PROTOCOL || interface == 0 || device != Some(interface) {
                self.nexthops.foreign(id);
                continue;
            }
            let peer = gateway
                .and_then(|gateway| self.tunnel_at_if(gateway.into(), stands))
                .map(|(subnet, _)| subnet);
            let slot = peer.and_then(|subnet| self.peers.get_mut(&subnet));
            match slot {
                Some(slot) if slot.nexthop == id || (slot.nexthop == 0 && slot.seen & NEXTHOP == 0) => {
                    slot.nexthop = id;
                    slot.seen |= NEXTHOP;
                    self.nexthops.own(id);
                }
                _ => {
                    stale.push(Step::DeleteNexthop { id });
                    strays.insert(id);
                    self.nexthops.own(id);
                }
            }
        }
        self.nexthops.observed();
        // A number that is not there any more may since have been taken by others.
        for slot in self.peers.values_mut() {
            if slot.seen & NEXTHOP == 0 {
                slot.nexthop = 0;
            }
        }
        strays
    }

    fn match_routes(
        &mut self,
        observed: &Observed,
        found: &[Found; 2],
        stray_nexthops: &BTreeSet<u32>,
        stale: &mut Vec<Step>,
    ) {
        for route in &observed.routes {
            let ObservedRoute { subnet, protocol, metric, interface, to } = *route;
            let family = Family::of_net(subnet);
            let (Some(spec), found) = (self.family(family), pick(found, family)) else { continue };
            if matches!(found, Found::Off) {
                continue;
            }
            let on_device = found.index().is_some_and(|index| index != 0 && index == interface);
            let upstreams = protocol == BOOT && on_device && is_upstreams(subnet, to);
            if to == ObservedRouteTo::Blackhole && subnet == spec.subnet {
                let kept = spec.blackhole && protocol == ROUTE_PROTOCOL && metric == crate::BLACKHOLE_METRIC;
                if !kept {
                    stale.push(Step::DeleteRoute { subnet, metric, protocol });
                }
                continue;
            }
            let slot = self.peers.get(&subnet).filter(|slot| stands(subnet, slot));
            let wanted = slot.map(|slot| Entries::of(Peer { subnet, via: slot.via }, slot.nexthop).route);
            if let Some(wanted) = wanted.filter(|wanted| wanted.metric() == metric) {
                let link = matches!(wanted.to, RouteTo::Direct { .. }).then_some(spec.underlay.index);
                let link = link.or_else(|| found.index());
                let right = protocol == ROUTE_PROTOCOL && link == Some(interface) && leads_to(to, wanted.to);
                if let Some(slot) = self.peers.get_mut(&subnet) {
                    slot.seen |= if right { ROUTE } else { OTHER_ROUTE };
                    slot.seen |= if link == Some(interface) { 0 } else { ELSEWHERE };
                }
                continue;
            }
            let inside = spec.networks.iter().any(|network| network.contains(&subnet));
            let stray = matches!(to, ObservedRouteTo::Nexthop { id } if stray_nexthops.contains(&id));
            if upstreams || (protocol == ROUTE_PROTOCOL && (on_device || stray || inside)) {
                stale.push(Step::DeleteRoute { subnet, metric, protocol });
            }
        }
    }

    /// Returns the MAC addresses of stale neighbours: their forwarding entries are stale with them.
    fn match_neighbours(
        &mut self,
        observed: &Observed,
        found: &[Found; 2],
        stale: &mut Vec<Step>,
    ) -> BTreeSet<(Family, MacAddr)> {
        let mut lost = BTreeSet::new();
        for ObservedNeighbour { neighbour, protocol } in &observed.neighbours {
            let family = Family::of(neighbour.address);
            if !matches!(pick(found, family), Found::Kept(_)) {
                continue;
            }
            let inside = self
                .family(family)
                .is_some_and(|spec| spec.networks.iter().any(|network| network.contains(&neighbour.address)));
            let ours = *protocol == ROUTE_PROTOCOL || (*protocol == 0 && inside);
            match self.tunnel_at_if(neighbour.address, stands) {
                // Upstream's entry is made ours, so that it is known when its peer leaves.
                Some((subnet, mac)) if mac == neighbour.mac && *protocol == ROUTE_PROTOCOL => {
                    self.saw(subnet, NEIGHBOUR);
                }
                Some(_) => {}
                None if ours => {
                    lost.insert((family, neighbour.mac));
                    stale.push(Step::DeleteNeighbour { address: neighbour.address });
                }
                None => {}
            }
        }
        lost
    }

    fn match_forwarding(
        &mut self,
        observed: &Observed,
        found: &[Found; 2],
        lost: &BTreeSet<(Family, MacAddr)>,
        stale: &mut Vec<Step>,
    ) {
        for ObservedForwarding { forwarding, marked } in &observed.forwarding {
            let (family, mac) = (forwarding.family, forwarding.mac);
            if pick(found, family).index().is_none() {
                continue;
            }
            match self.forwarding_if(family, mac, stands) {
                // Upstream's entry lacks our mark, which the kernel does not add to an entry that is there.
                Some(underlay) if underlay == forwarding.underlay => {
                    let first = self.claimants(family, mac).next();
                    let sharing: Vec<IpNet> = self.claimants(family, mac).skip(1).collect();
                    first.into_iter().chain(sharing).for_each(|subnet| self.saw(subnet, FORWARDING));
                }
                Some(_) => {}
                None if *marked || lost.contains(&(family, mac)) => {
                    stale.push(Step::DeleteForwarding(*forwarding));
                }
                None => {}
            }
        }
    }

    fn put_missing(&mut self, found: &[Found; 2], plan: &mut Plan) {
        let subnets: Vec<IpNet> = self
            .peers
            .iter()
            .filter(|(subnet, slot)| {
                slot.seen & KEPT_OUT == 0
                    && !matches!(pick(found, Family::of_net(**subnet)), Found::Off)
                    && !complete(**subnet, slot.via, slot.seen)
            })
            .map(|(subnet, _)| *subnet)
            .collect();
        for subnet in subnets {
            let seen = self.peers.get(&subnet).map_or(0, |slot| slot.seen);
            let Some(wanted) = self.assign(subnet) else { continue };
            let first = plan.steps.len();
            let missing = |bit: u8| seen & bit == 0;
            plan.steps.extend(wanted.forwarding.filter(|_| missing(FORWARDING)).map(Step::PutForwarding));
            plan.steps.extend(wanted.neighbour.filter(|_| missing(NEIGHBOUR)).map(Step::PutNeighbour));
            let nexthop = wanted.nexthop.filter(|_| missing(NEXTHOP));
            plan.steps.extend(nexthop.map(|nexthop| Step::PutNexthop { nexthop, replace: false }));
            if missing(ROUTE) {
                plan.put_route(wanted.route, seen & OTHER_ROUTE != 0, seen & ELSEWHERE != 0);
            }
            if plan.steps.len() > first {
                plan.peers.push(PeerSteps { subnet, first, end: plan.steps.len() });
            }
        }
    }

    fn put_blackholes(&self, observed: &Observed, found: &[Found; 2], plan: &mut Plan) {
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
        let programmed = self.conflict(subnet, slot.via).is_none();
        programmed.then(|| Entries::of(Peer { subnet, via: slot.via }, slot.nexthop))
    }

    fn saw(&mut self, subnet: IpNet, bit: u8) {
        if let Some(slot) = self.peers.get_mut(&subnet) {
            slot.seen |= bit;
        }
    }
}

/// What will be under the name of a family's device when the plan's first steps are taken.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// There is no such family, or its device is not ours: nothing of it is looked at.
    Off,
    /// The device was not there or is made anew: it has nothing on it.
    Emptied,
    /// The device stays, but loses its neighbours; its index.
    Flushed(u32),
    /// The device stays; its index, or 0 if the family has none.
    Kept(u32),
}

impl Found {
    fn index(self) -> Option<u32> {
        match self {
            Self::Kept(index) | Self::Flushed(index) => Some(index),
            Self::Off | Self::Emptied => None,
        }
    }
}

fn pick(found: &[Found; 2], family: Family) -> Found {
    match family {
        Family::V4 => found[0],
        Family::V6 => found[1],
    }
}

/// Whether a peer is to be programmed, once [`Overlay::note_standing`] has decided it.
fn stands(_subnet: IpNet, slot: &Slot) -> bool {
    slot.seen & KEPT_OUT == 0
}

/// Whether all entries of such a peer were found. A nexthop object is only asked for where routes lead to it.
fn complete(subnet: IpNet, via: Via, seen: u8) -> bool {
    let need = match (via, Family::of_net(subnet)) {
        (Via::Direct { .. }, _) => ROUTE,
        (Via::Tunnel { .. }, Family::V4 | Family::V6) => FORWARDING | NEIGHBOUR | ROUTE,
    };
    seen & need == need
}

fn is_upstreams(subnet: IpNet, to: ObservedRouteTo) -> bool {
    matches!(to, ObservedRouteTo::Gateway { gateway, onlink: true } if gateway == subnet.addr())
}

pub(crate) fn leads_to(observed: ObservedRouteTo, wanted: RouteTo) -> bool {
    let same = |want: IpAddr, want_onlink: bool| matches!(observed, ObservedRouteTo::Gateway { gateway, onlink } if gateway == want && onlink == want_onlink);
    match wanted {
        RouteTo::Nexthop { id } => observed == ObservedRouteTo::Nexthop { id },
        RouteTo::Onlink { gateway } => same(gateway, true),
        RouteTo::Direct { gateway } => same(gateway, false),
        RouteTo::Device => false,
        RouteTo::Blackhole => observed == ObservedRouteTo::Blackhole,
    }
}

/// Routes leave first, then what they led to.
fn order_stale(mut stale: Vec<Step>) -> Vec<Step> {
    stale.sort_by_key(|step| match step {
        Step::DeleteRoute { .. } => 0,
        Step::DeleteNexthop { .. } => 1,
        Step::DeleteNeighbour { .. } => 2,
        _ => 3,
    });
    stale
}
