//! What the operator asked for: flags, environment and net-conf.json, read once and checked, every mistake at once.
//!
//! Upstream's names, defaults and words. Differences, all on purpose: a mistake in a flag or variable
//! ends the start instead of printing help with status 0 or being ignored; words that are no flag are
//! refused instead of silently ending the flags; net-conf.json is checked whichever store is used, and
//! the daemon waits while it cannot be used.

mod backend;
mod cli;
mod daemon;
mod flag_values;
mod healthz;
mod json;
mod json_reader;
mod net_conf;
mod pool;
mod resolved;
mod selection;
mod store;
mod subcommand;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

pub use self::backend::{Backend, Ipip, TxChecksumOffload, Udp, Vxlan, Wireguard, WireguardMode};
pub use self::cli::FlagValues;
use self::cli::Flags;
pub use self::daemon::Config;
pub use self::healthz::{HealthzAddress, HealthzIp};
pub use self::json_reader::KeyProblem;
pub use self::net_conf::{NetConf, NetConfError};
pub use self::pool::{Ipv4Pool, Ipv6Pool};
pub use self::resolved::ResolvedConfig;
pub use self::selection::Selection;
pub use self::store::Store;
pub use self::subcommand::{
    CleanupOptions, DoctorOptions, ManifestOptions, Platform, StatusOptions, definition,
};

/// What one call of `flanneld` is for.
#[derive(Debug)]
pub enum Command {
    /// `cleanup`: remove what the daemon made.
    Cleanup(Box<Config>, CleanupOptions),
    /// `doctor`: look for what keeps pods apart.
    Doctor {
        /// As for the daemon; without the network configuration if that cannot be used.
        config: Box<Config>,
        /// What is wrong with the network configuration.
        problems: Vec<Problem>,
        /// What else was asked.
        options: DoctorOptions,
    },
    /// `--help`: print this on stdout and leave with status 0.
    Help(String),
    /// `manifest`: print Kubernetes objects.
    Manifest(ManifestOptions),
    /// `plan`: show what a start would change.
    Plan(Box<Config>),
    /// The daemon.
    Run(Box<Config>),
    /// `status`: show the state of the daemon.
    Status(Box<Config>, StatusOptions),
    /// `--version`: print it on stdout and leave with status 0.
    Version,
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
