//! What a start of the daemon would find and want, without taking a lease or changing anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::CommandError;
use crate::config::{Backend, Config, NetConf, ResolvedConfig, Store};
use crate::desired::NodeSpec;
use crate::desired::rules::TablePrefix;
use crate::file;
use crate::open_store::ConfiguredStore;
use crate::run::instances::claims::PrefixError;
use crate::run::last_run::LastRun;
use crate::run::state_file::{self, SavedState};
use crate::run::subnet_env;
use crate::run::wireguard_key::{self, KeyError};
use flannel_lease::{
    Chain, Lease, LeaseEvent, LeaseKey, LeaseRequest, LeaseStore, LeaseTable, Stack, StoreError, allocate,
};
use flannel_nft::{Kernel as _, Ownership};
use flannel_vxlan::{Kernel as _, PrivateKey};

/// How long one question to the lease store may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration of a start, and the leases of all nodes.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) spec: NodeSpec,
    /// The subnets that this node would have.
    pub(super) lease: LeaseKey,
    /// What stands in the store under this node's address.
    pub(super) published: Option<Lease>,
    /// Annotations that a start would write to the node; `None` without Kubernetes.
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) leases: LeaseTable,
    /// Why the lease store could not be asked; then all of this is what is remembered.
    pub(super) store_away: Option<String>,
    /// The configurations of earlier runs that the state file names.
    pub(super) previous: Vec<NetConf>,
}

impl Context {
    /// Reads configuration, interfaces and the lease store, each once. If the store is away, what is remembered stands in
    /// for it, as at a start.
    pub(super) async fn gather(
        mut config: Config,
        (links, rules): (&mut flannel_vxlan::Netlink, &mut flannel_nft::Netlink),
    ) -> Result<Self, CommandError> {
        let ownership = config.ownership.settle(rules)?;
        let _copy = use_copy(&mut config)?;
        match Self::ask(&config, ownership, (links, rules)).await {
            Err(error) if error.is_store_away() => match read_state_file(&config, links)? {
                Some(saved) => {
                    let why = Chain(&error).to_string();
                    Self::from_state_file(config, ownership, saved, (links, rules), why)
                }
                None => Err(error),
            },
            result => result,
        }
    }

    async fn ask(
        config: &Config,
        ownership: Ownership,
        (links, rules): (&mut flannel_vxlan::Netlink, &mut flannel_nft::Netlink),
    ) -> Result<Self, CommandError> {
        let store = ConfiguredStore::new(&config.store)?;
        let net_conf = match &config.net_conf {
            Some(net_conf) => net_conf.clone(),
            None => {
                let text = answer(store.net_conf()).await?;
                NetConf::parse(text.unwrap_or_default().as_bytes())?
            }
        };
        let stack = Stack::from(&net_conf);
        let node_public = answer(store.node_public(stack)).await?;
        let saved = read_state_file(config, links)?;
        let table_prefix = table_prefix(config, &net_conf, saved.as_ref(), rules)?;
        let config = ResolvedConfig::new(config.clone(), ownership, table_prefix)
            .with_wireguard_key(wireguard_key(config, &net_conf, links)?)
            .with_node_public(node_public);
        let last = saved.as_ref().map(LastRun::from).unwrap_or_default();
        let facts = last.find_facts(&config, &net_conf, links)?;
        let spec = NodeSpec::new(&config, net_conf.clone(), facts.clone(), None)?;
        let open = answer(store.open(stack)).await?;
        let published = answer(open.find(&spec.attributes()?)).await?;
        let attributes = published.as_ref().map(|lease| &lease.attributes);
        let facts = match attributes {
            Some(published) => {
                last.prefer_published(&facts, published, &config, &net_conf, links)?.unwrap_or(facts)
            }
            None => facts,
        };
        let spec = NodeSpec::new(&config, net_conf, facts, attributes)?;
        let mut leases = list(&*open).await?;

        let env = subnet_env::read(&config.asked.subnet_file).ok();
        let previous = env.and_then(|env| LeaseKey::new(env.ipv4_subnet, env.ipv6_subnet));
        let request = LeaseRequest {
            attributes: spec.attributes()?,
            previous,
            former: last.published_for(previous),
            range: spec.range(),
        };
        let (lease, annotations) = match answer(store.predict_lease(stack, &request)).await? {
            Some((lease, annotations)) => (lease, Some(annotations)),
            None => (allocate::choose(leases.peers(), &[], &request, &mut rand::rng())?.key, None),
        };
        let _own = leases.set_own(Some(lease));
        let previous = saved.as_ref().map(SavedState::configurations).unwrap_or_default();
        Ok(Self { spec, lease, published, annotations, leases, store_away: None, previous })
    }

