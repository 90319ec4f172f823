//! What uses an object that is deleted or recreated is deleted first.

use super::*;

#[test]
fn a_counter_with_another_comment_is_recreated_with_what_uses_it() {
    let counts = |changed: Counter| {
        let named = CounterName::new("n").unwrap();
        let map =
            Set::counter_map(set("m"), Datatype::InetService).elements([Element::new(1).counter(&named)]);
        let other = Rule::new().counter_named(&CounterName::new("kept").unwrap());
        table()
            .counter(changed)
            .counter(counter("kept"))
            .set(map)
            .chain(chain("c", [other, Rule::new().counter_named(&named)]))
    };
    assert_eq!(
        changes(&counts(counter("n")), &counts(counter("n").comment(comment("new")))),
        "delete rule c handle 7
delete element m { 1 : \"n\" }
delete counter n
add counter n { comment \"new\"; packets 0 bytes 0; }
add element m { 1 : \"n\" }
add rule c counter name \"n\"
",
    );
}

#[test]
fn an_object_or_flowtable_with_another_definition_is_recreated_with_the_rules_that_use_it() {
    let limited = |bytes: u64, device: &str| {
        let named = |text: &str| ObjectName::new(text).unwrap();
        let quota = ObjectKind::Quota { bytes, over: true, used: 0 };
        let mut used = Rule::new();
        used.statements.push(Statement::Object { kind: NFT_OBJECT_QUOTA, name: "q".into() });
        let flowtable = Flowtable::new(named("f"), Priority::FILTER);
        table()
            .object(Object::new(named("q"), &quota))
            .flowtable(flowtable.device(&InterfaceName::new(device).unwrap()))
            .chain(Chain::base(name("c"), Base::filter_forward()).rules([
                used,
                Rule::new().when(meta::l4proto(Protocol::TCP)).flow_add("f"),
                rule(1),
            ]))
    };
    assert_eq!(
        changes(&limited(1 << 20, "eth0"), &limited(1 << 21, "eth0")),
        "delete rule c handle 4
delete quota q
add quota q { over 2 mbytes; }
insert rule c handle 5 quota name \"q\"
",
    );
    assert_eq!(
        changes(&limited(1 << 20, "eth0"), &limited(1 << 20, "eth1")),
        "delete rule c handle 5
delete flowtable f
add flowtable f { hook ingress priority filter; devices = { \"eth1\" }; }
insert rule c handle 6 meta l4proto tcp flow add @f
",
    );
    let two = |device: &str| {
        let of = |text: &str, device: &str| {
            let flowtable = Flowtable::new(ObjectName::new(text).unwrap(), Priority::FILTER);
            flowtable.device(&InterfaceName::new(device).unwrap())
        };
        table().flowtable(of("f", "eth0")).flowtable(of("g", device))
    };
    let text = changes(&two("eth0"), &two("eth1"));
    assert!(text.contains("flowtable g") && !text.contains("flowtable f"), "{text}");
}

#[test]
fn a_rule_with_an_anonymous_map_to_a_recreated_object_is_deleted_first() {
    let counts = |changed: Counter| {
        let element = |port: u16, named: &str| {
            let named = CounterName::new(named).unwrap();
            (Key::from(port), Body { mapped: Some(Mapped::Object(named)), ..Body::default() })
        };
        let key = Term::Field(field::tcp::DPORT);
        let source = Source::inline(
            Datatype::InetService,
            Maps::Object(NFT_OBJECT_COUNTER),
            [element(80, "n"), element(81, "kept")],
        );
        let mut used = Rule::new();
        used.statements.push(Statement::ObjectMap { kind: Some(NFT_OBJECT_COUNTER), key, source });
        table().counter(changed).counter(counter("kept")).chain(chain("c", [rule(1), used, rule(2)]))
    };
    assert_eq!(
        changes(&counts(counter("n")), &counts(counter("n").comment(comment("new")))),
        "delete rule c handle 5
delete counter n
add counter n { comment \"new\"; packets 0 bytes 0; }
insert rule c handle 6 counter name tcp dport map { 80 : \"n\", 81 : \"kept\" }
"
    );
    let goes = |target: Chain| {
        let goto = Rule::new().vmap_inline(VmapKey::TCP_DPORT, [(80_u16, Verdict::Goto(name("sub")))]);
        table().chain(target).chain(chain("c", [rule(1), goto, rule(2)]))
    };
    let text = changes(&goes(chain("sub", [])), &goes(chain("sub", []).comment(comment("new"))));
    assert!(text.starts_with("delete rule c handle 4\ndelete chain sub\n"), "{text}");
}

#[test]
fn an_expression_without_a_type_uses_what_it_names_and_perhaps_anything_if_it_is_unknown() {
    let (quota, flowtable) = (
        Object::new(ObjectName::new("q").unwrap(), &ObjectKind::Quota { bytes: 1, over: true, used: 0 }),
        Flowtable::new(ObjectName::new("f").unwrap(), Priority::FILTER),
    );
    let nothing = || Deletions {
        chains: HashSet::new(),
        sets: HashSet::new(),
        counters: HashSet::new(),
        unwanted: Unwanted::default(),
    };
    let deletions = [
        Deletions { chains: HashSet::from(["c"]), ..nothing() },
        Deletions { sets: HashSet::from(["s"]), ..nothing() },
        Deletions { counters: HashSet::from(["n"]), ..nothing() },
        Deletions { unwanted: Unwanted { objects: vec![&quota], flowtables: Vec::new() }, ..nothing() },
        Deletions { unwanted: Unwanted { objects: Vec::new(), flowtables: vec![&flowtable] }, ..nothing() },
    ];
    let other = |text: &str| Expr::Other(Box::new(OtherExpr { name: text.into(), data: Box::default() }));
    let lookup = |set: &str| Expr::Lookup { set: set.into(), id: None, sreg: 1, dreg: None, inverted: false };
    let jump = |to: &str| Expr::Verdict { code: NFT_JUMP, chain: Some(name(to)), id: None };
    for (expr, used) in [
        (jump("c"), [true, false, false, false, false]),
        (jump("other"), [false; 5]),
        (lookup("s"), [false, true, false, false, false]),
        (lookup("other"), [false; 5]),
        (Expr::Object { kind: NFT_OBJECT_COUNTER, name: "n".into() }, [false, false, true, false, false]),
        (Expr::Object { kind: NFT_OBJECT_QUOTA, name: "q".into() }, [false, false, false, true, false]),
        (Expr::Object { kind: NFT_OBJECT_QUOTA, name: "n".into() }, [false; 5]),
        (Expr::Object { kind: NFT_OBJECT_LIMIT, name: "q".into() }, [false; 5]),
        (Expr::FlowOffload { table: "f".into() }, [false, false, false, false, true]),
        (Expr::FlowOffload { table: "other".into() }, [false; 5]),
        (other("newer than this crate"), [true; 5]),
        (other("counter"), [false; 5]),
    ] {
        let mut rule = Rule::new();
        rule.statements.push(Statement::Other(expr.clone()));
        assert_eq!(deletions.each_ref().map(|deleted| deleted.is_used_by(&rule)), used, "{expr:?}");
        assert!(!nothing().is_used_by(&rule), "{expr:?}");
    }
}
