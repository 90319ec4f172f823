//! Numbers of the kernel's interface, under the names that they have in its headers (include/uapi/linux).
//!
//! The rest of the crate has no other numbers for the kernel. The test compares them with the installed headers.

mod expressions;
mod objects;

pub(crate) use expressions::*;
pub(crate) use objects::*;

// Messages (linux/netfilter/nfnetlink.h, nf_tables.h).
pub(crate) const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub(crate) const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
pub(crate) const NFNL_MSG_BATCH_END: u16 = 0x11;
pub(crate) const NFNL_BATCH_GENID: u16 = 1;
pub(crate) const NFT_MSG_NEWTABLE: u16 = 0;
pub(crate) const NFT_MSG_GETTABLE: u16 = 1;
pub(crate) const NFT_MSG_DELTABLE: u16 = 2;
pub(crate) const NFT_MSG_NEWCHAIN: u16 = 3;
pub(crate) const NFT_MSG_GETCHAIN: u16 = 4;
pub(crate) const NFT_MSG_DELCHAIN: u16 = 5;
pub(crate) const NFT_MSG_NEWRULE: u16 = 6;
pub(crate) const NFT_MSG_GETRULE: u16 = 7;
pub(crate) const NFT_MSG_DELRULE: u16 = 8;
pub(crate) const NFT_MSG_NEWSET: u16 = 9;
pub(crate) const NFT_MSG_GETSET: u16 = 10;
pub(crate) const NFT_MSG_DELSET: u16 = 11;
pub(crate) const NFT_MSG_NEWSETELEM: u16 = 12;
pub(crate) const NFT_MSG_GETSETELEM: u16 = 13;
pub(crate) const NFT_MSG_DELSETELEM: u16 = 14;
pub(crate) const NFT_MSG_NEWGEN: u16 = 15;
pub(crate) const NFT_MSG_GETGEN: u16 = 16;
pub(crate) const NFT_MSG_NEWOBJ: u16 = 18;
pub(crate) const NFT_MSG_GETOBJ: u16 = 19;
pub(crate) const NFT_MSG_DELOBJ: u16 = 20;
pub(crate) const NFT_MSG_NEWFLOWTABLE: u16 = 22;
pub(crate) const NFT_MSG_GETFLOWTABLE: u16 = 23;
pub(crate) const NFT_MSG_DELFLOWTABLE: u16 = 24;

// Multicast group of all changes.
pub(crate) const NFNLGRP_NFTABLES: u32 = 7;

// Attributes (linux/netlink.h).
pub(crate) const NLA_F_NESTED: u16 = 0x8000;

// Families (linux/netfilter.h).
pub(crate) const NFPROTO_UNSPEC: u8 = 0;
pub(crate) const NFPROTO_INET: u8 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_ARP: u8 = 3;
pub(crate) const NFPROTO_NETDEV: u8 = 5;
pub(crate) const NFPROTO_BRIDGE: u8 = 7;
pub(crate) const NFPROTO_IPV6: u8 = 10;

// Hooks (linux/netfilter.h, linux/netfilter_arp.h).
pub(crate) const NF_INET_PRE_ROUTING: u32 = 0;
pub(crate) const NF_INET_LOCAL_IN: u32 = 1;
pub(crate) const NF_INET_FORWARD: u32 = 2;
pub(crate) const NF_INET_LOCAL_OUT: u32 = 3;
pub(crate) const NF_INET_POST_ROUTING: u32 = 4;
pub(crate) const NF_INET_INGRESS: u32 = 5;
pub(crate) const NF_NETDEV_INGRESS: u32 = 0;
pub(crate) const NF_NETDEV_EGRESS: u32 = 1;
pub(crate) const NF_ARP_IN: u32 = 0;
pub(crate) const NF_ARP_OUT: u32 = 1;

