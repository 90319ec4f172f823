//! Many nodes at once, and what clients ask for.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use super::{ADMIN, KubeApiserver};
use crate::LabError;

impl KubeApiserver {
    /// Makes nodes, status included, over a few connections.
    ///
    /// # Errors
    /// The server refuses one.
    pub fn add_nodes(&self, nodes: &[Value]) -> Result<(), LabError> {
        let mut config = String::new();
        for node in nodes {
            let mut node = node.clone();
            if let Some(metadata) = node["metadata"].as_object_mut() {
                metadata
                    .retain(|key, _| !["managedFields", "resourceVersion", "uid"].contains(&key.as_str()));
            }
            let body = node.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            let _infallible = write!(
                config,
                "next\nurl = \"{}/api/v1/nodes\"\ndata-binary = \"{body}\"\nsilent\nshow-error\nfail\ninsecure\n\
                 max-time = 60\noutput = /dev/null\nheader = \"Content-Type: application/json\"\n\
                 header = \"Authorization: Bearer {ADMIN}\"\n",
                self.url()
            );
        }
        let config = config.strip_prefix("next\n").unwrap_or_default();
        let mut command = Command::new("curl");
        command.args(["--parallel", "--parallel-max", "8", "--no-progress-meter", "--config", "-"]);
        self.run(&mut command, Some(config)).map(drop)
    }

    /// Requests for nodes with this verb (`LIST`, `WATCH`, `GET`) that the API server has answered with
    /// 200. A watch counts when it ends.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn node_requests(&self, verb: &str) -> Result<u64, LabError> {
        let page = self.ask("GET", "/metrics", None)?;
        let counted = |line: &&str| {
            let wanted = ["code=\"200\"", "resource=\"nodes\"", &format!("verb=\"{verb}\"")];
            line.starts_with("apiserver_request_total{") && wanted.iter().all(|label| line.contains(label))
        };
        let counts = page.lines().filter(counted);
        Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}
