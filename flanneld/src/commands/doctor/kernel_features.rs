//! Does this kernel take what the daemon would write? Tried in an empty network namespace, which goes with its thread.

use super::Finding;
use nix::sched::{CloneFlags, unshare};

use crate::commands::CommandError;
use crate::commands::context::Context;
use crate::desired::{NodeSpec, rules};
use crate::run::fatal::thread_advice;
use flannel_lease::{Chain, LeaseKey};

pub(super) fn check(context: &Context) -> Vec<Finding> {
    // `lo` takes the place of the uplink.
    let mut spec = context.spec.clone();
    (spec.facts.interface, spec.facts.index) = ("lo".to_owned(), 1);
    let lease = context.lease;
    let untested = |what: &str, error: std::io::Error, advice: &str| {
        let problem = format!("doctor cannot test the kernel's features: it cannot {what} ({error})");
        vec![Finding::info("features", problem, advice)]
    };
    let tried = std::thread::Builder::new().spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).map(|()| (try_rules(&spec, lease), try_overlay(&spec, lease)))
    });
    match tried.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok((rules, overlay)))) => judge(rules, overlay, context.spec.net_conf.backend.name()),
        Ok(Ok(Err(errno))) => {
            untested("create a network namespace", errno.into(), "run doctor as root, outside of the pod")
        }
        Ok(Err(_panic)) => Vec::new(),
        Err(error) => {
            let advice = thread_advice(&error);
            untested("start a thread", error, advice)
        }
    }
}

fn judge(
    rules: Result<(), CommandError>,
    overlay: Result<bool, CommandError>,
    backend: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = rules {
        findings.push(Finding::error(
            "features",
            format!("this kernel does not take flanneld's nftables rules: {}", Chain(&error)),
            "enable nf_tables, nft_chain_nat, nft_masq and nft_ct, built in or as modules (Linux 3.18 or later)",
        ));
    }
    match overlay {
        Err(error) => findings.push(Finding::error(
            "features",
            format!("this kernel does not take flanneld's devices or routes: {}", Chain(&error)),
            match backend {
                "udp" => "backend udp needs ipip and fou, built in or as modules; the kernel does not load fou by itself",
                "ipip" => "backend ipip needs ipip, built in or as a module",
                "wireguard" => "backend wireguard needs wireguard, built in or as a module (Linux 5.6 or later)",
                _ => "backend vxlan needs vxlan, built in or as a module",
            },
        )),
        Ok(false) => findings.push(Finding::info(
            "features",
            "this kernel has no nexthop objects: the cost of a peer grows with the number of peers",
            "use Linux 5.3 or later; traffic is not affected",
        )),
        Ok(true) => {}
    }
    findings
}

fn try_rules(spec: &NodeSpec, lease: LeaseKey) -> Result<(), CommandError> {
    let mut kernel = flannel_nft::Netlink::open()?;
    let _changed = flannel_nft::converge(&mut kernel, &rules::ruleset(&spec.rules(lease))?)?;
    Ok(())
}

/// Whether there are nexthop objects.
fn try_overlay(spec: &NodeSpec, lease: LeaseKey) -> Result<bool, CommandError> {
    let mut kernel = flannel_vxlan::Netlink::open()?;
    let mut overlay = flannel_vxlan::Overlay::new(spec.families(lease)?);
    let report = overlay.flush(&mut kernel)?;
    match report.refused.first() {
        Some(refused) => Err(CommandError::Refused(refused.clone())),
        None => Ok(flannel_vxlan::Kernel::observe(&mut kernel, &overlay.links())?.has_nexthops),
    }
}
