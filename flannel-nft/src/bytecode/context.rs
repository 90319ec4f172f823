//! What the statements of a rule say about the packet's protocols, and the matches that a field
//! needs before it: `tcp dport` needs `meta l4proto tcp`.

use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::expression::Term;
use crate::model::exthdr::Exthdr;
use crate::model::family::Family;
use crate::model::field::{Field, Kind, meta};
use crate::model::field::{GENEVE_VNI, Inner, VXLAN_FLAGS, VXLAN_VNI};
use crate::model::header::{self, Header, Payload};
use crate::model::matching::{Match, Test};
use crate::model::protocol::Protocol;
use crate::model::statement::{Reject, Statement};
use crate::model::tunnel::Tunnel;
use crate::uapi::*;

/// The protocols that all packets have which reach the next statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    family: Family,
    is_ethernet: bool,
    has_vlan: bool,
    /// `ETH_P_*`.
    pub(crate) network: Option<u32>,
    /// `IPPROTO_*`.
    pub(crate) transport: Option<u8>,
    icmp_type: Option<u8>,
    inside: Option<Inside>,
}

/// What is known of the packet inside of a tunnel.
#[derive(Clone, Copy, Debug)]
struct Inside {
    tunnel: Tunnel,
    has_vlan: bool,
    network: Option<u32>,
    transport: Option<u8>,
}

impl Context {
    /// At the start of a rule.
    pub(crate) fn new(family: Family) -> Self {
        let network = match family {
            Family::Ip => Some(ETH_P_IP),
            Family::Ip6 => Some(ETH_P_IPV6),
            Family::Arp => Some(ETH_P_ARP),
            Family::Bridge | Family::Inet | Family::Netdev => None,
        };
        let is_ethernet = family == Family::Bridge;
        Self { family, is_ethernet, has_vlan: false, network, transport: None, icmp_type: None, inside: None }
    }

    /// The matches that a statement needs before it.
    pub(crate) fn needed(&self, statement: &Statement) -> Result<Vec<Match>, InvalidRule> {
        let (mut context, mut needed, mut done) = (*self, Vec::new(), Ok(()));
        // nft prints `ether type 8021q` before a match of one `vlan type`, so it is a match of its own.
        context.has_vlan |= matches!(
            statement,
            Statement::Match(Match { left: Term::Field(header::vlan::TYPE), test: Test::Is(_), .. })
        );
        statement.each_term(&mut |term: &Term| {
            term.each_field(&mut |field| {
                if done.is_ok() {
                    done = context.need_field(field, &mut needed);
                }
            });
        });
        done.map(|()| needed)
    }

    /// The match that a rule needs at its start, because one of its statements rejects packets of
    /// one protocol: otherwise the statements before it would also run for other packets.
    pub(crate) fn needed_at_start(&self, statements: &[Statement]) -> Result<Vec<Match>, InvalidRule> {
        let (mut context, mut needed) = (*self, Vec::new());
        for statement in statements {
            match statement {
                Statement::Reject(Reject::TcpReset) => context.need_transport(IPPROTO_TCP, &mut needed)?,
                Statement::Reject(Reject::Icmp(_)) => context.need_rejected(ETH_P_IP, &mut needed)?,
                Statement::Reject(Reject::Icmpv6(_)) => context.need_rejected(ETH_P_IPV6, &mut needed)?,
                _ => context.follow(statement)?,
            }
        }
        Ok(needed)
    }

    fn need_rejected(&mut self, protocol: u32, needed: &mut Vec<Match>) -> Result<(), InvalidRule> {
        let what = if protocol == ETH_P_IP { "reject with icmp" } else { "reject with icmpv6" };
        self.need_network(protocol, || what.to_owned(), false, needed)
    }

    /// Takes note of a statement and of the matches that it needs.
    pub(crate) fn follow(&mut self, statement: &Statement) -> Result<(), InvalidRule> {
        for needed in self.needed(statement)? {
            self.learn(&needed);
        }
        self.note(statement);
        Ok(())
    }

    /// Takes note of a statement, after the matches that it needs.
    pub(crate) fn note(&mut self, statement: &Statement) {
        match statement {
            Statement::Match(condition) => self.learn(condition),
            Statement::Adjacent(fields) => {
                fields.iter().for_each(|(field, data)| self.learn_equal(*field, data));
            }
            _ => {}
        }
    }

    pub(crate) fn learn(&mut self, condition: &Match) {
        if let Match { left: Term::Field(field), test: Test::Is(data), inverted: false, .. } = condition {
            self.learn_equal(*field, data);
        }
    }

