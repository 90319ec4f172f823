//! The desired state of one address family, and the interfaces to observe for it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::device::{DeviceKind, DeviceSpec, Link, ObservedDevice, ObservedKind};
use crate::model::family::{Family, PerFamily};
use crate::model::if_name::IfName;
use crate::model::mac::MacAddr;
use crate::model::objects::{Route, RouteTo};
use crate::model::vni::Vni;
use crate::model::wireguard_key::PublicKey;

/// One address family of the overlay, as this node sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FamilySpec {
    /// The uplink: direct routes leave through it.
    pub underlay: Link,
    /// The subnet of this node's pods.
    pub subnet: IpNet,
    /// The networks of all pods of the cluster. The subnets of peers must lie inside; stale routes and neighbor entries
    /// inside are removed. Empty: no restriction, but with a WireGuard device no peer is programmed, because the routes to
    /// that device are those of the networks.
    pub networks: Vec<IpNet>,
    /// The tunnel device. Default: none; all peers are direct (`host-gw`).
    pub device: Option<DeviceSpec>,
    /// Whether the kernel drops packets for nonexistent pods of this node, instead of sending them along the default
    /// route. Default: no. Every other route to the subnet takes precedence.
    pub blackhole: bool,
}

impl FamilySpec {
    /// A family without a tunnel device and without a blackhole route.
    #[must_use]
    pub fn new(underlay: Link, subnet: IpNet, networks: Vec<IpNet>) -> Self {
        Self { underlay, subnet: subnet.trunc(), networks, device: None, blackhole: false }
    }

    /// Sets the tunnel device. Default: none.
    #[must_use]
    pub fn device(mut self, device: DeviceSpec) -> Self {
        self.device = Some(device);
        self
    }

    /// Sets whether packets for nonexistent pods of this node are dropped. Default: no.
    #[must_use]
    pub fn blackhole(mut self, blackhole: bool) -> Self {
        self.blackhole = blackhole;
        self
    }

    /// Family of the subnet.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of_net(self.subnet)
    }

    /// Whether pods may have addresses in `net`: it lies inside one of [`FamilySpec::networks`], or there are none.
    pub(crate) fn may_hold_pods(&self, net: IpNet) -> bool {
        let is_unrestricted = self.networks.is_empty() && !self.has_wireguard();
        is_unrestricted || self.networks.iter().any(|network| network.contains(&net))
    }

    pub(crate) fn has_wireguard(&self) -> bool {
        self.device.as_ref().is_some_and(|device| device.kind.wireguard().is_some())
    }

    /// The routes of the networks to a WireGuard device. Pod traffic takes them also while its peer is missing.
    pub(crate) fn network_routes(&self) -> impl Iterator<Item = Route> {
        let networks = self.networks.iter().filter(|_| self.has_wireguard());
        networks.map(|network| Route { subnet: network.trunc(), to: RouteTo::Device })
    }

    /// Whether `net` could be the subnet of a peer: pods may have addresses there, and it is not part of this node's
    /// own subnet.
    pub(crate) fn may_be_peer_subnet(&self, net: IpNet) -> bool {
        !self.subnet.contains(&net) && self.may_hold_pods(net)
    }

    pub(crate) fn links(&self) -> Links {
        let device = self.device.as_ref();
        Links {
            device: device.map(|device| device.name),
            underlay: self.underlay,
            networks: smallest_supernet(self.subnet, &self.networks),
            tx_checksum: device.is_some_and(|device| device.tx_checksum().is_some()),
            identity: device.map(Identity::of),
        }
    }
}

impl PerFamily<Option<FamilySpec>> {
    /// The families that there are.
    pub(crate) fn specs(&self) -> impl Iterator<Item = &FamilySpec> {
        self.iter().filter_map(|(_, spec)| spec.as_ref())
    }

    pub(crate) fn is_underlay(&self, index: u32) -> bool {
        self.specs().any(|spec| spec.underlay.index == index)
    }

    /// The family whose index stands for the device of `family`: IPv4 if one WireGuard device carries both.
    pub(crate) fn device_owner(&self, family: Family) -> Family {
        let name = |family: Family| self[family].as_ref()?.device.as_ref().map(|device| device.name);
        if name(family).is_some() && name(family) == name(Family::V4) { Family::V4 } else { family }
    }

    /// Whether this is the name of a desired tunnel device.
    pub(crate) fn is_device(&self, name: &str) -> bool {
        self.specs().filter_map(|spec| spec.device.as_ref()).any(|device| device.name.as_str() == name)
    }
}

