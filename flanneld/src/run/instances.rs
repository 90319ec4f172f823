//! Which daemons run in this network namespace.
//!
//! Ours hold an abstract socket, which the kernel frees when they end, however that happens, and which every process of the
//! namespace sees, in whatever container (unix(7)). Upstream's can only be found by their name, where `/proc` shows
//! them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::desired::rules::TablePrefix;

const NAME: &str = "flanneld.running.";
const SOCKETS: &str = "/proc/thread-self/net/unix";
const NAMESPACE: &str = "/proc/thread-self/ns/net";

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
    let listed = named(SOCKETS, fs::read_to_string(SOCKETS))?;
    let of_line = |line: &str| {
        let (_, name) = line.rsplit_once('@')?;
        let mut parts = name.strip_prefix(NAME)?.splitn(3, '.');
        let (process, _, prefix) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        Some((process, prefix.to_owned()))
    };
    Ok(listed.lines().filter_map(of_line).collect())
}

/// Process numbers of the daemons that run here, ours and upstream's.
///
/// # Errors
/// As [`announced`].
pub fn daemons() -> io::Result<BTreeSet<u32>> {
    let announced = announced()?.into_iter().map(|(process, _)| process);
    Ok(announced.chain(visible()?).collect())
}

/// Whether a daemon of upstream's is seen to run here. Processes of other containers cannot be seen.
#[must_use]
pub fn upstream_runs() -> bool {
    let ours: BTreeSet<u32> =
        announced().unwrap_or_default().into_iter().map(|(process, _)| process).collect();
    visible().is_ok_and(|found| found.into_iter().any(|pid| !ours.contains(&pid)))
}

/// Process numbers of the daemons of any kind that `/proc` shows in this network namespace.
fn visible() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let here = named(NAMESPACE, fs::read_link(NAMESPACE))?;
    for process in named("/proc", fs::read_dir("/proc"))?.flatten() {
        let path = process.path();
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that is gone by now, or that we may not look at, is none.
        let is_named = fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "flanneld\n");
        if is_named && fs::read_link(path.join("ns/net")).is_ok_and(|net| net == here) {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            // Subcommands, of which this process may be one, begin with a word.
            let first = line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
            if first.is_empty() || first.starts_with(b"-") {
                found.push(pid);
            }
        }
    }
    Ok(found)
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

fn named<T>(path: &str, read: io::Result<T>) -> io::Result<T> {
    read.map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))
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
}
