//! The peers that the leases of other nodes stand for. Pure.

use std::net::{IpAddr, SocketAddr};

use flannel_lease::codec::{cut, quote};
use flannel_lease::{BackendData, BackendType, LeaseAttributes, LeaseKey, VxlanData, WireguardData};
use flannel_vxlan::{Family, MacAddr, Peer, PeerConflict, PublicKey, Via};
use ipnet::IpNet;

use crate::config::{Backend, Wireguard, WireguardMode};
use crate::desired::NodeSpec;

/// Why a lease gives no peer of one family.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Skipped {
    /// The node moves packets in another way than this one.
    #[error("the peer's backend is `{theirs}` but this node's is `{ours}`")]
    Backend {
        /// As published.
        theirs: String,
        /// `Backend.Type` here.
        ours: &'static str,
    },
    /// The node is on another VXLAN network.
    #[error("the peer's VNI is {theirs} but this node's is {ours}")]
    Vni {
        /// As published.
        theirs: u32,
        /// `Backend.VNI` here.
        ours: u32,
    },
    /// The node did not say where to send to.
    #[error("the peer publishes no public {0} address")]
    NoAddress(Family),
    /// The node did not say what its VXLAN device is, or said nonsense.
    #[error("the peer's {family} backend data is unusable: {problem}")]
    BackendData {
        /// The family.
        family: Family,
        /// What is wrong.
        problem: String,
    },
}

impl NodeSpec {
    /// The peer that one subnet of a lease stands for; `None` if this node does not have that family, or no overlay at
    /// all. `on_link` returns whether an address is reached without a router, through the interface between nodes.
    pub fn peer(
        &self,
        key: LeaseKey,
        subnet: IpNet,
        attributes: &LeaseAttributes,
        mut on_link: impl FnMut(IpAddr) -> bool,
    ) -> Option<Result<Peer, Skipped>> {
        let family = Family::of_net(subnet);
        let (held, public, data) = match family {
            Family::V4 if self.facts.ipv4.is_some() => {
                (key.v4().map(IpNet::from), attributes.public_ip.map(IpAddr::from), &attributes.backend_data)
            }
            Family::V6 if self.ipv6().is_some() => (
                key.v6().map(IpNet::from),
                attributes.public_ipv6.map(IpAddr::from),
                &attributes.backend_v6_data,
            ),
            Family::V4 | Family::V6 => return None,
        };
        if held != Some(subnet) {
            return None;
        }
        let via = match &self.net_conf.backend {
            Backend::Wireguard(wireguard) => self.key(wireguard, family, attributes).map(Some),
            _ => public
                .ok_or(Skipped::NoAddress(family))
                .and_then(|public| self.via(family, public, attributes, data.as_ref(), &mut on_link)),
        };
        via.map(|via| via.map(|via| Peer { subnet, via })).transpose()
    }

    /// How WireGuard reaches a node: by its key, at the address that the mode selects. With one device for both families
    /// both have the same endpoint.
    fn key(
        &self,
        wireguard: &Wireguard,
        family: Family,
        attributes: &LeaseAttributes,
    ) -> Result<Via, Skipped> {
        if attributes.backend_type != BackendType::Wireguard {
            let theirs = quote(attributes.backend_type.as_str());
            return Err(Skipped::Backend { theirs, ours: self.net_conf.backend.name() });
        }
        let unusable = |problem: String| Skipped::BackendData { family, problem };
        let read = |data: &Option<BackendData>| data.as_ref().map(BackendData::decode::<WireguardData>);
        let (ipv4, ipv6) = (read(&attributes.backend_data), read(&attributes.backend_v6_data));
        let data = match family {
            Family::V4 => &ipv4,
            Family::V6 => &ipv6,
        };
        let data = match data {
            None => return Err(unusable("there is none".to_owned())),
            Some(Err(error)) => return Err(unusable(cut(&error.to_string()))),
            Some(Ok(data)) => data,
        };
        let outer = match wireguard.mode {
            WireguardMode::Separate => family,
            WireguardMode::Ipv4 => Family::V4,
            WireguardMode::Ipv6 => Family::V6,
            WireguardMode::Auto => self.likely_family(attributes),
        };
        let address = match outer {
            Family::V4 => attributes.public_ip.map(IpAddr::from),
            Family::V6 => attributes.public_ipv6.map(IpAddr::from),
        };
        let address = address.ok_or(Skipped::NoAddress(outer))?;
        let port = if wireguard.is_shared() {
            // The only device receives at ListenPort, which upstream publishes for IPv4 alone: for IPv6 it publishes
            // ListenPortV6, where nothing listens (pkg/backend/wireguard/wireguard.go, newSubnetAttrs).
            let published = [ipv4.as_ref(), ipv6.as_ref()].map(|data| data?.as_ref().ok()?.port);
            let [ipv4, ipv6] = published;
            ipv4.or_else(|| ipv6.filter(|port| *port != wireguard.listen_port_v6))
        } else {
            data.port
        };
        // Upstream published no port in earlier releases.
        let port = port.unwrap_or_else(|| wireguard.port(family));
        Ok(Via::Key { key: PublicKey::new(data.public_key), endpoint: SocketAddr::new(address, port.get()) })
    }

