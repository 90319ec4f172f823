//! The kernel's numbers, under their names in the kernel headers (include/uapi/linux).
//!
//! No other file of this crate contains kernel numbers. A test compares these with the installed headers.

// Multicast groups and messages (linux/rtnetlink.h).
pub(crate) const RTNLGRP_LINK: u32 = 1;
pub(crate) const RTNLGRP_NEIGH: u32 = 3;
pub(crate) const RTNLGRP_IPV4_IFADDR: u32 = 5;
pub(crate) const RTNLGRP_IPV4_ROUTE: u32 = 7;
pub(crate) const RTNLGRP_IPV6_IFADDR: u32 = 9;
pub(crate) const RTNLGRP_IPV6_ROUTE: u32 = 11;
pub(crate) const RTNLGRP_NEXTHOP: u32 = 32;
pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
pub(crate) const RTM_GETADDR: u16 = 22;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RTM_GETROUTE: u16 = 26;
pub(crate) const RTM_NEWNEIGH: u16 = 28;
pub(crate) const RTM_DELNEIGH: u16 = 29;
pub(crate) const RTM_GETNEIGH: u16 = 30;
pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
pub(crate) const RTM_GETNEXTHOP: u16 = 106;

// Address families (sys/socket.h).
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_BRIDGE: u8 = 7;
pub(crate) const AF_INET6: u8 = 10;

// Links (linux/if.h, if_link.h, ipv6.h).
pub(crate) const IFF_UP: u32 = 1;
pub(crate) const IFF_LOOPBACK: u32 = 8;
pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_AF_SPEC: u16 = 26;
pub(crate) const IFLA_EXT_MASK: u16 = 29;
pub(crate) const IFLA_PROP_LIST: u16 = 52;
pub(crate) const IFLA_ALT_IFNAME: u16 = 53;
pub(crate) const RTEXT_FILTER_SKIP_STATS: u32 = 8;
pub(crate) const IFLA_INET6_CONF: u16 = 2;
pub(crate) const DEVCONF_ACCEPT_RA: usize = 3;
pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;

pub(crate) const IFLA_VXLAN_ID: u16 = 1;
pub(crate) const IFLA_VXLAN_GROUP: u16 = 2;
pub(crate) const IFLA_VXLAN_LINK: u16 = 3;
pub(crate) const IFLA_VXLAN_LOCAL: u16 = 4;
pub(crate) const IFLA_VXLAN_TTL: u16 = 5;
pub(crate) const IFLA_VXLAN_TOS: u16 = 6;
pub(crate) const IFLA_VXLAN_LEARNING: u16 = 7;
pub(crate) const IFLA_VXLAN_AGEING: u16 = 8;
pub(crate) const IFLA_VXLAN_LIMIT: u16 = 9;
pub(crate) const IFLA_VXLAN_PORT_RANGE: u16 = 10;
pub(crate) const IFLA_VXLAN_PROXY: u16 = 11;
pub(crate) const IFLA_VXLAN_RSC: u16 = 12;
pub(crate) const IFLA_VXLAN_L2MISS: u16 = 13;
pub(crate) const IFLA_VXLAN_L3MISS: u16 = 14;
pub(crate) const IFLA_VXLAN_PORT: u16 = 15;
pub(crate) const IFLA_VXLAN_GROUP6: u16 = 16;
pub(crate) const IFLA_VXLAN_LOCAL6: u16 = 17;
pub(crate) const IFLA_VXLAN_UDP_CSUM: u16 = 18;
pub(crate) const IFLA_VXLAN_UDP_ZERO_CSUM6_TX: u16 = 19;
pub(crate) const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
pub(crate) const IFLA_VXLAN_REMCSUM_TX: u16 = 21;
pub(crate) const IFLA_VXLAN_REMCSUM_RX: u16 = 22;
pub(crate) const IFLA_VXLAN_GBP: u16 = 23;
pub(crate) const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
pub(crate) const IFLA_VXLAN_LABEL: u16 = 26;
pub(crate) const IFLA_VXLAN_GPE: u16 = 27;
pub(crate) const IFLA_VXLAN_TTL_INHERIT: u16 = 28;
pub(crate) const IFLA_VXLAN_DF: u16 = 29;
pub(crate) const IFLA_VXLAN_VNIFILTER: u16 = 30;
pub(crate) const IFLA_VXLAN_LOCALBYPASS: u16 = 31;
pub(crate) const IFLA_VXLAN_LABEL_POLICY: u16 = 32;

