//! The host around the overlay: its interfaces and routes, read again as far as they changed.
//!
//! The cost of a pod that starts, or of another program's route, must not depend on the number of peers. So flanneld does
//! not read the main table for each change, nor look up the route to every peer.

use std::collections::BTreeSet;

use flannel_vxlan::DefaultRoute;
use flannel_vxlan::{Family, Interface, Notification};
use ipnet::IpNet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::error::{DesiredError, HostError, Pass, PassError};
use super::{HOST_CHANGE_DELAY, Reconciler};
use crate::config::{NetConf, ResolvedConfig, Store};
use crate::desired::NodeSpec;
use crate::node::pod_bridge::PodSubnets;
use crate::node::{self, NodeError};
use crate::status::counters::Object;
use crate::status::model::Cause;
use crate::status::readiness::{Condition, update};
use flannel_lease::{Chain, LeaseKey, Stack};

/// The default routes of the main table, IPv4's and IPv6's.
type DefaultRoutes = [Vec<DefaultRoute>; 2];

/// What flanneld remembers of the host between two checks.
#[derive(Debug, Default)]
pub(super) struct HostWatch {
    /// As last read; `None` if they may have changed since. Reading them means a dump of the main table with all peers.
    defaults: Option<DefaultRoutes>,
    /// Networks whose routes changed since the last check, for peers that are routed to without encapsulation.
    rerouted: BTreeSet<IpNet>,
    /// Pod subnets that this node held before.
    former: Vec<IpNet>,
    /// What was logged of bridges of pods, and still holds: what makes new pods fail, and what does not.
    stale: (Option<String>, Option<String>),
    /// What of the host shares addresses with this node's subnet.
    overlap: Option<String>,
}

impl HostWatch {
    /// Remembers the subnets in `former` that are not in `own`.
    pub(super) fn note_former(&mut self, former: Option<LeaseKey>, own: LeaseKey) {
        self.former.extend(former.into_iter().flat_map(LeaseKey::subnets));
        self.former.retain(|former| own.subnets().all(|own| own != *former));
        self.former.sort_unstable();
        self.former.dedup();
    }
}

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Schedules checks of what other processes' changes may have broken.
    pub(super) fn notice(&mut self, notifications: &[Notification], cause: Cause) {
        let rerouted = self.overlay.desired.rerouted(notifications);
        let invalidation = self.overlay.desired.notice(notifications);
        if rerouted.iter().any(|net| net.prefix_len() == 0) {
            self.host.defaults = None;
        }
        let routes_matter = self.spec.is_direct_routing() || self.config.selection.can_reach.is_some();
        let host = invalidation.host || (routes_matter && !rerouted.is_empty());
        if self.spec.is_direct_routing() {
            self.host.rerouted.extend(rerouted);
        }
        if invalidation.peers {
            self.outputs.counters.expect(Object::Overlay);
            self.due.overlay.now();
        }
        let now = Instant::now();
        // Pods that start and stop change links too: one check covers several such changes. A later retry is
        // brought forward.
        if host && self.due.host.at.is_none_or(|at| at > now + HOST_CHANGE_DELAY) {
            self.due.host.at = Some(now + HOST_CHANGE_DELAY);
        }
        if invalidation.overlay {
            self.outputs.counters.found(Object::Overlay, cause);
        }
        // A check that is due soon covers this too; a later retry is brought forward.
        let longest = self.repairs.max_delay();
        if invalidation.overlay && self.due.overlay.at.is_none_or(|at| at > now + longest) {
            self.due.overlay.at = Some(self.repairs.repair_at(now));
        }
    }

    /// Reads the uplink again and follows its changes.
    pub(super) fn check_host(&mut self) -> Result<Pass, PassError> {
        let interfaces = self.overlay.kernel.interfaces().map_err(HostError::from)?;
        self.check_pod_bridge(&interfaces);
        let present = node::Present::from(&self.spec.facts);
        let defaults = match &self.host.defaults {
            Some(defaults) => defaults,
            None => self.host.defaults.insert(default_routes(&self.config, &mut self.overlay.kernel)?),
        };
        let facts = choose(
            &self.config,
            &self.spec.net_conf,
            present,
            defaults,
            &interfaces,
            &mut self.overlay.kernel,
        )
        .inspect_err(|_| self.host.defaults = None)?;
        self.check_own_subnet(&interfaces, &facts.interface);
        let rerouted = std::mem::take(&mut self.host.rerouted);
        if facts == self.spec.facts {
            self.update_peer_routes(&rerouted);
            return Ok(Pass::Done);
        }
        info!("the uplink changed from {} to {facts}", self.spec.facts);
        facts.log();
        let net_conf = self.spec.net_conf.clone();
        facts.warn_of_mtu(&net_conf.backend);
        let spec = NodeSpec::new(&self.config, net_conf, facts, Some(&self.lease.attributes))
            .map_err(DesiredError::from)?;
        self.adopt_spec(spec)?;
        Ok(Pass::Done)
    }

    /// Reports a bridge of pods that has an address of another subnet. flanneld does not remove it: pods may use it.
    fn check_pod_bridge(&mut self, interfaces: &[Interface]) {
        let networks = self.spec.net_conf.all_networks();
        let subnets = PodSubnets {
            own: self.lease.key,
            networks: &networks,
            former: &self.host.former,
            owns_cni0: matches!(self.config.asked.store, Store::Kubernetes(_)),
        };
        let stale = subnets.stale_bridges(interfaces);
        let describe = |blocks: bool| {
            let found = stale.iter().filter(|bridge| bridge.blocks == blocks);
            let texts: Vec<_> =
                found.map(|bridge| format!("{}; {}", bridge.problem(), bridge.cure())).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        };
        let (blocked, beside) = (describe(true), describe(false));
        if self.host.stale != (blocked.clone(), beside.clone()) {
            if let Some(text) = &blocked {
                error!("{text}; flanneld notices when that is done, without a restart");
            }
            if let Some(text) = &beside {
                warn!("{text}; flanneld notices when that is done, without a restart");
            }
            if self.host.stale.0.is_some() && blocked.is_none() {
                info!("new pods start again: no bridge has an address of a former pod subnet");
            }
            self.host.stale = (blocked.clone(), beside.clone());
        }
        update(&self.outputs.readiness, |readiness| {
            readiness.set(Condition::PodBridge, blocked.map_or(Ok(()), Err));
            readiness.note("pod bridge", beside);
        });
    }

    /// Reports a network of the host that shares addresses with this node's subnet.
    fn check_own_subnet(&mut self, interfaces: &[Interface], uplink: &str) {
        let networks = self.spec.net_conf.all_networks();
        let [default_ipv4, default_ipv6] =
            self.host.defaults.as_ref().map_or([&[][..]; 2], |[v4, v6]| [v4, v6]);
        let host = node::Host { interfaces, default_ipv4, default_ipv6, networks: &networks };
        let overlap = host.overlap(self.lease.key, uplink);
        if self.host.overlap != overlap {
            match &overlap {
                Some(text) => error!("{text}"),
                None => {
                    info!("no network of this host shares addresses with this node's pod subnet any longer")
                }
            }
            self.host.overlap = overlap.clone();
            update(&self.outputs.readiness, |readiness| readiness.note("pod subnet", overlap));
        }
    }

    /// Decides again which peers in these networks are routed to without encapsulation.
    fn update_peer_routes(&mut self, rerouted: &BTreeSet<IpNet>) {
        let peers = rerouted.iter().flat_map(|network| self.overlay.desired.peers_within(*network));
        let peers: BTreeSet<IpNet> = peers.collect();
        for subnet in &peers {
            if let Some(holder) = self.leases.table().holder(*subnet) {
                self.update_peer(holder);
            }
        }
        if !peers.is_empty() {
            self.due.overlay.now();
        }
    }
}