    /// The family of a node's address that is likely to be reachable, as upstream selects it (`selectMode` in
    /// pkg/backend/wireguard/wireguard_network.go): IPv4 in doubt, but never an address that the node does not have.
    fn likely_family(&self, attributes: &LeaseAttributes) -> Family {
        let (Some(ipv4), Some(ipv6)) = (attributes.public_ip, attributes.public_ipv6) else {
            return if attributes.public_ip.is_some() { Family::V4 } else { Family::V6 };
        };
        match (self.facts.ipv4, self.ipv6()) {
            (None, _) => Family::V6,
            (_, Some(own))
                if ipv4.is_private() && !ipv6.is_unique_local() && !own.public.is_unique_local() =>
            {
                Family::V6
            }
            _ => Family::V4,
        }
    }

    fn via(
        &self,
        family: Family,
        public: IpAddr,
        attributes: &LeaseAttributes,
        data: Option<&BackendData>,
        on_link: &mut impl FnMut(IpAddr) -> bool,
    ) -> Result<Option<Via>, Skipped> {
        let ours = &self.net_conf.backend;
        let expected = match ours {
            Backend::Alloc | Backend::Wireguard(_) => return Ok(None),
            Backend::HostGw => BackendType::HostGw,
            Backend::Ipip(_) => BackendType::Ipip,
            Backend::Udp(_) => BackendType::Unnamed,
            Backend::Vxlan(_) => BackendType::Vxlan,
        };
        if attributes.backend_type != expected {
            let theirs = quote(attributes.backend_type.as_str());
            return Err(Skipped::Backend { theirs, ours: ours.name() });
        }
        let vxlan = match ours {
            Backend::Alloc | Backend::Wireguard(_) => return Ok(None),
            Backend::HostGw => return Ok(Some(Via::Direct { gateway: public })),
            Backend::Ipip(ipip) if ipip.direct_routing && on_link(public) => {
                return Ok(Some(Via::Direct { gateway: public }));
            }
            Backend::Ipip(_) | Backend::Udp(_) => return Ok(Some(Via::Outer { underlay: public })),
            Backend::Vxlan(vxlan) => vxlan,
        };
        let unusable = |problem: String| Skipped::BackendData { family, problem };
        let data = data.ok_or_else(|| unusable("there is none".to_owned()))?;
        let data: VxlanData = data.decode().map_err(|error| unusable(cut(&error.to_string())))?;
        if !data.is_of(vxlan.vni) {
            return Err(Skipped::Vni { theirs: data.vni, ours: vxlan.vni });
        }
        let mac = MacAddr::new(data.vtep_mac).map_err(|error| unusable(error.to_string()))?;
        Ok(Some(if vxlan.direct_routing && on_link(public) {
            Via::Direct { gateway: public }
        } else {
            Via::Tunnel { mac, underlay: public }
        }))
    }
}

/// What an operator has to do about a peer that is not programmed.
pub(crate) fn conflict_advice(conflict: &PeerConflict) -> &'static str {
    match conflict {
        PeerConflict::NoSuchOverlay(_) => {
            "give both nodes the same network configuration (Network, IPv6Network, Backend) and restart flanneld where it differed"
        }
        PeerConflict::OutsideNetworks => {
            "correct Network in the network configuration, or give the peer's node a subnet inside it (its podCIDR, or a new lease)"
        }
        PeerConflict::OwnSubnet(_) | PeerConflict::EndpointTaken(..) | PeerConflict::InsideOlder(..) => {
            "delete the lease that is not in use; if both are, give one of the nodes another subnet (its podCIDR, or a new lease)"
        }
        PeerConflict::HoldsItsUnderlay(_)
        | PeerConflict::CoversHostNetwork(_)
        | PeerConflict::HoldsHostAddress(_)
        | PeerConflict::HoldsGateway(_)
        | PeerConflict::HoldsUnderlayOf { .. } => {
            "give the peer's node a subnet without it (its podCIDR, or a new lease), or choose a pod network that no host uses"
        }
        PeerConflict::OwnMac | PeerConflict::MacTaken(..) => {
            "delete the lease that is not in use; if both are, one machine is a clone: stop flanneld there, delete its VXLAN \
             device, and start flanneld again, so that the device gets another MAC address"
        }
        PeerConflict::OwnKey | PeerConflict::KeyTaken(..) => {
            "delete the lease that is not in use; if both are, stop flanneld on the newer node, delete its WireGuard key file and \
             devices, and start flanneld again, so that it generates a new key"
        }
        PeerConflict::HostRoute(_) => "stop the program that adds the route",
        PeerConflict::NetworkCutsOff { .. } => "change Network in the network configuration of all nodes",
        _ => {
            "correct the address that the peer's node publishes (--iface, --public-ip), or delete its lease if it is not in use"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_what_decides_a_conflict() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let subnet: IpNet = "10.244.3.0/24".parse().unwrap();
        for (conflict, decides) in [
            (PeerConflict::NotHostAddress(address), "--public-ip"),
            (PeerConflict::OwnMac, "another MAC address"),
            (PeerConflict::MacTaken(subnet, address), "another MAC address"),
            (PeerConflict::KeyTaken(subnet, address), "new key"),
            (PeerConflict::InsideOlder(subnet, address), "another subnet"),
            (PeerConflict::HoldsGateway(address), "pod network that no host uses"),
            (PeerConflict::OutsideNetworks, "correct Network"),
            (PeerConflict::NoSuchOverlay(Family::V6), "IPv6Network"),
        ] {
            let advice = conflict_advice(&conflict);
            assert!(advice.contains(decides), "{conflict}: {advice}");
            assert_eq!(advice.contains("--public-ip"), decides == "--public-ip", "{conflict}: {advice}");
        }
    }
}
