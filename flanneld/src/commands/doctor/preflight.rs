//! `flanneld doctor --preflight`: can this program take over from upstream's daemon on this node, and what does that change?
//!
//! Reads what a start would read and compares what it would write with what the kernel, the store and subnet.env hold.
//! Changes nothing, takes no lease and sends nothing to other nodes.

mod overlay;
mod rules;

use std::path::Path;

use flannel_cni::SubnetEnv;
use flannel_lease::{BackendData, Chain, LeaseAttributes, LeaseKey, VxlanData};

use super::{Finding, Severity, Verdict, configuration, host, kernel_features, or_told, shown};
use crate::commands::context::Context;
use crate::commands::upstream_daemon::{Foreign, State, Upstream, is_listening, shown as shown_processes};
use crate::commands::{CommandError, SOMETHING};
use crate::config::{Config, Problem, read_flags};
use crate::run::processes::Process;
use crate::run::{instances, may_configure_networks, subnet_env};

/// Finds what a swap would change. Status 0: nothing that pods notice; [`SOMETHING`]: what is listed as
/// `change`; 1: do not swap.
///
/// # Errors
/// The kernel cannot be asked at all.
pub(super) async fn run(config: Config, problems: &[Problem], json: bool) -> Result<Verdict, CommandError> {
    let mut findings = configuration(problems);
    let mut links = flannel_vxlan::Netlink::open()?;
    let mut nft = flannel_nft::Netlink::open()?;
    if !may_configure_networks() {
        findings.push(Finding::error(
            "capability",
            "this process lacks the capability CAP_NET_ADMIN, which flanneld needs, and this check to read the present rules",
            "run the check as root, or grant the capability in the pod",
        ));
    }
    findings.extend(daemons(&config)?);
    if problems.is_empty() {
        let subnet_file = config.subnet_file.clone();
        match Context::gather(config, (&mut links, &mut nft)).await {
            Ok(context) => findings.extend(compare(&context, &subnet_file, &mut links, &mut nft)),
            Err(error) => findings.push(Finding::error(
                "start",
                Chain(&error).to_string(),
                "flanneld would not become ready: pass the flags of upstream's daemon, or correct the configuration",
            )),
        }
    }
    let has = |severity| findings.iter().any(|finding| finding.severity == severity);
    let (code, verdict) = if has(Severity::Error) {
        (1, "unsafe: a swap fails or interrupts traffic; each `error` gives the reason")
    } else if has(Severity::Change) {
        (SOMETHING, "safe: a swap works and makes the changes listed as `change`")
    } else {
        (0, "safe: a swap changes nothing that affects pods")
    };
    let text = shown(findings, json)?;
    Ok(Verdict { text: if json { text } else { format!("{verdict}\n{text}") }, code })
}

/// Which daemons run here, and whether this program takes the command line of the one that it replaces.
fn daemons(config: &Config) -> Result<Vec<Finding>, CommandError> {
    let mut findings = Vec::new();
    let ours = instances::with_subnet_file(&config.subnet_file).map_err(CommandError::Processes)?;
    let upstream = Upstream::find(config.healthz.as_ref())?;
    let is_a_daemons =
        upstream.is_some() || !instances::of_this_kind().map_err(CommandError::Processes)?.is_empty();
    findings.extend(health_port(config, is_a_daemons));
    match (&upstream, ours) {
        (Some(upstream), None) => {
            let read: Vec<_> =
                upstream.processes.iter().map(|process| (process, Foreign::read(process))).collect();
            findings.extend(replaced(config, upstream, &read));
        }
        (Some(upstream), Some(ours)) => findings.push(Finding::warning(
            "daemon",
            format!("flanneld already runs on this host ({ours}), and {upstream}"),
            "if upstream's daemon has the same network, stop it: each daemon reverts the changes of the other",
        )),
        (None, Some(ours)) => findings.push(Finding::info(
            "daemon",
            format!("flanneld is already running on this host ({ours}), and upstream's daemon is not: nothing is left to migrate"),
            "",
        )),
        (None, None) => findings.push(Finding::warning(
            "daemon",
            "no flanneld of upstream (flannel-io) is visible on this host, so its settings are not compared",
            "if one runs in a container, run this check in the host's PID namespace (hostPID), or pass the --healthz-port of that daemon; otherwise nothing is needed",
        )),
    }
    Ok(findings)
}

