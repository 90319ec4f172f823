//! From configuration to a lease: the store's if it answers, else the one remembered.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::config::{Backend, Config, NetConf, ResolvedConfig, Vxlan, Wireguard};
use crate::desired::{NodeSpec, VtepMacs};
use crate::node::{Host, NodeFacts};
use crate::open_store::ConfiguredStore;
use crate::reconcile::RestoredPeers;
use crate::run::fatal::Fatal;
use crate::run::instances::claims::Claims;
use crate::run::last_run::LastRun;
use crate::run::lease_task::{LeaseTask, acquire};
use crate::run::net_conf::Written;
use crate::run::state_file::{self, SavedState};
use crate::run::subnet_env;
use crate::run::wireguard_key;
use flannel_lease::Chain;
use flannel_lease::Stack;
use flannel_lease::{Backoff, Lease, LeaseAttributes, LeaseKey, LeaseRequest, StoreError, StoreErrorKind};
use flannel_nft::Ownership;
use flannel_vxlan::{Family, Kernel};
use ipnet::IpNet;

/// How long a lease store may take to answer before flanneld starts from the state file.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known once the node has a lease.
#[derive(Debug)]
pub struct Started {
    /// What no other daemon on this host may have meanwhile.
    pub(crate) claims: Claims,
    /// With what the store adds to it.
    pub(crate) config: ResolvedConfig,
    pub(crate) spec: NodeSpec,
    /// Where the network configuration may be changed.
    pub(crate) written: Written,
    pub(crate) request: LeaseRequest,
    pub(crate) lease: Lease,
    pub(crate) lease_task: LeaseTask,
    /// `None` if nothing is remembered.
    pub(crate) restored: Option<RestoredPeers>,
    /// The configurations of earlier runs that the state file names, whether the rest of it is of use or not.
    pub(crate) previous: Vec<NetConf>,
}

/// Takes a lease. Without anything to remember it waits for the store and fails with it; with something it does so
/// for [`STORE_TIMEOUT`] at most, as long as the store has not said no. `waits` is told what is waited for.
///
/// While another daemon has the subnet file or the network, this one waits for its end before it reads or writes anything.
pub(crate) async fn start(
    config: &Config,
    ownership: Ownership,
    (links, rules): (&mut flannel_vxlan::Netlink, &mut flannel_nft::Netlink),
    waits: impl Fn(&str),
) -> Result<Started, Fatal> {
    let configured = ConfiguredStore::new(&config.store).map_err(Fatal::Store)?;
    let mut claims = Claims::default();
    claims.subnet_file(&config.subnet_file, &waits).await;
    let mut inputs = StartInputs::read(config, &configured, links, &waits).await?;
    let began = Instant::now();
    claims.networks(&inputs.net_conf, &waits).await;
    let former: Vec<_> = inputs.former_net_confs.iter().flat_map(NetConf::all_networks).collect();
    let prefix = claims.tables(config, &inputs.net_conf, &former, rules, &waits).await;
    let prefix = prefix.map_err(Fatal::Tables)?;
    let key = match &inputs.net_conf.backend {
        Backend::Wireguard(_) => {
            Some(wireguard_key::settle(&config.wireguard_key_file, links).map_err(Fatal::WireguardKey)?)
        }
        _ => None,
    };
    let resolved = ResolvedConfig::new(config.clone(), ownership, prefix).with_wireguard_key(key);
    // The store has its time, however long another daemon was waited for.
    inputs.deadline += began.elapsed();
    let started = inputs.take_lease(resolved, configured, links, &waits).await?;
    Ok(Started { claims, ..started })
}

/// What a start reads before it asks for a lease.
#[derive(Debug)]
pub struct StartInputs {
    /// The store's or the file's, or the one in the state file if that cannot be read.
    net_conf: NetConf,
    /// The subnet in subnet.env.
    previous: Option<LeaseKey>,
    /// The state file, if this machine wrote it.
    saved: Option<SavedState>,
    /// The configurations of earlier runs that it names.
    former_net_confs: Vec<NetConf>,
    /// Until when the store may answer, if the state file has what a start needs.
    deadline: Instant,
}

