//! Whether a notification matters. Each is compared with the desired state, which costs work for one peer and ignores
//! our own changes, because these agree with it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::kernel::monitor::Notification;
use crate::model::device::ObservedDevice;
use crate::model::family::Family;
use crate::model::family_spec::FamilySpec;
use crate::model::objects::{
    ObservedFdbEntry, ObservedNexthop, ObservedRoute, ROUTE_PROTOCOL, Route, RouteTo,
};
use crate::model::peer::Peer;
use crate::overlay::Overlay;
use crate::plan::device_diff::diff_device;

/// What notifications have made invalid.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use = "invalid kernel state is not repaired by itself"]
pub struct Invalidation {
    /// The kernel no longer holds the desired state, or a peer may now be programmed or no longer be programmed. The
    /// overlay is [invalidated](Overlay::invalidate): the next flush is a converge.
    pub overlay: bool,
    /// Another program's route changes which peers are programmed. Those peers are noted: the next flush writes only
    /// them.
    pub peers: bool,
    /// Interfaces, addresses or default routes of this host have changed, so the choice of the uplink and the MTU may be
    /// outdated. For routes to direct peers see [`Overlay::rerouted`].
    pub host: bool,
}

impl Invalidation {
    const HOST: Self = Self { overlay: false, peers: false, host: true };

    fn overlay_if(overlay: bool) -> Self {
        Self { overlay, ..Self::default() }
    }
}

impl Overlay {
    /// Determines what these notifications, which one call of [`Monitor::take`](crate::Monitor::take) returned,
    /// invalidate.
    ///
    /// Of our own devices only the last state counts: the kernel also reports intermediate states of our own changes, and
    /// reports separately what a device loses while it is down. An FDB entry that was deleted and added again counts as it
    /// is now.
    pub fn notice(&mut self, notifications: &[Notification]) -> Invalidation {
        let mut invalid = Invalidation::default();
        let (mut seen_links, mut added_entries) = (Vec::new(), BTreeSet::new());
        for notification in notifications.iter().rev() {
            if let Notification::LinkGone { index } = notification {
                seen_links.push(*index);
            }
            if let Notification::Link(device) = notification {
                if seen_links.contains(&device.index) && !self.families.is_underlay(device.index) {
                    continue;
                }
                seen_links.push(device.index);
            }
            if let Notification::FdbEntry { interface, entry, gone } = notification {
                let key = (*interface, entry.entry.mac);
                if !gone {
                    added_entries.insert(key);
                } else if added_entries.contains(&key) {
                    continue;
                }
            }
            let one = self.notice_one(notification);
            invalid.overlay |= one.overlay;
            invalid.peers |= one.peers;
            invalid.host |= one.host;
        }
        if invalid.overlay {
            self.invalidate();
        }
        invalid
    }