/// The daemon that has the subnet file is the one that is replaced; others have other networks.
fn replaced(
    config: &Config,
    upstream: &Upstream,
    read: &[(&Process, std::io::Result<Foreign>)],
) -> Vec<Finding> {
    let has_it = |foreign: &std::io::Result<Foreign>| {
        let flags = foreign.as_ref().ok().and_then(|foreign| read_flags(foreign).ok());
        // One whose flags are not known may be the one.
        flags.is_none_or(|flags| flags.get("subnet-file") == config.flags.get("subnet-file"))
    };
    let (replaced, others): (Vec<_>, Vec<_>) =
        read.iter().partition(|(_, foreign)| read.len() == 1 || has_it(foreign));
    let mut findings = vec![if replaced.len() > 1 {
        Finding::error(
            "daemon",
            format!("several of upstream's daemons may use this node's subnet file: {upstream}"),
            "stop all but one of them, and run the check as root so that it can read their flags",
        )
    } else if replaced.is_empty() && !read.is_empty() {
        Finding::warning(
            "daemon",
            format!("{upstream}, but none of them has --subnet-file={}", config.subnet_file.display()),
            "pass the flags of the daemon that is to be replaced",
        )
    } else {
        Finding::info("daemon", upstream.to_string(), "")
    }];
    if !others.is_empty() && !replaced.is_empty() {
        let processes = shown_processes(others.iter().map(|(process, _)| *process));
        findings.push(Finding::info(
            "daemon",
            format!("upstream's daemons of other networks keep running and keep their rules: {processes}"),
            "",
        ));
    }
    for (process, foreign) in replaced {
        findings.extend(flags(config, process.pid, foreign));
    }
    findings
}

/// Another program that has the health port. A daemon gives it up when it is stopped.
fn health_port(config: &Config, is_a_daemons: bool) -> Option<Finding> {
    let address = config.healthz.as_ref().filter(|_| !is_a_daemons)?;
    is_listening(address).then(|| {
        Finding::error(
            "port",
            format!("a program that is not flanneld listens on {address}, where flanneld serves its health"),
            "choose another --healthz-port",
        )
    })
}

/// What this program makes of upstream's command line and environment.
fn flags(config: &Config, pid: u32, foreign: &std::io::Result<Foreign>) -> Vec<Finding> {
    let foreign = match foreign {
        Ok(foreign) => foreign,
        Err(error) => {
            return vec![Finding::warning(
                "flags",
                format!("the check cannot read the flags of process {pid} and did not compare them: {error}"),
                "pass the check the same flags, or run it as root outside of a container",
            )];
        }
    };
    match read_flags(foreign) {
        Ok(theirs) => theirs
            .differences(&config.flags)
            .map(|(flag, there, here)| {
                Finding::change(
                    "flags",
                    format!("--{flag} is `{there}` for upstream's daemon and `{here}` here"),
                    "pass the check the flags that flanneld will have; if the difference is intended, nothing is needed",
                )
            })
            .collect(),
        Err(problems) => problems
            .0
            .iter()
            .map(|problem| {
                Finding::error(
                    "flags",
                    format!("this program refuses the flags of process {pid}: {problem}"),
                    "correct that flag or variable in the unit or manifest",
                )
            })
            .collect(),
    }
}

