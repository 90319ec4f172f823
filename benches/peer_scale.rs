//! Peers of a VXLAN overlay, from ten to a hundred thousand: programming them, finding nothing to do, one more, one less.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use flannel_benches::{FLOOR, OURS, Report, quick};
use flannel_netlink::{Attributes, Batch, Flags, Protocol, Socket};
use flannel_vxlan::{
    DeviceSpec, Family, FamilySpec, Kernel, Link, MacAddr, Netlink, Overlay, Peer, UnderlayMtu, Via, Vni,
};
use ipnet::IpNet;
use testkit::{in_netns, sh};

const WINDOW: u32 = 128;
/// Above this the rivals' routes, quadratic in their number, take minutes.
const RIVALS_UP_TO: u32 = 10_000;

fn main() {
    let sizes: &[u32] = if quick() { &[10, 100, 1_000] } else { &[10, 100, 1_000, 10_000, 100_000] };
    let mut report = Report::new(
        "peer_scale",
        "Peers of one IPv4 VXLAN device, 4 kernel objects each (forwarding entry, neighbour, nexthop, route). Times per operation, not per peer.",
    );
    for n in sizes {
        in_netns(|| bench(&mut report, *n)).unwrap();
    }
    report.write().unwrap();
}

fn bench(report: &mut Report, n: u32) {
    sh(
        "ip link add e0 type veth peer name e1; ip link set e0 up; ip link set e1 up; ip addr add 192.168.77.1/24 dev e0",
    );
    let rounds = match n {
        0..=1_000 => 20,
        1_001..=10_000 => 3,
        _ => 2,
    };
    let kernel = RefCell::new(Netlink::open().unwrap());
    let socket = RefCell::new(Socket::open(Protocol::Route).unwrap());
    let e0 = kernel.borrow_mut().interfaces().unwrap().into_iter().find(|found| found.name == "e0").unwrap();
    let e0 = Link { index: e0.index, name: "e0".parse().unwrap() };

    let full = overlay(e0, n);

    let cold = || -> Duration {
        empty_device(&mut kernel.borrow_mut(), e0);
        let mut overlay = full.clone();
        timed(|| assert!(overlay.flush(&mut *kernel.borrow_mut()).unwrap().is_clean()))
    };
    let floor = || -> Duration {
        let device = empty_device(&mut kernel.borrow_mut(), e0);
        let mut batch = Batch::new();
        (1..=n).for_each(|i| encode(&mut batch, device, i, true));
        timed(|| assert_eq!(socket.borrow_mut().execute(&mut batch, WINDOW).unwrap(), []))
    };
    let one_by_one = || -> Duration {
        let device = empty_device(&mut kernel.borrow_mut(), e0);
        let mut batch = Batch::new();
        (1..=n).for_each(|i| encode(&mut batch, device, i, false));
        timed(|| assert_eq!(socket.borrow_mut().execute(&mut batch, 1).unwrap(), []))
    };
    let tools = || -> Duration {
        empty_device(&mut kernel.borrow_mut(), e0);
        let folder = tempfile::tempdir().unwrap();
        let (fdb, rest) = scripts(n);
        fs::write(folder.path().join("fdb"), fdb).unwrap();
        fs::write(folder.path().join("rest"), rest).unwrap();
        let folder = folder.path().display();
        timed(|| drop(sh(&format!("bridge -batch {folder}/fdb; ip -batch {folder}/rest"))))
    };
    let mut cases: Vec<flannel_benches::Case<'_>> = vec![(FLOOR, Box::new(floor)), (OURS, Box::new(cold))];
    if n <= RIVALS_UP_TO {
        cases.push(("one request each", Box::new(one_by_one)));
        cases.push(("bridge -batch + ip -batch", Box::new(tools)));
    }
    report.race("program all", n.into(), rounds, cases);

    empty_device(&mut kernel.borrow_mut(), e0);
    let overlay = RefCell::new(full.clone());
    overlay.borrow_mut().flush(&mut *kernel.borrow_mut()).unwrap();
    let device = device_index(&mut kernel.borrow_mut());
    report.race(
        "nothing to do: read, compare",
        n.into(),
        rounds,
        vec![
            (FLOOR, Box::new(|| timed(|| read_all(&mut socket.borrow_mut(), device)))),
            (
                OURS,
                Box::new(|| {
                    let mut restarted = full.clone();
                    timed(|| assert_eq!(restarted.converge(&mut *kernel.borrow_mut()).unwrap().steps, 0))
                }),
            ),
        ],
    );

    let (next, mut add, mut remove) = (peer(n + 1), Batch::new(), Batch::new());
    encode(&mut add, device, n + 1, true);
    encode_delete(&mut remove, device, n + 1);
    let execute = |batch: &mut Batch| assert_eq!(socket.borrow_mut().execute(batch, WINDOW).unwrap(), []);
    let flush = || assert!(overlay.borrow_mut().flush(&mut *kernel.borrow_mut()).unwrap().is_clean());
    let set = || {
        overlay.borrow_mut().set_peer(next).unwrap();
        flush();
    };
    let unset = || {
        overlay.borrow_mut().remove_peer(next.subnet);
        flush();
    };
    let after = |time: Duration, undo: &mut dyn FnMut()| {
        undo();
        time
    };
    let (mut add2, mut remove2) = (add.clone(), remove.clone());
    report.race(
        "one peer added",
        n.into(),
        1_000,
        vec![
            (FLOOR, Box::new(|| after(timed(|| execute(&mut add)), &mut || execute(&mut remove)))),
            (OURS, Box::new(|| after(timed(set), &mut || unset()))),
        ],
    );
    report.race(
        "one peer removed",
        n.into(),
        1_000,
        vec![
            (
                FLOOR,
                Box::new(|| {
                    execute(&mut add2);
                    timed(|| execute(&mut remove2))
                }),
            ),
            (
                OURS,
                Box::new(|| {
                    set();
                    timed(unset)
                }),
            ),
        ],
    );
    let burst = || {
        (n + 1..=n + 1_000).for_each(|i| overlay.borrow_mut().set_peer(peer(i)).unwrap());
        let time = timed(flush);
        (n + 1..=n + 1_000).for_each(|i| assert!(overlay.borrow_mut().remove_peer(peer(i).subnet)));
        flush();
        time
    };
    let mut bursts: Vec<f64> = (0..10).map(|_| micros(burst())).collect();
    report.figure("1000 peers added at once", OURS, n.into(), "us", &mut bursts);
    let mut deletions: Vec<f64> = (0..rounds.min(5))
        .map(|_| {
            sh("ip link del flannel.1");
            overlay.borrow_mut().distrust();
            micros(timed(flush))
        })
        .collect();
    report.figure("device deleted, all back", OURS, n.into(), "us", &mut deletions);
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Peer `i` has the `i`-th /26 of 10.0.0.0/8.
fn peer(i: u32) -> Peer {
    let subnet = IpNet::new(gateway(i).into(), 26).unwrap();
    Peer { subnet, via: Via::Tunnel { mac: mac(i), underlay: underlay(i) } }
}

fn gateway(i: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + (i << 6))
}

