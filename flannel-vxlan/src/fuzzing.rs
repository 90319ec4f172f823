//! What the fuzz targets in testkit/fuzz call; no public API.

use std::time::SystemTime;

use flannel_netlink::messages;

use crate::kernel::monitor;
use crate::model::wireguard::ObservedWireguard;
use crate::wire::{decode, ethtool, fou, generic_netlink, wireguard};

/// Reads answers and notifications of rtnetlink.
pub fn rtnetlink(bytes: &[u8]) {
    for message in &messages(bytes).flatten().collect::<Vec<_>>() {
        let _read_or_malformed = (decode::link(message), decode::interface_address(message));
        let _read_or_malformed =
            (decode::neighbor(message), decode::any_neighbor(message), decode::fdb_entry(message));
        let _read_or_malformed = (decode::nexthop(message), decode::route(message), monitor::read(message));
    }
}

/// Reads answers of generic netlink families.
pub fn generic_netlink(bytes: &[u8]) {
    let mut device = ObservedWireguard::default();
    for message in &messages(bytes).flatten().collect::<Vec<_>>() {
        let _read_or_malformed =
            (generic_netlink::family(message), ethtool::tx_checksum(message), fou::ipip_port(message));
        let _read_or_malformed = wireguard::device(&mut device, message, SystemTime::now());
    }
}
