//! Expressions, and the numbers in packets that they compare.

// Types of interfaces (linux/if_arp.h).
pub(crate) const ARPHRD_ETHER: u32 = 1;
pub(crate) const ARPHRD_IPGRE: u32 = 778;
pub(crate) const ARPHRD_LOOPBACK: u32 = 772;
pub(crate) const ARPHRD_PPP: u32 = 512;
pub(crate) const ARPHRD_SIT: u32 = 776;
pub(crate) const ARPHRD_TUNNEL: u32 = 768;
pub(crate) const ARPHRD_TUNNEL6: u32 = 769;

// Network protocols (linux/if_ether.h).
pub(crate) const ETH_P_8021AD: u32 = 0x88a8;
pub(crate) const ETH_P_8021Q: u32 = 0x8100;
pub(crate) const ETH_P_ARP: u32 = 0x806;
pub(crate) const ETH_P_IP: u32 = 0x800;
pub(crate) const ETH_P_IPV6: u32 = 0x86dd;

// `icmp`.
pub(crate) const ICMP_DEST_UNREACH: u8 = 3;
pub(crate) const ICMP_REDIRECT: u8 = 5;

// `icmpv6`.
pub(crate) const ICMPV6_MGM_QUERY: u8 = 130;
pub(crate) const ICMPV6_PARAMPROB: u8 = 4;
pub(crate) const ICMPV6_PKT_TOOBIG: u8 = 2;

// Events of connections (linux/netfilter/nf_conntrack_common.h).
pub(crate) const IPCT_ASSURED: u32 = 4;
pub(crate) const IPCT_DESTROY: u32 = 2;
pub(crate) const IPCT_HELPER: u32 = 6;
pub(crate) const IPCT_LABEL: u32 = 10;
pub(crate) const IPCT_MARK: u32 = 7;
pub(crate) const IPCT_NEW: u32 = 0;
pub(crate) const IPCT_PROTOINFO: u32 = 5;
pub(crate) const IPCT_RELATED: u32 = 1;
pub(crate) const IPCT_REPLY: u32 = 3;
pub(crate) const IPCT_SECMARK: u32 = 9;
pub(crate) const IPCT_SEQADJ: u32 = 8;

// Transport protocols (linux/in.h).
pub(crate) const IPPROTO_AH: u8 = 51;
pub(crate) const IPPROTO_COMP: u8 = 108;
pub(crate) const IPPROTO_DCCP: u8 = 33;
pub(crate) const IPPROTO_ESP: u8 = 50;
pub(crate) const IPPROTO_GRE: u8 = 47;
pub(crate) const IPPROTO_ICMP: u8 = 1;
pub(crate) const IPPROTO_ICMPV6: u8 = 58;
pub(crate) const IPPROTO_IGMP: u8 = 2;
pub(crate) const IPPROTO_SCTP: u8 = 132;
pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_UDP: u8 = 17;
pub(crate) const IPPROTO_UDPLITE: u8 = 136;

// `bitwise`.
pub(crate) const NFT_BITWISE_LSHIFT: u32 = 1;
pub(crate) const NFT_BITWISE_RSHIFT: u32 = 2;
pub(crate) const NFT_BITWISE_AND: u32 = 3;
pub(crate) const NFT_BITWISE_OR: u32 = 4;
#[cfg(feature = "json")]
pub(crate) const NFT_BITWISE_XOR: u32 = 5;
pub(crate) const NFTA_BITWISE_SREG2: u16 = 8;

// `cmp`.
pub(crate) const NFT_CMP_GT: u32 = 4;
pub(crate) const NFT_CMP_LT: u32 = 2;

// `connlimit`.
pub(crate) const NFTA_CONNLIMIT_COUNT: u16 = 1;
pub(crate) const NFTA_CONNLIMIT_FLAGS: u16 = 2;
pub(crate) const NFT_CONNLIMIT_F_INV: u32 = 0x1;

