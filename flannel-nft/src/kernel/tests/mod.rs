//! Rulesets that the kernel rejects: the builder names the reason, and the fake kernel returns the
//! error number of the real kernel.

mod hooks;

use std::time::Duration;

use testkit::netns;

use crate::*;

/// A ruleset, the builder's reason for rejecting it, and the kernel's error.
struct Case {
    table: Table,
    /// Empty if the builder accepts it.
    reason: &'static str,
    errno: Option<Errno>,
}

/// Both reject it.
fn rejected(errno: Errno, table: Table, reason: &'static str) -> Case {
    Case { table, reason, errno: Some(errno) }
}

/// The kernel accepts it, although it is useless or nft cannot read it back.
fn useless(table: Table, reason: &'static str) -> Case {
    Case { table, reason, errno: None }
}

/// Both accept it: a limit that is just not exceeded.
fn valid(table: Table) -> Case {
    Case { table, reason: "", errno: None }
}

fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

fn set(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

fn table() -> Table {
    Table::new(Family::Ip, TableName::new("t").unwrap())
}

fn regular(name: &str, rules: impl IntoIterator<Item = Rule>) -> Chain {
    Chain::regular(chain(name)).rules(rules)
}

fn base(kind: ChainKind, hook: Hook, priority: Priority, rules: impl IntoIterator<Item = Rule>) -> Chain {
    Chain::base(chain("base"), Base::new(kind, hook, priority)).rules(rules)
}

fn forward(rules: impl IntoIterator<Item = Rule>) -> Chain {
    base(ChainKind::Filter, Hook::Forward, Priority::FILTER, rules)
}

fn nat(hook: Hook, rules: impl IntoIterator<Item = Rule>) -> Chain {
    base(ChainKind::Nat, hook, Priority::DSTNAT, rules)
}

fn jump(name: &str) -> Rule {
    Rule::new().jump(&chain(name))
}

fn goto(name: &str) -> Verdict {
    Verdict::Goto(chain(name))
}

fn v4(last: u8) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::new(10, 0, 0, last)
}

fn net4(text: &str) -> ipnet::Ipv4Net {
    text.parse().unwrap()
}

fn rule(rule: Rule) -> Table {
    table().chain(forward([rule]))
}

fn in_family(family: Family, chain: Chain) -> Table {
    Table::new(family, TableName::new("t").unwrap()).chain(chain)
}

/// A map of ports to verdicts with port 80.
fn ports(verdict: Verdict) -> Set {
    Set::verdict_map(set("ports"), Datatype::InetService).elements([Element::new(80).verdict(verdict)])
}

fn lookup() -> Rule {
    Rule::new().vmap(VmapKey::TCP_DPORT, &set("ports"))
}

fn addresses() -> Set {
    Set::new(set("s"), Datatype::Ipv4Addr)
}

fn in_set() -> Rule {
    Rule::new().when(ip::saddr(Addresses::v4_set(&set("s"))))
}

fn counted(statements: u8) -> Rule {
    (0..statements).fold(Rule::new(), |rule, _| rule.counter())
}

/// A base chain, and this number of chains below each other.
fn deep(chains: u8) -> Table {
    (1..chains)
        .fold(rule(jump("c1")), |table, at| {
            table.chain(regular(&format!("c{at}"), [jump(&format!("c{}", at + 1))]))
        })
        .chain(regular(&format!("c{chains}"), []))
}