impl StartInputs {
    /// Reads subnet.env, the state file and the network configuration. `waits` is told what is waited for.
    ///
    /// # Errors
    /// [`Fatal::Interface`].
    pub async fn read(
        config: &Config,
        configured: &ConfiguredStore,
        links: &mut impl Kernel,
        waits: &impl Fn(&str),
    ) -> Result<Self, Fatal> {
        let deadline = Instant::now() + STORE_TIMEOUT;
        let previous = previous_subnet(config);
        let interfaces = links.interfaces().map_err(|error| Fatal::Interface(error.into()))?;
        let path = state_file::path(&config.subnet_file);
        let saved = SavedState::read_own(&path, &interfaces, &config.host_name);
        let written = Written::of(configured, config);
        let net_conf = match (&config.net_conf, &saved) {
            (Some(net_conf), _) => net_conf.clone(),
            (None, None) => written.wait_until_usable(waits).await,
            // The state file does not have its PSK, and peers without it would reject this node's packets.
            (None, Some(saved)) if saved.usable_net_conf().is_none() => {
                info!(
                    "waiting for the lease store: only the network configuration there has the PSK; traffic passes as before"
                );
                written.wait_until_usable(waits).await
            }
            (None, Some(saved)) => match timeout_at(deadline, written.wait_until_usable(waits)).await {
                Ok(net_conf) => net_conf,
                Err(_late) => {
                    warn!(
                        "no usable network configuration within {STORE_TIMEOUT:?}; flanneld starts with the one in its state file, \
                         applies another when there is one, and running pods are not affected"
                    );
                    saved.net_conf.clone()
                }
            },
        };
        info!("Found network config - Backend type: {}", net_conf.backend.name());
        let former_net_confs = saved.as_ref().map(SavedState::configurations).unwrap_or_default();
        Ok(Self { net_conf, previous, saved, former_net_confs, deadline })
    }

    /// Takes a lease, or starts with the one in the state file if the store does not answer in time.
    ///
    /// # Errors
    /// [`Fatal`].
    pub async fn take_lease(
        self,
        resolved: ResolvedConfig,
        configured: ConfiguredStore,
        links: &mut impl Kernel,
        waits: &impl Fn(&str),
    ) -> Result<Started, Fatal> {
        let Self { net_conf, previous, saved, former_net_confs, deadline } = self;
        let saved = saved.filter(|saved| match saved.unfit_for(&net_conf) {
            None => true,
            Some(reason) => {
                info!(
                    "ignoring state file {}: {reason}; flanneld asks the store for a lease, nothing is needed",
                    state_file::path(&resolved.asked.subnet_file).display()
                );
                false
            }
        });
        let (v4, v6) = net_conf.networks();
        let usable = saved.and_then(|saved| Some((saved.key.within(v4, v6)?, saved)));

        let former = usable.as_ref().map(|(_, saved)| LastRun::from(saved)).unwrap_or_default();
        let ask = ask_store(resolved.clone(), &configured, &net_conf, (previous, &former), links, waits);
        // subnet.env alone is too little to go on with: upstream's daemon leaves one, and its peers and their MAC address of
        // this node are only known from the store.
        let Some((key, saved)) = usable else {
            return ask.await.map(|started| Started { previous: former_net_confs, ..started });
        };
        let problem = match timeout_at(deadline, ask).await {
            Ok(Ok(mut started)) => {
                started.restored = Some(RestoredPeers { peers: saved.peers, confirmed: true });
                return Ok(Started { previous: former_net_confs, ..started });
            }
            Ok(Err(Fatal::Store(error) | Fatal::Lease(error)))
                if error.kind != StoreErrorKind::OutOfSubnets =>
            {
                Chain(&error).to_string()
            }
            Ok(Err(fatal)) => return Err(fatal),
            Err(_late) => format!("the lease store gave no lease in {STORE_TIMEOUT:?}"),
        };
        let peers = saved.peers.len();
        warn!(
            "starting with subnet {key} and {peers} peers from the state file until the lease store answers; running pods are \
             not affected, flanneld retries: {problem}"
        );
        let started = from_state_file(resolved, configured, net_conf, key, saved, links)?;
        Ok(Started { previous: former_net_confs, ..started })
    }
}

