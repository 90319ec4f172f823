//! Rulesets that several tests use.

#![allow(dead_code, reason = "each test uses some")]
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in test functions only, this is what they call"
)]

pub(crate) mod expressions;
pub(crate) mod generate;
pub(crate) mod vocabulary;

use flannel_nft::*;
use ipnet::{IpNet, Ipv4Net};

pub(crate) fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

pub(crate) fn set(name: &str) -> SetName {
    SetName::new(name).unwrap()
}

/// What flannel's iptables mode leaves behind.
pub(crate) const UPSTREAM: iptables::Leftovers<'static> = iptables::Leftovers {
    chains: &["FLANNEL-POSTRTG", "FLANNEL-FWD"],
    comments: &["flanneld masq", "flanneld forward"],
};

/// A table of family `ip`.
pub(crate) fn id(name: &str) -> TableId {
    id_in(Family::Ip, name)
}

pub(crate) fn id_in(family: Family, name: &str) -> TableId {
    TableId::new(family, TableName::new(name).unwrap())
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn net4(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

pub(crate) fn flannel_table(family: Family, name: &str, pod: &str, cluster: &str, multicast: &str) -> Table {
    let (pod, cluster, multicast) = (net(pod), net(cluster), net(multicast));
    let key = if family == Family::Ip { Datatype::Ipv4Addr } else { Datatype::Ipv6Addr };
    let excluded = set("no-masquerade");
    let in_excluded =
        if family == Family::Ip { Addresses::v4_set(&excluded) } else { Addresses::v6_set(&excluded) };
    let elements: Vec<Key> = match family {
        Family::Ip => vec![net("192.168.0.0/16").into(), net("172.16.5.0/24").into()],
        _ => vec![net("fd77::/64").into()],
    };
    Table::new(family, TableName::new(name).unwrap())
        .comment(Comment::new("rules of flannel").unwrap())
        .counter(Counter::new(CounterName::new("masqueraded").unwrap()))
        .set(Set::new(excluded, key).interval().elements(elements))
        .chain(
            Chain::base(chain("postrtg"), Base::nat_postrouting()).rules([
                Rule::new().when(meta::mark_masked(0x4000, 0x4000)).return_(),
                Rule::new().when(ip::daddr(in_excluded)).return_(),
                Rule::new().when(ip::saddr(pod)).when(ip::daddr(cluster)).return_(),
                Rule::new().when(ip::saddr(cluster)).when(ip::daddr(pod)).return_(),
                Rule::new().when(!ip::saddr(cluster)).when(ip::daddr(pod)).return_(),
                Rule::new()
                    .when(ip::saddr(cluster))
                    .when(!ip::daddr(multicast))
                    .counter_named(&CounterName::new("masqueraded").unwrap())
                    .masquerade(Nat::new().fully_random())
                    .comment(Comment::new("pods to elsewhere").unwrap()),
                Rule::new()
                    .when(!ip::saddr(cluster))
                    .when(ip::daddr(cluster))
                    .masquerade(Nat::new().fully_random()),
            ]),
        )
        .chain(Chain::base(chain("forward"), Base::filter_forward()).rules([
            Rule::new().when(ip::saddr(cluster)).counter().accept(),
            Rule::new().when(ip::daddr(cluster)).accept(),
        ]))
}

pub(crate) fn flannel() -> Ruleset {
    Ruleset::new()
        .table(flannel_table(Family::Ip, "flannel-ipv4", "10.244.1.0/24", "10.244.0.0/16", "224.0.0.0/4"))
        .table(flannel_table(
            Family::Ip6,
            "flannel-ipv6",
            "fd00:10:244:1::/64",
            "fd00:10:244::/48",
            "ff00::/8",
        ))
}