// IP-in-IP devices (linux/if_tunnel.h, in.h).
pub(crate) const IFLA_IPTUN_LINK: u16 = 1;
pub(crate) const IFLA_IPTUN_LOCAL: u16 = 2;
pub(crate) const IFLA_IPTUN_REMOTE: u16 = 3;
pub(crate) const IFLA_IPTUN_TTL: u16 = 4;
pub(crate) const IFLA_IPTUN_TOS: u16 = 5;
pub(crate) const IFLA_IPTUN_PMTUDISC: u16 = 10;
pub(crate) const IFLA_IPTUN_ENCAP_TYPE: u16 = 15;
pub(crate) const IFLA_IPTUN_ENCAP_FLAGS: u16 = 16;
pub(crate) const IFLA_IPTUN_ENCAP_SPORT: u16 = 17;
pub(crate) const IFLA_IPTUN_ENCAP_DPORT: u16 = 18;
pub(crate) const IFLA_IPTUN_COLLECT_METADATA: u16 = 19;
pub(crate) const IFLA_IPTUN_FWMARK: u16 = 20;
pub(crate) const TUNNEL_ENCAP_NONE: u16 = 0;
pub(crate) const TUNNEL_ENCAP_FOU: u16 = 1;
pub(crate) const TUNNEL_ENCAP_FLAG_CSUM: u16 = 1;
pub(crate) const IPPROTO_IPIP: u8 = 4;

// FOU ports (linux/fou.h).
pub(crate) const FOU_GENL_VERSION: u8 = 1;
pub(crate) const FOU_CMD_ADD: u8 = 1;
pub(crate) const FOU_CMD_DEL: u8 = 2;
pub(crate) const FOU_CMD_GET: u8 = 3;
pub(crate) const FOU_ATTR_PORT: u16 = 1;
pub(crate) const FOU_ATTR_AF: u16 = 2;
pub(crate) const FOU_ATTR_IPPROTO: u16 = 3;
pub(crate) const FOU_ATTR_TYPE: u16 = 4;
pub(crate) const FOU_ATTR_LOCAL_V4: u16 = 6;
pub(crate) const FOU_ATTR_PEER_V4: u16 = 8;
pub(crate) const FOU_ATTR_PEER_PORT: u16 = 10;
pub(crate) const FOU_ATTR_IFINDEX: u16 = 11;
pub(crate) const FOU_ENCAP_DIRECT: u8 = 1;

// WireGuard devices (linux/wireguard.h).
pub(crate) const WG_GENL_VERSION: u8 = 1;
pub(crate) const WG_CMD_GET_DEVICE: u8 = 0;
pub(crate) const WG_CMD_SET_DEVICE: u8 = 1;
pub(crate) const WGDEVICE_A_IFINDEX: u16 = 1;
pub(crate) const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
pub(crate) const WGDEVICE_A_LISTEN_PORT: u16 = 6;
pub(crate) const WGDEVICE_A_FWMARK: u16 = 7;
pub(crate) const WGDEVICE_A_PEERS: u16 = 8;
pub(crate) const WGPEER_F_REMOVE_ME: u32 = 1;
pub(crate) const WGPEER_F_REPLACE_ALLOWEDIPS: u32 = 2;
pub(crate) const WGPEER_A_PUBLIC_KEY: u16 = 1;
pub(crate) const WGPEER_A_PRESHARED_KEY: u16 = 2;
pub(crate) const WGPEER_A_FLAGS: u16 = 3;
pub(crate) const WGPEER_A_ENDPOINT: u16 = 4;
pub(crate) const WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: u16 = 5;
pub(crate) const WGPEER_A_LAST_HANDSHAKE_TIME: u16 = 6;
pub(crate) const WGPEER_A_RX_BYTES: u16 = 7;
pub(crate) const WGPEER_A_TX_BYTES: u16 = 8;
pub(crate) const WGPEER_A_ALLOWEDIPS: u16 = 9;
pub(crate) const WGALLOWEDIP_A_FAMILY: u16 = 1;
pub(crate) const WGALLOWEDIP_A_IPADDR: u16 = 2;
pub(crate) const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;

