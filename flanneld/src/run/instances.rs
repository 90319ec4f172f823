//! Other daemons in this network namespace, and what only one of them may have.
//!
//! A daemon claims its subnet file, its networks, its VXLAN devices and its tables by listening on an abstract Unix
//! socket for each. The kernel gives a name to one process of a network namespace, whatever containers share it, and
//! takes it back when that process ends, however that happens (unix(7)). A daemon that finds a name taken keeps a
//! connection to the holder, which ends with it. `docs/design.md` says why it is sockets.
//!
//! Any process may listen on any name, so that a holder counts only if it runs as root or as this daemon's own user
//! (`SO_PEERCRED`). A name that another user took is skipped for the next of `MAX_SLOTS`.
//!
//! Upstream's daemons can only be found where `/proc` shows them.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::Duration;

use flannel_lease::Chain;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, UnixCredentials, connect, getsockopt, socket,
    sockopt::PeerCredentials,
};
use nix::unistd::geteuid;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::processes::{self, Process, named};
use crate::desired::rules::TablePrefix;
use crate::file;

pub mod claims;

/// What all names begin with.
const NAME_PREFIX: &str = "flanneld.";
/// Names of one claim: a process without privileges may have taken some of them.
const MAX_SLOTS: u8 = 16;
/// Daemons that wait for this one and are told of its end; others ask again.
const MAX_WAITING: usize = 16;
/// How long a socket may have no room for a connection before it counts as abandoned.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// When to ask again whether a claim is free, should its holder's end not be told.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

const PROC_NET_UNIX: &str = "/proc/thread-self/net/unix";

/// Something that only one daemon of a network namespace may have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Claim {
    /// The subnet file.
    SubnetFile {
        /// As configured.
        path: String,
        /// Of device and inode of its directory and its name there: a path means another file in another container.
        id: String,
    },
    /// One of the pod networks.
    Network(ipnet::IpNet),
    /// A VXLAN device.
    Device(String),
    /// Tables of this prefix.
    Tables(TablePrefix),
}

impl Claim {
    /// The claim on this file. It is another one once its directory is made.
    #[must_use]
    pub fn subnet_file(path: &Path) -> Self {
        let found = fs::metadata(file::directory_of(path));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let id = match found {
            Ok(folder) => format!("{}.{}.{name}", folder.dev(), folder.ino()),
            Err(_) => path.display().to_string(),
        };
        Self::SubnetFile { path: path.display().to_string(), id: hashed(&id) }
    }

    fn name(&self) -> String {
        let (kind, id) = match self {
            Self::SubnetFile { id, .. } => ("file", id.clone()),
            Self::Network(network) => ("network", network.to_string()),
            Self::Device(name) => ("device", name.clone()),
            Self::Tables(prefix) => ("tables", prefix.to_string()),
        };
        format!("{NAME_PREFIX}{kind}.{}", short(id))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubnetFile { path, .. } => write!(f, "subnet file {path}"),
            Self::Network(network) => write!(f, "network {network}"),
            Self::Device(name) => write!(f, "device {name}"),
            Self::Tables(prefix) => write!(f, "the tables of --table-prefix={prefix}"),
        }
    }
}

/// At most 64 bytes, as an abstract name has 107.
fn short(id: String) -> String {
    if id.len() <= 64 { id } else { hashed(&id) }
}

/// FNV-1a: the same in every release.
fn hashed(id: &str) -> String {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", id.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// A claim that is this process's, as long as the value lives.
#[derive(Debug)]
pub struct Held {
    serving: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The daemon that has what this one wants.
#[derive(Debug)]
pub struct Holder {
    connection: UnixStream,
    process: DaemonId,
}

impl Holder {
    /// Its process.
    #[must_use]
    pub fn process(&self) -> DaemonId {
        self.process
    }

    /// Returns when it has ended, or after [`RETRY_INTERVAL`].
    async fn end(mut self) {
        // It never sends anything.
        let _ended = timeout(RETRY_INTERVAL, self.connection.read(&mut [0])).await;
    }
}

/// A daemon's process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DaemonId {
    /// Its number.
    Process(u32),
    /// In a container whose processes cannot be seen from here.
    Elsewhere,
}

impl fmt::Display for DaemonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(number) => write!(f, "process {number}"),
            Self::Elsewhere => f.write_str("a process of another container"),
        }
    }
}

