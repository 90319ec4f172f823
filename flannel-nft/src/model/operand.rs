//! Right-hand sides of matches: addresses and ports, as values, prefixes, ranges or sets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::data::Data;
use crate::model::element::Key;
use crate::model::field::Field;
use crate::model::matching::{IpVersion, Match, Test};
use crate::model::name::SetName;

/// Addresses to match: a value, a prefix, a range, several of them, or a named set.
#[derive(Clone, Debug)]
pub struct Addresses {
    version: IpVersion,
    kind: AddressKind,
}

#[derive(Clone, Debug)]
enum AddressKind {
    Keys(Vec<Key>),
    Prefix { address: Data, length: u8 },
    Set(SetName),
}

impl Addresses {
    /// The addresses in a named set with key type
    /// [`Datatype::Ipv4Addr`](crate::Datatype::Ipv4Addr).
    #[must_use]
    pub fn v4_set(set: &SetName) -> Self {
        Self { version: IpVersion::V4, kind: AddressKind::Set(set.clone()) }
    }

    /// The addresses in a named set with key type
    /// [`Datatype::Ipv6Addr`](crate::Datatype::Ipv6Addr).
    #[must_use]
    pub fn v6_set(set: &SetName) -> Self {
        Self { version: IpVersion::V6, kind: AddressKind::Set(set.clone()) }
    }

    /// Several IPv4 prefixes: `{ 10.0.0.0/8, 192.168.0.0/16 }`.
    pub fn v4(prefixes: impl IntoIterator<Item = Ipv4Net>) -> Self {
        let keys = prefixes.into_iter().map(Key::from).collect();
        Self { version: IpVersion::V4, kind: AddressKind::Keys(keys) }
    }

    /// Several IPv6 prefixes.
    pub fn v6(prefixes: impl IntoIterator<Item = Ipv6Net>) -> Self {
        let keys = prefixes.into_iter().map(Key::from).collect();
        Self { version: IpVersion::V6, kind: AddressKind::Keys(keys) }
    }

    pub(crate) fn matched(self, field: impl Fn(IpVersion) -> Field) -> Match {
        let field = field(self.version);
        match self.kind {
            AddressKind::Keys(keys) => Match::one_of(field, keys),
            AddressKind::Prefix { address, length } if usize::from(length) == address.len() * 8 => {
                Match::new(field, Test::Is(address))
            }
            AddressKind::Prefix { address, length } => {
                let invalid = Key::prefix(self.version.datatype(), address.clone(), length).invalid;
                Match { invalid, ..Match::new(field, Test::Prefix(address, length)) }
            }
            AddressKind::Set(set) => Match::named(field, &set),
        }
    }
}

impl From<Ipv4Net> for Addresses {
    fn from(net: Ipv4Net) -> Self {
        let address = Data::new(&net.addr().octets());
        Self { version: IpVersion::V4, kind: AddressKind::Prefix { address, length: net.prefix_len() } }
    }
}

impl From<Ipv6Net> for Addresses {
    fn from(net: Ipv6Net) -> Self {
        let address = Data::new(&net.addr().octets());
        Self { version: IpVersion::V6, kind: AddressKind::Prefix { address, length: net.prefix_len() } }
    }
}

impl From<IpNet> for Addresses {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => net.into(),
            IpNet::V6(net) => net.into(),
        }
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Self {
        IpNet::from(address).into()
    }
}

impl From<Ipv4Addr> for Addresses {
    fn from(address: Ipv4Addr) -> Self {
        IpNet::from(IpAddr::V4(address)).into()
    }
}

impl From<Ipv6Addr> for Addresses {
    fn from(address: Ipv6Addr) -> Self {
        IpNet::from(IpAddr::V6(address)).into()
    }
}

impl From<RangeInclusive<Ipv4Addr>> for Addresses {
    fn from(range: RangeInclusive<Ipv4Addr>) -> Self {
        Self { version: IpVersion::V4, kind: AddressKind::Keys(vec![range.into()]) }
    }
}

impl From<RangeInclusive<Ipv6Addr>> for Addresses {
    fn from(range: RangeInclusive<Ipv6Addr>) -> Self {
        Self { version: IpVersion::V6, kind: AddressKind::Keys(vec![range.into()]) }
    }
}

/// Ports to match: a value, a range, several of them, or a named set (key type
/// [`Datatype::InetService`](crate::Datatype::InetService)).
#[derive(Clone, Debug)]
pub struct Ports(PortKind);

#[derive(Clone, Debug)]
enum PortKind {
    Keys(Vec<Key>),
    Set(SetName),
}

impl Ports {
    pub(crate) fn matched(self, field: Field) -> Match {
        match self.0 {
            PortKind::Keys(keys) => Match::one_of(field, keys),
            PortKind::Set(set) => Match::named(field, &set),
        }
    }
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self(PortKind::Keys(vec![port.into()]))
    }
}

impl From<RangeInclusive<u16>> for Ports {
    fn from(ports: RangeInclusive<u16>) -> Self {
        Self(PortKind::Keys(vec![ports.into()]))
    }
}

impl<const N: usize> From<[u16; N]> for Ports {
    fn from(ports: [u16; N]) -> Self {
        Self(PortKind::Keys(ports.into_iter().map(Key::from).collect()))
    }
}

impl From<Vec<u16>> for Ports {
    fn from(ports: Vec<u16>) -> Self {
        Self(PortKind::Keys(ports.into_iter().map(Key::from).collect()))
    }
}

impl From<&SetName> for Ports {
    fn from(set: &SetName) -> Self {
        Self(PortKind::Set(set.clone()))
    }
}
