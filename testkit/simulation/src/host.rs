//! The kernel of one simulated node, with faults, and a packet's way through it.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flannel_nft::{CommitError, Errno, Event, Generation, Kernel as _, Sealed, TableId, Transaction};
use flannel_vxlan::{
    Applied, ApplyError, DefaultRoute, Family, IfName, Interface, Links, Notification, ObserveError,
    Observed, ObservedDevice, ObservedRouteTo, ObservedWireguard, Plan, ROUTE_PROTOCOL, RouteLookup,
};
use flanneld::reconcile::monitor::Subscription;
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// How long another process takes to undo a write.
const UNDO_DELAY: Duration = Duration::from_millis(3);

/// The kernel of a node, shared with its daemon.
#[derive(Clone, Debug)]
pub(crate) struct SharedHost(Arc<Mutex<Host>>);

/// How many reports of the kernel wait until they are read.
const REPORT_QUEUE: usize = 16;

/// A subscription of a daemon to what the kernel of its node reports.
#[derive(Debug)]
pub(crate) struct Monitor<T> {
    host: SharedHost,
    reports: mpsc::Receiver<T>,
    slot: fn(&mut Host) -> &mut Option<mpsc::Sender<T>>,
}

impl<T> Monitor<T> {
    fn open(host: &SharedHost, slot: fn(&mut Host) -> &mut Option<mpsc::Sender<T>>) -> Self {
        let (to, reports) = mpsc::channel(REPORT_QUEUE);
        *slot(&mut host.lock()) = Some(to);
        Self { host: host.clone(), reports, slot }
    }
}

impl<T: Send> Subscription for Monitor<T> {
    type Report = T;

