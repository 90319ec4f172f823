//! The backends: how packets for other nodes' pods leave this node, and the keys of each in net-conf.json.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::path::PathBuf;

use flannel_vxlan::{Family, FlannelDevice, IfName, IpipSpec, PresharedKey, Vni, VxlanSpec, WireguardSpec};

use super::Source;
use super::json::{Object, describe};
use super::json_reader::{Reader, Reported};

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
    /// Encrypted, in UDP.
    Wireguard(Wireguard),
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
            Self::Wireguard(_) => "wireguard",
        }
    }

    /// Whether all nodes share a key.
    #[must_use]
    pub fn has_psk(&self) -> bool {
        matches!(self, Self::Wireguard(wireguard) if wireguard.psk.is_some())
    }

    /// The device that it makes; `None` if it makes none.
    #[must_use]
    pub fn device(&self) -> Option<FlannelDevice> {
        match self {
            Self::Alloc | Self::HostGw => None,
            Self::Ipip(_) => Some(FlannelDevice::Ipip),
            Self::Udp(_) => Some(FlannelDevice::Udp),
            Self::Vxlan(vxlan) => Vni::new(vxlan.vni).ok().map(FlannelDevice::Vxlan),
            Self::Wireguard(_) => Some(FlannelDevice::Wireguard),
        }
    }

    /// The names of its devices for these families, by the family that each counts as: one name if a device carries both.
    #[must_use]
    pub fn devices(&self, families: impl IntoIterator<Item = Family>) -> BTreeMap<Family, IfName> {
        let Some(device) = self.device() else { return BTreeMap::new() };
        let is_shared = matches!(self, Self::Wireguard(wireguard) if wireguard.is_shared());
        let counts_as = |family| if is_shared { Family::V4 } else { family };
        families.into_iter().map(counts_as).map(|family| (family, device.name(family))).collect()
    }

    /// UDP ports that its devices for these families receive at.
    #[must_use]
    pub fn ports(&self, families: impl IntoIterator<Item = Family>) -> BTreeSet<NonZeroU16> {
        match self {
            Self::Alloc | Self::HostGw | Self::Ipip(_) => BTreeSet::new(),
            Self::Udp(udp) => BTreeSet::from([udp.port]),
            Self::Vxlan(vxlan) => BTreeSet::from([vxlan.port]),
            Self::Wireguard(wireguard) => families.into_iter().map(|family| wireguard.port(family)).collect(),
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
    /// Largest packet of the *underlay*, in bytes. `None`: the MTU of the chosen interface, which it must not exceed.
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

/// Settings of the `wireguard` backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wireguard {
    /// UDP port of `flannel-wg`. Default: 51820.
    pub listen_port: NonZeroU16,
    /// UDP port of `flannel-wg-v6`, which only mode `separate` has. Default: 51821.
    pub listen_port_v6: NonZeroU16,
    /// Largest packet of the *underlay*, in bytes. `None`: the MTU of the chosen interface, which it must not exceed.
    pub mtu: Option<u16>,
    /// Key that all nodes share, in addition to the key pair of each. Default: none.
    pub psk: Option<PresharedKey>,
    /// Seconds between two empty packets to each peer, which keep the state of a NAT alive. Default: none are sent.
    pub keepalive: Option<NonZeroU16>,
    /// Default: [`WireguardMode::Separate`].
    pub mode: WireguardMode,
}

/// Which device carries which family, and to which of a node's addresses it sends (`Backend.Mode`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WireguardMode {
    /// IPv4 pods through `flannel-wg` to IPv4 addresses, IPv6 pods through `flannel-wg-v6` to IPv6 addresses.
    #[default]
    Separate,
    /// All pods through `flannel-wg`, to the address of each node that is likely to be reachable.
    Auto,
    /// All pods through `flannel-wg`, to IPv4 addresses.
    Ipv4,
    /// All pods through `flannel-wg`, to IPv6 addresses.
    Ipv6,
}

impl Wireguard {
    /// Whether one device carries both families.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.mode != WireguardMode::Separate
    }

    /// UDP port of the device for pods of this family.
    #[must_use]
    pub fn port(&self, family: Family) -> NonZeroU16 {
        match family {
            Family::V6 if !self.is_shared() => self.listen_port_v6,
            Family::V4 | Family::V6 => self.listen_port,
        }
    }
}

