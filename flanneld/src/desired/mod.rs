//! What the kernel should hold for this node. Pure: configuration, node facts and leases in, rules and peers out.

mod peer;
pub mod rules;

use std::net::{IpAddr, Ipv6Addr};

use flannel_nft::Ownership;
use flannel_vxlan::{
    DeviceKind, DeviceSpec, Family, FamilySpec, IfName, IpipSpec, Link, MacAddr, PrivateKey, ValueError, Vni,
    VxlanSpec, WireguardSpec,
};
use ipnet::IpNet;

use crate::config::{Backend, NetConf, ResolvedConfig, TxChecksumOffload, Vxlan};
pub use crate::desired::peer::Skipped;
pub(crate) use crate::desired::peer::conflict_advice;
use crate::desired::rules::{RuleSpec, TablePrefix};
use crate::node::{Addresses, Mtus, NodeError, NodeFacts};
use flannel_cni::SubnetEnv;
use flannel_lease::{
    AllocationRange, BackendData, BackendType, FamilyRange, LeaseAttributes, LeaseKey, VxlanData,
    WireguardData,
};

/// Everything that decides what this node looks like, its peers apart.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// The cluster's networks and backend.
    pub net_conf: NetConf,
    /// The interface between nodes, and the addresses on it.
    pub facts: NodeFacts,
    /// MTUs of devices and pods.
    pub mtus: Mtus,
    /// MAC addresses of the VXLAN devices.
    pub macs: VtepMacs,
    /// The private key of the WireGuard devices; `None` with another backend.
    pub wireguard_key: Option<PrivateKey>,
    /// Masquerade what leaves the pod network (`IPMasq`, else `--ip-masq`).
    pub masquerade: bool,
    /// Choose masqueraded source ports at random.
    pub fully_random: bool,
    /// Accept forwarded pod traffic (`--iptables-forward-rules`).
    pub forward_rules: bool,
    /// Which processes may change our tables.
    pub ownership: Ownership,
    /// What the names of our tables begin with.
    pub table_prefix: TablePrefix,
    /// What they began with before; those tables are to be gone.
    pub former_prefixes: Vec<TablePrefix>,
    /// A blackhole route for the node's own subnet.
    pub blackhole_route: bool,
    /// Whether this daemon, or the one before it, turned checksum offload off: then it is turned on again where it is no longer
    /// to be off. Otherwise flanneld leaves the setting of other programs alone.
    pub restores_checksum: bool,
}

/// MAC addresses of this node's VXLAN devices: what peers put into their neighbour tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VtepMacs {
    /// Of `flannel.<VNI>`.
    pub ipv4: MacAddr,
    /// Of `flannel-v6.<VNI>`.
    pub ipv6: MacAddr,
}

impl VtepMacs {
    /// Those that the node published last, so that peers need not learn new ones; else derived from its public
    /// addresses, so that they stay the same even if the store forgets them, and from its name: a node whose address
    /// changes keeps its MAC address, and must not have the MAC address of the next node on the old address.
    #[must_use]
    pub fn choose(
        net_conf: &NetConf,
        facts: &NodeFacts,
        host_name: &str,
        published: Option<&LeaseAttributes>,
    ) -> Self {
        let Backend::Vxlan(vxlan) = &net_conf.backend else {
            return Self { ipv4: MacAddr::derived(&[]), ipv6: MacAddr::derived(&[]) };
        };
        let kept = |data: Option<&BackendData>| {
            let data: VxlanData = data?.decode().ok()?;
            data.is_of(vxlan.vni).then(|| MacAddr::new(data.vtep_mac).ok()).flatten()
        };
        let derived = |family: &str, public: Option<IpAddr>| {
            let public = public.map(|public| public.to_string()).unwrap_or_default();
            MacAddr::derived(format!("{family} {} {public} {host_name}", vxlan.vni).as_bytes())
        };
        let published = published.filter(|attributes| attributes.backend_type == BackendType::Vxlan);
        Self {
            ipv4: kept(published.and_then(|attributes| attributes.backend_data.as_ref()))
                .unwrap_or_else(|| derived("IPv4", facts.ipv4.map(|own| own.public.into()))),
            ipv6: kept(published.and_then(|attributes| attributes.backend_v6_data.as_ref()))
                .unwrap_or_else(|| derived("IPv6", facts.ipv6.map(|own| own.public.into()))),
        }
    }
}