fn compare(
    context: &Context,
    subnet_file: &Path,
    links: &mut flannel_vxlan::Netlink,
    nft: &mut flannel_nft::Netlink,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(why) = &context.store_away {
        findings.push(Finding::error(
            "store",
            format!("the check cannot judge a swap without the lease store: {why}"),
            "restore the store or correct its flags, then run the check again",
        ));
        return findings;
    }
    let previous = subnet_env::read(subnet_file);
    let (file, is_file) = (subnet_file.display(), subnet_file.exists());
    match &previous {
        Ok(previous) => {
            findings.push(lease(context, previous));
            findings.extend(published(context));
            let env = context.spec.subnet_env(context.lease);
            if is_file {
                findings.extend(subnet_env(previous, &env));
            } else {
                findings.push(Finding::change(
                    "subnet_env",
                    format!("{file} does not exist: flanneld writes it"),
                    "if upstream's daemon has another --subnet-file, pass it",
                ));
            }
        }
        Err(error) => findings.push(Finding::error(
            "subnet_env",
            Chain(error).to_string(),
            "correct the file: without it the node may get another subnet",
        )),
    }
    let state = State::read(&previous.unwrap_or_default(), links, nft);
    match state {
        Ok(state) => {
            findings.extend(or_told(rules::check(context, &state, nft)));
            findings.extend(or_told(overlay::check(context, &state, links)));
        }
        Err(error) => findings.extend(or_told(Err(error))),
    }
    let facts = &context.spec.facts;
    findings.extend(host::Host::here().bridges(facts.ipv4.is_some(), facts.ipv6.is_some()));
    findings.extend(kernel_features::check(context));
    findings
}

/// Whether the node keeps its subnet.
fn lease(context: &Context, previous: &SubnetEnv) -> Finding {
    let lease = context.lease;
    let shown = |key: LeaseKey| key.subnets().map(|subnet| subnet.to_string()).collect::<Vec<_>>().join(", ");
    let is_kept = previous.ipv4_subnet.is_none_or(|subnet| lease.v4() == Some(subnet))
        && previous.ipv6_subnet.is_none_or(|subnet| lease.v6() == Some(subnet));
    match (LeaseKey::new(previous.ipv4_subnet, previous.ipv6_subnet), &context.published) {
        (Some(held), _) if !is_kept => Finding::error(
            "lease",
            format!(
                "the pods of this node use addresses of {}, but flanneld would lease {}: they would lose their network",
                shown(held),
                shown(lease)
            ),
            "pass the flags of upstream's daemon (--iface, --public-ip, --etcd-prefix); if they are right, drain the node first",
        ),
        (_, None) => Finding::change(
            "lease",
            format!("the store holds no lease of this node: flanneld publishes {}", shown(lease)),
            "if upstream's daemon runs on this host, pass its flags",
        ),
        (_, Some(_)) => Finding::info("lease", format!("{} stays", shown(lease)), ""),
    }
}

/// What other nodes learn of this one.
fn published(context: &Context) -> Vec<Finding> {
    let advice = "other nodes follow within a second; if the change is not intended, pass the flags of upstream's daemon";
    let changed: Vec<_> = match (&context.annotations, &context.published, context.spec.attributes()) {
        (Some(annotations), ..) => annotations
            .iter()
            .map(|(name, value)| format!("the annotation {name} of this node becomes `{value}`"))
            .collect(),
        (None, Some(published), Ok(attributes)) => differences(&published.attributes, &attributes),
        _ => return Vec::new(),
    };
    if changed.is_empty() {
        return vec![Finding::info(
            "published",
            "the addresses that other nodes use for this node do not change",
            "",
        )];
    }
    changed.into_iter().map(|changed| Finding::change("published", changed, advice)).collect()
}

fn differences(past: &LeaseAttributes, next: &LeaseAttributes) -> Vec<String> {
    let mac = |data: Option<&BackendData>| {
        let data: Option<VxlanData> = data.and_then(|data| data.decode().ok());
        data.map(|data| data.vtep_mac.map(|byte| format!("{byte:02x}")).join(":"))
    };
    let of = |attributes: &LeaseAttributes| {
        [
            ("public IPv4 address", attributes.public_ip.map(|ip| ip.to_string())),
            ("public IPv6 address", attributes.public_ipv6.map(|ip| ip.to_string())),
            ("backend", Some(attributes.backend_type.as_str().to_owned())),
            ("VTEP MAC address for IPv4", mac(attributes.backend_data.as_ref())),
            ("VTEP MAC address for IPv6", mac(attributes.backend_v6_data.as_ref())),
        ]
    };
    let pairs = of(past).into_iter().zip(of(next)).filter(|(there, here)| there != here);
    pairs
        .map(|((what, there), (_, here))| {
            let (there, here) = (shown_or_none(there), shown_or_none(here));
            format!("the {what} that other nodes use for this node changes from {there} to {here}")
        })
        .collect()
}

