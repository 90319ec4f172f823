//! deploy/kubernetes/own-node-policy.yml on a real API server.

use std::sync::Arc;
use std::time::Duration;

use flannel_lease::conformance::{node, request, within};
use flannel_lease::kube::{KubeOptions, KubeStore};
use flannel_lease::{Chain, LeaseStore, Stack};
use testkit::KubeApiserver;

use crate::harness::kube::options;

const V4: Stack = Stack { ipv4: true, ipv6: false };

fn kubectl(api: &KubeApiserver, script: &str) -> String {
    let output = api.shell(&format!("set -e; {script}")).unwrap().output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real kube-apiserver: make test-kube"]
async fn kube_apiserver_with_the_policy_limits_a_daemon_to_its_own_node() {
    let api = KubeApiserver::start().unwrap();
    for (name, cidr) in [("a", "10.244.1.0/24"), ("b", "10.244.2.0/24")] {
        api.add_node(name, &[cidr]).unwrap();
    }
    kubectl(&api, "kubectl apply -f deploy/kubernetes/kube-flannel.yml");
    let pod = r#"{"spec":{"nodeName":"a","serviceAccountName":"flannel"}}"#;
    kubectl(&api, &format!("kubectl -n kube-flannel run on-a --image=flannel --overrides='{pod}'"));
    let bound = "--bound-object-kind=Pod --bound-object-name=on-a";
    let token = kubectl(&api, &format!("kubectl -n kube-flannel create token flannel {bound}"));
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = std::fs::read_to_string(api.kubeconfig()).unwrap();
    std::fs::write(&kubeconfig, text.replace("token-of-flannel", token.trim())).unwrap();
    // Each attempt publishes something new, or nothing would be written.
    let take = async |name: &str, n: u16| {
        let options = KubeOptions { kubeconfig: Some(kubeconfig.clone()), ..options(&api, name) };
        let store: Arc<dyn LeaseStore> = Arc::new(KubeStore::open(&options, V4).await.unwrap());
        store.acquire(&request(node(n))).await.map(drop)
    };
    take("b", 1).await.expect("without the policy it may change any node");
    take("a", 2).await.unwrap();

    kubectl(&api, "kubectl apply -f deploy/kubernetes/own-node-policy.yml");
    let refused = within("the refusal", async {
        for n in 3.. {
            if let Err(error) = take("b", n).await {
                return Chain(&error).to_string();
            }
            // The server reads new policies within seconds.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        String::new()
    });
    let refused = refused.await;
    assert!(refused.contains("may change only the Node that it runs on, not b"), "{refused}");
    take("a", 999).await.expect("its own node");
    let scale = "kubectl label node b checked=yes";
    kubectl(&api, scale); // others may change nodes as before
}
