//! net-conf.json: the cluster's networks and how packets travel between nodes.
//!
//! Keys, defaults and the searchable parts of every message are upstream's (`pkg/subnet/config.go`). Beyond
//! upstream, the rules hold whichever store the leases are in, all mistakes are reported at once, and each names
//! its key.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use flannel_vxlan::{FlannelDevice, IpipSpec, Vni, VxlanSpec};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::json::{Object, describe};
use super::pool::{self, Ipv4Pool, Ipv6Pool};

/// What net-conf.json asks for, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetConf {
    /// Addresses for IPv4 pods; `None` if `EnableIPv4` is false. At least one of the two families is on.
    pub ipv4: Option<Ipv4Pool>,
    /// Addresses for IPv6 pods; `None` unless `EnableIPv6` is true.
    pub ipv6: Option<Ipv6Pool>,
    /// How packets for other nodes' pods leave this node.
    pub backend: Backend,
    /// `EnableNFTables` as written. Rules are made with nftables either way.
    pub nftables_asked: bool,
    /// `NonMasqueradeCIDRs`: destinations that pods reach under their own address. Ours, not upstream's.
    pub no_masquerade: Vec<IpNet>,
    /// `IPMasq`: whether what leaves the pod network is masqueraded, in place of `--ip-masq`. Ours, not upstream's.
    pub masquerade: Option<bool>,
    /// `IPMasqFullyRandom`: whether masqueraded source ports are chosen at random, in place of
    /// `--ip-masq-fully-random-disable`. Ours, not upstream's.
    pub fully_random: Option<bool>,
}

/// How packets for other nodes' pods leave this node (`Backend.Type`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Backend {
    /// Leases only; no device and no route.
    Alloc,
    /// Plain routes through the other nodes' addresses, which must be on the same link.
    HostGw,
    /// Wrapped in an IPv4 header.
    Ipip(Ipip),
    /// Wrapped in a UDP datagram, without a header between it and the packet. A configuration without `Backend` means this.
    Udp(Udp),
    /// Wrapped in UDP, VXLAN and Ethernet headers.
    Vxlan(Vxlan),
}

impl Backend {
    /// The name in net-conf.json.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Alloc => "alloc",
            Self::HostGw => "host-gw",
            Self::Ipip(_) => "ipip",
            Self::Udp(_) => "udp",
            Self::Vxlan(_) => "vxlan",
        }
    }

    /// The device that it makes; `None` if it makes none.
    #[must_use]
    pub fn device(&self) -> Option<FlannelDevice> {
        match self {
            Self::Alloc | Self::HostGw => None,
            Self::Ipip(_) => Some(FlannelDevice::Ipip),
            Self::Udp(_) => Some(FlannelDevice::Udp),
            Self::Vxlan(vxlan) => Vni::new(vxlan.vni).ok().map(FlannelDevice::Vxlan),
        }
    }

    /// UDP port that the device receives at; `None` without one.
    #[must_use]
    pub fn port(&self) -> Option<NonZeroU16> {
        match self {
            Self::Alloc | Self::HostGw | Self::Ipip(_) => None,
            Self::Udp(udp) => Some(udp.port),
            Self::Vxlan(vxlan) => Some(vxlan.port),
        }
    }
}

/// Settings of the `ipip` backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ipip {
    /// Routes without wrapping to nodes on the same link. Default: false.
    pub direct_routing: bool,
}

/// Settings of the `udp` backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Udp {
    /// UDP source and destination port. Default: 8285.
    pub port: NonZeroU16,
}

/// Settings of the `vxlan` backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vxlan {
    /// VXLAN network identifier, 0..=16777215. Default: 1.
    pub vni: u32,
    /// UDP destination port. Default: 8472, the port Linux used before IANA assigned 4789.
    pub port: NonZeroU16,
    /// Largest packet of the *underlay*, in bytes. `None`: that of the chosen interface, which it must not exceed.
    pub mtu: Option<u16>,
    /// Group policy extension: carries the packet mark between nodes. Default: false.
    pub gbp: bool,
    /// Lets the device learn peers from traffic. Default: false.
    pub learning: bool,
    /// Routes without wrapping to nodes on the same link. Default: false.
    pub direct_routing: bool,
    /// Default: [`TxChecksumOffload::Auto`]. Ours, not upstream's.
    pub tx_checksum_offload: TxChecksumOffload,
}

/// Whether the VXLAN device leaves inner checksums to the network card (`Backend.TxChecksumOffload`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TxChecksumOffload {
    /// Off when the public address is not an address of this host (a NAT recomputes what it cannot see), else as it is
    /// (the kernel makes devices with it on), and on again if flanneld itself had turned it off.
    #[default]
    Auto,
    /// As the kernel has it.
    On,
    /// Off, as `ethtool -K flannel.1 tx-checksum-ip-generic off`.
    Off,
}

