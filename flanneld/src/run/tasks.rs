//! The tasks of a daemon that has a lease, and the channels between them.

use std::fmt;
use std::pin::Pin;
use std::time::Instant;

use flannel_lease::{LeaseAttributes, StoreHealth};
use flannel_nft::TableId;
use flannel_vxlan::Notification;
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::desired::NodeSpec;
use crate::reconcile::monitor::ForeignCommits;
use crate::reconcile::{DesiredError, Inputs, Outputs, Reconciler};
use crate::run::lease_task::LeaseSinks;
use crate::run::reload::Reload;
use crate::run::start::Started;
use crate::run::thread_watchdog::{Thread, send_heartbeats, watch_threads};
use crate::run::{state_file, subnet_env};
use crate::status::counters::Counters;
use crate::status::readiness::Readiness;
use crate::status::snapshot::StatusRequest;

/// Lease events that may wait for the reconciler; the store waits beyond that.
const LEASE_EVENT_QUEUE: usize = 4096;

/// Work that goes on for as long as the daemon runs.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Channels that the daemon opens before it has a lease.
#[derive(Debug)]
pub struct Shared {
    /// The conditions, for `/readyz`.
    pub readiness_tx: watch::Sender<Readiness>,
    /// When the reconciler last made progress.
    pub heartbeat_tx: watch::Sender<Instant>,
    /// Requests for the status of the daemon.
    pub requests_rx: mpsc::Receiver<StatusRequest>,
}

/// Each task may block and so needs a thread of its own, except for `watchdog`.
pub struct Tasks<R, L> {
    /// Keeps the lease and follows those of other nodes.
    pub leases: Work,
    /// Keeps subnet.env and the state file.
    pub files: Work,
    /// Makes the node unready while another task is blocked.
    pub watchdog: Work,
    /// Keeps the kernel in the desired state, by [`Reconciler::run`] with `inputs`.
    pub reconciler: Reconciler<R, L>,
    /// What reaches the reconciler.
    pub inputs: Inputs,
    /// For the kernel's notifications of links and routes.
    pub links_tx: mpsc::Sender<Vec<Notification>>,
    /// For the kernel's notifications of rules.
    pub rules_tx: watch::Sender<ForeignCommits>,
    /// The tables that `rules_tx` counts commits of.
    pub tables: Vec<TableId>,
    /// For changed network configurations.
    pub reloads_tx: mpsc::Sender<Reload>,
}

impl<R, L> fmt::Debug for Tasks<R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Tasks<R, L> {
    /// Connects the tasks. Nothing runs yet.
    ///
    /// # Errors
    /// [`DesiredError`] if the configuration cannot be turned into rules or devices.
    pub fn of(started: Started, rules: R, links: L, shared: Shared) -> Result<Self, DesiredError> {
        let Started { claims, config, spec, written: _, request, lease, lease_task, restored, previous } =
            started;
        let Shared { readiness_tx, heartbeat_tx, requests_rx } = shared;
        let former_prefixes = claims.former_prefixes.clone();
        let spec = NodeSpec { former_prefixes, ..spec };
        info!("Starting flannel in nftables mode...");
        if config.asked.masquerade {
            info!("Setting up masking rules");
        }
        let (events_tx, events_rx) = mpsc::channel(LEASE_EVENT_QUEUE);
        let (lease_tx, lease_rx) = watch::channel(lease.clone());
        let (attributes_tx, attributes_rx) = watch::channel::<LeaseAttributes>(request.attributes.clone());
        let (links_tx, links_rx) = mpsc::channel(16);
        let (rules_tx, rules_rx) = watch::channel(ForeignCommits::default());
        let (reloads_tx, reloads_rx) = mpsc::channel(1);
        let (state_tx, state_rx) = mpsc::channel(1);
        let (subnet_env_tx, subnet_env_rx) = watch::channel(None);
        let (checks_tx, checks_rx) = mpsc::channel(16);
        let (store_tx, store_rx) = watch::channel(StoreHealth::default());
        let (leases_heartbeat_tx, leases_heartbeat) = watch::channel(Instant::now());
        let (files_heartbeat_tx, files_heartbeat) = watch::channel(Instant::now());

        let sinks =
            LeaseSinks { events: events_tx, own: lease_tx, readiness: readiness_tx.clone(), store: store_tx };
        let former_lease = request.previous;
        info!("Watching for new subnet leases");
        let leases = async move {
            // Claims of names on this host end with the lease task.
            let _claims = claims;
            tokio::join!(
                lease_task.keep(request, attributes_rx, sinks),
                send_heartbeats(&leases_heartbeat_tx)
            );
        };
        let subnet_file = config.asked.subnet_file.clone();
        let files = async move {
            let heartbeats = tokio::spawn(async move { send_heartbeats(&files_heartbeat_tx).await });
            let state_file = state_file::keep(state_file::path(&subnet_file), state_rx);
            tokio::join!(state_file, subnet_env::keep(subnet_file.clone(), subnet_env_rx, checks_tx));
            heartbeats.abort();
        };
        let threads = [
            Thread {
                name: "reconcile",
                duty: "rules, devices and routes are not checked or repaired",
                heartbeat: heartbeat_tx.subscribe(),
            },
            Thread {
                name: "leases",
                duty: "the lease is not renewed and changes of other nodes are not seen",
                heartbeat: leases_heartbeat,
            },
            Thread {
                name: "files",
                duty: "subnet.env and the state file are not checked or written",
                heartbeat: files_heartbeat,
            },
        ];
        let watchdog = watch_threads(threads, readiness_tx.clone());
        let counters = Counters::new(config.asked.store.kind(), store_rx, rules_tx.subscribe(), heartbeat_tx);
        let outputs = Outputs {
            attributes: attributes_tx,
            readiness: readiness_tx,
            state: state_tx,
            subnet_env: subnet_env_tx,
            counters,
        };
        let tables = spec.table_prefix.tables()?.to_vec();
        let mut reconciler = Reconciler::new(config, spec, lease, rules, links, outputs)?
            .sweep_after(previous)
            .with_former_lease(former_lease);
        if let Some(restored) = restored {
            reconciler = reconciler.restore_peers(restored);
        }
        let inputs = Inputs {
            leases: events_rx,
            own: lease_rx,
            links: links_rx,
            rules: rules_rx,
            reloads: reloads_rx,
            requests: requests_rx,
            subnet_file: checks_rx,
        };
        Ok(Self {
            leases: Box::pin(leases),
            files: Box::pin(files),
            watchdog: Box::pin(watchdog),
            reconciler,
            inputs,
            links_tx,
            rules_tx,
            tables,
            reloads_tx,
        })
    }
}
