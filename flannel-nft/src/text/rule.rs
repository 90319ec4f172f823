//! Rules and their statements.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::model::chain::Chain;
use crate::model::datatype::{STATES, STATUSES, TCP_FLAGS, write_bits};
use crate::model::family::Family;
use crate::model::matching::{Field, IpVersion, Match, Source, Test};
use crate::model::protocol::Protocol;
use crate::model::rule::Rule;
use crate::model::statement::{IpRange, Limit, Log, Mark, Nat, Reject, Statement};
use crate::model::verdict::Verdict;
use crate::text::{element, verdict};
use crate::uapi::*;

impl Display for Rule {
    /// Prints the rule like `nft list` in a table of family `inet`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        rule(self, Family::Inet, f)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        condition(self, f)
    }
}

/// On one line.
pub(crate) fn rule(rule: &Rule, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
    indented_rule(rule, family, None, f)
}

/// With the rules of implicit chains on lines of their own, if there is an `indent`.
pub(crate) fn indented_rule(
    rule: &Rule,
    family: Family,
    indent: Option<&str>,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let mut between = "";
    for part in &rule.statements {
        f.write_str(between)?;
        let target = if let Statement::Verdict(verdict) = part { verdict.chain() } else { None };
        match rule.implicit_chains().iter().find(|chain| Some(&chain.name) == target) {
            Some(chain) => {
                let verb = if matches!(part, Statement::Verdict(Verdict::Goto(_))) { "goto" } else { "jump" };
                write!(f, "{verb} {{")?;
                implicit_chain(chain, family, indent, f)?;
            }
            None => statement(part, family, f)?,
        }
        between = " ";
    }
    match &rule.comment {
        Some(comment) => write!(f, "{between}comment \"{comment}\""),
        None => Ok(()),
    }
}

fn implicit_chain(chain: &Chain, family: Family, indent: Option<&str>, f: &mut Formatter<'_>) -> fmt::Result {
    let inner = indent.map(|indent| format!("{indent}\t"));
    for rule in &chain.rules {
        match &inner {
            Some(inner) => write!(f, "\n{inner}")?,
            None => f.write_str(" ")?,
        }
        indented_rule(rule, family, inner.as_deref(), f)?;
        f.write_str(if inner.is_some() { "" } else { ";" })?;
    }
    match indent {
        Some(indent) => write!(f, "\n{indent}}}"),
        None => f.write_str(" }"),
    }
}

fn statement(statement: &Statement, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
    match statement {
        Statement::ClampMss => f.write_str("tcp option maxseg size set rt mtu"),
        Statement::Counter { packets, bytes } => write!(f, "counter packets {packets} bytes {bytes}"),
        Statement::CounterRef(name) => write!(f, "counter name \"{name}\""),
        Statement::CtMark(mark) => write_mark("ct mark", "meta mark", *mark, f),
        Statement::MetaMark(mark) => write_mark("meta mark", "ct mark", *mark, f),
        Statement::Limit(limit) => write_limit(limit, f),
        Statement::Log(log) => write_log(log, f),
        Statement::Match(matched) => condition(matched, f),
        Statement::Masquerade(choice) => write_nat("masquerade", family, None, choice, f),
        Statement::Redirect(choice) => write_nat("redirect", family, None, choice, f),
        Statement::Snat { address, nat } => write_nat("snat", family, address.as_ref(), nat, f),
        Statement::Dnat { address, nat } => write_nat("dnat", family, address.as_ref(), nat, f),
        Statement::Notrack => f.write_str("notrack"),
        // Not nft syntax: the meaning is unknown.
        Statement::Other(expr) => write!(f, "<{expr:?}>"),
        Statement::Reject(kind) => write_reject(*kind, family, f),
        Statement::Verdict(end) => verdict(end, f),
        Statement::Vmap { field, source } => {
            write_field(*field, f)?;
            f.write_str(" vmap ")?;
            write_source(source, f)
        }
    }
}

