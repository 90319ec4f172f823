//! The attributes of nf_tables messages (include/uapi/linux/netfilter/nf_tables.h).

pub(crate) mod decode;
pub(crate) mod elements;
pub(crate) mod encode;
pub(crate) mod exprs;
pub(crate) mod objects;
pub(crate) mod references;
pub(crate) mod set_definition;
pub(crate) mod udata;

use flannel_netlink::{Attributes, Batch, Flags};

/// Message types, with the subsystem in the high byte.
pub(crate) mod message {
    use crate::uapi::*;

    pub(crate) const NEWTABLE: u16 = of(NFT_MSG_NEWTABLE);
    pub(crate) const GETTABLE: u16 = of(NFT_MSG_GETTABLE);
    pub(crate) const DELTABLE: u16 = of(NFT_MSG_DELTABLE);
    pub(crate) const NEWCHAIN: u16 = of(NFT_MSG_NEWCHAIN);
    pub(crate) const GETCHAIN: u16 = of(NFT_MSG_GETCHAIN);
    pub(crate) const DELCHAIN: u16 = of(NFT_MSG_DELCHAIN);
    pub(crate) const NEWRULE: u16 = of(NFT_MSG_NEWRULE);
    pub(crate) const GETRULE: u16 = of(NFT_MSG_GETRULE);
    pub(crate) const DELRULE: u16 = of(NFT_MSG_DELRULE);
    pub(crate) const NEWSET: u16 = of(NFT_MSG_NEWSET);
    pub(crate) const GETSET: u16 = of(NFT_MSG_GETSET);
    pub(crate) const DELSET: u16 = of(NFT_MSG_DELSET);
    pub(crate) const NEWSETELEM: u16 = of(NFT_MSG_NEWSETELEM);
    pub(crate) const GETSETELEM: u16 = of(NFT_MSG_GETSETELEM);
    pub(crate) const DELSETELEM: u16 = of(NFT_MSG_DELSETELEM);
    pub(crate) const NEWGEN: u16 = of(NFT_MSG_NEWGEN);
    pub(crate) const GETGEN: u16 = of(NFT_MSG_GETGEN);
    pub(crate) const NEWOBJ: u16 = of(NFT_MSG_NEWOBJ);
    pub(crate) const GETOBJ: u16 = of(NFT_MSG_GETOBJ);
    pub(crate) const DELOBJ: u16 = of(NFT_MSG_DELOBJ);
    pub(crate) const NEWFLOWTABLE: u16 = of(NFT_MSG_NEWFLOWTABLE);
    pub(crate) const GETFLOWTABLE: u16 = of(NFT_MSG_GETFLOWTABLE);
    pub(crate) const DELFLOWTABLE: u16 = of(NFT_MSG_DELFLOWTABLE);
    pub(crate) const BATCH_BEGIN: u16 = NFNL_MSG_BATCH_BEGIN;
    pub(crate) const BATCH_END: u16 = NFNL_MSG_BATCH_END;

    const fn of(kind: u16) -> u16 {
        NFNL_SUBSYS_NFTABLES << 8 | kind
    }

    /// Whether a message of this type belongs to nf_tables.
    pub(crate) const fn is_nf_tables(kind: u16) -> bool {
        kind >> 8 == NFNL_SUBSYS_NFTABLES
    }
}

/// The encoded attributes that `build` appends.
pub(crate) fn attribute_bytes(build: impl FnOnce(&mut Attributes<'_>)) -> Box<[u8]> {
    const NLMSG_HDRLEN: usize = 16; // struct nlmsghdr
    let mut message = Batch::new();
    message.message(0, Flags::NONE, &[], build);
    message.as_bytes().get(NLMSG_HDRLEN..).unwrap_or_default().into()
}

/// `struct nfgenmsg` of a message about a table of this family.
pub(crate) fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// `struct nfgenmsg` of the messages that begin and end a batch: the subsystem of the batch.
pub(crate) fn batch_header() -> [u8; 4] {
    let [high, low] = crate::uapi::NFNL_SUBSYS_NFTABLES.to_be_bytes();
    [crate::uapi::NFPROTO_UNSPEC, 0, high, low]
}
