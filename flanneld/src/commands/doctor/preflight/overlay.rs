//! What becomes of devices, peers and routes.

use std::collections::BTreeSet;

use flannel_vxlan::{DeviceStep, Family, Kernel as _, Observed, Plan, Step};
use ipnet::IpNet;

use crate::commands::CommandError;
use crate::commands::context::Context;
use crate::commands::doctor::{Finding, taken_devices};
use crate::commands::upstream_daemon::State;
use crate::config::Backend;

pub(super) fn check(
    context: &Context,
    state: &State,
    links: &mut flannel_vxlan::Netlink,
) -> Result<Vec<Finding>, CommandError> {
    let mut overlay = context.overlay(links)?;
    let observed = links.observe(&overlay.links())?;
    let plan = overlay.diff(&observed);
    let mut findings = devices(&plan, &observed);
    if let Backend::Vxlan(vxlan) = &context.spec.net_conf.backend {
        findings.extend(ports(vxlan.port.get(), &observed));
    }
    let reached: BTreeSet<IpNet> = observed.routes.iter().map(|route| route.subnet).collect();

    let left_out = overlay.conflicts().map(|(subnet, conflict)| (subnet, conflict.to_string()));
    let skipped = context.leases.peers().flat_map(|(key, attributes)| {
        let reason = |subnet| context.spec.peer(key, subnet, attributes, |_| false)?.err();
        key.subnets()
            .filter_map(move |subnet| Some((subnet, reason(subnet)?.to_string())))
            .collect::<Vec<_>>()
    });
    for (subnet, why) in left_out.chain(skipped) {
        let finding = format!("flanneld does not program peer {subnet}: {why}");
        findings.push(if reached.contains(&subnet) {
            Finding::error(
                "peer",
                format!("{finding}; upstream's daemon does, so this node would lose its pods"),
                "before the swap, correct what the node of that subnet publishes (its podCIDR, --iface or --public-ip), or delete its lease",
            )
        } else {
            Finding::warning(
                "peer",
                finding,
                "correct what that node publishes, or delete its lease; upstream's daemon does not program it either",
            )
        });
    }
    let wanted: BTreeSet<IpNet> = overlay.peers().map(|peer| peer.subnet).collect();
    let stale = state.peers.keys().filter(|subnet| !wanted.contains(*subnet)).count();
    findings.extend(routes(&plan, &wanted, &reached, stale));
    Ok(findings)
}

/// Devices that are taken over, changed or recreated.
fn devices(plan: &Plan, observed: &Observed) -> Vec<Finding> {
    let mut findings = taken_devices(plan);
    let steps = |wanted: Family| {
        plan.steps().iter().filter(move |step| matches!(step, Step::Device(family, _) if *family == wanted))
    };
    for device in &observed.devices {
        let Some((_, family)) = flannel_vxlan::FlannelDevice::of_name(device.name.as_str()) else { continue };
        let is = |wanted: fn(&DeviceStep) -> bool| {
            steps(family).any(|step| matches!(step, Step::Device(_, step) if wanted(step)))
        };
        let commands: Vec<_> = steps(family).map(|step| plan.command(step)).collect();
        findings.push(if is(|step| matches!(step, DeviceStep::Delete | DeviceStep::Create(_))) {
            Finding::change(
                "device",
                format!("{} is recreated, which interrupts traffic through it", device.name),
                "`flanneld plan` with the same flags shows the steps",
            )
        } else if is(|step| !matches!(step, DeviceStep::IgnoreRouterAdvertisements)) {
            Finding::change(
                "device",
                format!("{} is changed in place: {}", device.name, commands.join("; ")),
                "nothing is needed: packets pass during the change",
            )
        } else {
            let mac = device.mac.map(|mac| format!(", MAC address {mac}")).unwrap_or_default();
            Finding::info("device", format!("{} does not change: MTU {}{mac}", device.name, device.mtu), "")
        });
    }
    findings
}

/// Devices that receive at another port than the configuration has: nodes send to the port that they have themselves.
fn ports(wanted: u16, observed: &Observed) -> Vec<Finding> {
    let other = observed.devices.iter().filter_map(|device| {
        let port = device.vxlan().map(|vxlan| vxlan.port).filter(|port| *port != wanted)?;
        Some(Finding::error(
            "port",
            format!(
                "{} uses UDP port {port} but the network configuration has {wanted}: nodes whose daemon has not been restarted since the change become unreachable",
                device.name
            ),
            "restore Backend.Port, or restart upstream's daemon on all nodes first",
        ))
    });
    other.collect()
}

/// `reached` are destinations of routes that are there; `stale` counts upstream's that lead to no peer.
fn routes(plan: &Plan, wanted: &BTreeSet<IpNet>, reached: &BTreeSet<IpNet>, stale: usize) -> Vec<Finding> {
    let kept = wanted.intersection(reached).count();
    let new = wanted.len() - kept;
    let replaced =
        plan.steps().iter().filter(|step| matches!(step, Step::PutRoute { replace: true, .. })).count();
    let stays = format!("{kept} peers stay reachable");
    let stays = match replaced {
        0 => stays,
        _ => format!("{stays}; {replaced} routes become protocol 70, each in a single step"),
    };
    let mut findings = vec![Finding::info("peer", stays, "")];
    if new > 0 {
        findings.push(Finding::change(
            "peer",
            format!("{new} peers become reachable: they have leases but no routes now"),
            "nothing is needed",
        ));
    }
    if stale > 0 {
        findings.push(Finding::info(
            "peer",
            format!("routes to {stale} nodes without a lease are removed"),
            "",
        ));
    }
    findings
}
