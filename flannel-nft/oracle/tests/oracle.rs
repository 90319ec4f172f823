//! The same ruleset through flannel-nft, `nft -f`, nftnl and rustables: the kernel holds the same afterwards.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod settings;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use common::{flannel, generate, vocabulary};
use flannel_nft::ct::State as CtState;
use flannel_nft::{ChainKind, Hook, Netlink, Ruleset, converge};
use flannel_nft_oracle::*;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use testkit::{check_uapi, netns, sh};

/// The kernel's state with these rules and no others, as `send` makes it.
fn state(send: impl FnOnce()) -> State {
    sh("nft flush ruleset");
    send();
    State::read().unwrap()
}

fn by_us(kernel: &mut Netlink, desired: &Ruleset) -> State {
    state(|| {
        converge(kernel, desired).unwrap();
    })
}

fn by_nft(desired: &Ruleset) -> State {
    state(|| {
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(desired.to_string().as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft cannot read\n{desired}");
    })
}

/// What is different after `nft -f` of our text.
fn different_by_nft(kernel: &mut Netlink, desired: &Ruleset) -> String {
    let (ours, nfts) = (by_us(kernel, desired), by_nft(desired));
    // Where nft reads two fields at once, the bytes cannot be the same.
    let neighbours = |line: &str| {
        let has_both = |[first, second]: [&str; 2]| line.contains(first) && line.contains(second);
        [[" saddr", " daddr"], [" sport", " dport"], ["ip protocol", "ip saddr"]].into_iter().any(has_both)
    };
    match ours.text.lines().any(neighbours) {
        true => listed_differences(&ours, &nfts),
        false => differences(&ours, &nfts),
    }
}

fn by_nftnl(plan: &Plan) -> State {
    state(|| with_nftnl::send(&with_nftnl::batch(plan).unwrap()).unwrap())
}

fn by_rustables(plan: &Plan) -> State {
    state(|| with_rustables::send(with_rustables::batch(plan).unwrap()).unwrap())
}

/// Runs `check` for so many generated values, always the same ones, and shrinks what fails.
fn for_all<S: Strategy>(cases: u32, values: fn() -> S, check: fn(S::Value) -> Result<(), TestCaseError>) {
    netns(|| {
        let config = Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
        let rng =
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, rng).run(&values(), check).unwrap();
    });
}

#[test]
fn nft_makes_the_same_of_our_text() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let words =
            [vocabulary::sets(), vocabulary::matches(), vocabulary::statements(), vocabulary::statements6()];
        let words = words.map(|table| Ruleset::new().table(table));
        for desired in settings::of_flanneld().iter().chain(&words).chain([&flannel()]) {
            let different = different_by_nft(&mut kernel, desired);
            assert_eq!(different, "", "of\n{desired}");
        }
    });
}

#[test]
fn nft_makes_the_same_of_generated_rulesets() {
    for_all(40, generate::ruleset, |desired| {
        let different = different_by_nft(&mut Netlink::open().unwrap(), &desired);
        prop_assert!(different.is_empty(), "of\n{}:\n{}", desired, different);
        Ok(())
    });
}

#[test]
fn nft_finds_and_deletes_what_we_put_into_a_set() {
    netns(|| {
        let nets: [Ipv4Net; 2] = ["10.0.0.0/8", "240.0.0.0/4"].map(|net| net.parse().unwrap());
        let set = flannel_nft::Set::new(common::set("s"), flannel_nft::Datatype::Ipv4Addr)
            .interval()
            .elements(nets);
        let name = flannel_nft::TableName::new("t").unwrap();
        let desired = Ruleset::new().table(flannel_nft::Table::new(flannel_nft::Family::Ip, name).set(set));
        for made in [by_nft, |desired: &Ruleset| by_us(&mut Netlink::open().unwrap(), desired)] {
            made(&desired);
            assert!(sh("nft get element ip t s '{ 245.1.1.1 }'").contains("240.0.0.0/4"));
            sh("nft delete element ip t s '{ 240.0.0.0/4 }'");
            sh("nft delete element ip t s '{ 10.0.0.0/8 }'");
            assert!(!sh("nft list ruleset").contains("elements"));
        }
    });
}

