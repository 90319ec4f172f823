//! What the operator asked for: flags, environment and net-conf.json, read once and checked, every mistake at once.
//!
//! Upstream's names, defaults and words. Differences, all on purpose: a mistake in a flag or variable
//! ends the start instead of printing help with status 0 or being ignored; words that are no flag are
//! refused instead of silently ending the flags; net-conf.json is checked whichever store is used, and
//! the daemon waits while it cannot be used.

mod backend;
mod cli;
mod healthz;
mod json;
mod net_conf;
mod pool;
mod reader;
mod resolved;
mod selection;
mod subcommand;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::backend::wireguard_key_file;
pub use self::backend::{Backend, Ipip, TxChecksumOffload, Udp, Vxlan, Wireguard, WireguardMode};
pub use self::cli::FlagValues;
use self::cli::Flags;
pub use self::healthz::{HealthzAddress, HealthzIp};
pub use self::net_conf::{NetConf, NetConfError};
pub use self::pool::{Ipv4Pool, Ipv6Pool};
pub use self::reader::KeyProblem;
pub use self::resolved::ResolvedConfig;
pub use self::selection::Selection;
pub use self::subcommand::{ManifestOptions, Platform, StatusOptions, definition};
use crate::desired::rules::TablePrefix;
use crate::logging::LogOptions;
use crate::run::ownership::TableOwnership;

/// What one call of `flanneld` is for.
#[derive(Debug)]
pub enum Command {
    /// `cleanup`: remove what the daemon made.
    Cleanup(Cleanup),
    /// `doctor`: look for what keeps pods apart.
    Doctor(Doctor),
    /// `--help`: print this on stdout and leave with status 0.
    Help(String),
    /// `manifest`: print Kubernetes objects.
    Manifest(ManifestOptions),
    /// `plan`: show what a start would change.
    Plan(Box<Config>),
    /// The daemon.
    Run(Box<Config>),
    /// `status`: show the state of the daemon.
    Status(StatusOptions),
    /// `--version`: print it on stdout and leave with status 0.
    Version,
}

/// What `flanneld cleanup` was asked.
#[derive(Debug)]
pub struct Cleanup {
    /// As for the daemon.
    pub subnet_file: PathBuf,
    /// As for the daemon.
    pub table_prefix: Option<TablePrefix>,
    /// Only print what would be removed. Default: no.
    pub dry_run: bool,
    /// What upstream's iptables mode leaves, too. Default: no.
    pub upstream: bool,
    /// subnet.env and the state file, too. Default: no.
    pub files: bool,
    /// A CNI configuration to remove, too, if it names the plugin `flannel`. Default: none.
    pub cni_config: Option<PathBuf>,
    /// Run until SIGTERM once everything is removed. Default: no.
    pub stay: bool,
    /// Even while a daemon runs. Default: no.
    pub force: bool,
}

/// What `flanneld doctor` was asked.
#[derive(Debug)]
pub struct Doctor {
    /// As for the daemon; without the network configuration if that cannot be used.
    pub config: Box<Config>,
    /// What is wrong with the network configuration.
    pub problems: Vec<Problem>,
    /// Say whether this program can take over from upstream's daemon. Default: no.
    pub preflight: bool,
    /// Write an archive for a bug report to this file. Default: none.
    pub collect: Option<PathBuf>,
    /// Print JSON. Default: no.
    pub json: bool,
}

