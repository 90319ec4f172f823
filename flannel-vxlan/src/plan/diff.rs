//! Compares the observed state with the desired state of all peers. Pure: no I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::family::{Family, PerFamily};
use crate::model::family_spec::FamilySpec;
use crate::model::mac::MacAddr;
use crate::model::objects::{
    BLACKHOLE_METRIC, Entries, FdbEntry, Neighbor, Observed, ObservedFdbEntry, ObservedNeighbor,
    ObservedNexthop, ObservedRoute, ObservedRouteTo, ROUTE_PROTOCOL, Route, RouteTo,
};
use crate::model::peer::{Peer, Via};
use crate::overlay::conflict::PeerConflict;
use crate::overlay::host_view::HostView;
use crate::overlay::nexthop_ids::NexthopIds;
use crate::overlay::peer_table::PeerTable;
use crate::plan::Plan;
use crate::plan::device_diff::{DeviceFate, DevicesDiff};
use crate::plan::observed_index::ClaimIndex;
use crate::plan::part::Part;
use crate::plan::step::Step;
use crate::plan::wireguard::{PeersDiff, SentBytes, wanted_peers};

/// The desired state. Nexthop IDs are found in the observed state, or assigned.
pub(crate) struct Desired<'a> {
    pub(crate) families: &'a PerFamily<Option<FamilySpec>>,
    pub(crate) peers: &'a mut PeerTable,
    pub(crate) nexthops: &'a mut NexthopIds,
    /// Peers that are not programmed, by subnet.
    pub(crate) conflicts: &'a [(IpNet, PeerConflict)],
    pub(crate) keeps_unknown: bool,
    /// Parts that are not repaired.
    pub(crate) hold: &'a BTreeSet<Part>,
    pub(crate) sent: &'a mut SentBytes,
    pub(crate) host: &'a HostView,
}

