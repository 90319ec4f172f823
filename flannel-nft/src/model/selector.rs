//! Selectors: the left-hand sides of matches.
//!
//! The modules have nft's names: [`ip::saddr`], [`tcp::dport`], [`meta::oifname`], [`ct::state`],
//! [`fib::daddr_type`]. `!` inverts a match.

use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::element::{Body, Key, Span};
use crate::model::field::{self, Field, Kind};
use crate::model::header;
use crate::model::matching::{IpVersion, Match, Source, Test};
use crate::model::name::{InterfaceName, SetName};
use crate::model::operand::{Addresses, Ports};
use crate::model::protocol::Protocol;
use crate::model::set::Maps;
use crate::model::value::Value;

/// IP header. In an `inet` table, a match on addresses also matches the IP version, as in nft.
pub mod ip {
    use super::{Addresses, Data, IpVersion, Match, Protocol, Test, header};

    /// Source address: `ip saddr` or `ip6 saddr`, depending on the type of `addresses`.
    pub fn saddr(addresses: impl Into<Addresses>) -> Match {
        addresses.into().matched(|version| match version {
            IpVersion::V4 => header::ip::SADDR,
            IpVersion::V6 => header::ip6::SADDR,
        })
    }

    /// Destination address: `ip daddr` or `ip6 daddr`, depending on the type of `addresses`.
    pub fn daddr(addresses: impl Into<Addresses>) -> Match {
        addresses.into().matched(|version| match version {
            IpVersion::V4 => header::ip::DADDR,
            IpVersion::V6 => header::ip6::DADDR,
        })
    }

    /// Protocol field of the IPv4 header: `ip protocol`. For both IP versions use
    /// [`super::meta::l4proto`].
    #[must_use]
    pub fn protocol(protocol: Protocol) -> Match {
        Match::new(header::ip::PROTOCOL, Test::Is(Data::new(&[protocol.number()])))
    }
}

/// Metadata of a packet.
pub mod meta {
    use super::{Data, Field, InterfaceName, IpVersion, Key, Match, Protocol, SetName, Test, Value, field};
    use crate::uapi::*;

    /// Packet mark, all 32 bits: `meta mark 0x1`.
    #[must_use]
    pub fn mark(mark: u32) -> Match {
        Match::new(field::meta::MARK, Test::Is(Data::u32(mark)))
    }

    /// Packet mark, only the bits under `mask`: `meta mark & 0x4000 == 0x4000`.
    #[must_use]
    pub fn mark_masked(mark: u32, mask: u32) -> Match {
        Match::new(field::meta::MARK, Test::Masked { mask: Data::u32(mask), value: Data::u32(mark) })
    }

    /// Packet mark in a set of marks: `meta mark @SET`.
    #[must_use]
    pub fn mark_in(set: &SetName) -> Match {
        Match::named(field::meta::MARK, set)
    }

    /// IP version, in an `inet` table: `meta nfproto ipv4`.
    #[must_use]
    pub fn nfproto(version: IpVersion) -> Match {
        Match::new(field::meta::NFPROTO, Test::Is(Data::new(&[version.number()])))
    }

    /// Layer 4 protocol: `meta l4proto tcp`.
    #[must_use]
    pub fn l4proto(protocol: Protocol) -> Match {
        Match::new(field::meta::L4PROTO, Test::Is(Data::new(&[protocol.number()])))
    }

    /// Several layer 4 protocols: `meta l4proto { tcp, udp }`.
    pub fn l4proto_in(protocols: impl IntoIterator<Item = Protocol>) -> Match {
        Match::one_of(field::meta::L4PROTO, protocols.into_iter().map(Key::from))
    }

    fn interface(field: Field, name: &InterfaceName) -> Match {
        match name.prefix {
            true => Match::new(field, Test::NamePrefix(name.text.clone())),
            false => Match::new(field, Test::Is(Data::interface(&name.text))),
        }
    }

    /// Incoming interface, by name or prefix: `iifname "eth0"`, `iifname "veth*"`.
    #[must_use]
    pub fn iifname(name: &InterfaceName) -> Match {
        interface(field::meta::IIFNAME, name)
    }

    /// Outgoing interface, by name or prefix: `oifname "eth0"`, `oifname "veth*"`.
    #[must_use]
    pub fn oifname(name: &InterfaceName) -> Match {
        interface(field::meta::OIFNAME, name)
    }

    /// Incoming interface, in a named set: `iifname @SET`.
    #[must_use]
    pub fn iifname_in(set: &SetName) -> Match {
        Match::named(field::meta::IIFNAME, set)
    }

    /// Outgoing interface, in a named set: `oifname @SET`.
    #[must_use]
    pub fn oifname_in(set: &SetName) -> Match {
        Match::named(field::meta::OIFNAME, set)
    }

