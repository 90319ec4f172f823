//! From rules to the expressions that the kernel runs.

use crate::bytecode::expr::{Expr, offset};
use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::family::Family;
use crate::model::matching::{Field, IpVersion, Match, Source, Test};
use crate::model::protocol::Protocol;
use crate::model::rule::Rule;
use crate::model::statement::{IpRange, Limit, Log, Mark, Nat, Reject, Statement};
use crate::model::verdict::Verdict;
use crate::uapi::*;

/// Calls `emit` for each expression of the rule. Anonymous sets get IDs from `first_set` on, in the
/// rule's order.
pub(crate) fn linearize(
    rule: &Rule,
    family: Family,
    first_set: u32,
    emit: impl FnMut(Expr),
) -> Result<(), InvalidRule> {
    let nfproto = match family {
        Family::Ip => Some(IpVersion::V4),
        Family::Ip6 => Some(IpVersion::V6),
        _ => None,
    };
    let mut linearizer = Linearizer { family, nfproto, l4proto: None, next_set: first_set, emit };
    // At the start of the rule, like nft: otherwise statements before the reset would also run for
    // other packets.
    let reset = |statement: &Statement| matches!(statement, Statement::Reject(Reject::TcpReset));
    let before = rule.statements.iter().position(reset).and_then(|at| rule.statements.get(..at));
    if before.is_some_and(|before| !before.iter().any(fixes_protocol)) {
        linearizer.require_protocol(Protocol::TCP)?;
    }
    let mut ended = false;
    for statement in &rule.statements {
        if ended && !matches!(statement, Statement::Other(_)) {
            return Err(InvalidRule::Unreachable);
        }
        linearizer.statement(statement)?;
        ended |= matches!(
            statement,
            Statement::Verdict(Verdict::Accept | Verdict::Drop | Verdict::Return | Verdict::Goto(_))
                | Statement::Reject(_)
        );
    }
    Ok(())
}

/// Whether all packets after this statement have the same layer 4 protocol.
pub(crate) fn fixes_protocol(statement: &Statement) -> bool {
    let (field, test) = match statement {
        Statement::ClampMss => return true,
        Statement::Match(condition) => (condition.field, Some((&condition.test, condition.inverted))),
        Statement::Vmap { field, .. } => (*field, None),
        _ => return false,
    };
    match field {
        Field::Sport(protocol) | Field::Dport(protocol) => protocol.is_some(),
        Field::TcpFlags => true,
        Field::L4proto | Field::IpProtocol => matches!(test, Some((Test::Is(_), false))),
        _ => false,
    }
}

/// What the expressions so far match, so that no protocol is matched twice.
struct Linearizer<F> {
    family: Family,
    nfproto: Option<IpVersion>,
    l4proto: Option<Protocol>,
    next_set: u32,
    emit: F,
}

impl<F: FnMut(Expr)> Linearizer<F> {
    fn statement(&mut self, statement: &Statement) -> Result<(), InvalidRule> {
        match statement {
            Statement::ClampMss => {
                self.require_protocol(Protocol::TCP)?;
                (self.emit)(Expr::Rt { key: NFT_RT_TCPMSS, dreg: NFT_REG_1 });
                let (sreg, length) = (NFT_REG_1, 2);
                let op = NFT_BYTEORDER_HTON;
                (self.emit)(Expr::Byteorder { sreg, dreg: NFT_REG_1, op, length, size: 2 });
                let (option, op) = (TCPOPT_MAXSEG, NFT_EXTHDR_OP_TCPOPT);
                (self.emit)(Expr::ExthdrWrite { sreg, option, offset: offset::MSS, length, op });
            }
            Statement::Counter { packets, bytes } => {
                (self.emit)(Expr::Counter { packets: *packets, bytes: *bytes });
            }
            Statement::CounterRef(name) => {
                (self.emit)(Expr::Object { kind: NFT_OBJECT_COUNTER, name: name.as_str().into() });
            }
            Statement::CtMark(mark) => {
                self.mark(*mark, false);
                (self.emit)(Expr::CtSet { key: NFT_CT_MARK, sreg: NFT_REG_1 });
            }
            Statement::MetaMark(mark) => {
                self.mark(*mark, true);
                (self.emit)(Expr::MetaSet { key: NFT_META_MARK, sreg: NFT_REG_1 });
            }
            Statement::Limit(limit) => (self.emit)(linearize_limit(limit)),
            Statement::Log(log) => (self.emit)(linearize_log(log)),
            Statement::Match(condition) => self.condition(condition)?,
            Statement::Masquerade(choice) => {
                self.inet_only("masquerade")?;
                let (port_min, port_max) = self.ports(choice, NFT_REG_1);
                (self.emit)(Expr::Masquerade { flags: flags(choice, port_min), port_min, port_max });
            }
            Statement::Redirect(choice) => {
                self.inet_only("redirect")?;
                let (port_min, port_max) = self.ports(choice, NFT_REG_1);
                (self.emit)(Expr::Redirect { flags: flags(choice, port_min), port_min, port_max });
            }
            Statement::Snat { address, nat } => self.nat(NFT_NAT_SNAT, address.as_ref(), nat)?,
            Statement::Dnat { address, nat } => self.nat(NFT_NAT_DNAT, address.as_ref(), nat)?,
            Statement::Notrack => (self.emit)(Expr::Notrack),
            Statement::Other(expr) => (self.emit)(expr.clone()),
            Statement::Reject(kind) => self.reject(*kind)?,
            Statement::Verdict(verdict) => (self.emit)(linearize_verdict(verdict)),
            Statement::Vmap { field, source } => {
                self.load(*field)?;
                self.lookup(source, Some(NFT_REG_VERDICT), false)?;
            }
        }
        Ok(())
    }

