//! What makes a cluster of an API server: controllers, `kubectl`, and kubelets, which the test plays.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{KubeApiserver, assets, spawn};
use crate::LabError;

impl KubeApiserver {
    /// Starts `kube-controller-manager` with the controllers of DaemonSets, namespaces and garbage.
    ///
    /// # Errors
    /// The folder that `KUBEBUILDER_ASSETS` names does not have it.
    pub fn start_controllers(&mut self) -> Result<(), LabError> {
        let mut command = Command::new(assets()?.join("kube-controller-manager"));
        command.arg("--kubeconfig").arg(self.admin_kubeconfig());
        command.args([
            "--controllers=daemonset,garbagecollector,namespace",
            "--leader-elect=false",
            "--secure-port=0",
        ]);
        let log = self.folder.path().join("kube-controller-manager.log");
        self.controllers = Some(spawn(self.namespace.as_ref(), &mut command, &log)?);
        Ok(())
    }

    /// A shell script for the administrator's `kubectl`, in the root of this repository.
    ///
    /// # Errors
    /// `KUBEBUILDER_ASSETS` is not set.
    pub fn shell(&self, script: &str) -> Result<Command, LabError> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        // The first that is found, before any other kubectl of this machine.
        let script = format!("PATH={}:$PATH\n{script}", assets()?.display());
        let mut command = Command::new("sh");
        command.args(["-ec", &script]).current_dir(root).env("KUBECONFIG", self.admin_kubeconfig());
        // Nothing of the user's own kubectl is read or written.
        command.env("HOME", self.folder.path()).stdin(Stdio::null());
        Ok(command)
    }

    /// All pods.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn pods(&self) -> Result<Vec<Value>, LabError> {
        self.list("/api/v1/pods")
    }

    /// Does once what the scheduler and the kubelets of all nodes have to do: binds pods that a DaemonSet made for a node,
    /// makes them ready, and removes those that are deleted.
    ///
    /// # Errors
    /// The server does not list its pods. What it refuses is left for the next time: the pod may be gone by now.
    pub fn play_kubelets(&self) -> Result<(), LabError> {
        for pod in self.pods()? {
            let [name, namespace] =
                ["name", "namespace"].map(|key| pod["metadata"][key].as_str().unwrap_or_default());
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
            let node = pod.pointer(&format!("{terms}/0/matchFields/0/values/0"));
            let done = if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.ask("DELETE", &format!("{path}?gracePeriodSeconds=0"), None)
            } else if pod["spec"]["nodeName"].is_null() {
                let target = json!({ "apiVersion": "v1", "kind": "Node", "name": node });
                let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": target });
                self.ask("POST", &format!("{path}/binding"), Some(("application/json", &binding.to_string())))
            } else if !is_ready(&pod) {
                // For long, so that it counts as available.
                let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" });
                let status = json!({ "status": { "phase": "Running", "conditions": [ready] } });
                let patch = Some(("application/merge-patch+json", &*status.to_string()));
                self.ask("PATCH", &format!("{path}/status"), patch)
            } else {
                continue;
            };
            drop(done);
        }
        Ok(())
    }
}

/// Whether a pod has the condition `Ready`.
fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
