//! Decodes the kernel's answers and notifications.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_netlink::{Attribute, AttributeIter, Malformed, Message};
use ipnet::IpNet;

use crate::model::device::{ObservedDevice, ObservedKind};
use crate::model::family::Family;
use crate::model::if_name::IfName;
use crate::model::interface::{Interface, InterfaceAddress, RouteLookup};
use crate::model::ipip::ObservedIpip;
use crate::model::mac::MacAddr;
use crate::model::objects::{
    FdbEntry, Neighbor, ObservedFdbEntry, ObservedNeighbor, ObservedNexthop, ObservedRoute, ObservedRouteTo,
    ROUTE_PROTOCOL,
};
use crate::model::vxlan::ObservedVxlan;
use crate::plan::step::DEFAULT_AGEING_SECONDS;
use crate::wire::address_family;
use crate::wire::uapi::*;

/// A link, as an [`Interface`] and as an [`ObservedDevice`].
pub(crate) fn link(message: &Message<'_>) -> Result<(Interface, ObservedDevice), Malformed> {
    let ([_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..], attributes) = message.split::<16>()?;
    let index = u32::from_ne_bytes([*i0, *i1, *i2, *i3]);
    let flags = u32::from_ne_bytes([*f0, *f1, *f2, *f3]);
    let (up, loopback) = (flags & IFF_UP != 0, flags & IFF_LOOPBACK != 0);
    let (mut name, mut mtu, mut mac) = (&[][..], 0, None);
    let (mut kind, mut observed) = (String::new(), ObservedKind::Other(String::new()));
    let (mut accept_ra, mut master, mut alt_names) = (None, 0, Vec::new());
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_IFNAME => name = text(&attribute),
            IFLA_MTU => mtu = attribute.u32()?,
            IFLA_ADDRESS => mac = attribute.array().ok().and_then(|bytes| MacAddr::new(bytes).ok()),
            IFLA_MASTER => master = attribute.u32()?,
            IFLA_LINKINFO => (kind, observed) = link_info(attribute.nested())?,
            IFLA_AF_SPEC => accept_ra = ipv6_accept_ra(attribute.nested())?,
            IFLA_PROP_LIST => {
                for property in attribute.nested() {
                    let property = property?;
                    if property.kind == IFLA_ALT_IFNAME {
                        alt_names.push(String::from_utf8_lossy(text(&property)).into_owned());
                    }
                }
            }
            _ => {}
        }
    }
    // The kernel accepts any bytes except `/`, `:` and white space. One odd name must not hide all other interfaces.
    let kernel_name = IfName::observed(name).ok_or(Malformed::Value { what: "interface name" })?;
    let device = ObservedDevice {
        name: kernel_name,
        index,
        up,
        mac,
        mtu,
        kind: observed,
        addresses: Vec::new(),
        accept_ra,
        tx_checksum: None,
        master,
    };
    let name = String::from_utf8_lossy(name).into_owned();
    Ok((Interface { index, name, alt_names, kind, mac, loopback, mtu, up, addresses: Vec::new() }, device))
}

/// Text in any encoding, without the terminating zero.
fn text<'a>(attribute: &Attribute<'a>) -> &'a [u8] {
    attribute.payload.strip_suffix(&[0]).unwrap_or(attribute.payload)
}

/// The sysctl `accept_ra` of the interface; `None` without IPv6.
fn ipv6_accept_ra(families: AttributeIter<'_>) -> Result<Option<bool>, Malformed> {
    for family in families {
        let family = family?;
        if family.kind != u16::from(address_family(Family::V6)) {
            continue;
        }
        for attribute in family.nested() {
            let attribute = attribute?;
            if attribute.kind == IFLA_INET6_CONF {
                // An array of 32-bit numbers, one per sysctl.
                let value = attribute.payload.get(DEVCONF_ACCEPT_RA * 4..).and_then(<[u8]>::first_chunk);
                return Ok(value.map(|value| u32::from_ne_bytes(*value) != 0));
            }
        }
    }
    Ok(None)
}