impl Desired<'_> {
    /// Appends the steps that turn the observed state into the desired state: see [`Overlay::diff`](crate::Overlay::diff).
    /// Returns the peers that differ and are withheld.
    pub(crate) fn diff(
        mut self,
        mut devices: DevicesDiff,
        observed: &Observed,
        plan: &mut Plan,
    ) -> BTreeSet<IpNet> {
        let fates = devices.fates;
        plan.taken = devices.taken;
        plan.steps.extend(routes_before_their_device(self.families, observed, &fates));
        plan.steps.append(&mut devices.steps);
        let stale_nexthops = self.match_nexthops(observed, &fates);
        let mut found = Found::new(observed, &fates);
        self.put_network_routes(&fates, &mut found, plan);
        let mut withheld = self.put_missing(&fates, &mut found, plan);
        self.diff_wireguard_peers(observed, &fates, &mut withheld, plan);
        if !self.hold.contains(&Part::Rest) {
            self.put_blackholes(observed, &fates, plan);
            if !self.keeps_unknown {
                self.delete_stale(&fates, &found, stale_nexthops, plan);
            }
        }
        withheld
    }

    /// Assigns the observed nexthop objects to their peers. Returns the stale ones.
    fn match_nexthops(&mut self, observed: &Observed, fates: &PerFamily<DeviceFate>) -> BTreeSet<u32> {
        self.nexthops.start_reading(observed.has_nexthops);
        let device = fates[Family::V4].index().filter(|index| *index != 0);
        let is_ours =
            |found: &&ObservedNexthop| found.protocol == ROUTE_PROTOCOL && Some(found.interface) == device;
        for nexthop in &observed.nexthops {
            if is_ours(&nexthop) {
                self.nexthops.set_own(nexthop.id);
            } else {
                self.nexthops.set_foreign(nexthop.id);
            }
        }
        self.nexthops.finish_reading();

        let by_gateway = observed.nexthops.iter().filter(is_ours).map(|found| (found.gateway, found));
        let mut index = ClaimIndex::new(by_gateway);
        let conflicts = self.conflicts;
        for (peer, nexthop_id) in self.peers.nexthop_ids() {
            // Another program may have taken an ID that is no longer ours.
            let known = std::mem::take(nexthop_id);
            let gateway = peer.nexthop_gateway().filter(|_| is_programmed(conflicts, peer.subnet));
            if gateway.is_some() {
                let found = index.claim_one(gateway, |found| known == 0 || known == found.id);
                *nexthop_id = found.map_or(0, |found| found.id);
            }
        }
        index.unclaimed().map(|found| found.id).collect()
    }

    /// Puts the missing and wrong objects of all peers, and claims the right ones. Returns the peers that differ and are
    /// withheld.
    fn put_missing(
        &mut self,
        fates: &PerFamily<DeviceFate>,
        found: &mut Found<'_>,
        plan: &mut Plan,
    ) -> BTreeSet<IpNet> {
        let mut withheld = BTreeSet::new();
        let underlays =
            PerFamily::from_fn(|family| self.families[family].as_ref().map(|spec| spec.underlay.index));
        for (peer, nexthop_id) in self.peers.nexthop_ids() {
            let Peer { subnet, via } = peer;
            let family = Family::of_net(subnet);
            if fates[family].is_off() || !is_programmed(self.conflicts, subnet) {
                if self.hold.contains(&Part::Device(family)) && is_programmed(self.conflicts, subnet) {
                    withheld.insert(subnet);
                }
                continue;
            }
            let link = match via {
                Via::Direct { .. } => underlays[family],
                Via::Tunnel { .. } | Via::Outer { .. } | Via::Key { .. } => fates[family].index(),
            };
            let mut wanted = Entries::of(peer, *nexthop_id);
            let Some(wanted_route) = wanted.route else { continue };
            let route = found.claim_route(&wanted_route, link);
            let is_held = self.hold.contains(&Part::Peer(subnet));
            let needs_nexthop = route != RouteMatch::Right
                && *nexthop_id == 0
                && peer.nexthop_gateway().is_some()
                && !is_held;
            if needs_nexthop {
                *nexthop_id = self.nexthops.take();
                wanted = Entries::of(peer, *nexthop_id);
            }
            let first = plan.steps.len();
            if let Some(entry) = wanted.fdb_entry {
                let is_right = found.claim_fdb_entry(&entry);
                plan.steps.extend(is_right.err().map(Step::DeleteFdbEntry));
                plan.steps.extend((is_right != Ok(true)).then_some(Step::PutFdbEntry(entry)));
            }
            let neighbor = wanted.neighbor.filter(|wanted| !found.claim_neighbor(wanted));
            plan.steps.extend(neighbor.map(Step::PutNeighbor));
            let nexthop = wanted.nexthop.filter(|_| needs_nexthop);
            plan.steps.extend(nexthop.map(|nexthop| Step::PutNexthop { nexthop, replace: false }));
            if route == RouteMatch::ExtraAttrs {
                let (metric, protocol) = (wanted_route.metric(), ROUTE_PROTOCOL);
                plan.steps.push(Step::DeleteRoute { subnet, metric, protocol });
            }
            if let Some(wanted_route) = wanted.route.filter(|_| route != RouteMatch::Right) {
                let elsewhere = route == RouteMatch::OtherInterface;
                plan.put_route(wanted_route, route != RouteMatch::Missing, elsewhere);
            }
            if plan.steps.len() > first && is_held {
                plan.steps.truncate(first);
                withheld.insert(subnet);
            } else if plan.steps.len() > first {
                plan.end_peer(subnet, first);
            }
        }
        withheld
    }

    /// Puts the missing and wrong routes of the networks to WireGuard devices, and claims the right ones. A route that would
    /// cut this host off is neither.
    fn put_network_routes(&self, fates: &PerFamily<DeviceFate>, found: &mut Found<'_>, plan: &mut Plan) {
        for spec in self.families.specs().filter(|spec| !fates[spec.family()].is_off()) {
            let is_harmless = |route: &Route| self.host.cut_off(route.subnet).is_none();
            for route in spec.network_routes().filter(is_harmless) {
                let matched = found.claim_route(&route, fates[spec.family()].index());
                if matched != RouteMatch::Right && !self.hold.contains(&Part::Rest) {
                    plan.put_route(route, matched != RouteMatch::Missing, false);
                }
            }
        }
    }

    /// Puts the missing and wrong peers of WireGuard devices, and deletes the stale ones.
    fn diff_wireguard_peers(
        &mut self,
        observed: &Observed,
        fates: &PerFamily<DeviceFate>,
        withheld: &mut BTreeSet<IpNet>,
        plan: &mut Plan,
    ) {
        let earlier = std::mem::take(self.sent);
        for family in Family::ALL {
            let spec = self.families[family].as_ref().and_then(|spec| spec.device.as_ref());
            let Some(spec) = spec.and_then(|device| device.kind.wireguard()) else { continue };
            if self.families.device_owner(family) != family || fates[family].is_off() {
                continue;
            }
            let is_on_device = |subnet| self.families.device_owner(Family::of_net(subnet)) == family;
            let programmed = self
                .peers
                .iter()
                .filter(|peer| is_on_device(peer.subnet) && is_programmed(self.conflicts, peer.subnet));
            let wanted = wanted_peers(programmed.map(|peer| (peer.subnet, peer.via)));
            let diff = PeersDiff {
                family,
                spec,
                wanted: &wanted,
                found: observed.wireguard_peers(fates[family].index()),
                keeps_unknown: self.keeps_unknown,
                hold: self.hold,
            };
            diff.put(&earlier, self.sent, withheld, plan);
            if !self.keeps_unknown && !self.hold.contains(&Part::Rest) {
                diff.delete_stale(plan);
            }
        }
    }

    fn put_blackholes(&self, observed: &Observed, fates: &PerFamily<DeviceFate>, plan: &mut Plan) {
        let is_wanted = |spec: &&FamilySpec| spec.blackhole && !fates[spec.family()].is_off();
        for spec in self.families.specs().filter(is_wanted) {
            let route = Route { subnet: spec.subnet, to: RouteTo::Blackhole };
            let is_right = |observed: &ObservedRoute| {
                observed.subnet == route.subnet
                    && observed.metric == route.metric()
                    && observed.protocol == ROUTE_PROTOCOL
                    && observed.to == ObservedRouteTo::Blackhole
            };
            if !observed.routes.iter().any(is_right) {
                plan.steps.push(Step::PutRoute { route, replace: false });
            }
        }
    }

    /// Deletes stale objects: routes first, then the objects that they used.
    fn delete_stale(
        &self,
        fates: &PerFamily<DeviceFate>,
        found: &Found<'_>,
        stale_nexthops: BTreeSet<u32>,
        plan: &mut Plan,
    ) {
        let is_stale = |route: &&ObservedRoute| self.is_stale(route, fates, &stale_nexthops);
        plan.steps.extend(found.routes.unclaimed().filter(is_stale).map(delete_route));
        plan.steps.extend(stale_nexthops.iter().map(|id| Step::DeleteNexthop { id: *id }));

        // Upstream's FDB entries are not marked. They have a form of their own, and may outlive their neighbor entries.
        let mut stale_macs = BTreeSet::new();
        for ObservedNeighbor { neighbor, protocol } in found.neighbors.unclaimed() {
            let family = Family::of(neighbor.address);
            let is_inside = || {
                let networks = self.families[family].as_ref().map(|spec| &spec.networks);
                networks.into_iter().flatten().any(|network| network.contains(&neighbor.address))
            };
            if *protocol == ROUTE_PROTOCOL || (*protocol == 0 && is_inside()) {
                stale_macs.insert((family, neighbor.mac));
                plan.steps.push(Step::DeleteNeighbor { address: neighbor.address });
            }
        }
        let is_stale = |found: &&ObservedFdbEntry| {
            let has_stale_mac = || stale_macs.contains(&(found.entry.family, found.entry.mac));
            found.permanent && (found.ext_learned || found.upstream_form || has_stale_mac())
        };
        let stale = found.fdb.unclaimed().filter(is_stale);
        plan.steps.extend(stale.map(|found| Step::DeleteFdbEntry(found.entry)));
    }

    /// Whether a route that no peer claims is this crate's or upstream flannel's.
    fn is_stale(
        &self,
        route: &ObservedRoute,
        fates: &PerFamily<DeviceFate>,
        stale_nexthops: &BTreeSet<u32>,
    ) -> bool {
        let ObservedRoute { subnet, protocol, metric, interface, to, .. } = *route;
        let family = Family::of_net(subnet);
        let Some(spec) = &self.families[family] else { return false };
        if to == ObservedRouteTo::Blackhole && subnet == spec.subnet {
            return !(spec.blackhole && protocol == ROUTE_PROTOCOL && metric == BLACKHOLE_METRIC);
        }
        let is_on_device = interface != 0 && fates[family].index() == Some(interface);
        let is_inside = || spec.networks.iter().any(|network| network.contains(&subnet));
        let has_stale_nexthop =
            || matches!(to, ObservedRouteTo::Nexthop { id } if stale_nexthops.contains(&id));
        let is_upstreams = || {
            let device = spec.device.as_ref();
            device.is_some_and(|device| route.is_upstreams(&device.kind)) && spec.may_be_peer_subnet(subnet)
        };
        (is_on_device && is_upstreams())
            || (protocol == ROUTE_PROTOCOL && (is_on_device || has_stale_nexthop() || is_inside()))
    }
}

