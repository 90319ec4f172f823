//! The devices of an overlay: their desired state, and what the kernel has.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::model::family::Family;
use crate::model::flannel_device::FlannelDevice;
use crate::model::if_name::IfName;
use crate::model::ipip::{IpipSpec, ObservedIpip};
use crate::model::mac::MacAddr;
use crate::model::mtu::OverlayMtu;
use crate::model::vxlan::{ObservedVxlan, VxlanSpec};
use crate::model::wireguard::{ObservedWireguard, WireguardSpec};
use crate::model::wireguard_key::PublicKey;

/// An interface of the physical network (an uplink).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Name, as shown by a printed plan.
    pub name: IfName,
}

/// The desired state of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceSpec {
    /// Name, as upstream flannel names this kind of device.
    pub name: IfName,
    /// The uplink that outer packets use.
    pub underlay: Link,
    /// Source address of outer packets: an address of `underlay`. Its family is the family of the overlay, except in
    /// WireGuard, where the kernel chooses the source address by its routes.
    pub local: IpAddr,
    /// The only address of the device in its family, with a full-length prefix: the first address of this node's subnet.
    pub address: IpAddr,
    /// Largest packet that the device accepts.
    pub mtu: OverlayMtu,
    /// The kind of device and its options.
    pub kind: DeviceKind,
}

/// The kinds of devices, with the options of each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// Packets are encapsulated in VXLAN. The kernel finds a peer by its MAC address.
    Vxlan(VxlanSpec),
    /// Packets are encapsulated in IPv4, and with FOU also in UDP. The kernel finds a peer by the gateway of its route.
    Ipip(IpipSpec),
    /// Packets are encrypted and encapsulated in UDP. The kernel finds a peer by its subnets.
    Wireguard(WireguardSpec),
}

impl From<WireguardSpec> for DeviceKind {
    fn from(wireguard: WireguardSpec) -> Self {
        Self::Wireguard(wireguard)
    }
}

impl From<IpipSpec> for DeviceKind {
    fn from(ipip: IpipSpec) -> Self {
        Self::Ipip(ipip)
    }
}

impl From<VxlanSpec> for DeviceKind {
    fn from(vxlan: VxlanSpec) -> Self {
        Self::Vxlan(vxlan)
    }
}

impl DeviceKind {
    /// The VXLAN options; `None` for another kind.
    #[must_use]
    pub fn vxlan(&self) -> Option<&VxlanSpec> {
        match self {
            Self::Vxlan(vxlan) => Some(vxlan),
            Self::Ipip(_) | Self::Wireguard(_) => None,
        }
    }

    /// The WireGuard options; `None` for another kind.
    #[must_use]
    pub fn wireguard(&self) -> Option<&WireguardSpec> {
        match self {
            Self::Wireguard(wireguard) => Some(wireguard),
            Self::Vxlan(_) | Self::Ipip(_) => None,
        }
    }

    /// UDP port at which the device receives; `None` without one. In VXLAN and FOU it also sends to this port.
    #[must_use]
    pub fn port(&self) -> Option<NonZeroU16> {
        match self {
            Self::Vxlan(vxlan) => Some(vxlan.port),
            Self::Ipip(ipip) => ipip.fou,
            Self::Wireguard(wireguard) => Some(wireguard.port),
        }
    }

    /// Which of flannel's devices this is.
    #[must_use]
    pub fn device(&self) -> FlannelDevice {
        match self {
            Self::Vxlan(vxlan) => FlannelDevice::Vxlan(vxlan.vni),
            Self::Ipip(IpipSpec { fou: None, .. }) => FlannelDevice::Ipip,
            Self::Ipip(IpipSpec { fou: Some(_), .. }) => FlannelDevice::Udp,
            Self::Wireguard(_) => FlannelDevice::Wireguard,
        }
    }
}

impl DeviceSpec {
    /// A device with the name that upstream flannel gives it.
    #[must_use]
    pub fn new(
        kind: impl Into<DeviceKind>,
        underlay: Link,
        local: IpAddr,
        address: IpAddr,
        mtu: OverlayMtu,
    ) -> Self {
        let kind = kind.into();
        let is_shared = kind.wireguard().is_some_and(|wireguard| wireguard.is_shared);
        let family = if is_shared { Family::V4 } else { Family::of(address) };
        Self { name: kind.device().name(family), underlay, local, address, mtu, kind }
    }

