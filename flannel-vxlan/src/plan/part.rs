//! Parts of the overlay: what a plan writes as a unit, and what can be withheld as a unit.

use std::fmt;

use ipnet::IpNet;

use crate::model::family::Family;
use crate::plan::Plan;
use crate::plan::step::Step;

/// A part of the overlay that is written, and can be [withheld](crate::Overlay::hold), as a unit.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Part {
    /// The tunnel device of a family.
    Device(Family),
    /// Route, nexthop object, neighbor entry and FDB entry of the peer with this subnet; or the peer of a WireGuard device
    /// whose first subnet this is.
    Peer(IpNet),
    /// The blackhole routes, the routes of the networks to WireGuard devices, and the deletion of stale objects.
    Rest,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(family) => write!(f, "the {family} tunnel device"),
            Self::Peer(subnet) => write!(f, "peer {subnet}"),
            Self::Rest => f.write_str("a route of a whole network, or stale entries"),
        }
    }
}

/// A part that a plan wrote.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// The part.
    pub part: Part,
    /// Its first step as a shell command; only for the first 16 parts.
    pub command: Option<String>,
}

/// Number of parts whose first step is reported as a command.
const MAX_COMMANDS: usize = 16;

impl Plan {
    /// The parts that a complete plan writes. Peers that are written because their device was recreated count as part of
    /// the device.
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
            let contains = |earlier: &Written| match (earlier.part, part) {
                (Part::Device(family), Part::Peer(subnet)) => family == Family::of_net(subnet),
                (earlier, part) => earlier == part,
            };
            // Devices come first, and there are at most two.
            if !written.iter().take(2).chain(written.last()).any(contains) {
                let command = (written.len() < MAX_COMMANDS).then(|| self.command(step));
                written.push(Written { part, command });
            }
        }
        written
    }
}
