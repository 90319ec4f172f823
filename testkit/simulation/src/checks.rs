//! What must hold at each moment, and once the faults have stopped.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use flannel_lease::etcd::{FakeEntry, FakeEtcd};
use flannel_lease::{LeaseAttributes, LeaseKey, VxlanData};
use flanneld::status::readiness::Readiness;
use ipnet::IpNet;
use tokio::time::Instant;

use crate::host::Host;
use crate::node::Node;
use crate::script::Fault;

/// How long something may be wrong that nothing excuses.
const BOUND: Duration = Duration::from_secs(10);
/// How long a node may be ready although it is not.
const READY_BOUND: Duration = Duration::from_secs(5);
/// How long a lease must have been the same before its peers may not lose it.
const STABLE_AFTER: Duration = Duration::from_secs(15);
/// For how long a wiped store excuses that leases are missing; less than the 30 seconds for which they are kept.
const WIPE_GRACE: Duration = Duration::from_secs(25);
/// How long two nodes that reach the store may have one subnet: the node that loses it waits up to a minute.
const SHARED_BOUND: Duration = Duration::from_secs(90);

/// A lease in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Known {
    value: String,
    /// The revision that last wrote it.
    modified: i64,
    ip: Option<IpAddr>,
    mac: [u8; 6],
    /// Since when it says this.
    since: Instant,
    wiped: Option<Instant>,
}

/// What a fault excuses on a node.
#[derive(Clone, Copy, Debug)]
struct Excuse {
    /// Until when the kernel may be wrong.
    kernel: Instant,
    /// Until when the node may say that it is ready although it is not.
    ready: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Checks {
    leases: BTreeMap<LeaseKey, Known>,
    excuses: BTreeMap<usize, Excuse>,
    /// Until when a node may hold back repairs because another process undid them.
    contests: BTreeMap<usize, Instant>,
    /// Since when each thing is wrong.
    wrong: BTreeMap<(usize, String), Instant>,
    /// What was last noted of each node.
    noted: BTreeMap<usize, (Option<LeaseKey>, Option<Readiness>)>,
    /// The store's revision when it was last read.
    revision: Option<i64>,
    notes: Vec<String>,
    /// When the last faults were.
    faults: Vec<Instant>,
    /// Writes at the start of the present minute.
    minute: Option<(Instant, Vec<u64>, i64)>,
    max_delay: Duration,
}

impl Checks {
    /// A fault of this kind begins, or ends, on a node.
    pub(crate) fn touched(&mut self, number: usize, fault: Fault, lasts: Duration) {
        let now = Instant::now();
        self.faults.push(now);
        let seconds = Duration::from_secs;
        // A full check of devices, peers and routes comes every 60 seconds, one of rules every 5.
        let (kernel, ready) = match fault {
            Fault::FlushRulesSilently => (seconds(6), seconds(6)),
            Fault::FlushRoutesSilently => (seconds(61), seconds(61)),
            // Held back for up to a minute, and reported meanwhile.
            Fault::UndoRules | Fault::UndoRoutes => (lasts + seconds(65), Duration::ZERO),
            Fault::FailReads | Fault::RefusePeers => (lasts + seconds(15), Duration::ZERO),
            // inotify reports no folder that is replaced: it is looked at every 60 seconds.
            Fault::FailDisk => (lasts + seconds(65), seconds(65)),
            // The next attempt to subscribe again comes within 5 seconds.
            Fault::LoseMonitors => (lasts + seconds(6), lasts + seconds(6)),
            _ => (seconds(5), seconds(3)),
        };
        // A change that follows on those of a process that undoes repairs is held to be its doing as well.
        let is_contested = self.contests.get(&number).is_some_and(|until| now < *until);
        let kernel = if is_contested && fault.undoes() { kernel.max(seconds(65)) } else { kernel };
        if matches!(fault, Fault::UndoRules | Fault::UndoRoutes) || is_contested && fault.undoes() {
            self.contests.insert(number, now + kernel);
        }
        if fault == Fault::Wipe {
            self.leases.values_mut().for_each(|lease| lease.wiped = Some(now));
            self.revision = None;
        }
        self.excuse(number, now + kernel, now + ready);
    }

