//! The configuration of the daemon: every flag, environment variable and file, parsed and checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backend::wireguard_key_file;
use super::cli::Flags;
use super::{FlagValues, HealthzAddress, KeyProblem, NetConf, Problem, Selection, Source, Store};
use crate::desired::rules::TablePrefix;
use crate::logging::LogOptions;
use crate::run::ownership::TableOwnership;

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

impl Config {
    /// `None` if `problems` has grown.
    pub(super) fn new(flags: Flags, source: &impl Source, problems: &mut Vec<Problem>) -> Option<Self> {
        let net_conf = if flags.lease_db.is_some() || flags.kube_subnet_mgr {
            read_net_conf(&flags.net_config_path, source).map_err(|found| problems.extend(found)).ok()
        } else {
            None
        };
        let values = FlagValues::from(&flags);
        let glog_flags = flags.glog_flags();
        let store = Store::new(&flags, source, problems)?;
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