impl WireguardMode {
    /// The word in net-conf.json.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Separate => "separate",
            Self::Auto => "auto",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl Backend {
    /// The object in net-conf.json, with every default written out and without `PSK`.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut json = match self {
            Self::Alloc | Self::HostGw => serde_json::json!({ "Type": self.name() }),
            Self::Ipip(ipip) => {
                serde_json::json!({ "Type": self.name(), "DirectRouting": ipip.direct_routing })
            }
            Self::Udp(udp) => serde_json::json!({ "Type": self.name(), "Port": udp.port }),
            Self::Vxlan(vxlan) => serde_json::json!({
                "Type": self.name(),
                "VNI": vxlan.vni,
                "Port": vxlan.port,
                "GBP": vxlan.gbp,
                "Learning": vxlan.learning,
                "DirectRouting": vxlan.direct_routing,
                "TxChecksumOffload": vxlan.tx_checksum_offload.as_str(),
            }),
            Self::Wireguard(wireguard) => serde_json::json!({
                "Type": self.name(),
                "ListenPort": wireguard.listen_port,
                "ListenPortV6": wireguard.listen_port_v6,
                "PersistentKeepaliveInterval": wireguard.keepalive.map_or(0, NonZeroU16::get),
                "Mode": wireguard.mode.as_str(),
            }),
        };
        if let (Some(mtu), Some(object)) = (self.mtu(), json.as_object_mut()) {
            object.insert("MTU".to_owned(), mtu.into());
        }
        json
    }

    /// `Backend.MTU`, if it is written.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        match self {
            Self::Vxlan(vxlan) => vxlan.mtu.map(u32::from),
            Self::Wireguard(wireguard) => wireguard.mtu.map(u32::from),
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

/// Upstream's variable and default.
pub(super) fn wireguard_key_file(source: &impl Source) -> PathBuf {
    let path = source.env("WIREGUARD_KEY_FILE").filter(|path| !path.is_empty());
    path.map_or_else(|| "/run/flannel/wgkey".into(), PathBuf::from)
}