fn chains() -> Vec<Case> {
    let inline = |verdict| Rule::new().vmap_inline(VmapKey::TCP_DPORT, [(80, verdict)]);
    let loops = "packets can reach chain `a` from itself, directly or through other chains";
    let base_target = "no rule can jump to chain `base`, because it is a base chain";
    let missing = "the table has no chain `gone` to jump to";
    vec![
        rejected(Errno::EMLINK, rule(jump("a")).chain(regular("a", [jump("a")])), loops),
        rejected(
            Errno::EMLINK,
            rule(jump("b")).chain(regular("a", [jump("b")])).chain(regular("b", [jump("a")])),
            loops,
        ),
        rejected(Errno::EMLINK, rule(jump("a")).set(ports(goto("a"))).chain(regular("a", [lookup()])), loops),
        rejected(Errno::EMLINK, rule(jump("a")).chain(regular("a", [inline(goto("a"))])), loops),
        valid(table().chain(regular("a", [jump("a")]))),
        rejected(Errno::EMLINK, deep(16), "chain `c16` is more than 15 jumps below a base chain"),
        valid(deep(15)),
        rejected(Errno::ENOENT, rule(jump("gone")), missing),
        rejected(Errno::ENOENT, table().set(ports(goto("gone"))), missing),
        rejected(Errno::ENOENT, rule(inline(goto("gone"))), missing),
        rejected(
            Errno::EOPNOTSUPP,
            rule(Rule::new().accept()).chain(regular("a", [jump("base")])),
            base_target,
        ),
        rejected(Errno::EOPNOTSUPP, rule(Rule::new().accept()).set(ports(goto("base"))), base_target),
        rejected(
            Errno::EOPNOTSUPP,
            table().chain(nat(Hook::Forward, [])),
            "family ip has no nat chains at hook forward",
        ),
        rejected(
            Errno::EOPNOTSUPP,
            table().chain(base(ChainKind::Route, Hook::Input, Priority::MANGLE, [])),
            "family ip has no route chains at hook input",
        ),
        rejected(
            Errno::EOPNOTSUPP,
            table().chain(base(ChainKind::Filter, Hook::Ingress, Priority::FILTER, [])),
            "family ip has no filter chains at hook ingress",
        ),
        rejected(
            Errno::ENOENT,
            in_family(Family::Bridge, nat(Hook::Prerouting, [])),
            "family bridge has no nat chains at hook prerouting",
        ),
        rejected(
            Errno::EOPNOTSUPP,
            table().chain(base(ChainKind::Nat, Hook::Prerouting, Priority::new(-200), [])),
            "priority -200 is too low for a nat chain",
        ),
        valid(table().chain(base(ChainKind::Nat, Hook::Prerouting, Priority::new(-199), []))),
    ]
}

fn sets() -> Vec<Case> {
    let counters = || Set::counter_map(set("s"), Datatype::Ipv4Addr);
    let marks = || Set::map(set("s"), Datatype::Ipv4Addr, Datatype::Mark);
    let verdicts = || Set::verdict_map(set("s"), Datatype::Ipv4Addr);
    let lookup = || Rule::new().vmap(VmapKey::SADDR4, &set("s"));
    let gone = CounterName::new("gone").unwrap();
    let second = Duration::from_secs(1);
    // The builder does not add what it rejects.
    let forced = |mut set: Set, more: Set| {
        set.invalid = more.invalid.clone();
        set.elements.extend(more.elements);
        table().set(set)
    };
    let key_of = |datatype| rule(in_set()).set(Set::new(set("s"), datatype));
    vec![
        rejected(Errno::ENOENT, rule(in_set()), "the table has no set or map `s`"),
        rejected(Errno::ENOENT, rule(lookup()), "the table has no set or map `s`"),
        rejected(Errno::ENOENT, rule(Rule::new().counter_named(&gone)), "the table has no counter `gone`"),
        rejected(
            Errno::ENOENT,
            table().set(counters().elements([Element::new(v4(1)).counter(&gone)])),
            "the table has no counter `gone`",
        ),
        rejected(
            Errno::EINVAL,
            rule(lookup()).set(addresses()),
            "the rule uses `s` as a verdict map, which it is not",
        ),
        rejected(
            Errno::EINVAL,
            rule(lookup()).set(marks()),
            "the rule uses `s` as a verdict map, which it is not",
        ),
        useless(rule(in_set()).set(verdicts()), "the rule uses `s` as a set, which it is not"),
        useless(rule(in_set()).set(marks()), "the rule uses `s` as a set, which it is not"),
        useless(rule(in_set()).set(counters()), "the rule uses `s` as a set, which it is not"),
        rejected(
            Errno::ENODATA,
            key_of(Datatype::Ipv6Addr),
            "@s has type ipv6_addr, but type ipv4_addr is required",
        ),
        useless(key_of(Datatype::Mark), "@s has type mark, but type ipv4_addr is required"),
        rejected(
            Errno::ENFILE,
            table().set(addresses().size(1).elements([v4(1), v4(2)])),
            "2 elements do not fit into a set of size 1",
        ),
        valid(table().set(addresses().size(2).elements([v4(1), v4(2)]))),
        rejected(
            Errno::EINVAL,
            forced(addresses(), {
                let invalid = addresses().elements([Element::new(v4(1)).timeout(second)]).invalid;
                let timed = addresses().timeouts().elements([Element::new(v4(1)).timeout(second)]);
                Set { invalid, ..timed }
            }),
            "element 10.0.0.1 has a timeout, but its set does not allow timeouts",
        ),
        rejected(
            Errno::ERANGE,
            table().set(addresses().timeout(Duration::MAX)),
            "timeout 18446744073709551615.999999999s is not between 1 ms and 584 years",
        ),
        rejected(
            Errno::ERANGE,
            table().set(addresses().timeouts().elements([Element::new(v4(1)).timeout(Duration::MAX)])),
            "timeout 18446744073709551615.999999999s is not between 1 ms and 584 years",
        ),
        useless(
            table().set(addresses().timeout(Duration::ZERO)),
            "timeout 0ns is not between 1 ms and 584 years",
        ),
        valid(table().set(addresses().timeout(Duration::from_millis(1)))),
        rejected(
            Errno::EOPNOTSUPP,
            table().set(addresses().interval().dynamic()),
            "the kernel does not let rules add elements to an interval set",
        ),
        rejected(
            Errno::EOPNOTSUPP,
            table().set(counters().dynamic()),
            "the kernel does not let rules add elements to a counter map",
        ),
        valid(table().set(addresses().dynamic())),
        valid(table().set(verdicts().dynamic())),
    ]
}

