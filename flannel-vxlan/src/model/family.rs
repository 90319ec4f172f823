//! One address family of the overlay as it should be.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

use crate::{DeviceSpec, Link, Links};

/// An address family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// That of a network.
    #[must_use]
    pub fn of_net(network: IpNet) -> Self {
        Self::of(network.network())
    }

    /// Bits of an address: 32 or 128.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One address family of the overlay, seen from this node.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FamilySpec {
    /// The physical network: where direct routes leave.
    pub underlay: Link,
    /// The addresses of this node's own pods.
    pub subnet: IpNet,
    /// The addresses of all pods of the cluster: what is ours to clean up inside, and where the subnets of peers have
    /// to be. Empty: anywhere.
    pub networks: Vec<IpNet>,
    /// The VXLAN device. Default: none; all peers are direct (`host-gw`).
    pub device: Option<DeviceSpec>,
    /// Whether packets for pods of this node that do not exist are dropped here instead of following the default
    /// route. Default: no. Any other route to the subnet wins over it.
    pub blackhole: bool,
}

impl FamilySpec {
    /// A family without a VXLAN device and without a blackhole route.
    #[must_use]
    pub fn new(underlay: Link, subnet: IpNet, networks: Vec<IpNet>) -> Self {
        Self { underlay, subnet: subnet.trunc(), networks, device: None, blackhole: false }
    }

    /// The VXLAN device. Default: none.
    #[must_use]
    pub fn device(mut self, device: DeviceSpec) -> Self {
        self.device = Some(device);
        self
    }

    /// Whether packets for pods of this node that do not exist are dropped here. Default: no.
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

    /// Whether pods of the cluster may be here: inside one of [`FamilySpec::networks`], or anywhere if there are none.
    pub(crate) fn may_hold(&self, net: IpNet) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&net))
    }

    pub(crate) fn links(&self) -> Links {
        let device = self.device.as_ref();
        Links {
            device: device.map(|device| device.name),
            underlay: self.underlay,
            networks: around(self.subnet, &self.networks),
            tx_checksum: device.is_some_and(|device| device.tx_checksum.is_some()),
            identity: device.map(|device| (device.vni, device.mac)),
        }
    }
}

/// The smallest network that holds all of these; everything if there are none. `of` is of the same family.
fn around(of: IpNet, networks: &[IpNet]) -> IpNet {
    let everything = || IpNet::new(of.addr(), 0).map_or(of, |all| all.trunc());
    let Some((first, others)) = networks.split_first() else { return everything() };
    others.iter().fold(*first, |around, other| {
        let mut around = around;
        while !around.contains(other) {
            let Some(wider) = around.supernet() else { return everything() };
            around = wider;
        }
        around
    })
}
