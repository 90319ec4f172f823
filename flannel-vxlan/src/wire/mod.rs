//! The bytes of rtnetlink and of generic netlink families: requests are encoded here, and answers decoded.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod ethtool;
pub(crate) mod fou;
pub(crate) mod generic_netlink;
#[cfg(test)]
mod tests;
pub(crate) mod uapi;
pub(crate) mod wireguard;

use crate::model::family::Family;
use crate::wire::uapi::{AF_INET, AF_INET6};

pub(crate) fn address_family(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}
