//! Upstream's node annotations: their names under a prefix, and what is written to and read from them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use regex::Regex;

use crate::codec::{cut, parse_ipv4, quote};
use crate::{BackendData, BackendType, Gaps, LeaseAttributes, LeaseKey};

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

    /// The annotation of nodes to which a flannel leases their subnet.
    pub(super) fn managed(&self) -> &str {
        &self.managed
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

    /// What a node with the pod subnets `key` publishes, and what of it is missing or malformed, which is then left out
    /// of the attributes.
    pub(super) fn read(&self, present: &Annotations, key: LeaseKey) -> (LeaseAttributes, Gaps) {
        let mut gaps = Gaps::default();
        let text = |name: &String| present.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let data = |name: &String, gap: &mut Option<String>| {
            let json = text(name).filter(|json| *json != NO_DATA)?;
            let read = BackendData::from_json(json.to_owned());
            read.map_err(|error| {
                *gap = Some(format!("annotation {name} cannot be read: {}", cut(&error.to_string())))
            })
            .ok()
        };
        let backend_data = data(&self.backend_data, &mut gaps.ipv4);
        let backend_v6_data = data(&self.backend_v6_data, &mut gaps.ipv6);
        let public_ip = address(&self.public_ip, text(&self.public_ip), parse_ipv4, &mut gaps.ipv4);
        let v6 = |text: &str| text.parse().ok();
        let public_ipv6 = address(&self.public_ipv6, text(&self.public_ipv6), v6, &mut gaps.ipv6);
        let attributes = LeaseAttributes {
            public_ip: public_ip.filter(|ip| !ip.is_unspecified()),
            public_ipv6: public_ipv6.filter(|ip: &Ipv6Addr| !ip.is_unspecified()),
            backend_type: BackendType::from(text(&self.backend_type).unwrap_or_default()),
            backend_data,
            backend_v6_data,
        };
        let names = [
            &self.backend_type,
            &self.public_ip,
            &self.backend_data,
            &self.public_ipv6,
            &self.backend_v6_data,
        ];
        // Upstream and flanneld write the type even if it is empty, as that of `alloc` is.
        let without_type = !present.contains_key(&self.backend_type);
        gaps.complete(&attributes, key, without_type, names.map(|name| ("annotation ", name.as_str())));
        (attributes, gaps)
    }
}