/// Everything the daemon is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where leases are kept.
    pub store: Store,
    /// The checked net-conf.json; `None` if etcd holds it, or while the file cannot be used.
    pub net_conf: Option<NetConf>,
    /// Where net-conf.json is, if it is a file (`--net-config-path`). Default: `/etc/kube-flannel/net-conf.json`.
    pub net_conf_file: PathBuf,
    /// Which interface and addresses to use.
    pub selection: Selection,
    /// Name of the host. It distinguishes this host from another that gets its address later.
    pub host_name: String,
    /// Where subnet.env is written. Default: `/run/flannel/subnet.env`.
    pub subnet_file: PathBuf,
    /// Where the private key of backend `wireguard` is kept (`WIREGUARD_KEY_FILE`). Default: `/run/flannel/wgkey`.
    pub wireguard_key_file: PathBuf,
    /// Masquerade what leaves the pod network (`--ip-masq`). Default: no.
    pub masquerade: bool,
    /// Choose masqueraded source ports at random (not `--ip-masq-fully-random-disable`). Default: yes.
    pub fully_random: bool,
    /// Accept forwarded pod traffic (`--iptables-forward-rules`). Default: yes.
    pub forward_rules: bool,
    /// Which processes may change our tables (`--table-ownership`). Default: every privileged process.
    pub ownership: TableOwnership,
    /// What the names of our tables begin with (`--table-prefix`). Default: `None`, which leaves it to
    /// [`TablePrefix::candidates`].
    pub table_prefix: Option<TablePrefix>,
    /// A blackhole route for the node's own subnet (`--ip-blackhole-route`). Default: no.
    pub blackhole_route: bool,
    /// Time between two full checks of the kernel's state (`--iptables-resync`). Default: 5 s, at least 1 s.
    pub resync: Duration,
    /// Where `/healthz` and `/readyz` are served; `None` if the port is 0. Default: `None`.
    pub healthz: Option<HealthzAddress>,
    /// What is logged, and in which form.
    pub log: LogOptions,
    /// All flags, for the line `CLI flags config: ..`; secrets are masked.
    pub flags: FlagValues,
}

/// Where leases are kept, and how to get there.
#[derive(Clone, Debug)]
pub enum Store {
    /// etcd v3; the default.
    Etcd(Etcd),
    /// Annotations of Kubernetes nodes (`--kube-subnet-mgr`).
    Kubernetes(Kubernetes),
    /// A SQLite file (`--lease-db`).
    Sqlite {
        /// The file, created if absent.
        path: PathBuf,
        /// How long before its end a lease is renewed. Default: 60 min, less than a day.
        renew_margin: Duration,
    },
}

impl Store {
    /// What status and metrics call it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Kubernetes(_) => "kubernetes",
            Self::Sqlite { .. } => "sqlite",
        }
    }
}

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// Servers. Default: `http://127.0.0.1:4001`, `http://127.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// Prefix of all keys. Default: `/coreos.com/network`.
    pub prefix: String,
    /// Client key and certificate, PEM files; always both.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Authority of the servers' certificates, a PEM file.
    pub ca: Option<PathBuf>,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// How long before its end a lease is renewed. Default: 60 min, less than a day.
    pub renew_margin: Duration,
}

/// How to reach Kubernetes, and which node this is.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// URL of the API server, if not the kubeconfig's or the cluster's own.
    pub api_url: Option<String>,
    /// kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// Prefix of the annotations as written. Default: `flannel.alpha.coreos.com`.
    pub annotation_prefix: String,
    /// Set the node's condition NetworkUnavailable to False. Default: yes.
    pub set_network_unavailable: bool,
    /// `NODE_NAME`.
    pub node_name: Option<String>,
    /// `POD_NAME`, by which the node is found if `NODE_NAME` is not set.
    pub pod_name: Option<String>,
    /// `POD_NAMESPACE` of that pod.
    pub pod_namespace: Option<String>,
}

/// A password: neither `Debug` nor the log shows it.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The password itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where configuration comes from. [`Process`] is the real one; tests supply maps.
pub trait Source {
    /// The arguments, without the program's name.
    fn args(&self) -> Vec<OsString>;
    /// A variable of the environment.
    fn env(&self, name: &str) -> Option<OsString>;
    /// The contents of a file.
    ///
    /// # Errors
    /// As [`file::read`](crate::file::read).
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Name of the host, as `uname -n`. Default: none.
    fn host_name(&self) -> String {
        String::new()
    }
}

