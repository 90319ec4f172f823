//! `flanneld doctor`: what keeps pods from reaching each other, and what to do about it.

mod collect;
mod host;
mod kernel_features;
mod leases;
mod pod_bridge;
mod preflight;
mod probe;
mod rules;
mod upstream;
mod wireguard;

use std::fmt;

use flannel_lease::codec::printable;

use super::context::Context;
use super::{CommandError, Verdict};
use flannel_vxlan::{Family, FlannelDevice, Kernel as _};
use serde::Serialize;

use super::upstream_daemon::Upstream;
use crate::config::{Backend, Config, DoctorOptions, Problem, Store};
use crate::desired::conflict_advice;
use crate::run::instances;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Good to know.
    Info,
    /// May hurt.
    Warning,
    /// What a swap from upstream's daemon changes for pods; only in a pre-flight check.
    Change,
    /// Does hurt.
    Error,
}

/// One thing that was found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Finding {
    severity: Severity,
    /// What was looked at; one word, for scripts.
    check: &'static str,
    /// What is the case.
    finding: String,
    /// What to do.
    advice: String,
}

impl Finding {
    fn info(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Info, check, finding: finding.into(), advice: advice.into() }
    }

    fn warning(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::info(check, finding, advice) }
    }

    fn change(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Change, ..Self::info(check, finding, advice) }
    }

    fn error(check: &'static str, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::info(check, finding, advice) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Change => "change",
            Severity::Error => "error",
        };
        write!(f, "{severity:7} {}: {}", self.check, printable(&self.finding))?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n        {}", self.advice) }
    }
}

/// Looks at everything, whatever else fails; the worst finding decides the status.
///
/// # Errors
/// The kernel cannot be asked at all.
pub async fn run(
    config: Config,
    problems: &[Problem],
    options: &DoctorOptions,
) -> Result<Verdict, CommandError> {
    if options.preflight {
        return preflight::run(config, problems, options.json).await;
    }
    if let Some(to) = &options.collect {
        return collect::run(config, problems, to).await;
    }
    let mut findings = configuration(problems);
    let mut links = flannel_vxlan::Netlink::open()?;
    let mut nft = flannel_nft::Netlink::open()?;
    let host = host::Host::here();
    let upstream = Upstream::find_alone(&config.subnet_file, config.healthz.as_ref())?;
    if let Some(upstream) = &upstream {
        findings.push(Finding::info(
            "daemon",
            upstream.to_string(),
            "`flanneld doctor --preflight` with its flags reports what a swap for this program changes",
        ));
    } else if instances::daemons().map_err(CommandError::Processes)?.is_empty() {
        findings.push(Finding::warning(
            "daemon",
            "no flanneld runs on this host: existing traffic passes, but nothing is updated or repaired",
            "start flanneld",
        ));
    }
    findings.extend(host.check(&config));
    if problems.is_empty() {
        let subnet_file = config.subnet_file.clone();
        let owns_cni0 = matches!(config.store, Store::Kubernetes(_));
        match Context::gather(config, (&mut links, &mut nft)).await {
            Ok(context) => {
                findings.extend(context.store_away.as_ref().map(|why| {
                    Finding::error(
                        "store",
                        format!("the lease store is unavailable; doctor uses the state file instead: {why}"),
                        "restore the lease store; until then this node does not see changes of other nodes, and traffic continues",
                    )
                }));
                let (stale, others) = pod_bridge::check(&context, links.interfaces()?, owns_cni0);
                findings.extend(stale);
                findings.extend(host.around(&context, &others, &subnet_file));
                findings.extend(leases::check(&context));
                findings.extend(or_told(rules::obstacles(&context, &mut nft)));
                if upstream.is_some() {
                    findings.extend(or_told(upstream::check(&context, &subnet_file, &mut links, &mut nft)));
                } else {
                    findings.extend(or_told(rules::tables(&context, &mut nft)));
                    findings.extend(or_told(kernel(&context, &mut links)));
                }
                findings.extend(wireguard::check(&context, &mut links));
                findings.extend(kernel_features::check(&context));
                findings.extend(probe::check(&context).await);
            }
            Err(error) => findings.push(Finding::error(
                "start",
                flannel_lease::Chain(&error).to_string(),
                "flanneld cannot start with these flags: pass doctor the flags of flanneld, or correct them",
            )),
        }
    }
    let is_hurt = findings.iter().any(|finding| finding.severity == Severity::Error);
    let mut text = shown(findings, options.json)?;
    if text.is_empty() {
        "Nothing found.\n".clone_into(&mut text);
    }
    Ok(Verdict { text, code: u8::from(is_hurt) })
}

