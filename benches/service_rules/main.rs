//! Rules of a service proxy: loaded, read, compared, and changed by one service, against the replay of the same bytes
//! and against `nft -f`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

mod generate;

use std::cell::{Cell, RefCell};
use std::fs;
use std::hint::black_box;
use std::time::Duration;

use flannel_benches::{FLOOR, OURS, Report, cpu_time, quick};
use flannel_netlink::{Batch, Protocol, Socket};
use flannel_nft::{
    ChainName, CommitError, Generation, Handle, Kernel, Netlink, ObserveError, Observed, Outcome,
    RetainedRuleset, Ruleset, Sealed, TableId, Transaction, converge, observe,
};
use testkit::{in_netns, sh};

use generate::Shape;

fn main() {
    let mut report = Report::new(
        "service_rules",
        "Rules in the shape of kube-proxy's nftables mode: n services with two endpoints each, so 3 chains and 7 rules per service \
         and one verdict map with n elements; with anonymous maps also one map per service. CPU time, the kernel's included, of \
         runs that take turns. The floor is the replay of the same bytes over a socket that is kept.",
    );
    let sizes: &[u32] = if quick() { &[100, 1_000] } else { &[100, 1_000, 10_000] };
    for services in sizes {
        for anonymous_maps in [false, true] {
            // The kernel itself takes half a minute to load 10,000 anonymous maps.
            if anonymous_maps && *services > 1_000 {
                continue;
            }
            let shape = Shape { services: *services, endpoints: 2, anonymous_maps };
            in_netns(|| first_load(&mut report, shape)).unwrap();
            in_netns(|| unchanged(&mut report, shape)).unwrap();
            in_netns(|| one_service(&mut report, shape)).unwrap();
        }
    }
    report.write().unwrap();
}

fn named(what: &str, shape: Shape) -> String {
    format!("{what}{}", if shape.anonymous_maps { ", anonymous maps" } else { "" })
}

fn rounds(shape: Shape) -> usize {
    match shape.services {
        0..=100 => 50,
        101..=1_000 => 20,
        _ => 5,
    }
}

fn first_load(report: &mut Report, shape: Shape) {
    let desired = Ruleset::new().table(shape.table());
    let id = desired.tables()[0].id().clone();
    let kernel = RefCell::new(Netlink::open().unwrap());
    let clear = |took: Duration| {
        let mut transaction = Transaction::unchecked();
        transaction.delete_table(&id);
        transaction.seal().unwrap().commit(&mut *kernel.borrow_mut()).unwrap();
        took
    };
    let mut recorded = Transaction::unchecked();
    recorded.create(&desired.tables()[0]);
    let mut batch = recorded.seal().unwrap().batch_mut().clone();
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("services.nft");
    fs::write(&script, desired.to_string()).unwrap();
    report.race(
        &named("first load", shape),
        shape.services.into(),
        rounds(shape),
        vec![
            (FLOOR, Box::new(|| clear(cpu_time(|| replay(&mut socket, &mut batch))))),
            (
                OURS,
                Box::new(|| {
                    clear(cpu_time(|| {
                        black_box(converge(&mut *kernel.borrow_mut(), &desired).unwrap());
                    }))
                }),
            ),
            (
                "nft -f",
                Box::new(|| clear(cpu_time(|| drop(sh(&format!("exec nft -f {}", script.display())))))),
            ),
        ],
    );
}

/// The "floor" of a comparison is the read alone.
fn unchanged(report: &mut Report, shape: Shape) {
    let desired = Ruleset::new().table(shape.table());
    let kernel = RefCell::new(Netlink::open().unwrap());
    converge(&mut *kernel.borrow_mut(), &desired).unwrap();
    let scope = desired.scope();
    report.race(
        &named("nothing to do, against the read alone", shape),
        shape.services.into(),
        rounds(shape),
        vec![
            (FLOOR, Box::new(|| cpu_time(|| drop(observe(&mut *kernel.borrow_mut(), &scope).unwrap())))),
            (
                OURS,
                Box::new(|| {
                    let outcome = Cell::new(None);
                    let took = cpu_time(|| {
                        outcome.set(Some(converge(&mut *kernel.borrow_mut(), &desired).unwrap()))
                    });
                    assert!(matches!(outcome.get(), Some(Outcome::Unchanged { .. })), "{outcome:?}");
                    took
                }),
            ),
        ],
    );
}

