//! Faults and when they happen: drawn from a seed, written and read as text, and made shorter.

use std::fmt;
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Nodes that a simulation starts with.
const NODES: usize = 3;
/// Most faults of one script.
const MAX_FAULTS: u64 = 25;
/// Longest time between two faults, in milliseconds.
const MAX_PAUSE: u64 = 12_000;

/// What can happen to a node, or to the store. `argument` is in the unit that is named here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// The daemon is killed.
    Kill,
    /// The daemon is started, if it does not run.
    Start,
    /// The daemon is killed, and the kernel forgets everything.
    Reboot,
    /// The network to the store is cut.
    Cut,
    /// The network to the store works again.
    Mend,
    /// Messages to and from the store take up to this many milliseconds.
    Delay,
    /// The store loses all data.
    Wipe,
    /// The store forgets its history.
    Compact,
    /// An operator deletes the node's lease.
    DeleteLease,
    /// Another process changes the node's lease after each change, for this many seconds.
    UndoLease,
    /// A clone of the machine starts, with the same files, name and address.
    Clone,
    /// The uplink gets another address.
    Renumber,
    /// Another process flushes all rules.
    FlushRules,
    /// The same, and the kernel's notification is lost.
    FlushRulesSilently,
    /// Another process flushes flannel's routes.
    FlushRoutes,
    /// The same, and the kernel's notifications are lost.
    FlushRoutesSilently,
    /// Another process flushes the FDB.
    FlushFdb,
    /// Another process flushes the neighbor entries.
    FlushNeighbors,
    /// Another process deletes the VXLAN device.
    DeleteDevice,
    /// Another process flushes the rules after each write, for this many seconds.
    UndoRules,
    /// Another process flushes the routes after each write, for this many seconds.
    UndoRoutes,
    /// Links and routes cannot be read for this many seconds.
    FailReads,
    /// The next transaction of rules is refused.
    RefuseRules,
    /// The kernel refuses all peers for this many seconds.
    RefusePeers,
    /// The next call to the kernel takes this many milliseconds.
    Slow,
    /// The folder of subnet.env and the state file cannot be used for this many seconds.
    FailDisk,
    /// Another process removes subnet.env.
    RemoveSubnetFile,
    /// The subscriptions to the kernel's notifications end, and the kernel refuses others for this many seconds.
    LoseMonitors,
}

impl Fault {
    /// Whether its argument is how long it lasts, in seconds.
    pub(crate) fn lasts(self) -> bool {
        matches!(
            self,
            Self::UndoLease
                | Self::UndoRules
                | Self::UndoRoutes
                | Self::FailReads
                | Self::RefusePeers
                | Self::FailDisk
                | Self::LoseMonitors
        )
    }

    /// Whether it removes what the daemon wrote to the kernel.
    pub(crate) fn undoes(self) -> bool {
        matches!(
            self,
            Self::FlushRules
                | Self::FlushRulesSilently
                | Self::FlushRoutes
                | Self::FlushRoutesSilently
                | Self::FlushFdb
                | Self::FlushNeighbors
                | Self::DeleteDevice
        )
    }
}

/// Name, weight, and the bounds of the argument.
const FAULTS: [(Fault, &str, u32, (u64, u64)); 28] = [
    (Fault::Kill, "kill", 3, (0, 0)),
    (Fault::Start, "start", 6, (0, 0)),
    (Fault::Reboot, "reboot", 2, (0, 0)),
    (Fault::Cut, "cut", 4, (0, 0)),
    (Fault::Mend, "mend", 5, (0, 0)),
    (Fault::Delay, "delay", 2, (0, 1500)),
    (Fault::Wipe, "wipe", 2, (0, 0)),
    (Fault::Compact, "compact", 2, (0, 0)),
    (Fault::DeleteLease, "delete-lease", 2, (0, 0)),
    (Fault::UndoLease, "undo-lease", 2, (5, 100)),
    (Fault::Clone, "clone", 2, (0, 0)),
    (Fault::Renumber, "renumber", 4, (0, 0)),
    (Fault::FlushRules, "flush-rules", 2, (0, 0)),
    (Fault::FlushRulesSilently, "flush-rules-silently", 2, (0, 0)),
    (Fault::FlushRoutes, "flush-routes", 2, (0, 0)),
    (Fault::FlushRoutesSilently, "flush-routes-silently", 2, (0, 0)),
    (Fault::FlushFdb, "flush-fdb", 2, (0, 0)),
    (Fault::FlushNeighbors, "flush-neighbors", 2, (0, 0)),
    (Fault::DeleteDevice, "delete-device", 2, (0, 0)),
    (Fault::UndoRules, "undo-rules", 2, (5, 100)),
    (Fault::UndoRoutes, "undo-routes", 2, (5, 100)),
    (Fault::FailReads, "fail-reads", 2, (1, 20)),
    (Fault::RefuseRules, "refuse-rules", 2, (0, 0)),
    (Fault::RefusePeers, "refuse-peers", 2, (1, 40)),
    (Fault::Slow, "slow", 2, (100, 30_000)),
    (Fault::FailDisk, "fail-disk", 2, (5, 100)),
    (Fault::RemoveSubnetFile, "remove-subnet-file", 2, (0, 0)),
    (Fault::LoseMonitors, "lose-monitors", 2, (1, 20)),
];