    fn excuse(&mut self, number: usize, kernel: Instant, ready: Instant) {
        let excuse = self.excuses.entry(number).or_insert(Excuse { kernel, ready });
        excuse.kernel = excuse.kernel.max(kernel);
        excuse.ready = excuse.ready.max(ready);
    }

    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Checks everything that must hold at any time.
    pub(crate) fn tick(&mut self, nodes: &[Node], etcd: &FakeEtcd) -> Result<(), String> {
        let now = Instant::now();
        self.max_delay = nodes.iter().map(|node| node.max_delay).max().unwrap_or_default();
        self.read_store(etcd, now);
        for (number, node) in nodes.iter().enumerate() {
            if let Some(failure) = node.failure() {
                return Err(format!("node {number}: {failure}"));
            }
            self.note_node(number, node);
            let slow = node.host.lock().last_slow;
            if let Some((began, ends)) = slow {
                // The watchdog reports a call of more than 15 seconds.
                self.excuse(
                    number,
                    ends + Duration::from_secs(5),
                    (began + Duration::from_secs(20)).min(ends + Duration::from_secs(3)),
                );
            }
            if node.key().is_none() || !node.is_connected {
                let until = now + STABLE_AFTER + 6 * self.max_delay;
                self.excuse(number, until, now);
            }
            self.check_lost(number, node)?;
            self.check_node(number, node, now)?;
        }
        check_overwrites(nodes, etcd)?;
        self.check_shared(nodes, now)?;
        self.check_writes(nodes, etcd, now)
    }

    fn read_store(&mut self, etcd: &FakeEtcd, now: Instant) {
        let revision = Some(etcd.revision());
        if revision == self.revision && self.leases.values().all(|known| known.wiped.is_none()) {
            return;
        }
        self.revision = revision;
        let mut found = BTreeMap::new();
        for entry in etcd.entries() {
            let Some(key) = entry.name.strip_prefix("subnets/").and_then(|key| key.parse().ok()) else {
                continue;
            };
            let Ok(attributes) = LeaseAttributes::from_json(entry.value.as_bytes()) else { continue };
            let mac = attributes.backend_data.as_ref().and_then(|data| data.decode::<VxlanData>().ok());
            let since = self.leases.get(&key).filter(|known| {
                known.value == entry.value && (known.modified == entry.modified || known.wiped.is_some())
            });
            let since = since.map_or(now, |known| known.since);
            let known = Known {
                value: entry.value,
                modified: entry.modified,
                ip: attributes.public_ip.map(IpAddr::V4),
                mac: mac.map_or([0; 6], |data| data.vtep_mac),
                since,
                wiped: None,
            };
            found.insert(key, known);
        }
        for (key, known) in &self.leases {
            if found.get(key).map(|found| &found.value) != Some(&known.value) && known.wiped.is_none() {
                self.notes.push(format!("store: {key} no longer {}", known.value));
            }
            let is_excused = known.wiped.is_some_and(|wiped| now < wiped + WIPE_GRACE);
            if is_excused && !found.contains_key(key) {
                found.insert(*key, known.clone());
            }
        }
        for (key, known) in &found {
            if self.leases.get(key).map(|known| &known.value) != Some(&known.value) {
                self.notes.push(format!("store: {key} = {}", known.value));
            }
        }
        self.leases = found;
    }

    /// Notes what is new of a node.
    fn note_node(&mut self, number: usize, node: &Node) {
        let log = std::mem::take(&mut node.host.lock().log);
        self.notes.extend(log.into_iter().map(|line| format!("node {number}: {line}")));
        let state = (node.key(), node.readiness());
        if self.noted.get(&number) != Some(&state) {
            let readiness = state.1.as_ref().map_or_else(|| "no daemon".to_owned(), Readiness::body);
            self.notes.push(format!("node {number}: {:?} {}", state.0, readiness.replace('\n', "; ")));
            self.noted.insert(number, state);
        }
    }

    /// The leases that this node must reach.
    fn peers<'a>(&'a self, node: &'a Node, own: LeaseKey) -> impl Iterator<Item = (IpNet, &'a Known)> {
        let mac = node.host.lock().device().and_then(|device| device.mac).map(flannel_vxlan::MacAddr::bytes);
        let is_unique = move |key: &LeaseKey, lease: &Known| {
            let differs = |(other, known): (&LeaseKey, &Known)| {
                other == key || (known.ip != lease.ip && known.mac != lease.mac)
            };
            lease.ip != Some(node.address.into()) && Some(lease.mac) != mac && self.leases.iter().all(differs)
        };
        let peers = self.leases.iter().filter(move |(key, lease)| **key != own && is_unique(key, lease));
        peers.flat_map(|(key, lease)| key.subnets().map(move |subnet| (subnet, lease)))
    }

