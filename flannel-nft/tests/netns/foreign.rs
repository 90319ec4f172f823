//! Living with others: tables they made, tables we own, changes they make.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::common::*;
use flannel_nft::*;
use testkit::{kernel_version, netns, sh, try_sh, wait_for};

#[test]
fn what_we_do_not_know_is_seen_and_kept() {
    netns(|| {
        sh("nft add table inet theirs");
        // In prerouting: before 5.17 `fib saddr . iif` works nowhere else.
        sh("nft 'add chain inet theirs c { type filter hook prerouting priority 0; }'");
        sh("nft 'add set inet theirs flows { type ipv4_addr . inet_service; flags interval; }'");
        sh("nft 'add element inet theirs flows { 10.0.0.0/8 . 80-90 }'");
        sh("nft 'add rule inet theirs c ip ttl 3 fib saddr . iif oif missing drop comment \"odd\"'");
        sh("nft 'add rule inet theirs c ip saddr . tcp dport @flows accept'");
        sh("nft 'add rule inet theirs c tcp dport 22 accept'");
        sh("nft 'add rule inet theirs c numgen inc mod 2 vmap { 0 : accept, 1 : drop }'");
        sh("nft 'add set inet theirs marks { type mark; flags interval; elements = { 1-5 }; }'");
        sh("nft 'add rule inet theirs c meta mark @marks accept'");
        sh("nft 'add quota inet theirs q { over 10 mbytes }'");
        let mut kernel = Netlink::open().unwrap();
        // A TCP reset without a match of TCP has no type.
        let reset = RawExpression::new("reject")
            .attribute(1, &1_u32.to_be_bytes()) // NFTA_REJECT_TYPE: NFT_REJECT_TCP_RST
            .attribute(2, &[0]); // NFTA_REJECT_ICMP_CODE
        let mut transaction = Transaction::unchecked();
        transaction.append_rule(&id_in(Family::Inet, "theirs"), &chain("c"), &Rule::new().raw(reset));
        transaction.seal().unwrap().commit(&mut kernel).unwrap();
        let before = sh("nft -a list ruleset");
        let observed = observe(&mut kernel, &[id_in(Family::Inet, "theirs")]).unwrap();
        let rules = observed.ruleset.tables()[0].chains()[0].list();
        let understood: Vec<bool> = rules.iter().map(Rule::is_understood).collect();
        assert_eq!(understood, [true, true, true, true, true, false]);
        assert!(diff(&observed.ruleset, &observed).is_empty());
        // Moved to another place, an unknown rule is written back as it was.
        let odd = rules[5].clone();
        let mut transaction = Transaction::at(observed.generation);
        transaction.delete_rule(&id_in(Family::Inet, "theirs"), &chain("c"), odd.handle().unwrap());
        transaction.append_rule(&id_in(Family::Inet, "theirs"), &chain("c"), &odd);
        transaction.seal().unwrap().commit(&mut kernel).unwrap();
        let strip = |text: &str| {
            text.lines().map(|l| l.split(" # handle").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(strip(&sh("nft -a list ruleset")), strip(&before));
    });
}

#[test]
fn flags_of_a_log_read_as_nft_prints_them() {
    netns(|| {
        sh("nft 'add table ip t; add chain ip t c'");
        let flags = ["tcp sequence,options", "ip options", "skuid", "ether", "all"];
        flags.iter().for_each(|flag| drop(sh(&format!("nft add rule ip t c log flags {flag}"))));
        let mut kernel = Netlink::open().unwrap();
        let observed = observe(&mut kernel, &[id("t")]).unwrap();
        assert_eq!(observed.ruleset.to_string().trim_end(), sh("nft list ruleset").trim_end());
    });
}

#[test]
fn tables_of_every_family_can_be_observed() {
    netns(|| {
        sh("nft 'add table bridge b; add chain bridge b c { type filter hook forward priority filter; }'");
        sh("nft 'add rule bridge b c ether saddr 00:11:22:33:44:55 accept'");
        sh("nft 'add table arp a; add chain arp a c { type filter hook input priority filter; }'");
        sh("nft 'add rule arp a c arp operation request accept'");
        sh(
            "nft 'add table netdev n; add chain netdev n c { type filter hook ingress device \"lo\" priority 0; }'",
        );
        let mut kernel = Netlink::open().unwrap();
        let tables = kernel.tables().unwrap();
        assert_eq!(tables.len(), 3);
        let observed = observe(&mut kernel, &tables).unwrap();
        assert!(diff(&observed.ruleset, &observed).is_empty());
        assert!(
            observed.ruleset.to_string().contains("type filter hook ingress device \"lo\" priority filter;")
        );
    });
}

#[test]
fn deletion_never_meets_what_is_still_in_use() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let table = || Table::new(Family::Ip, TableName::new("t").unwrap());
        let full =
            table()
                .counter(Counter::new(CounterName::new("n").unwrap()))
                .set(Set::new(set("s"), Datatype::Ipv4Addr).interval().elements([net4("10.0.0.0/8")]))
                .set(Set::verdict_map(set("m"), Datatype::Ipv4Addr).elements([
                    Element::new(std::net::Ipv4Addr::LOCALHOST).verdict(Verdict::Jump(chain("a"))),
                ]))
                .chain(Chain::regular(chain("a")).rule(Rule::new().jump(&chain("b"))))
                .chain(
                    Chain::regular(chain("b"))
                        .rule(Rule::new().counter_named(&CounterName::new("n").unwrap())),
                )
                .chain(Chain::base(chain("base"), Base::filter_forward()).rules([
                    Rule::new().when(ip::saddr(Addresses::v4_set(&set("s")))).jump(&chain("a")),
                    Rule::new().vmap(VmapKey::SADDR4, &set("m")),
                    Rule::new().counter().drop(),
                ]));
        let empty = table().chain(Chain::base(chain("base"), Base::filter_forward()));
        // Everything changes its definition: sets their type, chains their hook, the counter its remark.
        let other =
            table()
                .counter(Counter::new(CounterName::new("n").unwrap()).comment(Comment::new("new").unwrap()))
                .set(
                    Set::new(set("s"), Datatype::Ipv4Addr)
                        .elements([Value::from(std::net::Ipv4Addr::LOCALHOST)]),
                )
                .set(Set::verdict_map(set("m"), Datatype::Ipv4Addr).elements([
                    Element::new(std::net::Ipv4Addr::LOCALHOST).verdict(Verdict::Goto(chain("b"))),
                ]))
                .chain(Chain::regular(chain("b")).comment(Comment::new("new").unwrap()))
                .chain(Chain::base(chain("base"), Base::filter_forward().policy(Policy::Drop)).rules([
                    Rule::new().when(ip::saddr(Addresses::v4_set(&set("s")))).jump(&chain("b")),
                    Rule::new().counter().drop(),
                    Rule::new().vmap(VmapKey::SADDR4, &set("m")),
                    Rule::new().counter_named(&CounterName::new("n").unwrap()),
                ]));
        for (step, desired) in [&full, &other, &full, &empty, &other, &empty, &full].into_iter().enumerate() {
            let desired = Ruleset::new().table(desired.clone());
            converge(&mut kernel, &desired).unwrap_or_else(|error| panic!("step {step}: {error:#?}"));
            let observed = observe(&mut kernel, &desired.scope()).unwrap();
            assert_eq!(diff(&desired, &observed).to_string(), "", "step {step}");
        }
    });
}