    /// Whether the match says that the packet has an Ethernet header.
    pub(crate) fn learns_ethernet(mut self, condition: &Match) -> bool {
        self.is_ethernet = false;
        self.learn(condition);
        self.is_ethernet
    }

    fn learn_equal(&mut self, field: Field, data: &Data) {
        let number = data.be_u16().map(u32::from);
        match field {
            meta::L4PROTO | header::ip::PROTOCOL | header::ip6::NEXTHDR => self.transport = data.u8(),
            meta::NFPROTO => self.network = data.u8().and_then(network_of),
            header::ether::TYPE | header::vlan::TYPE
                if matches!(number, Some(ETH_P_8021Q | ETH_P_8021AD)) =>
            {
                self.has_vlan = true;
            }
            meta::PROTOCOL | header::ether::TYPE | header::vlan::TYPE => self.network = number,
            Field(Kind::Inner { tunnel, inner }) => {
                let mut inside = self.inside(tunnel);
                match inner {
                    Inner::Meta(NFT_META_PROTOCOL) => inside.network = number,
                    Inner::Meta(_) => inside.transport = data.u8(),
                    Inner::Payload(payload) => match Field(Kind::Payload(payload)) {
                        header::ether::TYPE if number == Some(ETH_P_8021Q) => inside.has_vlan = true,
                        header::ether::TYPE | header::vlan::TYPE => inside.network = number,
                        header::ip::PROTOCOL | header::ip6::NEXTHDR => inside.transport = data.u8(),
                        _ => {}
                    },
                }
                self.inside = Some(inside);
            }
            meta::IIFTYPE => self.is_ethernet = *data == ethernet(),
            header::icmp::TYPE | header::icmpv6::TYPE => self.icmp_type = data.u8(),
            _ => {}
        }
    }

    /// The field at this place, in bits, of the header that is known to be there.
    pub(crate) fn field_at(&self, base: u32, offset: u32, length: u32) -> Option<Field> {
        let field = header::find(self.header(base, offset)?, offset, length)?;
        Some(match (field, self.icmp_type) {
            (header::icmp::SEQUENCE, Some(ICMP_DEST_UNREACH)) => header::icmp::MTU,
            (header::icmpv6::MTU, Some(ICMPV6_PARAMPROB)) => header::icmpv6::PARAMETER_PROBLEM,
            (header::icmpv6::ID, Some(ICMPV6_MGM_QUERY)) => header::icmpv6::MAX_DELAY,
            (field, _) => field,
        })
    }

    /// The header that is known to be at this place, in bits.
    pub(crate) fn header(&self, base: u32, offset: u32) -> Option<Header> {
        match base {
            NFT_PAYLOAD_LL_HEADER if !self.is_ethernet => None,
            NFT_PAYLOAD_LL_HEADER if offset < 112 => Some(Header::Ether),
            NFT_PAYLOAD_LL_HEADER => self.has_vlan.then_some(Header::Vlan),
            NFT_PAYLOAD_NETWORK_HEADER => header_of_network(self.network?),
            NFT_PAYLOAD_TRANSPORT_HEADER => header_of_transport(self.transport),
            _ => None,
        }
    }

    /// Whether a match of the field can be one that a later statement needs.
    pub(crate) fn is_protocol(field: Field) -> bool {
        match field.0 {
            Kind::Inner { inner: Inner::Meta(_), .. } => true,
            Kind::Meta(key) => {
                matches!(key, NFT_META_L4PROTO | NFT_META_NFPROTO | NFT_META_PROTOCOL | NFT_META_IIFTYPE)
            }
            Kind::Payload(payload) => payload.name == "type",
            _ => false,
        }
    }

    fn need(&mut self, field: Field, data: Data, needed: &mut Vec<Match>) {
        self.learn_equal(field, &data);
        needed.push(Match::new(field, Test::Is(data)));
    }

    fn need_field(&mut self, field: Field, needed: &mut Vec<Match>) -> Result<(), InvalidRule> {
        match field.0 {
            Kind::Payload(payload) => self.need_header(field, payload, needed),
            Kind::Inner { tunnel, inner } => self.need_inside(tunnel, inner, needed),
            Kind::Exthdr(Exthdr { op: NFT_EXTHDR_OP_IPV4, .. }) => {
                self.need_network(ETH_P_IP, || "ip option".to_owned(), false, needed)
            }
            Kind::Exthdr(Exthdr { op: NFT_EXTHDR_OP_IPV6, header, .. }) => {
                self.need_network(ETH_P_IPV6, || header.to_owned(), false, needed)
            }
            Kind::Meta(NFT_META_NFPROTO) if self.family != Family::Inet => Err(self.wrong("meta nfproto")),
            _ => Ok(()),
        }
    }

