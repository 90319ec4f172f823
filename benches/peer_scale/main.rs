//! Peers of a VXLAN overlay, from ten to a hundred thousand: programming them, finding nothing to do, one more, one less.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

mod replay;

use std::cell::RefCell;
use std::fs;
use std::time::{Duration, Instant};

use flannel_benches::{Case, FLOOR, OURS, Report, cpu_time, quick};
use flannel_netlink::{Batch, Protocol, Socket};
use flannel_vxlan::{
    DeviceSpec, Family, FamilySpec, Kernel, Link, MacAddr, Netlink, Overlay, UnderlayMtu, Vni, VxlanSpec,
};
use testkit::{in_netns, sh};

use crate::replay::{encode, encode_delete, encode_delete_route, peer, read_all, scripts};

const WINDOW: u32 = 128;
/// Above this the rivals' routes, quadratic in their number, take minutes; and so does the kernel to delete a device while
/// routes lead to that many nexthop objects on it.
const QUADRATIC_UP_TO: u32 = 10_000;
const BURST: u32 = 1_000;

fn main() {
    // `cargo bench --bench peer_scale -- 1000` measures one size, and keeps the report as it is.
    let chosen: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let all: &[u32] = if quick() { &[10, 100, 1_000] } else { &[10, 100, 1_000, 10_000, 100_000] };
    let mut report = Report::new(
        "peer_scale",
        "Peers of one IPv4 VXLAN device, 4 kernel objects each (forwarding entry, neighbour, nexthop, route). Times per operation, not per peer: CPU time, the kernel's included, except for one peer and for deletions, which are from the call until the kernel has answered. \
         The floor is the same questions and messages, encoded beforehand, with replies counted and forgotten.",
    );
    for n in if chosen.is_empty() { all } else { &chosen } {
        in_netns(|| Bench::new(*n).run(&mut report)).unwrap();
    }
    if !chosen.is_empty() {
        return;
    }
    report.plot("all peers, cold", "peers", "µs per peer", |row| row.p50 / per_peer(row.n));
    report.plot("one peer added", "peers", "µs, 99th percentile", |row| row.p99);
    report.write().unwrap();
}

fn per_peer(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}

/// One size.
struct Bench {
    n: u32,
    rounds: usize,
    e0: Link,
    device: u32,
    /// What ours goes through.
    kernel: RefCell<Netlink>,
    /// What the floor and one request at a time go through.
    socket: RefCell<Socket>,
}

impl Bench {
    fn new(n: u32) -> Self {
        sh(
            "ip link add e0 type veth peer name e1; ip link set e0 up; ip link set e1 up; ip addr add 192.168.77.1/24 dev e0",
        );
        let mut kernel = Netlink::open().unwrap();
        let e0 = index_of(&mut kernel, "e0");
        let e0 = Link { index: e0, name: "e0".parse().unwrap() };
        assert!(overlay(e0, 0).flush(&mut kernel).unwrap().is_clean());
        let rounds = match n {
            0..=1_000 => 20,
            1_001..=10_000 => 5,
            _ => 3,
        };
        let device = index_of(&mut kernel, "flannel.1");
        let socket = RefCell::new(Socket::open(Protocol::Route).unwrap());
        Self { n, rounds, e0, device, kernel: RefCell::new(kernel), socket }
    }

    fn run(&self, report: &mut Report) {
        self.cold(report);
        let full = RefCell::new(overlay(self.e0, self.n));
        self.flush(&full);
        self.nothing_to_do(report, &full);
        self.one(report, &full);
        self.burst(report, &full);
        self.deleted(report, &full);
        self.made_anew(report, &full);
        self.empty();
    }

