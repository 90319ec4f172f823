//! A lease: the subnet of a node, and how the other nodes reach it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use ipnet::IpNet;

use crate::codec::cut;
use crate::{BackendData, LeaseKey, VxlanData, WireguardData};

/// The backend that a node uses, as it publishes it in `BackendType`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum BackendType {
    /// No name published: upstream's backends `udp`, `alloc` and `tencent-vpc`.
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
    /// Any other name.
    Other(Box<str>),
}

impl BackendType {
    /// The name in the store; empty for [`Self::Unnamed`].
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

/// What a node publishes with its lease. Peers need nothing else to reach its pods.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeaseAttributes {
    /// Address to which peers send IPv4 pod traffic. `None` is `0.0.0.0` in the store.
    pub public_ip: Option<Ipv4Addr>,
    /// Address to which peers send IPv6 pod traffic.
    pub public_ipv6: Option<Ipv6Addr>,
    /// The node's backend.
    pub backend_type: BackendType,
    /// What the backend needs to reach IPv4 pods, such as [`VxlanData`](crate::VxlanData).
    pub backend_data: Option<BackendData>,
    /// What the backend needs to reach IPv6 pods.
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

    /// Whether both publish the same, non-empty backend data of a family. A VTEP MAC address or a public key identifies
    /// a node: peers reach only one of two nodes with the same data.
    #[must_use]
    pub fn publishes_data_of(&self, other: &Self) -> bool {
        let same = |a: &Option<BackendData>, b: &Option<BackendData>| a.is_some() && a == b;
        same(&self.backend_data, &other.backend_data) || same(&self.backend_v6_data, &other.backend_v6_data)
    }

    /// Whether both publish the same backend type and data.
    #[must_use]
    pub fn same_backend(&self, other: &Self) -> bool {
        let backend = |lease: &Self| {
            let Self { backend_type, backend_data, backend_v6_data, .. } = lease.clone();
            (backend_type, backend_data, backend_v6_data)
        };
        backend(self) == backend(other)
    }

    /// The public address to name the node in messages.
    #[must_use]
    pub fn public_address(&self) -> PublicAddress {
        PublicAddress(self.public_ip.map(IpAddr::V4).or_else(|| self.public_ipv6.map(IpAddr::V6)))
    }

    /// Whether these attributes identify a node other than `node`. Attributes without any address identify no node.
    #[must_use]
    pub fn is_of_another_node(&self, node: &Self) -> bool {
        (self.public_ip.is_some() || self.public_ipv6.is_some()) && !self.same_node(node)
    }
}

/// The public address of a node, IPv4 before IPv6. Displayed as `unknown` if it publishes none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PublicAddress(Option<IpAddr>);

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// The families of a lease without usable information on how to reach their pods, each with the reason: text for an
/// operator that names the entry in the store and its field, such as ``node "b": annotation
/// flannel.alpha.coreos.com/public-ip is missing``.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Gaps {
    /// What is missing for IPv4 pods; `None` if nothing is.
    pub ipv4: Option<String>,
    /// What is missing for IPv6 pods; `None` if nothing is.
    pub ipv6: Option<String>,
}

impl Gaps {
    /// Gaps with the same `problem` for every family of `key`.
    #[must_use]
    pub fn all(key: LeaseKey, problem: &str) -> Self {
        Self { ipv4: key.v4().map(|_| problem.to_owned()), ipv6: key.v6().map(|_| problem.to_owned()) }
    }

    /// Whether nothing is missing in either family.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }

    /// What is missing for the family of `subnet`; `None` if nothing is.
    #[must_use]
    pub fn of(&self, subnet: IpNet) -> Option<&str> {
        match subnet {
            IpNet::V4(_) => self.ipv4.as_deref(),
            IpNet::V6(_) => self.ipv6.as_deref(),
        }
    }

