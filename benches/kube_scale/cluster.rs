//! The API server that daemons are measured on: a real one where `KUBEBUILDER_ASSETS` names one, else testkit's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use testkit::{FakeApi, KubeApiserver, Lab};

use crate::peers::{mac, public, subnet};

const PREFIX: &str = "flannel.alpha.coreos.com";
const ADDRESS: IpAddr = Lab::OUTSIDE_V4;

pub(crate) enum Cluster {
    Real(Box<KubeApiserver>),
    Fake(FakeApi),
}

/// The name of a node.
pub(crate) fn name(n: u32) -> String {
    format!("node-{n:05}")
}

/// Fills in a node of 12 KB that is registered, in a fake server.
fn add(fake: &FakeApi, n: u32) {
    fake.add_node(&name(n), &[&subnet(n).to_string()]);
    let backend = format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(n));
    for (annotation, value) in [
        ("kube-subnet-manager", "true"),
        ("backend-type", "vxlan"),
        ("backend-data", &backend),
        ("public-ip", &public(n).to_string()),
    ] {
        fake.annotate(&name(n), &format!("{PREFIX}/{annotation}"), Some(value));
    }
}

impl Cluster {
    /// Starts it outside the nodes of the lab, with so many nodes.
    pub(crate) fn start(lab: &Lab, nodes: u32) -> Self {
        let this = if KubeApiserver::is_installed() {
            Self::Real(Box::new(KubeApiserver::start_in(lab.outside(), ADDRESS).unwrap()))
        } else {
            Self::Fake(FakeApi::start_in(lab.outside(), SocketAddr::new(ADDRESS, 6443)).unwrap())
        };
        let all: Vec<u32> = (1..=nodes).collect();
        for some in all.chunks(250) {
            this.add(some);
        }
        this
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Real(_) => "kube-apiserver",
            Self::Fake(_) => "testkit's API server in memory",
        }
    }

    /// How a daemon is led to it.
    pub(crate) fn argument(&self) -> String {
        match self {
            Self::Real(api) => format!("--kubeconfig-file={}", api.kubeconfig().display()),
            Self::Fake(api) => format!("--kube-api-url={}", api.url()),
        }
    }

    /// Adds nodes that are registered.
    pub(crate) fn add(&self, nodes: &[u32]) {
        match self {
            Self::Fake(api) => nodes.iter().for_each(|n| add(api, *n)),
            Self::Real(api) => {
                let fake = FakeApi::start().unwrap();
                nodes.iter().for_each(|n| add(&fake, *n));
                let bodies: Vec<Value> = nodes.iter().filter_map(|n| fake.node(&name(*n))).collect();
                api.add_nodes(&bodies).unwrap();
            }
        }
    }

    pub(crate) fn delete(&self, n: u32) {
        match self {
            Self::Fake(api) => api.delete_node(&name(n)),
            Self::Real(api) => api.delete_node(&name(n)).unwrap(),
        }
    }

    /// Each of these nodes' kubelets reports once.
    pub(crate) fn heartbeat(&self, nodes: &[u32], seconds: u32) {
        let time = format!("2026-01-02T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60);
        match self {
            Self::Fake(api) => {
                for n in nodes {
                    api.edit_node(&name(*n), |node| {
                        node["status"]["conditions"][0]["lastHeartbeatTime"] = time.clone().into();
                    });
                }
            }
            Self::Real(api) => {
                let names: Vec<String> = nodes.iter().map(|n| name(*n)).collect();
                api.heartbeat(&names, &time).unwrap();
            }
        }
    }

    /// CPU time of the API server so far; `None` for the one in memory, which is no measure.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        match self {
            Self::Real(api) => Some(crate::cpu_of(api.pid()?)),
            Self::Fake(_) => None,
        }
    }

    /// Restarts it.
    pub(crate) fn restart(&self) {
        match self {
            Self::Real(api) => {
                api.set_away(true).unwrap();
                api.set_away(false).unwrap();
            }
            Self::Fake(api) => {
                api.set_away(true);
                api.compact();
                api.set_away(false);
            }
        }
    }

    /// Watches of nodes that daemons have begun so far.
    pub(crate) fn watches(&self) -> usize {
        match self {
            Self::Real(api) => api.requests("watch").unwrap().len(),
            Self::Fake(api) => api.watch_timeouts().len(),
        }
    }

    /// Lists of nodes that daemons have asked for so far.
    pub(crate) fn lists(&self) -> Option<usize> {
        match self {
            Self::Real(api) => Some(api.requests("list").unwrap().len()),
            Self::Fake(_) => None,
        }
    }
}
