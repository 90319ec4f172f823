//! Describes, on request, the desired state and how much of it the kernel has. The cost grows with the number of peers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use flannel_nft::Observed;
use flannel_vxlan::{DeviceSpec, Family, Overlay, Via};
use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::config::{Process, Source as _};
use crate::desired::NodeSpec;
use crate::reconcile::incomplete_leases::IncompleteLeases;
use crate::status::model::{
    CounterStatus, DeviceStatus, InterfaceStatus, LeaseStatus, PeerCounts, PeerState, PeerStatus, Status,
};
use crate::status::readiness::Readiness;
use flannel_lease::LeaseTable;
use flannel_lease::{Lease, LeaseAttributes, LeaseKey};

/// Asks the reconciler how things are.
#[derive(Debug)]
pub struct StatusRequest {
    /// With every peer, not only their numbers.
    pub peers: bool,
    /// Where to send the answer. The client may be gone.
    pub answer: oneshot::Sender<Box<Status>>,
}

/// Everything that follows from these; rules, readiness, notes and the end of the lease are left to the caller. Peers one
/// by one only if `list`.
pub(crate) fn snapshot(
    spec: &NodeSpec,
    lease: &Lease,
    (leases, gaps): (&LeaseTable, &IncompleteLeases),
    overlay: &Overlay,
    list: bool,
) -> Status {
    let facts = &spec.facts;
    let (ipv4, ipv6) = (facts.ipv4.as_ref(), facts.ipv6.as_ref());
    let own = ipv4.map(|own| (IpAddr::from(own.interface), IpAddr::from(own.public)));
    let own = own.into_iter().chain(ipv6.map(|own| (own.interface.into(), own.public.into())));
    let (addresses, public) = own.unzip();
    let mut status = Status {
        node: Process.host_name(),
        lease: LeaseStatus { ipv4: lease.key.v4(), ipv6: lease.key.v6(), ..LeaseStatus::default() },
        backend: spec.net_conf.backend.name().to_owned(),
        interface: InterfaceStatus {
            name: facts.interface.clone(),
            mtu: facts.mtu,
            pod_mtu: spec.mtus.pods,
            addresses,
            public,
        },
        devices: devices(overlay),
        ..Status::default()
    };
    let waiting: BTreeSet<IpNet> = overlay.waiting().collect();
    let mut counts =
        PeerCounts { leases: leases.len().try_into().unwrap_or(u64::MAX), ..PeerCounts::default() };
    for (key, attributes) in leases.peers() {
        for subnet in key.subnets() {
            if leases.holder(subnet) != Some(key) {
                continue;
            }
            let peer = peer(spec, overlay, &waiting, key, subnet, attributes);
            let Some(mut peer) = peer else { continue };
            if let Some(gap) = gaps.of(key, subnet) {
                peer.reason.get_or_insert_with(String::new).clone_from(&gap.text);
            }
            match peer.state {
                PeerState::Programmed => counts.programmed += 1,
                PeerState::Pending => counts.pending += 1,
                PeerState::Skipped => counts.skipped += 1,
            }
            if list {
                status.peer_list.push(peer);
            }
        }
    }
    status.peers = counts;
    status
}

fn peer(
    spec: &NodeSpec,
    overlay: &Overlay,
    waiting: &BTreeSet<IpNet>,
    key: LeaseKey,
    subnet: IpNet,
    attributes: &LeaseAttributes,
) -> Option<PeerStatus> {
    let Some(peer) = overlay.peer(subnet) else {
        let (state, reason) = match spec.peer(key, subnet, attributes, |_| false)? {
            Ok(_) => (PeerState::Pending, None),
            Err(skipped) => (PeerState::Skipped, Some(skipped.to_string())),
        };
        return Some(PeerStatus { reason, ..PeerStatus::new(subnet, state) });
    };
    let (state, reason) = match overlay.conflict_of(subnet) {
        Some(conflict) => (PeerState::Skipped, Some(conflict.to_string())),
        None if overlay.needs_observe() => {
            (PeerState::Pending, Some("flanneld checks the kernel next".to_owned()))
        }
        None if waiting.contains(&subnet) => {
            (PeerState::Pending, Some("not written yet, or refused by the kernel".to_owned()))
        }
        None => (PeerState::Programmed, None),
    };
    let mac = match peer.via {
        Via::Tunnel { mac, .. } => Some(mac.to_string()),
        Via::Outer { .. } | Via::Key { .. } | Via::Direct { .. } => None,
    };
    Some(PeerStatus {
        underlay: Some(peer.via.underlay()),
        mac,
        direct: matches!(peer.via, Via::Direct { .. }),
        reason,
        ..PeerStatus::new(subnet, state)
    })
}

fn devices(overlay: &Overlay) -> Vec<DeviceStatus> {
    let specs = Family::ALL.into_iter().filter_map(|family| overlay.family(family)?.device.as_ref());
    let status = |device: &DeviceSpec| {
        let vxlan = device.kind.vxlan();
        DeviceStatus {
            name: device.name.to_string(),
            vni: vxlan.map(|vxlan| vxlan.vni.number()),
            address: device.address,
            mac: vxlan.map(|vxlan| vxlan.mac.to_string()),
            mtu: device.mtu.bytes(),
            port: device.kind.port().map(NonZeroU16::get),
            key: device.kind.wireguard().map(|wireguard| wireguard.public_key.to_string()),
            sessions: None,
            wireguard_peers: Vec::new(),
        }
    };
    specs.map(status).collect()
}

/// Puts what does not hold and what is worth knowing into a status.
pub(crate) fn fill_readiness(readiness: &Readiness, status: &mut Status) {
    status.ready = readiness.is_ready();
    let unmet = readiness.unmet();
    status.unmet =
        unmet.map(|(condition, reason)| (condition.name().to_owned(), reason.to_owned())).collect();
    let notes = readiness.notes();
    status.notes = notes.map(|(subject, text)| (subject.to_owned(), text.to_owned())).collect();
}

/// The named counters of our tables.
pub(crate) fn counters(observed: &Observed) -> Vec<CounterStatus> {
    let mut counters = Vec::new();
    for table in observed.ruleset.tables() {
        let family = if table.id().family == flannel_nft::Family::Ip { "ipv4" } else { "ipv6" };
        for counter in table.counters() {
            let (packets, bytes) = counter.count();
            let name = counter.name().to_string();
            counters.push(CounterStatus { family: family.to_owned(), name, packets, bytes });
        }
    }
    counters
}
