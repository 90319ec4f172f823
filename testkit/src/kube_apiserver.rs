//! A real Kubernetes API server, with its etcd.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{LabError, Namespace, setting, wait_for};

mod cluster;
mod datastore;
mod scale;

/// How long the servers may take to be ready; the first start of an API server writes its own roles first.
const READY: Duration = Duration::from_secs(90);
const ADMIN: &str = "token-of-the-administrator";
const FLANNEL: &str = "token-of-flannel";

/// `kube-apiserver` and `etcd` from the folder that `KUBEBUILDER_ASSETS` names, which is controller-runtime's convention.
/// With `KUBE_DATASTORE=kine`, `kine` with SQLite takes the place of `etcd`.
///
/// It has no nodes but those that are added, nothing gives them subnets, and `flannel` may do what the cluster role of
/// the same name in `deploy/` allows. [`Self::start_controllers`] and [`Self::play_kubelets`] make a cluster of it. Dropping it
/// ends all servers.
#[derive(Debug)]
pub struct KubeApiserver {
    folder: TempDir,
    namespace: Option<Namespace>,
    address: SocketAddr,
    datastore: Child,
    server: Mutex<Option<Child>>,
    controllers: Option<Child>,
}

impl KubeApiserver {
    /// Starts both on the loopback interface.
    ///
    /// # Errors
    /// `KUBEBUILDER_ASSETS` is not set, the programs are not there, or do not become ready in 90 s; the error has the end of
    /// the server's log. `openssl` and `curl` are needed too.
    pub fn start() -> Result<Self, LabError> {
        Self::serve(None, Ipv4Addr::LOCALHOST.into())
    }

