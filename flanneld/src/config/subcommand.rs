//! `flanneld SUBCOMMAND [flags]`. Subcommands take the daemon's flags, with the same meaning.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser};
use ipnet::{Ipv4Net, Ipv6Net};

use super::cli::{self, Flags};
use super::{Command, Config, Problem, Problems, Source, flag_values};

const CLEANUP: &str = "cleanup";
const DOCTOR: &str = "doctor";
const MANIFEST: &str = "manifest";
const PLAN: &str = "plan";
const STATUS: &str = "status";

const STATUSES: &str = "Exit status:\n  0  success; the daemon received SIGTERM or SIGINT\n  1  failure; a subcommand found a problem\n  \
    2  invalid command line\n  3  plan, cleanup --dry-run, doctor --preflight: there is something to change\n\n\
    flanneld SUBCOMMAND --help describes a subcommand. Subcommands take the daemon's flags, with the same meaning.";

/// The flags of a subcommand, and those of the daemon.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true, mut_args = flag_values::go_flag)]
struct With<T: Args> {
    #[command(flatten)]
    own: T,
    #[command(flatten)]
    flags: Flags,
}

/// The flags of a subcommand that has none of its own.
#[derive(Args)]
struct NoFlags {}

/// What `flanneld status` was asked. The doc comments of all fields below are the help.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
#[command(next_help_heading = "This command")]
pub struct StatusOptions {
    /// Output format: text, or one JSON object
    #[arg(long = "o", value_name = "text|json", default_value = "text")]
    #[arg(action = ArgAction::Set, value_parser = is_json)]
    pub json: bool,
    /// List all peers instead of those that are not programmed. JSON always lists all
    #[arg(long, value_name = "BOOL", default_value = "false")]
    pub peers: bool,
}

/// What `flanneld manifest` was asked.
#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "This command")]
pub struct ManifestOptions {
    /// Image of the daemon. Default: flannel and the version of this program
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// IPv4 network that pods get addresses from: the controller manager's --cluster-cidr. Default: 10.244.0.0/16, none if
    /// only --ipv6-network is given
    #[arg(long, value_name = "CIDR")]
    pub network: Option<Ipv4Net>,
    /// IPv6 network that pods get addresses from. Default: none
    #[arg(long, value_name = "CIDR")]
    pub ipv6_network: Option<Ipv6Net>,
    /// How packets reach other nodes: vxlan, wireguard (encrypted), host-gw, ipip, udp or alloc
    #[arg(long, value_name = "TYPE", default_value = "vxlan")]
    #[arg(value_parser = ["vxlan", "wireguard", "host-gw", "ipip", "udp", "alloc"], hide_possible_values = true)]
    pub backend: String,
    /// Where CNI plugins and their configuration are: /opt/cni/bin and /etc/cni/net.d (kubernetes), the folders of k3s, or as
    /// kubernetes with the reference plugins installed too (kind)
    #[arg(long, value_enum, value_name = "kubernetes|k3s|kind", default_value = "kubernetes")]
    #[arg(hide_possible_values = true)]
    pub platform: Platform,
}

/// What `flanneld doctor` was asked.
#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "This command")]
pub struct DoctorOptions {
    /// Output format: text, or one JSON array
    #[arg(long = "o", value_name = "text|json", default_value = "text")]
    #[arg(action = ArgAction::Set, value_parser = is_json)]
    pub json: bool,
    /// Report whether flanneld can take over from upstream's daemon on this host, and what that changes. Sends nothing to
    /// other nodes
    #[arg(long, value_name = "BOOL", default_value = "false")]
    pub preflight: bool,
    /// Write an archive (tar) for a bug report to this file: flags, configuration, leases, status, findings, rules, plan,
    /// metrics, routes. Contains no secrets
    #[arg(long, value_name = "FILE", action = ArgAction::Set)]
    pub collect: Option<PathBuf>,
}