fn is_programmed(conflicts: &[(IpNet, PeerConflict)], subnet: IpNet) -> bool {
    conflicts.binary_search_by(|(other, _)| other.cmp(&subnet)).is_err()
}

/// Deletes the routes of a device that is recreated. The kernel would delete them with the device, but searches its
/// whole table for each nexthop object that routes use (`__remove_nexthop_fib`, net/ipv4/nexthop.c).
fn routes_before_their_device(
    families: &PerFamily<Option<FamilySpec>>,
    observed: &Observed,
    fates: &PerFamily<DeviceFate>,
) -> Vec<Step> {
    let is_upstreams = |route: &ObservedRoute| {
        let spec = families[Family::of_net(route.subnet)].as_ref();
        spec.and_then(|spec| spec.device.as_ref()).is_some_and(|device| route.is_upstreams(&device.kind))
    };
    let is_lost = |route: &&ObservedRoute| match fates[Family::of_net(route.subnet)] {
        DeviceFate::Recreated(index) => {
            index != 0
                && index == route.interface
                && (route.protocol == ROUTE_PROTOCOL || is_upstreams(route))
        }
        _ => false,
    };
    observed.routes.iter().filter(is_lost).map(delete_route).collect()
}

fn delete_route(route: &ObservedRoute) -> Step {
    Step::DeleteRoute { subnet: route.subnet, metric: route.metric, protocol: route.protocol }
}