/// This process: its arguments, its environment, its files.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Source for Process {
    fn args(&self) -> Vec<OsString> {
        std::env::args_os().skip(1).collect()
    }

    fn env(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        crate::file::read(path)
    }

    fn host_name(&self) -> String {
        nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// One thing wrong with what the operator wrote; one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// In the environment; names the variable.
    #[error("{0}")]
    Environment(String),
    /// In net-conf.json; names the file and the key.
    #[error("{0}")]
    NetConf(String),
    /// On the command line; names the flag.
    #[error("{0}")]
    Usage(String),
}

/// Everything wrong with what the operator wrote, one line each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The status to leave with: 2 if the command line is at fault, else 1.
    pub fn exit_code(&self) -> u8 {
        if self.0.iter().any(|problem| matches!(problem, Problem::Usage(_))) { 2 } else { 1 }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}flanneld: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Command {
    /// Reads and checks everything the operator wrote, touching nothing.
    ///
    /// # Errors
    /// All mistakes, on the command line, in the environment and in net-conf.json. Mistakes in
    /// net-conf.json alone are no error for the daemon, which waits for a correction.
    pub fn read(source: &impl Source) -> Result<Self, Problems> {
        if let Some(command) = subcommand::read(source) {
            return command;
        }
        let mut problems = Vec::new();
        let flags: Option<Flags> = cli::parse(source.args(), source, &mut problems);
        let config = match flags {
            Some(flags) if flags.help => return Ok(Self::Help(subcommand::help_of(""))),
            Some(flags) if flags.version && problems.is_empty() => return Ok(Self::Version),
            Some(flags) => Config::new(flags, source, &mut problems),
            None => None,
        };
        match config {
            // A network configuration may be corrected while the daemon waits for it.
            Some(config) if problems.iter().all(|problem| matches!(problem, Problem::NetConf(_))) => {
                Ok(Self::Run(Box::new(config)))
            }
            _ => Err(Problems(problems)),
        }
    }
}

/// The flags that these arguments and variables of another daemon come to, if this program takes them.
///
/// # Errors
/// All mistakes in them. net-conf.json, which may be in another container, is not read.
pub fn read_flags(source: &impl Source) -> Result<FlagValues, Problems> {
    let mut problems = Vec::new();
    let flags: Option<Flags> = cli::parse(source.args(), source, &mut problems);
    let config = flags.and_then(|flags| Config::new(flags, source, &mut problems));
    problems.retain(|problem| !matches!(problem, Problem::NetConf(_)));
    config.filter(|_| problems.is_empty()).map(|config| config.flags).ok_or(Problems(problems))
}

impl Config {
    /// `None` if `problems` has grown.
    fn new(flags: Flags, source: &impl Source, problems: &mut Vec<Problem>) -> Option<Self> {
        let net_conf = if flags.lease_db.is_some() || flags.kube_subnet_mgr {
            read_net_conf(&flags.net_config_path, source).map_err(|found| problems.extend(found)).ok()
        } else {
            None
        };
        let values = FlagValues::from(&flags);
        let glog_flags = flags.glog_flags();
        let store = store(&flags, source, problems)?;
        Some(Self {
            store,
            net_conf,
            net_conf_file: flags.net_config_path,
            selection: Selection {
                interfaces: flags.iface,
                patterns: flags.iface_regex,
                can_reach: flags.iface_can_reach,
                public_ipv4: flags.public_ip,
                public_ipv6: flags.public_ipv6,
            },
            subnet_file: flags.subnet_file,
            wireguard_key_file: wireguard_key_file(source),
            masquerade: flags.ip_masq,
            fully_random: !flags.ip_masq_fully_random_disable,
            forward_rules: flags.iptables_forward_rules,
            ownership: flags.table_ownership,
            table_prefix: flags.table_prefix,
            blackhole_route: flags.ip_blackhole_route,
            host_name: source.host_name(),
            resync: Duration::from_secs(flags.iptables_resync.into()),
            healthz: (flags.healthz_port != 0)
                .then_some(HealthzAddress { ip: flags.healthz_ip, port: flags.healthz_port }),
            log: LogOptions {
                format: flags.log_format,
                verbosity: flags.v,
                vmodule: flags.vmodule.unwrap_or_default(),
                backtrace_at: flags.log_backtrace_at,
                glog_flags,
                journal_stream: source.env("JOURNAL_STREAM"),
            },
            flags: values,
        })
    }
}

