//! Which daemons run in this network namespace.
//!
//! Ours hold an abstract socket, which the kernel frees when they end, however that happens, and which every process of the
//! namespace sees, in whatever container (unix(7)). Upstream's can only be found where `/proc` shows them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::processes::{self, Process, named};
use crate::desired::rules::TablePrefix;

const NAME: &str = "flanneld.running.";
const SOCKETS: &str = "/proc/thread-self/net/unix";

/// Tells that a daemon runs and keeps tables of this prefix, as long as the value lives.
///
/// # Errors
/// Unix sockets are not allowed here; then nobody is told.
pub fn announce(prefix: &TablePrefix) -> io::Result<UnixDatagram> {
    // Process numbers alone are not unique: containers have their own.
    let mut name = format!("{NAME}{}.{:08x}.{prefix}", std::process::id(), rand::random::<u32>());
    name.truncate(107); // all that the kernel has room for
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Process numbers of the daemons of this kind that run here, as in their own containers, and the prefixes of their tables.
///
/// # Errors
/// `/proc` cannot be read; the error names the file.
pub fn announced() -> io::Result<Vec<(u32, String)>> {
    Ok(sockets()?.into_iter().map(|socket| (socket.process, socket.prefix)).collect())
}

/// A socket by which a daemon announces itself.
struct Announcement {
    inode: u64,
    process: u32,
    prefix: String,
}

fn sockets() -> io::Result<Vec<Announcement>> {
    let listed = named(SOCKETS, fs::read_to_string(SOCKETS))?;
    let of_line = |line: &str| {
        let (columns, name) = line.rsplit_once('@')?;
        let mut parts = name.strip_prefix(NAME)?.splitn(3, '.');
        let (process, _, prefix) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?.to_owned());
        let inode = columns.split_whitespace().next_back()?.parse().ok()?;
        Some(Announcement { inode, process, prefix })
    };
    Ok(listed.lines().filter_map(of_line).collect())
}

/// Process numbers of the daemons that run here, ours and upstream's.
///
/// # Errors
/// As [`announced`].
pub fn daemons() -> io::Result<BTreeSet<u32>> {
    let announced = announced()?.into_iter().map(|(process, _)| process);
    Ok(announced.chain(processes::daemons()?.into_iter().map(|process| process.pid)).collect())
}

/// Upstream's daemons that run here. Those of other containers cannot be seen unless this one shares the host's processes.
///
/// # Errors
/// As [`announced`].
pub fn upstream() -> io::Result<Vec<Process>> {
    let announced = sockets()?.into_iter().map(|socket| socket.inode).collect();
    let is_ours = |process: &Process| process.pid == std::process::id() || process.holds(&announced);
    let found = processes::daemons()?.into_iter();
    Ok(found.filter(|process| process.is_built_from_upstream || !is_ours(process)).collect())
}

/// Whether a daemon of upstream's is seen to run here, as [`upstream`] sees it.
#[must_use]
pub fn upstream_runs() -> bool {
    upstream().is_ok_and(|found| !found.is_empty())
}

/// Whether another daemon runs here beside this one.
///
/// # Errors
/// As [`announced`].
pub fn has_company() -> io::Result<bool> {
    // In another container there may be another process of this one's number.
    let own = std::process::id();
    Ok(announced()?.len() > 1 || daemons()?.iter().any(|process| *process != own))
}

/// Whether a daemon with this prefix, started in place of the one that runs now if any, would have another beside it.
///
/// # Errors
/// As [`announced`].
pub fn has_company_after_restart(prefix: &TablePrefix) -> io::Result<bool> {
    let announced = announced()?;
    let prefix = prefix.to_string();
    // A daemon in a container announces another process number than `/proc` shows here.
    Ok(announced.iter().any(|(_, other)| *other != prefix)
        || announced.len().max(processes::daemons()?.len()) > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_seen_while_it_lives() {
        let own = std::process::id();
        let held = announce(&"other".parse().unwrap()).unwrap();
        assert!(daemons().unwrap().contains(&own));
        assert!(announced().unwrap().contains(&(own, "other".to_owned())));
        drop(held);
        assert!(!daemons().unwrap().contains(&own));
    }

    #[test]
    fn the_daemon_that_a_restart_replaces_is_no_company_and_any_other_is() {
        testkit::netns(|| {
            let (ours, theirs) = (TablePrefix::default(), "other".parse().unwrap());
            let alone = || !has_company_after_restart(&ours).unwrap();
            assert!(alone());
            let replaced = announce(&ours).unwrap();
            assert!(alone());
            let other = announce(&theirs).unwrap();
            assert!(!alone());
            drop(replaced);
            assert!(!alone());
            drop(other);
            let _two = [announce(&ours).unwrap(), announce(&ours).unwrap()];
            assert!(!alone());
        });
    }
}
