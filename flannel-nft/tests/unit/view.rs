//! Statements and matches of a rule as typed values.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use flannel_nft::*;
use ipnet::{IpNet, Ipv4Net};

fn only(rule: &Rule) -> StatementView<'_> {
    let mut statements: Vec<_> = rule.statements().collect();
    assert_eq!(statements.len(), 1, "{rule}");
    statements.remove(0)
}

fn condition(condition: Match) -> Match {
    let rule = Rule::new().when(condition);
    let found = if let StatementView::Match(found) = only(&rule) { Some(found.into_owned()) } else { None };
    found.unwrap()
}

#[test]
fn a_match_says_what_it_compares_with_what() {
    let net: Ipv4Net = "10.244.0.0/16".parse().unwrap();
    let from = condition(!ip::saddr(net));
    assert_eq!((from.field(), from.is_inverted()), (Some(field::ip::SADDR), true));
    assert_eq!(from.comparison().network(), Some(IpNet::V4(net)));
    let one = condition(ip::daddr(Ipv4Addr::LOCALHOST));
    assert_eq!(one.comparison().network(), Some("127.0.0.1/32".parse().unwrap()));
    let high = condition(tcp::dport(1024..=65535));
    let Comparison::Range(first, last) = high.comparison() else { panic!() };
    assert_eq!((first.to_number(), last.to_number()), (Some(1024), Some(65535)));

    let set = SetName::new("blocked").unwrap();
    assert_eq!(condition(field::ip::SADDR.in_set(&set)).comparison(), Comparison::In(SetView::Named(&set)));
    let ports = condition(tcp::dport([80, 443]));
    let Comparison::In(SetView::Anonymous(set)) = ports.comparison() else { panic!() };
    let numbers: Vec<_> = set.keys().filter_map(|key| key.bounds()?.0.to_number()).collect();
    assert_eq!(numbers, [80, 443]);

    // The bits of a narrow field are those of the field, not those of the byte around it.
    let length = condition(field::ip::HDRLENGTH.is_number(5));
    let Comparison::Is(length) = length.comparison() else { panic!() };
    assert_eq!(length.to_number(), Some(5));
    let pair = condition(
        Expression::concat([field::ip::SADDR, field::tcp::DPORT]).in_set(&SetName::new("s").unwrap()),
    );
    assert_eq!(pair.field(), None);
    assert_eq!(pair.expression().fields(), [field::ip::SADDR, field::tcp::DPORT]);
}

#[test]
fn each_statement_has_its_values() {
    let to = IpAddr::from([10, 0, 0, 1]);
    let dnat = Rule::new().when(tcp::dport(80)).dnat(IpRange::from(to), Nat::new().port(8080));
    let Some(StatementView::Nat { kind, to: target, nat }) = dnat.statements().nth(1) else { panic!() };
    assert_eq!((kind, target), (NatKind::Dnat, NatTarget::Addresses(to, to)));
    assert_eq!(nat.port_range(), Some(&(8080..=8080)));

    let limit = Rule::new().limit(Limit::packets(10, Per::Minute).over());
    let per = Duration::from_secs(60);
    assert_eq!(only(&limit), StatementView::Limit { rate: 10, per, burst: 5, bytes: false, over: true });

    let mark = Rule::new().set_mark(Mark::To(7));
    let StatementView::Set { field, value } = only(&mark) else { panic!() };
    assert_eq!((field, value.constant()), (field::meta::MARK, Some(&Value::mark(7))));

    let verdicts = [(Key::from(Value::mark(1)), Verdict::Drop)];
    let choose = Rule::new().vmap_inline(VmapKey::MARK, verdicts);
    let StatementView::VerdictMap { key, map: SetView::Anonymous(map) } = only(&choose) else { panic!() };
    assert_eq!(key.field(), Some(field::meta::MARK));
    assert_eq!(map.list().next().unwrap().mapped(), Some(MappedTo::Verdict(Verdict::Drop)));

    let set = SetName::new("seen").unwrap();
    let add = Rule::new().update_set(SetUpdate::add(&set, field::ip::SADDR).timeout(Duration::from_secs(9)));
    let StatementView::Update { operation, set: changed, timeout, .. } = only(&add) else { panic!() };
    assert_eq!((operation, changed), ("add", SetView::Named(&set)));
    assert_eq!(timeout, Some(Duration::from_secs(9)));

    let unknown = Rule::new().raw(RawExpression::new("novel"));
    assert_eq!(only(&unknown), StatementView::Unknown("novel"));
    assert!(!unknown.is_understood());
}

#[test]
fn the_key_of_an_element_is_a_network_or_has_bounds() {
    let net: Ipv4Net = "192.168.0.0/16".parse().unwrap();
    assert_eq!(Key::from(net).network(), Some(IpNet::V4(net)));
    let odd = Key::from(Ipv4Addr::new(10, 0, 0, 1)..=Ipv4Addr::new(10, 0, 0, 9));
    assert_eq!(odd.network(), None);
    let bounds = odd.bounds().unwrap();
    assert_eq!(
        (bounds.0.address(), bounds.1.address()),
        (Some([10, 0, 0, 1].into()), Some([10, 0, 0, 9].into()))
    );
    assert!(Key::catch_all(Datatype::Ipv4Addr).bounds().is_none());
}
