//! Converging: what nft lists afterwards, and what it costs.

use crate::common::*;
use flannel_nft::*;
use testkit::{netns, sh};

#[test]
fn flannels_rules_are_listed_as_we_print_them() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let outcome = converge(&mut kernel, &flannel()).unwrap();
        assert!(matches!(outcome, Outcome::Changed { .. }));
        assert_eq!(sh("nft list ruleset").trim_end(), flannel().to_string().trim_end());
        assert_eq!(generation(&mut kernel).unwrap(), outcome.generation());
    });
}

#[test]
fn an_unchanged_ruleset_costs_no_commit() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let first = converge(&mut kernel, &flannel()).unwrap().generation();
        assert_eq!(converge(&mut kernel, &flannel()).unwrap(), Outcome::Unchanged { generation: first });
        let observed = observe(&mut kernel, &flannel().scope()).unwrap();
        assert!(diff(&observed.ruleset, &observed).is_empty());
        assert_eq!(observed.ruleset.to_string(), flannel().to_string());
    });
}

#[test]
fn a_keeper_reads_nothing_until_somebody_changes_something() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let mut retained = RetainedRuleset::new(flannel());
        let made = retained.reconcile(&mut kernel).unwrap().generation();
        assert_eq!(retained.reconcile(&mut kernel).unwrap(), Outcome::Unchanged { generation: made });
        sh("nft add table ip other");
        let looked = retained.reconcile(&mut kernel).unwrap();
        assert_eq!(looked, Outcome::Unchanged { generation: made.next() }, "it concerns others");
        sh("nft flush ruleset");
        assert!(matches!(retained.reconcile(&mut kernel).unwrap(), Outcome::Changed { .. }));
        assert_eq!(sh("nft list ruleset").trim_end(), flannel().to_string().trim_end());
        retained.set_desired(Ruleset::new().without(id("flannel-ipv4")));
        assert!(matches!(retained.reconcile(&mut kernel).unwrap(), Outcome::Changed { changes: 1, .. }));
        assert!(!sh("nft list ruleset").contains("flannel-ipv4"));
    });
}

#[test]
fn nft_makes_the_same_of_our_text() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let file = tempfile_with(&flannel().to_string());
        sh(&format!("nft -f {}", file.display()));
        let observed = observe(&mut kernel, &flannel().scope()).unwrap();
        let transaction = diff(&flannel(), &observed);
        assert_eq!(transaction.to_string(), "");
        std::fs::remove_file(file).unwrap();
    });
}

fn tempfile_with(text: &str) -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("flannel-nft-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn only_what_differs_is_changed_and_counters_survive() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        converge(&mut kernel, &flannel()).unwrap();
        let before = sh("nft -a list chain ip flannel-ipv4 forward");
        // Somebody deletes one rule, adds one, doubles one and flushes the set.
        let handle = before.lines().find(|l| l.contains("ip daddr")).unwrap().rsplit(' ').next().unwrap();
        sh(&format!("nft delete rule ip flannel-ipv4 forward handle {handle}"));
        sh("nft insert rule ip flannel-ipv4 forward tcp dport 22 drop");
        sh("nft add rule ip flannel-ipv4 forward ip saddr 10.244.0.0/16 accept");
        sh("nft flush set ip flannel-ipv4 no-masquerade");
        let outcome = converge(&mut kernel, &flannel()).unwrap();
        assert!(matches!(outcome, Outcome::Changed { changes: 3 | 4, .. }), "{outcome:?}");
        assert_eq!(sh("nft list ruleset").trim_end(), flannel().to_string().trim_end());
        let kept = |text: &str| text.lines().find(|l| l.contains("counter")).unwrap().to_owned();
        assert_eq!(kept(&sh("nft -a list chain ip flannel-ipv4 forward")), kept(&before));
    });
}

#[test]
fn a_flushed_ruleset_comes_back() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        converge(&mut kernel, &flannel()).unwrap();
        sh("nft flush ruleset");
        converge(&mut kernel, &flannel()).unwrap();
        assert_eq!(sh("nft list ruleset").trim_end(), flannel().to_string().trim_end());
        converge(&mut kernel, &Ruleset::new().without(id("flannel-ipv4"))).unwrap();
        assert!(!sh("nft list ruleset").contains("flannel-ipv4"));
    });
}

#[test]
fn a_prefix_of_interface_names_stays_one_in_sets_and_matches() {
    netns(|| {
        let interface = |name: &str| InterfaceName::new(name).unwrap();
        let (eth0, veth) = (interface("eth0"), interface("veth*"));
        let devices = Set::new(SetName::new("devices").unwrap(), Datatype::Ifname).interval();
        let desired = Ruleset::new().table(
            Table::new(Family::Ip, TableName::new("t").unwrap()).set(devices.elements([&eth0, &veth])).chain(
                Chain::regular(ChainName::new("c").unwrap())
                    .rule(Rule::new().when(field::meta::IIFNAME.any_of([&eth0, &veth])).accept())
                    .rule(Rule::new().when(field::meta::OIFNAME.is(&veth)).accept()),
            ),
        );
        let mut kernel = Netlink::open().unwrap();
        converge(&mut kernel, &desired).unwrap();
        let listed = sh("nft list ruleset").split_whitespace().collect::<Vec<_>>().join(" ");
        for wanted in [
            "elements = { \"eth0\", \"veth*\" }",
            "iifname { \"eth0\", \"veth*\" } accept",
            "oifname \"veth*\" accept",
        ] {
            assert!(listed.contains(wanted), "{wanted}: {listed}");
        }
        assert!(matches!(converge(&mut kernel, &desired).unwrap(), Outcome::Unchanged { .. }));
        let set = Set::new(SetName::new("names").unwrap(), Datatype::Ifname).elements([&veth]);
        let error = converge(
            &mut kernel,
            &Ruleset::new().table(Table::new(Family::Ip, TableName::new("u").unwrap()).set(set)),
        );
        assert!(matches!(error, Err(ConvergeError::Seal(_))), "a prefix needs the interval flag");
    });
}
