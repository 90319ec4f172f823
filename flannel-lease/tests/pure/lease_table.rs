//! The table of leases against a naive model, and the allocation of subnets against the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use flannel_lease::allocate::choose;
use flannel_lease::{
    AllocationRange, BackendData, FamilyRange, Lease, LeaseAttributes, LeaseKey, LeaseRequest,
};
use flannel_lease::{LeaseEvent, LeaseTable};
use ipnet::Ipv4Net;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn key(n: u8) -> LeaseKey {
    LeaseKey::new(Some(Ipv4Net::new(Ipv4Addr::new(10, 244, n, 0), 24).unwrap()), None).unwrap()
}

fn lease(n: u8, version: u8) -> Lease {
    let public_ip = Some(Ipv4Addr::new(192, 0, version, n));
    Lease::new(key(n), LeaseAttributes { public_ip, ..Default::default() }, None)
}

fn events() -> impl Strategy<Value = Vec<LeaseEvent>> {
    let event = prop_oneof![
        1 => Just(LeaseEvent::Resync),
        6 => (0u8..8, 0u8..3).prop_map(|(n, version)| LeaseEvent::Upsert(lease(n, version))),
        2 => (0u8..8).prop_map(|n| LeaseEvent::Remove(key(n))),
        2 => (0u8..8).prop_map(|n| LeaseEvent::Malformed { key: key(n), problem: String::new() }),
        1 => prop::collection::vec((0u8..8).prop_map(key), 0..2)
            .prop_map(|unreadable| LeaseEvent::Synced { unreadable }),
    ];
    prop::collection::vec(event, 0..60)
}

/// The same contract, told the simplest way.
#[derive(Clone, Default)]
struct Model {
    known: BTreeMap<LeaseKey, LeaseAttributes>,
    listed: BTreeSet<LeaseKey>,
}

impl Model {
    fn apply(&mut self, event: LeaseEvent) {
        match event {
            LeaseEvent::Settling => {} // says nothing of what a lease contains
            LeaseEvent::Resync => self.listed.clear(),
            LeaseEvent::Upsert(lease) => {
                self.listed.insert(lease.key);
                self.known.insert(lease.key, lease.attributes);
            }
            LeaseEvent::Malformed { key, .. } => {
                if self.known.contains_key(&key) {
                    self.listed.insert(key);
                }
            }
            LeaseEvent::Remove(key) => {
                self.listed.remove(&key);
                self.known.remove(&key);
            }
            LeaseEvent::Synced { unreadable } => {
                self.listed.extend(unreadable.into_iter().filter(|key| self.known.contains_key(key)));
                self.known.retain(|key, _| self.listed.contains(key));
            }
        }
    }

    fn peers(
        &self,
        own: Option<LeaseKey>,
        published: &LeaseAttributes,
    ) -> BTreeMap<LeaseKey, LeaseAttributes> {
        let known = self.known.clone().into_iter();
        known.filter(|(key, attributes)| Some(*key) != own && attributes != published).collect()
    }
}

fn peers(table: &LeaseTable) -> BTreeMap<LeaseKey, LeaseAttributes> {
    table.peers().map(|(key, attributes)| (key, attributes.clone())).collect()
}

fn difference<V: PartialEq>(a: &BTreeMap<LeaseKey, V>, b: &BTreeMap<LeaseKey, V>) -> BTreeSet<LeaseKey> {
    a.keys().chain(b.keys()).filter(|key| a.get(key) != b.get(key)).copied().collect()
}

proptest! {
    #[test]
    fn the_table_is_the_model_and_names_exactly_what_changed(
        events in events(), own in prop::option::of(0u8..8), published in (0u8..8, 0u8..3),
    ) {
        let (own, published) = (own.map(key), lease(published.0, published.1).attributes);
        let (mut table, mut model) = (LeaseTable::new(own), Model::default());
        prop_assert!(table.set_own_node(None, published.clone()).is_empty());
        for event in events {
            let before = peers(&table);
            let changed = table.apply(event.clone());
            model.apply(event);
            prop_assert_eq!(&peers(&table), &model.peers(own, &published));
            prop_assert_eq!(changed.len(), changed.iter().collect::<BTreeSet<_>>().len());
            prop_assert_eq!(difference(&before, &peers(&table)), changed.into_iter().collect());
            prop_assert_eq!(table.len(), table.peers().count());
        }
    }

    #[test]
    fn another_own_lease_changes_only_those_concerned(
        events in events(), keys in (0u8..8, 0u8..8), published in ((0u8..8, 0u8..3), (0u8..8, 0u8..3)),
    ) {
        let published = [published.0, published.1].map(|(n, version)| lease(n, version).attributes);
        let mut table = LeaseTable::new(Some(key(keys.0)));
        let _ = table.set_own_node(None, published[0].clone());
        let mut model = Model::default();
        for event in events {
            let _ = table.apply(event.clone());
            model.apply(event);
        }
        let before = peers(&table);
        let changed = table.set_own(Some(key(keys.1)));
        let between = peers(&table);
        prop_assert_eq!(difference(&before, &between), changed.into_iter().collect());
        prop_assert_eq!(&between, &model.peers(Some(key(keys.1)), &published[0]));
        let changed = table.set_own_node(None, published[1].clone());
        prop_assert_eq!(difference(&between, &peers(&table)), changed.into_iter().collect());
        prop_assert_eq!(&peers(&table), &model.peers(Some(key(keys.1)), &published[1]));
        prop_assert_eq!(table.own_created().is_some(), model.known.contains_key(&key(keys.1)));
    }
}

