//! The command line and its `FLANNELD_*` twins, in Go's spelling.
//!
//! [`Flags`] is the one definition of every flag: names, defaults, help. What Go's `flag` package accepts and
//! clap does not (`-iface=eth0`, `-v 2`) is rewritten to `--name=value` first, together with the environment.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::{HealthzIp, Problem, Source, flag_values};
use clap::{ArgAction, CommandFactory, Parser};
use regex::Regex;

use crate::desired::rules::TablePrefix;
use crate::logging::{BacktraceAt, LogFormat, Vmodule};
use crate::run::ownership::TableOwnership;

/// Pod networking for Kubernetes nodes and plain hosts: lease a subnet for this node, and keep the kernel's routes,
/// tunnels and masquerade rules for it.
///
/// Each flag has an environment variable: --healthz-port=8081 is FLANNELD_HEALTHZ_PORT=8081. The command line wins over
/// the environment. An empty variable counts as not set. -flag and --flag are the same; true/false flags need `=`.
#[derive(Clone, Parser)]
#[command(name = "flanneld", no_binary_name = true, disable_help_flag = true)]
#[command(mut_args = flag_values::go_flag)]
#[command(override_usage = "flanneld [--flag[=value]]...\n       flanneld SUBCOMMAND [--flag[=value]]...")]
pub(super) struct Flags {
    /// Interface that carries traffic between nodes, by name or by one of its addresses. Repeatable; the first match wins.
    /// Default: the interface of the default route
    #[arg(long, value_name = "NAME|IP", help_heading = "Interface and addresses")]
    pub(super) iface: Vec<String>,
    /// Regular expression for the interface that carries traffic between nodes, matched against addresses, then names, after
    /// every --iface. Repeatable
    #[arg(long, value_name = "REGEX", value_parser = flag_values::regex, help_heading = "Interface and addresses")]
    pub(super) iface_regex: Vec<Regex>,
    /// Use the interface of the route to this address, if --iface and --iface-regex match nothing
    #[arg(long, value_name = "IP", value_parser = flag_values::ip, help_heading = "Interface and addresses")]
    pub(super) iface_can_reach: Option<IpAddr>,
    /// IPv4 address that other nodes send to. Without --iface, it also selects the interface. Default: the interface's
    /// address
    #[arg(long, value_name = "IPV4", value_parser = flag_values::ipv4, help_heading = "Interface and addresses")]
    pub(super) public_ip: Option<Ipv4Addr>,
    /// IPv6 address that other nodes send to; see --public-ip
    #[arg(long, value_name = "IPV6", value_parser = flag_values::ipv6, help_heading = "Interface and addresses")]
    pub(super) public_ipv6: Option<Ipv6Addr>,

