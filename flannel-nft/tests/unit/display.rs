//! The forms in which versions of nft print the same rule. `make test-compat` compares both with nft itself.

use std::net::Ipv4Addr;

use crate::common::vocabulary::name;
use crate::common::{chain, id, set};
use flannel_nft::*;

#[test]
fn newer_versions_print_an_element_of_a_map_per_line() {
    let ports = [(80, [1, 1, 1, 1]), (443, [2, 2, 2, 2])];
    let map = Set::map(set("backends"), Datatype::InetService, Datatype::Ipv4Addr)
        .elements(ports.map(|(port, address)| Element::new(port).value(Ipv4Addr::from(address))));
    let table = Table::new(Family::Ip, TableName::new("t").unwrap()).set(map);
    let elements = |version: NftVersion| {
        let text = version.display(&table).to_string();
        text.split_once("elements = ").unwrap().1.split_once('}').unwrap().0.to_owned()
    };
    assert_eq!(elements(NftVersion::V1_0), "{ 80 : 1.1.1.1, 443 : 2.2.2.2 ");
    assert_eq!(elements(NftVersion::V1_1), "{ 80 : 1.1.1.1,\n\t\t\t     443 : 2.2.2.2 ");
}

#[test]
fn a_script_of_changes_has_the_form_of_a_version_too() {
    let mut transaction = Transaction::unchecked();
    transaction.append_rule(&id("t"), &chain("c"), &Rule::new().when(tcp::syn()));
    let script = |version: NftVersion| version.display(&transaction).to_string();
    assert_eq!(script(NftVersion::V1_0), "add rule ip t c tcp flags syn / syn,rst\n");
    assert_eq!(script(NftVersion::V1_1), "add rule ip t c tcp flags & (syn | rst) == syn\n");
}

#[test]
fn each_version_of_nft_has_its_form() {
    let when = |condition: Match| Rule::new().when(condition);
    let names = [Value::from(&name("lo")), (&name("dummy0")).into()];
    let port = Expression::from(field::tcp::DPORT).map_inline([(Value::port(22), Value::port(222))]);
    for (rule, newest, old) in [
        (when(tcp::syn()), "tcp flags & (syn | rst) == syn", "tcp flags syn / syn,rst"),
        (when(!tcp::syn()), "tcp flags & (syn | rst) != syn", "tcp flags != syn / syn,rst"),
        (when(field::ip::FRAG_OFF.is_number(0x2000)), "ip frag-off 0x2000", "ip frag-off 8192"),
        (when(field::ip::FRAG_OFF.in_range(1..=16)), "ip frag-off 0x1-0x10", "ip frag-off 1-16"),
        (when(field::icmp::CODE.is_number(1)), "icmp code 1", "icmp code host-unreachable"),
        (
            when(field::icmpv6::CODE.one_of([0, 4])),
            "icmpv6 code { 0, 4 }",
            "icmpv6 code { no-route, port-unreachable }",
        ),
        (
            when(meta::mark_masked(0x10, 0xffff_fff0)),
            "meta mark & 0xfffffff0 == 0x00000010",
            "meta mark 0x00000010/28",
        ),
        (
            when(!field::meta::HOUR.in_range(14_400..=82_800)),
            "meta hour \"23:00\"-\"04:00\"",
            "meta hour != \"04:00\"-\"23:00\"",
        ),
        (
            when(field::meta::IIFNAME.any_of(names)),
            "iifname { \"dummy0\", \"lo\" }",
            "iifname { \"lo\", \"dummy0\" }",
        ),
        (
            Rule::new().limit(Limit::packets(10, Per::Second)),
            "limit rate 10/second burst 5 packets",
            "limit rate 10/second",
        ),
        (
            Rule::new().redirect_to(port, Nat::new()),
            "redirect to :tcp dport map { 22 : 222 }",
            "meta l4proto tcp redirect to :tcp dport map { 22 : 222 }",
        ),
    ] {
        assert_eq!(rule.to_string(), newest);
        assert_eq!(NftVersion::V1_1.display(&rule).to_string(), newest);
        assert_eq!(NftVersion::V1_0.display(&rule).to_string(), old);
    }
}