#[test]
fn nftnl_and_rustables_make_the_same() {
    for_all(40, plan, |plan| {
        let ours = by_us(&mut Netlink::open().unwrap(), &plan.ours().unwrap());
        let different = differences(&ours, &by_nftnl(&plan));
        prop_assert!(different.is_empty(), "nftnl:\n{}", different);
        let different = differences(&ours, &by_rustables(&plan));
        prop_assert!(different.is_empty(), "rustables:\n{}", different);
        Ok(())
    });
}

#[test]
fn nftnl_and_rustables_make_the_same_of_flannels_rules() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        for plan in [flannel_plan(false), flannel_plan(true)] {
            let ours = by_us(&mut kernel, &plan.ours().unwrap());
            assert_eq!(differences(&ours, &by_nftnl(&plan)), "");
            assert_eq!(differences(&ours, &by_rustables(&plan)), "");
        }
    });
}

#[test]
fn a_difference_of_one_bit_is_seen_in_every_view() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let plan = flannel_plan(false);
        let ours = by_us(&mut kernel, &plan.ours().unwrap());
        let mut other = plan.clone();
        let Some(Condition::Mark { value, .. }) = other.chains[0].rules[0].conditions.first_mut() else {
            panic!("the first rule tests the mark")
        };
        *value = 0;
        for different in [by_nftnl(&other), by_rustables(&other), by_us(&mut kernel, &other.ours().unwrap())]
        {
            let report = differences(&ours, &different);
            assert!(["text:", "json:", "raw:"].iter().all(|view| report.contains(view)), "{report}");
        }
        // The same rules under other handles are no difference.
        assert_eq!(differences(&ours, &by_us(&mut kernel, &plan.ours().unwrap())), "");
    });
}

/// The rules of a node in words that all have: masquerade without flags, no named counters.
fn flannel_plan(ipv6: bool) -> Plan {
    let nets = ["10.244.0.0/16", "10.244.59.0/24", "224.0.0.0/4"];
    let nets6 = ["fd00:10:244::/48", "fd00:10:244:5d::/64", "ff00::/8"];
    let [cluster, pods, multicast] = if ipv6 { nets6 } else { nets }.map(|net| net.parse::<IpNet>().unwrap());
    let from = |net, inverted| Condition::Source { net, inverted };
    let to = |net, inverted| Condition::Destination { net, inverted };
    let rule = |conditions: Vec<Condition>, action| PlannedRule { conditions, counter: false, action };
    let mark = Condition::Mark { value: 0x4000, mask: 0x4000 };
    let postrouting = vec![
        rule(vec![mark], Action::Return),
        rule(vec![from(pods, false), to(cluster, false)], Action::Return),
        rule(vec![from(cluster, false), to(pods, false)], Action::Return),
        rule(vec![from(cluster, true), to(pods, false)], Action::Return),
        rule(vec![from(cluster, false), to(multicast, true)], Action::Masquerade),
        rule(vec![from(cluster, true), to(cluster, false)], Action::Masquerade),
    ];
    let forward = [from(cluster, false), to(cluster, false)];
    let forward =
        forward.map(|net| PlannedRule { counter: true, ..rule(vec![net], Action::Accept) }).to_vec();
    let chain = |name: &str, base, rules| PlannedChain { name: name.to_owned(), base: Some(base), rules };
    Plan {
        ipv6,
        name: format!("flannel-ipv{}", if ipv6 { 6 } else { 4 }),
        chains: vec![
            chain("postrtg", (ChainKind::Nat, Hook::Postrouting, 100), postrouting),
            chain("forward", (ChainKind::Filter, Hook::Forward, 0), forward),
        ],
    }
}

