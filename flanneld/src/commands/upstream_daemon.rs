//! Upstream's daemon on this node: whether it runs, and whether the kernel holds what it programs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use flannel_cni::SubnetEnv;
use flannel_nft::iptables::iptables_tables;
use flannel_nft::{Chain, Kernel as _, Table, Verdict};
use flannel_vxlan::{Family, FlannelDevice, Kernel as _, ObservedDevice, ObservedRoute, ObservedRouteTo};
use ipnet::IpNet;

use super::legacy_iptables::LegacyTables;
use super::{CommandError, devices, peers};
use crate::config::{HealthzAddress, Source};
use crate::desired::rules::TablePrefix;
use crate::run::instances;
use crate::run::processes::Process;
use crate::status::model::{PeerState, PeerStatus};

/// `rtm_protocol` of routes that name none (`RTPROT_BOOT`), as upstream's.
const BOOT: u8 = 3;
/// How long the health port may take to answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// What `/healthz` answers, upstream's and ours.
const RUNNING: &str = "flanneld is running";

/// What runs here of upstream's.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Its daemons that this `/proc` shows.
    pub(super) processes: Vec<Process>,
    /// Where a daemon that it does not show answers, in another container for example.
    pub(super) answers_at: Option<HealthzAddress>,
}

impl Upstream {
    /// `None` if no daemon of upstream's is found. `healthz` is where it serves its health, if it does.
    ///
    /// # Errors
    /// [`CommandError::Processes`].
    pub(super) fn find(healthz: Option<&HealthzAddress>) -> Result<Option<Self>, CommandError> {
        let processes = instances::upstream().map_err(CommandError::Processes)?;
        let ours = instances::of_this_kind().map_err(CommandError::Processes)?;
        let is_unseen = processes.is_empty() && ours.is_empty();
        let answers_at =
            healthz.filter(|address| is_unseen && health(address).as_deref() == Some(RUNNING)).cloned();
        let is_here = !processes.is_empty() || answers_at.is_some();
        Ok(is_here.then_some(Self { processes, answers_at }))
    }

    /// As [`Self::find`], unless a daemon of this program has this subnet file, and so keeps the node itself.
    ///
    /// # Errors
    /// [`CommandError::Processes`].
    pub(super) fn find_alone(
        subnet_file: &Path,
        healthz: Option<&HealthzAddress>,
    ) -> Result<Option<Self>, CommandError> {
        let found = Self::find(healthz)?;
        let ours = instances::with_subnet_file(subnet_file).map_err(CommandError::Processes)?;
        Ok(found.filter(|_| ours.is_none()))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.processes.as_slice(), &self.answers_at) {
            ([], Some(address)) => {
                write!(
                    f,
                    "upstream's flanneld answers on {address}, but its process is not visible from here"
                )
            }
            (processes, _) => {
                write!(f, "upstream's flanneld runs here ({})", shown(processes))
            }
        }
    }
}

/// Numbers and programs of processes.
pub(super) fn shown<'a>(processes: impl IntoIterator<Item = &'a Process>) -> String {
    let shown = |process: &Process| format!("process {}, {}", process.pid, process.program.display());
    processes.into_iter().map(shown).collect::<Vec<_>>().join("; ")
}