/// What new pods of the node get.
fn subnet_env(previous: &SubnetEnv, env: &SubnetEnv) -> Vec<Finding> {
    let mut findings = Vec::new();
    match (previous.mtu, env.mtu) {
        (Some(mtu), Some(new)) if mtu > new => findings.push(Finding::change(
            "mtu",
            format!(
                "FLANNEL_MTU changes from {mtu} to {new}: new pods and cni0 follow, and older pods of this node lose larger packets to the new ones"
            ),
            "drain the node before the swap, or replace its pods afterwards",
        )),
        (Some(mtu), Some(new)) if mtu < new => findings.push(Finding::change(
            "mtu",
            format!("FLANNEL_MTU changes from {mtu} to {new}: new pods get the new value, older pods keep theirs"),
            "replace the node's pods after the swap, so that all have the same MTU",
        )),
        _ => {}
    }
    if let (Some(was_on), Some(is_on)) = (previous.ip_masq, env.ip_masq)
        && was_on != is_on
    {
        findings.push(Finding::change(
            "subnet_env",
            format!(
                "FLANNEL_IPMASQ changes from {was_on} to {is_on}: the CNI plugin masquerades if it is false"
            ),
            "pass the same --ip-masq as upstream's daemon, unless the change is intended",
        ));
    }
    for ((key, there), (_, here)) in previous.values().into_iter().zip(env.values()) {
        if !key.ends_with("NETWORK") || there == here {
            continue;
        }
        let (there, here) = (shown_or_none(there), shown_or_none(here));
        findings.push(Finding::change(
            "subnet_env",
            format!("{key} changes from {there} to {here}: new pods route to it"),
            "upstream's daemon would change it too at its next start, because the network configuration changed since its last one",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::info(
            "subnet_env",
            format!("does not change; pods have an MTU of {} bytes", env.mtu.unwrap_or_default()),
            "",
        ));
    }
    findings
}

fn shown_or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| format!("{:?} {}", finding.severity, finding.finding)).collect()
    }

    #[test]
    fn what_new_pods_get_is_compared_line_by_line() {
        // As upstream writes it without IPv4.
        let upstreams = "FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let parsed = |text: &str| SubnetEnv::parse(text.as_bytes()).0;
        let env = SubnetEnv { mtu: Some(1430), ..parsed(upstreams) };
        let written = |text: &str| told(subnet_env(&parsed(text), &env));
        assert_eq!(
            written(upstreams),
            [
                "Change FLANNEL_MTU changes from 1450 to 1430: new pods and cni0 follow, and older pods of this node lose larger packets to the new ones"
            ]
        );
        let same = upstreams.replace("1450", "1430");
        assert_eq!(written(&same), ["Info does not change; pods have an MTU of 1430 bytes"]);
        let found = written(&same.replace("1430", "1400"));
        assert_eq!(
            found,
            [
                "Change FLANNEL_MTU changes from 1400 to 1430: new pods get the new value, older pods keep theirs"
            ]
        );
        let found = written(&same.replace("true", "false"));
        assert!(found[0].starts_with("Change FLANNEL_IPMASQ changes from false to true"), "{found:?}");
        let found = written(&format!("FLANNEL_NETWORK=10.244.0.0/16\n{same}"));
        assert_eq!(
            found,
            ["Change FLANNEL_NETWORK changes from 10.244.0.0/16 to none: new pods route to it"]
        );
    }

    #[test]
    fn each_part_of_what_a_node_publishes_is_compared() {
        let past = LeaseAttributes {
            public_ip: Some("192.0.2.1".parse().unwrap()),
            backend_data: Some(VxlanData::new(1, [2, 0, 0, 0, 0, 1]).to_backend_data().unwrap()),
            ..LeaseAttributes::default()
        };
        assert_eq!(differences(&past, &past), [""; 0]);
        let next = LeaseAttributes {
            public_ip: Some("192.0.2.9".parse().unwrap()),
            backend_data: None,
            ..LeaseAttributes::default()
        };
        assert_eq!(
            differences(&past, &next),
            [
                "the public IPv4 address that other nodes use for this node changes from 192.0.2.1 to 192.0.2.9",
                "the VTEP MAC address for IPv4 that other nodes use for this node changes from 02:00:00:00:00:01 to none"
            ]
        );
    }
}
