//! What it would take to make this host's table as wanted, as a script for `nft -f`. Changes nothing.
//!
//! `sudo cargo run -p flannel-examples --example dry_run_rules` (reading the rules needs root, too)
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use flannel_nft::{
    Base, Chain, ChainName, Family, Netlink, Policy, Rule, Ruleset, Table, TableName, ct, diff, meta,
    observe, tcp,
};

fn main() -> Result<(), Box<dyn Error>> {
    let base = Base::filter_forward().policy(Policy::Drop);
    let forward = Chain::base(ChainName::new("forward")?, base).rules([
        Rule::new().when(ct::state([ct::State::Established, ct::State::Related])).accept(),
        Rule::new().when(meta::iifname(&"eth0".parse()?)).when(tcp::dport([80, 443])).accept(),
        Rule::new().counter().drop(),
    ]);
    let table = Table::new(Family::Inet, TableName::new("web")?).chain(forward);
    let desired = Ruleset::new().table(table);

    let observed = observe(&mut Netlink::open()?, &desired.scope())?;
    let transaction = diff(&desired, &observed);
    println!("# {} changes to generation {}", transaction.len(), observed.generation);
    print!("{transaction}");
    drop(transaction.seal()?); // an error shows here already, not only at the commit
    Ok(())
}