/// A fault, and when it happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Event {
    /// In milliseconds from the start.
    pub(crate) at: u64,
    pub(crate) fault: Fault,
    /// Which node, counted round.
    pub(crate) node: usize,
    pub(crate) argument: u64,
}

/// All that happens in a simulation. The text is `seed SEED nodes NODES`, then a line `MILLISECONDS FAULT NODE ARGUMENT` for
/// each event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) events: Vec<Event>,
}

impl Script {
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let total: u32 = FAULTS.iter().map(|(_, _, weight, _)| weight).sum();
        let (mut at, mut events) = (0, Vec::new());
        for _ in 0..rng.random_range(3..=MAX_FAULTS) {
            // Half of them soon after another.
            let longest = if rng.random_bool(0.5) { MAX_PAUSE } else { 500 };
            at += rng.random_range(0..=longest);
            let mut draw = rng.random_range(0..total);
            let found = FAULTS.iter().find(|(_, _, weight, _)| match draw.checked_sub(*weight) {
                Some(rest) => {
                    draw = rest;
                    false
                }
                None => true,
            });
            let Some((fault, _, _, (least, most))) = found else { continue };
            let (node, argument) = (rng.random_range(0..NODES + 1), rng.random_range(*least..=*most));
            events.push(Event { at, fault: *fault, node, argument });
        }
        Self { seed, nodes: NODES, events }
    }

    /// Leaves out events for as long as `fails` still holds, which is asked 150 times at most.
    pub(crate) fn shrink(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut left = 150;
        let mut length = self.events.len().div_ceil(2);
        while length > 0 {
            let mut first = 0;
            while first < self.events.len() && left > 0 {
                let mut shorter = self.clone();
                shorter.events.drain(first..(first + length).min(self.events.len()));
                left -= 1;
                if fails(&shorter) { self = shorter } else { first += length }
            }
            length = if length == 1 { 0 } else { length.div_ceil(2) };
        }
        self
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} nodes {}", self.seed, self.nodes)?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FAULTS.iter().find(|(fault, ..)| *fault == self.fault).map_or("", |(_, name, ..)| name);
        write!(f, "{} {name} {} {}", self.at, self.node, self.argument)
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let head: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        let ["seed", seed, "nodes", nodes] = head[..] else {
            return Err("the first line is not `seed SEED nodes NODES`".to_owned());
        };
        let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        let event = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [at, name, node, argument] = words[..] else {
                return Err(format!("{line}: not `MILLISECONDS FAULT NODE ARGUMENT`"));
            };
            let fault = FAULTS.iter().find(|(_, known, ..)| *known == name);
            let fault = fault.map(|(fault, ..)| *fault).ok_or_else(|| format!("unknown fault {name}"))?;
            let node = usize::try_from(number(node)?).map_err(|error| error.to_string())?;
            Ok(Event { at: number(at)?, fault, node, argument: number(argument)? })
        };
        Ok(Self {
            seed: number(seed)?,
            nodes: usize::try_from(number(nodes)?).map_err(|error| error.to_string())?,
            events: lines.map(event).collect::<Result<_, String>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_is_written() {
        for seed in 0..100 {
            let script = Script::of_seed(seed);
            assert_eq!(script.to_string().parse(), Ok(script));
        }
    }

    #[test]
    fn shrinking_leaves_what_is_needed_to_fail() {
        let fails = |script: &Script| script.events.iter().any(|event| event.fault == Fault::Wipe);
        let failing = (0..).map(Script::of_seed).find(fails).unwrap();
        let shrunk = failing.shrink(fails);
        assert!(matches!(shrunk.events[..], [Event { fault: Fault::Wipe, .. }]), "{shrunk}");
    }
}
