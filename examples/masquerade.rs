//! Masquerades what leaves a subnet for elsewhere, and says what that took. Run it twice: the second time does nothing.
//!
//! `sudo cargo run -p flannel-examples --example masquerade -- 10.244.0.0/16`, then `nft list table ip pods`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use flannel_nft::{
    Base, Chain, ChainName, Family, Nat, Netlink, Outcome, Rule, Ruleset, Table, TableName, converge, ip,
};
use ipnet::Ipv4Net;

fn main() -> Result<(), Box<dyn Error>> {
    let subnet: Ipv4Net = std::env::args().nth(1).ok_or("usage: masquerade SUBNET")?.parse()?;
    let leaving = Rule::new().when(ip::saddr(subnet)).when(!ip::daddr(subnet));
    let postrouting = Chain::base(ChainName::new("postrouting")?, Base::nat_postrouting())
        .rule(leaving.masquerade(Nat::new().fully_random()));
    let table = Table::new(Family::Ip, TableName::new("pods")?).chain(postrouting);

    let mut kernel = Netlink::open()?;
    match converge(&mut kernel, &Ruleset::new().table(table))? {
        Outcome::Changed { changes, generation } => {
            println!("{changes} changes in one commit, generation {generation}");
        }
        Outcome::Unchanged { generation } => println!("as it should be at generation {generation}"),
    }
    Ok(())
}