#[test]
fn any_difference_is_a_script_that_nft_can_run() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        sh("nft 'add table ip flannel-ipv4 { comment \"rules of flannel\"; }'");
        sh(
            "nft 'add chain ip flannel-ipv4 forward { type filter hook forward priority filter; policy drop; }'",
        );
        sh("nft add rule ip flannel-ipv4 forward ip daddr 10.244.0.0/16 accept");
        sh("nft add rule ip flannel-ipv4 forward ip saddr 10.1.0.0/16 accept");
        sh("nft 'add chain ip flannel-ipv4 other { type nat hook prerouting priority 0; }'");
        let observed = observe(&mut kernel, &flannel().scope()).unwrap();
        let script = diff(&flannel(), &observed).to_string();
        sh(&format!("nft -f - <<'END'\n{script}END"));
        let observed = observe(&mut kernel, &flannel().scope()).unwrap();
        assert_eq!(diff(&flannel(), &observed).to_string(), "", "after\n{script}");
    });
}

fn owned() -> Ruleset {
    flannel().tables().iter().cloned().map(|table| table.ownership(Ownership::Owner)).collect()
}

#[test]
fn a_kernel_without_persistent_tables_refuses_owned_ones_and_auto_knows_before() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let before = generation(&mut kernel).unwrap();
        let auto = Ownership::auto(&mut kernel).unwrap();
        assert_eq!(generation(&mut kernel).unwrap(), before, "asking changes nothing");
        assert_eq!(sh("nft list ruleset"), "");
        if kernel_version() >= (6, 9) {
            assert_eq!(auto, Ownership::Owner);
            return;
        }
        assert_eq!(auto, Ownership::Shared);
        match converge(&mut kernel, &owned()) {
            Err(ConvergeError::Commit(CommitError::Refused { operation, .. })) => {
                assert!(
                    operation.starts_with("add table ip flannel-ipv4 { flags owner,persist;"),
                    "{operation}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(sh("nft list ruleset"), "");
    });
}

