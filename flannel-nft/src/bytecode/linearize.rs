//! From rules to the expressions that the kernel runs.

use crate::bytecode::context::Context;
use crate::bytecode::expr::{Expr, Nonzero, Zero, register};
use crate::bytecode::linearize_statement;
use crate::error::InvalidRule;
use crate::model::data::Data;
use crate::model::expression::Term;
use crate::model::exthdr::Exthdr;
use crate::model::family::Family;
use crate::model::field::Inner;
use crate::model::field::{Field, Kind};
use crate::model::header::Payload;
use crate::model::matching::{Match, Source, Test};
use crate::model::rule::Rule;
use crate::model::statement::{Reject, Statement};
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
    let mut linearizer = Linearizer { family, context: Context::new(family), next_set: first_set, emit };
    if rule.statements.iter().any(|statement| matches!(statement, Statement::Reject(_))) {
        for needed in linearizer.context.needed_at_start(&rule.statements)? {
            linearizer.condition(&needed)?;
        }
    }
    for statement in &rule.statements {
        for needed in linearizer.context.needed(statement)? {
            linearizer.condition(&needed)?;
        }
        linearizer.statement(statement)?;
    }
    Ok(())
}

pub(crate) struct Linearizer<F> {
    pub(crate) family: Family,
    pub(crate) context: Context,
    next_set: u32,
    pub(crate) emit: F,
}

impl<F: FnMut(Expr)> Linearizer<F> {
    fn statement(&mut self, statement: &Statement) -> Result<(), InvalidRule> {
        match statement {
            Statement::Match(condition) => self.condition(condition),
            Statement::Adjacent(fields) => {
                self.adjacent(fields);
                self.context.note(statement);
                Ok(())
            }
            Statement::Vmap { key, source } => {
                self.load(key, 0)?;
                self.lookup(source, 0, Some(NFT_REG_VERDICT), false)
            }
            other => linearize_statement::linearize(self, other),
        }
    }