    /// A device without peers, as at boot, and every peer known.
    fn cold(&self, report: &mut Report) {
        let full = overlay(self.e0, self.n);
        let floor = || {
            let mut batch = self.batch(1..=self.n, true);
            self.emptied(|| {
                read_all(&mut self.socket.borrow_mut(), self.device);
                self.execute(&mut batch);
            })
        };
        let ours = || {
            let mut overlay = full.clone();
            self.emptied(|| assert!(overlay.flush(&mut *self.kernel.borrow_mut()).unwrap().is_clean()))
        };
        let one_by_one = || {
            let mut batch = self.batch(1..=self.n, false);
            self.emptied(|| assert_eq!(self.socket.borrow_mut().execute(&mut batch, 1).unwrap(), []))
        };
        let tools = || {
            let folder = tempfile::tempdir().unwrap();
            let (fdb, rest) = scripts(self.n);
            fs::write(folder.path().join("fdb"), fdb).unwrap();
            fs::write(folder.path().join("rest"), rest).unwrap();
            let folder = folder.path().display().to_string();
            self.emptied(|| drop(sh(&format!("bridge -batch {folder}/fdb; ip -batch {folder}/rest"))))
        };
        let mut cases: Vec<Case<'_>> = vec![(FLOOR, Box::new(floor)), (OURS, Box::new(ours))];
        if self.n <= QUADRATIC_UP_TO {
            cases.push(("one request each", Box::new(one_by_one)));
            cases.push(("bridge -batch + ip -batch", Box::new(tools)));
        }
        report.race("all peers, cold", self.n.into(), self.rounds, cases);
        self.empty();
    }

    fn nothing_to_do(&self, report: &mut Report, full: &RefCell<Overlay>) {
        let converge = |overlay: &mut Overlay| {
            assert_eq!(overlay.converge(&mut *self.kernel.borrow_mut()).unwrap().steps, 0)
        };
        let floor = || cpu_time(|| read_all(&mut self.socket.borrow_mut(), self.device));
        let warm = || cpu_time(|| converge(&mut overlay(self.e0, self.n)));
        let again = || cpu_time(|| converge(&mut full.borrow_mut()));
        let n = self.n.into();
        report.race("warm start", n, self.rounds, vec![(FLOOR, Box::new(floor)), (OURS, Box::new(warm))]);
        report.race(
            "read all, compare",
            n,
            self.rounds,
            vec![(FLOOR, Box::new(floor)), (OURS, Box::new(again))],
        );
    }

    fn one(&self, report: &mut Report, full: &RefCell<Overlay>) {
        let next = peer(self.n + 1);
        let set = || {
            full.borrow_mut().set_peer(next).unwrap();
            self.flush(full);
        };
        let unset = || {
            full.borrow_mut().remove_peer(next.subnet);
            self.flush(full);
        };
        let (add, remove) = (
            RefCell::new(self.batch(self.n + 1..=self.n + 1, true)),
            RefCell::new(self.deletions(self.n + 1..=self.n + 1)),
        );
        let add = || self.execute(&mut add.borrow_mut());
        let remove = || self.execute(&mut remove.borrow_mut());
        let first = |run: &dyn Fn(), then: &dyn Fn()| {
            let time = timed(run);
            then();
            time
        };
        let second = |before: &dyn Fn(), run: &dyn Fn()| {
            before();
            timed(run)
        };
        let n = self.n.into();
        report.race(
            "one peer added",
            n,
            1_000,
            vec![(FLOOR, Box::new(|| first(&add, &remove))), (OURS, Box::new(|| first(&set, &unset)))],
        );
        report.race(
            "one peer removed",
            n,
            1_000,
            vec![(FLOOR, Box::new(|| second(&add, &remove))), (OURS, Box::new(|| second(&set, &unset)))],
        );
    }

    fn burst(&self, report: &mut Report, full: &RefCell<Overlay>) {
        let new = self.n + 1..=self.n + BURST;
        let floor = || {
            let mut batch = self.batch(new.clone(), true);
            let time = cpu_time(|| self.execute(&mut batch));
            self.execute(&mut self.deletions(new.clone()));
            time
        };
        let ours = || {
            let time = cpu_time(|| {
                new.clone().for_each(|i| full.borrow_mut().set_peer(peer(i)).unwrap());
                self.flush(full);
            });
            new.clone().for_each(|i| assert!(full.borrow_mut().remove_peer(peer(i).subnet)));
            self.flush(full);
            time
        };
        let cases: Vec<Case<'_>> = vec![(FLOOR, Box::new(floor)), (OURS, Box::new(ours))];
        report.race("1000 peers added at once", self.n.into(), 10, cases);
    }

