//! A kernel in memory, for tests and dry runs. It can be told to refuse steps and to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use flannel_netlink::Errno;
use ipnet::IpNet;

use crate::error::{ApplyError, ObserveError, ReadError, StepRefusal};
use crate::kernel::{Applied, Kernel, explain};
use crate::model::device::{DeviceKind, DeviceSpec, ObservedDevice, ObservedKind};
use crate::model::family::Family;
use crate::model::family_spec::Links;
use crate::model::if_name::IfName;
use crate::model::interface::{DefaultRoute, Interface, InterfaceAddress, RouteLookup};
use crate::model::ipip::ObservedIpip;
use crate::model::mac::MacAddr;
use crate::model::objects::{
    FdbEntry, Neighbor, Nexthop, Observed, ObservedFdbEntry, ObservedNeighbor, ObservedNexthop,
    ObservedRoute, ObservedRouteTo, ROUTE_PROTOCOL, Route, RouteTo,
};
use crate::model::vxlan::ObservedVxlan;
use crate::model::wireguard::{ObservedWireguard, ObservedWireguardPeer, WireguardPeer};
use crate::plan::Plan;
use crate::plan::step::{DeviceStep, Step};
use crate::wire::uapi::RTPROT_BOOT;

/// A [`Kernel`] in memory. It applies plans to its public fields, which tests may change.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    /// Interfaces other than the VXLAN devices.
    pub interfaces: Vec<Interface>,
    /// The answer to [`Kernel::default_routes`].
    pub default_routes: BTreeMap<Family, DefaultRoute>,
    /// The answers to [`Kernel::route_to`].
    pub route_lookups: BTreeMap<IpAddr, RouteLookup>,
    /// VXLAN devices, and other devices with their names.
    pub devices: BTreeMap<IfName, ObservedDevice>,
    /// Neighbors by device.
    pub neighbors: BTreeMap<(u32, IpAddr), ObservedNeighbor>,
    /// FDB entries by device.
    pub fdb: BTreeMap<(u32, MacAddr), ObservedFdbEntry>,
    /// Nexthop objects.
    pub nexthops: BTreeMap<u32, ObservedNexthop>,
    /// UDP ports at which FOU datagrams are received.
    pub fou_ports: BTreeSet<u16>,
    /// Routes by destination and metric.
    pub routes: BTreeMap<(IpNet, u32), ObservedRoute>,
    /// Gateways of the host, with the index of their interface.
    pub gateways: Vec<(IpAddr, u32)>,
    /// Routes that the kernel deletes together with another route, by the subnet of that other route.
    pub lost_with_route: BTreeMap<IpNet, IpNet>,
    /// Peers whose steps are refused with `ENOBUFS`.
    pub refused_peers: BTreeSet<IpNet>,
    /// Whether the kernel has no module `wireguard`.
    pub without_wireguard: bool,
    /// UDP ports that other programs use; refused for WireGuard devices.
    pub used_ports: BTreeSet<u16>,
    /// Whether the kernel has no nexthop objects, as before Linux 5.3.
    pub without_nexthops: bool,
    /// If set, [`Kernel::observe`] fails with this text.
    pub unreadable: Option<String>,
    /// Number of answered requests.
    pub reads: usize,
    /// Number of applied plans.
    pub applied_plans: usize,
    /// Number of applied steps.
    pub applied_steps: usize,
    /// Number of refused steps.
    pub refused_steps: usize,
    last_index: u32,
}

