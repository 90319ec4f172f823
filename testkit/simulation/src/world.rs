//! The nodes and their store, and what the faults of a script do to them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flannel_lease::etcd::FakeEtcd;
use flannel_lease::{BackendData, LeaseAttributes, VxlanData};
use tokio::time::{Instant, sleep, sleep_until};

use crate::checks::Checks;
use crate::host::{Host, REFUSAL, SharedHost};
use crate::node::Node;
use crate::script::{Event, Fault, Script};

/// How often everything is checked.
const TICK: Duration = Duration::from_millis(250);
/// How long after the last fault everything must be as it should be: leases that nobody renews end after 120 seconds.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(260);
/// How often that is looked at.
const SETTLE_STEP: Duration = Duration::from_secs(5);
/// When the last repairs are done.
const REPAIR_TIME: Duration = Duration::from_secs(65);
/// For how long nothing may be written then: a renewal and a full check of the kernel come within it.
const QUIET_TIME: Duration = Duration::from_secs(75);
/// Most nodes, clones included.
const MAX_NODES: usize = 5;
/// So few subnets that nodes which choose at the same time often choose the same.
const NET_CONF: &str = r#"{"Network": "10.244.0.0/20", "Backend": {"Type": "vxlan"}}"#;

pub(crate) struct World {
    pub(crate) etcd: FakeEtcd,
    pub(crate) nodes: Vec<Node>,
    pub(crate) start: Instant,
    addresses: u8,
    /// What ends later, and on which node.
    ends: Vec<(Instant, Fault, usize)>,
    checks: Checks,
    pub(crate) trace: Vec<String>,
}

/// What came of a simulation.
pub(crate) struct Outcome {
    /// All that happened, in order.
    pub(crate) trace: Vec<String>,
    /// The first thing that was wrong.
    pub(crate) violation: Option<String>,
}

/// Runs a script to its end, or to the first violation.
pub(crate) async fn run(script: &Script, start: Instant) -> std::io::Result<Outcome> {
    let memory = Path::new("/dev/shm");
    // No other simulation asks for the same name: tempfile would draw random numbers again, and they belong to the seed.
    let name = format!("simulate-{}-", std::process::id());
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix(&name);
    let folder = if memory.is_dir() { folder.tempdir_in(memory)? } else { folder.tempdir()? };
    // Messages name files: with relative paths they do not depend on the name either.
    std::env::set_current_dir(folder.path())?;
    let etcd = FakeEtcd::default();
    etcd.put("config", NET_CONF);
    let mut world = World {
        etcd,
        nodes: Vec::new(),
        start,
        addresses: 0,
        ends: Vec::new(),
        checks: Checks::default(),
        trace: Vec::new(),
    };
    for _ in 0..script.nodes {
        let address = world.new_address();
        world.add_node(format!("node{}", world.nodes.len()), address)?;
    }
    let violation = world.play(script).await.err();
    Ok(Outcome { trace: world.trace, violation })
}

impl World {
    fn new_address(&mut self) -> Ipv4Addr {
        self.addresses += 1;
        Ipv4Addr::new(192, 168, 0, self.addresses)
    }

    fn add_node(&mut self, name: String, address: Ipv4Addr) -> std::io::Result<()> {
        let number = self.nodes.len();
        let folder = PathBuf::from(format!("machine{number}"));
        fs::create_dir(&folder)?;
        let host = SharedHost::new(u8::try_from(number).unwrap_or(u8::MAX), address);
        let max_delay = Duration::from_millis(5);
        let former_addresses = Vec::new();
        let mut node = Node {
            name,
            address,
            former_addresses,
            host,
            folder,
            is_connected: true,
            max_delay,
            daemon: None,
        };
        node.start(&self.etcd);
        self.nodes.push(node);
        Ok(())
    }

    pub(crate) fn note(&mut self, text: impl std::fmt::Display) {
        let at = self.start.elapsed().as_millis();
        self.trace.push(format!("{at:>7} {text}"));
    }

