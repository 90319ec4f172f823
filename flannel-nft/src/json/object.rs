//! Tables and the objects in them, as nft prints them in JSON.

use serde_json::{Value, json};

use crate::display::NftVersion;
use crate::display::expression::sorted;
use crate::display::object::{TCP_STATES, UDP_STATES};
use crate::json::write::limit_of;
use crate::model::chain::{Chain, Device, Policy};
use crate::model::datatype::Datatype;
use crate::model::family::Family;
use crate::model::ids::{Handle, TableId};
use crate::model::name::Comment;
use crate::model::object::{Flowtable, Object, ObjectKind, object_kind};
use crate::model::protocol::Protocol;
use crate::model::rule::Rule;
use crate::model::set::{Maps, Set};
use crate::model::table::{AnyObject, Counter, Table};
use crate::uapi::*;
use crate::wire::set_definition::{declared, statements_of};

impl NftVersion {
    /// A table and everything in it, in nft's order.
    pub(super) fn table(self, table: &Table) -> Vec<Value> {
        let id = &table.id;
        let names = TABLE_FLAGS.iter().filter(|(_, bit)| table.flags() & bit != 0);
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        let mut head = json!({ "family": id.family.name(), "name": id.name.as_str() });
        if !names.is_empty() {
            head["flags"] = self.flags(&names);
        }
        describe(&mut head, table.handle, self.newer(table.comment.as_ref()));
        let objects = table.all_objects().into_iter().map(|object| match object {
            AnyObject::Counter(counter) => counter_of(id, counter),
            AnyObject::Other(object) => object_of(id, object),
        });
        let chains = table.chains.iter().map(|chain| self.chain(id, chain));
        let sets = table.sets.iter().map(|set| self.set(id, set));
        let flowtables = table.flowtables.iter().map(|flowtable| flowtable_of(id, flowtable));
        let objects = objects.chain(sets).chain(flowtables);
        let mut all = vec![json!({ "table": head })];
        if self == Self::V1_0 {
            all.extend(objects.chain(chains));
        } else {
            all.extend(chains.chain(objects));
        }
        all.extend(
            table.chains.iter().flat_map(|chain| chain.rules.iter().map(|rule| self.rule(id, chain, rule))),
        );
        all
    }

    /// Version 1.0.6 does not print comments of tables and chains.
    fn newer(self, comment: Option<&Comment>) -> Option<&Comment> {
        comment.filter(|_| self != Self::V1_0)
    }

    fn chain(self, table: &TableId, chain: &Chain) -> Value {
        let mut value = named(table, chain.name.as_str());
        if let Some(base) = &chain.base {
            value["type"] = json!(base.kind.name());
            value["hook"] = json!(base.hook.name());
            value["prio"] = json!(base.priority.number());
            value["policy"] = json!(if base.policy == Policy::Accept { "accept" } else { "drop" });
            if self != Self::V1_0 && !base.devices.is_empty() {
                value["dev"] = devices(&base.devices);
            }
        }
        describe(&mut value, chain.handle, self.newer(chain.comment.as_ref()));
        json!({ "chain": value })
    }

    pub(super) fn rule(self, table: &TableId, chain: &Chain, rule: &Rule) -> Value {
        let mut value = json!({
            "family": table.family.name(),
            "table": table.name.as_str(),
            "chain": chain.name.as_str(),
        });
        describe(&mut value, rule.handle, rule.comment.as_ref());
        let statements = self.statements(rule, table.family);
        if !statements.is_empty() {
            value["expr"] = Value::Array(statements);
        }
        json!({ "rule": value })
    }

    fn set(self, table: &TableId, set: &Set) -> Value {
        let mut value = named(table, set.name.as_str());
        value["type"] = match declared(set).filter(|_| self != Self::V1_0) {
            Some(key) => json!({ "typeof": self.term(&key) }),
            None => type_names(set.key),
        };
        match set.maps {
            Maps::Nothing => {}
            Maps::Value(datatype) if self == Self::V1_0 => {
                value["map"] = json!(datatype.end().unwrap_or(datatype).to_string());
            }
            Maps::Value(datatype) => value["map"] = type_names(datatype.end().unwrap_or(datatype)),
            Maps::Verdict => value["map"] = json!("verdict"),
            Maps::Object(number) => value["map"] = json!(object_kind(number)),
        }
        if set.flags & NFT_SET_CONSTANT == 0 {
            if set.memory {
                value["policy"] = json!("memory");
            }
            if let Some(size) = set.size.filter(|size| *size > 0) {
                value["size"] = json!(size);
                if self != Self::V1_0 && !set.is_empty() {
                    value["count"] = json!(set.len());
                }
            }
        }
        // Version 1.0.6 does not print the flag `dynamic`.
        let shown = if self == Self::V1_0 { !NFT_SET_EVAL } else { u32::MAX };
        let names = SET_FLAGS.iter().filter(|(_, bit)| set.flags & shown & bit != 0);
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        if !names.is_empty() {
            value["flags"] = json!(names);
        }
        for (name, time) in [("timeout", set.timeout), ("gc-interval", set.gc_interval)] {
            time.iter().for_each(|time| value[name] = json!(time.as_secs()));
        }
        if set.auto_merge && self != Self::V1_0 {
            value["auto-merge"] = json!(true);
        }
        if !set.is_empty() {
            let elements =
                sorted(set, self).into_iter().map(|(span, body)| self.named_element(set, span, body));
            value["elem"] = Value::Array(elements.collect());
        }
        let statements: Vec<Value> =
            statements_of(set).iter().map(|statement| self.stateful(statement, true)).collect();
        if !statements.is_empty() {
            value["stmt"] = json!(statements);
        }
        describe(&mut value, set.handle, set.comment.as_ref());
        json!({ if set.maps == Maps::Nothing { "set" } else { "map" }: value })
    }
}

