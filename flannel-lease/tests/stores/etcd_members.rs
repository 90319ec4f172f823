//! Members of an etcd cluster that are dead, silent or misspelt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flannel_lease::etcd::{EtcdOptions, EtcdStore};
use flannel_lease::{Chain, LeaseAttributes, LeaseStore, StoreErrorKind};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::USER_AGENT;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::harness::cuttable::Cuttable;
use crate::harness::etcd::EtcdLab;
use flannel_lease::conformance::{Harness, Watcher, node, quick, request, within};

/// Less than a start would lose to a member whose connection or answer it waits for.
const AT_ONCE: Duration = Duration::from_millis(1500);
/// When the next member is asked too: `NEXT_MEMBER_DELAY` in src/etcd/connection.rs.
const NEXT_MEMBER_DELAY: Duration = Duration::from_millis(100);

fn store(options: &EtcdOptions) -> Arc<dyn LeaseStore> {
    Arc::new(EtcdStore::new(options, quick()).unwrap())
}

#[tokio::test]
async fn why_etcd_is_out_of_reach_is_said_once_and_for_each_member() {
    let options = EtcdOptions::new(vec!["http://127.0.0.1:1".to_owned()]);
    let error = within("a refusal", store(&options).find(&node(1))).await.unwrap_err();
    let text = Chain(&error).to_string();
    assert!(
        text.ends_with(
            "check that an etcd member runs there: tcp connect error: Connection refused (os error 111)"
        ),
        "{text}"
    );
    // A label of more than 63 bytes is refused before any DNS server is asked.
    let unknown = format!("http://{}.invalid:2379", "x".repeat(64));
    let endpoints = vec!["http://127.0.0.1:1".to_owned(), unknown.clone()];
    let error = within("a refusal", store(&EtcdOptions::new(endpoints)).find(&node(1))).await.unwrap_err();
    let text = Chain(&error).to_string();
    let both =
        format!("http://127.0.0.1:1: tcp connect error: Connection refused (os error 111); {unknown}: ");
    assert!(text.contains(&both), "{text}");
    assert!(text.contains("failed to lookup address information"), "{text}");
    assert!(text.contains("check the name in --etcd-endpoints and the DNS servers"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_passed_over() {
    let lab = EtcdLab::new().await;
    let endpoints = vec!["http://127.0.0.1:1".to_owned(), lab.url()];
    let options = EtcdOptions { endpoints, ..lab.options() };
    let store = store(&options);
    let lease = within("a lease", store.acquire(&request(node(1)))).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the lease", |table| table.peer(lease.key).is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_do_not_answer_cost_a_start_next_to_nothing() {
    let lab = EtcdLab::new().await;
    // Takes connections and says nothing, like a stopped process.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Takes no connection, like a host that is gone: its queue is full, so the kernel drops what else comes.
    let full = TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(0).unwrap();
    let _queued = TcpStream::connect(full.local_addr().unwrap()).await.unwrap();
    let [silent, full] = [&silent, &full].map(|listener| listener.local_addr().unwrap().to_string());
    let url = lab.url();
    for members in [
        vec![format!("http://{full}"), url.clone()],
        vec![format!("http://{silent}"), url.clone()],
        vec![format!("https://{silent}"), url.clone()],
        vec![format!("http://{full}"), format!("http://{silent}"), url.clone()],
    ] {
        let mut durations = Vec::new();
        // A busy machine delays an answer now and then; a member that is waited for delays every one.
        while !durations.iter().any(|duration| *duration < AT_ONCE) {
            let store = store(&EtcdOptions { endpoints: members.clone(), ..lab.options() });
            let began = Instant::now();
            within("an answer", store.find(&node(1))).await.unwrap();
            durations.push(began.elapsed());
            assert!(durations.len() < 10, "{members:?}: {durations:?}");
        }
    }
    // A member that answers in time, which it may not do on a busy machine, is the only one asked.
    let answered_in_time = async {
        loop {
            let unasked = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let second = format!("http://{}", unasked.local_addr().unwrap());
            let store = store(&EtcdOptions { endpoints: vec![url.clone(), second], ..lab.options() });
            let began = Instant::now();
            store.find(&node(1)).await.unwrap();
            if began.elapsed() < NEXT_MEMBER_DELAY {
                return tokio::time::timeout(2 * NEXT_MEMBER_DELAY, unasked.accept()).await;
            }
        }
    };
    let asked = within("an answer in time", answered_in_time).await;
    assert!(asked.is_err(), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_member_in_use_dies_the_next_one_is_followed() {
    let lab = EtcdLab::new().await;
    let cables = [Cuttable::to(lab.address()).await, Cuttable::to(lab.address()).await];
    let endpoints = cables.iter().map(|cable| format!("http://{}", cable.address)).collect();
    let store = store(&EtcdOptions { endpoints, ..lab.options() });
    let own = store.acquire(&request(node(1))).await.unwrap();
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;
    for (dies, n) in [(0, 2), (1, 3)] {
        cables[dies].set_cut(true).await;
        let new = lab.open(quick()).await.acquire(&request(node(n))).await.unwrap();
        watcher.until("what the other one says", |table| table.peer(new.key).is_some()).await;
        let data = node(1).backend_data.filter(|_| n == 3);
        within("a call", store.update(&LeaseAttributes { backend_data: data, ..node(1) })).await.unwrap();
        cables[dies].set_cut(false).await;
    }
    assert!(!watcher.seen.iter().any(|event| event.starts_with('-')), "{:?} {}", watcher.seen, own.key);
}

#[tokio::test]
async fn a_member_that_is_none_is_refused_by_name() {
    for url in ["ftp://127.0.0.1:1", "http://", "http://[::1", "http://exa mple"] {
        let error = EtcdStore::new(&EtcdOptions::new(vec![url.into()]), quick()).unwrap_err();
        assert!(error.to_string().contains(url) && error.kind == StoreErrorKind::Unusable, "{error}");
    }
    let error = EtcdStore::new(&EtcdOptions::new(Vec::new()), quick()).unwrap_err();
    assert!(error.to_string().contains("--etcd-endpoints"), "{error}");
}

#[tokio::test]
async fn every_call_says_which_flanneld_sends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (agents_tx, mut agents) = mpsc::unbounded_channel();
    let server = async move {
        let service = service_fn(|request: Request<Incoming>| {
            agents_tx.send(request.headers()[USER_AGENT].to_str().unwrap().to_owned()).unwrap();
            let unimplemented =
                Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
            async { unimplemented.body(Empty::<Bytes>::new()) }
        });
        let (stream, _) = listener.accept().await.unwrap();
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
    };
    let server = tokio::spawn(server);
    let options =
        EtcdOptions { user_agent: "flanneld/test (linux/amd64)".to_owned(), ..EtcdOptions::new(vec![url]) };
    within("a refusal", store(&options).find(&node(1))).await.unwrap_err();
    for _probe_then_call in 0..2 {
        let agent = within("a call", agents.recv()).await.unwrap();
        assert!(agent.starts_with("flanneld/test (linux/amd64) tonic/"), "{agent}");
    }
    server.abort();
}
