//! What MTU the interface leaves for pods.

use super::{NodeError, NodeFacts};
use crate::config::Backend;

/// Least MTU with which an interface has IPv6, in bytes (include/uapi/linux/ipv6.h).
pub(super) const IPV6_MIN_MTU: u32 = 1280;

/// MTUs in bytes for one backend on one node.
///
/// | backend | `ipv4_device` | `ipv6_device` | `pods` |
/// |---|---|---|---|
/// | vxlan | underlay − 50 | underlay − 70, at least 1280 | `ipv4_device`; `ipv6_device` without IPv4 |
/// | ipip | interface − 20 | – | `ipv4_device` |
/// | udp | interface − 28 | – | `ipv4_device` |
/// | wireguard | underlay − 80 | underlay − 80, at least 1280 | `ipv4_device`; `ipv6_device` without IPv4 |
/// | host-gw, alloc | – | – | interface |
///
/// For vxlan and wireguard the underlay is `Backend.MTU`, as with upstream, or the interface's if that is not set, or has become lower.
/// Upstream writes underlay − 50 for pods in every case. In dual stack so does flanneld: the kernel answers an IPv6 packet
/// that is up to 20 bytes too large with "packet too big", and the pod sends smaller ones from then on. docs/design.md has
/// the reasons.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mtus {
    /// Of the IPv4 device; `None` without one.
    pub ipv4_device: Option<u32>,
    /// Of the IPv6 device; `None` without one.
    pub ipv6_device: Option<u32>,
    /// What pods may send: `FLANNEL_MTU`.
    pub pods: u32,
}

impl NodeFacts {
    /// Checks that `backend` works on this node, and returns the MTUs. In dual stack an interface that is too small for
    /// IPv6 leaves IPv4: `ipv6_device` is `None` then.
    ///
    /// # Errors
    /// [`NodeError::NatUnderHostGw`], [`NodeError::MtuTooSmall`].
    pub fn mtus(&self, backend: &Backend) -> Result<Mtus, NodeError> {
        match backend {
            Backend::Vxlan(vxlan) => {
                let underlay = vxlan.mtu.map_or(self.mtu, |mtu| self.mtu.min(mtu.into()));
                // Outer IP 20 or 40 + UDP 8 + VXLAN 8 + inner Ethernet 14.
                self.inside(underlay, 50, 70)
            }
            Backend::Wireguard(wireguard) => {
                let underlay = wireguard.mtu.map_or(self.mtu, |mtu| self.mtu.min(mtu.into()));
                // Outer IP 20 or 40 + UDP 8 + WireGuard 32; upstream takes 40 for both families.
                self.inside(underlay, 80, 80)
            }
            // Outer IP 20, with UDP 8.
            Backend::Ipip(_) => self.inside(self.mtu, 20, 0),
            Backend::Udp(_) => self.inside(self.mtu, 28, 0),
            Backend::HostGw => {
                let ipv4 = self.ipv4.map(|own| (own.public.into(), own.interface.into()));
                let ipv6 = self.ipv6.map(|own| (own.public.into(), own.interface.into()));
                match ipv4.into_iter().chain(ipv6).find(|(public, interface)| public != interface) {
                    Some((public, interface)) => Err(NodeError::NatUnderHostGw { public, interface }),
                    None => Ok(Mtus { ipv4_device: None, ipv6_device: None, pods: self.mtu }),
                }
            }
            Backend::Alloc => Ok(Mtus { ipv4_device: None, ipv6_device: None, pods: self.mtu }),
        }
    }

    /// What headers of these lengths leave of the underlay's MTU.
    fn inside(&self, underlay: u32, ipv4: u32, ipv6: u32) -> Result<Mtus, NodeError> {
        let inside = |in_use: bool, overhead: u32, family, least| match underlay.saturating_sub(overhead) {
            _ if !in_use => Ok(None),
            left if left >= least => Ok(Some(left)),
            left => {
                let interface = self.interface.clone();
                Err(NodeError::MtuTooSmall { interface, underlay, left, family, least })
            }
        };
        let ipv4_device = inside(self.ipv4.is_some(), ipv4, "IPv4", 68)?;
        let ipv6_device = match inside(self.ipv6.is_some(), ipv6, "IPv6", IPV6_MIN_MTU) {
            // IPv4 works all the same.
            Err(_too_small) if ipv4_device.is_some() => None,
            device => device?,
        };
        let pods = ipv4_device.or(ipv6_device).unwrap_or(underlay);
        Ok(Mtus { ipv4_device, ipv6_device, pods })
    }

    /// Checks that the interface carries `Backend.MTU`. A node that is to run with it for the first time must not start
    /// otherwise; one that has run with it before its link shrank goes on with what the link carries ([`Self::mtus`]).
    ///
    /// # Errors
    /// [`NodeError::MtuAboveUnderlay`].
    pub fn carries(&self, backend: &Backend) -> Result<(), NodeError> {
        match backend.mtu() {
            Some(configured) if configured > self.mtu => Err(NodeError::MtuAboveUnderlay {
                interface: self.interface.clone(),
                configured,
                carried: self.mtu,
            }),
            _ => Ok(()),
        }
    }

    /// Warns if the interface carries less than `Backend.MTU`.
    pub fn warn_of_mtu(&self, backend: &Backend) {
        if let Err(problem) = self.carries(backend) {
            tracing::warn!("{problem}; until then flanneld uses an MTU of {}", self.mtu);
        }
    }
}
