//! Changes of WireGuard peers. A peer of a device has a public key and all subnets of a node, so the change of one subnet
//! writes the peer with the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::model::family::Family;
use crate::model::objects::Entries;
use crate::model::peer::{EndpointId, Via};
use crate::model::wireguard_key::PublicKey;
use crate::overlay::Overlay;
use crate::overlay::pending_peers::Programmed;
use crate::plan::Plan;
use crate::plan::step::Step;
use crate::plan::wireguard::put_peer;

/// Peers to be written, by the family of their device and their key.
#[derive(Debug, Default)]
pub(crate) struct ChangedKeys(BTreeMap<(Family, PublicKey), Change>);

#[derive(Debug, Default)]
struct Change {
    /// The kernel has the peer with its published endpoint, or the kernel has followed it elsewhere.
    has_endpoint: bool,
    /// The peer loses a subnet that no other peer gets.
    loses_subnet: bool,
}

impl ChangedKeys {
    /// Notes the change of a subnet from `old`, which the kernel has, to `wanted`.
    pub(crate) fn note(&mut self, device: Family, old: Option<&Entries>, wanted: Option<&Entries>) {
        let old = old.and_then(|old| old.wireguard);
        let wanted = wanted.and_then(|wanted| wanted.wireguard);
        if let Some(wanted) = wanted {
            self.0.entry((device, wanted.key)).or_default().has_endpoint |= old == Some(wanted);
        }
        if let Some(old) = old.filter(|old| wanted.is_none_or(|wanted| wanted.key != old.key)) {
            self.0.entry((device, old.key)).or_default().loses_subnet |= wanted.is_none();
        }
    }
}

impl Overlay {
    /// Appends the steps that write the changed peers, then those that delete peers without subnets. `dirty`: the subnets
    /// that change.
    pub(crate) fn write_keys(
        &self,
        keys: ChangedKeys,
        dirty: &BTreeMap<IpNet, Option<Programmed>>,
        plan: &mut Plan,
    ) {
        let mut gone = Vec::new();
        for ((device, key), change) in keys.0 {
            let spec = self.families[device].as_ref().and_then(|spec| spec.device.as_ref());
            let Some(spec) = spec.and_then(|device| device.kind.wireguard()) else { continue };
            let programmed: Vec<(IpNet, SocketAddr)> = self.programmed_with(device, key).collect();
            let Some((_, published)) = programmed.first() else {
                gone.push(Step::DeleteWireguardPeer(device, key));
                continue;
            };
            let has_other = programmed.iter().any(|(subnet, _)| !dirty.contains_key(subnet));
            let endpoint = (!change.has_endpoint && !has_other).then_some(*published);
            let subnets: Vec<IpNet> = programmed.iter().map(|(subnet, _)| *subnet).collect();
            put_peer(plan, device, spec, key, endpoint, &subnets, change.loses_subnet);
        }
        plan.steps.append(&mut gone);
    }

    /// Subnets of the programmed peers with this key on the device of `device`, lowest first, with their endpoints.
    fn programmed_with(&self, device: Family, key: PublicKey) -> impl Iterator<Item = (IpNet, SocketAddr)> {
        let mut subnets: Vec<IpNet> =
            self.rules().claimants(EndpointId::Key(key), device).map(|(_, subnet)| subnet).collect();
        subnets.sort_unstable();
        subnets.into_iter().filter_map(|subnet| match self.peers.get(subnet)?.via {
            Via::Key { endpoint, .. } => self.conflict_of(subnet).is_none().then_some((subnet, endpoint)),
            _ => None,
        })
    }
}
