//! Thousands of new flows a second through masquerade while the rules are replaced, flushed, taken over and owned.
//!
//! A flow keeps for life what its first packet met, so one packet under the pod's own address is one instant without
//! rules. The last test shows that the counter sees such instants.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::*;
use flannel_nft::iptables::{iptables_tables, remove_leftovers};
use flannel_nft::*;
use testkit::{Lab, NewFlows, NewFlowsReport, Node, Pod, kernel_version, may_make_namespaces, wait_for};

/// New flows per second.
const RATE: u32 = 4_000;

/// A node with a pod, and a host outside that sees what leaves the pod.
struct Bench {
    lab: Lab,
    node: Node,
    pod: Pod,
}

impl Bench {
    /// `None` without the privilege to make one.
    fn new() -> Option<Self> {
        if !may_make_namespaces() {
            return None;
        }
        let mut lab = Lab::new().unwrap();
        let mut node = lab.add_node().unwrap();
        let env = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n\
            FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n";
        fs::write(node.subnet_file(), env).unwrap();
        let pod = node.add_pod().unwrap();
        Some(Self { lab, node, pod })
    }

    /// Runs `work` in the node, with a kernel that holds [`rules`]'s tables or what `prepare` made instead, while new
    /// flows of both families leave the pod.
    fn under_traffic<T: Send>(
        &self,
        prepare: impl FnOnce(&mut Netlink) + Send,
        work: impl FnOnce(&mut Netlink) -> T + Send,
    ) -> (T, NewFlowsReport) {
        let prepared = self.node.namespace().enter(|| {
            let mut kernel = Netlink::open().unwrap();
            prepare(&mut kernel);
            kernel
        });
        let mut kernel = prepared.unwrap();
        let flows = NewFlows::start(&self.pod, self.lab.outside(), &[Lab::OUTSIDE_V4, Lab::OUTSIDE_V6], RATE)
            .unwrap();
        pause(100);
        let done = self.node.namespace().enter(|| work(&mut kernel)).unwrap();
        pause(100);
        (done, flows.stop().unwrap())
    }
}

fn install(kernel: &mut Netlink) {
    converge(kernel, &rules()).unwrap();
}

/// Lets time pass for the stream; nothing waits for an event by it.
fn pause(milliseconds: u64) {
    let until = Instant::now() + Duration::from_millis(milliseconds);
    wait_for(Duration::from_secs(10), || (Instant::now() >= until).then_some(()));
}

#[track_caller]
fn assert_no_gap(report: &NewFlowsReport) {
    assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");
    assert!(report.sent > 50, "{report:?}");
}

/// A node's rules, which masquerade what goes to the outside host.
fn rules() -> Ruleset {
    written(|rule| rule.clone())
}

/// The same with a counter and a remark in most rules, so that these have to be written anew.
fn other_rules() -> Ruleset {
    written(|rule| {
        if rule.to_string().contains("masquerade") {
            return rule.clone();
        }
        rule.clone().comment(Comment::new("other").unwrap())
    })
}

fn written(each: impl Fn(&Rule) -> Rule) -> Ruleset {
    let table = |table: &Table| {
        let kind = if table.id().family == Family::Ip { Datatype::Ipv4Addr } else { Datatype::Ipv6Addr };
        let exempt = if table.id().family == Family::Ip { net("172.16.5.0/24") } else { net("fd77::/64") };
        let set = Set::new(set("no-masquerade"), kind).interval().elements([exempt]);
        let written = Table::new(table.id().family, table.id().name.clone())
            .set(set)
            .counter(Counter::new(CounterName::new("masqueraded").unwrap()));
        table.chains().iter().fold(written, |written, chain| {
            let base = Chain::base(chain.name().clone(), chain.hooked().unwrap().clone());
            written.chain(base.rules(chain.list().iter().map(&each)))
        })
    };
    flannel().tables().iter().map(table).collect()
}

#[test]
fn a_ruleset_replaced_a_thousand_times_leaves_no_gap() {
    replace(1_000);
}

#[test]
#[ignore = "takes half a minute; `make prove-no-gap` runs it"]
fn a_ruleset_replaced_ten_thousand_times_leaves_no_gap() {
    replace(10_000);
}

fn replace(times: u32) {
    let Some(bench) = Bench::new() else { return };
    let sides = [rules(), other_rules()];
    let ((), report) = bench.under_traffic(install, |kernel| {
        for turn in 0..times {
            let side = &sides[usize::from(turn % 2 == 0)];
            if turn % 5 == 0 {
                // Every table deleted and made anew, with its hooks, in one batch.
                let mut transaction = Transaction::unchecked();
                for table in side.tables() {
                    transaction.replace(table);
                }
                transaction.seal().unwrap().commit(kernel).unwrap();
            } else {
                let outcome = converge(kernel, side).unwrap();
                assert!(matches!(outcome, Outcome::Changed { .. }), "turn {turn} changes rules");
            }
        }
    });
    eprintln!("{times} replacements: {report:?}");
    assert_no_gap(&report);
}

