//! How the API server is reached: kubeconfig, TLS, credentials, and the name that flanneld goes by.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flannel_lease::kube::{KubeOptions, KubeStore};
use flannel_lease::{Chain, LeaseStore, Stack, StoreErrorKind};
use serde_json::{Value, json};
use testkit::FakeApi;

use crate::harness::certificates::{certificates, shell, version_1_certificates};
use crate::harness::kube::options;
use crate::harness::tls_front::TlsFront;
use flannel_lease::conformance::{Watcher, key, node, request, within};

const V4: Stack = Stack { ipv4: true, ipv6: false };

fn server() -> FakeApi {
    let api = FakeApi::start().unwrap();
    api.add_node("a", &["10.244.1.0/24"]);
    api
}

/// Options that lead through a kubeconfig in `folder` to the server at `url`.
pub(crate) fn with_kubeconfig(api: &FakeApi, folder: &Path, url: &str, user: &Value) -> KubeOptions {
    let file = folder.join("config");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": url, "certificate-authority": folder.join("ca.pem") } }],
        "users": [{ "name": "u", "user": user }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    let mut config = config;
    if !folder.join("ca.pem").exists() {
        config["clusters"][0]["cluster"].as_object_mut().unwrap().remove("certificate-authority");
    }
    std::fs::write(&file, config.to_string()).unwrap();
    KubeOptions { api_url: None, kubeconfig: Some(file), ..options(api, "a") }
}

pub(crate) fn with_token(file: &Path) -> Value {
    json!({ "tokenFile": file })
}

/// The client certificate of a folder as files, relative to the kubeconfig.
fn files() -> Value {
    json!({ "client-certificate": "client.pem", "client-key": "client.key" })
}

/// The client certificate of a folder within the kubeconfig.
fn inline(folder: &Path) -> Value {
    let data = |name: &str| shell(folder, &format!("base64 -w 0 {name}"));
    json!({ "client-certificate-data": data("client.pem"), "client-key-data": data("client.key") })
}

async fn take(options: &KubeOptions) -> Result<(), String> {
    let store = KubeStore::open(options, V4).await.map_err(|error| Chain(&error).to_string())?;
    let lease = within("an answer", store.acquire(&request(node(1)))).await;
    lease.map(|lease| assert_eq!(lease.key, key("10.244.1.0-24"))).map_err(|error| Chain(&error).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_of_any_x509_version_are_shown() {
    let api = server();
    for make in [certificates, version_1_certificates] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        make(folder);
        let front = TlsFront::start(folder, &api.url());
        for user in [files(), inline(folder)] {
            take(&with_kubeconfig(&api, folder, &front.url(), &user)).await.unwrap();
        }
        let upper = front.url().replace("https", "HTTPS");
        take(&with_kubeconfig(&api, folder, &upper, &files())).await.unwrap();
        let error = take(&with_kubeconfig(&api, folder, &front.url(), &json!({}))).await.unwrap_err();
        assert!(error.contains("check that the API server at"), "{error}");
        // The server's certificate is for 127.0.0.1 only.
        let elsewhere = front.url().replace("127.0.0.1", "localhost");
        let error = take(&with_kubeconfig(&api, folder, &elsewhere, &files())).await.unwrap_err();
        assert!(error.contains("certificate not valid for name \"localhost\""), "{error}");
    }
}

/// Acquires the lease again. A request that still went into a connection that was just cut may fail.
async fn reconnect(store: &KubeStore) {
    within("an answer", async {
        loop {
            match store.acquire(&request(node(1))).await {
                Err(error) if error.kind == StoreErrorKind::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => return answer.unwrap(),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_client_certificate_is_read_for_each_new_connection() {
    let api = server();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificates(folder);
    let front = TlsFront::start(folder, &api.url());
    let store = KubeStore::open(&with_kubeconfig(&api, folder, &front.url(), &files()), V4).await.unwrap();
    store.acquire(&request(node(1))).await.unwrap();
    // The server asks for clients of another authority from now on; half a renewal does no harm.
    std::fs::write(folder.join("client.pem"), "").unwrap();
    front.cut();
    reconnect(&store).await;
    let other = tempfile::tempdir().unwrap();
    version_1_certificates(other.path());
    shell(
        folder,
        &format!("cp {0}/client.pem {0}/client.key . && cp {0}/ca.pem clients.pem", other.path().display()),
    );
    front.cut();
    reconnect(&store).await;
}

#[tokio::test]
async fn a_client_certificate_that_cannot_be_used_is_named_and_not_quoted() {
    let api = server();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificates(folder);
    for (user, problem) in [
        (json!({ "client-certificate": "client.pem" }), "client.pem`: its key is missing"),
        (json!({ "client-key": "client.key" }), "client.key`: its certificate is missing"),
        (
            json!({ "client-certificate": "client.pem", "client-key": "server.key" }),
            "does not belong to the certificate",
        ),
        (
            json!({ "client-certificate": "client.pem", "client-key": "none.key" }),
            "none.key`: the file cannot be read",
        ),
        (
            json!({ "client-certificate": "ca.key", "client-key": "client.key" }),
            "ca.key`: it holds no certificate",
        ),
        (
            json!({ "client-certificate": "client.pem", "client-key-data": "s3cret" }),
            "client-key-data: it is not base64",
        ),
    ] {
        let error = take(&with_kubeconfig(&api, folder, "https://127.0.0.1:1", &user)).await.unwrap_err();
        assert!(error.contains(problem) && !error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn every_request_says_which_flanneld_sends_it() {
    let api = server();
    take(&options(&api, "a")).await.unwrap();
    assert_eq!(api.user_agents(), ["flanneld/test (linux/amd64)"]);
}

/// Nodes that start together, or lose a server together, must not come back in step.
#[tokio::test]
async fn watches_of_different_nodes_end_at_different_times() {
    let api = server();
    let mut watchers = Vec::new();
    for _node in 0..12 {
        let store: Arc<dyn LeaseStore> = Arc::new(KubeStore::open(&options(&api, "a"), V4).await.unwrap());
        let mut watcher = Watcher::start(&store);
        watcher.until("the listing", |table| table.synced()).await;
        watchers.push(watcher);
    }
    let timeouts = api.watch_timeouts();
    assert!(timeouts.iter().all(|seconds| (300..=600).contains(seconds)), "{timeouts:?}");
    let different: BTreeSet<_> = timeouts.iter().collect();
    assert!(different.len() >= 6, "{timeouts:?}");
}

#[tokio::test]
async fn a_prefix_or_kubeconfig_that_cannot_be_used_is_named() {
    let api = server();
    let refused = async |options: KubeOptions| {
        let error = KubeStore::open(&options, V4).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unusable);
        Chain(&error).to_string()
    };
    let prefix = KubeOptions { annotation_prefix: "a/b/c".to_owned(), ..options(&api, "a") };
    assert!(refused(prefix).await.contains("at most single slash, got `a/b/c`"));
    let file = KubeOptions { kubeconfig: Some("/nonexistent/config".into()), ..options(&api, "a") };
    let expected = "cannot use Kubernetes as lease store: correct --kubeconfig-file `/nonexistent/config`: ";
    let text = refused(file).await;
    assert!(text.starts_with(expected), "{text}");
    let url = KubeOptions { api_url: Some("::".to_owned()), ..options(&api, "a") };
    assert!(refused(url).await.contains("--kube-api-url ::"));
}

#[tokio::test]
async fn a_kubeconfig_brings_server_and_token() {
    let api = server();
    api.require_token("s3cret");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let options = with_kubeconfig(&api, folder.path(), &api.url(), &with_token(&token));
    let store = KubeStore::open(&options, V4).await.unwrap();
    assert_eq!(store.acquire(&request(node(1))).await.unwrap().key, key("10.244.1.0-24"));
    assert!(!format!("{store:?}").contains("s3cret"));
}

/// An HTTP proxy; returns its URL and what it was asked to connect to.
fn proxy() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://me:secret@{}", listener.local_addr().unwrap());
    let (asked_tx, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let mut server = std::net::TcpStream::connect(&target).unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            asked_tx.send(head).unwrap();
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            std::thread::spawn(move || std::io::copy(&mut client, &mut server));
        }
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubeconfig_may_name_a_proxy_with_a_password() {
    let api = server();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificates(folder);
    let front = TlsFront::start(folder, &api.url());
    let (url, asked) = proxy();
    let options = with_kubeconfig(&api, folder, &front.url(), &files());
    let set_proxy = |url: &str| {
        let file = options.kubeconfig.as_ref().unwrap();
        let mut config: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        config["clusters"][0]["cluster"]["proxy-url"] = json!(url);
        std::fs::write(file, config.to_string()).unwrap();
    };
    set_proxy(&url);
    take(&options).await.unwrap();
    let head = asked.recv().unwrap();
    assert!(head.starts_with(&format!("CONNECT {} ", front.url().replace("https://", ""))), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic bwu6c2vjcmv0"), "{head}");

    set_proxy("socks5://me:secret@127.0.0.1:1080");
    let error = take(&options).await.unwrap_err();
    assert!(error.contains("the proxy at 127.0.0.1 is not an HTTP proxy"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
