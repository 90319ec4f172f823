//! Statements.

use std::fmt::{self, Formatter, Write as _};
use std::time::Duration;

use crate::display::expression::{condition, source, term, write_set};
use crate::display::field::write_field;
use crate::display::{NftVersion, duration, verdict};
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::expression::Term;
use crate::model::family::Family;
use crate::model::matching::Source;
use crate::model::statement::{
    Computed, IpRange, Limit, Log, Nat, NatKind, Queue, QueueTo, Quota, Reject, SetUpdate, Statement,
    Synproxy, Target, Tproxy,
};
use crate::model::symbols::{ICMP_CODES, ICMPV6_CODES};
use crate::uapi::*;

pub(super) fn statement(statement: &Statement, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
    match statement {
        // `shown` returns the single matches.
        Statement::Adjacent(_) => Ok(()),
        Statement::Connlimit { count, over: false } => write!(f, "ct count {count}"),
        Statement::Connlimit { count, over: true } => write!(f, "ct count over {count}"),
        Statement::Counter { packets, bytes } => write!(f, "counter packets {packets} bytes {bytes}"),
        Statement::CounterRef(name) => write!(f, "counter name \"{name}\""),
        Statement::Object { kind, name } => write!(f, "{} \"{name}\"", object(Some(*kind))),
        Statement::ObjectMap { kind, key, source: map } => {
            write!(f, "{} ", object(*kind))?;
            term(key, f)?;
            f.write_str(" map ")?;
            source(map, key, f)
        }
        Statement::Dup { address, device } => {
            f.write_str("dup to")?;
            let both = address.is_some() && device.is_some();
            address.iter().try_for_each(|address| write_space(address, f))?;
            f.write_str(if both { " device" } else { "" })?;
            device.iter().try_for_each(|device| write_space(device, f))
        }
        Statement::FlowAdd(table) => write!(f, "flow add @{table}"),
        Statement::Fwd { device, address } => {
            f.write_str("fwd")?;
            if let Some((family, address)) = address {
                f.write_str(if *family == u32::from(NFPROTO_IPV6) { " ip6 to" } else { " ip to" })?;
                write_space(address, f)?;
                f.write_str(" device")?;
            } else {
                f.write_str(" to")?;
            }
            write_space(device, f)
        }
        Statement::Last(None) => f.write_str("last used never"),
        Statement::Last(Some(milliseconds)) => {
            f.write_str("last used ")?;
            duration(Duration::from_millis(*milliseconds), f)
        }
        Statement::Limit(limit) => {
            f.write_str("limit ")?;
            write_rate(limit, f)
        }
        Statement::Log(log) => write_log(log, f),
        Statement::Match(matched) => condition(matched, f),
        Statement::Masquerade(nat) => write_nat("masquerade", family, None, nat, f),
        Statement::Redirect(nat) => write_nat("redirect", family, None, nat, f),
        Statement::Snat { address, nat } => write_nat("snat", family, address.as_ref(), nat, f),
        Statement::Dnat { address, nat } => write_nat("dnat", family, address.as_ref(), nat, f),
        Statement::Nat { kind, computed } => write_computed(*kind, family, computed, f),
        Statement::Notrack => f.write_str("notrack"),
        // Not nft syntax: the meaning is unknown.
        Statement::Other(expr) => write!(f, "<{expr:?}>"),
        Statement::Queue(queue) => write_queue(queue, f),
        Statement::Quota(quota) => write_quota(quota, f),
        Statement::Reject(kind) => write_reject(*kind, family, f),
        Statement::ResetOption(field) => {
            f.write_str("reset ")?;
            write_field(*field, f)
        }
        Statement::Set { field, value, .. } => write_set(*field, value, f),
        Statement::Synproxy(proxy) => write_synproxy(*proxy, f),
        Statement::Tproxy(proxy) => write_tproxy(proxy, family, f),
        Statement::Update(update) => write_update(update, family, f),
        Statement::Verdict(end) => verdict(end, f),
        Statement::Vmap { key, source: map } => {
            term(key, f)?;
            f.write_str(" vmap ")?;
            source(map, key, f)
        }
    }
}

fn write_space(of: &Term, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char(' ')?;
    term(of, f)
}

