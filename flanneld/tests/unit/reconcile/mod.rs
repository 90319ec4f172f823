//! The reconciler over kernels in memory, on a clock that stands still. No privileges needed.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::resolved;
use flannel_lease::LeaseEvent;
use flannel_lease::{Lease, LeaseAttributes, LeaseKey, StoreHealth, VxlanData};
use flannel_nft::{
    CommitError, Errno, FakeKernel as FakeNft, Generation, Ruleset, Sealed, TableId, Transaction,
};
use flannel_vxlan::{
    Applied, ApplyError, Family, IfName, Links, Notification, ObserveError, Observed, ObservedDevice,
    ObservedRoute, ObservedRouteTo, ObservedWireguard, Plan,
};
use flannel_vxlan::{DefaultRoute, FakeKernel, Interface, InterfaceAddress, RouteLookup};
use flanneld::config::{Command, Config, NetConf, Source};
use flanneld::desired::NodeSpec;
use flanneld::logging::{Lines, LogOptions};
use flanneld::node::Present;
use flanneld::reconcile::monitor::ForeignCommits;
use flanneld::reconcile::{Inputs, Outputs, Reconciler, RestoredPeers, find_facts};
use flanneld::run::reload::Reload;
use flanneld::run::state_file::SavedState;
use flanneld::run::subnet_env;
use flanneld::status::counters::Counters;
use flanneld::status::model::{Cause, PeerCounts, PeerState};
use flanneld::status::query::StatusQuery;
use flanneld::status::readiness::{Condition, Readiness};
use ipnet::{IpNet, Ipv4Net};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;

mod host;
mod incomplete_leases;
mod leases;
mod orphans;
mod repair;
mod repair_backoff;
mod takeover;

/// A kernel that the test looks into while the reconciler writes to it.
#[derive(Clone, Debug, Default)]
struct Shared<T> {
    kernel: Arc<Mutex<T>>,
    /// All tables after each commit.
    states: Arc<Mutex<Vec<Ruleset>>>,
}

impl<T> Shared<T> {
    fn new(kernel: T) -> Self {
        Self { kernel: Arc::new(Mutex::new(kernel)), states: Arc::default() }
    }

    fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.kernel.lock().unwrap())
    }

    fn states(&self) -> Vec<Ruleset> {
        self.states.lock().unwrap().clone()
    }
}

impl flannel_vxlan::Kernel for Shared<FakeKernel> {
    fn observe(&mut self, links: &[Links]) -> Result<Observed, ObserveError> {
        self.with(|kernel| kernel.observe(links))
    }
    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError> {
        self.with(|kernel| kernel.apply(plan))
    }
    fn interfaces(&mut self) -> Result<Vec<Interface>, ObserveError> {
        self.with(|kernel| kernel.interfaces())
    }
    fn default_routes(&mut self, family: Family) -> Result<Vec<DefaultRoute>, ObserveError> {
        self.with(|kernel| kernel.default_routes(family))
    }
    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, ObserveError> {
        self.with(|kernel| kernel.route_to(address))
    }
    fn wireguard(&mut self, device: IfName) -> Result<Option<ObservedWireguard>, ObserveError> {
        self.with(|kernel| kernel.wireguard(device))
    }
}

impl flannel_nft::Kernel for Shared<FakeNft> {
    fn generation(&mut self) -> Result<Generation, flannel_nft::ObserveError> {
        self.with(|kernel| kernel.generation())
    }
    fn tables(&mut self) -> Result<Vec<TableId>, flannel_nft::ObserveError> {
        self.with(|kernel| kernel.tables())
    }
    fn keeps_owned_tables(&mut self) -> Result<bool, flannel_nft::ObserveError> {
        self.with(|kernel| kernel.keeps_owned_tables())
    }
    fn observe(&mut self, wanted: &[TableId]) -> Result<flannel_nft::Observed, flannel_nft::ObserveError> {
        self.with(|kernel| kernel.observe(wanted))
    }
    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Option<Generation>, CommitError> {
        let sent = self.with(|kernel| kernel.send(transaction));
        let tables = self.with(|kernel| FakeNft::tables(kernel).iter().cloned().collect());
        self.states.lock().unwrap().push(tables);
        sent
    }
}