// Addresses (linux/if_addr.h).
pub(crate) const IFA_ADDRESS: u16 = 1;
pub(crate) const IFA_LOCAL: u16 = 2;
pub(crate) const IFA_FLAGS: u16 = 8;
pub(crate) const IFA_F_TEMPORARY: u32 = 0x01;
pub(crate) const IFA_F_NODAD: u32 = 0x02;
pub(crate) const IFA_F_OPTIMISTIC: u32 = 0x04;
pub(crate) const IFA_F_DADFAILED: u32 = 0x08;
pub(crate) const IFA_F_DEPRECATED: u32 = 0x20;
pub(crate) const IFA_F_TENTATIVE: u32 = 0x40;
pub(crate) const IFA_F_PERMANENT: u32 = 0x80;

// Neighbor entries and FDB entries (linux/neighbour.h).
pub(crate) const NDA_DST: u16 = 1;
pub(crate) const NDA_LLADDR: u16 = 2;
pub(crate) const NDA_PORT: u16 = 6;
pub(crate) const NDA_VNI: u16 = 7;
pub(crate) const NDA_IFINDEX: u16 = 8;
pub(crate) const NDA_PROTOCOL: u16 = 12;
pub(crate) const NTF_SELF: u8 = 0x02;
pub(crate) const NTF_PROXY: u8 = 0x08;
pub(crate) const NTF_EXT_LEARNED: u8 = 0x10;
pub(crate) const NUD_NOARP: u16 = 0x40;
pub(crate) const NUD_PERMANENT: u16 = 0x80;

// Nexthop objects (linux/nexthop.h).
pub(crate) const NHA_ID: u16 = 1;
pub(crate) const NHA_OIF: u16 = 5;
pub(crate) const NHA_GATEWAY: u16 = 6;
pub(crate) const NHA_ENCAP: u16 = 8;

// Routes (linux/rtnetlink.h).
pub(crate) const RTA_DST: u16 = 1;
pub(crate) const RTA_OIF: u16 = 4;
pub(crate) const RTA_GATEWAY: u16 = 5;
pub(crate) const RTA_PRIORITY: u16 = 6;
pub(crate) const RTA_PREFSRC: u16 = 7;
pub(crate) const RTA_METRICS: u16 = 8;
pub(crate) const RTA_MULTIPATH: u16 = 9;
pub(crate) const RTA_FLOW: u16 = 11;
pub(crate) const RTA_TABLE: u16 = 15;
pub(crate) const RTA_ENCAP: u16 = 22;
pub(crate) const RTA_NH_ID: u16 = 30;

pub(crate) const RTPROT_BOOT: u8 = 3;
pub(crate) const RTNH_F_ONLINK: u32 = 4;
pub(crate) const RTN_UNSPEC: u8 = 0;
pub(crate) const RTN_UNICAST: u8 = 1;
pub(crate) const RTN_BLACKHOLE: u8 = 6;
pub(crate) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(crate) const RT_SCOPE_LINK: u8 = 253;
pub(crate) const RT_SCOPE_NOWHERE: u8 = 255;
pub(crate) const RT_TABLE_MAIN: u8 = 254;

// Generic netlink (linux/genetlink.h).
pub(crate) const GENL_ID_CTRL: u16 = 0x10;
pub(crate) const CTRL_CMD_GETFAMILY: u8 = 3;
pub(crate) const CTRL_ATTR_FAMILY_ID: u16 = 1;
pub(crate) const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// Device features (linux/ethtool_netlink.h).
pub(crate) const ETHTOOL_GENL_VERSION: u8 = 1;
pub(crate) const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
pub(crate) const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
pub(crate) const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
pub(crate) const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
pub(crate) const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
pub(crate) const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
pub(crate) const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
pub(crate) const ETHTOOL_FLAG_OMIT_REPLY: u32 = 2;
pub(crate) const ETHTOOL_A_BITSET_BITS: u16 = 3;
pub(crate) const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
pub(crate) const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
pub(crate) const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

#[cfg(test)]
mod tests {
    #[test]
    fn every_number_is_in_the_kernel_headers() {
        let headers = [
            "sys/socket.h",
            "linux/ethtool_netlink.h",
            "linux/fou.h",
            "linux/genetlink.h",
            "linux/if.h",
            "linux/if_addr.h",
            "linux/if_link.h",
            "linux/if_tunnel.h",
            "linux/in.h",
            "linux/ipv6.h",
            "linux/neighbour.h",
            "linux/nexthop.h",
            "linux/rtnetlink.h",
            "linux/wireguard.h",
        ];
        // Linux 6.4; 6.6; 6.10.
        let newer = ["IFLA_VXLAN_LOCALBYPASS", "IFLA_VXLAN_LABEL_POLICY"];
        testkit::check_uapi(&headers, include_str!("uapi.rs"), &newer);
    }
}
