//! Named objects and flowtables (linux/netfilter/nf_tables.h).

// Objects.
pub(crate) const NFTA_OBJ_TABLE: u16 = 1;
pub(crate) const NFTA_OBJ_NAME: u16 = 2;
pub(crate) const NFTA_OBJ_TYPE: u16 = 3;
pub(crate) const NFTA_OBJ_DATA: u16 = 4;
pub(crate) const NFTA_OBJ_USE: u16 = 5;
pub(crate) const NFTA_OBJ_HANDLE: u16 = 6;
pub(crate) const NFTA_OBJ_PAD: u16 = 7;
pub(crate) const NFTA_OBJ_USERDATA: u16 = 8;
pub(crate) const NFT_OBJECT_COUNTER: u32 = 1;
pub(crate) const NFTA_CT_EXPECT_L3PROTO: u16 = 1;
pub(crate) const NFTA_CT_EXPECT_L4PROTO: u16 = 2;
pub(crate) const NFTA_CT_EXPECT_DPORT: u16 = 3;
pub(crate) const NFTA_CT_EXPECT_TIMEOUT: u16 = 4;
pub(crate) const NFTA_CT_EXPECT_SIZE: u16 = 5;
pub(crate) const NFTA_CT_HELPER_NAME: u16 = 1;
pub(crate) const NFTA_CT_HELPER_L3PROTO: u16 = 2;
pub(crate) const NFTA_CT_HELPER_L4PROTO: u16 = 3;
pub(crate) const NFTA_CT_TIMEOUT_L3PROTO: u16 = 1;
pub(crate) const NFTA_CT_TIMEOUT_L4PROTO: u16 = 2;
pub(crate) const NFTA_CT_TIMEOUT_DATA: u16 = 3;
pub(crate) const NFTA_SECMARK_CTX: u16 = 1;

// Flowtables.
pub(crate) const NFTA_FLOWTABLE_TABLE: u16 = 1;
pub(crate) const NFTA_FLOWTABLE_NAME: u16 = 2;
pub(crate) const NFTA_FLOWTABLE_HOOK: u16 = 3;
pub(crate) const NFTA_FLOWTABLE_USE: u16 = 4;
pub(crate) const NFTA_FLOWTABLE_HANDLE: u16 = 5;
pub(crate) const NFTA_FLOWTABLE_PAD: u16 = 6;
pub(crate) const NFTA_FLOWTABLE_FLAGS: u16 = 7;
pub(crate) const NFTA_FLOWTABLE_HOOK_NUM: u16 = 1;
pub(crate) const NFTA_FLOWTABLE_HOOK_PRIORITY: u16 = 2;
pub(crate) const NFTA_FLOWTABLE_HOOK_DEVS: u16 = 3;
pub(crate) const NFT_FLOWTABLE_HW_OFFLOAD: u32 = 0x1;
pub(crate) const NFT_FLOWTABLE_COUNTER: u32 = 0x2;
