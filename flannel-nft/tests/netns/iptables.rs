//! Next to iptables-nft, Docker, ufw and firewalld: their chains found, two rules kept in them, old rules taken away.

use crate::common::*;
use flannel_nft::iptables::{accept_forwarded, forward_drops, iptables_tables, remove_leftovers};
use flannel_nft::*;
use ipnet::IpNet;
use testkit::{netns, sh, try_sh};

fn mark() -> Comment {
    Comment::new("flanneld accept").unwrap()
}

fn networks() -> [IpNet; 2] {
    ["10.244.0.0/16", "fd00:10:244::/48"].map(|net| net.parse().unwrap())
}

fn drops(kernel: &mut Netlink) -> Vec<String> {
    let tables = kernel.tables().unwrap();
    let observed = observe(kernel, &tables).unwrap();
    forward_drops(&observed.ruleset, &[], &mark(), &[]).iter().map(ToString::to_string).collect()
}

fn accept(kernel: &mut Netlink, networks: &[IpNet]) -> bool {
    let outcome = converge_with(kernel, &iptables_tables(), |observed| {
        let mut transaction = Transaction::at(observed.generation);
        accept_forwarded(observed, networks, &mark(), &["ABSENT", "DOCKER-USER"], &mut transaction);
        transaction
    });
    matches!(outcome.unwrap(), Outcome::Changed { .. })
}

/// What `iptables-nft -S CHAIN` says, without the policy.
fn listed(chain: &str) -> Vec<String> {
    sh(&format!("iptables-nft -S {chain}")).lines().skip(1).map(str::to_owned).collect()
}

/// Docker's chains as of version 28.
const DOCKER: &str = "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -N DOCKER-FORWARD; \
     iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-FORWARD; \
     iptables-nft -A DOCKER-FORWARD -i docker0 -j ACCEPT";

#[test]
fn chains_that_drop_what_they_do_not_know_are_named_with_the_cause() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        sh("nft 'add table inet quiet; add chain inet quiet f { type filter hook forward priority 0; }'");
        sh("nft 'add rule inet quiet f ct state invalid drop'");
        sh("nft 'add rule inet quiet f ip daddr 192.0.2.1 drop'");
        sh("nft 'add chain inet quiet i { type filter hook input priority 0; policy drop; }'");
        assert_eq!(drops(&mut kernel), [""; 0], "conditions, and other hooks, harm nothing");

        sh(DOCKER);
        sh("ip6tables-nft -P FORWARD DROP");
        sh(
            "nft 'add table inet fw; add chain inet fw reject_all; add chain inet fw f { type filter hook forward priority 10; }'",
        );
        sh("nft 'add rule inet fw reject_all counter reject with icmpx admin-prohibited'");
        sh("nft 'add rule inet fw f ct state established accept; add rule inet fw f jump reject_all'");
        sh("nft 'add table ip last; add chain ip last f { type filter hook forward priority 20; }'");
        sh("nft 'add rule ip last f log drop'");
        let mut found = drops(&mut kernel);
        found.sort();
        assert_eq!(
            found,
            [
                "chain inet fw f jumps to reject_all, which ends in a rule that drops",
                "chain ip filter FORWARD has policy drop",
                "chain ip last f ends in a rule that drops",
                "chain ip6 filter FORWARD has policy drop",
            ]
        );
    });
}

#[test]
fn a_chain_that_accepts_everything_before_its_drop_harms_nothing() {
    netns(|| {
        sh("nft 'add table ip a; add chain ip a f { type filter hook forward priority 0; policy drop; }'");
        sh("nft 'add rule ip a f accept; add rule ip a f drop'");
        assert_eq!(drops(&mut Netlink::open().unwrap()), [""; 0]);
    });
}

#[test]
fn rules_in_dockers_chain_let_pods_through_and_iptables_reads_them() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        sh(DOCKER);
        sh("ip6tables-nft -P FORWARD DROP");
        assert!(accept(&mut kernel, &networks()));
        let rule = |side| {
            format!("-A DOCKER-USER {side} 10.244.0.0/16 -m comment --comment \"flanneld accept\" -j ACCEPT")
        };
        assert_eq!(listed("DOCKER-USER"), [rule("-s"), rule("-d")]);
        assert_eq!(
            sh("ip6tables-nft -S FORWARD"),
            "-P FORWARD DROP\n\
             -A FORWARD -s fd00:10:244::/48 -m comment --comment \"flanneld accept\" -j ACCEPT\n\
             -A FORWARD -d fd00:10:244::/48 -m comment --comment \"flanneld accept\" -j ACCEPT\n"
        );
        assert!(sh("iptables-nft-save").contains(&rule("-s")));
        assert_eq!(drops(&mut kernel), [""; 0], "it is no obstacle any more");
        assert!(!accept(&mut kernel, &networks()), "and nothing more to do");
        // What iptables saved can be restored, and counts as ours.
        sh("iptables-nft-save > rules; iptables-nft -F; iptables-nft-restore rules; rm rules");
        assert!(!accept(&mut kernel, &networks()));
    });
}

#[test]
fn the_rules_stand_behind_policies_and_in_front_of_what_ends_the_chain() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        sh("iptables-nft -A FORWARD -s 10.244.9.9 -j DROP");
        sh("iptables-nft -N ufw-reject; iptables-nft -A ufw-reject -j REJECT");
        sh("iptables-nft -A FORWARD -j ufw-reject; iptables-nft -A FORWARD -i lo -j ACCEPT");
        assert!(accept(&mut kernel, &networks()));
        let chain = listed("FORWARD");
        assert_eq!(chain.len(), 5, "{chain:#?}");
        assert!(chain[0].contains("10.244.9.9") && chain[3].contains("ufw-reject"), "{chain:#?}");
        // Rules that somebody moved or doubled are put right.
        sh("iptables-nft -A FORWARD -s 10.244.0.0/16 -m comment --comment 'flanneld accept' -j ACCEPT");
        assert!(accept(&mut kernel, &networks()));
        assert_eq!(listed("FORWARD"), chain);
    });
}