/// `attributes` with other MAC addresses, for a node whose own are another node's as well; `None` if they have none.
/// Derived from what they are and from the public addresses, so that two machines with one identity get different ones.
#[must_use]
pub fn with_other_macs(attributes: &LeaseAttributes) -> Option<LeaseAttributes> {
    let LeaseAttributes { public_ip, public_ipv6, .. } = attributes;
    let other = |data: &BackendData| {
        let VxlanData { vni, vtep_mac } = data.decode().ok()?;
        let identity = format!("other than {vtep_mac:?} {public_ip:?} {public_ipv6:?}");
        VxlanData { vni, vtep_mac: MacAddr::derived(identity.as_bytes()).bytes() }.to_backend_data().ok()
    };
    let mut others = attributes.clone();
    for data in [&mut others.backend_data, &mut others.backend_v6_data].into_iter().flatten() {
        *data = other(data)?;
    }
    (others != *attributes).then_some(others)
}

/// Some part of the setting has a value that the overlay cannot have.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the {family} overlay")]
pub struct OverlayError {
    family: Family,
    #[source]
    source: ValueError,
}

impl NodeSpec {
    /// Puts together what was configured and what was found.
    ///
    /// # Errors
    /// [`NodeError`] if the backend does not work on this node.
    pub fn new(
        config: &ResolvedConfig,
        net_conf: NetConf,
        facts: NodeFacts,
        published: Option<&LeaseAttributes>,
    ) -> Result<Self, NodeError> {
        let asked = &config.asked;
        Ok(Self {
            mtus: facts.mtus(&net_conf.backend)?,
            macs: VtepMacs::choose(&net_conf, &facts, &asked.host_name, published),
            wireguard_key: config.wireguard_key,
            masquerade: net_conf.masquerade.unwrap_or(asked.masquerade),
            fully_random: net_conf.fully_random.unwrap_or(asked.fully_random),
            net_conf,
            facts,
            forward_rules: asked.forward_rules,
            ownership: config.ownership,
            table_prefix: config.table_prefix.clone(),
            former_prefixes: Vec::new(),
            blackhole_route: asked.blackhole_route,
            restores_checksum: false,
        })
    }

    /// The network configuration as far as this node carries it out: without IPv6 if the interface is too small for it.
    pub(crate) fn net_conf_in_use(&self) -> NetConf {
        let ipv6 = self.ipv6().and(self.net_conf.ipv6);
        NetConf { ipv6, ..self.net_conf.clone() }
    }

    /// The node's IPv6 addresses, unless the interface is too small for IPv6 in the tunnel.
    pub(crate) fn ipv6(&self) -> Option<Addresses<Ipv6Addr>> {
        let is_tunneled = matches!(self.net_conf.backend, Backend::Vxlan(_) | Backend::Wireguard(_));
        let fits = !is_tunneled || self.mtus.ipv6_device.is_some();
        self.facts.ipv6.filter(|_| fits)
    }

    /// Why this node has no IPv6 although it is configured; `None` if it has.
    #[must_use]
    pub fn ipv6_problem(&self) -> Option<String> {
        (self.net_conf.ipv6.is_some() && self.ipv6().is_none()).then(|| {
            let (interface, mtu) = (&self.facts.interface, self.facts.mtu);
            let (what, needed) = match self.net_conf.backend {
                Backend::Wireguard(_) => ("IPv6 in WireGuard", 1360),
                Backend::Vxlan(_) => ("IPv6 in VXLAN", 1350),
                Backend::Alloc | Backend::HostGw | Backend::Ipip(_) | Backend::Udp(_) => ("IPv6", 1280),
            };
            format!(
                "this node goes without IPv6, IPv4 works: interface {interface} carries {mtu} bytes, {what} needs {needed}; \
                 raise its MTU, which flanneld notices by itself"
            )
        })
    }