/// Everything that is wrong with a net-conf.json; printed in one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", join(.0))]
pub struct NetConfError(pub Vec<KeyProblem>);

/// One mistake, with the key it is under; the key is empty if the text is no JSON object at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyProblem {
    /// Such as `SubnetLen` or `Backend.VNI`.
    pub key: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.key, self.reason)
        }
    }
}

fn join(problems: &[KeyProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl NetConf {
    /// Reads and checks the text of a net-conf.json.
    ///
    /// # Errors
    /// All mistakes found, each under its key.
    pub fn parse(text: &[u8]) -> Result<Self, NetConfError> {
        let object = Object::parse(text)
            .map_err(|reason| NetConfError(vec![KeyProblem { key: String::new(), reason }]))?;
        let mut problems = Vec::new();
        let mut reader = Reader { object: &object, parent: "", problems: &mut problems };

        let enable_ipv4 = reader.flag("EnableIPv4", true);
        let enable_ipv6 = reader.flag("EnableIPv6", false);
        let nftables_asked = reader.flag("EnableNFTables", false);
        let ipv4 = reader.ipv4();
        let ipv6 = reader.ipv6();
        let no_masquerade = reader.cidrs("NonMasqueradeCIDRs");
        let masquerade = reader.switch("IPMasq");
        let fully_random = reader.switch("IPMasqFullyRandom");
        let backend = reader.backend(enable_ipv6);

        if !enable_ipv4 && !enable_ipv6 {
            reader.report(
                "EnableIPv4",
                "none defined stack: EnableIPv4 and EnableIPv6 are both false; set one to true",
            );
        }
        let ipv4 = ipv4.filter(|_| enable_ipv4).and_then(|wanted| pool::ipv4(wanted, &mut problems));
        let ipv6 = ipv6.filter(|_| enable_ipv6).and_then(|wanted| pool::ipv6(wanted, &mut problems));
        match backend {
            Some(backend) if problems.is_empty() => {
                Ok(Self { ipv4, ipv6, backend, nftables_asked, no_masquerade, masquerade, fully_random })
            }
            _ => Err(NetConfError(problems)),
        }
    }
}

impl NetConf {
    /// The cluster's networks, of the families in use.
    #[must_use]
    pub fn networks(&self) -> (Option<Ipv4Net>, Option<Ipv6Net>) {
        (self.ipv4.map(|pool| pool.network), self.ipv6.map(|pool| pool.network))
    }

    /// The same, IPv4's first.
    #[must_use]
    pub fn all_networks(&self) -> Vec<IpNet> {
        let (v4, v6) = self.networks();
        v4.map(IpNet::from).into_iter().chain(v6.map(IpNet::from)).collect()
    }

    /// The text of a net-conf.json that means the same, with every default written out.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::Map::new();
        let mut put = |key: &str, value: serde_json::Value| drop(text.insert(key.to_owned(), value));
        put("EnableIPv4", self.ipv4.is_some().into());
        if let Some(pool) = self.ipv4 {
            put("Network", pool.network.to_string().into());
            put("SubnetLen", pool.subnet_len.into());
            put("SubnetMin", pool.subnet_min.to_string().into());
            put("SubnetMax", pool.subnet_max.to_string().into());
        }
        put("EnableIPv6", self.ipv6.is_some().into());
        if let Some(pool) = self.ipv6 {
            put("IPv6Network", pool.network.to_string().into());
            put("IPv6SubnetLen", pool.subnet_len.into());
            put("IPv6SubnetMin", pool.subnet_min.to_string().into());
            put("IPv6SubnetMax", pool.subnet_max.to_string().into());
        }
        put("EnableNFTables", self.nftables_asked.into());
        put("NonMasqueradeCIDRs", self.no_masquerade.iter().map(ToString::to_string).collect());
        if let Some(on) = self.masquerade {
            put("IPMasq", on.into());
        }
        if let Some(on) = self.fully_random {
            put("IPMasqFullyRandom", on.into());
        }
        put("Backend", self.backend.to_json());
        serde_json::Value::Object(text).to_string()
    }
}

impl Backend {
    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Alloc | Self::HostGw => serde_json::json!({ "Type": self.name() }),
            Self::Ipip(ipip) => {
                serde_json::json!({ "Type": self.name(), "DirectRouting": ipip.direct_routing })
            }
            Self::Udp(udp) => serde_json::json!({ "Type": self.name(), "Port": udp.port }),
            Self::Vxlan(vxlan) => {
                let mut json = serde_json::json!({
                    "Type": self.name(),
                    "VNI": vxlan.vni,
                    "Port": vxlan.port,
                    "GBP": vxlan.gbp,
                    "Learning": vxlan.learning,
                    "DirectRouting": vxlan.direct_routing,
                    "TxChecksumOffload": vxlan.tx_checksum_offload.as_str(),
                });
                if let (Some(mtu), Some(object)) = (vxlan.mtu, json.as_object_mut()) {
                    object.insert("MTU".to_owned(), mtu.into());
                }
                json
            }
        }
    }

    /// `Backend.MTU`, if it is written.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        match self {
            Self::Vxlan(vxlan) => vxlan.mtu.map(u32::from),
            Self::Alloc | Self::HostGw | Self::Ipip(_) | Self::Udp(_) => None,
        }
    }
}