    fn condition(&mut self, condition: &Match) -> Result<(), InvalidRule> {
        if let Some(invalid) = &condition.invalid {
            return Err(invalid.clone());
        }
        let left = &condition.left;
        self.context.learn(condition);
        let equal = if condition.inverted { NFT_CMP_NEQ } else { NFT_CMP_EQ };
        let compare = |data: &Data| Expr::Cmp { sreg: NFT_REG_1, op: equal, data: data.clone() };
        match &condition.test {
            // A prefix of whole bytes is loaded with that length and needs no mask.
            Test::Prefix(address, bits) if bits % 8 == 0 && *bits > 0 => {
                let length = usize::from(*bits / 8);
                match left.field().map(|field| field.0) {
                    Some(Kind::Payload(payload)) => {
                        let first = Payload { length: u32::from(*bits), ..payload };
                        self.load_field(Field(Kind::Payload(first)), 0);
                    }
                    Some(Kind::Inner { tunnel, inner: Inner::Payload(payload) }) => {
                        let first = Inner::Payload(Payload { length: u32::from(*bits), ..payload });
                        self.load_field(Field(Kind::Inner { tunnel, inner: first }), 0);
                    }
                    _ => self.load(left, 0)?,
                }
                (self.emit)(compare(&Data::new(address.as_slice().get(..length).unwrap_or_default())));
            }
            Test::Prefix(address, bits) => {
                self.load(left, 0)?;
                self.mask(0, &Data::mask(*bits, address.len()), &Data::zero(address.len()));
                (self.emit)(compare(address));
            }
            Test::Is(data) => {
                self.load(left, 0)?;
                (self.emit)(compare(data));
            }
            Test::NamePrefix(prefix) => {
                self.load(left, 0)?;
                (self.emit)(compare(&Data::new(prefix.as_bytes())));
            }
            Test::Masked { mask, value } => {
                self.load(left, 0)?;
                self.mask(0, mask, &Data::zero(mask.len()));
                (self.emit)(compare(value));
            }
            Test::AnyBit(bits) => {
                self.load(left, 0)?;
                self.mask(0, bits, &Data::zero(bits.len()));
                let op = if condition.inverted { NFT_CMP_EQ } else { NFT_CMP_NEQ };
                (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op, data: Data::zero(bits.len()) });
            }
            Test::Compare(op, data) => {
                self.load(left, 0)?;
                let data = self.sortable(left, data);
                (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op: *op, data });
            }
            Test::Range(first, last) | Test::Within(first, last) => {
                let is_within = matches!(condition.test, Test::Within(..));
                self.load(left, 0)?;
                let from = self.sortable(left, first);
                let to = left.datatype().swapped(last);
                if condition.inverted || is_within {
                    let op = if condition.inverted { NFT_RANGE_NEQ } else { NFT_RANGE_EQ };
                    (self.emit)(Expr::Range { sreg: NFT_REG_1, op, from, to });
                } else {
                    (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op: NFT_CMP_GTE, data: from });
                    (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op: NFT_CMP_LTE, data: to });
                }
            }
            Test::In(source) => {
                self.load(left, 0)?;
                if let Source::Inline(inline) = source
                    && inline.set.is_interval()
                    && left.datatype().is_swapped()
                {
                    self.swap(left.datatype().length(), NFT_REG_1, NFT_BYTEORDER_HTON);
                }
                self.lookup(source, 0, None, condition.inverted)?;
            }
        }
        Ok(())
    }

    /// Converts the loaded value to network byte order if the kernel must sort it, and the data
    /// too.
    fn sortable(&mut self, left: &Term, data: &Data) -> Data {
        if left.datatype().is_swapped() {
            self.swap(left.datatype().length(), NFT_REG_1, NFT_BYTEORDER_HTON);
        }
        left.datatype().swapped(data)
    }

    fn swap(&mut self, length: u32, register: u32, op: u32) {
        // As nft chooses it (`netlink_gen_unary`), which also converts single bytes.
        let size = match length {
            8 => 8,
            length if length % 4 == 0 => 4,
            _ => 2,
        };
        (self.emit)(Expr::Byteorder { sreg: register, dreg: register, op, length, size });
    }

    fn adjacent(&mut self, fields: &[(Field, Data)]) {
        let Some((first, _)) = fields.first() else { return };
        let Kind::Payload(payload) = first.0 else { return };
        let bytes: Vec<u8> = fields.iter().flat_map(|(_, data)| data.as_slice()).copied().collect();
        (self.emit)(Expr::Payload {
            base: payload.header.base(),
            offset: payload.offset / 8,
            length: u32::try_from(bytes.len()).unwrap_or(0),
            dreg: NFT_REG_1,
        });
        (self.emit)(Expr::Cmp { sreg: NFT_REG_1, op: NFT_CMP_EQ, data: Data::new(&bytes) });
    }

    /// Loads a value into the registers from this 32-bit word on.
    pub(crate) fn load(&mut self, term: &Term, word: u32) -> Result<(), InvalidRule> {
        let dreg = register(word);
        match term {
            Term::Field(field) => self.load_field(*field, word),
            Term::Constant(value) => (self.emit)(Expr::Immediate { dreg, data: value.data.clone() }),
            Term::Concat(parts) => {
                let mut at = word;
                for part in parts {
                    self.load(part, at)?;
                    // In a concatenation, a narrow field is a number of its own.
                    if let Some(narrow) =
                        part.field().and_then(Field::narrow).filter(|narrow| narrow.shift > 0)
                    {
                        let (sreg, op) = (register(at), NFT_BITWISE_RSHIFT);
                        let data = Data::u32(narrow.shift);
                        (self.emit)(Expr::Shift { sreg, dreg: sreg, length: narrow.bytes, op, data });
                    }
                    at = at.saturating_add(part.words());
                }
            }
            Term::Bitwise { of, mask, xor } => {
                self.load(of, word)?;
                self.mask(word, mask, xor);
            }
            Term::Combined { left, op, right, length } => {
                self.load(left, word)?;
                self.load(right, word + 4)?;
                let (sreg2, length, op) = (register(word + 4), *length, *op);
                (self.emit)(Expr::Combine { sreg: dreg, sreg2, dreg, length, op });
            }
            Term::Shifted { of, op, length, bits } => {
                self.load(of, word)?;
                let data = Data::u32(*bits);
                (self.emit)(Expr::Shift { sreg: dreg, dreg, length: *length, op: *op, data });
            }
            Term::Swapped { of, op } => {
                self.load(of, word)?;
                self.swap(of.field().map_or_else(|| of.datatype().length(), Field::loaded), dreg, *op);
            }
            Term::Jhash { of, modulus, seed, offset } => {
                // The value has registers of its own.
                self.load(of, word + 4)?;
                let is_concat = matches!(**of, Term::Concat(_));
                let length = if is_concat { of.words().saturating_mul(4) } else { of.datatype().length() };
                let (sreg, modulus, seed) = (register(word + 4), *modulus, *seed);
                let (offset, kind) = (Nonzero(*offset), Zero);
                (self.emit)(Expr::Hash { sreg, dreg, length, modulus, seed, offset, kind });
            }
            Term::Map { key, source } => {
                self.load(key, word)?;
                self.lookup(source, word, Some(dreg), false)?;
            }
        }
        Ok(())
    }

    fn load_field(&mut self, field: Field, word: u32) {
        let dreg = register(word);
        let narrow = field.narrow();
        let (first, bytes) = match &narrow {
            Some(narrow) => (narrow.first, narrow.bytes),
            None => (field.offset() / 8, field.bits() / 8),
        };
        (self.emit)(match field.0 {
            Kind::Payload(payload) => {
                Expr::Payload { base: payload.header.base(), offset: first, length: bytes, dreg }
            }
            Kind::Inner { tunnel, inner } => {
                let (kind, header_size, flags) = tunnel.parameters();
                let expr = Box::new(match inner {
                    Inner::Meta(key) => Expr::MetaLoad { key, dreg },
                    Inner::Payload(payload) => {
                        Expr::Payload { base: payload.header.base(), offset: first, length: bytes, dreg }
                    }
                });
                Expr::Inner { number: 0, kind, flags, header_size, expr }
            }
            Kind::Raw { base, .. } => Expr::Payload { base, offset: first, length: bytes, dreg },
            Kind::Exthdr(Exthdr { op, kind, name, .. }) => {
                let flags = Nonzero(if name.is_empty() { NFT_EXTHDR_F_PRESENT } else { 0 });
                Expr::ExthdrLoad { dreg, kind, offset: first, length: bytes, op: Nonzero(op), flags }
            }
            Kind::Meta(key) => Expr::MetaLoad { key, dreg },
            Kind::Ct { key, direction } => Expr::CtLoad { key, dreg, direction },
            Kind::Rt(key) => Expr::Rt { key, dreg },
            Kind::Fib { result, flags } => Expr::Fib { result, flags, dreg },
            Kind::Socket { key, level } => Expr::Socket { key, dreg, level },
            Kind::Osf { flags, ttl } => Expr::Osf { dreg, ttl, flags: Nonzero(flags) },
            Kind::Xfrm { key, direction, number } => Expr::Xfrm { key, direction, number, dreg },
            Kind::Numgen { kind, modulus, offset } => {
                Expr::Numgen { dreg, modulus, kind, offset: Nonzero(offset) }
            }
            Kind::Symhash { modulus, offset } => {
                Expr::Symhash { dreg, modulus, offset: Nonzero(offset), kind: NFT_HASH_SYM }
            }
        });
        if let Some(narrow) = narrow {
            self.mask(word, &narrow.mask, &Data::zero(narrow.mask.len()));
        }
    }

    pub(crate) fn mask(&mut self, word: u32, mask: &Data, xor: &Data) {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        let (mask, xor) = (mask.clone(), xor.clone());
        (self.emit)(Expr::Bitwise {
            sreg: register(word),
            dreg: register(word),
            length,
            op: Zero,
            mask,
            xor,
        });
    }

    /// The name and ID under which a set is referred to.
    pub(crate) fn set(&mut self, source: &Source) -> Result<(Box<str>, Option<u32>), InvalidRule> {
        match source {
            Source::Named(name) => Ok((name.as_str().into(), None)),
            Source::Inline(inline) => {
                if let Some(invalid) = &inline.set.invalid {
                    return Err(invalid.clone());
                }
                let id = self.next_set;
                self.next_set += 1;
                Ok((inline.set.name.as_str().into(), Some(id)))
            }
        }
    }

    fn lookup(
        &mut self,
        source: &Source,
        word: u32,
        dreg: Option<u32>,
        inverted: bool,
    ) -> Result<(), InvalidRule> {
        let (set, id) = self.set(source)?;
        (self.emit)(Expr::Lookup { set, id, sreg: register(word), dreg, inverted });
        Ok(())
    }

    pub(crate) fn wrong_family(&self, object: &str) -> InvalidRule {
        InvalidRule::WrongFamily { object: object.to_owned(), family: self.family.name() }
    }

    pub(crate) fn reject(&mut self, kind: Reject) -> Result<(), InvalidRule> {
        let (kind, code) = reject_code(kind, self.family).ok_or_else(|| self.wrong_family("reject"))?;
        (self.emit)(Expr::Reject { kind, code: Some(code) });
        Ok(())
    }
}