/// What this thread logs until the guard is dropped.
fn capture_log() -> (Arc<Mutex<String>>, DefaultGuard) {
    let lines = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&lines);
    let layer = Lines::new(LogOptions::default(), move |_, line: &str| sink.lock().unwrap().push_str(line));
    (lines, tracing::subscriber::set_default(tracing_subscriber::registry().with(layer)))
}

/// A node whose reconciler runs.
struct Node {
    rules: Shared<FakeNft>,
    links: Shared<FakeKernel>,
    leases: mpsc::Sender<LeaseEvent>,
    rule_changes: watch::Sender<ForeignCommits>,
    status_query: StatusQuery,
    readiness: watch::Receiver<Readiness>,
    reloads: mpsc::Sender<Reload>,
    saved: mpsc::Receiver<SavedState>,
    /// What it publishes.
    own: LeaseAttributes,
    _folder: tempfile::TempDir,
    alive: (watch::Sender<Lease>, mpsc::Sender<Vec<Notification>>, oneshot::Sender<()>),
}

/// The folder of the node's files, and the network configuration.
struct Arguments(PathBuf, &'static str);

const VXLAN: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

impl Source for Arguments {
    fn args(&self) -> Vec<OsString> {
        let subnet_file = format!("--subnet-file={}", self.0.join("subnet.env").display());
        vec!["--lease-db=x".into(), "--ip-masq".into(), subnet_file.into()]
    }
    fn env(&self, _: &str) -> Option<OsString> {
        None
    }
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.1.as_bytes().to_vec())
    }
}

fn subnet(n: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::new(10, 244, n, 0), 24).unwrap()
}

fn lease(n: u8) -> Lease {
    let data = VxlanData { vni: 1, vtep_mac: [2, 0, 0, 0, 0, n] };
    let attributes = LeaseAttributes {
        public_ip: Some(Ipv4Addr::new(192, 168, 77, n)),
        backend_type: "vxlan".into(),
        backend_data: Some(data.to_backend_data().unwrap()),
        ..LeaseAttributes::default()
    };
    Lease::new(LeaseKey::new(Some(subnet(n)), None).unwrap(), attributes, None)
}

fn fake_links() -> FakeKernel {
    fake_links_at(Ipv4Addr::new(192, 168, 77, 1))
}

fn fake_links_at(address: Ipv4Addr) -> FakeKernel {
    FakeKernel::new([(address.into(), 24)])
}

impl Node {
    fn start() -> Self {
        Self::start_with(None, Shared::new(fake_links()))
    }

    fn start_with(restored: Option<RestoredPeers>, links: Shared<FakeKernel>) -> Self {
        Self::start_after(None, restored, links, Shared::default())
    }

    /// Starts with what a run with the configuration `before` left in the kernel.
    fn start_after(
        before: Option<&str>,
        restored: Option<RestoredPeers>,
        links: Shared<FakeKernel>,
        rules: Shared<FakeNft>,
    ) -> Self {
        Self::start_in(VXLAN, before, restored, links, rules)
    }