    /// What the node publishes with its lease.
    ///
    /// # Errors
    /// None in practice; serialization is fallible by signature.
    pub fn attributes(&self) -> Result<LeaseAttributes, serde_json::Error> {
        let (backend_type, backend_data, backend_v6_data) = match &self.net_conf.backend {
            // Upstream's udp nodes publish no type either.
            Backend::Alloc | Backend::Udp(_) => (BackendType::Unnamed, None, None),
            Backend::Ipip(_) => (BackendType::Ipip, None, None),
            Backend::HostGw => (BackendType::HostGw, None, None),
            Backend::Vxlan(vxlan) => {
                let data = |mac: MacAddr| VxlanData::new(vxlan.vni, mac.bytes()).to_backend_data();
                let ipv4 = self.facts.ipv4.map(|_| data(self.macs.ipv4)).transpose()?;
                let ipv6 = self.ipv6().map(|_| data(self.macs.ipv6)).transpose()?;
                (BackendType::Vxlan, ipv4, ipv6)
            }
            Backend::Wireguard(wireguard) => {
                let data = |family| {
                    let public_key = self.wireguard_key.map(|key| key.public().bytes());
                    let data = |public_key| WireguardData { public_key, port: Some(wireguard.port(family)) };
                    public_key.map(|key| data(key).to_backend_data()).transpose()
                };
                let ipv4 = self.facts.ipv4.map(|_| data(Family::V4)).transpose()?.flatten();
                let ipv6 = self.ipv6().map(|_| data(Family::V6)).transpose()?.flatten();
                (BackendType::Wireguard, ipv4, ipv6)
            }
        };
        Ok(LeaseAttributes {
            public_ip: self.facts.ipv4.map(|own| own.public),
            public_ipv6: self.ipv6().map(|own| own.public),
            backend_type,
            backend_data,
            backend_v6_data,
        })
    }

    /// What decides the nftables rules of this node.
    #[must_use]
    pub fn rules(&self, lease: LeaseKey) -> RuleSpec {
        RuleSpec {
            prefix: self.table_prefix.clone(),
            ipv4: self.net_conf.ipv4.map(|pool| pool.network).zip(lease.v4()),
            ipv6: self.net_conf.ipv6.map(|pool| pool.network).zip(lease.v6()),
            masquerade: self.masquerade,
            fully_random: self.fully_random,
            forward: self.forward_rules,
            no_masquerade: self.net_conf.no_masquerade.clone(),
            ownership: self.ownership,
            former: self.former_prefixes.clone(),
        }
    }

    /// Whether this setting turns checksum offload off on a device.
    #[must_use]
    pub fn turns_checksum_off(&self) -> bool {
        let Backend::Vxlan(vxlan) = &self.net_conf.backend else { return false };
        let ipv4 = self.facts.ipv4.is_some_and(|own| tx_checksum(vxlan, own.public_is_local) == Some(false));
        ipv4 || self.ipv6().is_some_and(|own| tx_checksum(vxlan, own.public_is_local) == Some(false))
    }

    /// Whether peers on the same link are routed to without wrapping, so that routes decide.
    #[must_use]
    pub fn is_direct_routing(&self) -> bool {
        match &self.net_conf.backend {
            Backend::Vxlan(vxlan) => vxlan.direct_routing,
            Backend::Ipip(ipip) => ipip.direct_routing,
            Backend::Alloc | Backend::HostGw | Backend::Udp(_) | Backend::Wireguard(_) => false,
        }
    }

    /// Where the node's subnet may come from.
    #[must_use]
    pub fn range(&self) -> AllocationRange {
        AllocationRange {
            v4: self.net_conf.ipv4.map(|pool| FamilyRange {
                network: pool.network,
                subnet_len: pool.subnet_len,
                min: pool.subnet_min,
                max: pool.subnet_max,
            }),
            v6: self.net_conf.ipv6.map(|pool| FamilyRange {
                network: pool.network,
                subnet_len: pool.subnet_len,
                min: pool.subnet_min,
                max: pool.subnet_max,
            }),
            avoid: Vec::new(),
        }
    }

