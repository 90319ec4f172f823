//! What packets of pods meet while upstream's iptables mode is taken over, looked at after every commit.

use flannel_nft::iptables::forward_drops;
use flannel_nft::{
    Base, Chain, ChainName, Comment, Nat, Policy, Rule, Ruleset, Table, TableName, converge, ip, meta,
};

use super::*;

fn chain_name(name: &str) -> ChainName {
    ChainName::new(name).unwrap()
}

/// As `golden/upstream/iptables.rules`, on a host whose FORWARD chain drops what it does not know.
fn left_by_upstream() -> Ruleset {
    let comment = |text| Comment::new(text).unwrap();
    let (cluster, pods) = ("10.244.0.0/16".parse::<IpNet>().unwrap(), IpNet::from(subnet(1)));
    let jump = |to, text| Rule::new().counter().jump(&chain_name(to)).comment(comment(text));
    let accept =
        |condition| Rule::new().when(condition).counter().accept().comment(comment("flanneld forward"));
    let masq = |rule: Rule| rule.comment(comment("flanneld masq"));
    let filter = Table::new(flannel_nft::Family::Ip, TableName::new("filter").unwrap())
        .chain(
            Chain::base(chain_name("FORWARD"), Base::filter_forward().policy(Policy::Drop))
                .rule(jump("FLANNEL-FWD", "flanneld forward")),
        )
        .chain(
            Chain::regular(chain_name("FLANNEL-FWD"))
                .rule(accept(ip::saddr(cluster)))
                .rule(accept(ip::daddr(cluster))),
        );
    let nat = Table::new(flannel_nft::Family::Ip, TableName::new("nat").unwrap())
        .chain(
            Chain::base(chain_name("POSTROUTING"), Base::nat_postrouting())
                .rule(jump("FLANNEL-POSTRTG", "flanneld masq")),
        )
        .chain(
            Chain::regular(chain_name("FLANNEL-POSTRTG"))
                .rule(masq(Rule::new().when(meta::mark_masked(0x4000, 0x4000)).return_()))
                .rule(masq(Rule::new().when(ip::saddr(pods)).when(ip::daddr(cluster)).return_()))
                .rule(masq(Rule::new().when(ip::saddr(cluster)).masquerade(Nat::new().fully_random()))),
        );
    Ruleset::new().table(filter).table(nat)
}

/// Why packets of pods would be dropped, or leave under their own address, with these tables.
fn harms(state: &Ruleset) -> Vec<String> {
    let networks = ["10.244.0.0/16".parse().unwrap()];
    let mark = Comment::new("flanneld accept").unwrap();
    let mut harms: Vec<String> =
        forward_drops(state, &[], &mark, &networks).iter().map(ToString::to_string).collect();
    let has = |chain: &str, text: &str| {
        let mut rules =
            state.tables().iter().flat_map(Table::chains).filter(|found| found.name().as_str() == chain);
        rules.any(|found| found.list().iter().any(|rule| rule.to_string().contains(text)))
    };
    let theirs = has("POSTROUTING", "jump FLANNEL-POSTRTG") && has("FLANNEL-POSTRTG", "masquerade");
    if !theirs && !has("postrtg", "masquerade") {
        harms.push("nothing masquerades".to_owned());
    }
    harms
}

#[tokio::test(start_paused = true)]
async fn no_commit_of_a_swap_from_iptables_mode_lets_a_packet_be_dropped_or_unmasqueraded() {
    let rules = Shared::<FakeNft>::default();
    rules.with(|kernel| converge(kernel, &left_by_upstream()).map(drop)).unwrap();
    let links = Shared::new(fake_links());
    let mut node = Node::start_after(None, None, links, rules.clone());
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    sleep(Duration::from_secs(60)).await;

    let states = rules.states();
    assert!(!states.is_empty());
    for (number, state) in states.iter().enumerate() {
        assert_eq!(harms(state), [""; 0], "after commit {number}:\n{state}");
    }
    let last = states.last().unwrap().to_string();
    assert!(!last.contains("FLANNEL-") && last.matches("flanneld accept").count() == 2, "{last}");
}
