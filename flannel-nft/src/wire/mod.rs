//! How objects travel: attributes of nf_tables messages (include/uapi/linux/netfilter/nf_tables.h).

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod exprs;

/// Message types, with `NFNL_SUBSYS_NFTABLES` in the high byte.
pub(crate) mod message {
    pub(crate) const NEWTABLE: u16 = 0xa00;
    pub(crate) const GETTABLE: u16 = 0xa01;
    pub(crate) const DELTABLE: u16 = 0xa02;
    pub(crate) const NEWCHAIN: u16 = 0xa03;
    pub(crate) const GETCHAIN: u16 = 0xa04;
    pub(crate) const DELCHAIN: u16 = 0xa05;
    pub(crate) const NEWRULE: u16 = 0xa06;
    pub(crate) const GETRULE: u16 = 0xa07;
    pub(crate) const DELRULE: u16 = 0xa08;
    pub(crate) const NEWSET: u16 = 0xa09;
    pub(crate) const GETSET: u16 = 0xa0a;
    pub(crate) const DELSET: u16 = 0xa0b;
    pub(crate) const NEWSETELEM: u16 = 0xa0c;
    pub(crate) const GETSETELEM: u16 = 0xa0d;
    pub(crate) const DELSETELEM: u16 = 0xa0e;
    pub(crate) const NEWGEN: u16 = 0xa0f;
    pub(crate) const GETGEN: u16 = 0xa10;
    pub(crate) const NEWOBJ: u16 = 0xa12;
    pub(crate) const GETOBJ: u16 = 0xa13;
    pub(crate) const DELOBJ: u16 = 0xa14;
    pub(crate) const BATCH_BEGIN: u16 = 0x10;
    pub(crate) const BATCH_END: u16 = 0x11;
}

/// `struct nfgenmsg`.
pub(crate) fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}