fn statements() -> Vec<Case> {
    let limit = |limit| rule(Rule::new().limit(limit));
    let from_port = || Rule::new().when(tcp::dport(1));
    let post = |rule| table().chain(nat(Hook::Postrouting, [rule]));
    let log = |log| rule(Rule::new().log(log));
    let (high, low) = (9, 8);
    vec![
        rejected(
            Errno::EINVAL,
            limit(Limit::packets(0, Per::Day)),
            "a limit of 0 with burst 5 is outside of",
        ),
        rejected(
            Errno::EOVERFLOW,
            limit(Limit::packets(u64::MAX, Per::Day)),
            "a limit of 18446744073709551615",
        ),
        rejected(
            Errno::EOVERFLOW,
            limit(Limit::packets(1, Per::Week).burst(u32::MAX)),
            "a limit of 1 with burst 4294967295 is outside of the kernel's range",
        ),
        rejected(
            Errno::EOVERFLOW,
            limit(Limit::bytes(1 << 35, Per::Second)),
            "a limit of 34359738368 with burst 0",
        ),
        valid(limit(Limit::bytes(1 << 34, Per::Second))),
        valid(limit(Limit::packets(1, Per::Second).burst(0))),
        rejected(
            Errno::EINVAL,
            rule(counted(129)),
            "the rule has 129 expressions, but the kernel accepts 128",
        ),
        valid(rule(counted(128))),
        rejected(
            Errno::EINVAL,
            log(Log::new().group(1).level(2)),
            "a log statement writes to the kernel log or to an nflog group, not to both",
        ),
        rejected(
            Errno::EINVAL,
            log(Log::new().level(2).group(1)),
            "a log statement writes to the kernel log or to an nflog group, not to both",
        ),
        valid(log(Log::new().group(1))),
        useless(rule(Rule::new()), "the rule has neither a match nor a statement"),
        useless(
            rule(Rule::new().vmap_inline(VmapKey::TCP_DPORT, std::iter::empty::<(u16, Verdict)>())),
            "the rule matches no packet, because the list of values to match is empty",
        ),
        useless(rule(Rule::new().accept().counter()), "a statement after a verdict is never reached"),
        useless(
            rule(Rule::new().when(meta::mark_masked(3, 1))),
            "value 0x00000003 has bits outside of mask 0x00000001",
        ),
        useless(
            rule(Rule::new().set_mark(Mark::Replace { mask: 1, value: 2 })),
            "value 0x00000002 has bits outside of mask 0x00000001",
        ),
        valid(rule(Rule::new().set_ct_mark(Mark::Replace { mask: 3, value: 2 }))),
        useless(post(from_port().snat(v4(2)..=v4(1), Nat::new())), "range 10.0.0.2-10.0.0.1 is empty"),
        useless(post(from_port().masquerade(Nat::new().ports(high..=low))), "range 9-8 is empty"),
        useless(
            post(Rule::new().masquerade(Nat::new().port(9))),
            "a rule that translates a port needs a match of the protocol before",
        ),
        useless(
            post(Rule::new().snat(v4(1), Nat::new().port(9))),
            "a rule that translates a port needs a match of the protocol before",
        ),
        valid(post(from_port().masquerade(Nat::new().port(9)))),
        valid(post(Rule::new().when(meta::l4proto(Protocol::UDP)).masquerade(Nat::new().port(9)))),
    ]
}

fn cases() -> Vec<Case> {
    [chains(), hooks::cases(), sets(), statements()].into_iter().flatten().collect()
}

