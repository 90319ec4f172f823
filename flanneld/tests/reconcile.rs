//! The reconciler over kernels in memory, on a clock that stands still. No privileges needed.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flannel_lease::LeaseEvent;
use flannel_lease::{Lease, LeaseAttributes, LeaseKey, StoreHealth, VxlanData};
use flannel_nft::{
    CommitError, Errno, FakeKernel as FakeNft, Generation, Ruleset, Sealed, TableId, Transaction,
};
use flannel_vxlan::{
    Applied, ApplyError, Family, Links, Notification, ObserveError, Observed, ObservedDevice, ObservedRoute,
    ObservedRouteTo, Plan,
};
use flannel_vxlan::{DefaultRoute, FakeKernel, Interface, InterfaceAddress, RouteLookup};
use flanneld::config::{Command, Config, NetConf, Source};
use flanneld::desired::Setting;
use flanneld::node::Present;
use flanneld::reconcile::monitor::ForeignCommits;
use flanneld::reconcile::{Inputs, Outputs, Recalled, Reconciler, find_facts};
use flanneld::run::reload::Reload;
use flanneld::run::state_file::Memory;
use flanneld::status::counters::Telemetry;
use flanneld::status::model::{Cause, PeerCounts, PeerState};
use flanneld::status::query::Asker;
use flanneld::status::readiness::{Condition, Readiness};
use ipnet::{IpNet, Ipv4Net};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

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
    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Generation, CommitError> {
        let sent = self.with(|kernel| kernel.send(transaction));
        let tables = self.with(|kernel| FakeNft::tables(kernel).iter().cloned().collect());
        self.states.lock().unwrap().push(tables);
        sent
    }
}

/// A node whose reconciler runs.
struct Node {
    rules: Shared<FakeNft>,
    links: Shared<FakeKernel>,
    leases: mpsc::Sender<LeaseEvent>,
    rule_changes: watch::Sender<ForeignCommits>,
    asker: Asker,
    readiness: watch::Receiver<Readiness>,
    reloads: mpsc::Sender<Reload>,
    memory: mpsc::Receiver<Memory>,
    _folder: tempfile::TempDir,
    alive: (watch::Sender<Lease>, mpsc::Sender<Vec<Notification>>, oneshot::Sender<()>),
}

struct Arguments(PathBuf);

