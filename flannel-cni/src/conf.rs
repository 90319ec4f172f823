//! The network configuration that the runtime passes, and the delegate's that is made of it.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::CniError;
use crate::spec::{BAD_CONF, DECODING};
use crate::subnet_env::SubnetEnv;

/// The configuration, with upstream's keys and defaults.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NetConf {
    #[serde(default, rename = "cniVersion")]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default = "subnet_file", rename = "subnetFile")]
    pub(crate) subnet_file: PathBuf,
    #[serde(default = "data_dir", rename = "dataDir")]
    pub(crate) data_dir: PathBuf,
    #[serde(default)]
    delegate: Option<Map<String, Value>>,
    #[serde(default)]
    ipam: Option<Map<String, Value>>,
    #[serde(default, rename = "runtimeConfig")]
    runtime_config: Option<Map<String, Value>>,
    /// Passed on to the delegate by CHECK.
    #[serde(default, rename = "prevResult")]
    pub(crate) prev_result: Option<Value>,
    /// GC: the attachments that are still in use.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub(crate) valid_attachments: Option<Vec<Attachment>>,
}

/// A container and one of its interfaces.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(crate) struct Attachment {
    #[serde(rename = "containerID")]
    pub(crate) container: String,
    pub(crate) ifname: String,
}

fn subnet_file() -> PathBuf {
    "/run/flannel/subnet.env".into()
}

fn data_dir() -> PathBuf {
    "/var/lib/cni/flannel".into()
}

impl NetConf {
    pub(crate) fn parse(conf: &[u8]) -> Result<Self, CniError> {
        let conf: Self = serde_json::from_slice(conf)
            .map_err(|error| CniError::new(DECODING, "failed to load netconf", error))?;
        let delegate = conf.delegate.iter().flatten();
        for (key, value) in delegate {
            match key.as_str() {
                "name" => {
                    return Err(invalid(
                        "'delegate' dictionary must not have 'name' field, it'll be set by flannel",
                    ));
                }
                "ipam" => {
                    return Err(invalid(
                        "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel",
                    ));
                }
                "type" if !value.is_string() => {
                    return Err(invalid(
                        "'delegate' dictionary, if present, must have (string) 'type' field",
                    ));
                }
                _ => {}
            }
        }
        Ok(conf)
    }

    /// Type of the plugin that does the work.
    pub(crate) fn delegate_type(&self) -> &str {
        self.delegate.as_ref().and_then(|delegate| delegate.get("type")?.as_str()).unwrap_or("bridge")
    }

    /// Name of the delegate's bridge; `None` if the delegate makes none.
    pub(crate) fn bridge(&self) -> Option<&str> {
        let name = self.delegate.as_ref().and_then(|delegate| delegate.get("bridge")?.as_str());
        (self.delegate_type() == "bridge").then(|| name.unwrap_or("cni0"))
    }

    /// The delegate's configuration for a node with this subnet. What the operator set stays.
    pub(crate) fn delegate(&self, env: &SubnetEnv) -> Map<String, Value> {
        let mut delegate = self.delegate.clone().unwrap_or_default();
        if let Some(runtime) = &self.runtime_config {
            delegate.insert("runtimeConfig".to_owned(), runtime.clone().into());
        }
        delegate.insert("name".to_owned(), self.name.clone().into());
        let mut default = |key: &str, value: Value| {
            delegate.entry(key).or_insert(value);
        };
        default("type", "bridge".into());
        // Whichever of the two does not masquerade leaves it to the other.
        default("ipMasq", env.ip_masq.map(|is_on| !is_on).into());
        default("mtu", env.mtu.into());
        if self.delegate_type() == "bridge" {
            default("isGateway", true.into());
        }
        if !self.version.is_empty() {
            delegate.insert("cniVersion".to_owned(), self.version.clone().into());
        }
        delegate.insert("ipam".to_owned(), self.ipam(env).into());
        delegate
    }

    /// The IPAM section: the operator's, with the ranges and routes of this node.
    fn ipam(&self, env: &SubnetEnv) -> Map<String, Value> {
        let mut ipam = self.ipam.clone().unwrap_or_default();
        ipam.entry("type").or_insert_with(|| "host-local".into());
        let ranges: Vec<Value> = env.subnets().map(|subnet| json!([{ "subnet": subnet }])).collect();
        ipam.insert("ranges".to_owned(), ranges.into());
        let mut routes = match ipam.remove("routes") {
            Some(Value::Array(routes)) => routes,
            _ => Vec::new(),
        };
        routes.extend(env.networks.iter().map(|network| json!({ "dst": network })));
        ipam.insert("routes".to_owned(), routes.into());
        ipam
    }
}

fn invalid(problem: &str) -> CniError {
    CniError::plain(BAD_CONF, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENV: &str = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n\
        FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00:0:0:17::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

    fn delegate(conf: &str) -> String {
        let (env, _) = SubnetEnv::parse(ENV.as_bytes());
        serde_json::to_string(&NetConf::parse(conf.as_bytes()).unwrap().delegate(&env)).unwrap()
    }

    #[test]
    fn upstreams_default_configuration_becomes_upstreams_bridge_configuration() {
        let conf = r#"{"name": "cbr0", "cniVersion": "0.3.1", "type": "flannel",
            "delegate": {"hairpinMode": true, "isDefaultGateway": true}}"#;
        assert_eq!(
            delegate(conf),
            concat!(
                r#"{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"#,
                r#""ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}],[{"subnet":"fc00:0:0:17::/64"}]],"#,
                r#""routes":[{"dst":"10.1.0.0/16"},{"dst":"fc00::/48"}],"type":"host-local"},"#,
                r#""isDefaultGateway":true,"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}"#
            )
        );
    }

    #[test]
    fn what_the_operator_set_stays() {
        let conf = r#"{"name": "n", "type": "flannel",
            "delegate": {"type": "macvlan", "mtu": 1400, "ipMasq": true, "master": "eth0"},
            "ipam": {"type": "my-ipam", "dataDir": "/x", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.17.9"}]},
            "runtimeConfig": {"portMappings": [{"hostPort": 80}]}}"#;
        let delegate: Value = serde_json::from_str(&delegate(conf)).unwrap();
        assert_eq!((delegate["mtu"].clone(), delegate["ipMasq"].clone()), (json!(1400), json!(true)));
        assert_eq!(delegate.get("isGateway"), None, "only a bridge is a gateway");
        assert_eq!(delegate["runtimeConfig"], json!({"portMappings": [{"hostPort": 80}]}));
        assert_eq!(delegate["ipam"]["dataDir"], "/x");
        assert_eq!(delegate["ipam"]["type"], "my-ipam");
        assert_eq!(delegate["ipam"]["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.1.17.9"}));
        assert_eq!(delegate["ipam"]["routes"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn fields_that_flannel_sets_are_refused_in_the_delegate() {
        for (delegate, told) in [
            (r#"{"name": "x"}"#, "must not have 'name' field"),
            (r#"{"ipam": {}}"#, "must not have 'ipam' field"),
            (r#"{"type": 7}"#, "must have (string) 'type' field"),
        ] {
            let error = NetConf::parse(format!(r#"{{"delegate": {delegate}}}"#).as_bytes()).unwrap_err();
            assert!(error.message.contains(told), "{error}");
        }
        assert_eq!(NetConf::parse(b"[").unwrap_err().code, DECODING);
    }
}
