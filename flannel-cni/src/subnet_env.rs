//! subnet.env: the node's subnet, as flanneld writes it and as the plugin and `mk-docker-opts.sh` read it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::CniError;
use crate::spec::TRY_LATER;

const NETWORK: &str = "FLANNEL_NETWORK";
const SUBNET: &str = "FLANNEL_SUBNET";
const IPV6_NETWORK: &str = "FLANNEL_IPV6_NETWORK";
const IPV6_SUBNET: &str = "FLANNEL_IPV6_SUBNET";
const IP_MASQ: &str = "FLANNEL_IPMASQ";

/// The contents of subnet.env. `Display` is the file, byte for byte as upstream writes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SubnetEnv {
    /// The networks of all pods, IPv4 first, without host bits.
    pub networks: Vec<IpNet>,
    /// This node's IPv4 subnet, without host bits.
    pub ipv4_subnet: Option<Ipv4Net>,
    /// This node's IPv6 subnet, without host bits.
    pub ipv6_subnet: Option<Ipv6Net>,
    /// Largest packet that pods may send, in bytes.
    pub mtu: Option<u32>,
    /// Whether flanneld masquerades what leaves the cluster, so that the delegate must not.
    pub ip_masq: Option<bool>,
}

/// A value in subnet.env that flanneld did not write.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}={} is not {expected}", value.escape_debug())]
pub struct InvalidValue {
    /// The name that is assigned.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What the value should be, with an article.
    pub expected: &'static str,
}

impl SubnetEnv {
    /// The key of [`mtu`](Self::mtu).
    pub const MTU: &str = "FLANNEL_MTU";

    /// Reads the text of the file as a shell does, and returns what is missing or invalid in it as `None`, with a list of
    /// what is invalid. Of two lines with the same key the last one counts. Other keys are skipped.
    ///
    /// Values can be lists, of which a subnet is the first. What is no network in a list is skipped, as upstream's
    /// flanneld does; a list without any network is invalid.
    #[must_use]
    pub fn parse(text: &[u8]) -> (Self, Vec<InvalidValue>) {
        let text = String::from_utf8_lossy(text);
        let mut reader = Reader { text: &text, invalid: Vec::new() };
        let mut networks: Vec<IpNet> = Vec::new();
        let listed: [Vec<IpNet>; 2] = [reader.networks(NETWORK), reader.networks(IPV6_NETWORK)];
        for network in listed.iter().flatten().map(IpNet::trunc) {
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        networks.sort_by_key(|network| network.addr().is_ipv6());
        let env = Self {
            networks,
            ipv4_subnet: reader.networks(SUBNET).first().map(Ipv4Net::trunc),
            ipv6_subnet: reader.networks(IPV6_SUBNET).first().map(Ipv6Net::trunc),
            mtu: reader.mtu(),
            ip_masq: reader.value(IP_MASQ).map(|value| value == "true"),
        };
        (env, reader.invalid)
    }

    /// Reads the file as the plugin does, which needs all of it: in the result [`mtu`](Self::mtu) and
    /// [`ip_masq`](Self::ip_masq) are not `None`, and there is a network and a subnet.
    ///
    /// # Errors
    /// It cannot be read, or a key is missing or invalid: flanneld has not written it yet. The text is upstream's, as
    /// operators search for it.
    pub fn read_complete(path: &Path) -> Result<Self, CniError> {
        let failed = |problem: String| {
            let message = format!(
                "failed to load flannel 'subnet.env' file: {problem}. Check the flannel pod log for this node."
            );
            CniError::plain(TRY_LATER, message)
        };
        let shown = path.display();
        let text = std::fs::read(path).map_err(|error| failed(format!("open {shown}: {error}")))?;
        let (env, invalid) = Self::parse(&text);
        if let Some(invalid) = invalid.first() {
            return Err(failed(format!("{shown}: {invalid}")));
        }
        let missing = env.missing();
        if missing.is_empty() {
            Ok(env)
        } else {
            Err(failed(format!("{shown} is missing {}", missing.join(", "))))
        }
    }

    /// This node's subnets, IPv4 first.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.ipv4_subnet.map(IpNet::V4).into_iter().chain(self.ipv6_subnet.map(IpNet::V6))
    }

    /// The keys in the order of the file, and their values; `None` for a line that is not there.
    #[must_use]
    pub fn values(&self) -> [(&'static str, Option<String>); 6] {
        let networks = |is_ipv4: bool| {
            let networks = self.networks.iter().filter(|network| network.addr().is_ipv4() == is_ipv4);
            let networks: Vec<String> = networks.map(IpNet::to_string).collect();
            (!networks.is_empty()).then(|| networks.join(","))
        };
        [
            (NETWORK, networks(true)),
            (SUBNET, self.ipv4_subnet.map(|subnet| gateway(subnet.into()).to_string())),
            (IPV6_NETWORK, networks(false)),
            (IPV6_SUBNET, self.ipv6_subnet.map(|subnet| gateway(subnet.into()).to_string())),
            (Self::MTU, self.mtu.map(|mtu| mtu.to_string())),
            (IP_MASQ, self.ip_masq.map(|is_on| is_on.to_string())),
        ]
    }

    /// What the plugin needs and the file does not have.
    fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.networks.is_empty() {
            missing.extend([NETWORK, IPV6_NETWORK]);
        }
        if self.subnets().next().is_none() {
            missing.extend([SUBNET, IPV6_SUBNET]);
        }
        missing.extend(self.mtu.is_none().then_some(Self::MTU));
        missing.extend(self.ip_masq.is_none().then_some(IP_MASQ));
        missing
    }

