//! A load balancer: new connections to a service address take turns between backends, in a verdict map that `numgen`
//! chooses from. Run it again with other backends: chains of backends that stay keep their counters, and connections
//! go on.
//!
//! `sudo cargo run -p flannel-examples --example load_balancer -- 192.0.2.10:80 10.244.1.2:8080 10.244.1.3:8080`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::SocketAddrV4;

use flannel_nft::{
    Base, Chain, ChainKind, ChainName, Family, Hook, Nat, Netlink, Priority, Rule, Ruleset, Table, TableName,
    Value, Verdict, converge_with, diff, field, ip, tcp,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let service: SocketAddrV4 = arguments.next().ok_or("usage: load_balancer SERVICE BACKEND...")?.parse()?;
    let backends: Vec<SocketAddrV4> = arguments.map(|text| text.parse()).collect::<Result<_, _>>()?;
    let desired = Ruleset::new().table(table(service, &backends)?);
    let mut kernel = Netlink::open()?;
    // This is `converge`, and prints what it does.
    converge_with(&mut kernel, &desired.scope(), |observed| {
        let changes = diff(&desired, observed);
        print!("{changes}");
        changes
    })?;
    Ok(())
}

fn table(service: SocketAddrV4, backends: &[SocketAddrV4]) -> Result<Table, Box<dyn Error>> {
    let mut table = Table::new(Family::Ip, TableName::new("load-balancer")?);
    let mut turns = Vec::new();
    for (number, backend) in (0..).zip(backends) {
        // A chain for each backend counts its connections.
        let name = ChainName::new(&format!("backend-{}-{}", backend.ip(), backend.port()))?;
        let to = Rule::new().when(tcp::dport(service.port())).counter();
        table = table.chain(
            Chain::regular(name.clone()).rule(to.dnat(*backend.ip(), Nat::new().port(backend.port()))),
        );
        turns.push((Value::number(number), Verdict::Goto(name)));
    }
    let to_service = Rule::new().when(ip::daddr(*service.ip())).when(tcp::dport(service.port()));
    let rule = match u32::try_from(turns.len())? {
        0 => to_service.counter(),
        count => to_service.vmap_inline(field::numgen_inc(count, 0), turns),
    };
    // Connections of other hosts, and of this host.
    let output = Base::new(ChainKind::Nat, Hook::Output, Priority::DSTNAT);
    Ok(table
        .chain(Chain::base(ChainName::new("prerouting")?, Base::nat_prerouting()).rule(rule.clone()))
        .chain(Chain::base(ChainName::new("output")?, output).rule(rule)))
}