    /// A write of the daemon may not cut off a peer whose lease has not changed.
    fn check_lost(&self, number: usize, node: &Node) -> Result<(), String> {
        let lost = std::mem::take(&mut node.host.lock().lost);
        let (Some(own), false) = (node.key(), lost.is_empty()) else { return Ok(()) };
        let excused = self.excuses.get(&number).map(|excuse| excuse.kernel);
        // Between two looks, a lease may have had the MAC address of another, which peers then leave out.
        let changed = self.leases.values().map(|lease| lease.since).max();
        for (at, subnet) in lost {
            let held = self.peers(node, own).find(|(peer, _)| *peer == subnet);
            if let Some((_, lease)) = held
                && lease.since + STABLE_AFTER < at
                && excused.is_none_or(|until| until < at)
                && changed.is_none_or(|changed| changed + Duration::from_secs(1) < at)
            {
                return Err(format!("node {number}: removed peer {subnet}, whose lease has not changed"));
            }
        }
        Ok(())
    }

    fn check_node(&mut self, number: usize, node: &Node, now: Instant) -> Result<(), String> {
        let Some(own) = node.key() else {
            self.wrong.retain(|(of, _), _| *of != number);
            return Ok(());
        };
        let mut wrong = Vec::new();
        {
            // A daemon that started after the store was wiped does not know the leases that it lost.
            let peers: Vec<_> = self.peers(node, own).filter(|(_, lease)| lease.wiped.is_none()).collect();
            let mut host = node.host.lock();
            wrong.extend(kernel_problems(&mut host, own));
            let lost = peers
                .into_iter()
                .filter(|(subnet, lease)| Some((lease.ip, lease.mac)) != ends(&host, *subnet));
            wrong.extend(lost.map(|(subnet, _)| format!("peer {subnet} is not reached")));
        }
        let mut untrue = wrong.clone();
        let file = fs::read_to_string(node.subnet_file()).unwrap_or_default();
        if !own.v4().is_some_and(|net| file.contains(&net.network().to_string()[..9])) {
            untrue.push("subnet.env is missing or names another subnet".to_owned());
        }
        let is_ready = node.readiness().is_some_and(|readiness| readiness.is_ready());
        let mut states: Vec<_> = wrong.into_iter().collect();
        states.extend(untrue.into_iter().filter(|_| is_ready).map(|text| format!("ready although {text}")));
        if is_ready && node.is_connected {
            let lease = self.leases.get(&own);
            if lease.is_none_or(|lease| lease.ip != Some(node.address.into())) {
                states.push("ready although LEASE in the store is not this node's".to_owned());
            }
        }
        self.wrong.retain(|(of, text), _| *of != number || states.contains(text));
        let excuse = self.excuses.get(&number).copied().unwrap_or(Excuse { kernel: now, ready: now });
        for text in states {
            let is_ready_lie = text.starts_with("ready although");
            let (excused, bound) = match is_ready_lie {
                true if text.contains("LEASE") => (excuse.kernel, 2 * BOUND + 12 * self.max_delay),
                true if text.contains("peer") => (excuse.kernel, BOUND + 12 * self.max_delay),
                true => (excuse.ready, READY_BOUND),
                false => (excuse.kernel, BOUND + 12 * self.max_delay),
            };
            let since = *self.wrong.entry((number, text.clone())).or_insert(now);
            if now > since.max(excused) + bound {
                return Err(format!("node {number}: {text} for {:?}", now - since));
            }
        }
        Ok(())
    }

    /// No two nodes that reach the store have one subnet, unless they have one address.
    fn check_shared(&mut self, nodes: &[Node], now: Instant) -> Result<(), String> {
        for (first, node) in nodes.iter().enumerate() {
            for (second, other) in nodes.iter().enumerate().skip(first + 1) {
                let text = format!("shares its subnet with node {second}");
                let is_shared =
                    node.key().is_some_and(|key| other.key().is_some_and(|other| key.overlaps(other)));
                if !is_shared || node.address == other.address || !node.is_connected || !other.is_connected {
                    self.wrong.remove(&(first, text));
                    continue;
                }
                let since = *self.wrong.entry((first, text.clone())).or_insert(now);
                if now > since + SHARED_BOUND {
                    return Err(format!("node {first} {text} for {:?}", now - since));
                }
            }
        }
        Ok(())
    }

    /// Few writes in each minute, however long another process undoes them.
    fn check_writes(&mut self, nodes: &[Node], etcd: &FakeEtcd, now: Instant) -> Result<(), String> {
        let writes: Vec<u64> = nodes.iter().map(|node| node.host.lock().writes).collect();
        let revision = etcd.revision();
        let (since, before, old_revision) =
            self.minute.get_or_insert_with(|| (now, writes.clone(), revision)).clone();
        if now < since + Duration::from_secs(60) {
            return Ok(());
        }
        self.minute = Some((now, writes.clone(), revision));
        self.faults.retain(|at| now < *at + Duration::from_secs(120));
        let faults = u64::try_from(self.faults.len()).unwrap_or(u64::MAX);
        for (number, (after, before)) in writes.iter().zip(&before).enumerate() {
            let count = after.saturating_sub(*before);
            if count > 25 + 10 * faults {
                return Err(format!(
                    "node {number}: {count} writes to the kernel in a minute after {faults} faults"
                ));
            }
        }
        let count = u64::try_from(revision - old_revision).unwrap_or_default();
        if count > 40 + 12 * faults {
            return Err(format!("{count} writes to the store in a minute after {faults} faults"));
        }
        Ok(())
    }