/// `NFT_REJECT_*` and the code; `None` if the family cannot reject packets.
pub(crate) fn reject_code(kind: Reject, family: Family) -> Option<(u32, u8)> {
    use Reject::{AdminProhibited, HostUnreachable, Icmp, Icmpv6, NoRoute, PortUnreachable, TcpReset};
    Some(match (kind, family) {
        (_, Family::Arp) => return None,
        (TcpReset, _) => (NFT_REJECT_TCP_RST, 0),
        (Icmp(code) | Icmpv6(code), _) => (NFT_REJECT_ICMP_UNREACH, code),
        (NoRoute, Family::Ip) => (NFT_REJECT_ICMP_UNREACH, ICMP_NET_UNREACH),
        (HostUnreachable, Family::Ip) => (NFT_REJECT_ICMP_UNREACH, ICMP_HOST_UNREACH),
        (AdminProhibited, Family::Ip) => (NFT_REJECT_ICMP_UNREACH, ICMP_PKT_FILTERED),
        (PortUnreachable, Family::Ip) => (NFT_REJECT_ICMP_UNREACH, ICMP_PORT_UNREACH),
        (NoRoute, Family::Ip6) => (NFT_REJECT_ICMP_UNREACH, ICMPV6_NOROUTE),
        (HostUnreachable, Family::Ip6) => (NFT_REJECT_ICMP_UNREACH, ICMPV6_ADDR_UNREACH),
        (AdminProhibited, Family::Ip6) => (NFT_REJECT_ICMP_UNREACH, ICMPV6_ADM_PROHIBITED),
        (PortUnreachable, Family::Ip6) => (NFT_REJECT_ICMP_UNREACH, ICMPV6_PORT_UNREACH),
        (NoRoute, _) => (NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_NO_ROUTE),
        (HostUnreachable, _) => (NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_HOST_UNREACH),
        (AdminProhibited, _) => (NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED),
        (PortUnreachable, _) => (NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH),
    })
}

