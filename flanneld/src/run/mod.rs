//! The life of the daemon: look around, take a lease, keep the kernel in order, leave it as it is.

pub mod fatal;
mod file_watch;
pub mod instances;
pub(crate) mod last_run;
pub(crate) mod lease_task;
pub mod machine_identity;
pub mod net_conf;
pub mod ownership;
pub mod processes;
pub mod reload;
pub mod start;
pub mod state_file;
mod store_outages;
pub mod subnet_env;
pub mod tasks;
pub mod thread_watchdog;
pub mod wireguard_key;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::config::{Config, HealthzAddress};
use crate::reconcile::monitor;
use crate::run::fatal::Fatal;
use crate::run::instances::Claim;
use crate::run::net_conf::Written;
use crate::run::start::start;
use crate::run::tasks::{Shared, Tasks};
use crate::serve::http::{self, View};
use crate::serve::listen::listen;
use crate::serve::status_socket;
use crate::serve::systemd::{self, Notifier};
use crate::status::model;
use crate::status::query::StatusQuery;
use crate::status::readiness::{Condition, Readiness};
use crate::status::snapshot::StatusRequest;
use flannel_lease::Chain;

/// How long to wait for tasks to end after a signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// When to look again whether the place of the local socket is free.
const SOCKET_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// When to try again to listen where the daemon before this one still does.
const HEALTH_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the daemon until `shutdown` resolves. The data plane stays as it is, whatever happens.
///
/// The calling thread handles signals and answers probes, and makes no call that may block. Three others may block:
/// `leases` (the start, the lease store, the status socket), `reconcile` (the kernel) and `files` (subnet.env, the state
/// file, net-conf.json).
///
/// # Errors
/// [`Fatal`], only while starting: afterwards everything is tried again.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Fatal> {
    info!("Installing signal handlers");
    let sighups = hangups();
    info!("CLI flags config: {}", config.flags);
    if !may_configure_networks() {
        return Err(Fatal::NotPrivileged);
    }
    systemd::notify_status("taking a lease");
    // Before the lease, which may take its time: who probes must not take waiting for hanging.
    let (readiness_tx, readiness_rx) = watch::channel(Readiness::starting());
    let (requests_tx, requests_rx) = mpsc::channel(4);
    let (heartbeat_tx, heartbeat_rx) = watch::channel(Instant::now());
    let status_query = StatusQuery::new(requests_tx, heartbeat_rx);
    if let Some(address) = config.healthz.clone() {
        let view = View { readiness: readiness_rx, status_query: status_query.clone() };
        match listen(&address) {
            Ok(listener) => {
                info!("Start healthz server on {address}");
                tokio::spawn(http::serve(listener, view));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && replaces_another(&config).await => {
                info!(
                    "{address} is in use by the flanneld that this one replaces: health is served there when it ends"
                );
                tokio::spawn(serve_health_later(address, view));
            }
            Err(source) => return Err(Fatal::Healthz { address, source }),
        }
    }
    let (stop_tx, stop_rx) = oneshot::channel();
    let probes = Probes { handle: Handle::current(), readiness_tx, status_query, heartbeat_tx, requests_rx };
    let mut ended = thread_watchdog::start_thread("leases", move || work(config, probes, sighups, stop_rx))?;
    tokio::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {
            info!("shutdownHandler sent cancel signal...");
            systemd::notify(&[sd_notify::NotifyState::Stopping]);
            drop(stop_tx);
            if tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut ended).await.is_err() {
                info!("a call has not returned within {SHUTDOWN_TIMEOUT:?}: flanneld exits without waiting for it, nothing is needed");
            }
            info!("Exiting cleanly...");
            Ok(())
        }
        received = &mut ended => received.unwrap_or(Err(Fatal::Ended)),
    }
}

/// What the thread that answers probes shares with the others.
struct Probes {
    /// Its runtime.
    handle: Handle,
    readiness_tx: watch::Sender<Readiness>,
    status_query: StatusQuery,
    /// The reconciler's.
    heartbeat_tx: watch::Sender<Instant>,
    requests_rx: mpsc::Receiver<StatusRequest>,
}

