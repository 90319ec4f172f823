//! What an etcd may contain without harm to nodes that list and follow it.

use std::convert::Infallible;
use std::process::Command;

use flannel_lease::conformance::{Harness, Watcher, node, quick, request, within};
use flannel_lease::etcd::{EtcdOptions, EtcdStore};
use flannel_lease::{Chain, LeaseStore as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::harness::etcd::EtcdLab;

/// Writes a value of a megabyte under each of these keys of `subnets/`.
fn put_megabytes(lab: &EtcdLab, keys: impl Iterator<Item = String>) {
    let file = lab.dir.path().join("megabyte");
    std::fs::write(&file, "x".repeat(1 << 20)).unwrap();
    let puts: String = keys
        .map(|key| format!("{} put '{}' < {} &&\n", lab.ctl_command(), EtcdLab::path(&key), file.display()))
        .collect();
    let status = Command::new("sh").args(["-c", &format!("{puts} true")]).status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_megabyte_hide_no_other_lease_from_a_listing_or_a_watch() {
    let lab = EtcdLab::new().await;
    let other = lab.open(quick()).await.acquire(&request(node(2))).await.unwrap();
    put_megabytes(&lab, (1..=70).map(|n| format!("10.250.{n}.0-24")));
    let store = lab.open(quick()).await;
    assert_eq!(store.find(&node(2)).await.unwrap().map(|lease| lease.key), Some(other.key));
    let own = within("a lease", store.acquire(&request(node(1)))).await.unwrap();
    assert_ne!(own.key, other.key);
    let mut watcher = Watcher::start(&store);
    watcher.until("the listing", |table| table.synced()).await;
    assert_eq!(watcher.table.len(), 2, "{:?}", watcher.seen);
    assert_eq!(watcher.seen.iter().filter(|event| event.starts_with("?10.250.")).count(), 70);

    put_megabytes(&lab, (71..=90).map(|n| format!("10.250.{n}.0-24")));
    let new = lab.open(quick()).await.acquire(&request(node(3))).await.unwrap();
    watcher.until("one more", |table| table.peer(new.key).is_some()).await;
    assert_eq!(store.health().borrow().last_error, None);
}

/// A `RangeResponse` with one entry for each key, and `more` set.
fn page(keys: &[String]) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let entry = |key: &String| {
        let field = [&[0x0a, length(key)], key.as_bytes()].concat();
        [&[0x12, u8::try_from(field.len()).unwrap()], field.as_slice()].concat()
    };
    [keys.iter().flat_map(entry).collect(), vec![0x18, 1]].concat()
}

/// A server that answers each request for keys with the next of `pages`, over and over, and other requests with nothing.
async fn endless(pages: fn(u64) -> Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = std::sync::Arc::clone(&asked);
            let service = service_fn(move |request: Request<Incoming>| {
                let message = match request.uri().path() {
                    "/etcdserverpb.KV/Range" => {
                        pages(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    }
                    _ => Vec::new(),
                };
                let head = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat();
                let trailers =
                    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
                let body = Full::new(Bytes::from([head, message].concat()))
                    .with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
                let answer = Response::builder().header(CONTENT_TYPE, "application/grpc").body(body);
                async { answer }
            });
            tokio::spawn(
                http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_without_end_is_an_error_and_not_the_whole_list() {
    let keys = |first: u64| page(&(0..1000).map(|n| format!("k{:09}", first * 1000 + n)).collect::<Vec<_>>());
    for pages in [keys, |_| page(&["same".to_owned()]), |_| page(&[])] {
        let store = EtcdStore::new(&EtcdOptions::new(vec![endless(pages).await]), quick()).unwrap();
        let error = within("a refusal", store.acquire(&request(node(1)))).await.unwrap_err();
        assert!(Chain(&error).to_string().contains("or no end"), "{}", Chain(&error));
    }
}