    fn need_inside(
        &mut self,
        tunnel: Tunnel,
        inner: Inner,
        needed: &mut Vec<Match>,
    ) -> Result<(), InvalidRule> {
        if let Some(transport) = tunnel.transport() {
            self.need_transport(transport, needed)?;
        }
        let Inner::Payload(Payload { header, .. }) = inner else { return Ok(()) };
        let of_tunnel = |key| Field(Kind::Inner { tunnel, inner: Inner::Meta(key) });
        let (inside, transport) = (self.inside(tunnel), header.transport());
        if header == Header::Vlan && !inside.has_vlan {
            self.need(header::ether::TYPE.inside(tunnel), protocol_data(ETH_P_8021Q), needed);
        }
        let is_known = transport.is_some() && transport == inside.transport;
        if let Some(network) =
            header.network().filter(|network| !is_known && inside.network != Some(*network))
        {
            self.need(of_tunnel(NFT_META_PROTOCOL), protocol_data(network), needed);
        }
        if let Some(transport) = transport.filter(|_| !is_known) {
            self.need(of_tunnel(NFT_META_L4PROTO), Data::new(&[transport]), needed);
        }
        Ok(())
    }

    fn inside(&self, tunnel: Tunnel) -> Inside {
        let known = self.inside.filter(|inside| inside.tunnel == tunnel);
        known.unwrap_or(Inside { tunnel, has_vlan: false, network: None, transport: None })
    }

    /// The header that is known to be at this place inside of a tunnel.
    fn header_inside(&self, tunnel: Tunnel, base: u32, offset: u32) -> Option<Header> {
        let inside = self.inside(tunnel);
        match base {
            NFT_PAYLOAD_TUN_HEADER => tunnel.header(),
            NFT_PAYLOAD_LL_HEADER if offset >= 112 && inside.has_vlan => Some(Header::Vlan),
            NFT_PAYLOAD_LL_HEADER => Some(Header::Ether),
            NFT_PAYLOAD_NETWORK_HEADER => header_of_network(inside.network?),
            NFT_PAYLOAD_TRANSPORT_HEADER => header_of_transport(inside.transport),
            _ => None,
        }
    }

    /// The field at this place, in bits, inside of a tunnel.
    pub(crate) fn field_inside(&self, tunnel: Tunnel, base: u32, offset: u32, length: u32) -> Option<Field> {
        let own = [VXLAN_FLAGS, VXLAN_VNI, GENEVE_VNI].into_iter();
        if base == NFT_PAYLOAD_TUN_HEADER {
            let is_there = |field: &Field| (field.offset(), field.bits()) == (offset, length);
            let is_own =
                |field: &Field| matches!(field.0, Kind::Inner { tunnel: found, .. } if found == tunnel);
            return own.filter(is_there).find(is_own);
        }
        let field = header::find(self.header_inside(tunnel, base, offset)?, offset, length)?;
        Some(field.inside(tunnel))
    }

    /// Bytes of a header inside of a tunnel, which have no name.
    pub(crate) fn unnamed_inside(
        &self,
        tunnel: Tunnel,
        base: u32,
        offset: u32,
        length: u32,
    ) -> Option<Field> {
        let header = self.header_inside(tunnel, base, offset)?;
        let datatype = Datatype::Integer { length: u8::try_from(length / 8).ok()?, host: false };
        Some(Field(Kind::Payload(Payload { header, name: "@", offset, length, datatype })).inside(tunnel))
    }

