//! The health port: `/healthz` and `/readyz` as upstream, and `/metrics` and a status page on `/`. Read-only.
//!
//! `/healthz` answers 200 while the daemon works, `/readyz` 200 or 503, both with reasons in the body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::serve::metrics::{self, Format};
use crate::serve::status_page;
use crate::status::query::StatusQuery;
use crate::status::readiness::Readiness;

/// Connections of this host, the kubelet's among them, that are served at once; beyond that the oldest is cut.
const MAX_LOCAL_CONNECTIONS: usize = 256;
/// The same for connections of other hosts and of pods.
const MAX_REMOTE_CONNECTIONS: usize = 64;
/// How long a connection is served at least: a probe sends its request at once, and must not be cut by a burst before
/// it is answered.
const MIN_LIFE: Duration = Duration::from_millis(100);
/// Largest request head, in bytes; a larger one is answered with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest time a client may take to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What is told.
#[derive(Clone, Debug)]
pub struct View {
    /// For `/readyz`.
    pub readiness: watch::Receiver<Readiness>,
    /// For everything else.
    pub status_query: StatusQuery,
}

/// Answers requests until the task is dropped. No client can hold it up, whatever it sends or leaves unsent.
pub async fn serve(listener: TcpListener, view: View) {
    let mut local = Connections::up_to(MAX_LOCAL_CONNECTIONS);
    let mut remote = Connections::up_to(MAX_REMOTE_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A process of this host that connects to an address of this host has that same address.
                let is_local = peer.ip().to_canonical().is_loopback()
                    || stream.local_addr().is_ok_and(|own| own.ip() == peer.ip());
                let connections = if is_local { &mut local } else { &mut remote };
                if connections.make_room(is_local).await {
                    connections.push(tokio::spawn(converse(stream, view.clone())).abort_handle());
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: connections that end give some back.
                debug!(%error, "cannot accept a health connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Connections that are served, the oldest first.
struct Connections {
    max: usize,
    open: VecDeque<(Instant, AbortHandle)>,
}

impl Connections {
    fn up_to(max: usize) -> Self {
        Self { max, open: VecDeque::new() }
    }

    /// Makes room for another connection. If none may be cut yet, waits until one may, or returns `false`.
    async fn make_room(&mut self, waits: bool) -> bool {
        self.open.retain(|(_, connection)| !connection.is_finished());
        if self.open.len() < self.max {
            return true;
        }
        let Some((since, oldest)) = self.open.pop_front() else { return false };
        let left = MIN_LIFE.saturating_sub(since.elapsed());
        if !left.is_zero() && !waits {
            self.open.push_front((since, oldest));
            return false;
        }
        sleep(left).await;
        oldest.abort();
        true
    }

    fn push(&mut self, connection: AbortHandle) {
        self.open.push_back((Instant::now(), connection));
    }
}

pub(crate) async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, view: View) {
    let service = service_fn(|request: Request<Incoming>| {
        let view = view.clone();
        async move {
            let (head, _unread) = request.into_parts();
            Ok::<_, Infallible>(respond(&head.method, head.uri.path(), &head.headers, &view).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        debug!(%error, "health connection failed");
    }
}

async fn respond(method: &Method, path: &str, headers: &HeaderMap, view: &View) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused =
            response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD are answered\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let silent = || {
        let silence = view.status_query.silence().as_secs();
        let readiness = view.readiness.borrow().body();
        let reason = format!(
            "the reconcile loop does not answer; it last made progress {silence} s ago\n{readiness}\n"
        );
        response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, reason)
    };
    match path {
        "/healthz" if view.status_query.is_alive() => {
            response(StatusCode::OK, PLAIN, "flanneld is running".to_owned())
        }
        "/healthz" => silent(),
        "/readyz" => {
            let readiness = view.readiness.borrow();
            let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            response(status, PLAIN, readiness.body())
        }
        "/metrics" => {
            let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
            let Some(status) = view.status_query.ask(false).await else { return silent() };
            response(StatusCode::OK, format.content_type(), metrics::render(&status, format))
        }
        "/" => {
            let Some(status) = view.status_query.ask(true).await else { return silent() };
            let mut page = response(StatusCode::OK, "text/html; charset=utf-8", status_page::render(&status));
            let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            page
        }
        _ => {
            let there_are = "there are /, /healthz, /readyz and /metrics\n".to_owned();
            response(StatusCode::NOT_FOUND, PLAIN, there_are)
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    response
}