/// The interfaces to observe for one family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Links {
    /// Name of the tunnel device; `None` if there is none (`host-gw`).
    pub device: Option<IfName>,
    /// The uplink.
    pub underlay: Link,
    /// Routes of other programs are read only inside this network, which contains the cluster's pod networks.
    pub networks: IpNet,
    /// Whether to read the checksum offload of the device, which takes two more requests.
    pub tx_checksum: bool,
    /// Identifies the device after another program renamed it. `None`: only the name identifies it.
    pub identity: Option<Identity>,
}

/// What identifies a device apart from its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Identity {
    /// A VXLAN device with this VNI and MAC address.
    Vxlan(Vni, MacAddr),
    /// An IP-in-IP device without a remote address, and with this local address and link: the kernel has only one. The
    /// address tells it from a device that another program made.
    Ipip {
        /// Source address of outer packets.
        local: IpAddr,
        /// Index of the interface that the device is bound to; 0 for none.
        link: u32,
        /// The address of the device.
        address: IpAddr,
    },
    /// A WireGuard device with the private key of this public key, and with this address.
    Wireguard {
        /// The public key.
        key: PublicKey,
        /// An address of the device.
        address: IpAddr,
    },
}

impl Identity {
    fn of(device: &DeviceSpec) -> Self {
        match &device.kind {
            DeviceKind::Vxlan(vxlan) => Self::Vxlan(vxlan.vni, vxlan.mac),
            DeviceKind::Ipip(ipip) => {
                Self::Ipip { local: device.local, link: ipip.link(device.underlay), address: device.address }
            }
            DeviceKind::Wireguard(wireguard) => {
                Self::Wireguard { key: wireguard.public_key, address: device.address }
            }
        }
    }
}

impl Links {
    /// Only the device of this name, to be inspected or removed: no underlay, and no routes of other programs.
    #[must_use]
    pub fn of(device: IfName, family: Family) -> Self {
        let no_routes = match family {
            Family::V4 => IpNet::from(IpAddr::from([0; 4])),
            Family::V6 => IpNet::from(IpAddr::from([0; 16])),
        };
        Self {
            device: Some(device),
            underlay: Link { index: 0, name: device },
            networks: no_routes,
            tx_checksum: false,
            identity: None,
        }
    }

    /// Whether this WireGuard device can be ours: it has our name, or our address under another name. The keys and peers of
    /// other WireGuard devices are not read.
    pub(crate) fn may_be_wireguard(&self, found: &ObservedDevice) -> bool {
        let is_renamed = match self.identity {
            Some(Identity::Wireguard { address, .. }) => has_address(found, address),
            _ => false,
        };
        self.device == Some(found.name) || is_renamed
    }

    /// Whether this is the device under another name.
    pub(crate) fn is_renamed(&self, found: &ObservedDevice) -> bool {
        let has_address = |address| has_address(found, address);
        let is_it = match (&found.kind, self.identity) {
            (ObservedKind::Vxlan(vxlan), Some(Identity::Vxlan(vni, mac))) => {
                let family = vxlan.local.map(Family::of);
                (vxlan.vni, found.mac) == (vni.number(), Some(mac))
                    && family == Some(Family::of_net(self.networks))
            }
            (ObservedKind::Ipip(ipip), Some(Identity::Ipip { local, link, address })) => {
                has_address(address)
                    && (ipip.local.map(IpAddr::from), ipip.underlay, ipip.fixed_options_differ)
                        == (Some(local), link, false)
            }
            (ObservedKind::Wireguard(Some(wireguard)), Some(Identity::Wireguard { key, address })) => {
                has_address(address) && wireguard.private_key.is_some_and(|private| private.public() == key)
            }
            _ => false,
        };
        is_it && self.device != Some(found.name)
    }
}

fn has_address(device: &ObservedDevice, address: IpAddr) -> bool {
    device.addresses.iter().any(|(found, _)| *found == address)
}

/// The smallest network that contains all `networks`; the whole family of `subnet` if there are none.
fn smallest_supernet(subnet: IpNet, networks: &[IpNet]) -> IpNet {
    let everything = || IpNet::new(subnet.addr(), 0).map_or(subnet, |all| all.trunc());
    let Some((first, others)) = networks.split_first() else { return everything() };
    others.iter().fold(*first, |supernet, other| {
        let mut supernet = supernet;
        while !supernet.contains(other) {
            let Some(wider) = supernet.supernet() else { return everything() };
            supernet = wider;
        }
        supernet
    })
}
