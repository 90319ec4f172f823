//! TLS to etcd: who is trusted, which certificate is shown, and when files are read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flannel_lease::etcd::{EtcdOptions, EtcdStore};
use flannel_lease::{Chain, LeaseStore, StoreErrorKind};

use crate::harness::certificates::{certificates, shell, version_1_certificates};
use crate::harness::etcd::EtcdLab;
use flannel_lease::conformance::{Harness, Watcher, node, quick, request, within};

fn store(options: &EtcdOptions) -> Arc<dyn LeaseStore> {
    Arc::new(EtcdStore::new(options, quick()).unwrap())
}

/// A server with the certificates that `make` puts into its folder.
async fn tls_lab(make: impl Fn(&Path), client_certificates: bool) -> EtcdLab {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut server = vec!["--cert-file".into(), file("server.pem"), "--key-file".into(), file("server.key")];
    if client_certificates {
        server.extend(["--client-cert-auth".into(), "--trusted-ca-file".into(), file("ca.pem")]);
    }
    let ctl = [("--cacert", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.key")];
    let ctl = ctl.iter().flat_map(|(flag, name)| [(*flag).to_owned(), file(name)]).collect();
    EtcdLab::start(dir, "https", server, ctl).await
}

fn file(lab: &EtcdLab, name: &str) -> Option<PathBuf> {
    Some(lab.dir.path().join(name))
}

/// All three files.
fn whole(lab: &EtcdLab) -> EtcdOptions {
    EtcdOptions {
        ca_file: file(lab, "ca.pem"),
        cert_file: file(lab, "client.pem"),
        key_file: file(lab, "client.key"),
        ..lab.options()
    }
}

/// What is told of a lease that cannot be taken.
async fn refusal(options: &EtcdOptions) -> String {
    let error = within("a refusal", store(options).acquire(&request(node(2)))).await.unwrap_err();
    Chain(&error).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_and_asked_for() {
    let lab = tls_lab(certificates, true).await;
    let lease = store(&whole(&lab)).acquire(&request(node(1))).await.unwrap();
    assert_eq!(lab.read(&lease.key.to_string()).await, Some(node(1).to_json().unwrap()));
    let ca_only = EtcdOptions { cert_file: None, key_file: None, ..whole(&lab) };
    let text = refusal(&ca_only).await;
    assert!(text.contains("--etcd-certfile"), "{text}");

    let half = EtcdOptions { key_file: None, ..whole(&lab) };
    let error = EtcdStore::new(&half, quick()).unwrap_err();
    assert!(error.to_string().contains("--etcd-keyfile"), "{error}");
    let missing = EtcdOptions { ca_file: file(&lab, "none.pem"), ..lab.options() };
    let error = EtcdStore::new(&missing, quick()).unwrap_err();
    assert!(error.to_string().contains("--etcd-cafile"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_x509_version_1_are_for_the_server_to_judge() {
    let lab = tls_lab(version_1_certificates, true).await;
    let lease = store(&whole(&lab)).acquire(&request(node(1))).await.unwrap();
    assert_eq!(lab.read(&lease.key.to_string()).await, Some(node(1).to_json().unwrap()));

    // Of another authority: etcd refuses it, and the message names it.
    let other = tempfile::tempdir().unwrap();
    version_1_certificates(other.path());
    let stranger = EtcdOptions {
        cert_file: Some(other.path().join("client.pem")),
        key_file: Some(other.path().join("client.key")),
        ..whole(&lab)
    };
    let text = refusal(&stranger).await;
    assert!(text.contains("refuses the client certificate") && text.contains("--etcd-certfile"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_client_certificate_is_told_by_its_dates() {
    let lab = tls_lab(certificates, true).await;
    let expire =
        "openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -days -1 -extfile ext -out expired.pem";
    shell(lab.dir.path(), expire);
    let text = refusal(&EtcdOptions { cert_file: file(&lab, "expired.pem"), ..whole(&lab) }).await;
    assert!(text.contains("refuses the client certificate: check the dates"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_do_not_fit_are_named_at_the_start() {
    let lab = tls_lab(certificates, true).await;
    let wrong_key = EtcdOptions { key_file: file(&lab, "server.key"), ..whole(&lab) };
    let no_key = EtcdOptions { key_file: file(&lab, "client.pem"), ..whole(&lab) };
    let no_certificate = EtcdOptions { cert_file: file(&lab, "client.key"), ..whole(&lab) };
    let no_authority = EtcdOptions { ca_file: file(&lab, "ca.key"), ..whole(&lab) };
    for (options, flag, problem) in [
        (wrong_key, "--etcd-keyfile", "does not belong to the certificate"),
        (no_key, "--etcd-keyfile", "holds no private key"),
        (no_certificate, "--etcd-certfile", "holds no certificate"),
        (no_authority, "--etcd-cafile", "holds no certificate"),
    ] {
        let error = EtcdStore::new(&options, quick()).unwrap_err();
        let text = Chain(&error).to_string();
        assert!(text.contains(flag) && text.contains(problem), "{text}");
        assert_eq!(error.kind, StoreErrorKind::Unusable, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_alone_is_enough_and_a_stranger_is_not_trusted() {
    let lab = tls_lab(certificates, false).await;
    let ca = EtcdOptions { ca_file: file(&lab, "ca.pem"), ..lab.options() };
    store(&ca).acquire(&request(node(1))).await.unwrap();
    for (scheme, other) in [("https://", ""), ("https://", "HTTPS://"), ("127.0.0.1", "[::ffff:127.0.0.1]")] {
        let endpoints = vec![lab.url().replace(scheme, other)];
        store(&EtcdOptions { endpoints, ..ca.clone() }).find(&node(1)).await.unwrap().unwrap();
    }

    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let stranger = EtcdOptions { ca_file: Some(other.path().join("ca.pem")), ..lab.options() };
    let text = refusal(&stranger).await;
    assert!(text.contains("certificate") && text.contains("--etcd-cafile"), "{text}");
    // The server's certificate is for 127.0.0.1 only.
    let elsewhere = vec![lab.url().replace("127.0.0.1", "localhost")];
    let text = refusal(&EtcdOptions { endpoints: elsewhere, ..ca }).await;
    assert!(text.contains("certificate") && text.contains("host of this URL"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_are_read_for_each_new_connection() {
    let lab = tls_lab(certificates, true).await;
    let store = store(&whole(&lab));
    let lease = store.acquire(&request(node(1))).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;

    lab.kill();
    // Everything is signed by another authority from now on, of which there are version 1 certificates.
    version_1_certificates(lab.dir.path());
    lab.serve().await;
    let changed = flannel_lease::LeaseAttributes { backend_data: None, ..node(1) };
    within("a call", async { while store.update(&changed).await.is_err() {} }).await;
    watcher.until("the update", |table| table.peer(lease.key) == Some(&changed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_without_tls_for_a_member_with_tls_is_named_as_a_possible_cause() {
    let lab = tls_lab(certificates, false).await;
    let text = refusal(&EtcdOptions::new(vec![lab.url().replace("https", "http")])).await;
    assert!(text.contains("whether its URL begins with https://"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_matter_to_https_members_only() {
    let lab = EtcdLab::new().await;
    let options = EtcdOptions {
        ca_file: file(&lab, "none.pem"),
        cert_file: file(&lab, "none.pem"),
        key_file: file(&lab, "none.key"),
        ..lab.options()
    };
    store(&options).acquire(&request(node(1))).await.unwrap();
    let endpoints = vec![lab.url().replace("http://", "HTTP://")];
    store(&EtcdOptions { endpoints, ..options }).find(&node(1)).await.unwrap().unwrap();
}
