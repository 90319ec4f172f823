//! Both the kernel and the fake kernel keep an object while a rule or an element uses it.

use crate::common::*;
use flannel_nft::*;
use testkit::{netns, sh};

const RULESET: &str = r#"table inet t {
    counter in_rule { }
    counter in_map { }
    counter in_anonymous_map { }
    counter in_implicit_chain { }
    counter shared_name { }
    counter spare { }
    quota in_rule { over 1 mbytes; }
    quota in_map { over 1 mbytes; }
    quota shared_name { over 1 mbytes; }
    limit in_rule { rate 3/hour; }
    limit in_anonymous_map { rate 3/hour; }
    ct helper in_rule { type "ftp" protocol tcp; }
    ct helper spare { type "ftp" protocol tcp; }
    synproxy in_rule { mss 1460; wscale 7; }
    set looked_up { type mark; elements = { 1 }; }
    set not_looked_up { type mark; }
    set added_to { type mark; size 9; flags dynamic; }
    set concatenated { type ipv4_addr . inet_service; }
    set spare { type mark; elements = { 1 }; }
    map verdicts { type mark : verdict; elements = { 1 : jump in_verdict_map }; }
    map values { type mark : mark; elements = { 1 : 2 }; }
    map balanced { typeof numgen inc mod 2 : ip daddr; }
    map counters { type mark : counter; elements = { 1 : "in_map" }; }
    map quotas { type mark : quota; elements = { 1 : "in_map" }; }
    map spare_map { type mark : verdict; elements = { 1 : goto in_spare_map }; }
    chain jumped_to { }
    chain gone_to { }
    chain in_verdict_map { }
    chain in_spare_map { }
    chain in_anonymous_map { }
    chain in_numbered_map { }
    chain in_implicit_chain { }
    chain spare { }
    chain rules {
        counter name "in_rule"
        quota name "in_rule"
        quota name "shared_name"
        limit name "in_rule"
        ct helper set "in_rule"
        synproxy name "in_rule"
        meta mark @looked_up accept
        meta mark != @not_looked_up accept
        add @added_to { meta mark }
        ip saddr . tcp dport @concatenated accept
        meta mark vmap @verdicts
        meta mark set meta mark map @values
        meta nfproto ipv4 ip daddr set numgen inc mod 2 map @balanced
        counter name meta mark map @counters
        quota name meta mark map @quotas
        counter name meta mark map { 1 : "in_anonymous_map" }
        limit name meta mark map { 1 : "in_anonymous_map" }
        meta mark vmap { 1 : jump in_anonymous_map }
        numgen inc mod 2 vmap { 0 : jump in_numbered_map, 1 : accept }
        tcp dport 22 jump { counter name "in_implicit_chain"; goto in_implicit_chain; }
        tcp dport 23 jump jumped_to
        goto gone_to
    }
}
"#;

type Step<'s> = Box<dyn Fn(&mut Transaction<Building>) + 's>;

/// Each deletion of an object of the table.
fn deletions(table: &Table) -> Vec<Step<'_>> {
    let id = table.id();
    let mut all: Vec<Step<'_>> = Vec::new();
    for counter in table.counters() {
        all.push(Box::new(|t| t.delete_counter(id, counter.name())));
    }
    for object in table.objects() {
        all.push(Box::new(|t| t.delete_object(id, object)));
    }
    for set in table.sets() {
        all.push(Box::new(|t| t.delete_set(id, set.name())));
    }
    for chain in table.chains().iter().filter(|chain| chain.list().is_empty()) {
        all.push(Box::new(|t| t.delete_chain(id, chain.name())));
    }
    all
}

/// What a kernel refuses of these changes; at the latest it refuses to delete a chain that does not exist.
fn refused(kernel: &mut impl Kernel, table: &Table, changes: &[&Step<'_>]) -> String {
    let mut transaction = Transaction::unchecked();
    changes.iter().for_each(|change| change(&mut transaction));
    transaction.delete_chain(table.id(), &chain("absent"));
    match transaction.seal().unwrap().commit(kernel).unwrap_err() {
        CommitError::Refused { operation, source, .. } => format!("{operation}: {:?}", source.errno()),
        error => unreachable!("{error:?}"),
    }
}

#[test]
fn the_fake_kernel_refuses_to_delete_what_the_kernel_refuses_to_delete() {
    netns(|| {
        sh(&format!("nft -f - <<'END'\n{RULESET}END"));
        let mut kernel = Netlink::open().unwrap();
        let observed = kernel.observe(&[id_in(Family::Inet, "t")]).unwrap().ruleset;
        let table = &observed.tables()[0];
        let mut fake = FakeKernel::default();
        converge(&mut fake, &observed).unwrap();

        let flush: Step<'_> = Box::new(|t| t.flush_chain(table.id(), &chain("rules")));
        let empty: Step<'_> = Box::new(|t| {
            table.sets().iter().for_each(|set| t.delete_elements(table.id(), set));
        });
        let mut answers = [0; 3];
        for deletion in deletions(table) {
            for (place, before) in [&[][..], &[&flush], &[&flush, &empty]].into_iter().enumerate() {
                let changes: Vec<&Step<'_>> = before.iter().copied().chain([&deletion]).collect();
                let answer = refused(&mut kernel, table, &changes);
                assert_eq!(refused(&mut fake, table, &changes), answer);
                answers[place] += usize::from(answer.contains("EBUSY"));
            }
            let twice = refused(&mut kernel, table, &[&flush, &empty, &deletion, &deletion]);
            assert!(twice.contains("ENOENT") && !twice.contains("absent"), "{twice}");
            assert_eq!(refused(&mut fake, table, &[&flush, &empty, &deletion, &deletion]), twice);
        }
        // Objects in use; of these, objects that elements of named maps use.
        assert_eq!(answers, [27, 4, 0]);
    });
}
