//! Every word of the vocabulary, a table for each kind.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use flannel_nft::*;

use super::*;

pub(crate) fn name(text: &str) -> InterfaceName {
    InterfaceName::new(text).unwrap()
}

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub(crate) fn sets() -> Table {
    Table::new(Family::Ip, TableName::new("kinds").unwrap())
        .comment(Comment::new("all kinds of sets").unwrap())
        .counter(Counter::new(CounterName::new("c1").unwrap()).comment(Comment::new("one").unwrap()))
        .counter(Counter::new(CounterName::new("c2").unwrap()))
        .set(
            Set::new(set("nets"), Datatype::Ipv4Addr)
                .interval()
                .comment(Comment::new("x y").unwrap())
                .elements([net4("10.0.0.0/8"), net4("192.168.1.1/32"), net4("172.16.0.0/12")])
                .elements([
                    v4("172.32.0.3")..=v4("172.32.0.9"),
                    v4("255.255.255.250")..=v4("255.255.255.255"),
                ]),
        )
        .set(Set::new(set("marks"), Datatype::Mark).elements([Value::mark(0x4000), Value::mark(5)]))
        .set(
            Set::new(set("ports"), Datatype::InetService)
                .interval()
                .elements([80, 443, 8080, 9, 0, 65535])
                .elements([1000..=2000]),
        )
        .set(
            Set::new(set("names"), Datatype::Ifname)
                .elements([Value::from(&name("eth0")), (&name("eth1")).into()]),
        )
        .set(Set::new(set("protocols"), Datatype::InetProto).elements([Protocol::TCP, Protocol::new(200)]))
        .set(Set::new(set("macs"), Datatype::EtherAddr).elements([Value::ether([0, 1, 2, 3, 4, 0xff])]))
        .set(Set::new(set("short"), Datatype::Ipv4Addr).timeout(Duration::from_secs(3600)).size(100))
        .set(Set::new(set("dyn"), Datatype::Ipv4Addr).timeout(Duration::from_secs(90)).dynamic().size(65535))
        .set(
            Set::verdict_map(set("targets"), Datatype::Ipv4Addr).interval().elements([
                Element::new(net4("10.0.0.0/8")).verdict(Verdict::Jump(chain("sub"))),
                Element::new(net4("11.0.0.0/8"))
                    .verdict(Verdict::Accept)
                    .comment(Comment::new("eleven").unwrap()),
            ]),
        )
        .set(
            Set::map(set("backends"), Datatype::InetService, Datatype::Ipv4Addr)
                .elements([Element::new(80).value(v4("1.1.1.1")), Element::new(443).value(v4("2.2.2.2"))]),
        )
        .set(
            Set::map(set("remarks"), Datatype::Mark, Datatype::Mark)
                .elements([Element::new(Value::mark(1)).value(Value::mark(2))]),
        )
        .set(
            Set::counter_map(set("tallies"), Datatype::Ipv4Addr)
                .elements([Element::new(v4("1.1.1.1")).counter(&CounterName::new("c1").unwrap())]),
        )
        .chain(
            Chain::regular(chain("sub")).comment(Comment::new("a chain").unwrap()).rule(Rule::new().accept()),
        )
        .chain(Chain::regular(chain("main")).rules([
            Rule::new().when(ip::saddr(Addresses::v4_set(&set("nets")))).jump(&chain("sub")),
            Rule::new().when(!ip::saddr(Addresses::v4_set(&set("nets")))).goto(&chain("sub")),
            Rule::new().when(meta::mark_in(&set("marks"))).drop(),
            Rule::new().when(tcp::dport(&set("ports"))).accept(),
            Rule::new().when(meta::iifname_in(&set("names"))).accept(),
            Rule::new().vmap(VmapKey::SADDR4, &set("targets")),
            Rule::new().vmap_inline(
                VmapKey::TCP_DPORT,
                [(22, Verdict::Accept), (23, Verdict::Drop), (24, Verdict::Jump(chain("sub")))],
            ),
            Rule::new().counter_named(&CounterName::new("c2").unwrap()).return_(),
        ]))
}

