//! A node and its containers, in a network namespace.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use flannel_cni::{CniError, Request, answer};
use serde_json::{Value, json};

/// Where Debian's reference plugins are.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";
/// subnet.env of a node with both families.
pub(crate) const ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n\
    FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n";

/// A node: its files, and what it asks of the plugin.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) version: &'static str,
}

impl Node {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("subnet.env"), ENV).unwrap();
        Self { folder, version: "1.1.0" }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn saved(&self) -> Vec<String> {
        let names = fs::read_dir(self.state()).into_iter().flatten();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    /// Addresses that host-local has given away.
    pub(crate) fn leased(&self) -> usize {
        let entries = fs::read_dir(self.folder.path().join("addresses/cbr0")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("10.") || name.starts_with("fd")).count()
    }

    pub(crate) fn conf(&self) -> Value {
        json!({
            "cniVersion": self.version,
            "name": "cbr0",
            "type": "flannel",
            "subnetFile": self.folder.path().join("subnet.env"),
            "dataDir": self.state(),
            "ipam": { "dataDir": self.folder.path().join("addresses") },
            "delegate": { "hairpinMode": true, "isDefaultGateway": true },
        })
    }

    pub(crate) fn ask(&self, command: &str, container: &str, more: Value) -> Result<Value, CniError> {
        self.ask_with(command, container, more, PLUGINS)
    }

    pub(crate) fn ask_with(
        &self,
        command: &str,
        container: &str,
        more: Value,
        path: &str,
    ) -> Result<Value, CniError> {
        let variables = self.variables(command, container, path);
        let request = Request::from_environment(|name| variables.get(name).map(OsString::from))?;
        let printed = answer(&request, self.conf_with(more).to_string().as_bytes())?;
        Ok(if printed.is_empty() { Value::Null } else { serde_json::from_slice(&printed).unwrap() })
    }

    /// Asks another program for the same.
    #[track_caller]
    pub(crate) fn ask_program(
        &self,
        program: &str,
        command: &str,
        container: &str,
        more: Value,
        path: &str,
    ) -> Value {
        let mut child = Command::new(program)
            .envs(self.variables(command, container, path))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(self.conf_with(more).to_string().as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let printed = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{program} {command}: {printed}");
        if printed.is_empty() { Value::Null } else { serde_json::from_str(&printed).unwrap() }
    }

    fn variables(&self, command: &str, container: &str, path: &str) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container.to_owned()),
            ("CNI_NETNS", format!("/proc/{}/ns/net", self.holder(container))),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", path.to_owned()),
        ])
    }

    fn conf_with(&self, more: Value) -> Value {
        let mut conf = self.conf();
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        conf
    }

    /// The process whose network namespace is the container's.
    fn holder(&self, container: &str) -> String {
        fs::read_to_string(self.folder.path().join(container)).unwrap_or_else(|_| "self".to_owned())
    }

    /// A namespace for a container; it ends with the returned process.
    pub(crate) fn container(&self, name: &str) -> Holder {
        let child = Command::new("unshare").args(["--net", "sleep", "100"]).spawn().unwrap();
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let link = format!("/proc/{}/ns/net", child.id());
        let apart = || fs::read_link(&link).is_ok_and(|there| there != own).then_some(());
        testkit::wait_for(std::time::Duration::from_secs(5), apart).unwrap();
        fs::write(self.folder.path().join(name), child.id().to_string()).unwrap();
        Holder(child)
    }
}

pub(crate) struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}
