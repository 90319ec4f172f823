//! What came of a plan, in words.

use std::fmt;

use flannel_netlink::Errno;
use ipnet::IpNet;

use crate::{Applied, Family, NameTaken, Plan, Step, Written};

/// What came of a pass.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Steps that were taken; 0 means that the kernel was not touched.
    pub steps: usize,
    /// What the steps of a full reading wrote; what a change that was noted wrote is not listed.
    pub written: Vec<Written>,
    /// Steps the kernel refused. The peers are tried again after [`Overlay::retry`](crate::Overlay::retry).
    pub refused: Vec<RefusedStep>,
    /// Devices of our names that are not ours. Nothing of that family was done.
    pub taken: Vec<NameTaken>,
    /// Families whose device is not there, so that nothing could be put on it.
    pub without_device: Vec<Family>,
}

impl Report {
    pub(crate) fn new(plan: &Plan, applied: Applied) -> Self {
        let refused = |refusal: crate::StepRefusal| {
            Some(RefusedStep {
                peer: plan.peer_of(refusal.step),
                device: match plan.steps.get(refusal.step)? {
                    Step::Device(family, _) => Some(*family),
                    _ => None,
                },
                command: plan.command(plan.steps.get(refusal.step)?),
                errno: refusal.errno,
                text: refusal.text,
            })
        };
        let refused: Vec<RefusedStep> = applied.refused.into_iter().filter_map(refused).collect();
        Self {
            written: if plan.is_whole { plan.parts() } else { Vec::new() },
            steps: plan.steps.len() - refused.len().min(plan.steps.len()),
            refused,
            taken: plan.taken.clone(),
            without_device: applied.without_device,
        }
    }

    /// Whether the kernel now holds everything that was asked for.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.refused.is_empty() && self.is_clean_but_for_peers()
    }

    /// Whether all that is missing is what single peers were refused, which waits for [`Overlay::retry`](crate::Overlay::retry).
    #[must_use]
    pub fn is_clean_but_for_peers(&self) -> bool {
        let of_peers = self.refused.iter().all(|step| step.peer.is_some());
        of_peers && self.taken.is_empty() && self.without_device.is_empty()
    }
}

/// A step that the kernel refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusedStep {
    /// The peer it was for; `None` if it was about the device or a stale entry.
    pub peer: Option<IpNet>,
    /// The family whose device it was about; `None` if it was about something else.
    pub device: Option<Family>,
    /// The step, as the command that does the same.
    pub command: String,
    /// The error.
    pub errno: Errno,
    /// The kernel's own words, or what is in the way.
    pub text: Option<String>,
}

impl fmt::Display for RefusedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(peer) = self.peer {
            write!(f, "peer {peer}: ")?;
        }
        write!(f, "`{}` refused: {}", self.command, self.errno.desc())?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}
