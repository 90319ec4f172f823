//! `flanneld status`: how the daemon of this node is, or what is in the kernel if none runs.

mod kernel;

use std::collections::BTreeSet;
use std::fmt;

use flannel_lease::codec::printable;

use super::upstream_daemon::Upstream;
use super::{CommandError, Verdict};
use crate::config::{Config, StatusOptions};
use crate::run::instances::{self, DaemonId};
use crate::serve::status_socket::{self, AskError};
use crate::status::model::{PeerCounts, PeerState, PeerStatus, Repair, Span, Status, socket};

/// Asks the daemon whose subnet file is the given one; without one reads the kernel.
///
/// # Errors
/// The daemon does not answer, or the kernel cannot be read.
pub async fn run(config: &Config, options: StatusOptions) -> Result<Verdict, CommandError> {
    let mut status = match status_socket::ask(&socket(&config.subnet_file)) {
        Ok(status) => status,
        Err(AskError::Absent { source, .. }) if is_none(&source) => {
            let upstream = Upstream::find_alone(&config.subnet_file, config.healthz.as_ref())?;
            let mut status =
                kernel::read(&config.subnet_file, config.table_prefix.as_ref(), upstream.as_ref())?;
            if upstream.is_none() {
                status.unmet.insert(
                    "daemon".to_owned(),
                    absence(&instances::daemons().map_err(CommandError::Processes)?),
                );
            }
            status
        }
        Err(error) => return Err(error.into()),
    };
    let code = u8::from(!status.ready);
    let text = if options.json {
        format!("{}\n", serde_json::to_string_pretty(&status)?)
    } else {
        let is_plain = |peer: &PeerStatus| peer.state == PeerState::Programmed && peer.reason.is_none();
        status.peer_list.retain(|peer| options.peers || !is_plain(peer));
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
            write!(f, ", {}", printable(&status.node))?;
        }
        if status.started > 0.0 {
            write!(f, ", flanneld {} for {}", status.version, Span(now - status.started))?;
        }
        if let Some(upstream) = &status.upstream {
            write!(f, ", {}", printable(upstream))?;
        }
        writeln!(f)?;
        for (what, reason) in &status.unmet {
            writeln!(f, "{:12}{what}: {}", "  unmet", printable(reason))?;
        }
        for (what, text) in &status.notes {
            writeln!(f, "{:12}{what}: {}", "  note", printable(text))?;
        }
        let lease = &status.lease;
        let subnets = lease.subnets();
        write!(
            f,
            "{:12}{}",
            "lease",
            if subnets.is_empty() { "none".to_owned() } else { subnets.join(", ") }
        )?;
        if let Some(left) = lease.ends_after(now) {
            write!(f, ", ends in {left} unless renewed")?;
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
        let PeerCounts { programmed, pending, skipped, .. } = status.peers;
        writeln!(f, "{:12}{programmed} programmed, {pending} pending, {skipped} skipped", "peers")?;
        if let Some(Repair { time, object, cause, what }) = status.repairs.first() {
            let (ago, what) = (Span(now - time), printable(what));
            writeln!(f, "{:12}{ago} ago, {object} ({cause}): {what}", "last repair")?;
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
                Some(error) => write!(f, "failing: {}", printable(error))?,
            }
            if let Some(contact) = store.last_contact {
                write!(f, ", answered {} ago", Span(status.time - contact))?;
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
        let node = peer.underlay.map(|address| address.to_string()).unwrap_or_default();
        let how = match (&peer.mac, &peer.session) {
            (Some(mac), _) => mac.clone(),
            (None, Some(session)) => session.to_string(),
            (None, None) if peer.direct => "direct".to_owned(),
            (None, None) => String::new(),
        };
        let line = format!("{:width$}  {:10}  {node:39}  {how}", peer.subnet.to_string(), peer.state);
        match &peer.reason {
            Some(reason) => writeln!(f, "{}  {}", line.trim_end(), printable(reason))?,
            None => writeln!(f, "{}", line.trim_end())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::status::model::Cause;

    use super::*;

    #[test]
    fn a_status_reads_as_a_table() {
        let peer = |subnet: &str, state, reason: Option<&str>| PeerStatus {
            underlay: reason.is_none().then(|| "192.0.2.12".parse().unwrap()),
            mac: reason.is_none().then(|| "02:00:00:00:00:12".to_owned()),
            reason: reason.map(str::to_owned),
            ..PeerStatus::new(subnet.parse().unwrap(), state)
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
                peer("10.244.3.0/24", PeerState::Skipped, Some("the peer's VNI is 2 but this node's is 1")),
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
        status.peer_list =
            vec![PeerStatus { reason: Some(hostile), ..PeerStatus::new(subnet, PeerState::Skipped) }];
        let text = Shown(&status).to_string();
        assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
        assert_eq!(text.lines().filter(|line| line.starts_with("node ")).count(), 1, "{text}");
    }
}
