//! Limits new connections of each client to a port: rules fill a set of clients, each with a rate of its own, and the
//! kernel forgets clients after a minute.
//!
//! `sudo cargo run -p flannel-examples --example rate_limit -- 22 5`: at most 5 per minute and client.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use flannel_nft::{
    Base, Chain, ChainKind, ChainName, Datatype, Family, Hook, Limit, Netlink, Per, Priority, Rule, Ruleset,
    Set, SetName, SetUpdate, Table, TableName, converge, ct, field, tcp,
};

const FORGET_AFTER: Duration = Duration::from_secs(60);
const MAX_CLIENTS: u32 = 65_536;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(rate)) = (arguments.next(), arguments.next()) else {
        return Err("usage: rate_limit PORT CONNECTIONS-PER-MINUTE".into());
    };
    let desired = Ruleset::new().table(table(port.parse()?, rate.parse()?)?);
    let mut kernel = Netlink::open()?;
    println!("{:?}", converge(&mut kernel, &desired)?);
    Ok(())
}

fn table(port: u16, rate: u32) -> Result<Table, Box<dyn Error>> {
    let input = Base::new(ChainKind::Filter, Hook::Input, Priority::FILTER);
    let mut chain = Chain::base(ChainName::new("input")?, input);
    let mut table = Table::new(Family::Inet, TableName::new("rate-limit")?);
    for (name, datatype, client) in [
        ("clients4", Datatype::Ipv4Addr, field::ip::SADDR),
        ("clients6", Datatype::Ipv6Addr, field::ip6::SADDR),
    ] {
        let clients = SetName::new(name)?;
        let limit = Limit::packets(rate.into(), Per::Minute).burst(rate).over();
        // The rule goes on only for clients that are over their rate.
        chain = chain.rule(
            Rule::new()
                .when(tcp::dport(port))
                .when(ct::state([ct::State::New]))
                .update_set(SetUpdate::update(&clients, client).limit(limit))
                .counter()
                .drop(),
        );
        table = table.set(Set::new(clients, datatype).dynamic().timeout(FORGET_AFTER).size(MAX_CLIENTS));
    }
    Ok(table.chain(chain))
}
