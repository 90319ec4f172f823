//! Upstream flannel's text forms of a lease, byte for byte: the key `10.244.1.0-24&fd00::-64` and the JSON value.
//!
//! Reading follows Go's `encoding/json`: field names in any case, unknown ones ignored, the last of duplicates wins.
//! Writing gives what upstream writes for the same values (`pkg/lease/lease.go`, `pkg/subnet/subnet.go`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::{self, DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{BackendType, LeaseAttributes, LeaseKey};

/// What stands for "no IPv4 subnet" in the key of an IPv6-only lease.
const NO_IPV4: &str = "0.0.0.0-0";

/// Longest piece of foreign text that an error repeats, in characters.
const MAX_QUOTED_CHARS: usize = 80;

/// Longest JSON of a lease that is read, in bytes. Upstream's have some 200.
pub(crate) const MAX_LEASE_BYTES: usize = 16 << 10;

/// A text that is not a lease key in upstream's form.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("lease key `{text}` {problem}")]
#[non_exhaustive]
pub struct LeaseKeyError {
    /// The rejected text, cut to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: LeaseKeyProblem,
}

/// Why a text is not a lease key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseKeyProblem {
    /// Not two parts around `-`, or not a number after it.
    #[error(
        "is not of the form `<address>-<prefix length>`, such as `10.244.1.0-24`, optionally followed by `&<IPv6 address>-<prefix length>`"
    )]
    Shape,
    /// The IPv4 part is not an address with a prefix length of 1 to 31.
    #[error("has no IPv4 subnet with a prefix length of 1 to 31")]
    Ipv4,
    /// The IPv6 part is not an address with a prefix length of 1 to 127.
    #[error("has no IPv6 subnet with a prefix length of 1 to 127")]
    Ipv6,
    /// An address has bits set after its prefix.
    #[error("has address bits set after the prefix length")]
    HostBits,
    /// The text is not in the shortest lower-case form. Accepting it would give one subnet two keys.
    #[error("is not in its shortest lower-case form")]
    Form,
    /// Neither family has a subnet.
    #[error("holds no subnet")]
    Empty,
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.v4() {
            Some(net) => write!(f, "{}-{}", net.addr(), net.prefix_len())?,
            None => f.write_str(NO_IPV4)?,
        }
        self.v6().map_or(Ok(()), |net| write!(f, "&{}-{}", net.addr(), net.prefix_len()))
    }
}

impl FromStr for LeaseKey {
    type Err = LeaseKeyError;

    fn from_str(text: &str) -> Result<Self, LeaseKeyError> {
        parse_key(text).map_err(|problem| LeaseKeyError { text: quote(text), problem })
    }
}

fn parse_key(text: &str) -> Result<LeaseKey, LeaseKeyProblem> {
    let (v4, v6) = text.split_once('&').map_or((text, None), |(v4, v6)| (v4, Some(v6)));
    let v4 = if v4 == NO_IPV4 { None } else { Some(parse_v4(v4)?) };
    let v6 = v6.map(parse_v6).transpose()?;
    let key = LeaseKey::new(v4, v6).ok_or(LeaseKeyProblem::Empty)?;
    if key.to_string() == text { Ok(key) } else { Err(LeaseKeyProblem::Form) }
}

fn parse_v4(text: &str) -> Result<Ipv4Net, LeaseKeyProblem> {
    let (address, len) = text.rsplit_once('-').ok_or(LeaseKeyProblem::Shape)?;
    let len: u8 = len.parse().or(Err(LeaseKeyProblem::Shape))?;
    let address: Ipv4Addr = address.parse().or(Err(LeaseKeyProblem::Ipv4))?;
    let net = Ipv4Net::new(address, len).or(Err(LeaseKeyProblem::Ipv4))?;
    match len {
        1..=31 if net.addr() == net.network() => Ok(net),
        1..=31 => Err(LeaseKeyProblem::HostBits),
        _ => Err(LeaseKeyProblem::Ipv4),
    }
}

fn parse_v6(text: &str) -> Result<Ipv6Net, LeaseKeyProblem> {
    let (address, len) = text.rsplit_once('-').ok_or(LeaseKeyProblem::Shape)?;
    let len: u8 = len.parse().or(Err(LeaseKeyProblem::Shape))?;
    let address: Ipv6Addr = address.parse().or(Err(LeaseKeyProblem::Ipv6))?;
    let net = Ipv6Net::new(address, len).or(Err(LeaseKeyProblem::Ipv6))?;
    match len {
        1..=127 if net.addr() == net.network() => Ok(net),
        1..=127 => Err(LeaseKeyProblem::HostBits),
        _ => Err(LeaseKeyProblem::Ipv6),
    }
}

/// The first 80 characters of a text from outside, escaped with [`char::escape_debug`], for a log.
pub fn quote(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).flat_map(char::escape_debug).collect()
}

