//! The VXLAN device: what it should be, what it is, and which differences need it to be made anew.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use crate::plan::DeviceStep;
use crate::{Family, IfName, MacAddr, OverlayMtu, Vni};

/// An interface of the physical network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Name; what a printed plan shows.
    pub name: IfName,
}

/// A VXLAN device as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceSpec {
    /// Its name: `flannel.<VNI>`, `flannel-v6.<VNI>`.
    pub name: IfName,
    /// The network it belongs to.
    pub vni: Vni,
    /// Where it sends and receives.
    pub underlay: Link,
    /// Source of the outer packets: an address of `underlay`. Its family is the overlay's.
    pub local: IpAddr,
    /// The only address it has, with a full-length prefix: the first of this node's subnet.
    pub address: IpAddr,
    /// MAC address: what peers have in their neighbor tables.
    pub mac: MacAddr,
    /// Largest packet of the overlay.
    pub mtu: OverlayMtu,
    /// UDP destination port. Default: [`DeviceSpec::PORT`].
    pub port: NonZeroU16,
    /// Whether it learns addresses from received frames. Default: no.
    pub learning: bool,
    /// Whether it carries the group policy extension. Default: no.
    pub gbp: bool,
    /// Whether it leaves checksums of inner packets to the network card. Default: what the kernel does.
    pub tx_checksum: Option<bool>,
}

impl DeviceSpec {
    /// The UDP port without another choice: 8472, which Linux used before IANA assigned 4789.
    pub const PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(8471);

    /// A device with upstream's name and defaults.
    #[must_use]
    pub fn new(
        vni: Vni,
        underlay: Link,
        local: IpAddr,
        address: IpAddr,
        mac: MacAddr,
        mtu: OverlayMtu,
    ) -> Self {
        Self {
            name: vni.device_name(Family::of(local)),
            vni,
            underlay,
            local,
            address,
            mac,
            mtu,
            port: Self::PORT,
            learning: false,
            gbp: false,
            tx_checksum: None,
        }
    }

    /// UDP destination port. Default: [`DeviceSpec::PORT`]. Asked for 0 the kernel takes 8472, and says so.
    #[must_use]
    pub fn port(mut self, port: NonZeroU16) -> Self {
        self.port = port;
        self
    }

    /// Whether it learns addresses from received frames. Default: no.
    #[must_use]
    pub fn learning(mut self, learning: bool) -> Self {
        self.learning = learning;
        self
    }

    /// Whether frames carry a group policy (`VXLAN_F_GBP`). Default: no. Fixed when the device is made.
    #[must_use]
    pub fn gbp(mut self, gbp: bool) -> Self {
        self.gbp = gbp;
        self
    }

    /// Whether checksums of inner packets are left to the network card (`tx-checksum-ip-generic`). `None`, the
    /// default, leaves it as it is. Behind NAT some cards and kernels get them wrong; turning it off helps.
    #[must_use]
    pub fn tx_checksum(mut self, offload: Option<bool>) -> Self {
        self.tx_checksum = offload;
        self
    }

    /// Family of the overlay and of its underlay.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.local)
    }
}

/// What was found under the name of a [`DeviceSpec`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObservedDevice {
    /// Its name.
    pub name: IfName,
    /// Kernel index.
    pub index: u32,
    /// `IFF_UP`.
    pub up: bool,
    /// MAC address; `None` if it has none that is fit for a station.
    pub mac: Option<MacAddr>,
    /// MTU, in bytes.
    pub mtu: u32,
    /// The kind of device (`IFLA_INFO_KIND`), e.g. `vxlan`; empty for hardware.
    pub kind: String,
    /// The VXLAN part; `None` if it is of another kind.
    pub vxlan: Option<ObservedVxlan>,
    /// Its addresses with their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether it obeys router advertisements; `None` without IPv6, or if that cannot be changed.
    pub accept_ra: Option<bool>,
    /// Whether checksums are left to the network card; `None` if that cannot be read or was not asked for.
    pub tx_checksum: Option<bool>,
    /// Index of the bridge, VRF or other device that it is a port of (`IFLA_MASTER`); 0 if of none.
    pub master: u32,
}

/// The VXLAN part of an [`ObservedDevice`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ObservedVxlan {
    /// `IFLA_VXLAN_ID`.
    pub vni: u32,
    /// `IFLA_VXLAN_LINK`; 0 if not bound to an interface.
    pub underlay: u32,
    /// `IFLA_VXLAN_LOCAL` or `IFLA_VXLAN_LOCAL6`.
    pub local: Option<IpAddr>,
    /// `IFLA_VXLAN_PORT`.
    pub port: u16,
    /// `IFLA_VXLAN_LEARNING`.
    pub learning: bool,
    /// `IFLA_VXLAN_GBP`.
    pub gbp: bool,
    /// Whether an option that our devices leave as it is by default, and that can be changed, is another: TTL, TOS, DF,
    /// flow label, ageing time, local bypass.
    pub resettable_options_differ: bool,
    /// Whether it has what our devices never have and that cannot be changed: a default destination, a proxy, route
    /// short-circuit, misses reported, external control, GPE, a VNI filter, a limit of addresses, a range of source ports,
    /// an inherited TTL, remote checksums, or UDP checksums other than by default.
    pub fixed_options_differ: bool,
}

