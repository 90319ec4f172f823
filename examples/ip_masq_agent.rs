//! An ip-masq-agent: masquerades what leaves this host, except to the networks in a file, one CIDR a line. A change of
//! the file becomes one element more or less in a set; rules and counters stay. Until Ctrl-C.
//!
//! `sudo cargo run -p flannel-examples --example ip_masq_agent -- non-masquerade.txt`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::error::Error;
use std::fs;
use std::time::Duration;

use flannel_nft::{
    Addresses, Base, Chain, ChainName, Datatype, Family, Nat, Netlink, Rule, Ruleset, Set, SetName, Table,
    TableName, converge_with, diff, fib, ip,
};
use ipnet::Ipv4Net;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: ip_masq_agent FILE")?;
    let mut kernel = Netlink::open()?;
    // A look each second costs less than being right about every way in which files are replaced.
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = look.tick() => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        match networks(&file).and_then(|networks| rules(&networks)) {
            // This is `converge`, and prints what it does.
            Ok(desired) => {
                converge_with(&mut kernel, &desired.scope(), |observed| {
                    let changes = diff(&desired, observed);
                    print!("{changes}");
                    changes
                })?;
            }
            // What cannot be read changes nothing.
            Err(error) => eprintln!("{file}: {error}"),
        }
    }
}

/// The networks in a file; what follows a `#` is a remark.
fn networks(file: &str) -> Result<Vec<Ipv4Net>, Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let parse = |line: &str| line.parse().map_err(|error| format!("`{line}`: {error}").into());
    lines.filter(|line| !line.is_empty()).map(parse).collect()
}

fn rules(except: &[Ipv4Net]) -> Result<Ruleset, Box<dyn Error>> {
    let set = SetName::new("non-masquerade")?;
    let leaving = Rule::new().when(!fib::daddr_type([fib::AddressType::Local]));
    let postrouting = Chain::base(ChainName::new("postrouting")?, Base::nat_postrouting()).rules([
        Rule::new().when(ip::daddr(Addresses::v4_set(&set))).counter().return_(),
        leaving.counter().masquerade(Nat::new().fully_random()),
    ]);
    let elements = Ipv4Net::aggregate(&except.to_vec()); // the kernel refuses intervals that overlap
    let table = Table::new(Family::Ip, TableName::new("ip-masq-agent")?)
        .set(Set::new(set, Datatype::Ipv4Addr).interval().elements(elements))
        .chain(postrouting);
    Ok(Ruleset::new().table(table))
}
