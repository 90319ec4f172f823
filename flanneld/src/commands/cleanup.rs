//! `flanneld cleanup`: takes away what the daemon made on this host, and nothing else.

use std::error::Error;
use std::path::Path;

use serde_json::Value;

use super::{CommandError, SOMETHING, Verdict, devices, table_prefixes};
use flannel_nft::iptables::{accept_forwarded, filter_tables, iptables_tables, remove_leftovers};
use flannel_nft::{Building, Kernel as _, Observed, Ruleset, TableId, Transaction};
use flannel_vxlan::{ConvergeError, Kernel as _, Plan};

use crate::config::{CleanupOptions, Config};
use crate::desired::rules::TablePrefix;
use crate::reconcile::foreign_rules::{UPSTREAM, USER_CHAINS};
use crate::run::instances;
use crate::run::state_file::{self, SavedState, StateFileError};
use crate::run::subnet_env;
use crate::serve::status_socket;
use crate::status::model;
use flannel_lease::Chain;

/// Removes routes and nexthops of our protocol, the VXLAN devices and tables of our names, the accept rules in others'
/// chains, and what else is asked for; prints each step as a command.
///
/// The names are upstream's too: what its daemon made under them goes as well, as ours would have taken it over.
///
/// # Errors
/// [`CommandError::Running`], or the kernel cannot be reached. The report names what the kernel does not remove.
pub async fn run(config: &Config, options: &CleanupOptions) -> Result<Verdict, CommandError> {
    let daemons = instances::daemons().map_err(CommandError::Processes)?;
    if !daemons.is_empty() && !options.force && !options.dry_run {
        let pids: Vec<_> = daemons.iter().map(ToString::to_string).collect();
        return Err(CommandError::Running(pids.join(", ")));
    }
    let mut sweep = Sweep { dry_run: options.dry_run, text: String::new(), failed: false };
    let (mut links, mut tables) = (flannel_vxlan::Netlink::open()?, flannel_nft::Netlink::open()?);
    let overlay = sweep.overlay(&mut links);
    sweep.note("routes and devices", overlay);
    let rules = sweep.rules(config.table_prefix.as_ref(), options.upstream, &mut tables);
    sweep.note("rules", rules);
    if options.files {
        sweep.files(&config.subnet_file).await;
    }
    if let Some(path) = options.cni_config.as_deref().filter(|path| names_flannel(path)) {
        sweep.remove(path);
    }
    let Sweep { mut text, failed, .. } = sweep;
    let code = match (failed, options.dry_run && !text.is_empty()) {
        (true, _) => 1,
        (false, true) => SOMETHING,
        (false, false) => 0,
    };
    if text.is_empty() {
        text.push_str("# Nothing to remove.\n");
    }
    Ok(Verdict { text, code })
}

/// Whether a file is a CNI configuration with the plugin `flannel`, alone or in a list.
fn names_flannel(path: &Path) -> bool {
    let read = std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    read.is_some_and(|config| {
        let listed = config["plugins"].as_array().into_iter().flatten();
        listed.chain([&config]).any(|plugin| plugin["type"] == "flannel")
    })
}

struct Sweep {
    dry_run: bool,
    text: String,
    failed: bool,
}

impl Sweep {
    fn overlay(&mut self, kernel: &mut flannel_vxlan::Netlink) -> Result<(), CommandError> {
        // Routes first, and only once: they need no device.
        let groups = std::iter::once(Vec::new()).chain(devices::all(kernel)?);
        for (number, wanted) in groups.enumerate() {
            let mut observed = kernel.observe(&wanted)?;
            if number > 0 {
                observed.routes.clear();
                observed.nexthops.clear();
            }
            let plan = Plan::removal(&wanted, &observed);
            self.text += &plan.to_string();
            if self.dry_run || plan.is_empty() {
                continue;
            }
            let applied = kernel.apply(&plan).map_err(ConvergeError::Apply)?;
            for refusal in &applied.refused {
                self.failed = true;
                let step = plan.steps().get(refusal.step).map(|step| plan.command(step));
                self.text += &format!("# failed: {}: {}\n", step.unwrap_or_default(), refusal.errno);
            }
        }
        Ok(())
    }

    fn rules(
        &mut self,
        prefix: Option<&TablePrefix>,
        upstream: bool,
        kernel: &mut flannel_nft::Netlink,
    ) -> Result<(), CommandError> {
        let prefixes = table_prefixes(prefix, kernel)?;
        let tables = prefixes.iter().map(TablePrefix::tables).collect::<Result<Vec<_>, _>>()?.concat();
        let ours = tables.into_iter().fold(Ruleset::new(), Ruleset::without);
        let diff = |observed: &Observed| flannel_nft::diff(&ours, observed);
        self.change(kernel, &ours.scope(), diff)?;
        let marks = prefixes.iter().map(TablePrefix::mark).collect::<Result<Vec<_>, _>>()?;
        let accepted = |observed: &Observed| {
            let mut transaction = Transaction::at(observed.generation);
            for mark in &marks {
                accept_forwarded(observed, &[], mark, &USER_CHAINS, &mut transaction);
            }
            transaction
        };
        self.change(kernel, &filter_tables(), accepted)?;
        if upstream {
            let leftovers = |observed: &Observed| {
                let mut transaction = Transaction::at(observed.generation);
                remove_leftovers(observed, UPSTREAM, &[], &mut transaction);
                transaction
            };
            self.change(kernel, &iptables_tables(), leftovers)?;
        }
        Ok(())
    }

    fn change(
        &mut self,
        kernel: &mut flannel_nft::Netlink,
        scope: &[TableId],
        plan: impl Fn(&Observed) -> Transaction<Building>,
    ) -> Result<(), CommandError> {
        let script = plan(&kernel.observe(scope)?).to_string();
        if !script.is_empty() {
            self.text += &format!("nft -f - <<'END'\n{script}END\n");
        }
        if !self.dry_run
            && let Err(error) = flannel_nft::converge_with(kernel, scope, plan)
        {
            // A running daemon may own its tables; what else there is can go all the same.
            self.failed = true;
            self.text += &format!("# failed: {}\n", Chain(&error));
        }
        Ok(())
    }

    /// Only files that flannel wrote.
    async fn files(&mut self, subnet_file: &Path) {
        if subnet_env::read(subnet_file).is_ok_and(|env| env.subnets().next().is_some()) {
            self.remove(subnet_file);
        }
        let memory = state_file::path(subnet_file);
        if matches!(SavedState::read(&memory), Ok(Some(_)) | Err(StateFileError::Version { .. })) {
            self.remove(&memory);
        }
        // It stays if a daemon was killed.
        let socket = model::socket(subnet_file);
        if status_socket::is_abandoned(&socket).await {
            self.remove(&socket);
        }
    }

    fn remove(&mut self, file: &Path) {
        let command = format!("rm {}", file.display());
        self.text.push_str(&format!("{command}\n"));
        if !self.dry_run {
            self.note(&command, std::fs::remove_file(file));
        }
    }

    /// What fails must hide neither what is done by then nor what else can go.
    fn note(&mut self, what: &str, done: Result<(), impl Error + 'static>) {
        if let Err(error) = done {
            self.failed = true;
            self.text.push_str(&format!("# failed: {what}: {}\n", Chain(&error)));
        }
    }
}