impl TxChecksumOffload {
    /// The word in net-conf.json.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// Says that the problem is already in the list, so nothing that depends on the value need be checked.
struct Reported;

/// Reads members of one object and notes what is wrong with them.
struct Reader<'a> {
    object: &'a Object,
    /// `Backend.` inside the backend's object.
    parent: &'static str,
    problems: &'a mut Vec<KeyProblem>,
}

impl Reader<'_> {
    fn report(&mut self, key: &str, reason: impl Into<String>) -> Reported {
        self.problems.push(KeyProblem { key: format!("{}{key}", self.parent), reason: reason.into() });
        Reported
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        self.switch(key).unwrap_or(default)
    }

    /// `true`, `false`, or nothing said.
    fn switch(&mut self, key: &str) -> Option<bool> {
        match self.object.value(key, "true or false") {
            Ok(value) => value,
            Err(reason) => {
                self.report(key, reason);
                None
            }
        }
    }

    /// A whole number within `range`.
    fn number(&mut self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Reported> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        match self.object.value::<u32>(key, &wanted) {
            Ok(Some(number)) if !range.contains(&number) => {
                Err(self.report(key, format!("{number} is out of range: {wanted} is expected")))
            }
            Ok(number) => Ok(number),
            Err(reason) => Err(self.report(key, reason)),
        }
    }

    /// An address; the unspecified one is upstream's way to say none.
    fn address<A: std::str::FromStr>(&mut self, key: &str) -> Result<Option<A>, Reported> {
        match self.object.value::<String>(key, "an address in quotes") {
            Ok(None) => Ok(None),
            Ok(Some(text)) => match text.parse() {
                Ok(address) => Ok(Some(address)),
                Err(_) => Err(self.report(key, format!("invalid IP address format: {text}"))),
            },
            Err(reason) => Err(self.report(key, reason)),
        }
    }

    /// A network in CIDR notation. Upstream does not take `null` for one, so neither is it taken here.
    fn network(&mut self, key: &str) -> Result<Option<IpNet>, Reported> {
        let Some(raw) = self.object.last(key) else { return Ok(None) };
        let text = serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
        match text.parse::<IpNet>() {
            Ok(network) => Ok(Some(network.trunc())),
            Err(_) => Err(self.report(key, format!("invalid CIDR address: {text}"))),
        }
    }

    fn ipv4(&mut self) -> Option<pool::Wanted<Ipv4Net, Ipv4Addr>> {
        let network = match self.network("Network") {
            Ok(Some(IpNet::V6(network))) => {
                Err(self.report("Network", format!("invalid IPv4 CIDR format: {network}")))
            }
            Ok(Some(IpNet::V4(network))) => Ok(Some(network)),
            Ok(None) => Ok(None),
            Err(reported) => Err(reported),
        };
        let len = self.number("SubnetLen", 0..=u32::MAX);
        let min = self.address("SubnetMin");
        let max = self.address("SubnetMax");
        Some(pool::Wanted { network: network.ok()?, len: len.ok()?, min: min.ok()?, max: max.ok()? })
    }

    fn ipv6(&mut self) -> Option<pool::Wanted<Ipv6Net, Ipv6Addr>> {
        let network = match self.network("IPv6Network") {
            Ok(Some(IpNet::V4(network))) => {
                Err(self.report("IPv6Network", format!("invalid IPv6 CIDR format: {network}")))
            }
            Ok(Some(IpNet::V6(network))) => Ok(Some(network)),
            Ok(None) => Ok(None),
            Err(reported) => Err(reported),
        };
        let len = self.number("IPv6SubnetLen", 0..=u32::MAX);
        let min = self.address("IPv6SubnetMin");
        let max = self.address("IPv6SubnetMax");
        Some(pool::Wanted { network: network.ok()?, len: len.ok()?, min: min.ok()?, max: max.ok()? })
    }

    fn cidrs(&mut self, key: &str) -> Vec<IpNet> {
        let texts = match self.object.value::<Vec<String>>(key, "a list of networks in quotes") {
            Ok(texts) => texts.unwrap_or_default(),
            Err(reason) => {
                self.report(key, reason);
                return Vec::new();
            }
        };
        let mut networks = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse::<IpNet>() {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => drop(self.report(key, format!("invalid CIDR address: {text}"))),
            }
        }
        IpNet::aggregate(&networks)
    }

    fn backend(&mut self, ipv6: bool) -> Option<Backend> {
        let Some(raw) = self.object.last("Backend") else {
            self.ipv4_only(ipv6, "udp (no Backend is given)");
            return Some(Backend::Udp(Udp { port: IpipSpec::FOU_PORT }));
        };
        let object = match Object::parse(raw.get().as_bytes()) {
            Ok(object) => object,
            Err(_) => {
                let found = describe(raw);
                self.report(
                    "Backend",
                    format!("error decoding Backend property of config: json: cannot unmarshal {found} into an object"),
                );
                return None;
            }
        };
        let mut reader = Reader { object: &object, parent: "Backend.", problems: self.problems };
        let name = match object.value::<String>("Type", "the name of a backend in quotes") {
            Ok(name) => name.unwrap_or_default(),
            Err(reason) => {
                reader.report("Type", format!("error decoding Backend property of config: {reason}"));
                return None;
            }
        };
        match name.to_ascii_lowercase().as_str() {
            "alloc" => Some(Backend::Alloc),
            "host-gw" => Some(Backend::HostGw),
            "ipip" => {
                let direct_routing = reader.flag("DirectRouting", false);
                self.ipv4_only(ipv6, "ipip");
                Some(Backend::Ipip(Ipip { direct_routing }))
            }
            "udp" => {
                let port = reader.port();
                self.ipv4_only(ipv6, "udp");
                Some(Backend::Udp(Udp { port: port.ok()?.unwrap_or(IpipSpec::FOU_PORT) }))
            }
            "vxlan" => reader.vxlan(ipv6).map(Backend::Vxlan),
            "extension" | "ipsec" | "tencent-vpc" | "wireguard" => {
                reader.report("Type", format!("backend type {name} is {UNSUPPORTED}"));
                None
            }
            _ => {
                reader.report("Type", format!("unknown backend type: {name} (supported: {SUPPORTED})"));
                None
            }
        }
    }

    fn vxlan(&mut self, ipv6: bool) -> Option<Vxlan> {
        // IPv6 needs 1280 bytes inside (RFC 8200 section 5), IPv4 68 (RFC 791); the wrapping takes 70 and 50.
        let least_mtu = if ipv6 { 1280 + 70 } else { 68 + 50 };
        let vni = self.number("VNI", 0..=0x00ff_ffff);
        let port = self.port();
        let mtu =
            match self.number("MTU", 0..=u32::from(u16::MAX)) {
                Ok(Some(mtu)) if mtu < least_mtu => Err(self
                    .report("MTU", format!("{mtu} leaves no room for pods: at least {least_mtu} is needed"))),
                mtu => mtu,
            };
        let gbp = self.flag("GBP", false);
        let learning = self.flag("Learning", false);
        let direct_routing = self.flag("DirectRouting", false);
        let tx_checksum_offload = self.tx_checksum_offload();
        Some(Vxlan {
            vni: vni.ok()?.unwrap_or(1),
            port: port.ok()?.unwrap_or(VxlanSpec::PORT),
            mtu: mtu.ok()?.and_then(|mtu| u16::try_from(mtu).ok()),
            gbp,
            learning,
            direct_routing,
            tx_checksum_offload: tx_checksum_offload.ok()?,
        })
    }

    fn port(&mut self) -> Result<Option<NonZeroU16>, Reported> {
        let port = self.number("Port", 1..=u32::from(u16::MAX))?;
        Ok(port.and_then(|port| NonZeroU16::new(u16::try_from(port).ok()?)))
    }

    fn ipv4_only(&mut self, ipv6: bool, backend: &str) {
        if ipv6 {
            let reason = format!("the backend {backend} carries IPv4 only; use vxlan or host-gw for IPv6");
            self.report("EnableIPv6", reason);
        }
    }

    fn tx_checksum_offload(&mut self) -> Result<TxChecksumOffload, Reported> {
        const KEY: &str = "TxChecksumOffload";
        let text = match self.object.value::<String>(KEY, "\"auto\", \"on\" or \"off\"") {
            Ok(text) => text.unwrap_or_default().to_ascii_lowercase(),
            Err(reason) => return Err(self.report(KEY, reason)),
        };
        match text.as_str() {
            "" | "auto" => Ok(TxChecksumOffload::Auto),
            "on" => Ok(TxChecksumOffload::On),
            "off" => Ok(TxChecksumOffload::Off),
            _ => Err(self.report(KEY, format!("`{text}` is none of auto, on, off"))),
        }
    }
}

const SUPPORTED: &str = "vxlan, host-gw, ipip, udp, alloc";
const UNSUPPORTED: &str = "not supported by this flanneld; use vxlan, host-gw, ipip, udp or alloc";