    /// Starts with this network configuration.
    fn start_in(
        net_conf: &'static str,
        before: Option<&str>,
        restored: Option<RestoredPeers>,
        links: Shared<FakeKernel>,
        rules: Shared<FakeNft>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Ok(Command::Run(config)) = Command::read(&Arguments(folder.path().to_owned(), net_conf)) else {
            unreachable!()
        };
        let config = resolved(*config);
        let net_conf = config.asked.net_conf.clone().unwrap();
        let facts = find_facts(&config, &net_conf, Present::default(), &mut links.clone()).unwrap();
        let spec = NodeSpec::new(&config, net_conf, facts, None).unwrap();

        let (leases, leases_out) = mpsc::channel(1024);
        let (own_in, own_out) = watch::channel(lease(1));
        let (links_in, links_out) = mpsc::channel(16);
        let (rule_changes, rules_out) = watch::channel(ForeignCommits::default());
        let (questions_in, requests) = mpsc::channel(4);
        let (_, store) = watch::channel(StoreHealth::default());
        let (pulse_in, pulse) = watch::channel(std::time::Instant::now());
        let counters = Counters::new("sqlite", store, rule_changes.subscribe(), pulse_in);
        let own = spec.attributes().unwrap();
        let (attributes, _) = watch::channel(own.clone());
        let (readiness_in, readiness) = watch::channel(Readiness::starting());
        let (stop, stopped) = oneshot::channel();
        let (reloads_in, reloads) = mpsc::channel(1);
        let (memory_in, saved) = mpsc::channel(1);
        let (subnet_env, wanted) = watch::channel(None);
        let (checks, subnet_file) = mpsc::channel(16);
        tokio::spawn(subnet_env::keep(config.asked.subnet_file.clone(), wanted, checks));
        let outputs = Outputs { attributes, readiness: readiness_in, state: memory_in, subnet_env, counters };
        let mut reconciler =
            Reconciler::new(config, spec, lease(1), rules.clone(), links.clone(), outputs).unwrap();
        if let Some(restored) = restored {
            reconciler = reconciler.restore_peers(restored);
        }
        if let Some(before) = before {
            reconciler = reconciler.sweep_after(vec![NetConf::parse(before.as_bytes()).unwrap()]);
        }
        let inputs = Inputs {
            leases: leases_out,
            own: own_out,
            links: links_out,
            rules: rules_out,
            reloads,
            requests,
            subnet_file,
        };
        tokio::spawn(reconciler.run(inputs, async {
            let _dropped = stopped.await;
        }));
        Self {
            rules,
            links,
            leases,
            rule_changes,
            status_query: StatusQuery::new(questions_in, pulse),
            readiness,
            reloads: reloads_in,
            saved,
            own,
            _folder: folder,
            alive: (own_in, links_in, stop),
        }
    }

    async fn tell(&self, events: impl IntoIterator<Item = LeaseEvent>) {
        for event in events {
            self.leases.send(event).await.unwrap();
        }
    }

    fn routes(&self) -> Vec<IpNet> {
        self.links.with(|kernel| kernel.routes.keys().map(|(subnet, _)| *subnet).collect())
    }

    async fn until(&mut self, holds: impl Fn(&Readiness) -> bool) {
        timeout(Duration::from_secs(60), self.readiness.wait_for(holds)).await.unwrap().unwrap();
    }
}

fn listing(leases: impl IntoIterator<Item = u8>) -> Vec<LeaseEvent> {
    let mut events = vec![LeaseEvent::Resync];
    events.extend(leases.into_iter().map(|n| LeaseEvent::Upsert(lease(n))));
    events.push(LeaseEvent::Synced { unreadable: Vec::new() });
    events
}

/// The `n`-th /30 of 10.244.128.0/17, of which there are 8 192.
fn small_lease(n: u16) -> Lease {
    let [high, low] = n.to_be_bytes();
    let first = u32::from(Ipv4Addr::new(10, 244, 128, 0)) + (u32::from(n) << 2);
    let data = VxlanData { vni: 1, vtep_mac: [2, 0, 0, 1, high, low] };
    let attributes = LeaseAttributes {
        public_ip: Some(Ipv4Addr::new(172, 16, high, low)),
        backend_type: "vxlan".into(),
        backend_data: Some(data.to_backend_data().unwrap()),
        ..LeaseAttributes::default()
    };
    let subnet = Ipv4Net::new(first.into(), 30).unwrap();
    Lease::new(LeaseKey::new(Some(subnet), None).unwrap(), attributes, None)
}