/// The name of the kind, and the kind with its options.
fn link_info(attributes: AttributeIter<'_>) -> Result<(String, ObservedKind), Malformed> {
    let (mut kind, mut data) = ("", None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_INFO_KIND => kind = attribute.text()?,
            IFLA_INFO_DATA => data = Some(attribute),
            _ => {}
        }
    }
    let observed = match (kind, data) {
        ("vxlan", Some(data)) => ObservedKind::Vxlan(vxlan(data.nested())?),
        ("wireguard", _) => ObservedKind::Wireguard(None),
        ("ipip", Some(data)) => ObservedKind::Ipip(ipip(data.nested())?),
        _ => ObservedKind::Other(kind.to_owned()),
    };
    Ok((kind.to_owned(), observed))
}

fn vxlan(attributes: AttributeIter<'_>) -> Result<ObservedVxlan, Malformed> {
    let mut vxlan = ObservedVxlan::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_VXLAN_ID => vxlan.vni = attribute.u32()?,
            IFLA_VXLAN_LINK => vxlan.underlay = attribute.u32()?,
            IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => vxlan.local = Some(address(&attribute)?),
            IFLA_VXLAN_PORT => vxlan.port = attribute.be16()?,
            IFLA_VXLAN_LEARNING => vxlan.learning = attribute.u8()? != 0,
            IFLA_VXLAN_GBP => vxlan.gbp = true,
            IFLA_VXLAN_GROUP | IFLA_VXLAN_GROUP6 | IFLA_VXLAN_GPE => vxlan.fixed_options_differ = true,
            IFLA_VXLAN_PROXY
            | IFLA_VXLAN_RSC
            | IFLA_VXLAN_L2MISS
            | IFLA_VXLAN_L3MISS
            | IFLA_VXLAN_COLLECT_METADATA
            | IFLA_VXLAN_UDP_ZERO_CSUM6_TX
            | IFLA_VXLAN_UDP_ZERO_CSUM6_RX
            | IFLA_VXLAN_REMCSUM_TX
            | IFLA_VXLAN_REMCSUM_RX
            | IFLA_VXLAN_TTL_INHERIT
            | IFLA_VXLAN_VNIFILTER => vxlan.fixed_options_differ |= attribute.u8()? != 0,
            IFLA_VXLAN_UDP_CSUM => vxlan.fixed_options_differ |= attribute.u8()? == 0,
            IFLA_VXLAN_LIMIT => vxlan.fixed_options_differ |= attribute.u32()? != 0,
            // struct ifla_vxlan_port_range; 0 and 0 if not set.
            IFLA_VXLAN_PORT_RANGE => vxlan.fixed_options_differ |= attribute.array::<4>()? != [0; 4],
            IFLA_VXLAN_TTL | IFLA_VXLAN_TOS | IFLA_VXLAN_DF => {
                vxlan.resettable_options_differ |= attribute.u8()? != 0
            }
            IFLA_VXLAN_LABEL | IFLA_VXLAN_LABEL_POLICY => {
                vxlan.resettable_options_differ |= attribute.u32()? != 0
            }
            IFLA_VXLAN_AGEING => {
                vxlan.resettable_options_differ |= attribute.u32()? != DEFAULT_AGEING_SECONDS
            }
            IFLA_VXLAN_LOCALBYPASS => vxlan.resettable_options_differ |= attribute.u8()? == 0,
            _ => {}
        }
    }
    Ok(vxlan)
}

