//! Upstream's node annotations: their names under a prefix, and what is written to and read from them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use regex::Regex;

use crate::codec::{parse_ipv4, quote};
use crate::{BackendData, BackendType, LeaseAttributes};

/// All annotations of an object.
pub(super) type Annotations = BTreeMap<String, String>;

/// What stands for "no data" in `backend-data`: what Go makes of a nil `json.RawMessage`.
const NO_DATA: &str = "null";

/// Annotation names under one prefix, by default `flannel.alpha.coreos.com/`.
#[derive(Clone, Debug)]
pub(super) struct Names {
    managed: String,
    backend_type: String,
    backend_data: String,
    backend_v6_data: String,
    public_ip: String,
    public_ipv6: String,
    public_ip_overwrite: String,
    public_ipv6_overwrite: String,
    node_public_ip: String,
    node_public_ipv6: String,
}

/// `--kube-annotation-prefix` cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum PrefixError {
    #[error("subnet/kube: prefix can contain at most single slash, got `{0}`")]
    Slashes(String),
    #[error("subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*, got `{0}`")]
    Form(String),
}

impl Names {
    /// Upstream's rules: without a slash one is added, and a prefix that ends in a word gets a dash after it.
    pub(super) fn new(prefix: &str) -> Result<Self, PrefixError> {
        let mut prefix = prefix.to_owned();
        match prefix.matches('/').count() {
            0 => prefix.push('/'),
            1 => {}
            _ => return Err(PrefixError::Slashes(prefix)),
        }
        if !prefix.ends_with(['/', '-']) {
            prefix.push('-');
        }
        let form = Regex::new(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]+-)?$");
        if !form.is_ok_and(|form| form.is_match(&prefix)) {
            return Err(PrefixError::Form(prefix));
        }
        let name = |name: &str| format!("{prefix}{name}");
        Ok(Self {
            managed: name("kube-subnet-manager"),
            backend_type: name("backend-type"),
            backend_data: name("backend-data"),
            backend_v6_data: name("backend-v6-data"),
            public_ip: name("public-ip"),
            public_ipv6: name("public-ipv6"),
            public_ip_overwrite: name("public-ip-overwrite"),
            public_ipv6_overwrite: name("public-ipv6-overwrite"),
            node_public_ip: name("node-public-ip"),
            node_public_ipv6: name("node-public-ipv6"),
        })
    }

    /// Whether a flannel leases this node its subnet.
    pub(super) fn is_managed(&self, present: &Annotations) -> bool {
        present.get(&self.managed).is_some_and(|value| value == "true")
    }

    /// The addresses that the operator gave this node: as `--public-ip` and `--public-ipv6`.
    pub(super) fn node_public(&self, present: &Annotations) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        let v4 = present.get(&self.node_public_ip).and_then(|ip| parse_ipv4(ip));
        (v4, present.get(&self.node_public_ipv6).and_then(|ip| ip.parse().ok()))
    }

    /// What `attributes` come to on a node with these annotations: those that have to be written, with their values.
    ///
    /// As upstream: VXLAN data of a family that is off is not written at all, that of other backends is `null`, and an
    /// overwrite annotation wins over the node's own address.
    pub(super) fn changes(&self, attributes: &LeaseAttributes, present: &Annotations) -> Annotations {
        let backend = &attributes.backend_type;
        let data = attributes.backend_data.as_ref().map(BackendData::as_str);
        let data_v6 = attributes.backend_v6_data.as_ref().map(BackendData::as_str);
        let overwritten = |name: &String, own: String| match present.get(name) {
            Some(address) if !address.is_empty() => address.clone(),
            _ => own,
        };
        let mut wanted =
            vec![(&self.managed, "true".to_owned()), (&self.backend_type, backend.as_str().to_owned())];
        if data.is_some() || *backend != BackendType::Vxlan {
            let own = attributes.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED).to_string();
            wanted.push((&self.backend_data, data.unwrap_or(NO_DATA).to_owned()));
            wanted.push((&self.public_ip, overwritten(&self.public_ip_overwrite, own)));
        }
        let v6_is_written = data_v6.is_some() || *backend == BackendType::HostGw;
        if let Some(own) = attributes.public_ipv6.filter(|_| v6_is_written) {
            wanted.push((&self.backend_v6_data, data_v6.unwrap_or(NO_DATA).to_owned()));
            wanted.push((&self.public_ipv6, overwritten(&self.public_ipv6_overwrite, own.to_string())));
        }
        let differs = |(name, value): &(&String, String)| present.get(*name) != Some(value);
        wanted.into_iter().filter(differs).map(|(name, value)| (name.clone(), value)).collect()
    }

    /// What a node publishes; a problem names the annotation.
    pub(super) fn read(&self, present: &Annotations) -> Result<LeaseAttributes, String> {
        let text = |name: &String| present.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let data = |name: &String| match text(name).filter(|json| *json != NO_DATA) {
            Some(json) => BackendData::from_json(json.to_owned())
                .map(Some)
                .map_err(|error| format!("annotation {name} cannot be read: {error}")),
            None => Ok(None),
        };
        Ok(LeaseAttributes {
            public_ip: address(&self.public_ip, text(&self.public_ip), parse_ipv4)?
                .filter(|ip| !ip.is_unspecified()),
            public_ipv6: address(&self.public_ipv6, text(&self.public_ipv6), |text| text.parse().ok())?
                .filter(|ip: &Ipv6Addr| !ip.is_unspecified()),
            backend_type: BackendType::from(text(&self.backend_type).unwrap_or_default()),
            backend_data: data(&self.backend_data)?,
            backend_v6_data: data(&self.backend_v6_data)?,
        })
    }
}

