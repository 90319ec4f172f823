//! Whether a notification matters, decided by comparing it with what there should be: work for one peer, and no loop
//! through our own changes, as those agree with it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::device;
use crate::model::objects::ObservedNexthop;
use crate::overlay::host::is_of_others;
use crate::{
    Family, FamilySpec, Notification, ObservedDevice, ObservedRoute, Overlay, ROUTE_PROTOCOL, RouteTo,
};

/// What a notification asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use = "a disturbance that is not repaired stays"]
pub struct Invalidation {
    /// The kernel no longer holds what it should, or a peer's standing may have changed:
    /// [`Overlay::invalidate`] was called, so the next flush is a converge.
    pub overlay: bool,
    /// A route that others made or deleted changes which peers are programmed. They are noted: the next flush writes
    /// them, and no more.
    pub peers: bool,
    /// Interfaces, addresses or default routes of this host changed: the choice of interface and the MTU may have to be
    /// made again. For which peers are direct, and other routes, see [`Overlay::rerouted`].
    pub host: bool,
}

impl Overlay {
    /// Says whether any of these notifications, which [`Monitor::take`](crate::Monitor::take) returned together,
    /// matters, and distrusts what was written if so.
    ///
    /// Of our own devices only the last state counts: the kernel also reports the half-made ones in between, and
    /// what a short `down` takes away it reports by itself. A FDB entry that was deleted and is there again counts
    /// as it is now.
    pub fn notice(&mut self, notifications: &[Notification]) -> Invalidation {
        let mut attention = Invalidation::default();
        let (mut judged, mut put) = (Vec::new(), BTreeSet::new());
        for notification in notifications.iter().rev() {
            if let Notification::LinkGone { index } = notification {
                judged.push(*index);
            }
            if let Notification::Link(device) = notification {
                if judged.contains(&device.index) && !self.is_underlay(device.index) {
                    continue;
                }
                judged.push(device.index);
            }
            if let Notification::FdbEntry { interface, entry, gone } = notification {
                let place = (*interface, entry.entry.mac);
                if !gone {
                    put.insert(place);
                } else if put.contains(&place) {
                    continue;
                }
            }
            let asked = self.judge(notification);
            attention.overlay |= asked.overlay;
            attention.peers |= asked.peers;
            attention.host |= asked.host;
        }
        if attention.overlay {
            self.invalidate();
        }
        attention
    }