// `ct`.
pub(crate) const NFT_CT_AVGPKT: u32 = 16;
pub(crate) const NFT_CT_BYTES: u32 = 15;
pub(crate) const NFT_CT_DST_IP: u32 = 20;
pub(crate) const NFT_CT_DST_IP6: u32 = 22;
pub(crate) const NFT_CT_EVENTMASK: u32 = 18;
pub(crate) const NFT_CT_EXPIRATION: u32 = 5;
pub(crate) const NFT_CT_HELPER: u32 = 6;
pub(crate) const NFT_CT_ID: u32 = 23;
pub(crate) const NFT_CT_L3PROTOCOL: u32 = 7;
pub(crate) const NFT_CT_LABELS: u32 = 13;
pub(crate) const NFT_CT_PKTS: u32 = 14;
pub(crate) const NFT_CT_PROTOCOL: u32 = 10;
pub(crate) const NFT_CT_PROTO_DST: u32 = 12;
pub(crate) const NFT_CT_PROTO_SRC: u32 = 11;
pub(crate) const NFT_CT_SECMARK: u32 = 4;
pub(crate) const NFT_CT_SRC_IP: u32 = 19;
pub(crate) const NFT_CT_SRC_IP6: u32 = 21;
pub(crate) const NFT_CT_ZONE: u32 = 17;

// `dup`.
pub(crate) const NFTA_DUP_SREG_ADDR: u16 = 1;
pub(crate) const NFTA_DUP_SREG_DEV: u16 = 2;

// `dynset`.
pub(crate) const NFTA_DYNSET_EXPR: u16 = 7;
pub(crate) const NFTA_DYNSET_EXPRESSIONS: u16 = 10;
pub(crate) const NFTA_DYNSET_FLAGS: u16 = 9;
pub(crate) const NFTA_DYNSET_OP: u16 = 3;
pub(crate) const NFTA_DYNSET_SREG_DATA: u16 = 5;
pub(crate) const NFTA_DYNSET_SREG_KEY: u16 = 4;
pub(crate) const NFTA_DYNSET_TIMEOUT: u16 = 6;
pub(crate) const NFT_DYNSET_F_EXPR: u32 = 0x2;
pub(crate) const NFT_DYNSET_OP_ADD: u32 = 0;
pub(crate) const NFT_DYNSET_OP_DELETE: u32 = 2;
pub(crate) const NFT_DYNSET_OP_UPDATE: u32 = 1;

// `exthdr`.
pub(crate) const NFT_EXTHDR_F_PRESENT: u32 = 0x1;
pub(crate) const NFT_EXTHDR_OP_IPV4: u32 = 2;
pub(crate) const NFT_EXTHDR_OP_IPV6: u32 = 0;
pub(crate) const NFT_EXTHDR_OP_SCTP: u32 = 3;

// `fib`.
pub(crate) const NFTA_FIB_F_IIF: u32 = 0x8;
pub(crate) const NFTA_FIB_F_MARK: u32 = 0x4;
pub(crate) const NFTA_FIB_F_OIF: u32 = 0x10;
pub(crate) const NFTA_FIB_F_PRESENT: u32 = 0x20;
pub(crate) const NFT_FIB_RESULT_OIF: u32 = 1;
pub(crate) const NFT_FIB_RESULT_OIFNAME: u32 = 2;

// `fwd`.
pub(crate) const NFTA_FWD_NFPROTO: u16 = 3;
pub(crate) const NFTA_FWD_SREG_ADDR: u16 = 2;
pub(crate) const NFTA_FWD_SREG_DEV: u16 = 1;

// `hash`.
pub(crate) const NFTA_HASH_DREG: u16 = 2;
pub(crate) const NFTA_HASH_LEN: u16 = 3;
pub(crate) const NFTA_HASH_MODULUS: u16 = 4;
pub(crate) const NFTA_HASH_OFFSET: u16 = 6;
pub(crate) const NFTA_HASH_SEED: u16 = 5;
pub(crate) const NFTA_HASH_SREG: u16 = 1;
pub(crate) const NFTA_HASH_TYPE: u16 = 7;
pub(crate) const NFT_HASH_SYM: u32 = 1;

// `last`.
pub(crate) const NFTA_LAST_MSECS: u16 = 2;
pub(crate) const NFTA_LAST_SET: u16 = 1;

