//! What this node remembers over a restart: the state file in the directory of subnet.env.
//!
//! With it the daemon comes up while its lease store is away: own lease, network configuration and peers as they were
//! last known. It is never more than a stand-in: what the store says counts as soon as the store says something.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::{self, SerializeMap as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::NetConf;
use crate::file;
use crate::run::machine_identity::Machine;
use flannel_lease::{Backoff, Chain};
use flannel_lease::{LeaseAttributes, LeaseKey, LeaseKeyError};
use flannel_vxlan::Interface;

/// The only format there is so far.
const FORMAT_VERSION: u32 = 1;
/// Largest state file that is read, in bytes; 10 000 peers take 1.5 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Longest pause between two attempts to write the file.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// All that is remembered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SavedState {
    /// The network configuration that was in force.
    pub net_conf: NetConf,
    /// The machine that wrote it; `None` in files of earlier releases.
    pub machine: Option<Machine>,
    /// This node's own subnets.
    pub key: LeaseKey,
    /// What this node published with them.
    pub attributes: LeaseAttributes,
    /// The public addresses that the store's operator gave this node.
    pub node_public: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// The other nodes' leases, shared with the table of leases.
    pub peers: Vec<(LeaseKey, Arc<LeaseAttributes>)>,
    /// Whether `net_conf` had a `Backend.PSK`, which the file does not contain.
    pub psk_withheld: bool,
    /// Earlier network configurations whose devices and routes may still be in the kernel.
    pub unswept: Vec<NetConf>,
}

/// Why a state file was not written or not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileError {
    /// The previous file, if any, is as it was.
    #[error("cannot write state file {}: {}", path.display(), file::write_advice(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// It exists, and cannot be read.
    #[error("cannot read state file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// It is damaged, or another program wrote it.
    #[error("state file {} is not one that this flanneld wrote: {problem}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It is of another release.
    #[error("state file {} has format {found}, this flanneld reads format {FORMAT_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its `version`.
        found: u32,
    },
}

/// `/run/flannel/subnet.env` → `/run/flannel/subnet.state.json`: several daemons with a subnet file each do not meet
/// ([`file::beside`]).
#[must_use]
pub fn path(subnet_file: &Path) -> PathBuf {
    file::beside(subnet_file, "state.json")
}

/// Writes each state to `path` and forgets it, until there are no more. A state that cannot be written is retried until
/// there is a newer one. File calls block the calling thread.
pub async fn keep(path: PathBuf, mut states: mpsc::Receiver<SavedState>) {
    file::remove_leftovers(&path);
    let (mut unwritten, mut failing) = (None, false);
    let mut backoff = Backoff::up_to(MAX_RETRY_DELAY);
    loop {
        let saved = match unwritten.take() {
            None => states.recv().await,
            Some(older) => match timeout(backoff.next_delay(), states.recv()).await {
                Ok(newer) => newer,
                Err(_due) => Some(older),
            },
        };
        let Some(saved) = saved else { return };
        match saved.write(&path) {
            Ok(()) => {
                if failing {
                    info!("state file {} is written again", path.display());
                }
                failing = false;
                backoff.reset();
            }
            Err(error) => {
                if !failing {
                    warn!(
                        "the state file is not up to date; traffic is not affected and flanneld retries, but a restart \
                         while the lease store is away would not know the present peers: {}",
                        Chain(&error)
                    );
                }
                failing = true;
                unwritten = Some(saved);
            }
        }
    }
}

impl SavedState {
    /// Reads what an earlier run left; `None` if there is no such file.
    ///
    /// # Errors
    /// [`StateFileError`]. Going on without a memory is safe.
    pub fn read(path: &Path) -> Result<Option<Self>, StateFileError> {
        match file::read_up_to(MAX_FILE_BYTES, path) {
            Ok(text) => Self::parse(&text).map(Some).map_err(|problem| problem.of(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateFileError::Read { path: path.to_owned(), source }),
        }
    }

    /// The same, if this machine wrote it: the one with these interfaces and this name. Anything else is logged, and
    /// nothing is remembered.
    #[must_use]
    pub fn read_own(path: &Path, interfaces: &[Interface], host_name: &str) -> Option<Self> {
        let saved = Self::read(path).unwrap_or_else(|error| {
            warn!(
                "{}; flanneld starts without it, waits for the lease store and then writes it again; traffic is not affected",
                Chain(&error)
            );
            None
        })?;
        let other = saved.machine.as_ref().filter(|machine| !machine.is_this(interfaces, host_name));
        if let Some(Machine { uplink_mac, host_name, .. }) = other {
            info!(
                "state file {} is ignored: another machine wrote it, {host_name:?} with uplink MAC address {}. flanneld \
                 starts without it and asks the store for a lease; nothing is needed",
                path.display(),
                uplink_mac.as_deref().unwrap_or("unknown")
            );
        }
        let ours = other.is_none();
        ours.then_some(saved)
    }

    /// Writes the file whole or not at all, readable by its owner only. Peer after peer, so that there is never a second
    /// copy of them all.
    ///
    /// # Errors
    /// [`StateFileError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), StateFileError> {
        file::replace_by(path, 0o600, |file| Ok(self.write_json(file)?))
            .map_err(|source| StateFileError::Write { path: path.to_owned(), source })
    }

