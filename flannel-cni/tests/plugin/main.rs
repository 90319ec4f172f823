//! The plugin with the real reference plugins, in network namespaces, and the file that it reads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod node;
mod subnet_env;
mod upstream;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use flannel_cni::{Request, answer};
use serde_json::{Value, json};
use testkit::{netns, sh};

use crate::node::{ENV, Node, PLUGINS, addresses};

#[test]
fn a_container_gets_addresses_of_the_nodes_subnets_and_gives_them_back() {
    netns(|| {
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            let node = Node { version, ..Node::new() };
            let _first = node.container("first");
            let result = node.ask("ADD", "first", json!({})).unwrap();
            let [v4, v6] = addresses(&result).try_into().unwrap();
            assert!(v4.starts_with("10.244.7.") && v4.ends_with("/24"), "{v4}");
            assert!(v6.starts_with("fd00:10:244:7::") && v6.ends_with("/64"), "{v6}");
            assert!(sh("ip -o link show cni0").contains("mtu 1430"));
            assert_eq!(node.saved(), ["first"]);
            if version != "0.3.1" {
                node.ask("CHECK", "first", json!({ "prevResult": result })).unwrap();
            }
            node.ask("DEL", "first", json!({})).unwrap();
            assert_eq!(node.saved(), [""; 0]);
            node.ask("DEL", "first", json!({})).unwrap();
            sh("ip link del cni0");
        }
    });
}

#[test]
fn a_delete_that_fails_keeps_what_the_next_try_needs() {
    netns(|| {
        let node = Node { version: "1.0.0", ..Node::new() };
        let _pod = node.container("pod");
        node.ask("ADD", "pod", json!({})).unwrap();
        let nowhere = node.folder.path().to_str().unwrap();
        let error = node.ask_with("DEL", "pod", json!({}), nowhere).unwrap_err();
        assert!(error.message.contains("failed to find plugin \"bridge\""), "{error}");
        assert_eq!(node.saved(), ["pod"]);
        // The file is enough, whatever subnet.env says by now.
        fs::remove_file(node.folder.path().join("subnet.env")).unwrap();
        node.ask("DEL", "pod", json!({})).unwrap();
        assert_eq!(node.saved(), [""; 0]);
        assert_eq!(node.leased(), 0);
    });
}

#[test]
fn what_upstreams_plugin_saved_is_deleted_and_half_a_file_stops_nobody() {
    netns(|| {
        let node = Node { version: "1.0.0", ..Node::new() };
        let _pod = node.container("pod");
        node.ask("ADD", "pod", json!({})).unwrap();
        // Byte for byte as upstream's plugin writes it, for the interface of any name.
        let saved = fs::read(node.state().join("pod")).unwrap();
        let saved: Value = serde_json::from_slice(&saved).unwrap();
        fs::write(node.state().join("pod"), saved.to_string()).unwrap();
        node.ask("DEL", "pod", json!({})).unwrap();

        node.ask("ADD", "pod", json!({})).unwrap();
        fs::write(node.state().join("pod"), "{\"cniVersion\":").unwrap();
        node.ask("DEL", "pod", json!({})).unwrap();
        assert_eq!(node.saved(), [""; 0]);
        assert_eq!(node.leased(), 0);
    });
}

#[test]
fn a_bridge_of_a_former_subnet_goes_once_no_pod_is_on_it() {
    netns(|| {
        let node = Node { version: "1.0.0", ..Node::new() };
        let (_old, _new) = (node.container("old"), node.container("new"));
        node.ask("ADD", "old", json!({})).unwrap();
        let moved = ENV.replace("10.244.7.", "10.244.9.").replace("244:7::", "244:9::");
        fs::write(node.folder.path().join("subnet.env"), moved).unwrap();
        let error = node.ask("ADD", "new", json!({})).unwrap_err();
        assert!(error.message.contains("already has an IP address different from"), "{error}");
        node.ask("DEL", "new", json!({})).unwrap();

        node.ask("DEL", "old", json!({})).unwrap();
        let result = node.ask("ADD", "new", json!({})).unwrap();
        assert!(addresses(&result)[0].starts_with("10.244.9."), "{result}");
        assert!(!sh("ip addr show cni0").contains("10.244.7."));
        // A bridge that is right is left alone, with pods or without.
        let index = sh("ip -o link show cni0 | cut -d: -f1");
        node.ask("DEL", "new", json!({})).unwrap();
        node.ask("ADD", "new", json!({})).unwrap();
        assert_eq!(sh("ip -o link show cni0 | cut -d: -f1"), index);
    });
}

