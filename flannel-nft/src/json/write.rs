//! Rules and statements as nft prints them in JSON.

use serde_json::{Value, json};

use crate::bytecode::delinearize_statement;
use crate::bytecode::expr::Expr;
use crate::display::DisplayFn;
use crate::display::NftVersion;
use crate::display::rule::{indented_statement, shown};
use crate::json::value::Flags;
use crate::json::write_expression::{numbers, verdict};
use crate::model::data::Data;
use crate::model::datatype::Datatype;
use crate::model::expression::Term;
use crate::model::family::Family;
use crate::model::field::Kind;
use crate::model::matching::Source;
use crate::model::object::object_kind;
use crate::model::rule::Rule;
use crate::model::statement::{
    Computed, IpRange, Limit, Log, Nat, NatKind, Queue, QueueTo, Quota, Reject, SetUpdate, Statement,
    Synproxy, Target, Tproxy,
};
use crate::model::symbols::{ICMP_CODES, ICMPV6_CODES};
use crate::nft_compat::xt;
use crate::uapi::*;

impl NftVersion {
    /// The statements of a rule, without the matches that later ones imply.
    pub(super) fn statements(self, rule: &Rule, family: Family) -> Vec<Value> {
        let value = |part: &Statement| {
            let target = if let Statement::Verdict(verdict) = part { verdict.chain() } else { None };
            if rule.implicit_chains().iter().any(|chain| Some(&chain.name) == target) {
                let text = DisplayFn(|f: &mut std::fmt::Formatter<'_>| {
                    indented_statement(rule, part, family, Some("\t\t"), f)
                });
                return json!(self.display(&text).to_string());
            }
            self.statement(part, family, true)
        };
        shown(rule, family, self).iter().map(|part| value(part)).collect()
    }

    /// A statement of an element. Without state, nft prints no numbers of counters.
    pub(super) fn stateful(self, expr: &Expr, stateless: bool) -> Value {
        match delinearize_statement::stateful(expr) {
            Some(statement) => self.statement(&statement, Family::Inet, !stateless),
            None => Value::Null,
        }
    }

    fn statement(self, statement: &Statement, family: Family, with_state: bool) -> Value {
        match statement {
            Statement::Connlimit { count, over: false } => json!({ "ct count": { "val": count } }),
            Statement::Connlimit { count, over: true } => {
                json!({ "ct count": { "val": count, "inv": true } })
            }
            Statement::Counter { .. } if !with_state => json!({ "counter": null }),
            Statement::Counter { packets, bytes } => {
                json!({ "counter": { "packets": packets, "bytes": bytes } })
            }
            Statement::CounterRef(name) => json!({ "counter": name.as_str() }),
            Statement::Object { kind, name } => json!({ object_kind(*kind): name }),
            Statement::ObjectMap { kind, key, source } => {
                json!({ object_kind(kind.unwrap_or(NFT_OBJECT_COUNTER)): self.map(key, source, None) })
            }
            Statement::Dup { address, device } => {
                let (to, device) = match (address, device) {
                    (None, device) => (device, &None),
                    both => both,
                };
                let mut dup = json!({});
                to.iter().for_each(|to| dup["addr"] = self.term(to));
                device.iter().for_each(|device| dup["dev"] = self.term(device));
                json!({ "dup": dup })
            }
            Statement::FlowAdd(table) => {
                json!({ "flow": { "op": "add", "flowtable": format!("@{table}") } })
            }
            Statement::Fwd { device, address } => {
                let mut fwd = json!({ "dev": self.typed(device, Datatype::Ifindex) });
                if let Some((family, address)) = address {
                    let is_v6 = *family == u32::from(NFPROTO_IPV6);
                    fwd["family"] = json!(if is_v6 { "ip6" } else { "ip" });
                    fwd["addr"] = self.term(address);
                }
                json!({ "fwd": fwd })
            }
            Statement::Last(Some(milliseconds)) if with_state => json!({ "last": { "used": milliseconds } }),
            Statement::Last(_) => json!({ "last": null }),
            Statement::Limit(limit) => json!({ "limit": limit_of(limit) }),
            Statement::Log(log) => json!({ "log": self.log(log) }),
            Statement::Match(condition) => self.condition(condition),
            // `shown` returns the single matches.
            Statement::Adjacent(_) => Value::Null,
            Statement::Masquerade(nat) => json!({ "masquerade": self.nat(family, None, nat) }),
            Statement::Redirect(nat) => json!({ "redirect": self.nat(family, None, nat) }),
            Statement::Snat { address, nat } => json!({ "snat": self.nat(family, address.as_ref(), nat) }),
            Statement::Dnat { address, nat } => json!({ "dnat": self.nat(family, address.as_ref(), nat) }),
            Statement::Nat { kind, computed } => self.computed(*kind, family, computed),
            Statement::Notrack => json!({ "notrack": null }),
            Statement::Other(expr) => other(expr),
            Statement::Queue(queue) => self.queue(queue),
            Statement::Quota(quota) => quota_of(quota, with_state),
            Statement::Reject(kind) => reject(*kind, family),
            Statement::ResetOption(field) => json!({ "reset": self.field(*field) }),
            Statement::Set { field, value, .. } => {
                let value = match value {
                    Term::Constant(constant) if matches!(field.0, Kind::Raw { .. }) => {
                        self.compared(&Term::Field(*field), &constant.data, Flags::List)
                    }
                    value => self.typed(value, field.datatype()),
                };
                json!({ "mangle": { "key": self.field(*field), "value": value } })
            }
            Statement::Synproxy(proxy) => json!({ "synproxy": synproxy(*proxy) }),
            Statement::Tproxy(proxy) => self.tproxy(proxy, family),
            Statement::Update(update) => self.update(update, family),
            Statement::Verdict(end) => verdict(end),
            Statement::Vmap { key, source } => {
                json!({ "vmap": { "key": self.term(key), "data": self.source(source, key, None) } })
            }
        }
    }

    /// A term; the values of a map have the type of what they are used for.
    fn typed(self, of: &Term, datatype: Datatype) -> Value {
        match of {
            Term::Map { key, source } => self.map(key, source, Some(datatype)),
            other => self.term(other),
        }
    }

    /// Version 1.0.6 prints one flag without a list.
    pub(super) fn flags(self, names: &[&str]) -> Value {
        match names {
            [] => Value::Null,
            [one] if self == Self::V1_0 => json!(one),
            names => json!(names),
        }
    }

    fn log(self, log: &Log) -> Value {
        let mut value = json!({});
        log.prefix.iter().for_each(|prefix| value["prefix"] = json!(prefix.as_str()));
        log.group.iter().for_each(|group| value["group"] = json!(group));
        log.snaplen.iter().for_each(|length| value["snaplen"] = json!(length));
        log.threshold.iter().for_each(|packets| value["queue-threshold"] = json!(packets));
        let level = log.level.and_then(|level| LOG_LEVELS.get(usize::try_from(level).ok()?));
        level.iter().for_each(|level| value["level"] = json!(level));
        let flags = log.flags.unwrap_or(0);
        let names: Vec<&str> = if flags & NF_LOG_MASK == NF_LOG_MASK {
            vec!["all"]
        } else {
            LOG_FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name).collect()
        };
        with_flags(value, "flags", self.flags(&names))
    }

    fn nat_flags(self, value: Value, nat: &Nat) -> Value {
        let names: Vec<&str> =
            NAT_FLAGS.iter().filter(|(_, bit)| nat.flags & bit != 0).map(|(name, _)| *name).collect();
        let value = with_flags(value, "flags", self.flags(&names));
        let is_prefix = nat.flags & NF_NAT_RANGE_NETMAP != 0;
        if is_prefix { with_flags(value, "type_flags", self.flags(&["prefix"])) } else { value }
    }

    fn nat(self, family: Family, address: Option<&IpRange>, nat: &Nat) -> Value {
        let mut value = json!({});
        if let Some(range) = address {
            let datatype = if range.is_v4() { Datatype::Ipv4Addr } else { Datatype::Ipv6Addr };
            if family == Family::Inet {
                value["family"] = json!(if range.is_v4() { "ip" } else { "ip6" });
            }
            value["addr"] = self.span(datatype, &range.first, &range.last);
        }
        if let Some(ports) = &nat.ports {
            value["port"] = numbers(*ports.start(), u32::from(*ports.end()));
        }
        self.nat_flags(value, nat)
    }

    fn computed(self, kind: NatKind, family: Family, computed: &Computed) -> Value {
        let mut value = json!({});
        let names_family = match computed.target {
            Target::Address(_) | Target::PortOf(..) => family == Family::Inet,
            Target::Addresses(_) | Target::Pair(_) | Target::Ranges(_) => true,
            Target::Port(_) => false,
        };
        match u8::try_from(computed.family) {
            Ok(NFPROTO_IPV4) if names_family => value["family"] = json!("ip"),
            Ok(NFPROTO_IPV6) if names_family => value["family"] = json!("ip6"),
            _ => {}
        }
        match &computed.target {
            Target::Address(to) | Target::Addresses(to) | Target::Pair(to) | Target::Ranges(to) => {
                value["addr"] = self.term(to)
            }
            Target::PortOf(address, port) => {
                value["addr"] = self.value(address_type(address), address, Flags::List);
                value["port"] = self.typed(port, Datatype::InetService);
            }
            Target::Port(port) => value["port"] = self.typed(port, Datatype::InetService),
        }
        json!({ kind.name(): self.nat_flags(value, &computed.nat) })
    }

    fn queue(self, queue: &Queue) -> Value {
        let number = match &queue.to {
            QueueTo::Numbers { first, count } => {
                numbers(*first, u32::from(*first) + u32::from(*count).max(1) - 1)
            }
            QueueTo::Computed(term) => self.term(term),
        };
        let names: Vec<&str> =
            QUEUE_FLAGS.iter().filter(|(_, bit)| queue.flags & bit != 0).map(|(name, _)| *name).collect();
        json!({ "queue": with_flags(json!({ "num": number }), "flags", self.flags(&names)) })
    }

    fn tproxy(self, proxy: &Tproxy, family: Family) -> Value {
        let mut value = json!({});
        match u8::try_from(proxy.family) {
            Ok(NFPROTO_IPV4) if family == Family::Inet => value["family"] = json!("ip"),
            Ok(NFPROTO_IPV6) if family == Family::Inet => value["family"] = json!("ip6"),
            _ => {}
        }
        proxy.address.iter().for_each(|address| value["addr"] = self.term(address));
        proxy.port.iter().for_each(|port| value["port"] = self.typed(port, Datatype::InetService));
        json!({ "tproxy": value })
    }

    fn update(self, update: &SetUpdate, family: Family) -> Value {
        let op = match update.op {
            NFT_DYNSET_OP_UPDATE => "update",
            NFT_DYNSET_OP_DELETE => "delete",
            _ => "add",
        };
        let key = self.term(&update.key);
        let element = match update.timeout {
            Some(milliseconds) => json!({ "elem": { "val": key, "timeout": milliseconds / 1_000 } }),
            None => key,
        };
        let statements: Vec<Value> =
            update.statements.iter().map(|statement| self.statement(statement, family, false)).collect();
        let name = match &update.set {
            Source::Named(name) => name,
            Source::Inline(inline) => {
                let mut meter = json!({ "key": element, "stmt": statements.first() });
                meter["size"] = json!(inline.set.size.unwrap_or(0));
                meter["name"] = json!(inline.set.name.as_str());
                return json!({ "meter": meter });
            }
        };
        let mut value = json!({ "op": op, "elem": element });
        if !statements.is_empty() {
            value["stmt"] = json!(statements);
        }
        match &update.value {
            // Version 1.0.6 has no JSON for it.
            Some(_) if self == Self::V1_0 => {
                let statement = Statement::Update(Box::new(update.clone()));
                let text = DisplayFn(|f: &mut std::fmt::Formatter<'_>| {
                    indented_statement(&Rule::new(), &statement, family, None, f)
                });
                json!(self.display(&text).to_string())
            }
            Some(data) => {
                value["data"] = self.term(data);
                value["map"] = json!(format!("@{name}"));
                json!({ "map": value })
            }
            None => {
                value["set"] = json!(format!("@{name}"));
                json!({ "set": value })
            }
        }
    }
}

