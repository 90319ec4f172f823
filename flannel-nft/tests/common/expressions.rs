//! Rules made of fields and expressions, a table for each hook that they need.

use flannel_nft::field::{self, Field};
use flannel_nft::*;

use testkit::kernel_version;

use super::vocabulary::*;
use super::*;

fn table(name: &str, base: Base, rules: impl IntoIterator<Item = Rule>) -> Table {
    Table::new(Family::Inet, TableName::new(name).unwrap()).chain(Chain::base(chain("c"), base).rules(rules))
}

fn key(address: &str, port: u16) -> Key {
    Key::concat([net4(address).into(), port.into()])
}

/// Matches and statements of filter chains.
pub(crate) fn filters() -> Table {
    let when = |condition: Match| Rule::new().when(condition).accept();
    let pair = || Expression::concat([field::ip::SADDR, field::tcp::DPORT]);
    let pairs = Datatype::concat(&[Datatype::Ipv4Addr, Datatype::InetService]);
    let recent = set("recent");
    let port = set("port");
    let mut rules = vec![
        when(field::ip::TTL.is_number(64)),
        when(!field::ip::TTL.in_range(1..=5)),
        when(field::ip::LENGTH.greater_than(1000)),
        when(field::ip::DSCP.is_number(46)),
        when(field::ip::DSCP.one_of([8, 46])),
        when(field::ip6::HOPLIMIT.less_than(5)),
        when(field::ip6::FLOWLABEL.is_number(22)),
        when(field::tcp::FLAGS.one_of([2, 16])),
        when(field::tcp::WINDOW.is_number(1024)),
        when(field::icmp::TYPE.is_number(8)),
        when(field::icmpv6::TYPE.one_of([135, 136])),
        when(field::icmp::MTU.is_number(1500)),
        when(field::meta::LENGTH.in_range(100..=200)),
        when(field::meta::MARK.in_range(1..=5)),
        when(field::meta::MARK.any_of([Key::from(Value::mark(7))])),
        when(field::meta::SKUID.greater_than(1000)),
        when(field::meta::CPU.one_of([0, 1])),
        when(field::meta::IIFTYPE.is_number(1)),
        when(field::meta::HOUR.is_number(61_200)),
        when(field::meta::MARK.or(3).is_number(7)),
        when(field::ct::BYTES.original().greater_than(100_000)),
        when(field::ct::EXPIRATION.is_number(30_000)),
        when(field::ct::ZONE.is_number(5)),
        when(field::rt::MTU.less_than(1400)),
        when(field::ipsec::REQID.is_number(17)),
        when(field::ipsec::REQID.outgoing().is_number(17)),
        when(field::tcp_option::MAXSEG_SIZE.less_than(500)),
        when(field::tcp_option::SACK_PERM.is_number(1)),
        when(Field::tcp_option(253).is_number(0)),
        when(field::exthdr::FRAG_MORE_FRAGMENTS.is_number(1)),
        when(field::ip_option::LSRR.is_number(1)),
        when(Field::raw(field::Base::Transport, 160, 32).is_number(0x0102_0304)),
        when(field::osf().is(Value::text("Linux", 16))),
        when(field::symhash(16, 0).is_number(3)),
        when(field::numgen_random(10, 0).less_than(5)),
        when(Expression::from(field::ip::SADDR).jhash(2, Some(7), 0).is_number(1)),
        when(pair().in_set(&set("pairs"))),
        when(pair().any_of([key("10.0.0.0/8", 22), key("192.168.1.1/32", 80)])),
        when(pair().any_of([key("10.0.0.1/32", 22), key("10.0.0.2/32", 80)])),
        Rule::new().set(field::ip::TTL, Value::number(1)),
        Rule::new().set(field::ip::DSCP, Value::number(8)),
        Rule::new().set(field::ip6::HOPLIMIT, Value::number(64)),
        Rule::new().set(field::tcp::DPORT, Value::port(8080)),
        Rule::new().set(field::udp::CHECKSUM, Value::number(0)),
        Rule::new().set(field::tcp_option::MAXSEG_SIZE, Value::number(1360)),
        Rule::new().set(field::meta::MARK, field::symhash(16, 0)),
        Rule::new().set(field::meta::MARK, field::ct::MARK.and(0xff)),
        Rule::new().set(
            field::meta::MARK,
            Expression::from(field::tcp::DPORT).map_inline([(22_u16, Value::mark(1)), (80, Value::mark(2))]),
        ),
        Rule::new().set(field::meta::PRIORITY, Value::number(0x1_0002)),
        Rule::new().set(field::ct::ZONE, Value::number(7)),
        Rule::new().quota(Quota::over(25 << 20)).drop(),
        Rule::new().connections_over(10).reject(Reject::PortUnreachable),
        Rule::new().update_set(
            SetUpdate::update(&recent, field::ip::SADDR).timeout(std::time::Duration::from_secs(60)),
        ),
        Rule::new()
            .update_set(
                SetUpdate::add(&recent, field::ip::SADDR).limit(Limit::packets(10, Per::Second).over()),
            )
            .drop(),
        Rule::new().update_set(SetUpdate::add(&port, field::ip::SADDR).value(field::tcp::DPORT)),
        Rule::new().synproxy(Synproxy::new().mss(1460).wscale(7).timestamp().sack_perm()),
        when(ip::saddr(v4("10.0.0.1"))).comment(Comment::new("last").unwrap()),
    ];
    if kernel_version() >= (5, 14) {
        rules.push(when(field::sctp_chunk::DATA_TSN.is_number(23)));
    }
    if kernel_version() >= (5, 18) {
        rules.push(Rule::new().reset_option(field::tcp_option::SACK_PERM));
    }
    table("filters", Base::filter_forward(), rules)
        .set(Set::new(set("pairs"), pairs).interval().elements([
            key("10.0.0.0/8", 22),
            Key::concat([net4("12.0.0.0/7").into(), (20..=30_u16).into()]),
        ]))
        .set(Set::new(recent.clone(), Datatype::Ipv4Addr).timeouts().dynamic().size(65535))
        .set(
            Set::map(port.clone(), Datatype::Ipv4Addr, Datatype::InetService)
                .timeouts()
                .dynamic()
                .size(65535),
        )
}

/// NAT to what expressions return.
pub(crate) fn translations() -> Table {
    let backends = [(0, v4("10.0.0.1")), (1, v4("10.0.0.2"))];
    let backends = backends.map(|(number, address)| (Value::number(number), address));
    let choice = Expression::from(field::numgen_inc(2, 0)).map_inline(backends);
    let endpoints = set("endpoints");
    let service = Key::concat([Value::from(v4("10.96.0.1")).into(), 80.into()]);
    let endpoint = Value::concat([v4("10.244.0.5").into(), Value::port(8080)]);
    let pairs = Datatype::concat(&[Datatype::Ipv4Addr, Datatype::InetService]);
    let by_service = Expression::concat([field::ip::DADDR, field::tcp::DPORT]).map(&endpoints);
    let rules = [
        Rule::new().dnat_to(IpVersion::V4, choice, Nat::new()),
        Rule::new().dnat_to_pair(IpVersion::V4, by_service, Nat::new()),
        Rule::new().when(tcp::dport(80)).redirect_to(
            Expression::from(field::tcp::DPORT).map_inline([(80_u16, Value::port(8080))]),
            Nat::new(),
        ),
    ];
    table("translations", Base::nat_prerouting(), rules)
        .set(Set::map(endpoints.clone(), pairs, pairs).elements([Element::new(service).value(endpoint)]))
}
