//! What MTU the interface leaves for pods.

use flannel_vxlan::{Family, IpipSpec, OverlayMtu, UnderlayMtu, ValueError};

use super::{NodeError, NodeFacts};
use crate::config::Backend;

/// MTUs for one backend on one node.
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
    pub ipv4_device: Option<OverlayMtu>,
    /// Of the IPv6 device; `None` without one.
    pub ipv6_device: Option<OverlayMtu>,
    /// What pods may send, in bytes: `FLANNEL_MTU`.
    pub pods: u32,
}

impl NodeFacts {
    /// Checks that `backend` works on this node, and returns the MTUs. In dual stack an interface that is too small for
    /// IPv6 leaves IPv4: `ipv6_device` is `None` then.
    ///
    /// # Errors
    /// [`NodeError::NatUnderHostGw`], [`NodeError::MtuTooSmall`].
    pub fn mtus(&self, backend: &Backend) -> Result<Mtus, NodeError> {
        let underlay = backend.mtu().map_or(self.mtu, |mtu| self.mtu.min(mtu));
        match backend {
            Backend::Vxlan(_) => self.inside(underlay, UnderlayMtu::inside_vxlan),
            Backend::Wireguard(_) => self.inside(underlay, UnderlayMtu::inside_wireguard),
            Backend::Ipip(_) => self.inside(underlay, |underlay, _| underlay.inside_ipip(IpipSpec::new())),
            Backend::Udp(udp) => {
                self.inside(underlay, |underlay, _| underlay.inside_ipip(IpipSpec::new().fou(udp.port)))
            }
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

    /// What a tunnel leaves of the underlay's MTU, in bytes, for each family.
    fn inside(
        &self,
        underlay: u32,
        tunnel: impl Fn(UnderlayMtu, Family) -> Result<OverlayMtu, ValueError>,
    ) -> Result<Mtus, NodeError> {
        let inside = |family| {
            let mtu = tunnel(UnderlayMtu::new(underlay), family);
            mtu.map_err(|source| NodeError::MtuTooSmall {
                interface: self.interface.clone(),
                underlay,
                source,
            })
        };
        let ipv4_device = self.ipv4.map(|_| inside(Family::V4)).transpose()?;
        let ipv6_device = match self.ipv6.map(|_| inside(Family::V6)).transpose() {
            // IPv4 works all the same.
            Err(_too_small) if ipv4_device.is_some() => None,
            device => device?,
        };
        let pods = ipv4_device.or(ipv6_device).map_or(underlay, OverlayMtu::bytes);
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
            tracing::warn!(
                "{problem}; until then flanneld uses an MTU of {}, and traffic is not affected",
                self.mtu
            );
        }
    }
}
