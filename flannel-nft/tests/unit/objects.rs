//! Objects and flowtables of a table.

use std::time::Duration;

use flannel_nft::*;

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn table() -> Table {
    let tcp = Protocol::TCP;
    let kinds = [
        (
            "e",
            ObjectKind::CtExpectation {
                family: None,
                protocol: tcp,
                port: 21,
                timeout: Duration::from_secs(2),
                size: 3,
            },
        ),
        ("h", ObjectKind::CtHelper { helper: "ftp".into(), family: Some(Family::Ip), protocol: tcp }),
        ("t", ObjectKind::CtTimeout { family: Some(Family::Ip), protocol: tcp, seconds: vec![(3, 100)] }),
        ("l", ObjectKind::Limit(Limit::packets(3, Per::Hour))),
        ("q", ObjectKind::Quota { bytes: 1 << 20, over: true, used: 5 }),
        ("s", ObjectKind::Secmark { context: "system_u:object_r:ssh_t:s0".into() }),
        (
            "p",
            ObjectKind::Synproxy {
                mss: Some(1460),
                window_scale: Some(7),
                timestamp: true,
                sack_permitted: false,
            },
        ),
    ];
    let empty = Table::new(Family::Inet, TableName::new("t").unwrap());
    kinds.iter().fold(empty, |table, (text, kind)| {
        let object = Object::new(name(text), kind);
        assert_eq!(object.kind().as_ref(), Some(kind));
        table.object(object)
    })
}

#[test]
fn objects_and_flowtables_are_added_recreated_and_deleted() {
    let eth0 = InterfaceName::new("eth0").unwrap();
    let flowtable = Flowtable::new(name("f"), Priority::FILTER).device(&eth0).offload();
    let full = Ruleset::new().table(table().flowtable(flowtable.clone()));
    let mut kernel = FakeKernel::default();
    converge(&mut kernel, &full).unwrap();
    assert!(matches!(converge(&mut kernel, &full).unwrap(), Outcome::Unchanged { .. }));
    assert_eq!(kernel.tables()[0].to_string(), full.tables()[0].to_string());
    assert!(kernel.script().contains(
        "add flowtable inet t f { hook ingress priority filter; devices = { \"eth0\" }; flags offload; }"
    ));

    let more = ObjectKind::Quota { bytes: 1 << 21, over: true, used: 0 };
    let changed = table().object(Object::new(name("q"), &more)).flowtable(flowtable.counter());
    let observed = kernel.observe(&full.scope()).unwrap();
    assert_eq!(
        diff(&Ruleset::new().table(changed), &observed).to_string(),
        "delete quota inet t q
delete flowtable inet t f
add quota inet t q { over 2 mbytes; }
add flowtable inet t f { hook ingress priority filter; devices = { \"eth0\" }; flags offload; counter; }
"
    );
    // What packets used up is no difference.
    let used = ObjectKind::Quota { bytes: 1 << 20, over: true, used: 1000 };
    let used = full.tables()[0].clone().object(Object::new(name("q"), &used));
    assert!(diff(&Ruleset::new().table(used), &observed).is_empty());

    let none = Ruleset::new().table(Table::new(Family::Inet, TableName::new("t").unwrap()));
    converge(&mut kernel, &none).unwrap();
    assert!(kernel.tables()[0].objects().is_empty() && kernel.tables()[0].flowtables().is_empty());
}
