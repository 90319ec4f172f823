//! Swaps a whole ruleset for another, there and back, a thousand times, while 4 000 new connections a second leave a
//! pod; then counts how many met no rules. Needs root; leaves nothing behind.
//!
//! `sudo cargo run -p flannel-examples --example blue_green`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs;

use flannel_nft::{
    Base, Chain, ChainName, Comment, Family, Nat, Netlink, Rule, Ruleset, Table, TableId, TableName,
    Transaction, converge, ip,
};
use testkit::{Lab, NewFlows};

const SWAPS: u32 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    // A node with a pod, and a host outside that sees under whose address the pod's packets arrive.
    let mut lab = Lab::new()?;
    let mut node = lab.add_node()?;
    let subnet = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    fs::write(node.subnet_file(), subnet)?;
    let pod = node.add_pod()?;

    let mut kernel = node.namespace().enter(Netlink::open)??;
    let (blue, green) = (side("blue")?, side("green")?);
    converge(&mut kernel, &Ruleset::new().table(blue.clone()))?;
    let flows = NewFlows::start(&pod, lab.outside(), &[Lab::OUTSIDE_V4], 4_000)?;
    for _ in 0..SWAPS / 2 {
        swap(&mut kernel, blue.id(), &green)?;
        swap(&mut kernel, green.id(), &blue)?;
    }
    let report = flows.stop()?;
    let (sent, lost, leaked) = (report.sent, report.lost, report.unmasqueraded);
    println!("{SWAPS} swaps, {sent} new flows: {lost} lost, {leaked} under the pod's own address");
    if lost + leaked == 0 { Ok(()) } else { Err("there was an instant without rules".into()) }
}

/// One commit: the kernel shows every packet either all of the old table or all of the new one.
fn swap(kernel: &mut Netlink, old: &TableId, new: &Table) -> Result<(), Box<dyn Error>> {
    let mut transaction = Transaction::unchecked();
    transaction.create(new);
    transaction.delete_table(old);
    transaction.seal()?.commit(kernel)?;
    Ok(())
}

/// A ruleset of its own, under its own name.
fn side(name: &str) -> Result<Table, Box<dyn Error>> {
    let pods: ipnet::Ipv4Net = "10.244.0.0/16".parse()?;
    let leaving = Rule::new().when(ip::saddr(pods)).when(!ip::daddr(pods)).comment(Comment::new(name)?);
    let postrouting = Chain::base(ChainName::new("postrouting")?, Base::nat_postrouting())
        .rule(leaving.masquerade(Nat::new().fully_random()));
    Ok(Table::new(Family::Ip, TableName::new(name)?).chain(postrouting))
}