    /// Store leases in this SQLite file, which the daemons of one machine share
    #[arg(long, value_name = "PATH", help_heading = "Lease store (choose one; etcd if none)")]
    pub(super) lease_db: Option<PathBuf>,
    /// Store leases as annotations of the Kubernetes nodes. NODE_NAME, or POD_NAME and POD_NAMESPACE, identify this
    /// node
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "false",
        help_heading = "Lease store (choose one; etcd if none)"
    )]
    pub(super) kube_subnet_mgr: bool,
    /// File with the cluster's networks and backend. With etcd they are in the store, under PREFIX/config
    #[arg(long, value_name = "PATH", default_value = "/etc/kube-flannel/net-conf.json")]
    #[arg(help_heading = "Lease store (choose one; etcd if none)")]
    pub(super) net_config_path: PathBuf,
    /// Renew a lease this many minutes before it expires, 1 to 1439
    #[arg(long, value_name = "MINUTES", default_value = "60", value_parser = flag_values::renew_margin)]
    #[arg(allow_negative_numbers = true, help_heading = "Lease store (choose one; etcd if none)")]
    pub(super) subnet_lease_renew_margin: u16,

    /// URLs of the etcd members, separated by commas
    #[arg(long, value_name = "URLS", default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379")]
    #[arg(help_heading = "etcd")]
    pub(super) etcd_endpoints: String,
    /// Prefix of all keys, the same on every node of the cluster: PREFIX/config has the network configuration,
    /// PREFIX/subnets the leases
    #[arg(long, value_name = "KEY", default_value = "/coreos.com/network", help_heading = "etcd")]
    pub(super) etcd_prefix: String,
    /// Private key of the certificate in --etcd-certfile (PEM)
    #[arg(long, value_name = "PATH", help_heading = "etcd")]
    pub(super) etcd_keyfile: Option<PathBuf>,
    /// Client certificate that flanneld presents to etcd (PEM). Needs --etcd-keyfile
    #[arg(long, value_name = "PATH", help_heading = "etcd")]
    pub(super) etcd_certfile: Option<PathBuf>,
    /// CA certificates that the servers' certificates are verified with (PEM); works without a client certificate
    #[arg(long, value_name = "PATH", help_heading = "etcd")]
    pub(super) etcd_cafile: Option<PathBuf>,
    /// User that flanneld logs in to etcd as, if etcd requires authentication. Default: no login
    #[arg(long, value_name = "NAME", help_heading = "etcd")]
    pub(super) etcd_username: Option<String>,
    /// Password of --etcd-username. Prefer FLANNELD_ETCD_PASSWORD: a process list shows flags until flanneld has moved the password away
    #[arg(long, value_name = "TEXT", help_heading = "etcd")]
    pub(super) etcd_password: Option<String>,

    /// URL of the API server. Overrides the server in --kubeconfig-file. Default: that server, otherwise the API server of
    /// the cluster that this pod runs in
    #[arg(long, value_name = "URL", help_heading = "Kubernetes")]
    pub(super) kube_api_url: Option<String>,
    /// kubeconfig file with the API server, its CA and flanneld's credentials, for a flanneld that runs outside of a pod.
    /// --kube-api-url overrides its server. Default: the service account of this pod; no credentials if only --kube-api-url
    /// is given
    #[arg(long, value_name = "PATH", help_heading = "Kubernetes")]
    pub(super) kubeconfig_file: Option<PathBuf>,
    /// Prefix of the node annotations that hold the leases, the same on every node of the cluster
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "flannel.alpha.coreos.com",
        help_heading = "Kubernetes"
    )]
    pub(super) kube_annotation_prefix: String,
    /// Set the node's condition NetworkUnavailable to False when flanneld becomes ready
    #[arg(long, value_name = "BOOL", default_value = "true", help_heading = "Kubernetes")]
    pub(super) set_node_network_unavailable: bool,

    /// Masquerade traffic that leaves the pod network
    #[arg(long, value_name = "BOOL", default_value = "false", help_heading = "Rules and routes")]
    pub(super) ip_masq: bool,
    /// Keep source ports where possible when masquerading, instead of choosing random ports
    #[arg(long, value_name = "BOOL", default_value = "false", help_heading = "Rules and routes")]
    pub(super) ip_masq_fully_random_disable: bool,
    /// Add rules that accept forwarded packets from and to the pod network; another chain may still drop them
    #[arg(long, value_name = "BOOL", default_value = "true", help_heading = "Rules and routes")]
    pub(super) iptables_forward_rules: bool,
    /// Which processes may change flannel's nftables tables: every privileged process (shared), only flanneld (owner; Linux
    /// 6.9 or later), or owner where the kernel supports it (auto)
    #[arg(
        long,
        value_name = "shared|owner|auto",
        default_value = "shared",
        help_heading = "Rules and routes"
    )]
    pub(super) table_ownership: TableOwnership,
    /// Prefix for nftables table names. Must be unique among the flanneld processes of one host. Default: flannel, or
    /// flannel-NETWORK if the flanneld of another network uses these tables
    #[arg(long, value_name = "NAME", help_heading = "Rules and routes")]
    pub(super) table_prefix: Option<TablePrefix>,
    /// Compare the rules with the kernel's every SECONDS seconds, at least 1
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = flag_values::resync)]
    #[arg(allow_negative_numbers = true, help_heading = "Rules and routes")]
    pub(super) iptables_resync: u32,
    /// Add a blackhole route for the node's subnet, so that the kernel drops packets for pods that do not exist
    #[arg(long, value_name = "BOOL", default_value = "false", help_heading = "Rules and routes")]
    pub(super) ip_blackhole_route: bool,

    /// File that passes this node's subnet and MTU to the CNI plugin
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/flannel/subnet.env",
        help_heading = "Files and health"
    )]
    pub(super) subnet_file: PathBuf,
    /// Address of the HTTP server for /healthz, /readyz and /metrics. 0.0.0.0, :: and empty: all addresses, IPv4 and IPv6
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = "Files and health")]
    pub(super) healthz_ip: HealthzIp,
    /// Port of the HTTP server for /healthz, /readyz and /metrics. 0 turns the server off
    #[arg(long, value_name = "PORT", default_value = "0", value_parser = flag_values::port)]
    #[arg(allow_negative_numbers = true, help_heading = "Files and health")]
    pub(super) healthz_port: u16,

    /// Log verbosity: 0 logs changes, 2 adds each object, 5 adds each step
    #[arg(long, value_name = "LEVEL", default_value = "0", value_parser = flag_values::verbosity)]
    #[arg(allow_negative_numbers = true, help_heading = "Log")]
    pub(super) v: i32,
    /// Log verbosity by source file: reconcile=4,lease*=2
    #[arg(long, value_name = "FILE=LEVEL,...", help_heading = "Log")]
    pub(super) vmodule: Option<Vmodule>,
    /// Add a stack trace to the messages of this source line (tls.rs:144); only builds for development have it
    #[arg(long = "log_backtrace_at", value_name = "FILE:LINE", help_heading = "Log")]
    pub(super) log_backtrace_at: Option<BacktraceAt>,
    /// Log format: klog's text, or one JSON object per line
    #[arg(long, value_name = "text|json", default_value = "text", help_heading = "Log")]
    pub(super) log_format: LogFormat,

    /// glog's flags in units of old versions: accepted with a warning, the log always goes to stderr
    #[arg(long, hide = true, value_name = "BOOL")]
    logtostderr: Option<bool>,
    /// As `logtostderr`
    #[arg(long, hide = true, value_name = "BOOL")]
    alsologtostderr: Option<bool>,
    /// As `logtostderr`
    #[arg(long, hide = true, value_name = "LEVEL")]
    stderrthreshold: Option<String>,

    /// Print the version on stdout and exit
    #[arg(long, value_name = "BOOL", default_value = "false", help_heading = "Other")]
    pub(super) version: bool,
    /// Print this help on stdout and exit
    #[arg(long, value_name = "BOOL", default_value = "false", help_heading = "Other")]
    pub(super) help: bool,
}

