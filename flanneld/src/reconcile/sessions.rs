//! What the kernel reports of the sessions with WireGuard peers, for a status.

use std::collections::BTreeMap;
use std::time::Duration;

use flannel_lease::Chain;
use flannel_vxlan::{DeviceSpec, Family, IfName, Kernel, ObservedWireguard, Overlay};
use ipnet::IpNet;

use crate::status::model::{SessionCounts, SessionStatus, Status};

/// After this time without a handshake the kernel has no session (`REJECT_AFTER_TIME`, drivers/net/wireguard/messages.h).
const SESSION_LIFETIME: Duration = Duration::from_secs(180);

/// Puts the sessions into a status whose devices and peers are filled. Of other backends it reads nothing.
pub(super) fn fill(status: &mut Status, overlay: &Overlay, kernel: &mut impl Kernel) {
    let specs = Family::ALL.into_iter().filter_map(|family| overlay.family(family)?.device.as_ref());
    let names: Vec<IfName> = specs.filter(|device| is_wireguard(device)).map(|device| device.name).collect();
    let mut sessions = BTreeMap::new();
    for name in names {
        match kernel.wireguard(name) {
            Ok(Some(found)) => {
                let counts = counts(&found);
                for device in status.devices.iter_mut().filter(|device| device.name == name.as_str()) {
                    device.sessions = Some(counts);
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
