use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use flannel_cni::SubnetEnv;
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::new_flows::seen_source;
use crate::{LabError, Namespace};

/// Where Debian's `containernetworking-plugins` puts the plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// What the flannel CNI plugin passes to its delegate `bridge` with upstream's own configuration
/// (`hairpinMode`, `isDefaultGateway`): pods masquerade only if the daemon does not.
fn delegate(env: &SubnetEnv, bridge: &str, data: &Path) -> Value {
    json!({
        "cniVersion": "0.3.1",
        "name": "cbr0",
        "type": "bridge",
        "bridge": bridge,
        "hairpinMode": true,
        "isDefaultGateway": true,
        "isGateway": true,
        "ipMasq": env.ip_masq == Some(false),
        "mtu": env.mtu,
        "ipam": {
            "type": "host-local",
            "dataDir": data,
            "ranges": env.subnets().map(|subnet| json!([{ "subnet": subnet }])).collect::<Vec<_>>(),
            "routes": env.networks.iter().map(|network| json!({ "dst": network })).collect::<Vec<_>>(),
        },
    })
}

/// A pod: a network namespace behind a bridge of its node.
#[derive(Clone, Debug)]
pub struct Pod {
    namespace: Namespace,
    node: Namespace,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Pod {
    pub(crate) fn create(
        namespace: Namespace,
        node: &Namespace,
        (env, bridge): (&SubnetEnv, &str),
        data: &Path,
    ) -> Result<Self, LabError> {
        namespace.add()?;
        // The duplicate address check takes a second or two, and a pod's own addresses are not what is tested.
        namespace.sh("for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 > $f; done")?;
        let mut add = Command::new(format!("{PLUGINS}/bridge"));
        add.env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", namespace.name())
            .env("CNI_NETNS", format!("/run/netns/{}", namespace.name()))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let what =
            format!("run CNI plugin bridge for {} (make: scripts/install-deps test)", namespace.name());
        let mut plugin = node.spawn(&mut add)?;
        let configuration = delegate(env, bridge, data).to_string();
        let written = plugin.stdin.take().map(|mut stdin| stdin.write_all(configuration.as_bytes()));
        let done = plugin.wait_with_output().and_then(|done| written.transpose().map(|_| done));
        let done = done.map_err(LabError::system(&what))?;
        let stdout = String::from_utf8_lossy(&done.stdout);
        if !done.status.success() {
            let stderr = String::from_utf8_lossy(&done.stderr);
            return Err(LabError::unreadable(what, format!("{}: {stdout}{stderr}", done.status)));
        }
        let answer: Value =
            serde_json::from_str(&stdout).map_err(|error| LabError::unreadable(&what, error))?;
        let addresses = answer.get("ips").and_then(Value::as_array).into_iter().flatten();
        let mut pod = Self { namespace, node: node.clone(), v4: None, v6: None };
        for address in addresses.filter_map(|ip| ip.get("address").and_then(Value::as_str)) {
            match address.parse() {
                Ok(IpNet::V4(net)) => pod.v4 = Some(net.addr()),
                Ok(IpNet::V6(net)) => pod.v6 = Some(net.addr()),
                Err(error) => return Err(LabError::unreadable(&what, error)),
            }
        }
        Ok(pod)
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The namespace of the node it runs on.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// Its IPv4 address, if the cluster has IPv4.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.v4
    }

    /// Its IPv6 address, if the cluster has IPv6.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.v6
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// Sends a packet to `target`, an address of `receiver`, and returns whose it seems to be when it arrives.
    ///
    /// # Errors
    /// None arrives in 3 s.
    pub fn seen_by(&self, receiver: &Namespace, target: IpAddr) -> Result<IpAddr, LabError> {
        seen_source(self, receiver, target)
    }
}