/// One endpoint of one service is replaced, in turns of a patch that is timed and of one of which only the replay of its
/// bytes is.
fn one_service(report: &mut Report, shape: Shape) {
    let table = shape.table();
    let id = table.id().clone();
    let kernel = RefCell::new(Recording::open());
    let retained = RefCell::new(RetainedRuleset::new(Ruleset::new().table(table)));
    retained.borrow_mut().reconcile(&mut *kernel.borrow_mut()).unwrap();
    let at = Cell::new(0_u32);
    let mut own = Vec::new();
    let patch = || {
        let patch = shape.replace_endpoint(shape.services / 2, at.replace(at.get() + 1));
        let took = cpu_time(|| {
            let changed = retained.borrow_mut().patch(&mut *kernel.borrow_mut(), &id, patch);
            assert!(matches!(changed, Ok(Outcome::Changed { .. })), "{changed:?}");
        });
        (took, kernel.borrow().sending)
    };
    let what = named("one service changed", shape);
    report.race(
        &what,
        shape.services.into(),
        if shape.services > 1_000 { 100 } else { 300 },
        vec![
            (FLOOR, Box::new(|| patch().1)),
            (
                OURS,
                Box::new(|| {
                    let (took, sending) = patch();
                    own.push(took.saturating_sub(sending).as_secs_f64() * 1e6);
                    took
                }),
            ),
        ],
    );
    report.figure(&format!("{what}: beside the replay"), OURS, shape.services.into(), "us", &mut own);
    kernel.borrow_mut().evicts_caches = true;
    let mut cold: Vec<f64> = (0..50)
        .map(|_| {
            let (took, sending) = patch();
            took.saturating_sub(sending).as_secs_f64() * 1e6
        })
        .collect();
    let what = format!("{what}: beside the replay, caches evicted");
    report.figure(&what, OURS, shape.services.into(), "us", &mut cold);
}

fn replay(socket: &mut Socket, batch: &mut Batch) {
    let answer = socket.transact(batch, |_| Ok(())).unwrap();
    assert!(answer.acknowledged && answer.refused.is_empty(), "{answer:?}");
}

/// The kernel, and how long it took to send the last batch: that is the replay of identical bytes.
struct Recording {
    kernel: Netlink,
    socket: Socket,
    sending: Duration,
    /// Whether to evict the processor's caches after each batch, as the kernel's commit to a large table does.
    evicts_caches: bool,
}

impl Recording {
    fn open() -> Self {
        Self {
            kernel: Netlink::open().unwrap(),
            socket: Socket::open(Protocol::Netfilter).unwrap(),
            sending: Duration::ZERO,
            evicts_caches: false,
        }
    }
}

impl Kernel for Recording {
    fn generation(&mut self) -> Result<Generation, ObserveError> {
        self.kernel.generation()
    }
    fn tables(&mut self) -> Result<Vec<TableId>, ObserveError> {
        self.kernel.tables()
    }
    fn keeps_owned_tables(&mut self) -> Result<bool, ObserveError> {
        self.kernel.keeps_owned_tables()
    }
    fn observe(&mut self, wanted: &[TableId]) -> Result<Observed, ObserveError> {
        self.kernel.observe(wanted)
    }
    fn rule_handles(&mut self, table: &TableId, chain: &ChainName) -> Result<Vec<Handle>, ObserveError> {
        self.kernel.rule_handles(table, chain)
    }
    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Option<Generation>, CommitError> {
        let expected = transaction.expected().unwrap();
        let batch = transaction.batch_mut();
        self.sending = cpu_time(|| {
            replay(&mut self.socket, batch);
            if self.evicts_caches {
                // More than the caches hold.
                black_box(vec![1_u8; 64 << 20]);
            }
        });
        Ok(Some(expected.next()))
    }
}
