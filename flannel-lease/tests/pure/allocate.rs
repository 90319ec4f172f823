//! Whose lease is whose, and both families, in the allocation of subnets.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use flannel_lease::allocate::{ChoiceError, choose};
use flannel_lease::{AllocationRange, BackendData, FamilyRange, LeaseAttributes, LeaseKey, LeaseRequest};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn key(text: &str) -> LeaseKey {
    text.parse().unwrap()
}

/// What a node at `192.0.2.N` publishes.
fn node(n: u8, data: &str) -> LeaseAttributes {
    LeaseAttributes {
        public_ip: Some(Ipv4Addr::new(192, 0, 2, n)),
        backend_data: BackendData::from_json(format!("\"{data}\"")).ok(),
        ..Default::default()
    }
}

/// `slots` subnets of both families.
fn range(slots: u8) -> AllocationRange {
    let v4 = FamilyRange {
        network: "10.244.0.0/16".parse().unwrap(),
        subnet_len: 24,
        min: Ipv4Addr::new(10, 244, 0, 0),
        max: Ipv4Addr::new(10, 244, slots - 1, 0),
    };
    let v6 = FamilyRange {
        network: "fd00:10:244::/48".parse().unwrap(),
        subnet_len: 64,
        min: "fd00:10:244::".parse().unwrap(),
        max: format!("fd00:10:244:{:x}::", slots - 1).parse().unwrap(),
    };
    AllocationRange { v4: Some(v4), v6: Some(v6), ..AllocationRange::default() }
}

fn request(attributes: LeaseAttributes) -> LeaseRequest {
    LeaseRequest { attributes, previous: None, former: None, range: range(4) }
}

#[test]
fn a_lease_under_the_former_address_is_ours_only_on_our_subnet_with_our_address_and_data() {
    let (former, present) = (node(1, "mac"), node(2, "other"));
    let (ours, elsewhere) =
        (key("10.244.1.0-24&fd00:10:244:1::-64"), key("10.244.2.0-24&fd00:10:244:2::-64"));
    let request = LeaseRequest { previous: Some(ours), former: Some(former.clone()), ..request(present) };
    let own = |key, published: &LeaseAttributes| {
        choose([(key, published)], &[], &request, &mut StdRng::seed_from_u64(1)).unwrap().own
    };
    assert_eq!(own(ours, &former), Some(ours));
    assert_eq!(own(elsewhere, &former), None, "another subnet");
    assert_eq!(own(ours, &node(3, "mac")), None, "another address");
    assert_eq!(own(ours, &node(1, "else")), None, "other data");
}

#[test]
fn of_several_leases_that_look_like_ours_the_best_counts_in_any_order() {
    let (former, present) = (node(1, "mac"), node(2, "other"));
    let (previous, by_address) = (key("10.244.1.0-24"), key("10.244.2.0-24"));
    let request =
        LeaseRequest { previous: Some(previous), former: Some(former.clone()), ..request(present.clone()) };
    let own = |leases: &[(LeaseKey, &LeaseAttributes)]| {
        choose(leases.iter().copied(), &[], &request, &mut StdRng::seed_from_u64(1)).unwrap().own
    };
    assert_eq!(own(&[(previous, &former), (by_address, &present)]), Some(by_address));
    assert_eq!(own(&[(by_address, &present), (previous, &former)]), Some(by_address));
    // Both have the address: the previous subnet decides, and otherwise the order.
    assert_eq!(own(&[(by_address, &present), (previous, &present)]), Some(previous));
    assert_eq!(own(&[(by_address, &present), (key("10.244.3.0-24"), &present)]), Some(by_address));
}

#[test]
fn in_both_families_own_subnets_are_kept_and_those_of_others_and_of_the_host_are_not_given() {
    let others = [
        key("10.244.0.0-24&fd00:10:244::-64"),
        key("10.244.1.0-24&fd00:10:244:1::-64"),
        key("10.244.3.0-24&fd00:10:244:3::-64"),
    ];
    let stranger = node(9, "else");
    let seeds = 0..20;
    for seed in seeds.clone() {
        let leases = others.iter().map(|key| (*key, &stranger));
        let choice = choose(leases, &[], &request(node(1, "mac")), &mut StdRng::seed_from_u64(seed)).unwrap();
        assert_eq!(choice.key, key("10.244.2.0-24&fd00:10:244:2::-64"));
    }
    let own = others[1];
    for seed in seeds.clone() {
        let published = node(1, "mac");
        let choice =
            choose([(own, &published)], &[], &request(published.clone()), &mut StdRng::seed_from_u64(seed));
        assert_eq!(choice.unwrap().key, own);
    }
    let avoid = ["10.244.0.0/23", "10.244.3.0/24", "fd00:10:244::/63", "fd00:10:244:3::/64"];
    let mut avoiding = request(node(1, "mac"));
    avoiding.range.avoid = avoid.iter().map(|net| net.parse().unwrap()).collect();
    for seed in seeds {
        let choice = choose([], &[], &avoiding, &mut StdRng::seed_from_u64(seed)).unwrap();
        assert_eq!(choice.key, key("10.244.2.0-24&fd00:10:244:2::-64"));
    }
}

#[test]
fn a_previous_subnet_of_another_size_or_outside_the_range_is_not_given() {
    for previous in ["10.244.2.0-25", "10.244.2.0-23", "10.244.4.0-24", "10.243.2.0-24"] {
        let request = LeaseRequest { previous: Some(key(previous)), ..request(node(1, "mac")) };
        let drawn: BTreeSet<_> = (0..20)
            .map(|seed| {
                choose([], &[], &request, &mut StdRng::seed_from_u64(seed)).unwrap().key.v4().unwrap()
            })
            .collect();
        assert_eq!(drawn.len(), 4, "{previous}: {drawn:?}");
        assert!(drawn.iter().all(|v4| v4.prefix_len() == 24 && v4.network() < Ipv4Addr::new(10, 244, 4, 0)));
    }
}

#[test]
fn the_only_subnet_of_a_network_is_not_given_twice() {
    let network = "10.244.0.0/24".parse().unwrap();
    let first = Ipv4Addr::new(10, 244, 0, 0);
    let v4 = Some(FamilyRange { network, subnet_len: 24, min: first, max: first });
    let range = AllocationRange { v4, ..AllocationRange::default() };
    let request = LeaseRequest { range, ..request(node(1, "mac")) };
    let stranger = node(9, "else");
    let choice = choose([(key("10.244.0.0-24"), &stranger)], &[], &request, &mut StdRng::seed_from_u64(1));
    assert!(matches!(choice, Err(ChoiceError::OutOfSubnets(_))), "{choice:?}");
}