/// Repeats what a socket refuses that another test's child process holds between its fork and its exec.
fn once_the_owner_is_gone(mut attempt: impl FnMut() -> Result<Outcome, ConvergeError>) -> Outcome {
    let outcome = wait_for(Duration::from_secs(10), || match attempt() {
        Err(ConvergeError::Commit(CommitError::Refused { source, .. })) if source.errno() == Errno::EPERM => {
            None
        }
        outcome => Some(outcome),
    });
    outcome.expect("the table has no owner any more").unwrap()
}

#[test]
fn an_owned_table_survives_us_and_is_taken_up_again() {
    if kernel_version() < (6, 9) {
        return;
    }
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        converge(&mut kernel, &owned()).unwrap();
        assert!(matches!(converge(&mut kernel, &owned()).unwrap(), Outcome::Unchanged { .. }));
        assert!(try_sh("nft delete table ip flannel-ipv4").is_err());
        sh("nft flush ruleset");
        assert!(matches!(converge(&mut kernel, &owned()).unwrap(), Outcome::Unchanged { .. }), "flushed");
        let handles = sh("nft -a list ruleset").replace("flags owner", "flags ");
        drop(kernel);
        // The table has no owner now, and it is still there.
        let mut kernel = Netlink::open().unwrap();
        let observed = observe(&mut kernel, &owned().scope()).unwrap();
        assert_eq!(observed.ruleset.tables().len(), 2);
        let outcome = once_the_owner_is_gone(|| converge(&mut kernel, &owned()));
        assert!(matches!(outcome, Outcome::Changed { changes: 2, .. }));
        assert!(try_sh("nft delete table ip flannel-ipv4").is_err(), "taken up again");
        assert_eq!(sh("nft -a list ruleset").replace("flags owner", "flags "), handles, "in place");
        // Plain tables again, and back.
        converge(&mut kernel, &flannel()).unwrap();
        sh("nft add rule ip flannel-ipv4 forward drop");
        converge(&mut kernel, &owned()).unwrap();
        assert!(matches!(converge(&mut kernel, &owned()).unwrap(), Outcome::Unchanged { .. }));
    });
}

#[test]
fn a_table_of_another_owner_is_left_as_it_is_and_the_error_says_so() {
    if kernel_version() < (6, 9) {
        return;
    }
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        converge(&mut kernel, &owned()).unwrap();
        let listed = sh("nft -a list ruleset");
        // Neither who wants to share it, nor who wants to own it, nor who changes a rule in it.
        let mut second = Netlink::open().unwrap();
        for desired in [flannel(), owned()] {
            match converge(&mut second, &desired) {
                Err(ConvergeError::Commit(CommitError::Refused { operation, source, .. })) => {
                    assert!(operation.contains("table ip flannel-ipv4"), "{operation}");
                    assert_eq!(source.errno(), Errno::EPERM);
                    assert!(source.to_string().contains("another process owns the table"), "{source}");
                }
                other => panic!("{other:?}"),
            }
        }
        let mut transaction = Transaction::unchecked();
        transaction.append_rule(&id("flannel-ipv4"), &chain("forward"), &Rule::new().drop());
        assert!(transaction.seal().unwrap().commit(&mut second).is_err());
        assert_eq!(sh("nft -a list ruleset"), listed);
        // As soon as the owner is gone it can be had.
        drop(kernel);
        assert!(matches!(converge(&mut second, &owned()).unwrap(), Outcome::Changed { changes: 2, .. }));
    });
}