impl Flags {
    /// The flags of glog that are given; they have no effect.
    pub(super) fn glog_flags(&self) -> Vec<&'static str> {
        let given = [
            ("logtostderr", self.logtostderr.is_some()),
            ("alsologtostderr", self.alsologtostderr.is_some()),
            ("stderrthreshold", self.stderrthreshold.is_some()),
        ];
        given.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag)).collect()
    }
}

/// One flag as given somewhere.
struct GivenFlag {
    /// `--iface` or `FLANNELD_IFACE`, for messages.
    origin: String,
    from_environment: bool,
    name: String,
    value: String,
}

impl GivenFlag {
    fn argument(&self) -> String {
        format!("--{}={}", self.name, self.value)
    }
}

/// Reads the command line, then the environment for what it leaves open.
///
/// Invalid settings go to `problems`; the returned flags then hold the valid ones, so that these can be checked too. `T` is
/// [`Flags`], or `Flags` with a subcommand's own flags, which have no environment variables.
pub(super) fn parse<T: Parser>(
    arguments: Vec<OsString>,
    source: &impl Source,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let mut settings = from_arguments(&T::command(), arguments, problems);
    // `--version` and `--help` are about this call; upstream looks at them before the environment, too.
    if !settings.iter().any(|spec| matches!(spec.name.as_str(), "version" | "help")) {
        from_environment(&Flags::command(), source, &mut settings);
    }
    let read = |settings: &[GivenFlag]| T::try_parse_from(settings.iter().map(GivenFlag::argument));
    if let Ok(flags) = read(&settings) {
        return Some(flags);
    }
    // clap stops at the first mistake; ask about each setting alone to name them all.
    settings.retain(|spec| match read(std::slice::from_ref(spec)) {
        Ok(_) => true,
        Err(error) => {
            problems.push(bad_value(spec, &error));
            false
        }
    });
    read(&settings).map_err(|error| problems.push(Problem::Usage(error.to_string().replace('\n', " ")))).ok()
}

