//! Encodes steps and requests as rtnetlink messages.

use std::net::IpAddr;

use flannel_netlink::{Attributes, Batch, Flags};
use ipnet::IpNet;

use crate::model::device::{DeviceKind, DeviceSpec};
use crate::model::family::{Family, PerFamily};
use crate::model::if_name::IfName;
use crate::model::ipip::IpipSpec;
use crate::model::objects::{FdbEntry, Neighbor, Nexthop, ROUTE_PROTOCOL, Route, RouteTo};
use crate::model::vni::Vni;
use crate::model::vxlan::VxlanSpec;
use crate::plan::step::{DEFAULT_AGEING_SECONDS, DeviceStep, Step};
use crate::wire::address_family;
use crate::wire::uapi::*;

const PUT: Flags = Flags::CREATE.and(Flags::REPLACE);
const ADD: Flags = Flags::CREATE.and(Flags::EXCL);

/// Length of `struct ndmsg`.
pub(crate) const NDMSG_LEN: u8 = 12;
/// `struct ifaddrmsg` without a filter.
pub(crate) const IFADDRMSG_ANY: [u8; 8] = [0; 8];
/// `struct nhmsg` without a filter.
pub(crate) const NHMSG_ANY: [u8; 8] = [0; 8];

/// Indexes of the interfaces of one family; 0 for an interface that does not exist.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Indexes {
    pub(crate) device: u32,
    pub(crate) underlay: u32,
}

/// Appends a step that does not change a device.
pub(crate) fn step(batch: &mut Batch, step: &Step, links: &PerFamily<Indexes>) {
    match step {
        Step::Device(..) => {}
        Step::PutFdbEntry(entry) => fdb_entry(batch, RTM_NEWNEIGH, PUT, entry, links[entry.family].device),
        Step::DeleteFdbEntry(entry) => {
            fdb_entry(batch, RTM_DELNEIGH, Flags::NONE, entry, links[entry.family].device);
        }
        Step::PutNeighbor(entry) => put_neighbor(batch, entry, links[Family::of(entry.address)].device),
        Step::DeleteNeighbor { address } => {
            let family = Family::of(*address);
            let header = ndmsg(address_family(family), links[family].device, 0, 0);
            batch.message(RTM_DELNEIGH, Flags::NONE, &header, |a| put_address(a, NDA_DST, *address));
        }
        Step::PutNexthop { nexthop: entry, replace } => {
            nexthop(batch, if *replace { PUT } else { ADD }, entry, links[Family::V4].device);
        }
        Step::DeleteNexthop { id } => {
            batch.message(RTM_DELNEXTHOP, Flags::NONE, &NHMSG_ANY, |a| a.u32(NHA_ID, *id));
        }
        Step::PutRoute { route, replace } => {
            let flags = if *replace { PUT } else { ADD };
            put_route(batch, flags, route, links[Family::of_net(route.subnet)]);
        }
        // Over generic netlink: see `wire::wireguard`.
        Step::PutWireguardPeer(..) | Step::DeleteWireguardPeer(..) => {}
        Step::DeleteRoute { subnet, metric, protocol } => {
            let header = rtmsg(*subnet, *protocol, RT_SCOPE_NOWHERE, RTN_UNSPEC, 0);
            batch.message(RTM_DELROUTE, Flags::NONE, &header, |a| {
                put_address(a, RTA_DST, subnet.network());
                a.u32(RTA_PRIORITY, *metric);
            });
        }
    }
}

fn fdb_entry(batch: &mut Batch, kind: u16, flags: Flags, entry: &FdbEntry, device: u32) {
    let header = ndmsg(AF_BRIDGE, device, NUD_NOARP | NUD_PERMANENT, NTF_SELF | NTF_EXT_LEARNED);
    batch.message(kind, flags, &header, |a| {
        a.bytes(NDA_LLADDR, &entry.mac.bytes());
        put_address(a, NDA_DST, entry.underlay);
    });
}

