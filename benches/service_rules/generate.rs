//! A ruleset with the shape of kube-proxy's nftables mode: a verdict map from service addresses to chains, and for each
//! service a chain that marks, chooses an endpoint and goes to its chain, which translates the destination.

use std::net::Ipv4Addr;

use flannel_nft::{
    Base, Chain, ChainName, Datatype, Element, Family, IpRange, Key, Mark, Nat, Rule, Set, SetName, Table,
    TableName, TablePatch, Value, Verdict, VmapKey, ip, meta, tcp,
};
use ipnet::Ipv4Net;

/// What a ruleset is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) services: u32,
    /// Endpoints of each service.
    pub(crate) endpoints: u32,
    /// Whether a service chooses its endpoint by an anonymous verdict map, as kube-proxy does, or by a rule for each.
    /// The kernel takes time quadratic in the number of sets of a table.
    pub(crate) anonymous_maps: bool,
}

impl Shape {
    pub(crate) fn table(self) -> Table {
        let chains = (0..self.services).flat_map(|service| self.service(service, 0));
        let table = Table::new(Family::Ip, TableName::new("kube-proxy").unwrap())
            .set(Set::verdict_map(services(), Datatype::Ipv4Addr).elements((0..self.services).map(element)))
            .chain(Chain::regular(mark()).rule(Rule::new().set_mark(Mark::Set(0x4000))))
            .chain(Chain::regular(chain("services")).rule(Rule::new().vmap(VmapKey::DADDR4, &services())));
        let to_services = || Rule::new().jump(&chain("services"));
        let marked = Rule::new().when(meta::mark_masked(0x4000, 0x4000));
        chains
            .fold(table, Table::chain)
            .chain(Chain::base(chain("nat-prerouting"), Base::nat_prerouting()).rule(to_services()))
            .chain(
                Chain::base(chain("nat-postrouting"), Base::nat_postrouting())
                    .rule(marked.masquerade(Nat::new().fully_random())),
            )
    }

    /// The chains of a service. Each `generation` has one endpoint that the others do not have.
    fn service(self, service: u32, generation: u32) -> Vec<Chain> {
        let name = |endpoint: u32| {
            let endpoint = if endpoint == 0 { generation + self.endpoints } else { endpoint };
            (endpoint, chain(&format!("endpoint-{service:08x}-{endpoint}")))
        };
        let choose: Vec<Rule> = if self.anonymous_maps {
            // kube-proxy's key is `numgen random mod N`, which is as much work for the kernel.
            let choices = (0..self.endpoints)
                .map(|endpoint| (Key::from(Value::mark(endpoint)), Verdict::Goto(name(endpoint).1)));
            vec![Rule::new().vmap_inline(VmapKey::MARK, choices)]
        } else {
            (0..self.endpoints)
                .map(|endpoint| Rule::new().when(meta::mark(endpoint)).goto(&name(endpoint).1))
                .collect()
        };
        let pods: Ipv4Net = "10.244.0.0/16".parse().unwrap();
        let from_outside = Rule::new().when(tcp::dport(80)).when(!ip::saddr(pods)).jump(&mark());
        let first = Chain::regular(service_chain(service)).rule(from_outside).rules(choose);
        let endpoints = (0..self.endpoints).map(|endpoint| {
            let (number, name) = name(endpoint);
            let address = Ipv4Addr::from(0x0af4_0000 + (service * 8 + number) % 0xffff);
            let hairpin = Rule::new().when(ip::saddr(Ipv4Net::from(address))).jump(&mark());
            let there = Rule::new().when(tcp::dport(80)).dnat(IpRange::from(address), Nat::new().port(8080));
            Chain::regular(name).rule(hairpin).rule(there)
        });
        std::iter::once(first).chain(endpoints).collect()
    }

    /// Replaces one endpoint of a service: its chain goes, another comes, and the service chooses among the new ones.
    pub(crate) fn replace_endpoint(self, service: u32, generation: u32) -> TablePatch {
        let gone = chain(&format!("endpoint-{service:08x}-{}", generation + self.endpoints));
        self.service(service, generation + 1)
            .into_iter()
            .fold(TablePatch::new(), TablePatch::chain)
            .without_chain(gone)
    }
}

fn chain(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

fn services() -> SetName {
    SetName::new("service-ips").unwrap()
}

fn mark() -> ChainName {
    chain("mark-for-masquerade")
}

fn service_chain(service: u32) -> ChainName {
    chain(&format!("service-{service:08x}"))
}

fn element(service: u32) -> Element {
    Element::new(Ipv4Addr::from(0x0a60_0000 + service)).verdict(Verdict::Goto(service_chain(service)))
}