// Verdicts (linux/netfilter.h, nf_tables.h).
pub(crate) const NF_DROP: i32 = 0;
pub(crate) const NF_ACCEPT: i32 = 1;
pub(crate) const NFT_CONTINUE: i32 = -1;
pub(crate) const NFT_JUMP: i32 = -3;
pub(crate) const NFT_GOTO: i32 = -4;
pub(crate) const NFT_RETURN: i32 = -5;

// Generation.
pub(crate) const NFTA_GEN_ID: u16 = 1;
pub(crate) const NFTA_GEN_PROC_PID: u16 = 2;
pub(crate) const NFTA_GEN_PROC_NAME: u16 = 3;

// Tables.
pub(crate) const NFTA_TABLE_NAME: u16 = 1;
pub(crate) const NFTA_TABLE_FLAGS: u16 = 2;
pub(crate) const NFTA_TABLE_USE: u16 = 3;
pub(crate) const NFTA_TABLE_HANDLE: u16 = 4;
pub(crate) const NFTA_TABLE_PAD: u16 = 5;
pub(crate) const NFTA_TABLE_USERDATA: u16 = 6;
pub(crate) const NFTA_TABLE_OWNER: u16 = 7;
pub(crate) const NFT_TABLE_F_DORMANT: u32 = 0x1;
pub(crate) const NFT_TABLE_F_OWNER: u32 = 0x2;
pub(crate) const NFT_TABLE_F_PERSIST: u32 = 0x4;

// Chains.
pub(crate) const NFTA_CHAIN_TABLE: u16 = 1;
pub(crate) const NFTA_CHAIN_HANDLE: u16 = 2;
pub(crate) const NFTA_CHAIN_NAME: u16 = 3;
pub(crate) const NFTA_CHAIN_HOOK: u16 = 4;
pub(crate) const NFTA_CHAIN_POLICY: u16 = 5;
pub(crate) const NFTA_CHAIN_USE: u16 = 6;
pub(crate) const NFTA_CHAIN_TYPE: u16 = 7;
pub(crate) const NFTA_CHAIN_COUNTERS: u16 = 8;
pub(crate) const NFTA_CHAIN_PAD: u16 = 9;
pub(crate) const NFTA_CHAIN_FLAGS: u16 = 10;
pub(crate) const NFTA_CHAIN_ID: u16 = 11;
pub(crate) const NFTA_CHAIN_USERDATA: u16 = 12;
pub(crate) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(crate) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(crate) const NFTA_HOOK_DEV: u16 = 3;
pub(crate) const NFTA_HOOK_DEVS: u16 = 4;
pub(crate) const NFTA_DEVICE_NAME: u16 = 1;
pub(crate) const NFTA_DEVICE_PREFIX: u16 = 2;
pub(crate) const NFT_CHAIN_BASE: u32 = 0x1;
pub(crate) const NFT_CHAIN_BINDING: u32 = 0x4;

// Rules.
pub(crate) const NFTA_RULE_TABLE: u16 = 1;
pub(crate) const NFTA_RULE_CHAIN: u16 = 2;
pub(crate) const NFTA_RULE_HANDLE: u16 = 3;
pub(crate) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(crate) const NFTA_RULE_POSITION: u16 = 6;
pub(crate) const NFTA_RULE_USERDATA: u16 = 7;
pub(crate) const NFTA_RULE_PAD: u16 = 8;
pub(crate) const NFTA_RULE_POSITION_ID: u16 = 10;
pub(crate) const NFTA_RULE_CHAIN_ID: u16 = 11;