/// The address in an annotation; `gap` says if it holds something else.
fn address<T>(
    name: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Option<T>,
    gap: &mut Option<String>,
) -> Option<T> {
    let text = text?;
    let address = parse(text);
    if address.is_none() {
        *gap = Some(format!("annotation {name} is not an address: `{}`", quote(text)));
    }
    address
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::node::Node;
    use super::*;
    use crate::{VxlanData, WireguardData};

    fn vxlan() -> LeaseAttributes {
        let data = VxlanData { vni: 1, vtep_mac: [0x12, 0xc6, 0x65, 0x89, 0xb4, 0xe3] };
        LeaseAttributes {
            public_ip: Some(Ipv4Addr::new(192, 0, 2, 1)),
            backend_type: BackendType::Vxlan,
            backend_data: data.to_backend_data().ok(),
            ..LeaseAttributes::default()
        }
    }

    fn key(text: &str) -> LeaseKey {
        text.parse().expect("a key")
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
        assert_eq!(names.read(&written, key("10.244.1.0-24")), (vxlan(), Gaps::default()));
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
        let dual = key("10.244.1.0-24&fd00:1::-64");
        assert_eq!(names.read(&written, dual), (host_gw, Gaps::default()));
        let v6_only = LeaseAttributes {
            public_ip: None,
            backend_data: None,
            public_ipv6: v6,
            backend_v6_data: vxlan().backend_data,
            ..vxlan()
        };
        let written = names.changes(&v6_only, &Annotations::new());
        assert!(!written.contains_key("f.io/public-ip") && !written.contains_key("f.io/backend-data"));
        assert_eq!(names.read(&written, key("0.0.0.0-0&fd00:1::-64")), (v6_only, Gaps::default()));
        let data = |port: u16| {
            WireguardData { public_key: [7; 32], port: port.try_into().ok() }.to_backend_data().ok()
        };
        let wireguard = LeaseAttributes {
            backend_type: BackendType::Wireguard,
            backend_data: data(51820),
            public_ipv6: v6,
            backend_v6_data: data(51821),
            ..vxlan()
        };
        let written = names.changes(&wireguard, &Annotations::new());
        assert_eq!(
            written["f.io/backend-v6-data"],
            r#"{"PublicKey":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","Port":51821}"#
        );
        assert_eq!(names.read(&written, dual), (wireguard, Gaps::default()));
        let damaged =
            Annotations::from_iter(written.into_iter().chain([("f.io/backend-data".into(), "{}".into())]));
        let gap = names.read(&damaged, dual).1.ipv4;
        assert_eq!(
            gap.as_deref(),
            Some("annotation f.io/backend-data cannot be used: missing field `PublicKey`")
        );
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
    fn what_is_missing_or_malformed_is_named_for_the_family_that_lacks_it_and_for_no_other() {
        let names = Names::new("f.io").expect("valid");
        let data = r#"{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}"#;
        let whole = pairs(&[
            ("f.io/backend-type", "vxlan"),
            ("f.io/public-ip", "::ffff:192.0.2.1"), // an IPv4 address, as Go reads it
            ("f.io/backend-data", data),
            ("f.io/public-ipv6", "2001:db8::1"),
            ("f.io/backend-v6-data", data),
        ]);
        let dual = key("10.244.1.0-24&fd00:1::-64");
        let (attributes, gaps) = names.read(&whole, dual);
        assert_eq!((attributes.public_ip, gaps), (Some(Ipv4Addr::new(192, 0, 2, 1)), Gaps::default()));
        let with = |name: &str, value: Option<&str>, key| {
            let mut present = whole.clone();
            match value {
                Some(value) => present.insert(name.to_owned(), value.to_owned()),
                None => present.remove(name),
            };
            names.read(&present, key).1
        };
        for (name, value, problem) in [
            ("f.io/public-ip", None, "is missing"),
            ("f.io/public-ip", Some(""), "is missing"),
            ("f.io/public-ip", Some("fd00::1"), "is not an address: `fd00::1`"),
            ("f.io/public-ip", Some("0.0.0.0"), "is missing"),
            ("f.io/backend-data", None, "is missing"),
            ("f.io/backend-data", Some("null"), "is missing"),
            ("f.io/backend-data", Some("{"), "cannot be read: "),
            ("f.io/backend-data", Some("{}"), "cannot be used: missing field `VtepMAC`"),
            ("f.io/public-ipv6", None, "is missing"),
            ("f.io/public-ipv6", Some("x"), "is not an address: `x`"),
            ("f.io/backend-v6-data", None, "is missing"),
        ] {
            let Gaps { ipv4, ipv6 } = with(name, value, dual);
            let (lacking, other) = if name.contains("v6") { (ipv6, ipv4) } else { (ipv4, ipv6) };
            let expected = format!("annotation {name} {problem}");
            assert!(lacking.as_ref().is_some_and(|text| text.starts_with(&expected)), "{lacking:?}");
            assert_eq!(other, None, "{name}");
        }
        let untyped = Some("annotation f.io/backend-type is missing".to_owned());
        assert_eq!(
            with("f.io/backend-type", None, dual),
            Gaps { ipv4: untyped.clone(), ipv6: untyped.clone() }
        );
        assert_eq!(with("f.io/backend-type", None, key("10.244.1.0-24")), Gaps { ipv4: untyped, ipv6: None });
        assert_eq!(with("f.io/public-ipv6", Some("x"), key("10.244.1.0-24")), Gaps::default());
        // A backend without data, and one without a name.
        assert_eq!(
            names.read(&pairs(&[("f.io/backend-type", ""), ("f.io/public-ip", "192.0.2.1")]), dual).1.ipv4,
            None
        );
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
                let (read, _gaps) = names.read(node.annotations(), key("10.244.1.0-24&fd00:1::-64"));
                let _data = read.backend_data.map(|data| data.decode::<VxlanData>());
            }
        }
    }
}