/// The statement that uses objects of a kind, up to the name.
fn object(kind: Option<u32>) -> &'static str {
    match kind {
        Some(NFT_OBJECT_QUOTA) => "quota name",
        Some(NFT_OBJECT_LIMIT) => "limit name",
        Some(NFT_OBJECT_SYNPROXY) => "synproxy name",
        Some(NFT_OBJECT_CT_HELPER) => "ct helper set",
        Some(NFT_OBJECT_CT_TIMEOUT) => "ct timeout set",
        Some(NFT_OBJECT_CT_EXPECT) => "ct expectation set",
        Some(NFT_OBJECT_SECMARK) => "meta secmark set",
        Some(NFT_OBJECT_TUNNEL) => "tunnel name",
        _ => "counter name",
    }
}

/// A number of bytes in the largest unit that divides it.
fn scaled(number: u64) -> (u64, &'static str) {
    match number {
        number if number % (1 << 20) == 0 && number > 0 => (number >> 20, "mbytes"),
        number if number % (1 << 10) == 0 && number > 0 => (number >> 10, "kbytes"),
        number => (number, "bytes"),
    }
}

fn write_quota(quota: &Quota, f: &mut Formatter<'_>) -> fmt::Result {
    let (number, unit) = scaled(quota.bytes);
    write!(f, "quota {}{number} {unit}", if quota.over { "over " } else { "" })?;
    let (used, unit) = scaled(quota.used);
    if used > 0 { write!(f, " used {used} {unit}") } else { Ok(()) }
}

fn write_queue(queue: &Queue, f: &mut Formatter<'_>) -> fmt::Result {
    let flags = match queue.flags & (NFT_QUEUE_FLAG_BYPASS | NFT_QUEUE_FLAG_CPU_FANOUT) {
        0 => "",
        NFT_QUEUE_FLAG_BYPASS => " flags bypass",
        NFT_QUEUE_FLAG_CPU_FANOUT => " flags fanout",
        _ => " flags bypass,fanout",
    };
    write!(f, "queue{flags} to ")?;
    match &queue.to {
        QueueTo::Numbers { first, count: 0 | 1 } => write!(f, "{first}"),
        QueueTo::Numbers { first, count } => {
            write!(f, "{first}-{}", u32::from(*first) + u32::from(*count) - 1)
        }
        QueueTo::Computed(number) => term(number, f),
    }
}

fn write_synproxy(proxy: Synproxy, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("synproxy")?;
    if proxy.flags & (NF_SYNPROXY_OPT_MSS | NF_SYNPROXY_OPT_WSCALE) != 0 {
        write!(f, " mss {} wscale {}", proxy.mss, proxy.wscale)?;
    }
    f.write_str(if proxy.flags & NF_SYNPROXY_OPT_TIMESTAMP != 0 { " timestamp" } else { "" })?;
    f.write_str(if proxy.flags & NF_SYNPROXY_OPT_SACK_PERM != 0 { " sack-perm" } else { "" })
}

fn family_word(number: u32) -> &'static str {
    match u8::try_from(number) {
        Ok(NFPROTO_IPV4) => " ip",
        Ok(NFPROTO_IPV6) => " ip6",
        _ => "",
    }
}

fn write_tproxy(proxy: &Tproxy, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("tproxy")?;
    f.write_str(if family == Family::Inet { family_word(proxy.family) } else { "" })?;
    f.write_str(" to ")?;
    match &proxy.address {
        Some(Term::Constant(address)) if address.datatype == Datatype::Ipv6Addr => write!(f, "[{address}]")?,
        Some(address) => term(address, f)?,
        None => {}
    }
    proxy.port.iter().try_for_each(|port| {
        f.write_char(':')?;
        term(port, f)
    })
}

fn write_update(update: &SetUpdate, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
    let word = update.operation();
    match &update.set {
        Source::Named(set) => write!(f, "{word} @{set}")?,
        Source::Inline(inline) => {
            write!(f, "meter {}", inline.set.name)?;
            inline.set.size.iter().try_for_each(|size| write!(f, " size {size}"))?;
        }
    }
    f.write_str(" { ")?;
    term(&update.key, f)?;
    if let Some(timeout) = update.timeout {
        f.write_str(" timeout ")?;
        duration(Duration::from_millis(timeout), f)?;
    }
    for part in &update.statements {
        f.write_char(' ')?;
        match part {
            // The numbers are those of each element.
            Statement::Counter { .. } => f.write_str("counter")?,
            part => statement(part, family, f)?,
        }
    }
    if let Some(value) = &update.value {
        f.write_str(" : ")?;
        term(value, f)?;
    }
    f.write_str(" }")
}