// Sets and maps.
pub(crate) const NFTA_SET_TABLE: u16 = 1;
pub(crate) const NFTA_SET_NAME: u16 = 2;
pub(crate) const NFTA_SET_FLAGS: u16 = 3;
pub(crate) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(crate) const NFTA_SET_KEY_LEN: u16 = 5;
pub(crate) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(crate) const NFTA_SET_DATA_LEN: u16 = 7;
pub(crate) const NFTA_SET_POLICY: u16 = 8;
pub(crate) const NFTA_SET_DESC: u16 = 9;
pub(crate) const NFTA_SET_ID: u16 = 10;
pub(crate) const NFTA_SET_TIMEOUT: u16 = 11;
pub(crate) const NFTA_SET_GC_INTERVAL: u16 = 12;
pub(crate) const NFTA_SET_USERDATA: u16 = 13;
pub(crate) const NFTA_SET_PAD: u16 = 14;
pub(crate) const NFTA_SET_OBJ_TYPE: u16 = 15;
pub(crate) const NFTA_SET_EXPR: u16 = 17;
pub(crate) const NFTA_SET_EXPRESSIONS: u16 = 18;
pub(crate) const NFTA_SET_HANDLE: u16 = 16;
pub(crate) const NFTA_SET_TYPE: u16 = 19;
pub(crate) const NFTA_SET_COUNT: u16 = 20;
pub(crate) const NFTA_SET_DESC_SIZE: u16 = 1;
pub(crate) const NFTA_SET_DESC_CONCAT: u16 = 2;
pub(crate) const NFTA_SET_FIELD_LEN: u16 = 1;
pub(crate) const NFT_SET_POL_MEMORY: u32 = 1;
pub(crate) const NFT_SET_ANONYMOUS: u32 = 0x1;
pub(crate) const NFT_SET_CONSTANT: u32 = 0x2;
pub(crate) const NFT_SET_INTERVAL: u32 = 0x4;
pub(crate) const NFT_SET_MAP: u32 = 0x8;
pub(crate) const NFT_SET_TIMEOUT: u32 = 0x10;
pub(crate) const NFT_SET_EVAL: u32 = 0x20;
pub(crate) const NFT_SET_OBJECT: u32 = 0x40;
pub(crate) const NFT_SET_CONCAT: u32 = 0x80;
pub(crate) const NFT_DATA_VERDICT: u32 = 0xffffff00;

// Elements.
pub(crate) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(crate) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(crate) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(crate) const NFTA_SET_ELEM_LIST_SET_ID: u16 = 4;
pub(crate) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(crate) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(crate) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(crate) const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
pub(crate) const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
pub(crate) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(crate) const NFTA_SET_ELEM_EXPR: u16 = 7;
pub(crate) const NFTA_SET_ELEM_PAD: u16 = 8;
pub(crate) const NFTA_SET_ELEM_OBJREF: u16 = 9;
pub(crate) const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub(crate) const NFTA_SET_ELEM_EXPRESSIONS: u16 = 11;
pub(crate) const NFT_SET_ELEM_INTERVAL_END: u32 = 0x1;
pub(crate) const NFT_SET_ELEM_CATCHALL: u32 = 0x2;

// Expressions.
pub(crate) const NFTA_LIST_ELEM: u16 = 1;
pub(crate) const NFTA_EXPR_NAME: u16 = 1;
pub(crate) const NFTA_EXPR_DATA: u16 = 2;
pub(crate) const NFTA_DATA_VALUE: u16 = 1;
pub(crate) const NFTA_DATA_VERDICT: u16 = 2;
pub(crate) const NFTA_VERDICT_CODE: u16 = 1;
pub(crate) const NFTA_VERDICT_CHAIN: u16 = 2;
pub(crate) const NFTA_VERDICT_CHAIN_ID: u16 = 3;
pub(crate) const NFT_REG_VERDICT: u32 = 0;
pub(crate) const NFT_REG_1: u32 = 1;
pub(crate) const NFT_REG_2: u32 = 2;
pub(crate) const NFT_REG_4: u32 = 4;

// `bitwise`.
pub(crate) const NFTA_BITWISE_SREG: u16 = 1;
pub(crate) const NFTA_BITWISE_DREG: u16 = 2;
pub(crate) const NFTA_BITWISE_LEN: u16 = 3;
pub(crate) const NFTA_BITWISE_MASK: u16 = 4;
pub(crate) const NFTA_BITWISE_XOR: u16 = 5;
pub(crate) const NFTA_BITWISE_OP: u16 = 6;
pub(crate) const NFTA_BITWISE_DATA: u16 = 7;