    /// From the moment the deletion is complete.
    fn deleted(&self, report: &mut Report, full: &RefCell<Overlay>) {
        let n = self.n.into();
        let mut deletions = Vec::new();
        let mut repairs: Vec<f64> = (0..self.rounds.min(5))
            .map(|_| {
                if self.n > QUADRATIC_UP_TO {
                    self.execute(&mut self.route_deletions());
                }
                deletions.push(micros(timed(|| drop(sh("ip link del flannel.1")))));
                full.borrow_mut().invalidate();
                micros(cpu_time(|| self.flush(full)))
            })
            .collect();
        if self.n <= QUADRATIC_UP_TO {
            report.figure("device deleted", "kernel, `ip link del`", n, "us", &mut deletions);
        }
        report.figure("device deleted: all back", OURS, n, "us", &mut repairs);
    }

    /// Another port, which no kernel sets in place: routes, device, and everything again.
    fn made_anew(&self, report: &mut Report, full: &RefCell<Overlay>) {
        let mut times: Vec<f64> = [4789, 8472]
            .repeat(self.rounds.min(4).div_ceil(2))
            .into_iter()
            .map(|port| {
                full.borrow_mut().set_family(family(self.e0, port));
                micros(timed(|| self.flush(full)))
            })
            .collect();
        report.figure("device made anew, and all back", OURS, self.n.into(), "us", &mut times);
    }

    fn batch(&self, peers: impl Iterator<Item = u32>, nexthops: bool) -> Batch {
        let mut batch = Batch::new();
        peers.for_each(|i| encode(&mut batch, self.device, i, nexthops));
        batch
    }

    fn deletions(&self, peers: impl Iterator<Item = u32>) -> Batch {
        let mut batch = Batch::new();
        peers.for_each(|i| encode_delete(&mut batch, self.device, i));
        batch
    }

    fn route_deletions(&self) -> Batch {
        let mut batch = Batch::new();
        (1..=self.n).for_each(|i| encode_delete_route(&mut batch, i));
        batch
    }

    fn execute(&self, batch: &mut Batch) {
        assert_eq!(self.socket.borrow_mut().execute(batch, WINDOW).unwrap(), []);
    }

    fn flush(&self, overlay: &RefCell<Overlay>) {
        assert!(overlay.borrow_mut().flush(&mut *self.kernel.borrow_mut()).unwrap().is_clean());
    }

    /// Takes everything off the device, a few messages at a time: deleting the device would stop all other users of
    /// rtnetlink for as long as that takes.
    fn empty(&self) {
        assert!(overlay(self.e0, 0).converge(&mut *self.kernel.borrow_mut()).unwrap().is_clean());
    }

    #[expect(clippy::disallowed_methods, reason = "nothing is waited for but the kernel's own tidying up")]
    fn emptied(&self, run: impl FnOnce()) -> Duration {
        self.empty();
        // What was deleted is freed after a grace period, at the cost of whoever runs then.
        std::thread::sleep(Duration::from_millis(30));
        cpu_time(run)
    }
}

fn overlay(e0: Link, n: u32) -> Overlay {
    let mut overlay = Overlay::new([family(e0, 8472)]);
    (1..=n).for_each(|i| overlay.set_peer(peer(i)).unwrap());
    overlay
}

fn family(e0: Link, port: u16) -> FamilySpec {
    let mtu = UnderlayMtu::new(1500).inside_vxlan(Family::V4).unwrap();
    let (local, own) = ("192.168.77.1".parse().unwrap(), "10.0.0.0".parse().unwrap());
    let vxlan =
        VxlanSpec::new(Vni::new(1).unwrap(), MacAddr::derived(b"bench")).port(port.try_into().unwrap());
    let device = DeviceSpec::new(vxlan, e0, local, own, mtu);
    FamilySpec::new(e0, "10.0.0.0/26".parse().unwrap(), vec!["10.0.0.0/8".parse().unwrap()]).device(device)
}

fn index_of(kernel: &mut Netlink, name: &str) -> u32 {
    kernel.interfaces().unwrap().into_iter().find(|found| found.name == name).unwrap().index
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
