//! What the kernel reports of the sessions with WireGuard peers, for a status.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use flannel_lease::Chain;
use flannel_vxlan::{DeviceSpec, Family, IfName, Kernel, ObservedWireguard, ObservedWireguardPeer, Overlay};
use ipnet::IpNet;

use crate::status::model::{SessionCounts, SessionStatus, Status, WireguardPeerStatus};

/// After this time without a handshake the kernel has no session (`REJECT_AFTER_TIME`, drivers/net/wireguard/messages.h).
const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// Puts the sessions into a status whose devices and peers are filled. Of other backends it reads nothing.
pub(crate) fn fill(status: &mut Status, overlay: &Overlay, kernel: &mut impl Kernel) {
    let specs = Family::ALL.into_iter().filter_map(|family| overlay.family(family)?.device.as_ref());
    let names: Vec<IfName> = specs.filter(|device| is_wireguard(device)).map(|device| device.name).collect();
    let mut sessions = BTreeMap::new();
    for name in names {
        match kernel.wireguard(name) {
            Ok(Some(found)) => {
                let (counts, peers) = (counts(&found), peers(&found, SystemTime::now()));
                for device in status.devices.iter_mut().filter(|device| device.name == name.as_str()) {
                    device.sessions = Some(counts);
                    device.wireguard_peers.clone_from(&peers);
                }
                sessions.extend(by_subnet(&found));
            }
            // The device is missing, which the overlay's condition reports.
            Ok(None) => {}
            Err(error) => drop(status.notes.insert("wireguard".to_owned(), Chain(&error).to_string())),
        }
    }
    for peer in &mut status.peer_list {
        peer.session = sessions.remove(&peer.subnet);
    }
}

fn is_wireguard(device: &DeviceSpec) -> bool {
    device.kind.wireguard().is_some()
}

/// Numbers that do not grow with the peers.
pub(crate) fn counts(found: &ObservedWireguard) -> SessionCounts {
    let mut counts = SessionCounts::default();
    for peer in &found.peers {
        match peer.handshake_age {
            Some(age) if age < SESSION_LIFETIME => counts.connected += 1,
            _ => counts.disconnected += 1,
        }
        counts.rx_bytes = counts.rx_bytes.saturating_add(peer.rx_bytes);
        counts.tx_bytes = counts.tx_bytes.saturating_add(peer.tx_bytes);
    }
    counts
}

/// The peers one by one, unless there are too many. `now`: when they were read.
fn peers(found: &ObservedWireguard, now: SystemTime) -> Vec<WireguardPeerStatus> {
    if found.peers.len() > WireguardPeerStatus::MAX {
        return Vec::new();
    }
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let peer = |peer: &ObservedWireguardPeer| {
        let subnets: Vec<String> = peer.subnets.iter().map(ToString::to_string).collect();
        let at = peer.handshake_age.map(|age| since_epoch.saturating_sub(age));
        WireguardPeerStatus {
            key: peer.key.to_string(),
            subnets: subnets.join(","),
            // Rounded, so that the moment of reading does not change it.
            latest_handshake: at.map(|at| at.saturating_add(Duration::from_millis(500)).as_secs()),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        }
    };
    found.peers.iter().map(peer).collect()
}

fn by_subnet(found: &ObservedWireguard) -> impl Iterator<Item = (IpNet, SessionStatus)> {
    found.peers.iter().flat_map(|peer| {
        let session = SessionStatus {
            key: peer.key.to_string(),
            endpoint: peer.endpoint,
            handshake_age: peer.handshake_age.map(|age| age.as_secs()),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        };
        peer.subnets.iter().map(move |subnet| (*subnet, session.clone()))
    })
}

#[cfg(test)]
mod tests {
    use flannel_vxlan::PublicKey;

    use super::*;

    #[test]
    fn metrics_have_each_peer_of_a_device_with_few_and_no_peer_of_a_device_with_many() {
        let peer = |handshake_age: Option<u64>| ObservedWireguardPeer {
            key: PublicKey::new([7; 32]),
            endpoint: None,
            subnets: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            psk: None,
            keepalive: None,
            handshake_age: handshake_age.map(Duration::from_millis),
            rx_bytes: 1,
            tx_bytes: 2,
        };
        let with = |peers| ObservedWireguard { peers, ..ObservedWireguard::default() };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(100_000_001);
        let found = peers(&with(vec![peer(Some(2_000)), peer(None)]), now);
        assert_eq!(found.iter().map(|peer| peer.latest_handshake).collect::<Vec<_>>(), [Some(99_998), None]);
        assert_eq!(found[0].subnets, "10.244.1.0/24,fd00:1::/64");
        let many = with(vec![peer(None); WireguardPeerStatus::MAX]);
        assert_eq!(peers(&many, now).len(), WireguardPeerStatus::MAX);
        assert_eq!(peers(&with(vec![peer(None); WireguardPeerStatus::MAX + 1]), now), []);
    }
}
