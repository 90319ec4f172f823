//! What flannel left in the kernel, if no daemon runs that knows the desired state.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use flannel_nft::Kernel as _;
use flannel_vxlan::{Family, Kernel as _, Observed, ROUTE_PROTOCOL};

use crate::commands::upstream_daemon::{State, Upstream};
use crate::commands::{CommandError, devices, peers, table_prefixes};
use crate::desired::rules::TablePrefix;
use crate::run::subnet_env;
use crate::status::counters::seconds;
use crate::status::model::{DeviceStatus, PeerState, Status};
use crate::status::wireguard_sessions;

/// Devices of flannel's names, its tables or `upstream`'s chains, and the peers of its routes. Ready only if upstream's
/// daemon runs and the kernel holds what that daemon programs.
pub(super) fn read(
    subnet_file: &Path,
    prefix: Option<&TablePrefix>,
    upstream: Option<&Upstream>,
) -> Result<Status, CommandError> {
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: seconds(SystemTime::now()),
        ..Status::default()
    };
    let previous = subnet_env::read(subnet_file).unwrap_or_default();
    (status.lease.ipv4, status.lease.ipv6) = (previous.ipv4_subnet, previous.ipv6_subnet);
    let mut nft = flannel_nft::Netlink::open()?;
    let prefixes = table_prefixes(prefix, &mut nft)?;
    let tables = prefixes.iter().map(TablePrefix::tables).collect::<Result<Vec<_>, _>>()?.concat();
    let observed = nft.observe(&tables)?;
    status.rules.tables = observed.ruleset.tables().iter().map(|table| table.id().to_string()).collect();
    status.rules.owned = observed.ruleset.tables().iter().any(|table| table.owner_port().is_some());
    status.rules.counters = crate::status::snapshot::counters(&observed);

    let mut links = flannel_vxlan::Netlink::open()?;
    let mut found = BTreeMap::new();
    for wanted in std::iter::once(Vec::new()).chain(devices::all(&mut links)?) {
        let observed = links.observe(&wanted)?;
        status.devices.extend(device_status(&observed));
        // Those of a device replace what the look without devices could not tell.
        let peers = peers::of_routes(&observed, |route| route.protocol == ROUTE_PROTOCOL);
        found.extend(peers.into_iter().map(|peer| (peer.subnet, peer)));
    }
    if let Some(upstream) = upstream {
        let state = State::read(&previous, &mut links, &mut nft)?;
        let chains = state.rules.masquerade.into_values().chain(state.rules.accept.into_values());
        (status.rules.tables, found, status.unmet) = (chains.collect(), state.peers, state.unmet);
        status.ready = status.unmet.is_empty();
        status.upstream = Some(upstream.to_string());
    }
    let count = |state| found.values().fold(0, |count, peer| count + u64::from(peer.state == state));
    status.peers.programmed = count(PeerState::Programmed);
    status.peers.pending = count(PeerState::Pending);
    status.peer_list = found.into_values().collect();
    Ok(status)
}

fn device_status(observed: &Observed) -> Vec<DeviceStatus> {
    let status = |device: &flannel_vxlan::ObservedDevice| {
        let (_, family) = device.flannel_device()?;
        let vxlan = device.vxlan();
        let mut addresses = device.addresses.iter().map(|(address, _)| *address);
        Some(DeviceStatus {
            name: device.name.to_string(),
            vni: vxlan.map(|vxlan| vxlan.vni),
            address: addresses.find(|address| Family::of(*address) == family && !is_link_local(*address))?,
            mac: device.mac.map(|mac| mac.to_string()),
            mtu: device.mtu,
            port: vxlan
                .map(|vxlan| vxlan.port)
                .or_else(|| device.ipip()?.fou)
                .or_else(|| Some(device.wireguard()?.port)),
            key: device.wireguard().and_then(|found| Some(found.private_key?.public().to_string())),
            sessions: device.wireguard().map(wireguard_sessions::counts),
            wireguard_peers: Vec::new(),
        })
    };
    observed.devices.iter().filter_map(status).collect()
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    matches!(address, std::net::IpAddr::V6(address) if address.is_unicast_link_local())
}