pub(super) const TABLE_FLAGS: [(&str, u32); 3] =
    [("dormant", NFT_TABLE_F_DORMANT), ("owner", NFT_TABLE_F_OWNER), ("persist", NFT_TABLE_F_PERSIST)];

pub(super) const SET_FLAGS: [(&str, u32); 4] = [
    ("constant", NFT_SET_CONSTANT),
    ("interval", NFT_SET_INTERVAL),
    ("timeout", NFT_SET_TIMEOUT),
    ("dynamic", NFT_SET_EVAL),
];

/// The states of a protocol's connections: nft's names and default timeouts in seconds.
pub(super) fn states(protocol: Protocol) -> &'static [(&'static str, u32)] {
    if protocol == Protocol::TCP { &TCP_STATES } else { &UDP_STATES }
}

/// The type, or the types of a concatenation.
fn type_names(datatype: Datatype) -> Value {
    match datatype.parts().as_slice() {
        [part] => json!(part.name()),
        parts => parts.iter().map(|part| part.name()).collect(),
    }
}

fn named(table: &TableId, name: &str) -> Value {
    json!({ "family": table.family.name(), "table": table.name.as_str(), "name": name })
}

fn describe(value: &mut Value, handle: Option<Handle>, comment: Option<&Comment>) {
    handle.iter().for_each(|handle| value["handle"] = json!(handle.number()));
    comment.iter().for_each(|comment| value["comment"] = json!(comment.as_str()));
}

fn devices(devices: &[Device]) -> Value {
    match devices {
        [one] => json!(one.to_string()),
        several => several.iter().map(ToString::to_string).collect(),
    }
}

fn counter_of(table: &TableId, counter: &Counter) -> Value {
    let mut value = named(table, counter.name.as_str());
    value["packets"] = json!(counter.packets);
    value["bytes"] = json!(counter.bytes);
    describe(&mut value, counter.handle, counter.comment.as_ref());
    json!({ "counter": value })
}

fn object_of(table: &TableId, object: &Object) -> Value {
    let mut value = named(table, object.name.as_str());
    let family = |family: Option<Family>| json!(family.unwrap_or(table.family).name());
    match object.kind() {
        Some(ObjectKind::CtExpectation { family: of, protocol, port, timeout, size }) => {
            value["protocol"] = protocol_of(protocol);
            value["dport"] = json!(port);
            value["timeout"] = json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            value["size"] = json!(size);
            value["l3proto"] = family(of);
        }
        Some(ObjectKind::CtHelper { helper, family: of, protocol }) => {
            value["type"] = json!(helper);
            value["protocol"] = protocol_of(protocol);
            value["l3proto"] = family(of);
        }
        Some(ObjectKind::CtTimeout { family: of, protocol, seconds }) => {
            value["protocol"] = protocol_of(protocol);
            value["l3proto"] = family(of);
            value["policy"] = Value::Null;
            for (state, seconds) in &seconds {
                let named = usize::from(*state).checked_sub(1).and_then(|at| states(protocol).get(at));
                if let Some((name, _)) = named.filter(|(_, default)| default != seconds) {
                    value["policy"][name] = json!(seconds);
                }
            }
        }
        Some(ObjectKind::Limit(limit)) => {
            if let Value::Object(mut fields) = limit_of(&limit) {
                if limit.burst == 0 {
                    fields.remove("burst");
                    fields.remove("burst_unit");
                }
                fields.into_iter().for_each(|(name, field)| value[name] = field);
            }
        }
        Some(ObjectKind::Quota { bytes, over, used }) => {
            value["bytes"] = json!(bytes);
            value["used"] = json!(used);
            value["inv"] = json!(over);
        }
        Some(ObjectKind::Secmark { context }) => value["context"] = json!(context),
        Some(ObjectKind::Synproxy { mss, window_scale, timestamp, sack_permitted }) => {
            value["mss"] = json!(mss.unwrap_or(0));
            value["wscale"] = json!(window_scale.unwrap_or(0));
            let flags = [(timestamp, "timestamp"), (sack_permitted, "sack-perm")];
            let names: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            if !names.is_empty() {
                value["flags"] = json!(names);
            }
        }
        None => {}
    }
    describe(&mut value, object.handle, object.comment.as_ref());
    json!({ object_kind(object.number): value })
}

/// The name, or the number if it has none.
fn protocol_of(protocol: Protocol) -> Value {
    let name = protocol.to_string();
    if name.bytes().all(|byte| byte.is_ascii_digit()) { json!(protocol.number()) } else { json!(name) }
}

fn flowtable_of(table: &TableId, flowtable: &Flowtable) -> Value {
    let mut value = named(table, flowtable.name.as_str());
    value["hook"] = json!("ingress");
    value["prio"] = json!(flowtable.priority.number());
    if !flowtable.devices.is_empty() {
        value["dev"] = devices(&flowtable.devices);
    }
    describe(&mut value, flowtable.handle, None);
    json!({ "flowtable": value })
}