/// Starts and keeps everything going, until `stop_rx` is closed.
async fn work(
    config: Config,
    probes: Probes,
    sighups: mpsc::Receiver<()>,
    mut stop_rx: oneshot::Receiver<Infallible>,
) -> Result<(), Fatal> {
    let Probes { handle, readiness_tx, status_query, heartbeat_tx, requests_rx } = probes;
    let mut links = flannel_vxlan::Netlink::open().map_err(Fatal::Kernel)?;
    let mut rules = flannel_nft::Netlink::open().map_err(Fatal::Nftables)?;
    let ownership = config.ownership.settle(&mut rules).map_err(Fatal::Ownership)?;
    let subnet_file = config.subnet_file.clone();
    let starting = start(&config, ownership, (&mut links, &mut rules), |problem| {
        systemd::notify_status(&format!("taking a lease: {problem}"));
        readiness_tx.send_modify(|readiness| readiness.set(Condition::Lease, Err(problem.to_owned())));
    });
    let started = tokio::select! {
        _ = &mut stop_rx => return Ok(()),
        started = starting => started?,
        // There is no reconciler yet.
        () = thread_watchdog::send_heartbeats(&heartbeat_tx) => return Err(Fatal::Ended),
    };
    let written = started.written.clone();
    // Before the first look at the kernel, so that nothing falls in between.
    let links_monitor = flannel_vxlan::Monitor::open(&links).map_err(Fatal::Kernel)?;
    let rules_monitor = flannel_nft::Monitor::open(&rules).map_err(Fatal::Nftables)?;
    let shared = Shared { readiness_tx: readiness_tx.clone(), heartbeat_tx, requests_rx };
    let Tasks { leases, files, watchdog, reconciler, inputs, links_tx, rules_tx, tables, reloads_tx } =
        Tasks::of(started, rules, links, shared).map_err(Fatal::Desired)?;

    let (reloading_tx, reloading_rx) = mpsc::unbounded_channel();
    let is_file = matches!(written, Written::File(_));
    let follow = reload::follow(written, sighups, reloads_tx, readiness_tx.clone(), move |done| {
        // The receiver is gone when the daemon stops.
        let _unheard = reloading_tx.send(done);
    });
    tokio::spawn(leases);
    let (follow_here, follow_in_files) = if is_file { (None, Some(follow)) } else { (Some(follow), None) };
    follow_here.map(tokio::spawn);
    let mut files_ended = thread_watchdog::start_thread("files", move || async move {
        follow_in_files.map(tokio::spawn);
        files.await;
    })?;

    tokio::spawn(serve_status_socket(model::socket(&subnet_file), status_query.clone()));
    let notifier = Notifier {
        readiness: readiness_tx.subscribe(),
        status_query,
        reloads: reloading_rx,
        watchdog: sd_notify::watchdog_enabled(),
    };
    handle.spawn(notifier.run(systemd::notify));
    handle.spawn(watchdog);
    info!("Running backend.");
    let (stop_reconciler_tx, stop_reconciler_rx) = oneshot::channel::<Infallible>();
    let mut reconciler_ended = thread_watchdog::start_thread("reconcile", move || async move {
        tokio::spawn(monitor::links(links_monitor, links_tx));
        tokio::spawn(monitor::rules(rules_monitor, tables, rules_tx));
        let stopped = async {
            let _dropped = stop_reconciler_rx.await;
        };
        reconciler.run(inputs, stopped).await;
    })?;

    tokio::select! {
        _ = &mut stop_rx => {
            drop(stop_reconciler_tx);
            let _done = reconciler_ended.await;
            // It has the last state then.
            let _done = files_ended.await;
            Ok(())
        }
        _ = &mut reconciler_ended => Err(Fatal::Ended),
        _ = &mut files_ended => Err(Fatal::Ended),
    }
}

/// Whether a daemon that this one waits for, or replaces, still runs.
async fn replaces_another(config: &Config) -> bool {
    instances::holder_of(&Claim::subnet_file(&config.subnet_file)).await.is_some()
        || instances::upstream_runs()
}

/// Serves health as soon as the address is free.
async fn serve_health_later(address: HealthzAddress, view: View) {
    loop {
        tokio::time::sleep(HEALTH_RETRY_INTERVAL).await;
        if let Ok(listener) = listen(&address) {
            info!("Start healthz server on {address}");
            return http::serve(listener, view).await;
        }
    }
}

/// Each SIGHUP, from now on; without this one would end the daemon.
fn hangups() -> mpsc::Receiver<()> {
    let (hangup_tx, hangups) = mpsc::channel(1);
    match signal(SignalKind::hangup()) {
        Ok(mut hangup) => drop(tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                // One that waits is as good as two.
                let _full = hangup_tx.try_send(());
            }
        })),
        Err(error) => info!(
            "cannot handle SIGHUP; flanneld follows changes of the configuration without it: {}",
            Chain(&error)
        ),
    }
    hangups
}

/// Tells the status on the local socket, as long as the daemon runs. It can do without, as long as another program
/// listens there: an earlier daemon that is about to end, or one with the same subnet file.
async fn serve_status_socket(path: PathBuf, status_query: StatusQuery) {
    let mut warned = false;
    loop {
        match status_socket::Socket::open(&path).await {
            Ok(socket) => socket.serve(status_query.clone()).await,
            Err(error) if !warned => {
                let path = path.display();
                warn!(
                    "`flanneld status` does not reach this daemon; traffic is not affected, flanneld retries: cannot listen on \
                     {path}: {error}"
                );
                warned = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(SOCKET_RETRY_INTERVAL).await;
    }
}

/// Whether this process has `CAP_NET_ADMIN`, bit 12 of its effective capabilities (capabilities(7)).
pub(crate) fn may_configure_networks() -> bool {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // If it cannot be told, the kernel will say.
    effective.is_none_or(|effective| effective & CAP_NET_ADMIN != 0)
}
