//! Which changes lead from one table to another.

mod keys;
mod parts;
mod uses;

use super::*;
use crate::bytecode::expr::{Expr, OtherExpr};
use crate::model::element::Mapped;
use crate::model::expression::Term;
use crate::model::matching::Source;
use crate::model::set::Maps;
use crate::model::statement::Statement;
use crate::*;

fn table() -> Table {
    Table::new(Family::Ip, TableName::new("t").unwrap())
}

fn name(text: &str) -> ChainName {
    ChainName::new(text).unwrap()
}

fn set(text: &str) -> SetName {
    SetName::new(text).unwrap()
}

fn comment(text: &str) -> Comment {
    Comment::new(text).unwrap()
}

fn counter(text: &str) -> Counter {
    Counter::new(CounterName::new(text).unwrap())
}

fn chain(text: &str, rules: impl IntoIterator<Item = Rule>) -> Chain {
    Chain::regular(name(text)).rules(rules)
}

fn rule(mark: u32) -> Rule {
    Rule::new().when(meta::mark(mark)).accept()
}

fn observed(table: &Table) -> Observed {
    let mut kernel = FakeKernel::default();
    converge(&mut kernel, &Ruleset::new().table(table.clone())).unwrap();
    kernel.observe(std::slice::from_ref(table.id())).unwrap()
}

/// The changes from one table to another, without the name of the table; the fake kernel accepts them.
fn changes(old: &Table, new: &Table) -> String {
    let mut kernel = FakeKernel::default();
    converge(&mut kernel, &Ruleset::new().table(old.clone())).unwrap();
    let desired = Ruleset::new().table(new.clone());
    let observed = kernel.observe(&desired.scope()).unwrap();
    let text = diff(&desired, &observed).to_string();
    converge(&mut kernel, &desired).unwrap();
    assert!(matches!(converge(&mut kernel, &desired), Ok(Outcome::Unchanged { .. })), "{text}");
    text.replace(" ip t", "")
}

/// Rules are letters, and their marks the numbers of the letters: `a` is 1. The letter at place `n` has handle `n` + 2, since
/// the chain has handle 1.
fn rule_changes(old: &str, new: &str) -> Vec<String> {
    let rules =
        |letters: &str| letters.bytes().map(|letter| rule(u32::from(letter - b'a') + 1)).collect::<Vec<_>>();
    let text = changes(&table().chain(chain("c", rules(old))), &table().chain(chain("c", rules(new))));
    let short = |line: &str| {
        let line = line.replace(" rule c", "").replace("handle ", "").replace(" accept", "");
        let Some((start, mark)) = line.split_once("meta mark 0x") else { return line };
        let letter = b'a' - 1 + u8::from_str_radix(mark, 16).unwrap();
        format!("{start}{}", char::from(letter))
    };
    text.lines().map(short).collect()
}

#[test]
fn rules_that_stay_in_order_are_kept_and_the_others_changed_around_them() {
    for (old, new, expected) in [
        ("abc", "abc", &[][..]),
        ("", "ab", &["add a", "add b"]),
        ("ab", "", &["delete 2", "delete 3"]),
        ("a", "x", &["replace 2 x"]),
        ("abc", "axc", &["replace 3 x"]),
        ("abc", "ab", &["delete 4"]),
        ("abc", "ac", &["delete 3"]),
        ("abc", "bc", &["delete 2"]),
        ("ab", "abc", &["add c"]),
        ("ac", "abc", &["insert 3 b"]),
        ("bc", "abc", &["insert 2 a"]),
        ("abcd", "axyzd", &["replace 3 x", "replace 4 y", "insert 5 z"]),
        ("abcd", "axd", &["delete 4", "replace 3 x"]),
        // The longest run stays: here that after the moved rule.
        ("abcd", "bcda", &["delete 2", "add a"]),
        ("abcd", "dabc", &["delete 5", "insert 2 d"]),
        ("xabcy", "xcaby", &["delete 5", "insert 3 c"]),
        (
            "pabcdefq",
            "pdaebfcq",
            &["delete 6", "delete 7", "delete 8", "insert 3 d", "insert 4 e", "insert 5 f"],
        ),
        // Equal rules are paired in order.
        ("aa", "a", &["delete 3"]),
        ("a", "aa", &["add a"]),
        ("aab", "ab", &["delete 3"]),
        ("pbaaq", "paacq", &["delete 3", "insert 6 c"]),
        ("xaby", "xbaaby", &["insert 3 b", "insert 3 a"]),
        ("xaay", "xaaay", &["insert 5 a"]),
    ] {
        assert_eq!(rule_changes(old, new), expected, "{old} -> {new}");
    }
}

