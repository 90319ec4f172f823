//! Publishes ports of containers on the addresses of this host, as `docker run -p` and `podman run -p` do: one map from
//! ports to containers. Run it again with other ports: the difference is elements of the map, the rules stay.
//!
//! `sudo cargo run -p flannel-examples --example publish_ports -- 8080:10.244.1.2:80 8081:10.244.1.3:80`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::Ipv4Addr;

use flannel_nft::{
    Base, Chain, ChainKind, ChainName, Datatype, Element, Family, Hook, IpVersion, Nat, Netlink, Priority,
    Rule, Ruleset, Set, SetName, Table, TableName, Value, converge_with, diff, fib, field, ip,
};

fn main() -> Result<(), Box<dyn Error>> {
    let ports = std::env::args().skip(1).map(|port| element(&port)).collect::<Result<Vec<Element>, _>>()?;
    let desired = Ruleset::new().table(table(ports)?);
    let mut kernel = Netlink::open()?;
    // This is `converge`, and prints what it does.
    converge_with(&mut kernel, &desired.scope(), |observed| {
        let changes = diff(&desired, observed);
        print!("{changes}");
        changes
    })?;
    Ok(())
}

/// `HOST-PORT:CONTAINER:PORT`
fn element(text: &str) -> Result<Element, Box<dyn Error>> {
    let mut parts = text.split(':');
    let (Some(port), Some(container), Some(to), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(format!("`{text}` is not HOST-PORT:CONTAINER:PORT").into());
    };
    let container: Ipv4Addr = container.parse()?;
    Ok(Element::new(Value::port(port.parse()?))
        .value(Value::concat([container.into(), Value::port(to.parse()?)])))
}

fn table(ports: Vec<Element>) -> Result<Table, Box<dyn Error>> {
    let published = SetName::new("published")?;
    let container = Datatype::concat(&[Datatype::Ipv4Addr, Datatype::InetService]);
    // To any address of this host but 127.0.0.1, from which packets do not leave it. A port that is not in the map
    // does not match.
    let loopback = "127.0.0.0/8".parse::<ipnet::Ipv4Net>()?;
    let to_host = Rule::new().when(fib::daddr_type([fib::AddressType::Local])).when(!ip::daddr(loopback));
    let translate = to_host.dnat_to_pair(IpVersion::V4, field::tcp::DPORT.map(&published), Nat::new());
    let output = Base::new(ChainKind::Nat, Hook::Output, Priority::DSTNAT);
    Ok(Table::new(Family::Ip, TableName::new("published-ports")?)
        .set(Set::map(published, Datatype::InetService, container).elements(ports))
        .chain(Chain::base(ChainName::new("prerouting")?, Base::nat_prerouting()).rule(translate.clone()))
        .chain(Chain::base(ChainName::new("output")?, output).rule(translate)))
}
