//! Values as the kernel compares them: bytes in a register, and the types that say what they mean.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::InterfaceName;

/// Bytes of a register or of a set's key: up to 16 in place, more (concatenations) on the heap.
#[derive(Clone)]
pub(crate) enum Data {
    Short { length: u8, bytes: [u8; 16] },
    Long(Box<[u8]>),
}

impl Data {
    pub(crate) fn new(data: &[u8]) -> Self {
        let mut bytes = [0; 16];
        match (bytes.get_mut(..data.len()), u8::try_from(data.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(data);
                Self::Short { length, bytes }
            }
            _ => Self::Long(data.into()),
        }
    }

    pub(crate) fn u32(value: u32) -> Self {
        Self::new(&value.to_ne_bytes())
    }

    pub(crate) fn zero(length: usize) -> Self {
        Self::new([0; 64].get(..length).unwrap_or_default())
    }

    pub(crate) fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::new(&address.octets()),
            IpAddr::V6(address) => Self::new(&address.octets()),
        }
    }

    /// An interface's name as the kernel holds it: 16 bytes, filled up with zeros.
    pub(crate) fn interface(name: &str) -> Self {
        let mut bytes = [0; 16];
        for (place, byte) in bytes.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        Self::Short { length: 16, bytes }
    }

    /// The network mask with `bits` leading ones.
    pub(crate) fn mask(bits: u8, length: usize) -> Self {
        let mut mask = vec![0_u8; length];
        for (index, byte) in mask.iter_mut().enumerate() {
            let ones = usize::from(bits).saturating_sub(index * 8).min(8);
            *byte = u8::try_from(0xff00_u32 >> ones & 0xff).unwrap_or(0xff);
        }
        Self::new(&mask)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.as_slice().iter().all(|byte| *byte == 0)
    }

    pub(crate) fn host_u32(&self) -> Option<u32> {
        self.as_slice().try_into().ok().map(u32::from_ne_bytes)
    }

    pub(crate) fn be_u16(&self) -> Option<u16> {
        self.as_slice().try_into().ok().map(u16::from_be_bytes)
    }

    pub(crate) fn u8(&self) -> Option<u8> {
        match self.as_slice() {
            [value] => Some(*value),
            _ => None,
        }
    }

    /// The next higher number of the same length; `None` after the highest.
    pub(crate) fn successor(&self) -> Option<Self> {
        let mut bytes = self.as_slice().to_vec();
        for byte in bytes.iter_mut().rev() {
            let (next, overflow) = byte.overflowing_add(1);
            *byte = next;
            if !overflow {
                return Some(Self::new(&bytes));
            }
        }
        None
    }

    /// The next lower number of the same length; `None` before 0.
    pub(crate) fn predecessor(&self) -> Option<Self> {
        let mut bytes = self.as_slice().to_vec();
        for byte in bytes.iter_mut().rev() {
            let (next, overflow) = byte.overflowing_sub(1);
            *byte = next;
            if !overflow {
                return Some(Self::new(&bytes));
            }
        }
        None
    }

    pub(crate) fn highest(length: usize) -> Self {
        Self::new(&vec![0xff; length])
    }

    /// The prefix length of a mask, `None` if its ones are not all in front.
    pub(crate) fn prefix_length(&self) -> Option<u8> {
        let ones: u32 = self.as_slice().iter().map(|byte| byte.count_ones()).sum();
        let ones = u8::try_from(ones).ok()?;
        (*self == Self::mask(ones, self.len())).then_some(ones)
    }

    /// If `self..=last` are exactly the numbers with a common prefix: its length.
    pub(crate) fn prefix_to(&self, last: &Self) -> Option<u8> {
        let differ: Vec<u8> = self.as_slice().iter().zip(last.as_slice()).map(|(a, b)| !(a ^ b)).collect();
        let length = Self::new(&differ).prefix_length()?;
        let mask = Self::mask(length, self.len());
        let first_is_low = self.as_slice().iter().zip(mask.as_slice()).all(|(byte, mask)| byte & !mask == 0);
        let last_is_high =
            last.as_slice().iter().zip(mask.as_slice()).all(|(byte, mask)| byte | mask == 0xff);
        (first_is_low && last_is_high).then_some(length)
    }

    /// The last number that shares the first `bits` bits.
    pub(crate) fn last_with_prefix(&self, bits: u8) -> Self {
        let mask = Self::mask(bits, self.len());
        let bytes: Vec<u8> =
            self.as_slice().iter().zip(mask.as_slice()).map(|(byte, mask)| byte | !mask).collect();
        Self::new(&bytes)
    }

    /// Whether no bit behind the first `bits` is set.
    pub(crate) fn is_network(&self, bits: u8) -> bool {
        let mask = Self::mask(bits, self.len());
        self.as_slice().iter().zip(mask.as_slice()).all(|(byte, mask)| byte & !mask == 0)
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Data {}

impl PartialOrd for Data {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Data {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for Data {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(self.as_slice(), f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("0x")?;
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// What the keys or the values of a set are, by nft's names (`nft describe`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Datatype {
    /// `ct_dir`, 1 byte.
    CtDirection,
    /// `ct_state`, 4 bytes, host order.
    CtState,
    /// `ct_status`, 4 bytes, host order.
    CtStatus,
    /// `ether_addr`, 6 bytes.
    EtherAddr,
    /// `fib_addrtype`, 4 bytes, host order.
    FibAddrtype,
    /// `iface_index`, 4 bytes, host order.
    Ifindex,
    /// `ifname`, 16 bytes.
    Ifname,
    /// `inet_proto`, 1 byte.
    InetProto,
    /// `inet_service`: a port, 2 bytes.
    InetService,
    /// `ipv4_addr`, 4 bytes.
    Ipv4Addr,
    /// `ipv6_addr`, 16 bytes.
    Ipv6Addr,
    /// `mark`, 4 bytes, host order.
    Mark,
    /// `nf_proto`, 1 byte.
    Nfproto,
    /// `pkt_type`, 1 byte.
    PktType,
    /// `tcp_flag`, 1 byte.
    TcpFlag,
    /// A type that this crate has no word for, or a concatenation. Its values are kept as bytes.
    Other {
        /// nft's number for it.
        number: u32,
        /// Bytes of one value.
        length: u32,
    },
}

impl Datatype {
    const KNOWN: [Self; 15] = [
        Self::CtDirection,
        Self::CtState,
        Self::CtStatus,
        Self::EtherAddr,
        Self::FibAddrtype,
        Self::Ifindex,
        Self::Ifname,
        Self::InetProto,
        Self::InetService,
        Self::Ipv4Addr,
        Self::Ipv6Addr,
        Self::Mark,
        Self::Nfproto,
        Self::PktType,
        Self::TcpFlag,
    ];

    /// nft's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CtDirection => "ct_dir",
            Self::CtState => "ct_state",
            Self::CtStatus => "ct_status",
            Self::EtherAddr => "ether_addr",
            Self::FibAddrtype => "fib_addrtype",
            Self::Ifindex => "iface_index",
            Self::Ifname => "ifname",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::Mark => "mark",
            Self::Nfproto => "nf_proto",
            Self::PktType => "pkt_type",
            Self::TcpFlag => "tcp_flag",
            Self::Other { .. } => "unknown",
        }
    }

    /// nft's number for it (include/datatype.h, `enum datatypes`); the kernel only stores it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Nfproto => 2,
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::EtherAddr => 9,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::TcpFlag => 15,
            Self::Mark => 19,
            Self::Ifindex => 20,
            Self::CtState => 26,
            Self::CtDirection => 27,
            Self::CtStatus => 28,
            Self::PktType => 31,
            Self::FibAddrtype => 38,
            Self::Ifname => 41,
            Self::Other { number, .. } => number,
        }
    }

    pub(crate) fn length(self) -> u32 {
        match self {
            Self::CtDirection | Self::InetProto | Self::Nfproto | Self::PktType | Self::TcpFlag => 1,
            Self::InetService => 2,
            Self::CtState
            | Self::CtStatus
            | Self::FibAddrtype
            | Self::Ifindex
            | Self::Ipv4Addr
            | Self::Mark => 4,
            Self::EtherAddr => 6,
            Self::Ifname | Self::Ipv6Addr => 16,
            Self::Other { length, .. } => length,
        }
    }

    pub(crate) fn from_number(number: u32, length: u32) -> Self {
        let known =
            Self::KNOWN.into_iter().find(|known| known.number() == number && known.length() == length);
        known.unwrap_or(Self::Other { number, length })
    }

    /// Whether values are in host order, which nft must be told (`NFTNL_UDATA_SET_KEYBYTEORDER`) to print them right.
    pub(crate) fn is_host_order(self) -> bool {
        matches!(
            self,
            Self::CtState
                | Self::CtStatus
                | Self::FibAddrtype
                | Self::Ifindex
                | Self::Ifname
                | Self::Mark
                | Self::CtDirection
                | Self::Nfproto
                | Self::PktType
        )
    }

    /// How many values nft prints on a line of a set's listing (src/expression.c, `calculate_delim`).
    pub(crate) fn per_line(self) -> usize {
        match self {
            Self::Ipv4Addr | Self::CtState | Self::FibAddrtype => 2,
            Self::EtherAddr | Self::Ifname | Self::Ipv6Addr | Self::Other { .. } => 1,
            _ => 5,
        }
    }

    /// Writes a value of this type in nft syntax.
    pub(crate) fn write(self, data: &Data, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = data.as_slice();
        match (self, bytes) {
            (Self::Ipv4Addr, &[a, b, c, d]) => write!(f, "{}", Ipv4Addr::new(a, b, c, d)),
            (Self::Ipv6Addr, _) => match <[u8; 16]>::try_from(bytes) {
                Ok(bytes) => write!(f, "{}", Ipv6Addr::from(bytes)),
                Err(_) => hex(bytes, f),
            },
            (Self::EtherAddr, &[first, ref rest @ ..]) => {
                write!(f, "{first:02x}")?;
                rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
            }
            (Self::InetProto, &[number]) => write!(f, "{}", Protocol::new(number)),
            (Self::InetService, &[high, low]) => write!(f, "{}", u16::from_be_bytes([high, low])),
            (Self::Ifname, _) => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                write!(f, "\"{}\"", String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()))
            }
            (Self::Nfproto, [2]) => f.write_str("ipv4"),
            (Self::Nfproto, [10]) => f.write_str("ipv6"),
            (Self::CtDirection, [0]) => f.write_str("original"),
            (Self::CtDirection, [1]) => f.write_str("reply"),
            (Self::TcpFlag, &[flags]) => write_bits(&TCP_FLAGS, u32::from(flags), ",", f),
            (Self::PktType, &[number]) => symbol(&PACKET_TYPES, u32::from(number), f),
            (Self::Nfproto | Self::CtDirection, &[number]) => write!(f, "{number}"),
            _ => match (self, data.host_u32()) {
                (Self::Mark, Some(mark)) => write!(f, "0x{mark:08x}"),
                (Self::Ifindex, Some(index)) => write!(f, "{index}"),
                (Self::FibAddrtype, Some(number)) => symbol(&ADDRESS_TYPES, number, f),
                (Self::CtState, Some(bits)) => write_bits(&STATES, bits, ",", f),
                (Self::CtStatus, Some(bits)) => write_bits(&STATUSES, bits, ",", f),
                _ => hex(bytes, f),
            },
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(crate) const PACKET_TYPES: [(&str, u32); 4] =
    [("host", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)];
pub(crate) const ADDRESS_TYPES: [(&str, u32); 9] = [
    ("unspec", 0),
    ("unicast", 1),
    ("local", 2),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
    ("prohibit", 8),
];
/// In the order in which nft prints them.
pub(crate) const STATES: [(&str, u32); 5] =
    [("invalid", 0x1), ("established", 0x2), ("related", 0x4), ("new", 0x8), ("untracked", 0x40)];
pub(crate) const STATUSES: [(&str, u32); 7] = [
    ("expected", 0x1),
    ("seen-reply", 0x2),
    ("assured", 0x4),
    ("confirmed", 0x8),
    ("snat", 0x10),
    ("dnat", 0x20),
    ("dying", 0x200),
];

pub(crate) const TCP_FLAGS: [(&str, u32); 8] = [
    ("fin", 0x1),
    ("syn", 0x2),
    ("rst", 0x4),
    ("psh", 0x8),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ecn", 0x40),
    ("cwr", 0x80),
];

fn symbol(names: &[(&str, u32)], number: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match names.iter().find(|(_, value)| *value == number) {
        Some((name, _)) => f.write_str(name),
        None => write!(f, "{number}"),
    }
}

/// Writes the names of the bits that are set; as a number if one has no name or none is set.
pub(crate) fn write_bits(
    names: &[(&str, u32)],
    bits: u32,
    separator: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let named = names.iter().fold(0, |sum, (_, bit)| sum | bit);
    if bits == 0 || bits & !named != 0 {
        return write!(f, "0x{bits:08x}");
    }
    let mut between = "";
    for (name, _) in names.iter().filter(|(_, bit)| bits & bit != 0) {
        write!(f, "{between}{name}")?;
        between = separator;
    }
    Ok(())
}

/// Number of a protocol above IP (`IPPROTO_*`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Protocol(u8);

impl Protocol {
    /// ICMP over IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// DCCP.
    pub const DCCP: Self = Self(33);
    /// GRE.
    pub const GRE: Self = Self(47);
    /// IPsec ESP.
    pub const ESP: Self = Self(50);
    /// IPsec AH.
    pub const AH: Self = Self(51);
    /// ICMP over IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDPLITE: Self = Self(136);

    /// The protocol with this number.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::ICMP => "icmp",
            Self::TCP => "tcp",
            Self::UDP => "udp",
            Self::DCCP => "dccp",
            Self::GRE => "gre",
            Self::ESP => "esp",
            Self::AH => "ah",
            Self::ICMPV6 => "ipv6-icmp",
            Self::SCTP => "sctp",
            Self::UDPLITE => "udplite",
            Self(number) => return write!(f, "{number}"),
        };
        f.write_str(name)
    }
}