#[test]
fn rules_that_are_equal_as_the_kernel_holds_them_only_are_kept_too() {
    for (new, old, expected) in [
        (&[1, 2, 3][..], &[1, 2, 3][..], &[(0, 0), (1, 1), (2, 2)][..]),
        (&[1, 9, 3], &[1, 8, 3], &[(0, 0), (2, 2)]),
        (&[1, 3, 2, 3], &[1, 2, 3], &[(0, 0), (2, 1), (3, 2)]),
        (&[1, 2, 3], &[1, 3, 2, 3], &[(0, 0), (1, 2), (2, 3)]),
        (&[1, 1], &[1, 1, 1], &[(0, 0), (1, 1)]),
        (&[1, 1, 1], &[1, 1], &[(0, 0), (1, 1)]),
        (&[1, 5, 6, 7, 2, 1, 4], &[1, 7, 5, 6, 2, 2, 4], &[(0, 0), (1, 2), (2, 3), (4, 4), (6, 6)]),
        (&[1, 4, 2, 3, 4], &[1, 2, 4, 3, 4], &[(0, 0), (2, 1), (3, 3), (4, 4)]),
    ] {
        let known: Vec<Option<usize>> = old.iter().copied().map(Some).collect();
        assert_eq!(longest_common(new, &known), expected, "{old:?} -> {new:?}");
    }
    assert_eq!(longest_common(&[1, 2], &[None, Some(2)]), [(1, 1)], "a rule that has to go is equal to none");
}