fn ipip(attributes: AttributeIter<'_>) -> Result<ObservedIpip, Malformed> {
    let mut ipip = ObservedIpip::default();
    let (mut encap, mut flags, mut source, mut destination) = (TUNNEL_ENCAP_NONE, 0, 0, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_IPTUN_LINK => ipip.underlay = attribute.u32()?,
            IFLA_IPTUN_LOCAL => {
                let local = Ipv4Addr::from(attribute.array::<4>()?);
                ipip.local = Some(local).filter(|local| !local.is_unspecified());
            }
            IFLA_IPTUN_REMOTE => ipip.fixed_options_differ |= attribute.u32()? != 0,
            IFLA_IPTUN_COLLECT_METADATA => ipip.fixed_options_differ = true,
            IFLA_IPTUN_TTL | IFLA_IPTUN_TOS | IFLA_IPTUN_PMTUDISC => {
                ipip.resettable_options_differ |= attribute.u8()? != 0
            }
            IFLA_IPTUN_FWMARK => ipip.resettable_options_differ |= attribute.u32()? != 0,
            IFLA_IPTUN_ENCAP_TYPE => encap = attribute.u16()?,
            IFLA_IPTUN_ENCAP_FLAGS => flags = attribute.u16()?,
            IFLA_IPTUN_ENCAP_SPORT => source = attribute.be16()?,
            IFLA_IPTUN_ENCAP_DPORT => destination = attribute.be16()?,
            _ => {}
        }
    }
    match encap {
        TUNNEL_ENCAP_NONE => {}
        TUNNEL_ENCAP_FOU => {
            ipip.fou = Some(destination);
            ipip.resettable_options_differ |= source != destination || flags != TUNNEL_ENCAP_FLAG_CSUM;
        }
        _ => ipip.fixed_options_differ = true,
    }
    Ok(ipip)
}

/// An address, with the index of its interface.
pub(crate) fn interface_address(message: &Message<'_>) -> Result<Option<(u32, InterfaceAddress)>, Malformed> {
    let ([family, prefix_len, flags, _, i0, i1, i2, i3], attributes) = message.split::<8>()?;
    let index = u32::from_ne_bytes([*i0, *i1, *i2, *i3]);
    if *family != address_family(Family::V4) && *family != address_family(Family::V6) {
        return Ok(None);
    }
    let (mut local, mut peer, mut flags) = (None, None, u32::from(*flags));
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFA_LOCAL => local = Some(address(&attribute)?),
            IFA_ADDRESS => peer = Some(address(&attribute)?),
            IFA_FLAGS => flags = attribute.u32()?,
            _ => {}
        }
    }
    // Of a point-to-point link, IFA_ADDRESS is the other end. IPv6 addresses have IFA_LOCAL only on such links.
    Ok(local.or(peer).map(|address| {
        let has = |flag| flags & flag != 0;
        let address = InterfaceAddress {
            address,
            prefix_len: *prefix_len,
            permanent: has(IFA_F_PERMANENT),
            deprecated: has(IFA_F_DEPRECATED),
            temporary: has(IFA_F_TEMPORARY),
            tentative: has(IFA_F_TENTATIVE) && !has(IFA_F_OPTIMISTIC),
            duplicate: has(IFA_F_DADFAILED),
        };
        (index, address)
    }))
}

/// A neighbor entry in any state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeighborMessage {
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) permanent: bool,
    pub(crate) protocol: u8,
}

/// A neighbor entry; `None` for an FDB entry or a proxy entry.
pub(crate) fn any_neighbor(message: &Message<'_>) -> Result<Option<NeighborMessage>, Malformed> {
    let (entry, attributes) = neighbor_header(message)?;
    let (mut dst, mut mac, mut protocol) = (None, None, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NDA_DST => dst = Some(address(&attribute)?),
            NDA_LLADDR => mac = attribute.array().ok().and_then(|bytes| MacAddr::new(bytes).ok()),
            NDA_PROTOCOL => protocol = attribute.u8()?,
            _ => {}
        }
    }
    let permanent = entry.state & NUD_PERMANENT != 0;
    let neighbor = entry.family != AF_BRIDGE && entry.flags & NTF_PROXY == 0;
    let message = |address| NeighborMessage { interface: entry.index, address, mac, permanent, protocol };
    Ok(dst.filter(|_| neighbor).map(message))
}

/// A permanent neighbor entry, with the index of its interface.
pub(crate) fn neighbor(message: &Message<'_>) -> Result<Option<(u32, ObservedNeighbor)>, Malformed> {
    let found = any_neighbor(message)?.filter(|found| found.permanent);
    Ok(found.and_then(|NeighborMessage { interface, address, mac, protocol, .. }| {
        Some((interface, ObservedNeighbor { neighbor: Neighbor { address, mac: mac? }, protocol }))
    }))
}