/// A normal start: the store decides.
async fn ask_store(
    config: ResolvedConfig,
    configured: &ConfiguredStore,
    net_conf: &NetConf,
    (previous, former): (Option<LeaseKey>, &LastRun),
    links: &mut impl Kernel,
    waits: &impl Fn(&str),
) -> Result<Started, Fatal> {
    let stack = Stack::from(net_conf);
    let node_public =
        retry_while_unavailable(waits, || configured.node_public(stack)).await.map_err(Fatal::Store)?;
    let config = config.with_node_public(node_public);
    if !config.selection.is_explicit() {
        info!("Determining IP address of default interface");
    }
    let facts = former.find_facts(&config, net_conf, links)?;
    facts.log();
    log_backend(net_conf);

    let backend = net_conf.backend.name();
    let fail = |source| Fatal::Backend { backend, source };
    // Checked before a lease file is made; the MAC addresses are settled with what the store remembers.
    let spec = NodeSpec::new(&config, net_conf.clone(), facts.clone(), None).map_err(fail)?;
    let attributes = spec.attributes().map_err(|error| Fatal::Desired(error.into()))?;

    let store = retry_while_unavailable(waits, || configured.open(stack)).await.map_err(Fatal::Store)?;
    let shown = previous.map_or_else(|| "None".to_owned(), |key| key.to_string());
    info!("Created subnet manager: {} with Previous Subnet: {shown}", configured.name());
    let published = retry_while_unavailable(waits, || store.find(&attributes)).await.map_err(Fatal::Store)?;
    let renumbered = match (&published, former.key) {
        (None, Some(_)) => {
            retry_while_unavailable(waits, || former.lease(&*store)).await.map_err(Fatal::Store)?
        }
        _ => None,
    };
    let past = published.as_ref().or(renumbered.as_ref()).map(|lease| &lease.attributes);
    let facts = match past {
        Some(past) => {
            let preferred = former.prefer_published(&facts, past, &config, net_conf, links)?;
            preferred.inspect(NodeFacts::log).unwrap_or(facts)
        }
        None => facts,
    };
    let mut spec = NodeSpec::new(&config, net_conf.clone(), facts, past).map_err(fail)?;
    spec.restores_checksum = former.turned_checksum_off();
    let attributes = spec.attributes().map_err(|error| Fatal::Desired(error.into()))?;
    let mut range = spec.range();
    if past.is_none() && previous.is_none() {
        range.avoid = host_networks(&spec, links)?;
    }
    let former = former.published_for(previous);
    let mut request = LeaseRequest { attributes, previous, former, range };
    let lease = retry_while_unavailable(waits, || acquire(&*store, &request)).await.map_err(Fatal::Lease)?;
    request.attributes = lease.attributes.clone();
    spec.macs = VtepMacs::choose(net_conf, &spec.facts, &config.asked.host_name, Some(&lease.attributes));
    log_lease(&lease, published.map(|lease| lease.key), previous);
    let written = Written::of(configured, &config.asked);
    Ok(Started {
        claims: Claims::default(),
        config,
        spec,
        written,
        request,
        lease,
        lease_task: LeaseTask::Held(store),
        restored: None,
        previous: Vec::new(),
    })
}

/// The networks, addresses and gateways of this host: a new subnet of the node keeps clear of them.
fn host_networks(spec: &NodeSpec, links: &mut impl Kernel) -> Result<Vec<IpNet>, Fatal> {
    let observed = links.observe(&[]).map_err(|error| Fatal::Interface(error.into()))?;
    let networks = spec.net_conf.all_networks();
    let mut routes = |family| links.default_routes(family).map_err(|error| Fatal::Interface(error.into()));
    let (default_ipv4, default_ipv6) = (&*routes(Family::V4)?, &*routes(Family::V6)?);
    let host = Host { interfaces: &observed.interfaces, default_ipv4, default_ipv6, networks: &networks };
    Ok(host.networks_in_use(&spec.facts.interface, observed.gateways.iter().map(|(gateway, _)| *gateway)))
}

/// A start without the store: everything is as it was.
fn from_state_file(
    config: ResolvedConfig,
    configured: ConfiguredStore,
    net_conf: NetConf,
    key: LeaseKey,
    saved: SavedState,
    links: &mut impl Kernel,
) -> Result<Started, Fatal> {
    let stack = Stack::from(&net_conf);
    let config = config.with_node_public(saved.node_public);
    let former = LastRun::from(&saved);
    let facts = former.find_facts(&config, &net_conf, links)?;
    let backend = net_conf.backend.name();
    let mut spec = NodeSpec::new(&config, net_conf, facts, Some(&saved.attributes))
        .map_err(|source| Fatal::Backend { backend, source })?;
    let attributes = spec.attributes().map_err(|error| Fatal::Desired(error.into()))?;
    spec.restores_checksum = former.turned_checksum_off();
    let lease = Lease::new(key, attributes.clone(), None);
    let previous = Some(key);
    let request =
        LeaseRequest { attributes, previous, former: former.published_for(previous), range: spec.range() };
    let restored = Some(RestoredPeers { peers: saved.peers, confirmed: false });
    let written = Written::of(&configured, &config.asked);
    let lease_task = LeaseTask::Sought(configured, stack);
    let (claims, previous) = (Claims::default(), Vec::new());
    Ok(Started { claims, config, spec, written, request, lease, lease_task, restored, previous })
}

