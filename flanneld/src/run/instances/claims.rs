//! What a daemon claims while it starts, so that two on one host do not take turns at writing the same objects.
//!
//! Claims are taken in one order (subnet file, networks, devices, tables), so that no two daemons wait for each other.

use flannel_nft::{Kernel, NameError, ObserveError};
use ipnet::IpNet;
use std::fs;
use std::path::Path;
use tracing::{info, warn};

use crate::config::{Config, NetConf};
use crate::desired::rules::TablePrefix;
use crate::run::instances::{self, Attempt, Claim, Held, attempt, claim};
use flannel_lease::Chain;

/// The claims of this daemon, which are given up with the value.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Vec<Held>,
    /// Prefixes of tables that this daemon made before it got the present one.
    pub(crate) former_prefixes: Vec<TablePrefix>,
}

/// Why the tables' prefix could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum PrefixError {
    /// The tables there are cannot be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// None in practice.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Claims {
    /// Waits until no other daemon writes this subnet file. `waits` is told what is waited for.
    pub(crate) async fn subnet_file(&mut self, path: &Path, waits: &impl Fn(&str)) {
        if let Some(folder) = path.parent() {
            // If this is refused, so is writing the file, which is reported.
            let _refused = fs::create_dir_all(folder);
        }
        self.take(&Claim::subnet_file(path), waits).await;
    }

    /// Waits until no other daemon has one of these networks or devices.
    pub(crate) async fn networks(&mut self, net_conf: &NetConf, waits: &impl Fn(&str)) {
        let networks = net_conf.all_networks();
        for network in &networks {
            self.take(&Claim::Network(*network), waits).await;
        }
        let families = networks.into_iter().map(flannel_vxlan::Family::of_net);
        for device in net_conf.backend.devices(families).into_values() {
            self.take(&Claim::Device(device.to_string()), waits).await;
        }
    }

    /// Settles what the names of the tables begin with: the configured prefix, once no other daemon has it; else one
    /// that no other network uses. `former` are the networks of the last run.
    ///
    /// # Errors
    /// [`PrefixError`]
    pub(crate) async fn tables(
        &mut self,
        config: &Config,
        net_conf: &NetConf,
        former: &[IpNet],
        rules: &mut impl Kernel,
        waits: &impl Fn(&str),
    ) -> Result<TablePrefix, PrefixError> {
        let prefix = self.prefix(config, net_conf, former, rules, waits).await?;
        let known = [net_conf.all_networks(), former.to_vec()].concat();
        self.former_prefixes = former_prefixes(&prefix, &known, &config.subnet_file, rules).await?;
        Ok(prefix)
    }

    async fn prefix(
        &mut self,
        config: &Config,
        net_conf: &NetConf,
        former: &[IpNet],
        rules: &mut impl Kernel,
        waits: &impl Fn(&str),
    ) -> Result<TablePrefix, PrefixError> {
        if let Some(prefix) = &config.table_prefix {
            self.take(&Claim::Tables(prefix.clone()), waits).await;
            return Ok(prefix.clone());
        }
        let networks = net_conf.all_networks();
        let present = rules.observe(&TablePrefix::choices(&networks)?)?.ruleset;
        let mut candidates = TablePrefix::candidates(&networks, former, &present);
        let own = candidates.pop().unwrap_or_default();
        let mut holder = String::new();
        for prefix in candidates {
            match attempt(&Claim::Tables(prefix.clone())).await {
                Ok(Attempt::Held(held)) => {
                    self.held.push(held);
                    return Ok(prefix);
                }
                Ok(Attempt::Taken(other)) => holder = format!(" (flanneld {})", other.process()),
                Err(error) => {
                    warn!(
                        "cannot check whether another flanneld uses tables `{prefix}`; this process uses them, and traffic is not \
                         affected unless a second network runs on this host: then give each flanneld its own --table-prefix: {}",
                        Chain(&error)
                    );
                    return Ok(prefix);
                }
            }
        }
        if own != TablePrefix::default() {
            info!("using table prefix {own}: another network{holder} uses prefix flannel; nothing is needed");
        }
        self.take(&Claim::Tables(own.clone()), waits).await;
        Ok(own)
    }

    async fn take(&mut self, what: &Claim, waits: &impl Fn(&str)) {
        let waits = |problem: Option<&str>| waits(problem.unwrap_or("asking the lease store"));
        self.held.extend(claim(what, waits).await);
    }
}

/// Prefixes of tables that a daemon with this subnet file made before it got this prefix, and that no other daemon has
/// now. `known` are its networks of now and before.
///
/// # Errors
/// [`PrefixError`]
pub(crate) async fn former_prefixes(
    prefix: &TablePrefix,
    known: &[IpNet],
    subnet_file: &Path,
    rules: &mut impl Kernel,
) -> Result<Vec<TablePrefix>, PrefixError> {
    let chosen = rules.tables()?.into_iter().filter(|table| TablePrefix::chosen_for(table).is_some());
    let present = rules.observe(&chosen.collect::<Vec<_>>())?.ruleset;
    let own = instances::holder_of(&Claim::subnet_file(subnet_file)).await;
    let mut former = Vec::new();
    for prefix in prefix.former(known, &present) {
        let holder = instances::holder_of(&Claim::Tables(prefix.clone())).await;
        if holder.is_none() || holder == own {
            former.push(prefix);
        }
    }
    Ok(former)
}