#[test]
fn collected_garbage_is_only_what_the_runtime_no_longer_has_in_this_network() {
    netns(|| {
        let mut node = Node { version: "1.0.0", ..Node::new() };
        let _pods = (node.container("kept"), node.container("gone"));
        node.ask("ADD", "kept", json!({})).unwrap();
        node.ask("ADD", "gone", json!({})).unwrap();
        fs::write(node.state().join("other"), r#"{"name": "another-network", "type": "bridge"}"#).unwrap();
        node.version = "1.1.0";
        let newer = newer_plugins(node.folder.path());
        let error = node.ask_with("GC", "", json!({}), newer.to_str().unwrap()).unwrap_err();
        for part in ["nothing was removed", "cni.dev/valid-attachments", "container runtime"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(node.saved(), ["gone", "kept", "other"]);
        let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "kept", "ifname": "eth0" }] });
        node.ask_with("GC", "", valid, newer.to_str().unwrap()).unwrap();
        assert_eq!(node.saved(), ["kept", "other"]);
        assert_eq!(node.leased(), 2, "one of each family");
    });
}

#[test]
fn status_says_what_keeps_pods_from_starting() {
    netns(|| {
        let node = Node::new();
        let newer = newer_plugins(node.folder.path());
        let newer = newer.to_str().unwrap();
        node.ask_with("STATUS", "", json!({}), newer).unwrap();
        let empty = node.folder.path().to_str().unwrap();
        let error = node.ask_with("STATUS", "", json!({}), empty).unwrap_err();
        assert_eq!((error.code, error.message.contains("host-local")), (50, true), "{error}");
        fs::remove_file(node.folder.path().join("subnet.env")).unwrap();
        let error = node.ask_with("STATUS", "", json!({}), newer).unwrap_err();
        assert_eq!(error.code, 50);
        assert!(error.message.starts_with("failed to load flannel 'subnet.env' file: open "), "{error}");
        assert!(error.message.ends_with(". Check the flannel pod log for this node."), "{error}");
    });
}

/// The reference plugins as they answer to configurations of CNI 1.1: older ones refuse the version before they look at
/// the command, so the version is lowered on the way in, as a runtime that negotiates would.
fn newer_plugins(folder: &Path) -> PathBuf {
    let newer = folder.join("newer");
    fs::create_dir_all(&newer).unwrap();
    for plugin in ["bridge", "host-local"] {
        let script = format!(
            "#!/bin/sh\nexport CNI_PATH={PLUGINS}\n\
             case \"$CNI_COMMAND\" in STATUS|GC) cat >/dev/null; echo '{{\"cniVersion\": \"1.0.0\", \"code\": 4, \"msg\": \"unknown CNI_COMMAND: '$CNI_COMMAND'\"}}'; exit 1;; esac\n\
             sed 's/\"cniVersion\":\"1.1.0\"/\"cniVersion\":\"1.0.0\"/' | exec {PLUGINS}/{plugin}\n"
        );
        let text = newer.join(format!("{plugin}.sh"));
        fs::write(&text, script).unwrap();
        sh(&format!("install {} {}", text.display(), newer.join(plugin).display()));
    }
    newer
}

#[test]
fn wrong_requests_are_refused_by_what_is_wrong() {
    let request = |variables: &[(&str, &str)]| {
        Request::from_environment(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(*value))
        })
    };
    let error = request(&[("CNI_COMMAND", "ADD"), ("CNI_PATH", "/x")]).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (4, "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS] missing")
    );
    let named = |container, ifname| {
        request(&[
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", container),
            ("CNI_IFNAME", ifname),
            ("CNI_PATH", "/x"),
        ])
    };
    assert!(named("a/../../etc/passwd", "eth0").is_err() && named("..", "eth0").is_err());
    assert!(named("a", "../x").is_err() && named("a", "0123456789abcdef").is_err());
    let request = named("a", "eth0").unwrap();
    assert_eq!(answer(&request, b"{").unwrap_err().code, 6);
    assert_eq!(answer(&request, br#"{"cniVersion": "9.0.0"}"#).unwrap_err().code, 1);
    let version = Request { command: "VERSION".to_owned(), ..Request::default() };
    let versions: Value = serde_json::from_slice(&answer(&version, b"").unwrap()).unwrap();
    assert_eq!(versions["supportedVersions"].as_array().unwrap().len(), 7);
}