/// Asks a store until it answers: one that is away or busy at the start is waited for.
async fn retry_while_unavailable<T, F>(
    waits: &impl Fn(&str),
    mut ask: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::default();
    let mut said = String::new();
    loop {
        let problem = match ask().await {
            Err(error) if error.kind == StoreErrorKind::Unavailable => Chain(&error).to_string(),
            done => return done,
        };
        if said != problem {
            warn!(
                "waiting for a lease; devices, rules and routes stay as they are, flanneld retries with backoff: {problem}"
            );
            waits(&problem);
            said = problem;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Says where the lease comes from, in upstream's words.
fn log_lease(lease: &Lease, published: Option<LeaseKey>, previous: Option<LeaseKey>) {
    let (v4, v6) = (lease.key.v4(), lease.key.v6());
    let v4 = v4.map(|subnet| format!("ip: {subnet}"));
    let v6 = v6.map(|subnet| format!("ipv6: {subnet}"));
    let subnets = v4.into_iter().chain(v6).collect::<Vec<_>>().join(" ");
    let LeaseAttributes { public_ip, public_ipv6, .. } = &lease.attributes;
    let public = public_ip.map(IpAddr::V4).or_else(|| public_ipv6.map(IpAddr::V6));
    let public = public.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    if published == Some(lease.key) {
        info!("Found lease ({subnets}) for current IP ({public}), reusing");
    } else if previous == Some(lease.key) {
        info!("Found previously leased subnet ({subnets}), reusing");
    } else {
        info!("Allocated lease ({subnets}) to current node ({public})");
    }
}

/// Says what the configuration comes to, in upstream's words where it has some.
fn log_backend(net_conf: &NetConf) {
    if let Backend::Vxlan(vxlan) = &net_conf.backend {
        let Vxlan { vni, port, gbp, learning, direct_routing, .. } = vxlan;
        info!(
            "VXLAN config: VNI={vni} Port={port} GBP={gbp} Learning={learning} DirectRouting={direct_routing}"
        );
    }
    match &net_conf.backend {
        Backend::Ipip(ipip) => info!("IPIP config: DirectRouting={}", ipip.direct_routing),
        Backend::Udp(_) => info!(
            "backend udp (the default of a configuration without Backend) has no IPv6 and no receive offload; vxlan is \
             recommended: docs/migration.md describes the change"
        ),
        Backend::Wireguard(wireguard) => {
            let Wireguard { listen_port, listen_port_v6, mode, .. } = wireguard;
            info!(
                "WireGuard config: Mode={} ListenPort={listen_port} ListenPortV6={listen_port_v6} PSK={} \
                 PersistentKeepaliveInterval={}",
                mode.as_str(),
                if wireguard.psk.is_some() { "set" } else { "none" },
                wireguard.keepalive.map_or(0, NonZeroU16::get)
            );
        }
        Backend::Alloc | Backend::HostGw | Backend::Vxlan(_) => {}
    }
    if !net_conf.nftables_asked {
        info!("EnableNFTables is not set; flanneld uses nftables in any case");
    }
}

/// The subnet that subnet.env names; nothing if it cannot be read, as a new lease is better than none.
fn previous_subnet(config: &Config) -> Option<LeaseKey> {
    match subnet_env::read(&config.subnet_file) {
        Ok(previous) => LeaseKey::new(previous.ipv4_subnet, previous.ipv6_subnet),
        Err(error) => {
            warn!(
                "starting without the previous subnet of this node, which cannot be read; check the owner and mode of the file. If \
                 the lease store gives this node another subnet, the log says so: pods with addresses of the previous one \
                 are not reachable until they are deleted and created again: {}",
                Chain(&error)
            );
            None
        }
    }
}
