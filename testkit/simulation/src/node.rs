//! One simulated node: its files, its kernel, its network to the store, and the daemon while that runs.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use flannel_lease::etcd::{FakeEtcd, FakeLink};
use flannel_lease::{Lease, LeaseKey, Timing};
use flannel_nft::Ownership;
use flanneld::config::{Command, Config, ResolvedConfig, Source};
use flanneld::desired::rules::TablePrefix;
use flanneld::open_store::ConfiguredStore;
use flanneld::reconcile::monitor;
use flanneld::run::fatal::Fatal;
use flanneld::run::start::StartInputs;
use flanneld::run::tasks::{Shared, Tasks};
use flanneld::status::readiness::Readiness;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Sleep, sleep};

use crate::host::SharedHost;

/// How long leases live; short, so that they end in a simulation.
const TIMING: Timing = Timing {
    ttl: Duration::from_secs(120),
    renew_margin: Duration::from_secs(60),
    recheck: Duration::from_secs(10),
    settle: Duration::from_secs(30),
};
/// When a daemon that could not start is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    /// Those that it had before.
    pub(crate) former_addresses: Vec<Ipv4Addr>,
    pub(crate) host: SharedHost,
    /// Of subnet.env and the state file.
    pub(crate) folder: PathBuf,
    pub(crate) is_connected: bool,
    pub(crate) max_delay: Duration,
    pub(crate) daemon: Option<Daemon>,
}

#[derive(Debug)]
pub(crate) struct Daemon {
    task: JoinHandle<()>,
    link: FakeLink,
    own: Own,
    readiness: watch::Receiver<Readiness>,
    /// Whether a part of it has ended by itself.
    failure: Arc<Mutex<Option<String>>>,
}

type Own = Arc<Mutex<Option<watch::Receiver<Lease>>>>;

impl Node {
    pub(crate) fn start(&mut self, etcd: &FakeEtcd) {
        if self.daemon.is_some() {
            return;
        }
        // A link of its own: what is left of a killed daemon uses the former one.
        let link = FakeLink::default();
        link.set_up(self.is_connected);
        link.set_delay(self.max_delay);
        let (readiness_tx, readiness) = watch::channel(Readiness::starting());
        let (own, failure) = (Own::default(), Arc::default());
        let run = run(
            Arguments { folder: self.folder.clone(), name: self.name.clone() },
            self.host.clone(),
            (etcd.clone(), link.clone()),
            (readiness_tx, Arc::clone(&own), Arc::clone(&failure)),
        );
        self.daemon = Some(Daemon { task: tokio::task::spawn_local(run), link, own, readiness, failure });
    }

    pub(crate) fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.task.abort();
            self.host.lock().lose_monitors();
        }
    }

    /// Gives the uplink another address.
    pub(crate) fn renumber(&mut self, address: Ipv4Addr) {
        self.former_addresses.push(std::mem::replace(&mut self.address, address));
        self.host.lock().renumber(address);
    }

    /// Whether it has this address or had it.
    pub(crate) fn has_had(&self, address: Ipv4Addr) -> bool {
        self.address == address || self.former_addresses.contains(&address)
    }

    pub(crate) fn connect(&mut self, is_connected: bool, max_delay: Duration) {
        (self.is_connected, self.max_delay) = (is_connected, max_delay);
        if let Some(Daemon { link, .. }) = &self.daemon {
            link.set_up(is_connected);
            link.set_delay(max_delay);
        }
    }

    /// The subnets of this node, if it has a lease and its daemon runs.
    pub(crate) fn key(&self) -> Option<LeaseKey> {
        let own = self.daemon.as_ref()?.own.lock().unwrap_or_else(PoisonError::into_inner);
        Some(own.as_ref()?.borrow().key)
    }

    pub(crate) fn readiness(&self) -> Option<Readiness> {
        Some(self.daemon.as_ref()?.readiness.borrow().clone())
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.daemon.as_ref()?.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn subnet_file(&self) -> PathBuf {
        self.folder.join("subnet.env")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.folder.join("subnet.state.json")
    }
}

