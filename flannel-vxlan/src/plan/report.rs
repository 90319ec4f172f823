//! The result of a plan, in words.

use std::fmt;
use std::net::IpAddr;

use flannel_netlink::Errno;
use ipnet::IpNet;

use crate::error::StepRefusal;
use crate::kernel::Applied;
use crate::model::device::NameTaken;
use crate::model::family::Family;
use crate::plan::Plan;
use crate::plan::part::Written;
use crate::plan::step::Step;

/// The result of a [flush](crate::Overlay::flush) or [converge](crate::Overlay::converge).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Number of applied steps; 0 means that nothing was written.
    pub steps: usize,
    /// The parts that a [converge](crate::Overlay::converge) wrote; empty for a flush of noted changes.
    pub written: Vec<Written>,
    /// Steps that the kernel refused. [`Overlay::retry`](crate::Overlay::retry) makes the next flush try their peers again.
    pub refused: Vec<RefusedStep>,
    /// Devices of other programs that have the names of desired devices. Nothing was written for their families.
    pub taken: Vec<NameTaken>,
    /// Families whose device does not exist, so that nothing could be written to it.
    pub without_device: Vec<Family>,
}

impl Report {
    /// `underlay_of`: the underlay address of a peer.
    pub(crate) fn new(plan: &Plan, applied: Applied, underlay_of: impl Fn(IpNet) -> Option<IpAddr>) -> Self {
        let refused = |refusal: StepRefusal| {
            let step = plan.steps.get(refusal.step)?;
            let peer = plan.peer_of(refusal.step);
            Some(RefusedStep {
                peer,
                underlay: peer.and_then(&underlay_of),
                device: match step {
                    Step::Device(family, _) => Some(*family),
                    _ => None,
                },
                command: plan.command(step),
                errno: refusal.errno,
                text: refusal.text,
            })
        };
        let refused: Vec<RefusedStep> = applied.refused.into_iter().filter_map(refused).collect();
        Self {
            written: if plan.is_complete { plan.parts() } else { Vec::new() },
            steps: plan.steps.len() - refused.len().min(plan.steps.len()),
            refused,
            taken: plan.taken.clone(),
            without_device: applied.without_device,
        }
    }

    /// Whether the kernel now holds the desired state.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.refused.is_empty() && self.is_clean_but_for_peers()
    }

    /// Whether the kernel now holds the desired state except for single peers that it refused. They wait for
    /// [`Overlay::retry`](crate::Overlay::retry).
    #[must_use]
    pub fn is_clean_but_for_peers(&self) -> bool {
        let only_peers = self.refused.iter().all(|step| step.peer.is_some());
        only_peers && self.taken.is_empty() && self.without_device.is_empty()
    }
}

/// A step that the kernel refused.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RefusedStep {
    /// The peer that the step was for; `None` for a device or a stale object.
    pub peer: Option<IpNet>,
    /// The peer's underlay address; `None` if the peer was removed.
    pub underlay: Option<IpAddr>,
    /// The family whose device the step was for; `None` if it was not for a device.
    pub device: Option<Family>,
    /// The step as a shell command.
    pub command: String,
    /// The error number.
    pub errno: Errno,
    /// The kernel's explanation, or what prevents the step.
    pub text: Option<String>,
}

impl fmt::Display for RefusedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.peer, self.underlay) {
            (Some(peer), Some(underlay)) => write!(f, "peer {peer} (node {underlay}): ")?,
            (Some(peer), None) => write!(f, "peer {peer}: ")?,
            (None, _) => {}
        }
        write!(f, "the kernel refused `{}`: {}", self.command, self.errno)?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}