    /// Destinations that packets of this host may take another way to since these notifications, as far as that concerns
    /// peers on the physical network: every destination after an [`Notification::Overflow`] and when the underlay loses
    /// an address or its state changes, as routes then vanish without a word. Ask before [`Overlay::notice`] takes note
    /// of the underlay's state. What goes with other interfaces that go down is not told.
    #[must_use]
    pub fn rerouted(&self, notifications: &[Notification]) -> BTreeSet<IpNet> {
        let mut rerouted = BTreeSet::new();
        for notification in notifications {
            let everywhere = match notification {
                Notification::Overflow => true,
                Notification::Link(device) => {
                    let changes = |(spec, up): (&Option<FamilySpec>, &Option<bool>)| {
                        let underlay = spec.as_ref().map(|spec| spec.underlay.index);
                        underlay == Some(device.index) && *up != Some(device.up)
                    };
                    self.families.iter().zip(&self.underlay_up).any(changes)
                }
                Notification::LinkGone { index } => self.is_underlay(*index),
                Notification::Address { interface, gone, .. } => *gone && self.is_underlay(*interface),
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

    /// Whether it is a route of others that does not lead over our devices.
    fn leads_elsewhere(&self, route: &ObservedRoute) -> bool {
        route.protocol != ROUTE_PROTOCOL && self.family_on(route.interface).is_none()
    }

    fn judge(&mut self, notification: &Notification) -> Invalidation {
        let overlay = |overlay| Invalidation { overlay, ..Invalidation::default() };
        match notification {
            Notification::Overflow => Invalidation { overlay: true, host: true, peers: false },
            Notification::Link(device) => self.judge_link(device),
            Notification::LinkGone { index } => match self.family_on(*index) {
                Some(_) => overlay(true),
                None => Invalidation {
                    overlay: self.is_underlay(*index) || self.keeps_a_peer_out(*index),
                    host: true,
                    peers: false,
                },
            },
            Notification::Address { interface, address, gone } => match self.family_on(*interface) {
                Some(family) => overlay(*gone && self.device_has(family, *address)),
                None => {
                    // One whose lifetime is prolonged is told of as well, and nothing new.
                    let new = self.host.has(*address) == *gone;
                    // With its last IPv4 address an interface loses all its routes without a word
                    // (`fib_disable_ip`, net/ipv4/fib_frontend.c), and with one on the link it takes them again.
                    let routed = self.is_underlay(*interface) && !is_link_local6(*address);
                    let of_a_peer = || self.peers_at(*address).next().is_some() || self.covers(*address);
                    let overlay = new && (routed || of_a_peer());
                    Invalidation { overlay, host: true, peers: false }
                }
            },
            Notification::Route { route, gone } => {
                let Some(peers) = self.note_route_of_others(route, *gone) else {
                    return Invalidation { overlay: true, host: true, peers: false };
                };
                let host = route.subnet.prefix_len() == 0 && self.leads_elsewhere(route);
                if is_of_others(route) {
                    return Invalidation { overlay: false, peers, host };
                }
                let wanted = self.wanted(route.subnet).map(|entries| entries.route);
                match wanted.filter(|wanted| wanted.metric() == route.metric) {
                    Some(wanted) => overlay(*gone || !self.is_route(wanted.to, route)),
                    None if route.protocol == ROUTE_PROTOCOL => {
                        overlay(*gone && self.is_blackhole(route.subnet))
                    }
                    None => Invalidation { overlay: false, peers, host },
                }
            }
            Notification::Neighbor { interface, address, mac, gone } => {
                let wanted =
                    self.tunnel_at(*address).filter(|_| self.is_on(*interface, Family::of(*address)));
                overlay(wanted.is_some_and(|(_, wanted)| *gone || *mac != Some(wanted)))
            }
            Notification::FdbEntry { interface, entry, gone } => {
                let found = entry.entry;
                let right =
                    |wanted: IpAddr| wanted == found.underlay && entry.no_extra_attrs && entry.permanent;
                let wanted =
                    self.fdb_entry(found.family, found.mac).filter(|_| self.is_on(*interface, found.family));
                // One that disappeared matters only if it led to the right place.
                overlay(wanted.is_some_and(|wanted| match gone {
                    true => wanted == found.underlay,
                    false => !right(wanted),
                }))
            }
            Notification::Nexthop { nexthop, gone } => {
                overlay(self.nexthops.is_used(nexthop.id) && (*gone || !self.is_nexthop(nexthop)))
            }
        }
    }

    fn judge_link(&mut self, found: &ObservedDevice) -> Invalidation {
        let specs = self.families.iter().flatten();
        for device in specs.filter_map(|spec| spec.device.as_ref()) {
            let by_index = self.family_on(found.index) == Some(device.family());
            if by_index || found.name == device.name {
                // A link notification does not have the rest.
                let mut found = found.clone();
                found.addresses = vec![(device.address, device.family().bits())];
                found.tx_checksum = device.tx_checksum;
                found.accept_ra = None;
                let as_wanted =
                    device::diff(device, &[], Some(&found), false).is_ok_and(|diff| diff.steps.is_empty());
                return Invalidation {
                    overlay: !(as_wanted && by_index && found.name == device.name),
                    ..Invalidation::default()
                };
            }
        }
        // The routes of an interface that goes down vanish without a word.
        let mut overlay = !found.up && self.keeps_a_peer_out(found.index);
        for (spec, up) in self.families.iter().zip(&mut self.underlay_up) {
            if spec.as_ref().is_some_and(|spec| spec.underlay.index == found.index) {
                overlay |= *up != Some(found.up);
                *up = Some(found.up);
            }
        }
        Invalidation { overlay, host: true, peers: false }
    }

    pub(crate) fn family_on(&self, index: u32) -> Option<Family> {
        let at = self.device_index.iter().position(|device| *device != 0 && *device == index)?;
        Family::ALL.get(at).copied()
    }

    fn index_of(&self, family: Family) -> u32 {
        match family {
            Family::V4 => self.device_index[0],
            Family::V6 => self.device_index[1],
        }
    }

    fn is_on(&self, index: u32, family: Family) -> bool {
        self.family_on(index) == Some(family)
    }

    fn is_underlay(&self, index: u32) -> bool {
        self.families.iter().flatten().any(|spec| spec.underlay.index == index)
    }

    fn device_has(&self, family: Family, address: IpAddr) -> bool {
        let device = self.family(family).and_then(|spec| spec.device.as_ref());
        device.is_some_and(|device| device.address == address)
    }

    /// Whether a peer's subnet may hold this address of the host.
    fn covers(&self, address: IpAddr) -> bool {
        self.holding(address, u8::MAX).next().is_some()
    }

    fn is_route(&self, wanted: RouteTo, found: &ObservedRoute) -> bool {
        let family = Family::of_net(found.subnet);
        let link = match wanted {
            RouteTo::Direct { .. } => self.family(family).map_or(0, |spec| spec.underlay.index),
            _ => self.index_of(family),
        };
        found.protocol == ROUTE_PROTOCOL && found.leaves_by(link) && found.leads_to(wanted)
    }

    fn is_blackhole(&self, subnet: IpNet) -> bool {
        let spec = self.family(Family::of_net(subnet));
        spec.is_some_and(|spec: &FamilySpec| spec.blackhole && spec.subnet == subnet)
    }

    fn is_nexthop(&self, found: &ObservedNexthop) -> bool {
        if found.protocol != ROUTE_PROTOCOL || !self.is_on(found.interface, Family::V4) {
            return false;
        }
        let peer = found.gateway.and_then(|gateway| self.tunnel_at(gateway.into()));
        peer.and_then(|(subnet, _)| self.peers.get(&subnet)).is_some_and(|slot| slot.nexthop == found.id)
    }
}

/// An address that no gateway of a peer needs, and that comes and goes by itself.
fn is_link_local6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
