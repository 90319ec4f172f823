//! The life of the daemon: look around, take a lease, keep the kernel in order, leave it as it is.

use std::error::Error;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::config::{Backend, Config, NetConf, Vxlan};
use crate::desired::Setting;
use crate::error::Chain;
use crate::health::{self, Readiness};
use crate::lease::open::ConfiguredStore;
use crate::lease::{
    Backoff, Lease, LeaseAttributes, LeaseKey, LeaseRequest, LeaseStore, StoreError, StoreErrorKind,
};
use crate::monitor;
use crate::node::{NodeError, Stack};
use crate::reconcile::{Inputs, Outputs, Reconciler, find_facts, tell_systemd};
use crate::subnet_env;

/// Lease events that may wait for the reconciler; the store waits beyond that.
const EVENTS: usize = 4096;
/// How long to wait for tasks to end after a signal.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the daemon could not start. Nothing was changed in the kernel, unless said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// Not allowed to configure the network.
    #[error("flanneld needs the capability CAP_NET_ADMIN: run it as root, or grant it in the unit or pod")]
    NotPrivileged,
    /// The kernel offers no way to talk about routes, or about rules.
    #[error("cannot reach the kernel")]
    Kernel(#[source] flannel_vxlan::OpenError),
    /// No nftables.
    #[error("cannot reach nftables in the kernel")]
    Nftables(#[source] Box<dyn Error + Send + Sync>),
    /// No interface to send through.
    #[error("Failed to find any valid interface to use")]
    Interface(#[source] Box<dyn Error + Send + Sync>),
    /// The backend does not work on this node.
    #[error("cannot use backend `{backend}` on this node")]
    Backend {
        /// `Backend.Type`.
        backend: &'static str,
        /// Why.
        #[source]
        source: NodeError,
    },
    /// The lease store cannot be used.
    #[error("Failed to create SubnetManager")]
    Store(#[source] StoreError),
    /// No lease.
    #[error("Error registering network: failed to acquire lease")]
    Lease(#[source] StoreError),
    /// The setting cannot be written to the kernel.
    #[error("cannot derive rules and devices from the configuration")]
    Desired(#[source] Box<dyn Error + Send + Sync>),
    /// The health port.
    #[error("cannot serve health on {address}: choose another --healthz-ip or --healthz-port")]
    Healthz {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The task that writes to the kernel ended by itself.
    #[error("the reconciler ended unexpectedly; see the log")]
    Ended,
}

/// Runs the daemon until `shutdown` resolves. The data plane stays as it is, whatever happens.
///
/// # Errors
/// [`Fatal`], only while starting: afterwards everything is tried again.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Fatal> {
    info!("CLI flags config: {}", config.flags);
    if !may_configure_networks() {
        return Err(Fatal::NotPrivileged);
    }
    let mut links = flannel_vxlan::Netlink::open().map_err(Fatal::Kernel)?;
    let rules = flannel_nft::Netlink::open().map_err(|error| Fatal::Nftables(error.into()))?;

    tokio::pin!(shutdown);
    let started = tokio::select! {
        () = &mut shutdown => {
            info!("Exiting cleanly...");
            return Ok(());
        }
        started = start(&config, &mut links) => started?,
    };
    let Started { config, store, setting, request, lease } = started;

    let (readiness_in, readiness) = watch::channel(Readiness::starting());
    if let Some(address) = config.healthz {
        let listener = health::listen(address).await.map_err(|source| Fatal::Healthz { address, source })?;
        info!("Start healthz server on {address}");
        tokio::spawn(health::serve(listener, readiness));
    }

    let (events_in, leases) = mpsc::channel(EVENTS);
    let (own_in, own) = watch::channel(lease.clone());
    let (attributes, attributes_out) = watch::channel(request.attributes.clone());
    let (links_in, links_out) = mpsc::channel(16);
    let (rules_in, rules_out) = mpsc::channel(1);
    tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.watch(events_in).await }
    });
    tokio::spawn(keep_lease(Arc::clone(&store), request, attributes_out, own_in));
    tokio::spawn(note_store_health(store.health(), readiness_in.clone()));
    tokio::spawn(tell_ready(store, readiness_in.subscribe()));

    let outputs = Outputs { attributes, readiness: readiness_in };
    // Before the first look at the kernel, so that nothing falls in between.
    let links_monitor = flannel_vxlan::Monitor::open(&links).map_err(Fatal::Kernel)?;
    let rules_monitor =
        flannel_nft::Monitor::open(&[rules.port()]).map_err(|error| Fatal::Nftables(error.into()))?;
    let reconciler =
        Reconciler::new(config, setting, lease, rules, links, outputs).map_err(Fatal::Desired)?;
    let (stop, stopped) = oneshot::channel();
    let (ended_in, mut ended) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("reconcile".to_owned())
        .spawn(move || {
            let inputs = Inputs { leases, own, links: links_out, rules: rules_out };
            let monitors = async {
                tokio::spawn(monitor::links(links_monitor, links_in));
                tokio::spawn(monitor::rules(rules_monitor, rules_in));
            };
            reconcile(reconciler, inputs, monitors, stopped);
            drop(ended_in);
        })
        .map_err(|source| Fatal::Desired(source.into()))?;

    tokio::select! {
        () = &mut shutdown => {
            info!("shutdownHandler sent cancel signal...");
            tell_systemd(sd_notify::NotifyState::Stopping);
            drop(stop);
            let _late = tokio::time::timeout(DRAIN, &mut ended).await;
            info!("Exiting cleanly...");
            Ok(())
        }
        _ = &mut ended => Err(Fatal::Ended),
    }
}

/// What is known once the node has a lease.
struct Started {
    /// With what the store adds to it.
    config: Config,
    store: Arc<dyn LeaseStore>,
    setting: Setting,
    request: LeaseRequest,
    lease: Lease,
}

async fn start(config: &Config, links: &mut flannel_vxlan::Netlink) -> Result<Started, Fatal> {
    let configured = ConfiguredStore::new(&config.store).map_err(Fatal::Store)?;
    let net_conf = match &config.net_conf {
        Some(net_conf) => net_conf.clone(),
        None => fetch_net_conf(&configured).await,
    };
    info!("Found network config - Backend type: {}", net_conf.backend.name());
    let stack = Stack::from(&net_conf);
    let mut config = config.clone();
    let (public_ip, public_ipv6) = insist(|| configured.node_public(stack)).await.map_err(Fatal::Store)?;
    config.selection.public_ipv4 = public_ip.or(config.selection.public_ipv4);
    config.selection.public_ipv6 = public_ipv6.or(config.selection.public_ipv6);
    let facts = find_facts(&config, stack, links).map_err(Fatal::Interface)?;
    facts.log();
    log_backend(&net_conf, facts.mtu);

    let backend = net_conf.backend.name();
    let fail = |source| Fatal::Backend { backend, source };
    // Checked before a lease file is made; the MAC addresses are settled with what the store remembers.
    let setting = Setting::new(&config, net_conf.clone(), facts.clone(), None).map_err(fail)?;
    let attributes = setting.attributes().map_err(|error| Fatal::Desired(error.into()))?;
    let previous = previous_subnet(&config);

    let store = insist(|| configured.open(stack)).await.map_err(Fatal::Store)?;
    let shown = previous.map_or_else(|| "None".to_owned(), |key| key.to_string());
    info!("Created subnet manager: {} with Previous Subnet: {shown}", configured.name());
    let published = insist(|| store.find(&attributes)).await.map_err(Fatal::Store)?;
    let published = published.as_ref().map(|lease| &lease.attributes);
    let setting = Setting::new(&config, net_conf, facts, published).map_err(fail)?;
    let attributes = setting.attributes().map_err(|error| Fatal::Desired(error.into()))?;
    let request = LeaseRequest { attributes, previous, range: setting.range() };
    let lease = insist(|| store.acquire(&request)).await.map_err(Fatal::Lease)?;
    info!(subnet = %lease.key, "lease acquired");
    Ok(Started { config, store, setting, request, lease })
}

/// Asks a store until it answers: one that is away or busy at the start is waited for.
async fn insist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, StoreError>
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
            warn!("{problem}; will try again");
            said = problem;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Says what the configuration comes to, in upstream's words where it has some.
fn log_backend(net_conf: &NetConf, link_mtu: u32) {
    if let Backend::Vxlan(vxlan) = &net_conf.backend {
        let Vxlan { vni, port, gbp, learning, direct_routing, .. } = vxlan;
        info!(
            "VXLAN config: VNI={vni} Port={port} GBP={gbp} Learning={learning} DirectRouting={direct_routing}"
        );
        if let Some(mtu) = vxlan.mtu.filter(|mtu| u32::from(*mtu) > link_mtu) {
            warn!("Backend.MTU {mtu} is more than the interface carries; using its {link_mtu}");
        }
    }
    if !net_conf.nftables_asked {
        info!("EnableNFTables is not set; rules are made with nftables all the same");
    }
}

/// Waits for a usable configuration, as upstream does: it may be written, or corrected, after this daemon starts.
async fn fetch_net_conf(store: &ConfiguredStore) -> NetConf {
    let mut backoff = Backoff::default();
    loop {
        let problem = match store.net_conf().await {
            Ok(text) => match NetConf::parse(text.unwrap_or_default().as_bytes()) {
                Ok(net_conf) => return net_conf,
                Err(error) => Chain(&error).to_string(),
            },
            Err(error) => Chain(&error).to_string(),
        };
        warn!("Couldn't fetch network config: {problem}; will try again");
        tokio::time::sleep(backoff.next()).await;
    }
}

/// The subnet that subnet.env names; nothing if it cannot be read, as a new lease is better than none.
fn previous_subnet(config: &Config) -> Option<LeaseKey> {
    match subnet_env::Previous::read(&config.subnet_file) {
        Ok(previous) => LeaseKey::new(previous.ipv4_subnet, previous.ipv6_subnet),
        Err(error) => {
            warn!("going on without a previous subnet: {}", Chain(&error));
            None
        }
    }
}

/// Holds the lease, publishes what changes, and takes a new one if it is positively lost.
async fn keep_lease(
    store: Arc<dyn LeaseStore>,
    mut request: LeaseRequest,
    mut attributes: watch::Receiver<LeaseAttributes>,
    own: watch::Sender<Lease>,
) {
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            lost = store.hold() => {
                error!("{lost}; keeping the data plane and asking for a lease again");
                request.previous = Some(own.borrow().key);
                match store.acquire(&request).await {
                    Ok(lease) => {
                        backoff.reset();
                        own.send_replace(lease);
                    }
                    Err(error) => {
                        warn!("{}", Chain(&error));
                        tokio::time::sleep(backoff.next()).await;
                    }
                }
            }
            changed = attributes.changed() => {
                if changed.is_err() { return pending().await }
                request.attributes = attributes.borrow_and_update().clone();
                while let Err(error) = store.update(&request.attributes).await {
                    warn!("cannot publish this node's new addresses yet: {}", Chain(&error));
                    if error.kind == StoreErrorKind::NotHeld { break }
                    tokio::time::sleep(backoff.next()).await;
                }
                backoff.reset();
            }
        }
    }
}