/// The kernel's error for a table that is sent without validation; `None` if it accepts it.
fn errno(kernel: &mut impl Kernel, table: &Table) -> Option<Errno> {
    let mut transaction = Transaction::unchecked();
    transaction.create(table);
    match transaction.seal_invalid().commit(kernel) {
        Ok(_) => {
            let mut transaction = Transaction::unchecked();
            transaction.delete_table(table.id());
            transaction.seal().unwrap().commit(kernel).unwrap();
            None
        }
        Err(CommitError::Refused { source, .. }) => Some(source.errno()),
        Err(error) => panic!("{table}: {error:?}"),
    }
}

#[test]
fn the_builder_names_the_reason() {
    for Case { table, reason, .. } in cases() {
        let result = converge(&mut FakeKernel::default(), &Ruleset::new().table(table.clone()));
        match result {
            Ok(_) => assert_eq!(reason, "", "accepted:\n{table}"),
            Err(ConvergeError::Seal(SealError { reason: found, .. })) => {
                assert!(!reason.is_empty() && found.to_string().starts_with(reason), "{found}:\n{table}");
            }
            Err(error) => panic!("{error:?}:\n{table}"),
        }
    }
}

#[test]
fn the_fake_kernel_rejects_what_the_kernel_rejects() {
    for Case { table, errno: expected, .. } in cases() {
        assert_eq!(errno(&mut FakeKernel::default(), &table), expected, "{table}");
    }
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        for Case { table, errno: expected, .. } in cases() {
            let found = errno(&mut kernel, &table);
            // Kernels before 6.8 do not check registers, and find loops when a rule is added.
            let older = matches!(
                (found, expected),
                (None, Some(Errno::ENODATA)) | (Some(Errno::ELOOP), Some(Errno::EMLINK))
            );
            assert!(found == expected || older, "{found:?} instead of {expected:?}:\n{table}");
        }
    });
}

/// Elements that a set has already, in another transaction.
fn second_elements(kernel: &mut impl Kernel) {
    let drop = Element::new(80).verdict(Verdict::Drop);
    let duplicate = Set::verdict_map(set("ports"), Datatype::InetService).elements([drop]);
    let nets = |net: &str| addresses().interval().elements([net4(net)]);
    let cases = [
        (ports(Verdict::Accept), ports(Verdict::Accept), None),
        (ports(Verdict::Accept), duplicate, Some(Errno::EEXIST)),
        (addresses().elements([v4(1)]), addresses().elements([v4(1)]), None),
        (nets("10.0.0.0/24"), nets("10.0.0.0/24"), None),
        (nets("10.0.0.0/24"), nets("10.0.1.0/24"), None),
        (nets("10.0.0.0/24"), nets("10.0.0.0/25"), Some(Errno::EEXIST)),
        (nets("10.0.0.0/24"), nets("10.0.0.0/16"), Some(Errno::EEXIST)),
    ];
    for (first, second, expected) in cases {
        let table = table().set(first);
        let mut transaction = Transaction::unchecked();
        transaction.create(&table);
        transaction.seal().unwrap().commit(kernel).unwrap();
        let mut transaction = Transaction::unchecked();
        transaction.add_elements(table.id(), &second);
        let found = match transaction.seal().unwrap().commit(kernel) {
            Ok(_) => None,
            Err(CommitError::Refused { source, .. }) => Some(source.errno()),
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(found, expected, "{table}");
        let mut transaction = Transaction::unchecked();
        transaction.delete_table(table.id());
        transaction.seal().unwrap().commit(kernel).unwrap();
    }
}

#[test]
fn an_element_has_one_value() {
    second_elements(&mut FakeKernel::default());
    netns(|| second_elements(&mut Netlink::open().unwrap()));
    let drop = Element::new(80).verdict(Verdict::Drop);
    let twice = table().set(ports(Verdict::Accept).elements([drop]));
    let error = converge(&mut FakeKernel::default(), &Ruleset::new().table(twice)).unwrap_err();
    let ConvergeError::Seal(error) = error else { panic!("{error:?}") };
    assert_eq!(
        error.reason.to_string(),
        "two elements have the key 80 but different values; remove one of them"
    );
}

#[test]
fn an_observed_rule_is_written_back_although_the_builder_would_reject_it() {
    let useless = Rule { handle: Some(Handle(1)), ..Rule::new().accept().counter() };
    let mut kernel = FakeKernel::default();
    converge(&mut kernel, &Ruleset::new().table(rule(useless))).unwrap();
    assert_eq!(kernel.tables()[0].chains[0].rules.len(), 1);
}