    fn condition(&mut self, condition: &Match) -> Result<(), InvalidRule> {
        if let Some(invalid) = &condition.invalid {
            return Err(invalid.clone());
        }
        let equal = if condition.inverted { NFT_CMP_NEQ } else { NFT_CMP_EQ };
        let compare = |data: &Data| Expr::Cmp { sreg: NFT_REG_1, op: equal, data: data.clone() };
        match &condition.test {
            // A prefix of whole bytes is loaded with that length and needs no mask.
            Test::Prefix(address, bits) if bits % 8 == 0 && *bits > 0 => {
                let length = usize::from(*bits / 8);
                self.load_bytes(condition.field, Some(u32::from(*bits / 8)))?;
                (self.emit)(compare(&Data::new(address.as_slice().get(..length).unwrap_or_default())));
            }
            Test::Prefix(address, bits) => {
                self.load(condition.field)?;
                self.mask(Data::mask(*bits, address.len()), Data::zero(address.len()));
                (self.emit)(compare(address));
            }
            Test::Is(data) => {
                self.load(condition.field)?;
                (self.emit)(compare(data));
            }
            Test::NamePrefix(prefix) => {
                self.load(condition.field)?;
                (self.emit)(compare(&Data::new(prefix.as_bytes())));
            }
            Test::Masked { mask, value } => {
                self.load(condition.field)?;
                self.mask(mask.clone(), Data::zero(mask.len()));
                (self.emit)(compare(value));
            }
            Test::AnyBit(bits) => {
                self.load(condition.field)?;
                self.mask(bits.clone(), Data::zero(bits.len()));
                let op = if condition.inverted { NFT_CMP_EQ } else { NFT_CMP_NEQ };
                (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op, data: Data::zero(bits.len()) });
            }
            Test::Range(first, last) => {
                self.load(condition.field)?;
                if condition.inverted {
                    let (from, to) = (first.clone(), last.clone());
                    (self.emit)(Expr::Range { sreg: NFT_REG_1, op: NFT_RANGE_NEQ, from, to });
                } else {
                    (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op: NFT_CMP_GTE, data: first.clone() });
                    (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op: NFT_CMP_LTE, data: last.clone() });
                }
            }
            Test::In(source) => {
                self.load(condition.field)?;
                self.lookup(source, None, condition.inverted)?;
            }
        }
        if let (Test::Is(data), false) = (&condition.test, condition.inverted) {
            match condition.field {
                Field::L4proto | Field::IpProtocol => self.l4proto = data.u8().map(Protocol::new),
                Field::Nfproto => self.nfproto = data.u8().map(version),
                _ => {}
            }
        }
        Ok(())
    }

    fn load(&mut self, field: Field) -> Result<(), InvalidRule> {
        self.load_bytes(field, None)
    }

    /// Loads the field, or its first `bytes`, into the first register, after a match of the
    /// protocol that it needs.
    fn load_bytes(&mut self, field: Field, bytes: Option<u32>) -> Result<(), InvalidRule> {
        let expr = match field {
            Field::Saddr(ip) | Field::Daddr(ip) => {
                self.require_version(ip, field)?;
                let is_source = matches!(field, Field::Saddr(_));
                let (offset, length) = match ip {
                    IpVersion::V4 => (if is_source { offset::IPV4_SADDR } else { offset::IPV4_DADDR }, 4),
                    IpVersion::V6 => (if is_source { offset::IPV6_SADDR } else { offset::IPV6_DADDR }, 16),
                };
                Expr::Payload {
                    base: NFT_PAYLOAD_NETWORK_HEADER,
                    offset,
                    length: bytes.unwrap_or(length),
                    dreg: NFT_REG_1,
                }
            }
            Field::IpProtocol => {
                self.require_version(IpVersion::V4, field)?;
                Expr::Payload {
                    base: NFT_PAYLOAD_NETWORK_HEADER,
                    offset: offset::IPV4_PROTOCOL,
                    length: 1,
                    dreg: NFT_REG_1,
                }
            }
            Field::Sport(protocol) | Field::Dport(protocol) => {
                if let Some(protocol) = protocol {
                    self.require_protocol(protocol)?;
                }
                let offset = if matches!(field, Field::Dport(_)) { offset::DPORT } else { offset::SPORT };
                Expr::Payload { base: NFT_PAYLOAD_TRANSPORT_HEADER, offset, length: 2, dreg: NFT_REG_1 }
            }
            Field::TcpFlags => {
                self.require_protocol(Protocol::TCP)?;
                Expr::Payload {
                    base: NFT_PAYLOAD_TRANSPORT_HEADER,
                    offset: offset::TCP_FLAGS,
                    length: 1,
                    dreg: NFT_REG_1,
                }
            }
            Field::Nfproto if self.family != Family::Inet => {
                return Err(self.wrong_family("meta nfproto"));
            }
            Field::Nfproto => Expr::MetaLoad { key: NFT_META_NFPROTO, dreg: NFT_REG_1 },
            Field::L4proto => Expr::MetaLoad { key: NFT_META_L4PROTO, dreg: NFT_REG_1 },
            Field::Mark => Expr::MetaLoad { key: NFT_META_MARK, dreg: NFT_REG_1 },
            Field::Iif => Expr::MetaLoad { key: NFT_META_IIF, dreg: NFT_REG_1 },
            Field::Oif => Expr::MetaLoad { key: NFT_META_OIF, dreg: NFT_REG_1 },
            Field::Iifname => Expr::MetaLoad { key: NFT_META_IIFNAME, dreg: NFT_REG_1 },
            Field::Oifname => Expr::MetaLoad { key: NFT_META_OIFNAME, dreg: NFT_REG_1 },
            Field::PktType => Expr::MetaLoad { key: NFT_META_PKTTYPE, dreg: NFT_REG_1 },
            Field::CtState => Expr::CtLoad { key: NFT_CT_STATE, dreg: NFT_REG_1 },
            Field::CtStatus => Expr::CtLoad { key: NFT_CT_STATUS, dreg: NFT_REG_1 },
            Field::CtDirection => Expr::CtLoad { key: NFT_CT_DIRECTION, dreg: NFT_REG_1 },
            Field::CtMark => Expr::CtLoad { key: NFT_CT_MARK, dreg: NFT_REG_1 },
            Field::FibSaddrType => {
                Expr::Fib { result: NFT_FIB_RESULT_ADDRTYPE, flags: NFTA_FIB_F_SADDR, dreg: NFT_REG_1 }
            }
            Field::FibDaddrType => {
                Expr::Fib { result: NFT_FIB_RESULT_ADDRTYPE, flags: NFTA_FIB_F_DADDR, dreg: NFT_REG_1 }
            }
        };
        (self.emit)(expr);
        Ok(())
    }

    fn mask(&mut self, mask: Data, xor: Data) {
        (self.emit)(Expr::Bitwise { sreg: NFT_REG_1, dreg: NFT_REG_1, mask, xor });
    }

    fn lookup(&mut self, source: &Source, dreg: Option<u32>, inverted: bool) -> Result<(), InvalidRule> {
        let (set, id) = match source {
            Source::Named(name) => (name.as_str().into(), None),
            Source::Inline(inline) => {
                if let Some(invalid) = &inline.set.invalid {
                    return Err(invalid.clone());
                }
                let id = self.next_set;
                self.next_set += 1;
                (inline.set.name.as_str().into(), Some(id))
            }
        };
        (self.emit)(Expr::Lookup { set, id, sreg: NFT_REG_1, dreg, inverted });
        Ok(())
    }

    fn require_version(&mut self, ip: IpVersion, field: Field) -> Result<(), InvalidRule> {
        if self.nfproto == Some(ip) {
            return Ok(());
        }
        if self.family != Family::Inet {
            let word = match field {
                Field::IpProtocol => "ip protocol",
                Field::Saddr(IpVersion::V4) => "ip saddr",
                Field::Saddr(IpVersion::V6) => "ip6 saddr",
                Field::Daddr(IpVersion::V4) => "ip daddr",
                _ => "ip6 daddr",
            };
            return Err(self.wrong_family(word));
        }
        if let Some(known) = self.nfproto {
            return Err(contradiction(word(known).to_owned(), word(ip).to_owned()));
        }
        (self.emit)(Expr::MetaLoad { key: NFT_META_NFPROTO, dreg: NFT_REG_1 });
        (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op: NFT_CMP_EQ, data: Data::new(&[ip.number()]) });
        self.nfproto = Some(ip);
        Ok(())
    }

    fn require_protocol(&mut self, protocol: Protocol) -> Result<(), InvalidRule> {
        match self.l4proto {
            Some(known) if known == protocol => return Ok(()),
            Some(known) => return Err(contradiction(known.to_string(), protocol.to_string())),
            None => {}
        }
        (self.emit)(Expr::MetaLoad { key: NFT_META_L4PROTO, dreg: NFT_REG_1 });
        (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op: NFT_CMP_EQ, data: Data::new(&[protocol.number()]) });
        self.l4proto = Some(protocol);
        Ok(())
    }

    fn inet_only(&self, word: &str) -> Result<(), InvalidRule> {
        match self.family {
            Family::Inet | Family::Ip | Family::Ip6 => Ok(()),
            _ => Err(self.wrong_family(word)),
        }
    }

    fn wrong_family(&self, object: &str) -> InvalidRule {
        InvalidRule::WrongFamily { object: object.to_owned(), family: self.family.name() }
    }

    fn mark(&mut self, mark: Mark, packet: bool) {
        let load = |packet| match packet {
            true => Expr::MetaLoad { key: NFT_META_MARK, dreg: NFT_REG_1 },
            false => Expr::CtLoad { key: NFT_CT_MARK, dreg: NFT_REG_1 },
        };
        let (mask, xor) = match mark {
            Mark::To(value) => {
                (self.emit)(Expr::Immediate { dreg: NFT_REG_1, data: Data::u32(value) });
                return;
            }
            Mark::Copy { mask } => {
                (self.emit)(load(!packet));
                if mask != u32::MAX {
                    self.mask(Data::u32(mask), Data::u32(0));
                }
                return;
            }
            Mark::Set(bits) => (!bits, bits),
            Mark::Clear(bits) => (!bits, 0),
            Mark::Replace { mask, value } => (!mask, value & mask),
        };
        (self.emit)(load(packet));
        self.mask(Data::u32(mask), Data::u32(xor));
    }

    fn ports(&mut self, choice: &Nat, register: u32) -> (Option<u32>, Option<u32>) {
        let Some(ports) = &choice.ports else { return (None, None) };
        let mut load = |dreg, port: u16| {
            (self.emit)(Expr::Immediate { dreg, data: Data::new(&port.to_be_bytes()) });
        };
        load(register, *ports.start());
        if ports.start() == ports.end() {
            return (Some(register), None);
        }
        load(register + 1, *ports.end());
        (Some(register), Some(register + 1))
    }

    fn nat(&mut self, kind: u32, address: Option<&IpRange>, choice: &Nat) -> Result<(), InvalidRule> {
        let word = if kind == NFT_NAT_SNAT { "snat" } else { "dnat" };
        self.inet_only(word)?;
        let (mut address_min, mut address_max, mut free) = (None, None, NFT_REG_1);
        let mut family = self.family;
        if let Some(range) = address {
            let of_address = if range.is_v4() { Family::Ip } else { Family::Ip6 };
            if family == Family::Inet {
                family = of_address;
            } else if family != of_address {
                return Err(self.wrong_family(&format!("{word} {of_address}")));
            }
            (self.emit)(Expr::Immediate { dreg: NFT_REG_1, data: range.first.clone() });
            (address_min, free) = (Some(NFT_REG_1), NFT_REG_2);
            if range.first != range.last {
                (self.emit)(Expr::Immediate { dreg: NFT_REG_2, data: range.last.clone() });
                (address_max, free) = (Some(NFT_REG_2), NFT_REG_3);
            }
        }
        let (port_min, port_max) = self.ports(choice, free);
        debug_assert!(port_max <= Some(NFT_REG_4), "two addresses and two ports fit into four registers");
        let flags = flags(choice, port_min) | if address_min.is_some() { NF_NAT_RANGE_MAP_IPS } else { 0 };
        let family = u32::from(family.number());
        (self.emit)(Expr::Nat { kind, family, address_min, address_max, port_min, port_max, flags });
        Ok(())
    }

    fn reject(&mut self, kind: Reject) -> Result<(), InvalidRule> {
        let (kind, code) = match (kind, self.family) {
            (Reject::TcpReset, _) => {
                self.require_protocol(Protocol::TCP)?;
                (NFT_REJECT_TCP_RST, 0)
            }
            (kind, Family::Inet) => (
                NFT_REJECT_ICMPX_UNREACH,
                match kind {
                    Reject::NoRoute => NFT_REJECT_ICMPX_NO_ROUTE,
                    Reject::HostUnreachable => NFT_REJECT_ICMPX_HOST_UNREACH,
                    Reject::AdminProhibited => NFT_REJECT_ICMPX_ADMIN_PROHIBITED,
                    _ => NFT_REJECT_ICMPX_PORT_UNREACH,
                },
            ),
            (kind, Family::Ip) => (
                NFT_REJECT_ICMP_UNREACH,
                match kind {
                    Reject::NoRoute => ICMP_NET_UNREACH,
                    Reject::HostUnreachable => ICMP_HOST_UNREACH,
                    Reject::AdminProhibited => ICMP_PKT_FILTERED,
                    _ => ICMP_PORT_UNREACH,
                },
            ),
            (kind, Family::Ip6) => (
                NFT_REJECT_ICMP_UNREACH,
                match kind {
                    Reject::NoRoute => ICMPV6_NOROUTE,
                    Reject::AdminProhibited => ICMPV6_ADM_PROHIBITED,
                    Reject::HostUnreachable => ICMPV6_ADDR_UNREACH,
                    _ => ICMPV6_PORT_UNREACH,
                },
            ),
            _ => return Err(self.wrong_family("reject")),
        };
        (self.emit)(Expr::Reject { kind, code });
        Ok(())
    }
}