#[test]
fn a_chain_with_another_hook_or_comment_is_recreated_with_what_uses_it() {
    let forward_to = |base: Base, mark| table().chain(Chain::base(name("c"), base).rule(rule(mark)));
    let forward = |base: Base| forward_to(base, 1);
    let accept = forward(Base::filter_forward());
    assert_eq!(
        changes(&accept, &forward(Base::new(ChainKind::Filter, Hook::Input, Priority::FILTER))),
        "flush chain c
delete chain c
add chain c { type filter hook input priority filter; policy accept; }
add rule c meta mark 0x00000001 accept
",
    );
    let input = Base::new(ChainKind::Filter, Hook::Input, Priority::FILTER);
    let text = changes(&accept, &forward_to(input, 2));
    assert_eq!(text.matches("rule c").count(), 1, "{text}");
    let later = changes(&accept, &forward(Base::new(ChainKind::Filter, Hook::Forward, Priority::new(1))));
    assert!(later.contains("delete chain c\n"), "{later}");
    // The kernel can change the policy.
    assert_eq!(
        changes(&accept, &forward(Base::filter_forward().policy(Policy::Drop))),
        "add chain c { type filter hook forward priority filter; policy drop; }\n"
    );

    let jumps = |target: Chain| {
        table().chain(target).chain(chain("c", [rule(1), Rule::new().jump(&name("sub")), rule(2)]))
    };
    assert_eq!(
        changes(&jumps(chain("sub", [])), &jumps(chain("sub", []).comment(comment("new")))),
        "delete rule c handle 4
delete chain sub
add chain sub { comment \"new\"; }
insert rule c handle 5 jump sub
",
    );
    let only = |target: Chain| table().chain(target).chain(chain("c", [Rule::new().jump(&name("sub"))]));
    let text = changes(&only(chain("sub", [])), &only(chain("sub", []).comment(comment("new"))));
    assert!(text.starts_with("delete rule c handle 3\ndelete chain sub\n"), "{text}");
    let goes = |target: Chain| {
        let map = Set::verdict_map(set("m"), Datatype::InetService);
        let element = |port: u16, verdict| Element::new(port).verdict(verdict);
        table()
            .chain(target)
            .set(map.elements([element(1, Verdict::Goto(name("sub"))), element(2, Verdict::Accept)]))
    };
    assert_eq!(
        changes(&goes(chain("sub", [])), &goes(chain("sub", []).comment(comment("new")))),
        "delete element m { 1 : goto sub }
delete chain sub
add chain sub { comment \"new\"; }
add element m { 1 : goto sub }
",
    );
}

#[test]
fn a_set_with_another_definition_is_recreated_with_the_rules_that_use_it() {
    let looks_up = |changed: fn(Set) -> Set| {
        let addresses =
            changed(Set::new(set("s"), Datatype::Ipv4Addr)).elements([std::net::Ipv4Addr::LOCALHOST]);
        let used = Rule::new().when(ip::saddr(Addresses::v4_set(&set("s")))).drop();
        table().set(addresses).chain(chain("c", [rule(1), used, rule(2)]))
    };
    assert_eq!(
        changes(&looks_up(|set| set), &looks_up(|set| set.size(9))),
        "delete rule c handle 5
delete set s
add set s { type ipv4_addr; size 9; }
add element s { 127.0.0.1 }
insert rule c handle 6 ip saddr @s drop
",
    );
    let changed: [fn(Set) -> Set; 5] = [
        |set| set.interval(),
        |set| set.timeouts(),
        |set| set.memory(),
        |set| set.comment(comment("new")),
        |set| set.timeout(std::time::Duration::from_secs(9)),
    ];
    for changed in changed {
        let text = changes(&looks_up(|set| set), &looks_up(changed));
        assert!(text.contains("delete rule c handle 5\ndelete set s\nadd set s"), "{text}");
    }
}

#[test]
fn elements_are_added_and_removed_one_by_one() {
    let map = |elements: &[(u16, Verdict)]| {
        let elements = elements.iter().map(|(port, verdict)| Element::new(*port).verdict(verdict.clone()));
        table().set(Set::verdict_map(set("m"), Datatype::InetService).elements(elements))
    };
    let (accept, drop) = (Verdict::Accept, Verdict::Drop);
    assert_eq!(
        changes(
            &map(&[(1, accept.clone()), (2, accept.clone()), (3, accept.clone())]),
            &map(&[(2, accept.clone()), (3, drop.clone()), (4, drop)]),
        ),
        "delete element m { 1 : accept, 3 : accept }\nadd element m { 3 : drop, 4 : drop }\n"
    );
}

#[test]
fn an_element_with_another_comment_or_lifetime_is_added_again() {
    let with = |text: &str, lifetime: u64| {
        let lifetime = std::time::Duration::from_millis(lifetime);
        let element = Element::new(80_u16).comment(comment(text)).timeout(lifetime);
        table().set(Set::new(set("s"), Datatype::InetService).timeouts().elements([element]))
    };
    let old = with("a", 10_000);
    assert_eq!(changes(&old, &with("a", 10_019)), "", "the kernel rounds to its clock");
    for new in [with("b", 10_000), with("a", 10_020)] {
        let text = changes(&old, &new);
        assert!(text.starts_with("delete element s { 80") && text.contains("\nadd element s { 80"), "{text}");
    }
}

#[test]
fn elements_that_rules_have_added_stay() {
    let dynamic = || Set::new(set("s"), Datatype::Ipv4Addr).dynamic().size(9);
    let filled = table().set(dynamic().elements([std::net::Ipv4Addr::LOCALHOST]));
    assert_eq!(changes(&filled, &table().set(dynamic())), "");
}

#[test]
fn what_is_not_desired_is_deleted_in_an_order_that_the_kernel_accepts() {
    let full = table()
        .counter(counter("n"))
        .set(
            Set::verdict_map(set("m"), Datatype::InetService)
                .elements([Element::new(1).verdict(Verdict::Jump(name("sub")))]),
        )
        .chain(chain("sub", [Rule::new().counter_named(&CounterName::new("n").unwrap())]))
        .chain(chain("c", [Rule::new().vmap(VmapKey::TCP_DPORT, &set("m"))]));
    assert_eq!(
        changes(&full, &table()),
        "flush chain sub\nflush chain c\ndelete set m\ndelete chain sub\ndelete chain c\ndelete counter n\n"
    );
}

#[test]
fn a_table_is_recreated_for_another_comment_or_ownership_only() {
    let recreated = "delete table\nadd table";
    let of_rule = |table: Table| table.chain(chain("c", [rule(1)]));
    let other_rule = table().comment(comment("new")).chain(chain("c", [rule(2)]));
    assert_eq!(
        changes(&of_rule(table()), &other_rule),
        "delete table\nadd table { comment \"new\"; }\nadd chain c\nadd rule c meta mark 0x00000002 accept\n"
    );
    assert_eq!(changes(&of_rule(table()), &of_rule(table().dormant())), "add table { flags dormant; }\n");
    assert_eq!(changes(&of_rule(table().dormant()), &of_rule(table())), "add table\n");

    let difference = |old: &Table, owner: Option<u32>, new: Table| {
        let mut observed = observed(old);
        for table in &mut observed.ruleset.tables {
            table.owner = owner;
        }
        observed.port = Some(7);
        diff(&Ruleset::new().table(new), &observed).to_string().replace(" ip t", "")
    };
    let owned = || table().ownership(Ownership::Owner);
    assert!(difference(&table(), None, owned()).starts_with(recreated));
    assert!(difference(&owned(), None, table()).starts_with(recreated), "its owner exited");
    assert!(difference(&owned(), Some(7), table()).starts_with(recreated), "this process owns it");
    let adopted = "add table { flags owner,persist; }\n";
    assert_eq!(difference(&owned(), Some(7), owned()), "");
    assert_eq!(difference(&owned(), None, owned()), adopted);
    assert_eq!(difference(&owned(), Some(8), owned()), adopted, "the kernel refuses that");

    let mut observed = observed(&owned());
    let is_empty = |observed: &Observed| diff(&observed.ruleset, observed).is_empty();
    assert!(is_empty(&observed), "an observed ruleset is no change");
    observed.ruleset.tables[0].owner = Some(8);
    assert!(is_empty(&observed), "nor of another owner");
}

#[test]
fn an_owned_table_whose_owner_exited_is_recognized_by_its_remaining_flag() {
    // The kernel clears the owner flag.
    let owned = table().ownership(Ownership::Owner);
    for (flags, was_owned) in
        [(0, false), (NFT_TABLE_F_PERSIST, true), (NFT_TABLE_F_OWNER, true), (NFT_TABLE_F_DORMANT, false)]
    {
        let mut observed = observed(&table());
        observed.ruleset.tables[0].flags = flags;
        let text = diff(&Ruleset::new().table(owned.clone()), &observed).to_string();
        assert_eq!(!text.contains("delete table"), was_owned, "{flags}: {text}");
    }
}

#[test]
fn tables_that_must_not_exist_are_deleted_if_they_do() {
    let (there, gone) = (table(), TableId::new(Family::Ip6, TableName::new("t").unwrap()));
    let desired = Ruleset::new().without(there.id().clone()).without(gone);
    assert_eq!(diff(&desired, &observed(&there)).to_string(), "delete table ip t\n");
}

#[test]
fn a_table_that_stays_as_it_is_is_not_validated() {
    // The kernel accepts a lookup in a map, which nft cannot print.
    let lookup = Rule::new().when(ip::saddr(Addresses::v4_set(&set("m")))).accept();
    let invalid =
        table().set(Set::map(set("m"), Datatype::Ipv4Addr, Datatype::Mark)).chain(chain("c", [lookup]));
    let mut kernel = FakeKernel::default();
    let mut transaction = Transaction::unchecked();
    transaction.create(&invalid);
    transaction.seal_invalid().commit(&mut kernel).unwrap();
    let observed = kernel.observe(std::slice::from_ref(invalid.id())).unwrap();
    diff(&Ruleset::new().table(invalid.clone()), &observed).seal().map(drop).unwrap();
    let more = invalid.chain(chain("new", []));
    diff(&Ruleset::new().table(more), &observed).seal().unwrap_err();
}

#[test]
fn counts_and_anonymous_sets_are_compared_as_the_kernel_holds_them() {
    // Between other rules: there encoded rules are compared.
    let around = |middle: Rule| table().chain(chain("c", [rule(1), rule(2), middle, rule(3)]));
    let moved = |middle: Rule| table().chain(chain("c", [rule(2), middle, rule(1), rule(3)]));
    let moves = "delete rule c handle 2\ninsert rule c handle 5 meta mark 0x00000001 accept\n";
    let counted = |packets| {
        let mut rule = Rule::new().counter().accept();
        rule.statements[0] = Statement::Counter { packets, bytes: packets };
        rule
    };
    assert_eq!(changes(&around(counted(5)), &moved(counted(0))), moves);
    let ports = |ports: &[u16]| Rule::new().when(tcp::dport(ports.to_vec())).accept();
    assert_eq!(changes(&around(ports(&[1, 2])), &moved(ports(&[2, 1]))), moves);
    assert!(changes(&around(ports(&[1, 2])), &moved(ports(&[1, 3]))).contains("{ 1, 3 }"));
    let commented = |text: &str| Rule::new().accept().comment(comment(text));
    assert_eq!(changes(&around(commented("a")), &moved(commented("a"))), moves);
    assert!(changes(&around(commented("a")), &moved(commented("b"))).contains("comment \"b\""));
}