    /// Destinations that this host may now reach another way, as far as that matters for peers on the physical network.
    /// These are all destinations after a [`Notification::Overflow`], and when an uplink loses an address or changes its
    /// state, because the kernel then deletes routes without a notification. Call it before [`Overlay::notice`], which
    /// stores the state of the uplinks. Routes through other interfaces that go down are not reported.
    #[must_use]
    pub fn rerouted(&self, notifications: &[Notification]) -> BTreeSet<IpNet> {
        let mut rerouted = BTreeSet::new();
        for notification in notifications {
            let everywhere = match notification {
                Notification::Overflow => true,
                Notification::Link(device) => self.families.specs().any(|spec| {
                    spec.underlay.index == device.index
                        && self.host.is_underlay_up(spec.family()) != Some(device.up)
                }),
                Notification::LinkGone { index } => self.families.is_underlay(*index),
                Notification::Address { interface, gone, .. } => {
                    *gone && self.families.is_underlay(*interface)
                }
                Notification::Route { route, .. } => {
                    if self.leads_elsewhere(route) {
                        rerouted.insert(route.subnet);
                    }
                    false
                }
                _ => false,
            };
            if everywhere {
                rerouted.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]);
            }
        }
        rerouted
    }

    /// Whether this is another program's route that does not leave through our devices.
    fn leads_elsewhere(&self, route: &ObservedRoute) -> bool {
        route.protocol != ROUTE_PROTOCOL && self.devices.family_on(route.interface).is_none()
    }

    fn notice_one(&mut self, notification: &Notification) -> Invalidation {
        match notification {
            Notification::Overflow => Invalidation { overlay: true, ..Invalidation::HOST },
            Notification::Link(device) => self.notice_link(device),
            Notification::LinkGone { index } => match self.devices.family_on(*index) {
                Some(_) => Invalidation::overlay_if(true),
                None => {
                    let overlay =
                        self.families.is_underlay(*index) || self.host.blocks_a_peer(*index, &self.peers);
                    Invalidation { overlay, ..Invalidation::HOST }
                }
            },
            Notification::Address { interface, address, gone } => {
                self.notice_address(*interface, *address, *gone)
            }
            Notification::Route { route, gone } => self.notice_route(route, *gone),
            Notification::Neighbor { interface, address, mac, gone } => {
                let is_ours = self.devices.family_on(*interface) == Some(Family::of(*address));
                let wanted = self.tunnel_at(*address).filter(|_| is_ours);
                Invalidation::overlay_if(wanted.is_some_and(|(_, wanted)| *gone || *mac != Some(wanted)))
            }
            Notification::FdbEntry { interface, entry, gone } => {
                Invalidation::overlay_if(self.breaks_fdb_entry(*interface, entry, *gone))
            }
            Notification::Nexthop { nexthop, gone } => {
                let may_be_ours = self.nexthops.is_used(nexthop.id);
                Invalidation::overlay_if(may_be_ours && (*gone || !self.is_desired_nexthop(nexthop)))
            }
        }
    }

    fn notice_link(&mut self, found: &ObservedDevice) -> Invalidation {
        for device in self.families.specs().filter_map(|spec| spec.device.as_ref()) {
            let is_known = self.devices.family_on(found.index) == Some(device.family());
            if is_known || found.name == device.name {
                // A link notification does not contain these.
                let mut found = found.clone();
                found.addresses = vec![(device.address, device.family().bits())];
                found.tx_checksum = device.tx_checksum();
                found.accept_ra = None;
                let diff = diff_device(device, &[], Some(&found), false);
                let is_right = diff.is_ok_and(|diff| diff.steps.is_empty());
                return Invalidation::overlay_if(!(is_right && is_known && found.name == device.name));
            }
        }
        // The kernel deletes the routes of an interface that goes down without a notification.
        let mut overlay = !found.up && self.host.blocks_a_peer(found.index, &self.peers);
        for spec in self.families.specs().filter(|spec| spec.underlay.index == found.index) {
            overlay |= self.host.set_underlay_up(spec.family(), found.up);
        }
        Invalidation { overlay, ..Invalidation::HOST }
    }

    fn notice_address(&self, interface: u32, address: IpAddr, gone: bool) -> Invalidation {
        if self.devices.family_on(interface).is_some() {
            let family = Family::of(address);
            let device = self.families[family].as_ref().and_then(|spec| spec.device.as_ref());
            return Invalidation::overlay_if(gone && device.is_some_and(|device| device.address == address));
        }
        // The kernel also reports an address whose lifetime is extended.
        let is_new = self.host.has(address) == gone;
        // An interface that loses its last IPv4 address loses all its routes without a notification (`fib_disable_ip`,
        // net/ipv4/fib_frontend.c). It accepts them again when it gets an address.
        let may_affect_routes = self.families.is_underlay(interface) && !is_link_local_v6(address);
        let is_a_peers = || self.peers.with_underlay(address).next().is_some();
        let is_in_a_subnet = || self.peers.containing(address, u8::MAX).next().is_some();
        let overlay = is_new && (may_affect_routes || is_a_peers() || is_in_a_subnet());
        Invalidation { overlay, ..Invalidation::HOST }
    }

    fn notice_route(&mut self, route: &ObservedRoute, gone: bool) -> Invalidation {
        let Some(peers) = self.notice_foreign_route(route, gone) else {
            return Invalidation { overlay: true, ..Invalidation::HOST };
        };
        let host = route.subnet.prefix_len() == 0 && self.leads_elsewhere(route);
        if route.is_foreign() {
            return Invalidation { overlay: false, peers, host };
        }
        let wanted = self.wanted(route.subnet).and_then(|entries| entries.route);
        let mut networks = self.families.specs().flat_map(FamilySpec::network_routes);
        let wanted = networks.find(|network| network.subnet == route.subnet).or(wanted);
        match wanted.filter(|wanted| wanted.metric() == route.metric) {
            Some(wanted) => Invalidation::overlay_if(gone || !self.is_desired_route(wanted.to, route)),
            None if route.protocol == ROUTE_PROTOCOL => {
                let spec = self.families[Family::of_net(route.subnet)].as_ref();
                let is_blackhole = spec.is_some_and(|spec| spec.blackhole && spec.subnet == route.subnet);
                Invalidation::overlay_if(gone && is_blackhole)
            }
            None => Invalidation { overlay: false, peers, host },
        }
    }

    /// Updates the view of the host if another program added or deleted this route, and notes the peers whose conflicts
    /// that changes. Returns whether there are any; `None` if only an observation of the kernel can tell.
    fn notice_foreign_route(&mut self, route: &ObservedRoute, gone: bool) -> Option<bool> {
        let mut noted = false;
        let spec = self.families[Family::of_net(route.subnet)].as_ref();
        let may_conflict = spec.is_some_and(|spec| spec.may_be_peer_subnet(route.subnet));
        if route.is_foreign() && may_conflict && !self.host.agrees_on_route(route, gone) {
            let affected = self.mark_unchanged(route.subnet);
            self.host.set_route(route, gone);
            noted |= self.review(&affected);
        }
        let gateway = route.foreign_gateway().filter(|_| self.devices.family_on(route.interface).is_none());
        if let Some(gateway) = gateway {
            let is_known = self.host.has_gateway(gateway);
            let is_inside = |network: Route| network.subnet.contains(&gateway);
            if is_known == gone && self.families.specs().flat_map(FamilySpec::network_routes).any(is_inside) {
                return None; // a route of a pod network may cut the gateway off, or no longer
            }
            let holders: Vec<IpNet> = self.peers.containing(gateway, u8::MAX).collect();
            if is_known && gone && !holders.is_empty() {
                return None; // other routes may have the same gateway
            }
            if !is_known && !gone {
                let affected: Vec<IpNet> =
                    holders.into_iter().flat_map(|holder| self.mark_unchanged(holder)).collect();
                self.host.add_gateway(gateway, route.interface);
                noted |= self.review(&affected);
            }
        }
        Some(noted)
    }

    /// As `mark_affected`, for a peer that does not change while the host does.
    fn mark_unchanged(&mut self, subnet: IpNet) -> Vec<IpNet> {
        match self.peers.get(subnet) {
            Some(entry) => self.mark_affected(subnet, Some((entry.via, entry.since))),
            None => Vec::new(),
        }
    }

    fn breaks_fdb_entry(&self, interface: u32, found: &ObservedFdbEntry, gone: bool) -> bool {
        let entry = found.entry;
        if self.devices.family_on(interface) != Some(entry.family) {
            return false;
        }
        let is_right = |wanted: IpAddr| wanted == entry.underlay && found.no_extra_attrs && found.permanent;
        // A deleted entry matters only if it was right.
        self.fdb_target(entry.family, entry.mac)
            .is_some_and(|wanted| if gone { wanted == entry.underlay } else { !is_right(wanted) })
    }

    fn is_desired_route(&self, wanted: RouteTo, found: &ObservedRoute) -> bool {
        let family = Family::of_net(found.subnet);
        let link = match wanted {
            RouteTo::Direct { .. } => self.families[family].as_ref().map_or(0, |spec| spec.underlay.index),
            _ => self.devices.index(family),
        };
        found.protocol == ROUTE_PROTOCOL && found.leaves_by(link) && found.leads_to(wanted)
    }

    fn is_desired_nexthop(&self, found: &ObservedNexthop) -> bool {
        if found.protocol != ROUTE_PROTOCOL || self.devices.family_on(found.interface) != Some(Family::V4) {
            return false;
        }
        let Some(gateway) = found.gateway else { return false };
        let tunnel = self.tunnel_at(gateway.into()).map(|(subnet, _)| subnet);
        let mut peers = tunnel.into_iter().chain(self.peers.with_underlay(gateway.into()));
        peers.any(|subnet| {
            let entry = self.peers.get(subnet).filter(|entry| entry.nexthop_id == found.id);
            let peer = entry.map(|entry| Peer { subnet, via: entry.via });
            peer.and_then(|peer| peer.nexthop_gateway()) == Some(gateway)
        })
    }
}

/// Link-local addresses come and go by themselves, and no gateway of a peer needs them.
fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