// `byteorder`.
pub(crate) const NFTA_BYTEORDER_SREG: u16 = 1;
pub(crate) const NFTA_BYTEORDER_DREG: u16 = 2;
pub(crate) const NFTA_BYTEORDER_OP: u16 = 3;
pub(crate) const NFTA_BYTEORDER_LEN: u16 = 4;
pub(crate) const NFTA_BYTEORDER_SIZE: u16 = 5;
pub(crate) const NFT_BYTEORDER_HTON: u32 = 1;

// `cmp`.
pub(crate) const NFTA_CMP_SREG: u16 = 1;
pub(crate) const NFTA_CMP_OP: u16 = 2;
pub(crate) const NFTA_CMP_DATA: u16 = 3;
pub(crate) const NFT_CMP_EQ: u32 = 0;
pub(crate) const NFT_CMP_NEQ: u32 = 1;
pub(crate) const NFT_CMP_LTE: u32 = 3;
pub(crate) const NFT_CMP_GTE: u32 = 5;

// `counter`.
pub(crate) const NFTA_COUNTER_BYTES: u16 = 1;
pub(crate) const NFTA_COUNTER_PACKETS: u16 = 2;

// `ct`.
pub(crate) const NFTA_CT_DREG: u16 = 1;
pub(crate) const NFTA_CT_KEY: u16 = 2;
pub(crate) const NFTA_CT_DIRECTION: u16 = 3;
pub(crate) const NFTA_CT_SREG: u16 = 4;
pub(crate) const NFT_CT_STATE: u32 = 0;
pub(crate) const NFT_CT_DIRECTION: u32 = 1;
pub(crate) const NFT_CT_STATUS: u32 = 2;
pub(crate) const NFT_CT_MARK: u32 = 3;

// Connections (linux/netfilter/nf_conntrack_common.h, nf_conntrack_tuple_common.h).
pub(crate) const IP_CT_ESTABLISHED: u32 = 0;
pub(crate) const IP_CT_RELATED: u32 = 1;
pub(crate) const IP_CT_NEW: u32 = 2;
pub(crate) const NF_CT_STATE_INVALID_BIT: u32 = 0x1;
pub(crate) const NF_CT_STATE_UNTRACKED_BIT: u32 = 0x40;
pub(crate) const IPS_EXPECTED: u32 = 0x1;
pub(crate) const IPS_SEEN_REPLY: u32 = 0x2;
pub(crate) const IPS_ASSURED: u32 = 0x4;
pub(crate) const IPS_CONFIRMED: u32 = 0x8;
pub(crate) const IPS_SRC_NAT: u32 = 0x10;
pub(crate) const IPS_DST_NAT: u32 = 0x20;
pub(crate) const IPS_DYING: u32 = 0x200;
pub(crate) const IP_CT_DIR_ORIGINAL: u8 = 0;
pub(crate) const IP_CT_DIR_REPLY: u8 = 1;

// `dynset`.
pub(crate) const NFTA_DYNSET_SET_NAME: u16 = 1;
pub(crate) const NFTA_DYNSET_SET_ID: u16 = 2;

// `exthdr`.
pub(crate) const NFTA_EXTHDR_DREG: u16 = 1;
pub(crate) const NFTA_EXTHDR_TYPE: u16 = 2;
pub(crate) const NFTA_EXTHDR_OFFSET: u16 = 3;
pub(crate) const NFTA_EXTHDR_LEN: u16 = 4;
pub(crate) const NFTA_EXTHDR_FLAGS: u16 = 5;
pub(crate) const NFTA_EXTHDR_OP: u16 = 6;
pub(crate) const NFTA_EXTHDR_SREG: u16 = 7;
pub(crate) const NFT_EXTHDR_OP_TCPOPT: u32 = 1;