    /// Checks what must hold some time after the last fault.
    pub(crate) fn settled(&self, nodes: &[Node]) -> Result<(), String> {
        if self.leases.len() != nodes.len() {
            let leases: Vec<_> = self.leases.keys().map(ToString::to_string).collect();
            return Err(format!("not settled: {} nodes have the leases {}", nodes.len(), leases.join(", ")));
        }
        for (number, node) in nodes.iter().enumerate() {
            let fail = |text: String| Err(format!("node {number} has not settled: {text}"));
            let Some(own) = node.key() else { return fail("no lease".to_owned()) };
            match node.readiness() {
                Some(readiness) if readiness.is_ready() => {}
                other => return fail(other.map_or_else(String::new, |readiness| readiness.body())),
            }
            let mut host = node.host.lock();
            if let Some(problem) = kernel_problems(&mut host, own).pop() {
                return fail(problem);
            }
            let others: Vec<IpNet> =
                self.leases.keys().filter(|key| **key != own).flat_map(|key| key.subnets()).collect();
            let mut routed = host.routed();
            routed.retain(|subnet| !own.subnets().any(|own| own == *subnet));
            let mac = host.device().and_then(|device| device.mac).map(flannel_vxlan::MacAddr::bytes);
            drop(host);
            if others.iter().any(|subnet| !routed.contains(subnet))
                || routed.iter().any(|subnet| !others.contains(subnet))
            {
                return fail(format!("routes to {routed:?}, leases of other nodes: {others:?}"));
            }
            let saved = fs::read_to_string(node.state_file()).unwrap_or_default();
            let remembered = own.subnets().chain(others).map(|subnet| subnet.network().to_string());
            let mut remembered = remembered.chain([format!("\"{}\"", node.address)]);
            if let Some(missing) = remembered.find(|text| !saved.contains(text)) {
                return fail(format!("the state file does not have {missing}"));
            }
            let is_own = |lease: &Known| lease.ip == Some(node.address.into()) && Some(lease.mac) == mac;
            if !self.leases.get(&own).is_some_and(is_own) {
                return fail(format!("{own} is not its lease in the store"));
            }
        }
        Ok(())
    }
}

/// No lease passes to another node: an address in a lease is replaced only by a later address of the same node.
fn check_overwrites(nodes: &[Node], etcd: &FakeEtcd) -> Result<(), String> {
    for (before, after) in etcd.take_overwrites() {
        let address = |entry: &FakeEntry| LeaseAttributes::from_json(entry.value.as_bytes()).ok()?.public_ip;
        if let (Some(from), Some(to)) = (address(&before), address(&after))
            && from != to
            && !nodes.iter().any(|node| node.has_had(from) && node.has_had(to))
        {
            return Err(format!("the node with address {to} took the lease {} of {from}", after.name));
        }
    }
    Ok(())
}

fn ends(host: &Host, subnet: IpNet) -> Option<(Option<IpAddr>, [u8; 6])> {
    host.way_to(subnet).map(|(address, mac)| (Some(address), mac))
}

/// What of device and tables is missing or wrong.
fn kernel_problems(host: &mut Host, own: LeaseKey) -> Vec<String> {
    let mut problems = Vec::new();
    let network = own.v4().map(|net| net.network());
    match host.device() {
        Some(device) if device.up => {
            if !device.addresses.iter().any(|(address, _)| Some(*address) == network.map(IpAddr::V4)) {
                problems.push("the device has another address".to_owned());
            }
            let uplinks = host.links.interfaces.iter().flat_map(|uplink| &uplink.addresses);
            let local = device.vxlan().and_then(|vxlan| vxlan.local);
            if !uplinks.into_iter().any(|address| Some(address.address) == local) {
                problems.push("the device sends from an address that the host has no more".to_owned());
            }
        }
        _ => problems.push("the device is missing or down".to_owned()),
    }
    let subnet = own.v4().map(|net| net.to_string()).unwrap_or_default();
    let text = host.rules_text();
    if !text.contains("masquerade") || !text.contains(&subnet) {
        problems.push("the rules are missing".to_owned());
    }
    problems
}