struct Arguments {
    folder: PathBuf,
    name: String,
}

impl Source for Arguments {
    fn args(&self) -> Vec<OsString> {
        let subnet_file = format!("--subnet-file={}", self.folder.join("subnet.env").display());
        vec!["--etcd-endpoints=http://fake".into(), "--ip-masq".into(), subnet_file.into()]
    }

    fn env(&self, _: &str) -> Option<OsString> {
        None
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn host_name(&self) -> String {
        self.name.clone()
    }
}

type Reports = (watch::Sender<Readiness>, Own, Arc<Mutex<Option<String>>>);

/// Runs a daemon, and again if it cannot start.
async fn run(
    arguments: Arguments,
    host: SharedHost,
    (etcd, link): (FakeEtcd, FakeLink),
    (readiness_tx, own, failure): Reports,
) {
    let config = match Command::read(&arguments) {
        Ok(Command::Run(config)) => *config,
        other => {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{other:?}"));
            return;
        }
    };
    loop {
        let mut set = JoinSet::new();
        let store = ConfiguredStore::Etcd(Arc::new(etcd.store(&link, TIMING)));
        let ended = match start(&config, host.clone(), store, readiness_tx.clone(), &own, &mut set).await {
            Ok(()) => set.join_next().await.map(|ended| format!("a part of the daemon ended: {ended:?}")),
            Err(fatal) => {
                tracing::warn!("{fatal:?}");
                None
            }
        };
        if ended.is_some() {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = ended;
            return;
        }
        sleep(RESTART_DELAY).await;
    }
}

async fn start(
    config: &Config,
    mut host: SharedHost,
    store: ConfiguredStore,
    readiness_tx: watch::Sender<Readiness>,
    own: &Own,
    set: &mut JoinSet<()>,
) -> Result<(), Fatal> {
    let waits = |_: &str| {};
    let inputs = StartInputs::read(config, &store, &mut host, &waits).await?;
    let resolved = ResolvedConfig::new(config.clone(), Ownership::Shared, TablePrefix::default());
    let started = inputs.take_lease(resolved, store, &mut host, &waits).await?;
    let (heartbeat_tx, _) = watch::channel(std::time::Instant::now());
    let (_, requests_rx) = mpsc::channel(1);
    let shared = Shared { readiness_tx, heartbeat_tx, requests_rx };
    let tasks = Tasks::of(started, host.clone(), host.clone(), shared).map_err(Fatal::Desired)?;
    *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks.inputs.own.clone());
    let (links, rules) = host.monitors();
    set.spawn(monitor::follow_links(links, tasks.links_tx));
    set.spawn(monitor::follow_rules(rules, tasks.tables, tasks.rules_tx));
    let reloads_tx = tasks.reloads_tx;
    let (reconciler, inputs) = (tasks.reconciler, tasks.inputs);
    let reconcile = async move {
        reconciler.run(inputs, std::future::pending()).await;
        drop(reloads_tx);
    };
    set.spawn(tasks.leases);
    set.spawn(tasks.files);
    set.spawn(tasks.watchdog);
    set.spawn(Blocking { work: Box::pin(reconcile), host, blocked: None });
    Ok(())
}

/// A thread whose calls to the kernel block it: after such a call, the thread does nothing for as long as the call takes.
struct Blocking {
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    host: SharedHost,
    blocked: Option<Pin<Box<Sleep>>>,
}

impl Future for Blocking {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(blocked) = &mut self.blocked {
                ready!(blocked.as_mut().poll(context));
                self.blocked = None;
            }
            let polled = self.work.as_mut().poll(context);
            let busy = self.host.lock().busy.take();
            match busy {
                Some(busy) => self.blocked = Some(Box::pin(sleep(busy))),
                None => return polled,
            }
        }
    }
}