#[test]
fn where_nodes_have_names_a_lease_is_the_nodes_own_by_name_whatever_it_says() {
    let named = |n, name: &str| Lease { node: Some(name.to_owned()), ..lease(n, 0) };
    let mut table = LeaseTable::new(Some(key(1)));
    let _ = table.set_own_node(Some("a".to_owned()), lease(2, 0).attributes);
    assert!(table.is_own(&named(3, "a")) && table.is_own(&lease(2, 0)) && !table.is_own(&named(2, "b")));
    assert_eq!(table.apply(LeaseEvent::Upsert(named(2, "b"))), [key(2)]);
    assert_eq!(table.apply(LeaseEvent::Upsert(named(3, "a"))), []);
    assert_eq!(table.set_own_node(Some("b".to_owned()), lease(2, 0).attributes), [key(2), key(3)]);
    assert_eq!(table.apply(LeaseEvent::Remove(key(2))), []);
}

/// A node that registers again in a recreated store counts, whatever is remembered of it from before.
#[test]
fn in_a_recreated_store_a_lease_that_it_lacks_gives_way_to_one_that_it_has() {
    let v4 = key(7).v4().unwrap();
    let dual = LeaseKey::new(Some(v4), "fd00:10:244:7::/64".parse().ok()).unwrap();
    let remembered = Lease { created: 3, key: dual, ..lease(7, 1) };
    let registered = Lease { created: 9, ..lease(7, 2) };
    let mut table = LeaseTable::new(None);
    let _ = table.apply(LeaseEvent::Upsert(remembered.clone()));
    let _ = table.apply(LeaseEvent::Resync);
    assert_eq!(table.apply(LeaseEvent::Upsert(registered)), [key(7)]);
    assert_eq!(table.holder(v4.into()), Some(dual));
    assert_eq!(table.apply(LeaseEvent::Settling), [dual]);
    assert_eq!((table.holder(v4.into()), table.len()), (Some(key(7)), 2));
    assert_eq!(table.apply(LeaseEvent::Settling), [], "nothing new");
    assert_eq!(table.apply(LeaseEvent::Upsert(remembered)), [dual], "registered again");
    assert_eq!(table.apply(LeaseEvent::Synced { unreadable: vec![] }), []);
}

#[test]
fn an_interrupted_listing_removes_nobody() {
    let mut table = LeaseTable::new(None);
    for event in
        [LeaseEvent::Resync, LeaseEvent::Upsert(lease(1, 0)), LeaseEvent::Synced { unreadable: vec![] }]
    {
        let _ = table.apply(event);
    }
    for event in [LeaseEvent::Resync, LeaseEvent::Resync, LeaseEvent::Upsert(lease(2, 0))] {
        let _ = table.apply(event);
    }
    assert_eq!(table.len(), 2);
    assert_eq!(table.apply(LeaseEvent::Synced { unreadable: vec![] }), [key(1)]);
}

#[test]
fn a_changed_address_is_noticed_in_a_listing() {
    let mut table = LeaseTable::new(None);
    let _ = table.apply(LeaseEvent::Upsert(lease(1, 0)));
    let _ = table.apply(LeaseEvent::Resync);
    assert_eq!(table.apply(LeaseEvent::Upsert(lease(1, 0))), []);
    assert_eq!(table.apply(LeaseEvent::Upsert(lease(1, 1))), [key(1)]);
}

/// `10.244.0.0/20` in subnets of 16 addresses: 256 slots, so that leases of other sizes overlap several.
fn range(min: u8, max: u8) -> AllocationRange {
    let address = |slot| Ipv4Addr::from_bits((10 << 24) + (244 << 16) + u32::from(slot) * 16);
    let network = "10.244.0.0/20".parse().unwrap();
    let v4 = FamilyRange { network, subnet_len: 28, min: address(min), max: address(max) };
    AllocationRange { v4: Some(v4), ..AllocationRange::default() }
}

