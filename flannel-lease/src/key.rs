//! The subnets that name a lease.

use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The subnets of one lease, of one or both families. They identify a lease in every store.
///
/// Text form: `10.244.1.0-24`, `10.244.1.0-24&fd00:10:244:1::-64`, `0.0.0.0-0&fd00:10:244:1::-64`.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseKey {
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
}

impl LeaseKey {
    /// A key of these subnets, with host bits cleared; `None` if both are `None`.
    #[must_use]
    pub fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Option<Self> {
        let key = Self { v4: v4.map(|net| net.trunc()), v6: v6.map(|net| net.trunc()) };
        (v4.is_some() || v6.is_some()).then_some(key)
    }

    /// The IPv4 pod subnet; `None` in an IPv6-only lease.
    #[must_use]
    pub fn v4(self) -> Option<Ipv4Net> {
        self.v4
    }

    /// The IPv6 pod subnet; `None` in an IPv4-only lease.
    #[must_use]
    pub fn v6(self) -> Option<Ipv6Net> {
        self.v6
    }

    /// The pod subnets, IPv4 first.
    pub fn subnets(self) -> impl Iterator<Item = IpNet> {
        self.v4.map(IpNet::from).into_iter().chain(self.v6.map(IpNet::from))
    }

    /// The part of this key inside the given networks. Pass a network for each family in use; families that are not in
    /// use are dropped. `None` if the subnet of a family in use is missing or outside its network.
    #[must_use]
    pub fn within(self, v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Option<Self> {
        let net_v4 = self.v4.zip(v4).filter(|(net, network)| network.contains(net)).map(|(net, _)| net);
        let net_v6 = self.v6.zip(v6).filter(|(net, network)| network.contains(net)).map(|(net, _)| net);
        let whole = net_v4.is_some() == v4.is_some() && net_v6.is_some() == v6.is_some();
        Self::new(net_v4, net_v6).filter(|_| whole)
    }

    /// Whether the two keys share an address of either family.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let v4 = self.v4.zip(other.v4).is_some_and(|(a, b)| a.contains(&b) || b.contains(&a));
        let v6 = self.v6.zip(other.v6).is_some_and(|(a, b)| a.contains(&b) || b.contains(&a));
        v4 || v6
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address families of leases. At least one is in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stack {
    /// Whether pods have IPv4 addresses.
    pub ipv4: bool,
    /// Whether pods have IPv6 addresses.
    pub ipv6: bool,
}