impl Reader<'_> {
    /// The backend for the families that are on.
    pub(super) fn backend(&mut self, ipv4: bool, ipv6: bool) -> Option<Backend> {
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
                let port = reader.port("Port");
                self.ipv4_only(ipv6, "udp");
                Some(Backend::Udp(Udp { port: port.ok()?.unwrap_or(IpipSpec::FOU_PORT) }))
            }
            "vxlan" => reader.vxlan(ipv6).map(Backend::Vxlan),
            "wireguard" => reader.wireguard(ipv4, ipv6).map(Backend::Wireguard),
            other => {
                let reason = match alternative(other) {
                    Some(alternative) => {
                        format!("backend type {name} is not supported; {alternative}")
                    }
                    None => format!("unknown backend type: {name} (supported: {SUPPORTED})"),
                };
                reader.report("Type", reason);
                None
            }
        }
    }

    fn vxlan(&mut self, ipv6: bool) -> Option<Vxlan> {
        // IPv6 needs 1280 bytes inside (RFC 8200 section 5), IPv4 68 (RFC 791); the wrapping takes 70 and 50.
        let least_mtu = if ipv6 { 1280 + 70 } else { 68 + 50 };
        let vni = self.number("VNI", 0..=0x00ff_ffff);
        let port = self.port("Port");
        let mtu = self.mtu(least_mtu);
        let gbp = self.flag("GBP", false);
        let learning = self.flag("Learning", false);
        let direct_routing = self.flag("DirectRouting", false);
        let tx_checksum_offload = self.tx_checksum_offload();
        Some(Vxlan {
            vni: vni.ok()?.unwrap_or(1),
            port: port.ok()?.unwrap_or(VxlanSpec::PORT),
            mtu: mtu.ok()?,
            gbp,
            learning,
            direct_routing,
            tx_checksum_offload: tx_checksum_offload.ok()?,
        })
    }

    fn wireguard(&mut self, ipv4: bool, ipv6: bool) -> Option<Wireguard> {
        let listen_port = self.port("ListenPort");
        let listen_port_v6 = self.port("ListenPortV6");
        // Outer IP 20 or 40 + UDP 8 + WireGuard 32; upstream takes 40 for both families.
        let mtu = self.mtu(if ipv6 { 1280 + 80 } else { 68 + 80 });
        let psk = self.psk();
        let keepalive = self.number("PersistentKeepaliveInterval", 0..=u32::from(u16::MAX));
        let mode = self.mode(ipv4, ipv6);
        let wireguard = Wireguard {
            listen_port: listen_port.ok()?.unwrap_or(WireguardSpec::PORT),
            listen_port_v6: listen_port_v6.ok()?.unwrap_or(LISTEN_PORT_V6),
            mtu: mtu.ok()?,
            psk: psk.ok()?,
            keepalive: keepalive.ok()?.and_then(|seconds| NonZeroU16::new(u16::try_from(seconds).ok()?)),
            mode: mode.ok()?,
        };
        let Wireguard { listen_port, listen_port_v6, mode, .. } = wireguard;
        if mode == WireguardMode::Separate && ipv4 && ipv6 && listen_port == listen_port_v6 {
            let reason =
                format!("{listen_port} is ListenPort too; in mode separate each device needs its own port");
            self.report("ListenPortV6", reason);
        }
        Some(wireguard)
    }

    fn psk(&mut self) -> Result<Option<PresharedKey>, Reported> {
        const KEY: &str = "PSK";
        const WANTED: &str = "base64 of 32 bytes in quotes, as `wg genpsk` writes it";
        let text = match self.object.value::<String>(KEY, WANTED) {
            Ok(text) => text.unwrap_or_default(),
            Err(reason) => return Err(self.report(KEY, reason)),
        };
        if text.is_empty() {
            return Ok(None);
        }
        PresharedKey::from_base64(&text).map(Some).map_err(|error| self.report(KEY, error.to_string()))
    }

    fn mode(&mut self, ipv4: bool, ipv6: bool) -> Result<WireguardMode, Reported> {
        const KEY: &str = "Mode";
        let text = match self.object.value::<String>(KEY, "\"separate\", \"auto\", \"ipv4\" or \"ipv6\"") {
            Ok(text) => text.unwrap_or_default().to_ascii_lowercase(),
            Err(reason) => return Err(self.report(KEY, reason)),
        };
        match text.as_str() {
            "" | "separate" => Ok(WireguardMode::Separate),
            "auto" => Ok(WireguardMode::Auto),
            // A family that is off has no public addresses.
            "ipv4" if !ipv4 => Err(self.report(KEY, "ipv4 needs EnableIPv4; use auto or ipv6")),
            "ipv6" if !ipv6 => Err(self.report(KEY, "ipv6 needs EnableIPv6; use auto or ipv4")),
            "ipv4" => Ok(WireguardMode::Ipv4),
            "ipv6" => Ok(WireguardMode::Ipv6),
            _ => Err(self.report(KEY, format!("`{text}` is none of separate, auto, ipv4, ipv6"))),
        }
    }

    fn port(&mut self, key: &str) -> Result<Option<NonZeroU16>, Reported> {
        let port = self.number(key, 1..=u32::from(u16::MAX))?;
        Ok(port.and_then(|port| NonZeroU16::new(u16::try_from(port).ok()?)))
    }

    /// `MTU`, which must be at least this.
    fn mtu(&mut self, least: u32) -> Result<Option<u16>, Reported> {
        match self.number("MTU", 0..=u32::from(u16::MAX))? {
            Some(mtu) if mtu < least => {
                Err(self.report("MTU", format!("{mtu} leaves no room for pods: at least {least} is needed")))
            }
            mtu => Ok(mtu.and_then(|mtu| u16::try_from(mtu).ok())),
        }
    }

    fn ipv4_only(&mut self, ipv6: bool, backend: &str) {
        if ipv6 {
            let reason =
                format!("the backend {backend} carries IPv4 only; use vxlan, wireguard or host-gw for IPv6");
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

/// Default of `ListenPortV6`.
const LISTEN_PORT_V6: NonZeroU16 = NonZeroU16::MIN.saturating_add(51_820);

const SUPPORTED: &str = "vxlan, wireguard, host-gw, ipip, udp, alloc";

/// What to use instead of a backend that only upstream has, or had.
fn alternative(name: &str) -> Option<&'static str> {
    Some(match name {
        "ipsec" => "use wireguard, which encrypts as well",
        "extension" => "use vxlan or host-gw, or alloc and a program of your own that writes the routes",
        "ali-vpc" | "aws-vpc" | "gce" | "tencent-vpc" => {
            "use vxlan, or alloc and the route controller of your cloud"
        }
        _ => return None,
    })
}