    async fn play(&mut self, script: &Script) -> Result<(), String> {
        // Time for a first lease.
        self.until(self.start + Duration::from_secs(5)).await?;
        let start = Instant::now();
        for event in &script.events {
            self.until(start + Duration::from_millis(event.at)).await?;
            self.note(format_args!("FAULT {event}"));
            self.make(*event).map_err(|error| format!("the simulation itself failed: {error}"))?;
        }
        let last = self.ends.iter().map(|(at, ..)| *at).max();
        self.until(last.unwrap_or(start).max(Instant::now()) + TICK).await?;
        self.note("FAULTS END");
        self.end_faults();
        let end = Instant::now() + SETTLE_TIMEOUT;
        while let Err(problem) = self.checks.settled(&self.nodes) {
            if Instant::now() >= end {
                return Err(problem);
            }
            self.until(Instant::now() + SETTLE_STEP).await?;
        }
        self.note("SETTLED");
        // What a lost notification hides is repaired by the next full check, and what another process undid when its pause ends.
        self.until(Instant::now() + REPAIR_TIME).await?;
        let counts = |world: &Self| {
            let writes: Vec<u64> = world.nodes.iter().map(|node| node.host.lock().writes).collect();
            (writes, world.etcd.revision())
        };
        let before = counts(self);
        self.until(Instant::now() + QUIET_TIME).await?;
        let after = counts(self);
        if before != after {
            return Err(format!("written although nothing happened: {before:?} -> {after:?}"));
        }
        self.checks.settled(&self.nodes)
    }

    async fn until(&mut self, end: Instant) -> Result<(), String> {
        loop {
            let next = (Instant::now() + TICK).min(end);
            sleep_until(next).await;
            self.end_due();
            let noted = self.checks.tick(&self.nodes, &self.etcd);
            for line in self.checks.take_notes() {
                self.note(line);
            }
            noted?;
            if next >= end {
                return Ok(());
            }
        }
    }

