//! subnet.env: what the CNI plugin and `mk-docker-opts.sh` read, and what this node remembers of its subnet.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flannel_cni::subnet_env::assignment;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::file;

/// The contents of subnet.env. `Display` is the file, byte for byte as upstream writes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubnetEnv {
    /// IPv4 network of the cluster and subnet of this node; `None` if IPv4 is off.
    pub ipv4: Option<(Ipv4Net, Ipv4Net)>,
    /// IPv6 network of the cluster and subnet of this node; `None` if IPv6 is off.
    pub ipv6: Option<(Ipv6Net, Ipv6Net)>,
    /// Largest packet that pods may send, in bytes.
    pub mtu: u32,
    /// Whether this daemon masquerades, so that the CNI plugin need not.
    pub ip_masq: bool,
}

impl fmt::Display for SubnetEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The subnet's first host address is the gateway on the CNI plugin's bridge.
        if let Some((network, subnet)) = self.ipv4 {
            let gateway = Ipv4Addr::from_bits(subnet.network().to_bits().wrapping_add(1));
            writeln!(f, "FLANNEL_NETWORK={network}")?;
            writeln!(f, "FLANNEL_SUBNET={gateway}/{}", subnet.prefix_len())?;
        }
        if let Some((network, subnet)) = self.ipv6 {
            let gateway = std::net::Ipv6Addr::from_bits(subnet.network().to_bits().wrapping_add(1));
            writeln!(f, "FLANNEL_IPV6_NETWORK={network}")?;
            writeln!(f, "FLANNEL_IPV6_SUBNET={gateway}/{}", subnet.prefix_len())?;
        }
        writeln!(f, "FLANNEL_MTU={}", self.mtu)?;
        writeln!(f, "FLANNEL_IPMASQ={}", self.ip_masq)
    }
}

/// Why subnet.env was not written or not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetEnvError {
    /// The previous file, if any, is as it was.
    #[error("cannot write subnet file {}: {}, or name another with --subnet-file", path.display(), file::write_advice(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// It exists, and cannot be read.
    #[error("cannot read subnet file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// It holds something that no daemon of this kind wrote.
    #[error("subnet file {}: {key}={value} is not a network in CIDR notation", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line's key.
        key: &'static str,
        /// The line's value.
        value: String,
    },
}

impl SubnetEnv {
    /// Writes the file whole or not at all: writes a temporary file in the same directory, syncs it, and renames it. Returns whether
    /// that was necessary.
    ///
    /// Lines that assign keys of other programs, such as those of `mk-docker-opts.sh`, stay, at the end of the file.
    /// Its directory is made if absent (mode 0755). A new file has mode 0644 whatever the umask; that of an existing
    /// one is kept.
    ///
    /// # Errors
    /// [`SubnetEnvError::Write`].
    pub fn write(&self, path: &Path) -> Result<bool, SubnetEnvError> {
        // What cannot be read is replaced.
        let present = file::read(path).unwrap_or_default();
        if self.is_in(&present) {
            return Ok(false);
        }
        let mut content = self.to_string().into_bytes();
        for line in present.split_inclusive(|byte| *byte == b'\n') {
            if owner(line) == Owner::Other {
                content.extend_from_slice(line);
            }
        }
        if !content.ends_with(b"\n") {
            content.push(b'\n');
        }
        file::replace(path, &content, file::mode(path).unwrap_or(0o644))
            .map_err(|source| SubnetEnvError::Write { path: path.to_owned(), source })?;
        Ok(true)
    }

    /// Whether these are the contents of a file that says this, whatever other programs have added.
    #[must_use]
    pub fn is_in(&self, contents: &[u8]) -> bool {
        let lines = contents.split_inclusive(|byte| *byte == b'\n');
        let ours: Vec<&[u8]> = lines.filter(|line| owner(line) != Owner::Other).collect();
        ours.concat() == self.to_string().as_bytes()
    }
}

/// The program that a line of subnet.env belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owner {
    /// flannel's, or what is left of a damaged line.
    Flannel,
    /// Another program's assignment, or a comment.
    Other,
}

fn owner(line: &[u8]) -> Owner {
    let line = String::from_utf8_lossy(line);
    let is_others = match assignment(&line) {
        Some((name, _)) => !name.starts_with("FLANNEL_"),
        None => line.trim().is_empty(),
    };
    if is_others || line.trim_start().starts_with('#') { Owner::Other } else { Owner::Flannel }
}

/// What an earlier run left in subnet.env: the subnet to ask for again. Hosts' bits are cleared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Previous {
    /// `FLANNEL_NETWORK`.
    pub ipv4_network: Option<Ipv4Net>,
    /// `FLANNEL_SUBNET`.
    pub ipv4_subnet: Option<Ipv4Net>,
    /// `FLANNEL_IPV6_NETWORK`.
    pub ipv6_network: Option<Ipv6Net>,
    /// `FLANNEL_IPV6_SUBNET`.
    pub ipv6_subnet: Option<Ipv6Net>,
    /// `FLANNEL_MTU`, in bytes.
    pub mtu: Option<u32>,
    /// `FLANNEL_IPMASQ`.
    pub ip_masq: Option<bool>,
}

impl Previous {
    /// Reads what is there; an absent file and an absent line are nothing. Of a list the first network counts.
    ///
    /// # Errors
    /// [`SubnetEnvError::Read`], [`SubnetEnvError::Corrupt`]. Going on without a previous subnet is safe.
    pub fn read(path: &Path) -> Result<Self, SubnetEnvError> {
        match file::read(path) {
            Ok(bytes) => Self::parse(&bytes).map_err(|(key, value)| SubnetEnvError::Corrupt {
                path: path.to_owned(),
                key,
                value,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SubnetEnvError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads the text of a subnet.env.
    ///
    /// # Errors
    /// The key and value that are not a network.
    pub fn parse(bytes: &[u8]) -> Result<Self, (&'static str, String)> {
        let text = String::from_utf8_lossy(bytes);
        Ok(Self {
            ipv4_network: value(&text, "FLANNEL_NETWORK")?.map(|network: Ipv4Net| network.trunc()),
            ipv4_subnet: value(&text, "FLANNEL_SUBNET")?.map(|subnet: Ipv4Net| subnet.trunc()),
            ipv6_network: value(&text, "FLANNEL_IPV6_NETWORK")?.map(|network: Ipv6Net| network.trunc()),
            ipv6_subnet: value(&text, "FLANNEL_IPV6_SUBNET")?.map(|subnet: Ipv6Net| subnet.trunc()),
            mtu: assigned(&text, "FLANNEL_MTU").and_then(|mtu| mtu.parse().ok()),
            ip_masq: assigned(&text, "FLANNEL_IPMASQ").and_then(|is_on| is_on.parse().ok()),
        })
    }
}

/// The first network in the value of the last `key=` line. As upstream's reader it skips what is no network in a list.
fn value<T: FromStr>(text: &str, key: &'static str) -> Result<Option<T>, (&'static str, String)> {
    match assigned(text, key) {
        None | Some("") => Ok(None),
        Some(list) => match list.split(',').find_map(|entry| entry.trim().parse().ok()) {
            Some(network) => Ok(Some(network)),
            None => Err((key, list.escape_debug().to_string())),
        },
    }
}

/// The value of the last `key=` line.
fn assigned<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let of_line = |line| assignment(line).filter(|(name, _)| *name == key).map(|(_, value)| value);
    text.lines().rev().find_map(of_line)
}
