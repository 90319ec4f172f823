//! What becomes of the rules.

use std::path::Path;

use flannel_nft::iptables::{accept_forwarded, iptables_tables, remove_leftovers};
use flannel_nft::{Kernel, Observed, Ruleset, Transaction};
use flannel_vxlan::Family;

use crate::commands::context::Context;
use crate::commands::doctor::Finding;
use crate::commands::legacy_iptables::LegacyTables;
use crate::commands::upstream_daemon::{State, chain};
use crate::commands::{CommandError, table_changes};
use crate::desired::rules::{self, RuleSpec};
use crate::reconcile::foreign_rules::{UPSTREAM, USER_CHAINS};

pub(super) fn check(
    context: &Context,
    state: &State,
    kernel: &mut impl Kernel,
) -> Result<Vec<Finding>, CommandError> {
    let spec = context.spec.rules(context.lease);
    let wanted = rules::ruleset(&spec)?;
    let ours = kernel.observe(&wanted.scope())?;
    let others = kernel.observe(&iptables_tables())?;
    let mut findings = judge(&spec, state, &wanted, &ours);
    let mut accepting = Transaction::at(others.generation);
    let accepted = if spec.forward { spec.networks() } else { Vec::new() };
    accept_forwarded(&others, &accepted, &spec.prefix.mark()?, &USER_CHAINS, &mut accepting);
    if !accepting.is_empty() {
        findings.push(Finding::info(
            "rules",
            "flanneld adds rules that accept pod traffic to iptables' FORWARD or DOCKER-USER chain, which would drop it",
            "",
        ));
    }
    let mut leftovers = Transaction::at(others.generation);
    remove_leftovers(&others, UPSTREAM, &spec.networks(), &mut leftovers);
    if !leftovers.is_empty() {
        findings.push(Finding::info(
            "rules",
            "flanneld removes the chains FLANNEL-POSTRTG and FLANNEL-FWD that upstream's daemon made with iptables-nft, once its own tables are in place",
            "",
        ));
    }
    // They cannot be read, so that upstream's may be among them.
    findings.extend(LegacyTables::read(Path::new("/")).iter().map(legacy_finding));
    Ok(findings)
}

fn legacy_finding(tables: &LegacyTables) -> Finding {
    let command = tables.command;
    Finding::change(
        "legacy",
        format!(
            "{tables}; flanneld cannot remove rules of upstream's daemon from there: they stay beside its own"
        ),
        format!("after the swap, run `{command}-legacy-save | grep -v FLANNEL | {command}-legacy-restore`"),
    )
}

fn judge(spec: &RuleSpec, state: &State, wanted: &Ruleset, ours: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    let families = [
        (Family::V4, spec.ipv4.map(|(cluster, pods)| (cluster.to_string(), pods.to_string()))),
        (Family::V6, spec.ipv6.map(|(cluster, pods)| (cluster.to_string(), pods.to_string()))),
    ];
    for (family, networks) in families {
        let Some((cluster, pods)) = networks else { continue };
        match (state.rules.masquerade.get(&family), spec.masquerade) {
            (Some(chain), false) => findings.push(Finding::change(
                "masquerade",
                format!("packets of pods of {cluster} to other networks are no longer masqueraded: chain {chain} is removed"),
                "pass the same --ip-masq as upstream's daemon, unless the change is intended",
            )),
            (None, true) => findings.push(Finding::change(
                "masquerade",
                format!("packets of pods of {cluster} to other networks are masqueraded, which no rule does now"),
                "omit --ip-masq if upstream's daemon does not have it, unless the change is intended",
            )),
            _ => {}
        }
        // Upstream's nftables mode returns here for all that is not from this node's pods; its iptables mode does not.
        let (verb, own) = (if family == Family::V4 { "ip" } else { "ip6" }, pods);
        let spares = format!("{verb} saddr != {own} {verb} daddr {cluster} return");
        let rules = ours.ruleset.tables().iter().filter_map(|table| chain(table, "postrtg"));
        if spec.masquerade
            && rules.flat_map(flannel_nft::Chain::list).any(|rule| rule.to_string().contains(&spares))
        {
            findings.push(Finding::change(
                "masquerade",
                format!(
                    "packets that other hosts send through this node to pods of {cluster} on other nodes are masqueraded, as in upstream's iptables mode; its nftables mode does not masquerade them"
                ),
                "nothing is needed, unless pods have to see the addresses of hosts that route to the pod network through a node",
            ));
        }
    }
    let is_wanted = |name: &str| wanted.tables().iter().any(|table| chain(table, name).is_some());
    for table in ours.ruleset.tables() {
        let strangers = table.chains().iter().map(|chain| chain.name().as_str());
        // Upstream's own ones.
        for name in strangers.filter(|name| !is_wanted(name) && !["postrtg", "forward"].contains(name)) {
            findings.push(Finding::change(
                "rules",
                format!("flanneld removes chain {name} of another program from table {}", table.id()),
                "move it into another table, or pass a --table-prefix",
            ));
        }
    }
    let changes = table_changes(wanted, ours).len();
    findings.push(Finding::info(
        "rules",
        match (changes, state.rules.is_iptables_mode()) {
            (0, _) => "flannel's tables do not change".to_owned(),
            (_, true) => "the nftables tables replace iptables mode without a gap".to_owned(),
            (_, false) => "flanneld changes the tables in one transaction".to_owned(),
        },
        "",
    ));
    findings
}
