//! The vocabulary of the crate: plain values without I/O.

pub(crate) mod device;
pub(crate) mod family;
pub(crate) mod family_spec;
pub(crate) mod flannel_device;
pub(crate) mod if_name;
pub(crate) mod interface;
pub(crate) mod ipip;
pub(crate) mod mac;
pub(crate) mod mtu;
pub(crate) mod objects;
pub(crate) mod peer;
pub(crate) mod vni;
pub(crate) mod vxlan;
pub(crate) mod wireguard;
pub(crate) mod wireguard_key;
