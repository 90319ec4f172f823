//! The objects that `flanneld manifest` and the chart make, on a real API server.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::KubeApiserver;

use crate::BINARY;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

fn manifest(arguments: &[&str]) -> String {
    let done = Command::new(BINARY).arg("manifest").args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Has the server do everything but keep the objects. A warning, such as one of Pod Security, is a failure too.
#[track_caller]
fn accepted(api: &KubeApiserver, title: &str, objects: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    fs::write(&file, objects).unwrap();
    let script =
        format!("kubectl apply --server-side --dry-run=server --validate=strict -f {} 2>&1", file.display());
    let done = api.shell(&script).unwrap().output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let kinds = objects.lines().filter(|line| line.starts_with("kind: ")).count();
    let answered = text.lines().filter(|line| line.ends_with(" serverside-applied (server dry run)")).count();
    assert!(done.status.success() && answered == kinds && text.lines().count() == kinds, "{title}: {text}");
}

fn files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(DEPLOY).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned());
    paths
        .filter(|path| path.ends_with(".yml") || path.ends_with(".yaml") && !path.ends_with(".values.yaml"))
        .collect()
}

#[test]
#[ignore = "needs a real kube-apiserver: make test-kube"]
fn a_real_kube_apiserver_accepts_every_object_of_every_platform_backend_and_chart() {
    let api = KubeApiserver::start().unwrap();
    // A dry run creates no namespace for what is in it; the role is the lab's.
    let script =
        "kubectl create namespace kube-flannel; kubectl delete clusterrole,clusterrolebinding flannel";
    assert!(api.shell(script).unwrap().status().unwrap().success());
    let networks: [&[&str]; 3] = [
        &[],
        &["--ipv6-network=fd00:10:244::/56"],
        &["--network=10.244.0.0/16", "--ipv6-network=fd00:10:244::/56"],
    ];
    for platform in ["kubernetes", "k3s", "kind"] {
        for backend in ["vxlan", "host-gw", "ipip", "udp", "wireguard", "alloc"] {
            for network in networks {
                // UDP tunnels carry IPv4 alone.
                if backend == "udp" && !network.is_empty() {
                    continue;
                }
                let (platform, backend) = (format!("--platform={platform}"), format!("--backend={backend}"));
                let arguments: Vec<_> =
                    [&*platform, &*backend].into_iter().chain(network.iter().copied()).collect();
                accepted(&api, &format!("{arguments:?}"), &manifest(&arguments));
            }
        }
    }
    let found: Vec<_> = ["kubernetes", "chart/golden"].into_iter().flat_map(files).collect();
    assert!(found.len() >= 10, "{found:?}");
    for path in found {
        // A template: its head says how to fill it in.
        let objects = fs::read_to_string(&path).unwrap().replace("-NODE", "-a").replace(": NODE", ": a");
        accepted(&api, &path, &objects);
    }
}