pub(crate) fn linearize_verdict(verdict: &Verdict) -> Expr {
    let (code, chain) = verdict.code();
    Expr::Verdict { code, chain: chain.cloned(), id: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IpVersion, Protocol, field, ip, meta, tcp};

    fn expressions(rule: &Rule, family: Family) -> Vec<Expr> {
        let mut exprs = Vec::new();
        linearize(rule, family, 0, |expr| exprs.push(expr)).unwrap();
        exprs
    }

    #[test]
    fn the_protocol_that_a_rule_needs_is_compared_first_unless_the_rule_does_so() {
        let rule = Rule::new;
        let (ipv4, ipv6) = (meta::nfproto(IpVersion::V4), meta::nfproto(IpVersion::V6));
        let ethernet = field::meta::IIFTYPE.is_number(1);
        let port = || tcp::dport(80);
        let source = || ip::saddr(std::net::Ipv4Addr::LOCALHOST);
        let vlan = || field::vlan::ID.is_number(7);
        for (family, short, explicit) in [
            (Family::Ip, rule().when(port()), rule().when(meta::l4proto(Protocol::TCP)).when(port())),
            (Family::Inet, rule().when(source()), rule().when(ipv4.clone()).when(source())),
            (
                Family::Bridge,
                rule().when(source()),
                rule().when(field::meta::PROTOCOL.is_number(0x800)).when(source()),
            ),
            (
                Family::Netdev,
                rule().when(source()),
                rule().when(field::meta::PROTOCOL.is_number(0x800)).when(source()),
            ),
            (
                Family::Bridge,
                rule().when(vlan()),
                rule().when(field::ether::TYPE.is_number(0x8100)).when(vlan()),
            ),
            (
                Family::Netdev,
                rule().when(vlan()),
                rule().when(ethernet).when(field::ether::TYPE.is_number(0x8100)).when(vlan()),
            ),
            // At the start: the counter counts what is rejected.
            (
                Family::Inet,
                rule().counter().reject(Reject::Icmp(1)),
                rule().when(ipv4).counter().reject(Reject::Icmp(1)),
            ),
            (
                Family::Inet,
                rule().counter().reject(Reject::Icmpv6(1)),
                rule().when(ipv6).counter().reject(Reject::Icmpv6(1)),
            ),
            (
                Family::Inet,
                rule().counter().reject(Reject::TcpReset),
                rule().when(meta::l4proto(Protocol::TCP)).counter().reject(Reject::TcpReset),
            ),
        ] {
            let exprs = expressions(&short, family);
            assert_eq!(exprs, expressions(&explicit, family), "{short}");
            assert!(exprs.len() > short.statements.len(), "{short}: {exprs:?}");
        }
        // What the family or an earlier match says is not compared again.
        assert_eq!(expressions(&rule().when(source()), Family::Ip).len(), 2);
        assert_eq!(expressions(&rule().reject(Reject::Icmp(1)), Family::Ip).len(), 1);
        assert_eq!(expressions(&rule().when(port()).when(port()), Family::Ip).len(), 6);
    }
}