    /// Family of the overlay.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// MAC address that peers have in their neighbor entries; `None` for a device without one.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.kind.vxlan().map(|vxlan| vxlan.mac)
    }

    /// The public key of a WireGuard device.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        self.kind.wireguard().map(|wireguard| wireguard.public_key)
    }

    /// The desired checksum offload; `None`: unchanged.
    pub(crate) fn tx_checksum(&self) -> Option<bool> {
        match self.kind {
            DeviceKind::Vxlan(vxlan) => vxlan.tx_checksum,
            DeviceKind::Ipip(ipip) => ipip.tx_checksum,
            DeviceKind::Wireguard(_) => None,
        }
    }
}

/// What the kernel has under the name of a [`DeviceSpec`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObservedDevice {
    /// Name.
    pub name: IfName,
    /// Kernel index.
    pub index: u32,
    /// `IFF_UP`.
    pub up: bool,
    /// MAC address; `None` if the device has none, or a group address.
    pub mac: Option<MacAddr>,
    /// MTU, in bytes.
    pub mtu: u32,
    /// The kind of device.
    pub kind: ObservedKind,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether the kernel accepts router advertisements on the device; `None` without IPv6, or if the sysctl is read-only.
    pub accept_ra: Option<bool>,
    /// Whether the network card computes checksums; `None` if unknown or not requested ([`Links`](crate::Links)).
    pub tx_checksum: Option<bool>,
    /// Index of the bridge, VRF or other device that the device is a port of (`IFLA_MASTER`); 0 if none.
    pub master: u32,
}

impl ObservedDevice {
    /// The VXLAN options; `None` for another kind of device.
    #[must_use]
    pub fn vxlan(&self) -> Option<&ObservedVxlan> {
        match &self.kind {
            ObservedKind::Vxlan(vxlan) => Some(vxlan),
            _ => None,
        }
    }

    /// The WireGuard options and peers; `None` for another kind of device, and in a notification.
    #[must_use]
    pub fn wireguard(&self) -> Option<&ObservedWireguard> {
        match &self.kind {
            ObservedKind::Wireguard(wireguard) => wireguard.as_ref(),
            _ => None,
        }
    }

    /// The IP-in-IP options; `None` for another kind of device.
    #[must_use]
    pub fn ipip(&self) -> Option<&ObservedIpip> {
        match &self.kind {
            ObservedKind::Ipip(ipip) => Some(ipip),
            _ => None,
        }
    }

    /// The device of flannel that this is, by its name and options, with the family of its overlay; `None` if it is none.
    #[must_use]
    pub fn flannel_device(&self) -> Option<(FlannelDevice, Family)> {
        let (device, family) = FlannelDevice::of_name(self.name.as_str())?;
        let is_it = match (device, &self.kind) {
            (FlannelDevice::Vxlan(vni), ObservedKind::Vxlan(found)) => found.vni == vni.number(),
            (FlannelDevice::Ipip, ObservedKind::Ipip(found)) => found.fou.is_none(),
            (FlannelDevice::Udp, ObservedKind::Ipip(found)) => found.fou.is_some(),
            (FlannelDevice::Wireguard, ObservedKind::Wireguard(_)) => true,
            _ => false,
        };
        is_it.then_some((device, family))
    }
}

/// The kind of an [`ObservedDevice`], with the options of the kinds that this crate knows.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ObservedKind {
    /// A VXLAN device.
    Vxlan(ObservedVxlan),
    /// An IP-in-IP device.
    Ipip(ObservedIpip),
    /// A WireGuard device. `None`: its options and peers were not read. A notification does not contain them.
    Wireguard(Option<ObservedWireguard>),
    /// Another kind (`IFLA_INFO_KIND`), e.g. `dummy`; empty for hardware.
    Other(String),
}

impl fmt::Display for ObservedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vxlan(vxlan) => write!(f, "a VXLAN device with VNI {}", vxlan.vni),
            Self::Ipip(ObservedIpip { fou: None, .. }) => f.write_str("an ipip device"),
            Self::Ipip(ObservedIpip { fou: Some(port), .. }) => {
                write!(f, "an ipip device with FOU at port {port}")
            }
            Self::Wireguard(_) => f.write_str("a WireGuard device"),
            Self::Other(kind) if kind.is_empty() => f.write_str("not a virtual device"),
            Self::Other(kind) => write!(f, "a device of kind {kind}"),
        }
    }
}

/// A device of another program has the name of the desired device. Nothing of its family is written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "device {name} exists and is {what}: remove or rename it{}; until then the overlay has no device of this name and does not reach its peers",
    if *.is_vxlan_wanted { ", or choose another VNI" } else { "" }
)]
#[non_exhaustive]
pub struct NameTaken {
    /// The name.
    pub name: IfName,
    /// What it is, e.g. `a device of kind dummy`.
    pub what: String,
    /// Whether the desired device is a VXLAN device, so that another VNI gives it another name.
    pub is_vxlan_wanted: bool,
}