fn condition(condition: &Match, f: &mut Formatter<'_>) -> fmt::Result {
    let Match { field, test, inverted, .. } = condition;
    write_field(*field, f)?;
    f.write_char(' ')?;
    let bits = match field {
        Field::CtState => Some(&STATES[..]),
        Field::CtStatus => Some(&STATUSES[..]),
        Field::TcpFlags => Some(&TCP_FLAGS[..]),
        _ => None,
    };
    let number =
        |data: &crate::model::data::Data| data.host_u32().or_else(|| data.u8().map(u32::from)).unwrap_or(0);
    if let (Some(names), Test::AnyBit(mask)) = (bits, test) {
        f.write_str(if *inverted { "! " } else { "" })?;
        return write_bits(names, number(mask), ",", f);
    }
    if let (Some(names), Test::Masked { mask, value }) = (bits, test) {
        f.write_str(if *inverted { "!= " } else { "" })?;
        write_bits(names, number(value), ",", f)?;
        f.write_str(" / ")?;
        return write_bits(names, number(mask), ",", f);
    }
    if let (Some(names), Test::Is(value)) = (bits, test) {
        f.write_str(if *inverted { "!= " } else { "== " })?;
        return write_bits(names, number(value), " | ", f);
    }
    let datatype = field.datatype();
    if let Test::Masked { mask, value } = test {
        f.write_str("& ")?;
        datatype.write(mask, f)?;
        f.write_str(if *inverted { " != " } else { " == " })?;
        return datatype.write(value, f);
    }
    f.write_str(if *inverted { "!= " } else { "" })?;
    match test {
        Test::AnyBit(data) | Test::Is(data) => datatype.write(data, f),
        Test::In(source) => write_source(source, f),
        Test::Masked { .. } => Ok(()),
        Test::NamePrefix(prefix) => write!(f, "\"{prefix}*\""),
        Test::Prefix(address, length) => {
            datatype.write(address, f)?;
            write!(f, "/{length}")
        }
        Test::Range(first, last) => {
            datatype.write(first, f)?;
            f.write_char('-')?;
            datatype.write(last, f)
        }
    }
}

fn write_field(field: Field, f: &mut Formatter<'_>) -> fmt::Result {
    let transport = |protocol: Option<Protocol>, which, f: &mut Formatter<'_>| match protocol {
        Some(protocol) => write!(f, "{protocol} {which}"),
        None => write!(f, "th {which}"),
    };
    f.write_str(match field {
        Field::CtDirection => "ct direction",
        Field::CtMark => "ct mark",
        Field::CtState => "ct state",
        Field::CtStatus => "ct status",
        Field::Daddr(IpVersion::V4) => "ip daddr",
        Field::Daddr(IpVersion::V6) => "ip6 daddr",
        Field::Dport(protocol) => return transport(protocol, "dport", f),
        Field::FibDaddrType => "fib daddr type",
        Field::FibSaddrType => "fib saddr type",
        Field::Iif => "iif",
        Field::Iifname => "iifname",
        Field::IpProtocol => "ip protocol",
        Field::L4proto => "meta l4proto",
        Field::Mark => "meta mark",
        Field::Nfproto => "meta nfproto",
        Field::Oif => "oif",
        Field::Oifname => "oifname",
        Field::PktType => "meta pkttype",
        Field::Saddr(IpVersion::V4) => "ip saddr",
        Field::Saddr(IpVersion::V6) => "ip6 saddr",
        Field::Sport(protocol) => return transport(protocol, "sport", f),
        Field::TcpFlags => "tcp flags",
    })
}

fn write_source(source: &Source, f: &mut Formatter<'_>) -> fmt::Result {
    let inline = match source {
        Source::Named(name) => return write!(f, "@{name}"),
        Source::Inline(inline) => inline,
    };
    f.write_str("{ ")?;
    let mut between = "";
    for (span, body) in &inline.set.elements {
        f.write_str(between)?;
        element(&inline.set, span, body, f)?;
        between = ", ";
    }
    f.write_str(" }")
}

fn write_mark(own: &str, other: &str, mark: Mark, f: &mut Formatter<'_>) -> fmt::Result {
    match mark {
        Mark::To(value) => write!(f, "{own} set 0x{value:08x}"),
        Mark::Set(bits) => write!(f, "{own} set {own} | 0x{bits:08x}"),
        Mark::Clear(bits) => write!(f, "{own} set {own} & 0x{:08x}", !bits),
        Mark::Replace { mask, value } if value & mask == mask => write!(f, "{own} set {own} | 0x{mask:08x}"),
        Mark::Replace { mask, value } => {
            write!(f, "{own} set {own} & 0x{:08x} | 0x{:08x}", !mask, value & mask)
        }
        Mark::Copy { mask: u32::MAX } => write!(f, "{own} set {other}"),
        Mark::Copy { mask } => write!(f, "{own} set {other} & 0x{mask:08x}"),
    }
}

