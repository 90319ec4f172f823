//! Others who write at the same time: what is read is whole, what is written is all or nothing, and the error says which.

use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use flannel_netlink::DumpError;
use flannel_nft::*;
use testkit::netns;

/// For a busy machine; seconds are usual.
const LONGEST: Duration = Duration::from_secs(300);

/// A table with so many rules in each of two chains and so many elements, all with the same number in them.
///
/// The set is no hash table: while the kernel enlarges one, a listing misses elements without saying so.
fn numbered(number: u32, count: u32) -> Ruleset {
    let rules = || (0..count).map(move |_| Rule::new().when(meta::mark(number)).accept());
    // Addresses with a gap between them, or they would be one interval.
    let elements = (0..count).map(|at| Value::from(Ipv4Addr::from(number << 24 | at << 1)));
    let table = Table::new(Family::Ip, TableName::new("t").unwrap())
        .set(Set::new(set("s"), Datatype::Ipv4Addr).interval().elements(elements))
        .chain(Chain::regular(chain("a")).rules(rules()))
        .chain(Chain::regular(chain("b")).rules(rules()));
    Ruleset::new().table(table)
}

fn replace(kernel: &mut Netlink, ruleset: &Ruleset) {
    let mut transaction = Transaction::unchecked();
    ruleset.tables().iter().for_each(|table| transaction.replace(table));
    transaction.seal().unwrap().commit(kernel).unwrap();
}

#[test]
fn a_listing_interrupted_a_hundred_times_is_whole_or_none() {
    interrupt(100, [numbered(1, 40), numbered(2, 60)]);
}

#[test]
#[ignore = "takes up to a minute on a busy machine; `make prove-no-gap` runs it"]
fn a_listing_interrupted_a_thousand_times_is_whole_or_none() {
    // The kernel hands out 32 KiB at a time: each chain's listing comes in parts.
    interrupt(1_000, [numbered(1, 150), numbered(2, 200)]);
}

/// Reads while another thread writes, until so many attempts at reading met a commit.
fn interrupt(times: u32, sides: [Ruleset; 2]) {
    netns(|| {
        let texts = sides.each_ref().map(ToString::to_string);
        let mut kernel = Netlink::open().unwrap();
        replace(&mut kernel, &sides[0]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut kernel = Netlink::open().unwrap();
                let begun = Instant::now();
                for turn in 0_u32.. {
                    if stop.load(Ordering::Relaxed) || begun.elapsed() > LONGEST {
                        break;
                    }
                    replace(&mut kernel, &sides[usize::from(turn % 2 == 0)]);
                    if turn % 8 == 0 {
                        thread::park_timeout(Duration::from_millis(1)); // so that some listings are whole
                    }
                }
            });
            let (mut interrupted, mut whole) = (0, 0);
            let begun = Instant::now();
            while (interrupted < times || whole < 20) && begun.elapsed() < LONGEST {
                let before = generation(&mut kernel).unwrap();
                match observe(&mut kernel, &[id("t")]) {
                    Ok(observed) => {
                        interrupted += u32::from(observed.generation != before);
                        whole += 1;
                        let found = observed.ruleset.to_string();
                        assert!(texts.contains(&found), "of two minds:\n{found}");
                    }
                    Err(ObserveError {
                        source:
                            ReadError::Busy { attempts } | ReadError::Dump(DumpError::Interrupted { attempts }),
                        ..
                    }) => interrupted += attempts,
                    other => assert!(other.is_ok(), "{other:?}"),
                }
            }
            stop.store(true, Ordering::Relaxed);
            eprintln!("{interrupted} interrupted, {whole} whole, in {:?}", begun.elapsed());
            assert!(interrupted >= times && whole >= 20, "{interrupted} interrupted, {whole} whole");
        });
    });
}

/// Three other processes change their own tables as fast as they can.
#[test]
fn changes_of_other_tables_delay_nobody() {
    netns(|| {
        let stop = AtomicBool::new(false);
        let commits = AtomicU32::new(0);
        let mut kernel = Netlink::open().unwrap();
        thread::scope(|scope| {
            for writer in 0..3 {
                let (stop, commits) = (&stop, &commits);
                scope.spawn(move || {
                    let mut kernel = Netlink::open().unwrap();
                    let table = |chains: u32| {
                        let chains = (0..chains).map(|number| Chain::regular(chain(&format!("c{number}"))));
                        let name = TableName::new(&format!("o{writer}")).unwrap();
                        Ruleset::new().table(chains.fold(Table::new(Family::Ip, name), Table::chain))
                    };
                    let sides = [table(1), table(40)];
                    while !stop.load(Ordering::Relaxed) {
                        let turn = commits.fetch_add(1, Ordering::Relaxed);
                        replace(&mut kernel, &sides[usize::from(turn % 2 == 0)]);
                    }
                });
            }
            let sides = [numbered(1, 200), numbered(2, 201)];
            for turn in 0..6 {
                let desired = &sides[turn % 2];
                let outcome = converge(&mut kernel, desired);
                let held = observe(&mut kernel, &desired.scope());
                let failed = outcome.is_err() || held.is_err();
                if failed || turn == 5 {
                    stop.store(true, Ordering::Relaxed);
                }
                assert!(matches!(outcome.unwrap(), Outcome::Changed { .. }), "turn {turn}");
                assert_eq!(held.unwrap().ruleset.to_string(), desired.to_string(), "turn {turn}");
            }
        });
        assert!(commits.load(Ordering::Relaxed) > 20, "nobody disturbed");
    });
}

