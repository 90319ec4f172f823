//! What an overlay is made of.

pub(crate) mod device;
pub(crate) mod family;
pub(crate) mod if_name;
pub(crate) mod mac;
pub(crate) mod mtu;
pub(crate) mod objects;
pub(crate) mod peer;
pub(crate) mod vni;