pub(super) const LOG_LEVELS: [&str; 9] =
    ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"];

pub(super) const LOG_FLAGS: [(&str, u32); 5] = [
    ("tcp sequence", NF_LOG_TCPSEQ),
    ("tcp options", NF_LOG_TCPOPT),
    ("ip options", NF_LOG_IPOPT),
    ("skuid", NF_LOG_UID),
    ("ether", NF_LOG_MACDECODE),
];

pub(super) const NAT_FLAGS: [(&str, u32); 4] = [
    ("random", NF_NAT_RANGE_PROTO_RANDOM),
    ("fully-random", NF_NAT_RANGE_PROTO_RANDOM_FULLY),
    ("persistent", NF_NAT_RANGE_PERSISTENT),
    ("netmap", NF_NAT_RANGE_NETMAP),
];

pub(super) const QUEUE_FLAGS: [(&str, u16); 2] =
    [("bypass", NFT_QUEUE_FLAG_BYPASS), ("fanout", NFT_QUEUE_FLAG_CPU_FANOUT)];

/// nft's names of times that rates refer to, in seconds.
pub(super) const UNITS: [(&str, u64); 5] =
    [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400), ("week", 604_800)];

/// The statement that uses objects of a kind, `NFT_OBJECT_*`.
pub(super) const OBJECT_WORDS: [(&str, u32); 9] = [
    ("counter", NFT_OBJECT_COUNTER),
    ("quota", NFT_OBJECT_QUOTA),
    ("limit", NFT_OBJECT_LIMIT),
    ("synproxy", NFT_OBJECT_SYNPROXY),
    ("ct helper", NFT_OBJECT_CT_HELPER),
    ("ct timeout", NFT_OBJECT_CT_TIMEOUT),
    ("ct expectation", NFT_OBJECT_CT_EXPECT),
    ("secmark", NFT_OBJECT_SECMARK),
    ("tunnel", NFT_OBJECT_TUNNEL),
];