/// One value for a set's key, a map's value or a match, with its type.
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

    /// A port of TCP, UDP and the like.
    #[must_use]
    pub fn port(port: u16) -> Self {
        Self::new(Datatype::InetService, Data::new(&port.to_be_bytes()))
    }

    /// A packet mark or connection mark.
    #[must_use]
    pub fn mark(mark: u32) -> Self {
        Self::new(Datatype::Mark, Data::u32(mark))
    }

    /// An interface by index.
    #[must_use]
    pub fn interface_index(index: u32) -> Self {
        Self::new(Datatype::Ifindex, Data::u32(index))
    }

    /// What it is.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// Its bytes, as the kernel compares them.
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
    /// A name with `*` is taken without it: sets hold whole names.
    fn from(name: &InterfaceName) -> Self {
        Self::new(Datatype::Ifname, Data::interface(&name.text))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.datatype.write(&self.data, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_ranges_are_told_apart() {
        let address = |text: &str| Data::address(text.parse().unwrap());
        assert_eq!(address("10.0.0.0").prefix_to(&address("10.255.255.255")), Some(8));
        assert_eq!(address("10.0.0.0").prefix_to(&address("10.255.255.254")), None);
        assert_eq!(address("10.0.0.1").prefix_to(&address("10.0.0.1")), Some(32));
        assert_eq!(address("0.0.0.0").prefix_to(&address("255.255.255.255")), Some(0));
        assert_eq!(
            address("fe80::").last_with_prefix(10),
            address("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
        );
        assert_eq!(Data::mask(23, 4).prefix_length(), Some(23));
        assert_eq!(Data::new(&[255, 0, 255, 0]).prefix_length(), None);
        assert!(!address("10.0.0.1").is_network(8));
    }

    #[test]
    fn counting_stops_at_the_ends() {
        assert_eq!(Data::new(&[0, 255]).successor(), Some(Data::new(&[1, 0])));
        assert_eq!(Data::new(&[255, 255]).successor(), None);
        assert_eq!(Data::new(&[1, 0]).predecessor(), Some(Data::new(&[0, 255])));
        assert_eq!(Data::new(&[0, 0]).predecessor(), None);
    }
}