fn any_subnet() -> impl Strategy<Value = LeaseKey> {
    (0u32..4096, 22u8..=30).prop_filter_map("a subnet", |(offset, len)| {
        let net = Ipv4Net::new(Ipv4Addr::from_bits((10 << 24) + (244 << 16) + offset), len).unwrap();
        LeaseKey::new(Some(net), None)
    })
}

proptest! {
    #[test]
    fn a_choice_is_in_range_and_overlaps_nobody_and_there_is_one_if_any_slot_is_free(
        leases in prop::collection::btree_map(any_subnet(), 1u8..40, 0..40),
        unreadable in prop::collection::vec(any_subnet(), 0..3),
        previous in prop::option::of(any_subnet()),
        node in 1u8..40, min: u8, max: u8, seed: u64,
    ) {
        let attributes =
            |n| LeaseAttributes { public_ip: Some(Ipv4Addr::new(192, 0, 2, n)), ..Default::default() };
        let leases: Vec<_> = leases.into_iter().map(|(key, n)| (key, attributes(n))).collect();
        let request = LeaseRequest { attributes: attributes(node), previous, former: None, range: range(min, max) };
        let present = leases.iter().map(|(key, attributes)| (*key, attributes));
        let choice = choose(present, &unreadable, &request, &mut StdRng::seed_from_u64(seed));

        let own: Vec<_> =
            leases.iter().filter(|(_, a)| a.same_node(&request.attributes)).map(|(key, _)| *key).collect();
        let expected = || own.iter().find(|key| Some(**key) == previous).or_else(|| own.first()).copied();
        let ours = choice.as_ref().map_or_else(|_| expected(), |choice| choice.own);
        let others = leases.iter().map(|(key, _)| *key).filter(|key| Some(*key) != ours);
        let occupied: Vec<_> = others.chain(unreadable).collect();
        let slot = |n: u8| {
            let net = Ipv4Net::new(Ipv4Addr::from_bits((10 << 24) + (244 << 16) + u32::from(n) * 16), 28).unwrap();
            LeaseKey::new(Some(net), None).unwrap()
        };
        let free: Vec<_> = (min..=max)
            .map(slot)
            .filter(|slot| !occupied.iter().any(|taken| taken.overlaps(*slot)))
            .collect();
        match choice {
            Ok(choice) => {
                prop_assert!(free.contains(&choice.key), "{:?} of {:?}", choice, free);
                prop_assert_eq!(choice.own.is_some(), !own.is_empty());
                if let Some(wanted) = choice.own.filter(|own| free.contains(own)) {
                    prop_assert_eq!(choice.key, wanted);
                } else if let Some(wanted) = previous.filter(|previous| free.contains(previous)) {
                    prop_assert_eq!(choice.key, wanted);
                }
            }
            Err(error) => {
                prop_assert!(free.is_empty(), "{error}, though free: {free:?}");
                prop_assert!(error.to_string().starts_with("out of subnets"));
            }
        }
    }
}

#[test]
fn a_lease_on_the_whole_network_locks_nobody_out() {
    let request =
        LeaseRequest { attributes: lease(1, 0).attributes, previous: None, former: None, range: range(1, 1) };
    let stranger = lease(0, 9).attributes;
    for all in ["10.244.0.0-20", "10.0.0.0-8", "0.0.0.0-1"] {
        let all = all.parse().unwrap();
        for (leases, unreadable) in [(vec![(all, &stranger)], vec![]), (vec![], vec![all])] {
            let choice = choose(leases, &unreadable, &request, &mut rand::rng()).unwrap();
            assert_eq!(choice.key.to_string(), "10.244.0.16-28");
        }
    }
    // Half of it may be a lease from when subnets were larger.
    let half = "10.244.0.0-21".parse().unwrap();
    assert!(choose([(half, &stranger)], &[], &request, &mut rand::rng()).is_err());
}

#[test]
fn every_free_subnet_is_as_likely_as_any_other() {
    let request =
        LeaseRequest { attributes: lease(1, 0).attributes, previous: None, former: None, range: range(1, 8) };
    let taken = lease(0, 9).attributes;
    let occupied = "10.244.0.64-27".parse().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut drawn = BTreeMap::new();
    for _ in 0..6000 {
        *drawn.entry(choose([(occupied, &taken)], &[], &request, &mut rng).unwrap().key).or_insert(0) += 1;
    }
    assert_eq!(drawn.len(), 6);
    assert!(drawn.values().all(|count| (800..1200).contains(count)), "{drawn:?}");
}

