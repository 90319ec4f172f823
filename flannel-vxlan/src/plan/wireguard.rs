//! Compares the peers of WireGuard devices with their desired state. A peer of a device is identified by its public key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::model::family::Family;
use crate::model::objects::Observed;
use crate::model::peer::Via;
use crate::model::wireguard::{ObservedWireguardPeer, WireguardPeer, WireguardSpec};
use crate::model::wireguard_key::PublicKey;
use crate::plan::Plan;
use crate::plan::part::Part;
use crate::plan::step::Step;

/// Sent bytes of peers whose endpoint differs from the published one, at the last observation. The family is that of the
/// device.
pub(crate) type SentBytes = BTreeMap<(Family, PublicKey), u64>;

/// Most subnets of one step, so that its message is shorter than 64 KiB, the limit of a netlink attribute.
const SUBNETS_PER_STEP: usize = 1000;

/// The desired peers of one device: the endpoint and the subnets of each.
pub(crate) type WantedPeers = BTreeMap<PublicKey, (SocketAddr, Vec<IpNet>)>;

/// What the comparison of one device's peers depends on.
pub(crate) struct PeersDiff<'a> {
    /// The family of the device.
    pub(crate) family: Family,
    pub(crate) spec: &'a WireguardSpec,
    pub(crate) wanted: &'a WantedPeers,
    /// The peers that the device has and keeps.
    pub(crate) found: &'a [ObservedWireguardPeer],
    pub(crate) keeps_unknown: bool,
    /// Parts that are not repaired.
    pub(crate) hold: &'a BTreeSet<Part>,
}

impl PeersDiff<'_> {
    /// Appends the steps that write missing and wrong peers, and adds the peers that differ and are not repaired to
    /// `withheld`. `earlier` and `sent`: bytes sent until the last observation and until this one.
    pub(crate) fn put(
        &self,
        earlier: &SentBytes,
        sent: &mut SentBytes,
        withheld: &mut BTreeSet<IpNet>,
        plan: &mut Plan,
    ) {
        let found: BTreeMap<PublicKey, &ObservedWireguardPeer> =
            self.found.iter().map(|peer| (peer.key, peer)).collect();
        let wanted_anywhere: BTreeSet<IpNet> =
            self.wanted.values().flat_map(|(_, subnets)| subnets).copied().collect();
        for (key, (published, subnets)) in self.wanted {
            let found = found.get(key);
            let place = (self.family, *key);
            if let Some(found) = found.filter(|found| found.endpoint != Some(*published)) {
                sent.insert(place, found.tx_bytes);
            }
            let needs_endpoint =
                found.is_none_or(|found| found.needs_endpoint(*published, earlier.get(&place).copied()));
            // A subnet that another peer gets is no longer this peer's.
            let is_stale = |subnet: &IpNet| !self.keeps_unknown && !wanted_anywhere.contains(subnet);
            let has_stale = found.is_some_and(|found| found.subnets.iter().any(is_stale));
            let is_right = found.is_some_and(|found| {
                let has: BTreeSet<&IpNet> = found.subnets.iter().collect();
                (found.psk, found.keepalive) == (self.spec.psk, self.spec.keepalive)
                    && subnets.iter().all(|subnet| has.contains(subnet))
            });
            if is_right && !has_stale && !needs_endpoint {
                continue;
            }
            if subnets.iter().any(|subnet| self.hold.contains(&Part::Peer(*subnet))) {
                withheld.extend(subnets);
                continue;
            }
            let endpoint = needs_endpoint.then_some(*published);
            put_peer(plan, self.family, self.spec, *key, endpoint, subnets, has_stale);
        }
    }

    /// Appends the steps that delete the peers that are not wanted.
    pub(crate) fn delete_stale(&self, plan: &mut Plan) {
        let stale = self.found.iter().filter(|found| !self.wanted.contains_key(&found.key));
        plan.steps.extend(stale.map(|found| Step::DeleteWireguardPeer(self.family, found.key)));
    }
}

/// Appends the steps that write one peer. They count as steps of its first subnet.
pub(crate) fn put_peer(
    plan: &mut Plan,
    family: Family,
    spec: &WireguardSpec,
    key: PublicKey,
    endpoint: Option<SocketAddr>,
    subnets: &[IpNet],
    replaces_subnets: bool,
) {
    let Some(subnet) = subnets.first() else { return };
    let first = plan.steps.len();
    for (number, subnets) in subnets.chunks(SUBNETS_PER_STEP).enumerate() {
        let peer = WireguardPeer {
            key,
            endpoint: endpoint.filter(|_| number == 0),
            subnets: subnets.to_vec(),
            replaces_subnets: replaces_subnets && number == 0,
            psk: spec.psk,
            keepalive: spec.keepalive,
        };
        plan.steps.push(Step::PutWireguardPeer(family, Box::new(peer)));
    }
    plan.end_peer(*subnet, first);
}

/// The desired peers of the device of `owner`: those of `programmed` whose subnets belong to that device.
pub(crate) fn wanted_peers(programmed: impl Iterator<Item = (IpNet, Via)>) -> WantedPeers {
    let mut wanted = WantedPeers::new();
    for (subnet, via) in programmed {
        if let Via::Key { key, endpoint } = via {
            wanted.entry(key).or_insert((endpoint, Vec::new())).1.push(subnet);
        }
    }
    wanted
}

impl Observed {
    /// The peers of the WireGuard device with this index.
    pub(crate) fn wireguard_peers(&self, index: Option<u32>) -> &[ObservedWireguardPeer] {
        let device = self.devices.iter().find(|device| Some(device.index) == index);
        device.and_then(|device| device.wireguard()).map_or(&[], |wireguard| &wireguard.peers)
    }
}
