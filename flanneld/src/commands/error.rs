//! Why a subcommand has no result. Each error names the operation and the object; most come from the libraries.

use std::io;
use std::path::PathBuf;

use flannel_lease::allocate::ChoiceError;
use flannel_lease::{StoreError, StoreErrorKind};
use flannel_nft::NameError;
use flannel_vxlan::RefusedStep;

use crate::config::NetConfError;
use crate::desired::OverlayError;
use crate::node::NodeError;
use crate::run::fatal::Fatal;
use crate::run::instances::claims::PrefixError;
use crate::run::ownership::OwnershipError;
use crate::run::wireguard_key::KeyError;
use crate::serve::status_socket::AskError;

/// Why a subcommand has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The kernel gives no netlink socket.
    #[error(transparent)]
    Open(#[from] flannel_vxlan::OpenError),
    /// Devices, peers or routes cannot be read.
    #[error(transparent)]
    ReadLinks(#[from] flannel_vxlan::ObserveError),
    /// Devices, peers or routes cannot be changed.
    #[error(transparent)]
    WriteLinks(#[from] flannel_vxlan::ConvergeError),
    /// The kernel refuses a device or route.
    #[error("{0}")]
    Refused(RefusedStep),
    /// The nftables tables cannot be read.
    #[error(transparent)]
    ReadRules(#[from] flannel_nft::ObserveError),
    /// The nftables tables cannot be changed.
    #[error(transparent)]
    WriteRules(#[from] flannel_nft::ConvergeError),
    /// None in practice: the names are such that nftables can hold them.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The prefix of the tables cannot be settled.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// Tables cannot be owned on this host.
    #[error(transparent)]
    Ownership(#[from] OwnershipError),
    /// There is no private key for backend `wireguard`.
    #[error(transparent)]
    WireguardKey(#[from] KeyError),
    /// The network configuration in the lease store cannot be used.
    #[error(transparent)]
    NetConf(#[from] NetConfError),
    /// The backend does not work on this node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The overlay gets a value that the kernel does not accept.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// What would end a start.
    #[error(transparent)]
    Start(#[from] Fatal),
    /// The lease store refuses, or cannot be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lease store gives no usable answer in time.
    #[error("the lease store gives no usable answer: {0}")]
    StoreSilent(String),
    /// There is no subnet for this node.
    #[error(transparent)]
    NoSubnet(#[from] ChoiceError),
    /// The lease store is away, and the state file does not help.
    #[error("{cause}; the state file cannot be used instead: {problem}")]
    StateFile {
        /// Why the lease store is away.
        cause: String,
        /// Why the state file cannot be used.
        problem: String,
    },
    /// A daemon would put everything back.
    #[error("flanneld runs on this host ({0}) and would restore everything: stop it first, or pass --force")]
    Running(String),
    /// The daemon does not report its status.
    #[error(transparent)]
    Status(#[from] AskError),
    /// The processes of this host cannot be listed; the cause names the file.
    #[error("cannot list the flanneld processes of this host")]
    Processes(#[source] io::Error),
    /// A file cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// Such as `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// None in practice: serialization is fallible by signature.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl CommandError {
    /// Whether the lease store may answer later.
    pub(super) fn is_store_away(&self) -> bool {
        match self {
            Self::Store(error) => error.kind == StoreErrorKind::Unavailable,
            Self::StoreSilent(_) => true,
            _ => false,
        }
    }
}
