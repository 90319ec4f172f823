//! Compares devices with their desired state, and decides which differences require a device to be recreated.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use crate::model::device::{DeviceKind, DeviceSpec, NameTaken, ObservedDevice, ObservedKind};
use crate::model::family::{Family, PerFamily};
use crate::model::family_spec::FamilySpec;
use crate::model::ipip::{IpipSpec, ObservedIpip};
use crate::model::objects::Observed;
use crate::model::vxlan::{ObservedVxlan, VxlanSpec};
use crate::model::wireguard::{ObservedWireguard, WireguardSpec};
use crate::plan::step::{DeviceStep, Step};

/// The device of one family, as it will be after the plan's device steps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DeviceFate {
    /// There is no such family, or another program's device has the name, or the missing device is withheld: nothing of
    /// the family is written.
    Off,
    /// The device is created or recreated, so it has no routes, neighbor entries and FDB entries. Index of the old
    /// device, or 0.
    Recreated(u32),
    /// The device stays but loses its neighbor entries. Its index.
    LosesNeighbors(u32),
    /// The device stays. Its index, or 0 if the family has no device.
    Kept(u32),
}

impl DeviceFate {
    /// Index of a device that stays; 0 if the family has no device.
    pub(crate) fn index(self) -> Option<u32> {
        match self {
            Self::Kept(index) | Self::LosesNeighbors(index) => Some(index),
            Self::Off | Self::Recreated(_) => None,
        }
    }

    pub(crate) fn is_off(self) -> bool {
        matches!(self, Self::Off)
    }
}

/// The result of comparing the devices of all families.
pub(crate) struct DevicesDiff {
    pub(crate) steps: Vec<Step>,
    pub(crate) fates: PerFamily<DeviceFate>,
    pub(crate) taken: Vec<NameTaken>,
    /// Whether the device needs no change; `None` if there is nothing to compare.
    pub(crate) is_right: PerFamily<Option<bool>>,
}

/// Compares the devices of all families. `recreate`: devices that the kernel would not change in place. `held`: devices
/// that are not repaired.
pub(crate) fn diff_devices(
    families: &PerFamily<Option<FamilySpec>>,
    recreate: PerFamily<bool>,
    held: PerFamily<bool>,
    observed: &Observed,
) -> DevicesDiff {
    let mut all = DevicesDiff {
        steps: Vec::new(),
        fates: PerFamily::from_fn(|_| DeviceFate::Off),
        taken: Vec::new(),
        is_right: PerFamily::default(),
    };
    for family in Family::ALL {
        let Some(spec) = &families[family] else { continue };
        let Some(wanted) = &spec.device else {
            all.fates[family] = DeviceFate::Kept(0);
            continue;
        };
        let (mut devices, links) = (observed.devices.iter(), spec.links());
        let named = devices.clone().find(|device| device.name == wanted.name);
        let device = named.or_else(|| devices.find(|device| links.is_renamed(device)));
        // One WireGuard device may carry both families. Then IPv4 comes first, and IPv6 adds what differs only for it.
        let owner = families.device_owner(family);
        match diff_device(wanted, &spec.networks, device, recreate[family]) {
            Ok(mut diff) if owner != family => {
                let (fate, is_held) = (all.fates[owner], held[family] && !diff.steps.is_empty());
                let is_known = |step: &DeviceStep| {
                    all.steps.iter().any(|known| matches!(known, Step::Device(_, known) if known == step))
                };
                diff.steps.retain(|step| !is_known(step) && !matches!(step, DeviceStep::Create(_)));
                all.fates[family] = fate;
                if !fate.is_off() && !is_held {
                    all.is_right[family] = Some(diff.steps.is_empty());
                    all.steps.extend(diff.steps.into_iter().map(|step| Step::Device(family, step)));
                }
            }
            Ok(diff) => {
                let index = device.map_or(0, |device| device.index);
                if held[family] && !diff.steps.is_empty() {
                    all.fates[family] =
                        if diff.is_created { DeviceFate::Off } else { DeviceFate::Kept(index) };
                    continue;
                }
                all.fates[family] = match (diff.is_created, diff.loses_neighbors) {
                    (true, _) => DeviceFate::Recreated(index),
                    (false, true) => DeviceFate::LosesNeighbors(index),
                    (false, false) => DeviceFate::Kept(index),
                };
                all.is_right[family] = Some(diff.steps.is_empty());
                all.steps.extend(diff.steps.into_iter().map(|step| Step::Device(family, step)));
            }
            Err(taken) if all.taken.contains(&taken) => {} // both families share the device
            Err(taken) => all.taken.push(taken),
        }
    }
    all
}