/// A shortened, escaped error message about a text from outside, for a log. A parser's message may repeat any amount of
/// the text.
pub fn cut(problem: &str) -> String {
    let end = problem.char_indices().nth(3 * MAX_QUOTED_CHARS).map(|(end, _)| end);
    match end.and_then(|end| problem.get(..end)) {
        Some(start) => format!("{}..", printable(start)),
        None => printable(problem),
    }
}

/// `text` on one line, with every character escaped that a terminal or browser interprets instead of showing it:
/// control characters (ESC, CR, LF), line separators, and characters that change the direction of text.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        match is_obeyed(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
        shown
    })
}

/// Whether [`printable`] escapes this character.
#[must_use]
pub fn is_obeyed(c: char) -> bool {
    // Unicode's Bidi_Control, zero-width characters and separators of lines.
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// # Errors
/// `json` is too long for a lease.
fn check_length(json: &[u8]) -> Result<(), serde_json::Error> {
    if json.len() <= MAX_LEASE_BYTES {
        return Ok(());
    }
    Err(de::Error::custom(format!("it is longer than the {MAX_LEASE_BYTES} bytes that a lease may have")))
}

impl LeaseAttributes {
    /// The JSON that upstream writes for these attributes.
    ///
    /// # Errors
    /// Never in practice: the only part from outside is valid JSON already. `serde_json` has no infallible variant.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Wire {
            public_ip: self.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            public_ipv6: self.public_ipv6,
            backend_type: self.backend_type.as_str(),
            backend_data: self.backend_data.as_ref(),
            backend_v6_data: self.backend_v6_data.as_ref(),
        })
    }

    /// Reads the JSON of a lease with upstream's rules.
    ///
    /// # Errors
    /// The text is not a JSON object, has more than 16 KiB, or has a field of the wrong type, such as a `PublicIP` that
    /// is not an IPv4 address.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        check_length(json)?;
        let mut attributes = Self::default();
        for (name, value) in serde_json::from_slice::<Fields>(json)?.0 {
            match name.to_ascii_lowercase().as_str() {
                "publicip" => {
                    let ip: Option<Ipv4> = serde_json::from_str(value.get())?;
                    attributes.public_ip = ip.map(|Ipv4(ip)| ip).filter(|ip| !ip.is_unspecified());
                }
                "publicipv6" => {
                    let ip: Option<Ipv6Addr> = serde_json::from_str(value.get())?;
                    attributes.public_ipv6 = ip.filter(|ip| !ip.is_unspecified());
                }
                "backendtype" => {
                    let name: Option<String> = serde_json::from_str(value.get())?;
                    attributes.backend_type = BackendType::from(name.unwrap_or_default().as_str());
                }
                "backenddata" => attributes.backend_data = BackendData::unless_null(value),
                "backendv6data" => attributes.backend_v6_data = BackendData::unless_null(value),
                _ => {}
            }
        }
        Ok(attributes)
    }
}

/// An IPv4 address as Go reads it: an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) is its IPv4 address.
#[derive(Deserialize)]
#[serde(try_from = "IpAddr")]
struct Ipv4(Ipv4Addr);

impl TryFrom<IpAddr> for Ipv4 {
    type Error = &'static str;

    fn try_from(address: IpAddr) -> Result<Self, &'static str> {
        match address.to_canonical() {
            IpAddr::V4(v4) => Ok(Self(v4)),
            IpAddr::V6(_) => Err("an IPv4 address is expected"),
        }
    }
}

/// The same from text.
#[cfg(feature = "kubernetes")]
pub(crate) fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok().and_then(|address: IpAddr| Ipv4::try_from(address).ok()).map(|Ipv4(v4)| v4)
}

/// Field order, names and omissions of Go's `LeaseAttrs`.
#[derive(Serialize)]
struct Wire<'a> {
    #[serde(rename = "PublicIP")]
    public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(rename = "BackendType", skip_serializing_if = "str::is_empty")]
    backend_type: &'a str,
    #[serde(rename = "BackendData", skip_serializing_if = "Option::is_none")]
    backend_data: Option<&'a BackendData>,
    #[serde(rename = "BackendV6Data", skip_serializing_if = "Option::is_none")]
    backend_v6_data: Option<&'a BackendData>,
}

/// What a backend publishes about its node: JSON, kept byte for byte.
#[derive(Clone)]
pub struct BackendData(Box<RawValue>);

