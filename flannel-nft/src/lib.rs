//! Atomic nftables transactions over netlink, without the nft binary.
