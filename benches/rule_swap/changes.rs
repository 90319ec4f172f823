//! What changes in steady state: nothing, one rule, one element.

use std::cell::{Cell, RefCell};
use std::fs;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use flannel_benches::{FLOOR, OURS, Report, quick};
use flannel_nft::{
    Datatype, Family, Netlink, Outcome, RetainedRuleset, Rule, Ruleset, Set, SetName, Table, TableName,
    Transaction, Value, converge, generation, observe,
};
use testkit::{in_netns, sh};

use crate::{Floor, rounds, table, timed};

pub(crate) fn measure(report: &mut Report) {
    in_netns(|| nothing(report)).unwrap();
    in_netns(|| one_rule(report, 1_000)).unwrap();
    let sizes: &[u32] = if quick() { &[10, 1_000] } else { &[10, 1_000, 100_000] };
    for n in sizes {
        in_netns(|| one_element(report, *n)).unwrap();
    }
}

fn nothing(report: &mut Report) {
    let kernel = RefCell::new(Netlink::open().unwrap());
    let ruleset = Ruleset::new().table(table(6));
    let mut keeper = RetainedRuleset::new(ruleset.clone());
    let first = keeper.reconcile(&mut *kernel.borrow_mut()).unwrap().generation();
    report.race(
        "nothing to do",
        6,
        rounds(6),
        vec![
            (
                OURS,
                Box::new(|| {
                    timed(|| {
                        black_box(keeper.reconcile(&mut *kernel.borrow_mut()).unwrap());
                    })
                }),
            ),
            (
                "drift check alone",
                Box::new(|| {
                    timed(|| {
                        black_box(generation(&mut *kernel.borrow_mut()).unwrap());
                    })
                }),
            ),
            (
                "read all and compare",
                Box::new(|| {
                    timed(|| {
                        black_box(converge(&mut *kernel.borrow_mut(), &ruleset).unwrap());
                    })
                }),
            ),
        ],
    );
    let after = generation(&mut *kernel.borrow_mut()).unwrap();
    let mut commits = [f64::from(after.number() - first.number())];
    report.figure("commits while there was nothing to do", OURS, 6, "commits", &mut commits);
}

/// The last rule of `n` changes to another one and back.
fn one_rule(report: &mut Report, n: u32) {
    let kernel = RefCell::new(Netlink::open().unwrap());
    let sides = [0, 1].map(|side| {
        let mut rules = table(n + 1).chains()[0].list().to_vec();
        rules.remove(usize::try_from(n - side).unwrap());
        let chain = table(0).chains()[0].clone().rules(rules);
        Ruleset::new().table(Table::new(Family::Ip, TableName::new("bench").unwrap()).chain(chain))
    });
    converge(&mut *kernel.borrow_mut(), &sides[0]).unwrap();
    let id = sides[0].tables()[0].id().clone();
    let chain = sides[0].tables()[0].chains()[0].name().clone();
    let last = |side: usize| sides[side].tables()[0].chains()[0].list().last().unwrap().clone();
    let rules: [Rule; 2] = [last(0), last(1)];

    // A rule that is replaced has a new handle, so whoever changes one by hand has to ask for it; not timed.
    let handle = || {
        let observed = observe(&mut *kernel.borrow_mut(), std::slice::from_ref(&id)).unwrap();
        let last = observed.ruleset.tables()[0].chains()[0].list().last().unwrap().handle();
        (observed.generation, last.unwrap())
    };
    let turn = Cell::new(1_usize);
    let next = || turn.replace(1 - turn.get());
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("one.nft");
    let replace = |(generation, old)| {
        let mut transaction = Transaction::at(generation);
        transaction.replace_rule(&id, &chain, old, &rules[next()]);
        transaction
    };
    report.race(
        "one rule changed",
        n.into(),
        rounds(n),
        vec![
            (FLOOR, Box::new(|| Floor::new(replace(handle())).run())),
            (
                OURS,
                Box::new(|| {
                    let old = handle();
                    timed(|| {
                        replace(old).seal().unwrap().commit(&mut *kernel.borrow_mut()).unwrap();
                    })
                }),
            ),
            (
                "ours, by reading all and comparing",
                Box::new(|| {
                    let outcome = Cell::new(None);
                    let took = timed(|| {
                        outcome.set(Some(converge(&mut *kernel.borrow_mut(), &sides[next()]).unwrap()));
                    });
                    assert!(
                        matches!(outcome.get(), Some(Outcome::Changed { changes: 1, .. })),
                        "{outcome:?}"
                    );
                    took
                }),
            ),
            (
                "nft -f",
                Box::new(|| {
                    fs::write(&script, replace(handle()).to_string()).unwrap();
                    timed(|| drop(sh(&format!("exec nft -f {}", script.display()))))
                }),
            ),
        ],
    );
}

/// One element more in a hash set that has `n`; it is taken away again, which is not timed.
fn one_element(report: &mut Report, n: u32) {
    let kernel = RefCell::new(Netlink::open().unwrap());
    let name = SetName::new("addresses").unwrap();
    let set = |from: u32, to: u32| {
        let addresses = (from..to).map(|at| Value::from(Ipv4Addr::from(0x0a00_0000 + at)));
        Set::new(name.clone(), Datatype::Ipv4Addr).elements(addresses)
    };
    let ruleset =
        |n| Ruleset::new().table(Table::new(Family::Ip, TableName::new("bench").unwrap()).set(set(0, n)));
    let desired = [ruleset(n), ruleset(n + 1)];
    converge(&mut *kernel.borrow_mut(), &desired[0]).unwrap();
    let id = desired[0].tables()[0].id().clone();
    let one = set(n, n + 1);
    let add = || {
        let mut transaction = Transaction::unchecked();
        transaction.add_elements(&id, &one);
        transaction
    };
    let remove = || {
        let mut transaction = Transaction::unchecked();
        transaction.delete_elements(&id, &one);
        transaction.seal().unwrap().commit(&mut *kernel.borrow_mut()).unwrap();
    };
    let and_back = |took: Duration| {
        remove();
        took
    };
    let mut floor = Floor::new(add());
    let command =
        format!("exec nft add element ip bench addresses {{ {} }}", Ipv4Addr::from(0x0a00_0000 + n));
    let fast = if quick() { 100 } else { 500 };
    report.race(
        "one element added",
        n.into(),
        fast,
        vec![
            (FLOOR, Box::new(|| and_back(floor.run()))),
            (
                OURS,
                Box::new(|| {
                    and_back(timed(|| {
                        add().seal().unwrap().commit(&mut *kernel.borrow_mut()).unwrap();
                    }))
                }),
            ),
        ],
    );
    report.race(
        "one element added, by who reads first",
        n.into(),
        if n > 10_000 { 3 } else { 20 },
        vec![
            (
                "ours, by reading all and comparing",
                Box::new(|| {
                    and_back(timed(|| {
                        converge(&mut *kernel.borrow_mut(), &desired[1]).unwrap();
                    }))
                }),
            ),
            ("nft add element", Box::new(|| and_back(timed(|| drop(sh(&command)))))),
        ],
    );
}