    /// Incoming interface, by index: `iif 2`. Faster than by name, but the index is gone with the
    /// interface.
    #[must_use]
    pub fn iif(index: u32) -> Match {
        Match::key(field::meta::IIF, Value::interface_index(index).into())
    }

    /// Outgoing interface, by index: `oif 2`.
    #[must_use]
    pub fn oif(index: u32) -> Match {
        Match::key(field::meta::OIF, Value::interface_index(index).into())
    }

    /// Destination of a packet on the link.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    #[non_exhaustive]
    pub enum PacketType {
        /// All stations.
        Broadcast,
        /// This host.
        Host,
        /// A multicast group.
        Multicast,
        /// Another station.
        Other,
    }

    /// Destination of the packet on the link: `meta pkttype broadcast`.
    #[must_use]
    pub fn pkttype(kind: PacketType) -> Match {
        let number = match kind {
            PacketType::Host => PACKET_HOST,
            PacketType::Broadcast => PACKET_BROADCAST,
            PacketType::Multicast => PACKET_MULTICAST,
            PacketType::Other => PACKET_OTHERHOST,
        };
        Match::new(field::meta::PKTTYPE, Test::Is(Data::new(&[number])))
    }
}

/// Connection tracking.
pub mod ct {
    use super::{Data, Field, InvalidRule, Match, Test, field};
    use crate::model::symbols::state_bit;
    use crate::uapi::*;

    /// State of the connection that a packet belongs to.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum State {
        /// The connection has seen packets in both directions.
        Established,
        /// The packet belongs to no connection.
        Invalid,
        /// The packet starts a connection.
        New,
        /// The packet starts a connection that another connection announced.
        Related,
        /// The packet is not tracked.
        Untracked,
    }

    /// Status bits of a connection.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    #[non_exhaustive]
    pub enum Status {
        /// Kept even if the table is full.
        Assured,
        /// Confirmed: in the table.
        Confirmed,
        /// The destination is translated.
        Dnat,
        /// About to be removed.
        Dying,
        /// Announced by another connection.
        Expected,
        /// Packets were seen in both directions.
        SeenReply,
        /// The source is translated.
        Snat,
    }

    /// Direction of a packet in its connection.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum Direction {
        /// The direction of the first packet.
        Original,
        /// The opposite direction.
        Reply,
    }

    fn bits(field: Field, bits: impl Iterator<Item = u32>) -> Match {
        let bits = bits.fold(0, |sum, bit| sum | bit);
        let invalid = (bits == 0).then_some(InvalidRule::NothingToMatch);
        Match { invalid, ..Match::new(field, Test::AnyBit(Data::u32(bits))) }
    }

    /// In one of these states: `ct state established,related`. Inverted with `!`: in none of them.
    pub fn state(states: impl IntoIterator<Item = State>) -> Match {
        bits(
            field::ct::STATE,
            states.into_iter().map(|state| match state {
                State::Invalid => NF_CT_STATE_INVALID_BIT,
                State::Established => state_bit(IP_CT_ESTABLISHED),
                State::Related => state_bit(IP_CT_RELATED),
                State::New => state_bit(IP_CT_NEW),
                State::Untracked => NF_CT_STATE_UNTRACKED_BIT,
            }),
        )
    }

    /// With one of these bits: `ct status dnat`. Inverted with `!`: with none of them.
    pub fn status(status: impl IntoIterator<Item = Status>) -> Match {
        bits(
            field::ct::STATUS,
            status.into_iter().map(|status| match status {
                Status::Expected => IPS_EXPECTED,
                Status::SeenReply => IPS_SEEN_REPLY,
                Status::Assured => IPS_ASSURED,
                Status::Confirmed => IPS_CONFIRMED,
                Status::Snat => IPS_SRC_NAT,
                Status::Dnat => IPS_DST_NAT,
                Status::Dying => IPS_DYING,
            }),
        )
    }

    /// Direction: `ct direction reply`.
    #[must_use]
    pub fn direction(direction: Direction) -> Match {
        let number = match direction {
            Direction::Original => IP_CT_DIR_ORIGINAL,
            Direction::Reply => IP_CT_DIR_REPLY,
        };
        Match::new(field::ct::DIRECTION, Test::Is(Data::new(&[number])))
    }

    /// Connection mark, all 32 bits: `ct mark 0x1`.
    #[must_use]
    pub fn mark(mark: u32) -> Match {
        Match::new(field::ct::MARK, Test::Is(Data::u32(mark)))
    }

    /// Connection mark, only the bits under `mask`: `ct mark & 0xff == 0x1`.
    #[must_use]
    pub fn mark_masked(mark: u32, mask: u32) -> Match {
        Match::new(field::ct::MARK, Test::Masked { mask: Data::u32(mask), value: Data::u32(mark) })
    }
}

