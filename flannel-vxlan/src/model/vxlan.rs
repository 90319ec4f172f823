//! A VXLAN device: its options, as desired and as observed.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::model::mac::MacAddr;
use crate::model::vni::Vni;

/// The options of a VXLAN device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct VxlanSpec {
    /// Identifier of the overlay network.
    pub vni: Vni,
    /// MAC address, which peers have in their neighbor entries.
    pub mac: MacAddr,
    /// UDP destination port. Default: [`VxlanSpec::PORT`].
    pub port: NonZeroU16,
    /// Whether the kernel learns FDB entries from received frames. Default: no.
    pub learning: bool,
    /// Whether frames carry the group policy extension. Default: no.
    pub gbp: bool,
    /// Whether the network card computes the checksums of inner packets. Default: unchanged.
    pub tx_checksum: Option<bool>,
}

impl VxlanSpec {
    /// The default UDP port: 8472, which Linux used before IANA assigned 4789.
    pub const PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(8471);

    /// The defaults of upstream flannel.
    #[must_use]
    pub fn new(vni: Vni, mac: MacAddr) -> Self {
        Self { vni, mac, port: Self::PORT, learning: false, gbp: false, tx_checksum: None }
    }

    /// Sets the UDP destination port. Default: [`VxlanSpec::PORT`].
    #[must_use]
    pub fn port(mut self, port: NonZeroU16) -> Self {
        self.port = port;
        self
    }

    /// Sets whether the kernel learns FDB entries from received frames. Default: no.
    #[must_use]
    pub fn learning(mut self, learning: bool) -> Self {
        self.learning = learning;
        self
    }

    /// Sets whether frames carry a group policy (`VXLAN_F_GBP`). Default: no. A change recreates the device.
    #[must_use]
    pub fn gbp(mut self, gbp: bool) -> Self {
        self.gbp = gbp;
        self
    }

    /// Sets whether the network card computes the checksums of inner packets (`tx-checksum-ip-generic`). Default:
    /// `None`, unchanged. Turn it off if packets behind NAT have wrong checksums, as with some cards and kernels.
    #[must_use]
    pub fn tx_checksum(mut self, offload: Option<bool>) -> Self {
        self.tx_checksum = offload;
        self
    }
}

/// The VXLAN options of an [`ObservedDevice`](crate::ObservedDevice).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ObservedVxlan {
    /// `IFLA_VXLAN_ID`.
    pub vni: u32,
    /// `IFLA_VXLAN_LINK`; 0 if not bound to an interface.
    pub underlay: u32,
    /// `IFLA_VXLAN_LOCAL` or `IFLA_VXLAN_LOCAL6`.
    pub local: Option<IpAddr>,
    /// `IFLA_VXLAN_PORT`.
    pub port: u16,
    /// `IFLA_VXLAN_LEARNING`.
    pub learning: bool,
    /// `IFLA_VXLAN_GBP`.
    pub gbp: bool,
    /// Whether an option that can be reset in place differs from the kernel's default: TTL, TOS, DF, flow label, ageing
    /// time, local bypass.
    pub resettable_options_differ: bool,
    /// Whether an option that cannot be changed in place differs from the kernel's default: default destination, proxy,
    /// route short-circuit, miss notifications, external control, GPE, VNI filter, address limit, source port range,
    /// inherited TTL, remote checksums, UDP checksums.
    pub fixed_options_differ: bool,
}