    /// Whether these are the contents of a file that says this, whatever other programs have added.
    #[must_use]
    pub fn is_in(&self, contents: &[u8]) -> bool {
        let lines = contents.split_inclusive(|byte| *byte == b'\n');
        lines.filter(|line| !is_foreign(line)).collect::<Vec<_>>().concat() == self.to_string().as_bytes()
    }

    /// The file that replaces one with these contents. The lines that other programs added, such as those of
    /// `mk-docker-opts.sh`, are at its end, in the same order.
    #[must_use]
    pub fn with_foreign_lines(&self, contents: &[u8]) -> Vec<u8> {
        let mut file = self.to_string().into_bytes();
        for line in contents.split_inclusive(|byte| *byte == b'\n').filter(|line| is_foreign(line)) {
            file.extend_from_slice(line);
        }
        if !file.ends_with(b"\n") {
            file.push(b'\n');
        }
        file
    }
}

impl fmt::Display for SubnetEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in self.values() {
            if let Some(value) = value {
                writeln!(f, "{key}={value}")?;
            }
        }
        Ok(())
    }
}

/// The address of the plugin's bridge, which is the gateway of the pods of this subnet: its first host address.
#[must_use]
pub fn gateway(subnet: IpNet) -> IpNet {
    let first = match subnet.network() {
        IpAddr::V4(v4) => IpAddr::from(Ipv4Addr::from_bits(v4.to_bits().wrapping_add(1))),
        IpAddr::V6(v6) => IpAddr::from(Ipv6Addr::from_bits(v6.to_bits().wrapping_add(1))),
    };
    IpNet::new(first, subnet.prefix_len()).unwrap_or(subnet)
}

struct Reader<'a> {
    text: &'a str,
    invalid: Vec<InvalidValue>,
}

impl<'a> Reader<'a> {
    /// The last value of a key; `None` if it is empty.
    fn value(&self, key: &str) -> Option<&'a str> {
        let found = self.text.lines().rev().filter_map(assignment).find(|(found, _)| *found == key);
        found.map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    fn networks<N: FromStr>(&mut self, key: &'static str) -> Vec<N> {
        let Some(list) = self.value(key) else { return Vec::new() };
        let networks: Vec<N> = list.split(',').filter_map(|network| network.trim().parse().ok()).collect();
        if networks.is_empty() {
            self.refuse(key, list, "a network in CIDR notation");
        }
        networks
    }

    fn mtu(&mut self) -> Option<u32> {
        let value = self.value(SubnetEnv::MTU)?;
        let mtu = value.parse().ok();
        if mtu.is_none() {
            self.refuse(SubnetEnv::MTU, value, "a number of bytes");
        }
        mtu
    }

    fn refuse(&mut self, key: &'static str, value: &str, expected: &'static str) {
        self.invalid.push(InvalidValue { key, value: value.to_owned(), expected });
    }
}

/// Whether a line is another program's assignment, or a comment. Every other line is flannel's, or what is left of a
/// damaged one.
fn is_foreign(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let is_foreign = match assignment(&line) {
        Some((name, _)) => !name.starts_with("FLANNEL_"),
        None => line.trim().is_empty(),
    };
    is_foreign || line.trim_start().starts_with('#')
}

/// Name and value of `NAME=VALUE`, read as a shell reads it: `export`, quotes and a trailing comment are not part of
/// the value. `None` if the line assigns nothing.
fn assignment(line: &str) -> Option<(&str, &str)> {
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
    fn a_file_that_is_not_complete_is_refused_by_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("subnet.env");
        let problem = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let message = SubnetEnv::read_complete(&file).unwrap_err().message;
            message
                .split_once("/subnet.env")
                .unwrap()
                .1
                .trim_end_matches(". Check the flannel pod log for this node.")
                .to_owned()
        };
        assert_eq!(
            problem("FLANNEL_NETWORK\nFLANNEL_MTU=\n"),
            " is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"
        );
        let complete = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        assert_eq!(problem(&complete.replace("MTU", "MUT")), " is missing FLANNEL_MTU");
        let invalid = problem(&complete.replace("/24", "/33"));
        assert_eq!(invalid, ": FLANNEL_SUBNET=10.1.17.1/33 is not a network in CIDR notation");
        assert_eq!(problem(&complete.replace("1450", "1k")), ": FLANNEL_MTU=1k is not a number of bytes");

        std::fs::write(&file, complete).unwrap();
        let env = SubnetEnv::read_complete(&file).unwrap();
        assert_eq!((env.mtu, env.ip_masq), (Some(1450), Some(false)));
    }

    #[test]
    fn a_network_that_is_listed_twice_is_read_once() {
        let text =
            b"FLANNEL_NETWORK=\"10.1.0.0/16,10.2.0.0/16,10.1.0.0/16\"\nFLANNEL_IPV6_NETWORK=fd00::/48\n";
        let networks = SubnetEnv::parse(text).0.networks;
        assert_eq!(
            networks,
            ["10.1.0.0/16", "10.2.0.0/16", "fd00::/48"].map(|network| network.parse().unwrap())
        );
    }
}