/// Tells the store once this node is ready for pods.
async fn tell_ready(store: Arc<dyn LeaseStore>, mut readiness: watch::Receiver<Readiness>) {
    if readiness.wait_for(Readiness::is_ready).await.is_ok() {
        store.ready();
    }
}

async fn note_store_health(
    mut health: watch::Receiver<crate::lease::StoreHealth>,
    readiness: watch::Sender<Readiness>,
) {
    while health.changed().await.is_ok() {
        let trouble = health.borrow_and_update().last_error.clone();
        readiness.send_if_modified(|readiness| {
            let before = readiness.clone();
            readiness.note("store", trouble);
            *readiness != before
        });
    }
}

/// The reconciler's own thread: its work is short but synchronous, and health must be answered meanwhile.
fn reconcile(
    reconciler: Reconciler<flannel_nft::Netlink, flannel_vxlan::Netlink>,
    inputs: Inputs,
    monitors: impl Future<Output = ()>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start the reconciler: {}", Chain(&error));
            return;
        }
    };
    runtime.block_on(async {
        monitors.await;
        reconciler
            .run(inputs, async {
                let _dropped = stopped.await;
            })
            .await;
    });
}

/// Whether this process has `CAP_NET_ADMIN`, bit 12 of its effective capabilities (capabilities(7)).
fn may_configure_networks() -> bool {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // If it cannot be told, the kernel will say.
    effective.is_none_or(|effective| effective & CAP_NET_ADMIN != 0)
}
