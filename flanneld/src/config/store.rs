//! Where leases are kept: `--lease-db`, `--etcd-*` and `--kube-*`.

use std::path::PathBuf;
use std::time::Duration;

use flannel_lease::etcd::EtcdOptions;
use flannel_lease::kube::KubeOptions;

use super::cli::Flags;
use super::{Problem, Source};

/// Where leases are kept, and how to get there.
#[derive(Clone, Debug)]
pub enum Store {
    /// etcd v3; the default.
    Etcd {
        /// How to reach it.
        options: EtcdOptions,
        /// How long before its end a lease is renewed. Default: 60 min, less than a day.
        renew_margin: Duration,
    },
    /// Annotations of Kubernetes nodes (`--kube-subnet-mgr`).
    Kubernetes(KubeOptions),
    /// A SQLite file (`--lease-db`).
    Sqlite {
        /// The file, created if absent.
        path: PathBuf,
        /// How long before its end a lease is renewed. Default: 60 min, less than a day.
        renew_margin: Duration,
    },
}

impl Store {
    /// `None` if `problems` has grown.
    pub(super) fn new(flags: &Flags, source: &impl Source, problems: &mut Vec<Problem>) -> Option<Self> {
        let renew_margin = Duration::from_secs(60 * u64::from(flags.subnet_lease_renew_margin));
        match (&flags.lease_db, flags.kube_subnet_mgr) {
            (Some(_), true) => {
                problems.push(Problem::Usage(
                    "--lease-db and --kube-subnet-mgr are two lease stores; choose one".into(),
                ));
                None
            }
            (Some(path), false) => Some(Self::Sqlite { path: path.clone(), renew_margin }),
            (None, true) => kubernetes(flags, source, problems).map(Self::Kubernetes),
            (None, false) => etcd(flags, problems).map(|options| Self::Etcd { options, renew_margin }),
        }
    }

    /// What status and metrics call it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Etcd { .. } => "etcd",
            Self::Kubernetes(_) => "kubernetes",
            Self::Sqlite { .. } => "sqlite",
        }
    }
}

fn etcd(flags: &Flags, problems: &mut Vec<Problem>) -> Option<EtcdOptions> {
    let before = problems.len();
    match (&flags.etcd_keyfile, &flags.etcd_certfile) {
        (Some(_), None) => problems.push(Problem::Usage("--etcd-keyfile needs --etcd-certfile".into())),
        (None, Some(_)) => problems.push(Problem::Usage("--etcd-certfile needs --etcd-keyfile".into())),
        _ => {}
    }
    let endpoints: Vec<_> = flags
        .etcd_endpoints
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect();
    if endpoints.iter().any(|url| url.contains('@')) {
        problems.push(Problem::Usage(
            "--etcd-endpoints: a URL contains credentials; give --etcd-username and FLANNELD_ETCD_PASSWORD instead"
                .into(),
        ));
    }
    if endpoints.is_empty() {
        problems.push(Problem::Usage("--etcd-endpoints names no server".into()));
    }
    (problems.len() == before).then(|| EtcdOptions {
        endpoints,
        prefix: flags.etcd_prefix.clone(),
        ca_file: flags.etcd_cafile.clone(),
        cert_file: flags.etcd_certfile.clone(),
        key_file: flags.etcd_keyfile.clone(),
        username: flags.etcd_username.clone(),
        password: flags.etcd_password.clone(),
        user_agent: user_agent(),
    })
}

fn kubernetes(flags: &Flags, source: &impl Source, problems: &mut Vec<Problem>) -> Option<KubeOptions> {
    let variable =
        |name| source.env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
    // Upstream's; flanneld has no queue that can overflow.
    if let Some(depth) = variable("EVENT_QUEUE_DEPTH").filter(|depth| depth.parse::<i64>().is_err()) {
        problems.push(Problem::Environment(format!(
            "env EVENT_QUEUE_DEPTH={depth} format error: a whole number of events is expected"
        )));
        return None;
    }
    Some(KubeOptions {
        api_url: flags.kube_api_url.clone(),
        kubeconfig: flags.kubeconfig_file.clone(),
        annotation_prefix: flags.kube_annotation_prefix.clone(),
        set_network_unavailable: flags.set_node_network_unavailable,
        node_name: variable("NODE_NAME"),
        pod_name: variable("POD_NAME"),
        pod_namespace: variable("POD_NAMESPACE"),
        user_agent: user_agent(),
    })
}

/// `User-Agent` in the form of Go's client for Kubernetes: `flanneld/0.1.0 (linux/amd64)`.
fn user_agent() -> String {
    let architecture = match (std::env::consts::ARCH, cfg!(target_endian = "little")) {
        ("x86_64", _) => "amd64",
        ("x86", _) => "386",
        ("aarch64", _) => "arm64",
        ("powerpc64", true) => "ppc64le",
        ("powerpc64", false) => "ppc64",
        ("loongarch64", _) => "loong64",
        (same, _) => same,
    };
    format!("flanneld/{} ({}/{architecture})", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}