// `fib`.
pub(crate) const NFTA_FIB_DREG: u16 = 1;
pub(crate) const NFTA_FIB_RESULT: u16 = 2;
pub(crate) const NFTA_FIB_FLAGS: u16 = 3;
pub(crate) const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub(crate) const NFTA_FIB_F_SADDR: u32 = 0x1;
pub(crate) const NFTA_FIB_F_DADDR: u32 = 0x2;

// Types of addresses (linux/rtnetlink.h).
pub(crate) const RTN_UNSPEC: u32 = 0;
pub(crate) const RTN_UNICAST: u32 = 1;
pub(crate) const RTN_LOCAL: u32 = 2;
pub(crate) const RTN_BROADCAST: u32 = 3;
pub(crate) const RTN_ANYCAST: u32 = 4;
pub(crate) const RTN_MULTICAST: u32 = 5;
pub(crate) const RTN_BLACKHOLE: u32 = 6;
pub(crate) const RTN_UNREACHABLE: u32 = 7;
pub(crate) const RTN_PROHIBIT: u32 = 8;

// `flow_offload`.
pub(crate) const NFTA_FLOW_TABLE_NAME: u16 = 1;

// `immediate`.
pub(crate) const NFTA_IMMEDIATE_DREG: u16 = 1;
pub(crate) const NFTA_IMMEDIATE_DATA: u16 = 2;

// `limit`.
pub(crate) const NFTA_LIMIT_RATE: u16 = 1;
pub(crate) const NFTA_LIMIT_UNIT: u16 = 2;
pub(crate) const NFTA_LIMIT_BURST: u16 = 3;
pub(crate) const NFTA_LIMIT_TYPE: u16 = 4;
pub(crate) const NFTA_LIMIT_FLAGS: u16 = 5;
pub(crate) const NFT_LIMIT_PKTS: u32 = 0;
pub(crate) const NFT_LIMIT_PKT_BYTES: u32 = 1;
pub(crate) const NFT_LIMIT_F_INV: u32 = 0x1;

// `log` (flags: linux/netfilter/nf_log.h).
pub(crate) const NFTA_LOG_GROUP: u16 = 1;
pub(crate) const NFTA_LOG_PREFIX: u16 = 2;
pub(crate) const NFTA_LOG_SNAPLEN: u16 = 3;
pub(crate) const NFTA_LOG_QTHRESHOLD: u16 = 4;
pub(crate) const NFTA_LOG_LEVEL: u16 = 5;
pub(crate) const NFTA_LOG_FLAGS: u16 = 6;
pub(crate) const NFT_LOGLEVEL_WARNING: u32 = 4;
pub(crate) const NF_LOG_TCPSEQ: u32 = 0x1;
pub(crate) const NF_LOG_TCPOPT: u32 = 0x2;
pub(crate) const NF_LOG_IPOPT: u32 = 0x4;
pub(crate) const NF_LOG_UID: u32 = 0x8;
pub(crate) const NF_LOG_MACDECODE: u32 = 0x20;
pub(crate) const NF_LOG_MASK: u32 = 0x2f;

// `lookup`.
pub(crate) const NFTA_LOOKUP_SET: u16 = 1;
pub(crate) const NFTA_LOOKUP_SREG: u16 = 2;
pub(crate) const NFTA_LOOKUP_DREG: u16 = 3;
pub(crate) const NFTA_LOOKUP_SET_ID: u16 = 4;
pub(crate) const NFTA_LOOKUP_FLAGS: u16 = 5;
pub(crate) const NFT_LOOKUP_F_INV: u32 = 0x1;

// `masq`.
pub(crate) const NFTA_MASQ_FLAGS: u16 = 1;
pub(crate) const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
pub(crate) const NFTA_MASQ_REG_PROTO_MAX: u16 = 3;

