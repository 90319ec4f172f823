//! Rulesets by chance.

use std::net::Ipv4Addr;

use flannel_nft::*;
use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;

pub(crate) fn prefix() -> impl Strategy<Value = Ipv4Net> {
    (any::<u32>(), 0..=32_u8)
        .prop_map(|(address, length)| Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc())
}

pub(crate) fn condition() -> impl Strategy<Value = Match> {
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

pub(crate) fn rule() -> impl Strategy<Value = Rule> {
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
    let rule = (proptest::collection::vec(condition(), 0..3), end, comment).prop_map(
        |(conditions, end, comment)| {
            let rule = end(conditions.into_iter().fold(Rule::new(), Rule::when));
            match comment {
                Some(text) => rule.comment(Comment::new(&text).unwrap()),
                None => rule,
            }
        },
    );
    rule.prop_filter("no packet is UDP and TCP at once", |rule| {
        let mut transaction = Transaction::unchecked();
        let id = TableId::new(Family::Inet, TableName::new("t").unwrap());
        transaction.append_rule(&id, &chain("c"), rule);
        transaction.seal().is_ok()
    })
}

/// Rules from a small pool, so that two rulesets share some and repeat some.
pub(crate) fn ruleset() -> impl Strategy<Value = Ruleset> {
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
