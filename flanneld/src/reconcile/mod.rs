//! The only task that writes to the kernel: it derives the desired state, observes the kernel, and writes the difference.
//!
//! Events only change the desired state, or make a check of the kernel due. Each pass fails and is retried on its own, so
//! that rules never wait for peers, nor peers for rules.

use std::sync::Arc;
use std::time::Duration;

use flannel_vxlan::Notification;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tracing::{info, warn};

use crate::config::{Backend, NetConf, ResolvedConfig};
use crate::desired::{NodeSpec, rules};
use crate::run::reload::{Reload, live_change};
use crate::run::state_file::SavedState;
use crate::run::subnet_env::SubnetFileCheck;
use crate::status::counters::{Counters, Object};
use crate::status::model::Cause;
use crate::status::readiness::Readiness;
use crate::status::snapshot::{StatusRequest, fill_readiness, snapshot};
use crate::status::wireguard_sessions;
use flannel_cni::SubnetEnv;
use flannel_lease::Chain;
use flannel_lease::LeaseEvent;
use flannel_lease::{Lease, LeaseAttributes, LeaseKey};

mod due;
mod error;
mod files;
pub mod foreign_rules;
mod host_watch;
pub(crate) mod incomplete_leases;
mod leases;
mod log_limit;
pub mod monitor;
mod nftables;
pub(crate) mod orphans;
mod overlay;
mod passes;
mod repair_backoff;
mod repairs;

use due::Due;
pub use error::{DesiredError, HostError};
use host_watch::HostWatch;
pub use host_watch::find_facts;
use leases::LeaseView;
use monitor::ForeignCommits;
use nftables::Tables;
use orphans::Sweep;
use overlay::OverlayState;
use repair_backoff::Subject;
use repairs::Repairs;

/// Most events that are folded before the kernel is written to.
const MAX_BATCHED_EVENTS: usize = 65_536;
/// Time between two checks with a backend of which the kernel does not report all changes: keys and peers of WireGuard
/// devices, whose endpoints flanneld also restores, and the FOU port of udp.
const UNREPORTED_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two full checks of devices, peers and routes, in case a notification is lost. A check costs a few
/// microseconds per peer.
const FULL_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Longest time between two heartbeats of the loop.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long changes of the host's interfaces are collected before a check.
const HOST_CHANGE_DELAY: Duration = Duration::from_millis(5);
/// How long a store that gave a lease may take for its first listing before restored peers are written without it.
const FIRST_LISTING_TIMEOUT: Duration = Duration::from_secs(2);

/// What reaches the reconciler from outside.
#[derive(Debug)]
pub struct Inputs {
    /// What the lease store says about all nodes.
    pub leases: mpsc::Receiver<LeaseEvent>,
    /// This node's own lease.
    pub own: watch::Receiver<Lease>,
    /// Other processes' changes of links, addresses, routes, neighbor entries, FDB entries and nexthops.
    pub links: mpsc::Receiver<Vec<Notification>>,
    /// Other processes' commits to the nftables ruleset.
    pub rules: watch::Receiver<ForeignCommits>,
    /// Changed network configurations.
    pub reloads: mpsc::Receiver<Reload>,
    /// Requests for the status.
    pub requests: mpsc::Receiver<StatusRequest>,
    /// Each look at subnet.env.
    pub subnet_file: mpsc::Receiver<SubnetFileCheck>,
}

/// What the reconciler reports.
#[derive(Debug)]
pub struct Outputs {
    /// What this node should publish with its lease.
    pub attributes: watch::Sender<LeaseAttributes>,
    /// The conditions, for `/readyz`.
    pub readiness: watch::Sender<Readiness>,
    /// State for a restart: [`state_file::keep`](crate::run::state_file::keep) writes it.
    pub state: mpsc::Sender<SavedState>,
    /// What subnet.env should say: [`subnet_env::keep`](crate::run::subnet_env::keep) writes it.
    pub subnet_env: watch::Sender<Option<SubnetEnv>>,
    /// Counters for status and metrics.
    pub counters: Counters,
}

/// What the daemon starts with before its lease store has listed anything.
#[derive(Clone, Debug)]
pub struct RestoredPeers {
    /// Peers as last known.
    pub peers: Vec<(LeaseKey, Arc<LeaseAttributes>)>,
    /// Whether the store has confirmed the lease.
    pub confirmed: bool,
}

/// Owner of the desired state and of the sockets that it is written through.
#[derive(Debug)]
pub struct Reconciler<R, L> {
    config: ResolvedConfig,
    spec: NodeSpec,
    lease: Lease,
    leases: LeaseView,
    tables: Tables<R>,
    overlay: OverlayState<L>,
    host: HostWatch,
    sweep: Sweep,
    repairs: Repairs,
    due: Schedule,
    outputs: Outputs,
    ready_logged: bool,
}

