//! What a rule looks at: the words on the left of an nft match, and what they are compared with.
//!
//! The modules are named as nft names things: [`ip::saddr`], [`tcp::dport`], [`meta::oifname`], [`ct::state`],
//! [`fib::daddr_type`]. `!` turns a match around.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Not, RangeInclusive};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::data::{Data, Datatype, Protocol, Value};
use crate::error::Mistake;
use crate::name::{InterfaceName, SetName};
use crate::set::{Body, Key, Maps, Set, Span, flag};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub(crate) fn datatype(self) -> Datatype {
        match self {
            Self::V4 => Datatype::Ipv4Addr,
            Self::V6 => Datatype::Ipv6Addr,
        }
    }
}

/// Where a match takes its value from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Field {
    CtDirection,
    CtMark,
    CtState,
    CtStatus,
    Daddr(IpVersion),
    Dport(Option<Protocol>),
    FibDaddrType,
    FibSaddrType,
    Iif,
    Iifname,
    IpProtocol,
    L4proto,
    Mark,
    Nfproto,
    Oif,
    Oifname,
    PktType,
    Saddr(IpVersion),
    Sport(Option<Protocol>),
    TcpFlags,
}

impl Field {
    pub(crate) fn datatype(self) -> Datatype {
        match self {
            Self::CtDirection => Datatype::CtDirection,
            Self::CtMark | Self::Mark => Datatype::Mark,
            Self::CtState => Datatype::CtState,
            Self::CtStatus => Datatype::CtStatus,
            Self::Daddr(version) | Self::Saddr(version) => version.datatype(),
            Self::Dport(_) | Self::Sport(_) => Datatype::InetService,
            Self::FibDaddrType | Self::FibSaddrType => Datatype::FibAddrtype,
            Self::Iif | Self::Oif => Datatype::Ifindex,
            Self::Iifname | Self::Oifname => Datatype::Ifname,
            Self::IpProtocol | Self::L4proto => Datatype::InetProto,
            Self::Nfproto => Datatype::Nfproto,
            Self::PktType => Datatype::PktType,
            Self::TcpFlags => Datatype::TcpFlag,
        }
    }
}

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    /// At least one of these bits is set.
    AnyBit(Data),
    In(Source),
    Is(Data),
    /// The bits under the mask are these.
    Masked {
        mask: Data,
        value: Data,
    },
    /// An interface whose name begins so.
    NamePrefix(Box<str>),
    Prefix(Data, u8),
    Range(Data, Data),
}

/// A set that a match or a verdict map looks into.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    Named(SetName),
    /// `{ 80, 443 }`: a constant set that lives and dies with its rule.
    Inline(Box<Inline>),
}

/// The contents of a set that belongs to one rule.
#[derive(Clone, Debug)]
pub(crate) struct Inline {
    pub(crate) set: Set,
}

impl PartialEq for Inline {
    fn eq(&self, other: &Self) -> bool {
        self.set.key == other.set.key && self.set.elements == other.set.elements
    }
}

impl Source {
    pub(crate) fn inline(key: Datatype, maps: Maps, elements: impl IntoIterator<Item = (Key, Body)>) -> Self {
        let elements: Vec<_> = elements.into_iter().collect();
        let interval = elements.iter().any(|(key, _)| matches!(key.span, Span::Range(..)));
        let mut flags = flag::ANONYMOUS | flag::CONSTANT;
        flags |= if interval { flag::INTERVAL } else { 0 };
        flags |= if maps == Maps::Nothing { 0 } else { flag::MAP };
        let mut set = Set::with(maps.anonymous_name(), key, maps, flags);
        for (key, body) in elements {
            set.insert(crate::set::Element { key, data_type: None, body });
        }
        Self::Inline(Box::new(Inline { set }))
    }
}

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub(crate) field: Field,
    pub(crate) test: Test,
    pub(crate) inverted: bool,
    pub(crate) mistake: Option<Mistake>,
}

impl Match {
    pub(crate) fn new(field: Field, test: Test) -> Self {
        Self { field, test, inverted: false, mistake: None }
    }

    fn key(field: Field, key: Key) -> Self {
        let test = match key.span {
            Span::One(data) => Test::Is(data),
            Span::Range(first, last) => Test::Range(first, last),
            Span::Rest => Test::In(Source::inline(key.datatype, Maps::Nothing, [])),
        };
        Self { field, test, inverted: false, mistake: key.mistake }
    }

    fn named(field: Field, set: &SetName) -> Self {
        Self::new(field, Test::In(Source::Named(set.clone())))
    }