/// What `nft flush ruleset` does to a table that anybody may change: it leaks until it is repaired, and not longer.
#[test]
fn a_table_flushed_by_others_leaks_only_until_it_is_repaired() {
    let Some(bench) = Bench::new() else { return };
    let (open, report) = bench.under_traffic(install, |kernel| {
        let mut monitor = Monitor::open(kernel).unwrap();
        let mut open = Duration::ZERO;
        for _ in 0..10 {
            let begun = Instant::now();
            testkit::sh("nft flush ruleset");
            let seen = wait_for(Duration::from_secs(5), || monitor.take().unwrap().pop());
            assert!(matches!(seen, Some(Event::Foreign(_))), "{seen:?}");
            converge(kernel, &rules()).unwrap();
            open += begun.elapsed();
            pause(20);
        }
        open
    });
    eprintln!("10 foreign flushes, {open:?} until repaired: {report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
    // What was sent outside of those intervals is masqueraded. In each of them, a sender that had no processor before may
    // send a burst of up to 64.
    let most = u64::from(RATE) * u64::try_from(open.as_millis()).unwrap() / 1_000 + 10 * 64;
    assert!(report.unmasqueraded < most, "{} of at most {most} leaked", report.unmasqueraded);
    // And after the last repair there is none: the same node, a new stream.
    let ((), after) = bench.under_traffic(|_| {}, |_| pause(200));
    assert_no_gap(&after);
}

fn owned() -> Ruleset {
    rules().tables().iter().cloned().map(|table| table.ownership(Ownership::Owner)).collect()
}

#[test]
fn an_owned_table_flushed_by_others_has_no_gap() {
    if kernel_version() < (6, 9) {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let ((), report) = bench.under_traffic(
        |kernel| assert!(converge(kernel, &owned()).is_ok()),
        |kernel| {
            for _ in 0..20 {
                testkit::sh("nft flush ruleset");
                testkit::try_sh("nft delete table ip flannel-ipv4").unwrap_err();
            }
            assert!(matches!(converge(kernel, &owned()).unwrap(), Outcome::Unchanged { .. }));
        },
    );
    eprintln!("20 foreign flushes of an owned table: {report:?}");
    assert_no_gap(&report);
}

#[test]
fn going_from_shared_to_owned_and_back_has_no_gap() {
    if kernel_version() < (6, 9) {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let ((), report) = bench.under_traffic(install, |kernel| {
        for _ in 0..50 {
            assert!(matches!(converge(kernel, &owned()).unwrap(), Outcome::Changed { .. }));
            assert!(matches!(converge(kernel, &rules()).unwrap(), Outcome::Changed { .. }));
        }
    });
    eprintln!("50 times shared to owner and back: {report:?}");
    assert_no_gap(&report);
}

/// What upstream's flanneld leaves with `EnableNFTables`, with this node's addresses.
#[test]
fn upstreams_tables_are_taken_over_without_a_gap() {
    let Some(bench) = Bench::new() else { return };
    let file = golden_file("upstream-nftables.nft");
    let ((), report) = bench.under_traffic(
        |_| drop(testkit::sh(&format!("nft -f {file}"))),
        |kernel| {
            for _ in 0..20 {
                assert!(matches!(converge(kernel, &rules()).unwrap(), Outcome::Changed { .. }));
                // Upstream's own start: its tables are kept, its chains flushed and filled in one transaction each.
                testkit::sh(&format!(
                    "{{ for f in 'ip flannel-ipv4' 'ip6 flannel-ipv6'; do for c in postrtg forward; do \
                     echo flush chain $f $c; done; done; cat {file}; }} | nft -f -"
                ));
            }
            assert!(matches!(converge(kernel, &rules()).unwrap(), Outcome::Changed { .. }));
            assert!(matches!(converge(kernel, &rules()).unwrap(), Outcome::Unchanged { .. }));
        },
    );
    eprintln!("20 times upstream's tables taken over and filled by it again: {report:?}");
    assert_no_gap(&report);
}

/// What upstream's flanneld leaves without `EnableNFTables`, on hosts whose iptables is iptables-nft: ours come first,
/// then its chains go.
#[test]
fn upstreams_iptables_rules_are_taken_over_without_a_gap() {
    let Some(bench) = Bench::new() else { return };
    let upstream = || {
        for program in ["iptables", "ip6tables"] {
            let file = golden_file(&format!("upstream.{program}"));
            testkit::sh(&format!("{program}-nft-restore --noflush {file}"));
        }
    };
    let ours: Vec<TableId> = rules().scope();
    let ((), report) = bench.under_traffic(
        |_| upstream(),
        |kernel| {
            for turn in 0..20 {
                let first = converge(kernel, &rules()).unwrap();
                assert!(matches!(first, Outcome::Changed { .. }), "turn {turn}");
                let then = converge_with(kernel, &iptables_tables(), |seen| {
                    let mut transaction = Transaction::at(seen.generation);
                    remove_leftovers(seen, UPSTREAM, &[], &mut transaction);
                    transaction
                });
                assert!(matches!(then.unwrap(), Outcome::Changed { .. }), "turn {turn}");
                // And back again, as who goes back to upstream does: its rules first, then ours go.
                upstream();
                let mut away = Transaction::unchecked();
                ours.iter().for_each(|table| away.delete_table(table));
                away.seal().unwrap().commit(kernel).unwrap();
            }
        },
    );
    eprintln!("20 times from upstream's iptables mode and back: {report:?}");
    assert_no_gap(&report);
}

fn golden_file(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// That zero means something: the same swap in two commits leaves instants without rules, and they are counted.
#[test]
fn the_counter_sees_a_swap_in_two_commits() {
    let Some(bench) = Bench::new() else { return };
    let (swaps, report) = bench.under_traffic(install, |kernel| {
        let until = Instant::now() + Duration::from_secs(1);
        let mut swaps = 0_u32;
        while Instant::now() < until {
            let mut gone = Transaction::unchecked();
            let mut back = Transaction::unchecked();
            for table in rules().tables() {
                gone.delete_table(table.id());
                back.create(table);
            }
            gone.seal().unwrap().commit(kernel).unwrap();
            back.seal().unwrap().commit(kernel).unwrap();
            swaps += 1;
        }
        swaps
    });
    eprintln!("{swaps} swaps in two commits: {report:?}");
    assert!(report.unmasqueraded > 0, "{swaps} swaps: {report:?}");
}