    /// The configurations whose devices and routes may be in the kernel.
    #[must_use]
    pub fn configurations(&self) -> Vec<NetConf> {
        self.unswept.iter().chain([&self.net_conf]).cloned().collect()
    }

    /// The configuration, if it can be used in place of the store's: not without its `Backend.PSK`.
    #[must_use]
    pub fn usable_net_conf(&self) -> Option<&NetConf> {
        (!self.psk_withheld).then_some(&self.net_conf)
    }

    /// Why this cannot stand in for a store under `net_conf`; `None` if it can.
    #[must_use]
    pub fn unfit_for(&self, net_conf: &NetConf) -> Option<String> {
        let ((then_v4, then_v6), (v4, v6)) = (self.net_conf.networks(), net_conf.networks());
        // A family that is no longer in use takes nothing from the other.
        if v4.is_some_and(|net| then_v4 != Some(net)) || v6.is_some_and(|net| then_v6 != Some(net)) {
            let shown = |net_conf: &NetConf| {
                net_conf.all_networks().iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
            };
            return Some(format!("it is about network {}, not {}", shown(&self.net_conf), shown(net_conf)));
        }
        let key = self.key;
        key.within(v4, v6).is_none().then(|| format!("its lease {key} is not one of the network"))
    }

    pub(crate) fn write_json(&self, file: impl io::Write) -> Result<(), serde_json::Error> {
        let wire = Wire {
            version: FORMAT_VERSION,
            net_conf: RawValue::from_string(self.net_conf.to_json())?,
            psk_withheld: self.psk_withheld || self.net_conf.backend.has_psk(),
            machine: self.machine.clone(),
            subnet: self.key.to_string(),
            lease: raw(&self.attributes)?,
            public_ip: self.node_public.0,
            public_ipv6: self.node_public.1,
            unswept: self
                .unswept
                .iter()
                .map(|net_conf| RawValue::from_string(net_conf.to_json()))
                .collect::<Result<_, _>>()?,
            peers: Peers(Cow::Borrowed(&self.peers)),
        };
        serde_json::to_writer(file, &wire)
    }

    pub(crate) fn parse(text: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(text)?;
        if version != FORMAT_VERSION {
            return Err(Problem::Version(version));
        }
        let wire: Wire<'_> = serde_json::from_slice(text)?;
        let net_conf = |raw: &RawValue| {
            NetConf::parse(raw.get().as_bytes())
                .map_err(|error| Problem::Foreign(format!("net_conf: {error}")))
        };
        Ok(Self {
            net_conf: net_conf(&wire.net_conf)?,
            psk_withheld: wire.psk_withheld,
            machine: wire.machine,
            unswept: wire.unswept.iter().map(|raw| net_conf(raw)).collect::<Result<_, _>>()?,
            key: wire.subnet.parse().map_err(|error: LeaseKeyError| Problem::Foreign(error.to_string()))?,
            attributes: LeaseAttributes::from_json(wire.lease.get().as_bytes())?,
            node_public: (wire.public_ip, wire.public_ipv6),
            peers: wire.peers.0.into_owned(),
        })
    }
}

/// The file. Attributes are as in etcd, so that people who know flannel can read them.
#[derive(Deserialize, Serialize)]
struct Wire<'a> {
    version: u32,
    net_conf: Box<RawValue>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    psk_withheld: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<Machine>,
    subnet: String,
    lease: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_ip: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unswept: Vec<Box<RawValue>>,
    peers: Peers<'a>,
}

/// A JSON object: attributes by lease key.
struct Peers<'a>(Cow<'a, [(LeaseKey, Arc<LeaseAttributes>)]>);

impl Serialize for Peers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, attributes) in self.0.iter() {
            // What could not be read back (a podCIDR of one address, annotations of 100 KB) would spoil the whole file.
            let (name, json) = (key.to_string(), raw(attributes).map_err(ser::Error::custom)?);
            if name.parse() == Ok(*key) && LeaseAttributes::from_json(json.get().as_bytes()).is_ok() {
                map.serialize_entry(&name, &json)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Peers<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(LeaseKey, Arc<LeaseAttributes>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("leases by their subnets")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut peers = Vec::new();
                while let Some((name, json)) = map.next_entry::<String, &RawValue>()? {
                    let key = name.parse().map_err(de::Error::custom)?;
                    let attributes = LeaseAttributes::from_json(json.get().as_bytes());
                    peers.push((key, Arc::new(attributes.map_err(de::Error::custom)?)));
                }
                Ok(peers)
            }
        }
        deserializer.deserialize_map(Entries).map(|peers| Self(Cow::Owned(peers)))
    }
}

fn raw(attributes: &LeaseAttributes) -> Result<Box<RawValue>, serde_json::Error> {
    attributes.to_json().and_then(RawValue::from_string)
}

#[derive(Debug)]
pub(crate) enum Problem {
    Foreign(String),
    Version(u32),
}

impl Problem {
    fn of(self, path: &Path) -> StateFileError {
        let path = path.to_owned();
        match self {
            Self::Foreign(problem) => StateFileError::Foreign { path, problem },
            Self::Version(found) => StateFileError::Version { path, found },
        }
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::Foreign(error.to_string())
    }
}

#[cfg(test)]
mod tests;
