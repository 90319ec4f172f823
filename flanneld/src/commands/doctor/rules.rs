//! What the nftables ruleset says: our tables, and others' chains that drop.

use super::Finding;
use flannel_nft::iptables::{forward_drops, iptables_tables, remove_leftovers};
use flannel_nft::{Kernel, Observed, Ruleset, Transaction};

use crate::commands::context::Context;
use crate::commands::{CommandError, table_changes};
use crate::desired::rules::{self, RuleSpec};
use crate::reconcile::foreign_rules::UPSTREAM;

/// Chains of others that drop what pods send.
pub(super) fn obstacles(context: &Context, kernel: &mut impl Kernel) -> Result<Vec<Finding>, CommandError> {
    let tables = kernel.tables()?;
    let everything = kernel.observe(&tables)?;
    judge_obstacles(&context.spec.rules(context.lease), &everything)
}

fn judge_obstacles(spec: &RuleSpec, everything: &Observed) -> Result<Vec<Finding>, CommandError> {
    let mut findings = Vec::new();
    let networks = spec.networks();
    for drop in forward_drops(&everything.ruleset, &spec.prefix.tables()?, &spec.prefix.mark()?, &networks) {
        let (table, chain) = (&drop.table, &drop.chain);
        let advice = if table.name.as_str() == "firewalld" {
            let sources: String = networks.iter().map(|net| format!(" --add-source={net}")).collect();
            format!("firewall-cmd --permanent --zone=trusted{sources}; firewall-cmd --reload")
        } else {
            let networks = networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            format!(
                "add a rule to chain {table} {chain} that accepts packets from {networks} before the drop"
            )
        };
        findings.push(Finding::error(
            "forward",
            format!("{drop}: it may drop pod traffic to and from other nodes, whatever flannel's own table accepts"),
            advice,
        ));
    }
    Ok(findings)
}

/// Our tables, and what upstream's daemon left.
pub(super) fn tables(context: &Context, kernel: &mut impl Kernel) -> Result<Vec<Finding>, CommandError> {
    judge_tables(&rules::ruleset(&context.spec.rules(context.lease))?, kernel)
}

fn judge_tables(wanted: &Ruleset, kernel: &mut impl Kernel) -> Result<Vec<Finding>, CommandError> {
    let mut findings = Vec::new();
    let (ours, others) = (kernel.observe(&wanted.scope())?, kernel.observe(&iptables_tables())?);
    let changes = table_changes(wanted, &ours).len();
    if changes > 0 {
        findings.push(Finding::error(
            "rules",
            format!(
                "flannel's tables differ from the desired tables by {changes} steps, so pod traffic may be dropped or not \
                 masqueraded"
            ),
            "pass doctor flanneld's flags, for example --ip-masq; if flanneld does not run, start it; `flanneld plan` shows the steps",
        ));
    }
    let mut leftovers = Transaction::at(others.generation);
    remove_leftovers(&others, UPSTREAM, &[], &mut leftovers);
    if !leftovers.is_empty() {
        findings.push(Finding::info(
            "leftovers",
            "iptables' tables contain chains or rules of upstream's flannel",
            "if upstream's daemon no longer runs, run `flanneld cleanup --upstream`, or start flanneld, which removes them",
        ));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use flannel_nft::{
        Base, Chain, ChainName, FakeKernel, Family, Policy, Table, TableId, TableName, converge,
    };

    use super::*;

    #[test]
    fn a_chain_that_drops_and_rules_that_are_missing_are_told() {
        let mut kernel = FakeKernel::default();
        let spec = RuleSpec {
            ipv4: Some(("10.244.0.0/16".parse().unwrap(), "10.244.1.0/24".parse().unwrap())),
            masquerade: true,
            ..RuleSpec::default()
        };
        let wanted = rules::ruleset(&spec).unwrap();
        let told = |kernel: &mut FakeKernel| {
            let tables: Vec<TableId> = kernel.tables().unwrap();
            let everything = kernel.observe(&tables).unwrap();
            let mut findings = judge_obstacles(&spec, &everything).unwrap();
            findings.extend(judge_tables(&wanted, kernel).unwrap());
            findings.into_iter().map(|finding| finding.check).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut kernel), ["rules"]);
        converge(&mut kernel, &wanted).unwrap();
        assert!(told(&mut kernel).is_empty());
        let drop = Base::filter_forward().policy(Policy::Drop);
        let chain = Chain::base(ChainName::new("FORWARD").unwrap(), drop);
        let foreign = Table::new(Family::Ip, TableName::new("filter").unwrap()).chain(chain);
        converge(&mut kernel, &Ruleset::new().table(foreign)).unwrap();
        assert_eq!(told(&mut kernel), ["forward"]);
    }
}
