//! Two hosts, made of network namespaces, whose pods reach each other through VXLAN. Needs root; leaves nothing behind.
//!
//! `sudo cargo run -p flannel-examples --example two_namespaces`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::Ipv4Addr;

use flannel_vxlan::{
    DeviceSpec, Family, FamilySpec, Kernel, Link, MacAddr, Netlink, Overlay, Peer, UnderlayMtu, Via, Vni,
    VxlanSpec,
};
use ipnet::IpNet;
use testkit::Lab;

fn main() -> Result<(), Box<dyn Error>> {
    let mut lab = Lab::new()?;
    let hosts = [lab.add_node()?, lab.add_node()?];
    let (left, right) = (hosts[0].v4(), hosts[1].v4());
    for (host, own, peer) in [(&hosts[0], (1, left), (2, right)), (&hosts[1], (2, right), (1, left))] {
        let done = host.namespace().enter(move || join(own, peer).map_err(|error| error.to_string()))??;
        println!("{}:\n{done}", host.name());
    }
    hosts[0].namespace().ping("10.244.2.0".parse()?)?;
    println!("10.244.1.0 reaches 10.244.2.0");
    Ok(())
}

/// Makes this host a node of the overlay with one peer, and returns what was done as commands. A node is its number
/// and its address on the physical network.
fn join(own: (u8, Ipv4Addr), peer: (u8, Ipv4Addr)) -> Result<String, Box<dyn Error>> {
    let mut kernel = Netlink::open()?;
    let found =
        kernel.interfaces()?.into_iter().find(|interface| interface.name == "eth0").ok_or("no eth0")?;
    let eth0 = Link { index: found.index, name: found.name.parse()? };
    let mtu = UnderlayMtu::new(found.mtu).inside_vxlan(Family::V4)?;
    let first = |n| Ipv4Addr::new(10, 244, n, 0);
    let subnet = |n| IpNet::new(first(n).into(), 24);
    let mac = |n| MacAddr::derived(&[n]);

    let vxlan = VxlanSpec::new(Vni::new(1)?, mac(own.0));
    let device = DeviceSpec::new(vxlan, eth0, own.1.into(), first(own.0).into(), mtu);
    let family = FamilySpec::new(eth0, subnet(own.0)?, vec!["10.244.0.0/16".parse()?]);
    let mut overlay = Overlay::new([family.device(device)]);
    let via = Via::Tunnel { mac: mac(peer.0), underlay: peer.1.into() };
    overlay.set_peer(Peer { subnet: subnet(peer.0)?, via })?;

    // `overlay.flush(&mut kernel)` does these three steps at once.
    let plan = overlay.diff(&kernel.observe(&overlay.links())?);
    let applied = kernel.apply(&plan)?;
    let report = overlay.settle(&plan, applied);
    report.refused.first().map_or(Ok(plan.to_string()), |refused| Err(refused.to_string().into()))
}
