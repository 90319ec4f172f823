//! The objects in `deploy/` and the documented commands on a real API server and controller manager; the test plays the scheduler
//! and the kubelets.
#![expect(clippy::unwrap_used, reason = "set-up that fails is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use testkit::{KubeApiserver, wait_for};

const NODES: [&str; 3] = ["a", "b", "c"];
const LONG: Duration = Duration::from_secs(90);
/// Upstream's manifest of v0.28.9, whose DaemonSet selects `app` alone.
const UPSTREAM: &str = "flanneld/tests/e2e/golden/upstream/kube-flannel.yml";
const OURS: &str = "deploy/kubernetes/kube-flannel.yml";

fn cluster() -> KubeApiserver {
    let mut api = KubeApiserver::start().unwrap();
    api.start_controllers().unwrap();
    for name in NODES {
        api.add_node(name, &[]).unwrap();
    }
    api
}

/// Runs commands that need no kubelet: whether they succeed, and what they print.
fn run(api: &KubeApiserver, script: &str) -> (bool, String) {
    let done = api.shell(script).unwrap().output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), text)
}

#[track_caller]
fn succeed(api: &KubeApiserver, script: &str) -> String {
    let (success, text) = run(api, script);
    assert!(success, "{script}: {text}");
    text
}

/// Runs commands while the kubelets work. Never may more than one node be without a ready pod of flannel's, if `seamless`.
#[track_caller]
fn live(api: &KubeApiserver, script: &str, seamless: bool) -> String {
    let mut child = api.shell(script).unwrap().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = wait_for(LONG, || {
        if seamless {
            let served: BTreeSet<_> = daemons(api).iter().filter(|pod| is_ready(pod)).map(node_of).collect();
            assert!(served.len() + 1 >= NODES.len(), "only {served:?} have a daemon");
        }
        api.play_kubelets().unwrap();
        child.try_wait().unwrap()
    });
    if ended.is_none() {
        child.kill().unwrap();
    }
    let done = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(ended.is_some_and(|status| status.success()), "{ended:?} {script}: {text}");
    text
}

/// The pods of flannel's DaemonSets, of either kind, that are not on their way out.
fn daemons(api: &KubeApiserver) -> Vec<Value> {
    let mut pods = api.pods().unwrap();
    pods.retain(|pod| {
        pod["metadata"]["labels"]["app"] == "flannel" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    pods
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Ready"))
}

fn node_of(pod: &Value) -> String {
    pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()
}

/// The commands of a page between the fences of the block that has this text in it.
fn documented(page: &str, text: &str) -> String {
    let page = fs::read_to_string(format!("{}/../docs/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.into_iter().find(|block| block.contains(text)).unwrap().to_owned()
}

#[track_caller]
fn assert_replaced(api: &KubeApiserver) {
    let pods = daemons(api);
    let images = pods.iter().map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap());
    assert_eq!(images.collect::<Vec<_>>(), ["flannel:0.1.0"; 3]);
    assert_eq!(pods.iter().map(node_of).collect::<BTreeSet<_>>(), NODES.map(str::to_owned).into());
}

#[test]
#[ignore = "needs a real kube-apiserver and kube-controller-manager: make test-kube"]
fn the_documented_commands_swap_a_daemonset_whose_selector_is_another_node_by_node() {
    let api = cluster();
    live(
        &api,
        &format!("kubectl apply -f {UPSTREAM}\nkubectl -n kube-flannel rollout status ds/kube-flannel-ds"),
        false,
    );
    let objects = || {
        succeed(
            &api,
            "kubectl -n kube-flannel get ds,cm,sa -o yaml; kubectl get clusterroles flannel -o yaml",
        )
    };
    let before = objects();

    let check = documented("migration.md", "--dry-run=server");
    let (selector, dry_run) = check.lines().partition::<Vec<_>, _>(|line| line.contains("jsonpath"));
    let (success, text) = run(&api, &dry_run.join("\n"));
    assert!(!success && text.contains("spec.selector") && text.contains("field is immutable"), "{text}");
    assert_eq!(succeed(&api, &selector.join("\n")), r#"{"app":"flannel"}"#);
    assert_eq!(objects(), before, "the check changes nothing");

    live(&api, &documented("migration.md", "--cascade=orphan"), true);
    assert_replaced(&api);
}

#[test]
#[ignore = "needs a real kube-apiserver and kube-controller-manager: make test-kube"]
fn our_manifest_swaps_upstreams_released_one_in_place_and_its_daemons_keep_their_permissions() {
    let api = cluster();
    let folder = tempfile::tempdir().unwrap();
    // How upstream releases it (Documentation/kustomization).
    let kustomization = "commonLabels: {k8s-app: flannel}\nresources: [kube-flannel.yml]\n";
    fs::write(folder.path().join("kustomization.yaml"), kustomization).unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    fs::copy(format!("{root}/{UPSTREAM}"), folder.path().join("kube-flannel.yml")).unwrap();
    let rollout = "kubectl -n kube-flannel rollout status ds/kube-flannel-ds";
    live(&api, &format!("kubectl apply -k {}\n{rollout}", folder.path().display()), false);
    let pod = daemons(&api)[0]["metadata"]["name"].as_str().unwrap().to_owned();

    succeed(&api, &format!("kubectl apply -f {OURS}"));
    // One that restarts on a node that is not swapped yet: main.go and pkg/subnet/kube/kube.go of upstream.
    let requests = format!(
        r#"TOKEN=$(kubectl -n kube-flannel create token flannel)
        SERVER=$(kubectl config view -o jsonpath='{{.clusters[0].cluster.server}}')/api/v1
        ask() {{
            curl --silent --show-error --fail --insecure --max-time 20 --output /dev/null --header "Authorization: Bearer $TOKEN" "$@"
        }}
        ask $SERVER/namespaces/kube-flannel/pods/{pod}
        ask $SERVER/nodes/a
        ask "$SERVER/nodes?limit=500&resourceVersion=0"
        ask "$SERVER/nodes?watch=true&timeoutSeconds=1"
        ask --request PATCH --header "Content-Type: application/strategic-merge-patch+json" $SERVER/nodes/a/status \
            --data '{{"metadata":{{"annotations":{{"flannel.alpha.coreos.com/public-ip":"192.0.2.1"}}}}}}'"#
    );
    succeed(&api, &requests);

    live(&api, rollout, true);
    assert_replaced(&api);
}

#[test]
#[ignore = "needs a real kube-apiserver and kube-controller-manager: make test-kube"]
fn the_documented_commands_remove_flannel_and_clean_every_node() {
    let api = cluster();
    live(
        &api,
        &format!("kubectl apply -f {OURS}\nkubectl -n kube-flannel rollout status ds/kube-flannel-ds"),
        false,
    );
    assert_replaced(&api);
    // No kubelet has a log to show.
    let commands = documented("kubernetes.md", "kube-flannel-cleanup");
    let (until, rest) = commands.split_once("rollout status ds/kube-flannel-cleanup").unwrap();
    live(&api, &format!("{until}rollout status ds/kube-flannel-cleanup"), false);
    let pods = api.pods().unwrap();
    let cleaned =
        pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == "flannel-cleanup").map(node_of);
    assert_eq!(cleaned.collect::<BTreeSet<_>>(), NODES.map(str::to_owned).into());
    let last = rest.lines().filter(|line| !line.contains(" logs ")).skip(1).collect::<Vec<_>>().join("\n");
    live(&api, &last, false);
    assert!(api.pods().unwrap().is_empty());
}