    /// Ends what lasts only for a while.
    fn end_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.ends.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, fault, number) in due {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            match fault {
                Fault::FailReads => node.host.lock().links.unreadable = None,
                Fault::RefusePeers => node.host.lock().links.refused_peers.clear(),
                Fault::FailDisk => {
                    let _gone = fs::remove_file(&node.folder);
                    let _restored = fs::rename(node.folder.with_extension("away"), &node.folder);
                }
                _ => {}
            }
            self.checks.touched(number, fault, Duration::ZERO);
            self.note(format_args!("end of {fault:?} on {number}"));
        }
    }

    fn end_faults(&mut self) {
        let mut seen = Vec::new();
        for number in 0..self.nodes.len() {
            let address = self.new_address();
            let Some(node) = self.nodes.get_mut(number) else { continue };
            node.connect(true, Duration::from_millis(5));
            if seen.contains(&node.address) {
                node.renumber(address);
            }
            seen.push(node.address);
            node.start(&self.etcd);
            node.host.lock().slow = None;
            node.host.lock().rules.refuse_next(u32::MAX, REFUSAL);
            self.checks.touched(number, Fault::Renumber, Duration::ZERO);
        }
    }

    fn make(&mut self, Event { fault, node, argument, .. }: Event) -> std::io::Result<()> {
        let number = node % self.nodes.len().max(1);
        let (now, seconds) = (Instant::now(), Duration::from_secs(argument));
        let fresh = if fault == Fault::Renumber { Some(self.new_address()) } else { None };
        let lasts = if fault.lasts() { seconds } else { Duration::ZERO };
        let Some(node) = self.nodes.get_mut(number) else { return Ok(()) };
        self.checks.touched(number, fault, lasts);
        let host = |change: fn(&mut Host)| change(&mut node.host.lock());
        match fault {
            Fault::Kill => node.kill(),
            Fault::Start => node.start(&self.etcd),
            Fault::Reboot => {
                node.kill();
                node.host.lock().reboot();
                node.start(&self.etcd);
            }
            Fault::Cut => node.connect(false, node.max_delay),
            Fault::Mend => node.connect(true, node.max_delay),
            Fault::Delay => {
                for node in &mut self.nodes {
                    node.connect(node.is_connected, Duration::from_millis(argument));
                }
            }
            Fault::Wipe => {
                self.etcd.wipe();
                self.etcd.put("config", NET_CONF);
            }
            Fault::Compact => self.etcd.compact(),
            Fault::DeleteLease => {
                if let Some(key) = node.key() {
                    self.etcd.delete(&format!("subnets/{key}"));
                }
            }
            Fault::UndoLease => {
                if let Some(key) = node.key() {
                    tokio::spawn(undo_lease(self.etcd.clone(), format!("subnets/{key}"), now + seconds));
                }
            }
            Fault::Clone => {
                let (from, name, address) = (node.folder.clone(), node.name.clone(), node.address);
                if self.nodes.len() < MAX_NODES {
                    self.clone_node(&from, name, address)?;
                }
            }
            Fault::Renumber => {
                if let Some(address) = fresh {
                    node.renumber(address);
                }
            }
            Fault::FlushRules => host(|host| host.flush_rules(true)),
            Fault::FlushRulesSilently => host(|host| host.flush_rules(false)),
            Fault::FlushRoutes => host(|host| host.flush_routes(true)),
            Fault::FlushRoutesSilently => host(|host| host.flush_routes(false)),
            Fault::FlushFdb => host(Host::flush_fdb),
            Fault::FlushNeighbors => host(Host::flush_neighbors),
            Fault::DeleteDevice => host(Host::delete_device),
            Fault::UndoRules => {
                node.host.lock().undo_rules_until = Some(now + seconds);
                host(|host| host.flush_rules(true));
            }
            Fault::UndoRoutes => {
                node.host.lock().undo_routes_until = Some(now + seconds);
                host(|host| host.flush_routes(true));
            }
            Fault::FailReads => node.host.lock().links.unreadable = Some("a fault".to_owned()),
            Fault::RefuseRules => node.host.lock().rules.refuse_next(0, REFUSAL),
            Fault::RefusePeers => {
                let network: Vec<ipnet::IpNet> =
                    (1..=255).filter_map(|n| format!("10.244.{n}.0/24").parse().ok()).collect();
                node.host.lock().links.refused_peers.extend(network);
            }
            Fault::Slow => node.host.lock().slow = Some(Duration::from_millis(argument)),
            Fault::FailDisk => {
                let away = node.folder.with_extension("away");
                if !away.exists() {
                    fs::rename(&node.folder, away)?;
                    fs::write(&node.folder, "")?;
                }
            }
            Fault::LoseMonitors => node.host.lock().refuse_monitors(now + seconds),
            Fault::RemoveSubnetFile => {
                let _missing = fs::remove_file(node.subnet_file());
            }
        }
        if fault.lasts() {
            self.ends.push((now + lasts, fault, number));
        }
        Ok(())
    }

    fn clone_node(&mut self, from: &Path, name: String, address: Ipv4Addr) -> std::io::Result<()> {
        self.add_node(name, address)?;
        // The daemon has not been polled yet: it finds the files.
        if let Some(clone) = self.nodes.last() {
            for file in fs::read_dir(from).into_iter().flatten().flatten() {
                fs::copy(file.path(), clone.folder.join(file.file_name()))?;
            }
        }
        Ok(())
    }
}

/// Changes a lease again after each change, like a controller that thinks it knows better.
async fn undo_lease(etcd: FakeEtcd, name: String, end: Instant) {
    while Instant::now() < end {
        let entry = etcd.entries().into_iter().find(|entry| entry.name == name);
        let attributes = entry.and_then(|entry| LeaseAttributes::from_json(entry.value.as_bytes()).ok());
        let wrong: Option<BackendData> = VxlanData::new(1, [2, 0, 0, 0, 9, 9]).to_backend_data().ok();
        if let Some(found) = attributes.filter(|found| found.backend_data != wrong)
            && let Ok(json) = (LeaseAttributes { backend_data: wrong, ..found }).to_json()
        {
            etcd.overwrite(&name, &json);
        }
        sleep(Duration::from_millis(50)).await;
    }
}
