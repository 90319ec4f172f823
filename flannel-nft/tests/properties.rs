//! What holds for every ruleset: it is read back as it was written, a difference converges, equal means nothing to do.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

mod common;

use std::net::Ipv4Addr;

use common::*;
use flannel_nft::*;
use ipnet::Ipv4Net;
use proptest::prelude::*;
use testkit::netns;

fn prefix() -> impl Strategy<Value = Ipv4Net> {
    (any::<u32>(), 0..=32_u8)
        .prop_map(|(address, length)| Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc())
}

fn condition() -> impl Strategy<Value = Match> {
    let one = prop_oneof![
        prefix().prop_map(ip::saddr),
        prefix().prop_map(ip::daddr),
        (any::<u32>(), any::<u32>())
            .prop_map(|(a, b)| ip::saddr(Ipv4Addr::from(a.min(b))..=Ipv4Addr::from(a.max(b)))),
        proptest::collection::btree_set(any::<u16>(), 2..5)
            .prop_map(|ports| tcp::dport(ports.into_iter().collect::<Vec<_>>())),
        any::<u16>().prop_map(udp::dport),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| th::sport(a.min(b)..=a.max(b))),
        any::<u32>().prop_map(meta::mark),
        (any::<u32>(), any::<u32>()).prop_map(|(mark, mask)| meta::mark_masked(mark & mask, mask)),
        "[a-z]{1,8}\\*?".prop_map(|name| meta::oifname(&InterfaceName::new(&name).unwrap())),
        Just(ct::state([ct::State::Established, ct::State::Related])),
        Just(fib::daddr_type([fib::AddressType::Local])),
        Just(ip::saddr(Addresses::v4_set(&set("s")))),
        any::<u8>().prop_map(|number| meta::l4proto(Protocol::new(number))),
    ];
    (one, any::<bool>()).prop_map(|(condition, inverted)| if inverted { !condition } else { condition })
}

fn rule() -> impl Strategy<Value = Rule> {
    let ends: [fn(Rule) -> Rule; 8] = [
        Rule::accept,
        Rule::drop,
        Rule::return_,
        Rule::counter,
        |rule| rule.jump(&chain("sub")),
        |rule| rule.set_mark(Mark::Set(0x4000)),
        |rule| rule.limit(Limit::packets(3, Per::Hour)).log(Log::new()),
        |rule| rule.reject(Reject::TcpReset),
    ];
    let end = proptest::sample::select(ends.to_vec());
    let comment = proptest::option::of("[ -!#-~]{1,20}");
    (proptest::collection::vec(condition(), 0..3), end, comment).prop_map(|(conditions, end, comment)| {
        let rule = end(conditions.into_iter().fold(Rule::new(), Rule::when));
        match comment {
            Some(text) => rule.comment(Comment::new(&text).unwrap()),
            None => rule,
        }
    })
}

/// Rules from a small pool, so that two rulesets share some and repeat some.
fn ruleset() -> impl Strategy<Value = Ruleset> {
    let pool: Vec<Rule> =
        (0..6).map(|number| Rule::new().when(meta::mark(number)).counter().accept()).collect();
    let rules =
        proptest::collection::vec(prop_oneof![2 => proptest::sample::select(pool), 1 => rule()], 0..10);
    let elements = proptest::collection::vec(prefix(), 0..6);
    (rules, elements, any::<bool>()).prop_map(|(rules, elements, interval_map)| {
        let mut table = Table::new(Family::Inet, TableName::new("t").unwrap())
            .set(Set::new(set("s"), Datatype::Ipv4Addr).interval().elements(elements))
            .chain(Chain::regular(chain("sub")))
            .chain(Chain::base(chain("main"), Base::filter_forward()).rules(rules));
        if interval_map {
            table = table.set(
                Set::verdict_map(set("m"), Datatype::InetService)
                    .elements([Element::new(1).verdict(Verdict::Jump(chain("sub")))]),
            );
        }
        Ruleset::new().table(table)
    })
}

fn settled(kernel: &mut impl Kernel, desired: &Ruleset) {
    converge(kernel, desired).unwrap();
    let observed = observe(kernel, &desired.scope()).unwrap();
    assert_eq!(diff(desired, &observed).to_string(), "", "not recognised after the commit");
    assert!(diff(&observed.ruleset, &observed).is_empty());
}

proptest! {
    #[test]
    fn a_rule_is_read_back_as_it_was_written(rule in rule()) {
        let mut transaction = Transaction::unchecked();
        let id = TableId::new(Family::Inet, TableName::new("t").unwrap());
        transaction.append_rule(&id, &chain("c"), &rule);
        let changes = transaction.changes();
        let Some((_, Change::AddRule(_, _, RulePlace::Last, read))) = changes.last() else {
            panic!("{changes:?}")
        };
        prop_assert!(read.is_understood(), "{read}");
        let mut again = Transaction::unchecked();
        again.append_rule(&id, &chain("c"), read);
        let (first, second) = (transaction.seal().unwrap(), again.seal().unwrap());
        prop_assert_eq!(first.as_bytes(), second.as_bytes());
    }

    #[test]
    fn a_difference_converges(first in ruleset(), second in ruleset()) {
        let mut kernel = Memory::default();
        settled(&mut kernel, &first);
        settled(&mut kernel, &second);
        settled(&mut kernel, &first);
    }
}

#[test]
fn the_kernel_agrees() {
    use proptest::strategy::ValueTree;
    netns(|| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut kernel = Netlink::open().unwrap();
        for _ in 0..100 {
            settled(&mut kernel, &ruleset().new_tree(&mut runner).unwrap().current());
        }
    });
}