/// Observed objects, to be claimed by the peers that need them.
struct Found<'a> {
    routes: ClaimIndex<'a, (IpNet, u32), ObservedRoute>,
    neighbors: ClaimIndex<'a, IpAddr, ObservedNeighbor>,
    fdb: ClaimIndex<'a, (Family, MacAddr), ObservedFdbEntry>,
}

/// How the observed route with a peer's destination and metric compares with the desired route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RouteMatch {
    Missing,
    Right,
    /// Another route of this crate or of upstream flannel.
    Different,
    /// A route with extra attributes such as metrics. A route with a nexthop object that replaced it would inherit
    /// them, because the kernel looks up equal route information without comparing metrics (`fib_find_info_nh`,
    /// net/ipv4/fib_semantics.c).
    ExtraAttrs,
    /// Another route, through another interface.
    OtherInterface,
}

impl<'a> Found<'a> {
    fn new(observed: &'a Observed, fates: &PerFamily<DeviceFate>) -> Self {
        // The kernel deletes routes with their device, and neighbor entries also when the MAC address changes.
        let stays = |route: &&ObservedRoute| match fates[Family::of_net(route.subnet)] {
            DeviceFate::Off => false,
            DeviceFate::Recreated(index) => index == 0 || index != route.interface,
            DeviceFate::LosesNeighbors(_) | DeviceFate::Kept(_) => true,
        };
        let routes = observed.routes.iter().filter(stays).map(|route| ((route.subnet, route.metric), route));
        let stays = |found: &&ObservedNeighbor| {
            matches!(fates[Family::of(found.neighbor.address)], DeviceFate::Kept(_))
        };
        let neighbors = observed.neighbors.iter().filter(stays);
        let stays = |found: &&ObservedFdbEntry| fates[found.entry.family].index().is_some();
        let fdb = observed.fdb.iter().filter(stays);
        Self {
            routes: ClaimIndex::new(routes),
            neighbors: ClaimIndex::new(neighbors.map(|found| (found.neighbor.address, found))),
            fdb: ClaimIndex::new(fdb.map(|found| ((found.entry.family, found.entry.mac), found))),
        }
    }

