//! Keeps a table as it should be: whatever others do to it is named, and undone. Until Ctrl-C.
//!
//! `sudo cargo run -p flannel-examples --example watch_and_repair`, then elsewhere `nft flush ruleset`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use flannel_nft::{
    Base, Chain, ChainName, Comment, Event, Family, Monitor, Netlink, Outcome, Rule, Ruleset, Table,
    TableName, converge, tcp,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let forward = Chain::base(ChainName::new("forward")?, Base::filter_forward())
        .rule(Rule::new().when(tcp::dport(25)).counter().drop().comment(Comment::new("no mail from pods")?));
    let table = Table::new(Family::Inet, TableName::new("guard")?).chain(forward);
    let desired = Ruleset::new().table(table);

    let mut kernel = Netlink::open()?;
    // First listen, then look: what happens in between is seen by one or the other. Our own commits are left out.
    let mut events = Monitor::open(&kernel)?.into_stream()?;
    converge(&mut kernel, &desired)?;
    println!("watching");
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        // Whatever it was, the same comparison repairs it; if it did not concern us, that costs no commit.
        if let Outcome::Changed { changes, .. } = converge(&mut kernel, &desired)? {
            match event {
                Event::Foreign(by) => {
                    println!("{changes} changes to repair what {} ({}) did", by.process, by.pid)
                }
                Event::Overflow => println!("{changes} changes to repair what too many did at once"),
            }
        }
    }
}
