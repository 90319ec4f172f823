//! net-conf.json: the cluster's networks and how packets travel between nodes.
//!
//! Keys, defaults and the searchable parts of every message are upstream's (`pkg/subnet/config.go`). Beyond
//! upstream, the rules hold whichever store the leases are in, all mistakes are reported at once, and each names
//! its key.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::backend::Backend;
use super::json::Object;
use super::json_reader::{KeyProblem, Reader};
use super::pool::{self, Ipv4Pool, Ipv6Pool};

/// What net-conf.json asks for, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetConf {
    /// Addresses for IPv4 pods; `None` if `EnableIPv4` is false. At least one of the two families is on.
    pub ipv4: Option<Ipv4Pool>,
    /// Addresses for IPv6 pods; `None` unless `EnableIPv6` is true.
    pub ipv6: Option<Ipv6Pool>,
    /// How packets for other nodes' pods leave this node.
    pub backend: Backend,
    /// `EnableNFTables` as written. Rules are made with nftables either way.
    pub nftables_asked: bool,
    /// `NonMasqueradeCIDRs`: destinations that pods reach under their own address. Ours, not upstream's.
    pub no_masquerade: Vec<IpNet>,
    /// `IPMasq`: whether what leaves the pod network is masqueraded, in place of `--ip-masq`. Ours, not upstream's.
    pub masquerade: Option<bool>,
    /// `IPMasqFullyRandom`: whether masqueraded source ports are chosen at random, in place of
    /// `--ip-masq-fully-random-disable`. Ours, not upstream's.
    pub fully_random: Option<bool>,
}

/// Everything that is wrong with a net-conf.json; printed in one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", join(.0))]
pub struct NetConfError(pub Vec<KeyProblem>);

fn join(problems: &[KeyProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl NetConf {
    /// Reads and checks the text of a net-conf.json.
    ///
    /// # Errors
    /// All mistakes found, each under its key.
    pub fn parse(text: &[u8]) -> Result<Self, NetConfError> {
        let object = Object::parse(text)
            .map_err(|reason| NetConfError(vec![KeyProblem { key: String::new(), reason }]))?;
        let mut problems = Vec::new();
        let mut reader = Reader { object: &object, parent: "", problems: &mut problems };

        let enable_ipv4 = reader.flag("EnableIPv4", true);
        let enable_ipv6 = reader.flag("EnableIPv6", false);
        let nftables_asked = reader.flag("EnableNFTables", false);
        let ipv4 = reader.ipv4();
        let ipv6 = reader.ipv6();
        let no_masquerade = reader.cidrs("NonMasqueradeCIDRs");
        let masquerade = reader.switch("IPMasq");
        let fully_random = reader.switch("IPMasqFullyRandom");
        let backend = reader.backend(enable_ipv4, enable_ipv6);

        if !enable_ipv4 && !enable_ipv6 {
            reader.report(
                "EnableIPv4",
                "none defined stack: EnableIPv4 and EnableIPv6 are both false; set one to true",
            );
        }
        let ipv4 = ipv4.filter(|_| enable_ipv4).and_then(|wanted| pool::ipv4(wanted, &mut problems));
        let ipv6 = ipv6.filter(|_| enable_ipv6).and_then(|wanted| pool::ipv6(wanted, &mut problems));
        match backend {
            Some(backend) if problems.is_empty() => {
                Ok(Self { ipv4, ipv6, backend, nftables_asked, no_masquerade, masquerade, fully_random })
            }
            _ => Err(NetConfError(problems)),
        }
    }
}

impl NetConf {
    /// The cluster's networks, of the families in use.
    #[must_use]
    pub fn networks(&self) -> (Option<Ipv4Net>, Option<Ipv6Net>) {
        (self.ipv4.map(|pool| pool.network), self.ipv6.map(|pool| pool.network))
    }

    /// The same, IPv4's first.
    #[must_use]
    pub fn all_networks(&self) -> Vec<IpNet> {
        let (v4, v6) = self.networks();
        v4.map(IpNet::from).into_iter().chain(v6.map(IpNet::from)).collect()
    }

    /// The text of a net-conf.json that means the same, with every default written out, but without `Backend.PSK`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::Map::new();
        let mut put = |key: &str, value: serde_json::Value| drop(text.insert(key.to_owned(), value));
        put("EnableIPv4", self.ipv4.is_some().into());
        if let Some(pool) = self.ipv4 {
            put("Network", pool.network.to_string().into());
            put("SubnetLen", pool.subnet_len.into());
            put("SubnetMin", pool.subnet_min.to_string().into());
            put("SubnetMax", pool.subnet_max.to_string().into());
        }
        put("EnableIPv6", self.ipv6.is_some().into());
        if let Some(pool) = self.ipv6 {
            put("IPv6Network", pool.network.to_string().into());
            put("IPv6SubnetLen", pool.subnet_len.into());
            put("IPv6SubnetMin", pool.subnet_min.to_string().into());
            put("IPv6SubnetMax", pool.subnet_max.to_string().into());
        }
        put("EnableNFTables", self.nftables_asked.into());
        put("NonMasqueradeCIDRs", self.no_masquerade.iter().map(ToString::to_string).collect());
        if let Some(on) = self.masquerade {
            put("IPMasq", on.into());
        }
        if let Some(on) = self.fully_random {
            put("IPMasqFullyRandom", on.into());
        }
        put("Backend", self.backend.to_json());
        serde_json::Value::Object(text).to_string()
    }
}

impl Reader<'_> {
    fn ipv4(&mut self) -> Option<pool::Wanted<Ipv4Net, Ipv4Addr>> {
        let network = match self.network("Network") {
            Ok(Some(IpNet::V6(network))) => {
                Err(self.report("Network", format!("invalid IPv4 CIDR format: {network}")))
            }
            Ok(Some(IpNet::V4(network))) => Ok(Some(network)),
            Ok(None) => Ok(None),
            Err(reported) => Err(reported),
        };
        let len = self.number("SubnetLen", 0..=u32::MAX);
        let min = self.address("SubnetMin");
        let max = self.address("SubnetMax");
        Some(pool::Wanted { network: network.ok()?, len: len.ok()?, min: min.ok()?, max: max.ok()? })
    }

    fn ipv6(&mut self) -> Option<pool::Wanted<Ipv6Net, Ipv6Addr>> {
        let network = match self.network("IPv6Network") {
            Ok(Some(IpNet::V4(network))) => {
                Err(self.report("IPv6Network", format!("invalid IPv6 CIDR format: {network}")))
            }
            Ok(Some(IpNet::V6(network))) => Ok(Some(network)),
            Ok(None) => Ok(None),
            Err(reported) => Err(reported),
        };
        let len = self.number("IPv6SubnetLen", 0..=u32::MAX);
        let min = self.address("IPv6SubnetMin");
        let max = self.address("IPv6SubnetMax");
        Some(pool::Wanted { network: network.ok()?, len: len.ok()?, min: min.ok()?, max: max.ok()? })
    }

    fn cidrs(&mut self, key: &str) -> Vec<IpNet> {
        let texts = match self.object.value::<Vec<String>>(key, "a list of networks in quotes") {
            Ok(texts) => texts.unwrap_or_default(),
            Err(reason) => {
                self.report(key, reason);
                return Vec::new();
            }
        };
        let mut networks = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse::<IpNet>() {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => drop(self.report(key, format!("invalid CIDR address: {text}"))),
            }
        }
        IpNet::aggregate(&networks)
    }
}