/// The limit without the word `limit`.
pub(crate) fn write_rate(limit: &Limit, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(if limit.over { "rate over " } else { "rate " })?;
    let per = match limit.per {
        1 => "second",
        60 => "minute",
        3_600 => "hour",
        86_400 => "day",
        _ => "week",
    };
    if limit.bytes {
        let (rate, unit) = scaled(limit.rate);
        write!(f, "{rate} {unit}/{per}")?;
        let (burst, unit) = scaled(limit.burst.into());
        return if burst > 0 { write!(f, " burst {burst} {unit}") } else { Ok(()) };
    }
    write!(f, "{}/{per}", limit.rate)?;
    let shown = limit.burst > 0 && (limit.burst != 5 || NftVersion::of(f) == NftVersion::V1_1);
    if shown { write!(f, " burst {} packets", limit.burst) } else { Ok(()) }
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
    let code = |protocol: &str, names: &[(&str, u32)], code: u8, f: &mut Formatter<'_>| match names
        .iter()
        .find(|(_, number)| *number == u32::from(code))
    {
        Some((name, _)) => write!(f, "reject with {protocol} {name}"),
        None => write!(f, "reject with {protocol} {code}"),
    };
    match kind {
        Reject::PortUnreachable => f.write_str("reject"),
        Reject::TcpReset => f.write_str("reject with tcp reset"),
        Reject::AdminProhibited => write!(f, "reject with {kind_of} admin-prohibited"),
        Reject::HostUnreachable => write!(f, "reject with {kind_of} {host}"),
        Reject::NoRoute => write!(f, "reject with {kind_of} {route}"),
        Reject::Icmp(number) => code("icmp", &ICMP_CODES, number, f),
        Reject::Icmpv6(number) => code("icmpv6", &ICMPV6_CODES, number, f),
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
        let datatype = if range.is_v4() { Datatype::Ipv4Addr } else { Datatype::Ipv6Addr };
        if family == Family::Inet {
            f.write_str(if range.is_v4() { " ip" } else { " ip6" })?;
        }
        f.write_str(if choice.flags & NF_NAT_RANGE_NETMAP != 0 { " prefix to " } else { " to " })?;
        let brackets = !range.is_v4() && choice.ports.is_some();
        let one = |data, f: &mut Formatter<'_>| {
            f.write_str(if brackets { "[" } else { "" })?;
            datatype.write(data, f)?;
            f.write_str(if brackets { "]" } else { "" })
        };
        let prefix = range.first.prefix_to(&range.last).filter(|_| range.first != range.last && !brackets);
        one(&range.first, f)?;
        if let Some(length) = prefix {
            write!(f, "/{length}")?;
        } else if range.first != range.last {
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
    write_flags(choice, f)
}

fn write_flags(choice: &Nat, f: &mut Formatter<'_>) -> fmt::Result {
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

fn write_computed(kind: NatKind, family: Family, nat: &Computed, f: &mut Formatter<'_>) -> fmt::Result {
    let is_netmap = nat.nat.flags & NF_NAT_RANGE_NETMAP != 0;
    let names_family = match nat.target {
        Target::Address(_) | Target::PortOf(..) => family == Family::Inet,
        Target::Addresses(_) | Target::Pair(_) | Target::Ranges(_) => true,
        Target::Port(_) => false,
    };
    let word = if names_family { family_word(nat.family) } else { "" };
    write!(f, "{}{word}{} to ", kind.name(), if is_netmap { " prefix" } else { "" })?;
    match &nat.target {
        Target::Address(to) | Target::Addresses(to) | Target::Pair(to) | Target::Ranges(to) => term(to, f)?,
        Target::PortOf(address, port) => {
            write_address(address, f)?;
            f.write_char(':')?;
            term(port, f)?;
        }
        Target::Port(port) => {
            f.write_char(':')?;
            term(port, f)?;
        }
    }
    write_flags(&nat.nat, f)
}

/// An address before a port.
fn write_address(address: &Data, f: &mut Formatter<'_>) -> fmt::Result {
    if address.len() == 4 {
        return Datatype::Ipv4Addr.write(address, f);
    }
    f.write_char('[')?;
    Datatype::Ipv6Addr.write(address, f)?;
    f.write_char(']')
}