fn put_neighbor(batch: &mut Batch, entry: &Neighbor, device: u32) {
    let header = ndmsg(address_family(Family::of(entry.address)), device, NUD_PERMANENT, 0);
    batch.message(RTM_NEWNEIGH, PUT, &header, |a| {
        put_address(a, NDA_DST, entry.address);
        a.bytes(NDA_LLADDR, &entry.mac.bytes());
        a.u8(NDA_PROTOCOL, ROUTE_PROTOCOL);
    });
}

fn nexthop(batch: &mut Batch, flags: Flags, entry: &Nexthop, device: u32) {
    let [f0, f1, f2, f3] = RTNH_F_ONLINK.to_ne_bytes();
    let header = [address_family(Family::V4), RT_SCOPE_UNIVERSE, ROUTE_PROTOCOL, 0, f0, f1, f2, f3];
    batch.message(RTM_NEWNEXTHOP, flags, &header, |a| {
        a.u32(NHA_ID, entry.id);
        a.u32(NHA_OIF, device);
        a.bytes(NHA_GATEWAY, &entry.gateway.octets());
    });
}

/// Creates or replaces a route.
pub(crate) fn put_route(batch: &mut Batch, flags: Flags, route: &Route, links: Indexes) {
    let (kind, hop_flags) = match route.to {
        RouteTo::Blackhole => (RTN_BLACKHOLE, 0),
        RouteTo::Onlink { .. } => (RTN_UNICAST, RTNH_F_ONLINK),
        RouteTo::Nexthop { .. } | RouteTo::Direct { .. } | RouteTo::Device => (RTN_UNICAST, 0),
    };
    let scope = match (route.to, Family::of_net(route.subnet)) {
        (RouteTo::Device, Family::V4) => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let header = rtmsg(route.subnet, ROUTE_PROTOCOL, scope, kind, hop_flags);
    batch.message(RTM_NEWROUTE, flags, &header, |a| {
        put_address(a, RTA_DST, route.subnet.network());
        match route.to {
            RouteTo::Nexthop { id } => a.u32(RTA_NH_ID, id),
            RouteTo::Onlink { gateway } => {
                put_address(a, RTA_GATEWAY, gateway);
                a.u32(RTA_OIF, links.device);
            }
            RouteTo::Direct { gateway } => {
                put_address(a, RTA_GATEWAY, gateway);
                a.u32(RTA_OIF, links.underlay);
            }
            RouteTo::Device => a.u32(RTA_OIF, links.device),
            RouteTo::Blackhole => {}
        }
        if route.metric() != 0 {
            a.u32(RTA_PRIORITY, route.metric());
        }
    });
}

/// Appends a change to the device with this name. `index` is 0 before it exists. Returns false for changes that are not
/// made by rtnetlink.
pub(crate) fn device_step(batch: &mut Batch, step: &DeviceStep, name: IfName, index: u32) -> bool {
    match step {
        DeviceStep::Delete => drop(batch.message(RTM_DELLINK, Flags::NONE, &ifinfomsg(index, 0, 0), |_| {})),
        DeviceStep::Create(spec) => drop(batch.message(RTM_NEWLINK, ADD, &ifinfomsg(0, 0, 0), |a| {
            a.text(IFLA_IFNAME, name.as_str());
            if let Some(mac) = spec.mac() {
                a.bytes(IFLA_ADDRESS, &mac.bytes());
            }
            a.u32(IFLA_MTU, spec.mtu.bytes());
            link_info(a, spec, true);
        })),
        DeviceStep::Change(spec) => {
            batch.message(RTM_NEWLINK, Flags::NONE, &ifinfomsg(index, 0, 0), |a| {
                if let DeviceKind::Ipip(_) = spec.kind {
                    // Otherwise the kernel computes it from the uplink (`ip_tunnel_update`, net/ipv4/ip_tunnel.c).
                    a.u32(IFLA_MTU, spec.mtu.bytes());
                }
                link_info(a, spec, false);
            });
        }
        DeviceStep::ResetOptions(vni) => {
            batch.message(RTM_NEWLINK, Flags::NONE, &ifinfomsg(index, 0, 0), |a| default_options(a, *vni));
        }
        DeviceStep::Rename(_) => set_link(batch, index, 0, |a| a.text(IFLA_IFNAME, name.as_str())),
        DeviceStep::Release => set_link(batch, index, 0, |a| a.u32(IFLA_MASTER, 0)),
        DeviceStep::SetMac(mac) => set_link(batch, index, 0, |a| a.bytes(IFLA_ADDRESS, &mac.bytes())),
        DeviceStep::SetMtu(mtu) => set_link(batch, index, 0, |a| a.u32(IFLA_MTU, mtu.bytes())),
        DeviceStep::Up => set_link(batch, index, IFF_UP, |_| {}),
        DeviceStep::AddAddress(address) => {
            let bits = Family::of(*address).bits();
            // The address is in this node's own subnet, so no other host can have it. Without duplicate address
            // detection it can be used immediately.
            let flags = u8::try_from(IFA_F_NODAD).unwrap_or(0);
            address_message(batch, RTM_NEWADDR, PUT, (*address, bits), index, flags);
        }
        DeviceStep::DeleteAddress(address, prefix) => {
            address_message(batch, RTM_DELADDR, Flags::NONE, (*address, *prefix), index, 0);
        }
        DeviceStep::IgnoreRouterAdvertisements
        | DeviceStep::SetTxChecksum(_)
        | DeviceStep::SetWireguard(_)
        | DeviceStep::PutFouPort(_)
        | DeviceStep::DeleteFouPort(_) => return false,
    }
    true
}

/// Sets a link down, which kernels before 6.2 require to rename it.
pub(crate) fn set_down(batch: &mut Batch, index: u32) {
    batch.message(RTM_NEWLINK, Flags::NONE, &ifinfomsg(index, 0, IFF_UP), |_| {});
}

fn set_link(batch: &mut Batch, index: u32, flags: u32, build: impl FnOnce(&mut Attributes<'_>)) {
    batch.message(RTM_NEWLINK, Flags::NONE, &ifinfomsg(index, flags, flags), build);
}

fn address_message(
    batch: &mut Batch,
    kind: u16,
    flags: Flags,
    (address, prefix): (IpAddr, u8),
    index: u32,
    ifa: u8,
) {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    let header = [address_family(Family::of(address)), prefix, ifa, RT_SCOPE_UNIVERSE, i0, i1, i2, i3];
    batch.message(kind, flags, &header, |a| {
        put_address(a, IFA_LOCAL, address);
        put_address(a, IFA_ADDRESS, address);
    });
}

/// The kind of a device with its options: all of a new device, otherwise those that the kernel changes in place.
fn link_info(a: &mut Attributes<'_>, spec: &DeviceSpec, new: bool) {
    a.nested(IFLA_LINKINFO, |a| match &spec.kind {
        DeviceKind::Vxlan(vxlan) => {
            a.text(IFLA_INFO_KIND, "vxlan");
            a.nested(IFLA_INFO_DATA, |a| vxlan_options(a, spec, vxlan, new));
        }
        DeviceKind::Ipip(ipip) => {
            a.text(IFLA_INFO_KIND, "ipip");
            a.nested(IFLA_INFO_DATA, |a| ipip_options(a, spec, ipip));
        }
        // Its options are not set by rtnetlink.
        DeviceKind::Wireguard(_) => a.text(IFLA_INFO_KIND, "wireguard"),
    });
}

fn vxlan_options(a: &mut Attributes<'_>, spec: &DeviceSpec, vxlan: &VxlanSpec, new: bool) {
    a.u32(IFLA_VXLAN_ID, vxlan.vni.number());
    a.u32(IFLA_VXLAN_LINK, spec.underlay.index);
    match spec.local {
        IpAddr::V4(local) => a.bytes(IFLA_VXLAN_LOCAL, &local.octets()),
        IpAddr::V6(local) => a.bytes(IFLA_VXLAN_LOCAL6, &local.octets()),
    }
    a.u8(IFLA_VXLAN_LEARNING, u8::from(vxlan.learning));
    if new {
        a.be16(IFLA_VXLAN_PORT, vxlan.port.get());
        if vxlan.gbp {
            a.flag(IFLA_VXLAN_GBP);
        }
    }
}

/// All options, so that a change also resets those that another program has set.
fn ipip_options(a: &mut Attributes<'_>, spec: &DeviceSpec, ipip: &IpipSpec) {
    a.u32(IFLA_IPTUN_LINK, ipip.link(spec.underlay));
    put_address(a, IFLA_IPTUN_LOCAL, spec.local);
    // As the inner packet has them. Without path MTU discovery the outer packet may be fragmented if the inner may.
    a.u8(IFLA_IPTUN_TTL, 0);
    a.u8(IFLA_IPTUN_TOS, 0);
    a.u8(IFLA_IPTUN_PMTUDISC, 0);
    a.u32(IFLA_IPTUN_FWMARK, 0);
    let (kind, flags, port) = match ipip.fou {
        Some(port) => (TUNNEL_ENCAP_FOU, TUNNEL_ENCAP_FLAG_CSUM, port.get()),
        None => (TUNNEL_ENCAP_NONE, 0, 0),
    };
    a.u16(IFLA_IPTUN_ENCAP_TYPE, kind);
    a.u16(IFLA_IPTUN_ENCAP_FLAGS, flags);
    a.be16(IFLA_IPTUN_ENCAP_SPORT, port);
    a.be16(IFLA_IPTUN_ENCAP_DPORT, port);
}

/// The defaults of the options of
/// [`ObservedVxlan::resettable_options_differ`](crate::ObservedVxlan::resettable_options_differ). Kernels ignore options
/// that they do not have.
fn default_options(a: &mut Attributes<'_>, vni: Vni) {
    a.nested(IFLA_LINKINFO, |a| {
        a.text(IFLA_INFO_KIND, "vxlan");
        a.nested(IFLA_INFO_DATA, |a| {
            a.u32(IFLA_VXLAN_ID, vni.number());
            a.u8(IFLA_VXLAN_TTL, 0);
            a.u8(IFLA_VXLAN_TOS, 0);
            a.u8(IFLA_VXLAN_DF, 0);
            a.u32(IFLA_VXLAN_LABEL, 0);
            a.u32(IFLA_VXLAN_LABEL_POLICY, 0);
            a.u32(IFLA_VXLAN_AGEING, DEFAULT_AGEING_SECONDS);
            a.u8(IFLA_VXLAN_LOCALBYPASS, 1);
        });
    });
}

pub(crate) fn put_address(a: &mut Attributes<'_>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => a.bytes(kind, &address.octets()),
        IpAddr::V6(address) => a.bytes(kind, &address.octets()),
    }
}

/// `struct ifinfomsg`.
pub(crate) fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `struct ndmsg`.
pub(crate) fn ndmsg(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    let [s0, s1] = state.to_ne_bytes();
    [family, 0, 0, 0, i0, i1, i2, i3, s0, s1, flags, 0]
}

/// `struct rtmsg` that requests the routes of one table.
pub(crate) fn rtmsg_of_table(family: Family, table: u8) -> [u8; 12] {
    [address_family(family), 0, 0, 0, table, 0, 0, 0, 0, 0, 0, 0]
}

/// `struct rtmsg` that requests the route to one address.
pub(crate) fn rtmsg_lookup(address: IpAddr) -> [u8; 12] {
    let family = Family::of(address);
    [address_family(family), family.bits(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// `struct rtmsg` of the main table.
pub(crate) fn rtmsg(subnet: IpNet, protocol: u8, scope: u8, kind: u8, flags: u32) -> [u8; 12] {
    let family = address_family(Family::of_net(subnet));
    let [f0, f1, f2, f3] = flags.to_ne_bytes();
    [family, subnet.prefix_len(), 0, 0, RT_TABLE_MAIN, protocol, scope, kind, f0, f1, f2, f3]
}