/// An FDB entry with a destination address, with the index of its interface.
pub(crate) fn fdb_entry(message: &Message<'_>) -> Result<Option<(u32, ObservedFdbEntry)>, Malformed> {
    let (entry, attributes) = neighbor_header(message)?;
    let (mut dst, mut mac, mut no_extra_attrs) = (None, None, true);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NDA_DST => dst = Some(address(&attribute)?),
            NDA_LLADDR => mac = attribute.array().ok().and_then(|bytes| MacAddr::new(bytes).ok()),
            // The kernel reports these only if they differ from the device's.
            NDA_PORT | NDA_VNI | NDA_IFINDEX => no_extra_attrs = false,
            _ => {}
        }
    }
    Ok(match (dst, mac) {
        (Some(underlay), Some(mac)) if entry.family == AF_BRIDGE => {
            let fdb_entry = FdbEntry { family: Family::of(underlay), mac, underlay };
            let ext_learned = entry.flags & NTF_EXT_LEARNED != 0;
            let permanent = entry.state & NUD_PERMANENT != 0;
            let upstream_form = no_extra_attrs && (entry.state, entry.flags) == (NUD_PERMANENT, NTF_SELF);
            let found =
                ObservedFdbEntry { entry: fdb_entry, ext_learned, permanent, no_extra_attrs, upstream_form };
            Some((entry.index, found))
        }
        _ => None,
    })
}

struct NeighborHeader {
    family: u8,
    index: u32,
    state: u16,
    flags: u8,
}

fn neighbor_header<'a>(message: &Message<'a>) -> Result<(NeighborHeader, AttributeIter<'a>), Malformed> {
    let ([family, _, _, _, i0, i1, i2, i3, s0, s1, flags, _], attributes) = message.split::<12>()?;
    let index = u32::from_ne_bytes([*i0, *i1, *i2, *i3]);
    let state = u16::from_ne_bytes([*s0, *s1]);
    Ok((NeighborHeader { family: *family, index, state, flags: *flags }, attributes))
}

/// A nexthop object.
pub(crate) fn nexthop(message: &Message<'_>) -> Result<ObservedNexthop, Malformed> {
    let ([_, _, protocol, ..], attributes) = message.split::<8>()?;
    let mut nexthop = ObservedNexthop { id: 0, protocol: *protocol, interface: 0, gateway: None };
    let mut wrapped = false;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NHA_ID => nexthop.id = attribute.u32()?,
            NHA_OIF => nexthop.interface = attribute.u32()?,
            NHA_GATEWAY => nexthop.gateway = attribute.array::<4>().ok().map(Ipv4Addr::from),
            NHA_ENCAP => wrapped = true,
            _ => {}
        }
    }
    nexthop.gateway = nexthop.gateway.filter(|_| !wrapped);
    Ok(nexthop)
}

/// A route of any table.
#[derive(Debug)]
pub(crate) struct RouteMessage {
    pub(crate) table: u32,
    pub(crate) route: ObservedRoute,
    pub(crate) source: Option<IpAddr>,
    /// Interface of the first hop of a multipath route.
    pub(crate) first_hop: Option<u32>,
    pub(crate) kind: u8,
    /// Gateways, with the index of their interface. The kernel also reports the gateways of nexthop objects.
    pub(crate) gateways: Vec<(IpAddr, u32)>,
    /// Whether the kernel takes the gateways to be on the link.
    pub(crate) onlink: bool,
}

