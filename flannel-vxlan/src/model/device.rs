//! The VXLAN device: its desired state, and what the kernel has.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::model::family::Family;
use crate::model::if_name::IfName;
use crate::model::mac::MacAddr;
use crate::model::mtu::OverlayMtu;
use crate::model::vni::Vni;

/// An interface of the physical network (an uplink).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Name, as shown by a printed plan.
    pub name: IfName,
}

/// The desired state of a VXLAN device.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceSpec {
    /// Name: `flannel.<VNI>` or `flannel-v6.<VNI>`.
    pub name: IfName,
    /// Identifier of the overlay network.
    pub vni: Vni,
    /// The uplink that outer packets use.
    pub underlay: Link,
    /// Source address of outer packets: an address of `underlay`. Its family is the family of the overlay.
    pub local: IpAddr,
    /// The only address of the device, with a full-length prefix: the first address of this node's subnet.
    pub address: IpAddr,
    /// MAC address, which peers have in their neighbor entries.
    pub mac: MacAddr,
    /// Largest packet that the device accepts.
    pub mtu: OverlayMtu,
    /// UDP destination port. Default: [`DeviceSpec::PORT`].
    pub port: NonZeroU16,
    /// Whether the kernel learns FDB entries from received frames. Default: no.
    pub learning: bool,
    /// Whether frames carry the group policy extension. Default: no.
    pub gbp: bool,
    /// Whether the network card computes the checksums of inner packets. Default: unchanged.
    pub tx_checksum: Option<bool>,
}

impl DeviceSpec {
    /// The default UDP port: 8472, which Linux used before IANA assigned 4789.
    pub const PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(8471);

    /// A device with the name and defaults of upstream flannel.
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

    /// Sets the UDP destination port. Default: [`DeviceSpec::PORT`].
    #[must_use]
    pub fn port(mut self, port: NonZeroU16) -> Self {
        self.port = port;
        self
    }

    /// Sets whether the kernel learns FDB entries from received frames. Default: no.
    #[must_use]
    pub fn learning(mut self, learning: bool) -> Self {
        self.learning = learning;
        self
    }

    /// Sets whether frames carry a group policy (`VXLAN_F_GBP`). Default: no. A change recreates the device.
    #[must_use]
    pub fn gbp(mut self, gbp: bool) -> Self {
        self.gbp = gbp;
        self
    }

    /// Sets whether the network card computes the checksums of inner packets (`tx-checksum-ip-generic`). Default:
    /// `None`, unchanged. Turn it off if packets behind NAT have wrong checksums, as with some cards and kernels.
    #[must_use]
    pub fn tx_checksum(mut self, offload: Option<bool>) -> Self {
        self.tx_checksum = offload;
        self
    }

    /// Family of the overlay and of its uplink address.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.local)
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
    /// Kind of device (`IFLA_INFO_KIND`), e.g. `vxlan`; empty for hardware.
    pub kind: String,
    /// VXLAN options; `None` for another kind of device.
    pub vxlan: Option<ObservedVxlan>,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether the kernel accepts router advertisements on the device; `None` without IPv6, or if the sysctl is read-only.
    pub accept_ra: Option<bool>,
    /// Whether the network card computes checksums; `None` if unknown or not requested ([`Links`](crate::Links)).
    pub tx_checksum: Option<bool>,
    /// Index of the bridge, VRF or other device that the device is a port of (`IFLA_MASTER`); 0 if none.
    pub master: u32,
}

/// The VXLAN options of an [`ObservedDevice`].
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
    /// Whether an option that can be reset in place differs from the kernel's default: TTL, TOS, DF, flow label, ageing
    /// time, local bypass.
    pub resettable_options_differ: bool,
    /// Whether an option that cannot be changed in place differs from the kernel's default: default destination, proxy,
    /// route short-circuit, miss notifications, external control, GPE, VNI filter, address limit, source port range,
    /// inherited TTL, remote checksums, UDP checksums.
    pub fixed_options_differ: bool,
}

/// A device of another program has the name of the desired VXLAN device. Nothing of its family is written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{name} exists and is {what}: remove or rename it, or choose another VNI; until then there is no overlay of its \
     address family"
)]
pub struct NameTaken {
    /// The name.
    pub name: IfName,
    /// What it is, e.g. `a device of kind dummy`.
    pub what: String,
}
