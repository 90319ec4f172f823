//! Ordered steps that bring the kernel to the desired state. Each can be repeated without harm.

pub(crate) mod command;
pub(crate) mod device_diff;
pub(crate) mod diff;
pub(crate) mod observed_index;
pub(crate) mod part;
pub(crate) mod report;
pub(crate) mod step;
pub(crate) mod teardown;
pub(crate) mod wireguard;

use std::fmt;

use ipnet::IpNet;

use crate::model::device::NameTaken;
use crate::model::family::{Family, PerFamily};
use crate::model::family_spec::{FamilySpec, Links};
use crate::model::objects::{ROUTE_PROTOCOL, Route};
use crate::plan::command::Command;
use crate::plan::step::Step;

/// Ordered changes to the kernel. `Display` prints a shell script of `ip` and `bridge` commands.
///
/// A plan is not atomic, because rtnetlink has no transactions. Instead, the kernel misroutes no packet after any
/// prefix of a plan, and the next plan completes one that was cut short. A device that has to be recreated loses its
/// routes first: the kernel takes time quadratic in their number to delete a device that still has them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use = "a plan changes nothing until it is applied"]
pub struct Plan {
    pub(crate) links: PerFamily<Option<Links>>,
    /// Indexes of the VXLAN devices; 0 for one to look up when the plan is applied.
    pub(crate) devices: PerFamily<u32>,
    pub(crate) steps: Vec<Step>,
    pub(crate) peers: Vec<PeerSteps>,
    pub(crate) taken: Vec<NameTaken>,
    /// Whether the plan comes from a complete observation of the kernel.
    pub(crate) is_complete: bool,
}

/// Which steps of a plan belong to one peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PeerSteps {
    pub(crate) subnet: IpNet,
    pub(crate) first: usize,
    pub(crate) end: usize,
}

impl Plan {
    /// A plan without steps, for the devices of these families.
    pub(crate) fn new(families: &PerFamily<Option<FamilySpec>>) -> Self {
        let links = PerFamily::from_fn(|family| families[family].as_ref().map(FamilySpec::links));
        Self { links, ..Self::default() }
    }

    /// Appends the steps that write a route. `elsewhere`: the route that is replaced may leave through another
    /// interface.
    pub(crate) fn put_route(&mut self, route: Route, replace: bool, elsewhere: bool) {
        let temporary = route.temporary_gateway_route().filter(|_| elsewhere);
        self.steps.extend(temporary.map(|route| Step::PutRoute { route, replace: false }));
        self.steps.push(Step::PutRoute { route, replace });
        self.steps.extend(temporary.map(|route| Step::DeleteRoute {
            subnet: route.subnet,
            metric: route.metric(),
            protocol: ROUTE_PROTOCOL,
        }));
    }

    /// Appends the steps of one peer, which begin at `first`.
    pub(crate) fn end_peer(&mut self, subnet: IpNet, first: usize) {
        self.peers.push(PeerSteps { subnet, first, end: self.steps.len() });
    }

    /// Whether the plan has no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps in the order in which the kernel has to receive them.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The interfaces of this family's steps; `None` if the plan has none for the family.
    #[must_use]
    pub fn links(&self, family: Family) -> Option<&Links> {
        self.links[family].as_ref()
    }

    /// Devices of other programs that have the names of desired devices. The plan contains nothing for their families.
    #[must_use]
    pub fn taken(&self) -> &[NameTaken] {
        &self.taken
    }

    /// The step as a shell command.
    #[must_use]
    pub fn command(&self, step: &Step) -> String {
        Command { links: &self.links, step }.to_string()
    }

    /// The peer of step number `step`; `None` if the step is about a device or a stale object.
    #[must_use]
    pub fn peer_of(&self, step: usize) -> Option<IpNet> {
        let after = self.peers.partition_point(|peer| peer.end <= step);
        self.peers.get(after).filter(|peer| peer.first <= step).map(|peer| peer.subnet)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{}", Command { links: &self.links, step }))
    }
}
