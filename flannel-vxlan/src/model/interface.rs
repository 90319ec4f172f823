//! The host's interfaces and routes, for choosing the uplink of an overlay.
//!
//! Plain values: [`Kernel`](crate::Kernel) reads them, and the choice needs no I/O.

use std::net::IpAddr;

use crate::model::mac::MacAddr;

/// A network interface of the network namespace, with its addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interface {
    /// Kernel index (`ifi_index`); never 0.
    pub index: u32,
    /// Name, at most 15 bytes. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub name: String,
    /// Alternative names (`IFLA_ALT_IFNAME`), such as `enp1s0`: `ip link property add dev eth0 altname enp1s0`.
    pub alt_names: Vec<String>,
    /// Kind (`IFLA_INFO_KIND`), such as `bridge`; empty for hardware.
    pub kind: String,
    /// MAC address (`IFLA_ADDRESS`); `None` without one, such as a tunnel.
    pub mac: Option<MacAddr>,
    /// Whether this is the loopback interface (`IFF_LOOPBACK`).
    pub loopback: bool,
    /// MTU in bytes; 0 if the kernel reports none.
    pub mtu: u32,
    /// Whether the interface is administratively up (`IFF_UP`).
    pub up: bool,
    /// Addresses in the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
}

/// One address of an [`Interface`], with the flags that decide whether it can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InterfaceAddress {
    /// The local address.
    pub address: IpAddr,
    /// Length of the on-link prefix in bits.
    pub prefix_len: u8,
    /// `IFA_F_PERMANENT`: configured statically, not by DHCP or router advertisements.
    pub permanent: bool,
    /// `IFA_F_DEPRECATED`: the preferred lifetime is over; not to be used for new connections.
    pub deprecated: bool,
    /// `IFA_F_TEMPORARY`: an IPv6 privacy address (RFC 8981).
    pub temporary: bool,
    /// `IFA_F_TENTATIVE` without `IFA_F_OPTIMISTIC`: duplicate address detection has not finished.
    pub tentative: bool,
    /// `IFA_F_DADFAILED`: another host has this address.
    pub duplicate: bool,
}

impl InterfaceAddress {
    /// A permanent address that can be used: `ip address add ADDRESS/PREFIX_LEN dev eth0`.
    #[must_use]
    pub fn new(address: IpAddr, prefix_len: u8) -> Self {
        Self {
            address,
            prefix_len,
            permanent: true,
            deprecated: false,
            temporary: false,
            tentative: false,
            duplicate: false,
        }
    }
}

/// The kernel's route to an address, as `ip route get` prints it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouteLookup {
    /// Index of the outgoing interface.
    pub interface: u32,
    /// Source address that the kernel chooses.
    pub source: Option<IpAddr>,
    /// Gateway; `None` if the destination is on-link.
    pub gateway: Option<IpAddr>,
}

/// A default route of the main table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DefaultRoute {
    /// Index of the outgoing interface; for a multipath route, of its first hop.
    pub interface: u32,
    /// Metric (`RTA_PRIORITY`); the route with the lowest metric is used.
    pub metric: u32,
}