fn contradiction(known: String, wanted: String) -> InvalidRule {
    InvalidRule::Contradiction { known, wanted }
}

fn word(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "ip",
        IpVersion::V6 => "ip6",
    }
}

fn version(nfproto: u8) -> IpVersion {
    if nfproto == IpVersion::V4.number() { IpVersion::V4 } else { IpVersion::V6 }
}

fn flags(choice: &Nat, port_min: Option<u32>) -> u32 {
    choice.flags | if port_min.is_some() { NF_NAT_RANGE_PROTO_SPECIFIED } else { 0 }
}

pub(crate) fn linearize_verdict(verdict: &Verdict) -> Expr {
    let (code, chain) = verdict.code();
    Expr::Verdict { code, chain: chain.cloned(), id: None }
}

fn linearize_limit(limit: &Limit) -> Expr {
    Expr::Limit {
        rate: limit.rate,
        unit: limit.per,
        burst: limit.burst,
        kind: if limit.bytes { NFT_LIMIT_PKT_BYTES } else { NFT_LIMIT_PKTS },
        flags: if limit.over { NFT_LIMIT_F_INV } else { 0 },
    }
}

fn linearize_log(log: &Log) -> Expr {
    Expr::Log {
        group: log.group,
        prefix: log.prefix.as_ref().map(|prefix| prefix.as_str().into()),
        snaplen: log.snaplen,
        threshold: log.threshold,
        level: if log.group.is_none() { Some(log.level.unwrap_or(NFT_LOGLEVEL_WARNING)) } else { None },
        flags: log.flags,
    }
}