/// Reads the host's interfaces and routes, and chooses.
///
/// # Errors
/// The kernel could not be read, or nothing fits.
pub fn find_facts(
    config: &ResolvedConfig,
    net_conf: &NetConf,
    present: node::Present<'_>,
    links: &mut impl flannel_vxlan::Kernel,
) -> Result<node::NodeFacts, HostError> {
    let defaults = default_routes(config, links)?;
    let interfaces = links.interfaces()?;
    choose(config, net_conf, present, &defaults, &interfaces, links)
}

/// Reads the default routes, if they have a say.
fn default_routes(
    config: &ResolvedConfig,
    links: &mut impl flannel_vxlan::Kernel,
) -> Result<DefaultRoutes, HostError> {
    if !config.selection.needs_default_routes() {
        return Ok(DefaultRoutes::default());
    }
    Ok([links.default_routes(Family::V4)?, links.default_routes(Family::V6)?])
}

fn choose(
    config: &ResolvedConfig,
    net_conf: &NetConf,
    present: node::Present<'_>,
    [default_ipv4, default_ipv6]: &DefaultRoutes,
    interfaces: &[Interface],
    links: &mut impl flannel_vxlan::Kernel,
) -> Result<node::NodeFacts, HostError> {
    let networks = net_conf.all_networks();
    let host = node::Host { interfaces, default_ipv4, default_ipv6, networks: &networks };
    let route_to = |address| match links.route_to(address) {
        Ok(Some(way)) => Ok(way),
        Ok(None) => Err("network is unreachable".to_owned()),
        Err(error) => Err(Chain(&error).to_string()),
    };
    node::choose(&config.selection, Stack::from(net_conf), host, present, route_to)
        .map_err(|error: NodeError| error.into())
}