/// What is wrong with net-conf.json.
fn configuration(problems: &[Problem]) -> Vec<Finding> {
    let advice = "correct the file that --net-config-path names";
    problems.iter().map(|problem| Finding::error("configuration", problem.to_string(), advice)).collect()
}

/// The findings, the worst first.
fn shown(mut findings: Vec<Finding>, json: bool) -> Result<String, serde_json::Error> {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(if json {
        format!("{}\n", serde_json::to_string_pretty(&findings)?)
    } else {
        findings.iter().map(|finding| format!("{finding}\n")).collect()
    })
}

/// What was found, or that it could not be looked at.
fn or_told(looked: Result<Vec<Finding>, CommandError>) -> Vec<Finding> {
    looked.unwrap_or_else(|error| {
        vec![Finding::error(
            "doctor",
            format!("some checks could not run: {}", flannel_lease::Chain(&error)),
            "run doctor as root, on the host or with the privileges of flanneld's pod",
        )]
    })
}

/// Devices of other programs that have a name that flanneld's need.
fn taken_devices(plan: &flannel_vxlan::Plan) -> Vec<Finding> {
    let advice = "remove or rename it, or set another Backend.VNI";
    plan.taken().iter().map(|taken| Finding::error("device", taken.to_string(), advice)).collect()
}

/// Findings from a plan of the overlay and from the device.
fn kernel(context: &Context, links: &mut flannel_vxlan::Netlink) -> Result<Vec<Finding>, CommandError> {
    let mut overlay = context.overlay(links)?;
    let observed = links.observe(&overlay.links())?;
    let plan = overlay.diff(&observed);
    let mut findings = taken_devices(&plan);
    if !plan.is_empty() {
        findings.push(Finding::error(
            "kernel",
            format!(
                "devices, peers and routes differ from the desired state by {} steps, so pods of other nodes may be unreachable",
                plan.steps().len()
            ),
            "if flanneld runs, it makes these changes by itself: run this again after a minute, and see its log if they remain; \
             if it does not run, start it. `flanneld plan` with the same flags shows the steps",
        ));
    }
    findings.extend(overlay.conflicts().map(|(subnet, conflict)| {
        Finding::error(
            "peer",
            format!("peer {subnet} is not programmed: {conflict}"),
            conflict_advice(&conflict),
        )
    }));
    let facts = &context.spec.facts;
    let is_behind_nat = |family| match family {
        Family::V4 => facts.ipv4.is_some_and(|own| !own.public_is_local),
        Family::V6 => facts.ipv6.is_some_and(|own| !own.public_is_local),
    };
    if matches!(context.spec.net_conf.backend, Backend::Vxlan(_)) {
        let offloading = observed.devices.iter().filter(|device| device.tx_checksum == Some(true));
        for device in offloading.filter(|device| {
            FlannelDevice::of_name(device.name.as_str()).is_some_and(|(_, family)| is_behind_nat(family))
        }) {
            findings.push(Finding::warning(
                "checksum",
                format!(
                    "{} leaves checksums to the network card although the public address is behind NAT: packets may arrive with wrong checksums",
                    device.name
                ),
                "set \"TxChecksumOffload\": \"off\" in the backend's configuration",
            ));
        }
    }
    Ok(findings)
}