impl FakeKernel {
    /// A host with one interface, `eth0` (index 2), which is up and has these addresses and the default routes.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        let address = |(address, prefix_len)| InterfaceAddress::new(address, prefix_len);
        let addresses = addresses.into_iter().map(address).collect();
        let eth0 = Interface {
            index: 2,
            name: "eth0".to_owned(),
            mtu: 1500,
            up: true,
            addresses,
            ..Interface::default()
        };
        let default = DefaultRoute { interface: 2, metric: 0 };
        Self {
            interfaces: vec![eth0],
            default_routes: Family::ALL.map(|family| (family, default)).into(),
            last_index: 100,
            ..Self::default()
        }
    }

    /// Deletes a device and everything on it, as `ip link del NAME` does.
    pub fn delete_device(&mut self, name: IfName) {
        if let Some(device) = self.devices.remove(&name) {
            self.empty_device(device.index);
        }
    }

    /// The device, with what is known of its FOU port.
    fn with_fou(&self, device: &ObservedDevice) -> ObservedDevice {
        let mut device = device.clone();
        if let ObservedKind::Ipip(ipip) = &mut device.kind {
            ipip.fou_receives = ipip.fou.map(|port| self.fou_ports.contains(&port));
        }
        device
    }

    fn empty_device(&mut self, index: u32) {
        self.neighbors.retain(|(on, _), _| *on != index);
        self.fdb.retain(|(on, _), _| *on != index);
        self.nexthops.retain(|_, nexthop| nexthop.interface != index);
        self.routes.retain(|_, route| route.interface != index);
    }

    fn device(&mut self, plan: &Plan, family: Family) -> Result<&mut ObservedDevice, Errno> {
        let name = plan.links(family).and_then(|links| links.device).ok_or(Errno::ENODEV)?;
        self.devices.get_mut(&name).ok_or(Errno::ENODEV)
    }

    fn take(&mut self, plan: &Plan, step: &Step) -> Result<(), Errno> {
        match step {
            Step::Device(family, step) => self.take_device(plan, *family, step),
            Step::PutFdbEntry(fdb_entry) => {
                let index = self.device(plan, fdb_entry.family)?.index;
                let entry = ObservedFdbEntry {
                    entry: *fdb_entry,
                    ext_learned: true,
                    permanent: true,
                    no_extra_attrs: true,
                    upstream_form: false,
                };
                self.fdb.insert((index, fdb_entry.mac), entry);
                Ok(())
            }
            Step::DeleteFdbEntry(FdbEntry { family, mac, .. }) => {
                let index = self.device(plan, *family)?.index;
                self.fdb.remove(&(index, *mac));
                Ok(())
            }
            Step::PutNeighbor(Neighbor { address, mac }) => {
                let index = self.device(plan, Family::of(*address))?.index;
                let neighbor = Neighbor { address: *address, mac: *mac };
                let entry = ObservedNeighbor { neighbor, protocol: ROUTE_PROTOCOL };
                self.neighbors.insert((index, *address), entry);
                Ok(())
            }
            Step::DeleteNeighbor { address } => {
                let index = self.device(plan, Family::of(*address))?.index;
                self.neighbors.remove(&(index, *address));
                Ok(())
            }
            Step::PutNexthop { nexthop: Nexthop { id, gateway }, replace } => {
                let interface = self.device(plan, Family::V4)?.index;
                let nexthop =
                    ObservedNexthop { id: *id, protocol: ROUTE_PROTOCOL, interface, gateway: Some(*gateway) };
                if !replace && self.nexthops.get(id).is_some_and(|found| *found != nexthop) {
                    return Err(Errno::EEXIST);
                }
                self.nexthops.insert(*id, nexthop);
                Ok(())
            }
            Step::DeleteNexthop { id } => {
                self.nexthops.remove(id);
                self.routes.retain(|_, route| route.to != ObservedRouteTo::Nexthop { id: *id });
                Ok(())
            }
            Step::PutWireguardPeer(family, peer) => {
                put_wireguard_peer(wireguard_of(self.device(plan, *family)?)?, peer);
                Ok(())
            }
            Step::DeleteWireguardPeer(family, key) => {
                wireguard_of(self.device(plan, *family)?)?.peers.retain(|peer| peer.key != *key);
                Ok(())
            }
            Step::PutRoute { route, .. } => self.put_route(plan, route),
            Step::DeleteRoute { subnet, metric, .. } => {
                self.routes.remove(&(*subnet, *metric));
                let lost = self.lost_with_route.get(subnet);
                self.routes.retain(|(subnet, _), _| Some(subnet) != lost);
                Ok(())
            }
        }
    }

    fn put_route(&mut self, plan: &Plan, route: &Route) -> Result<(), Errno> {
        let family = Family::of_net(route.subnet);
        let (to, interface) = match route.to {
            RouteTo::Nexthop { id } => {
                let nexthop = self.nexthops.get(&id).ok_or(Errno::EINVAL)?;
                (ObservedRouteTo::Nexthop { id }, nexthop.interface)
            }
            RouteTo::Onlink { gateway } => {
                (ObservedRouteTo::Gateway { gateway, onlink: true }, self.device(plan, family)?.index)
            }
            RouteTo::Direct { gateway } => {
                let underlay = plan.links(family).map_or(0, |links| links.underlay.index);
                (ObservedRouteTo::Gateway { gateway, onlink: false }, underlay)
            }
            RouteTo::Device => (ObservedRouteTo::Device, self.device(plan, family)?.index),
            RouteTo::Blackhole => (ObservedRouteTo::Blackhole, 0),
        };
        let (subnet, metric) = (route.subnet, route.metric());
        let there = self.routes.get(&(subnet, metric));
        if there.is_some_and(|found| found.protocol != ROUTE_PROTOCOL && found.protocol != RTPROT_BOOT) {
            return Err(Errno::EEXIST);
        }
        let route =
            ObservedRoute { subnet, protocol: ROUTE_PROTOCOL, metric, interface, to, no_extra_attrs: true };
        self.routes.insert((subnet, metric), route);
        Ok(())
    }

    fn take_device(&mut self, plan: &Plan, family: Family, step: &DeviceStep) -> Result<(), Errno> {
        match step {
            DeviceStep::Create(spec) => {
                if self.devices.contains_key(&spec.name) {
                    return Err(Errno::EEXIST);
                }
                if self.without_wireguard && spec.kind.wireguard().is_some() {
                    return Err(Errno::EOPNOTSUPP);
                }
                self.last_index += 1;
                self.devices.insert(spec.name, made(spec, self.last_index));
                return Ok(());
            }
            DeviceStep::Rename(from) => {
                let name = plan.links(family).and_then(|links| links.device).ok_or(Errno::ENODEV)?;
                let device = self.devices.remove(from).ok_or(Errno::ENODEV)?;
                self.devices.insert(name, ObservedDevice { name, ..device });
                return Ok(());
            }
            DeviceStep::SetWireguard(spec) if self.used_ports.contains(&spec.port.get()) => {
                return Err(Errno::EADDRINUSE);
            }
            DeviceStep::PutFouPort(port) => {
                self.fou_ports.insert(port.get());
                return Ok(());
            }
            DeviceStep::DeleteFouPort(port) => {
                self.fou_ports.remove(port);
                return Ok(());
            }
            DeviceStep::Delete => {
                let name = self.device(plan, family)?.name;
                self.delete_device(name);
                return Ok(());
            }
            _ => {}
        }
        let device = self.device(plan, family)?;
        match step {
            DeviceStep::Change(spec) => {
                let resettable_options_differ =
                    device.vxlan().is_some_and(|vxlan| vxlan.resettable_options_differ);
                device.kind = made_kind(spec);
                if let ObservedKind::Vxlan(vxlan) = &mut device.kind {
                    vxlan.resettable_options_differ = resettable_options_differ;
                }
            }
            DeviceStep::ResetOptions(_) => {
                if let ObservedKind::Vxlan(vxlan) = &mut device.kind {
                    vxlan.resettable_options_differ = false;
                }
            }
            DeviceStep::SetWireguard(spec) => {
                let found = wireguard_of(device)?;
                found.private_key = Some(spec.private_key);
                (found.port, found.fwmark) = (spec.port.get(), 0);
                // A device does not send to itself (`wg_set_device`, drivers/net/wireguard/netlink.c).
                found.peers.retain(|peer| peer.key != spec.public_key);
            }
            DeviceStep::Release => device.master = 0,
            DeviceStep::SetMac(mac) => device.mac = Some(*mac),
            DeviceStep::SetMtu(mtu) => device.mtu = mtu.bytes(),
            DeviceStep::IgnoreRouterAdvertisements => device.accept_ra = Some(false),
            DeviceStep::SetTxChecksum(on) => device.tx_checksum = Some(*on),
            DeviceStep::Up => device.up = true,
            DeviceStep::AddAddress(address) => device.addresses.push((*address, Family::of(*address).bits())),
            DeviceStep::DeleteAddress(address, prefix) => {
                device.addresses.retain(|found| found != &(*address, *prefix));
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(())
    }
}

/// The entries of the requested devices.
fn on_asked<K, T: Copy>(entries: &BTreeMap<(u32, K), T>, asked: impl Fn(u32) -> bool) -> Vec<T> {
    entries.iter().filter(|((on, _), _)| asked(*on)).map(|(_, entry)| *entry).collect()
}

fn made(spec: &DeviceSpec, index: u32) -> ObservedDevice {
    ObservedDevice {
        name: spec.name,
        index,
        up: false,
        mac: spec.mac(),
        mtu: spec.mtu.bytes(),
        kind: made_kind(spec),
        addresses: Vec::new(),
        accept_ra: Some(true),
        tx_checksum: Some(true),
        master: 0,
    }
}

fn made_kind(spec: &DeviceSpec) -> ObservedKind {
    match &spec.kind {
        DeviceKind::Vxlan(vxlan) => ObservedKind::Vxlan(ObservedVxlan {
            vni: vxlan.vni.number(),
            underlay: spec.underlay.index,
            local: Some(spec.local),
            port: vxlan.port.get(),
            learning: vxlan.learning,
            gbp: vxlan.gbp,
            resettable_options_differ: false,
            fixed_options_differ: false,
        }),
        DeviceKind::Ipip(ipip) => ObservedKind::Ipip(ObservedIpip {
            underlay: ipip.link(spec.underlay),
            local: match spec.local {
                IpAddr::V4(local) => Some(local),
                IpAddr::V6(_) => None,
            },
            fou: ipip.fou.map(NonZeroU16::get),
            ..ObservedIpip::default()
        }),
        DeviceKind::Wireguard(_) => ObservedKind::Wireguard(Some(ObservedWireguard::default())),
    }
}

fn wireguard_of(device: &mut ObservedDevice) -> Result<&mut ObservedWireguard, Errno> {
    match &mut device.kind {
        ObservedKind::Wireguard(Some(wireguard)) => Ok(wireguard),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// As `set_peer` of drivers/net/wireguard/netlink.c.
fn put_wireguard_peer(device: &mut ObservedWireguard, peer: &WireguardPeer) {
    if device.private_key.is_some_and(|private| private.public() == peer.key) {
        return; // ignored without an error
    }
    for other in device.peers.iter_mut().filter(|other| other.key != peer.key) {
        other.subnets.retain(|subnet| !peer.subnets.contains(subnet));
    }
    let at = device.peers.iter().position(|found| found.key == peer.key);
    let at = at.unwrap_or_else(|| {
        device.peers.push(ObservedWireguardPeer::new(peer.key));
        device.peers.len() - 1
    });
    let Some(found) = device.peers.get_mut(at) else { return };
    (found.psk, found.keepalive) = (peer.psk, peer.keepalive);
    found.endpoint = peer.endpoint.or(found.endpoint);
    if peer.replaces_subnets {
        found.subnets.clear();
    }
    let new = peer.subnets.iter().filter(|subnet| !found.subnets.contains(subnet));
    let new: Vec<IpNet> = new.copied().collect();
    found.subnets.extend(new);
}

impl Kernel for FakeKernel {
    fn observe(&mut self, links: &[Links]) -> Result<Observed, ObserveError> {
        self.reads += 1;
        if let Some(text) = &self.unreadable {
            return Err(ObserveError { what: "links".into(), source: ReadError::Fake(text.clone()) });
        }
        let routes: Vec<ObservedRoute> = self.routes.values().copied().collect();
        let named = |device: &&ObservedDevice| links.iter().any(|links| links.device == Some(device.name));
        let asked = |index: u32| self.devices.values().filter(named).any(|device| device.index == index);
        Ok(Observed {
            has_nexthops: !self.without_nexthops,
            devices: self.devices.values().filter(named).map(|device| self.with_fou(device)).collect(),
            interfaces: self.interfaces.clone(),
            neighbors: on_asked(&self.neighbors, asked),
            fdb: on_asked(&self.fdb, asked),
            nexthops: self.nexthops.values().copied().collect(),
            routes: routes
                .iter()
                .filter(|route| matches!(route.protocol, ROUTE_PROTOCOL | RTPROT_BOOT))
                .copied()
                .collect(),
            others: routes
                .into_iter()
                .filter(|route| !matches!(route.protocol, ROUTE_PROTOCOL | RTPROT_BOOT))
                .collect(),
            gateways: self.gateways.clone(),
        })
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError> {
        self.applied_plans += 1;
        let mut applied = Applied::default();
        for (number, step) in plan.steps().iter().enumerate() {
            let refuse = plan.peer_of(number).is_some_and(|peer| self.refused_peers.contains(&peer));
            match if refuse { Err(Errno::ENOBUFS) } else { self.take(plan, step) } {
                Ok(()) => self.applied_steps += 1,
                Err(errno) => {
                    self.refused_steps += 1;
                    let text = explain::entry_step(step, errno, None);
                    applied.refused.push(StepRefusal { step: number, errno, text });
                }
            }
        }
        for family in Family::ALL {
            applied.devices[family] = self.device(plan, family).map_or(0, |device| device.index);
        }
        Ok(applied)
    }

    fn interfaces(&mut self) -> Result<Vec<Interface>, ObserveError> {
        self.reads += 1;
        Ok(self.interfaces.clone())
    }

    fn default_routes(&mut self, family: Family) -> Result<Vec<DefaultRoute>, ObserveError> {
        self.reads += 1;
        Ok(self.default_routes.get(&family).copied().into_iter().collect())
    }

    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, ObserveError> {
        self.reads += 1;
        Ok(self.route_lookups.get(&address).copied())
    }

    fn wireguard(&mut self, device: IfName) -> Result<Option<ObservedWireguard>, ObserveError> {
        self.reads += 1;
        Ok(self.devices.get(&device).and_then(|device| device.wireguard()).cloned())
    }
}