pub(crate) fn matches() -> Table {
    use ct::{Direction, State, Status};
    use fib::AddressType;
    let when = |condition: Match| Rule::new().when(condition).accept();
    Table::new(Family::Inet, TableName::new("matches").unwrap()).chain(
        Chain::base(
            chain("input"),
            Base::new(ChainKind::Filter, Hook::Input, Priority::new(-5)).policy(Policy::Drop),
        )
        .rules([
            when(ip::saddr(net4("10.1.2.0/24"))),
            when(!ip::saddr(net4("10.1.2.0/23"))),
            when(ip::daddr(v4("1.2.3.4"))),
            when(ip::daddr(net("0.0.0.0/0"))),
            when(!ip::daddr(v4("1.1.1.1")..=v4("2.2.2.2"))),
            when(ip::daddr(v4("1.1.1.1")..=v4("2.2.2.2"))),
            when(ip::saddr(Addresses::v4([net4("10.0.0.0/8"), net4("192.168.1.1/32")]))),
            when(!ip::saddr(net("fe80::/10"))),
            when(ip::saddr(net("fd00:1::/64"))),
            when(ip::saddr(v6("::1"))),
            when(ip::daddr(v6("fd00::1")..=v6("fd00::9"))),
            when(ip::protocol(Protocol::TCP)),
            when(meta::nfproto(IpVersion::V4)),
            when(!meta::nfproto(IpVersion::V6)),
            when(meta::l4proto(Protocol::GRE)),
            when(!meta::l4proto(Protocol::new(200))),
            when(meta::l4proto_in([Protocol::TCP, Protocol::UDP])),
            when(tcp::dport(80)),
            when(!tcp::dport(80)),
            when(tcp::sport(1000..=2000)),
            when(!tcp::sport(1000..=2000)),
            when(tcp::dport([80, 443])),
            when(udp::dport(53)),
            when(sctp::dport(5)),
            when(th::dport([53, 80])),
            when(meta::mark(0x4000)),
            when(!meta::mark(0x4000)),
            when(meta::mark_masked(0x4000, 0x4000)),
            when(!meta::mark_masked(1, 0xff)),
            when(meta::iifname(&name("eth0"))),
            when(!meta::iifname(&name("veth*"))),
            when(meta::oifname(&name("flannel.1"))),
            when(meta::iif(77)),
            when(!meta::oif(78)),
            when(meta::pkttype(meta::PacketType::Host)),
            when(!meta::pkttype(meta::PacketType::Multicast)),
            when(ct::state([State::Established, State::Related])),
            when(ct::state([State::Invalid])),
            when(!ct::state([State::New])),
            when(ct::status([Status::Dnat])),
            when(!ct::status([Status::Snat])),
            when(ct::direction(Direction::Reply)),
            when(ct::mark(1)),
            when(ct::mark_masked(0x10, 0xf0)),
            when(fib::saddr_type([AddressType::Local])),
            when(fib::daddr_type([AddressType::Local, AddressType::Broadcast])),
            when(tcp::syn()),
            Rule::new().when(ip::saddr(net4("10.0.0.0/8"))).when(tcp::dport(80)).when(tcp::syn()).accept(),
            Rule::new().when(meta::l4proto(Protocol::UDP)).when(ip::saddr(net4("10.0.0.0/8"))).accept(),
            Rule::new().when(ip::saddr(net("fe80::/64"))).when(ip::daddr(net("fd00::/8"))).accept(),
        ]),
    )
}

pub(crate) fn statements() -> Table {
    let log = Log::new();
    Table::new(Family::Ip, TableName::new("statements").unwrap())
        .chain(
            Chain::base(chain("pre"), Base::new(ChainKind::Filter, Hook::Prerouting, Priority::RAW)).rules([
                Rule::new().notrack(),
                Rule::new().log(log.clone()),
                Rule::new().log(log.clone().prefix(LogPrefix::new("abc: ").unwrap()).level(7)),
                Rule::new().log(log.group(2)),
                Rule::new().limit(Limit::packets(10, Per::Second).burst(7)).accept(),
                Rule::new().limit(Limit::bytes(10 << 20, Per::Minute).burst(5 << 10).over()).drop(),
                Rule::new().limit(Limit::packets(400, Per::Minute)),
                Rule::new().counter().comment(Comment::new("counted").unwrap()),
                Rule::new().set_mark(Mark::To(1)),
                Rule::new().set_mark(Mark::Set(0x4000)),
                Rule::new().set_mark(Mark::Clear(0x4000)),
                Rule::new().set_mark(Mark::Copy { mask: u32::MAX }),
                Rule::new().set_mark(Mark::Copy { mask: 0xff }),
                Rule::new().set_ct_mark(Mark::To(1)),
                Rule::new().set_ct_mark(Mark::Set(0x10)),
                Rule::new().set_ct_mark(Mark::Copy { mask: u32::MAX }),
            ]),
        )
        .chain(Chain::base(chain("forward"), Base::filter_forward()).rules([
            Rule::new().clamp_mss(),
            Rule::new().when(ip::saddr(v4("1.1.1.1"))).reject(Reject::PortUnreachable),
            Rule::new().reject(Reject::HostUnreachable),
            Rule::new().reject(Reject::AdminProhibited),
            Rule::new().reject(Reject::TcpReset),
            Rule::new().verdict(Verdict::Continue),
            Rule::new().drop(),
        ]))
        .chain(
            Chain::base(chain("post"), Base::nat_postrouting()).rules([
                Rule::new().masquerade(Nat::new()),
                Rule::new().masquerade(Nat::new().random().persistent()),
                Rule::new().when(meta::l4proto(Protocol::TCP)).masquerade(Nat::new().ports(1024..=2048)),
                Rule::new().when(tcp::dport(80)).snat(v4("1.2.3.4"), Nat::new()),
                Rule::new()
                    .when(udp::sport(9))
                    .snat(v4("1.2.3.4")..=v4("1.2.3.9"), Nat::new().ports(100..=200).random().persistent()),
            ]),
        )
        .chain(Chain::base(chain("dnats"), Base::nat_prerouting()).rules([
            Rule::new().when(ip::protocol(Protocol::TCP)).dnat(v4("1.1.1.1"), Nat::new().port(80)),
            Rule::new().when(udp::dport(3)).redirect(Nat::new().port(80)),
            Rule::new().when(tcp::dport(1)).redirect(Nat::new().ports(80..=90).random()),
            Rule::new().redirect(Nat::new()),
        ]))
        .chain(Chain::base(chain("routes"), Base::new(ChainKind::Route, Hook::Output, Priority::new(-145))))
}

pub(crate) fn statements6() -> Table {
    Table::new(Family::Ip6, TableName::new("statements6").unwrap())
        .chain(Chain::base(chain("post"), Base::nat_postrouting()).rules([
            Rule::new().when(ip::saddr(net("fd00::/8"))).masquerade(Nat::new().fully_random()),
            Rule::new().when(tcp::dport(80)).snat(v6("fe80::1"), Nat::new().ports(100..=200)),
        ]))
        .chain(
            Chain::base(chain("forward"), Base::filter_forward())
                .rules([Rule::new().reject(Reject::AdminProhibited)]),
        )
}