/// Go's rules: one dash or two, `=value` or the next argument, true/false flags only with `=`; the last value wins.
fn from_arguments(
    definition: &clap::Command,
    arguments: Vec<OsString>,
    problems: &mut Vec<Problem>,
) -> Vec<GivenFlag> {
    let mut settings = Vec::new();
    let mut arguments = arguments.into_iter().map(text);
    while let Some(argument) = arguments.next() {
        let Some(body) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
            problems.push(Problem::Usage(format!(
                "unexpected argument `{argument}`: a flag begins with a dash, and true/false flags take their value \
                 after `=`"
            )));
            continue;
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if name.is_empty() || name.starts_with('-') {
            problems.push(Problem::Usage(format!("bad flag syntax: {argument}")));
            continue;
        }
        let name = if name == "h" { "help" } else { name };
        let Some(flag) = definition.get_arguments().find(|flag| flag.get_long() == Some(name)) else {
            problems.push(Problem::Usage(format!(
                "flag provided but not defined: -{name} (see flanneld --help)"
            )));
            continue;
        };
        let value = match value {
            Some(value) => value,
            None if takes_optional_value(flag) => "true".to_owned(),
            None => match arguments.next() {
                Some(value) => value,
                None => {
                    problems.push(Problem::Usage(format!("flag needs an argument: -{name}")));
                    continue;
                }
            },
        };
        add(
            &mut settings,
            flag,
            GivenFlag { origin: format!("--{name}"), from_environment: false, name: name.to_owned(), value },
        );
    }
    settings
}

fn from_environment(definition: &clap::Command, source: &impl Source, settings: &mut Vec<GivenFlag>) {
    for flag in definition.get_arguments() {
        let Some(name) = flag.get_long().filter(|name| !matches!(*name, "version" | "help")) else {
            continue;
        };
        if settings.iter().any(|spec| spec.name == name) {
            continue;
        }
        let variable = format!("FLANNELD_{}", name.to_ascii_uppercase().replace('-', "_"));
        if let Some(value) = source.env(&variable).filter(|value| !value.is_empty()) {
            add(
                settings,
                flag,
                GivenFlag {
                    origin: variable,
                    from_environment: true,
                    name: name.to_owned(),
                    value: text(value),
                },
            );
        }
    }
}

/// Adds a setting. An empty value of a flag without default is ignored, so that templates may leave it empty.
fn add(settings: &mut Vec<GivenFlag>, flag: &clap::Arg, spec: GivenFlag) {
    if !matches!(flag.get_action(), ArgAction::Append) {
        settings.retain(|earlier| earlier.name != spec.name);
    }
    if !spec.value.is_empty() || !flag.get_default_values().is_empty() {
        settings.push(spec);
    }
}

fn takes_optional_value(flag: &clap::Arg) -> bool {
    flag.get_num_args().is_some_and(|range| range.min_values() == 0)
}

fn bad_value(spec: &GivenFlag, error: &clap::Error) -> Problem {
    let reason = error.source().map_or_else(|| "a value is expected".to_owned(), ToString::to_string);
    let origin = &spec.origin;
    let value = if spec.name.contains("password") { "***" } else { &spec.value };
    let text = format!("{origin}={value}: {reason}");
    if spec.from_environment { Problem::Environment(text) } else { Problem::Usage(text) }
}

/// Arguments are names, addresses and paths; whatever is not UTF-8 fails where it is used, by its look-alike.
fn text(argument: OsString) -> String {
    argument.into_string().unwrap_or_else(|bytes| bytes.to_string_lossy().into_owned())
}

/// Every flag with its value, secrets masked. `Display` is upstream's dump of them, with its names (Go struct fields) and
/// order, then our own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FlagValues(Vec<FlagValue>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct FlagValue {
    flag: &'static str,
    field: &'static str,
    value: String,
}

impl FlagValues {
    /// The value of a flag; empty if it has none.
    #[must_use]
    pub fn get(&self, flag: &str) -> &str {
        self.0.iter().find(|value| value.flag == flag).map_or("", |value| value.value.as_str())
    }

