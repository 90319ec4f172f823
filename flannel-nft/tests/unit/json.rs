//! JSON without a kernel: errors name the place, commands change what they name, nothing panics.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::generate::ruleset;
use crate::common::*;
use flannel_nft::*;

/// A document with one rule in `ip t c`, of these statements.
fn rule(statements: &Value) -> Value {
    json!({ "nftables": [
        { "table": { "family": "ip", "name": "t" } },
        { "chain": { "family": "ip", "table": "t", "name": "c" } },
        { "rule": { "family": "ip", "table": "t", "chain": "c", "expr": statements } },
    ] })
}

fn dport(right: &Value) -> Value {
    let left = json!({ "payload": { "protocol": "tcp", "field": "dport" } });
    json!({ "match": { "op": "==", "left": left, "right": right } })
}

#[test]
fn errors_name_the_place_what_is_there_and_what_is_expected() {
    let expr = "nftables[2].rule.expr";
    let cases = [
        (json!([{ "frobnicate": null }]), "[0]", "{\"frobnicate\":null}", "a statement"),
        (json!([{ "accept": null }, "jump { accept }"]), "[1]", "\"jump { accept }\"", "one property"),
        (json!([dport(&json!("x"))]), "[0].match.right", "\"x\"", "a value of type inet_service"),
        (json!([dport(&json!(65536))]), "[0].match.right", "65536", "a value of type inet_service"),
        (json!([dport(&json!({ "set": [22, {}] }))]), "[0].match.right.set[1]", "{}", "inet_service"),
        (json!([{ "jump": {} }]), "[0].jump", "{}", "property `target`"),
        (json!([{ "log": { "prefix": "a", "colour": "red" } }]), "[0].log", "colour", "no property `colour`"),
        (json!([{ "limit": { "rate": 5, "per": "moon" } }]), "[0].limit.per", "\"moon\"", "second, minute"),
        (
            json!([{ "mangle": { "key": { "meta": { "key": "colour" } }, "value": 1 } }]),
            "[0].mangle.key.meta",
            "colour",
            "a key of `meta`",
        ),
        (json!([{ "dnat": { "addr": "10.0.0.256" } }]), "[0].dnat.addr", "10.0.0.256", "ipv4_addr"),
    ];
    for (statements, path, found, expected) in cases {
        let error = json::parse(&rule(&statements).to_string()).unwrap_err();
        assert_eq!(error.path, format!("{expr}{path}"), "{error}");
        assert!(error.found.contains(found), "{error}");
        assert!(error.expected.contains(expected), "{error}");
    }
    let other = [
        ("[", "line 1 column 1", "valid JSON"),
        ("[]", "the document", "property `nftables`"),
        (
            r#"{ "nftables": [ { "metainfo": { "json_schema_version": 2 } } ] }"#,
            "nftables[0].metainfo.json_schema_version",
            "schema version 1",
        ),
        (
            r#"{ "nftables": [ { "chain": { "family": "ip", "table": "t", "name": "c" } } ] }"#,
            "nftables[0].chain",
            "table ip t before it",
        ),
        (
            r#"{ "nftables": [ { "table": { "family": "ipx", "name": "t" } } ] }"#,
            "nftables[0].table.family",
            "family ip",
        ),
    ];
    for (text, path, expected) in other {
        let error = json::parse(text).unwrap_err();
        assert_eq!(error.path, path, "{error}");
        assert!(error.expected.contains(expected), "{error}");
    }
}

/// What the builder makes is printed and read again as it is, in both formats.
fn reads_back(ruleset: &Ruleset) {
    for format in [NftVersion::V1_0, NftVersion::V1_1] {
        let text = json::print(ruleset, format);
        let read = json::parse(&text).map_err(|error| format!("{error}\n{text}")).unwrap();
        assert_eq!(json::print(&read, format), text);
    }
}

#[test]
fn flannels_rules_are_printed_and_read_again() {
    reads_back(&flannel());
    let text = json::print(&flannel(), NftVersion::V1_1);
    let read = json::parse(&text).unwrap();
    assert_eq!(read.to_string(), flannel().to_string());
    let mut kernel = FakeKernel::default();
    converge(&mut kernel, &flannel()).unwrap();
    assert!(matches!(converge(&mut kernel, &read).unwrap(), Outcome::Unchanged { .. }));
}