/// What came of an attempt to claim something.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Held(Held),
    /// Another daemon has it.
    Taken(Holder),
}

/// Tries to claim something, without waiting for a holder to end.
///
/// Of several daemons that try at once one gets it, or none, and then they have to try again.
///
/// # Errors
/// Unix sockets are not allowed here, or processes without privileges have all names.
pub async fn attempt(claim: &Claim) -> io::Result<Attempt> {
    let name = claim.name();
    for slot in 0..MAX_SLOTS {
        let listener = match UnixListener::bind_addr(&SocketAddr::from_abstract_name(slotted(&name, slot))?) {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name, slot).await {
                Some(holder) => return Ok(Attempt::Taken(holder)),
                None => continue,
            },
            Err(error) => return Err(error),
        };
        // Bound first and looked second: of two that have a name each, at least the later one sees the other.
        for other in (0..MAX_SLOTS).filter(|other| *other != slot) {
            if let Some(holder) = holder(&name, other).await {
                return Ok(Attempt::Taken(holder));
            }
        }
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        return Ok(Attempt::Held(Held { serving: tokio::spawn(serve(listener)) }));
    }
    Err(io::Error::other("processes without privileges listen on all names"))
}

/// The daemon that has this, which may be this one.
pub async fn holder_of(claim: &Claim) -> Option<DaemonId> {
    let name = claim.name();
    for slot in 0..MAX_SLOTS {
        if let Some(holder) = holder(&name, slot).await {
            return Some(holder.process());
        }
    }
    None
}

/// Claims something, once the daemon that has it ends. `waits` is told what is waited for, `None` when that is over.
/// `None` is returned if nothing can be claimed here, which is logged.
pub async fn claim(claim: &Claim, waits: impl Fn(Option<&str>)) -> Option<Held> {
    let mut waited = None;
    loop {
        match attempt(claim).await {
            Ok(Attempt::Held(held)) => {
                if waited.is_some() {
                    info!("the other flanneld ended; this process takes over {claim}");
                    waits(None);
                }
                return Some(held);
            }
            Ok(Attempt::Taken(holder)) => {
                let process = holder.process();
                if waited != Some(process) {
                    let problem = format!(
                        "another flanneld ({process}) on this host holds {claim}; this one waits for it to exit"
                    );
                    warn!(
                        "{problem}; traffic is not affected. In an upgrade nothing is needed; otherwise stop one of them"
                    );
                    waits(Some(&problem));
                    waited = Some(process);
                }
                holder.end().await;
                // Of several that wait, and saw each other, one is first the next time.
                sleep(Duration::from_millis(rand::random_range(0..20))).await;
            }
            Err(error) => {
                warn!(
                    "cannot check whether a second flanneld uses {claim}; this one continues, and traffic is not affected unless there \
                     is one: make sure that there is none: {}",
                    Chain(&error)
                );
                return None;
            }
        }
    }
}

fn slotted(name: &str, slot: u8) -> String {
    format!("{name}.{slot}")
}