    /// The flags whose values differ in `other`: flag, value here, value there. What concerns only the log does not count.
    pub fn differences<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'static str, &'a str, &'a str)> {
        let pairs = self.0.iter().zip(&other.0).filter(|(here, there)| here != there);
        pairs
            .filter(|(here, _)| here.flag != "log-format")
            .map(|(here, there)| (here.flag, here.value.as_str(), there.value.as_str()))
    }
}

impl fmt::Display for FlagValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, FlagValue { field, value, .. }) in self.0.iter().enumerate() {
            let before = if index == 0 { "{" } else { " " };
            write!(f, "{before}{field}:{value}")?;
        }
        f.write_str("}")
    }
}

impl From<&Flags> for FlagValues {
    fn from(flags: &Flags) -> Self {
        fn list<T: fmt::Display>(values: &[T]) -> String {
            format!("[{}]", values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        fn some<T: fmt::Display>(value: Option<T>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        fn path(value: Option<&PathBuf>) -> String {
            some(value.map(|path| path.display()))
        }
        let values = [
            ("etcd-endpoints", "etcdEndpoints", flags.etcd_endpoints.clone()),
            ("etcd-prefix", "etcdPrefix", flags.etcd_prefix.clone()),
            ("etcd-keyfile", "etcdKeyfile", path(flags.etcd_keyfile.as_ref())),
            ("etcd-certfile", "etcdCertfile", path(flags.etcd_certfile.as_ref())),
            ("etcd-cafile", "etcdCAFile", path(flags.etcd_cafile.as_ref())),
            ("etcd-username", "etcdUsername", some(flags.etcd_username.as_ref())),
            ("etcd-password", "etcdPassword", some(flags.etcd_password.as_ref().map(|_| "***"))),
            ("version", "version", flags.version.to_string()),
            ("kube-subnet-mgr", "kubeSubnetMgr", flags.kube_subnet_mgr.to_string()),
            ("kube-api-url", "kubeApiUrl", some(flags.kube_api_url.as_ref())),
            ("kube-annotation-prefix", "kubeAnnotationPrefix", flags.kube_annotation_prefix.clone()),
            ("kubeconfig-file", "kubeConfigFile", path(flags.kubeconfig_file.as_ref())),
            ("iface", "iface", list(&flags.iface)),
            ("iface-regex", "ifaceRegex", list(&flags.iface_regex)),
            ("ip-masq", "ipMasq", flags.ip_masq.to_string()),
            (
                "ip-masq-fully-random-disable",
                "ipMasqRandomFullyDisable",
                flags.ip_masq_fully_random_disable.to_string(),
            ),
            ("iface-can-reach", "ifaceCanReach", some(flags.iface_can_reach)),
            ("subnet-file", "subnetFile", path(Some(&flags.subnet_file))),
            ("public-ip", "publicIP", some(flags.public_ip)),
            ("public-ipv6", "publicIPv6", some(flags.public_ipv6)),
            (
                "subnet-lease-renew-margin",
                "subnetLeaseRenewMargin",
                flags.subnet_lease_renew_margin.to_string(),
            ),
            ("healthz-ip", "healthzIP", flags.healthz_ip.to_string()),
            ("healthz-port", "healthzPort", flags.healthz_port.to_string()),
            ("iptables-resync", "iptablesResyncSeconds", flags.iptables_resync.to_string()),
            ("iptables-forward-rules", "iptablesForwardRules", flags.iptables_forward_rules.to_string()),
            ("ip-blackhole-route", "blackholeRoute", flags.ip_blackhole_route.to_string()),
            ("net-config-path", "netConfPath", path(Some(&flags.net_config_path))),
            (
                "set-node-network-unavailable",
                "setNodeNetworkUnavailable",
                flags.set_node_network_unavailable.to_string(),
            ),
            ("lease-db", "leaseDB", path(flags.lease_db.as_ref())),
            ("log-format", "logFormat", flags.log_format.to_string()),
            ("table-ownership", "tableOwnership", flags.table_ownership.to_string()),
            ("table-prefix", "tablePrefix", some(flags.table_prefix.as_ref())),
        ];
        Self(values.map(|(flag, field, value)| FlagValue { flag, field, value }).into())
    }
}