fn write_limit(limit: &Limit, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(if limit.over { "limit rate over " } else { "limit rate " })?;
    let per = match limit.per {
        1 => "second",
        60 => "minute",
        3_600 => "hour",
        86_400 => "day",
        _ => "week",
    };
    let scaled = |number: u64| match number {
        number if number % (1 << 20) == 0 && number > 0 => (number >> 20, "mbytes"),
        number if number % (1 << 10) == 0 && number > 0 => (number >> 10, "kbytes"),
        number => (number, "bytes"),
    };
    if limit.bytes {
        let (rate, unit) = scaled(limit.rate);
        write!(f, "{rate} {unit}/{per}")?;
        let (burst, unit) = scaled(limit.burst.into());
        return if burst > 0 { write!(f, " burst {burst} {unit}") } else { Ok(()) };
    }
    write!(f, "{}/{per}", limit.rate)?;
    if limit.burst > 0 && limit.burst != 5 { write!(f, " burst {} packets", limit.burst) } else { Ok(()) }
}

fn write_log(log: &Log, f: &mut Formatter<'_>) -> fmt::Result {
    const LEVELS: [&str; 9] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"];
    const FLAGS: [(u32, &str); 3] = [
        (NF_LOG_IPOPT, " flags ip options"),
        (NF_LOG_UID, " flags skuid"),
        (NF_LOG_MACDECODE, " flags ether"),
    ];
    const TCP_BOTH: u32 = NF_LOG_TCPSEQ | NF_LOG_TCPOPT;
    f.write_str("log")?;
    log.prefix.iter().try_for_each(|prefix| write!(f, " prefix \"{prefix}\""))?;
    log.group.iter().try_for_each(|group| write!(f, " group {group}"))?;
    log.snaplen.iter().try_for_each(|length| write!(f, " snaplen {length}"))?;
    log.threshold.iter().try_for_each(|packets| write!(f, " queue-threshold {packets}"))?;
    let level = log.level.and_then(|level| LEVELS.get(usize::try_from(level).ok()?));
    level.iter().try_for_each(|level| write!(f, " level {level}"))?;
    match log.flags.unwrap_or(0) {
        NF_LOG_MASK => f.write_str(" flags all"),
        flags => {
            match flags & TCP_BOTH {
                NF_LOG_TCPSEQ => f.write_str(" flags tcp sequence")?,
                NF_LOG_TCPOPT => f.write_str(" flags tcp options")?,
                TCP_BOTH => f.write_str(" flags tcp sequence,options")?,
                _ => {}
            }
            FLAGS.iter().filter(|(bit, _)| flags & bit != 0).try_for_each(|(_, text)| f.write_str(text))
        }
    }
}

fn write_reject(kind: Reject, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
    let (kind_of, host, route) = match family {
        Family::Ip => ("icmp", "host-unreachable", "net-unreachable"),
        Family::Ip6 => ("icmpv6", "addr-unreachable", "no-route"),
        _ => ("icmpx", "host-unreachable", "no-route"),
    };
    match kind {
        Reject::PortUnreachable => f.write_str("reject"),
        Reject::TcpReset => f.write_str("reject with tcp reset"),
        Reject::AdminProhibited => write!(f, "reject with {kind_of} admin-prohibited"),
        Reject::HostUnreachable => write!(f, "reject with {kind_of} {host}"),
        Reject::NoRoute => write!(f, "reject with {kind_of} {route}"),
    }
}

fn write_nat(
    word: &str,
    family: Family,
    address: Option<&IpRange>,
    choice: &Nat,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    f.write_str(word)?;
    if let Some(range) = address {
        let datatype = if range.is_v4() { crate::Datatype::Ipv4Addr } else { crate::Datatype::Ipv6Addr };
        if family == Family::Inet {
            f.write_str(if range.is_v4() { " ip" } else { " ip6" })?;
        }
        f.write_str(" to ")?;
        let brackets = !range.is_v4() && choice.ports.is_some();
        let one = |data, f: &mut Formatter<'_>| {
            f.write_str(if brackets { "[" } else { "" })?;
            datatype.write(data, f)?;
            f.write_str(if brackets { "]" } else { "" })
        };
        one(&range.first, f)?;
        if range.first != range.last {
            f.write_char('-')?;
            one(&range.last, f)?;
        }
    }
    if let Some(ports) = &choice.ports {
        f.write_str(if address.is_some() { ":" } else { " to :" })?;
        write!(f, "{}", ports.start())?;
        if ports.start() != ports.end() {
            write!(f, "-{}", ports.end())?;
        }
    }
    let flags = [
        (NF_NAT_RANGE_PROTO_RANDOM, "random"),
        (NF_NAT_RANGE_PROTO_RANDOM_FULLY, "fully-random"),
        (NF_NAT_RANGE_PERSISTENT, "persistent"),
    ];
    let mut between = " ";
    for (_, name) in flags.iter().filter(|(bit, _)| choice.flags & bit != 0) {
        write!(f, "{between}{name}")?;
        between = ",";
    }
    Ok(())
}