/// A route; `None` for families other than IPv4 and IPv6.
pub(crate) fn route(message: &Message<'_>) -> Result<Option<RouteMessage>, Malformed> {
    let ([family, prefix, _, _, table, protocol, _, kind, f0, f1, f2, f3], attributes) =
        message.split::<12>()?;
    let any: IpAddr = match *family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    let onlink = u32::from_ne_bytes([*f0, *f1, *f2, *f3]) & RTNH_F_ONLINK != 0;
    let (mut table, mut dst, mut gateway, mut id) = (u32::from(*table), any, None, None);
    let (mut metric, mut interface, mut source, mut first_hop) = (0, 0, None, None);
    let mut no_extra_attrs = true;
    let mut gateways = Vec::new();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => dst = address(&attribute)?,
            RTA_GATEWAY => gateway = Some(address(&attribute)?),
            RTA_OIF => interface = attribute.u32()?,
            RTA_PRIORITY => metric = attribute.u32()?,
            RTA_PREFSRC => {
                source = Some(address(&attribute)?);
                no_extra_attrs = false;
            }
            RTA_METRICS | RTA_FLOW | RTA_ENCAP => no_extra_attrs = false,
            RTA_TABLE => table = attribute.u32()?,
            RTA_NH_ID => id = Some(attribute.u32()?),
            // struct rtnexthop: length u16, flags u8, hops u8, ifindex s32.
            RTA_MULTIPATH => {
                gateways = hops(attribute.payload)?;
                first_hop =
                    attribute.payload.get(4..8).and_then(<[u8]>::first_chunk).map(|i| u32::from_ne_bytes(*i));
            }
            _ => {}
        }
    }
    let to = match (kind, id, gateway) {
        (&RTN_UNICAST, Some(id), _) => ObservedRouteTo::Nexthop { id },
        (&RTN_UNICAST, None, Some(gateway)) => ObservedRouteTo::Gateway { gateway, onlink },
        (&RTN_UNICAST, None, None) if interface != 0 => ObservedRouteTo::Device,
        (&RTN_BLACKHOLE, ..) => ObservedRouteTo::Blackhole,
        _ => ObservedRouteTo::Other,
    };
    let subnet = IpNet::new(dst, *prefix).map_err(|_too_long| Malformed::Value { what: "prefix length" })?;
    let route = ObservedRoute { subnet, protocol: *protocol, metric, interface, to, no_extra_attrs };
    // Only gateways of other programs matter, and this crate's routes are many.
    gateways.extend(gateway.filter(|_| *protocol != ROUTE_PROTOCOL).map(|gateway| (gateway, interface)));
    Ok(Some(RouteMessage { table, route, source, first_hop, kind: *kind, gateways, onlink }))
}

/// The gateways of a multipath route: one `struct rtnexthop` (length u16, flags u8, hops u8, ifindex s32) after
/// another, each with its attributes.
fn hops(mut bytes: &[u8]) -> Result<Vec<(IpAddr, u32)>, Malformed> {
    let mut gateways = Vec::new();
    while let Some(([l0, l1, _, _, i0, i1, i2, i3], _)) = bytes.split_first_chunk::<8>() {
        let interface = u32::from_ne_bytes([*i0, *i1, *i2, *i3]);
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let malformed = Malformed::Value { what: "nexthop length" };
        for attribute in flannel_netlink::attributes(bytes.get(8..length).ok_or(malformed)?) {
            let attribute = attribute?;
            if attribute.kind == RTA_GATEWAY {
                gateways.push((address(&attribute)?, interface));
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(gateways)
}

impl RouteMessage {
    pub(crate) fn is_in_main_table(&self) -> bool {
        self.table == u32::from(RT_TABLE_MAIN)
    }

    /// The route as the answer to a lookup; `None` if the address is unreachable.
    pub(crate) fn lookup(&self) -> Option<RouteLookup> {
        let gateway = match self.route.to {
            ObservedRouteTo::Gateway { gateway, .. } => Some(gateway),
            _ => None,
        };
        let leads = self.route.interface != 0 && self.kind != RTN_BLACKHOLE;
        leads.then_some(RouteLookup { interface: self.route.interface, source: self.source, gateway })
    }
}

pub(crate) fn address(attribute: &Attribute<'_>) -> Result<IpAddr, Malformed> {
    match attribute.payload.len() {
        4 => attribute.array::<4>().map(IpAddr::from),
        _ => attribute.array::<16>().map(IpAddr::from),
    }
}