/// The ordered steps that turn one device into its desired state.
#[derive(Debug)]
pub(crate) struct DeviceDiff {
    pub(crate) steps: Vec<DeviceStep>,
    /// Whether the device is created or recreated: it will have no neighbor entries, FDB entries, nexthops and routes.
    is_created: bool,
    /// Whether the MAC address changes, after which the kernel drops neighbor entries (`neigh_changeaddr`,
    /// net/core/neighbour.c).
    loses_neighbors: bool,
}

/// Compares one device with `spec`.
///
/// Changed in place: everything of WireGuard; name, MAC, MTU, local address, underlay, learning, options with
/// [`resettable_options_differ`](crate::ObservedVxlan::resettable_options_differ), master, state, addresses, sysctl,
/// offload. The kernel refuses to change port, GBP, options with
/// [`fixed_options_differ`](crate::ObservedVxlan::fixed_options_differ) (`vxlan_nl2conf`,
/// drivers/net/vxlan/vxlan_core.c) and the family of the local address. Whether it refuses anything else is found by
/// trying; `recreate` is true if it did.
pub(crate) fn diff_device(
    spec: &DeviceSpec,
    networks: &[IpNet],
    observed: Option<&ObservedDevice>,
    recreate: bool,
) -> Result<DeviceDiff, NameTaken> {
    let Some(device) = observed else { return Ok(DeviceDiff::created(spec, Vec::new())) };
    let options = match (&spec.kind, &device.kind) {
        (DeviceKind::Vxlan(vxlan), ObservedKind::Vxlan(found)) if found.vni == vxlan.vni.number() => {
            diff_vxlan(spec, vxlan, found)
        }
        (DeviceKind::Ipip(ipip), ObservedKind::Ipip(found)) => diff_ipip(spec, *ipip, found),
        (DeviceKind::Wireguard(wireguard), ObservedKind::Wireguard(found)) => {
            Some(diff_wireguard(wireguard, found.as_ref()))
        }
        (wanted, found) => {
            let is_vxlan_wanted = matches!(wanted, DeviceKind::Vxlan(_));
            return Err(NameTaken { name: spec.name, what: found.to_string(), is_vxlan_wanted });
        }
    };
    let rename = (device.name != spec.name).then_some(device.name).map(DeviceStep::Rename);
    let options = options.filter(|options| options.is_empty() || !recreate);
    let Some(mut options) = options else { return Ok(DeviceDiff::recreated(spec, rename)) };

    let mut steps = Vec::new();
    steps.extend(rename);
    steps.append(&mut options);
    if device.master != 0 {
        steps.push(DeviceStep::Release);
    }
    let mac = spec.mac().filter(|mac| device.mac != Some(*mac));
    steps.extend(mac.map(DeviceStep::SetMac));
    if device.mtu != spec.mtu.bytes() {
        steps.push(DeviceStep::SetMtu(spec.mtu));
    }
    if device.accept_ra == Some(true) {
        steps.push(DeviceStep::IgnoreRouterAdvertisements);
    }
    let tx_checksum = spec.tx_checksum().filter(|wanted| device.tx_checksum != Some(*wanted));
    steps.extend(tx_checksum.map(DeviceStep::SetTxChecksum));
    if !device.up {
        steps.push(DeviceStep::Up);
    }
    let own = (spec.address, spec.family().bits());
    let missing = (!device.addresses.contains(&own)).then_some(DeviceStep::AddAddress(spec.address));
    let stray = |found: &&(IpAddr, u8)| **found != own && is_stray(spec.family(), networks, found.0);
    let strays = device.addresses.iter().filter(stray).map(|(a, p)| DeviceStep::DeleteAddress(*a, *p));
    match spec.family() {
        // An interface that loses its last IPv4 address loses its routes (`fib_disable_ip`, net/ipv4/fib_frontend.c).
        Family::V4 => steps.extend(missing.into_iter().chain(strays)),
        // The kernel refuses the same IPv6 address with a second prefix length.
        Family::V6 => steps.extend(strays.chain(missing)),
    }
    Ok(DeviceDiff { steps, is_created: false, loses_neighbors: mac.is_some() })
}