pub(super) fn address_type(address: &Data) -> Datatype {
    if address.len() == 4 { Datatype::Ipv4Addr } else { Datatype::Ipv6Addr }
}

/// Adds flags if there are any. `null` stands for an object without properties.
fn with_flags(mut value: Value, name: &str, flags: Value) -> Value {
    if !flags.is_null() {
        value[name] = flags;
    }
    if value.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { value }
}

/// A number of bytes in the largest unit that divides it.
pub(super) fn scaled(bytes: u64) -> (u64, &'static str) {
    match bytes {
        bytes if bytes > 0 && bytes % (1 << 20) == 0 => (bytes >> 20, "mbytes"),
        bytes if bytes > 0 && bytes % (1 << 10) == 0 => (bytes >> 10, "kbytes"),
        bytes => (bytes, "bytes"),
    }
}

/// A rate limit, as a statement.
pub(super) fn limit_of(limit: &Limit) -> Value {
    let per = UNITS.iter().find(|(_, seconds)| *seconds == limit.per).map_or("week", |(name, _)| name);
    let mut value = json!({ "rate": limit.rate, "burst": limit.burst, "per": per });
    if limit.over {
        value["inv"] = json!(true);
    }
    if limit.bytes {
        let ((rate, unit), (burst, burst_unit)) = (scaled(limit.rate), scaled(limit.burst.into()));
        value["rate"] = json!(rate);
        value["rate_unit"] = json!(unit);
        value["burst"] = json!(burst);
        value["burst_unit"] = json!(burst_unit);
    }
    value
}