impl BackendData {
    /// Encodes `value` as JSON without spaces, as Go does.
    ///
    /// # Errors
    /// `value` has no JSON form, for example a map with keys that are not strings.
    pub fn new(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// Takes a JSON text unchanged.
    ///
    /// # Errors
    /// `json` is not exactly one JSON value, or has more than 16 KiB.
    pub fn from_json(json: String) -> Result<Self, serde_json::Error> {
        check_length(json.as_bytes())?;
        RawValue::from_string(json).map(Self)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Reads the JSON as a `T`.
    ///
    /// # Errors
    /// The JSON is not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }

    fn unless_null(value: Box<RawValue>) -> Option<Self> {
        (value.get() != "null").then_some(Self(value))
    }
}

impl PartialEq for BackendData {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for BackendData {}

impl fmt::Debug for BackendData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for BackendData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// `BackendData` and `BackendV6Data` of backend `vxlan`: `{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VxlanData {
    /// VXLAN network identifier as published, not validated. 0 if the lease has none, as with flannel before 0.13.
    pub vni: u32,
    /// MAC address of the node's VXLAN device, as on the wire.
    pub vtep_mac: [u8; 6],
}

impl VxlanData {
    /// Data of a node in the network `vni`, with the low 16 bits of `vni` only: upstream's field has 16 bits, and
    /// upstream rejects larger numbers, although its devices use all 24.
    #[must_use]
    pub fn new(vni: u32, vtep_mac: [u8; 6]) -> Self {
        Self { vni: vni & 0xffff, vtep_mac }
    }

    /// Whether a node of the network `vni` may publish this: `vni`, its low 16 bits, or nothing. Upstream does not
    /// compare VNIs.
    #[must_use]
    pub fn is_of(&self, vni: u32) -> bool {
        [0, vni & 0xffff, vni].contains(&self.vni)
    }

    /// The JSON that upstream writes.
    ///
    /// # Errors
    /// Never in practice; `serde_json` has no infallible variant.
    pub fn to_backend_data(self) -> Result<BackendData, serde_json::Error> {
        BackendData::new(&self)
    }
}

impl Serialize for VxlanData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire {
            #[serde(rename = "VNI")]
            vni: u32,
            #[serde(rename = "VtepMAC")]
            vtep_mac: String,
        }
        let [a, b, c, d, e, f] = self.vtep_mac;
        let vtep_mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        Wire { vni: self.vni, vtep_mac }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for VxlanData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut vni, mut mac) = (0, None);
        for (name, value) in Fields::deserialize(deserializer)?.0 {
            let text = value.get();
            match name.to_ascii_lowercase().as_str() {
                "vni" => vni = serde_json::from_str(text).map_err(de::Error::custom)?,
                "vtepmac" => mac = Some(serde_json::from_str::<String>(text).map_err(de::Error::custom)?),
                _ => {}
            }
        }
        let mac = mac.ok_or_else(|| de::Error::missing_field("VtepMAC"))?;
        let vtep_mac = parse_mac(&mac)
            .ok_or_else(|| de::Error::custom(format!("VtepMAC `{}` is not six bytes", quote(&mac))))?;
        Ok(Self { vni, vtep_mac })
    }
}

/// `BackendData` and `BackendV6Data` of backend `wireguard`: `{"PublicKey":"<base64>","Port":51820}`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WireguardData {
    /// Public key of the node's WireGuard device.
    pub public_key: [u8; 32],
    /// UDP port at which the node receives. `None`: not published, as by flannel before 0.20; it is then the reader's own.
    pub port: Option<NonZeroU16>,
}

impl WireguardData {
    /// The JSON that upstream writes.
    ///
    /// # Errors
    /// None in practice; serialization is fallible by signature.
    pub fn to_backend_data(self) -> Result<BackendData, serde_json::Error> {
        BackendData::new(&self)
    }
}

impl Serialize for WireguardData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire {
            #[serde(rename = "PublicKey")]
            public_key: String,
            #[serde(rename = "Port")]
            port: u16,
        }
        let port = self.port.map_or(0, NonZeroU16::get);
        Wire { public_key: BASE64_STANDARD.encode(self.public_key), port }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WireguardData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut key, mut port) = (None, None);
        for (name, value) in Fields::deserialize(deserializer)?.0 {
            let text = value.get();
            match name.to_ascii_lowercase().as_str() {
                "publickey" => {
                    key = serde_json::from_str::<Option<String>>(text).map_err(de::Error::custom)?
                }
                "port" => port = serde_json::from_str::<Option<u16>>(text).map_err(de::Error::custom)?,
                _ => {}
            }
        }
        let key = key.ok_or_else(|| de::Error::missing_field("PublicKey"))?;
        let bytes = BASE64_STANDARD.decode(key.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        let public_key = bytes.ok_or_else(|| {
            de::Error::custom(format!("PublicKey `{}` is not base64 of 32 bytes", quote(&key)))
        })?;
        Ok(Self { public_key, port: port.and_then(NonZeroU16::new) })
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = text.split([':', '-']).map(|byte| {
        let hex = byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(byte, 16).ok().filter(|_| hex)
    });
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()??;
    }
    bytes.next().is_none().then_some(mac)
}

/// The members of a JSON object in their order, values unread.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
