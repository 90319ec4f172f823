//! `flanneld plan`: what a start would change on this host.

use std::collections::BTreeSet;

use super::context::Context;
use super::{CommandError, SOMETHING, Verdict, table_changes};
use flannel_lease::codec::printable;
use flannel_nft::Kernel as _;
use flannel_nft::iptables::iptables_tables;
use flannel_vxlan::{Kernel as _, Overlay, Plan, Step};

use crate::config::{Config, NetConf};
use crate::desired::rules::{self, TablePrefix};
use crate::file;
use crate::reconcile::foreign_rules::foreign_changes;
use crate::reconcile::orphans::Orphans;
use crate::run::instances;
use crate::run::instances::claims::former_prefixes;

/// Reads configuration, leases and kernel, and prints the difference as commands. Changes nothing and takes no lease: a
/// lease file is read from a copy.
///
/// # Errors
/// What stands in the way of a start, or of reading the kernel.
pub async fn run(config: Config) -> Result<Verdict, CommandError> {
    let subnet_file = config.subnet_file.clone();
    let mut links = flannel_vxlan::Netlink::open()?;
    let mut nft = flannel_nft::Netlink::open()?;
    let mut context = Context::gather(config, (&mut links, &mut nft)).await?;
    let spec = &mut context.spec;
    let now = spec.net_conf.all_networks();
    let known: Vec<_> = context.previous.iter().flat_map(NetConf::all_networks).chain(now).collect();
    spec.former_prefixes = former_prefixes(&spec.table_prefix, &known, &subnet_file, &mut nft).await?;
    let mut text = String::new();
    if let Some(why) = &context.store_away {
        text += &format!(
            "# The lease store is unavailable. This is the plan of a start from the state file: {}\n",
            printable(why)
        );
    }
    if context.published.is_none() {
        text += &format!("# This node has no lease yet. This is the plan for subnet {}.\n", context.lease);
    }

    let spec = context.spec.rules(context.lease);
    let ruleset = rules::ruleset(&spec)?;
    let others = nft.observe(&iptables_tables())?;
    let former = spec.former.iter().map(TablePrefix::mark).collect::<Result<Vec<_>, _>>()?;
    let scripts = [
        table_changes(&ruleset, &nft.observe(&ruleset.scope())?),
        foreign_changes(&others, &spec.networks(), (&spec.prefix.mark()?, &former), (spec.forward, true)),
    ]
    .map(|transaction| transaction.to_string());
    let mut overlay = context.overlay(&mut links)?;
    let commands = overlay.diff(&links.observe(&overlay.links())?);
    let sweeps = sweeps(&context, &overlay, &mut links)?;
    let shared = !sweeps.is_empty()
        && instances::has_company_after_restart(&subnet_file).map_err(CommandError::Processes)?;
    let sweeps = if shared { Vec::new() } else { sweeps };
    let env = context.spec.subnet_env(context.lease);
    let env_stands = file::read(&subnet_file).is_ok_and(|present| env.is_in(&present));

    for script in scripts.iter().filter(|script| !script.is_empty()) {
        text += &format!("nft -f - <<'END'\n{script}END\n");
    }
    let mut written = BTreeSet::new();
    for plan in [&commands].into_iter().chain(&sweeps) {
        for step in plan.steps() {
            let command = plan.command(step);
            // Some of what is deleted has gone with something else by then, for which the daemon does not mind either.
            let may_fail = matches!(
                step,
                Step::DeleteFdbEntry(_)
                    | Step::DeleteNeighbor { .. }
                    | Step::DeleteNexthop { .. }
                    | Step::DeleteRoute { .. }
            );
            // A stale route inside the present and the previous network is in both plans.
            if written.insert(command.clone()) {
                text += &format!("{command}{}\n", if may_fail { " || true" } else { "" });
            }
        }
    }
    if shared {
        text += "# Objects of this node's previous configuration stay: another flanneld on this host may use them.\n";
    }
    for taken in commands.taken() {
        text += &format!("# {taken}\n");
    }
    if !env_stands {
        text += &format!("cat > {} <<'END'\n{env}END\n", subnet_file.display());
    }
    let stands = commands.is_empty() && sweeps.is_empty() && commands.taken().is_empty() && env_stands;
    let nothing = stands && scripts.iter().all(String::is_empty);
    if nothing {
        text += "# Nothing to change.\n";
    }
    Ok(Verdict { text, code: if nothing { 0 } else { SOMETHING } })
}

/// What a start deletes of previous configurations when the store has listed all leases; nothing while it is away.
fn sweeps(
    context: &Context,
    desired: &Overlay,
    links: &mut flannel_vxlan::Netlink,
) -> Result<Vec<Plan>, CommandError> {
    let mut sweeps = Vec::new();
    for previous in context.previous.iter().filter(|_| context.store_away.is_none()) {
        let left = Orphans::between(previous, &context.spec.net_conf_in_use());
        if !left.is_empty() {
            sweeps.push(left.plan(desired, &links.observe(&left.devices)?));
        }
    }
    sweeps.retain(|plan| !plan.is_empty());
    Ok(sweeps)
}
