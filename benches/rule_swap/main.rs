//! Rules: a whole table swapped, one rule or element changed, nothing to do, and what others flushed put back.
//!
//! A package of its own, outside of `default-members`: what the rivals need does not reach a plain `cargo build`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

mod changes;
mod own;
mod repair;
mod rivals;

use std::cell::RefCell;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use flannel_benches::{Case, FLOOR, OURS, Report, quick};
use flannel_netlink::{Batch, Protocol, Socket};
use flannel_nft::{
    Base, Chain, ChainName, Family, Kernel as _, Nat, Netlink, Rule, Ruleset, Table, TableName, Transaction,
    ip,
};
use ipnet::Ipv4Net;
use rivals::{Kept, Wanted, with_nftnl, with_rustables};
use testkit::{in_netns, sh};

const SWAP: &str = "whole-ruleset swap";
const SWAP_AS_SHIPPED: &str = "whole-ruleset swap, against what opens a socket each time";

/// Builds and sends in a rival's own way; its error is what it says.
type AsShipped = fn(&Wanted<'_>) -> Result<(), String>;

fn main() -> ExitCode {
    // cargo adds flags of its own.
    let own = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if let Some(path) = own {
        return match own::measure(Path::new(&path)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let sizes: &[u32] = if quick() { &[6, 100, 1_000] } else { &[6, 100, 1_000, 10_000] };
    let mut report = Report::new(
        "rule_swap",
        "A table with one nat chain of n rules (two addresses, masquerade), taken away and put there again in one transaction, \
         so that it is never absent; and smaller changes. Each commits the same rules.",
    );
    for n in sizes {
        in_netns(|| swap(&mut report, *n)).unwrap();
    }
    changes::measure(&mut report);
    repair::measure(&mut report);
    report.plot(SWAP, "rules", "median, us", |row| row.p50);
    report.plot(SWAP_AS_SHIPPED, "rules", "median, us", |row| row.p50);
    report.write().unwrap();
    ExitCode::SUCCESS
}

/// Replays a batch that was encoded beforehand: what the kernel alone takes.
struct Floor {
    socket: Socket,
    batch: Batch,
}

impl Floor {
    fn new(transaction: Transaction<flannel_nft::Building>) -> Self {
        let batch = transaction.seal().unwrap().batch_mut().clone();
        Self { socket: Socket::open(Protocol::Netfilter).unwrap(), batch }
    }

    fn run(&mut self) -> Duration {
        timed(|| {
            let answer = self.socket.transact(&mut self.batch, |_| Ok(())).unwrap();
            assert!(answer.acknowledged && answer.refused.is_empty());
        })
    }
}

fn swap(report: &mut Report, n: u32) {
    let table = table(n);
    let kernel = RefCell::new(Netlink::open().unwrap());
    let spare = RefCell::new(Some(Transaction::unchecked().seal().unwrap()));
    let ours = || -> Duration {
        // Who commits knows the generation: it made the last one. Here others have been in turn.
        let last = kernel.borrow_mut().generation().unwrap();
        timed(|| {
            let mut transaction = spare.take().unwrap().reset(Some(last));
            transaction.replace(&table);
            let mut sealed = transaction.seal().unwrap();
            kernel.borrow_mut().send(&mut sealed).unwrap();
            spare.replace(Some(sealed));
        })
    };
    let encoding = || -> Duration {
        timed(|| {
            let mut transaction = spare.take().unwrap().reset(None);
            transaction.replace(&table);
            spare.replace(Some(transaction.seal().unwrap()));
        })
    };
    let mut recorded = Transaction::unchecked();
    recorded.replace(&table);
    let mut floor = Floor::new(recorded);

    let sources: Vec<Ipv4Net> = (0..n).map(prefix).collect();
    let wanted = &Wanted { table: "bench", chain: "postrouting", sources: &sources, cluster: cluster() };
    let kept = RefCell::new(Kept::open().unwrap());
    let rustables_kept =
        || timed(|| kept.borrow_mut().exchange(&with_rustables::batch(wanted).finalize()).unwrap());
    let nftnl_kept = || {
        timed(|| {
            let batch = with_nftnl::batch(wanted);
            let pages: Vec<&[u8]> = batch.iter().collect();
            kept.borrow_mut().exchange(&pages.concat()).unwrap();
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

    // All make the same.
    ours();
    let listed = || sh("nft -s list table ip bench");
    let expected = listed();
    let all: [(&str, &dyn Fn() -> Duration); 3] =
        [("rustables", &rustables_kept), ("nftnl+mnl", &nftnl_kept), ("nft -f", &nft)];
    for (rival, run) in all {
        run();
        assert!(listed() == expected, "{rival} made something else");
    }

    report.race(
        SWAP,
        n.into(),
        rounds(n),
        vec![
            (FLOOR, Box::new(|| floor.run())),
            (OURS, Box::new(ours)),
            ("rustables, kept socket", Box::new(rustables_kept)),
            ("nftnl+mnl, kept socket", Box::new(nftnl_kept)),
        ],
    );
    report.race("of which encoding", n.into(), rounds(n), vec![(OURS, Box::new(encoding))]);
    let what = SWAP_AS_SHIPPED;
    let mut cases: Vec<Case<'_>> = vec![(OURS, Box::new(ours))];
    let shipped: [(&str, AsShipped); 2] = [
        ("rustables, as shipped", with_rustables::as_shipped),
        ("nftnl+mnl, as shipped", with_nftnl::as_shipped),
    ];
    for (rival, run) in shipped {
        // Beyond some hundred rules their sockets cannot take it.
        match run(wanted) {
            Ok(()) => cases.push((rival, Box::new(move || timed(|| run(wanted).unwrap())))),
            Err(error) => report.failure(what, rival, n.into(), &error),
        }
    }
    cases.push(("nft -f", Box::new(nft)));
    cases.push(("iptables-nft-restore", Box::new(iptables_nft)));
    cases.push(("iptables-legacy-restore", Box::new(iptables_legacy)));
    cases.push(("spawning `true`", Box::new(|| timed(|| drop(sh("exec true"))))));
    // They take so much longer that they get fewer rounds, in turns with ours again.
    report.race(what, n.into(), if n <= 1_000 { 20 } else { 5 }, cases);
}

fn rounds(n: u32) -> usize {
    match (n, quick()) {
        (0..=100, false) => 1_000,
        (101..=1_000, false) => 100,
        (0..=100, true) => 100,
        (101..=1_000, true) => 30,
        _ => 20,
    }
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

/// `n` rules of the kind that flanneld makes, without flags of masquerade, for which the rivals have no words.
fn table(n: u32) -> Table {
    let rules = (0..n).map(|i| {
        let leaving = Rule::new().when(ip::saddr(prefix(i))).when(!ip::daddr(cluster()));
        leaving.masquerade(Nat::new())
    });
    let chain = Chain::base(ChainName::new("postrouting").unwrap(), Base::nat_postrouting()).rules(rules);
    Table::new(Family::Ip, TableName::new("bench").unwrap()).chain(chain)
}

fn iptables(n: u32) -> String {
    let rules: String = (0..n)
        .map(|i| format!("-A POSTROUTING -s {} ! -d {} -j MASQUERADE\n", prefix(i), cluster()))
        .collect();
    format!("*nat\n:POSTROUTING ACCEPT [0:0]\n{rules}COMMIT\n")
}