/// Keeps the connections of other daemons, so that they see this one's end.
async fn serve(listener: tokio::net::UnixListener) {
    let mut waiting = VecDeque::with_capacity(MAX_WAITING);
    loop {
        match listener.accept().await {
            Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| is_trusted(peer.uid())) => {
                // What has ended reads as its end.
                waiting.retain(|known: &UnixStream| known.try_read(&mut [0]).is_err());
                if waiting.len() == MAX_WAITING {
                    waiting.pop_front();
                }
                waiting.push_back(stream);
            }
            Ok(_) => {}
            // Out of descriptors: connections wait in the kernel's queue meanwhile.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The daemon that listens on this name; `None` if there is none, or if it is not trusted.
async fn holder(name: &str, slot: u8) -> Option<Holder> {
    let busy = || async {
        loop {
            match connected(name, slot) {
                Err(Errno::EAGAIN) => sleep(Duration::from_millis(20)).await,
                done => return done,
            }
        }
    };
    let (stream, peer) = timeout(CONNECT_TIMEOUT, busy()).await.ok()?.ok()?;
    let connection = UnixStream::from_std(stream).ok()?;
    let process = trusted(&peer)?;
    Some(Holder { connection, process })
}

/// `EAGAIN`: the listener has no room for one more now.
fn connected(name: &str, slot: u8) -> Result<(std::os::unix::net::UnixStream, UnixCredentials), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(slotted(name, slot).as_bytes())?)?;
    let peer = getsockopt(&socket, PeerCredentials)?;
    Ok((socket.into(), peer))
}

fn trusted(peer: &UnixCredentials) -> Option<DaemonId> {
    let process = match u32::try_from(peer.pid()) {
        Ok(number @ 1..) => DaemonId::Process(number),
        _ => DaemonId::Elsewhere,
    };
    is_trusted(peer.uid()).then_some(process)
}

/// Root of another user namespace is another user here.
fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// A daemon of this kind that runs here, or waits for another one to end.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Ours {
    process: DaemonId,
    /// Name of its claim on its subnet file: each daemon has one.
    claim: String,
}

/// The daemons of this kind that run here, this one too.
fn ours() -> io::Result<Vec<Ours>> {
    let listed = named(PROC_NET_UNIX, fs::read(PROC_NET_UNIX))?;
    let of_line = |line| {
        // Names may have any bytes; ours are text.
        let (_, name) = std::str::from_utf8(line).ok()?.split_once('@')?;
        name.strip_prefix(NAME_PREFIX)?.strip_prefix("file.").map(|_| name)
    };
    // Each once: a connection has its listener's name.
    let names: BTreeSet<&str> = listed.split(|byte| *byte == b'\n').filter_map(of_line).collect();
    let of_name = |name: &str| {
        let (claim, slot) = name.rsplit_once('.')?;
        let (_, peer) = connected(claim, slot.parse().ok()?).ok()?;
        Some(Ours { process: trusted(&peer)?, claim: claim.to_owned() })
    };
    Ok(names.into_iter().filter_map(of_name).collect())
}

/// The daemons that run here, ours and upstream's.
///
/// # Errors
/// `/proc` cannot be read; the error names the file.
pub fn daemons() -> io::Result<BTreeSet<DaemonId>> {
    let ours = ours()?.into_iter().map(|daemon| daemon.process);
    let seen = processes::daemons()?.into_iter().map(|process| DaemonId::Process(process.pid));
    Ok(ours.chain(seen).collect())
}

/// The daemons of this kind that run here.
///
/// # Errors
/// As [`daemons`].
pub fn of_this_kind() -> io::Result<BTreeSet<DaemonId>> {
    Ok(ours()?.into_iter().map(|daemon| daemon.process).collect())
}

/// The daemon of this kind that has this subnet file.
///
/// # Errors
/// As [`daemons`].
pub fn with_subnet_file(subnet_file: &Path) -> io::Result<Option<DaemonId>> {
    let claim = Claim::subnet_file(subnet_file).name();
    Ok(ours()?.into_iter().find(|daemon| daemon.claim == claim).map(|daemon| daemon.process))
}

/// Upstream's daemons that run here. Those of other containers cannot be seen unless this one shares the host's processes.
///
/// # Errors
/// As [`daemons`].
pub fn upstream() -> io::Result<Vec<Process>> {
    let ours = of_this_kind()?;
    let is_ours = |process: &Process| {
        process.pid == std::process::id() || ours.contains(&DaemonId::Process(process.pid))
    };
    let found = processes::daemons()?.into_iter();
    Ok(found.filter(|process| process.is_built_from_upstream || !is_ours(process)).collect())
}

