//! Many nodes at once, and what clients ask for.

use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Command};
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::{ADMIN, KubeApiserver};
use crate::LabError;

impl KubeApiserver {
    /// Makes nodes as kubelets do: the kubelet owns each field of the status in `managedFields`. Uses a few connections.
    ///
    /// # Errors
    /// The server refuses one.
    pub fn add_nodes(&self, nodes: &[Value]) -> Result<(), LabError> {
        let made = nodes.iter().map(|node| {
            let mut node = node.clone();
            if let Some(metadata) = node["metadata"].as_object_mut() {
                metadata
                    .retain(|key, _| !["managedFields", "resourceVersion", "uid"].contains(&key.as_str()));
            }
            if let Some(node) = node.as_object_mut() {
                node.remove("status");
            }
            ("/api/v1/nodes?fieldManager=kubelet".to_owned(), node)
        });
        self.send_all("POST", "application/json", made)?;
        let filled = nodes.iter().map(|node| {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("/api/v1/nodes/{name}/status?fieldManager=kubelet");
            (path, json!({ "status": node["status"] }))
        });
        self.send_all("PATCH", "application/strategic-merge-patch+json", filled)
    }

    /// Lets the kubelet of each of these nodes report at this time that it is ready.
    ///
    /// # Errors
    /// The server refuses one.
    pub fn heartbeat(&self, names: &[String], time: &str) -> Result<(), LabError> {
        let condition = json!({ "type": "Ready", "status": "True", "lastHeartbeatTime": time });
        let patch = json!({ "status": { "conditions": [condition] } });
        let bodies = names
            .iter()
            .map(|name| (format!("/api/v1/nodes/{name}/status?fieldManager=kubelet"), patch.clone()));
        self.send_all("PATCH", "application/strategic-merge-patch+json", bodies)
    }

    /// Sends requests of the administrator over a few connections.
    fn send_all(
        &self,
        method: &str,
        kind: &str,
        bodies: impl Iterator<Item = (String, Value)>,
    ) -> Result<(), LabError> {
        let mut config = String::new();
        for (path, body) in bodies {
            let body = body.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            let _infallible = write!(
                config,
                "next\nurl = \"{}{path}\"\nrequest = {method}\ndata-binary = \"{body}\"\nsilent\nshow-error\nfail\ninsecure\n\
                 max-time = 60\noutput = /dev/null\nheader = \"Content-Type: {kind}\"\n\
                 header = \"Authorization: Bearer {ADMIN}\"\n",
                self.url()
            );
        }
        let config = config.strip_prefix("next\n").unwrap_or_default();
        let mut command = Command::new("curl");
        command.args(["--parallel", "--parallel-max", "8", "--no-progress-meter", "--config", "-"]);
        self.run(&mut command, Some(config)).map(drop)
    }

    /// Process number of the API server, unless it is away.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.as_ref().map(Child::id)
    }

    /// Paths and queries of the requests with this verb (`get`, `list`, `watch`, `patch`) that the daemons have sent.
    ///
    /// # Errors
    /// The audit log cannot be read.
    pub fn requests(&self, verb: &str) -> Result<Vec<String>, LabError> {
        let path = self.folder.path().join("audit.log");
        let log = fs::read_to_string(&path).map_err(LabError::system(format!("read {}", path.display())))?;
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let wanted = events.filter(|event| event["verb"] == verb);
        Ok(wanted.filter_map(|event| Some(event["requestURI"].as_str()?.to_owned())).collect())
    }
}
