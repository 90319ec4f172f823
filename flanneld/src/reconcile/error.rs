//! Results and errors of reconcile passes.

use std::io;

use flannel_nft::NameError;
use flannel_vxlan::{ApplyError, Family, ObserveError};

use crate::desired::OverlayError;
use crate::node::NodeError;
use crate::run::subnet_env::SubnetFileError;

/// How far a pass got that did not fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub(super) enum Pass {
    /// The kernel, or the file, holds everything desired.
    Done,
    /// Some objects were refused. The pass is repeated with backoff.
    Again,
}

/// Why a pass failed. It is repeated with backoff.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Desired(#[from] DesiredError),
    #[error(transparent)]
    Rules(#[from] flannel_nft::ConvergeError),
    #[error(transparent)]
    Overlay(#[from] flannel_vxlan::ConvergeError),
    /// A device of another program has a name that flanneld needs, or the kernel refused to change flanneld's device.
    #[error("{0}")]
    Device(String),
    #[error("no {family} device, so this node does not reach {family} pods of other nodes: {reason}")]
    NoDevice { family: Family, reason: String },
    #[error(transparent)]
    SubnetFile(#[from] SubnetFileError),
}

impl PassError {
    /// Whether the kernel may have taken the new rules although this is an error.
    pub(super) fn may_be_applied(&self) -> bool {
        matches!(self, Self::Rules(flannel_nft::ConvergeError::Commit(error)) if error.may_be_applied())
    }
}

/// Why what earlier configurations left cannot be removed now.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("cannot list the flanneld processes of this host")]
    Instances(#[from] io::Error),
}

/// Why the interface to other nodes is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The kernel did not list its interfaces or routes.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// No interface matches, or the chosen one cannot be used.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Why the desired state cannot be derived from configuration and node facts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DesiredError {
    /// A table, chain or set gets a name that nftables does not accept.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A device or route gets a value that the kernel does not accept.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The backend does not work on this node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The attributes to publish cannot be encoded.
    #[error("cannot encode the lease attributes of this node")]
    Attributes(#[from] serde_json::Error),
}
