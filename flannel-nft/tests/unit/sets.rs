//! Elements of sets and maps: what is merged, and what is invalid.

use std::time::Duration;

use crate::common::*;
use flannel_nft::*;

fn ports() -> Set {
    Set::new(set("s"), Datatype::InetService).interval()
}

fn keys(set: &Set) -> Vec<String> {
    set.keys().map(|key| key.to_string()).collect()
}

/// Why a transaction with the set cannot be sealed; empty if it can.
fn reason(set: Set) -> String {
    let mut transaction = Transaction::unchecked();
    transaction.add_set(&id("t"), &set);
    transaction.seal().err().map(|error| error.reason.to_string()).unwrap_or_default()
}

#[test]
fn ranges_with_a_common_value_are_merged_and_adjacent_ones_are_not() {
    for (ranges, expected) in [
        (vec![1..=5, 5..=9], vec!["1-9"]),
        (vec![5..=9, 1..=5], vec!["1-9"]),
        (vec![1..=5, 6..=9], vec!["1-5", "6-9"]),
        (vec![6..=9, 1..=5], vec!["1-5", "6-9"]),
        (vec![1..=2, 4..=5, 2..=4], vec!["1-5"]),
        (vec![3..=9, 4..=5], vec!["3-9"]),
        (vec![4..=5, 3..=9], vec!["3-9"]),
        (vec![1..=2, 4..=5, 8..=9, 2..=8], vec!["1-9"]),
        (vec![7..=7, 7..=7], vec!["7"]),
    ] {
        let set = ports().elements(ranges.clone());
        assert_eq!(keys(&set), expected, "{ranges:?}");
        assert_eq!(set.len(), expected.len());
        assert_eq!(reason(set), "", "{ranges:?}");
    }
}

#[test]
fn ranges_of_a_map_must_not_overlap() {
    let map = |keys: &[std::ops::RangeInclusive<u16>], verdict: Verdict| {
        let elements = keys.iter().map(|key| Element::new(key.clone()).verdict(verdict.clone()));
        reason(Set::verdict_map(set("m"), Datatype::InetService).interval().elements(elements))
    };
    assert_eq!(map(&[1..=5, 1..=5], Verdict::Accept), "", "one element, twice");
    assert_eq!(map(&[1..=5, 6..=9], Verdict::Accept), "");
    for overlapping in [[1..=5, 5..=9], [5..=9, 1..=5], [1..=9, 4..=5]] {
        let text = map(&overlapping, Verdict::Accept);
        for key in overlapping {
            assert!(text.contains(&format!("{}-{}", key.start(), key.end())), "{text}");
        }
    }
}

#[test]
fn an_invalid_key_is_named() {
    let empty = reason(ports().elements([std::ops::RangeInclusive::new(9, 1)]));
    assert!(empty.contains("9-1"), "{empty}");
    assert_eq!(reason(ports().elements([9..=9])), "");
    let addresses = || Set::new(set("s"), Datatype::Ipv4Addr).interval();
    let host_bits = reason(addresses().elements([net4("10.0.0.1/8")]));
    assert!(host_bits.contains("10.0.0.1/8"), "{host_bits}");
    let parts = [Key::from(net4("10.0.0.1/8")), Key::from(80)];
    let pairs = Datatype::concat(&[Datatype::Ipv4Addr, Datatype::InetService]);
    let part = reason(Set::new(set("s"), pairs).interval().elements([Key::concat(parts)]));
    assert_eq!(part, host_bits);
}

#[test]
fn each_part_of_a_concatenation_may_be_a_range() {
    let pairs = Datatype::concat(&[Datatype::InetService, Datatype::Ipv4Addr]);
    let key = |ports, addresses: &str| Key::concat([Key::from(ports), Key::from(net4(addresses))]);
    let set = Set::new(set("s"), pairs).interval().elements([
        key(1..=9, "10.0.0.0/8"),
        key(3..=4, "10.0.0.0/8"),
        key(3..=4, "10.0.0.7/32"),
    ]);
    assert_eq!(keys(&set), ["1-9 . 10.0.0.0/8", "3-4 . 10.0.0.0/8", "3-4 . 10.0.0.7"], "not merged");
    assert_eq!(reason(set), "");
}

#[test]
fn an_element_says_what_it_was_made_of() {
    let any = || Key::catch_all(Datatype::InetService);
    let map = Set::map(set("m"), Datatype::InetService, Datatype::Mark).timeouts().elements([
        Element::new(any()).value(Value::mark(1)),
        Element::new(80)
            .value(Value::mark(2))
            .comment(Comment::new("web").unwrap())
            .timeout(Duration::from_secs(9)),
    ]);
    let [web, other] = &map.list().collect::<Vec<_>>()[..] else { panic!("{map:?}") };
    assert_eq!((web.key().to_string(), other.key().to_string()), ("80".into(), "*".into()), "the last");
    assert_eq!(other.key(), &any());
    assert_eq!(web.mapped(), Some(MappedTo::Value(Value::mark(2))));
    assert_eq!(web.remark().map(Comment::as_bytes), Some(&b"web"[..]));
    assert_eq!((web.lifetime(), other.lifetime()), (Some(Duration::from_secs(9)), None));
    assert_eq!((web.counts(), web.quota_used(), web.last_used(), web.expires()), (None, None, None, None));
}