fn read_net_conf(path: &Path, source: &impl Source) -> Result<NetConf, Vec<Problem>> {
    let shown = path.display();
    let text = source.read(path).map_err(|error| {
        vec![Problem::NetConf(format!(
            "failed to read net conf: {shown}: {error}; write one there or name another with --net-config-path"
        ))]
    })?;
    NetConf::parse(&text).map_err(|error| {
        let line = |problem: KeyProblem| {
            Problem::NetConf(format!("error parsing subnet config: {shown}: {problem}"))
        };
        error.0.into_iter().map(line).collect()
    })
}

fn store(flags: &Flags, source: &impl Source, problems: &mut Vec<Problem>) -> Option<Store> {
    match (&flags.lease_db, flags.kube_subnet_mgr) {
        (Some(_), true) => {
            problems.push(Problem::Usage(
                "--lease-db and --kube-subnet-mgr are two lease stores; choose one".into(),
            ));
            None
        }
        (Some(path), false) => Some(Store::Sqlite { path: path.clone(), renew_margin: renew_margin(flags) }),
        (None, true) => kubernetes(flags, source, problems).map(Store::Kubernetes),
        (None, false) => etcd(flags, problems).map(Store::Etcd),
    }
}

fn renew_margin(flags: &Flags) -> Duration {
    Duration::from_secs(60 * u64::from(flags.subnet_lease_renew_margin))
}

fn etcd(flags: &Flags, problems: &mut Vec<Problem>) -> Option<Etcd> {
    let before = problems.len();
    let identity = match (&flags.etcd_keyfile, &flags.etcd_certfile) {
        (Some(key), Some(certificate)) => Some((key.clone(), certificate.clone())),
        (None, None) => None,
        (Some(_), None) => {
            problems.push(Problem::Usage("--etcd-keyfile needs --etcd-certfile".into()));
            None
        }
        (None, Some(_)) => {
            problems.push(Problem::Usage("--etcd-certfile needs --etcd-keyfile".into()));
            None
        }
    };
    let endpoints: Vec<_> = flags
        .etcd_endpoints
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect();
    if endpoints.iter().any(|url| url.contains('@')) {
        problems.push(Problem::Usage(
            "--etcd-endpoints: a URL contains credentials; give --etcd-username and FLANNELD_ETCD_PASSWORD instead"
                .into(),
        ));
    }
    if endpoints.is_empty() {
        problems.push(Problem::Usage("--etcd-endpoints names no server".into()));
    }
    (problems.len() == before).then(|| Etcd {
        endpoints,
        prefix: flags.etcd_prefix.clone(),
        identity,
        ca: flags.etcd_cafile.clone(),
        username: flags.etcd_username.clone(),
        password: flags.etcd_password.clone(),
        renew_margin: renew_margin(flags),
    })
}

fn kubernetes(flags: &Flags, source: &impl Source, problems: &mut Vec<Problem>) -> Option<Kubernetes> {
    let variable =
        |name| source.env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
    // Upstream's; flanneld has no queue that can overflow.
    if let Some(depth) = variable("EVENT_QUEUE_DEPTH").filter(|depth| depth.parse::<i64>().is_err()) {
        problems.push(Problem::Environment(format!(
            "env EVENT_QUEUE_DEPTH={depth} format error: a whole number of events is expected"
        )));
        return None;
    }
    Some(Kubernetes {
        api_url: flags.kube_api_url.clone(),
        kubeconfig: flags.kubeconfig_file.clone(),
        annotation_prefix: flags.kube_annotation_prefix.clone(),
        set_network_unavailable: flags.set_node_network_unavailable,
        node_name: variable("NODE_NAME"),
        pod_name: variable("POD_NAME"),
        pod_namespace: variable("POD_NAMESPACE"),
    })
}
