//! `flanneld status`: how the daemon of this node is, or what is in the kernel if none runs.

mod kernel;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::{Verdict, one_line};

use super::upstream::Upstream;
use crate::config::StatusOptions;
use crate::run::instances::{self, DaemonId};
use crate::serve::status_socket::{self, AskError};
use crate::status::model::{Cause, PeerState, PeerStatus, Status, socket};

/// Asks the daemon whose subnet file is the given one; without one reads the kernel.
///
/// # Errors
/// The daemon does not answer, or the kernel cannot be read.
pub async fn run(asked: &StatusOptions) -> Result<Verdict, Box<dyn Error>> {
    let mut status = match status_socket::ask(&socket(&asked.subnet_file)) {
        Ok(status) => status,
        Err(AskError::Absent { source, .. }) if is_none(&source) => {
            let upstream = Upstream::find_alone(&asked.subnet_file, asked.healthz.as_ref())?;
            let mut status =
                kernel::read(&asked.subnet_file, asked.table_prefix.as_ref(), upstream.as_ref())?;
            if upstream.is_none() {
                status.unmet.insert("daemon".to_owned(), absence(&instances::daemons()?));
            }
            status
        }
        Err(error) => return Err(error.into()),
    };
    let code = u8::from(!status.ready);
    let text = if asked.json {
        format!("{}\n", serde_json::to_string_pretty(&status)?)
    } else {
        let is_plain = |peer: &PeerStatus| peer.state == PeerState::Programmed && peer.reason.is_none();
        status.peer_list.retain(|peer| asked.peers || !is_plain(peer));
        Shown(&status).to_string()
    };
    Ok(Verdict { text, code })
}

fn is_none(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

fn absence(daemons: &BTreeSet<DaemonId>) -> String {
    if daemons.is_empty() {
        return "none runs on this host; this is the kernel's state".to_owned();
    }
    let pids: Vec<_> = daemons.iter().map(ToString::to_string).collect();
    format!(
        "runs ({}) but has no socket here: pass its --subnet-file, unless it is starting; this is the kernel's state",
        pids.join(", ")
    )
}

/// As lines to read: what is said, then what it is about.
pub(crate) struct Shown<'a>(pub(crate) &'a Status);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        let now = status.time;
        let ready = if status.ready { "ready" } else { "NOT READY" };
        write!(f, "{:12}{ready}", "node")?;
        if !status.node.is_empty() {
            write!(f, ", {}", one_line(&status.node))?;
        }
        if status.started > 0.0 {
            write!(f, ", flanneld {} for {}", status.version, Span(duration(now - status.started)))?;
        }
        if let Some(upstream) = &status.upstream {
            write!(f, ", {}", one_line(upstream))?;
        }
        writeln!(f)?;
        for (what, reason) in &status.unmet {
            writeln!(f, "{:12}{what}: {}", "  unmet", one_line(reason))?;
        }
        for (what, text) in &status.notes {
            writeln!(f, "{:12}{what}: {}", "  note", one_line(text))?;
        }
        let lease = &status.lease;
        let subnets = lease.ipv4.map(|net| net.to_string()).into_iter();
        let subnets: Vec<_> = subnets.chain(lease.ipv6.map(|net| net.to_string())).collect();
        write!(
            f,
            "{:12}{}",
            "lease",
            if subnets.is_empty() { "none".to_owned() } else { subnets.join(", ") }
        )?;
        if let Some(expires) = lease.expires {
            let left = Duration::from_secs(expires).saturating_sub(duration(now));
            write!(f, ", ends in {} unless renewed", Span(left))?;
        }
        writeln!(f)?;
        self.daemon(f)?;
        for device in &status.devices {
            write!(f, "{:12}{}: ", "device", device.name)?;
            if let Some(vni) = device.vni {
                write!(f, "VNI {vni}, ")?;
            }
            write!(f, "{}", device.address)?;
            if let Some(mac) = &device.mac {
                write!(f, ", {mac}")?;
            }
            write!(f, ", MTU {}", device.mtu)?;
            if let Some(port) = device.port {
                write!(f, ", UDP port {port}")?;
            }
            if let Some(key) = &device.key {
                write!(f, ", public key {key}")?;
            }
            if let Some(sessions) = device.sessions {
                let all = sessions.connected + sessions.disconnected;
                write!(f, ", sessions with {} of {all} peers", sessions.connected)?;
            }
            writeln!(f)?;
        }
        let tables =
            if status.rules.tables.is_empty() { "none".to_owned() } else { status.rules.tables.join(", ") };
        let right = if status.rules.right { ", as they should be" } else { "" };
        let owned = match (status.rules.tables.is_empty() || status.upstream.is_some(), status.rules.owned) {
            (true, _) => "",
            (false, true) => ", owned",
            (false, false) => ", shared",
        };
        writeln!(f, "{:12}{tables}{right}{owned}", "rules")?;
        let peers = status.peers;
        let counts =
            [(peers.programmed, "programmed"), (peers.pending, "pending"), (peers.skipped, "skipped")];
        let counts: Vec<_> = counts.iter().map(|(count, state)| format!("{count} {state}")).collect();
        writeln!(f, "{:12}{}", "peers", counts.join(", "))?;
        if let Some(repair) = status.repairs.first() {
            let cause = match repair.cause {
                Cause::Notification => "the kernel told",
                Cause::Check => "found by a check",
            };
            let ago = Span(duration(now - repair.time));
            writeln!(
                f,
                "{:12}{ago} ago, {} ({cause}): {}",
                "last repair",
                repair.object,
                one_line(&repair.what)
            )?;
        }
        peer_table(f, &status.peer_list)
    }
}