impl Source for Arguments {
    fn args(&self) -> Vec<OsString> {
        let subnet_file = format!("--subnet-file={}", self.0.join("subnet.env").display());
        vec!["--lease-db=x".into(), "--ip-masq".into(), subnet_file.into()]
    }
    fn env(&self, _: &str) -> Option<OsString> {
        None
    }
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(br#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#.to_vec())
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
    Lease { key: LeaseKey::new(Some(subnet(n)), None).unwrap(), attributes, expires: None }
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

    fn start_with(recalled: Option<Recalled>, links: Shared<FakeKernel>) -> Self {
        Self::start_after(None, recalled, links, Shared::default())
    }

    /// Starts with what a run with the configuration `before` left in the kernel.
    fn start_after(
        before: Option<&str>,
        recalled: Option<Recalled>,
        links: Shared<FakeKernel>,
        rules: Shared<FakeNft>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Ok(Command::Run(config)) = Command::read(&Arguments(folder.path().to_owned())) else {
            unreachable!()
        };
        let config: Config = *config;
        let net_conf = config.net_conf.clone().unwrap();
        let facts = find_facts(&config, &net_conf, Present::default(), &mut links.clone()).unwrap();
        let setting = Setting::new(&config, net_conf, facts, None).unwrap();

        let (leases, leases_out) = mpsc::channel(1024);
        let (own_in, own) = watch::channel(lease(1));
        let (links_in, links_out) = mpsc::channel(16);
        let (rule_changes, rules_out) = watch::channel(ForeignCommits::default());
        let (questions_in, questions) = mpsc::channel(4);
        let (_, store) = watch::channel(StoreHealth::default());
        let (pulse_in, pulse) = watch::channel(std::time::Instant::now());
        let telemetry = Telemetry::new("sqlite", store, rule_changes.subscribe(), pulse_in);
        let (attributes, _) = watch::channel(LeaseAttributes::default());
        let (readiness_in, readiness) = watch::channel(Readiness::starting());
        let (stop, stopped) = oneshot::channel();
        let (reloads_in, reloads) = mpsc::channel(1);
        let (memory_in, memory) = mpsc::channel(1);
        let outputs = Outputs { attributes, readiness: readiness_in, memory: memory_in, telemetry };
        let mut reconciler =
            Reconciler::new(config, setting, lease(1), rules.clone(), links.clone(), outputs).unwrap();
        if let Some(recalled) = recalled {
            reconciler = reconciler.recall(recalled);
        }
        if let Some(before) = before {
            reconciler = reconciler.sweep_after(vec![NetConf::parse(before.as_bytes()).unwrap()]);
        }
        let inputs =
            Inputs { leases: leases_out, own, links: links_out, rules: rules_out, reloads, questions };
        tokio::spawn(reconciler.run(inputs, async {
            let _dropped = stopped.await;
        }));
        Self {
            rules,
            links,
            leases,
            rule_changes,
            asker: Asker::new(questions_in, pulse),
            readiness,
            reloads: reloads_in,
            memory,
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

#[tokio::test(start_paused = true)]
async fn it_is_ready_once_everything_is_there_and_not_before_the_first_listing() {
    let mut node = Node::start();
    node.tell([LeaseEvent::Resync, LeaseEvent::Upsert(lease(2))]).await;
    sleep(Duration::from_secs(120)).await;
    assert!(!node.readiness.borrow().is_ready());
    assert_eq!(node.readiness.borrow().reason(Condition::Rules), None, "the rules do not wait for peers");
    assert_eq!(
        node.links.with(|kernel| kernel.applied_plans),
        0,
        "what looks stale may belong to a peer not yet named"
    );

    node.tell([LeaseEvent::Synced { unreadable: Vec::new() }]).await;
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

/// A route over the underlay, as `host-gw` and `DirectRouting` make it.
fn direct_route(subnet: &str, metric: u32) -> ((IpNet, u32), ObservedRoute) {
    let subnet = subnet.parse().unwrap();
    let to = ObservedRouteTo::Gateway { gateway: "192.168.77.9".parse().unwrap(), onlink: false };
    let protocol = flannel_vxlan::ROUTE_PROTOCOL;
    ((subnet, metric), ObservedRoute { subnet, protocol, metric, interface: 2, to, no_extra_attrs: true })
}

#[tokio::test(start_paused = true)]
async fn a_sweep_of_another_network_takes_no_peer_away_and_is_verified_before_the_node_is_ready() {
    let vxlan = |network: &str| format!(r#"{{"Network": "{network}", "Backend": {{"Type": "vxlan"}}}}"#);
    for before in ["10.240.0.0/12", "10.244.0.0/18", "10.0.0.0/8"] {
        let links = Shared::new(fake_links());
        let outside = direct_route("10.247.9.0/24", 0);
        links.with(|kernel| {
            kernel.routes.extend([outside, direct_route("10.244.9.0/24", 0)]);
            kernel.lost_with_route.insert(outside.0.0, subnet(3).into());
        });
        let mut node = Node::start_after(Some(&vxlan(before)), None, links, Shared::default());
        node.tell(listing([2, 3])).await;
        node.until(Readiness::is_ready).await;
        let swept = before != "10.244.0.0/18";
        let left = (!swept).then_some(outside.0.0);
        let wanted: Vec<IpNet> = [subnet(2).into(), subnet(3).into()].into_iter().chain(left).collect();
        assert_eq!(node.routes(), wanted, "network {before} before");
        assert_eq!(node.asker.ask(false).await.unwrap().peers.programmed, 2);
        // Nothing is left to the verification every 60 seconds.
        let steps = node.links.with(|kernel| kernel.applied_steps);
        sleep(Duration::from_secs(150)).await;
        assert_eq!(node.links.with(|kernel| kernel.applied_steps), steps, "network {before} before");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_swept_yet_is_remembered_for_the_next_start() {
    let before = r#"{"Network": "10.240.0.0/12", "Backend": {"Type": "host-gw"}}"#;
    let recalled = Recalled { peers: vec![(lease(2).key, Arc::new(lease(2).attributes))], confirmed: false };
    let links = Shared::new(fake_links());
    let mut node = Node::start_after(Some(before), Some(recalled), links, Shared::default());
    let memory = timeout(Duration::from_secs(60), node.memory.recv()).await.unwrap().unwrap();
    assert_eq!(memory.unswept, [NetConf::parse(before.as_bytes()).unwrap()]);
    node.tell(listing([2])).await;
    let memory = timeout(Duration::from_millis(1), node.memory.recv()).await.unwrap().unwrap();
    assert_eq!(memory.unswept, [], "swept once all leases are known, and remembered at once");
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_leases_is_one_plan() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let before = node.links.with(|kernel| kernel.applied_plans);
    for n in 3..203 {
        node.leases.try_send(LeaseEvent::Upsert(lease(n))).unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(node.routes().len(), 201);
    assert_eq!(node.links.with(|kernel| kernel.applied_plans), before + 1);
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
    Lease { key: LeaseKey::new(Some(subnet), None).unwrap(), attributes, expires: None }
}

#[tokio::test(start_paused = true)]
async fn one_lease_costs_the_kernel_the_same_among_ten_peers_as_among_eight_thousand() {
    /// Questions, plans and steps that each of these events takes: a lease comes, changes and goes.
    async fn cost(peers: u16) -> Vec<[usize; 3]> {
        let mut node = Node::start();
        node.tell([LeaseEvent::Resync]).await;
        node.tell((0..peers).map(|n| LeaseEvent::Upsert(small_lease(n)))).await;
        node.tell([LeaseEvent::Synced { unreadable: Vec::new() }]).await;
        node.until(Readiness::is_ready).await;
        assert_eq!(node.routes().len(), usize::from(peers));
        let spent = || node.links.with(|kernel| [kernel.reads, kernel.applied_plans, kernel.applied_steps]);
        let (new, mut moved) = (small_lease(8_191), small_lease(8_191));
        moved.attributes.public_ip = Some(Ipv4Addr::new(172, 17, 0, 1));
        let mut costs = Vec::new();
        for event in [LeaseEvent::Upsert(new.clone()), LeaseEvent::Upsert(moved), LeaseEvent::Remove(new.key)]
        {
            let before = spent();
            node.tell([event]).await;
            // Long enough for whatever a change is followed by, such as the state file.
            sleep(Duration::from_secs(20)).await;
            let after = spent();
            costs.push([after[0] - before[0], after[1] - before[1], after[2] - before[2]]);
        }
        costs
    }
    let among_ten = cost(10).await;
    assert_eq!(among_ten, [[0, 1, 4], [0, 1, 4], [0, 1, 4]]);
    assert_eq!(cost(8_000).await, among_ten);
}

#[tokio::test(start_paused = true)]
async fn who_keeps_flushing_is_left_to_end_and_then_everything_is_back() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let before = node.links.with(|kernel| kernel.applied_plans);
    let device = || node.links.with(|kernel| kernel.devices.values().next().cloned());
    let (_, notifications, _) = &node.alive;
    for _ in 0..200 {
        if let Some(found) = device() {
            node.links.with(|kernel| kernel.delete_device(found.name));
            notifications.send(vec![Notification::LinkGone { index: found.index }]).await.unwrap();
        }
        sleep(Duration::from_millis(1)).await;
    }
    let repairs = node.links.with(|kernel| kernel.applied_plans) - before;
    assert!((4..12).contains(&repairs), "{repairs} repairs in 200 ms of somebody undoing each");
    sleep(Duration::from_millis(50)).await;
    assert!(device().is_some());

    // Later the next one is repaired at once again.
    sleep(Duration::from_secs(1)).await;
    let found = device().unwrap();
    node.links.with(|kernel| kernel.delete_device(found.name));
    notifications.send(vec![Notification::LinkGone { index: found.index }]).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert!(device().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_delays_no_other_and_comes_in_when_the_kernel_takes_it() {
    let mut node = Node::start();
    node.links.with(|kernel| kernel.refused_peers.insert(subnet(3).into()));
    node.tell(listing([2, 3, 4])).await;
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2)), subnet(4).into()]);

    sleep(Duration::from_secs(600)).await;
    let tries = node.links.with(|kernel| kernel.applied_plans);
    assert!(tries < 600, "it pauses longer and longer: {tries} plans in ten minutes");

    // What others do does not try it, and is counted as if it were not there.
    let refusals = node.links.with(|kernel| kernel.refused_steps);
    for n in 5..105 {
        node.tell([LeaseEvent::Upsert(lease(n))]).await;
        sleep(Duration::from_millis(1)).await;
    }
    let tried = node.links.with(|kernel| kernel.refused_steps) - refusals;
    assert!(tried <= 12, "by its own timer and the full reading, four steps each: {tried}");
    assert_eq!(node.routes().len(), 102);
    node.links.with(|kernel| kernel.routes.retain(|(there, _), _| *there != IpNet::from(subnet(4))));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(node.routes().len(), 102);
    let status = node.asker.ask(false).await.unwrap();
    assert_eq!(
        status.repairs.len(),
        1,
        "that was a repair, tries of the refused are none: {:?}",
        status.repairs
    );
    assert!(
        status.notes.values().any(|note| note == "1 of the peers refused, see the log"),
        "{:?}",
        status.notes
    );

    node.links.with(|kernel| kernel.refused_peers.clear());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(node.routes().len(), 103);
    assert!(node.asker.ask(false).await.unwrap().notes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_every_peer_is_refused_is_not_ready() {
    let mut node = Node::start();
    node.links.with(|kernel| kernel.refused_peers.extend([IpNet::from(subnet(2)), subnet(3).into()]));
    node.tell(listing([2, 3])).await;
    node.until(|readiness| readiness.reason(Condition::Device).is_none()).await;
    let reason = node.readiness.borrow().reason(Condition::Peers).unwrap().to_owned();
    assert!(reason.starts_with("none is programmed: peer 10.244.2.0/24"), "{reason}");
    node.links.with(|kernel| kernel.refused_peers.remove(&subnet(3).into()));
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3))]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_turns_malformed_keeps_its_peer_until_it_is_good_again_or_gone() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    let steps = || node.links.with(|kernel| kernel.applied_steps);
    let before = steps();
    let told = |attributes: &str| {
        let attributes = LeaseAttributes::from_json(attributes.as_bytes()).unwrap();
        LeaseEvent::Upsert(Lease { attributes, ..lease(2) })
    };
    for malformed in [
        r#"{"PublicIP": "192.168.77.2", "BackendType": "vxlan", "BackendData": {"VNI": 1}}"#,
        r#"{"PublicIP": "192.168.77.2", "BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": "nonsense"}}"#,
        r#"{"PublicIP": "192.168.77.2", "BackendType": "vxlan"}"#,
        r#"{"BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:02"}}"#,
    ] {
        node.tell([told(malformed)]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(steps(), before, "{malformed}");
        let mut again = listing([3]);
        again.insert(1, told(malformed));
        node.tell(again).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(node.routes().len(), 2, "{malformed}");
    }
    // What it says clearly is followed.
    let other = r#"{"PublicIP": "192.168.77.2", "BackendType": "host-gw"}"#;
    node.tell([told(other)]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3))]);
    node.tell([LeaseEvent::Upsert(lease(2))]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes().len(), 2);
    node.tell([told(r#"{"BackendType": "vxlan"}"#), LeaseEvent::Remove(lease(2).key)]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3))]);
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_returns_is_taken_at_once_however_long_it_was_gone() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let (interfaces, defaults) = node
        .links
        .with(|kernel| (std::mem::take(&mut kernel.interfaces), std::mem::take(&mut kernel.default_routes)));
    let gone = || vec![Notification::LinkGone { index: 2 }];
    node.alive.1.send(gone()).await.unwrap();
    node.until(|readiness| readiness.reason(Condition::Interface).is_some()).await;
    for _ in 0..40 {
        sleep(Duration::from_millis(3_777)).await;
        node.links.with(|kernel| {
            kernel.interfaces.clone_from(&interfaces);
            kernel.default_routes.clone_from(&defaults);
        });
        // Any change of an interface that is not ours.
        node.alive.1.send(vec![Notification::LinkGone { index: 999 }]).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        assert_eq!(node.readiness.borrow().reason(Condition::Interface), None);
        node.links.with(|kernel| kernel.interfaces.clear());
        node.alive.1.send(gone()).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        assert!(node.readiness.borrow().reason(Condition::Interface).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_virtual_address_that_comes_to_the_interface_is_not_the_nodes() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let local = || node.links.with(|kernel| kernel.devices.values().next().unwrap().vxlan.unwrap().local);
    let own = Some(IpAddr::from([192, 168, 77, 1]));
    assert_eq!(local(), own);
    let virtual_address = IpAddr::from([192, 168, 77, 100]);
    node.links.with(|kernel| {
        let addresses = &mut kernel.interfaces[0].addresses;
        addresses[0].permanent = false; // from DHCP
        addresses.push(InterfaceAddress { address: virtual_address, permanent: true, ..addresses[0] });
    });
    let change = Notification::Address { interface: 2, address: virtual_address, gone: false };
    node.alive.1.send(vec![change]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), own);

    // Once its own has gone, the node takes what is left.
    let address = node.links.with(|kernel| kernel.interfaces[0].addresses.remove(0).address);
    node.alive.1.send(vec![Notification::Address { interface: 2, address, gone: true }]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), Some(virtual_address));
}

#[tokio::test(start_paused = true)]
async fn which_peers_are_direct_is_decided_again_when_routes_change() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    let peers = [2, 3].map(|n| IpAddr::from([192, 168, 77, n]));
    let interfaces = || {
        let of = |n: u8| node.links.with(|kernel| kernel.routes[&(IpNet::from(subnet(n)), 0)].interface);
        [of(2) == 2, of(3) == 2]
    };
    let way = |gateway| RouteLookup { interface: 2, source: None, gateway };
    node.links.with(|kernel| kernel.route_lookups.insert(peers[0], way(None)));
    let (done, outcome) = oneshot::channel();
    let text = br#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
    let net_conf = NetConf::parse(text).unwrap();
    node.reloads.send(Reload { net_conf, done }).await.unwrap();
    assert_eq!(outcome.await.unwrap(), Ok(true));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(interfaces(), [true, false]);

    node.links.with(|kernel| {
        kernel.route_lookups.insert(peers[0], way(Some(IpAddr::from([192, 168, 77, 254]))));
        kernel.route_lookups.insert(peers[1], way(None));
    });
    let to = ObservedRouteTo::Gateway { gateway: IpAddr::from([192, 168, 77, 254]), onlink: false };
    let both = "192.168.77.0/24".parse().unwrap();
    let route =
        ObservedRoute { subnet: both, protocol: 3, metric: 0, interface: 2, to, no_extra_attrs: true };
    node.alive.1.send(vec![Notification::Route { route, gone: false }]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(interfaces(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn refused_rules_make_the_node_unready_until_they_are_in() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    node.rules.with(|kernel| {
        kernel.flush();
        kernel.refuse_next(0, Errno::ENOMEM);
    });
    node.rule_changes.send_modify(|commits| commits.ours += 1);
    node.until(|readiness| readiness.reason(Condition::Rules).is_some()).await;
    node.until(Readiness::is_ready).await;
    assert_eq!(node.rules.with(|kernel| kernel.tables().len()), 1);
}

#[tokio::test(start_paused = true)]
async fn rules_are_back_at_once_but_a_fight_over_them_is_not_joined_at_full_speed() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    sleep(Duration::from_secs(1)).await;
    let flush = || {
        node.rules.with(FakeNft::flush);
        node.rule_changes.send_modify(|commits| commits.ours += 1);
    };
    let before = node.rules.with(|kernel| kernel.commits());
    flush();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(node.rules.with(|kernel| kernel.commits()), before + 1);

    for _ in 0..1000 {
        flush();
        sleep(Duration::from_millis(1)).await;
    }
    let fought = node.rules.with(|kernel| kernel.commits()) - before;
    assert!((100..=202).contains(&fought), "{fought} commits in a second");
    sleep(Duration::from_millis(10)).await;
    assert_eq!(node.rules.with(|kernel| kernel.tables().len()), 1);
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_events_commits_nothing() {
    let mut node = Node::start();
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;
    let before = (node.rules.with(|kernel| kernel.commits()), node.links.with(|kernel| kernel.applied_steps));
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(
        (node.rules.with(|kernel| kernel.commits()), node.links.with(|kernel| kernel.applied_steps)),
        before
    );
}

#[tokio::test(start_paused = true)]
async fn only_what_the_store_says_is_gone_is_removed() {
    let mut node = Node::start();
    node.tell(listing([2, 3, 4])).await;
    node.until(Readiness::is_ready).await;
    node.tell([LeaseEvent::Resync, LeaseEvent::Upsert(lease(2))]).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(node.routes().len(), 3, "a listing that never ends removes nobody");

    node.tell(listing([2, 4])).await;
    node.tell([LeaseEvent::Remove(lease(4).key)]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

fn recalled(peers: impl IntoIterator<Item = u8>) -> Option<Recalled> {
    let peers = peers.into_iter().map(|n| (lease(n).key, Arc::new(lease(n).attributes))).collect();
    Some(Recalled { peers, confirmed: false })
}

#[tokio::test(start_paused = true)]
async fn recalled_peers_are_repaired_at_once_and_nobody_is_swept_before_the_store_has_spoken() {
    let mut before = Node::start();
    before.tell(listing([2, 3, 4])).await;
    before.until(Readiness::is_ready).await;
    let links = before.links.clone();
    drop(before);
    links.with(|kernel| {
        kernel.routes.retain(|(net, _), _| *net != IpNet::from(subnet(2)));
        kernel.neighbors.clear();
    });

    let mut node = Node::start_with(recalled([2, 3]), links);
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes().len(), 3, "2 is repaired, 4 is not known and not swept");
    assert_eq!(node.links.with(|kernel| kernel.neighbors.len()), 2);
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(node.routes().len(), 3, "however long the store is away");

    node.tell(listing([3, 5])).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(3)), subnet(5).into()]);
}

#[tokio::test(start_paused = true)]
async fn with_no_peer_remembered_the_device_is_there_and_nobody_is_swept() {
    let mut before = Node::start();
    before.tell(listing([2, 3])).await;
    before.until(Readiness::is_ready).await;
    let mut node = Node::start_with(recalled([]), before.links.clone());
    node.until(Readiness::is_ready).await;
    assert_eq!(node.routes().len(), 2);
    node.tell(listing([2])).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_changes_is_remembered_every_few_seconds_and_half_a_listing_not_at_all() {
    let mut node = Node::start();
    node.tell([LeaseEvent::Resync, LeaseEvent::Upsert(lease(2))]).await;
    sleep(Duration::from_secs(60)).await;
    assert!(node.memory.try_recv().is_err());
    node.tell([LeaseEvent::Synced { unreadable: Vec::new() }]).await;
    sleep(Duration::from_secs(6)).await;
    let first = node.memory.try_recv().unwrap();
    assert_eq!(first.peers, [(lease(2).key, Arc::new(lease(2).attributes))]);

    let mut times = 0;
    for n in 3..203 {
        node.tell([LeaseEvent::Upsert(lease(n))]).await;
        sleep(Duration::from_millis(100)).await;
        times += u32::from(node.memory.try_recv().is_ok());
    }
    assert!((2..=5).contains(&times), "{times} in 20 s");
    sleep(Duration::from_secs(6)).await;
    assert_eq!(node.memory.try_recv().unwrap().peers.len(), 201);
}

#[tokio::test(start_paused = true)]
async fn the_last_change_is_remembered_at_the_end_though_the_file_is_slow_to_write() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    sleep(Duration::from_secs(6)).await;
    node.tell([LeaseEvent::Upsert(lease(3))]).await;
    sleep(Duration::from_secs(60)).await;
    let (_own, _links, stop) = node.alive;
    stop.send(()).unwrap();
    let mut remembered = Vec::new();
    while let Some(memory) = node.memory.recv().await {
        remembered.push(memory.peers.len());
    }
    assert_eq!(remembered, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_is_taken_where_that_is_possible_and_refused_by_key_elsewhere() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let tell = async |text: &str| {
        let (done, outcome) = oneshot::channel();
        let net_conf = NetConf::parse(text.as_bytes()).unwrap();
        node.reloads.send(Reload { net_conf, done }).await.unwrap();
        outcome.await.unwrap()
    };
    let base = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    assert_eq!(tell(base).await, Ok(false));

    let live = r#"{"Network": "10.244.0.0/16", "NonMasqueradeCIDRs": ["10.0.0.0/8"], "Backend": {"Type": "vxlan", "MTU": 1400}}"#;
    let commits = node.rules.with(|kernel| kernel.commits());
    assert_eq!(tell(live).await, Ok(true));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        node.links.with(|kernel| kernel.devices.values().map(|device| device.mtu).collect::<Vec<_>>()),
        [1350]
    );
    assert_eq!(node.rules.with(|kernel| kernel.commits()), commits + 1);
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);

    let refused = tell(&live.replace("vxlan\"", "vxlan\", \"VNI\": 7")).await.unwrap_err();
    assert!(refused.starts_with("Backend.VNI 1 -> 7 "), "{refused}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(node.rules.with(|kernel| kernel.commits()), commits + 1);
    assert!(node.readiness.borrow().is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_status_names_each_peer_and_what_became_of_it() {
    let mut node = Node::start();
    node.links.with(|kernel| kernel.refused_peers.insert(subnet(3).into()));
    node.tell(listing([2, 3])).await;
    node.until(Readiness::is_ready).await;

    let status = node.asker.ask(true).await.unwrap();
    assert_eq!(status.peers, PeerCounts { leases: 2, programmed: 1, pending: 1, skipped: 0 });
    let states: Vec<_> = status.peer_list.iter().map(|peer| (peer.subnet, peer.state)).collect();
    assert_eq!(states, [(subnet(2).into(), PeerState::Programmed), (subnet(3).into(), PeerState::Pending)]);
    assert_eq!(status.lease.ipv4, Some(subnet(1)));
    assert_eq!(status.devices.first().map(|device| device.name.as_str()), Some("flannel.1"));
    assert!(status.ready && status.rules.right, "{status:?}");

    node.links.with(|kernel| kernel.refused_peers.clear());
    sleep(Duration::from_secs(10)).await;
    node.tell([LeaseEvent::Upsert(lease(4))]).await;
    sleep(Duration::from_secs(1)).await;
    let status = node.asker.ask(false).await.unwrap();
    assert_eq!(status.peers.programmed, 3);
    assert_eq!(status.repairs, [], "what was asked for, now or at the start, repairs nothing");
}

#[tokio::test(start_paused = true)]
async fn what_others_break_is_a_repair_and_says_how_it_was_found_and_who_did_it() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;

    node.rules.with(FakeNft::flush);
    node.rule_changes.send_modify(|commits| commits.culprit = Some(("nft".to_owned(), 4711)));
    sleep(Duration::from_millis(10)).await;
    node.links.with(|kernel| kernel.routes.clear());
    sleep(Duration::from_secs(120)).await;

    let status = node.asker.ask(false).await.unwrap();
    let repairs: Vec<_> =
        status.repairs.iter().map(|repair| (repair.object.as_str(), repair.cause)).collect();
    assert_eq!(repairs, [("overlay", Cause::Check), ("rules", Cause::Notification)], "newest first");
    let rules = status.repairs.last().unwrap();
    assert!(rules.what.ends_with("last changed by \"nft\", process 4711"), "{}", rules.what);
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
}

/// A pod's end of a link, and a route of somebody else's.
fn foreign_link() -> Notification {
    Notification::Link(Box::new(ObservedDevice {
        name: "veth0".parse().unwrap(),
        index: 50,
        up: true,
        mac: None,
        mtu: 1500,
        kind: "veth".to_owned(),
        vxlan: None,
        addresses: Vec::new(),
        accept_ra: None,
        tx_checksum: None,
        master: 0,
    }))
}

fn foreign_route(subnet: &str) -> Notification {
    let to = ObservedRouteTo::Gateway { gateway: IpAddr::from([192, 168, 77, 9]), onlink: false };
    let subnet = subnet.parse().unwrap();
    let route = ObservedRoute { subnet, protocol: 4, metric: 0, interface: 2, to, no_extra_attrs: true };
    Notification::Route { route, gone: false }
}

#[tokio::test(start_paused = true)]
async fn what_happens_on_the_host_costs_the_same_among_ten_peers_as_among_eight_thousand() {
    /// Questions, plans and steps for: a pod's link, a route that leads to no peer, one that leads to a peer.
    async fn cost(peers: u16) -> Vec<[usize; 3]> {
        let mut node = Node::start();
        node.tell([LeaseEvent::Resync]).await;
        node.tell((0..peers).map(|n| LeaseEvent::Upsert(small_lease(n)))).await;
        node.tell([LeaseEvent::Synced { unreadable: Vec::new() }]).await;
        node.until(Readiness::is_ready).await;
        let (done, outcome) = oneshot::channel();
        let text = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
        let net_conf = NetConf::parse(text.as_bytes()).unwrap();
        node.reloads.send(Reload { net_conf, done }).await.unwrap();
        assert_eq!(outcome.await.unwrap(), Ok(true));
        let (_, notifications, _) = &node.alive;
        // The first look at the host reads its default routes too.
        notifications.send(vec![foreign_link()]).await.unwrap();
        sleep(Duration::from_secs(10)).await;

        let way = RouteLookup { interface: 2, source: None, gateway: None };
        node.links.with(|kernel| kernel.route_lookups.insert(IpAddr::from([172, 16, 0, 5]), way));
        let spent = || node.links.with(|kernel| [kernel.reads, kernel.applied_plans, kernel.applied_steps]);
        let mut costs = Vec::new();
        for event in [foreign_link(), foreign_route("10.99.0.0/16"), foreign_route("172.16.0.5/32")] {
            let before = spent();
            notifications.send(vec![event]).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            let after = spent();
            costs.push([after[0] - before[0], after[1] - before[1], after[2] - before[2]]);
        }
        let fifth = small_lease(5).key.v4().unwrap().into();
        let to = node.links.with(|kernel| kernel.routes.get(&(fifth, 0)).map(|route| route.to));
        let direct = ObservedRouteTo::Gateway { gateway: IpAddr::from([172, 16, 0, 5]), onlink: false };
        assert_eq!(to, Some(direct));
        costs
    }
    let among_ten = cost(10).await;
    assert_eq!(among_ten, [[1, 0, 0], [1, 0, 0], [2, 1, 4]]);
    assert_eq!(cost(8_000).await, among_ten);
}

#[tokio::test(start_paused = true)]
async fn another_default_route_counts_only_once_the_interface_in_use_is_of_no_use() {
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let (_, notifications, _) = &node.alive;
    let local = || {
        let device = node.links.with(|kernel| kernel.devices.values().next().cloned());
        device.and_then(|device| device.vxlan).and_then(|vxlan| vxlan.local)
    };
    let eth1 = Interface {
        index: 3,
        name: "eth1".to_owned(),
        ..fake_links_at(Ipv4Addr::new(192, 168, 78, 1)).interfaces.remove(0)
    };
    node.links.with(|kernel| {
        kernel.interfaces.push(eth1);
        kernel.default_routes.insert(Family::V4, DefaultRoute { interface: 3, metric: 0 });
    });
    notifications.send(vec![foreign_link(), foreign_route("10.99.0.0/16")]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    notifications.send(vec![foreign_route("0.0.0.0/0")]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), Some(IpAddr::from([192, 168, 77, 1])), "a VPN client's route changes nothing");

    // `ip link set eth0 down` reports nothing about the routes through it, and its address stays.
    node.links.with(|kernel| kernel.interfaces[0].up = false);
    notifications.send(vec![foreign_link()]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), Some(IpAddr::from([192, 168, 78, 1])));

    node.links.with(|kernel| {
        kernel.interfaces[0].up = true;
        kernel.interfaces.truncate(1);
        kernel.default_routes.insert(Family::V4, DefaultRoute { interface: 2, metric: 0 });
    });
    notifications.send(vec![Notification::LinkGone { index: 3 }]).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(local(), Some(IpAddr::from([192, 168, 77, 1])));
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_waits_for_calm_is_not_booked_as_found_by_the_check_that_falls_into_its_pause() {
    let first_check = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut node = Node::start();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;

    for before in [8, 7, 1] {
        tokio::time::sleep_until(first_check - Duration::from_millis(before)).await;
        node.links.with(|kernel| kernel.routes.clear());
        node.alive.1.send(vec![Notification::Overflow]).await.unwrap();
    }
    tokio::time::sleep_until(first_check + Duration::from_millis(5)).await;
    assert_eq!(node.routes(), [], "not yet repaired");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.routes(), [IpNet::from(subnet(2))]);

    let status = node.asker.ask(false).await.unwrap();
    let causes: Vec<_> = status.repairs.iter().map(|repair| repair.cause).collect();
    assert_eq!(causes, [Cause::Notification; 3]);
}
