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

const NAME: &str = "flanneld.running.";
const SOCKETS: &str = "/proc/thread-self/net/unix";
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Tells that a daemon runs, as long as the value lives.
///
/// # Errors
/// Unix sockets are not allowed here; then nobody is told.
pub fn announce() -> io::Result<UnixDatagram> {
    // Process numbers alone are not unique: containers have their own.
    let name = format!("{NAME}{}.{:08x}", std::process::id(), rand::random::<u32>());
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Process numbers of the daemons that run here, ours as in their own containers.
///
/// # Errors
/// `/proc` cannot be read; the error names the file.
pub fn daemons() -> io::Result<BTreeSet<u32>> {
    let listed = named(SOCKETS, fs::read_to_string(SOCKETS))?;
    let ours = listed.lines().filter_map(|line| {
        let (_, name) = line.rsplit_once('@')?;
        name.strip_prefix(NAME)?.split('.').next()?.parse().ok()
    });
    let mut found: BTreeSet<u32> = ours.collect();
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
                found.insert(pid);
            }
        }
    }
    Ok(found)
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
        let held = announce().unwrap();
        assert!(daemons().unwrap().contains(&own));
        drop(held);
        assert!(!daemons().unwrap().contains(&own));
    }
}