/// Routing table lookups.
pub mod fib {
    use super::{Body, Data, Datatype, Field, Key, Kind, Maps, Match, Source, Span, Test};
    use crate::uapi::*;

    /// Type of an address (`RTN_*`).
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    #[non_exhaustive]
    pub enum AddressType {
        /// An anycast address.
        Anycast,
        /// A blackhole route: dropped.
        Blackhole,
        /// A broadcast address.
        Broadcast,
        /// An address of this host.
        Local,
        /// A multicast address.
        Multicast,
        /// A prohibit route: refused as forbidden.
        Prohibit,
        /// An address of another host.
        Unicast,
        /// An unreachable route: refused as unreachable.
        Unreachable,
    }

    const TYPE_OF_SADDR: Field =
        Field(Kind::Fib { result: NFT_FIB_RESULT_ADDRTYPE, flags: NFTA_FIB_F_SADDR });
    const TYPE_OF_DADDR: Field =
        Field(Kind::Fib { result: NFT_FIB_RESULT_ADDRTYPE, flags: NFTA_FIB_F_DADDR });

    fn data(kind: AddressType) -> Data {
        Data::u32(match kind {
            AddressType::Unicast => RTN_UNICAST,
            AddressType::Local => RTN_LOCAL,
            AddressType::Broadcast => RTN_BROADCAST,
            AddressType::Anycast => RTN_ANYCAST,
            AddressType::Multicast => RTN_MULTICAST,
            AddressType::Blackhole => RTN_BLACKHOLE,
            AddressType::Unreachable => RTN_UNREACHABLE,
            AddressType::Prohibit => RTN_PROHIBIT,
        })
    }

    fn address_type(field: Field, kinds: impl IntoIterator<Item = AddressType>) -> Match {
        let kinds: Vec<Data> = kinds.into_iter().map(data).collect();
        match kinds.as_slice() {
            [kind] => Match::new(field, Test::Is(kind.clone())),
            _ => {
                let key =
                    |data| Key { datatype: Datatype::FibAddrtype, span: Span::One(data), invalid: None };
                let keys = kinds.into_iter().map(|data| (key(data), Body::default()));
                Match::new(field, Test::In(Source::inline(Datatype::FibAddrtype, Maps::Nothing, keys)))
            }
        }
    }

    /// Type of the source address: `fib saddr type local`.
    pub fn saddr_type(kinds: impl IntoIterator<Item = AddressType>) -> Match {
        address_type(TYPE_OF_SADDR, kinds)
    }

    /// Type of the destination address: `fib daddr type { local, broadcast }`.
    pub fn daddr_type(kinds: impl IntoIterator<Item = AddressType>) -> Match {
        address_type(TYPE_OF_DADDR, kinds)
    }
}

macro_rules! transport {
    ($(#[$doc:meta])* $module:ident) => {
        $(#[$doc])*
        pub mod $module {
            use super::{Match, Ports, header};

            /// Source port, for example `udp sport 53`.
            pub fn sport(ports: impl Into<Ports>) -> Match {
                ports.into().matched(header::$module::SPORT)
            }

            /// Destination port, for example `udp dport 53`.
            pub fn dport(ports: impl Into<Ports>) -> Match {
                ports.into().matched(header::$module::DPORT)
            }
        }
    };
}

transport!(
    /// UDP ports: `udp dport 53`. Matches the protocol too.
    udp
);
transport!(
    /// SCTP ports: `sctp dport 36412`. Matches the protocol too.
    sctp
);
transport!(
    /// Ports of any protocol that has them in the first four bytes: `th dport 53`. Does not match
    /// the protocol; add [`meta::l4proto_in`].
    th
);

/// TCP header. Matches the protocol too.
pub mod tcp {
    use super::{Data, Match, Ports, Test, header};

    const SYN: u8 = 0x2;
    const RST: u8 = 0x4;

    /// Source port: `tcp sport 80`.
    pub fn sport(ports: impl Into<Ports>) -> Match {
        ports.into().matched(header::tcp::SPORT)
    }

    /// Destination port: `tcp dport 80`, `tcp dport { 80, 443 }`, `tcp dport 1000-2000`.
    pub fn dport(ports: impl Into<Ports>) -> Match {
        ports.into().matched(header::tcp::DPORT)
    }

    /// The first packet of a direction, SYN without RST: `tcp flags & (syn | rst) == syn`.
    #[must_use]
    pub fn syn() -> Match {
        Match::new(
            header::tcp::FLAGS,
            Test::Masked { mask: Data::new(&[SYN | RST]), value: Data::new(&[SYN]) },
        )
    }
}