/// Connects to this port of this host.
fn connect(address: &HealthzAddress) -> io::Result<TcpStream> {
    let ip = match address.ip.address {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    TcpStream::connect_timeout(&SocketAddr::new(ip, address.port), HEALTH_TIMEOUT)
}

/// Whether a program listens on this port of this host.
pub(super) fn is_listening(address: &HealthzAddress) -> bool {
    connect(address).is_ok()
}

/// The body of a `/healthz` that answers 200 on this port of this host. `None` if nothing answers so.
fn health(address: &HealthzAddress) -> Option<String> {
    get(address, "/healthz", 4096)
}

/// The body of what answers 200 under this path, on this port of this host, if it has at most `limit` bytes with its header.
pub(super) fn get(address: &HealthzAddress, path: &str, limit: u64) -> Option<String> {
    let mut stream = connect(address).ok()?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(limit).read_to_end(&mut answer).ok()?;
    let (head, body) = std::str::from_utf8(&answer).ok()?.split_once("\r\n\r\n")?;
    (head.split(' ').nth(1) == Some("200")).then(|| body.trim().to_owned())
}

/// Arguments and environment of another process. It has no files: its container may have others.
pub(super) struct Foreign {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Foreign {
    /// # Errors
    /// The process has ended, or this process may not look at it.
    pub(super) fn read(process: &Process) -> io::Result<Self> {
        Ok(Self { arguments: process.arguments()?, environment: process.environment()? })
    }
}

impl Source for Foreign {
    fn args(&self) -> Vec<OsString> {
        self.arguments.clone()
    }

    fn env(&self, name: &str) -> Option<OsString> {
        self.environment.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// What the kernel holds of upstream's, and what of it is missing.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The peers of its routes. A peer without its neighbor or FDB entry is pending.
    pub(super) peers: BTreeMap<IpNet, PeerStatus>,
    /// Its chains.
    pub(super) rules: Rules,
    /// What is missing, by what it is missing from.
    pub(super) unmet: BTreeMap<String, String>,
}

impl State {
    /// Reads the kernel. `env` is subnet.env, which says what upstream's daemon was asked for.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub(super) fn read(
        env: &SubnetEnv,
        links: &mut flannel_vxlan::Netlink,
        nft: &mut flannel_nft::Netlink,
    ) -> Result<Self, CommandError> {
        let mut state = Self::default();
        let subnets: Vec<IpNet> = env.subnets().collect();
        let within = &env.networks;
        if subnets.is_empty() {
            state
                .unmet
                .insert("subnet_file".to_owned(), "it does not exist, or it names no subnet".to_owned());
        }
        let mut found = Vec::new();
        for wanted in std::iter::once(Vec::new()).chain(devices::all(links)?) {
            let observed = links.observe(&wanted)?;
            found.extend(observed.devices.iter().cloned());
            let is_its = |route: &ObservedRoute| {
                let leaves_by_one = observed.devices.iter().any(|device| device.index == route.interface);
                let is_its_way = match route.to {
                    ObservedRouteTo::Gateway { onlink: true, .. } => leaves_by_one,
                    ObservedRouteTo::Gateway { onlink: false, .. } => wanted.is_empty(),
                    _ => false,
                };
                route.protocol == BOOT
                    && is_its_way
                    && within.iter().any(|network| network.contains(&route.subnet))
                    && !subnets.contains(&route.subnet)
            };
            state
                .peers
                .extend(peers::of_routes(&observed, is_its).into_iter().map(|peer| (peer.subnet, peer)));
        }
        state.judge_overlay(&subnets, &found);

        let mut tables = iptables_tables();
        tables.extend(TablePrefix::default().tables()?);
        state.rules = Rules::find(nft.observe(&tables)?.ruleset.tables());
        let is_masqueraded = |net: &&IpNet| state.rules.masquerade.contains_key(&Family::of_net(**net));
        let bare: Vec<_> =
            within.iter().filter(|net| !is_masqueraded(net)).map(ToString::to_string).collect();
        let may_be_legacy = LegacyTables::read(Path::new("/")).iter().any(|tables| tables.has("nat"));
        if env.ip_masq == Some(true) && !bare.is_empty() && !may_be_legacy {
            let text =
                format!("no rule masquerades packets of pods of {} to other networks", bare.join(" and "));
            state.unmet.insert("rules".to_owned(), text);
        }
        Ok(state)
    }

    /// `devices` have flannel's names.
    fn judge_overlay(&mut self, subnets: &[IpNet], devices: &[ObservedDevice]) {
        let pending: Vec<_> = self.peers.values().filter(|peer| peer.state == PeerState::Pending).collect();
        let shown =
            |peer: &&PeerStatus| format!("{}: {}", peer.subnet, peer.reason.as_deref().unwrap_or_default());
        if let Some(first) = pending.first().map(shown) {
            let others = pending.len() - 1;
            let more = if others == 0 { String::new() } else { format!("; and {others} more") };
            self.unmet.insert("peers".to_owned(), format!("{first}{more}"));
        }
        let is_direct = |peer: &PeerStatus| peer.direct && peer.state == PeerState::Programmed;
        if !self.peers.is_empty() && self.peers.values().all(is_direct) {
            // host-gw: a device may be left of another backend.
            return;
        }
        let lacks = |subnet: &&IpNet| {
            let of_family = |device: &&ObservedDevice| {
                FlannelDevice::of_name(device.name.as_str())
                    .is_some_and(|(_, family)| family == Family::of_net(**subnet))
            };
            let has_it = |device: &ObservedDevice| {
                device.up && device.addresses.iter().any(|(address, _)| *address == subnet.network())
            };
            let mut candidates = devices.iter().filter(of_family).peekable();
            candidates.peek().is_some() && !candidates.any(has_it)
        };
        let lacking: Vec<_> =
            subnets.iter().filter(lacks).map(|subnet| subnet.network().to_string()).collect();
        if !lacking.is_empty() {
            let text = format!("no device of flannel that is up has the address {}", lacking.join(" or "));
            self.unmet.insert("device".to_owned(), text);
        }
    }
}

/// Chains by which upstream masquerades and accepts, named with their tables.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) masquerade: BTreeMap<Family, String>,
    pub(super) accept: BTreeMap<Family, String>,
}

impl Rules {
    /// Chains of iptables mode that are jumped to, and chains of nftables mode; empty ones do nothing.
    fn find(tables: &[Table]) -> Self {
        let mut rules = Self::default();
        for table in tables {
            let family = match table.id().family {
                flannel_nft::Family::Ip => Family::V4,
                flannel_nft::Family::Ip6 => Family::V6,
                _ => continue,
            };
            let filled = |name: &str| chain(table, name).is_some_and(|chain| !chain.list().is_empty());
            let note = |name: &str, hook: Option<&str>| {
                let is_asked = hook.is_none_or(|hook| jumps(table, hook, name));
                (filled(name) && is_asked).then(|| format!("{} {name}", table.id()))
            };
            let (masquerade, accept) = match table.id().name.as_str() {
                "nat" => (note("FLANNEL-POSTRTG", Some("POSTROUTING")), None),
                "filter" => (None, note("FLANNEL-FWD", Some("FORWARD"))),
                _ => (note("postrtg", None), note("forward", None)),
            };
            rules.masquerade.extend(masquerade.map(|chain| (family, chain)));
            rules.accept.extend(accept.map(|chain| (family, chain)));
        }
        rules
    }

    /// Whether upstream's iptables mode made them.
    pub(super) fn is_iptables_mode(&self) -> bool {
        self.masquerade.values().chain(self.accept.values()).any(|chain| chain.contains("FLANNEL-"))
    }
}

pub(super) fn chain<'a>(table: &'a Table, name: &str) -> Option<&'a Chain> {
    table.chains().iter().find(|chain| chain.name().as_str() == name)
}

fn jumps(table: &Table, from: &str, to: &str) -> bool {
    let rules = chain(table, from).map(Chain::list).unwrap_or_default();
    let mut verdicts = rules.iter().flat_map(flannel_nft::Rule::verdicts);
    verdicts
        .any(|verdict| matches!(verdict, Verdict::Jump(name) | Verdict::Goto(name) if name.as_str() == to))
}