// `meta`.
pub(crate) const NFTA_META_DREG: u16 = 1;
pub(crate) const NFTA_META_KEY: u16 = 2;
pub(crate) const NFTA_META_SREG: u16 = 3;
pub(crate) const NFT_META_MARK: u32 = 3;
pub(crate) const NFT_META_IIF: u32 = 4;
pub(crate) const NFT_META_OIF: u32 = 5;
pub(crate) const NFT_META_IIFNAME: u32 = 6;
pub(crate) const NFT_META_OIFNAME: u32 = 7;
pub(crate) const NFT_META_NFPROTO: u32 = 15;
pub(crate) const NFT_META_L4PROTO: u32 = 16;
pub(crate) const NFT_META_PKTTYPE: u32 = 19;

// Packet types (linux/if_packet.h).
pub(crate) const PACKET_HOST: u8 = 0;
pub(crate) const PACKET_BROADCAST: u8 = 1;
pub(crate) const PACKET_MULTICAST: u8 = 2;
pub(crate) const PACKET_OTHERHOST: u8 = 3;

// `nat` (flags: linux/netfilter/nf_nat.h).
pub(crate) const NFTA_NAT_TYPE: u16 = 1;
pub(crate) const NFTA_NAT_FAMILY: u16 = 2;
pub(crate) const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
pub(crate) const NFTA_NAT_REG_ADDR_MAX: u16 = 4;
pub(crate) const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
pub(crate) const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
pub(crate) const NFTA_NAT_FLAGS: u16 = 7;
pub(crate) const NFT_NAT_SNAT: u32 = 0;
pub(crate) const NFT_NAT_DNAT: u32 = 1;
pub(crate) const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 0x2;
pub(crate) const NF_NAT_RANGE_PROTO_RANDOM: u32 = 0x4;
pub(crate) const NF_NAT_RANGE_PERSISTENT: u32 = 0x8;
pub(crate) const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 0x10;

// `objref`.
pub(crate) const NFTA_OBJREF_IMM_TYPE: u16 = 1;
pub(crate) const NFTA_OBJREF_IMM_NAME: u16 = 2;
pub(crate) const NFTA_OBJREF_SET_NAME: u16 = 4;
pub(crate) const NFTA_OBJREF_SET_ID: u16 = 5;

// `osf`.
pub(crate) const NFTA_OSF_FLAGS: u16 = 3;

// `payload`.
pub(crate) const NFTA_PAYLOAD_DREG: u16 = 1;
pub(crate) const NFTA_PAYLOAD_BASE: u16 = 2;
pub(crate) const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub(crate) const NFTA_PAYLOAD_LEN: u16 = 4;
pub(crate) const NFTA_PAYLOAD_SREG: u16 = 5;
pub(crate) const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
pub(crate) const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;

// `quota`.
pub(crate) const NFTA_QUOTA_FLAGS: u16 = 2;
pub(crate) const NFTA_QUOTA_CONSUMED: u16 = 4;
pub(crate) const NFT_QUOTA_F_INV: u32 = 0x1;

// `range`.
pub(crate) const NFTA_RANGE_SREG: u16 = 1;
pub(crate) const NFTA_RANGE_OP: u16 = 2;
pub(crate) const NFTA_RANGE_FROM_DATA: u16 = 3;
pub(crate) const NFTA_RANGE_TO_DATA: u16 = 4;
pub(crate) const NFT_RANGE_NEQ: u32 = 1;

// `redir`.
pub(crate) const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
pub(crate) const NFTA_REDIR_REG_PROTO_MAX: u16 = 2;
pub(crate) const NFTA_REDIR_FLAGS: u16 = 3;

// `reject`.
pub(crate) const NFTA_REJECT_TYPE: u16 = 1;
pub(crate) const NFTA_REJECT_ICMP_CODE: u16 = 2;
pub(crate) const NFT_REJECT_ICMP_UNREACH: u32 = 0;
pub(crate) const NFT_REJECT_TCP_RST: u32 = 1;
pub(crate) const NFT_REJECT_ICMPX_UNREACH: u32 = 2;