impl Shown<'_> {
    /// What only a daemon knows.
    fn daemon(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        let store = &status.store;
        if !store.kind.is_empty() {
            write!(f, "{:12}{}, ", "store", store.kind)?;
            match &store.last_error {
                None => write!(f, "healthy")?,
                Some(error) => write!(f, "failing: {}", one_line(error))?,
            }
            if let Some(contact) = store.last_contact {
                write!(f, ", answered {} ago", Span(duration(status.time - contact)))?;
            }
            writeln!(f)?;
        }
        let interface = &status.interface;
        if !interface.name.is_empty() {
            let list = |addresses: &[std::net::IpAddr]| {
                addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            };
            write!(
                f,
                "{:12}{} over {}, {}",
                "backend",
                status.backend,
                interface.name,
                list(&interface.addresses)
            )?;
            if interface.public != interface.addresses {
                write!(f, ", told to others as {}", list(&interface.public))?;
            }
            writeln!(f, ", MTU {}, pods {}", interface.mtu, interface.pod_mtu)?;
        }
        Ok(())
    }
}

fn peer_table(f: &mut fmt::Formatter<'_>, peers: &[PeerStatus]) -> fmt::Result {
    if peers.is_empty() {
        return Ok(());
    }
    let width = peers.iter().map(|peer| peer.subnet.to_string().len()).max().unwrap_or_default().max(6);
    writeln!(f, "\n{:width$}  {:10}  {:39}  DEVICE", "SUBNET", "STATE", "NODE")?;
    for peer in peers {
        let state = match peer.state {
            PeerState::Skipped => "skipped",
            PeerState::Pending => "pending",
            PeerState::Programmed => "programmed",
        };
        let node = peer.underlay.map(|address| address.to_string()).unwrap_or_default();
        let how = match (&peer.mac, &peer.session) {
            (Some(mac), _) => mac.clone(),
            (None, Some(session)) => session.to_string(),
            (None, None) if peer.direct => "direct".to_owned(),
            (None, None) => String::new(),
        };
        let line = format!("{:width$}  {state:10}  {node:39}  {how}", peer.subnet.to_string());
        match &peer.reason {
            Some(reason) => writeln!(f, "{}  {}", line.trim_end(), one_line(reason))?,
            None => writeln!(f, "{}", line.trim_end())?,
        }
    }
    Ok(())
}

/// Seconds; none if they are negative, as when clocks are set.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// A time in two units at most.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, _) => write!(f, "{minutes}m{:02}s", seconds % 60),
            (0, _, _) => write!(f, "{hours}h{:02}m", minutes % 60),
            _ => write!(f, "{days}d{:02}h", hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::status::model::{PeerCounts, Repair};

    use super::*;

    #[test]
    fn a_status_reads_as_a_table() {
        let peer = |subnet: &str, state, reason: Option<&str>| PeerStatus {
            subnet: subnet.parse().unwrap(),
            state,
            underlay: reason.is_none().then(|| "192.0.2.12".parse().unwrap()),
            mac: reason.is_none().then(|| "02:00:00:00:00:12".to_owned()),
            direct: false,
            reason: reason.map(str::to_owned),
            session: None,
        };
        let mut status = Status {
            version: "0.1.0".to_owned(),
            node: "worker-1".to_owned(),
            time: 1_000_000.0,
            started: 987_000.0,
            ready: true,
            backend: "vxlan".to_owned(),
            peers: PeerCounts { leases: 2, programmed: 1, pending: 0, skipped: 1 },
            repairs: vec![Repair {
                time: 999_900.0,
                object: "rules".to_owned(),
                cause: Cause::Notification,
                what: "14 changes".to_owned(),
            }],
            peer_list: vec![
                peer("10.244.2.0/24", PeerState::Programmed, None),
                peer("10.244.3.0/24", PeerState::Skipped, Some("its VNI is 2 but this node's is 1")),
            ],
            ..Status::default()
        };
        status.lease.ipv4 = Some("10.244.1.0/24".parse().unwrap());
        status.lease.expires = Some(1_080_000);
        status.store.kind = "etcd".to_owned();
        status.store.last_contact = Some(999_998.0);
        status.interface.name = "eth1".to_owned();
        status.interface.addresses = vec!["192.0.2.11".parse().unwrap()];
        status.interface.public = vec!["203.0.113.5".parse().unwrap()];
        status.rules.tables = vec!["ip flannel-ipv4".to_owned()];
        status.rules.right = true;
        status.notes.insert("forwarding".to_owned(), "may be dropped".to_owned());
        insta::assert_snapshot!(Shown(&status).to_string());
    }

    #[test]
    fn what_others_wrote_cannot_pose_as_a_line_or_steer_the_terminal() {
        let hostile = "\u{1b}[2J\rnode        ready\nnode        ready".to_owned();
        let mut status = Status { node: hostile.clone(), ..Status::default() };
        status.unmet.insert("device".to_owned(), hostile.clone());
        status.notes.insert("store".to_owned(), hostile.clone());
        status.store.kind = "etcd".to_owned();
        status.store.last_error = Some(hostile.clone());
        let subnet = "10.244.3.0/24".parse().unwrap();
        let state = PeerState::Skipped;
        status.peer_list = vec![PeerStatus {
            subnet,
            state,
            underlay: None,
            mac: None,
            direct: false,
            reason: Some(hostile),
            session: None,
        }];
        let text = Shown(&status).to_string();
        assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
        assert_eq!(text.lines().filter(|line| line.starts_with("node ")).count(), 1, "{text}");
    }
}
