//! Replacing a whole ruleset, repairing nothing, and checking that nothing drifted.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

use std::cell::RefCell;
use std::fs;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use flannel_benches::{FLOOR, OURS, Report, quick};
use flannel_netlink::{Batch, Protocol, Socket};
use flannel_nft::{
    Base, Chain, ChainName, Family, Nat, Netlink, Rule, Ruleset, Table, TableName, Transaction, converge,
    generation, ip,
};
use ipnet::Ipv4Net;
use testkit::{in_netns, sh};

fn main() {
    let sizes: &[u32] = if quick() { &[6, 100, 1_000] } else { &[6, 100, 1_000, 10_000] };
    let mut report = Report::new(
        "rule_swap",
        "A table with one nat chain of n rules, taken away and put there again in one transaction, so that it is never absent.",
    );
    for n in sizes {
        in_netns(|| swap(&mut report, *n)).unwrap();
    }
    in_netns(|| nothing_to_do(&mut report)).unwrap();
    report.write().unwrap();
}

fn swap(report: &mut Report, n: u32) {
    let rounds = match (n, quick()) {
        (0..=100, false) => 1_000,
        (0..=100, true) => 100,
        (101..=1_000, _) => 50,
        _ => 10,
    };
    let table = table(n);
    let kernel = RefCell::new(Netlink::open().unwrap());
    let spare = RefCell::new(Some(Transaction::unchecked().seal().unwrap()));
    let ours = || -> Duration {
        timed(|| {
            let mut transaction = spare.take().unwrap().reset(None);
            transaction.replace(&table);
            let mut sealed = transaction.seal().unwrap();
            flannel_nft::Kernel::send(&mut *kernel.borrow_mut(), &mut sealed).unwrap();
            spare.replace(Some(sealed));
        })
    };

    let mut recorded = Transaction::unchecked();
    recorded.replace(&table);
    let mut recorded: Batch = recorded.seal().unwrap().batch_mut().clone();
    let socket = RefCell::new(Socket::open(Protocol::Netfilter).unwrap());
    let mut floor = || -> Duration {
        timed(|| {
            let answer = socket.borrow_mut().transact(&mut recorded, |_| Ok(())).unwrap();
            assert!(answer.acknowledged && answer.refused.is_empty());
        })
    };

    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("swap.nft");
    let text = Ruleset::new().table(table.clone()).to_string();
    fs::write(&script, format!("table ip bench\ndelete table ip bench\n{text}")).unwrap();
    let nft = || timed(|| drop(sh(&format!("exec nft -f {}", script.display()))));

    let restore = folder.path().join("swap.iptables");
    fs::write(&restore, iptables(n)).unwrap();
    let iptables_nft = || timed(|| drop(sh(&format!("exec iptables-nft-restore {}", restore.display()))));
    let iptables_legacy =
        || timed(|| drop(sh(&format!("exec iptables-legacy-restore {}", restore.display()))));

    report.race(
        "whole-ruleset swap",
        n.into(),
        rounds,
        vec![(FLOOR, Box::new(&mut floor)), (OURS, Box::new(ours))],
    );
    // Rivals take so much longer that they get fewer rounds, in turns with ours again.
    let rounds = if n <= 1_000 { 20 } else { 3 };
    report.race(
        "whole-ruleset swap, against processes",
        n.into(),
        rounds,
        vec![
            (OURS, Box::new(ours)),
            ("nft -f", Box::new(nft)),
            ("iptables-nft-restore", Box::new(iptables_nft)),
            ("iptables-legacy-restore", Box::new(iptables_legacy)),
            ("spawning `true`", Box::new(|| timed(|| drop(sh("exec true"))))),
        ],
    );
}

fn nothing_to_do(report: &mut Report) {
    let mut kernel = Netlink::open().unwrap();
    let ruleset = Ruleset::new().table(table(6));
    converge(&mut kernel, &ruleset).unwrap();
    let kernel = RefCell::new(kernel);
    let rounds = if quick() { 200 } else { 2_000 };
    report.race(
        "nothing to do",
        6,
        rounds,
        vec![
            (
                "drift check (generation)",
                Box::new(|| {
                    timed(|| {
                        black_box(generation(&mut *kernel.borrow_mut()).unwrap());
                    })
                }),
            ),
            (
                "read, compare, send nothing",
                Box::new(|| {
                    timed(|| {
                        black_box(converge(&mut *kernel.borrow_mut(), &ruleset).unwrap());
                    })
                }),
            ),
        ],
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn prefix(i: u32) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + i * 256), 24).unwrap()
}

fn cluster() -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8).unwrap()
}

/// `n` rules of the kind that flanneld makes: two addresses and masquerade.
fn table(n: u32) -> Table {
    let rules = (0..n).map(|i| {
        let leaving = Rule::new().when(ip::saddr(prefix(i))).when(!ip::daddr(cluster()));
        leaving.masquerade(Nat::new().fully_random())
    });
    let chain = Chain::base(ChainName::new("postrouting").unwrap(), Base::nat_postrouting()).rules(rules);
    Table::new(Family::Ip, TableName::new("bench").unwrap()).chain(chain)
}

fn iptables(n: u32) -> String {
    let rules: String = (0..n)
        .map(|i| format!("-A POSTROUTING -s {} ! -d {} -j MASQUERADE --random-fully\n", prefix(i), cluster()))
        .collect();
    format!("*nat\n:POSTROUTING ACCEPT [0:0]\n{rules}COMMIT\n")
}
