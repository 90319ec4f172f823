//! Whether a node that upstream's daemon keeps is whole.

use std::path::Path;

use flannel_vxlan::{Peer, Via};

use super::Finding;
use crate::commands::CommandError;
use crate::commands::context::Context;
use crate::commands::upstream_daemon::State;
use crate::run::subnet_env;
use crate::status::model::PeerStatus;

/// Upstream's daemon programs a peer once, when it learns of it; only iptables mode is checked again.
const ADVICE: &str = "restart upstream's daemon: it repairs only iptables rules while it runs";

pub(super) fn check(
    context: &Context,
    subnet_file: &Path,
    links: &mut flannel_vxlan::Netlink,
    nft: &mut flannel_nft::Netlink,
) -> Result<Vec<Finding>, CommandError> {
    let state = State::read(&subnet_env::read(subnet_file).unwrap_or_default(), links, nft)?;
    Ok(judge(&state, context.overlay(links)?.peers()))
}

fn judge(state: &State, peers: impl Iterator<Item = Peer>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (check, what) in [("device", "device"), ("peer", "peers"), ("rules", "rules")] {
        findings.extend(state.unmet.get(what).map(|problem| Finding::error(check, problem.clone(), ADVICE)));
    }
    for peer in peers {
        let problem = match state.peers.get(&peer.subnet) {
            None => "upstream's daemon has no route to it, so its pods are unreachable from here".to_owned(),
            Some(found) if leads_elsewhere(found, peer.via) => {
                format!(
                    "its pods are unreachable from here: its lease has {}, but the kernel sends to {}",
                    shown(&peer),
                    address(found)
                )
            }
            Some(_) => continue,
        };
        findings.push(Finding::error("peer", format!("peer {}: {problem}", peer.subnet), ADVICE));
    }
    findings
}

/// Whether packets go to another host than the lease says. Whether they are wrapped is up to upstream's daemon.
fn leads_elsewhere(found: &PeerStatus, via: Via) -> bool {
    let is_other_mac = match (via, &found.mac) {
        (Via::Tunnel { mac, .. }, Some(found)) => mac.to_string() != *found,
        _ => false,
    };
    found.underlay.is_some_and(|address| address != via.underlay()) || is_other_mac
}

fn shown(peer: &Peer) -> String {
    match peer.via {
        Via::Direct { gateway } => gateway.to_string(),
        Via::Outer { underlay } => underlay.to_string(),
        Via::Tunnel { mac, underlay } => format!("{underlay}, {mac}"),
        Via::Key { key, endpoint } => format!("{endpoint}, {key}"),
    }
}

fn address(found: &PeerStatus) -> String {
    let underlay = found.underlay.map(|address| address.to_string());
    underlay.into_iter().chain(found.mac.clone()).collect::<Vec<_>>().join(", ")
}