/// What a map maps to in JSON does not say whether its values are ranges.
#[test]
fn a_map_to_concatenated_ranges_is_read_and_printed_as_nft_prints_it() {
    let concat = |address: Value, port: Value| json!({ "concat": [address, port] });
    let elements = [
        json!(["10.0.0.1", concat(json!("192.168.0.1"), json!(53))]),
        json!([
            "10.0.0.2",
            concat(json!({ "range": ["192.168.0.1", "192.168.0.4"] }), json!({ "range": [80, 90] }))
        ]),
        json!(["10.0.0.3", concat(json!({ "prefix": { "addr": "192.168.1.0", "len": 24 } }), json!(443))]),
    ];
    let map = json!({ "map": {
        "family": "ip", "table": "t", "name": "m", "type": "ipv4_addr", "map": "ipv4_addr . inet_service",
        "flags": ["interval"], "elem": elements,
    } });
    let key = json!({ "payload": { "protocol": "ip", "field": "saddr" } });
    let dnat =
        |data: Value| json!({ "dnat": { "family": "ip", "addr": { "map": { "key": key, "data": data } } } });
    for data in [json!("@m"), json!({ "set": elements })] {
        let mut document = rule(&json!([dnat(data)]));
        document["nftables"].as_array_mut().unwrap().insert(1, map.clone());
        let ruleset = json::parse(&document.to_string()).unwrap();
        let printed: Value = serde_json::from_str(&json::print(&ruleset, NftVersion::V1_0)).unwrap();
        let printed = printed["nftables"].as_array().unwrap();
        for object in document["nftables"].as_array().unwrap() {
            assert!(printed.contains(object), "{object} is not in {printed:#?}");
        }
        let text = ruleset.to_string();
        assert!(text.contains("type ipv4_addr : interval ipv4_addr . inet_service"), "{text}");
        assert!(text.contains("10.0.0.2 : 192.168.0.1-192.168.0.4 . 80-90"), "{text}");
    }
}

proptest! {
    #[test]
    fn what_the_builder_makes_is_printed_and_read_again(ruleset in ruleset()) {
        reads_back(&ruleset);
    }
}

fn commands(kernel: &mut FakeKernel, commands: &Value) -> Result<Outcome, json::ApplyError> {
    json::apply(kernel, &json!({ "nftables": commands }).to_string())
}

fn listing(kernel: &mut FakeKernel) -> String {
    let tables = kernel.tables().unwrap();
    kernel.observe(&tables).unwrap().ruleset.to_string()
}

/// The place and the expectation of the error.
fn refused(kernel: &mut FakeKernel, items: &Value) -> String {
    let before = listing(kernel);
    let refused = commands(kernel, items).unwrap_err();
    assert_eq!(listing(kernel), before);
    match refused {
        json::ApplyError::Json(error) => format!("{}: {}", error.path, error.expected),
        other => format!("{other:?}"),
    }
}