fn net(ipv6: bool) -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 1..=128_u8).prop_map(move |(bits, length)| {
        if ipv6 {
            IpNet::from(Ipv6Net::new(Ipv6Addr::from(bits), length).unwrap()).trunc()
        } else {
            let bits = u32::try_from(bits >> 96).unwrap();
            IpNet::from(Ipv4Net::new(Ipv4Addr::from(bits), length.div_ceil(4)).unwrap()).trunc()
        }
    })
}

const STATES: [CtState; 5] =
    [CtState::Established, CtState::Invalid, CtState::New, CtState::Related, CtState::Untracked];

fn condition(ipv6: bool) -> impl Strategy<Value = Condition> {
    prop_oneof![
        (any::<u32>(), any::<u32>()).prop_map(|(value, mask)| Condition::Mark { value: value & mask, mask }),
        (net(ipv6), any::<bool>()).prop_map(|(net, inverted)| Condition::Source { net, inverted }),
        (net(ipv6), any::<bool>()).prop_map(|(net, inverted)| Condition::Destination { net, inverted }),
        (any::<bool>(), any::<u16>()).prop_map(|(udp, port)| Condition::Port { udp, port }),
        "[a-z]{1,15}".prop_map(|name| Condition::Input { name }),
        "[a-z]{1,15}".prop_map(|name| Condition::Output { name }),
        any::<u32>().prop_map(|value| Condition::ConnectionMark { value }),
        (proptest::sample::subsequence(STATES.to_vec(), 1..=5), any::<bool>())
            .prop_map(|(states, inverted)| Condition::States { states, inverted }),
    ]
}

fn rules(ipv6: bool, actions: Vec<Action>) -> impl Strategy<Value = Vec<PlannedRule>> {
    let conditions = proptest::collection::vec(condition(ipv6), 0..4);
    let rule = (conditions, any::<bool>(), proptest::sample::select(actions));
    let rule = rule.prop_map(|(conditions, counter, action)| PlannedRule { conditions, counter, action });
    let rule = rule.prop_filter("no packet is UDP and TCP at once", |rule| {
        let of = |wanted| {
            rule.conditions.iter().any(|it| matches!(it, Condition::Port { udp, .. } if *udp == wanted))
        };
        !(of(true) && of(false))
    });
    proptest::collection::vec(rule, 0..6)
}

fn plan() -> impl Strategy<Value = Plan> {
    any::<bool>().prop_flat_map(|ipv6| {
        let ends =
            [Action::Accept, Action::Drop, Action::Return, Action::SetMark(0x4000), Action::SetMark(7)];
        let jumps = [Action::Jump("sub".to_owned()), Action::Goto("sub".to_owned())];
        let filter: Vec<Action> = ends.iter().chain(&jumps).cloned().collect();
        let address =
            if ipv6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]) } else { IpAddr::from([192, 0, 2, 9]) };
        let nat = vec![Action::Accept, Action::Return, Action::Masquerade, Action::Snat(address)];
        let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
        let base = (proptest::sample::select(hooks.to_vec()), -400..400);
        let lists = (rules(ipv6, ends.to_vec()), rules(ipv6, nat), rules(ipv6, filter));
        (base, lists).prop_map(move |((hook, priority), (sub, nat, filter))| {
            let chain = |name: &str, base, rules| PlannedChain { name: name.to_owned(), base, rules };
            let chains = vec![
                chain("sub", None, sub),
                chain("nats", Some((ChainKind::Nat, Hook::Postrouting, 100)), nat),
                chain("filters", Some((ChainKind::Filter, hook, priority)), filter),
            ];
            Plan { ipv6, name: "planned".to_owned(), chains }
        })
    })
}

#[test]
fn numbers_are_those_of_the_headers_of_the_kernel_and_of_libnftnl() {
    let headers = ["linux/netfilter/nf_tables.h", "linux/netfilter/nfnetlink.h", "libnftnl/udata.h"];
    check_uapi(&headers, include_str!("../src/uapi.rs"), &["NFTA_SET_COUNT"]); // Linux 6.14
    check_uapi(&headers, include_str!("../../src/wire/udata.rs"), &[]);
}