    /// Claims the routes with this destination and metric. The desired route leaves through `link`.
    fn claim_route(&mut self, wanted: &Route, link: Option<u32>) -> RouteMatch {
        let mut matched = RouteMatch::Missing;
        self.routes.claim((wanted.subnet, wanted.metric()), |found| {
            let is_here = link.is_some_and(|link| found.leaves_by(link));
            let is_right = is_here && found.protocol == ROUTE_PROTOCOL && found.leads_to(wanted.to);
            let has_extra_attrs =
                is_here && !found.no_extra_attrs && matches!(wanted.to, RouteTo::Nexthop { .. });
            matched = match matched {
                RouteMatch::Right => RouteMatch::Right,
                _ if is_right => RouteMatch::Right,
                RouteMatch::Missing | RouteMatch::Different if has_extra_attrs => RouteMatch::ExtraAttrs,
                RouteMatch::Missing | RouteMatch::Different if is_here => RouteMatch::Different,
                _ => RouteMatch::OtherInterface,
            };
            true
        });
        matched
    }

    /// Claims the neighbor entry with this address. Returns whether it is right.
    fn claim_neighbor(&mut self, wanted: &Neighbor) -> bool {
        let mut is_right = false;
        self.neighbors.claim(wanted.address, |found| {
            // Upstream's entry is replaced, so that it is known as ours when its peer leaves.
            is_right |= found.neighbor == *wanted && found.protocol == ROUTE_PROTOCOL;
            true
        });
        is_right
    }

    /// Claims the FDB entries with this MAC address. Returns whether the entry is right; the error is an entry to delete
    /// first, because it expires and the kernel does not make it permanent when it is replaced
    /// (`vxlan_fdb_update_existing`, drivers/net/vxlan/vxlan_core.c).
    fn claim_fdb_entry(&mut self, wanted: &FdbEntry) -> Result<bool, FdbEntry> {
        let mut is_right = Ok(false);
        self.fdb.claim((wanted.family, wanted.mac), |found| {
            // Upstream's entry has no mark, and the kernel does not add marks to existing entries.
            is_right = match found.permanent {
                true => Ok(found.entry.underlay == wanted.underlay && found.no_extra_attrs),
                false => Err(found.entry),
            };
            true
        });
        is_right
    }
}
