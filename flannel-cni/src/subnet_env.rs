//! subnet.env: the node's subnet, as flanneld writes it for the plugin.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::{CniError, TRY_LATER};

/// What the plugin needs of subnet.env.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PluginEnv {
    /// The networks of all pods, IPv4 first; at least one.
    pub networks: Vec<IpNet>,
    /// This node's IPv4 subnet.
    pub subnet: Option<Ipv4Net>,
    /// This node's IPv6 subnet.
    pub ipv6_subnet: Option<Ipv6Net>,
    /// Largest packet that pods may send, in bytes.
    pub mtu: u32,
    /// Whether flanneld masquerades what leaves the cluster, so that the delegate must not.
    pub ip_masq: bool,
}

impl PluginEnv {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or a key is missing or malformed: flanneld has not written it yet. The text is upstream's, as
    /// operators search for it.
    pub fn read(path: &Path) -> Result<Self, CniError> {
        let failed = |problem: String| {
            let message = format!(
                "failed to load flannel 'subnet.env' file: {problem}. Check the flannel pod log for this node."
            );
            CniError::plain(TRY_LATER, message)
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| failed(format!("open {}: {error}", path.display())))?;
        Self::parse(&text).map_err(|problem| failed(format!("{}{problem}", path.display())))
    }

    /// Reads the text of the file. What is no assignment, and names that are not the plugin's, are skipped.
    ///
    /// # Errors
    /// What is missing or malformed, to be read after the name of the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = |name: &str| {
            let found = text.lines().rev().filter_map(assignment).find(|(found, _)| *found == name);
            found.map(|(_, value)| value).filter(|value| !value.is_empty())
        };
        let mut networks = Vec::new();
        for network in ["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"].into_iter().filter_map(value) {
            for network in network.split(',') {
                let network: IpNet = net("network", network)?;
                if !networks.contains(&network.trunc()) {
                    networks.push(network.trunc());
                }
            }
        }
        let subnet = value("FLANNEL_SUBNET").map(|subnet| net::<Ipv4Net>("subnet", subnet)).transpose()?;
        let ipv6_subnet =
            value("FLANNEL_IPV6_SUBNET").map(|subnet| net::<Ipv6Net>("subnet", subnet)).transpose()?;
        let (mtu, ip_masq) = (value("FLANNEL_MTU"), value("FLANNEL_IPMASQ"));
        let mut missing = Vec::new();
        if networks.is_empty() {
            missing.extend(["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"]);
        }
        if subnet.is_none() && ipv6_subnet.is_none() {
            missing.extend(["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"]);
        }
        missing.extend(mtu.is_none().then_some("FLANNEL_MTU"));
        missing.extend(ip_masq.is_none().then_some("FLANNEL_IPMASQ"));
        let (Some(mtu), Some(ip_masq), true) = (mtu, ip_masq, missing.is_empty()) else {
            return Err(format!(" is missing {}", missing.join(", ")));
        };
        let mtu = mtu.parse().map_err(|error| format!(": FLANNEL_MTU={mtu}: {error}"))?;
        Ok(Self {
            networks,
            subnet: subnet.map(|subnet| subnet.trunc()),
            ipv6_subnet: ipv6_subnet.map(|subnet| subnet.trunc()),
            mtu,
            ip_masq: ip_masq == "true",
        })
    }

    /// This node's subnets, IPv4 first.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.subnet.map(IpNet::V4).into_iter().chain(self.ipv6_subnet.map(IpNet::V6))
    }
}

fn net<N: FromStr<Err: Display>>(what: &str, text: &str) -> Result<N, String> {
    text.trim().parse().map_err(|error| format!(": {what} {}: {error}", text.escape_debug()))
}

/// Name and value of `NAME=VALUE`, read as a shell reads it: `export`, quotes and a trailing comment are not part of
/// the value. `None` if the line assigns nothing.
#[must_use]
pub fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let quote = value.chars().next().filter(|first| ['"', '\''].contains(first));
    let value = match quote.and_then(|quote| value.get(1..)?.split(quote).next()) {
        Some(quoted) => quoted,
        None => value.split_once(" #").map_or(value, |(value, _comment)| value),
    };
    Some((name.trim(), value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_key_is_named_and_a_line_without_a_value_is_no_panic() {
        let error = PluginEnv::parse("FLANNEL_NETWORK\nFLANNEL_MTU=\n").unwrap_err();
        assert_eq!(
            error,
            " is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"
        );
        let env = PluginEnv::parse(
            "export FLANNEL_NETWORK=\"10.1.0.0/16,10.2.0.0/16,10.1.0.0/16\"\nFLANNEL_SUBNET=10.1.17.1/24 # node\n\
             FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
        );
        let env = env.unwrap();
        assert_eq!(env.networks.len(), 2);
        assert_eq!(env.subnet.unwrap().to_string(), "10.1.17.0/24");
        assert!(!env.ip_masq);
        let error = PluginEnv::parse("FLANNEL_SUBNET=10.1.17.1/33\n").unwrap_err();
        assert!(error.contains("10.1.17.1/33"), "{error}");
    }
}
