//! A bridge of pods that keeps the address of a former pod subnet.

use flannel_vxlan::Interface;

use super::Finding;
use crate::commands::context::Context;
use crate::node::pod_bridge::{PodSubnets, StaleBridge};

/// What is found, and the other interfaces: the former subnet is inside the pod network, which another network must not be.
pub(super) fn check(
    context: &Context,
    interfaces: Vec<Interface>,
    owns_cni0: bool,
) -> (Vec<Finding>, Vec<Interface>) {
    let networks = context.spec.net_conf.all_networks();
    let subnets = PodSubnets { own: context.lease, networks: &networks, former: &[], owns_cni0 };
    let stale = subnets.stale_bridges(&interfaces);
    let finding = |bridge: &StaleBridge| {
        let severity = if bridge.blocks { Finding::error } else { Finding::warning };
        severity("pod_bridge", bridge.problem(), bridge.cure())
    };
    let findings = stale.iter().map(finding).collect();
    let is_other = |found: &Interface| stale.iter().all(|bridge| bridge.name() != found.name);
    (findings, interfaces.into_iter().filter(is_other).collect())
}
