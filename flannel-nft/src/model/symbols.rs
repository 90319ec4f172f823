//! nft's names of numbers (src/datatype.c, src/proto.c, src/ct.c, src/meta.c).

use crate::uapi::*;

type Symbols<const N: usize> = [(&'static str, u32); N];

pub(crate) const ADDRESS_TYPES: Symbols<9> = [
    ("unspec", RTN_UNSPEC),
    ("unicast", RTN_UNICAST),
    ("local", RTN_LOCAL),
    ("broadcast", RTN_BROADCAST),
    ("anycast", RTN_ANYCAST),
    ("multicast", RTN_MULTICAST),
    ("blackhole", RTN_BLACKHOLE),
    ("unreachable", RTN_UNREACHABLE),
    ("prohibit", RTN_PROHIBIT),
];

/// RFC 826, RFC 2390.
pub(crate) const ARP_OPERATIONS: Symbols<7> = [
    ("request", 1),
    ("reply", 2),
    ("rrequest", 3),
    ("rreply", 4),
    ("inrequest", 8),
    ("inreply", 9),
    ("nak", 10),
];

pub(crate) const BOOLEANS: Symbols<2> = [("exists", 1), ("missing", 0)];

pub(crate) const DAYS: Symbols<7> = [
    ("Sunday", 0),
    ("Monday", 1),
    ("Tuesday", 2),
    ("Wednesday", 3),
    ("Thursday", 4),
    ("Friday", 5),
    ("Saturday", 6),
];

/// RFC 4340, section 5.1.
pub(crate) const DCCP_TYPES: Symbols<10> = [
    ("request", 0),
    ("response", 1),
    ("data", 2),
    ("ack", 3),
    ("dataack", 4),
    ("closereq", 5),
    ("close", 6),
    ("reset", 7),
    ("sync", 8),
    ("syncack", 9),
];

pub(crate) const DIRECTIONS: Symbols<2> = [("original", 0), ("reply", 1)];

/// RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622.
pub(crate) const DSCP: Symbols<23> = [
    ("cs0", 0x00),
    ("cs1", 0x08),
    ("cs2", 0x10),
    ("cs3", 0x18),
    ("cs4", 0x20),
    ("cs5", 0x28),
    ("cs6", 0x30),
    ("cs7", 0x38),
    ("lephb", 0x01),
    ("af11", 0x0a),
    ("af12", 0x0c),
    ("af13", 0x0e),
    ("af21", 0x12),
    ("af22", 0x14),
    ("af23", 0x16),
    ("af31", 0x1a),
    ("af32", 0x1c),
    ("af33", 0x1e),
    ("af41", 0x22),
    ("af42", 0x24),
    ("af43", 0x26),
    ("va", 0x2c),
    ("ef", 0x2e),
];

/// RFC 3168.
pub(crate) const ECN: Symbols<4> = [("not-ect", 0), ("ect1", 1), ("ect0", 2), ("ce", 3)];

pub(crate) const ETHER_TYPES: Symbols<5> = [
    ("ip", ETH_P_IP),
    ("arp", ETH_P_ARP),
    ("ip6", ETH_P_IPV6),
    ("8021q", ETH_P_8021Q),
    ("8021ad", ETH_P_8021AD),
];

/// Bits of `enum ip_conntrack_events` (linux/netfilter/nf_conntrack_common.h).
pub(crate) const EVENTS: Symbols<11> = [
    ("new", 1 << IPCT_NEW),
    ("related", 1 << IPCT_RELATED),
    ("destroy", 1 << IPCT_DESTROY),
    ("reply", 1 << IPCT_REPLY),
    ("assured", 1 << IPCT_ASSURED),
    ("protoinfo", 1 << IPCT_PROTOINFO),
    ("helper", 1 << IPCT_HELPER),
    ("mark", 1 << IPCT_MARK),
    ("seqadj", 1 << IPCT_SEQADJ),
    ("secmark", 1 << IPCT_SECMARK),
    ("label", 1 << IPCT_LABEL),
];

/// The entry of iproute2's `group` file.
pub(crate) const GROUPS: Symbols<1> = [("default", 0)];

pub(crate) const ICMP_CODES: Symbols<8> = [
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("frag-needed", 4),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
];

pub(crate) const ICMP_TYPES: Symbols<15> = [
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];

pub(crate) const ICMPV6_CODES: Symbols<6> = [
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
];

pub(crate) const ICMPV6_TYPES: Symbols<18> = [
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];

pub(crate) const IFACE_TYPES: Symbols<7> = [
    ("ether", ARPHRD_ETHER),
    ("ppp", ARPHRD_PPP),
    ("ipip", ARPHRD_TUNNEL),
    ("ipip6", ARPHRD_TUNNEL6),
    ("loopback", ARPHRD_LOOPBACK),
    ("sit", ARPHRD_SIT),
    ("ipgre", ARPHRD_IPGRE),
];

pub(crate) const IGMP_TYPES: Symbols<5> = [
    ("membership-query", 0x11),
    ("membership-report-v1", 0x12),
    ("membership-report-v2", 0x16),
    ("leave-group", 0x17),
    ("membership-report-v3", 0x22),
];

/// RFC 6275, section 6.1; RFC 5568; RFC 5096; RFC 5142.
pub(crate) const MH_TYPES: Symbols<13> = [
    ("binding-refresh-request", 0),
    ("home-test-init", 1),
    ("careof-test-init", 2),
    ("home-test", 3),
    ("careof-test", 4),
    ("binding-update", 5),
    ("binding-acknowledgement", 6),
    ("binding-error", 7),
    ("fast-binding-update", 8),
    ("fast-binding-acknowledgement", 9),
    ("fast-binding-advertisement", 10),
    ("experimental-mobility-header", 11),
    ("home-agent-switch-message", 12),
];

/// RFC 8684, section 8.1.
pub(crate) const MPTCP_SUBTYPES: Symbols<9> = [
    ("mp-capable", 0),
    ("mp-join", 1),
    ("dss", 2),
    ("add-addr", 3),
    ("remove-addr", 4),
    ("mp-prio", 5),
    ("mp-fail", 6),
    ("mp-fastclose", 7),
    ("mp-tcprst", 8),
];

#[expect(clippy::as_conversions, reason = "`From` is not const; u8 fits")]
pub(crate) const NFPROTOS: Symbols<2> = [("ipv4", NFPROTO_IPV4 as u32), ("ipv6", NFPROTO_IPV6 as u32)];

#[expect(clippy::as_conversions, reason = "`From` is not const; u8 fits")]
pub(crate) const PACKET_TYPES: Symbols<4> = [
    ("host", PACKET_HOST as u32),
    ("broadcast", PACKET_BROADCAST as u32),
    ("multicast", PACKET_MULTICAST as u32),
    ("other", PACKET_OTHERHOST as u32),
];

/// The entry of iproute2's `rt_realms` file.
pub(crate) const REALMS: Symbols<1> = [("cosmos", 0)];

/// `NF_CT_STATE_BIT`.
pub(crate) const fn state_bit(ctinfo: u32) -> u32 {
    1 << (ctinfo + 1)
}

/// In nft's print order.
pub(crate) const STATES: Symbols<5> = [
    ("invalid", NF_CT_STATE_INVALID_BIT),
    ("established", state_bit(IP_CT_ESTABLISHED)),
    ("related", state_bit(IP_CT_RELATED)),
    ("new", state_bit(IP_CT_NEW)),
    ("untracked", NF_CT_STATE_UNTRACKED_BIT),
];

pub(crate) const STATUSES: Symbols<7> = [
    ("expected", IPS_EXPECTED),
    ("seen-reply", IPS_SEEN_REPLY),
    ("assured", IPS_ASSURED),
    ("confirmed", IPS_CONFIRMED),
    ("snat", IPS_SRC_NAT),
    ("dnat", IPS_DST_NAT),
    ("dying", IPS_DYING),
];

/// Flag bits of the TCP header, RFC 9293.
pub(crate) const TCP_FLAGS: Symbols<8> = [
    ("fin", 0x1),
    ("syn", 0x2),
    ("rst", 0x4),
    ("psh", 0x8),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ecn", 0x40),
    ("cwr", 0x80),
];