#[test]
fn the_monitor_tells_who_changed_what_and_leaves_us_out() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let mut monitor = Monitor::open(&kernel).unwrap();
        converge(&mut kernel, &flannel()).unwrap();
        assert!(monitor.take().unwrap().is_empty(), "our own");
        sh("nft 'add table ip x; add chain ip x c; add rule ip x c tcp dport 22 accept'");
        let mut foreign = || match &monitor.take().unwrap()[..] {
            [Event::Foreign(foreign)] => foreign.clone(),
            events => panic!("{events:?}"),
        };
        let commit = foreign();
        assert_eq!(commit.process, "nft");
        assert!(commit.pid > 0);
        assert_eq!(commit.generation, generation(&mut kernel).unwrap());
        let changes: Vec<String> = commit.changes.iter().map(ToString::to_string).collect();
        assert_eq!(changes.len(), 3, "{changes:?}");
        assert!(changes[2].ends_with("tcp dport 22 accept"), "{changes:?}");
        sh("nft flush ruleset");
        assert!(foreign().changes.iter().any(|change| *change.table() == id("flannel-ipv4")));
        assert!(monitor.take().unwrap().is_empty());
        assert!(monitor.as_fd().try_clone_to_owned().is_ok());
    });
}

#[cfg(feature = "tokio")]
#[test]
fn a_flushed_table_is_back_after_one_event() {
    use futures_util::StreamExt as _;
    netns(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut kernel = Netlink::open().unwrap();
            let stream = Monitor::open(&kernel).unwrap().into_stream().unwrap();
            let mut events = stream.chunks(1); // any combinator of futures will do
            for _ in 0..3 {
                converge(&mut kernel, &flannel()).unwrap();
                sh("nft flush ruleset");
                let limit = Duration::from_secs(10);
                let event = tokio::time::timeout(limit, events.next()).await.unwrap().unwrap();
                assert!(matches!(event[..], [Ok(Event::Foreign(_))]), "{event:?}");
            }
            converge(&mut kernel, &flannel()).unwrap();
            assert_eq!(sh("nft list ruleset").trim_end(), flannel().to_string().trim_end());
        });
    });
}

#[test]
fn all_that_a_program_keeps_can_move_to_another_thread() {
    fn can<T: Send>() {}
    can::<Netlink>();
    can::<Monitor>();
    can::<Event>();
    can::<Ruleset>();
    can::<Observed>();
    can::<Transaction<Building>>();
    can::<Transaction<Sealed>>();
    can::<ConvergeError>();
    #[cfg(feature = "tokio")]
    can::<MonitorStream>();
}

#[test]
fn a_monitor_that_was_too_slow_says_so_and_goes_on() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let mut monitor = Monitor::open(&Netlink::open().unwrap()).unwrap();
        let rules = (0..2000).map(|number| Rule::new().when(meta::mark(number)).accept());
        let table = Table::new(Family::Ip, TableName::new("big").unwrap())
            .chain(Chain::regular(chain("c")).rules(rules));
        let mut overflowed = false;
        for _ in 0..25 {
            let mut transaction = Transaction::unchecked();
            transaction.replace(&table);
            transaction.seal().unwrap().commit(&mut kernel).unwrap();
        }
        while let events = monitor.take().unwrap()
            && !events.is_empty()
        {
            overflowed |= events.iter().any(|event| matches!(event, Event::Overflow));
        }
        assert!(overflowed);
        sh("nft delete table ip big");
        assert!(matches!(monitor.take().unwrap()[..], [Event::Foreign(_)]), "it goes on");
    });
}