    async fn next(&mut self) -> io::Result<T> {
        self.reports.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn reopen(&mut self) -> io::Result<()> {
        if self.host.lock().unmonitored_until.is_some_and(|until| Instant::now() < until) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        *self = Self::open(&self.host, self.slot);
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) links: flannel_vxlan::FakeKernel,
    pub(crate) rules: flannel_nft::FakeKernel,
    /// The tables in nft syntax, as of a generation.
    text: Option<(Option<Generation>, String)>,
    /// Where the kernel reports changes of links and routes to; `None` while no daemon is subscribed.
    link_reports: Option<mpsc::Sender<Vec<Notification>>>,
    /// The same of rules.
    rule_reports: Option<mpsc::Sender<Event>>,
    /// Until when the kernel refuses subscriptions.
    unmonitored_until: Option<Instant>,
    pub(crate) undo_rules_until: Option<Instant>,
    pub(crate) undo_routes_until: Option<Instant>,
    /// How long the next call takes.
    pub(crate) slow: Option<Duration>,
    /// A call that takes this long is under way.
    pub(crate) busy: Option<Duration>,
    /// When the last slow call was made, and when it returns.
    pub(crate) last_slow: Option<(Instant, Instant)>,
    /// Plans and transactions so far.
    pub(crate) writes: u64,
    /// What was written since it was last looked at, and what each peer's packets did before and after.
    pub(crate) log: Vec<String>,
    /// Peers whose packets arrived before a write and no longer after it.
    pub(crate) lost: Vec<(Instant, IpNet)>,
}

impl SharedHost {
    pub(crate) fn new(number: u8, address: Ipv4Addr) -> Self {
        let mut links = flannel_vxlan::FakeKernel::new([(address.into(), 16)]);
        for uplink in &mut links.interfaces {
            uplink.mac = flannel_vxlan::MacAddr::new([2, 0, 0, 0, 1, number]).ok();
        }
        Self(Arc::new(Mutex::new(Host {
            links,
            rules: flannel_nft::FakeKernel::default(),
            text: None,
            link_reports: None,
            rule_reports: None,
            unmonitored_until: None,
            undo_rules_until: None,
            undo_routes_until: None,
            slow: None,
            busy: None,
            last_slow: None,
            writes: 0,
            log: Vec::new(),
            lost: Vec::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Host> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subscription to changes of links and routes, and one to changes of rules.
    pub(crate) fn monitors(&self) -> (Monitor<Vec<Notification>>, Monitor<Event>) {
        let links = Monitor::open(self, |host| &mut host.link_reports);
        (links, Monitor::open(self, |host| &mut host.rule_reports))
    }

    fn undo(&self, until: Option<Instant>, flush: fn(&mut Host, bool)) {
        if until.is_some_and(|until| Instant::now() < until) {
            let host = self.clone();
            tokio::spawn(async move {
                sleep(UNDO_DELAY).await;
                flush(&mut host.lock(), true);
            });
        }
    }
}

impl Host {
    pub(crate) fn device(&self) -> Option<&ObservedDevice> {
        self.links.devices.values().next()
    }

    /// Where the kernel sends packets for `subnet`: the underlay address and the MAC address of the VTEP there.
    pub(crate) fn way_to(&self, subnet: IpNet) -> Option<(IpAddr, [u8; 6])> {
        let device = self.device().filter(|device| device.up)?;
        let route = self.links.routes.values().find(|route| route.subnet == subnet)?;
        let gateway = match route.to {
            ObservedRouteTo::Gateway { gateway, .. } if route.interface == device.index => gateway,
            ObservedRouteTo::Nexthop { id } => {
                let nexthop = self.links.nexthops.get(&id).filter(|hop| hop.interface == device.index)?;
                nexthop.gateway?.into()
            }
            _ => return None,
        };
        let mac = self.links.neighbors.get(&(device.index, gateway))?.neighbor.mac;
        let entry = self.links.fdb.get(&(device.index, mac))?.entry;
        Some((entry.underlay, mac.bytes()))
    }

    /// All tables in nft syntax.
    pub(crate) fn rules_text(&mut self) -> &str {
        let generation = self.rules.generation().ok();
        let text = self.text.take().filter(|(of, _)| *of == generation).map(|(_, text)| text);
        let text = text.unwrap_or_else(|| self.rules.tables().iter().map(ToString::to_string).collect());
        &self.text.insert((generation, text)).1
    }

    /// The subnets that have a route of flannel.
    pub(crate) fn routed(&self) -> Vec<IpNet> {
        let routes = self.links.routes.values().filter(|route| route.protocol == ROUTE_PROTOCOL);
        routes.filter(|route| route.to != ObservedRouteTo::Blackhole).map(|route| route.subnet).collect()
    }

    /// Reports what another process did, unless that is lost.
    fn notify(&self, notifications: Vec<Notification>, is_heard: bool) {
        let Some(links) = self.link_reports.as_ref().filter(|_| is_heard && !notifications.is_empty()) else {
            return;
        };
        // As from the kernel: what does not fit is lost, and that is reported.
        for notifications in [notifications, vec![Notification::Overflow]] {
            if links.try_send(notifications).is_ok() {
                return;
            }
        }
    }

    pub(crate) fn flush_rules(&mut self, is_heard: bool) {
        self.rules.flush();
        if let Some(rules) = self.rule_reports.as_ref().filter(|_| is_heard) {
            // What does not fit says nothing that the reports before it do not.
            let _full = rules.try_send(Event::Overflow);
        }
    }

    pub(crate) fn flush_routes(&mut self, is_heard: bool) {
        let gone = self.links.routes.extract_if(.., |_, route| route.protocol == ROUTE_PROTOCOL);
        let gone = gone.map(|(_, route)| Notification::Route { route, gone: true }).collect();
        self.notify(gone, is_heard);
    }

    pub(crate) fn flush_fdb(&mut self) {
        let gone = std::mem::take(&mut self.links.fdb).into_iter();
        let gone =
            gone.map(|((interface, _), entry)| Notification::FdbEntry { interface, entry, gone: true });
        self.notify(gone.collect(), true);
    }

    pub(crate) fn flush_neighbors(&mut self) {
        let gone = std::mem::take(&mut self.links.neighbors).into_iter();
        let gone = gone.map(|((interface, address), found)| Notification::Neighbor {
            interface,
            address,
            mac: Some(found.neighbor.mac),
            gone: true,
        });
        self.notify(gone.collect(), true);
    }

    pub(crate) fn delete_device(&mut self) {
        let Some((name, index)) = self.device().map(|device| (device.name, device.index)) else { return };
        self.links.delete_device(name);
        self.notify(vec![Notification::LinkGone { index }], true);
    }

    /// Gives the uplink another address.
    pub(crate) fn renumber(&mut self, to: Ipv4Addr) {
        let mut notifications = Vec::new();
        for uplink in &mut self.links.interfaces {
            for found in &mut uplink.addresses {
                let (interface, from) = (uplink.index, found.address);
                found.address = to.into();
                notifications.push(Notification::Address { interface, address: to.into(), gone: false });
                notifications.push(Notification::Address { interface, address: from, gone: true });
            }
        }
        self.notify(notifications, true);
    }

    /// Ends all subscriptions.
    pub(crate) fn lose_monitors(&mut self) {
        (self.link_reports, self.rule_reports) = (None, None);
    }

    /// Ends all subscriptions and refuses others until then.
    pub(crate) fn refuse_monitors(&mut self, until: Instant) {
        self.lose_monitors();
        self.unmonitored_until = Some(until);
    }

    /// What a restart of the machine leaves.
    pub(crate) fn reboot(&mut self) {
        let interfaces = std::mem::take(&mut self.links.interfaces);
        self.links = flannel_vxlan::FakeKernel::new([]);
        self.links.interfaces = interfaces;
        self.rules = flannel_nft::FakeKernel::default();
        self.text = None;
    }

    fn call(&mut self) {
        if let Some(slow) = self.slow.take() {
            self.busy = Some(slow);
            self.last_slow = Some((Instant::now(), Instant::now() + slow));
        }
    }
}

impl flannel_vxlan::Kernel for SharedHost {
    fn observe(&mut self, links: &[Links]) -> Result<Observed, ObserveError> {
        let mut host = self.lock();
        host.call();
        host.links.observe(links)
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError> {
        let mut host = self.lock();
        host.call();
        let before: Vec<_> =
            host.routed().into_iter().filter(|subnet| host.way_to(*subnet).is_some()).collect();
        let applied = host.links.apply(plan)?;
        let now = Instant::now();
        let lost: Vec<_> = before.into_iter().filter(|subnet| host.way_to(*subnet).is_none()).collect();
        host.lost.extend(lost.iter().map(|subnet| (now, *subnet)));
        host.writes += u64::from(!plan.is_empty());
        let mut line = String::from("links:");
        for step in plan.steps() {
            let _infallible = write!(line, " {};", plan.command(step));
        }
        host.log.push(line);
        let until = host.undo_routes_until;
        drop(host);
        self.undo(until, Host::flush_routes);
        Ok(applied)
    }

    fn interfaces(&mut self) -> Result<Vec<Interface>, ObserveError> {
        let mut host = self.lock();
        host.call();
        host.links.interfaces()
    }

    fn default_routes(&mut self, family: Family) -> Result<Vec<DefaultRoute>, ObserveError> {
        let mut host = self.lock();
        host.call();
        host.links.default_routes(family)
    }

    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, ObserveError> {
        let mut host = self.lock();
        host.call();
        host.links.route_to(address)
    }

    fn wireguard(&mut self, name: IfName) -> Result<Option<ObservedWireguard>, ObserveError> {
        let mut host = self.lock();
        host.call();
        host.links.wireguard(name)
    }
}

impl flannel_nft::Kernel for SharedHost {
    fn generation(&mut self) -> Result<Generation, flannel_nft::ObserveError> {
        let mut host = self.lock();
        host.call();
        host.rules.generation()
    }

    fn tables(&mut self) -> Result<Vec<TableId>, flannel_nft::ObserveError> {
        let mut host = self.lock();
        host.call();
        flannel_nft::Kernel::tables(&mut host.rules)
    }

    fn keeps_owned_tables(&mut self) -> Result<bool, flannel_nft::ObserveError> {
        let mut host = self.lock();
        host.call();
        host.rules.keeps_owned_tables()
    }

    fn observe(&mut self, wanted: &[TableId]) -> Result<flannel_nft::Observed, flannel_nft::ObserveError> {
        let mut host = self.lock();
        host.call();
        host.rules.observe(wanted)
    }

    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Option<Generation>, CommitError> {
        let mut host = self.lock();
        host.call();
        host.writes += u64::from(!transaction.is_empty());
        let sent = host.rules.send(transaction);
        host.log.push(format!("rules: {} changes, {}", transaction.changes().len(), sent.is_ok()));
        let until = host.undo_rules_until;
        drop(host);
        self.undo(until, Host::flush_rules);
        sent
    }
}

/// The error of a refused transaction.
pub(crate) const REFUSAL: Errno = Errno::EBUSY;