/// What `flanneld cleanup` was asked.
#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "This command")]
pub struct CleanupOptions {
    /// Print what would be removed, and remove nothing
    #[arg(long, value_name = "BOOL", default_value = "false")]
    pub dry_run: bool,
    /// Also remove the iptables chains and rules that upstream's iptables mode leaves
    #[arg(long, value_name = "BOOL", default_value = "false")]
    pub upstream: bool,
    /// Also remove the subnet file and the state file. The next start may then get another subnet
    #[arg(long, value_name = "BOOL", default_value = "false")]
    pub files: bool,
    /// Also remove this CNI configuration if it names the plugin flannel: /etc/cni/net.d/10-flannel.conflist
    #[arg(long, value_name = "PATH", action = ArgAction::Set)]
    pub cni_config: Option<PathBuf>,
    /// Run until SIGTERM once everything is removed: Kubernetes restarts the pods of a DaemonSet that end
    #[arg(long, value_name = "BOOL", default_value = "false")]
    pub stay: bool,
    /// Remove even while a daemon runs on this host, although the daemon restores everything
    #[arg(long, value_name = "BOOL", default_value = "false")]
    pub force: bool,
}

/// Nodes that differ in where CNI plugins and their configuration are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Platform {
    /// `/opt/cni/bin` with the reference plugins, `/etc/cni/net.d`: kubeadm, RKE2, kubespray, kOps, Talos.
    #[default]
    Kubernetes,
    /// Folders of its own.
    K3s,
    /// No bridge plugin.
    Kind,
}

/// What `arguments` ask for, if they begin with the name of a subcommand.
pub(super) fn read(source: &impl Source) -> Option<Result<Command, Problems>> {
    let mut arguments = source.args();
    let name = arguments.first()?.to_str()?.to_owned();
    arguments.remove(0);
    let command = match name.as_str() {
        PLAN => given::<NoFlags>(PLAN, arguments, source).and_then(|given| match given {
            Some((config, problems, _)) if problems.is_empty() => Ok(Some(Command::Plan(config))),
            Some((_, problems, _)) => Err(Problems(problems)),
            None => Ok(None),
        }),
        DOCTOR => given(DOCTOR, arguments, source).map(|given| {
            given.map(|(config, problems, own)| Command::Doctor { config, problems, options: own })
        }),
        MANIFEST => {
            given(MANIFEST, arguments, source).map(|given| given.map(|(_, _, own)| Command::Manifest(own)))
        }
        CLEANUP => given(CLEANUP, arguments, source)
            .map(|given| given.map(|(config, _, own)| Command::Cleanup(config, own))),
        STATUS => given(STATUS, arguments, source)
            .map(|given| given.map(|(config, _, own)| Command::Status(config, own))),
        _ => return None,
    };
    Some(command.map(|command| command.unwrap_or_else(|| Command::Help(help_of(&name)))))
}

