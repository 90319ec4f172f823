//! Single changes to the kernel.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;

use crate::model::device::DeviceSpec;
use crate::model::family::Family;
use crate::model::if_name::IfName;
use crate::model::mac::MacAddr;
use crate::model::mtu::OverlayMtu;
use crate::model::objects::{FdbEntry, Neighbor, Nexthop, Route};
use crate::model::vni::Vni;
use crate::model::wireguard::{WireguardPeer, WireguardSpec};
use crate::model::wireguard_key::PublicKey;

/// The kernel's default ageing time of learned FDB entries, `FDB_AGE_DEFAULT` (drivers/net/vxlan/vxlan_core.c).
pub(crate) const DEFAULT_AGEING_SECONDS: u32 = 300;

/// One change to the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Change the device of this family.
    Device(Family, DeviceStep),
    /// Create or replace an FDB entry.
    PutFdbEntry(FdbEntry),
    /// Create or replace a neighbor entry.
    PutNeighbor(Neighbor),
    /// Create a nexthop object, or replace this crate's. If another program uses the ID, the kernel refuses the step
    /// (`EEXIST`).
    PutNexthop {
        /// The object.
        nexthop: Nexthop,
        /// Whether this crate's object is known to exist.
        replace: bool,
    },
    /// Create a route, or replace this crate's or upstream flannel's. If another program has such a route, the kernel
    /// refuses the step (`EEXIST`).
    PutRoute {
        /// The route.
        route: Route,
        /// Whether this crate's or upstream flannel's route is known to exist.
        replace: bool,
    },
    /// Delete a route.
    DeleteRoute {
        /// Destination.
        subnet: IpNet,
        /// Metric.
        metric: u32,
        /// Protocol: this crate's, or `boot` (3) for a route of upstream flannel.
        protocol: u8,
    },
    /// Delete a nexthop object and the routes that still use it.
    DeleteNexthop {
        /// ID.
        id: u32,
    },
    /// Delete a neighbor entry of the VXLAN device.
    DeleteNeighbor {
        /// Address.
        address: IpAddr,
    },
    /// Delete an FDB entry.
    DeleteFdbEntry(FdbEntry),
    /// Create or change a peer of the WireGuard device of this family.
    PutWireguardPeer(Family, Box<WireguardPeer>),
    /// Delete a peer of the WireGuard device of this family.
    DeleteWireguardPeer(Family, PublicKey),
}

impl Step {
    /// Whether the step deletes something other than a device.
    pub(crate) fn is_delete(&self) -> bool {
        matches!(
            self,
            Self::DeleteFdbEntry(_)
                | Self::DeleteNeighbor { .. }
                | Self::DeleteNexthop { .. }
                | Self::DeleteRoute { .. }
                | Self::DeleteWireguardPeer(..)
        )
    }
}

/// A change to a device.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeviceStep {
    /// Delete the device.
    Delete,
    /// Create the device.
    Create(Box<DeviceSpec>),
    /// Set private key and port of a WireGuard device, and remove its mark. Its peers stay.
    SetWireguard(Box<WireguardSpec>),
    /// Change in place: in VXLAN local address, underlay and learning; in IP-in-IP all options.
    Change(Box<DeviceSpec>),
    /// Rename the device from this name, which another program gave it, back to its own.
    Rename(IfName),
    /// Reset the options of [`resettable_options_differ`](crate::ObservedVxlan::resettable_options_differ) in place. The
    /// VNI is the device's own.
    ResetOptions(Vni),
    /// Remove the device from the bridge, VRF or other device that it is a port of.
    Release,
    /// Set the MAC address.
    SetMac(MacAddr),
    /// Set the MTU.
    SetMtu(OverlayMtu),
    /// Ignore router advertisements.
    IgnoreRouterAdvertisements,
    /// Turn checksum offload on or off.
    SetTxChecksum(bool),
    /// Set the device up.
    Up,
    /// Add an address with a full-length prefix.
    AddAddress(IpAddr),
    /// Receive FOU datagrams with IP-in-IP packets at this UDP port. If another program uses the port, the kernel refuses
    /// the step (`EADDRINUSE`).
    PutFouPort(NonZeroU16),
    /// Stop receiving FOU datagrams at this UDP port.
    DeleteFouPort(u16),
    /// Delete an address with this prefix length.
    DeleteAddress(IpAddr, u8),
}