// Codes of `reject` (nf_tables.h, linux/icmp.h, linux/icmpv6.h).
pub(crate) const NFT_REJECT_ICMPX_NO_ROUTE: u8 = 0;
pub(crate) const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;
pub(crate) const NFT_REJECT_ICMPX_HOST_UNREACH: u8 = 2;
pub(crate) const NFT_REJECT_ICMPX_ADMIN_PROHIBITED: u8 = 3;
pub(crate) const ICMP_NET_UNREACH: u8 = 0;
pub(crate) const ICMP_HOST_UNREACH: u8 = 1;
pub(crate) const ICMP_PORT_UNREACH: u8 = 3;
pub(crate) const ICMP_PKT_FILTERED: u8 = 13;
pub(crate) const ICMPV6_NOROUTE: u8 = 0;
pub(crate) const ICMPV6_ADM_PROHIBITED: u8 = 1;
pub(crate) const ICMPV6_ADDR_UNREACH: u8 = 3;
pub(crate) const ICMPV6_PORT_UNREACH: u8 = 4;

// `rt`.
pub(crate) const NFTA_RT_DREG: u16 = 1;
pub(crate) const NFTA_RT_KEY: u16 = 2;
pub(crate) const NFT_RT_TCPMSS: u32 = 3;

// `match` and `target` of iptables-nft (linux/netfilter/nf_tables_compat.h).
pub(crate) const NFTA_MATCH_NAME: u16 = 1;
pub(crate) const NFTA_MATCH_INFO: u16 = 3;

#[cfg(test)]
mod tests {
    #[test]
    fn all_numbers_are_those_of_the_kernel_headers() {
        let headers = [
            "linux/in.h",
            "linux/if_arp.h",
            "linux/if_ether.h",
            "linux/icmp.h",
            "linux/icmpv6.h",
            "linux/if_packet.h",
            "linux/netfilter.h",
            "linux/netfilter_arp.h",
            "linux/netfilter/nf_conntrack_common.h",
            "linux/netfilter/nf_conntrack_tuple_common.h",
            "linux/netfilter/nf_log.h",
            "linux/netfilter/nf_nat.h",
            "linux/netfilter/nf_synproxy.h",
            "linux/netfilter/nf_tables.h",
            "linux/netfilter/nf_tables_compat.h",
            "linux/netfilter/nfnetlink.h",
            "linux/pkt_sched.h",
            "linux/rtnetlink.h",
            "linux/xfrm.h",
        ];
        // Linux 6.9; 6.14; 6.18.
        let newer = ["NFT_TABLE_F_PERSIST", "NFTA_SET_TYPE", "NFTA_SET_COUNT", "NFTA_DEVICE_PREFIX"];
        testkit::check_uapi(&headers, include_str!("uapi.rs"), &newer);
        let newer_expressions = [
            "NFT_BITWISE_AND", // 6.13, with the others
            "NFT_BITWISE_OR",
            "NFT_BITWISE_XOR",
            "NFTA_BITWISE_SREG2",
            "NFTA_INNER_NUM", // 6.2, with the others
            "NFTA_INNER_TYPE",
            "NFTA_INNER_FLAGS",
            "NFTA_INNER_HDRSIZE",
            "NFTA_INNER_EXPR",
            "NFT_INNER_VXLAN",
            "NFT_INNER_GENEVE",
            "NFT_INNER_HDRSIZE",
            "NFT_INNER_LL",
            "NFT_INNER_NH",
            "NFT_INNER_TH",
            "NFT_PAYLOAD_TUN_HEADER",
        ];
        testkit::check_uapi(&headers, include_str!("uapi/expressions.rs"), &newer_expressions);
        testkit::check_uapi(&headers, include_str!("uapi/objects.rs"), &newer);
    }
}