fn address<T>(
    name: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    let malformed = |text| format!("annotation {name} is not an address: `{}`", quote(text));
    text.map(|text| parse(text).ok_or_else(|| malformed(text))).transpose()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::node::Node;
    use super::*;
    use crate::VxlanData;

    fn vxlan() -> LeaseAttributes {
        let data = VxlanData { vni: 1, vtep_mac: [0x12, 0xc6, 0x65, 0x89, 0xb4, 0xe3] };
        LeaseAttributes {
            public_ip: Some(Ipv4Addr::new(192, 0, 2, 1)),
            backend_type: BackendType::Vxlan,
            backend_data: data.to_backend_data().ok(),
            ..LeaseAttributes::default()
        }
    }

    fn pairs(annotations: &[(&str, &str)]) -> Annotations {
        annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn prefixes_follow_upstreams_rules() {
        let managed = |prefix: &str| Names::new(prefix).map(|names| names.managed);
        for (prefix, name) in [
            ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/kube-subnet-manager"),
            ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/kube-subnet-manager"),
            ("abc.com/foo", "abc.com/foo-kube-subnet-manager"),
            ("abc.com/foo-bar", "abc.com/foo-bar-kube-subnet-manager"),
            ("abc.com/foo-", "abc.com/foo-kube-subnet-manager"),
        ] {
            assert_eq!(managed(prefix).as_deref(), Ok(name));
        }
        for prefix in ["a/b/c", "nodots", "Upper.Case/", "", "abc.com/f o"] {
            assert!(managed(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_vxlan_node_publishes_upstreams_annotations_and_nothing_twice() {
        let names = Names::new("flannel.alpha.coreos.com").expect("valid");
        let written = names.changes(&vxlan(), &Annotations::new());
        let expected = pairs(&[
            ("flannel.alpha.coreos.com/backend-data", r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}"#),
            ("flannel.alpha.coreos.com/backend-type", "vxlan"),
            ("flannel.alpha.coreos.com/kube-subnet-manager", "true"),
            ("flannel.alpha.coreos.com/public-ip", "192.0.2.1"),
        ]);
        assert_eq!(written, expected);
        assert_eq!(names.changes(&vxlan(), &written), Annotations::new());
        assert_eq!(names.read(&written), Ok(vxlan()));
        assert!(names.is_managed(&written));
    }

    #[test]
    fn each_family_is_written_as_upstream_does() {
        let names = Names::new("f.io").expect("valid");
        let v6 = Some("2001:db8::1".parse().expect("an address"));
        let host_gw = LeaseAttributes {
            backend_type: BackendType::HostGw,
            backend_data: None,
            public_ipv6: v6,
            ..vxlan()
        };
        let written = names.changes(&host_gw, &Annotations::new());
        assert_eq!(written["f.io/backend-data"], "null");
        assert_eq!(written["f.io/backend-v6-data"], "null");
        assert_eq!(written["f.io/public-ipv6"], "2001:db8::1");
        assert_eq!(names.read(&written), Ok(host_gw));
        let v6_only = LeaseAttributes {
            public_ip: None,
            backend_data: None,
            public_ipv6: v6,
            backend_v6_data: vxlan().backend_data,
            ..vxlan()
        };
        let written = names.changes(&v6_only, &Annotations::new());
        assert!(!written.contains_key("f.io/public-ip") && !written.contains_key("f.io/backend-data"));
        assert_eq!(names.read(&written), Ok(v6_only));
    }

    #[test]
    fn an_overwrite_wins_over_the_nodes_own_address() {
        let names = Names::new("f.io").expect("valid");
        let mut present = pairs(&[("f.io/public-ip-overwrite", "203.0.113.9")]);
        let written = names.changes(&vxlan(), &present);
        assert_eq!(written["f.io/public-ip"], "203.0.113.9");
        present.extend(written);
        assert_eq!(names.changes(&vxlan(), &present), Annotations::new());
    }

    #[test]
    fn annotations_that_are_no_addresses_or_no_json_are_named() {
        let names = Names::new("f.io").expect("valid");
        let problem = |name, value| names.read(&pairs(&[(name, value)])).expect_err("refused");
        let mapped =
            names.read(&pairs(&[("f.io/public-ip", "::ffff:192.0.2.1")])).expect("an address, as in Go");
        assert_eq!(mapped.public_ip, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert!(problem("f.io/public-ip", "fd00::1").contains("f.io/public-ip is not an address: `fd00::1`"));
        assert!(problem("f.io/backend-v6-data", "{").contains("f.io/backend-v6-data cannot be read"));
    }

    proptest! {
        #[test]
        fn no_node_is_a_panic(damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8)) {
            let names = Names::new("f.io").expect("valid");
            let mut json = br#"{"metadata":{"name":"a","resourceVersion":"7","annotations":{"f.io/public-ip":"192.0.2.1",
                "f.io/public-ipv6":"2001:db8::1","f.io/backend-type":"vxlan","f.io/kube-subnet-manager":"true",
                "f.io/backend-data":"{\"VNI\":1,\"VtepMAC\":\"12:c6:65:89:b4:e3\"}"}},
                "spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24","fd00:1::/64"]},
                "status":{"conditions":[{"type":"NetworkUnavailable","status":"False"}]}}"#.to_vec();
            for (at, value) in damage {
                *at.get_mut(&mut json) = value;
            }
            if let Ok(node) = serde_json::from_slice::<Node>(&json) {
                let _number = (node.version(), node.name().len(), node.key(true, true));
                if let Ok(read) = names.read(&node.annotations()) {
                    let _data = read.backend_data.map(|data| data.decode::<VxlanData>());
                }
            }
        }
    }
}
