use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use crate::new_flows::seen_source;
use crate::{LabError, Namespace};

/// Where Debian's `containernetworking-plugins` puts the plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// What a daemon passes to the CNI plugin: the content of subnet.env.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubnetEnv {
    /// All pods of the cluster, and this node's pods with the address of their gateway.
    pub v4: Option<(Ipv4Net, Ipv4Net)>,
    /// The same for IPv6.
    pub v6: Option<(Ipv6Net, Ipv6Net)>,
    /// Largest IP packet, in bytes, of a pod's interface.
    pub mtu: u32,
    /// Whether the daemon masquerades; the bridge plugin does it otherwise.
    pub ip_masq: bool,
}

impl SubnetEnv {
    /// Reads the file as the flannel CNI plugin does.
    ///
    /// # Errors
    /// The file is missing, a line is malformed, or a key that the plugin needs is absent.
    pub fn read(path: &Path) -> Result<Self, LabError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(LabError::system(format!("read {name}")))?;
        let bad = |problem: &str| LabError::unreadable(&name, problem);
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(found, _)| *found == key).map(|(_, value)| value)
        };
        let v4: Option<(Ipv4Net, Ipv4Net)> =
            pair(value("FLANNEL_NETWORK"), value("FLANNEL_SUBNET")).map_err(|error| bad(&error))?;
        let v6: Option<(Ipv6Net, Ipv6Net)> =
            pair(value("FLANNEL_IPV6_NETWORK"), value("FLANNEL_IPV6_SUBNET")).map_err(|error| bad(&error))?;
        if v4.is_none() && v6.is_none() {
            return Err(bad("neither FLANNEL_NETWORK and FLANNEL_SUBNET nor their IPV6 counterparts"));
        }
        let mtu = value("FLANNEL_MTU")
            .and_then(|mtu| mtu.parse().ok())
            .ok_or_else(|| bad("FLANNEL_MTU is missing or no number"))?;
        let ip_masq = value("FLANNEL_IPMASQ").ok_or_else(|| bad("FLANNEL_IPMASQ is missing"))? == "true";
        Ok(Self { v4, v6, mtu, ip_masq })
    }

    /// What the flannel CNI plugin passes to its delegate `bridge` with upstream's own configuration
    /// (`hairpinMode`, `isDefaultGateway`): pods masquerade only if the daemon does not.
    fn delegate(&self, bridge: &str, data: &Path) -> Value {
        let of = |v4: fn(&(Ipv4Net, Ipv4Net)) -> String, v6: fn(&(Ipv6Net, Ipv6Net)) -> String| {
            self.v4.iter().map(v4).chain(self.v6.iter().map(v6)).collect::<Vec<_>>()
        };
        let subnets = of(|(_, subnet)| subnet.trunc().to_string(), |(_, subnet)| subnet.trunc().to_string());
        let networks = of(|(network, _)| network.to_string(), |(network, _)| network.to_string());
        json!({
            "cniVersion": "0.3.1",
            "name": "cbr0",
            "type": "bridge",
            "bridge": bridge,
            "hairpinMode": true,
            "isDefaultGateway": true,
            "isGateway": true,
            "ipMasq": !self.ip_masq,
            "mtu": self.mtu,
            "ipam": {
                "type": "host-local",
                "dataDir": data,
                "ranges": subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect::<Vec<_>>(),
                "routes": networks.iter().map(|network| json!({ "dst": network })).collect::<Vec<_>>(),
            },
        })
    }
}

/// Both or neither of a network and a node's subnet.
fn pair<N: FromStr<Err: Display>>(
    network: Option<&str>,
    subnet: Option<&str>,
) -> Result<Option<(N, N)>, String> {
    let net = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    network.zip(subnet).map(|(network, subnet)| Ok((net(network)?, net(subnet)?))).transpose()
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
        let configuration = env.delegate(bridge, data).to_string();
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