#[test]
fn commands_change_what_they_name() {
    let mut kernel = FakeKernel::default();
    let table = json!({ "table": { "family": "ip", "name": "t" } });
    let chain = json!({ "chain": { "family": "ip", "table": "t", "name": "c" } });
    let set =
        json!({ "set": { "family": "ip", "table": "t", "name": "s", "type": "inet_service", "elem": [22] } });
    let rule = |number: u16, more: Value| {
        let mut rule = json!({ "family": "ip", "table": "t", "chain": "c", "expr": [dport(&json!(number))] });
        more.as_object().unwrap().iter().for_each(|(name, value)| rule[name] = value.clone());
        json!({ "rule": rule })
    };
    let rules = |kernel: &mut FakeKernel| -> Vec<String> {
        let listed = listing(kernel);
        listed.lines().filter_map(|line| Some(line.strip_prefix("\t\ttcp dport ")?.to_owned())).collect()
    };
    let handle = |kernel: &mut FakeKernel, place: usize| {
        let tables = kernel.tables().unwrap();
        let observed = kernel.observe(&tables).unwrap();
        observed.ruleset.tables()[0].chains()[0].list()[place].handle().unwrap().number()
    };
    let outcome = commands(
        &mut kernel,
        &json!([
            { "metainfo": { "json_schema_version": 1 } },
            { "add": table }, { "add": chain }, { "add": set },
            { "add": rule(1, json!({})) }, { "add": rule(2, json!({})) }, rule(3, json!({ "handle": 77 })),
        ]),
    );
    assert!(matches!(outcome.unwrap(), Outcome::Changed { .. }));
    assert_eq!(rules(&mut kernel), ["1", "2", "3"]);
    // Adding what exists changes nothing.
    let again = commands(&mut kernel, &json!([{ "add": table }, { "add": chain }, { "add": set }]));
    assert!(matches!(again.unwrap(), Outcome::Unchanged { .. }));

    let (first, second) = (handle(&mut kernel, 0), handle(&mut kernel, 1));
    commands(
        &mut kernel,
        &json!([
            { "insert": rule(4, json!({})) },
            { "insert": rule(5, json!({ "handle": second })) },
            { "add": rule(6, json!({ "handle": second })) },
            { "insert": rule(7, json!({ "index": 0 })) },
            { "replace": rule(8, json!({ "handle": first })) },
        ]),
    )
    .unwrap();
    assert_eq!(rules(&mut kernel), ["7", "4", "8", "5", "2", "6", "3"]);
    let gone = json!({ "rule": { "family": "ip", "table": "t", "chain": "c", "handle": second } });
    commands(&mut kernel, &json!([{ "delete": gone }])).unwrap();
    assert_eq!(rules(&mut kernel), ["7", "4", "8", "5", "6", "3"]);

    let element = json!({ "element": { "family": "ip", "table": "t", "name": "s", "elem": [80, 443] } });
    commands(&mut kernel, &json!([{ "add": element }])).unwrap();
    assert!(listing(&mut kernel).contains("elements = { 22, 80, 443 }"), "{}", listing(&mut kernel));
    commands(&mut kernel, &json!([{ "delete": element }])).unwrap();
    assert!(listing(&mut kernel).contains("elements = { 22 }"));

    let cases = [
        (json!([{ "create": table }]), "nftables[0].create.table: a table that does not exist yet"),
        (json!([{ "create": chain }]), "nftables[0].create.chain: an object that does not exist yet"),
        (json!([{ "delete": element }]), "nftables[0].delete.element.elem[0]: an element that exists"),
        (json!([{ "delete": gone }]), "nftables[0].delete.rule: an object that exists"),
        (
            json!([{ "replace": rule(1, json!({})) }]),
            "nftables[0].replace.rule: the property `handle` of the rule",
        ),
        (json!([{ "flush": table }, { "list": table }]), "nftables[1]: add, create"),
        (
            json!([{ "delete": { "table": { "family": "ip", "name": "u" } } }]),
            "nftables[0].delete.table: a table that exists",
        ),
        (
            json!([{ "add": { "chain": { "family": "ip", "table": "u", "name": "c" } } }]),
            "there is no table ip u",
        ),
        (
            json!([{ "add": rule(1, json!({ "handle": 4711 })) }]),
            "nftables[0].add.rule.handle: a rule of the chain",
        ),
    ];
    for (items, expected) in cases {
        let error = refused(&mut kernel, &items);
        assert!(error.contains(expected), "{error}");
    }
    // `destroy` does not fail.
    let absent = json!({ "table": { "family": "ip", "name": "u" } });
    let outcome =
        commands(&mut kernel, &json!([{ "destroy": absent }, { "destroy": element }, { "destroy": gone }]));
    assert!(matches!(outcome.unwrap(), Outcome::Unchanged { .. }));

    commands(&mut kernel, &json!([{ "flush": set }, { "flush": chain }])).unwrap();
    assert_eq!(rules(&mut kernel), [""; 0]);
    assert!(!listing(&mut kernel).contains("elements"));
    commands(&mut kernel, &json!([{ "delete": set }, { "delete": chain }])).unwrap();
    assert_eq!(listing(&mut kernel), "table ip t {\n}\n");
    commands(&mut kernel, &json!([{ "add": absent }, { "flush": { "ruleset": null } }])).unwrap();
    assert_eq!(listing(&mut kernel), "table ip u {\n}\n".replace("table ip u {\n}\n", ""));
}

/// Values of all kinds, some of which mean something somewhere.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..300_u64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        proptest::sample::select(vec![
            "ip", "@s", "*", "eth*", "\\*", "10.0.0.1", "::1", "syn", "1:2", "17:00"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let names = vec![
            "set", "map", "concat", "range", "prefix", "addr", "len", "elem", "val", "key", "data", "&", "|",
            "<<", "payload", "protocol", "field", "base", "offset", "meta", "ct", "fib", "match", "op",
            "left", "right", "limit", "rate", "typeof", "port", "flags", "timeout",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(names), inner), 0..4).prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
        ]
    })
}

/// Replaces the n-th value in the document.
fn damage(value: &mut Value, place: &mut usize, by: &Value) {
    if *place == 0 {
        *value = by.clone();
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| damage(item, place, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| damage(field, place, by)),
        _ => {}
    }
}

/// A document with all kinds of objects, from `nft -j list ruleset`.
const SAMPLE: &str = include_str!("../json/sample.json");

proptest! {
    #[test]
    fn arbitrary_json_does_not_panic(place in 0..2_000_usize, by in any_value()) {
        let mut document: Value = serde_json::from_str(SAMPLE).unwrap();
        let mut place = place;
        damage(&mut document, &mut place, &by);
        let text = document.to_string();
        if let Ok(ruleset) = json::parse(&text) {
            let _text = (json::print(&ruleset, NftVersion::V1_0), ruleset.to_string());
        }
        let _refused = json::apply(&mut FakeKernel::default(), &text);
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC{0,40}") {
        let _refused = json::parse(&text);
    }
}

#[test]
fn the_sample_is_read() {
    let ruleset = json::parse(SAMPLE).unwrap();
    assert_eq!(ruleset.tables().len(), 3);
    // Version 1.0.6 has no `typeof`.
    let text = json::print(&ruleset, NftVersion::V1_1);
    assert_eq!(json::print(&json::parse(&text).unwrap(), NftVersion::V1_1), text);
}