/// A device of our name that is not ours to change.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{name} exists and is {what}, which this program does not touch: remove or rename it, or choose another VNI"
)]
pub struct NameTaken {
    /// The name.
    pub name: IfName,
    /// What it is.
    pub what: String,
}

/// Steps that turn `observed` into `spec`, in order, and whether everything on the device is lost by them.
///
/// Changed in place: name, MAC, MTU, local address, underlay, learning, [`ObservedVxlan::resettable_options_differ`], master, state, addresses,
/// sysctl, offload. The kernel refuses that for port, GBP and [`ObservedVxlan::fixed_options_differ`] (`vxlan_nl2conf`,
/// drivers/net/vxlan/vxlan_core.c), and for a local address of another family. What else it refuses is found by trying:
/// with `anew` the device is made anew instead of being changed.
pub(crate) fn diff(
    spec: &DeviceSpec,
    networks: &[IpNet],
    observed: Option<&ObservedDevice>,
    anew: bool,
) -> Result<DeviceDiff, NameTaken> {
    let Some(device) = observed else { return Ok(DeviceDiff::made(spec, Vec::new())) };
    let taken = |what| NameTaken { name: spec.name, what };
    let vxlan = match device.vxlan {
        Some(vxlan) if vxlan.vni == spec.vni.number() => vxlan,
        Some(vxlan) => return Err(taken(format!("a VXLAN device with VNI {}", vxlan.vni))),
        None if device.kind.is_empty() => return Err(taken("not a virtual device".to_owned())),
        None => return Err(taken(format!("a device of kind {}", device.kind))),
    };
    let renamed = (device.name != spec.name).then_some(device.name).map(DeviceStep::Rename);
    let same_family = vxlan.local.is_none_or(|local| Family::of(local) == spec.family());
    if vxlan.port != spec.port.get() || vxlan.gbp != spec.gbp || vxlan.fixed_options_differ || !same_family {
        return Ok(DeviceDiff::made_anew(spec, renamed));
    }

    let mut steps = Vec::new();
    let differs = vxlan.underlay != spec.underlay.index
        || vxlan.local != Some(spec.local)
        || vxlan.learning != spec.learning;
    if (differs || vxlan.resettable_options_differ) && anew {
        return Ok(DeviceDiff::made_anew(spec, renamed));
    }
    steps.extend(renamed);
    if differs {
        steps.push(DeviceStep::Change(Box::new(spec.clone())));
    }
    if vxlan.resettable_options_differ {
        steps.push(DeviceStep::ResetOptions(spec.vni));
    }
    if device.master != 0 {
        steps.push(DeviceStep::Release);
    }
    if device.mac != Some(spec.mac) {
        steps.push(DeviceStep::SetMac(spec.mac));
    }
    if device.mtu != spec.mtu.bytes() {
        steps.push(DeviceStep::SetMtu(spec.mtu));
    }
    if device.accept_ra == Some(true) {
        steps.push(DeviceStep::IgnoreRouterAdvertisements);
    }
    if spec.tx_checksum.is_some() && device.tx_checksum != spec.tx_checksum {
        steps.extend(spec.tx_checksum.map(DeviceStep::SetTxChecksum));
    }
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
        // The kernel refuses one IPv6 address with two prefix lengths.
        Family::V6 => steps.extend(strays.chain(missing)),
    }
    let flushed = device.mac != Some(spec.mac);
    Ok(DeviceDiff { steps, emptied: false, flushed })
}

/// Whether an address that is not the device's own is removed, as upstream does (`EnsureV4AddressOnLink`,
/// `EnsureV6AddressOnLink`): from an IPv4 device an earlier address of this node, which lies in the cluster's networks,
/// from an IPv6 device every address that is not link-local.
fn is_stray(device: Family, networks: &[IpNet], address: IpAddr) -> bool {
    match (device, address) {
        (Family::V6, IpAddr::V6(address)) => !address.is_unicast_link_local(),
        _ => networks.iter().any(|network| network.contains(&address)),
    }
}

/// What [`diff`] found.
#[derive(Debug)]
pub(crate) struct DeviceDiff {
    pub(crate) steps: Vec<DeviceStep>,
    /// The device is made or made anew: it will have no neighbors, FDB entries, nexthops or routes.
    pub(crate) emptied: bool,
    /// Its MAC address changes, whereupon the kernel drops its neighbors (`neigh_changeaddr`, net/core/neighbor.c).
    pub(crate) flushed: bool,
}

impl DeviceDiff {
    fn made_anew(spec: &DeviceSpec, renamed: Option<DeviceStep>) -> Self {
        Self::made(spec, renamed.into_iter().chain([DeviceStep::Delete]).collect())
    }

    /// `steps` come before.
    fn made(spec: &DeviceSpec, mut steps: Vec<DeviceStep>) -> Self {
        steps.push(DeviceStep::Create(Box::new(spec.clone())));
        // Before it is up: the first router advertisement could arrive right then.
        steps.push(DeviceStep::IgnoreRouterAdvertisements);
        steps.extend(spec.tx_checksum.map(DeviceStep::SetTxChecksum));
        steps.push(DeviceStep::Up);
        steps.push(DeviceStep::AddAddress(spec.address));
        Self { steps, emptied: true, flushed: true }
    }
}
