//! Somebody else flushes all rules: how long until ours are back.

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use flannel_benches::{OURS, Report, quick};
use flannel_nft::{Monitor, Netlink, Ruleset, Transaction, converge};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use testkit::in_netns;

use crate::table;

pub(crate) fn measure(report: &mut Report) {
    for n in [6, 100] {
        in_netns(|| flushed(report, n)).unwrap();
    }
}

/// From the moment at which another thread is about to commit the flush, on a socket of its own, to the moment at which
/// a thread that slept until the kernel told it has its answer to the repair.
fn flushed(report: &mut Report, n: u32) {
    let desired = Ruleset::new().table(table(n));
    let mut kernel = Netlink::open().unwrap();
    let mut monitor = Monitor::open(&kernel).unwrap();
    let mut foreign = Netlink::open().unwrap();
    let id = desired.tables()[0].id().clone();
    let rounds: usize = if quick() { 200 } else { 2_000 };
    let mut taken = Vec::with_capacity(rounds);
    converge(&mut kernel, &desired).unwrap();
    thread::scope(|scope| {
        let (flush, told) = mpsc::channel();
        let (repaired, done) = mpsc::channel();
        scope.spawn(move || {
            for () in told {
                let begun = Instant::now();
                let mut transaction = Transaction::unchecked();
                transaction.delete_table(&id);
                transaction.seal().unwrap().commit(&mut foreign).unwrap();
                repaired.send(begun).unwrap();
            }
        });
        for _ in 0..rounds {
            flush.send(()).unwrap();
            // What is left of our own commit, and the beginning of a foreign one, wake it too.
            while monitor.take().unwrap().is_empty() {
                let mut ready = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
                let heard = poll(&mut ready, PollTimeout::try_from(5_000).unwrap()).unwrap();
                assert_eq!(heard, 1, "the flush was not heard");
            }
            converge(&mut kernel, &desired).unwrap();
            let ended = Instant::now();
            let begun: Instant = done.recv().unwrap();
            taken.push((ended - begun).as_secs_f64() * 1e6);
        }
    });
    report.figure("foreign flush to repaired", OURS, n.into(), "us", &mut taken);
}
