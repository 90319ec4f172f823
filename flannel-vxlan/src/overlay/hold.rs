//! What is not repaired for a while, because another process keeps undoing its repair.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;

use crate::{Family, Overlay, Plan, Step};

/// A part of the overlay that is written, and can be withheld, as one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Part {
    /// The VXLAN device of a family.
    Device(Family),
    /// Route, nexthop, neighbor and FDB entry of the peer with this subnet.
    Peer(IpNet),
    /// The blackhole route, and the deletion of stale entries.
    Rest,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(family) => write!(f, "the {family} VXLAN device"),
            Self::Peer(subnet) => write!(f, "peer {subnet}"),
            Self::Rest => f.write_str("a blackhole route or stale entries"),
        }
    }
}

/// A part that a plan wrote.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// The part.
    pub part: Part,
    /// Its first step, as the command that does the same; only for the first 16 parts.
    pub command: Option<String>,
}

/// Parts whose first step is told as a command.
const COMMANDS: usize = 16;

impl Overlay {
    /// Withholds the repair of these parts, and of no others, until the next call: [`Overlay::converge`] leaves what is
    /// there of them as it is. Changes that are asked for are written. Default: none.
    pub fn hold(&mut self, parts: BTreeSet<Part>) {
        self.hold = parts;
    }
}

impl Plan {
    /// The parts that a whole plan writes. What is written anew because its device is counts as the device.
    pub(crate) fn parts(&self) -> Vec<Written> {
        let mut written: Vec<Written> = Vec::new();
        let mut peers = self.peers.iter().peekable();
        let mut at = 0;
        while let Some(step) = self.steps.get(at) {
            let (part, next) = match (step, peers.peek()) {
                (Step::Device(family, _), _) => (Part::Device(*family), at + 1),
                (_, Some(peer)) if peer.first == at => (Part::Peer(peer.subnet), peer.end.max(at + 1)),
                _ => (Part::Rest, at + 1),
            };
            peers.next_if(|peer| peer.first == at);
            at = next;
            let follows = |device: &Written| match (device.part, part) {
                (Part::Device(family), Part::Peer(subnet)) => family == Family::of_net(subnet),
                (known, part) => known == part,
            };
            // Devices come first, and there are two.
            if !written.iter().take(2).chain(written.last()).any(follows) {
                let command = (written.len() < COMMANDS).then(|| self.command(step));
                written.push(Written { part, command });
            }
        }
        written
    }
}
