//! A firewall of the host that lives next to Docker's rules: a table of its own, which closes the host's ports except
//! some. Rules of Docker, of iptables and of other programs stay as they are, and published ports of containers stay
//! open: their packets are forwarded, and this table looks at the host's own packets only.
//!
//! `sudo cargo run -p flannel-examples --example host_firewall -- 22 443`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use flannel_nft::{
    Base, Chain, ChainKind, ChainName, Comment, Datatype, Family, Hook, InterfaceName, Netlink, Policy,
    Priority, Protocol, Rule, Ruleset, Set, SetName, Table, TableName, converge, ct, meta, tcp,
};

fn main() -> Result<(), Box<dyn Error>> {
    let ports: Vec<u16> = std::env::args().skip(1).map(|port| port.parse()).collect::<Result<_, _>>()?;
    let mut kernel = Netlink::open()?;
    println!("{:?}", converge(&mut kernel, &Ruleset::new().table(table(&ports)?))?);
    Ok(())
}

fn table(ports: &[u16]) -> Result<Table, Box<dyn Error>> {
    use ct::State::{Established, Invalid, Related};
    let open = SetName::new("open-ports")?;
    // After the chains of other programs with priority `filter`.
    let input = Base::new(ChainKind::Filter, Hook::Input, Priority::new(10)).policy(Policy::Drop);
    let input = Chain::base(ChainName::new("input")?, input).rules([
        Rule::new().when(ct::state([Established, Related])).accept(),
        Rule::new().when(ct::state([Invalid])).drop(),
        Rule::new().when(meta::iifname(&InterfaceName::new("lo")?)).accept(),
        Rule::new().when(meta::l4proto_in([Protocol::ICMP, Protocol::ICMPV6])).accept(),
        Rule::new().when(tcp::dport(&open)).accept().comment(Comment::new("open ports")?),
    ]);
    Ok(Table::new(Family::Inet, TableName::new("host-firewall")?)
        .set(Set::new(open, Datatype::InetService).elements(ports.iter().copied()))
        .chain(input))
}
