//! Where the health port is opened: `--healthz-ip` and `--healthz-port`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// `--healthz-ip`, as Go's `net.Listen` reads it: every address if empty. An IPv6 address may have a
/// zone (`fe80::1%eth0`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthzIp {
    /// As written.
    text: String,
    /// An IPv4-mapped IPv6 address is its IPv4 address.
    pub address: IpAddr,
    /// Name or index of the interface that a link-local address is on.
    pub zone: Option<String>,
}

impl FromStr for HealthzIp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "an IPv4 or IPv6 address is expected";
        let (address, zone) = match text.split_once('%') {
            Some((_, "")) => return Err(EXPECTED),
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (text, None),
        };
        let address = match address {
            "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => address.parse().map_err(|_no_address| EXPECTED)?,
        };
        if zone.is_some() && address.is_ipv4() {
            return Err(EXPECTED);
        }
        Ok(Self { text: text.to_owned(), address: address.to_canonical(), zone })
    }
}

impl fmt::Display for HealthzIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Address and port. Shown as upstream logs it (Go's `net.JoinHostPort`): `0.0.0.0:8081`, `[::]:8081`, `:8081`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthzAddress {
    /// `--healthz-ip`
    pub ip: HealthzIp,
    /// `--healthz-port`; tests use 0 for a free one.
    pub port: u16,
}

impl fmt::Display for HealthzAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip: HealthzIp { text, .. }, port } = self;
        if text.contains(':') { write!(f, "[{text}]:{port}") } else { write!(f, "{text}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_as_go_does() {
        for (text, address, zone, shown) in [
            ("0.0.0.0", "0.0.0.0", None, "0.0.0.0:8081"),
            ("", "0.0.0.0", None, ":8081"),
            ("::", "::", None, "[::]:8081"),
            ("::ffff:0.0.0.0", "0.0.0.0", None, "[::ffff:0.0.0.0]:8081"),
            ("::ffff:192.0.2.1", "192.0.2.1", None, "[::ffff:192.0.2.1]:8081"),
            ("fe80::1%eth0", "fe80::1", Some("eth0"), "[fe80::1%eth0]:8081"),
            ("fe80::1%2", "fe80::1", Some("2"), "[fe80::1%2]:8081"),
        ] {
            let ip: HealthzIp = text.parse().unwrap();
            assert_eq!((ip.address.to_string().as_str(), ip.zone.as_deref()), (address, zone), "{text}");
            assert_eq!(HealthzAddress { ip, port: 8081 }.to_string(), shown);
        }
        for text in ["localhost", "1.2.3", "192.0.2.1%eth0", "fe80::1%", "%eth0", "[::]", "0.0.0.0:80", " ::"]
        {
            assert!(text.parse::<HealthzIp>().is_err(), "{text}");
        }
    }
}