#[test]
fn where_nothing_drops_there_are_no_rules_and_those_there_were_go() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        assert!(!accept(&mut kernel, &networks()), "no tables are made");
        assert_eq!(sh("nft list ruleset"), "");
        sh("iptables-nft -P FORWARD ACCEPT; iptables-nft -A FORWARD -i lo -j ACCEPT");
        assert!(!accept(&mut kernel, &networks()));
        sh("iptables-nft -P FORWARD DROP");
        assert!(accept(&mut kernel, &networks()));
        assert_eq!(listed("FORWARD").len(), 3);
        assert!(accept(&mut kernel, &[]));
        assert_eq!(listed("FORWARD"), ["-A FORWARD -i lo -j ACCEPT"]);
        assert!(accept(&mut kernel, &networks()));
        sh("iptables-nft -P FORWARD ACCEPT");
        assert!(accept(&mut kernel, &networks()));
        assert_eq!(listed("FORWARD"), ["-A FORWARD -i lo -j ACCEPT"]);
    });
}

#[test]
fn what_upstreams_iptables_mode_left_goes_in_one_commit_and_nothing_else_does() {
    netns(|| {
        sh("iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE");
        sh("iptables-nft -A FORWARD -i docker0 -j ACCEPT");
        sh("ip6tables-nft -N FLANNEL-FWD; ip6tables-nft -A FORWARD -j FLANNEL-FWD");
        let before = sh("iptables-nft -t nat -S; iptables-nft -S");
        upstream_iptables_mode();
        // As flannels before 0.16 left it: no chain of its own.
        sh(
            "iptables-nft -t nat -A POSTROUTING -s 10.244.0.0/16 -m comment --comment 'flanneld masq' -j RETURN",
        );
        let mut kernel = Netlink::open().unwrap();
        let generation = generation(&mut kernel).unwrap();
        let outcome = converge_with(&mut kernel, &iptables_tables(), without_upstream);
        assert_eq!(outcome.unwrap().generation(), generation.next(), "one commit");
        assert_eq!(sh("iptables-nft -t nat -S; iptables-nft -S"), before);
        assert!(!sh("ip6tables-nft -S").contains("FLANNEL"));
        let again = converge_with(&mut kernel, &iptables_tables(), without_upstream);
        assert!(matches!(again.unwrap(), Outcome::Unchanged { .. }));
        assert!(try_sh("iptables-nft -t nat -S FLANNEL-POSTRTG").is_err());
    });
}

fn without_upstream(observed: &Observed) -> Transaction<Building> {
    let mut transaction = Transaction::at(observed.generation);
    remove_leftovers(observed, UPSTREAM, &[], &mut transaction);
    transaction
}

#[test]
fn rules_that_upstream_made_for_another_network_stay_with_their_chains_until_they_are_the_last() {
    netns(|| {
        upstream_iptables_mode();
        let before = sh("iptables-nft -t nat -S; iptables-nft -S");
        for (table, chain, note) in [("filter", "FLANNEL-FWD", "forward"), ("nat", "FLANNEL-POSTRTG", "masq")]
        {
            sh(&format!(
                "iptables-nft -t {table} -A {chain} -s 10.60.0.0/16 -m comment --comment 'flanneld {note}' -j ACCEPT"
            ));
        }
        let mut kernel = Netlink::open().unwrap();
        let mut remove = |network: &str| {
            converge_with(&mut kernel, &iptables_tables(), |observed| {
                let mut transaction = Transaction::at(observed.generation);
                remove_leftovers(observed, UPSTREAM, &[network.parse().unwrap()], &mut transaction);
                transaction
            })
            .unwrap();
            sh("iptables-nft -t nat -S; iptables-nft -S")
        };
        assert!(before.contains("10.244.0.0/16"));
        let left = remove("10.244.0.0/16");
        assert!(!left.contains("10.244.") && left.matches("10.60.0.0/16").count() == 2, "{left}");
        assert_eq!(left.matches("-j FLANNEL-").count(), 2, "{left}");
        let left = remove("10.0.0.0/8");
        assert!(!left.contains("FLANNEL"), "{left}");
    });
}

/// The rules that upstream's iptables mode was seen to make.
fn upstream_iptables_mode() {
    let masq = |rule: &str, end: &str| {
        sh(&format!(
            "iptables-nft -t nat -A FLANNEL-POSTRTG {rule} -m comment --comment 'flanneld masq' -j {end}"
        ));
    };
    sh("iptables-nft -t nat -N FLANNEL-POSTRTG");
    sh("iptables-nft -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG");
    masq("-m mark --mark 0x4000/0x4000", "RETURN");
    masq("-s 10.244.59.0/24 -d 10.244.0.0/16", "RETURN");
    masq("-s 10.244.0.0/16 -d 10.244.59.0/24", "RETURN");
    masq("! -s 10.244.0.0/16 -d 10.244.59.0/24", "RETURN");
    masq("-s 10.244.0.0/16 ! -d 224.0.0.0/4", "MASQUERADE --random-fully");
    masq("! -s 10.244.0.0/16 -d 10.244.0.0/16", "MASQUERADE --random-fully");
    sh("iptables-nft -N FLANNEL-FWD");
    sh("iptables-nft -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD");
    for side in ["-s", "-d"] {
        sh(&format!(
            "iptables-nft -A FLANNEL-FWD {side} 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT"
        ));
    }
}
