//! Which chain on the forward hook drops a network, and by which rule? Changes nothing.
//!
//! `sudo cargo run -p flannel-examples --example who_drops -- 10.244.0.0/16`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use flannel_nft::{Hook, Kernel, Netlink, dropped};
use ipnet::IpNet;

fn main() -> Result<(), Box<dyn Error>> {
    let network: IpNet = std::env::args().nth(1).ok_or("usage: who_drops NETWORK")?.parse()?;
    let mut kernel = Netlink::open()?;
    let tables = kernel.tables()?;
    let observed = kernel.observe(&tables)?;
    let found = dropped(&observed.ruleset, Hook::Forward, network);
    for place in &found {
        let base = format!("chain {} {}", place.table.id(), place.base.name());
        match place.rule {
            None => println!("{base}: policy drop"),
            Some(rule) => {
                let handle = rule.handle().map_or_else(String::new, |handle| format!(" # handle {handle}"));
                println!("{base}: in {}: {rule}{handle}", place.chain.name());
                if let Some((packets, bytes)) = rule.counts() {
                    println!("  {packets} packets and {bytes} bytes so far");
                }
            }
        }
    }
    if found.is_empty() {
        println!("no chain on the forward hook drops {network}");
    }
    Ok(())
}