// `meta`.
pub(crate) const NFT_META_BRI_IIFNAME: u32 = 17;
pub(crate) const NFT_META_BRI_IIFPVID: u32 = 28;
pub(crate) const NFT_META_BRI_IIFVPROTO: u32 = 29;
pub(crate) const NFT_META_BRI_OIFNAME: u32 = 18;
pub(crate) const NFT_META_CGROUP: u32 = 23;
pub(crate) const NFT_META_CPU: u32 = 20;
pub(crate) const NFT_META_IIFGROUP: u32 = 21;
pub(crate) const NFT_META_IIFKIND: u32 = 26;
pub(crate) const NFT_META_IIFTYPE: u32 = 8;
pub(crate) const NFT_META_LEN: u32 = 0;
pub(crate) const NFT_META_NFTRACE: u32 = 12;
pub(crate) const NFT_META_OIFGROUP: u32 = 22;
pub(crate) const NFT_META_OIFKIND: u32 = 27;
pub(crate) const NFT_META_OIFTYPE: u32 = 9;
pub(crate) const NFT_META_PRANDOM: u32 = 24;
pub(crate) const NFT_META_PRIORITY: u32 = 2;
pub(crate) const NFT_META_PROTOCOL: u32 = 1;
pub(crate) const NFT_META_RTCLASSID: u32 = 13;
pub(crate) const NFT_META_SDIF: u32 = 33;
pub(crate) const NFT_META_SDIFNAME: u32 = 34;
pub(crate) const NFT_META_SECMARK: u32 = 14;
pub(crate) const NFT_META_SECPATH: u32 = 25;
pub(crate) const NFT_META_SKGID: u32 = 11;
pub(crate) const NFT_META_SKUID: u32 = 10;
pub(crate) const NFT_META_TIME_DAY: u32 = 31;
pub(crate) const NFT_META_TIME_HOUR: u32 = 32;
pub(crate) const NFT_META_TIME_NS: u32 = 30;

// `ng`.
pub(crate) const NFTA_NG_DREG: u16 = 1;
pub(crate) const NFTA_NG_MODULUS: u16 = 2;
pub(crate) const NFTA_NG_OFFSET: u16 = 4;
pub(crate) const NFTA_NG_TYPE: u16 = 3;
pub(crate) const NFT_NG_INCREMENTAL: u32 = 0;
pub(crate) const NFT_NG_RANDOM: u32 = 1;

// Types of objects.
pub(crate) const NFT_OBJECT_CT_EXPECT: u32 = 9;
pub(crate) const NFT_OBJECT_CT_HELPER: u32 = 3;
pub(crate) const NFT_OBJECT_CT_TIMEOUT: u32 = 7;
pub(crate) const NFT_OBJECT_LIMIT: u32 = 4;
pub(crate) const NFT_OBJECT_QUOTA: u32 = 2;
pub(crate) const NFT_OBJECT_SECMARK: u32 = 8;
pub(crate) const NFT_OBJECT_SYNPROXY: u32 = 10;
pub(crate) const NFT_OBJECT_TUNNEL: u32 = 6;

// `objref`.
pub(crate) const NFTA_OBJREF_SET_SREG: u16 = 3;

// `osf`.
pub(crate) const NFTA_OSF_DREG: u16 = 1;
pub(crate) const NFTA_OSF_TTL: u16 = 2;
pub(crate) const NFT_OSF_F_VERSION: u32 = 0x1;

// `payload`.
pub(crate) const NFTA_PAYLOAD_CSUM_FLAGS: u16 = 8;
pub(crate) const NFTA_PAYLOAD_CSUM_OFFSET: u16 = 7;
pub(crate) const NFTA_PAYLOAD_CSUM_TYPE: u16 = 6;
pub(crate) const NFT_PAYLOAD_CSUM_INET: u32 = 1;
pub(crate) const NFT_PAYLOAD_CSUM_NONE: u32 = 0;
pub(crate) const NFT_PAYLOAD_CSUM_SCTP: u32 = 2;
pub(crate) const NFT_PAYLOAD_INNER_HEADER: u32 = 3;
pub(crate) const NFT_PAYLOAD_L4CSUM_PSEUDOHDR: u32 = 0x1;
pub(crate) const NFT_PAYLOAD_LL_HEADER: u32 = 0;

// `queue`.
pub(crate) const NFTA_QUEUE_FLAGS: u16 = 3;
pub(crate) const NFTA_QUEUE_NUM: u16 = 1;
pub(crate) const NFTA_QUEUE_SREG_QNUM: u16 = 4;
pub(crate) const NFTA_QUEUE_TOTAL: u16 = 2;
pub(crate) const NFT_QUEUE_FLAG_BYPASS: u16 = 0x1;
pub(crate) const NFT_QUEUE_FLAG_CPU_FANOUT: u16 = 0x2;

// `quota`.
pub(crate) const NFTA_QUOTA_BYTES: u16 = 1;

// `range`.
pub(crate) const NFT_RANGE_EQ: u32 = 0;