fn underlay(i: u32) -> IpAddr {
    Ipv4Addr::from(0xac10_0000 + i).into()
}

fn mac(i: u32) -> MacAddr {
    let [a, b, c, d] = i.to_be_bytes();
    MacAddr::new([2, 0, a, b, c, d]).unwrap()
}

fn overlay(e0: Link, n: u32) -> Overlay {
    let mtu = UnderlayMtu::new(1500).inside_vxlan(Family::V4).unwrap();
    let (local, own) = ("192.168.77.1".parse().unwrap(), "10.0.0.0".parse().unwrap());
    let device = DeviceSpec::new(Vni::new(1).unwrap(), e0, local, own, MacAddr::derived(b"bench"), mtu);
    let family = FamilySpec::new(e0, "10.0.0.0/26".parse().unwrap(), vec!["10.0.0.0/8".parse().unwrap()]);
    let mut overlay = Overlay::new([family.device(device)]);
    (1..=n).for_each(|i| overlay.set_peer(peer(i)).unwrap());
    overlay
}

/// Makes the device anew, with nothing on it; returns its index.
fn empty_device(kernel: &mut Netlink, e0: Link) -> u32 {
    sh("ip link del flannel.1 2>/dev/null || true");
    assert!(overlay(e0, 0).flush(kernel).unwrap().is_clean());
    device_index(kernel)
}

fn device_index(kernel: &mut Netlink) -> u32 {
    kernel.interfaces().unwrap().into_iter().find(|found| found.name == "flannel.1").unwrap().index
}

const PUT: Flags = Flags::CREATE.and(Flags::REPLACE);
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const NEWNEXTHOP: u16 = 104;
const DELNEXTHOP: u16 = 105;
const FIRST_NEXTHOP: u32 = 0x1000_0000;