    fn one_of(field: Field, keys: impl IntoIterator<Item = Key>) -> Self {
        let mut keys: Vec<Key> = keys.into_iter().collect();
        if keys.len() == 1
            && let Some(key) = keys.pop()
        {
            return Self::key(field, key);
        }
        let mistake = keys.is_empty().then_some(Mistake::NothingToMatch);
        let keys = keys.into_iter().map(|key| (key, Body::default()));
        let test = Test::In(Source::inline(field.datatype(), Maps::Nothing, keys));
        Self { field, test, inverted: false, mistake }
    }
}

impl Not for Match {
    type Output = Self;

    /// The opposite: `ip saddr != 10.0.0.0/8`.
    fn not(mut self) -> Self {
        self.inverted = !self.inverted;
        self
    }
}

/// Addresses to match: one, a prefix, a range, several of those, or a named set's.
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
    /// The addresses in a named set with keys of type [`Datatype::Ipv4Addr`].
    #[must_use]
    pub fn v4_set(set: &SetName) -> Self {
        Self { version: IpVersion::V4, kind: AddressKind::Set(set.clone()) }
    }

    /// The addresses in a named set with keys of type [`Datatype::Ipv6Addr`].
    #[must_use]
    pub fn v6_set(set: &SetName) -> Self {
        Self { version: IpVersion::V6, kind: AddressKind::Set(set.clone()) }
    }

    /// Several IPv4 prefixes, `{ 10.0.0.0/8, 192.168.0.0/16 }`.
    pub fn v4(prefixes: impl IntoIterator<Item = Ipv4Net>) -> Self {
        let keys = prefixes.into_iter().map(Key::from).collect();
        Self { version: IpVersion::V4, kind: AddressKind::Keys(keys) }
    }

    /// Several IPv6 prefixes.
    pub fn v6(prefixes: impl IntoIterator<Item = Ipv6Net>) -> Self {
        let keys = prefixes.into_iter().map(Key::from).collect();
        Self { version: IpVersion::V6, kind: AddressKind::Keys(keys) }
    }

    fn matched(self, field: impl Fn(IpVersion) -> Field) -> Match {
        let field = field(self.version);
        match self.kind {
            AddressKind::Keys(keys) => Match::one_of(field, keys),
            AddressKind::Prefix { address, length } if usize::from(length) == address.len() * 8 => {
                Match::new(field, Test::Is(address))
            }
            AddressKind::Prefix { address, length } => {
                let mistake = Key::prefix(self.version.datatype(), address.clone(), length).mistake;
                Match { mistake, ..Match::new(field, Test::Prefix(address, length)) }
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

/// Ports to match: one, a range, several, or a named set's (key type [`Datatype::InetService`]).
#[derive(Clone, Debug)]
pub struct Ports(PortKind);

#[derive(Clone, Debug)]
enum PortKind {
    Keys(Vec<Key>),
    Set(SetName),
}

impl Ports {
    fn matched(self, field: Field) -> Match {
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

/// The IP header. In an `inet` table a match on addresses also demands the right IP version, as nft does.
pub mod ip {
    use super::{Addresses, Data, Field, Match, Protocol, Test};

    /// Source address: `ip saddr` or `ip6 saddr`, by the type of `addresses`.
    pub fn saddr(addresses: impl Into<Addresses>) -> Match {
        addresses.into().matched(Field::Saddr)
    }

    /// Destination address: `ip daddr` or `ip6 daddr`, by the type of `addresses`.
    pub fn daddr(addresses: impl Into<Addresses>) -> Match {
        addresses.into().matched(Field::Daddr)
    }

    /// The protocol field of the IPv4 header, `ip protocol`. For both IP versions: [`super::meta::l4proto`].
    #[must_use]
    pub fn protocol(protocol: Protocol) -> Match {
        Match::new(Field::IpProtocol, Test::Is(Data::new(&[protocol.number()])))
    }
}

/// What the kernel knows about a packet besides its bytes.
pub mod meta {
    use super::{Data, Field, InterfaceName, IpVersion, Key, Match, Protocol, SetName, Test, Value};

    /// Packet mark, all 32 bits: `meta mark 0x1`.
    #[must_use]
    pub fn mark(mark: u32) -> Match {
        Match::new(Field::Mark, Test::Is(Data::u32(mark)))
    }

    /// Packet mark, the bits under `mask` only: `meta mark & 0x4000 == 0x4000`.
    #[must_use]
    pub fn mark_masked(mark: u32, mask: u32) -> Match {
        Match::new(Field::Mark, Test::Masked { mask: Data::u32(mask), value: Data::u32(mark) })
    }

    /// Packet mark in a set of marks: `meta mark @SET`.
    #[must_use]
    pub fn mark_in(set: &SetName) -> Match {
        Match::named(Field::Mark, set)
    }

    /// IP version, in an `inet` table: `meta nfproto ipv4`.
    #[must_use]
    pub fn nfproto(version: IpVersion) -> Match {
        Match::new(Field::Nfproto, Test::Is(Data::new(&[version.number()])))
    }

    /// Protocol above IP: `meta l4proto tcp`.
    #[must_use]
    pub fn l4proto(protocol: Protocol) -> Match {
        Match::new(Field::L4proto, Test::Is(Data::new(&[protocol.number()])))
    }

    /// One of several protocols above IP: `meta l4proto { tcp, udp }`.
    pub fn l4proto_in(protocols: impl IntoIterator<Item = Protocol>) -> Match {
        Match::one_of(Field::L4proto, protocols.into_iter().map(Key::from))
    }

    fn interface(field: Field, name: &InterfaceName) -> Match {
        match name.prefix {
            true => Match::new(field, Test::NamePrefix(name.text.clone())),
            false => Match::new(field, Test::Is(Data::interface(&name.text))),
        }
    }

    /// Incoming interface by name, or by the beginning of its name: `iifname "eth0"`, `iifname "veth*"`.
    #[must_use]
    pub fn iifname(name: &InterfaceName) -> Match {
        interface(Field::Iifname, name)
    }

    /// Outgoing interface by name, or by the beginning of its name.
    #[must_use]
    pub fn oifname(name: &InterfaceName) -> Match {
        interface(Field::Oifname, name)
    }

    /// Incoming interface in a set of names: `iifname @SET`.
    #[must_use]
    pub fn iifname_in(set: &SetName) -> Match {
        Match::named(Field::Iifname, set)
    }

    /// Outgoing interface in a set of names.
    #[must_use]
    pub fn oifname_in(set: &SetName) -> Match {
        Match::named(Field::Oifname, set)
    }

    /// Incoming interface by index, faster than by name but gone with the interface: `iif 2`.
    #[must_use]
    pub fn iif(index: u32) -> Match {
        Match::key(Field::Iif, Value::interface_index(index).into())
    }

    /// Outgoing interface by index.
    #[must_use]
    pub fn oif(index: u32) -> Match {
        Match::key(Field::Oif, Value::interface_index(index).into())
    }

    /// To whom a packet was addressed on the link.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum PacketType {
        /// To all.
        Broadcast,
        /// To us.
        Host,
        /// To a group.
        Multicast,
        /// To somebody else.
        Other,
    }

    /// To whom the packet was addressed on the link: `meta pkttype broadcast`.
    #[must_use]
    pub fn pkttype(kind: PacketType) -> Match {
        let number = match kind {
            PacketType::Host => 0,
            PacketType::Broadcast => 1,
            PacketType::Multicast => 2,
            PacketType::Other => 3,
        };
        Match::new(Field::PktType, Test::Is(Data::new(&[number])))
    }
}

/// What connection tracking knows about a packet.
pub mod ct {
    use super::{Data, Field, Match, Mistake, Test};

    /// State of a connection, seen from the packet.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum State {
        /// Both directions have been seen.
        Established,
        /// Belongs to no connection.
        Invalid,
        /// The first packet.
        New,
        /// Starts a connection that another one announced.
        Related,
        /// Not tracked.
        Untracked,
    }

    /// Status bits of a connection.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum Status {
        /// Kept even when the table is full.
        Assured,
        /// In the table.
        Confirmed,
        /// Destination was translated.
        Dnat,
        /// About to be removed.
        Dying,
        /// Announced by another one.
        Expected,
        /// Both directions have been seen.
        SeenReply,
        /// Source was translated.
        Snat,
    }

    /// Direction of a packet in its connection.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum Direction {
        /// As the first packet.
        Original,
        /// The other way.
        Reply,
    }

    fn bits(field: Field, bits: impl Iterator<Item = u32>) -> Match {
        let bits = bits.fold(0, |sum, bit| sum | bit);
        let mistake = (bits == 0).then_some(Mistake::NothingToMatch);
        Match { mistake, ..Match::new(field, Test::AnyBit(Data::u32(bits))) }
    }

    /// In one of these states: `ct state established,related`. Turned around with `!`: in none of them.
    pub fn state(states: impl IntoIterator<Item = State>) -> Match {
        bits(
            Field::CtState,
            states.into_iter().map(|state| match state {
                State::Invalid => 0x1,
                State::Established => 0x2,
                State::Related => 0x4,
                State::New => 0x8,
                State::Untracked => 0x40,
            }),
        )
    }

    /// With one of these bits: `ct status dnat`. Turned around with `!`: with none of them.
    pub fn status(status: impl IntoIterator<Item = Status>) -> Match {
        bits(
            Field::CtStatus,
            status.into_iter().map(|status| match status {
                Status::Expected => 0x1,
                Status::SeenReply => 0x2,
                Status::Assured => 0x4,
                Status::Confirmed => 0x8,
                Status::Snat => 0x10,
                Status::Dnat => 0x20,
                Status::Dying => 0x200,
            }),
        )
    }

    /// In this direction: `ct direction reply`.
    #[must_use]
    pub fn direction(direction: Direction) -> Match {
        let number = match direction {
            Direction::Original => 0,
            Direction::Reply => 1,
        };
        Match::new(Field::CtDirection, Test::Is(Data::new(&[number])))
    }

    /// Connection mark, all 32 bits: `ct mark 0x1`.
    #[must_use]
    pub fn mark(mark: u32) -> Match {
        Match::new(Field::CtMark, Test::Is(Data::u32(mark)))
    }

    /// Connection mark, the bits under `mask` only: `ct mark & 0xff == 0x1`.
    #[must_use]
    pub fn mark_masked(mark: u32, mask: u32) -> Match {
        Match::new(Field::CtMark, Test::Masked { mask: Data::u32(mask), value: Data::u32(mark) })
    }
}

/// What the routing table says about a packet's addresses.
pub mod fib {
    use super::{Body, Data, Datatype, Field, Key, Maps, Match, Source, Span, Test};

    /// Kind of an address (`RTN_*`).
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum AddressType {
        /// Somebody's, one of several.
        Anycast,
        /// Dropped.
        Blackhole,
        /// Everybody's on a link.
        Broadcast,
        /// This host's.
        Local,
        /// A group's.
        Multicast,
        /// Refused as forbidden.
        Prohibit,
        /// Another host's.
        Unicast,
        /// Refused as unreachable.
        Unreachable,
    }

    fn data(kind: AddressType) -> Data {
        Data::u32(match kind {
            AddressType::Unicast => 1,
            AddressType::Local => 2,
            AddressType::Broadcast => 3,
            AddressType::Anycast => 4,
            AddressType::Multicast => 5,
            AddressType::Blackhole => 6,
            AddressType::Unreachable => 7,
            AddressType::Prohibit => 8,
        })
    }

    fn address_type(field: Field, kinds: impl IntoIterator<Item = AddressType>) -> Match {
        let kinds: Vec<Data> = kinds.into_iter().map(data).collect();
        match kinds.as_slice() {
            [kind] => Match::new(field, Test::Is(kind.clone())),
            _ => {
                let key =
                    |data| Key { datatype: Datatype::FibAddrtype, span: Span::One(data), mistake: None };
                let keys = kinds.into_iter().map(|data| (key(data), Body::default()));
                Match::new(field, Test::In(Source::inline(Datatype::FibAddrtype, Maps::Nothing, keys)))
            }
        }
    }

    /// Kind of the source address: `fib saddr type local`.
    pub fn saddr_type(kinds: impl IntoIterator<Item = AddressType>) -> Match {
        address_type(Field::FibSaddrType, kinds)
    }

    /// Kind of the destination address: `fib daddr type { local, broadcast }`.
    pub fn daddr_type(kinds: impl IntoIterator<Item = AddressType>) -> Match {
        address_type(Field::FibDaddrType, kinds)
    }
}

macro_rules! transport {
    ($(#[$doc:meta])* $module:ident, $protocol:expr) => {
        $(#[$doc])*
        pub mod $module {
            use super::{Field, Match, Ports};

            /// Source port.
            pub fn sport(ports: impl Into<Ports>) -> Match {
                ports.into().matched(Field::Sport($protocol))
            }

            /// Destination port.
            pub fn dport(ports: impl Into<Ports>) -> Match {
                ports.into().matched(Field::Dport($protocol))
            }
        }
    };
}

transport!(
    /// UDP ports: `udp dport 53`. Demands UDP.
    udp,
    Some(crate::Protocol::UDP)
);
transport!(
    /// SCTP ports: `sctp dport 36412`. Demands SCTP.
    sctp,
    Some(crate::Protocol::SCTP)
);
transport!(
    /// Ports of whatever protocol has them in the usual place: `th dport 53`. Demand the protocol yourself, with
    /// [`meta::l4proto_in`].
    th,
    None
);

/// The TCP header. Demands TCP.
pub mod tcp {
    use super::{Data, Field, Match, Ports, Test};
    use crate::data::Protocol;

    /// Source port.
    pub fn sport(ports: impl Into<Ports>) -> Match {
        ports.into().matched(Field::Sport(Some(Protocol::TCP)))
    }

    /// Destination port: `tcp dport 80`, `tcp dport { 80, 443 }`, `tcp dport 1000-2000`.
    pub fn dport(ports: impl Into<Ports>) -> Match {
        ports.into().matched(Field::Dport(Some(Protocol::TCP)))
    }

    /// The first packet of a direction, SYN without RST: `tcp flags syn / syn,rst`. What
    /// [`Rule::clamp_mss`](crate::Rule::clamp_mss) wants in front of it.
    #[must_use]
    pub fn syn() -> Match {
        Match::new(Field::TcpFlags, Test::Masked { mask: Data::new(&[0x06]), value: Data::new(&[0x02]) })
    }
}
