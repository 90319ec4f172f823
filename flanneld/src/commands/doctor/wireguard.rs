//! Sessions of WireGuard devices in which this node sends and hears nothing.

use flannel_lease::Chain;
use flannel_vxlan::{Kernel, ObservedWireguardPeer};

use super::Finding;
use crate::commands::context::Context;
use crate::config::Backend;

/// Peers that a finding names.
const MAX_NAMED: usize = 5;

pub(super) fn check(context: &Context, links: &mut impl Kernel) -> Vec<Finding> {
    let net_conf = &context.spec.net_conf;
    let Backend::Wireguard(_) = &net_conf.backend else { return Vec::new() };
    let families = net_conf.all_networks().into_iter().map(flannel_vxlan::Family::of_net);
    let mut findings = Vec::new();
    for name in net_conf.backend.devices(families).into_values() {
        match links.wireguard(name) {
            Ok(found) => {
                findings.extend(silent(name.as_str(), &found.map(|found| found.peers).unwrap_or_default()))
            }
            Err(error) => findings.push(Finding::info(
                "wireguard",
                format!("doctor cannot read the sessions of {name}: {}", Chain(&error)),
                "run doctor as root",
            )),
        }
    }
    findings
}

/// Peers to which packets were sent and which never answered.
fn silent(device: &str, peers: &[ObservedWireguardPeer]) -> Option<Finding> {
    let silent: Vec<&ObservedWireguardPeer> =
        peers.iter().filter(|peer| peer.handshake_age.is_none() && peer.tx_bytes > 0).collect();
    if silent.is_empty() {
        return None;
    }
    let name = |peer: &&ObservedWireguardPeer| {
        let subnets: Vec<_> = peer.subnets.iter().map(ToString::to_string).collect();
        let endpoint =
            peer.endpoint.map_or_else(|| "no endpoint".to_owned(), |endpoint| endpoint.to_string());
        format!("{} at {endpoint}", subnets.join(" and "))
    };
    let named: Vec<_> = silent.iter().take(MAX_NAMED).map(name).collect();
    let more = silent.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(Finding::warning(
        "wireguard",
        format!(
            "{device}: {} of {} peers never answered a handshake, their pods are unreachable: {}{more}",
            silent.len(),
            peers.len(),
            named.join(", ")
        ),
        "open the UDP ports ListenPort and ListenPortV6 between all nodes, and check that all nodes have the same PSK",
    ))
}

#[cfg(test)]
mod tests {
    use flannel_vxlan::PublicKey;

    use super::*;

    #[test]
    fn only_peers_that_were_sent_to_and_never_answered_are_named() {
        let peer = |n: u8, tx_bytes, handshake_age: Option<u64>| ObservedWireguardPeer {
            key: PublicKey::new([n; 32]),
            endpoint: format!("192.0.2.{n}:51820").parse().ok(),
            subnets: vec![format!("10.244.{n}.0/24").parse().unwrap()],
            psk: None,
            keepalive: None,
            handshake_age: handshake_age.map(std::time::Duration::from_secs),
            rx_bytes: 0,
            tx_bytes,
        };
        let idle = [peer(1, 0, None), peer(2, 148, Some(1000))];
        assert!(silent("flannel-wg", &idle).is_none());
        let finding = silent("flannel-wg", &[idle.to_vec(), vec![peer(3, 148, None)]].concat()).unwrap();
        assert!(
            finding.finding.contains("flannel-wg: 1 of 3 peers never answered")
                && finding.finding.ends_with(": 10.244.3.0/24 at 192.0.2.3:51820"),
            "{}",
            finding.finding
        );
    }
}
