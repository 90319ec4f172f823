//! `flanneld manifest`: the Kubernetes objects of `deploy/kubernetes/kube-flannel.yml` for an image, a pod network, a backend
//! and a platform.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};

use crate::config::{ManifestOptions, Platform};

/// What the chart in `deploy/chart` renders with its defaults; a link, so that crates.io gets the file too.
const TEMPLATE: &str = include_str!("kube-flannel.yml");
const IMAGE: &str = concat!("flannel:", env!("CARGO_PKG_VERSION"));
const NET_CONF: &str = "  net-conf.json: |\n";
const INSTALL_CNI: &str = "        - name: install-cni\n";

/// The objects as YAML. With defaults this is the committed file, byte for byte.
#[must_use]
pub fn render(asked: &ManifestOptions) -> String {
    let mut text = TEMPLATE.to_owned();
    if asked.platform == Platform::Kind {
        text = text.replace(INSTALL_CNI, &format!("{}{INSTALL_CNI}", reference_plugins()));
    }
    if asked.platform == Platform::K3s {
        let folders = [
            ("path: /opt/cni/bin\n", "path: /var/lib/rancher/k3s/data/cni\n"),
            ("path: /etc/cni/net.d\n", "path: /var/lib/rancher/k3s/agent/etc/cni/net.d\n"),
        ];
        text = folders.iter().fold(text, |text, (usual, own)| text.replace(usual, own));
    }
    if let Some(image) = &asked.image {
        text = text.replace(IMAGE, image);
    }
    let Some((before, rest)) = text.split_once(NET_CONF) else { return text };
    let after = rest.split_once("---\n").map_or("", |(_, after)| after);
    let conf = format!("{:#}", net_conf(asked));
    let conf: String = conf.lines().map(|line| format!("    {line}\n")).collect();
    format!("{before}{NET_CONF}{conf}---\n{after}")
}

fn net_conf(asked: &ManifestOptions) -> Value {
    let mut conf = Map::new();
    conf.insert("EnableNFTables".to_owned(), true.into());
    conf.insert("Backend".to_owned(), json!({ "Type": asked.backend }));
    let usual = asked.ipv6_network.is_none().then(|| Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16));
    match asked.network.or(usual) {
        Some(network) => conf.insert("Network".to_owned(), network.trunc().to_string().into()),
        None => conf.insert("EnableIPv4".to_owned(), false.into()),
    };
    if let Some(network) = asked.ipv6_network {
        conf.insert("EnableIPv6".to_owned(), true.into());
        conf.insert("IPv6Network".to_owned(), network.trunc().to_string().into());
    }
    Value::Object(conf)
}

/// An init container that installs the reference plugins, which the nodes of kind lack.
fn reference_plugins() -> String {
    format!(
        "        - name: install-reference-plugins
          image: {IMAGE}-cni-plugins
          imagePullPolicy: IfNotPresent
          command: [cp]
          args: [-f, /cni-plugins/bridge, /cni-plugins/host-local, /cni-plugins/loopback, /cni-plugins/portmap, /opt/cni/bin]
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop:
              - ALL
            readOnlyRootFilesystem: true
          volumeMounts:
            - name: cni-plugin
              mountPath: /opt/cni/bin
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> ManifestOptions {
        ManifestOptions {
            image: None,
            network: None,
            ipv6_network: None,
            backend: "vxlan".to_owned(),
            platform: Platform::Kubernetes,
        }
    }

    #[test]
    fn the_defaults_make_the_committed_file() {
        let committed = std::fs::read_to_string("../deploy/kubernetes/kube-flannel.yml").unwrap();
        assert_eq!(render(&asked()), committed);
    }

    #[test]
    fn image_networks_and_backend_are_where_they_belong() {
        let text = render(&ManifestOptions {
            image: Some("registry.example.org/flannel:1".to_owned()),
            network: None,
            ipv6_network: Some("fd00::1/48".parse().unwrap()),
            backend: "host-gw".to_owned(),
            ..asked()
        });
        assert_eq!(text.matches("image: registry.example.org/flannel:1\n").count(), 3, "{text}");
        assert!(!text.contains(IMAGE));
        let conf = text.split_once(NET_CONF).unwrap().1.split_once("---\n").unwrap().0;
        let conf: Value = serde_json::from_str(conf).unwrap();
        assert_eq!(
            conf,
            json!({ "Backend": { "Type": "host-gw" }, "EnableIPv4": false, "EnableIPv6": true,
                    "EnableNFTables": true, "IPv6Network": "fd00::/48" })
        );
    }

    #[test]
    fn platforms_have_their_folders_and_plugins() {
        let k3s = render(&ManifestOptions { platform: Platform::K3s, ..asked() });
        assert!(
            k3s.contains("path: /var/lib/rancher/k3s/data/cni\n")
                && k3s.contains("mountPath: /opt/cni/bin\n")
        );
        assert!(k3s.contains("path: /var/lib/rancher/k3s/agent/etc/cni/net.d\n"));
        let image = Some("example.org/f:2".to_owned());
        let kind = render(&ManifestOptions { platform: Platform::Kind, image, ..asked() });
        assert!(kind.contains("image: example.org/f:2-cni-plugins\n"), "{kind}");
    }
}