// Registers.
pub(crate) const NFT_REG32_00: u32 = 8;
pub(crate) const NFT_REG32_15: u32 = 23;

// `rt`.
pub(crate) const NFT_RT_CLASSID: u32 = 0;
pub(crate) const NFT_RT_NEXTHOP4: u32 = 1;
pub(crate) const NFT_RT_NEXTHOP6: u32 = 2;
pub(crate) const NFT_RT_XFRM: u32 = 4;

// `socket`.
pub(crate) const NFTA_SOCKET_DREG: u16 = 2;
pub(crate) const NFTA_SOCKET_KEY: u16 = 1;
pub(crate) const NFTA_SOCKET_LEVEL: u16 = 3;
pub(crate) const NFT_SOCKET_CGROUPV2: u32 = 3;
pub(crate) const NFT_SOCKET_MARK: u32 = 1;
pub(crate) const NFT_SOCKET_TRANSPARENT: u32 = 0;
pub(crate) const NFT_SOCKET_WILDCARD: u32 = 2;

// `synproxy`.
pub(crate) const NFTA_SYNPROXY_FLAGS: u16 = 3;
pub(crate) const NFTA_SYNPROXY_MSS: u16 = 1;
pub(crate) const NFTA_SYNPROXY_WSCALE: u16 = 2;

// `tproxy`.
pub(crate) const NFTA_TPROXY_FAMILY: u16 = 1;
pub(crate) const NFTA_TPROXY_REG_ADDR: u16 = 2;
pub(crate) const NFTA_TPROXY_REG_PORT: u16 = 3;

// `xfrm`.
pub(crate) const NFTA_XFRM_DIR: u16 = 3;
pub(crate) const NFTA_XFRM_DREG: u16 = 1;
pub(crate) const NFTA_XFRM_KEY: u16 = 2;
pub(crate) const NFTA_XFRM_SPNUM: u16 = 4;
pub(crate) const NFT_XFRM_KEY_DADDR_IP4: u32 = 1;
pub(crate) const NFT_XFRM_KEY_DADDR_IP6: u32 = 2;
pub(crate) const NFT_XFRM_KEY_REQID: u32 = 5;
pub(crate) const NFT_XFRM_KEY_SADDR_IP4: u32 = 3;
pub(crate) const NFT_XFRM_KEY_SADDR_IP6: u32 = 4;
pub(crate) const NFT_XFRM_KEY_SPI: u32 = 6;

// Flags of NAT (linux/netfilter/nf_nat.h).
pub(crate) const NF_NAT_RANGE_NETMAP: u32 = 0x40;

// Options of synproxy (linux/netfilter/nf_synproxy.h).
pub(crate) const NF_SYNPROXY_OPT_MSS: u32 = 0x1;
pub(crate) const NF_SYNPROXY_OPT_SACK_PERM: u32 = 0x4;
pub(crate) const NF_SYNPROXY_OPT_TIMESTAMP: u32 = 0x8;
pub(crate) const NF_SYNPROXY_OPT_WSCALE: u32 = 0x2;

// Classes of traffic control (linux/pkt_sched.h).
pub(crate) const TC_H_ROOT: u32 = 0xffffffff;
pub(crate) const TC_H_UNSPEC: u32 = 0x0;

// Directions of IPsec transforms (linux/xfrm.h).
pub(crate) const XFRM_POLICY_IN: u8 = 0;
pub(crate) const XFRM_POLICY_OUT: u8 = 1;

// `inner`. Linux 6.2; the numbers of nft for GRE are not the kernel's.
pub(crate) const NFTA_INNER_NUM: u16 = 1;
pub(crate) const NFTA_INNER_TYPE: u16 = 2;
pub(crate) const NFTA_INNER_FLAGS: u16 = 3;
pub(crate) const NFTA_INNER_HDRSIZE: u16 = 4;
pub(crate) const NFTA_INNER_EXPR: u16 = 5;
pub(crate) const NFT_INNER_VXLAN: u32 = 1;
pub(crate) const NFT_INNER_GENEVE: u32 = 2;
pub(crate) const NFT_INNER_HDRSIZE: u32 = 0x1;
pub(crate) const NFT_INNER_LL: u32 = 0x2;
pub(crate) const NFT_INNER_NH: u32 = 0x4;
pub(crate) const NFT_INNER_TH: u32 = 0x8;
pub(crate) const NFT_PAYLOAD_TUN_HEADER: u32 = 4;