    /// What the CNI plugin is told.
    #[must_use]
    pub fn subnet_env(&self, lease: LeaseKey) -> SubnetEnv {
        let ipv4 = self.net_conf.ipv4.map(|pool| pool.network).zip(lease.v4());
        // With it new pods would get IPv6 addresses, which the kernel refuses below an MTU of 1280.
        let ipv6 = self.ipv6().and(self.net_conf.ipv6).map(|pool| pool.network).zip(lease.v6());
        let networks = ipv4.map(|(network, _)| network.into()).into_iter();
        SubnetEnv {
            networks: networks.chain(ipv6.map(|(network, _)| network.into())).collect(),
            ipv4_subnet: ipv4.map(|(_, subnet)| subnet),
            ipv6_subnet: ipv6.map(|(_, subnet)| subnet),
            mtu: Some(self.mtus.pods),
            ip_masq: Some(self.masquerade),
        }
    }

    /// The overlay's families on this node, without peers. The `alloc` backend has neither device nor peers in them, only
    /// the blackhole route, if it is asked for.
    ///
    /// # Errors
    /// [`OverlayError`] names the family and the value that is out of range.
    pub fn families(&self, lease: LeaseKey) -> Result<Vec<FamilySpec>, OverlayError> {
        let ipv4 = self.net_conf.ipv4.zip(self.facts.ipv4).zip(lease.v4()).map(|((pool, own), subnet)| {
            (
                IpNet::from(subnet),
                IpNet::from(pool.network),
                IpAddr::from(own.interface),
                own.public_is_local,
                (self.mtus.ipv4_device, self.macs.ipv4),
            )
        });
        let ipv6 = self.net_conf.ipv6.zip(self.ipv6()).zip(lease.v6()).map(|((pool, own), subnet)| {
            (
                IpNet::from(subnet),
                IpNet::from(pool.network),
                IpAddr::from(own.interface),
                own.public_is_local,
                (self.mtus.ipv6_device, self.macs.ipv6),
            )
        });
        let mut families = Vec::new();
        for (subnet, network, local, public_is_local, (mtu, mac)) in ipv4.into_iter().chain(ipv6) {
            let family = Family::of_net(subnet);
            let fail = |source| OverlayError { family, source };
            let name: IfName = self.facts.interface.parse().map_err(fail)?;
            let underlay = Link { index: self.facts.index, name };
            let mut spec = FamilySpec::new(underlay, subnet, vec![network]).blackhole(self.blackhole_route);
            if let Some(mtu) = mtu
                && let Some(kind) = self.device_kind(family, mac, public_is_local).map_err(fail)?
            {
                spec = spec.device(DeviceSpec::new(kind, underlay, local, subnet.network(), mtu));
            }
            families.push(spec);
        }
        Ok(families)
    }

    /// The kind of the backend's device; `None` if it has none.
    fn device_kind(
        &self,
        family: Family,
        mac: MacAddr,
        public_is_local: bool,
    ) -> Result<Option<DeviceKind>, ValueError> {
        Ok(match &self.net_conf.backend {
            Backend::Alloc | Backend::HostGw => None,
            Backend::Ipip(_) => Some(IpipSpec::new().into()),
            // Upstream's daemon reads the datagrams: their inner packets need complete checksums.
            Backend::Udp(udp) => Some(IpipSpec::new().fou(udp.port).tx_checksum(Some(false)).into()),
            Backend::Vxlan(vxlan) => {
                let checksum = tx_checksum(vxlan, public_is_local);
                let spec = VxlanSpec::new(Vni::new(vxlan.vni)?, mac)
                    .port(vxlan.port)
                    .learning(vxlan.learning)
                    .gbp(vxlan.gbp)
                    .tx_checksum(checksum.or_else(|| self.restores_checksum.then_some(true)));
                Some(spec.into())
            }
            Backend::Wireguard(wireguard) => self.wireguard_key.map(|key| {
                WireguardSpec::new(key)
                    .port(wireguard.port(family))
                    .psk(wireguard.psk)
                    .keepalive(wireguard.keepalive)
                    .shared(wireguard.is_shared())
                    .into()
            }),
        })
    }
}

fn tx_checksum(vxlan: &Vxlan, public_is_local: bool) -> Option<bool> {
    match vxlan.tx_checksum_offload {
        TxChecksumOffload::Auto if public_is_local => None,
        TxChecksumOffload::Auto | TxChecksumOffload::Off => Some(false),
        TxChecksumOffload::On => Some(true),
    }
}
