//! A lease: the subnet of a node, and how the other nodes reach it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use crate::{BackendData, LeaseKey};

/// How packets for a node's pods travel, as the node itself published it in `BackendType`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum BackendType {
    /// Nothing published: upstream's `udp`, `alloc` and `tencent-vpc` backends.
    #[default]
    Unnamed,
    /// `extension`
    Extension,
    /// `host-gw`
    HostGw,
    /// `ipip`
    Ipip,
    /// `ipsec`
    Ipsec,
    /// `vxlan`
    Vxlan,
    /// `wireguard`
    Wireguard,
    /// Any other word.
    Other(Box<str>),
}

impl BackendType {
    /// The word in the store; empty for [`Self::Unnamed`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unnamed => "",
            Self::Extension => "extension",
            Self::HostGw => "host-gw",
            Self::Ipip => "ipip",
            Self::Ipsec => "ipsec",
            Self::Vxlan => "vxlan",
            Self::Wireguard => "wireguard",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for BackendType {
    fn from(name: &str) -> Self {
        match name {
            "" => Self::Unnamed,
            "extension" => Self::Extension,
            "host-gw" => Self::HostGw,
            "ipip" => Self::Ipip,
            "ipsec" => Self::Ipsec,
            "vxlan" => Self::Vxlan,
            "wireguard" => Self::Wireguard,
            other => Self::Other(other.into()),
        }
    }
}

/// What a node publishes with its lease: the whole protocol between peers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeaseAttributes {
    /// Address that peers send IPv4 pod traffic to; absent is `0.0.0.0` in the store.
    pub public_ip: Option<Ipv4Addr>,
    /// Address that peers send IPv6 pod traffic to.
    pub public_ipv6: Option<Ipv6Addr>,
    /// How the node is reached.
    pub backend_type: BackendType,
    /// What that backend needs to reach IPv4 pods, such as [`VxlanData`](crate::VxlanData).
    pub backend_data: Option<BackendData>,
    /// The same for IPv6 pods.
    pub backend_v6_data: Option<BackendData>,
}

impl LeaseAttributes {
    /// Whether both describe one node: the same public IPv4 address, or, if either has none, the same IPv6 address.
    #[must_use]
    pub fn same_node(&self, other: &Self) -> bool {
        match (self.public_ip, other.public_ip) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.public_ipv6.is_some() && self.public_ipv6 == other.public_ipv6,
        }
    }
}

/// A subnet, the node that holds it, and until when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The subnets.
    pub key: LeaseKey,
    /// How to reach their node.
    pub attributes: LeaseAttributes,
    /// When the lease ends unless renewed. `None`: a reservation, which never ends; or another node's lease, in a
    /// store that does not tell.
    pub expires: Option<SystemTime>,
}