/// When each pass is due.
#[derive(Debug, Default)]
struct Schedule {
    host: Due,
    rules: Due,
    foreign_rules: Due,
    overlay: Due,
    /// To try peers again that the kernel refused.
    refused: Due,
    state: Due,
    /// To check what another process keeps undoing, or to end that.
    contests: Due,
}

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// A reconciler that has not read the kernel yet.
    ///
    /// # Errors
    /// [`DesiredError`] if `spec` cannot be turned into rules or devices.
    pub fn new(
        config: ResolvedConfig,
        spec: NodeSpec,
        lease: Lease,
        rules: R,
        links: L,
        outputs: Outputs,
    ) -> Result<Self, DesiredError> {
        let leases = LeaseView::new(&lease, outputs.attributes.borrow().clone());
        Ok(Self {
            leases,
            tables: Tables::new(rules, &spec, lease.key)?,
            overlay: OverlayState::new(links, spec.families(lease.key)?),
            config,
            spec,
            lease,
            host: HostWatch::default(),
            sweep: Sweep::default(),
            repairs: Repairs::default(),
            due: Schedule::default(),
            outputs,
            ready_logged: false,
        })
    }

    /// Sweeps the objects of these earlier configurations once everything desired is in place, and reports other devices
    /// with flannel's names. Without this call nothing is swept.
    #[must_use]
    pub fn sweep_after(mut self, previous: Vec<NetConf>) -> Self {
        self.sweep = Sweep::after(previous);
        self
    }

    /// Names a subnet that this node held in an earlier run: a bridge may still have its address.
    #[must_use]
    pub fn with_former_lease(mut self, former: Option<LeaseKey>) -> Self {
        self.host.note_former(former, self.lease.key);
        self
    }

    /// Starts with peers from the state file. Until the store has listed all leases, they are written and repaired, and no
    /// object counts as stale.
    #[must_use]
    pub fn restore_peers(mut self, restored: RestoredPeers) -> Self {
        let wait = if restored.confirmed { FIRST_LISTING_TIMEOUT } else { Duration::ZERO };
        self.leases.use_restored_from(Instant::now() + wait);
        for (key, attributes) in restored.peers {
            let attributes = Arc::unwrap_or_clone(attributes);
            self.apply_lease_event(LeaseEvent::Upsert(Lease::new(key, attributes, None)));
        }
        self
    }

    /// Keeps the kernel in the desired state until `shutdown` resolves or an input is closed. Leaves everything in place.
    pub async fn run(mut self, mut inputs: Inputs, shutdown: impl Future<Output = ()>) {
        let mut unreported =
            interval_at(Instant::now() + UNREPORTED_CHECK_INTERVAL, UNREPORTED_CHECK_INTERVAL);
        unreported.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let has_unreported = matches!(self.spec.net_conf.backend, Backend::Wireguard(_) | Backend::Udp(_));
        let mut check = interval_at(Instant::now() + self.config.asked.resync, self.config.asked.resync);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut verify = interval_at(Instant::now() + FULL_CHECK_INTERVAL, FULL_CHECK_INTERVAL);
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.outputs.readiness.send_modify(Readiness::started);
        self.due.host.now();
        self.due.rules.now();
        self.due.overlay.now();
        self.publish_subnet_env();
        tokio::pin!(shutdown);
        loop {
            self.outputs.counters.heartbeat();
            self.run_due();
            let next = Instant::now() + HEARTBEAT_INTERVAL;
            let next = self.next().map_or(next, |due| due.min(next));
            tokio::select! {
                () = &mut shutdown => {
                    if self.due.state.at.is_some() {
                        self.save_state_and_wait().await;
                    }
                    return;
                }
                event = inputs.leases.recv() => {
                    let Some(event) = event else { return };
                    self.apply_lease_event(event);
                    for _ in 0..MAX_BATCHED_EVENTS {
                        let Ok(event) = inputs.leases.try_recv() else { break };
                        self.apply_lease_event(event);
                    }
                }
                own = inputs.own.changed() => {
                    if own.is_err() { return }
                    let lease = inputs.own.borrow_and_update().clone();
                    self.adopt_lease(lease);
                }
                notifications = inputs.links.recv() => {
                    let Some(notifications) = notifications else { return };
                    self.notice(&notifications, Cause::Notification);
                }
                change = inputs.rules.changed() => {
                    if change.is_err() { return }
                    self.outputs.counters.found(Object::Rules, Cause::Notification);
                    self.check_rules();
                }
                Some(request) = inputs.requests.recv() => self.answer(request),
                Some(check) = inputs.subnet_file.recv() => self.note_subnet_file(check),
                _ = check.tick() => {
                    self.outputs.counters.found(Object::Rules, Cause::Check);
                    self.check_rules();
                }
                Some(Reload { net_conf, done }) = inputs.reloads.recv() => {
                    // The sender may not wait for the answer.
                    let _unheard = done.send(self.adopt_net_conf(net_conf));
                }
                _ = unreported.tick(), if has_unreported => {
                    self.outputs.counters.found(Object::Overlay, Cause::Check);
                    self.overlay.desired.invalidate();
                    self.due.overlay.now();
                }
                _ = verify.tick() => {
                    self.notice(&[Notification::Overflow], Cause::Check);
                    self.give_up_shared_macs();
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// When the next work is due.
    fn next(&self) -> Option<Instant> {
        let Schedule { host, rules, foreign_rules, state, contests, .. } = &self.due;
        let times = [host, rules, foreign_rules, state, contests].map(|due| due.at);
        times.into_iter().chain([self.overlay_due()]).flatten().min()
    }

    fn answer(&mut self, request: StatusRequest) {
        let leases = (self.leases.table(), self.leases.gaps());
        let mut status = snapshot(&self.spec, &self.lease, leases, &self.overlay.desired, request.peers);
        let is_contested = self.repairs.contests.held_until(Subject::Tables).is_some();
        self.tables.fill(&mut status, is_contested);
        status.rules.owned = self.spec.ownership == flannel_nft::Ownership::Owner;
        fill_readiness(&self.outputs.readiness.borrow(), &mut status);
        self.outputs.counters.fill(&mut status);
        wireguard_sessions::fill(&mut status, &self.overlay.desired, &mut self.overlay.kernel);
        // The process that asked may have gone.
        let _unheard = request.answer.send(Box::new(status));
    }

    /// Takes a changed network configuration. `false`: there is nothing new in it; an error: the old one stays.
    fn adopt_net_conf(&mut self, net_conf: NetConf) -> Result<bool, String> {
        if net_conf == self.spec.net_conf {
            return Ok(false);
        }
        let net_conf = live_change(&self.spec.net_conf, &net_conf).map_err(|refused| refused.to_string())?;
        let (former, text) = (self.spec.net_conf.to_json(), net_conf.to_json());
        let facts = self.spec.facts.clone();
        if net_conf.backend.mtu() != self.spec.net_conf.backend.mtu() {
            facts.carries(&net_conf.backend).map_err(|error| error.to_string())?;
        }
        let spec = NodeSpec::new(&self.config, net_conf, facts, Some(&self.lease.attributes))
            .map_err(|error| Chain(&error).to_string())?;
        spec.families(self.lease.key).map_err(|error| Chain(&error).to_string())?;
        info!("network configuration changed from {former} to {text}");
        self.adopt_spec(spec).map_err(|error| Chain(&error).to_string())?;
        self.due.state.now();
        Ok(true)
    }

    fn adopt_spec(&mut self, mut spec: NodeSpec) -> Result<(), DesiredError> {
        spec.restores_checksum = self.spec.restores_checksum || self.spec.turns_checksum_off();
        self.spec = spec;
        self.apply_spec();
        let attributes = self.spec.attributes()?;
        self.outputs.attributes.send_if_modified(|published| {
            let changed = *published != attributes;
            *published = attributes;
            changed
        });
        self.update_own_node();
        Ok(())
    }

    /// Derives the desired state again after the spec or this node's lease changed.
    fn apply_spec(&mut self) {
        match rules::ruleset(&self.spec.rules(self.lease.key)) {
            Ok(ruleset) => self.tables.set_desired(ruleset),
            Err(error) => warn!(
                "cannot apply the new configuration or lease to the rules; the present rules stay and traffic \
                 passes as before. Correct the configuration, which flanneld then applies: {}",
                Chain(&error)
            ),
        }
        match self.spec.families(self.lease.key) {
            Ok(families) => self.set_families(families),
            Err(error) => warn!(
                "cannot apply the new configuration or lease to the devices; the present devices stay and \
                 traffic passes as before. Correct the configuration, which flanneld then applies: {}",
                Chain(&error)
            ),
        }
        self.update_all_peers();
        self.outputs.counters.expect(Object::Rules);
        self.outputs.counters.expect(Object::Overlay);
        self.due.rules.now();
        self.due.overlay.now();
        self.publish_subnet_env();
    }
}
