//! What the kernel is told and asked for peers, encoded by hand: the floor, and what others do.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use flannel_netlink::{Attributes, Batch, Flags, Socket};
use flannel_vxlan::{MacAddr, Peer, Via};
use ipnet::IpNet;

/// Peer `i` has the `i`-th /26 of 10.0.0.0/8.
pub(crate) fn peer(i: u32) -> Peer {
    let subnet = IpNet::new(gateway(i).into(), 26).unwrap();
    Peer { subnet, via: Via::Tunnel { mac: mac(i), underlay: underlay(i) } }
}

fn gateway(i: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + (i << 6))
}

fn underlay(i: u32) -> IpAddr {
    Ipv4Addr::from(0xac10_0000 + i).into()
}

/// In no order, as those of real nodes.
fn mac(i: u32) -> MacAddr {
    let [a, b, c, d] = i.wrapping_mul(0x9e37_79b1).to_be_bytes();
    MacAddr::new([2, 0, a, b, c, d]).unwrap()
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
pub(crate) fn encode(batch: &mut Batch, device: u32, i: u32, nexthops: bool) {
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

pub(crate) fn encode_delete(batch: &mut Batch, device: u32, i: u32) {
    let [d0, d1, d2, d3] = device.to_ne_bytes();
    let IpAddr::V4(underlay) = underlay(i) else { return };
    let gateway = gateway(i).octets();
    encode_delete_route(batch, i);
    batch.message(DELNEXTHOP, Flags::NONE, &[0; 8], |a| a.u32(1, FIRST_NEXTHOP + i));
    batch.message(DELNEIGH, Flags::NONE, &[2, 0, 0, 0, d0, d1, d2, d3, 0, 0, 0, 0], |a| a.bytes(1, &gateway));
    batch.message(DELNEIGH, Flags::NONE, &[7, 0, 0, 0, d0, d1, d2, d3, 0xc0, 0, 0x12, 0], |a| {
        a.bytes(2, &mac(i).bytes());
        a.bytes(1, &underlay.octets());
    });
}

pub(crate) fn encode_delete_route(batch: &mut Batch, i: u32) {
    batch.message(DELROUTE, Flags::NONE, &[2, 26, 0, 0, 254, 70, 255, 0, 0, 0, 0, 0], |a| {
        a.bytes(1, &gateway(i).octets())
    });
}

/// The listings that a look at the overlay needs, counted and forgotten.
pub(crate) fn read_all(socket: &mut Socket, device: u32) {
    const GETLINK: u16 = 18;
    const GETADDR: u16 = 22;
    const GETROUTE: u16 = 26;
    const GETNEIGH: u16 = 30;
    const GETNEXTHOP: u16 = 106;
    const SKIP_STATS: (u16, u32) = (29, 8);
    let on_device = (8, device);
    let mut list = |kind: u16, header: &[u8], filter: Option<(u16, u32)>| {
        let mut question = Batch::new();
        question.message(kind, Flags::DUMP, header, |a| {
            if let Some((kind, value)) = filter {
                a.u32(kind, value);
            }
        });
        let _count: usize = socket
            .dump(&mut question, |count, _| {
                *count += 1;
                Ok(())
            })
            .unwrap();
    };
    list(GETLINK, &[0; 16], Some(SKIP_STATS));
    list(GETADDR, &[0; 8], None);
    list(GETNEIGH, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(on_device));
    list(GETNEIGH, &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(on_device));
    list(GETNEXTHOP, &[0; 8], None);
    for family in [2, 10] {
        list(GETROUTE, &[family, 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0], None);
    }
}

/// What upstream does per peer, as scripts for `bridge` and `ip`.
pub(crate) fn scripts(n: u32) -> (String, String) {
    let (mut fdb, mut rest) = (String::new(), String::new());
    for i in 1..=n {
        let (mac, underlay, gateway) = (mac(i), underlay(i), gateway(i));
        writeln!(fdb, "fdb replace {mac} dev flannel.1 dst {underlay} self permanent").unwrap();
        writeln!(rest, "neigh replace {gateway} lladdr {mac} dev flannel.1 nud permanent").unwrap();
        writeln!(rest, "route replace {gateway}/26 via {gateway} dev flannel.1 onlink").unwrap();
    }
    (fdb, rest)
}