    /// Starts the API server on an address of a namespace, port 6443.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(namespace: &Namespace, address: IpAddr) -> Result<Self, LabError> {
        Self::serve(Some(namespace.clone()), address)
    }

    fn serve(namespace: Option<Namespace>, address: IpAddr) -> Result<Self, LabError> {
        let folder = TempDir::new().map_err(LabError::system("make a folder"))?;
        let (client, peer) = (free_port()?, free_port()?);
        let datastore = datastore::start(namespace.as_ref(), folder.path(), [client, peer])?;
        let port = if namespace.is_some() { 6443 } else { free_port()? };
        let this = Self {
            address: (address, port).into(),
            namespace,
            datastore,
            server: Mutex::default(),
            controllers: None,
            folder,
        };
        let at = this.folder.path();
        fs::write(at.join("etcd.url"), format!("http://127.0.0.1:{client}"))
            .map_err(LabError::system("write etcd.url"))?;
        fs::write(at.join("tokens.csv"), format!("{ADMIN},admin,1,system:masters\n{FLANNEL},flannel,2\n"))
            .map_err(LabError::system("write tokens.csv"))?;
        fs::write(at.join("audit-policy.json"), audit_policy().to_string())
            .map_err(LabError::system("write audit-policy.json"))?;
        this.run(Command::new("openssl").args(["genrsa", "-out"]).arg(at.join("sa.key")).arg("2048"), None)?;
        this.write_kubeconfig(&this.kubeconfig(), FLANNEL)?;
        this.write_kubeconfig(&this.admin_kubeconfig(), ADMIN)?;
        this.set_away(false)?;
        this.allow_flannel()?;
        Ok(this)
    }

    /// A kubeconfig for `flannel`, who may do what the cluster role in `deploy/` allows.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn admin_kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    fn write_kubeconfig(&self, path: &Path, token: &str) -> Result<(), LabError> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "lab", "cluster": { "server": self.url(), "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "lab", "user": { "token": token } }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
            "current-context": "lab",
        });
        fs::write(path, config.to_string()).map_err(LabError::system("write a kubeconfig"))
    }

    /// Makes a Linux node with these pod subnets.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn add_node(&self, name: &str, pod_cidrs: &[&str]) -> Result<(), LabError> {
        let mut node =
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "spec": {} });
        node["metadata"]["labels"] = json!({ "kubernetes.io/os": "linux" });
        if let Some(first) = pod_cidrs.first() {
            node["spec"] = json!({ "podCIDR": first, "podCIDRs": pod_cidrs });
        }
        self.ask("POST", "/api/v1/nodes", Some(("application/json", &node.to_string()))).map(drop)?;
        let status = json!({ "status": { "conditions": [
            { "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated" },
        ] } });
        let path = format!("/api/v1/nodes/{name}/status");
        let patch = Some(("application/strategic-merge-patch+json", &*status.to_string()));
        self.ask("PATCH", &path, patch).map(drop)
    }

    /// Gives a node that has none its pod subnets, as the controller manager does.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn assign(&self, name: &str, pod_cidrs: &[&str]) -> Result<(), LabError> {
        let spec = json!({ "spec": { "podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs } });
        self.merge(name, &spec)
    }

    /// Deletes a node.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn delete_node(&self, name: &str) -> Result<(), LabError> {
        self.ask("DELETE", &format!("/api/v1/nodes/{name}"), None).map(drop)
    }

    /// All nodes.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn nodes(&self) -> Result<Vec<Value>, LabError> {
        self.list("/api/v1/nodes")
    }

    fn list(&self, path: &str) -> Result<Vec<Value>, LabError> {
        let listed: Value = serde_json::from_str(&self.ask("GET", path, None)?)
            .map_err(|error| LabError::unreadable(path, error))?;
        Ok(listed["items"].as_array().cloned().unwrap_or_default())
    }

    /// Sets or, with `None`, removes an annotation.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn annotate(&self, node: &str, name: &str, value: Option<&str>) -> Result<(), LabError> {
        self.merge(node, &json!({ "metadata": { "annotations": { name: value } } }))
    }

    /// Ends the API server, or starts it again with all it had and waits until it is ready.
    ///
    /// # Errors
    /// It does not come back.
    pub fn set_away(&self, away: bool) -> Result<(), LabError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut running) = server.take() {
            end(&mut running);
        }
        if away {
            return Ok(());
        }
        let at = self.folder.path();
        let etcd = fs::read_to_string(at.join("etcd.url")).map_err(LabError::system("read etcd.url"))?;
        let key = at.join("sa.key").display().to_string();
        let mut command = Command::new(assets()?.join("kube-apiserver"));
        command.args([
            format!("--etcd-servers={etcd}"),
            format!("--cert-dir={}", at.join("certificates").display()),
            format!("--bind-address={}", self.address.ip()),
            format!("--advertise-address={}", self.address.ip()),
            format!("--secure-port={}", self.address.port()),
            format!("--token-auth-file={}", at.join("tokens.csv").display()),
            format!("--audit-policy-file={}", at.join("audit-policy.json").display()),
            format!("--audit-log-path={}", at.join("audit.log").display()),
            "--audit-log-mode=blocking".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--allow-privileged=true".to_owned(), // as kubeadm sets it
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={key}"),
            format!("--service-account-signing-key-file={key}"),
            "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
        ]);
        // Before 1.23 it is a choice whether nodes may have subnets of both families.
        if self
            .run(Command::new(assets()?.join("kube-apiserver")).arg("--help"), None)?
            .contains("IPv6DualStack=")
        {
            command.arg("--feature-gates=IPv6DualStack=true");
        }
        let log = at.join("kube-apiserver.log");
        *server = Some(spawn(self.namespace.as_ref(), &mut command, &log)?);
        let ready = wait_for(READY, || self.ask("GET", "/readyz", None).ok().filter(|page| page == "ok"));
        ready.map(drop).ok_or_else(|| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            LabError::unreadable("kube-apiserver", format!("not ready after {READY:?}: {}", tail.join(" | ")))
        })
    }

    /// Whether `KUBEBUILDER_ASSETS` names a folder.
    #[must_use]
    pub fn is_installed() -> bool {
        assets().is_ok()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What `deploy/` allows, for the user of the kubeconfig.
    fn allow_flannel(&self) -> Result<(), LabError> {
        let manifest = include_str!("../../deploy/kubernetes/kube-flannel.yml");
        let role = manifest.split("\n---\n").find(|part| part.contains("\nkind: ClusterRole\n"));
        let role =
            role.ok_or_else(|| LabError::unreadable("deploy/kubernetes/kube-flannel.yml", "no ClusterRole"))?;
        let group = "/apis/rbac.authorization.k8s.io/v1";
        self.ask("POST", &format!("{group}/clusterroles"), Some(("application/yaml", role)))?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "flannel" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "flannel" }],
        });
        let body = binding.to_string();
        self.ask("POST", &format!("{group}/clusterrolebindings"), Some(("application/json", &body))).map(drop)
    }

    fn merge(&self, node: &str, patch: &Value) -> Result<(), LabError> {
        let body = patch.to_string();
        let path = format!("/api/v1/nodes/{node}");
        self.ask("PATCH", &path, Some(("application/merge-patch+json", &body))).map(drop)
    }

    /// One request of the administrator.
    fn ask(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Result<String, LabError> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--insecure", "--max-time", "20"]);
        command.args(["--header", &format!("Authorization: Bearer {ADMIN}"), "--request", method]);
        if let Some((kind, _)) = body {
            command.args(["--header", &format!("Content-Type: {kind}"), "--data-binary", "@-"]);
        }
        command.arg(format!("{}{path}", self.url()));
        self.run(&mut command, body.map(|(_, text)| text))
    }

    /// Runs a command where the servers are.
    fn run(&self, command: &mut Command, input: Option<&str>) -> Result<String, LabError> {
        let what = format!("{command:?}");
        let failed = || LabError::system(format!("run {what}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match &self.namespace {
            Some(namespace) => namespace.spawn(command)?,
            None => command.spawn().map_err(failed())?,
        };
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.unwrap_or_default().as_bytes()).map_err(failed())?;
        }
        let done = child.wait_with_output().map_err(failed())?;
        if done.status.success() {
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        } else {
            Err(LabError::unreadable(what, String::from_utf8_lossy(&done.stderr)))
        }
    }
}

impl Drop for KubeApiserver {
    fn drop(&mut self) {
        if let Some(mut controllers) = self.controllers.take() {
            end(&mut controllers);
        }
        if let Some(mut server) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            end(&mut server);
        }
        end(&mut self.datastore);
    }
}

/// Logs what `flannel` asks for.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["ResponseStarted", "ResponseComplete", "Panic"],
        "rules": [{ "level": "Metadata", "users": ["flannel"] }, { "level": "None" }],
    })
}

fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

fn assets() -> Result<PathBuf, LabError> {
    let folder = setting("KUBEBUILDER_ASSETS").map(PathBuf::from);
    folder.ok_or_else(|| {
        LabError::unreadable("KUBEBUILDER_ASSETS", "names no folder with etcd and kube-apiserver")
    })
}

fn free_port() -> Result<u16, LabError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let bound = listener.and_then(|listener| listener.local_addr());
    Ok(bound.map_err(LabError::system("find a free port"))?.port())
}

fn spawn(namespace: Option<&Namespace>, command: &mut Command, log: &Path) -> Result<Child, LabError> {
    let broken = || LabError::system(format!("write {}", log.display()));
    let log = File::options().create(true).append(true).open(log).map_err(broken())?;
    let errors = log.try_clone().map_err(broken())?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    match namespace {
        Some(namespace) => namespace.spawn(command),
        None => {
            let what = format!("start {}", command.get_program().display());
            command.spawn().map_err(LabError::system(what))
        }
    }
}