/// Every flag and subcommand: the source of help texts, completions and manual pages.
#[must_use]
pub fn definition() -> clap::Command {
    let daemon = Flags::command()
        .disable_help_subcommand(true)
        .subcommand_help_heading("Subcommands")
        .after_long_help(STATUSES);
    daemon.subcommands([
        described(
            STATUS,
            With::<StatusOptions>::command(),
            "Show the status of this node's daemon",
            "Shows lease, store, devices, rules, peers and the last repair, as reported by the daemon with this --subnet-file. \
             If no daemon runs, shows what the kernel holds. On a node with upstream's daemon, shows that daemon and whether \
             the kernel holds what it programs. Exit status 1 if the node is not ready or no daemon runs, otherwise 0.",
        ),
        described(
            PLAN,
            Flags::command(),
            "Show what a start with these flags would change on this host",
            "Prints the equivalent nft script and ip and bridge commands. Changes nothing and takes no lease; for a node \
             without a lease it assumes a free subnet. Exit status 3 if there is something to change, otherwise 0.",
        ),
        described(
            DOCTOR,
            With::<DoctorOptions>::command(),
            "Find what keeps pods from reaching each other, and show what to do",
            "Changes nothing; sends a few packets to other nodes. Exit status 1 if a finding is an error, otherwise 0.\n\nWith \
             --preflight, reports whether flanneld can take over from upstream's daemon on this host, and what that changes. \
             Takes no lease and sends nothing to other nodes. Exit status 0 if the swap is safe and pods notice nothing, 3 if \
             it is safe and changes what is listed as `change`, 1 if it is unsafe.\n\nWith --collect, writes an archive for a \
             bug report. Exit status 0 if it is written.",
        ),
        described(
            MANIFEST,
            With::<ManifestOptions>::command(),
            "Print the Kubernetes objects that run flanneld on every node",
            "For kubectl apply. The defaults print the file deploy/kubernetes/kube-flannel.yml of this version. Changes nothing \
             and talks to no cluster.",
        ),
        described(
            CLEANUP,
            With::<CleanupOptions>::command(),
            "Remove what flanneld created on this host",
            "Removes routes and nexthop objects of protocol 70, flannel's devices (flannel.VNI, flannel-v6.VNI, \
             flannel-wg, flannel-wg-v6, flannel.ipip, flannel0) with their neighbor and FDB entries, the nftables tables flannel-ipv4 and flannel-ipv6, and the accept rules in iptables' \
             chains. Prints each step as a command. Objects of other programs stay. The lease stays until it expires or its \
             node is deleted. Refuses to run while a daemon runs on this host. Exit status 3 if --dry-run finds something, \
             otherwise 0.",
        ),
    ])
}

fn described(
    name: &'static str,
    command: clap::Command,
    about: &'static str,
    details: &'static str,
) -> clap::Command {
    command
        .name(name)
        .about(about)
        .long_about(format!("{about}.\n\n{details}"))
        .override_usage(format!("flanneld {name} [--flag[=value]]..."))
}

type Given<T> = (Box<Config>, Vec<Problem>, T);

/// Reads the flags of a subcommand; `None` if help was requested. Problems of net-conf.json are returned with the
/// configuration without it; all other problems are errors.
fn given<T: Args>(
    name: &str,
    arguments: Vec<OsString>,
    source: &impl Source,
) -> Result<Option<Given<T>>, Problems> {
    let mut problems = Vec::new();
    let given = cli::parse::<With<T>>(arguments, source, &mut problems);
    let Some(With { own, flags }) = given else { return Err(Problems(problems)) };
    if flags.help {
        return Ok(None);
    }
    if flags.version {
        problems.push(Problem::Usage(format!("--version is not a flag of flanneld {name}")));
    }
    match Config::new(flags, source, &mut problems) {
        Some(config) if problems.iter().all(|problem| matches!(problem, Problem::NetConf(_))) => {
            Ok(Some((Box::new(config), problems, own)))
        }
        _ => Err(Problems(problems)),
    }
}

/// The text of `--help` of a subcommand, or of the daemon for the empty name.
pub(super) fn help_of(name: &str) -> String {
    const SHOWN: [&str; 2] = ["subnet_file", "help"];
    let (all, daemon) = (definition(), Flags::command());
    let is_daemons = |arg: &clap::Arg| daemon.get_arguments().any(|flag| flag.get_id() == arg.get_id());
    let command = match all.find_subcommand(name) {
        Some(command) => command
            .clone()
            .mut_args(|arg| {
                let hide = is_daemons(&arg) && !SHOWN.contains(&arg.get_id().as_str());
                arg.hide(hide)
            })
            .after_long_help(
                "All flags and variables of the daemon are taken as well: flanneld --help lists them.",
            ),
        None => all,
    };
    command.max_term_width(100).render_long_help().to_string()
}

fn is_json(text: &str) -> Result<bool, &'static str> {
    match text {
        "json" => Ok(true),
        "text" => Ok(false),
        _ => Err("text or json is expected"),
    }
}