#[test]
fn a_huge_ipv6_range_takes_no_longer_than_a_small_one() {
    let v6 = FamilyRange {
        network: "fd00::/8".parse().unwrap(),
        subnet_len: 127,
        min: "fd00::".parse().unwrap(),
        max: "fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffe".parse().unwrap(),
    };
    let attributes =
        LeaseAttributes { public_ipv6: Some("2001:db8::1".parse().unwrap()), ..Default::default() };
    let request = LeaseRequest {
        attributes,
        previous: None,
        former: None,
        range: AllocationRange { v6: Some(v6), ..AllocationRange::default() },
    };
    let choice = choose([], &[], &request, &mut rand::rng()).unwrap();
    assert!(v6.network.contains(&choice.key.v6().unwrap()));
}

#[test]
fn a_lease_fits_the_memory_set_aside_for_a_peer() {
    let data = BackendData::from_json(r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}"#.into()).unwrap();
    let heap = data.as_str().len();
    let entry = size_of::<LeaseKey>() + size_of::<LeaseAttributes>() + size_of::<u32>() + 1;
    // A hash table is at worst 7/16 full just after it has grown.
    assert!(entry * 16 / 7 + 2 * (heap + 16) < 450, "{entry} + {heap}");
}

/// A node that turns dual-stack has its old lease and its new one until the old one expires.
#[test]
fn of_two_leases_on_one_subnet_the_one_with_both_families_counts_and_either_may_end() {
    let v4 = key(7).v4().unwrap();
    let v6 = "fd00:10:244:7::/64".parse().unwrap();
    let dual = Lease { key: LeaseKey::new(Some(v4), Some(v6)).unwrap(), ..lease(7, 1) };
    let only_v6 = Lease { key: LeaseKey::new(None, Some(v6)).unwrap(), ..lease(7, 2) };
    let mut table = LeaseTable::new(None);
    for lease in [lease(7, 0), dual.clone(), only_v6.clone()] {
        assert_eq!(table.apply(LeaseEvent::Upsert(lease.clone())), [lease.key]);
    }
    assert_eq!(table.holder(v4.into()), Some(dual.key));
    assert_eq!(table.holder(v6.into()), Some(dual.key));

    assert_eq!(table.apply(LeaseEvent::Remove(key(7))), [key(7)]);
    assert_eq!(table.holder(v4.into()), Some(dual.key), "the old lease ends, the subnet stays");

    assert_eq!(table.apply(LeaseEvent::Remove(dual.key)), [dual.key]);
    assert_eq!(table.holder(v4.into()), None);
    assert_eq!(table.holder(v6.into()), Some(only_v6.key));
    assert_eq!(LeaseTable::new(Some(dual.key)).holder(v4.into()), None);
}

/// A newcomer that claims an older node's IPv4 subnet with an IPv6 subnet beside it gets none of its packets.
#[test]
fn of_two_nodes_on_one_subnet_the_older_one_counts_with_its_lease_of_both_families() {
    let v4 = key(7).v4().unwrap();
    let dual = |v6: &str| LeaseKey::new(Some(v4), v6.parse().ok()).unwrap();
    let older = Lease { created: 1, ..lease(7, 1) };
    let grown = Lease { key: dual("fd00:10:244:7::/64"), created: 3, ..older.clone() };
    let newcomer = Lease { key: dual("fd00:10:244:8::/64"), created: 2, ..lease(7, 2) };
    let mut table = LeaseTable::new(None);
    for (lease, holder) in [(&newcomer, &newcomer), (&older, &older), (&grown, &grown)] {
        assert_eq!(table.apply(LeaseEvent::Upsert(lease.clone())), [lease.key]);
        assert_eq!(table.holder(v4.into()), Some(holder.key));
    }
    assert_eq!(table.apply(LeaseEvent::Upsert(older.clone())), [], "nothing new");
    let made_again = Lease { created: 9, ..older.clone() };
    assert_eq!(table.apply(LeaseEvent::Upsert(made_again)), [older.key]);
    assert_eq!(table.holder(v4.into()), Some(newcomer.key));
}

#[test]
fn the_nodes_own_lease_is_no_peer_and_peers_are_known_to_be_all_after_a_listing() {
    let mut table = LeaseTable::new(Some(key(1)));
    assert_eq!((table.own(), table.is_empty(), table.synced()), (Some(key(1)), true, false));
    let _ = table.apply(LeaseEvent::Upsert(lease(1, 0)));
    assert!(table.is_empty());
    let _ = table.apply(LeaseEvent::Upsert(lease(2, 0)));
    assert!(!table.is_empty() && !table.synced());
    let _ = table.apply(LeaseEvent::Resync);
    let _ = table.apply(LeaseEvent::Upsert(lease(2, 0)));
    let _ = table.apply(LeaseEvent::Synced { unreadable: vec![] });
    assert!(table.synced());
    let shared: Vec<_> = table.shared().map(|(key, attributes)| (key, (*attributes).clone())).collect();
    assert_eq!(shared, [(key(2), lease(2, 0).attributes)]);
}
