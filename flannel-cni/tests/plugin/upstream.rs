//! Upstream's plugin and this one on the same node, with the reference plugins that support CNI 1.1.
//!
//! `UPSTREAM_CNI_PLUGIN` is the program of `scripts/build-upstream-cni`, `CNI_PLUGINS` the folder of
//! `scripts/build-cni-plugins`.

use std::fs;

use serde_json::{Value, json};
use testkit::{netns, sh};

use crate::node::{ENV, Node, addresses};

const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn setting(name: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "where the programs of these tests are")]
    let value = std::env::var(name);
    value.unwrap_or_else(|_| panic!("{name} is not set: make test-cni sets it"))
}

/// The lines of [`ENV`] of one family, or of both.
fn families() -> [String; 3] {
    let without = |skipped: &[&str]| {
        let lines = ENV.lines().filter(|line| !skipped.iter().any(|start| line.starts_with(start)));
        lines.map(|line| format!("{line}\n")).collect()
    };
    [ENV.to_owned(), without(&["FLANNEL_IPV6_"]), without(&["FLANNEL_NETWORK", "FLANNEL_SUBNET"])]
}

/// A node, and both plugins on it.
struct Both {
    node: Node,
    upstream: String,
    plugins: String,
}

impl Both {
    fn new(version: &'static str, env: &str) -> Self {
        let node = Node { version, ..Node::new() };
        fs::write(node.folder.path().join("subnet.env"), env).unwrap();
        Self { node, upstream: setting("UPSTREAM_CNI_PLUGIN"), plugins: setting("CNI_PLUGINS") }
    }

    #[track_caller]
    fn ours(&self, command: &str, container: &str, more: Value) -> Value {
        self.node.ask_with(command, container, more, &self.plugins).unwrap()
    }

    #[track_caller]
    fn theirs(&self, command: &str, container: &str, more: Value) -> Value {
        self.node.ask_program(&self.upstream, command, container, more, &self.plugins)
    }

    fn saved(&self, container: &str) -> Value {
        serde_json::from_slice(&fs::read(self.node.state().join(container)).unwrap()).unwrap()
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        assert_eq!(self.node.saved(), [""; 0]);
        assert_eq!(self.node.leased(), 0);
        assert_eq!(sh("ip -o link show type veth"), "");
    }
}

/// What depends on neither the address nor the names of interfaces that the delegate made up.
fn shape(result: &Value) -> Value {
    let ips = result["ips"].as_array().unwrap().iter();
    let gateways: Vec<_> = ips.map(|ip| ip["gateway"].clone()).collect();
    let interfaces = result["interfaces"].as_array().unwrap().len();
    json!([result["cniVersion"], gateways, interfaces, result["routes"], result["dns"]])
}

#[test]
#[ignore = "needs upstream's plugin: make test-cni"]
fn either_plugin_saves_the_same_and_deletes_what_the_other_one_added() {
    netns(|| {
        for version in VERSIONS {
            for env in families() {
                let both = Both::new(version, &env);
                let _pods = (both.node.container("one"), both.node.container("two"));
                let upstream = both.theirs("ADD", "one", json!({}));
                let ours = both.ours("ADD", "two", json!({}));
                assert_eq!(shape(&ours), shape(&upstream), "{version} {env}");
                assert_eq!(both.saved("two"), both.saved("one"), "{version} {env}");
                if version != "0.3.1" {
                    both.ours("CHECK", "one", json!({ "prevResult": upstream }));
                    both.theirs("CHECK", "two", json!({ "prevResult": ours }));
                }
                both.ours("DEL", "one", json!({}));
                both.theirs("DEL", "two", json!({}));
                both.assert_nothing_left();
                sh("ip link del cni0");
            }
        }
    });
}

#[test]
#[ignore = "needs upstream's plugin: make test-cni"]
fn what_the_operator_configured_reaches_the_delegate_as_from_upstreams_plugin() {
    netns(|| {
        let both = Both::new("1.0.0", ENV);
        let _pods = (both.node.container("one"), both.node.container("two"));
        let addresses = both.node.folder.path().join("addresses");
        let more = json!({
            "delegate": { "bridge": "cni7", "mtu": 1400, "ipMasq": false, "forceAddress": true, "isGateway": true },
            "ipam": { "dataDir": addresses, "routes": [{ "dst": "192.0.2.0/24" }] },
            "runtimeConfig": { "portMappings": [{ "hostPort": 80, "containerPort": 80, "protocol": "tcp" }] },
        });
        let upstream = both.theirs("ADD", "one", more.clone());
        let ours = both.ours("ADD", "two", more.clone());
        assert_eq!(shape(&ours), shape(&upstream));
        assert_eq!(both.saved("two"), both.saved("one"));
        assert!(sh("ip -o link show cni7").contains("mtu 1400"));
        both.theirs("DEL", "two", more.clone());
        both.ours("DEL", "one", more);
        both.assert_nothing_left();
    });
}

#[test]
#[ignore = "needs upstream's plugin: make test-cni"]
fn status_and_garbage_collection_of_cni_1_1_reach_the_reference_plugins() {
    netns(|| {
        let both = Both::new("1.1.0", ENV);
        let _pods = ["kept", "gone", "lost"].map(|name| both.node.container(name));
        both.ours("STATUS", "", json!({}));
        both.theirs("ADD", "kept", json!({}));
        both.theirs("ADD", "gone", json!({}));
        both.ours("ADD", "lost", json!({}));
        // A crash may leave an address of which nothing but host-local knows.
        fs::remove_file(both.node.state().join("lost")).unwrap();
        assert_eq!(both.node.leased(), 6);
        let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "kept", "ifname": "eth0" }] });
        both.ours("GC", "", valid);
        assert_eq!(both.node.saved(), ["kept"]);
        assert_eq!(both.node.leased(), 2, "an address of each family");
        both.theirs("DEL", "kept", json!({}));
        assert_eq!(both.node.leased(), 0);
    });
}

#[test]
#[ignore = "needs upstream's plugin: make test-cni"]
fn a_node_with_another_subnet_starts_pods_once_those_that_upstreams_plugin_added_are_gone() {
    netns(|| {
        let both = Both::new("1.1.0", ENV);
        let _pods = (both.node.container("old"), both.node.container("new"));
        both.theirs("ADD", "old", json!({}));
        let moved = ENV.replace("10.244.7.", "10.244.9.").replace("244:7::", "244:9::");
        fs::write(both.node.folder.path().join("subnet.env"), moved).unwrap();
        both.ours("DEL", "old", json!({}));
        let result = both.ours("ADD", "new", json!({}));
        assert!(addresses(&result)[0].starts_with("10.244.9."), "{result}");
        assert!(!sh("ip addr show cni0").contains("10.244.7."));
        both.ours("DEL", "new", json!({}));
        both.assert_nothing_left();
    });
}
