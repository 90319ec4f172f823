//! Which chain on the forward hook drops a network, and by which rule? And which rules drop some of its packets? Changes
//! nothing.
//!
//! `sudo cargo run -p flannel-examples --example who_drops -- 10.244.0.0/16`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use flannel_nft::{Chain, Hook, Kernel, Netlink, Rule, StatementView, Verdict, dropped, field};
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
                println!("{base}: in {}: {}", place.chain.name(), listed(rule));
                if let Some((packets, bytes)) = rule.counts() {
                    println!("  {packets} packets and {bytes} bytes so far");
                }
            }
        }
    }
    if found.is_empty() {
        println!("no chain on the forward hook drops {network}");
    }
    for table in observed.ruleset.tables() {
        let forward = |chain: &&Chain| chain.hooked().is_some_and(|base| base.hook() == Hook::Forward);
        for chain in table.chains().iter().filter(forward) {
            let is_found = |rule: &Rule| {
                found.iter().any(|place| place.rule.is_some_and(|found| std::ptr::eq(found, rule)))
            };
            for rule in chain.list().iter().filter(|rule| drops_some(rule, network) && !is_found(rule)) {
                println!("chain {} {} drops some of its packets: {}", table.id(), chain.name(), listed(rule));
            }
        }
    }
    Ok(())
}

fn listed(rule: &Rule) -> String {
    let handle = rule.handle().map_or_else(String::new, |handle| format!(" # handle {handle}"));
    format!("{rule}{handle}")
}

/// Whether the rule drops packets, and compares the source or destination with a part of the network or with a larger one.
fn drops_some(rule: &Rule, network: IpNet) -> bool {
    let addresses = [field::ip::SADDR, field::ip::DADDR, field::ip6::SADDR, field::ip6::DADDR];
    let (mut drops, mut is_about) = (false, false);
    for statement in rule.statements() {
        match statement {
            StatementView::Match(condition)
                if condition.field().is_some_and(|field| addresses.contains(&field)) =>
            {
                let compared = condition.comparison().network();
                is_about |=
                    compared.is_some_and(|other| other.contains(&network) || network.contains(&other));
            }
            StatementView::Verdict(Verdict::Drop) | StatementView::Reject(_) => drops = true,
            _ => {}
        }
    }
    drops && is_about
}
