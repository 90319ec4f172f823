//! What flannel left in the kernel, without a daemon that could tell what should be there.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::SystemTime;

use flannel_nft::Kernel as _;
use flannel_vxlan::{Family, Kernel as _, Observed, ObservedRouteTo, ROUTE_PROTOCOL};
use ipnet::IpNet;

use crate::commands::{devices, table_prefixes};
use crate::desired::rules::TablePrefix;
use crate::desired::subnet_env;
use crate::status::model::{DeviceStatus, PeerState, PeerStatus, Status};

/// Devices of flannel's names, its tables, and the peers of our routes. Never ready.
pub(super) fn read(subnet_file: &Path, prefix: Option<&TablePrefix>) -> Result<Status, Box<dyn Error>> {
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64(),
        ..Status::default()
    };
    if let Ok(previous) = subnet_env::Previous::read(subnet_file) {
        (status.lease.ipv4, status.lease.ipv6) = (previous.ipv4_subnet, previous.ipv6_subnet);
    }
    let mut nft = flannel_nft::Netlink::open()?;
    let prefixes = table_prefixes(prefix, &mut nft)?;
    let tables = prefixes.iter().map(TablePrefix::tables).collect::<Result<Vec<_>, _>>()?.concat();
    let observed = nft.observe(&tables)?;
    status.rules.tables = observed.ruleset.tables().iter().map(|table| table.id().to_string()).collect();
    status.rules.owned = observed.ruleset.tables().iter().any(|table| table.owner_port().is_some());
    status.rules.counters = crate::status::snapshot::counters(&observed);

    let mut links = flannel_vxlan::Netlink::open()?;
    let mut peers = BTreeMap::new();
    for wanted in std::iter::once(Vec::new()).chain(devices::all(&mut links)?) {
        let observed = links.observe(&wanted)?;
        status.devices.extend(device_status(&observed));
        // Those of a device replace what the look without devices could not tell.
        peers.extend(peer_status(&observed).into_iter().map(|peer| (peer.subnet, peer)));
    }
    status.peer_list = peers.into_values().collect();
    status.peers.programmed = u64::try_from(status.peer_list.len())?;
    Ok(status)
}

fn device_status(observed: &Observed) -> Vec<DeviceStatus> {
    let status = |device: &flannel_vxlan::ObservedDevice| {
        let vxlan = device.vxlan?;
        let family = if device.name.as_str().starts_with("flannel-v6.") { Family::V6 } else { Family::V4 };
        let mut addresses = device.addresses.iter().map(|(address, _)| *address);
        Some(DeviceStatus {
            name: device.name.to_string(),
            vni: vxlan.vni,
            address: addresses.find(|address| Family::of(*address) == family && !is_link_local(*address))?,
            mac: device.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            mtu: device.mtu,
            port: vxlan.port,
        })
    };
    observed.devices.iter().filter_map(status).collect()
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    matches!(address, std::net::IpAddr::V6(address) if address.is_unicast_link_local())
}

/// A route, the neighbour of its next hop, and where packets for that neighbour's MAC address go.
fn peer_status(observed: &Observed) -> Vec<PeerStatus> {
    let ours = observed.routes.iter().filter(|route| route.protocol == ROUTE_PROTOCOL);
    let routes = ours.filter_map(|route| match route.to {
        ObservedRouteTo::Gateway { gateway, onlink } => Some((route.subnet, gateway, onlink)),
        ObservedRouteTo::Nexthop { .. } => Some((route.subnet, route.subnet.network(), true)),
        ObservedRouteTo::Blackhole | ObservedRouteTo::Other => None,
    });
    let peer = |(subnet, gateway, tunnel): (IpNet, std::net::IpAddr, bool)| {
        let neighbors = observed.neighbors.iter().map(|found| found.neighbor);
        let mac = neighbors.filter(|_| tunnel).find(|found| found.address == gateway).map(|found| found.mac);
        let family = Family::of_net(subnet);
        let entries = observed.fdb.iter().map(|found| found.entry);
        let entry = entries.filter(|entry| entry.family == family).find(|entry| Some(entry.mac) == mac);
        PeerStatus {
            subnet,
            state: PeerState::Programmed,
            underlay: if tunnel { entry.map(|entry| entry.underlay) } else { Some(gateway) },
            mac: mac.map(|mac| mac.to_string()),
            reason: None,
        }
    };
    routes.map(peer).collect()
}