/// The bytes for one peer: with nexthop objects as ours, or as upstream's three messages.
fn encode(batch: &mut Batch, device: u32, i: u32, nexthops: bool) {
    let [d0, d1, d2, d3] = device.to_ne_bytes();
    let IpAddr::V4(underlay) = underlay(i) else { return };
    let gateway = gateway(i).octets();
    batch.message(NEWNEIGH, PUT, &[7, 0, 0, 0, d0, d1, d2, d3, 0xc0, 0, 0x12, 0], |a| {
        a.bytes(2, &mac(i).bytes());
        a.bytes(1, &underlay.octets());
    });
    batch.message(NEWNEIGH, PUT, &[2, 0, 0, 0, d0, d1, d2, d3, 0x80, 0, 0, 0], |a| {
        a.bytes(1, &gateway);
        a.bytes(2, &mac(i).bytes());
        a.u8(12, 70);
    });
    let hop = |a: &mut Attributes<'_>, nexthop: bool| {
        a.bytes(if nexthop { 6 } else { 5 }, &gateway);
        a.u32(if nexthop { 5 } else { 4 }, device);
    };
    if nexthops {
        batch.message(NEWNEXTHOP, Flags::CREATE.and(Flags::EXCL), &[2, 0, 70, 0, 4, 0, 0, 0], |a| {
            a.u32(1, FIRST_NEXTHOP + i);
            hop(a, true);
        });
    }
    let flags = if nexthops { 0 } else { 4 };
    batch.message(
        NEWROUTE,
        Flags::CREATE.and(Flags::EXCL),
        &[2, 26, 0, 0, 254, 70, 0, 1, flags, 0, 0, 0],
        |a| {
            a.bytes(1, &gateway);
            if nexthops { a.u32(30, FIRST_NEXTHOP + i) } else { hop(a, false) }
        },
    );
}

fn encode_delete(batch: &mut Batch, device: u32, i: u32) {
    let [d0, d1, d2, d3] = device.to_ne_bytes();
    let IpAddr::V4(underlay) = underlay(i) else { return };
    let gateway = gateway(i).octets();
    batch.message(DELROUTE, Flags::NONE, &[2, 26, 0, 0, 254, 70, 255, 0, 0, 0, 0, 0], |a| {
        a.bytes(1, &gateway)
    });
    batch.message(DELNEXTHOP, Flags::NONE, &[0; 8], |a| a.u32(1, FIRST_NEXTHOP + i));
    batch.message(DELNEIGH, Flags::NONE, &[2, 0, 0, 0, d0, d1, d2, d3, 0, 0, 0, 0], |a| a.bytes(1, &gateway));
    batch.message(DELNEIGH, Flags::NONE, &[7, 0, 0, 0, d0, d1, d2, d3, 0xc0, 0, 0x12, 0], |a| {
        a.bytes(2, &mac(i).bytes());
        a.bytes(1, &underlay.octets());
    });
}

/// The listings that a look at the overlay needs, counted and forgotten.
fn read_all(socket: &mut Socket, device: u32) {
    const GETLINK: u16 = 18;
    const GETADDR: u16 = 22;
    const GETROUTE: u16 = 26;
    const GETNEIGH: u16 = 30;
    const GETNEXTHOP: u16 = 106;
    let mut list = |kind: u16, header: &[u8], by_device: bool| {
        let mut question = Batch::new();
        question.message(kind, Flags::DUMP, header, |a| {
            if by_device {
                a.u32(8, device);
            }
        });
        let _count: usize = socket
            .dump(&mut question, |count, _| {
                *count += 1;
                Ok(())
            })
            .unwrap();
    };
    list(GETLINK, &[0; 16], false);
    list(GETADDR, &[0; 8], false);
    list(GETNEIGH, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], true);
    list(GETNEIGH, &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], true);
    list(GETNEXTHOP, &[0; 8], false);
    for family in [2, 10] {
        for protocol in [70, 3] {
            list(GETROUTE, &[family, 0, 0, 0, 254, protocol, 0, 0, 0, 0, 0, 0], false);
        }
    }
}

/// What upstream does per peer, as scripts for `bridge` and `ip`.
fn scripts(n: u32) -> (String, String) {
    let (mut fdb, mut rest) = (String::new(), String::new());
    for i in 1..=n {
        let (mac, underlay, gateway) = (mac(i), underlay(i), gateway(i));
        writeln!(fdb, "fdb replace {mac} dev flannel.1 dst {underlay} self permanent").unwrap();
        writeln!(rest, "neigh replace {gateway} lladdr {mac} dev flannel.1 nud permanent").unwrap();
        writeln!(rest, "route replace {gateway}/26 via {gateway} dev flannel.1 onlink").unwrap();
    }
    (fdb, rest)
}