    /// Adds what `attributes` lack for the subnets in `key`, where nothing is noted yet; `without_type` if the backend type
    /// is missing. `fields` are the store's names, each with a word in front, of the backend type, then of the public
    /// address and the backend data for IPv4, then of these for IPv6.
    #[cfg_attr(
        not(any(feature = "etcd", feature = "kubernetes", feature = "sqlite")),
        expect(dead_code, reason = "the stores call it")
    )]
    pub(crate) fn complete(
        &mut self,
        attributes: &LeaseAttributes,
        key: LeaseKey,
        without_type: bool,
        [kind, ip, data, ipv6, ipv6_data]: [(&str, &str); 5],
    ) {
        let kind = without_type.then_some(kind);
        let LeaseAttributes { public_ip, public_ipv6, backend_type, backend_data, backend_v6_data } =
            attributes;
        let gap =
            |has_address: bool, found: Option<&BackendData>, address: (&str, &str), data: (&str, &str)| {
                if !has_address {
                    return Some(missing(address));
                }
                let problem = |found: &BackendData| match backend_type {
                    BackendType::Vxlan => found.decode::<VxlanData>().err(),
                    BackendType::Wireguard => found.decode::<WireguardData>().err(),
                    _ => None,
                };
                match (kind, backend_type, found) {
                    (Some(kind), ..) => Some(missing(kind)),
                    (None, BackendType::Vxlan | BackendType::Wireguard, None) => Some(missing(data)),
                    (None, _, Some(found)) => {
                        let error = problem(found)?;
                        Some(format!("{}{} cannot be used: {}", data.0, data.1, cut(&error.to_string())))
                    }
                    (None, _, None) => None,
                }
            };
        let noted = (self.ipv4.take(), self.ipv6.take());
        if key.v4().is_some() {
            self.ipv4 = noted.0.or_else(|| gap(public_ip.is_some(), backend_data.as_ref(), ip, data));
        }
        if key.v6().is_some() {
            self.ipv6 =
                noted.1.or_else(|| gap(public_ipv6.is_some(), backend_v6_data.as_ref(), ipv6, ipv6_data));
        }
    }

    /// Puts the name of the entry in front of each text.
    #[cfg_attr(
        not(any(feature = "etcd", feature = "kubernetes", feature = "sqlite")),
        expect(dead_code, reason = "the stores call it")
    )]
    pub(crate) fn in_entry(self, entry: impl fmt::Display) -> Self {
        let name = |text: String| format!("{entry}: {text}");
        Self { ipv4: self.ipv4.map(name), ipv6: self.ipv6.map(name) }
    }
}

fn missing((kind, name): (&str, &str)) -> String {
    format!("{kind}{name} is missing")
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.ipv4.iter().chain(self.ipv6.iter().filter(|ipv6| Some(*ipv6) != self.ipv4.as_ref()));
        texts.enumerate().try_for_each(|(at, text)| {
            f.write_str(if at == 0 { "" } else { "; " })?;
            f.write_str(text)
        })
    }
}

/// A pod subnet, the node that holds it, and its expiry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The subnets.
    pub key: LeaseKey,
    /// How peers reach the node.
    pub attributes: LeaseAttributes,
    /// When the lease expires unless it is renewed. `None` for a reservation, which does not expire, and for leases of
    /// other nodes in a store that does not report their expiry.
    pub expires: Option<SystemTime>,
    /// When the lease was created, in a unit of the store that grows: etcd's create revision, or the creation time of
    /// the Kubernetes node in seconds since 1970. Of two leases that contradict each other, the older one counts. 0 if
    /// unknown, as in SQLite.
    pub created: u64,
    /// Name of the node; `None` in a store without node names.
    pub node: Option<String>,
    /// What is missing in `attributes`. The node still exists, so keep using what it published before.
    pub gaps: Gaps,
}

impl Lease {
    /// A lease without a node's name and without gaps.
    #[must_use]
    pub fn new(key: LeaseKey, attributes: LeaseAttributes, expires: Option<SystemTime>) -> Self {
        Self { key, attributes, expires, created: 0, node: None, gaps: Gaps::default() }
    }

    /// Notes what the JSON that `attributes` were read from lacks; `entry` names its place in the store.
    #[cfg(any(feature = "etcd", feature = "sqlite"))]
    pub(crate) fn with_gaps_of_json(mut self, entry: impl fmt::Display) -> Self {
        let LeaseAttributes { backend_type, backend_data, backend_v6_data, .. } = &self.attributes;
        // The backends `udp` and `alloc` publish neither a type nor data.
        let has_data = backend_data.is_some() || backend_v6_data.is_some();
        let without_type = *backend_type == BackendType::Unnamed && has_data;
        let fields = ["BackendType", "PublicIP", "BackendData", "PublicIPv6", "BackendV6Data"];
        let mut gaps = Gaps::default();
        gaps.complete(&self.attributes, self.key, without_type, fields.map(|name| ("", name)));
        self.gaps = gaps.in_entry(entry);
        self
    }
}
