//! Typed values of set elements and matches.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::name::InterfaceName;
use crate::model::protocol::Protocol;

/// A value with its type: the key of an element, the value of a map, or the right-hand side of a
/// match.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Value {
    pub(crate) datatype: Datatype,
    pub(crate) data: Data,
}

impl Value {
    pub(crate) fn new(datatype: Datatype, data: Data) -> Self {
        Self { datatype, data }
    }

    /// An Ethernet address.
    #[must_use]
    pub fn ether(address: [u8; 6]) -> Self {
        Self::new(Datatype::EtherAddr, Data::new(&address))
    }

    /// A port of TCP, UDP, SCTP or DCCP: type `inet_service`.
    #[must_use]
    pub fn port(port: u16) -> Self {
        Self::new(Datatype::InetService, Data::new(&port.to_be_bytes()))
    }

    /// A packet mark or connection mark.
    #[must_use]
    pub fn mark(mark: u32) -> Self {
        Self::new(Datatype::Mark, Data::u32(mark))
    }

    /// A number; its type is that of the field that is compared with it or set to it.
    #[must_use]
    pub fn number(number: u32) -> Self {
        let datatype = Datatype::Integer { length: 4, host: true };
        Self::new(datatype, datatype.data_of(number.into(), 4))
    }

    /// Text, e.g. the name of an operating system, padded with zeros to `length` bytes.
    #[must_use]
    pub fn text(text: &str, length: u8) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length.into(), 0);
        Self::new(Datatype::Text { length }, Data::new(&bytes))
    }

    /// An interface index.
    #[must_use]
    pub fn interface_index(index: u32) -> Self {
        Self::new(Datatype::Ifindex, Data::u32(index))
    }

    /// The value of a map with a concatenation as its type: `10.0.0.1 . 80`.
    #[must_use]
    pub fn concat(parts: impl IntoIterator<Item = Self>) -> Self {
        let (mut datatypes, mut bytes) = (Vec::new(), Vec::new());
        for part in parts {
            bytes.extend(part.data.as_slice());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            datatypes.push(part.datatype);
        }
        Self::new(Datatype::concat(&datatypes), Data::new(&bytes))
    }

    /// The same number with another type.
    pub(crate) fn to(self, datatype: Datatype) -> Self {
        match self.datatype.number_of(&self.data) {
            Some(number) if self.datatype != datatype && self.datatype.parts().len() == 1 => {
                Self::new(datatype, datatype.data_of(number, datatype.lengths().0))
            }
            _ => self,
        }
    }

    /// The type.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// The IP address, if the value is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.datatype {
            Datatype::Ipv4Addr => <[u8; 4]>::try_from(self.as_bytes()).ok().map(IpAddr::from),
            Datatype::Ipv6Addr => <[u8; 16]>::try_from(self.as_bytes()).ok().map(IpAddr::from),
            _ => None,
        }
    }

    /// The number that the value is: a port, mark, protocol. `None` for a concatenation.
    #[must_use]
    pub fn to_number(&self) -> Option<u128> {
        self.datatype.number_of(&self.data).filter(|_| self.datatype.parts().len() == 1)
    }

    /// The value's bytes as the kernel compares them: in network byte order for addresses and ports.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.data.as_slice()
    }
}

impl From<Ipv4Addr> for Value {
    fn from(address: Ipv4Addr) -> Self {
        Self::new(Datatype::Ipv4Addr, Data::new(&address.octets()))
    }
}

impl From<Ipv6Addr> for Value {
    fn from(address: Ipv6Addr) -> Self {
        Self::new(Datatype::Ipv6Addr, Data::new(&address.octets()))
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Protocol> for Value {
    fn from(protocol: Protocol) -> Self {
        Self::new(Datatype::InetProto, Data::new(&[protocol.number()]))
    }
}

impl From<&InterfaceName> for Value {
    /// With a trailing `*`, all names that start with the text before it: for matches, and for sets with the interval flag.
    fn from(name: &InterfaceName) -> Self {
        let data = if name.prefix { Data::new(name.text.as_bytes()) } else { Data::interface(&name.text) };
        Self::new(Datatype::Ifname, data)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.datatype.write(&self.data, f)
    }
}