    fn need_header(
        &mut self,
        field: Field,
        payload: Payload,
        needed: &mut Vec<Match>,
    ) -> Result<(), InvalidRule> {
        let Payload { header, name, .. } = payload;
        if header.base() == NFT_PAYLOAD_LL_HEADER && !self.is_ethernet {
            self.need(meta::IIFTYPE, ethernet(), needed);
        }
        if header == Header::Vlan && !self.has_vlan {
            self.need(header::ether::TYPE, protocol_data(ETH_P_8021Q), needed);
        }
        let is_known = header.transport().is_some() && header.transport() == self.transport;
        if let Some(network) = header.network().filter(|_| !is_known) {
            let by_type = header.transport().is_some() || header == Header::Arp;
            self.need_network(network, || format!("{} {name}", header.name()), by_type, needed)?;
        }
        if let Some(transport) = header.transport() {
            self.need_transport(transport, needed)?;
        }
        let message = match field {
            header::icmp::MTU => Some((header::icmp::TYPE, ICMP_DEST_UNREACH)),
            header::icmp::GATEWAY => Some((header::icmp::TYPE, ICMP_REDIRECT)),
            header::icmpv6::MTU => Some((header::icmpv6::TYPE, ICMPV6_PKT_TOOBIG)),
            header::icmpv6::PARAMETER_PROBLEM => Some((header::icmpv6::TYPE, ICMPV6_PARAMPROB)),
            header::icmpv6::MAX_DELAY => Some((header::icmpv6::TYPE, ICMPV6_MGM_QUERY)),
            _ => None,
        };
        if let Some((field, number)) = message.filter(|(_, number)| self.icmp_type != Some(*number)) {
            self.need(field, Data::new(&[number]), needed);
        }
        Ok(())
    }

    fn need_transport(&mut self, protocol: u8, needed: &mut Vec<Match>) -> Result<(), InvalidRule> {
        match self.transport {
            Some(known) if known == protocol => {}
            Some(known) => {
                let (known, wanted) = (Protocol::new(known).to_string(), Protocol::new(protocol).to_string());
                return Err(InvalidRule::Contradiction { known, wanted });
            }
            None => self.need(meta::L4PROTO, Data::new(&[protocol]), needed),
        }
        Ok(())
    }

    fn need_network(
        &mut self,
        protocol: u32,
        object: impl Fn() -> String,
        by_type: bool,
        needed: &mut Vec<Match>,
    ) -> Result<(), InvalidRule> {
        let contradiction = |known: u32| {
            let (known, wanted) = (network_name(known), network_name(protocol));
            InvalidRule::Contradiction { known, wanted }
        };
        match (self.network, self.family) {
            (Some(known), _) if known == protocol => {}
            (_, Family::Ip | Family::Ip6 | Family::Arp) => return Err(self.wrong(&object())),
            (Some(known), _) => return Err(contradiction(known)),
            (None, Family::Inet) => match nfproto_of(protocol) {
                Some(number) => self.need(meta::NFPROTO, Data::new(&[number]), needed),
                None => return Err(self.wrong(&object())),
            },
            (None, _) if self.has_vlan => self.need(header::vlan::TYPE, protocol_data(protocol), needed),
            (None, Family::Bridge) if by_type => {
                self.need(header::ether::TYPE, protocol_data(protocol), needed);
            }
            (None, _) => self.need(meta::PROTOCOL, protocol_data(protocol), needed),
        }
        Ok(())
    }

    fn wrong(&self, object: &str) -> InvalidRule {
        InvalidRule::WrongFamily { object: object.to_owned(), family: self.family.name() }
    }
}

fn ethernet() -> Data {
    Datatype::IfaceType.data_of(ARPHRD_ETHER.into(), 2)
}

fn protocol_data(protocol: u32) -> Data {
    Datatype::EtherType.data_of(protocol.into(), 2)
}

fn header_of_network(protocol: u32) -> Option<Header> {
    match protocol {
        ETH_P_IP => Some(Header::Ip),
        ETH_P_IPV6 => Some(Header::Ip6),
        ETH_P_ARP => Some(Header::Arp),
        _ => None,
    }
}

fn header_of_transport(protocol: Option<u8>) -> Option<Header> {
    match protocol {
        Some(_) => {
            header::FIELDS.iter().map(|(header, _)| *header).find(|header| header.transport() == protocol)
        }
        None => Some(Header::Th),
    }
}

fn network_of(nfproto: u8) -> Option<u32> {
    match nfproto {
        NFPROTO_IPV4 => Some(ETH_P_IP),
        NFPROTO_IPV6 => Some(ETH_P_IPV6),
        _ => None,
    }
}

fn nfproto_of(protocol: u32) -> Option<u8> {
    match protocol {
        ETH_P_IP => Some(NFPROTO_IPV4),
        ETH_P_IPV6 => Some(NFPROTO_IPV6),
        _ => None,
    }
}

fn network_name(protocol: u32) -> String {
    match protocol {
        ETH_P_IP => "ip".to_owned(),
        ETH_P_IPV6 => "ip6".to_owned(),
        ETH_P_ARP => "arp".to_owned(),
        other => format!("ether type 0x{other:04x}"),
    }
}