    fn from_state_file(
        config: Config,
        ownership: Ownership,
        saved: SavedState,
        (links, rules): (&mut flannel_vxlan::Netlink, &mut flannel_nft::Netlink),
        why: String,
    ) -> Result<Self, CommandError> {
        let net_conf = config.net_conf.clone().or_else(|| saved.usable_net_conf().cloned());
        let Some(net_conf) = net_conf else {
            let problem = "it does not have the PSK".to_owned();
            return Err(CommandError::StateFile { cause: why, problem });
        };
        if let Some(problem) = saved.unfit_for(&net_conf) {
            return Err(CommandError::StateFile { cause: why, problem });
        }
        let (v4, v6) = net_conf.networks();
        let lease = saved.key.within(v4, v6).unwrap_or(saved.key);
        let table_prefix = table_prefix(&config, &net_conf, Some(&saved), rules)?;
        let key = wireguard_key(&config, &net_conf, links)?;
        let config = ResolvedConfig::new(config, ownership, table_prefix)
            .with_wireguard_key(key)
            .with_node_public(saved.node_public);
        let facts = LastRun::from(&saved).find_facts(&config, &net_conf, links)?;
        let spec = NodeSpec::new(&config, net_conf, facts, Some(&saved.attributes))?;
        let mut leases = LeaseTable::new(Some(lease));
        for (key, attributes) in saved.peers {
            let attributes = Arc::unwrap_or_clone(attributes);
            let _changed = leases.apply(LeaseEvent::Upsert(Lease::new(key, attributes, None)));
        }
        let published = Some(Lease::new(lease, saved.attributes, None));
        let annotations = None;
        Ok(Self { spec, lease, published, annotations, leases, store_away: Some(why), previous: Vec::new() })
    }

    /// The overlay that there should be, with all its peers.
    pub(super) fn overlay(
        &self,
        links: &mut impl flannel_vxlan::Kernel,
    ) -> Result<flannel_vxlan::Overlay, CommandError> {
        let mut overlay = flannel_vxlan::Overlay::new(self.spec.families(self.lease)?);
        overlay.keep_unknown(self.store_away.is_some());
        let interface = self.spec.facts.index;
        let mut on_link = |address| {
            let way = links.route_to(address).ok().flatten();
            way.is_some_and(|way| way.gateway.is_none() && way.interface == interface)
        };
        for (key, attributes) in self.leases.peers() {
            for subnet in key.subnets() {
                if self.leases.holder(subnet) == Some(key)
                    && let Some(Ok(peer)) = self.spec.peer(key, subnet, attributes, &mut on_link)
                {
                    // One that is kept out is so in the daemon too.
                    let _conflict = overlay.set_peer_since(peer, self.leases.created(key));
                }
            }
        }
        Ok(overlay)
    }
}

/// The table prefix that a start would settle on.
fn table_prefix(
    config: &Config,
    net_conf: &NetConf,
    last: Option<&SavedState>,
    rules: &mut flannel_nft::Netlink,
) -> Result<TablePrefix, PrefixError> {
    if let Some(prefix) = &config.table_prefix {
        return Ok(prefix.clone());
    }
    let networks = net_conf.all_networks();
    let former: Vec<_> =
        last.map(SavedState::configurations).iter().flatten().flat_map(NetConf::all_networks).collect();
    let present = rules.observe(&TablePrefix::choices(&networks)?)?.ruleset;
    Ok(TablePrefix::candidates(&networks, &former, &present).into_iter().next().unwrap_or_default())
}

/// The private key that a start would use with backend `wireguard`: a new one if there is none yet.
fn wireguard_key(
    config: &Config,
    net_conf: &NetConf,
    links: &mut flannel_vxlan::Netlink,
) -> Result<Option<PrivateKey>, KeyError> {
    let is_needed = matches!(net_conf.backend, Backend::Wireguard(_));
    is_needed.then(|| wireguard_key::find(&config.wireguard_key_file, links)).transpose()
}

/// Puts a copy of a lease file in its place: even reading one would drop expired leases, and make the file if absent.
fn use_copy(config: &mut Config) -> Result<Option<TempDir>, CommandError> {
    let Store::Sqlite { path, .. } = &mut config.store else { return Ok(None) };
    let beside = file::directory_of(path);
    if path.is_dir() || !beside.is_dir() {
        // Opening it will say so, as at a start, and make nothing.
        return Ok(None);
    }
    // Our image has no /tmp, and the daemon must be able to write to the directory of its leases in any case.
    let folder = tempfile::tempdir().or_else(|_absent| tempfile::tempdir_in(beside)).map_err(|source| {
        CommandError::File { operation: "copy the lease file into", path: beside.to_owned(), source }
    })?;
    let copy = folder.path().join("leases.db");
    if path.exists() {
        flannel_lease::sqlite::copy(path, &copy, STORE_TIMEOUT)?;
    }
    *path = copy;
    Ok(Some(folder))
}

async fn list(store: &dyn LeaseStore) -> Result<LeaseTable, CommandError> {
    let (events_in, mut events) = mpsc::channel(1024);
    let mut table = LeaseTable::new(None);
    let listed = async {
        while let Some(event) = events.recv().await {
            let _changed = table.apply(event);
            if table.synced() {
                return;
            }
        }
    };
    let told = timeout(STORE_TIMEOUT, async {
        tokio::select! {
            () = store.watch(events_in) => {}
            () = listed => {}
        }
    });
    told.await.map_err(|_late| {
        let cause = store.health().borrow().last_error.clone();
        CommandError::StoreSilent(cause.unwrap_or_else(|| format!("no listing within {STORE_TIMEOUT:?}")))
    })?;
    Ok(table)
}

/// What the store answers in time.
async fn answer<T>(question: impl Future<Output = Result<T, StoreError>>) -> Result<T, CommandError> {
    let late = |_late| CommandError::StoreSilent(format!("no answer within {STORE_TIMEOUT:?}"));
    Ok(timeout(STORE_TIMEOUT, question).await.map_err(late)??)
}

/// What an earlier run on this machine remembered, as a start reads it.
fn read_state_file(
    config: &Config,
    links: &mut flannel_vxlan::Netlink,
) -> Result<Option<SavedState>, flannel_vxlan::ObserveError> {
    let interfaces = links.interfaces()?;
    Ok(SavedState::read_own(&state_file::path(&config.subnet_file), &interfaces, &config.host_name))
}
