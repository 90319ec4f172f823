//! An IP-in-IP device: its options, as desired and as observed.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use crate::model::device::Link;

/// The options of an IP-in-IP device, which has no remote address of its own: the gateway of a route is the destination
/// of the outer packets. IPv4 only.
///
/// # Kernel
/// `ip link add flannel.ipip type ipip local LOCAL remote any`; with FOU also `dev eth0 encap fou encap-sport PORT
/// encap-dport PORT encap-csum`, and `ip fou add port PORT ipproto 4`
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct IpipSpec {
    /// Source and destination port of UDP datagrams that contain the inner packet (FOU, "foo over UDP"). Default: none,
    /// the inner packet follows the outer IP header.
    ///
    /// Upstream flannel's `udp` backend sends the same datagrams. A device with FOU is bound to the uplink, because the
    /// kernel allows one device per local address, remote address and link, and a device without FOU has no link.
    pub fou: Option<NonZeroU16>,
    /// Whether the network card computes the checksums of inner packets. Default: unchanged.
    pub tx_checksum: Option<bool>,
}

impl IpipSpec {
    /// The default port of FOU, as in upstream flannel's `udp` backend.
    pub const FOU_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(8284);

    /// A device without FOU.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends and receives the packets in UDP datagrams. Default: no.
    #[must_use]
    pub fn fou(mut self, port: NonZeroU16) -> Self {
        self.fou = Some(port);
        self
    }

    /// Sets whether the network card computes the checksums of inner packets (`tx-checksum-ip-generic`). Default:
    /// `None`, unchanged. Turn it off with FOU if a program receives the datagrams. A virtual card passes on packets
    /// whose checksums are missing. The kernel of a receiver on the same machine knows which they are; a program that
    /// reads the datagram, such as upstream flannel's daemon with its `udp` backend, does not.
    #[must_use]
    pub fn tx_checksum(mut self, offload: Option<bool>) -> Self {
        self.tx_checksum = offload;
        self
    }

    /// Index of the interface that the device is bound to; 0 for none.
    pub(crate) fn link(self, underlay: Link) -> u32 {
        if self.fou.is_some() { underlay.index } else { 0 }
    }
}

/// The options of an IP-in-IP device in the kernel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ObservedIpip {
    /// `IFLA_IPTUN_LINK`; 0 if not bound to an interface.
    pub underlay: u32,
    /// `IFLA_IPTUN_LOCAL`; `None` for any.
    pub local: Option<Ipv4Addr>,
    /// `IFLA_IPTUN_ENCAP_DPORT` of a device with FOU.
    pub fou: Option<u16>,
    /// Whether the kernel receives FOU datagrams at that port; `None` if unknown. A notification does not contain it.
    pub fou_receives: Option<bool>,
    /// Whether an option that can be changed in place differs from what this crate writes: TTL, TOS, path MTU discovery,
    /// mark, other source port or no checksum with FOU.
    pub resettable_options_differ: bool,
    /// Whether an option that cannot be changed in place differs from what this crate writes: remote address, external
    /// control, other encapsulation than FOU.
    pub fixed_options_differ: bool,
}