/// Whether a daemon of upstream's is seen to run here, as [`upstream`] sees it.
#[must_use]
pub fn upstream_runs() -> bool {
    upstream().is_ok_and(|found| !found.is_empty())
}

/// Whether another daemon runs on this host.
///
/// # Errors
/// As [`daemons`].
pub fn has_company() -> io::Result<bool> {
    let own = DaemonId::Process(std::process::id());
    Ok(daemons()?.iter().any(|daemon| *daemon != own))
}

/// Whether a daemon with this subnet file, started in place of the one that runs now if any, would share the host with another.
///
/// # Errors
/// As [`daemons`].
pub fn has_company_after_restart(subnet_file: &Path) -> io::Result<bool> {
    let claim = Claim::subnet_file(subnet_file).name();
    let (replaced, others): (Vec<Ours>, Vec<Ours>) = ours()?.into_iter().partition(|one| one.claim == claim);
    // It would also replace upstream's daemon, if that is the only one.
    Ok(!others.is_empty() || replaced.len() + upstream()?.len() > 1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// In a network namespace of its own.
    fn alone(test: impl AsyncFn() + Send + Sync) {
        testkit::netns(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
        });
    }

    fn device() -> Claim {
        Claim::Device("flannel.1".to_owned())
    }

    #[test]
    fn of_many_that_claim_at_once_each_has_it_in_turn_and_alone() {
        static HOLDERS: AtomicU32 = AtomicU32::new(0);
        alone(async || {
            let turn = || async {
                let held = claim(&device(), |_| ()).await.unwrap();
                assert_eq!(HOLDERS.fetch_add(1, Ordering::Relaxed), 0, "two hold it");
                tokio::task::yield_now().await;
                assert!(matches!(attempt(&device()).await.unwrap(), Attempt::Taken(_)));
                HOLDERS.fetch_sub(1, Ordering::Relaxed);
                drop(held);
            };
            let all: Vec<_> = (0..20).map(|_| tokio::spawn(turn())).collect();
            for one in all {
                timeout(Duration::from_secs(20), one).await.expect("everyone has a turn").unwrap();
            }
        });
    }

    #[test]
    fn a_claim_in_a_higher_slot_is_seen_when_a_lower_one_becomes_free() {
        alone(async || {
            // As if another user had taken the first name until now.
            let name = SocketAddr::from_abstract_name(slotted(&device().name(), 1)).unwrap();
            let _held = UnixListener::bind_addr(&name).unwrap();
            assert!(matches!(attempt(&device()).await.unwrap(), Attempt::Taken(_)));
            let other = Claim::Device("flannel.2".to_owned());
            assert!(matches!(attempt(&other).await.unwrap(), Attempt::Held(_)));
        });
    }

    #[test]
    fn the_daemon_that_a_restart_replaces_is_no_company_and_any_other_is() {
        alone(async || {
            let folder = tempfile::tempdir().unwrap();
            let file = |name: &str| folder.path().join(name);
            let company = || has_company_after_restart(&file("subnet.env")).unwrap();
            let claimed = async |name: &str| claim(&Claim::subnet_file(&file(name)), |_| ()).await;
            assert!(!company());
            let replaced = claimed("subnet.env").await;
            assert!(!company() && daemons().unwrap().contains(&DaemonId::Process(std::process::id())));
            // A connection has its listener's name in the kernel's list.
            let asked = holder(&Claim::subnet_file(&file("subnet.env")).name(), 0).await;
            assert!(asked.is_some() && !company());
            let other = claimed("other.env").await;
            assert!(company());
            drop(replaced);
            assert!(company());
            drop(other);
            tokio::task::yield_now().await;
            assert!(!company());
        });
    }
}
