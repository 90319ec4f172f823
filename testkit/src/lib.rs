//! Network-namespace lab, goldens and the demo; for tests only.
//!
//! - [`netns`] runs a closure in a fresh network namespace that vanishes with it.
//! - [`sh`] runs a command there; [`golden`] compares text with a checked-in file.
//! - [`without_net_admin`] runs a test again as a process that may not change the namespace.
//! - [`check_uapi`] compares constants with the installed kernel headers.
//! - [`Lab`] is a network of nodes, an outside host and a switch between them; [`Node::add_pod`] makes pods with the
//!   real CNI plugins; [`Flannel`] runs daemons that share a lease file.
//! - [`KubeApiserver`] is a real Kubernetes API server; `FakeApi` is one in memory.
//! - [`NewFlows`] counts packets that leave a pod lost or un-masqueraded; [`RoundTrips`] counts what is lost between
//!   pods, [`NetlinkMessages`] counts what a daemon sends to the kernel, and [`Disturbance`] what is lost while something is done to a node.
//!
//! Kernel tests need root. Elsewhere they skip, and say so; with `FLANNEL_NETNS=require` (which `make test` sets
//! for root, so CI too) a test that cannot run fails.

mod causes;
mod cni;
mod disturbance;
mod error;
#[cfg(feature = "fake-api")]
mod fake_api;
mod flannel;
mod golden;
mod kernel_features;
mod kube_apiserver;
mod lab;
mod namespace;
mod netlink_messages;
mod new_flows;
mod round_trips;
mod shell;
mod uapi;
mod unprivileged;
mod wait;

pub use causes::{causes, repetition};
pub use cni::Pod;
pub use disturbance::{Disturbance, Disturbed, Needs};
pub use error::LabError;
#[cfg(feature = "fake-api")]
pub use fake_api::{FakeApi, MediaTypes};
pub use flannel::{Daemon, Flannel};
pub use golden::golden;
pub use kernel_features::{KernelOption, kernel_version};
pub use kube_apiserver::KubeApiserver;
pub use lab::{Lab, Node};
pub use namespace::{Namespace, in_netns, may_make_namespaces, netns};
pub use netlink_messages::NetlinkMessages;
pub use new_flows::{NewFlows, NewFlowsReport};
pub use round_trips::{RoundTrips, RoundTripsReport};
pub use shell::{ShellError, sh, try_sh};
pub use uapi::check_uapi;
pub use unprivileged::{rerun, without_net_admin};
pub use wait::{forwarded, wait_for};

/// What the environment says about tests. The one place here that reads it.
pub(crate) fn setting(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests, not configuration")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
