//! What it would take to make this host a node of an overlay with one peer, as `ip` and `bridge` commands. Changes
//! nothing, and needs no privileges.
//!
//! `cargo run -p flannel-examples --example dry_run`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use flannel_vxlan::{
    DeviceSpec, Family, FamilySpec, Kernel, Link, MacAddr, Netlink, Overlay, Peer, UnderlayMtu, Via, Vni,
    VxlanSpec,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut kernel = Netlink::open()?;
    let fit = |address: &flannel_vxlan::InterfaceAddress| {
        address.address.is_ipv4() && !address.address.is_loopback()
    };
    let interfaces = kernel.interfaces()?;
    let found = interfaces
        .iter()
        .find_map(|interface| Some((interface, interface.addresses.iter().copied().find(fit)?)));
    let (interface, local) = found.ok_or("no interface of this host has an IPv4 address")?;

    let underlay = Link { index: interface.index, name: interface.name.parse()? };
    let mtu = UnderlayMtu::new(interface.mtu).inside_vxlan(Family::V4)?;
    let vxlan = VxlanSpec::new(Vni::new(1)?, MacAddr::derived(interface.name.as_bytes()));
    let device = DeviceSpec::new(vxlan, underlay, local.address, "10.244.1.0".parse()?, mtu);
    let family = FamilySpec::new(underlay, "10.244.1.0/24".parse()?, vec!["10.244.0.0/16".parse()?]);
    let mut overlay = Overlay::new([family.device(device)]);
    let via = Via::Tunnel { mac: MacAddr::derived(b"peer"), underlay: "198.51.100.2".parse()? };
    overlay.set_peer(Peer { subnet: "10.244.2.0/24".parse()?, via })?;

    print!("{}", overlay.diff(&kernel.observe(&overlay.links())?));
    Ok(())
}