/// The steps that change the VXLAN options in place; `None` if the device has to be recreated.
fn diff_vxlan(spec: &DeviceSpec, vxlan: &VxlanSpec, found: &ObservedVxlan) -> Option<Vec<DeviceStep>> {
    let same_family = found.local.is_none_or(|local| Family::of(local) == spec.family());
    if found.port != vxlan.port.get() || found.gbp != vxlan.gbp || found.fixed_options_differ || !same_family
    {
        return None;
    }
    let mut steps = Vec::new();
    let differs = found.underlay != spec.underlay.index
        || found.local != Some(spec.local)
        || found.learning != vxlan.learning;
    if differs {
        steps.push(DeviceStep::Change(Box::new(spec.clone())));
    }
    if found.resettable_options_differ {
        steps.push(DeviceStep::ResetOptions(vxlan.vni));
    }
    Some(steps)
}

/// Whether an address that is not the device's own is removed, as upstream flannel does (`EnsureV4AddressOnLink`,
/// `EnsureV6AddressOnLink`): from an IPv4 device an earlier address of this node, which lies in the cluster's networks;
/// from an IPv6 device every address that is not link-local.
fn is_stray(device: Family, networks: &[IpNet], address: IpAddr) -> bool {
    match (device, address) {
        (Family::V6, IpAddr::V6(address)) => !address.is_unicast_link_local(),
        _ => networks.iter().any(|network| network.contains(&address)),
    }
}

/// The steps that change the IP-in-IP options in place; `None` if the device has to be recreated.
fn diff_ipip(spec: &DeviceSpec, ipip: IpipSpec, found: &ObservedIpip) -> Option<Vec<DeviceStep>> {
    if found.fixed_options_differ {
        return None;
    }
    let mut steps = Vec::new();
    if let Some(port) =
        ipip.fou.filter(|port| found.fou_receives == Some(false) || found.fou != Some(port.get()))
    {
        steps.push(DeviceStep::PutFouPort(port));
    }
    let differs = found.underlay != ipip.link(spec.underlay)
        || found.local.map(IpAddr::from) != Some(spec.local)
        || found.fou != ipip.fou.map(NonZeroU16::get)
        || found.resettable_options_differ;
    if differs {
        steps.push(DeviceStep::Change(Box::new(spec.clone())));
    }
    let former = found
        .fou
        .filter(|port| found.fou_receives == Some(true) && ipip.fou.map(NonZeroU16::get) != Some(*port));
    steps.extend(former.map(DeviceStep::DeleteFouPort));
    Some(steps)
}

/// The steps that change the WireGuard options. `None`: they were not read.
fn diff_wireguard(wireguard: &WireguardSpec, found: Option<&ObservedWireguard>) -> Vec<DeviceStep> {
    let differs = found.is_some_and(|found| {
        found.private_key != Some(wireguard.private_key)
            || (found.port, found.fwmark) != (wireguard.port.get(), 0)
    });
    differs.then(|| DeviceStep::SetWireguard(Box::new(*wireguard))).into_iter().collect()
}

impl DeviceDiff {
    fn recreated(spec: &DeviceSpec, rename: Option<DeviceStep>) -> Self {
        Self::created(spec, rename.into_iter().chain([DeviceStep::Delete]).collect())
    }

    /// `steps` precede the creation.
    fn created(spec: &DeviceSpec, mut steps: Vec<DeviceStep>) -> Self {
        if let DeviceKind::Ipip(IpipSpec { fou: Some(port), .. }) = spec.kind {
            steps.push(DeviceStep::PutFouPort(port));
        }
        steps.push(DeviceStep::Create(Box::new(spec.clone())));
        if let DeviceKind::Wireguard(wireguard) = spec.kind {
            steps.push(DeviceStep::SetWireguard(Box::new(wireguard)));
        }
        // Before the device is up: the first router advertisement could arrive immediately.
        steps.push(DeviceStep::IgnoreRouterAdvertisements);
        steps.extend(spec.tx_checksum().map(DeviceStep::SetTxChecksum));
        steps.push(DeviceStep::Up);
        steps.push(DeviceStep::AddAddress(spec.address));
        Self { steps, is_created: true, loses_neighbors: true }
    }
}