/// Another process changes the same table as fast as it can: whatever is observed and committed is whole.
#[test]
fn changes_of_the_same_table_are_never_mixed_with_ours() {
    netns(|| {
        let stop = AtomicBool::new(false);
        let sides = [numbered(1, 300), numbered(2, 301)];
        let texts = sides.each_ref().map(ToString::to_string);
        let mut kernel = Netlink::open().unwrap();
        replace(&mut kernel, &sides[0]);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = Netlink::open().unwrap();
                for turn in 0_usize.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    replace(&mut other, &sides[turn % 2]);
                    thread::park_timeout(Duration::from_micros(u64::try_from(turn % 20).unwrap() * 300));
                }
            });
            let (mut whole, begun) = (0, Instant::now());
            while whole < 200 && begun.elapsed() < Duration::from_secs(30) {
                match observe(&mut kernel, &[id("t")]) {
                    Ok(observed) => {
                        let found = observed.ruleset.to_string();
                        if !texts.contains(&found) {
                            stop.store(true, Ordering::Relaxed);
                        }
                        assert!(texts.contains(&found), "of two minds:\n{found}");
                        whole += 1;
                    }
                    Err(ObserveError { source: ReadError::Busy { .. }, .. }) => {}
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        panic!("{error:?}");
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(whole >= 20, "{whole} whole");
        });
    });
}

/// Lets so much time pass while another thread works. A writer that sleeps would be woken too late for what is measured
/// here; only where there is one processor must it leave that to the other.
fn pass(time: Duration) {
    let alone = thread::available_parallelism().is_ok_and(|processors| processors.get() == 1);
    let begun = Instant::now();
    while begun.elapsed() < time {
        if alone {
            thread::park_timeout(time.saturating_sub(begun.elapsed()));
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Somebody else commits once, at each moment between the start of reading and a while after our commit in turn.
#[test]
fn whenever_others_commit_ours_is_all_old_or_all_new_and_the_error_says_which() {
    netns(|| {
        let sides = [numbered(1, 20), numbered(2, 30)];
        let texts = sides.each_ref().map(ToString::to_string);
        let mut kernel = Netlink::open().unwrap();
        replace(&mut kernel, &sides[0]);
        // How long it takes undisturbed.
        let span = (0..6).map(|turn| {
            let begun = Instant::now();
            converge(&mut kernel, &sides[(turn + 1) % 2]).unwrap();
            begun.elapsed()
        });
        let span = span.min().unwrap();
        let (mut old, mut applied, mut stale, mut before, mut after) = (0, 0, 0, 0, 0);
        let begun = Instant::now();
        for moment in 0_u32.. {
            // Until some came before all of it, some after, and each moment had its turn.
            let enough = moment >= 150 && stale >= 20 && applied >= 20;
            if enough || begun.elapsed() > Duration::from_secs(60) {
                break;
            }
            let new = 1 - old;
            let gate = Barrier::new(2);
            let (generation, ended) = thread::scope(|scope| {
                scope.spawn(|| {
                    let mut other = Netlink::open().unwrap();
                    let mut transaction = Transaction::unchecked();
                    transaction.replace(&Table::new(Family::Ip, TableName::new("other").unwrap()));
                    let sealed = transaction.seal().unwrap();
                    gate.wait();
                    pass(span * (moment % 150) / 100);
                    sealed.commit(&mut other).unwrap();
                });
                gate.wait();
                let observed = observe(&mut kernel, &sides[new].scope()).unwrap();
                let sealed = diff(&sides[new], &observed).seal().unwrap();
                (observed.generation, sealed.commit(&mut kernel))
            });
            let holds = observe(&mut kernel, &sides[new].scope()).unwrap();
            match ended {
                Ok(made) => {
                    assert_eq!(holds.ruleset.to_string(), texts[new]);
                    let made = made.unwrap();
                    assert!(made >= generation.next(), "{made}");
                    *if holds.generation == made { &mut before } else { &mut after } += 1;
                    (applied, old) = (applied + 1, new);
                }
                Err(CommitError::Stale) => {
                    assert_eq!(holds.ruleset.to_string(), texts[old]);
                    assert_ne!(holds.generation, generation);
                    stale += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        eprintln!("{stale} stale, {applied} applied: {before} with the other before, {after} after");
        assert!(stale >= 1 && before >= 1 && after >= 1, "{stale} stale, {before} before, {after} after");
    });
}