fn quota_of(quota: &Quota, with_state: bool) -> Value {
    let (bytes, unit) = scaled(quota.bytes);
    let mut value = json!({ "val": bytes, "val_unit": unit });
    if quota.over {
        value["inv"] = json!(true);
    }
    if with_state && quota.used > 0 {
        let (used, unit) = scaled(quota.used);
        value["used"] = json!(used);
        value["used_unit"] = json!(unit);
    }
    json!({ "quota": value })
}

fn synproxy(proxy: Synproxy) -> Value {
    let mut value = json!({});
    // nft 1.0.6 prints no zeros; the kernel sets both options together.
    if proxy.flags & NF_SYNPROXY_OPT_MSS != 0 {
        value["mss"] = json!(proxy.mss);
    }
    if proxy.flags & NF_SYNPROXY_OPT_WSCALE != 0 {
        value["wscale"] = json!(proxy.wscale);
    }
    let flags = [("timestamp", NF_SYNPROXY_OPT_TIMESTAMP), ("sack-perm", NF_SYNPROXY_OPT_SACK_PERM)];
    let names: Vec<&str> =
        flags.iter().filter(|(_, bit)| proxy.flags & bit != 0).map(|(name, _)| *name).collect();
    with_flags(value, "flags", if names.is_empty() { Value::Null } else { json!(names) })
}

fn reject(kind: Reject, family: Family) -> Value {
    let (of, host, route) = match family {
        Family::Ip => ("icmp", "host-unreachable", "net-unreachable"),
        Family::Ip6 => ("icmpv6", "addr-unreachable", "no-route"),
        _ => ("icmpx", "host-unreachable", "no-route"),
    };
    let code =
        |names: &[(&str, u32)], code: u8| match names.iter().find(|(_, number)| *number == u32::from(code)) {
            Some((name, _)) => json!(name),
            None => json!(code),
        };
    let (of, code) = match kind {
        Reject::TcpReset => return json!({ "reject": { "type": "tcp reset" } }),
        Reject::PortUnreachable => (of, json!("port-unreachable")),
        Reject::AdminProhibited => (of, json!("admin-prohibited")),
        Reject::HostUnreachable => (of, json!(host)),
        Reject::NoRoute => (of, json!(route)),
        Reject::Icmp(number) => ("icmp", code(&ICMP_CODES, number)),
        Reject::Icmpv6(number) => ("icmpv6", code(&ICMPV6_CODES, number)),
    };
    json!({ "reject": { "type": of, "expr": code } })
}

/// An expression without a type here. nft knows the names of iptables' matches and targets.
fn other(expr: &Expr) -> Value {
    if let Expr::Other(other) = expr
        && matches!(&*other.name, "match" | "target")
        && let Some((name, _)) = xt(&other.data)
    {
        return json!({ "xt": { "type": &other.name, "name": name } });
    }
    json!(format!("<{expr:?}>"))
}
